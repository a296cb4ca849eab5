"""`inrflow forecast`: what comes after the observations, at their own places or at given ones, as quantiles."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from rich.console import Console

from inrflow.commands.query import answer_path
from inrflow.commands.run_directory import load_run
from inrflow.config.resolve import resolve
from inrflow.config.schema import ForecastConfig
from inrflow.data.description import Description
from inrflow.data.formats.calendar import dates_to_numbers, number_to_date, parse_units
from inrflow.data.formats.tables import PointTable, PointWriter, read_observations, read_points
from inrflow.data.observations import Frames
from inrflow.errors import UserError
from inrflow.model.solution import Solution

QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
_MOST_ROWS = 5_000_000


def run(arguments: list[str]) -> int:
    """Assimilate, forecast, write."""
    config: ForecastConfig = resolve("forecast", ForecastConfig, arguments)
    surrogate = load_run(str(config.run), config.device, config.physics, config.observations)
    about, began, rows = surrogate.description, time.perf_counter(), 0
    given = [str(path) for path in (config.observations, config.points) if path]
    target = answer_path(config.to, config.output, "forecast", "forecast.csv", given)
    until = time_number("until", str(config.until), about)
    observations = read_observations(str(config.observations), about, config.stations)
    places = None if config.points is None else np.unique(read_points(config.points, about).x, axis=0)
    mesh = _mesh(str(config.points or config.observations), about) if target.suffix.lower() == ".pvd" else None
    if mesh is not None and (places is None or len(places) == len(mesh.x)):
        places = mesh.x  # in the order of its nodes, whose numbers the cells hold
    every = surrogate.scale.unit if config.every is None else config.every
    dates = target.suffix.lower() == ".csv" and parse_units(about.time_units) is not None
    with PointWriter(target, about, config.overwrite) as writer:
        for number, seen in observations.items():
            frames = seen.frames()
            tables = list(_tables(frames, places, until, every, config.observed, about, number, len(observations) > 1))
            solution = surrogate.assimilate(seen)
            for table, values in tables:
                answer = _columns(solution, table, values, config.observed)
                table = table if mesh is None else replace(table, grid=mesh.grid)
                writer.append(_dated(table, about) if dates else table, answer)
                rows += len(table)
    Console(stderr=True).print(f"{rows} rows in {time.perf_counter() - began:.3g} s, written to {target}",
                               highlight=False, soft_wrap=True)
    return 0


def _mesh(path: str, about: Description) -> PointTable | None:
    """The nodes of the mesh on which the points of a file lie, with its cells; None of other files."""
    table = read_points(path, about)
    if table.grid is None or not table.grid.cells:
        return None
    first = (table.trajectory == table.trajectory[0]) & (table.t == table.t[0])
    return PointTable(table.trajectory[first], table.t[first], table.x[first], {}, table.grid)


def time_number(name: str, given: str, about: Description) -> float:
    """A time in the data's units, given as a number or as a date. Raises UserError where it is neither."""
    try:
        return float(given)
    except ValueError:
        pass
    try:
        return float(dates_to_numbers([given], str(about.time_units))[0])
    except (UserError, ValueError) as error:
        raise UserError(f"{name}={given} is no time of data in {about.time_units or 'units without a name'}; give a "
                        "number in their units, or an ISO date where these count from a date") from error


def _tables(
    frames: Frames, places: np.ndarray | None, until: float, every: float, observed: bool, about: Description,
    number: int, several: bool,
) -> Iterator[tuple[PointTable, np.ndarray | None]]:
    """The observed rows with their values (R, C), if asked for, and those of the times after them."""
    last = float(frames.t[-1])
    if not until > last:
        raise UserError(f"until={until:g} is not after the last observation, at t={last:g}; give a later time")
    seen = np.isfinite(frames.u).any(-1)
    x = np.broadcast_to(frames.x, (*seen.shape, frames.x.shape[-1]))
    points = np.unique(x[seen], axis=0) if places is None else places
    steps = (until - last) / every
    if steps * len(points) > _MOST_ROWS:
        raise UserError(f"{steps:.0f} times at {len(points)} places are more than {_MOST_ROWS} rows; give a larger "
                        "`every`, or fewer places in `points`")
    times = last + every * np.arange(1, int(steps * (1 + 1e-9)) + 1)
    if not len(times) or times[-1] < until - 1e-6 * every:
        times = np.append(times, until)
    if observed:
        yield _table(np.broadcast_to(frames.t[:, None], seen.shape)[seen], x[seen], about, number, several), (
            frames.u[seen])
    yield _table(np.repeat(times, len(points)), np.tile(points, (len(times), 1)), about, number, several), None


def _table(t: np.ndarray, x: np.ndarray, about: Description, number: int, several: bool) -> PointTable:
    which = np.full(len(t), number)
    columns = {"trajectory": which} if several else {}
    columns |= {"t": t} | {name: x[:, axis] for axis, name in enumerate(about.coordinates)}
    return PointTable(which, t, x, columns)


def _dated(table: PointTable, about: Description) -> PointTable:
    """The table with a first column of ISO dates."""
    times, which = np.unique(table.t, return_inverse=True)
    dates = np.array([number_to_date(t, about.time_units) for t in times], object)[which]
    return replace(table, columns={"time": dates, **table.columns})


def _columns(
    solution: Solution, table: PointTable, values: np.ndarray | None, observed: bool
) -> dict[str, np.ndarray]:
    """Quantiles of every channel, whether a row is extrapolated in space or time, and scores of observed values."""
    surrogate = solution.surrogate
    answer, columns = solution.query(table.t, table.x, std=True), {}
    low, middle, high = (solution.quantile(answer, level) for level in QUANTILES.values())
    for c, channel in enumerate(surrogate.description.channels):
        for name, value in zip(QUANTILES, (low, middle, high), strict=True):
            columns[f"{channel}_{name}"] = value[:, c]
        if observed:
            score = np.full(len(table), np.nan)
            if values is not None:
                score = (values[:, c] - answer["mean"][:, c]) / answer["std"][:, c]
            columns[f"{channel}_z_score"] = score
    beyond = surrogate.extent.outside(table.x) | surrogate.extent.beyond(table.t, solution.start)
    return columns | {"extrapolated": beyond.astype(np.int64)}
