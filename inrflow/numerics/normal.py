"""The normal distribution."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from scipy.optimize import nnls
from torch import Tensor

HALF_WIDTH_90 = 1.6448536269514722  # of the central 90 % interval, in standard deviations
_RIDGE, _WEIGHT = 1e-12, 1e3  # added to covariances; of the equation that shares sum up to one


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


def distance_to_hull(mean: Tensor, covariance: Tensor, points: Tensor) -> float:
    """Squared Mahalanobis distance of N(mean (P,), covariance (P, P)) to the convex hull of points (E, P): that of the
    nearest convex combination, whose shares are found by non-negative least squares."""
    root = torch.linalg.cholesky(covariance + _RIDGE * torch.eye(len(mean), dtype=covariance.dtype))
    whitened = torch.linalg.solve_triangular(root, torch.cat([points.T, mean[:, None]], 1), upper=False)
    together = torch.full_like(whitened[:1], _WEIGHT * float(whitened.norm()))
    rows = torch.cat([whitened, together]).numpy()
    shares = torch.as_tensor(nnls(rows[:, :-1], rows[:, -1])[0])
    return float((whitened[:, :-1] @ shares - whitened[:, -1]).square().sum())
