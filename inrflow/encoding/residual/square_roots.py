"""Square root transform of skewed values, as amounts of rain, snow or dust, whose process is then nearly Gaussian.

Trans-Gaussian kriging (Cressie, 1993, 3.2.2): the uncertainty of a value grows with it. Below the least value the
transform is continued along its tangent, so that it can be inverted everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_SKEWED = 1.0  # skewness from which on roots are tried
_FOOT = 0.05  # of the standard deviation: offset of the root at the least value
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)  # of the normal distribution


@dataclass(frozen=True)
class SquareRoots:
    """The transform sqrt(value - low + foot) - middle."""

    low: float
    foot: float
    middle: float

    @classmethod
    def of(cls, values: np.ndarray) -> SquareRoots | None:
        """The transform for values (R,); None where they are not positively skewed."""
        scale = float(values.std())
        if not scale > 0 or float(np.mean((values - values.mean()) ** 3)) < _SKEWED * scale**3:
            return None
        raw = cls(float(values.min()), _FOOT * scale, 0.0)
        return cls(raw.low, raw.foot, float(raw(values).mean()))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Roots (...) of values (...)."""
        above, edge = values - self.low, self.foot**0.5
        return np.asarray(np.where(above > 0, np.sqrt(np.maximum(above, 0.0) + self.foot), edge + above / (2 * edge))
                          - self.middle)

    def values(self, roots: Tensor) -> Tensor:
        """The inverse transform."""
        edge, root = self.foot**0.5, roots + self.middle
        return torch.where(root > edge, root.square() - self.foot, 2 * edge * (root - edge)) + self.low

    def moments(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (...) of values, by Gauss-Hermite quadrature, from those of their roots (normal)."""
        values = self.values(mean[..., None] + variance.sqrt()[..., None] * torch.as_tensor(_NODES))
        weights = torch.as_tensor(_WEIGHTS / _WEIGHTS.sum())
        middle = values @ weights
        return middle, (values - middle[..., None]).square() @ weights

    @property
    def stretch(self) -> float:
        """Ratio of a variance of values to that of their roots, near the mean of the roots."""
        return 4 * max(self.middle**2, self.foot)
