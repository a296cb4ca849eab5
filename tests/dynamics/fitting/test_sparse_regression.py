"""The search finds equations that are known, their contexts, and the force, and nothing else."""

import math

import torch
from local_systems import basis_of, burgers, trajectories

from inrflow.dynamics.fields.pde_terms import Factor, libraries, linear_terms
from inrflow.dynamics.fitting.sparse_regression import EquationSearch, accelerated
from inrflow.dynamics.fitting.transitions_of_pde import fastest_rate, flow_path
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.states import CodeData

PERIOD = (2 * math.pi,)
TERMS = libraries(1, 1)[-1]


def judge_of(basis, held, rows=None):
    def judge(equation, contexts):
        field = equation.field(basis)
        start = held.codes[:, 0] if rows is None else torch.cat([held.codes[:, 0], contexts[rows]], 1)
        with torch.no_grad():
            path = Integrator(step=0.02)(field, start, held.t, check=False)[..., : basis.code_size]
        error = float((path - held.codes).square().mean() / held.codes.square().mean())
        return error if error == error else float("inf")

    return judge


def weight(equation: LocalEquation, term) -> float:
    return float(equation.several[0, equation.terms.index(term), 0])


def test_burgers_equation_is_found_and_no_other_term():
    basis = basis_of(1, PERIOD, 6)
    truth = burgers(0.1)
    search = EquationSearch(basis, trajectories(truth, basis, 4, 0), judge_of(basis, trajectories(truth, basis, 2, 1)))
    found = search.search(TERMS)
    assert found is not None and found.score < 1e-10 and found.equation.count == 2 and found.equation.force is None
    assert abs(weight(found.equation, (Factor(0, (0, 0)),)) - 0.1) < 1e-4
    assert abs(weight(found.equation, (Factor(0), Factor(0, (0,)))) + 1) < 1e-3
    assert found.equation.written(["u"], ["x"], [2.0, 0.5]) == ["du/dt = 0.2 u_xx -1 u u_x"]


def test_a_force_that_depends_on_the_place_is_found_with_it():
    basis = basis_of(1, PERIOD, 4)
    force = torch.zeros(basis.code_size, dtype=torch.float64)
    force[2] = 0.7
    plain = burgers(0.2)
    truth = LocalEquation(plain.terms, plain.weights, force)
    search = EquationSearch(basis, trajectories(truth, basis, 6, 0), judge_of(basis, trajectories(truth, basis, 2, 1)))
    found = search.search(TERMS)
    assert found is not None and found.score < 1e-6 and found.equation.force is not None
    torch.testing.assert_close(found.equation.force, force, rtol=0, atol=2e-3)


def test_environments_differ_in_one_context_which_is_their_viscosity():
    basis = basis_of(1, PERIOD, 5)
    viscosities = torch.tensor([0.05, 0.1, 0.2, 0.3]).double()
    data = CodeData.join([trajectories(burgers(float(v)), basis, 3, i) for i, v in enumerate(viscosities)])
    held = CodeData.join([trajectories(burgers(float(v)), basis, 1, 9 + i) for i, v in enumerate(viscosities)])
    search = EquationSearch(
        basis, data, judge_of(basis, held, torch.arange(4)), torch.arange(4).repeat_interleave(3)
    )
    found = search.search(TERMS, 1)
    assert found is not None and found.score < 1e-8 and found.contexts.shape == (4, 1)
    line = torch.linalg.lstsq(torch.cat([torch.ones(4, 1).double(), found.contexts], 1), viscosities[:, None])
    read = torch.cat([torch.ones(4, 1).double(), found.contexts], 1) @ line.solution
    torch.testing.assert_close(read[:, 0], viscosities, rtol=1e-3, atol=1e-4)
    again = search.refit(found, torch.arange(4).repeat_interleave(3))
    torch.testing.assert_close(again.equation.weights, found.equation.weights, rtol=1e-3, atol=1e-4)


def test_terms_that_explain_nothing_give_no_equation():
    basis = basis_of(1, PERIOD, 4)
    random = torch.Generator().manual_seed(0)
    codes = torch.randn(6, 5, basis.code_size, generator=random, dtype=torch.float64)  # no law joins these frames
    data = CodeData(codes, torch.arange(5).double().expand(6, -1), torch.ones(6, 5, dtype=torch.bool))
    assert EquationSearch(basis, data, lambda equation, contexts: 0.0).search(linear_terms(1, 1)) is None


def test_the_fastest_rate_is_the_largest_eigenvalue_of_the_linear_part():
    basis = basis_of(1, PERIOD, 6)
    field = LocalEquation(((Factor(0, (0, 0)),),), torch.tensor([[0.5]]).double()).field(basis)
    states = torch.zeros(1, basis.code_size, dtype=torch.float64)
    assert abs(fastest_rate(field, states, 60) - 0.5 * 36) < 0.5
    path = flow_path(field, states + 1, torch.zeros(1).double(), torch.full((1,), 0.1).double(), 8)
    exact = torch.linalg.matrix_exp(0.1 * field.matrix_at()) @ (states[0] + 1)
    torch.testing.assert_close(path[-1, 0], exact, rtol=1e-4, atol=1e-4)


def test_paths_of_linear_fields_are_exact_in_few_steps_whatever_the_gaps():
    basis = basis_of(1, PERIOD, 6)
    field = LocalEquation(((Factor(0, (0,)),), ()), torch.tensor([[3.0], [0.5]]).double()).field(basis)
    states = torch.randn(3, basis.code_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gaps = torch.tensor([0.5, 1.0, 0.5]).double()
    path = flow_path(field, states, torch.zeros(3).double(), gaps, 4)
    for row, gap in enumerate(gaps):
        times = torch.linspace(0, 1, 5).double() * gap
        fine = Integrator(step=1e-3)(field, states[row : row + 1], times[None])[0]
        torch.testing.assert_close(path[:, row], fine.detach(), rtol=1e-6, atol=1e-6)


def test_acceleration_solves_a_linear_fixed_point_in_as_many_steps_as_it_has_dimensions():
    matrix = torch.diag(torch.tensor([0.9, -0.8, 0.5]).double())
    shift = torch.tensor([1.0, 2.0, 3.0]).double()
    state, inputs, outputs = torch.zeros(3).double(), [], []
    for _ in range(4):
        inputs, outputs = [*inputs, state], [*outputs, matrix @ state + shift]
        state = accelerated(inputs, outputs)
    torch.testing.assert_close(state, torch.linalg.solve(torch.eye(3).double() - matrix, shift), rtol=1e-6, atol=1e-6)
