"""Equations that public collections of simulations hold (PDEBench, The Well), from solvers of their own at small size.

python benchmarks/collection_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
Terms of laws were added with the errors of the gases, magnetic, stratified and chemotaxis in sight, rules of choice
with those of sorption.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from blind_data import _bumps, _etd, _quadratic
from data_makers import FRAMES, Fields, bumps, reacting, solve, write_problems
from shape_data import _polygon
from sphere_data import _runge_kutta

TRAIN, TEST = 24, 8


def _waves(generator: np.random.Generator, n: int, d: int, most: int) -> np.ndarray:
    """A random periodic field of unit variance on n^d points with waves up to `most`."""
    k = np.fft.fftfreq(n, 1 / n)
    size = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*[k] * d, indexing="ij")))
    spectrum = np.fft.fftn(generator.standard_normal((n,) * d)) * (size <= most) / (1 + size) ** (1 + d / 2)
    spectrum.flat[0] = 0
    f = np.fft.ifftn(spectrum).real
    return np.asarray(f / f.std())


def _spectral(n: int, d: int, length: float) -> tuple[Callable, Callable]:
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


def _torus(n: int) -> tuple[np.ndarray, ...]:
    """Wave numbers (n, n) along both axes of a torus of length 1, their square, the lower two thirds, and the inverse
    square; every other point of n x n."""
    k = 2 * np.pi * np.fft.fftfreq(n, 1 / n)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    k2, most = kx**2 + ky**2, 2 / 3 * np.abs(k).max()
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n] * 2, indexing="ij"), -1).reshape(-1, 2)
    return kx, ky, k2, (np.abs(kx) < most) & (np.abs(ky) < most), 1 / np.where(k2 > 0, k2, np.inf), x


def _real(w: np.ndarray) -> np.ndarray:
    return np.fft.ifft2(w).real


def _gas(generator: np.random.Generator, count: int, n: int, d: int, mach: float, gap: float, steps: int) -> Fields:
    """Density, velocities, pressure of a viscous gas, heat capacities 5 : 3, in a periodic box, of viscosities .01."""
    derivative, smooth = _spectral(n, d, 1.0)
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
        density = 1 + 0.15 * _waves(generator, n, d, 4)
        p = 1 + 0.15 * _waves(generator, n, d, 4)
        v = [mach * np.sqrt(gamma) * _waves(generator, n, d, 4) for _ in range(d)]
        start.append(np.stack([density, *v, p]))
    w, frames = smooth(np.stack(start)), []
    for _ in range(FRAMES):
        frames.append(w)
        for _ in range(steps):
            w = smooth(_runge_kutta(rate, w, gap / steps, 1))
    u = np.stack(frames, 1)[(..., *[slice(None, None, 2)] * d)]
    u = np.moveaxis(u.reshape(count, FRAMES, d + 2, -1), 2, 3)
    axis = np.arange(0, n, 2) / n
    x = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
    return (np.arange(FRAMES) * gap, x, u,
            {"period": [1.0] * d, "channels": ["density", *["vx", "vy"][:d], "pressure"]})


def gas_line(generator: np.random.Generator, count: int) -> Fields:
    """A viscous gas on a circle, Mach .3, at 96 of 192 points."""
    return _gas(generator, count, 192, 1, 0.3, 0.02, 80)


def gas_box(generator: np.random.Generator, count: int) -> Fields:
    """A viscous gas on a torus, Mach .2, at 32 x 32 of 64 x 64 points."""
    return _gas(generator, count, 64, 2, 0.2, 0.02, 12)


def sorption(generator: np.random.Generator, count: int) -> Fields:
    """u_t = D / R(u) u_xx, R = 1 + 2.2 u^-.126, held at 1 on the left, losing D u_x on the right: 200 cells, at 100."""
    t = np.arange(FRAMES) * 25.0
    d, h, x = 5e-4, 1 / 200, (np.arange(200) + 0.5) / 200
    retarding = (1 - 0.29) / 0.29 * 2880 * 3.5e-4 * 0.874

    def rate(u: np.ndarray) -> np.ndarray:
        padded = np.concatenate([[2 - u[0]], u, [u[-1] - h * d * (u[-1] - u[-2]) / h]])
        bent = (padded[2:] - 2 * u + padded[:-2]) / h**2
        return np.asarray(d * bent / (1 + retarding * np.maximum(u, 1e-6) ** (0.874 - 1)))

    u = []
    for _ in range(count):
        f = bumps(generator, x[:, None], 4)
        u.append(solve(rate, 0.05 + 0.4 * (f - f.min()) / np.ptp(f), t, "BDF"))
    return t, x[::2, None], np.stack(u)[..., ::2, None], {}


def magnetic(generator: np.random.Generator, count: int) -> Fields:
    """Incompressible flow with a magnetic field on a torus of length 1: velocities and field at 32 x 32 of 64 x 64."""
    n, gap, steps = 64, 0.03, 6
    kx, ky, k2, keep, inverse, x = _torus(n)

    def jacobian(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return keep * np.fft.fft2(_real(1j * kx * a) * _real(1j * ky * b) - _real(1j * ky * a) * _real(1j * kx * b))

    def rate(w: np.ndarray) -> np.ndarray:  # stream function and flux function; vorticity is -lap psi
        psi, a = w[:, 0], w[:, 1]
        return np.stack([inverse * (jacobian(psi, k2 * psi) - jacobian(a, k2 * a)), jacobian(psi, a)], 1)

    start = np.stack([np.stack([0.06 * _waves(generator, n, 2, 3), 0.06 * _waves(generator, n, 2, 3)])
                      for _ in range(count)])
    w, frames, linear = keep * np.fft.fft2(start), [], np.stack([-0.01 * k2, -0.01 * k2])
    for _ in range(FRAMES):
        parts = [_real(1j * ky * w[:, i]) if j == 0 else _real(-1j * kx * w[:, i]) for i in range(2) for j in range(2)]
        frames.append(np.stack(parts, 1)[..., ::2, ::2])
        w = _etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 4, -1), 2, 3)
    return np.arange(FRAMES) * gap, x, u, {"period": [1.0, 1.0], "channels": ["vx", "vy", "bx", "by"]}


def _flow_and_scalar(start: np.ndarray, linear: np.ndarray, rate: Callable, gap: float, steps: int, name: str
                     ) -> Fields:
    """A scalar and velocities at every other point of a torus, from fields (S, 2, n, n) of vorticity and scalar."""
    kx, ky, _, keep, inverse, x = _torus(start.shape[-1])
    w, frames = keep * np.fft.fft2(start), []
    for _ in range(FRAMES):
        parts = [_real(w[:, 1]), _real(1j * ky * inverse * w[:, 0]), _real(-1j * kx * inverse * w[:, 0])]
        frames.append(np.stack(parts, 1)[..., ::2, ::2])
        w = _etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(len(start), FRAMES, 3, -1), 2, 3)
    return np.arange(FRAMES) * gap, x, u, {"period": [1.0, 1.0], "channels": [name, "vx", "vy"]}


def _carried(generator: np.random.Generator, count: int, buoyancy: float) -> Fields:
    """A scalar in an incompressible flow on a torus of length 1: scalar and velocities at 32 x 32 of 64 x 64 points."""
    n, gap, steps = 64, 0.05, 10
    kx, ky, k2, keep, inverse, x = _torus(n)

    def rate(w: np.ndarray) -> np.ndarray:  # vorticity, scalar
        u, v = _real(1j * ky * inverse * w[:, 0]), _real(-1j * kx * inverse * w[:, 0])
        along = [-1.0 * keep * np.fft.fft2(u * _real(1j * kx * f) + v * _real(1j * ky * f)) for f in (w[:, 0], w[:, 1])]
        return np.stack([along[0] + buoyancy * 1j * kx * w[:, 1],
                         along[1] - buoyancy * np.fft.fft2(v)], 1)

    start = np.stack([np.stack([4 * _waves(generator, n, 2, 4), 0.3 * _waves(generator, n, 2, 4)])
                      for _ in range(count)])
    return _flow_and_scalar(start, np.stack([-0.002 * k2, -0.003 * k2]), rate, gap, steps, "s")


def tracer(generator: np.random.Generator, count: int) -> Fields:
    """A passive tracer."""
    return _carried(generator, count, 0.0)


def stratified(generator: np.random.Generator, count: int) -> Fields:
    """A buoyancy b in a stratified fluid: v_t = ... + 2 b e_y, b_t = -v . grad b - 2 v_y + .003 lap b."""
    return _carried(generator, count, 2.0)


def ginzburg_landau(generator: np.random.Generator, count: int) -> Fields:
    """A_t = A + (1 + 1.5 i) lap A - (1 - .8 i) |A|^2 A on a torus of length 30: real and imaginary part, 40 x 40."""
    n, length, gap, steps = 40, 30.0, 0.4, 40
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    k2 = k[:, None] ** 2 + k**2
    a = np.stack([_waves(generator, n, 2, 5) + 1j * _waves(generator, n, 2, 5) for _ in range(count)]) * 0.5
    w, frames = np.fft.fft2(a), []

    def rate(w: np.ndarray) -> np.ndarray:
        a = np.fft.ifft2(w)
        return np.asarray(-(1 - 0.8j) * np.fft.fft2(np.abs(a) ** 2 * a))

    for _ in range(FRAMES):
        a = np.fft.ifft2(w)
        frames.append(np.stack([a.real, a.imag], -1).reshape(count, -1, 2))
        w = _etd(1 - (1 + 1.5j) * k2, rate, w, gap / steps, steps)
    x = np.stack(np.meshgrid(*[np.arange(n) / n * length] * 2, indexing="ij"), -1).reshape(-1, 2)
    return np.arange(FRAMES) * gap, x, np.stack(frames, 1), {"period": [length, length]}


def predators(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .004 lap u + u (1 - u) - u v / (u + .3), v_t = .006 lap v + v (1.2 u / (u + .3) - .5), no flux, on a
    T-shaped region."""
    corners = [[0, 0], [1.5, 0], [1.5, 0.5], [1, 0.5], [1, 1.5], [0.5, 1.5], [0.5, 0.5], [0, 0.5]]
    basis, stiffness, masses, cells = _quadratic([_polygon(np.array(corners), 0.06)], 0.06)
    x, gap, steps = basis.doflocs.T, 0.6, 60

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        eaten = u / (u + 0.3) * v
        return np.stack([u * (1 - u) - eaten, 1.2 * eaten - 0.5 * v])

    w = np.stack([np.stack([np.abs(_bumps(generator, x, 0.2, 0.5)), np.abs(_bumps(generator, x, 0.15, 0.45))])
                  for _ in range(count)], -1)
    frames = reacting(w, reaction, stiffness, masses, (0.004, 0.006), gap / steps, steps)
    nodes = basis.nodal_dofs[0]
    return np.arange(FRAMES) * gap, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


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
        density, chemical = (_bumps(generator, x.reshape(-1, 2), 0.3, 1.0) for _ in range(2))
        start = np.stack([np.abs(density), chemical])
        u.append(solve(rate, start.reshape(2, n, m), t, "RK45"))
    u = np.moveaxis(np.stack(u), 2, -1)
    u = (u[:, :, ::2, ::2] + u[:, :, 1::2, ::2] + u[:, :, ::2, 1::2] + u[:, :, 1::2, 1::2]) / 4
    centres = (x[::2, ::2] + x[1::2, 1::2]) / 2
    return t, centres.reshape(-1, 2), u.reshape(count, FRAMES, -1, 2), {"channels": ["u", "c"]}


def porous(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .05 lap(u^3) on a circle of length 1 from positive starts: 256 points, read at 64."""
    derivative, _ = _spectral(256, 1, 1.0)
    t = np.arange(FRAMES) * 0.005

    def rate(u: np.ndarray) -> np.ndarray:
        return np.asarray(0.05 * derivative(derivative(u**3, 0), 0))

    u = [solve(rate, 0.8 + 0.25 * _waves(generator, 256, 1, 5), t, "BDF") for _ in range(count)]
    return t, np.arange(0, 256, 4)[:, None] / 256, np.stack(u)[..., ::4, None], {"period": [1.0]}


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


MAKERS = {maker.__name__: maker for maker in (
    gas_line, gas_box, sorption, magnetic, tracer, stratified, ginzburg_landau, predators, chemotaxis, porous, shocks)}


if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST, {"shocks": (64, 8)})
