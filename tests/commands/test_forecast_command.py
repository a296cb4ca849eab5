"""`inrflow forecast`: quantiles after the observations, at their places, and scores of what was observed."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

import inrflow
from inrflow.commands.forecast import time_number
from inrflow.data.description import Description
from inrflow.data.formats.tables import read_observations
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError


@pytest.fixture
def seen(tiny_run, tmp_path):
    """Thirty points of two frames, one value of which is off by ten deviations."""
    with TrajectoryFile(tiny_run.test) as file:
        one = file.read(0, slice(0, 2))
    path = tmp_path / "seen.csv"
    x, u = np.asarray(one.x)[:30], np.array(one.u)[:, :30]
    u[1, 7, 0] += 10 * u[..., 0].std()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["t", "x", "y", "u", "v"])
        writer.writerows([t, *x[n], *u[k, n]] for k, t in enumerate(np.asarray(one.t).tolist()) for n in range(30))
    return path, np.asarray(one.t), x


def answers(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


def test_quantiles_are_those_of_the_solution_at_the_observed_places(tiny_run, seen, tmp_path, inrflow_command):
    path, t, x = seen
    target, step = tmp_path / "forecast.csv", t[1] - t[0]
    outcome = inrflow_command("forecast", f"run={tiny_run.run}", f"observations={path}",
                              f"until={t[1] + 2.5 * step}", f"to={target}", "observed=true")
    assert outcome.code == 0, outcome.err
    found = answers(target)
    later = found["t"] > t[1]
    assert later.sum() == 90 and (~later).sum() == 60
    np.testing.assert_allclose(np.unique(found["t"][later]), t[1] + step * np.array([1, 2, 2.5]))
    surrogate = inrflow.Surrogate.load(tiny_run.run)
    solution = surrogate.assimilate(read_observations(path, surrogate.description)[0])
    at = np.stack([found["x"], found["y"]], 1)
    mean, std = solution(found["t"], at), solution.std(found["t"], at)
    np.testing.assert_allclose(found["v_q50"], mean[:, 1], rtol=1e-5, atol=1e-6)
    least = surrogate.normalisation.least.numpy()  # u is an amount
    low, high = (np.maximum(mean + sign * 1.6448536 * std, least) for sign in (-1, 1))
    for name, value in (("q05", low), ("q95", high)):
        np.testing.assert_allclose(found[f"u_{name}"], value[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(solution.quantiles(found["t"], at)[[0, 2]], [low, high], atol=1e-8)
    assert least[0] == 0 and (low[:, 0] == 0).any() and (low >= least).all()
    assert np.isnan(found["u_z_score"][later]).all()
    assert np.nanargmax(np.abs(found["u_z_score"])) == 30 + 7
    assert set(found["extrapolated"]) == {0.0}


def test_scores_of_quiet_observations_count_no_noise_of_training_values(tiny_run, seen, tmp_path, inrflow_command):
    run, target = shutil.copytree(tiny_run.run, tmp_path / "run"), tmp_path / "forecast.csv"
    surrogate = inrflow.Surrogate.load(run)
    surrogate.prior.white = 0.5 * surrogate.prior.noise
    surrogate.save(run)
    outcome = inrflow_command("forecast", f"run={run}", f"observations={seen[0]}", f"until={2 * seen[1][1]}",
                              f"to={target}", "observed=true")
    assert outcome.code == 0, outcome.err
    found, observations = answers(target), read_observations(seen[0], surrogate.description)[0]
    solution = inrflow.Surrogate.load(run).assimilate(observations)
    assert solution.estimate.quieter.all()
    rows = ~np.isnan(found["u_z_score"])
    at = np.stack([found["x"], found["y"]], 1)[rows]
    mean, std = solution(found["t"][rows], at)[:, 0], solution.std(found["t"][rows], at)[:, 0]
    with seen[0].open(newline="") as file:
        values = np.array([float(row["u"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(found["u_z_score"][rows], (values - mean) / std, rtol=1e-4, atol=1e-6)


def test_places_need_no_times_and_are_not_replaced_in_silence(tiny_run, seen, tmp_path, inrflow_command):
    places, target = tmp_path / "places.csv", tmp_path / "forecast.csv"
    told = ("forecast", f"run={tiny_run.run}", f"observations={seen[0]}", "until=5", "every=1", f"points={places}",
            f"to={target}")
    places.write_text("name,x,y\na,0.25,0.5\nb,0.75,0.5\n")
    outcome = inrflow_command(*told)
    assert outcome.code == 0, outcome.err
    found = pandas.read_csv(target)
    assert found["name"][:2].tolist() == ["a", "b"] and set(found["x"]) == {0.25, 0.75}
    places.write_text("name,x,height\na,0.25,0.5\n")
    outcome = inrflow_command(*told, "overwrite=true")
    assert outcome.code == 2 and "lacks y" in outcome.err and len(outcome.err.strip().splitlines()) == 1


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("setting", "words"), [
    ("until=0", "is not after the last observation"), ("until=soon", "is not a time in"),
    ("until=1e9", "larger `every`"), ("every=0", "every=0"), ("to=SEEN", "is an input of this forecast"),
])
def test_what_cannot_be_forecast_is_told(tiny_run, seen, inrflow_command, setting, words):
    until = () if setting.startswith("until") else ("until=5",)
    outcome = inrflow_command("forecast", f"run={tiny_run.run}", f"observations={seen[0]}",
                              setting.replace("SEEN", str(seen[0])), *until)
    assert outcome.code == 2 and words in outcome.err and len(outcome.err.strip().splitlines()) == 1
    assert not Path("outputs").exists()  # the folder of the answer


def test_dates_of_model_calendars_say_what_to_install(monkeypatch):
    about = Description("a", ("u",), ("x",), time_units="days since 2001-01-01 (360_day)")
    assert time_number("until", "2001-02-30", about) == 59
    monkeypatch.setitem(sys.modules, "cftime", None)
    with pytest.raises(UserError, match="pip install cftime"):
        time_number("until", "2001-02-30", about)


def test_a_forecast_on_a_grid_has_no_more_rows_than_others(tiny_run, tmp_path, inrflow_command):
    xarray = pytest.importorskip("xarray")
    axis = np.linspace(0, 1, 4)
    fields = {name: (("time", "x", "y"), np.zeros((2, 4, 4))) for name in "uv"}
    xarray.Dataset(fields, {"time": [0.0, 0.1], "x": axis, "y": axis}).to_netcdf(tmp_path / "seen.nc")
    outcome = inrflow_command("forecast", f"run={tiny_run.run}", f"observations={tmp_path / 'seen.nc'}", "until=1e6",
                              f"to={tmp_path / 'far.nc'}")
    assert outcome.code == 2 and "at 16 places are more than 5000000 rows" in outcome.err


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("settings", "words"), [
    (("until=1000",), "more than 50000 rows (about"), (("until=1e5", "every=0.01"), "more than 5000000 rows (about"),
    (("until=1e9", "every=1e6"), "a forecast reaches"),
])
def test_far_forecasts_are_refused_before_they_are_computed(tiny_run, seen, inrflow_command, monkeypatch, settings,
                                                            words):
    monkeypatch.setattr("inrflow.commands.forecast._columns", None)
    outcome = inrflow_command("forecast", f"run={tiny_run.run}", f"observations={seen[0]}", *settings)
    assert outcome.code == 2 and words in outcome.err and len(outcome.err.strip().splitlines()) == 1


def test_a_forecast_in_pvd_keeps_the_cells_of_the_observed_mesh(tiny_run, tmp_path, inrflow_command):
    meshio, delaunay = pytest.importorskip("meshio"), pytest.importorskip("scipy.spatial").Delaunay
    with TrajectoryFile(tiny_run.test) as file:
        one = file.read(0, [0])
    order = np.random.default_rng(0).permutation(len(one.x))  # nodes of meshes are in no order
    x, u = np.asarray(one.x)[order], np.asarray(one.u)[0, order]
    triangles = delaunay(x).simplices
    nodes = np.column_stack([x, np.zeros(len(x))])
    mesh = meshio.Mesh(nodes, [("triangle", triangles)], {"u": u[:, 0], "v": u[:, 1]},
                       field_data={"TimeValue": np.array([float(one.t[0])])})
    meshio.vtu.write(str(tmp_path / "seen_0.vtu"), mesh)
    entry = f'<DataSet timestep="{one.t[0]}" part="0" file="seen_0.vtu"/>'
    (tmp_path / "seen.pvd").write_text(f'<VTKFile type="Collection"><Collection>{entry}</Collection></VTKFile>')
    outcome = inrflow_command("forecast", f"run={tiny_run.run}", f"observations={tmp_path / 'seen.pvd'}", "until=0.5",
                              f"to={tmp_path / 'forecast.pvd'}")
    assert outcome.code == 0, outcome.err
    files = sorted((tmp_path / "forecast_files").iterdir())
    assert len(files) == 2
    found = meshio.read(files[-1])
    assert np.array_equal(found.cells_dict["triangle"], triangles) and np.array_equal(found.points, nodes)
    surrogate = inrflow.Surrogate.load(tiny_run.run)
    solution = surrogate.assimilate(inrflow.Observations(float(one.t[0]), x, u))
    np.testing.assert_allclose(found.point_data["u_q50"], solution(0.5, x)[:, 0].clip(0), rtol=1e-4, atol=1e-5)


def drifters(path, named=True):
    """Twelve drifters that move at each of six times, and a number that is each drifter's own."""
    random = np.random.default_rng(0)
    x = random.uniform(0, 1, (6, 12, 2)) * 0.01 + random.uniform(0, 1, (12, 2))
    lines = [f"{t},{7100 + k},{a:.5f},{b:.5f},{a - b + 0.1 * t:.5f},{k % 3}"
             for t in range(6) for k, (a, b) in enumerate(x[t].tolist())]
    rows = [line if named else ",".join(line.split(",")[:1] + line.split(",")[2:5]) for line in lines]
    path.write_text("\n".join(["t,drifter,x,y,sst,drogue" if named else "t,x,y,sst", *rows]) + "\n")
    return x


@pytest.mark.usefixtures("unreported")
def test_points_that_move_are_forecast_from_where_each_was_last(tmp_path, inrflow_command):
    x = drifters(tmp_path / "drifters.csv")
    assert inrflow_command("train", f"data.train={tmp_path / 'drifters.csv'}", "data.read.channels=[sst]",
                           "training.minutes=0.02", f"output={tmp_path / 'run'}").code == 0
    told = [f"run={tmp_path / 'run'}", "until=8", "every=1"]
    given = inrflow_command("forecast", *told, f"observations={tmp_path / 'drifters.csv'}", f"to={tmp_path / 'f.csv'}")
    assert given.code == 0, given.err
    found = pandas.read_csv(tmp_path / "f.csv")
    assert list(found) == ["t", "drifter", "x", "y", "drogue", "sst_q05", "sst_q50", "sst_q95", "extrapolated"]
    assert found["t"].tolist() == [6] * 12 + [7] * 12 + [8] * 12
    assert found["drifter"][:12].tolist() == [*range(7100, 7112)]
    np.testing.assert_allclose(found[["x", "y"]][:12], x[-1], atol=1e-5)
    drifters(tmp_path / "nameless.csv", named=False)
    given = inrflow_command("forecast", *told, f"observations={tmp_path / 'nameless.csv'}", f"to={tmp_path / 'g.csv'}")
    assert given.code == 2 and "no column such as drifter or station_id identifies them" in given.err
    (tmp_path / "places.csv").write_text("t,x,y\n0,0.5,0.5\n")
    given = inrflow_command("forecast", *told, f"observations={tmp_path / 'nameless.csv'}", f"to={tmp_path / 'g.csv'}",
                            f"points={tmp_path / 'places.csv'}")
    assert given.code == 0 and len(pandas.read_csv(tmp_path / "g.csv")) == 3
