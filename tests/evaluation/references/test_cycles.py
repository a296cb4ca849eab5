"""Cycles that follow from the calendar or are declared, and steps of times."""

import numpy as np
import pytest
import torch

from inrflow.data.description import Description
from inrflow.evaluation.references.training_data import cycle_of, cycles_of, regular_frames


def periods(times: np.ndarray, **attributes: object) -> list[float]:
    about = Description("d", ("u",), ("x",), **attributes)
    return [period for period, _ in cycles_of(about, times)]


def test_days_over_years_have_a_year_and_hours_over_weeks_a_day():
    assert periods(np.arange(1000.0), time_units="days since 2000-01-01") == pytest.approx([365.2425])
    assert periods(np.arange(500.0), time_units="hours since 2000-01-01") == pytest.approx([24.0])
    assert periods(np.arange(24 * 900.0), time_units="hours since 2000-01-01") == pytest.approx([8765.82, 24.0])
    assert periods(np.arange(100.0), time_units="days since 2000-01-01") == []
    assert periods(np.arange(1000.0)) == []


@pytest.mark.parametrize(("units", "found"), [("hours", [24.0]), ("h", [24.0]), ("days", []), ("K", []), ("", [])])
def test_hours_have_a_day_without_a_date_to_count_from(units, found):
    assert periods(np.arange(500.0), time_units=units) == pytest.approx(found)


def test_trajectories_that_share_their_times_are_one_calendar():
    assert periods(np.repeat(np.arange(500.0), 3), time_units="hours since 2000-01-01") == pytest.approx([24.0])


def test_a_declared_period_counts_and_takes_the_place_of_the_calendar_s_own():
    assert periods(np.arange(100.0), time_period=12.0) == [12.0]
    assert periods(730.5 * np.arange(60), time_units="hours since 2000-01-01", time_period=8766.0) == [8766.0]


def test_sharp_peaks_of_a_day_have_more_harmonics_where_days_are_many():
    t, random = torch.arange(24.0 * 30).double(), torch.Generator().manual_seed(0)
    rush = torch.exp(-(((t % 24 - 8) / 1.7) ** 2))[:, None]
    values = rush + 0.1 * torch.randn(len(t), 3, generator=random).double()
    hours = Description("d", ("u",), ("x",), time_units="hours since 2024-01-01")
    found = cycle_of(hours, t[: 24 * 20], values[: 24 * 20])
    assert float((found(t[24 * 20 :]) - rush[24 * 20 :]).square().mean() / rush.var()) < 0.01
    assert [most for _, most in cycles_of(hours, t[:40].numpy())] == [3]  # of few days, noise is fitted


def test_weeks_of_people_are_told_from_days_of_weather():
    random, t = np.random.default_rng(0), torch.arange(24.0 * 42).double()
    hour, weekend = t % 24, (t // 24) % 7 >= 5
    rush = torch.exp(-(((hour - 8) / 2) ** 2)) * torch.where(weekend, 0.2, 1.0)
    weather = np.zeros((len(t), 3))
    for k in range(1, len(t)):
        weather[k] = 0.9 * weather[k - 1] + 0.2 * random.standard_normal(3)
    breeze = torch.as_tensor(weather) + (1 + 0.5 * torch.as_tensor(random.standard_normal(42)))[
        (t // 24).long(), None] * torch.sin(2 * torch.pi * t / 24)[:, None]
    hours, days = (Description("d", ("u",), ("x",), time_units=f"{unit} since 2024-01-01")
                   for unit in ("hours", "days"))
    assert cycle_of(hours, t, breeze).periods == pytest.approx([24.0])
    noisy = rush[:, None] + 0.3 * torch.as_tensor(weather)
    found = cycle_of(hours, t / 2, noisy, 2.0)
    assert found.periods == pytest.approx([84.0])
    later = torch.arange(24.0 * 42, 24.0 * 49).double()
    assert float((found(later / 2)[:, 0] - rush[: 24 * 7]).square().mean() / rush.var()) < 0.2
    daily = (rush[:, None] + 0.03 * torch.as_tensor(weather)).unflatten(0, (-1, 24)).mean(1)
    assert cycle_of(days, t[:42], daily).periods == pytest.approx([7.0])


def test_tides_are_lunar_and_solar():
    random, t = np.random.default_rng(0), torch.arange(24.0 * 47).double()
    surge = np.zeros((len(t), 3))
    for k in range(1, len(t)):
        surge[k] = 0.97 * surge[k - 1] + 0.05 * random.standard_normal(3)
    tide = sum(size * torch.cos(2 * torch.pi * t / period + size) for size, period in (
        (1.1, 12.4206), (0.4, 12.0), (0.2, 12.6583), (0.2, 25.8193), (0.2, 23.9345)))
    level, past = tide[:, None] + torch.as_tensor(surge), 24 * 40
    hours = Description("d", ("u",), ("x",), time_units="hours since 2024-01-01")
    found = cycle_of(hours, t[:past] / 2, level[:past], 2.0)
    assert found.periods == pytest.approx([12.0, 25.8193 / 2, 24.8412 / 2, 12.6583 / 2])
    missed = found(t[past:] / 2) - tide[past:, None]
    assert float(missed.var(0).mean() / tide.var()) < 0.01
    fortnight = cycle_of(hours, t[: 24 * 14], level[: 24 * 14])
    assert len(fortnight.periods) == 4
    missed = fortnight(t[24 * 14 : 24 * 21]) - tide[24 * 14 : 24 * 21, None]
    assert float(missed.var(0).mean() / tide.var()) < 0.1
    daily = torch.as_tensor(surge[: 24 * 14]) + torch.cos(2 * torch.pi * t[: 24 * 14, None] / 24)
    assert cycle_of(hours, t[: 24 * 14], daily).periods == pytest.approx([24.0])
    solar = cycle_of(hours, t[:past], torch.as_tensor(surge[:past]) + torch.cos(2 * torch.pi * t[:past, None] / 24))
    assert solar.periods == pytest.approx([24.0])


def test_months_are_a_step_and_gaps_are_told():
    months = (np.arange("2000-01", "2003-01", dtype="datetime64[M]").astype("datetime64[D]").astype(float))
    step, numbers = regular_frames(np.delete(months, [5, 6]))
    assert step == pytest.approx(30.4, abs=0.1)
    assert numbers.tolist() == [n for n in range(36) if n not in (5, 6)]
    assert regular_frames(np.array([0.0, 1.0, 1.3, 2.9])) is None
