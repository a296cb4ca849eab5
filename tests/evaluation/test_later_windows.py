"""Intervals of windows that begin later than the trajectories they were calibrated on, in rougher states."""

import pytest
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.evaluation.calibration import calibrated, errors_of, factors_of, variance_factor_decay
from inrflow.evaluation.forecast import Errors
from tests.evaluation.test_calibration import POINTS, coverage, forecast_errors, normal, surrogate, truth, with_prior

assert surrogate  # a fixture


def roughening(surrogate, seed):
    """Trajectories of which codes leave four times more in later frames."""
    batch = truth(surrogate, seed=seed)
    frames = batch.u.shape[1]
    misfit = 0.04 * normal(*batch.u.shape, seed=seed + 5) * (torch.arange(frames) > 1)[None, :, None, None]
    return TrajectoryBatch(batch.t, batch.x, batch.u + misfit)


def test_intervals_hold_their_share_in_later_windows_too(surrogate):
    held, new = roughening(surrogate, 70).select(torch.arange(12)), roughening(surrogate, 80)
    begun = TrajectoryBatch(new.t[:, :3], new.x, new.u[:, 2:])  # dynamics that do not depend on time

    def held_next(starts):
        known = with_prior(surrogate, calibrated(surrogate.prior, list(errors_of(surrogate, held, 1, starts=starts))))
        return coverage(forecast_errors(known, begun, POINTS)[:, 1])

    assert held_next(()) < 0.75 and 0.85 < held_next((1 / 3, 2 / 3)) < 1.0


@pytest.mark.parametrize("fading", [0.0, 1.0])
def test_whether_own_factors_fade_is_told_from_errors(fading):
    number = torch.arange(16).repeat_interleave(600)
    lead = torch.arange(6.0).double().repeat(1600)
    factor = torch.exp(1.5 * normal(16, seed=1))[number]
    variance = factor ** ((1 + lead) ** -fading)
    one = torch.ones_like(lead)
    errors = Errors((variance.sqrt() * normal(len(lead), seed=2)).abs(), 0 * one, factor, lead, number.double(),
                    0 * one, factor=factor)
    assert variance_factor_decay(errors) == fading
    faded = errors.faded(fading)
    torch.testing.assert_close(faded.rest, variance)
    spread, _, _ = factors_of([faded, faded], torch.tensor([0.0, 5.0]).double())
    torch.testing.assert_close(spread, torch.ones(2, 2).double(), rtol=0.1, atol=0)
