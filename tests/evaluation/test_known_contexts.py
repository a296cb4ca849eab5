"""Contexts of single trajectories beside those of their systems: how much wider they lie than solves state."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from inrflow.data.formats.trajectory_file import Environments
from inrflow.dynamics.contexts.posterior import ContextEstimate
from inrflow.evaluation.known_contexts import calibrate_contexts
from inrflow.model.contexts import Contexts

COVARIANCE = torch.tensor([[0.04, 0.01], [0.01, 0.09]]).double()
SYSTEMS = Environments("environment", np.array([0, 1, 2, 0, 1]), np.array([7, 9, 4]))


def surrogate(apart: list[list[float]]) -> Any:
    """Contexts of the systems 7 and 9, and solves of trajectories that miss them by so much, one after the other."""
    contexts = Contexts("environment", torch.tensor([[1.0, 0.0], [-1.0, 0.5]]).double(), torch.tensor([7, 9]))
    missed = iter(apart)

    def solve(windows: list[int]) -> ContextEstimate:
        mean = contexts.values[[0, 1, 0, 0, 1][windows[0]]] + torch.tensor(next(missed)).double()
        return ContextEstimate(mean, COVARIANCE, 0.0)

    return SimpleNamespace(contexts=contexts, solve_context=solve)


SOURCE: Any = SimpleNamespace(batch=lambda rows, normalised: int(rows[0]))


@pytest.mark.parametrize(("size", "spread"), [(3.0, 9.0), (0.5, 1.0)])
def test_the_spread_is_how_much_wider_contexts_lie_than_stated(size, spread):
    root = np.linalg.cholesky(COVARIANCE.numpy())
    apart = [(size * np.sqrt(2) * root @ np.eye(2)[k]).tolist() for k in (0, 1, 1)]  # squared distances 2 size^2
    model = surrogate(apart)
    assert calibrate_contexts(model, SOURCE, SYSTEMS, np.array([3, 2, 4, 1]), np.inf) == 3  # none of system 4
    assert model.contexts.spread == pytest.approx(spread)


def test_where_the_time_is_over_one_trajectory_is_solved():
    model = surrogate([[0.4, 0.0]])
    assert calibrate_contexts(model, SOURCE, SYSTEMS, np.array([0, 1, 3]), 0.0) == 1
    expected = 0.4**2 * np.linalg.inv(COVARIANCE.numpy())[0, 0] / 2
    assert model.contexts.spread == pytest.approx(expected)


def test_errors_of_contexts_have_the_bounds_of_so_few():
    model = surrogate([[0.4, 0.0], [0.0, -0.3], [0.2, 0.0]])
    calibrate_contexts(model, SOURCE, SYSTEMS, np.array([0, 1, 3]), np.inf)
    rms = np.sqrt([(0.4**2 + 0.2**2) / 3, 0.3**2 / 3])
    np.testing.assert_allclose(model.contexts.error, 2.353363 * rms, rtol=1e-6)  # Student's quantile, 3 degrees


def test_trajectories_in_the_middle_and_at_both_ends_come_first():
    seen: list[int] = []
    source: Any = SimpleNamespace(batch=lambda rows, normalised: seen.append(int(rows[0])) or 0)
    held = Environments("environment", np.zeros(40, dtype=int), np.array([7]))
    for most, expected in ((3, [27, 20, 32]), (6, [27, 20, 32, 22, 25, 30])):
        seen.clear()
        assert calibrate_contexts(surrogate([[0.1, 0.0]] * 6), source, held, np.arange(20, 33), np.inf, most) == most
        assert seen == expected


def test_models_without_contexts_have_none_to_spread():
    model: Any = SimpleNamespace(contexts=None)
    assert calibrate_contexts(model, SOURCE, SYSTEMS, np.array([0]), np.inf) == 0
