"""`inrflow adapt` of a run on several physics: a new physics is trained and added without changing the others, or a
known physics is adapted to a new system as if it were alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from inrflow.commands.run_directory import (
    ADAPT_FILE,
    REFERENCES_FILE,
    RunDirectory,
    convert_data_files,
    copy_references,
    report_evaluation,
    several,
)
from inrflow.commands.several.train import train_physics
from inrflow.config.schema import AdaptConfig, Config
from inrflow.config.train_schema import ReadConfig
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import INTERRUPTED, UserError
from inrflow.evaluation.evaluate import Observe
from inrflow.model.family import Family
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.atomic_files import write_json
from inrflow.runtime.safe_names import safe_name
from inrflow.training.recorder import Interrupted


def run_of_several(config: AdaptConfig, adapt: Callable[[AdaptConfig, Surrogate, RunDirectory], int]) -> int:
    """Fit a new physics, add it to the others and evaluate it; or adapt a known physics by `adapt`."""
    family = Family.load(str(config.run))
    place = RunDirectory.new(config.output, "adapt")
    console = Console(stderr=True, markup=False)
    with place.held():
        convert_data_files(config.data, place.path, console, ReadConfig())
        path = str(config.data.train)
        with TrajectoryFile(path) as file:
            name = file.description.name
        if name in family.members:
            known = family.surrogate(name)
            if known.context_size or config.adapt.strength == "none":
                return adapt(config, known, place)
            raise UserError(f"{path} has the name {name} of a physics that {config.run} contains already, as a single "
                            "system; give another physics, or another name")
        return _join(config, family, name, place, console)


def _join(config: AdaptConfig, family: Family, name: str, place: RunDirectory, console: Console) -> int:
    path, directory, before = str(config.data.train), place.path, RunDirectory(Path(str(config.run)))
    trained = Config()
    trained.device, trained.seed = config.device, config.seed
    if before.begun:
        others = before.config()  # of the physics that was added last, if any
        trained.training.minutes = others.training.minutes / len(several(others.data.train) or [path])
    trained.training.minutes = config.adapt.minutes or trained.training.minutes
    data = trained.data
    data.train, data.test = os.path.abspath(path), config.data.test and os.path.abspath(config.data.test)
    data.frames, data.points, data.same_points = config.data.frames, config.data.points, config.data.same_points
    try:
        folder = directory / "checkpoints" / safe_name(name)
        added = train_physics(trained, folder, directory / safe_name(name) / REFERENCES_FILE, console,
                              config.data.trajectories)
    except Interrupted:
        console.print("stopped; nothing was written", highlight=False)
        return INTERRUPTED
    for known in family.names:
        copy_references(before.references_file(known), directory / safe_name(known) / REFERENCES_FILE)
    joined = Family({**family.members, name: added})
    joined.save(directory)
    known = joined.known_from(name)
    told = {"physics": name, "dynamics": added.training["dynamics"], "terms": known or "no law was found"}
    write_json(directory / "adaptation.json", told)
    console.print(f"{name} joins {', '.join(family.names)}: {added.training['dynamics']}; shared: {joined.about}; "
                  f"saved in {directory}", highlight=False)
    if known:
        console.print(known, highlight=False)
    if data.test is not None:
        observe = Observe(config.observe.frames, config.observe.points, config.observe.noise)
        with torch.no_grad():
            report_evaluation(joined.surrogate(name), Path(data.test), observe, directory, console,
                              place.references(name))
    place.write_config(config, ADAPT_FILE)
    place.write_config(trained)  # last: until then adapt can start there again
    return 0
