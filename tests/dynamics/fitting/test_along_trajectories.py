"""Coefficients along the exact flow: nearer to the truth than sums over bent paths, with contexts, no idle terms."""

import math

import pytest
import torch
from local_systems import basis_of, burgers, trajectories

from inrflow.dynamics.fields.pde_terms import Factor
from inrflow.dynamics.fitting.along_trajectories import STEPS, WHOLE, EquationRefinement
from inrflow.dynamics.fitting.transitions_of_pde import EquationFit
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.states import CodeData
from inrflow.numerics.normal_equations import NormalEquations

PERIOD = (2 * math.pi,)
NOBODY = torch.zeros(1, 0, dtype=torch.float64)  # contexts of one system


def noisy(data: CodeData, size: float) -> CodeData:
    noise = torch.randn(data.codes.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return CodeData(data.codes + size * noise, data.t, data.observed)


def of_single_steps(truth: LocalEquation, basis, states: CodeData) -> LocalEquation:
    every = torch.ones(len(truth.terms), dtype=torch.bool)
    equation = truth
    for _ in range(4):
        sums = NormalEquations.total(EquationFit(basis, states, truth.terms).gathered(equation))
        equation = LocalEquation(truth.terms, sums.solve(every, False)[:, None])
    return equation


def test_noise_weakens_single_steps_and_hardly_whole_trajectories():
    basis, truth = basis_of(1, PERIOD, 5), burgers(0.1)
    states = noisy(trajectories(truth, basis, 6, 0, frames=12), 0.03)
    before = of_single_steps(truth, basis, states)
    after, _ = EquationRefinement(basis, states, windows=WHOLE).refined(before, NOBODY)
    wrong = [float((one.weights - truth.weights)[1].abs()) for one in (before, after)]
    assert wrong[1] < 0.1 < wrong[0]


@pytest.mark.parametrize("windows", [STEPS, WHOLE])
def test_without_noise_the_truth_is_found_and_frames_that_nobody_saw_do_not_matter(windows):
    basis, truth = basis_of(1, PERIOD, 5), burgers(0.1)
    data = trajectories(truth, basis, 3, 0)
    data.codes[1, 3], data.observed[1, 3] = torch.nan, False
    wrong = LocalEquation(truth.terms, truth.weights * 1.05)
    found, _ = EquationRefinement(basis, data, windows=windows).refined(wrong, NOBODY)
    torch.testing.assert_close(found.weights, truth.weights, rtol=1e-3, atol=1e-4)


def test_a_force_follows():
    basis, truth = basis_of(1, PERIOD, 5), burgers(0.1)
    force = 0.2 * torch.randn(basis.code_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = LocalEquation(truth.terms, truth.weights, force)
    data = trajectories(truth, basis, 3, 0)
    wrong = LocalEquation(truth.terms, truth.weights * 1.05, 0.9 * force)
    found, _ = EquationRefinement(basis, data).refined(wrong, NOBODY)
    torch.testing.assert_close(found.weights, truth.weights, rtol=5e-3, atol=1e-3)
    assert found.force is not None
    torch.testing.assert_close(found.force, force, rtol=0, atol=5e-3)


def test_terms_that_had_been_left_out_come_back_and_those_that_nothing_needs_go():
    idle = ((Factor(0), Factor(0)),)
    basis, truth = basis_of(1, PERIOD, 5), burgers(0.1, idle)
    data = trajectories(truth, basis, 4, 0, frames=8, gap=0.4)
    blind = LocalEquation(truth.terms, torch.tensor([[0.12], [0.0], [0.05]], dtype=torch.float64))
    refinement = EquationRefinement(basis, data)
    found, _ = refinement.refined(blind, NOBODY, every=True)
    torch.testing.assert_close(found.weights, truth.weights, rtol=1e-3, atol=1e-4)
    fewer, _ = refinement.refined(found, NOBODY, level=1.5)
    assert fewer.kept.tolist() == [True, True, False]
    torch.testing.assert_close(fewer.weights, truth.weights, rtol=1e-3, atol=1e-4)


def test_environments_keep_contexts_of_their_own():
    basis = basis_of(1, PERIOD, 5)
    viscosities = torch.tensor([0.05, 0.1, 0.2]).double()
    data = CodeData.join([trajectories(burgers(float(v)), basis, 2, i) for i, v in enumerate(viscosities)])
    guess = burgers(0.12)
    several = torch.stack([guess.weights, torch.tensor([[0.05], [0.02]]).double()])
    contexts = torch.tensor([[-1.0], [-0.5], [1.5]]).double()
    refinement = EquationRefinement(basis, data, torch.arange(3).repeat_interleave(2))
    equation, found = refinement.refined(LocalEquation(guess.terms, several), contexts)
    each = equation.several[0] + torch.einsum("ep,pjc->ejc", found, equation.several[1:])
    torch.testing.assert_close(each[:, 0, 0], viscosities, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(each[:, 1, 0], -torch.ones(3).double(), rtol=1e-3, atol=1e-3)


def test_known_contexts_stay():
    basis = basis_of(1, PERIOD, 5)
    data = CodeData.join([trajectories(burgers(v), basis, 2, i) for i, v in enumerate((0.1, 0.3))])
    contexts = torch.tensor([[-1.0], [1.0]]).double()
    several = torch.stack([burgers(0.17).weights, torch.tensor([[0.05], [0.0]]).double()])
    refinement = EquationRefinement(basis, data, torch.arange(2).repeat_interleave(2), fixed=True)
    equation, found = refinement.refined(LocalEquation(burgers(0.1).terms, several), contexts)
    assert torch.equal(found, contexts)
    torch.testing.assert_close(equation.several[:, 0, 0], torch.tensor([0.2, 0.1]).double(), rtol=0, atol=5e-4)


def test_an_equation_of_nothing_stays_and_nobody_who_has_no_time_changes_one():
    basis, truth = basis_of(1, PERIOD, 3), burgers(0.1)
    data = trajectories(truth, basis, 2, 0)
    nothing = LocalEquation(truth.terms, torch.zeros_like(truth.weights))
    assert EquationRefinement(basis, data).refined(nothing, NOBODY)[0] is nothing
    assert EquationRefinement(basis, data, more=lambda: False).refined(truth, NOBODY)[0] is truth
