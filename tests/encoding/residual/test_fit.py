"""The composite likelihood against scipy's Gaussian density, its gradient, places left out, and what is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from inrflow.encoding.residual import fit
from inrflow.encoding.residual.blocks import Blocks, Samples, blocks_of
from inrflow.encoding.residual.covariance import DOUBTFUL, Covariance, Form
from inrflow.encoding.residual.fit import degrees_of_freedom_factor, fit_covariance, lasting_covariance, start
from inrflow.numerics.effort import Limit, effort

FORM = Form((1.5,), 0.5, (0, 1), (True, True))
TRUE = Covariance.of(FORM, [1e-3, 1.0], [5.0, 5.0], 0.1, [[0.6, 0.2]])


def draw(places: int, times: int, seed: int = 0, true: Covariance = TRUE) -> Samples:
    """A draw at fixed places."""
    random = np.random.default_rng(seed)
    x = random.uniform(0, 1, (places, 2))
    t, y = np.repeat(np.arange(float(times)), places), np.tile(x, (times, 1))
    tt, yy = torch.as_tensor(t), torch.as_tensor(y)
    covariance = true(tt, yy, tt, yy).numpy() + float(true.nugget) * np.eye(len(t))
    value = np.linalg.cholesky(covariance) @ random.standard_normal(len(t))
    return Samples(t, y, np.tile(np.arange(places), times), value)


def two_blocks(seed: int = 0) -> Blocks:
    """Of 6 and 4 values at three places."""
    random = np.random.default_rng(seed)
    missing = torch.zeros(2, 6, dtype=torch.bool)
    missing[1, 4:] = True
    value = torch.as_tensor(random.standard_normal((2, 6))).masked_fill(missing, 0.0)
    t, y = torch.as_tensor(random.uniform(0, 3, (2, 6))), torch.as_tensor(random.uniform(0, 1, (2, 6, 2)))
    return Blocks(t, y, value, torch.tensor([[0, 0, 1, 1, 2, 2]] * 2), missing, 0.0)


def covariance_of(data: Blocks, block: int, count: int) -> np.ndarray:
    t, y = data.t[block, :count], data.y[block, :count]
    return TRUE(t, y, t, y).numpy() + 0.1 * np.eye(count)


def test_the_likelihood_is_that_of_gaussian_blocks():
    data = two_blocks()
    exact = sum(multivariate_normal(cov=covariance_of(data, b, n)).logpdf(data.value[b, :n].numpy())
                for b, n in ((0, 6), (1, 4)))
    assert float(data.negative_log_density(TRUE)) == pytest.approx(-exact / 10)


def test_a_place_is_left_out_with_all_of_its_values():
    data = two_blocks()
    errors, variances = data.places_left_out(TRUE)
    whole, u = covariance_of(data, 0, 6), data.value[0].numpy()
    for place in range(3):
        own, others = np.arange(6) // 2 == place, np.arange(6) // 2 != place
        weights = np.linalg.solve(whole[np.ix_(others, others)], whole[np.ix_(others, own)])
        np.testing.assert_allclose(errors[:6][own], u[own] - weights.T @ u[others], atol=1e-9)
        left = whole[np.ix_(own, own)] - weights.T @ whole[np.ix_(others, own)]
        np.testing.assert_allclose(variances[:6][own], np.diag(left), atol=1e-9)


def test_the_gradient_of_the_likelihood_is_that_of_finite_differences():
    form = Form((2.5, 0.5), 1.5, (0, 1), (True, True), drift=True, trend=(True, True), site=True)
    covariance = Covariance.of(form, [0.2, 1.0, 0.4], [3.0, 2.0, 1.0], 0.1, [[0.6, 0.2], [0.1, 0.2]], [0.1, 0.2],
                               [0.3, 0.1], (0.2, 4.0))
    assert torch.autograd.gradcheck(lambda theta: two_blocks().misfit(covariance.at(theta)),
                                    covariance.parameters.clone().requires_grad_(), eps=1e-5, atol=1e-5)


@pytest.mark.parametrize("outlier", [0.0, 80.0])
def test_the_covariance_of_a_drawn_field_is_found(outlier):
    samples = draw(40, 20)
    samples.value[::97] += outlier
    found = fit_covariance(samples, FORM.groups, FORM.moving, richer=False)
    assert 0.05 < float(found.nugget) < 0.2
    judge = blocks_of(draw(40, 20, seed=5), np.random.default_rng(0))
    with torch.no_grad():
        assert float(judge.negative_log_density(found)) < float(judge.negative_log_density(TRUE)) + 0.05


@pytest.mark.parametrize("variance", [0.0, 0.6])
def test_errors_of_places_that_last_are_found_where_there_are_some(variance, monkeypatch):
    samples = draw(30, 15)
    samples.value += variance**0.5 * np.random.default_rng(3).standard_normal(30)[samples.place]
    with monkeypatch.context() as patch:  # the form is chosen before its parameters are fitted
        patch.setattr(fit, "_ITERATIONS", 1)
        assert fit_covariance(samples, FORM.groups, FORM.moving, richer=False).form.site
    found = fit_covariance(samples, FORM.groups, FORM.moving, near=start(samples, replace(FORM, site=True)))
    size, memory = found.site.tolist()
    assert (0.3 < size < 1.2 and memory > 20) if variance else size < 0.1
    assert 0.05 < float(found.nugget) < 0.2


def test_what_lasts_at_its_own_places_is_told_from_noise_and_says_nothing_of_others():
    random, places = np.random.default_rng(0), 40
    held, noise = np.zeros((400, places)), random.standard_normal((400, places))
    for k in range(1, 400):
        held[k] = 0.8 * held[k - 1] + 0.6 * random.standard_normal(places)  # of unit variance
    y, t = np.tile(random.uniform(0, 1, (places, 2)), (400, 1)), np.repeat(3.0 * np.arange(400), places)
    samples = Samples(t, y, np.tile(np.arange(places), 400), (held + noise).ravel())
    found = lasting_covariance(samples, (0, 1), (True, True))
    assert found.site.tolist() == pytest.approx([1.0, -3 / np.log(0.8)], rel=0.1)
    assert float(found.nugget) == pytest.approx(1.0, rel=0.1)
    when = torch.zeros(2, dtype=torch.float64)
    between = found(when, torch.as_tensor(y[:2]), when + 3, torch.as_tensor(y[:2]))
    np.testing.assert_allclose(between, 0.8 * np.eye(2), atol=0.05)


@pytest.mark.parametrize("showers", [True, False])
def test_values_far_from_others_are_doubted_where_they_are_faults_and_not_where_others_have_them_too(showers):
    random, samples = np.random.default_rng(2), draw(30, 60)
    if showers:
        away = samples.y[:, None] - random.uniform(0, 1, (60, 2))[samples.t.astype(int)][:, None]
        samples.value = 0.1 * samples.value + 9 * np.exp(-((away[:, 0] / 0.15) ** 2).sum(1)) * (samples.t % 4 == 0)
    else:
        samples.value[random.permutation(1800)[:20]] += 15 * random.standard_normal(20)
    found = fit_covariance(samples, FORM.groups, FORM.moving, richer=False)
    assert (found.doubtful > DOUBTFUL) is showers
    with effort.limited(Limit(until=-1.0)):  # no threshold is sought where time is over
        assert fit._with_doubt(replace(found, doubtful=DOUBTFUL), samples).doubtful == DOUBTFUL


def test_few_places_tell_no_direction_that_a_field_of_three_coordinates_does_not_have():
    form = Form((1.5,), 0.5, (0, 1, 2), (True,) * 3)
    even, ratios = Covariance.of(form, [1e-3, 1.0], [5.0, 5.0], 0.1, [[0.6] * 3]), []
    for seed in range(4):
        samples, random = draw(12, 20, seed), np.random.default_rng(seed)
        samples.y = np.column_stack([samples.y, np.tile(random.uniform(0, 1, 12), 20)])
        t, y = torch.as_tensor(samples.t), torch.as_tensor(samples.y)
        matrix = even(t, y, t, y).numpy() + 0.1 * np.eye(len(t))
        samples.value = np.linalg.cholesky(matrix) @ random.standard_normal(len(t))
        found = fit_covariance(samples, form.groups, form.moving, near=start(samples, form))
        ratios.append(float(found.lengths[0].log().std()))
    assert np.mean(ratios) < 0.3  # .35 if each is free


def test_of_few_places_forms_with_and_without_a_trend_are_weighed_and_a_clear_one_is_alone(monkeypatch):
    monkeypatch.setattr(fit, "CHANGES", (*fit.CHANGES[:1], fit._trend))
    random, samples = np.random.default_rng(1), draw(16, 12)
    height, slope = random.uniform(-0.5, 0.5, 16), random.standard_normal(12)
    samples.y = np.column_stack([samples.y, np.tile(height, 12)])
    weights = []
    for size in (0.0, 10.0):
        value = samples.value + size * slope[samples.t.astype(int)] * samples.y[:, 2]
        found = fit_covariance(Samples(samples.t, samples.y, samples.place, value), (0, 1, 2), (True,) * 3)
        trends = [(1 - sum(share for share, _ in found.others), found), *found.others]
        weights.append(sum(share for share, one in trends if any(one.form.trend)))
    assert 0.1 < weights[0] < 0.9 and weights[1] > 0.99


def test_a_trend_is_found_where_there_is_one():
    random, samples = np.random.default_rng(1), draw(24, 20)
    height, slope = random.uniform(-0.5, 0.5, 24), 3 + np.cumsum(random.standard_normal(20)) / 4
    samples.y = np.column_stack([samples.y, np.tile(height, 20)])
    samples.value += 4 * slope[samples.t.astype(int)] * samples.y[:, 2]
    assert any(fit_covariance(samples, (0, 1, 2), (True,) * 3).form.trend)


def test_squares_are_found_where_values_follow_them_and_not_elsewhere(monkeypatch):
    monkeypatch.setattr(fit, "_ITERATIONS", 8)
    monkeypatch.setattr(fit, "CHANGES", (fit._trend, fit._curve))
    samples = draw(24, 12)
    height = np.random.default_rng(5).uniform(0, 1, 24)
    y = np.concatenate([samples.y, height[samples.place][:, None]], 1) - 0.5
    groups, moving = (0, 1, 2), (True,) * 3
    for curve, found in ((40.0, True), (0.0, False)):
        value = samples.value + 30 * y[:, 2] + curve * y[:, 2] ** 2
        form = fit_covariance(Samples(samples.t, y, samples.place, value), groups, moving).form
        assert any(form.trend) and form.curved is found


def test_blocks_hold_few_places_at_several_times_and_moving_points():
    for places, blocks, values in ((30, 14, 90), (140, 4, 228), (200, 14, 110)):  # fewer values, of more times
        data = blocks_of(draw(places, 12), np.random.default_rng(0))
        assert 1 < len(data.t[0].unique()) <= 3 and data.t.shape == (blocks, values)
    random = np.random.default_rng(0)
    drifting = Samples(random.uniform(0, 9, 500), random.uniform(0, 1, (500, 2)), np.arange(500), np.ones(500))
    assert blocks_of(drifting, random).t.shape[1] == 110


def test_what_is_spent_on_few_places_comes_back_as_of_least_squares():
    random = np.random.default_rng(2)
    design, noise = random.standard_normal((4000, 15, 4)), random.standard_normal((4000, 15, 1))
    across = design.swapaxes(1, 2)
    left = noise - design @ np.linalg.solve(across @ design, across @ noise)
    assert degrees_of_freedom_factor(15, 2) * left.std() == pytest.approx(1.0,
        abs=0.02) and degrees_of_freedom_factor(4000, 2) < 1.001


@pytest.mark.parametrize("memory", [0.5, 1.5])
def test_a_field_between_times_is_as_smooth_as_it_is_from_time_to_time(memory):
    true = Covariance.of(Form((1.5,), memory, (0, 0), (False, False)), [1e-3, 1.0], [6.0, 6.0], 1e-3, [[0.3]])
    found = fit_covariance(draw(10, 60, 3, true), (0, 0), (False, False))
    assert found.form.memory == memory
