"""The problem that a configuration poses on a file, and the budget of a run on it."""

import numpy as np
import pytest
from runs import run_on

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import share_of_each_group
from inrflow.training.recorder import Budget


def test_a_share_of_the_time_is_less_where_little_is_left_by_the_injected_clock():
    now = [1000.0]
    budget = Budget(2.0, clock=lambda: now[0])
    assert budget.seconds(0.25) == 30
    now[0] += 110  # 10 of 120 seconds are left
    assert budget.seconds(0.25) == 8 and budget.seconds(0.05) == 6
    now[0] += 100
    assert budget.seconds(0.25) == 0


def test_decisions_are_made_once_recorded_and_repeated():
    recorded = []
    budget = Budget(1.0, {"steps": 7, "open": None}, record=recorded.append)
    assert budget.decide("steps", lambda: pytest.fail("known")) == 7 and not recorded
    assert budget.decide("open", lambda: 3) == 3 and budget.decide("open", lambda: 4) == 3
    assert recorded == [{"steps": 7, "open": 3}] and budget.decisions.get("copies") is None


@pytest.mark.parametrize(("trajectories", "frames", "overrides", "held_out"), [
    (3, 6, (), 0),  # another trajectory does not lie in what two span
    (3, 6, ("data.validation=0.4",), 1),
    (5, 6, (), 1),
    (3, 4, (), 1),  # no frames to spare either
])
def test_few_trajectories_are_validated_in_time(trajectories, frames, overrides, held_out, tmp_path):
    u = np.random.default_rng(0).normal(size=(trajectories, frames, 5, 1)).astype(np.float32)
    path = tmp_path / "train.h5"
    write_trajectories(path, np.arange(float(frames)), np.linspace(0, 1, 5)[:, None], u,
                       Description("noise", ("u",), ("x",)))
    with run_on(path, tmp_path, *overrides) as run:
        problem = run.problem
    assert len(problem.validation) == held_out and len(problem.train) == trajectories - held_out


def test_of_values_beyond_the_time_some_trajectories_and_points_are_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr("inrflow.data.source._FEWEST_VALUES", 1e5)
    u = np.random.default_rng(0).normal(size=(50, 5, 2000, 1)).astype(np.float32)
    path, x = tmp_path / "train.h5", np.random.default_rng(1).random((2000, 2))
    write_trajectories(path, np.arange(5.0), x, u, Description("noise", ("u",), ("x", "y")))
    with pytest.warns(UserWarning, match=r"24 of 50 trajectories at 1024 of 2000 points"), \
            run_on(path, tmp_path, "training.minutes=1e-4") as run:
        few = run.problem
        batch = few.source.batch(few.train)
    assert len(few.train) == 19 and len(few.validation) == 5 and not set(few.train) & set(few.validation)
    assert batch.u.shape == (19, 5, 1024, 1) and batch.x.shape == (1, 1, 1024, 2)
    with run_on(path, tmp_path, "training.minutes=10") as run:
        assert len(run.problem.train) == 40 and run.problem.source.fraction == 1.0


def test_some_of_the_trajectories_are_of_every_system():
    rows, systems = np.arange(3, 40), np.arange(40) // 10
    kept = share_of_each_group(rows, 0.3, systems)
    assert np.isin(kept, rows).all() and np.bincount(systems[kept]).tolist() == [2, 3, 3, 3]
    assert share_of_each_group(rows, 1e-3, systems).tolist() == [3, 10, 20, 30]


def test_points_without_any_value_are_none_of_a_laws_domain(tmp_path):
    x = np.stack(np.meshgrid(*[(np.arange(12) + 0.5) / 12] * 2, indexing="ij"), -1).reshape(-1, 2)
    sea = (np.linalg.norm(x - [0.2, 0.3], axis=1) > 0.3) & (x.sum(1) < 1.5)
    u = np.random.default_rng(0).normal(size=(5, 6, 144, 2)).astype(np.float32)
    u[:, :, ~sea], u[0, :, 5], u[:, :, 50, 1] = np.nan, np.nan, np.nan  # some trajectory, or channel, has these
    path = tmp_path / "train.h5"
    write_trajectories(path, np.arange(6.0), x, u, Description("sea", ("u", "v"), ("x", "y")))
    with run_on(path, tmp_path) as run:
        _, _, places, values = run.problem.fields(run.problem.train)
        domain = run.problem.domains(places)[0]
    np.testing.assert_allclose(places, np.broadcast_to(x[sea], places.shape), atol=1e-6)
    assert values.shape[2] == sea.sum() and domain.kind == "region"
    assert domain.distance(np.array([[0.2, 0.3], [0.9, 0.9]])).min() > 0.1


def test_fields_of_trajectories_with_missing_frames_are_windows_of_the_others(tmp_path):
    t, x = np.tile(np.arange(9.0), (6, 1)), np.random.default_rng(0).uniform(size=(40, 2))
    u = (t[..., None, None] + 10 * np.arange(6)[:, None, None, None] + x.sum(1)[:, None]).astype(np.float32)
    u[:, [3, 6]] = np.nan
    t[5, 7:] = np.nan  # a shorter trajectory
    path = tmp_path / "train.h5"
    write_trajectories(path, t, x, u, Description("gaps", ("u",), ("x", "y")))
    with run_on(path, tmp_path) as run:
        problem = run.problem
        rows, times, places, values = problem.fields(np.arange(6))
    assert sorted(rows) == [0, 1, 2, 3, 4] and times.shape == (5, 7)  # five frames of the last are a shorter window
    mean, scale = (float(part) for part in (problem.centre, problem.source.normalisation.scale))
    seen = (values + mean) * scale - places.sum(2)[:, None, :, None]
    expected = np.array([0, 1, 2, 4, 5, 7, 8]) + 10 * rows[:, None]
    np.testing.assert_allclose(seen.mean((2, 3)) - seen.mean(), expected - expected.mean(), atol=1e-4)
    np.testing.assert_allclose(np.diff(times), np.broadcast_to([1, 1, 2, 1, 2, 1], (5, 6)) * np.diff(times)[0, 0])
