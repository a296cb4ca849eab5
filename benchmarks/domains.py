"""Laws on domains: found on frames 0 to 9, forecast from frame 0 of test trajectories over all frames.

python benchmarks/domains.py FOLDER NAME ... [--points 0.25] reads FOLDER/NAME_train.h5 and NAME_test.h5 and prints a
row for each; domain_data.py makes some. NMSE: mean over channels, in units of the channel's variance in those frames.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from inrflow.domains import domains_of
from inrflow.dynamics.laws import fit_law
from inrflow.errors import UserError

TRAINED = 10  # frames


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
    """t, x, u and what is known of the domain."""
    with h5py.File(path) as file:
        known = {"period": file.attrs.get("period"), "geometry": file.attrs.get("geometry"),
                 "triangles": file["triangles"][()] if "triangles" in file else None}
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--points", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    for problem in options.names:
        row(options.folder, problem, options.points, options.seed, options.verbose)
