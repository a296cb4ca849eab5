"""Covariances against Bessel functions, and positive on circles and spheres."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import gamma, kv

from inrflow.encoding.residual.covariance import SMOOTHNESS, Covariance, Form, matern
from inrflow.encoding.residual.places import Places


@pytest.mark.parametrize("smoothness", SMOOTHNESS)
def test_matern_functions_are_those_of_bessel(smoothness):
    r = np.linspace(0.01, 4, 50)
    scaled = np.sqrt(2 * smoothness) * r
    exact = 2 ** (1 - smoothness) / gamma(smoothness) * scaled**smoothness * kv(smoothness, scaled)
    np.testing.assert_allclose(matern(torch.as_tensor(r), smoothness).numpy(), exact, rtol=1e-10)


def test_a_smoothness_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="1/2, 3/2 and 5/2"):
        matern(torch.ones(1), 2.0)


@pytest.mark.parametrize(("places", "draw"), [
    (Places((1.0, 0.0)), lambda random: random.uniform(0, 1, (60, 2))),
    (Places((0.0, 0.0, 0.0), sphere=True), lambda random: random.standard_normal((60, 3))),
])
def test_covariances_are_positive_where_distances_are_chordal(places, draw):
    random = np.random.default_rng(0)
    x = draw(random)
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if places.sphere else x
    form = Form((2.5, 0.5), 1.5, places.groups, places.moving, drift=any(places.moving))
    lengths = [[0.5] * form.lengths, [0.2] * form.lengths]
    covariance = Covariance.of(form, [0.3, 1.0, 0.5], [2.0, 1.0, 3.0], 0.1, lengths, [0.7] * sum(places.moving)
                               if form.drift else None)
    t, y = torch.as_tensor(random.uniform(0, 5, 60)), torch.as_tensor(places(x))
    matrix = covariance(t, y, t, y)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix.diagonal(), torch.full((60,), 1.8, dtype=torch.float64), atol=1e-7, rtol=0)
    assert float(torch.linalg.eigvalsh(matrix).min()) > -1e-7


def test_a_trend_is_a_slope_that_is_not_known():
    form = Form((1.5,), 0.5, (0, 1), (True, True), trend=(False, True))
    covariance = Covariance.of(form, [1e-12, 1e-12], [1.0, 1.0], 0.1, [[1.0, 1.0]], slopes=[4.0])
    t, y = torch.zeros(3, dtype=torch.float64), torch.tensor([[5.0, 1.0], [-3.0, 2.0], [0.0, 3.0]]).double()
    torch.testing.assert_close(covariance(t, y, t, y), 4 * torch.outer(y[:, 1], y[:, 1]), atol=1e-9, rtol=0)
    torch.testing.assert_close(covariance.variance_at(y), 4 * y[:, 1].square(), atol=1e-9, rtol=0)


def test_a_field_that_drifts_is_the_same_at_places_that_move_with_it():
    form = Form((1.5,), 0.5, (0, 1), (True, True), drift=True)
    covariance = Covariance.of(form, [1e-12, 1.0], [1.0, 1e9], 0.1, [[0.3, 0.6]], [2.0, -1.0])
    t, y = torch.tensor([0.0, 4.0]).double(), torch.tensor([[0.1, 0.2], [8.1, -3.8]]).double()
    assert float(covariance(t, y, t, y)[0, 1]) == pytest.approx(1.0, abs=1e-6)


def test_where_several_forms_may_be_true_it_is_that_of_draws_of_which_chance_tells_the_form():
    random, t = np.random.default_rng(3), torch.tensor([0.0, 0.0, 1.0, 2.0]).double()
    y = torch.tensor([[0.1, 0.2], [0.4, 0.9], [0.4, 0.9], [0.8, 0.1]]).double()
    rough = Covariance.of(Form((0.5,), 0.5, (0, 0), (True, True)), [0.1, 2.0], [3.0, 3.0], 0.2, [[0.5]])
    level = Covariance.of(Form((1.5,), 1.5, (0, 0), (True, True), trend=(True, True)), [1.0, 0.3], [3.0, 3.0], 0.6,
                          [[0.5]], slopes=[2.0, 1.0])
    drawn = []
    for one, count in ((rough, 75_000), (level, 25_000)):
        whole = one(t, y, t, y).numpy() + float(one.nugget) * np.eye(4)
        drawn.append(np.linalg.cholesky(whole) @ random.standard_normal((4, count)))
    both = replace(rough, others=((0.25, level),))
    matrix = both(t, y, t, y) + both.nugget * torch.eye(4)
    np.testing.assert_allclose(np.concatenate(drawn, 1) @ np.concatenate(drawn, 1).T / 1e5, matrix, atol=0.05)
    torch.testing.assert_close(both(t, y, t, y).diagonal(), both.variance_at(y))
    assert float(both.variance) == pytest.approx(0.75 * 2.1 + 0.25 * 1.3)


def test_slopes_along_squares_are_those_of_the_formula():
    random = np.random.default_rng(3)
    t, y = torch.zeros(7, dtype=torch.float64), torch.as_tensor(random.standard_normal((7, 2)))
    plain = Covariance.of(Form((1.5,), 0.5, (0, 1), (True, True)), [0.3, 1.0], [2.0, 3.0], 0.1, [[0.5, 0.7]])
    form = Form((1.5,), 0.5, (0, 1), (True, True), trend=(False, True), curved=True)
    curved = Covariance.of(form, [0.3, 1.0], [2.0, 3.0], 0.1, [[0.5, 0.7]], slopes=[0.4, 0.2])
    assert form.size == len(curved.parameters)
    z = y[:, 1].numpy()
    added = 0.4 * np.outer(z, z) + 0.2 * np.outer(z**2, z**2)
    np.testing.assert_allclose((curved(t, y, t, y) - plain(t, y, t, y)).numpy(), added, atol=1e-12)
    np.testing.assert_allclose(curved.variance_at(y).numpy(), 1.3 + np.diag(added), atol=1e-12)


def test_errors_of_places_last_and_are_of_these_alone():
    random = np.random.default_rng(4)
    place, t = np.array([0, 0, 1, 1, 2]), np.array([0.0, 1.5, 0.0, 4.0, 2.0])
    y = random.uniform(0, 1, (3, 2))[place]
    plain = Covariance.of(Form((1.5,), 0.5, (0, 1), (True, True)), [0.3, 1.0], [2.0, 3.0], 0.1, [[0.5, 0.7]])
    form = Form((1.5,), 0.5, (0, 1), (True, True), drift=True, trend=(True, True), site=True)
    own = Covariance.of(form, [0.3, 1.0], [2.0, 3.0], 0.1, [[0.5, 0.7]], [0.0, 0.0], [1e-15, 1e-15], (0.4, 5.0))
    assert form.size == len(own.parameters)
    both = [torch.as_tensor(v) for v in (t, y, t, y)]
    added = 0.4 * np.exp(-np.abs(t[:, None] - t) / 5) * (place[:, None] == place)
    np.testing.assert_allclose((own(*both) - plain(*both)).numpy(), added, atol=1e-12)
    np.testing.assert_allclose(own.variance_at(both[1]).numpy(), 1.7, atol=1e-12)
    assert not own.rigid().form.site and own.rigid().form.size == len(own.rigid().parameters)


def test_a_region_of_a_sphere_lies_in_the_plane_with_its_distances():
    random = np.random.default_rng(3)
    lon, lat = np.radians(random.uniform(-60, -40, 40)), np.radians(random.uniform(60, 75, 40))
    x = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    places = Places.of((0.0, 0.0, 0.0), True, np.stack([x.min(0), x.max(0)]))
    y, angle = places(x), np.arccos(np.clip(x @ x.T, -1, 1))
    distance = np.linalg.norm(y[:, None] - y, axis=-1)
    assert np.abs(distance - angle).max() < 0.03 * angle.max()
    assert (places.groups, places.moving) == ((0, 1), (True, True))
    assert np.linalg.norm(places(-x[:1]) - y[:1]) > 10  # the other side is far away
    lower, higher = (places(np.array([np.cos(a) * np.cos(-0.87), np.cos(a) * np.sin(-0.87), np.sin(a)]))
                     for a in (1.1, 1.2))
    assert higher[1] > lower[1]
    whole = Places.of((0.0, 0.0, 0.0), True, np.array([[-1.0, -1, -1], [1, 1, 1]]))
    assert np.array_equal(whole(x), x)
