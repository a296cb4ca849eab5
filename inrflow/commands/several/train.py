"""`inrflow train data.train=[a.h5,b.h5]`: several physics in one run directory, with one library of terms.

Each physics has the same share of the time and is trained as if it were alone, on its own domain; the fitted laws share
a library of terms.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

from rich.console import Console

from inrflow.commands.run_directory import (
    EVALUATION_FILE,
    REFERENCES_FILE,
    RunDirectory,
    as_trajectories,
    fit_references_of_problem,
    report_evaluation,
    several,
)
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import INTERRUPTED, UserError
from inrflow.evaluation.evaluate import Observe
from inrflow.model.family import Family
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.atomic_files import make_folder, write_json
from inrflow.runtime.run_files import MODEL_FILE
from inrflow.runtime.safe_names import safe_name
from inrflow.training.problem import Problem
from inrflow.training.recorder import Interrupted, Recorder
from inrflow.training.train import start_run, train


def run_several(config: Config, place: RunDirectory, console: Console, resumed: bool = False) -> int:
    """Train every physics, combine them, and evaluate each on its test file."""
    files = several(config.data.train) or []
    tests = config.data.test if isinstance(config.data.test, str | None) else [str(f) for f in config.data.test]
    if isinstance(tests, str) or (tests is not None and len(tests) != len(files)):
        count = 1 if isinstance(tests, str) else len(tests or [])
        raise UserError(f"data.test names {count} files for {len(files)} of data.train; give one test file for each")
    directory = place.path
    config.data.train = [os.path.abspath(name) for name in files]
    config.data.test = None if tests is None else [os.path.abspath(name) for name in tests]
    given = copy.deepcopy(config)
    for key in ("train", "test"):
        paths = getattr(config.data, key)
        setattr(config.data, key, paths and [
            as_trajectories(path, f"data.{key}.{index}", directory, console, config.data.read, resumed)
            for index, path in enumerate(paths)
        ])
    names = physics_names(config.data.train)
    place.write_config(given)
    console.print(f"results go to {directory}", highlight=False)
    members: dict[str, Surrogate] = {}
    for index, name in enumerate(names):
        part = part_of(config, index, len(names))
        kept = directory / "checkpoints" / safe_name(name)
        if resumed and (kept / MODEL_FILE).exists():  # finished before the run was stopped
            members[name] = Surrogate.load(kept)
            continue
        console.print(name, style="bold", highlight=False)
        try:
            members[name] = train_physics(part, kept, directory / safe_name(name) / REFERENCES_FILE, console)
        except Interrupted:
            console.print(f"stopped; continue with: inrflow train resume={directory}", highlight=False)
            return INTERRUPTED
        members[name].save(kept, card=False)
    family = Family(members)
    family.save(directory)
    console.print(f"shared: {family.about}; saved {directory / MODEL_FILE}", highlight=False,
                  soft_wrap=True)
    if config.data.test is not None:
        evaluate_all(family, dict(zip(names, config.data.test, strict=True)), config, directory, console)
    return 0


def physics_names(files: list[str]) -> list[str]:
    """Names of the physics in files. Raises UserError if two have the same name."""
    names: list[str] = []
    for path in files:
        with TrajectoryFile(path, check=False) as file:
            name = file.description.name
        if name in names:
            raise UserError(f"{path} has the same name {name} as another file; give each physics its own name (the "
                            "file's attribute name)")
        names.append(name)
    return names


def part_of(config: Config, index: int, count: int) -> Config:
    """Configuration of one physics, with its files and its share of the time."""
    part = copy.deepcopy(config)
    part.data.train = config.data.train[index]
    part.data.test = None if config.data.test is None else config.data.test[index]
    part.training.minutes = config.training.minutes / count
    return part


def train_physics(
    config: Config, directory: Path, references: Path, console: Console, trajectories: int | None = None
) -> Surrogate:
    """Surrogate of one physics, from the first trajectories of its file (None: all); also writes references."""
    make_folder(directory)
    with TrajectoryFile(config.data.train) as file, Recorder(directory, console, config) as log:
        problem = Problem.of(config, file, trajectories)
        surrogate = train(start_run(problem, log))
        fit_references_of_problem(problem, references)
    return surrogate


def evaluate_all(
    family: Family, tests: dict[str, str], config: Config, directory: Path, console: Console
) -> None:
    """Write evaluation.json of every physics in a folder of its name, and of all together in the run directory."""
    observe = Observe(config.observe.frames, config.observe.points, config.observe.noise)
    reports = {}
    for name, path in tests.items():
        console.print(name, style="bold", highlight=False)
        reports[name] = report_evaluation(family.surrogate(name), Path(path), observe, directory / safe_name(name),
                                          console, RunDirectory(directory).references(name))
    write_json(directory / EVALUATION_FILE, {"physics": reports})
