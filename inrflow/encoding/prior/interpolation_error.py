"""How far a decoder misses values at points that nobody observed, where all frames share their points.

A decoder that is flexible enough passes through what it was fitted to, and the residual there says nothing of the gaps
between points. Leaving out each point in turn does, in closed form for an output layer that is linear in its features;
what the trunk has learned of a point that is left out is corrected for by points that it never saw.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.decoders.rbf_features import spacings

MOST_POINTS = 4096  # more are taken to be dense enough
_RIDGES = tuple(10.0**k for k in range(-10, 0))
_NEIGHBOURS = 4
_BLOCK = 4096
_NORMAL_90 = 1.6448536269514722


@dataclass
class InterpolationError:
    """Variance of the decoder's error as a function of place: none at the observed points, growing between them.

    Attributes:
        points: (M, d) observed points, M = 0 where nothing is known.
        spacing: (M,) distance of each to the nearest other.
        variance: (M, C) at such a distance, normalised units.
    """

    points: Tensor
    spacing: Tensor
    variance: Tensor

    @classmethod
    def none(cls, dimensions: int, channels: int) -> InterpolationError:
        """No variance anywhere."""
        return cls(*(torch.zeros(0, *shape, dtype=torch.float64) for shape in ((dimensions,), (), (channels,))))

    @classmethod
    def between(cls, points: Tensor, variance: Tensor) -> InterpolationError:
        """From the variance (M, C) that shows at points (M, d) when they are left out."""
        return cls(points.double(), spacings(points.double()), variance.double())

    def __call__(self, x: Tensor) -> Tensor:
        """Variance (..., C) at points x (..., d)."""
        if not len(self.points):
            return x.new_zeros(*x.shape[:-1], self.variance.shape[1], dtype=torch.float64)
        blocks = [self._block(part) for part in x.double().reshape(-1, x.shape[-1]).split(_BLOCK)]
        return torch.cat(blocks).reshape(*x.shape[:-1], -1)

    def _block(self, x: Tensor) -> Tensor:
        count = min(_NEIGHBOURS, len(self.points))
        distance, nearest = torch.cdist(x, self.points).topk(count, largest=False)
        weight = 1 / (distance + 1e-3 * self.spacing[nearest[:, :1]]).square()
        local = (weight[..., None] * self.variance[nearest]).sum(1) / weight.sum(1, keepdim=True)
        share = (distance[:, 0] / self.spacing[nearest[:, 0]]).square().clamp(max=1)
        return local * share[:, None]


def leave_one_out_errors(features: Tensor, values: Tensor) -> tuple[Tensor, float]:
    """What ridge regression of values (N, K) on features (N, F) of all other points misses at each, (N, K); the ridge.

    The ridge, a share of the features' mean square, is the one for which that is least. No regression is repeated: the
    error is the residual of the full fit over 1 - H_ii, H the projection. All float64.
    """
    gram = features.T @ features
    best, chosen, error = torch.zeros_like(values), 0.0, torch.inf
    for ridge in _RIDGES:
        projection = features @ torch.linalg.solve(_damped(gram, ridge), features.T)
        left = (1 - projection.diagonal()).clamp(min=1e-6)
        missed = (values - projection @ values) / left[:, None]
        if float(missed.square().mean()) < error:
            best, chosen, error = missed, ridge, float(missed.square().mean())
    return best, chosen


def complete_frames(u: Tensor) -> Tensor:
    """Frames u (F, N, C) that miss no value, as columns (N, F' C), float64."""
    complete = torch.isfinite(u).flatten(1).all(1)
    return u[complete].double().transpose(0, 1).flatten(1)


def ridge_weights(features: Tensor, values: Tensor, ridge: float) -> Tensor:
    """Weights (F, K) of features (N, F) nearest to values (N, K); the ridge is a share of the features' mean square."""
    return torch.linalg.solve(_damped(features.T @ features, ridge), features.T @ values)


def _damped(gram: Tensor, ridge: float) -> Tensor:
    return gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def interpolation_error(x: Tensor, features: Tensor, u: Tensor, held: Tensor) -> InterpolationError:
    """From frames u (F, N, C) at points x (N, d) with features (N, F) of a trunk that never saw the points `held`.

    Variances follow what shows when single points are left out, and are scaled, for each channel, so that 90 % of the
    errors at held points lie within the 90 % interval. Frames that miss a value are not used.
    """
    values = complete_frames(u)
    kept = torch.ones(len(x), dtype=torch.bool)
    kept[held] = False
    channels = u.shape[-1]
    if not values.shape[1] or not len(held) or int(kept.sum()) < 2:
        return InterpolationError.none(x.shape[-1], channels)
    features = features.double()
    design, known = features[kept], values[kept]
    missed, ridge = leave_one_out_errors(design, known)
    result = InterpolationError.between(x[kept], missed.unflatten(1, (-1, channels)).square().mean(1))
    weights = ridge_weights(design, known, ridge)
    error = (values[held] - features[held] @ weights).unflatten(1, (-1, channels)).abs()
    scaled = error / result(x[held]).clamp(min=1e-30).sqrt()[:, None] / _NORMAL_90
    factor = scaled.flatten(0, 1).quantile(0.9, dim=0)
    return InterpolationError(result.points, result.spacing, result.variance * factor.square())
