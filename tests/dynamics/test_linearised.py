"""Covariances moved over long gaps, against closed forms and many short gaps."""

import math

import pytest
import torch

from inrflow.dynamics import flow as flows
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Dynamics, Integrator


def linear(matrix, contexts=0):
    field = VectorField.of(len(matrix), context_size=contexts).double()
    field.set_linear(matrix, torch.zeros(len(matrix)))
    if contexts:
        field.linear.set_context(0.1 * matrix[None], torch.zeros(1, len(matrix)))
    process = torch.cat([torch.full((len(matrix),), 0.01), torch.zeros(contexts)]).double()
    return Dynamics(field, Integrator(step=0.1), process)


TURN = torch.tensor([[-0.05, 0.3], [-0.3, -0.05]]).double()


@pytest.mark.parametrize("contexts", [0, 1])
def test_a_long_gap_is_as_many_short_ones(contexts):
    dynamics, size = linear(TURN, contexts), 2 + contexts
    covariance = torch.eye(size).double()[None]
    state = torch.zeros(1, size).double()
    whole, _ = dynamics.propagate(covariance, state, state, torch.zeros(1), torch.tensor([64.0]))
    for k in range(8):
        begin = torch.tensor([8.0 * k])
        covariance, _ = dynamics.propagate(covariance, state, state, begin, begin + 8)
    torch.testing.assert_close(whole[:, :2, :2], covariance[:, :2, :2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gap", [1e3, 1e6, 1e9])
def test_far_ahead_the_spread_of_a_decaying_field_stays_that_of_its_noise(gap):
    state = torch.zeros(1, 2).double()
    moved, _ = linear(TURN).propagate(torch.eye(2).double()[None], state, state, torch.zeros(1), torch.tensor([gap]))
    short = gap / 2 ** math.ceil(math.log2(gap / 8))  # noise is added once in each of these
    expected = 0.01 * short / (1 - math.exp(-0.1 * short))
    torch.testing.assert_close(moved[0], expected * torch.eye(2).double(), rtol=1e-6, atol=1e-12)


def test_flows_that_couple_few_of_many_states_carry_covariances_as_dense_ones_do(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    flow = torch.eye(40, dtype=torch.float64).repeat(2, 1, 1)
    flow[:, :6, :6] += torch.randn(2, 6, 6, dtype=torch.float64, generator=generator)
    flow[:, torch.arange(10, 40), torch.arange(39, 9, -1)] = 0.5  # pairs, as of two channels
    root = torch.randn(1, 40, 40, dtype=torch.float64, generator=generator)
    covariance = root @ root.mT
    monkeypatch.setattr(flows, "_MANY_STATES", 10)
    torch.testing.assert_close(flows._carried(flow, covariance), flow @ covariance @ flow.mT)


def test_motion_around_states_is_that_of_the_flow_through_them():
    torch.manual_seed(0)
    field = VectorField.of(3, depth=1, width=8).double()
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    states, gap = torch.randn(4, 3).double(), 1e-3
    motion = Dynamics(field, Integrator(), torch.zeros(3)).motion(states, 3)
    times = torch.tensor([[0.0, gap]]).double().expand(4, -1)
    moved = Integrator(step=1e-4)(field, states, times)[:, 1].detach()
    start = torch.cat([torch.ones(4, 1).double(), states], 1)
    carried = torch.linalg.matrix_exp(motion.generator * gap) @ start[..., None]
    torch.testing.assert_close(carried[:, 1:, 0], moved, rtol=0, atol=1e-5)  # the flow bends by the square of the gap
    assert float((moved - states).abs().max()) > 1e-4


def test_process_noise_grows_with_the_gap_in_either_direction():
    dynamics, still = linear(TURN), torch.zeros(2, 2).double()
    for gap in (0.5, -0.5):
        begin, end = torch.zeros(2).double(), torch.full((2,), gap).double()
        moved, flowed = dynamics.propagate(torch.zeros(1, 2, 2).double(), still, still, begin, end)
        torch.testing.assert_close(moved[0], torch.diag(dynamics.process) * 0.5)
        torch.testing.assert_close(flowed[0], torch.linalg.matrix_exp(TURN * gap), rtol=0, atol=1e-10)
