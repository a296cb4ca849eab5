"""Script, run in a separate process, that converts files by VTK to arrays, an .npz for each time: KIND FILE ...

These are written into the current folder; their times (null: not given) and names are printed as JSON, a line for each
file. It imports nothing of inrflow.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonExecutionModel import vtkAlgorithm, vtkStreamingDemandDrivenPipeline
from vtkmodules.vtkFiltersCore import vtkAppendFilter, vtkStaticCleanUnstructuredGrid

#: Modules and classes; `xdmf2`: two-dimensional XDMF, which VTK places in the plane of y and z.
_READERS = {"xml": "vtkIOXML.vtkXMLGenericDataObjectReader", "hdf": "vtkIOHDF.vtkHDFReader",
            "cgns": "vtkIOCGNSReader.vtkCGNSReader", "xdmf": "vtkIOXdmf2.vtkXdmfReader",
            "xdmf2": "vtkIOXdmf2.vtkXdmfReader"}
#: meshio's names by VTK cell type; two-dimensional cells that are not decomposed into triangles are polygons.
_CELLS = {1: "vertex", 3: "line", 5: "triangle", 9: "quad", 10: "tetra", 12: "hexahedron", 13: "wedge",
          14: "pyramid", 21: "line3", 22: "triangle6",
          23: "quad8", 24: "tetra10", 6: "polygon", 7: "polygon", 8: "polygon"}


def joined(data: Any, pieces: bool) -> Any:
    """Union of the grids of several blocks or pieces, without duplicate points and ghost cells."""
    blocks = [data]
    if data.IsA("vtkCompositeDataSet"):
        blocks, iterator = [], data.NewIterator()
        while not iterator.IsDoneWithTraversal():
            blocks.append(iterator.GetCurrentDataObject())
            iterator.GoToNextItem()
    append, clean = vtkAppendFilter(), vtkStaticCleanUnstructuredGrid()
    append.SetOutputPointsPrecision(vtkAlgorithm.DOUBLE_PRECISION)
    for block in blocks:
        if hasattr(block, "RemoveGhostCells"):
            block.RemoveGhostCells()
        append.AddInputData(block)
    clean.SetInputConnection(append.GetOutputPort())
    clean.SetTolerance(0.0)
    last = clean if pieces or len(blocks) > 1 else append
    last.Update()
    return last.GetOutput()


def arrays(grid: Any) -> dict[str, np.ndarray]:
    """Arrays of a grid: points (N, 3), centres of cells (M, 3), nodes of cells by kind, values of points and cells."""
    points, cells = vtk_to_numpy(grid.GetPoints().GetData()), grid.GetCells()
    kinds = np.array([grid.GetCellType(index) for index in range(grid.GetNumberOfCells())], np.uint8)
    starts, nodes = vtk_to_numpy(cells.GetOffsetsArray()), vtk_to_numpy(cells.GetConnectivityArray())
    counts, found = np.diff(starts), {"points": points}
    if len(kinds) and counts.min():
        found["centres"] = np.add.reduceat(points[nodes], starts[:-1]) / counts[:, None]
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        if len(set(counts[rows])) == 1:
            found[f"cells/{_CELLS.get(int(kind), 'other')}"] = nodes[starts[rows][:, None] + np.arange(counts[rows[0]])]
    for where, data in (("point", grid.GetPointData()), ("cell", grid.GetCellData())):
        for one in map(data.GetArray, range(data.GetNumberOfArrays())):
            found |= {} if one is None else {f"{where}/{one.GetName()}": vtk_to_numpy(one)}  # None: text
    return found


kind, *paths = sys.argv[1:]
module, name = _READERS[kind].split(".")
count = 0
for path in paths:
    reader, written = getattr(import_module(f"vtkmodules.{module}"), name)(), []
    reader.SetFileName(path)
    reader.UpdateInformation()
    for what in ("Bases", "PointArrays", "CellArrays") if kind == "cgns" else ():
        getattr(reader, f"EnableAll{what}")()
    times = reader.GetOutputInformation(0).Get(vtkStreamingDemandDrivenPipeline.TIME_STEPS()) or [None]
    if kind == "cgns" and b"IterativeData" not in Path(path).read_bytes():
        times = [None]  # VTK reports 0
    for time in times:
        reader.Update() if time is None else reader.UpdateTimeStep(time)
        data = reader.GetOutputDataObject(0)
        own = data.GetFieldData().GetArray("TimeValue") if data.GetFieldData() else None
        grid = joined(data, path.endswith(".pvtu"))
        if not grid.GetNumberOfPoints():
            raise SystemExit("there is no grid with points in it")
        found = arrays(grid)
        if kind == "xdmf2" and not np.ptp(found["points"][:, 0]):
            found |= {name: np.roll(found[name], -1, 1) for name in ("points", "centres") if name in found}
        np.savez(f"{count:06d}.npz", **found)  # type: ignore[arg-type]
        written.append((time if own is None else own.GetValue(0), f"{count:06d}.npz"))
        count += 1
    print(json.dumps(written), flush=True)
