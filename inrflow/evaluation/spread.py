"""Predicted standard deviations of forecasts at whole frames, and their calibration on held-out forecasts."""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.assimilation import StateEstimate
from inrflow.data.batch import TrajectoryBatch
from inrflow.solution import StatePath
from inrflow.surrogate import Surrogate

_NORMAL_90 = 1.6448536269514722
_VALUES = 100_000


def single(estimate: StateEstimate, s: int) -> StateEstimate:
    """The estimate of one trajectory of several."""
    cov = estimate.covariance
    one = None if cov is None else [c[s : s + 1] if len(c) > 1 else c for c in cov]
    return StateEstimate(estimate.t[s : s + 1], estimate.mean[s : s + 1], one)


def predicted_std(surrogate: Surrogate, estimate: StateEstimate, states: Tensor, inner: Tensor, x: Tensor) -> Tensor:
    """Standard deviation (S, T, N, C), normalised units, of observations around an affine decoder's values.

    Args:
        states: (S, T, n) at internal times `inner` (S, T); x: (S or 1, T or 1, N, d).
    """
    size, prior = surrogate.code_size, surrogate.prior
    with torch.no_grad():
        basis = surrogate.decoder.basis(x.to(next(surrogate.decoder.parameters()).dtype))[1]
    result = torch.full((*states.shape[:2], *basis.shape[2:4]), float("nan"), dtype=torch.float64)
    shared = bool((inner == inner[:1]).all())
    rows = [slice(None)] if shared else [slice(s, s + 1) for s in range(len(states))]
    for row in rows:
        path = StatePath(surrogate, estimate if shared else single(estimate, row.start))
        finite = torch.isfinite(inner[row][0])
        covariances = path.covariance(inner[row][0][finite], states[row][:, finite])
        for k, cov in zip(finite.nonzero()[:, 0].tolist(), covariances, strict=True):
            design = basis[row if len(basis) > 1 else slice(None), k if basis.shape[1] > 1 else 0]
            for s in range(len(cov)):
                variance = _decoded_variance(design[s if len(design) > 1 else 0], cov[s, :size, :size], prior.noise)
                target = result[row, k]
                target[s if len(cov) > 1 else slice(None)] = (variance + prior.noise).sqrt()
    return result * prior.spread


def _decoded_variance(design: Tensor, covariance: Tensor, noise: Tensor) -> Tensor:
    """diag(B P B^T) (N, C) of one frame; directions of P that are lost in the noise are left out."""
    values, vectors = torch.linalg.eigh(covariance)
    keep = values.clamp(min=0).cumsum(0) > 0.01 * noise.mean()
    half = (vectors[:, keep] * values[keep].sqrt()).to(design.dtype)
    return (design @ half).square().sum(-1).double()


def calibrate(surrogate: Surrogate, batch: TrajectoryBatch, window: int) -> Tensor:
    """Factors (C,) for the standard deviations so that 90 % intervals hold 90 % of held-out forecasts.

    `batch` holds trajectories in data units that the surrogate was not fitted to; their first `window` frames are
    assimilated. Forecasts that diverge leave the factors at 1.
    """
    ones = torch.ones(batch.u.shape[-1], dtype=torch.float64)
    if not surrogate.decoder.affine:
        return ones
    estimate = surrogate.estimate(batch.first_frames(window))
    inner = surrogate.scale.internal(batch.t)
    factors, truth = [], batch.undelayed().u
    for s in range(len(batch)):
        rows = torch.isfinite(inner[s])
        one = single(estimate, s)
        states = StatePath(surrogate, one).mean(inner[s, rows], check=False)
        x = batch.x[s if len(batch.x) > 1 else 0][None]
        x = x if x.shape[1] == 1 else x[:, rows]
        std = predicted_std(surrogate, one, states, inner[s : s + 1, rows], x)
        with torch.no_grad():
            dtype = next(surrogate.decoder.parameters()).dtype
            decoded = surrogate.decoder(x.to(dtype), states[..., : surrogate.code_size].to(dtype))
        error = (decoded[0] - surrogate.normalisation.apply(truth[s, rows])).double()
        factors.append((error.abs() / std[0] / _NORMAL_90).flatten(0, 1))
    every = torch.cat(factors)
    result = []
    for c in range(every.shape[1]):
        values = every[:, c][torch.isfinite(every[:, c])]
        values = values[:: max(1, len(values) // _VALUES)]
        result.append(values.quantile(0.9) if len(values) >= 10 else torch.tensor(1.0, dtype=torch.float64))
    return torch.stack(result).double().clamp(0.05, 1e3)
