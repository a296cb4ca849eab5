"""Quadrature along sampled paths: Lagrange polynomials at Gauss-Legendre nodes, and Simpson's rule."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_STENCIL = 6  # frames of the interpolating polynomials
_NODES = 4  # of Gauss-Legendre quadrature within an interval


def interpolated_path(codes: Tensor, t: Tensor, k: int) -> tuple[Tensor, list[float]]:
    """States (Q, B, n) at the nodes of a quadrature between frames k and k + 1, and its Q weights, which sum to 1.

    codes (B, T, n) at times t (B, T).
    """
    abscissas, weights = np.polynomial.legendre.leggauss(_NODES)
    frames = codes.shape[1]
    width = min(_STENCIL, frames)
    first = min(max(0, k - width // 2 + 1), frames - width)
    times = t[:, k, None] + torch.as_tensor((abscissas + 1) / 2) * (t[:, k + 1] - t[:, k])[:, None]
    basis = lagrange(t[:, first : first + width], times)
    return torch.einsum("bqm,bmn->qbn", basis, codes[:, first : first + width]), (weights / 2).tolist()


def lagrange(nodes: Tensor, t: Tensor) -> Tensor:
    """Values (B, Q, M) at times t (B, Q) of the polynomials that are 1 at one of the nodes (B, M), 0 at the others."""
    count = nodes.shape[1]
    difference = nodes[:, :, None] - nodes[:, None, :] + torch.eye(count, dtype=nodes.dtype)
    distance = t[:, :, None, None] - nodes[:, None, None, :]
    own = torch.eye(count, dtype=torch.bool)
    return torch.where(own, torch.ones_like(distance), distance / difference[:, None]).prod(-1)


def simpson(steps: int) -> list[float]:
    """Weights, which sum to 1, of values at an even number of equal steps (Simpson's rule)."""
    return [(1 if i in (0, steps) else 4 if i % 2 else 2) / (3 * steps) for i in range(steps + 1)]
