"""`inrflow query`: predictions at the points of a file, streamed in blocks."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console

from inrflow.commands.run_directory import RunDirectory, default_output, load_run
from inrflow.config.resolve import given_settings, resolve
from inrflow.config.schema import QueryConfig
from inrflow.data.description import FLAG, Description
from inrflow.data.formats.tables import PointReader, PointTable, PointWriter, read_observations
from inrflow.data.observations import Observations
from inrflow.errors import UserError
from inrflow.model.extent import warn_diverged
from inrflow.model.solution import Solution
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.atomic_files import made_folder


def run(arguments: list[str]) -> int:
    """Assimilate observations, predict, write."""
    config: QueryConfig = resolve("query", QueryConfig, arguments)
    sources = [str(config.observations), str(config.points)]
    with output_of_command(config.to, config.output, "query", Path(str(config.points)).name, sources) as target:
        return _answer(config, target)


def _answer(config: QueryConfig, target: Path) -> int:
    surrogate = load_run(str(config.run), config.device, config.physics, config.observations)
    console = Console(stderr=True, markup=False)
    began = time.perf_counter()
    read = given_settings(RunDirectory(Path(str(config.run))).read_settings())
    stations = config.stations or read.get("stations")
    names = _names(surrogate.description, config)
    observations = read_observations(str(config.observations), surrogate.description, stations, read)
    answers = _Answers(surrogate, observations, config, names)
    rows = 0
    writing = PointWriter(target, surrogate.description, config.overwrite, str(config.points), config.run)
    with writing as writer, console.status("reading") as status:
        for table in PointReader(str(config.points), surrogate.description, read=read):
            writer.append(table, answers.columns(table))
            rows += len(table)
            status.update(f"{rows} points")
    answers.warn()
    surrogate.extent.check_places(np.concatenate(answers.corners))
    surrogate.extent.warn_outside(answers.outside, rows)
    surrogate.extent.warn_beyond(answers.beyond, rows)
    console.print(f"{rows} points in {time.perf_counter() - began:.3g} s, written to {target}", highlight=False,
                  soft_wrap=True)
    return 0


@contextmanager
def output_of_command(to: str | None, output: str | None, command: str, name: str, sources: Sequence[str]
                      ) -> Iterator[Path]:
    """Context manager of the output file, by default `name` in the folder `output`, which is removed where it stays
    empty. Raises UserError if the file is one of the sources."""
    for source in sources:
        if to is not None and os.path.exists(to) and os.path.exists(source) and os.path.samefile(to, source):
            raise UserError(f"to={to} is an input of this {command} and would be overwritten; give another file")
    if to is not None:
        yield Path(to)
        return
    with made_folder(output or default_output(command)) as folder:
        yield folder / name


class WarningCollector:
    """Collector of warnings about the observations of trajectories, of which only the first is issued."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Context manager that collects warnings about trajectory `number`."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
        self._texts += [f"observations of trajectory {number}: {item.message}" for item in caught]

    def tell(self) -> None:
        """Issue the first warning, with the number of the others."""
        if self._texts:
            more = f" (and {len(self._texts) - 1} more such warnings)" if len(self._texts) > 1 else ""
            warnings.warn(self._texts[0] + more, stacklevel=3)


class _Answers:
    """Predictions from the observed trajectories, each assimilated at its first use."""

    def __init__(self, surrogate: Surrogate, observations: dict[int, Observations], config: QueryConfig,
                 names: dict[str, list[str]]) -> None:
        self.surrogate, self.observations, self.config, self.names = surrogate, observations, config, names
        self._solutions: dict[int, Solution] = {}
        self._gathered = WarningCollector()
        self._assumed = False
        self.outside = self.beyond = 0  # numbers of points outside of the training domain, or its time span
        self.corners: list[np.ndarray] = []  # lowest and highest coordinates (2, d) of each block

    def columns(self, table: PointTable) -> dict[str, np.ndarray]:
        """Predicted columns of a block of points. Raises UserError for points of an unobserved trajectory."""
        about, extent = self.surrogate.description, self.surrogate.extent
        self.corners.append(np.stack([table.x.min(0), table.x.max(0)]))
        numbers = table.trajectory
        if "trajectory" not in table.columns:
            numbers = np.full(len(table), min(self.observations))
            self._assumed = len(self.observations) > 1
        self._require(np.unique(numbers))
        result: dict[str, np.ndarray] = {}
        for number in np.unique(numbers).tolist():
            rows = numbers == number
            asked = {"std": self.config.std, "derivatives": self.config.derivatives}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # points outside: warned once, for all blocks
                    solution = self._solution(number)
                    answer = solution.rows(table.t[rows], table.x[rows], **asked)
            except UserError:
                self.warn()  # problems of the observations may be the cause
                raise
            outside = extent.outside(table.x[rows])
            beyond = extent.beyond(table.t[rows], *solution.observed)
            self.outside, self.beyond = self.outside + int(outside.sum()), self.beyond + int(beyond.sum())
            result.setdefault(FLAG, np.zeros(len(table), np.int8))[rows] = outside | beyond
            for c, channel in enumerate(about.channels):
                values = [answer["mean"][..., c]]
                if self.config.std:
                    values.append(answer["std"][..., c])
                if self.config.derivatives:
                    values += [*np.moveaxis(answer["dx"][..., c, :], -1, 0)] * bool(about.places)
                    values.append(answer["dt"][..., c])
                for name, value in zip(self.names[channel], values, strict=True):
                    result.setdefault(name, np.empty(len(table), np.float32))[rows] = value
        flag = result.pop(FLAG)
        return {**result, FLAG: flag}  # the last column

    def _require(self, asked: np.ndarray) -> None:
        unknown = [number for number in asked.tolist() if number not in self.observations]
        if unknown:
            raise UserError(
                f"{self.config.points} has points of trajectory {_numbers(unknown)}, but {self.config.observations} "
                f"has observations of {_numbers(list(self.observations))} only; add observations or remove the points"
            )

    def _solution(self, number: int) -> Solution:
        if number not in self._solutions:
            with self._gathered.of(number):
                self._solutions[number] = self.surrogate.solution_of(self.observations[number])
        return self._solutions[number]

    def warn(self) -> None:
        """Warn once for each kind of problem, however many trajectories it concerns."""
        if self._assumed:
            warnings.warn(
                f"{self.config.points} has no column trajectory: its points are taken as those of trajectory "
                f"{min(self.observations)}, the first of {len(self.observations)} observed",
                stacklevel=2,
            )
        self._gathered.tell()
        off = {number: one.diverged for number, one in self._solutions.items() if one.diverged < math.inf}
        if off:
            first = min(off, key=lambda number: off[number])
            more = f" (and {len(off) - 1} more such trajectories)" if len(off) > 1 else ""
            warn_diverged(off[first], f"the forecast of trajectory {first}{more}")


def _names(about: Description, config: QueryConfig) -> dict[str, list[str]]:
    """Names, by channel, of the columns of answers: values, standard deviations and derivatives."""
    asked = ["", *["std"] * bool(config.std), *(about.derivatives if config.derivatives else [])]
    less = "ask for values without std=true and derivatives=true, or " * (FLAG not in about.channels)
    return about.answers(asked, f"{less}rename it in the data and train again", (FLAG,))


def _numbers(values: list[int], shown: int = 10) -> str:
    more = f" and {len(values) - shown} more" if len(values) > shown else ""
    return ", ".join(map(str, values[:shown])) + more
