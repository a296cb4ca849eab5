"""Files that VTK (the extra `vtk`) reads and meshio does not: images, grids, surfaces, blocks and pieces in VTK XML,
VTKHDF, CGNS, and grids of XDMF."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as xml
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.formats.schema import is_hdf5_with, open_hdf5
from inrflow.data.formats.streams.aside import converted_in_process
from inrflow.errors import UserError

POLYHEDRA = rb'Name="face[s_]'
XML_OF_VTK = re.compile(rb"""\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<VTKFile\b[^>]*\btype=["']"""
                        rb"""(?!Collection)(?!UnstructuredGrid(?!.*(compressor="vtkLZ4|type="String"|%s)))"""
                        % POLYHEDRA, re.DOTALL)
_ADVICE = ("write VTU, one file for each time: pyvista.read(FILE).cast_to_unstructured_grid().save('NAME_0001.vtu'), "
           "of blocks pyvista.read(FILE).combine(), or, from ParaView, a PVD collection with all time steps")
_MOST = 500  # files per process
_DEEPEST = 8  # levels of nested groups in CGNS and VTKHDF


@dataclass
class Mesh:
    """Mesh with the attributes of meshio.Mesh that are used; centres (M, 3): centres of cells without given nodes."""

    points: np.ndarray
    cells_dict: dict[str, np.ndarray]
    centres: np.ndarray
    point_data: dict[str, np.ndarray] = field(default_factory=dict)
    cell_data: dict[str, list[np.ndarray]] = field(default_factory=dict)


def kind_of(path: Path, start: bytes) -> str | None:
    """Kind of a file that only VTK reads: xml (also VTU with text or polyhedra, or compressed by LZ4), hdf, cgns; None
    for others."""
    if XML_OF_VTK.match(start):
        return "xml"
    if b"ADF Database" in start[:64] or is_hdf5_with(path, lambda file: "CGNSLibraryVersion" in file):
        return "cgns"
    return "hdf" if is_hdf5_with(path, lambda file: "VTKHDF" in file) else None


def arrays_for(files: list[Path]) -> list[Path]:
    """Files of one mesh each, replaced by temporary files of arrays if the first is of a kind that only VTK reads."""
    kind = kind_of(files[0], files[0].open("rb").read(4096).lstrip()) if files else None
    return files if kind is None else [meshes[0][1] for meshes in meshes_of(files, kind)]


def meshes_of(paths: list[Path], kind: str) -> list[list[tuple[float | None, Path]]]:
    """Times (None: not given) and files of arrays (see `read_arrays`) of the meshes of each file.

    Raises UserError if VTK is not installed or fails, and if files refer to others outside of their folder.
    """
    if find_spec("vtk") is None:
        raise UserError(f"{paths[0]} is read by VTK; install it with `pip install inrflow[vtk]`, or {_ADVICE}")
    if len(paths) > _MOST:
        return meshes_of(paths[:_MOST], kind) + meshes_of(paths[_MOST:], kind)
    for path in paths:
        require_own(path, path.parent.resolve())
    code = [str(Path(__file__).with_name("vtk_to_arrays.py")), kind, *(str(path.resolve()) for path in paths)]
    folder, printed = converted_in_process(paths[0], code, "VTK", f"write it again, or {_ADVICE}")
    return [[(time, folder / name) for time, name in json.loads(line)] for line in printed.splitlines()]


def inside(path: Path, name: str, folder: Path) -> Path:
    """File referred to by another one, which must be in a folder or below. Raises UserError."""
    found = path.parent / name
    if not found.resolve().is_relative_to(folder):
        raise UserError(f"{path} refers to {name}, outside of its folder, which is not followed; put the files "
                        "together")
    if not found.is_file():
        raise UserError(f"{path} refers to {name}, which does not exist; copy it beside {path.name}")
    return found


def require_own(path: Path, folder: Path) -> None:
    """Check that a file, and all files that it refers to, are in a folder. Raises UserError."""
    head = path.read_bytes().partition(b"<AppendedData")[0]  # the rest is no XML
    if h5py.is_hdf5(path):
        open_hdf5(path, _DEEPEST).close()
    if not head[:64].lstrip().startswith(b"<"):
        return
    words = f"{path} has entities or includes of other files, which are not followed; write it in one file"
    if b"<!ENTITY" in head:
        raise UserError(words)
    parser: Any = xml.XMLPullParser(["start", "end"])
    parser.feed(head)
    for event, item in parser.read_events():
        if item.tag.lower().endswith("include") and item.get("href"):
            raise UserError(words)
        name = item.get("Source") or item.get("file") if event == "start" else None
        if event == "end" and item.tag == "DataItem" and item.get("Format", "XML").upper() in ("HDF", "BINARY"):
            name = (item.text or "").strip().split(":")[0]
        if name:
            require_own(inside(path, name, folder), folder)


def join_collections(path: Path, reader: Any) -> None:
    """Take the fields of all series of an XDMF file, which FEniCSx writes one for each function, where meshio has the
    last. Raises UserError where they are at different times."""
    series = [list(grid) for grid in reader.domain if grid.get("GridType") == "Collection"]
    times = [[time.get("Value") for grid in grids for time in grid.iter("Time")] for grids in series]
    if any(own != times[-1] for own in times):
        raise UserError(f"{path} holds series of fields at different times; write one file for each")
    for grids in series[:-1]:
        for grid, last in zip(grids, reader.collection, strict=True):
            last.extend(grid.findall("Attribute"))


def read_arrays(path: Path) -> Mesh:
    """Mesh in a file of arrays written by vtk_to_arrays.py."""
    with np.load(path) as file:
        found = {name: file[name] for name in file.files}
    parts = [{name.removeprefix(part): values for name, values in found.items() if name.startswith(part)}
             for part in ("cells/", "point/", "cell/")]
    return Mesh(found["points"], parts[0], found.get("centres", found["points"][:0]), parts[1],
                {name: [values] for name, values in parts[2].items()})
