"""Noise of codes by truncation: what codes leave at the places of a series cancels where all of these are observed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LEFT = 1e-3  # least share of the variance that remains
_WEIGHTS = (1.0, 2.0**0.5, 3.0**0.5)  # of coordinates in a key


@dataclass
class Truncation:
    """Residuals of training frames, which are orthogonal to the patterns of codes over all places and channels.

    Their variance is no noise of codes of complete frames, and codes of a share s of the values have 1 - s of it
    (correction of a sample without replacement from a finite population; Cochran 1977).

    Attributes:
        variance: (C,) of the residuals, normalised units. keys: (N,) of the places.
    """

    variance: Tensor
    keys: Tensor

    @classmethod
    def at(cls, x: Tensor, variance: Tensor) -> Truncation:
        """Residuals of given variance at places x (N, d)."""
        return cls(variance.double(), _keys(x).unique())


def noise_of(noise: Tensor, truncation: Truncation | None, x: Tensor, seen: Tensor) -> Tensor:
    """Variances (C,) by which codes of a frame are updated, from those of its values, `noise`, of which `seen` (N, C)
    are observed at places x (N, d)."""
    if truncation is None:
        return noise
    known = seen[torch.isin(_keys(x), truncation.keys)]
    share = (known.sum() / (len(truncation.keys) * len(noise))).clamp(max=1.0)
    return torch.maximum(noise - share * truncation.variance, _LEFT * noise)


def _keys(x: Tensor) -> Tensor:
    return x.double() @ torch.tensor(_WEIGHTS[: x.shape[-1]], dtype=torch.float64)
