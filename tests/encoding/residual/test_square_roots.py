"""Processes of square roots of skewed values."""

from __future__ import annotations

import numpy as np
import torch

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import ChannelField, Conditioned, ResidualField, Rows
from inrflow.encoding.residual.places import Places
from inrflow.encoding.residual.square_roots import SquareRoots
from inrflow.numerics.normal import gaussian_crps

PLACES = Places((0.0, 0.0))
COVARIANCE = Covariance.of(Form((1.5,), 0.5, PLACES.groups, PLACES.moving), [0.1, 1.0], [5.0, 5.0], 0.05, [[0.5, 0.4]])


def test_values_of_roots_are_the_values():
    values = np.concatenate([np.random.default_rng(0).gamma(0.7, size=300), [-3.0, 50.0]])
    roots = SquareRoots.of(values)
    assert roots is not None
    back = roots.values(torch.as_tensor(roots(values))).numpy()
    np.testing.assert_allclose(back, values, rtol=1e-12, atol=1e-12)
    assert np.all(np.diff(roots(np.sort(values))) > 0)


def test_moments_are_those_of_values_at_many_quantiles():
    roots = SquareRoots(0.2, 0.05, 1.0)
    mean, variance = torch.tensor([-1.2, -0.3, 0.8]).double(), torch.tensor([0.3, 0.1, 0.5]).double()
    normal = torch.special.ndtri((torch.arange(20_000).double() + 0.5) / 20_000)
    values = roots.values(mean + variance.sqrt() * normal[:, None])
    found = roots.moments(mean, variance)
    torch.testing.assert_close(found[0], values.mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[1], values.var(0), rtol=2e-3, atol=1e-3)


def test_values_that_are_not_skewed_have_no_roots():
    assert SquareRoots.of(np.random.default_rng(2).standard_normal(2000)) is None
    assert SquareRoots.of(-np.random.default_rng(2).gamma(0.5, size=2000)) is None
    assert SquareRoots.of(np.zeros(5)) is None


def amounts() -> Rows:
    """Exponentials of a rough random field of 24 places at 5 times."""
    random = np.random.default_rng(6)
    x, t = random.uniform(0, 1, (24, 2)), np.repeat(np.arange(5.0), 24)
    place = np.tile(np.arange(24), 5)
    away = np.linalg.norm(x[:, None] - x, axis=-1)
    drawn = random.standard_normal((5, 24))
    for k in range(1, 5):
        drawn[k] = 0.7 * drawn[k - 1] + 0.51**0.5 * drawn[k]
    u = np.exp(1.2 * drawn @ np.linalg.cholesky(np.exp(-away / 0.5)).T)
    return Rows(t, x[place], (u / u.std()).reshape(-1, 1), place)


def conditioned(channel: ChannelField, rows: Rows) -> Conditioned:
    return Conditioned(ResidualField(PLACES, (channel,)), rows, np.zeros_like(rows.u),
                       lambda t, x: torch.zeros(len(t), len(x), 1, dtype=torch.float64))


def test_amounts_are_told_by_their_roots_and_are_as_uncertain_as_they_are_large():
    rows = amounts()
    seen = rows.place % 3 > 0
    kept, crps = Rows(rows.t[seen], rows.x[seen], rows.u[seen], rows.place[seen]), []
    best = ChannelField.fit(PLACES, kept, 0, richer=False)
    assert best.roots is not None
    for channel in (best, ChannelField.fit(PLACES, kept, 0, near=ChannelField(best.covariance), richer=False)):
        mean, variance = conditioned(channel, kept).own(0, rows.t[~seen], rows.x[~seen])
        crps.append(float(gaussian_crps(mean - torch.as_tensor(rows.u[~seen, 0]), variance.sqrt()).mean()))
        if channel.roots:
            assert float(torch.corrcoef(torch.stack([mean, variance.sqrt()]))[0, 1]) > 0.5
    assert crps[0] < crps[1]


def test_joint_deviations_are_those_of_values():
    rows = amounts()
    one = conditioned(ChannelField(COVARIANCE, roots=SquareRoots.of(rows.u[:, 0])), rows)
    t, x = np.array([1.0, 2.5, 2.5]), np.random.default_rng(1).uniform(0, 1, (3, 2))
    std = torch.full((3,), 0.7, dtype=torch.float64)
    parts = one.joint(0, std, t, x)
    single = one.combined(torch.zeros(3, 1).double(), std[:, None], torch.as_tensor(t), torch.as_tensor(x))[1]
    assert parts is not None
    assert single is not None
    torch.testing.assert_close(parts[0], single[:, 0])
    assert float(parts[2].diagonal().max()) < 1
    assert float(torch.linalg.eigvalsh(parts[2]).min()) > 0


def test_a_process_of_roots_is_stored_and_read():
    one = ResidualField(PLACES, (ChannelField(COVARIANCE, roots=SquareRoots(-1.0, 0.05, 0.8)),
                                 ChannelField(COVARIANCE)))
    again = ResidualField.from_state(one.state())
    assert [channel and channel.roots for channel in again.channels] == [SquareRoots(-1.0, 0.05, 0.8), None]
