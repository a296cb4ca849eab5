"""Stations: gaps, duplicates and reports that jitter."""

import numpy as np
import pytest

from inrflow.data.observations import Observations
from inrflow.data.stations import at_steps_of, stations_of
from inrflow.evaluation.references.training_data import regular_frames

PLACES = np.array([[0.0, 0.0], [1.0, 0.5], [0.3, 0.9]])


def rows(jitter: float = 0.0, missing: float = 0.1, steps: int = 100):
    """Rows of smooth series at three places, in hours."""
    random = np.random.default_rng(0)
    t, place = np.meshgrid(np.arange(steps, dtype=float), np.arange(3), indexing="ij")
    t, place = t.ravel(), place.ravel()
    kept = random.random(len(t)) >= missing
    t, place = t[kept], place[kept]
    t = t + jitter * random.uniform(-1, 1, len(t))
    return t, PLACES[place], np.sin(t / 5 + place)[:, None].astype(np.float32)


def test_places_with_gaps_are_frames_of_all_places():
    t, x, u = rows()
    found = stations_of(t, x, u)
    assert found.u.shape == (100, 3, 1) and found.step is None and found.merged == 0
    assert np.isfinite(found.u).sum() == len(t)
    order = [int(np.flatnonzero((PLACES == one).all(1))[0]) for one in found.x]
    expected = np.sin(found.t[:, None] / 5 + np.array(order))
    assert np.nanmax(np.abs(found.u[..., 0] - expected)) < 1e-6


def test_reports_around_the_hour_are_moved_to_it_by_interpolation():
    t, x, u = rows(jitter=0.1, missing=0.0)
    found = stations_of(t, x, u, 3600.0)
    assert found.step == 1.0 and found.t == pytest.approx(np.arange(100))
    order = [int(np.flatnonzero((PLACES == one).all(1))[0]) for one in found.x]
    error = found.u[1:-1, :, 0] - np.sin(found.t[1:-1, None] / 5 + np.array(order))
    assert np.abs(error).max() < 0.005  # left where they are, they would miss up to .02


def test_hours_without_a_report_stay_without_a_value():
    t, x, u = rows(jitter=0.1, missing=0.2)
    found = stations_of(t, x, u)
    assert np.isfinite(found.u).sum() == len(t)


def test_rows_that_repeat_time_and_place_take_their_mean():
    t, x, u = rows(missing=0.0)
    found = stations_of(np.append(t, t[0]), np.vstack([x, x[:1]]), np.vstack([u, u[:1] + 1]))
    assert found.merged == 1
    at = np.flatnonzero((found.x == x[0]).all(1))[0]
    assert found.u[0, at, 0] == pytest.approx(u[0, 0] + 0.5)


def test_drifting_points_are_no_stations():
    random = np.random.default_rng(1)
    assert stations_of(random.random(200), random.random((200, 2)), random.random((200, 1))) is None


def test_places_that_never_report_together_are_no_frames():
    random = np.random.default_rng(2)
    places = random.random((50, 2))
    t = np.sort(random.random(50 * 10) * 1e3)
    assert stations_of(t, places[np.arange(500) % 50], random.random((500, 1))) is None


def test_places_that_are_visited_often_are_stations_though_on_days_of_their_own():
    random = np.random.default_rng(2)
    places, t = random.random((20, 2)), np.sort(random.random(20 * 30) * 1e3)
    own = stations_of(t, places[np.arange(600) % 20], random.random((600, 1)))
    assert own is not None and own.step is None
    assert own.u.shape == (600, 20, 1) and (np.isfinite(own.u).sum(0) == 30).all()


def test_later_reports_around_the_hour_join_known_hours():
    random = np.random.default_rng(3)
    places, hours = random.random((6, 2)), np.arange(40.0)
    field = lambda t, x: 2 * t + 3 * x[..., 0]  # noqa: E731
    known = Observations(hours, places, field(hours[:, None], places)[..., None]).frames()
    steps = regular_frames(hours)
    t = np.concatenate([40 + random.uniform(-0.1, 0.1, 6), 41 + random.uniform(-0.1, 0.1, 6)])
    x = places[np.arange(12) % 6]
    later = at_steps_of(known, steps, Observations(t, x, field(t, x)[:, None])).frames()
    assert later.t.tolist() == [40.0, 41.0]
    error = np.abs(later.u[..., 0] - field(later.t[:, None], later.x))
    assert error.max() < 0.21 and error[:, np.argsort(np.lexsort(places.T[::-1]))][0, t[:6] > 40].max() < 1e-5
    for untouched in (Observations(hours[:3] + 40, places, np.zeros((3, 6, 1))), Observations(t + 0.5, x, t[:, None])):
        assert at_steps_of(known, steps, untouched) is untouched
