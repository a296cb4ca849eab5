"""Rates that saturate, or that heat speeds up, on lines without flux: finite volumes, every second of 96 is read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.makers.base import FRAMES, Fields, problem, solve

Rates = Callable[..., tuple[np.ndarray, ...]]


def _fields(generator: np.random.Generator, count: int, length: float, spread: tuple[float, ...], rates: Rates,
            mean: tuple[float, ...], around: tuple[float, ...], gap: float) -> Fields:
    """u_t = spread lap u + rates, from smooth fields of these means and about these deviations."""
    n, t = 96, np.arange(FRAMES) * gap
    x, d = (np.arange(n) + 0.5) * length / n, np.array(spread)[:, None]

    def rate(u: np.ndarray) -> np.ndarray:
        return d * np.diff(np.pad(u, ((0, 0), (1, 1)), mode="edge"), 2) * (n / length) ** 2 + np.stack(rates(*u))

    waves = np.cos(np.pi * np.arange(5)[:, None] * x / length) / (1 + np.arange(5)[:, None])
    starts = np.tanh(generator.standard_normal((count, len(d), 5)) @ waves)
    starts = np.array(mean)[:, None] + np.array(around)[:, None] * starts
    u = np.stack([solve(rate, start, t, "BDF") for start in starts])
    return t, x[::2, None], u[..., ::2].swapaxes(2, 3), {}


@problem(16, 6)
def toggle(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 u_xx + 2.2 / (1 + v^2) - u, v_t = .02 v_xx + 1.8 / (1 + u^2) - v: genes that repress each other."""
    return _fields(generator, count, 3.0, (0.01, 0.02), lambda u, v: (2.2 / (1 + v**2) - u, 1.8 / (1 + u**2) - v),
                   (1.0, 1.0), (0.8, 0.8), 0.35)


@problem(16, 6)
def toggle_cubic(generator: np.random.Generator, count: int) -> Fields:
    """As toggle, with cubes in place of squares."""
    return _fields(generator, count, 3.0, (0.01, 0.02), lambda u, v: (2.2 / (1 + v**3) - u, 1.8 / (1 + u**3) - v),
                   (1.0, 1.0), (0.8, 0.8), 0.35)


@problem(16, 6)
def food_chain(generator: np.random.Generator, count: int) -> Fields:
    """Prey u (1 - u) - 1.5 f, f = u v / (u + .5), predators 1.2 f - .3 v - .8 g, g = v w / (v + .3), their predators
    .6 g - .15 w, that spread by .01, .008, .005."""
    def rates(u: np.ndarray, v: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
        f, g = u * v / (u + 0.5), v * w / (v + 0.3)
        return u * (1 - u) - 1.5 * f, 1.2 * f - 0.3 * v - 0.8 * g, 0.6 * g - 0.15 * w

    return _fields(generator, count, 2.0, (0.01, 0.008, 0.005), rates, (0.6, 0.4, 0.3), (0.36, 0.24, 0.18), 0.8)


@problem(16, 6)
def chemostat(generator: np.random.Generator, count: int) -> Fields:
    """s_t = .02 s_xx + .4 (1 - s) - f, b_t = .005 b_xx + f - .4 b, f = 1.1 s b / (s + .25) (Monod)."""
    def rates(s: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        f = 1.1 * s * b / (s + 0.25)
        return 0.4 * (1 - s) - f, f - 0.4 * b

    return _fields(generator, count, 2.0, (0.02, 0.005), rates, (0.8, 0.3), (0.48, 0.18), 0.5)


@problem(16, 6)
def ignition(generator: np.random.Generator, count: int) -> Fields:
    """T_t = .02 T_xx + 4 y exp(-3 / T) - .2 (T - .8), y_t = .01 y_xx - 4 y exp(-3 / T) + .15 (1 - y)."""
    def rates(heat: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        burnt = 4 * y * np.exp(-3 / heat)
        return burnt - 0.2 * (heat - 0.8), 0.15 * (1 - y) - burnt

    return _fields(generator, count, 2.0, (0.02, 0.01), rates, (1.2, 0.7), (0.35, 0.25), 0.4)


@problem(16, 6)
def grazed(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 u_xx + u - 1.2 u^2 / (1 + u^2) - .3 u v, v_t = .01 v_xx + .3 u v - .4 v + .1."""
    return _fields(generator, count, 2.0, (0.01, 0.01),
                   lambda u, v: (u - 1.2 * u**2 / (1 + u**2) - 0.3 * u * v, 0.3 * u * v - 0.4 * v + 0.1),
                   (1.2, 0.8), (0.72, 0.48), 0.4)
