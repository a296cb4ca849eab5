"""Laws with a network, solved for Monod kinetics between walls, whose rate is known."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.fft import dct, idct
from scipy.integrate import solve_ivp

from inrflow.domains import Box, Sphere
from inrflow.dynamics.fitting.network_law import (
    Search,
    architectures,
    fit_network_law,
    harmonics_for_network,
    moments,
    places,
    solved,
    terms_beside_network,
)
from inrflow.dynamics.laws import Systems
from inrflow.dynamics.laws.fit import integrable
from inrflow.dynamics.laws.law import node_rollouts
from inrflow.dynamics.laws.network.sine import COSINE, PLACE, SINE, Input, Sine
from inrflow.dynamics.laws.setting import Data, EncodedData, encode, forecast_errors
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.errors import UserError
from inrflow.numerics.effort import effort

POINTS, FRAMES, GAP = 48, 8, 0.4


def growth(u):
    return 1.5 * u / (0.3 + u) - u


def trajectory(random, factor=1.0):
    x = (np.arange(POINTS) + 0.5) / POINTS
    start = 0.5 + 0.35 * np.tanh(sum(random.normal() * np.cos(np.pi * k * x) / k for k in range(1, 4)))
    decay = -0.01 * (np.pi * np.arange(POINTS)) ** 2
    rate = lambda _, u: idct(decay * dct(u)) + factor * growth(u)  # noqa: E731
    return solve_ivp(rate, (0, GAP * (FRAMES - 1)), start, "RK45", GAP * np.arange(FRAMES), rtol=1e-8, atol=1e-10).y.T


def encoded_trajectories(factor=1.0):
    random = np.random.default_rng(0)
    u = np.stack([trajectory(random, factor) for _ in range(10)])[..., None]
    x = np.broadcast_to(((np.arange(POINTS) + 0.5) / POINTS)[:, None], (10, POINTS, 1))
    data = Data(np.broadcast_to(GAP * np.arange(FRAMES), u.shape[:2]), x, u, Systems(np.zeros(10, dtype=int)))
    box = Box([0.0], [1.0], ["walled"])
    codes = fit_codes(box.harmonics(24, "natural"), x, u)
    return EncodedData(box, "natural", codes, data, *encode(codes, data))


@pytest.fixture(scope="module")
def encoded():
    return encoded_trajectories()


def test_solved_weights_are_those_of_the_kinetics(encoded):
    network = architectures(encoded.domain, 1, 0.3)[0]
    sines = network.sines(*moments(network.inputs, encoded.codes, encoded.states), 0)
    law, _ = solved(encoded, None, terms_beside_network(encoded, None, None), sines)
    along = node_rollouts(integrable(law, encoded.train.t, encoded.states), encoded.train.t, encoded.states,
                          encoded.train.systems.number)
    seen = np.quantile(encoded.train.u, np.linspace(0.1, 0.98, 20))
    z = torch.zeros(20, 24).double()
    z[:, 0] = torch.tensor(seen)
    for one in (law, solved(encoded, None, terms_beside_network(encoded, None, None), sines, along)[0]):
        np.testing.assert_allclose(one.field()(0.0, z)[:, 0].numpy(), growth(seen), atol=5e-4)
        (heat,) = [j for j, term in enumerate(one.terms) if not isinstance(term, Sine) and one.theta[j, 0]]
        assert one.terms[heat].power == 1 and one.theta[heat, 0] == pytest.approx(0.01, rel=0.01)


def test_a_search_that_forecasts_no_network_ends_at_twice_its_budget_and_another_goes_on(encoded, monkeypatch):
    def run(self, start, seconds, most):
        self.best = found
        for _ in range(30):
            effort.add(seconds=0.5)

    train = encoded.train
    terms = terms_beside_network(encoded, None, None)
    network = architectures(encoded.domain, 1, 0.3)[0]
    sines = network.sines(*moments(network.inputs, encoded.codes, encoded.states), 0)
    one = integrable(solved(encoded, None, terms, sines)[0], train.t, encoded.states)
    monkeypatch.setattr(Search, "run", run)
    for found, spent in ((None, 12.0), (one, 15.0)):
        effort.restart()  # else processor time of tests before may exceed it
        with pytest.raises(UserError, match="no network") if found is None else nullcontext():
            fit_network_law(train.t, train.x, train.u, encoded, seconds=6.0)
        assert spent < effort() < spent + 2


def test_a_diffusivity_that_depends_on_the_field_is_found_outside_of_the_divergence(encoded):
    """u_t = c(u) u_xx, c = .02 / (1 + u^2): the rate of another field, which lap f(u) misses several times as far."""
    x, bend, t = (np.arange(POINTS) + 0.5) / POINTS, -((np.pi * np.arange(POINTS)) ** 2), GAP * np.arange(FRAMES)
    rate = lambda _, u: 0.02 / (1 + u**2) * idct(bend * dct(u))  # noqa: E731
    waves = np.cos(np.pi * np.outer(np.arange(4), x)) / np.arange(1, 5)[:, None] ** 1.5
    starts = np.random.default_rng(0).normal(size=(10, 4)) @ waves
    u = np.stack([solve_ivp(rate, (0, t[-1]), start, "RK45", t, rtol=1e-8, atol=1e-10).y.T for start in starts])
    data, harmonics = Data.of(t, x[:, None], u[..., None]), encoded.codes.harmonics
    codes = fit_codes(harmonics, data.x, data.u)
    bent = EncodedData(encoded.domain, "natural", codes, data, *encode(codes, data))
    other = 0.5 * np.cos(np.pi * x) + 0.2 * np.cos(2 * np.pi * x)
    exact = harmonics.values(x[:, None]).T @ rate(0.0, other) / POINTS
    errors = {}
    for network in architectures(bent.domain, 1, 0.3):
        if network.name in ("diffusion", "diffusivity"):
            sines = network.sines(*moments(network.inputs, codes, bent.states), 0)
            law, _ = solved(bent, None, terms_beside_network(bent, None, None), sines)
            found = law.field()(0.0, law.encode(x[:, None], other[:, None])[None])[0].numpy()
            errors[network.name] = np.abs(found - exact).max() / np.abs(exact).max()
    assert errors["diffusivity"] < min(0.04, errors["diffusion"] / 3), errors


def test_a_network_is_solved_along_its_own_flow_though_time_is_over(encoded):
    """Frames are so far apart that splines are off, by errors of one sign."""
    far = replace(encoded, states=encoded.states[:, ::2], train=replace(
        encoded.train, t=encoded.train.t[:, ::2], u=encoded.train.u[:, ::2]))
    terms, network = terms_beside_network(far, None, None), architectures(far.domain, 1, 0.3)[0]
    sines = network.sines(*moments(network.inputs, far.codes, far.states), 0)
    search = Search(far, far.train, None, terms, 0, lambda _: None)
    error, law = search.tried("values", sines, solved(far, None, terms, sines)[0])
    after, followed = search.followed("values", sines, error, law, -1.0)
    assert search.best is followed and search.least == after < error / 10, (after, error)


def test_no_network_stands_in_a_channel_that_needs_none(encoded):
    """Heat that decays, in closed form."""
    decay = np.exp(-(0.02 * encoded.codes.harmonics.eigenvalues + 0.3) * encoded.train.t[0][:, None])
    linear = replace(encoded, states=encoded.states[:, :1] * decay[None, :, None])
    network = architectures(encoded.domain, 1, 0.3)[0]
    sines = network.sines(*moments(network.inputs, encoded.codes, linear.states), 0)
    law, _ = solved(linear, None, terms_beside_network(linear, None, None), sines)
    assert {law.terms[j].power for j in np.flatnonzero(law.theta[:, 0])} == {0, 1}
    assert not law.theta[[isinstance(term, Sine) for term in law.terms]].any()


def test_networks_see_all_but_a_fiftieth_of_what_a_short_law_misses():
    """Fields of known coefficients k^-1, which decay, and a law that is a little off: 160 would leave more than it."""
    random, decay, wave = np.random.default_rng(0), np.exp(-0.3 * np.arange(6)), np.arange(220)
    box, x = Box([0.0], [1.0], ["walled"]), np.broadcast_to((np.arange(256)[:, None] + 0.5) / 256, (20, 256, 1))
    harmonics = box.harmonics(220, "natural")
    start = random.standard_normal((20, 220)) / np.maximum(wave, 1)
    u = ((start @ harmonics.values(x[0]).T)[:, None] * decay[:, None])[..., None]
    data, codes = Data.of(np.arange(6.0), x, u, None), fit_codes(harmonics, x, u)
    encoded = EncodedData(box, "natural", codes, data, *encode(codes, data))
    for rate, fewest, most in ((0.0, 160, 160), (-0.28, 161, 219)):
        law = encoded.law([Term((((0, VALUE),),))], np.array([[rate]]), np.zeros((1, 1)))
        seen = harmonics_for_network(law.codes, float(forecast_errors(law, data).mean()))
        assert fewest <= seen <= most
        left = (start[:, seen:] ** 2).sum() / (start**2).sum()
        assert left < 0.03 * forecast_errors(law, data).mean()


def test_kinetics_that_vary_in_place_are_explained_by_a_network_of_values_and_place():
    encoded = encoded_trajectories(1 + 0.6 * np.sin(2 * np.pi * (np.arange(POINTS) + 0.5) / POINTS))
    missed = {}
    for network in architectures(encoded.domain, 1, 0.3)[:2]:
        sines = network.sines(*moments(network.inputs, encoded.codes, encoded.states), 0)
        _, (missed[network.name], _) = solved(encoded, None, terms_beside_network(encoded, None, None), sines)
    assert missed["values and place"] < 0.02 * missed["values"]


def test_places_are_cosines_and_sines_along_periodic_axes_and_coordinates_along_others():
    assert places(Box([0.0, 1.0], [6.0, 2.0], ["periodic", "walled"])) == (
        Input(COSINE, 0, 0, 3 / np.pi), Input(SINE, 0, 0, 3 / np.pi), Input(PLACE, 0, 1))
    assert places(Sphere()) == tuple(Input(PLACE, 0, axis) for axis in range(3))


@pytest.mark.parametrize(("rate", "stays"), [(0.01, True), (0.3, False)])
def test_networks_whose_forecasts_leave_the_range_of_the_data_are_not_taken(encoded, rate, stays):
    law = replace(encoded.law([Term()], np.array([[rate]]), np.zeros((1, 1))), max_step=GAP)
    search = Search(encoded, encoded.train, None, [], 0, lambda _: None)
    assert search.stays(law) == stays
