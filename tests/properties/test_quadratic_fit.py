"""Integrals along the flow of a solution are those of that solution's field, so that least squares on data that the
field has made gives the solution back."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inrflow.dynamics.fitting.quadratic import QuadraticFit
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData

ZERO = torch.zeros(()).double()


def codes(starts: torch.Tensor, field) -> CodeData:
    """Accurate trajectories of 6 frames by a field, from starts (S, n)."""
    t = 0.15 * torch.arange(6).double().expand(len(starts), -1)
    with torch.no_grad():
        path = Integrator(step=0.15 / 16)(field, starts, t)
    return CodeData(path, t, torch.ones(len(starts), 6, dtype=torch.bool))


def states_of(seed: int) -> CodeData:
    """States of a flow that is not quadratic."""
    random = torch.Generator().manual_seed(seed)
    start = torch.randn(40, 3, generator=random, dtype=torch.float64)

    def pendulum(t, s):
        return torch.stack([s[..., 1], -s[..., 0].sin(), 0.2 * s[..., 0] - 0.1 * s[..., 2]], -1)

    return codes(start, pendulum)


@given(seed=st.integers(0, 999))
@settings(max_examples=4, deadline=None, derandomize=True)
def test_data_that_a_solution_has_made_give_the_solution_back(seed):
    states = states_of(seed)
    fit = QuadraticFit(states, 4)
    ((_, first),) = fit.solutions(None, [1e-4])  # any solution: this one is not that of the data
    field = fit.form(first).field()
    made = codes(states.codes[:, 0], field)
    again = QuadraticFit(made, 4)
    ((_, second),) = again.solutions(first, [1e-13])
    with torch.no_grad():
        expected = field(ZERO, made.codes)
        found = again.form(second).field()(ZERO, made.codes)
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-5 * float(expected.abs().max()))


@torch.no_grad()
def test_solutions_come_in_the_order_of_the_ridges_and_a_large_one_shrinks_the_rates():
    states = states_of(0)
    fit = QuadraticFit(states, 4)
    ridges = [1e-9, 1e-3, 1e3]
    found = list(fit.solutions(None, ridges))
    assert [ridge for ridge, _ in found] == ridges
    sizes = [float(fit.form(solution).field()(ZERO, states.codes).abs().mean()) for _, solution in found]
    assert sizes[2] < 0.5 * sizes[0]
