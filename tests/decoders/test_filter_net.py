"""The Fourier filter net: its affine basis against the layers as published."""

import math

import pytest
import torch

from inrflow.decoders.embeddings import Embedding, SphericalEmbedding
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.errors import UserError


def net(channels: int = 2, code_size: int = 10, **options) -> FourierFilterNet:
    torch.manual_seed(0)
    return FourierFilterNet(Embedding([0, 0], [2, 1]), channels, code_size, width=16, **options).double()


def points(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def codes(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@torch.no_grad()
def published(decoder: FourierFilterNet, x: torch.Tensor, code: torch.Tensor) -> float:
    """One value at one point for one channel's code, written out for DINo's coordinates."""
    low, side = torch.tensor([0.0, -0.5], dtype=torch.float64), 2.0  # the box, extended to a square around its centre
    y = (x - low) / side * 0.5
    hidden = torch.zeros(decoder.width, dtype=torch.float64)
    for layer in range(decoder.depth + 1):
        angle = decoder.filters[layer] @ y * decoder.scale / math.sqrt(decoder.depth + 1)
        filters = torch.cat([angle.sin(), angle.cos()])
        inner = decoder.biases[layer] + decoder.code_maps[layer] @ code
        if layer:
            inner = inner + decoder.weights[layer - 1] @ hidden
        hidden = filters * inner
    return float(decoder.output @ hidden + decoder.output_bias)


@torch.no_grad()
def test_forward_is_the_published_recursion_in_dinos_coordinates():
    decoder, x, z = net(), points(3), codes(10)
    u = decoder(x, z)
    for n in range(3):
        assert float(u[n, 0]) == pytest.approx(published(decoder, x[n], z[:5]), abs=1e-13)
        assert float(u[n, 1]) == pytest.approx(published(decoder, x[n], z[5:]), abs=1e-13)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_basis_equals_forward_in_float64(depth):
    decoder, x, z = net(depth=depth), points(20), codes(7, 10)
    offset, basis = decoder.basis(x)
    assert offset.shape == (20, 2) and basis.shape == (20, 2, 10)
    torch.testing.assert_close(offset + torch.einsum("ncz,fz->fnc", basis, z), decoder(x, z), rtol=0, atol=1e-12)


def test_each_channel_sees_its_own_code_alone():
    _, basis = net().basis(points(20))
    assert bool((basis[:, 0, 5:] == 0).all()) and bool((basis[:, 1, :5] == 0).all())
    torch.testing.assert_close(basis[:, 0, :5], basis[:, 1, 5:])


def test_linearise_gives_value_and_jacobian_for_shared_and_own_points():
    decoder, z = net(), codes(4, 10)
    for x in (points(6), points(4, 6)):
        u, jacobian = decoder.linearise(x, z)
        assert jacobian.shape == (4, 6, 2, 10)
        torch.testing.assert_close(u, decoder(x, z), rtol=0, atol=1e-12)
        moved = decoder(x, z + 1)  # affine: a finite step is exact
        torch.testing.assert_close(u + jacobian.sum(-1), moved, rtol=0, atol=1e-11)


def test_points_and_codes_broadcast():
    decoder, x, z = net(), points(3, 1, 6), codes(3, 4, 10)
    u = decoder(x, z)
    assert u.shape == (3, 4, 6, 2)
    torch.testing.assert_close(u[2, 1], decoder(x[2, 0], z[2, 1]))
    torch.testing.assert_close(decoder(x[0, 0], z), decoder(x[:1].expand(3, 4, 6, 2), z))


def test_gradients_of_the_basis_reach_every_weight():
    decoder = net()
    offset, basis = decoder.basis(points(6))
    (offset.square().sum() + basis.square().sum()).backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in decoder.parameters())


def test_other_embeddings_serve():
    decoder = FourierFilterNet(SphericalEmbedding(), 1, 4, width=8)
    assert decoder(torch.nn.functional.normalize(torch.randn(5, 3), dim=-1), torch.randn(2, 4)).shape == (2, 5, 1)


def test_codes_that_channels_cannot_share_are_refused():
    with pytest.raises(UserError, match="multiple of 2"):
        net(code_size=5)
    with pytest.raises(UserError, match="even"):
        FourierFilterNet(Embedding([0.0], [1.0]), 1, 4, width=7)
