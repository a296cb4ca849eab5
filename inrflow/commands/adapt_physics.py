"""`inrflow adapt` of a run on several physics: another one joins them.

Its codes are coefficients of the harmonics that all share, so that nothing need be aligned. Terms that the others need
are tried first, alone and with a few more; validation decides between them and all terms. Where no local equation is
found, its operator starts from what the others' operators say of it, or from nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from rich.console import Console

from inrflow.adaptation.new_physics import add_physics, known_physics
from inrflow.commands.run_directory import RunDirectory, report_evaluation
from inrflow.commands.train_several import train_physics
from inrflow.config.schema import AdaptConfig, Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import Observe
from inrflow.model.family import Family
from inrflow.runtime.safe_names import safe_name
from inrflow.runtime.tensor_files import write_json
from inrflow.training.problem import has_harmonics
from inrflow.training.recorder import Interrupted


def run_new_physics(config: AdaptConfig) -> int:
    """Fit the new physics, join it to the others, evaluate."""
    family = Family.load(str(config.run))
    path = str(config.data.train)
    with TrajectoryFile(path) as file:
        name = file.description.name
        if name in family.members:
            raise UserError(f"{path} is named {name}, which {config.run} knows already; give another physics, "
                            "or another name")
        if not has_harmonics(file):
            raise UserError(f"{path} ({name}) is not periodic in all coordinates, the physics of {config.run} are; "
                            "train it by itself")
    place = RunDirectory.new(config.output, "adapt")
    with place.held():
        return _join(config, family, name, place)


def _join(config: AdaptConfig, family: Family, name: str, place: RunDirectory) -> int:
    path, directory = str(config.data.train), place.path
    console = Console(stderr=True)
    trained = Config()
    trained.device = config.device
    data = trained.data
    data.train, data.test = os.path.abspath(path), config.data.test and os.path.abspath(config.data.test)
    data.frames, data.points, data.same_points = config.data.frames, config.data.points, config.data.same_points
    trained.decoder.codes, trained.dynamics.depth, trained.dynamics.context = "harmonics", 0, "none"
    trained.seed = config.seed
    known = known_physics(family)
    try:
        folder = directory / "checkpoints" / safe_name(name)
        added = train_physics(trained, folder, console, known, config.data.trajectories)
    except Interrupted:
        console.print("stopped; nothing is written", highlight=False)
        return 1
    joined = add_physics(family, name, added)
    joined.save(directory)
    place.write_config(trained)
    place.write_config(config, "adapt.yaml")
    transfer = added.training.get("transfer", {})
    write_json(directory / "adaptation.json", {"physics": name, **transfer})
    console.print(f"{name} joins {', '.join(family.names)}: dynamics {transfer.get('dynamics', '')}; saved in "
                  f"{directory}", highlight=False)
    if data.test is not None:
        observe = Observe(config.observe.frames, config.observe.points, config.observe.noise)
        with torch.no_grad():
            report_evaluation(joined.surrogate(name), Path(data.test), observe, directory, console, None)
    return 0
