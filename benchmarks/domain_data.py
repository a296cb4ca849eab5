"""Data on domains of many kinds, by solvers that share nothing with the engine: method of lines, finite differences.

python benchmarks/domain_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import shape_data
import sphere_data
from data_makers import FRAMES, Fields, bumps, solve, stepped, write_problems
from scipy.fft import dct, dst, idct, idst, irfft2, rfft2
from scipy.integrate import solve_ivp
from scipy.ndimage import map_coordinates

TRAIN, TEST = 24, 8


def _laplacian(u: np.ndarray, h: float) -> np.ndarray:
    """Five-point Laplacian of (..., n, n) between walls without flux, values at centres of cells."""
    p = np.pad(u, [(0, 0)] * (u.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    return (p[..., 2:, 1:-1] + p[..., :-2, 1:-1] + p[..., 1:-1, 2:] + p[..., 1:-1, :-2] - 4 * u) / h**2


def allen_cahn(generator: np.random.Generator, count: int) -> Fields:
    """u_t = 0.003 lap u + u - u^3 in a walled unit box, 40 x 40 centres of cells."""
    n, t = 40, np.arange(FRAMES) * 0.25
    g = (np.arange(n) + 0.5) / n
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1)
    u = [solve(lambda u: 0.003 * _laplacian(u, 1 / n) + u - u**3, bumps(generator, x, 4), t) for _ in range(count)]
    return t, x.reshape(-1, 2), np.stack(u).reshape(count, FRAMES, -1, 1), {}


def burgers_held(generator: np.random.Generator, count: int, viscosity: float = 0.02) -> Fields:
    """u_t = viscosity u_xx - u u_x on (0, 2), zero at both ends, 127 inner nodes."""
    n, t = 127, np.arange(FRAMES) * 0.05
    h = 2 / (n + 1)
    x = np.arange(1, n + 1) * h

    def rate(u: np.ndarray) -> np.ndarray:
        p = np.pad(u, 1)
        return viscosity * (p[2:] - 2 * u + p[:-2]) / h**2 - (p[2:] ** 2 - p[:-2] ** 2) / (4 * h)

    start = [sum(generator.standard_normal() / k * np.sin(np.pi * k * x / 2) for k in range(1, 5))
             for _ in range(count)]
    return t, x[:, None], np.stack([solve(rate, u, t, "LSODA") for u in start])[..., None], {}


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


def annulus(generator: np.random.Generator, count: int, mortality: float = 0.4) -> Fields:
    """Predator and prey on a disc with a hole, polar finite differences, read at 600 scattered points."""
    rings, spokes, t = 24, 96, np.arange(FRAMES) * 0.6
    h, q = 0.7 / rings, 2 * np.pi / spokes
    r = 0.3 + (np.arange(rings) + 0.5) * h
    faces = 0.3 + np.arange(rings + 1) * h

    def laplacian(u: np.ndarray) -> np.ndarray:
        flux = np.pad(np.diff(u, axis=1), ((0, 0), (1, 1), (0, 0))) * faces[:, None] / h
        around = (np.roll(u, 1, -1) - 2 * u + np.roll(u, -1, -1)) / (r[:, None] * q) ** 2
        return np.diff(flux, axis=1) / (h * r[:, None]) + around

    def rate(u: np.ndarray) -> np.ndarray:
        a, b = u
        reaction = np.stack([a * (1 - a) - a * b, a * b - mortality * b])
        return np.array([0.01, 0.005])[:, None, None] * laplacian(u) + reaction

    angle = np.arange(spokes) * q
    grid = np.stack([r[:, None] * np.cos(angle), r[:, None] * np.sin(angle)], -1)
    place = np.random.default_rng(5)
    radius, turn = np.sqrt(place.uniform(0.32**2, 0.98**2, 600)), place.uniform(0, 2 * np.pi, 600)
    at = [(radius - r[0]) / h, turn / q]
    u = [solve(rate, np.stack([0.5 + 0.15 * bumps(generator, (grid + 1) / 2, 4),
                                0.5 + 0.15 * bumps(generator, (grid + 1) / 2, 4)]), t) for _ in range(count)]
    read = np.stack([[[map_coordinates(np.pad(f, ((0, 0), (8, 8)), mode="wrap"), [at[0], at[1] + 8], order=5,
                                       mode="nearest") for f in frame] for frame in path] for path in u])
    return t, np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1), np.moveaxis(read, 2, 3), {}


def _place(x: np.ndarray) -> np.ndarray:
    """A coefficient between 0.45 and 1.65 that varies in the unit box, at points (..., d)."""
    return np.asarray(1.0 + 0.4 * np.prod(np.cos(2.5 * x + 0.3), -1) + 0.25 * np.sin(4 * x[..., 0] - x[..., -1]))


def _divergence(n: int, d: int, size: float) -> Callable[[np.ndarray], np.ndarray]:
    """div(size a grad .) of (..., n^d) between walls, conservative differences; a = `_place` at faces of cells."""
    centre, face = (np.arange(n) + 0.5) / n, np.arange(1, n) / n
    grids = [np.stack(np.meshgrid(*(face if i == j else centre for i in range(d)), indexing="ij"), -1)
             for j in range(d)]
    a = [size * n**2 * _place(grid) for grid in grids]

    def apply(u: np.ndarray) -> np.ndarray:
        total = np.zeros_like(u)
        for j in range(d):
            axis = u.ndim - d + j
            edges = [(0, 0)] * u.ndim
            edges[axis] = (1, 1)
            total += np.diff(np.pad(a[j] * np.diff(u, axis=axis), edges), axis=axis)
        return total

    return apply


def _fine_divergence(n: int, d: int, size: float) -> Callable[[np.ndarray], np.ndarray]:
    """The same to spectral accuracy: derivatives of cosines and of sines."""
    x = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n] * d, indexing="ij"), -1)
    a, k = size * _place(x), np.pi * np.arange(n)

    def apply(u: np.ndarray) -> np.ndarray:
        total = np.zeros_like(u)
        for j in range(d):
            axis = u.ndim - d + j
            wave = k.reshape([-1 if i == axis else 1 for i in range(u.ndim)])
            codes = np.roll(wave * dct(u, axis=axis), -1, axis)
            flux = a * -idst(codes, axis=axis)
            total += idct(wave * np.roll(dst(flux, axis=axis), 1, axis) * (wave > 0), axis=axis)
        return total

    return apply


def _linear(apply: Callable, u: np.ndarray, frame: float, bound: float, order: int) -> np.ndarray:
    """Frames (S, T, ...) of u_t = apply(u) (order 1), or of u_tt = apply(u) at rest at first (order 2: u, u_t last).

    Runge-Kutta 4 in steps below the stability bound of the spectral radius `bound`.
    """
    steps = int(np.ceil(frame * (bound / 2.0 if order == 1 else np.sqrt(bound) / 1.5)))
    now = np.stack([u, 0 * u][:order])
    rate = (lambda y: apply(y)) if order == 1 else (lambda y: np.stack([y[1], apply(y[0])]))
    return np.moveaxis(stepped(rate, now, frame, steps), (0, 1), (1, -1))  # (S, T, ..., C)


def _varying(n: int, d: int, order: int, fine: int, frame: float, size: float) -> Callable:
    """Waves or heat between walls, a coefficient that varies in place; seen at the n^d centres of cells.

    fine: odd ratio of the solver's points to those seen, to spectral accuracy; 1: differences on the points seen.
    """
    def make(generator: np.random.Generator, count: int) -> Fields:
        m = fine * n
        x = np.stack(np.meshgrid(*[(np.arange(m) + 0.5) / m] * d, indexing="ij"), -1)
        u = np.stack([bumps(generator, x, 4) for _ in range(count)])
        apply = (_fine_divergence if fine > 1 else _divergence)(m, d, size)
        bound = 1.65 * size * d * m**2 * (np.pi**2 if fine > 1 else 4)
        frames = _linear(apply, u, frame, bound, order)
        pick = slice(fine // 2, None, fine)
        seen = frames[(slice(None), slice(None), *[pick] * d)]
        return (np.arange(FRAMES) * frame, x[(pick,) * d].reshape(-1, d), seen.reshape(count, FRAMES, -1, order), {})

    return make


def flow_3d(generator: np.random.Generator, count: int, fine: int = 2, viscosity: float = 0.1) -> Fields:
    """Decaying incompressible flow on a torus of side 2 pi, 16^3 of the points of a pseudo-spectral solver."""
    n, t = 16 * fine, np.arange(FRAMES) * 0.1
    k = np.stack(np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * 2, np.fft.rfftfreq(n, 1 / n), indexing="ij"))
    k2 = (k**2).sum(0)
    mask, inverse = (np.abs(k) < n / 3).all(0), 1 / np.where(k2 > 0, k2, 1)

    def project(w: np.ndarray) -> np.ndarray:
        return w - k * ((k * w).sum(0) * inverse)

    def transport(w: np.ndarray) -> np.ndarray:  # -P curl(u) x u
        u, curl = (np.fft.irfftn(f, (n,) * 3, (1, 2, 3)) for f in (w, np.cross(1j * k, w, axis=0)))
        return project(np.fft.rfftn(np.cross(u, curl, axis=0), axes=(1, 2, 3)) * mask)

    def run() -> np.ndarray:
        w = project(np.fft.rfftn(generator.standard_normal((3, n, n, n)), axes=(1, 2, 3)) * (k2 > 0)
                    * np.exp(-k2 / 5))
        w /= np.sqrt((np.fft.irfftn(w, (n,) * 3, (1, 2, 3)) ** 2).mean())
        h, frames = 0.025, []
        half = np.exp(-viscosity * k2 * h / 2)
        for index in range(round(t[-1] / h) + 1):
            if index % round(t[1] / h) == 0:
                frames.append(np.fft.irfftn(w, (n,) * 3, (1, 2, 3))[:, ::fine, ::fine, ::fine])
            a = transport(w)
            b = transport(half * (w + h / 2 * a))
            c = transport(half * w + h / 2 * b)
            last = transport(half**2 * w + h * half * c)
            w = half**2 * w + h / 6 * (half**2 * a + 2 * half * (b + c) + last)
        return np.stack(frames)

    g = np.arange(16) * 2 * np.pi / 16
    x = np.stack(np.meshgrid(g, g, g, indexing="ij"), -1).reshape(-1, 3)
    u = np.stack([np.moveaxis(run(), 1, -1).reshape(FRAMES, -1, 3) for _ in range(count)])
    return t, x, u, {"period": [2 * np.pi] * 3}


def turbulence(generator: np.random.Generator, count: int, viscosity: float = 1e-4) -> Fields:
    """Vorticity of a forced flow on a torus of side 1, 64 x 64 points, pseudo-spectral, with an integrating factor.

    The force is 0.1 (sin s + cos s), s = 2 pi (x + y). Fields start from deviation 1; the first frame is at time 5.
    """
    n, h, every, burn = 64, 0.01, 50, 500
    k = 2 * np.pi * np.stack(np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.rfftfreq(n, 1 / n), indexing="ij"))
    k2, mask = (k**2).sum(0), (np.abs(k) < 2 * np.pi * n / 3).all(0) * 1.0
    inverse, half = 1 / np.where(k2 > 0, k2, np.inf), np.exp(-viscosity * k2 * h / 2)
    x = np.stack(np.meshgrid(*[np.arange(n) / n] * 2, indexing="ij"), -1)
    force = rfft2(0.1 * np.sqrt(2) * np.cos(2 * np.pi * x.sum(-1) - np.pi / 4))

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = irfft2(1j * k[1] * inverse * w), irfft2(-1j * k[0] * inverse * w)
        return force - mask * rfft2(u * irfft2(1j * k[0] * w) + v * irfft2(1j * k[1] * w))

    w = rfft2(generator.standard_normal((count, n, n))) * (k2 + 49) ** -1.25 * mask * (k2 > 0)
    w, frames = w / irfft2(w).std(), []
    for index in range(burn + (FRAMES - 1) * every + 1):
        if index >= burn and (index - burn) % every == 0:
            frames.append(irfft2(w).reshape(count, -1))
        a = rate(w)
        b = rate(half * (w + h / 2 * a))
        c = rate(half * w + h / 2 * b)
        last = rate(half**2 * w + h * half * c)
        w = half**2 * w + h / 6 * (half**2 * a + 2 * half * (b + c) + last)
    return (np.arange(FRAMES) * every * h, x.reshape(-1, 2), np.stack(frames, 1)[..., None],
            {"period": [1.0, 1.0], "channels": ["w"]})


MAKERS = {"allen_cahn": allen_cahn, "burgers_held": burgers_held, "kdv": kdv, "swift_hohenberg": swift_hohenberg,
          "annulus": annulus,
          "waves_line": _varying(64, 1, 2, 3, 0.08, 1.0), "waves_line_coarse": _varying(64, 1, 2, 1, 0.08, 1.0),
          "waves_place": _varying(24, 2, 2, 3, 0.08, 1.0), "waves_place_coarse": _varying(24, 2, 2, 1, 0.08, 1.0),
          "heat_place": _varying(24, 2, 1, 3, 0.1, 0.02), "heat_place_coarse": _varying(24, 2, 1, 1, 0.1, 0.02),
          "turbulence": turbulence, "turbulence_thin": partial(turbulence, viscosity=1e-5),
          "flow_3d": flow_3d, "flow_3d_fine": partial(flow_3d, viscosity=0.03),
          **{name: getattr(shape_data, name) for name in (
              "fhn_lshape", "fhn_disc", "fhn_channel", "burgers_lshape", "prey_perforated", "fhn_solid")},
          "sphere_prey": sphere_data.sphere_prey, "shallow_water": sphere_data.shallow_water}
NUMBERS = {"shallow_water": (12, 4), "fhn_solid": (12, 4),  # of trajectories; of the first as in the protocol of DINo
           "turbulence": (48, 8), "turbulence_thin": (48, 8)}


if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST, NUMBERS)
