"""Triangulation of scattered points that preserves concave outlines and holes, and repair of given meshes."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sparse
from scipy.spatial import Delaunay, QhullError, cKDTree

from inrflow.domains.box import levels_of
from inrflow.errors import UserError

_SLIVER = 1e-3  # cells below this share of the median measure are dropped
_OUTWARDS, _RANDOM = 1 / 3, 0.35  # shift in spacings; least deviation of log nearest distances (random points: 0.64)
_WIDEST = 3.0  # circumradius, in spacings of its points, above which a cell bridges a hole or a concave outline


def clean_mesh(nodes: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (V, d) and cells (E, d + 1) without slivers and unused nodes, with positively oriented cells.

    Raises UserError if the cells do not fit the nodes.
    """
    if nodes.ndim != 2 or cells.ndim != 2 or cells.shape[1] != nodes.shape[1] + 1:
        raise UserError(f"a mesh has nodes of shape {nodes.shape} and cells of shape {cells.shape}; expected (V, d) "
                        "and (E, d + 1)")
    if not len(cells):
        raise UserError(f"{len(nodes)} points outline no region of {nodes.shape[1]} dimensions; give more points, or a "
                        "mesh with cells")
    if cells.min() < 0 or cells.max() >= len(nodes):
        raise UserError(f"a mesh of {len(nodes)} nodes has {len(cells)} cells whose nodes reach to {cells.max()}; give "
                        "indices of nodes")
    signed = _signed(nodes, cells)
    keep = np.abs(signed) > _SLIVER * np.median(np.abs(signed))
    cells, signed = cells[keep], signed[keep]
    cells = np.where((signed < 0)[:, None], cells[:, [1, 0, *range(2, cells.shape[1])]], cells)
    used, flat = np.unique(cells, return_inverse=True)
    return nodes[used], flat.reshape(cells.shape)


def grid_mesh(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (V, 2) and triangles (E, 3) of a rectangular grid, each cell halved."""
    number = np.arange(len(first) * len(second)).reshape(len(first), len(second))
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    nodes = np.stack(np.meshgrid(first, second, indexing="ij"), -1).reshape(-1, 2)
    return nodes, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def triangulate(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (V, d) and cells (E, d + 1) of scattered points (N, d) by `cells_between`."""
    points = np.unique(np.asarray(points, np.float64), axis=0)
    return clean_mesh(points, cells_between(points))


def lattice_cells(places: np.ndarray) -> np.ndarray:
    """Cells (E, d + 1) between lattice points with integer coordinates (N, d), which bridge single missing points."""
    cells = Delaunay(places).simplices.astype(np.int64)
    return cells[(np.ptp(places[cells], axis=1) <= 2).all(1)]


def lattice_cell_mesh(points: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (V, 2) and triangles (E, 3) of cells centred at points (N, 2); places (N, 2): their lattice coordinates."""
    levels, _ = levels_of(points)
    middles = [(own[1:] + own[:-1]) / 2 for own in levels]
    edges = [np.concatenate([2 * own[:1] - middle[:1], middle, 2 * own[-1:] - middle[-1:]])
             for own, middle in zip(levels, middles, strict=True)]
    nodes, cells = grid_mesh(*edges)
    own = np.ravel_multi_index(tuple(places.T), tuple(map(len, levels)))
    return clean_mesh(nodes, cells.reshape(2, -1, 3)[:, own].reshape(-1, 3))


def cells_between(points: np.ndarray) -> np.ndarray:
    """Delaunay cells (E, d + 1) of distinct points (N, d) without those that bridge holes and concave outlines (alpha
    shape).

    Cells are dropped whose circumradius is far above the spacing of points around their nodes. Raises UserError if the
    points span no region.
    """
    d = points.shape[1]
    if d == 1:
        order = np.argsort(points[:, 0])
        if len(points) < 2:
            raise UserError("only one place is observed; a domain needs several")
        return np.stack([order[:-1], order[1:]], 1)
    try:
        cells = Delaunay(points).simplices.astype(np.int64)
    except (QhullError, ValueError) as error:
        raise UserError(f"{len(points)} points in {d} dimensions span no region; give more, not all on one line"
                        ) from error
    spacing = cKDTree(points).query(points, 2 * d + 1)[0][:, 1:].mean(1)
    local = np.median(spacing[cells], 1)
    local = np.maximum(local, 0.5 * np.median(spacing))
    radius = _circumradius(points, cells)
    volume = np.abs(_signed(points, cells))
    keep = (radius < _WIDEST * local) & (volume > _SLIVER * np.median(volume))
    keep |= ~_wide_cells_to_drop(cells, ~keep)
    return cells[keep]


def widened(nodes: np.ndarray, cells: np.ndarray) -> np.ndarray | None:
    """Nodes (V, d) of a mesh of scattered points with the outline moved outwards by a third of the local spacing, the
    mean distance of random points to the boundary, unless a cell would be inverted. None on a line, and if the points
    are not random, as those of grids and meshes that reach the boundary.

    For discs, L-shapes, rings and balls with 200 to 600 points, uniform or dense in some parts, meshes between points
    cover 62 to 96 % of the measure, and 81 to 102 % with a quarter, 95 to 114 % with a half of the spacing.
    """
    d = nodes.shape[1]
    near = cKDTree(nodes).query(nodes, 2 * d + 1)[0][:, 1:]
    if d == 1 or np.std(np.log(near[:, 0])) < _RANDOM:
        return None
    faces, which, counts = _faces(cells)
    outer = counts[which] == 1
    faces, inner = faces[outer], cells.T.ravel()[outer]  # the corner opposite to each face
    edges = nodes[faces[:, 1:]] - nodes[faces[:, :1]]
    normals = edges[:, 0] @ [[0.0, -1.0], [1.0, 0.0]] if d == 2 else np.cross(edges[:, 0], edges[:, 1])
    normals *= np.sign((normals * (nodes[faces[:, 0]] - nodes[inner])).sum(1))[:, None]
    out = np.zeros_like(nodes)
    for corner in faces.T:
        np.add.at(out, corner, normals)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    out *= _OUTWARDS * near.mean(1)[:, None] / np.where(length > 0, length, 1.0)
    before = _signed(nodes, cells)
    while len(turned := np.flatnonzero(_signed(nodes + out, cells) * before <= 0)):
        out[cells[turned]] = 0.0
    return nodes + out


def thinned(nodes: np.ndarray, cells: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Mesh of about `most` of the nodes: all of the outline, and one inner node per cell of a grid."""
    if len(nodes) <= most:
        return nodes, cells
    faces, which, counts = _faces(cells)
    outline = np.unique(faces[counts[which] == 1])
    volume = float(np.abs(_signed(nodes, cells)).sum()) / math.factorial(nodes.shape[1])
    side = (volume / max(most - len(outline), most // 4)) ** (1 / nodes.shape[1])
    inner = np.setdiff1d(np.arange(len(nodes)), outline)
    _, first = np.unique(np.floor(nodes[inner] / side), axis=0, return_index=True)
    return triangulate(nodes[np.union1d(outline, inner[first])])


def apart(nodes: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Indices of all outline nodes of a mesh, and of a maximal set of other nodes of which no two share an edge: about
    a third, dense where the mesh is fine."""
    faces, which, counts = _faces(cells)
    sides = np.concatenate([np.stack([cells[:, i], cells[:, j]], 1) for i, j in np.ndindex(*cells.shape[1:] * 2)])
    joined = sparse.coo_matrix((np.ones(len(sides)), sides.T), shape=(len(nodes),) * 2).tocsr()
    outline = np.unique(faces[counts[which] == 1])
    taken, blocked = np.zeros((2, len(nodes)), dtype=bool)
    taken[outline] = blocked[joined[outline].indices] = True
    for node in range(len(nodes)):
        if not blocked[node]:
            taken[node], blocked[joined.indices[joined.indptr[node] : joined.indptr[node + 1]]] = True, True
    return np.flatnonzero(taken)


def _wide_cells_to_drop(cells: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """Mask (E,) of the wide cells to drop: clusters that reach the outline or have at least 4 cells (holes)."""
    d = cells.shape[1] - 1
    _, which, counts = _faces(cells)
    owner = np.tile(np.arange(len(cells)), d + 1)
    order = np.argsort(which, kind="stable")
    starts = np.cumsum(counts) - counts
    label = np.arange(len(cells))
    pairs = np.stack([owner[order[starts[counts == 2]]], owner[order[starts[counts == 2] + 1]]], 1)
    pairs = pairs[wide[pairs].all(1)]
    changed = True
    while changed:  # labels of connected wide cells: the least index
        low = label[pairs].min(1)
        before = label.copy()
        np.minimum.at(label, pairs[:, 0], low)
        np.minimum.at(label, pairs[:, 1], low)
        changed = bool((label != before).any())
    outer = np.zeros(len(cells), bool)
    outer[owner[order[starts[counts == 1]]]] = True
    size = np.bincount(label[wide], minlength=len(cells))
    edge = np.zeros(len(cells), bool)
    edge[label[wide & outer]] = True
    return wide & (edge[label] | (size[label] >= 4))


def _faces(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces (F, d) of cells (E, d + 1), first those opposite to the first corners, then to the second, ...; the index
    (F,) of each among the distinct faces, and their numbers of occurrences (1 on the outline)."""
    faces = np.concatenate([np.delete(cells, j, 1) for j in range(cells.shape[1])])
    _, which, counts = np.unique(np.sort(faces, 1), axis=0, return_inverse=True, return_counts=True)
    return faces, which.ravel(), counts


def _signed(nodes: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Signed measures of cells (E,), up to the factor d!."""
    edges = nodes[cells[:, 1:]] - nodes[cells[:, :1]]
    return np.linalg.det(edges)


def _circumradius(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    edges = points[cells[:, 1:]] - points[cells[:, :1]]
    flat = np.abs(np.linalg.det(edges)) < 1e-12 * np.abs(edges).max((1, 2)) ** points.shape[1]
    edges = np.where(flat[:, None, None], np.eye(points.shape[1]), edges)
    centre = np.linalg.solve(edges, 0.5 * (edges**2).sum(-1)[..., None])[..., 0]
    return np.where(flat, np.inf, np.linalg.norm(centre, axis=1))
