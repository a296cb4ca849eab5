"""Rows that each have a time and place of their own: linear dynamics of the frames that splines give, asked by rows."""

import json

import numpy as np
import pytest

from inrflow.data.description import Description, Symmetries
from inrflow.data.formats.writing import write_scattered, write_trajectories
from inrflow.data.observations import Observations
from inrflow.model.surrogate import Surrogate
from tests.conftest import with_persistence_alone

TRAJECTORIES, ROWS, SPEED = 8, 400, 1.0
WAVES = np.array([1.0, 2.0])
SHIFT = Symmetries(np.array([[[0.0, 1.0]]]), np.zeros((1, 2, 2)), np.zeros((0, 1, 2)), np.zeros((0, 2, 2)))
DESCRIPTION = Description("waves", ("u", "v"), ("x",), period=(1.0,), symmetries=SHIFT)

# Told, so that a busy machine makes no difference.
COUNTS = {"decoder": 0, "mode_trajectories": 8, "check_copies": 4, "copies": 16}
STEPS = [f"training.steps.{name}={count}" for name, count in COUNTS.items()]


def field(n: int, t: np.ndarray, x: np.ndarray, seed: int) -> np.ndarray:
    """Two travelling waves of random amplitude and phase, and their time derivative, (R, 2)."""
    amplitude, phase = np.random.default_rng([seed, n]).normal(size=(2, 2))
    angle = 2 * np.pi * WAVES * (x - SPEED * t[:, None]) + 3 * phase
    values = amplitude / WAVES
    return np.stack([(values * np.sin(angle)).sum(1), -(values * WAVES * np.cos(angle)).sum(1)], 1)


def rows(trajectories: int, count: int, seed: int, last: float = 1.0) -> tuple[np.ndarray, ...]:
    """Rows of trajectories at random times and places: trajectory, t, x, u."""
    random = np.random.default_rng(seed)
    t, x = last * random.random(trajectories * count), random.random((trajectories * count, 1))
    number = np.repeat(np.arange(trajectories), count)
    u = np.concatenate([field(n, t[number == n], x[number == n], seed) for n in range(trajectories)])
    return number, t, x, u.astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory, inrflow_command):
    """A run trained on scattered rows and tested on frames."""
    folder = tmp_path_factory.mktemp("scattered")
    write_scattered(folder / "train.h5", *rows(TRAJECTORIES, ROWS, 0), DESCRIPTION)
    times, points = np.linspace(0, 1.5, 8), np.arange(16)[:, None] / 16
    frames = np.stack([[field(n, np.full(16, time), points, 1) for time in times] for n in range(3)])
    write_trajectories(folder / "test.h5", times, points, frames.astype(np.float32), DESCRIPTION)
    with pytest.MonkeyPatch.context() as patch:
        with_persistence_alone(patch)
        outcome = inrflow_command(
            "train", f"data.train={folder / 'train.h5'}", f"data.test={folder / 'test.h5'}", f"output={folder / 'run'}",
            "recipe=reduced_order", "decoder.harmonics=3", "dynamics.depth=0", "dynamics.memory=0", *STEPS)
    assert outcome.code == 0, outcome.err
    return folder / "run"


def test_scattered_rows_train_and_beat_persistence(run):
    report = json.loads((run / "evaluation.json").read_text())
    assert report["nmse"]["all"] < 1e-4 * report["references"]["persistence"]["nmse"]["all"]


@pytest.fixture(scope="module")
def asked(run):
    """Errors of a forecast from rows of a new trajectory, the standard deviations it states, and the truth."""
    _, t, x, u = rows(1, 200, 7, last=0.6)
    solution = Surrogate.load(run).assimilate(Observations(t, x, u))
    random = np.random.default_rng(3)
    times, places = 1.2 * random.random(500), random.random((500, 1))
    truth = field(0, times, places, 7)
    return solution(times, places) - truth, solution.std(times, places), truth


def test_rows_whose_times_all_differ_are_assimilated_and_forecast(asked):
    error, _, truth = asked
    assert (error**2).mean() < 1e-6 * truth.var()


def test_intervals_of_such_rows_hold_the_truth(asked):
    error, std, _ = asked
    assert (np.abs(error) <= 1.645 * std).mean() > 0.75


def test_a_table_of_such_rows_answers_queries(run, tmp_path, inrflow_command):
    _, t, x, u = rows(1, 200, 7, last=0.6)
    seen, points = tmp_path / "seen.csv", tmp_path / "points.csv"
    np.savetxt(seen, np.column_stack([t, x, u]), delimiter=",", header="t,x,u,v", comments="", fmt="%.9g")
    asked, places = np.linspace(0.1, 0.9, 12), np.linspace(0, 0.95, 12)[:, None]
    np.savetxt(points, np.column_stack([asked, places]), delimiter=",", header="t,x", comments="", fmt="%.9g")
    outcome = inrflow_command(
        "query", f"run={run}", f"observations={seen}", f"points={points}", f"to={tmp_path / 'answer.csv'}", "std=true")
    assert outcome.code == 0, outcome.err
    answer = np.genfromtxt(tmp_path / "answer.csv", delimiter=",", names=True)
    solution = Surrogate.load(run).assimilate(Observations(t, x, u))
    got = np.stack([answer["u"], answer["v"]], 1)
    np.testing.assert_allclose(got, solution(asked, places), atol=1e-4)
    assert ((got - field(0, asked, places, 7)) ** 2).mean() < 1e-4
    assert (answer["u_std"] > 0).all() and (answer["u_std"] < 1).all()


def test_scattered_test_rows_are_judged_at_their_own_times(run, tmp_path, inrflow_command):
    write_scattered(tmp_path / "test.h5", *rows(3, ROWS, 5), DESCRIPTION)
    outcome = inrflow_command(
        "evaluate", f"run={run}", f"data.test={tmp_path / 'test.h5'}", f"output={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["nmse"]["all"] < 1e-4
    assert report["coverage_90"] > 0.75
