"""Copies of data sets as they come: without period or geometry, with the first point twice, or at points that move.

    python benchmarks/makers/copies.py FOLDER KIND SOURCE [POINTS]

SOURCE names SOURCE_train.h5 and SOURCE_test.h5. KIND is `bare`, `twice` (on a line: the first point once more at its
end; bare, too), or `moving`: other POINTS in every frame, of a periodic grid by its Fourier series at random places, of
other sets a part of their own points.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def bare(x: np.ndarray, u: np.ndarray, about: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The same, of which nothing is said."""
    about.pop("period", None), about.pop("geometry", None)
    return x, u


def twice(x: np.ndarray, u: np.ndarray, about: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 1) of a circle and the first one once more a period later, of which nothing is said."""
    length, order = about.pop("period"), np.argsort(x[:, 0])
    x, u = x[order], u[:, :, order]
    return np.concatenate([x, x[:1] + length]), np.concatenate([u, u[:, :, :1]], 2)


def moving(x: np.ndarray, u: np.ndarray, about: dict[str, Any], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (S, T, count, d) and values there."""
    random, (trajectories, frames, points, channels) = np.random.default_rng(seed), u.shape
    d, period = x.shape[1], np.array(about.get("period", ()))
    places = np.empty((trajectories, frames, count, d))
    values = np.empty((trajectories, frames, count, channels), np.float32)
    n = round(points ** (1 / d))
    if period.all() and len(period) == d and n**d == points:
        order = np.lexsort(x.T[::-1])
        grid = u[:, :, order].reshape(trajectories, frames, *[n] * d, channels)
        series = (np.fft.fftn(grid, axes=range(2, 2 + d)) / points).reshape(trajectories, frames, points, channels)
        waves = np.stack(np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * d, indexing="ij"), -1).reshape(-1, d)
        for s, m in np.ndindex(trajectories, frames):
            places[s, m] = random.random((count, d)) * period
            values[s, m] = (np.exp(2j * np.pi * ((places[s, m] - x[order[0]]) / period) @ waves.T) @ series[s, m]).real
    else:
        for s, m in np.ndindex(trajectories, frames):
            some = random.permutation(points)[:count]
            places[s, m], values[s, m] = x[some], u[s, m, some]
    return places, values


def main() -> None:
    """Write both files."""
    folder, kind, source, *count = sys.argv[1:]
    for seed, part in enumerate(("train", "test")):
        with h5py.File(f"{source}_{part}.h5") as file:
            x, u, about = file["x"][()], file["u"][()], dict(file.attrs)
            others = {name: file[name][()] for name in file if name not in ("x", "u", "triangles")}
        made = moving(x, u, about, int(count[0]), seed) if kind == "moving" else {"bare": bare, "twice": twice}[kind](
            x, u, about)
        with h5py.File(Path(folder) / f"{Path(source).name}_{kind}_{part}.h5", "w") as file:
            file.attrs.update(about)
            for name, value in (others | dict(zip("xu", made, strict=True))).items():
                file[name] = value


if __name__ == "__main__":
    main()
