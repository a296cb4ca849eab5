"""Writers of predictions at points or of cells of one mesh for ParaView: PVD (a VTU per time), and single XDMF."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.columns import TIMES, Grid, find_column
from inrflow.data.formats.registry import TableWriter
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import folder_of, make_folder

CELLS = {"line": "segments", "triangle": "triangles", "tetra": "tetrahedra"}  # names in meshio and in the schema
NODES = "nodes"  # of cells whose centres are the points; the cells themselves are named by their number and kind
Step = tuple[int, float, dict[str, np.ndarray]]  # trajectory, time and values (N,) by name


@contextmanager
def meshio_for(path: Path, used: str = "read") -> Iterator[Any]:
    """Context manager of the package meshio, whose errors become UserErrors that name the file."""
    try:
        import meshio
    except ImportError as error:
        raise UserError(f"{path} is a mesh, which meshio reads; install it with `pip install inrflow[mesh]`, or for "
                        "VTKHDF, CGNS and images, blocks or pieces of VTK with `pip install inrflow[vtk]`") from error
    try:
        yield meshio
    except UserError:
        raise
    except Exception as error:  # damaged files raise all kinds of exceptions
        if used == "written" and isinstance(error, OSError):  # such as a full disk
            raise
        why = " ".join(f"{error}".split())[:200] or type(error).__name__
        remedy = ("write it again, as VTU with one grid (pyvista.read(FILE).cast_to_unstructured_grid())"
                  if used == "read" else "write .csv, .h5 or .nc instead")
        raise UserError(f"{path} cannot be {used} by meshio ({why}); {remedy}") from error


class MeshWriter(TableWriter):
    """Writer that gathers rows to values at the points of one mesh, by trajectory and time.

    Cells are those of the mesh that the points came from, as nodes or centres, else single vertices. A format
    implements `_put`. Raises UserError for columns of text, and if the points differ between times.
    """

    name: ClassVar[str]

    def __init__(self, path: Path, description: Description | None, overwrite: bool) -> None:
        super().__init__(path, description, overwrite)
        self._blocks: list[Mapping[str, np.ndarray]] = []
        self._cells: Mapping[str, np.ndarray] = {}
        self._of_cells = False

    @abstractmethod
    def _put(self, meshio: Any, points: np.ndarray, cells: list[tuple[str, np.ndarray]], steps: list[Step]) -> None:
        """Write values at points (N, 3) and cells, or of the cells if `_of_cells`."""

    def _data(self, values: dict[str, np.ndarray], cells: list[tuple[str, np.ndarray]]) -> dict[str, Any]:
        """Arguments of meshio for values of a step."""
        if not self._of_cells:
            return {"point_data": values}
        ends = np.cumsum([len(block) for _, block in cells])[:-1]
        return {"cell_data": {name: np.split(value, ends) for name, value in values.items()}}

    def abandon(self) -> None:
        self._blocks = []
        super().abandon()

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        self._cells = {} if grid is None else grid.cells

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        self._blocks.append(columns)

    def _finish(self) -> None:
        if not self._blocks:
            return
        columns = {name: np.concatenate([block[name] for block in self._blocks]) for name in self._blocks[0]}
        self._blocks = []
        with meshio_for(self.path, "written") as meshio:
            self._write(meshio, columns)

    def _write(self, meshio: Any, columns: dict[str, np.ndarray]) -> None:
        axes = self.description.coordinates if self.description is not None else tuple("xyz")
        time = find_column([name for name, values in columns.items() if values.dtype.kind in "fiu"], TIMES)
        places = [columns[name] for name in axes if name in columns and columns[name].dtype.kind == "f"]
        if time is None or len(places) != len(axes) or not 1 <= len(axes) <= 3:
            raise UserError(f"{self.path}: points for {self.name} need a column t of numbers and {', '.join(axes)}; "
                            "write .csv or .nc instead")
        number = columns.get("trajectory", np.zeros(len(places[0]), np.int64))
        points = np.stack([*places, *[np.zeros(len(places[0]))] * (3 - len(places))], -1)
        others = {name: value for name, value in columns.items() if name not in (*axes, time, "trajectory")}
        fields = {name: value for name, value in others.items() if value.dtype.kind in "fiu"}
        if len(fields) < len(others):
            raise UserError(f"{self.path}: {', '.join(set(others) - set(fields))} holds text, which {self.name} does "
                            "not; write .csv, .h5 or .nc instead")
        steps = sorted(set(zip(number.tolist(), columns[time].tolist(), strict=True)))
        rows = [np.flatnonzero((number == part) & (columns[time] == t)) for part, t in steps]
        for (_, t), chosen in zip(steps, rows, strict=True):
            if not np.array_equal(points[chosen], points[rows[0]]):
                raise UserError(f"{self.path}: the points at t={t:g} are others than before, and {self.name} files "
                                "hold one set; write .csv, .h5 or .nc instead")
        count = len(rows[0])
        kept = [(kind, self._cells[name]) for kind, name in CELLS.items() if name in self._cells
                and self._cells[name].max() < count]
        steps_of = [(part, t, {name: value[chosen] for name, value in fields.items()})
                    for (part, t), chosen in zip(steps, rows, strict=True)]
        if NODES in self._cells:
            nodes = self._cells[NODES]
            around = [(name.split()[1], block) for name, block in self._cells.items() if name != NODES]
            centres = np.concatenate([nodes[block].mean(1) for _, block in around])[:, :len(axes)]
            self._of_cells = np.array_equal(centres, points[rows[0], :len(axes)])
            if self._of_cells:
                return self._put(meshio, nodes, around, steps_of)
        self._put(meshio, points[rows[0]], kept or [("vertex", np.arange(count)[:, None])], steps_of)


class PvdWriter(MeshWriter):
    """Writer of a PVD collection with a VTU per time in the folder `NAME_files/` beside it. Trajectories are parts."""

    name = "PVD"

    def __init__(self, path: Path, description: Description | None, overwrite: bool) -> None:
        super().__init__(path, description, overwrite)
        self._folder = path.with_name(f"{path.stem}_files")
        if self._folder.exists() and not (overwrite and self._folder.is_dir() and not self._folder.is_symlink()):
            self._target.discard()
            raise UserError(f"{self._folder}, where the meshes of {path} go, exists already; choose another name or "
                            "remove it first")

    def _put(self, meshio: Any, points: np.ndarray, cells: list[tuple[str, np.ndarray]], steps: list[Step]) -> None:
        made, names, entries = make_folder(folder_of(self._target.partial)), [], []
        for index, (part, t, fields) in enumerate(steps):
            names.append(f"{self.path.stem}_{index:06d}.vtu")
            meshio.vtu.write(str(made / names[-1]), meshio.Mesh(points, cells, **self._data(fields, cells)))
            entries.append(f'    <DataSet timestep="{t!r}" part="{part}" file="{self._folder.name}/{names[-1]}"/>')
        text = "\n".join(['<?xml version="1.0"?>', '<VTKFile type="Collection" version="0.1">', "  <Collection>",
                          *entries, "  </Collection>", "</VTKFile>", ""])
        self._target.partial.write_text(text, encoding="utf-8")
        make_folder(self._folder)
        for name in names:
            os.replace(made / name, self._folder / name)


class XdmfWriter(MeshWriter):
    """Writer of XDMF with values as text in one file, for one trajectory."""

    name = "XDMF"

    def _put(self, meshio: Any, points: np.ndarray, cells: list[tuple[str, np.ndarray]], steps: list[Step]) -> None:
        if len({part for part, _, _ in steps}) > 1:
            raise UserError(f"{self.path}: the points are of several trajectories, and XDMF holds one; write .pvd "
                            "instead")
        with meshio.xdmf.TimeSeriesWriter(str(self._target.partial), data_format="XML") as writer:
            writer.write_points_cells(points, cells)
            for _, t, fields in steps:
                wide = {name: value.astype(np.float64 if value.dtype.kind == "f" else np.int64)
                        for name, value in fields.items()}  # meshio writes float32 with 7 digits, int8 not at all
                writer.write_data(t, **self._data(wide, cells))
