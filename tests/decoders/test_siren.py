"""The modulated SIREN: affine basis, derivatives in the code, broadcasting, and how it starts."""

import itertools

import pytest
import torch

from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import Embedding, PeriodicEmbedding
from inrflow.decoders.siren import MODULATIONS, ModulatedSiren

SUBSETS = [s for n in (1, 2, 3) for s in itertools.combinations(MODULATIONS, n)]
PERIODIC = PeriodicEmbedding([0, 0], [1, 1], [1.0, 1.0], wavenumbers=2, harmonics=1)
RAW = Embedding([0, 0], [1, 1])


def siren(modulation=("output",), embedding=PERIODIC, **options) -> ModulatedSiren:
    torch.manual_seed(0)
    options = {"channels": 2, "code_size": 5, "width": 12, "depth": 2, "w0": 2.0, **options}
    return ModulatedSiren(embedding, modulation=modulation, **options).double()


def points(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def codes(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def written_out(decoder: ModulatedSiren, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """The definition in the module's first lines, for points (N, d) and one code."""
    hidden = decoder.embedding(x)
    for layer in range(decoder.depth):
        inner = hidden @ decoder.weights[layer].T + decoder.biases[layer]
        gain = 1 + z @ decoder.scale_map[:, layer] if "scale" in decoder.modulation else 1.0
        shift = z @ decoder.shift_map[:, layer] if "shift" in decoder.modulation else 0.0
        hidden = torch.sin(decoder.w0 * gain * inner + decoder.w0 * shift)
    weights = decoder.output
    if "output" in decoder.modulation:
        weights = weights + torch.einsum("z,zcf->cf", z, decoder.output_map)
    features = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), decoder.embedding.evaluate_harmonics(x), hidden], -1)
    return features @ weights.T


@torch.no_grad()
@pytest.mark.parametrize("embedding", [PERIODIC, RAW], ids=["periodic", "raw"])
@pytest.mark.parametrize("modulation", SUBSETS, ids="+".join)
def test_forward_is_the_documented_recursion(modulation, embedding):
    decoder, x, z = siren(modulation, embedding), points(9), codes(3, 5)
    expected = torch.stack([written_out(decoder, x, one) for one in z])
    torch.testing.assert_close(decoder(x, z), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_basis_equals_forward():
    decoder, x, z = siren(), points(9), codes(3, 5)
    offset, basis = decoder.basis(x)
    assert offset.shape == (9, 2) and basis.shape == (9, 2, 5)
    torch.testing.assert_close(offset + torch.einsum("ncz,fz->fnc", basis, z), decoder(x, z), rtol=0, atol=1e-12)


def test_only_output_modulation_alone_is_affine():
    assert siren().affine
    for modulation in SUBSETS:
        if modulation != ("output",):
            decoder = siren(modulation)
            assert not decoder.affine
            with pytest.raises(NotImplementedError):
                decoder.basis(points(3))


@torch.no_grad()
@pytest.mark.parametrize("own_points", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("modulation", SUBSETS, ids="+".join)
def test_linearise_agrees_with_finite_differences(modulation, own_points):
    decoder, z = siren(modulation), codes(4, 5)
    x = points(4, 6) if own_points else points(6)
    u, jacobian = decoder.linearise(x, z)
    assert jacobian.shape == (4, 6, 2, 5)
    torch.testing.assert_close(u, decoder(x, z), rtol=0, atol=1e-12)
    for k in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[k] = 1e-5
        difference = (decoder(x, z + step) - decoder(x, z - step)) / 2e-5
        torch.testing.assert_close(jacobian[..., k], difference, rtol=0, atol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("own_points", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("embedding", [PERIODIC, RAW], ids=["periodic", "raw"])
@pytest.mark.parametrize("modulation", [("output",), ("shift", "scale"), MODULATIONS], ids="+".join)
def test_slopes_agree_with_finite_differences(modulation, embedding, own_points):
    decoder, z = siren(modulation, embedding), codes(4, 5)
    x = points(4, 6) if own_points else points(6)
    slopes = decoder.slopes(x, z)
    assert slopes.shape == (4, 6, 2, 2)
    for axis in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[axis] = 1e-6
        difference = (decoder(x + step, z) - decoder(x - step, z)) / 2e-6
        torch.testing.assert_close(slopes[..., axis], difference, rtol=0, atol=1e-7)
    torch.testing.assert_close(slopes, Decoder.slopes(decoder, x, z))


@torch.no_grad()
@pytest.mark.parametrize("modulation", [("output",), ("shift", "scale"), MODULATIONS], ids="+".join)
def test_points_and_codes_broadcast(modulation):
    decoder, z = siren(modulation), codes(3, 4, 5)
    single = torch.stack([torch.stack([decoder(points(3, 1, 6)[i, 0], z[i, j]) for j in range(4)]) for i in range(3)])
    torch.testing.assert_close(decoder(points(3, 1, 6), z), single)
    shared = points(6)
    torch.testing.assert_close(decoder(shared, z), decoder(shared.expand(3, 4, 6, 2), z))
    torch.testing.assert_close(decoder(shared[None, None], z), decoder(shared, z))


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_pre_activations_start_with_the_documented_variance_at_any_depth(depth):
    """Unit variance after a sine layer (arcsine inputs of variance 1/2 against U(-sqrt(6/n)/w0, ..))."""
    for embedding, w0 in ((PERIODIC, 2.0), (RAW, 30.0)):
        decoder = siren(embedding=embedding, width=256, depth=depth, w0=w0)
        hidden = embedding(points(2000))
        for layer in range(depth):
            inner = decoder.w0 * (hidden @ decoder.weights[layer].T + decoder.biases[layer])
            hidden = inner.sin()
            if layer or embedding is PERIODIC:
                assert 0.6 < float(inner.square().mean()) < 1.5
            else:  # raw coordinates: w0 sets the number of oscillations instead
                assert float(inner.square().mean()) > 50


@torch.no_grad()
def test_set_output_changes_the_code_and_is_saved():
    decoder, features = siren(), siren().features_size
    mean, modes = codes(2, features), codes(8, 2, features)
    decoder.set_output(mean, modes)
    assert decoder.code_size == 8
    x, z = points(6), codes(3, 8)
    psi = decoder.features(x)
    expected = torch.einsum("nf,scf->snc", psi, mean + torch.einsum("sz,zcf->scf", z, modes))
    torch.testing.assert_close(decoder(x, z), expected)
    assert decoder.state_dict()["output_map"].shape == modes.shape


def test_gradients_reach_every_parameter():
    for modulation in SUBSETS:
        decoder = siren(modulation)
        decoder(points(6), codes(3, 5)).square().sum().backward()
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in decoder.parameters()), modulation


def test_unknown_and_empty_modulations_are_refused():
    for modulation in ((), ("shift", "phase")):
        with pytest.raises(ValueError, match="modulation"):
            siren(modulation)


@pytest.mark.parametrize("codes", [3, 400], ids=["by output weights", "by the basis"])
@pytest.mark.parametrize("channels", [1, 2])
def test_points_that_all_codes_share_are_decoded_as_points_of_each(codes, channels):
    torch.manual_seed(0)
    decoder = ModulatedSiren(PeriodicEmbedding([0, 0], [1, 1], [1.0, 1.0], 2, 2), channels, 6, 16, 2, 2.0).double()
    x, z = torch.rand(7, 2, dtype=torch.float64), torch.randn(codes, 6, dtype=torch.float64)
    expected = decoder(x.expand(codes, -1, -1), z)
    torch.testing.assert_close(decoder(x, z), expected, rtol=1e-12, atol=1e-12)
    pairs = decoder(x[None, None], z.unflatten(0, (1, codes)))
    assert pairs.shape == (1, codes, 7, channels)
    torch.testing.assert_close(pairs[0], expected, rtol=1e-12, atol=1e-12)
