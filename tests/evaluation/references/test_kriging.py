"""Kriging of each frame: the textbook's formula, and better than nearness on a smooth field."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.evaluation.references.kriging import Kriging

ABOUT = Description("a", ("u", "v"), ("x", "y"))


@pytest.fixture(scope="module")
def stations():
    """Smooth waves with noise at 40 places, 30 frames; a third of the places is hidden."""
    random = np.random.default_rng(0)
    x, t = random.uniform(0, 1, (40, 2)), np.arange(30.0)
    u = 5 + 3 * np.sin(4 * x[:, 0] + t[:, None]) * np.cos(3 * x[:, 1])
    u = np.stack([u, u**2], -1) + 0.1 * random.standard_normal((30, 40, 2))
    return TrajectoryBatch(torch.as_tensor(t)[None], torch.as_tensor(x)[None, None], torch.as_tensor(u)[None].float())


def test_frames_are_kriged_by_the_fitted_covariance(stations):
    hidden = np.arange(40) % 3 == 0
    observed = stations.u[:, :20].clone()
    observed[:, :, hidden] = torch.nan
    known = TrajectoryBatch(stations.t, stations.x[:, :, ~hidden], stations.u[:, :, ~hidden])
    reference = Kriging.fit(known, None, ABOUT)
    again = Kriging.from_state(reference.state())
    found = again.forecast(stations.t, stations.x, observed)[0, :, :, 0].numpy()
    variance, space, _, _, nugget, length = reference.covariances[0].exp().tolist()
    x = stations.x[0, 0].numpy()
    scaled = np.sqrt(3) * np.linalg.norm(x[:, None] - x, axis=-1) / length
    matrix = variance + space * (1 + scaled) * np.exp(-scaled)
    mean, scale = float(reference.mean[0]), float(reference.scale[0])
    values = (observed[0, 4, ~hidden, 0].double().numpy() - mean) / scale
    weights = np.linalg.solve(matrix[~hidden][:, ~hidden] + nugget * np.eye((~hidden).sum()), values)
    np.testing.assert_allclose(found[4], mean + scale * matrix[:, ~hidden] @ weights, atol=1e-4)
    np.testing.assert_array_equal(found[19:], np.broadcast_to(found[19], (11, 40)))
    missed = found[:20, hidden] - stations.u[0, :20, hidden, 0].numpy()
    assert (missed**2).mean() < 0.05 * float(stations.u[..., 0].var())


def test_it_is_not_fitted_to_frames_of_a_few_values(stations):
    few = TrajectoryBatch(stations.t, stations.x[:, :, :5], stations.u[:, :, :5])
    assert Kriging.fit(few, None, ABOUT) is None
