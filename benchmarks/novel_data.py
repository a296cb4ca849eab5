"""Novel data, made before any mechanism saw them: pendulums on a line of many speeds, gas in the wall of a bent pipe,
prey that flees between traps, a star whose latitudes turn apart, a flame's front, a fluid near its critical point,
stripes on a peanut, a cortex, an active mixture in a strip.

python benchmarks/novel_data.py FOLDER [NAME ...] writes NAME_train.h5 and NAME_test.h5 in the project's schema.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import scipy.linalg
import skfem
from blind_data import _bumps, _etd
from data_makers import FRAMES, Fields, stepped, surface_elements, write_problems
from scipy.spatial import ConvexHull
from shape_data import _circle, _elements, _mesh, _polygon
from skfem.models.poisson import laplace, mass
from sphere_data import GEOMETRY, Sphere, _runge_kutta, scattered

TRAIN, TEST, FEW = 24, 8, 8


def _noisy(generator: np.random.Generator, u: np.ndarray, share: float) -> np.ndarray:
    """Values (S, T, N, C) with white noise of this share of their deviation on those of training."""
    u = u.copy()
    u[:TRAIN] += share * u[:TRAIN].std((0, 1, 2)) * generator.standard_normal(u[:TRAIN].shape)
    return u


def _families(count: int, trained: list[float], tested: list[float]) -> np.ndarray:
    """A parameter for every trajectory, those of training first."""
    return np.concatenate([np.resize(trained, TRAIN), np.resize(tested, count - TRAIN)])


def junction(generator: np.random.Generator, count: int) -> Fields:
    """u_t = v, v_t = (a u_x)_x - sin u - .1 v, a = 1 + .5 sin(2 pi x / 10) + .2 cos(6 pi x / 10), between walls of
    (0, 10) without flux; 5 % noise on training values: differences, 400 cells, at every fifth."""
    n, gap, steps = 400, 0.3, 30
    h, x = 10 / n, (np.arange(n) + 0.5) * 10 / n
    face = np.arange(1, n) * h
    a = (1 + 0.5 * np.sin(0.2 * np.pi * face) + 0.2 * np.cos(0.6 * np.pi * face))[:, None]

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([v, np.diff(np.pad(a * np.diff(u, axis=0) / h, ((1, 1), (0, 0))), axis=0) / h
                         - np.sin(u) - 0.1 * v])

    def field(size: float) -> np.ndarray:
        k = np.arange(8)
        return size * np.cos(np.pi / 10 * k * x[:, None]) @ (generator.standard_normal((8, count)) / (1 + k[:, None]))

    u = stepped(rate, np.stack([field(1.5), field(0.7)]), gap, steps)[:, :, 2::5]
    return np.arange(FRAMES) * gap, x[2::5, None], _noisy(generator, u.transpose(3, 0, 2, 1), 0.05), {}


def pipe_wall(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .04 lap(u^2) - .2 u (gas in a porous solid) in three eighths of the wall of a pipe, held at 1 at one cut,
    without flux elsewhere: linear elements on tetrahedra, lumped, read at half of the sides."""
    bent = skfem.MeshTet.init_tensor(np.linspace(0.5, 1, 6), np.linspace(0, 0.75 * np.pi, 13), np.linspace(0, 0.9, 7))
    r, turn, z = bent.p
    coarse = skfem.MeshTet(np.stack([r * np.cos(turn), r * np.sin(turn), z]), bent.t)
    mesh, seen = coarse.refined(), coarse.p.shape[1]
    basis = skfem.Basis(mesh, skfem.ElementTetP1())
    stiffness, x = laplace.assemble(basis).tocsr(), mesh.p.T
    lumped = np.asarray(mass.assemble(basis).sum(1))
    free = (np.abs(x[:, 1]) > 1e-9)[:, None]

    def rate(u: np.ndarray) -> np.ndarray:
        return free * (-0.04 * (stiffness @ u**2) / lumped - 0.2 * u)

    start = np.stack([np.exp(0.6 * _bumps(generator, x, 1.0)) for _ in range(count)], 1) * 0.5
    depth = 1 - np.exp(-3 * np.abs(x[:, 1:2]))
    u = stepped(rate, 1 - depth + depth * start, 0.12, 50)[:, :seen]
    return np.arange(FRAMES) * 0.12, x[:seen], u.transpose(2, 0, 1)[..., None], {"tetrahedra": coarse.t.T}


def traps(generator: np.random.Generator, count: int) -> Fields:
    """u_t = lap(.008 u + .02 u v) + u (1 - u) - u v / (u + .3), v_t = .015 lap v + .8 u v / (u + .3) - m v, prey that
    flees its predators in a square with four holes at whose rims both die, mortality m a parameter of every trajectory:
    linear elements, lumped, at a quarter of the nodes of a mesh half as fine, other ones in every trajectory."""
    m = _families(count, [0.2, 0.26, 0.32, 0.38], [0.23, 0.35, 0.42])
    holes = [_circle(at, 0.17, 0.045) for at in ((0.5, 0.55), (1.45, 0.4), (0.65, 1.5), (1.5, 1.35))]
    x, cells = _mesh([_polygon([(0, 0), (2, 0), (2, 2), (0, 2)], 0.045), *holes], 0.045)
    stiffness, lumped = _elements(x, cells)
    lumped, rim = lumped[:, None], np.isclose(np.min([np.hypot(*(x - hole.mean(0)).T) for hole in holes], 0), 0.17)
    free = ~rim[:, None]

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        eaten = u * v / (u + 0.3)
        return free * np.stack([-(stiffness @ (0.008 * u + 0.02 * u * v)) / lumped + u * (1 - u) - eaten,
                                -0.015 * (stiffness @ v) / lumped + 0.8 * eaten - m * v])

    away = 1 - np.exp(-8 * (np.min([np.hypot(*(x - hole.mean(0)).T) for hole in holes], 0) - 0.17))[:, None]
    w = np.stack([away * size * np.exp(0.5 * np.stack([_bumps(generator, x, 1.0) for _ in range(count)], 1))
                  for size in (0.5, 0.3)])
    u = stepped(rate, w, 0.6, 120).transpose(3, 0, 2, 1)
    nodes = np.concatenate([np.flatnonzero(rim)[::2], generator.choice(np.flatnonzero(~rim), len(x) // 4, False)])
    at = np.stack([generator.choice(nodes, len(nodes) // 4, False) for _ in range(count)])
    return (np.arange(FRAMES) * 0.6, x[at], np.stack([part[:, own] for part, own in zip(u, at, strict=True)]),
            {"channels": ["prey", "predator"], "parameters": m[:, None]})


def turning_star(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -s (1 - .5 sin(latitude)^2) du/dlongitude + .004 lap u + u - u^3 on the unit sphere, s a parameter of every
    trajectory, at 700 scattered points: pseudo-spectral."""
    s = _families(count, [0.4, 0.7, 1.0, 1.3], [0.55, 1.15, 1.5])[:, None, None]
    sphere, gap, steps = Sphere(30), 0.25, 12
    turn = -s * (1 - 0.5 * np.cos(sphere.theta)[:, None] ** 2)

    def rate(a: np.ndarray) -> np.ndarray:
        u = sphere.grid(a)
        return np.asarray(sphere.coefficients(turn * sphere.grid(sphere.order * a) + u - u**3)
                          - 0.004 * sphere.eigenvalues * a)

    x = scattered(700)
    frames = stepped(rate, 0.6 * sphere.random(generator, count, 6), gap, steps)
    return (np.arange(FRAMES) * gap, x, sphere.at(frames.swapaxes(0, 1), x)[..., None],
            {**GEOMETRY, "parameters": s[:, 0]})


def front(generator: np.random.Generator, count: int) -> Fields:
    """h_t = s ((1 + |grad h|^2)^.5 - 1) + .02 lap h on a torus of length 2 pi, a front that burns at a speed of its own
    in every trajectory, which no file tells; 5 % noise on training values: Fourier, at 32 x 32 of 64 x 64 points."""
    n, gap, steps = 64, 0.12, 12
    s = _families(count, [0.6, 0.9, 1.2, 1.5], [0.75, 1.35, 1.8])[:, None, None]
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
        frames.append(_etd(-0.02 * k2, rate, frames[-1], gap / steps, steps))
    u = np.fft.irfft2(np.stack(frames, 1), (n, n))[:, :, ::2, ::2].reshape(count, FRAMES, -1, 1)
    x = np.stack(np.meshgrid(*[np.arange(0, n, 2) / n * 2 * np.pi] * 2, indexing="ij"), -1).reshape(-1, 2)
    return np.arange(FRAMES) * gap, x, _noisy(generator, u, 0.05), {"channels": ["h"], "period": [2 * np.pi] * 2}


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
        frames.append(_runge_kutta(rate, frames[-1], step, round(gap / step)))
    w = np.stack(frames)
    both = np.stack([w[:, :n], (w[:, n:-1] + w[:, n + 1:]) / 2], -1)[:, 1::4]
    return t, x[1::4, None], both.transpose(2, 0, 1, 3), {"channels": ["density", "velocity"]}


def _peanut(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and triangles of a closed surface with a waist, sides halved so many times."""
    golden = (1 + 5**0.5) / 2
    x = np.array([(a, b * golden, 0) for a in (-1, 1) for b in (-1, 1)])
    x = np.concatenate([np.roll(x, i, 1) for i in range(3)]) / np.hypot(1, golden)
    cells = ConvexHull(x).simplices
    for _ in range(level):
        pairs = np.sort(cells[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
        pairs, number = np.unique(pairs, axis=0, return_inverse=True)
        (a, b, c), (p, q, r) = cells.T, (number.reshape(-1, 3) + len(x)).T
        middle = x[pairs].mean(1)
        x = np.concatenate([x, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
        cells = np.concatenate([np.stack(part, 1) for part in ((a, p, r), (p, b, q), (r, q, c), (p, q, r))])
    return x * 6 * (0.85 + 0.45 * x[:, :1] ** 2 + 0.12 * x[:, 1:2] * x[:, 2:]), cells


def peanut(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .3 u - (1 + lap)^2 u + .8 u^2 - u^3 (Swift, Hohenberg) on a closed surface with a waist: linear elements,
    lumped, in 600 of their eigenfunctions, read at half of the sides."""
    x, cells = _peanut(4)
    stiffness, masses = surface_elements(x, cells)
    lumped = np.asarray(masses.sum(1))
    values, modes = scipy.linalg.eigh((stiffness.toarray() / np.sqrt(lumped)) / np.sqrt(lumped.T),
                                      subset_by_index=[0, 599])
    modes, gap, steps = modes / np.sqrt(lumped), 0.6, 16
    back, k = (modes * lumped).T, values[:, None]

    def rate(z: np.ndarray) -> np.ndarray:
        u = modes @ z
        return back @ (0.8 * u**2 - u**3)

    z = generator.standard_normal((600, count)) * np.exp(-(((k - 0.8) / 0.8) ** 2))
    frames = [z * 0.6 / (modes @ z).std(0)]
    for _ in range(FRAMES - 1):
        frames.append(_etd(0.3 - (1 - k) ** 2, rate, frames[-1], gap / steps, steps))
    seen, triangles = _peanut(3)
    u = (modes @ np.stack(frames))[:, : len(seen)]
    return np.arange(FRAMES) * gap, seen, u.transpose(2, 0, 1)[..., None], {"triangles": triangles}


def cortex(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u + K s(u) - v, v_t = .3 u - .25 v, K s = integral of 2.4 exp(-r^2 / .04) - .9 exp(-r^2 / .16), each of
    unit mass, times s = 1 / (1 + exp(-8 (u - .3))), over a star-shaped sheet of nerves (Amari; Pinto and Ermentrout),
    at 450 scattered places: quadrature by the masses of linear elements."""
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    edge = (1 + 0.25 * np.cos(5 * turn))[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    x, cells = _mesh([edge], 0.04)
    masses, far = _elements(x, cells)[1], np.square(x[:, None] - x).sum(-1)
    kernel = (2.4 * np.exp(-far / 0.04) / (0.04 * np.pi) - 0.9 * np.exp(-far / 0.16) / (0.16 * np.pi)) * masses

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([-u + kernel @ (1 / (1 + np.exp(-8 * (u - 0.3)))) - v, 0.3 * u - 0.25 * v])

    w = np.stack([np.stack([_bumps(generator, x, size, mean) for _ in range(count)], 1)
                  for size, mean in ((0.4, 0.3), (0.15, 0.2))])
    seen = generator.choice(len(x), 450, False)
    u = stepped(rate, w, 0.4, 8)[:, :, seen]
    return np.arange(FRAMES) * 0.4, x[seen], u.transpose(3, 0, 2, 1), {"channels": ["activity", "recovery"]}


def active_strip(generator: np.random.Generator, count: int) -> Fields:
    """f_t = lap(f^3 - f - .004 lap f + .006 |grad f|^2) - .008 div((lap f) grad f) in a strip that is periodic along x
    over 2, between walls 1 apart without flux (active matter, Tjhung, Nardini and Cates 2018), eight trajectories:
    images on 64 x 64, at 32 x 16 centres of cells."""
    n, gap, steps = 64, 0.004, 80
    k = np.pi * np.fft.fftfreq(n, 1 / n)
    kx, ky = 1j * k[:, None], 1j * np.pi * np.arange(n // 2 + 1)[None]
    k2, most = -(kx**2 + ky**2).real, np.pi * n / 3
    keep = (abs(kx) < most) & (abs(ky) < most)

    def real(w: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(w, (n, n))

    def rate(w: np.ndarray) -> np.ndarray:
        f, dx, dy, lap = (real(part * w) for part in (1, kx, ky, -k2))
        inner = np.fft.rfft2(f**3 - 3 * f + 0.006 * (dx**2 + dy**2))
        return keep * (-k2 * inner - 0.008 * (kx * np.fft.rfft2(lap * dx) + ky * np.fft.rfft2(lap * dy)))

    g = (np.arange(n) + 0.5) / n * 2
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1)
    f = np.stack([_strip_field(generator, x) for _ in range(count)])
    frames = [keep * np.fft.rfft2(f)]
    for _ in range(FRAMES - 1):
        frames.append(_etd(-0.004 * k2**2 - 2 * k2, rate, frames[-1], gap / steps, steps))
    u = real(np.stack(frames, 1))[:, :, ::2, : n // 2 : 2].reshape(count, FRAMES, -1, 1)
    return np.arange(FRAMES) * gap, x[::2, : n // 2 : 2].reshape(-1, 2), u, {"channels": ["f"]}


def _strip_field(generator: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """A random field, periodic over 2 along both axes and even about y = 0 and 1."""
    k = np.stack(np.meshgrid(np.arange(4), np.arange(4), indexing="ij"), -1).reshape(-1, 2)[1:]
    parts = [generator.standard_normal() / (1 + np.square(a).sum() / 4) * np.cos(
        np.pi * a[0] * x[..., 0] + generator.uniform(0, 2 * np.pi)) * np.cos(np.pi * a[1] * x[..., 1]) for a in k]
    f = np.sum(parts, 0)
    return np.asarray(0.4 * f / f.std() + generator.uniform(-0.3, 0.3))


MAKERS: dict[str, Callable[..., Fields]] = {
    maker.__name__: maker for maker in (junction, pipe_wall, traps, turning_star, front, critical_fluid, peanut, cortex,
                                        active_strip)}

if __name__ == "__main__":
    write_problems(sys.argv[1:], MAKERS, TRAIN, TEST, {"active_strip": (FEW, TEST)})
