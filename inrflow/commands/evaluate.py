"""`inrflow evaluate`: errors of a trained run on a test file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from inrflow.commands.run_directory import (
    RunDirectory,
    as_trajectories,
    default_output,
    load_run,
    report_evaluation,
    to_data_domain,
)
from inrflow.config.resolve import resolve
from inrflow.config.schema import EvaluateConfig
from inrflow.errors import UserError


def run(arguments: list[str]) -> int:
    """Evaluate a run, and report."""
    config: EvaluateConfig = resolve("evaluate", EvaluateConfig, arguments)
    from inrflow.evaluation.observe import Observe

    surrogate = load_run(str(config.run), config.device, config.physics, config.data.test)
    test = config.data.test or surrogate.training.get("test")
    if test is None:
        raise UserError(
            f"{config.run} was trained without a test file; give data.test=FILE with trajectories of the same system"
        )
    directory = Path(config.output or default_output("evaluate"))
    console = Console(stderr=True, markup=False)
    read = RunDirectory(Path(str(config.run))).read_settings()
    test = as_trajectories(test, "data.test", directory, console, read, units=surrogate.description.time_units)
    surrogate = to_data_domain(surrogate, Path(test), console)
    observe = Observe(config.observe.frames, config.observe.points, config.observe.noise, config.observe.context)
    references = RunDirectory(Path(str(config.run))).references(surrogate.description.name)
    report_evaluation(surrogate, Path(test), observe, directory, console, references)
    return 0
