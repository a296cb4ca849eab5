"""Writers of tables as NetCDF and Zarr: variables over rows, or over the grid (with metadata) of the file of points."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np

from inrflow.data.calendar import DEFAULT_CALENDAR, moments_to_numbers, other_calendar, parse_units
from inrflow.data.description import FLAG, FLAG_MEANING, Description
from inrflow.data.formats.columns import Grid
from inrflow.data.formats.layouts import hyperslabs
from inrflow.data.formats.registry import (
    CHUNK_ROWS,
    TableWriter,
    attributes_of,
    units_of_columns,
)
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import folder_of, require_replaceable
from inrflow.runtime.stores import put_folder, restore

RADIANS = "inrflow_radians"  # attribute of angles converted to degrees: their units in the file
_ZARR = ("zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata")  # metadata of a folder
_EXTRAS = {"cfgrib": "grib", "iris": "pp", "astropy_healpix": "healpix"}


def require_package(package: str, path: Path) -> None:
    """Check that the package that reads or writes a file is installed. Raises UserError."""
    if find_spec(package) is None:
        raise UserError(f"{path} needs the package {package}; install it with `pip install "
                        f"inrflow[{_EXTRAS.get(package, package)}]`")


class NetcdfWriter(TableWriter):
    """Writer of variables over a dimension `row`, or over the grid that the points came from; dates as CF numbers."""

    def __init__(self, path: Path, description: Description | None, overwrite: bool) -> None:
        super().__init__(path, description, overwrite)
        units = description.time_units if description else None
        self._calendar = str(units) if parse_units(units) else DEFAULT_CALENDAR
        self._dates: set[str] = set()

    def append(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        self._dates |= {name for name, values in columns.items() if np.asarray(values).dtype.kind == "M"}
        super().append(columns, grid)

    def _encoded(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values)
        return moments_to_numbers(values, self._calendar) if values.dtype.kind == "M" else super()._encoded(values)

    def _start(self, columns: Mapping[str, np.ndarray], grid: Grid | None) -> None:
        import h5netcdf

        grid = self._grid = None if grid is None or not grid.axes else grid  # without axes it is only a mesh
        self._file = h5netcdf.File(self._target.open_for_hdf5(), "w")
        dims: tuple[str, ...] = ("row",) if grid is None else grid.dims
        self._file.dimensions = {"row": None} if grid is None else dict(zip(dims, grid.shape, strict=True))
        known = {} if grid is None else grid.attributes
        facts = dict(known.get("", {}))
        run = f" from the run {self.run}" if self.run else ""
        history = f"{facts.pop('history', '')}\npredicted by inrflow{run}".strip()
        self._file.attrs.update({"Conventions": "CF-1.10", **facts, "history": history})
        units = units_of_columns(self.description)
        axes = {} if grid is None else grid.axes
        scalars = {} if grid is None else {name: value for name, value in grid.scalars.items() if name not in columns}
        for name, value in scalars.items():
            own = known.get(name, {}) | ({"units": self._calendar} if value.dtype.kind == "M" else {})
            self._file.create_variable(name, (), data=self._encoded(value)).attrs.update(own)
        for name, (along, values, about) in ({} if grid is None else grid.topology).items():
            sizes = dict(zip(along, values.shape, strict=True))
            known_sizes = {dim: self._file.dimensions[dim].size for dim in along if dim in self._file.dimensions}
            if name not in columns and name not in scalars and known_sizes.items() <= sizes.items():
                self._file.dimensions.update({dim: size for dim, size in sizes.items() if dim not in known_sizes})
                self._file.create_variable(name, along, data=values, fillvalue=about.get("_FillValue")).attrs.update(
                    {key: value for key, value in about.items() if key != "_FillValue"})
        auxiliary = " ".join([*(name for name in axes if name in columns and name not in dims),
                              *(name for name in scalars if "grid_mapping_name" not in known.get(name, {}))])
        for name, values in columns.items():
            kept = name in axes
            along, whole = axes.get(name, (dims, values))
            is_date = whole.dtype.kind == "M" or name in self._dates
            whole, own = self._encoded(whole), dict(attributes_of(name, known))
            if radians := own.pop(RADIANS, None):
                whole, own["units"] = np.radians(whole), radians
            kind = h5py.string_dtype() if whole.dtype == object else whole.dtype
            variable = self._file.create_variable(name, along, kind, chunks=(CHUNK_ROWS,) if grid is None else None,
                                                  fillvalue=np.nan if whole.dtype.kind == "f" else None)
            if whole.dtype != object:
                variable.attrs.update({key: value for key, value in own.items() if key != "calendar" or not is_date})
            if not kept and auxiliary:
                variable.attrs["coordinates"] = auxiliary
            if name == FLAG:
                variable.attrs.update(FLAG_MEANING)
            if is_date:
                variable.attrs["units"] = self._calendar
            elif name in units and whole.dtype != object:
                unit, calendar = other_calendar(units[name]) or (units[name], None)
                variable.attrs.update({"units": unit} | ({"calendar": calendar} if calendar else {}))
            if kept:
                variable[...] = whole

    def _add(self, columns: Mapping[str, np.ndarray]) -> None:
        count = len(next(iter(columns.values())))
        if self._grid is None:
            self._file.resize_dimension("row", self._rows + count)
            for name, values in columns.items():
                self._file.variables[name][self._rows:self._rows + count] = values
            return
        for name, values in columns.items():
            if name not in self._grid.axes:
                for slab, first, last in hyperslabs(self._grid.shape, self._rows, self._rows + count):
                    shape = tuple(part.stop - part.start for part in slab)
                    self._file.variables[name][slab] = values[first:last].reshape(shape)


class ZarrWriter(NetcdfWriter):
    """Writer of the same content as NetcdfWriter as a Zarr folder, which is renamed when complete.

    Raises UserError if the package zarr is not installed.
    """

    @staticmethod
    def is_store(path: Path) -> bool:
        group = any((path / name).is_file() for name in ("zarr.json", ".zgroup"))
        return group and all(item.name in _ZARR or any((item / name).is_file() for name in _ZARR)
                             for item in path.iterdir())

    def __init__(self, path: Path, description: Description | None, overwrite: bool) -> None:
        require_package("zarr", path)
        restore(path)
        super().__init__(path, description, overwrite)
        self._overwrite = overwrite

    def _complete(self) -> None:
        import xarray

        self._finish()
        aside = folder_of(self._target.partial)
        with self._target.guard(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # text in Zarr 3 is a draft
            with xarray.open_dataset(self._target.partial, engine="h5netcdf", decode_times=False) as data:
                data.to_zarr(aside, mode="w")
                with xarray.open_zarr(aside, decode_times=False) as written:
                    if written.sizes != data.sizes or set(written.variables) != set(data.variables):
                        raise UserError(f"{self.path} was not written in full; write .nc instead")
            require_replaceable(self.path, self._overwrite, self.is_store)
            put_folder(aside, self.path)
