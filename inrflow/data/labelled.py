"""Conversion of labelled data in memory (dates, degrees, pandas tables, xarray datasets) to and from plain arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inrflow.data.calendar import (
    cftimes_to_numbers,
    is_cftime,
    moments_to_numbers,
    numbers_of_dates,
    numbers_to_cftimes,
    numbers_to_moments,
    other_calendar,
    parse_units,
    texts_of_dates,
)
from inrflow.data.description import FLAG, FLAG_MEANING, Description
from inrflow.data.formats.columns import IN_FILES, TIMES, Columns, find_column, observations_of, time_column_by_dates
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, lonlat_to_xyz
from inrflow.data.formats.streams.streamed import lattice
from inrflow.data.formats.streams.tidy import VARIABLES, tidied
from inrflow.data.observations import Observations
from inrflow.data.plain import decoded, detached, plain_array, unindexed
from inrflow.errors import UserError

if TYPE_CHECKING:
    import xarray

_OFF = 1e-2  # tolerance of the squared length of unit vectors


def numeric_times(t: Any, description: Description) -> Any:
    """Times as numbers in the units of a data set: dates (ISO text, datetime, datetime64, pandas, cftime) are
    converted, all else is returned unchanged. Raises UserError if the data set has no calendar, or a different one."""
    if isinstance(t, Tensor | float | int):
        return t
    values, units = plain_array(t, "t"), description.time_units
    if values.dtype.kind not in "MUO" or not values.size:
        return t
    if all(is_cftime(value) for value in values.ravel().tolist()):
        return cftimes_to_numbers(values, units)
    if parse_units(units) is None and other_calendar(units) is None:
        if texts_of_dates(values) is None:
            return t
        raise UserError(f"times are dates but those of {description.name} are {units or 'numbers'}; give numbers")
    found = numbers_of_dates(values, str(units))
    return t if found is None else found


def unit_vectors(x: Any, description: Description) -> Any:
    """Unit vectors (N, 3) of points of a sphere given by longitude and latitude (N, 2) in degrees; the coordinates in a
    DataFrame, by the names of its columns; other points unchanged.

    Raises UserError if a latitude exceeds 90 degrees, or a table lacks the columns.
    """
    if hasattr(x, "columns") and hasattr(x, "iloc"):
        x = _columns_of_places(x, description)
    if description.geometry != "sphere" or np.ndim(x) == 0 or np.shape(x)[-1] != 2:
        _require_on_sphere(x, description)
        return x
    degrees = np.asarray(plain_array(x, "x"), np.float64)
    if (np.abs(degrees[..., 1]) > 90).any():
        raise UserError(f"latitudes reach {np.abs(degrees[..., 1]).max():g} degrees; give points (N, 2) of a sphere as "
                        "longitude and latitude, or unit vectors (N, 3)")
    return lonlat_to_xyz(degrees[..., 0], degrees[..., 1])


def _require_on_sphere(x: Any, description: Description) -> None:
    """Check that points (N, 3) of a spherical data set are unit vectors. Raises UserError."""
    if description.geometry != "sphere" or np.ndim(x) != 2 or np.shape(x)[-1] != 3:
        return
    values = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x, np.float64)
    squares: np.ndarray = np.square(values).sum(-1)
    if (abs(squares - 1) > _OFF).any():
        raise UserError(f"points of a sphere are unit vectors (N, 3), or longitude and latitude in degrees (N, 2); one "
                        f"of length {squares[abs(squares - 1) > _OFF][0] ** 0.5:.3g} is given")


def _columns_of_places(table: Any, description: Description) -> Any:
    """Coordinates (N, d) in a DataFrame, on a sphere also degrees (N, 2); all columns if these are only numbered."""
    names = [str(name) for name in table.columns]
    if all(name.isdigit() for name in names):
        return table.to_numpy()
    wanted: list[Any] = list(description.coordinates)
    if description.geometry == "sphere" and not set(wanted) <= set(names):
        wanted = [find_column(names, group) for group in (LONGITUDES, LATITUDES)]
    if None in wanted or not set(wanted) <= set(names):
        expected = ", ".join(description.coordinates) + (" or lon, lat" if description.geometry == "sphere" else "")
        raise UserError(f"the points have the columns {', '.join(names)}; expected {expected}")
    return np.stack([plain_array(table.iloc[:, names.index(name)], name) for name in wanted], -1)


def observations_from(data: Any, description: Description) -> Observations:
    """Observations of one trajectory from any supported kind of labelled data.

    data: Observations, whose dates and degrees are converted to numbers and unit vectors; a pandas DataFrame with the
    names of channels and coordinates (on a sphere also lon and lat) and t or time as columns; or an xarray Dataset or
    DataArray with variables and coordinates of these names. Raises UserError for missing names, several trajectories,
    and other types.
    """
    if isinstance(data, Observations):
        frames, x = data.frames(), unit_vectors(data.frames().x, description)
        if data.time_units is None and x is frames.x:
            return data
        t = frames.t
        if data.time_units is not None:
            t = moments_to_numbers(numbers_to_moments(t, data.time_units), description.time_units)
        return data.moved(t, x)
    if hasattr(data, "to_dataframe") and hasattr(data, "dims"):
        data = decoded(data.to_dataset(name=data.name or description.channels[0]) if hasattr(data, "to_dataset")
                       and not hasattr(data, "data_vars") else data)
        time = find_column([str(name) for name in data.variables], TIMES)
        _require_one_trajectory(data, description, time)
        if time is not None and data[time].dtype.kind in "fiu" and " since " in str(description.time_units):
            warnings.warn(f"{time} holds numbers without a date from which they count; they are taken as "
                          f"{description.time_units}, as in the training data", stacklevel=4)
        data = data.to_dataframe().reset_index()
    if not hasattr(data, "columns") or not hasattr(data, "iloc"):
        raise UserError("assimilate takes Observations, a pandas DataFrame or an xarray Dataset, or a list or a dict "
                        f"of them, not {type(data).__name__}; inrflow.Observations(t, x, u) holds arrays")
    data = unindexed(data)
    table, columns = Path("the table"), _FrameColumns(data, description.time_units)
    tidy = not VARIABLES.isdisjoint(map(str.lower, columns.names))
    found = observations_of(tidied(lambda: columns, table) if tidy else columns, table, description, strict=False)
    if len(found) > 1:
        raise UserError(f"the table holds the trajectories {', '.join(map(str, sorted(found)))}; give one")
    return next(iter(found.values()))


def _require_one_trajectory(data: Any, description: Description, time: str | None) -> None:
    """Check that a Dataset has no dimension, such as members or levels, on which channels depend, and neither times nor
    places. Raises UserError."""
    named = {time, "trajectory", *description.coordinates}
    placed = {dim for name in data.variables if name in named or str(name).lower() in (*LONGITUDES, *LATITUDES)
              for dim in data[name].dims}
    apart = [dim for name in description.channels if name in data.variables for dim in data[name].dims
             if dim not in placed and data.sizes[dim] > 1]
    if apart and "trajectory" not in data.variables:
        raise UserError(f"the dataset has {data.sizes[apart[0]]} entries along {apart[0]}, on which neither its times "
                        f"nor its places depend; choose one by .isel({apart[0]}=0), or give a list with each of them")


def all_observations_from(data: Any, description: Description) -> Any:
    """Observations of one trajectory, or of each item of a list or dict, by `observations_from`."""
    if isinstance(data, list | tuple):
        return [observations_from(one, description) for one in data]
    if isinstance(data, dict):
        return {key: observations_from(one, description) for key, one in data.items()}
    return observations_from(data, description)


class _FrameColumns(Columns):
    """Columns of a pandas DataFrame, with dates of cftime as numbers in `time_units`."""

    def __init__(self, frame: Any, time_units: str | None) -> None:
        self._frame, self._time_units = frame, time_units
        self.names = tuple(str(name).replace(*IN_FILES) for name in frame.columns)
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise UserError(f"the table has several columns {', '.join(twice)}; give each a name of its own")
        kinds = dict(zip(self.names, frame.dtypes, strict=True))
        dated = [name for name, kind in kinds.items() if getattr(kind, "kind", "") == "M"]
        self.meant = time_column_by_dates(dated, self.names)
        self.zoned = tuple(name for name in dated if getattr(kinds[name], "tz", None) is not None)

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(self._frame), rows):
            part = self._frame.iloc[start:start + rows]
            yield {name: self._values(part.iloc[:, index]) for index, name in enumerate(self.names)}

    def _values(self, column: Any) -> np.ndarray:
        if getattr(column.dtype, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        values = column.to_numpy()
        if values.dtype.kind in "fiubM":
            return values
        if len(values) and is_cftime(values[0]):
            return cftimes_to_numbers(values, self._time_units)
        return np.array(["" if value is None or value != value else str(value) for value in values.tolist()], object)

    def close(self) -> None:
        pass


def grid_points(axes: Mapping[str, Any], description: Description) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Points (N, d) of a grid given by an axis for each coordinate (on a sphere lon and lat), and the ordered axes.

    Raises UserError if an axis is missing or no one-dimensional array of finite numbers.
    """
    lonlat = {next((name for name in axes if name.lower() in group), group[0]): group
              for group in (LATITUDES, LONGITUDES)}
    names: Sequence[str] = description.coordinates
    if description.geometry == "sphere" and not set(names) <= set(axes):
        names = tuple(lonlat)
    if set(names) != set(axes):
        raise UserError(f"a grid is given by {', '.join(axes) or 'nothing'}; give an axis for each of "
                        f"{', '.join(names)}")
    lines = {name: np.atleast_1d(numbers_of(axes[name], f"axis {name}").double().numpy()) for name in names}
    bad = next((name for name, line in lines.items() if line.ndim != 1 or not np.isfinite(line).all()), None)
    if bad is not None:
        raise UserError(f"the axis {bad} has shape {lines[bad].shape} or values that are not finite; give a "
                        "line of numbers")
    points = lattice(list(lines.values()))
    on_sphere = description.geometry == "sphere" and len(names) == 2
    return (lonlat_to_xyz(points[:, 1], points[:, 0]) if on_sphere else points), lines


def dataset(description: Description, t: np.ndarray, points: np.ndarray, axes: Mapping[str, np.ndarray] | None,
            fields: Sequence[np.ndarray], names: Mapping[str, Sequence[str]]) -> xarray.Dataset:
    """xarray Dataset with CF conventions of fields (T, N, C), whose names are given for each channel.

    Dimensions are time and the axes of a grid, or `point` with its coordinates. Calendar times are datetime64; times of
    a model calendar are dates of cftime, or numbers with the calendar's name if that is not installed.
    """
    import xarray

    if parse_units(description.time_units) is not None:
        time = ("time", numbers_to_moments(t, description.time_units), {"standard_name": "time"})
    elif (own := other_calendar(description.time_units)) is not None:
        dates = numbers_to_cftimes(t, str(description.time_units))
        told = {"units": own[0], "calendar": own[1]} if dates is None else {"standard_name": "time"}
        time = ("time", t if dates is None else dates, told)
    else:
        time = ("time", t, {"units": description.time_units} if description.time_units else {})
    coordinates: dict[str, Any] = {"time": time}
    if axes is not None:
        shape, dims = tuple(len(line) for line in axes.values()), tuple(axes)
        coordinates |= {name: (name, line, _meaning(name)) for name, line in axes.items()}
    else:
        shape, dims = (len(points),), ("point",)
        coordinates |= {name: ("point", points[:, index]) for index, name in enumerate(description.coordinates)}
    units = description.units or ("",) * len(description.channels)
    variables = {
        names[channel][which]: (("time", *dims), values[..., index].reshape(len(t), *shape),
                                {"units": unit} if unit else {})
        for which, values in enumerate(fields)
        for index, (channel, unit) in enumerate(zip(description.channels, units, strict=True))
    }
    facts = {"Conventions": "CF-1.10", "title": description.name, "source": description.source,
             "license": description.licence}
    return xarray.Dataset(variables, coordinates, {key: value for key, value in facts.items() if value})


def query_dataset(ask: Callable[[np.ndarray, np.ndarray], Mapping[str, Any]], description: Description, t: Any, x: Any,
                  axes: Mapping[str, Any]) -> xarray.Dataset:
    """Dataset of the fields (`mean` and others, (T, N, C)) and the FLAG (T, N) that `ask` returns at times t and points
    x (N, d), or on the grid of some axes. Raises UserError if neither or both are given.
    """
    times = np.atleast_1d(numbers_of(numeric_times(t, description), "times").double().numpy())
    names = description.coordinates
    if np.ndim(x) == 1 and (len(names) == 1 or "x" in names):  # a grid axis named x
        axes, x = {"x" if "x" in names else names[0]: x, **axes}, None
    if x is not None and axes:
        raise UserError(f"both points x and the axes {', '.join(axes)} are given; give one of them")
    lines: dict[str, np.ndarray] | None = None
    if x is not None:
        points = unit_vectors(np.atleast_2d(x) if np.ndim(x) == 1 else x, description)
    elif description.placeless and not axes:
        points, lines = np.zeros((1, 1)), {}
    else:
        points, lines = grid_points(axes, description)
    points = numbers_of(points, "points").double().numpy().reshape(-1, np.shape(points)[-1])
    answer = {**ask(times, points)}
    flag = answer.pop(FLAG, None)  # by which readers of data know answers
    columns = description.answers([key.replace("mean", "") for key in answer],
                                  "give std=False, or rename it in the data and train again")
    found = dataset(description, times, points, lines, [*map(np.asarray, answer.values())], columns)
    if flag is not None and FLAG not in found:
        like = found[columns[description.channels[0]][0]]
        found[FLAG] = (like.dims, flag.astype(np.int8).reshape(like.shape), FLAG_MEANING)
    return found


def _meaning(name: str) -> dict[str, str]:
    """CF attributes of an axis."""
    for group, standard, units in ((LONGITUDES, "longitude", "degrees_east"), (LATITUDES, "latitude", "degrees_north")):
        if name.lower() in group:
            return {"standard_name": standard, "units": units}
    return {}


def numbers_of(values: Any, name: str) -> Tensor:
    """Tensor of numbers, without gradient. Raises UserError for other types, and within transforms of torch.func."""
    if isinstance(values, Tensor) and not values.is_complex():
        return detached(values, f"the {name} of a query")
    array = plain_array(values, f"the {name} of a query")
    if array.dtype.kind not in "fiub":
        raise UserError(f"the {name} of a query are {type(values).__name__}, which numpy converts to {array.dtype}; "
                        "give arrays of numbers")
    return torch.as_tensor(np.require(array, requirements=["C", "W"]))


def query_points(
    t: Any, x: Any, description: Description, grid: bool = False
) -> tuple[Tensor, Tensor, bool, tuple[int, ...]]:
    """Times (R,) and points (R, d) of single rows, or (T,) and (N, d) of a grid, whether they are rows, and the shape
    of the result without channels. Dates and degrees are converted. x may be None if the data have no places. A column
    of times (T, 1) denotes a grid, as in broadcasting. Points (X, Y, d) may have several axes, as has the result.

    Raises UserError if shapes do not fit. Warns about rows that may have been intended as a grid.
    """
    times = numbers_of(numeric_times(t, description), "times").double()
    if times.dim() == 2 and times.shape[1] == 1:
        times, grid = times[:, 0], True
    if x is None:
        if not description.placeless:
            raise UserError(f"a query has no points; give x with {', '.join(description.coordinates)}")
        x = np.zeros((1, 1) if grid else (*times.shape, 1))
    given = x if hasattr(x, "iloc") else numbers_of(x, "points")
    d, spread = len(description.coordinates), tuple(given.shape[:-1])
    if several := len(spread) > 1 and given.shape[-1] in (d, 2) and (times.dim() < 2 or times.shape == spread):
        if not grid and times.shape == spread[:1]:
            raise UserError(f"a query has t of shape {tuple(times.shape)} and x of shape {tuple(given.shape)}; give "
                            f"t[:, None] for all points at all times, or t {spread} for times of their own")
        given, grid = given.reshape(-1, given.shape[-1]), grid or times.dim() == 1
        times = times.reshape(-1) if times.dim() > 1 else times
    points = numbers_of(unit_vectors(given, description), "points")
    points = points if points.is_floating_point() else points.double()
    if points.dim() == 1 and d == 1 and times.dim() <= 1 and len(points) != 1:
        points = points[:, None]
    if points.dim() < 1 or points.shape[-1] != d or points.dim() > 2 or times.dim() > 1:
        raise UserError(f"a query has t of shape {tuple(times.shape)} and x of shape {tuple(points.shape)}; expected "
                        f"t (R,) and x (R, {d}), or t and x of one frame or of a grid of times and points, with the "
                        "coordinates as the last axis of x")
    single = points.dim() == 1
    points = points[None] if single else points
    one_frame = times.dim() == 0 and not grid
    times = times.reshape(-1)
    if not len(points) or not len(times):
        raise UserError("a query has no points; give at least one")
    by_row = not grid and not one_frame and len(times) == len(points)
    if by_row and len(times) > 1 and bool((times.diff() > 0).all() & (points.diff(dim=0) != 0).any(1).all()):
        warnings.warn(f"{len(times)} times and as many points are {len(times)} single points, values (R, C); for all "
                      "points at all times, (T, N, C), give times as a column, t[:, None]", stacklevel=4)
    places = spread if several else (len(points),)
    shape: tuple[int, ...] = places if by_row else (len(times), *places)
    if one_frame:
        shape = shape[1:]
    return times, points, by_row, shape[:-1] if single and (one_frame or by_row) else shape
