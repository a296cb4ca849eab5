"""Opening of NetCDF files with decoded dates, and reading as tables: variables as columns, in blocks of rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from inrflow.data.calendar import (
    DEFAULT_CALENDAR,
    STANDARD_CALENDARS,
    compact_dates,
    numbers_of_dates,
    numbers_to_moments,
    units_of,
)
from inrflow.data.formats.builtin.models import TOPOLOGY, from_model_layouts
from inrflow.data.formats.columns import HEIGHTS, TIMES, Columns, Grid, find_column
from inrflow.data.formats.layouts import hyperslabs
from inrflow.data.formats.registry import ReadOptions
from inrflow.data.formats.schema import open_hdf5
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, cut_elsewhere, rotated_to_lonlat
from inrflow.data.formats.streams.instances import as_rows, from_argo_profiles
from inrflow.data.formats.streams.met_office import SIGNATURE, as_netcdf
from inrflow.data.formats.streams.netcdf_writers import RADIANS, require_package
from inrflow.data.formats.streams.variables import at_one_place, find_variable, numbered, place_of, time_of
from inrflow.data.months import months_to_days
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_PACKING = ("_FillValue", "missing_value", "scale_factor", "add_offset", "valid_range", "valid_min", "valid_max",
            "coordinates", "bounds", "units_metadata", "cell_measures", "ancillary_variables", "mesh", "location")
TRAJECTORY_DIMENSIONS = ("trajectory", "sample", "member", "realization", "realisation", "ensemble", "ensemble_member",
                         "ens", "number", "run", "batch")


def open_netcdf(path: Path) -> Any:
    """NetCDF, GRIB or PP file, or Zarr folder, as a lazy xarray.Dataset.

    Times of the standard calendar are decoded, others remain numbers; longitudes and latitudes in radians are converted
    to degrees; true places are added for rotated grids. Raises UserError if it cannot be read."""
    import xarray

    from inrflow.data.formats.streams.grib import open_grib  # imports xarray

    engine, group, options = _engine(path), None, dict[str, Any]()
    if engine == "h5netcdf":
        group, options["drop_variables"] = _group(path)
    elif engine == "zarr":
        group = _group_of_zarr(path)
    source, engine = (as_netcdf(path), "h5netcdf") if engine == "iris" else (path, engine)
    with damage_as_user_error(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata")
        read = partial(xarray.open_dataset, source, engine=engine, cache=False, decode_times=False, **options)
        data = open_grib(path) if engine == "cfgrib" else read(group=group) if group else read()
        if group and engine == "h5netcdf":
            data = _with_outer_coordinates(data, group, read)
    try:
        with damage_as_user_error(path):
            if str(data.attrs.get("Conventions", "")).lower().startswith("cf/radial"):
                raise UserError(f"{path} holds sweeps of a radar in polar coordinates (CfRadial), which is not read; "
                                "interpolate them to a grid of x and y, as Py-ART's grid_from_radars does")
            data = _with_dates(as_rows(from_argo_profiles(path, data), TIMES))
            return _going_on(path, _true_places(_degrees(from_model_layouts(path, _renamed(data)))))
    except BaseException:
        data.close()
        raise


def _engine(path: Path) -> str:
    """Name of xarray's engine for a file. Raises UserError if its package is not installed."""
    if path.is_dir():
        engine, package = "zarr", "zarr"
    else:
        with path.open("rb") as file:
            start = file.read(264)
        engine, package = ("scipy", "scipy") if start[:3] == b"CDF" else \
            ("cfgrib", "cfgrib") if start[:4] == b"GRIB" else ("iris", "iris") if SIGNATURE.match(start) else \
            ("h5netcdf", "h5netcdf")
    require_package(package, path)
    return engine


def _group(path: Path) -> tuple[str | None, list[str]]:
    """Group of an HDF5 file that holds its fields, None for its root, and names of its variables of lists, which xarray
    does not read. Raises UserError if several groups do."""
    fields, others = dict[str, list[str]](), dict[str, list[str]]()

    def look(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            group, _, own = name.rpartition("/")
            scale = not item.ndim or item.attrs.get("CLASS") == b"DIMENSION_SCALE"
            listed = item.dtype.kind == "O" and h5py.check_string_dtype(item.dtype) is None
            (others if scale else fields).setdefault(group, []).extend([own] if listed else [])

    with open_hdf5(path) as file, damage_as_user_error(path):  # refuses references to other files
        file.visititems(look)
    held = fields or others
    if len(held) > 1 and "" not in held:
        first = min(held)
        raise UserError(f"{path} holds its variables in the groups {', '.join(sorted(held))}, but only one can be "
                        f"read; copy it to a file of its own, in Python by xarray.open_dataset('{path}', "
                        f"group='{first}').to_netcdf('{first.replace('/', '_')}.nc')")
    return (None, held.get("", [])) if "" in held or not held else next(iter(held.items()))


def _with_outer_coordinates(data: Any, group: str, read: Callable[..., Any]) -> Any:
    """Dataset of a group with the variables of the groups around it that lie on its dimensions."""
    for above in PurePosixPath(f"/{group}").parents:
        with read(group=str(above)) as outer:
            data = data.assign_coords({name: one.load() for name, one in outer.variables.items()
                                       if name not in data.variables and set(one.dims) <= set(data.dims)})
    return data


def _group_of_zarr(path: Path) -> str | None:
    """Group of a Zarr folder that holds its arrays, None for its root. Raises UserError if several do."""
    import zarr

    with damage_as_user_error(path):
        arrays, root = list[str](), zarr.open_group(path, mode="r")
        groups: list[tuple[str, Any]] = [("", root)]
        for inside, group in groups:  # as many as are found; zarr 2 and 3 have these methods alone in common
            arrays += [f"{inside}{name}" for name in group.array_keys()]
            groups += [(f"{inside}{name}/", group[name]) for name in group.group_keys()]
    held = sorted({name.rpartition("/")[0] for name in arrays})
    if "" in held or not held:
        return None
    if len(held) > 1:
        raise UserError(f"{path} holds its variables in the groups {', '.join(held)}, but only one can be read; give "
                        f"the folder of one, such as {path / held[0]}")
    return held[0]


def _with_dates(data: Any) -> Any:
    """Dataset with times as datetime64 if they have the standard calendar and are in the range of datetime64."""
    from xarray.conventions import decode_cf_variable

    decoded = {}
    for name, variable in data.variables.items():
        units = str(variable.attrs.get("units", ""))
        called = str(name).lower() in TIMES or variable.attrs.get("standard_name") == "time"
        if called and variable.ndim <= 1 and variable.dtype.kind in "fiu" and (not units or units.startswith("day as")):
            written = compact_dates(np.asarray(variable.values, np.float64))
            if written is not None:
                decoded[name] = variable.copy(data=written[0])
        if variable.ndim <= 1 and variable.dtype.kind in "fiu" and units.lower().startswith(("month", "year")):
            t = np.asarray(variable.values, np.float64)
            if (days := months_to_days(t, units, variable.attrs.get("calendar", "standard"))) is not None:
                t, units, calendar = days
                attributes = variable.attrs | {"units": units, "calendar": calendar}
                decoded[name] = variable = type(variable)(variable.dims, t, attributes)
        if called and variable.ndim == 1 and variable.dtype.kind in "OSUT":
            decoded |= _texts_as_dates(name, variable)
        if " since " not in units or variable.attrs.get("calendar", "standard") not in STANDARD_CALENDARS:
            continue
        try:
            dates = decode_cf_variable(name, variable, mask_and_scale=False, decode_timedelta=False)
        except (ValueError, OverflowError, ImportError):
            continue
        if dates.dtype.kind == "M":
            decoded[name] = dates
    if time_of(data) is None and "time_coverage_start" in data.attrs:  # a single moment, as in daily satellite maps
        start = str(data.attrs["time_coverage_start"]).removesuffix("Z")
        with suppress(ValueError):
            data = data.assign_coords(time=np.datetime64(start, "us"))
    coordinates = {name: dates for name, dates in decoded.items() if name in data.coords}
    return data.assign_coords(coordinates).assign({k: v for k, v in decoded.items() if k not in coordinates})


def _texts_as_dates(name: Any, variable: Any) -> dict[Any, Any]:
    """Variable of times, by name, with text converted to dates; empty if some text is no date."""
    values = np.asarray(variable.values)
    try:
        t = numbers_of_dates((np.char.decode(values) if values.dtype.kind == "S" else values).astype(object),
                             DEFAULT_CALENDAR)
    except UserError:
        return {}
    if t is None or np.isnan(t).any():
        return {}
    return {name: type(variable)(variable.dims, numbers_to_moments(t, DEFAULT_CALENDAR), variable.attrs)}


def _renamed(data: Any) -> Any:
    """Dataset in which a field named like times, such as temperature `t`, is renamed to its CF standard name."""
    if "t" not in data.data_vars or data["t"].ndim < 2:
        return data
    name = str(data["t"].attrs.get("standard_name", "temperature"))
    return data.rename({"t": name if name not in data.variables else "t_field"})


def _degrees(data: Any) -> Any:
    for standard, names in (("longitude", LONGITUDES), ("latitude", LATITUDES)):
        for name, variable in list(data.variables.items()):
            place = variable.attrs.get("standard_name") == standard or str(name).lower() in names
            if place and str(variable.attrs.get("units", "")).lower().startswith("rad"):
                attributes = {**variable.attrs, "units": "degrees", RADIANS: variable.attrs["units"]}
                degrees = (variable.dims, np.degrees(variable.values.astype(np.float64)), attributes)
                data = data.assign_coords({name: degrees}) if name in data.coords else data.assign({name: degrees})
    return data


def _going_on(path: Path, data: Any) -> Any:
    """With longitudes without latitudes, as of a section, that go on across the meridian where they begin anew."""
    name = place_of(data, LONGITUDES)
    if name is None or data[name].ndim != 1 or place_of(data, LATITUDES) is not None or data[name].dtype.kind != "f":
        return data
    values = data[name].values
    if (cut := cut_elsewhere(values)) is values:
        return data
    warnings.warn(f"{path}: {name} is counted from {np.nanmin(cut):g} to {np.nanmax(cut):g} degrees: the section lies "
                  "across the meridian where it begins anew", stacklevel=3)
    return data.assign_coords({name: (data[name].dims, cut, data[name].attrs)})


def _true_places(data: Any) -> Any:
    """Dataset with true longitudes and latitudes `lon`, `lat` added for a rotated grid with a given pole."""
    if None not in (place_of(data, LONGITUDES), place_of(data, LATITUDES)):
        return data
    names = {v.attrs.get("grid_mapping") or v.encoding.get("grid_mapping") for v in data.data_vars.values()}
    poles = [data[name].attrs for name in sorted(names - {None}) if name in data.variables]
    pole = next((one for one in poles if one.get("grid_mapping_name") == "rotated_latitude_longitude"), None)
    rotated = [find_variable(data, ("rlon",), "grid_longitude", ("X",), ""),
               find_variable(data, ("rlat",), "grid_latitude", ("Y",), "")]
    if pole is None or None in rotated:
        return data
    import xarray

    across, along = xarray.broadcast(*(data[name].drop_vars(data[name].coords) for name in reversed(rotated)))
    where = (pole["grid_north_pole_longitude"], pole["grid_north_pole_latitude"],
             pole.get("north_pole_grid_longitude", 0.0))
    places = rotated_to_lonlat(along.values, across.values, *map(float, where))
    return data.assign_coords({name: (across.dims, places[..., axis], {"standard_name": standard, "units": units})
                               for axis, (name, standard, units) in enumerate((
                                   ("lon", "longitude", "degrees_east"), ("lat", "latitude", "degrees_north")))})


def _attributes(item: Any) -> dict[str, Any]:
    """Descriptive attributes of a variable or file, without those of packing."""
    return {str(key): value for key, value in item.attrs.items()
            if key not in _PACKING and np.asarray(value).dtype.kind in "iufU"}


def _as_stored(variable: Any) -> tuple[tuple[str, ...], np.ndarray, dict[str, Any]]:
    """Dimensions, values and attributes of a variable of numbers, whole where the file has whole ones with gaps."""
    values, packing = np.asarray(variable.values), variable.encoding
    kind, fill = packing.get("dtype"), packing.get("_FillValue")
    about = {str(key): value for key, value in variable.attrs.items() if np.asarray(value).dtype.kind in "iufU"}
    if kind is not None and np.dtype(kind).kind in "iu" and values.dtype.kind == "f" and fill is not None:
        values, about = np.where(np.isnan(values), fill, values).astype(kind), about | {"_FillValue": fill}
    values = values if values.dtype.kind in "fiu" else np.zeros(values.shape, np.int32)
    return tuple(map(str, variable.dims)), values, about


def valid_values(variable: Any, name: str, path: Path) -> np.ndarray:
    """Values of a variable, NaN outside of its CF attributes `valid_range`, `valid_min` and `valid_max`, which is told.
    """
    values, about, packing = np.asarray(variable.values), variable.attrs, variable.encoding
    bounds = np.array(about.get("valid_range", (about.get("valid_min", -np.inf), about.get("valid_max", np.inf))))
    if values.dtype.kind not in "fiu" or bounds.shape != (2,) or bounds.dtype.kind not in "fiu":
        return values
    if "scale_factor" in packing and bounds.dtype.kind in "iu":
        bounds = bounds * packing["scale_factor"] + packing.get("add_offset", 0)
    low, high = bounds + 1e-6 * np.abs(bounds) * [-1, 1]  # rounding
    if (outside := (values < low) | (values > high)).any():
        warnings.warn(f"{path}: values of {name} outside of {bounds[0]:g} to {bounds[1]:g}, which the file calls "
                      "valid, are taken for missing ones", stacklevel=2)
        values = np.where(outside, np.nan, values)
    return values


def _height_in_rows(data: Any, time: str | None) -> str | None:
    """Name of the heights or depths of rows with individual times; None if there are none."""
    if time is None or data[time].ndim != 1:
        return None
    own = {str(name): one.attrs for name, one in data.variables.items() if one.dims == data[time].dims and name != time}
    return next((name for name, about in own.items() if about.get("axis") == "Z" or about.get("positive") in (
        "up", "down")), None)


class NetcdfColumns(Columns):
    """NetCDF variables as columns: rows are the points of the dimensions spanned by the wanted variables.

    Dimensions with a selected index are removed, and the dimension of trajectories becomes a column of numbers.
    """

    def __init__(self, path: Path, wanted: Sequence[Sequence[str]], options: ReadOptions) -> None:
        data = numbered(open_netcdf(path), [names[0] for names in wanted if len(names) == 1])
        data = at_one_place(data, options.select, options.time)
        members = options.trajectory or next((dim for dim in TRAJECTORY_DIMENSIONS if dim in data.dims), None)
        if members in data.dims and "trajectory" not in data.variables:
            data = data.assign_coords(trajectory=(members, np.arange(data.sizes[members])))
        self._data, self._path = data, path
        found: dict[tuple[str, ...], str | None] = {TIMES: options.time or time_of(data)}
        found |= {names: place_of(data, names) for names in (LONGITUDES, LATITUDES)}
        found[HEIGHTS] = _height_in_rows(data, found[TIMES])
        self.meant = {names: name for names, name in found.items() if name is not None}
        # as in training: beside valid times of its steps, `time` is when a forecast began
        chosen = [self.meant.get(tuple(names)) or find_column(map(str, data.variables), names) for names in wanted]
        spanning = [self._data[name] for name in chosen if name is not None]
        widest = max((variable.dims for variable in spanning), key=len, default=())
        dims = tuple(dict.fromkeys((*widest, *(dim for variable in spanning for dim in variable.dims))))
        stored = (v.dims for v in self._data.data_vars.values()
                  if {dim for dim in v.dims if dim in dims or data.sizes[dim] > 1} == set(dims))
        dims = next(stored, dims)  # results keep the order of the file's fields, also a level that is the only one
        sizes = tuple(self._data.sizes[dim] for dim in dims)
        self._on = {str(name): variable for name, variable in self._data.variables.items()
                    if set(variable.dims) <= set(dims) and (variable.dims or name in chosen)}
        self.names = tuple(self._on)
        self.units = {name: units_of(v.attrs) for name, v in self._on.items() if "units" in v.attrs}
        if not self.names or 0 in sizes:
            available = ", ".join(f"{name} {variable.dims}" for name, variable in self._data.variables.items())
            self._data.close()
            raise UserError(f"{path} holds {available or 'nothing'}; expected variables "
                            + ", ".join(" or ".join(names) for names in wanted))
        self._dims, self._shape = dims, sizes
        series = dims == (found[TIMES],)  # a series at a single place
        if len(dims) > 1 or series:
            axes = {name: (tuple(map(str, variable.dims)), np.asarray(variable.values))
                    for name, variable in self._on.items()
                    if len(variable.dims) < len(dims) or (series and (name,) == dims)}
            single = {str(name): v if v.dtype.kind in "fiuM" else v.copy(data=np.int32(0))
                      for name, v in data.variables.items() if not v.dims and name not in self._on
                      and (v.dtype.kind in "fiuM" or "grid_mapping_name" in v.attrs)}
            held = {name: _attributes(v) for name, v in (single | self._on).items()}
            topology = {str(name): _as_stored(v) for name, v in data.attrs.get(TOPOLOGY, {}).items()}
            for name, one in self._on.items():
                if one.attrs.get("mesh") in topology:
                    held[name] |= {key: one.attrs[key] for key in ("mesh", "location") if key in one.attrs}
            for one in held.values():
                if one.get("grid_mapping") not in (None, *single):
                    del one["grid_mapping"]
            self.grid = Grid(tuple(map(str, dims)), sizes, axes, attributes={"": _attributes(self._data), **held},
                             scalars={name: np.asarray(v.values) for name, v in single.items()}, topology=topology)

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
                slabs = (aligned[slab] for slab, _, _ in hyperslabs(self._shape, start, stop))
                block[name] = np.concatenate([np.ravel(
                    slab.values if name in self.meant.values() else valid_values(slab, name, self._path))
                    for slab in slabs])
            if block[name].dtype.kind == "S":
                block[name] = np.char.decode(block[name], "utf-8", "replace").astype(object)
        return block

    def close(self) -> None:
        self._data.close()
