"""Gaps in time of fields: windows of observed frames, and values interpolated between frames."""

import numpy as np
import pytest

from inrflow.encoding.harmonic.gaps import (
    interpolated_in_time,
    interpolation_pays,
    observed_windows,
    without_gaps,
)


def test_windows_of_complete_fields_are_their_trajectories():
    number, frames = observed_windows(np.zeros((3, 6, 4, 2)), 0.1)
    assert number.tolist() == [0, 1, 2]
    assert frames.tolist() == [list(range(6))] * 3


def test_windows_have_observed_frames_alone_and_start_where_others_end():
    u = np.zeros((2, 12, 5, 2))
    u[0, [2, 7]] = np.nan  # nothing seen
    u[1, 5:, :, 1] = np.nan  # a channel ends
    u[0, 4, 1:] = np.nan  # few values suffice
    number, frames = observed_windows(u, 0.1)
    assert number.tolist() == [0, 0, 1]
    assert frames.tolist() == [[0, 1, 3, 4, 5], [5, 6, 8, 9, 10], [0, 1, 2, 3, 4]]


def test_no_window_has_a_long_gap():
    u = np.zeros((1, 20, 3, 1))
    u[0, 6:13] = np.nan
    assert observed_windows(u, 0.1)[1].tolist() == [[0, 1, 2, 3, 4, 5], [13, 14, 15, 16, 17, 18]]


def test_missing_values_are_those_of_the_cubic_through_two_frames_on_each_side():
    t = np.sort(np.random.default_rng(0).uniform(size=(3, 9)), 1)
    exact = np.stack([1 - t + 2 * t**2 - 3 * t**3, t**3 - t], -1)[:, :, None]
    u = exact.copy()
    u[0, 4, 0, 0] = u[1, 3:5] = u[2, 6, 0, 1] = np.nan
    np.testing.assert_allclose(interpolated_in_time(t, u), exact, atol=1e-9)


def test_values_before_the_first_and_in_long_gaps_stay_missing():
    t, u = np.arange(12.0)[None], np.ones((1, 12, 1, 1))
    u[0, [0, 3, 4, 5, 6, 7]] = np.nan
    assert np.isnan(interpolated_in_time(t, u)[0, :, 0, 0]).nonzero()[0].tolist() == [0, 3, 4, 5, 6, 7]
    u[0, 7] = 1.0
    assert np.isnan(interpolated_in_time(t, u)[0, :, 0, 0]).nonzero()[0].tolist() == [0]
    u[0, 1] = np.nan
    np.testing.assert_allclose(interpolated_in_time(t, u)[0, 3:7], 1.0, atol=1e-12)  # one frame before, four after


def waves(rate):
    """Waves on a line, t (3, 12), x (3, 60, 1), u (3, 12, 60, 1)."""
    t, x = np.tile(np.arange(12.0), (3, 1)), np.tile(np.linspace(0, 1, 60)[:, None], (3, 1, 1))
    phase = np.arange(3)[:, None, None, None] + rate * t[..., None, None]
    return t, x, np.sin(9 * x[:, None] + phase)


@pytest.mark.parametrize("rate", [0.15, 2.5])
def test_clouds_are_filled_in_time_where_frames_are_close(rate):
    t, x, exact = waves(rate)
    u = exact.copy()
    for n in range(12):
        u[:, n, 5 * n % 45 : 5 * n % 45 + 15] = np.nan
    assert interpolation_pays(t, x, u) == (rate < 1)
    number, times, filled = without_gaps(t, x, u)
    if rate < 1:
        at = times.astype(int)
        assert np.isnan(filled).mean() < 0.05 < np.isnan(u).mean() and times.shape[1] >= 8
        np.testing.assert_allclose(filled, np.where(np.isnan(filled), np.nan, exact[number[:, None], at]), atol=0.02)
    else:
        np.testing.assert_array_equal(filled, u)


def test_values_missing_here_and_there_are_left_to_their_neighbours():
    t, x, exact = waves(1.0)
    u = np.where(np.random.default_rng(0).random(exact.shape) < 0.3, np.nan, exact)
    assert not interpolation_pays(t, x, u)
