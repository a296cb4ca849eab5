"""Gaps in time of fields that laws are fitted to: windows of observed frames, values interpolated between frames."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

_FEWEST, _MOSTLY = 4, 0.8  # least number of frames of a window; share of the most intervals that windows can cover
_FEW_VALUES, _COMPLETE = 0.1, 0.9  # values of a missing frame, at most, and of a complete one, over the most of any
_LONGEST = 4  # missing frames in a window, or between two values that are interpolated, at most
_NEAREST, _LOOKED_AT, _PAYS = 4, 64, 0.5  # neighbours in space; frames that are looked at; largest ratio of errors


def without_gaps(t: np.ndarray, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trajectories (W,), times (W, L) and values (W, L, N, C) of windows of observed frames, of values u (S, T, N, C)
    at times (S, T) and points (S, N, d), NaN where unobserved.

    Values that are missing in some frames only, as under clouds, are interpolated in time where this predicts better
    than their neighbours in space; frames that remain incomplete are left out then.
    """
    number, frames = observed_windows(u, _FEW_VALUES)
    t, u = (one[number[:, None], frames] for one in (t, u))
    missing = np.isnan(u)
    if (missing & ~missing.all(1, keepdims=True)).any() and interpolation_pays(t, x[number], u):
        filled = interpolated_in_time(t, u)
        again, frames = observed_windows(filled, _COMPLETE)
        if frames.shape[1] >= _FEWEST:
            return number[again], t[again[:, None], frames], filled[again[:, None], frames]
    return number, t, u


def observed_windows(u: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Trajectories (W,) and frames (W, L) of windows of observed frames of values u (S, T, N, C), NaN where unobserved.

    Observed are frames with more than a share of the most values of each channel that a frame of the trajectory has.
    All frames are taken if all are observed, or too few for any window. Else the longest windows that cover nearly as
    many intervals between observed frames as any; one starts at the last frame of the one before, and has no long gap.
    """
    values = np.isfinite(u).sum(2)
    seen = (values > share * values.max(1, keepdims=True)).all(2)
    each = [(row, part) for row, own in enumerate(map(np.flatnonzero, seen))
            for part in np.split(own, np.flatnonzero(np.diff(own) > _LONGEST) + 1)]
    intervals = np.array([len(part) - 1 for _, part in each])
    if seen.all() or intervals.max() < _FEWEST - 1:
        return np.arange(len(u)), np.tile(np.arange(u.shape[1]), (len(u), 1))
    lengths = np.arange(_FEWEST - 1, intervals.max() + 1)
    covered = (intervals // lengths[:, None]).sum(1) * lengths
    length = lengths[covered >= _MOSTLY * covered.max()][-1]
    windows = [(row, part[k : k + length + 1]) for row, part in each for k in range(0, len(part) - length, length)]
    return np.array([row for row, _ in windows]), np.stack([frames for _, frames in windows])


def interpolated_in_time(t: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Values u (S, T, N, C) at times (S, T) with missing ones between observed frames by the polynomial through up to
    two observed values of the same place on each side; NaN where the gap is too long."""
    seen, count, result = np.isfinite(u), u.shape[1], u.copy()
    frame = np.arange(count, dtype=np.int32)[:, None, None]
    before = np.maximum.accumulate(np.where(seen, frame, -1), 1)
    after = np.minimum.accumulate(np.where(seen, frame, count)[:, ::-1], 1)[:, ::-1]
    gap = ~seen & (before >= 0) & (after < count) & (after - before - 1 <= _LONGEST)
    row, at, place, channel = np.nonzero(gap)
    left, right = before[gap], after[gap]
    nodes = np.stack([before[row, np.maximum(left - 1, 0), place, channel], left, right,
                      after[row, np.minimum(right + 1, count - 1), place, channel]], 1)
    nodes[left == 0, 0], nodes[right == count - 1, 3] = -1, count
    known = (nodes >= 0) & (nodes < count)
    nodes = nodes.clip(0, count - 1)
    times, values = t[row[:, None], nodes], u[row[:, None], nodes, place[:, None], channel[:, None]]
    weights = np.where(known, 1.0, 0.0)
    for i in range(4):
        for j in set(range(4)) - {i}:
            both, apart = known[:, i] & known[:, j], times[:, i] - times[:, j]
            weights[:, i] *= np.where(both, (t[row, at] - times[:, j]) / np.where(both, apart, 1.0), 1.0)
    result[gap] = np.where(known, weights * values, 0.0).sum(1)
    return result


def interpolation_pays(t: np.ndarray, x: np.ndarray, u: np.ndarray) -> bool:
    """Whether values that are hidden, in a few frames, where others lack them, are predicted better by interpolation in
    time than by the mean of their nearest neighbours in space."""
    some = np.linspace(0, len(u) - 1, min(max(_LOOKED_AT // u.shape[1], 1), len(u))).astype(int)
    t, x, u = t[some], x[some], u[some]
    hidden = np.isnan(np.roll(u, u.shape[1] // 2, 1)) & np.isfinite(u)
    left = np.where(hidden, np.nan, u)
    filled, squares = interpolated_in_time(t, left), np.zeros(2)
    frames = np.argwhere(hidden.any(2))
    for s, n, c in frames[:: max(len(frames) // _LOOKED_AT, 1)]:
        known, asked = np.isfinite(left[s, n, :, c]), hidden[s, n, :, c] & np.isfinite(filled[s, n, :, c])
        if asked.any() and known.sum() > _NEAREST:
            _, near = cKDTree(x[s, known]).query(x[s, asked], _NEAREST)
            true = u[s, n, asked, c]
            guesses = filled[s, n, asked, c], left[s, n, known, c][near].mean(1)
            squares += [float(((one - true) ** 2).sum()) for one in guesses]
    return bool(squares[0] < _PAYS * squares[1])
