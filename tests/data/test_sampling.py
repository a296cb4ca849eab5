"""Observed subsets and held-out trajectories: functions of their arguments alone."""

import numpy as np
import pytest

from inrflow.data.sampling import observed_points, split_trajectories
from inrflow.errors import UserError


def test_observed_points_are_a_function_of_seed_trajectory_and_fraction():
    chosen = observed_points(3, 5, 1000, 0.25)
    np.testing.assert_array_equal(chosen, observed_points(3, 5, 1000, 0.25))
    assert len(chosen) == 250 and (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < 1000
    assert not np.array_equal(chosen, observed_points(3, 6, 1000, 0.25))
    assert not np.array_equal(chosen, observed_points(4, 5, 1000, 0.25))


def test_same_points_for_all_trajectories_on_request():
    first, other = (observed_points(3, trajectory, 100, 0.3, same=True) for trajectory in (5, 9))
    np.testing.assert_array_equal(first, other)


def test_every_point_is_equally_likely():
    counts = np.zeros(20)
    for trajectory in range(2000):
        counts[observed_points(0, trajectory, 20, 0.5)] += 1
    assert np.abs(counts / 2000 - 0.5).max() < 0.05  # 4.5 standard deviations


def test_at_least_one_point_and_all_of_them_at_one():
    assert len(observed_points(0, 0, 10, 0.001)) == 1
    np.testing.assert_array_equal(observed_points(0, 0, 10, 1.0), np.arange(10))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_other_fractions_are_refused(fraction):
    with pytest.raises(UserError, match="fraction"):
        observed_points(0, 0, 10, fraction)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 64])
def test_a_split_holds_every_trajectory_once_and_one_to_validate(count):
    train, validation = split_trajectories(count, 0.2, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(count))
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all() and len(train) >= 1
    assert len(validation) == (0 if count == 1 else max(1, round(0.2 * count)))
    again = split_trajectories(count, 0.2, seed=1)
    np.testing.assert_array_equal(train, again[0])


def test_split_depends_on_the_seed_and_refuses_nonsense():
    assert not np.array_equal(split_trajectories(64, seed=0)[1], split_trajectories(64, seed=1)[1])
    assert len(split_trajectories(5, 0.0)[1]) == 0
    with pytest.raises(UserError, match="fraction"):
        split_trajectories(5, 1.0)
    for call in (lambda: split_trajectories(5, seed=-1), lambda: observed_points(-1, 0, 10, 0.5)):
        with pytest.raises(UserError, match="seed is -1"):
            call()
    with pytest.raises(UserError, match="trajectories"):
        split_trajectories(0)
