"""Joint draws, places of new sensors, further observations: against closed forms and brute force."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.data.batch import Normalisation, TimeScale
from inrflow.data.description import Description
from inrflow.data.observations import Observations
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.residual.covariance import Covariance, Form
from inrflow.encoding.residual.field import Ahead, ChannelField, Decay, ResidualField
from inrflow.encoding.residual.places import Places
from inrflow.errors import UserError
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate

SIZE, SCALE = 3, torch.tensor([2.0, 3.0]).double()
COVARIANCE = Covariance.of(Form((1.5,), 0.5, (0, 1), (True, True)), [0.1, 1.0], [5.0, 5.0], 0.05, [[0.5, 0.4]])
RANDOM = np.random.default_rng(2)
T, X, U = np.arange(3.0), RANDOM.uniform(0, 1, (9, 2)), RANDOM.standard_normal((3, 9, 2))
AT = RANDOM.uniform(0, 1, (7, 2))


def surrogate(modulation="output", residual=False, process=0.02):
    """Two channels in the plane, a turning linear field; with a Gaussian process alone in the first channel."""
    torch.manual_seed(0)
    decoder = ModulatedSiren(Embedding([0.0, 0.0], [1.0, 1.0]), 2, SIZE, 8, 2, 4.0, (modulation,)).double()
    field = VectorField.of(SIZE).double()
    field.set_linear(torch.tensor([[0.0, 0.4, 0.0], [-0.4, 0.0, 0.1], [0.0, 0.0, -0.2]]).double(),
                     torch.zeros(SIZE).double())
    prior = StatePrior(
        torch.zeros(SIZE).double(), torch.eye(SIZE).double(), torch.tensor([1e-2, 2e-2]).double(),
        torch.full((SIZE,), process).double(), torch.tensor([1.2, 0.9]).double(),
    )
    places = Places((0.0, 0.0))
    ahead = Ahead(Decay(4.0, 0.25, 2.0), (1.0,), (1.3,))
    own = ResidualField(places, (ChannelField(COVARIANCE, spread=1.1, new=ahead), None)) if residual else None
    return Surrogate(
        Description("synthetic", ("u", "v"), ("x", "y")), Normalisation(torch.zeros(2).double(), SCALE), decoder, field,
        Integrator(step=0.1), prior, TimeScale(0.0, 1.0), np.array([[0.0, 0.0], [1.0, 1.0]]), 4.0, {}, residual=own)


def solution(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # noise is unlike the training data
        return surrogate(*arguments, **options).assimilate(Observations(T, X, U))


@pytest.mark.parametrize(("modulation", "residual"), [("output", False), ("shift", False), ("output", True)])
def test_draws_have_the_mean_and_deviation_of_the_query(modulation, residual):
    one = solution(modulation, residual)
    t = np.repeat([2.0, 3.5], len(AT))
    draws = one.sample(6000, t, np.tile(AT, (2, 1)))
    answer = one.query(t, np.tile(AT, (2, 1)), std=True)
    assert np.abs((draws.mean(0) - answer["mean"]) / answer["std"]).max() < 0.06
    np.testing.assert_allclose(draws.std(0), answer["std"], rtol=0.05)
    assert one.sample(2, [2.0, 3.5], AT).shape == (2, 2, 7, 2) and one.sample(2, 2.0, AT[0]).shape == (2, 2)


def test_draws_and_places_know_details_finer_than_any_seen():
    one = solution(process=0.0)
    plain = one.query(2.5, AT, std=True)["std"] / SCALE.numpy()
    first = one.where_next(AT, 1, t=2.5)
    known = one.estimate.mean[0, :, :one.surrogate.code_size]
    one.surrogate.decoder.tail = lambda z: z.new_tensor([0.5, 0.3]) * (
        z[..., None, :] != known).any(-1).all(-1, keepdim=True)  # details that develop after the observed states
    one.surrogate.prior.tail = torch.tensor([0.1, 0.4]).double()
    answer = one.query(2.5, AT, std=True)["std"]
    factor = 1.2**2 * one.estimate.factor[0] * one.surrogate.widening(one.estimate)[0] ** 2
    more = (answer / SCALE.numpy()) ** 2 - plain**2
    np.testing.assert_allclose(more, np.array([[0.4 * factor, 0.0]] * len(AT)), atol=1e-8)
    np.testing.assert_allclose(one.sample(6000, 2.5, AT).std(0), answer, rtol=0.05)
    assert one.where_next(AT, 1, t=2.5).left[0] > first.left[0]  # what no place tells is left


def test_draws_of_a_louder_window_have_the_deviation_of_the_query():
    one = solution()
    one.estimate.louder = torch.tensor([True])
    one.surrogate.prior.spread *= 0.1  # forecasts that calibrate were calm
    one.surrogate.widening = lambda _: torch.tensor([1.3]).double()
    answer = one.std(3.5, AT)
    np.testing.assert_allclose(one.sample(6000, 3.5, AT).std(0), answer, rtol=0.05)


def test_draws_of_codes_are_correlated_through_the_flow():
    one = solution(process=0.0)
    draws = one.sample(20000, [2.0, 4.0], AT) - one([2.0, 4.0], AT)
    jacobian = one.surrogate.decoder.basis(torch.as_tensor(AT))[1][:, 0].detach()
    flow = torch.linalg.matrix_exp(2 * one.surrogate.field.matrix_at().reshape(SIZE, SIZE).detach())
    scale = (SCALE[0] * 1.2) ** 2 * one.estimate.factor[0] * one.surrogate.widening(one.estimate)[0] ** 2
    expected = scale * jacobian @ one.estimate.covariance[-1][0] @ flow.T @ jacobian.T
    found = np.einsum("si,sj->ij", draws[:, 0, :, 0], draws[:, 1, :, 0]) / len(draws)
    np.testing.assert_allclose(found, expected.numpy(), atol=0.05 * float(expected.abs().max()))


def process_covariance(x, t=2.0):
    """Posterior of the process of the first channel at points of one time, by the textbook, and its noise."""
    seen = torch.as_tensor(np.repeat(T, len(X))), torch.as_tensor(np.tile(X, (3, 1)))
    at = torch.full((len(x),), t, dtype=torch.float64), torch.as_tensor(x)
    noisy = COVARIANCE(*seen, *seen) + COVARIANCE.nugget * torch.eye(len(seen[0]))
    across = COVARIANCE(*at, *seen)
    return COVARIANCE(*at, *at) - across @ torch.linalg.solve(noisy, across.T)


def test_draws_of_a_process_have_its_posterior_covariance():
    one = solution(residual=True)
    draws = (one.sample(20000, 2.0, AT) - one(2.0, AT))[..., 0]
    expected = (2.0 * 1.1) ** 2 * (process_covariance(AT) + COVARIANCE.nugget * torch.eye(len(AT)))
    np.testing.assert_allclose(draws.T @ draws / len(draws), expected.numpy(), atol=0.04 * float(expected.max()))


def test_places_are_those_of_brute_force():
    one, weights = solution(residual=True), RANDOM.uniform(0.1, 2, len(AT))
    found = one.where_next(AT, 3, weights)
    jacobian = one.surrogate.decoder.basis(torch.as_tensor(AT))[1][:, 1].detach()
    factor = 0.9**2 * one.estimate.factor[0] * one.surrogate.widening(one.estimate)[0] ** 2
    parts = [(1.1**2 * process_covariance(AT), 1.1**2 * COVARIANCE.nugget),
             (factor * jacobian @ one.estimate.covariance[-1][0] @ jacobian.T, factor * 2e-2)]

    def left(chosen):
        total = 0.0
        for shared, noise in parts:
            seen = shared[chosen][:, chosen] + noise * torch.eye(len(chosen))
            after = shared - shared[:, chosen] @ torch.linalg.solve(seen, shared[chosen])
            total += float(torch.as_tensor(weights) @ after.diagonal())
        return total

    chosen = []
    for _ in range(3):
        chosen.append(min(set(range(len(AT))) - set(chosen), key=lambda j: left([*chosen, j])))
    assert found.index.tolist() == chosen
    np.testing.assert_array_equal(found.x, AT[chosen])
    np.testing.assert_allclose(found.left[2], left(chosen) / left([]), rtol=1e-5)


def test_places_are_asked_for_at_dates():
    one = solution(residual=True)
    expected = one.where_next(AT, 2, t=4.5)
    one.surrogate.description = replace(one.surrogate.description, time_units="hours since 2000-01-01")
    found = one.where_next(AT, 2, t="2000-01-01T04:30")
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.left, expected.left)


def test_places_that_cannot_be_chosen_are_refused():
    with pytest.raises(UserError, match="8 places are asked for"):
        solution().where_next(AT, 8)
    with pytest.raises(UserError, match="give arrays of numbers"):
        solution().where_next([["here"]], 1)
    with pytest.raises(UserError, match="at most 3000"):
        solution().sample(1, np.arange(601.0), AT[:5])


def test_further_observations_are_as_all_at_once():
    one = surrogate(residual=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        first = one.assimilate(Observations(T[:2], X[:6], U[:2, :6]))
        updated = first.update(Observations(T[1:], X[4:], U[1:, 4:]))
        values = np.full((3, 9, 2), np.nan)
        values[:2, :6], values[1:, 4:] = U[:2, :6], U[1:, 4:]
        whole = one.assimilate(Observations(T, X, values))
    for key, value in whole.query(2.7, AT, std=True).items():
        np.testing.assert_allclose(updated.query(2.7, AT, std=True)[key], value, rtol=1e-6)


def test_later_frames_go_on_from_the_last_state_as_if_all_were_assimilated_at_once(monkeypatch):
    one = surrogate()
    path = one.dynamics.flow(torch.tensor([[1.0, -0.5, 0.3]]).double(), torch.as_tensor(T)[None])
    u = (one.decoder(torch.as_tensor(X), path[0]).detach() * SCALE).numpy() + 0.1 * U
    whole = one.assimilate(Observations(T, X, u))
    running = one.assimilate(Observations(T[:1], X, u[:1]))
    monkeypatch.setattr(type(one), "solution_of", None)  # nothing is assimilated anew
    for frame in (1, 2):
        running = running.update(Observations(T[[frame]], X, u[[frame]]))
    for t in (T[0], T[1] + 0.3, T[2], T[2] + 5.0):
        for key, value in whole.query(t, AT, std=True).items():
            np.testing.assert_allclose(running.query(t, AT, std=True)[key], value, rtol=1e-3, atol=1e-4)


def test_residual_fields_have_no_gradient_by_observed_values_which_is_told():
    with pytest.raises(UserError, match="require a gradient, which this model's residual field"):
        surrogate(residual=True).assimilate(Observations(T, X, torch.tensor(U, requires_grad=True)))
