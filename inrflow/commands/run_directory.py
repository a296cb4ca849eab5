"""A run on disk: the names of its files, how they are read and written, and where new ones go; data files of any format
as trajectory files.

This module is light: torch is imported when a model is.
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
TOLD_FILE = "warnings.json"
ADAPT_FILE = "adapt.yaml"
MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
CANDIDATES_FILE = "candidates.json"
REFERENCES_FILE = "references.safetensors"
DATA_FOLDER = "data"  # of converted files, in the output
_OPTION = re.compile(r"(?<![\w.])(?=(channels|coordinates|time|trajectory|stations|select\.\w+|period)=)")  # of convert


@dataclass(frozen=True)
class RunDirectory:
    """A folder that `inrflow train` or `inrflow adapt` writes."""

    path: Path

    @classmethod
    def new(cls, output: str | None, command: str) -> RunDirectory:
        """The folder `output`, or a new one of the command. Raises UserError where it holds a run already."""
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
        """Keep the folder from other processes. Raises UserError as `held_folder`, and where it holds a run that is
        not to be written `again`."""
        from inrflow.runtime.atomic_files import held_folder

        with held_folder(self.path):
            if not again:
                self._require_new()
            yield

    @property
    def begun(self) -> bool:
        """Whether a training was started here."""
        return (self.path / CONFIG_FILE).exists()

    @property
    def finished(self) -> bool:
        """Whether it holds a model."""
        return (self.path / MODEL_FILE).exists()

    def config(self) -> Config:
        """The configuration it was trained with. Raises UserError where there is none that can be read."""
        from inrflow.config.resolve import from_yaml
        from inrflow.config.schema import Config

        return from_yaml(self.path / CONFIG_FILE, Config)

    def read_settings(self) -> ReadConfig:
        """How the files of the run were read; as they say where it has no configuration."""
        from inrflow.config.train_schema import ReadConfig

        return self.config().data.read if self.begun else ReadConfig()

    def write_config(self, config: Any, name: str = CONFIG_FILE) -> None:
        """Write a configuration atomically, and before it what was told of the data."""
        from inrflow.config.resolve import to_yaml
        from inrflow.runtime.atomic_files import write_json, write_text

        if told := getattr(warnings.showwarning, "about", None):  # of the command line
            write_json(self.path / TOLD_FILE, {"warnings": sorted(told)})
        write_text(self.path / name, to_yaml(config))

    def finish(self) -> None:
        """Remove what only a stopped run needs, the states of its training loops; those of several physics, too."""
        for folder in (self.path, *(self.path / "checkpoints").glob("*/")):
            for state in (folder / "checkpoints").glob("*.safetensors"):
                state.unlink(missing_ok=True)
            with suppress(OSError):  # physics keep their models there, and some runs nothing
                (folder / "checkpoints").rmdir()

    def references_file(self, physics: str | None = None) -> Path:
        """The file of the reference forecasts: of a run on several physics, those of the one named."""
        own = self.path / safe_name(physics) / REFERENCES_FILE if physics else None
        return own if own is not None and own.exists() else self.path / REFERENCES_FILE

    def references(self, physics: str | None = None) -> References | None:
        """The reference forecasts, if any were fitted; updates leave that to those who ask for them. Raises UserError
        where the file is damaged."""
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
            return fit_problem_references(Problem.of(config, file))

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run; None without it. Raises UserError where it holds something else."""
        from inrflow.runtime.atomic_files import read_json

        return read_json(self.path / name)

    def steps(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of metrics.jsonl, see `read_steps`; none without the file."""
        path = self.path / METRICS_FILE
        return read_steps(path) if path.exists() else {}


def read_steps(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of a metrics.jsonl by stage and in order of steps.

    Of two rows of a step the later counts; lines that were cut or are no rows are ignored.
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


def require_run(run: str) -> None:
    """Raise UserError where there is no such run directory."""
    if not Path(run).exists():
        raise UserError(f"run directory {run} does not exist; give one that inrflow train has written")


def load_run(run: str, device: str = "auto", physics: str | None = None, data: str | None = None) -> Surrogate:
    """The surrogate of a run directory, its decoder on the device.

    Of several physics it is the one named, or the one that a `data` file belongs to. Raises UserError where the
    directory holds no run or a damaged one, or the physics is not known.
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
    except Exception as error:  # a damaged file fails in as many ways as there are numbers in it
        raise damaged(run, error) from error
    if Path(data).suffix.lower() not in (".h5", ".hdf5"):
        raise UserError(f"{data} does not say to which physics it belongs; give physics=NAME, one of "
                        f"{', '.join(family.names)}")
    with open_hdf5(Path(data)) as file:
        return family.surrogate(family.find(read_description(file, Path(data))))


def damaged(run: str | Path, error: Exception) -> UserError:
    """What to say of a model file that cannot be loaded."""
    why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return UserError(f"{Path(run) / MODEL_FILE} is damaged or of another version ({why}); restore it, or train again")


def at_home(surrogate: Surrogate, path: Path, console: Console) -> Surrogate:
    """The surrogate, or its law moved to the domain of a file where that is another one, which is printed; as it is
    where trajectories have shapes of their own.

    Raises UserError where it is, and the surrogate is no law, or where the file is of another system.
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
    tell_moved(surrogate, there, console, f"{path} lies on another domain ({why})")
    return there


def tell_moved(surrogate: Surrogate, there: Surrogate, console: Console, why: str) -> None:
    """Print where a law has moved."""
    channels, place = len(surrogate.description.channels), there.extent.domain
    console.print(f"{why}: the law moves to {there.code_size // channels} harmonics of that "
                  f"{place.kind if place is not None else 'domain'}, from {surrogate.code_size // channels}",
                  highlight=False, soft_wrap=True)


def fit_problem_references(problem: Problem, path: Path | None = None) -> References:
    """The reference forecasts fitted to the data of a training, and written to a file, if one is given."""
    from inrflow.evaluation.references.base import fit_references

    source, held_out = problem.observed, len(problem.validation) > 0
    references = fit_references(source.batch(problem.train, normalised=False),
                                source.batch(problem.validation, normalised=False) if held_out else None,
                                problem.file.description)
    if path is not None:
        references.save(path)
    return references


def keep_references(source: Path, target: Path) -> None:
    """Copy the reference forecasts of a run that another one goes on from; nothing where it has none."""
    from inrflow.runtime.atomic_files import written_aside

    if source.exists():
        with written_aside(target) as path:
            shutil.copyfile(source, path)


def report_evaluation(
    surrogate: Surrogate, path: Path, observe: Observe, directory: Path, console: Console,
    references: References | None, seen: bool = False, limit: float = math.inf
) -> dict[str, Any]:
    """The report of an evaluation on a file; it and pictures are written into the directory, and a table is printed.

    seen: whether the model was trained on these data, which the report says. limit: in seconds, see `evaluate`."""
    from inrflow.commands.report import draw, show_errors
    from inrflow.data.formats.trajectory_file import TrajectoryFile
    from inrflow.evaluation.evaluate import evaluate
    from inrflow.runtime.atomic_files import write_json
    from inrflow.runtime.screen import screen

    with TrajectoryFile(path) as file:
        evaluation = evaluate(surrogate, file, observe, references, limit=limit)
        done, count = evaluation.report["trajectories"], file.trajectories
        triangles = file.cells_of(0)
    evaluation.report["in_sample"] = seen
    write_json(directory / EVALUATION_FILE, evaluation.report)
    draw(directory, surrogate, evaluation, triangles)
    show_errors(evaluation.report, screen())
    if done < count:
        console.print(f"these are errors of {done} of {count} trajectories, for which there was time; inrflow evaluate "
                      "takes all", highlight=False, soft_wrap=True)
    console.print(f"report and plots are in {directory}", highlight=False)
    return evaluation.report


def as_trajectories(given: str, role: str, output: Path, console: Console, read: ReadConfig | None = None,
                    kept: bool = False, units: str | None = None) -> str:
    """The path of a trajectory file with what is in a file, folder or pattern of any readable format.

    given: what the user named. role: the setting that names it (data.train), for messages, and the name of the
    converted file, OUTPUT/data/ROLE.h5. kept: a converted file that is newer than its sources is used again. units:
    in which its times are to count, as those of the data of a run.
    Raises UserError where it cannot be read or understood.
    """
    from inrflow.config.resolve import given_settings
    from inrflow.config.train_schema import ReadConfig
    from inrflow.data.formats.convert import convert, count_times_as
    from inrflow.data.formats.registry import expanded, format_of
    from inrflow.data.formats.schema import in_schema
    from inrflow.runtime.atomic_files import make_folder

    if not given or (not Path(given).exists() and not set(given) & set("*?[")):
        return given  # refused, with what is expected, where it is opened
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
        options["name"] = Path(given).parent.name or "data"
    try:
        with console.status(f"reading {given}"):
            convert(paths, target, overwrite=True, **options)
            if units is not None:
                count_times_as(target, units)
    except UserError as error:
        for folder in (target.parent, output):
            with suppress(OSError):  # others keep something there
                folder.rmdir()
        raise UserError(f"{role}: {_OPTION.sub('data.read.', str(error))}") from error
    files = f"{len(paths)} files of {kind.name}" if len(paths) > 1 else kind.name
    console.print(f"{role}={given} is {files}; its trajectories are in {target}", highlight=False, soft_wrap=True)
    return str(target)


def own_files(data: AdaptDataConfig, output: Path, console: Console, read: ReadConfig, units: str | None = None
              ) -> None:
    """Put trajectory files in the place of the training and test files that a configuration names."""
    for key in ("train", "test"):
        given = getattr(data, key)
        if given:
            setattr(data, key, as_trajectories(str(given), f"data.{key}", output, console, read, units=units))
