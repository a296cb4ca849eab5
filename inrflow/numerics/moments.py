"""Moments of variables, as of normal equations: scaled solutions, and the part that is not noise."""

from __future__ import annotations

import numpy as np

_MOSTLY = 0.5  # largest share of noise
_RIDGE = 1e-13  # relative to the diagonal


def scaled(gram: np.ndarray, right: np.ndarray, ridges: np.ndarray | float = _RIDGE
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scales (..., J) of normal equations with the diagonal one, and these equations, with ridges."""
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    shift = np.broadcast_to(ridges, diagonal.shape[-1:])
    return scale, gram / (scale[..., None] * scale[..., None, :]) + np.diag(shift), right / scale


def solved_moments(gram: np.ndarray, right: np.ndarray, ridges: np.ndarray | float = _RIDGE
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Solutions (..., J) of normal equations with the diagonal scaled to one, and inverse matrices (..., J, J)."""
    scale, unit, right = scaled(gram, right, ridges)
    inverse = np.linalg.inv(unit)
    return (inverse @ right[..., None])[..., 0] / scale, inverse / (scale[..., None] * scale[..., None, :])


def mostly_signal(moments: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Projection (J, J) of coefficients of J variables onto combinations whose moments are mostly signal.

    moments (J, J): of observed values; noise (J, J): the part that their errors add. Combinations are generalised
    eigenvectors of both: to subtract the noise from others, whose signal its sampling error hides, would leave moments
    that are nearly zero or negative (Fuller, Measurement Error Models, 1987, 2.5).
    """
    scale, unit, _ = scaled(moments, np.zeros(len(moments)))
    sizes, axes = np.linalg.eigh(unit)
    sizes = np.sqrt(np.maximum(sizes, _RIDGE * sizes[-1]))
    whitened = (axes / sizes).T @ (noise / np.outer(scale, scale)) @ (axes / sizes)
    shares, vectors = np.linalg.eigh((whitened + whitened.T) / 2)
    signal = vectors[:, shares < _MOSTLY]
    return np.asarray(((axes / sizes) @ signal / scale[:, None]) @ (signal.T @ (axes * sizes).T * scale))
