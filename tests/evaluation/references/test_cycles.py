"""Cycles that follow from the calendar or are declared, and steps of times."""

import numpy as np
import pytest

from inrflow.data.description import Description
from inrflow.evaluation.references.training_data import cycles_of, regular_frames


def periods(times: np.ndarray, **attributes: object) -> list[float]:
    about = Description("d", ("u",), ("x",), **attributes)
    return [period for period, _ in cycles_of(about, times)]


def test_days_over_years_have_a_year_and_hours_over_weeks_a_day():
    assert periods(np.arange(1000.0), time_units="days since 2000-01-01") == pytest.approx([365.2425])
    assert periods(np.arange(500.0), time_units="hours since 2000-01-01") == pytest.approx([24.0])
    assert periods(np.arange(24 * 900.0), time_units="hours since 2000-01-01") == pytest.approx([8765.82, 24.0])
    assert periods(np.arange(100.0), time_units="days since 2000-01-01") == []
    assert periods(np.arange(1000.0)) == []


def test_trajectories_that_share_their_times_are_one_calendar():
    assert periods(np.repeat(np.arange(500.0), 3), time_units="hours since 2000-01-01") == pytest.approx([24.0])


def test_a_declared_period_counts_and_takes_the_place_of_the_calendar_s_own():
    assert periods(np.arange(100.0), time_period=12.0) == [12.0]
    assert periods(730.5 * np.arange(60), time_units="hours since 2000-01-01", time_period=8766.0) == [8766.0]


def test_months_are_a_step_and_gaps_are_told():
    months = (np.arange("2000-01", "2003-01", dtype="datetime64[M]").astype("datetime64[D]").astype(float))
    step, numbers = regular_frames(np.delete(months, [5, 6]))
    assert step == pytest.approx(30.4, abs=0.1)
    assert numbers.tolist() == [n for n in range(36) if n not in (5, 6)]
    assert regular_frames(np.array([0.0, 1.0, 1.3, 2.9])) is None
