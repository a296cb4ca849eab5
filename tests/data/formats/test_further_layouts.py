"""Layouts of published sets, services and solvers without a format of their own: values against what was written."""

import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from grib_files import write_grib

from inrflow.data.formats.convert import convert
from inrflow.data.formats.streams.streamed import number_in_name
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

T, X = np.arange(6) * 0.5, np.arange(8) / 8
U = np.sin(2 * np.pi * X - T[:, None]) * np.array([1.0, 2.0, -1.0])[:, None, None]  # (3, 6, 8)
HOURS = np.datetime64("2024-03-01") + np.arange(6) * np.timedelta64(1, "h")


def read(path, **options):
    """The trajectories of a file, and their description."""
    target = Path(path).parent / "read.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert(path, target, overwrite=True, **options)
    with TrajectoryFile(target) as file:
        return [file.read(index) for index in range(file.trajectories)], file.description


def test_arrays_in_groups_with_times_of_each_trajectory(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("train")
        group["u"], group["t"], group["x"] = U, np.tile(T, (3, 1)), np.tile(X, (3, 1))
        group["nu"] = np.arange(3.0)
    found, about = read(tmp_path / "a.h5")
    assert about.channels == ("u",)
    for one, u in zip(found, U, strict=True):
        np.testing.assert_allclose(one.t, T)
        np.testing.assert_allclose(one.u[..., 0], u, rtol=1e-6)


def test_fields_of_other_numbers_of_channels(tmp_path):
    v = np.stack([U, 2 * U], -1)[:, :, :, None].repeat(8, 3)  # (S, T, X, Y, C)
    np.savez(tmp_path / "a.npz", velocity=v, particles=v[..., :1] + 1, t=np.tile(T, (3, 1)), force=v[:, 0])
    found, about = read(tmp_path / "a.npz")
    assert about.channels == ("velocity0", "velocity1", "particles")
    np.testing.assert_allclose(found[1].u[:, ::8], np.stack([U[1], 2 * U[1], U[1] + 1], -1), rtol=1e-5)


def test_a_channel_between_times_and_places(tmp_path):
    np.save(tmp_path / "a.npy", U[:, :, None])
    found, _ = read(tmp_path / "a.npy")
    np.testing.assert_allclose([one.u[..., 0] for one in found], U, rtol=1e-6)


@pytest.mark.parametrize(("arrays", "words"), [
    ({"X": np.random.default_rng(0).random((40, 3)), "u": np.zeros((40, 1))}, "nothing says which; write"),
    ({"mesh_pos": np.random.default_rng(0).random((40, 2)), "u": np.zeros((6, 40, 2))}, "add a vector t")])
def test_points_without_times_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "a.npz")


def test_records_in_hdf5_are_a_table(tmp_path):
    rows = np.zeros(48, [("time", "f8"), ("x", "f8"), ("name", "S2"), ("u", "f8")])
    rows["time"], rows["x"], rows["u"], rows["name"] = np.repeat(T, 8), np.tile(X, 6), U[0].ravel(), b"ab"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["table"] = rows
    found, about = read(tmp_path / "a.h5")
    assert about.channels == ("u",)
    np.testing.assert_allclose(found[0].u[..., 0], U[0], rtol=1e-6)


@pytest.mark.parametrize(("head", "row"), [
    ("Year,Month,Day,Hour,T", "{d.year},{d.month},{d.day},{d.hour},{v}"),
    ("YEAR;DOY;T", "{d.year};{day};{v}"),
    ("MESS_DATUM;T", "{d:%Y%m%d%H};{v}"), ("Datum von;Datum bis;T", "{d:%d.%m.%Y %H:%M};{d:%d.%m.%Y %H:%M};{v}"),
    ("A network;;\nZeit;T;\n;K;", "{d:%Y-%m-%d %H:%M};{v};")])
def test_times_under_other_names(tmp_path, head, row):
    dates = HOURS.astype("datetime64[s]").tolist()
    lines = [row.format(d=d, v=v, day=d.timetuple().tm_yday + d.hour / 24) for d, v in zip(dates, X[:6], strict=True)]
    (tmp_path / "a.csv").write_text("\n".join([head, *lines]) + "\n")
    found, about = read(tmp_path / "a.csv", channels=["T"])
    assert about.time_units.startswith("hours since 1970-01-01")
    np.testing.assert_allclose(found[0].t - found[0].t[0], np.arange(6), atol=1e-6)
    np.testing.assert_allclose(found[0].t[0], (HOURS[0] - np.datetime64("1970")) / np.timedelta64(1, "h"))
    np.testing.assert_allclose(found[0].u[:, 0, 0], X[:6], rtol=1e-6)


def test_two_lines_of_names_are_told(tmp_path):
    (tmp_path / "a.csv").write_text(",temp,temp\n,A,B\n2024-03-01,1,2\n")
    with pytest.raises(UserError, match=r"stack\(\)"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize(("name", "number"), [
    ("pv.10.csv", 10), ("table_7.5e-01.csv", 0.75), ("t0.50.vtu", 0.5), ("run1.0012.vtu", 12), ("a_12.csv.gz", 12),
    ("u.csv", None), ("probe_2020.01.05.csv", 5)])
def test_numbers_in_names(name, number):
    assert number_in_name(Path(name)) == number


def test_tables_as_paraview_numbers_them(tmp_path):
    for step in range(12):
        (tmp_path / f"pv.{step}.csv").write_text("c,x\n" + "".join(f"{step + x},{x}\n" for x in X))
    found, _ = read(tmp_path / "pv.*.csv")
    np.testing.assert_allclose(found[0].t, np.arange(12))
    np.testing.assert_allclose(found[0].u[10, :, 0], 10 + X)


def test_degrees_in_the_singular_and_daily_maps_without_an_axis_of_times(tmp_path):
    for day in (1, 2, 3):
        xarray.Dataset({"c": (("Y", "X"), np.full((3, 4), float(day)))}, {
            "Y": ("Y", [0.0, 10, 20], {"units": "degree_north"}), "X": ("X", [0.0, 10, 20, 30], {"units": "degree_E"}),
        }, {"time_coverage_start": f"2020-01-{day:02d}T00:00:00.000Z"}).to_netcdf(tmp_path / f"m{day}.nc")
    found, about = read(tmp_path / "m*.nc")
    assert about.geometry == "sphere"
    np.testing.assert_allclose(np.diff(found[0].t), 24)
    np.testing.assert_allclose(found[0].u[:, 0, 0], [1, 2, 3])


def test_grib_at_two_heights(tmp_path):
    keys = {"Ni": 4, "Nj": 3, "latitudeOfFirstGridPointInDegrees": 20, "latitudeOfLastGridPointInDegrees": 0,
            "longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 30,
            "iDirectionIncrementInDegrees": 10, "jDirectionIncrementInDegrees": 10}
    fields = 280 + np.arange(36.0).reshape(3, 12)
    for name, factor in (("2t", 1), ("10u", 0.1)):
        write_grib(tmp_path / name, factor * fields, "regular_ll_sfc_grib2", {**keys, "shortName": name})
    (tmp_path / "a.grib2").write_bytes((tmp_path / "2t").read_bytes() + (tmp_path / "10u").read_bytes())
    found, about = read(tmp_path / "a.grib2")
    assert set(about.channels) == {"t2m", "u10"}
    u = found[0].u[..., [about.channels.index("t2m"), about.channels.index("u10")]]
    np.testing.assert_allclose(u, np.stack([fields, 0.1 * fields], -1), rtol=1e-3)


def test_a_satellites_grid_in_its_group(tmp_path):
    with h5py.File(tmp_path / "a.HDF5", "w") as file:
        grid = file.create_group("Grid")
        grid["rain"] = U
        for axis, (name, values, units) in enumerate((("time", T[:3], "hours since 2020-01-01"),
                                                      ("lon", T * 10, "degrees_east"), ("lat", X, "degrees_north"))):
            grid[name] = values
            grid[name].attrs["units"] = units
            grid[name].make_scale(name)
            grid["rain"].dims[axis].attach_scale(grid[name])
    found, about = read(tmp_path / "a.HDF5")
    assert about.channels == ("rain",)
    np.testing.assert_allclose(found[0].u[..., 0].reshape(U.shape), U, rtol=1e-6)


def test_series_of_paraview_and_zones_of_elements(tmp_path):
    meshio = pytest.importorskip("meshio")
    points, cells = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]]), np.array([[0, 1, 2], [0, 2, 3]])
    text = 'VARIABLES = "X" "Y" "T"\n'
    for step, t in enumerate(T):
        mesh = meshio.Mesh(points, [("triangle", cells)], {"T": points[:, 0] + t})
        meshio.vtu.write(str(tmp_path / f"a_{step}.vtu"), mesh)
        text += f'ZONE T="a, b", N=4, E=2, ZONETYPE=FETRIANGLE, DATAPACKING=BLOCK, STRANDID=1, SOLUTIONTIME={t}\n'
        rows = (*points[:, :2].T, points[:, 0] + t, *(cells + 1))
        text += "\n".join(" ".join(map(str, row)) for row in rows) + "\n"
    files = [{"name": f"a_{step}.vtu", "time": float(t)} for step, t in enumerate(T)]
    (tmp_path / "a.vtu.series").write_text(json.dumps({"file-series-version": "1.0", "files": files}))
    (tmp_path / "a.dat").write_text(text)
    (tmp_path / "b.dat").write_text(text[: text.index("ZONE", 100) - 20])
    with pytest.raises(UserError, match="ends within"):  # where meshio reads on without end
        read(tmp_path / "b.dat")
    for name in ("a.vtu.series", "a.dat"):
        found, _ = read(tmp_path / name)
        np.testing.assert_allclose(found[0].t, T)
        np.testing.assert_allclose(found[0].u[..., 0], points[:, 0] + T[:, None])


@pytest.mark.parametrize(("start", "words"), [
    (b"NDIME= 2\nNELEM= 1\n", "without values"), (b"ARROW1\0\0" + bytes(40), "to_parquet"), (b'View "T" {\n', "Gmsh"),
    (b"# HELP temp T\n# TYPE temp gauge\ntemp 1 2\n", "query_range")])
def test_files_that_are_named_with_what_to_do(tmp_path, start, words):
    (tmp_path / "a.dat").write_bytes(start)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "a.dat")
