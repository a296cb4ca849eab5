"""Laws that are not short: a law with a network beside the best law of few terms, `recipe=neural` and POD + DMD.

python benchmarks/forecasts/neural_term.py FOLDER [NAME ...] [--ways network short neural] [--minutes 1] [--seed 0]

trains on frames 0 to 9 of data that `benchmarks.makers` makes, and prints NMSE of test trajectories within and beyond
these frames. Runs and what they tell are kept in FOLDER.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.common import trained_by_command
from benchmarks.makers.base import load, write_problem

NAMES = ("monod", "hill", "holling", "sine_gordon_circle", "buckley_leverett", "arrhenius", "filtered_burgers",
         "filtered_turbulence", "nonlocal_growth", "neural_field")
WAYS = {"network": (), "short": ("dynamics.network=off",), "neural": ("recipe=neural",)}


def figures(report: dict) -> str:
    """NMSE within and beyond the trained frames."""
    return f"{report['nmse']['in_t']:.1e} / {report['nmse']['out_t']:.1e}"


def row(folder: Path, name: str, way: str, minutes: float, seed: int) -> None:
    """Train one way on one data set, and print its figures."""
    if not (folder / f"{name}_test.h5").exists():
        write_problem(name, folder, seed)
    began = time.perf_counter()
    found = trained_by_command(
        folder / f"{name}_{way}_{seed}", f"{name} | {way}", f"data.train={folder / name}_train.h5",
        f"data.test={folder / name}_test.h5", "data.frames=10", f"training.minutes={minutes}", f"seed={seed}",
        *WAYS[way])
    seconds = time.perf_counter() - began
    if found is None:
        return
    report, taken = found
    print(f"| {name} | {way} | {figures(report)} | {taken['candidate']} | POD + DMD "
          f"{figures({'nmse': report['references']['pod_dmd']['nmse']})} | {100 * report['coverage_90']:.0f} % | "
          f"{seconds:.0f} s |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    load()
    options.folder.mkdir(parents=True, exist_ok=True)
    for problem in options.names:
        for chosen in options.ways:
            row(options.folder, problem, chosen, options.minutes, options.seed)
