"""What the features of a trunk leave at fixed points of observation, and functions that take it up.

The rest at the points is the same few patterns in all frames, as the field itself is. Its principal patterns become
features beside those of the trunk (`RadialFeatures`); whether that is right between the points, too, is asked where
points were left out: noise, which nothing should pass through, is told from structure there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.encoding.prior.interpolation_error import complete_frames, ridge_weights

_RIDGE = 1e-8
_LEFT = 1e-9  # share of the field's variance that the patterns may leave at the points
_MOST = 192  # 96 left more of vortices at the points than their forecasts miss


def with_radial_features(inner: Embedding, x: Tensor, features: Tensor, u: Tensor) -> RadialFeatures | None:
    """The embedding with functions for what the features (N, F) leave of frames u (frames, N, C) at points x (N, d).

    None where no frame is complete, or nothing is left.
    """
    values, features = complete_frames(u), features.double()
    if not values.shape[1]:
        return None
    rest = values - features @ ridge_weights(features, values, _RIDGE)
    patterns, strength, _ = torch.linalg.svd(rest, full_matrices=False)
    left = strength.square().flip(0).cumsum(0).flip(0) / values.square().sum()
    count = min(int((left > _LEFT).sum()), _MOST)
    if not count:
        return None
    return RadialFeatures.through(inner, x, patterns[:, :count] * len(x) ** 0.5)


def errors_between_points(
    inner: Embedding, x: Tensor, features: Tensor, u: Tensor, held: Tensor
) -> tuple[float, float]:
    """Mean square of what is missed at the points `held`, of which nothing was known: by the features, and with
    functions that pass through all that these leave at the other points."""
    kept = torch.ones(len(x), dtype=torch.bool)
    kept[held] = False
    values, features = complete_frames(u), features.double()
    weights = ridge_weights(features[kept], values[kept], _RIDGE)
    missed = values[held] - features[held] @ weights
    rest = RadialFeatures.through(inner, x[kept], values[kept] - features[kept] @ weights)
    mended = missed - rest.evaluate_harmonics(x[held].double())[:, inner.harmonics :]
    return float(missed.square().mean()), float(mended.square().mean())
