"""Conversion of files of any registered format to the project's schema; files in the schema are repacked."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from inrflow.data.calendar import retimed
from inrflow.data.formats import builtin  # noqa: F401  registers its formats
from inrflow.data.formats.registry import ReadOptions, expanded, format_of
from inrflow.data.formats.streams.joining import read_files
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_DESCRIPTION = ("name", "units", "time_units", "source", "licence", "period", "geometry", "time_period", "symmetries")

_OWN = (".h5", ".hdf5")  # names of files in the schema


def count_times_as(path: str | os.PathLike[str], units: str, assumed: bool = False) -> None:
    """Convert, in place, the times of a file in the project's schema to other units, if it declares its own; `assumed`:
    whether it is then said to have these. Raises UserError if its own have another calendar, or none."""
    with damage_as_user_error(Path(path)), h5py.File(path, "r+") as file:
        own = str(file.attrs.get("time_units", "")) or units
        if own != units:
            file["t"][...] = retimed(file["t"][...], own, units)
        if own != units or assumed:
            file.attrs["time_units"] = units


def convert(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], target: str | os.PathLike[str], /, *,
            overwrite: bool = False, channels: Sequence[str] | None = None, coordinates: Sequence[str] | None = None,
            time: str | None = None, trajectory: str | None = None, select: dict[str, int] | None = None,
            stations: str | None = None, **description: Any) -> None:
    """Write `source`, a file of any readable format (recognised by its content), to `target` in the project's schema.

    source: a file, a Zarr folder, a pattern with *, ? or [, or a list of files of one format, which are joined along
    time if one continues another, and are separate trajectories otherwise.
    channels, coordinates, time: names of variables or columns, if they do not follow from the file. Longitude and
    latitude become unit vectors (geometry "sphere", the degrees are kept as `lonlat`). For named dimensions only
    (NetCDF, Zarr): trajectory, the dimension along which trajectories are stacked, and select, an index for a dimension
    that is neither time nor space. stations: a table of names and places of stations, for tables with a column for each
    station, or a column of names. description: name, units, time_units, source, licence, period, geometry, time_period,
    symmetries (names) as in Description, which override the file. Large files are read and written in blocks.
    The target is validated by the reader of trajectory files before it is renamed to its final name.
    Raises UserError if the file cannot be read or understood, if the target exists (unless `overwrite`) or is not named
    .h5 or .hdf5.
    """
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    paths = [path for item in given for path in expanded(os.fspath(item))]
    unknown = sorted(set(description) - set(_DESCRIPTION))
    if unknown:
        raise UserError(f"unknown option {', '.join(unknown)} of convert; known are channels, coordinates, time, "
                        f"trajectory, select, stations, {', '.join(_DESCRIPTION)}")
    for path in paths:
        if os.path.exists(target) and os.path.exists(path) and os.path.samefile(path, target):
            raise UserError(f"{path} cannot be converted onto itself; give another target")
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise UserError(f"{twice} is given twice, which would be two equal trajectories; give each file once")
    if not os.fspath(target).lower().endswith(_OWN):
        raise UserError(f"{target} is not named as HDF5, and convert writes that, in the project's schema; name it "
                        f"{os.path.splitext(target)[0]}.h5")
    kind = format_of(paths[0])
    if not kind.named_dimensions and (trajectory is not None or select):
        name = "trajectory" if trajectory is not None else "select"
        raise UserError(f"{name} is for files whose variables have named dimensions (NetCDF, Zarr), and {paths[0]} is "
                        "none; leave it out, or choose columns with channels=[...] and coordinates=[...]")
    options = ReadOptions(channels, coordinates, time, trajectory, select or {}, stations, description)
    states = [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    with read_files(paths, options) as content:
        content.write(target, overwrite)
    for path, *state in states:
        if not path.exists() or state != [path.stat().st_size, path.stat().st_mtime_ns]:
            warnings.warn(f"{path} has changed while it was read, so that values may be missing; read it again when "
                          "it is complete", stacklevel=2)
            break
