"""A family of waves of which no velocity is observed: laws of second order with contexts, and their forecasts."""

from contextlib import nullcontext

import numpy as np
import pytest

import inrflow
from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from tests.conftest import without_report

SPEED, GAP, PLACES = 0.8, 0.1, np.linspace(0, 1, 25)
DAMPINGS, EACH = (0.2, 0.6, 1.1, 1.5), 4


def waves(random, damping, frames):
    """u'' = SPEED^2 u_xx - damping u' between walls without flux, in closed form: (T, N, 1)."""
    t, total = np.arange(frames) * GAP, 0.0
    for k in np.pi * np.arange(1, 5):
        turn = np.sqrt((SPEED * k) ** 2 - damping**2 / 4)
        a, b = random.standard_normal(2) / k
        path = np.exp(-damping * t / 2) * (a * np.cos(turn * t) + b * np.sin(turn * t))
        total = total + path[:, None] * np.cos(k * PLACES)
    return total[..., None]


def observed(u):
    return inrflow.Observations(np.arange(len(u)) * GAP, PLACES[:, None], u)


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory):
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("waves") / "waves.h5"
    dampings = np.repeat(DAMPINGS, EACH)
    u = np.stack([waves(random, damping, 10) for damping in dampings])
    about = Description("waves", ("u",), ("x",), parameter_names=("damping",))
    write_trajectories(path, np.arange(10) * GAP, PLACES[:, None], u, about, dampings[:, None])
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        return inrflow.train(path, "data.frames=10", output=path.parent / "run", minutes=0.5)


def test_the_law_is_of_second_order_and_has_one_context(surrogate):
    assert surrogate.context_size == 1 and surrogate.window == 3
    assert surrogate.field.state_size == 2 * surrogate.code_size


def follows(solution, truth):
    forecast = solution((len(truth) - 1) * GAP, PLACES[:, None])
    return np.abs(forecast - truth[-1]).max() < 1e-3 * np.abs(truth).max()


@pytest.mark.parametrize("damping", [0.4, 1.3, 2.0])
def test_dampings_are_read_off_and_forecasts_follow(surrogate, damping):
    truth, example = (waves(np.random.default_rng(seed), damping, 20) for seed in (1, 2))
    with pytest.warns(UserWarning, match="outside the training") if damping > max(DAMPINGS) else nullcontext():
        solution = surrogate.assimilate(observed(truth[:3]), examples=[observed(example[:10])])
    assert solution.parameters["damping"][0] == pytest.approx(damping, rel=1e-3)
    assert follows(solution, truth)


def test_more_frames_of_one_trajectory_tell_its_context_too(surrogate):
    truth = waves(np.random.default_rng(3), 0.9, 20)
    solution = surrogate.assimilate(observed(truth[:10]))
    assert solution.parameters["damping"][0] == pytest.approx(0.9, rel=1e-3)
    assert follows(solution, truth)


def test_deviations_of_what_noisy_frames_tell_are_those_of_their_errors(surrogate):
    random = np.random.default_rng(4)
    u = waves(random, 0.9, 10)
    off = []
    for _ in range(8):
        found = surrogate.context_from([observed(u + 0.02 * u.std() * random.standard_normal(u.shape))])
        (mean,), covariance = surrogate.contexts.map.parameters(found.mean, found.covariance)
        off.append((float(mean) - 0.9) / float(covariance.sqrt()))
    assert 0.3 < np.sqrt(np.mean(np.square(off))) < 2.0
