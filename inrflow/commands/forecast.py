"""`inrflow forecast`: quantiles of forecasts after the observations, at their own places or at given ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from inrflow.commands.query import WarningCollector, output_of_command
from inrflow.commands.run_directory import RunDirectory, load_run
from inrflow.config.resolve import given_settings, resolve
from inrflow.config.schema import ForecastConfig
from inrflow.data.calendar import dates_to_numbers, is_zoned, number_to_date, parse_units, zone_offset
from inrflow.data.description import FLAG, QUANTILES, Description
from inrflow.data.formats.columns import Grid
from inrflow.data.formats.continued import Places, last_rows_of_points, on_grid
from inrflow.data.formats.registry import ReadOptions, expanded, format_for_writing, format_of
from inrflow.data.formats.streams.stations import StationTables
from inrflow.data.formats.table_format import TableFormat
from inrflow.data.formats.tables import PointTable, PointWriter, read_observations, read_points
from inrflow.data.months import months_after
from inrflow.data.observations import Frames, Observations
from inrflow.errors import UserError
from inrflow.evaluation.forecast import std_of_values
from inrflow.model.solution import Solution
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.shown import counted

_MOST_ROWS = 5_000_000
_FAR, _MOST_ROWS_FAR = 10.0, 50_000  # horizons beyond which so many rows are no oversight only if `every` is given
_BYTES = 11  # of a number in a table


def run(arguments: list[str]) -> int:
    """Assimilate observations, forecast, write."""
    config: ForecastConfig = resolve("forecast", ForecastConfig, arguments)
    given = [str(path) for path in (config.observations, config.points) if path]
    with output_of_command(config.to, config.output, "forecast", "forecast.csv", given) as target:
        return _forecast(config, given, target)


def _forecast(config: ForecastConfig, given: list[str], target: Path) -> int:
    surrogate = load_run(str(config.run), config.device, config.physics, config.observations)
    about, began, rows = surrogate.description, time.perf_counter(), 0
    until = time_number("until", str(config.until), about)
    read = given_settings(RunDirectory(Path(str(config.run))).read_settings())
    stations = config.stations or read.get("stations")
    observations = read_observations(str(config.observations), about, stations, read)
    given_places = _of_grids(str(config.observations)) if len(observations) == 1 else config.observations
    if config.points:
        asked: PointTable | None = _points(str(config.points), about, read)
    else:
        asked = None if stations else _observed(str(given_places), about, read)
    written = format_for_writing(target)
    dates = written.dates if parse_units(about.time_units) is not None else None
    gridded, gathered = written.named_dimensions and not config.observed, WarningCollector()
    example, shift = "", 0.0
    with PointWriter(target, about, config.overwrite, given[-1], config.run) as writer:
        table = _on_grid(asked, observations, until, config.every, surrogate) if gridded and asked is not None else None
        if table is not None:
            writer.append(table, _of_grid(surrogate, table, observations, gathered))
            rows, observations = len(table), {}
        for number, seen in observations.items():
            frames = seen.frames()
            own = asked if asked is None or config.points else _of_trajectory(asked, number)
            known = _places(frames, own, about, read.get("time"), config.points is None)
            if stations and own is None:
                known = _named(known, stations, str(config.observations), about, read)
            example, shift = known.example, known.shift
            with gathered.of(number):
                solution = surrogate.solution_of(seen)
            for t, x, values in _rows(frames, known.x, until, config, surrogate):
                table = known.rows(t, x, about, number, len(observations) > 1, dates)
                if asked is not None and asked.grid is not None and asked.grid.cells:
                    table = replace(table, grid=Grid(("row",), (len(table),), {}, asked.grid.cells))
                writer.append(table, _columns(solution, table, values, config.observed))
                rows += len(table)
    gathered.tell()
    in_utc = dates and not shift and (not example or is_zoned(example))
    units = "UTC" if in_utc else None if dates or written.named_dimensions else about.time_units
    zone = f"; times are in {units}" if units else ""
    took = f"{time.perf_counter() - began:.3g} s"
    Console(stderr=True, markup=False).print(f"{counted(rows, 'row')} in {took}, written to {target}{zone}",
                                             highlight=False, soft_wrap=True)
    return 0


def _of_grids(given: str) -> str:
    """Last of the gridded files of a pattern, which share a grid; other patterns and single files unchanged."""
    paths = expanded(given)
    return str(paths[-1]) if len(paths) > 1 and format_of(paths[0]).named_dimensions else given


def _points(path: str, about: Description, read: dict[str, Any]) -> PointTable:
    """Rows of a file of places, which may lack times."""
    try:
        return read_points(path, about, read)
    except UserError:
        return read_points(path, about, {**read, "time": ""})


def _observed(path: str, about: Description, read: dict[str, Any]) -> PointTable | None:
    """Rows of observations, for their places; None if some have no place, as is allowed for rows without values."""
    try:
        return read_points(path, about, read)
    except UserError:
        return None


def _of_trajectory(table: PointTable, number: int) -> PointTable:
    own = table.trajectory == number
    return PointTable(table.trajectory[own], table.t[own], table.x[own],
                      {name: values[own] for name, values in table.columns.items()}, table.grid, table.time)


def _places(frames: Frames, asked: PointTable | None, about: Description, time: str | None, observed: bool) -> Places:
    """Places of a file in its order, else all observed places; for moving points the last place of each. Raises
    UserError if moving points cannot be identified."""
    moves = observed and _moves(frames)
    if asked is not None and len(asked):
        return Places.of_table(last_rows_of_points(asked, about) if moves else asked, about, time)
    if moves:
        raise UserError("observed points move, to unknown places; give the places to forecast by points=FILE")
    seen = np.isfinite(frames.u).any(-1)
    x = np.broadcast_to(frames.x, (*seen.shape, frames.x.shape[-1]))[seen]
    return Places.of_points(np.unique(x, axis=0), about)


def _moves(frames: Frames) -> bool:
    """Whether most values have a distinct place, with far more places than at any one time."""
    seen = np.isfinite(frames.u).any(-1)
    if not frames.moving or len(frames) < 2:
        return False
    places = len(np.unique(frames.x[seen], axis=0))
    return bool(places > seen.sum() / 2 and places > 1.5 * seen.sum(1).max())


def _named(known: Places, stations: str, observations: str, about: Description, read: dict[str, Any]) -> Places:
    """Places in the order of their stations, with names and places as given, and times in the observations' format."""
    source = expanded(observations)[0]
    table, kind = format_of(Path(stations)), format_of(source)
    if not isinstance(table, TableFormat) or not isinstance(kind, TableFormat):
        return known
    named = StationTables(kind, ReadOptions(coordinates=read.get("coordinates"), time=read.get("time"),
                                            stations=stations))
    order, columns = named.stations_at(known.x, about)
    time, example = named.time_in(source)
    shift = 0.0 if is_zoned(example) else zone_offset(time, about.time_units)
    return replace(known, x=known.x[order], columns=columns, time=time, example=example, shift=shift)


def _on_grid(
    asked: PointTable, observations: dict[int, Observations], until: float, every: float | None, surrogate: Surrogate
) -> PointTable | None:
    """Rows on the grid of the file at times after the last observation of all trajectories; None without a grid."""
    last = max((seen.frames().t for seen in observations.values()), key=lambda t: t[-1])
    times = _times(last, until, every, len(asked) // max(len(np.unique(asked.t)), 1), surrogate)
    table = on_grid(asked, times, surrogate.description)
    return None if table is None or not set(table.trajectory.tolist()) <= set(observations) else table


def _of_grid(surrogate: Surrogate, table: PointTable, observations: dict[int, Observations], gathered: WarningCollector
             ) -> dict[str, np.ndarray]:
    """Forecast columns on a grid, NaN and flagged at places without any observation."""
    answer: dict[str, np.ndarray] = {}
    for number in np.unique(table.trajectory).tolist():
        rows = np.flatnonzero((table.trajectory == number) & np.isfinite(table.x).all(1))
        part = PointTable(table.trajectory[rows], table.t[rows], table.x[rows], {})
        with gathered.of(number):
            solution = surrogate.solution_of(observations[number])
        for name, values in _columns(solution, part, None, False).items():
            empty = 1 if name == FLAG else np.nan
            answer.setdefault(name, np.full(len(table), empty, values.dtype))[rows] = values
    return answer


def time_number(name: str, given: str, about: Description) -> float:
    """Time in the data's units, given as a number or as a date. Raises UserError if it is neither."""
    try:
        return float(given)
    except ValueError:
        pass
    try:
        return float(dates_to_numbers([given], str(about.time_units))[0])
    except (UserError, ValueError) as error:
        if isinstance(error.__cause__, ImportError):
            raise
        raise UserError(f"{name}={given} is not a time in {about.time_units or 'units without a name'}; give a "
                        "number in their units, or an ISO date where these count from a date") from error


def _times(known: np.ndarray, until: float, every: float | None, places: int, surrogate: Surrogate) -> np.ndarray:
    """Times of a forecast at so many places after those of the observations, `known` (T,).

    By default these go on in their calendar months, else in the usual step of the training data. Raises UserError if
    `until` is not after the last observation or too far, or if there would be too many rows: `_MOST_ROWS`, and
    `_MOST_ROWS_FAR` in default steps beyond `_FAR` horizons, as with times in a wrong unit.
    """
    about, extent, last = surrogate.description, surrogate.extent, float(known[-1])
    asked, seen = (number_to_date(t, about.time_units) or f"{t:g}" for t in (until, last))
    if not until > last:
        raise UserError(f"until={asked} is not after the last observation, at t={seen}; give a later time")
    step, horizons = every or surrogate.scale.unit, (until - last) / extent.horizon
    steps = (until - last) / step
    few = _MOST_ROWS_FAR if every is None and horizons > _FAR else _MOST_ROWS
    if steps * places > few:
        columns = 2 + len(about.coordinates) + len(QUANTILES) * len(about.channels)
        raise UserError(
            f"until={asked} lies {horizons:.3g} times the time span of training after the last observation: "
            f"{steps:.6g} times at {places} places are more than {_MOST_ROWS if steps * places > _MOST_ROWS else few} "
            f"rows (about {steps * places * columns * _BYTES / 1e6:.3g} MB); give an earlier time, a larger `every`, "
            "or fewer places in `points`")
    extent.require_reach(np.array([until]), last, last)
    times = months_after(known, until, about.time_units) if every is None else None
    times = last + step * np.arange(1, int(steps * (1 + 1e-9)) + 1) if times is None else times
    return times if len(times) and times[-1] >= until - 1e-6 * step else np.append(times, until)


def _rows(
    frames: Frames, places: np.ndarray, until: float, config: ForecastConfig, surrogate: Surrogate
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Times (R,), points (R, d) and values (R, C) of the observations, if `observed`, then of the forecast (None)."""
    times = _times(frames.t, until, config.every, len(places), surrogate)
    if config.observed:
        seen = np.isfinite(frames.u).any(-1)
        x = np.broadcast_to(frames.x, (*seen.shape, frames.x.shape[-1]))
        yield np.broadcast_to(frames.t[:, None], seen.shape)[seen], x[seen], frames.u[seen]
    yield np.repeat(times, len(places)), np.tile(places, (len(times), 1)), None


def _columns(
    solution: Solution, table: PointTable, values: np.ndarray | None, observed: bool
) -> dict[str, np.ndarray]:
    """Quantiles, if `observed` z-scores of the values, of each channel, and the flag of extrapolation, as columns."""
    surrogate = solution.surrogate
    answer = solution.rows(table.t, table.x, std=True)
    low, middle, high = (solution.quantile(answer, level) for level in QUANTILES.values())
    scores = np.full(answer["mean"].shape, np.nan)
    if values is not None:
        scale = surrogate.normalisation.scale.numpy().ravel()
        std = torch.as_tensor(answer["std"] / scale)[None, None]
        std = std_of_values(surrogate.prior, std, solution.estimate)[0, 0]
        scores = (values - answer["mean"]) / (std.numpy() * scale)
    fields, asked = [low, middle, high, *[scores] * observed], (*QUANTILES, *["z_score"] * observed)
    columns: dict[str, np.ndarray] = {}
    for c, own in enumerate(surrogate.description.answers(asked, "rename it and train again").values()):
        columns |= {name: np.asarray(value[:, c], np.float32) for name, value in zip(own, fields, strict=True)}
    return columns | {FLAG: surrogate.extent.extrapolated(table.t, table.x, *solution.observed)}
