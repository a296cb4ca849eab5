"""Formats of tables, and tables read as trajectories: frames if points recur, else scattered rows."""

from __future__ import annotations

import os
import re
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from inrflow.data.calendar import DEFAULT_CALENDAR, compact_dates, since_1970
from inrflow.data.description import PLACE, without_answers
from inrflow.data.formats.columns import (
    FLAGS,
    HEIGHTS,
    IN_TABLES,
    TIMES,
    Columns,
    all_numbers,
    column_numbers,
    find_column,
    is_missing,
    is_station,
    labels,
    observations_of,
    spanning_columns,
)
from inrflow.data.formats.registry import Content, Format, ReadOptions
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, require_one_length, sphere_axes
from inrflow.data.formats.units import unit_in
from inrflow.data.formats.writing import TrajectoryWriter, write_scattered
from inrflow.errors import UserError

_LOOKED_AT = 64  # rows examined to determine the kinds of columns
_PARAVIEW = tuple(tuple(f"{name}{index}" for index in range(3)) for name in ("Points:", "Points_"))
_AXIS = re.compile(r"([xyz])([ _-]?(coordinate|coord|location|position|pos))?(\s*[(\[].*[)\]]|[ _](mm|cm|m|km))?",
                   re.IGNORECASE)
_GRID = ("easting", "eastings", "utm_easting", "utm_x"), ("northing", "northings", "utm_northing", "utm_y")
_RUN = re.compile(r"(runs?|samples?|members?|ensemble|trials?|cases?|experiments?|exp|sim(ulation)?s?|realizations?|"
                  r"episodes?|traj|trajectories|batch|seed)([_ ]?(ids?|no|nr|number|index))?", re.IGNORECASE)
_QUANTITY = re.compile(r"\s*[-+]?\d[\d.,]*\s*[^\d]{1,9}")  # a number with its unit
_REGIONAL, _POLAR = 30.0, 75.0  # degrees: extent and latitude below which a plane suffices
_SOME_PLACES = 4  # from which on a coordinate of one value is none
_SOME_FLAGS = 8  # different words of a column of flags, at most
_DEPTHS, _LEVELS = ("depth", "pressure", "pres"), 2.0  # of profiles; rows of one time and place, at least


class TableFormat(Format):
    """Format of tables with a row for each point in time and space; needs `sniff` and `open_columns`."""

    table = True

    @abstractmethod
    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns: ...

    def read(self, path: Path, options: ReadOptions) -> Content:
        return TableContent(self, path, options)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with self.open_columns(path, [TIMES]) as columns:
            rows = sum(len(next(iter(block.values()))) for block in columns.blocks(1 << 16))
            return [("rows", f"{rows}"), ("columns", ", ".join(columns.names))]


class ColumnsInMemory(Columns):
    """Columns (R,) in memory; text as arrays of str objects."""

    def __init__(self, table: Mapping[str, np.ndarray], units: Mapping[str, str] = MappingProxyType({}),
                 meant: Mapping[tuple[str, ...], str] = MappingProxyType({})) -> None:
        self._table, self.names, self.units, self.meant = table, tuple(table), units, meant

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(next(iter(self._table.values()), ())), rows):
            yield {name: cells[start:start + rows] for name, cells in self._table.items()}

    def close(self) -> None:
        pass


def _regional(low: Sequence[float], high: Sequence[float]) -> bool:
    """Whether the range of longitudes and latitudes is small enough to treat degrees as coordinates of a plane."""
    return max(high[0] - low[0], high[1] - low[1]) < _REGIONAL and max(abs(low[1]), abs(high[1])) < _POLAR


def _of_profiles(depth: str | None, told: Sequence[str], block: dict[str, np.ndarray]) -> str | None:
    """A column of depths that differ among rows of one time and place, as those of a profile do; None for others, as of
    snow, which are values."""
    def distinct(names: Sequence[str]) -> int:
        return len(set(zip(*(block[name].tolist() for name in names), strict=True)))

    return depth if depth is not None and distinct([*told, depth]) > _LEVELS * distinct(told) else None


class TableContent(Content):
    """Trajectories of a table: time, coordinates and trajectory by the names of columns; all others are channels,
    except labels such as columns of text.

    Longitude and latitude in degrees become unit vectors; in a region with an elevation they stay coordinates of a
    plane, and the elevation is a third one. A table without places is a series at a single place. Raises UserError
    if named columns are missing, or if there is no channel.
    """

    def __init__(self, kind: Format, path: Path, options: ReadOptions) -> None:
        self.kind, self.path, self.time = kind, path, options.time
        called = TIMES if options.time is None else (options.time,)
        with kind.open_columns(path, [called, LONGITUDES, LATITUDES]) as columns:
            names, units, meant, dated = columns.names, columns.units, columns.meant, columns.dates
            time = columns.column_of_times(options.time)
            places = [columns.meant.get(group) or find_column(names, group) for group in (LONGITUDES, LATITUDES)]
            block = next(columns.blocks(_LOOKED_AT), {})
            first = block.get(time or "", np.zeros(1))
        if not block:
            raise UserError(f"{path} has the columns {', '.join(names)} and no rows; give one for each observation")
        if time is None:
            words = " or ".join(called).replace(*IN_TABLES)
            raise UserError(f"{path} has the columns {', '.join(names)} and none called {words}; name "
                            "the column of times with time=NAME, or, where there is a table for each time with its "
                            "number in the name, give all of them by a pattern (*)")
        self.lonlat = options.lonlat if options.description.get("geometry") == "sphere" else None
        lonlat = [name for name in places if name is not None] if self.lonlat is None else self.lonlat
        if not set(lonlat) <= set(names):
            raise UserError(f"{path} has the columns {', '.join(names)}, and not the coordinates {', '.join(lonlat)}")
        if all(_is_blank(cell) for name in lonlat for cell in block[name].tolist()) and lonlat and (
                self._without_values(lonlat) == {*lonlat}):
            lonlat = []
        sphere = ((options.coordinates is None or self.lonlat is not None) and len(lonlat) == 2
                  and options.description.get("geometry", "sphere") == "sphere")
        plane, level = axes_among(names), tuple[str, ...]()
        height = meant.get(HEIGHTS) or find_column(names, HEIGHTS) or _of_profiles(
            find_column(names, _DEPTHS), [time, *(lonlat or plane)], block)
        if height is not None and options.coordinates is None and height not in (options.channels or ()):
            (lowest, *low), (highest, *high) = self._extent([height, *lonlat])
            flat = lowest == highest and HEIGHTS not in meant
            if sphere and not flat and _regional(low, high):
                sphere, plane = False, lonlat
            if sphere and HEIGHTS in meant:
                raise UserError(f"{path}: places have a height, {height}, and span more than a region; give "
                                f"coordinates=[{','.join(lonlat)},{height}], or take a part of {_REGIONAL:g} degrees")
            if plane and not sphere and not flat:
                plane = [*plane, height]
            level = (height,) if flat and (plane or sphere) else ()  # neither coordinate nor channel
        axes = sphere_axes(names) if sphere else tuple(options.coordinates or plane)
        require_one_length(path, {name: units.get(name, "") for name in axes})
        if options.coordinates is None and not sphere and set(axes) <= set(options.channels or ()):
            axes = (PLACE,)
        if options.coordinates is None and not sphere and "period" not in options.description:
            axes, fixed = self._that_vary(axes, block)
            level += fixed
        times = [name for name in names if name in TIMES or name in dated or (
            len(name) > 1 and name.lower() in TIMES)]  # T: temperature
        taken = {"trajectory", time, *times, *axes, *(lonlat if sphere else ()), *level}
        others = [name for name in without_answers(path, names, options.channels) if name not in taken]
        labelled = set(labels(block))
        numbered = {name for name in labelled if all_numbers(block[name])}  # stations or flags
        blank = [name for name in others if not options.channels and name not in numbered and all(
            map(_is_blank, block[name].tolist()))]
        empty = self._without_values(blank) if blank else set()
        stamps = [name for name in others if block[name].dtype.kind == "M"]
        texts = [name for name in others if (name in labelled or name in stamps or not name) and name not in empty]
        fields = tuple(options.channels or [name for name in others if name not in {*texts, *empty}])
        if named := [name for name in blank if name in empty - {""}]:  # trailing separators make a nameless column
            warnings.warn(f"{path}: {', '.join(named)} {'has' if len(named) == 1 else 'have'} no values and "
                          f"{'is' if len(named) == 1 else 'are'} left out", stacklevel=2)
        if texts and not options.channels:
            for name in texts:
                _require_no_numbers(path, name, block[name])
            numbers = any(not name or block[name].dtype.kind == "b" or all_numbers(block[name]) for name in texts
                          if name not in stamps)
            hold, have, are = ("holds", "has", "is") if len(texts) == 1 else ("hold", "have", "are")
            words = f"{hold} text" + " or further dates" * bool(stamps)
            words += f", numbers of stations or flags, or {have} no name," * numbers
            called_so = ", ".join(name or "a column without a name" for name in texts)
            noted = [f"{name} ({block[name][0]!r})" for name in texts if name and not is_station(name) and all(
                map(_QUANTITY.fullmatch, map(str, block[name].tolist())))]
            hint = f"; write bare numbers if {noted[0]} is one" if noted else ""
            for name in texts:
                held = sorted({str(cell) for cell in block[name].tolist()} - {""})
                if FLAGS.fullmatch(name) and 1 < len(held) <= _SOME_FLAGS:
                    hint += f"; rows of all {name} ({', '.join(held)}) are used: empty the values of bad ones"
            warnings.warn(f"{path}: {called_so} {words} and {are} left out{hint}", stacklevel=2)
        keys = [time, *(lonlat if sphere else [one for one in axes if one != PLACE]), *({"trajectory"} & {*names})]
        runs = [] if options.channels or "trajectory" in names else [name for name in names if _RUN.fullmatch(name)]
        for name in runs:
            if self._alone_distinguishes(name, keys):
                raise UserError(f"{path}: rows of one time and place differ by {name}; call this column `trajectory` "
                                "(whole numbers from 0) if it numbers trajectories, else name the channels with "
                                "channels=[...]")
        for name in [name for name in times if name != time and options.time is None]:
            if self._alone_distinguishes(name, keys):
                raise UserError(f"{path}: rows of one {time} and place differ by {name}; write both as dates in one "
                                "column, as 2024-01-31T18:00, or choose a column of times with time=NAME")
        absent = [name for name in (*fields, *(() if sphere else axes)) if name not in {*names, PLACE}]
        if not fields or absent:
            problem = f"there is no column {', '.join(absent)}" if absent else "none of them is a channel"
            raise UserError(f"{path} has the columns {', '.join(names)}: {problem}; name them with channels=[...], and "
                            "coordinates=[...] where there are places")
        if axes == (PLACE,):
            warnings.warn(f"{path} has no coordinates: its rows are a series at a single place, with the channels "
                          f"{', '.join(fields)}; give columns of places by coordinates=[...], or those of stations by "
                          "stations=FILE", stacklevel=2)
        if dated and time == meant.get(TIMES):
            found = f"are those in {time}, which holds dates" if time in dated else f"are made of {', '.join(dated)}"
            warnings.warn(f"{path}: no column is called as times are: they {found}; time=NAME names another",
                          stacklevel=2)
        dates = first.dtype.kind == "M" or (first.dtype.kind == "O" and not all_numbers(first))
        numbers_of_times = np.empty(0) if dates or not all_numbers(first) else column_numbers(first, time, path, 0)
        written, since = compact_dates(numbers_of_times, time), since_1970(numbers_of_times)
        if written is not None:
            warnings.warn(f"{path}: {time} holds dates written as {written[1]}, and is read as such", stacklevel=2)
            dates, since = True, None
        if since is not None and "time_units" not in options.description:
            warnings.warn(f"{path}: {time} holds {since}, and is read as such", stacklevel=2)
        known = [units.get(name) or unit_in(name) for name in fields]
        self.description = options.describe(path, fields, axes, time_units=DEFAULT_CALENDAR if dates else since,
                                            units=known if any(known) else None,
                                            geometry="sphere" if sphere else None)

    def _that_vary(self, axes: tuple[str, ...], block: Mapping[str, np.ndarray]
                   ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Coordinates, and those left out, which is told, that are the same at all of some places, as z of a plane."""
        columns = {name: block[name].tolist() for name in axes if name in block}
        some = len(set(zip(*columns.values(), strict=True))) >= _SOME_PLACES
        same = [name for name, own in columns.items() if some and len(set(own)) == 1]
        if not 0 < len(same) < len(axes):
            return axes, ()
        low, high = self._extent(same)
        fixed = tuple(name for name, *ends in zip(same, low, high, strict=True) if ends[0] == ends[1])
        if fixed:
            values = ", ".join(f"{name} is {low[same.index(name)]:g}" for name in fixed)
            warnings.warn(f"{self.path}: {values} in all rows, and no coordinate", stacklevel=3)
        return tuple(name for name in axes if name not in fixed), fixed

    def _alone_distinguishes(self, name: str, others: Sequence[str]) -> bool:
        """Whether rows are mostly the same in `others`, and each differs from all others with column `name`."""
        seen, count = (set[tuple](), set[tuple]()), 0
        with self.kind.open_columns(self.path, [(one,) for one in (name, *others)]) as columns:
            for block in columns.blocks(1 << 16):
                cells = [block[one].tolist() for one in (*others, name)]
                seen[0].update(zip(*cells[:-1], strict=True))
                seen[1].update(zip(*cells, strict=True))
                count += len(cells[0])
        return 2 * len(seen[0]) <= count == len(seen[1])

    def _without_values(self, names: Sequence[str]) -> set[str]:
        """Names of the columns without any value but words."""
        left = set(names)
        with self.kind.open_columns(self.path, [(name,) for name in names]) as columns:
            for block in columns.blocks(1 << 16):
                left = {name for name in left if not any(map(_is_value, set(block[name].tolist())))}
                if not left:
                    break
        return left

    def _extent(self, names: Sequence[str]) -> tuple[list[float], list[float]]:
        """Minimum and maximum of each of the named columns."""
        low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        with self.kind.open_columns(self.path, [(name,) for name in names]) as columns:
            for block in columns.blocks(1 << 16):
                for axis, name in enumerate(names):
                    values = column_numbers(block[name], name, self.path, 0)
                    low[axis] = np.fmin.reduce(values, initial=low[axis])
                    high[axis] = np.fmax.reduce(values, initial=high[axis])
        return low.tolist(), high.tolist()

    def _wanted(self) -> list[tuple[str, ...]]:
        return [*spanning_columns(self.description), *((name,) for name in (*self.description.channels,
                                                                            *(self.lonlat or ()))),
                *([] if self.time is None else [(self.time,)])]

    def write(self, target: str | os.PathLike[str], overwrite: bool = False) -> None:
        with self.kind.open_columns(self.path, self._wanted()) as columns:
            observations = observations_of(columns, self.path, self.description, strict=False, time=self.time,
                                           named=self.lonlat)
        trajectories = [one.frames() for one in observations.values()]
        if not any(frames.moving for frames in trajectories):
            with TrajectoryWriter(target, self.description, overwrite, source=self.path) as writer:
                for frames in trajectories:
                    writer.append(frames.t, frames.x, frames.u)
            return
        parts: list[tuple[np.ndarray, ...]] = []
        for number, frames in enumerate(trajectories):
            t, x, u = frames.rows()
            parts.append((np.full(len(t), number), t, x, u))
        numbers, t, x, u = (np.concatenate(part) for part in zip(*parts, strict=True))
        write_scattered(target, numbers, t, x, u, self.description, overwrite=overwrite, source=self.path)


def _is_blank(cell: object) -> bool:
    """Whether a cell is empty or missing."""
    return cell is None or cell != cell or (isinstance(cell, str) and is_missing(cell.strip()))


def _is_value(cell: object) -> bool:
    """Whether a cell holds a number, and neither nothing nor words."""
    return not _is_blank(cell) and (not isinstance(cell, str) or all_numbers(np.array([cell, "0"], object)))


def _require_no_numbers(path: Path, name: str, values: np.ndarray) -> None:
    """Raise UserError for a column of text that is mostly numbers, with a few other cells such as remarks."""
    cells = [str(value).strip() for value in values.tolist()]
    wrong = [row for row, cell in enumerate(cells) if not all_numbers(np.array([cell, "0"], object))]
    filled = sum(bool(cell) for cell in cells)  # columns of remarks are mostly empty
    if name and wrong and not is_station(name) and len(wrong) < filled / 2:
        raise UserError(f"{path}: {name} is {cells[wrong[0]]!r} in row {wrong[0] + 1} and a number in most others; "
                        "mend it, leave the cell empty where the value is missing, or name other columns with "
                        "channels=[...]")


def axes_among(names: Sequence[str]) -> list[str]:
    """Columns of places: x, y, z, in lower or upper case, in ParaView's or solvers' names, possibly with a unit; or
    eastings and northings."""
    groups = (tuple("xyz"), tuple("XYZ"), *_PARAVIEW)
    exact = next((found for group in groups if (found := [name for name in group if name in names])), [])
    called = {match[1].lower(): name for name in reversed(names) if (match := _AXIS.fullmatch(name))}
    mapped = [name for group in _GRID if (name := find_column(names, group)) is not None]
    return exact or [called[axis] for axis in "xyz" if axis in called] or (mapped if len(mapped) == len(_GRID) else [])
