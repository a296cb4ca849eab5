"""Further data, made before any mechanism saw them: materials, winds and potentials of place, beams, dispersion of high
order, terms that are not local, edges that let waves out, gaps, long series, units far from one.

python benchmarks/further_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import scipy.linalg
import scipy.spatial
import skfem
from blind_data import _bumps, _etd, _grid, _quadratic
from collection_data import _waves
from data_makers import FRAMES, Fields, bumps, solve, surface_elements, write_problems
from scipy.fft import dctn, idctn
from shape_data import _circle, _polygon
from unseen_data import _line, _modal

TRAIN, TEST = 24, 8


def beam(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = -.001 u_xxxx on (0, 1) between clamps, u = u_x = 0: differences, exact in time."""
    n = 120
    h, t = 1 / (n + 1), np.arange(FRAMES) * 0.35
    second = (np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n)) / h**2
    fourth = second @ second
    fourth[0, 0] += 2 / h**4
    fourth[-1, -1] += 2 / h**4
    values, modes = np.linalg.eigh(0.001 * fourth)
    w, x = np.sqrt(values), (np.arange(n) + 1) * h
    z, v = generator.standard_normal((2, count, 8)) / (1 + np.arange(8)) ** 2
    phase = w[:8] * t[:, None, None]
    u = np.stack([(z * np.cos(phase) + v * np.sin(phase)) @ modes[:, :8].T,
                  (w[:8] * (v * np.cos(phase) - z * np.sin(phase))) @ modes[:, :8].T], -1).swapaxes(0, 1)
    return t, x[1::2, None], u[:, :, 1::2] * np.sqrt(n), {}


def _spectral(t: np.ndarray, n: int, length: float, rate: Callable, generator: np.random.Generator, count: int,
              size: float = 1.0, mean: float = 0.0, most: int = 4) -> Fields:
    """One field on a circle from random waves: rate(u, k, t)."""
    return _line(generator, count, n, length, t, rate, lambda: mean + size * _waves(generator, n, 1, most))


def long_waves(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -(1 - d2/dx2)^-1 (u + u^2 / 2)_x on a circle of length 20: Benjamin, Bona and Mahony."""
    return _spectral(np.arange(FRAMES) * 0.6, 128, 20.0, lambda u, k, t: np.fft.ifft(
        -1j * k / (1 + k**2) * np.fft.fft(u + u**2 / 2)).real, generator, count)


def capillary(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x - u_xxx + .4 u_xxxxx on a circle of length 20: Kawahara."""
    n, keep = 96, np.abs(k := 0.1 * np.pi * np.fft.fftfreq(96, 1 / 96)) < 10
    w, frames = keep * np.fft.fft(np.stack([0.8 * _waves(generator, n, 1, 4) for _ in range(count)])), []
    for _ in range(FRAMES):
        frames.append(np.fft.ifft(w).real)
        w = _etd(1j * k**3 + 0.4j * k**5, lambda w: -0.5j * k * keep * np.fft.fft(np.fft.ifft(w).real ** 2), w, 2.5e-3,
                 100)
    return (np.arange(FRAMES) * 0.25, np.arange(0, n, 2)[:, None] / n * 20, np.stack(frames, 1)[..., ::2, None],
            {"period": [20.0]})


def neighbours(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 u_xx + 2 u (1 - G u) on a circle of length 4, G a Gaussian mean of width .25: competition with those
    near by."""
    return _spectral(np.arange(FRAMES) * 0.25, 128, 4.0, lambda u, k, t: np.fft.ifft(
        -0.02 * k**2 * np.fft.fft(u)).real + 2 * u * (1 - np.fft.ifft(np.exp(-k**2 / 32) * np.fft.fft(u)).real),
        generator, count, 0.2, 0.7)


def trapped(generator: np.random.Generator, count: int) -> Fields:
    """i psi_t = -psi_xx / 2 + V psi + |psi|^2 psi, V = 1.5 cos(x) + sin(2 x) on a circle of length 2 pi: a condensate
    in an optical lattice, real and imaginary part, at 48 of 96 points."""
    n, gap, steps = 96, 0.08, 100
    x, k = np.arange(n) / n * 2 * np.pi, np.fft.fftfreq(n, 1 / n)
    psi = np.stack([_waves(generator, n, 1, 4) + 1j * _waves(generator, n, 1, 4) for _ in range(count)]) * 0.7
    half, h, frames = np.exp(-0.25j * k**2 * gap / steps), gap / steps, [psi]
    for _ in range(FRAMES - 1):
        for _ in range(steps):
            psi = np.fft.ifft(half * np.fft.fft(psi))
            psi = psi * np.exp(-1j * h * (1.5 * np.cos(x) + np.sin(2 * x) + np.abs(psi) ** 2))
            psi = np.fft.ifft(half * np.fft.fft(psi))
        frames.append(psi)
    u = np.stack(frames, 1)[..., ::2]
    return (np.arange(FRAMES) * gap, x[::2, None], np.stack([u.real, u.imag], -1),
            {"period": [2 * np.pi], "channels": ["a", "b"]})


def plankton(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -w . grad u + .004 lap u + u (1 - u) (u - .2), w a steady flow in a walled unit box that no channel holds:
    finite volumes, 48 x 48, read at 24 x 24."""
    n, t = 48, np.arange(FRAMES) * 0.3
    edge = np.linspace(0, 1, n + 1)
    psi = 0.08 * np.sin(np.pi * edge[:, None]) * np.sin(2 * np.pi * edge) + 0.1 * np.outer(
        np.sin(2 * np.pi * edge), np.sin(np.pi * edge)) * (1 + edge)
    wx, wy = np.diff(psi, axis=1) * n, -np.diff(psi, axis=0) * n  # through faces, (n + 1, n) and (n, n + 1)

    def rate(u: np.ndarray) -> np.ndarray:
        p = np.pad(u, 2, mode="symmetric")
        a = (7 * (p[1:-2, 2:-2] + p[2:-1, 2:-2]) - p[:-3, 2:-2] - p[3:, 2:-2]) / 12
        b = (7 * (p[2:-2, 1:-2] + p[2:-2, 2:-1]) - p[2:-2, :-3] - p[2:-2, 3:]) / 12
        fx = wx * a - 0.004 * n * (p[2:-1, 2:-2] - p[1:-2, 2:-2])
        fy = wy * b - 0.004 * n * (p[2:-2, 2:-1] - p[2:-2, 1:-2])
        return -n * (np.diff(fx, axis=0) + np.diff(fy, axis=1)) + u * (1 - u) * (u - 0.2)

    x = _grid(n, 2)
    u = np.stack([solve(rate, np.clip(_bumps(generator, x.reshape(-1, 2), 0.3, 0.4), 0, 1).reshape(n, n), t)
                  for _ in range(count)])
    u = (u[:, :, ::2, ::2] + u[:, :, 1::2, ::2] + u[:, :, ::2, 1::2] + u[:, :, 1::2, 1::2]) / 4
    return t, _grid(n // 2, 2).reshape(-1, 2), u.reshape(count, FRAMES, -1, 1), {}


def glass(generator: np.random.Generator, count: int) -> Fields:
    """e_t = (dh/dx) / eps, h_t = de/dx in a line cavity (0, 1) of conducting walls (e = 0), eps = 1 + 1.5 exp(-30 (x -
    .6)^2): staggered differences, 400 cells."""
    n, t = 400, np.arange(FRAMES) * 0.06
    edge, middle = np.arange(1, n) / n, (np.arange(n) + 0.5) / n
    eps = 1 + 1.5 * np.exp(-30 * (edge - 0.6) ** 2)

    def rate(w: np.ndarray) -> np.ndarray:
        e, h = w[: n - 1], w[n - 1 :]
        return np.concatenate([np.diff(h) * n / eps, np.diff(np.pad(e, 1)) * n])

    rows = []
    for _ in range(count):
        a, b = generator.standard_normal((2, 6)) / np.arange(1, 7)
        wave = np.pi * np.arange(1, 7)[:, None]
        w = solve(rate, np.concatenate([a @ np.sin(wave * edge), b @ np.cos(wave * middle)]), t, "DOP853")
        e, h = w[:, : n - 1], (w[:, n - 1 : -1] + w[:, n:]) / 2
        rows.append(np.stack([e, h], -1)[:, 3::5])
    return t, edge[3::5, None], np.stack(rows), {"channels": ["e", "h"]}


def radial(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 (u_rr + u_r / r) + u - u^3 of the radius alone, .05 < r < 1, no flux: finite volumes in r."""
    n, t = 200, np.arange(FRAMES) * 0.2
    edge = np.linspace(0.05, 1, n + 1)
    r, h = (edge[1:] + edge[:-1]) / 2, edge[1] - edge[0]

    def rate(u: np.ndarray) -> np.ndarray:
        return 0.01 * np.diff(edge * np.pad(np.diff(u) / h, 1)) / h / r + u - u**3

    u = np.stack([solve(rate, bumps(generator, r[:, None], 4), t, "LSODA") for _ in range(count)])
    return t, r[1::3, None], u[..., 1::3, None], {}


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


def curved(generator: np.random.Generator, count: int) -> Fields:
    """h_t = .02 (h_x / (1 + h_x^2)^.5)_x ... of a surface that its curvature flattens, h_t = .02 div(grad h / (1 +
    |grad h|^2)^.5), on a torus of length 1, steep at first: differences, 64 x 64, at 32 x 32."""
    n, t = 64, np.arange(FRAMES) * 0.04

    def rate(h: np.ndarray) -> np.ndarray:
        a, b = (np.roll(h, -1, 0) - h) * n, (np.roll(h, -1, 1) - h) * n
        across = (np.roll(h, -1, 1) - np.roll(h, 1, 1)) * n / 2
        along = (np.roll(h, -1, 0) - np.roll(h, 1, 0)) * n / 2
        p = a / np.sqrt(1 + a**2 + ((across + np.roll(across, -1, 0)) / 2) ** 2)
        q = b / np.sqrt(1 + b**2 + ((along + np.roll(along, -1, 1)) / 2) ** 2)
        return 0.02 * n * (p - np.roll(p, 1, 0) + q - np.roll(q, 1, 1))

    u = np.stack([solve(rate, 0.3 * _waves(generator, n, 2, 3), t) for _ in range(count)])[:, :, ::2, ::2]
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n] * 2, indexing="ij"), -1).reshape(-1, 2)
    return t, x, u.reshape(count, FRAMES, -1, 1), {"period": [1.0, 1.0]}


def epidemic(generator: np.random.Generator, count: int) -> Fields:
    """s_t = .002 lap s - b s i, i_t = .004 lap i + b s i - .8 i between walls of 1 x .7, b (2 to 5) of its own in every
    trajectory and given as a parameter: cosines, 32 x 22; at 350 scattered cells, 40 % of them in each frame."""
    n, m, t = 32, 22, np.arange(FRAMES) * 0.4
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(m) + 0.5) / m * 0.7, indexing="ij"), -1)
    k2 = (np.pi * np.arange(n)[:, None]) ** 2 + (np.pi * np.arange(m) / 0.7) ** 2
    b, u = generator.uniform(2, 5, count), []
    for rate in b:
        def change(w: np.ndarray, rate: float = rate) -> np.ndarray:
            lap, met = [idctn(-k2 * dctn(f)) for f in w], rate * w[0] * w[1]
            return np.stack([0.002 * lap[0] - met, 0.004 * lap[1] + met - 0.8 * w[1]])

        centre = generator.uniform([0.1, 0.1], [0.9, 0.6], (2, 2))
        i = sum(generator.uniform(0.1, 0.4) * np.exp(-60 * ((x - c) ** 2).sum(-1)) for c in centre)
        s = np.clip(_bumps(generator, x.reshape(-1, 2), 0.15, 0.8).reshape(n, m), 0.2, 1.2)
        u.append(solve(change, np.stack([s, i]), t))
    rows = np.sort(generator.permutation(n * m)[:350])
    values = np.stack(u).reshape(count, FRAMES, 2, -1).swapaxes(2, 3)[:, :, rows]
    values[generator.random(values.shape[:3]) > 0.4] = np.nan
    return t, x.reshape(-1, 2)[rows], values, {"channels": ["s", "i"], "parameters": b[:, None]}


def aquifer(generator: np.random.Generator, count: int) -> Fields:
    """Head (m) under a plain: s h_t = div(h K grad h) + rain, in a kite of 100 km with a round lake that holds 20 m;
    days of 86,400 s, K = 3e-4 m/s, s = .1: Boussinesq, quadratic elements, implicit."""
    basis, stiffness, masses, cells = _quadratic([1e5 * _polygon([(0, 0), (1.6, -.3), (2.0, .9), (.5, 1.3)], .12) / 2,
                                                  5e4 * _circle((1.1, .5), .25, .1)], 5500)
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    lake = basis.get_dofs().flatten()
    lake = lake[np.hypot(*(x[lake] - 5e4 * np.array([1.1, .5])).T) < 5e4 * .26]
    gap, steps = 4e7, 10
    form = skfem.BilinearForm(lambda u, v, w: w["h"] * (u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]))
    rain, paths = masses @ np.full(len(x), 2e-10), []
    for _ in range(count):
        h = 20 + np.abs(_bumps(generator, x, 8.0)) * (1 - np.exp(-((np.hypot(*(x - 5e4 * np.array([1.1, .5])).T)
                                                                    / 5e4 - .25) / .2) ** 2))
        h[lake], frames, dt = 20.0, [], gap / steps
        for index in range(steps * (FRAMES - 1) + 1):
            if index % steps == 0:
                frames.append(h[nodes])
            middle = h
            for _ in range(2):
                a = 3e-4 * form.assemble(basis, h=basis.interpolate(middle))
                new = skfem.solve(*skfem.condense(0.1 * masses + dt / 2 * a, 0.1 * masses @ h - dt / 2 * (a @ h)
                                                  + dt * rain, x=h, D=lake))
                middle = (h + new) / 2
            h = new
        paths.append(np.stack(frames))
    return np.arange(FRAMES) * gap, x[nodes], np.stack(paths)[..., None], {**cells, "channels": ["head"]}


def plate_patterns(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .4 u - (1 + lap)^2 u - u^3 on a disc of radius 12, without flux of u and of lap u, every trajectory at
    times of its own, 2 % noise."""
    basis, stiffness, masses, cells = _quadratic([_circle((0, 0), 12, 1.1)], 1.1)
    x, nodes = basis.doflocs.T, basis.nodal_dofs[0]
    w = np.stack([_bumps(generator, x, 0.4) + 0.3 * generator.standard_normal() * np.cos(
        x @ generator.standard_normal(2)) for _ in range(count)], -1)
    frames = _modal(stiffness, masses, w[None], lambda k: 0.4 - (1 - k[None]) ** 2, lambda u: -u**3, 0.4, 20)
    u = frames[:, :, nodes].transpose(3, 0, 2, 1)
    return np.arange(FRAMES) * 0.4, x[nodes], u + 0.02 * u.std() * generator.standard_normal(u.shape), cells


def rivals(generator: np.random.Generator, count: int) -> Fields:
    """u_t = lap(u (.004 + .02 v)) + u (1 - u - .6 v), v_t = lap(v (.006 + .01 u)) + v (.9 - .7 u - v) on a circle of
    length 2: crowds that avoid each other."""
    n = 96
    k = 2 * np.pi * np.fft.fftfreq(n, 2 / n)

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        f, g = np.fft.fft(u * (0.004 + 0.02 * v)), np.fft.fft(v * (0.006 + 0.01 * u))
        return np.stack([np.fft.ifft(-k**2 * f).real + u * (1 - u - 0.6 * v),
                         np.fft.ifft(-k**2 * g).real + v * (0.9 - 0.7 * u - v)])

    t = np.arange(FRAMES) * 0.3
    u = np.stack([solve(rate, np.stack([np.abs(0.5 + 0.3 * _waves(generator, n, 1, 5)) for _ in range(2)]), t, "LSODA")
                  for _ in range(count)])[..., ::2]
    return t, np.arange(0, n, 2)[:, None] / n * 2, u.swapaxes(2, 3), {"period": [2.0]}


def vessel(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 lap u + u (1 - u) (u - .3) on a triangulated ellipsoid of axes 1, .7, .5: linear surface elements."""
    golden = (1 + 5**0.5) / 2
    x = np.array([(a, b * golden, 0) for a in (-1, 1) for b in (-1, 1)])
    x = np.concatenate([x, x[:, [2, 0, 1]], x[:, [1, 2, 0]]])
    cells = scipy.spatial.ConvexHull(x).simplices
    for _ in range(3):
        edges = np.sort(cells[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
        unique, back = np.unique(edges, axis=0, return_inverse=True)
        middle = back.reshape(-1, 3) + len(x)
        x = np.concatenate([x, x[unique].mean(1)])
        a, b, c = cells.T
        ab, bc, ca = middle.T
        cells = np.concatenate([np.stack(p, 1) for p in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    x = x / np.linalg.norm(x, axis=1, keepdims=True) * np.array([1, 0.7, 0.5])
    stiffness, masses = (matrix.toarray() for matrix in surface_elements(x, cells))
    values, modes = scipy.linalg.eigh(stiffness, masses)
    back, w = modes.T @ masses, np.stack([np.clip(_bumps(generator, x, 0.35, 0.4), 0, 1) for _ in range(count)], -1)
    z, frames = back @ w, [w]
    for _ in range(FRAMES - 1):
        z = _etd(-0.02 * values[:, None], lambda z: back @ ((u := modes @ z) * (1 - u) * (u - 0.3)), z, 0.02, 25)
        frames.append(modes @ z)
    return np.arange(FRAMES) * 0.5, x, np.stack(frames).transpose(2, 0, 1)[..., None], {"triangles": cells}


MAKERS = {maker.__name__: maker for maker in (
    beam, long_waves, capillary, neighbours, trapped, plankton, glass, radial, radiation, curved, epidemic, aquifer,
    plate_patterns, rivals, vessel)}


if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST)
