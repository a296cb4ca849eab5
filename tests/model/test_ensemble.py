"""Ensembles of many independent codes, against covariances of the same law."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow import Observations
from inrflow.data.batch import Normalisation, TimeScale, TrajectoryBatch
from inrflow.data.description import Description
from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.domains import Box
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Dynamics, Integrator
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import Term
from inrflow.errors import UserError
from inrflow.model import ensemble
from inrflow.model.assimilation import assimilate_noisy
from inrflow.model.ensemble import deviations, spread_of
from inrflow.model.state_path import StatePath
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate

BOX = Box([0.0, 0.0], [1.0, 1.0], ["periodic", "periodic"])
VALUE = ((0, -1),)
TIMES = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).expand(2, 3)


class Case:
    """u_t = .003 lap u + u - u^3 on a torus, two trajectories of three noisy frames on a grid."""

    def __init__(self):
        torch.manual_seed(0)
        self.decoder = DomainHarmonicDecoder(BOX.state(), "natural", 25, 1)
        count = self.decoder.count
        terms = [Term((VALUE,), 1), Term((VALUE,)), Term((3 * VALUE,))]
        law = LawTerm(BOX.state(), "natural", count, [term.state() for term in terms], [[0.003], [1.0], [-1.0]], 1e3)
        process = torch.full((count,), 1e-5).double()
        self.dynamics = Dynamics(VectorField(count, [law]).double(), Integrator("etd", 0.1), process)
        variance = 0.1 / (1 + torch.tensor(self.decoder.harmonics.eigenvalues) / 40) ** 2
        one = torch.ones(1).double()
        self.prior = StatePrior(torch.zeros(count).double(), variance, 1e-3 * one, process, one)
        x = np.stack(np.meshgrid(*2 * [np.arange(10) / 10], indexing="ij"), -1).reshape(-1, 2)
        self.x = torch.tensor(x)
        self.path = self.dynamics.flow(torch.randn(2, count).double() * variance.sqrt(), TIMES)
        with torch.no_grad():
            u = self.decoder(self.x[None, None], self.path).double()
        self.u = u + 1e-3**0.5 * torch.randn(u.shape).double()

    def estimate(self, prior, frames=1, share=1.0):
        hidden = torch.rand(2, 1, len(self.x), 1, generator=torch.Generator().manual_seed(1)) > share
        window = TrajectoryBatch(TIMES, self.x[None, None], torch.where(hidden, torch.nan, self.u))
        return assimilate_noisy(self.decoder, self.dynamics, prior, window.first_frames(frames))

    @property
    def dense(self):
        return replace(self.prior, covariance=self.prior.covariance.diag())


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.fixture(autouse=True)
def many(monkeypatch):
    monkeypatch.setattr(ensemble, "MEMBERS", 300)


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_means_and_spreads_of_one_frame_are_those_of_covariances(case, share):
    dense, drawn = case.estimate(case.dense, share=share), case.estimate(case.prior, share=share)
    torch.testing.assert_close(drawn.mean, dense.mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(drawn.factor, dense.factor, rtol=1e-4, atol=1e-4)
    times = torch.tensor([0.0, 0.5], dtype=torch.float64).expand(2, 2)
    mean, basis = StatePath(case.dynamics, dense).mean(times), case.decoder.basis(case.x)[1].detach().double()[:, 0]
    spreads = StatePath(case.dynamics, dense).covariance(times, mean), deviations(case.dynamics, drawn, times)
    for covariance, away in zip(*spreads, strict=True):
        expected = torch.einsum("nz,szy,ny->sn", basis, covariance.expand(2, -1, -1), basis).sqrt()
        found = spread_of(case.decoder, case.x[None], away)[..., 0].sqrt()
        assert (found / expected - 1).abs().mean() < 0.08


def test_further_frames_bring_the_states_nearer(case):
    errors = [float((case.estimate(case.prior, frames, 0.3).mean[:, -1] - case.path[:, frames - 1]).square().mean())
              for frames in (1, 3)]
    assert errors[1] < 0.7 * errors[0]


def test_rates_that_no_frame_shows_follow_from_how_codes_move_as_by_covariances(case):
    """A damped wave, of which three noisy frames are seen."""
    wave = Case()
    count, rate = wave.decoder.count, ((1, -1),)
    terms = [Term((rate,)), Term((VALUE,), 1), Term((((0, -1), (0, -1)),))]  # the last one: it is no linear field
    theta = [[1.0, -0.3], [0.0, 0.02], [0.0, 0.1]]
    law = LawTerm(BOX.state(), "natural", count, [term.state() for term in terms], theta, 1e3)
    process, variance = torch.full((2 * count,), 1e-6).double(), torch.cat([wave.prior.covariance] * 2)
    wave.dynamics = Dynamics(VectorField(2 * count, [law]).double(), Integrator("etd", 0.1), process)
    wave.prior = replace(wave.prior, mean=torch.zeros(2 * count).double(), covariance=variance, process=process)
    wave.path = wave.dynamics.flow(torch.randn(2, 2 * count).double() * variance.sqrt(), TIMES)
    with torch.no_grad():
        u = wave.decoder(wave.x[None, None], wave.path[..., :count]).double()
    wave.u = u + 1e-3**0.5 * torch.randn(u.shape).double()
    means = wave.estimate(wave.dense, 3).mean[:, -1, count:], wave.estimate(wave.prior, 3).mean[:, -1, count:]
    dense, drawn = (float((mean - wave.path[:, 2, count:]).square().mean()) for mean in means)
    assert law.rate_indices(count).tolist() == list(range(count))
    assert drawn < 1.5 * dense < 0.3 * float(wave.path[:, 2, count:].square().mean())


def test_noise_beyond_that_of_training_is_found(case):
    noisy = Case()
    noisy.u = noisy.u + 0.3 * torch.randn(noisy.u.shape, generator=torch.Generator().manual_seed(2)).double()
    with_noise = float((noisy.estimate(noisy.prior).mean[:, 0] - noisy.path[:, 0]).square().mean())
    dense = float((noisy.estimate(noisy.dense).mean[:, 0] - noisy.path[:, 0]).square().mean())
    assert with_noise < 1.5 * dense


def test_members_that_diverge_are_left_out(case):
    away = torch.randn(1, 5, case.decoder.code_size).double()
    away[0, 0] = torch.nan
    expected = spread_of(case.decoder, case.x[None], away[:, 1:])
    torch.testing.assert_close(spread_of(case.decoder, case.x[None], away), expected)


def test_members_fly_in_the_steps_of_forecasts(case):  # longer ones may not be stable
    exact = Dynamics(case.dynamics.field, Integrator("etd", 0.5), torch.zeros(case.decoder.code_size).double())
    window = TrajectoryBatch(TIMES[:, :1], case.x[None, None], case.u[:, :1])
    estimate = assimilate_noisy(case.decoder, exact, case.prior, window)
    ends = [exact.flow(states, TIMES[:1, [0, 2]].expand(len(states), 2))[:, 1]
            for states in (estimate.members[:, 0].flatten(0, 1), estimate.mean[:, 0])]
    (away,) = deviations(exact, estimate, TIMES[:, 2:])
    torch.testing.assert_close(away, ends[0].unflatten(0, (2, -1)) - ends[1][:, None])


def surrogate(case, prior):
    """A surrogate of the law."""
    one = torch.ones(1)
    return Surrogate(Description("torus", ("u",), ("x", "y"), period=(1.0, 1.0)), Normalisation(0 * one, one),
                     case.decoder, case.dynamics.field, case.dynamics.integrator, prior, TimeScale(0.0, 1.0),
                     np.array([[0.0, 0.0], [1.0, 1.0]]), 2.0, {"seed": 0, "points": 1.0, "same_points": False})


def test_queries_of_a_saved_model_are_those_with_covariances(case, tmp_path):
    seen = Observations(TIMES[0, :1].numpy(), case.x.numpy(), case.u[0, :1].numpy())
    answers = []
    for prior in (case.prior, case.dense):
        surrogate(case, prior).save(tmp_path)
        solution = Surrogate.load(tmp_path).assimilate(seen)
        answers.append(solution.query(0.5, case.x.numpy()[:20], std=True, derivatives=True))
    drawn, dense = answers
    for key in ("mean", "dx", "dt"):
        np.testing.assert_allclose(drawn[key], dense[key], rtol=1e-3, atol=1e-3)
    assert np.abs(drawn["std"] / dense["std"] - 1).max() < 0.1


def test_values_with_times_of_their_own_are_refused(case):
    window = TrajectoryBatch(TIMES[:1, :1], case.x[None, None], case.u[:1, :1], torch.zeros(1, 1, len(case.x)))
    with pytest.raises(UserError, match="have times of their own; give frames"):
        surrogate(case, case.prior).estimate(window)


def test_a_context_is_known_as_well_as_frames_tell_it(case, monkeypatch):
    """du/dt = (.003 + .002 c) lap u + u - u^3 at c = .8, of N(0, 1): adapted, and from a window of its own."""
    monkeypatch.setattr(ensemble, "MEMBERS", 32)
    law, count = next(iter(case.dynamics.field.terms.values())), case.decoder.count
    with_context = LawTerm(law.domain, law.boundary, law.count, law.terms, law.theta.tolist(), law.largest,
                           [[[0.002], [0.0], [0.0]]])
    field = VectorField(count, [with_context], 1).double()
    states = torch.cat([case.path[:, 0], torch.full((2, 1), 0.8).double()], 1)
    path = Dynamics(field, case.dynamics.integrator, case.prior.process).flow(states, TIMES)[..., :-1]
    with torch.no_grad():
        u = case.decoder(case.x[None, None], path).double()
    window = TrajectoryBatch(TIMES, case.x[None, None], u + 1e-4 * torch.randn(u.shape).double())
    one = torch.ones(1).double()
    prior = replace(case.prior, mean=torch.cat([case.prior.mean, 0 * one]), noise=1e-8 * one,
                    covariance=torch.cat([case.prior.covariance, one]), process=1e-9 * torch.ones(count + 1).double())
    model = replace(surrogate(case, prior), field=field)
    adapted, (mean, covariance) = model.solve_context([window]), model.estimate(window).last_context(1)
    for found, variance in [(adapted.mean, adapted.covariance), *zip(mean, covariance, strict=True)]:
        assert variance.sqrt() < 0.3
        assert (found - 0.8).abs() < 4 * variance.sqrt()


def test_gross_errors_are_left_out_of_an_ensemble_and_noise_is_not(case):
    window = TrajectoryBatch(TIMES, case.x[None, None], case.u.clone())
    window.u[0, :, [7, 58]] += 2.0
    without = window.with_values(window.u.clone())
    without.u[0, :, [7, 58]] = torch.nan
    model = case.decoder, case.dynamics, case.prior
    with pytest.warns(UserWarning, match="observed values contradict"):
        found = assimilate_noisy(*model, window, screened=True)
    expected = assimilate_noisy(*model, without)
    torch.testing.assert_close(found.mean[0], expected.mean[0], rtol=0, atol=0.02)
    assert float((assimilate_noisy(*model, window).mean[0] - expected.mean[0]).abs().max()) > 0.05
