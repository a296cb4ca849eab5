"""`inrflow update`: a run continued with further observations, as a new run directory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from rich.console import Console

from inrflow.commands.run_directory import DATA_FOLDER, RunDirectory, as_trajectories, several
from inrflow.commands.train import run_one
from inrflow.config.resolve import given_settings, resolve
from inrflow.config.schema import Config, UpdateConfig
from inrflow.data.calendar import number_to_date
from inrflow.data.description import Description
from inrflow.data.formats.tables import read_observations
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import TrajectoryWriter, write_scattered
from inrflow.data.observations import Frames, Observations
from inrflow.data.stations import at_steps_of
from inrflow.errors import UserError
from inrflow.evaluation.references.training_data import regular_frames
from inrflow.runtime.atomic_files import make_folder
from inrflow.runtime.run_files import CANDIDATES_FILE


def run(arguments: list[str]) -> int:
    """Extend the data, and continue the model or, if that is not good enough, train by the recipe chosen before."""
    config: UpdateConfig = resolve("update", UpdateConfig, arguments)
    before, console = RunDirectory(Path(str(config.run))), Console(stderr=True, markup=False)
    settings = before.config()
    place = RunDirectory.new(config.output, "update")
    with place.held():
        grown = place.path / DATA_FOLDER / "grown.h5"
        make_folder(grown.parent)
        told = _grow(settings, _known(settings, before, place, console), str(config.data.train), grown)
        console.print(told, highlight=False, soft_wrap=True)
        settings.data.train = str(grown)  # of the schema; how other files are read stays as it was
        settings.recipe = _recipe(before, settings)
        settings.training.minutes = config.minutes or settings.training.minutes
        settings.device, settings.resume = config.device, None
        settings.continues = None if config.anew else os.path.abspath(str(config.run))
        return run_one(settings, place, console)


def _recipe(before: RunDirectory, settings: Config) -> str:
    """Recipe of the chosen candidate."""
    tried = before.json(CANDIDATES_FILE) or {}
    taken = [row["recipe"] for row in tried.get("candidates", []) if row.get("taken") and
             row.get("recipe") != "residual_field"]
    return str(taken[0]) if len(taken) == 1 else settings.recipe


def _known(settings: Config, before: RunDirectory, place: RunDirectory, console: Console) -> str:
    """Trajectory file that the run was trained on, or its copy. Raises UserError if it is missing or a list."""
    given, copy = settings.data.train, before.path / DATA_FOLDER / "data_train.h5"
    if given is not None and several(given) is None and Path(str(given)).exists():
        return as_trajectories(str(given), "data.train", place.path, console, settings.data.read)
    if not copy.exists():
        raise UserError(f"the run was trained on {given or 'the embedded data'}, which cannot be extended or no longer "
                        "exists; train again on a file with all observations")
    return str(copy)


def _grow(settings: Config, known: str, further: str, target: Path) -> str:
    """Remark on the growth of the data of a run with further observations, which are written to `target`. Raises
    UserError for data that cannot be extended: meshes, new trajectories with unknown parameters."""
    with TrajectoryFile(known) as file:
        about = file.description
        if file.cells is not None or file.meshes_differ:
            raise UserError(f"{known} has a mesh, and runs on meshes are not updated; train again on a file with all "
                            "observations")
        contexts = file.parameters, file.environment
        cut = slice(None) if settings.data.frames is None else slice(settings.data.frames)
        grown = {int(file.ids[s]): _observations(file.read(s, cut)) for s in range(file.trajectories)}
    settings.data.frames = None
    counts = [sum(len(one) for one in grown.values())]
    read = given_settings(settings.data.read)
    for number, observations in read_observations(further, about, read.get("stations"), read).items():
        if number not in grown and contexts != (None, None):
            raise UserError(f"{further} has a new trajectory {number}, whose parameters or environment are unknown; "
                            f"give observations of those of {known} ({', '.join(map(str, grown))}), or train again")
        if number in grown:
            frames = grown[number].frames()
            observations = grown[number].updated_with(at_steps_of(frames, regular_frames(frames.t), observations))
        grown[number] = observations
    counts.append(sum(len(one) for one in grown.values()))
    _write(target, about, grown, *contexts)
    last = max(float(one.frames().t[-1]) for one in grown.values())
    date = number_to_date(last, about.time_units) or f"t={last:g}"
    return (f"{counts[1] - counts[0]} of {counts[1]} observed points in time and space are new, the last at {date}; "
            f"forecast from both files, observations=[OLD,NEW], or from {target}")


def _observations(frames: Frames) -> Observations:
    return Observations(frames.t, frames.x, frames.u)


def _write(
    target: Path, about: Description, grown: dict[int, Observations], parameters: np.ndarray | None,
    environment: np.ndarray | None,
) -> None:
    """Write trajectories as frames (no moving points, or with parameters (S, P) or environments (S,)), else as rows."""
    trajectories = [one.frames() for one in grown.values()]
    if parameters is not None or environment is not None or not any(frames.moving for frames in trajectories):
        with TrajectoryWriter(target, about, overwrite=True) as writer:  # of an interrupted update
            for s, frames in enumerate(trajectories):
                writer.append(frames.t, frames.x, frames.u, None if parameters is None else parameters[s],
                              None if environment is None else int(environment[s]))
        return
    parts = []
    for number, frames in zip(grown, trajectories, strict=True):
        t, x, u = frames.rows()
        parts.append((np.full(len(t), number), t, x, u))
    numbers, t, x, u = (np.concatenate(part) for part in zip(*parts, strict=True))
    write_scattered(target, numbers, t, x, u, about, overwrite=True)
