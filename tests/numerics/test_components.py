"""Tests of functions of matrices by connected components."""

import torch

from inrflow.numerics.components import assembled, block_apply, components, diagonal_blocks


def hidden_blocks(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.block_diag(*[torch.randn(n, n, generator=generator).double() for n in sizes])
    order = torch.randperm(len(matrix), generator=generator)
    return matrix[order][:, order]


def test_exponentials_parted_are_that_of_the_matrix():
    matrix = hidden_blocks([3, 1, 4, 2, 2])
    rows = components(matrix)
    assert rows is not None and rows.shape == (5, 4)
    parts = torch.linalg.matrix_exp(0.3 * diagonal_blocks(matrix, rows))
    expected = torch.linalg.matrix_exp(0.3 * matrix)
    torch.testing.assert_close(assembled(parts, rows, 12), expected)
    z = torch.randn(7, 12, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(block_apply(parts, rows, z), z @ expected.T)


def test_a_matrix_whose_rows_depend_on_each_other_is_left_whole():
    assert components(hidden_blocks([65])) is None


def test_rounding_does_not_join_components():
    matrix = hidden_blocks([2, 2])
    rows = components(matrix + 1e-15 * matrix.abs().max())
    assert rows is not None and rows.shape == (2, 2)
