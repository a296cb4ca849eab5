"""Plausibility checks of training data and observations: contradictions, spikes, lost digits, angles, fill values,
places in other units."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree

from inrflow.data.batch import Markers, TrajectoryBatch
from inrflow.data.source import TrajectorySource
from inrflow.data.station_units import units_told
from inrflow.errors import UserError

_LOOKED_AT = 8  # trajectories checked, at most
_VALUES = 2_000_000  # values checked, at most
_CONTRADICTORY = 0.5  # largest share of the variance between values of the same place and time
_TOGETHER = 2**18  # values whose neighbours are in memory at a time
_DIFFERENT = 0.05  # difference, in standard deviations, of values of one place and time that is reported
_SPIKE, _NEIGHBOURS = 10.0, 4  # ratio of a spike's distance from the median to its neighbours'; neighbours in space
_ALONE = 5.0  # the same ratio for values and departures that are left out
_FAR = 10.0  # least distance of spikes, in standard deviations of the inner values
_RANGE, _NEAR_LIMIT = 3.0, 0.2  # factor on the range of other values; share of values near that limit that is a tail
_SMOOTH = 3.0  # ratio of distances from the median and from neighbours above which a field is smooth
_PART = 0.2  # largest share of a channel's variance in values that are left out within its range
_BEYOND, _REST = 3.0, 0.995  # least departure of faults, as a multiple of this quantile of the other departures
_USUAL = 0.4  # share of departures at a place, or in a frame, from which on they are not faults
_JUMP, _BESIDE = 10.0, 0.25  # least departure of jumps in a series, in usual ones; largest share of it beside a jump
_NORMAL, _GROSS = 1.4826, 5.0  # deviation over median of normal misfits; deviations from which misfits are gross errors
_FEW, _BESIDE_EACH = 0.2, 0.5  # largest share of values that are gross errors; of the neighbours of one that are, too
_MOST, _FEWEST = 0.9, 24  # quantile that defines usual departures; least number of frames
_ROUNDING = 1e-3  # largest rounding error in single precision relative to a channel's standard deviation


def check_plausible(source: TrajectorySource, trajectories: Sequence[int] | np.ndarray, all_kept: bool = False) -> None:
    """Check of the first trajectories of a source with a fitted normalisation. Warns about spikes, digits lost to
    single precision, angles, fill values and several values at one place and time. If there are spikes, unless
    `all_kept`, the source leaves out faults and its normalisation is refitted. Raises UserError for contradictory or
    constant data, and if no trajectory has two frames."""
    _require_changes(source)
    _warn_of_lost_digits(source)
    _warn_of_kinds(source, int(trajectories[0]))
    apart = repeated = total = spikes = seen = 0
    within, worst = 0.0, (0.0, 0)
    for number in list(trajectories)[:_LOOKED_AT]:
        batch = source.batch([number])
        x, u = batch.x[0].numpy(), batch.u[0].double().numpy()
        frames = max(1, _VALUES // max(1, _LOOKED_AT * u[0].size))
        u = u[:frames]
        moving = len(x) > 1
        if not moving or batch.delay is None:  # rows with individual times share none
            for frame in range(len(u) if moving else 1):
                rows = u[frame : frame + 1] if moving else u
                some = _several_values(x[frame], rows)
                apart, repeated, within = apart + some[0], repeated + some[1], within + some[2]
        total += int(np.isfinite(u).sum())
        if not moving and not all_kept:
            seen += int(np.isfinite(u).sum())
            if _spikes(x[0], u, _SPIKE).any() and (found := faults(x[0], u)).any():
                spikes, worst = spikes + int(found.sum()), max(worst, (float(np.abs(u[found]).max()), int(number)))
    path = source.file.path
    if total and within / total > _CONTRADICTORY:
        raise UserError(f"{path}: {min(100, 100 * within / total):.2g} % of the variance lies between values of the "
                        "same place and time, where a field has one value; check the coordinates, or merge the values")
    if apart:
        warnings.warn(f"{path}: {apart} of {repeated} values that share their place and time with another differ from "
                      f"it by more than {_DIFFERENT:g} standard deviations; all are used", stacklevel=3)
    if spikes:
        warnings.warn(f"{path}: {100 * spikes / seen:.2g} % of the values ({spikes} of {seen} looked at) lie far "
                      f"from all of their neighbours in space and time, up to {worst[0]:.3g} standard deviations out "
                      f"in trajectory {worst[1]}; such values are left out; give data.faults=kept to keep them, and "
                      "NaN for those that you choose yourself", stacklevel=3)
        source.set_fault_detector(faults)
        source.fit_normalisation(trajectories)


def leave_out_faults(source: TrajectorySource, trajectories: Sequence[int] | np.ndarray) -> None:
    """Have a source leave out faults, with a warning of how many these trajectories have: a few frames of one system
    hold too few spikes for `check_plausible`, and a trained surrogate does without a few good values."""
    wrong = seen = 0
    for batch in (source.batch([number], normalised=False) for number in trajectories):
        if len(batch.x[0]) == 1:  # places that do not move
            u = batch.u[0].double().numpy()
            wrong, seen = wrong + int(faults(batch.x[0, 0].numpy(), u).sum()), seen + int(np.isfinite(u).sum())
    if wrong:
        warnings.warn(f"{source.file.path}: {wrong} of {seen} values lie far from all of their neighbours in space and "
                      "time; they are left out; train with data.faults=kept to keep such values", stacklevel=3)
        source.set_fault_detector(faults)


def _require_changes(source: TrajectorySource) -> None:
    path = source.file.path
    if not source.varies.any():
        values = ", ".join(f"{value:g}" for value in source.normalisation.mean.tolist())
        raise UserError(f"{path}: every observed value of a channel is the same ({values}) in single precision, which "
                        "values are kept in, so that there is nothing to learn; give data that vary, without a large "
                        "constant")
    if source.observed_frames < 2:
        raise UserError(f"{path}: no trajectory has values in two of its frames, from which dynamics are learned; give "
                        "more frames")


def _warn_of_lost_digits(source: TrajectorySource) -> None:
    mean, scale = (value.double().numpy() for value in (source.normalisation.mean, source.normalisation.scale))
    lost = np.finfo(np.float32).eps / np.sqrt(12) * np.abs(mean) / scale
    rows = zip(source.description.channels, source.varies, lost, mean, scale, strict=True)
    for channel, varies, share, m, s in rows:
        if varies and share > _ROUNDING:
            warnings.warn(f"{source.file.path}: channel {channel} varies by {s:.3g} around {m:.3g}; values are kept in "
                          f"single precision, whose rounding is {100 * share:.2g} % of that; subtract a constant "
                          "before it is stored", stacklevel=4)


def _warn_of_kinds(source: TrajectorySource, trajectory: int) -> None:
    """Warn about channels that appear to be angles, jumping by a full turn (degrees or radians) more often than by half
    a turn, about fill values, and, of a single trajectory, about places in other units."""
    batch = source.batch([trajectory], normalised=False)
    every, about = batch.u[0], source.description
    u = every[: max(1, _VALUES // max(1, every[0].numel()))].double().numpy()
    if len(source) == 1 and len(batch.x[0]) == 1:
        for clause in units_told(batch.x[0, 0].numpy(), u, about.channels, about.places):
            warnings.warn(f"{source.file.path}: {clause}; convert its values, or mark them as NaN", stacklevel=4)
        for index in () if about.placeless else _constant_in_time(u):
            warnings.warn(f"{source.file.path}: channel {about.channels[index]} has one value at each place at all "
                          "times; if it describes the places, as elevation does, list it in data.read.coordinates",
                          stacklevel=4)
    markers = Markers(about.channels).look(u).found
    for index, channel in enumerate(about.channels):
        if index in markers:
            words = " or ".join(f"{value:g}" for value in markers[index])
            warnings.warn(f"{source.file.path}: channel {channel} is {words} where its other values lie far from "
                          "that, and it is taken as a value; write NaN if it marks missing values", stacklevel=4)
        one = u[..., index]
        low, high = np.nanquantile(one, (0.0, 1.0)) if np.isfinite(one).any() else (0.0, 0.0)
        jumps = np.abs(np.diff(one, axis=0))
        for turn in (360.0, 2 * np.pi):
            around, across = (jumps > 0.9 * turn).sum(), (np.abs(jumps / turn - 0.5) < 0.05).sum()
            if 0.95 * turn < high - low < 1.001 * turn and around > across:
                warnings.warn(f"{source.file.path}: channel {channel} goes around from {low:.3g} to {high:.3g} "
                              "as an angle does, but is taken as a number, so that means of directions are wrong; give "
                              "its sine and cosine as channels", stacklevel=4)


def _constant_in_time(u: np.ndarray) -> np.ndarray:
    """Indices of channels of values u (T, N, C) that differ between places but never in time."""
    least, greatest, known = np.fmin.reduce(u), np.fmax.reduce(u), np.isfinite(u).sum((0, 1))
    fixed = ~(greatest > least).any(0) & (np.fmax.reduce(greatest) > np.fmin.reduce(greatest))
    return np.flatnonzero(fixed & (known > 2 * u.shape[1]))


def _several_values(x: np.ndarray, u: np.ndarray) -> tuple[int, int, float]:
    """Number of values u (T, N, C) at points x (N, d) that differ from another of the same place and time, number of
    values that share place and time, and sum of squared deviations from the mean of each place and time."""
    order = np.lexsort(x.T)
    new = np.append(True, (np.diff(x[order], axis=0) != 0).any(1))
    if new.all():
        return 0, 0, 0.0
    starts = np.flatnonzero(new)
    u = u[:, order]
    known = np.isfinite(u)
    count = np.add.reduceat(known, starts, axis=1)
    mean = np.add.reduceat(np.where(known, u, 0.0), starts, axis=1) / np.maximum(count, 1)
    group = np.cumsum(new) - 1
    off = np.where(known & (count[:, group] > 1), u - mean[:, group], 0.0)
    shared = known & (count[:, group] > 1)
    return int((np.abs(off) > _DIFFERENT / 2).sum()), int(shared.sum()), float((off**2).sum())


def without_outliers(batch: TrajectoryBatch, limit: torch.Tensor) -> TrajectoryBatch:
    """Batch of normalised values without outliers: values beyond `Normalisation.limit` (C,) that no neighbour in space
    or time supports, and that would distort the state inferred from their frame. Warns if there are any."""
    far = (batch.u.abs() > limit.to(batch.u)).cpu().numpy()
    x = batch.x.cpu().numpy()
    for s in np.flatnonzero(far.any((1, 2, 3))):
        points, u = x[s if len(x) > 1 else 0], batch.u[s].double().cpu().numpy()
        for rows in [slice(k, k + 1) for k in range(len(u))] if len(points) > 1 else [slice(None)]:
            if far[s, rows].any():
                far[s, rows] &= _spikes(points[rows][0], u[rows], _ALONE)
    if not far.any():
        return batch
    warnings.warn(f"{int(far.sum())} of {int(torch.isfinite(batch.u).sum())} observed values lie more than "
                  f"{float(limit.min()):.3g} standard deviations out, and far from all of their neighbours in space "
                  "and time; they are left out", stacklevel=4)
    return batch.with_values(batch.u.masked_fill(torch.as_tensor(far, device=batch.u.device), torch.nan))


def without_spikes(batch: TrajectoryBatch, least: torch.Tensor | None) -> TrajectoryBatch:
    """Batch of series at fixed places without the values that `hampel_filter` takes for faults."""
    places = batch.x[:, 0].expand(len(batch.u), -1, -1)
    return batch.with_values(torch.stack([hampel_filter(u, least, True, x)
                                          for u, x in zip(batch.u, places, strict=True)]))


def gross_errors(missed: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mask of the misfits (S, K, N, C) of values to a field that are far beyond the median misfit of their trajectory
    and channel, and beyond the noise's standard deviation (C,)."""
    scale = torch.maximum(_NORMAL * missed.abs().flatten(1, 2).nanmedian(1).values, noise.to(missed))
    return missed.abs() > _GROSS * scale[:, None, None]  # false for NaN


def few_and_apart(x: torch.Tensor, wrong: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Whether the values `wrong` (S, K, N, C), of those `seen`, at points x (S or 1, K or 1, N, d), are few in each
    trajectory (S,) and mostly not side by side: where they are, the field is wrong, not the values."""
    few = (wrong.flatten(2).sum((1, 2)) <= _FEW * seen.flatten(2).sum((1, 2))).cpu()
    for s in few.nonzero()[:, 0].tolist():
        points = x[s if len(x) > 1 else 0].cpu().numpy()
        near = [torch.as_tensor(_nearest(one, len(one))) for one in points]
        beside = torch.stack([mask[near[min(k, len(near) - 1)]].double().mean(1) for k, mask in enumerate(wrong[s])])
        few[s] = float(beside[wrong[s]].mean()) <= _BESIDE_EACH
    return few


def hampel_filter(values: torch.Tensor, least: torch.Tensor | None = None, missing: bool = False,
                  x: torch.Tensor | None = None) -> torch.Tensor:
    """Hampel filter of series (T, N, C) for instrument faults in single frames (Hampel 1974).

    Values that depart from the median of five frames by far more than most, unlike their neighbours in time and at the
    nearest places x (N, d), if given, become that median or, with `missing`, NaN, with a warning. Not for channels with
    a `least` (C,) of 0 (rain) and short series."""
    if len(values) < _FEWEST or values.requires_grad:
        return values
    result = values.clone(memory_format=torch.contiguous_format)  # contiguous: its parts are views
    room = max(1, _TOGETHER * 16 // len(values))
    some = values[:, :: -(-values[0].numel() // room)]
    floors = _usual(some, _median(some, range(-2, 3)), 2).nanmedian(0).values.repeat(values.shape[1])
    for part, floor in zip(result.flatten(1).split(room, 1), floors.split(room), strict=True):
        middle, before, after = (_median(part, shifts) for shifts in (range(-2, 3), range(1, 6), range(-5, 0)))
        usual = torch.maximum(_usual(part, middle, 2), floor).repeat(len(part), 1)  # of the place, or of most places
        for ends, other in ((slice(2), after), (slice(-2, None), before)):  # ends have one side
            middle[ends], usual[ends] = other[ends], torch.maximum(_usual(part, other, 5), floor)
        away = (part - middle).abs()
        beside = torch.maximum(away.roll(1, 0).nan_to_num(), away.roll(-1, 0).nan_to_num())
        one, two = (part.roll(shift, 0) + part.roll(-shift, 0) for shift in (1, 2))
        missed = (part - (4 * one - two) / 6)[2:-2].abs()  # by the cubic through four neighbours, also at maxima
        jumps = (away > _JUMP * usual) & (usual > 0) & (beside < _BESIDE * away)
        jumps[2:-2] &= ~(missed < _GROSS * _NORMAL * missed.nanmedian(0).values)
        part.copy_(torch.where(jumps, torch.nan if missing else middle, part))
    result = result if least is None else torch.where(least.flatten() == 0, values, result)
    if x is not None and len(x) > 1 and len(places := (torch.isfinite(values) & (result != values)).nonzero()):
        fronts = _beside_others(values, x, places) & ~_of_one_frame(values, places)
        passing = tuple(places[fronts].T)
        result[passing] = values[passing]
    if count := int((torch.isfinite(values) & (result != values)).sum()):
        instead = "they are left out" if missing else "they are replaced by the median of five frames"
        warnings.warn(f"{count} of {int(torch.isfinite(values).sum())} values of the series are spikes of single "
                      f"frames; {instead}; train with data.faults=kept to keep them, or mark those that you "
                      "choose as NaN", stacklevel=2)
    return result


def _beside_others(values: torch.Tensor, x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Whether at half of the places x (N, d) nearest to single values (K, 3), given by their indices in values
    (T, N, C), those of the same frame depart from the median of five frames likewise: (K,)."""
    t, n, c = which.T[..., None]  # (K, 1) each
    places = torch.cat([n, torch.as_tensor(_nearest(x.cpu().numpy(), len(x)), device=n.device)[n[:, 0]]], 1)
    around = (t[..., None] + torch.arange(-2, 3, device=t.device)).clamp(0, len(values) - 1)
    away = values[t, places, c] - values[around, places[..., None], c[..., None]].nanmedian(-1).values
    return (away[:, 1:] * away[:, :1].sign() > _BESIDE * away[:, :1].abs()).double().mean(1) >= _BESIDE_EACH


def _of_one_frame(values: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Whether single values (K, 3), by their indices in values (T, N, C), are far beyond the range of all others, at
    few places of their frame, and at none in the frames beside it, where a front would be: (K,)."""
    t, n, c = which.T
    suspected = torch.zeros_like(values, dtype=torch.bool)
    suspected[t, n, c] = True
    rest = values.masked_fill(suspected, torch.nan)
    middle = rest.flatten(0, 1).nanmedian(0).values
    reach = (rest - middle).abs().nan_to_num().flatten(0, 1).amax(0)
    count = torch.nn.functional.pad(suspected.sum(1), (0, 0, 1, 1))  # (1 + T + 1, C)
    few = (count[t + 1, c] <= _USUAL * values.shape[1]) & (count[t, c] + count[t + 2, c] == 0)
    return few & ((values[t, n, c] - middle[c]).abs() > _RANGE * reach[c])


def _median(values: torch.Tensor, shifts: range) -> torch.Tensor:
    """Moving medians (T, ...) of values (T, ...) over the frames at `shifts` before each."""
    return torch.stack([values.roll(shift, 0) for shift in shifts]).nanmedian(0).values


def _usual(values: torch.Tensor, middle: torch.Tensor, ends: int) -> torch.Tensor:
    """Quantile `_MOST` over time of departures of values (T, ...) from `middle`, without `ends` frames at both ends."""
    return (values - middle).abs()[ends:-ends].nanquantile(_MOST, 0)


def faults(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Mask of faulty values u (T, N, C) at points x (N, d): their departure from the median of their neighbours in
    space and time is far above all others and those of their neighbours, and not frequent at the place or frame.
    """
    near = _nearest(x, len(x))
    found, off = _departures(u, near)
    if found.any():
        found |= _departures(np.where(found, np.nan, u), near)[0]  # adjacent faults
        out = _out(u)
        smooth = _inner(np.where(found, 0.0, out)) > _SMOOTH * _inner(np.where(found, 0.0, off))
        found &= smooth | _apart(out, found)
    return found


def _nearest(x: np.ndarray, places: int) -> np.ndarray:
    """Indices (N, k) of the points nearest to points (N, d); places: number of distinct points."""
    return cKDTree(x).query(x, min(_NEIGHBOURS + 1, places))[1].reshape(len(x), -1)[:, 1:]


def _beside(values: np.ndarray, near: np.ndarray, at: slice = slice(None)) -> Iterator[np.ndarray]:
    """Neighbours (T', N, C) of the values at some frames of values (T, N, C): at each of the nearest points (N, k),
    then in the frame before and after; NaN if there is none."""
    for column in near.T:
        yield values[at][:, column]
    frames = np.arange(len(values))[at]
    for others in (frames - 1, frames + 1):
        inside = (others >= 0) & (others < len(values))
        yield np.where(inside[:, None, None], values[np.clip(others, 0, len(values) - 1)], np.nan)


def _departures(u: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask of the values u (T, N, C) whose departure from the median of their neighbours (N, k) is far above others,
    and all departures."""
    length = max(_TOGETHER // u[0].size, 1)
    blocks = [slice(k, k + length) for k in range(0, len(u), length)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty medians
        off = np.nan_to_num(np.abs(u - np.concatenate([np.nanmedian(list(_beside(u, near, at)), axis=0)
                                                       for at in blocks])))
    found = off > _FAR * np.maximum(_inner(off), 1e-300)
    if found.any():
        others = np.sort(np.nan_to_num(np.concatenate(
            [[one[found[at]] for one in _beside(off, near, at)] for at in blocks], axis=1)), axis=0)
        found[found] = off[found] > _ALONE * others[len(others) - max(1, len(others) // 2)]  # some may be faulty
        rest = np.nanquantile(np.where(found | np.isnan(u), np.nan, off), _REST, axis=(0, 1))
        found &= off > _BEYOND * rest
        for axis in (0, 1):
            found &= found.sum(axis, keepdims=True) <= max(1, _USUAL * found.shape[axis])
    return found, off


def _apart(out: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Subset of suspected faults `found` (T, N, C), at distances `out` from the channel's median, that are not events
    (such as showers) of a field that is otherwise at rest or noise: values far beyond the range of all others, with few
    near that limit; and the others found, if most are such or their share of the variance is small."""
    kept = np.zeros_like(found)
    for channel in np.flatnonzero(found.any((0, 1))):
        sizes, some = out[..., channel], found[..., channel]
        limit = _RANGE * sizes[~some].max(initial=0.0) or np.inf  # no limit if all else is at rest
        while len(far := sizes[some & (sizes > limit)]) and np.mean(far < _RANGE * limit) > _NEAR_LIMIT:
            limit *= _RANGE
        gross = some & (sizes > limit)
        inside = some & ~gross
        small = (sizes[inside] ** 2).sum() <= _PART * (sizes[~gross] ** 2).sum()
        kept[..., channel] = some if small or gross.sum() > _RANGE * inside.sum() else gross
    return kept


def _out(u: np.ndarray) -> np.ndarray:
    """Distances of values (T, N, C) from the median of their channel, 0 if missing."""
    return np.nan_to_num(np.abs(u - np.nanmedian(u, axis=(0, 1))))


def _inner(out: np.ndarray) -> np.ndarray:
    """Root mean squares (C,) of values (T, N, C) up to their 95 % quantile."""
    return np.array([np.sqrt(np.mean(one[one <= np.quantile(one, 0.95)] ** 2)) for one in np.moveaxis(out, -1, 0)])


def _spikes(x: np.ndarray, u: np.ndarray, alone: float) -> np.ndarray:
    """Mask of spikes among values u (T, N, C) at points x (N, d): `alone` times as far from the median as any of their
    neighbours."""
    out = _out(u)
    found = out > _FAR * np.maximum(_inner(out), 1e-300)
    if not found.any():
        return found
    around = np.zeros_like(out)
    for others in _beside(out, _nearest(x, len(np.unique(x, axis=0)))):
        np.fmax(around, others, out=around)
    return found & (out > alone * around)
