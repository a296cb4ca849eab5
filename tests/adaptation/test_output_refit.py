"""The refitted output layer against the dense solution of the same regularised least-squares problem."""

import pytest
import torch

from inrflow.adaptation.output_refit import refitted_output
from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.embeddings import make_embedding
from inrflow.decoders.harmonics import HarmonicDecoder

CODES, POINTS = 3, 30


@pytest.fixture(scope="module")
def problem():
    """A harmonic decoder of two channels, frames of another one, with missing values, and codes."""
    torch.manual_seed(0)
    embedding = make_embedding([0.0], [1.0], (1.0,), None, 2, 2)
    decoder = HarmonicDecoder(embedding, 2, CODES).double()
    truth = HarmonicDecoder(embedding, 2, CODES).double()
    batches, codes = [], []
    for trajectories, frames in ((2, 4), (1, 3)):
        x = torch.rand(trajectories, 1, POINTS, 1, dtype=torch.float64)
        z = torch.randn(trajectories, frames, CODES, dtype=torch.float64)
        with torch.no_grad():
            u = truth(x, z)
        u[torch.rand(u.shape) < 0.2] = torch.nan
        batches.append(TrajectoryBatch(torch.arange(frames).double().expand(trajectories, -1), x, u))
        codes.append(z)
    return decoder, truth, batches, codes, torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)


def dense_solution(decoder, batches, codes, variances, pull):
    """Normal equations written out: one row for each observed value."""
    rows, right, every = [], [], []
    for batch, code in zip(batches, codes, strict=True):
        with torch.no_grad():
            missed = batch.u - decoder(batch.x, code)
        features = decoder.features(batch.x).detach()
        every.append(features.flatten(0, 2))
        for s, k, n, c in torch.isfinite(missed).nonzero().tolist():
            weights = torch.zeros(1 + CODES, 2, features.shape[-1], dtype=torch.float64)
            weights[:, c] = torch.outer(torch.cat([torch.ones(1).double(), code[s, k]]), features[s, 0, n])
            rows.append(weights.flatten())
            right.append(missed[s, k, n, c])
    design, right = torch.stack(rows), torch.stack(right)
    gram = torch.cat(every)
    gram = gram.T @ gram / len(gram)
    spread = torch.diag(torch.cat([torch.ones(1).double(), variances]))
    penalty = torch.kron(spread, torch.kron(torch.eye(2).double(), gram)) * pull / 2
    solution = torch.linalg.solve(design.T @ design / len(design) + penalty, design.T @ right / len(design))
    return solution.reshape(1 + CODES, 2, -1)


@pytest.mark.parametrize("pull", [1e-3, 1.0])
def test_it_is_the_regularised_least_squares_solution(problem, pull):
    decoder, _, batches, codes, variances = problem
    mean, modes = refitted_output(decoder, batches, codes, variances, pull)
    expected = dense_solution(decoder, batches, codes, variances, pull)
    torch.testing.assert_close(mean - decoder.output, expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(modes - decoder.output_map, expected[1:], rtol=1e-5, atol=1e-6)


def test_without_a_pull_the_decoder_of_the_data_is_found(problem):
    decoder, truth, batches, codes, variances = problem
    mean, modes = refitted_output(decoder, batches, codes, variances, 1e-9)
    torch.testing.assert_close(mean, truth.output.data, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(modes, truth.output_map.data, rtol=1e-4, atol=1e-4)


def test_a_strong_pull_keeps_the_decoder(problem):
    decoder, _, batches, codes, variances = problem
    mean, modes = refitted_output(decoder, batches, codes, variances, 1e8)
    torch.testing.assert_close(mean, decoder.output.data, rtol=0, atol=1e-6)
    torch.testing.assert_close(modes, decoder.output_map.data, rtol=0, atol=1e-6)
