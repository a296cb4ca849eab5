"""Operators held to a local equation, against waves that are known in closed form."""

import pytest
import torch
from wave_systems import CHANNELS, DECODER, HARMONICS, SPEEDS, error_beyond, exact, waves

from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.contexts.search import FREE, ContextSearch
from inrflow.dynamics.fields.pde_terms import isotropic_terms
from inrflow.dynamics.fitting.alternate import ContextFit, refine
from inrflow.dynamics.fitting.moments import moments_of
from inrflow.dynamics.fitting.operators_of_pde import LocalOperators, needed_coefficients, refined_along
from inrflow.dynamics.states import CodeData
from inrflow.numerics.principal_components import standardised


def problem(data, environment):
    """Squared speeds as contexts, moments of the data, and the operators of isotropic terms."""
    squares = standardised(torch.tensor(SPEEDS).double()[:, None].square())[0]
    moments = moments_of(data, environment, len(SPEEDS))
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS))
    return squares, moments, local


def test_an_equation_is_found_exactly_and_at_contexts_beyond_those_of_training():
    data, environment = waves()
    start = standardised(torch.tensor(SPEEDS).double()[:, None])[0]
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS))
    fit = refine(moments_of(data, environment, len(SPEEDS)), start, 1e-14, 60, solve=local.solve)
    assert error_beyond(fit) < 1e-5


def test_noise_does_less_to_a_few_numbers_than_to_whole_matrices():
    data, environment = waves(noise=1e-3)
    squares, moments, local = problem(data, environment)
    free, held = refine(moments, squares, 1e-12), refine(moments, squares, 1e-14, solve=local.solve)
    assert error_beyond(held) < 0.5 * error_beyond(free)


def test_held_out_trajectories_of_an_equation_prefer_it():
    data, environment = waves(noise=1e-3)
    held, held_environment = waves(each=2, noise=1e-3, seed=1)
    search = ContextSearch(
        data, environment, len(SPEEDS), held, held_environment, torch.tensor(SPEEDS).double()[:, None],
        local=LocalOperators.lists(DECODER),
    )
    found = search.search([CHANNELS * HARMONICS], [1])
    assert found.candidate.form == "isotropic"
    assert error_beyond(found.fit) < 0.02


def test_operators_that_no_equation_has_stay_free():
    random = torch.Generator().manual_seed(3)
    size = CHANNELS * HARMONICS
    raw = torch.randn(size, size, generator=random, dtype=torch.float64) * 0.3
    motion = torch.linalg.matrix_exp(0.5 * (raw - raw.T))
    start = torch.randn(40, size, generator=random, dtype=torch.float64)
    codes = torch.stack([start @ torch.linalg.matrix_power(motion, i).T for i in range(6)], 1)
    data = CodeData(codes, 0.5 * torch.arange(6).double().expand(40, -1), torch.ones(40, 6, dtype=torch.bool))
    environment = torch.arange(40) % 2
    search = ContextSearch(data, environment, 2, data, environment, local=LocalOperators.lists(DECODER))
    assert search.search([size], [1]).candidate.form == FREE


def test_fewer_codes_have_the_leading_block():
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS))
    small = local.truncated(4)
    torch.testing.assert_close(small.matrices, local.matrices[:, :4, :5])


@pytest.mark.parametrize("period", [None, (0.0,)])
def test_a_domain_that_does_not_repeat_has_none(period):
    decoder = ModulatedSiren(make_embedding([0.0], [1.0], period, None, 2, 0), 1, 3, 8, 1)
    assert LocalOperators.of(decoder, isotropic_terms(1)) is None
    assert LocalOperators.lists(decoder) == {}


def test_the_equation_of_operators_is_read_off_them():
    local = LocalOperators.of(DECODER, isotropic_terms(CHANNELS), torch.tensor([0.3, -0.2]).double())
    weights = torch.zeros(2, len(local.terms), CHANNELS).double()
    weights[0, 2, 0], weights[:, 3, 1], weights[0, 0, 1] = 1.0, torch.tensor([0.6, 0.1]).double(), 0.05
    found = local.equation(local.operators(weights.flatten(1)))
    torch.testing.assert_close(found.weights, weights, rtol=1e-9, atol=1e-12)
    assert found.written(["u", "v"], ["x"], [1.0, 1.0, 1.0]) == ["du/dt = 1 v", "dv/dt = 0.05 +0.6 lap u"]


def refined(data, environment):
    squares, moments, local = problem(data, environment)
    return refined_along(local, refine(moments, squares, 1e-14, solve=local.solve), moments, data, environment)


def test_only_the_terms_of_the_equation_are_needed():
    data, environment = waves(noise=1e-3)
    squares, moments, local = problem(data, environment)
    fit = refine(moments, squares, 1e-14, solve=local.solve)
    kept = (needed_coefficients(local, fit, moments) != 0).nonzero().tolist()
    value, curvature = 2 * CHANNELS + 0, 3 * CHANNELS + 1  # v in the rate of u, and lap u in that of v
    assert kept == [[0, value], [0, curvature], [1, curvature]]


def test_whole_trajectories_tell_the_coefficients_more_exactly_than_steps():
    data, environment = waves(noise=1e-2, frames=16)
    squares, moments, local = problem(data, environment)
    steps = refine(moments, squares, 1e-14, solve=local.solve)
    along = refined_along(local, steps, moments, data, environment)
    assert error_beyond(along) < 0.2 * error_beyond(steps)
    torch.testing.assert_close(along.contexts, standardised(along.contexts)[0])


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
