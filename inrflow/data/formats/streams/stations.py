"""Tables of stations with places in a second table: a column for each station, or a column of station names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from inrflow.data.description import Description
from inrflow.data.formats.columns import HEIGHTS, Columns, column_numbers, find_column
from inrflow.data.formats.registry import ReadOptions, format_of
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, lonlat_to_xyz
from inrflow.data.formats.table_format import TableFormat, axes_among
from inrflow.data.formats.units import unit_in
from inrflow.errors import UserError

_NAMES = ("station", "station_id", "station_name", "site", "site_id", "id", "name", "code", "node", "node_id",
          "stations_id", "station_abbr", "station_code", "site_code")
_ROWS, _SHOWN = 1 << 14, 8


class StationTables(TableFormat):
    """Format that reads tables as rows of time, place and values with the places of a second table."""

    def __init__(self, kind: TableFormat, options: ReadOptions) -> None:
        self.kind, self.options = kind, options
        self.name, self.about = kind.name, kind.about  # type: ignore[misc]
        self.file = Path(str(options.stations))
        self.places, self.named = _places(self.file, options.coordinates)

    def sniff(self, path: Path, start: bytes) -> bool:
        return False

    def fits(self, path: Path) -> bool:
        """Whether a table has a column for some station, or lacks coordinates."""
        with self.kind.open_columns(path) as columns:
            axes = next(iter(self.places.values()), {})
            return any(self.station(name) for name in columns.names) or not set(axes) <= set(columns.names)

    def station(self, column: str) -> str | None:
        """Station of a column, whose name may have its unit in brackets behind the station's; None of others."""
        names = _key(column), column.rpartition("[")[0].strip(), column.rpartition("(")[0].strip()
        return next((name for name in names[:1 + 2 * bool(unit_in(column))] if name in self.places), None)

    def stations_at(self, x: np.ndarray, about: Description) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Order of points (N, d) by their stations in the second table, and its columns of names and places in this
        order."""
        places = list(self.places.values())
        if about.geometry == "sphere" and not set(about.coordinates) <= set(places[0]):
            where = lonlat_to_xyz(*np.array([list(place.values())[:2] for place in places]).T)
        else:
            where = np.array([[place[name] for name in about.coordinates] for place in places])
        near = cKDTree(where).query(x)[1]
        order = np.argsort(near, kind="stable")
        columns = {axis: np.array([place[axis] for place in places])[near[order]] for axis in places[0]}
        return order, {self.named: np.array(list(self.places), object)[near[order]]} | columns

    def time_in(self, path: Path) -> tuple[str, str]:
        """Name of the column of times of a table ("t" if there is none), and its first cell."""
        with self.kind.open_columns(path) as columns:
            name = columns.column_of_times(self.options.time)
            first = next(columns.blocks(1), {}).get(name or "", np.zeros(0))
        return name or "t", str(first[0]) if first.dtype == object and len(first) else ""

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        return StationColumns(self.kind.open_columns(path), path, self)


def _places(path: Path, coordinates: Sequence[str] | None) -> tuple[dict[str, dict[str, float]], str]:
    """Coordinates by station name, and the column of names. Raises UserError if the table has no names or no places."""
    kind = format_of(path)
    if not kind.table:
        raise UserError(f"stations={path} is {kind.about}, which is not a table; give one with names and places")
    with kind.open_columns(path) as columns:
        names = columns.names
        blocks = list(columns.blocks(_ROWS))
    table = {name: np.concatenate([block[name] for block in blocks]) for name in names} if blocks else {}
    lon, lat, height = (find_column(names, group) for group in (LONGITUDES, LATITUDES, HEIGHTS))
    plane = [axis for axis in (lon, lat) if axis is not None] or axes_among(names)
    axes = list(coordinates or [*plane, *([] if height is None else [height])])
    words = {re.sub(r"[\s-]+", "_", name): name for name in names if name not in axes}
    named = words.get(find_column(words, _NAMES) or "")
    if named is None or len(axes) < 1 or not set(axes) <= set(table):
        raise UserError(f"stations={path} has the columns {', '.join(names)}; expected a column "
                        f"{' or '.join(_NAMES[:3])} and the coordinates (lon, lat or x, y, or such as "
                        "coordinates=[...] names)")
    values = {axis: column_numbers(table[axis], axis, path, 0) for axis in axes}
    keys = [_key(value) for value in table[named].tolist()]
    twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if twice:
        raise UserError(f"stations={path} names {', '.join(twice[:_SHOWN])} twice; give every station one place")
    return {key: {axis: float(values[axis][row]) for axis in axes} for row, key in enumerate(keys)}, named


def _key(value: object) -> str:
    """Station name as text, where a number may be written as 12 or 12.0."""
    text = str(value).strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


class StationColumns(Columns):
    """Rows of a table of stations: a row for each time and station of a wide table, or rows of a long one with places.

    Raises UserError if no column is named after a station and none holds names of stations.
    """

    def __init__(self, columns: Columns, path: Path, kind: StationTables) -> None:
        self._columns, self._path, self._kind = columns, path, kind
        self._wide = [name for name in columns.names if kind.station(name)]
        self._named = None if self._wide else find_column(columns.names, _NAMES)
        axes = list(next(iter(kind.places.values()), {}))
        self.meant, self.dates, self.zoned = columns.meant, columns.dates, columns.zoned
        if self._wide:
            self._time = columns.column_of_times(kind.options.time)
            channels = list(kind.options.channels or [])
            self._channel = channels[0] if len(channels) == 1 else "value"
            others = [name for name in columns.names if name not in (self._time, *self._wide, *columns.dates)]
            self.dates = ()
            if others:
                warnings.warn(f"{path}: {', '.join(others[:_SHOWN])} is not a station of {kind.file} and is left out",
                              stacklevel=4)
            self.names = (*([] if self._time is None else [self._time]), *axes, self._channel)
            units = {columns.units.get(name) or unit_in(name) for name in self._wide}
            self.units = {self._channel: units.pop()} if len(units) == 1 else {}
        elif self._named is not None:
            self.names = (*(name for name in columns.names if name not in (*axes, self._named)), *axes)
            self.units = columns.units
        else:
            columns.close()
            raise UserError(f"{path} has the columns {', '.join(columns.names)}: none is a station of {kind.file} "
                            f"({', '.join(list(kind.places)[:_SHOWN])}), nor a column {' or '.join(_NAMES[:3])}")

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        if self._named is not None:
            for block in self._columns.blocks(rows):
                yield self._joined(block)
            return
        for block in self._columns.blocks(max(1, rows // len(self._wide))):
            count = len(next(iter(block.values())))
            places = [self._kind.places[str(self._kind.station(name))] for name in self._wide]
            long = {axis: np.repeat([place[axis] for place in places], count) for axis in places[0]}
            long[self._channel] = np.concatenate([block[name] for name in self._wide])
            yield ({} if self._time is None else {self._time: np.tile(block[self._time], len(self._wide))}) | long

    def _joined(self, block: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        keys = [_key(value) for value in block[str(self._named)].tolist()]
        unknown = sorted({key for key in keys if key not in self._kind.places})
        if unknown:
            raise UserError(f"{self._path}: {self._kind.file} has no place of the station "
                            f"{', '.join(unknown[:_SHOWN])}")
        places = [self._kind.places[key] for key in keys]
        joined = {name: block[name] for name in self.names if name in block}
        return joined | {axis: np.array([place[axis] for place in places]) for axis in next(iter(places), {})}

    def close(self) -> None:
        self._columns.close()
