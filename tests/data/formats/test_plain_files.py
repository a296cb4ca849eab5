"""Files as people have them beside the published layouts: rows in NetCDF, spreadsheets, arrays of other names."""

import shutil
import warnings
from pathlib import Path

import h5py
import meshio
import numpy as np
import pytest
import scipy.io
import torch
import xarray

from inrflow.data.calendar import dates_to_numbers
from inrflow.data.formats.continued import Places
from inrflow.data.formats.convert import convert
from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.data.formats.tables import read_observations, read_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError

RANDOM = np.random.default_rng(0)
T, LON, LAT = np.arange(6.0), np.array([0.0, 2.0, 4.0, 6.0, 8.0]), np.array([40.0, 41.0, 42.0, 43.0, 44.0])
AT_STATIONS = RANDOM.uniform(10, 11, (6, 5)).astype(np.float32)  # times, stations
HOURS = {"units": "hours since 2020-01-01"}
EAST, NORTH = {"units": "degrees_east"}, {"units": "degrees_north"}


def held(source, folder, **options):
    """The first trajectory of a file, its description and the words of warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        convert(source, folder / "data.h5", overwrite=True, **options)
    with TrajectoryFile(folder / "data.h5") as file:
        return file.read(0), file.description, " ".join(str(one.message) for one in told)


def field(values=None, time=None, units=None):
    values = RANDOM.uniform(280, 281, (6, 5, 5)).astype(np.float32) if values is None else values
    return xarray.Dataset({"t2m": (("time", "lat", "lon"), values, {"units": "K"})}, {
        "time": ("time", T if time is None else time, units or HOURS), "lat": ("lat", LAT, NORTH),
        "lon": ("lon", LON, EAST)})


# ---- NetCDF ----

def ragged(indexed=False):
    sizes = {"stationIndex": ("obs", np.repeat(np.arange(5), 6), {"instance_dimension": "station"})} if indexed else \
        {"rowSize": ("station", np.full(5, 6), {"sample_dimension": "obs"})}
    return xarray.Dataset({
        "temp": ("obs", AT_STATIONS.T.ravel(), {"units": "degC"}), "time": ("obs", np.tile(T, 5), HOURS),
        "lon": ("station", LON, EAST), "lat": ("station", LAT, NORTH),
        "station_name": ("station", np.array([f"ST{k}" for k in range(5)], "S3")), **sizes})


def incomplete():
    return xarray.Dataset({
        "temp": (("station", "obs"), AT_STATIONS.T, {"units": "degC"}),
        "time": (("station", "obs"), np.tile(T, (5, 1)), {**HOURS, "standard_name": "time"}),
        "lon": ("station", LON, EAST), "lat": ("station", LAT, NORTH)}, attrs={"featureType": "timeSeries"})


def points():
    return xarray.Dataset({
        "temp": ("obs", AT_STATIONS.ravel(), {"units": "degC"}), "time": ("obs", np.repeat(T, 5), HOURS),
        "lon": ("obs", np.tile(LON, 6), EAST), "lat": ("obs", np.tile(LAT, 6), NORTH)})


@pytest.mark.parametrize("make", [ragged, lambda: ragged(True), incomplete, points],
                         ids=["contiguous", "indexed", "incomplete", "points"])
def test_sampling_geometries_of_cf_are_rows_of_stations(make, tmp_path):
    make().to_netcdf(tmp_path / "stations.nc", engine="h5netcdf")
    frames, about, _ = held(tmp_path / "stations.nc", tmp_path)
    assert (about.channels, about.units, about.time_units) == (("temp",), ("degC",), "hours since 1970-01-01")
    which = ((frames.x[:, None] - lonlat_to_xyz(LON, LAT)) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(frames.u[..., 0], AT_STATIONS[:, which])
    np.testing.assert_array_equal(frames.t - frames.t[0], T)
    seen = read_observations(tmp_path / "stations.nc", about)[0].frames()
    np.testing.assert_array_equal(np.sort(seen.u.ravel()), np.sort(AT_STATIONS.ravel()))


def test_a_ragged_array_that_does_not_add_up_is_refused(tmp_path):
    data = ragged()
    data["rowSize"].values[0] = 9
    data.to_netcdf(tmp_path / "stations.nc", engine="h5netcdf")
    with pytest.raises(UserError, match="rowSize counts 33"):
        held(tmp_path / "stations.nc", tmp_path)


def test_a_series_at_a_single_place_is_read(tmp_path):
    data = xarray.Dataset({"flow": ("time", AT_STATIONS[:, 0])}, {"time": ("time", T, HOURS), "lat": 45.0, "lon": 8.0})
    data.to_netcdf(tmp_path / "series.nc", engine="h5netcdf")
    frames, _, _ = held(tmp_path / "series.nc", tmp_path)
    np.testing.assert_array_equal(frames.u[:, 0, 0], AT_STATIONS[:, 0])
    np.testing.assert_allclose(frames.x, lonlat_to_xyz(np.array([8.0]), np.array([45.0])))


def test_numbers_for_missing_values_in_grids_are_told_and_left_out(tmp_path):
    values = RANDOM.uniform(280, 281, (6, 5, 5)).astype(np.float32)
    values[:, 0, 0] = values[2, 3, 3] = -999.9
    values[1, 1, 1] = 1e20
    field(values).to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding={"t2m": {"_FillValue": None}})
    frames, _, told = held(tmp_path / "a.nc", tmp_path)
    assert "8 of 150 values of t2m are -999.9 or 1e+20" in told
    assert frames.u.shape == (6, 24, 1) and np.isnan(frames.u).sum() == 2 and np.nanmin(frames.u) >= 280
    values[:] = RANDOM.uniform(900, 1100, values.shape)
    values[0, 0, 0] = 999.0  # a pressure among others
    field(values).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    frames, _, told = held(tmp_path / "b.nc", tmp_path)
    assert not np.isnan(frames.u).any() and "missing" not in told


def test_times_in_any_order_are_sorted_and_others_told(tmp_path):
    data = field()
    data.isel(time=[5, 3, 4, 0, 2, 1]).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    frames, _, _ = held(tmp_path / "a.nc", tmp_path)
    np.testing.assert_array_equal(frames.u[..., 0], data["t2m"].values.reshape(6, -1))
    np.testing.assert_array_equal(frames.t, T)
    twice = data.isel(time=[0, 1, 1, 2])
    twice.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    frames, _, told = held(tmp_path / "d.nc", tmp_path)
    assert "1 of 4 frames are there twice" in told
    np.testing.assert_array_equal(frames.u[..., 0], data["t2m"].values[:3].reshape(3, -1))
    twice["t2m"].values[2, 0, 0] += 1
    twice.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(UserError, match="time is 2020-01-01T01:00:00 in the entries 1, 2; .* keep one frame"):
        held(tmp_path / "b.nc", tmp_path)
    field(time=[0.0, 1, 2, np.nan, 4, 5]).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    with pytest.raises(UserError, match="time has no value in entry 3"):
        held(tmp_path / "c.nc", tmp_path)


def test_forecasts_by_steps_have_the_times_they_are_valid_at(tmp_path):
    data = field().rename({"time": "step"}).drop_vars("step").assign_coords(
        time=((), np.datetime64("2020-01-01", "ns")), valid_time=("step", 6 * T, HOURS))
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    frames, about, _ = held(tmp_path / "a.nc", tmp_path)
    assert about.time_units == "hours since 2020-01-01" and frames.t.tolist() == (6 * T).tolist()
    several = xarray.concat([field().rename(time="step")] * 2, xarray.DataArray([0.0, 24.0], dims="time", attrs=HOURS))
    several.assign_coords(time=("time", [0.0, 24.0], HOURS)).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(UserError, match="trajectory=time time=step takes the forecast of each time as a trajectory"):
        held(tmp_path / "b.nc", tmp_path)


def test_variables_in_a_group_and_dimensions_without_values(tmp_path):
    data = field().drop_vars(["lat", "lon"]).rename({"lat": "row", "lon": "column"})
    data.to_netcdf(tmp_path / "a.nc", group="model/run", engine="h5netcdf")
    with pytest.raises(UserError, match=r"coordinates=\[\.\.\.\] \(one without values is numbered\)"):
        held(tmp_path / "a.nc", tmp_path)
    frames, about, _ = held(tmp_path / "a.nc", tmp_path, coordinates=["row", "column"])
    assert about.coordinates == ("row", "column") and frames.x[6].tolist() == [1.0, 1.0]
    seen = read_observations(tmp_path / "a.nc", about, None, {"coordinates": ["row", "column"]})[0].frames()
    np.testing.assert_array_equal(seen.u, frames.u)
    data.to_netcdf(tmp_path / "a.nc", group="other", mode="a", engine="h5netcdf")
    with pytest.raises(UserError, match="groups model/run, other, but only one"):
        held(tmp_path / "a.nc", tmp_path)
    stacked = xarray.concat([field(), field()], xarray.DataArray([500.0, 850.0], dims="plev", name="plev"))
    stacked.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(UserError, match=r"2 entries \(500.0, 850.0\), none with index 500; give an index from 0 to 1"):
        held(tmp_path / "b.nc", tmp_path, select={"plev": 500})


# ---- tables ----

def table(path, number=str, time=lambda hour: f"2024-01-31T{hour:02d}:00", separator=",", before="", station="ST01"):
    lines = [separator.join(["time", "station_id", "x", "heat"])]
    lines += [separator.join([time(hour), station, str(x), number(1000.5 + x + hour)])
              for hour in range(4) for x in range(3)]
    path.write_text(before + "\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


EXPECTED = 1000.5 + np.arange(3.0) + np.arange(4.0)[:, None]


@pytest.mark.parametrize(("number", "separator", "before"), [
    (lambda value: f"{value:,.2f}".translate(str.maketrans(",.", ".,")), ";", ""),
    (lambda value: f'"{value:,.2f}"', ",", ""),
    (str, ";", "sep=;\n"), (str, ",", "\n\n"),
], ids=["1.000,50", "1,000.50", "sep=", "empty lines"])
def test_tables_of_spreadsheets(number, separator, before, tmp_path):
    frames, _, _ = held(table(tmp_path / "a.csv", number, separator=separator, before=before), tmp_path)
    np.testing.assert_allclose(frames.u[..., 0], EXPECTED)


def test_decimal_commas_in_quotes_between_commas(tmp_path):
    frames, _, _ = held(table(tmp_path / "a.csv", lambda value: f'"{value:.2f}"'.replace(".", ",")), tmp_path)
    np.testing.assert_allclose(frames.u[..., 0], EXPECTED)
    _, about, told = held(table(tmp_path / "b.csv", lambda value: f'"0,{value:.0f}"'), tmp_path)
    assert about.channels == ("heat",)


@pytest.mark.parametrize(("names", "cells"), [
    ("Date,Time", lambda hour: f"01/31/2024,{hour + 11 - 12 * (hour > 1)}:00 {'PM' if hour else 'AM'}"),
    ("Datum,Uhrzeit", lambda hour: f"31.01.2024,{hour + 11}:00"),
], ids=["Date, Time", "Datum, Uhrzeit"])
def test_days_and_clocks_in_two_columns_are_times(names, cells, tmp_path):
    path = table(tmp_path / "a.csv", time=cells)
    path.write_text(path.read_text(encoding="utf-8-sig").replace("time,", f"{names},", 1))
    frames, about, _ = held(path, tmp_path)
    assert about.channels == ("heat",) and about.time_units == "hours since 1970-01-01"
    np.testing.assert_allclose(frames.t - frames.t[0], np.arange(4))
    assert frames.t[0] == 474083


def test_forecasts_have_the_times_and_columns_of_tables_that_call_times_otherwise(tmp_path):
    path = table(tmp_path / "a.csv", time=lambda hour: f"31.01.2024 {hour + 11}:00", separator=";")
    text = path.read_text(encoding="utf-8-sig").replace("time;", "Zeitstempel;", 1).replace("\n", ";\n")
    path.write_text(text)
    frames, about, _ = held(path, tmp_path)
    known = Places.of_table(read_points(path, about), about)
    rows = known.rows(frames.t[:1] + 24, known.x[:1], about, 0, False, "text")
    assert {name: values.tolist() for name, values in rows.columns.items()} == {
        "Zeitstempel": ["01.02.2024 11:00"], "station_id": ["ST01"], "x": [0]}


@pytest.mark.parametrize("name", ["ts", "epoch_ms", "unix_time", "Zeitstempel"])
def test_numbers_from_1970_are_times_by_the_names_of_loggers(name, tmp_path):
    path = table(tmp_path / "a.csv", time=lambda hour: str((1706659200 + 3600 * hour) * 1000))
    path.write_text(path.read_text(encoding="utf-8-sig").replace("time,", f"{name},", 1))
    _, about, _ = held(path, tmp_path)
    assert about.time_units == "milliseconds since 1970-01-01" and about.channels == ("heat",)


def test_columns_without_values_are_left_out_and_those_without_names_not_told(tmp_path):
    path = table(tmp_path / "a.csv")
    header, *rows = path.read_text(encoding="utf-8-sig").splitlines()
    path.write_text("\n".join([header + ",rain,", *(row + ",NA," for row in rows)]))
    _, about, told = held(path, tmp_path)
    assert about.channels == ("heat",) and "rain has no values and is left out" in told
    assert "station_id holds text and is left out" in told and "without a name" not in told


@pytest.mark.parametrize(("size", "unit"), [(1, "seconds"), (10**3, "milliseconds"), (10**6, "microseconds")])
def test_times_that_count_from_1970_are_dates(size, unit, tmp_path):
    path = table(tmp_path / "a.csv", time=lambda hour: str((1706659200 + 3600 * hour) * size))
    frames, about, told = held(path, tmp_path)
    assert about.time_units == f"{unit} since 1970-01-01" and about.time_units in told
    assert np.diff(frames.t).tolist() == [3600 * size] * 3
    frames, about, _ = held(table(tmp_path / "b.csv", time=lambda hour: str(100 * hour)), tmp_path)
    assert about.time_units is None  # of a simulation


def test_forecasts_have_the_column_of_times_of_their_table(tmp_path):
    path = table(tmp_path / "a.csv", time=lambda hour: str(1706659200000 + 3600000 * hour))
    frames, about, _ = held(path, tmp_path)
    later = Places.of_table(read_points(path, about), about).rows(
        np.full(3, frames.t[-1] + 3600000), frames.x, about, 0, False, "text")
    assert later.columns["time"].tolist() == [1706659200000 + 3600000 * 4] * 3 and "t" not in later.columns
    path = table(tmp_path / "b.csv", time=lambda hour: f"20240131{hour:02d}")
    _, about, _ = held(path, tmp_path)
    asked = read_points(path, about)
    assert asked.columns["time"].tolist()[::3] == [2024013100 + hour for hour in range(4)]
    later = Places.of_table(asked, about).rows(asked.t[:1] + 4, asked.x[:1], about, 0, False, "text")
    assert later.columns["time"].tolist() == ["2024-01-31T04:00"]


def test_numbers_with_remarks_are_told_not_left_out_as_text(tmp_path):
    path = table(tmp_path / "a.csv", lambda value: "<5" if value == 1001.5 else str(value))
    with pytest.raises(UserError, match="heat is '<5' in row 2 and a number in most others; mend"):
        held(path, tmp_path)
    frames, about, told = held(table(tmp_path / "b.csv", station="12A"), tmp_path)
    assert about.channels == ("heat",) and "station_id holds text" in told


def test_columns_of_which_most_cells_are_empty_hold_text(tmp_path):
    path = table(tmp_path / "a.csv")
    header, *rows = path.read_text(encoding="utf-8-sig").splitlines()
    rows = [row + (",cleaned" if number == 4 else ",") for number, row in enumerate(rows)]
    path.write_text("\n".join([header + ",remarks", *rows]))
    frames, about, told = held(path, tmp_path)
    assert about.channels == ("heat",) and "station_id, remarks hold text and are left out" in told
    np.testing.assert_allclose(frames.u[..., 0], EXPECTED)


@pytest.mark.parametrize("name", ["a.nc", "a.csv", "a.parquet"])
def test_named_coordinates_of_a_sphere_are_degrees(name, tmp_path):
    path, degrees = tmp_path / name, np.stack(np.meshgrid(LON, LAT), -1).reshape(-1, 2)
    table = xarray.Dataset({"u": (("time", "nord", "ost"), RANDOM.uniform(size=(6, 5, 5)).astype(np.float32))},
                           {"time": T, "nord": LAT, "ost": LON})
    rows = table.to_dataframe().reset_index()
    write = {".nc": table.to_netcdf, ".csv": lambda p: rows.to_csv(p, index=False), ".parquet": rows.to_parquet}
    write[path.suffix](path)
    given = {"geometry": "sphere", "coordinates": ["ost", "nord"]}
    frames, about, _ = held(path, tmp_path, **given)
    assert about.geometry == "sphere"
    places = {tuple(np.round(place, 9)): u for place, u in zip(frames.x, frames.u[2, :, 0], strict=True)}
    for place, u in zip(lonlat_to_xyz(*degrees.T), table.u.values[2].ravel(), strict=True):
        assert places[tuple(np.round(place, 9))] == u
    seen = read_observations(path, about, read=given)[0].frames()
    np.testing.assert_allclose(seen.x[np.lexsort(seen.x.T)], frames.x[np.lexsort(frames.x.T)], atol=1e-12)
    np.testing.assert_allclose(read_points(path, about, read=given).x[:25].sum(0), frames.x.sum(0), atol=1e-9)


@pytest.mark.parametrize("name", ["a.nc", "a.csv"])
def test_lengths_in_several_units_are_not_taken_as_one(name, tmp_path):
    def write(across, other="y"):
        values = RANDOM.uniform(size=(6, 5, 5)).astype(np.float32)
        data = xarray.Dataset({"u": (("time", other, "x"), values)}, {
            "time": T, "x": ("x", LON, {"units": "km"}), other: (other, LAT, {"units": across})})
        path = tmp_path / name
        if name == "a.nc":
            data.to_netcdf(path)
        else:
            data.to_dataframe().reset_index().rename(columns={"x": "x (km)", other: f"{other} ({across})"}).to_csv(
                path, index=False)
        return path

    with pytest.raises(UserError, match=r" in k?m and [xy].* in k?m, .*write these in one unit"):
        held(write("m"), tmp_path)
    assert len(held(write("km"), tmp_path)[1].coordinates) == 2
    assert len(held(write("m", "z"), tmp_path)[1].coordinates) == 2  # a section, with heights in their own unit


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.bz2"])
def test_archives_are_named_with_what_to_do(suffix, tmp_path):
    table(tmp_path / "a.csv")
    kind = {"zip": "zip", "tar": "tar", "tar.bz2": "bztar"}[suffix]
    path = Path(shutil.make_archive(str(tmp_path / "packed" / "all"), kind, tmp_path, "a.csv"))
    with pytest.raises(UserError, match="a file of zip, tar or the like, which is not read; unpack it"):
        held(path, tmp_path)


def test_dates_with_and_without_zones_are_told():
    with pytest.warns(UserWarning, match="some dates have a zone .* taken as UTC"):
        dates_to_numbers(["2024-01-31T18:00+01:00", "2024-01-31T19:00"], "hours since 2024-01-31")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dates_to_numbers(["2024-01-31T18:00Z", "2024-01-31T18:00+01:00", ""], "hours since 2024-01-31")


# ---- arrays and meshes ----

def test_arrays_of_other_names_are_found_by_their_sizes(tmp_path):
    u, t, lon, lat = RANDOM.random((3, 7, 6, 5)), np.arange(7.0), np.arange(6.0), np.arange(5.0)
    np.savez(tmp_path / "a.npz", T=u[0], time=t, xc=lon, yc=lat)
    frames, about, told = held(tmp_path / "a.npz", tmp_path)
    assert about.coordinates == ("xc", "yc") and not told
    np.testing.assert_array_equal(frames.u[..., 0], u[0].reshape(7, -1).astype(np.float32))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["heat"], file["time"], file["lon"], file["lat"] = u, t, lon, lat
    frames, about, _ = held(tmp_path / "a.h5", tmp_path)
    assert about.coordinates == ("lon", "lat") and frames.x[1].tolist() == [0.0, 1.0]
    seen = read_observations(tmp_path / "a.h5", about)
    np.testing.assert_array_equal(seen[2].frames().u[..., 0], u[2].reshape(7, -1).astype(np.float32))
    scipy.io.savemat(tmp_path / "a.mat", {"tt": 0.1 * t, "x": lon, "uu": (u[0, ..., 0] + 2j * u[0, ..., 1]).T})
    frames, about, _ = held(tmp_path / "a.mat", tmp_path)  # Schroedinger's equation
    assert about.channels == ("uu_re", "uu_im") and frames.t[1] == pytest.approx(0.1)
    np.testing.assert_allclose(frames.u, np.stack([u[0, ..., 0], 2 * u[0, ..., 1]], -1), rtol=1e-6)
    torch.save(torch.tensor(u).bfloat16(), tmp_path / "a.pt")
    np.testing.assert_allclose(held(tmp_path / "a.pt", tmp_path)[0].u[..., 0], u[0].reshape(7, -1), atol=4e-3)


def test_fields_beside_an_array_of_points_are_over_these(tmp_path):
    x, velocity, pressure = RANDOM.random((20, 2)), RANDOM.random((20, 2, 7)), RANDOM.random((20, 7))
    scipy.io.savemat(tmp_path / "wake.mat", {"U_star": velocity, "X_star": x, "p_star": pressure, "t": np.arange(7.0)})
    frames, about, _ = held(tmp_path / "wake.mat", tmp_path)
    assert about.channels == ("U_star0", "U_star1", "p_star") and about.coordinates == ("x", "y")
    np.testing.assert_array_equal(frames.x, x)
    np.testing.assert_allclose(frames.u, np.concatenate([velocity, pressure[:, None]], 1).transpose(2, 0, 1), rtol=1e-6)


def test_places_and_times_of_arrays_beside_parameters(tmp_path):
    u = RANDOM.normal(size=(3, 6, 9))
    np.savez(tmp_path / "a.npz", solution=u, xcoord=np.linspace(0, 2, 9), tcoord=0.5 * T, nu=[0.1, 0.2, 0.3])
    frames, about, _ = held(tmp_path / "a.npz", tmp_path)
    assert about.coordinates == ("xcoord",)
    np.testing.assert_allclose(frames.t, 0.5 * T)
    np.testing.assert_allclose(frames.x[:, 0], np.linspace(0, 2, 9))
    np.testing.assert_allclose(frames.u[..., 0], u[0], rtol=1e-6)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        run = file.create_group("simulation/run_1")
        run["velocity"], run["position"], run["time"] = RANDOM.normal(size=(6, 9, 2)), RANDOM.uniform(size=(9, 2)), T
        places = run["position"][()]
    frames, about, _ = held(tmp_path / "b.h5", tmp_path)
    assert about.channels == ("velocity0", "velocity1")
    np.testing.assert_allclose(frames.x, places)


def test_what_is_joined_in_netcdf_and_what_lies_at_one_place(tmp_path):
    places = {"lon": ("node", LON, EAST), "lat": ("node", LAT, NORTH)}
    parts = [xarray.Dataset({"temp": (("time", "node"), AT_STATIONS[part]), **places},
                            {"time": ("time", T[part], HOURS)}) for part in (slice(0, 4), slice(3, 6))]
    xarray.concat(parts, "time", data_vars="all").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    frames, about, told = held(tmp_path / "a.nc", tmp_path)
    assert about.channels == ("temp",) and frames.u.shape == (6, 5, 1) and "1 of 7 frames" in told
    xarray.Dataset({"temp": (("time", "depth"), AT_STATIONS)}, {
        "time": ("time", [f"2020-01-01T0{k}:00:00Z" for k in range(6)]), "depth": ("depth", LON), "lat": 45.0,
        "lon": 8.0}).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    frames, about, _ = held(tmp_path / "b.nc", tmp_path)
    assert about.coordinates == ("depth",) and about.time_units.startswith("hours since")
    np.testing.assert_allclose(np.diff(frames.t), 1)
    np.testing.assert_array_equal(frames.u[..., 0], AT_STATIONS)


def test_coordinates_of_outer_groups_are_those_of_fields_in_a_group(tmp_path):
    netcdf4 = pytest.importorskip("netCDF4")
    data = field()
    with netcdf4.Dataset(tmp_path / "groups.nc", "w") as file:
        for name in ("time", "lat", "lon"):
            file.createDimension(name, data.sizes[name])
            variable = file.createVariable(name, "f8", (name,))
            variable[:], variable.units = data[name].values, data[name].attrs["units"]
        file["time"].units = "hours since 2020-01-01 00:00:0.0"
        inner = file.createGroup("forecast/surface")
        inner.createVariable("t2m", "f4", ("time", "lat", "lon"))[:] = data["t2m"].values
        inner.createVariable("members", file.createVLType("f4", "list"), ("time",))
        clouds = file.createEnumType("u1", "clouds", {"clear": 0, "cloudy": 1})
        inner.createVariable("mask", clouds, ("time", "lat", "lon"))[:] = np.zeros((6, 5, 5), np.uint8)
        file.createGroup("forecast/notes").createVariable("run", "i4", ())[:] = 1
    frames, about, told = held(tmp_path / "groups.nc", tmp_path)
    assert about.channels == ("t2m",) and about.geometry == "sphere" and "mask holds flags" in told
    assert frames.t.tolist() == T.tolist() and about.time_units == "hours since 2020-01-01 00:00:0.0"
    np.testing.assert_array_equal(frames.u[..., 0], data["t2m"].values.reshape(6, -1))


def test_years_are_times(tmp_path):
    field(units={"units": "years since 1999-01-01"}).to_netcdf(tmp_path / "years.nc")
    frames, about, _ = held(tmp_path / "years.nc", tmp_path)
    assert about.time_units == "days since 1999-01-01" and frames.t.tolist() == [0, 365, 731, 1096, 1461, 1826]


def test_zarr_arrays_in_a_group_and_dimensions_without_values(tmp_path):
    pytest.importorskip("zarr")
    members = field().expand_dims(ensemble_member=2).rename(lat="y", lon="x").drop_vars(["time", "y", "x"])
    members.to_zarr(tmp_path / "a.zarr", group="run/atmosphere", zarr_format=2)
    frames, about, _ = held(tmp_path / "a.zarr", tmp_path, time="time", coordinates=["y", "x"])
    assert about.coordinates == ("y", "x") and frames.t.tolist() == T.tolist()
    with TrajectoryFile(tmp_path / "data.h5") as file:
        assert file.trajectories == 2
    members.to_zarr(tmp_path / "a.zarr", group="run/ocean", zarr_format=2)
    with pytest.raises(UserError, match="the groups run/atmosphere, run/ocean.*give the folder of one"):
        held(tmp_path / "a.zarr", tmp_path)


def test_arrays_of_structures_of_matlab_are_named(tmp_path):
    runs = np.array([(np.eye(3),), (np.eye(3),)], [("u", object)])
    scipy.io.savemat(tmp_path / "a.mat", {"data": runs, "t": np.arange(3.0)})
    with pytest.raises(UserError, match=r"data \(no numbers\)"):
        held(tmp_path / "a.mat", tmp_path)


def test_cells_of_curved_sides_surfaces_and_boundaries(tmp_path):
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5], [0.5, 0.5]], float)
    flat, raised = (np.column_stack([square, z]) for z in (np.zeros(9), square.sum(1) ** 2))
    six, line = ("triangle6", np.array([[0, 1, 2, 4, 5, 8], [0, 2, 3, 8, 6, 7]])), ("line", np.array([[0, 4], [4, 1]]))
    for name, places, cells in (("six", flat, [six, line]), ("surface", raised, [six]),
                                ("eight", flat, [("quad8", np.arange(8)[None])])):
        for step in range(2):
            meshio.Mesh(places, cells, {"heat": step + places[:, 0]}).write(tmp_path / f"{name}_{step}.vtu")
        held(str(tmp_path / f"{name}_*.vtu"), tmp_path)
        with TrajectoryFile(tmp_path / "data.h5") as file:
            corners = file.read(0).x[file.cells]
        first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        sides = np.column_stack([first, np.zeros(len(first))]) if first.shape[1] == 2 else first
        others = np.column_stack([second, np.zeros(len(second))]) if first.shape[1] == 2 else second
        area = 0.5 * np.linalg.norm(np.cross(sides, others), axis=1).sum()
        assert area > 1.5 if name == "surface" else area == pytest.approx(1.0)
    for step in range(2):
        meshio.Mesh(flat + step, [six], {"heat": flat[:, 0]}).write(tmp_path / f"moves_{step}.vtu")
    with pytest.raises(UserError, match="points that move from file to file are not read"):
        held(str(tmp_path / "moves_*.vtu"), tmp_path)
