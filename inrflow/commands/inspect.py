"""`inrflow inspect`: summary of a data file or a run directory."""

from __future__ import annotations

import glob
import io
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inrflow.commands.run_directory import EVALUATION_FILE, RunDirectory, damaged
from inrflow.config.resolve import resolve, settings_and_files
from inrflow.errors import UserError, missing
from inrflow.runtime.run_files import CANDIDATES_FILE
from inrflow.runtime.screen import screen, show
from inrflow.runtime.shown import trajectories, with_unit

if TYPE_CHECKING:
    from rich.console import Console

    from inrflow.config.schema import Config
    from inrflow.model.family import Family
    from inrflow.model.surrogate import Surrogate

_STAGES = 12  # stages of training with validation errors shown
_LINES = 15  # lines of an equation shown


def run(arguments: list[str]) -> int:
    """Describe one file, the files of a pattern, or a directory; key=value are options of reading, as for convert."""
    options, names = settings_and_files(arguments)
    if len(names) != 1:
        raise UserError(f"{len(names)} names are given; expected one FILE, a data file or a run directory, or a "
                        "pattern in quotes, as 'data_*.nc'")
    path = Path(names[0])
    if not path.exists() and not glob.has_magic(names[0]):
        raise UserError(missing(path))
    given: dict[str, Any] | None = None
    if options:
        from inrflow.config.schema import ConvertConfig

        read = asdict(resolve("convert", ConvertConfig, options))
        given = {key: value for key, value in read.items() if value not in (None, {}) and key != "overwrite"}
    from inrflow.data.formats.inspect import UNREAD, describe, is_store

    if path.is_dir() and not is_store(path):
        show_run(path)
        return 0
    rows = describe(path, given, options)
    show(rows, screen())
    return 2 if any(text.startswith(UNREAD) for _, text in rows) else 0


def show_run(directory: Path) -> None:
    """Print the contents of a run directory. Raises UserError if it is empty or damaged."""
    from inrflow.commands.report import show_candidates

    run, console = RunDirectory(directory), screen()
    reports = {name: run.json(name) for name in (CANDIDATES_FILE, EVALUATION_FILE)}
    if not run.begun and not run.finished and reports[EVALUATION_FILE] is None:
        from inrflow.commands.several.sweep import SWEEP_FILE

        if (directory / SWEEP_FILE).is_file():
            raise UserError(f"{directory} holds the runs of a sweep; give one of them, such as {directory / '0'}")
        from inrflow.data.formats.registry import pattern_in

        found = pattern_in(directory)
        hint = f", such as '{found}'" if found else ""
        raise UserError(f"{directory} holds neither a run nor an evaluation; give a run directory, or a data file or "
                        f"several by a pattern{hint}")
    parts: list[str] = []
    if run.begun or run.finished:
        parts.append(_printed(console, show, describe_run(run)))
    for name, write in ((CANDIDATES_FILE, show_candidates), (EVALUATION_FILE, _show_evaluation)):
        if reports[name] is None:
            continue
        try:
            parts.append(_printed(console, write, reports[name]))
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, IndexError) as error:
            raise UserError(f"{directory / name} is not in the format of this inrflow ({error!r}); remove it, or write "
                            "it again") from error
    console.file.write("\n".join(parts))


def describe_run(run: RunDirectory) -> list[tuple[str, object]]:
    """(label, text) rows on data and model of a run. Raises UserError if they cannot be read."""
    from inrflow.model.family import Family
    from inrflow.model.store import is_family
    from inrflow.model.surrogate import Surrogate

    directory = run.path
    size = sum(item.stat().st_size for item in directory.rglob("*") if item.is_file())
    state = "finished" if run.finished else f"unfinished; continue with: inrflow train resume={directory}"
    rows: list[tuple[str, object]] = [("run", f"{directory} ({size / 1e6:.3g} MB), {state}")]
    if run.begun:
        rows += _config_rows(run.config())
    if run.finished:
        try:
            rows += _family_rows(Family.load(directory)) if is_family(directory) else \
                _model_rows(Surrogate.load(directory))
        except (UserError, MemoryError):
            raise
        except Exception as error:  # damaged files raise all kinds of exceptions
            raise damaged(directory, error) from error
    return rows + _metrics_rows(run)


def _config_rows(config: Config) -> Iterable[tuple[str, object]]:
    data = config.data
    seen = [f"the first {data.frames} frames" if data.frames else "all frames"]
    seen.append(f"{100 * data.points:g} % of the points" if data.points < 1 else "all points")
    steps = ", ".join(f"{name} {count}" for name, count in vars(config.training.steps).items() if count is not None)
    return [
        ("trained on", f"{_names(data.train)}: {', '.join(seen)}"),
        ("tested on", _names(data.test) if data.test else "later frames of the training file, if there are any"),
        ("budget", f"{config.training.minutes:g} minutes, seed {config.seed}" + (f"; steps: {steps}" if steps else "")),
    ]


def _names(files: object) -> str:
    """Name of one file, or names of the files of several physics."""
    return files or "?" if isinstance(files, str | None) else ", ".join(map(str, files))  # type: ignore[call-overload]


def _model_rows(surrogate: Surrogate) -> Iterable[tuple[str, object]]:
    about, training = surrogate.description, surrogate.training
    units = about.units or ("",) * len(about.channels)
    channels = ", ".join(map(with_unit, about.channels, units))
    box = ", ".join(f"{name} {low:.4g} to {high:.4g}"
                    for name, low, high in zip(about.coordinates, *surrogate.box, strict=True))
    if about.geometry:
        box += f"; {about.geometry}"
    if about.period and any(about.period):
        box += f"; period {', '.join(f'{value:.4g}' for value in about.period)}"
    horizon = f"{surrogate.horizon:.4g} {about.duration_units}".rstrip()
    decoder = surrogate.decoder
    kind = type(decoder).__name__ + (", affine in the code" if decoder.affine else "")
    symmetries = ", ".join(training.get("symmetries") or []) or "none"
    origin = f" on the domain of {training['moved_from']}, before the law was moved" if "moved_from" in training else ""
    memory = f"{training.get('memory', 0)} memory dimensions"
    if surrogate.window > 1:
        memory += f" (forecasts need at least {surrogate.window} observed frames)"
    equation = list(training.get("equation") or ())
    if len(equation) > _LINES:
        equation = [*equation[:_LINES], f"... {len(equation) - _LINES} more lines"]
    return [
        ("system", f"{about.name}: channels {channels}"),
        ("domain", f"{box}; horizon {horizon}"),
        ("training data", f"{trajectories(training.get('trajectories', '?'))}{origin}; symmetries used: {symmetries}"),
        ("decoder", f"{kind}; code of {surrogate.code_size}; {surrogate.parameters:,} parameters with the dynamics"),
        ("dynamics", f"{training.get('dynamics', '?')}; {memory}; {surrogate.integrator.method}"),
        *(("equation" if i == 0 else "", line) for i, line in enumerate(equation)),
    ]


def _family_rows(family: Family) -> Iterable[tuple[str, object]]:
    """Rows on the shared terms, and on each physics."""
    rows: list[tuple[str, object]] = [("physics", ", ".join(family.names)), ("shared", family.about)]
    rows += [("", f"{form}: {', '.join(owners)}") for form, owners in family.forms.items() if len(owners) > 1][:_LINES]
    for name, one in family.members.items():
        rows.append((name, f"channels {', '.join(one.description.channels)}; code of {one.code_size}; "
                           f"{one.training['dynamics']}"))
        rows += [("", line) for line in (one.training.get("equation") or ())[:_LINES]]
    return rows


def _metrics_rows(run: RunDirectory) -> list[tuple[str, object]]:
    """Row of the validation error at the end of each stage."""
    ends = []
    for stage, steps in run.steps().items():
        measured = [row["validation"] for row in steps if isinstance(row.get("validation"), float)]
        if measured:
            ends.append(f"{stage} {measured[-1]:.2e}")
    more = f"{len(ends) - _STAGES} earlier stages, " if len(ends) > _STAGES else ""
    text = f"{more}{', '.join(ends[-_STAGES:])} (share of the variance, last of each stage)"
    return [("validation", text)] if ends else []


def _show_evaluation(report: dict[str, Any], console: Console) -> None:
    """Print errors, for a run on several physics those of each."""
    from inrflow.commands.report import show_errors

    for name, one in report["physics"].items() if "physics" in report else [("", report)]:
        show_errors(one, console, name)


def _printed(console: Console, write: Callable[[Any, Console], None], content: Any) -> str:
    """Text that `write` prints on a console like this one, so that nothing is shown of damaged files."""
    from rich.console import Console

    text = io.StringIO()
    like = {"width": console.width, "force_terminal": console.is_terminal, "no_color": console.no_color}
    write(content, Console(file=text, markup=False, **like))  # type: ignore[arg-type]
    return text.getvalue()

