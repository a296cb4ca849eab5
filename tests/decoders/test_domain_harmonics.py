"""Harmonics of a domain as a decoder: grids axis by axis."""

import numpy as np
import pytest
import torch

from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder, GridSum, TableSum
from inrflow.domains import Box
from inrflow.domains.box import grid_of

BOX = Box([0.0, -1.0], [1.0, 1.0], ["periodic", "walled"])


@pytest.fixture
def decoder():
    made = DomainHarmonicDecoder(BOX.state(), "natural", 30, 2)
    with torch.no_grad():
        made.offset.copy_(torch.tensor([0.5, -1.0]))
    return made


@pytest.fixture
def grid():
    """A grid of 7 x 5 points in an order of its own."""
    x = np.stack(np.meshgrid(np.linspace(0, 0.9, 7), np.linspace(-0.9, 0.7, 5), indexing="ij"), -1).reshape(-1, 2)
    return torch.tensor(np.random.default_rng(1).permutation(x))


def test_values_on_a_grid_are_those_of_the_basis(decoder, grid):
    z = torch.randn(3, 4, decoder.code_size, dtype=torch.float64)
    offset, basis = decoder.basis(grid)
    expected = offset + torch.einsum("ncz,stz->stnc", basis, z)
    assert isinstance(decoder.sum_at(grid, torch.float64), GridSum)
    torch.testing.assert_close(decoder(grid[None, None], z).double(), expected.double())


def test_values_at_points_that_differ_are_those_of_each(decoder, grid):
    x = torch.stack([grid[:6], grid[6:12]])[:, None]
    z = torch.randn(2, 3, decoder.code_size, dtype=torch.float64)
    each = torch.cat([decoder(one[None], codes[None]) for one, codes in zip(x, z, strict=True)])
    torch.testing.assert_close(decoder(x, z), each)


def test_sums_over_points_transpose_values(decoder, grid):
    on_grid, table = decoder.sum_at(grid, torch.float64), TableSum(decoder.harmonics, grid.numpy(), torch.float64)
    fields = torch.randn(3, len(grid), dtype=torch.float64)
    torch.testing.assert_close(on_grid.sums(fields), table.sums(fields))
    torch.testing.assert_close(on_grid.table, table.table)


def test_points_that_fill_no_grid_are_known():
    x = np.random.default_rng(0).uniform(size=(12, 2))
    assert grid_of(x) is None
    assert grid_of(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])) is None


def test_slopes_agree_with_differences(decoder, grid):
    z, step = torch.randn(1, decoder.code_size, dtype=torch.float64), torch.tensor([1e-5, 0.0], dtype=torch.float64)
    difference = (decoder(grid[None] + step, z) - decoder(grid[None] - step, z)) / 2e-5
    torch.testing.assert_close(decoder.slopes(grid[None], z)[..., 0], difference, rtol=1e-5, atol=1e-5)


def test_the_tail_is_the_mean_square_of_what_the_highest_eighth_makes(decoder):
    z = torch.randn(3, decoder.code_size, dtype=torch.float64)
    codes = z.unflatten(-1, (2, -1)).clone()
    codes[..., : -(decoder.count // 8 + 1)] = 0.0
    x = torch.tensor(np.random.default_rng(0).uniform([0, -1], [1, 1], (20_000, 2)))
    fields = decoder(x, codes.flatten(1)) - decoder.offset
    torch.testing.assert_close(decoder.tail(z), fields.square().mean(1).double(), rtol=0.05, atol=0.0)


def test_of_many_codes_whole_slices_of_a_grid_are_decoded_together(monkeypatch):
    decoder = DomainHarmonicDecoder(Box([0.0, 0.0], [1.0, 1.0], ["periodic"] * 2), "natural", 40, 2)
    x = torch.cartesian_prod(torch.arange(8.0), torch.arange(6.0)) / 8
    assert decoder.together(x, 20) == 20
    monkeypatch.setattr("inrflow.decoders.domain_harmonics._MANY", 10)
    assert decoder.together(x, 20) >= len(x)
    monkeypatch.setattr("inrflow.decoders.domain_harmonics._SLICES", 20)
    assert decoder.together(x, 20) == 18
    assert decoder.together(x[torch.randperm(len(x))], 20) == 20
