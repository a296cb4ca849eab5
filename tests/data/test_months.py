"""Series of months are continued in months, in every calendar, as cftime counts them."""

import cftime
import numpy as np
import pytest
import xarray

from inrflow.data.months import months_after

UNITS = "hours since 1999-11-30 06:00:00"
SERIES = {"beginnings": ("MS", 0.0), "ends": ("ME", 0.0), "the 15th at noon": ("MS", 14.5), "quarters": ("QS", 3.25),
          "years": ("YS", 40.0)}


@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day", "all_leap"])
@pytest.mark.parametrize("name", SERIES)
def test_months_go_on_as_in_the_calendar(name, calendar):
    step, days = SERIES[name]
    dates = xarray.date_range("1999-01-01" if step != "ME" else "1999-01-30", periods=30, freq=step, calendar=calendar,
                              use_cftime=True)
    t = cftime.date2num(dates.values, UNITS, calendar) + 24 * days
    units = UNITS if calendar == "standard" else f"{UNITS} ({calendar})"
    np.testing.assert_allclose(months_after(t[:20], t[-1], units), t[20:], rtol=0, atol=1e-6)


def test_middles_of_months_go_on_as_middles():
    edges = np.arange("1979-01", "1984-01", dtype="M8[M]").astype("M8[D]").astype(float)
    t = (edges[1:] + edges[:-1]) / 2
    np.testing.assert_allclose(months_after(t[:30], t[-1] + 1, "days since 1970-01-01"), t[30:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [np.arange(0, 300, 30.0), np.arange(0, 300, 7.0), np.array([0.0, 31.0]),
                               np.array([0.0, 31.0, 60.0, 62.0])], ids=["30 days", "weeks", "two", "twice in a month"])
def test_other_series_have_no_months(t):
    assert months_after(t, t[-1] + 400, "days since 2000-01-01") is None
    assert months_after(t, t[-1] + 400, "s") is None
