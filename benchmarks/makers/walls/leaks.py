"""Walls that leak, du/dn = -h u, and rivals in a duct: finite volumes on finer grids than those seen."""

from __future__ import annotations

import numpy as np

from benchmarks.makers.base import FRAMES, Fields, bumps_of, problem, stepped, with_noise


def spread(f: np.ndarray, h: float, axis: int, leaks: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Second differences along an axis of cells h wide, between walls that leak at these rates."""
    f = np.moveaxis(f, axis, -1)
    lower, upper = (rate * f[..., end] / (1 + rate * h / 2) for rate, end in zip(leaks, (0, -1), strict=True))
    slopes = np.concatenate([lower[..., None], np.diff(f) / h, -upper[..., None]], -1)
    return np.moveaxis(np.diff(slopes) / h, -1, axis)


@problem()
def fin(generator: np.random.Generator, count: int) -> Fields:
    """T_t = .02 T_xx + T - T^2 on (0, 2), cooled at both ends: dT/dn = -2.5 T at the left, -.8 T at the right; 240
    finite volumes, every third is read."""
    x = (np.arange(240) + 0.5) / 120
    w = np.stack([np.abs(bumps_of(generator, x[:, None], 0.3, 0.6)) for _ in range(count)])
    frames = stepped(lambda u: 0.02 * spread(u, 1 / 120, -1, (2.5, 0.8)) + u - u**2, w, 0.3, 400)[..., 1::3]
    return np.arange(FRAMES) * 0.3, x[1::3, None], frames.transpose(1, 0, 2)[..., None], {"channels": ["T"]}


@problem()
def leaky_box(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 lap u + 4 u v - 4 u^2 v - .8 u, v_t = .03 lap v - .8 u v + .5 (1 - v) in 1.5 x 1, unequal steps; u
    leaves at x = 0, du/dn = -4 u, no flux elsewhere: 75 x 50 finite volumes, every third is read."""
    h, t = 0.02, np.cumsum([0.0, *generator.uniform(0.06, 0.2, FRAMES - 1)])
    c = np.stack(np.meshgrid((np.arange(75) + 0.5) * h, (np.arange(50) + 0.5) * h, indexing="ij"), -1)

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w[:, 0], w[:, 1]
        return np.stack([0.02 * (spread(u, h, -2, (4.0, 0.0)) + spread(u, h, -1)) + 4 * u * v - 4 * u**2 * v - 0.8 * u,
                         0.03 * (spread(v, h, -2) + spread(v, h, -1)) - 0.8 * u * v + 0.5 * (1 - v)], 1)

    frames = [np.stack([[bumps_of(generator, c.reshape(-1, 2), size, mean).reshape(75, 50)
                         for size, mean in ((0.15, 0.5), (0.2, 0.7))] for _ in range(count)])]
    for gap in np.diff(t):
        frames.append(stepped(rate, frames[-1], gap, int(np.ceil(gap / 0.002)), 2)[-1])
    u = np.stack(frames)[..., 1::3, 1::3].reshape(FRAMES, count, 2, -1)
    return t, c[1::3, 1::3].reshape(-1, 2), u.transpose(1, 0, 3, 2), {}


@problem()
def rivals_duct(generator: np.random.Generator, count: int) -> Fields:
    """a_t = .010 lap a + 2 a (1 - a - 1.5 b), b_t = .006 lap b + 1.6 b (1 - 1.3 a - b) in a duct of 2 x .6 x .6 without
    flux, 3 % noise on training values: 60 x 18 x 18 finite volumes, every third is read."""
    shape, h = (60, 18, 18), 1 / 30
    c = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * h for n in shape], indexing="ij"), -1)

    def rate(w: np.ndarray) -> np.ndarray:
        a, b = w[:, 0], w[:, 1]
        bent = [sum(spread(f, h, axis) for axis in (-3, -2, -1)) for f in (a, b)]
        return np.stack([0.010 * bent[0] + 2 * a * (1 - a - 1.5 * b), 0.006 * bent[1] + 1.6 * b * (1 - 1.3 * a - b)], 1)

    w = np.stack([[np.abs(bumps_of(generator, c.reshape(-1, 3), 0.25, 0.45)).reshape(shape) for _ in range(2)]
                  for _ in range(count)])
    seen = stepped(rate, w, 0.3, 12)[..., 1::3, 1::3, 1::3].reshape(FRAMES, count, 2, -1)
    return np.arange(FRAMES) * 0.3, c[1::3, 1::3, 1::3].reshape(-1, 3), with_noise(
        generator, seen.transpose(1, 0, 3, 2), 0.03), {"channels": ["a", "b"]}
