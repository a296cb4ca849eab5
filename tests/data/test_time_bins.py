"""Rows with times of their own, gathered around knots."""

import numpy as np

from inrflow.data.time_bins import Knots, is_scattered


def rows(count=500, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(2, 6, count), random.random((count, 2)), random.random((count, 1)).astype(np.float32)


def test_every_row_is_in_the_window_of_its_nearest_knot_with_its_delay():
    t, x, u = rows()
    knots = Knots.over(2.0, 6.0, len(t))
    place, values, delay, present = knots.gather(t, x, u)
    seen = np.isfinite(values[..., 0])
    assert seen.sum() == len(t) and present.all() and np.abs(delay).max() <= knots.width / 2 + 1e-6
    found = {tuple(np.round(v, 5)) for v in np.column_stack(
        [(knots.times[:, None] + delay)[seen], place[seen], values[seen]])}
    assert found == {tuple(np.round(v, 5)) for v in np.column_stack([t, x, u]).astype(np.float64)} or len(found) == 500
    nearest = np.abs(t[:, None] - knots.times).argmin(1)
    assert np.array_equal(np.bincount(nearest, minlength=len(knots.times)), seen.sum(1))


def test_windows_without_rows_are_empty_frames():
    t, x, u = rows()
    knots = Knots.spaced(2.0, 6.0, 0.5)
    late = t > 3
    _, values, _, present = knots.gather(t[late], x[late], u[late])
    assert not present[:2].any() and present[2:].all() and np.isnan(values[:2]).all()


def test_frames_of_few_rows_at_many_times_are_scattered():
    assert is_scattered(1000, 1000) and is_scattered(1000, 500)
    assert not is_scattered(1000, 10) and not is_scattered(4, 4)
