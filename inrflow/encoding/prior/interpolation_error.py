"""Interpolation error of a decoder between points of observation, where all frames share their points.

The residual of a flexible decoder at the points it was fitted to does not show its error between them. Leave-one-out
residuals do, in closed form for an output layer that is linear in its features. As the trunk itself was trained on all
of these points, the variances are calibrated at held-out points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.decoders.rbf_features import spacings
from inrflow.numerics.normal import HALF_WIDTH_90

MOST_POINTS = 4096  # denser points are assumed to have no interpolation error
_RIDGES = tuple(10.0**k for k in range(-10, 0))
_NEIGHBOURS = 4
_ALONE = 1e-9  # spacing of a single or duplicate point, so that others have the full variance
_LEAST = 1e-150  # spacing, whose square does not underflow: it is 0 in a damaged file
_BLOCK = 4096


@dataclass
class InterpolationError:
    """Variance of the decoder's error as a function of place: zero at the observed points, growing with distance.

    Attributes:
        points: (M, d) observed points; M = 0 where the error is not known.
        spacing: (M,) distance of each point to the nearest other.
        variance: (M, C) of the error at that distance, normalised units.
    """

    points: Tensor
    spacing: Tensor
    variance: Tensor

    @classmethod
    def none(cls, dimensions: int, channels: int) -> InterpolationError:
        """Zero variance everywhere."""
        return cls(*(torch.zeros(0, *shape, dtype=torch.float64) for shape in ((dimensions,), (), (channels,))))

    @classmethod
    def between(cls, points: Tensor, variance: Tensor) -> InterpolationError:
        """The error with leave-one-out variances (M, C) at points (M, d)."""
        spacing = spacings(points.double())
        apart = torch.isfinite(spacing) & (spacing > 0)  # not the many points that a grid has at a pole
        return cls(points.double(), spacing.where(apart, _ALONE), variance.double())

    def known_also(self, x: Tensor) -> InterpolationError:
        """The error where points x (N, d), which include the present ones, are observed; each gets the variance of the
        nearest known one."""
        if not len(self.points):
            return self
        near = torch.cdist(x.double(), self.points).argmin(1)
        return InterpolationError.between(x, self.variance[near])

    def __call__(self, x: Tensor) -> Tensor:
        """Variance (..., C) at points x (..., d)."""
        if not len(self.points):
            return x.new_zeros(*x.shape[:-1], self.variance.shape[1], dtype=torch.float64)
        blocks = [self._block(part) for part in x.double().reshape(-1, x.shape[-1]).split(_BLOCK)]
        return torch.cat(blocks).reshape(*x.shape[:-1], -1)

    def _block(self, x: Tensor) -> Tensor:
        count = min(_NEIGHBOURS, len(self.points))
        distance, nearest = torch.cdist(x, self.points).topk(count, largest=False)
        spacing = self.spacing[nearest[:, :1]].clamp(min=_LEAST)
        weight = 1 / (distance + 1e-3 * spacing).square()
        local = (weight[..., None] * self.variance[nearest]).sum(1) / weight.sum(1, keepdim=True)
        share = (distance[:, :1] / spacing).square().clamp(max=1)
        return local * share


def leave_one_out_errors(features: Tensor, values: Tensor) -> tuple[Tensor, float]:
    """Leave-one-out errors (N, K) of ridge regression of values (N, K) on features (N, F), and the ridge; float64.

    The ridge, relative to the mean square of the features, minimises them. In closed form they are the residuals of the
    full fit over 1 - H_ii, with the hat matrix H.
    """
    gram = features.T @ features
    best, chosen, error = torch.zeros_like(values), 0.0, torch.inf
    for ridge in _RIDGES:
        projection = features @ torch.linalg.solve(_damped(gram, ridge), features.T)
        left = (1 - projection.diagonal()).clamp(min=1e-6)
        errors = (values - projection @ values) / left[:, None]
        if float(errors.square().mean()) < error:
            best, chosen, error = errors, ridge, float(errors.square().mean())
    return best, chosen


def complete_frames(u: Tensor) -> Tensor:
    """Frames u (F, N, C) without missing values, as columns (N, F' C), float64."""
    complete = torch.isfinite(u).flatten(1).all(1)
    return u[complete].double().transpose(0, 1).flatten(1)


def ridge_weights(features: Tensor, values: Tensor, ridge: float) -> Tensor:
    """Weights (F, K) of ridge regression of values (N, K) on features (N, F); `ridge` relative to their mean square."""
    return torch.linalg.solve(_damped(features.T @ features, ridge), features.T @ values)


def _damped(gram: Tensor, ridge: float) -> Tensor:
    return gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def interpolation_error(x: Tensor, features: Tensor, u: Tensor, held: Tensor) -> InterpolationError:
    """Estimate from frames u (F, N, C) at points x (N, d), with features (N, F) of a trunk trained without the points
    `held` (indices).

    Leave-one-out variances, scaled for each channel so that 90 % intervals hold 90 % of the errors at held-out points.
    Frames with missing values are not used.
    """
    values = complete_frames(u)
    kept = torch.ones(len(x), dtype=torch.bool)
    kept[held] = False
    channels = u.shape[-1]
    if not values.shape[1] or not len(held) or int(kept.sum()) < 2:
        return InterpolationError.none(x.shape[-1], channels)
    features = features.double()
    design, known = features[kept], values[kept]
    errors, ridge = leave_one_out_errors(design, known)
    result = InterpolationError.between(x[kept], errors.unflatten(1, (-1, channels)).square().mean(1))
    weights = ridge_weights(design, known, ridge)
    error = (values[held] - features[held] @ weights).unflatten(1, (-1, channels)).abs()
    scaled = error / result(x[held]).clamp(min=1e-30).sqrt()[:, None] / HALF_WIDTH_90
    factor = scaled.flatten(0, 1).quantile(0.9, dim=0)
    return InterpolationError(result.points, result.spacing, result.variance * factor.square())
