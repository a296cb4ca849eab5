"""Parameters to contexts and back against a map that is known: a context that is the squared speed."""

import numpy as np
import pytest
import torch

from inrflow.dynamics.contexts.posterior import ContextEstimate
from inrflow.encoding.posterior import chi_squared_quantile
from inrflow.model.contexts import Contexts, ParameterMap, parameter_contexts, truncation_growth
from inrflow.numerics.polynomials import monomials
from inrflow.numerics.principal_components import standardised

SPEED = torch.linspace(0.5, 1.5, 6).double()[:, None]
CONTEXT = (SPEED**2 - 1.0) / 0.6


def test_a_squared_speed_is_found_to_be_one_and_read_off_beyond_the_range():
    fitted = ParameterMap.fit(SPEED, CONTEXT)
    assert fitted.degree == 2 and float(fitted.error.diagonal().max()) < 1e-9
    for speed in (0.3, 0.9, 2.0):
        context = fitted.contexts(torch.tensor([speed]))
        np.testing.assert_allclose(context, [(speed**2 - 1) / 0.6], atol=1e-5)
        mean, covariance = fitted.parameters(context, 1e-8 * torch.eye(1).double())
        np.testing.assert_allclose(mean, [speed], rtol=1e-4)
        expected = np.sqrt(1e-8 + float(fitted.error)) * 0.6 / (2 * speed)  # by the derivative of the root
        np.testing.assert_allclose(covariance.sqrt(), [[expected]], rtol=1e-2)


@pytest.mark.parametrize("seed", [0, 1])
def test_two_parameters_are_told_apart_by_two_contexts(seed):
    random = np.random.default_rng(seed)
    parameters = torch.tensor(random.uniform(1, 2, (12, 2)))
    a, b = parameters.T
    contexts = torch.stack([a + 0.1 * b**2, b + 0.2 * a * b], 1)
    fitted = ParameterMap.fit(parameters, contexts)
    mean, _ = fitted.parameters(fitted.contexts(torch.tensor([1.2, 1.7])), 1e-9 * torch.eye(2).double())
    np.testing.assert_allclose(mean, [1.2, 1.7], atol=1e-3)


@pytest.mark.parametrize(("power", "function"), [
    (-1, lambda p: 3 / p - 1), (0, lambda p: 2 - torch.as_tensor(p).log())])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_reciprocals_and_logarithms_are_found_and_read_off_beyond_the_range(power, function, unit):
    parameters = torch.tensor([15.0, 25.0, 40.0, 60.0, 80.0, 110.0]).double()[:, None] * unit
    fitted = ParameterMap.fit(parameters, function(parameters / unit))
    assert fitted.degree == 1 and fitted.powers.tolist() == [power]
    for value in (8.0, 33.0, 300.0):
        mean, covariance = fitted.parameters(function(torch.tensor([value]).double()), 1e-8 * torch.eye(1).double())
        np.testing.assert_allclose(mean, [value * unit], rtol=1e-3)
        moved = fitted.parameters(function(torch.tensor([1.01 * value]).double()), 1e-8 * torch.eye(1).double())[0]
        slope = (moved - mean) / (function(1.01 * value) - function(value))
        np.testing.assert_allclose(covariance.sqrt()[0], slope.abs() * (1e-8 + float(fitted.error)) ** 0.5, rtol=0.05)


def test_three_systems_tell_a_square():
    """As of waves, whose coefficient is the square of their speed; a parabola has no system to be judged by."""
    speeds = torch.tensor([0.5, 1.0, 1.5]).double()[:, None]
    fitted = ParameterMap.fit(speeds, standardised(speeds**2)[0])
    scale = standardised(speeds**2)[0].diff(dim=0)[0] / (1.0 - 0.25)
    context = standardised(speeds**2)[0][1] + scale * (1.8**2 - 1.0)
    mean, covariance = fitted.parameters(context, 1e-10 * torch.eye(1).double())
    np.testing.assert_allclose(mean, [1.8], rtol=1e-4)
    slope = (fitted.parameters(context + 1e-3, 1e-10 * torch.eye(1).double())[0] - mean) / 1e-3
    np.testing.assert_allclose(covariance.sqrt(), slope.abs()[None] * (1e-10 + float(fitted.error)) ** 0.5, rtol=0.01)


def test_what_no_positive_parameter_gives_is_read_off_as_a_large_one():
    parameters = torch.tensor([15.0, 25.0, 40.0, 60.0]).double()[:, None]
    fitted = ParameterMap.fit(parameters, 1 / parameters)
    mean, covariance = fitted.parameters(torch.tensor([-0.01]).double(), 1e-8 * torch.eye(1).double())
    assert 60 < float(mean) < np.inf and float(covariance) > float(mean)
    assert bool(torch.isfinite(fitted.contexts(torch.zeros(1))).all())


def test_one_of_two_parameters_divides():
    random = np.random.default_rng(2)
    a, b = torch.tensor(random.uniform(1, 4, (2, 9)))
    fitted = ParameterMap.fit(torch.stack([a, b], 1), torch.stack([a - 2 / b, a + 1 / b], 1))
    assert fitted.powers.tolist() == [1, -1] and fitted.written(("a", "b")) == ["a", "1 / b"]
    mean, _ = fitted.parameters(torch.tensor([2.0 - 2 / 6, 2.0 + 1 / 6]).double(), 1e-9 * torch.eye(2).double())
    np.testing.assert_allclose(mean, [2.0, 6.0], rtol=1e-3)


def test_a_straight_line_stays_one_where_contexts_are_noisy():
    noise = 0.05 * torch.randn(6, 1, generator=torch.Generator().manual_seed(0)).double()
    fitted = ParameterMap.fit(SPEED, SPEED + noise)
    assert fitted.degree == 1 and fitted.powers == 1 and 1e-4 < float(fitted.error) < 0.05


@pytest.mark.parametrize(("degrees", "published"), [(1, 10.828), (2, 13.816), (5, 20.515)])
def test_quantiles_of_chi_squared_are_those_of_tables(degrees, published):
    assert chi_squared_quantile(0.999, degrees) == pytest.approx(published, abs=1e-3)


def test_contexts_beyond_those_of_training_and_a_margin_are_outside():
    known = Contexts("parameters", CONTEXT, torch.arange(6), ("speed",), SPEED, ParameterMap.fit(SPEED, CONTEXT))
    farthest = float(CONTEXT.abs().max())
    assert not known.outside(torch.tensor([1.05 * farthest])) and known.outside(torch.tensor([-1.15 * farthest]))
    nearest = float(CONTEXT.min())  # less far from the mean
    assert not known.outside(torch.tensor([1.05 * nearest])) and known.outside(torch.tensor([1.15 * nearest]))
    assert not known.outside(torch.zeros(1).double())
    again = Contexts.from_state(known.state())
    assert again.names == ("speed",) and again.map is not None and again.nearest(torch.tensor([9.0])) == 5


def test_contexts_outside_by_less_than_those_of_training_systems_err_are_not_told_from_these():
    known = Contexts("environment", CONTEXT, torch.arange(6), error=torch.tensor([0.5]).double())
    farthest = CONTEXT[CONTEXT.abs().argmax()]
    edge = farthest + 0.45 * farthest.sign()
    assert not known.outside(edge) and known.warning(edge) is None and known.outside(farthest + 0.55 * farthest.sign())
    assert known.outside(edge, exact=True) and "outside the training distribution" in known.warning(edge, None)
    again = Contexts.from_state(known.state())
    assert not again.outside(edge)
    old = {key: value for key, value in known.state().items() if key != "error"}
    assert Contexts.from_state(old).outside(edge)


def test_an_estimate_is_outside_where_its_posterior_excludes_all_contexts_between_those_of_training():
    values = torch.tensor([[-1.3, 0.7], [-0.4, -1.0], [0.5, -0.9], [1.2, 1.2]]).double()
    known = Contexts("environment", values, torch.arange(4))
    far = torch.tensor([2.4, 2.6]).double()
    along = torch.tensor([[0.5, 0.53], [0.53, 0.6]]).double()  # wide towards the others
    across = torch.tensor([[0.5, -0.53], [-0.53, 0.6]]).double()
    assert known.outside(far) and known.outside(far, covariance=1e-4 * along) and known.outside(far, covariance=across)
    assert not known.outside(far, covariance=along) and known.warning(far, 0.0, along) is None
    assert not known.outside(0.9 * values[3], covariance=1e-8 * along)
    line = Contexts("environment", CONTEXT, torch.arange(6))
    edge, step = 1.1 * CONTEXT.max(), 0.2
    wide = (1 + float(edge + step) ** 2) / 2  # of an estimate so far away
    for share, excluded in ((0.9, True), (1.1, False)):
        variance = torch.tensor([[share * wide * step**2 / 10.828]]).double()
        assert line.outside((edge + step)[None], covariance=variance) == excluded


def test_no_context_between_those_of_training_is_outside():
    values = standardised(torch.tensor(np.random.default_rng(3).exponential(size=(6, 2))))[0]
    known = Contexts("environment", values, torch.arange(6))
    shares = torch.tensor(np.random.default_rng(4).dirichlet(np.ones(6), 200))
    assert not any(known.outside(one) for one in shares @ values)
    assert known.outside(2 * values[values.square().sum(1).argmax()])


def test_intervals_widen_as_a_regression_on_the_contexts_does():
    torch.manual_seed(0)
    values = standardised(torch.randn(7, 2, dtype=torch.float64))[0]
    known = Contexts("environment", values, torch.arange(7))
    design = torch.cat([torch.ones(7, 1), values], 1).double()
    inverse = torch.linalg.inv(design.T @ design)
    asked = torch.tensor([[1.0, 2.0], [-3.0, 0.5], [4.0, 4.0]], dtype=torch.float64)
    rows = torch.cat([torch.ones(3, 1), asked], 1).double()
    variance = torch.einsum("ei,ij,ej->e", rows, inverse, rows)
    average = torch.einsum("ei,ij,ej->e", design, inverse, design).mean()
    torch.testing.assert_close(known.widening(asked), (variance / average).sqrt())
    assert float(known.widening(torch.zeros(2).double())) == 1.0


def test_known_parameters_may_enter_as_powers_and_products_that_environments_tell_apart():
    pairs = [[1.0, 2.0], [2.0, 1.0], [3.0, 5.0], [4.0, 3.0], [0.5, 1.0]]
    forms = parameter_contexts(torch.tensor(pairs, dtype=torch.float64))
    assert {form.shape[1] for form in forms} == {2}  # of five environments, five numbers tell nothing
    for form in parameter_contexts(torch.tensor([[-1.0], [0.0], [1.0], [3.0]], dtype=torch.float64)):  # no logarithms
        assert torch.isfinite(form).all()
        torch.testing.assert_close(form.T @ form / 4, torch.eye(form.shape[1], dtype=torch.float64))


def test_what_operators_of_second_order_in_contexts_miss_grows_with_squares_of_these():
    values = standardised(torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None])[0]
    design = torch.cat([torch.ones_like(values), values], 1)
    missed = values.square() - design @ torch.linalg.lstsq(design, values.square()).solution
    far = torch.tensor([[3.0], [-6.0]], dtype=torch.float64)
    error = (far.square() - 1).abs()[:, 0] / missed.square().mean().sqrt()  # the fit is the mean, 1
    first, second = (Contexts("environment", values, torch.arange(7), growth=g).widening(far) for g in (1.0, 2.0))
    assert bool((first < 0.4 * error).all()) and bool(((second > 0.4 * error) & (second < 2 * error)).all())


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_intervals_beyond_the_environments_widen_as_what_the_next_degree_adds_does(degree):
    parameters, far = (torch.tensor(p).double()[:, None] for p in ([-1, -0.6, -0.2, 0.2, 0.6, 1], [-1.2, 1.4, -2, 3]))
    design, beyond = (monomials(p, degree) for p in (parameters, far))
    values, mean, factor = standardised(design[:, 1:])
    fit = torch.linalg.lstsq(design, parameters ** (degree + 1)).solution
    missed = (parameters ** (degree + 1) - design @ fit).square().mean().sqrt()
    error = (far ** (degree + 1) - beyond @ fit).abs()[:, 0] / missed
    told = Contexts("environment", values, torch.arange(6), growth=truncation_growth(degree)).widening(
        (beyond[:, 1:] - mean) @ torch.linalg.inv(factor).T)
    assert bool((told > 0.3 * error).all()) and bool((told < error).all())


@pytest.mark.parametrize(("function", "exact"), [(lambda p: p**2, True), (lambda p: 1 / (2.5 - p), False)])
def test_what_a_map_misses_beyond_its_environments_is_told_unless_it_is_exact(function, exact):
    parameters = torch.tensor([-1.0, -0.4, 0.0, 0.5, 1.0]).double()[:, None]
    fitted = ParameterMap.fit(parameters, function(parameters))
    asked = torch.tensor([[0.2], [-1.5], [2.0]]).double()
    error = (fitted.contexts(asked) - function(asked)).abs()[:, 0]
    told = fitted.error_at(asked)[:, 0, 0].sqrt()
    if exact:
        assert bool((told < 1e-4).all())
    else:
        assert bool((error < 1.5 * told).all()) and bool(told[2] > 10 * told[0])
    torch.testing.assert_close(fitted.error_at(asked[0]), fitted.error_at(asked)[0])


def test_a_parameter_may_act_as_an_exponential():
    parameters = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]

    def truth(p: torch.Tensor) -> torch.Tensor:
        return (-0.8 * p).exp()

    fitted = ParameterMap.fit(parameters, truth(parameters))
    assert fitted.powers.isinf().all() and fitted.written(["k"])[0] in ("exp k", "exp -k")
    asked = torch.tensor([[-1.5], [0.3], [1.8]]).double()
    torch.testing.assert_close(fitted.contexts(asked), truth(asked), rtol=0.02, atol=0)
    mean, covariance = fitted.parameters(truth(torch.tensor([1.4]).double()), 1e-8 * torch.eye(1).double())
    torch.testing.assert_close(mean, torch.tensor([1.4]).double(), rtol=0.02, atol=0)
    assert float(covariance) > 1e-8 / 0.8**2  # what the map leaves open counts, too
    forms = [torch.cat([torch.ones(9, 1), form], 1).double() for form in parameter_contexts(parameters)]
    left = [float((form @ torch.linalg.lstsq(form, truth(parameters)).solution - truth(parameters)).abs().max())
            for form in forms]
    assert min(left) < 0.05 * min(left[:2])  # those of the parameter and its square


def test_contexts_that_one_parameter_tells_stay_on_its_curve():
    parameters = torch.linspace(1.0, 2.0, 6).double()[:, None]
    values = torch.cat([parameters - 1.5, (parameters - 1.5) ** 2], 1)
    known = Contexts("parameters", values, torch.arange(6), ("a",), parameters, ParameterMap.fit(parameters, values))
    found = ContextEstimate(torch.tensor([0.2, 0.3]).double(), torch.diag(torch.tensor([1e-6, 1.0]).double()), 0.0)
    prior = known.along(found)  # the second number is hardly known, and is that of the curve
    np.testing.assert_allclose(prior.mean, [0.2, 0.04], atol=1e-5)
    across = torch.tensor([-0.4, 1.0]).double()
    assert float(across @ prior.covariance @ across) < 1e-6 < 1e-2 < float(prior.covariance[0, 0])
    assert Contexts("environment", values, torch.arange(6)).along(found) is None


def test_contexts_lie_about_the_curve_as_a_regression_predicts_them():
    """s^2 (1 + x' (X' X)^-1 x) of least squares, s^2 over n - p degrees of freedom."""
    parameters, random = torch.linspace(1.0, 2.0, 8).double()[:, None], np.random.default_rng(3)
    values = 2 * parameters - 3 + 0.05 * torch.tensor(random.standard_normal((8, 2)))
    x = np.stack([np.ones(8), parameters[:, 0].numpy()], 1)
    theta = np.linalg.lstsq(x, values.numpy(), rcond=None)[0]
    none, one = torch.zeros(2, 2).double(), torch.ones(1).double()
    fitted = ParameterMap(0 * one, one, torch.tensor(theta), 1, none, parameters)
    for at in (1.3, 3.0):
        missed, here = values.numpy() - x @ theta, np.array([1.0, at])
        expected = missed.T @ missed / 6 * (1 + here @ np.linalg.inv(x.T @ x) @ here)
        np.testing.assert_allclose(fitted.residual_at(torch.tensor([at]).double(), values), expected, rtol=1e-6)


def test_systems_on_a_curve_are_outside_where_their_parameter_is():
    """The curve (a, a^2, a^3) leaves the convex hull of its own training systems between them."""
    parameters = torch.linspace(1.0, 2.0, 6).double()[:, None]
    values = standardised(parameters ** torch.arange(1, 4))[0]
    known = Contexts("parameters", values, torch.arange(6), ("a",), parameters, ParameterMap.fit(parameters, values))
    known.missed = 1e-4
    inside = [known.map.contexts(torch.tensor([a]).double()) for a in (1.1, 1.5, 1.93)]
    assert not any(known.warning(context, 5e-4) for context in inside)
    outside = known.map.contexts(torch.tensor([2.2]).double())
    assert "a 2.2, in training 1 to 2" in known.warning(outside)
    assert "no context explains" in known.warning(inside[0], 4e-3)
    known.error = torch.tensor([0.25]).double()  # of the parameter
    assert known.warning(outside) is None and "a 2.2, in training 1 to 2" in known.warning(outside, None)


def test_two_parameters_may_enter_by_unlike_powers():
    random = np.random.default_rng(0)
    parameters = torch.tensor(0.5 + random.random((9, 2)))
    wanted = standardised(torch.stack([parameters[:, 0] ** 2, parameters[:, 1]], 1))[0]
    forms = parameter_contexts(parameters, alike=True)
    assert any(form.shape == wanted.shape and torch.allclose(form, wanted) for form in forms)
