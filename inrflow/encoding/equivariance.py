"""Codes of moved fields without solving anew: where a symmetry maps the span of the decoder's features into itself.

The harmonics of a periodic domain are such features. There psi(g x) = R psi(x) for a matrix R of each transformation g,
so that the field moved by g has the output weights Q W R^-1, and its code is their projection on the modes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inrflow.data.normalisation import Normalisation
from inrflow.data.symmetries import Symmetries, Transformations
from inrflow.decoders.base import AffineDecoder
from inrflow.encoding.posterior import GaussianPrior

_EXACT = 1e-9  # relative residual of R below which the span counts as invariant


class FeatureAction:
    """How transformations act on the output weights of features (..., F) of points (..., d), the first constant."""

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
        """Of the features of a decoder, in float64."""
        exact = copy.deepcopy(decoder).double()
        return cls(exact.features, exact.features_size, normalisation, box)

    def exact_under(self, symmetries: Symmetries, extent: np.ndarray, period: tuple[float, ...] | None) -> bool:
        """Whether the symmetries keep the span of the features, up to rounding."""
        probe = symmetries.sample(np.random.default_rng([29]), 8, extent, period)
        moved = self._moved(probe)
        error = self._features @ (self._inverse @ moved) - moved
        return bool(error.abs().max() < _EXACT * moved.abs().max())

    def _moved(self, transformations: Transformations) -> Tensor:
        """psi at the points that the inverse transformations bring to the sample, (K, M, F)."""
        back = torch.linalg.inv(torch.as_tensor(transformations.A))
        points = (self._points - torch.as_tensor(transformations.b)[:, None]) @ back.mT
        with torch.no_grad():
            return self._evaluate(points)

    def actions(self, transformations: Transformations) -> tuple[Tensor, Tensor, Tensor]:
        """Q (K, C, C), R (K, F, F) and s (K, C): weights W (C, F) of normalised values become Q W R, plus s on the
        constant feature."""
        turn = torch.as_tensor(transformations.Q)
        shift = (turn @ self._mean - self._mean) / self._scale
        return turn * self._scale / self._scale[:, None], (self._inverse @ self._moved(transformations)).mT, shift

    def averaged(self, prior: GaussianPrior, whitening: Tensor, transformations: Transformations) -> GaussianPrior:
        """Prior of weights (C size,) of whitened features psi @ whitening, averaged over the transformations."""
        channels, size = len(self._mean), whitening.shape[1]
        inverse = torch.linalg.pinv(whitening)
        constant = inverse[:, 0]
        means = []
        total = torch.zeros_like(prior.covariance)
        for turn, rotation, shift in zip(*self.actions(transformations), strict=True):
            inner = (inverse @ rotation.T @ whitening).contiguous()  # column weights: w -> inner w
            whole = torch.kron(turn, inner)
            means.append(whole @ prior.mean + torch.kron(shift, constant))
            total += whole @ prior.covariance @ whole.T
        every = torch.stack(means)
        mean = every.mean(0)
        covariance = (total + (every - mean).T @ (every - mean)) / len(every)
        assert len(mean) == channels * size
        return GaussianPrior(mean, (covariance + covariance.T) / 2, prior.noise)


class CodeAction:
    """Moves codes of an affine decoder (output modulation) as transformations move the fields that they stand for."""

    def __init__(self, decoder: AffineDecoder, normalisation: Normalisation, box: np.ndarray) -> None:
        self.features = FeatureAction.of(decoder, normalisation, box)
        self._output = decoder.output.detach().double()
        self._modes = decoder.output_map.detach().double().flatten(1)
        self._projection = torch.linalg.pinv(self._modes)

    def __call__(self, codes: Tensor, transformations: Transformations) -> Tensor:
        """Codes (S, T, Z) of the fields that S transformations make of those of `codes` (S, T, Z); float64."""
        turn, rotation, shift = self.features.actions(transformations)
        weights = self._output + (codes @ self._modes).unflatten(-1, self._output.shape)
        moved = torch.einsum("sij,stjf->stif", turn, weights) @ rotation[:, None]
        moved[..., 0] += shift[:, None]
        return (moved - self._output).flatten(2) @ self._projection

    def affine(self, transformations: Transformations) -> Tensor:
        """Matrices (K, 1 + Z, 1 + Z) of the motion of [1, code] under K transformations."""
        size = len(self._modes)
        points = torch.cat([torch.zeros(1, size), torch.eye(size)]).double()
        result = torch.zeros(len(transformations), 1 + size, 1 + size, dtype=torch.float64)
        result[:, 0, 0] = 1.0
        for k, matrix in enumerate(result):
            one = Transformations(*(m[k : k + 1] for m in (transformations.A, transformations.b, transformations.Q)))
            moved = self(points[None], one)[0]
            matrix[1:, 0], matrix[1:, 1:] = moved[0], (moved[1:] - moved[0]).T
        return result

    def averaged(self, prior: GaussianPrior, transformations: Transformations) -> GaussianPrior:
        """A prior of codes averaged over transformations of the fields."""
        moves = self.affine(transformations)
        turns = moves[:, 1:, 1:]
        every = moves[:, 1:, 0] + turns @ prior.mean
        total = (turns @ prior.covariance @ turns.mT).sum(0)
        mean = every.mean(0)
        covariance = (total + (every - mean).T @ (every - mean)) / len(every)
        return GaussianPrior(mean, (covariance + covariance.T) / 2, prior.noise)
