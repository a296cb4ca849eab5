"""Sums over products of functions of one coordinate, against the table of all products."""

import numpy as np
import torch

from inrflow.numerics.separable import SeparableSum


def test_sums_axis_by_axis_are_those_of_the_whole_table():
    random = np.random.default_rng(0)
    modes = np.array([[0, 0, 0], [1, 0, 2], [2, 1, 1], [0, 1, 0]])
    tables = [torch.tensor(random.standard_normal(shape)) for shape in ((5, 3), (4, 2), (6, 3))]
    whole = torch.einsum("ik,jk,lk->ijlk", *(t[:, modes[:, j]] for j, t in enumerate(tables))).reshape(-1, len(modes))
    separable = SeparableSum(modes, [3, 2, 3])
    codes, fields = torch.tensor(random.standard_normal((2, 3, 4))), torch.tensor(random.standard_normal((2, 120)))
    torch.testing.assert_close(separable.values(codes, tables), codes @ whole.T)
    torch.testing.assert_close(separable.sums(fields, tables), fields @ whole)


def test_any_number_of_fields_is_exported():
    separable, tables = SeparableSum(np.array([[0, 0], [1, 1]]), [2, 2]), [torch.randn(3, 2), torch.randn(4, 2)]

    class Fields(torch.nn.Module):
        def forward(self, codes):
            return separable.values(codes, tables)

    program = torch.export.export(Fields(), (torch.randn(3, 2),), dynamic_shapes=({0: torch.export.Dim("fields")},),
                                  strict=False)
    codes = torch.randn(5, 2)
    torch.testing.assert_close(program.module()(codes), separable.values(codes, tables))
