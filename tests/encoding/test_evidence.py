"""Innovations and the evidence of noise, against dense covariances."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_t

from inrflow.encoding.evidence import NoiseEvidence
from inrflow.encoding.posterior import FREEDOM, GaussianPrior, condition, squared_innovation, variance_factor

SIZE, POINTS, CHANNELS = 5, 12, 2


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


OFFSET, BASIS = normal(POINTS, CHANNELS, seed=1), normal(POINTS, CHANNELS, SIZE, seed=2)
ROOT = normal(SIZE, SIZE, seed=3)
PRIOR = GaussianPrior(normal(SIZE, seed=4), ROOT @ ROOT.T, torch.tensor([1e-3, 4e-3], dtype=torch.float64))


def dense(seen, added=0.0):
    """Mean and covariance of the values that are seen, (N, C) bool."""
    design = BASIS[seen]
    noise = (PRIOR.noise + added).expand(POINTS, CHANNELS)[seen]
    return OFFSET[seen] + design @ PRIOR.mean, design @ PRIOR.covariance @ design.T + torch.diag(noise)


def with_gaps(u, seed=8):
    gone = torch.rand(u.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    return torch.where(gone, torch.nan, u)


@pytest.mark.parametrize("gaps", [False, True])
def test_squared_innovation_is_that_of_the_dense_covariance(gaps):
    u = normal(4, POINTS, CHANNELS, seed=6)
    u = with_gaps(u) if gaps else u
    codes, _ = condition(OFFSET, BASIS, u, PRIOR)
    after = OFFSET + torch.einsum("ncz,fz->fnc", BASIS, codes)
    quadratic, count = squared_innovation(after, u, PRIOR.noise, codes - PRIOR.mean, PRIOR.covariance[None])
    for f in range(4):
        seen = torch.isfinite(u[f])
        mean, covariance = dense(seen)
        expected = (u[f][seen] - mean) @ torch.linalg.solve(covariance, u[f][seen] - mean)
        assert float(quadratic[f]) == pytest.approx(float(expected), rel=1e-6)
        assert int(count[f]) == int(seen.sum())


def test_squared_innovation_of_exact_values_far_from_the_forecast_is_not_lost_to_rounding():
    exact = GaussianPrior(PRIOR.mean, PRIOR.covariance, torch.full((CHANNELS,), 1e-14, dtype=torch.float64))
    u = (OFFSET + BASIS @ (PRIOR.mean + 3 * ROOT @ normal(SIZE, seed=5)))[None]
    codes, _ = condition(OFFSET, BASIS, u, exact)
    after = OFFSET + torch.einsum("ncz,fz->fnc", BASIS, codes)
    quadratic, _ = squared_innovation(after, u, exact.noise, codes - PRIOR.mean, PRIOR.covariance[None])
    expected = float((3 * normal(SIZE, seed=5)).square().sum())  # the codes are determined
    assert float(quadratic[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("gaps", [False, True])
def test_evidence_is_the_density_of_a_multivariate_student_distribution(gaps):
    u = 0.3 * normal(3, POINTS, CHANNELS, seed=7)
    u = with_gaps(u) if gaps else u
    evidence = NoiseEvidence(PRIOR, 3)
    evidence.add(torch.arange(3), OFFSET, BASIS, u)
    found = evidence(0.1) - evidence(0.0)
    for f in range(3):
        seen = torch.isfinite(u[f])
        logarithms = []
        for added in (0.1, 0.0):
            mean, covariance = dense(seen, added)
            logarithms.append(multivariate_t(mean.numpy(), covariance.numpy(), FREEDOM).logpdf(u[f][seen].numpy()))
        assert float(found[f]) == pytest.approx(logarithms[0] - logarithms[1], rel=1e-6, abs=1e-6)


def draws(count, noise, amplitude, seed):
    """Frames from the prior, departures from its mean times `amplitude`, and noise of a standard deviation."""
    codes = normal(count, SIZE, seed=seed) @ ROOT.T
    misfit = normal(count, POINTS, CHANNELS, seed=seed + 1) * PRIOR.noise.sqrt()
    signal = amplitude * (torch.einsum("ncz,fz->fnc", BASIS, codes) + misfit)
    return OFFSET + BASIS @ PRIOR.mean + signal + noise * normal(count, POINTS, CHANNELS, seed=seed + 2)


@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("amplitude", [1.0, 3.0])
def test_noise_is_found_whatever_the_amplitude(noise, amplitude):
    u = draws(40, noise, amplitude, seed=20)
    evidence = NoiseEvidence(PRIOR, 40)
    evidence.add(torch.arange(40), OFFSET, BASIS, u)
    added = evidence.best()
    quadratic = torch.zeros(40, dtype=torch.float64)
    for f in range(40):
        mean, covariance = dense(torch.ones(POINTS, CHANNELS, dtype=torch.bool), float(added[f]))
        residual = u[f].flatten() - mean
        quadratic[f] = residual @ torch.linalg.solve(covariance, residual)
    total = added * variance_factor(quadratic, torch.tensor(POINTS * CHANNELS))
    assert 0.6 < float(total.log().mean().exp()) / noise**2 < 1.6  # white noise, the variance factor included
    assert float((total / noise**2).log().abs().max()) < np.log(6)


def test_no_noise_is_added_where_there_is_none():
    u = draws(60, 0.0, 2.0, seed=30)
    evidence = NoiseEvidence(PRIOR, 60)
    evidence.add(torch.arange(60), OFFSET, BASIS, u)
    assert float((evidence.best() > 0).double().mean()) < 0.1


def test_frames_of_one_window_count_together():
    u = draws(6, 0.3, 1.0, seed=40)
    together, apart = NoiseEvidence(PRIOR, 1), NoiseEvidence(PRIOR, 1)
    together.add(torch.zeros(6, dtype=torch.int64), OFFSET, BASIS, u)
    for frame in u:
        apart.add(torch.zeros(1, dtype=torch.int64), OFFSET, BASIS, frame[None])
    torch.testing.assert_close(together(0.05), apart(0.05))


def test_the_variance_factor_is_one_where_nothing_is_known_and_follows_many_values():
    assert float(variance_factor(torch.tensor(0.0), torch.tensor(0.0))) == 1.0
    assert float(variance_factor(torch.tensor(9e4), torch.tensor(1e4))) == pytest.approx(9.0, rel=1e-3)
