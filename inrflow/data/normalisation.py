"""Normalisation of each channel to mean 0 and deviation 1, stored with the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Normalisation:
    """u_normalised = (u - mean) / scale, one mean and scale (C,) for each channel, in the data's units."""

    mean: Tensor
    scale: Tensor

    def apply(self, u: Tensor) -> Tensor:
        """Values (..., C) in data units to normalised ones."""
        return (u - self.mean.to(u)) / self.scale.to(u)

    def invert(self, u: Tensor) -> Tensor:
        """Normalised values (..., C) to data units."""
        return u * self.scale.to(u) + self.mean.to(u)
