"""Tables of stations whose places are in a second file: wide, long, and what is wrong with them."""

import warnings
from dataclasses import replace

import numpy as np
import pandas
import pytest

from inrflow.data.description import Description
from inrflow.data.formats.columns import PointTable
from inrflow.data.formats.convert import convert
from inrflow.data.formats.registry import ReadOptions
from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.data.formats.streams.stations import StationTables
from inrflow.data.formats.tables import read_observations, write_points
from inrflow.data.formats.texts.csv_table import CsvFormat
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

HOURS = pandas.date_range("2024-01-01", periods=6, freq="h")
PLACES = pandas.DataFrame({"station_id": [101, 7, 33], "x": [0.0, 1.0, 2.0], "y": [5.0, 4.0, 3.0],
                           "owner": list("abc")})
VALUES = np.arange(18.0).reshape(6, 3)


@pytest.fixture
def places(tmp_path):
    PLACES.to_csv(tmp_path / "places.csv", index=False)
    return str(tmp_path / "places.csv")


def read(path, places, **options):
    convert(path, path.with_suffix(".h5"), stations=places, **options)
    with TrajectoryFile(path.with_suffix(".h5")) as file:
        frames = file.read(0)
        return file.description, {tuple(x): frames.u[:, k, 0] for k, x in enumerate(frames.x.tolist())}


def check(series):
    assert set(series) == {(0.0, 5.0), (1.0, 4.0), (2.0, 3.0)}
    for column, place in enumerate(PLACES[["x", "y"]].to_numpy().tolist()):
        assert np.array_equal(series[tuple(place)], VALUES[:, column])


def test_a_column_for_each_station(tmp_path, places):
    table = pandas.DataFrame(VALUES, columns=["101", "7", "33.0"]).assign(time=HOURS, comment="dry")
    table.to_csv(tmp_path / "wide.csv", index=False)
    with pytest.warns(UserWarning, match="comment is not a station"):
        about, series = read(tmp_path / "wide.csv", places, channels=["temperature"])
    check(series)
    assert about.channels == ("temperature",) and about.time_units.startswith("hours since")


def test_columns_of_stations_may_have_their_unit_behind_the_name(tmp_path, places):
    table = pandas.DataFrame(VALUES, columns=["101 [°C]", "7 (°C)", "33"]).assign(time=HOURS)
    table.to_csv(tmp_path / "wide.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    check(read(tmp_path / "wide.csv", places)[1])
    table = table.rename(columns={"33": "33 [°C]"})
    table.to_csv(tmp_path / "all.csv", index=False)
    assert read(tmp_path / "all.csv", places)[0].units == ("°C",)


def test_a_column_of_names(tmp_path, places):
    table = pandas.DataFrame({"time": np.repeat(HOURS, 3), "station": np.tile([101, 7, 33], 6), "t2m": VALUES.ravel()})
    table.to_csv(tmp_path / "long.csv", index=False)
    about, series = read(tmp_path / "long.csv", places)
    assert about.channels == ("t2m",)
    check(series)


def test_observations_are_given_in_the_same_tables(tmp_path, places):
    about = Description("net", ("t2m",), ("x", "y"), time_units="hours since 2024-01-01")
    wide = pandas.DataFrame(VALUES, columns=["101", "7", "33"]).assign(time=HOURS)
    long = pandas.DataFrame({"time": np.repeat(HOURS, 3), "station": np.tile([101, 7, 33], 6), "t2m": VALUES.ravel()})
    placed = long.merge(PLACES.rename(columns={"station_id": "station"})[["station", "x", "y"]])
    for name, table in (("wide", wide), ("long", long), ("placed", placed.drop(columns="station"))):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        frames = read_observations(tmp_path / f"{name}.csv", about, places)[0].frames()
        np.testing.assert_allclose(frames.t, np.arange(6))
        check({tuple(x): frames.u[:, k, 0] for k, x in enumerate(frames.x.tolist())})
    wide.rename(columns=str.upper).rename(columns={"101": "a", "7": "b", "33": "c"}).to_csv(tmp_path / "other.csv")
    with pytest.raises(UserError, match="none is a station"):
        read_observations(tmp_path / "other.csv", about, places)


def test_columns_of_other_names_are_those_that_the_run_was_told(tmp_path, places):
    """Dates in a column Zeitpunkt, a unit with a slash in a name, coordinates of another language."""
    PLACES.rename(columns={"x": "rechts", "y": "hoch"}).to_csv(tmp_path / "orte.csv", index=False, sep=";")
    long = pandas.DataFrame({"Zeitpunkt": np.repeat(HOURS, 3), "Station": np.tile([101, 7, 33], 6),
                             "O3 [ug/m3]": VALUES.ravel()})
    long.to_csv(tmp_path / "long.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    told = {"time": "Zeitpunkt", "coordinates": ["rechts", "hoch"]}
    about, series = read(tmp_path / "long.csv", str(tmp_path / "orte.csv"), channels=["O3 [ug/m3]"], **told)
    check(series)
    assert about.coordinates == ("rechts", "hoch") and "/" not in about.channels[0]
    frames = read_observations(tmp_path / "long.csv", about, str(tmp_path / "orte.csv"), told)[0].frames()
    check({tuple(x): frames.u[:, k, 0] for k, x in enumerate(frames.x.tolist())})
    options = ReadOptions(coordinates=told["coordinates"], stations=str(tmp_path / "orte.csv"))
    named = StationTables(CsvFormat(), replace(options, time="Zeitpunkt"))
    order, columns = named.stations_at(np.array([[1.9, 3.0], [0.0, 5.0]]), about)
    own = PLACES.set_index("station_id").loc[[101, 33]]
    assert order.tolist() == [1, 0] and {key: value.tolist() for key, value in columns.items()} == {
        "station_id": ["101", "33"], "rechts": own["x"].tolist(), "hoch": own["y"].tolist()}
    assert named.time_in(tmp_path / "long.csv") == ("Zeitpunkt", str(HOURS[0]))
    write_points(tmp_path / "answer.csv", PointTable(np.zeros(1, int), np.zeros(1), np.zeros((1, 2)), {}),
                 {about.channels[0]: np.ones(1)})
    assert (tmp_path / "answer.csv").read_text().split()[:2] == ["O3", "[ug/m3]"]


def test_what_does_not_fit_is_named(tmp_path, places):
    wide = pandas.DataFrame(VALUES, columns=["a", "b", "c"]).assign(time=HOURS)
    wide.to_csv(tmp_path / "other.csv", index=False)
    pandas.DataFrame({"time": HOURS[:1], "station": [8], "t2m": [1.0]}).to_csv(tmp_path / "unknown.csv", index=False)
    PLACES.assign(station_id=7).to_csv(tmp_path / "twice.csv", index=False)
    for table, stations, words in [("other.csv", places, "none is a station"), ("unknown.csv", places, "no place of"),
                                   ("unknown.csv", str(tmp_path / "twice.csv"), "names 7 twice"),
                                   ("unknown.csv", str(tmp_path / "other.csv"), "expected a column station")]:
        with pytest.raises(UserError, match=words):
            convert(tmp_path / table, tmp_path / "out.h5", stations=stations)


@pytest.mark.parametrize(("columns", "axes"), [
    ({"Easting (m)": "x", "Northing (m)": "y", "elevation": "x"}, ("Easting (m)", "Northing (m)", "elevation")),
    ({"lon": "x", "lat": "y", "easting": "y", "northing": "x", "alt_m": "y"}, ("lon", "lat", "alt_m")),
])
def test_places_are_eastings_and_northings_where_there_are_no_degrees(tmp_path, columns, axes):
    table = PLACES[["station_id"]].assign(**{name: PLACES[source] for name, source in columns.items()})
    table.to_csv(tmp_path / "survey.csv", index=False)
    wide = pandas.DataFrame(VALUES, columns=["101", "7", "33"]).assign(time=HOURS)
    wide.to_csv(tmp_path / "wide.csv", index=False)
    description, series = read(tmp_path / "wide.csv", str(tmp_path / "survey.csv"))
    assert description.coordinates == axes
    assert set(series) == set(table[list(axes)].itertuples(index=False, name=None))


@pytest.mark.parametrize(("name", "axes"), [
    ("depth (m)", ("lon", "lat", "depth (m)")), ("pres", ("lon", "lat", "pres")), ("temperature", ("x", "y", "z"))])
def test_a_depth_that_tells_rows_of_one_time_and_place_apart_is_a_coordinate(tmp_path, name, axes):
    rows = [(float(t), 5.0 + x, 50.0 - x, depth, t + depth) for t in range(4) for x in range(3) for depth in range(5)]
    table = pandas.DataFrame(rows, columns=["t", "lon", "lat", name, "salinity"])
    table.to_csv(tmp_path / "profiles.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert(tmp_path / "profiles.csv", tmp_path / "profiles.h5")
    with TrajectoryFile(tmp_path / "profiles.h5", check=False) as file:
        assert file.description.coordinates == axes


def test_a_depth_of_snow_is_a_value(tmp_path):
    table = pandas.DataFrame([(float(t), 5.0 + x, 50.0 - x, 0.1 * t, 2.0 * x) for t in range(6) for x in range(3)],
                             columns=["t", "lon", "lat", "depth", "T"])
    table.to_csv(tmp_path / "snow.csv", index=False)
    convert(tmp_path / "snow.csv", tmp_path / "snow.h5")
    with TrajectoryFile(tmp_path / "snow.h5") as file:
        assert "depth" in file.description.channels


@pytest.mark.parametrize("lat, lon", [
    ("{:.3f}N", "{:.3f}W"), ("{:.3f} n", "{:.3f} w"), ("N{:.3f}", "W {:.3f}"), ("{:.3f}°", "-{:.3f}°"),
    ("{d}°{m:06.3f}'N", "{d}°{m:06.3f}'W"), ("{d} {i} {s:.1f} N", "{d} {i} {s:.1f} W"),
    ("{d}°{i:02d}'{s:04.1f}\"N", "{d}°{i:02d}′{s:04.1f}″W"), ("{d}-{i}-{s:.2f}N", "{d}:{i}:{s:.2f}W")])
def test_degrees_have_letters_of_hemispheres_or_minutes_and_seconds(tmp_path, lat, lon):
    def written(form, size):
        minutes = (size - int(size)) * 60
        return form.format(size, d=int(size), m=minutes, i=int(minutes), s=(minutes - int(minutes)) * 60)

    places = np.array([[8.51, 47.0], [9.1, 46.85], [73.999, 0.125]])
    rows = [f"2024-01-0{day}\t{written(lat, south)}\t{written(lon, west)}\t{day + west}"
            for day in (1, 2, 3) for west, south in places]
    (tmp_path / "degrees.tsv").write_text("\n".join(["date\tlat\tlon\ttemp", *rows]))
    convert(str(tmp_path / "degrees.tsv"), tmp_path / "degrees.h5")
    with TrajectoryFile(tmp_path / "degrees.h5") as file:
        found = file.read(0)
    expected = lonlat_to_xyz(-places[:, 0], places[:, 1])
    order = np.argsort(found.u[0, :, 0])
    np.testing.assert_allclose(found.x[order], expected[np.argsort(places[:, 0])], atol=2e-6)  # .1 seconds are 5e-7


def test_a_latitude_with_the_letter_of_a_longitude_is_refused(tmp_path):
    (tmp_path / "swapped.csv").write_text("time,lat,lon,temp\n0,8.5E,47N,1\n1,8.5E,47N,2\n")
    with pytest.raises(UserError, match="is '47N' in row 1; expected a number"):
        convert(str(tmp_path / "swapped.csv"), tmp_path / "swapped.h5")


def test_a_warning_says_that_values_flagged_by_words_are_used(tmp_path):
    (tmp_path / "flags.csv").write_text("time,x,temp,qc\n0,0,1,OK\n0,1,99,BAD\n1,0,1,OK\n1,1,3,OK\n")
    with pytest.warns(UserWarning, match=r"qc holds text .*rows of all qc \(BAD, OK\) are used: empty"):
        convert(str(tmp_path / "flags.csv"), tmp_path / "flags.h5")
