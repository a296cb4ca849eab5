"""A wave whose velocity is not seen, through the command line: memory by default, and what it asks of the user."""

import csv
import json

import h5py
import numpy as np
import pytest

import inrflow
from inrflow.data.formats.trajectory_file import TrajectoryFile
from tests.conftest import with_persistence_alone

SETTINGS = ("training.minutes=0.1", "decoder.harmonics=2", "data.frames=8", "data.copies=4")


def wave(path, seed, count):
    """u of waves u_tt = c^2 lap u of few wavenumbers on 8 x 8 points of a periodic square."""
    random = np.random.default_rng(seed)
    axis, times = np.arange(8) / 8, 0.2 * np.arange(16)
    places = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    u = np.zeros((count, len(times), len(places)))
    for wave_vector in ((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2)):
        angle = 2 * np.pi * places @ wave_vector
        omega = 2.0 * np.linalg.norm(wave_vector)
        a, b, c, d = random.standard_normal((4, count, 1))
        for first, second, shape in ((a, b, np.cos(angle)), (c, d, np.sin(angle))):
            u += (first * np.cos(omega * times) + second * np.sin(omega * times))[..., None] * shape
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "inrflow-trajectories", "version": 1, "name": "string", "channels": ["u"],
                           "coordinates": ["x", "y"], "period": [1.0, 1.0]})
        file["t"], file["x"], file["u"] = times, places, u[..., None].astype(np.float32)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, inrflow_command):
    """The run, what training said, and the test file."""
    folder = tmp_path_factory.mktemp("memory")
    train, test = wave(folder / "train.h5", 0, 24), wave(folder / "test.h5", 1, 3)
    with pytest.MonkeyPatch.context() as patch:
        with_persistence_alone(patch)
        outcome = inrflow_command("train", f"data.train={train}", f"data.test={test}", f"output={folder / 'run'}",
                                  *SETTINGS)
    assert outcome.code == 0, outcome.err
    return folder / "run", outcome, test


def test_training_chooses_memory_and_says_how_many_frames_forecasts_need(run):
    folder, outcome, _ = run
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["frames_needed"] == report["observed"]["frames"] == 3 and report["memory"] > 0
    assert max(report["nmse"]["in_t"], report["nmse"]["out_t"]) < 1e-4
    assert "observe.frames=3" in outcome.err + outcome.out


@pytest.mark.parametrize(("frames", "good"), [(1, False), (3, True)])
def test_evaluation_tells_where_frames_are_too_few(run, frames, good, tmp_path, inrflow_command):
    folder, _, test = run
    outcome = inrflow_command("evaluate", f"run={folder}", f"data.test={test}", f"observe.frames={frames}",
                              f"output={tmp_path}")
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert (report["nmse"]["all"] < 1e-4) == good
    assert ("only 1 observed frame:" in outcome.out) != good


@pytest.mark.parametrize(("frames", "good"), [(1, False), (4, True)])
def test_a_query_is_answered_well_from_a_few_frames_and_warns_of_one(run, frames, good, tmp_path, inrflow_command):
    folder, _, test = run
    with TrajectoryFile(test) as file:
        seen, later = file.read(0, list(range(frames))), file.read(0, [12])
    for name, read, header in (("seen", seen, ("t", "x", "y", "u")), ("asked", later, ("t", "x", "y"))):
        with open(tmp_path / f"{name}.csv", "w", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(header)
            for t, values in zip(read.t, read.u, strict=True):
                writer.writerows((t, *x, *u)[: len(header)] for x, u in zip(read.x, values, strict=True))
    outcome = inrflow_command("query", f"run={folder}", f"observations={tmp_path / 'seen.csv'}",
                              f"points={tmp_path / 'asked.csv'}", f"to={tmp_path / 'answer.csv'}")
    assert outcome.code == 0 and ("only 1 observed frame:" in outcome.err) != good, outcome.err
    with open(tmp_path / "answer.csv", newline="") as table:
        found = np.array([float(row["u"]) for row in csv.DictReader(table)])
    error = float(np.mean((found - later.u[0, :, 0]) ** 2) / np.var(later.u))
    assert (error < 1e-3) == good
    assert inrflow.Surrogate.load(folder).window == 3
