"""Conversion: the same numbers from every format, described as far as the file tells; the rest is named."""

import os
import warnings

import h5py
import numpy as np
import pytest
import xarray
from small_data import WAVE, field, with_symmetries

from inrflow.data.formats.builtin import netcdf, npz
from inrflow.data.formats.convert import convert
from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.data.formats.texts.csv_table import CsvColumns
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_scattered, write_trajectories
from inrflow.errors import UserError

PRECIOUS = b"\x89HDF\r\n\x1a\n and what follows"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "converted.h5"


def sea(path, land=True, **coordinates):
    """A gridded sea temperature with land, as an atlas would hold it: (time, lat, lon), dates, degrees, metadata."""
    random = np.random.default_rng(0)
    lat, lon = np.array([-5.0, 0.0, 5.0]), np.array([0.0, 90.0, 180.0, 270.0])
    sst = random.random((6, 3, 4)).astype(np.float32) + 28
    if land:
        sst[:, 1, 2] = np.nan
        sst[2, 0, 0] = np.nan
    time = np.array(["2006-04-16", "2006-05-16T12", "2006-06-16", "2006-07-16T12", "2006-08-16T12", "2006-09-16"],
                    "datetime64[ns]")
    data = xarray.Dataset({"sst": (("time", "lat", "lon"), sst, {"units": "degC"}),
                           "area": (("lat", "lon"), np.ones((3, 4)))},
                          {"time": time, "lat": lat, "lon": lon}, {"title": "an atlas", "license": "free"})
    data.to_netcdf(path, engine="h5netcdf", encoding={"time": {"units": "days since 2000-01-01", "dtype": "f8"}})
    return lat, lon, sst


def test_a_gridded_sea_becomes_unit_vectors_without_land(tmp_path, target):
    lat, lon, sst = sea(tmp_path / "sea.nc")
    convert(tmp_path / "sea.nc", target, time_period=365.25)
    kept = np.delete(np.arange(12), 6)
    degrees = np.stack(np.meshgrid(lon, lat), -1).reshape(-1, 2)[kept]
    with TrajectoryFile(target) as file:
        about = file.description
        assert (about.channels, about.coordinates, about.geometry) == (("sst",), ("x", "y", "z"), "sphere")
        assert (about.units, about.time_units, about.time_period) == (("degC",), "days since 2000-01-01", 365.25)
        assert (about.name, about.source, about.licence) == ("sea", "an atlas", "free")
        assert file.times()[0, :2].tolist() == [2297.0, 2327.5]
        frames = file.read(0)
        np.testing.assert_allclose(frames.x, lonlat_to_xyz(degrees[:, 0], degrees[:, 1]), atol=1e-15)
        np.testing.assert_array_equal(frames.u[..., 0], sst.reshape(6, 12)[:, kept])
        np.testing.assert_array_equal(file.read_extra("lonlat"), degrees)


def test_large_grids_pass_in_blocks(tmp_path, target, monkeypatch):
    _, _, sst = sea(tmp_path / "sea.nc", land=False)
    original = netcdf.blocks
    monkeypatch.setattr(netcdf, "blocks", lambda shape: original(shape, 25))  # two frames of 12 points
    convert(tmp_path / "sea.nc", target)
    with TrajectoryFile(target) as file:
        np.testing.assert_array_equal(file.read(0).u[..., 0], sst.reshape(6, 12))


def test_an_unstructured_mesh_with_members_and_two_channels(tmp_path, target):
    random = np.random.default_rng(0)
    u, v = random.random((5, 2, 9)).astype("f"), random.random((2, 9, 5)).astype("f")
    x, y = random.random(9), random.random(9)
    xarray.Dataset({"u": (("time", "member", "node"), u, {"units": "m"}), "v": (("member", "node", "time"), v),
                    "x": ("node", x), "y": ("node", y)}, {"time": np.arange(5.0)}).to_netcdf(tmp_path / "a.nc",
                                                                                           engine="h5netcdf")
    convert(tmp_path / "a.nc", target, name="mesh", symmetries=["reflection"])
    with TrajectoryFile(target) as file:
        assert file.description.name == "mesh" and file.description.units == ("m", "")
        assert file.description.symmetries.names == ("reflection_x", "reflection_y")
        assert file.description.channels == ("u", "v") and file.trajectories == 2 and file.point_layout == "shared"
        frames = file.read(1)
        np.testing.assert_array_equal(frames.x, np.stack([x, y], -1))
        np.testing.assert_array_equal(frames.u, np.stack([u[:, 1], v[1].T], -1))


def test_a_level_is_selected_and_plain_grids_keep_their_axes(tmp_path, target):
    values = np.random.default_rng(0).random((3, 2, 4, 5)).astype("f")
    xarray.Dataset({"u": (("t", "level", "y", "x"), values)},
                   {"t": np.arange(3.0), "y": np.arange(4.0), "x": np.arange(5.0) / 10}).to_netcdf(
                       tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(UserError, match=r"level \(2\).*select.level=0"):
        convert(tmp_path / "a.nc", target)
    convert(tmp_path / "a.nc", target, select={"level": 1}, period=(4.0, 0.5))
    with TrajectoryFile(target) as file:
        assert file.description.coordinates == ("y", "x") and file.description.period == (4.0, 0.5)
        np.testing.assert_array_equal(file.read(0).u[..., 0], values[:, 1].reshape(3, 20))
        np.testing.assert_array_equal(file.read(0).x[6], [1.0, 0.1])


def test_a_csv_of_frames_becomes_frames_and_one_of_rows_rows(tmp_path, target):
    t, x, u = field(2, 3, 4)
    lines = ["trajectory,t,x,y,u,v"]
    lines += [f"{s + 3},{float(t[f])!r},{float(x[n, 0])!r},{float(x[n, 1])!r},{u[s, f, n, 0]:.9g},{u[s, f, n, 1]:.9g}"
              for s in range(2) for f in range(3) for n in range(4)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    convert(tmp_path / "a.csv", target)
    with TrajectoryFile(target) as file:
        assert file.layout == "frames" and file.point_layout == "shared" and file.description.channels == ("u", "v")
        for s in range(2):
            np.testing.assert_array_equal(file.read(s).u, u[s])
    (tmp_path / "a.csv").write_text("\n".join(lines[:5] + lines[7:]))
    convert(tmp_path / "a.csv", target, overwrite=True)
    with TrajectoryFile(target) as file:
        assert file.layout == "scattered" and file.rows == 22
        np.testing.assert_array_equal(file.read(1).u, u[1])


def test_a_csv_of_stations_with_dates_and_degrees(tmp_path, target):
    (tmp_path / "a.csv").write_text("time,lon,lat,sst\n2006-04-16,10,0,28\n2006-04-17,20,5,29\n")
    convert(tmp_path / "a.csv", target)
    with TrajectoryFile(target) as file:
        assert file.description.geometry == "sphere" and file.description.time_units == "hours since 1970-01-01"
        assert file.times().tolist() == [[318096.0, 318120.0]]


def test_flat_hdf5_with_named_columns(tmp_path, target):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["t"], file["r"], file["p"] = [0.0, 0.0, 1.0], [0.1, 0.2, 0.1], [5.0, 6.0, 7.0]
    with pytest.raises(UserError, match="coordinates=.*channels="):
        convert(tmp_path / "a.h5", target)
    convert(tmp_path / "a.h5", target, coordinates=["r"], channels=["p"])
    with TrajectoryFile(target) as file:
        assert file.description.coordinates == ("r",) and file.rows == 3


@pytest.mark.parametrize("layout", ["frames", "one trajectory", "rows"])
def test_npz_arrays(tmp_path, target, layout):
    t, x, u = field()
    if layout == "rows":
        np.savez(tmp_path / "a.npz", t=np.arange(4.0), x=x[:4], u=u[0, 0, :4], trajectory=np.array([0, 0, 1, 1]))
    else:
        np.savez(tmp_path / "a.npz", t=t, x=x, u=u if layout == "frames" else u[0], channels=["p", "q"], weights=x)
    convert(tmp_path / "a.npz", target)
    with TrajectoryFile(target) as file:
        assert file.trajectories == {"frames": 3, "one trajectory": 1, "rows": 2}[layout]
        if layout == "rows":
            assert file.layout == "scattered" and file.description.channels == ("u0", "u1")
        else:
            assert file.description.channels == ("p", "q") and file.extra == ("weights",)
            np.testing.assert_array_equal(file.read(0).u, u[0])


@pytest.mark.parametrize("layout", ["frames", "scattered"])
def test_own_files_are_packed_anew(tmp_path, target, layout):
    t, x, u = field(3, 20, 300)
    about = with_symmetries()
    if layout == "frames":
        write_trajectories(tmp_path / "a.h5", t, x, u, about, environment=[1, 2, 2],
                           extra={"triangles": np.array([[0, 1, 2], [3, 4, 5]])})
    else:
        write_scattered(tmp_path / "a.h5", np.repeat([1, 4], 9000), np.tile(t, 900), np.tile(x, (60, 1)),
                        u.reshape(-1, 2), about)
    with h5py.File(tmp_path / "a.h5", "r+") as file:  # as another program might store it
        values = file["u"][()]
        del file["u"]
        file["u"] = values
    convert(tmp_path / "a.h5", target)
    with TrajectoryFile(tmp_path / "a.h5") as old, TrajectoryFile(target) as new:
        assert new.description == old.description and new.extra == old.extra and new.layout == layout
        for s in range(old.trajectories):
            for name in ("t", "x", "u"):
                np.testing.assert_array_equal(getattr(new.read(s), name), getattr(old.read(s), name))
    with h5py.File(target) as file:
        assert file["u"].compression == "gzip"
    with pytest.raises(UserError, match="leave out"):
        convert(tmp_path / "a.h5", tmp_path / "b.h5", name="other")


def test_what_cannot_be_converted_is_named(tmp_path, target):
    t, x, u = field()
    np.savez(tmp_path / "few.npz", t=t)
    np.savez(tmp_path / "objects.npz", t=np.array([{}], object), x=x, u=u)
    np.savez(tmp_path / "names.npz", t=t, x=x, u=u, channels=["u"])
    np.savez(tmp_path / "shapes.npz", t=t[:3], x=x, u=u)
    (tmp_path / "a.bin").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "a.csv").write_text("t,x,y\n0,0,0\n")
    sea(tmp_path / "sea.nc")
    for name, words, options in (
            ("few.npz", "expected t, x and u", {}), ("objects.npz", "plain", {}), ("names.npz", "give one each", {}),
            ("shapes.npz", "do not fit", {}), ("a.bin", "CSV, .*flat HDF5.*, npz.*, NetCDF", {}),
            ("a.csv", "channels=", {}),
            ("absent.nc", "does not exist", {}), ("sea.nc", "no variable salt.*sst", {"channels": ["salt"]}),
            ("sea.nc", "no dimension depth", {"select": {"depth": 0}}), ("sea.nc", "lat has 3", {"select": {"lat": 3}}),
            ("sea.nc", "no dimension runs", {"trajectory": "runs"}), ("sea.nc", "unknown option colour", {"colour": 1}),
            ("sea.nc", "coordinates=", {"coordinates": ["lat"]})):
        with pytest.raises(UserError, match=words) as caught:
            convert(tmp_path / name, target, **options)
        assert "\n" not in str(caught.value)
        assert not target.exists()


def test_the_target_is_not_written_over(tmp_path, target):
    sea(tmp_path / "sea.nc")
    target.write_bytes(PRECIOUS)
    with pytest.raises(UserError, match="exists already"):
        convert(tmp_path / "sea.nc", target)
    with pytest.raises(UserError, match="onto itself"):
        convert(tmp_path / "sea.nc", tmp_path / "sea.nc", overwrite=True)
    assert target.read_bytes() == PRECIOUS and sorted(p.name for p in tmp_path.iterdir()) == ["converted.h5", "sea.nc"]
    write_trajectories(tmp_path / "own.h5", *field(), WAVE)
    with pytest.raises(UserError, match="exists already"):
        convert(tmp_path / "own.h5", target)


def values_beyond(path, kind):
    """A file in one of the formats whose values the reader of trajectory files refuses."""
    t, x, u = field()
    if kind == "own":
        write_trajectories(path, t, x, u, WAVE)
        with h5py.File(path, "r+") as file:
            file["u"][1, 2, 3, 1] = np.inf
    elif kind == "netcdf":
        data = xarray.Dataset({"u": (("t", "x"), u[0, :, :, 0])}, {"t": t, "x": np.full(u.shape[2], 1e39)})
        data.to_netcdf(path, engine="h5netcdf")
    elif kind == "csv":
        path.write_text("t,x,u\n0,0,1\n0,1,1e31\n")
    else:
        arrays = {"x": (t, x * 1e38, u), "u": (t, x, u * 1e38), "missing": (t, x, u * np.nan), "parameters": (t, x, u)}
        extra = {"parameters": np.full((3, 2), np.nan)} if kind == "parameters" else {}
        with path.open("wb") as file:
            np.savez(file, **dict(zip("txu", arrays[kind], strict=True)), **extra)


@pytest.mark.parametrize("kind", ["own", "netcdf", "csv", "x", "u", "missing", "parameters"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_values_that_the_reader_refuses_replace_nothing(tmp_path, target, kind, overwrite):
    if overwrite:
        target.write_bytes(PRECIOUS)
    source = tmp_path / "source"
    values_beyond(source, kind)
    with pytest.raises(UserError, match="source") as caught:
        convert(source, target, overwrite=overwrite)
    assert "converted.h5" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["converted.h5"] * overwrite + ["source"]
    assert not overwrite or target.read_bytes() == PRECIOUS


def test_only_regular_files_are_read(tmp_path, target):
    os.mkfifo(tmp_path / "pipe")
    for read in (lambda: convert(tmp_path / "pipe", target), lambda: TrajectoryFile(tmp_path / "pipe")):
        with pytest.raises(UserError, match="device, pipe or socket"):
            read()


def test_radians_become_degrees(tmp_path, target):
    lon, lat = np.array([0.0, 1.5, 3.0]), np.array([-1.4, 0.2, 1.4])
    data = xarray.Dataset({"ta": (("time", "ncells"), np.arange(6.0).reshape(2, 3))},
                          {"time": [0.0, 1.0], "clon": ("ncells", lon), "clat": ("ncells", lat)})
    for name, standard in (("clon", "longitude"), ("clat", "latitude")):
        data[name].attrs.update(units="radian", standard_name=standard)
    data.to_netcdf(tmp_path / "icon.nc", engine="h5netcdf")
    convert(tmp_path / "icon.nc", target)
    with TrajectoryFile(target) as file:
        expected = [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]
        np.testing.assert_allclose(file.read(0).x, np.stack(expected, -1), atol=1e-12)
        np.testing.assert_allclose(file.read_extra("lonlat"), np.degrees([lon, lat]).T)


def test_a_rotated_grid_becomes_unit_vectors_of_true_places(tmp_path, target):
    data = xarray.Dataset({"ta": (("time", "rlat", "rlon"), np.ones((1, 2, 2)), {"grid_mapping": "pole"})},
                          {"time": [0.0], "rlat": [0.0, 10.0], "rlon": [0.0, 5.0], "pole": 0})
    data["rlat"].attrs["standard_name"], data["rlon"].attrs["standard_name"] = "grid_latitude", "grid_longitude"
    data["pole"].attrs.update(grid_mapping_name="rotated_latitude_longitude", grid_north_pole_latitude=40.0,
                              grid_north_pole_longitude=-170.0)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    convert(tmp_path / "a.nc", target)
    with TrajectoryFile(target) as file:
        # 50 N, 10 E is the middle of the COSMO-DE grid; along its meridian latitude is plain.
        np.testing.assert_allclose(file.read_extra("lonlat")[[0, 2]], [[10, 50], [10, 60]], atol=1e-10)
        assert file.description.geometry == "sphere"


@pytest.mark.parametrize(("units", "calendar"), [("days since 1850-01-01", "noleap"), ("days since 1-1-1", "360_day"),
                                                 ("fortnights since 1900-01-01", "standard")])
def test_times_of_other_calendars_stay_numbers(tmp_path, target, units, calendar):
    data = xarray.Dataset({"u": (("time", "x"), np.ones((2, 3)))}, {"time": [30.0, 60.0], "x": np.arange(3.0)})
    data["time"].attrs.update(units=units, calendar=calendar)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    convert(tmp_path / "a.nc", target)
    with TrajectoryFile(target) as file:
        assert file.times().tolist() == [[30.0, 60.0]]
        assert file.description.time_units == (units if calendar == "standard" else f"{units} ({calendar})")


@pytest.mark.parametrize(("calendar", "days"), [
    ("standard", [366.0, 366.0 + 31 + 14]), ("360", [360.0, 405.0]), ("noleap", [365.0, 365.0 + 31 + 14])])
def test_times_in_months_become_days(tmp_path, target, calendar, days):
    data = xarray.Dataset({"u": (("time", "x"), np.ones((2, 3)))}, {"time": [12.0, 13.5], "x": np.arange(3.0)})
    data["time"].attrs.update(units="months since 1960-01-01", calendar=calendar)
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    convert(tmp_path / "a.nc", target)
    with TrajectoryFile(target) as file:  # 1960 is a leap year; half a February of 28 days after 31 days of January
        assert file.times().tolist() == [days]
        named = {"standard": "", "360": " (360_day)", "noleap": " (noleap)"}[calendar]
        assert file.description.time_units == f"days since 1960-01-01{named}"


@pytest.mark.parametrize("name", ["b.nc", "b.csv.gz", "b.npy", "b.vtu", "b.mat", "b.xyz", "b"])
def test_targets_that_are_not_named_as_hdf5_are_refused(tmp_path, name):
    (tmp_path / "a.csv").write_text("t,x,u\n0,0,1\n1,0,2\n")
    with pytest.raises(UserError, match=f"{name} is not named as HDF5.*b.*h5"):
        convert(tmp_path / "a.csv", tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["Time", "timestamp", "datetime", "when"])
def test_the_column_of_times_may_have_other_names(tmp_path, target, name):
    (tmp_path / "a.csv").write_text(f"{name},x,u\n2020-01-01,0,1\n2020-01-02,0,2\n")
    convert(tmp_path / "a.csv", target, time="when" if name == "when" else None)
    with TrajectoryFile(target) as file:
        assert file.description.channels == ("u",) and np.diff(file.times()[0]).tolist() == [24.0]


def test_repeated_rows_are_reported(tmp_path, target):
    (tmp_path / "a.csv").write_text("t,x,u\n0,0,1\n0,0,1\n0,1,2\n0,1,85\n1,0,\n1,0,3\n")
    with pytest.warns(UserWarning, match="2 of 5 rows repeat the time and place of another, 1 with other"):
        convert(tmp_path / "a.csv", target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (tmp_path / "b.csv").write_text("t,x,u\n0,0,1\n0,1,1\n1,0,2\n")
        convert(tmp_path / "b.csv", tmp_path / "b.h5")


def test_degrees_without_a_unit_that_lie_as_radians_do_are_told(tmp_path, target):
    places = np.random.default_rng(0).uniform([-3, -1.5], [3, 1.5], (20, 2))
    data = xarray.Dataset({"u": (("time", "cell"), np.random.default_rng(1).random((3, 20)))},
                          {"time": np.arange(3.0), "lon": ("cell", places[:, 0]), "lat": ("cell", places[:, 1])})
    data.to_netcdf(tmp_path / "bare.nc", engine="h5netcdf")
    with pytest.warns(UserWarning, match="bare.nc: longitudes .* are read as degrees; if they are radians"):
        convert(tmp_path / "bare.nc", target)
    rows = ["t,lon,lat,u"] + [f"{t},{lon},{lat},{lon}" for t in range(3) for lon, lat in places]
    (tmp_path / "bare.csv").write_text("\n".join(rows))
    with pytest.warns(UserWarning, match="bare.csv: longitudes .* are read as degrees"):
        convert(tmp_path / "bare.csv", tmp_path / "rows.h5")
    for name in ("lon", "lat"):
        data[name].attrs["units"] = "degrees"
    data.to_netcdf(tmp_path / "degrees.nc", engine="h5netcdf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(tmp_path / "degrees.nc", target, overwrite=True)


def test_a_rotated_grid_without_its_pole_is_not_taken_for_a_flat_one_unless_it_is_said(tmp_path, target):
    axes = {"time": np.arange(3.0), "rlat": np.linspace(-8, 8, 4), "rlon": np.linspace(-9, 9, 5)}
    data = xarray.Dataset({"u": (("time", "rlat", "rlon"), np.random.default_rng(0).random((3, 4, 5)))}, axes)
    data.to_netcdf(tmp_path / "grid.nc", engine="h5netcdf")
    with pytest.raises(UserError, match="rlon and rlat are places on a rotated grid whose pole is not given"):
        convert(tmp_path / "grid.nc", target)
    convert(tmp_path / "grid.nc", target, coordinates=["rlat", "rlon"])
    with TrajectoryFile(target) as file:
        assert file.description.coordinates == ("rlat", "rlon") and file.description.geometry is None


@pytest.mark.parametrize("layout", ["shared", "per_trajectory", "moving", "columns first", "one trajectory"])
def test_values_of_npz_files_are_streamed_in_blocks_of_frames(tmp_path, target, layout, monkeypatch):
    random = np.random.default_rng(0)
    t, u = np.tile(np.arange(5.0), (3, 1)), random.random((3, 5, 4, 2))
    x = random.random({"per_trajectory": (3, 4, 2), "moving": (3, 5, 4, 2)}.get(layout, (4, 2)))
    if layout == "one trajectory":
        t, u = t[0], u[0]
    else:
        t[1, 3:] = np.nan  # a shorter trajectory
    np.savez_compressed(tmp_path / "a.npz", t=t, x=x, u=np.asfortranarray(u) if layout == "columns first" else u)
    monkeypatch.setattr(npz, "VALUES_PER_BLOCK", 17)  # two frames
    convert(tmp_path / "a.npz", target)
    with TrajectoryFile(target) as file:
        for index, values in enumerate(u.reshape(-1, 5, 4, 2)):
            frames, count = file.read(index), 3 if index == 1 else 5
            np.testing.assert_allclose(frames.u, values[:count], rtol=1e-6)
            places = x[index, :count] if layout == "moving" else x[index] if layout == "per_trajectory" else x
            np.testing.assert_array_equal(frames.x, places)


@pytest.mark.parametrize("time", ["time", "Time", "valid"])
def test_a_field_called_t_is_a_temperature_beside_times(tmp_path, time):
    data = xarray.Dataset({"T": ((time, "x"), np.arange(12.0).reshape(3, 4))}, {
        time: np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ns]"), "x": np.arange(4.0)})
    data[time].attrs["standard_name"] = "time"
    data.to_netcdf(tmp_path / "a.nc")
    convert(tmp_path / "a.nc", tmp_path / "a.h5")
    table = "\n".join(["Time,x,T", "0,0,5", "0,1,6", "1,0,7", "1,1,8"])
    (tmp_path / "a.csv").write_text(table)
    convert(tmp_path / "a.csv", tmp_path / "b.h5")
    for name, frames in (("a.h5", 3), ("b.h5", 2)):
        with TrajectoryFile(tmp_path / name) as file:
            assert file.description.channels == ("T",) and file.frames == frames


def test_a_field_named_like_a_component_of_unit_vectors_keeps_its_name(tmp_path, target):
    data = xarray.Dataset({"z": (("time", "lat", "lon"), np.arange(24.0).reshape(2, 3, 4))},
                          {"time": [0.0, 1.0], "lat": [10.0, 20.0, 30.0], "lon": [0.0, 90.0, 180.0, 270.0]})
    data.to_netcdf(tmp_path / "heights.nc", engine="h5netcdf")
    data.to_dataframe().reset_index().to_csv(tmp_path / "heights.csv", index=False)
    for name in ("heights.nc", "heights.csv"):
        convert(tmp_path / name, target, overwrite=True)
        with TrajectoryFile(target) as file:
            about = file.description
            assert (about.channels, about.geometry) == (("z",), "sphere")
            assert about.coordinates == ("unit_x", "unit_y", "unit_z") and file.read(0).u.size == 24


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path, target, monkeypatch):
    (tmp_path / "a.csv").write_text("t,x,u\n0,0,1\n0,1,1\n1,0,2\n1,1,2\n")
    blocks = CsvColumns.blocks

    def cut(columns, rows):
        yield from blocks(columns, rows)
        os.truncate(tmp_path / "a.csv", 12)

    monkeypatch.setattr(CsvColumns, "blocks", cut)
    with pytest.warns(UserWarning, match="a.csv has changed while it was read, so that values may be missing"):
        convert(tmp_path / "a.csv", target)


def test_a_file_given_twice_is_refused(tmp_path, target):
    (tmp_path / "a.csv").write_text("t,x,u\n0,0,1\n0,1,1\n1,0,2\n1,1,2\n")
    with pytest.raises(UserError, match="a.csv is given twice"):
        convert([tmp_path / "a.csv", str(tmp_path / "*.csv")], target)
