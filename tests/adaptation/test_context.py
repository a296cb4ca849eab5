"""What trajectories of a new system, and which of their symmetry copies, an adaptation sees."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from inrflow.adaptation.context import batches_of
from inrflow.data.description import Description, Symmetries
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource

LINE = Description("line", ("u",), ("x",), period=(1.0,))
LINE = replace(LINE, symmetries=Symmetries.by_name(["translation"], LINE, np.array([[0.0], [0.875]])))


@pytest.mark.parametrize(("between_points", "kept"), [(1.0, 4), (3.0, 1)])
def test_copies_that_the_decoder_does_not_fit_are_left_out(between_points, kept, tmp_path):
    points = np.arange(8)[:, None] / 8
    write_trajectories(tmp_path / "line.h5", np.arange(3.0), points, np.ones((2, 3, 8, 1), np.float32), LINE)

    def codes(batch):  # a decoder that knows its own grid alone: large codes where points lie between those of the grid
        on_grid = bool(((batch.x * 8 - (batch.x * 8).round()).abs() < 1e-6).all())
        return SimpleNamespace(codes=torch.full((2, 3, 4), 1.0 if on_grid else between_points))

    with TrajectoryFile(tmp_path / "line.h5") as file:
        source = TrajectorySource(file)
        source.fit_normalisation(np.arange(2))
        surrogate = SimpleNamespace(
            training={"symmetries": ["translation_x"]}, description=file.description, box=file.box,
            normalisation=source.normalisation, codes=codes,
        )
        assert len(batches_of(surrogate, source, np.arange(2), 4, 0)) == kept
