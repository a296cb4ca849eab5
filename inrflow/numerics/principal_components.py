"""Principal components, scaled to unit variance."""

from __future__ import annotations

import torch
from torch import Tensor


def standardised(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whitened rows (E, P) of mean 0 and covariance 1, the mean (P,) and factor W (P, P): old = mean + new W^T."""
    mean = values.mean(0)
    variances, vectors = torch.linalg.eigh((values - mean).T @ (values - mean) / len(values))
    variances = variances.clamp(min=1e-12 * variances.max().clamp(min=1e-300)).flip(0)
    vectors = vectors.flip(1)
    vectors = vectors * torch.where(vectors.sum(0) < 0, -1.0, 1.0)
    factor = vectors * variances.sqrt()
    return (values - mean) @ (vectors / variances.sqrt()), mean, factor
