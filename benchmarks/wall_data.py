"""Data between walls that hold values other than zero: heat, and buoyant flows that slip or stick.

python benchmarks/wall_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys

import numpy as np
from blind_data import _etd, _mirrored, _waves
from data_makers import FRAMES, Fields, solve, write_problems
from scipy.fft import dct, idct

TRAIN, TEST = 24, 8


def heated_bar(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .03 u_xx + u - .4 u^3 on (0, 1), held at values about 1 and 2 that differ among trajectories: finite
    differences, 200 cells, read at every fourth from the second."""
    n, t = 200, np.arange(FRAMES) * 0.1
    x, waves, rows = (np.arange(n) + 0.5) / n, np.arange(1, 6), []
    for _ in range(count):
        a, b = generator.uniform([0.7, 1.5], [1.3, 2.5])

        def rate(u: np.ndarray, a: float = a, b: float = b) -> np.ndarray:
            p = np.concatenate([[2 * a - u[0]], u, [2 * b - u[-1]]])
            return np.asarray(0.03 * n**2 * (p[2:] - 2 * u + p[:-2]) + u - 0.4 * u**3)

        sizes = generator.standard_normal(5) / waves
        rows.append(solve(rate, a + (b - a) * x + sizes @ np.sin(np.pi * waves[:, None] * x), t, "BDF"))
    return t, x[1::4, None], np.stack(rows)[..., 1::4, None], {}


def heated_room(generator: np.random.Generator, count: int) -> Fields:
    """Boussinesq flow that slips along the walls of a box 1.5 x 1, insulated at its sides, the floor at .8 to 1.4 and
    the ceiling at 0: w_t = -w . grad w - grad p + 30 T e_y + .04 lap w, T_t = -w . grad T + .06 lap T. Images on
    48 x 32 cells, read at 24 x 16 of their centres."""
    n, m, gap, steps = 48, 32, 0.06, 16
    kx, ky, mask = _waves(2 * n, 2 * m, 3.0, 2.0)
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
        start.append(np.stack([_mirrored(0 * f, (-1, -1)), _mirrored(0.2 * f, (1, -1))]))
    linear = np.stack([0.04 * k2, 0.06 * k2])
    w = _etd(linear, rate, mask * np.fft.rfft2(np.stack(start), axes=(-2, -1)), gap / steps, 4 * steps)
    frames = []
    for _ in range(FRAMES):
        psi = inverse * w[:, 0]
        parts = [floor * (1 - x[..., 1]) + back(w[:, 1])[..., :n, :m], back(-ky * psi)[..., :n, :m],
                 back(kx * psi)[..., :n, :m]]
        frames.append(np.stack(parts, 1)[..., ::2, ::2])
        w = _etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 3, -1), 2, 3)
    return np.arange(FRAMES) * gap, x[::2, ::2].reshape(-1, 2), u, {"channels": ["T", "u", "v"]}


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


PROBLEMS = {maker.__name__: maker for maker in (heated_bar, heated_room, sticky_plates)}

if __name__ == "__main__":
    write_problems(sys.argv[1:], PROBLEMS, TRAIN, TEST)
