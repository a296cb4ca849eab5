"""Training from scratch on the same few frames: the comparison that shows whether pretraining helped."""

from __future__ import annotations

import copy

import numpy as np
from rich.console import Console

from inrflow.config.schema import Config, StepsConfig
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.temporary import temporary_folder
from inrflow.training.problem import Problem
from inrflow.training.recorder import Recorder
from inrflow.training.train import start_run, train


def train_from_scratch(
    trained: Config, source: TrajectorySource, trajectories: np.ndarray, minutes: float
) -> Surrogate | None:
    """A surrogate of these trajectories alone, with the settings of the pretrained run and its own time budget.

    None if every value has its own time: such values do not form frames that can be written to a file.
    """
    if source.time_bins is not None:
        return None
    batch = source.batch(trajectories, normalised=False)
    config = copy.deepcopy(trained)
    config.data.frames, config.data.points = None, 1.0  # the batch contains only the frames and points to be used
    config.dynamics.context, config.dynamics.memory = "none", None
    config.decoder.code_size = None
    config.training.minutes, config.training.steps = minutes, StepsConfig()
    with temporary_folder() as scratch:
        path = scratch / "few.h5"
        x = batch.x.expand(len(batch), *batch.x.shape[1:]).numpy()
        write_trajectories(path, batch.t.numpy(), x[:, 0] if x.shape[1] == 1 else x, batch.u.numpy(),
                           source.description, extra=source.file.meshes_of(trajectories))
        with TrajectoryFile(path) as file, Recorder(scratch, Console(quiet=True)) as log:
            return train(start_run(Problem.of(config, file), log))
