"""A filter whose covariances have settled gives what it gives without taking note of that."""

from dataclasses import replace

import pytest
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Dynamics, Integrator
from inrflow.encoding import posterior
from inrflow.model import assimilation
from inrflow.model.state_prior import StatePrior


def setting():
    """Decoder, dynamics, prior of two phases and two codes with two lags, and a window of 60 frames, one with a gap."""
    torch.manual_seed(0)
    embedding = make_embedding([0.0], [1.0], (1.0,), None, 2, 4)
    decoder = HarmonicDecoder(embedding, 1, 4)
    term = AutoregressionTerm(2, 2, 1.0, [12.0], [1])
    field = VectorField(6, [term]).double()
    term.set(torch.tensor([[0.6, 0.2, 0.1, 0], [-0.2, 0.5, 0, 0.1], [1, 0, 0, 0], [0, 1, 0, 0]]),
             torch.tensor([[[0.3, 0.0], [0.0, 0.2]]]))
    dynamics = Dynamics(field, Integrator("map"), torch.tensor([0.0, 0, 0.3, 0.2, 0, 0]).double())
    prior = StatePrior(torch.zeros(6).double(), torch.eye(6).double(), torch.tensor([0.05]).double(),
                       dynamics.process, torch.ones(1).double())
    u = torch.randn(1, 60, 7, 1)
    u[0, 40, :3] = torch.nan
    return decoder, dynamics, prior, TrajectoryBatch(torch.arange(60.0).double()[None], torch.rand(1, 1, 7, 1), u)


def test_a_settled_filter_is_the_filter(monkeypatch):
    taken = []
    inner = assimilation._steady_update
    monkeypatch.setattr(assimilation, "_steady_update", lambda *a: taken.append(1) or inner(*a))
    short = assimilation.assimilate(*setting())
    assert len(taken) > 20
    monkeypatch.setattr(assimilation, "_STEADY", -1.0)
    whole = assimilation.assimilate(*setting())
    assert short.mean == pytest.approx(whole.mean, abs=1e-6)
    for one, other in zip(short.covariance, whole.covariance, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_long_windows_of_exact_values_are_met():
    decoder, dynamics, prior, window = setting()
    window.u[:, :, 1:] = torch.nan
    found = assimilation.assimilate(decoder, dynamics, replace(prior, noise=torch.tensor([1e-13]).double()), window)
    offset, basis = (part.detach().double() for part in decoder.basis(window.x[0, 0, :1]))
    met = offset + torch.einsum("ncz,tz->tnc", basis, found.mean[0, :, :4].detach())
    assert float((met[:, 0] - window.u[0, :, 0])[2:].nan_to_num().abs().max()) < 1e-5


def test_places_that_stay_are_decoded_once_however_the_gaps_of_frames_differ(monkeypatch):
    decoder, dynamics, prior, window = setting()
    window.u[torch.rand(window.u.shape) < 0.3] = torch.nan
    asked, inner = [], decoder.basis
    monkeypatch.setattr(decoder, "basis", lambda x: asked.append(1) or inner(x))
    found = assimilation.assimilate(decoder, dynamics, prior, window)
    assert len(asked) <= 2  # the first frame is encoded apart
    monkeypatch.setattr(assimilation.BasisAt, "__call__", lambda self, x: self.decoder.basis(x))
    each = assimilation.assimilate(decoder, dynamics, prior, window)
    assert len(asked) > 60
    assert found.mean == pytest.approx(each.mean, abs=1e-9)


def test_codes_that_the_time_says_are_known_from_the_first_frame():
    found = assimilation.assimilate(*setting())
    angle = 2 * torch.pi * torch.arange(60.0).double() / 12
    assert found.mean[0, :, 0] == pytest.approx(angle.cos(), abs=1e-6)
    assert found.mean[0, :, 1] == pytest.approx(angle.sin(), abs=1e-6)
    assert float(found.covariance[0][0, :2].abs().max()) == 0


def test_knowing_a_code_is_observing_it_without_error():
    random = torch.Generator().manual_seed(1)
    root = torch.randn(4, 4, generator=random, dtype=torch.float64)
    cov, mean = root @ root.T, torch.randn(1, 4, generator=random, dtype=torch.float64)
    known = torch.tensor([[0.3]]).double()
    given, left = posterior.given(mean, cov[None], known)
    gain = cov[:, 0] / cov[0, 0]
    assert given[0] == pytest.approx(mean[0] + gain * (0.3 - mean[0, 0]), abs=1e-6)
    assert left[0] == pytest.approx(cov - torch.outer(gain, cov[0]), abs=1e-6)
