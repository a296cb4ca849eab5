"""`inrflow evaluate`: errors of a trained run on a test file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from inrflow.commands.run_directory import REFERENCES_FILE, default_output, report_evaluation
from inrflow.commands.runs import load_run
from inrflow.config.resolve import resolve
from inrflow.config.schema import EvaluateConfig
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe
from inrflow.evaluation.references.registry import References


def run(arguments: list[str]) -> int:
    """Evaluate and report."""
    config: EvaluateConfig = resolve("evaluate", EvaluateConfig, arguments)
    surrogate = load_run(config.run, config.device, config.physics, config.data.test)
    test = config.data.test or surrogate.training.get("test")
    if test is None:
        raise UserError(
            f"{config.run} was trained without a test file; give data.test=FILE with trajectories of the same system"
        )
    references_path = Path(str(config.run)) / REFERENCES_FILE
    references = References.load(references_path) if references_path.exists() else None
    directory = Path(config.output or default_output("evaluate"))
    console = Console(stderr=True)
    observe = Observe(config.observe.frames, config.observe.points, config.observe.noise, config.observe.context)
    report_evaluation(surrogate, Path(test), observe, directory, console, references)
    return 0
