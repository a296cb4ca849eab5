"""Meshes of VTK, XDMF and Tecplot, read by meshio (the extra `mesh`): a file, or a PVD collection with a file per time;
others, such as pieces, blocks and images, are read by VTK (vtk_files.py).

Fields at the nodes become channels, one for each component of vectors; if there are none, fields of the cells at their
centres do. Triangles (also of curved surfaces), tetrahedra and segments are kept as the mesh of the trajectory.
"""

from __future__ import annotations

import json
import re
import warnings
import xml.etree.ElementTree as xml
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar

import numpy as np

from inrflow.data.description import Description, without_answers
from inrflow.data.formats.columns import Columns, Grid
from inrflow.data.formats.meshes.mesh_writers import NODES, PvdWriter, XdmfWriter, meshio_for
from inrflow.data.formats.meshes.simplices import simplices
from inrflow.data.formats.meshes.tecplot import Zone, zones
from inrflow.data.formats.meshes.vtk_files import (
    POLYHEDRA,
    XML_OF_VTK,
    Mesh,
    arrays_for,
    inside,
    join_collections,
    kind_of,
    meshes_of,
    read_arrays,
    require_own,
)
from inrflow.data.formats.registry import Content, Format, ReadOptions, TableWriter
from inrflow.data.formats.streams.streamed import Part, StreamedContent, number_in_name
from inrflow.errors import UserError

_FLAT = 1e-7  # relative extent that counts as flat, in single precision
_TIMES = ("TimeValue", "TIME", "time")
_INTERNAL = re.compile("vtk|(Global|Pedigree)(Node|Element|Point|Cell)Ids?$")
_TECPLOT = rb"(title\b[^\n]*\s+)?variables\s*="


class MeshFormat(Format):
    """VTU, PVD and XDMF (XML), ParaView's series (JSON), legacy VTK (text or binary with a comment as first line), and
    Tecplot ASCII (text that names its variables)."""

    name = "VTU, PVD, VTK, XDMF or Tecplot"
    about = "VTU, PVD, VTK, XDMF, Tecplot (meshes)"
    suffixes: ClassVar[tuple[str, ...]] = (".pvd", ".xdmf")
    table = True
    fixed_points = True
    signature: ClassVar[re.Pattern[bytes] | None] = re.compile(rb"""\s*(# vtk DataFile|%s|\{\s*"file-series-version"|"""
                           rb"""(?=<).*?(type=["'](UnstructuredGrid|Collection)["']|<Xdmf))""" % _TECPLOT,
                           re.IGNORECASE | re.DOTALL)

    def read(self, path: Path, options: ReadOptions) -> Content:
        return MeshContent(self.series(path), options)

    def series(self, path: Path) -> MeshSeries:
        return MeshSeries(path)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        series = self.series(path)
        cells = ", ".join(f"{len(item)} {name}" for name, item in series.cells.items()) or "none"
        return [("times", f"{len(series.times)}, {series.times.min():g} to {series.times.max():g}"),
                ("points", f"{len(series.points)}{'' if series.at_nodes else ' (centres of cells)'}"), ("cells", cells),
                ("fields", (", ".join(series.fields(0)) or "none") + series.left_out())]

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        return MeshColumns(self.series(path))

    def open_writer(self, path: Path, description: Description | None, overwrite: bool) -> TableWriter:
        return (XdmfWriter if path.suffix.lower() == ".xdmf" else PvdWriter)(path, description, overwrite)


class VtkFormat(MeshFormat):
    """VTK XML files other than a single unstructured grid."""

    name = "VTK's images, grids, surfaces, blocks or pieces"
    about = "VTI, VTR, VTS, VTP, VTM, PVTU and the like"
    suffixes = ()
    signature: ClassVar[re.Pattern[bytes] | None] = XML_OF_VTK


class VtkBinaryFormat(VtkFormat):
    """VTKHDF and CGNS files."""

    name = "VTKHDF or CGNS"
    about = "VTKHDF, CGNS"
    binary = True
    signature = None

    def sniff(self, path: Path, start: bytes) -> bool:
        return kind_of(path, start) in ("hdf", "cgns")

    def summary(self, path: Path) -> list[tuple[str, str]]:
        try:
            return super().summary(path)
        except UserError:
            return []  # `read` raises the error


def _time_of_legacy(start: bytes) -> list[float]:
    """Time in the first bytes of a legacy VTK file, whose field data meshio ignores; empty if there is none."""
    match = re.search(rb"\n(?:TIME|TimeValue) 1 1 (double|float)\n", start)
    if not start.startswith(b"# vtk") or match is None:
        return []
    kind = ">f8" if match[1] == b"double" else ">f4"
    if re.search(rb"\nBINARY\b", start):
        return [float(np.frombuffer(start, kind, 1, match.end())[0])]
    return [float(start[match.end():].split(maxsplit=1)[0])]


def _read_vtu(path: Path) -> Any:
    """VTU of any version: from 2 on, which meshio refuses, versions differ only for polyhedra, which VTK reads."""
    import meshio

    whole = path.read_bytes()
    if re.search(POLYHEDRA, whole):
        return read_arrays(meshes_of([path], "xml")[0][0][1])
    older = re.sub(rb'(<VTKFile[^>]*version=")2\.\d"', rb'\g<1>1.0"', whole, count=1)
    if older == whole:
        return meshio.vtu.read(str(path))
    with NamedTemporaryFile(suffix=".vtu") as copy:
        copy.write(older)
        copy.flush()
        return meshio.vtu.read(copy.name)


def _grids(reader: Any) -> list[tuple[np.ndarray, Any]]:
    """Points and cells of each step of an XDMF series: its own, else those of the step before or of all."""
    found = [reader.read_points_cells()]
    for grid in reader.collection:
        if grid is not reader.mesh_grid and grid.find("Geometry") is not None:
            reader.mesh_grid = grid
            found.append(reader.read_points_cells())
        else:
            found.append(found[-1])
    return found[1:]


def _is_tecplot(head: bytes) -> bool:
    return re.match(_TECPLOT, head, re.IGNORECASE) is not None


class MeshSeries:
    """Fields at the points of one mesh at S steps. Meshes after the first are read on demand.

    parts (S,), times (S,): number of the trajectory (the `part` of a PVD collection) and time of each step, sorted in
    this order; points (N, d), d = 2 if all lie in a plane of constant z (one layer of cells); cells: `triangles`,
    `tetrahedra` or, for curves, `segments`; around: for values at centres NODES (M, 3) and blocks of the cells.
    Raises UserError if a file is damaged or refers to files outside of its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: Any = None
        self._steps: list[Any] = [path]
        with self._reading():
            times = self._open(path)
        if not times:
            raise UserError(f"{path} names no file of a time step; give a collection of at least one")
        order = sorted(range(len(times)), key=lambda index: times[index])
        self._steps = [self._steps[index] for index in order]
        self.parts = np.array([times[index][0] for index in order], np.int64)
        self.times = np.array([times[index][1] for index in order], np.float64)
        again = (np.diff(self.times) <= 0) & (np.diff(self.parts) == 0)
        if again.any():
            twice = self.times[np.argmax(again)]
            raise UserError(f"{path} holds the time {twice:g} twice; keep one mesh for each time")
        first = self._mesh(0)
        self.at_nodes = bool(_of_users(first.point_data))
        self._nodes = np.asarray(first.points, np.float64)
        places = self._nodes if self.at_nodes else self._centres(first)
        flat = places.shape[1] == 2 or np.ptp(places[:, 2]) <= _FLAT * max(np.ptp(places, axis=0).max(), 1e-300)
        self.axes = 2 if flat else 3
        self.points = places[:, : self.axes]
        self.kinds, self.cells = list(first.cells_dict), simplices(first.cells_dict) if self.at_nodes else {}
        self.around = {} if self.at_nodes or isinstance(first, Mesh) else {NODES: self._nodes} | {
            f"{index} {block.type}": np.asarray(block.data) for index, block in enumerate(first.cells)}

    def _reading(self) -> AbstractContextManager[Any]:
        """Context in which errors of damaged files become UserErrors."""
        return meshio_for(self.path)

    def left_out(self) -> str:
        """Note on fields of cells that are left out, for a summary."""
        others = sorted(_of_users(self._mesh(0).cell_data)) if self.at_nodes else []
        verb = "is" if len(others) == 1 else "are"
        return f" (of nodes; {', '.join(others)} of cells {verb} left out)" if others else ""

    def _centres(self, mesh: Any) -> np.ndarray:
        """Centres (N, 3) of the cells."""
        if isinstance(mesh, Mesh) and len(mesh.centres):
            return mesh.centres
        if isinstance(mesh, Mesh) or not mesh.cells:
            raise UserError(f"{self.path} has neither fields at nodes nor cells; write it with point or cell data")
        return np.concatenate([np.asarray(mesh.points, np.float64)[block.data].mean(1) for block in mesh.cells])

    def _open(self, path: Path) -> list[tuple[int, float]]:
        """Part and time of each step; sets `_steps`, a file or the index in `_reader` of each."""
        start = path.open("rb").read(4096).lstrip()
        if kind := kind_of(path, start):
            return self._open_by_vtk(path, kind)
        if start.startswith(b"{"):
            files = json.loads(path.read_text(encoding="utf-8"))["files"]
            self._steps = arrays_for([self._inside(path, str(item["name"])) for item in files])
            return [(0, float(item["time"])) for item in files]
        if b"<Xdmf" not in start and start.startswith(b"<") and b"UnstructuredGrid" not in start:
            sets = [item for item in xml.parse(path).getroot().iter("DataSet") if item.get("file")]
            self._steps = arrays_for([self._inside(path, str(item.get("file"))) for item in sets])
            return [(int(item.get("part") or 0), float(item.get("timestep", index))) for index, item in enumerate(sets)]
        if b"<Xdmf" in start:
            import meshio.xdmf

            require_own(path, path.parent.resolve())  # heavy data are in another file
            root = xml.parse(path).getroot()
            kinds = [str(one.get("TopologyType") or one.get("Type")).upper() for one in root.iter("Topology")]
            grids = [kind for kind in kinds if kind.endswith("MESH")]
            if grids or any(str(item.get("Format")).upper() == "BINARY" for item in root.iter("DataItem")):
                return self._open_by_vtk(path, "xdmf2" if grids and grids[0].startswith("2") else "xdmf")
            try:
                self._reader = meshio.xdmf.TimeSeriesReader(str(path))
                join_collections(path, self._reader)
                self._grids = _grids(self._reader)
                data = [self._reader.read_data(index) for index in range(self._reader.num_steps)]
                self._data = [part[1:] for part in data]
                self._steps = list(range(len(data)))
                return [(0, float(part[0])) for part in data]
            except meshio.ReadError:  # one grid without times
                self._reader = None
                return [(0, 0.0)]
        if _is_tecplot(start):
            self._steps = list(zones(path))
            times = [zone.time for zone in self._steps]
            if not times or (len(times) > 1 and None in times):
                raise UserError(f"{path} holds other than one zone, some without SOLUTIONTIME; write a zone for each "
                                "time, with its time, or a file for each, read by a pattern")
            if None not in times:
                return [(0, float(time)) for time in times if time is not None]
        mesh = self._read(self._steps[0])
        known = [float(np.ravel(mesh.field_data[name])[0]) for name in _TIMES if name in mesh.field_data]
        known += _time_of_legacy(start)
        return [(0, known[0] if known else number_in_name(path) or 0.0)]

    def _open_by_vtk(self, path: Path, kind: str) -> list[tuple[int, float]]:
        """Part and time of each step, as in `_open`, for files that VTK reads."""
        found = meshes_of([path], kind)[0]
        self._steps = [arrays for _, arrays in found]
        return [(0, (number_in_name(path) or 0.0) if time is None else time) for time, _ in found]

    @staticmethod
    def _inside(path: Path, name: str) -> Path:
        """File referred to by another one, which must be in its folder or below."""
        return inside(path, name, path.parent.resolve())

    def _read(self, path: Path | Zone) -> Any:
        import meshio

        if isinstance(path, Zone):
            return path.mesh()
        if path.suffix == ".npz":
            return read_arrays(path)
        with path.open("rb") as file:
            start = file.read(4096).lstrip()
        if not start.startswith(b"#") and b"<Xdmf" not in start:
            return _read_vtu(path)
        return (meshio.vtk if start.startswith(b"#") else meshio.xdmf).read(str(path))

    def _mesh(self, step: int) -> Any:
        import meshio

        with meshio_for(self.path):
            if self._reader is not None:
                return meshio.Mesh(*self._grids[step], *self._data[step])
            return self._read(self._steps[step])

    def _values(self, step: int) -> dict[str, np.ndarray]:
        """Values (N, components) by label at one step. Raises UserError if the mesh differs from the first one."""
        mesh = self._mesh(step)
        if mesh.points.shape != self._nodes.shape or not np.allclose(
                mesh.points, self._nodes, 1e-6, 1e-6 * np.ptp(self._nodes, axis=0).max()):
            raise UserError(f"{self.path}: the points at t={self.times[step]:g} are others than at t="
                            f"{self.times[0]:g}; meshes that move, change or come in parts are not read, interpolate "
                            "to one mesh")
        data = _of_users(mesh.point_data) if self.at_nodes else {
            name: np.concatenate([np.asarray(part, np.float64).reshape(len(part), -1) for part in parts])
            for name, parts in _of_users(mesh.cell_data).items()}
        numbers = {re.sub(r"[\s/]+", "_", str(name)): np.asarray(value) for name, value in data.items()}
        return {label: value.reshape(len(value), -1) for label, value in numbers.items() if value.dtype.kind in "fiu"}

    def across(self) -> list[str]:
        """Names of vector components normal to a flat mesh that are non-zero in the first or last step."""
        both = [self._values(0)] if self.axes == 2 else []
        with suppress(UserError):  # a damaged file is reported when it is read
            both += [self._values(len(self.times) - 1)] if both else []
        return sorted({f"{label}_z" for values in both for label, one in values.items() if one.shape[1] == 3 and (
            np.abs(one[:, 2]).max(initial=0) > _FLAT * np.abs(one).max(initial=0))})

    def fields(self, step: int, across: bool = False) -> dict[str, np.ndarray]:
        """Values (N,) by name at one step; on flat meshes, normal components of vectors only if `across`."""
        columns: dict[str, np.ndarray] = {}
        for label, value in self._values(step).items():
            count = value.shape[1]
            own = "xyz"[:count] if count < 4 else map(str, range(count))
            columns |= {label: value[:, 0]} if count == 1 else {
                f"{label}_{axis}": value[:, index] for index, axis in enumerate(own)
                if index < self.axes or count > 3 or across}
        return columns


def _of_users(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields without those internal to VTK, such as `vtkGhostType`, and without numbers of nodes and cells."""
    return {name: values for name, values in fields.items() if not _INTERNAL.match(str(name))}


class MeshContent(StreamedContent):
    """Trajectories of a mesh series."""

    def __init__(self, series: MeshSeries, options: ReadOptions) -> None:
        path = series.path
        super().__init__(path)
        self._series = series
        available, usual = list(self._series.fields(0, True)), list(self._series.fields(0))
        channels = list(options.channels or without_answers(path, usual))
        if options.channels is None and (left := self._series.across()):
            warnings.warn(f"{path}: {', '.join(left)}, across the plane of the mesh, "
                          f"{'is' if len(left) == 1 else 'are'} left out; channels=[{','.join([*usual, *left])}] takes "
                          "all", stacklevel=3)
        whole = ", ".join(sorted(set(series.kinds) - {"vertex", "polygon", "other"}))  # the last two are of images
        if whole and series.at_nodes and not series.cells:
            warnings.warn(f"{path}: cells {whole} are not divided into simplices: the mesh is left out", stacklevel=3)
        absent = [name for name in channels if name not in available]
        if not available:
            raise UserError(f"{path} holds a mesh without fields; give the files of its values")
        if absent or not channels:
            raise UserError(f"{path} has no field {', '.join(absent) or 'at all'}; there are {', '.join(available)}")
        self.extra = dict(self._series.cells)
        self.description = options.describe(path, channels, options.coordinates or list("xyz"[: self._series.axes]))

    def parts(self) -> Iterator[Part]:
        for part in np.unique(self._series.parts):
            steps = np.flatnonzero(self._series.parts == part)
            yield Part(self._series.times[steps], self._series.points, partial(self._values, int(steps[0])))

    def _values(self, start: int, first: int, last: int) -> np.ndarray:
        frames = []
        for step in range(start + first, start + last):
            fields = self._series.fields(step, True)
            lacking = [name for name in self.description.channels if name not in fields]
            if lacking:
                raise UserError(f"{self.path} has no field {', '.join(lacking)} at t={self._series.times[step]:g}")
            frames.append(np.stack([fields[name] for name in self.description.channels], -1))
        return np.stack(frames)


class MeshColumns(Columns):
    """Mesh series as a table with a row for each time and point."""

    def __init__(self, series: MeshSeries) -> None:
        self._series = series
        self._several = bool(series.parts.any())
        self.names = (*(("trajectory",) if self._several else ()), "t", *"xyz"[: series.axes], *series.fields(0, True))
        axes = {} if self._several else {"t": (("t",), series.times)} | {
            name: (("point",), values) for name, values in zip("xyz", series.points.T, strict=False)}
        self.grid = Grid(("t", "point"), (len(series.times), len(series.points)), axes,
                         {**series.cells, **series.around})

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        points = self._series.points
        for step, time in enumerate(self._series.times):
            number = {"trajectory": np.full(len(points), self._series.parts[step])} if self._several else {}
            columns = {**number, "t": np.full(len(points), time), **dict(zip("xyz", points.T, strict=False)),
                       **self._series.fields(step, True)}
            for start in range(0, len(points), rows):
                yield {name: value[start:start + rows] for name, value in columns.items()}

    def close(self) -> None:
        pass
