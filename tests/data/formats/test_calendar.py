"""Calendar times: CF units to numbers and back; longitude and latitude to unit vectors and back."""

import numpy as np
import pytest

from inrflow.data.calendar import (
    dates_to_numbers,
    moments_to_numbers,
    moments_to_texts,
    number_to_date,
    numbers_to_texts,
    parse_units,
    retimed,
    zone_in,
)
from inrflow.data.description import Description
from inrflow.data.formats.continued import Places
from inrflow.data.formats.sphere import lonlat_to_xyz, xyz_to_lonlat
from inrflow.data.formats.tables import PointTable, read_points, write_points
from inrflow.errors import UserError
from inrflow.model.extent import Extent


@pytest.mark.parametrize("units, date, number", [
    ("hours since 1970-01-01", "1970-01-02", 24.0),
    ("hours since 1970-01-01 00:00:00", "2006-04-16T00:00", 318096.0),  # first month of the OSTIA data
    ("days since 1900-1-1 0:0:0", "1900-01-03 12:00:00", 2.5),
    ("seconds since 2000-01-01T00:00:00Z", "2000-01-01T01:00:00+01:00", 0.0),
    ("minutes since 2000-01-01 12:00 UTC", "2000-01-01", -720.0),
    ("day since 2000-02-28", "2000-03-01", 2.0),
])
def test_dates_become_numbers(units, date, number):
    assert dates_to_numbers([date], units).tolist() == [number]


@pytest.mark.parametrize(("name", "hours"), [
    ("Zeit [MEZ]", 1), ("Zeit (MESZ)", 2), ("time (UTC+2)", 2), ("timestamp_utc", 0), ("Date/Time UTC-05:30", -5.5),
    ("datetime_cet", 1), ("date (+0100)", 1), ("time [JST]", 9), ("time", None), ("time (EST)", None),
    ("time [IST]", None), ("time (h)", None), ("time_wet", None), ("t-1", None), ("date-01", None)])
def test_zones_of_one_meaning_in_names_of_columns_are_found(name, hours):
    assert zone_in(name) == hours


def test_dates_are_in_the_zone_that_the_name_of_their_column_says_and_come_back_in_it(tmp_path):
    about = Description("air", ("u",), ("x",), time_units="hours since 2024-01-01")

    def table(header, ending=""):
        rows = [f"2024-01-01 {hour:02d}:00{ending},{place},{hour}" for hour in range(10) for place in (0, 1)]
        (tmp_path / "a.csv").write_text("\n".join([f"{header},x,u", *rows]))
        return tmp_path / "a.csv"

    with pytest.warns(UserWarning, match="dates in time .UTC.3:30. are taken in the zone UTC-3:30"):
        points = read_points(table("time (UTC-3:30)"), about)
    np.testing.assert_allclose(points.t[::2], np.arange(10) + 3.5)
    later = Places.of_table(points, about).rows(np.array([15.5]), np.zeros((1, 1)), about, 0, False, "text")
    assert later.columns["time (UTC-3:30)"].tolist() == ["2024-01-01 12:00"]
    assert read_points(table("time (UTC-3:30)", "+01:00"), about).t[0] == -1  # the cells' own zone
    with pytest.warns(UserWarning, match="taken as UTC, since its zone has several meanings"):
        assert read_points(table("time (EST)"), about).t[0] == 0


def test_missing_dates_are_nan_and_wrong_ones_an_error():
    assert np.isnan(dates_to_numbers([""], "days since 2000-01-01"))[0]
    with pytest.raises(ValueError):
        dates_to_numbers(["tomorrow"], "days since 2000-01-01")


@pytest.mark.parametrize("units", [None, "s", "hours", "months since 2000-01-01", "days since then", ""])
def test_other_units_are_no_calendar(units):
    assert parse_units(units) is None and number_to_date(0.0, units) is None
    with pytest.raises(UserError, match="hours since"):
        moments_to_numbers(np.array(["2000-01-01"], "datetime64[s]"), units)


def test_numbers_become_dates():
    assert number_to_date(318096.0, "hours since 1970-01-01") == "2006-04-16T00:00"


@pytest.mark.parametrize(("date", "days"), [("2000-02-30", 59), ("2000-03-01T12", 60.5), ("2001-01-01 06:00", 360.25),
                                            ("2000-01-01T00:00:00.5", 0.5 / 86400), ("", np.nan)])
def test_dates_of_the_calendars_of_models(date, days):
    pytest.importorskip("cftime")
    units = "days since 2000-01-01 (360_day)"
    assert dates_to_numbers([date], units) == pytest.approx([days], nan_ok=True, abs=1e-11)
    if date:
        assert number_to_date(days, units)[:10] == date[:10]
    for wrong in ("2000-02-31", "tomorrow"):
        with pytest.raises(ValueError):
            dates_to_numbers([wrong], units)


def test_longitude_and_latitude_are_unit_vectors():
    places = lonlat_to_xyz(np.array([0.0, 90.0, -90.0, 13.0]), np.array([0.0, 0.0, 0.0, 90.0]))
    np.testing.assert_allclose(places, [[1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]], atol=1e-15)
    random = np.random.default_rng(0)
    degrees = np.stack([random.uniform(0, 360, 100), random.uniform(-89, 89, 100)], -1)
    np.testing.assert_allclose(xyz_to_lonlat(lonlat_to_xyz(degrees[:, 0], degrees[:, 1])), degrees, atol=1e-9)


@pytest.mark.parametrize(("moments", "coarsest", "texts"), [
    (["2024-01-31T12:00", "NaT"], "m", ["2024-01-31T12:00", ""]),
    (["2024-01-31T12:00", "2024-01-31T12:30"], "s", ["2024-01-31T12:00:00", "2024-01-31T12:30:00"]),
    (["1969-12-31T23:59:59.9", "2024-01-31"], "m", ["1969-12-31T23:59:59.900", "2024-01-31T00:00:00.000"]),
    (["2024-01-31T12:00:00.000001"], "m", ["2024-01-31T12:00:00.000001"]),
])
def test_dates_have_as_many_digits_as_they_need(moments, coarsest, texts):
    assert moments_to_texts(np.array(moments, "datetime64[us]"), coarsest).tolist() == texts


def test_numbers_become_dates_without_their_rounding():
    days = 63000 + 1 / 3 + np.arange(6) / 72  # of which the microseconds are off by one, for float64
    assert numbers_to_texts(days, "days since 1850-01-01").tolist() == [
        f"2022-06-28T{clock}" for clock in ("08:00", "08:20", "08:40", "09:00", "09:20", "09:40")]
    assert numbers_to_texts(np.array([1e-6]), "seconds since 2000-01-01").tolist() == ["2000-01-01T00:00:00.000001"]


def test_spans_of_time_have_no_epoch():
    about = Description("air", ("u",), ("x",), time_units="hours since 1970-01-01")
    assert about.duration_units == "hours" and Description("air", ("u",), ("x",)).duration_units == ""
    extent = Extent(about, np.array([[0.0], [1.0]]), 99.0, 200.0)
    with pytest.warns(UserWarning, match=r"more than 99 hours ahead, the time"):
        extent.warn_beyond(1, 2)
    with pytest.raises(UserError, match="the horizon, is 99 hours, and a forecast reaches 200 hours"):
        extent.require_reach(np.array([1e6]), 0.0, 1.0)


def test_times_count_in_other_units_of_their_calendar():
    pytest.importorskip("cftime")
    t = np.array([0.0, 59.5, np.nan])
    days = "days since 2001-01-01 00:00:00.000000"
    np.testing.assert_allclose(retimed(t, f"{days} (360_day)", "hours since 2000-12-01 (360_day)"), (t + 30) * 24)
    np.testing.assert_allclose(retimed(t, f"{days} (noleap)", "days since 2000-02-28 (noleap)"), t + 307)
    np.testing.assert_allclose(retimed(t, days, "hours since 2000-02-28"), (t + 308) * 24)  # 2000 is a leap year
    assert retimed(t, "fortnights", "fortnights") is t
    for other in (f"{days} (noleap)", days, "fortnights"):
        with pytest.raises(UserError, match="convert them to one unit and calendar"):
            retimed(t, f"{days} (360_day)", other)


def test_rows_in_netcdf_keep_the_calendar_of_models(tmp_path):
    xarray = pytest.importorskip("xarray")
    cftime = pytest.importorskip("cftime")
    about = Description("a", ("u",), ("x",), time_units="days since 1850-01-01 (360_day)")
    table = PointTable(np.zeros(2, int), np.array([59.0, 60.0]), np.zeros((2, 1)), {"t": np.array([59.0, 60.0])})
    write_points(tmp_path / "a.nc", table, {"u": np.zeros(2)}, about)
    with xarray.open_dataset(tmp_path / "a.nc", decode_times=False) as data:
        dates = cftime.num2date(data.t.values, data.t.units, data.t.calendar)
        assert [str(one)[:10] for one in dates] == ["1850-02-30", "1850-03-01"]
