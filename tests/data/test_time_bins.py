"""Rows with times of their own, gathered in bins."""

import numpy as np

from inrflow.data.description import Description
from inrflow.data.observations import Observations, TimeBins, is_scattered, window_of


def rows(count=500, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(2, 6, count), random.random((count, 2)), random.random((count, 1)).astype(np.float32)


def test_every_row_is_in_the_nearest_bin_with_its_time_offset():
    t, x, u = rows()
    bins = TimeBins.for_row_count(2.0, 6.0, len(t))
    place, values, offset, present = bins.gather(t, x, u)
    seen = np.isfinite(values[..., 0])
    assert seen.sum() == len(t) and present.all() and np.abs(offset).max() <= bins.width / 2 + 1e-6
    rows_in_bins = np.column_stack([(bins.times[:, None] + offset)[seen], place[seen], values[seen]])
    expected = np.column_stack([t, x, u])
    rows_in_bins, expected = (table[np.argsort(table[:, 1])] for table in (rows_in_bins, expected))
    np.testing.assert_allclose(rows_in_bins, expected, atol=1e-6)
    nearest = np.abs(t[:, None] - bins.times).argmin(1)
    assert np.array_equal(np.bincount(nearest, minlength=len(bins.times)), seen.sum(1))


def test_bins_without_rows_are_empty_frames():
    t, x, u = rows()
    bins = TimeBins.of_width(2.0, 6.0, 0.5)
    late = t > 3
    _, values, _, present = bins.gather(t[late], x[late], u[late])
    assert not present[:2].any() and present[2:].all() and np.isnan(values[:2]).all()


def test_frames_of_few_rows_at_many_times_are_scattered():
    assert is_scattered(1000, 1000) and is_scattered(1000, 500)
    assert not is_scattered(1000, 10) and not is_scattered(4, 4)


def test_frames_of_few_stations_stay_frames_and_bins_begin_and_end_with_the_rows():
    about, t, places = Description("stations", ("u",), ("x",)), np.arange(40.0), np.array([[0.0], [1.0], [2.0]])
    window = window_of(Observations(t, places, np.ones((40, 3, 1))), about, 1.0)
    assert window.t[0].tolist() == t.tolist() and window.delay is None
    alone = np.sort(np.random.default_rng(0).uniform(5, 45, 200))
    window = window_of(Observations(alone, np.zeros((200, 1, 1)), np.ones((200, 1, 1))), about, 1.0)
    assert window.delay is not None and window.t.shape[1] < 100
    assert window.t[0, [0, -1]].tolist() == [alone[0], alone[-1]]
