"""Radial basis functions through the principal components of frames at fixed points of observation.

Frames are spanned by few patterns over the points, as the field itself is. Errors at held-out points decide whether
these are structure, which should be interpolated, or noise, which should not.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder, has_output_layer
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.encoding.prior.interpolation_error import complete_frames

_TOLERANCE = 1e-13  # largest residual of the patterns at the points, relative to the mean square of the field
_NULL = 1e-8  # ridge, relative: numerical null space of features at few points


def principal_functions(inner: Embedding, x: Tensor, u: Tensor, most: int) -> RadialFeatures | None:
    """The embedding with at most `most` radial functions through the principal components of frames u (frames, N, C) at
    points x (N, d), around the mean of each frame and channel.

    None where no frame is complete, or all are constant.
    """
    values = complete_frames(u)
    if not values.shape[1]:
        return None
    patterns, strength, _ = torch.linalg.svd(values - values.mean(0), full_matrices=False)
    tail = strength.square().flip(0).cumsum(0).flip(0) / values.square().sum()
    count = min(int((tail > _TOLERANCE).sum()), most)
    if not count:
        return None
    return RadialFeatures.through(inner, x, patterns[:, :count] * len(x) ** 0.5)


def error_between_points(inner: Embedding, x: Tensor, u: Tensor, held: Tensor) -> float:
    """Mean squared error at the held-out points `held` (indices) of radial functions through frames u (frames, N, C) at
    the other ones of the points x (N, d)."""
    kept = torch.ones(len(x), dtype=torch.bool)
    kept[held] = False
    values = complete_frames(u)
    mean = values[kept].mean(0)
    radial = RadialFeatures.through(inner, x[kept], values[kept] - mean)
    missed = values[held] - mean - radial.evaluate_harmonics(x[held].double())[:, inner.harmonics :]
    return float(missed.square().mean())


def restricted_to_points(decoder: Decoder, x: Tensor) -> Decoder:
    """A copy of a decoder with an output layer determined by its values at the points x (N, d) alone.

    The layer is projected onto the features of the points: with as many features as points it interpolates any values
    there, with the error of interpolation elsewhere. Radial features are refitted through the points. A decoder without
    an output layer that codes set is returned unchanged.
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
