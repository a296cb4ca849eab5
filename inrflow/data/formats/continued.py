"""Tables of later times at the places of a file, with its own columns or on its own grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from inrflow.data.batch import Markers, blanked
from inrflow.data.calendar import (
    numbers_of_dates,
    numbers_to_moments,
    numbers_to_texts,
    other_calendar,
    parse_units,
    zone_offset,
)
from inrflow.data.description import Description
from inrflow.data.formats.columns import TIMES, PointTable, find_column, is_station, labels, time_column_by_dates
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, xyz_to_lonlat
from inrflow.errors import UserError

_ROUNDING = 1e-9  # tolerance of whole numbers, relative to the span of times


@dataclass(frozen=True)
class Places:
    """Places x (N, d) with `columns` (N,) of their properties: coordinates as given, names of stations.

    time: name of the column of times. numbers: whether it holds numbers in the data's units; whole: whether these are
    integers. example: a date in the format of that column. shift: times from UTC of its zone, as its name says.
    """

    x: np.ndarray
    columns: dict[str, np.ndarray]
    time: str = "t"
    numbers: bool = False
    whole: bool = False
    example: str = ""
    shift: float = 0.0

    @classmethod
    def of_points(cls, x: np.ndarray, about: Description) -> Places:
        """Places of points without further columns; on a sphere with longitude and latitude in degrees."""
        names, values = about.places, x[:, :len(about.places)]
        if about.geometry == "sphere" and x.shape[1] == 3:
            names, values = ("lon", "lat"), xyz_to_lonlat(x)
        return cls(x, dict(zip(names, values.T, strict=True)))

    @classmethod
    def of_table(cls, table: PointTable, about: Description, time: str | None = None) -> Places:
        """Places of a table in the order of their first rows, with the columns that are constant at each place."""
        _, first, which = np.unique(table.x, axis=0, return_index=True, return_inverse=True)
        which, order = which.ravel(), np.sort(first)
        dated = [name for name, values in table.columns.items() if values.dtype.kind == "M"]
        time = find_column(table.columns, TIMES if time is None else (time,)) or time_column_by_dates(
            dated, table.columns).get(TIMES) or (table.time if table.time in table.columns else None)
        left_out = {"", time, "t", "trajectory", *about.channels}
        columns = {name: values[order] for name, values in table.columns.items() if name not in left_out
                   and bool(((values[first][which] == values) | (values != values)).all())}
        lacking = [name for name in about.places if name not in columns]
        if lacking and not (about.geometry == "sphere" and len(columns) >= 2):
            columns |= {name: table.x[order, about.coordinates.index(name)] for name in lacking}
        numbers = time is not None and np.array_equal(table.columns[time], table.t)
        stamps = table.t if time is None else table.columns[time]
        shift = zone_offset(time or "t", about.time_units)
        if shift and (own := numbers_of_dates(stamps[:1], str(about.time_units))) is not None and own[0] == table.t[0]:
            shift = 0.0  # the dates say their zone themselves
        return cls(table.x[order], columns, time or "t", numbers, numbers and stamps.dtype.kind in "iu",
                   str(stamps[0]) if stamps.dtype == object else "", shift)

    def rows(self, t: np.ndarray, x: np.ndarray, about: Description, number: int, several: bool, dates: str | None
             ) -> PointTable:
        """Table of rows at times t (R,) and points x (R, d), with the columns of the nearest places.

        several: whether to add a column `trajectory` with `number`. dates: times as ISO dates ("text") or "moments".
        """
        near = cKDTree(self.x).query(x)[1]
        which, columns = np.full(len(t), number), {}
        if self.numbers:
            off = np.abs(np.rint(t) - t) > _ROUNDING * np.maximum(np.ptp(t), np.spacing(np.abs(t)) / _ROUNDING)
            columns[self.time] = np.rint(t).astype(np.int64) if self.whole and not off.any() else t
        elif dates:
            times, at = np.unique(t, return_inverse=True)
            stamps = numbers_to_texts(times + self.shift, about.time_units, self.example) if dates == "text" else \
                numbers_to_moments(times + self.shift, about.time_units)
            own = self.time != "t" or bool(self.example)
            columns[self.time if own else "time"] = stamps[at.ravel()]
        if not columns or (self.time == "t" and not self.example and not self.numbers):
            columns["t"] = t
        if several:
            columns = {"trajectory": which} | columns
        return PointTable(which, t, x, columns | {name: values[near] for name, values in self.columns.items()})


def last_rows_of_points(table: PointTable, about: Description) -> PointTable:
    """Last row of each moving point, with the columns that are constant along its path, as start of its forecast.
    Raises UserError if no column identifies the points."""
    dates = {name for name, values in table.columns.items() if values.dtype.kind == "M"} | {table.time, find_column(
        table.columns, TIMES)}
    named = [name for name in labels(table.columns) if name not in dates]
    named = [name for name in named if is_station(name)] or [
        name for name in named if len(set(table.columns[name].tolist())) < len(table) / 2]
    if not named:
        raise UserError("observed points move, and no column such as drifter or station_id identifies them; give the "
                        "places to forecast by points=FILE")
    _, which = np.unique(table.columns[named[0]].astype(str), return_inverse=True)
    last = np.full(which.max() + 1, -np.inf)
    np.maximum.at(last, which, table.t)
    rows = np.flatnonzero(table.t == last[which])
    first = np.full(len(last), len(table))
    np.minimum.at(first, which, np.arange(len(table)))
    own = {*dates, *about.coordinates, *LONGITUDES, *LATITUDES}
    kept = {name: values for name, values in table.columns.items() if name in own
            or ((values == values[first[which]]) | (values != values)).all()}
    return PointTable(table.trajectory[rows], table.t[rows], table.x[rows],
                      {name: values[rows] for name, values in kept.items()}, time=table.time)


def on_grid(table: PointTable, times: np.ndarray, about: Description) -> PointTable | None:
    """Rows on the grid of a file at other times (T,); None if it has no grid with an axis of time."""
    grid = table.grid
    own = [table.time] if grid is not None and table.time in grid.axes else []  # such as ocean_time, step
    name = None if grid is None else next(iter(own), None) or find_column(grid.axes, TIMES)
    name = name or next((key for key, known in (grid.attributes if grid else {}).items() if known.get(
        "standard_name") == "time" and key in grid.axes), None)  # type: ignore[union-attr]
    if grid is None or name is None or len(grid.axes[name][0]) != 1:
        return None
    (dim,), _ = grid.axes[name]
    along = grid.dims.index(dim)
    shape = [size if axis != along else len(times) for axis, size in enumerate(grid.shape)]
    known = numbers_to_moments(times, about.time_units) if parse_units(about.time_units) else times
    model = other_calendar(about.time_units)
    told = {} if model is None else {name: {**grid.attributes.get(name, {}), "units": model[0], "calendar": model[1]}}
    axes = {key: item for key, item in grid.axes.items() if dim not in item[0]} | {name: ((dim,), known)}

    def repeated(values: np.ndarray) -> np.ndarray:
        first = values.reshape(*grid.shape, *values.shape[1:]).take([0], along)
        return np.repeat(first, len(times), along).reshape(-1, *values.shape[1:])

    t = np.broadcast_to(times.reshape([-1 if axis == along else 1 for axis in range(len(shape))]), shape).ravel()
    columns = {key: np.zeros(len(t)) if key == name else repeated(table.columns[key]) for key in axes}
    x, channels = repeated(table.x), [key for key in about.channels if key in table.columns]
    if channels:  # land
        u = np.stack([np.asarray(table.columns[key], float) for key in channels], -1)
        seen = np.isfinite(blanked(u, Markers(channels).look(u).found)).any(-1).reshape(grid.shape)
        x[~np.broadcast_to(seen.any(along, keepdims=True), shape).ravel()] = np.nan
    return PointTable(repeated(table.trajectory), t.copy(), x, columns,
                      replace(grid, shape=tuple(shape), axes=axes, attributes={**grid.attributes, **told}))
