"""What every library of features must do: its integrals along the flow of a solution are those of that solution's
field, so that least squares on data that the field has made gives the solution back."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import inrflow.dynamics
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.base import FeatureLibrary
from inrflow.dynamics.libraries.quadratic import QuadraticFit
from inrflow.dynamics.states import CodeData

ZERO = torch.zeros(()).double()


def codes(starts: torch.Tensor, field) -> CodeData:
    """Accurate trajectories of 6 frames by a field, from starts (S, n)."""
    t = 0.15 * torch.arange(6).double().expand(len(starts), -1)
    with torch.no_grad():
        path = Integrator(step=0.15 / 16)(field, starts, t)
    return CodeData(path, t, torch.ones(len(starts), 6, dtype=torch.bool))


def quadratic(seed: int):
    """Factory of the library on states, and states of a flow that is not in it."""
    random = torch.Generator().manual_seed(seed)
    start = torch.randn(40, 3, generator=random, dtype=torch.float64)

    def pendulum(t, s):
        return torch.stack([s[..., 1], -s[..., 0].sin(), 0.2 * s[..., 0] - 0.1 * s[..., 2]], -1)

    return (lambda states: QuadraticFit(states, 4)), codes(start, pendulum)


LIBRARIES = {QuadraticFit: quadratic}


def every_library() -> set[type]:
    """All classes of the package with the methods of the protocol."""
    found = set()
    for module in pkgutil.walk_packages(inrflow.dynamics.__path__, "inrflow.dynamics."):
        for _, one in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if one is not FeatureLibrary and callable(getattr(one, "solutions", None)) and hasattr(one, "field"):
                found.add(one)
    return found


def test_every_library_of_the_package_is_tested_here():
    assert every_library() == set(LIBRARIES)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
@given(seed=st.integers(0, 999))
@settings(max_examples=4, deadline=None, derandomize=True)
def test_data_that_a_solution_has_made_give_the_solution_back(library, seed):
    make, states = LIBRARIES[library](seed)
    ((_, first),) = make(states).solutions(None, [1e-4])  # any solution: this one is not that of the data
    field = make(states).field(first)
    made = codes(states.codes[:, 0], field)
    again = make(made)
    ((_, second),) = again.solutions(first, [1e-13])
    with torch.no_grad():
        expected = field(ZERO, made.codes)
        found = again.field(second)(ZERO, made.codes)
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
@torch.no_grad()
def test_solutions_come_in_the_order_of_the_ridges_and_a_large_one_shrinks_the_rates(library):
    make, states = LIBRARIES[library](0)
    one = make(states)
    ridges = [1e-9, 1e-3, 1e3]
    found = list(one.solutions(None, ridges))
    assert [ridge for ridge, _ in found] == ridges
    sizes = [float(one.field(solution)(ZERO, states.codes).abs().mean()) for _, solution in found]
    assert sizes[2] < 0.5 * sizes[0]
