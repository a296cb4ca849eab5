"""Residual fields: weights and their decay, storage, the far away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import (
    Ahead,
    ChannelField,
    Conditioned,
    Decay,
    ResidualField,
    Rows,
    joined,
    rows_of,
)
from inrflow.encoding.residual.places import Places
from inrflow.errors import UserError
from inrflow.runtime.tensor_files import load_tensors, save_tensors

PLACES = Places((0.0, 0.0))
COVARIANCE = Covariance.of(Form((1.5,), 0.5, PLACES.groups, PLACES.moving), [0.1, 1.0], [5.0, 5.0], 0.05, [[0.5, 0.4]])
X = np.random.default_rng(3).uniform(0, 1, (12, 2))


def field(decay: Decay | None = None, **changes: object) -> ResidualField:
    """Of one channel beside one that has none."""
    ahead = Ahead(decay or Decay())
    changes = {"observed": ahead, "new": ahead} | changes
    return ResidualField(PLACES, (ChannelField(COVARIANCE, **changes), None))


def rows(seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    u = 0.5 * random.standard_normal((36, 2))  # nothing is doubtful
    u[::5, 0] = np.nan
    return Rows(np.repeat(np.arange(3.0), 12), np.tile(X, (3, 1)), u, np.tile(np.arange(12), 3))


def conditioned(one: ResidualField, codes: float = 0.0, edge: float = 0.0) -> Conditioned:
    return Conditioned(one, rows(), np.full((36, 2), codes),
                       lambda t, x: torch.full((len(t), len(x), 2), edge).double())


def combined(one: Conditioned, t: list[float], x: np.ndarray, mean: float, std: float) -> tuple[torch.Tensor, ...]:
    shape = len(t), 2
    given = [torch.full(shape, value, dtype=torch.float64) for value in (mean, std)]
    mean_, std_ = one.combined(*given, torch.tensor(t, dtype=torch.float64), torch.as_tensor(x))
    assert std_ is not None
    return mean_, std_


def test_codes_are_alone_at_places_that_they_know():
    one = conditioned(field(known=X[:3], decay=Decay(2.0, 0.5, 0.0)))
    for t in (1.0, 2.5):
        mean, std = combined(one, [t] * 12, X, 0.3, 0.2)
        assert mean[:3, 0].tolist() == pytest.approx([0.3] * 3) and std[:3, 0].tolist() == pytest.approx([0.2] * 3)
        assert (mean[3:, 0] != 0.3).all() and (std[3:, 0] != 0.2).all()
    _, codes, own = one.joint(0, torch.full((12,), 0.2).double(), np.full(12, 1.0), X)
    assert codes[:3].tolist() == pytest.approx([1.0] * 3) and float(own[:3].abs().max()) == 0


def test_codes_of_new_places_are_kriged_after_the_observations_from_what_they_give_at_seen_ones():
    """Simple kriging of one time by matrices of numpy: variances .1 and 1, lengths .5 and .4, nugget .05."""
    seen, ahead = Ahead(Decay(), (1.0, 3.0), (1.0, 1.0), (0.3, 0.5)), Ahead(Decay(), (1.0, 3.0), (2.0, 2.0))
    one = Conditioned(field(kriged=True, observed=seen, new=ahead), rows(), np.zeros((36, 2)),
                      lambda t, x: torch.as_tensor((t[:, None] + np.sin(3 * x[:, 0]))[..., None].repeat(2, -1)))
    new = np.random.default_rng(5).uniform(0, 1, (4, 2))

    def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        scaled = 3**0.5 * np.linalg.norm((a[:, None] - b) / [0.5, 0.4], axis=-1)
        return 0.1 + (1 + scaled) * np.exp(-scaled)

    weights = np.linalg.solve(covariance(X, X) + 0.05 * np.eye(12), covariance(X, new)).T
    for later, missed in ((3.0, 0.3), (5.0, 0.5)):
        mean, std = combined(one, [later] * 4, new, 7.0, 9.0)
        np.testing.assert_allclose(mean[:, 0], weights @ (later + np.sin(3 * X[:, 0])), rtol=1e-6)
        last = one.own(0, np.full(4, 2.0), new)[1]
        np.testing.assert_allclose(std[:, 0], 2 * (last + missed**2 - 0.05).sqrt(), rtol=1e-6)  # one nugget
    mean, std = combined(one, [4.0] * 2, X[:2], 7.0, 9.0)
    assert mean[:, 0].tolist() == [7.0] * 2 and std[:, 0].tolist() == [9.0] * 2  # seen places are left to codes
    close = combined(one, [2.0, 2.0 + 1e-5], new[[0, 0]], 7.0, 9.0)[0][:, 0]
    assert abs(float(close[1] - close[0])) < 1e-3


def test_the_factor_of_unobserved_places_does_not_widen_gaps_of_observed_ones():
    """Kriging variances by matrices of numpy; memory 5, other values as above. Values of a gap are among u[::5]."""
    given, asked = rows(), np.concatenate([X[[0, 5, 10]], np.random.default_rng(5).uniform(0, 1, (2, 2))])
    seen = np.isfinite(given.u[:, 0])
    t, x = given.t[seen], given.x[seen]

    def covariance(t: np.ndarray, x: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
        scaled = 3**0.5 * np.linalg.norm((x[:, None] - y) / [0.5, 0.4], axis=-1)
        return (0.1 + (1 + scaled) * np.exp(-scaled)) * np.exp(-np.abs(t[:, None] - s) / 5)

    across = covariance(np.zeros(5), asked, t, x)
    explained = (across * np.linalg.solve(covariance(t, x, t, x) + 0.05 * np.eye(len(t)), across.T).T).sum(1)
    own = np.sqrt(1.1 - explained + 0.05)
    for kriged, factors in ((True, [1.2] * 3 + [1.5] * 2), (False, [1.5] * 5)):
        one = conditioned(field(kriged=kriged, spread=1.5, within=1.2))
        std = combined(one, [0.0] * 5, asked, 7.0, 9.0)[1][:, 0]
        np.testing.assert_allclose(std, factors * own, rtol=1e-6)
        total, *_ = one.joint(0, torch.full((5,), 9.0).double(), np.zeros(5), asked)
        np.testing.assert_allclose(total, std, rtol=1e-6)


def test_it_is_the_same_after_storing(tmp_path):
    loud = torch.as_tensor(np.concatenate([X[:1], [[0.4]]], 1))
    original = field(weight=0.7, spread=0.9, within=1.2, observed=Ahead(Decay(3.0, 0.25, 5.0), (1.0, 4.0), (1.2, 2.0)),
                     fewest=7.0, new=Ahead(Decay(), (1.0, 4.0), (1.0, 2.0), (0.3, 0.6)), known=X[:2], kriged=True)
    louder = replace(COVARIANCE, loud=loud, others=((0.3, COVARIANCE.at(COVARIANCE.parameters + 0.1)),))
    original = replace(original, channels=(replace(original.channels[0], covariance=louder), None))
    save_tensors(tmp_path / "field", original.state())
    again = ResidualField.from_state(load_tensors(tmp_path / "field")[0])
    x = np.concatenate([X[:2], np.random.default_rng(4).uniform(0, 1, (3, 2))])
    both = [combined(conditioned(one), [1.3, 2.0, 4.0, 9.0, -1.0], x, 0.5, 2.0) for one in (original, again)]
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))


def test_that_of_an_earlier_version_is_refused_in_one_sentence():
    for state in ({"covariances": []}, {"channels": [None, {"offsets": torch.zeros(3)}]}):
        with pytest.raises(UserError, match="train it again"):
            ResidualField.from_state(state)


def test_that_of_a_version_with_one_factor_ahead_and_a_growth_has_factors_at_leads():
    state = field().state()
    before = state["channels"][0]
    del before["ahead"]
    before |= {"decay": {"memory": 2.0, "kept": 0.1, "own": True}, "spread": [1.5, 0.5], "growth": [0.3, 0.5]}
    channel = ResidualField.from_state(state).channels[0]
    assert channel.spread == 1.5 and channel.observed == channel.new and channel.new.decay == Decay(2.0, 0.1, 0.0)
    away = np.array([0.0, 1.0, 16.0])
    expected = (0.5 + np.exp(-away)) ** 2 + 0.09 * away / float(COVARIANCE.variance + COVARIANCE.nugget)
    np.testing.assert_allclose(channel.new.factor(away), np.sqrt(expected), rtol=1e-12)


def test_far_away_it_is_the_mean_with_the_whole_variance():
    mean, variance = conditioned(field()).own(0, np.full(1, 1e5), np.array([[90.0, 0.0]]))
    assert float(mean) == pytest.approx(0.0) and float(variance) == pytest.approx(1.15)


def test_a_channel_without_a_field_is_left_to_its_codes():
    mean, std = combined(conditioned(field()), [1.0, 5.0], X[:2], 7.0, 0.3)
    assert (mean[:, 1] == 7).all() and (std[:, 1] == 0.3).all()
    assert (mean[0, 0] != 7).all()


def test_its_weight_decays_after_the_last_observation():
    own = conditioned(field()).own(0, np.full(1, 2.0), X[:1])
    one = conditioned(field(weight=0.8, decay=Decay(4.0, 0.25)), edge=0.5)
    mean, std = combined(one, [2.0, 2.0 + 1e-9, 6.0, 1e5], X[[0, 0, 0, 0]], 7.0, 0.3)
    weights = 0.8 * np.array([1.0, 1.0, 0.25 + 0.75 * np.exp(-1), 0.25])
    base = np.array([7.0, 0.5, 0.5, 0.5])  # after the last time, what codes gave there at that time
    np.testing.assert_allclose(mean[:, 0], 7.0 + weights * (float(own[0]) - base), atol=1e-6)
    np.testing.assert_allclose(std[:, 0], weights * float(own[1]) ** 0.5 + (1 - weights) * 0.3, atol=1e-6)
    own = conditioned(field()).own(0, np.full(1, 6.0), X[:1])
    mean, _ = combined(conditioned(field(decay=Decay(np.inf, 0.0, 0.0))), [6.0], X[:1], 7.0, 0.3)
    assert float(mean[0, 0]) == pytest.approx(float(own[0]))


def test_what_it_differs_by_at_the_last_observation_is_held_and_forgotten():
    """Of the difference a time h later, exp(-h / held) is that of the last observation."""
    field_ = field(observed=Ahead(Decay(np.inf, 0.0, 2.0), (1.0, 7.0), (1.5, 6.0)), new=Ahead(Decay(4.0)))
    one, where, stays = conditioned(field_, edge=0.5), np.array([[0.5, 0.5]]), np.exp(-1.5)
    last, now = (one.own(0, np.full(1, t), X[:1]) for t in (2.0, 5.0))
    mean, std = combined(one, [5.0, 5.0], np.concatenate([X[:1], where]), 0.7, 0.3)
    assert float(mean[0, 0]) == pytest.approx(0.7 + float(stays * (last[0] - 0.5) + (1 - stays) * (now[0] - 0.7)))
    deviation = float(stays * last[1].sqrt() + (1 - stays) * now[1].sqrt())
    assert float(std[0, 0]) == pytest.approx(3 * deviation)  # half way between 2 and 8 of 1 + time
    kriged = float(one.own(0, np.full(1, 2.0), where)[0])
    assert float(mean[1, 0]) == pytest.approx(0.7 + np.exp(-0.75) * (kriged - 0.5))
    t = np.array([1.0, 3.0, 5.0])
    whole, codes, process = one.joint(0, torch.full((3,), 0.3).double(), t, X[[0, 0, 0]])
    assert codes.tolist() == pytest.approx([0.0] * 3)
    np.testing.assert_allclose(whole[1:], combined(one, [3.0, 5.0], X[[0, 0]], 0.7, 0.3)[1][:, 0])
    assert bool((torch.linalg.eigvalsh(process) > -1e-9).all()) and bool((process.diagonal() < 1).all())


def test_without_memory_it_vanishes_continuously_within_a_step():
    away = np.linspace(0, 1, 200)
    weights = Decay()(away)
    assert weights[0] == 1 and weights[-1] < 1e-6 and np.abs(np.diff(weights)).max() < 0.02


def test_on_the_codes_it_adds_what_they_leave():
    plain = conditioned(field()).own(0, np.ones(1), X[:1])
    mean, std = combined(conditioned(field(on_codes=True), codes=0.5), [1.0], X[:1], 0.5, 1e-3)
    left = Conditioned(field(), replace(rows(), u=rows().u - 0.5), np.zeros((36, 2)), lambda t, x: torch.empty(0))
    assert float(mean[0, 0]) == pytest.approx(0.5 + float(left.own(0, np.ones(1), X[:1])[0]))
    assert float(std[0, 0]) == pytest.approx(float(plain[1]) ** 0.5)
    unsure = combined(conditioned(field(on_codes=True), codes=0.5), [1.0], X[:1], 0.5, 3.0)[1]
    assert float(unsure[0, 0]) == pytest.approx((9.0 - (1.15 - float(plain[1]))) ** 0.5)


def test_rows_keep_values_places_and_delays():
    u = torch.tensor([[[[1.0], [torch.nan]], [[2.0], [3.0]]]])
    x = torch.tensor([[[[0.0], [1.0]]]])
    one = rows_of(torch.tensor([[0.0, 1.0]]).double(), x, u, torch.full((1, 2, 2), 0.25).double())[0]
    assert one.t.tolist() == [0.25, 1.25, 1.25] and one.x[:, 0].tolist() == [0.0, 0.0, 1.0]
    assert one.place.tolist() == [0, 0, 1] and one.u[:, 0].tolist() == [1.0, 2.0, 3.0]
    both = joined([one, one])
    assert np.diff(both.t)[2] > 100 and both.place.tolist() == [0, 0, 1] * 2


def test_a_channel_that_is_not_observed_any_more_is_forecast_though_another_one_is():
    one = ResidualField(PLACES, (ChannelField(COVARIANCE, observed=Ahead(Decay(0.1))), ChannelField(COVARIANCE)))
    later = rows()
    later.u[12:, 0] = np.nan  # seen in the first frame alone
    both = Conditioned(one, later, np.zeros((36, 2)), lambda t, x: torch.zeros(len(t), len(x), 2).double())
    mean, std = combined(both, [2.0] * 12, X, 0.3, 0.2)
    assert mean[:, 0].tolist() == pytest.approx([0.3] * 12) and std[:, 0].tolist() == pytest.approx([0.2] * 12)
    assert (mean[:, 1] - 0.3).abs().max() > 0.1  # kriged


def test_loud_places_tell_less_of_new_ones_and_as_much_of_themselves():
    random = np.random.default_rng(1)
    x, t = random.uniform(0, 1, (60, 2)), np.arange(80.0)
    k, phase = 3 * random.standard_normal((40, 2)), np.cumsum(0.3 * random.standard_normal((80, 40)), 0)
    u = np.cos((x @ k.T)[None] - phase[:, None]).sum(-1) / 4.5 + 0.1 * random.standard_normal((80, 60))
    loud = [3, 11, 20]
    u[:, loud] += 3 * np.sin(2 * np.pi * (t[:, None] / 7 + random.uniform(0, 1, 3)))  # of these places alone
    given = Rows(np.repeat(t, 30), np.tile(x[:30], (80, 1)), u[:, :30].reshape(-1, 1), np.tile(np.arange(30), 80))
    channel = ChannelField.fit(PLACES, given, 0, richer=False)
    assert {tuple(place[:2]) for place in channel.covariance.loud.tolist()} == {tuple(x[place]) for place in loud}
    plain = replace(channel, covariance=replace(channel.covariance, loud=torch.empty(0, 1)))
    answers = []
    for one in (channel, plain):
        kriged = Conditioned(ResidualField(PLACES, (one,)), given, np.zeros((2400, 1)), lambda t, x: torch.empty(0))
        new = kriged.own(0, np.repeat(t, 30), np.tile(x[30:], (80, 1)))[0].numpy()
        own = kriged.own(0, np.full(3, 5.0), x[loud])[0].tolist()
        answers.append((np.mean((new - u[:, 30:].reshape(-1)) ** 2), own))
        parts = kriged.joint(0, torch.ones(60).double(), np.full(60, 5.0), x)
        alone = kriged.own(0, np.full(60, 5.0), x)[1]
        assert parts is not None and parts[0].numpy() == pytest.approx(alone.sqrt().numpy())  # std of joint samples
        assert parts[2].diagonal().numpy() == pytest.approx((1 - one.covariance.nugget / alone).numpy(), abs=1e-6)
    assert answers[0][0] < 0.9 * answers[1][0]
    assert answers[0][1] == answers[1][1]


def test_rows_of_a_sensor_that_moves_are_of_one_place_to_be_left_out():
    random = np.random.default_rng(5)
    t, x = torch.arange(4.0).double()[None], torch.as_tensor(random.uniform(0, 1, (1, 4, 3, 2)))
    u = torch.ones(1, 4, 3, 1)
    u[0, 1, 2] = torch.nan
    one = rows_of(t, x, u)[0]
    places = joined([one, replace(one, x=one.x + 1)]).place.tolist()
    assert places == [0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 2] + [3, 4, 5, 3, 4, 3, 4, 5, 3, 4, 5]
    late = rows_of(t, x, u, torch.zeros(1, 4, 3).double())[0]  # rows with times of their own are of no known sensor
    assert len(np.unique(joined([late]).place)) == 11
