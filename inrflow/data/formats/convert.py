"""Conversion of other formats to the project's schema: NetCDF, CSV, flat HDF5, npz; its own files are packed anew."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.blocks import VALUES_PER_BLOCK, blocks
from inrflow.data.formats.calendar import moments_to_numbers, parse_units
from inrflow.data.formats.columns import file_format, open_columns, open_netcdf
from inrflow.data.formats.schema import open_hdf5
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, lonlat_to_xyz
from inrflow.data.formats.tables import TIMES, read_observations
from inrflow.data.formats.trajectory_file import TrajectoryFile, TrajectoryWriter, write_scattered, write_trajectories
from inrflow.data.symmetries import Symmetries
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import written_hdf5

READABLE = "NetCDF, CSV, npz (arrays t, x, u), HDF5 (1-D datasets as columns, or the project's schema)"
TRAJECTORY_DIMENSIONS = ("trajectory", "sample", "member", "realization", "ensemble", "run", "batch")
DEFAULT_CALENDAR = "hours since 1970-01-01"
_DESCRIPTION = ("name", "units", "time_units", "source", "licence", "period", "geometry", "time_period", "symmetries")


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], /, *, overwrite: bool = False,
            channels: Sequence[str] | None = None, coordinates: Sequence[str] | None = None,
            trajectory: str | None = None, select: dict[str, int] | None = None, **description: Any) -> None:
    """Write `source`, a file of any readable format (told by its content), to `target` in the project's schema.

    channels, coordinates: names of variables or columns, where they are not plain from the file. Longitude and latitude
    in degrees become unit vectors (geometry "sphere", the degrees are kept as `lonlat`). NetCDF only: trajectory, the
    dimension along which trajectories are stacked, and select, an index for a dimension that is neither time nor space.
    description: name, units, time_units, source, licence, period, geometry, time_period, symmetries (names) as in
    Description, in place of what the file says. Large files are read and written in blocks.
    Raises UserError where the file cannot be read or understood, or the target exists (unless `overwrite`).
    """
    path = Path(source)
    unknown = sorted(set(description) - set(_DESCRIPTION))
    if unknown:
        raise UserError(f"unknown option {', '.join(unknown)} of convert; known are channels, coordinates, trajectory, "
                        f"select, {', '.join(_DESCRIPTION)}")
    if Path(target).exists() and path.exists() and os.path.samefile(path, target):
        raise UserError(f"{path} cannot be converted onto itself; give another target")
    kind = file_format(path)
    if kind != "netcdf" and (trajectory is not None or select):
        given = "trajectory" if trajectory is not None else "select"
        raise UserError(f"{given} is for NetCDF files, whose variables have named dimensions, and {path} is none; "
                        "leave it out, or choose columns with channels=[...] and coordinates=[...]")
    if kind == "netcdf":
        _from_netcdf(path, target, overwrite, channels, coordinates, trajectory, select or {}, description)
    elif kind in ("csv", "hdf5"):
        _from_columns(path, target, overwrite, channels, coordinates, description)
    elif kind == "npz":
        _from_npz(path, target, overwrite, channels, coordinates, description)
    else:
        if channels or coordinates or description:
            raise UserError(f"{path} is in the project's schema already and is copied as it is; leave out the options")
        _repack(path, target, overwrite)


def _describe(path: Path, channels: Sequence[str], coordinates: Sequence[str], given: dict[str, Any],
              **found: Any) -> Description:
    """The description of what was found, with what the user gave in its place."""
    values = {"name": path.stem, **{key: value for key, value in found.items() if value is not None}, **given}
    symmetries = values.pop("symmetries", ())
    described = Description(channels=tuple(channels), coordinates=tuple(coordinates), **values)
    if not symmetries:
        return described
    values["symmetries"] = Symmetries.by_name(symmetries, described)
    return Description(channels=tuple(channels), coordinates=tuple(coordinates), **values)


# ---- NetCDF ----

def _from_netcdf(path: Path, target: str | os.PathLike[str], overwrite: bool, channels: Sequence[str] | None,
                 coordinates: Sequence[str] | None, trajectory: str | None, select: dict[str, int],
                 given: dict[str, Any]) -> None:
    data = open_netcdf(path)
    try:
        absent = sorted(set(select) - set(map(str, data.dims)))
        if absent:
            raise UserError(f"{path} has no dimension {', '.join(absent)}; there are {', '.join(map(str, data.dims))}")
        for name, index in select.items():
            if not 0 <= int(index) < data.sizes[name]:
                raise UserError(f"{path}: {name} has {data.sizes[name]} entries, none with index {index}")
        data = data.isel(select)
        time = _find(data, TIMES, "time", ("T",), "")
        time_dim = data[time].dims[0] if time is not None and data[time].ndim else None
        single = [dim for dim, size in data.sizes.items() if size == 1 and dim not in (time_dim, trajectory)]
        data = data.squeeze(single)
        if trajectory is not None and trajectory not in data.dims:
            raise UserError(f"{path} has no dimension {trajectory}; there are {', '.join(map(str, data.dims))}")
        stacked = trajectory or next((dim for dim in TRAJECTORY_DIMENSIONS if dim in data.dims), None)
        names = _netcdf_channels(path, data, channels, time_dim, stacked)
        space = [dim for dim in data[names[0]].dims if dim not in (time_dim, stacked)]
        axes, x, lonlat = _netcdf_points(path, data, coordinates, space, given.get("geometry"))
        t, calendar = _netcdf_times(path, data, time)
        texts = {key: next((str(data.attrs[name]) for name in keys if name in data.attrs), None)
                 for key, keys in (("source", ("source", "title")), ("licence", ("license", "licence")))}
        units = [str(data[name].attrs.get("units", "")) for name in names]
        described = _describe(path, names, axes, given, units=units if any(units) else None, time_units=calendar,
                              geometry=None if lonlat is None else "sphere", **texts)

        def values(index: int, frames: slice) -> np.ndarray:
            parts = []
            for name in names:
                part = data[name] if stacked is None else data[name].isel({stacked: index})
                part = part.expand_dims("_time") if time_dim is None else part.isel({time_dim: frames})
                parts.append(part.transpose(time_dim or "_time", *space).values.reshape(-1, len(x)))
            return np.stack(parts, -1).astype(np.float32)

        count = 1 if stacked is None else data.sizes[stacked]
        cuts = [part for (part, *_) in blocks((len(t), len(x), len(names)))]
        # Points that never hold a value (land, in a sea temperature) are left out.
        kept = np.zeros(len(x), bool)
        for index in range(count):
            for frames in cuts:
                kept |= np.isfinite(values(index, frames)).any((0, 2))
        kept &= np.isfinite(x).all(1)
        if not kept.any():
            raise UserError(f"{path} holds no value of {', '.join(names)}: all are missing; choose other channels")
        extra = {} if lonlat is None else {"lonlat": lonlat[kept]}
        with TrajectoryWriter(target, described, overwrite, extra) as writer:
            for index in range(count):
                for part, frames in enumerate(cuts):
                    add = writer.append if part == 0 else writer.extend
                    add(t[frames], x[kept], values(index, frames)[:, kept])
    finally:
        data.close()


def _find(data: Any, names: Sequence[str], standard: str, axis: Sequence[str], unit: str) -> str | None:
    """A variable by its name, CF standard name, axis or unit."""
    for name, variable in data.variables.items():
        attributes = variable.attrs
        if (str(name).lower() in names or attributes.get("standard_name") == standard or attributes.get("axis") in axis
                or (unit and str(attributes.get("units", "")).lower().startswith(unit))):
            return str(name)
    return None


def _netcdf_channels(path: Path, data: Any, channels: Sequence[str] | None, time_dim: Any, stacked: Any) -> list[str]:
    numeric = {str(name): variable.dims for name, variable in data.data_vars.items()
               if variable.dtype.kind in "fiu" and variable.dims}
    listed = ", ".join(f"{name} {dims}" for name, dims in numeric.items()) or "none"
    if channels:
        absent = sorted(set(channels) - set(numeric))
        if absent:
            raise UserError(f"{path} has no variable {', '.join(absent)}; there are: {listed}")
        chosen = list(channels)
    else:
        along = {name: dims for name, dims in numeric.items() if time_dim is None or time_dim in dims}
        widest = max((len(dims) for dims in along.values()), default=0)
        chosen = [name for name, dims in along.items() if len(dims) == widest]
    dims = {frozenset(numeric[name]) for name in chosen}
    if len(dims) != 1 or not dims.copy().pop() - {time_dim, stacked}:
        raise UserError(f"{path}: cannot tell which variables are fields over space; name them with channels=[...], "
                        f"all of the same dimensions; there are: {listed}")
    return chosen


def _netcdf_points(path: Path, data: Any, coordinates: Sequence[str] | None, space: list[Any],
                   geometry: str | None) -> tuple[tuple[str, ...], np.ndarray, np.ndarray | None]:
    """Coordinate names, points (N, d) in C order of the space dimensions, and their degrees (N, 2) on a sphere."""
    lonlat = [_find(data, LONGITUDES, "longitude", (), "degrees_east"),
              _find(data, LATITUDES, "latitude", (), "degrees_north")]
    sphere = coordinates is None and None not in lonlat and geometry in (None, "sphere")
    names: list[Any] = lonlat if sphere else list(coordinates or [dim for dim in space if dim in data.variables])
    if not sphere and coordinates is None and len(names) < len(space):
        names = [name for name in "xyz" if name in data.variables and data[name].dims]
    absent = [name for name in names if name not in data.variables]
    covered = {dim for name in names if name in data.variables for dim in data[name].dims}
    if absent or covered != set(space):
        sizes = ", ".join(f"{dim} ({data.sizes[dim]})" for dim in space)
        raise UserError(f"{path}: fields live on the dimensions {sizes} but the coordinates "
                        f"{', '.join(names) or 'found'} span "
                        f" {', '.join(map(str, covered)) or 'none of them'}; name one for each with "
                        "coordinates=[...], or choose an index with select={dimension: index}")
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
        return tuple(map(str, names)), places, None
    if (np.abs(places[:, 1]) > 90.0001).any():
        raise UserError(f"{path}: {names[1]} goes beyond 90 degrees; give geometry=null if it is no latitude")
    return ("x", "y", "z"), lonlat_to_xyz(places[:, 0], places[:, 1]), places


def _netcdf_times(path: Path, data: Any, time: str | None) -> tuple[np.ndarray, str | None]:
    if time is None:
        return np.zeros(1), None
    values = np.atleast_1d(data[time].values)
    if values.ndim != 1:
        raise UserError(f"{path}: {time} has the dimensions {data[time].dims}; expected one time axis for all")
    if values.dtype.kind == "M":
        stored = data[time].encoding.get("units")
        units = stored if parse_units(stored) else DEFAULT_CALENDAR
        return moments_to_numbers(values, units), units
    if values.dtype.kind not in "fiu":
        raise UserError(f"{path}: {time} has type {values.dtype}; expected numbers or dates of the standard calendar")
    return values.astype(np.float64), data[time].attrs.get("units")


# ---- tables ----

def _from_columns(path: Path, target: str | os.PathLike[str], overwrite: bool, channels: Sequence[str] | None,
                  coordinates: Sequence[str] | None, given: dict[str, Any]) -> None:
    with open_columns(path) as columns:
        names = columns.names
        time = next((name for name in TIMES if name in names), None)
        first = next(columns.blocks(1), {}).get(time or "", np.zeros(1))
    lonlat = [name for group in (LONGITUDES, LATITUDES) for name in names if name in group][:2]
    sphere = coordinates is None and len(lonlat) == 2 and given.get("geometry", "sphere") == "sphere"
    axes = tuple("xyz") if sphere else tuple(coordinates or [name for name in "xyz" if name in names])
    taken = {"trajectory", *TIMES, *axes, *(lonlat if sphere else ())}
    fields = tuple(channels or [name for name in names if name not in taken])
    if not axes or not fields:
        raise UserError(f"{path} has the columns {', '.join(names)}: cannot tell coordinates from channels; name them "
                        "with coordinates=[...] and channels=[...]")
    calendar = DEFAULT_CALENDAR if first.dtype.kind == "O" and not _is_number(first[0]) else None
    described = _describe(path, fields, axes, given, time_units=calendar, geometry="sphere" if sphere else None)
    found = [observations.frames() for observations in read_observations(path, described, strict=False).values()]
    if not any(frames.moving for frames in found):
        with TrajectoryWriter(target, described, overwrite) as writer:
            for frames in found:
                writer.append(frames.t, frames.x, frames.u)
        return
    rows: list[tuple[np.ndarray, ...]] = []
    for number, frames in enumerate(found):
        frame, column = np.nonzero(~np.isnan(frames.u).all(-1))
        x = np.broadcast_to(frames.x, (*frames.u.shape[:2], len(axes)))[frame, column]
        rows.append((np.full(len(frame), number), frames.t[frame], x, frames.u[frame, column]))
    numbers, t, x, u = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    write_scattered(target, numbers, t, x, u, described, overwrite=overwrite)


def _is_number(cell: Any) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _from_npz(path: Path, target: str | os.PathLike[str], overwrite: bool, channels: Sequence[str] | None,
              coordinates: Sequence[str] | None, given: dict[str, Any]) -> None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} cannot be read as npz ({str(error).splitlines()[0]}); expected plain "
                        "arrays") from error
    if not {"t", "x", "u"} <= set(arrays):
        raise UserError(f"{path} holds the arrays {', '.join(arrays) or 'none'}; expected t, x and u")
    t, x, u = (arrays.pop(name) for name in ("t", "x", "u"))
    if any(value.dtype.kind not in "fiu" or value.ndim == 0 for value in (x, u)) or t.dtype.kind not in "fiu":
        raise UserError(f"{path}: t, x and u have types {t.dtype}, {x.dtype}, {u.dtype}; expected arrays of numbers")
    d, C = x.shape[-1], u.shape[-1]
    channels = channels or [str(name) for name in np.atleast_1d(arrays.pop("channels", np.array([])))] \
        or (["u"] if C == 1 else [f"u{index}" for index in range(C)])
    coordinates = coordinates or [str(name) for name in np.atleast_1d(arrays.pop("coordinates", np.array([])))] \
        or (list("xyz")[:d] if d <= 3 else [f"x{index}" for index in range(d)])
    described = _describe(path, channels, coordinates, given)
    if (len(described.coordinates), len(described.channels)) != (d, C):
        raise UserError(f"{path}: x {x.shape} has {d} coordinates and u {u.shape} {C} channels, but the names are "
                        f"{', '.join(coordinates)} and {', '.join(channels)}; give one each")
    context = {name: arrays.pop(name, None) for name in ("parameters", "environment")}
    number = arrays.pop("trajectory", np.zeros(len(u), np.int64) if u.ndim == 2 else None)
    if number is not None:
        write_scattered(target, number, t, x, u, described, **context, extra=arrays, overwrite=overwrite)
    else:
        u = u[None] if u.ndim == 3 else u
        write_trajectories(target, t, x, u, described, **context, extra=arrays, overwrite=overwrite)


# ---- the project's own schema ----

def _repack(path: Path, target: str | os.PathLike[str], overwrite: bool) -> None:
    """Copy a checked file, its large datasets in blocks with compression."""
    TrajectoryFile(path).close()
    with open_hdf5(path) as old, written_hdf5(target, overwrite) as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for name, item in old.items():
            if not isinstance(item, h5py.Dataset) or item.size * item.dtype.itemsize < 1 << 16:
                old.copy(name, new)
                continue
            packed = new.create_dataset(name, item.shape, item.dtype, chunks=item.chunks or True, compression="gzip",
                                        compression_opts=4, shuffle=True)
            for key, value in item.attrs.items():
                packed.attrs[key] = value
            for part in blocks(item.shape, VALUES_PER_BLOCK):
                packed[part] = item[part]
