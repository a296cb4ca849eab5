"""Fourier collocation that makers share: waves, filters, integrating factors, fields on circles and tori."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp
from scipy.ndimage import convolve1d

from benchmarks.makers.base import FRAMES, Fields


def red_field(generator: np.random.Generator, n: int, d: int, most: int) -> np.ndarray:
    """A random periodic field of unit variance on n^d points with waves up to `most`."""
    k = np.fft.fftfreq(n, 1 / n)
    size = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*[k] * d, indexing="ij")))
    spectrum = np.fft.fftn(generator.standard_normal((n,) * d)) * (size <= most) / (1 + size) ** (1 + d / 2)
    spectrum.flat[0] = 0
    f = np.fft.ifftn(spectrum).real
    return np.asarray(f / f.std())


def spectral(n: int, d: int, length: float) -> tuple[Callable, Callable]:
    """Derivative along an axis (the last d ones of an array) and the filter of the upper third."""
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    keep = np.abs(k) < 2 / 3 * np.abs(k).max()

    def along(f: np.ndarray, axis: int, factor: np.ndarray) -> np.ndarray:
        shape = [1] * d
        shape[axis] = n
        return np.fft.ifft(np.fft.fft(f, axis=axis - d) * factor.reshape(shape), axis=axis - d).real

    def smooth(f: np.ndarray) -> np.ndarray:
        for axis in range(d):
            f = along(f, axis, keep)
        return f

    return lambda f, axis: along(f, axis, 1j * k * keep), smooth


def torus(n: int) -> tuple[np.ndarray, ...]:
    """Wave numbers (n, n) along both axes of a torus of length 1, their square, the lower two thirds, and the inverse
    square; every other point of n x n."""
    k = 2 * np.pi * np.fft.fftfreq(n, 1 / n)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    k2, most = kx**2 + ky**2, 2 / 3 * np.abs(k).max()
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n] * 2, indexing="ij"), -1).reshape(-1, 2)
    return kx, ky, k2, (np.abs(kx) < most) & (np.abs(ky) < most), 1 / np.where(k2 > 0, k2, np.inf), x


def real(w: np.ndarray) -> np.ndarray:
    """Values of coefficients of a real field."""
    return np.fft.ifft2(w).real


def runge_kutta(rate: Callable, a: np.ndarray, step: float, steps: int) -> np.ndarray:
    """The state after so many steps of the classical Runge-Kutta method."""
    for _ in range(steps):
        k1 = rate(a)
        k2 = rate(a + step / 2 * k1)
        k3 = rate(a + step / 2 * k2)
        a = a + step / 6 * (k1 + 2 * k2 + 2 * k3 + rate(a + step * k3))
    return a


def etd(linear: np.ndarray, rate: Callable, w: np.ndarray, h: float, steps: int) -> np.ndarray:
    """Runge-Kutta 4 with an integrating factor."""
    half = np.exp(linear * h / 2)
    for _ in range(steps):
        a = rate(w)
        b = rate(half * (w + h / 2 * a))
        c = rate(half * w + h / 2 * b)
        w = half**2 * w + h / 6 * (half**2 * a + 2 * half * (b + c) + rate(half**2 * w + h * half * c))
    return w


def mirrored(f: np.ndarray, signs: tuple[int, int]) -> np.ndarray:
    """Fields on a box and its mirror images, even (1) or odd (-1) in each axis, or periodic (0) and left alone."""
    for axis, sign in zip((-2, -1), signs, strict=True):
        f = np.concatenate([f, sign * np.flip(f, axis)], axis) if sign else f
    return f


def wave_numbers(n: int, m: int, a: float, b: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wave numbers of rfft2 on n x m points of a torus a x b, and the mask against aliasing."""
    p, q = np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(m, 1 / m)
    return 2j * np.pi / a * p + 0 * q, 2j * np.pi / b * q + 0 * p, (np.abs(p) < n / 3) * (q < m / 3)


def random_ring(generator: np.random.Generator, n: int, waves: int) -> np.ndarray:
    """A random smooth field at n points of a circle, of unit deviation."""
    x = 2 * np.pi * np.arange(n) / n
    u = sum(generator.standard_normal() * np.cos(k * x + generator.uniform(0, 7)) / k for k in range(1, waves + 1))
    return np.asarray(u / u.std())


def second(u: np.ndarray, h: float) -> np.ndarray:
    """Second derivative on a circle, differences of sixth order."""
    return convolve1d(u, np.array([2, -27, 270, -490, 270, -27, 2]) / 180 / h**2, mode="wrap")


def on_circle(generator: np.random.Generator, count: int, n: int, length: float, t: np.ndarray, rate: Callable,
              start: Callable, every: int = 2) -> Fields:
    """One field on a circle: rate(u, k, t) of points and wave numbers; its times t, of one or of all trajectories."""
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    u = [solve_ivp(lambda time, w: rate(w, k, time), (own[0], own[-1]), start(), "LSODA", own, rtol=1e-8,
                   atol=1e-10).y.T for own in np.broadcast_to(t, (count, FRAMES))]
    return t, np.arange(0, n, every)[:, None] / n * length, np.stack(u)[..., ::every, None], {"period": [length]}


def lap(u: np.ndarray, k: np.ndarray, power: float = 2.0) -> np.ndarray:
    return np.asarray(-np.fft.ifft(np.abs(k) ** power * np.fft.fft(u)).real)


def on_unit_torus(start: np.ndarray, linear: np.ndarray, rate: Callable, gap: float, steps: int, length: float,
                  every: int = 2, channels: tuple[str, ...] = ("u", "v")) -> Fields:
    """Fields on a torus from start (S, C, n, n), at every other point: linear exact, rate(fields) explicit."""
    n, keep = start.shape[-1], torus(start.shape[-1])[3]
    w, frames = keep * np.fft.fft2(start), []
    for _ in range(FRAMES):
        frames.append(real(w)[..., ::every, ::every])
        w = etd(linear, lambda w: keep * rate(w), w, gap / steps, steps)
    x = np.stack(np.meshgrid(*[np.arange(0, n, every) / n * length] * 2, indexing="ij"), -1).reshape(-1, 2)
    u = np.moveaxis(np.stack(frames, 1).reshape(len(start), FRAMES, start.shape[1], -1), 2, 3)
    return np.arange(FRAMES) * gap, x, u, {"period": [length] * 2, "channels": list(channels[: start.shape[1]])}


def on_torus(generator: np.random.Generator, count: int, n: int, length: float, gap: float, steps: int,
             linear: Callable, rate: Callable, start: Callable, before: int = 0) -> Fields:
    """One field on a torus, at every other point of n x n: linear(kx, ky) exact, rate(w, kx, ky) explicit; so many
    gaps of frames are left out at first."""
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    keep = (np.abs(kx) < 2 / 3 * k.max()) & (np.abs(ky) < 2 / 3 * k.max())
    w, frames = keep * np.fft.fft2(np.stack([start() for _ in range(count)])), []
    for _ in range(before + FRAMES):
        frames.append(real(w)[:, ::2, ::2])
        w = etd(linear(kx, ky), lambda w: keep * np.fft.fft2(rate(w, kx, ky)), w, gap / steps, steps)
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n * length] * 2, indexing="ij"), -1).reshape(-1, 2)
    u = np.stack(frames[before:], 1).reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * gap, x, u, {"period": [length, length]}


def flow_and_scalar(start: np.ndarray, linear: np.ndarray, rate: Callable, gap: float, steps: int, name: str
                    ) -> Fields:
    """A scalar and velocities at every other point of a torus, from fields (S, 2, n, n) of vorticity and scalar."""
    kx, ky, _, keep, inverse, x = torus(start.shape[-1])
    w, frames = keep * np.fft.fft2(start), []
    for _ in range(FRAMES):
        parts = [real(w[:, 1]), real(1j * ky * inverse * w[:, 0]), real(-1j * kx * inverse * w[:, 0])]
        frames.append(np.stack(parts, 1)[..., ::2, ::2])
        w = etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(len(start), FRAMES, 3, -1), 2, 3)
    return np.arange(FRAMES) * gap, x, u, {"period": [1.0, 1.0], "channels": [name, "vx", "vy"]}
