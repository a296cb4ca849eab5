"""Models of one and of two threads, with the same decisions, forecast the same up to rounding."""

import numpy as np
import pytest
import torch

import inrflow
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.pdes.generate import generate

TOLERANCE = 1e-5  # of the largest value


@pytest.mark.usefixtures("unreported")
def test_forecasts_of_one_and_two_threads_agree(tmp_path):
    path = generate("heat", tmp_path / "data.h5", trajectories=16, frames=8, seed=0, dimensions=1, grid=32)
    with TrajectoryFile(path) as file:
        frames = file.read(0)
    answers = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            surrogate = inrflow.train(path, "recipe=law", "training.residual_field=off", minutes=0.1,
                                      output=tmp_path / str(threads))
            solution = surrogate.assimilate(inrflow.Observations(frames.t[:3], frames.x, frames.u[:3]))
            answers.append(solution.frames(frames.t[3:], frames.x))
    finally:
        torch.set_num_threads(1)
    apart = np.abs(answers[1] - answers[0]).max() / np.abs(answers[0]).max()
    assert apart < TOLERANCE
