"""Connected components of a square matrix, on each of which functions of the matrix are evaluated by themselves."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import pad

_ZERO = 1e-12  # entries below, relative to the largest one, are rounding
_MOST = 64  # rows of a component: of larger ones little is gained


def components(matrix: Tensor) -> Tensor | None:
    """Rows (M, g) of the M components of a matrix (n, n), filled up with n; None where one of them is large."""
    links = (matrix.detach().abs() > _ZERO * matrix.detach().abs().max()).numpy()
    total, label = connected_components(csr_matrix(links), directed=False)
    sizes = np.bincount(label, minlength=total)
    if sizes.max() > _MOST:
        return None
    order = np.argsort(label, kind="stable")
    place = np.arange(len(label)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = np.full((total, sizes.max()), len(label))
    rows[label[order], place] = order
    return torch.as_tensor(rows)


def of_components(matrix: Tensor, rows: Tensor) -> Tensor:
    """The blocks (M, g, g) of a matrix (n, n), 0 where a component is filled up."""
    return pad(matrix, (0, 1, 0, 1))[rows[:, :, None], rows[:, None]]


def whole(blocks: Tensor, rows: Tensor, size: int) -> Tensor:
    """The matrix (n, n) of blocks (M, g, g)."""
    result = blocks.new_zeros(size + 1, size + 1)
    result[rows[:, :, None], rows[:, None]] = blocks
    return result[:size, :size]


def applied(blocks: Tensor, rows: Tensor, z: Tensor) -> Tensor:
    """Products (B, n) of the matrix of blocks (M, g, g) and vectors (B, n)."""
    result = pad(torch.empty_like(z), (0, 1))
    result[:, rows] = torch.einsum("mij,bmj->bmi", blocks, pad(z, (0, 1))[:, rows])
    return result[:, :-1]
