"""What stands around rows and arrays in files of loggers, solvers and published sets: values, times and places against
what was written."""

import warnings

import h5py
import numpy as np
import pytest
import scipy.io
import torch
import xarray

from inrflow.data.formats.convert import convert
from inrflow.data.formats.registry import pattern_in
from inrflow.data.formats.sphere import cut_elsewhere
from inrflow.data.formats.tables import read_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

T, X, Y = np.arange(6) * 0.5, np.linspace(0, 1, 8), np.linspace(0, 1, 7)
U = np.exp(-T)[:, None, None] * (1 + X[:, None] + 2 * Y**2)  # times, x, y
ROWS = [(day, place, round(day + place / 10, 1)) for day in range(1, 17) for place in range(3)]


def held(source, folder, **options):
    """All trajectories of a file, its description and the words of warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        convert(source, folder / "data.h5", overwrite=True, **options)
    with TrajectoryFile(folder / "data.h5") as file:
        frames = [file.read(index) for index in range(file.trajectories)]
        return frames, file.description, " ".join(str(one.message) for one in told)


def table(path, above="time,x,u\n", below="", rows=ROWS, form="2024-03-{:02d},{},{}\n"):
    path.write_text(above + "".join(form.format(*row) for row in rows) + below)
    return path


# ---- tables ----

@pytest.mark.parametrize("below", ["Total rows: 48\n", "\n\nExported by a logger\nend", "END,,\n\n", "2024-03-1"])
def test_what_stands_below_the_rows_is_told_and_left_out(tmp_path, below):
    below = below.replace("END,,", "END")
    (frames,), _, told = held(table(tmp_path / "a.csv", below=below), tmp_path)
    np.testing.assert_allclose(frames.u[..., 0].ravel(), [u for _, _, u in ROWS], rtol=1e-6)
    assert "below the rows, from line 5" in told


def test_remarks_between_rows_are_no_rows(tmp_path):
    path = table(tmp_path / "a.csv", rows=ROWS[:24], below="# restarted\n" + "".join(
        f"2024-03-{day:02d},{place},{u}\n" for day, place, u in ROWS[24:]))
    assert held(path, tmp_path)[0][0].u.shape == (16, 3, 1)


@pytest.mark.parametrize("below", ["restarted\n2024-03-20,0,1\n", "2024-03-20,0\n", "1,2\n2,3\n", "x\n" * 30])
def test_rows_of_other_lengths_are_no_footer(tmp_path, below):
    with pytest.raises(UserError, match=r"but 3 columns .* at line 5\d"):
        held(table(tmp_path / "a.csv", below=below), tmp_path)


def test_sums_below_the_rows_are_named_by_their_row(tmp_path):
    with pytest.raises(UserError, match="in row 49 .'Mean', which is not an ISO date.; write .* without rows of sums"):
        held(table(tmp_path / "a.csv", below="Mean,,5\n"), tmp_path)


def test_a_title_above_names_and_years_of_two_digits(tmp_path):
    above = '"Plot Title: Creek 4"\n"#","Date Time, GMT+00:00","Temp, C","End of File"\n'
    rows = [(number, number // 5 + 1, number / 8, number % 5 + 1) for number in range(80)]
    path = table(tmp_path / "a.csv", above, rows=rows, form="{0},03/{1:02d}/24 0{3}:00:00 PM,{2},\n",
                 below="81,03/17/24 01:00:00 PM,17,Logged\n")
    (frames,), about, _ = held(path, tmp_path)
    assert about.channels == ("Temp, C",) and about.time_units == "hours since 1970-01-01"
    hours = [24 * (day - 1) + 12 + hour for _, day, _, hour in rows]
    np.testing.assert_allclose(frames.t[:80] - 474792, hours)
    np.testing.assert_allclose(frames.u[:80, 0, 0], [value for _, _, value, _ in rows])
    for days in ("24/03/{1:02d}", "{1:02d}/03/24"):  # which is the year?
        path = table(tmp_path / "a.csv", rows=rows, form=days + ",0,{2}\n")
        with pytest.raises(UserError, match="2024-01-31T18:00"):
            held(path, tmp_path)


def test_words_of_weather_stations_for_missing_values_but_a_unit(tmp_path):
    path = table(tmp_path / "a.csv", below="2024-03-17,0,M\n2024-03-17,1,ERROR\n2024-03-17,2,1.5\n")
    np.testing.assert_array_equal(np.isnan(held(path, tmp_path)[0][0].u[-1, :, 0]), [True, True, False])
    _, about, _ = held(table(tmp_path / "b.csv", "time,x,u\n,m,m\n"), tmp_path)
    assert about.units == ("m",)


def test_columns_of_degrees_without_values_are_no_places(tmp_path):
    path = table(tmp_path / "a.csv", "created_at,entry_id,field1,latitude,longitude\n",
                 rows=[(day, day, day / 4) for day in range(1, 17)], form="2024-03-{:02d} 00:00:00 UTC,{},{},,\n")
    (frames,), about, told = held(path, tmp_path)
    assert about.channels == ("field1",) and frames.u.shape == (16, 1, 1)
    assert "latitude, longitude have no values" in told and "entry_id" in told


def test_times_that_name_folders_and_names_in_a_comment_of_several_blanks(tmp_path):
    for time in (0, 0.5, 1e-3):
        (tmp_path / "surfaces" / f"{time:g}").mkdir(parents=True)
        (tmp_path / "surfaces" / f"{time:g}" / "p_plane.raw").write_text(
            "# p  POINT_DATA 4\n#  x  y  z  p\n" + "".join(f"{x}  0 {2 * x} {x + time}\n" for x in range(4)))
    (frames,), _, told = held(str(tmp_path / "surfaces" / "*" / "p_plane.raw"), tmp_path)
    np.testing.assert_array_equal(frames.t, [0, 1e-3, 0.5])
    np.testing.assert_allclose(frames.u[..., 0], frames.t[:, None] + np.arange(4), rtol=1e-6)
    assert "numbers that name their folders are taken" in told and "y is 0 in all rows, and no coordinate" in told
    assert pattern_in(tmp_path / "surfaces") == f"{tmp_path}/surfaces/*/*.raw"
    with pytest.raises(UserError, match=r"by a pattern, as '.*surfaces/\*/\*.raw'"):
        held(tmp_path / "surfaces", tmp_path)


# ---- arrays ----

def require_field(frames, about, times=T):
    """The values of U at their places, whichever of the axes is the first."""
    x, y = (frames.x[:, about.coordinates.index(name)] for name in "xy")
    np.testing.assert_allclose(frames.t, times)
    np.testing.assert_allclose(frames.u[..., 0], np.exp(-frames.t)[:, None] * (1 + x + 2 * y**2), rtol=1e-6)


@pytest.mark.parametrize("nested", [{"run": {"t": T, "x": X, "y": Y, "u": U}},
                                    {"run": {"t": T, "grid": {"x": X, "y": Y}, "fields": {"u": U}}, "words": "none"},
                                    {"t": T, "x": X, "y": Y, "u": U.transpose(2, 1, 0)}],
                         ids=["flat", "deep", "meshgrid"])
def test_structures_of_matlab_and_rows_of_y(tmp_path, nested):
    scipy.io.savemat(tmp_path / "a.mat", nested, do_compression=True)
    (frames,), about, _ = held(tmp_path / "a.mat", tmp_path)
    require_field(frames, about)


def test_structures_of_matlab_7_3_and_fields_of_one_name(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        for name, value in {"run/t": T[:, None], "run/x": X[:, None], "run/y": Y[:, None], "run/u": U.T}.items():
            file[name] = value
    with (tmp_path / "a.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    (frames,), about, _ = held(tmp_path / "a.mat", tmp_path)
    require_field(frames, about)
    scipy.io.savemat(tmp_path / "b.mat", {"t": T, "x": X, "y": Y, "hot": {"u": U}, "cold": {"u": -U}})
    (frames,), about, _ = held(tmp_path / "b.mat", tmp_path)
    assert about.channels == ("hot_u", "cold_u")
    np.testing.assert_array_equal(frames.u[..., 0], -frames.u[..., 1])


def test_matrices_of_matlab_4(tmp_path):
    whole = {"t": T, "x": X, "u": U[:, :, 0], "v": U[:, :, 1].astype(np.float32), "n": np.arange(3, dtype=np.int16)}
    scipy.io.savemat(tmp_path / "a.mat", whole, format="4")
    (frames,), about, _ = held(tmp_path / "a.mat", tmp_path)
    np.testing.assert_allclose(frames.u, np.stack([U[:, :, 0], U[:, :, 1]], -1), rtol=1e-6)
    data = (tmp_path / "a.mat").read_bytes()
    for wrong in (data[:-5], data[:-1] + b"\0" * 30):
        (tmp_path / "b.mat").write_bytes(wrong)
        with pytest.raises(UserError, match=r"b.mat"):
            held(tmp_path / "b.mat", tmp_path)


def test_snapshots_as_columns_beside_the_sizes_of_their_grid(tmp_path):
    columns = np.stack([frame.ravel(order="F") for frame in U], 1)
    scipy.io.savemat(tmp_path / "a.mat", {"VORTALL": columns, "nx": len(X), "ny": len(Y), "m": 3})
    (frames,), about, told = held(tmp_path / "a.mat", tmp_path)
    np.testing.assert_allclose(frames.u.reshape(U.shape), U, rtol=1e-6)
    assert about.coordinates == ("x", "y") and "6 frames are counted along axis 2" in told


def test_first_and_last_states_are_two_frames(tmp_path):
    first, last = U[0].T, U[-1].T  # seven samples of eight places
    scipy.io.savemat(tmp_path / "a.mat", {"a": first, "u": last, "a_x": first})
    frames, _, told = held(tmp_path / "a.mat", tmp_path)
    assert len(frames) == 7 and "the first and the last frame of 7 trajectories" in told
    np.testing.assert_allclose(frames[3].u[..., 0], [first[3], last[3]], rtol=1e-6)


@pytest.mark.parametrize("given", [{}, {"coordinates": ["x", "y"]}], ids=["axes", "named"])
def test_files_of_one_frame_each(tmp_path, given):
    for step, frame in enumerate(U):
        axes = {} if given else {"t": T[step], "x": X, "y": Y}
        np.savez(tmp_path / f"frame_{step}.npz", u=frame, **axes)
    (frames,), _, told = held(str(tmp_path / "frame_*.npz"), tmp_path, **given)
    np.testing.assert_allclose(frames.t, np.arange(6) if given else T)
    np.testing.assert_allclose(frames.u.reshape(U.shape), U, rtol=1e-6)
    assert ("has no coordinates" in told) == bool(given) and "frame_1" not in told  # once for all files


def test_numbers_beside_arrays_and_lists_of_tensors_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", t=T, x=X, y=Y, u=U, nu=0.01)
    assert "nu () is left out; what is known of each trajectory" in held(tmp_path / "a.npz", tmp_path)[2]
    torch.save([torch.tensor(U)] * 3, tmp_path / "a.pt")
    assert len(held(tmp_path / "a.pt", tmp_path, coordinates=["x", "y"])[0]) == 3
    torch.save({"state_dict": {"w": torch.zeros(3)}, "epoch": 1}, tmp_path / "b.pt")
    with pytest.raises(UserError, match="holds a dict of state_dict, epoch and no tensors"):
        held(tmp_path / "b.pt", tmp_path)


# ---- longitudes ----

def test_longitudes_of_a_section_go_on_across_greenwich(tmp_path):
    lon = np.r_[350:360:2.0, 0:12:2.0]
    data = xarray.Dataset({"olr": (("time", "lon"), np.cos(np.radians(8 * lon)) * (1 + T[:, None]))},
                          {"time": T, "lon": ("lon", lon, {"units": "degrees_east"})})
    data.to_netcdf(tmp_path / "a.nc")
    (frames,), about, told = held(tmp_path / "a.nc", tmp_path)
    np.testing.assert_array_equal(frames.x[:, 0], np.arange(-10, 12, 2))
    assert "counted from -10 to 10 degrees" in told
    with pytest.warns(UserWarning, match="from -10 to 10"):  # and so does who asks at the places of the file
        points = read_points(tmp_path / "a.nc", about)
    np.testing.assert_array_equal(np.unique(points.x), np.arange(-10, 12, 2))
    flat = data.expand_dims(lat=[0.0, 1.0, 2.0]).transpose("time", "lat", "lon")
    flat.to_netcdf(tmp_path / "b.nc")
    with pytest.raises(UserError, match="lon wraps around within the region; leave out coordinates"):
        held(tmp_path / "b.nc", tmp_path, coordinates=["lat", "lon"])


@pytest.mark.parametrize("lon", [np.arange(0, 360, 10.0), np.linspace(-180, 180, 19), np.r_[0:300:3.0, 303:360:1.0],
                                 np.r_[-20:30:5.0], np.r_[300:359:5.0]])
def test_longitudes_of_the_globe_and_of_regions_that_go_on_are_kept(lon):
    assert cut_elsewhere(lon) is lon
