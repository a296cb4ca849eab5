"""Network: metric graph of curves that may branch and meet, as fibres, rivers or streets do, with finite elements."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, QhullError, cKDTree

from inrflow.domains.surface import Surface
from inrflow.errors import UserError

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(4)
_FEWEST = 40  # points needed
_THICK, _THIN = 5, 0.1  # neighbours, and their largest spread across the curve relative to that along it
_NEAREST, _NEARER = 32, 1 - 1e-9  # neighbours searched for a point nearer to both ends; tolerance
_GAP, _MOST = 10.0, 0.8  # longest link, in median links; least share of points with exactly two neighbours


class Network(Surface):
    """Straight segments in the plane or in space: nodes (V, d) and cells (E, 2), with quadratic elements.

    Derivatives are tangential. At junctions, values are continuous and fluxes sum to zero (Kirchhoff conditions).
    """

    kind = "network"

    def __init__(self, nodes: np.ndarray, cells: np.ndarray):
        nodes, cells = np.asarray(nodes, np.float64), np.asarray(cells, np.int64)
        if nodes.ndim != 2 or cells.ndim != 2 or cells.shape[1] != 2 or not len(cells):
            raise UserError(f"a network has nodes of shape {nodes.shape} and segments of shape {cells.shape}; expected "
                            "(V, d) and (E, 2)")
        if cells.min() < 0 or cells.max() >= len(nodes):
            raise UserError(f"a network of {len(nodes)} nodes has segments whose nodes reach to {cells.max()}; give "
                            "indices of nodes")
        used, flat = np.unique(cells, return_inverse=True)
        self.nodes, self.cells = nodes[used], flat.reshape(cells.shape)
        self.dimensions = nodes.shape[1]
        middles = len(self.nodes) + np.arange(len(cells))
        self.functions = np.column_stack([self.cells, middles])  # (E, 3)
        self.edge = np.flatnonzero(np.bincount(self.cells.ravel()) == 1)
        self.places = np.concatenate([self.nodes, self.nodes[self.cells].mean(1)])
        self._prepare((_POINTS[:, None] + 1) / 2, _WEIGHTS / 2)

    @staticmethod
    def shapes(local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Quadratic shape functions (N, 3) of a segment at local coordinates (N, 1), and derivatives (N, 3, 1)."""
        s = local[:, 0]
        return (np.stack([(1 - s) * (1 - 2 * s), s * (2 * s - 1), 4 * s * (1 - s)], 1),
                np.stack([4 * s - 3, 4 * s - 1, 4 - 8 * s], 1)[..., None])

    @property
    def spacing(self) -> float:
        """Mean length of a segment."""
        return self.measure / len(self.cells)


def network_from_points(points: np.ndarray) -> Network | None:
    """Network of curves through points (N, d); None if the points do not lie along connected curves.

    Points are linked if no other point is nearer to both (relative neighbourhood graph, Toussaint 1980). Along curves,
    nearly all points then have two neighbours.
    """
    if len(points) < _FEWEST:
        return None
    near, index = cKDTree(points).query(points, min(_NEAREST, len(points)))
    away = points[index[:, :_THICK]] - points[:, None]
    sizes = np.linalg.eigvalsh(away.swapaxes(1, 2) @ away)
    if np.median(sizes[:, -2] / sizes[:, -1]) > _THIN:
        return None
    try:
        corners = Delaunay(points).simplices
    except QhullError:  # all points on one line
        return None
    pairs = np.concatenate([corners[:, [i, j]] for i in range(corners.shape[1]) for j in range(i)])
    pairs = np.unique(np.sort(pairs, 1), axis=0)
    lengths = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    free = np.ones(len(pairs), bool)
    for mine, other in (pairs.T, pairs.T[::-1]):
        there = np.linalg.norm(points[index[mine]] - points[other][:, None], axis=2)
        free &= ~((near[mine] < _NEARER * lengths[:, None]) & (there < _NEARER * lengths[:, None])).any(1)
    links = pairs[free & (lengths < _GAP * np.median(lengths[free]))]
    graph = sparse.coo_matrix((np.ones(len(links)), links.T), (len(points),) * 2)
    if (np.bincount(links.ravel(), minlength=len(points)) == 2).mean() < _MOST or connected_components(graph)[0] > 1:
        return None
    return Network(points, links)
