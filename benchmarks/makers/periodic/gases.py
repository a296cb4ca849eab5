"""Conservation laws on circles and tori: steep fronts, gases, traffic, electrons in phase space."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import convolve1d

from benchmarks.makers.base import FRAMES, Fields, problem, solve
from benchmarks.makers.spectral import on_circle, random_ring, red_field, runge_kutta, second, spectral


@problem()
def long_line(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x + .002 u_xx on a circle of length 2: steep fronts, at all of 2048 points."""
    return on_circle(generator, count, 2048, 2.0, np.arange(FRAMES) * 0.06, lambda u, k, t: np.fft.ifft(
        -0.002 * k**2 * np.fft.fft(u) - 0.5j * k * (np.abs(k) < 2100) * np.fft.fft(u**2)).real,
        lambda: 0.5 * red_field(generator, 2048, 1, 4) + 0.3 * generator.standard_normal(), every=1)


@problem(64, 8)
def shocks(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .001 / pi u_xx - u u_x on a circle of length 1: finite volumes (MUSCL), 1,024 cells, read at 256."""
    n, step, every = 1024, 0.05, 256
    x, h = (np.arange(n) + 0.5) / n, 0.05 / 256
    u = np.zeros((count, n))
    for _ in range(2):
        size, phase, wave = *generator.uniform(0, 1, (2, count, 1)), generator.integers(1, 5, (count, 1))
        u += size * np.sin(2 * np.pi * (wave * x + phase))

    def rate(u: np.ndarray) -> np.ndarray:
        left, right = u - np.roll(u, 1, -1), np.roll(u, -1, -1) - u
        slope = np.where(left * right > 0, np.sign(left) * np.minimum(np.abs(left), np.abs(right)), 0.0)
        a, b = u + slope / 2, np.roll(u - slope / 2, -1, -1)
        flux = np.maximum(np.maximum(a, 0) ** 2, np.minimum(b, 0) ** 2) / 2 - 0.001 / np.pi * right * n  # Godunov
        return (np.roll(flux, 1, -1) - flux) * n

    frames = []
    for index in range((FRAMES - 1) * every + 1):
        if index % every == 0:
            frames.append(u[:, ::4])
        middle = u + h * rate(u)
        u = (u + middle + h * rate(middle)) / 2
    return np.arange(FRAMES) * step, x[::4, None], np.stack(frames, 1)[..., None], {"period": [1.0]}


@problem()
def filtered_burgers(generator: np.random.Generator, count: int) -> Fields:
    """Burgers of viscosity 0.002 on a circle of length 2, filtered by a Gaussian of deviation 0.06, 64 of 1024 points.

    Shocks are 30 times thinner than the filter.
    """
    n, h, t, ik = 1024, 2 / 1024, np.arange(FRAMES) * 0.03, 1j * np.pi * np.fft.rfftfreq(1024, 1 / 1024)
    u, step, frames = np.stack([random_ring(generator, n, 4) for _ in range(count)]), 5e-4, []
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


@problem()
def buckley_leverett(generator: np.random.Generator, count: int) -> Fields:
    """u_t + (u^2 / (u^2 + 0.5 (1 - u)^2))_x = 0.05 u_xx on a circle of length 4, 96 of 384 points, finite volumes."""
    n, h, t = 384, 4 / 384, np.arange(FRAMES) * 0.025

    def rate(u: np.ndarray) -> np.ndarray:
        flow = u**2 / (u**2 + 0.5 * (1 - u) ** 2)
        return -convolve1d(flow, np.array([-1, 8, 0, -8, 1]) / 12 / h, mode="wrap") + 0.05 * second(u, h)

    u = np.stack([solve(rate, 0.5 + 0.4 * np.tanh(random_ring(generator, n, 3)), t) for _ in range(count)])
    return t, (np.arange(0, n, 4) * h)[:, None], u[:, :, ::4, None], {"period": [4.0]}


def _gas(generator: np.random.Generator, count: int, n: int, d: int, mach: float, gap: float, steps: int) -> Fields:
    """Density, velocities, pressure of a viscous gas, heat capacities 5 : 3, in a periodic box, of viscosities .01."""
    derivative, smooth = spectral(n, d, 1.0)
    eta = zeta = 0.01
    gamma = 5 / 3

    def rate(w: np.ndarray) -> np.ndarray:
        density, v, p = w[:, 0], w[:, 1:-1], w[:, -1]
        slopes = np.stack([np.stack([derivative(v[:, i], j) for j in range(d)], 1) for i in range(d)], 1)
        divergence = np.einsum("sii...->s...", slopes)
        stress = eta * (slopes + slopes.swapaxes(1, 2))
        for i in range(d):
            stress[:, i, i] += (zeta - 2 / 3 * eta) * divergence
        turn = [(-derivative(p, i) + sum(derivative(stress[:, i, j], j) for j in range(d))) / density
                - sum(v[:, j] * slopes[:, i, j] for j in range(d)) for i in range(d)]
        heat = np.einsum("sij...,sij...->s...", stress, slopes)
        flux = -sum(derivative(density * v[:, i], i) for i in range(d))
        change = -sum(v[:, i] * derivative(p, i) for i in range(d)) - gamma * p * divergence + (gamma - 1) * heat
        return np.stack([flux, *turn, change], 1)

    start = []
    for _ in range(count):
        density = 1 + 0.15 * red_field(generator, n, d, 4)
        p = 1 + 0.15 * red_field(generator, n, d, 4)
        v = [mach * np.sqrt(gamma) * red_field(generator, n, d, 4) for _ in range(d)]
        start.append(np.stack([density, *v, p]))
    w, frames = smooth(np.stack(start)), []
    for _ in range(FRAMES):
        frames.append(w)
        for _ in range(steps):
            w = smooth(runge_kutta(rate, w, gap / steps, 1))
    u = np.stack(frames, 1)[(..., *[slice(None, None, 2)] * d)]
    u = np.moveaxis(u.reshape(count, FRAMES, d + 2, -1), 2, 3)
    axis = np.arange(0, n, 2) / n
    x = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
    return (np.arange(FRAMES) * gap, x, u,
            {"period": [1.0] * d, "channels": ["density", *["vx", "vy"][:d], "pressure"]})


@problem()
def gas_line(generator: np.random.Generator, count: int) -> Fields:
    """A viscous gas on a circle, Mach .3, at 96 of 192 points."""
    return _gas(generator, count, 192, 1, 0.3, 0.02, 80)


@problem()
def gas_box(generator: np.random.Generator, count: int) -> Fields:
    """A viscous gas on a torus, Mach .2, at 32 x 32 of 64 x 64 points."""
    return _gas(generator, count, 64, 2, 0.2, 0.02, 12)


@problem()
def critical_fluid(generator: np.random.Generator, count: int) -> Fields:
    """d_t = -(d u)_x, u_t = -u u_x - (p_d / d) d_x + .004 d_xxx + .05 u_xx, p = 6.8 d / (3 - d) - 3 d^2: van der Waals'
    fluid with capillarity (Korteweg 1901) between walls of (0, 2), u = 0 = d_x, at times that are unequal: staggered
    differences, 200 cells, density and velocity at every fourth."""
    n, step = 200, 0.0005
    h, x = 2 / n, (np.arange(n) + 0.5) * 2 / n
    t = np.concatenate([[0], np.cumsum(np.resize([0.04, 0.08, 0.05, 0.11, 0.07, 0.06], FRAMES - 1))])

    def rate(w: np.ndarray) -> np.ndarray:  # densities in n cells, velocities at n + 1 faces, those of walls 0
        d, u = w[:n], w[n:]
        inner = (d[1:] + d[:-1]) / 2
        flux = np.pad(inner * u[1:-1], ((1, 1), (0, 0)))
        lap = np.diff(np.pad(d, ((1, 1), (0, 0)), mode="edge"), 2, 0) / h**2
        push = 20.4 / (3 - inner) ** 2 / inner - 6
        moved = -u[1:-1] * (u[2:] - u[:-2]) / (2 * h) - push * np.diff(d, axis=0) / h + 0.004 * np.diff(lap, axis=0) / h
        return np.concatenate([-np.diff(flux, axis=0) / h, np.pad(moved + 0.05 * np.diff(u, 2, 0) / h**2,
                                                                 ((1, 1), (0, 0)))])

    k = np.arange(1, 6)[:, None]
    d = 1 + 0.25 * np.cos(np.pi / 2 * k * x).T @ (generator.standard_normal((5, count)) / (1 + k))
    u = 0.3 * np.sin(np.pi / 2 * k * np.arange(n + 1) * h).T @ (generator.standard_normal((5, count)) / (1 + k))
    frames = [np.concatenate([d, u])]
    for gap in np.diff(t):
        frames.append(runge_kutta(rate, frames[-1], step, round(gap / step)))
    w = np.stack(frames)
    both = np.stack([w[:, :n], (w[:, n:-1] + w[:, n + 1:]) / 2], -1)[:, 1::4]
    return t, x[1::4, None], both.transpose(2, 0, 1, 3), {"channels": ["density", "velocity"]}


def _waves(generator: np.random.Generator, phase: np.ndarray, most: int, size: float) -> np.ndarray:
    """A sum of cosines of whole multiples, up to `most`, of a phase (N,), of amplitudes size / j."""
    return np.sum([size * generator.standard_normal() / j * np.cos(j * phase + generator.uniform(0, 2 * np.pi))
                   for j in range(1, most + 1)], 0)


@problem()
def traffic(generator: np.random.Generator, count: int) -> Fields:
    """Cars on a circular road of length 10: r_t = -(r v)_x, v_t = -v v_x + (V(r) - v) / .8 - .5 r_x / r + .05 v_xx / r
    with a sigmoid V (Kerner and Konhaeuser 1993): Fourier, 128."""
    n, length, t = 128, 10.0, np.arange(FRAMES) * 0.4
    x, k = np.arange(n) / n * length, 2j * np.pi * np.fft.fftfreq(n, length / n)

    def slope(f: np.ndarray) -> np.ndarray:
        return np.fft.ifft(k * np.fft.fft(f)).real

    def wished(r: np.ndarray) -> np.ndarray:
        return 1.5 * (1 / (1 + np.exp((r / 0.55 - 0.45) / 0.15)) - 3.7e-6)

    def rate(w: np.ndarray) -> np.ndarray:
        r, v = w
        return np.stack([-slope(r * v), -v * slope(v) + (wished(r) - v) / 0.8 - 0.5 * slope(r) / r
                         + 0.05 * slope(slope(v)) / r])

    paths = []
    for _ in range(count):
        r = np.clip(0.35 + _waves(generator, 2 * np.pi * x / length, 5, 0.05), 0.1, 0.8)
        v = wished(r) + _waves(generator, 2 * np.pi * x / length, 4, 0.05)
        paths.append(solve(rate, np.stack([r, v]), t, "LSODA"))
    return t, x[:, None], np.stack(paths).swapaxes(2, 3), {"channels": ["rho", "v"], "period": [length]}


@problem()
def plasma(generator: np.random.Generator, count: int) -> Fields:
    """f_t = -v f_x + E f_v, E_x = 1 - integral of f over v: electrons of two streams in the plane of place and velocity
    (Vlasov and Poisson), periodic in x over 4 pi: splitting, shifts by Fourier (Cheng and Knorr 1976), 48 x 96."""
    n, m, length, most, dt, every = 48, 96, 4 * np.pi, 6.0, 0.05, 8
    x, v = np.arange(n) / n * length, -most + (np.arange(m) + 0.5) / m * 2 * most
    kx, kv = 2 * np.pi * np.fft.fftfreq(n, length / n), 2 * np.pi * np.fft.fftfreq(m, 2 * most / m)
    streams = sum(np.exp(-((v - at) ** 2) / 2) for at in (-1.6, 1.6)) / np.sqrt(8 * np.pi)
    density = 1 + np.sum([generator.uniform(0.02, 0.25, (count, 1)) / j * np.cos(
        j * x / 2 + generator.uniform(0, 2 * np.pi, (count, 1))) for j in (1, 2)], 0)
    f, inverse = density[..., None] * streams, np.divide(1j, kx, out=np.zeros(n, complex), where=kx != 0)
    moved = np.exp(-1j * kx[:, None] * v * dt / 2)
    frames = [f]
    for step in range(1, every * (FRAMES - 1) + 1):
        f = np.fft.ifft(np.fft.fft(f, axis=1) * moved, axis=1).real
        field = np.fft.ifft(inverse * np.fft.fft(f.sum(2) * 2 * most / m - 1)).real  # E_k = i (f - 1)_k / k
        f = np.fft.ifft(np.fft.fft(f, axis=2) * np.exp(1j * kv * field[..., None] * dt), axis=2).real
        f = np.fft.ifft(np.fft.fft(f, axis=1) * moved, axis=1).real
        if step % every == 0:
            frames.append(f)
    points = np.stack(np.meshgrid(x[::2], v[::2], indexing="ij"), -1).reshape(-1, 2)
    return (np.arange(FRAMES) * every * dt, points, np.stack(frames, 1)[:, :, ::2, ::2].reshape(count, FRAMES, -1, 1),
            {"channels": ["f"], "period": [length, 0.0]})


@problem()
def landau(generator: np.random.Generator, count: int) -> Fields:
    """f_t = -v f_x - E f_v, E_x = mean(f) - rho: electrons in phase space, x periodic over 4 pi, v of -6 to 6 (Vlasov
    and Poisson): splitting, shifts by Fourier, 64 x 96, read at 32 x 48."""
    n, m, steps, gap = 64, 96, 20, 0.4
    x, v = np.arange(n) / n * 4 * np.pi, (np.arange(m) + 0.5) / m * 12 - 6
    k, q = np.fft.fftfreq(n, 2 / n), 2 * np.pi * np.fft.fftfreq(m, 12 / m)
    over = np.where(k == 0, 0, 1 / np.where(k == 0, 1, 1j * k))
    wave = sum(generator.uniform(0, 0.15, (count, 1)) * np.cos(j * x / 2 + generator.uniform(0, 7, (count, 1)))
               for j in (1, 2, 3))
    beam = generator.uniform(0.0, 0.15, (count, 1))
    f = (1 + wave)[..., None] * ((1 - beam) * np.exp(-(v**2) / 2) + beam * 2 * np.exp(-((v - 2.5) ** 2) * 2))[:, None]
    f = f / np.sqrt(2 * np.pi)
    drift, dt, frames = np.exp(-1j * k[:, None] * v * gap / steps / 2), gap / steps, [f]
    for _ in range(FRAMES - 1):
        for _ in range(steps):
            f = np.fft.ifft(drift * np.fft.fft(f, axis=1), axis=1).real
            rho = f.sum(-1) * 12 / m
            field = np.fft.ifft(over * np.fft.fft(rho.mean(1, keepdims=True) - rho, axis=1), axis=1).real
            f = np.fft.ifft(np.exp(1j * q * -field[..., None] * dt) * np.fft.fft(f, axis=2), axis=2).real
            f = np.fft.ifft(drift * np.fft.fft(f, axis=1), axis=1).real
        frames.append(f)
    points = np.stack(np.meshgrid(x[::2], v[::2], indexing="ij"), -1).reshape(-1, 2)
    u = np.stack(frames, 1)[:, :, ::2, ::2].reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * gap, points, u, {"channels": ["f"], "period": [4 * np.pi, 0.0]}
