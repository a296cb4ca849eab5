"""Connected components of the sparsity pattern of a square matrix, for blockwise matrix functions."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import pad

_ZERO = 1e-12  # entries below, relative to the largest one, are rounding
_MOST = 64  # largest size of a component: larger blocks save little


def groups_of(links: np.ndarray) -> list[np.ndarray]:
    """Indices of each connected component of a symmetric relation (n, n)."""
    total, label = connected_components(csr_array(links), directed=False)
    return [np.flatnonzero(label == number) for number in range(total)]


def block_map(groups: list[np.ndarray], maps: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Block-diagonal map (..., K): components of the input are ordered group by group, those of the output by index."""
    result, start = np.zeros_like(rows), 0
    for own, turn in zip(groups, maps, strict=True):
        result[..., own] = rows[..., start : start + len(own)] @ turn
        start += len(own)
    return result


def components(matrix: Tensor) -> Tensor | None:
    """Indices (M, g) of the M connected components of a matrix (n, n), padded with n; None if one exceeds 64."""
    sizes = matrix.detach().abs()
    groups = groups_of((sizes > _ZERO * sizes.max()).numpy())
    width = max(map(len, groups))
    if width > _MOST:
        return None
    return torch.as_tensor(np.stack([np.pad(own, (0, width - len(own)), constant_values=len(matrix))
                                     for own in groups]))


def diagonal_blocks(matrix: Tensor, rows: Tensor | None) -> Tensor:
    """Diagonal blocks (M, g, g) of a matrix (n, n), zero at padding; the whole matrix if `rows` is None."""
    return matrix[None] if rows is None else pad(matrix, (0, 1, 0, 1))[rows[:, :, None], rows[:, None]]


def assembled(blocks: Tensor, rows: Tensor, size: int) -> Tensor:
    """Matrix (n, n) assembled from its diagonal blocks (M, g, g)."""
    result = blocks.new_zeros(size + 1, size + 1)
    result[rows[:, :, None], rows[:, None]] = blocks
    return result[:size, :size]


def block_apply(blocks: Tensor, rows: Tensor, z: Tensor) -> Tensor:
    """Products (B, n) of a block-diagonal matrix, given as blocks (M, g, g), and vectors (B, n)."""
    result = pad(torch.empty_like(z), (0, 1))
    result[:, rows] = torch.einsum("mij,bmj->bmi", blocks, pad(z, (0, 1))[:, rows])
    return result[:, :-1]
