"""Local dynamics: the right side of a reaction-diffusion equation, its coefficients and contexts from transitions."""

import math

import pytest
import torch

from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.context_solve import solve_context
from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.local_field import LocalField, laplacian
from inrflow.dynamics.local_fit import Estimate, first_guess, fit_local, gauss_newton, low_rank
from inrflow.dynamics.states import CodeData
from inrflow.errors import UserError

PERIOD, WAVES = 2.0, 3
INTEGRATOR = Integrator(step=0.25)


def harmonic_decoder() -> ModulatedSiren:
    """Two channels on a line, each with the harmonics up to WAVES; codes are their weights."""
    decoder = ModulatedSiren(make_embedding([0.0], [PERIOD], (PERIOD,), None, 2, WAVES), 2, 1, 0, 0).double()
    features = decoder.features_size
    decoder.set_output(torch.zeros(2, features), torch.eye(2 * features).reshape(-1, 2, features))
    return decoder


def local_field(contexts: int = 0) -> LocalField:
    return LocalField(harmonic_decoder(), [0.0], [PERIOD], 4 * WAVES + 1, 3, contexts)


def brusselator(field: LocalField, feed: float) -> torch.Tensor:
    """Coefficients of u' = feed - 0.5 u + 0.3 u^2 v + 0.02 lap u, v' = 0.2 u - 0.3 u^2 v + 0.01 lap v."""
    coefficients = torch.zeros(field.coefficients.shape[1:], dtype=torch.float64)
    place = {monomial: index for index, monomial in enumerate(field.monomials)}
    coefficients[place[0, 0], 0] = feed
    coefficients[place[1, 0]] = torch.tensor([-0.5, 0.2]).double()
    coefficients[place[2, 1]] = torch.tensor([0.3, -0.3]).double()
    coefficients[len(place), 0] = 0.02 / field.unit
    coefficients[len(place) + 1, 1] = 0.01 / field.unit
    return coefficients


def trajectories(feeds: list[float], each: int, seed: int) -> tuple[CodeData, torch.Tensor]:
    """Exact flows of several environments."""
    parts, frames = [], torch.arange(5, dtype=torch.float64)
    for e, feed in enumerate(feeds):
        field = local_field()
        with torch.no_grad():
            field.coefficients[0] = brusselator(field, feed)
            random = torch.Generator().manual_seed(seed + e)
            start = 0.7 * torch.randn(each, field.code_size, generator=random, dtype=torch.float64)
            codes = INTEGRATOR(field, start, frames)
        parts.append(CodeData(codes, frames.expand(each, -1), torch.ones(each, 5, dtype=torch.bool)))
    return CodeData.join(parts), torch.arange(len(feeds)).repeat_interleave(each)


def test_rates_are_those_of_the_equation_at_every_point():
    field, decoder = local_field(), harmonic_decoder()
    x = torch.arange(40, dtype=torch.float64)[:, None] * PERIOD / 40
    wave = torch.cat([torch.ones_like(x), (math.pi * x).cos(), (math.pi * x).sin()], 1)  # its cubes are in the codes
    weights = 0.3 * torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = (wave @ weights).flatten(1)
    codes = torch.linalg.lstsq(decoder.basis(x)[1].flatten(0, 1), values.T).solution.T
    x = torch.linspace(0, PERIOD, 40, dtype=torch.float64)[:, None].requires_grad_()
    rates = field.rates(codes, brusselator(field, 0.4))
    for code, rate in zip(codes, rates, strict=True):
        u = decoder(x, code)
        curved = []
        for channel in range(2):
            (slope,) = torch.autograd.grad(u[:, channel].sum(), x, create_graph=True)
            curved.append(torch.autograd.grad(slope.sum(), x, retain_graph=True)[0][:, 0])
        reaction = 0.3 * u[:, 0] ** 2 * u[:, 1]
        expected_u = 0.4 - 0.5 * u[:, 0] + reaction + 0.02 * curved[0]
        expected_v = 0.2 * u[:, 0] - reaction + 0.01 * curved[1]
        torch.testing.assert_close(decoder(x, rate), torch.stack([expected_u, expected_v], 1), rtol=0.0, atol=1e-7)


def test_translated_states_have_translated_rates():
    field, decoder = local_field(), harmonic_decoder()
    codes = torch.randn(1, field.code_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.arange(40, dtype=torch.float64)[:, None] * PERIOD / 40
    offset, basis = decoder.basis(x + 0.37)
    moved = torch.linalg.lstsq(decoder.basis(x)[1].flatten(0, 1), (basis @ codes[0] + offset).flatten()[:, None])
    coefficients = torch.randn(field.coefficients.shape[1:], generator=torch.Generator().manual_seed(2)).double()
    rates = field.rates(torch.cat([codes, moved.solution.T]), coefficients)
    torch.testing.assert_close(decoder(x + 0.37, rates[0]), decoder(x, rates[1]), rtol=1e-8, atol=1e-8)


def test_laplacian_of_a_wave_on_a_plane():
    axis = torch.arange(9, dtype=torch.float64) / 9
    x, y = torch.meshgrid(axis * 2, axis * 3, indexing="ij")
    wave = torch.sin(2 * math.pi * (x / 2 + 2 * y / 3)).flatten()
    expected = -((math.pi) ** 2 + (4 * math.pi / 3) ** 2) * wave
    torch.testing.assert_close(laplacian(wave, 9, (2.0, 3.0)), expected)


def test_gauss_newton_finds_the_equation_where_the_trapezoidal_rule_is_only_near():
    data, _ = trajectories([0.4], 3, 0)
    field = local_field()
    guess, true = first_guess(field, data), brusselator(field, 0.4)
    found = gauss_newton(field, data, guess, INTEGRATOR, 10)
    assert (guess - true).abs().max() > 1e-3
    torch.testing.assert_close(found.coefficients, true, rtol=0.0, atol=1e-5)
    assert found.misfit < 1e-12


def test_contexts_of_environments_order_the_parameter_and_a_new_one_is_solved_for():
    feeds = [0.2, 0.4, 0.7]
    data, environment = trajectories(feeds, 4, 0)
    field = local_field(contexts=1)
    contexts = fit_local(field, data, environment, INTEGRATOR, iterations=10)
    slope = (contexts[2] - contexts[0]) / (feeds[2] - feeds[0])
    assert float(contexts[1] - contexts[0]) == pytest.approx(float(slope) * 0.2, rel=1e-3)
    new, _ = trajectories([0.5], 1, 9)
    solved = solve_context(field, INTEGRATOR, new, torch.zeros(1).double(), 100 * torch.eye(1).double(), longest=1)
    assert float(solved.mean) == pytest.approx(float(contexts[0] + slope * 0.3), abs=2e-3)


def test_low_rank_is_exact_where_the_coefficients_are_affine_in_the_contexts():
    random = torch.Generator().manual_seed(3)
    operators, contexts = torch.randn(3, 8, generator=random).double(), torch.randn(5, 2, generator=random).double()
    values = operators[0] + contexts @ operators[1:]
    factors = torch.randn(5, 8, 8, generator=random).double()
    estimates = [Estimate(v.reshape(4, 2), f @ f.T, 0.0) for v, f in zip(values, factors, strict=True)]
    found, solved = low_rank(estimates, 2)
    torch.testing.assert_close(
        found[0] + torch.einsum("ej,jkc->ekc", solved, found[1:]), values.reshape(5, 4, 2), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(solved.T @ solved / 5, torch.eye(2).double())


def test_domains_that_are_not_periodic_are_refused():
    with pytest.raises(UserError, match="periodic in all coordinates"):
        LocalField(harmonic_decoder(), [0.0], None, 13)
