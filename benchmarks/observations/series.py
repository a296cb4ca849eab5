"""Forecasts of one long series by `inrflow train` beside what its users have: climatology, damped persistence, vector
autoregressions and linear inverse models around a seasonal cycle, and linear regression from a tenth of the sensors.

    python benchmarks/observations/series.py [--names NAME ...] [--files FILE ...] [--minutes 1] [--out FILE]

The first four fifths of a series are trained on; forecasts start at many later frames. References are fitted here, with
numpy alone, and chosen on the last fifth of the training frames.
How to read the result: benchmarks/observations/README.md.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from benchmarks.common import Results, as_table, environment
from benchmarks.stations.__main__ import written
from benchmarks.stations.series import MAKERS
from inrflow.cli import main as inrflow
from inrflow.data.batch import TrajectoryBatch
from inrflow.evaluation.forecast import forecast
from inrflow.model.surrogate import Surrogate

TAUGHT, SEEN, LEADS, ORIGINS = 0.8, 10, 20, 400
SHOWN = (1, 6, 20)  # leads
RIDGES = (0.0, 1e-4, 1e-3, 1e-2, 0.1)
HALF_WIDTH_95 = 1.959964
_TOGETHER = 50  # origins


def cycle_design(t: np.ndarray, step: float, units: str | None) -> np.ndarray:
    """Columns (T, 1 + k): 1 and two harmonics of the year, and of the day where frames resolve it."""
    parts = [np.ones(len(t))]
    if units is not None and units.startswith(("days", "hours")):
        day = 1.0 if units.startswith("days") else 24.0
        for period in (365.2425 * day, day):
            if period >= 4 * step:
                for k in (1, 2):
                    parts += [np.cos(2 * np.pi * k * t / period), np.sin(2 * np.pi * k * t / period)]
    return np.stack(parts, 1)


def masked_fit(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least squares (k, M) for each column of values (T, M) by the rows that are known."""
    columns = []
    for column in values.T:
        known = np.isfinite(column)
        columns.append(np.linalg.lstsq(design[known], column[known], rcond=None)[0])
    return np.stack(columns, 1)


def autoregression(z: np.ndarray, lags: int, ridge: float) -> np.ndarray:
    """Coefficients (p r, r) of z(t) by [z(t-1), ..., z(t-p)], of the rows that are known."""
    past = np.concatenate([z[lags - k - 1 : len(z) - k - 1] for k in range(lags)], 1)
    now = z[lags:]
    known = np.isfinite(past).all(1) & np.isfinite(now).all(1)
    gram = past[known].T @ past[known]
    return np.linalg.solve(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), past[known].T @ now[known])


def march(z: np.ndarray, origins: np.ndarray, matrix: np.ndarray, lags: int, leads: int) -> np.ndarray:
    """Forecasts (O, H, r) from the last frames before origins."""
    past = np.concatenate([z[origins - k - 1] for k in range(lags)], 1)
    path = []
    for _ in range(leads):
        code = past @ matrix
        past = np.concatenate([code, past[:, : (lags - 1) * z.shape[1]]], 1)
        path.append(code)
    return np.stack(path, 1)


class References:
    """Fitted to the first `taught` frames of values (T, M)."""

    def __init__(self, t: np.ndarray, values: np.ndarray, taught: int, units: str | None) -> None:
        self.taught = taught
        design = cycle_design(t, float(np.median(np.diff(t))), units)
        usual = design @ masked_fit(design[:taught], values[:taught])
        self.usual, self.scale = usual, np.nanstd(values[:taught], 0) + 1e-12
        left = (values - usual) / self.scale
        self.anomalies = np.nan_to_num(left)  # a value that is missing is taken for usual

    def forecasts(self, origins: np.ndarray, leads: int) -> dict[str, np.ndarray]:
        """Values (O, H, M) by each."""
        usual = np.stack([self.usual[o : o + leads] for o in origins])
        z, taught = self.anomalies, self.taught
        each = (z[1:taught] * z[: taught - 1]).sum(0) / (z[: taught - 1] ** 2).sum(0)
        powers = each[None] ** np.arange(1, leads + 1)[:, None]
        found = {"climatology": np.zeros_like(usual), "damped persistence": z[origins - 1][:, None] * powers}
        if z.shape[1] <= 100:
            found["VAR(3)"] = march(z, origins, autoregression(z[:taught], 3, 0.0), 3, leads)
        inner, starts = round(0.8 * taught), np.arange(round(0.8 * taught), taught - leads, 3)
        axes = np.linalg.svd(z[:inner], full_matrices=False)[2]
        best: tuple[float, tuple] | None = None
        for size, lags, ridge in itertools.product((1, 2, 3, 5, 8, 12, 20, 30, 50, 80), (1, 2, 3), RIDGES):
            if size > len(axes) or 2 * size * lags > inner:
                continue
            codes = z @ axes[:size].T
            path = march(codes, starts, autoregression(codes[:inner], lags, ridge), lags, leads)
            errors = [np.mean((z[starts + h] - path[:, h] @ axes[:size]) ** 2) for h in range(leads)]
            value = float(np.mean(errors))
            if np.isfinite(value) and (best is None or value < best[0]):
                best = value, (size, lags, ridge)
        assert best is not None
        size, lags, ridge = best[1]
        axes = np.linalg.svd(z[:taught], full_matrices=False)[2][:size]
        codes = z @ axes.T
        name = f"LIM, {size} EOFs, {lags} lags"
        found[name] = march(codes, origins, autoregression(codes[:taught], lags, ridge), lags, leads) @ axes
        return {name: usual + path * self.scale for name, path in found.items()}

    def regression(self, rows: np.ndarray, sensors: np.ndarray, frames: int) -> np.ndarray:
        """Values (R, M) of all places from sensors (m,) in the last frames, by ridge regression."""
        z, taught = self.anomalies, self.taught
        past = [z[frames - 1 - k : taught - k][:, sensors] for k in range(frames)]
        design, target = np.concatenate(past, 1), z[frames - 1 : taught]
        cut = round(0.8 * len(design))

        def fit(stop: int, ridge: float) -> np.ndarray:
            gram = design[:stop].T @ design[:stop]
            gram = gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
            return np.linalg.lstsq(gram, design[:stop].T @ target[:stop], rcond=None)[0]

        errors = {r: np.mean((target[cut:] - design[cut:] @ fit(cut, r)) ** 2) for r in RIDGES}
        weights = fit(len(design), min(errors, key=lambda r: errors[r]))
        asked = np.concatenate([z[rows - k][:, sensors] for k in range(frames)], 1)
        return asked @ weights * self.scale + self.usual[rows]


def predicted(
    surrogate: Surrogate, t: np.ndarray, x: np.ndarray, u: np.ndarray, origins: np.ndarray, seen: int, leads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (O, seen + leads, M), in data units, given the `seen` frames before each origin."""
    means, stds = [], []
    for some in np.array_split(origins, -(-len(origins) // _TOGETHER)):
        rows = some[:, None] + np.arange(-seen, leads)
        batch = TrajectoryBatch(torch.as_tensor(t[rows]), torch.as_tensor(x)[None, None], torch.as_tensor(u[rows]))
        answer = forecast(surrogate, surrogate.estimate(batch.first_frames(seen)), batch)
        assert answer.std is not None
        means.append(surrogate.normalisation.invert(answer.mean.double()).flatten(2).numpy())
        stds.append((answer.std * surrogate.normalisation.scale.double()).flatten(2).numpy())
    return np.concatenate(means), np.concatenate(stds)


def measure(path: Path, minutes: float, keep: Path) -> dict[str, Any]:
    """One series: errors by lead, relative to the variance of what is forecast, intervals, seconds."""
    with h5py.File(path) as file:
        t, x, u = file["t"][:], file["x"][:], file["u"][0].astype(float)
        units = file.attrs.get("time_units")
    values = u.reshape(len(u), -1)
    values = np.where(np.isfinite(values), values, np.nan)
    taught = round(TAUGHT * len(t))
    began = time.perf_counter()
    output = keep / path.stem
    inrflow(["train", f"data.train={path}", f"data.frames={taught}", f"training.minutes={minutes}",
             f"output={output}"])
    seconds = time.perf_counter() - began
    surrogate = Surrogate.load(output)
    leads = min(LEADS, (len(t) - taught) // 2)
    last = len(t) - leads
    origins = np.unique(np.linspace(taught, last, ORIGINS).round().astype(int))
    began = time.perf_counter()
    mean, std = predicted(surrogate, t, x, u, origins, SEEN, leads)
    asked = (time.perf_counter() - began) / len(origins)
    truth = np.stack([values[o : o + leads] for o in origins])
    variance = np.nanvar(values[taught:], 0)
    # a channel counts as much as another
    spread = np.repeat(1 / variance.reshape(x.shape[0], -1).mean(0)[None], x.shape[0], 0).ravel()

    def nmse(guess: np.ndarray, places: np.ndarray | slice = slice(None)) -> np.ndarray:
        square = ((guess - target) ** 2 * spread)[..., places]
        return np.nanmean(square, (0, -1))

    target = truth
    references = References(t, values, taught, units)
    errors = {"inrflow": nmse(mean[:, SEEN:])} | {
        name: nmse(guess) for name, guess in references.forecasts(origins, leads).items()}
    inside = np.abs(truth - mean[:, SEEN:]) <= HALF_WIDTH_95 * std[:, SEEN:]
    known = np.isfinite(truth)
    held = [100 * float(inside[:, h][known[:, h]].mean()) for h in range(leads)]
    row: dict[str, Any] = {"series": path.stem, "frames": taught, "seconds": seconds, "asked": asked,
                           "errors": {name: list(value) for name, value in errors.items()}, "held": held}
    count = max(2, round(0.1 * len(x)))
    chosen = np.random.default_rng([11]).permutation(len(x))[:count]
    sensors = np.concatenate([chosen * u.shape[-1] + c for c in range(u.shape[-1])])
    others = np.setdiff1d(np.arange(values.shape[1]), sensors)
    row["sparse"] = {}
    for frames in (1, 5):
        hidden = np.full_like(values, np.nan)
        hidden[:, sensors] = values[:, sensors]
        guess, deviation = predicted(surrogate, t, x, hidden.reshape(u.shape), origins, frames, 0)
        target = values[origins - 1]
        regressed = references.regression(origins - 1, sensors, frames)
        ours = np.abs(target - guess[:, -1]) <= HALF_WIDTH_95 * deviation[:, -1]
        row["sparse"][frames] = [
            float(np.nanmean(((g - target) ** 2 * spread)[:, others])) for g in (guess[:, -1], regressed)
        ] + [100 * float(ours[:, others][np.isfinite(target[:, others])].mean())]
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Error by lead of this package, and the best reference's; intervals; sparse sensors."""
    cells = []
    for row in rows:
        leads = [h for h in SHOWN if h <= len(row["held"])]
        errors = row["errors"]
        others = {name: value for name, value in errors.items() if name != "inrflow"}
        best = [min(others, key=lambda n, h=h: others[n][h - 1]) for h in leads]
        cells.append([
            row["series"], row["frames"], round(row["seconds"], 1), round(1e3 * row["asked"]),
            ", ".join(f"{errors['inrflow'][h - 1]:.4f}" for h in leads),
            ", ".join(f"{others[n][h - 1]:.4f}" for n, h in zip(best, leads, strict=True)), best[0],
            ", ".join(f"{row['held'][h - 1]:.1f}" for h in leads),
            "; ".join(f"{v[0]:.4f} / {v[1]:.4f} ({v[2]:.0f} %)" for v in row["sparse"].values()),
        ])
    header = ("series", "frames", "s", "ms each", f"error at leads {SHOWN}", "best reference", "at first",
              "95 % hold", "a tenth of the sensors, 1 and 5 frames: error / regression (95 % hold)")
    return as_table(header, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="*", default=list(MAKERS), choices=list(MAKERS))
    parser.add_argument("--files", nargs="*", type=Path, default=[], help="the first trajectory of each")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("series.json"), help="JSON file")
    parser.add_argument("--work", type=Path, help="folder for data and runs; by default a temporary one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.out, table, fresh=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        for path in [*(written(folder / "data", name) for name in options.names), *options.files]:
            results.keep(measure(path, options.minutes, folder / "runs"))
    print(f"\n{environment()}\n\n{table(results.rows)}\n\nwritten to {options.out}")


if __name__ == "__main__":
    main()
