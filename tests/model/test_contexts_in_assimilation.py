"""Contexts as states that stay: the linearised flow, the filter and what it learns of a context from a window."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.optimize import least_squares

from inrflow.data.batch import Normalisation, TimeScale, TrajectoryBatch
from inrflow.data.description import Description
from inrflow.decoders.base import Decoder
from inrflow.dynamics.contexts.posterior import solve_context
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData
from inrflow.model import variational
from inrflow.model.assimilation import Dynamics, assimilate
from inrflow.model.contexts import Contexts, ParameterMap
from inrflow.model.state_prior import ContextPrior, StatePrior
from inrflow.model.store_v1 import Products
from inrflow.model.surrogate import Surrogate

INTEGRATOR = Integrator(step=0.05)


def rotation(quadratic=0):
    """A rotation whose rate is 0.5 + 0.2 c, with a motion that depends on c; some quadratic part if wanted."""
    torch.manual_seed(0)
    field = VectorField.of(2, context_size=1).double()
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    field.set_linear(0.5 * turn, torch.tensor([0.1, 0.0]).double())
    field.linear.set_context(0.2 * turn[None], torch.tensor([[0.0, 0.05]]).double())
    if quadratic:
        pairs = torch.triu_indices(2, 2)[:, :quadratic]
        field.add(Products(2, quadratic, 1).double())
        field.term(Products).set(*pairs, 0.1 * torch.randn(2, quadratic), 0.1 * torch.randn(1, 2, quadratic))
    return field


def exact_flow(state, gap):
    c = state[2]
    matrix = np.zeros((3, 3))
    matrix[1:, 1:] = (0.5 + 0.2 * c) * np.array([[0, 1], [-1, 0]])
    matrix[1:, 0] = [0.1, 0.05 * c]
    return np.append((expm(matrix * gap) @ np.append(1.0, state[:2]))[1:], c)


@pytest.mark.parametrize("gap", [0.3, 2.0])
def test_the_linearised_flow_is_the_derivative_of_the_exact_one_in_state_and_context(gap):
    dynamics = Dynamics(rotation(), INTEGRATOR, torch.zeros(3).double())
    start = torch.tensor([[0.7, -0.4, 0.3], [0.1, 1.2, -1.5]]).double()
    begin, end = torch.zeros(2).double(), torch.full((2,), gap).double()
    stop = dynamics.flow(start, torch.stack([begin, end], 1))[:, 1]
    _, flow = dynamics.propagate(torch.eye(3).double()[None], start, stop, begin, end)
    for row in range(2):
        s = start[row].numpy()
        differences = [(exact_flow(s + 1e-6 * e, gap) - exact_flow(s - 1e-6 * e, gap)) / 2e-6 for e in np.eye(3)]
        np.testing.assert_allclose(flow[row], np.stack(differences, 1), atol=1e-6)


def test_context_columns_of_a_nonlinear_field_are_those_of_automatic_differentiation():
    field = rotation(quadratic=2)
    dynamics = Dynamics(field, INTEGRATOR, torch.zeros(3).double())
    start, times = torch.tensor([[0.7, -0.4, 0.3]]).double(), torch.tensor([[0.0, 0.8]]).double()
    columns = dynamics.context_columns(start, times[:, 0], times[:, 1])
    expected = torch.autograd.functional.jacobian(lambda s: INTEGRATOR(field, s, times)[0, 1], start)[:, 0, 2:]
    torch.testing.assert_close(columns[0], expected, atol=1e-7, rtol=0)


class Plain(Decoder):
    """Two values at two points are the code itself."""

    affine = True

    def __init__(self):
        super().__init__()
        self.code_size = 2
        self.weight = torch.nn.Parameter(torch.eye(2).double(), requires_grad=False)

    def basis(self, x):
        return torch.zeros(*x.shape[:-1], 1).double(), self.weight[:, None].expand(*x.shape[:-1], 1, 2)

    def forward(self, x, z):
        offset, basis = self.basis(x)
        return offset + torch.einsum("...ncz,...z->...nc", basis, z)


PRIOR = StatePrior(torch.zeros(3).double(), torch.eye(3).double(), torch.full((1,), 1e-6).double(),
                   torch.tensor([1e-10, 1e-10, 0.0]).double(), torch.ones(1).double())


def window(context, frames=6, step=1.0):
    start = np.array([1.0, 0.3, context])
    states = np.stack([exact_flow(start, step * k)[:2] for k in range(frames)])
    t = torch.arange(frames).double()[None] * step
    return TrajectoryBatch(t, torch.zeros(1, 1, 2, 1).double(), torch.tensor(states)[None, ..., None])


@pytest.mark.parametrize("context", [0.2, 2.8])
def test_a_window_tells_the_context_near_and_far_from_its_mean(context):
    seen = window(context)
    dynamics = Dynamics(rotation(), INTEGRATOR, PRIOR.process)
    codes = CodeData(seen.u[..., 0], seen.t, torch.ones(1, 6, dtype=torch.bool))
    nominal = solve_context(dynamics.field, INTEGRATOR, codes, torch.zeros(1).double(), torch.eye(1).double()).mean
    prior = ContextPrior(torch.zeros(1).double(), torch.eye(1).double(), nominal)
    estimate = assimilate(Plain(), dynamics, PRIOR, seen, context=prior)
    deviation = float(estimate.covariance[-1][0, 2, 2].sqrt())
    assert abs(float(estimate.mean[0, -1, 2]) - context) < 3 * deviation < 0.02
    torch.testing.assert_close(estimate.mean[0, :, 2], estimate.mean[0, -1, 2].expand(6), atol=1e-4, rtol=0)


def test_each_trajectory_may_know_its_context_to_an_accuracy_of_its_own():
    parts = [window(context, frames=3) for context in (0.2, 1.1)]
    t, u = (torch.cat([getattr(part, key) for part in parts]) for key in ("t", "u"))
    both = TrajectoryBatch(t, parts[0].x, u)
    means, covariances = torch.tensor([[0.1], [1.0]]).double(), torch.tensor([[[0.04]], [[1e-8]]]).double()
    dynamics, prior = Dynamics(rotation(), INTEGRATOR, PRIOR.process), ContextPrior(means, covariances)
    together = assimilate(Plain(), dynamics, PRIOR, both, context=prior)
    assert not prior.known and prior.select(torch.tensor([1])).covariance.shape == (1, 1, 1)
    for row, part in enumerate(parts):
        alone = assimilate(Plain(), dynamics, PRIOR, part, context=ContextPrior(means[row], covariances[row]))
        torch.testing.assert_close(together.mean[row], alone.mean[0], atol=1e-9, rtol=0)
        for every, one in zip(together.covariance, alone.covariance, strict=True):
            torch.testing.assert_close(every[row], one[0], atol=1e-9, rtol=0)


def test_one_frame_says_nothing_of_the_context_and_its_uncertainty_grows_into_the_forecast():
    dynamics = Dynamics(rotation(), INTEGRATOR, PRIOR.process)
    estimate = assimilate(Plain(), dynamics, PRIOR, window(1.0, frames=1))
    assert float(estimate.mean[0, 0, 2]) == 0.0 and float(estimate.covariance[0][0, 2, 2]) == 1.0
    start = estimate.mean[:, 0]
    times = torch.tensor([[0.0, 3.0]]).double()
    stop = dynamics.flow(start, times)[:, 1]
    moved, _ = dynamics.propagate(estimate.covariance[0], start, stop, times[:, 0], times[:, 1])
    draws = np.random.default_rng(0).standard_normal(4000)
    ends = np.stack([exact_flow(np.array([1.0, 0.3, c]), 3.0)[:2] for c in 0.1 * draws])
    dynamics_spread = moved[0, :2, :2].numpy() * 0.1**2  # linear: a tenth of the deviation, where the flow is linear
    np.testing.assert_allclose(np.cov(ends.T), dynamics_spread, atol=0.1 * dynamics_spread.max())


@pytest.mark.parametrize(("values", "smoothed"), [(2, True), (3, True), (4, False)])
def test_codes_of_few_values_are_smoothed_however_well_they_seem_known(values, smoothed, monkeypatch):
    class Several(Plain):
        def basis(self, x):
            weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]]).double()[: x.shape[-2]]
            return torch.zeros(*x.shape[:-1], 1).double(), weight[:, None].expand(*x.shape[:-1], 1, 2)

    seen, decoder = window(1.2), Several()
    x = torch.zeros(1, 1, values, 1).double()
    seen = TrajectoryBatch(seen.t, x, decoder(x, seen.u[..., 0]))
    surrogate = Surrogate(Description("turning", ("u",), ("x",)), Normalisation(torch.zeros(1), torch.ones(1)), decoder,
                          rotation(), INTEGRATOR, PRIOR, TimeScale(0.0, 1.0), np.array([[0.0], [1.0]]), 5.0, {})
    calls, estimate = [], Surrogate.estimate
    monkeypatch.setattr("inrflow.model.variational.unknown", lambda *_: 0.0)
    monkeypatch.setattr(Surrogate, "estimate", lambda *given: calls.append(1) or estimate(*given))
    assert float(surrogate.solve_context([seen]).mean) == pytest.approx(1.2, abs=0.01)
    assert bool(calls) == smoothed


def test_frames_that_each_show_half_of_the_state_tell_the_context_together():
    seen = window(1.2, frames=10, step=0.6)
    seen.u[:, :, 1] = torch.nan
    description = Description("turning", ("u",), ("x",))
    surrogate = Surrogate(description, Normalisation(torch.zeros(1), torch.ones(1)), Plain(), rotation(), INTEGRATOR,
                          PRIOR, TimeScale(0.0, 1.0), np.array([[0.0], [1.0]]), 5.4, {})
    prior = torch.zeros(1).double(), torch.eye(1).double()
    alone = solve_context(surrogate.field, INTEGRATOR, surrogate.codes(seen), *prior)
    errors = [abs(float(found.mean) - 1.2) for found in (alone, surrogate.solve_context([seen]))]
    assert errors[0] > 0.2 and errors[1] < 0.02


def test_the_context_of_noisy_halves_of_states_is_the_most_probable_one_given_all_frames():
    """Against nonlinear least squares of the first state and the context, whose priors are standard normal."""
    seen = window(1.2, frames=10, step=0.6)
    seen.u[:, :, 1] = torch.nan
    seen.u[..., 0] += 1e-3 * torch.randn(seen.u.shape[:3], generator=torch.Generator().manual_seed(3)).double()
    surrogate = Surrogate(Description("turning", ("u",), ("x",)), Normalisation(torch.zeros(1), torch.ones(1)), Plain(),
                          rotation(), INTEGRATOR, PRIOR, TimeScale(0.0, 1.0), np.array([[0.0], [1.0]]), 5.4, {})

    def missed(unknown):
        path = [exact_flow(unknown, 0.6 * k)[0] for k in range(10)]
        return np.concatenate([(np.array(path) - seen.u[0, :, 0, 0].numpy()) / 1e-3, unknown])

    best = least_squares(missed, [1.0, 0.3, 1.2], x_scale=1e-2)
    deviation = np.sqrt(np.linalg.inv(best.jac.T @ best.jac)[2, 2])
    found = surrogate.solve_context([seen])
    assert abs(float(found.mean) - best.x[2]) < 0.1 * deviation
    np.testing.assert_allclose(float(found.covariance.sqrt()), deviation, rtol=0.1)


def test_frames_none_of_which_follow_another_leave_the_context_as_it_was():
    seen = window(1.2, frames=2)
    seen.u[:, 1] = torch.nan
    known = Contexts("environment", torch.tensor([[-1.0], [1.0]]).double(), torch.arange(2), missed=1e-4)
    surrogate = Surrogate(Description("turning", ("u",), ("x",)), Normalisation(torch.zeros(1), torch.ones(1)), Plain(),
                          rotation(), INTEGRATOR, PRIOR, TimeScale(0.0, 1.0), np.array([[0.0], [1.0]]), 1.0, {},
                          contexts=known)
    found = surrogate.solve_context([seen])
    assert abs(float(found.mean)) < 1e-6 and float(found.covariance) == pytest.approx(1.0)


@pytest.mark.parametrize("context", [(0.4, 0.4**2 - 1), (0.4, 1.7)])
def test_a_system_that_no_parameter_explains_has_a_context_beside_their_curve(context):
    """Rotations of rate 0.5 + 0.2 a that decay by 0.2 b, trained where b = a^2 - 1."""
    turn, gap = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double(), 0.7
    field = VectorField.of(2, context_size=2).double()
    field.set_linear(0.5 * turn, torch.zeros(2).double())
    field.linear.set_context(torch.stack([0.2 * turn, -0.2 * torch.eye(2).double()]), torch.zeros(2, 2).double())
    parameters = torch.linspace(-1.5, 1.5, 7).double()[:, None]
    values = torch.cat([parameters, parameters**2 - 1], 1)
    known = Contexts("parameters", values, torch.arange(7), ("a",), parameters, ParameterMap.fit(parameters, values))
    prior = StatePrior(torch.zeros(4).double(), torch.eye(4).double(), torch.full((1,), 1e-6).double(),
                       torch.tensor([1e-10, 1e-10, 0.0, 0.0]).double(), torch.ones(1).double())
    surrogate = Surrogate(Description("turning", ("u",), ("x",)), Normalisation(torch.zeros(1), torch.ones(1)), Plain(),
                          field, INTEGRATOR, prior, TimeScale(0.0, 1.0), np.array([[0.0], [1.0]]), 3.5, {},
                          contexts=known)
    matrix = (0.5 + 0.2 * context[0]) * turn.numpy() - 0.2 * context[1] * np.eye(2)
    states = torch.tensor(np.stack([expm(matrix * gap * k) @ [1.0, 0.3] for k in range(6)]))
    seen = TrajectoryBatch(gap * torch.arange(6).double()[None], torch.zeros(1, 1, 2, 1).double(),
                           states[None, ..., None])
    found = surrogate.solve_context([seen])
    np.testing.assert_allclose(found.mean, context, atol=0.02)
    assert known.outside(found.mean) == (context[1] > 1)


def test_what_trajectories_tell_of_contexts_on_a_curve_is_pooled_without_its_width():
    """Two trajectories that tell one number in 100 prior variances each, one of them 0 and the other 1, along a
    direction far longer than wide."""
    along = torch.tensor([30.0, -12.0, 5.0]).double()
    prior = ContextPrior(torch.zeros(3).double(), torch.outer(along, along) + 1e-12 * torch.eye(3).double())
    own = (torch.outer(along, along) / 101)[None]
    one = torch.ones(1).double()
    told = [(torch.zeros(1, 3).double(), own, one), (100 / 101 * along[None], own, one)]
    mean, covariance = variational._pooled(told, prior)
    torch.testing.assert_close(mean, 100 / 201 * along, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(covariance, torch.outer(along, along) / 201, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("drift", "noise"), [(0.05, 0.0), (0.0, 0.02)])
def test_a_context_is_known_less_well_where_a_law_misses_a_system_and_not_for_noise(drift, noise, monkeypatch):
    """Rotations of rate 0.5 + 0.2 c: of the system seen, c is 1 at first and drifts, or frames are noisy."""
    states = [np.array([1.0, 0.3, 1.0])]
    for _ in range(9):
        states.append(exact_flow(states[-1], 1.0) + [0, 0, drift])
    values = torch.tensor(np.stack(states)[:, :2] + noise * np.random.default_rng(0).standard_normal((10, 2)))
    monkeypatch.setattr(variational, "_SPARE", 0.5)  # two values tell two codes without the flow
    seen = TrajectoryBatch(torch.arange(10).double()[None], torch.zeros(1, 1, 2, 1).double(), values[None, ..., None])
    known = Contexts("environment", torch.tensor([[-1.0], [1.0]]).double(), torch.arange(2))
    surrogate = Surrogate(Description("turning", ("u",), ("x",)), Normalisation(torch.zeros(1), torch.ones(1)), Plain(),
                          rotation(), INTEGRATOR, PRIOR, TimeScale(0.0, 1.0), np.array([[0.0], [1.0]]), 9.0, {},
                          contexts=known)
    found, away = [], []
    for known.missed in (0.0, 1.0, 1e-6):
        found.append(surrogate.solve_context([seen]))
        away.append(abs(float(found[-1].mean) - 1.0) / float(found[-1].covariance.sqrt()))
    assert away[0] == away[1] and away[2] < 3
    assert (away[0] > 3) == bool(drift) and found[0].misfit > 3e-5
    grown = float(found[2].covariance / found[0].covariance)
    assert 20 < grown < 30 if drift else grown == pytest.approx(1.0, rel=1e-3)
