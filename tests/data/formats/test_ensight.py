"""Cases of EnSight Gold: parts, elements, both encodings and orders of bytes; what is damaged is named."""

import random
import shutil

import numpy as np
import pytest
from ensight_cases import write_case

from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.meshes.ensight import EnsightSeries
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

NODES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]], float)
TETRAHEDRA, TRIANGLES = np.array([[0, 1, 2, 4], [1, 3, 2, 5]]), np.array([[0, 1, 2], [1, 3, 2]])
TIMES = [0.0, 0.5, 2.0]
P = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)


@pytest.fixture
def case(tmp_path):
    return tmp_path / "run" / "flow.case"


def written(case, **options):
    write_case(case, NODES, [{"tetra4": TETRAHEDRA}, {"tria3": TRIANGLES}], {"p": ("node", P)}, TIMES, **options)


@pytest.mark.parametrize("options", [{}, {"ids": True}, {"binary": True}, {"binary": True, "order": ">", "ids": True}])
def test_the_part_that_fills_space_is_taken(case, tmp_path, options):
    written(case, **options)
    convert(case, tmp_path / "flow.h5")
    with TrajectoryFile(tmp_path / "flow.h5") as file:
        frames = file.read(0)
        np.testing.assert_array_equal(file.cells_of(0), TETRAHEDRA)
    assert frames.t.tolist() == TIMES
    np.testing.assert_array_equal(frames.x, NODES)
    np.testing.assert_array_equal(frames.u[..., 0], P)


def test_another_library_reads_the_same(case):
    ensightreader = pytest.importorskip("ensightreader")
    written(case, binary=True)
    found = ensightreader.read_case(case)
    part = found.get_geometry_model().get_part_by_name("part 1")
    with found.get_geometry_model().open() as file:
        np.testing.assert_array_equal(part.read_nodes(file), NODES)
        np.testing.assert_array_equal(part.element_blocks[0].read_connectivity(file) - 1, TETRAHEDRA)
    variable = found.get_variable("p", 2)
    with variable.open() as file:
        np.testing.assert_array_equal(variable.read_node_data(file, 1), EnsightSeries(case).fields(2)["p"])


@pytest.mark.parametrize("binary", [False, True])
def test_values_of_elements_stand_at_their_centres(case, binary):
    q, U = ({"tria3": values[:, :2], "quad4": values[:, 2:3]} for values in (P[:, :3], np.dstack([P[:, :3]] * 3)))
    write_case(case, NODES[:4], [{"tria3": TRIANGLES, "quad4": np.array([[0, 1, 3, 2]])}],
               {"q": ("element", q), "U": ("element", U)}, TIMES, binary)
    series = EnsightSeries(case)
    np.testing.assert_allclose(series.points, [[1 / 3, 1 / 3], [2 / 3, 2 / 3], [0.5, 0.5]])
    np.testing.assert_allclose(series.fields(1)["q"], P[1, :3], rtol=1e-6)
    assert list(series.fields(1)) == ["q", "U_x", "U_y"]
    assert "centres of cells" in dict(describe(case))["points"]


def test_polyhedra_have_the_centre_of_their_faces(case):
    faces = [[0, 1, 2], [0, 1, 4], [0, 2, 4], [1, 2, 4]]
    write_case(case, NODES, [{"tetra4": TETRAHEDRA[:1]}], {"q": ("element", {"tetra4": P[:, :1]})}, TIMES)
    text = case.with_suffix(".geo").read_text()
    corners = "\n".join(" ".join(str(node + 1) for node in face) for face in faces)
    case.with_suffix(".geo").write_text(f"{text[:text.index('tetra4')]}nfaced\n1\n4\n3\n3\n3\n3\n{corners}\n")
    for path in case.parent.glob("flow_q.*"):
        path.write_text(path.read_text().replace("tetra4", "nfaced"))
    np.testing.assert_allclose(EnsightSeries(case).points, [[0.25, 0.25]])  # one layer of cells, in the plane


def test_undefined_and_partial_values_are_missing(case):
    written(case)
    for step, change in (("003", "coordinates undef\n-9999"), ("005", "coordinates partial\n2\n2\n5")):
        path = case.with_name(f"flow_p.{step}")
        head, *rows = path.read_text().split("coordinates\n")
        values = ["-9999", *rows[0].split("\n")[1:6]] if step == "003" else ["1.5", "2.5"]
        path.write_text(head + change + "\n" + "\n".join(values) + "\n")
    series = EnsightSeries(case)
    np.testing.assert_array_equal(series.fields(0)["p"], [np.nan, *P[0, 1:]])
    np.testing.assert_array_equal(series.fields(1)["p"], [np.nan, 1.5, np.nan, np.nan, 2.5, np.nan])


@pytest.mark.parametrize(("old", "new", "words"), [
    ("ensight gold", "ensight", "ParaView"), ("model: flow.geo", "", "no geometry"),
    ("model: flow.geo", "model: ../secret.geo", "outside of its folder"), ("flow.geo", "gone.geo", "does not exist"),
    ("number of steps: 3", "number of steps: 4", "announces 4 steps"), ("0.5\n", "0.0\n", "holds a time twice"),
    ("time values:", "time values file:", "time values"), ("per node: 1", "per node: 7", "time set 7"),
])
def test_cases_that_cannot_be_read_are_told_in_a_sentence(case, tmp_path, old, new, words):
    written(case)
    (tmp_path / "secret.geo").write_bytes(case.with_suffix(".geo").read_bytes())
    text = case.read_text()
    assert old in text
    case.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=words):
        EnsightSeries(case)


@pytest.mark.filterwarnings("ignore:.*are not read")
@pytest.mark.parametrize("binary", [False, True])
def test_damage_ends_in_a_sentence(case, tmp_path, binary):
    written(case, binary=binary)
    whole, chance = case.parent, random.Random(0)
    for trial in range(60):
        folder = tmp_path / f"damaged{trial}"
        shutil.copytree(whole, folder)
        path = chance.choice(sorted(folder.iterdir()))
        data = bytearray(path.read_bytes())
        at = chance.randrange(len(data))
        data[at:] = data[:0] if trial % 3 == 0 else [chance.randrange(256), *data[at + 1 + trial % 2 * 30:]]
        path.write_bytes(data)
        try:
            convert(folder / "flow.case", tmp_path / "data.h5", overwrite=True)
        except UserError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
