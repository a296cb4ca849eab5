"""Coefficients along whole trajectories: nearer to the truth than those of single steps where states are noisy."""

import math

import torch

from inrflow.dynamics.equation import LocalEquation
from inrflow.dynamics.equation_fit import EquationFit
from inrflow.dynamics.equation_refinement import refined
from inrflow.dynamics.normal_equations import NormalEquations
from inrflow.dynamics.states import CodeData
from tests.dynamics.local_systems import basis_of, burgers, trajectories

PERIOD = (2 * math.pi,)


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
    after = refined(before, basis, states)
    wrong = [float((one.weights - truth.weights)[1].abs()) for one in (before, after)]
    assert wrong[1] < 0.1 < wrong[0]


def test_without_noise_nothing_changes_and_frames_that_nobody_saw_do_not_matter():
    basis, truth = basis_of(1, PERIOD, 5), burgers(0.1)
    data = trajectories(truth, basis, 3, 0)
    data.codes[1, 3], data.observed[1, 3] = torch.nan, False
    wrong = LocalEquation(truth.terms, truth.weights * 1.05)
    torch.testing.assert_close(refined(wrong, basis, data).weights, truth.weights, rtol=1e-3, atol=1e-4)


def test_an_equation_of_nothing_stays():
    basis, truth = basis_of(1, PERIOD, 3), burgers(0.1)
    nothing = LocalEquation(truth.terms, torch.zeros_like(truth.weights))
    assert refined(nothing, basis, trajectories(truth, basis, 2, 0)) is nothing
