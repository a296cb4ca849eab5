"""Second moments of variables with errors: the combinations of these that are mostly signal."""

from __future__ import annotations

import numpy as np

_MOSTLY = 0.7  # largest share of noise
_ROUNDING = 1e-13  # least eigenvalue, relative to the largest


def mostly_signal(moments: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Projection (J, J) of coefficients of J variables onto combinations whose moments are mostly signal.

    moments (J, J): of observed values; noise (J, J): the part that their errors add. Combinations are generalised
    eigenvectors of both: to subtract the noise from others, whose signal its sampling error hides, would leave moments
    that are nearly zero or negative (Fuller, Measurement Error Models, 1987, 2.5).
    """
    scale = np.sqrt(np.where(np.diag(moments) > 0, np.diag(moments), 1.0))
    sizes, axes = np.linalg.eigh(moments / np.outer(scale, scale))
    sizes = np.sqrt(np.maximum(sizes, _ROUNDING * sizes[-1]))
    whitened = (axes / sizes).T @ (noise / np.outer(scale, scale)) @ (axes / sizes)
    shares, vectors = np.linalg.eigh((whitened + whitened.T) / 2)
    signal = vectors[:, shares < _MOSTLY]
    return np.asarray(((axes / sizes) @ signal / scale[:, None]) @ (signal.T @ (axes * sizes).T * scale))
