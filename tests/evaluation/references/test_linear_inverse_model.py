"""The linear inverse model with lags against the recursion that it states, and against the system of the data."""

import numpy as np
import pytest
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.evaluation.references.linear_inverse_model import LaggedInverseModel

ABOUT = Description("d", ("u",), ("x",), time_units="days since 2000-01-01")
ROTATION = 0.9 * np.array([[np.cos(0.4), np.sin(0.4)], [-np.sin(0.4), np.cos(0.4)]])


def data(frames: int = 1200) -> tuple[TrajectoryBatch, np.ndarray, np.ndarray]:
    """Damped rotation of two patterns at 9 points around an annual cycle; the patterns and their coefficients."""
    random = np.random.default_rng(0)
    z = np.zeros((frames, 2))
    for k in range(1, frames):
        z[k] = ROTATION @ z[k - 1] + 0.3 * random.standard_normal(2)
    patterns = np.linalg.qr(random.standard_normal((9, 2)))[0].T
    t = np.arange(float(frames))
    u = z @ patterns + np.cos(2 * np.pi * t / 365.2425)[:, None]
    x = torch.linspace(0, 1, 9)[None, None, :, None].double()
    return TrajectoryBatch(torch.as_tensor(t)[None], x, torch.as_tensor(u)[None, ..., None]), patterns, z


def test_it_forecasts_as_well_as_the_system_that_made_the_data():
    batch, patterns, z = data()
    model = LaggedInverseModel.fit(batch.first_frames(900), None, ABOUT)
    starts = range(900, 1180)
    windows = TrajectoryBatch(torch.cat([batch.t[:, s - 4 : s + 6] for s in starts]), batch.x,
                              torch.cat([batch.u[:, s - 4 : s + 6] for s in starts]))
    found = model.forecast(windows.t, windows.x, windows.u[:, :4])[:, 4:, :, 0].numpy()
    season = np.cos(2 * np.pi * np.arange(1200.0) / 365.2425)
    state = np.stack([z[s - 1] for s in starts])
    for lead in range(6):
        state = state @ ROTATION.T
        best = state @ patterns + np.array([season[s + lead] for s in starts])[:, None]
        truth = windows.u[:, 4 + lead, :, 0].numpy()
        assert np.square(found[:, lead] - truth).mean() < 1.04 * np.square(best - truth).mean()


def test_frames_that_are_missing_are_steps_all_the_same():
    batch, *_ = data(400)
    model = LaggedInverseModel.fit(batch, None, ABOUT)
    window = batch.frames(slice(100, 112))
    whole = model.forecast(window.t, window.x, window.u[:, :5])
    kept = torch.tensor([0, 1, 2, 3, 4, 7, 11])
    some = model.forecast(window.t[:, kept], window.x, window.u[:, :5])
    assert some.numpy() == pytest.approx(whole[:, kept].numpy(), abs=1e-9)
    older = LaggedInverseModel.from_state(model.state() | {"bias": torch.zeros(2)})
    assert torch.equal(older.forecast(window.t, window.x, window.u[:, :5]), whole)


def test_several_trajectories_and_irregular_times_have_none():
    batch, *_ = data(100)
    two = TrajectoryBatch(batch.t.repeat(2, 1), batch.x, batch.u.repeat(2, 1, 1, 1))
    assert LaggedInverseModel.fit(two, None, ABOUT) is None
    years_later = batch.t + 1e6 * (torch.arange(100) > 50)
    assert LaggedInverseModel.fit(TrajectoryBatch(years_later, batch.x, batch.u), None, ABOUT) is None
    odd = TrajectoryBatch(batch.t + 0.4 * torch.rand(batch.t.shape).double(), batch.x, batch.u)
    assert LaggedInverseModel.fit(odd, None, ABOUT) is None
