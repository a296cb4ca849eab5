"""Gathers in place of dense products: the same numbers, where columns are empty enough."""

import torch

from inrflow.numerics.sparse_columns import SparseColumns


def test_a_few_numbers_in_every_column_give_the_dense_product():
    random = torch.Generator().manual_seed(0)
    matrix = torch.zeros(30, 40, dtype=torch.float64)
    for column in range(39):  # the last one is empty
        rows = torch.randperm(30, generator=random)[: column % 4 + 1]
        matrix[rows, column] = torch.randn(len(rows), generator=random, dtype=torch.float64)
    x = torch.randn(2, 5, 30, generator=random, dtype=torch.float64)
    sparse = SparseColumns.of(matrix)
    assert sparse is not None
    torch.testing.assert_close(sparse(x), x @ matrix, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(sparse(x.float()), (x @ matrix).float(), rtol=1e-5, atol=1e-5)


def test_one_full_column_leaves_the_dense_product():
    assert SparseColumns.of(torch.ones(30, 1)) is None
    assert SparseColumns.of(torch.zeros(0, 4)) is None


def test_zeros_stay_zeros():
    sparse = SparseColumns.of(torch.zeros(9, 3))
    assert sparse is not None and not sparse(torch.ones(2, 9)).any()
