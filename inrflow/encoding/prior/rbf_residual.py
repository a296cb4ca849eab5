"""Radial features for the residual of a trunk at fixed points of observation.

The residual of all frames is spanned by few patterns over the points, as the field itself is. The principal ones are
interpolated by radial functions and become features beside those of the trunk (`RadialFeatures`). Errors at held-out
points tell whether the residual is structure, which should be interpolated, or noise, which should not.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder, has_output_layer
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.encoding.prior.interpolation_error import complete_frames, ridge_weights

_RIDGE = 1e-8
_TOLERANCE = 1e-13  # residual of the patterns at the points, relative to the variance of the field
_NULL = 1e-8  # ridge, relative: numerical null space of features at few points
_MOST = 192  # with 96 the residual of a vortex street exceeded the error of its forecasts


def with_radial_features(
    inner: Embedding, x: Tensor, features: Tensor, u: Tensor, most: int = _MOST
) -> RadialFeatures | None:
    """The embedding with at most so many radial features for the residual of features (N, F) on frames u (frames, N, C)
    at points x (N, d).

    None where no frame is complete, or the residual is zero.
    """
    values, features = complete_frames(u), features.double()
    if not values.shape[1]:
        return None
    residual = values - features @ ridge_weights(features, values, _RIDGE)
    patterns, strength, _ = torch.linalg.svd(residual, full_matrices=False)
    tail = strength.square().flip(0).cumsum(0).flip(0) / values.square().sum()
    count = min(int((tail > _TOLERANCE).sum()), most)
    if not count:
        return None
    return RadialFeatures.through(inner, x, patterns[:, :count] * len(x) ** 0.5)


def errors_between_points(
    inner: Embedding, x: Tensor, features: Tensor, u: Tensor, held: Tensor
) -> tuple[float, float]:
    """Mean squared errors at the held-out points `held` (indices): of the features alone, and with radial functions
    that interpolate their residual at the other points."""
    kept = torch.ones(len(x), dtype=torch.bool)
    kept[held] = False
    values, features = complete_frames(u), features.double()
    weights = ridge_weights(features[kept], values[kept], _RIDGE)
    error = values[held] - features[held] @ weights
    radial = RadialFeatures.through(inner, x[kept], values[kept] - features[kept] @ weights)
    corrected = error - radial.evaluate_harmonics(x[held].double())[:, inner.harmonics :]
    return float(error.square().mean()), float(corrected.square().mean())


def known_at(decoder: Decoder, x: Tensor) -> Decoder:
    """A copy of a decoder whose output layer knows its modes at the points x (N, d) alone.

    By projection onto their features: as many features as points interpolate anything there, and the error at others
    is that of interpolation. Radial features are anew those through the points. A decoder without an output layer that
    codes set is returned as it is.
    """
    if not has_output_layer(decoder):
        return decoder
    decoder = copy.deepcopy(decoder)
    with torch.no_grad():
        radial = getattr(decoder, "embedding", None)
        if isinstance(radial, RadialFeatures):
            values = radial.evaluate_harmonics(x.double())[:, radial.inner.harmonics :]
            decoder.embedding = RadialFeatures.through(radial.inner, x, values)
        features = decoder.features(x.to(next(decoder.parameters()).dtype)).double()
        gram = features @ features.T
        gram.diagonal().add_(_NULL * gram.diagonal().mean())
        projection = features.T @ torch.linalg.solve(gram, features)
        decoder.set_output(decoder.output.double() @ projection, decoder.output_map.double() @ projection)
    return decoder.eval()
