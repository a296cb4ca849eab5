"""Files that VTK reads, written by VTK itself or after the published layout: images, pieces, grids of XDMF, CGNS."""

import h5py
import numpy as np
import pytest

from inrflow.data.formats.convert import convert
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

vtk = pytest.importorskip("vtkmodules.vtkIOXML", exc_type=ImportError)

NODES = np.array([[x, y, 0] for y in range(4) for x in range(5)], float)
TRIANGLES = np.array([[i + 5 * j + a for a in own] for j in range(3) for i in range(4)
                      for own in ((0, 1, 5), (1, 6, 5))])


def taken(path, target):
    convert(path, target, overwrite=True)
    with TrajectoryFile(target) as file:
        return file.description, file.read(0), file.cells_of(0)


def grid_of(nodes, triangles, time=0.0):
    """A grid of VTK with the field T = x + y + time."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import VTK_TRIANGLE, vtkUnstructuredGrid

    grid, points = vtkUnstructuredGrid(), vtkPoints()
    points.SetDataTypeToDouble()
    for node in nodes:
        points.InsertNextPoint(node)
    grid.SetPoints(points)
    for one in triangles:
        grid.InsertNextCell(VTK_TRIANGLE, 3, one.tolist())
    values = numpy_to_vtk(nodes[:, 0] + nodes[:, 1] + time, deep=True)
    values.SetName("T")
    grid.GetPointData().AddArray(values)
    return grid


def write(grid, path):
    writer = vtk.vtkXMLUnstructuredGridWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(grid)
    writer.Write()


@pytest.mark.parametrize("most", [1, 500])
def test_pieces_are_joined_without_their_ghosts(most, tmp_path, monkeypatch):
    monkeypatch.setattr("inrflow.data.formats.meshes.vtk_files._MOST", most)
    from vtkmodules.util.numpy_support import numpy_to_vtk

    first = NODES[TRIANGLES].mean(1)[:, 0] < 2
    for time in range(2):
        for number, own in enumerate((first, ~first)):
            shared = np.isin(TRIANGLES, TRIANGLES[own]).any(1)  # one layer of the other piece's
            used = np.unique(TRIANGLES[shared])
            grid = grid_of(NODES[used], np.searchsorted(used, TRIANGLES[shared]), time)
            ghosts = numpy_to_vtk((~own[shared]).astype(np.uint8), deep=True)
            ghosts.SetName("vtkGhostType")
            grid.GetCellData().AddArray(ghosts)
            write(grid, tmp_path / f"piece_{time}_{number}.vtu")
        (tmp_path / f"all_{time}.pvtu").write_text(f"""<?xml version="1.0"?>
            <VTKFile type="PUnstructuredGrid" version="0.1"><PUnstructuredGrid GhostLevel="1">
            <PPointData><PDataArray type="Float64" Name="T"/></PPointData>
            <PCellData><PDataArray type="UInt8" Name="vtkGhostType"/></PCellData>
            <PPoints><PDataArray type="Float64" NumberOfComponents="3"/></PPoints>
            <Piece Source="piece_{time}_0.vtu"/><Piece Source="piece_{time}_1.vtu"/></PUnstructuredGrid></VTKFile>""")
    (tmp_path / "all.pvd").write_text("""<VTKFile type="Collection"><Collection><DataSet timestep="0.5"
        file="all_0.pvtu"/><DataSet timestep="1.5" file="all_1.pvtu"/></Collection></VTKFile>""")
    _, frames, cells = taken(tmp_path / "all.pvd", tmp_path / "all.h5")
    assert frames.t.tolist() == [0.5, 1.5] and len(cells) == len(TRIANGLES)
    assert len(frames.x) == len(NODES) and {tuple(one) for one in frames.x} == {tuple(one) for one in NODES[:, :2]}
    np.testing.assert_allclose(frames.u[..., 0], frames.x.sum(1) + np.array([[0], [1]]))
    corners = np.sort(frames.x[cells], 1)
    np.testing.assert_allclose(np.sort(corners.mean(1).sum(1)), np.sort(NODES[TRIANGLES].mean(1).sum(1)))


def test_vtu_of_a_newer_version_goes_in(tmp_path):
    write(grid_of(NODES, TRIANGLES), tmp_path / "new.vtu")
    _, frames, cells = taken(tmp_path / "new.vtu", tmp_path / "new.h5")
    assert np.array_equal(cells, TRIANGLES)
    np.testing.assert_allclose(frames.u[0, :, 0], NODES.sum(1))


def test_grids_of_xdmf_go_in(tmp_path):
    u = np.random.default_rng(0).normal(size=(3, 4, 5))
    with h5py.File(tmp_path / "values.h5", "w") as file:
        for step in range(3):
            file[f"u{step}"] = u[step]
    steps = "".join(f"""<Grid GridType="Uniform"><Time Value="{step / 2}"/>
        <Topology TopologyType="2DCoRectMesh" NumberOfElements="4 5"/><Geometry GeometryType="ORIGIN_DXDY">
        <DataItem Format="XML" Dimensions="2" Precision="8">0 1</DataItem>
        <DataItem Format="XML" Dimensions="2" Precision="8">.2 .1</DataItem></Geometry>
        <Attribute Name="u" Center="Node"><DataItem Dimensions="4 5" NumberType="Float" Precision="8" Format="HDF">
        values.h5:/u{step}</DataItem></Attribute></Grid>""" for step in range(3))
    text = f"""<?xml version="1.0"?><Xdmf Version="2.0"><Domain><Grid GridType="Collection" CollectionType="Temporal">
        {steps}</Grid></Domain></Xdmf>"""
    (tmp_path / "grid.xdmf").write_text(text)
    about, frames, _ = taken(tmp_path / "grid.xdmf", tmp_path / "grid.h5")
    assert about.coordinates == ("x", "y") and frames.t.tolist() == [0, 0.5, 1]
    y, x = np.meshgrid(0.2 * np.arange(4), 1 + 0.1 * np.arange(5), indexing="ij")
    np.testing.assert_allclose(frames.x, np.stack([x.ravel(), y.ravel()], -1), atol=1e-12)
    np.testing.assert_allclose(frames.u[..., 0], u.reshape(3, -1), rtol=1e-6)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "grid.xdmf").write_text(text.replace("values.h5", "../values.h5"))
    with pytest.raises(UserError, match="outside of its folder"):
        convert(tmp_path / "below" / "grid.xdmf", tmp_path / "below.h5")


def cgns(path, u):
    """A zone of a structured grid in CGNS, after the mapping of its nodes to HDF5."""
    def node(parent, name, label, value=None):
        own = parent.create_group(name)
        kind = "MT" if value is None else {"i": "I4", "f": "R8", "S": "C1"}[np.asarray(value).dtype.kind]
        for key, text, size in (("label", label, 33), ("name", name, 33), ("type", kind, 3)):
            own.attrs[key] = np.array(text.encode(), f"S{size}")
        own.attrs["flags"] = np.array([1], np.int32)
        if value is not None:
            value = np.frombuffer(value, np.int8) if isinstance(value, bytes) else np.asarray(value)
            own[" data"] = value
        return own

    with h5py.File(path, "w") as file:
        for key, text, size in (("label", b"Root Node of HDF5 File", 33), ("name", b"HDF5 MotherNode", 33),
                                ("type", b"MT", 3)):
            file.attrs[key] = np.array(text, f"S{size}")
        node(file, "CGNSLibraryVersion", "CGNSLibraryVersion_t", np.array([3.3], np.float32)).attrs["type"] = b"R4"
        base = node(file, "Base", "CGNSBase_t", np.array([2, 2], np.int32))
        zone = node(base, "Zone", "Zone_t", np.array([[5, 4], [4, 3], [0, 0]], np.int32))
        node(zone, "ZoneType", "ZoneType_t", b"Structured")
        places = node(zone, "GridCoordinates", "GridCoordinates_t")
        for axis, line in (("X", NODES[:, 0]), ("Y", NODES[:, 1])):
            node(places, f"Coordinate{axis}", "DataArray_t", line.reshape(4, 5))
        field = node(zone, "FlowSolution", "FlowSolution_t")
        node(field, "GridLocation", "GridLocation_t", b"Vertex")
        node(field, "Pressure", "DataArray_t", u.reshape(4, 5))


def test_cgns_goes_in(tmp_path):
    u = np.random.default_rng(0).normal(size=20)
    cgns(tmp_path / "case_7.cgns", u)
    about, frames, cells = taken(tmp_path / "case_7.cgns", tmp_path / "case.h5")
    assert about.channels == ("Pressure",) and frames.t.tolist() == [7] and len(cells) == 24
    np.testing.assert_allclose(frames.x, NODES[:, :2])
    np.testing.assert_allclose(frames.u[0, :, 0], u, rtol=1e-6)


def test_damage_ends_in_a_sentence(tmp_path):
    write(grid_of(NODES, TRIANGLES), tmp_path / "piece.vtu")
    (tmp_path / "a.pvtu").write_text("""<VTKFile type="PUnstructuredGrid"><PUnstructuredGrid><PPointData>
        <PDataArray type="Float64" Name="T"/></PPointData><Piece Source="piece.vtu"/></PUnstructuredGrid></VTKFile>""")
    whole = (tmp_path / "piece.vtu").read_bytes()
    (tmp_path / "piece.vtu").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.pvtu cannot be read"):
        convert(tmp_path / "a.pvtu", tmp_path / "a.h5")


@pytest.mark.parametrize("mode", ["Ascii", "Binary", "Appended"])
def test_polyhedra_are_read_in_every_encoding_and_other_cells_without_vtk(mode, tmp_path, monkeypatch):
    from vtkmodules.vtkCommonCore import vtkIdList
    from vtkmodules.vtkCommonDataModel import VTK_POLYHEDRON

    corners = np.array([[x, y, z] for z in (0.0, 1.0) for y in (0.0, 1.0) for x in (0.0, 1.0)])
    faces = [[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]]
    for step in range(2):
        grid, stream = grid_of(corners, TRIANGLES[:0], step), vtkIdList()
        for number in (6, *(number for face in faces for number in (4, *face))):
            stream.InsertNextId(number)
        grid.InsertNextCell(VTK_POLYHEDRON, stream)
        for name, one in (("poly", grid), ("flat", grid_of(NODES, TRIANGLES, step))):
            writer = vtk.vtkXMLUnstructuredGridWriter()
            writer.SetFileName(str(tmp_path / f"{name}_{step}.vtu"))
            writer.SetInputData(one)
            getattr(writer, f"SetDataModeTo{mode}")()
            writer.EncodeAppendedDataOff()
            writer.Write()
    about, frames, _ = taken(tmp_path / "poly_*.vtu", tmp_path / "out.h5")
    assert about.channels == ("T",)
    order = np.lexsort(frames.x.T)
    np.testing.assert_allclose(frames.u[1, order, 0], corners.sum(1) - corners[:, 2] + 1)
    monkeypatch.setattr("inrflow.data.formats.meshes.vtk_files.find_spec", lambda name: None)
    about, frames, cells = taken(tmp_path / "flat_*.vtu", tmp_path / "out.h5")
    np.testing.assert_allclose(frames.u[1, :, 0], NODES[:, :2].sum(1) + 1)
    assert len(cells) == len(TRIANGLES)
