"""Reaction and diffusion in boxes between walls."""

from __future__ import annotations

import numpy as np
from scipy.fft import dctn, idctn
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter

from benchmarks.makers.base import FRAMES, Fields, bumps, bumps_of, cell_centres, problem, solve, stepped
from benchmarks.makers.spectral import etd


def _laplacian(u: np.ndarray, h: float) -> np.ndarray:
    """Five-point Laplacian of (..., n, n) between walls without flux, values at centres of cells."""
    p = np.pad(u, [(0, 0)] * (u.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    return (p[..., 2:, 1:-1] + p[..., :-2, 1:-1] + p[..., 1:-1, 2:] + p[..., 1:-1, :-2] - 4 * u) / h**2


@problem()
def allen_cahn(generator: np.random.Generator, count: int) -> Fields:
    """u_t = 0.003 lap u + u - u^3 in a walled unit box, 40 x 40 centres of cells."""
    n, t = 40, np.arange(FRAMES) * 0.25
    g = (np.arange(n) + 0.5) / n
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1)
    u = [solve(lambda u: 0.003 * _laplacian(u, 1 / n) + u - u**3, bumps(generator, x, 4), t) for _ in range(count)]
    return t, x.reshape(-1, 2), np.stack(u).reshape(count, FRAMES, -1, 1), {}


@problem()
def burgers_box(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u . grad u + .01 lap u, both components without flux through the walls of a unit box: differences, 96 x 96
    centres of cells, read at 800 scattered points."""
    n, gap = 96, 0.05
    x, places = cell_centres(n, 2), np.random.default_rng(3).random((800, 2))  # the same in both files

    def rate(u: np.ndarray) -> np.ndarray:
        p = np.pad(u, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
        slopes = (p[..., 2:, 1:-1] - p[..., :-2, 1:-1]) * n / 2, (p[..., 1:-1, 2:] - p[..., 1:-1, :-2]) * n / 2
        return np.asarray(0.01 * _laplacian(u, 1 / n) - u[:, :1] * slopes[0] - u[:, 1:] * slopes[1])

    u = np.stack([np.stack([bumps_of(generator, x.reshape(-1, 2), 0.5).reshape(n, n) for _ in range(2)])
                  for _ in range(count)])
    g = x[:, 0, 0]
    seen = [RegularGridInterpolator((g, g), np.moveaxis(one, (0, 1), (2, 3)), "cubic", False, None)(places)
            for one in stepped(rate, u, gap, 25)]  # (N, S, C)
    return np.arange(FRAMES) * gap, places, np.moveaxis(np.stack(seen), (0, 2), (1, 0)), {"channels": ["u", "v"]}


@problem()
def cahn_hilliard(generator: np.random.Generator, count: int) -> Fields:
    """u_t = lap(u^3 - u - .0016 lap u) between walls of a unit box, cosines on 40 x 40 centres of cells."""
    n, gap, steps = 40, 0.002, 400
    x, k = cell_centres(n, 2), np.pi * np.arange(n)
    k2 = k[:, None] ** 2 + k**2
    linear = -0.0016 * k2**2 - 2 * k2  # the rest is lap(u^3 - 3 u)
    u = np.stack([0.4 * bumps(generator, x, 6) for _ in range(count)])
    frames, w = [u], dctn(u, axes=(1, 2))

    def rate(w: np.ndarray) -> np.ndarray:
        u = idctn(w, axes=(1, 2))
        return -k2 * dctn(u**3 - 3 * u, axes=(1, 2))

    for _ in range(FRAMES - 1):
        w = etd(linear, rate, w, gap / steps, steps)
        frames.append(idctn(w, axes=(1, 2)))
    return np.arange(FRAMES) * gap, x.reshape(-1, 2), np.stack(frames, 1).reshape(count, FRAMES, -1, 1), {}


@problem()
def schnakenberg_solid(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .005 lap u + .1 - u + u^2 v, v_t = .02 lap v + .9 - u^2 v between walls of a unit cube, cosines on 14^3."""
    n, gap, steps = 14, 0.3, 12
    x, k = cell_centres(n, 3), np.pi * np.arange(n)
    k2 = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    linear = -np.array([0.005, 0.02])[:, None, None, None] * k2
    u = np.stack([np.stack([1 + 0.35 * bumps(generator, x, 3), 0.9 + 0.3 * bumps(generator, x, 3)])
                  for _ in range(count)])
    axes = (2, 3, 4)
    frames, w = [u], dctn(u, axes=axes)

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = np.moveaxis(idctn(w, axes=axes), 1, 0)
        return dctn(np.stack([0.1 - u + u**2 * v, 0.9 - u**2 * v], 1), axes=axes)

    for _ in range(FRAMES - 1):
        w = etd(linear, rate, w, gap / steps, steps)
        frames.append(idctn(w, axes=axes))
    u = np.stack(frames, 1).reshape(count, FRAMES, 2, -1)
    return np.arange(FRAMES) * gap, x.reshape(-1, 3), np.moveaxis(u, 2, 3), {}


@problem()
def chemotaxis(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 lap u - div(.3 u grad c) + u (1 - u), c_t = .04 lap c + u - c between walls: finite volumes, 64 x 48
    cells, read at 32 x 24."""
    n, m, t = 64, 48, np.arange(FRAMES) * 0.05
    h = 1 / m
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(m) + 0.5) * h, indexing="ij"), -1)

    def divergence(a: np.ndarray, c: np.ndarray) -> np.ndarray:
        total = np.zeros_like(c)
        for axis in (0, 1):
            low, high = [slice(None)] * 2, [slice(None)] * 2
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            flux = (a[tuple(low)] + a[tuple(high)]) / 2 * np.diff(c, axis=axis) / h
            width = [(0, 0), (0, 0)]
            width[axis] = (1, 1)
            total += np.diff(np.pad(flux, width), axis=axis) / h
        return total

    def rate(w: np.ndarray) -> np.ndarray:
        u, c = w
        one = np.ones_like(u)
        return np.stack([0.02 * divergence(one, u) - 0.1 * divergence(u, c) + u * (1 - u),
                         0.04 * divergence(one, c) + u - c])

    u = []
    for _ in range(count):
        density, chemical = (bumps_of(generator, x.reshape(-1, 2), 0.3, 1.0) for _ in range(2))
        start = np.stack([np.abs(density), chemical])
        u.append(solve(rate, start.reshape(2, n, m), t, "RK45"))
    u = np.moveaxis(np.stack(u), 2, -1)
    u = (u[:, :, ::2, ::2] + u[:, :, 1::2, ::2] + u[:, :, ::2, 1::2] + u[:, :, 1::2, 1::2]) / 4
    centres = (x[::2, ::2] + x[1::2, 1::2]) / 2
    return t, centres.reshape(-1, 2), u.reshape(count, FRAMES, -1, 2), {"channels": ["u", "c"]}


@problem()
def patches(generator: np.random.Generator, count: int) -> Fields:
    """u_t = div(a grad u) + r u (1 - u) between walls of a unit box, a and r of their own in every trajectory and
    constant in time (three channels): finite volumes, 48 x 48 cells, at 24 x 24."""
    n, t = 48, np.arange(FRAMES) * 0.08
    h = 1 / n
    x = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * h] * 2, indexing="ij"), -1)

    def field(low: float, high: float) -> np.ndarray:
        total = 0.0
        for _ in range(10):
            k = generator.integers(0, 4, 2)
            total = total + generator.standard_normal() * np.prod(np.cos(np.pi * k * x), -1) / (1 + (k**2).sum())
        return np.asarray(low + (high - low) * (total - total.min()) / np.ptp(total))

    u = []
    for _ in range(count):
        a, r = field(0.005, 0.03), field(0.5, 3.0)

        def rate(f: np.ndarray, a: np.ndarray = a, r: np.ndarray = r) -> np.ndarray:
            total = r * f * (1 - f)
            for axis in (0, 1):
                low, high = [slice(None)] * 2, [slice(None)] * 2
                low[axis], high[axis] = slice(None, -1), slice(1, None)
                flux = (a[tuple(low)] + a[tuple(high)]) / 2 * np.diff(f, axis=axis) / h
                width = [(0, 0), (0, 0)]
                width[axis] = (1, 1)
                total += np.diff(np.pad(flux, width), axis=axis) / h
            return total

        f = solve(rate, field(0.05, 0.8), t)
        u.append(np.stack([f, np.broadcast_to(a, f.shape), np.broadcast_to(r, f.shape)], -1))
    u = np.stack(u)
    u = (u[:, :, ::2, ::2] + u[:, :, 1::2, ::2] + u[:, :, ::2, 1::2] + u[:, :, 1::2, 1::2]) / 4
    centres = (x[::2, ::2] + x[1::2, 1::2]) / 2
    return t, centres.reshape(-1, 2), u.reshape(count, FRAMES, -1, 3), {"channels": ["u", "a", "r"]}


@problem()
def conserved(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 lap u + u - u^3 less its mean, no flux, between walls: differences on 40 x 30 cells of 1.6 x 1.2."""
    n, m, h, t = 40, 30, 0.04, np.arange(FRAMES) * 0.25
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(m) + 0.5) * h, indexing="ij"), -1)

    def rate(u: np.ndarray) -> np.ndarray:
        padded = np.pad(u, 1, mode="edge")
        bent = (padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * u) / h**2
        growth = u - u**3
        return np.asarray(0.01 * bent + growth - growth.mean())

    u = []
    for _ in range(count):
        f = bumps(generator, x / np.array([1.6, 1.2]), 5)
        u.append(solve(rate, 0.4 * f + 0.3 * generator.standard_normal(), t))
    return t, x.reshape(-1, 2), np.stack(u).reshape(count, FRAMES, -1, 1), {}


@problem()
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
        s = np.clip(bumps_of(generator, x.reshape(-1, 2), 0.15, 0.8).reshape(n, m), 0.2, 1.2)
        u.append(solve(change, np.stack([s, i]), t))
    rows = np.sort(generator.permutation(n * m)[:350])
    values = np.stack(u).reshape(count, FRAMES, 2, -1).swapaxes(2, 3)[:, :, rows]
    values[generator.random(values.shape[:3]) > 0.4] = np.nan
    return t, x.reshape(-1, 2)[rows], values, {"channels": ["s", "i"], "parameters": b[:, None]}


@problem()
def alloy(generator: np.random.Generator, count: int) -> Fields:
    """u_t = div((1 - u^2) grad(u^3 - u - .004 lap u)) between walls of a unit box: phases of degenerate mobility,
    finite volumes, 48 x 48 cells, at 24 x 24."""
    n, t = 48, np.arange(FRAMES) * 0.02
    x = (np.arange(n) + 0.5) / n
    x = np.stack(np.meshgrid(x, x, indexing="ij"), -1)

    def slopes(f: np.ndarray) -> list[np.ndarray]:
        return [n * np.diff(f, axis=0, prepend=f[:1], append=f[-1:]),
                n * np.diff(f, axis=1, prepend=f[:, :1], append=f[:, -1:])]

    def divergence(flux: list[np.ndarray]) -> np.ndarray:
        return np.asarray(np.diff(flux[0], axis=0) + np.diff(flux[1], axis=1)) * n

    def rate(u: np.ndarray) -> np.ndarray:
        force, padded = slopes(u**3 - u - 0.004 * divergence(slopes(u))), np.pad(u, 1, mode="edge")
        sides = [(padded[1:, 1:-1] + padded[:-1, 1:-1]) / 2, (padded[1:-1, 1:] + padded[1:-1, :-1]) / 2]
        return divergence([(1 - side**2) * part for side, part in zip(sides, force, strict=True)])

    start = [bumps_of(generator, x.reshape(-1, 2), 0.8).reshape(n, n) for _ in range(count)]
    u = np.stack([solve(rate, 0.35 * np.tanh(f), t, "RK23") for f in start])
    u = (u[:, :, ::2, ::2] + u[:, :, 1::2, ::2] + u[:, :, ::2, 1::2] + u[:, :, 1::2, 1::2]) / 4
    centres = (x[::2, ::2] + x[1::2, 1::2]) / 2
    return t, centres.reshape(-1, 2), u.reshape(count, FRAMES, -1, 1), {}


@problem()
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


@problem()
def shade(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .003 lap u + u (2 / (1 + 3 s) - .6), s = u smoothed by a Gaussian of deviation .12, without flux through
    the walls of a box of 1.5 x 1: 72 x 48 cells, means of four."""
    n, m, h = 72, 48, 1 / 48
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(m) + 0.5) * h, indexing="ij"), -1)

    def rate(u: np.ndarray) -> np.ndarray:
        p, s = np.pad(u, 1, mode="edge"), gaussian_filter(u, 0.12 / h, mode="reflect", truncate=6.0)
        around = (p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u) / h**2
        return 0.003 * around + u * (2 / (1 + 3 * s) - 0.6)

    t = np.arange(FRAMES) * 0.35
    u = np.stack([solve(rate, 0.45 + 0.35 * np.tanh(bumps(generator, x / [1.5, 1], 4)), t) for _ in range(count)])
    u = u.reshape(count, FRAMES, n // 2, 2, m // 2, 2).mean((3, 5))
    return t, x.reshape(n // 2, 2, m // 2, 2, 2).mean((1, 3)).reshape(-1, 2), u.reshape(count, FRAMES, -1, 1), {}


@problem()
def tracks(generator: np.random.Generator, count: int) -> Fields:
    """Pressure (1e5 Pa) and humidity (5e-3) on a plain of 3000 x 2000 km without flux, hours: a slow and a fast field
    that excite each other, of units that differ by eight orders; cosines."""
    n, m, size = 45, 30, np.array([1e3, 1e-3])[:, None, None]
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) / n * 3000, (np.arange(m) + 0.5) / m * 2000, indexing="ij"), -1)
    k2 = (np.pi * np.arange(n)[:, None] / 3000) ** 2 + (np.pi * np.arange(m) / 2000) ** 2

    def rate(w: np.ndarray) -> np.ndarray:
        a, b = w
        lap = [idctn(-k2 * dctn(f)) for f in w]
        return np.stack([1.5e3 * lap[0] + 0.4 * (a - a**3 / 3 - b), 300 * lap[1] + 0.1 * (a + 0.7 - 0.8 * b)])

    t, flat = np.arange(FRAMES) * 1.5, x.reshape(-1, 2)
    start = [np.stack([bumps_of(generator, flat, s).reshape(n, m) for s in (1.2, 0.5)]) for _ in range(count)]
    u = np.stack([solve(rate, w, t) for w in start]) * size + np.array([1e5, 5e-3])[:, None, None]
    return t, flat, u.reshape(count, FRAMES, 2, -1).swapaxes(2, 3), {"channels": ["p", "q"]}


@problem(8, 8)
def active_strip(generator: np.random.Generator, count: int) -> Fields:
    """f_t = lap(f^3 - f - .004 lap f + .006 |grad f|^2) - .008 div((lap f) grad f) in a strip that is periodic along x
    over 2, between walls 1 apart without flux (active matter, Tjhung, Nardini and Cates 2018), eight trajectories:
    images on 64 x 64, at 32 x 16 centres of cells."""
    n, gap, steps = 64, 0.004, 80
    k = np.pi * np.fft.fftfreq(n, 1 / n)
    kx, ky = 1j * k[:, None], 1j * np.pi * np.arange(n // 2 + 1)[None]
    k2, most = -(kx**2 + ky**2).real, np.pi * n / 3
    keep = (abs(kx) < most) & (abs(ky) < most)

    def real(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (n, n))

    def rate(w: np.ndarray) -> np.ndarray:
        f, dx, dy, lap = (real(part * w) for part in (1, kx, ky, -k2))
        inner = np.fft.rfft2(f**3 - 3 * f + 0.006 * (dx**2 + dy**2))
        return keep * (-k2 * inner - 0.008 * (kx * np.fft.rfft2(lap * dx) + ky * np.fft.rfft2(lap * dy)))

    g = (np.arange(n) + 0.5) / n * 2
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1)
    f = np.stack([_strip_field(generator, x) for _ in range(count)])
    frames = [keep * np.fft.rfft2(f)]
    for _ in range(FRAMES - 1):
        frames.append(etd(-0.004 * k2**2 - 2 * k2, rate, frames[-1], gap / steps, steps))
    u = real(np.stack(frames, 1))[:, :, ::2, : n // 2 : 2].reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * gap, x[::2, : n // 2 : 2].reshape(-1, 2), u, {"channels": ["f"]}


def _strip_field(generator: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """A random field, periodic over 2 along both axes and even about y = 0 and 1."""
    k = np.stack(np.meshgrid(np.arange(4), np.arange(4), indexing="ij"), -1).reshape(-1, 2)[1:]
    parts = [generator.standard_normal() / (1 + np.square(a).sum() / 4) * np.cos(
        np.pi * a[0] * x[..., 0] + generator.uniform(0, 2 * np.pi)) * np.cos(np.pi * a[1] * x[..., 1]) for a in k]
    f = np.sum(parts, 0)
    return np.asarray(0.4 * f / f.std() + generator.uniform(-0.3, 0.3))


@problem(24, 10)
def spreading(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 lap(u^2) + u (1 - u) without flux in a box of 1.5 x 1, from colonies with edges beyond which there is
    nothing: finite volumes, 120 x 80, at 800 scattered points."""
    shape, h, gap = (120, 80), 1 / 80, 0.15
    cells = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * h for n in shape], indexing="ij"), -1)
    u = np.zeros((count, *shape))
    for own in u:
        for _ in range(generator.integers(2, 5)):
            away, radius = cells - generator.uniform((0, 0), (1.5, 1)), generator.uniform(0.1, 0.3)
            colony = generator.uniform(0.3, 1) * (1 - (away**2).sum(-1) / radius**2)
            own[:] = np.maximum(own, colony)
    frames = stepped(lambda u: 0.01 * _laplacian(u**2, h) + u * (1 - u), u, gap, 80)
    x = generator.uniform((h, h), (1.5 - h, 1 - h), (800, 2))
    at = RegularGridInterpolator((cells[:, 0, 0], cells[0, :, 1]), np.moveaxis(frames, (0, 1), (2, 3)))(x)
    return np.arange(FRAMES) * gap, x, at.transpose(2, 1, 0)[..., None], {}
