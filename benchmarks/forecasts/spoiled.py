"""Assimilation of spoiled observations: errors and intervals of one run when ten frames have noise, gaps or faults.

    python benchmarks/forecasts/spoiled.py RUN TEST.h5 [--kinds stuck ...] [--trajectories 2] [--out FILE]

Ten frames of each trajectory are spoiled and assimilated, all frames are asked for: NMSE and the share of the truth in
90 % intervals over those ten and over the later ones. How to read the result: benchmarks/forecasts/README.md.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import inrflow
from benchmarks.common import Results
from inrflow.data.formats.trajectory_file import TrajectoryFile

FRAMES, NORMAL_90 = 10, 1.645
KINDS = ("clean", "first", "noise20", "cloud", "drop", "points5", "spikes", "mild", "stuck", "bias", "late")


def spoiled(kind: str, x: np.ndarray, u: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, points and values (K, N, C) of x (N, d) and u (T, N, C) that are seen."""
    random, frames, v = np.random.default_rng(seed), np.arange(FRAMES), u[:FRAMES].astype(float)
    deviation, points = np.nanstd(u, axis=(0, 1)), np.arange(len(x))
    some = random.permutation(len(x))
    if kind == "first":
        frames = frames[:1]
    elif kind == "noise20":
        v += 0.2 * deviation * random.standard_normal(v.shape)
    elif kind == "cloud":  # a third of the points, which moves
        ends = x[some[:2]]
        for k in range(FRAMES):
            away = np.linalg.norm(x - ends[0] - (ends[1] - ends[0]) * k / FRAMES, axis=1)
            v[k, np.argsort(away)[: int(0.35 * len(x))]] = np.nan
    elif kind == "drop":
        frames = np.sort(random.permutation(FRAMES)[: FRAMES // 2])
    elif kind == "points5":
        points = np.sort(some[: max(6, len(x) // 20)])
    elif kind in ("spikes", "mild"):  # 1 % of 30 deviations, 2 % of 3
        share, size = (0.01, 30) if kind == "spikes" else (0.02, 3)
        wrong = random.random(v.shape) < share
        v += wrong * size * deviation * random.choice([-1, 1], v.shape)
    elif kind == "stuck":  # 2 % of the places
        v[:, some[: max(1, len(x) // 50)]] = v[:1, some[: max(1, len(x) // 50)]]
    elif kind == "bias":
        v[:, some[: max(1, len(x) // 50)]] += deviation
    elif kind == "late":
        frames = frames[FRAMES // 2 :]
    return frames, points, v


def measure(surrogate: inrflow.Surrogate, path: Path, kind: str, trajectories: int) -> dict[str, Any]:
    """A row of one kind: means over trajectories."""
    found, begin = [], time.perf_counter()
    for number in range(trajectories):
        with TrajectoryFile(path) as file:
            seen = file.read(number)
        t, x, u = (np.asarray(part) for part in (seen.t, seen.x, seen.u))
        frames, points, v = spoiled(kind, x, u, 100 + number)
        solution = surrogate.assimilate(inrflow.Observations(t[frames], x[points], v[frames][:, points]))
        missed, std = solution.frames(t, x) - u, solution.std(t, x)
        error = np.nanmean(missed**2 / np.nanvar(u, axis=(0, 1)), axis=(1, 2))
        inside = (np.abs(missed) <= NORMAL_90 * std).mean((1, 2))
        found.append([error[:FRAMES].mean(), error[FRAMES:].mean(), inside[:FRAMES].mean(), inside[FRAMES:].mean()])
    names = ("in-t", "out-t", "in-t holds", "out-t holds")
    seconds = (time.perf_counter() - begin) / trajectories
    return {"kind": kind, **dict(zip(names, np.mean(found, 0).tolist(), strict=True)), "seconds": seconds}


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each kind."""
    return "\n".join(f"{r['kind']:8s} {r['in-t']:.1e} {r['out-t']:.1e}  holds {100 * r['in-t holds']:.0f} "
                     f"{100 * r['out-t holds']:.0f} %  {r['seconds']:.1f} s" for r in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--trajectories", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("spoiled.json"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results, surrogate = Results(arguments.out, table, fresh=True), inrflow.Surrogate.load(arguments.run)
    for kind in arguments.kinds:
        results.keep(measure(surrogate, arguments.test, kind, arguments.trajectories))


if __name__ == "__main__":
    main()
