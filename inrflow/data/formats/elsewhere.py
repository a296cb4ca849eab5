"""Unsupported formats that are recognised in order to name them, with advice on their conversion."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from inrflow.data.formats.registry import Content, Format, ReadOptions
from inrflow.data.formats.schema import is_hdf5_with
from inrflow.errors import UserError


class Elsewhere(Format):
    """Unsupported format; advice: how to convert its files to a supported one."""

    about = ""
    advice: ClassVar[str]

    def read(self, path: Path, options: ReadOptions) -> Content:
        raise UserError(f"{path} is a file of {self.name}, which is not read; {self.advice}")

    def summary(self, path: Path) -> list[tuple[str, str]]:
        return []


class Blocks(Elsewhere):
    """Checkpoints and plot files of codes with block-structured adaptive grids: FLASH, Athena++, Parthenon, Chombo."""

    name = "FLASH, Athena++ or another code of blocks"
    advice = ("resample each to a regular grid, as by yt: yt.load(FILE).covering_grid(level, left_edge, dims), or "
              "athena_read, and write arrays t, x, y, u by numpy.savez")

    binary = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return is_hdf5_with(path, lambda file: bool({"NumMeshBlocks", "MeshBlockSize"} & set(file.attrs)) or any(
            names <= set(file) for names in ({"bounding box", "refine level"}, {"LogicalLocations", "Levels"},
                                             {"Chombo_global", "level_0"})))


def _known(name: str, signature: bytes, advice: str, flags: int = 0) -> type[Elsewhere]:
    """Unsupported format recognised by its first bytes."""
    return type(name, (Elsewhere,), {"name": name, "signature": re.compile(signature, flags), "advice": advice})


#: General containers, of which other formats are special cases: the last format that recognises a file counts.
GENERAL = (
    _known("zip, tar or the like", rb"PK\x03\x04|7z\xbc\xaf|Rar!|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar",
           "unpack it and give the files in it, several by a pattern (*); tables may stay compressed by gzip",
           re.DOTALL),
    _known("npz or PyTorch that is cut, or an archive of such files",
           rb"PK\x03\x04.{26}[^\0]{1,99}?(\.npy|/data\.pkl)",
           "copy or write it again; of an archive, unpack it", re.DOTALL),
    _known("JSON", rb'\s*[\[{]\s*["{\[]',
           "write it as a table with a row for each time and place: pandas.read_json (of lines with lines=True), "
           "pandas.json_normalize, or geopandas.read_file, and then to_csv"),
    _known("pickled objects", rb"\x80[\x02-\x05]",
           "where you wrote it, write arrays by numpy.savez, a table by DataFrame.to_csv or to_parquet"),
    _known("Excel or OpenDocument",
           rb"\xd0\xcf\x11\xe0|PK\x03\x04.{26}(\[Content_Types\]|_rels/|docProps/|xl/|mimetypeapplication/vnd)",
           "save its sheet as CSV, with one line of names above the rows", re.DOTALL),
)
SPECIAL = (
    _known("TIFF or HDF4 (maps)", rb"II[*+]\0|MM\0[*+]|\x0e\x03\x13\x01",
           "write NetCDF with a dimension of times: `gdal_translate -of netCDF IN.tif OUT.nc` for each, then, in "
           "Python, xarray.open_mfdataset(files, combine='nested', concat_dim=pandas.Index(dates, name='time'))",
           re.DOTALL),
    _known("reports of Abaqus or ANSYS",
           rb"\**\s*(Field Output Report|PRINT \S+\s+(NODAL|ELEMENT) SOLUTION)",
           "they have no places: write a table with a row for each time and node (time, x, y, z, values), or one for "
           "each time with its number in the name, or VTU", re.IGNORECASE),
    _known("EnSight's geometry", rb"(C|Fortran) Binary",
           "give the case, the text file (.case, .encas) that names it", re.IGNORECASE),
    _known("binary Tecplot", rb"#!TDV|#!SZPLT",
           "write it as ASCII with one zone for each time, or as a PVD collection by ParaView"),
    _known("Gmsh", rb'\$MeshFormat|View "',
           "write its views as VTU, one for each time, or a table with a row for each time and node: time, x, y and "
           "values; nodes may be named there, and have their places in a second table (stations=FILE)"),
    _known("LAMMPS or XYZ (atoms)", rb"ITEM: TIMESTEP|\s*\d+[ \t]*\r?\n[^\n]*\n\s*[A-Z][a-z]?[ \t]+[-+]?\d",
           "write a table with a row for each time and atom: time, x, y, z and values, as MDAnalysis or ASE give them"),
    _known("meshes without values (SU2, UNV, STL, PLY, OFF)",
           rb"(%[^\n]*\n|\s)*NDIME\s*=|\s+-1\s*\n\s+(151|164|2411|2420)\s*\n|solid [^\n]*\n\s*facet|ply\r?\n|"
           rb"OFF\r?\n\d", "give the files of the fields: VTU or a PVD collection, or a table for each time with its "
           "number in the name, as SU2's restart_flow_*.csv"),
    _known("Feather, ORC, Avro or SQLite", rb"ARROW1|FEA1|ORC|Obj\x01|SQLite format 3",
           "write its table as Parquet or CSV, as by pandas.read_feather(FILE).to_parquet('NAME.parquet')"),
    _known("Prometheus' metrics", rb"# (HELP|TYPE) \w+ ",
           "ask its query_range for a series, and write a table with a row for each time and place"),
)
