"""Taylor-Hood elements on straight triangles: quadratic velocities on vertices and midpoints of edges, linear pressures
on vertices (Taylor and Hood 1973)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse

_SMALLEST_AREA = 1e-12  # least area of a triangle relative to the mean


def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Barycentric points (7, 3) and weights (7,), exact for polynomials of degree 5 (Radon 1948)."""
    root = np.sqrt(15.0)
    points, weights = [np.full(3, 1 / 3)], [9 / 40]
    for sign in (1.0, -1.0):
        corner = (6 - sign * root) / 21
        for i in range(3):
            point = np.full(3, corner)
            point[i] = 1 - 2 * corner
            points.append(point)
            weights.append((155 - sign * root) / 1200)
    return np.array(points), np.array(weights)


@dataclass
class TaylorHood:
    """Matrices of a mesh of V vertices and M nodes (the vertices, then the midpoints of the edges).

    Attributes:
        nodes: (M, 2). vertices: V. edges: (M - V, 2), vertices of each. boundary: (M - V,), mask of boundary edges.
        triangles: (E, 3), counter-clockwise. area: (E,).
        mass, stiffness: (M, M), integrals of phi_a phi_b and of their gradients' product.
        divergence: two of (V, M), integrals of a pressure function times d phi/dx and d phi/dy.
        lumped: (V,), lumped area of each vertex.
    """

    nodes: np.ndarray
    vertices: int
    edges: np.ndarray
    boundary: np.ndarray
    triangles: np.ndarray
    area: np.ndarray
    mass: sparse.csr_matrix
    stiffness: sparse.csr_matrix
    divergence: tuple[sparse.csr_matrix, sparse.csr_matrix]
    lumped: np.ndarray
    _cells: np.ndarray
    _values: np.ndarray
    _derivatives: np.ndarray
    _slopes: np.ndarray
    _weights: np.ndarray
    _scatter: sparse.csr_matrix

    @classmethod
    def of(cls, x: np.ndarray, triangles: np.ndarray) -> TaylorHood:
        """Elements on vertices x (V, 2) and triangles (E, 3) of either orientation.

        Raises ValueError if a vertex has no triangle, a triangle has no area or an edge has more than two triangles.
        """
        x, corners = np.asarray(x, float), np.asarray(triangles, int)
        if corners.ndim != 2 or corners.shape[1] != 3 or corners.min() < 0 or corners.max() >= len(x):
            raise ValueError("the triangles are not triples of nodes")
        if len(np.unique(corners)) < len(x):
            raise ValueError("a node belongs to no triangle")
        corners = np.where(_doubled_area(x, corners)[:, None] < 0, corners[:, [0, 2, 1]], corners)
        doubled = _doubled_area(x, corners)
        if doubled.min() < _SMALLEST_AREA * doubled.mean():
            raise ValueError("a triangle has no area")
        sides = np.sort(np.concatenate([corners[:, [1, 2]], corners[:, [2, 0]], corners[:, [0, 1]]]), axis=1)
        edges, which, times = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
        if times.max() > 2:
            raise ValueError("an edge belongs to more than two triangles")
        cells = np.concatenate([corners, len(x) + which.reshape(3, -1).T], axis=1)
        nodes = np.concatenate([x, x[edges].mean(1)])

        slopes = np.stack([_slope(x, corners, i) / doubled[:, None] for i in range(3)], axis=1)  # of barycentrics
        points, shares = _quadrature()
        values, by_barycentric = _second_order(points)
        gradients = np.einsum("qal,eld->eqad", by_barycentric, slopes)
        weights = shares * doubled[:, None] / 2
        size = len(nodes)

        def assemble(local: np.ndarray, rows: np.ndarray, height: int) -> sparse.csr_matrix:
            row = np.broadcast_to(rows[:, :, None], local.shape).ravel()
            column = np.broadcast_to(cells[:, None, :], local.shape).ravel()
            return sparse.csr_matrix((local.ravel(), (row, column)), shape=(height, size))

        along = [assemble(np.einsum("eq,ql,eqa->ela", weights, points, gradients[..., k]), corners, len(x))
                 for k in (0, 1)]
        lumped = np.bincount(corners.ravel(), np.repeat(doubled / 6, 3), len(x))
        scatter = sparse.csr_matrix(
            (np.ones(cells.size), (cells.ravel(), np.arange(cells.size))), shape=(size, cells.size)
        )
        return cls(
            nodes, len(x), edges, times == 1, corners, doubled / 2,
            assemble(np.einsum("eq,qa,qb->eab", weights, values, values), cells, size),
            assemble(np.einsum("eq,eqad,eqbd->eab", weights, gradients, gradients, optimize=True), cells, size),
            (along[0], along[1]), lumped, cells, values,
            by_barycentric.transpose(0, 2, 1).reshape(-1, 6), slopes.transpose(0, 2, 1), weights, scatter,
        )

    def convection(self, velocity: np.ndarray) -> np.ndarray:
        """Integrals (M, 2) of phi_a times (u . grad) u, for a velocity (M, 2)."""
        local = velocity[self._cells]
        along = (self._values @ local) @ self._slopes  # cells, points, barycentric derivative
        by_barycentric = (self._derivatives @ local).reshape(*along.shape, 2)
        carried = (along[..., None] * by_barycentric).sum(2) * self._weights[..., None]
        return self._scatter @ (self._values.T @ carried).reshape(-1, 2)

    def interpolated_to_nodes(self, values: np.ndarray) -> np.ndarray:
        """Values (..., M) at all nodes of linear functions given at the vertices (..., V)."""
        return np.concatenate([values, values[..., self.edges].mean(-1)], axis=-1)

    @property
    def height(self) -> float:
        """Smallest height of a triangle."""
        corners = self.nodes[self.triangles]
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(1)
        return float((2 * self.area / longest).min())


def _doubled_area(x: np.ndarray, corners: np.ndarray) -> np.ndarray:
    first, second = x[corners[:, 1]] - x[corners[:, 0]], x[corners[:, 2]] - x[corners[:, 0]]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _slope(x: np.ndarray, corners: np.ndarray, i: int) -> np.ndarray:
    side = x[corners[:, (i + 2) % 3]] - x[corners[:, (i + 1) % 3]]
    return np.stack([-side[:, 1], side[:, 0]], axis=1)


def _second_order(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (Q, 6) and derivatives (Q, 6, 3) by barycentric coordinates of the quadratic shape functions."""
    corner = points * (2 * points - 1)
    middle = np.stack([4 * points[:, (i + 1) % 3] * points[:, (i + 2) % 3] for i in range(3)], axis=1)
    slopes = np.zeros((len(points), 6, 3))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        slopes[:, i, i] = 4 * points[:, i] - 1
        slopes[:, 3 + i, j], slopes[:, 3 + i, k] = 4 * points[:, k], 4 * points[:, j]
    return np.concatenate([corner, middle], axis=1), slopes
