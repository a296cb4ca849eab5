"""`inrflow inspect`: what is in a data file or a run directory, in a screenful."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inrflow.commands.report import show_errors
from inrflow.config.resolve import from_yaml
from inrflow.config.schema import Config
from inrflow.data.formats.inspect import describe
from inrflow.errors import UserError
from inrflow.model.family import Family, is_family
from inrflow.model.store import MODEL_FILE
from inrflow.model.surrogate import Surrogate
from inrflow.plotting import read_steps


def run(arguments: list[str]) -> int:
    """Describe one file or directory."""
    if len(arguments) != 1:
        raise UserError(f"{len(arguments)} names are given; expected one FILE, a data file or a run directory")
    path, console = Path(arguments[0]), Console()
    if not path.is_dir():
        show(describe(path), console)
        return 0
    report = _evaluation(path)
    if (path / "config.yaml").exists() or (path / MODEL_FILE).exists():
        show(describe_run(path), console)
    elif report is None:
        raise UserError(f"{path} holds neither a run nor an evaluation; give a data file or a folder of inrflow train")
    if report is not None:
        try:
            show_errors(report, console)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path / 'evaluation.json'} is not a report of this inrflow; evaluate again") from error
    return 0


def show(rows: Sequence[tuple[str, str]], console: Console) -> None:
    """Print labelled rows."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False, markup=False)


def describe_run(directory: Path) -> list[tuple[str, str]]:
    """(label, text) rows that describe a run directory. Raises UserError where it cannot be read."""
    size = sum(item.stat().st_size for item in directory.rglob("*") if item.is_file())
    rows = [("run", f"{directory} ({size / 1e6:.3g} MB)")]
    finished = (directory / MODEL_FILE).exists()
    rows.append(("state", "finished" if finished else
                 f"unfinished; continue with: inrflow train resume={directory}"))
    if (directory / "config.yaml").exists():
        rows += _config_rows(from_yaml(directory / "config.yaml", Config))
    if finished:
        if is_family(directory):
            rows += _family_rows(Family.load(directory))
        else:
            rows += _model_rows(Surrogate.load(directory))
    if (directory / "metrics.jsonl").exists():
        rows += _metrics_rows(directory / "metrics.jsonl")
    return rows


def _config_rows(config: Config) -> list[tuple[str, str]]:
    data = config.data
    seen = [f"the first {data.frames} frames" if data.frames else "all frames"]
    seen.append(f"{100 * data.points:g} % of the points" if data.points < 1 else "all points")
    steps = ", ".join(f"{name} {count}" for name, count in vars(config.training.steps).items() if count is not None)
    return [
        ("trained on", f"{data.train}: {', '.join(seen)}"),
        ("tested on", data.test or "later frames of the training file, if there are any"),
        ("budget", f"{config.training.minutes:g} minutes, seed {config.seed}" + (f"; steps: {steps}" if steps else "")),
    ]


def _model_rows(surrogate: Surrogate) -> list[tuple[str, str]]:
    about, training = surrogate.description, surrogate.training
    units = about.units or ("",) * len(about.channels)
    channels = ", ".join(f"{name} [{unit}]" if unit else name for name, unit in zip(about.channels, units, strict=True))
    box = ", ".join(f"{name} {low:.4g} to {high:.4g}"
                    for name, low, high in zip(about.coordinates, *surrogate.box, strict=True))
    if about.geometry:
        box += f"; {about.geometry}"
    if about.period and any(about.period):
        box += f"; period {', '.join(f'{value:.4g}' for value in about.period)}"
    horizon = f"{surrogate.horizon:.4g}" + (f" {about.time_units}" if about.time_units else "")
    decoder = surrogate.decoder
    kind = type(decoder).__name__ + (", affine in the code" if decoder.affine else "")
    symmetries = ", ".join(training.get("symmetries") or []) or "none"
    memory = f"{training.get('memory', 0)} memory dimensions"
    if surrogate.window > 1:
        memory += f" (forecasts need at least {surrogate.window} observed frames)"
    return [
        ("system", f"{about.name}: channels {channels}"),
        ("domain", f"{box}; horizon {horizon}"),
        ("training data", f"{training.get('trajectories', '?')} trajectories; symmetries used: {symmetries}"),
        ("decoder", f"{kind}; code of {surrogate.code_size}"),
        ("dynamics", f"{training.get('dynamics', '?')}; {memory}; {surrogate.integrator.method}"),
        *(("equation" if i == 0 else "", line) for i, line in enumerate(training.get("equation") or ())),
        ("parameters", f"{surrogate.parameters:,}"),
    ]


def _family_rows(family: Family) -> list[tuple[str, str]]:
    """What is shared, and a row for each physics."""
    rows = [("physics", ", ".join(family.names)), ("shared dynamics", family.about)]
    lost = family.lost
    for name, one in family.members.items():
        rows.append((name, f"channels {', '.join(one.description.channels)}; code of {one.code_size}; "
                           f"{one.training['dynamics']}; {lost[name]:.1g} of its dynamics not spanned"))
    return rows


def _metrics_rows(path: Path) -> list[tuple[str, str]]:
    """What held-out data said at the end of each stage."""
    ends = []
    for stage, steps in read_steps(path).items():
        measured = [row for row in steps if isinstance(row.get("validation"), int | float)]
        if measured:
            ends.append(f"{stage} {measured[-1]['validation']:.2e}")
    return [("validation", ", ".join(ends) + " (share of the variance, last of each stage)")] if ends else []


def _evaluation(directory: Path) -> dict[str, Any] | None:
    path = directory / "evaluation.json"
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); evaluate again") from error
    if not isinstance(report, dict):
        raise UserError(f"{path} is not a report of inrflow; evaluate again")
    return report
