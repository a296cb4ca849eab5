"""NetCDF files opened with decoded dates, and as tables: variables as columns, read and written in blocks of rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.calendar import DEFAULT_CALENDAR, moments_to_numbers, parse_units
from inrflow.data.formats.columns import Columns, Grid, find_column
from inrflow.data.formats.layouts import hyperslabs
from inrflow.data.formats.registry import CHUNK_ROWS, TableWriter, units_of_columns
from inrflow.data.formats.schema import damage_as_user_error, open_hdf5
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES
from inrflow.errors import UserError

_PACKING = ("_FillValue", "missing_value", "scale_factor", "add_offset", "valid_range", "valid_min", "valid_max",
            "coordinates", "bounds", "units_metadata", "grid_mapping", "cell_measures", "ancillary_variables")
STANDARD_CALENDARS = ("standard", "gregorian", "proleptic_gregorian")


def open_netcdf(path: Path) -> Any:
    """A NetCDF or GRIB file, or a Zarr folder, as a lazy xarray.Dataset.

    Times of the standard calendar are decoded, others left as numbers; radians of longitude and latitude become
    degrees. Raises UserError where it cannot be read.
    """
    import xarray

    engine = _engine(path)
    if engine == "h5netcdf":
        open_hdf5(path).close()  # refuses what refers to other files
    # No index file is written beside the data.
    options: dict[str, Any] = {"backend_kwargs": {"indexpath": ""}} if engine == "cfgrib" else {}
    with damage_as_user_error(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata")
        data = xarray.open_dataset(path, engine=engine, cache=False, decode_times=False, **options)
    try:
        with damage_as_user_error(path):
            return _degrees(_with_dates(data))
    except BaseException:
        data.close()
        raise


def _engine(path: Path) -> str:
    """Name of xarray's engine for a file. Raises UserError where its package is not installed."""
    if path.is_dir():
        engine, package = "zarr", "zarr"
    else:
        with path.open("rb") as file:
            start = file.read(4)
        engine, package = ("scipy", "scipy") if start[:3] == b"CDF" else \
            ("cfgrib", "cfgrib") if start == b"GRIB" else ("h5netcdf", "h5netcdf")
    if find_spec(package) is None:
        extra = "grib" if package == "cfgrib" else package
        raise UserError(f"{path} is read by the package {package}; install it with `pip install inrflow[{extra}]`")
    return engine


def _with_dates(data: Any) -> Any:
    """Times as datetime64 where their calendar is the standard one and they are in the range of datetime64."""
    from xarray.conventions import decode_cf_variable

    decoded = {}
    for name, variable in data.variables.items():
        if " since " not in str(variable.attrs.get("units", "")) \
                or variable.attrs.get("calendar", "standard") not in STANDARD_CALENDARS:
            continue
        try:
            dates = decode_cf_variable(name, variable, mask_and_scale=False, decode_timedelta=False)
        except (ValueError, OverflowError, ImportError):
            continue
        if dates.dtype.kind == "M":
            decoded[name] = dates
    coordinates = {name: dates for name, dates in decoded.items() if name in data.coords}
    return data.assign_coords(coordinates).assign({k: v for k, v in decoded.items() if k not in coordinates})


def _degrees(data: Any) -> Any:
    for standard, names in (("longitude", LONGITUDES), ("latitude", LATITUDES)):
        for name, variable in list(data.variables.items()):
            place = variable.attrs.get("standard_name") == standard or str(name).lower() in names
            if place and str(variable.attrs.get("units", "")).lower().startswith("rad"):
                attributes = {**variable.attrs, "units": "degrees"}
                degrees = (variable.dims, np.degrees(variable.values.astype(np.float64)), attributes)
                data = data.assign_coords({name: degrees}) if name in data.coords else data.assign({name: degrees})
    return data


def _attributes(item: Any) -> dict[str, Any]:
    """Attributes that say what a variable, or a file, is; not how it is packed."""
    return {str(key): value for key, value in item.attrs.items() if key not in _PACKING and isinstance(
        value, str | int | float | np.integer | np.floating)}


class NetcdfColumns(Columns):
    """NetCDF variables as columns: the rows are the points of the dimensions that the wanted variables span."""

    def __init__(self, path: Path, wanted: Sequence[Sequence[str]]) -> None:
        self._data = open_netcdf(path)
        self._path = path
        chosen = [find_column(map(str, self._data.variables), names) for names in wanted]
        spanning = [self._data[name] for name in chosen if name is not None]
        widest = max((variable.dims for variable in spanning), key=len, default=())
        dims = tuple(dict.fromkeys((*widest, *(dim for variable in spanning for dim in variable.dims))))
        stored = (v.dims for v in self._data.data_vars.values() if set(v.dims) == set(dims))
        dims = next(stored, dims)  # answers keep the order that the file's fields have
        sizes = tuple(self._data.sizes[dim] for dim in dims)
        self._on = {str(name): variable for name, variable in self._data.variables.items()
                    if set(variable.dims) <= set(dims) and (variable.dims or name in chosen)}
        self.names = tuple(self._on)
        if not self.names or 0 in sizes:
            available = ", ".join(f"{name} {variable.dims}" for name, variable in self._data.variables.items())
            self._data.close()
            raise UserError(f"{path} holds {available or 'nothing'}; expected variables "
                            + ", ".join(" or ".join(names) for names in wanted))
        self._dims, self._shape = dims, sizes
        if len(dims) > 1:
            axes = {name: (tuple(map(str, variable.dims)), np.asarray(variable.values))
                    for name, variable in self._on.items() if len(variable.dims) < len(dims)}
            self.grid = Grid(tuple(map(str, dims)), sizes, axes, attributes={
                "": _attributes(self._data), **{name: _attributes(v) for name, v in self._on.items()}})

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        total = int(np.prod(self._shape, dtype=np.int64))
        with damage_as_user_error(self._path):
            small = {name: np.asarray(v.values) for name, v in self._on.items() if len(v.dims) < len(self._dims)}
        for start in range(0, total, rows):
            with damage_as_user_error(self._path):
                block = self._block(small, start, min(total, start + rows))
            yield block

    def _block(self, small: Mapping[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
        place = dict(zip(self._dims, np.unravel_index(np.arange(start, stop), self._shape), strict=True)) \
            if self._dims else {}
        block = {}
        for name, variable in self._on.items():
            if name in small:
                values = small[name][tuple(place[dim] for dim in variable.dims)]
                block[name] = np.broadcast_to(values, (stop - start,))
            else:
                aligned = variable.transpose(*self._dims)
                block[name] = np.concatenate([np.asarray(aligned[slab].values).ravel()
                                              for slab, _, _ in hyperslabs(self._shape, start, stop)])
        return block

    def close(self) -> None:
        self._data.close()


class NetcdfWriter(TableWriter):
    """Variables over one dimension `row`, or over the grid that the points came from; dates as CF numbers."""

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

        self._grid = grid
        self._file = h5netcdf.File(self._target.open_for_hdf5(), "w")
        dims: tuple[str, ...] = ("row",) if grid is None else grid.dims
        self._file.dimensions = {"row": None} if grid is None else dict(zip(dims, grid.shape, strict=True))
        facts = {} if grid is None else dict(grid.attributes.get("", {}))
        history = f"{facts.pop('history', '')}\npredicted by inrflow".strip()
        self._file.attrs.update({"Conventions": "CF-1.10", **facts, "history": history})
        units = units_of_columns(self.description)
        for name, values in columns.items():
            kept = grid is not None and name in grid.axes
            along, whole = grid.axes[name] if kept and grid is not None else (dims, values)
            is_date = whole.dtype.kind == "M" or name in self._dates
            whole = self._encoded(whole)
            kind = h5py.string_dtype() if whole.dtype == object else whole.dtype
            variable = self._file.create_variable(name, along, kind, chunks=(CHUNK_ROWS,) if grid is None else None,
                                                  fillvalue=np.nan if whole.dtype.kind == "f" else None)
            source = name.removesuffix("_observed")
            known = {} if grid is None else grid.attributes.get(name, grid.attributes.get(source, {}))
            if whole.dtype != object:
                variable.attrs.update({key: value for key, value in known.items() if key != "calendar" or not is_date})
            if is_date:
                variable.attrs["units"] = self._calendar
            elif name in units and whole.dtype != object:
                variable.attrs["units"] = units[name]
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
