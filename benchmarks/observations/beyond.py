"""Places beyond those of training: inrflow sees a corner of a network and is asked one to three box lengths from it.

    python benchmarks/observations/beyond.py FILE ... [--frames 30] [--first 0] [--minutes .25] [--corners 0 1 2 3]

Shares of the truth within three deviations, and of what 90 % intervals hold, up to one length and beyond that.
How to read the result: benchmarks/observations/README.md.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

from benchmarks.observations.stations import by_inrflow, of_file
from benchmarks.stations.base import Network
from inrflow.numerics.normal import HALF_WIDTH_90

SHARE, FEWEST, NEAR, FARTHEST = 0.25, 12, 0.15, 3.0  # of the places; lengths from their box
CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def corner(x: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (m,) nearest to a corner of the box of all (N, d), and how many lengths of theirs all lie beyond them."""
    plane = x[:, :2].astype(float)
    away = plane * np.array(CORNERS[number])
    away = ((away - away.min(0)) / np.ptp(away, axis=0)).max(1)
    seen = np.sort(np.argsort(away, kind="stable")[: max(FEWEST, round(SHARE * len(x)))])
    low, high = plane[seen].min(0), plane[seen].max(0)
    return seen, (np.maximum(np.maximum(low - plane, plane - high), 0) / (high - low)).max(1)


def measure(path: Path, first: int, frames: int, minutes: float, number: int) -> None:
    """Print a line for each channel."""
    whole = of_file(path)
    kept = slice(first, first + frames)
    network = Network(whole.t[kept], whole.x, whole.u[kept], whole.description)
    seen, lengths = corner(network.x, number)
    asked = np.flatnonzero((lengths > NEAR) & (lengths <= FARTHEST))
    if not len(asked):
        print(f"{path.stem}, corner {number}: no places beyond it")
        return
    mean, std = by_inrflow(network, seen, asked, minutes)
    away = np.abs(network.u[:, asked] - mean) / std  # (T, N, C)
    for c, channel in enumerate(network.description.channels):
        words = []
        for low, high in ((NEAR, 1.0), (1.0, FARTHEST)):
            z = away[:, (lengths[asked] > low) & (lengths[asked] <= high), c]
            z = z[np.isfinite(z)]
            if len(z):
                words.append(f"{low:g} to {high:g} lengths: three deviations {100 * np.mean(z < 3):.1f} %, 90 % hold "
                             f"{100 * np.mean(z < HALF_WIDTH_90):.0f} % of {len(z)}")
        print(f"{path.stem}, corner {number}, {channel}: {'; '.join(words)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="networks as trajectory files")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=0.25)
    parser.add_argument("--corners", nargs="+", type=int, default=[0, 1, 2, 3], choices=range(4))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for path in arguments.files:
        for number in arguments.corners:
            measure(path, arguments.first, arguments.frames, arguments.minutes, number)


if __name__ == "__main__":
    main()
