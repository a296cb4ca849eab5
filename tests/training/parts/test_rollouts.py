"""Losses of rollouts: the exact field has none, and frames that nobody saw do not count."""

import numpy as np
import pytest
import torch

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData
from inrflow.training.parts.rollouts import RolloutTraining

MATRIX = torch.tensor([[-0.1, 0.7], [-0.7, -0.1]], dtype=torch.float64)
STEP = Integrator(step=0.1)


def linear(matrix=MATRIX):
    field = VectorField.of(2).double()
    field.set_linear(matrix, torch.zeros(2))
    return field


def states(count=5, frames=8, seed=0):
    random = np.random.default_rng(seed)
    t = torch.as_tensor(np.cumsum(random.uniform(0.3, 1.2, (count, frames)), 1))
    start = torch.as_tensor(random.standard_normal((count, 2)))
    flows = torch.linalg.matrix_exp(MATRIX * (t - t[:, :1])[..., None, None])
    return CodeData(torch.einsum("stij,sj->sti", flows, start), t, torch.ones(count, frames, dtype=torch.bool))


def loss(training, field, step=100, steps=100, seed=0):
    return float(training.loss(field, step, steps, np.random.default_rng(seed)).detach())


def test_the_exact_field_has_no_loss_and_another_has():
    training = RolloutTraining(states(), STEP, batch=16)
    assert loss(training, linear().float()) < 1e-9 < 1e-3 < loss(training, linear(0.9 * MATRIX).float())


def test_frames_without_observation_and_padding_do_not_count():
    seen = states()
    seen.observed[:, 4] = False
    seen.codes[:, 4] = 1e3
    seen.observed[2, 5:], seen.t[2, 5:], seen.codes[2, 5:] = False, float("nan"), float("nan")
    field = linear().float()
    for step in (0, 10, 100):
        training = RolloutTraining(seen, STEP, batch=64)
        value = training.loss(field, step, 100, np.random.default_rng(step))
        value.backward()
        assert float(value.detach()) < 1e-9 and torch.isfinite(field.linear.matrix.grad).all()


def test_rollouts_grow_to_their_full_length():
    lengths = []

    class Watching:
        def __call__(self, field, start, times, check=True):
            lengths.append(times.shape[1] - 1)
            return STEP(field, start, times, check)

    training = RolloutTraining(states(), Watching(), batch=4)
    for step in range(100):
        loss(training, linear().float(), step)
    assert lengths[0] == 1 and max(lengths) == 7 and lengths[34:] == [7] * 66 and lengths == sorted(lengths)


def test_the_loss_is_the_squared_error_as_share_of_the_variance():
    seen = states(count=1, frames=3)
    training = RolloutTraining(seen, STEP, batch=4)  # the only full rollout: from the first frame
    field = linear(0.5 * MATRIX)
    with torch.no_grad():
        rolled = STEP(field, seen.codes[:, 0], seen.t)
    error = (rolled - seen.codes)[0, 1:].square().sum(1).mean()
    variance = (seen.codes[0] - seen.codes[0].mean(0)).square().sum(1).mean()
    assert loss(training, field.float()) == pytest.approx(float(error / variance), rel=1e-4)
