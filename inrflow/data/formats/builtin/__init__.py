"""Built-in formats, registered by importing this package. A new one is a module that is listed below.

If several formats recognise a file, the last one is used: CSV, the fallback for text, comes first, and user-defined
formats, registered by the `register_format` of this package, come after all of these.
"""

from inrflow.data.formats.builtin.dedalus import DedalusFormat
from inrflow.data.formats.builtin.hdf5_table import Hdf5ArrayFormat, Hdf5Format
from inrflow.data.formats.builtin.matlab import MatlabFormat
from inrflow.data.formats.builtin.netcdf import GribFormat, NetcdfFormat, PpFormat, ZarrFormat
from inrflow.data.formats.builtin.npz import NpzFormat
from inrflow.data.formats.builtin.parquet_table import ParquetFormat
from inrflow.data.formats.builtin.pdebench import PdeBenchFormat
from inrflow.data.formats.builtin.tensors import NpyFormat, TorchFormat
from inrflow.data.formats.builtin.the_well import TheWellFormat
from inrflow.data.formats.builtin.trajectories import TrajectoryFormat
from inrflow.data.formats.elsewhere import GENERAL, SPECIAL, Blocks
from inrflow.data.formats.meshes.comsol import ComsolFormat
from inrflow.data.formats.meshes.ensight import EnsightFormat
from inrflow.data.formats.meshes.mesh_series import MeshFormat, VtkBinaryFormat, VtkFormat
from inrflow.data.formats.meshes.openfoam import OpenFoamFormat, ProbesFormat
from inrflow.data.formats.registry import Format, register_format
from inrflow.data.formats.texts.csv_table import CsvFormat
from inrflow.data.formats.texts.instruments import CfxFormat, DavisFormat, RdbFormat, Toa5Format
from inrflow.data.formats.texts.networks import GhcnFormat, InfluxFormat, NdbcFormat, OdvFormat

BUILTIN = (
    *GENERAL, CsvFormat, NdbcFormat, GhcnFormat, OdvFormat, InfluxFormat, *SPECIAL, MeshFormat, ParquetFormat,
    Hdf5Format, Hdf5ArrayFormat, Blocks, DedalusFormat, NpyFormat, TorchFormat, MatlabFormat, NpzFormat, OpenFoamFormat,
    ProbesFormat, NetcdfFormat, ZarrFormat, GribFormat, PdeBenchFormat, TheWellFormat, TrajectoryFormat, PpFormat,
    EnsightFormat, ComsolFormat, Toa5Format, DavisFormat, RdbFormat, CfxFormat, VtkFormat,
    VtkBinaryFormat,
)
for _kind in BUILTIN:
    register_format(_kind)

__all__ = ["Format", "register_format"]
