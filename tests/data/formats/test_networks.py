"""Tables of networks of observation, of local times, and of series without places; files that are named alone."""

import gzip
import re

import h5py
import numpy as np
import pytest
from instrument_files import ghcn, ghcn_by_year, line_protocol, ndbc, odv, series
from known_files import dedalus

from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.registry import format_of
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*(has no coordinates|left out|hold text)")
HOURS = int((np.datetime64("2020-02-28") - np.datetime64("1970-01-01")) / np.timedelta64(1, "h"))


def read(path, **options):
    target = path.with_name("target.h5")
    convert(path, target, overwrite=True, **options)
    with TrajectoryFile(target) as file:
        return [file.read(number) for number in range(file.trajectories)], file.description


@pytest.mark.parametrize("packed", [False, True])
def test_a_buoy_of_ndbc(tmp_path, packed):
    path = tmp_path / "41001h2020.txt"
    ndbc(path)
    if packed:
        (tmp_path / "41001.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "41001.txt.gz"
    with pytest.warns(UserWarning, match="TIDE has no values and is left out"):
        (one,), about = read(path)
    assert about.channels == ("WDIR", "WSPD", "WVHT", "PRES", "ATMP") and about.places == ()
    assert about.units == ("degT", "m/s", "m", "hPa", "degC")
    h = np.arange(8.0)
    np.testing.assert_allclose(one.t, HOURS + h + 50 / 60, atol=1e-9)
    expected = np.stack([np.where(h == 0, np.nan, 99), h, np.where(h == 2, np.nan, 1.5),
                         np.where(h == 3, np.nan, 1015.5), np.where(h == 4, np.nan, -h)], -1)
    np.testing.assert_array_equal(one.u[:, 0], expected.astype(np.float32))


def test_a_station_of_ghcn_daily(tmp_path):
    ghcn(tmp_path / "a.dly")
    (one,), about = read(tmp_path / "a.dly")
    assert about.channels == ("TMAX", "TMIN") and about.units == ("0.1 degC", "0.1 degC") and one.u.shape == (60, 1, 2)
    day = np.r_[1:32, 1:30]
    expected = np.stack([100.0 + day, -50.0 + day], -1)
    expected[[2, 33], 0] = np.nan  # failed a check
    np.testing.assert_array_equal(one.u[:, 0], expected)
    assert (np.diff(one.t) == 24).all()


def test_years_of_ghcn_daily_with_the_list_of_stations(tmp_path):
    ghcn_by_year(tmp_path / "2020.csv", (("USW00094728", "2400"), ("CA001010066", "")))
    places = tmp_path / "ghcnd-stations.txt"
    places.write_text("USW00094728  40.7789  -73.9692   42.7 NY NEW YORK CNTRL PK TWR          HCN 72506\n"
                      "CA001010066  48.8667 -123.2833    4.0 BC ACTIVE PASS\n")
    with pytest.raises(UserError, match="stations=FILE"):
        read(tmp_path / "2020.csv")
    (one,), about = read(tmp_path / "2020.csv", stations=str(places))
    assert about.geometry == "sphere" and about.channels == ("TMAX", "TMIN") and one.u.shape == (28, 2, 2)
    np.testing.assert_allclose(np.sort(np.degrees(np.arcsin(one.x[:, 2]))), [40.7789, 48.8667], atol=1e-9)
    np.testing.assert_array_equal(one.u[:, 0], np.stack([100.0 + np.r_[1:29], -50.0 + np.r_[1:29]], -1))


def test_casts_of_odv(tmp_path):
    odv(tmp_path / "section.txt")
    with pytest.warns(UserWarning, match="1 values that are flagged as bad"):
        (one,), about = read(tmp_path / "section.txt")
    assert about.coordinates == ("Longitude", "Latitude", "Depth") and about.channels == ("Temperature",)
    assert about.units == ("degC",) and np.isfinite(one.u).sum() == 29
    cast, level = np.meshgrid(np.arange(6), np.arange(5), indexing="ij")
    used = (cast != 2) | (level != 3)
    held = np.isfinite(one.u[..., 0])
    np.testing.assert_allclose(one.x[held], np.stack([-5 + cast / 4, 40 + cast / 8, 10.0 * level], -1)[used])
    np.testing.assert_allclose(one.u[held, 0], (20 - level + cast / 10)[used], rtol=1e-6)


def test_line_protocol(tmp_path):
    line_protocol(tmp_path / "points.lp")
    (one,), about = read(tmp_path / "points.lp")
    assert about.channels == ("pm10", "n") and about.geometry == "sphere" and one.u.shape == (6, 2, 2)
    np.testing.assert_array_equal(np.sort(one.u[2, :, 0]), [10.0, 10.5])
    assert one.t[0] == (np.datetime64("2024-01-01") - np.datetime64("1970-01-01")) / np.timedelta64(1, "h")


@pytest.mark.parametrize("text", [
    "#YY MM DD hh mm WDIR\n2020 01 01 00 00\n", "USW00094728202x01TMAX  100  W  100  W\n",
    "Cruise\tStation\ta\n1\t2\t3\t4\n", "#group,false\n,result,table,_value\n,,0,1\n",
    "a b=1 1704067200000000000\na b=\n"])
def test_damaged_ones_end_in_a_sentence(tmp_path, text):
    (tmp_path / "a").write_text(text)
    with pytest.raises(UserError, match="a[ :]"):
        read(tmp_path / "a")


def test_local_times_of_the_usgs_are_in_utc(tmp_path):
    rows = ["2024-03-10 00:45\tEST\t1", "2024-03-10 01:45\tEST\t2", "2024-03-10 03:45\tEDT\t3"]
    head = ["# U.S. Geological Survey", "agency_cd\tdatetime\ttz_cd\t1_00060", "5s\t20d\t6s\t14n"]
    path = tmp_path / "a.rdb"
    path.write_text("\n".join([*head, *(f"USGS\t{row}" for row in rows)]) + "\n")
    (one,), _ = read(path)
    first = (np.datetime64("2024-03-10T05:45") - np.datetime64("1970-01-01")) / np.timedelta64(1, "h")
    np.testing.assert_array_equal(one.t, first + np.arange(3))
    path.write_text(path.read_text().replace("EDT", "XYZ"))
    with pytest.raises(UserError, match="'XYZ', which is an unknown zone"):
        read(path)


def test_series_without_places_in_arrays(tmp_path):
    series(tmp_path / "a.npz")
    with pytest.warns(UserWarning, match="a series at a single place"):
        several, about = read(tmp_path / "a.npz")
    assert about.channels == ("u0", "u1") and about.places == () and len(several) == 5
    np.testing.assert_allclose(several[3].u[:, 0], np.stack([np.sin(several[3].t + 3), np.cos(several[3].t + 3)], 1),
                               atol=1e-6)
    t = np.arange(9) * 0.1
    np.savez(tmp_path / "b.npz", time=t, theta=np.sin(t), omega=np.cos(t))
    (one,), about = read(tmp_path / "b.npz")
    assert about.channels == ("theta", "omega") and one.u.shape == (9, 1, 2)
    np.savez(tmp_path / "c.npz", t=t, x=t**2, u=np.sin(t))  # a row for each
    (one,), about = read(tmp_path / "c.npz")
    assert about.channels == ("u",) and one.x.shape == (9, 1, 1)
    np.testing.assert_allclose(one.x[:, 0, 0], t**2)


def test_tasks_of_dedalus_in_version_2_and_on_other_grids(tmp_path):
    known = dedalus(tmp_path / "s1.h5", version=2)
    with h5py.File(tmp_path / "s1.h5", "a") as file:
        file["tasks/mean"] = np.zeros(4)
    with pytest.warns(UserWarning, match="mean lies on another grid"):
        (one,), about = read(tmp_path / "s1.h5")
    np.testing.assert_array_equal(one.u, known.u[0])
    assert about.coordinates == ("x", "y")
    with h5py.File(tmp_path / "s1.h5", "a") as file:
        file["tasks/b"].dims[1].label = file["tasks/vector"].dims[2].label = "phi"
    with pytest.raises(UserError, match="over phi, y; expected grid values over Cartesian axes"):
        read(tmp_path / "s1.h5")


def blocks(path):
    with h5py.File(path, "w") as file:
        file.attrs["NumMeshBlocks"], file["x1v"], file["prim"] = 4, np.zeros((4, 8)), np.zeros((2, 4, 1, 8, 8))


def cgns(path):
    with h5py.File(path, "w") as file:
        file.create_group("CGNSLibraryVersion")


@pytest.mark.parametrize(("make", "words"), [
    (blocks, "resample"), (cgns, "ParaView"), (b"II*\0\x08\0\0\0", "gdal_translate"),
    (b"*******\nField Output Report, written Mon Jan  1\n", "with a row for each time and node")])
def test_files_that_are_named_with_what_to_do(tmp_path, make, words):
    path = tmp_path / "a.dat"
    path.write_bytes(make) if isinstance(make, bytes) else make(path)
    assert re.search(words, dict(describe(path))["note"].replace("\n", " "))
    with pytest.raises(UserError, match=words):
        convert(path, tmp_path / "b.h5")


def test_files_of_vtk_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("inrflow.data.formats.meshes.vtk_files.find_spec", lambda name: None)
    (tmp_path / "a.vti").write_bytes(b'<?xml version="1.0"?>\n<VTKFile type="ImageData" version="0.1">\n')
    with pytest.raises(UserError, match=r"(?s)inrflow\[vtk\].*cast_to_unstructured_grid"):
        convert(tmp_path / "a.vti", tmp_path / "b.h5")


def test_what_does_not_exist_may_be_misspelt(tmp_path):
    (tmp_path / "stations.csv").write_text("t,u\n0,1\n")
    with pytest.raises(UserError, match=r"does not exist; did you mean .*stations\.csv\?"):
        format_of(tmp_path / "station.csv")
