"""Conditioning of Gaussian fields on near observations: Vecchia's approximation.

A value given all observations is taken as given the nearest of them, in units of the covariance's own lengths and times
(Vecchia, 1988; Katzfuss and Guinness, 2021); with as many neighbours as observations it is exact.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from inrflow.encoding.residual.covariance import Covariance

_BLOCK = 1 << 17  # numbers in the covariance matrices of a block, which stay in the cache
_JITTER = 1e-9
_MOST_JOINT = 2500  # observations that many values are conditioned on together


class Sites:
    """Values at times and embedded places with a search for near ones.

    Args:
        t: (R,). y: (R, p). covariance: in whose units near is near.
    """

    def __init__(self, t: np.ndarray, y: np.ndarray, covariance: Covariance) -> None:
        self.t, self.y, self.covariance = t, y, covariance
        self._tree = cKDTree(covariance.metric(y, t))

    def near(self, t: np.ndarray, y: np.ndarray, count: int, latest: np.ndarray | None = None) -> np.ndarray:
        """Indices (Q, count) of the nearest observations, -1 where there are fewer; with `latest` (Q,) of those that
        are not later."""
        asked = min(len(self.t), count if latest is None else 4 * count)
        centre = t if latest is None else np.minimum(t, latest)
        found = self._tree.query(self.covariance.metric(y, centre), asked)[1].reshape(len(t), asked)
        if latest is None:
            return np.pad(found, ((0, 0), (0, count - asked)), constant_values=-1) if asked < count else found
        later = self.t[found] > latest[:, None]
        order = np.argsort(later, 1, kind="stable")[:, :count]
        found = np.where(np.take_along_axis(later, order, 1), -1, np.take_along_axis(found, order, 1))
        return np.pad(found, ((0, 0), (0, count - found.shape[1])), constant_values=-1)


def local_weights(
    covariance: Covariance, t: Tensor, y: Tensor, near_t: Tensor, near_y: Tensor, missing: Tensor
) -> tuple[Tensor, Tensor]:
    """Kriging weights (Q, m) of near observations and variances (Q,) of the field given them, without the nugget.

    Args:
        t, y: (Q,) and (Q, p) of what is predicted.
        near_t, near_y, missing: (Q, m), (Q, m, p) and (Q, m): its neighbours, and which of them there are none.
    """
    between = covariance(near_t, near_y, near_t, near_y)
    across = covariance(t[:, None], y[:, None], near_t, near_y)[:, 0].masked_fill(missing, 0.0)
    off = missing[:, :, None] | missing[:, None]
    own = covariance.nugget + _JITTER * covariance.variance
    between = between.masked_fill(off, 0.0) + torch.diag_embed(torch.where(missing, 1.0, own))
    factor = torch.linalg.cholesky(between)
    half = torch.linalg.solve_triangular(factor, across[..., None], upper=False)
    weights = torch.linalg.solve_triangular(factor.mT, half, upper=True)[..., 0]
    floor = _JITTER * covariance.variance
    return weights, (covariance.variance - half.square().sum((1, 2))).clamp(min=floor)


def krige(
    sites: Sites, values: Tensor, t: np.ndarray, y: np.ndarray, count: int
) -> tuple[Tensor, Tensor]:
    """Means and variances (Q,) of the field at times (Q,) and embedded places (Q, p), given observed values (R,)."""
    mean, variance = torch.empty(2, len(t), dtype=torch.float64)
    count = min(count, len(values))
    length = max(1, _BLOCK // max(1, count * count))
    for start in range(0, len(t), length):
        rows = slice(start, start + length)
        near = torch.as_tensor(sites.near(t[rows], y[rows], count))
        with torch.no_grad():
            weights, variance[rows] = local_weights(
                sites.covariance, torch.as_tensor(t[rows]), torch.as_tensor(y[rows]), torch.as_tensor(sites.t)[near],
                torch.as_tensor(sites.y)[near], near < 0)
        mean[rows] = (weights * values[near]).sum(1)
    return mean, variance


def joint(covariance: Covariance, sites: Sites | None, t: np.ndarray, y: np.ndarray, count: int) -> Tensor:
    """Joint covariance (Q, Q) of the field at times (Q,) and embedded places (Q, p), given the observations near any of
    them; of so many that not all can be used, the nearest to each."""
    times, places = torch.as_tensor(t), torch.as_tensor(y)
    with torch.no_grad():
        own = covariance(times, places, times, places)
        if sites is None:
            return own
        count = min(count, len(sites.t))
        near = np.unique(sites.near(t, y, count))
        while len(near) > _MOST_JOINT and count > 1:
            count //= 2
            near = np.unique(sites.near(t, y, count))
        here = torch.as_tensor(near[near >= 0])
        near_t, near_y = torch.as_tensor(sites.t)[here], torch.as_tensor(sites.y)[here]
        between = covariance(near_t, near_y, near_t, near_y)
        between.diagonal().add_(covariance.nugget + _JITTER * covariance.variance)
        half = torch.linalg.solve_triangular(
            torch.linalg.cholesky(between), covariance(near_t, near_y, times, places), upper=False)
        return own - half.mT @ half
