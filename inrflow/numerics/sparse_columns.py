"""Products with matrices that hold a few numbers in every column, as those of harmonics do: gathers, not sums."""

from __future__ import annotations

import torch
from torch import Tensor

_NOTHING = 1e-13  # of the largest number
_FEW = 4  # numbers in a column: more are summed as fast by a dense product


class SparseColumns:
    """x @ matrix for a matrix (n, m) of which every column holds at most so many numbers."""

    def __init__(self, index: Tensor, weight: Tensor) -> None:
        self.index, self.weight = index, weight  # (r, m) each

    @classmethod
    def of(cls, matrix: Tensor) -> SparseColumns | None:
        """The same product as with a dense matrix (n, m), or None where some column is too full for it to pay."""
        size = matrix.detach().abs()
        if not matrix.numel() or len(matrix) <= _FEW:
            return None
        there = size > _NOTHING * size.max()
        most = max(int(there.sum(0).max()), 1)
        if most > _FEW:
            return None
        index = there.to(torch.int8).topk(most, dim=0).indices
        return cls(index, torch.where(there.gather(0, index), matrix.detach().gather(0, index), 0.0))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., m) of x (..., n)."""
        weight = self.weight.to(x.dtype)
        total = x.index_select(-1, self.index[0]) * weight[0]
        for index, one in zip(self.index[1:], weight[1:], strict=True):
            total = torch.addcmul(total, x.index_select(-1, index), one)
        return total
