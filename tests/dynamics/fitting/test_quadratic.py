"""Quadratic closed-form dynamics against systems whose equations are known."""

import numpy as np
import pytest
import torch
from torchdiffeq import odeint

from inrflow.dynamics.fields.quadratic import Products
from inrflow.dynamics.fitting.quadratic import QuadraticFit
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData

NOW = torch.zeros(())


def lorenz(t, s):
    """A slowed Lorenz system in units of order one."""
    x, y, z = s.unbind(-1)
    return 0.1 * torch.stack([10 * (y - x), 28 * x - y - 20 * x * z, 20 * x * y - 8 / 3 * z], -1)


def trajectories(count, frames, irregular, seed=0):
    random = np.random.default_rng(seed)
    start = torch.as_tensor(random.uniform(-0.5, 0.5, (count, 3)) + [0, 0, 1])
    steps = 1 + (random.uniform(-0.4, 0.4, (count, frames - 1)) if irregular else np.zeros((count, frames - 1)))
    t = torch.as_tensor(0.4 * np.concatenate([np.zeros((count, 1)), steps.cumsum(1)], 1))
    codes = torch.stack(
        [odeint(lorenz, s, times, rtol=1e-9, atol=1e-10) for s, times in zip(start, t, strict=True)]
    )
    return CodeData(codes, t / 0.4, torch.ones(count, frames, dtype=torch.bool))


def error_of(field, data):
    with torch.no_grad():
        predicted = Integrator(step=0.1)(field, data.codes[:, 0], data.t)
    return float((predicted - data.codes).square().mean() / data.codes.square().mean())


@pytest.mark.parametrize("irregular", [False, True])
def test_quadratic_dynamics_are_found_from_transitions(irregular):
    training, unseen = trajectories(24, 10, irregular), trajectories(4, 8, irregular, seed=1)
    form = QuadraticFit(training, 6).search(lambda field: error_of(field, unseen))
    assert form is not None
    assert len(form.ridges) > 1  # corrections along the flow were made
    assert form.score < 1e-6
    scaled = form.matrix / 0.4  # of a unit of the data's time
    expected = torch.tensor([[-1.0, 1.0, 0.0], [2.8, -0.1, 0.0], [0.0, 0.0, -0.8 / 3]], dtype=torch.float64)
    assert float((scaled - expected).abs().max()) < 0.03


def test_corrections_along_the_flow_come_nearer_to_the_rates():
    def predator(t, s):
        """Lotka and Volterra's equations."""
        x, y = s.unbind(-1)
        return torch.stack([0.4 * x - 0.3 * x * y, 0.2 * x * y - 0.3 * y], -1)

    start = 1 + torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = 1.5 * torch.arange(6).double()
    codes = odeint(predator, start, t, rtol=1e-10, atol=1e-12).transpose(0, 1)
    fit = QuadraticFit(CodeData(codes, t.expand(20, -1), torch.ones(20, 6, dtype=torch.bool)), 3)
    expected = predator(None, start)

    def error(field) -> float:
        rate = field(NOW.double(), start).detach()
        return float((rate - expected).square().sum() / expected.square().sum())

    first, last = fit.search(error, corrections=0), fit.search(error)
    assert first is not None and last is not None and len(first.ridges) == 1
    assert first.score < 1e-1 and last.score < 1e-5 and last.score < 0.5 * first.score


def test_a_search_in_which_everything_diverges_ends_without_a_field():
    assert QuadraticFit(trajectories(4, 4, False), 6).search(lambda field: float("inf")) is None


def test_integrals_along_the_flow_are_those_of_an_adaptive_solver():
    """Of the states (s, integrals) of ds/dt = theta^T phi(s), by an independent solver."""
    data = trajectories(5, 4, True)
    fit = QuadraticFit(data, 6)
    theta = 0.05 * torch.randn(fit.unknowns, 3, generator=torch.Generator().manual_seed(0))
    theta[0] /= fit.constant
    for (total, change), start, end, gap in zip(
        fit.integrals(theta), fit.pairs.start.split(2048), fit.pairs.end.split(2048), fit.pairs.step.split(2048),
        strict=True,
    ):
        joined = torch.cat([start, torch.zeros(len(start), fit.unknowns).double()], 1)

        def rate(part, joined, gap=gap):
            features = fit.features(joined[:, :3])
            return gap[:, None] * torch.cat([features @ theta.double(), features], 1)

        exact = odeint(rate, joined, torch.tensor([0.0, 1.0]).double(), rtol=1e-9, atol=1e-9)[-1]
        torch.testing.assert_close(total.double(), exact[:, 3:], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(change.double(), end - start, rtol=1e-5, atol=1e-6)


def test_fewer_transitions_than_unknowns_give_the_solution_of_the_normal_equations():
    data = trajectories(2, 4, False)
    fit = QuadraticFit(data, 6)
    assert fit.dual
    ((_, short),) = fit.solutions(None, [1e-3])
    fit.dual = False
    ((_, tall),) = fit.solutions(None, [1e-3])
    torch.testing.assert_close(short, tall, rtol=1e-2, atol=1e-4)


def test_frames_that_nobody_observed_are_bridged():
    whole = trajectories(12, 10, False)
    observed = whole.observed.clone()
    observed[::2, 4] = False
    codes = torch.where(observed[..., None], whole.codes, torch.nan)
    form = QuadraticFit(CodeData(codes, whole.t, observed), 6).refit((1e-6, 1e-7, 1e-7))
    assert error_of(form.field(), trajectories(4, 6, False, seed=2)) < 1e-3


def test_a_refit_on_the_same_data_repeats_the_search():
    data = trajectories(12, 8, False)
    fit = QuadraticFit(data, 6)
    found = fit.search(lambda field: error_of(field, data), corrections=1)
    again = QuadraticFit(data, 6).refit(found.ridges)
    torch.testing.assert_close(again.weight, found.weight)


def test_the_jacobian_of_products_with_contexts_is_that_of_their_rate():
    torch.manual_seed(0)
    products = Products(3, 4, context_size=2).double()
    products.set(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 2, 1, 2]), torch.randn(3, 4), torch.randn(2, 3, 4))
    state, context = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    pairs, jacobian = zip(state, context, strict=True), torch.autograd.functional.jacobian
    expected = torch.stack([jacobian(lambda s, c=c: products(NOW, s, c), s) for s, c in pairs])
    torch.testing.assert_close(products.jacobian(NOW, state, context), expected)
