"""Stations that lack a channel, and gaps of single channels: inrflow beside linear regression on the other channels.

    python benchmarks/observations/partly.py FILE ... [--frames 60] [--minutes .3] [--out FILE]

Half of the places lack one channel each, all others miss a fifth of the values of each channel in stretches of their
own; what is left trains a run, is assimilated, and what is missing is asked for. The regression is on the other
channels of the same place and time and what coordinates there are beside the first two, such as an elevation.
How to read the result: benchmarks/observations/README.md.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Results
from benchmarks.observations.stations import Answer, by_inrflow, halves, of_file, scores, table
from benchmarks.stations.base import Network

SHARE, STRETCH = 0.2, 10  # of values missing; the longest stretch is of one of so many parts of the frames


def missing(network: Network, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Values (T, N, C) at places without the channel, and in gaps."""
    random, (frames, places, channels) = np.random.default_rng(seed), network.u.shape
    never, gaps = np.zeros((2, *network.u.shape), dtype=bool)
    for place in halves(network)[1]:
        never[:, place, random.integers(channels)] = True
    for place, channel in np.ndindex(places, channels):
        while gaps[:, place, channel].mean() < SHARE:
            begin = random.integers(frames)
            gaps[begin : begin + random.integers(1, max(2, frames // STRETCH)), place, channel] = True
    return never, gaps & ~never


def by_regression(network: Network, c: int) -> Answer:
    """Means and deviations (T, N) of a channel."""
    others = np.delete(network.u, c, 2).astype(float)
    fixed = np.broadcast_to(network.x[:, 2:] - network.x[:, 2:].mean(0), (*others.shape[:2], network.x.shape[1] - 2))
    design, u = np.concatenate([np.ones((*others.shape[:2], 1)), others, fixed], -1), network.u[..., c].astype(float)
    known = np.isfinite(design).all(-1) & np.isfinite(u)
    weights = np.linalg.lstsq(design[known], u[known], rcond=None)[0]
    return design @ weights, np.full(u.shape, (u - design @ weights)[known].std())


def measure(name: str, network: Network, minutes: float) -> list[dict[str, Any]]:
    """Rows of one network."""
    never, gaps = missing(network)
    seen = Network(network.t, network.x, np.where(never | gaps, np.nan, network.u), network.description)
    every, rows = np.arange(len(network.x)), []
    mean, std = by_inrflow(seen, every, every, minutes)
    for c, channel in enumerate(network.description.channels):
        for method, answer in (("inrflow", (mean[..., c], std[..., c])), ("regression", by_regression(seen, c))):
            for kind, asked in (("never observed", never), ("gaps", gaps)):
                truth = np.where(asked[..., c], network.u[..., c], np.nan)
                rows.append({"network": name, "seed": 0, "channel": channel, "method": f"{method}, {kind}",
                             "seconds": 0.0} | scores(truth, answer))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="networks as trajectory files")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=0.3)
    parser.add_argument("--out", type=Path, default=Path("partly.json"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    results = Results(arguments.out, table, fresh=True)
    for path in arguments.files:
        whole = of_file(path)
        network = Network(whole.t[: arguments.frames], whole.x, whole.u[: arguments.frames], whole.description)
        for row in measure(path.stem, network, arguments.minutes):
            results.keep(row)


if __name__ == "__main__":
    main()
