"""`inrflow next` and `inrflow update`: places of new sensors, a run that grows; a table of stations to train on."""

from __future__ import annotations

import csv
import json
import shutil

import h5py
import numpy as np
import pytest
from small_surrogates import law
from small_surrogates import seen as observed

import inrflow
from inrflow.commands.run_directory import RunDirectory
from inrflow.data.description import Description
from inrflow.data.formats.convert import convert
from inrflow.data.formats.tables import read_observations
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource
from inrflow.evaluation.references.simple import TrainingMean
from inrflow.model.joint import Placement


@pytest.fixture
def seen(tiny_run, tmp_path):
    """Thirty points of two frames of trajectory 1."""
    with TrajectoryFile(tiny_run.test) as file:
        one = file.read(1, slice(0, 2))
    rows = [[1, t, *one.x[n], *one.u[k, n]] for k, t in enumerate(one.t.tolist()) for n in range(30)]
    return table(tmp_path / "seen.csv", ["trajectory", "t", "x", "y", "u", "v"], rows)


def table(path, header, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def columns(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


@pytest.mark.usefixtures("elsewhere")
def test_next_places_are_those_of_the_solution(tiny_run, seen, tmp_path, inrflow_command):
    x = np.random.default_rng(0).uniform(0, 1.5, (12, 2))
    weights = np.arange(1.0, 13.0)
    candidates = table(tmp_path / "candidates.csv", ["t", "x", "y", "weight"],
                       [[0.0, *place, w] for place, w in zip(x, weights, strict=True)])
    target = tmp_path / "next.csv"
    outcome = inrflow_command("next", f"run={tiny_run.run}", f"observations={seen}", f"points={candidates}", "count=3",
                              f"to={target}")
    assert outcome.code == 0 and "of the variance" in outcome.err, outcome.err
    surrogate = inrflow.Surrogate.load(tiny_run.run)
    solution = surrogate.assimilate(read_observations(seen, surrogate.description)[1])
    expected, found = solution.where_next(x, 3, weights), columns(target)
    np.testing.assert_allclose(np.stack([found["x"], found["y"]], 1), expected.x)
    np.testing.assert_allclose(found["left"], expected.left)
    assert found["rank"].tolist() == [1, 2, 3] and (np.diff(found["left"]) < 0).all()
    plain = table(tmp_path / "places.csv", ["site", "x", "y", "weight"],
                  [[f"site {n}", *x[n], weights[n]] for n in range(12)])
    outcome = inrflow_command("next", f"run={tiny_run.run}", f"observations={seen}", f"points={plain}", "count=3",
                              f"to={tmp_path / 'timeless.csv'}")
    assert outcome.code == 0, outcome.err
    with (tmp_path / "timeless.csv").open(newline="") as file:
        named = list(csv.DictReader(file))
    assert [row.pop("site") for row in named] == [f"site {n}" for n in expected.index]
    with target.open(newline="") as file:
        assert named == list(csv.DictReader(file))
    outcome = inrflow_command("next", f"run={tiny_run.run}", f"observations={seen}", "trajectory=7")
    assert outcome.code == 2 and "choose from 1" in outcome.err
    outcome = inrflow_command("next", f"run={tiny_run.run}", f"observations={seen}", f"to={tmp_path / 'random.csv'}")
    assert outcome.code == 0 and len(columns(tmp_path / "random.csv")["left"]) == 1


def test_places_that_tell_nothing_are_said_to(tiny_run, seen, tmp_path, inrflow_command, monkeypatch):
    for left, told in ((1.0, True), (0.9, False)):
        monkeypatch.setattr(inrflow.Solution, "where_next", lambda self, x, *_, left=left: Placement(
            np.array([0]), x[:1], np.array([left])))
        outcome = inrflow_command("next", f"run={tiny_run.run}", f"observations={seen}", f"to={tmp_path / 'n.csv'}",
                                  "overwrite=true")
        assert outcome.code == 0 and ("their order is arbitrary" in outcome.err) == told


def test_a_table_of_observations_names_each_of_its_places_once(tiny_run, seen, tmp_path, inrflow_command):
    done = inrflow_command("next", f"run={tiny_run.run}", f"observations={seen}", f"points={seen}", "count=30",
                           f"to={tmp_path / 'next.csv'}")
    found = columns(tmp_path / "next.csv")
    assert done.code == 0 and len(np.unique(np.stack([found["x"], found["y"]]), axis=1).T) == len(found["x"]) == 30


def test_candidates_on_a_sphere_are_told_in_degrees(tmp_path, inrflow_command):
    surrogate = law("sphere")
    surrogate.save(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("data: {}\n")
    frames = observed(surrogate, frames=2).frames()
    rows = [[t, *place, *values] for t, u in zip(frames.t.tolist(), frames.u, strict=True)
            for place, values in zip(frames.x, u, strict=True)]
    about = surrogate.description
    seen = table(tmp_path / "seen.csv", ["t", *about.coordinates, *about.channels], rows)
    sites = table(tmp_path / "sites.csv", ["site", "Longitude", "Latitude"],
                  [["a", 10.5, 40.0], ["b", 200.0, -30.0], ["c", 12.0, 41.0]])
    for points, names in (([f"points={sites}"], ["Longitude", "Latitude", "site"]), ([], ["lon", "lat"])):
        target = tmp_path / f"next{len(points)}.csv"
        outcome = inrflow_command("next", f"run={tmp_path / 'run'}", f"observations={seen}", *points, "count=2",
                                  f"to={target}")
        assert outcome.code == 0 and f"{names[0]} " in outcome.err and f", {names[1]} " in outcome.err, outcome.err
        with target.open(newline="") as file:
            found = list(csv.DictReader(file))
        assert list(found[0]) == ["rank", *names, "left"]
        assert all(-90 <= float(row[names[1]]) <= 90 for row in found)


def test_an_updated_run_is_trained_on_all_observations(tiny_run, tmp_path, inrflow_command, monkeypatch):
    trained = []
    monkeypatch.setattr("inrflow.commands.update.run_one", lambda *given: trained.append(given) or 0)
    with TrajectoryFile(tiny_run.train) as file:
        one, trajectories = file.read(0), file.trajectories
    later = float(one.t[-1]) + 1.0
    further = table(tmp_path / "further.csv", ["trajectory", "t", "x", "y", "u", "v"],
                    [[0, later, *one.x[n], 7.0, ""] for n in range(5)] + [[0, one.t[0], *one.x[0], 9.0, 8.0]])
    before = (tiny_run.run / "model.safetensors").read_bytes()
    (tmp_path / "new" / "data").mkdir(parents=True)
    shutil.copy(tiny_run.train, tmp_path / "new" / "data" / "grown.h5")  # of an update that was stopped
    outcome = inrflow_command("update", f"run={tiny_run.run}", f"data.train={further}", f"output={tmp_path / 'new'}")
    assert outcome.code == 0 and "5 of " in outcome.err, outcome.err
    (config, place, _), = trained
    earlier = json.loads((tiny_run.run / "candidates.json").read_text())["candidates"]
    assert config.recipe == next(row["recipe"] for row in earlier if row["taken"])
    assert config.continues == str(tiny_run.run)
    with TrajectoryFile(config.data.train) as file:
        assert file.trajectories == trajectories and place.path == tmp_path / "new"
        grown = file.read(0)
    assert grown.t[-1] == later and np.nansum(grown.u[-1, :, 0]) == 35
    where = np.flatnonzero((grown.x == one.x[0]).all(1))[0]
    assert grown.u[0, where].tolist() == [9.0, 8.0]
    assert (tiny_run.run / "model.safetensors").read_bytes() == before
    outcome = inrflow_command("update", f"run={tmp_path}", f"data.train={further}")
    assert outcome.code == 2 and "holds no model.safetensors" in outcome.err


def test_an_update_reads_files_as_the_run_did(tiny_run, tmp_path, inrflow_command, monkeypatch):
    trained = []
    monkeypatch.setattr("inrflow.commands.update.run_one", lambda *given: trained.append(given) or 0)
    run = tmp_path / "run"
    shutil.copytree(tiny_run.run, run)
    config = RunDirectory(run).config()
    config.data.read.time = "stamp"
    RunDirectory(run).write_config(config)
    with TrajectoryFile(tiny_run.train) as file:
        one = file.read(0)
    further = table(tmp_path / "further.csv", ["stamp", "x", "y", "u", "v"],
                    [[float(one.t[-1]) + 1, *one.x[n], 7.0, 8.0] for n in range(3)])
    outcome = inrflow_command("update", f"run={run}", f"data.train={further}", f"output={tmp_path / 'new'}")
    assert outcome.code == 0 and "3 of " in outcome.err, outcome.err
    assert trained[0][0].data.read.time == "stamp"


def test_references_of_an_updated_series_are_fitted_when_they_are_asked_for(tmp_path, inrflow_command):
    random, x = np.random.default_rng(2), np.arange(4.0)[:, None]
    u = np.zeros((90, 4))
    for k in range(1, 90):
        u[k] = 0.9 * u[k - 1] + random.standard_normal(4)
    about = Description("series", ("u",), ("x",))
    write_trajectories(tmp_path / "old.h5", np.arange(70.0), x, u[None, :70, :, None], about)
    write_trajectories(tmp_path / "new.h5", np.arange(70.0, 90.0), x, u[None, 70:, :, None], about)
    settings = ("training.minutes=0.05", "recipe=series", "training.residual_field=off")
    outcome = inrflow_command("train", f"data.train={tmp_path / 'old.h5'}", f"output={tmp_path / 'run'}", *settings)
    assert outcome.code == 0, outcome.err
    outcome = inrflow_command("update", f"run={tmp_path / 'run'}", f"data.train={tmp_path / 'new.h5'}",
                              f"output={tmp_path / 'more'}")
    assert outcome.code == 0 and "series: " in outcome.err, outcome.err
    more = RunDirectory(tmp_path / "more")
    assert not more.references_file().exists()
    found = more.references()
    assert found is not None
    with TrajectoryFile(tmp_path / "more" / "data" / "grown.h5") as file:
        batch = TrajectorySource(file).batch(np.arange(1), normalised=False)
    expected = TrainingMean.fit(batch, None, about)
    assert "linear_inverse_model" in found.fitted
    assert found.fitted[TrainingMean.name].state()["channel_mean"] == pytest.approx(expected.state()["channel_mean"])


def test_a_table_of_stations_is_read_with_its_elevation_and_without_its_labels(tmp_path):
    header = ["time", "station", "lon", "lat", "elevation", "temperature"]
    rows = [[f"2026-03-01T{hour:02d}:00:00Z", f"S{n}", 7 + 0.1 * n, 46 + 0.05 * n**2, 300 * n, hour + n]
            for hour in range(9) for n in range(4)]
    path = tmp_path / "stations.h5"
    convert(table(tmp_path / "stations.csv", header, rows), path)
    with TrajectoryFile(path) as file:
        assert file.description.coordinates == ("lon", "lat", "elevation")
        assert file.description.channels == ("temperature",) and file.point_layout == "shared"
        np.testing.assert_allclose(np.sort(file.read(0).x[:, 2]), [0, 300, 600, 900])
        assert len(read_observations(tmp_path / "stations.csv", file.description)[0]) == 36
    far = [[*row[:2], 60 * int(row[1][1:]), *row[3:]] for row in rows]
    convert(table(tmp_path / "far.csv", header, far), tmp_path / "far.h5")
    with h5py.File(tmp_path / "far.h5") as file:
        assert file.attrs["geometry"] == "sphere" and "elevation" in list(file.attrs["channels"])
