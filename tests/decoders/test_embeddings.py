"""Embeddings: what they keep of the domain, and the domain's own harmonics."""

import math

import pytest
import torch

from inrflow.decoders.embeddings import Embedding, PeriodicEmbedding, SphericalEmbedding, make_embedding


def grid(n: int, lengths: tuple[float, ...]) -> torch.Tensor:
    axes = [torch.arange(n, dtype=torch.float64) * length / n for length in lengths]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def test_raw_coordinates_keep_the_aspect_ratio_inside_one():
    embedding = Embedding([1.0, -1.0], [5.0, 1.0])
    corners = torch.tensor([[1.0, -1.0], [5.0, 1.0], [3.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[-1.0, -0.5], [1.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(embedding(corners), expected)
    assert embedding.evaluate_harmonics(corners).shape == (3, 0)


@pytest.mark.parametrize(
    "embedding",
    [
        Embedding([0, 0], [1, 3]),
        PeriodicEmbedding([0, 0], [1, 3], [1.0, 3.0], wavenumbers=3, harmonics=2),
        PeriodicEmbedding([0, 0], [1, 3], [0.0, 3.0]),
    ],
    ids=["raw", "periodic", "mixed"],
)
def test_slopes_are_the_derivatives(embedding):
    x = grid(3, (1.0, 3.0)) + 0.1
    for slopes, function in (
        (embedding.slopes(x), embedding),
        (embedding.harmonic_slopes(x), embedding.evaluate_harmonics),
    ):
        expected = torch.func.vmap(torch.func.jacfwd(function))(x)  # points x outputs x d
        torch.testing.assert_close(slopes, expected.movedim(-1, 0))


def test_a_single_point_is_a_box_too():
    assert torch.isfinite(Embedding([2.0], [2.0])(torch.tensor([[2.0]]))).all()


def test_precision_of_the_points_is_kept():
    for dtype in (torch.float32, torch.float64):
        x = torch.rand(3, 2, dtype=dtype)
        for embedding in (Embedding([0, 0], [1, 1]), PeriodicEmbedding([0, 0], [1, 1], [1, 1], 2, 2)):
            assert embedding(x).dtype == dtype and embedding.evaluate_harmonics(x).dtype == dtype


def test_periodic_embedding_does_not_see_whole_periods():
    embedding = PeriodicEmbedding([0, 0], [3, 7], [3.0, 7.0], wavenumbers=3, harmonics=2)
    x = grid(5, (3.0, 7.0)) + 0.1
    moved = x + torch.tensor([3.0, -14.0], dtype=torch.float64)
    torch.testing.assert_close(embedding(moved), embedding(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(embedding.evaluate_harmonics(moved), embedding.evaluate_harmonics(x), rtol=0, atol=1e-12)
    assert embedding(x).shape[-1] == embedding.inputs == 12
    distances = torch.cdist(embedding(x), embedding(x)) + torch.eye(len(x))
    assert float(distances.min()) > 0.1  # and no two points of one period look alike


def test_mixed_domain_is_periodic_in_one_coordinate_and_raw_in_the_other():
    embedding = PeriodicEmbedding([0, -2], [1, 2], [1.0, 0.0], wavenumbers=1, harmonics=4)
    x = torch.tensor([[0.25, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(embedding(x), torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64))
    assert embedding.inputs == 3 and embedding.harmonics == 0


@pytest.mark.parametrize(("lengths", "largest"), [((2.0,), 5), ((0.5, 3.0), 3), ((1.0, 2.0, 4.0), 1)])
def test_harmonics_are_the_orthonormal_fourier_basis_on_a_grid(lengths, largest):
    zeros = [0.0] * len(lengths)
    embedding = PeriodicEmbedding(zeros, lengths, lengths, harmonics=largest)
    assert embedding.harmonics == (2 * largest + 1) ** len(lengths) - 1
    x = grid(2 * largest + 2, lengths)
    functions = torch.cat([torch.ones(len(x), 1, dtype=x.dtype), embedding.evaluate_harmonics(x)], -1)
    gram = functions.T @ functions / len(x)
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=x.dtype), rtol=0, atol=1e-12)


def test_sphere_sees_unit_vectors_as_they_are():
    x = torch.nn.functional.normalize(torch.randn(6, 3, dtype=torch.float64), dim=-1)
    torch.testing.assert_close(SphericalEmbedding()(x), x, rtol=0, atol=0)


def test_data_declare_their_embedding():
    assert type(make_embedding([-1] * 3, [1] * 3, None, "sphere")) is SphericalEmbedding
    assert type(make_embedding([0, 0], [1, 1], [1.0, 0.0], None)) is PeriodicEmbedding
    assert type(make_embedding([0, 0], [1, 1], [0.0, 0.0], None)) is Embedding
    assert type(make_embedding([0, 0], [1, 1], None, None)) is Embedding
    assert make_embedding([0], [2 * math.pi], [2 * math.pi], None, harmonics=3).harmonics == 6


def test_harmonics_are_known_to_the_precision_of_the_points():
    embedding = PeriodicEmbedding([0, 0], [2, 2], [2.0, 2.0], harmonics=7)
    x = grid(16, (2.0, 2.0))  # exact in float32
    found = embedding.evaluate_harmonics(x.float())
    assert found.dtype == torch.float32
    error = (found - embedding.evaluate_harmonics(x)).square().mean().sqrt()
    assert float(error) < 1e-7  # 7 turns and more in float32 alone: 1e-6
