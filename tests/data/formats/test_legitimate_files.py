"""Files that are a little unusual and right: what observations take is what training takes, and nothing is silent."""

import warnings

import meshio
import numpy as np
import pandas
import pytest
import torch
import xarray
from scipy.io import savemat

from inrflow.data.formats.columns import Grid
from inrflow.data.formats.continued import on_grid
from inrflow.data.formats.convert import convert
from inrflow.data.formats.inspect import describe
from inrflow.data.formats.tables import PointTable, read_observations, read_points, write_points
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.observations import Observations

X = np.linspace(0, 1, 7)


def read(path, folder, **options):
    """The first trajectory of a file, and what is known of all."""
    convert(path, folder / "read.h5", overwrite=True, **options)
    with TrajectoryFile(folder / "read.h5") as file:
        return file.read(0), file.description, file.parameters


def observed_alike(path, folder, **options):
    """Whether observations of a file have the times and values that training has of it."""
    frames, about, _ = read(path, folder, **options)
    found = read_observations(path, about, read=options)[0].frames()
    np.testing.assert_array_equal(found.t, frames.t)
    np.testing.assert_array_equal(np.sort(found.u, axis=1), np.sort(frames.u, axis=1))
    return about


def test_steps_of_a_forecast_have_their_valid_times_in_training_and_in_observations(tmp_path):
    step = np.arange(4) * np.timedelta64(6, "h").astype("timedelta64[ns]")
    begun = np.datetime64("2024-01-01", "ns")
    values = np.random.default_rng(0).normal(size=(2, 4, 3, 7))
    data = xarray.Dataset({"z": (("number", "step", "latitude", "longitude"), values)}, {
        "number": [0, 1], "step": step, "latitude": [60.0, 0, -60], "longitude": 50 * np.arange(7), "time": begun,
        "valid_time": ("step", begun + step)})
    data.to_netcdf(tmp_path / "members.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # all rows would repeat the time at which the forecast began
        about = observed_alike(tmp_path / "members.nc", tmp_path)
        table = read_points(tmp_path / "members.nc", about)
    assert sorted(read_observations(tmp_path / "members.nc", about)) == [0, 1] and len(np.unique(table.t)) == 4


def test_flags_are_left_out_and_named(tmp_path):
    data = xarray.Dataset({"sst": (("time", "x"), np.ones((3, 7))), "mask": (("time", "x"), np.ones((3, 7), np.int8), {
        "flag_values": np.array([1, 2], np.int8), "flag_meanings": "water land"})},
        {"time": ("time", np.arange(3.0)), "x": X})
    data.to_netcdf(tmp_path / "a.nc")
    with pytest.warns(UserWarning, match="mask holds flags and is left out"):
        assert read(tmp_path / "a.nc", tmp_path)[1].channels == ("sst",)
    assert read(tmp_path / "a.nc", tmp_path, channels=["mask"])[1].channels == ("mask",)
    rows = "".join(f"{t},{x},{k},{t + x},{9 * (k % 2)},\n" for t in range(3) for k, x in enumerate(X))
    (tmp_path / "a.csv").write_text("time,x,drifter,T,T_qc,flag\n" + rows)
    with pytest.warns(UserWarning, match="drifter, T_qc, flag hold text, numbers of stations or flags"):
        assert read(tmp_path / "a.csv", tmp_path)[1].channels == ("T",)


def test_tables_that_pandas_numbers_by_dates(tmp_path):
    dates = pandas.date_range("2024-01-01", periods=4, freq="h", tz="Europe/Berlin")
    table = pandas.DataFrame({"x": np.tile([0.0, 1.0], 4), "p": np.arange(8.0), "ok": [True, False] * 4},
                             pandas.DatetimeIndex(np.repeat(dates, 2), name="stamp"))
    table.to_parquet(tmp_path / "named.parquet")
    table.rename_axis(None).to_parquet(tmp_path / "unnamed.parquet")
    for name in ("named", "unnamed"):
        with pytest.warns(UserWarning, match="ok holds text, numbers of stations or flags"):
            frames, about, _ = read(tmp_path / f"{name}.parquet", tmp_path)
        assert frames.t.tolist() == [473350.0 + k for k in range(1, 5)] and about.channels == ("p",)
        assert read_observations(tmp_path / f"{name}.parquet", about)[0].frames().t.tolist() == frames.t.tolist()
    given = Observations.from_dataframe(table, ["p"], ["x"], "stamp").frames()
    assert given.t.tolist() == frames.t.tolist() and given.u[:, 0, 0].tolist() == [0, 2, 4, 6]


def test_a_slash_in_the_name_of_times_of_a_wide_table(tmp_path):
    (tmp_path / "places.csv").write_text("id,lon,lat\nA,1,2\nB,3,4\n")
    (tmp_path / "wide.csv").write_text("Date/Time,A,B\n2024-01-01 00:00,1,2\n2024-01-01 01:00,3,4\n")
    for options in ({}, {"time": "Date/Time"}):
        frames, about, _ = read(tmp_path / "wide.csv", tmp_path, stations=str(tmp_path / "places.csv"),
                                channels=["temp"], **options)
        assert len(frames.t) == 2 and about.channels == ("temp",)


def test_a_temperature_of_paraview_is_no_time(tmp_path):
    for k in range(3):
        rows = "".join(f"{300 + k + x},{x},0,0\n" for x in X)
        (tmp_path / f"export_{k}.csv").write_text('"T","Points:0","Points:1","Points:2"\n' + rows)
    with pytest.warns(UserWarning, match="no column of times"):
        frames, about, _ = read(tmp_path / "export_*.csv", tmp_path)
    assert about.channels == ("T",) and frames.t.tolist() == [0, 1, 2]
    np.testing.assert_allclose(frames.u[:, 0, 0], [300, 301, 302])


@pytest.mark.parametrize("kind", ["vtu", "csv", "npy"])
def test_a_pattern_is_observations_too(kind, tmp_path):
    for k in range(3):
        path = tmp_path / f"out_{k}.{kind}"
        if kind == "vtu":
            cells = np.stack([np.arange(5), np.arange(1, 6), np.arange(2, 7)], 1)
            own = {"vtkGhostType": 0 * X, "GlobalNodeId": X}
            meshio.Mesh(np.c_[X, X**2, 0 * X], [("triangle", cells)], {"c": X + k} | own).write(path)
        elif kind == "csv":
            path.write_text("time,x,c\n" + "".join(f"{k},{x},{x + k}\n" for x in X))
        else:
            np.save(path, np.random.default_rng(k).normal(size=(1, 4, 7)))  # further trajectories
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames, about, _ = read(tmp_path / f"out_*.{kind}", tmp_path)
        found = read_observations(tmp_path / f"out_*.{kind}", about)
        points = read_points(tmp_path / f"out_*.{kind}", about)
    np.testing.assert_array_equal(found[0].frames().u, frames.u)
    assert len(found) == (3 if kind == "npy" else 1) and len(points) == (84 if kind == "npy" else 21)
    assert about.channels == (("u",) if kind == "npy" else ("c",))


def test_fields_of_cells_beside_those_of_nodes_are_named(tmp_path):
    meshio.Mesh(np.c_[X, X**2, 0 * X], [("triangle", np.array([[0, 1, 2]]))], {"c": X}, {"p": [np.ones(1)]}).write(
        tmp_path / "a.vtu")
    assert any("c (of nodes; p of cells is left out)" in text for _, text in describe(tmp_path / "a.vtu"))


def test_first_states_say_that_times_are_last(tmp_path):
    """The Burgers set of the Fourier neural operator, with whole solutions: a (S, X), u (S, X, T)."""
    u = np.random.default_rng(0).normal(size=(5, 7, 4))
    savemat(tmp_path / "a.mat", {"a": u[..., 0], "u": u})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames, _, _ = read(tmp_path / "a.mat", tmp_path)
    np.testing.assert_allclose(frames.u[..., 0], u[0].T, rtol=1e-6)


def test_arrays_beside_fields_are_parameters_or_named(tmp_path):
    u, t = np.random.default_rng(0).normal(size=(5, 4, 7)), np.arange(4.0)
    np.savez(tmp_path / "a.npz", t=t, x=X, v=u, kappa=np.arange(5.0), parameters=np.arange(5.0)[:, None])
    with pytest.warns(UserWarning, match=r"kappa \(5,\) is left out; what is known of each trajectory"):
        _, _, parameters = read(tmp_path / "a.npz", tmp_path)
    assert parameters.ravel().tolist() == [0, 1, 2, 3, 4]
    torch.save({"v": torch.tensor(u[:, :, None]), "t": torch.tensor(t), "x": torch.tensor(X)}, tmp_path / "a.pt")
    frames, _, _ = read(tmp_path / "a.pt", tmp_path)  # channels before places, as convolutions have them
    np.testing.assert_allclose(frames.u[..., 0], u[0], rtol=1e-6)


def test_places_that_hold_only_fill_values_stay_empty_in_forecasts(tmp_path):
    u = np.arange(18.0).reshape(3, 6)
    u[:, 4] = 9.96921e36  # as of files without _FillValue
    axes = {"time": np.arange(3.0), "x": np.arange(6.0)}
    xarray.Dataset({"u": (("time", "x"), u)}, axes).to_netcdf(tmp_path / "a.nc")
    with pytest.warns(UserWarning, match="3 of 18 values of u are 9.96921e\\+36"):
        about = read(tmp_path / "a.nc", tmp_path)[1]
    later = on_grid(read_points(tmp_path / "a.nc", about), np.array([3.0, 4.0]), about)
    assert np.flatnonzero(np.isnan(later.x[:, 0])).tolist() == [4, 10]


def test_answers_on_a_mesh_as_netcdf_have_its_points_and_their_own_times(tmp_path):
    cells = [("triangle", np.array([[0, 1, 2], [1, 2, 3]]))]
    entries = []
    for k in range(3):
        meshio.Mesh(np.c_[X, X**2, 0 * X], cells, {"c": X + k}).write(tmp_path / f"{k}.vtu")
        entries.append(f'<DataSet timestep="{k}" file="{k}.vtu"/>')
    (tmp_path / "a.pvd").write_text(f'<VTKFile type="Collection"><Collection>{"".join(entries)}</Collection></VTKFile>')
    about = read(tmp_path / "a.pvd", tmp_path)[1]
    seen = read_points(tmp_path / "a.pvd", about)
    later = on_grid(seen, 3 + np.arange(5.0), about)  # more of them than in the file
    assert later is not None
    for name, table, t in (("seen", seen, [0, 1, 2]), ("later", later, [3, 4, 5, 6, 7])):
        write_points(tmp_path / f"{name}.nc", table, {"c_q50": table.t + table.x[:, 0]}, about)
        with xarray.open_dataset(tmp_path / f"{name}.nc") as data:
            assert data["t"].values.tolist() == t and data["c_q50"].dims == ("t", "point")
            np.testing.assert_array_equal(data["c_q50"], np.add.outer(t, X))
            np.testing.assert_array_equal(data["y"], X**2)
    rows = PointTable(seen.trajectory[:7], seen.t[:7], seen.x[:7], {"t": seen.t[:7]}, Grid(("row",), (7,), {}, {
        "triangles": cells[0][1]}))  # as forecasts are without NetCDF's grid
    write_points(tmp_path / "rows.nc", rows, {"c_q50": rows.t}, about)
    with xarray.open_dataset(tmp_path / "rows.nc") as data:
        assert data["c_q50"].shape == (7,)
