"""Residual fields: offsets of places, storage, draws, the far away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import Offsets, ResidualField, Rows, joined, rows_of
from inrflow.encoding.residual.places import Places
from inrflow.runtime.tensor_files import load_tensors, save_tensors

PLACES = Places((0.0, 0.0))
COVARIANCE = Covariance.of(Form((1.5,), 0.5, PLACES.groups, PLACES.moving), [0.1, 1.0], [5.0, 5.0], 0.05, [[0.5, 0.4]])
X = np.random.default_rng(3).uniform(0, 1, (12, 2))


def field(offsets: bool = False) -> ResidualField:
    constant = Offsets(X, np.arange(24.0).reshape(12, 2), [COVARIANCE, COVARIANCE]) if offsets else None
    return ResidualField(PLACES, [COVARIANCE, COVARIANCE], on_codes=False, offsets=constant)


def rows(seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    u = random.standard_normal((36, 2))
    u[::5, 0] = np.nan
    return Rows(np.repeat(np.arange(3.0), 12), np.tile(X, (3, 1)), u, np.tile(np.arange(12), 3))


def test_it_is_the_same_after_storing(tmp_path):
    original = field(offsets=True)
    save_tensors(tmp_path / "field", original.state())
    again = ResidualField.from_state(load_tensors(tmp_path / "field")[0])
    t, x = np.full(5, 1.3), np.random.default_rng(4).uniform(0, 1, (5, 2))
    for one, other in zip(original.condition(rows())(t, x), again.condition(rows())(t, x), strict=True):
        assert torch.equal(one, other)


def test_offsets_are_exact_at_known_places_and_unsure_between_them():
    offsets = field(offsets=True).offsets
    mean, variance = offsets(PLACES, np.concatenate([X[3:4], [[50.0, 50.0]]]))
    np.testing.assert_allclose(mean[0], [6.0, 7.0])
    assert (variance[0] == 0).all()
    np.testing.assert_allclose(variance[1], float(COVARIANCE.variances[0]) * 0 + variance[1])
    assert (variance[1] > 0.9).all()
    assert len(field(offsets=True).without(X[:4]).offsets.x) == 8


def test_far_away_it_is_the_mean_with_the_whole_variance():
    mean, variance, explained = field().condition(rows())(np.full(1, 1e5), np.array([[90.0, 0.0]]))
    torch.testing.assert_close(mean, torch.zeros(1, 2, dtype=torch.float64))
    torch.testing.assert_close(variance, torch.full((1, 2), 1.15, dtype=torch.float64))
    assert float(explained.max()) < 1e-9


def test_ahead_it_decays_towards_the_codes():
    conditioned = replace(field(), ahead=True).condition(rows())
    codes, variance, noise = torch.full((2, 2), 7.0).double(), torch.full((2, 2), 0.3).double(), torch.ones(2).double()
    t = torch.tensor([1.0, 1e5]).double()
    mean, total = conditioned.added_to(codes, variance, t, torch.as_tensor(X[:2]), noise)
    own = conditioned(t.numpy(), X[:2])
    torch.testing.assert_close(mean[0], own[0][0])
    torch.testing.assert_close(mean[1], codes[1])
    torch.testing.assert_close(total[1], variance[1] + noise)


def test_draws_have_the_mean_and_the_spread_of_the_field():
    conditioned = field().condition(rows())
    t, x = np.array([1.0, 1.5, 9.0]), np.array([[0.2, 0.3], [0.4, 0.1], [0.5, 0.5]])
    draws = conditioned.sample(t, x, 4000)
    mean, variance, _ = conditioned(t, x)
    torch.testing.assert_close(draws.mean(0), mean, atol=0.06, rtol=0)
    torch.testing.assert_close(draws.var(0), variance - COVARIANCE.nugget, atol=0.07, rtol=0)


def test_correlated_values_count_for_fewer():
    assert float(field().inflation(X).min()) > 3
    assert float(field().inflation(1e4 * X).max()) == pytest.approx(1 + 11 * 0.1 / 1.15, abs=1e-6)


def test_rows_keep_values_places_and_delays():
    u = torch.tensor([[[[1.0], [torch.nan]], [[2.0], [3.0]]]])
    x = torch.tensor([[[[0.0], [1.0]]]])
    one = rows_of(torch.tensor([[0.0, 1.0]]).double(), x, u, torch.full((1, 2, 2), 0.25).double())[0]
    assert one.t.tolist() == [0.25, 1.25, 1.25] and one.x[:, 0].tolist() == [0.0, 0.0, 1.0]
    assert one.place.tolist() == [0, 0, 1] and one.u[:, 0].tolist() == [1.0, 2.0, 3.0]
    both = joined([one, one])
    assert np.diff(both.t)[2] > 100 and both.place.tolist() == [0, 0, 1] * 2
