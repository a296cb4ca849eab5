"""Calibration of predicted standard deviations on held-out forecasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.evaluation.forecast import Errors, forecast, quantile_of_others
from inrflow.model.state_prior import ContextPrior, StateEstimate, StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.effort import effort, seconds_of

_HELD, _HELD_AHEAD = 0.9, 0.95  # nominal coverage of intervals
FRACTIONS = (1.0, 0.25, 0.0)  # of points that are observed in held-out windows
_FEWEST = 8  # least values in an assimilated window
_LISTED = 300_000  # most errors from one set of windows
_FEWEST_VALUES, _FEWEST_LEADS, _LEADS = 10, 3, 4  # for quantiles, for growth, and in windows of few points
_STEP = 0.2  # bin of log(1 + lead) with a factor of its own
_INTEGRATED, _LINEARISED = 2, 30  # integrations over an interval; products of a linearised flow over n^3
_LEAST, _MOST = 1e-4, 1e8  # factors: errors of frames unlike the fitted ones exceed those of the fit by far
_TOGETHER, FEW = 8, 2  # trajectories in a batch of forecasts; least number for a calibration with windows of few points
_CALM = 0.25  # power of factors below 1 from the last part of a series
STARTS = (1 / 3, 2 / 3)  # of later windows, as shares of the frames
_LATER = sum(1 - start for start in STARTS)
_APART, _SPARSE = 1e-3, 4.6  # least difference of log variances; that of far larger ones than usual
_HIGH = 0.95  # quantile of variances after full windows, up to which their factors apply
_FASTEST = 2.0  # power of the lead: coherent errors exceed white ones by its square root

Others = tuple[TrajectoryBatch, ContextPrior | None]


def calibrate(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, context: ContextPrior | None = None,
    others: Others | None = None,
) -> StatePrior:
    """The surrogate's prior with standard deviations calibrated on forecasts of held-out trajectories; arguments as in
    `errors_of`."""
    return calibrated(surrogate.prior, list(errors_of(surrogate, batch, window, context, None, others)))


def errors_of(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, context: ContextPrior | None = None,
    points: Tensor | None = None, others: Others | None = None, starts: Sequence[float] = STARTS,
    fractions: Sequence[float] = FRACTIONS,
) -> Iterator[Errors]:
    """Errors (B, C) of forecasts from windows that are observed at all of their points, then at fewer and fewer; none
    where the decoder is not affine.

    Args:
        batch: trajectories in data units that the surrogate was not fitted to.
        window: number of first frames assimilated.
        context: known contexts of the trajectories, or None.
        points: at which forecasts are compared, None for all.
        others: further trajectories and their known contexts, if any, for the full windows alone. Their variances grow
            with lead as those of the first ones on average, as the propagation of covariances takes most of the time.
        starts: shares of the frames at which further windows begin, treated likewise: states may get rougher.
        fractions: of the points.
    """
    if surrogate.decoder.affine:
        surrogate = replace(surrogate, prior=_neutral(surrogate.prior))
        for fraction in fractions:
            yield _errors(surrogate, batch, window, fraction, context, points, others, starts)
            others = None


def errors_with_few_points(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, count: int, context: ContextPrior | None = None,
    points: Tensor | None = None, starts: Sequence[float] = STARTS,
) -> Iterator[Errors]:
    """The errors of `errors_of` for windows observed at fewer points, of `count` trajectories and a proportional number
    of leads."""
    rows = torch.arange(min(count, len(batch)))
    leads = max(round((batch.u.shape[1] - window) * len(rows) / max(len(batch), 1)), _LEADS)
    fewer, known = batch.select(rows).first_frames(window + leads), None if context is None else context.select(rows)
    return errors_of(surrogate, fewer, window, known, points, None, starts, FRACTIONS[1:] if count else ())


def calibrated(prior: StatePrior, errors: Sequence[Errors], ahead: bool = False, stretch: float = 1.0) -> StatePrior:
    """A prior with standard deviations calibrated on errors of forecasts from `errors_of`.

    For each channel and lead, the factors `spread` with which 90 % intervals contain 90 % of the values of a new
    trajectory, after windows observed at all of their points and at fewer, where errors of codes dominate; and the
    power `growth` of 1 + lead with which they grow after the last one. Forecasts that diverge do not change intervals.

    Args:
        errors: of windows observed at all points, and any of windows observed at a few.
        ahead: for a model whose codes determine a whole frame, with standard deviations from left-out blocks of frames:
            forecasts alone are used, with 95 % intervals; the fourth root is taken of factors below 1, as calm periods
            seldom persist.
        stretch: factor on leads, for a field fitted to a series longer by this factor than the calibrated one.
    """
    neutral = _neutral(prior)
    if not errors or neutral.growth is None or neutral.fading is None:
        return neutral
    leads, factors = leads_of(errors[0].lead), []
    for c in range(len(neutral.growth)):
        windows = [one.of(c) for one in errors]
        if not ahead:
            neutral.fading[c] = fading = variance_factor_decay(windows[0])
            windows = [one.faded(fading) for one in windows]
        spread, relative, neutral.growth[c] = factors_of(windows, leads, _HELD_AHEAD if ahead else _HELD)
        if ahead:  # errors of left-out blocks, over all frames, are more representative
            spread = torch.maximum(spread, spread.clamp(max=1) ** _CALM)
        factors.append((spread, relative))
    spread, relative = (torch.stack(_alike(parts), -1) for parts in zip(*factors, strict=True))
    return replace(neutral, spread=spread, relative=relative, leads=leads * stretch)


def _neutral(prior: StatePrior) -> StatePrior:
    """The prior with all factors 1."""
    growth, fading = torch.zeros(2, len(prior.noise), dtype=torch.float64)
    return replace(prior, spread=torch.ones(1, len(growth), dtype=torch.float64), growth=growth, relative=None,
                   leads=torch.zeros(1, dtype=torch.float64), fading=fading)


def _alike(parts: Sequence[Tensor]) -> list[Tensor]:
    """Tensors (M, ...), padded to the same length by their last row."""
    most = max(len(one) for one in parts)
    return [torch.cat([one, one[-1:].expand(most - len(one), *one.shape[1:])]) for one in parts]


def pooled(prior: StatePrior, calibrated: list[StatePrior]) -> StatePrior:
    """A prior with the mean of calibrations on several sets of trajectories."""
    leads = max((torch.zeros(1).double() if one.leads is None else one.leads for one in calibrated), key=len)
    none, every = torch.zeros(len(prior.noise), dtype=torch.float64), []
    for one in calibrated:
        spread, relative = one.factors_at(leads)
        every.append((spread.exp(), relative, *(none if part is None else part for part in (one.growth, one.fading))))
    spread, relative, growth, fading = (torch.stack(_alike(parts)).mean(0) for parts in zip(*every, strict=True))
    return replace(prior, leads=leads, spread=spread, relative=relative, growth=growth, fading=fading)


def variance_factor_decay(errors: Errors) -> float:
    """Power (1 or 0) of the decay with lead of trajectories' own variance factors, of larger likelihood for errors of
    one channel: normal ones with a variance factor for each lead. 0 with white noise."""
    steps = (errors.lead.clamp(min=0).log1p() / _STEP).round().unique(return_inverse=True)[1]

    def misfit(fading: float) -> float:
        one = errors.faded(fading)
        variance, number = one.codes + one.rest, steps.bincount()
        squares = torch.zeros(len(number)).double().index_add(0, steps, one.error.square() / variance)
        return float(variance.log().sum() + (number * (squares / number + 1e-300).log()).sum())

    return 0.0 if bool((errors.white > 0).any()) or not len(steps) else min((0.0, 1.0), key=misfit)


def leads_of(lead: Tensor) -> Tensor:
    """Lead times (K,), 0 and the mean of each bin of their logarithms, from those of errors (B,); NaN mark the missing
    frames of shorter trajectories."""
    every = lead[lead.isfinite()].unique_consecutive().unique().clamp(min=0).log1p()
    steps, which = (every / _STEP).round().unique(return_inverse=True)
    means = torch.stack([every[which == i].mean() for i in range(len(steps))]).expm1()
    return means if len(steps) and float(steps[0]) == 0 else torch.cat([means.new_zeros(1), means])


def factors_of(windows: Sequence[Errors], leads: Tensor, held: float = _HELD) -> tuple[Tensor, Tensor, float]:
    """Factors (M, K) on standard deviations at leads (K,), logarithms (M, K) of relative variances to which they
    belong, and growth, for one channel, from windows observed at all and at fewer and fewer of their points.

    Without windows of fewer points, variances far larger than usual ones are not reduced.
    """
    every = [_at_leads(one, leads, held, _HIGH if one is windows[0] else 0.5) for one in windows]
    found = [(spread, relative) for spread, relative, known in every if len(known)]
    if not len(ahead := every[0][2]):
        return torch.ones(1, len(leads)).double(), torch.zeros(1, len(leads)).double(), 0.0
    growth, at = 0.0, leads.log1p().numpy()
    if len(ahead := ahead[ahead > 0]) >= _FEWEST_LEADS:  # late leads are weighted
        slope = np.polyfit(at[ahead], found[0][0][ahead], 1, w=at[ahead] ** 2)[0]
        growth = min(max(float(slope), 0.0), _FASTEST)
    if len(found) == 1 and held == _HELD:  # left-out blocks of a series are all fully observed
        found.append((found[0][0].clip(0.0), found[0][1] + _SPARSE))
    for (_, fewer), (_, more) in pairwise(found):
        np.maximum(more, fewer + _APART, out=more)
    spread, relative = (torch.as_tensor(np.stack(part)) for part in zip(*found, strict=True))
    return spread.exp(), relative, growth


def _at_leads(errors: Errors, leads: Tensor, held: float, level: float
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms (K,) of factors with which intervals contain a share of the errors at each lead, and of a quantile of
    the relative variances; and the indices of leads with enough errors.

    With white noise, which hides smaller errors, factors are at least 1, and above 1 only if significant. At lead 0
    they are at least those of the next lead, as errors between observed points are larger. They are at least those of
    the first windows alone.
    """
    width, at = NormalDist().inv_cdf((1 + held) / 2), leads.log1p().numpy()
    least = 1.0 if bool((errors.white > 0).any()) else _LEAST
    nearest = (errors.lead.clamp(min=0).log1p()[:, None] - leads.log1p()).abs().argmin(1)
    bins = [(nearest == k).nonzero()[:, 0] for k in range(len(leads))]
    known = np.array([k for k, rows in enumerate(bins) if len(rows) >= _FEWEST_VALUES], dtype=int)
    if not len(known):
        return *np.zeros((2, len(leads))), known
    scaled, sizes, found = errors.scaled(width), errors.relative.log(), []
    for rows in (bins[k] for k in known):
        first = own if len(own := rows[~errors.late[rows]]) >= _FEWEST_VALUES else rows
        wanted = max(quantile_of_others(scaled[some], errors.number[some], held) for some in (first, rows))
        sure = errors.select(rows).exceed
        found.append((np.log(np.clip(wanted if sure else least, least, _MOST)), float(sizes[rows].quantile(level))))
    spread, relative = (np.interp(at, at[known], part) for part in zip(*found, strict=True))
    spread[0] = max(spread[:2])
    return spread, relative, known


def rollout_seconds(surrogate: Surrogate) -> float:
    """Effort of integrating one state of a law over one interval, whose steps may be short; 0 for other models."""
    if surrogate.integrator.method != "etd":
        return 0.0
    began, times = effort(), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    surrogate.dynamics.flow(surrogate.prior.mean[None], times, check=False)
    return effort() - began


def affordable(batch: TrajectoryBatch, past: int, surrogate: Surrogate, seconds: float,
               context: ContextPrior | None = None, flown: float = 0.0
               ) -> tuple[TrajectoryBatch, ContextPrior | None, Tensor | None]:
    """Fewer trajectories, then fewer frames, then a subset of points for comparisons (None for all), where a
    calibration would take longer than `seconds` on a usual core; and the contexts of these trajectories.

    At least 4 trajectories are kept, or 2 if necessary; 8 frames after the first `past`, and 256 points. `flown`: the
    effort of integrating one state over one interval, see `rollout_seconds`.
    """
    states = len(surrogate.prior.mean)
    flow = (2 if surrogate.field.is_linear else _LINEARISED) * states**3
    trajectories, frames, points = len(batch), batch.u.shape[1] - past, batch.u.shape[2]

    def excess() -> float:
        each = flow + 2 * points * batch.u.shape[3] * states**2
        every = len(FRACTIONS) * (seconds_of(each) + (_INTEGRATED + _LATER) * flown)
        return trajectories * (past + frames) * every / seconds

    if excess() > 1:
        trajectories = max(min(4, trajectories), int(trajectories / excess()))
    if excess() > 1:
        frames = max(min(8, frames), int(frames / excess()))
    if excess() > 1:
        points = max(min(256, points), int(points / excess()))
    if excess() > 1:
        trajectories = min(2, trajectories)
    kept = torch.linspace(0, len(batch) - 1, trajectories).round().long()
    batch, context = batch.select(kept).first_frames(past + frames), None if context is None else context.select(kept)
    if points == batch.u.shape[2]:
        return batch, context, None
    some = torch.randperm(batch.u.shape[2], generator=torch.Generator().manual_seed(0))[:points].sort().values
    return batch, context, some


def _errors(
    surrogate: Surrogate, batch: TrajectoryBatch, window: int, fraction: float, context: ContextPrior | None,
    chosen: Tensor | None, others: Others | None = None, starts: Sequence[float] = (),
) -> Errors:
    """Errors (B, C), at chosen points, of forecasts from windows observed at a fraction of all points, and from later
    windows; and of other trajectories, fully observed."""
    points, channels = batch.u.shape[2:]
    seen = torch.zeros(len(batch), points, dtype=torch.bool)
    random = np.random.default_rng([7])
    some = max(round(fraction * points), -(-_FEWEST // channels))
    for row in seen:  # each trajectory has its own subset
        row[torch.as_tensor(random.permutation(points)[:some])] = True
    first = _first(batch, window, seen)
    if not len(usable := _usable(first)):
        none = torch.empty(0, channels, dtype=torch.float64)
        return Errors(none, none, none, none[:, 0], none[:, 0], none)
    known = None if context is None else context.select(usable)
    every = [(batch.select(usable), known, usable, seen[usable])]
    if others is not None:
        every.append((*others, torch.arange(len(others[0])) + len(seen), torch.ones(len(others[0]), points).bool()))
    estimate, batch = surrogate.estimate(first.select(usable), context=known), every[0][0]
    batch = batch if chosen is None else batch.at(chosen)
    predicted = forecast(surrogate, estimate, batch)
    assert predicted.std is not None
    errors = (predicted.mean - surrogate.normalisation.apply(batch.u)).double().abs()
    total = predicted.std.double().square()
    found = _flattened(surrogate, estimate, errors, total, predicted.lead, usable)
    further = [(*one, False) for one in every[1:]]
    for start in {round(s * batch.u.shape[1]) for s in starts} & set(range(1, batch.u.shape[1] - window)):
        further += [(one.frames(slice(start, None)), own, names, mask, True) for one, own, names, mask in every]
    if not further:
        return found
    ahead = (total / _own(surrogate, estimate))[:, window:].nanmean(0)  # (T, N, C)
    parts = [found]
    for more, contexts, names, mask, late in further:
        first = _first(more, window, mask)
        for rows in (some for some in _usable(first).split(_TOGETHER) if len(some)):
            own = None if contexts is None else contexts.select(rows)
            flown = _forecast_errors(surrogate, more.select(rows), first.select(rows), own, chosen, ahead, names[rows])
            parts.append(replace(flown, late=torch.full_like(flown.number, late, dtype=torch.bool)))
    return Errors.join(parts)


def _first(batch: TrajectoryBatch, window: int, seen: Tensor) -> TrajectoryBatch:
    """The first frames of trajectories, with values at points `seen` (S, N)."""
    first = batch.first_frames(window)
    return TrajectoryBatch(first.t, first.x, torch.where(seen[:, None, :, None], first.u, torch.nan), first.delay)


def _usable(window: TrajectoryBatch) -> Tensor:
    """Indices of trajectories with enough values in a window."""
    return (torch.isfinite(window.u).flatten(1).sum(1) >= min(_FEWEST, window.u[0].numel())).nonzero()[:, 0]


def _forecast_errors(surrogate: Surrogate, batch: TrajectoryBatch, window: TrajectoryBatch,
                     context: ContextPrior | None, chosen: Tensor | None, ahead: Tensor, names: Tensor) -> Errors:
    """Errors (B, C) of forecasts of trajectories with identities `names` (S,) from their window. Variances in the
    window are their own; thereafter the mean `ahead` (T, N, C) over other trajectories, times their own factors."""
    estimate, past = surrogate.estimate(window, context=context), window.u.shape[1]
    here = batch if chosen is None else batch.at(chosen)
    flown = forecast(surrogate, estimate, here, False)
    errors = (flown.mean - surrogate.normalisation.apply(here.u)).double().abs()
    first = forecast(surrogate, estimate, here.first_frames(past)).std
    assert first is not None
    after = _own(surrogate, estimate) * ahead[: here.u.shape[1] - past]
    return _flattened(surrogate, estimate, errors, torch.cat([first.double().square(), after], 1), flown.lead, names)


def _flattened(surrogate: Surrogate, estimate: StateEstimate, errors: Tensor, total: Tensor, lead: Tensor, names: Tensor
               ) -> Errors:
    """Errors (B, C) from absolute errors and variances (S, T, N, C) of forecasts; an even subset if there are very
    many."""
    least = surrogate.prior.residual_variance * _own(surrogate, estimate)
    rest = torch.minimum(least.expand(total.shape), total)
    white = (surrogate.prior.noise - surrogate.prior.residual_variance).expand(total.shape)
    at, number, own = (part.expand(errors.shape[:3]).flatten() for part in (
        lead[..., None], names.double()[:, None, None], estimate.factor[:, None, None]))
    error, codes, left, noise = (part.flatten(0, 2) for part in (errors, total - rest, rest, white))
    return Errors(error, codes, left, at, number, noise, own).select(slice(None, None, 1 + len(at) // _LISTED))


def _own(surrogate: Surrogate, estimate: StateEstimate) -> Tensor:
    """Factors (S, 1, 1, 1) on all variances of trajectories, without decay with lead."""
    return (surrogate.widening(estimate).square() * estimate.factor)[:, None, None, None]
