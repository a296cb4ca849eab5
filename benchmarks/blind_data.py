"""Data that no mechanism of the engine was chosen on: waves, convection, phase separation, tracers, reactions.

python benchmarks/blind_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema;
NAME:CHANNEL (waves_disc:u, basin:h) writes one channel alone, of which single frames are no states.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
import skfem
from data_makers import FRAMES, Fields, bumps, folder_and_names, reacting, write_fields
from scipy.fft import dctn, idctn
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import splu
from shape_data import _circle, _mesh, _polygon
from skfem.models.poisson import laplace, mass
from sphere_data import GEOMETRY, Sphere, _runge_kutta, scattered

TRAIN, TEST = 24, 8


def _quadratic(curves: list[np.ndarray], h: float) -> tuple[skfem.Basis, sparse.csc_matrix, sparse.csc_matrix, dict]:
    """Quadratic elements on a mesh of side about h within curves; stiffness, mass, the mesh as attribute."""
    x, cells = _mesh(curves, h)
    basis = skfem.Basis(skfem.MeshTri(x.T, cells.T), skfem.ElementTriP2())
    return basis, laplace.assemble(basis).tocsc(), mass.assemble(basis).tocsc(), {"triangles": cells}


def _bumps(generator: np.random.Generator, x: np.ndarray, spread: float, mean: float = 0.0) -> np.ndarray:
    f = bumps(generator, (x - x.min(0)) / (x.max(0) - x.min(0)), 4)
    return np.asarray(mean + spread * (f - f.mean()) / f.std())


def brusselator_annulus(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .004 lap u + 1 - 3.2 u + u^2 v, v_t = .002 lap v + 2.2 u - u^2 v without flux between two circles that do
    not share a centre."""
    basis, stiffness, masses, cells = _quadratic([_circle((0, 0), 1, 0.07), _circle((0.15, 0), 0.35, 0.07)], 0.07)
    x, gap, steps = basis.doflocs.T, 0.4, 40

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([1 - 3.2 * u + u**2 * v, 2.2 * u - u**2 * v])

    w = np.stack([np.stack([_bumps(generator, x, 0.4, 1.2), _bumps(generator, x, 0.4, 2.2)])
                  for _ in range(count)], -1)
    frames = reacting(w, reaction, stiffness, masses, (0.004, 0.002), gap / steps, steps)
    nodes = basis.nodal_dofs[0]
    return np.arange(FRAMES) * gap, x[nodes], frames[:, :, nodes].transpose(3, 0, 2, 1), cells


def waves_disc(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = lap u - .4 v in a disc, held at 0 on the circle; at rest at first."""
    basis, stiffness, masses, cells = _quadratic([_circle((0, 0), 1, 0.07)], 0.07)
    x, gap, steps = basis.doflocs.T, 0.1, 40
    h, inner = gap / steps, basis.complement_dofs(basis.get_dofs())
    k, m = stiffness[inner][:, inner], masses[inner][:, inner]
    solver = splu(((1 + 0.2 * h) * m + h**2 / 4 * k).tocsc())
    u = np.stack([_bumps(generator, x, 1.0) * (1 - (x**2).sum(1)) for _ in range(count)], -1)[inner]
    v, frames = 0 * u, []
    for index in range(steps * (FRAMES - 1) + 1):
        if index % steps == 0:
            full = np.zeros((len(x), 2, count))
            full[inner] = np.stack([u, v], 1)
            frames.append(full[basis.nodal_dofs[0]])
        new = solver.solve((1 - 0.2 * h) * (m @ v) - h * (k @ (u + h / 4 * v)))
        u, v = u + h / 2 * (v + new), new
    return np.arange(FRAMES) * gap, x[basis.nodal_dofs[0]], np.stack(frames, 0).transpose(3, 0, 1, 2), cells


def tracer_channel(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -w . grad u + .01 lap u past a cylinder, w a steady potential flow; the inflow held at sin(pi y)^2, no flux
    elsewhere."""
    basis, stiffness, masses, cells = _quadratic([_polygon([(0, 0), (3, 0), (3, 1), (0, 1)], 0.07),
                                                  _circle((0.9, 0.45), 0.18, 0.07)], 0.07)
    x, gap, steps = basis.doflocs.T, 0.1, 40
    psi = x[:, 1].copy()
    outer = basis.get_dofs().flatten()
    round_hole = outer[np.hypot(*(x[outer] - [0.9, 0.45]).T) < 0.19]
    psi[round_hole] = 0.45
    psi = skfem.solve(*skfem.condense(stiffness, x=psi, D=outer))

    @skfem.BilinearForm
    def moved(u: skfem.DiscreteField, v: skfem.DiscreteField, w: skfem.DiscreteField) -> np.ndarray:
        slope = w["psi"].grad
        return (slope[1] * u.grad[0] - slope[0] * u.grad[1]) * v

    operator = (moved.assemble(basis, psi=basis.interpolate(psi)) + 0.01 * stiffness).tocsc()
    held = np.flatnonzero(x[:, 0] < 1e-9)
    free = np.setdiff1d(np.arange(len(x)), held)
    h, inflow = gap / steps, np.sin(np.pi * x[held, 1])[:, None] ** 2
    a, m = operator[free][:, free], masses[free][:, free]
    source, solver = operator[free][:, held] @ inflow, splu((m + h / 2 * a).tocsc())
    u = np.stack([_bumps(generator, x, 0.5, 0.5) for _ in range(count)], -1)
    blend = np.exp(-((x[:, :1] / 0.15) ** 2))
    u = ((1 - blend) * u + blend * np.sin(np.pi * x[:, 1:]) ** 2)[free]
    frames = []
    for index in range(steps * (FRAMES - 1) + 1):
        if index % steps == 0:
            full = np.zeros((len(x), count))
            full[free], full[held] = u, inflow
            frames.append(full[basis.nodal_dofs[0]])
        u = solver.solve(m @ u - h * (a @ u / 2 + source))
    return np.arange(FRAMES) * gap, x[basis.nodal_dofs[0]], np.stack(frames).transpose(2, 0, 1)[..., None], cells


def _etd(linear: np.ndarray, rate: Callable, w: np.ndarray, h: float, steps: int) -> np.ndarray:
    """Runge-Kutta 4 with an integrating factor."""
    half = np.exp(linear * h / 2)
    for _ in range(steps):
        a = rate(w)
        b = rate(half * (w + h / 2 * a))
        c = rate(half * w + h / 2 * b)
        w = half**2 * w + h / 6 * (half**2 * a + 2 * half * (b + c) + rate(half**2 * w + h * half * c))
    return w


def _grid(n: int, d: int, length: float = 1.0) -> np.ndarray:
    """Centres (n, ..., d) of cells of a box."""
    return np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n * length] * d, indexing="ij"), -1)


def cahn_hilliard(generator: np.random.Generator, count: int) -> Fields:
    """u_t = lap(u^3 - u - .0016 lap u) between walls of a unit box, cosines on 40 x 40 centres of cells."""
    n, gap, steps = 40, 0.002, 400
    x, k = _grid(n, 2), np.pi * np.arange(n)
    k2 = k[:, None] ** 2 + k**2
    linear = -0.0016 * k2**2 - 2 * k2  # the rest is lap(u^3 - 3 u)
    u = np.stack([0.4 * bumps(generator, x, 6) for _ in range(count)])
    frames, w = [u], dctn(u, axes=(1, 2))

    def rate(w: np.ndarray) -> np.ndarray:
        u = idctn(w, axes=(1, 2))
        return -k2 * dctn(u**3 - 3 * u, axes=(1, 2))

    for _ in range(FRAMES - 1):
        w = _etd(linear, rate, w, gap / steps, steps)
        frames.append(idctn(w, axes=(1, 2)))
    return np.arange(FRAMES) * gap, x.reshape(-1, 2), np.stack(frames, 1).reshape(count, FRAMES, -1, 1), {}


def schnakenberg_solid(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .005 lap u + .1 - u + u^2 v, v_t = .02 lap v + .9 - u^2 v between walls of a unit cube, cosines on 14^3."""
    n, gap, steps = 14, 0.3, 12
    x, k = _grid(n, 3), np.pi * np.arange(n)
    k2 = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    linear = -np.array([0.005, 0.02])[:, None, None, None] * k2
    u = np.stack([np.stack([1 + 0.35 * bumps(generator, x, 3), 0.9 + 0.3 * bumps(generator, x, 3)])
                  for _ in range(count)])
    axes = (2, 3, 4)
    frames, w = [u], dctn(u, axes=axes)

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = np.moveaxis(idctn(w, axes=axes), 1, 0)
        return dctn(np.stack([0.1 - u + u**2 * v, 0.9 - u**2 * v], 1), axes=axes)

    for _ in range(FRAMES - 1):
        w = _etd(linear, rate, w, gap / steps, steps)
        frames.append(idctn(w, axes=axes))
    u = np.stack(frames, 1).reshape(count, FRAMES, 2, -1)
    return np.arange(FRAMES) * gap, x.reshape(-1, 3), np.moveaxis(u, 2, 3), {}


def _mirrored(f: np.ndarray, signs: tuple[int, int]) -> np.ndarray:
    """Fields on a box and its mirror images, even (1) or odd (-1) in each axis, or periodic (0) and left alone."""
    for axis, sign in zip((-2, -1), signs, strict=True):
        f = np.concatenate([f, sign * np.flip(f, axis)], axis) if sign else f
    return f


def _waves(n: int, m: int, a: float, b: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wave numbers of rfft2 on n x m points of a torus a x b, and the mask against aliasing."""
    p, q = np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(m, 1 / m)
    return 2j * np.pi / a * p + 0 * q, 2j * np.pi / b * q + 0 * p, (np.abs(p) < n / 3) * (q < m / 3)


def basin(generator: np.random.Generator, count: int) -> Fields:
    """Shallow water in a walled unit basin: h_t = -div(h w), w_t = -w . grad w - grad h + .004 lap w; walls slip.
    Solved on 48 x 48 cells with mirrored images, read at 16 x 16 of their centres."""
    n, gap, steps = 48, 0.08, 24
    x, axes = _grid(n, 2), (-2, -1)
    kx, ky, mask = _waves(2 * n, 2 * n, 2.0, 2.0)
    linear = np.stack([0 * kx, 0.004 * (kx**2 + ky**2), 0.004 * (kx**2 + ky**2)]).real

    def back(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (2 * n, 2 * n))

    def rate(w: np.ndarray) -> np.ndarray:
        h, u, v = (back(w[:, c]) for c in range(3))
        hh, uu, vv = (w[:, c] for c in range(3))
        lifted = -kx * np.fft.rfft2(h * u, axes=axes) - ky * np.fft.rfft2(h * v, axes=axes)
        first = -np.fft.rfft2(u * back(kx * uu) + v * back(ky * uu), axes=axes) - kx * hh
        second = -np.fft.rfft2(u * back(kx * vv) + v * back(ky * vv), axes=axes) - ky * hh
        return mask * np.stack([lifted, first, second], 1)

    h = np.stack([1 + 0.12 * bumps(generator, x, 3) for _ in range(count)])
    start = np.stack([_mirrored(h, (1, 1)), 0 * _mirrored(h, (-1, 1)), 0 * _mirrored(h, (1, -1))], 1)
    # cells' centres lie half a cell from the mirror: images are periodic on 2 n points as they stand
    frames, w = [], mask * np.fft.rfft2(start, axes=axes)
    for _ in range(FRAMES):
        frames.append(back(w)[..., 1:n:3, 1:n:3])
        w = _etd(linear, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 3, -1), 2, 3)
    return np.arange(FRAMES) * gap, x[1::3, 1::3].reshape(-1, 2), u, {"channels": ["h", "u", "v"]}


def convection(generator: np.random.Generator, count: int) -> Fields:
    """Boussinesq flow between plates a unit apart that slip, periodic along them over 2: temperature held at 1 below
    and 0 above; w_t = -w . grad w - grad p + 40 T e_y + .05 lap w, T_t = -w . grad T + .05 lap T; 24 x 18 points."""
    n, m, gap, steps = 48, 36, 0.05, 40
    kx, ky, mask = _waves(n, 2 * m, 2.0, 2.0)
    k2 = (kx**2 + ky**2).real
    inverse = 1 / np.where(k2 < 0, k2, np.inf)
    x = np.stack(np.meshgrid(np.arange(n) / n * 2, (np.arange(m) + 0.5) / m, indexing="ij"), -1)

    def back(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (n, 2 * m))

    def rate(w: np.ndarray) -> np.ndarray:  # vorticity and T - 1 + y, both odd
        psi = inverse * w[:, 0]
        u, v = back(-ky * psi), back(kx * psi)
        turn = -np.fft.rfft2(u * back(kx * w[:, 0]) + v * back(ky * w[:, 0])) + 40 * kx * w[:, 1]
        heat = -np.fft.rfft2(u * back(kx * w[:, 1]) + v * (back(ky * w[:, 1]) - 1))
        return mask * np.stack([turn, heat], 1)

    start = []
    for _ in range(count):
        f = sum(generator.standard_normal() * np.sin(np.pi * q * x[..., 1]) * np.cos(np.pi * p * x[..., 0]
                + generator.uniform(0, 7)) / (1 + p + q) for p in range(4) for q in range(1, 4))
        start.append(np.stack([0 * f, 0.15 * f]))
    w = mask * np.fft.rfft2(_mirrored(np.stack(start), (0, -1)), axes=(-2, -1))
    w = _etd(0.05 * k2, rate, w, gap / steps, 4 * steps)
    frames = []
    for _ in range(FRAMES):
        psi = inverse * w[:, 0]
        frames.append(np.stack([1 - x[..., 1] + back(w[:, 1])[..., :m], back(-ky * psi)[..., :m],
                                back(kx * psi)[..., :m]], 1)[..., ::2, ::2])
        w = _etd(0.05 * k2, rate, w, gap / steps, steps)
    u = np.moveaxis(np.stack(frames, 1).reshape(count, FRAMES, 3, -1), 2, 3)
    return (np.arange(FRAMES) * gap, x[::2, ::2].reshape(-1, 2), u,
            {"period": [2.0, 0.0], "channels": ["T", "u", "v"]})


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


def rod(generator: np.random.Generator, count: int) -> Fields:
    """u_t = (a u_x)_x on (0, 1), a = .02 (1.2 + sin(5 x)), held at 1 on the left, no flux on the right: finite volumes,
    400 cells, read at 80."""
    n, gap = 400, 0.15
    x, faces = (np.arange(n) + 0.5) / n, np.arange(n + 1) / n
    a = 0.02 * (1.2 + np.sin(5 * faces)) * n**2
    a[0], a[-1] = 2 * a[0], 0
    matrix = sparse.diags([a[1:-1], -(a[:-1] + a[1:]), a[1:-1]], [-1, 0, 1]).toarray()
    rate, modes = np.linalg.eigh(matrix)
    steady = np.ones(n)
    start = np.stack([_bumps(generator, x[:, None], 0.5, 0.5) for _ in range(count)])
    start = 1 + (start - 1) * (1 - np.exp(-((x / 0.2) ** 2)))
    codes = (start - steady) @ modes
    t = np.arange(FRAMES) * gap
    u = steady + (codes[:, None] * np.exp(rate * t[:, None])) @ modes.T
    return t, x[2::5, None], u[..., 2::5, None], {}


def sine_gordon(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = u_xx - sin u between walls without flux on (0, 10): finite differences, 400 cells, read at 80."""
    n, length, t = 400, 10.0, np.arange(FRAMES) * 0.4
    h, x = length / n, (np.arange(n) + 0.5) * length / n

    def rate(time: float, w: np.ndarray) -> np.ndarray:
        u, v = w.reshape(2, n)
        p = np.pad(u, 1, mode="edge")
        return np.concatenate([v, (p[2:] - 2 * u + p[:-2]) / h**2 - np.sin(u)])

    starts = [np.concatenate([_bumps(generator, x[:, None], 1.5), _bumps(generator, x[:, None], 0.5)])
              for _ in range(count)]
    u = np.stack([solve_ivp(rate, (0, t[-1]), w, "DOP853", t, rtol=1e-8, atol=1e-8).y.T for w in starts])
    return t, x[2::5, None], np.moveaxis(u.reshape(count, FRAMES, 2, n), 2, 3)[:, :, 2::5], {}


def sphere_phases(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .015 lap u + u - u^3 + .2 on the sphere, at 900 scattered points."""
    sphere, gap, steps = Sphere(40), 0.25, 25
    a = 0.7 * sphere.random(generator, count, 6)

    def rate(a: np.ndarray) -> np.ndarray:
        u = sphere.grid(a)
        return sphere.coefficients(u - u**3 + 0.2) - 0.015 * sphere.eigenvalues * a

    frames = [a]
    for _ in range(FRAMES - 1):
        frames.append(_runge_kutta(rate, frames[-1], gap / steps, steps))
    x = scattered(900, 11)
    return np.arange(FRAMES) * gap, x, sphere.at(np.stack(frames, 1), x)[..., None], dict(GEOMETRY)


MAKERS = {maker.__name__: maker for maker in (
    brusselator_annulus, waves_disc, tracer_channel, cahn_hilliard, schnakenberg_solid, basin, convection, schrodinger,
    rod, sine_gordon, sphere_phases)}


def write(name: str, folder: Path, seed: int = 0) -> None:
    """Training and test trajectories of one problem, or of one channel of it."""
    problem, _, channel = name.partition(":")
    t, x, u, attributes = MAKERS[problem](np.random.default_rng(seed), TRAIN + TEST)
    if channel:
        u = u[..., [attributes.get("channels", list("uvw")).index(channel)]]
        attributes = {**attributes, "channels": [channel]}
    for part, rows in (("train", slice(TRAIN)), ("test", slice(TRAIN, None))):
        file = folder / f"{name.replace(':', '_')}_{part}.h5"
        write_fields(file, problem, (t, x, u[rows], attributes))


if __name__ == "__main__":
    target, problems = folder_and_names(sys.argv[1:], MAKERS)
    for problem in problems:
        write(problem, target)
