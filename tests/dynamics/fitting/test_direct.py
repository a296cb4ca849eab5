"""Direct forecasts against numpy's least delayed, and on processes whose iterates do and do not forecast best."""

import numpy as np
import pytest
import torch

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fitting.autoregression import AutoregressionSearch, Choice, companion
from inrflow.dynamics.fitting.direct import Direct, Starts


def test_a_fit_is_damped_persistence_and_a_ridge_regression_of_the_rest():
    random = np.random.default_rng(0)
    past, truth = random.standard_normal((300, 6)), random.standard_normal((300, 2, 3))
    truth[:, 1] += 0.6 * past[:, :3]
    inside = np.ones((300, 2), bool)
    inside[250:, 1] = False
    starts = Starts(*map(torch.as_tensor, (past, truth, inside, np.zeros(300))))
    maps = starts.planned([None, Direct(2, 2, 0.1)])
    latest = past[:250, :3]
    decay = (latest * truth[:250, 1]).sum(0) / (latest**2).sum(0)
    columns = [0, 1, 3, 4]
    gram = past[:, columns].T @ past[:, columns]
    gram += 0.1 * gram.diagonal()[:2].mean() * np.eye(4)
    cross = past[:250][:, columns].T @ (truth[:250, 1] - decay * latest) * 300 / 250
    expected = np.vstack([np.diag(decay), np.zeros((3, 3))])
    expected[columns] += np.linalg.solve(gram, cross)
    assert not maps[0].any() and maps[1].numpy() == pytest.approx(expected, abs=1e-10)


def delayed(frames: int = 2000) -> torch.Tensor:
    """White noise, and what it was four steps before, with noise."""
    random, z = np.random.default_rng(1), np.zeros((frames, 2))
    for k in range(4, frames):
        z[k, 0] = random.standard_normal()
        z[k, 1] = 0.9 * z[k - 4, 0] + 0.3 * random.standard_normal()
    return torch.as_tensor(z)


def test_a_delay_longer_than_the_lags_is_forecast_directly_at_its_lead_alone():
    z = delayed()
    search = AutoregressionSearch(z, torch.ones(len(z)).bool(), lags=(1,))
    found = search.fitted(Choice(2, 1, 1e-6))
    assert [lead + 1 for lead, own in enumerate(found.plan) if own] == [4]
    assert found.corrections is not None
    assert float(found.corrections[3, 1, 0]) == pytest.approx(0.9, abs=0.05)
    assert float(found.errors[3]) < 0.7 < float(found.errors[4])
    propagated = 50 * 0.9  # one-step errors, with the weight of 50 forecasts
    assert float(found.covariances[3, 1, 1]) == pytest.approx((1980 * 0.09 + propagated) / 2030, rel=0.1)
    term = AutoregressionTerm(2, 1, 1.0, leads=len(found.damping), corrected=True).double()
    term.set(companion(found.matrices), found.covariances, found.damping, corrections=found.corrections)
    later = term.path(z[100:-4], torch.tensor([[0.0, 4.0]]).double().expand(len(z) - 104, 2))[:, 1, 1].detach()
    assert float((later - z[104:, 1]).square().mean()) == pytest.approx(0.09, rel=0.2)


def test_linear_processes_are_iterated():
    random, z = np.random.default_rng(2), np.zeros((1500, 2))
    for k in range(1, len(z)):
        z[k] = [[0.7, 0.2], [-0.2, 0.7]] @ z[k - 1] + random.standard_normal(2)
    found = AutoregressionSearch(torch.as_tensor(z), torch.ones(len(z)).bool()).search()
    assert sum(own is not None for own in found.plan) <= 1  # by chance
