"""Surface: curved surface in space as a triangle mesh, with finite-element eigenfunctions (scipy)."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy.spatial import cKDTree

from inrflow.domains.base import HELD, NATURAL, Domain, Harmonics, Quadrature, check_boundary
from inrflow.domains.region import lowest_eigenmodes, sparse_rule
from inrflow.errors import UserError

_SIDES = np.array([[0, 1], [1, 2], [2, 0]])
_SHARP = 0.8  # share of the principal direction in the squared normals around a node, below which it is a sharp edge
_MANY, _CELLS = 100, 3  # harmonics, and triangles per harmonic, above which a quadrature of degree 2 saves time
_NEAREST = 16  # nearest triangles searched for the one that contains a point
# Quadrature of degree 4 on a triangle (Strang and Fix, 1973): coordinates and weights of two groups of three points.
_GROUPS = ((0.445948490915965, 0.223381589678011), (0.091576213509771, 0.109951743655322))


class Surface(Domain):
    """Triangle mesh in space: nodes (V, 3) and cells (E, 3), with quadratic elements.

    Triangles are curved: the midpoints of their sides follow from the normals at the ends (Vlachos et al., 2001),
    except at sharp edges.
    """

    kind, dimensions, curved = "surface", 3, True

    def __init__(self, nodes: np.ndarray, cells: np.ndarray):
        nodes, cells = np.asarray(nodes, np.float64), np.asarray(cells, np.int64)
        if nodes.ndim != 2 or nodes.shape[1] != 3 or cells.ndim != 2 or cells.shape[1] != 3 or not len(cells):
            raise UserError(f"a surface has nodes of shape {nodes.shape} and cells of shape {cells.shape}; expected "
                            "(V, 3) and (E, 3)")
        if cells.min() < 0 or cells.max() >= len(nodes):
            raise UserError(f"a surface of {len(nodes)} nodes has triangles whose nodes reach to {cells.max()}; give "
                            "indices of nodes")
        used, flat = np.unique(cells, return_inverse=True)
        self.nodes, self.cells = nodes[used], flat.reshape(cells.shape)
        ends = np.sort(self.cells[:, _SIDES].reshape(-1, 2), 1)
        sides, index, times = np.unique(ends, axis=0, return_inverse=True, return_counts=True)
        self.functions = np.concatenate([self.cells, len(self.nodes) + index.reshape(-1, 3)], 1)  # (E, 6)
        self.edge = np.unique(np.concatenate([sides[times == 1].ravel(),
                                              len(self.nodes) + np.flatnonzero(times == 1)])).astype(np.int64)
        self.places = np.concatenate([self.nodes, self._middles(sides)])  # nodes of all shape functions
        corners = [np.array([[b, b], [1 - 2 * b, b], [b, 1 - 2 * b]]) for b, _ in _GROUPS]
        self._prepare(np.concatenate(corners), np.repeat([0.5 * weight for _, weight in _GROUPS], 3))

    @staticmethod
    def shapes(local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Quadratic shape functions (N, 6) of a triangle at local coordinates (N, 2), and their derivatives
        (N, 6, 2): first of the corners, then of the sides."""
        place = np.column_stack([1 - local.sum(1), local])
        slopes = np.array([[-1.0, -1.0], [1, 0], [0, 1]])
        a, b = _SIDES.T
        sides = 4 * (place[:, a, None] * slopes[b] + place[:, b, None] * slopes[a])
        return (np.concatenate([place * (2 * place - 1), 4 * place[:, a] * place[:, b]], 1),
                np.concatenate([(4 * place - 1)[..., None] * slopes, sides], 1))

    def _prepare(self, local: np.ndarray, weights: np.ndarray) -> None:
        """Set-up of the quadrature with local coordinates (Q, s) and weights (Q,) of the reference cell."""
        self._local = local
        self._area, self._gradients = self._measured(local, weights)
        self._known: dict[tuple[int, str], SurfaceHarmonics] = {}

    def _measured(self, local: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Area weights (E, Q) of quadrature points of cells, and gradients (E, Q, n, d) of shape functions there."""
        _, slopes = self.shapes(local)
        tangents = np.einsum("qis,eid->eqds", slopes, self.places[self.functions])  # (E, Q, d, s)
        metric = tangents.swapaxes(2, 3) @ tangents
        return np.sqrt(np.linalg.det(metric)) * weights, np.einsum(
            "eqds,qis->eqid", tangents @ np.linalg.inv(metric), slopes)

    def _middles(self, sides: np.ndarray) -> np.ndarray:
        """Curved midpoints (M, 3) of sides (M, 2)."""
        normals = np.cross(*(self.nodes[self.cells[:, i]] - self.nodes[self.cells[:, 0]] for i in (1, 2)))
        squares = np.zeros((len(self.nodes), 3, 3))
        unit = normals[:, :, None] * normals[:, None] / (np.linalg.norm(normals, axis=1)[:, None, None] + 1e-300)
        np.add.at(squares, self.cells, unit[:, None])
        sizes, directions = np.linalg.eigh(squares)
        normal = directions[:, :, 2] * (sizes[:, 2] > _SHARP * sizes.sum(1))[:, None]
        a, b = self.nodes[sides.T]
        bent = sum((np.einsum("md,md->m", other - one, n)[:, None] * n
                    for one, other, n in ((a, b, normal[sides[:, 0]]), (b, a, normal[sides[:, 1]]))), np.zeros(1))
        return np.asarray((a + b) / 2 - bent / 8)

    @property
    def bounded(self) -> bool:
        return len(self.edge) > 0

    @property
    def measure(self) -> float:
        """Area (length of a network)."""
        return float(self._area.sum())

    @property
    def spacing(self) -> float:
        """Mean distance between nodes."""
        return float(np.sqrt(self.measure / len(self.nodes)))

    def harmonics(self, count: int, boundary: str = NATURAL) -> SurfaceHarmonics:
        """Eigenfunctions of lowest eigenvalue of the Laplace-Beltrami operator."""
        key = (count, check_boundary(boundary))
        if key not in self._known:
            more = next((known for (size, kind), known in self._known.items()
                         if size > count and kind == boundary), None)
            self._known[key] = self._solve(*key) if more is None else SurfaceHarmonics(
                self, more.coefficients[:, :count], more.eigenvalues[:count])
        return self._known[key]

    def _solve(self, count: int, boundary: str) -> SurfaceHarmonics:
        values, _ = self.shapes(self._local)
        size, area = len(self.places), self._area / self.measure
        rows, columns = np.broadcast_arrays(self.functions[:, :, None], self.functions[:, None])
        parts = (np.einsum("eq,eqid,eqjd->eij", area, self._gradients, self._gradients),
                 np.einsum("eq,qi,qj->eij", area, values, values))
        stiffness, masses = (sparse.csc_matrix((part.ravel(), (rows.ravel(), columns.ravel())), shape=(size, size))
                             for part in parts)
        free = np.setdiff1d(np.arange(size), self.edge if boundary == HELD else [])
        eigenvalues, vectors = lowest_eigenmodes(stiffness[free][:, free], masses[free][:, free], count,
                                                 float(np.ptp(self.nodes, axis=0).max()))
        coefficients = np.zeros((size, len(eigenvalues)))
        coefficients[free] = vectors
        return SurfaceHarmonics(self, coefficients, eigenvalues)

    def locate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nearest triangles (N,) to points (N, 3), local coordinates (N, 2) in them, and distances (N,)."""
        x = self._check(x)
        corners = self.nodes[self.cells]  # (E, 3, 3)
        near = cKDTree(corners.mean(1)).query(x, min(_NEAREST, len(corners)))[1].reshape(len(x), -1)
        frame = (corners[:, 1:] - corners[:, :1])[near]  # (N, M, 2, 3)
        away = x[:, None] - corners[near, 0]
        metric = frame @ frame.swapaxes(2, 3)
        local = np.linalg.solve(metric, np.einsum("nmsd,nmd->nms", frame, away)[..., None])[..., 0]
        local = np.maximum(local, 0.0)
        local /= np.maximum(local.sum(-1, keepdims=True), 1.0)
        distance = np.linalg.norm(away - np.einsum("nms,nmsd->nmd", local, frame), axis=-1)
        rows, best = np.arange(len(x)), distance.argmin(1)
        return near[rows, best], local[rows, best], distance[rows, best]

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Distances to the mesh, less a quarter of the spacing, since straight triangles approximate the surface."""
        return np.maximum(self.locate(x)[2] - self.spacing / 4, 0.0)

    def state(self) -> dict[str, Any]:
        """Nodes and cells."""
        return {"kind": self.kind, "nodes": self.nodes, "cells": self.cells}


class SurfaceHarmonics(Harmonics):
    """Eigenfunctions as coefficients (V + M, K) of the finite elements of a surface; gradients are tangential."""

    def __init__(self, surface: Surface, coefficients: np.ndarray, eigenvalues: np.ndarray):
        self.surface, self.coefficients, self.eigenvalues = surface, coefficients, eigenvalues
        self.count = len(eigenvalues)

    def values(self, x: np.ndarray) -> np.ndarray:
        """Values psi_k (N, K) at the places of the surface nearest to points (N, 3)."""
        cells, local, _ = self.surface.locate(x)
        shapes, _ = self.surface.shapes(local)
        return np.einsum("ni,nik->nk", shapes, self.coefficients[self.surface.functions[cells]])

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Tangential gradients (N, K, 3) at points (N, 3)."""
        cells, local, _ = self.surface.locate(x)
        functions = self.surface.functions[cells]
        _, slopes = self.surface.shapes(local)
        tangents = np.einsum("nis,nid->nds", slopes, self.surface.places[functions])
        ahead = tangents @ np.linalg.inv(tangents.swapaxes(1, 2) @ tangents)
        return np.einsum("nds,nis,nik->nkd", ahead, slopes, self.coefficients[functions])

    def lowest(self, count: int) -> SurfaceHarmonics:
        """Harmonics of lowest eigenvalue with natural conditions."""
        return self.surface.harmonics(count)

    def quadrature(self, degree: int = 2) -> Quadrature:
        """Gauss points of the cells: of triangles six; three for many harmonics, if triangles are many, too, as others
        would hardly change products; one if `sparse_rule` holds."""
        surface, size = self.surface, (-1, self.count, self.surface.dimensions)
        local, (area, gradients) = surface._local, (surface._area, surface._gradients)
        if self.count > _MANY and len(surface.cells) >= _CELLS * self.count and len(surface.cells[0]) == 3:
            sparse = sparse_rule(self.count, len(surface.cells))
            local = np.full((1, 2), 1 / 3) if sparse else (1 + 3 * np.eye(3)[:, 1:]) / 6
            area, gradients = surface._measured(local, np.full(len(local), 0.5 / len(local)))
        values, _ = surface.shapes(local)
        own = self.coefficients[surface.functions]  # (E, 6, K)
        points = np.einsum("qi,eid->eqd", values, surface.places[surface.functions])
        return Quadrature(points.reshape(-1, surface.dimensions), area.ravel() / surface.measure,
                          np.einsum("qi,eik->eqk", values, own).reshape(-1, self.count),
                          np.einsum("eqid,eik->eqkd", gradients, own).reshape(size))
