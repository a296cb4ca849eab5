"""Codes moved by their symmetries against codes solved from moved observations."""

import numpy as np
import pytest
import torch

from inrflow.data.batch import Normalisation, TrajectoryBatch
from inrflow.data.description import Symmetries
from inrflow.data.transformations import Augmentation
from inrflow.decoders.base import AffineDecoder
from inrflow.decoders.embeddings import PeriodicEmbedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.encode import encode
from inrflow.encoding.equivariance import CodeAction, FeatureAction
from inrflow.encoding.posterior import GaussianPrior

BOX = np.array([[0.0, 0.0], [0.9, 0.9]])
PERIOD = (1.0, 1.0)
QUARTER = [[0.0, -1.0, 0.3], [1.0, 0.0, 0.0]]
GROUP = Symmetries(
    np.array([[[0.0, 0, 1], [0, 0, 0]], [[0.0, 0, 0], [0, 0, 1]]]), np.zeros((2, 2, 2)),
    np.array([QUARTER]), np.array([[[0.0, -1.0], [1.0, 0.0]]]),  # the components of a vector turn with the plane
)
TILT = Symmetries(np.array([[[0.0, -1, 0], [1, 0, 0]]]), np.zeros((1, 2, 2)), np.zeros((0, 2, 3)), np.zeros((0, 2, 2)))
NORMALISATION = Normalisation(torch.tensor([0.4, -1.0]), torch.tensor([2.0, 0.5]))


def decoder(depth: int = 0) -> AffineDecoder:
    torch.manual_seed(0)
    embedding = PeriodicEmbedding([0, 0], [1, 1], PERIOD, harmonics=1)
    made = ModulatedSiren(embedding, 2, 1, 8, depth) if depth else HarmonicDecoder(embedding, 2)
    size = 2 * made.features_size
    made.set_output(torch.randn(2, made.features_size), torch.linalg.qr(torch.randn(size, size))[0].reshape(
        size, 2, -1))
    return made


def test_moved_codes_are_those_of_moved_observations():
    model = decoder().double()
    size = model.code_size
    random = torch.Generator().manual_seed(1)
    prior = GaussianPrior(torch.zeros(size).double(), torch.eye(size).double(), torch.full((2,), 1e-9).double())
    x = torch.rand(3, 1, 40, 2, generator=random, dtype=torch.float64)
    codes = torch.randn(3, 2, size, generator=random, dtype=torch.float64)
    with torch.no_grad():
        u = NORMALISATION.invert(model(x, codes))
    transformations = Augmentation(GROUP, BOX[1] - BOX[0], PERIOD).sample(np.random.default_rng(0), 3)
    moved = transformations.moved(TrajectoryBatch(torch.zeros(3, 2), x, u))
    expected = encode(model, TrajectoryBatch(moved.t, moved.x, NORMALISATION.apply(moved.u)), prior)
    action = CodeAction(model, NORMALISATION, BOX)
    torch.testing.assert_close(action(codes, transformations), expected, rtol=0, atol=1e-6)
    assert float((expected - codes).abs().max()) > 0.1


@pytest.mark.parametrize(("depth", "symmetries", "exact"), [(0, GROUP, True), (0, TILT, False), (1, GROUP, False)])
def test_only_spans_that_symmetries_keep_count_as_exact(depth, symmetries, exact):
    action = FeatureAction.of(decoder(depth), NORMALISATION, BOX)
    assert action.exact_under(Augmentation(symmetries, BOX[1] - BOX[0], PERIOD)) == exact


def test_an_averaged_prior_is_that_of_moved_weights():
    model = decoder().double()
    size = model.features_size
    action = FeatureAction.of(model, NORMALISATION, BOX)
    random = torch.Generator().manual_seed(1)
    root, whitening = (torch.randn(n, n, generator=random, dtype=torch.float64) for n in (2 * size, size))
    prior = GaussianPrior(torch.ones(2 * size).double(), root @ root.T, torch.ones(2).double())
    transformations = Augmentation(GROUP, BOX[1] - BOX[0], PERIOD).sample(np.random.default_rng(0), 3)
    averaged = action.averaged(prior, whitening, transformations)
    # Draws whose moments are exactly those of the prior, moved one by one.
    draws = prior.mean + torch.cat([root, -root], 1).T * (2 * size) ** 0.5
    weights = draws.unflatten(-1, (2, size)) @ whitening.T
    moved = []
    for turn, rotation, shift in zip(*action.actions(transformations), strict=True):
        new = turn @ weights @ rotation
        new[..., 0] += shift
        moved.append(new @ torch.linalg.inv(whitening).T)
    every = torch.cat(moved).flatten(1)
    torch.testing.assert_close(averaged.mean, every.mean(0), rtol=0, atol=1e-8)
    torch.testing.assert_close(averaged.covariance, every.T.cov(correction=0), rtol=1e-8, atol=1e-7)
