"""`inrflow train --multirun seed=0,1,2`: a run for every combination of settings, and a table of their results."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inrflow.commands.run_directory import EVALUATION_FILE, RunDirectory, default_output
from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.config.sweeps import swept_settings
from inrflow.errors import INTERRUPTED, UserError
from inrflow.runtime.atomic_files import write_json
from inrflow.runtime.processes import Processes
from inrflow.runtime.safe_names import printable
from inrflow.runtime.screen import screen

SWEEP_FILE = "sweep.json"
_COLUMNS = {"in_t": "NMSE in-t", "out_t": "NMSE out-t"}


def run_sweep(arguments: Sequence[str], run: Callable[[list[str]], int], check: Callable[[Config], None]) -> int:
    """Train every combination of settings in folders `OUTPUT/0`, `OUTPUT/1`, ..., and write `OUTPUT/sweep.json`.

    Finished runs are not repeated: an interrupted sweep continues with the same command and output. A run that fails is
    reported, and the others continue. Raises UserError if a combination is invalid, before any is trained.

    The processes of a job share the combinations, each run by one process; the first writes the table.

    Args:
        run, check: functions of `inrflow train`.
    """
    processes = Processes.of()
    with processes.joined():
        return _run_sweep(arguments, run, check, processes)


def _run_sweep(
    arguments: Sequence[str], run: Callable[[list[str]], int], check: Callable[[Config], None], processes: Processes
) -> int:
    outputs = [item.partition("=")[2] for item in arguments if item.startswith("output=")]
    axes = swept_settings(arguments)
    base = Path(processes.agreed(outputs[-1] if outputs else str(default_output("train"))))
    swept = [index for index, axis in enumerate(axes) if len(axis) > 1]
    combinations = list(itertools.product(*axes))
    for combination in combinations:
        config: Config = resolve("train", Config, list(combination))
        if config.resume:
            raise UserError("resume= continues a single run; continue a sweep by its own command and output=DIR")
        check(config)
    console, worst = Console(stderr=True, markup=False), 0
    rows: dict[int, dict[str, Any]] = {}
    for index, combination in list(enumerate(combinations))[processes.rank :: processes.size]:
        label = ", ".join(combination[axis] for axis in swept) or "as given"
        folder = base / str(index)
        console.print(f"run {index} of {len(combinations)}: {printable(label)}", style="bold", highlight=False)
        place = RunDirectory(folder)
        code, problem = 0, None
        if not (place.finished and (folder / EVALUATION_FILE).exists()):
            try:
                code = run([f"resume={folder}"] if place.begun else [*combination, f"output={folder}"])
            except UserError as error:
                code, problem = 2, str(error)
                console.print(f"run {index} failed: {printable(problem)}", highlight=False, soft_wrap=True)
        if code == INTERRUPTED:
            console.print(f"stopped; continue with the same command and output={base}", highlight=False)
            return code
        worst = max(worst, code)
        rows[index] = {"run": str(folder), "settings": [combination[axis] for axis in swept], "error": problem,
                       **_results(place)}
        if processes.first:
            write_json(base / SWEEP_FILE, {"runs": list(rows.values())})
    parts = processes.gathered((worst, rows))
    if processes.first:
        every = {index: row for _, part in parts for index, row in part.items()}
        ordered = [every[index] for index in sorted(every)]
        write_json(base / SWEEP_FILE, {"runs": ordered})
        _show(ordered, screen())
        console.print(f"results are in {base / SWEEP_FILE}", highlight=False)
    return max(worst for worst, _ in parts)


def _results(place: RunDirectory) -> dict[str, Any]:
    """Errors and coverage from a run's evaluation; None if missing."""
    report = place.json(EVALUATION_FILE) or {}
    errors = report.get("nmse", {})
    return {key: errors.get(key) for key in _COLUMNS} | {"coverage_90": report.get("coverage_90")}


def _show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a row for each run."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "settings", *_COLUMNS.values(), "90 % intervals hold"):
        table.add_column(name, overflow="fold")
    for row in rows:
        numbers = [f"{row[key]:.3g}" if isinstance(row[key], float) else "-" for key in _COLUMNS]
        held = f"{row['coverage_90']:.1%}" if isinstance(row["coverage_90"], float) else "-"
        words = (row["run"], ", ".join(row["settings"]), *numbers, held if row["error"] is None else row["error"])
        table.add_row(*(Text(printable(word)) for word in words))
    console.print(table, highlight=False)
