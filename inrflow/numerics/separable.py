"""Sums of products of functions of single coordinates on tensor-product grids, evaluated one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad


class SeparableSum:
    """u(x) = sum_k z_k prod_j f_(m_kj)(x_j) for K coefficients, on a grid of n_1 x ... x n_d points.

    Costs K n instead of K n^d operations a field, with n points along an axis. modes (K, d): index of the function of
    each axis. `tables` holds the values (n_j, m_j) of the functions of each axis; it is an argument of every call, so
    that some of them may be derivatives."""

    def __init__(self, modes: np.ndarray, counts: Sequence[int]) -> None:
        self.counts = list(counts)
        self.places = torch.tensor(np.ravel_multi_index(tuple(modes.T), self.counts))
        self.sources = torch.full((math.prod(self.counts),), len(modes))  # index len(modes): none
        self.sources[self.places] = torch.arange(len(modes))

    def products(self, points: Sequence[int]) -> int:
        """Number of multiplications for one field on a grid with the given numbers of points along each axis."""
        return sum(math.prod([*points[: j + 1], *self.counts[j:]]) for j in range(len(points)))

    def full(self, codes: Tensor) -> Tensor:
        """Coefficients (..., K) as an array (B, m_1, ..., m_d) over all products, zero for absent ones."""
        flat = codes.reshape(-1, codes.shape[-1])
        padded = pad(flat, (0, self.places.shape[0] + 1 - flat.shape[1]))  # torch.export takes len for a constant
        return padded.index_select(1, self.sources.to(flat.device)).reshape(-1, *self.counts)

    def values(self, codes: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """Fields (..., N) of coefficients (..., K)."""
        return along_axes(self.full(codes), tables).reshape(*codes.shape[:-1], -1)

    def sums(self, fields: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """Sums (..., K) over the points of fields (..., N) times each product: the transpose of `values`."""
        sums = along_axes(fields, [table.T for table in tables]).reshape(*fields.shape[:-1], -1)
        return sums.index_select(-1, self.places.to(sums.device))


def along_axes(full: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Matrices (n_j, m_j) applied to the last axes of an array (..., m_1, ..., m_d), which may be flattened; the result
    is (B, n_1, ..., n_d) with the last axes flattened. No axis is transposed."""
    after = 1
    for table in reversed(tables):
        if after == 1:
            full = full.reshape(-1, table.shape[1]) @ table.T
        else:
            full = table @ full.reshape(-1, table.shape[1], after)
        after *= len(table)
    return full
