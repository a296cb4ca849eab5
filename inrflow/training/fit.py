"""`fit`: training from Python."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from inrflow.model.surrogate import Surrogate
from inrflow.runtime.atomic_files import held_folder
from inrflow.training.problem import Problem
from inrflow.training.recipes.base import Recipe
from inrflow.training.recorder import Recorder
from inrflow.training.train import start_run, train


def fit(
    problem: Problem, recipes: Sequence[Recipe] | None = None, directory: str | Path | None = None, quiet: bool = False
) -> Surrogate:
    """The surrogate of the best candidate of all recipes that apply.

    Args:
        problem: see `Problem.open`.
        recipes: in the order in which they are tried, from the special to the general; by default those of the
            configuration.
        directory: of candidates.json, metrics.jsonl and checkpoints, from which a stopped run goes on; by default they
            are not kept.
        quiet: print nothing.
    Raises:
        UserError: where no recipe applies or none finds a model.
    """
    console = Console(stderr=True, quiet=quiet)
    if directory is None:
        with tempfile.TemporaryDirectory() as scratch, Recorder(Path(scratch), console, problem.config) as log:
            return train(start_run(problem, log), recipes)
    with held_folder(directory) as folder, Recorder(folder, console, problem.config) as log:
        return train(start_run(problem, log), recipes)
