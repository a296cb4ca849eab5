"""Common functions of references: training data in their form, cycles in time, comparison of sets of points (equal,
nearest), and leading modes with their coefficients in frames with gaps and rollouts from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.calendar import seconds_of_unit
from inrflow.data.description import Description
from inrflow.encoding.posterior import GaussianPrior, condition
from inrflow.encoding.prior.point_modes import Cycle, leading_components, shrunk_cycle

_YEAR, _WEEK, _DAY = 365.2425 * 86400.0, 7 * 86400.0, 86400.0  # seconds
_WEEKS = 4.0  # weeks of data for a weekly cycle
_TIDES = ((25.8193, 1), (24.8412, 4), (12.6583, 1))  # hours and harmonics of tides: O1; M1 to M4; N2
_TURNS = 1.5  # least turns of a cycle in the data
_WEEK_FOLDS, _LOOKED_AT = 3, 16  # folds of weeks; values in their comparison
_EACH = 4.0  # least frames of a turn
_FEW, _MOST = 3, 8  # harmonics of a cycle of few turns; of a turn for each and more
_OFF = 0.1  # of a step: months of a calendar are regular


def shared_points(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> Tensor | None:
    """The points (N, d) that all trajectories share at all times, float64; None where they do not."""
    parts = [train] if validation is None else [train, validation]
    if any(part.x.shape[:2] != (1, 1) or not same_points(part.x, train.x) for part in parts):
        return None
    return train.x[0, 0].double()


def channel_mean(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> Tensor:
    """Mean of each channel over all values, (C,) float64; 0 for a channel without any."""
    parts = [train] if validation is None else [train, validation]
    values = torch.cat([part.u.double().flatten(0, 2) for part in parts])
    return values.nanmean(0).nan_to_num(0.0)


def mean_field(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> Tensor:
    """Mean of each channel at each of the shared points, (N, C) float64; the channel mean at points without
    observations."""
    values = stacked(train, validation).u.double().flatten(0, 1)
    return torch.where(torch.isfinite(values).any(0), values.nanmean(0), channel_mean(train, validation))


def split(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> tuple[TrajectoryBatch, TrajectoryBatch | None]:
    """The data as given; but a single validation trajectory that continues a single training trajectory is appended to
    it, without validation data."""
    if validation is None or not len(train.u) == len(validation.u) == 1:
        return train, validation
    kept = torch.isfinite(train.t[0])
    if not bool(validation.t[0, 0] > train.t[0, kept].max()):
        return train, validation
    return TrajectoryBatch(torch.cat([train.t[:, kept], validation.t], 1), train.x,
                           torch.cat([train.u[:, kept], validation.u], 1)), None


def stacked(train: TrajectoryBatch, validation: TrajectoryBatch | None) -> TrajectoryBatch:
    """All trajectories in one batch on the shared points, the shorter padded with NaN."""
    train, validation = split(train, validation)
    if validation is None:
        return train
    frames = max(train.t.shape[1], validation.t.shape[1])
    t, u = [], []
    for batch in (train, validation):
        missing = frames - batch.t.shape[1]
        t.append(torch.nn.functional.pad(batch.t, (0, missing), value=torch.nan))
        u.append(torch.nn.functional.pad(batch.u, (0, 0, 0, 0, 0, missing), value=torch.nan))
    return TrajectoryBatch(torch.cat(t), train.x, torch.cat(u))


SAME = 1e-5  # points closer than this fraction of the extent are one point
_PAIRS = 1 << 22  # distances held at once


def same_points(a: Tensor, b: Tensor) -> bool:
    """Whether a and b (..., N, d) hold the same N points in the same order, up to rounding."""
    if a.shape[-2:] != b.shape[-2:]:
        return False
    tolerance = SAME * extent(b).clamp(min=1e-300)
    return bool(((a - b).abs() <= tolerance).all())


def extent(x: Tensor) -> Tensor:
    """Size of the box around points (..., d), the largest of its sides."""
    flat = x.reshape(-1, x.shape[-1])
    return (flat.amax(0) - flat.amin(0)).max()


def wrapped(difference: Tensor, period: Tensor | None) -> Tensor:
    """Differences of coordinates (..., d), the shortest way round where a coordinate is periodic (period > 0)."""
    if period is None:
        return difference
    step = torch.where(period > 0, period, 1.0)
    return torch.where(period > 0, difference - step * torch.round(difference / step), difference)


def nearest(targets: Tensor, sources: Tensor, period: Tensor | None = None) -> Tensor:
    """Index into sources (K, d) of the nearest one of each of the targets (M, d): (M,)."""
    block = max(1, _PAIRS // max(1, len(sources)))
    return torch.cat([wrapped(part[:, None] - sources, period).square().sum(-1).argmin(1)
                      for part in targets.split(block)])


def filled(u: Tensor, sources: Tensor, targets: Tensor | None, otherwise: Tensor, period: Tensor | None,
           neighbours: dict[bytes, Tensor]) -> Tensor:
    """Complete values (M, C) at targets (M, d) from values u (N, C) at sources (N, d), NaN where not observed.

    Nearest-neighbour interpolation from the observed points.

    Args:
        targets: None for the sources themselves.
        otherwise: (C,) values of channels without any observation.
        neighbours: cache of the nearest points by mask, for one pair of sources and targets.
    """
    complete = otherwise.to(u).repeat(len(u if targets is None else targets), 1)
    for channel in range(u.shape[1]):
        seen = torch.isfinite(u[:, channel])
        if not bool(seen.any()):
            continue
        if targets is None and bool(seen.all()):
            complete[:, channel] = u[:, channel]
            continue
        mask = seen.numpy().tobytes()
        if mask not in neighbours:
            places = torch.nonzero(seen)[:, 0]
            neighbours[mask] = places[nearest(sources if targets is None else targets, sources[places], period)]
        complete[:, channel] = u[neighbours[mask], channel]
        if targets is None:
            complete[seen, channel] = u[seen, channel]
    return complete


_REGULAR = 0.1  # tolerated deviation from whole multiples of a step: months of a calendar are regular
_LARGEST_GRAM = 4096


def cycles_of(description: Description, times: np.ndarray) -> list[tuple[float, int]]:
    """Periods, in units of t, that times (T,) span and resolve, the longest first, each with its largest number of
    harmonics."""
    times = np.unique(times[np.isfinite(times)])  # trajectories may share times
    if len(times) < 2:
        return []
    span, step = float(times.max() - times.min()), float(np.median(np.diff(times)))
    seconds = seconds_of_unit(description.time_units)
    periods = [] if seconds is None else [_YEAR / seconds, _DAY / seconds]
    declared = description.time_period
    if declared is not None:
        periods = [declared, *(period for period in periods if abs(period / declared - 1) > 0.01)]
    return [(period, min(_MOST, max(_FEW, int(span / period)), _resolved(period, step)))
            for period in sorted(periods, reverse=True)
            if span + step >= _TURNS * period and period >= _EACH * step]


def _resolved(period: float, step: float) -> int:
    """Number of harmonics of a period that a step resolves."""
    return math.floor(period / (2 * step) - 1e-6)


def cycle_of(description: Description, t: Tensor, values: Tensor, unit: float = 1.0) -> Cycle:
    """The cycle of values (T, M) of a `description` at times t (T,), in multiples `unit` of its time units; NaN where
    not observed.

    A weekly cycle, as of human activity, replaces the daily one, or the main lunar tides are added to it, if that
    predicts held-out weeks significantly better; from a week of data on tides, whose blocks are quarters of less than
    four weeks. The weekly cycle has as many harmonics as to include the neighbours of the daily ones.
    """
    cycles = [(period / unit, most) for period, most in cycles_of(description, t.numpy() * unit)]
    seconds, channels = seconds_of_unit(description.time_units), len(description.channels)
    week, step = _WEEK / seconds / unit if seconds else 0.0, float(t.diff().median())
    span = float(t[-1] - t[0])
    if description.time_period is not None or week < _EACH * step or span < week:
        return shrunk_cycle(t, values, cycles, channels)
    most = 7 * _MOST + _MOST if week >= 7 * _EACH * step else _MOST
    weekly = [*(one for one in cycles if one[0] > week), (week, min(most, _resolved(week, step)))]
    tides = [(week * hours / 168, most) for hours, most in _TIDES]
    possible = [cycles, *([weekly] if span >= _WEEKS * week else []),
                *([[*cycles, *tides]] if tides[-1][0] >= _EACH * step else [])]
    number = torch.floor((t - t[0]) / min(week, span * (1 + 1e-9) / _WEEKS)).long()
    some = values[:, :: -(-values.shape[1] // _LOOKED_AT)]
    errors = torch.zeros(len(possible), int(number[-1]) + 1).double()
    for fold in range(_WEEK_FOLDS):
        out = number % _WEEK_FOLDS == fold
        for each, found in zip(errors, possible, strict=True):
            missed = some[out] - shrunk_cycle(t[~out], some[~out], found)(t[out])
            each.index_add_(0, number[out], missed.square().nansum(1))
    best = 0
    for other in range(1, len(possible)):
        gain = errors[best] - errors[other]
        best = other if float(gain.mean()) > 2 * float(gain.std()) / len(gain) ** 0.5 else best
    return shrunk_cycle(t, values, possible[best], channels)


def regular_frames(times: np.ndarray) -> tuple[float, np.ndarray] | None:
    """(step, numbers): the mean step of which all intervals of increasing times (T,) are about whole multiples, and the
    index of each time in steps, from 0; None for irregular times."""
    intervals = np.diff(times)
    if not len(intervals) or not (intervals > 0).all():
        return None
    typical = float(np.median(intervals))
    counts = np.round(intervals / typical)
    if (counts < 1).any() or (np.abs(intervals / typical - counts) > _OFF * np.maximum(counts, 1)).any():
        return None
    numbers = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    return float((times[-1] - times[0]) / numbers[-1]), numbers


def regular_step(t: Tensor, step: float | None = None) -> float | None:
    """The time step of which all intervals of t (S, T), NaN-padded, are whole multiples; None for irregular times."""
    intervals = torch.diff(t, dim=1)
    intervals = intervals[torch.isfinite(intervals)]
    if not len(intervals):
        return None
    step = float(intervals.median()) if step is None else step
    counts = torch.round(intervals / step)
    if step <= 0 or bool((counts < 1).any()) or bool((intervals / step - counts).abs().max() > _REGULAR):
        return None
    return float(intervals.sum() / counts.sum())


def leading_modes(rows: Tensor, count: int) -> Tensor:
    """Leading right singular vectors of rows (F, M) as orthonormal columns (M, r): r at most `count`.

    From the smaller Gram matrix (method of snapshots, Sirovich 1987), which resolves singular values down to 1e-7 of
    the largest, about the rounding of the data; smaller ones are left out. Where both dimensions are large, every k-th
    row is used.
    """
    if min(rows.shape) > _LARGEST_GRAM:
        rows = rows[:: -(-len(rows) // _LARGEST_GRAM)]
    return leading_components(rows, count)[0].T.contiguous()


def coefficients(u: Tensor, offset: Tensor, modes: Tensor, prior: GaussianPrior) -> tuple[Tensor, Tensor]:
    """Coefficients (..., r) of orthonormal modes (N C, r) in frames u (..., N, C), and which frames hold any value.

    Complete frames are projected; frames with gaps (NaN) are solved by regularised least squares with the Gaussian
    prior (gappy POD, Everson and Sirovich 1995).
    """
    frames = (u - offset).reshape(-1, len(modes))
    observed = torch.isfinite(frames)
    complete, some = observed.all(-1), observed.any(-1)
    solved = prior.mean.repeat(len(frames), 1)
    solved[complete] = frames[complete] @ modes
    gaps = some & ~complete
    if bool(gaps.any()):
        basis = modes.reshape(*offset.shape, -1)
        solved[gaps] = condition(torch.zeros_like(offset), basis, frames[gaps].reshape(-1, *offset.shape), prior)[0]
    return solved.reshape(*u.shape[:-2], -1), some.reshape(u.shape[:-2])


def march(t: Tensor, step: float, start: Tensor, observed: Tensor, seen: Tensor,
          advance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Coefficients (S, T, r) at all frames: of observed frames as given, and forecast between and after them.

    Args:
        t: (S, T), NaN-padded. step: unit of the intervals handed to `advance`.
        start: (r,) coefficients before any observation.
        observed: (S, n, r) coefficients of the first n frames, of which `seen` (S, n) bool are known.
        advance: from coefficients (S, r) and numbers of steps (S,) to the coefficients after them.
    """
    intervals = (torch.diff(t, dim=1) / step).nan_to_num(0.0)
    z, path = start.expand(len(t), -1), []
    for frame in range(t.shape[1]):
        if frame > 0:
            z = advance(z, intervals[:, frame - 1])
        if frame < observed.shape[1]:
            z = torch.where(seen[:, frame, None], observed[:, frame], z)
        path.append(z)
    return torch.stack(path, 1)


def step_pairs(t: Tensor, usable: Tensor, step: float) -> Tensor:
    """Which frames are followed by the next after one step, both usable, (S, T-1) bool."""
    one = (torch.diff(t, dim=1) / step - 1).abs() <= _REGULAR
    return one & usable[:, :-1] & usable[:, 1:]
