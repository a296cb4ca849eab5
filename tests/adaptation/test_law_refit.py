"""Coefficients of a law fitted to a system whose contexts cannot express it, against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inrflow.adaptation.context import adapt_context
from inrflow.adaptation.further import adapt_further, enough_for_coefficients
from inrflow.adaptation.law_refit import can_refit, refitted_law
from inrflow.data.batch import TimeScale, TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.source import Normalisation
from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.domains import Box
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.model.contexts import Contexts
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate

COUNT, BOX = 8, Box([0.0], [1.0], ["walled"])
TERMS = [Term((((0, VALUE),),), 1).state(), Term((((0, VALUE),),)).state()]
X = np.linspace(0.02, 0.98, 40)[:, None]


@pytest.fixture
def family():
    """du/dt = (.02 + .01 c) lap u - .3 u between walls, contexts c of -1 and 1 in training."""
    decoder = DomainHarmonicDecoder(BOX.state(), "natural", COUNT, 1)
    with torch.no_grad():
        decoder.offset[:] = 0.0
    law = LawTerm(BOX.state(), "natural", COUNT, TERMS, [[0.02], [-0.3]], by_context=[[[0.01], [0.0]]])
    variance = torch.cat([torch.tensor(1 / (1 + decoder.harmonics.eigenvalues)), torch.ones(1)]).double()
    prior = StatePrior(torch.zeros(COUNT + 1).double(), variance.diag(), torch.full((1,), 1e-10).double(),
                       1e-9 * variance, torch.ones(1).double(), farthest=1e4)
    return Surrogate(Description("heat", ("u",), ("x",)), Normalisation(torch.zeros(1), torch.ones(1)), decoder.eval(),
                     VectorField(COUNT, [law], 1).double().eval(), Integrator("etd", 0.5), prior, TimeScale(0.0, 1.0),
                     np.array([[0.0], [1.0]]), 2.0, {"seed": 0, "points": 1.0, "same_points": False},
                     contexts=Contexts("environment", torch.tensor([[-1.0], [1.0]]).double(), torch.arange(2)))


def frames(diffusivity, rate, noise=0.0):
    """One trajectory of ten frames at such coefficients, from waves of random size."""
    random, t = np.random.default_rng(1), np.linspace(0.0, 2.0, 10)
    u = sum(random.standard_normal() * np.exp((rate - diffusivity * (np.pi * k) ** 2) * t)[:, None, None]
            * np.cos(np.pi * k * X) for k in range(5))
    u = u + noise * random.standard_normal(u.shape)
    return TrajectoryBatch(torch.tensor(t)[None], torch.tensor(X)[None, None], torch.tensor(u)[None])


def coefficients(surrogate):
    law, context = surrogate.field.term(LawTerm), surrogate.prior.context(1).mean
    return (law.theta + torch.tensordot(context, law.by_context, 1)).detach().flatten().numpy()


def test_a_coefficient_without_a_context_is_fitted_where_kept_back_frames_gain(family):
    batch = frames(0.025, -0.5)
    assert enough_for_coefficients(family, batch)
    assert not np.allclose(coefficients(adapt_context(family, [batch]).surrogate), [0.025, -0.5], rtol=0.05)
    adaptation, (step,) = adapt_further(family, [batch], True)
    assert step.part == "coefficients of the law" and step.after < 1e-3 * step.before and adaptation.numbers == 3
    np.testing.assert_allclose(coefficients(adaptation.surrogate), [0.025, -0.5], rtol=1e-3)
    np.testing.assert_allclose(adaptation.surrogate.field.term(LawTerm).by_context.flatten(), [0.01, 0.0])


def test_a_law_of_one_system_is_adapted_by_its_coefficients(family):
    n, law = COUNT, family.field.term(LawTerm)
    alone = LawTerm(law.domain, law.boundary, n, law.terms, law.theta.tolist())
    prior = replace(family.prior, mean=family.prior.mean[:n], covariance=family.prior.covariance[:n, :n],
                    process=family.prior.process[:n])
    one = replace(family, field=VectorField(n, [alone]).double().eval(), prior=prior, contexts=None)
    adaptation, (step,) = adapt_further(one, [frames(0.025, -0.5)], True)
    assert step.pull == 0 and adaptation.numbers == 2 and adaptation.estimate is None
    np.testing.assert_allclose(adaptation.surrogate.field.term(LawTerm).theta.flatten(), [0.025, -0.5], rtol=1e-3)


def test_coefficients_that_contexts_express_are_left_in_noise(family):
    adaptation, (step,) = adapt_further(family, [frames(0.025, -0.3, 0.05)], True)
    assert step.pull is None and adaptation.numbers == 1
    np.testing.assert_allclose(coefficients(adaptation.surrogate)[1], -0.3)


def test_noisy_frames_refine_first_codes_too(family):
    found = coefficients(refitted_law(family, frames(0.025, -0.5, 0.01), 2.0))
    np.testing.assert_allclose(found, [0.025, -0.5], atol=0.02)


def test_what_frames_do_not_determine_is_held_where_rollouts_from_other_states_would_change(family):
    """Uniform fields that decay, with faint noise, in which diffusion is hardly visible."""
    batch, random = frames(0.02, -0.3), torch.Generator().manual_seed(1)
    uniform = torch.exp(-0.5 * batch.t)[..., None, None] + 1e-4 * torch.randn(batch.u.shape, generator=random).double()
    free, held = (refitted_law(family, batch.with_values(uniform), 2.0, one) for one in (False, True))
    assert abs(coefficients(free)[0] - 0.02) > 1 and abs(coefficients(held)[0] - 0.02) < 0.02
    np.testing.assert_allclose(coefficients(held)[1], -0.5, atol=1e-3)
    assert bool((held.prior.process > family.prior.process)[1:COUNT].all())


def test_moving_points_gaps_and_few_frames_leave_the_coefficients(family):
    batch = frames(0.025, -0.5)
    gap = batch.with_values(batch.u.clone().index_fill_(1, torch.tensor([4]), torch.nan))
    moving = TrajectoryBatch(batch.t, batch.x.expand(-1, 10, -1, -1), batch.u)
    assert not can_refit(family, moving) and not can_refit(family, gap)
    assert not enough_for_coefficients(family, batch.first_frames(2))
