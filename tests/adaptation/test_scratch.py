"""What a training from scratch sees."""

import numpy as np
import pytest

from inrflow.adaptation.scratch import train_from_scratch
from inrflow.config.schema import Config
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource

PLANE = Description("plane", ("u",), ("x", "y"))
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
HALVES = np.array([[0, 1, 2], [0, 2, 3]]), np.array([[0, 1, 3], [1, 2, 3]])


@pytest.mark.parametrize("own", [False, True])
def test_the_mesh_of_the_trajectories_is_seen(own, tmp_path, monkeypatch):
    x, cells = (np.stack([2 * SQUARE, SQUARE]), np.stack(HALVES)) if own else (SQUARE, HALVES[1])
    write_trajectories(tmp_path / "plane.h5", np.arange(4.0), x, np.random.default_rng(0).random((2, 4, 4, 1)), PLANE,
                       extra={"triangles": cells})
    monkeypatch.setattr("inrflow.adaptation.scratch.train", lambda run: run.problem.file.cells_of(0))
    with TrajectoryFile(tmp_path / "plane.h5") as file:
        source = TrajectorySource(file)
        assert np.array_equal(train_from_scratch(Config(), source, np.array([1]), 0.1), HALVES[1])
