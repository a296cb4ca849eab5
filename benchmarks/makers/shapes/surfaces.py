"""Reactions on closed and open surfaces in space."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.spatial
import skfem
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import splu
from scipy.spatial import ConvexHull
from skfem.models.poisson import laplace, mass

from benchmarks.makers.base import FRAMES, Fields, bumps, bumps_of, problem, solve, stepped
from benchmarks.makers.elements import circle, icosphere, mesh, reacting, refined, surface_elements
from benchmarks.makers.spectral import etd


@problem(12, 4)
def torus_surface(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .06 lap u + u - u^3/3 - v + .5, v_t = .02 lap v + .08 (u + .7 - .8 v) on a torus of radii 1 and .4:
    differences in both angles, 80 x 40, read at every second point of a triangulated surface."""
    n, m = 80, 40
    p, q = np.meshgrid(np.arange(n) / n * 2 * np.pi, np.arange(m) / m * 2 * np.pi, indexing="ij")
    ring, dp, dq = 1 + 0.4 * np.cos(q), 2 * np.pi / n, 2 * np.pi / m
    x = np.stack([ring * np.cos(p), ring * np.sin(p), 0.4 * np.sin(q)], -1)
    between = 1 + 0.4 * np.cos(q + dq / 2)

    def lap(u: np.ndarray) -> np.ndarray:
        around = (np.roll(u, 1, -2) - 2 * u + np.roll(u, -1, -2)) / dp**2 / ring**2
        flux = between * (np.roll(u, -1, -1) - u) / dq
        return around + (flux - np.roll(flux, 1, -1)) / dq / ring / 0.4**2

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([0.06 * lap(u) + u - u**3 / 3 - v + 0.5, 0.02 * lap(v) + 0.08 * (u + 0.7 - 0.8 * v)])

    t = np.arange(FRAMES) * 0.5
    u = np.stack([solve(rate, np.stack([
        size * bumps(generator, x / 3 + 0.5, 2) + mean for size, mean in ((1.2, 0.0), (0.4, 0.5))]), t)
                  for _ in range(count)])[..., ::2, ::2]
    i, j = np.meshgrid(np.arange(n // 2), np.arange(m // 2), indexing="ij")
    a, b, c, d = ((i + e) % (n // 2) * (m // 2) + (j + f) % (m // 2) for e, f in ((0, 0), (1, 0), (1, 1), (0, 1)))
    cells = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return t, x[::2, ::2].reshape(-1, 3), np.moveaxis(u, 2, -1).reshape(count, FRAMES, -1, 2), {"triangles": cells}


def _wavy_torus(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n m, 3) and triangles of a torus whose tube is wider at two places."""
    p, q = np.meshgrid(np.arange(n) / n * 2 * np.pi, np.arange(m) / m * 2 * np.pi, indexing="ij")
    tube = 0.4 * (1 + 0.2 * np.cos(2 * p))
    ring = 1 + tube * np.cos(q)
    i, j = np.meshgrid(np.arange(n), np.arange(m), indexing="ij")
    a, b, c, d = ((i + e) % n * m + (j + f) % m for e, f in ((0, 0), (1, 0), (1, 1), (0, 1)))
    cells = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return np.stack([ring * np.cos(p), ring * np.sin(p), tube * np.sin(q)], -1).reshape(-1, 3), cells


@problem()
def taxis(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .01 lap u + u (1 - u) - u v, v_t = .02 lap v - div(.06 v grad u) + v (1.6 u - .7): predators that climb the
    gradient of their prey, on a torus that is no surface of revolution: linear elements, lumped, read at a quarter."""
    n, m, gap, steps = 80, 36, 0.5, 50
    x, cells = _wavy_torus(n, m)
    stiffness, masses = surface_elements(x, cells)
    lumped = np.asarray(masses.sum(1)).ravel()[:, None]
    stiffness = stiffness.tocsr()
    edges = np.stack([x[cells[:, (i + 2) % 3]] - x[cells[:, (i + 1) % 3]] for i in range(3)])
    area = np.linalg.norm(np.cross(edges[0], edges[1]), axis=1) / 2
    local = np.einsum("iec,jec->ije", edges, edges) / 4 / area  # of gradients of shape functions
    each = np.arange(len(cells))
    onto = [csr_matrix((np.ones(len(cells)), (cells[:, i], each)), (len(x), len(cells))) for i in range(3)]

    def drift(v: np.ndarray, u: np.ndarray) -> np.ndarray:
        mean = v[cells].mean(1)
        return sum(onto[i] @ (mean * sum(local[i, j][:, None] * u[cells[:, j]] for j in range(3))) for i in range(3))

    def rate(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([-0.01 * (stiffness @ u) / lumped + u * (1 - u) - u * v,
                         (-0.02 * (stiffness @ v) + 0.06 * drift(v, u)) / lumped + v * (1.6 * u - 0.7)])

    w = np.stack([[mean * np.exp(0.5 * bumps(generator, x / 3 + 0.5, 4)) for _ in range(count)] for mean in (0.5, 0.4)])
    frames = stepped(rate, w.swapaxes(1, 2), gap, steps).reshape(FRAMES, 2, n, m, count)[:, :, ::2, ::2]
    return (np.arange(FRAMES) * gap, x.reshape(n, m, 3)[::2, ::2].reshape(-1, 3),
            frames.reshape(FRAMES, 2, -1, count).transpose(3, 0, 2, 1),
            {"channels": ["prey", "predator"], "triangles": _wavy_torus(n // 2, m // 2)[1]})


@problem()
def vessel(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 lap u + u (1 - u) (u - .3) on a triangulated ellipsoid of axes 1, .7, .5: linear surface elements."""
    golden = (1 + 5**0.5) / 2
    x = np.array([(a, b * golden, 0) for a in (-1, 1) for b in (-1, 1)])
    x = np.concatenate([x, x[:, [2, 0, 1]], x[:, [1, 2, 0]]])
    cells = scipy.spatial.ConvexHull(x).simplices
    for _ in range(3):
        edges = np.sort(cells[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
        unique, back = np.unique(edges, axis=0, return_inverse=True)
        middle = back.reshape(-1, 3) + len(x)
        x = np.concatenate([x, x[unique].mean(1)])
        a, b, c = cells.T
        ab, bc, ca = middle.T
        cells = np.concatenate([np.stack(p, 1) for p in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    x = x / np.linalg.norm(x, axis=1, keepdims=True) * np.array([1, 0.7, 0.5])
    stiffness, masses = (matrix.toarray() for matrix in surface_elements(x, cells))
    values, modes = scipy.linalg.eigh(stiffness, masses)
    back, w = modes.T @ masses, np.stack([np.clip(bumps_of(generator, x, 0.35, 0.4), 0, 1) for _ in range(count)], -1)
    z, frames = back @ w, [w]
    for _ in range(FRAMES - 1):
        z = etd(-0.02 * values[:, None], lambda z: back @ ((u := modes @ z) * (1 - u) * (u - 0.3)), z, 0.02, 25)
        frames.append(modes @ z)
    return np.arange(FRAMES) * 0.5, x, np.stack(frames).transpose(2, 0, 1)[..., None], {"triangles": cells}


def _ellipsoid(levels: int, axes: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) and triangles of a refined icosahedron, stretched."""
    golden = (1 + 5**0.5) / 2
    x = np.array([p for a in (-1, 1) for b in (-golden, golden) for p in ((0, a, b), (a, b, 0), (b, 0, a))], float)
    for _ in range(levels):
        cells = ConvexHull(x / np.linalg.norm(x, axis=1, keepdims=True)).simplices
        x = np.concatenate([x, *((x[cells[:, i]] + x[cells[:, j]]) / 2 for i, j in ((0, 1), (1, 2), (2, 0)))])
        x = np.unique(np.round(x / np.linalg.norm(x, axis=1, keepdims=True), 10), axis=0)
    return x * np.array(axes), ConvexHull(x).simplices


@problem()
def heart(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 lap u + 8 u (u - .1) (1 - u) - u v, v_t = (.01 + .2 v / (u + .3)) (-v - 8 u (u - 1.1)) on an ellipsoid
    (Aliev and Panfilov 1996): linear surface elements at 642 nodes, Crank and Nicolson with explicit reactions."""
    x, cells = _ellipsoid(3, (1.0, 1.0, 1.6))
    stiffness, masses = surface_elements(x, cells)
    dt, every = 0.02, 25
    implicit, explicit = splu(masses + dt * 0.01 * stiffness), masses - dt * 0.01 * stiffness
    u, v = np.zeros((2, len(x), count))
    for s in range(count):
        for _ in range(generator.integers(1, 4)):
            u[:, s] = np.maximum(u[:, s], np.exp(-((x - x[generator.integers(len(x))]) ** 2).sum(1) / 0.12))
        ahead = generator.standard_normal(3)
        v[:, s] = 1.2 / (1 + np.exp(-6 * (x @ ahead / np.linalg.norm(ahead) - 0.2)))

    def reaction(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 8 * u * (u - 0.1) * (1 - u) - u * v, (0.01 + 0.2 * v / (u + 0.3)) * (-v - 8 * u * (u - 1.1))

    frames = []
    for step in range(every * (FRAMES - 1) + 1):
        if step % every == 0:
            frames.append(np.stack([u, v], -1))
        du, dv = reaction(u, v)
        du, dv = reaction(u + dt / 2 * du, v + dt / 2 * dv)
        u, v = implicit.solve(explicit @ u + masses @ (dt * du)), v + dt * dv
    return (np.arange(FRAMES) * every * dt, x, np.stack(frames).transpose(2, 0, 1, 3),
            {"channels": ["u", "v"], "triangles": cells})


@problem()
def dome(generator: np.random.Generator, count: int) -> Fields:
    """u_t = .02 lap u + 1 - 4 u + u^2 v, v_t = .01 lap v + 3 u - u^2 v (Prigogine and Lefever) on the part of a sphere
    within 75 degrees of its pole, without flux at its rim: linear elements, read at half of the sides."""
    flat, cells = mesh([circle((0, 0), 1, 0.1)], 0.1)
    fine, parts = refined(flat, cells)
    turn = np.radians(75) * np.linalg.norm(fine, axis=1, keepdims=True)
    x = np.concatenate([np.sinc(turn / np.pi) * np.radians(75) * fine, np.cos(turn)], 1)
    stiffness, masses = surface_elements(x, parts)
    u = np.stack([1 + 0.7 * np.tanh(bumps(generator, (x + 1) / 2, 3)) for _ in range(count)], 1)
    v = np.stack([2.5 + 1.0 * np.tanh(bumps(generator, (x + 1) / 2, 3)) for _ in range(count)], 1)

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([1 - 4 * u + u**2 * v, 3 * u - u**2 * v])

    frames = reacting(np.stack([u, v]), reaction, stiffness, masses, (0.02, 0.01), 0.02, 10)[:, :, : len(flat)]
    return np.arange(FRAMES) * 0.2, x[: len(flat)], frames.transpose(3, 0, 2, 1), {"triangles": cells}


def _peanut(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and triangles of a closed surface with a waist, sides halved so many times."""
    x, cells = icosphere(level)
    return x * 6 * (0.85 + 0.45 * x[:, :1] ** 2 + 0.12 * x[:, 1:2] * x[:, 2:]), cells


@problem()
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
        frames.append(etd(0.3 - (1 - k) ** 2, rate, frames[-1], gap / steps, steps))
    seen, triangles = _peanut(3)
    u = (modes @ np.stack(frames))[:, : len(seen)]
    return np.arange(FRAMES) * gap, seen, u.transpose(2, 0, 1)[..., None], {"triangles": triangles}


@problem()
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

    start = np.stack([np.exp(0.6 * bumps_of(generator, x, 1.0)) for _ in range(count)], 1) * 0.5
    depth = 1 - np.exp(-3 * np.abs(x[:, 1:2]))
    u = stepped(rate, 1 - depth + depth * start, 0.12, 50)[:, :seen]
    return np.arange(FRAMES) * 0.12, x[:seen], u.transpose(2, 0, 1)[..., None], {"tetrahedra": coarse.t.T}
