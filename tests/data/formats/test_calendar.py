"""Calendar times: CF units to numbers and back; longitude and latitude to unit vectors and back."""

import numpy as np
import pytest

from inrflow.data.formats.calendar import dates_to_numbers, moments_to_numbers, number_to_date, parse_units
from inrflow.data.formats.sphere import lonlat_to_xyz, xyz_to_lonlat
from inrflow.errors import UserError


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


def test_longitude_and_latitude_are_unit_vectors():
    places = lonlat_to_xyz(np.array([0.0, 90.0, -90.0, 13.0]), np.array([0.0, 0.0, 0.0, 90.0]))
    np.testing.assert_allclose(places, [[1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]], atol=1e-15)
    random = np.random.default_rng(0)
    degrees = np.stack([random.uniform(0, 360, 100), random.uniform(-89, 89, 100)], -1)
    np.testing.assert_allclose(xyz_to_lonlat(lonlat_to_xyz(degrees[:, 0], degrees[:, 1])), degrees, atol=1e-9)
