"""Errors of forecasts against the value of a parameter, inside and outside of the trained range.

    python benchmarks/forecasts/parametric.py [--families wave burgers gray_scott fhn cavity] [--points 1.0 0.25]
        [--seeds 0] [--out FILE] [--quick | --full]

A family is trained at a few values of one parameter with `inrflow train`; `inrflow adapt` then meets values that it has
not seen, one trajectory of 10 frames each. Forecasts of other initial conditions are compared with those at the true
parameter, at the mean training context and at the nearest environment's; the parameter is read off the context. Every
case is a process of its own with one thread; rows are written as they come, and rows that the JSON file already holds
are not repeated. How to read the result: benchmarks/forecasts/FAMILIES.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from benchmarks.common import Results, as_table, cache_folder, child_rows, environment
from benchmarks.makers.base import Maker
from benchmarks.makers.families import cavity, write_family
from benchmarks.makers.shapes.reactions import fhn_lshape
from inrflow.adaptation.context import mean_context, nearest_environment
from inrflow.cli import main as inrflow
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.dynamics.contexts.posterior import ContextEstimate
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate
from inrflow.pdes.generate import generate

FRAMES, HORIZON = 10, 20
INTERVALS = 2  # trajectories on which intervals are judged
ADAPT_SEED, TEST_SEED = 77, 78  # initial conditions that no training file holds
HEADER = ("family", "points", "seed", "value", "where", "read off", "relative error", "adaptation s", "adapted in-t",
          "adapted out-t", "known out-t", "mean out-t", "nearest out-t", "in 90 %")


@dataclass(frozen=True)
class Family:
    """An equation with one parameter: where it is trained, where it is tried, and how much data there are. `pde` names
    an equation of `inrflow generate`, or a maker."""

    pde: str | Maker
    parameter: str
    trained: tuple[float, ...]
    inside: tuple[float, ...]
    outside: tuple[float, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    trajectories: int = 7
    tested: int = 8
    overrides: tuple[str, ...] = ()

    def where(self, value: float) -> str:
        """trained, inside or outside."""
        return "trained" if value in self.trained else "inside" if value in self.inside else "outside"

    @property
    def values(self) -> list[float]:
        """All that are tried."""
        return sorted({*self.trained, *self.inside, *self.outside})


FAMILIES = {
    "wave": Family(
        "wave", "speed", (0.03125, 0.04375, 0.05625, 0.06875, 0.08125, 0.09375), (0.0375, 0.05, 0.0625, 0.075, 0.0875),
        (0.02, 0.025, 0.1, 0.11, 0.125), {"grid": 32, "dt": 0.25}, overrides=("training.minutes=1",),
    ),
    "burgers": Family(
        "burgers", "viscosity", (0.02, 0.025, 0.031, 0.039, 0.048, 0.06), (0.0224, 0.028, 0.035, 0.0435, 0.054),
        (0.0145, 0.0165, 0.07, 0.08), {"grid": 64, "dt": 0.05, "dimensions": 1}, trajectories=16,
        overrides=("training.minutes=0.5", "dynamics.depth=0"),
    ),
    "gray_scott": Family(  # reaction rate: the feed, within and beyond the box of the CoDA protocol
        "gray_scott", "feed", (0.03, 0.032, 0.034, 0.036, 0.038, 0.04), (0.031, 0.035, 0.039),
        (0.027, 0.0285, 0.0415, 0.043), {"grid": 64, "dt": 20.0, "dimensions": 1}, trajectories=16,
        overrides=("training.minutes=2", "dynamics.depth=0"),
    ),
    "fhn": Family(  # on an L-shape with a hole, without flux
        fhn_lshape, "excitability", (0.3, 0.38, 0.46, 0.54, 0.62, 0.7), (0.34, 0.5, 0.66), (0.26, 0.8),
        trajectories=6, tested=3, overrides=("training.minutes=2",),
    ),
    "cavity": Family(
        cavity, "lid", (0.6, 0.8, 1.0, 1.2, 1.4, 1.6), (0.7, 1.1, 1.5), (0.5, 1.9),
        trajectories=6, tested=3, overrides=("training.minutes=2",),
    ),
}
QUICK = Family(
    "wave", "speed", (0.03125, 0.0625, 0.09375), (0.05,), (0.11,), {"grid": 16, "dt": 0.25}, trajectories=4, tested=2,
    overrides=("training.minutes=0.1", "data.copies=24", "decoder.largest_code_size=80", "dynamics.depth=0"),
)


def data_file(family: Family, kind: str, values: Sequence[float], each: int, frames: int, seed: int) -> Path:
    """`each` trajectories at each of the values, made on the first call and kept."""
    label = "_".join(f"{value:g}" for value in values) if len(values) < 3 else f"{len(values)}values"
    name = family.pde if isinstance(family.pde, str) else family.parameter
    sizes = "_".join(f"{key}{value}" for key, value in family.settings.items())
    path = cache_folder() / f"parametric_{name}_{sizes}_{kind}_{label}_{each}x{frames}_seed{seed}.h5"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(family.pde, str):
            write_family(path, family.pde, family.parameter, values, each, np.random.default_rng(seed), frames)
            return path
        generate(
            family.pde, path, trajectories=each * len(values), frames=frames, seed=seed,
            parameters={family.parameter: list(values)}, **family.settings,
        )
    return path


def command(*arguments: object) -> None:
    """A command of inrflow in this process, quiet; what it says where it fails."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = inrflow([str(argument) for argument in arguments])
    if code:
        raise RuntimeError(said.getvalue().strip().splitlines()[-1])


def measure(case: dict[str, Any]) -> None:
    """Train one family, adapt to every value, print a row for each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # outside of the trained range every forecast warns
    family = QUICK if case["quick"] else FAMILIES[case["family"]]
    points, seed = case["points"], case["seed"]
    train = data_file(family, "train", family.trained, family.trajectories, FRAMES, seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        began = time.process_time()
        command("train", f"data.train={train}", f"data.points={points}", f"seed={seed}", f"output={folder / 'run'}",
                *family.overrides)
        training_seconds = time.process_time() - began
        surrogate = Surrogate.load(folder / "run")
        for value in family.values:
            row = adapted_row(family, surrogate, folder, value, points, seed)
            print(json.dumps(case | row | {"training_seconds": training_seconds}), flush=True)


def adapted_row(
    family: Family, surrogate: Surrogate, folder: Path, value: float, points: float, seed: int
) -> dict[str, Any]:
    """Errors at one value of the parameter after adaptation to it, and without."""
    test = data_file(family, "test", [value], family.tested, HORIZON, TEST_SEED)
    if surrogate.contexts is None:  # what the parameter does shows in the frames: there is nothing to adapt
        with TrajectoryFile(test) as file:
            own = evaluate(surrogate, file, Observe(1, points)).report
        return {"value": value, "where": family.where(value), "adapted_numbers": 0, "adaptation_seconds": 0.0,
                "coverage_90": own["coverage_90"],
                **{key: dict.fromkeys(("adapted", "known", "mean", "nearest"), own[key]) for key in ("mse", "nmse")}}
    few = data_file(family, "adapt", [value], 1, FRAMES, ADAPT_SEED)
    new = folder / f"adapted_{value:g}"
    command("adapt", f"run={folder / 'run'}", f"data.train={few}", f"data.points={points}", f"seed={seed}",
            f"output={new}")
    told = json.loads((new / "adaptation.json").read_text())
    mean = torch.tensor(told["context"], dtype=torch.float64)
    estimate = ContextEstimate(mean, torch.tensor(told["context_covariance"], dtype=torch.float64), 0.0)
    with TrajectoryFile(test) as file:
        def report(model: Surrogate, context: ContextPrior | None) -> dict[str, Any]:
            return evaluate(model, file, Observe(1, points), with_std=False, context=context).report

        adapted = report(Surrogate.load(new), None)
        others = {
            "known": report(surrogate, surrogate.context_of({family.parameter: value})),
            "mean": report(surrogate, mean_context(surrogate)),
            "nearest": report(surrogate, nearest_environment(surrogate, estimate)[1]),
        }
    with TrajectoryFile(data_file(family, "test", [value], INTERVALS, HORIZON, TEST_SEED)) as file:
        coverage = evaluate(Surrogate.load(new), file, Observe(1, points)).report["coverage_90"]
    read = told["parameters"][family.parameter]["mean"]
    return {
        "value": value,
        "where": family.where(value),
        "read_off": read,
        "read_off_std": told["parameters"][family.parameter]["std"],
        "relative_error": abs(read / value - 1),
        "outside_training": told["outside_training"],
        "adapted_numbers": told["adapted_numbers"],
        "adaptation_seconds": told["seconds"],
        "coverage_90": coverage,
        "mse": {name: errors["mse"] for name, errors in {"adapted": adapted, **others}.items()},
        "nmse": {name: errors["nmse"] for name, errors in {"adapted": adapted, **others}.items()},
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows on screen."""
    lines = []
    for row in rows:
        start = [row["family"], row["points"], row["seed"]]
        if "error" in row:
            lines.append([*start, "", row["error"]] + [""] * (len(HEADER) - 5))
            continue
        mse = row["mse"]
        lines.append(
            [*start, f"{row['value']:g}", row["where"], f"{row.get('read_off', math.nan):.6g}",
             row.get("relative_error", math.nan)]
            + [row["adaptation_seconds"], mse["adapted"]["in_t"]]
            + [mse[name]["out_t"] for name in ("adapted", "known", "mean", "nearest")]
            + [f"{row['coverage_90']:.0%}"]
        )
    return as_table(HEADER, lines)


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """For each case: the largest error inside and outside over the mean error at the trained values, and read-off."""
    lines = []
    good = [row for row in rows if "error" not in row]
    for family, points, seed in dict.fromkeys((r["family"], r["points"], r["seed"]) for r in good):
        chosen = [r for r in good if (r["family"], r["points"], r["seed"]) == (family, points, seed)]
        known = [r for r in chosen if r["where"] == "trained"]
        parts = []
        for where in ("inside", "outside"):
            for part in ("in_t", "out_t"):
                base = sum(r["mse"]["known"][part] for r in known) / max(len(known), 1)
                ratios = [(r["mse"]["adapted"][part] / base, r["value"]) for r in chosen if r["where"] == where]
                if known and ratios:
                    ratio, value = max(ratios)
                    parts.append(f"{where} {part.replace('_', '-')} {ratio:.2f} (at {value:g})")
        worst = max(r.get("relative_error", math.nan) for r in chosen)
        slowest = max(r["adaptation_seconds"] for r in chosen)
        lines.append(
            f"{family}, {points:.0%} of the points, seed {seed}: largest adapted over mean in-domain error: "
            f"{', '.join(parts)}; parameter read off to {worst:.1e}; adaptation at most {slowest:.2f} s for "
            f"{chosen[0]['adapted_numbers']} numbers; training {chosen[0]['training_seconds']:.0f} s"
        )
    return lines


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The parameter read off the context against the true one, and errors against it; a row of panels for each case."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    good = [row for row in rows if "error" not in row]
    cases = list(dict.fromkeys((row["family"], row["points"]) for row in good))
    figure, axes = plt.subplots(
        len(cases), 3, figsize=(13.0, 3.9 * len(cases)), squeeze=False, layout="constrained", sharex="row"
    )
    styles: dict[str, tuple[str, str, dict[str, Any]]] = {
        "known": ("C2-", "parameter known", {"linewidth": 5, "alpha": 0.35}),
        "adapted": ("C0o-", "adapted to one trajectory", {"markersize": 4, "linewidth": 1.2}),
        "nearest": ("C3^", "nearest training environment", {"markersize": 4}),
        "mean": ("0.4", "mean training context", {"linewidth": 1.2}),
    }
    for panels, (name, points) in zip(axes, cases, strict=True):
        chosen = sorted((r for r in good if (r["family"], r["points"]) == (name, points)), key=lambda r: r["value"])
        values = sorted({row["value"] for row in chosen})
        trained = [row["value"] for row in chosen if row["where"] == "trained"]
        first, *rest = panels
        parameter = (FAMILIES[name] if name in FAMILIES else QUICK).parameter
        first.plot(values, values, color="0.7", linewidth=1, label="exact")
        for where, marker in (("trained", "C1s"), ("inside", "C0o"), ("outside", "C3^")):
            some = [row for row in chosen if row["where"] == where]
            first.plot([r["value"] for r in some], [r.get("read_off", math.nan) for r in some], marker,
                       markersize=4, label=where)
        first.set(ylabel=f"{parameter} read off the context", title=f"{name}, {points:.0%} of the points")
        for axis, part, title in zip(rest, ("in_t", "out_t"), ("inside", "beyond"), strict=True):
            for key, (style, label, look) in styles.items():
                for number, seed in enumerate(sorted({row["seed"] for row in chosen})):
                    curve = [row for row in chosen if row["seed"] == seed]
                    axis.plot([r["value"] for r in curve], [r["nmse"][key][part] for r in curve], style,
                              label=None if number else label, **look)
            base = [row["nmse"]["known"][part] for row in chosen if row["where"] == "trained"]
            axis.axhline(sum(base) / len(base), color="k", linestyle="-.", linewidth=1, label="in-domain mean")
            axis.set(yscale="log", ylabel="error, share of the variance", title=f"forecasts {title} the horizon")
        for axis in panels:
            axis.axvspan(min(trained), max(trained), color="0.93", zorder=0)
            axis.set_xlabel(f"true {parameter}")
            axis.grid(alpha=0.3)
        first.legend(frameon=False)
    axes[0, 1].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--points", nargs="+", type=float, default=[1.0, 0.25], help="fractions that are observed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("parametric.json"), help="JSON file; PNG beside it")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one small family of waves: a check that everything runs")
    size.add_argument("--full", action="store_true", help="three seeds")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        measure(json.loads(options.case))
        return
    if options.full:
        options.seeds = [0, 1, 2]
    if options.quick:
        options.families, options.points, options.seeds = ["wave"], [1.0], [0]
    results = Results(options.out, table, fresh=options.quick)
    for family in options.families:
        for points in options.points:
            for seed in options.seeds:
                case = {"family": family, "points": points, "seed": seed, "quick": options.quick}
                kept = [r for r in results.rows if "error" not in r and case.items() <= r.items()]
                if len(kept) == len((QUICK if options.quick else FAMILIES[family]).values):
                    continue
                results.rows = [r for r in results.rows if not case.items() <= r.items()]
                for row in child_rows(__file__, case):
                    results.keep(row)
    rows = results.rows
    if any("error" not in row for row in rows):
        plot(rows, options.out.with_suffix(".png"))
    print(f"\n{environment()}\n\n{table(rows)}\n\n" + "\n".join(summary(rows)))
    print(f"\nwritten to {options.out} and {options.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
