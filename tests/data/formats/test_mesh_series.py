"""Mesh series written by meshio are read with their mesh, and answers are written for ParaView and read back."""

import errno
import warnings

import meshio
import numpy as np
import pytest

from inrflow.data.description import Description
from inrflow.data.formats.columns import PointTable
from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.tables import read_points, write_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

NODES = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 0]], float)
TRIANGLES = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
TIMES = [0.0, 0.25, 1.0]


def field(t):
    return np.sin(NODES[:, 0] + t), np.stack([NODES[:, 0] * t, NODES[:, 1] + t, 0 * NODES[:, 0]], -1)


def write_pvd(folder, name="flow.pvd", nodes=lambda step: NODES):
    lines = []
    for step, t in enumerate(TIMES):
        p, velocity = field(t)
        meshio.vtu.write(str(folder / f"s_{step}.vtu"), meshio.Mesh(
            nodes(step), [("triangle", TRIANGLES)], {"p": p, "U": velocity}))
        lines.append(f'<DataSet timestep="{t}" part="0" file="s_{step}.vtu"/>')
    (folder / name).write_text(f'<?xml version="1.0"?><VTKFile type="Collection"><Collection>{"".join(lines)}'
                               "</Collection></VTKFile>")
    return folder / name


def check(path, channels):
    with TrajectoryFile(path) as file:
        frames = file.read(0)
        assert file.description.channels == channels
        np.testing.assert_array_equal(file.cells_of(0), TRIANGLES)
    np.testing.assert_array_equal(frames.t, TIMES)
    np.testing.assert_array_equal(frames.x, NODES[:, :2])
    for step, t in enumerate(TIMES):
        p, velocity = field(t)
        whole = np.column_stack([p, velocity[:, :2]])[:, : len(channels)]
        np.testing.assert_allclose(frames.u[step], whole.astype(np.float32), rtol=0, atol=0)


def test_a_pvd_collection_is_a_trajectory_on_its_triangles(tmp_path):
    source = write_pvd(tmp_path)
    convert(source, tmp_path / "a.h5")
    check(tmp_path / "a.h5", ("p", "U_x", "U_y"))
    assert ("cells", "4 triangles") in describe(source)


def test_files_of_time_steps_are_joined_by_the_numbers_in_their_names(tmp_path):
    write_pvd(tmp_path)
    convert(str(tmp_path / "s_*.vtu"), tmp_path / "a.h5", channels=["p"])
    with TrajectoryFile(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file.read(0).t, [0, 1, 2])
        np.testing.assert_array_equal(file.cells_of(0), TRIANGLES)


def test_an_xdmf_series_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # meshio names the HDF5 file relative to the working folder
    with meshio.xdmf.TimeSeriesWriter("flow.xdmf") as writer:
        writer.write_points_cells(NODES, [("triangle", TRIANGLES)])
        for t in TIMES:
            writer.write_data(t, point_data={"p": field(t)[0].astype(np.float32)})
    convert(tmp_path / "flow.xdmf", tmp_path / "a.h5")
    check(tmp_path / "a.h5", ("p",))


def write_of_fenicsx(path, mesh="", times=TIMES):
    """Two functions as FEniCSx writes them: a series each, with the mesh of the same file included."""
    def item(values):
        values = np.asarray(values)
        return (f'<DataItem Dimensions="{" ".join(map(str, values.shape))}" Format="XML" NumberType='
                f'"{"Int" if values.dtype.kind == "i" else "Float"}" Precision="8">'
                f'{" ".join(map(repr, values.ravel().tolist()))}</DataItem>')

    own = (f'<Topology TopologyType="Triangle">{item(TRIANGLES)}</Topology>'
           f'<Geometry GeometryType="XY">{item(NODES[:, :2])}</Geometry>')
    include = f"""<xi:include {mesh}xpointer="xpointer(/Xdmf/Domain/Grid[1]/*[self::Topology or self::Geometry])"/>"""
    series = "".join(f'<Grid Name="{name}" GridType="Collection" CollectionType="Temporal">' + "".join(
        f'<Grid Name="{name}" GridType="Uniform">{include}<Time Value="{t}"/><Attribute Name="{name}" Center="Node">'
        f"{item(field(t)[index])}</Attribute></Grid>" for t in at) + "</Grid>"
        for index, (name, at) in enumerate((("p", times), ("U", TIMES))))
    path.write_text('<?xml version="1.0"?><!DOCTYPE Xdmf SYSTEM "Xdmf.dtd" []><Xdmf Version="3.0" xmlns:xi='
                    f'"https://www.w3.org/2001/XInclude"><Domain><Grid Name="mesh" GridType="Uniform">{own}</Grid>'
                    f"{series}</Domain></Xdmf>")


def test_series_of_fenicsx_include_their_own_mesh_alone(tmp_path):
    write_of_fenicsx(tmp_path / "flow.xdmf")
    convert(tmp_path / "flow.xdmf", tmp_path / "a.h5", channels=["p", "U_x", "U_y"])
    check(tmp_path / "a.h5", ("p", "U_x", "U_y"))
    write_of_fenicsx(tmp_path / "b.xdmf", mesh='href="/etc/hostname" ')
    with pytest.raises(UserError, match="includes of other files, which are not followed"):
        convert(tmp_path / "b.xdmf", tmp_path / "b.h5")
    write_of_fenicsx(tmp_path / "c.xdmf", times=[0.0, 0.5, 1.0])
    with pytest.raises(UserError, match="series of fields at different times"):
        convert(tmp_path / "c.xdmf", tmp_path / "b.h5")


def test_fields_of_cells_lie_at_their_centres(tmp_path):
    mesh = meshio.Mesh(NODES, [("triangle", TRIANGLES)], cell_data={"k": [np.arange(4.0)]})
    meshio.vtu.write(str(tmp_path / "c_7.vtu"), mesh)
    convert(tmp_path / "c_7.vtu", tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        frames = file.read(0)
    np.testing.assert_allclose(frames.x, NODES[TRIANGLES].mean(1)[:, :2])
    np.testing.assert_array_equal(frames.u[0, :, 0], np.arange(4))


@pytest.mark.parametrize("name", ["out.pvd", "out.xdmf"])
def test_answers_come_back_from_paraviews_files(name, tmp_path):
    about = Description("flow", ("p",), ("x", "y"))
    points = read_points(write_pvd(tmp_path), about)
    value = np.random.default_rng(0).standard_normal(len(points)).astype(np.float32)
    wide = 1e-9 * np.random.default_rng(1).standard_normal(len(points))
    flag = np.arange(len(points), dtype=np.int8) % 2
    write_points(tmp_path / name, points, {"p": value, "p_std": wide, "extrapolated": flag}, about)
    again = read_points(tmp_path / name, about)
    np.testing.assert_array_equal(again.t, points.t)
    np.testing.assert_array_equal(again.x, points.x)
    np.testing.assert_array_equal(again.columns["p"].astype(np.float32), value)
    np.testing.assert_array_equal(again.columns["p_std"], wide)
    np.testing.assert_array_equal(again.columns["extrapolated"], flag)
    np.testing.assert_array_equal(again.grid.cells["triangles"], TRIANGLES)
    assert {path.name for path in tmp_path.glob("out*")} <= {name, "out_files"}
    with pytest.raises(UserError, match="exists already"):
        write_points(tmp_path / name, points, {"p": value}, about)


@pytest.mark.parametrize("name", ["answer.pvd", "answer.xdmf"])
def test_answers_to_fields_of_cells_are_of_the_same_cells(name, tmp_path):
    """Triangles and a quadrilateral, whose centres are the points."""
    nodes = np.vstack([NODES, [[2, 0, 0], [2, 1, 0]]])
    cells = [("triangle", TRIANGLES), ("quad", np.array([[1, 5, 6, 2]]))]
    meshio.write(tmp_path / "a.vtu", meshio.Mesh(nodes, cells, cell_data={"T": [np.arange(4.0), np.array([7.0])]}))
    about = Description("heat", ("T",), ("x", "y"))
    table = read_points(tmp_path / "a.vtu", about)
    write_points(tmp_path / name, table, {"T_q50": np.arange(5.0)}, about)
    if name == "answer.pvd":
        found = meshio.read(tmp_path / "answer_files/answer_000000.vtu")
        points, blocks, data = found.points, found.cells, found.cell_data
    else:
        with meshio.xdmf.TimeSeriesReader(tmp_path / name) as reader:
            points, blocks = reader.read_points_cells()
            data = reader.read_data(0)[2]
    np.testing.assert_array_equal(points[:, :2], nodes[:, :2])
    assert [(block.type, block.data.tolist()) for block in blocks] == [(kind, own.tolist()) for kind, own in cells]
    assert np.concatenate(data["T_q50"]).tolist() == [0, 1, 2, 3, 4]
    assert np.concatenate(data["T"]).tolist() == [0, 1, 2, 3, 7]
    elsewhere = PointTable(table.trajectory, table.t, table.x + 0.1, {**table.columns, "x": table.x[:, 0] + 0.1},
                           table.grid)
    write_points(tmp_path / f"other_{name}", elsewhere, {"T_q50": np.arange(5.0)}, about)
    if name == "answer.pvd":
        assert meshio.read(tmp_path / "other_answer_files/other_answer_000000.vtu").cells[0].type == "vertex"


def test_trajectories_come_back_as_parts(tmp_path):
    about = Description("flow", ("p",), ("x", "y"))
    number, t = np.repeat([0, 1], 10), np.tile(np.repeat([0.0, 1.0], 5), 2)
    x = np.tile(NODES[:, :2], (4, 1))
    columns = {"trajectory": number, "t": t, "x": x[:, 0], "y": x[:, 1]}
    write_points(tmp_path / "out.pvd", PointTable(number, t, x, columns), {"p": np.arange(20.0)}, about)
    again = read_points(tmp_path / "out.pvd", about)
    np.testing.assert_array_equal(again.trajectory, number)
    np.testing.assert_array_equal(again.columns["p"], np.arange(20.0))
    with pytest.raises(UserError, match="several trajectories, and XDMF holds one"):
        write_points(tmp_path / "out.xdmf", PointTable(number, t, x, columns), {"p": np.arange(20.0)}, about)
    assert not (tmp_path / "out.xdmf").exists()


@pytest.mark.parametrize(("columns", "words"), [
    ({"name": np.array(["a", "b"], object)}, "holds text"), ({}, "are others than before")])
def test_tables_that_are_no_mesh_series_are_refused_whole(tmp_path, columns, words):
    about = Description("flow", ("p",), ("x",))
    t, x = np.array([0.0, 1.0]), np.array([0.0, 0.5])
    table = PointTable(np.zeros(2, int), t, x[:, None], {"t": t, "x": x, **columns})
    with pytest.raises(UserError, match=words):
        write_points(tmp_path / "out.pvd", table, {"p": x}, about)
    assert not (tmp_path / "out.pvd").exists()


def test_meshes_that_change_and_files_elsewhere_are_refused(tmp_path):
    source = write_pvd(tmp_path, nodes=lambda step: NODES * (1 + step))
    with pytest.raises(UserError, match="meshes that move"):
        convert(source, tmp_path / "a.h5")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.pvd").write_text(source.read_text().replace("s_0", "../s_0"))
    with pytest.raises(UserError, match="outside of its folder"):
        convert(inner / "a.pvd", tmp_path / "a.h5")
    (tmp_path / "s_1.vtu").write_bytes((tmp_path / "s_1.vtu").read_bytes()[:300])
    with pytest.raises(UserError, match="cannot be read by meshio"):
        convert(source, tmp_path / "a.h5")


@pytest.mark.parametrize("across", [1e-12, 0.5])
def test_vectors_that_leave_the_plane_of_a_slice_are_told(across, tmp_path):
    nodes = np.array([[0, 0, 2], [1, 0, 2], [1, 1, 2], [0, 1, 2]], float)
    for step in range(2):
        v = np.column_stack([nodes[:, :2], np.full(4, step * across)])  # at rest at first
        meshio.Mesh(nodes, [("triangle", np.array([[0, 1, 2], [0, 2, 3]]))], {"v": v}).write(tmp_path / f"s_{step}.vtu")
    (tmp_path / "s.pvd").write_text("""<VTKFile type="Collection"><Collection><DataSet timestep="0" file="s_0.vtu"/>
        <DataSet timestep="1" file="s_1.vtu"/></Collection></VTKFile>""")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        convert(tmp_path / "s.pvd", tmp_path / "s.h5")
    assert [str(one.message).partition(": ")[2] for one in told if "plane" in str(one.message)] == [
        "v_z, across the plane of the mesh, is left out; channels=[v_x,v_y,v_z] takes all"] * (across == 0.5)
    convert(tmp_path / "s.pvd", tmp_path / "all.h5", channels=["v_x", "v_y", "v_z"])
    with TrajectoryFile(tmp_path / "s.h5") as file, TrajectoryFile(tmp_path / "all.h5") as whole:
        assert file.description.channels == ("v_x", "v_y") and file.description.coordinates == ("x", "y")
        np.testing.assert_allclose(whole.read(0).u[..., 2], [[0] * 4, [across] * 4])


@pytest.mark.parametrize("moves", [False, True])
def test_meshes_of_an_xdmf_series_are_those_of_each_step(moves, tmp_path):
    def listed(values, kind=""):
        numbers = " ".join(map(str, np.ravel(values).tolist()))
        shape = " ".join(map(str, np.shape(values)))
        return f'<DataItem Dimensions="{shape}" {kind} Format="XML">{numbers}</DataItem>'

    steps = []
    for step, t in enumerate(TIMES):
        nodes = NODES[:, :2] * (1 + step * moves)
        cells = listed(TRIANGLES, 'NumberType="Int"')
        steps.append(f'<Grid GridType="Uniform"><Topology TopologyType="Triangle" NumberOfElements="{len(TRIANGLES)}">'
                     f'{cells}</Topology><Geometry GeometryType="XY">{listed(nodes)}'
                     f'</Geometry><Time Value="{t}"/><Attribute Name="p" AttributeType="Scalar" Center="Node">'
                     f'{listed(field(t)[0])}</Attribute></Grid>')
    (tmp_path / "a.xdmf").write_text('<Xdmf Version="3.0"><Domain><Grid GridType="Collection" '
                                     f'CollectionType="Temporal">{"".join(steps)}</Grid></Domain></Xdmf>')
    if moves:
        with pytest.raises(UserError, match="points at t=0.25 are others"):
            convert(tmp_path / "a.xdmf", tmp_path / "out.h5")
        return
    convert(tmp_path / "a.xdmf", tmp_path / "out.h5")
    with TrajectoryFile(tmp_path / "out.h5") as file:
        np.testing.assert_allclose(file.read(0).u[..., 0], [field(t)[0] for t in TIMES], rtol=1e-6)


def test_a_full_disk_is_told_and_leaves_an_earlier_collection_as_it_was(tmp_path, monkeypatch):
    about, t = Description("plate", ("u",), ("x", "y")), np.repeat(np.arange(3.0), 4)
    x = np.tile([[0.0, 0], [1, 0], [1, 1], [0, 1]], (3, 1))
    rows = PointTable(np.zeros(12, np.int64), t, x, {"t": t, "x": x[:, 0], "y": x[:, 1]})
    write_points(tmp_path / "a.pvd", rows, {"u": np.zeros(12)}, about)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write, calls = meshio.vtu.write, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(meshio.vtu, "write", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        write_points(tmp_path / "a.pvd", rows, {"u": np.ones(12)}, about, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
