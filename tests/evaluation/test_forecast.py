"""Forecasts of long batches: spreads between the frames at which covariances are computed."""

import numpy as np
import pytest
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.evaluation import forecast as forecasts
from inrflow.evaluation.forecast import forecast
from inrflow.model.surrogate import Surrogate
from tests.evaluation.test_new_domain import heat  # noqa: F401


def test_spreads_of_long_forecasts_are_interpolated_between_some_frames(
        heat: Surrogate, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    x = np.random.default_rng(0).uniform(size=(20, 2))
    times = torch.stack([torch.arange(150).double() / 8, torch.arange(150).double() / 10])
    times[1, 120:] = torch.nan  # a shorter trajectory
    u = torch.tensor(np.cos(np.pi * x[:, :1])).float().expand(2, 150, -1, -1)
    batch = TrajectoryBatch(times, torch.tensor(x).float()[None, None], u)
    estimate = heat.estimate(batch.first_frames(1))
    some = forecast(heat, estimate, batch).std
    assert len(forecasts._some_frames(150, 1)) < 120
    monkeypatch.setattr(forecasts, "_EVERY", 10**6)
    every = forecast(heat, estimate, batch).std
    torch.testing.assert_close(some, every, rtol=1e-3, atol=0.0, equal_nan=True)
    assert bool(torch.isfinite(some[1, :120]).all()) and bool(torch.isnan(some[1, 120:]).all())
    assert not torch.equal(some[0], every[0]) and torch.equal(some[:, :33], every[:, :33])
