"""What other channels say at the same place and time, beside joint Gaussian processes."""

from __future__ import annotations

import numpy as np
import torch

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import ChannelField, Conditioned, ResidualField, Rows
from inrflow.encoding.residual.places import Places

PLACES, NOISE = Places((0.0, 0.0)), 0.05
COVARIANCE = Covariance.of(Form((1.5,), 0.5, PLACES.groups, PLACES.moving), [0.1, 1.0], [3.0, 3.0], NOISE, [[0.4, 0.4]])
TIMES, COUNT, TOGETHER = 8, 30, -0.9


def network(seed: int) -> tuple[Rows, np.ndarray]:
    """Two channels with the same covariance, of correlation TOGETHER, (R, 2), and the covariance of the rows (R, R)."""
    random = np.random.default_rng(seed)
    x, t = random.uniform(0, 1, (COUNT, 2)), np.repeat(np.arange(float(TIMES)), COUNT)
    place = np.tile(np.arange(COUNT), TIMES)
    at = torch.as_tensor(t), torch.as_tensor(x[place])
    between = COVARIANCE(*at, *at).numpy() + NOISE * np.eye(len(t))
    own = np.linalg.cholesky([[1, TOGETHER], [TOGETHER, 1]])
    return Rows(t, x[place], np.linalg.cholesky(between) @ random.standard_normal((len(t), 2)) @ own.T, place), between


def conditioned(rows: Rows, channels: tuple[ChannelField | None, ...] = (ChannelField(COVARIANCE),) * 2) -> Conditioned:
    return Conditioned(ResidualField(PLACES, channels), rows, np.zeros_like(rows.u),
                       lambda t, x: torch.zeros(len(t), len(x), 2, dtype=torch.float64))


def hidden(rows: Rows, lost: np.ndarray) -> Rows:
    """Without the first channel in some rows."""
    u = rows.u.copy()
    u[lost, 0] = np.nan
    return Rows(rows.t, rows.x, u, rows.place)


def test_another_channel_at_the_place_tells_as_much_as_cokriging():
    rows, between = network(0)
    for lost in (rows.place % 3 == 0, np.random.default_rng(1).random(len(rows.t)) < 0.2):
        mean, variance = conditioned(hidden(rows, lost)).own(0, rows.t[lost], rows.x[lost])
        alone, _ = conditioned(hidden(rows, lost), (ChannelField(COVARIANCE), None)).own(0, rows.t[lost], rows.x[lost])
        whole = np.kron([[1, TOGETHER], [TOGETHER, 1]], between)
        known = np.concatenate([~lost, np.ones_like(lost)])
        asked = np.concatenate([lost, np.zeros_like(lost)])
        weights = np.linalg.solve(whole[known][:, known], whole[known][:, asked])
        exact = weights.T @ np.concatenate(rows.u.T)[known]
        exact_variance = np.diag(whole)[asked] - (weights * whole[known][:, asked]).sum(0)
        near = np.sqrt(np.mean((mean.numpy() - exact) ** 2))
        assert near < 0.3 * np.sqrt(np.mean((alone.numpy() - exact) ** 2))
        assert np.mean((mean.numpy() - rows.u[lost, 0]) ** 2) < 0.35 * np.mean((alone.numpy() - rows.u[lost, 0]) ** 2)
        assert 0.7 < np.median(variance.numpy() / exact_variance) < 1.4


def test_channels_that_have_nothing_in_common_tell_nothing():
    rows, _ = network(2)
    rows = Rows(rows.t, rows.x, np.stack([rows.u[:, 0], network(3)[0].u[:, 0]], 1), rows.place)
    lost = rows.place % 3 == 0
    both = conditioned(hidden(rows, lost)).own(0, rows.t[lost], rows.x[lost])
    alone = conditioned(hidden(rows, lost), (ChannelField(COVARIANCE), None)).own(0, rows.t[lost], rows.x[lost])
    errors = [float(((mean.numpy() - rows.u[lost, 0]) ** 2).mean()) for mean, _ in (both, alone)]
    assert errors[0] < 1.1 * errors[1]


def test_a_fault_of_another_channel_moves_nothing():
    rows, _ = network(4)
    lost = rows.place % 3 == 0
    wrong = hidden(rows, lost)
    wrong.u[np.flatnonzero(lost)[:1], 1] = 50.0
    mean, _ = conditioned(wrong).own(0, rows.t[lost], rows.x[lost])
    usual, _ = conditioned(hidden(rows, lost)).own(0, rows.t[lost], rows.x[lost])
    assert float((mean - usual)[1:].abs().max()) < 0.1


def test_where_all_channels_are_observed_alike_nothing_changes():
    rows, _ = network(5)
    lost = rows.place % 3 == 0
    seen = Rows(rows.t[~lost], rows.x[~lost], rows.u[~lost], rows.place[~lost])
    both = conditioned(seen).own(0, rows.t[lost], rows.x[lost])
    alone = conditioned(seen, (ChannelField(COVARIANCE), None)).own(0, rows.t[lost], rows.x[lost])
    assert torch.equal(both[0], alone[0])
    assert torch.equal(both[1], alone[1])
