"""Batches of small Gaussian regressions in whitened form: what both encoding and the fit of its prior are made of."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK_NUMBERS = 4_000_000  # of the largest array held for one block of groups: 32 MB of float64
#: Of the largest array of one batch of solves: a megabyte stays in the cache and is used again, while larger arrays
#: are faulted in anew by every operation, which took longer than the solves.
SOLVE_NUMBERS = 131_072


def block_length(values: int, size: int, numbers: int = BLOCK_NUMBERS) -> int:
    """How many regressions of `values` values and `size` unknowns are treated together."""
    return max(1, numbers // max(1, max(values, size) * size))


class WhitenedPosterior:
    """Posterior of w ~ N(0, I_r) given y = D w + e with e ~ N(0, I_P), for B designs D (B, P, r) at once; float64.

    A row of zeros is a value that was not observed. The smaller of the systems of the values and of the unknowns is
    factored, once.
    """

    def __init__(self, design: Tensor) -> None:
        self.design = design
        self.of_values = design.shape[1] < design.shape[2]
        gram = design @ design.mT if self.of_values else design.mT @ design
        gram.diagonal(dim1=1, dim2=2).add_(1)
        self.cholesky = torch.linalg.cholesky(gram)

    def mean(self, target: Tensor) -> Tensor:
        """Means (B, F, r) for F targets (B, F, P) of each design; targets are 0 where not observed."""
        if self.of_values:
            return torch.cholesky_solve(target.mT, self.cholesky).mT @ self.design
        return torch.cholesky_solve((target @ self.design).mT, self.cholesky).mT

    def covariance(self) -> Tensor:
        """(B, r, r)."""
        if not self.of_values:
            return torch.cholesky_inverse(self.cholesky)
        covariance = -self.design.mT @ torch.cholesky_solve(self.design, self.cholesky)
        covariance.diagonal(dim1=1, dim2=2).add_(1)
        return covariance

    def total_covariance(self, weights: Tensor) -> Tensor:
        """Sum over the designs of weight (B,) times covariance, (r, r)."""
        size = self.design.shape[2]
        if not self.of_values:
            return torch.einsum("b,brs->rs", weights, torch.cholesky_inverse(self.cholesky))
        half = torch.linalg.solve_triangular(self.cholesky, self.design, upper=False) * weights.sqrt()[:, None, None]
        half = half.flatten(0, 1)
        return weights.sum() * torch.eye(size, dtype=half.dtype) - half.T @ half

    def value_variance(self) -> Tensor:
        """Variance (B, P) of D w: how uncertain each fitted value is."""
        if not self.of_values:
            return torch.linalg.solve_triangular(self.cholesky, self.design.mT, upper=False).square().sum(1)
        eye = torch.eye(self.design.shape[1], dtype=self.design.dtype)
        inverse = torch.linalg.solve_triangular(self.cholesky, eye.expand_as(self.cholesky), upper=False)
        return 1 - inverse.square().sum(1)
