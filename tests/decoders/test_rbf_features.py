"""Functions around fixed points: exact there, known derivatives everywhere, the same after saving."""

import pytest
import torch

from inrflow.decoders.base import build_decoder, decoder_structure
from inrflow.decoders.embeddings import Embedding, PeriodicEmbedding, SphericalEmbedding
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.rbf_features import RadialFeatures


def nodes(count: int = 40) -> torch.Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def values(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([(3 * x[..., 0]).sin() * x[..., 1], (2 * x[..., 1]).cos()], -1)


INNER = [Embedding([0, 0], [1, 1]), PeriodicEmbedding([0, 0], [1, 1], [1.0, 1.0], harmonics=2)]


@pytest.mark.parametrize("inner", INNER, ids=["raw", "periodic"])
def test_the_values_at_the_nodes_are_the_given_ones(inner):
    x = nodes()
    functions = RadialFeatures.through(inner, x, values(x))
    assert functions.harmonics == inner.harmonics + 2
    found = functions.evaluate_harmonics(x.reshape(4, 10, 2))
    torch.testing.assert_close(found[..., inner.harmonics :].reshape(-1, 2), values(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[..., : inner.harmonics], inner.evaluate_harmonics(x.reshape(4, 10, 2)))


def test_between_dense_nodes_a_smooth_function_is_met():
    axis = torch.linspace(0, 1, 17, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    functions = RadialFeatures.through(Embedding([0, 0], [1, 1]), x, values(x))
    inside = 0.2 + 0.6 * nodes()
    torch.testing.assert_close(functions.evaluate_harmonics(inside), values(inside), rtol=0, atol=3e-3)


def test_gaps_between_scattered_nodes_are_no_dips():
    x, away = nodes(300), 0.1 + 0.8 * nodes(400)[300:]
    functions = RadialFeatures.through(Embedding([0, 0], [1, 1]), x, values(x))
    assert float((functions.evaluate_harmonics(away) - values(away)).abs().max()) < 2e-3


def test_single_precision_of_a_network_leaves_the_functions_exact():
    x = nodes(300)
    decoder = HarmonicDecoder(RadialFeatures.through(Embedding([0, 0], [1, 1]), x, values(x)), 1).float()
    found = decoder.embedding.evaluate_harmonics(x)
    torch.testing.assert_close(found, values(x), rtol=0, atol=1e-6)


def test_far_from_all_nodes_nothing_is_added():
    x = nodes()
    functions = RadialFeatures.through(Embedding([0, 0], [1, 1]), x, values(x))
    assert float(functions.evaluate_harmonics(x + 100).abs().max()) == 0.0


@pytest.mark.parametrize("inner", INNER, ids=["raw", "periodic"])
def test_slopes_are_the_derivatives(inner):
    x = nodes()
    functions = RadialFeatures.through(inner, x, values(x))
    for points in (0.1 + 0.8 * nodes(7), x[:3]):  # at the nodes themselves, too
        expected = torch.func.vmap(torch.func.jacfwd(functions.evaluate_harmonics))(points)
        torch.testing.assert_close(functions.harmonic_slopes(points), expected.movedim(-1, 0))
        found = functions.harmonic_slopes(points.reshape(1, -1, 2))
        torch.testing.assert_close(found[:, 0], expected.movedim(-1, 0))


def test_second_derivatives_are_finite_at_the_nodes():
    x = nodes()
    functions = RadialFeatures.through(Embedding([0, 0], [1, 1]), x, values(x))
    hessian = torch.func.hessian(lambda point: functions.evaluate_harmonics(point)[0])(x[0])
    step = 1e-4 * torch.eye(2, dtype=torch.float64)
    around = torch.stack([functions.harmonic_slopes(x[:1] + side * e)[:, 0, 0] for e in step for side in (1, -1)])
    torch.testing.assert_close(hessian, (around[::2] - around[1::2]) / 2e-4, rtol=1e-2, atol=1e-1)


def test_points_on_a_sphere_have_distances_through_it():
    x = torch.nn.functional.normalize(torch.randn(30, 3, generator=torch.Generator().manual_seed(1)).double(), dim=-1)
    functions = RadialFeatures.through(SphericalEmbedding(), x, x[:, :1])
    torch.testing.assert_close(functions.evaluate_harmonics(x), x[:, :1], rtol=0, atol=1e-5)


def test_a_structure_and_its_buffers_make_the_same_functions():
    x = nodes()
    functions = RadialFeatures.through(INNER[1], x, values(x))
    decoder = HarmonicDecoder(functions, 1)
    twin = build_decoder(decoder_structure(decoder))
    twin.load_state_dict(decoder.state_dict())
    again = twin.embedding
    torch.testing.assert_close(again.evaluate_harmonics(x), functions.evaluate_harmonics(x))
    torch.testing.assert_close(again.forward(x), functions.forward(x))


def test_many_points_are_taken_in_blocks_with_the_same_answer(monkeypatch):
    x, many = nodes(), nodes(100)
    functions = RadialFeatures.through(INNER[0], x, values(x))
    whole = functions.evaluate_harmonics(many), functions.harmonic_slopes(many)
    monkeypatch.setattr("inrflow.decoders.rbf_features._BLOCK", 7)
    torch.testing.assert_close(functions.evaluate_harmonics(many), whole[0])
    torch.testing.assert_close(functions.harmonic_slopes(many), whole[1])


def test_errors_of_nodes_left_out_are_those_of_functions_through_the_others():
    x = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)).double()
    functions = RadialFeatures.through(Embedding([0, 0], [1, 1]), x, values(x))
    left = functions.left_out(values(x))
    for i in (0, 7):
        others = torch.arange(30) != i
        kernel = functions._kernel(functions.nodes)
        weights = torch.linalg.solve(kernel[others][:, others] + 1e-8 * torch.eye(29).double(), values(x)[others])
        torch.testing.assert_close(left[i], values(x)[i] - kernel[i, others] @ weights, rtol=1e-6, atol=1e-9)
