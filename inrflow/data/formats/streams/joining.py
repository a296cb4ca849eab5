"""Joining of several files of one system: later frames of the same run, or further trajectories."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.calendar import DEFAULT_CALENDAR, moments_to_numbers, retimed
from inrflow.data.formats.columns import HEIGHTS, TIMES, Columns, column_numbers, find_column, is_station
from inrflow.data.formats.layouts import blocks
from inrflow.data.formats.registry import Content, Format, ReadOptions, format_of
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES
from inrflow.data.formats.streams.stations import StationTables
from inrflow.data.formats.streams.streamed import Part, StreamedContent, number_in_name
from inrflow.data.formats.table_format import TableContent, TableFormat, axes_among
from inrflow.errors import UserError

_LOOKED_AT = 4096  # rows of a table that are examined
_DIGITS = 9  # significant digits of coordinates
_PACKED = 1e-3  # tolerance, in standard deviations, of equal values in files with different packing
_DATE = re.compile(r"(?<!\d)(\d{4})([-_.]?)(\d{2})\2(\d{2})(?:[-_.T]?(\d{2})(?:[-_.:h]?(\d{2}))?)?(?!\d)")
_SHARED = 0.5  # least share of common points for the same network or grid, with points missing


def read_files(paths: Sequence[Path], options: ReadOptions) -> Content:
    """Joint content of one or several files of one format. Raises UserError if they do not fit together."""
    kinds = [format_of(path) for path in paths]
    if len(paths) == 1 and options.stations is None:
        return kinds[0].read(paths[0], options)
    if isinstance(kinds[0], TableFormat):
        table = kinds[0] if len(paths) == 1 else joined_tables(paths, options)
        return TableContent(table if options.stations is None else StationTables(table, options), paths[0], options)
    _require_alike(paths)
    if options.stations is not None:
        raise UserError(f"stations is for tables, and {paths[0]} is {kinds[0].about}; leave it out")
    with kinds[0].read(paths[0], options) as first:
        rows = isinstance(first, TableContent)  # such as profiles and series in NetCDF
    if rows:
        return TableContent(_JoinedTables(kinds[0], paths, options), paths[0], options)
    return JoinedContent(kinds[0], paths, options)


def _require_alike(paths: Sequence[Path]) -> None:
    """Check that files have the same format. Raises UserError."""
    kinds = [format_of(path) for path in paths]
    other = next((path for path, kind in zip(paths, kinds, strict=True) if kind is not kinds[0]), None)
    if other is not None:
        raise UserError(f"{other} is {format_of(other).name} and {paths[0]} {kinds[0].name}; give files of one format")


def joined_tables(paths: Sequence[Path], options: ReadOptions) -> TableFormat:
    """Several tables joined to one. Raises UserError if their formats differ."""
    _require_alike(paths)
    kind = format_of(paths[0])
    assert isinstance(kind, TableFormat)
    return _JoinedTables(kind, paths, options)


class JoinedContent(StreamedContent):
    """Trajectories of several files.

    If every file has the same number of trajectories, at the same places and later than the previous file, its frames
    continue them (monthly files of one run); otherwise files have further trajectories. Initial frames that repeat the
    last ones of the previous file are dropped. Points that are missing in some files have NaN there. Times are
    converted to the units of the first file. Files of one frame without time get the date, or the last number, in their
    names.
    """

    def __init__(self, kind: Format, paths: Sequence[Path], options: ReadOptions) -> None:
        super().__init__(paths[0])
        self._contents: list[StreamedContent] = []
        told = set[str]()
        try:
            for path in paths:
                content = self._told_once(kind, path, options, told)
                if not isinstance(content, StreamedContent):
                    raise UserError(f"{path}: files of {kind.name} are not joined; give one file, or convert each")
                self._contents.append(content)
                if not content.description.same_system(self._contents[0].description):
                    raise UserError(f"{path} has {content.description.layout}, {paths[0]} "
                                    f"{self._contents[0].description.layout}; give files of one system, and "
                                    "those of further variables merged with them, as by xarray.merge in Python")
                if content.description.parameter_names != self._contents[0].description.parameter_names:
                    raise UserError(f"{path} has the parameters {_listed(content)}, {paths[0]} "
                                    f"{_listed(self._contents[0])}; give files with the same")
                units = content.description.units, self._contents[0].description.units
                if None not in units and units[0] != units[1]:
                    raise UserError(f"{path} has values in {', '.join(units[0])}, {paths[0]} in "  # type: ignore[arg-type]
                                    f"{', '.join(units[1])}; convert them, or, if they are "  # type: ignore[arg-type]
                                    "the same, give units=[...]")
        except BaseException:
            self.close()
            raise
        self.description = self._contents[0].description
        self._named = _times_in_names(paths) if all(content.timeless for content in self._contents) else None
        if self._named is not None:
            t, own = self._named
            self.description = replace(self.description, time_units=own)
            shown = "as dates" if own else f"{min(t):g} to {max(t):g}"
            warnings.warn(f"{paths[0]} and the other files hold no times: those in their names are taken ({shown})",
                          stacklevel=3)

    def _told_once(self, kind: Format, path: Path, options: ReadOptions, told: set[str]) -> Content:
        """The content of a file, without warnings that were `told` of another."""
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            content = kind.read(path, options)
        for warning in found:
            words = str(warning.message).replace(str(path), "")
            if words not in told:
                told.add(words)
                warnings.warn(warning.message, warning.category, stacklevel=4)
        return content

    def close(self) -> None:
        for content in self._contents:
            content.close()

    def parts(self) -> Iterator[Part]:
        files = [list(content.parts()) for content in self._contents]
        if self._named is None:
            files = [[self._retimed(part, content) for part in parts]
                     for parts, content in zip(files, self._contents, strict=True)]
        else:
            files = [[replace(part, t=np.full(1, time)) for part in parts]
                     for parts, time in zip(files, self._named[0], strict=True)]
        files.sort(key=lambda parts: float(parts[0].t[0]))
        files = self._without_repeats(files)
        self.extra = self._contents[0].extra
        if _continues(files):
            for row in zip(*files, strict=True):
                yield _chained(row)
            if len({len(parts[0].x) for parts in files}) > 1:
                self.extra = {}  # valid for the points of one file only
            return
        times = [float(parts[0].t[0]) for parts in files]
        if len(set(times)) == len(files) > 1 and all(len(part.t) == 1 for parts in files for part in parts):
            raise UserError(f"{self.path} and the other files hold one frame each, at different times and points; "
                            "points that move from file to file are not read: interpolate to the same, or give a "
                            "table of rows")
        for parts in files:
            yield from parts
        if any(set(content.extra) != set(self.extra) or any(not np.array_equal(content.extra[name], value)
                                                            for name, value in self.extra.items())
               for content in self._contents):
            self.extra = {}

    def _without_repeats(self, files: list[list[Part]]) -> list[list[Part]]:
        """Files without initial frames that repeat the end of the previous file; unchanged if values differ there."""
        cut, repeated = files[:1], 0
        for before, after in zip(files, files[1:], strict=False):
            counts = {int(np.searchsorted(second.t, first.t[-1], "right"))
                      for first, second in zip(before, after, strict=False)}
            count = counts.pop() if len(counts) == 1 and len(before) == len(after) else 0
            if not 0 < count < min(len(part.t) for part in after) or before[0].t[0] == after[0].t[0]:
                cut.append(after)
                continue
            if not all(_repeats(first, second, count) for first, second in zip(before, after, strict=True)):
                if " since " in (self.description.time_units or ""):
                    warnings.warn(f"{self.path} and the other files overlap in time, and differ there: each file holds "
                                  "trajectories of its own", stacklevel=4)
                return files
            repeated += count
            cut.append([_from(part, count) for part in after])
        if repeated:
            warnings.warn(f"{self.path} and the other files overlap in time: frames that two of them have "
                          f"({repeated}) are taken once", stacklevel=4)
        return cut

    def _retimed(self, part: Part, content: StreamedContent) -> Part:
        units, own = self.description.time_units, content.description.time_units
        if units == own:
            return part
        try:
            return Part(retimed(part.t, own or "units without a name", units or "units without a name"), part.x,
                        part.values, part.parameters)
        except UserError as error:
            raise UserError(f"{content.path}: {error} ({self.path})") from error


def _repeats(first: Part, second: Part, count: int) -> bool:
    """Whether the first `count` frames of `second` repeat the last of `first`, up to differences by packing."""
    ours, theirs = _rounded([first.x, second.x])
    if len(first.t) < count or not np.array_equal(ours, theirs):
        return False
    if not np.allclose(first.t[-count:], second.t[:count], rtol=1e-12, atol=0):
        return False
    for (cut, *_) in blocks((count, *first.x.shape)):
        start = len(first.t) - count
        values = first.values(start + cut.start, start + cut.stop), second.values(cut.start, cut.stop)
        spread = float(np.nanstd(values[0])) if np.isfinite(values[0]).any() else 0.0
        if not np.allclose(*values, rtol=0, atol=_PACKED * spread, equal_nan=True):
            return False
    return True


def _from(part: Part, first: int) -> Part:
    """Trajectory without its first `first` frames."""
    return replace(part, t=part.t[first:], values=lambda start, stop: part.values(start + first, stop + first))


def _times_in_names(paths: Sequence[Path]) -> tuple[list[float], str | None] | None:
    """Times in names of files, and their units: dates, else the last numbers; None if some have none, or the same."""
    moments = [next((moment for match in _DATE.finditer(path.name) if (moment := _moment(match)) is not None), None)
               for path in paths]
    dates = [moment for moment in moments if moment is not None]
    if len(set(dates)) == len(paths):
        return moments_to_numbers(np.array(dates), DEFAULT_CALENDAR).tolist(), DEFAULT_CALENDAR
    numbers = _numbers_in(paths)
    return None if numbers is None else (numbers, None)


def _moment(match: re.Match[str]) -> np.datetime64 | None:
    """Moment of a date in a name; None if it is no valid date."""
    year, _, month, day, hour, minute = match.groups(default="0")
    try:
        return np.datetime64(datetime(int(year), int(month), int(day), int(hour), int(minute)), "us")
    except ValueError:
        return None


def _listed(content: Content) -> str:
    return ", ".join(content.description.parameter_names) or "none"


def _continues(files: list[list[Part]]) -> bool:
    """Whether each file starts after the end of the previous one, with the same trajectories at the same places."""
    for before, after in zip(files, files[1:], strict=False):
        if len(before) != len(after):
            return False
        for first, second in zip(before, after, strict=True):
            ours, theirs = _rounded([first.x, second.x])
            same = np.array_equal(ours, theirs)
            if first.t[-1] >= second.t[0] or not (same or _shared(first.x, second.x) > _SHARED):
                return False
    return True


def _rounded(points: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Points (N, d) of files, divided by a common scale and rounded so that equal places are exactly equal."""
    scale = max(float(np.abs(x).max(initial=0.0)) for x in points) or 1.0
    return [np.round(x / scale, _DIGITS) for x in points]


def _shared(first: np.ndarray, second: np.ndarray) -> float:
    """Number of common points relative to the larger set."""
    union = len(np.unique(np.concatenate(_rounded([first, second])), axis=0))
    return (len(first) + len(second) - union) / max(len(first), len(second))


def _chained(parts: Sequence[Part]) -> Part:
    """Concatenation of successive parts to one trajectory, at the union of their points."""
    x = parts[0].x
    places: list[Any] = [slice(None)] * len(parts)
    if any(not np.array_equal(part.x, x) for part in parts):
        every = np.concatenate([part.x for part in parts])
        _, first, index = np.unique(np.concatenate(_rounded([part.x for part in parts])), axis=0, return_index=True,
                                    return_inverse=True)
        x = every[first]
        cuts = np.cumsum([len(part.x) for part in parts])[:-1]
        places = list(np.split(np.ravel(index), cuts))
    starts = np.cumsum([0, *(len(part.t) for part in parts)])

    def values(first: int, last: int) -> np.ndarray:
        frames = []
        for part, start, place in zip(parts, starts, places, strict=False):
            inside = max(first, start) - start, min(last, start + len(part.t)) - start
            if inside[0] < inside[1]:
                own = part.values(int(inside[0]), int(inside[1]))
                wide = np.full((len(own), len(x), own.shape[-1]), np.nan, np.float32)
                wide[:, place] = own
                frames.append(wide)
        return np.concatenate(frames)

    return Part(np.concatenate([part.t for part in parts]), x, values, parts[0].parameters)


class _JoinedTables(TableFormat):
    """Concatenated rows of several tables of one format with the same columns.

    Tables without a column of times have one time each, the last number in their names. Tables with the same times and
    places are different trajectories.
    """

    def __init__(self, kind: Format, paths: Sequence[Path], options: ReadOptions) -> None:
        self.name, self.about, self.text = kind.name, kind.about, kind.text  # type: ignore[misc]
        self._kind, self._paths = kind, paths
        looked_at = [_head(kind, path, options.time) for path in paths[:2]]
        time, heads = looked_at[0][0], [rows for _, rows in looked_at]
        self._times = None if time or kind.named_dimensions else _numbers_in(paths)
        self._apart = self._times is None and options.stations is None and _repeat(heads, time, options)
        if self._times is not None:
            where = "that name their folders" if number_in_name(paths[0]) is None else "at the end of their names"
            warnings.warn(f"{paths[0]} and the other tables have no column of times: the numbers {where} are taken, "
                          f"{min(self._times):g} to {max(self._times):g}", stacklevel=3)

    def sniff(self, path: Path, start: bytes) -> bool:
        return self._kind.sniff(path, start)

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        tables = [self._kind.open_columns(path, wanted) for path in self._paths]
        return _JoinedColumns(tables, self._paths, self._times, self._apart)


def _head(kind: Format, path: Path, called: str | None) -> tuple[str | None, dict[str, np.ndarray]]:
    """Column of times of a table (`called`: its name, if given), and its first rows."""
    with kind.open_columns(path, [TIMES]) as columns:
        rows = next(columns.blocks(_LOOKED_AT), {name: np.empty(0) for name in columns.names})
        return columns.column_of_times(called), rows


def _numbers_in(paths: Sequence[Path]) -> list[float] | None:
    """The last numbers in names of files, else those that are the names of their folders; None where some have none, or
    the same."""
    for found in ([number_in_name(path) for path in paths], [_number(path.resolve().parent.name) for path in paths]):
        numbers = [number for number in found if number is not None]
        if len(set(numbers)) == len(paths):
            return numbers
    return None


def _number(text: str) -> float | None:
    """The number that is all of a text, if it is one."""
    return float(text) if re.fullmatch(r"\d+(\.\d*)?([eE][-+]?\d+)?", text) else None


def _repeat(heads: Sequence[Mapping[str, np.ndarray]], time: str | None, options: ReadOptions) -> bool:
    """Whether most rows of two tables have the same times and places (and trajectories, and stations)."""
    named = {time, "trajectory", *(options.coordinates or ()), *axes_among(list(heads[0])),
             *(find_column(heads[0], group) for group in (LONGITUDES, LATITUDES, HEIGHTS))}
    keys = [name for name in heads[0] if name in named or is_station(name)]
    if time not in heads[0] or len(keys) < 2 or not all(set(keys) <= set(head) for head in heads):
        return False
    rows = [set(zip(*(head[name].tolist() for name in keys), strict=True)) for head in heads]
    return len(rows[0] & rows[1]) > len(rows[0]) / 2


class _JoinedColumns(Columns):
    """Rows of several tables, with a column `time` if each has one time, and `trajectory` if these are separate."""

    def __init__(self, tables: list[Columns], paths: Sequence[Path], times: Sequence[float] | None, apart: bool
                 ) -> None:
        self._own, self._tables, self._paths, self._times, self._apart = tables[0].names, tables, paths, times, apart
        self.units, self.meant = tables[0].units, tables[0].meant
        self.dates, self.zoned = tables[0].dates, tables[0].zoned
        self.names = (*self._own, *(["time"] if times else []),
                      *(["trajectory"] if apart and "trajectory" not in self._own else []))
        for table, path in zip(tables, paths, strict=True):
            if set(table.names) != set(self._own):
                self.close()
                raise UserError(f"{path} has the columns {', '.join(table.names)}, {paths[0]} {', '.join(self._own)}; "
                                "give tables with the same columns")

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        first = last = 0  # numbers of the trajectories of a table
        for index, (table, path) in enumerate(zip(self._tables, self._paths, strict=True)):
            for own in table.blocks(rows):
                block = {name: own[name] for name in self._own}
                count = len(next(iter(block.values())))
                if self._times is not None:
                    block["time"] = np.full(count, self._times[index])
                if self._apart:
                    number = column_numbers(block.get("trajectory", np.zeros(count)), "trajectory", path, 0)
                    block["trajectory"] = first + number
                    last = max(last, first + int(np.nanmax(number, initial=0.0)))
                yield block
            first = last + 1

    def close(self) -> None:
        for table in self._tables:
            table.close()
