"""The refitted affine part of a field on systems whose exact flow is known."""


import pytest
import torch
from context_systems import SIZE, operators, trajectories

from inrflow.adaptation.field_refit import refitted_field
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import with_contexts

CONTEXT = torch.tensor([[0.7]], dtype=torch.float64)
VARIANCES = torch.ones(SIZE, dtype=torch.float64)
INTEGRATOR = Integrator(step=0.125)


@pytest.fixture(scope="module")
def system():
    """A field of one context, and exact trajectories of a system whose operator differs from it."""
    parts = operators(contexts=1)
    field = VectorField.of(SIZE, context_size=1).double()
    field.set_linear(parts[0, :, 1:], parts[0, :, 0])
    field.linear.set_context(parts[1:, :, 1:], parts[1:, :, 0])
    other = parts.clone()
    other[0] += 0.1 * operators(seed=5, contexts=1)[0]
    return field, other


def generator_of(field):
    """[bias, matrix] at the context."""
    with torch.no_grad():
        bias = field.linear.bias + CONTEXT[0] @ field.linear.context_bias
        return torch.cat([bias[:, None], field.matrix_at(CONTEXT[0])], 1)


@pytest.mark.parametrize("irregular", [False, True])
def test_the_operator_of_the_new_system_is_found(system, irregular):
    field, parts = system
    data, _ = trajectories(parts, CONTEXT, each=8, irregular=irregular)
    states = with_contexts(data, SIZE, CONTEXT.expand(8, 1))
    found = refitted_field(field, INTEGRATOR, states, VARIANCES, 1e-9)
    expected = parts[0] + 0.7 * parts[1]
    before = (generator_of(field) - expected).norm()
    assert (generator_of(found) - expected).norm() < 1e-2 * before


def test_a_pull_leaves_the_field_in_between(system):
    field, parts = system
    data, _ = trajectories(parts, CONTEXT, each=8)
    states = with_contexts(data, SIZE, CONTEXT.expand(8, 1))
    whole = (generator_of(refitted_field(field, INTEGRATOR, states, VARIANCES, 1e-9)) - generator_of(field)).norm()
    moved = [
        float((generator_of(refitted_field(field, INTEGRATOR, states, VARIANCES, pull)) - generator_of(field)).norm())
        for pull in (1e-2, 1.0, 1e6)
    ]
    assert float(whole) > moved[0] > moved[1] > moved[2] and moved[2] < 1e-4


def test_a_field_that_is_right_stays(system):
    field, _ = system
    data, _ = trajectories(operators(contexts=1), CONTEXT, each=8)
    found = refitted_field(field, INTEGRATOR, with_contexts(data, SIZE, CONTEXT.expand(8, 1)), VARIANCES, 1e-3)
    torch.testing.assert_close(generator_of(found), generator_of(field), rtol=0, atol=1e-4)
