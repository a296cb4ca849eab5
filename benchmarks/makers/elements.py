"""Meshes and finite elements that makers share: outlines, stiffness and masses, reactions and modes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
import scipy.sparse as sparse
import skfem
from matplotlib.path import Path as Outline
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from scipy.spatial import ConvexHull, Delaunay, cKDTree
from skfem.models.poisson import laplace, mass

from benchmarks.makers.base import FRAMES
from benchmarks.makers.spectral import etd


def circle(centre: tuple[float, float], radius: float, h: float) -> np.ndarray:
    """Points (P, 2) around a circle, about h apart."""
    turn = np.linspace(0, 2 * np.pi, round(2 * np.pi * radius / h), endpoint=False)[:, None]
    return np.asarray(centre) + radius * np.concatenate([np.cos(turn), np.sin(turn)], 1)


def polygon(corners: list[tuple[float, float]], h: float) -> np.ndarray:
    """Points (P, 2) along the sides of a polygon, about h apart."""
    sides = zip(corners, [*corners[1:], corners[0]], strict=True)
    return np.concatenate([np.linspace(a, b, max(round(np.hypot(b[0] - a[0], b[1] - a[1]) / h), 1), endpoint=False)
                           for a, b in sides])


def mesh(curves: list[np.ndarray], h: float) -> tuple[np.ndarray, np.ndarray]:
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


def elements(x: np.ndarray, cells: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Stiffness matrix of linear elements on triangles, and lumped masses."""
    edges = x[np.roll(cells, -1, 1)] - x[np.roll(cells, 1, 1)]  # (E, 3, 2), opposite to each node
    area = 0.5 * np.abs(np.linalg.det(edges[:, :2]))
    local = np.einsum("eid,ejd->eij", edges, edges) / (4 * area[:, None, None])
    rows, columns = np.repeat(cells, 3, 1).ravel(), np.tile(cells, 3).ravel()
    return (sparse.csr_matrix((local.ravel(), (rows, columns))),
            np.bincount(cells.ravel(), np.repeat(area / 3, 3), len(x)))


def refined(x: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every triangle cut into four; the nodes stay the first ones."""
    sides = np.sort(np.concatenate([cells[:, [1, 2]], cells[:, [2, 0]], cells[:, [0, 1]]]), 1)
    every, index = np.unique(sides, axis=0, return_inverse=True)
    a, b, c = len(x) + index.reshape(3, -1)
    p, q, r = cells.T
    children = [(p, c, b), (q, a, c), (r, b, a), (a, b, c)]
    return (np.concatenate([x, x[every].mean(1)]), np.concatenate([np.stack(child, 1) for child in children]))


def quadratic(curves: list[np.ndarray], h: float) -> tuple[skfem.Basis, sparse.csc_matrix, sparse.csc_matrix, dict]:
    """Quadratic elements on a mesh of side about h within curves; stiffness, mass, the mesh as attribute."""
    x, cells = mesh(curves, h)
    basis = skfem.Basis(skfem.MeshTri(x.T, cells.T), skfem.ElementTriP2())
    return basis, laplace.assemble(basis).tocsc(), mass.assemble(basis).tocsc(), {"triangles": cells}


def surface_elements(x: np.ndarray, cells: np.ndarray) -> tuple[csc_matrix, csc_matrix]:
    """Stiffness and masses (N, N) of linear elements on triangles (E, 3) of points x (N, 3)."""
    edges = [x[cells[:, (i + 2) % 3]] - x[cells[:, (i + 1) % 3]] for i in range(3)]
    area, shape = np.linalg.norm(np.cross(edges[0], edges[1]), axis=1) / 2, (len(x), len(x))
    parts = [(i, j, (cells[:, i], cells[:, j])) for i in range(3) for j in range(3)]
    stiffness = sum(csc_matrix(((edges[i] * edges[j]).sum(1) / 4 / area, at), shape) for i, j, at in parts)
    return stiffness, sum(csc_matrix((area / 12 * (1 + (i == j)), at), shape) for i, j, at in parts)


def reacting(w: np.ndarray, reaction: Callable, stiffness: csc_matrix, masses: csc_matrix,
             diffusivities: tuple[float, ...], step: float, every: int) -> np.ndarray:
    """Frames (T, C, N, S), of `every` steps each, of dw/dt = diffusivity lap w + reaction(w) from w (C, N, S), on
    finite elements: Strang splitting, reactions by Runge-Kutta, diffusion by Crank and Nicolson."""
    pairs = [((masses - 0.5 * step * d * stiffness).tocsr(), splu((masses + 0.5 * step * d * stiffness).tocsc()))
             for d in diffusivities]

    def half(w: np.ndarray) -> np.ndarray:
        return w + step / 2 * reaction(w + step / 4 * reaction(w))

    frames = [w]
    for index in range(1, every * (FRAMES - 1) + 1):
        w = half(w)
        w = half(np.stack([solver.solve(explicit @ part) for (explicit, solver), part in zip(pairs, w, strict=True)]))
        if index % every == 0:
            frames.append(w)
    return np.stack(frames)


def by_modes(stiffness: np.ndarray, masses: np.ndarray, w: np.ndarray, linear: Callable, reaction: Callable, gap: float,
             steps: int) -> np.ndarray:
    """Frames (T, C, n, S) from w (C, n, S) of finite elements: linear(eigenvalues) (C, n) exact, reactions by
    Runge-Kutta, in all eigenfunctions."""
    values, modes = scipy.linalg.eigh(stiffness.toarray(), masses.toarray())
    back = modes.T @ masses

    def rate(z: np.ndarray) -> np.ndarray:
        return back @ reaction(modes @ z)

    z, frames = back @ w, [w]
    for _ in range(FRAMES - 1):
        z = etd(linear(values)[..., None], rate, z, gap / steps, steps)
        frames.append(modes @ z)
    return np.stack(frames)


def icosphere(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) and triangles of the unit sphere: an icosahedron whose sides are halved so many times."""
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
    return x, cells
