"""How well a single trajectory chooses its own linear dynamics: by frames left out (the default) or rolling origins.

    python benchmarks/forecasts/single_trajectory.py [--systems NAME ...] [--files FILE ...] [--seeds 0]
        [--out FILE] [--quick]

The first four fifths of one trajectory give principal components and candidates for their dynamics (how many, how much
memory, which ridge); the rest is forecast in one free run. How to read the result: benchmarks/forecasts/README.md.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import Results, as_table, environment
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.source import TrajectorySource
from inrflow.dynamics.fitting.folds import Fold
from inrflow.dynamics.fitting.linear_search import RIDGES, Candidate, ClosedForm, ClosedFormSearch
from inrflow.encoding.encode import CodeData
from inrflow.pdes.simulate import simulate
from inrflow.training.parts.linear import candidate_sizes, intermediate_sizes

#: Single trajectories, by the arguments of `generate`.
SYSTEMS: dict[str, dict[str, Any]] = {
    "advection": {"pde": "advection", "frames": 60, "grid": 32},
    "advection, noise": {"pde": "advection", "frames": 60, "grid": 32, "noise": 0.05},
    "heat, noise": {"pde": "heat", "frames": 40, "grid": 32, "noise": 0.01},
    "wave": {"pde": "wave", "frames": 80, "grid": 32},
    "wave, noise": {"pde": "wave", "frames": 60, "grid": 32, "noise": 0.02},
    "Burgers": {"pde": "burgers", "dimensions": 1, "frames": 60},
    "Kuramoto-Sivashinsky": {"pde": "kuramoto_sivashinsky", "dimensions": 1, "frames": 100},
    "Gray-Scott": {"pde": "gray_scott", "frames": 60, "grid": 32},
    "Navier-Stokes": {"pde": "navier_stokes", "frames": 80, "grid": 32},
    "Navier-Stokes, noise": {"pde": "navier_stokes", "frames": 80, "grid": 32, "noise": 0.01},
}
QUICK = ("heat, noise",)
TAUGHT = 0.8  # of the frames
MEMORIES = (0.0, 0.5, 1.0)
ORIGINS, HORIZON = (0.5, 0.6, 0.7, 0.8), 0.2  # shares of the frames: where forecasts start, and how far they go
LEADING = 40  # candidates that are best by the test in steps, of which the best in continuous time is looked for
NOTHING = 1e-10  # share of the variance below which errors are rounding
HEADER = ("system", "seed", "frames", "best of all, by test", "size", "left out", "/ best", "size", "s", "origins",
          "/ best", "size", "s")


def components(u: Tensor, taught: int) -> tuple[CodeData, CodeData, Tensor]:
    """Principal components of the first `taught` frames of u (T, N, C): of these, of all, and their variances."""
    rows = (u.double() - u[:taught].double().mean((0, 1))) / u[:taught].double().std((0, 1))
    rows = rows.flatten(1)
    rows = rows - rows[:taught].mean(0)
    _, lengths, axes = torch.linalg.svd(rows[:taught], full_matrices=False)
    kept = lengths > 1e-7 * lengths[0]
    t = torch.arange(float(len(u))).double()[None]
    every = CodeData((rows @ axes[kept].T)[None], t, torch.ones(t.shape, dtype=torch.bool))
    return every.frames(taught), every, lengths[kept].square() / taught


def by_origins(search: ClosedFormSearch) -> ClosedFormSearch:
    """The same search, judged from a few origins, each fitted on what came before."""
    codes, frames = search.training, search.training.codes.shape[1]
    horizon = max(2, int(HORIZON * frames))
    origins = [max(2, int(share * frames)) for share in ORIGINS]
    search.folds = [Fold(codes.frames(o), codes.frames(min(frames, o + horizon)), o - 1) for o in origins]
    search.left_out = False
    return search


def measure(name: str, seed: int, u: Tensor) -> dict[str, Any]:
    """One system: the best candidate by the test, and what the two ways of judging choose."""
    taught = round(TAUGHT * len(u))
    codes, every, variances = components(u, taught)
    most = min(taught - 1, len(variances))
    sizes = intermediate_sizes(candidate_sizes(variances, taught - 1), most)
    test = ClosedFormSearch(codes, every, window=taught)
    errors = {c: test.score(c) for c in test.grid(sizes, MEMORIES, RIDGES)}
    best = min(errors, key=lambda c: errors[c])
    row: dict[str, Any] = {
        "system": name, "seed": seed, "frames": taught, "best": errors[best], "best_size": shown(best)
    }
    for way, search in (
        ("left_out", ClosedFormSearch(codes, None)), ("origins", by_origins(ClosedFormSearch(codes, None)))
    ):
        began = time.process_time()
        found: ClosedForm = search.search(sizes, MEMORIES)
        row[f"{way}_seconds"] = time.process_time() - began
        error = test.score(found.candidate)
        row[way], row[f"{way}_size"] = error, shown(found.candidate)
        row[f"{way}_ratio"] = max(error, NOTHING) / max(row["best"], NOTHING)
    return {key: None if value == math.inf else value for key, value in row.items()}


def shown(candidate: Candidate) -> str:
    """Codes and memory."""
    return f"{candidate.size} + {candidate.memory}" if candidate.memory else str(candidate.size)


def table(rows: list[dict[str, Any]]) -> str:
    keys = ["system", "seed", "frames", "best", "best_size"]
    for way in ("left_out", "origins"):
        keys += [way, f"{way}_ratio", f"{way}_size", f"{way}_seconds"]
    return as_table(HEADER, [[row[key] for key in keys] for row in rows])


def verdict(rows: list[dict[str, Any]]) -> str:
    """Geometric means of the ratios to the best, each at most 100 so that no single one decides."""
    means = {
        way: math.exp(sum(math.log(min(row[f"{way}_ratio"] or math.inf, 100.0)) for row in rows) / len(rows))
        for way in ("left_out", "origins")
    }
    return f"times the best, geometric mean: left out {means['left_out']:.2f}, origins {means['origins']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--files", nargs="*", type=Path, default=[], help="the first trajectory of each")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("single_trajectory.json"), help="JSON file")
    parser.add_argument("--quick", action="store_true", help="one system: a check")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = QUICK if options.quick else options.systems
    results = Results(options.out, table, fresh=True)
    for seed in options.seeds:
        for name in names:
            u = torch.as_tensor(simulate(seed=seed, trajectories=1, windows=1, **SYSTEMS[name]).u)[0]
            results.keep(measure(name, seed, u))
    for path in options.files:
        with TrajectoryFile(path) as file:
            results.keep(measure(path.stem, 0, TrajectorySource(file).batch([0], normalised=False).u[0]))
    rows = results.rows
    print(f"\n{environment()}\n\n{table(rows)}\n\n{verdict(rows)}\n\nwritten to {options.out}")


if __name__ == "__main__":
    main()
