"""Transforms, derivatives and evaluation anywhere, against fields given in closed form."""

import math

import pytest
import torch

from inrflow.pdes.spectral import SpectralGrid

PERIODS = {1: (3.0,), 2: (3.0, 0.5), 3: (3.0, 0.5, 1.0)}


def polynomial(x: torch.Tensor, period: tuple[float, ...]) -> torch.Tensor:
    """A real trigonometric polynomial of degree 3 with every kind of symmetry broken."""
    phases = [2 * math.pi * x[..., axis] / length for axis, length in enumerate(period)]
    product = torch.ones_like(phases[0])
    for axis, phase in enumerate(phases):
        product = product * (0.3 + torch.cos((axis + 1) * phase + 0.4) - 0.7 * torch.sin(3 * phase))
    return product + torch.sin(sum(phases) + 1.0)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("size", [8, 9])
def test_evaluation_at_any_points_is_exact(dimensions, size):
    grid = SpectralGrid(size, PERIODS[dimensions])
    field = polynomial(grid.points(), grid.period).reshape(1, 1, *grid.shape)
    coefficients = grid.transform(torch.cat([field, -2 * field], dim=1).repeat(2, 1, *[1] * dimensions))
    shared = 5 * torch.rand(40, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 2
    expected = polynomial(shared, grid.period)
    for x in (shared, torch.stack([shared, shared.flip(0)])):
        values = grid.evaluate(coefficients, x)
        assert values.shape == (2, 40, 2)
        second = expected if x.ndim == 2 else expected.flip(0)
        torch.testing.assert_close(values[0], torch.stack([expected, -2 * expected], dim=-1), rtol=0, atol=1e-12)
        torch.testing.assert_close(values[1], torch.stack([second, -2 * second], dim=-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("size", [4, 6, 12, 18])
def test_other_grids_see_the_same_field(dimensions, size):
    grid = SpectralGrid(12, PERIODS[dimensions])
    coefficients = grid.transform(polynomial(grid.points(), grid.period).reshape(1, 1, *grid.shape))
    expected = polynomial(grid.points(size), grid.period)
    torch.testing.assert_close(grid.on_grid(coefficients, size)[0, 0], expected, rtol=0, atol=1e-12)


def test_many_points_in_blocks_give_what_all_at_once_give(monkeypatch):
    grid = SpectralGrid(8, PERIODS[2])
    coefficients = grid.transform(polynomial(grid.points(), grid.period).reshape(1, 1, *grid.shape))
    x = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = grid.evaluate(coefficients, x)
    monkeypatch.setattr("inrflow.pdes.spectral._EVALUATED_TOGETHER", 7 * 8)
    torch.testing.assert_close(grid.evaluate(coefficients, x), whole, rtol=0, atol=1e-14)


def test_the_nyquist_mode_is_seen_as_a_cosine():
    grid = SpectralGrid(6, (1.0, 1.0))
    alternating = torch.cos(6 * math.pi * grid.points()[:, 0]).reshape(1, 1, 6, 6)
    coefficients = grid.transform(alternating)
    x = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grid.evaluate(coefficients, x)[0, :, 0], torch.cos(6 * math.pi * x[:, 0]))
    assert grid.derivative[0].flatten()[3] == 0


def test_derivatives_and_laplacian_are_exact():
    grid = SpectralGrid(16, PERIODS[2])
    x = grid.points()
    a, b = 2 * math.pi * 2 / 3.0, 2 * math.pi * 3 / 0.5
    field = torch.sin(a * x[:, 0] + b * x[:, 1]).reshape(grid.shape)
    slope = torch.cos(a * x[:, 0] + b * x[:, 1]).reshape(grid.shape)
    coefficients = grid.transform(field)
    torch.testing.assert_close(grid.inverse(grid.derivative[0] * coefficients), a * slope)
    torch.testing.assert_close(grid.inverse(grid.derivative[1] * coefficients), b * slope)
    torch.testing.assert_close(grid.inverse(grid.squared * coefficients), (a**2 + b**2) * field)


@pytest.mark.parametrize(("degree", "highest"), [(1, 11), (2, 7), (3, 5)])
def test_products_of_the_kept_modes_are_free_of_aliasing(degree, highest):
    grid = SpectralGrid(24, (1.0,))
    assert torch.equal(grid.mask(degree), (torch.arange(13) <= highest).to(torch.float64))
    if degree > 1:
        top = torch.cos(2 * math.pi * highest * grid.points()[:, 0])
        exact = SpectralGrid(24 * 4, (1.0,))
        finer = torch.cos(2 * math.pi * highest * exact.points()[:, 0])
        kept = (grid.mask(degree) * grid.transform(top**degree))[:13]
        true = exact.transform(finer**degree)[:13] * grid.mask(degree)
        torch.testing.assert_close(kept, true)
