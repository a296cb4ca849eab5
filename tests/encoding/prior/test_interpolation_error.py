"""Variance between observed points: against fits repeated without each point, and against fields that are known."""

import pytest
import torch

from inrflow.encoding.prior.interpolation_error import InterpolationError, interpolation_error, leave_one_out_errors

HALF = 1.6448536269514722


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_errors_are_those_of_fits_without_each_point():
    features, values = normal(30, 8, seed=1), normal(30, 3, seed=2)
    missed, ridge = leave_one_out_errors(features, values)
    strength = ridge * (features.T @ features).diagonal().mean()
    for i in (0, 7, 29):
        rows = torch.arange(30) != i
        gram = features[rows].T @ features[rows] + strength * torch.eye(8, dtype=torch.float64)
        weights = torch.linalg.solve(gram, features[rows].T @ values[rows])
        torch.testing.assert_close(missed[i], values[i] - features[i] @ weights)


def test_variance_vanishes_at_observed_points_and_grows_between_them():
    points = uniform(50, 2, seed=3)
    unseen = InterpolationError.between(points, torch.full((50, 2), 0.3, dtype=torch.float64))
    torch.testing.assert_close(unseen(points), torch.zeros(50, 2).double(), rtol=0, atol=1e-10)
    away = unseen(torch.tensor([[[5.0, 5.0]]], dtype=torch.float64))
    torch.testing.assert_close(away, torch.full((1, 1, 2), 0.3).double())
    spacing = unseen.spacing[0]
    near = points[:1] + torch.tensor([[0.01, 0.0]], dtype=torch.float64) * spacing
    assert 0 < float(unseen(near).max()) < 1e-3


def test_a_single_place_is_known_and_all_others_are_as_unknown_as_its_variance():
    known = InterpolationError.between(torch.zeros(1, 2), torch.tensor([[0.3]]))
    assert known(torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 1.0]]))[:, 0].tolist() == pytest.approx([0.0, 0.3, 0.3])


def test_points_that_are_there_twice_as_at_a_pole_are_known_and_no_place_is_not_a_number():
    points = torch.tensor([[0.0, 0.0, 1.0]] * 3 + [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]).double()
    error = InterpolationError.between(points, torch.ones(5, 1).double())
    found = error(torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.1, 0.0, 0.99]]))[:, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 1.0]).double())


def test_without_points_there_is_no_variance_anywhere():
    unseen = InterpolationError.none(3, 2)
    torch.testing.assert_close(unseen(uniform(4, 5, 3, seed=1)), torch.zeros(4, 5, 2).double())


def waves(x, count, seed, rough=1.0):
    """Random fields (count, N, 2), the first channel four times the second; rougher at the right for rough > 1."""
    phase, direction = 6.28 * uniform(count, 40, seed=seed), 6 * normal(40, 2, seed=seed + 1)
    weight = normal(count, 40, seed=seed + 2)
    place = torch.cat([x[:, :1] ** rough, x[:, 1:]], 1)
    field = (weight[:, None] * torch.cos((place @ direction.T)[None] + phase[:, None])).sum(-1)
    return torch.stack([4 * field, field], -1)


def random_features(x, seed=9):
    """As many as there are points and more, so that the fit passes through the observed values."""
    return torch.cos(x @ (5 * normal(150, 2, seed=seed)).T + 6.28 * uniform(150, seed=seed + 1))


@pytest.mark.parametrize("rough", [1.0, 3.0])
def test_intervals_hold_their_share_at_points_that_nobody_saw(rough):
    x = uniform(160, 2, seed=4)
    u = waves(x, 30, seed=20, rough=rough)
    held = torch.arange(0, 160, 8)
    unseen = interpolation_error(x, random_features(x), u, held)
    fresh = uniform(300, 2, seed=5)
    truth = waves(fresh, 30, seed=20, rough=rough)
    kept = torch.ones(160, dtype=torch.bool)
    kept[held] = False
    design, values = random_features(x[kept]), u[:, kept].transpose(0, 1).flatten(1)
    _, ridge = leave_one_out_errors(design, values)
    gram = design.T @ design
    gram = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weights = torch.linalg.solve(gram, design.T @ values)
    fitted = (random_features(fresh) @ weights).unflatten(1, (30, 2)).transpose(0, 1)
    std = unseen(fresh).sqrt()
    inside = ((fitted - truth).abs() <= HALF * std).double().mean((0, 1))
    # Twenty held points, hardly independent of each other, set the scale: some percent either way.
    torch.testing.assert_close(inside, torch.full((2,), 0.9).double(), rtol=0, atol=0.09)


def test_frames_that_miss_values_are_left_out_and_without_complete_frames_nothing_is_known():
    x, held = uniform(60, 2, seed=4), torch.arange(0, 60, 6)
    u = waves(x, 10, seed=20)
    gappy = u.clone()
    gappy[6:, 3] = torch.nan
    some, few = (interpolation_error(x, random_features(x), v, held) for v in (gappy, u[:6]))
    torch.testing.assert_close(some.variance, few.variance)
    u[:, 3] = torch.nan
    assert len(interpolation_error(x, random_features(x), u, held).points) == 0


def test_points_that_a_later_fit_has_seen_are_known_too():
    x = uniform(60, 2, seed=4)
    variance = torch.linspace(0.1, 0.4, 30, dtype=torch.float64)[:, None]
    unseen = InterpolationError.between(x[::2], variance).known_also(x)
    torch.testing.assert_close(unseen(x), torch.zeros(60, 1).double(), rtol=0, atol=1e-10)
    between = unseen(uniform(500, 2, seed=6))
    assert 0 < float(between.min()) and float(between.max()) <= 0.4
    assert not len(InterpolationError.none(2, 1).known_also(x).points)


def test_points_without_spacing_have_the_variance_that_is_given():
    error = InterpolationError(torch.zeros(2, 1).double(), torch.zeros(2).double(), torch.ones(2, 1).double())
    assert error(torch.tensor([[0.0], [1.0]]).double()).tolist() == [[0.0], [1.0]]
