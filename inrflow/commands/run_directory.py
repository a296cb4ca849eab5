"""Run directories: names, reading and writing of their files, and folders for new ones; data files of any format
as trajectory files.

Importing this module is fast: torch is imported only with a model.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inrflow.errors import UserError
from inrflow.runtime.run_files import METRICS_FILE, MODEL_FILE, WARNINGS_FILE
from inrflow.runtime.safe_names import safe_name

if TYPE_CHECKING:
    from rich.console import Console

    from inrflow.config.schema import AdaptDataConfig, Config
    from inrflow.config.train_schema import ReadConfig
    from inrflow.evaluation.observe import Observe
    from inrflow.evaluation.references.base import References
    from inrflow.model.surrogate import Surrogate
    from inrflow.training.problem import Problem

CONFIG_FILE = "config.yaml"
ADAPT_FILE = "adapt.yaml"
EVALUATION_FILE = "evaluation.json"
REFERENCES_FILE = "references.safetensors"
DATA_FOLDER = "data"  # folder of converted files
_OPTION = re.compile(r"(?<![\w.])(?=(channels|coordinates|time|trajectory|stations|select\.\w+|period)=)")  # of convert


@dataclass(frozen=True)
class RunDirectory:
    """Folder written by `inrflow train`, `inrflow update` or `inrflow adapt`."""

    path: Path

    @classmethod
    def new(cls, output: str | None, command: str) -> RunDirectory:
        """The folder `output`, or a new one of the command. Raises UserError if it already holds a run."""
        run = cls(Path(output or default_output(command)))
        run._require_new()
        return run

    def _require_new(self) -> None:
        if self.begun:
            goes_on = "" if (self.path / ADAPT_FILE).exists() else f", or continue it with inrflow train " \
                f"resume={self.path}"
            raise UserError(f"{self.path} holds a run already; choose another output=DIR{goes_on}")

    @contextmanager
    def held(self, again: bool = False) -> Iterator[None]:
        """Context manager that locks the folder against other processes. Raises UserError as `locked_folder`, and if it
        holds a run, unless that is to be written `again`."""
        from inrflow.runtime.atomic_files import locked_folder

        with locked_folder(self.path):
            if not again:
                self._require_new()
            yield

    @property
    def begun(self) -> bool:
        """Whether a training was started here."""
        return (self.path / CONFIG_FILE).exists()

    @property
    def finished(self) -> bool:
        """Whether the folder holds a model."""
        return (self.path / MODEL_FILE).exists()

    def config(self) -> Config:
        """Configuration of the training. Raises UserError if it is missing or cannot be read."""
        from inrflow.config.resolve import from_yaml
        from inrflow.config.schema import Config

        return from_yaml(self.path / CONFIG_FILE, Config)

    def read_settings(self) -> ReadConfig:
        """Options with which the files of the run were read; defaults without a configuration."""
        from inrflow.config.train_schema import ReadConfig

        return self.config().data.read if self.begun else ReadConfig()

    def write_config(self, config: Any, name: str = CONFIG_FILE) -> None:
        """Write a configuration atomically, after the warnings about the data."""
        from inrflow.config.resolve import to_yaml
        from inrflow.runtime.atomic_files import write_json, write_text

        if told := getattr(warnings.showwarning, "about", None):  # set by the command line
            write_json(self.path / WARNINGS_FILE, {"warnings": sorted(told)})
        write_text(self.path / name, to_yaml(config))

    def finish(self) -> None:
        """Remove the states of training loops (also of several physics), which only an interrupted run needs."""
        for folder in (self.path, *(self.path / "checkpoints").glob("*/")):
            for state in (folder / "checkpoints").glob("*.safetensors"):
                state.unlink(missing_ok=True)
            with suppress(OSError):  # kept if it holds models of several physics
                (folder / "checkpoints").rmdir()

    def references_file(self, physics: str | None = None) -> Path:
        """File of the reference forecasts; for a run on several physics, of the one named."""
        own = self.path / safe_name(physics) / REFERENCES_FILE if physics else None
        return own if own is not None and own.exists() else self.path / REFERENCES_FILE

    def references(self, physics: str | None = None) -> References | None:
        """Reference forecasts, if any were fitted; updated runs fit them here, on demand. Raises UserError if the file
        is damaged."""
        from inrflow.evaluation.references.base import References

        path = self.references_file(physics)
        if path.exists():
            return References.load(path)
        config = self.config() if self.begun else None
        if config is None or not config.continues or not Path(str(config.data.train)).exists():
            return None
        from inrflow.data.formats.trajectory_file import TrajectoryFile
        from inrflow.training.problem import Problem

        with TrajectoryFile(str(config.data.train)) as file:
            return fit_references_of_problem(Problem.of(config, file))

    def json(self, name: str) -> dict[str, Any] | None:
        """Content of a JSON file of the run; None if missing. Raises UserError if it is no JSON object."""
        from inrflow.runtime.atomic_files import read_json

        return read_json(self.path / name)

    def steps(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of metrics.jsonl, see `read_steps`; empty if it is missing."""
        path = self.path / METRICS_FILE
        return read_steps(path) if path.exists() else {}


def read_steps(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of a metrics.jsonl by stage and in order of steps.

    The last of repeated rows of a step counts; truncated and invalid lines are ignored.
    """
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("stage"), str) and isinstance(row.get("step"), int):
            stages.setdefault(row["stage"], {})[row["step"]] = row
    return {stage: [rows[step] for step in sorted(rows)] for stage, rows in stages.items()}


def several(train: object) -> list[str] | None:
    """Files of data.train if it is a list; None for one file or none.

    Raises UserError for a list of fewer than two files.
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


def load_run(run: str, device: str = "auto", physics: str | None = None, data: str | None = None) -> Surrogate:
    """Surrogate of a run directory, with its decoder on the device.

    For several physics it is the one named, or the one that a `data` file belongs to. Raises UserError if the directory
    holds no run or a damaged one, or the physics is unknown.
    """
    from inrflow.data.formats.schema import open_hdf5, read_description
    from inrflow.model.family import Family
    from inrflow.model.store import is_family
    from inrflow.model.surrogate import Surrogate

    try:
        if physics is not None or data is None or not is_family(run):
            return Surrogate.load(run, device, physics)
        family = Family.load(run)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # damaged files raise all kinds of exceptions
        raise damaged(run, error) from error
    if Path(data).suffix.lower() not in (".h5", ".hdf5"):
        raise UserError(f"{data} does not name its physics; give physics=NAME, one of "
                        f"{', '.join(family.names)}")
    with open_hdf5(Path(data)) as file:
        return family.surrogate(family.find(read_description(file, Path(data))))


def damaged(run: str | Path, error: Exception) -> UserError:
    """UserError for a model file that cannot be loaded."""
    why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return UserError(f"{Path(run) / MODEL_FILE} is damaged or of another version ({why}); restore it, or train again")


def to_data_domain(surrogate: Surrogate, path: Path, console: Console) -> Surrogate:
    """The surrogate or, if the domain of a file differs, its law moved to that domain, which is printed; unchanged if
    shapes differ between trajectories.

    Raises UserError if the domain differs and the surrogate is no law, or if the file is of another system.
    """
    from inrflow.data.formats.trajectory_file import TrajectoryFile
    from inrflow.evaluation.evaluate import require_channels
    from inrflow.evaluation.place import elsewhere_of, shapes_of

    with TrajectoryFile(path, check=False) as file:
        require_channels(surrogate, file, "a file of the same system")
        if surrogate.decoder.place is not None and len(shapes_of(file)) > 1:
            return surrogate
        why = elsewhere_of(surrogate, file)
        if why is None:
            return surrogate
        from inrflow.evaluation.new_domain import Place, moved  # finite elements take a second to import

        there = moved(surrogate, Place.of(file))
    print_domain_change(surrogate, there, console, f"{path} lies on another domain ({why})")
    return there


def print_domain_change(surrogate: Surrogate, there: Surrogate, console: Console, why: str) -> None:
    """Print that a law was moved to another domain."""
    channels, place = len(surrogate.description.channels), there.extent.domain
    console.print(f"{why}: the law is moved from {surrogate.code_size // channels} harmonics to "
                  f"{there.code_size // channels} of the new {place.kind if place is not None else 'domain'}",
                  highlight=False, soft_wrap=True)


def fit_references_of_problem(problem: Problem, path: Path | None = None) -> References:
    """Reference forecasts fitted to the data of a training, and written to a file, if one is given."""
    from inrflow.evaluation.references.base import fit_references

    source, held_out = problem.observed, len(problem.validation) > 0
    references = fit_references(source.batch(problem.train, normalised=False),
                                source.batch(problem.validation, normalised=False) if held_out else None,
                                problem.file.description)
    if path is not None:
        references.save(path)
    return references


def copy_references(source: Path, target: Path) -> None:
    """Copy the reference forecasts of a run, if it has any, to a run derived from it."""
    from inrflow.runtime.atomic_files import replaced_atomically

    if source.exists():
        with replaced_atomically(target) as path:
            shutil.copyfile(source, path)


def report_evaluation(
    surrogate: Surrogate, path: Path, observe: Observe, directory: Path, console: Console,
    references: References | None, seen: bool = False, limit: float = math.inf,
    held_out: float | None = None
) -> dict[str, Any]:
    """Report of an evaluation on a file, which is written with figures into the directory, and printed as a table.

    seen: whether the model was trained on these data, as noted in the report. limit: in seconds, see `evaluate`.
    held_out: error of forecasts of data that were held out, before the last fit, relative to the variance, which is
    reported beside those of `seen` data."""
    from inrflow.commands.report import draw, show_errors
    from inrflow.data.formats.trajectory_file import TrajectoryFile
    from inrflow.evaluation.evaluate import evaluate
    from inrflow.runtime.atomic_files import write_json
    from inrflow.runtime.screen import screen

    with TrajectoryFile(path) as file:
        count, size = file.trajectories, surrogate.field.state_size
        words = f"forecast errors, with standard deviations of {size} state dimensions: {{}} of {count} trajectories"
        with console.status(words.format(0)) as status:
            evaluation = evaluate(surrogate, file, observe, references, limit=limit,
                                  progress=lambda done: status.update(words.format(done)))
        done = evaluation.report["trajectories"]
        triangles = file.cells_of(0)
    evaluation.report["in_sample"] = seen
    if held_out:
        evaluation.report["held_out"] = {"nmse": {"in_t": held_out}}
    write_json(directory / EVALUATION_FILE, evaluation.report)
    draw(directory, surrogate, evaluation, triangles)
    show_errors(evaluation.report, screen())
    if done < count:
        console.print(f"errors are those of {done} of {count} trajectories, for lack of time; inrflow evaluate takes "
                      "all", highlight=False, soft_wrap=True)
    console.print(f"report and plots are in {directory}", highlight=False)
    return evaluation.report


def as_trajectories(given: str, role: str, output: Path, console: Console, read: ReadConfig | None = None,
                    kept: bool = False, units: str | None = None) -> str:
    """Path of a trajectory file with the content of a file, folder or pattern of any readable format.

    given: name given by the user. role: setting that contains it (data.train), for messages and for the name of the
    converted file, OUTPUT/data/ROLE.h5. kept: whether to reuse a converted file that is newer than its sources. units:
    time units of the result, such as those of a run.
    Raises UserError if it cannot be read or understood.
    """
    from inrflow.config.resolve import given_settings
    from inrflow.config.train_schema import ReadConfig
    from inrflow.data.formats.convert import convert, count_times_as
    from inrflow.data.formats.registry import expanded, format_of
    from inrflow.data.formats.schema import in_schema
    from inrflow.data.formats.trajectory_file import name_origin
    from inrflow.runtime.atomic_files import make_folder

    if not given or (not Path(given).exists() and not set(given) & set("*?[")):
        return given  # refused, with a message, when it is opened
    paths = [Path(given)] if Path(given).exists() else expanded(given)
    if len(paths) == 1 and in_schema(paths[0]):
        return str(paths[0])
    kind = format_of(paths[0])
    target = output / DATA_FOLDER / f"{role.replace('.', '_')}.h5"
    if kept and target.exists() and target.stat().st_mtime > max(path.stat().st_mtime for path in paths):
        return str(target)
    make_folder(target.parent)
    options = given_settings(read or ReadConfig())
    if "name" not in options and len(paths) > 1:
        part = next((part for part in Path(given).parts[:0:-1] + (given,) if set(part) & set("*?[")), given)
        options["name"] = re.split(r"[*?[]", part)[0].rstrip("_-. ") or Path(given).parent.name or "data"
    try:
        with console.status(f"reading {given}"):
            convert(paths, target, overwrite=True, **options)
            if units is not None:
                count_times_as(target, units)
            name_origin(target, given)
    except UserError as error:
        for folder in (target.parent, output):
            with suppress(OSError):  # not empty
                folder.rmdir()
        raise UserError(f"{role}: {_OPTION.sub('data.read.', str(error))}") from error
    files = f"{len(paths)} files of {kind.name}" if len(paths) > 1 else kind.name
    console.print(f"{role}={given} is {files}; its trajectories are now in {target}", highlight=False, soft_wrap=True)
    return str(target)


def convert_data_files(data: AdaptDataConfig, output: Path, console: Console, read: ReadConfig, units: str | None = None
                       ) -> None:
    """Replace training and test files in a configuration by trajectory files with the same content."""
    for key in ("train", "test"):
        given = getattr(data, key)
        if given:
            setattr(data, key, as_trajectories(str(given), f"data.{key}", output, console, read, units=units))
