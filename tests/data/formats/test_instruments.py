"""Files as instruments, loggers and solvers write them: values, units, times and places against the field inside."""

import csv
import warnings

import h5py
import numpy as np
import pytest
import scipy.io
import xarray
from instrument_files import argo, davis, roms, toa5

from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

X, Y, T = np.linspace(0, 1, 7), np.linspace(0, 0.5, 5), np.arange(6) * 0.5


def heat(x, y, t):
    return 300 + 20 * np.exp(-0.05 * t) * np.cos(np.pi * x) + 8 * np.exp(-0.2 * t) * np.cos(2 * np.pi * y) + x


def read(tmp_path, *sources, **options):
    """The first trajectory of files, and what is said of it."""
    convert([tmp_path / name for name in sources], tmp_path / "read.h5", overwrite=True, **options)
    with TrajectoryFile(tmp_path / "read.h5") as file:
        return file.read(0), file.description


def require_heat(one, times=T, tolerance=1e-3):
    np.testing.assert_allclose(one.t, times)
    wanted = np.stack([heat(one.x[:, 0], one.x[:, 1], t) for t in T])
    np.testing.assert_allclose(one.u[..., 0], wanted, atol=tolerance)


def write_rows(path, rows, **style):
    with path.open("w", newline="") as file:
        csv.writer(file, **style).writerows(rows)


@pytest.mark.parametrize("units", [["(s)", "(m)", "(m)", "(K)"], ["s", "m", "m", "K"], ["[s]", "1", "", "[ K ]"]])
def test_a_line_of_units_below_the_names(tmp_path, units):
    rows = [[t, x, y, heat(x, y, t)] for t in T for x in X for y in Y]
    write_rows(tmp_path / "a.csv", [["time", "x", "y", "T"], units, *rows])
    one, about = read(tmp_path, "a.csv")
    require_heat(one)
    assert about.units == ("K",)


def test_a_first_row_without_its_value_is_no_line_of_units(tmp_path):
    rows = [[t, x, t + x] for t in (1, 2, 3) for x in (2, 3)]
    write_rows(tmp_path / "a.csv", [["time", "x", "T"], [1, 1, "NA"], *rows])
    assert describe(tmp_path / "a.csv")[2] == ("rows", "7")
    assert read(tmp_path, "a.csv")[0].u.shape == (3, 2, 1)


def places(tmp_path):
    write_rows(tmp_path / "places.csv", [["station", "lon", "lat"], ["P0", 8, 50], ["P1", 9, 51]])
    return str(tmp_path / "places.csv")


@pytest.mark.parametrize("dates", ["%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d/%m/%Y %H:%M", "%Y-%m-%d %I:%M:%S %p"])
def test_dates_of_spreadsheets_and_a_wide_table_with_units(tmp_path, dates):
    moments = [np.datetime64("2024-01-11T00") + k * np.timedelta64(6, "h") for k in range(12)]
    rows = [[moment.item().strftime(dates), f"{k:.1f}", f"{-k:.1f}"] for k, moment in enumerate(moments)]
    write_rows(tmp_path / "a.csv", [["Date", "P0", "P1"], ["", "°C", "°C"], *rows])
    one, about = read(tmp_path, "a.csv", stations=places(tmp_path))
    assert about.units == ("°C",) and about.time_units == "hours since 1970-01-01"
    np.testing.assert_array_equal(one.t, [(moment - np.datetime64("1970-01-01")) / np.timedelta64(1, "h")
                                          for moment in moments])
    np.testing.assert_array_equal(np.sort(one.u[..., 0].numpy() if hasattr(one.u, "numpy") else one.u[..., 0], 1)[:, 1],
                                  np.arange(12))


def test_dates_of_which_day_or_month_may_be_first_are_refused(tmp_path):
    write_rows(tmp_path / "a.csv", [["time", "x", "u"], ["01/02/2024", 0, 1], ["02/02/2024", 0, 2]])
    with pytest.raises(UserError, match="do not show whether days or months come first"):
        read(tmp_path, "a.csv")


def test_a_logger_of_campbell(tmp_path):
    toa5(tmp_path / "a.dat")
    with pytest.warns(UserWarning, match="RECORD is not a station"):
        one, about = read(tmp_path, "a.dat", stations=places(tmp_path))
    assert about.units == ("Deg C",) and np.isnan(np.asarray(one.u)).sum() == 1
    assert float(np.nanmax(np.asarray(one.u))) == 7.5


def test_vectors_of_davis_in_numbered_files_zeros_are_none(tmp_path):
    for k in range(4):
        davis(tmp_path / f"B{k + 1:05d}.txt", k, X, Y)
    with pytest.warns(UserWarning, match="numbers at the end of their names"):
        one, about = read(tmp_path, *(f"B{k + 1:05d}.txt" for k in range(4)))
    assert about.channels == ("u", "v") and about.units == ("m/s", "m/s") and one.x.shape == (34, 2)
    np.testing.assert_allclose(one.u[2], np.stack([2 + one.x[:, 0], one.x[:, 1] - 2], -1), atol=1e-4)
    damaged = (tmp_path / "B00001.txt").read_text().replace("\t", "", 1)
    (tmp_path / "damaged.txt").write_text(damaged.replace("1.000000", "1.0-2.0", 1))
    with pytest.raises(UserError, match=r"damaged\.txt"):
        read(tmp_path, "damaged.txt")


@pytest.mark.parametrize("more", [0, 90])
def test_a_gauge_of_the_usgs(tmp_path, more):
    head = ["# Some of the data that you have obtained from this U.S. Geological Survey database", "#",
            *["#   a further remark, of which there may be more than are looked at"] * more]
    rows = [f"USGS\t01646500\t2024-01-01 {hour:02d}:00\tUTC\t{5000 + hour}\tP" for hour in range(24)]
    (tmp_path / "a.rdb").write_text("\n".join([*head, "agency_cd\tsite_no\tdatetime\ttz_cd\t1_00060\t1_00060_cd",
                                               "5s\t15s\t20d\t6s\t14n\t10s", *rows]) + "\n")
    with pytest.warns(UserWarning, match="a series at a single place"):
        one, about = read(tmp_path, "a.rdb")
    assert about.channels == ("1_00060",) and describe(tmp_path / "a.rdb")[1] == ("format", "RDB")
    np.testing.assert_array_equal(one.u[:, 0, 0], 5000 + np.arange(24))


def test_numbers_without_names_are_told(tmp_path):
    (tmp_path / "a.txt").write_text("0.0 1.0 2.0\n1.0 2.0 3.0\n")
    with pytest.raises(UserError, match="begins with numbers"):
        read(tmp_path, "a.txt")


@pytest.mark.parametrize("names", [["x-coordinate", "y-coordinate"], ["X Location (m)", "Y Location (m)"],
                                   ["X [m]", "Y [m]"], ["x_km", "y_km"]])
def test_places_as_solvers_call_them(tmp_path, names):
    rows = [[t, x, y, heat(x, y, t)] for t in T for x in X for y in Y]
    write_rows(tmp_path / "a.csv", [["time", *names, "T"], *rows])
    one, about = read(tmp_path, "a.csv")
    require_heat(one)
    assert about.coordinates == tuple(names)


def comsol(separator):
    head = "% Model:    heat.mph\n% Version:  COMSOL 6.1\n% Date:  \"May 3 2024, 10:12\"\n% Dimension:  2\n% x"
    if separator == ",":
        head = head.replace(":  ", ",").replace(":", ",", 0)
    columns = [f"{name} @ t={t:g}" for t in T for name in ("T (K)", "spf.U (m/s)")]
    between = separator if separator == "," else "      "
    rows = [between.join([f"{x:.9g}", f"{y:.9g}", *(f"{v:.9g}" for t in T for v in (heat(x, y, t), x * t))])
            for x in X for y in Y]
    return between.join([head, "y", *columns]) + "\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("separator", [" ", ","])
def test_exports_of_comsol(tmp_path, separator):
    (tmp_path / "a.txt").write_text(comsol(separator))
    one, about = read(tmp_path, "a.txt")
    require_heat(one)
    assert about.channels == ("T", "spf.U") and about.units == ("K", "m/s") and about.coordinates == ("x", "y")
    np.testing.assert_allclose(one.u[..., 1], T[:, None] * one.x[:, 0], atol=1e-6)


def test_exports_of_comsol_that_are_cut_off_or_of_no_time(tmp_path):
    (tmp_path / "a.txt").write_text(comsol(" ")[:-20])
    with pytest.raises(UserError, match="cannot be read|columns"):
        read(tmp_path, "a.txt")
    (tmp_path / "b.txt").write_text("% Model: a.mph\n% Dimension: 1\n% x   T (K)\n0 1\n1 2\n")
    with pytest.raises(UserError, match="is of no time"):
        read(tmp_path, "b.txt")


@pytest.mark.parametrize("packing", ["POINT", "BLOCK"])
def test_zones_of_tecplot_with_their_times(tmp_path, packing):
    pytest.importorskip("meshio")
    y, x = (part.ravel() for part in np.meshgrid(Y, X, indexing="ij"))
    text = 'TITLE = "heat"\nVARIABLES = "X" "Y" "T"\n'
    for t in T:
        table = np.stack([x, y, heat(x, y, t)])
        numbers = "\n".join(" ".join(f"{v:.9g}" for v in row) for row in (table if packing == "BLOCK" else table.T))
        text += f'ZONE T="t {t}", I={len(X)}, J={len(Y)}, DATAPACKING={packing}, STRANDID=1, SOLUTIONTIME={t}\n'
        text += numbers + "\n"
    (tmp_path / "a.dat").write_text(text)
    one, _ = read(tmp_path, "a.dat")
    require_heat(one)
    (tmp_path / "b.dat").write_text(text[:-20])
    with pytest.raises(UserError, match=r"b\.dat"):
        read(tmp_path, "b.dat")


@pytest.mark.parametrize(("text", "advice"), [
    ("$MeshFormat\n4.1 0 8\n$EndMeshFormat\n", "Gmsh"), ("ITEM: TIMESTEP\n0\n", "LAMMPS"),
    ("2\ncomment\nAr 0.0 1.0 2.0\nAr 1.0 1.0 2.0\n", "XYZ")])
def test_files_that_are_named_with_what_to_do(tmp_path, text, advice):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=f"{advice}.*write"):
        read(tmp_path, "a.txt")


def test_profiles_of_floats_are_rows_without_values_flagged_bad(tmp_path):
    argo(tmp_path / "a.nc")
    argo(tmp_path / "b.nc", 0.5)
    with pytest.warns(UserWarning, match="10 values with flags 3, 4 or 9"):
        one, about = read(tmp_path, "a.nc", "b.nc")
    assert about.channels == ("TEMP",) and about.coordinates == ("LONGITUDE", "LATITUDE", "PRES")
    assert about.units == ("degree_Celsius",) and len(one.t) == 18
    seen = np.isfinite(np.asarray(one.u[..., 0]))
    number = np.floor((np.asarray(one.t) / 24 + 7305) - 26000 + 1e-6)  # days from 1950 to 1970
    wanted = 20 * np.exp(-np.asarray(one.x)[..., 2] / 300) + 0.1 * number[:, None]
    np.testing.assert_allclose(np.asarray(one.u[..., 0])[seen], wanted[seen], atol=1e-4)
    assert seen.sum() == 2 * (9 * 12 - 10)
    with xarray.open_dataset(tmp_path / "a.nc", decode_times=False) as file:
        words = {name: file[name].values.view(f"S{file.sizes['N_LEVELS']}")[:, 0] for name in ("PRES_QC", "TEMP_QC")}
        file.assign({name: ("N_PROF", own) for name, own in words.items()}).to_netcdf(tmp_path / "c.nc")
    again = read(tmp_path, "c.nc")[0]  # a word of flags for each profile
    np.testing.assert_array_equal(again.u, read(tmp_path, "a.nc")[0].u)


def test_an_axis_of_dates_of_another_name_is_that_of_times(tmp_path):
    roms(tmp_path / "a.nc")
    one, about = read(tmp_path, "a.nc", channels=["zeta"])
    np.testing.assert_array_equal(one.t, [0, 3600, 7200])
    assert about.time_units == "seconds since 2010-01-01"


def test_sweeps_of_radars_are_named(tmp_path):
    xarray.Dataset(attrs={"Conventions": "Cf/Radial"}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.attrs["Conventions"] = np.bytes_("ODIM_H5/V2_3")
        file.create_group("dataset1")
    for name in ("a.nc", "b.h5"):
        with pytest.raises(UserError, match=r"sweeps of a radar.*grid of x and y"):
            describe(tmp_path / name)
            read(tmp_path, name)


@pytest.mark.parametrize("indexing", ["xy", "ij"])
def test_matrices_of_places_in_matlab(tmp_path, indexing):
    x, y = np.meshgrid(X, Y, indexing=indexing)
    values = np.stack([heat(x, y, t) for t in T], -1)
    scipy.io.savemat(tmp_path / "a.mat", {"time": T, "X": x, "Y": y, "T": values})
    require_heat(read(tmp_path, "a.mat")[0])


def test_cells_of_arrays_are_trajectories(tmp_path):
    x, y = np.meshgrid(X, Y, indexing="ij")
    cells = np.empty((1, 3), object)
    for k in range(3):
        cells[0, k] = np.stack([(k + 1) * heat(x, y, t) for t in T], -1)
    scipy.io.savemat(tmp_path / "a.mat", {"t": T, "x": X, "y": Y, "runs": cells})
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:
        for name, vector in (("t", T), ("x", X), ("y", Y)):
            file[name] = vector[:, None]
        for k in range(3):
            file[f"#refs#/{k}"] = cells[0, k].T
        file["runs"] = np.array([[file[f"#refs#/{k}"].ref] for k in range(3)], h5py.ref_dtype)
    with (tmp_path / "b.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    for name in ("a.mat", "b.mat"):
        convert(tmp_path / name, tmp_path / "a.h5", overwrite=True)
        with TrajectoryFile(tmp_path / "a.h5") as file:
            assert file.trajectories == 3
            require_heat(file.read(0))
            np.testing.assert_allclose(file.read(2).u, 3 * np.asarray(file.read(0).u), rtol=1e-6)


def test_films_and_what_may_be_one(tmp_path):
    film = np.random.default_rng(0).integers(0, 255, (9, 6, 8, 3)).astype(np.uint8)
    for name, array in (("grey", film[..., 0]), ("colours", film), ("floats", film[..., 0] / 7)):
        np.save(tmp_path / f"{name}.npy", array)
    with pytest.warns(UserWarning, match="has no"):
        one, about = read(tmp_path, "colours.npy")
        np.testing.assert_array_equal(one.u, film.reshape(9, 48, 3))
        assert about.channels == ("u0", "u1", "u2")
        np.testing.assert_array_equal(read(tmp_path, "grey.npy")[0].u[..., 0], film[..., 0].reshape(9, 48))
    with pytest.warns(UserWarning, match=r"points of 9 trajectories of 6 frames \(of one by coordinates=\[x,y\]\)"):
        read(tmp_path, "floats.npy")
    with pytest.warns(UserWarning, match="has no"):
        assert read(tmp_path, "floats.npy", coordinates=["x", "y"])[0].u.shape == (9, 48, 1)


@pytest.mark.parametrize(("first", "words"), [("2023-10-28T00", "2023-10-29T02:00 comes twice"),
                                              ("2024-03-30T00", "2024-03-31T02:00 has no row")])
def test_times_that_look_local_are_told(tmp_path, first, words):
    pandas = pytest.importorskip("pandas")
    utc = pandas.date_range(first, periods=60, freq="h", tz="UTC")
    for name, stamps in (("local", utc.tz_convert("Europe/Berlin").tz_localize(None)), ("utc", utc)):
        frame = pandas.DataFrame({"time": stamps, "x": 0.0, "u": np.arange(60.0)})
        pandas.concat([frame, frame.assign(x=1.0)]).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.warns(UserWarning, match=words):
        read(tmp_path, "local.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path, "utc.csv")


def test_exports_of_cfx_are_tables_whose_blocks_are_told_apart(tmp_path):
    places = np.random.default_rng(2).uniform(0, 0.5, (9, 2))
    for t in T:
        rows = "\n".join(f"{x:.8e}, {y:.8e}, {0:.8e}, {heat(x, y, t):.8e}" for x, y in places)
        (tmp_path / f"cfx_{t}.csv").write_text(
            f"\n[Name]\nPlane 1\n\n[Data]\nX [ m ], Y [ m ], Z [ m ], Temperature [ K ]\n{rows}\n\n[Faces]\n0, 1, 2\n")
    with pytest.warns(UserWarning, match="numbers at the end of their names"):
        one, about = read(tmp_path, *(f"cfx_{t}.csv" for t in T))
    require_heat(one)
    assert about.coordinates == ("X [ m ]", "Y [ m ]") and about.units == ("K",)
