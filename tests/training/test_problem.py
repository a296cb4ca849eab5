"""What a training run knows of its time."""

import numpy as np
import pytest
from rich.console import Console

from inrflow.config.resolve import resolve
from inrflow.config.schema import Config
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.training import loop as steps
from inrflow.training.problem import TrainingSetup
from inrflow.training.recorder import Recorder


def test_what_is_left_of_the_time_is_told_by_the_clock_of_the_steps(tmp_path, monkeypatch):
    u = np.random.default_rng(0).normal(size=(4, 3, 5, 1)).astype(np.float32)
    path = tmp_path / "train.h5"
    write_trajectories(path, np.arange(3.0), np.linspace(0, 1, 5)[:, None], u, Description("noise", ("u",), ("x",)))
    config: Config = resolve("train", Config, [f"data.train={path}", "training.minutes=2"])
    now = [1000.0]
    monkeypatch.setattr(steps, "clock", lambda: now[0])
    with TrajectoryFile(path) as file, Recorder(tmp_path, Console(quiet=True)) as recorder:
        setup = TrainingSetup(config, file, tmp_path, recorder, lambda: None)
    assert setup.seconds(0.25) == 30
    now[0] += 110  # 10 of 120 seconds are left
    assert setup.seconds(0.25) == 8 and setup.seconds(0.05) == 6
    now[0] += 100
    assert setup.seconds(0.25) == 0


def setup_of(path, tmp_path, *overrides):
    config: Config = resolve("train", Config, [f"data.train={path}", *overrides])
    with TrajectoryFile(path) as file, Recorder(tmp_path, Console(quiet=True)) as recorder:
        return TrainingSetup(config, file, tmp_path, recorder, lambda: None)


@pytest.mark.parametrize(("trajectories", "frames", "overrides", "held_out"), [
    (3, 6, (), 0),  # another trajectory does not lie in what two span
    (3, 6, ("data.validation=0.4",), 1),
    (5, 6, (), 1),
    (3, 4, (), 1),  # no frames to spare either
])
def test_few_trajectories_are_validated_in_time(trajectories, frames, overrides, held_out, tmp_path):
    u = np.random.default_rng(0).normal(size=(trajectories, frames, 5, 1)).astype(np.float32)
    path = tmp_path / "train.h5"
    write_trajectories(path, np.arange(float(frames)), np.linspace(0, 1, 5)[:, None], u,
                       Description("noise", ("u",), ("x",)))
    setup = setup_of(path, tmp_path, *overrides)
    assert len(setup.validation) == held_out and len(setup.training) == trajectories - held_out
