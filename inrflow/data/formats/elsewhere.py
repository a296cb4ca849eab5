"""Formats that are recognised to be named, with what turns them into files that are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from inrflow.data.formats.registry import Content, Format, ReadOptions
from inrflow.data.formats.schema import is_hdf5_with
from inrflow.errors import UserError


class Elsewhere(Format):
    """A format that another program writes in a form that is read. advice: how."""

    about = ""
    advice: ClassVar[str]

    def read(self, path: Path, options: ReadOptions) -> Content:
        raise UserError(f"{path} is a file of {self.name}, which is not read; {self.advice}")

    def summary(self, path: Path) -> list[tuple[str, str]]:
        return []


class EnsightPart(Elsewhere):
    """Geometry or values of an EnSight case, binary; ASCII ones are text as any other."""

    name = "EnSight, of one part of a case,"
    advice = "give the case, the text file (.case, .encas) that names it"
    signature = re.compile(rb"(C|Fortran) Binary", re.IGNORECASE)


class BinaryTecplot(Elsewhere):
    """Tecplot's binary files, .plt and .szplt."""

    name = "binary Tecplot"
    advice = "write it as ASCII with one zone for each time, or as a PVD collection by ParaView"
    signature = re.compile(rb"#!TDV|#!SZPLT")


class Gmsh(Elsewhere):
    """Meshes and views of Gmsh."""

    name = "Gmsh"
    advice = ("write its views as VTU, one for each time, or a table with a row for each time and node: time, x, y and "
              "values; nodes may be named there, and have their places in a second table (stations=FILE)")
    signature = re.compile(rb'\$MeshFormat|View "')


class BareMesh(Elsewhere):
    """Meshes alone: of SU2, I-DEAS (UNV), STL, PLY and OFF."""

    name = "meshes without values (SU2, UNV, STL, PLY, OFF)"
    advice = ("give the files of the fields: VTU or a PVD collection, or a table for each time with its number in the "
              "name, as SU2's restart_flow_*.csv")
    signature = re.compile(rb"(%[^\n]*\n|\s)*NDIME\s*=|\s+-1\s*\n\s+(151|164|2411|2420)\s*\n|solid [^\n]*\n\s*facet|"
                           rb"ply\r?\n|OFF\r?\n\d")


class Particles(Elsewhere):
    """Dumps of LAMMPS, and XYZ: a number of atoms, a comment, and a line for each."""

    name = "LAMMPS or XYZ (atoms)"
    advice = "write a table with a row for each time and atom: time, x, y, z and values, as MDAnalysis or ASE give them"
    signature = re.compile(rb"ITEM: TIMESTEP|\s*\d+[ \t]*\r?\n[^\n]*\n\s*[A-Z][a-z]?[ \t]+[-+]?\d")


class Raster(Elsewhere):
    """GeoTIFF and other TIFF, and HDF4, which hold maps without times of their own."""

    name = "TIFF or HDF4 (maps)"
    advice = ("write NetCDF with a dimension of times: `gdal_translate -of netCDF IN.tif OUT.nc` for each, then, in "
              "Python, xarray.open_mfdataset(files, combine='nested', concat_dim=pandas.Index(dates, name='time'))")
    signature = re.compile(rb"II[*+]\0|MM\0[*+]|\x0e\x03\x13\x01", re.DOTALL)


class VtkXml(Elsewhere):
    """VTK's XML files of grids, of surfaces, of several blocks and of parallel pieces."""

    name = "VTK's images, grids, surfaces or pieces (.vti, .vtr, .vts, .vtp, .vtm, .pvtu and the like)"
    advice = ("write VTU, one file for each time: pyvista.read(FILE).cast_to_unstructured_grid().save('NAME_0001.vtu')"
              ", of blocks pyvista.read(FILE).combine(), or by ParaView's Save Data")
    signature = re.compile(rb"""\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<VTKFile\b[^>]*type=["']"""
                           rb"(?!UnstructuredGrid|Collection)", re.DOTALL)


class Reports(Elsewhere):
    """Field reports of Abaqus and listings of ANSYS."""

    name = "reports of Abaqus or ANSYS"
    advice = ("they have no places: write a table with a row for each time and node (time, x, y, z, values), or one "
              "for each time with its number in the name, or VTU")
    signature = re.compile(rb"\**\s*(Field Output Report|PRINT \S+\s+(NODAL|ELEMENT) SOLUTION)", re.IGNORECASE)


class Cgns(Elsewhere):
    """CGNS, in HDF5 or in the older ADF."""

    name = "CGNS"
    advice = "open it in ParaView, and save the data as a PVD collection of VTU with all time steps"
    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return is_hdf5_with(path, lambda file: "CGNSLibraryVersion" in file) or b"ADF Database" in start[:64]


class VtkHdf(Elsewhere):
    """VTK's files in HDF5."""

    name = "VTKHDF"
    advice = Cgns.advice
    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return is_hdf5_with(path, lambda file: "VTKHDF" in file)


class Blocks(Elsewhere):
    """Checkpoints and plot files of codes whose grid is in blocks of their own places: FLASH, Athena++, Parthenon and
    Chombo."""

    name = "FLASH, Athena++ or another code of blocks"
    advice = ("resample each to a regular grid, as by yt: yt.load(FILE).covering_grid(level, left_edge, dims), or "
              "athena_read, and write arrays t, x, y, u by numpy.savez")

    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return is_hdf5_with(path, lambda file: bool({"NumMeshBlocks", "MeshBlockSize"} & set(file.attrs)) or any(
            names <= set(file) for names in ({"bounding box", "refine level"}, {"LogicalLocations", "Levels"},
                                             {"Chombo_global", "level_0"})))


class Spreadsheet(Elsewhere):
    """Workbooks of Excel, old and new, and of OpenDocument."""

    name = "Excel or OpenDocument"
    advice = "save its sheet as CSV, with one line of names above the rows"
    signature = re.compile(rb"\xd0\xcf\x11\xe0|PK\x03\x04.{26}(\[Content_Types\]|_rels/|xl/|mimetypeapplication/vnd)",
                           re.DOTALL)


class Archive(Elsewhere):
    """Archives of files: zip, of which workbooks and npz are others, 7z, RAR, tar, and what is compressed otherwise."""

    name = "zip, tar or the like"
    advice = "unpack it and give the files in it, several by a pattern (*); tables may stay compressed by gzip"
    signature = re.compile(rb"PK\x03\x04|7z\xbc\xaf|Rar!|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar", re.DOTALL)


class Pickle(Elsewhere):
    """Pickled objects, which run what they like when they are read."""

    name = "pickled objects"
    advice = "where you wrote it, write arrays by numpy.savez, a table by DataFrame.to_csv or to_parquet"
    signature = re.compile(rb"\x80[\x02-\x05]")


class Records(Elsewhere):
    """Tables of Arrow (Feather), ORC and Avro, and databases of SQLite."""

    name = "Feather, ORC, Avro or SQLite"
    advice = "write its table as Parquet or CSV, as by pandas.read_feather(FILE).to_parquet('NAME.parquet')"
    signature = re.compile(rb"ARROW1|FEA1|ORC|Obj\x01|SQLite format 3")


class Prometheus(Elsewhere):
    """Metrics as Prometheus exposes them, which are of one moment."""

    name = "Prometheus' metrics"
    advice = "ask its query_range for a series, and write a table with a row for each time and place"
    signature = re.compile(rb"# (HELP|TYPE) \w+ ")


class Json(Elsewhere):
    """JSON, GeoJSON and the like."""

    name = "JSON"
    advice = ("write it as a table with a row for each time and place: pandas.read_json (of lines with lines=True), "
              "pandas.json_normalize, or geopandas.read_file, and then to_csv")
    signature = re.compile(rb'\s*[\[{]\s*["{\[]')
