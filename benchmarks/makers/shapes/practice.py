"""Data as users would bring them, made before any mechanism saw them: a reaction on a blood cell, a plume in the wind,
a bracket that vibrates, planetary waves, scroll waves, an oscillating reaction in a dish, a heat exchanger, salt
fingers, long water waves.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import skfem
from scipy.fft import dctn, idctn
from scipy.sparse.linalg import eigsh
from skfem.helpers import ddot, dot, sym_grad, trace

from benchmarks.makers.base import FRAMES, Fields, bumps_of, problem, stepped
from benchmarks.makers.elements import circle, icosphere, polygon, quadratic, reacting, surface_elements
from benchmarks.makers.shapes.spheres import GEOMETRY, Sphere
from benchmarks.makers.spectral import etd, runge_kutta

TRAIN, TEST = 32, 10


def _cell(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and triangles of a biconcave closed surface, a refined icosahedron that is pressed flat."""
    x, cells = icosphere(level)
    flat = 0.25 + 0.45 * (x[:, 0] ** 2 + x[:, 1] ** 2)
    return x * np.stack([np.ones(len(x)), np.ones(len(x)), flat], 1), cells


@problem(TRAIN, TEST)
def blood_cell(generator: np.random.Generator, count: int) -> Fields:
    """u_t = 4e-4 lap u - u v^2 + .037 (1 - u), v_t = 2e-4 lap v + u v^2 - .097 v (Gray and Scott) on a biconcave closed
    surface: linear elements, read at a quarter of the nodes."""
    x, cells = _cell(5)
    stiffness, masses = surface_elements(x, cells)
    seen, triangles = _cell(4)

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([-u * v * v + 0.037 * (1 - u), u * v * v - 0.097 * v])

    f = np.stack([1 / (1 + np.exp(-2.5 * bumps_of(generator, x, 1.0))) for _ in range(count)], 1)
    w = np.stack([1 - 0.6 * f, 0.3 * f])
    u = reacting(w, reaction, stiffness, masses, (4e-4, 2e-4), 0.5, 24)[:, :, : len(seen)]
    return np.arange(FRAMES) * 12.0, seen, u.transpose(3, 0, 2, 1), {"triangles": triangles}


@problem(TRAIN, TEST)
def plume(generator: np.random.Generator, count: int) -> Fields:
    """c_t = -6 y (1 - y) c_x + .008 lap c - .25 c in a layer of height 1 that is periodic along x over 2, without flux
    at its walls, 5 % noise on training values; no channel holds the wind: Fourier along x, 256 cells along y, exact."""
    n, m, gap = 32, 256, 0.1
    h, y = 1 / m, (np.arange(m) + 0.5) / m
    second = np.diag(np.full(m - 1, 1.0), 1) + np.diag(np.full(m - 1, 1.0), -1) - 2 * np.eye(m)
    second[0, 0] = second[-1, -1] = -1
    k = np.pi * np.arange(n // 2 + 1)
    steps = [scipy.linalg.expm(gap * (0.008 * (second / h**2 - a**2 * np.eye(m)) - np.diag(1j * a * 6 * y * (1 - y))
                                      - 0.25 * np.eye(m))) for a in k]
    x = np.stack(np.meshgrid(np.arange(n) / n * 2, y, indexing="ij"), -1)
    start = []
    for _ in range(count):
        at, wide = generator.uniform([0, 0.1], [2, 0.9], (4, 2)), generator.uniform(0.12, 0.3, 4)
        away = [np.sin(np.pi / 2 * (x[..., 0] - a)) ** 2 * 4 / np.pi**2 + (x[..., 1] - b) ** 2 for a, b in at]
        start.append(np.sum([generator.uniform(0.5, 1.5) * np.exp(-d / (2 * s * s))
                             for d, s in zip(away, wide, strict=True)], 0))
    w = [np.fft.rfft(np.stack(start), axis=1)]
    for _ in range(FRAMES - 1):
        w.append(np.stack([w[-1][:, i] @ step.T for i, step in enumerate(steps)], 1))
    u = np.fft.irfft(np.stack(w, 1), n, 2).reshape(count, FRAMES, n, 16, 16).mean(4).reshape(count, FRAMES, -1, 1)
    centres = np.stack(np.meshgrid(np.arange(n) / n * 2, (np.arange(16) + 0.5) / 16, indexing="ij"), -1)
    u[:TRAIN] += 0.05 * u[:TRAIN].std() * generator.standard_normal(u[:TRAIN].shape)
    return np.arange(FRAMES) * gap, centres.reshape(-1, 2), u, {"channels": ["c"]}


@problem(TRAIN, TEST)
def bracket(generator: np.random.Generator, count: int) -> Fields:
    """q_tt = div(s) - .1 q_t, s = e + .5 tr(e) I, e = sym grad q, of an angle bracket with two holes that is bolted at
    its upper end and free elsewhere: displacements and velocities, 120 modes of quadratic elements."""
    from skfem import BilinearForm, ElementVector

    mesh = quadratic([polygon([(0, 0), (1.6, 0), (1.6, 0.5), (0.5, 0.5), (0.5, 1.6), (0, 1.6)], 0.06),
                       circle((0.25, 1.1), 0.12, 0.06), circle((1.1, 0.25), 0.12, 0.06)], 0.06)[0].mesh
    basis = skfem.Basis(mesh, ElementVector(skfem.ElementTriP2()))

    @BilinearForm
    def stiff(u: skfem.DiscreteField, v: skfem.DiscreteField, _: skfem.DiscreteField) -> np.ndarray:
        e = sym_grad(u)
        return ddot(e, sym_grad(v)) + 0.5 * trace(e) * trace(sym_grad(v))

    @BilinearForm
    def heavy(u: skfem.DiscreteField, v: skfem.DiscreteField, _: skfem.DiscreteField) -> np.ndarray:
        return dot(u, v)

    held = basis.get_dofs(lambda x: np.isclose(x[1], 1.6)).flatten()
    free = np.setdiff1d(np.arange(basis.N), held)
    stiffness, masses = (form.assemble(basis).tocsc()[free][:, free] for form in (stiff, heavy))
    values, modes = eigsh(stiffness, 120, masses, sigma=0, v0=np.ones(len(free)))  # the same signs each time
    full = np.zeros((basis.N, 120))
    full[free] = modes
    at = full[basis.nodal_dofs]  # (2, N, 120)
    t, spread = np.arange(FRAMES) * 0.35, np.exp(-np.arange(120) / 12)
    turn = np.sqrt(values - 0.05**2)
    size, phase = spread / turn * generator.standard_normal((count, 120)), generator.uniform(0, 2 * np.pi, (count, 120))
    wave = size[:, None] * np.exp(-0.05 * t[:, None] + 1j * (turn * t[:, None] + phase[:, None]))
    q, v = (np.einsum("cnk,stk->stnc", at, part) for part in (wave.real, (wave * (1j * turn - 0.05)).real))
    return t, mesh.p.T, np.concatenate([q, v], -1), {"triangles": mesh.t.T, "channels": ["qx", "qy", "vx", "vy"]}


@problem(TRAIN, TEST)
def rossby(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -J(p, w + 6 sin(latitude)) + .003 lap w, w = lap p: vorticity of the air of a sphere that turns, on 48 by
    24 meridians and parallels, pseudo-spectral."""
    sphere, gap, steps = Sphere(30), 0.25, 12
    turning = 6 * np.cos(sphere.theta)[:, None]

    def rate(a: np.ndarray) -> np.ndarray:
        east, north = sphere.gradient(sphere.inverse(a))
        total = sphere.grid(a) + turning
        return np.asarray(-sphere.divergence(-north * total, east * total) - 0.003 * sphere.eigenvalues * a)

    frames = [1.2 * sphere.random(generator, count, 6)]
    for _ in range(FRAMES - 1):
        frames.append(runge_kutta(rate, frames[-1], gap / steps, steps))
    theta, turn = np.meshgrid((np.arange(24) + 0.5) / 24 * np.pi, np.arange(48) / 24 * np.pi, indexing="ij")
    x = np.stack([np.sin(theta) * np.cos(turn), np.sin(theta) * np.sin(turn), np.cos(theta)], -1).reshape(-1, 3)
    return (np.arange(FRAMES) * gap, x, sphere.at(np.stack(frames, 1), x)[..., None], {**GEOMETRY, "channels": ["w"]})


@problem(TRAIN, TEST)
def scrolls(generator: np.random.Generator, count: int) -> Fields:
    """A_t = A + (1 + .5 i) lap A - (1 - .7 i) |A|^2 A (Ginzburg and Landau) in a room of 10 x 8 x 5 without flux: real
    and imaginary part at 20 x 16 x 10 centres of cells, cosines of those."""
    shape, sides, gap, steps = (20, 16, 10), np.array([10.0, 8.0, 5.0]), 0.4, 16
    k = np.meshgrid(*[np.pi * np.arange(n) / a for n, a in zip(shape, sides, strict=True)], indexing="ij")
    k2, fine = sum(part**2 for part in k), (1, 30, 24, 15)
    x = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * a / n for n, a in zip(shape, sides, strict=True)],
                             indexing="ij"), -1).reshape(-1, 3)

    def rate(w: np.ndarray) -> np.ndarray:  # products on half as many points again along each axis, without aliasing
        padded = np.zeros((len(w), *fine[1:]), complex)
        padded[:, :20, :16, :10] = w
        a = idctn(padded.real, axes=(1, 2, 3), norm="forward") + 1j * idctn(padded.imag, axes=(1, 2, 3), norm="forward")
        b = a - (1 - 0.7j) * abs(a) ** 2 * a
        return (dctn(b.real, axes=(1, 2, 3), norm="forward")
                + 1j * dctn(b.imag, axes=(1, 2, 3), norm="forward"))[:, :20, :16, :10]

    a = np.stack([bumps_of(generator, x, 0.7) + 1j * bumps_of(generator, x, 0.7) for _ in range(count)])
    a = a.reshape(-1, *shape)
    w = dctn(a.real, axes=(1, 2, 3), norm="forward") + 1j * dctn(a.imag, axes=(1, 2, 3), norm="forward")
    frames = [w]
    for _ in range(FRAMES - 1):
        frames.append(etd(-(1 + 0.5j) * k2, rate, frames[-1], gap / steps, steps))
    w = np.stack(frames, 1)
    u = np.stack([idctn(part, axes=(2, 3, 4), norm="forward") for part in (w.real, w.imag)], -1)
    return np.arange(FRAMES) * gap, x, u.reshape(count, FRAMES, -1, 2), {}


@problem(TRAIN, TEST)
def dish(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .006 lap u + (u - u^2 - 1.4 v (u - .02) / (u + .02)) / .15, v_t = .004 lap v + u - v (Oregonator, Tyson and
    Fife 1980) without flux in a dish with two posts: quadratic elements, a quarter of the nodes, other ones in every
    trajectory."""
    basis, stiffness, masses, _ = quadratic([circle((0, 0), 1, 0.05), circle((0.4, 0.1), 0.16, 0.05),
                                              circle((-0.45, -0.2), 0.2, 0.05)], 0.05)
    x, gap, steps = basis.doflocs.T, 0.2, 40

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([(u - u**2 - 1.4 * v * (u - 0.02) / (u + 0.02)) / 0.15, u - v])

    w = np.stack([np.stack([0.05 + 0.7 / (1 + np.exp(-2 * bumps_of(generator, x, 1.0))),
                            0.05 + 0.3 / (1 + np.exp(-2 * bumps_of(generator, x, 1.0)))]) for _ in range(count)], -1)
    nodes = basis.nodal_dofs[0]
    u = reacting(w, reaction, stiffness, masses, (0.006, 0.004), gap / steps, steps)[:, :, nodes].transpose(3, 0, 2, 1)
    at = np.stack([generator.choice(len(nodes), len(nodes) // 4, False) for _ in range(count)])
    return (np.arange(FRAMES) * gap, x[nodes][at], np.stack([part[:, own] for part, own in zip(u, at, strict=True)]),
            {"channels": ["acid", "catalyst"]})


@problem(TRAIN, TEST)
def exchanger(generator: np.random.Generator, count: int) -> Fields:
    """a_t = -a_x + .005 a_xx - k (a - b), b_t = .7 b_x + .005 b_xx + k (a - b), k = .8 + .3 (a + b), two streams that
    exchange heat along (0, 1); a enters at the left at .9 to 1.3, b at the right at 0 to .3, its own in every
    trajectory: differences of second order, 400 cells, at every fifth, at times that are unequal."""
    n, h = 400, 1 / 400
    x = (np.arange(n) + 0.5) * h
    hot, cold = generator.uniform(0.9, 1.3, count), generator.uniform(0, 0.3, count)

    def one(u: np.ndarray, speed: float, inflow: np.ndarray) -> np.ndarray:  # enters at the first cell
        w = np.concatenate([2 * inflow[None] - u[:1], u, u[-1:]])
        face = (w[1:] + w[:-1]) / 2
        return np.asarray(-speed * np.diff(face, axis=0) / h + 0.005 * np.diff(w, 2, 0) / h**2)

    def rate(w: np.ndarray) -> np.ndarray:
        a, b = w
        gain = (0.8 + 0.3 * (a + b)) * (a - b)
        return np.stack([one(a, 1.0, hot) - gain, one(b[::-1], 0.7, cold)[::-1] + gain])

    near = 1 - np.exp(-6 * x[:, None])
    w = np.stack([hot + near * (_lines(generator, x, count) - hot),
                  cold + near[::-1] * (_lines(generator, x, count) - cold)])
    gaps = np.resize([0.04, 0.07, 0.05, 0.09, 0.06], FRAMES - 1)
    frames = [w]
    for gap in gaps:
        frames.append(runge_kutta(rate, frames[-1], 0.00025, round(gap / 0.00025)))
    u = np.stack(frames)[:, :, 2::5].transpose(3, 0, 2, 1)
    return np.concatenate([[0], np.cumsum(gaps)]), x[2::5, None], u, {"channels": ["hot", "cold"]}


def _lines(generator: np.random.Generator, x: np.ndarray, count: int) -> np.ndarray:
    """Random smooth profiles (N, count) about .6 on (0, 1)."""
    k = np.arange(6)[:, None]
    return 0.6 + 0.3 * np.cos(np.pi * k * x).T @ (generator.standard_normal((6, count)) / (1 + k))


@problem(TRAIN, TEST)
def salt_fingers(generator: np.random.Generator, count: int) -> Fields:
    """w_t = -J(p, w) + .02 lap w + 4 (a_x - s_x), a_t = -J(p, a) - p_x + .02 lap a, s_t = -J(p, s) - .9 p_x + .008 lap
    s, w = lap p: heat a and salt s about their gradients, periodic over 4 x 2: Fourier, 96 x 48, at every other."""
    n, m, gap, steps = 96, 48, 0.12, 12
    kx, ky = 0.5j * np.pi * np.fft.fftfreq(n, 1 / n)[:, None], 1j * np.pi * np.arange(m // 2 + 1)[None]
    k2 = -(kx**2 + ky**2).real
    keep = (abs(kx) < 0.5 * np.pi * n / 3) & (abs(ky) < np.pi * m / 3)
    inverse = -1 / np.where(k2 > 0, k2, np.inf)

    def real(f: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(f, (n, m))

    def rate(f: np.ndarray) -> np.ndarray:  # (S, 3, n, m)
        p = (inverse * f[:, 0])[:, None]
        moved = keep * np.fft.rfft2(real(ky * p) * real(kx * f) - real(kx * p) * real(ky * f))
        own = np.concatenate([4 * kx * (f[:, 1:2] - f[:, 2:]), -kx * p, -0.9 * kx * p], 1)
        return np.asarray(moved + own)

    f = keep * np.fft.rfft2(generator.standard_normal((count, 3, n, m))) * np.exp(-k2 / 30)
    f[..., 0, 0] = 0
    f *= np.array([0.8, 0.25, 0.25])[:, None, None] / real(f).std((2, 3), keepdims=True)
    frames, fade = [f], np.array([0.02, 0.02, 0.008])[:, None, None]
    for _ in range(FRAMES - 1):
        frames.append(etd(-fade * k2, rate, frames[-1], gap / steps, steps))
    u = real(np.stack(frames, 1))[..., ::2, ::2].reshape(count, FRAMES, 3, -1).swapaxes(2, 3)
    x = np.stack(np.meshgrid(np.arange(0, n, 2) * 4 / n, np.arange(0, m, 2) * 2 / m, indexing="ij"), -1).reshape(-1, 2)
    return np.arange(FRAMES) * gap, x, u, {"channels": ["vorticity", "heat", "salt"], "period": [4.0, 2.0]}


@problem(TRAIN, TEST)
def water_waves(generator: np.random.Generator, count: int) -> Fields:
    """u_tt = u_xx - u_xxxx - 3 (u^2)_xx on a circle of length 40 (Boussinesq's good equation); the elevation u alone is
    seen, its velocity is not: Fourier, 256 points, at every other."""
    n, gap, steps = 256, 0.4, 60
    k = 2j * np.pi / 40 * np.arange(n // 2 + 1)
    x, keep = np.arange(n) * 40 / n, np.arange(n // 2 + 1) < n // 3

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        square = np.fft.rfft(np.fft.irfft(u, n) ** 2)
        return np.stack([v, keep * (k**2 * u - k**4 * u - 3 * k**2 * square)])

    def field(size: float) -> np.ndarray:
        f = np.fft.rfft(generator.standard_normal((count, n))) * np.exp(k.real**2 + (k**2).real / 1.0)
        f[:, 0] = 0
        return np.asarray(keep * f * size / np.fft.irfft(f, n).std(1, keepdims=True))

    u = np.fft.irfft(stepped(rate, np.stack([field(0.05), field(0.03)]), gap, steps)[:, 0], n)
    return np.arange(FRAMES) * gap, x[::2, None], u[..., ::2].swapaxes(0, 1)[..., None], {"period": [40.0]}


@problem()
def iodide(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 lap u + 10 - u - 4 u v / (1 + u^2), v_t = .012 lap v + 1.6 (u - u v / (1 + u^2)) (Lengyel and Epstein
    1991) without flux in a cross with two holes: quadratic elements, a quarter of the nodes, other ones in every
    trajectory."""
    corners = [(0.6, 0.0), (1.4, 0.0), (1.4, 0.6), (2.0, 0.6), (2.0, 1.4), (1.4, 1.4), (1.4, 2.0), (0.6, 2.0),
               (0.6, 1.4), (0.0, 1.4), (0.0, 0.6), (0.6, 0.6)]
    basis, stiffness, masses, _ = quadratic([polygon(corners, 0.05), circle((0.9, 1.0), 0.15, 0.05),
                                              circle((1.5, 0.9), 0.12, 0.05)], 0.05)
    x, gap, steps = basis.doflocs.T, 0.25, 40

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        drain = u * v / (1 + u**2)
        return np.stack([10 - u - 4 * drain, 1.6 * (u - drain)])

    w = np.stack([np.stack([np.exp(bumps_of(generator, x, 0.5, 0.6)), 5 + bumps_of(generator, x, 1.5)])
                  for _ in range(count)], -1)
    nodes = basis.nodal_dofs[0]
    u = reacting(w, reaction, stiffness, masses, (0.01, 0.012), gap / steps, steps)[:, :, nodes].transpose(3, 0, 2, 1)
    at = np.stack([generator.choice(len(nodes), len(nodes) // 4, False) for _ in range(count)])
    return (np.arange(FRAMES) * gap, x[nodes][at], np.stack([part[:, own] for part, own in zip(u, at, strict=True)]),
            {"channels": ["iodide", "chlorite"]})
