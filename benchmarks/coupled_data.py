"""Coupled fields and materials that vary in place, from solvers of their own at small size.

python benchmarks/coupled_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import skfem
from blind_data import _bumps, _etd, _quadratic
from collection_data import _flow_and_scalar, _real, _spectral, _torus, _waves
from data_makers import FRAMES, Fields, bumps, reacting, solve, write_problems
from shape_data import _circle
from sphere_data import _runge_kutta

TRAIN, TEST = 24, 8


def viscoelastic(generator: np.random.Generator, count: int) -> Fields:
    """An Oldroyd-B fluid on a torus of length 1: velocities and conformation (xx, xy, yy) at 32 x 32 of 64 x 64.
    C_t = -v . grad C + G C + C G' - (C - I) / .5 + .004 lap C, v_t = ... + .01 lap v + .1 div C."""
    n, gap, steps = 64, 0.04, 10
    kx, ky, k2, keep, inverse, x = _torus(n)

    def velocities(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 1j * ky * inverse * w, -1j * kx * inverse * w

    def rate(w: np.ndarray) -> np.ndarray:  # vorticity, conformation less the identity
        vx, vy = velocities(w[:, 0])
        u, v = _real(vx), _real(vy)
        g = [[_real(1j * k * f) for k in (kx, ky)] for f in (vx, vy)]
        a, b, c = (_real(w[:, i]) for i in (1, 2, 3))
        turn = [2 * (g[0][0] * (a + 1) + g[0][1] * b),
                g[0][0] * b + g[0][1] * (c + 1) + (a + 1) * g[1][0] + b * g[1][1],
                2 * (g[1][0] * b + g[1][1] * (c + 1))]
        along = [-(u * _real(1j * kx * f) + v * _real(1j * ky * f)) for f in (w[:, 0], *(w[:, i] for i in (1, 2, 3)))]
        force = -kx * ky * w[:, 3] - kx**2 * w[:, 2] + kx * ky * w[:, 1] + ky**2 * w[:, 2]  # curl of the divergence
        parts = [along[0], *(p + q for p, q in zip(along[1:], turn, strict=True))]
        total = np.stack([keep * np.fft.fft2(part) for part in parts], 1)
        total[:, 0] += 0.1 * keep * force
        return total

    start = np.zeros((count, 4, n, n))
    for i in range(count):
        start[i, 0] = 6 * _waves(generator, n, 2, 3)
        start[i, 1:] = 0.1 * np.stack([_waves(generator, n, 2, 3) for _ in range(3)])
    w, frames = keep * np.fft.fft2(start), []
    linear = np.stack([-0.01 * k2, *[-0.004 * k2 - 2.0] * 3])
    for _ in range(FRAMES):
        vx, vy = velocities(w[:, 0])
        one = np.array([1.0, 0, 1.0])[:, None, None]
        frames.append(np.concatenate([np.stack([_real(vx), _real(vy)], 1), _real(w[:, 1:]) + one], 1)[..., ::2, ::2])
        w = _etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 5, -1), 2, 3)
    return (np.arange(FRAMES) * gap, x, u,
            {"period": [1.0, 1.0], "channels": ["vx", "vy", "cxx", "cxy", "cyy"]})


def emulsion(generator: np.random.Generator, count: int) -> Fields:
    """Cahn-Hilliard and Navier-Stokes on a torus of length 1: phase and velocities at 32 x 32 of 64 x 64 points."""
    n, gap, steps = 64, 0.04, 40
    kx, ky, k2, keep, inverse, x = _torus(n)
    mobility, width = 0.01, 0.03

    def rate(w: np.ndarray) -> np.ndarray:  # vorticity, phase
        u, v = _real(1j * ky * inverse * w[:, 0]), _real(-1j * kx * inverse * w[:, 0])
        phase = _real(w[:, 1])
        potential = keep * np.fft.fft2(phase**3 - phase) + width**2 * k2 * w[:, 1]
        along = [-(u * _real(1j * kx * f) + v * _real(1j * ky * f)) for f in (w[:, 0], w[:, 1])]
        pull = (_real(1j * kx * potential) * _real(1j * ky * w[:, 1])
                - _real(1j * ky * potential) * _real(1j * kx * w[:, 1]))  # curl of potential grad phase
        cubic = np.fft.fft2(phase**3 - 3 * phase)
        return np.stack([keep * np.fft.fft2(along[0] + 10 * pull),
                         keep * (np.fft.fft2(along[1]) - mobility * k2 * cubic)], 1)

    start = np.stack([np.stack([5 * _waves(generator, n, 2, 3), 0.5 * _waves(generator, n, 2, 5)])
                      for _ in range(count)])
    linear = np.stack([-0.01 * k2, -mobility * (2 * k2 + width**2 * k2**2)])
    return _flow_and_scalar(start, linear, rate, gap, steps, "phase")


def elastic(generator: np.random.Generator, count: int) -> Fields:
    """Displacements a, b and their velocities in a damped elastic body clamped at the walls of a unit box: rates
    .5 lap + 1.0 grad div, damping .3; differences on 47 x 47 inner nodes, read with the walls at 25 x 25."""
    n, t = 48, np.arange(FRAMES) * 0.06
    h = 1 / n
    grid = np.stack(np.meshgrid(*[np.arange(n + 1) * h] * 2, indexing="ij"), -1)

    def rate(w: np.ndarray) -> np.ndarray:
        q, v = w[:2], w[2:]
        out = np.zeros_like(w)
        out[:2] = v
        inner = (slice(1, -1), slice(1, -1))
        bent = [[(f[2:, 1:-1] - 2 * f[inner] + f[:-2, 1:-1]) / h**2, (f[1:-1, 2:] - 2 * f[inner] + f[1:-1, :-2]) / h**2]
                for f in q]
        mixed = [(f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / (4 * h**2) for f in q]
        out[2][inner] = 0.5 * sum(bent[0]) + bent[0][0] + mixed[1] - 0.3 * v[0][inner]
        out[3][inner] = 0.5 * sum(bent[1]) + bent[1][1] + mixed[0] - 0.3 * v[1][inner]
        return out

    frames = []
    for _ in range(count):
        start = np.zeros((4, n + 1, n + 1))
        for i in range(4):
            for _ in range(12):
                k = generator.integers(1, 5, 2)
                start[i] += generator.standard_normal() / (k**2).sum() * np.prod(np.sin(np.pi * k * grid), -1)
        start[2:] *= 3
        frames.append(solve(rate, start, t, "DOP853"))
    u = np.moveaxis(np.stack(frames), 2, -1)[:, :, ::2, ::2]
    return t, grid[::2, ::2].reshape(-1, 2), u.reshape(count, FRAMES, -1, 4), {"channels": ["a", "b", "va", "vb"]}


def scattering(generator: np.random.Generator, count: int) -> Fields:
    """Sound in a medium of its own for every trajectory, on a torus of length 1: p_t = -div v, v_t = -grad p / rho, and
    the density rho, which does not change, at 32 x 32 of 64 x 64 points."""
    derivative, smooth = _spectral(64, 2, 1.0)
    n, gap, steps = 64, 0.04, 16
    rho = np.stack([1.2 + 0.25 * np.clip(_waves(generator, n, 2, 3), -2.5, 2.5) for _ in range(count)])
    p = np.stack([_waves(generator, n, 2, 4) for _ in range(count)])

    def rate(w: np.ndarray) -> np.ndarray:
        return np.stack([-derivative(w[:, 1], 0) - derivative(w[:, 2], 1),
                         -derivative(w[:, 0], 0) / rho, -derivative(w[:, 0], 1) / rho], 1)

    w, frames = np.stack([p, 0 * p, 0 * p], 1), []
    for _ in range(FRAMES):
        frames.append(np.concatenate([w, rho[:, None]], 1)[..., ::2, ::2])
        for _ in range(steps):
            w = smooth(_runge_kutta(rate, w, gap / steps, 1))
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 4, -1), 2, 3)
    x = _torus(n)[-1]
    return np.arange(FRAMES) * gap, x, u, {"period": [1.0, 1.0], "channels": ["p", "vx", "vy", "rho"]}


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


def film(generator: np.random.Generator, count: int) -> Fields:
    """h_t = (h^3 (.05 h_x - 2e-5 h_xxx))_x on a circle of length 1, a film under gravity and tension: at 64 of 256
    points."""
    derivative, _ = _spectral(256, 1, 1.0)
    t = np.arange(FRAMES) * 0.05

    def rate(h: np.ndarray) -> np.ndarray:
        third = derivative(derivative(derivative(h, 0), 0), 0)
        return np.asarray(derivative(h**3 * (0.05 * derivative(h, 0) - 2e-5 * third), 0))

    u = [solve(rate, 1.0 + 0.2 * _waves(generator, 256, 1, 5), t, "BDF") for _ in range(count)]
    return t, np.arange(0, 256, 4)[:, None] / 256, np.stack(u)[..., ::4, None], {"period": [1.0]}


def _filtered(generator: np.random.Generator, count: int, n: int, length: float, gap: float, steps: int,
              linear: Callable, rate: Callable, start: Callable, before: int = 0) -> Fields:
    """One field on a torus, at every other point of n x n: linear(kx, ky) exact, rate(w, kx, ky) explicit; so many
    gaps of frames are left out at first."""
    k = 2 * np.pi * np.fft.fftfreq(n, length / n)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    keep = (np.abs(kx) < 2 / 3 * k.max()) & (np.abs(ky) < 2 / 3 * k.max())
    w, frames = keep * np.fft.fft2(np.stack([start() for _ in range(count)])), []
    for _ in range(before + FRAMES):
        frames.append(_real(w)[:, ::2, ::2])
        w = _etd(linear(kx, ky), lambda w: keep * np.fft.fft2(rate(w, kx, ky)), w, gap / steps, steps)
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n * length] * 2, indexing="ij"), -1).reshape(-1, 2)
    u = np.stack(frames[before:], 1).reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * gap, x, u, {"period": [length, length]}


def flames(generator: np.random.Generator, count: int) -> Fields:
    """h_t = -lap h - lap^2 h - |grad h|^2 / 2 on a torus of length 24, the mean taken out: 32 x 32 of 64 x 64."""
    def rate(w: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        slope = _real(1j * kx * w) ** 2 + _real(1j * ky * w) ** 2
        return -0.5 * (slope - slope.mean((-2, -1), keepdims=True))

    def linear(kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        k2 = kx**2 + ky**2
        return k2 - k2**2

    return _filtered(generator, count, 64, 24.0, 0.4, 40, linear, rate, lambda: _waves(generator, 64, 2, 6), before=20)


def grain(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 u_xx + .004 u_yy + .008 u_xy + 3 u (1 - u) (u - .3) on a torus of length 2."""
    def rate(w: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        u = _real(w)
        return 3 * u * (1 - u) * (u - 0.3)

    return _filtered(generator, count, 64, 2.0, 0.15, 20,
                     lambda kx, ky: -0.02 * kx**2 - 0.004 * ky**2 - 0.008 * kx * ky, rate,
                     lambda: 0.4 + 0.3 * _waves(generator, 64, 2, 4))


def planetary(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -J(psi, w) - 8 psi_x + .01 lap w, w = lap psi, on a torus of length 2 pi: vorticity on a beta plane."""
    def rate(w: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        psi = -w / np.where(kx**2 + ky**2 > 0, kx**2 + ky**2, np.inf)
        return _real(1j * ky * psi) * _real(1j * kx * w) - _real(1j * kx * psi) * _real(1j * ky * w)

    def linear(kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        k2 = kx**2 + ky**2
        return -0.01 * k2 + 8j * kx / np.where(k2 > 0, k2, np.inf)

    return _filtered(generator, count, 64, 2 * np.pi, 0.15, 20, linear, rate, lambda: 3 * _waves(generator, 64, 2, 5))


def ion_waves(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u u_x - d(lap u)/dx on a torus of length 20, Zakharov and Kuznetsov's equation."""
    def rate(w: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        return -_real(w) * _real(1j * kx * w)

    return _filtered(generator, count, 64, 20.0, 0.3, 60, lambda kx, ky: 1j * kx * (kx**2 + ky**2), rate,
                     lambda: 0.5 * _waves(generator, 64, 2, 4))


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


def tissue(generator: np.random.Generator, count: int) -> Fields:
    """u_t = div(A grad u) + 4 u (1 - u) (u - .15) - v, v_t = .3 (u - 1.5 v), A = ((.02, .006), (.006, .005)), no flux
    A grad u . n, in an ellipse with a round hole: quadratic elements, seen at the corners."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    outline = np.stack([1.2 * np.cos(angle), 0.8 * np.sin(angle)], 1)
    basis, _, masses, cells = _quadratic([outline, _circle((0.3, 0.1), 0.25, 0.09)], 0.09)
    tensor = np.array([[0.02, 0.006], [0.006, 0.005]])

    @skfem.BilinearForm
    def along(u, v, _):  # noqa: ANN001, ANN202
        return sum(tensor[i, j] * u.grad[i] * v.grad[j] for i in range(2) for j in range(2))

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([4 * u * (1 - u) * (u - 0.15) - v, 0.3 * (u - 1.5 * v)])

    x, gap, steps = basis.doflocs.T, 0.5, 50
    w = np.stack([np.stack([_bumps(generator, x, 0.5, 0.2), _bumps(generator, x, 0.1)]) for _ in range(count)], -1)
    frames = reacting(w, reaction, along.assemble(basis), masses, (1.0, 0.0), gap / steps, steps)
    nodes = basis.nodal_dofs[0]
    return np.arange(FRAMES) * gap, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


MAKERS = {maker.__name__: maker for maker in (
    viscoelastic, emulsion, elastic, scattering, patches, flames, film, grain, planetary, ion_waves, conserved, tissue)}


if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST)
