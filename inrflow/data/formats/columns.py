"""Columns of a table in blocks of rows, and their roles: time, place, trajectory and channels."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from inrflow.data.batch import Markers, blanked, repeated_rows
from inrflow.data.calendar import (
    compact_dates,
    dates_to_numbers,
    is_zoned,
    moments_to_numbers,
    other_calendar,
    parse_units,
    retimed,
    zone_offset,
    zone_remark,
)
from inrflow.data.description import FLAG, PLACE, Description, without_answers
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, degrees_of, lonlat_to_xyz, warn_of_radians, xyz_to_lonlat
from inrflow.data.observations import Observations
from inrflow.data.stations import daylight_saving_remark, far_times, reported
from inrflow.errors import UserError

IN_FILES = "/", "\u2215"  # arguments of str.replace for names of channels, which also name files: `O3 [ug/m3]`
IN_TABLES = IN_FILES[::-1]  # the reverse replacement
TIMES = ("t", "time", "timestamp", "datetime", "date_time", "date\u2215time", "valid_time", "date")
HEIGHTS = ("elevation", "altitude", "elev", "alt")  # a coordinate in addition to those of the plane
_UNIT = re.compile(r"\s*[(\[].*[)\]]$|[ _](m|km|ft|masl|m[ _]asl|deg|degrees)$|[ _.]?(utc|gmt)$")
_STATION = re.compile(r"(stations?|sensors?|sites?|wmo|buoys?|drifters?|floats?|platforms?)([_ ]?(ids?|nr|no|number|"
                      r"code))?|ids?|(locations?|places?|devices?|loggers?|nodes?|points?|cells?|entry|rows?|records?)"
                      r"[_ ]?(ids?|number|code)|(particle|atom|tracer|track)([_ ]?(ids?|number))?|#", re.IGNORECASE)
FLAGS = re.compile(r"(.*[_ .-])?(qc|qa|flags?|mask|quality[_ ]?(flags?|codes?|control))|(qc|qa|flag)[_ .-].*|"
                   rf"qn(_\d+)?|{FLAG}", re.IGNORECASE)
_COUNTER = re.compile(r"(record|row|line|sample|scan)([_ ]?(no|nr|number|count))?", re.IGNORECASE)
_PLACE = re.compile(rf"points[:_][0-2]|[xyz]([ _-]?(coordinate|coord|location|position|pos))?|{'|'.join(HEIGHTS)}")
BLOCK_ROWS, _SINGLE = 16384, 0.9  # the second: times for each row, at least, of data without places
_MISSING = frozenset("|na|n/a|#n/a|n.a.|nan|nd|no data|nodata|null|none|missing|-|--|---|*|bad|err|error|invalid|"
                     "#value!|#ref!|#div/0!|#num!|#name?|#null!|#nv|#wert!|#bezug!|#zahl!|#valeur!|#n/d|fehler|erreur|"
                     "k.a.|keine daten|..|\\n".split("|"))  # in any case; also Excel's in other languages


@dataclass(frozen=True)
class Grid:
    """Structure of a gridded file: its dimensions, and the variables (axes) that have only some of them.

    cells: `triangles` or `tetrahedra` (E, 3 or 4) of a mesh, or NODES and blocks of cells around points. attributes: by
    variable name, and of the file under "". scalars: single values, such as a projection or a level. topology: further
    variables, which say how the points of the grid are connected, by name: their dimensions, values and attributes.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    axes: dict[str, tuple[tuple[str, ...], np.ndarray]]
    cells: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    scalars: dict[str, np.ndarray] = field(default_factory=dict)
    topology: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]] = field(default_factory=dict)


class Columns(ABC):
    """Named columns of equal length, read in blocks of rows."""

    names: tuple[str, ...]
    grid: Grid | None = None
    #: Units of columns, as far as the file states them.
    units: Mapping[str, str] = MappingProxyType({})
    #: Columns that the file itself declares as times, longitudes, latitudes or heights, with the keys TIMES,
    #: LONGITUDES, LATITUDES, HEIGHTS.
    meant: Mapping[tuple[str, ...], str] = MappingProxyType({})
    #: Columns that hold dates or parts of them, whatever their names; of dates whose zone their type says.
    dates: tuple[str, ...] = ()
    zoned: tuple[str, ...] = ()

    @abstractmethod
    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        """Consecutive blocks of at most `rows` rows; text columns as arrays of str objects."""

    def column_of_times(self, called: str | None) -> str | None:
        """Column of times of the given name; for None, the column that the file declares, or one named in TIMES."""
        if called is None:
            return self.meant.get(TIMES) or find_column(self.names, TIMES)
        return find_column(self.names, (called,))

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Columns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class PointTable:
    """Table of R points in time and space: trajectory (R,) int64, t (R,) float64, x (R, d) float64.

    columns: all columns of the file in their order, unchanged (further columns of a CSV as text).
    grid: structure of a gridded file, whose points are its cells in C order. time: name of the column of times.
    """

    trajectory: np.ndarray
    t: np.ndarray
    x: np.ndarray
    columns: dict[str, np.ndarray]
    grid: Grid | None = None
    time: str | None = None

    def __len__(self) -> int:
        return len(self.t)


def find_column(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """First of the `wanted` names among `names`: exactly, else in any case, else before a unit as in `Elev (m)` and
    `time_utc`. T does not count as a time beside ParaView's coordinates (Points:0 ...), whose times are called Time."""
    available = list(names)
    if "t" in wanted and any(str(name).startswith(("Points:", "Points_")) for name in available):
        available = [name for name in available if name != "T"]
    lower = {str(name).lower(): name for name in reversed(available)}
    bare = {_UNIT.sub("", name): own for name, own in lower.items()}
    exact = next((name for name in wanted if name in available), None)
    if exact is not None:
        return exact
    longest = sorted(wanted, key=len, reverse=True)  # beside Time, T is a temperature
    return next((lower[name] for name in longest if name in lower), None) or next(
        (bare[name] for name in longest if name in bare and len(name) > 1), None)  # and T (K) in any case


def time_column_by_dates(dated: Iterable[str], names: Iterable[str]) -> dict[tuple[str, ...], str]:
    """Column of times if no name denotes it and exactly one column holds dates; `dated`: columns that do."""
    found = list(dated)
    return {TIMES: found[0]} if len(found) == 1 and find_column(names, TIMES) is None else {}


def spanning_columns(description: Description) -> list[tuple[str, ...]]:
    """Alternative names of the columns that place a row in time and space."""
    return [("trajectory",), TIMES, *((name,) for name in description.coordinates),
            *((LONGITUDES, LATITUDES) if description.geometry == "sphere" else ())]


class Roles:
    """Columns of time, place and trajectory of a file. Raises UserError if time or place are missing.

    time: column of times, if it is none of TIMES; "": times are not needed. named: those of longitude and latitude.
    """

    def __init__(self, path: Path, columns: Columns, description: Description, time: str | None = None,
                 named: Sequence[str] | None = None) -> None:
        self.path, self.names, self.description = path, columns.names, description
        self.grid, self.units, self._dates, self._zoned = columns.grid, columns.units, columns.dates, columns.zoned
        self.time = columns.column_of_times(time)
        self.lonlat = [columns.meant.get(names) or find_column(self.names, names) for names in (LONGITUDES, LATITUDES)]
        if named is not None and set(named) <= set(self.names):
            self.lonlat = [*named]
        self.by_lonlat = (description.geometry == "sphere" and None not in self.lonlat
                          and not set(description.coordinates) <= set(self.names))
        self.places = tuple(name for name in description.coordinates if name != PLACE)
        missing = [] if self.time or time == "" else ["t"]
        if not self.by_lonlat:
            missing += [name for name in self.places if name not in self.names]
        if missing:
            raise self._mismatch(f"lacks {', '.join(missing)}", ())

    def _mismatch(self, problem: str, channels: tuple[str, ...]) -> UserError:
        places = [", ".join(self.places)] if self.places else []
        if self.description.geometry == "sphere":
            places = [f"{places[0]} or lon, lat"]
        expected = ", ".join(["t", *places, *channels])
        return UserError(f"{self.path} {problem}: it has the columns {', '.join(self.names)}, expected {expected} and "
                         "optionally trajectory; rename, add or remove columns")

    def require_channels(self, strict: bool, labels: Iterable[str] = ()) -> None:
        """Check that no channel is missing and, if `strict`, that all columns except `labels` have a known role. Raises
        UserError."""
        channels = self.description.channels
        missing = [name for name in channels if name not in self.names]
        if missing and {f"{name}_q50" for name in missing} <= set(self.names):
            raise UserError(f"{self.path} holds a forecast of {', '.join(missing)}, no observations; give observed "
                            f"values, or rename {missing[0]}_q50 to {missing[0]} to take medians as observed")
        known = {"", "trajectory", self.time, *channels, *self.description.coordinates, *labels, *self._dates}
        if self.description.geometry == "sphere":
            known |= set(self.lonlat)
        if unknown := [name for name in self.names if name not in known] if strict else []:
            unknown = [name for name in without_answers(self.path, self.names) if name in unknown]
        problem = [f"has the unknown column {', '.join(unknown)}"] * bool(unknown)
        if problem := problem + [f"lacks the channel {', '.join(missing)}"] * bool(missing):
            raise self._mismatch(" and ".join(problem), channels)

    def points(self, block: dict[str, np.ndarray], first: int, observed: np.ndarray | None = None) -> PointTable:
        """Points of a block that starts at row `first`; rows that are not `observed` may lack time and place."""
        own = next(iter(block.values())) if self.time is None else block[self.time]
        t = np.zeros(len(own)) if self.time is None else self._times(own, first)
        if self.by_lonlat:
            lon, lat = (column_numbers(block[name], name, self.path, first) for name in self.lonlat if name is not None)
            if (np.abs(lat) > 90).any():
                raise UserError(f"{self.path}: {self.lonlat[1]} holds {lat[np.abs(lat) > 90][0]:g}; expected degrees "
                                "from -90 to 90")
            x = lonlat_to_xyz(lon, lat)
        else:
            x = np.zeros((len(t), len(self.description.coordinates)))
            for axis, name in enumerate(self.places):
                x[:, axis] = column_numbers(block[name], name, self.path, first)
        for name, value in ((str(self.time), t), ("/".join(self.places), x.sum(-1))):
            bad = ~np.isfinite(value) & (True if observed is None else observed)
            if bad.any():
                raise UserError(f"{self.path}: {name} is missing or not finite in row "
                                f"{first + int(np.argmax(bad)) + 1}; every point needs its time and coordinates")
        trajectory = np.zeros(len(t), np.int64)
        columns = dict(block)
        if "trajectory" in block:
            given, named = block["trajectory"], not all_numbers(block["trajectory"])
            number = np.full(len(t), np.nan) if named else column_numbers(given, "trajectory", self.path, first)
            bad = ~np.isfinite(number) | (number != np.floor(number)) | (number < 0)
            if bad.any():
                raise UserError(f"{self.path}: trajectory is {str(given[int(np.argmax(bad))])!r} in row "
                                f"{first + int(np.argmax(bad)) + 1}; expected whole numbers from 0"
                                + ", as by pandas.factorize(table.trajectory)[0]" * named)
            trajectory = columns["trajectory"] = number.astype(np.int64)
        if self.time is not None and (own.dtype != object or all_numbers(own)):
            columns[self.time] = own if own.dtype.kind in "Miu" else _whole(own, column_numbers(
                own, self.time, self.path, first))
        places = () if self.by_lonlat else [(axis, name) for axis, name in enumerate(self.places) if name in block]
        columns |= {name: _whole(block[name], x[:, axis]) for axis, name in places}
        return PointTable(trajectory, t, x, columns, self.grid, self.time or None)

    def _times(self, values: np.ndarray, first: int) -> np.ndarray:
        units = self.description.time_units
        try:
            if values.dtype.kind == "M":
                return moments_to_numbers(values, units) - self._offset(values, first)
            if values.dtype == object and not all_numbers(values) and (parse_units(units) or other_calendar(units)):
                return dates_to_numbers(values.tolist(), str(units)) - self._offset(values, first)
            numbers = column_numbers(values, str(self.time), self.path, first)
            own = str(self.units.get(str(self.time), ""))
            if units and " since " in own:
                return retimed(numbers, own, units)
            compact = compact_dates(numbers, str(self.time)) if units and parse_units(units) else None
            return numbers if compact is None else moments_to_numbers(compact[0], units) - self._offset(values, first)
        except UserError as error:
            raise UserError(str(error) if str(self.path) in str(error) else f"{self.path}: {error}") from error
        except ValueError as error:
            row = next((row for row, cell in enumerate(values) if repr(str(cell).strip()) in str(error)), 0)
            raise UserError(f"{self.path}: {self.time} cannot be read as a number or ISO date in row {first + row + 1} "
                            f"({error}); write 2024-01-31T18:00, without rows of sums or means") from error


    def _offset(self, values: np.ndarray, first: int) -> float:
        """Time from UTC of dates whose zone is in the name of their column alone, told in the first rows."""
        offset = zone_offset(str(self.time), self.description.time_units)
        if first and not offset or self.time in self._zoned or any(map(is_zoned, map(str, values.tolist()))):
            return 0.0
        if not first:
            zone_remark(str(self.time), self.path)
        return offset


def _whole(given: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Numbers as int64 if they were given as text without decimal points, else unchanged."""
    written = given.dtype == object and all(str(cell).strip().lstrip("+-").isdecimal() for cell in given.tolist())
    return numbers.astype(np.int64) if written and np.abs(numbers).max(initial=0) < 2**53 else numbers


def labels(block: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the columns of text, booleans, station numbers and flags in a block of rows."""
    return [name for name, values in block.items() if values.dtype.kind == "b" or _are_whole_names(name, values) or (
        values.dtype == object and not all_numbers(values))]


def _is_fixed(name: str, values: np.ndarray) -> bool:
    """Whether a column is called as a coordinate or height, and has one value, as z of a plane has."""
    return _PLACE.fullmatch(_UNIT.sub("", name.lower())) is not None and len(set(values.tolist())) == 1


def is_station(name: str) -> bool:
    """Whether the name of a column denotes names or numbers of stations."""
    return _STATION.fullmatch(name) is not None


def _are_whole_names(name: str, values: np.ndarray) -> bool:
    """Whether a column holds integer numbers of stations or rows, or integer flags, some of which may be missing."""
    flags, counter = FLAGS.fullmatch(name) is not None, _COUNTER.fullmatch(name) is not None
    if not (flags or counter or is_station(name)) or values.dtype.kind not in "iufO" or not all_numbers(values):
        return False
    numbers = column_numbers(values, name, Path(), 0)
    whole = np.isfinite(numbers) & (numbers == np.floor(numbers)) | (flags & np.isnan(numbers))
    return bool((np.diff(numbers) == 1 if counter else whole).all())


def all_numbers(values: np.ndarray) -> bool:
    """Whether all cells are numbers or denote missing values; without any number, whether cells are empty or NaN."""
    cells = {str(value).strip() for value in values.tolist()}
    try:
        numbers = np.array([_number(cell) for cell in cells], np.float64)
    except ValueError:
        return False
    return bool(np.isfinite(numbers).any()) or not any(cells) or any(cell.lower() == "nan" for cell in cells)


def is_missing(cell: str) -> bool:
    """Whether a cell is empty, or a word that stands for a missing value."""
    return cell.lower() in _MISSING or cell == "M"  # of weather stations; m is a unit


def _number(cell: str) -> str:
    """Text of a cell for conversion by numpy, which would accept `1_000` as a number."""
    return "nan" if is_missing(cell) else cell.replace("_", "?")


def column_numbers(values: np.ndarray, name: str, path: Path, first: int) -> np.ndarray:
    """Column as float64, NaN for empty cells; degrees may have letters. Raises UserError, naming the row, for text."""
    if values.dtype.kind in "fiub":
        return values.astype(np.float64)
    try:
        if "_" not in "".join(values):
            return np.where(values == "", "nan", values).astype(np.float64)
    except (TypeError, ValueError):  # other words for missing values, or no numbers
        pass
    cells = [_number(str(value).strip()) for value in degrees_of(values, name).tolist()]
    try:
        return np.array(cells, np.float64)
    except ValueError:  # the cell that is no number with a decimal comma either, if there is one
        row = next(row for written in ([cell.replace(",", ".", 1) for cell in cells], cells)
                   for row, cell in enumerate(written) if not all_numbers(np.array([cell, "0"], object)))
        raise UserError(f"{path}: {name} is {str(values[row]).strip()!r} in row {first + row + 1}; expected a number, "
                        "or an empty cell where it is missing") from None


def warn_of_other_units(path: Path, about: Description, units: Sequence[str]) -> None:
    """Warn if units of channels in a file differ from those of the described data."""
    apart = [f"{name} is in {own} here and in {known} there" for name, own, known in zip(
        about.channels, units, about.units or (), strict=False) if own and known and str(own) != str(known)]
    if apart:
        warnings.warn(f"{path}: {', '.join(apart)}; values are not converted: do so if these differ", stacklevel=3)


def observations_of(columns: Columns, path: Path, description: Description, strict: bool = True,
                    time: str | None = None, named: Sequence[str] | None = None) -> dict[int, Observations]:
    """Observations by trajectory number, from columns with one for each channel; `path`: source, for messages.

    strict: refuse columns of unknown role. time, named: as for Roles.
    Empty cells and NaN are missing values. Raises UserError if a channel, time or coordinate is missing.
    """
    roles = Roles(path, columns, description, time, named)
    tables: list[PointTable] = []
    values: list[np.ndarray] = []
    rows = 0
    for block in columns.blocks(BLOCK_ROWS):
        if not rows:
            roles.require_channels(strict, [*labels(block), *(name for name, cells in block.items() if (
                cells.dtype.kind == "M" or _is_fixed(name, cells) or all(map(is_missing, map(str, cells.tolist())))))])
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, which Observations refuses
            u = np.stack([column_numbers(block[name], name, path, rows) for name in description.channels],
                         -1).astype(np.float32)
        table = roles.points(block, rows, observed=np.asarray(~np.isnan(u).all(-1)))
        rows += len(u)
        tables.append(PointTable(table.trajectory, table.t, table.x, {}))
        values.append(u)
    if not tables:
        roles.require_channels(strict)
        raise UserError(f"{path} has no rows; give at least one observation")
    trajectory, u = np.concatenate([table.trajectory for table in tables]), np.concatenate(values)
    t, x = np.concatenate([table.t for table in tables]), np.concatenate([table.x for table in tables])
    u = blanked(u, Markers(description.channels).look(u).fill_values(path))
    held = {} if columns.grid is None else columns.grid.attributes
    warn_of_other_units(path, description, [held.get(name, {}).get("units", "") for name in description.channels])
    keys, again = repeated_rows(path, np.column_stack([trajectory, t, x]), u)
    if " since " in str(description.time_units):
        local = daylight_saving_remark(keys[:, 1], again[:, 1], description.time_units)
        for remark in filter(None, (far_times(keys[:, 1], description.time_units), local)):
            warnings.warn(f"{path}: {remark}", stacklevel=2)
    if roles.by_lonlat and columns.grid is None:  # units of gridded files were checked
        places = xyz_to_lonlat(x)
        places[:, 0] = (places[:, 0] + 180) % 360 - 180
        warn_of_radians(path, places)
    observations: dict[int, Observations] = {}
    for number in np.unique(trajectory).tolist():
        chosen = trajectory == number
        times = np.unique(t[chosen])
        if not roles.places and len(times) < _SINGLE * (~np.isnan(u[chosen]).all(-1)).sum():
            raise UserError(f"{path} has no coordinates, and {chosen.sum()} rows have {len(times)} times, as those of "
                            "several sensors: name columns with coordinates=[...] and channels=[...], or give the "
                            "places of stations with stations=FILE")
        own = t[chosen], x[chosen], u[chosen]
        try:  # rows of one time are a frame, wherever it was observed
            observations[number] = Observations(*own) if len(times) == 1 else reported(
                path, *own, description.time_units)
        except UserError as error:
            raise UserError(f"{path}, trajectory {number}: {error}") from error
    return observations
