"""Action of symmetries on the codes of an affine decoder whose features span an invariant space.

The harmonics of a periodic domain are such features: psi(g x) = R psi(x) with a matrix R for each transformation g. The
transformed field has the output weights Q W R^-1, and its code is their projection on the modes, so that codes of
transformed trajectories need no encoding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import Normalisation
from inrflow.data.source import TrajectorySource
from inrflow.data.transformations import Augmentation, Transformations
from inrflow.decoders.base import AffineDecoder
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.encoding.posterior import GaussianPrior

_EXACT = 1e-9  # relative residual of R below which the span counts as invariant


class FeatureAction:
    """Action of transformations on output weights.

    Args:
        features: map of points (..., d) to F features (..., F), the first constant; float64.
        size: F. normalisation: of the channels. box: lowest and highest coordinates (2, d).
    """

    def __init__(
        self, features: Callable[[Tensor], Tensor], size: int, normalisation: Normalisation, box: np.ndarray
    ) -> None:
        self._evaluate = features
        self._mean, self._scale = normalisation.mean.double(), normalisation.scale.double()
        random = np.random.default_rng([23])
        self._points = torch.as_tensor(random.uniform(box[0], box[1], (3 * size, box.shape[1])))
        with torch.no_grad():
            self._features = features(self._points)
        self._inverse = torch.linalg.pinv(self._features)

    @classmethod
    def of(cls, decoder: AffineDecoder, normalisation: Normalisation, box: np.ndarray) -> FeatureAction:
        """The action on the output weights of a decoder, in float64."""
        exact = copy.deepcopy(decoder).double()
        return cls(exact.features, exact.features_size, normalisation, box)

    def exact_under(self, augmentation: Augmentation) -> bool:
        """Whether the span of the features is invariant under the symmetries, up to rounding."""
        moved = self._moved(augmentation.sample(np.random.default_rng([29]), 8))
        error = self._features @ (self._inverse @ moved) - moved
        return bool(error.abs().max() < _EXACT * moved.abs().max())

    def _moved(self, transformations: Transformations) -> Tensor:
        """Features (K, M, F) at the sample points under the inverse transformations."""
        back = torch.linalg.inv(torch.as_tensor(transformations.A))
        points = (self._points - torch.as_tensor(transformations.b)[:, None]) @ back.mT
        with torch.no_grad():
            return self._evaluate(points)

    def actions(self, transformations: Transformations) -> tuple[Tensor, Tensor, Tensor]:
        """Matrices Q (K, C, C), R (K, F, F) and shifts s (K, C): output weights W (C, F) of a normalised field become
        Q W R, plus s on the constant feature."""
        turn = torch.as_tensor(transformations.Q)
        shift = (turn @ self._mean - self._mean) / self._scale
        return turn * self._scale / self._scale[:, None], (self._inverse @ self._moved(transformations)).mT, shift

    def averaged(self, prior: GaussianPrior, whitening: Tensor, transformations: Transformations) -> GaussianPrior:
        """Average over transformations of a prior of weights (C size,) of the features psi @ whitening."""
        inverse = torch.linalg.pinv(whitening)
        constant = inverse[:, 0]
        parts = []
        total = torch.zeros_like(prior.covariance)
        for turn, rotation, shift in zip(*self.actions(transformations), strict=True):
            inner = (inverse @ rotation.T @ whitening).contiguous()  # column weights: w -> inner w
            whole = torch.kron(turn, inner)
            parts.append(whole @ prior.mean + torch.kron(shift, constant))
            total += whole @ prior.covariance @ whole.T
        means = torch.stack(parts)
        mean = means.mean(0)
        covariance = (total + (means - mean).T @ (means - mean)) / len(means)
        return GaussianPrior(mean, (covariance + covariance.T) / 2, prior.noise)


class CodeAction:
    """Action of transformations on the codes of an affine decoder: codes of transformed fields.

    Exact where `FeatureAction.exact_under` holds and the modes span an invariant space; else a projection.
    """

    def __init__(self, decoder: AffineDecoder, normalisation: Normalisation, box: np.ndarray) -> None:
        self.features = FeatureAction.of(decoder, normalisation, box)
        self._output = decoder.output.detach().double()
        self._modes = decoder.output_map.detach().double().flatten(1)
        self._projection = torch.linalg.pinv(self._modes)

    def __call__(self, codes: Tensor, transformations: Transformations) -> Tensor:
        """Codes (S, T, Z) of the fields of `codes` (S, T, Z), transformed by one of S transformations each; float64."""
        turn, rotation, shift = self.features.actions(transformations)
        weights = self._output + (codes @ self._modes).unflatten(-1, self._output.shape)
        moved = torch.einsum("sij,stjf->stif", turn, weights) @ rotation[:, None]
        moved[..., 0] += shift[:, None]
        return (moved - self._output).flatten(2) @ self._projection


def invariant_box(decoder: AffineDecoder, source: TrajectorySource, augmentation: Augmentation) -> np.ndarray | None:
    """The box (2, d) over which the features are known, where the symmetries keep their span; else None."""
    if not augmentation or not isinstance(decoder, HarmonicDecoder) or not decoder.embedding.harmonics:
        return None
    box, period = source.file.box, augmentation.period
    if period is not None:
        box = np.stack([box[0], np.where(np.asarray(period) > 0, box[0] + np.asarray(period), box[1])])
    return box if FeatureAction.of(decoder, source.normalisation, box).exact_under(augmentation) else None


def code_action(
    decoder: AffineDecoder, source: TrajectorySource, augmentation: Augmentation
) -> CodeAction | None:
    """Action of the symmetries on codes; None where it is not exact, so that transformed fields need to be encoded."""
    box = invariant_box(decoder, source, augmentation)
    return None if box is None else CodeAction(decoder, source.normalisation, box)
