"""Paths of states through observed frames: trajectories at times of their own, in one batch as one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.model.assimilation import Dynamics
from inrflow.model.state_path import StatePath
from inrflow.model.state_prior import StateEstimate, StatePrior

SIZE, TRAJECTORIES = 3, 4
NAN = float("nan")
KNOTS = torch.tensor([[0.0, 1.0, 2.5], [0.5, 1.5, NAN], [0.0, 1.0, 2.5], [0.2, NAN, NAN]]).double()
TIMES = torch.tensor(
    [[-0.5, 0.0, 0.4, 1.0, 2.0, 3.0], [0.5, 0.7, 1.5, 1.6, 4.0, NAN], [1.2, 2.5, 2.6, NAN, NAN, NAN],
     [-1.0, -0.5, 0.1, 0.2, 0.3, 5.0]]
).double()


class Model:
    """What a path needs of a surrogate."""

    def __init__(self, linear: bool) -> None:
        torch.manual_seed(0)
        field = VectorField.of(SIZE, depth=0 if linear else 1, width=8).double()
        field.set_linear(0.3 * torch.randn(SIZE, SIZE).double(), 0.1 * torch.ones(SIZE).double())
        if not linear:
            for parameter in field.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
        self.dynamics = Dynamics(field, Integrator(step=0.05), 0.01 * torch.ones(SIZE).double())


def estimate(knots: torch.Tensor, same: bool = False) -> StateEstimate:
    generator = torch.Generator().manual_seed(1)
    count = len(knots)
    mean = torch.randn(count, knots.shape[1], SIZE, generator=generator, dtype=torch.float64)
    roots = torch.randn(knots.shape[1], 1 if same else count, SIZE, SIZE, generator=generator, dtype=torch.float64)
    covariance = [root @ root.transpose(1, 2) + 0.1 * torch.eye(SIZE).double() for root in roots]
    return StateEstimate(knots, mean, covariance, torch.zeros(count), torch.zeros(count))


def alone(whole: StateEstimate, s: int) -> StateEstimate:
    """One trajectory with its own knots only."""
    one = whole.select(slice(s, s + 1))
    count = int(torch.isfinite(one.t).sum())
    assert one.covariance is not None
    return StateEstimate(one.t[:, :count], one.mean[:, :count], one.covariance[:count], one.quadratic, one.count)


@pytest.mark.parametrize("linear", [True, False])
def test_trajectories_at_times_of_their_own_are_as_one_by_one(linear):
    model, whole = Model(linear), estimate(KNOTS)
    path = StatePath(model.dynamics, whole)
    states = path.mean(TIMES)
    covariances = torch.stack(list(path.covariance(TIMES, states)), 1)
    for s in range(TRAJECTORIES):
        times = TIMES[s][torch.isfinite(TIMES[s])]
        single = StatePath(model.dynamics, alone(whole, s))
        expected = single.mean(times)
        count = len(times)
        torch.testing.assert_close(states[s, :count], expected[0], rtol=0, atol=1e-7)
        assert torch.isnan(states[s, count:]).all()
        found = torch.stack(list(single.covariance(times, expected)), 1)[0]
        torch.testing.assert_close(covariances[s, :count], found, rtol=1e-6, atol=1e-7)


def test_a_path_passes_through_its_knots_and_is_the_exact_flow_beyond_them():
    model, whole = Model(True), estimate(KNOTS)
    states = StatePath(model.dynamics, whole).mean(TIMES)
    torch.testing.assert_close(states[0, 1], whole.mean[0, 0])
    torch.testing.assert_close(states[0, 3], whole.mean[0, 1])
    torch.testing.assert_close(states[2, 1], whole.mean[2, 2])
    matrix, bias = model.dynamics.field.linear.matrix.detach(), 0.1 * torch.ones(SIZE).double()
    rest = torch.linalg.solve(matrix, bias)
    for s, column, knot in ((0, 0, 0), (0, 5, 2), (3, 0, 0), (3, 5, 0)):
        gap = TIMES[s, column] - KNOTS[s, knot]
        expected = torch.linalg.matrix_exp(matrix * gap) @ (whole.mean[s, knot] + rest) - rest
        torch.testing.assert_close(states[s, column], expected, rtol=1e-6, atol=1e-7)


def test_the_covariance_of_a_linear_flow_is_shared_where_times_and_knots_are():
    model = Model(True)
    model.dynamics.process = torch.zeros(SIZE).double()
    whole = estimate(KNOTS[:1].expand(TRAJECTORIES, 3), same=True)
    times = torch.tensor([2.5, 3.0, 4.5]).double()
    path = StatePath(model.dynamics, whole)
    found = list(path.covariance(times, path.mean(times)))
    flow = torch.linalg.matrix_exp(2.0 * model.dynamics.field.linear.matrix.detach())
    assert whole.covariance is not None
    assert [len(one) for one in found] == [1, 1, 1]
    torch.testing.assert_close(found[2][0], flow @ whole.covariance[2][0] @ flow.T)


def test_spreads_far_ahead_do_not_depend_on_the_times_that_are_asked_for_between():
    model = Model(linear=False)
    path = StatePath(model.dynamics, estimate(torch.zeros(1, 1).double()))
    every, far = torch.arange(0.0, 12.1, 0.5).double(), torch.tensor([12.0]).double()
    slowly = list(path.covariance(every, path.mean(every)))[-1]
    at_once = list(path.covariance(far, path.mean(far)))[0]
    torch.testing.assert_close(at_once, slowly, rtol=0.1, atol=0.02 * float(slowly.abs().max()))


def test_between_two_known_states_the_spread_is_that_of_a_brownian_bridge():
    model = Model(True)
    model.dynamics.process = torch.full((SIZE,), 0.04).double()
    whole = replace(estimate(KNOTS[:1]), covariance=[1e-12 * torch.eye(SIZE).double()[None]] * KNOTS.shape[1])
    times = KNOTS[0, 0] + torch.tensor([0.25, 0.5]).double() * (KNOTS[0, 1] - KNOTS[0, 0])
    path = StatePath(model.dynamics, whole)
    quarter, middle = (one[0].diagonal() for one in path.covariance(times, path.mean(times)))
    gap = float(KNOTS[0, 1] - KNOTS[0, 0])
    assert middle.numpy() == pytest.approx(np.full(SIZE, 0.04 * gap / 4))
    assert quarter.numpy() == pytest.approx(np.full(SIZE, 0.04 * gap * 3 / 16))


def test_states_before_the_first_frame_are_the_conditional_normal_distribution_of_linear_dynamics():
    """A mode that persists, one that turns and one that is forgotten, between two times of half a unit."""
    rates = np.array([[0.0, 0, 0, 0], [0, 0, 1.5, 0], [0, -1.5, 0, 0], [0, 0, 0, -40.0]])
    field = VectorField.of(4).double()
    field.set_linear(torch.as_tensor(rates), torch.zeros(4).double())
    dynamics = Dynamics(field, Integrator(step=0.01), torch.zeros(4).double())
    mean, variances = np.array([0.5, 0.0, 0.0, 2.0]), np.array([1.0, 4.0, 4.0, 0.25])
    prior = StatePrior(torch.as_tensor(mean), torch.as_tensor(variances).diag(), torch.ones(1).double(),
                       torch.zeros(4).double(), torch.ones(1).double())
    flow, noise = expm(rates / 2), np.diag([0.5, 0.1, 0.2, 1e-4])  # of a measurement of all, at the later time
    measured = np.array([1.5, 2.0, -1.0, 0.003])
    gain = np.diag(variances) @ np.linalg.inv(np.diag(variances) + noise)
    posterior, spread = mean + gain @ (measured - mean), np.diag(variances) - gain @ np.diag(variances)
    estimate = StateEstimate(torch.zeros(1, 1).double(), torch.as_tensor(posterior)[None, None],
                             [torch.as_tensor(spread)[None]], torch.zeros(1), torch.zeros(1))
    path, time = StatePath(dynamics, estimate, prior), torch.tensor([-0.5]).double()
    found = path.mean(time)
    before = np.diag(variances) @ flow.T @ np.linalg.inv(flow @ np.diag(variances) @ flow.T + noise)
    np.testing.assert_allclose(found[0, 0], mean + before @ (measured - flow @ mean), atol=1e-4)
    np.testing.assert_allclose(next(path.covariance(time, found))[0], np.diag(variances) - before @ flow @
                               np.diag(variances), atol=1e-4)
    assert abs(float(found[0, 0, 3]) - 2.0) < 1e-3  # what is forgotten is the prior's
    backwards = StatePath(dynamics, estimate).mean(time, check=False)
    assert float(backwards[0, 0, 3]) > 1e5  # what amplifies it
