"""Nonlinear diffusion, films, flames and charges on circles and tori."""

from __future__ import annotations

import numpy as np

from benchmarks.makers.base import FRAMES, Fields, parameters, problem, solve, with_noise
from benchmarks.makers.spectral import etd, on_torus, on_unit_torus, random_ring, real, red_field, spectral, torus


@problem()
def porous(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .05 lap(u^3) on a circle of length 1 from positive starts: 256 points, read at 64."""
    derivative, _ = spectral(256, 1, 1.0)
    t = np.arange(FRAMES) * 0.005

    def rate(u: np.ndarray) -> np.ndarray:
        return np.asarray(0.05 * derivative(derivative(u**3, 0), 0))

    u = [solve(rate, 0.8 + 0.25 * red_field(generator, 256, 1, 5), t, "BDF") for _ in range(count)]
    return t, np.arange(0, 256, 4)[:, None] / 256, np.stack(u)[..., ::4, None], {"period": [1.0]}


@problem()
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

    u = np.stack([solve(rate, 0.3 * red_field(generator, n, 2, 3), t) for _ in range(count)])[:, :, ::2, ::2]
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n] * 2, indexing="ij"), -1).reshape(-1, 2)
    return t, x, u.reshape(count, FRAMES, -1, 1), {"period": [1.0, 1.0]}


@problem()
def film(generator: np.random.Generator, count: int) -> Fields:
    """h_t = (h^3 (.05 h_x - 2e-5 h_xxx))_x on a circle of length 1, a film under gravity and tension: at 64 of 256
    points."""
    derivative, _ = spectral(256, 1, 1.0)
    t = np.arange(FRAMES) * 0.05

    def rate(h: np.ndarray) -> np.ndarray:
        third = derivative(derivative(derivative(h, 0), 0), 0)
        return np.asarray(derivative(h**3 * (0.05 * derivative(h, 0) - 2e-5 * third), 0))

    u = [solve(rate, 1.0 + 0.2 * red_field(generator, 256, 1, 5), t, "BDF") for _ in range(count)]
    return t, np.arange(0, 256, 4)[:, None] / 256, np.stack(u)[..., ::4, None], {"period": [1.0]}


@problem()
def flames(generator: np.random.Generator, count: int) -> Fields:
    """h_t = -lap h - lap^2 h - |grad h|^2 / 2 on a torus of length 24, the mean taken out: 32 x 32 of 64 x 64."""
    def rate(w: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        slope = real(1j * kx * w) ** 2 + real(1j * ky * w) ** 2
        return -0.5 * (slope - slope.mean((-2, -1), keepdims=True))

    def linear(kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        k2 = kx**2 + ky**2
        return k2 - k2**2

    return on_torus(generator, count, 64, 24.0, 0.4, 40, linear, rate,
                    lambda: red_field(generator, 64, 2, 6), before=20)


@problem()
def flame_front(generator: np.random.Generator, count: int) -> Fields:
    """h_t = s ((1 + |grad h|^2)^.5 - 1) + .02 lap h on a torus of length 2 pi, a front that burns at a speed of its own
    in every trajectory, which no file tells; 5 % noise on training values: Fourier, at 32 x 32 of 64 x 64 points."""
    n, gap, steps = 64, 0.12, 12
    s = parameters(count, [0.6, 0.9, 1.2, 1.5], [0.75, 1.35, 1.8])[:, None, None]
    k = np.fft.fftfreq(n, 1 / n)
    kx, ky = 1j * k[:, None], 1j * np.arange(n // 2 + 1)[None]
    k2, keep = -(kx**2 + ky**2).real, (abs(k[:, None]) < n / 3) & (abs(ky) < n / 3)

    def rate(w: np.ndarray) -> np.ndarray:
        slope = np.fft.irfft2(kx * w, (n, n)) ** 2 + np.fft.irfft2(ky * w, (n, n)) ** 2
        return keep * np.fft.rfft2(s * (np.sqrt(1 + slope) - 1))

    w = keep * np.fft.rfft2(generator.standard_normal((count, n, n))) * np.exp(-k2 / 8)
    w /= np.fft.irfft2(w, (n, n)).std((1, 2), keepdims=True)
    frames = [w]
    for _ in range(FRAMES - 1):
        frames.append(etd(-0.02 * k2, rate, frames[-1], gap / steps, steps))
    u = np.fft.irfft2(np.stack(frames, 1), (n, n))[:, :, ::2, ::2].reshape(count, FRAMES, -1, 1)
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n * 2 * np.pi] * 2, indexing="ij"), -1).reshape(-1, 2)
    return np.arange(FRAMES) * gap, x, with_noise(generator, u, 0.05), {"channels": ["h"], "period": [2 * np.pi] * 2}


@problem()
def electrolyte(generator: np.random.Generator, count: int) -> Fields:
    """p_t = .004 lap p + div(p grad f), n_t = .006 lap n - div(n grad f), -lap f = p - n on a torus of length 1:
    Poisson, Nernst and Planck at 32 x 32 of 64 x 64."""
    kx, ky, k2, _, inverse, _ = torus(64)
    start = np.stack([[1 + 0.25 * red_field(generator, 64, 2, 4) for _ in range(2)] for _ in range(count)])

    def rate(w: np.ndarray) -> np.ndarray:
        f = inverse * (w[:, 0] - w[:, 1])
        slopes, total = [real(1j * k * f) for k in (kx, ky)], []
        for i, sign in enumerate((1, -1)):
            c = real(w[:, i])
            total.append(sign * sum(1j * k * np.fft.fft2(c * slope) for k, slope in zip((kx, ky), slopes, strict=True)))
        return np.stack(total, 1)

    return on_unit_torus(start, np.stack([-0.004 * k2, -0.006 * k2]), rate, 0.15, 20, 1.0, channels=("p", "n"))


@problem()
def flame_line(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u_xx - u_xxxx - u u_x (Kuramoto and Sivashinsky) on a circle of length 36, chaotic, frames one time unit
    apart from time 60 on: 96 of 192 points."""
    n, length = 192, 36.0
    k = 2 * np.pi / length * np.fft.rfftfreq(n, 1 / n)
    w = np.fft.rfft(np.stack([random_ring(generator, n, 6) for _ in range(count)]))

    def rate(w: np.ndarray) -> np.ndarray:
        return np.asarray(-0.5j * k * (np.arange(len(k)) < n / 3) * np.fft.rfft(np.fft.irfft(w) ** 2))

    w, frames = etd(k**2 - k**4, rate, w, 0.02, 3000), []
    for _ in range(FRAMES):
        frames.append(np.fft.irfft(w)[:, ::2, None])
        w = etd(k**2 - k**4, rate, w, 0.02, 50)
    return np.arange(FRAMES), np.arange(0, n, 2)[:, None] * length / n, np.stack(frames, 1), {"period": [length]}


@problem()
def flame_line_noise(generator: np.random.Generator, count: int) -> Fields:
    """The same fields, 5 % noise on training values."""
    t, x, u, attributes = flame_line(generator, count)
    return t, x, with_noise(generator, u, 0.05), attributes


@problem()
def growing_surface(generator: np.random.Generator, count: int) -> Fields:
    """h_t = .15 lap h + .5 h_x^2 - .25 h_y^2, a surface that grows and etches by its slopes (Kardar, Parisi and Zhang,
    anisotropic), on a torus of side 2 pi: 64 x 64 points, read at 32 x 32."""
    n, length, t = 64, 2 * np.pi, np.arange(FRAMES) * 0.08
    derivative, smooth = spectral(n, 2, length)

    def rate(h: np.ndarray) -> np.ndarray:
        p, q = derivative(h, 0), derivative(h, 1)
        return smooth(0.5 * p**2 - 0.25 * q**2) + 0.15 * (derivative(p, 0) + derivative(q, 1))

    u = np.stack([solve(rate, 0.5 * red_field(generator, n, 2, 4), t) for _ in range(count)])[:, :, ::2, ::2]
    return t, length * torus(n)[-1], u.reshape(count, FRAMES, -1, 1), {"period": [length, length]}


@problem()
def epitaxy(generator: np.random.Generator, count: int) -> Fields:
    """h_t = div((|grad h|^2 - 1) grad h) - .06 lap^2 h, a crystal that grows and selects its slopes, on a torus of side
    2 pi: 64 x 64 points, read at 32 x 32."""
    n, length, t = 64, 2 * np.pi, np.arange(FRAMES) * 0.04
    k = np.fft.fftfreq(n, 1 / n)
    along = [1j * one for one in np.meshgrid(k, k, indexing="ij")]
    k2, keep = -sum(one**2 for one in along).real, (np.abs(along[0]) < n / 4) & (np.abs(along[1]) < n / 4)

    def rate(w: np.ndarray) -> np.ndarray:
        slopes = [real(one * w) for one in along]
        size = sum(one**2 for one in slopes)
        return np.asarray(keep * sum(one * np.fft.fft2(size * slope) for one, slope in zip(along, slopes, strict=True)))

    frames = []
    for _ in range(count):
        w = keep * np.fft.fft2(0.4 * red_field(generator, n, 2, 4))
        for _ in t:
            frames.append(real(w)[::2, ::2])
            w = etd(k2 - 0.06 * k2**2, rate, w, 0.004, 10)
    return t, length * torus(n)[-1], np.stack(frames).reshape(count, FRAMES, -1, 1), {"period": [length, length]}
