"""Problems with parameters that every training trajectory has of its own, tested at values within and beyond these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from scipy.linalg import expm

from benchmarks.makers.base import FRAMES, Fields, Maker, linear, solve, write_fields
from benchmarks.makers.families import waves
from benchmarks.makers.shapes.reactions import fhn_lshape
from benchmarks.makers.walls.lines import burgers_held

TRAINED, TESTED = 40, 4  # trajectories, and those of each value for tests


def blobs(generator: np.random.Generator, x: np.ndarray, count: int) -> np.ndarray:
    """Sums (count, N) of four Gaussians at random places x (N,) of the unit interval."""
    centre, width, size = generator.uniform(0, 1, (count, 4, 1)), generator.uniform(0.1, 0.25, (count, 4, 1)), (
        generator.standard_normal((count, 4, 1)))
    return (size * np.exp(-((x - centre) ** 2) / 2 / width**2)).sum(1)


def second_difference(n: int) -> np.ndarray:
    """(n, n): values of zero beyond both ends."""
    return np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n)


def invasions(generator: np.random.Generator, count: int, d: float, r: float) -> Fields:
    """u_t = d u_xx + r u (1 - u) on (0, 1) without flux, by 240 finite volumes, read at every fourth."""
    n, t = 240, np.arange(FRAMES) * 0.25
    x = (np.arange(n) + 0.5) / n
    starts = (generator.uniform(0.1, 0.5, (count, 3, 1)) * np.exp(
        -((x - generator.uniform(0, 1, (count, 3, 1))) ** 2) / 2 / 0.08**2)).sum(1)
    u = np.stack([solve(lambda u: d * n**2 * np.diff(np.pad(u, 1, mode="edge"), 2) + r * u * (1 - u), start, t, "BDF")
                  for start in starts])
    return t, x[1::4, None], u[:, :, 1::4, None], {}


def composites(generator: np.random.Generator, count: int, kl: float, kr: float) -> Fields:
    """u_t = (k u_x)_x, k = kl up to .4, kr beyond; -5 u at the last of 300 volumes, of which every fifth is read."""
    n = 300
    x = (np.arange(n) + 0.5) / n
    k = np.where(x < 0.4, kl, kr)
    face = 2 * k[:-1] * k[1:] / (k[:-1] + k[1:]) * n**2
    matrix = np.diag(face, -1) + np.diag(face, 1) - np.diag(np.append(0, face) + np.append(face, 0))
    matrix[-1, -1] -= 5.0
    u = linear(matrix, blobs(generator, x, count), 0.05)
    return np.arange(FRAMES) * 0.05, x[2::5, None], u[:, :, 2::5, None], {}


def strings(generator: np.random.Generator, count: int, temperature: float) -> Fields:
    """u_t = v, v_t = .3 exp(-.8 temperature) (1 + x / 2) u_xx - .2 v, held at 0 and 1; differences at 199 points."""
    n = 199
    x = np.arange(1, n + 1) / (n + 1)
    bent = 0.3 * np.exp(-0.8 * temperature) * (n + 1) ** 2 * (1 + 0.5 * x)[:, None] * second_difference(n)
    matrix = np.block([[np.zeros((n, n)), np.eye(n)], [bent, -0.2 * np.eye(n)]])
    modes = np.sin(np.pi * np.arange(1, 7)[:, None] * x)
    start = np.concatenate([(generator.standard_normal((count, 6)) / scale) @ modes
                            for scale in (np.arange(1, 7), np.ones(6))], 1)
    u = linear(matrix, start, 0.1).reshape(count, FRAMES, 2, n)
    return np.arange(FRAMES) * 0.1, x[::4, None], u[..., ::4].swapaxes(2, 3), {"channels": ["u", "v"]}


def shears(generator: np.random.Generator, count: int, amplitude: float) -> Fields:
    """c_t = -(.1 + amplitude 4 y (1 - y)) c_x + .01 lap c, periodic along x and between walls without flux: Fourier by
    finite volumes."""
    n, m, gap = 24, 16, 0.1
    y = (np.arange(m) + 0.5) / m
    across = second_difference(m) * m**2
    across[0, 0] = across[-1, -1] = -(m**2)
    x = np.stack(np.meshgrid(np.arange(n) * 2 / n, y, indexing="ij"), -1).reshape(-1, 2)
    start = np.zeros((count, n * m))
    for part in start:
        for p, q in np.ndindex(4, 3):
            phase = generator.uniform(0, 7)
            part += generator.standard_normal() * np.cos(np.pi * p * x[:, 0] + phase) * np.cos(np.pi * q * x[:, 1])
    wind, frames = 0.1 + amplitude * 4 * y * (1 - y), [start]
    steps = [expm(gap * (-1j * k * np.diag(wind) + 0.01 * (across - k**2 * np.eye(m))))
             for k in 2 * np.pi * np.fft.fftfreq(n, 2 / n)]
    w = np.fft.fft(start.reshape(count, n, m), axis=1)
    for _ in range(FRAMES - 1):
        w = np.stack([w[:, i] @ step.T for i, step in enumerate(steps)], 1)
        frames.append(np.fft.ifft(w, axis=1).real.reshape(count, -1))
    return np.arange(FRAMES) * gap, x, np.stack(frames, 1)[..., None], {"channels": ["c"]}


PARAMETRIC: dict[str, tuple[Maker, dict[str, tuple[float, float]], Sequence[Sequence[float]]]] = {
    # maker, parameters and their ranges, values tested
    "invasions": (invasions, {"d": (0.001, 0.01), "r": (0.5, 2.0)}, ((0.002, 1.8), (0.008, 0.8), (0.015, 2.5))),
    "composites": (composites, {"kl": (0.02, 0.1), "kr": (0.02, 0.1)}, ((0.03, 0.08), (0.08, 0.03), (0.15, 0.05))),
    "strings": (strings, {"temperature": (-1.0, 1.0)}, ((-0.7,), (0.3,), (1.3,))),
    "shears": (shears, {"amplitude": (0.3, 1.2)}, ((0.4,), (0.9,), (1.6,))),
    "waves_own": (waves, {"speed": (0.6, 1.2)}, ((0.7,), (1.0,), (1.4,))),
    "fhn_own": (fhn_lshape, {"excitability": (0.3, 0.7)}, ((0.34,), (0.5,), (0.66,), (0.8,))),
    "burgers_own": (burgers_held, {"viscosity": (0.02, 0.08)}, ((0.025,), (0.05,), (0.08,), (0.12,))),
}


def write(name: str, folder: Path, seed: int = 0) -> None:
    """Training and test trajectories of one problem."""
    maker, ranges, tested = PARAMETRIC[name]
    generator = np.random.default_rng(seed)
    drawn = generator.uniform(*np.array(list(ranges.values())).T, (TRAINED, len(ranges)))
    for kind, values in (("train", drawn), ("test", np.repeat(np.array(tested), TESTED, 0))):
        made = [maker(generator, 1, **dict(zip(ranges, own, strict=True))) for own in values]
        t, x, _, attributes = made[0]
        path = folder / f"{name}_{kind}.h5"
        write_fields(path, name, (t, x, np.concatenate([fields[2] for fields in made]), attributes))
        with h5py.File(path, "a") as file:
            file["parameters"] = values
            file["parameters"].attrs.create("names", list(ranges), dtype=h5py.string_dtype())
