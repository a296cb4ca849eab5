"""Calibration of predicted standard deviations on held-out forecasts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.evaluation.forecast import forecast
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.effort import seconds_of
from inrflow.numerics.normal import HALF_WIDTH_90

_VALUES = 100_000
_FRACTIONS = (1.0, 0.25, 0.0625)  # of the points, observed in the held-out windows
_FEWEST = 8  # values in a window that can be assimilated
_FEWEST_VALUES, _FEWEST_FRAMES = 10, 3  # of quantiles, and of their growth
_LINEARISED = 30  # products of a linearised flow, times n^3
_FASTEST = 2.0  # power of the lead: errors that add up with one sign exceed white ones by its square root


def calibrate(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, context: ContextPrior | None = None
) -> tuple[Tensor, Tensor]:
    """Factors (C,) on the standard deviations with which 90% intervals hold 90% of held-out values, and the powers (C,)
    of 1 + lead with which they grow (see StatePrior).

    The powers are those of a line through the logarithms of the 90% quantiles of each frame after the window.

    A variance estimated from m trajectories follows a chi-squared distribution with m degrees of freedom. As held-out
    trajectories are often easier than new ones (windows of the same runs), intervals are narrowed no further than its
    lower one-sigma quantile allows (normal approximation of Wilson and Hilferty, 1931). Forecasts that diverge leave
    the factors at 1.

    Args:
        batch: trajectories in data units that the surrogate was not fitted to.
        window: number of first frames assimilated, at all of their points and at fractions of them.
        context: known contexts of the trajectories, or None.
    """
    factors = torch.ones(batch.u.shape[-1], dtype=torch.float64)
    growth = torch.zeros_like(factors)
    if not surrogate.decoder.affine:
        return factors, growth
    every = [_scaled_errors(surrogate, batch, window, fraction, context) for fraction in _FRACTIONS]
    errors, lead, number = (torch.cat(parts) for parts in zip(*every, strict=True))
    for c in range(len(factors)):
        known = torch.isfinite(errors[:, c])
        step = max(1, int(known.sum()) // _VALUES)
        values, leads, numbers = (part[known][::step] for part in (errors[:, c], lead, number))
        if len(values) >= _FEWEST_VALUES:
            growth[c] = _growth(values, leads, numbers)
            factors[c] = (values / (1 + leads) ** growth[c]).quantile(0.9)
    variance = 2 / (9 * len(batch))
    cautious = (factors * (1 - variance - variance**0.5) ** -1.5).clamp(max=1.0)
    return torch.maximum(factors, cautious).clamp(0.05, 1e3), growth


def affordable(batch: TrajectoryBatch, past: int, surrogate: Surrogate, seconds: float) -> TrajectoryBatch:
    """Fewer trajectories, then shorter ones, then fewer points, where standard deviations of all would take longer than
    `seconds` of a usual core. At least 4 trajectories, 8 frames after the first `past` and 256 points are kept."""
    states = len(surrogate.prior.mean)
    flow = (2 if surrogate.field.is_linear else _LINEARISED) * states**3
    trajectories, frames, points = len(batch), batch.u.shape[1] - past, batch.u.shape[2]

    def excess() -> float:
        each = flow + 2 * points * batch.u.shape[3] * states**2
        return seconds_of(len(_FRACTIONS) * trajectories * (past + frames) * each) / seconds

    if excess() > 1:
        trajectories = max(min(4, trajectories), int(trajectories / excess()))
    if excess() > 1:
        frames = max(min(8, frames), int(frames / excess()))
    if excess() > 1:
        points = max(min(256, points), int(points / excess()))
    batch = batch.select(torch.linspace(0, len(batch) - 1, trajectories).round().long()).first_frames(past + frames)
    if points == batch.u.shape[2]:
        return batch
    chosen = torch.randperm(batch.u.shape[2], generator=torch.Generator().manual_seed(0))[:points].sort().values
    return TrajectoryBatch(batch.t, batch.x[:, :, chosen], batch.u[:, :, chosen],
                           None if batch.delay is None else batch.delay[:, :, chosen])


def _growth(values: Tensor, lead: Tensor, number: Tensor) -> float:
    """The power of 1 + lead (B,) with which 90% quantiles of scaled errors (B,) of trajectories of some numbers (B,)
    grow; 0 where it is within two standard errors of none, those of the mean of trajectories.
    """
    each = [_power(values[number == i], lead[number == i]) for i in number.unique()]
    error = float(np.std(each)) / max(len(each) - 1, 1) ** 0.5
    power = _power(values, lead)
    return min(power, _FASTEST) if len(each) > 1 and power > 2 * error else 0.0


def _power(values: Tensor, lead: Tensor) -> float:
    """The slope of the logarithms of 90% quantiles of values (B,) by those of 1 + lead (B,), 0 lead left out."""
    frames, which = lead.round(decimals=3).unique(return_inverse=True)
    points = [(float(frame), float(values[which == i].quantile(0.9))) for i, frame in enumerate(frames)
              if frame > 0 and int((which == i).sum()) >= _FEWEST_VALUES]
    points = [(frame, quantile) for frame, quantile in points if quantile > 0]
    if len(points) < _FEWEST_FRAMES:
        return 0.0
    frame, quantile = np.array(points).T
    return float(np.polyfit(np.log1p(frame), np.log(quantile), 1)[0])


def _scaled_errors(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, fraction: float, context: ContextPrior | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Errors (values, C) of forecasts from windows observed at a fraction of the points, in half widths of intervals
    that do not grow, their times (values,) after the window, internal units, and the numbers of their trajectories."""
    points = batch.u.shape[2]
    seen = torch.zeros(len(batch), points, dtype=torch.bool)
    random = np.random.default_rng([7])
    for row in seen:  # a subset of its own for every trajectory
        row[torch.as_tensor(random.permutation(points)[: round(fraction * points)])] = True
    first = batch.first_frames(window)
    first = TrajectoryBatch(first.t, first.x, torch.where(seen[:, None, :, None], first.u, torch.nan), first.delay)
    usable = (torch.isfinite(first.u).flatten(1).sum(1) >= _FEWEST).nonzero()[:, 0]
    if not len(usable):
        none = torch.empty(0, dtype=torch.float64)
        return none[:, None].expand(0, batch.u.shape[-1]), none, none
    batch = batch.select(usable)
    known = None if context is None else context.select(usable)
    estimate = surrogate.estimate(first.select(usable), context=known)
    predicted = forecast(surrogate, estimate, batch)
    assert predicted.std is not None
    error = (predicted.mean - surrogate.normalisation.apply(batch.u)).double()
    lead = (surrogate.scale.internal(batch.t) - estimate.last[:, None]).clamp(min=0)
    scaled = error.abs() / predicted.std / HALF_WIDTH_90
    number = usable.double()[:, None, None].expand(scaled.shape[:3])
    return scaled.flatten(0, 2), lead[..., None].expand(scaled.shape[:3]).flatten(), number.flatten()
