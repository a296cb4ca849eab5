"""Dynamics that commute with translations and depend on contexts, against Burgers equations that are known."""

import pytest
import torch
from spectral_systems import burgers, flows, labels_of

from inrflow.dynamics.contexts.of_waves import solve_contexts, start_contexts
from inrflow.dynamics.contexts.posterior import solve_context
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.spectral import SpectralFit
from inrflow.dynamics.libraries.waves import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.training.parts.spectral import SpectralContextForm, SpectralContexts

VISCOSITIES = (0.03, 0.04, 0.055, 0.07)
TRANSPORTS = (0.03, 0.04, 0.055, 0.07)


class Listener:
    """A recorder that keeps what it is told."""

    stopping = False

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def log(self, *names: object, **values: object) -> None:
        pass


def family(operators: list[SpectralOperator], waves: Waves, each: int, seed: int) -> tuple[CodeData, torch.Tensor]:
    """Trajectories of several systems, one system after the other, and the numbers of the systems."""
    random = torch.Generator().manual_seed(seed)
    data = CodeData.join([flows(waves, operator, each, random) for operator in operators])
    return data, torch.arange(len(operators)).repeat_interleave(each)


def found_contexts(
    labels: HarmonicLabels, operators: list[SpectralOperator], waves: Waves
) -> tuple[SpectralContextForm, float, Listener]:
    """What the search makes of such a family, and the score without contexts."""
    taught, rows = family(operators, waves, 4, 0)
    held, held_rows = family(operators, waves, 2, 1)
    plain = SpectralFit(taught, labels).search(held, 0)
    assert plain is not None
    listener = Listener()
    found = SpectralContexts(taught, rows, held, held_rows, listener).search(plain, (1,), None)
    assert found is not None
    return found, plain.score, listener


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1].abs())


@pytest.fixture(scope="module")
def labels() -> HarmonicLabels:
    return labels_of(1, 1, 4)


@pytest.fixture(scope="module")
def viscous(labels):
    waves = Waves(labels)
    return waves, found_contexts(labels, [burgers(waves, nu) for nu in VISCOSITIES], waves)


def test_a_viscosity_that_nobody_told_is_the_context(viscous):
    _, (found, without, listener) = viscous
    assert correlation(found.contexts[:, 0], torch.tensor(VISCOSITIES).double()) > 1 - 1e-3
    assert found.score < 3e-3 * without
    assert not listener.said


def test_a_new_system_is_found_from_one_trajectory_and_forecast(viscous):
    waves, (found, _, _) = viscous
    truth = burgers(waves, 0.048)
    data = flows(waves, truth, 3, torch.Generator().manual_seed(7))
    prior = torch.zeros(1).double(), torch.eye(1).double()
    integrator = Integrator(step=0.05)
    field = found.form.field()
    context = solve_context(field, integrator, data.first(1), *prior).mean
    state = torch.cat([data.codes[:, 0], context.expand(3, -1)], -1)
    with torch.no_grad():
        forecast = integrator(field, state, data.t)[..., :-1]
    error = (forecast - data.codes)[1:].square().mean() / data.codes[1:].square().mean()
    assert float(error) < 1e-5
    line = torch.stack([torch.ones(4).double(), found.contexts[:, 0]], 1)
    weights = torch.linalg.lstsq(line, torch.tensor(VISCOSITIES).double()[:, None]).solution[:, 0]
    assert float(weights[0] + weights[1] * context[0]) == pytest.approx(0.048, rel=5e-3)


def test_products_depend_on_the_context_where_validation_says_so(labels):
    waves = Waves(labels)
    found, _, _ = found_contexts(labels, [burgers(waves, transport=a) for a in TRANSPORTS], waves)
    assert found.form.operator.coupled
    assert correlation(found.contexts[:, 0], torch.tensor(TRANSPORTS).double()) > 0.99


def test_data_that_do_not_determine_the_dynamics_are_told(labels):
    waves = Waves(labels)
    systems = [burgers(waves, nu) for nu in VISCOSITIES[:2]]
    taught, rows = family(systems, waves, 1, 0)
    short = CodeData(taught.codes[:, :4], taught.t[:, :4], taught.observed[:, :4])
    plain = SpectralFit(short, labels).search(short, 0)
    assert plain is not None
    listener = Listener()
    SpectralContexts(short, rows, short, rows, listener).search(plain, (1,), None)
    assert any("do not determine the dynamics: 6 transitions for" in said for said in listener.said)


@pytest.mark.parametrize("coupled", [False, True])
def test_the_real_field_at_a_context_is_that_of_the_operator_there(labels, coupled):
    waves = Waves(labels)
    added = burgers(waves, 0.01, 0.02)
    if not coupled:
        added.products = added.products[:, :0]
    operator = SpectralOperator(*vars(burgers(waves)).values())
    operator.contexts = (added,)
    random = torch.Generator().manual_seed(3)
    codes, contexts = (torch.randn(3, n, generator=random, dtype=torch.float64) for n in (len(labels), 1))
    field, zero = waves.field(operator), torch.zeros(()).double()
    with torch.no_grad():
        found = field(zero, torch.cat([codes, contexts], 1))[:, :-1]
    for s in range(3):
        transport = 0.05 + 0.02 * float(contexts[s]) * coupled
        there = waves.field(burgers(waves, 0.05 + 0.01 * float(contexts[s]), transport))
        torch.testing.assert_close(found[s], there(zero, codes[s]).detach())


def test_contexts_one_step_from_wrong_ones_come_close_to_the_truth_and_the_operator_follows(labels):
    waves = Waves(labels)
    taught, rows = family([burgers(waves, nu) for nu in VISCOSITIES], waves, 3, 0)
    true = torch.tensor(VISCOSITIES).double()
    true = ((true - true.mean()) / true.std(correction=0))[:, None]
    spread = float(torch.tensor(VISCOSITIES).double().std(correction=0))
    added = burgers(waves, spread)
    added.products = added.products[:, :0]
    mean = burgers(waves, sum(VISCOSITIES) / 4)
    operator = SpectralOperator(mean.constant, mean.linear, mean.products, (added,))
    wrong = true + torch.tensor([[0.1], [-0.1], [0.05], [0.0]]).double()
    fit = SpectralFit(taught, labels, contexts=wrong[rows])
    found, same = solve_contexts(fit, operator, rows, wrong)
    torch.testing.assert_close(found, true, atol=2e-2, rtol=0)
    expected = (-0.05 * torch.arange(waves.count).double().square())[1:]
    at = same.at(found.new_tensor([[(0.05 - sum(VISCOSITIES) / 4) / spread]]))
    torch.testing.assert_close(at.linear[0, 1:, 0, 0].real, expected, rtol=5e-2, atol=0)
    start = start_contexts(SpectralFit(taught, labels, contexts=wrong[rows, :0]), mean, rows, 1)
    assert correlation(start[:, 0], true[:, 0]) > 0.99


def test_a_refit_that_forecasts_its_own_data_worse_is_not_taken(viscous):
    waves, (found, _, _) = viscous
    taught, rows = family([burgers(waves, nu) for nu in VISCOSITIES], waves, 3, 5)
    again = found.refit(taught, rows)
    assert again.form.operator is not found.form.operator
    wrong = CodeData(taught.codes + 10.0 * torch.randn_like(taught.codes), taught.t, taught.observed)
    wrong.codes[0] *= 1e3  # one trajectory that no field of this kind follows
    assert found.refit(wrong, rows) is found
