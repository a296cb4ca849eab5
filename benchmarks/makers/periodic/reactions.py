"""Reactions, patterns and competition on circles and tori, with means over neighbours, delays and seasons."""

from __future__ import annotations

import numpy as np

from benchmarks.makers.base import FRAMES, TRAIN, Fields, bumps, problem, solve, stepped
from benchmarks.makers.periodic.gases import _waves
from benchmarks.makers.periodic.waves import _from_waves
from benchmarks.makers.spectral import (
    etd,
    lap,
    on_circle,
    on_torus,
    on_unit_torus,
    random_ring,
    real,
    red_field,
    second,
    torus,
)


@problem()
def neighbours(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 u_xx + 2 u (1 - G u) on a circle of length 4, G a Gaussian mean of width .25: competition with those
    near by."""
    return _from_waves(np.arange(FRAMES) * 0.25, 128, 4.0, lambda u, k, t: np.fft.ifft(
        -0.02 * k**2 * np.fft.fft(u)).real + 2 * u * (1 - np.fft.ifft(np.exp(-k**2 / 32) * np.fft.fft(u)).real),
        generator, count, 0.2, 0.7)


@problem()
def season(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .05 u_xx + u - u^3 + .8 cos(2 pi t / 3) cos(2 pi x / 10), a forcing of known period, on a circle of length
    10; trajectories start together."""
    points = np.arange(128) / 128 * 10

    def rate(u: np.ndarray, k: np.ndarray, t: float) -> np.ndarray:
        return 0.05 * lap(u, k) + u - u**3 + 0.8 * np.cos(2 * np.pi * t / 3) * np.cos(0.2 * np.pi * points)

    t, x, u, about = on_circle(generator, count, 128, 10.0, np.arange(FRAMES) * 0.3, rate,
                               lambda: 0.5 * red_field(generator, 128, 1, 6))
    return t, x, u, {**about, "time_period": 3.0}


@problem()
def delay(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 u_xx + 2 u (1 - u(t - .8)) on a circle of length 4, from .6 before the first frame: fixed steps."""
    n, h, lag = 96, 0.01, 80
    k = 2 * np.pi * np.fft.fftfreq(n, 4.0 / n)
    decay, u = np.exp(-0.02 * k**2 * h), []
    for _ in range(count):
        path = [np.clip(0.6 + 0.25 * red_field(generator, n, 1, 4), 0.05, None)] * (lag + 1)
        for _ in range(80 + 40 * (FRAMES - 1)):
            now, then, later = path[-1], path[-1 - lag], path[-lag]
            slope = 2 * now * (1 - then)
            ahead = np.fft.ifft(decay * np.fft.fft(now + h * slope)).real
            path.append(np.fft.ifft(decay * np.fft.fft(now + h / 2 * slope)).real + h * ahead * (1 - later))
        u.append(np.stack(path[lag + 80 :: 40]))
    return np.arange(FRAMES) * 0.4, np.arange(0, n, 2)[:, None] / n * 4, np.stack(u)[..., ::2, None], {"period": [4.0]}


@problem()
def fractional(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -.12 (-d2/dx2)^.65 u + u - u^3 on a circle of length 10."""
    return on_circle(generator, count, 128, 10.0, np.arange(FRAMES) * 0.2,
                     lambda u, k, t: 0.12 * lap(u, k, 1.3) + u - u**3, lambda: 0.5 * red_field(generator, 128, 1, 6))


@problem()
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
    starts = [np.stack([np.abs(0.5 + 0.3 * red_field(generator, n, 1, 5)) for _ in range(2)]) for _ in range(count)]
    u = np.stack([solve(rate, start, t, "LSODA") for start in starts])[..., ::2]
    return t, np.arange(0, n, 2)[:, None] / n * 2, u.swapaxes(2, 3), {"period": [2.0]}


@problem()
def neural_field(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u + kernel * tanh(2 u) + 0.02 u_xx on a circle of length 6, 64 of 192 points."""
    n, h, t = 192, 6 / 192, np.arange(FRAMES) * 0.25
    x = np.arange(n) * h
    away = np.minimum(x, 6 - x)
    kernel = np.exp(-2 * away) - 0.5 * np.exp(-away)
    whole = kernel[(np.arange(n)[:, None] - np.arange(n)) % n] * h * 3
    u = np.stack([solve(lambda u: -u + whole @ np.tanh(2 * u) + 0.02 * second(u, h), random_ring(generator, n, 4), t)
                  for _ in range(count)])
    return t, x[::3, None], u[:, :, ::3, None], {"period": [6.0]}


@problem()
def clocks(generator: np.random.Generator, count: int) -> Fields:
    """p_t = -mean over y of (1 + .95 cos(x - y)) sin(p(x) - p(y) + 1.2) on a circle (Abrams and Strogatz 2004), seen as
    cos p and sin p: 128 oscillators."""
    n, t = 128, np.arange(FRAMES) * 1.0
    x = np.arange(n) / n * 2 * np.pi
    coupling, paths = (1 + 0.95 * np.cos(x[:, None] - x)) / n, []

    def rate(p: np.ndarray) -> np.ndarray:
        return np.cos(p + 1.2) * (coupling @ np.sin(p)) - np.sin(p + 1.2) * (coupling @ np.cos(p))

    for _ in range(count):
        bump = 6 * generator.uniform(-0.5, 0.5) * np.exp(-2 * (x - generator.uniform(2, 4)) ** 2)
        p = solve(rate, bump + _waves(generator, x, 4, 1.0), t, "LSODA")
        paths.append(np.stack([np.cos(p), np.sin(p)], -1))
    return t, x[:, None], np.stack(paths), {"channels": ["c", "s"], "period": [2 * np.pi]}


@problem()
def grain(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 u_xx + .004 u_yy + .008 u_xy + 3 u (1 - u) (u - .3) on a torus of length 2."""
    def rate(w: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        u = real(w)
        return 3 * u * (1 - u) * (u - 0.3)

    return on_torus(generator, count, 64, 2.0, 0.15, 20,
                    lambda kx, ky: -0.02 * kx**2 - 0.004 * ky**2 - 0.008 * kx * ky, rate,
                    lambda: 0.4 + 0.3 * red_field(generator, 64, 2, 4))


@problem()
def spirals(generator: np.random.Generator, count: int) -> Fields:
    """Barkley's stiff medium: u_t = lap u / 25 + u (1 - u) (u - (v + .05) / .75) / .05, v_t = u - v on a torus of
    length 16, whose fronts pass a point in a tenth of a gap between frames."""
    _, _, k2, _, _, _ = torus(96)
    k2 = k2 / 16**2
    start = np.stack([[0.5 + 0.5 * np.tanh(3 * red_field(generator, 96, 2, 3)),
                       0.3 + 0.2 * red_field(generator, 96, 2, 3)] for _ in range(count)])

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = real(w[:, 0]), real(w[:, 1])
        return np.fft.fft2(np.stack([20 * u * (1 - u) * (u - (v + 0.05) / 0.75), u - v], 1))

    return on_unit_torus(start, np.stack([-k2 / 25, 0 * k2]), rate, 0.25, 50, 16.0)


@problem()
def vegetation(generator: np.random.Generator, count: int) -> Fields:
    """w_t = a - w - w b^2 + 1.5 w_x + .6 lap w, b_t = w b^2 - .45 b + .1 lap b: water that runs down a slope and plants
    (Klausmeier 1999), along x periodic over 8, walls without flux along y over 4; rain a a parameter of every
    trajectory: .9, 1.1, 1.3, 1.5 in training, 1, 1.4 and 1.8 in tests: differences, 64 x 32, at 32 x 16."""
    n, m, h, gap, steps = 64, 32, 0.125, 0.4, 80
    a = np.concatenate([np.resize([0.9, 1.1, 1.3, 1.5], TRAIN), np.resize([1.0, 1.4, 1.8], count - TRAIN)])
    x = np.stack(np.meshgrid(np.arange(n) * h, (np.arange(m) + 0.5) * h, indexing="ij"), -1)

    def lap(u: np.ndarray) -> np.ndarray:
        p = np.pad(u, ((0, 0), (1, 1), (0, 0)), mode="edge")
        around = (16 * (np.roll(u, 1, 0) + np.roll(u, -1, 0)) - np.roll(u, 2, 0) - np.roll(u, -2, 0) - 30 * u) / 12
        return (around + p[:, 2:] + p[:, :-2] - 2 * u) / h**2

    def rate(f: np.ndarray) -> np.ndarray:
        w, b = f
        slope = (8 * (np.roll(w, -1, 0) - np.roll(w, 1, 0)) - np.roll(w, -2, 0) + np.roll(w, 2, 0)) / (12 * h)
        return np.stack([a - w - w * b**2 + 1.5 * slope + 0.6 * lap(w), w * b**2 - 0.45 * b + 0.1 * lap(b)])

    k = np.arange(1, 5)

    def field(mean: float) -> np.ndarray:
        c = generator.standard_normal((2, 4, 4, count)) / (k[:, None] + np.arange(4))[..., None]
        along, across = np.pi / 4 * k[:, None] * x[:, 0, 0], np.cos(np.pi / 4 * np.arange(4)[:, None] * x[0, :, 1])
        f = np.einsum("kps,kx,py->xys", c[0], np.cos(along), across) + np.einsum(
            "kps,kx,py->xys", c[1], np.sin(along), across)
        return mean * np.exp(0.5 * f / f.std((0, 1)))

    f = stepped(rate, np.stack([field(0.6), field(1.2)]), gap, steps)[:, :, ::2, ::2]
    return (np.arange(FRAMES) * gap, x[::2, ::2].reshape(-1, 2), f.reshape(FRAMES, 2, -1, count).transpose(3, 0, 2, 1),
            {"channels": ["water", "plants"], "parameters": a[:, None]})


@problem()
def swift_hohenberg(generator: np.random.Generator, count: int) -> Fields:
    """u_t = 0.3 u - (1 + lap)^2 u - u^3 on a torus of side 6 pi, 28 x 28 points."""
    n, length, t = 28, 6 * np.pi, np.arange(FRAMES) * 0.5
    k2 = (2 * np.pi / length) ** 2 * (np.fft.fftfreq(n, 1 / n)[:, None] ** 2 + np.fft.rfftfreq(n, 1 / n) ** 2)
    g = np.arange(n) * length / n
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1).reshape(-1, 2)

    step = 0.005  # Strang splitting, both parts exact
    half = np.exp(step / 2 * (0.3 - (1 - k2) ** 2))
    white = np.fft.rfft2(generator.standard_normal((count, n, n))) * np.exp(-k2)
    u = np.fft.irfft2(white, (n, n))
    u, frames = 0.5 * u / u.std(), []
    for index in range(round(t[-1] / step) + 1):
        if index % round(t[1] / step) == 0:
            frames.append(u)
        u = np.fft.irfft2(half * np.fft.rfft2(u), (n, n))
        u = np.fft.irfft2(half * np.fft.rfft2(u / np.sqrt(1 + 2 * step * u**2)), (n, n))
    u = np.stack(frames, 1)
    return t, x, u.reshape(count, FRAMES, -1, 1), {"period": [length, length]}


@problem()
def ginzburg_landau(generator: np.random.Generator, count: int) -> Fields:
    """A_t = A + (1 + 1.5 i) lap A - (1 - .8 i) |A|^2 A on a torus of length 30: real and imaginary part, 40 x 40."""
    n, length, gap, steps = 40, 30.0, 0.4, 40
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    k2 = k[:, None] ** 2 + k**2
    a = np.stack([red_field(generator, n, 2, 5) + 1j * red_field(generator, n, 2, 5) for _ in range(count)]) * 0.5
    w, frames = np.fft.fft2(a), []

    def rate(w: np.ndarray) -> np.ndarray:
        a = np.fft.ifft2(w)
        return np.asarray(-(1 - 0.8j) * np.fft.fft2(np.abs(a) ** 2 * a))

    for _ in range(FRAMES):
        a = np.fft.ifft2(w)
        frames.append(np.stack([a.real, a.imag], -1).reshape(count, -1, 2))
        w = etd(1 - (1 + 1.5j) * k2, rate, w, gap / steps, steps)
    x = np.stack(np.meshgrid(*[np.arange(n) / n * length] * 2, indexing="ij"), -1).reshape(-1, 2)
    return np.arange(FRAMES) * gap, x, np.stack(frames, 1), {"period": [length, length]}


@problem()
def stochastic(generator: np.random.Generator, count: int) -> Fields:
    """du = (.003 lap u + u - u^3) dt + 1.5 dW on the periodic unit square, W smooth in space and white in time:
    Fourier, 32 x 32, semi-implicit Euler steps."""
    n, dt, every, before = 32, 0.02, 20, 200
    k = 2 * np.pi * np.fft.fftfreq(n, 1 / n)
    k2 = k[:, None] ** 2 + k**2
    smooth = np.exp(-k2 / (8 * np.pi) ** 2 / 2)
    x = np.stack(np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij"), -1).reshape(-1, 2)

    def noise() -> np.ndarray:
        return np.fft.ifft2(np.fft.fft2(generator.standard_normal((count, n, n))) * smooth).real

    w, frames = 4 * noise(), []
    for step in range(before + every * (FRAMES - 1) + 1):
        if step >= before and (step - before) % every == 0:
            frames.append(w)
        moved = w + dt * (w - w**3) + np.sqrt(dt) * 1.5 * noise()
        w = np.fft.ifft2(np.fft.fft2(moved) / (1 + 0.003 * dt * k2)).real
    u = np.stack(frames, 1).reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * every * dt, x, u, {"period": [1.0, 1.0]}


@problem()
def flock(generator: np.random.Generator, count: int) -> Fields:
    """p_t = -.8 p . grad p + p - |p|^2 p + .02 lap p + .02 grad div p of a flock's direction (Toner and Tu 1995) in a
    channel, periodic along x over 3, p = 0 at walls 1 apart: differences, 120 x 41, read at every third point."""
    n, m = 120, 41
    h = 3 / n
    y, x = np.meshgrid(np.arange(m) * h, np.arange(n) * h, indexing="ij")
    y, dy = y / y.max(), 1 / (m - 1)

    def along(u: np.ndarray) -> np.ndarray:
        return (np.roll(u, -1, -1) - np.roll(u, 1, -1)) / (2 * h)

    def across(u: np.ndarray) -> np.ndarray:
        return np.gradient(u, dy, axis=-2, edge_order=2)

    def rate(w: np.ndarray) -> np.ndarray:  # (2, S, m, n)
        lap = (np.roll(w, 1, -1) - 2 * w + np.roll(w, -1, -1)) / h**2
        lap[..., 1:-1, :] += np.diff(w, 2, axis=-2) / dy**2
        div = along(w[0]) + across(w[1])
        out = -0.8 * (w[0] * along(w) + w[1] * across(w)) + w * (1 - (w**2).sum(0)) + 0.02 * lap
        out += 0.02 * np.stack([along(div), across(div)])
        out[..., [0, -1], :] = 0
        return out

    unit = np.stack([(1 + np.cos(2 * np.pi * x / 3)) / 2, (1 + np.sin(2 * np.pi * x / 3)) / 2, y], -1)
    w = np.stack([[0.8 * np.tanh(bumps(generator, unit, 3)) for _ in range(count)] for _ in range(2)])
    frames = stepped(rate, w * np.tanh(np.minimum(y, 1 - y) / 0.1), 0.15, 30)
    points = np.stack([x, y], -1)[1::3, ::3]
    return np.arange(FRAMES) * 0.15, points.reshape(-1, 2), frames[..., 1::3, ::3].reshape(
        FRAMES, 2, count, -1).transpose(2, 0, 3, 1), {"channels": ["p", "q"], "period": [3.0, 0.0]}


@problem(16, 6)
def shielded(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 / (1 + 5 v^2) u_xx, v_t = .005 v_xx + 1.5 v (1 - v) (v - .3) on a circle of length 2: what grows slows
    another diffusion down. Differences of sixth order, 192 points, read at every third."""
    n, t = 192, np.arange(FRAMES) * 0.2
    x = np.arange(n) / n * 2

    def rate(w: np.ndarray) -> np.ndarray:
        v, bent = w[1], np.stack([second(one, 2 / n) for one in w])
        return np.stack([0.02 / (1 + 5 * v**2) * bent[0], 0.005 * bent[1] + 1.5 * v * (1 - v) * (v - 0.3)])

    waves = np.exp(1j * np.pi * np.outer(np.arange(1, 7), x)) / np.arange(1, 7)[:, None]
    fields = []
    for _ in range(count):
        f = (generator.standard_normal((2, 12)).view(complex) @ waves).real
        f[1] = 0.5 + 0.4 * f[1] / np.abs(f[1]).max()
        fields.append(solve(rate, f, t, "LSODA")[..., ::3])
    return t, x[::3, None], np.stack(fields).transpose(0, 1, 3, 2), {"period": [2.0]}
