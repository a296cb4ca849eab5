"""Exact flows of affine fields against scipy, closed forms and small steps."""

import math
import time

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator

BEGIN, GAP = torch.tensor([0.3, -1.0, 2.0]).double(), torch.tensor([1.7, 0.4, -0.9]).double()


def filled(**sizes):
    field = VectorField.of(3, **sizes).double()
    torch.manual_seed(0)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return field


def test_the_flow_is_the_exponential_of_the_augmented_matrix():
    field, start = filled(), torch.randn(3, 3).double()
    end = field.exact_flow(start, BEGIN, GAP)
    generator = np.zeros((4, 4))
    generator[:3, :3], generator[:3, 3] = field.linear.matrix.detach(), field.linear.bias.detach()
    for row in range(3):
        expected = (expm(generator * float(GAP[row])) @ np.append(start[row], 1.0))[:3]
        np.testing.assert_allclose(end[row], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [{"forcing_period": 1.3}, {"context_size": 2},
                                   {"forcing_period": 0.7, "forcing_harmonics": 3, "context_size": 1}])
def test_forcing_and_contexts_are_followed_as_by_small_steps(sizes):
    field = filled(**sizes)
    start = torch.randn(3, 3 + sizes.get("context_size", 0)).double()
    with torch.no_grad():
        fine = Integrator(step=2e-3)(field, start, torch.stack([BEGIN, BEGIN + GAP], 1))[:, 1]
    torch.testing.assert_close(field.exact_flow(start, BEGIN, GAP), fine, rtol=1e-8, atol=1e-8)


def test_only_affine_fields_with_periodic_forcing_have_an_exact_flow():
    assert filled(forcing_period=2.0, context_size=1).has_exact_flow
    assert not filled(depth=1, width=4).has_exact_flow


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_far_lead_times_cost_no_more_than_near_ones(method):
    field = VectorField.of(3).double()
    matrix = torch.tensor([[0.0, 2.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 0.0, -0.5]]).double()
    field.set_linear(matrix, torch.tensor([0.0, 0.0, 1.0]))
    times, began = torch.tensor([0.0, 1e3, 1e7]).double(), time.perf_counter()
    with torch.no_grad():
        path = Integrator(method, step=0.01)(field, torch.ones(1, 3).double(), times)[0]
    assert time.perf_counter() - began < 2
    for at, state in zip((1e3, 1e7), path[1:], strict=True):
        expected = [math.cos(2 * at) + math.sin(2 * at), math.cos(2 * at) - math.sin(2 * at), 2.0]
        np.testing.assert_allclose(state, expected, atol=1e-6)
