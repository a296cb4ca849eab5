"""Dispersive waves, quantum waves and sound on circles and tori."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.integrate import solve_ivp

from benchmarks.makers.base import FRAMES, Fields, problem, solve, with_noise
from benchmarks.makers.spectral import (
    etd,
    on_circle,
    on_torus,
    random_ring,
    real,
    red_field,
    runge_kutta,
    second,
    spectral,
    torus,
)


@problem()
def schrodinger(generator: np.random.Generator, count: int) -> Fields:
    """i psi_t = -psi_xx / 2 - |psi|^2 psi on a circle of length 12: real and imaginary part at 96 of 192 points."""
    n, length, gap, steps = 192, 12.0, 0.1, 200
    k, x = 2 * np.pi * np.fft.fftfreq(n, length / n), np.arange(n) * length / n
    drift = np.exp(-0.5j * k**2 * gap / steps)
    psi = np.stack([sum((generator.standard_normal() + 1j * generator.standard_normal()) * np.exp(
        2j * np.pi * m * x / length) / (1 + abs(m)) for m in range(-4, 5)) for _ in range(count)]) * 0.7
    frames = [psi]
    for _ in range(FRAMES - 1):
        for _ in range(steps):
            psi = psi * np.exp(0.5j * gap / steps * np.abs(psi) ** 2)
            psi = np.fft.ifft(drift * np.fft.fft(psi))
            psi = psi * np.exp(0.5j * gap / steps * np.abs(psi) ** 2)
        frames.append(psi)
    u = np.stack(frames, 1)[..., ::2]
    return np.arange(FRAMES) * gap, x[::2, None], np.stack([u.real, u.imag], -1), {"period": [length]}


@problem()
def kdv(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x - 0.05 u_xxx on a circle of length 6, 96 points of a solver with 192."""
    n, length, t = 192, 6.0, np.arange(FRAMES) * 0.1
    k = 2j * np.pi * np.fft.rfftfreq(n, length / n)
    mask = np.arange(len(k)) < n // 3

    def run(u: np.ndarray) -> np.ndarray:  # in the frame of the linear waves
        start = np.fft.rfft(u) * mask

        def rate(time: float, w: np.ndarray) -> np.ndarray:
            phase = np.exp(-0.05 * k**3 * time)
            return -0.5 * k * mask * np.fft.rfft(np.fft.irfft(w * phase, n) ** 2) / phase

        path = solve_ivp(rate, (0, t[-1]), start, "DOP853", t, rtol=1e-9, atol=1e-7).y.T
        return np.fft.irfft(path * np.exp(-0.05 * k**3 * t[:, None]), n)

    x = np.arange(n) * length / n
    fields = [sum(generator.standard_normal() * np.cos(2 * np.pi * m * x / length + generator.uniform(0, 7)) / m
                  for m in range(1, 4)) for _ in range(count)]
    return t, x[::2, None], np.stack([run(u)[:, ::2] for u in fields])[..., None], {"period": [length]}


def _from_waves(t: np.ndarray, n: int, length: float, rate: Callable, generator: np.random.Generator, count: int,
                size: float = 1.0, mean: float = 0.0, most: int = 4) -> Fields:
    """One field on a circle from random waves: rate(u, k, t)."""
    return on_circle(generator, count, n, length, t, rate, lambda: mean + size * red_field(generator, n, 1, most))


@problem()
def long_waves(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -(1 - d2/dx2)^-1 (u + u^2 / 2)_x on a circle of length 20: Benjamin, Bona and Mahony."""
    return _from_waves(np.arange(FRAMES) * 0.6, 128, 20.0, lambda u, k, t: np.fft.ifft(
        -1j * k / (1 + k**2) * np.fft.fft(u + u**2 / 2)).real, generator, count)


@problem()
def capillary(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x - u_xxx + .4 u_xxxxx on a circle of length 20: Kawahara."""
    n, keep = 96, np.abs(k := 0.1 * np.pi * np.fft.fftfreq(96, 1 / 96)) < 10
    w, frames = keep * np.fft.fft(np.stack([0.8 * red_field(generator, n, 1, 4) for _ in range(count)])), []
    for _ in range(FRAMES):
        frames.append(np.fft.ifft(w).real)
        w = etd(1j * k**3 + 0.4j * k**5, lambda w: -0.5j * k * keep * np.fft.fft(np.fft.ifft(w).real ** 2), w, 2.5e-3,
                100)
    return (np.arange(FRAMES) * 0.25, np.arange(0, n, 2)[:, None] / n * 20, np.stack(frames, 1)[..., ::2, None],
            {"period": [20.0]})


@problem()
def trapped(generator: np.random.Generator, count: int) -> Fields:
    """i psi_t = -psi_xx / 2 + V psi + |psi|^2 psi, V = 1.5 cos(x) + sin(2 x) on a circle of length 2 pi: a condensate
    in an optical lattice, real and imaginary part, at 48 of 96 points."""
    n, gap, steps = 96, 0.08, 100
    x, k = np.arange(n) / n * 2 * np.pi, np.fft.fftfreq(n, 1 / n)
    psi = np.stack([red_field(generator, n, 1, 4) + 1j * red_field(generator, n, 1, 4) for _ in range(count)]) * 0.7
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


@problem()
def ion_waves(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x - d(lap u)/dx on a torus of length 20, Zakharov and Kuznetsov's equation."""
    def rate(w: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        return -real(w) * real(1j * kx * w)

    return on_torus(generator, count, 64, 20.0, 0.3, 60, lambda kx, ky: 1j * kx * (kx**2 + ky**2), rate,
                    lambda: 0.5 * red_field(generator, 64, 2, 4))


@problem()
def bores(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x + a u_xx - b u_xxx on a circle of length 10 (Korteweg, de Vries and Burgers), a of .02 to .2 and b
    of 0 to .1 its own in every trajectory and given as parameters: Fourier, at 64 of 192 points."""
    n, t = 192, np.arange(FRAMES) * 0.2
    k = 2j * np.pi * np.fft.rfftfreq(n, 10 / n)
    keep, x = abs(k) < 2 / 3 * abs(k).max(), np.arange(n) / n * 10
    given = np.stack([generator.uniform(0.02, 0.2, count), generator.uniform(0, 0.1, count)], 1)
    w = np.fft.rfft(0.3 + sum(generator.standard_normal((count, 1)) / j * np.cos(
        0.2 * np.pi * j * x + generator.uniform(0, 7, (count, 1))) for j in range(1, 5)))
    frames = [w]
    for _ in range(FRAMES - 1):
        w = etd(given[:, :1] * k**2 - given[:, 1:] * k**3, lambda w: -k / 2 * keep * np.fft.rfft(
            np.fft.irfft(w, n) ** 2), w, 0.2 / 40, 40)
        frames.append(w)
    return t, x[::3, None], np.fft.irfft(np.stack(frames, 1), n)[..., ::3, None], {
        "period": [10.0], "parameters": given}


@problem(5, 8)
def odd_frames(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x + .02 u_xx - .002 u_xxx on a circle of length 2, frames at times of their own."""
    t = np.sort(np.concatenate([np.zeros((count, 1)), generator.uniform(0, 1.9, (count, FRAMES - 1))], 1), 1)
    t += np.arange(FRAMES) * 0.02
    return on_circle(generator, count, 192, 2.0, t, lambda u, k, t: np.fft.ifft(
        (-0.02 * k**2 + 0.002j * k**3) * np.fft.fft(u) - 0.5j * k * (np.abs(k) < 190) * np.fft.fft(u**2)).real,
        lambda: 0.5 * red_field(generator, 192, 1, 4))


@problem()
def sine_gordon_circle(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = u_xx - sin u on a circle of length 12, 64 of 256 points; angles up to half turns and beyond."""
    n, h, t = 256, 12 / 256, np.arange(FRAMES) * 0.3
    u = np.stack([solve(lambda y: np.stack([y[1], second(y[0], h) - np.sin(y[0])]),
                        np.stack([1.6 * random_ring(generator, n, 3), 0.5 * random_ring(generator, n, 3)]), t, "DOP853")
                  for _ in range(count)])
    return t, (np.arange(0, n, 4) * h)[:, None], np.moveaxis(u, 2, 3)[:, :, ::4], {"period": [12.0]}


@problem()
def scattering(generator: np.random.Generator, count: int) -> Fields:
    """Sound in a medium of its own for every trajectory, on a torus of length 1: p_t = -div v, v_t = -grad p / rho, and
    the density rho, which does not change, at 32 x 32 of 64 x 64 points."""
    derivative, smooth = spectral(64, 2, 1.0)
    n, gap, steps = 64, 0.04, 16
    rho = np.stack([1.2 + 0.25 * np.clip(red_field(generator, n, 2, 3), -2.5, 2.5) for _ in range(count)])
    p = np.stack([red_field(generator, n, 2, 4) for _ in range(count)])

    def rate(w: np.ndarray) -> np.ndarray:
        return np.stack([-derivative(w[:, 1], 0) - derivative(w[:, 2], 1),
                         -derivative(w[:, 0], 0) / rho, -derivative(w[:, 0], 1) / rho], 1)

    w, frames = np.stack([p, 0 * p, 0 * p], 1), []
    for _ in range(FRAMES):
        frames.append(np.concatenate([w, rho[:, None]], 1)[..., ::2, ::2])
        for _ in range(steps):
            w = smooth(runge_kutta(rate, w, gap / steps, 1))
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 4, -1), 2, 3)
    x = torus(n)[-1]
    return np.arange(FRAMES) * gap, x, u, {"period": [1.0, 1.0], "channels": ["p", "vx", "vy", "rho"]}


def _defects(generator: np.random.Generator, count: int, share: float) -> Fields:
    """A_t = A + (1 + 2 i) A_xx - (1 - 1.2 i) |A|^2 A on a circle of length 40, chaotic, its real and imaginary part at
    80 of 160 points, noise on training values."""
    n, length, gap, steps = 160, 40.0, 0.6, 120
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    keep = np.abs(k) < 2 / 3 * np.abs(k).max()
    start = np.stack([generator.standard_normal(n) + 1j * generator.standard_normal(n) for _ in range(count)])
    a, frames = np.fft.fft(start) * np.exp(-(k**2)), []

    def rate(a: np.ndarray) -> np.ndarray:
        f = np.fft.ifft(a)
        return keep * np.fft.fft(-(1 - 1.2j) * np.abs(f) ** 2 * f)

    for index in range(30 + FRAMES):
        if index >= 30:
            frames.append(np.fft.ifft(a)[:, ::2])
        a = etd(1 - (1 + 2j) * k**2, rate, a, gap / steps, steps)
    f = np.stack(frames, 1)
    u = with_noise(generator, np.stack([f.real, f.imag], -1), share)
    return np.arange(FRAMES) * gap, np.arange(0, n, 2)[:, None] / n * length, u, {"period": [length],
                                                                                 "channels": ["re", "im"]}


for percent in (5, 10):
    problem(name=f"defects_{percent}")(partial(_defects, share=percent / 100))


@problem(1, 1)
def gardner(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x + .8 u^2 u_x - .02 u_xxx + .003 u_xx (Gardner, with viscosity) on a circle of length 4: one
    trajectory of 400 frames .01 apart at 128 points, 5 % noise."""
    n, length, gap, steps, total = 256, 4.0, 0.01, 8, 400
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    keep = np.abs(k) < 2 / 3 * np.abs(k).max()
    x = np.arange(n) / n * length
    u = np.stack([0.4 + 0.8 * np.cos(np.pi * x / 2 + generator.uniform(0, 6)) + 0.4 * np.sin(
        np.pi * x + generator.uniform(0, 6)) for _ in range(count)])
    a, frames = np.fft.fft(u), []

    def rate(a: np.ndarray) -> np.ndarray:
        f = np.fft.ifft(a).real
        return keep * 1j * k * np.fft.fft(-f**2 / 2 + 0.8 / 3 * f**3)

    for _ in range(total):
        frames.append(np.fft.ifft(a).real[:, ::2])
        a = etd(0.02j * k**3 - 0.003 * k**2, rate, a, gap / steps, steps)
    clean = np.stack(frames, 1)[..., None]
    clean[0] += 0.05 * clean[0].std() * generator.standard_normal(clean[0].shape)
    return np.arange(total) * gap, x[::2, None], clean, {"period": [length]}


@problem()
def magnet(generator: np.random.Generator, count: int) -> Fields:
    """m_t = -m x h - .3 m x (m x h), h = .3 m_xx + .5 m_z e_z of unit vectors m (Landau, Lifshitz and Gilbert) on a
    circle: differences at 96 points, read at 48."""
    n, t = 96, np.arange(FRAMES) * 0.08
    x = np.arange(n) * 2 * np.pi / n

    def rate(m: np.ndarray) -> np.ndarray:
        h = 0.3 * (np.roll(m, 1, -1) - 2 * m + np.roll(m, -1, -1)) / x[1] ** 2
        h[2] += 0.5 * m[2]
        turn = np.cross(m, h, axis=0)
        return -turn - 0.3 * np.cross(m, turn, axis=0)

    u = []
    for _ in range(count):
        polar, azimuth = np.pi / 2 + 0.5 * random_ring(generator, n, 2), 0.8 * random_ring(generator, n, 2)
        u.append(solve(rate, np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth),
                                       np.cos(polar)]), t))
    return t, x[::2, None], np.moveaxis(np.stack(u), 2, 3)[:, :, ::2], {
        "period": [2 * np.pi], "channels": ["mx", "my", "mz"]}
