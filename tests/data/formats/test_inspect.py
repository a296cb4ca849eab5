"""Descriptions of files: statistics against numpy, and a screenful that names what matters."""

import h5py
import numpy as np
import pytest
from small_data import WAVE, field, with_symmetries

from inrflow.data.description import Description
from inrflow.data.formats import trajectory_file
from inrflow.data.formats.builtin import trajectory_summary
from inrflow.data.formats.builtin.trajectory_summary import channel_statistics
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_scattered, write_trajectories
from inrflow.errors import UserError


@pytest.mark.parametrize("layout", ["frames", "scattered"])
def test_statistics_stream_and_agree_with_numpy(tmp_path, layout, monkeypatch):
    t, x, u = field(4, 6, 50)
    u[..., 1] = 1e4 + u[..., 1]  # a mean far from zero costs no digits
    u[0, 1, :, 0] = u[2, :, 3, 1] = np.nan
    rows = u.reshape(-1, 2).astype(np.float64)
    if layout == "frames":
        write_trajectories(tmp_path / "a.h5", t, x, u, WAVE)
    else:
        write_scattered(tmp_path / "a.h5", np.zeros(1200, int), np.arange(1200.0), np.tile(x, (24, 1)), rows, WAVE)
    monkeypatch.setattr(trajectory_file, "VALUES_PER_BLOCK", 130)
    with TrajectoryFile(tmp_path / "a.h5") as file:
        mean, deviation, missing, least, greatest = channel_statistics(file)
    np.testing.assert_allclose(mean, np.nanmean(rows, 0), rtol=1e-12)
    np.testing.assert_allclose(deviation, np.nanstd(rows, 0), rtol=1e-10)
    np.testing.assert_allclose(missing, np.isnan(rows).mean(0), rtol=1e-12)
    np.testing.assert_array_equal([least, greatest], [np.nanmin(rows, 0), np.nanmax(rows, 0)])


def test_statistics_of_a_large_file_are_of_a_part_of_it_and_say_so(tmp_path, monkeypatch):
    t, x, u = field(4, 6, 50)
    write_trajectories(tmp_path / "a.h5", t, x, u, WAVE)
    monkeypatch.setattr(trajectory_file, "VALUES_PER_BLOCK", 600)  # a trajectory
    monkeypatch.setattr(trajectory_summary, "_LOOKED_AT", 1200)
    rows = dict(describe(tmp_path / "a.h5"))
    half = u[::2, ..., 0]
    assert rows["channel u"].startswith(f"mean {half.mean():.4g} m, standard deviation {half.std():.4g} m")
    assert rows["channel u"].endswith("(of one part in 2)")


def test_padding_is_no_missing_value(tmp_path):
    t, x, u = field()
    times = np.tile(t, (3, 1))
    times[1, 2:] = np.nan
    write_trajectories(tmp_path / "a.h5", times, x, u, WAVE)
    with TrajectoryFile(tmp_path / "a.h5") as file:
        assert channel_statistics(file)[2].tolist() == [0.0, 0.0]


def test_a_trajectory_file_in_a_screenful(tmp_path):
    t, x, u = field()
    u[:, :, 0, 1] = np.nan
    about = Description.from_dict({**with_symmetries().to_dict(), "parameter_names": ["speed"]})
    write_trajectories(tmp_path / "a.h5", np.linspace(0, 2, 5), x, u, about, parameters=[[1.0], [2.5], [2.0]],
                       environment=[0, 1, 1], extra={"triangles": np.arange(12).reshape(4, 3) % 7})
    rows = dict(describe(tmp_path / "a.h5"))
    assert len(rows) <= 20 and all("\n" not in text for text in rows.values())
    assert rows["sizes"] == "3 trajectories x 5 frames x 7 points x 2 channels"
    assert rows["times"] == "0 to 2 s, every 0.5, shared by all trajectories"
    assert "(period 1)" in rows["coordinates"] and rows["coordinates"].count("period") == 1
    mean, deviation = u[..., 0].mean(), u[..., 0].std()
    spread = f"{u[..., 0].min():.4g} to {u[..., 0].max():.4g}"
    assert rows["channel u"] == f"mean {mean:.4g} m, standard deviation {deviation:.4g} m, {spread}, 0 % missing"
    assert rows["channel v"].endswith("14.3 % missing")
    assert rows["symmetries"] == "translation_x, translation_y, reflection_x, reflection_y"
    assert rows["parameters"] == "speed 1 to 2.5" and rows["environments"] == "2"
    assert rows["also in file"] == "triangles (4, 3)" and rows["licence"] == "free" and rows["source"] == "made here"


def test_irregular_own_times_dates_and_the_sphere_are_told(tmp_path):
    _, _, u = field()
    about = Description("globe", ("u", "v"), ("x", "y", "z"), geometry="sphere", time_units="hours since 1970-01-01",
                        time_period=8766.0)
    times = np.array([[318096.0, 318120, 318168, np.nan, np.nan], [318096, 318097, 318100, 318110, 318120],
                      [318096, 318097, 318100, 318110, 318120]])
    x = lonlat_to_xyz(np.arange(7) * 40.0, np.linspace(-5, 5, 7))
    write_trajectories(tmp_path / "a.h5", times, x, u, about)
    rows = dict(describe(tmp_path / "a.h5"))
    assert "(2006-04-16 to 2006-04-19)" in rows["times"] and "irregular: steps 1 to 48" in rows["times"]
    assert "own times" in rows["times"] and "3 to 5 frames" in rows["times"] and "period 8766" in rows["times"]
    assert "sphere, latitude -5 to 5" in rows["coordinates"] and rows["symmetries"] == "none declared"


def test_data_of_one_day_are_told_with_the_clock(tmp_path):
    (tmp_path / "a.csv").write_text("time,x,u\n" + "".join(f"2024-01-31T{9 + k:02d}:15,{x},{k + x}\n" for k in range(3)
                                                           for x in range(3)))
    assert "(2024-01-31T09:15 to 2024-01-31T11:15), every 1" in dict(describe(tmp_path / "a.csv"))["times"]


@pytest.mark.parametrize(("unit", "step", "words"), [
    ("seconds since 1970-01-01", 43200.0, "every 43200 (12 hours)"), ("s", 5400, "every 5400 (1.5 hours)"),
    ("hours since 2000-01-01", 24, "every 24 (1 day)"), ("days since 2000-01-01", 7, "every 7"),
    ("m", 7200, "every 7200")])
def test_steps_are_told_in_larger_units(unit, step, words, tmp_path):
    about = Description("a", ("u",), ("x",), time_units=unit)
    write_trajectories(tmp_path / "a.h5", step * np.arange(3), np.arange(4.0)[:, None], np.ones((1, 3, 4, 1)), about)
    assert dict(describe(tmp_path / "a.h5"))["times"].endswith(words)


def test_scattered_rows_are_counted(tmp_path):
    write_scattered(tmp_path / "a.h5", np.zeros(9, int), np.arange(9.0), np.ones((9, 2)), np.ones((9, 2)), WAVE)
    rows = dict(describe(tmp_path / "a.h5"))
    assert rows["layout"].startswith("scattered") and rows["sizes"].endswith("9 rows")


def test_tables_and_archives_are_told_by_their_columns(tmp_path):
    (tmp_path / "a.csv").write_text("t,x,y\n0,0,0\n1,0,0\n")
    rows = dict(describe(tmp_path / "a.csv"))
    assert rows["format"] == "CSV" and rows["rows"] == "2" and rows["columns"] == "t, x, y"
    np.savez(tmp_path / "a.npz", t=np.zeros(2), u=np.zeros(2))
    assert dict(describe(tmp_path / "a.npz"))["arrays"] == "t (2,) float64, u (2,) float64"
    with pytest.raises(UserError, match="does not exist"):
        describe(tmp_path / "absent.h5")


def test_infinite_values_are_named(tmp_path):
    write_trajectories(tmp_path / "a.h5", *field(), WAVE)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["u"][0, 0, 0, 0] = np.inf
    with pytest.raises(UserError, match="infinite"):
        describe(tmp_path / "a.h5")


def test_files_of_a_pattern_are_told_together_and_one_time_is_no_series(tmp_path):
    for hour in range(3):
        (tmp_path / f"a{hour}.csv").write_text("t,x,u\n" + "".join(f"{hour},{x},{x + hour}\n" for x in range(4)))
    rows = dict(describe(tmp_path / "a*.csv"))
    assert rows["files"].startswith("3 files, ") and "a2.csv" in rows["files"] and "3 frames" in rows["sizes"]
    assert "reads it as it is" in rows["note"] and "a*.csv" in rows["note"]
    alone = dict(describe(tmp_path / "a0.csv"))["note"]
    assert "holds one time, and training needs 2" in alone and "reads it as it is" not in alone
    (tmp_path / "c.csv").write_text("t,x,u\n" + "".join(f"{hour},{x},5\n" for x in range(4) for hour in range(3)))
    alone = dict(describe(tmp_path / "c.csv"))["note"]
    assert "all values of each channel are the same" in alone and "reads it as it is" not in alone
    with pytest.raises(UserError, match="no file matches"):
        describe(tmp_path / "b*.csv")
