"""What a training run knows of its time."""

import numpy as np
from rich.console import Console

from inrflow.config import Config
from inrflow.data.description import Description
from inrflow.data.trajectories import TrajectoryFile
from inrflow.data.writing import write_trajectories
from inrflow.settings import resolve
from inrflow.training import steps
from inrflow.training.recorder import Recorder
from inrflow.training.setup import TrainingSetup


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
