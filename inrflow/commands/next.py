"""`inrflow next`: ranking of places for further sensors by the reduction of the forecast variance."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from inrflow.commands.forecast import time_number
from inrflow.commands.query import output_of_command
from inrflow.commands.run_directory import RunDirectory, load_run
from inrflow.config.resolve import given_settings, resolve
from inrflow.config.schema import NextConfig
from inrflow.data.formats.columns import TIMES, column_numbers, find_column, labels
from inrflow.data.formats.continued import Places
from inrflow.data.formats.registry import format_of
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES
from inrflow.data.formats.tables import PointTable, read_observations, read_points, write_points
from inrflow.errors import UserError
from inrflow.model.joint import MOST_ROWS
from inrflow.model.surrogate import Surrogate

_CANDIDATES = 400  # random candidates
_NOTHING = 0.999  # share of the variance left above which a place tells nothing


def run(arguments: list[str]) -> int:
    """Assimilate observations, choose places, write."""
    config: NextConfig = resolve("next", NextConfig, arguments)
    given = [str(path) for path in (config.observations, config.points) if path]
    with output_of_command(config.to, config.output, "next", "next.csv", given) as target:
        return _choose(config, target)


def _choose(config: NextConfig, target: Path) -> int:
    surrogate = load_run(str(config.run), config.device, config.physics, config.observations)
    about, began = surrogate.description, time.perf_counter()
    read = given_settings(RunDirectory(Path(str(config.run))).read_settings())
    observations = read_observations(str(config.observations), about, config.stations or read.get("stations"), read)
    number = min(observations) if config.trajectory is None else config.trajectory
    if number not in observations:
        raise UserError(f"trajectory={number} is not observed in {config.observations}; choose from "
                        f"{', '.join(map(str, observations))}")
    at = None if config.at is None else time_number("at", config.at, about)
    seen = observations[number]
    about.require_places("further sensors are chosen among places")
    x, weights, told = _candidates(surrogate, config, read)
    if len(x) > MOST_ROWS:
        raise UserError(f"{config.points} has {len(x)} candidates; give at most {MOST_ROWS}")
    found = surrogate.assimilate(seen).where_next(x, config.count, weights, at)
    told = {name: values[found.index] for name, values in told.items()}
    columns = {"rank": np.arange(1, len(found.index) + 1), **told}
    order = np.full(len(found.index), number)
    table = PointTable(order, np.zeros(len(order)), found.x, columns)
    asked = config.points if config.points is not None and format_of(Path(config.points)).table else None
    write_points(target, table, {"left": np.asarray(found.left, np.float32)}, about, config.overwrite, asked)
    console = Console(stderr=True, markup=False)
    for row, left in enumerate(found.left.tolist()):
        where = ", ".join(f"{name} {_words(values[row])}" for name, values in told.items())
        console.print(f"{where}: {100 * left:.3g} % of the variance remain", highlight=False, soft_wrap=True)
    if found.left[0] > _NOTHING:
        console.print("no candidate reduces the variance, so that their order is arbitrary", highlight=False,
                      soft_wrap=True)
    console.print(f"{len(x)} candidates in {time.perf_counter() - began:.3g} s, written to {target}", highlight=False,
                  soft_wrap=True)
    return 0


def _candidates(surrogate: Surrogate, config: NextConfig, read: dict[str, Any]
                ) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    """Candidates (M, d), weights (M,) if given, and columns (M,) of places and of text such as names; the first row of
    each place of a table, or random places."""
    about = surrogate.description
    if config.points is not None:
        table = read_points(config.points, about, {**read, "time": ""})
        places = [name for name in about.coordinates if name in table.columns]
        if len(places) < len(about.coordinates):  # degrees of a sphere
            places = [name for group in (LONGITUDES, LATITUDES) if (name := find_column(table.columns, group))]
        first = np.sort(np.unique(table.x, axis=0, return_index=True)[1])
        held = {name: values[first] for name, values in table.columns.items()}
        dates = {find_column(held, TIMES)} if len(first) < len(table) else set()
        told = {name: held[name] for name in [*places, *(name for name in labels(held) if name not in dates)]}
        told |= {name: column_numbers(told[name], name, Path(config.points), 0) for name in places}
        weights = column_numbers(held["weight"], "weight", Path(config.points), 0) if "weight" in held else None
        return table.x[first], weights, told
    random = np.random.default_rng(config.seed)
    low, high = surrogate.box
    x = random.uniform(low, high, (20 * _CANDIDATES, len(low)))
    if about.geometry == "sphere":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    x = x[~surrogate.extent.outside(x)][:_CANDIDATES]
    if not len(x):
        raise UserError("no random place lies inside of the domain of the run; give candidates by points=FILE")
    return x, None, Places.of_points(x, about).columns


def _words(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
