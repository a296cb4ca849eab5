"""Data whose laws are not short: saturating kinetics, sines, fractional flows, closures, nonlocal reactions.

python benchmarks/neural_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5. Solvers: linear finite
elements, finite differences and finite volumes with adaptive steps, a pseudo-spectral one for flows that are filtered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
from data_makers import FRAMES, Fields, bumps, solve, write_problems
from scipy.ndimage import convolve1d, gaussian_filter
from shape_data import _circle, _elements, _mesh, _polygon

TRAIN, TEST = 24, 8


def _on_mesh(diffusion: tuple[float, ...], reaction: Callable, start: Callable, frame: float) -> Callable:
    """u_t = diffusion lap u + reaction(u) without flux on a square of side 2 with a round hole, by linear elements."""
    def make(generator: np.random.Generator, count: int) -> Fields:
        x, cells = _mesh([_polygon([(0, 0), (2, 0), (2, 2), (0, 2)], 0.09), _circle((1.2, 0.9), 0.35, 0.09)], 0.09)
        stiffness, masses = _elements(x, cells)
        spread = -sparse.diags(1 / masses) @ stiffness
        t, d = np.arange(FRAMES) * frame, np.asarray(diffusion)
        u = np.stack([solve(lambda u: d * (spread @ u) + reaction(u), start(
            np.stack([bumps(generator, x / 2, 4) for _ in diffusion], -1)), t) for _ in range(count)])
        return t, x, u, {"triangles": cells}

    return make


def _monod(u: np.ndarray) -> np.ndarray:
    """Substrate and biomass of a chemostat: growth s / (0.1 + s) b, dilution 0.3."""
    s, b = u[..., 0], u[..., 1]
    growth = s / (0.1 + s) * b
    return np.stack([0.3 * (1 - s) - growth, growth - 0.3 * b], -1)


def _hill(u: np.ndarray) -> np.ndarray:
    """A gene that activates itself: u^4 / (0.5^4 + u^4) - u + 0.03."""
    return u**4 / (0.5**4 + u**4) - u + 0.03


def _holling(u: np.ndarray) -> np.ndarray:
    """Prey with logistic growth and predators with a response of type III."""
    a, b = u[..., 0], u[..., 1]
    eaten = a**2 / (0.15 + a**2) * b
    return np.stack([a * (1 - a) - eaten, 0.8 * eaten - 0.3 * b], -1)


def _ring(generator: np.random.Generator, n: int, waves: int) -> np.ndarray:
    """A random smooth field at n points of a circle, of unit deviation."""
    x = 2 * np.pi * np.arange(n) / n
    u = sum(generator.standard_normal() * np.cos(k * x + generator.uniform(0, 7)) / k for k in range(1, waves + 1))
    return np.asarray(u / u.std())


def _second(u: np.ndarray, h: float) -> np.ndarray:
    """Second derivative on a circle, differences of sixth order."""
    return convolve1d(u, np.array([2, -27, 270, -490, 270, -27, 2]) / 180 / h**2, mode="wrap")


def sine_gordon(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = u_xx - sin u on a circle of length 12, 64 of 256 points; angles up to half turns and beyond."""
    n, h, t = 256, 12 / 256, np.arange(FRAMES) * 0.3
    u = np.stack([solve(lambda y: np.stack([y[1], _second(y[0], h) - np.sin(y[0])]),
                        np.stack([1.6 * _ring(generator, n, 3), 0.5 * _ring(generator, n, 3)]), t, "DOP853")
                  for _ in range(count)])
    return t, (np.arange(0, n, 4) * h)[:, None], np.moveaxis(u, 2, 3)[:, :, ::4], {"period": [12.0]}


def buckley_leverett(generator: np.random.Generator, count: int) -> Fields:
    """u_t + (u^2 / (u^2 + 0.5 (1 - u)^2))_x = 0.05 u_xx on a circle of length 4, 96 of 384 points, finite volumes."""
    n, h, t = 384, 4 / 384, np.arange(FRAMES) * 0.025

    def rate(u: np.ndarray) -> np.ndarray:
        flow = u**2 / (u**2 + 0.5 * (1 - u) ** 2)
        return -convolve1d(flow, np.array([-1, 8, 0, -8, 1]) / 12 / h, mode="wrap") + 0.05 * _second(u, h)

    u = np.stack([solve(rate, 0.5 + 0.4 * np.tanh(_ring(generator, n, 3)), t) for _ in range(count)])
    return t, (np.arange(0, n, 4) * h)[:, None], u[:, :, ::4, None], {"period": [4.0]}


def arrhenius(generator: np.random.Generator, count: int) -> Fields:
    """Temperature and fuel: T_t = 0.02 T_xx + w - 0.1 T, y_t = 0.01 y_xx - w + 0.1 (1 - y), w = 3 y exp(-2 / T), walls.

    On (0, 3), 64 of 192 cells.
    """
    n, h, t = 192, 3 / 192, np.arange(FRAMES) * 0.3
    x = ((np.arange(n) + 0.5) * h)[:, None]

    def rate(u: np.ndarray) -> np.ndarray:
        p = np.pad(u, ((0, 0), (1, 1)), mode="edge")
        w = 3 * u[1] * np.exp(-2 / np.maximum(u[0], 0.05))
        return np.array([[0.02], [0.01]]) * np.diff(p, 2, 1) / h**2 + np.stack(
            [w - 0.1 * u[0], 0.1 * (1 - u[1]) - w])

    u = np.stack([solve(rate, np.stack([0.8 + 0.5 * np.tanh(bumps(generator, x / 3, 4)),
                                        0.7 + 0.25 * np.tanh(bumps(generator, x / 3, 4))]), t) for _ in range(count)])
    return t, x[1::3], np.moveaxis(u, 2, 3)[:, :, 1::3], {"channels": ["T", "y"]}


def filtered_burgers(generator: np.random.Generator, count: int) -> Fields:
    """Burgers of viscosity 0.002 on a circle of length 2, filtered by a Gaussian of deviation 0.06, 64 of 1024 points.

    Shocks are 30 times thinner than the filter.
    """
    n, h, t, ik = 1024, 2 / 1024, np.arange(FRAMES) * 0.03, 1j * np.pi * np.fft.rfftfreq(1024, 1 / 1024)
    u, step, frames = np.stack([_ring(generator, n, 4) for _ in range(count)]), 5e-4, []
    mask, decay = np.abs(ik) < np.pi * n / 3, np.exp(0.002 * ik.real**2)
    decay = np.exp(0.002 * (ik**2).real * step / 2)
    w = np.fft.rfft(u)

    def rate(w: np.ndarray) -> np.ndarray:
        return -0.5 * ik * mask * np.fft.rfft(np.fft.irfft(w, n) ** 2)

    for index in range(round(t[-1] / step) + 1):
        if index % round(t[1] / step) == 0:
            frames.append(np.fft.irfft(w * np.exp(0.06**2 / 2 * (ik**2).real), n)[:, ::16])
        a = rate(w)
        b = rate(decay * (w + step / 2 * a))
        c = rate(decay * w + step / 2 * b)
        last = rate(decay**2 * w + step * decay * c)
        w = decay**2 * w + step / 6 * (decay**2 * a + 2 * decay * (b + c) + last)
    return t, (np.arange(0, n, 16) * h)[:, None], np.stack(frames, 1)[..., None], {"period": [2.0]}


def nonlocal_growth(generator: np.random.Generator, count: int) -> Fields:
    """u_t = 0.002 lap u + 2 s^2 / (0.09 + s^2) (1 - u) - u, s = u smoothed by a Gaussian of deviation 0.1; walled box.

    Means over cells of 30 x 30, of 60 x 60.
    """
    n, t = 60, np.arange(FRAMES) * 0.2
    g = (np.arange(n) + 0.5) / n
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1)

    def rate(u: np.ndarray) -> np.ndarray:
        p = np.pad(u, 1, mode="edge")
        s = gaussian_filter(u, 0.1 * n, mode="reflect", truncate=6.0)
        around = (p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u) * n**2
        return 0.002 * around + 2 * s**2 / (0.09 + s**2) * (1 - u) - u

    def halved(a: np.ndarray) -> np.ndarray:
        return a.reshape(*a.shape[:-2], n // 2, 2, n // 2, 2).mean((-3, -1))

    u = np.stack([solve(rate, 0.3 + 0.3 * np.tanh(1.5 * bumps(generator, x, 4)), t) for _ in range(count)])
    centres = np.stack(np.meshgrid(*[(np.arange(n // 2) + 0.5) * 2 / n] * 2, indexing="ij"), -1)
    return t, centres.reshape(-1, 2), halved(u).reshape(count, FRAMES, -1, 1), {}


def neural_field(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u + kernel * tanh(2 u) + 0.02 u_xx on a circle of length 6, 64 of 192 points."""
    n, h, t = 192, 6 / 192, np.arange(FRAMES) * 0.25
    x = np.arange(n) * h
    away = np.minimum(x, 6 - x)
    kernel = np.exp(-2 * away) - 0.5 * np.exp(-away)
    whole = kernel[(np.arange(n)[:, None] - np.arange(n)) % n] * h * 3
    u = np.stack([solve(lambda u: -u + whole @ np.tanh(2 * u) + 0.02 * _second(u, h), _ring(generator, n, 4), t)
                  for _ in range(count)])
    return t, x[::3, None], u[:, :, ::3, None], {"period": [6.0]}


def filtered_turbulence(generator: np.random.Generator, count: int, n: int = 128) -> Fields:
    """Vorticity of decaying flow on a torus of side 2 pi, viscosity 5e-4, cut off at wavenumber 15; 32 x 32 points."""
    t, step = np.arange(FRAMES) * 0.2, 0.01
    k = np.stack(np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.rfftfreq(n, 1 / n), indexing="ij"))
    k2 = (k**2).sum(0)
    inverse, mask = 1 / np.where(k2 > 0, k2, 1), (np.abs(k) < n / 3).all(0)
    half, frames = np.exp(-5e-4 * k2 * step / 2), []
    w = np.fft.rfft2(generator.standard_normal((count, n, n))) * np.sqrt(k2) * np.exp(-((np.sqrt(k2) - 5) ** 2) / 8)
    w *= 3 / np.fft.irfft2(w, (n, n)).std()

    def rate(w: np.ndarray) -> np.ndarray:
        u, v, wx, wy = (np.fft.irfft2(1j * f, (n, n)) for f in (
            k[1] * inverse * w, -k[0] * inverse * w, k[0] * w, k[1] * w))
        return -1.0 * mask * np.fft.rfft2(u * wx + v * wy)

    low = np.ix_(range(count), np.r_[0:16, n - 16 : n], range(17))
    keep = (np.sqrt(k2) < 15.5)
    for index in range(round(t[-1] / step) + 1):
        if index % round(t[1] / step) == 0:
            frames.append(np.fft.irfft2((w * keep)[low], (32, 32)) * (32 / n) ** 2)
        a = rate(w)
        b = rate(half * (w + step / 2 * a))
        c = rate(half * w + step / 2 * b)
        last = rate(half**2 * w + step * half * c)
        w = half**2 * w + step / 6 * (half**2 * a + 2 * half * (b + c) + last)
    g = np.arange(32) * 2 * np.pi / 32
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1).reshape(-1, 2)
    return t, x, np.stack(frames, 1).reshape(count, FRAMES, -1, 1), {"period": [2 * np.pi] * 2, "channels": ["w"]}


MAKERS = {
    "monod": _on_mesh((0.02, 0.01), _monod, lambda b: np.stack([0.5 + 0.4 * np.tanh(b[..., 0]),
                                                                0.5 + 0.4 * np.tanh(b[..., 1])], -1), 0.5),
    "hill": _on_mesh((0.01,), _hill, lambda b: 0.5 + 0.4 * np.tanh(1.5 * b), 0.5),
    "holling": _on_mesh((0.01, 0.01), _holling, lambda b: 0.5 + 0.4 * np.tanh(b), 0.6),
    "sine_gordon": sine_gordon, "buckley_leverett": buckley_leverett, "arrhenius": arrhenius,
    "filtered_burgers": filtered_burgers, "filtered_turbulence": filtered_turbulence,
    "nonlocal_growth": nonlocal_growth, "neural_field": neural_field,
}


if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST)
