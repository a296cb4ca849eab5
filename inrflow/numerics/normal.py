"""The normal distribution."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

HALF_WIDTH_90 = 1.6448536269514722  # of the central 90 % interval, in standard deviations


def half_width(share: float) -> float:
    """Half width, in standard deviations, of the central interval with probability `share`."""
    return NormalDist().inv_cdf((1 + share) / 2)


def gaussian_crps(error: Tensor, std: Tensor) -> Tensor:
    """Continuous ranked probability score of N(mean, std^2); `error` is the truth minus the mean, elementwise.

    Closed form of Gneiting et al. (2005), equation 5; |error| where std = 0. In the units of the values.
    """
    certain = std <= 0
    z = error / torch.where(certain, 1.0, std)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return torch.where(certain, error.abs(), score)
