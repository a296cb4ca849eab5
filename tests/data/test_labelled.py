"""Dates, degrees, pandas tables and xarray datasets mean what the plain arrays of the engine mean."""

import datetime
import sys

import numpy as np
import pandas
import pytest
import torch
import xarray

from inrflow.data.description import Description
from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.data.labelled import numeric_times, observations_from, query_dataset, query_points, unit_vectors
from inrflow.data.observations import Observations
from inrflow.errors import UserError

GLOBE = Description("air", ("T",), ("x", "y", "z"), ("K",), "hours since 2020-01-01", geometry="sphere")
LINE = Description("rod", ("u",), ("x",))
LONLAT = np.array([[10.0, 50.0], [20.0, -30.0]])


@pytest.mark.parametrize("t", [
    "2020-01-02T06", datetime.datetime(2020, 1, 2, 6), pandas.Timestamp("2020-01-02T06"),
    np.datetime64("2020-01-02T06"), pandas.Timestamp("2020-01-02T08", tz="Europe/Helsinki")])
def test_dates_of_every_kind_are_hours(t):
    assert float(numeric_times(t, GLOBE)) == 30
    np.testing.assert_array_equal(numeric_times([t, t], GLOBE), [30, 30])
    with pytest.raises(UserError, match="dates"):
        numeric_times(t, LINE)


def test_dates_of_the_calendars_of_models_go_in_and_come_back(monkeypatch):
    cftime = pytest.importorskip("cftime")
    years = Description("model", ("T",), ("x",), time_units="hours since 1970-01-01 (360_day)")
    times = [cftime.Datetime360Day(1972, 2, 30), cftime.Datetime360Day(1974, 1, 1)]
    hours = [(2 * 360 + 59) * 24, 4 * 360 * 24]  # months of 30 days
    np.testing.assert_allclose(numeric_times(times, years), hours)
    np.testing.assert_allclose(numeric_times(np.array(times), years), hours)
    np.testing.assert_allclose(numeric_times(["1972-02-30", "1974-01-01"], years), hours)
    data = xarray.Dataset({"T": (("time", "x"), [[1.0], [2.0]])}, {"time": times, "x": [0.5]})
    np.testing.assert_allclose(observations_from(data, years).frames().t, hours)

    def ask(t, x):
        return {"mean": np.zeros((len(t), len(x), 1))}

    asked = query_dataset(ask, years, times, None, {"x": [0.5]})
    assert asked.time.values.tolist() == times
    with pytest.raises(UserError, match="calendar 360_day"):
        numeric_times(times, GLOBE)
    monkeypatch.setitem(sys.modules, "cftime", None)  # not installed
    told = query_dataset(ask, years, hours, None, {"x": [0.5]}).time
    assert told.attrs["calendar"] == "360_day" and told.values.tolist() == hours


def test_datasets_that_were_opened_without_decoding_are_decoded(tmp_path):
    times = np.array(["2020-01-03", "2020-01-04T12"], "datetime64[ns]")
    data = xarray.Dataset({"T": (("time", "lon", "lat"), [[[1.0]], [[np.nan]]])},
                          {"time": times, "lon": [10.0], "lat": [50.0]})
    packed = {"T": {"dtype": "int16", "scale_factor": 0.5, "add_offset": 7.0, "_FillValue": -1},
              "time": {"units": "minutes since 1999-12-31", "dtype": "float64"}}
    data.to_netcdf(tmp_path / "a.nc", encoding=packed)
    expected = observations_from(data, GLOBE).frames()
    for how in ({"decode_times": False}, {"decode_cf": False}):
        with xarray.open_dataset(tmp_path / "a.nc", **how) as raw:
            found = observations_from(raw, GLOBE).frames()
            named = Observations.from_xarray(raw, ["T"], ["lon", "lat"])
            assert named.time_units is not None and named.frames().u.ravel()[0] == 1
        np.testing.assert_allclose(found.t, expected.t)
        np.testing.assert_array_equal(found.u, expected.u)
    with xarray.open_dataset(tmp_path / "a.nc", decode_times=False) as raw:
        raw.time.attrs["units"] = "moons since the flood"
        with pytest.raises(UserError, match="cannot be followed"):
            observations_from(raw, GLOBE)
        del raw.time.attrs["units"]
        with pytest.warns(UserWarning, match="without a date from which they count"):
            observations_from(raw, GLOBE)


def test_numbers_stay_as_they_are():
    for t in (1.5, np.arange(3.0), [0, 1], np.float32(2)):
        assert numeric_times(t, LINE) is t


def test_degrees_are_points_of_the_sphere():
    np.testing.assert_array_equal(unit_vectors(LONLAT, GLOBE), lonlat_to_xyz(*LONLAT.T))
    assert unit_vectors(LONLAT, LINE) is LONLAT
    with pytest.raises(UserError, match="longitude and latitude"):
        unit_vectors([[50.0, 100.0]], GLOBE)


def test_tables_datasets_and_dated_arrays_are_the_same_observations():
    times = pandas.date_range("2020-01-01", periods=3, freq="6h")
    u = np.arange(6, dtype=np.float32).reshape(3, 2)
    frame = pandas.DataFrame({
        "time": np.repeat(times, 2), "lon": np.tile(LONLAT[:, 0], 3), "lat": np.tile(LONLAT[:, 1], 3), "T": u.ravel(),
        "station": ["a", "b"] * 3})
    data = xarray.Dataset({"T": (("time", "place"), u)}, {
        "time": times, "lon": ("place", LONLAT[:, 0]), "lat": ("place", LONLAT[:, 1])})
    arrays = Observations(times.to_numpy(), LONLAT, u)
    aware = frame.assign(time=frame["time"].dt.tz_localize("UTC"))
    for given in (frame, aware, data, data["T"], arrays):
        frames = observations_from(given, GLOBE).frames()
        np.testing.assert_allclose(frames.t, [0, 6, 12])
        np.testing.assert_allclose(frames.x, lonlat_to_xyz(*LONLAT.T), atol=1e-12)
        np.testing.assert_array_equal(frames.u[..., 0], u)


def test_a_dataset_of_several_members_is_refused_and_one_member_read():
    values = np.arange(12.0).reshape(3, 2, 2)
    data = xarray.Dataset({"u": (("member", "time", "x"), values)}, {"time": [0.0, 1.0], "x": [0.1, 0.2]})
    with pytest.raises(UserError, match=r"3 entries along member, .*\.isel\(member=0\)"):
        observations_from(data, LINE)
    np.testing.assert_array_equal(observations_from(data.isel(member=2), LINE).frames().u[..., 0], values[2])


def test_what_is_no_table_or_lacks_a_name_is_refused():
    with pytest.raises(UserError, match="pandas DataFrame or an xarray Dataset, .* not ndarray"):
        observations_from(np.zeros(3), LINE)
    with pytest.raises(UserError, match="lacks the channel u"):
        observations_from(pandas.DataFrame({"t": [0.0], "x": [0.0], "v": [1.0]}), LINE)


def test_answers_are_a_cf_dataset():
    def ask(t, x):
        return {"mean": t[:, None, None] + x[None, :, 2:], "std": np.ones((len(t), len(x), 1))}

    lon, lat = np.array([0.0, 90.0, 180.0]), np.array([-30.0, 30.0])
    data = query_dataset(ask, GLOBE, ["2020-01-01T06", "2020-01-02"], None, {"lon": lon, "lat": lat})
    assert data["T"].dims == ("time", "lat", "lon") and data["T"].attrs["units"] == "K"
    np.testing.assert_array_equal(data["time"].values, np.array(["2020-01-01T06", "2020-01-02"], "datetime64[us]"))
    np.testing.assert_allclose(data["T"].sel(lat=30.0).values, [[6.5] * 3, [24.5] * 3])
    assert data["lat"].attrs["units"] == "degrees_north" and data.attrs["Conventions"] == "CF-1.10"
    along = query_dataset(ask, GLOBE, 0.0, LONLAT, {})
    assert along["T_std"].dims == ("time", "point")
    with pytest.raises(UserError, match="give an axis for each of lat, lon"):
        query_dataset(ask, GLOBE, 0.0, None, {"lon": lon})


def test_axes_that_are_called_x_and_y_give_a_grid_and_one_point_is_a_point():
    plane = Description("plate", ("u",), ("x", "y"))

    def ask(t, x):
        return {"mean": (x[:, 0] + 10 * x[:, 1])[None, :, None].repeat(len(t), 0)}

    grid = query_dataset(ask, plane, [0.0, 1.0], [0.0, 1.0], {"y": [0.1, 0.2, 0.3]})["u"]
    assert grid.dims == ("time", "x", "y")
    np.testing.assert_allclose(grid.sel(x=1.0, y=0.2), [3.0, 3.0])
    with pytest.raises(UserError, match="give an axis for each of x, y"):
        query_dataset(ask, plane, 0.0, [0.0, 1.0], {})
    with pytest.raises(UserError, match="both points x and the axes y"):
        query_dataset(ask, plane, 0.0, [[0.0, 1.0]], {"y": [0.1]})
    places = Description("plate", ("u",), ("east", "north"))
    np.testing.assert_allclose(query_dataset(ask, places, 0.0, [0.5, 0.1], {})["u"], [[1.5]])


@pytest.mark.parametrize(("t", "x", "words"), [
    (None, [0.5], "times of a query are NoneType"), ({}, [0.5], "times of a query are dict"),
    (0.5, "here", "points of a query are str"), (0.5, [[1.0], [1.0, 2.0]], "no array"),
])
def test_what_is_no_number_is_told(t, x, words):
    with pytest.raises(UserError, match=words):
        query_points(t, x, Description("line", ("u",), ("x",)))


def test_times_in_a_column_are_of_all_points_and_rows_that_look_like_these_are_told():
    t, x = [0.0, 0.5, 1.0], [[0.1], [0.2], [0.3]]
    for column in (np.array(t)[:, None], torch.tensor(t)[:, None], [[0.0], [0.5], [1.0]]):
        times, _, by_row, shape = query_points(column, x, LINE)
        assert times.tolist() == t and not by_row and shape == (3, 3)
    with pytest.warns(UserWarning, match="3 single points.*give times as a column"):
        assert query_points(t, x, LINE)[2:] == (True, (3,))
    for times, points in ((t, [[0.1]] * 3), ([0.0, 0.0, 1.0], x), (t[:1], x[:1]), (t[::-1], x)):
        query_points(times, points, LINE)  # a series, rows of a table: nothing is told


ZONED = pandas.date_range("2020-01-02T07", periods=2, freq="h", tz="Europe/Zurich")
LATER = np.array(["2020-01-02T06", "2020-01-02T07"], "M8[ns]")


@pytest.mark.parametrize("t", [
    ZONED, pandas.Series(ZONED), list(ZONED), pandas.Series(LATER), ["2020-01-02T06", "2020-01-02T07"],
    pandas.Series(["2020-01-02T06", "2020-01-02T07"]), xarray.DataArray(LATER, dims="time"),
    pandas.period_range("2020-01-02T06", periods=2, freq="h"),
    [datetime.datetime(2020, 1, 2, 6), pandas.Timestamp(LATER[1])]], ids=lambda t: type(t).__name__)
def test_columns_of_dates_of_every_kind_are_hours(t):
    np.testing.assert_array_equal(numeric_times(t, GLOBE), [30, 31])
    if not isinstance(t, pandas.PeriodIndex):
        arrays = Observations(t, LONLAT, np.ones((2, 2, 1)))
        np.testing.assert_array_equal(observations_from(arrays, GLOBE).frames().t, [30, 31])


def test_days_and_missing_dates_and_dates_of_models():
    assert float(numeric_times(datetime.date(2020, 1, 2), GLOBE)) == 24
    assert np.isnan(numeric_times([pandas.Timestamp("2020-01-02"), pandas.NaT], GLOBE)[1])
    years = Description("model", ("T",), ("x",), time_units="hours since 2020-01-01 (noleap)")
    cftime = pytest.importorskip("cftime")
    times = [cftime.DatetimeNoLeap(2020, 1, 2), cftime.DatetimeNoLeap(2020, 3, 1)]
    for given in (times, xarray.DataArray(times, dims="time"), xarray.CFTimeIndex(times),
                  np.array(["2020-01-02", "2020-03-01"], "M8[s]")):
        np.testing.assert_allclose(numeric_times(given, years), [24, 59 * 24])
    with pytest.raises(UserError, match="'soon', which is not an ISO date"):
        Observations("soon", LONLAT, np.ones((2, 1)))


def test_points_of_a_table_are_taken_by_name():
    table = pandas.DataFrame({"lat": LONLAT[:, 1], "name": ["a", "b"], "lon": LONLAT[:, 0]})
    for given in (table, table.convert_dtypes(), table.assign(lat=table["lat"].astype("category"))):
        points = query_points(0.0, given, GLOBE)[1].numpy()
        np.testing.assert_allclose(points, lonlat_to_xyz(*LONLAT.T), atol=1e-12)
    np.testing.assert_array_equal(query_points(0.0, pandas.DataFrame([[0.25], [0.5]]), LINE)[1], [[0.25], [0.5]])
    assert query_points(0, [[1], [2]], LINE)[1].dtype == torch.float64  # whole numbers are places as well
    with pytest.raises(UserError, match="columns lat, name; expected x, y, z or lon, lat"):
        query_points(0.0, table[["lat", "name"]], GLOBE)


def test_what_is_masked_or_missing_is_no_value_and_views_and_halves_are_read():
    values = np.ma.array([[1.0], [1e20]], mask=[[False], [True]])
    for u in (values, [[1.0], [None]], pandas.DataFrame({"u": pandas.array([1.0, None], dtype="Float64")}),
              torch.tensor([[1.0], [np.nan]], dtype=torch.bfloat16), np.array([[np.nan], [1.0]], np.float16)[::-1]):
        assert len(Observations(0.0, [[0.0], [1.0]], u)) == 1
    with pytest.raises(UserError, match="complex"):
        Observations(0.0, [[0.0]], [[1j]])
    for x in (np.arange(6.0).reshape(3, 2)[::-1, :1], torch.tensor([[4.0], [2.0], [0.0]], dtype=torch.bfloat16),
              np.array([[4.0], [2.0], [0.0]], object)):
        np.testing.assert_array_equal(query_points(0.0, x, LINE)[1].double(), [[4.0], [2.0], [0.0]])
    with pytest.raises(UserError, match="is a Dataset"):
        query_points(0.0, xarray.Dataset({"x": ("x", [1.0])}), LINE)


def test_columns_of_one_name_are_refused_and_names_of_rows_are_columns():
    frame = pandas.DataFrame({"t": [0.0, 1.0], "x": [0.0, 0.0], "u": [1.0, 2.0]})
    assert len(observations_from(frame.set_index(["t", "x"]), LINE)) == 2
    with pytest.raises(UserError, match="several columns u"):
        observations_from(pandas.concat([frame, frame[["u"]]], axis=1), LINE)
    for made, words in ((lambda: Observations.from_dataframe(3, ["u"], ["x"]), "DataFrame, not int"),
                        (lambda: Observations.from_xarray(frame, ["u"], ["x"]), "Dataset, not DataFrame")):
        with pytest.raises(UserError, match=words):
            made()


def test_a_channel_called_as_the_deviation_of_another_is_refused_in_datasets():
    about, values = Description("sensors", ("u", "u_std"), ("x",)), np.zeros((1, 3, 2))
    with pytest.raises(UserError, match="a channel u_std, which is .* that answers add; give std=False"):
        query_dataset(lambda *_: {"mean": values, "std": values}, about, 0.0, np.zeros((3, 1)), {})
    assert set(query_dataset(lambda *_: {"mean": values}, about, 0.0, np.zeros((3, 1)), {})) == {"u", "u_std"}
    assert "a channel u_std, which is the name of a column that answers add; rename it before" in about.clash
    assert not Description("sensors", ("u", "v"), ("x",)).clash
