"""Registered decoders: what every one of them must do, and how they are saved by their names."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from registered_decoders import codes, decoders, points
from torch import Tensor

from inrflow.decoders.base import (
    AffineDecoder,
    Decoder,
    build_decoder,
    decoder_class,
    decoder_names,
    decoder_structure,
    has_output_layer,
    register_decoder,
)
from inrflow.decoders.embeddings import Embedding, PeriodicEmbedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.siren import ModulatedSiren
from inrflow.errors import UserError


@register_decoder("test_cosines")
class Cosines(AffineDecoder):
    """A decoder of a user's own: cosines of the first coordinate, no embedding of the package in its features."""

    def __init__(self, embedding: Embedding, channels: int, code_size: int, waves: int = 3) -> None:
        super().__init__()
        self.embedding, self.channels, self.code_size, self.waves = embedding, channels, code_size, waves
        self.draw_output(1 + waves)

    def structure(self) -> dict:
        return {"embedding": self.embedding, "channels": self.channels, "code_size": self.code_size,
                "waves": self.waves}

    def features(self, x: Tensor) -> Tensor:
        return (x[..., :1] * torch.arange(1 + self.waves).to(x)).cos()


every_decoder = pytest.mark.parametrize("name", decoder_names())
random_trials = settings(max_examples=8, deadline=None, derandomize=True)


def difference(function, at: Tensor, axis: int, step: float = 1e-5) -> Tensor:
    """Central difference of a function along an axis of its argument's last dimension."""
    move = torch.zeros(at.shape[-1], dtype=at.dtype)
    move[axis] = step
    return (function(at + move) - function(at - move)) / (2 * step)


@every_decoder
@given(data=st.data())
@random_trials
def test_a_structure_in_json_and_the_weights_make_the_same_decoder(name, data):
    decoder = data.draw(decoders(name))
    twin = build_decoder(json.loads(json.dumps(decoder_structure(decoder)))).double()
    twin.load_state_dict(decoder.state_dict())
    x, z = points(decoder, 5), codes(decoder, 3)
    assert type(twin) is type(decoder) and twin.code_size == decoder.code_size and twin.affine == decoder.affine
    torch.testing.assert_close(twin(x, z), decoder(x, z), rtol=0, atol=0)


@every_decoder
@given(data=st.data())
@random_trials
def test_points_and_codes_broadcast(name, data):
    decoder = data.draw(decoders(name))
    x, z = points(decoder, 2, 1, 5), codes(decoder, 2, 3)
    with torch.no_grad():
        u = decoder(x, z)
        assert u.shape == (2, 3, 5, decoder.channels)
        torch.testing.assert_close(u[1, 2], decoder(x[1, 0], z[1, 2]))
        torch.testing.assert_close(decoder(x[0, 0], z), decoder(x[0, 0].expand(2, 3, -1, -1), z))


@every_decoder
@given(data=st.data())
@random_trials
def test_derivatives_in_code_coordinates_and_weights_agree_with_finite_differences(name, data):
    decoder = data.draw(decoders(name))
    x, z = points(decoder, 5), codes(decoder, 3)
    with torch.no_grad():
        u, jacobian = decoder.linearise(x, z)
        torch.testing.assert_close(u, decoder(x, z))
        for k in range(decoder.code_size):
            torch.testing.assert_close(
                jacobian[..., k], difference(lambda c: decoder(x, c), z, k), rtol=1e-6, atol=1e-7
            )
        slopes = decoder.slopes(x, z)
        assert slopes.shape == (*u.shape, x.shape[-1])
        for axis in range(x.shape[-1]):
            torch.testing.assert_close(
                slopes[..., axis], difference(lambda p: decoder(p, z), x, axis), rtol=1e-6, atol=1e-7
            )
    trained = [weight for weight in decoder.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(decoder(x, z).sin().sum(), trained)
    with torch.no_grad():
        slope = sum(float((gradient * gradient.sign()).sum()) for gradient in gradients)
        values = []
        for step in (1e-6, -1e-6):
            for weight, gradient in zip(trained, gradients, strict=True):
                weight += step * gradient.sign()
            values.append(float(decoder(x, z).sin().sum()))
            for weight, gradient in zip(trained, gradients, strict=True):
                weight -= step * gradient.sign()
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@every_decoder
@given(data=st.data())
@random_trials
def test_the_basis_of_an_affine_decoder_agrees_with_its_values(name, data):
    decoder = data.draw(decoders(name))
    x, z = points(decoder, 2, 5), codes(decoder, 2)
    if not decoder.affine:
        with pytest.raises(NotImplementedError, match="affine"):
            decoder.basis(x)
        return
    with torch.no_grad():
        offset, basis = decoder.basis(x)
        assert offset.shape == (2, 5, decoder.channels) and basis.shape == (*offset.shape, decoder.code_size)
        torch.testing.assert_close(offset + (basis @ z[:, None, :, None])[..., 0], decoder(x, z))
        if has_output_layer(decoder):  # any other modes over the same features
            modes = torch.randn(4, decoder.channels, decoder.features_size, dtype=torch.float64)
            decoder.set_output(torch.zeros_like(modes[0]), modes)
            expected = torch.einsum("bnf,kcf,bk->bnc", decoder.features(x), modes, codes(decoder, 2))
            torch.testing.assert_close(decoder(x, codes(decoder, 2)), expected)


@every_decoder
@given(data=st.data())
@random_trials
def test_channels_with_codes_of_their_own_do_not_see_those_of_others(name, data):
    decoder = data.draw(decoders(name))
    if not decoder.code_per_channel:
        return
    x, z = points(decoder, 5), codes(decoder, 1)
    own = decoder.code_size // decoder.channels
    with torch.no_grad():
        moved = decoder(x, torch.cat([z[:, :own], z[:, own:] + 1], 1)) - decoder(x, z)
    assert float(moved[..., 0].abs().max()) == 0 and (decoder.channels == 1 or float(moved.abs().max()) > 0)


def test_a_decoder_that_is_not_registered_is_named():
    class Unknown(Decoder):
        def structure(self):
            return {}

    with pytest.raises(UserError, match=r"Unknown is not registered.*register_decoder"):
        decoder_structure(Unknown())
    with pytest.raises(UserError, match=r"'wavelets'.*harmonics.*siren.*import the module"):
        build_decoder({"kind": "wavelets"})
    with pytest.raises(UserError, match="'raw' is an embedding"):
        decoder_class("raw")


def test_a_name_belongs_to_one_class():
    with pytest.raises(ValueError, match="siren.*ModulatedSiren"):
        register_decoder("siren")(Cosines)
    assert decoder_class("siren") is ModulatedSiren
    register_decoder("test_cosines")(Cosines)  # as when a module is loaded again


def test_a_saved_siren_without_layers_is_read_as_the_harmonics():
    """As models were written before the harmonics had a class of their own."""
    embedding = PeriodicEmbedding([0.0, 0.0], [1.0, 2.0], [1.0, 2.0], 2, 2)
    written = {
        "kind": "siren",
        "embedding": {"kind": "periodic", "low": [0.0, 0.0], "high": [1.0, 2.0], "period": [1.0, 2.0],
                      "wavenumbers": 2, "harmonics": 2},
        "channels": 2, "code_size": 3, "width": 0, "depth": 0, "w0": 5.0, "modulation": ["output"],
    }
    random = torch.Generator().manual_seed(0)
    state = {
        "output": torch.randn(2, 25, generator=random), "output_map": torch.randn(3, 2, 25, generator=random),
        "embedding.centre": embedding.centre, "embedding.multiples": embedding.multiples,
        "embedding.modes": embedding.modes,
    }
    decoder = build_decoder(written)
    decoder.load_state_dict(state)
    assert type(decoder) is HarmonicDecoder
    x = torch.rand(6, 2, generator=random)
    z = torch.randn(2, 3, generator=random)
    weights = state["output"] + torch.einsum("sz,zcf->scf", z, state["output_map"])
    angle = 2 * torch.pi * x.double() @ (embedding.modes / torch.tensor([1.0, 2.0])).T
    functions = torch.cat([torch.ones(6, 1), 2**0.5 * angle.cos(), 2**0.5 * angle.sin()], 1)
    expected = torch.einsum("nf,scf->snc", functions, weights.double())
    torch.testing.assert_close(decoder(x, z).double(), expected, rtol=0, atol=2e-5)
