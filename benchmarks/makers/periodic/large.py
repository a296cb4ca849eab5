"""Fields on grids of 65,536 points and more: vortices and spots on a torus, two species in a cube."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import fftfreq, fftn, ifftn, irfftn, rfftfreq, rfftn

from benchmarks.makers.base import FRAMES, Fields, problem
from benchmarks.makers.spectral import etd


def waves(n: int, d: int, length: float) -> np.ndarray:
    """Wave numbers (d, n, ..., n / 2 + 1) of rfftn on n^d points."""
    axes = [fftfreq(n, 1 / n)] * (d - 1) + [rfftfreq(n, 1 / n)]
    return 2 * np.pi / length * np.stack(np.meshgrid(*axes, indexing="ij"))


def ring(generator: np.random.Generator, n: int, d: int, most: float) -> np.ndarray:
    """A random field on n^d points, of unit deviation, with waves about a wavenumber."""
    size = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*[fftfreq(n, 1 / n)] * d, indexing="ij")))
    u = ifftn(fftn(generator.standard_normal((n,) * d)) * np.exp(-(((size - most) / (most / 2)) ** 2))).real
    return np.asarray(u / u.std())


def on_grid(n: int, d: int, length: float, starts: list[np.ndarray], linear: np.ndarray, rate: Callable, step: float,
            steps: tuple[int, int], channels: list[str]) -> Fields:
    """Fields of starts (C, n, ..., n) and their times: so many steps before the first frame, and between frames."""
    paths, axes = [], tuple(range(1, d + 1))
    for start in starts:
        w, frames = rfftn(start, axes=axes), []
        for frame in range(FRAMES):
            w = etd(linear, rate, w, step, steps[frame > 0])
            frames.append(irfftn(w, start.shape[1:], axes=axes).reshape(len(start), -1).T)
        paths.append(np.stack(frames))
    x = np.stack(np.meshgrid(*[np.arange(n) * length / n] * d, indexing="ij"), -1).reshape(-1, d)
    return (np.arange(FRAMES) * step * steps[1], x, np.stack(paths).astype(np.float32),
            {"period": [length] * d, "channels": channels})


@problem(8, 2)
def vortices_fine(generator: np.random.Generator, count: int, n: int = 256) -> Fields:
    """Vorticity that decays on a torus of side 2 pi, viscosity 4e-4, 256 x 256 points."""
    k = waves(n, 2, 2 * np.pi)
    k2, mask = (k**2).sum(0), (np.abs(k) < n / 3).all(0)
    inverse = mask / np.where(k2 > 0, k2, np.inf)

    def rate(w: np.ndarray) -> np.ndarray:
        u, v, wx, wy = (irfftn(1j * f, (n, n)) for f in (
            k[1] * inverse * w[0], -k[0] * inverse * w[0], mask * k[0] * w[0], mask * k[1] * w[0]))
        return -1.0 * mask * rfftn(u * wx + v * wy)[None]

    starts = [3 * ring(generator, n, 2, 8)[None] for _ in range(count)]
    return on_grid(n, 2, 2 * np.pi, [w - w.mean() for w in starts], -4e-4 * k2, rate, 0.01, (125, 25), ["w"])


@problem(8, 2)
def spots_fine(generator: np.random.Generator, count: int, n: int = 256, side: float = 2.5) -> Fields:
    """Gray-Scott spots that divide on a torus of side 2.5, 256 x 256 points, feed .037, kill .06, frames 10 apart."""
    k2, feed, kill = (waves(n, 2, side) ** 2).sum(0), 0.037, 0.06
    linear, given = -np.stack([2e-5 * k2 + feed, 1e-5 * k2 + feed + kill]), np.zeros((2, *k2.shape))
    given[0, 0, 0] = feed * n**2

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = irfftn(w, (n, n), axes=(1, 2))
        reaction = rfftn(u * v**2)
        return given + np.stack([-reaction, reaction])

    x, starts = np.stack(np.meshgrid(*[np.arange(n) * side / n] * 2, indexing="ij")), []
    for _ in range(count):
        spots = np.zeros((n, n))
        for centre in generator.uniform(0, side, (generator.integers(6, 14), 2)):
            away = (x - centre[:, None, None] + side / 2) % side - side / 2
            spots += np.exp(-(away**2).sum(0) / (2 * generator.uniform(0.04, 0.09) ** 2))
        starts.append(np.stack([np.clip(1 - spots / 2, 0, 1), np.clip(spots / 4, 0, 1)]))
    return on_grid(n, 2, side, starts, linear, rate, 1.0, (200, 10), ["u", "v"])


@problem(5, 2)
def species_fine(generator: np.random.Generator, count: int, n: int = 48) -> Fields:
    """Two species that drift apart and feed on each other in a periodic cube of side 1, 110,592 points."""
    k = waves(n, 3, 1.0)
    k2 = (k**2).sum(0)
    linear = np.stack([1 - 2e-3 * k2 - 0.3j * k[0], -0.5 - 1e-3 * k2 + 0.2j * k[2]])

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = irfftn(w, (n, n, n), axes=(1, 2, 3))
        return np.stack([rfftn(f) for f in (-(u**3) - 1.5 * u * v, 1.2 * u**2 - 0.3 * v**2)])

    starts = [np.stack([0.8 * ring(generator, n, 3, 3), 0.3 * ring(generator, n, 3, 3)]) for _ in range(count)]
    return on_grid(n, 3, 1.0, starts, linear, rate, 0.02, (0, 10), ["u", "v"])
