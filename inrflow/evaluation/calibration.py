"""Calibration of predicted standard deviations on held-out forecasts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.evaluation.forecast import forecast
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate

_NORMAL_90 = 1.6448536269514722
_VALUES = 100_000
_FRACTIONS = (1.0, 0.25, 0.0625)  # of the points, observed in the held-out windows
_FEWEST = 8  # values in a window that can be assimilated


def calibrate(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, context: ContextPrior | None = None
) -> Tensor:
    """Factors (C,) on the standard deviations with which 90% intervals hold 90% of held-out values.

    A variance estimated from m trajectories follows a chi-squared distribution with m degrees of freedom. As held-out
    trajectories are often easier than new ones (windows of the same runs), intervals are narrowed no further than its
    lower one-sigma quantile allows (normal approximation of Wilson and Hilferty, 1931). Forecasts that diverge leave
    the factors at 1.

    Args:
        batch: trajectories in data units that the surrogate was not fitted to.
        window: number of first frames assimilated, at all of their points and at fractions of them.
        context: known contexts of the trajectories, or None.
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
    variance = 2 / (9 * len(batch))
    cautious = (factors * (1 - variance - variance**0.5) ** -1.5).clamp(max=1.0)
    return torch.maximum(factors, cautious).clamp(0.05, 1e3)


def _scaled_errors(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, fraction: float, context: ContextPrior | None
) -> Tensor:
    """Errors (values, C) of forecasts from windows observed at a fraction of the points, in half widths of the
    intervals."""
    points = batch.u.shape[2]
    seen = torch.zeros(len(batch), points, dtype=torch.bool)
    random = np.random.default_rng([7])
    for row in seen:  # a subset of its own for every trajectory
        row[torch.as_tensor(random.permutation(points)[: round(fraction * points)])] = True
    first = batch.first_frames(window)
    first = TrajectoryBatch(first.t, first.x, torch.where(seen[:, None, :, None], first.u, torch.nan), first.delay)
    usable = (torch.isfinite(first.u).flatten(1).sum(1) >= _FEWEST).nonzero()[:, 0]
    if not len(usable):
        return torch.empty(0, batch.u.shape[-1], dtype=torch.float64)
    batch = batch.select(usable)
    known = None if context is None else context.select(usable)
    estimate = surrogate.estimate(first.select(usable), context=known)
    predicted = forecast(surrogate, estimate, batch)
    assert predicted.std is not None
    error = (predicted.mean - surrogate.normalisation.apply(batch.u)).double()
    return (error.abs() / predicted.std / _NORMAL_90).flatten(0, 2)
