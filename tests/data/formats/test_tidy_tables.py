"""Tidy tables: a row for each value, which names its variable; against the same table with a column for each."""

import numpy as np
import pandas
import pytest

import inrflow
from inrflow.data.description import Description
from inrflow.data.formats.convert import convert
from inrflow.data.formats.tables import read_observations, read_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.labelled import observations_from
from inrflow.errors import UserError

RANDOM = np.random.default_rng(0)
HOURS = pandas.date_range("2024-01-01", periods=6, freq="h")
WIDE = pandas.DataFrame({"time": np.repeat(HOURS, 3), "station": np.tile(["a", "b", "c"], 6),
                         "x": np.tile([0.0, 1.0, 2.0], 6), "y": np.tile([5.0, 4.0, 3.0], 6),
                         "t2m": RANDOM.normal(280, 5, 18).round(2), "wind": RANDOM.normal(5, 1, 18).round(2)})
TIDY = WIDE.melt(["time", "station", "x", "y"]).assign(unit=np.repeat(["K", "m s-1"], 18))


def converted(path, **options):
    """The description of a table, and its values by channel: {(hour, *place): value}."""
    convert(path, path.with_suffix(".h5"), **options)
    with TrajectoryFile(path.with_suffix(".h5")) as file:
        about, frames = file.description, file.read(0)
    places = np.broadcast_to(frames.x, (*frames.u.shape[:2], frames.x.shape[-1]))
    keys = [(float(t - frames.t[0]), *place) for t, row in zip(frames.t, places.tolist(), strict=True) for place in row]
    return about, {name: {key: value for key, value in zip(keys, frames.u[..., c].ravel().tolist(), strict=True)
                          if value == value} for c, name in enumerate(about.channels)}


def expected(name):
    hours = (WIDE["time"] - HOURS[0]) / pandas.Timedelta("1h")
    return {(hour, x, y): float(np.float32(value))
            for hour, x, y, value in zip(hours, WIDE["x"], WIDE["y"], WIDE[name], strict=True)}


@pytest.mark.filterwarnings("ignore:.*station holds text")
@pytest.mark.parametrize("order", ["by variable", "by time", "shuffled"])
@pytest.mark.parametrize("write", [lambda table, path: table.to_csv(path, index=False), pandas.DataFrame.to_parquet],
                         ids=["csv", "parquet"])
def test_every_variable_is_a_channel_however_rows_are_ordered(order, write, tmp_path):
    table = {"by variable": TIDY, "by time": TIDY.sort_values(["time", "station"]),
             "shuffled": TIDY.sample(frac=1, random_state=0)}[order]
    write(table, tmp_path / "tidy.data")
    about, values = converted(tmp_path / "tidy.data")
    assert sorted(zip(about.channels, about.units, strict=True)) == [("t2m", "K"), ("wind", "m s-1")]
    assert values == {"t2m": expected("t2m"), "wind": expected("wind")}


@pytest.mark.filterwarnings("error:.*repeat the time and place")
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_sensors_and_flags_of_single_values_part_no_rows_and_stations_do(tmp_path):
    table = TIDY.assign(location_id=TIDY["station"].map({"a": 1, "b": 2, "c": 3}),
                        flag=np.where(np.arange(36) % 5, "ok", "?"))
    table["sensor_id"] = 10 * table["location_id"] + (table["variable"] == "wind")
    table.rename(columns={"time": "datetimeUtc"}).to_csv(tmp_path / "tidy.csv", index=False)
    about, values = converted(tmp_path / "tidy.csv")
    assert about.channels == ("t2m", "wind") and values == {"t2m": expected("t2m"), "wind": expected("wind")}
    places = WIDE[["station", "x", "y"]].drop_duplicates()
    places.to_csv(tmp_path / "places.csv", index=False)
    one_each = TIDY[(TIDY["station"] == "a") == (TIDY["variable"] == "wind")].drop(columns=["x", "y"])
    one_each.to_csv(tmp_path / "named.csv", index=False)
    _, values = converted(tmp_path / "named.csv", stations=str(tmp_path / "places.csv"))
    assert {key[1] for key in values["wind"]} == {0.0} and {key[1] for key in values["t2m"]} == {1.0, 2.0}


def test_what_is_missing_stays_missing_and_what_is_told_twice_is_told(tmp_path):
    table = TIDY.drop(columns=["station", "unit"]).drop(index=4)
    again = table.iloc[[20]].assign(value=99.0)
    pandas.concat([table, again]).rename(columns={"variable": "parameter"}).to_csv(tmp_path / "tidy.csv", index=False)
    with pytest.warns(UserWarning, match="1 of 19 rows repeat the time and place of another, 1 with other values"):
        _, values = converted(tmp_path / "tidy.csv")
    assert values["t2m"] == {key: value for key, value in expected("t2m").items() if key != (1.0, 1.0, 4.0)}
    assert values["wind"].keys() == expected("wind").keys()


def test_observations_and_points_are_rows_of_times_and_places(tmp_path):
    about = Description("net", ("t2m", "wind"), ("x", "y"), time_units="hours since 2024-01-01")
    TIDY.drop(columns="unit").to_csv(tmp_path / "tidy.csv", index=False)
    for found in (read_observations(tmp_path / "tidy.csv", about)[0], observations_from(TIDY, about)):
        assert isinstance(found, inrflow.Observations)
        np.testing.assert_array_equal(found.frames().u[0], WIDE.iloc[:3][["t2m", "wind"]].to_numpy(np.float32))
    points = read_points(tmp_path / "tidy.csv", about)
    assert len(points) == len(WIDE) and points.columns["station"].tolist() == WIDE["station"].tolist()


def test_numbers_are_no_names_of_variables_and_rows_without_one_are_named(tmp_path):
    table = pandas.DataFrame({"t": np.repeat(np.arange(4.0), 3), "x": np.tile(np.arange(3.0), 4),
                              "parameter": 7.5, "value": np.arange(12.0)})
    table.to_csv(tmp_path / "numbers.csv", index=False)
    assert converted(tmp_path / "numbers.csv")[0].channels == ("parameter", "value")
    for name, words in ((None, "variable is empty in row 4"), ("x", "variable names x, which is a column as well")):
        wrong = TIDY.copy()
        wrong.loc[3, "variable"] = name
        wrong.to_csv(tmp_path / "wrong.csv", index=False)
        with pytest.raises(UserError, match=words):
            convert(tmp_path / "wrong.csv", tmp_path / "wrong.h5")


@pytest.mark.filterwarnings("ignore:.*(station holds text|no column is called as times are|holds milliseconds)")
@pytest.mark.parametrize("called", ["metric", "sensor_type", "Parameter_Name"])
def test_other_words_for_variables_and_times_that_only_their_values_tell(called, tmp_path):
    table = TIDY.drop(columns="unit").rename(columns={"variable": called, "time": "ts"})
    table.to_csv(tmp_path / "dates.csv", index=False)
    table.assign(ts=table["ts"].astype("datetime64[ms]").astype(np.int64)).to_csv(tmp_path / "numbers.csv", index=False)
    about, values = converted(tmp_path / "dates.csv")
    assert set(about.channels) == {"t2m", "wind"} and all(values[name] == expected(name) for name in values)
    about, values = converted(tmp_path / "numbers.csv")
    assert about.time_units == "milliseconds since 1970-01-01" and list(values["t2m"].values()) == list(
        expected("t2m").values())
