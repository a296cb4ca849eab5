"""Flows and what they carry in boxes between walls."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct, idct
from scipy.interpolate import RectBivariateSpline
from scipy.sparse import csr_matrix, diags, identity, kron
from scipy.sparse.linalg import expm_multiply

from benchmarks.makers.base import FRAMES, Fields, bumps, bumps_of, cell_centres, problem, solve, stepped
from benchmarks.makers.spectral import etd, mirrored, wave_numbers


@problem()
def basin(generator: np.random.Generator, count: int) -> Fields:
    """Shallow water in a walled unit basin: h_t = -div(h w), w_t = -w . grad w - grad h + .004 lap w; walls slip.
    Solved on 48 x 48 cells with mirrored images, read at 16 x 16 of their centres."""
    n, gap, steps = 48, 0.08, 24
    x, axes = cell_centres(n, 2), (-2, -1)
    kx, ky, mask = wave_numbers(2 * n, 2 * n, 2.0, 2.0)
    linear = np.stack([0 * kx, 0.004 * (kx**2 + ky**2), 0.004 * (kx**2 + ky**2)]).real

    def back(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (2 * n, 2 * n))

    def rate(w: np.ndarray) -> np.ndarray:
        h, u, v = (back(w[:, c]) for c in range(3))
        hh, uu, vv = (w[:, c] for c in range(3))
        lifted = -kx * np.fft.rfft2(h * u, axes=axes) - ky * np.fft.rfft2(h * v, axes=axes)
        first = -np.fft.rfft2(u * back(kx * uu) + v * back(ky * uu), axes=axes) - kx * hh
        second = -np.fft.rfft2(u * back(kx * vv) + v * back(ky * vv), axes=axes) - ky * hh
        return mask * np.stack([lifted, first, second], 1)

    h = np.stack([1 + 0.12 * bumps(generator, x, 3) for _ in range(count)])
    start = np.stack([mirrored(h, (1, 1)), 0 * mirrored(h, (-1, 1)), 0 * mirrored(h, (1, -1))], 1)
    # cells' centres lie half a cell from the mirror: images are periodic on 2 n points as they stand
    frames, w = [], mask * np.fft.rfft2(start, axes=axes)
    for _ in range(FRAMES):
        frames.append(back(w)[..., 1:n:3, 1:n:3])
        w = etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 3, -1), 2, 3)
    return np.arange(FRAMES) * gap, x[1::3, 1::3].reshape(-1, 2), u, {"channels": ["h", "u", "v"]}


@problem()
def convection(generator: np.random.Generator, count: int) -> Fields:
    """Boussinesq flow between plates a unit apart that slip, periodic along them over 2: temperature held at 1 below
    and 0 above; w_t = -w . grad w - grad p + 40 T e_y + .05 lap w, T_t = -w . grad T + .05 lap T; 24 x 18 points."""
    n, m, gap, steps = 48, 36, 0.05, 40
    kx, ky, mask = wave_numbers(n, 2 * m, 2.0, 2.0)
    k2 = (kx**2 + ky**2).real
    inverse = 1 / np.where(k2 < 0, k2, np.inf)
    x = np.stack(np.meshgrid(np.arange(n) / n * 2, (np.arange(m) + 0.5) / m, indexing="ij"), -1)

    def back(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (n, 2 * m))

    def rate(w: np.ndarray) -> np.ndarray:  # vorticity and T - 1 + y, both odd
        psi = inverse * w[:, 0]
        u, v = back(-ky * psi), back(kx * psi)
        turn = -np.fft.rfft2(u * back(kx * w[:, 0]) + v * back(ky * w[:, 0])) + 40 * kx * w[:, 1]
        heat = -np.fft.rfft2(u * back(kx * w[:, 1]) + v * (back(ky * w[:, 1]) - 1))
        return mask * np.stack([turn, heat], 1)

    start = []
    for _ in range(count):
        f = sum(generator.standard_normal() * np.sin(np.pi * q * x[..., 1]) * np.cos(np.pi * p * x[..., 0]
                + generator.uniform(0, 7)) / (1 + p + q) for p in range(4) for q in range(1, 4))
        start.append(np.stack([0 * f, 0.15 * f]))
    w = mask * np.fft.rfft2(mirrored(np.stack(start), (0, -1)), axes=(-2, -1))
    w = etd(0.05 * k2, rate, w, gap / steps, 4 * steps)
    frames = []
    for _ in range(FRAMES):
        psi = inverse * w[:, 0]
        frames.append(np.stack([1 - x[..., 1] + back(w[:, 1])[..., :m], back(-ky * psi)[..., :m],
                                back(kx * psi)[..., :m]], 1)[..., ::2, ::2])
        w = etd(0.05 * k2, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 3, -1), 2, 3)
    return (np.arange(FRAMES) * gap, x[::2, ::2].reshape(-1, 2), u,
            {"period": [2.0, 0.0], "channels": ["T", "u", "v"]})


@problem()
def heated_room(generator: np.random.Generator, count: int) -> Fields:
    """Boussinesq flow that slips along the walls of a box 1.5 x 1, insulated at its sides, the floor at .8 to 1.4 and
    the ceiling at 0: w_t = -w . grad w - grad p + 30 T e_y + .04 lap w, T_t = -w . grad T + .06 lap T. Images on
    48 x 32 cells, read at 24 x 16 of their centres."""
    n, m, gap, steps = 48, 32, 0.06, 16
    kx, ky, mask = wave_numbers(2 * n, 2 * m, 3.0, 2.0)
    k2 = (kx**2 + ky**2).real
    inverse = 1 / np.where(k2 < 0, k2, np.inf)
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) / n * 1.5, (np.arange(m) + 0.5) / m, indexing="ij"), -1)
    floor = generator.uniform(0.8, 1.4, (count, 1, 1))

    def back(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (2 * n, 2 * m))

    def rate(w: np.ndarray) -> np.ndarray:  # vorticity, odd in both, and T - floor (1 - y), even in x and odd in y
        psi = inverse * w[:, 0]
        u, v = back(-ky * psi), back(kx * psi)
        turn = -np.fft.rfft2(u * back(kx * w[:, 0]) + v * back(ky * w[:, 0])) + 30 * kx * w[:, 1]
        heat = -np.fft.rfft2(u * back(kx * w[:, 1]) + v * (back(ky * w[:, 1]) - floor))
        return mask * np.stack([turn, heat], 1)

    start = []
    for _ in range(count):
        f = sum(generator.standard_normal() * np.sin(np.pi * q * x[..., 1]) * np.cos(np.pi * p * x[..., 0] / 1.5)
                / (1 + p + q) for p in range(4) for q in range(1, 4))
        start.append(np.stack([mirrored(0 * f, (-1, -1)), mirrored(0.2 * f, (1, -1))]))
    linear = np.stack([0.04 * k2, 0.06 * k2])
    w = etd(linear, rate, mask * np.fft.rfft2(np.stack(start), axes=(-2, -1)), gap / steps, 4 * steps)
    frames = []
    for _ in range(FRAMES):
        psi = inverse * w[:, 0]
        parts = [floor * (1 - x[..., 1]) + back(w[:, 1])[..., :n, :m], back(-ky * psi)[..., :n, :m],
                 back(kx * psi)[..., :n, :m]]
        frames.append(np.stack(parts, 1)[..., ::2, ::2])
        w = etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 3, -1), 2, 3)
    return np.arange(FRAMES) * gap, x[::2, ::2].reshape(-1, 2), u, {"channels": ["T", "u", "v"]}


@problem()
def sticky_plates(generator: np.random.Generator, count: int) -> Fields:
    """Convection between plates that hold the flow: w_t = -w . grad w - grad p + 60 T e_y + .05 lap w,
    T_t = -w . grad T + .05 lap T, T held at 1 and 0; periodic along them over 2. Marker and cell, 64 x 36, read at
    32 x 18."""
    n, m, gap, steps = 64, 36, 0.05, 40
    h, k = (2.0 / n, 1.0 / m), gap / steps
    kx = 2 / h[0] ** 2 * (np.cos(2 * np.pi * np.fft.rfftfreq(n)) - 1)
    symbol = kx[:, None] + 2 / h[1] ** 2 * (np.cos(np.pi * np.arange(m) / m) - 1)
    symbol[0, 0] = np.inf

    def padded(f: np.ndarray, low: float, high: float) -> np.ndarray:
        """With images beyond plates that hold values at centres of cells."""
        return np.concatenate([2 * low - f[..., :1], f, 2 * high - f[..., -1:]], -1)

    def bent(f: np.ndarray, wide: np.ndarray) -> np.ndarray:
        along = np.roll(f, 1, -2) - 2 * f + np.roll(f, -1, -2)
        return along / h[0] ** 2 + (wide[..., 2:] - 2 * f + wide[..., :-2]) / h[1] ** 2

    def projected(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        div = (np.roll(u, -1, -2) - u) / h[0] + np.diff(v, axis=-1) / h[1]
        hat = np.fft.rfft(dct(div, axis=-1), axis=-2) / symbol
        p = idct(np.fft.irfft(hat, n, axis=-2), axis=-1)
        v = v.copy()
        v[..., 1:-1] -= np.diff(p, axis=-1) / h[1]
        return u - (p - np.roll(p, 1, -2)) / h[0], v

    def rate(w: list[np.ndarray]) -> list[np.ndarray]:  # u at left faces, v at lower ones, those of plates too, T
        u, v, warm = w
        across, heat = padded(u, 0, 0), padded(warm, 1, 0)
        centre = (u + np.roll(u, -1, -2)) / 2
        corner_u, corner_v = (across[..., 1:] + across[..., :-1]) / 2, (v + np.roll(v, 1, -2)) / 2
        turned = corner_u * corner_v
        du = -(centre**2 - np.roll(centre**2, 1, -2)) / h[0] - np.diff(turned, axis=-1) / h[1] + 0.05 * bent(u, across)
        middle = (v[..., 1:] + v[..., :-1]) / 2
        dv = 0 * v
        inner = v[..., 1:-1]
        dv[..., 1:-1] = (-(np.roll(turned, -1, -2) - turned)[..., 1:-1] / h[0] - np.diff(middle**2, axis=-1) / h[1]
                         + 0.05 * bent(inner, v) + 30 * (warm[..., 1:] + warm[..., :-1]))
        flux_x, flux_y = u * (warm + np.roll(warm, 1, -2)) / 2, v * (heat[..., 1:] + heat[..., :-1]) / 2
        dt = -(np.roll(flux_x, -1, -2) - flux_x) / h[0] - np.diff(flux_y, axis=-1) / h[1] + 0.05 * bent(warm, heat)
        return [*projected(du, dv), dt]

    def step(w: list[np.ndarray]) -> list[np.ndarray]:
        a = rate(w)
        b = rate([f + k / 2 * r for f, r in zip(w, a, strict=True)])
        c = rate([f + k / 2 * r for f, r in zip(w, b, strict=True)])
        d = rate([f + k * r for f, r in zip(w, c, strict=True)])
        return [f + k / 6 * (p + 2 * q + 2 * r + s) for f, p, q, r, s in zip(w, a, b, c, d, strict=True)]

    x = np.stack(np.meshgrid((np.arange(n) + 0.5) * h[0], (np.arange(m) + 0.5) * h[1], indexing="ij"), -1)
    start = np.stack([1 - x[..., 1] + 0.15 * sum(
        generator.standard_normal() * np.sin(np.pi * q * x[..., 1]) * np.cos(np.pi * p * x[..., 0]
        + generator.uniform(0, 7)) / (1 + p + q) for p in range(4) for q in range(1, 4)) for _ in range(count)])
    w, frames = [0 * start, np.zeros((count, n, m + 1)), start], []
    for index in range(steps * (FRAMES + 3) + 1):
        if index % steps == 0 and index >= 4 * steps:
            u, v, warm = w
            both = [warm, (u + np.roll(u, -1, -2)) / 2, (v[..., 1:] + v[..., :-1]) / 2]
            frames.append(np.stack(both, 1)[..., ::2, ::2])
        w = step(w)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 3, -1), 2, 3)
    return np.arange(FRAMES) * gap, x[::2, ::2].reshape(-1, 2), u, {"period": [2.0, 0.0], "channels": ["T", "u", "v"]}


@problem()
def bay(generator: np.random.Generator, count: int) -> Fields:
    """Shallow water that turns in a closed basin of 1.5 x 1 over an uneven floor: e_t = -div((H + e) w),
    w_t = -w . grad w - 2 k x w - grad e + .004 lap w, H from .4 to 1.1, walls that slip: staggered differences,
    90 x 60 cells, read at the centres of every third."""
    n, m, h = 90, 60, 1 / 60
    x, y = np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(m) + 0.5) * h, indexing="ij")
    depth = 1.1 - 0.6 * np.exp(-((x - 0.5) ** 2 + (y - 0.6) ** 2) / 0.08) - 0.3 * x / 1.5

    def mean(f: np.ndarray, axis: int) -> np.ndarray:
        return (np.take(f, np.arange(1, f.shape[axis]), axis) + np.take(f, np.arange(f.shape[axis] - 1), axis)) / 2

    def padded(f: np.ndarray, axis: int) -> np.ndarray:
        return np.concatenate([np.take(f, [0], axis), f, np.take(f, [-1], axis)], axis)

    def split(w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        e, u, v = np.split(w, [n * m, n * m + (n - 1) * m], 1)
        closed = np.pad(u.reshape(-1, n - 1, m), ((0, 0), (1, 1), (0, 0)))
        return e.reshape(-1, n, m), closed, np.pad(v.reshape(-1, n, m - 1), ((0, 0), (0, 0), (1, 1)))

    def rate(w: np.ndarray) -> np.ndarray:
        e, u, v = split(w)
        whole = depth + e
        level = -np.diff(padded(mean(whole, 1), 1) * u, axis=1) / h - np.diff(
            padded(mean(whole, 2), 2) * v, axis=2) / h
        forces = []
        for f, other, axis, turn in ((u, v, 1, 2.0), (v, u, 2, -2.0)):
            inner = np.take(f, np.arange(1, f.shape[axis] - 1), axis)
            across = mean(mean(other, 3 - axis), axis)  # of the other velocity where this one is
            ahead = (np.take(f, np.arange(2, f.shape[axis]), axis) - np.take(f, np.arange(f.shape[axis] - 2), axis))
            side = padded(inner, 3 - axis)
            aside = np.take(side, np.arange(2, side.shape[3 - axis]), 3 - axis) - np.take(
                side, np.arange(side.shape[3 - axis] - 2), 3 - axis)
            lap = (np.diff(f, 2, axis=axis) + np.diff(side, 2, axis=3 - axis)) / h**2
            forces.append(-inner * ahead / (2 * h) - across * aside / (2 * h) + turn * across
                          - np.diff(e, axis=axis) / h + 0.004 * lap)
        return np.concatenate([f.reshape(len(w), -1) for f in (level, *forces)], 1)

    e = 0.12 * np.stack([bumps(generator, np.stack([x / 1.5, y], -1), 3) for _ in range(count)])
    w = np.concatenate([e.reshape(count, -1), np.zeros((count, (n - 1) * m + n * (m - 1)))], 1)
    frames = []
    for frame in stepped(rate, w, 0.15, 15):
        e, u, v = split(frame)
        frames.append(np.stack([f[:, 1::3, 1::3] for f in (e, mean(u, 1), mean(v, 2))], -1).reshape(count, -1, 3))
    places = np.stack([x, y], -1)[1::3, 1::3].reshape(-1, 2)
    return np.arange(FRAMES) * 0.15, places, np.stack(frames, 1), {"channels": ["eta", "u", "v"]}


@problem()
def shear(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -J(p, w) + .01 lap w, w = -lap p and a tracer c_t = -J(p, c) + .005 lap c between slippery walls y = 0 and
    1 of a box that is periodic along x over 2 (incompressible flow; Kelvin and Helmholtz): images on 96 x 96, u, v and
    c read at 32 x 16 centres."""
    n, gap, steps = 96, 0.12, 24
    k = np.fft.fftfreq(n, 1 / n) * np.pi
    ky, kx = np.meshgrid(k, k[: n // 2 + 1], indexing="ij")
    kx = abs(kx)
    k2, keep = kx**2 + ky**2, (kx < n * np.pi / 3) & (abs(ky) < n * np.pi / 3)
    inverse = np.where(k2 > 0, 1 / np.where(k2 > 0, k2, 1), 0)

    def back(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (n, n))

    def rate(w: np.ndarray) -> np.ndarray:
        p = inverse * w[:, :1]
        u, v = back(1j * ky * p), back(-1j * kx * p)
        return -1.0 * keep * np.fft.rfft2(u * back(1j * kx * w) + v * back(1j * ky * w))

    side = (np.arange(n) + 0.5) / n * 2
    y, x = np.meshgrid(side, side, indexing="ij")
    inner = np.where(y < 1, y, 2 - y)
    sign = np.where(y < 1, 1, -1)
    jet = generator.uniform(-3, 3, (count, 1, 1)) / np.cosh(
        (inner - generator.uniform(0.35, 0.65, (count, 1, 1))) / 0.12)
    swirl = sum(generator.standard_normal((count, 1, 1)) * 4 / (i + j) * np.sin(np.pi * j * y) * np.cos(
        np.pi * i * x + generator.uniform(0, 7, (count, 1, 1))) for i in range(4) for j in (1, 2, 3))
    c = 0.5 + 0.5 * np.tanh((inner - 0.5 + 0.2 * np.sin(np.pi * x + generator.uniform(0, 7, (count, 1, 1)))) / 0.15)
    w, frames = np.fft.rfft2(np.stack([jet * sign * 2 + swirl, c], 1)), []
    for frame in range(FRAMES):
        w = etd(-np.stack([0.01 * k2, 0.005 * k2]), rate, w, gap / steps, steps) if frame else w
        p = inverse * w[:, 0]
        frames.append(np.stack([back(1j * ky * p), back(-1j * kx * p), back(w[:, 1])], 1)[..., 1 : n // 2 : 3, 1::3])
    points = np.stack([x, y], -1)[1 : n // 2 : 3, 1::3].reshape(-1, 2)
    return np.arange(FRAMES) * gap, points, np.stack(frames, 1).reshape(count, FRAMES, 3, -1).swapaxes(2, 3), {
        "channels": ["u", "v", "c"], "period": [2.0, 0.0]}


@problem()
def gyres(generator: np.random.Generator, count: int) -> Fields:
    """c_t = -w . grad c + .004 lap c in a closed box of 1.5 x 1, w two unequal gyres that no channel holds: finite
    volumes, 120 x 80 cells, at 450 scattered ones."""
    n, m, h, gap, steps = 120, 80, 1 / 80, 0.15, 40
    px, py = np.meshgrid(np.arange(n + 1) * h, np.arange(m + 1) * h, indexing="ij")
    psi = 0.14 * np.sin(np.pi * (px / 1.5) ** 1.3 * 2) * np.sin(np.pi * py)
    to_x, to_y = np.diff(psi, axis=1)[..., None] / h, -np.diff(psi, axis=0)[..., None] / h  # through faces
    x = np.stack(np.meshgrid((np.arange(n) + 0.5) * h, (np.arange(m) + 0.5) * h, indexing="ij"), -1)

    def rate(c: np.ndarray) -> np.ndarray:
        p = np.pad(c, ((1, 1), (1, 1), (0, 0)), mode="edge")
        fx = to_x * (p[1:, 1:-1] + p[:-1, 1:-1]) / 2 - 0.004 * np.diff(p[:, 1:-1], axis=0) / h
        fy = to_y * (p[1:-1, 1:] + p[1:-1, :-1]) / 2 - 0.004 * np.diff(p[1:-1], axis=1) / h
        return -np.diff(fx, axis=0) / h - np.diff(fy, axis=1) / h

    c = np.stack([bumps_of(generator, x.reshape(-1, 2), 1.0).reshape(n, m) for _ in range(count)], -1)
    u = stepped(rate, c, gap, steps).reshape(FRAMES, n * m, count)
    seen = generator.choice(n * m, 450, replace=False)
    return np.arange(FRAMES) * gap, x.reshape(-1, 2)[seen], u[:, seen].transpose(2, 0, 1)[..., None], {}


@problem()
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

    x = cell_centres(n, 2)
    u = np.stack([solve(rate, np.clip(bumps_of(generator, x.reshape(-1, 2), 0.3, 0.4), 0, 1).reshape(n, n), t)
                  for _ in range(count)])
    u = (u[:, :, ::2, ::2] + u[:, :, 1::2, ::2] + u[:, :, ::2, 1::2] + u[:, :, 1::2, 1::2]) / 4
    return t, cell_centres(n // 2, 2).reshape(-1, 2), u.reshape(count, FRAMES, -1, 1), {}


@problem()
def wells(generator: np.random.Generator, count: int) -> Fields:
    """p_t = div(p grad V) + .25 lap p, V = (x^2 - 1)^2 / 2 + y^2 + .3 x y, without flux in (-2, 2) x (-1.5, 1.5)
    (Fokker and Planck), at 300 scattered points of its own in every trajectory: finite volumes of Scharfetter and
    Gummel, 120 x 90, exact in time."""
    n, m, d = 120, 90, 0.25
    axes = [-2 + (np.arange(n) + 0.5) / n * 4, -1.5 + (np.arange(m) + 0.5) / m * 3]
    x, y = np.meshgrid(*axes, indexing="ij")
    v = ((x**2 - 1) ** 2 / 2 + y**2 + 0.3 * x * y).ravel()
    h, matrix = 4 / n, csr_matrix((n * m, n * m))
    for forward in (kron(diags([np.ones(n - 1)], [1]), identity(m)), kron(identity(n), diags([np.ones(m - 1)], [1]))):
        rows, columns = forward.tocoo().row, forward.tocoo().col
        rise = (v[columns] - v[rows]) / d
        there, back = (d / h**2 * z / np.expm1(z) for z in (rise, -rise))  # rates from rows to columns and back
        for source, target, rates in ((rows, columns, there), (columns, rows, back)):
            matrix = matrix + csr_matrix((rates, (target, source)), (n * m,) * 2) - csr_matrix(
                (rates, (source, source)), (n * m,) * 2)
    starts = np.zeros((n * m, count))
    for s in range(count):
        for _ in range(generator.integers(1, 4)):
            (a, b), width = generator.uniform([-1.6, -1.0], [1.6, 1.0]), generator.uniform(0.25, 0.5)
            starts[:, s] += generator.uniform(0.3, 1) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / width**2).ravel()
    frames = expm_multiply(matrix, starts / starts.sum(0) / h**2, 0, 0.08 * (FRAMES - 1), FRAMES)
    points = generator.uniform([-1.95, -1.45], [1.95, 1.45], (count, 300, 2))
    u = np.stack([[RectBivariateSpline(*axes, frame[:, s].reshape(n, m)).ev(*points[s].T) for frame in frames]
                  for s in range(count)])
    return np.arange(FRAMES) * 0.08, points, u[..., None], {"channels": ["p"]}
