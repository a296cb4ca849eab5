"""Tables of observations and query points, read in blocks and written with new columns: CSV, HDF5, NetCDF."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.calendar import dates_to_numbers, moments_to_numbers, parse_units
from inrflow.data.formats.columns import Columns, Grid, file_format, open_columns
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, lonlat_to_xyz
from inrflow.data.formats.table_writers import open_table_writer
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.observations import Observations
from inrflow.errors import UserError

TIMES = ("t", "time")
BLOCK_ROWS = 16384


@dataclass(frozen=True)
class PointTable:
    """R points in time and space: trajectory (R,) int64, t (R,) float64, x (R, d) float64.

    columns: all columns of the file in their order, as they were (text of a CSV's further columns untouched).
    grid: the structure of a gridded file, whose points are its cells in C order.
    """

    trajectory: np.ndarray
    t: np.ndarray
    x: np.ndarray
    columns: dict[str, np.ndarray]
    grid: Grid | None = None

    def __len__(self) -> int:
        return len(self.t)


class PointReader:
    """Query points of a file in blocks of PointTable: `for table in PointReader(path, description): ...`

    Reads CSV, flat HDF5, NetCDF (flat or gridded) and the project's schema, told apart by content. Needed are t (or
    time) and the coordinates, on a sphere also as lon and lat; trajectory is optional (0). Raises UserError where
    columns are missing or times or coordinates cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], description: Description, rows: int = BLOCK_ROWS) -> None:
        self.path, self.description, self.rows = Path(path), description, rows

    def __iter__(self) -> Iterator[PointTable]:
        if file_format(self.path) == "trajectories":
            yield from _trajectory_points(self.path, self.description, self.rows)
            return
        with open_columns(self.path, _spanning(self.description)) as columns:
            roles = _Roles(self.path, columns, self.description)
            seen = 0
            for block in columns.blocks(self.rows):
                table = roles.points(block, seen)
                seen += len(table)
                yield table
            if not seen:
                raise UserError(f"{self.path} has no rows; give at least one point")


def read_points(path: str | os.PathLike[str], description: Description) -> PointTable:
    """All query points of a file, in their order; see PointReader, which reads them in blocks."""
    tables = list(PointReader(path, description))
    columns = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    trajectory, t, x = (np.concatenate([getattr(table, key) for table in tables]) for key in ("trajectory", "t", "x"))
    return PointTable(trajectory, t, x, columns, tables[0].grid)


def read_observations(path: str | os.PathLike[str], description: Description,
                      strict: bool = True) -> dict[int, Observations]:
    """Observations by trajectory number, from a file in any of the formats of PointReader with a column per channel.

    An empty cell or NaN is a missing value. Raises UserError where a channel or coordinate is missing, and where a CSV
    has a column that is none of those expected (unless `strict` is off).
    """
    path = Path(path)
    if file_format(path) == "trajectories":
        return _trajectory_observations(path, description)
    tables: list[PointTable] = []
    values: list[np.ndarray] = []
    seen = 0
    with open_columns(path, [*_spanning(description), *((name,) for name in description.channels)]) as columns:
        roles = _Roles(path, columns, description)
        roles.require_channels(strict=strict and file_format(path) == "csv")
        for block in columns.blocks(BLOCK_ROWS):
            u = np.stack([_numbers(block[name], name, path, seen) for name in description.channels], -1)
            table = roles.points(block, seen, observed=~np.isnan(u).all(-1))
            seen += len(u)
            tables.append(PointTable(table.trajectory, table.t, table.x, {}))
            values.append(u)
    if not tables:
        raise UserError(f"{path} has no rows; give at least one observation")
    trajectory, u = np.concatenate([table.trajectory for table in tables]), np.concatenate(values)
    t, x = np.concatenate([table.t for table in tables]), np.concatenate([table.x for table in tables])
    found: dict[int, Observations] = {}
    for number in np.unique(trajectory).tolist():
        rows = trajectory == number
        try:
            found[number] = Observations(t[rows], x[rows], u[rows])
        except UserError as error:
            raise UserError(f"{path}, trajectory {number}: {error}") from error
    return found


class PointWriter:
    """Writes blocks of points with new columns, in the format of the suffix of `path` (.csv, .h5, .nc).

    A column of the points that has the name of a new one is kept as `<name>_observed`. Written aside and renamed when
    complete; use with `with`. Raises UserError where the suffix is unknown or `path` exists (unless `overwrite`).
    """

    def __init__(self, path: str | os.PathLike[str], description: Description | None = None,
                 overwrite: bool = False) -> None:
        self._writer = open_table_writer(Path(path), description, overwrite)

    def append(self, table: PointTable, columns: Mapping[str, np.ndarray]) -> None:
        """Add the rows of `table` with new `columns` (R,), the same names in every call."""
        for name, values in columns.items():
            if np.shape(values) != (len(table),):
                raise ValueError(f"column {name} has shape {np.shape(values)} for {len(table)} points")
        kept = {f"{name}_observed" if name in columns else name: values for name, values in table.columns.items()}
        self._writer.append({**kept, **columns}, table.grid)

    def close(self) -> None:
        """Complete the file and give it its name."""
        self._writer.close()

    def __enter__(self) -> PointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.abandon()


def write_points(path: str | os.PathLike[str], table: PointTable, columns: Mapping[str, np.ndarray],
                 description: Description | None = None, overwrite: bool = False) -> None:
    """Write points with all their original columns and the new ones; see PointWriter, which writes in blocks."""
    with PointWriter(path, description, overwrite) as writer:
        writer.append(table, columns)


# ---- which column is what ----

def _spanning(description: Description) -> list[tuple[str, ...]]:
    """Alternative names of the columns that place a row in time and space."""
    return [("trajectory",), TIMES, *((name,) for name in description.coordinates),
            *((LONGITUDES, LATITUDES) if description.geometry == "sphere" else ())]


class _Roles:
    """Finds time, place and trajectory among the columns of a file."""

    def __init__(self, path: Path, columns: Columns, description: Description) -> None:
        self.path, self.names, self.description = path, columns.names, description
        self.grid = columns.grid
        self.time = next((name for name in TIMES if name in self.names), None)
        self.lonlat = [next((name for name in names if name in self.names), None) for names in (LONGITUDES, LATITUDES)]
        self.by_lonlat = (description.geometry == "sphere" and None not in self.lonlat
                          and not set(description.coordinates) <= set(self.names))
        missing = [] if self.time else ["t"]
        if not self.by_lonlat:
            missing += [name for name in description.coordinates if name not in self.names]
        if missing:
            raise self._mismatch(f"lacks {', '.join(missing)}", ())

    def _mismatch(self, problem: str, channels: tuple[str, ...]) -> UserError:
        places = ", ".join(self.description.coordinates)
        if self.description.geometry == "sphere":
            places += " or lon, lat"
        expected = ", ".join(["t", places, *channels])
        return UserError(f"{self.path} {problem}: it has the columns {', '.join(self.names)}, expected {expected} and "
                         "optionally trajectory; rename or add columns")

    def require_channels(self, strict: bool) -> None:
        channels = self.description.channels
        missing = [name for name in channels if name not in self.names]
        known = {"trajectory", self.time, *channels, *self.description.coordinates}
        if self.description.geometry == "sphere":
            known |= set(self.lonlat)
        unknown = [name for name in self.names if name not in known] if strict else []
        problem = [f"has the unknown column {', '.join(unknown)}"] * bool(unknown)
        problem += [f"lacks the channel {', '.join(missing)}"] * bool(missing)
        if problem:
            raise self._mismatch(" and ".join(problem), channels)

    def points(self, block: dict[str, np.ndarray], first: int, observed: np.ndarray | None = None) -> PointTable:
        """The points of a block whose first row is number `first`; rows not `observed` may lack time and place."""
        assert self.time is not None
        t = self._times(block[self.time], first)
        if self.by_lonlat:
            lon, lat = (_numbers(block[name], name, self.path, first) for name in self.lonlat if name is not None)
            if (np.abs(lat) > 90).any():
                raise UserError(f"{self.path}: {self.lonlat[1]} holds {lat[np.abs(lat) > 90][0]:g}; expected degrees "
                                "from -90 to 90")
            x = lonlat_to_xyz(lon, lat)
        else:
            x = np.stack([_numbers(block[name], name, self.path, first) for name in self.description.coordinates], -1)
        for name, value in ((self.time, t), ("/".join(self.description.coordinates), x.sum(-1))):
            bad = ~np.isfinite(value) & (True if observed is None else observed)
            if bad.any():
                raise UserError(f"{self.path}: {name} is missing or not finite in row "
                                f"{first + int(np.argmax(bad)) + 1}; every point needs its time and coordinates")
        trajectory = np.zeros(len(t), np.int64)
        columns = dict(block)
        if "trajectory" in block:
            number = _numbers(block["trajectory"], "trajectory", self.path, first)
            bad = ~np.isfinite(number) | (number != np.floor(number)) | (number < 0)
            if bad.any():
                raise UserError(f"{self.path}: trajectory is {block['trajectory'][int(np.argmax(bad))]!r} in row "
                                f"{first + int(np.argmax(bad)) + 1}; expected whole numbers from 0")
            trajectory = columns["trajectory"] = number.astype(np.int64)
        if block[self.time].dtype != object or _all_numbers(block[self.time]):
            columns[self.time] = block[self.time] if block[self.time].dtype.kind == "M" else t
        for axis, name in enumerate(self.description.coordinates):
            if name in block and not self.by_lonlat:
                columns[name] = x[:, axis]
        return PointTable(trajectory, t, x, columns, self.grid)

    def _times(self, values: np.ndarray, first: int) -> np.ndarray:
        units = self.description.time_units
        try:
            if values.dtype.kind == "M":
                return moments_to_numbers(values, units)
            if values.dtype == object and not _all_numbers(values) and parse_units(units):
                return dates_to_numbers(values.tolist(), str(units))
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error
        except ValueError as error:
            raise UserError(f"{self.path}: {self.time} cannot be read as numbers or ISO dates in the rows from "
                            f"{first + 1} on ({error}); mend it") from error
        return _numbers(values, str(self.time), self.path, first)


def _all_numbers(values: np.ndarray) -> bool:
    try:
        np.array([value or "nan" for value in values.tolist()], np.float64)
    except ValueError:
        return False
    return True


def _numbers(values: np.ndarray, name: str, path: Path, first: int) -> np.ndarray:
    """A column as float64; an empty cell is NaN."""
    if values.dtype.kind in "fiub":
        return values.astype(np.float64)
    cells = [str(value).strip() or "nan" for value in values.tolist()]
    try:
        return np.array(cells, np.float64)
    except ValueError:
        for row, cell in enumerate(cells):
            try:
                float(cell)
            except ValueError:
                raise UserError(f"{path}: {name} is {cell!r} in row {first + row + 1}; expected a number, or an empty "
                                "cell where it is missing") from None
        raise


# ---- the project's own schema as a table ----

def _open_matching(path: Path, description: Description, check: bool) -> TrajectoryFile:
    file = TrajectoryFile(path, check=check)
    found, wanted = file.description, description
    problem = None
    if set(found.coordinates) != set(wanted.coordinates):
        problem = f"coordinates {', '.join(found.coordinates)}, expected {', '.join(wanted.coordinates)}"
    elif check and not set(wanted.channels) <= set(found.channels):
        problem = f"channels {', '.join(found.channels)}, expected {', '.join(wanted.channels)}"
    elif found.time_units and wanted.time_units and found.time_units != wanted.time_units:
        problem = f"times in {found.time_units}, expected {wanted.time_units}"
    if problem:
        file.close()
        raise UserError(f"{path} has {problem}; give a file of the same system as the model's")
    return file


def _trajectory_points(path: Path, description: Description, rows: int) -> Iterator[PointTable]:
    with _open_matching(path, description, check=False) as file:
        order = [file.description.coordinates.index(name) for name in description.coordinates]
        if file.layout == "scattered":
            for start in range(0, file.rows, rows):
                number, t, x, _ = file.read_rows(start, start + rows)
                yield _point_table(number, t, x[:, order], description)
            return
        times = file.times()
        for index in range(file.trajectories):
            valid = int(np.isfinite(times[index]).sum())
            for chosen in _cuts(valid, max(1, rows // file.points)):
                for points in _cuts(file.points, rows):
                    frames = file.read(index, chosen, points)
                    x = np.broadcast_to(frames.x, (len(chosen), len(points), len(order)))[..., order]
                    t = np.repeat(frames.t, len(points))
                    yield _point_table(np.full(len(t), index), t, x.reshape(len(t), -1), description)


def _point_table(trajectory: np.ndarray, t: np.ndarray, x: np.ndarray, description: Description) -> PointTable:
    columns = {"trajectory": trajectory, "t": t}
    return PointTable(trajectory, t, x, columns | dict(zip(description.coordinates, x.T, strict=True)))


def _cuts(count: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def _trajectory_observations(path: Path, description: Description) -> dict[int, Observations]:
    found: dict[int, Observations] = {}
    with _open_matching(path, description, check=True) as file:
        axes = [file.description.coordinates.index(name) for name in description.coordinates]
        channels = [file.description.channels.index(name) for name in description.channels]
        for index, number in enumerate(file.ids.tolist()):
            frames = file.read(index)
            try:
                found[number] = Observations(frames.t, frames.x[..., axes], frames.u[..., channels])
            except UserError as error:
                raise UserError(f"{path}, trajectory {number}: {error}") from error
    return found
