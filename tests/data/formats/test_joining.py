"""Several files are one: later frames of the same run with times in one unit, or further trajectories."""

import numpy as np
import pytest
import xarray

from inrflow.data.description import Description
from inrflow.data.formats.convert import convert
from inrflow.data.formats.tables import read_observations
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError


def gridded(start, count, values, land=()):
    times = np.datetime64(start, "ns") + np.arange(count) * np.timedelta64(6, "h")
    u = np.broadcast_to(np.asarray(values, np.float32)[:, None], (count, 5)).copy()
    u[:, list(land)] = np.nan
    data = xarray.Dataset({"u": (("time", "x"), u)}, {"time": times, "x": np.arange(5.0)})
    data["time"].encoding["units"] = f"hours since {start}"
    return data


def read(path):
    with TrajectoryFile(path) as file:
        return file.description, [file.read(index) for index in range(file.trajectories)]


def test_monthly_files_are_one_run_in_the_units_of_the_first(tmp_path):
    gridded("2020-01-02", 4, [4, 5, 6, 7]).to_netcdf(tmp_path / "m2.nc")
    gridded("2020-01-01", 4, [0, 1, 2, 3]).to_netcdf(tmp_path / "m1.nc")
    convert(str(tmp_path / "m*.nc"), tmp_path / "a.h5")
    about, frames = read(tmp_path / "a.h5")
    assert about.time_units == "hours since 2020-01-01" and len(frames) == 1
    np.testing.assert_allclose(frames[0].t, 6.0 * np.arange(8))
    np.testing.assert_array_equal(frames[0].u[:, 2, 0], np.arange(8))


def test_runs_that_begin_together_are_trajectories(tmp_path):
    for index in range(3):
        gridded("2020-01-01", 4, np.arange(4) + index).to_netcdf(tmp_path / f"r{index}.nc")
    convert([tmp_path / f"r{index}.nc" for index in range(3)], tmp_path / "a.h5")
    _, frames = read(tmp_path / "a.h5")
    assert [float(one.u[0, 0, 0]) for one in frames] == [0, 1, 2]


def test_observations_of_a_pattern_have_their_times_though_each_file_counts_from_its_own_day(tmp_path):
    gridded("2020-01-02", 4, [4, 5, 6, 7]).to_netcdf(tmp_path / "m2.nc")
    gridded("2020-01-01", 4, [0, 1, 2, 3]).to_netcdf(tmp_path / "m1.nc")
    about = Description("waves", ("u",), ("x",), time_units="hours since 2019-12-31")
    (seen,) = read_observations(tmp_path / "m*.nc", about).values()
    np.testing.assert_allclose(seen.frames().t, 24 + 6.0 * np.arange(8))
    np.testing.assert_array_equal(seen.frames().u[:, 2, 0], np.arange(8))


def test_places_that_some_files_lack_are_missing_there(tmp_path):
    gridded("2020-01-01", 4, [0, 1, 2, 3], land=[0]).to_netcdf(tmp_path / "m1.nc")
    gridded("2020-01-02", 4, [4, 5, 6, 7], land=[3]).to_netcdf(tmp_path / "m2.nc")
    convert(str(tmp_path / "m*.nc"), tmp_path / "a.h5")
    _, (frames,) = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(frames.x[:, 0], np.arange(5))
    assert np.isnan(frames.u[:4, 0]).all() and np.isnan(frames.u[4:, 3]).all()
    np.testing.assert_array_equal(frames.u[:, 2, 0], np.arange(8))


def test_frames_that_two_files_have_are_taken_once(tmp_path):
    gridded("2020-01-01", 4, [0, 1, 2, 3], land=[0]).to_netcdf(tmp_path / "m1.nc")
    gridded("2020-01-01T12", 4, [2, 3, 4, 5], land=[0]).to_netcdf(tmp_path / "m2.nc")
    with pytest.warns(UserWarning, match=r"frames that two of them have \(2\) are taken once"):
        convert(str(tmp_path / "m*.nc"), tmp_path / "a.h5")
    _, (frames,) = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(frames.t, 6 * np.arange(6.0))
    np.testing.assert_array_equal(frames.u[:, 2, 0], np.arange(6))


def test_files_that_overlap_with_other_values_are_trajectories_and_told(tmp_path):
    gridded("2020-01-01", 4, [0, 1, 2, 3]).to_netcdf(tmp_path / "m1.nc")
    gridded("2020-01-01T12", 4, [2, 3.5, 4, 5]).to_netcdf(tmp_path / "m2.nc")
    with pytest.warns(UserWarning, match="overlap in time, and differ there: each file holds trajectories of its own"):
        convert(str(tmp_path / "m*.nc"), tmp_path / "a.h5")
    _, frames = read(tmp_path / "a.h5")
    np.testing.assert_array_equal([one.u[1, 2, 0] for one in frames], [1, 3.5])


@pytest.mark.parametrize(("names", "units", "times"), [
    (["u_20200228", "u_20200229", "u_20200301"], "hours since 1970-01-01", [439680, 439704, 439728]),
    (["u_2020-02-29T06", "u_2020-02-29T12", "u_2020-03-01T00"], "hours since 1970-01-01", [439710, 439716, 439728]),
    (["u_9", "u_10", "u_0011"], None, [9, 10, 11]),
], ids=["days", "hours", "numbers"])
def test_maps_without_times_have_those_in_their_names(names, units, times, tmp_path):
    for number, name in enumerate(names):
        gridded("2020-01-01", 1, [number]).isel(time=0, drop=True).to_netcdf(tmp_path / f"{name}.nc")
    with pytest.warns(UserWarning, match="hold no times: those in their names are taken"):
        convert(str(tmp_path / "u_*.nc"), tmp_path / "a.h5")
    about, (frames,) = read(tmp_path / "a.h5")
    assert about.time_units == units
    np.testing.assert_array_equal(frames.t, times)
    np.testing.assert_array_equal(frames.u[:, 0, 0], [0, 1, 2])


def test_tables_follow_each_other(tmp_path):
    for month in range(2):
        rows = [f"{t},{x},{t + x}" for t in (month * 2, month * 2 + 1) for x in range(4)]
        (tmp_path / f"m{month}.csv").write_text("\n".join(["t,x,u", *rows]))
    convert(str(tmp_path / "m*.csv"), tmp_path / "a.h5")
    _, (frames,) = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(frames.t, np.arange(4))
    np.testing.assert_array_equal(frames.u[..., 0], np.arange(4)[:, None] + np.arange(4))


@pytest.mark.parametrize("numbered", [False, True], ids=["one each", "two each"])
def test_tables_of_the_same_times_and_places_are_trajectories(numbered, tmp_path):
    for run in range(3):
        rows = [f"{t},{x},{10 * run + n + t + x}" + f",{n}" * numbered for n in range(1 + numbered) for t in range(3)
                for x in range(4)]
        (tmp_path / f"r{run}.csv").write_text("\n".join(["t,x,u" + ",trajectory" * numbered, *rows]))
    convert(str(tmp_path / "r*.csv"), tmp_path / "a.h5")
    _, frames = read(tmp_path / "a.h5")
    starts = [10 * run + n for run in range(3) for n in range(1 + numbered)]
    assert [float(one.u[0, 0, 0]) for one in frames] == starts
    np.testing.assert_array_equal(frames[-1].u[..., 0], starts[-1] + np.arange(3)[:, None] + np.arange(4))


def test_tables_of_several_stations_or_that_overlap_a_little_are_one_trajectory(tmp_path):
    for station in range(2):
        rows = [f"{t},{station},{t + station}" for t in range(6)]
        (tmp_path / f"s{station}.csv").write_text("\n".join(["t,x,u", *rows]))
        rows = [f"{t},{x},{t + x}" for t in range(4 * station, 4 * station + 5) for x in range(2)]
        (tmp_path / f"m{station}.csv").write_text("\n".join(["t,x,u", *rows]))
    for name, times in (("s", 6), ("m", 9)):
        convert(str(tmp_path / f"{name}*.csv"), tmp_path / f"{name}.h5")
        _, (frames,) = read(tmp_path / f"{name}.h5")
        np.testing.assert_array_equal(frames.u[..., 0], np.arange(times)[:, None] + np.arange(2))


def test_tables_of_one_time_each_have_it_in_their_names(tmp_path):
    for step in (2, 10, 30):
        (tmp_path / f"flow2_{step}.csv").write_text("x,u\n" + "\n".join(f"{x},{step + x}" for x in range(4)))
    with pytest.warns(UserWarning, match="no column of times: the numbers at the end of their names are taken, 2 to"):
        convert(str(tmp_path / "flow2_*.csv"), tmp_path / "a.h5")
    _, (frames,) = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(frames.t, [2, 10, 30])
    np.testing.assert_array_equal(frames.u[..., 0], frames.t[:, None] + np.arange(4))
    with pytest.raises(UserError, match="give all of them by a pattern"):
        convert(tmp_path / "flow2_2.csv", tmp_path / "b.h5")


def test_what_does_not_fit_together_is_named(tmp_path):
    gridded("2020-01-01", 4, np.arange(4)).to_netcdf(tmp_path / "a.nc")
    gridded("2020-01-01", 4, np.arange(4)).rename(u="v").to_netcdf(tmp_path / "b.nc")
    (tmp_path / "c.csv").write_text("t,x,u\n0,0,1\n")
    for files, words in (("[ab].nc", "files of one system"), ("[ac].*", "files of one format"), ("z*", "no file")):
        with pytest.raises(UserError, match=words):
            convert(str(tmp_path / files), tmp_path / "out.h5")


def test_zarr_is_read_like_netcdf(tmp_path):
    pytest.importorskip("zarr")
    gridded("2020-01-01", 4, np.arange(4)).to_zarr(tmp_path / "a.zarr", consolidated=False)
    convert(tmp_path / "a.zarr", tmp_path / "a.h5")
    about, (frames,) = read(tmp_path / "a.h5")
    assert about.time_units == "hours since 2020-01-01"
    np.testing.assert_array_equal(frames.u[:, 1, 0], np.arange(4))
