"""Several files are one: later frames of the same run with times in one unit, or further trajectories."""

import numpy as np
import pytest
import xarray

from inrflow.data.formats.convert import convert
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


def test_places_that_some_files_lack_are_missing_there(tmp_path):
    gridded("2020-01-01", 4, [0, 1, 2, 3], land=[0]).to_netcdf(tmp_path / "m1.nc")
    gridded("2020-01-02", 4, [4, 5, 6, 7], land=[3]).to_netcdf(tmp_path / "m2.nc")
    convert(str(tmp_path / "m*.nc"), tmp_path / "a.h5")
    _, (frames,) = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(frames.x[:, 0], np.arange(5))
    assert np.isnan(frames.u[:4, 0]).all() and np.isnan(frames.u[4:, 3]).all()
    np.testing.assert_array_equal(frames.u[:, 2, 0], np.arange(8))


def test_tables_follow_each_other(tmp_path):
    for month in range(2):
        rows = [f"{t},{x},{t + x}" for t in (month * 2, month * 2 + 1) for x in range(4)]
        (tmp_path / f"m{month}.csv").write_text("\n".join(["t,x,u", *rows]))
    convert(str(tmp_path / "m*.csv"), tmp_path / "a.h5")
    _, (frames,) = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(frames.t, np.arange(4))
    np.testing.assert_array_equal(frames.u[..., 0], np.arange(4)[:, None] + np.arange(4))


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
