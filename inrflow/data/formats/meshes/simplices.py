"""Decomposition of the cells of meshes into simplices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inrflow.data.formats.meshes.mesh_writers import CELLS

#: Decomposition of cells into linear simplices, by nodes; quadratic cells have nodes at the midpoints of their sides.
_PARTS: dict[str, dict[str, list[list[int]]]] = {
    "line": {"line": [[0, 1]], "line3": [[0, 2], [2, 1]]},
    "triangle": {
        "triangle": [[0, 1, 2]], "quad": [[0, 1, 2], [0, 2, 3]],
        "triangle6": [[0, 3, 5], [3, 1, 4], [5, 4, 2], [3, 4, 5]],
        "quad8": [[0, 4, 7], [1, 5, 4], [2, 6, 5], [3, 7, 6], [4, 5, 6], [4, 6, 7]],
    },
    "tetra": {
        "tetra": [[0, 1, 2, 3]],
        "tetra10": [[0, 4, 6, 7], [4, 1, 5, 8], [6, 5, 2, 9], [7, 8, 9, 3],
                    [4, 9, 7, 8], [4, 9, 8, 5], [4, 9, 5, 6], [4, 9, 6, 7]],
    },
}
#: Faces of cells that are no simplices, by nodes in turn around them.
_FACES: dict[str, list[list[int]]] = {
    "hexahedron": [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]],
    "wedge": [[0, 1, 2], [3, 4, 5], [0, 1, 4, 3], [1, 2, 5, 4], [2, 0, 3, 5]],
    "pyramid": [[0, 1, 2, 3], [0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]],
}


def _pulled(nodes: np.ndarray, faces: list[list[int]]) -> np.ndarray:
    """Tetrahedra of convex cells (E, k), from their node of smallest number to the faces without it, which are divided
    into triangles from theirs, so that cells divide shared faces alike (a pulling triangulation)."""
    parts = []
    for face in faces:
        away = (nodes[:, face] != nodes.min(1)[:, None]).all(1)
        own, apex, size = nodes[away][:, face], nodes[away].min(1), len(face)
        own = np.take_along_axis(own, (own.argmin(1)[:, None] + np.arange(size)) % size, 1)
        parts += [np.column_stack([apex, own[:, [0, corner, corner + 1]]]) for corner in range(1, size - 1)]
    return np.concatenate(parts)


def simplices(cells: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Simplices of the cells of highest dimension, by their name in the schema; empty if some cannot be decomposed."""
    dimensions = {kind: 0 if kind == "vertex" else 1 if kind.startswith("line") else 2 if kind.startswith(
        ("triangle", "quad", "polygon")) else 3 for kind, one in cells.items() if len(one)}
    most = max(dimensions.values(), default=0)
    kind = ("", "line", "triangle", "tetra")[most]
    own = [name for name, dimension in dimensions.items() if dimension == most]
    if not most or not set(own) <= {*_PARTS[kind], *_FACES}:
        return {}
    parts = [part for name in own for part in ([_pulled(np.asarray(cells[name]), _FACES[name])] if name in _FACES else
                                               [np.asarray(cells[name])[:, nodes] for nodes in _PARTS[kind][name]])]
    return {CELLS[kind]: np.concatenate(parts).astype(np.int64)}
