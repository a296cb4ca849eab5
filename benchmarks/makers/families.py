"""Families of systems whose one parameter takes several values, for training and for testing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse as sparse
from scipy.fft import dctn, idctn
from scipy.sparse.linalg import splu

from benchmarks.makers.base import FRAMES, Fields, Maker, bumps, bumps_of, linear, solve, stepped, write_fields
from benchmarks.makers.elements import circle, elements, mesh, refined
from benchmarks.makers.shapes.reactions import annulus, fhn_lshape
from benchmarks.makers.shapes.spheres import GEOMETRY, Sphere, scattered
from benchmarks.makers.walls.leaks import spread
from benchmarks.makers.walls.lines import burgers_held

EACH, TESTED = 6, 2  # trajectories for each value of a parameter


def waves(generator: np.random.Generator, count: int, speed: float) -> Fields:
    """u_t = v, v_t = speed^2 u_xx on a circle of length 2, in closed form, 64 points."""
    t, x = np.arange(FRAMES) * 0.05, np.arange(64) / 32
    u = np.zeros((count, FRAMES, 64, 2))
    for k in np.arange(1, 6) * np.pi:
        for part, (a, b) in zip(u, generator.standard_normal((count, 2)) / k, strict=True):
            phase, turn = generator.uniform(0, 7), speed * k * t[:, None]
            shape = np.cos(k * x + phase)
            part[..., 0] += (a * np.cos(turn) + b * np.sin(turn)) * shape
            part[..., 1] += speed * k * (b * np.cos(turn) - a * np.sin(turn)) * shape
    return t, x[:, None], u, {"period": [2.0]}


def cavity(generator: np.random.Generator, count: int, lid: float) -> Fields:
    """Flow in a box whose lid moves: w_t = -w . grad w - grad p + .01 lap w, from a random flow. Marker and cell, 48 x
    48 cells, read at 25 x 25 of their corners, walls among them."""
    n, gap, steps = 48, 0.2, 40
    h, k = 1 / n, gap / steps
    waves = 2 * (np.cos(np.pi * np.arange(n) / n) - 1) / h**2
    symbol = waves[:, None] + waves
    symbol[0, 0] = np.inf

    def walled(f: np.ndarray, low: float, high: float) -> np.ndarray:
        """With images beyond walls along the last axis that hold values at centres of cells."""
        return np.concatenate([2 * low - f[..., :1], f, 2 * high - f[..., -1:]], -1)

    def rate(u: np.ndarray, v: np.ndarray, wall: float) -> np.ndarray:
        """Of u (S, n + 1, n) at faces along x, v (S, n, n + 1) being those along y; walls keep theirs."""
        wide = walled(u, 0, wall)
        centre = (u[:, 1:] + u[:, :-1]) / 2
        turned = (wide[:, 1:-1, 1:] + wide[:, 1:-1, :-1]) / 2 * (v[:, 1:] + v[:, :-1]) / 2  # at corners
        bent = np.diff(u, 2, axis=1) + np.diff(wide[:, 1:-1], 2, axis=2)
        inner = -np.diff(centre**2, axis=1) / h - np.diff(turned, axis=2) / h + 0.01 / h**2 * bent
        return np.pad(inner, ((0, 0), (1, 1), (0, 0)))

    def swapped(f: np.ndarray) -> np.ndarray:
        return f.swapaxes(1, 2)

    def projected(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = idctn(dctn(np.diff(u, axis=1) / h + np.diff(v, axis=2) / h, axes=(1, 2)) / symbol, axes=(1, 2))
        u, v = u.copy(), v.copy()
        u[:, 1:-1] -= np.diff(p, axis=1) / h
        v[:, :, 1:-1] -= np.diff(p, axis=2) / h
        return u, v

    def step(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By Heun's rule, each stage without divergence."""
        a, b = projected(u + k * rate(u, v, lid), v + k * swapped(rate(swapped(v), swapped(u), 0)))
        return projected((u + a + k * rate(a, b, lid)) / 2, (v + b + k * swapped(rate(swapped(b), swapped(a), 0))) / 2)

    at = np.arange(n + 1) * h
    psi = np.zeros((count, n + 1, n + 1))
    for part in psi:
        for p, q in np.ndindex(3, 3):
            amplitude = generator.standard_normal() / (2 + p + q)
            part += 0.15 * amplitude * np.outer(np.cos(np.pi * p * at), np.cos(np.pi * q * at))
        part *= np.outer(np.sin(np.pi * at) ** 2, np.sin(np.pi * at) ** 2)
    u, v, frames = np.diff(psi, axis=2) / h, -np.diff(psi, axis=1) / h, []
    for index in range(steps * (FRAMES - 1) + 1):
        if index % steps == 0:
            wide, high = walled(u, 0, lid), swapped(walled(swapped(v), 0, 0))
            both = (wide[..., 1:] + wide[..., :-1]) / 2, (high[:, 1:] + high[:, :-1]) / 2
            frames.append(np.stack(both, -1)[:, ::2, ::2].reshape(count, -1, 2))
        u, v = step(u, v)
    x = np.stack(np.meshgrid(at[::2], at[::2], indexing="ij"), -1).reshape(-1, 2)
    return np.arange(FRAMES) * gap, x, np.stack(frames, 1), {"channels": ["u", "v"]}


def threshold_sphere(generator: np.random.Generator, count: int, threshold: float) -> Fields:
    """u_t = .004 lap u + u (1 - u) (u - threshold) on the unit sphere at 500 scattered points, pseudo-spectral."""
    sphere, gap, steps = Sphere(24), 1.2, 18
    a = 0.35 * sphere.random(generator, count, 6)
    a[:, 0, 0] = generator.uniform(0.2, 0.6, count)

    def rate(a: np.ndarray) -> np.ndarray:
        u = sphere.grid(a)
        return np.asarray(sphere.coefficients(u * (1 - u) * (u - threshold)) - 0.004 * sphere.eigenvalues * a)

    x = scattered(500)
    frames = stepped(rate, a, gap, steps)
    return np.arange(FRAMES) * gap, x, sphere.at(frames.swapaxes(0, 1), x)[..., None], dict(GEOMETRY)


def damped_waves(generator: np.random.Generator, count: int, damping: float) -> Fields:
    """u_tt = .64 lap u - damping u_t on a box 1.4 x 1 between walls without flux, u alone, in closed form at 500
    scattered points."""
    x, t = np.random.default_rng(5).uniform(0, 1, (500, 2)) * [1.4, 1.0], np.arange(FRAMES) * 0.1
    u = np.zeros((count, FRAMES, len(x)))
    for part, (p, q) in ((part, pair) for part in u for pair in np.ndindex(7, 7) if any(pair)):
        k = np.pi * np.hypot(p / 1.4, q)
        a, b = generator.standard_normal(2) / (1 + p**2 + q**2)
        turn = np.sqrt((0.8 * k) ** 2 - damping**2 / 4)
        b = (0.8 * k * b + damping / 2 * a) / turn
        path = np.exp(-damping * t / 2) * (a * np.cos(turn * t) + b * np.sin(turn * t))
        part += path[:, None] * np.cos(np.pi * p * x[:, 0] / 1.4) * np.cos(np.pi * q * x[:, 1])
    return t, x, u[..., None], {}


def quenches(generator: np.random.Generator, count: int, size: float) -> Fields:
    """u_t = .008 size u_xx + (u - u^3) / size on (0, 1) without flux: 240 finite volumes, read at every fourth."""
    n, t = 240, np.arange(FRAMES) * 0.12
    x = (np.arange(n)[:, None] + 0.5) / n

    def rate(u: np.ndarray) -> np.ndarray:
        return 0.008 * size * n**2 * np.diff(np.pad(u, 1, mode="edge"), 2) + (u - u**3) / size

    starts = [0.6 * f / f.std() for f in (generator.standard_normal(7) / np.arange(1, 8) @ np.cos(
        np.pi * np.arange(7)[:, None] * x.T) for _ in range(count))]
    u = np.stack([solve(rate, start, t, "BDF") for start in starts])
    return t, x[1::4], u[:, :, 1::4, None], {}


def beams(generator: np.random.Generator, count: int, tension: float) -> Fields:
    """w_t = v, v_t = -.004 w_xxxx + .05 tension w_xx - .15 v - .0004 v_xxxx on (-1, 1), clamped: Galerkin's method on
    (1 - x^2)^2 times 26 Legendre polynomials, read at 61 points."""
    n, gap, legendre = 26, 0.16, np.polynomial.legendre
    nodes, weights = legendre.leggauss(80)
    shapes = [legendre.legmul(legendre.poly2leg([1, 0, -2, 0, 1]), one) for one in np.eye(n)]

    def values(x: np.ndarray, order: int) -> np.ndarray:
        return np.stack([legendre.legval(x, legendre.legder(one, order)) for one in shapes], -1)

    def products(order: int) -> np.ndarray:
        return np.linalg.solve(values(nodes, 0).T @ (weights[:, None] * values(nodes, 0)),
                               values(nodes, order).T @ (weights[:, None] * values(nodes, order)))

    stiff, taut = products(2), products(1)
    matrix = np.block([[np.zeros((n, n)), np.eye(n)],
                       [-0.004 * stiff - 0.05 * tension * taut, -0.15 * np.eye(n) - 0.0004 * stiff]])
    waves = np.sin(np.pi * np.arange(1, 6)[:, None] * (nodes + 1) / 2) * (1 - nodes**2)
    fields = generator.standard_normal((2, count, 5)) / np.arange(1, 6) @ waves * np.array([1, 0.8])[:, None, None]
    start = np.linalg.lstsq(values(nodes, 0), fields.reshape(-1, len(nodes)).T, rcond=None)[0].T
    frames = linear(matrix, np.concatenate([start[:count], start[count:]], 1), gap)
    x = np.linspace(-1, 1, 61)
    u = frames.reshape(count, FRAMES, 2, n) @ values(x, 0).T
    return np.arange(FRAMES) * gap, x[:, None], u.swapaxes(2, 3), {"channels": ["w", "v"]}


def budworm(generator: np.random.Generator, count: int, predation: float) -> Fields:
    """u_t = .01 u_xx + .5 u (1 - u / 6) - predation u^2 / (1 + u^2) on (0, 4) without flux: 200 finite volumes, read
    at every third (Ludwig, Jones and Holling 1978)."""
    n, t = 200, np.arange(FRAMES) * 0.5
    x = (np.arange(n)[:, None] + 0.5) / n * 4

    def rate(u: np.ndarray) -> np.ndarray:
        around = np.diff(np.pad(u, 1, mode="edge"), 2) * (n / 4) ** 2
        return 0.01 * around + 0.5 * u * (1 - u / 6) - predation * u**2 / (1 + u**2)

    u = np.stack([solve(rate, 2 + 1.6 * np.tanh(bumps(generator, x / 4, 6)), t, "BDF") for _ in range(count)])
    return t, x[1::3], u[:, :, 1::3, None], {}


def twisted(generator: np.random.Generator, count: int, twist: float) -> Fields:
    """A_t = A + .01 (1 + .5 i) lap A - (1 - i twist) |A|^2 A (Ginzburg and Landau) without flux in an ellipse with a
    hole: linear elements, Strang splitting."""
    turn, step, every = np.linspace(0, 2 * np.pi, 90, endpoint=False), 0.02, 30
    x, cells = mesh([np.stack([1.3 * np.cos(turn), 0.8 * np.sin(turn)], 1), circle((0.5, 0), 0.2, 0.09)], 0.09)
    stiffness, masses = elements(x, cells)
    spread = 0.5 * step * 0.01 * (1 + 0.5j) * stiffness
    solver, explicit = splu((sparse.diags(masses) + spread).tocsc()), (sparse.diags(masses) - spread).tocsr()

    def half(a: np.ndarray) -> np.ndarray:
        def reaction(a: np.ndarray) -> np.ndarray:
            return a - (1 - 1j * twist) * abs(a) ** 2 * a

        return a + step / 2 * reaction(a + step / 4 * reaction(a))

    y = (x - x.min(0)) / np.ptp(x, axis=0)
    a = np.stack([0.6 * (bumps(generator, y, 4) + 1j * bumps(generator, y, 4)) for _ in range(count)], 1)
    frames = [a]
    for index in range(1, every * (FRAMES - 1) + 1):
        a = half(solver.solve(explicit @ half(a)))
        if index % every == 0:
            frames.append(a)
    u = np.stack([np.real(frames), np.imag(frames)], -1).transpose(2, 0, 1, 3)
    return np.arange(FRAMES) * step * every, x, u, {"triangles": cells}


def heated(generator: np.random.Generator, count: int, amplitude: float) -> Fields:
    """u_t = .015 lap u + .3 u - u^3 + amplitude exp(-|x - (.5, -.3)|^2 / .08) on a disc with a hole, no flux: linear
    elements on triangles a quarter as large as those read, Strang's splitting."""
    step, every = 0.02, 10
    nodes, triangles = mesh([circle((0, 0), 1.0, 0.11), circle((-0.3, 0.25), 0.25, 0.09)], 0.11)
    x, cells = refined(nodes, triangles)
    stiffness, masses = elements(x, cells)
    implicit = splu((sparse.diags(masses) + step / 2 * 0.015 * stiffness).tocsc())
    explicit = (sparse.diags(masses) - step / 2 * 0.015 * stiffness).tocsr()
    source = amplitude * np.exp(-((x - [0.5, -0.3]) ** 2).sum(1) / 0.08)[:, None]

    def half(u: np.ndarray) -> np.ndarray:
        middle = u + step / 4 * (0.3 * u - u**3 + source)
        return np.asarray(u + step / 2 * (0.3 * middle - middle**3 + source))

    y = (x - x.min(0)) / np.ptp(x, axis=0)
    u = np.stack([0.8 * np.tanh(bumps(generator, y, 3)) for _ in range(count)], 1)
    frames = [u]
    for index in range(1, every * (FRAMES - 1) + 1):
        u = half(implicit.solve(explicit @ half(u)))
        if index % every == 0:
            frames.append(u)
    fields = np.stack(frames)[:, : len(nodes)].transpose(2, 0, 1)[..., None]
    return np.arange(FRAMES) * step * every, nodes, fields, {"triangles": triangles}


def lossy(generator: np.random.Generator, count: int, loss: float) -> Fields:
    """T_t = .03 lap T + T - T^2 in 1.2 x .8, dT/dn = -loss T at x = 0, no flux elsewhere: 48 x 32 finite volumes, every
    second is read."""
    h = 1 / 40
    c = np.stack(np.meshgrid((np.arange(48) + 0.5) * h, (np.arange(32) + 0.5) * h, indexing="ij"), -1)
    w = np.stack([np.abs(bumps_of(generator, c.reshape(-1, 2), 0.3, 0.6)).reshape(48, 32) for _ in range(count)])
    frames = stepped(lambda u: 0.03 * (spread(u, h, -2, (loss, 0.0)) + spread(u, h, -1)) + u - u**2, w, 0.15, 40)
    fields = frames[..., 1::2, 1::2].swapaxes(0, 1).reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * 0.15, c[1::2, 1::2].reshape(-1, 2), fields, {"channels": ["T"]}


FAMILIES = {  # maker, name of its parameter, values trained and tested
    "burgers_viscosities": (burgers_held, "viscosity", (0.02, 0.03, 0.045, 0.06), (0.025, 0.035, 0.05, 0.08)),
    "annulus_mortalities": (annulus, "mortality", (0.3, 0.4, 0.5, 0.6), (0.35, 0.45, 0.55, 0.7)),
    "fhn_excitabilities": (fhn_lshape, "excitability", (0.3, 0.38, 0.46, 0.54, 0.62, 0.7), (0.34, 0.5, 0.66, 0.8)),
    "cavity_lids": (cavity, "lid", (0.6, 0.8, 1.0, 1.2, 1.4, 1.6), (0.7, 1.1, 1.5, 1.9)),
    "wave_speeds": (waves, "speed", (0.6, 0.8, 1.0, 1.2), (0.7, 0.9, 1.1, 1.4)),
    "wave_dampings": (damped_waves, "damping", (0.1, 0.3, 0.5, 0.8, 1.1, 1.4), (0.4, 0.7, 0.95, 1.8)),
    "beam_tensions": (beams, "tension", (-0.2, 0.2, 0.6, 1.0, 1.4, 1.8), (0.4, 1.2, 2.6, 3.6)),
    "quench_sizes": (quenches, "size", (0.5, 0.7, 0.9, 1.2, 1.5, 2.0), (0.6, 0.8, 1.7, 2.5)),
    "budworm_predations": (budworm, "predation", (0.4, 0.6, 0.8, 1.0, 1.2, 1.4), (0.5, 0.9, 1.3, 1.7)),
    "landau_twists": (twisted, "twist", (0.4, 0.7, 1.0, 1.3, 1.6, 1.9), (0.55, 1.15, 1.75, 2.4)),
    "heated_amplitudes": (heated, "amplitude", (0.4, 0.8, 1.2, 1.6, 2.0, 2.4), (1.0, 1.8, 0.1, 3.0, 4.0)),
    "wall_losses": (lossy, "loss", (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (0.75, 2.25, 0.2, 4.0, 6.0)),
    "sphere_thresholds": (threshold_sphere, "threshold", (0.15, 0.22, 0.29, 0.36), (0.18, 0.26, 0.33, 0.45)),
}


def write_family(path: Path, maker: Maker, parameter: str, values: Sequence[float], each: int,
                 generator: np.random.Generator, frames: int = FRAMES, first: int = 0) -> None:
    """A file of so many trajectories at each value of a parameter; `environment` numbers the values from `first` on."""
    made = [maker(generator, each, **{parameter: value}) for value in values]
    t, x, _, attributes = made[0]
    u = np.concatenate([fields[2] for fields in made])
    write_fields(path, path.stem.rsplit("_", 1)[0], (t[:frames], x, u[:, :frames], attributes),
                 environment=np.repeat(first + np.arange(len(values)), each))
    with h5py.File(path, "a") as file:
        file["parameters"] = np.repeat(values, each)[:, None]
        file["parameters"].attrs.create("names", [parameter], dtype=h5py.string_dtype())


def write(name: str, folder: Path, seed: int = 0) -> None:
    """Training and test trajectories of one family."""
    maker, parameter, trained, tested = FAMILIES[name]
    generator = np.random.default_rng(seed)
    write_family(folder / f"{name}_train.h5", maker, parameter, trained, EACH, generator)
    write_family(folder / f"{name}_test.h5", maker, parameter, tested, TESTED, generator, first=100)
