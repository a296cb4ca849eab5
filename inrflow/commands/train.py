"""`inrflow train`, also from Python: training of a surrogate into a run directory with the model, its configuration,
metrics, evaluation and plots."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import EllipsisType
from typing import Any

from rich.console import Console

from inrflow.commands.run_directory import (
    ADAPT_FILE,
    REFERENCES_FILE,
    RunDirectory,
    as_trajectories,
    default_output,
    fit_references_of_problem,
    load_run,
    report_evaluation,
    several,
)
from inrflow.config.resolve import at_home, is_sweep, resolve
from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.source import TrajectorySource
from inrflow.errors import INTERRUPTED, UserError
from inrflow.evaluation.evaluate import Observe
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.team import Lost, team
from inrflow.pdes.embedded import embedded_files
from inrflow.runtime.run_files import CANDIDATES_FILE, MODEL_FILE
from inrflow.training.problem import Problem, check_settings
from inrflow.training.recorder import Interrupted, Recorder
from inrflow.training.run import Run
from inrflow.training.train import recipes_named, start_run
from inrflow.training.train import train as best_candidate

_IN_SAMPLE = 20_000_000  # largest number of training values for an evaluation on training data without a test file
_SECONDS, _SHARE = 10.0, 0.1  # limit of its duration: seconds, or share of the training time


def run(arguments: list[str]) -> int:
    """Train, evaluate and plot; with --multirun once for every combination of settings."""
    if is_sweep(arguments):
        from inrflow.commands.several.sweep import run_sweep

        return run_sweep(arguments, run_alone, _check)
    with team.gathered() as leads:
        return run_alone(arguments) if leads else 0


def train(
    file: str | os.PathLike[str] | EllipsisType = ..., /, *settings: str, test: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None, minutes: float | None = None, **groups: Any
) -> Surrogate:
    """Surrogate trained as by `inrflow train`, which writes a run directory with the model, test errors and figures.

    Args:
        file, test: data.train and data.test, in any readable format; without both, the embedded wave data.
        settings: as on the command line ("data.frames=10").
        output: run directory; by default outputs/train/<date-time>.
        minutes: training.minutes.
        groups: further settings by name (seed=1), groups of settings as dictionaries (data={"frames": 10}).
    Raises:
        UserError: as in the command; also for a list of files, which only the command accepts.
        KeyboardInterrupt: after Ctrl-C; `inrflow.train(resume=output)` continues.

    >>> surrogate = inrflow.train("train.h5", "data.frames=10", test="test.h5", output="runs/wave", minutes=5)
    """
    if file is None:
        raise UserError("data.train is None; give the name of a file, or no argument at all for the embedded wave data")
    places = {"data.train": None if file is ... else file, "data.test": test, "output": output}
    for key, value in places.items():
        if value is not None and not isinstance(value, str | os.PathLike):
            raise UserError(f"{key} is a {type(value).__name__}; expected the name of a file or folder: write the data "
                            "to one (.nc, .csv, .h5); several physics are trained by the command inrflow train")
    named = {key: value for key, value in {**places, "training.minutes": minutes}.items() if value is not None}
    arguments = [at_home(item) for item in (*map(str, settings), *_overrides(named), *_overrides(groups))]
    config: Config = resolve("train", Config, arguments)
    if several(config.data.train) is not None:
        raise UserError("data.train is a list; several physics are trained by the command inrflow train, and read by "
                        "Surrogate.load(output, physics=NAME)")
    directory = config.resume or config.output or str(default_output("train"))
    if not config.resume and not config.output:
        arguments.append(f"output={directory}")
    if run_alone(arguments) == INTERRUPTED:
        raise KeyboardInterrupt
    return load_run(directory, config.device)


def _overrides(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Command-line overrides of settings, with groups of settings as dictionaries."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            items = (f'"{item}"' if isinstance(item, str) else str(item) for item in value)
            yield f"{prefix}{key}=[{','.join(items)}]"
        else:
            yield f"{prefix}{key}={'null' if value is None else value}"


def run_alone(arguments: list[str]) -> int:
    """Train, evaluate and plot, in the first process of a team or a single process."""
    config: Config = resolve("train", Config, arguments)
    console = Console(stderr=True, markup=False)
    resumed = bool(config.resume)
    if config.resume:
        place = RunDirectory(Path(config.resume))
        config = _config_of_resumed_run(place, config.device, arguments)
    else:
        _check(config)
        place = RunDirectory.new(config.output, "train")
    train_on = run_one
    if several(config.data.train) is not None:
        from inrflow.commands.several.train import run_several

        train_on = run_several
    try:
        with place.held(resumed):
            code = train_on(config, place, console, resumed)
            if code == 0:
                place.finish()
            return code
    except Lost:
        console.print(f"another process of this job has ended; continue with: inrflow train resume={place.path}",
                      highlight=False, soft_wrap=True)
        return 1


def _check(config: Config) -> None:
    """Raise UserError for settings that training would refuse."""
    check_settings(config)
    recipes_named(config.recipe)


def run_one(config: Config, place: RunDirectory, console: Console, resumed: bool = False) -> int:
    """Train one physics, save its surrogate and report its forecast errors."""
    train_path, test_path = _data_files(config, place.path, console, resumed)
    observe = Observe(config.observe.frames, config.observe.points, config.observe.noise, config.observe.context)
    with TrajectoryFile(train_path) as file:
        if test_path is not None:
            _check_test(test_path, file, observe)
        file.require_frames(2, "training")
        if config.data.frames is not None and config.data.frames > file.frames:
            warnings.warn(f"data.frames={config.data.frames}, but {train_path} has {file.frames}: all are used",
                          stacklevel=2)
        problem = Problem.of(config, file)  # refuses what cannot be trained on
        place.write_config(config)
        console.print(f"results go to {place.path}", highlight=False)
        try:
            with Recorder(place.path, console, config) as log:
                surrogate = _trained(start_run(problem, log))
        except Interrupted:
            console.print(f"stopped; continue with: inrflow train resume={place.path}", highlight=False)
            return INTERRUPTED
        surrogate.save(place.path, card=False)
        console.print(f"saved {place.path / MODEL_FILE}", highlight=False)
        _report(problem, surrogate, test_path, observe, place, console)
    return 0


def _data_files(config: Config, directory: Path, console: Console, resumed: bool) -> tuple[str, str | None]:
    """Trajectory files of the training and the test data (None: no test data), by default the embedded wave data; the
    configuration gets absolute paths, so that the run can be resumed and evaluated from any folder."""
    data = config.data
    if data.train is None:
        if data.test is not None:
            raise UserError(f"data.test={data.test} is given without data.train; give the file to train on")
        data.train, data.test = map(str, embedded_files(console))
        data.frames = 10 if data.frames is None else data.frames
    train, test = data.train, data.test
    data.train, data.test = os.path.abspath(train), os.path.abspath(test) if test else None
    train = as_trajectories(train, "data.train", directory, console, data.read, resumed)
    if test is not None:
        with TrajectoryFile(train, check=False) as file:
            units = file.description.time_units
        test = as_trajectories(test, "data.test", directory, console, data.read, resumed, units)
    return train, test


def _trained(run: Run) -> Surrogate:
    """Surrogate of a run: a continued earlier one if that is good enough, else the best candidate."""
    earlier = run.config.continues
    if earlier is None:
        return best_candidate(run)
    from inrflow.adaptation.continued import continued

    return continued(load_run(earlier, run.config.device), run) or best_candidate(run)


def _report(problem: Problem, surrogate: Surrogate, test: str | None, observe: Observe, place: RunDirectory,
            console: Console) -> None:
    """Fit reference forecasts, and report errors and figures of the surrogate with them: on test data, else on frames
    after those of training, else on the training data, if these are few enough."""
    file, frames, updated = problem.file, problem.config.data.frames, bool(surrogate.training.get("continued"))
    rest = test is None and frames is not None and file.frames > frames
    if updated and test is None and not rest:  # frequent and fast: references are fitted on demand
        console.print("no data.test: the errors above are those of the last new observations; for others, give "
                      "data.test=FILE to inrflow evaluate", highlight=False, soft_wrap=True)
        return
    references = fit_references_of_problem(problem, place.path / REFERENCES_FILE)
    limit = math.inf if test is not None else max(_SECONDS, _SHARE * 60 * problem.config.training.minutes)
    if test is not None or rest:
        observe = replace(observe, frames=problem.observed.times.shape[1]) if rest else observe
        report_evaluation(surrogate, Path(test or file.location), observe, place.path, console, references, limit=limit)
        return
    tried = place.json(CANDIDATES_FILE) or {}
    error = tried["candidates"][tried["chosen"]]["validation_error"] if tried.get("candidates") else None
    kept = "" if error is None else f" (error of held-out forecasts, before the last fit: {error:.2e} of the variance)"
    few = file.trajectories * file.frames * file.points * len(file.description.channels) <= _IN_SAMPLE
    shown = "the errors below are those" if few else "errors are known only"
    console.print(f"no data.test: {shown} of the training data{kept}; for others, give data.test=FILE to "
                  "inrflow evaluate", highlight=False, soft_wrap=True)
    if few:
        report_evaluation(surrogate, Path(file.location), Observe(surrogate.window), place.path, console, references,
                          seen=True, limit=limit, held_out=error)


def _config_of_resumed_run(place: RunDirectory, device: str, arguments: list[str]) -> Config:
    """Configuration of a run that is resumed, possibly on another device.

    Raises UserError if there is no such run, and for settings that would be ignored silently."""
    if not place.begun:
        raise UserError(f"resume={place.path}: there is no config.yaml; give a folder of inrflow train")
    if (place.path / ADAPT_FILE).exists():
        raise UserError(f"resume={place.path}: inrflow adapt has written this run, which is complete; adapt again "
                        "into another output=DIR, or train on its data")
    config, given = place.config(), {item.split("=", 1)[0]: item for item in arguments}
    others = [item for key, item in given.items() if key not in ("resume", "device")]
    if others:
        raise UserError(f"resume={place.path} continues with the settings of the run; leave out {', '.join(others)}, "
                        "or start a new run with another output=DIR")
    if "device" in given:
        config.device = device
    return config


def _check_test(path: str, trained: TrajectoryFile, observe: Observe) -> None:
    """Check before training that a test file can be used for evaluation. Raises UserError."""
    if not Path(path).exists():
        raise UserError(f"data.test={path} does not exist; give a file, or leave it out")
    with TrajectoryFile(path) as file:
        ours, theirs = trained.description, file.description
        if not ours.same_system(theirs):
            raise UserError(f"data.test={file.path} has {theirs.layout}, data.train {ours.layout}; give files of the "
                            "same system")
        if None not in (ours.time_units, theirs.time_units) and ours.time_units != theirs.time_units:
            raise UserError(f"data.test={file.path} counts times in {theirs.time_units}, data.train in "
                            f"{ours.time_units}; give files with the same units")
        file.require_frames(2, "evaluation")
        observe.check(TrajectorySource(file))
