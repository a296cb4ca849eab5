"""Tables: the same points and observations from every format, new columns beside the old, mistakes named."""

import csv
import io
import tracemalloc

import h5py
import numpy as np
import pandas
import pytest
import xarray
from small_data import WAVE, field

from inrflow.data.description import Description
from inrflow.data.formats.convert import convert
from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.data.formats.tables import (
    PointReader,
    PointTable,
    PointWriter,
    read_observations,
    read_points,
    write_points,
)
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_scattered, write_trajectories
from inrflow.errors import UserError

GLOBE = Description("globe", ("sst",), ("x", "y", "z"), geometry="sphere", time_units="hours since 1970-01-01")
T = np.array([0.5, 0.5, 1.25, 2.0])
X = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [1e-9, -7.25]])
U = np.array([[1.0, 2.0], [np.nan, 3.0], [4.0, np.nan], [5.5, 6.5]])
NUMBER = np.array([0, 0, 3, 3])
CSV = """trajectory,station,t,x,y,u,v
0,a,0.5,0.1,0.2,1,2
0,"b, c",0.5,0.3,0.4,,3
3,d,1.25,0.5,0.6,4,NaN
3,e,2,1e-9,-7.25,5.5,6.5
"""


def without(text, name):
    """The CSV without a column."""
    rows = list(csv.DictReader(io.StringIO(text)))
    kept = io.StringIO()
    writer = csv.DictWriter(kept, [column for column in rows[0] if column != name], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return kept.getvalue()


def write(folder, kind, values=True, stations=True):
    """The rows above in any format."""
    columns = {"trajectory": NUMBER, "t": T, "x": X[:, 0], "y": X[:, 1]}
    columns |= {"station": np.array(["a", "b, c", "d", "e"])} if stations else {}
    columns |= {"u": U[:, 0], "v": U[:, 1]} if values else {}
    path = folder / f"points.{kind}"
    if kind == "csv":
        text = CSV if stations else without(CSV, "station")
        path.write_text(text if values else without(without(text, "u"), "v"))
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            for name, column in columns.items():
                file[name] = column.astype(object) if column.dtype.kind == "U" else column
    elif kind == "nc":
        xarray.Dataset({name: ("row", column) for name, column in columns.items()}).to_netcdf(path, engine="h5netcdf")
    elif kind == "schema.h5":
        write_scattered(path, NUMBER, T, X, U, WAVE)
    return path


@pytest.mark.parametrize("kind", ["csv", "h5", "nc", "schema.h5"])
def test_points_of_every_format(tmp_path, kind):
    table = read_points(write(tmp_path, kind, values=False), WAVE)
    np.testing.assert_array_equal(table.trajectory, NUMBER)
    np.testing.assert_array_equal(table.t, T)
    np.testing.assert_array_equal(table.x, X)
    assert table.trajectory.dtype == np.int64
    if kind != "schema.h5":
        assert table.columns["station"].tolist() == ["a", "b, c", "d", "e"]


@pytest.mark.parametrize("kind", ["csv", "h5", "nc", "schema.h5"])
def test_observations_of_every_format(tmp_path, kind):
    found = read_observations(write(tmp_path, kind, stations=False), WAVE)
    assert sorted(found) == [0, 3]
    first, last = found[0].frames(), found[3].frames()
    assert first.t.tolist() == [0.5] and last.t.tolist() == [1.25, 2.0]
    np.testing.assert_array_equal(first.x.reshape(-1, 2), X[:2])
    np.testing.assert_array_equal(first.u.reshape(-1, 2), U[:2])
    np.testing.assert_array_equal(last.u.reshape(-1, 2), U[2:])


@pytest.mark.parametrize("source", ["csv", "h5", "nc", "schema.h5"])
@pytest.mark.parametrize("target", ["csv", "h5", "nc"])
def test_new_columns_stand_beside_the_old_in_every_format(tmp_path, source, target):
    table = read_points(write(tmp_path, source, values=False), WAVE)
    u = np.array([0.1, 1 / 3, np.nan, 1e30], np.float32)
    path = tmp_path / f"answer.{target}"
    write_points(path, table, {"u": u, "u_std": u.astype(np.float64)}, WAVE)
    again = read_points(path, WAVE)
    np.testing.assert_array_equal(again.t, T)
    np.testing.assert_array_equal(again.x, X)
    np.testing.assert_array_equal(again.trajectory, NUMBER)
    assert list(again.columns)[-2:] == ["u", "u_std"] if target != "nc" else {"u", "u_std"} <= set(again.columns)
    for name, values in (("u", u), ("u_std", u.astype(np.float64))):
        cells = again.columns[name]
        found = np.array([float(cell or "nan") for cell in cells]) if target == "csv" else cells
        np.testing.assert_array_equal(found.astype(values.dtype), values)
    if source != "schema.h5":
        assert again.columns["station"].tolist() == ["a", "b, c", "d", "e"]


def test_a_csv_answer_reads_as_expected(tmp_path):
    (tmp_path / "points.csv").write_text("id,t,x,y\n007,0,0.5,0.25\n008,1,.125,2\n")
    table = read_points(tmp_path / "points.csv", WAVE)
    write_points(tmp_path / "answer.csv", table, {"u": np.array([0.1, np.nan], np.float32)})
    assert (tmp_path / "answer.csv").read_text() == "id,t,x,y,u\n007,0,0.5,0.25,0.100000001\n008,1,0.125,2.0,\n"


def test_units_are_written_where_the_format_holds_them(tmp_path):
    table = PointTable(NUMBER, T, X, {"t": T})
    for kind in ("h5", "nc"):
        write_points(tmp_path / f"a.{kind}", table, {"v": T, "v_std": T}, WAVE)
        with h5py.File(tmp_path / f"a.{kind}") as file:
            units = [file[name].attrs["units"] for name in ("t", "v", "v_std")]
            assert [unit if isinstance(unit, str) else unit.decode() for unit in units] == ["s", "m/s", "m/s"]


def test_a_given_channel_is_kept_beside_the_computed_one(tmp_path):
    table = read_points(write(tmp_path, "csv"), WAVE)
    write_points(tmp_path / "answer.csv", table, {"u": np.zeros(4), "v": np.ones(4)})
    again = read_points(tmp_path / "answer.csv", WAVE)
    assert again.columns["u"].tolist() == ["0.0"] * 4 and again.columns["u_observed"].tolist() == ["1", "", "4", "5.5"]


def test_messages_name_a_file_once_and_what_to_do_with_its_columns(tmp_path):
    (tmp_path / "dated.csv").write_text("t,x,y,u,v\n2020-01-01,0,0,1,2\n")
    with pytest.raises(UserError, match=r"^\S+dated.csv: t is '2020-01-01' in row 1; expected a number"):
        read_observations(tmp_path / "dated.csv", WAVE)
    (tmp_path / "more.csv").write_text("t,x,y,u,v,w\n0,0,0,1,2,3\n")
    with pytest.raises(UserError, match="unknown column w: .*; rename, add or remove columns"):
        read_observations(tmp_path / "more.csv", WAVE)


def test_trajectory_is_optional_and_time_may_be_spelled_out(tmp_path):
    (tmp_path / "points.csv").write_text("\ufefftime; x; y\n0; 1; 2\n\n1; 1; 2\n", encoding="utf-8")
    table = read_points(tmp_path / "points.csv", WAVE)
    assert table.t.tolist() == [0.0, 1.0] and table.trajectory.tolist() == [0, 0] and table.x.tolist() == [[1, 2]] * 2


@pytest.mark.parametrize("kind", ["csv", "nc"])
def test_dates_and_degrees_where_the_data_are_dated_and_on_a_sphere(tmp_path, kind):
    dates, lon, lat = ["2006-04-16", "2006-05-16T12:00"], [0.0, 120.0], [0.0, 4.5]
    if kind == "csv":
        text = "time,lon,lat,sst\n" + "".join(f"{d},{a},{b},28.5\n" for d, a, b in zip(dates, lon, lat, strict=True))
        (tmp_path / "a.csv").write_text(text)
    else:
        data = {"time": ("obs", np.array(dates, "datetime64[ns]")), "lon": ("obs", lon), "lat": ("obs", lat),
                "sst": ("obs", [28.5, 28.5])}
        xarray.Dataset(data).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    table = read_points(tmp_path / f"a.{kind}", GLOBE)
    assert table.t.tolist() == [318096.0, 318828.0]
    np.testing.assert_allclose(table.x, lonlat_to_xyz(np.array(lon), np.array(lat)), atol=1e-15)
    assert read_observations(tmp_path / f"a.{kind}", GLOBE)[0].frames().u.ravel().tolist() == [28.5, 28.5]
    write_points(tmp_path / f"b.{kind}", table, {"sst_std": np.zeros(2)}, GLOBE)
    again = read_points(tmp_path / f"b.{kind}", GLOBE)
    np.testing.assert_array_equal(again.t, table.t)
    np.testing.assert_array_equal(again.x, table.x)
    if kind == "csv":
        assert again.columns["time"].tolist() == dates


@pytest.fixture
def gridded(tmp_path):
    """u and v on (y, t, x): not in the order of rows."""
    random = np.random.default_rng(0)
    t, x, y = np.arange(3.0), np.linspace(0, 1, 4), np.linspace(2, 3, 5)
    u, v = random.random((5, 3, 4)), random.random((5, 3, 4))
    u[0, 1, 2] = np.nan
    data = xarray.Dataset({"u": (("y", "t", "x"), u), "v": (("y", "t", "x"), v), "mask": (("y", "x"), np.ones((5, 4)))},
                          {"t": t, "x": x, "y": y})
    data.to_netcdf(tmp_path / "grid.nc", engine="h5netcdf")
    return tmp_path / "grid.nc", t, x, y, u, v


def test_gridded_observations_are_flattened(gridded):
    path, t, x, y, u, v = gridded
    frames = read_observations(path, WAVE)[0].frames()
    assert frames.t.tolist() == t.tolist()
    for f in range(3):
        where = np.broadcast_to(frames.x, (3, 20, 2))[f]
        ix, iy = np.searchsorted(x, where[:, 0]), np.searchsorted(y, where[:, 1])
        np.testing.assert_array_equal(frames.u[f], np.stack([u[iy, f, ix], v[iy, f, ix]], -1).astype(np.float32))


@pytest.mark.parametrize("rows", [7, 60, 1000])
def test_an_answer_on_a_grid_stays_on_the_grid(gridded, tmp_path, rows):
    path, t, x, y, *_ = gridded
    with PointWriter(tmp_path / "answer.nc", WAVE) as writer:
        for table in PointReader(path, WAVE, rows):
            writer.append(table, {"s": table.t + 10 * table.x[:, 0] + 100 * table.x[:, 1]})
    with xarray.open_dataset(tmp_path / "answer.nc", engine="h5netcdf", decode_timedelta=False) as found:
        expected = (t[:, None, None] + 10 * x[None, :, None] + 100 * y[None, None, :])
        np.testing.assert_allclose(found["s"].transpose("t", "x", "y").values, expected)
        assert found["mask"].dims == ("y", "x") and set(found["u"].dims) == {"t", "x", "y"}
        with xarray.open_dataset(path, engine="h5netcdf") as given:
            np.testing.assert_array_equal(found["u"].transpose("y", "t", "x").values, given["u"].values)


def test_a_trajectory_file_gives_its_grid_of_points(tmp_path):
    t, x, u = field()
    u[...] = np.nan  # values do not matter for points
    write_trajectories(tmp_path / "a.h5", t, x, u, WAVE)
    table = read_points(tmp_path / "a.h5", WAVE)
    assert table.trajectory.tolist() == np.repeat([0, 1, 2], 35).tolist()
    np.testing.assert_array_equal(table.t, np.tile(np.repeat(t, 7), 3))
    np.testing.assert_array_equal(table.x, np.tile(x, (15, 1)))
    for rows in (3, 10):
        parts = list(PointReader(tmp_path / "a.h5", WAVE, rows))
        np.testing.assert_array_equal(np.concatenate([part.x for part in parts]), table.x)
        np.testing.assert_array_equal(np.concatenate([part.t for part in parts]), table.t)
        assert max(map(len, parts)) <= rows


def test_channels_and_coordinates_may_come_in_another_order(tmp_path):
    t, x, u = field()
    swapped = Description("wave", ("v", "u"), ("y", "x"))
    write_trajectories(tmp_path / "a.h5", t, x[:, ::-1], u[..., ::-1], swapped)
    frames = read_observations(tmp_path / "a.h5", WAVE)[1].frames()
    np.testing.assert_array_equal(frames.u, u[1])
    np.testing.assert_array_equal(frames.x, x)
    np.testing.assert_array_equal(read_points(tmp_path / "a.h5", WAVE).x[:7], x)


@pytest.mark.parametrize("target", ["csv", "h5", "nc"])
def test_many_rows_pass_in_blocks(tmp_path, target):
    """Reading and writing 100,000 rows holds a few blocks of them, not all."""
    rows = 100_000
    with h5py.File(tmp_path / "points.h5", "w") as file:
        for name in ("t", "x", "y"):
            file[name] = np.random.default_rng(0).random(rows)
    blocks = PointReader(tmp_path / "points.h5", WAVE, rows=4096)
    next(iter(blocks))  # what is imported and cached on the way is no matter of rows
    tracemalloc.start()
    with PointWriter(tmp_path / f"answer.{target}", WAVE) as writer:
        for table in blocks:
            writer.append(table, {"u": table.t.astype(np.float32)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_500_000  # four columns of all rows are 3.2 MB, as text far more
    assert len(read_points(tmp_path / f"answer.{target}", WAVE)) == rows


BAD_OBSERVATIONS = {
    "unknown channel": ("t,x,y,u,w\n0,0,0,1,1\n", "unknown column w and lacks the channel v.*expected t, x, y, u, v"),
    "one column too many": ("t,x,y,u,v,w\n0,0,0,1,1,1\n", "unknown column w"),
    "missing channel": ("t,x,y,u\n0,0,0,1\n", "lacks the channel v"),
    "missing coordinate": ("t,x,u,v\n0,0,1,1\n", "lacks y"),
    "missing time": ("x,y,u,v\n0,0,1,1\n", "lacks t"),
    "a word for a number": ("t,x,y,u,v\n0,0,0,1,1\n0,0,0,high,1\n", "u is 'high' in row 2"),
    "too few cells": ("t,x,y,u,v\n0,0,0,1,1\n0,0,0,1\n", "4 cells.*5 columns"),
    "no time in a row": ("t,x,y,u,v\n,0,0,1,1\n", "t is missing or not finite in row 1"),
    "no place in a row": ("t,x,y,u,v\n0,0,0,1,1\n0,,0,1,1\n", "x/y is missing or not finite in row 2"),
    "no trajectory in a row": ("trajectory,t,x,y,u,v\n,0,0,0,1,1\n", "trajectory is '' in row 1"),
    "half a trajectory": ("trajectory,t,x,y,u,v\n0.5,0,0,0,1,1\n", "whole numbers"),
    "a date where times are numbers": ("t,x,y,u,v\n2001-01-01,0,0,1,1\n", "t is '2001-01-01' in row 1"),
    "no value": ("t,x,y,u,v\n0,0,0,,\n", "trajectory 0: .*every u is NaN"),
    "no rows": ("t,x,y,u,v\n", "no rows"),
    "a column twice": ("t,x,x,u,v\n0,0,0,1,1\n", "different names"),
    "nothing": ("", "empty"),
    "bytes": ("\0\1\2", "binary"),
}


@pytest.mark.parametrize("case", BAD_OBSERVATIONS)
def test_bad_observations_are_named(tmp_path, case):
    text, words = BAD_OBSERVATIONS[case]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_observations(tmp_path / "a.csv", WAVE)
    assert "a.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text, words", [
    ("t,x\n0,0\n", "lacks y"), ("t,x,y\n", "no rows"), ("t,x,y\n0,0,inf\n", "row 1"), ("t,x,y\n0,0,nan\n", "row 1")])
def test_bad_points_are_named(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read_points(tmp_path / "a.csv", WAVE)


def test_text_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"t,x,y,gr\x81\x8de\n0,0,0,1\n")  # of no Windows-1252 either
    with pytest.raises(UserError, match="UTF-8|cannot be read"):
        read_points(tmp_path / "a.csv", WAVE)


def test_rows_without_values_may_lack_their_place(tmp_path):
    (tmp_path / "a.csv").write_text("t,x,y,u,v\n0,,,,\n0,1,2,3,4\n")
    assert len(read_observations(tmp_path / "a.csv", WAVE)[0]) == 1


def test_other_files_are_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"], file["b"] = np.zeros(3), np.zeros(())
        file["c"] = np.zeros(4)
    with pytest.raises(UserError, match="a \\(3,\\), b \\(\\)"):
        read_points(tmp_path / "a.h5", WAVE)
    xarray.Dataset({"w": ("k", np.zeros(3))}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(UserError, match="a.nc"):
        read_points(tmp_path / "a.nc", WAVE)
    np.savez(tmp_path / "a.npz", t=np.zeros(3))
    with pytest.raises(UserError, match="npz"):
        read_points(tmp_path / "a.npz", WAVE)
    with pytest.raises(UserError, match="does not exist"):
        read_observations(tmp_path / "absent.csv", WAVE)


def test_a_trajectory_file_of_another_system_is_named(tmp_path):
    t, x, u = field()
    for about, words in ((Description("a", ("u", "p"), ("x", "y")), "channels u, p, expected u, v"),
                         (Description("a", ("u", "v"), ("x", "z")), "coordinates x, z, expected x, y"),
                         (Description("a", ("u", "v"), ("x", "y"), time_units="h"), "times in h, expected s")):
        write_trajectories(tmp_path / "a.h5", t, x, u, about, overwrite=True)
        with pytest.raises(UserError, match=words):
            read_observations(tmp_path / "a.h5", WAVE)


def test_an_answer_is_not_written_over_anything_nor_in_an_unknown_format(tmp_path):
    table = PointTable(NUMBER, T, X, {"t": T})
    (tmp_path / "a.csv").write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        write_points(tmp_path / "a.csv", table, {"u": T})
    with pytest.raises(UserError, match="suffix '.xlsx'"):
        write_points(tmp_path / "a.xlsx", table, {"u": T})
    with pytest.raises(UserError, match="no rows"), PointWriter(tmp_path / "b.csv"):
        pass
    with pytest.raises(KeyboardInterrupt), PointWriter(tmp_path / "b.h5") as writer:
        writer.append(table, {"u": T})
        raise KeyboardInterrupt
    assert (tmp_path / "a.csv").read_text() == "precious" and len(list(tmp_path.iterdir())) == 1


def test_netcdf_answers_keep_order_attributes_and_dates(tmp_path):
    globe = Description("air", ("T",), ("x", "y", "z"), ("K",), "hours since 2020-01-01", geometry="sphere")
    times = np.array(["2020-01-01T00", "2020-01-01T06"], "datetime64[ns]")
    data = xarray.Dataset({"T": (("time", "lat", "lon"), np.zeros((2, 3, 4), np.float32), {
        "units": "K", "standard_name": "air_temperature"})}, {
        "time": times, "lat": ("lat", [-10.0, 0, 10], {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", [0.0, 1, 2, 3], {"units": "degrees_east"})}, {"title": "toy", "Conventions": "CF-1.8"})
    data.to_netcdf(tmp_path / "a.nc")
    table = read_points(tmp_path / "a.nc", globe)
    sine = table.x[:, 2].astype(np.float32)
    write_points(tmp_path / "b.nc", table, {"T": sine, "T_std": sine**2, "T_q05": sine}, globe)
    with xarray.open_dataset(tmp_path / "b.nc") as again:
        assert again["T"].dims == again["T_observed"].dims == ("time", "lat", "lon")
        np.testing.assert_allclose(again["T"].values[1, :, 2], np.sin(np.radians([-10.0, 0, 10])), atol=1e-7)
        np.testing.assert_array_equal(again["time"].values, times)
        assert again["T"].attrs == again["T_observed"].attrs == data["T"].attrs
        assert again["T_std"].attrs == {"long_name": "T, standard deviation", "units": "K",
                                        "standard_name": "air_temperature standard_error"}
        assert again["T_q05"].attrs == data["T"].attrs | {"long_name": "T, 5 % quantile"}
        assert again["lat"].attrs == data["lat"].attrs and again.attrs["title"] == "toy"


STATIONS = Description("stations", ("T",), ("x",), time_units="hours since 2020-01-01")


def stations():
    frame = pandas.DataFrame({"timestamp": pandas.date_range("2020-01-01", periods=4, freq="h", tz="UTC").repeat(2),
                              "station": ["a", "b"] * 4, "x": [0.5, 1.5] * 4, "T": np.arange(8) + 0.25})
    return frame


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz", "comma.csv"])
def test_tables_of_stations_are_read_however_they_are_stored(tmp_path, name):
    frame, path = stations(), tmp_path / name
    if name == "a.parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    else:
        written = frame.assign(timestamp=frame["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        written.to_csv(path, index=False, **({"sep": ";", "decimal": ","} if name == "comma.csv" else {}))
    with pytest.warns(UserWarning, match="station holds text and is left out"):
        convert(path, tmp_path / "out.h5", time_units=STATIONS.time_units)
    with TrajectoryFile(tmp_path / "out.h5") as file:
        frames = file.read(0)
    np.testing.assert_allclose(frames.t, range(4))
    np.testing.assert_array_equal(frames.x[:, 0], [0.5, 1.5])
    np.testing.assert_array_equal(frames.u[..., 0].ravel(), frame["T"].to_numpy(np.float32))


def test_a_damaged_gzip_file_is_named(tmp_path):
    stations().to_csv(tmp_path / "a.csv.gz", index=False)
    (tmp_path / "a.csv.gz").write_bytes((tmp_path / "a.csv.gz").read_bytes()[:60])
    with pytest.raises(UserError, match="a.csv.gz"):
        convert(tmp_path / "a.csv.gz", tmp_path / "out.h5")


@pytest.mark.parametrize("called", ["run", "Simulation_id", "member"])
def test_runs_at_one_time_and_place_are_not_averaged(called, tmp_path):
    run, t, x = (part.ravel() for part in np.meshgrid(np.arange(3), np.arange(4) / 2, np.arange(5.0), indexing="ij"))
    u = np.random.default_rng(0).standard_normal(60).round(6)

    def write(name, run):
        rows = zip(run.tolist(), t.tolist(), x.tolist(), u.tolist(), strict=True)
        lines = "\n".join(",".join(map(str, row)) for row in rows)
        (tmp_path / f"{name}.csv").write_text(f"{name},t,x,u\n{lines}\n")
        return tmp_path / f"{name}.csv"

    with pytest.raises(UserError, match=f"rows of one time and place differ by {called}; call this column `traj"):
        convert(write(called, run), tmp_path / "a.h5")
    convert(write("trajectory", run), tmp_path / "b.h5")
    with TrajectoryFile(tmp_path / "b.h5") as file:
        read = np.stack([file.read(number).u.ravel() for number in range(3)])
    np.testing.assert_allclose(read, u.reshape(3, 20), rtol=1e-6)
    constant = tmp_path / "d.csv"
    lines = "\n".join(f"7,{a},{b},{c}" for a, b, c in zip(t[:20], x, u, strict=False))
    constant.write_text(f"{called},t,x,u\n{lines}\n")
    convert(constant, tmp_path / "d.h5")  # one run alone is no contradiction
