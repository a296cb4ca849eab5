"""Data on meshes of many shapes, by linear finite elements of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
from data_makers import FRAMES, Fields, bumps, reacting, solve
from matplotlib.path import Path as Outline
from scipy.sparse.linalg import splu
from scipy.spatial import Delaunay, cKDTree


def _circle(centre: tuple[float, float], radius: float, h: float) -> np.ndarray:
    """Points (P, 2) around a circle, about h apart."""
    turn = np.linspace(0, 2 * np.pi, round(2 * np.pi * radius / h), endpoint=False)[:, None]
    return np.asarray(centre) + radius * np.concatenate([np.cos(turn), np.sin(turn)], 1)


def _polygon(corners: list[tuple[float, float]], h: float) -> np.ndarray:
    """Points (P, 2) along the sides of a polygon, about h apart."""
    sides = zip(corners, [*corners[1:], corners[0]], strict=True)
    return np.concatenate([np.linspace(a, b, max(round(np.hypot(b[0] - a[0], b[1] - a[1]) / h), 1), endpoint=False)
                           for a, b in sides])


def _mesh(curves: list[np.ndarray], h: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and triangles of side about h within the first curve and outside of the others."""
    def within(x: np.ndarray) -> np.ndarray:
        return np.logical_and.reduce([Outline(c).contains_points(x) == (i == 0) for i, c in enumerate(curves)])

    low, high = curves[0].min(0), curves[0].max(0)
    rows = np.arange(low[1], high[1], h * np.sqrt(3) / 2)
    x = np.concatenate([np.stack([np.arange(low[0] + h / 2 * (i % 2), high[0], h), 0 * np.arange(
        low[0] + h / 2 * (i % 2), high[0], h) + y], 1) for i, y in enumerate(rows)])
    edge = np.concatenate(curves)
    x = np.concatenate([edge, x[within(x) & (cKDTree(edge).query(x)[0] > 0.6 * h)]])
    cells = Delaunay(x).simplices
    return x, cells[within(x[cells].mean(1))]


def _elements(x: np.ndarray, cells: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Stiffness matrix of linear elements on triangles, and lumped masses."""
    edges = x[np.roll(cells, -1, 1)] - x[np.roll(cells, 1, 1)]  # (E, 3, 2), opposite to each node
    area = 0.5 * np.abs(np.linalg.det(edges[:, :2]))
    local = np.einsum("eid,ejd->eij", edges, edges) / (4 * area[:, None, None])
    rows, columns = np.repeat(cells, 3, 1).ravel(), np.tile(cells, 3).ravel()
    return (sparse.csr_matrix((local.ravel(), (rows, columns))),
            np.bincount(cells.ravel(), np.repeat(area / 3, 3), len(x)))


def _fitzhugh_nagumo(curves: list[np.ndarray], h: float) -> Callable[..., Fields]:
    """u_t = .01 lap u + u - u^3/3 - v + I, v_t = .002 lap v + .08 (u + .7 - .8 v) without flux, by linear elements; the
    excitability I is .5 by default."""
    def make(generator: np.random.Generator, count: int, excitability: float = 0.5) -> Fields:
        x, cells = _mesh(curves, h)
        stiffness, masses = _elements(x, cells)
        smooth = splu((sparse.diags(masses) + 0.2**2 * stiffness).tocsc())

        def field(mean: float, spread: float) -> np.ndarray:
            f = generator.standard_normal(len(x)) / np.sqrt(masses)
            for _ in range(3):
                f = smooth.solve(masses * f)
            return mean + spread * (f - f.mean()) / f.std()

        def rate(w: np.ndarray) -> np.ndarray:
            u, v = w
            lap = -(stiffness @ w.T).T / masses
            return np.stack([0.01 * lap[0] + u - u**3 / 3 - v + excitability,
                             0.002 * lap[1] + 0.08 * (u + 0.7 - 0.8 * v)])

        t = np.arange(FRAMES) * 1.0
        start = [np.stack([field(generator.uniform(-1, 1), 1.2), field(generator.uniform(0.3, 0.8), 0.3)])
                 for _ in range(count)]
        paths = [solve(rate, w, t) for w in start]
        return t, x, np.moveaxis(np.stack(paths), 2, 3), {"triangles": cells}
    return make


def _refined(x: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every triangle cut into four; the nodes stay the first ones."""
    sides = np.sort(np.concatenate([cells[:, [1, 2]], cells[:, [2, 0]], cells[:, [0, 1]]]), 1)
    every, index = np.unique(sides, axis=0, return_inverse=True)
    a, b, c = len(x) + index.reshape(3, -1)
    p, q, r = cells.T
    children = [(p, c, b), (q, a, c), (r, b, a), (a, b, c)]
    return (np.concatenate([x, x[every].mean(1)]), np.concatenate([np.stack(child, 1) for child in children]))


def burgers_lshape(generator: np.random.Generator, count: int) -> Fields:
    """u_t = -u . grad u + .01 lap u, both components without flux through the walls of an L in the unit box; linear
    elements of side .01, read at nodes of a mesh four times as coarse."""
    coarse, triangles = _mesh([_polygon([(0, 0), (1, 0), (1, 0.45), (0.55, 0.45), (0.55, 1), (0, 1)], 0.04)], 0.04)
    x, cells = _refined(*_refined(coarse, triangles))
    stiffness, masses = _elements(x, cells)
    edges = x[np.roll(cells, -1, 1)] - x[np.roll(cells, 1, 1)]
    double = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    slopes = np.stack([edges[..., 1], -edges[..., 0]]) / double[:, None]  # (2, E, 3), of the three functions
    rows = np.repeat(np.arange(len(cells)), 3)
    gradient = [sparse.csr_matrix((part.ravel(), (rows, cells.ravel())), (len(cells), len(x))) for part in slopes]
    spread = sparse.csr_matrix((np.repeat(np.abs(double) / 6, 3), (cells.ravel(), rows)), (len(x), len(cells)))
    t = np.arange(FRAMES) * 0.05

    def rate(w: np.ndarray) -> np.ndarray:
        moved = sum(w[j, :, None] * (spread @ (gradient[j] @ w.T)) for j in range(2))
        return ((-0.01 * (stiffness @ w.T) - moved) / masses[:, None]).T

    def field() -> np.ndarray:
        f = bumps(generator, x, 4)
        return 0.5 * (f - f.mean()) / f.std() + 0.3 * generator.standard_normal()

    paths = [solve(rate, np.stack([field(), field()]), t)[..., : len(coarse)] for _ in range(count)]
    return t, coarse, np.moveaxis(np.stack(paths), 2, 3), {"triangles": triangles}


def prey_perforated(generator: np.random.Generator, count: int) -> Fields:
    """Predator and prey, saturated, without flux on a disc with seven holes; linear elements."""
    turns = np.arange(6) * np.pi / 3
    holes = [_circle((0.58 * np.cos(a), 0.58 * np.sin(a)), 0.13, 0.05) for a in turns]
    x, cells = _mesh([_circle((0, 0), 1, 0.055), _circle((0, 0), 0.16, 0.05), *holes], 0.055)
    stiffness, masses = _elements(x, cells)
    t = np.arange(FRAMES) * 0.6

    def rate(w: np.ndarray) -> np.ndarray:
        a, b = w
        lap = -(stiffness @ w.T).T / masses
        eaten = a * b * (1 - 0.4 * a)
        return np.stack([0.004 * lap[0] + a * (1 - a) - eaten, 0.008 * lap[1] + eaten - 0.35 * b])

    start = [np.stack([0.5 + 0.2 * bumps(generator, (x + 1) / 2, 4), 0.5 + 0.2 * bumps(generator, (x + 1) / 2, 4)])
             for _ in range(count)]
    paths = [solve(rate, w, t) for w in start]
    return t, x, np.moveaxis(np.stack(paths), 2, 3), {"triangles": cells}


def fhn_solid(generator: np.random.Generator, count: int) -> Fields:
    """FitzHugh-Nagumo without flux in a ball of which an eighth is cut away: linear elements on tetrahedra, read at the
    nodes of a mesh half as fine."""
    import skfem
    from skfem.models.poisson import laplace, mass

    ball = skfem.MeshTet.init_ball(3)
    coarse = ball.restrict(np.flatnonzero(~(ball.p[:, ball.t].mean(1) > 0).all(0)))
    basis = skfem.Basis(coarse.refined(1), skfem.ElementTetP1())
    stiffness, masses = laplace.assemble(basis).tocsc(), mass.assemble(basis).tocsc()
    x = basis.mesh.p.T

    def reaction(w: np.ndarray) -> np.ndarray:
        u, v = w
        return np.stack([u - u**3 / 3 - v + 0.5, 0.08 * (u + 0.7 - 0.8 * v)])

    def field(mean: float, spread: float) -> np.ndarray:
        f = bumps(generator, (x + 1) / 2, 3)
        return mean + spread * (f - f.mean()) / f.std()

    w = np.stack([np.stack([field(generator.uniform(-1, 1), 1.0), field(generator.uniform(0.3, 0.8), 0.3)])
                  for _ in range(count)], -1)  # (2, N, S)
    frames = reacting(w, reaction, stiffness, masses, (0.02, 0.005), 0.05, 20)
    u = frames[:, :, : coarse.p.shape[1]].transpose(3, 0, 2, 1)
    return np.arange(FRAMES) * 1.0, coarse.p.T, u, {"tetrahedra": coarse.t.T}


_L = [(-1.0, -1.0), (1.0, -1.0), (1.0, 0.0), (0.0, 0.0), (0.0, 1.0), (-1.0, 1.0)]
fhn_lshape = _fitzhugh_nagumo([_polygon(_L, 0.066), _circle((-0.45, -0.4), 0.2, 0.066)], 0.066)
fhn_disc = _fitzhugh_nagumo([_circle((0, 0), 1, 0.066), _circle((-0.4, 0.25), 0.22, 0.066),
                             _circle((0.35, -0.3), 0.28, 0.066)], 0.066)
fhn_channel = _fitzhugh_nagumo([_polygon([(0, 0), (3.2, 0), (3.2, 0.8), (0, 0.8)], 0.06),
                                _circle((0.9, 0.4), 0.16, 0.05)], 0.06)
