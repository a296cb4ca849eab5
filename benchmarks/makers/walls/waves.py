"""Waves and heat in boxes: coefficients that vary in place, elastic bodies, light, waves that leave."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import dct, dst, idct, idst
from scipy.ndimage import map_coordinates

from benchmarks.makers.base import FRAMES, Fields, bumps, problem, solve, stepped


def _place(x: np.ndarray) -> np.ndarray:
    """A coefficient between 0.45 and 1.65 that varies in the unit box, at points (..., d)."""
    return np.asarray(1.0 + 0.4 * np.prod(np.cos(2.5 * x + 0.3), -1) + 0.25 * np.sin(4 * x[..., 0] - x[..., -1]))


def _divergence(n: int, d: int, size: float) -> Callable[[np.ndarray], np.ndarray]:
    """div(size a grad .) of (..., n^d) between walls, conservative differences; a = `_place` at faces of cells."""
    centre, face = (np.arange(n) + 0.5) / n, np.arange(1, n) / n
    grids = [np.stack(np.meshgrid(*(face if i == j else centre for i in range(d)), indexing="ij"), -1)
             for j in range(d)]
    a = [size * n**2 * _place(grid) for grid in grids]

    def apply(u: np.ndarray) -> np.ndarray:
        total = np.zeros_like(u)
        for j in range(d):
            axis = u.ndim - d + j
            edges = [(0, 0)] * u.ndim
            edges[axis] = (1, 1)
            total += np.diff(np.pad(a[j] * np.diff(u, axis=axis), edges), axis=axis)
        return total

    return apply


def _fine_divergence(n: int, d: int, size: float) -> Callable[[np.ndarray], np.ndarray]:
    """The same to spectral accuracy: derivatives of cosines and of sines."""
    x = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n] * d, indexing="ij"), -1)
    a, k = size * _place(x), np.pi * np.arange(n)

    def apply(u: np.ndarray) -> np.ndarray:
        total = np.zeros_like(u)
        for j in range(d):
            axis = u.ndim - d + j
            wave = k.reshape([-1 if i == axis else 1 for i in range(u.ndim)])
            codes = np.roll(wave * dct(u, axis=axis), -1, axis)
            flux = a * -idst(codes, axis=axis)
            total += idct(wave * np.roll(dst(flux, axis=axis), 1, axis) * (wave > 0), axis=axis)
        return total

    return apply


def _linear(apply: Callable, u: np.ndarray, frame: float, bound: float, order: int) -> np.ndarray:
    """Frames (S, T, ...) of u_t = apply(u) (order 1), or of u_tt = apply(u) at rest at first (order 2: u, u_t last).

    Runge-Kutta 4 in steps below the stability bound of the spectral radius `bound`.
    """
    steps = int(np.ceil(frame * (bound / 2.0 if order == 1 else np.sqrt(bound) / 1.5)))
    now = np.stack([u, 0 * u][:order])
    rate = (lambda y: apply(y)) if order == 1 else (lambda y: np.stack([y[1], apply(y[0])]))
    return np.moveaxis(stepped(rate, now, frame, steps), (0, 1), (1, -1))  # (S, T, ..., C)


def _varying(n: int, d: int, order: int, fine: int, frame: float, size: float) -> Callable:
    """Waves or heat between walls, a coefficient that varies in place; seen at the n^d centres of cells.

    fine: odd ratio of the solver's points to those seen, to spectral accuracy; 1: differences on the points seen.
    """
    def make(generator: np.random.Generator, count: int) -> Fields:
        m = fine * n
        x = np.stack(np.meshgrid(*[(np.arange(m) + 0.5) / m] * d, indexing="ij"), -1)
        u = np.stack([bumps(generator, x, 4) for _ in range(count)])
        apply = (_fine_divergence if fine > 1 else _divergence)(m, d, size)
        bound = 1.65 * size * d * m**2 * (np.pi**2 if fine > 1 else 4)
        frames = _linear(apply, u, frame, bound, order)
        pick = slice(fine // 2, None, fine)
        seen = frames[(slice(None), slice(None), *[pick] * d)]
        return (np.arange(FRAMES) * frame, x[(pick,) * d].reshape(-1, d), seen.reshape(count, FRAMES, -1, order), {})

    return make


@problem()
def elastic(generator: np.random.Generator, count: int) -> Fields:
    """Displacements a, b and their velocities in a damped elastic body clamped at the walls of a unit box: rates
    .5 lap + 1.0 grad div, damping .3; differences on 47 x 47 inner nodes, read with the walls at 25 x 25."""
    n, t = 48, np.arange(FRAMES) * 0.06
    h = 1 / n
    grid = np.stack(np.meshgrid(*[np.arange(n + 1) * h] * 2, indexing="ij"), -1)

    def rate(w: np.ndarray) -> np.ndarray:
        q, v = w[:2], w[2:]
        out = np.zeros_like(w)
        out[:2] = v
        inner = (slice(1, -1), slice(1, -1))
        bent = [[(f[2:, 1:-1] - 2 * f[inner] + f[:-2, 1:-1]) / h**2, (f[1:-1, 2:] - 2 * f[inner] + f[1:-1, :-2]) / h**2]
                for f in q]
        mixed = [(f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / (4 * h**2) for f in q]
        out[2][inner] = 0.5 * sum(bent[0]) + bent[0][0] + mixed[1] - 0.3 * v[0][inner]
        out[3][inner] = 0.5 * sum(bent[1]) + bent[1][1] + mixed[0] - 0.3 * v[1][inner]
        return out

    frames = []
    for _ in range(count):
        start = np.zeros((4, n + 1, n + 1))
        for i in range(4):
            for _ in range(12):
                k = generator.integers(1, 5, 2)
                start[i] += generator.standard_normal() / (k**2).sum() * np.prod(np.sin(np.pi * k * grid), -1)
        start[2:] *= 3
        frames.append(solve(rate, start, t, "DOP853"))
    u = np.moveaxis(np.stack(frames), 2, -1)[:, :, ::2, ::2]
    return t, grid[::2, ::2].reshape(-1, 2), u.reshape(count, FRAMES, -1, 4), {"channels": ["a", "b", "va", "vb"]}


@problem()
def maxwell(generator: np.random.Generator, count: int) -> Fields:
    """eps dE/dt = curl H, dH/dt = -curl E, E across a box of 1.3 x 1 between metal walls, a round lens of eps up to 2.2
    in it: Yee's scheme at cells of 1/80, E and H at one time, at 450 scattered points."""
    n, m, h, every = 105, 81, 1 / 80, 10
    dt, axes = h / 2, (np.arange(n) * h, np.arange(m) * h)
    x, y = np.meshgrid(*axes, indexing="ij")
    eps = 1 + 1.2 * np.exp(-30 * ((x - 0.8) ** 2 + (y - 0.45) ** 2))
    points = generator.uniform([0.01, 0.01], [1.29, 0.99], (450, 2))
    at, paths = (points / h).T, []
    for _ in range(count):
        e = np.sum([generator.standard_normal() * np.sin(np.pi * i * x / 1.3) * np.sin(np.pi * j * y) / (i * i + j * j)
                    for i in range(1, 5) for j in range(1, 5)], 0)
        hx, hy = -dt / 2 * np.diff(e, axis=1) / h, dt / 2 * np.diff(e, axis=0) / h
        frames = []
        for step in range(every * (FRAMES - 1) + 1):
            if step % every == 0:
                now = hx + dt / 2 * np.diff(e, axis=1) / h, hy - dt / 2 * np.diff(e, axis=0) / h
                frames.append(np.stack([map_coordinates(e, at, order=3),
                                        map_coordinates(now[0], at - [[0], [0.5]], order=3, mode="nearest"),
                                        map_coordinates(now[1], at - [[0.5], [0]], order=3, mode="nearest")], -1))
            e[1:-1, 1:-1] += dt / eps[1:-1, 1:-1] * (np.diff(hy, axis=0)[:, 1:-1] - np.diff(hx, axis=1)[1:-1]) / h
            hx = hx - dt * np.diff(e, axis=1) / h
            hy = hy + dt * np.diff(e, axis=0) / h
        paths.append(np.stack(frames))
    return np.arange(FRAMES) * every * dt, points, np.stack(paths), {"channels": ["Ez", "Hx", "Hy"]}


@problem()
def radiation(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = lap u seen in a unit window of a plane without edges: waves leave, and none comes back; in closed
    form on a torus of length 6."""
    n, t = 192, np.arange(FRAMES) * 0.08
    k = 2 * np.pi * np.fft.fftfreq(n, 6 / n)
    size = np.hypot(k[:, None], k[: n // 2 + 1])
    x = np.stack(np.meshgrid(*[np.arange(n) / n * 6] * 2, indexing="ij"), -1)
    inside, u = slice(n // 2 - n // 12, n // 2 + n // 12), []
    for _ in range(count):
        f, g = np.zeros((2, n, n))
        for _ in range(3):
            place = 3 + generator.uniform(-0.3, 0.3, 2)
            bump = np.exp(-60 * ((x - place) ** 2).sum(-1))
            f, g = f + generator.standard_normal() * bump, g + 4 * generator.standard_normal() * bump
        f, g = np.fft.rfft2(f), np.fft.rfft2(g)
        phase = size * t[:, None, None]
        w = np.stack([np.cos(phase) * f + t[:, None, None] * np.sinc(phase / np.pi) * g,
                      -size * np.sin(phase) * f + np.cos(phase) * g], -1)
        u.append(np.fft.irfft2(w, (n, n), axes=(1, 2))[:, inside, inside].reshape(FRAMES, -1, 2))
    return t, x[inside, inside].reshape(-1, 2) - 2.5, np.stack(u), {}


for _name, _arguments in {
    "waves_line": (64, 1, 2, 3, 0.08, 1.0), "waves_line_coarse": (64, 1, 2, 1, 0.08, 1.0),
    "waves_place": (24, 2, 2, 3, 0.08, 1.0), "waves_place_coarse": (24, 2, 2, 1, 0.08, 1.0),
    "heat_place": (24, 2, 1, 3, 0.1, 0.02), "heat_place_coarse": (24, 2, 1, 1, 0.1, 0.02)}.items():
    problem(name=_name)(_varying(*_arguments))
