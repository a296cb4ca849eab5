"""Coefficients of linear local equations along whole trajectories, against waves that are known in closed form."""

import pytest
import torch
from wave_systems import CHANNELS, DECODER, HARMONICS, SPEEDS, error_beyond, exact, waves

from inrflow.dynamics.contexts.alternate import ContextFit, refine, whitened
from inrflow.dynamics.contexts.search import ContextSearch
from inrflow.dynamics.fitting.moments import moments_of
from inrflow.dynamics.fitting.operators_along_trajectories import needed_coefficients, refined_along
from inrflow.dynamics.fitting.operators_of_pde import LocalOperators
from inrflow.dynamics.libraries.pde_terms import isotropic_terms
from inrflow.dynamics.states import CodeData


def refined(data, environment):
    squares = whitened(torch.tensor(SPEEDS).double()[:, None].square())[0]
    moments = moments_of(data, environment, len(SPEEDS))
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS))
    return refined_along(local, refine(moments, squares, 1e-14, solve=local.solve), moments, data, environment)


def test_only_the_terms_of_the_equation_are_needed():
    data, environment = waves(noise=1e-3)
    squares = whitened(torch.tensor(SPEEDS).double()[:, None].square())[0]
    moments = moments_of(data, environment, len(SPEEDS))
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS))
    fit = refine(moments, squares, 1e-14, solve=local.solve)
    kept = (needed_coefficients(local, fit, moments) != 0).nonzero().tolist()
    value, curvature = 2 * CHANNELS + 0, 3 * CHANNELS + 1  # v in the rate of u, and lap u in that of v
    assert kept == [[0, value], [0, curvature], [1, curvature]]


def test_whole_trajectories_tell_the_coefficients_more_exactly_than_steps():
    data, environment = waves(noise=1e-2, frames=16)
    squares = whitened(torch.tensor(SPEEDS).double()[:, None].square())[0]
    moments = moments_of(data, environment, len(SPEEDS))
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS))
    steps = refine(moments, squares, 1e-14, solve=local.solve)
    along = refined_along(local, steps, moments, data, environment)
    assert error_beyond(along) < 0.2 * error_beyond(steps)
    torch.testing.assert_close(along.contexts, whitened(along.contexts)[0])


def test_unequal_steps_are_refined_alike():
    data, environment = waves(noise=1e-3)
    exactly = refined(data, environment)
    t = data.t.clone()
    t[:, -1] += 1e-4
    codes = data.codes.clone()
    rates = torch.stack([exact(SPEEDS[e]) @ code for e, code in zip(environment.tolist(), codes[:, -1], strict=True)])
    codes[:, -1] += 1e-4 * rates
    moved = refined(CodeData(codes, t, data.observed), environment)
    torch.testing.assert_close(moved.generators(), exactly.generators(), rtol=0, atol=1e-3)


def test_the_nearest_path_of_the_true_field_leaves_the_noise():
    noise, (data, environment) = 1e-2, waves()
    held, held_environment = waves(each=2, noise=1e-2, seed=1)
    known = torch.tensor(SPEEDS).double()[:, None]
    search = ContextSearch(data, environment, len(SPEEDS), held, held_environment, known)
    fit = refined(data, environment)
    size, frames = CHANNELS * HARMONICS, held.codes.shape[1]
    expected = noise**2 * size * (frames - 1) / frames  # one frame's worth is taken up by where the paths start
    assert search.misfit(fit) * search.variance == pytest.approx(expected, rel=0.1)
    weak = ContextFit(0.9 * fit.operators, fit.contexts, 0.0)
    assert search.misfit(weak) > 10 * search.misfit(fit)
