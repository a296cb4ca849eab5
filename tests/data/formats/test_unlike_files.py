"""Files as spreadsheets, agencies and archives write them, whose times or numbers may be taken for others."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray

from inrflow.data.formats.continued import on_grid
from inrflow.data.formats.convert import convert
from inrflow.data.formats.tables import read_observations, read_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

U = np.random.default_rng(0).normal(15, 1, (24, 3)).round(2)
HOURS = pd.date_range("2024-03-01", periods=24, freq="h")
MONTHS = pd.date_range("2020-01-01", periods=24, freq="MS")


def table(path, times, head="time,lon,lat,temp", separator=",", value="{:g}"):
    lines = [separator.join((str(time), str(8.5 + place), "47.5", value.format(U[row, place])))
             for row, time in enumerate(times) for place in range(3)]
    path.write_text("\n".join([head.replace(",", separator), *lines]), encoding="utf-8")
    return path


def held(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert(path, path.with_suffix(".h5"), overwrite=True, **options)
    with TrajectoryFile(path.with_suffix(".h5")) as file:
        return file.description, file.read(0)


def since_1970(dates):
    return (dates - pd.Timestamp("1970-01-01")) / pd.Timedelta(hours=1)


@pytest.mark.parametrize("form", ["%Y-%m", "%b %Y", "%B %Y", "%m/%Y", "%YM%m", "%Y/%m", "%b-%Y"])
def test_months_are_dates(form, tmp_path):
    about, frames = held(table(tmp_path / "a.csv", MONTHS.strftime(form)))
    np.testing.assert_allclose(frames.t, since_1970(MONTHS))
    np.testing.assert_allclose(np.sort(frames.u[..., 0]), np.sort(U), rtol=1e-6)
    given = read_observations(tmp_path / "a.csv", about)[0].frames()
    np.testing.assert_allclose(given.t, frames.t)


def test_months_as_numbers_are_dates(tmp_path):
    path = table(tmp_path / "a.csv", MONTHS.strftime("%Y%m"))
    with pytest.warns(UserWarning, match="time holds dates written as yyyymm"):
        convert(path, tmp_path / "a.h5")
    np.testing.assert_allclose(held(path)[1].t, since_1970(MONTHS))
    assert held(table(path, range(200000, 200024)))[1].t[12] == 200012


def test_the_hour_24_is_the_end_of_a_day(tmp_path):
    ends = [f"{(time - pd.Timedelta(hours=1)):%Y-%m-%d} {(time.hour or 24):02d}:00" for time in HOURS]
    np.testing.assert_allclose(held(table(tmp_path / "a.csv", ends))[1].t, since_1970(HOURS))
    with pytest.raises(UserError, match="hour must be in"):
        held(table(tmp_path / "a.csv", [end.replace("24:00", "24:30") for end in ends]))


@pytest.mark.parametrize(("head", "form"), [
    ("date,hour,lon,lat,temp", "%Y-%m-%d"), ("Datum,HH,lon,lat,temp", "%d.%m.%Y"), ("date,hr,lon,lat,temp", "%Y%m%d"),
    ("Datum,time,lon,lat,temp", "%d.%m.%Y")])
def test_hours_beside_days_are_no_channel(head, form, tmp_path):
    ends = [f"{time - pd.Timedelta(hours=1):{form}},{time.hour or 24}{':00' * ('time' in head)}" for time in HOURS]
    about, frames = held(table(tmp_path / "a.csv", ends, head))
    assert about.channels == ("temp",)
    np.testing.assert_allclose(frames.t, since_1970(HOURS))
    assert read_observations(tmp_path / "a.csv", about)[0].frames().u.size == U.size
    dated = [f"{time:%Y-%m-%d %H:%M},{time.hour}" for time in HOURS]
    assert held(table(tmp_path / "b.csv", dated, "date,hour,lon,lat,temp"))[0].channels == ("hour", "temp")


def test_of_local_and_universal_times_of_the_same_rows_the_universal_ones_are_taken(tmp_path):
    """As the Environmental Protection Agency writes hourly values."""
    west = HOURS - pd.Timedelta(hours=8)
    both = [f"{one:%Y-%m-%d},{one:%H:%M},{time:%Y-%m-%d},{time:%H:%M}" for one, time in zip(west, HOURS, strict=True)]
    about, frames = held(table(tmp_path / "a.csv", both, "Date Local,Time Local,Date GMT,Time GMT,lon,lat,temp"))
    assert about.channels == ("temp",)
    np.testing.assert_allclose(frames.t, since_1970(HOURS))


@pytest.mark.parametrize(("name", "first", "step", "channels"), [
    ("RECORD", 7, 1, ("temp",)), ("NO", 0, 1, ("NO", "temp")), ("record", 7, 2, ("record", "temp")),
    ("QN_9", 3, 0, ("temp",)), ("level", 7, 1, ("level", "temp"))])
def test_numbers_of_rows_and_of_quality_are_no_channels(name, first, step, channels, tmp_path):
    """Of loggers (TOA5) and the German weather service; NO is nitric oxide."""
    lines = [f"{time},{first + step * row},{U[row, 0]}" for row, time in enumerate(HOURS)]
    (tmp_path / "a.csv").write_text("\n".join([f"time,{name},temp", *lines]))
    assert held(tmp_path / "a.csv")[0].channels == channels


def test_points_between_thousands_beside_decimal_commas_are_not_taken_for_decimal_points(tmp_path):
    path = table(tmp_path / "a.csv", HOURS, separator=";", value="{:.3f}")
    assert held(path)[0].channels == ("temp",)
    path.write_text(path.read_text().replace(";47.5;", ";47,5;"))
    with pytest.raises(UserError, match=re.escape("temp holds")):
        held(path)


def test_times_far_from_all_others_are_told(tmp_path):
    dates = [*HOURS[:-1], pd.Timestamp("1899-12-30")]
    with pytest.warns(UserWarning, match="3 of 72 rows are far in time from all others, the first at 1899-12-30"):
        convert(table(tmp_path / "a.csv", dates), tmp_path / "a.h5")


def test_dates_of_arrays_are_times(tmp_path):
    np.savez(tmp_path / "a.npz", time=HOURS.to_numpy(), x=np.arange(3.0), u=np.stack([U, U]))
    about, frames = held(tmp_path / "a.npz")
    assert about.time_units == "hours since 1970-01-01"
    np.testing.assert_allclose(frames.t, since_1970(HOURS))


@pytest.mark.parametrize("packed", [False, True])
def test_values_that_a_file_does_not_call_valid_are_missing(packed, tmp_path):
    values, encoding = U[:, :, None].copy(), {"scale_factor": 0.01, "dtype": "i2"} if packed else {}
    values[5, 1], expected = 99.0, values.copy()
    expected[5, 1] = np.nan
    bounds = np.array([0, 5000], "i2") if packed else np.array([0.0, 50.0])
    axes = {"time": HOURS, "lat": [47.0, 48.0, 49.0], "lon": [8.0]}
    data = xarray.Dataset({"temp": (tuple(axes), values, {"valid_range": bounds})}, axes)
    data = xarray.concat([data, data.assign_coords(lon=[9.0])], "lon")
    data.to_netcdf(tmp_path / "a.nc", encoding={"temp": encoding})
    with pytest.warns(UserWarning, match="values of temp outside of 0 to 50, which the file calls valid"):
        convert(tmp_path / "a.nc", tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        frames, about = file.read(0), file.description
        np.testing.assert_allclose(np.isnan(frames.u).sum(), 2)
        np.testing.assert_allclose(np.nanmean(frames.u), np.nanmean(expected), rtol=1e-4)
    with pytest.warns(UserWarning, match="which the file calls valid"):
        given = read_observations(tmp_path / "a.nc", about)[0]
    assert np.isfinite(given.frames().u).sum() == 2 * U.size - 2


@pytest.mark.parametrize("fill", [-9.99e8, 9.999e20, -9.99e33])
def test_undefined_values_of_grads_are_missing(fill, tmp_path):
    values = np.where(U > 16, fill, U)
    np.testing.assert_array_equal(
        np.isnan(held(table(tmp_path / "a.csv", HOURS, value="{:g}"))[1].u).sum(), 0)
    lines = table(tmp_path / "a.csv", HOURS).read_text().splitlines()
    rows = [f"{line.rpartition(',')[0]},{value:g}" for line, value in zip(lines[1:], values.ravel(), strict=True)]
    (tmp_path / "a.csv").write_text("\n".join([lines[0], *rows]))
    assert np.isnan(held(tmp_path / "a.csv")[1].u).sum() == (U > 16).sum()


@pytest.mark.parametrize("dims", [("ocean_time", "eta", "xi"), ("time_counter", "y", "x"), ("time", "step", "y", "x")])
def test_grids_whose_times_have_names_of_models_are_kept_in_forecasts(dims, tmp_path):
    """As ROMS, NEMO and archives of forecasts write them; of the last, every start is a trajectory."""
    *starts, time, y, x = dims
    lat, lon = np.meshgrid([46.0, 47.0, 48.0], [7.0, 8.0, 9.5, 10.0], indexing="ij")
    places = {"lat": ((y, x), lat, {"units": "degrees_north"}), "lon": ((y, x), lon, {"units": "degrees_east"})}
    values = np.random.default_rng(0).normal(size=(*[2] * len(starts), 24, 3, 4))
    hours = {"units": "hours since 2024-03-01"} if not starts else {"units": "hours"}
    axes = places | {time: (time, np.arange(24.0), hours)} | {name: (name, [0.0, 24.0]) for name in starts}
    xarray.Dataset({"temp": (dims, values)}, axes).to_netcdf(tmp_path / "a.nc")
    read = {"trajectory": "time", "time": "step"} if starts else {}
    about, _ = held(tmp_path / "a.nc", **read)
    found = on_grid(read_points(tmp_path / "a.nc", about, read), np.array([30.0, 31.0]), about)
    assert found is not None and found.grid.dims == dims and found.grid.shape == (*[2] * len(starts), 2, 3, 4)
    np.testing.assert_array_equal(found.t.reshape(found.grid.shape)[..., 0, 0], [[30, 31]] * 2 if starts else [30, 31])


def test_columns_without_values_are_allowed_in_observations(tmp_path):
    """Of a service's hourly values, whose stations do not measure all of them."""
    path = table(tmp_path / "a.csv", [f"{time},," for time in HOURS], "time,snow,gusts,lon,lat,temp")
    about, frames = held(path)
    assert about.channels == ("temp",)
    np.testing.assert_allclose(read_observations(path, about)[0].frames().u, frames.u)
    path.write_text(path.read_text().replace("00:00,,", "00:00,7,"))
    with pytest.raises(UserError, match="unknown column snow"):
        read_observations(path, about)


@pytest.mark.parametrize(("units", "known"), [
    ("hours since yesterday", False), ("fortnights since 2020-01-01", False), ("hours since 2020-01-01", True),
    ("seconds", True)])
def test_units_of_time_without_a_date_that_is_understood_are_named(units, known, tmp_path):
    axes = {"time": ("time", np.arange(4.0), {"units": units}), "x": ("x", np.arange(5.0))}
    values = np.random.default_rng(0).normal(size=(4, 5))
    xarray.Dataset({"u": (("time", "x"), values)}, axes).to_netcdf(tmp_path / "a.nc")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        convert(tmp_path / "a.nc", tmp_path / "a.h5")
    assert any("is no known unit of time since a date" in str(one.message) for one in told) is not known
