"""Decomposition of the cells of meshes into simplices."""

import meshio
import numpy as np
import pytest

from inrflow.data.formats.convert import convert
from inrflow.data.formats.meshes.simplices import simplices
from inrflow.data.formats.trajectory_file import TrajectoryFile

CUBE = np.array([0, 1, 5, 4, 16, 17, 21, 20])  # nodes of the first of 3 x 3 x 3 cells


def mixed(seed):
    """Nodes (64, 3) of a slanted grid in random order, and its cells: hexahedra, wedges and pyramids that match."""
    axis = np.arange(4.0)
    x = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).transpose(2, 1, 0, 3).reshape(-1, 3)
    order = np.random.default_rng(seed).permutation(65)
    cells = np.stack([CUBE + i + 4 * j + 16 * k for k in range(3) for j in range(3) for i in range(3)])
    own, wedges, middle = cells[1:-1], cells[:1], cells[-1]
    faces = [[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]
    parts = {"hexahedron": own, "wedge": np.concatenate([wedges[:, [0, 1, 2, 4, 5, 6]], wedges[:, [0, 2, 3, 4, 6, 7]]]),
             "pyramid": np.array([[*middle[face], 64] for face in faces])}
    points = np.zeros((65, 3))
    points[order] = np.vstack([x, x[middle].mean(0)]) @ np.array([[1, 0.2, 0], [0, 1, 0.3], [0.1, 0, 1]])
    return points, {name: order[nodes] for name, nodes in parts.items()}


@pytest.mark.parametrize("seed", range(4))
def test_tetrahedra_of_other_cells_fill_them_and_match_across_their_faces(seed):
    points, cells = mixed(seed)
    tetrahedra = simplices(cells)["tetrahedra"]
    corners = points[tetrahedra]
    volumes = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6
    det = np.linalg.det(np.array([[1, 0.2, 0], [0, 1, 0.3], [0.1, 0, 1]]))
    assert volumes.min() > 0 and volumes.sum() == pytest.approx(27 * det)
    faces = np.sort(np.concatenate([np.delete(tetrahedra, k, 1) for k in range(4)]), 1)
    found, counts = np.unique(faces, axis=0, return_counts=True)
    sides = points[found[counts == 1]]
    assert counts.max() == 2 and len(sides) == 6 * 9 * 2  # two triangles of each of the outer faces


def test_a_mesh_of_hexahedra_keeps_its_cells(tmp_path):
    points, cells = mixed(0)
    for step in range(2):
        meshio.Mesh(points, list(cells.items()), {"heat": step + points[:, 0]}).write(tmp_path / f"a_{step}.vtu")
    convert(str(tmp_path / "a_*.vtu"), tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        assert file.cells.shape == (25 * 6 + 2 * 3 + 6 * 2, 4)


def test_cells_that_are_not_divided_are_told(tmp_path):
    points = np.random.default_rng(0).normal(size=(20, 3))
    for step in range(2):
        meshio.Mesh(points, [("hexahedron20", np.arange(20)[None])], {"heat": step + points[:, 0]}).write(
            tmp_path / f"b_{step}.vtu")
    with pytest.warns(UserWarning, match="hexahedron20 are not divided into simplices: the mesh is left out"):
        convert(str(tmp_path / "b_*.vtu"), tmp_path / "b.h5")
