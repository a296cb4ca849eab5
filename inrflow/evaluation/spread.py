"""Predicted standard deviations of forecasts at whole frames, and their calibration on held-out forecasts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inrflow.assimilation import ContextPrior, StateEstimate
from inrflow.data.batch import TrajectoryBatch
from inrflow.solution import StatePath
from inrflow.surrogate import Surrogate

_NORMAL_90 = 1.6448536269514722
_VALUES = 100_000
_FRACTIONS = (1.0, 0.25, 0.0625)  # of the points, observed in the held-out windows
_FEWEST = 8  # values in a window
_JITTER = 1e-12


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
        path = StatePath(surrogate, estimate if shared else estimate.single(row.start))
        finite = torch.isfinite(inner[row][0])
        covariances = path.covariance(inner[row][0][finite], states[row][:, finite])
        for k, cov in zip(finite.nonzero()[:, 0].tolist(), covariances, strict=True):
            design = basis[row if len(basis) > 1 else slice(None), k if basis.shape[1] > 1 else 0]
            count = max(len(cov), len(design))
            for s in range(count):
                half = _root(cov[s if len(cov) > 1 else 0, :size, :size]).to(design.dtype)
                variance = (design[s if len(design) > 1 else 0] @ half).square().sum(-1).double()
                result[row, k][slice(s, s + 1) if count > 1 else slice(None)] = variance
    widening = surrogate.widening(states[:, 0]).nan_to_num(1.0)[:, None, None, None]
    return prior.std(result, estimate.factor[:, None, None, None], x) * widening


def _root(covariance: Tensor) -> Tensor:
    """L with L L^T = covariance, to the precision of float64."""
    jitter = _JITTER * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    root, failed = torch.linalg.cholesky_ex(covariance + jitter)
    if not failed:
        return root
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def calibrate(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, context: ContextPrior | None = None
) -> Tensor:
    """Factors (C,) for the standard deviations so that 90 % intervals hold 90 % of held-out forecasts.

    `batch` holds trajectories in data units that the surrogate was not fitted to; their first `window` frames are
    assimilated, seen at all of their points and at few of them, at known contexts where these are given. Forecasts that
    diverge leave the factors at 1.

    Held-out trajectories are often easier than new ones (windows of the same runs). A scale found from m of them has a
    relative standard error of about 1 / sqrt(2 m), and intervals are narrowed no further than leaves room for it.
    """
    ones = torch.ones(batch.u.shape[-1], dtype=torch.float64)
    if not surrogate.decoder.affine:
        return ones
    every = torch.cat([_scaled_errors(surrogate, batch, window, fraction, context) for fraction in _FRACTIONS])
    result = []
    for c in range(every.shape[1]):
        values = every[:, c][torch.isfinite(every[:, c])]
        values = values[:: max(1, len(values) // _VALUES)]
        result.append(values.quantile(0.9) if len(values) >= 10 else torch.tensor(1.0, dtype=torch.float64))
    factors = torch.stack(result).double()
    cautious = (factors * (1 + (2 * len(batch)) ** -0.5)).clamp(max=1.0)
    return torch.maximum(factors, cautious).clamp(0.05, 1e3)


def _scaled_errors(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, fraction: float, context: ContextPrior | None
) -> Tensor:
    """Errors (values, C) of forecasts from windows seen at a fraction of the points, in half widths of intervals."""
    points = batch.u.shape[2]
    seen = torch.zeros(len(batch), points, dtype=torch.bool)
    random = np.random.default_rng([7])
    for row in seen:  # the same number of points in every trajectory, other ones in each
        row[torch.as_tensor(random.permutation(points)[: round(fraction * points)])] = True
    first = batch.first_frames(window)
    first = TrajectoryBatch(first.t, first.x, torch.where(seen[:, None, :, None], first.u, torch.nan), first.delay)
    usable = (torch.isfinite(first.u).flatten(1).sum(1) >= _FEWEST).nonzero()[:, 0]
    errors = [torch.empty(0, batch.u.shape[-1], dtype=torch.float64)]
    if not len(usable):
        return errors[0]
    batch = batch.select(usable)
    known = None if context is None else context.select(usable)
    estimate = surrogate.estimate(first.select(usable), context=known)
    inner = surrogate.scale.internal(batch.t)
    truth = batch.undelayed().u
    for s in range(len(batch)):
        rows = torch.isfinite(inner[s])
        one = estimate.single(s)
        states = StatePath(surrogate, one).mean(inner[s, rows], check=False)
        x = batch.x[s if len(batch.x) > 1 else 0][None]
        x = x if x.shape[1] == 1 else x[:, rows]
        std = predicted_std(surrogate, one, states, inner[s : s + 1, rows], x)
        with torch.no_grad():
            dtype = next(surrogate.decoder.parameters()).dtype
            decoded = surrogate.decoder(x.to(dtype), states[..., : surrogate.code_size].to(dtype))
        error = (decoded[0] - surrogate.normalisation.apply(truth[s, rows])).double()
        errors.append((error.abs() / std[0] / _NORMAL_90).flatten(0, 1))
    return torch.cat(errors)
