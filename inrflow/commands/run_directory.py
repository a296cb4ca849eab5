"""Run directories: where a command writes, which files it holds, and how a run is loaded."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.console import Console

from inrflow.commands.report import show_errors
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe, evaluate
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.tensor_files import write_json

REFERENCES_FILE = "references.safetensors"


def several(train: object) -> list[str] | None:
    """The files of data.train where it is a list of several; None for one file or none.

    Raises UserError for a list of fewer than two.
    """
    if train is None or isinstance(train, str):
        return None
    names = [str(name) for name in train]  # type: ignore[attr-defined]
    if len(names) < 2:
        raise UserError(f"data.train is a list of {len(names)}; give one file, or a list of two or more")
    return names


def default_output(command: str) -> Path:
    """outputs/<command>/<date-time>, a folder that does not exist yet."""
    base = Path("outputs") / command / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    folder, number = base, 1
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def report_evaluation(
    surrogate: Surrogate, path: Path, observe: Observe, directory: Path, console: Console, references
) -> None:  # noqa: ANN001
    """Evaluate on a file; evaluation.json, plots and a table."""
    from inrflow.commands.pictures import draw

    with TrajectoryFile(path) as file:
        evaluation = evaluate(surrogate, file, observe, references)
        triangles = file.read_extra("triangles") if "triangles" in file.extra else None
    write_json(directory / "evaluation.json", evaluation.report)
    draw(directory, surrogate, evaluation, triangles)
    show_errors(evaluation.report, Console(width=None if console.is_terminal else 140))
    console.print(f"report and plots are in {directory}", highlight=False)
