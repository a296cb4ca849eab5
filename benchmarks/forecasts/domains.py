"""Laws on domains: found on frames 0 to 9, forecast from frame 0 of test trajectories over all frames.

python benchmarks/forecasts/domains.py FOLDER NAME ... [--points 0.25]

reads FOLDER/NAME_train.h5 and NAME_test.h5 and prints a row for each; `python -m benchmarks.makers` makes some. NMSE:
mean over channels, in units of the channel's variance in those frames.

python benchmarks/forecasts/domains.py FOLDER SOURCE --target NAME ... [--runs DIR]

compares laws that are moved from the domain of SOURCE to those of others, where nothing is fitted, with models
trained there; both runs are kept in DIR.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import h5py
import numpy as np
import torch

import inrflow
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.source import TrajectorySource
from inrflow.domains import domains_of
from inrflow.dynamics.laws import fit_law
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.evaluation.new_domain import Place, moved
from inrflow.model.surrogate import Surrogate

TRAINED = 10  # frames


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
    """t, x, u and what is known of the domain."""
    with h5py.File(path) as file:
        known = {"period": file.attrs.get("period"), "geometry": file.attrs.get("geometry"),
                 "cells": file["triangles"][()] if "triangles" in file else None}
        return file["t"][()], file["x"][()].astype(float), file["u"][()].astype(float), known


def errors(forecast: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """NMSE within and beyond the trained frames."""
    squares = (forecast - truth) ** 2
    parts = (slice(TRAINED), slice(TRAINED, None))
    inner, outer = (float((squares[:, s].mean((0, 1, 2)) / truth[:, s].var((0, 1, 2))).mean()) for s in parts)
    return inner, outer


def row(folder: Path, name: str, points: float | None, seed: int, verbose: bool) -> None:
    """Fit and forecast one data set, and print its figures."""
    t, x, u, known = read(folder / f"{name}_train.h5")
    seen_x, seen = x, u[:, :TRAINED]
    if points:
        generator = np.random.default_rng(seed)
        subsets = [generator.choice(len(x), int(points * len(x)), replace=False) for _ in u]
        seen_x = np.stack([x[s] for s in subsets])
        seen = np.stack([frames[:, s] for frames, s in zip(seen, subsets, strict=True)])
    began = time.process_time()
    _, test_x, truth, _ = read(folder / f"{name}_test.h5")
    persistence = errors(np.repeat(truth[:, :1], len(t), 1), truth)
    try:
        law = fit_law(t[:TRAINED], seen_x, seen, domains_of(x, **known), seed=seed, log=print if verbose else None)
    except UserError as error:
        print(f"{name}: {error}; persistence {persistence[0]:.2g} / {persistence[1]:.2g}", flush=True)
        return
    seconds = time.process_time() - began
    forecast = law.decode(law.rollout(law.encode(test_x, truth[:, 0]), t), test_x)
    inner, outer = errors(forecast, truth)
    print(f"{name}{f' ({points:.0%} of the points)' if points else ''}: {inner:.1e} / {outer:.1e}, persistence "
          f"{persistence[0]:.2g} / {persistence[1]:.2g}, {law.codes.harmonics.count} harmonics ({law.domain.kind}, "
          f"{law.boundary}), {seconds:.0f} CPU s")
    for line in law.written([f"u{c}" for c in range(u.shape[-1])] if u.shape[-1] > 3 else "uvw"[: u.shape[-1]]):
        print("   ", line, flush=True)


def trained(folder: Path, name: str, runs: Path, seed: int) -> Surrogate:
    """The law of a data set, from its run directory where it has been trained before."""
    if not (runs / name / "model.safetensors").exists():
        settings = (f"data.frames={TRAINED}", "recipe=law", "training.minutes=3", f"seed={seed}")
        inrflow.fit(inrflow.Problem.open(folder / f"{name}_train.h5", *settings)).save(runs / name)
    return Surrogate.load(runs / name)


def moved_row(folder: Path, source: str, target: str, runs: Path, seed: int) -> None:
    """Print the errors on a target domain of the law of the source domain and of that trained on the target."""
    there = trained(folder, target, runs, seed)
    with (TrajectoryFile(folder / f"{target}_train.h5") as known, TrajectoryFile(folder / f"{target}_test.h5") as test):
        batch = TrajectorySource(known, TRAINED).batch(np.arange(known.trajectories), normalised=False)
        law = moved(trained(folder, source, runs, seed), Place.of(known), batch, seed)
        found = [evaluate(model, test, Observe(1, 1.0)).report for model in (law, there)]
    inner, outer = ([report["nmse"][key] for report in found] for key in ("in_t", "out_t"))
    print(f"{source} to {target}: {inner[0]:.1e} / {outer[0]:.1e}, trained there {inner[1]:.1e} / {outer[1]:.1e} "
          f"(times {inner[0] / inner[1]:.2g} / {outer[0] / outer[1]:.2g}), intervals hold "
          f"{found[0]['coverage_90']:.0%} and {found[1]['coverage_90']:.0%}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--points", type=float)
    parser.add_argument("--target", nargs="+", help="data sets on other domains")
    parser.add_argument("--runs", type=Path, default=Path("outputs/domains"), help="folder of trained laws")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    for problem in options.target or ():
        moved_row(options.folder, options.names[0], problem, options.runs, options.seed)
    for problem in () if options.target else options.names:
        row(options.folder, problem, options.points, options.seed, options.verbose)
