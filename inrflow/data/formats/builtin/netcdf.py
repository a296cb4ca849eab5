"""NetCDF 3 and 4 with CF conventions: variables over named dimensions, read as trajectories or as a table."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from inrflow.data.batch import Markers, blanked
from inrflow.data.calendar import DEFAULT_CALENDAR, moments_to_numbers, other_calendar, parse_units, units_of
from inrflow.data.description import Description, without_answers
from inrflow.data.formats.builtin.netcdf_table import (
    TRAJECTORY_DIMENSIONS,
    NetcdfColumns,
    open_netcdf,
    valid_values,
)
from inrflow.data.formats.columns import Columns
from inrflow.data.formats.layouts import blocks
from inrflow.data.formats.meshes.mesh_writers import CELLS
from inrflow.data.formats.registry import Content, Format, ReadOptions, TableWriter
from inrflow.data.formats.schema import is_hdf5_with, resolves
from inrflow.data.formats.sphere import (
    LATITUDES,
    LONGITUDES,
    cut_elsewhere,
    lonlat_to_xyz,
    named_lonlat,
    require_one_length,
    sphere_axes,
    warn_of_radians,
)
from inrflow.data.formats.streams.met_office import SIGNATURE
from inrflow.data.formats.streams.netcdf_writers import NetcdfWriter, ZarrWriter
from inrflow.data.formats.streams.streamed import OpenedContent, Part
from inrflow.data.formats.streams.variables import at_one_place, find_variable, numbered, place_of, time_of
from inrflow.data.formats.table_format import TableContent
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_AXES = ("projection_x_coordinate", "X"), ("projection_y_coordinate", "Y")  # CF names and axes
_SHOWN = 12  # entries of a dimension shown in messages
_FLAGS = {"flag_values", "flag_masks", "flag_meanings"}  # CF attributes of variables that are no quantities


class NetcdfFormat(Format):
    """NetCDF 3, by its first bytes, and NetCDF 4, HDF5 with attributes of the NetCDF library or dimension scales."""

    name = "NetCDF"
    about = "NetCDF"
    suffixes: ClassVar[tuple[str, ...]] = (".nc", ".nc4")
    table = True
    binary = True
    named_dimensions = True

    def sniff(self, path: Path, start: bytes) -> bool:
        if start[:3] == b"CDF" and start[3:4] in (b"\1", b"\2", b"\5"):
            return True

        def marked(file: h5py.File) -> bool:
            items = [file[name] for name in file if resolves(file, name)]
            if len(items) == 1 and isinstance(items[0], h5py.Group):  # e.g. satellite grids
                items = [items[0][name] for name in items[0] if resolves(items[0], name)]
            if {"format", "version", "channels"} <= set(file.attrs):  # the project's schema, possibly invalid
                return False
            return "_NCProperties" in file.attrs or any(isinstance(item, h5py.Dataset) and "CLASS" in item.attrs
                                                        for item in items)

        return is_hdf5_with(path, marked)

    def read(self, path: Path, options: ReadOptions) -> Content:
        data = open_netcdf(path)
        if not _is_table(data, options):
            return NetcdfContent(path, data, options)
        data.close()
        with damage_as_user_error(path):
            return TableContent(self.with_options(options), path, options)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with damage_as_user_error(path):
            data = open_netcdf(path)
            try:
                variables = ", ".join(f"{name} ({', '.join(map(str, variable.dims))})"
                                      for name, variable in data.variables.items())
                flat = ", ".join(f"{name} in {one.attrs['units']}" for name, one in data.variables.items()
                                 if "units" in one.attrs and one.attrs.get("standard_name") in dict(_AXES[:2]))
                maps = [f"{one.attrs['grid_mapping_name']}{flat and f': {flat}'}"
                        for one in data.variables.values() if "grid_mapping_name" in one.attrs]
                return [("dimensions", ", ".join(f"{name} {size}" for name, size in data.sizes.items()) or "none"),
                        ("variables", variables or "none"), *(("grid mapping", one) for one in maps)]
            finally:
                data.close()

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        with damage_as_user_error(path):
            return NetcdfColumns(path, wanted, self.options)

    def open_writer(self, path: Path, description: Description | None, overwrite: bool) -> TableWriter:
        return NetcdfWriter(path, description, overwrite)


class ZarrFormat(NetcdfFormat):
    """Folder with the metadata of a Zarr group, version 2 or 3; read by the package zarr (the extra `zarr`)."""

    name = "Zarr"
    about = "Zarr"
    suffixes = (".zarr",)
    folder = True

    def sniff(self, path: Path, start: bytes) -> bool:
        return path.is_dir() and any((path / name).is_file() for name in (".zgroup", ".zmetadata", "zarr.json"))

    def open_writer(self, path: Path, description: Description | None, overwrite: bool) -> TableWriter:
        return ZarrWriter(path, description, overwrite)


class GribFormat(NetcdfFormat):
    """GRIB editions 1 and 2, by their first bytes; read by the package cfgrib (the extra `grib`)."""

    name = "GRIB"
    about = "GRIB"
    suffixes = ()

    def sniff(self, path: Path, start: bytes) -> bool:
        return start.startswith(b"GRIB")


class PpFormat(NetcdfFormat):
    """PP files of the UK Met Office; read by the package iris (the extra `pp`)."""

    name = "PP"
    about = "PP of the UK Met Office"
    suffixes = ()

    def sniff(self, path: Path, start: bytes) -> bool:
        return SIGNATURE.match(start) is not None


class NetcdfContent(OpenedContent):
    """Variables over time and space as channels, read in blocks; points that never have a value (land) are left out.

    The roles of variables and dimensions follow from names, CF standard names, axes and units, or from the options.
    """

    def _understand(self, options: ReadOptions) -> None:
        path, data, trajectory = self.path, self._file, options.trajectory
        absent = sorted(set(options.select) - set(map(str, data.dims)))
        if absent:
            raise UserError(f"{path} has no dimension {', '.join(absent)}; there are {', '.join(map(str, data.dims))}")
        for name, index in options.select.items():
            if not 0 <= int(index) < data.sizes[name]:
                held = ", ".join(map(str, data[name].values[:_SHOWN])) if name in data.variables else "numbers"
                raise UserError(f"{path}: {name} has {data.sizes[name]} entries ({held}), none with index {index}; "
                                f"give an index from 0 to {data.sizes[name] - 1}")
        data = numbered(data.isel(options.select), [*(options.coordinates or ()), *filter(None, [options.time])])
        if options.time is not None and options.time not in data.variables:
            raise UserError(f"{path} has no variable {options.time}; there are "
                            f"{', '.join(map(str, data.variables)) or 'none'}")
        time = options.time or time_of(data)
        self._time = data[time].dims[0] if time is not None and data[time].ndim else None
        single = [dim for dim, size in data.sizes.items() if size == 1 and dim not in (self._time, trajectory)]
        data = data.squeeze(single)
        if trajectory is not None and trajectory not in data.dims:
            raise UserError(f"{path} has no dimension {trajectory}; there are {', '.join(map(str, data.dims))}")
        self._stacked = trajectory or next((dim for dim in TRAJECTORY_DIMENSIONS if dim in data.dims), None)
        data = _still(data, (self._time, self._stacked))
        names = self._names = _channels(path, data, options.channels, self._time, self._stacked)
        self._space = [dim for dim in data[names[0]].dims if dim not in (self._time, self._stacked)]
        empty = [dim for dim in data[names[0]].dims if not data.sizes[dim]]
        if empty:
            raise UserError(f"{path}: the dimension {', '.join(map(str, empty))} has no entries; give a file with "
                            "values")
        axes, self._x, self._lonlat = _points(path, data, options.coordinates, self._space,
                                              options.description.get("geometry"), names)
        t, calendar = _times(path, data, time)
        if " since " in (calendar or "") and parse_units(calendar) is None and other_calendar(calendar) is None:
            warnings.warn(f"{path}: {calendar!r} of {time} is no known unit of time since a date; times are numbers "
                          "without dates", stacklevel=2)
        self._order = np.argsort(t, kind="stable")
        self._markers: dict[int, list[float]] = {}
        self._selected = data
        self._order = self._without_repeats(t[self._order], time)
        self._t, self.timeless = t[self._order], time is None
        texts = {key: next((str(data.attrs[name]) for name in keys if name in data.attrs), None)
                 for key, keys in (("source", ("source", "title")), ("licence", ("license", "licence")))}
        units = [str(data[name].attrs.get("units", "")) for name in names]
        self.description = options.describe(path, names, axes, units=units if any(units) else None, time_units=calendar,
                                            geometry=None if self._lonlat is None else "sphere", **texts)

    def _without_repeats(self, t: np.ndarray, time: str | None) -> np.ndarray:
        """Indices of the frames at sorted times t (T,) without repetitions. Raises UserError if values of repeated
        times differ."""
        again = np.flatnonzero(np.diff(t) == 0)
        count = 1 if self._stacked is None else self._selected.sizes[self._stacked]
        for frame in again.tolist():
            pairs = (self._values(index, slice(frame, frame + 2)) for index in range(count))
            if not all(np.array_equal(one, other, equal_nan=True) for one, other in pairs):
                first, second = (int(entry) for entry in self._order[frame:frame + 2])
                moment = str(np.atleast_1d(self._selected[time].values)[first]).removesuffix(".000000000")
                raise UserError(f"{self.path}: {time} is {moment} in the entries {first}, {second}; their "
                                "values differ, so keep one frame for each time")
        if len(again):
            warnings.warn(f"{self.path}: {len(again)} of {len(t)} frames are there twice, with the same time and "
                          "values, and are taken once", stacklevel=2)
        return np.delete(self._order, again + 1)

    def _values(self, trajectory: int, frames: slice) -> np.ndarray:
        """Values (T, N, C) of a range of frames of one trajectory."""
        parts = []
        for name in self._names:
            part = self._selected[name]
            part = part if self._stacked is None else part.isel({self._stacked: trajectory})
            part = part.expand_dims("_time") if self._time is None else part.isel({self._time: self._order[frames]})
            part = part.transpose(self._time or "_time", *self._space)
            parts.append(valid_values(part, name, self.path).reshape(-1, len(self._x)))
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, which the writer refuses
            values = np.stack(parts, -1).astype(np.float32)
        return blanked(values, self._markers)

    def parts(self) -> Iterator[Part]:
        t, x = self._t, self._x
        count = 1 if self._stacked is None else self._selected.sizes[self._stacked]
        kept, marked = np.zeros(len(x), bool), Markers(self._names)
        for index in range(count):
            for frames, *_ in blocks((len(t), len(x), len(self._names))):
                values = self._values(index, frames)
                kept |= ~np.isnan(values).all((0, 2))
                marked.look(values)
        if not self._markers and (found := marked.fill_values(self.path)):
            self._markers = found
            yield from self.parts()
            return
        if lost := int((kept & ~np.isfinite(x).all(1)).sum()):
            warnings.warn(f"{self.path}: {lost} of {kept.sum()} points with values have no coordinates and are left "
                          "out", stacklevel=2)
        kept &= np.isfinite(x).all(1)
        if not kept.any():
            raise UserError(f"{self.path} holds no value of {', '.join(self._names)}: all are missing; choose other "
                            "channels")
        self.extra = {} if self._lonlat is None else {"lonlat": self._lonlat[kept]}
        if len(self._space) == 1:  # cells all of whose nodes are kept
            cells = {name: self._selected[name].values for name in CELLS.values() if name in self._selected}
            self.extra |= {name: (np.cumsum(kept) - 1)[own] for name, all_ in cells.items() if len(
                own := all_[kept[all_].all(1)])}
        for index in range(count):
            yield Part(t, x[kept], partial(self._kept_values, index, kept))

    def _kept_values(self, trajectory: int, kept: np.ndarray, first: int, last: int) -> np.ndarray:
        return self._values(trajectory, slice(first, last))[:, kept]


def _is_table(data: Any, options: ReadOptions) -> bool:
    """Whether the fields of a file are rows with a time and a place each (point data, series): all are on the dimension
    of times alone, with places on it or a single place."""
    chosen = options.select.items()
    if options.trajectory or any(not 0 <= int(index) < data.sizes.get(name, 0) for name, index in chosen):
        return False
    data = at_one_place(data, options.select, options.time)
    time = options.time or time_of(data)
    if time not in data.variables or data[time].ndim != 1:
        return False
    along = [name for name, one in data.data_vars.items() if data[time].dims[0] in one.dims and one.dtype.kind in "fiu"]
    places = [data[name].dims for words in (LONGITUDES, LATITUDES) if (name := place_of(data, words)) is not None]
    places = places or [data[name].dims for name in "xyz" if name in data.variables]
    return bool(along) and all(data[name].dims == data[time].dims for name in along) and all(
        dims in ((), data[time].dims) for dims in places)


def _channels(path: Path, data: Any, channels: Sequence[str] | None, time_dim: Any, stacked: Any) -> list[str]:
    """Variables that are fields over space: those named, else numeric ones with most dimensions, including time."""
    ends = {variable.attrs.get(key) for variable in data.variables.values() for key in ("bounds", "climatology")}
    numeric = {str(name): variable.dims for name, variable in data.data_vars.items()
               if variable.dtype.kind in "fiu" and variable.dims and name not in ends}
    listed = ", ".join(f"{name} {dims}" for name, dims in numeric.items()) or "none"
    if channels:
        absent = sorted(set(channels) - set(numeric))
        if absent:
            raise UserError(f"{path} has no variable {', '.join(absent)}; there are: {listed}")
        chosen = list(channels)
    else:
        along = {name: numeric[name] for name in without_answers(path, numeric) if time_dim in (None, *numeric[name])}
        flags = [name for name in along if len(along) > 1 and (_FLAGS & set(data[name].attrs) or "enum" in (
            getattr(data[name].encoding.get("dtype"), "metadata", None) or {}))]
        widest = max((len(dims) for name, dims in along.items() if name not in flags), default=0)
        chosen = [name for name, dims in along.items() if len(dims) == widest and name not in flags]
        if left := [name for name in flags if len(along[name]) == widest]:
            warnings.warn(f"{path}: {', '.join(left)} {'holds' if len(left) == 1 else 'hold'} flags and "
                          f"{'is' if len(left) == 1 else 'are'} left out; channels=[...] names what is taken",
                          stacklevel=2)
    if not numeric and (complex_ := [str(name) for name, one in data.data_vars.items() if one.dtype.kind == "c"]):
        raise UserError(f"{path}: {', '.join(complex_)} holds complex numbers; write real and imaginary parts as two "
                        "variables")
    dims = {frozenset(numeric[name]) for name in chosen}
    if len(dims) != 1 or not dims.copy().pop() - {time_dim, stacked}:
        raise UserError(f"{path}: cannot tell which variables are fields over space; name them with channels=[...], "
                        f"all of the same dimensions; there are: {listed}" if numeric else
                        f"{path} holds no variable of numbers over places and times; give a file with fields")
    return chosen


def _points(path: Path, data: Any, coordinates: Sequence[str] | None, space: list[Any], geometry: str | None,
            channels: list[str]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray | None]:
    """Coordinate names, points (N, d) in C order of the space dimensions, and degrees (N, 2) on a sphere, else None."""
    own = data.drop_vars([name for name, one in data.variables.items() if not set(one.dims) <= set(space)])
    lonlat = [place_of(own, words) or place_of(data, words) for words in (LONGITUDES, LATITUDES)]
    may_be_sphere = coordinates is None and geometry in (None, "sphere")
    rotated = [find_variable(data, ("rlon",), "grid_longitude", (), ""),
               find_variable(data, ("rlat",), "grid_latitude", (), "")]
    if may_be_sphere and None in lonlat and None not in rotated:
        raise UserError(f"{path}: {' and '.join(map(str, rotated))} are places on a rotated grid whose pole is not "
                        "given; add lon and lat, or the grid_mapping, or take them as flat with coordinates=[...]")
    if geometry == "sphere" and coordinates is not None and len(coordinates) == 2:
        lonlat, may_be_sphere = [*named_lonlat(coordinates)], set(coordinates) <= set(map(str, data.variables))
    sphere = may_be_sphere and None not in lonlat and any(data[name].dims for name in lonlat)  # else a single place
    names: list[Any] = lonlat if sphere else list(coordinates or [dim for dim in space if dim in data.variables])
    if not sphere and coordinates is None and len(names) < len(space):
        names = [name for name in "xyz" if name in data.variables and data[name].dims] or names
        on_axes = [find_variable(own, (), standard, (axis,), "") for standard, axis in _AXES]
        names = names or [name for name in on_axes if name is not None]
    absent = [name for name in names if name not in data.variables]
    covered = {dim for name in names if name in data.variables for dim in data[name].dims}
    if absent or covered != set(space):
        sizes = ", ".join(f"{dim} ({data.sizes[dim]})" for dim in space)
        spanned = f"span {', '.join(map(str, sorted(covered, key=str)))}" if covered else "span none of them"
        which = f"the coordinates {', '.join(map(str, names))} {spanned}" if names else "no coordinates were recognised"
        further = ", ".join(str(dim) for dim in space if dim not in covered)
        chosen = " ".join(f"select.{dim}=0" for dim in space if dim not in covered) or "select.DIMENSION=INDEX"
        times = "" if time_of(data) else ", or name what holds the times with time=NAME"
        if "expver" in space:  # recent months of ERA5 are preliminary
            times += ("; join versions of ERA5 in Python: data.sel(expver=1).combine_first(data.sel(expver=5))"
                      ".to_netcdf(FILE)")
        elif (ahead := {"step", "lead", "leadtime", "lead_time"} & set(space)) and time_of(data) in data.dims:
            times += f"; trajectory={time_of(data)} time={ahead.pop()} takes the forecast of each time as a trajectory"
        elif covered:
            times += ", or name what counts trajectories with trajectory=NAME"
            along = set(data.variables[time_of(data)].dims) if time_of(data) else set()
            if flat := [name for name, one in data.data_vars.items() if set(one.dims) == along | covered]:
                times += f", or take those without {further} with channels=[{','.join(map(str, flat))}]"
        raise UserError(f"{path}: fields live on the dimensions {sizes} but {which}; name one for each with "
                        f"coordinates=[...] (one without values is numbered), or choose an index, such as "
                        f"{chosen}{times}")
    require_one_length(path, {str(name): str(data[name].attrs.get("units", "")) for name in names
                              if not {"positive", "axis"} & set(data[name].attrs) or data[name].attrs.get("axis") in (
                                  "X", "Y")})
    shape = [data.sizes[dim] for dim in space]
    columns = []
    for name in names:
        variable = data[name]
        inside = [dim for dim in space if dim in variable.dims]
        values = variable.transpose(*inside).values.astype(np.float64)
        spread = values.reshape([data.sizes[dim] if dim in inside else 1 for dim in space])
        columns.append(np.broadcast_to(spread, shape).ravel())
    places = np.stack(columns, -1)
    if not sphere:
        if lonlat[0] in names and cut_elsewhere(lon := places[:, names.index(lonlat[0])]) is not lon:
            raise UserError(f"{path}: {lonlat[0]} wraps around within the region; leave out coordinates=[...], so that "
                            "places are on a sphere, or write continuous longitudes")
        return tuple(map(str, names)), places, None
    if (np.abs(places[:, 1]) > 90.0001).any():
        raise UserError(f"{path}: {names[1]} goes beyond 90 degrees; name other coordinates with coordinates=[...] if "
                        "it is no latitude")
    if not any(str(data[name].attrs.get("units", "")).lower().startswith("deg") for name in names):
        warn_of_radians(path, places)
    return sphere_axes(channels), lonlat_to_xyz(places[:, 0], places[:, 1]), places


def _still(data: Any, along: Sequence[Any]) -> Any:
    """Dataset with longitudes and latitudes reduced along dimensions on which they are constant, as in joined files."""
    for name in filter(None, (place_of(data, words) for words in (LONGITUDES, LATITUDES))):
        repeated = [dim for dim in data[name].dims if dim in along]
        if repeated and len(repeated) < data[name].ndim:
            first = data[name].isel(dict.fromkeys(repeated, 0), drop=True)
            if bool((data[name] == first).all()):
                data = data.drop_vars(name).assign_coords({name: first.variable})
    return data


def _times(path: Path, data: Any, time: str | None) -> tuple[np.ndarray, str | None]:
    """Times (T,) as numbers, and their units, which name the calendar if it is not the standard one."""
    if time is None:
        return np.zeros(1), None
    values = np.atleast_1d(data[time].values)
    if values.ndim != 1:
        raise UserError(f"{path}: {time} has the dimensions {data[time].dims}; expected one time axis for all")
    if values.dtype.kind in "fM" and (wrong := np.flatnonzero(np.isnan(values) | np.isinf(values.astype(float)))).size:
        raise UserError(f"{path}: {time} has no value in entry {wrong[0]} ({len(wrong)} of {len(values)} in all); give "
                        "every frame its time")
    if values.dtype.kind == "M":
        stored = data[time].encoding.get("units")
        units = stored if parse_units(stored) else DEFAULT_CALENDAR
        return moments_to_numbers(values, units), units
    if values.dtype.kind not in "fiu":
        raise UserError(f"{path}: {time} has type {values.dtype}; expected numbers, with units for dates")
    return values.astype(np.float64), units_of(data[time].attrs) if "units" in data[time].attrs else None
