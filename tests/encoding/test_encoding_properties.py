"""What encoding must do with every registered decoder."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from registered_decoders import codes, decoders, points

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import decoder_class, decoder_names
from inrflow.encoding.encode import encode_with_covariance
from inrflow.encoding.posterior import GaussianPrior

T, N = 2, 9
every_decoder = pytest.mark.parametrize("name", decoder_names())
random_trials = settings(max_examples=10, deadline=None, derandomize=True)


def prior(size: int, channels: int, noise: float) -> GaussianPrior:
    return GaussianPrior(torch.zeros(size).double(), torch.eye(size).double(), torch.full((channels,), noise).double())


def observed(data: st.DataObject, channels: int) -> torch.Tensor:
    """Which of the values (T, N, C) are observed."""
    size = T * N * channels
    return torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size))).reshape(T, N, channels)


@pytest.mark.parametrize("name", [name for name in decoder_names() if decoder_class(name).affine])
@given(data=st.data())
@random_trials
@torch.no_grad()
def test_encoding_decoded_values_recovers_the_code_from_any_values_that_determine_it(name, data):
    decoder = data.draw(decoders(name).filter(lambda one: one.affine))
    x, z = points(decoder, N), codes(decoder, T)
    mask = observed(data, decoder.channels)
    basis = decoder.basis(x)[1]
    for frame in mask:
        rows = basis[frame]
        assume(len(rows) >= decoder.code_size and float(torch.linalg.svdvals(rows)[-1]) > 0.03)
    u = torch.where(mask, decoder(x, z), torch.nan)
    batch = TrajectoryBatch(torch.arange(T).double()[None], x[None, None], u[None])
    found, spread = encode_with_covariance(decoder, batch, prior(decoder.code_size, decoder.channels, 1e-12))
    torch.testing.assert_close(found[0], z, rtol=0, atol=1e-6)
    assert spread is not None and float(spread.diagonal(dim1=-2, dim2=-1).max()) < 1e-8


@every_decoder
@given(data=st.data())
@random_trials
@torch.no_grad()
def test_the_posterior_does_not_depend_on_the_order_of_the_observations(name, data):
    decoder = data.draw(decoders(name))
    x, z, t = points(decoder, N), codes(decoder, T), torch.arange(T).double()[None]
    u = torch.where(observed(data, decoder.channels), decoder(x, z), torch.nan)
    order = torch.tensor(data.draw(st.permutations(range(N))))
    whole = prior(decoder.code_size, decoder.channels, 0.1)
    mean, spread = encode_with_covariance(decoder, TrajectoryBatch(t, x[None, None], u[None]), whole)
    shuffled = TrajectoryBatch(t, x[order][None, None], u[:, order][None])
    again, other = encode_with_covariance(decoder, shuffled, whole)
    torch.testing.assert_close(again, mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(other, spread, rtol=0, atol=1e-8)
    unobserved = ~torch.isfinite(u).flatten(1).any(1)
    assert float(mean[0, unobserved].abs().sum()) == 0  # the prior mean
