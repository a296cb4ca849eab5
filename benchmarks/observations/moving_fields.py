"""Radar-like fields that move: two frames hidden in the middle, inrflow beside advection of their neighbours.

    python benchmarks/observations/moving_fields.py [--names NAME ...] [--files FILE ...] [--minutes 1] [--out FILE]

The reference shifts the frames before and after the hidden ones by one velocity, that which makes these two most alike,
and weighs them by their distance in time; the other is linear interpolation at each place. Three of the made fields do
not move as a whole: `shear` and `wheel` turn, `still` stands.
How to read the result: benchmarks/observations/README.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.optimize import minimize

import inrflow
from benchmarks.common import Results, as_table, quiet_log
from benchmarks.observations.stations import of_file
from benchmarks.stations.base import Network, write
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.numerics.normal import HALF_WIDTH_90
from inrflow.training.problem import Problem
from inrflow.training.train import start_run, train

Wind = Callable[[float, np.ndarray, np.ndarray], tuple[Any, Any]]  # cells a step at a time and places of the unit box


def _network(frames: np.ndarray) -> Network:
    """Of frames (T, n, n)."""
    count = frames.shape[1]
    x = np.stack(np.meshgrid(*2 * [np.arange(count) / count], indexing="ij"), -1).reshape(-1, 2)
    values = frames.reshape(len(frames), -1, 1)
    return Network(np.arange(float(len(frames))), x, values, Description("moving", ("rain",), ("x", "y")))


def _carried(frames: int, size: int, kept: int, wind: Wind, source: float, seed: int) -> Network:
    """Clipped random cells in a wind, cubic semi-Lagrangian steps and exact diffusion in a periodic box, a part of
    which is seen; a steady source; 2 % noise."""
    random, k = np.random.default_rng(seed), np.fft.fftfreq(size) * size
    squares, (i, j) = k[:, None] ** 2 + k**2, np.mgrid[:size, :size].astype(float)
    field = np.fft.ifft2(np.fft.fft2(random.standard_normal((size, size))) * np.exp(-squares / 18)).real
    field, found = np.maximum(field / field.std(), 0), []
    plume = source * np.exp(-((i / size - 0.3) ** 2 + (j / size - 0.2) ** 2) / 0.004)
    for frame in range(frames):
        found.append(field)
        for part in range(8):
            east, north = wind(frame + part / 8, i / size, j / size)
            field = map_coordinates(field, [i - east / 8, j - north / 8], order=3, mode="grid-wrap")
            field = np.fft.ifft2(np.fft.fft2(field) * np.exp(-2e-4 * squares / 8)).real + plume / 8
    whole = np.stack(found)[:, :kept, :kept]
    return _network(whole / whole.std() + 0.02 * random.standard_normal(whole.shape))


def plume() -> Network:
    """A source in a veering wind."""
    return _carried(30, 48, 32, lambda t, x, y: (1.2 * np.cos(0.06 * t), 1.2 * np.sin(0.06 * t)), 0.6, 3)


def shear() -> Network:
    """Cells that turn and are sheared."""
    return _carried(24, 40, 30, lambda t, x, y: (0.6 - 1.5 * np.sin(2 * np.pi * y), 0.2 + 0.7 * np.sin(2 * np.pi * x)),
                    0.0, 4)


def _cells(seed: int, wind: tuple[float, float], scatter: float) -> tuple[np.ndarray, np.random.Generator]:
    """Cells (T, n, n) that are born, move with a wind or nearly, and die; and what to draw more from."""
    random, frames, count = np.random.default_rng(seed), 26, 32
    (i, j), field = np.mgrid[:count, :count], np.zeros((frames, count, count))
    for _ in range(60):
        birth, life, place = random.uniform(-6, frames), random.uniform(4, 12), random.uniform(-10, count + 10, 2)
        speed = np.array(wind) + scatter * random.standard_normal(2)
        width, height = random.uniform(1.5, 4), random.uniform(0.5, 2)
        for frame in range(frames):
            if 0 < (age := frame - birth) < life:
                a, b = place + speed * age
                shape = np.exp(-((i - a) ** 2 + (j - b) ** 2) / (2 * width**2))
                field[frame] += height * np.sin(np.pi * age / life) * shape
    return field, random


def storms() -> Network:
    """Cells that are born, move alike and die."""
    field, random = _cells(8, (1.1, 0.5), 0.15)
    return _network(field + 0.02 * random.standard_normal(field.shape))


def crowd() -> Network:
    """Cells of different velocities, and noise of a tenth."""
    field, random = _cells(21, (0.4, -0.6), 0.5)
    return _network(field + 0.1 * field.std() * random.standard_normal(field.shape))


def hills() -> Network:
    """Cells that are stronger over standing hills, on which it always rains."""
    field, random = _cells(22, (-0.9, 0.7), 0.1)
    relief = gaussian_filter(random.standard_normal(field.shape[1:]), 3)
    relief = np.maximum(relief / relief.std(), 0)
    return _network((field + 0.3) * (0.6 + 0.5 * relief) + 0.02 * random.standard_normal(field.shape))


def wheel() -> Network:
    """Cells that turn around the middle as a solid."""
    return _carried(26, 44, 32, lambda t, x, y: (2.2 * (y - 0.36), -2.2 * (x - 0.36)), 0.0, 23)


def showers() -> Network:
    """Clipped cells that change while they move, less than a cell a step."""
    random, count, frames = np.random.default_rng(1), 24, 40
    whole = gaussian_filter(random.standard_normal((120, 120)), 3)
    whole, changes = np.maximum(whole / whole.std() - 0.3, 0), gaussian_filter(
        random.standard_normal((frames, 120, 120)), (8, 3, 3))
    changes /= changes.std()
    i, j = np.mgrid[:count, :count]
    field = np.stack([map_coordinates(np.maximum(whole + 0.25 * changes[k], 0), [50 + i - 0.55 * k, 50 + j - 0.35 * k],
                                      order=1) for k in range(frames)])
    return _network(field + 0.03 * random.standard_normal(field.shape))


def still() -> Network:
    """Cells that come and go where they are."""
    random = np.random.default_rng(5)
    field = gaussian_filter(random.standard_normal((90, 28, 28)), (3, 2.5, 2.5))[30:-30]
    return _network(field / field.std() + 0.05 * random.standard_normal(field.shape))


FIELDS = {one.__name__: one for one in (plume, storms, showers, shear, still, crowd, hills, wheel)}
HEADER = ("field", "hidden frames: inrflow", "advection", "linear interpolation", "90 % hold", "CPU s")


def advected(x: np.ndarray, first: np.ndarray, last: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Values (H, N) between two frames (N,) of a grid x (N, 2) at shares (H,) of the time between them."""
    axes, order = [np.unique(x[:, k]) for k in (0, 1)], np.lexsort((x[:, 1], x[:, 0]))
    shape = len(axes[0]), len(axes[1])
    before, after, grid = first[order].reshape(shape), last[order].reshape(shape), np.mgrid[: shape[0], : shape[1]]

    def moved(values: np.ndarray, shift: np.ndarray) -> np.ndarray:
        return map_coordinates(values, grid - shift[:, None, None], order=1, mode="nearest")

    def unlike(shift: np.ndarray) -> float:
        return float(np.mean((moved(before, np.asarray(shift)) - after) ** 2))

    start = min(((a, b) for a in np.arange(-12, 12.1, 0.75) for b in np.arange(-12, 12.1, 0.75)), key=unlike)
    shift, found = minimize(unlike, start, method="Nelder-Mead").x, np.empty((len(shares), len(x)))
    for h, share in enumerate(shares):
        both = (1 - share) * moved(before, share * shift) + share * moved(after, (share - 1) * shift)
        found[h, order] = both.reshape(-1)
    return found


def measure(name: str, network: Network, minutes: float) -> dict[str, Any]:
    """Errors in the two hidden frames, shares of their variance."""
    t, x, u = network.t, network.x, network.u.astype(float)
    middle = len(t) // 2 - 1
    hidden, began = [middle, middle + 1], time.process_time()
    kept = np.setdiff1d(np.arange(len(t)), hidden)
    with tempfile.TemporaryDirectory() as folder, quiet_log(Path(folder) / "run") as log:
        path = write(Network(t[kept], x, u[kept], network.description), Path(folder) / "seen.h5")
        with TrajectoryFile(path) as file:
            config = Problem.open(file.path, f"training.minutes={minutes}").config
            surrogate = train(start_run(Problem.of(config, file), log, time.process_time))
    solution = surrogate.assimilate(inrflow.Observations(t[kept], x, u[kept]))
    answer = solution.query(np.repeat(t[hidden], len(x)), np.tile(x, (2, 1)), std=True)
    mean, std = (answer[key].reshape(2, -1) for key in ("mean", "std"))
    truth, first, last = u[hidden, :, 0], u[middle - 1, :, 0], u[middle + 2, :, 0]
    shares = (t[hidden] - t[middle - 1]) / (t[middle + 2] - t[middle - 1])
    linear = first + shares[:, None] * (last - first)
    errors = [float(np.mean((guess - truth) ** 2) / truth.var()) for guess in (
        mean, advected(x, first, last, shares), linear)]
    held = float(np.mean(np.abs(mean - truth) < HALF_WIDTH_90 * std))
    return {"field": name, "errors": errors, "held": held, "seconds": time.process_time() - began}


def table(rows: list[dict[str, Any]]) -> str:
    return as_table(HEADER, [[row["field"], *row["errors"], row["held"], row["seconds"]] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="*", default=list(FIELDS), choices=list(FIELDS))
    parser.add_argument("--files", nargs="*", type=Path, default=[], help="series on grids, as trajectory files")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("moving_fields.json"))
    arguments = parser.parse_args()
    results = Results(arguments.out, table, fresh=True)
    for name, network in [*((name, FIELDS[name]()) for name in arguments.names),
                          *((path.stem, of_file(path)) for path in arguments.files)]:
        results.keep(measure(name, network, arguments.minutes))


if __name__ == "__main__":
    main()
