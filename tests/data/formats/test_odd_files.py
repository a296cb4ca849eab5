"""Files as users have them: words for missing values, dates written in other ways, comments, other units."""

import gzip
import warnings

import numpy as np
import pytest
import xarray

from inrflow.data.formats.convert import convert
from inrflow.data.formats.tables import read_observations
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

HOURS = [f"2024-03-01T{hour:02d}:00" for hour in range(3)]
VALUES = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
FIRST = (np.datetime64("2024-03-01") - np.datetime64("1970-01-01")) / np.timedelta64(1, "h")


def rows(times=HOURS, separator=",", last="6.0"):
    cells = [[time, f"{x}", "0.5", last if value == 6 else f"{value}"]
             for time, row in zip(times, VALUES.tolist(), strict=True) for x, value in enumerate(row)]
    return [separator.join(row) for row in cells]


def frames_of(path, text, **options):
    if isinstance(path, str):
        raise TypeError(path)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert(path, path.with_suffix(".h5"), overwrite=True, **options)
    with TrajectoryFile(path.with_suffix(".h5")) as file:
        return file.description, file.read(0)


@pytest.mark.parametrize("word", ["", "NA", "n/a", "null", "None", "-", "--", "#N/A", "*", "missing"])
def test_words_for_missing_values_are_gaps(tmp_path, word):
    about, frames = frames_of(tmp_path / "a.csv", "\n".join(["time,x,y,u", *rows(last=word)]))
    t, x, u = frames.rows()
    assert about.channels == ("u",) and len(u) == 5 and u[:, 0].tolist() == [1, 2, 3, 4, 5]


def test_words_alone_are_text(tmp_path):
    lines = ["time,x,y,u,flag", *(f"{row},-" for row in rows())]
    about, _ = frames_of(tmp_path / "a.csv", "\n".join(lines))
    assert about.channels == ("u",)


@pytest.mark.parametrize(("times", "step"), [
    (["2024030100", "2024030101", "2024030102"], 1), (["202403010000", "202403010030", "202403010100"], 0.5),
    (["20240301", "20240302", "20240303"], 24), (["01.03.2024", "02.03.2024", "03.03.2024"], 24),
    (["Mar 1 2024", "Mar 2 2024", "Mar 3 2024"], 24),
    (["March 01 2024 00:00", "March 01 2024 01:00", "March 01 2024 02:00"], 1),
    (["01-Mar-2024 00:00", "01-Mar-2024 01:00", "01-Mar-2024 02:00"], 1),
    (["2024/03/01 00:00", "2024/03/01 01:00", "2024/03/01 02:00"], 1),
    (["2024-03-01 00:00 UTC", "2024-03-01 01:00 UTC", "2024-03-01 02:00 UTC"], 1),
])
def test_dates_written_in_other_ways_are_dates(tmp_path, times, step):
    about, frames = frames_of(tmp_path / "a.csv", "\n".join(["time,x,y,u", *rows(times)]))
    assert about.time_units == "hours since 1970-01-01"
    np.testing.assert_allclose(frames.t, FIRST + step * np.arange(3))
    np.testing.assert_array_equal(frames.u[..., 0], VALUES)
    given = read_observations(tmp_path / "a.csv", about)[0].frames()
    np.testing.assert_allclose(given.t, frames.t)


def test_serial_numbers_of_spreadsheets_are_dates_in_columns_of_dates_alone(tmp_path):
    times = ["45352", "45352.04167", "45352.08333"]  # 2024-03-01 and hours after it, as a cell shows them
    about, frames = frames_of(tmp_path / "a.csv", "\n".join(["Date,x,y,u", *rows(times)]))
    assert about.time_units == "hours since 1970-01-01" and frames.t.tolist() == (FIRST + np.arange(3)).tolist()
    assert read_observations(tmp_path / "a.csv", about)[0].frames().t.tolist() == frames.t.tolist()
    about, frames = frames_of(tmp_path / "b.csv", "\n".join(["time,x,y,u", *rows(times)]))
    assert about.time_units is None and frames.t.tolist() == list(map(float, times))
    clocks = [f"45352,{clock}" for clock in ("00:00", "01:00", "02:00")]
    about, frames = frames_of(tmp_path / "c.csv", "\n".join(["Date,Time,x,y,u", *rows(clocks)]))
    assert about.channels == ("u",) and frames.t.tolist() == (FIRST + np.arange(3)).tolist()


@pytest.mark.parametrize("clocks", [["0", "0.25", "0.5"], ["0000", "0600", "1200"], ["0", "6", "12"]])
def test_numbers_of_clocks_beside_days_are_refused_instead_of_averaged_over_days(tmp_path, clocks):
    lines = [f"{day},{row}" for day in ("2024-03-01", "2024-03-02") for row in rows(clocks)]
    with pytest.raises(UserError, match="rows of one Time and place differ by Date; write both as dates"):
        frames_of(tmp_path / "a.csv", "\n".join(["Date,Time,x,y,u", *lines]))
    about, frames = frames_of(tmp_path / "b.csv", "\n".join(["Date,Time,x,y,u", *lines[:6]]))  # of one day
    assert about.channels == ("u",) and frames.t.tolist() == list(map(float, clocks))


@pytest.mark.parametrize("times", [["100", "200", "300"], ["20241301", "20241302", "20241303"]])
def test_numbers_that_are_no_dates_stay_numbers(tmp_path, times):
    about, frames = frames_of(tmp_path / "a.csv", "\n".join(["time,x,y,u", *rows(times)]))
    assert about.time_units is None and frames.t.tolist() == list(map(float, times))


def test_a_date_that_may_be_two_is_refused_with_what_to_write(tmp_path):
    with pytest.raises(UserError, match="2024-01-31T18:00"):
        frames_of(tmp_path / "a.csv", "\n".join(["time,x,y,u", *rows(["01/03/2024", "02/03/2024", "03/03/2024"])]))


@pytest.mark.parametrize(("head", "separator", "encoding"), [
    ("# made by a logger\n# v2\ntime,x,y,u", ",", "utf-8"), ("# time,x,y,u", ",", "utf-8"),
    ("time|x|y|u", "|", "utf-8"),
    ("  time x   y u", "  ", "utf-8"), ("time,x,y,u", ",", "utf-16"), ("time\tx\ty\tu", "\t", "utf-16"),
    ("time,x,y,u", ",", "utf-16-le"), ("time,x,y,u", ",", "utf-16-be"), ("time,x,y,u", ",", "utf-32"),
])
def test_headers_separators_and_encodings(tmp_path, head, separator, encoding):
    text = "\n".join([head, *rows(["0", "1", "2"], separator)])
    about, frames = frames_of(tmp_path / "a.txt", text.encode(encoding))
    assert about.channels == ("u",)
    np.testing.assert_array_equal(frames.u[..., 0], VALUES)


@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_agencies_in_latin_1_are_read_and_told(tmp_path, packed):
    lines = ["Station;time;x;y;Temperatur [°C];Wärmefluß"]
    lines += [f"Köln {k};2020-01-01T0{t}:00;{k},5;0,0;{t + k},25;{t},0" for t in range(4) for k in range(3)]
    text = "\r\n".join(lines).encode("latin-1")
    (tmp_path / "a.csv").write_bytes(gzip.compress(text) if packed else text)
    with pytest.warns(UserWarning, match="is no UTF-8.*'°'.*Windows-1252"):
        convert(tmp_path / "a.csv", tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        assert file.description.channels == ("Temperatur [°C]", "Wärmefluß")
        np.testing.assert_array_equal(file.read(0).u[..., 0], np.arange(4)[:, None] + np.arange(3) + 0.25)


@pytest.mark.parametrize("written", [
    lambda value: f"{1000 * value:,.1f}".replace(",", "'"), lambda value: f"{1000 * value:,.1f}".replace(",", "\u202f"),
    lambda value: f'"{1000 * value:,.1f}"'.replace(",", " ").replace(".", ","),
    lambda value: f"{1000 * value:.5e}".replace("e", "D")], ids=["Swiss", "thin spaces", "blanks", "Fortran"])
def test_numbers_as_other_programs_write_them(tmp_path, written):
    lines = [f"{time},{x},{y},{written(float(u))}" for time, x, y, u in (row.split(",") for row in rows())]
    about, frames = frames_of(tmp_path / "a.csv", "\n".join(["time,x,y,u", *lines]))
    assert about.channels == ("u",)
    np.testing.assert_array_equal(frames.u[..., 0], 1000 * VALUES)


def test_cells_with_units_are_text_and_missing_dates_are_told(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["time,x,y,v,u", *(f"{row} °C" for row in rows(last="5"))]).replace(
        ",0.5,", ",0.5,1.5,"))
    with pytest.warns(UserWarning, match="u holds text .*write bare numbers if u .'1.0 °C'. is one"):
        convert(tmp_path / "a.csv", tmp_path / "a.h5")
    with pytest.raises(UserError, match="row 3|rows from 3|row 2"):
        frames_of(tmp_path / "b.csv", "\n".join(["time,x,y,u", *rows(["2024-03-01", "NaT", "2024-03-02"])]))


def test_a_height_that_never_changes_is_no_coordinate(tmp_path):
    lines = [f"{t},{lat},{lat + 1},12,{lat}" for t in range(3) for lat in (40.0, 40.5, 41.0, 41.5)]
    about, frames = frames_of(tmp_path / "a.csv", "\n".join(["time,lat,lon,elev,u", *lines]))
    assert about.geometry == "sphere" and about.channels == ("u",) and frames.x.shape == (4, 3)
    about, _ = frames_of(tmp_path / "b.csv", "\n".join(["time,lat,lon,elev,u", *(
        line.replace(",12,", f",{k % 4},") for k, line in enumerate(lines))]))
    assert about.coordinates == ("lon", "lat", "elev")


def test_an_index_without_a_name_and_a_clock_beside_its_date(tmp_path):
    lines = [",date,time,x,y,u"]
    lines += [f"{k},{row.replace('T', ',', 1)}" for k, row in enumerate(rows())]
    about, frames = frames_of(tmp_path / "a.csv", "\n".join(lines))
    assert about.channels == ("u",)
    np.testing.assert_allclose(frames.t, FIRST + np.arange(3))


def gridded(path, units="K", lon=(0.0, 90.0, 180.0, 269.9), time=(0.0, 1.0), time_units="hours since 2020-01-01"):
    values = np.arange(16.0, dtype=np.float32).reshape(2, 2, 4)
    xarray.Dataset({"u": (("time", "lat", "lon"), values, {"units": units})}, {
        "time": ("time", np.array(time), {"units": time_units} if time_units else {}),
        "lat": ("lat", [0.0, 10.1], {"units": "degrees_north"}),
        "lon": ("lon", np.array(lon), {"units": "degrees_east"})}).to_netcdf(path)
    return path


def test_longitudes_from_0_and_from_minus_180_are_the_same_places(tmp_path):
    gridded(tmp_path / "a.nc")
    gridded(tmp_path / "b.nc", lon=(-180.0, -90.1, 0.0, 90.0), time=(2.0, 3.0))
    convert([tmp_path / "a.nc", tmp_path / "b.nc"], tmp_path / "ab.h5")
    with TrajectoryFile(tmp_path / "ab.h5") as file:
        frames = file.read(0)
        assert file.trajectories == 1
    order = np.array([2, 3, 0, 1, 6, 7, 4, 5])  # of the second file's places among those of the first
    first, second = (np.array([dict(zip(map(tuple, np.round(frames.x, 6)), one, strict=True))[place] for place in map(
        tuple, np.round(frames.x, 6))]) for one in (frames.u[0, :, 0], frames.u[2, :, 0]))
    assert {(a, b) for a, b in zip(first, second, strict=True)} == {(float(k), float(order[k])) for k in range(8)}


def test_other_units_are_told(tmp_path):
    gridded(tmp_path / "a.nc")
    gridded(tmp_path / "b.nc", "degC", time=(2.0, 3.0))
    with pytest.raises(UserError, match=r"values in degC, .*a.nc in K; convert them"):
        convert([tmp_path / "a.nc", tmp_path / "b.nc"], tmp_path / "ab.h5")
    convert(tmp_path / "a.nc", tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file, pytest.warns(UserWarning, match="u is in degC here and in K there"):
        read_observations(tmp_path / "b.nc", file.description)


@pytest.mark.parametrize(("time", "units", "hours"), [
    ((20200131.0, 20200201.25), "day as %Y%m%d.%f", 30), ((20200131, 20200201), "", 24),
])
def test_days_counted_as_dates_are_dates(tmp_path, time, units, hours):
    convert(gridded(tmp_path / "a.nc", time=time, time_units=units), tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        assert file.description.time_units == "hours since 1970-01-01"
        np.testing.assert_allclose(np.diff(file.read(0).t), hours)


def test_numbers_of_stations_are_no_channel(tmp_path):
    lines = ["STATIONS_ID,time,x,y,u,NO", *(f"{44 + k % 2},{row},{k}" for k, row in enumerate(rows()))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="STATIONS_ID holds text, numbers of stations"):
        convert(tmp_path / "a.csv", tmp_path / "a.h5")
    with TrajectoryFile(tmp_path / "a.h5") as file:
        assert file.description.channels == ("u", "NO")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_observations(tmp_path / "a.csv", file.description)
