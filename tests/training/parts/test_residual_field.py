"""The residual field is taken where hidden places are met clearly better with it, and not on clean data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inrflow
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.encoding.residual import fit
from inrflow.evaluation.evaluate import evaluate
from inrflow.evaluation.observe import Observe
from inrflow.training.problem import Problem

ABOUT = Description("stations", ("u",), ("x", "y"))
SETTINGS = ("recipe=reduced_order", "training.minutes=0.3", "dynamics.depth=0", "training.steps.residual_field=1",
            "training.steps.decoder=60")


def network(stations: int, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Many short waves that lose their phase, seen with noise and gaps at fixed places."""
    random = np.random.default_rng(0)
    x, t = random.uniform(0, 1, (stations, 2)), np.arange(float(frames))
    k = random.standard_normal((80, 2)) * 5
    phase = random.uniform(0, 6.3, 80) + np.cumsum(random.standard_normal((frames, 80)) * 0.4, 0)
    u = np.cos((x @ k.T)[None] - phase[:, None]).sum(-1) / 6 + 0.1 * random.standard_normal((frames, stations))
    u[random.random(u.shape) < 0.1] = np.nan
    return t, x, u[..., None]


@pytest.fixture(scope="module")
def kriged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple, inrflow.Surrogate]:
    folder = tmp_path_factory.mktemp("stations")
    t, x, u = network(88, 30)
    write_trajectories(folder / "seen.h5", t, x[:28], u[None, :, :28], ABOUT)
    write_trajectories(folder / "all.h5", t, x, u[None], ABOUT)
    with pytest.MonkeyPatch.context() as patch:  # quick, if not the best
        patch.setattr(fit, "_ITERATIONS", 8)
        patch.setattr(fit, "CHANGES", ())
        surrogate = inrflow.fit(Problem.open(folder / "seen.h5", *SETTINGS))
    surrogate.save(folder)
    return folder, (t, x, u), inrflow.Surrogate.load(folder)


def test_a_network_of_stations_is_kriged(kriged):
    _, (t, x, u), surrogate = kriged
    assert surrogate.residual is not None
    solution = surrogate.assimilate(inrflow.Observations(t, x[:28], u[:, :28]))
    surrogate.residual, residual = None, surrogate.residual
    codes = surrogate.assimilate(inrflow.Observations(t, x[:28], u[:, :28]))
    surrogate.residual = residual
    errors = {}
    for name, one in (("field", solution), ("codes", codes)):
        errors[name] = float(np.nanmean((one.frames(t, x[28:]) - u[:, 28:]) ** 2))
    assert errors["field"] < 0.8 * errors["codes"]
    assert errors["field"] < 0.6 * np.nanvar(u[:, 28:])
    answer = solution.query(np.repeat(t, 60), np.tile(x[28:], (30, 1)), std=True, derivatives=True)
    z = (answer["mean"] - u[:, 28:].reshape(-1, 1)) / answer["std"]
    assert 0.85 < np.nanmean(np.abs(z) < 1.645) < 0.95
    step = 1e-3 * surrogate.extent.width(0)  # where other neighbours become the nearest, differences have steps
    slope = (solution(t[3], x[30:31] + [step, 0]) - solution(t[3], x[30:31] - [step, 0])) / (2 * step)
    np.testing.assert_allclose(solution.derivatives(t[3], x[30:31])["dx"][0, :, 0], slope[0], rtol=2e-2, atol=2e-2)


def test_evaluation_and_queries_agree(kriged):
    folder, (t, x, u), surrogate = kriged
    with TrajectoryFile(folder / "all.h5") as file:
        found = evaluate(surrogate, file, Observe(30, 0.7)).example
    seen = np.isfinite(found["observed"]).any((0, 2))
    solution = surrogate.assimilate(inrflow.Observations(t, x[seen], np.asarray(found["observed"])[:, seen]))
    np.testing.assert_allclose(solution.frames(t[5:7], x), found["prediction"][5:7], atol=1e-4)
    np.testing.assert_allclose(solution.std(t[5:6], x)[0], found["std"][5], rtol=1e-3)


def test_clean_data_are_left_to_their_codes(tmp_path):
    random = np.random.default_rng(1)
    x, t = random.uniform(0, 1, (60, 2)), np.arange(10.0)
    shapes = np.stack([np.cos(3 * x[:, 0]), np.sin(2 * x[:, 1]), np.cos(3 * x[:, 0] + 2 * x[:, 1])])
    u = np.cos(0.7 * t[None, :, None] * [1, 2, 3] + random.uniform(0, 6, (8, 1, 3))) @ shapes
    write_trajectories(tmp_path / "clean.h5", t, x, u[..., None], ABOUT)
    assert inrflow.fit(Problem.open(tmp_path / "clean.h5", *SETTINGS[:2])).residual is None
