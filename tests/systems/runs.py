"""Training runs for tests: a problem on a file, with a quiet log, and a whole training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.model.surrogate import Surrogate
from inrflow.training.problem import Problem
from inrflow.training.recorder import Recorder
from inrflow.training.run import Run
from inrflow.training.train import start_run, train


@contextmanager
def run_on(path: Path, folder: Path, *overrides: str, said: list[str] | None = None, **options: Any) -> Iterator[Run]:
    """A run on a file with these settings; `said` collects what its log says."""
    config: Config = resolve("train", Config, [f"data.train={path}", *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    with TrajectoryFile(path) as file, Recorder(folder, Console(quiet=True)) as log:
        if said is not None:
            log.say = said.append  # type: ignore[method-assign]
        yield start_run(Problem.of(config, file), log, **options)


def trained_on(path: Path, folder: Path, *overrides: str, said: list[str] | None = None) -> Surrogate:
    """The surrogate of a whole training."""
    with run_on(path, folder, *overrides, said=said) as run:
        return train(run)
