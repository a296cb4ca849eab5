"""Fields with contexts by alternating least squares against systems whose operators and contexts are known."""

import numpy as np
import pytest
import torch
from context_systems import CONTEXTS, SIZE, generator, operators, readout_error, trajectories

from inrflow.dynamics.contexts.search import ContextSearch, fit_contexts
from inrflow.dynamics.fitting.linear import contexts_of, generators_at, moments_of, refine, solve_operators
from inrflow.model.contexts import parameter_contexts
from inrflow.numerics.principal_components import standardised

TRUE = np.random.default_rng(2).standard_normal((6, CONTEXTS))


def moments(irregular=False, each=6, seed=1, contexts=TRUE, parts=None):
    data, environment = trajectories(operators() if parts is None else parts, contexts, each, irregular=irregular,
                                     seed=seed)
    return moments_of(data, environment, len(contexts))


def test_generators_are_the_affine_combination():
    parts = operators()
    found = generators_at(parts, torch.tensor(TRUE))
    for one, context in zip(found, TRUE, strict=True):
        np.testing.assert_allclose(one, generator(parts, context), atol=1e-12)


@pytest.mark.parametrize("irregular", [False, True])
def test_the_exact_generators_solve_their_own_normal_equations(irregular):
    found = moments(irregular)
    exact = generators_at(operators(), torch.tensor(TRUE))
    gram, target, error = found.about(exact)
    torch.testing.assert_close(exact[:, 1:] @ gram, target, atol=1e-9, rtol=0)
    assert float(error.sum()) < 1e-15 * float(found.variance().sum()) + 1e-10


@pytest.mark.parametrize("irregular", [False, True])
def test_operators_are_recovered_at_known_contexts(irregular):
    white = standardised(torch.tensor(TRUE))[0]
    fit = refine(moments(irregular), white, 0.0, rounds=20)
    assert fit.residual < 1e-12
    np.testing.assert_allclose(fit.generators(), generators_at(operators(), torch.tensor(TRUE)),
                               atol=1e-5)


@pytest.mark.parametrize("irregular", [False, True])
def test_contexts_and_operators_are_recovered_from_nothing(irregular):
    data = moments(irregular)
    fit = refine(data, fit_contexts(data, CONTEXTS, 1e-12), 1e-13, rounds=30)
    assert readout_error(fit.contexts, TRUE) < 2e-3 and fit.residual < 1e-6
    np.testing.assert_allclose(fit.generators(), generators_at(operators(), torch.tensor(TRUE)), atol=5e-3)


def test_contexts_are_whitened_and_no_more_than_environments_tell_apart():
    data = moments()
    fit = refine(data, fit_contexts(data, CONTEXTS, 1e-12), 1e-12)
    np.testing.assert_allclose(fit.contexts.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(fit.contexts.T @ fit.contexts / len(TRUE), np.eye(CONTEXTS), atol=1e-8)
    assert fit_contexts(moments(contexts=TRUE[:2]), 3, 1e-12).shape == (2, 1)


def test_the_context_of_another_environment_is_found_in_a_known_field():
    new = np.array([[1.7, -1.2], [-0.4, 0.9]])
    found = contexts_of(moments(each=1, contexts=new, seed=5), operators(), rounds=20)
    np.testing.assert_allclose(found, new, atol=2e-3)


def test_operators_with_a_ridge_are_those_of_the_augmented_least_squares_problem():
    random = np.random.default_rng(3)
    moment, target = random.standard_normal((2, 9, 4)), random.standard_normal((2, 9, 3))
    context = np.array([[1.0], [-1.0]])
    gram = torch.tensor(np.einsum("epi,epj->eij", moment, moment))
    right = torch.tensor(np.einsum("epn,epi->eni", target, moment))
    ridge = 0.2
    strength = ridge * np.diagonal(gram.sum(0).numpy())[1:].mean()
    design = np.concatenate([np.concatenate([m, c * m], 1) for m, c in zip(moment, context, strict=True)])
    penalty = np.sqrt(strength) * np.eye(8)[1:]
    direct = np.linalg.lstsq(np.vstack([design, penalty]), np.vstack([target.reshape(-1, 3), np.zeros((7, 3))]),
                             rcond=None)[0]
    found = solve_operators(gram, right, torch.tensor(context), ridge)
    np.testing.assert_allclose(found.numpy(), direct.T.reshape(3, 2, 4).transpose(1, 0, 2), atol=1e-8)


def test_the_search_judges_held_out_rollouts_and_knows_what_is_undetermined():
    data, environment = trajectories(operators(), TRUE, 6)
    held, held_environment = trajectories(operators(), TRUE, 1, seed=9)
    search = ContextSearch(data, environment, len(TRUE), held, held_environment)
    fit, error = search.search([3, SIZE], [1, 2])
    assert (fit.size, fit.context_size) == (SIZE, 2) and error < 1e-4
    assert search.determined(SIZE, 2) and not search.determined(200, 2)
    assert search.search([3, SIZE], [1])[1] > 100 * error


def test_the_smallest_codes_are_solved_as_well_as_the_largest():
    random = np.random.default_rng(4)
    exact, sizes = random.standard_normal((2, 3, 4)), np.array([1.0, 1.0, 1e-5, 1e-7])
    moment = random.standard_normal((2, 40, 4)) * sizes
    context = np.array([[1.0], [-1.0]])
    target = np.stack([m @ (exact[0] + c * exact[1]).T for m, c in zip(moment, context[:, 0], strict=True)])
    gram = torch.tensor(np.einsum("epi,epj->eij", moment, moment))
    right = torch.tensor(np.einsum("epn,epi->eni", target, moment))
    np.testing.assert_allclose(solve_operators(gram, right, torch.tensor(context), 0.0), exact, atol=1e-6)


def test_contexts_of_a_known_parameter_forecast_beyond_its_range():
    speeds, parts = np.array([0.5, 0.8, 1.0, 1.3, 1.5]), operators(contexts=1)
    systems = speeds[:, None] ** 2
    held, held_environment = trajectories(parts, systems, 1, seed=9)
    given = parameter_contexts(torch.tensor(speeds)[:, None])
    search = ContextSearch(*trajectories(parts, systems, 6), len(speeds), held, held_environment, given=given)
    fit, error = search.search([SIZE], [1, 2])
    assert fit.given and fit.context_size == 1 and error < 1e-12
    slope, mean = np.polyfit(systems[:, 0], fit.contexts[:, 0].numpy(), 1)
    (beyond,) = fit.generators(torch.tensor([[slope * 4.0 + mean]]))
    np.testing.assert_allclose(beyond, generator(parts, [4.0]), atol=1e-5)


def test_contexts_are_solved_where_parameters_say_little_of_systems():
    data, environment = trajectories(operators(), TRUE, 6)
    held, held_environment = trajectories(operators(), TRUE, 1, seed=9)
    given = parameter_contexts(torch.tensor([[3.0], [1.0], [2.0], [6.0], [4.0], [5.0]]))
    fit, error = ContextSearch(data, environment, len(TRUE), held, held_environment, given=given).search([SIZE], [1, 2])
    assert not fit.given and error < 1e-4
