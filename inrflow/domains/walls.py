"""Estimation of the walls of a box beyond its outermost points, and of the boundary conditions, from changes in time.

Deviations from the time mean vanish at Dirichlet walls and have zero slope at walls without flux, whatever the steady
profile. With walls at the right place, cosines or sines along the axis have the least error at left-out points.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import minimize_scalar

from inrflow.domains.base import HELD, LEAKY, NATURAL
from inrflow.domains.box import PERIODIC, Box, between, ends_of, grid_of

_PLACES = (0.0, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 3 / 8, 1 / 2, 5 / 8, 2 / 3, 3 / 4, 5 / 6, 7 / 8, 1.0)  # spacings between
# the outermost point and a wall: grids subsampled by up to 4
_ENDS = np.array(list(itertools.product(_PLACES, repeat=2)))  # (W, 2), before the first and beyond the last point
_WHOLE = np.isclose(_ENDS.sum(1), 1)  # cell centres, subsampled
_PLAIN = np.isclose(_ENDS[:, 0], _ENDS[:, 1]) & np.isin(_ENDS[:, 0], (0.0, 0.5, 1.0))
_UNLIKE = np.array([0.0, 0.0, 0.5, 0.5])  # gain in mean log error required of different conditions at the two walls
_LEADING, _VANISHED = 3, 0.1  # patterns used; share of the squares at the outermost point below which a wall has none
_EQUAL, _ROUNDING = 1e-3, 1e-16  # relative difference of equal spacings; share of squares that counts as zero
_SHARES, _PARTS = (0.7, 0.5, 0.35, 0.25, 0.15, 0.1), 3  # functions per point; cross-validation folds
_FEWEST, _UNSURE = 6, 0.2  # least points along an axis; relative uncertainty of the noise estimate
PAIRS = (NATURAL, HELD, f"{HELD}-{NATURAL}", f"{NATURAL}-{HELD}")  # conditions at both walls
_FAR = np.stack([((_ENDS == 1) & [end == NATURAL for end in ends_of(pair)]).any(1) for pair in PAIRS], 1)  # walls one
# spacing away, where zero-slope functions can fit slopes; many grids omit points with Dirichlet values
_WORTH = np.where(_FAR, 2.0, np.where(_PLAIN, 0.0, np.where(_WHOLE, 0.2, 2.0))[:, None])  # (W, P): gain in mean log
# error required of unusual places
_NEAREST, _CLEAR = 5, 0.5  # points used next to a leaky wall; ratio of errors that counts as a clear gain
_TOGETHER, _ALIKE = 0.95, 0.1  # squared correlation of values and slopes; relative difference of their ratios
_REACH, _TURNS, _TRIALS = 6.0, 3, 12  # search range in gaps beyond scattered points; sweeps; trials per wall
_FARTHEST, _TELLING = 5.5, 0.1  # gaps beyond which walls are implausible; ratio of errors required
_WAVES, _A_WAVE, _HIDDEN, _DENSE = 128, 3, 5, 4096  # harmonics at most; points per harmonic; one point in so many is
# left out; with more points the outermost are taken to lie at the walls
_GIVEN = 0.25  # gain in mean log error required over the walls of the given box


def changes(u: np.ndarray) -> np.ndarray:
    """Fields (S, T, N, C) minus their means over time, except channels that are constant in time."""
    left = u - np.nanmean(u, 1, keepdims=True)
    still = np.nanvar(left, (0, 1, 2)) < 1e-12 * np.nanvar(u, (0, 1, 2))
    return np.where(still, u, left)


def walled(box: Box, x: np.ndarray, u: np.ndarray, known: bool = False) -> tuple[Box, list[list[str]]] | None:
    """Box with walls, and conditions (natural, held or leaky) of each channel at each axis, estimated from the changes
    of u (S, T, N, C) at grid points x (N, d).

    Walls are searched up to a spacing beyond the grid; they stay if `known`, or if the data are not decisive. The first
    frame need not obey the conditions and is not used. None if points are no regular grid or values are missing.
    """
    grid = grid_of(x) if len(x) > 1 else None
    if grid is None or not np.isfinite(u).all():
        return None
    levels, order = grid
    later = changes(u[:, 1:])[:, :, order]
    half = u[:, u.shape[1] // 2 :, order]
    frames, *settled = (np.moveaxis(one, 2, -1).reshape(-1, u.shape[3], *map(len, levels))
                        for one in (later, half, changes(half)))
    lower, upper = box.lower.copy(), box.upper.copy()
    pairs = [[NATURAL] * len(levels) for _ in range(u.shape[3])]
    for j, y in enumerate(levels):
        if box.axes[j] == PERIODIC:
            continue
        gap = (y[-1] - y[0]) / max(len(y) - 1, 1)
        if len(y) < _FEWEST or np.ptp(np.diff(y)) > _EQUAL * gap:
            return None
        lines = np.moveaxis(np.moveaxis(frames, 2 + j, -1), 1, 0).reshape(u.shape[3], -1, len(y))
        free = max(lines.shape[1] * (later.shape[1] - 1) // later.shape[1], 1)
        patterns, noise = zip(*(_patterns(own, free) for own in lines), strict=True)
        errors = _missed(y, np.stack(patterns), np.array(noise))
        for end in (0, -1):  # channels that never change there are held by a wall
            still = (lines[:, :, end] ** 2).sum(1) < _ROUNDING * (lines[:, :, 1 if end == 0 else -2] ** 2).sum(1)
            held = np.array([ends_of(pair)[end] == HELD for pair in PAIRS])
            errors += np.where(still & ((_ENDS[:, end] > 0)[:, None, None] | ~held[:, None]), np.inf, 0.0)
        for end in () if known else (0, 1):
            _restrict_to_held_wall(errors, end,
                                   np.stack([_vanishing(own if end == 0 else own[:, ::-1]) for own in patterns], 1))
        off = np.abs(_ENDS - np.array([y[0] - box.lower[j], box.upper[j] - y[-1]]) / gap).max(1)
        best = int(off.argmin() if known else (
            (errors + _WORTH[:, :, None]).min(1).mean(-1) - _GIVEN * (off < _EQUAL)).argmin())
        if not known:
            lower[j], upper[j] = y[0] - _ENDS[best, 0] * gap, y[-1] + _ENDS[best, 1] * gap
        for own, pair in zip(pairs, (errors[best] + (_WORTH[best] + _UNLIKE)[:, None]).argmin(0), strict=True):
            own[j] = PAIRS[pair]
        for own, *late in zip(pairs, *(np.moveaxis(np.moveaxis(one, 2 + j, -1), 1, 0).reshape(
                u.shape[3], -1, len(y)) for one in settled), strict=True):
            own[j] = _leaky_conditions(Box(lower, upper, box.axes), j, y, late[0], _patterns(late[1], free)[0], own[j])
    return Box(lower, upper, box.axes), pairs


def placed(box: Box, x: np.ndarray, u: np.ndarray, kind: str) -> Box | None:
    """Box with walls moved beyond scattered points x (N, d) by coordinate descent on the held-out error of harmonics.

    Harmonics of boundary conditions `kind` are fitted to changes of fields u (S, T, N, C) at some points and compared
    at the others. None if the gain is small, on lines, on grids, and if a channel has complete series at few points.
    """
    frames = changes(u[:, :: max(u.shape[1] // 3, 1)]).reshape(-1, *u.shape[2:])
    known = np.isfinite(frames).all(0)  # (N, C)
    fewest = int(known.sum(0).min())
    if x.shape[1] == 1 or grid_of(x) is not None or not _A_WAVE * _HIDDEN <= fewest <= _DENSE:
        return None
    hidden = np.random.default_rng(0).permutation(len(x)) < len(x) // _HIDDEN

    def error(one: Box) -> float:
        harmonics = one.harmonics(min(_WAVES, fewest // _A_WAVE) * len(set(kind.split(", "))), kind)
        table, left = harmonics.values(x), 0.0
        for c, seen in enumerate(known.T):
            own, values, out = table[seen][:, harmonics.own(c)], frames[:, seen, c].T, hidden[seen]
            codes = np.linalg.lstsq(own[~out], values[~out], rcond=None)[0]
            left += float(((own[out] @ codes - values[out]) ** 2).mean() / ((values**2).mean() + 1e-300))
        return left + 1e-300

    best, before = box, error(box)
    least = before
    for _ in range(_TURNS):
        start = least
        for j, end in itertools.product(range(x.shape[1]), (0, 1)):
            last = float((x[:, j].min(), x[:, j].max())[end])
            if box.axes[j] == PERIODIC or (x[:, j] == last).sum() > 1:  # mesh nodes lie on this wall
                continue

            def moved(share: float, j: int = j, end: int = end, last: float = last, best: Box = best) -> Box:
                limits = [best.lower.copy(), best.upper.copy()]
                limits[end][j] = last + share * (-1, 1)[end] * _REACH * float(np.ptp(x[:, j])) / len(x)
                return Box(limits[0], limits[1], box.axes)

            found = minimize_scalar(lambda share, at=moved: np.log(error(at(share))),  # type: ignore[misc]
                                    bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-3, "maxiter": _TRIALS})
            if np.exp(found.fun) < least:
                best, least = moved(float(found.x)), float(np.exp(found.fun))
        if not least < _CLEAR * start:
            break
    gaps = np.ptp(x, axis=0) / len(x)
    far = np.maximum(x.min(0) - best.lower, best.upper - x.max(0)) > _FARTHEST * gaps  # large boxes fit any data
    return best if least < _TELLING * before and not far.any() else None


def _leaky_conditions(box: Box, j: int, y: np.ndarray, lines: np.ndarray, moving: np.ndarray, pair: str) -> str:
    """Conditions at the walls of axis j, given lines (M, n) and patterns (m, n) of their changes at points y (n,).

    Natural walls become leaky, du/dn = -h u, if slopes there are proportional to values (both by polynomial
    extrapolation) and the error at left-out points falls clearly; otherwise `pair` is returned."""
    length, ends = float(box.lengths[j]), list(ends_of(pair))
    for end in (end for end, name in enumerate(ends) if name == NATURAL):
        near = slice(None, _NEAREST) if end == 0 else slice(None, -_NEAREST - 1, -1)
        table = np.vander(np.abs(y[near] - (box.lower, box.upper)[end][j]) / length, increasing=True)
        parts = [np.linalg.solve(table, part[:, near].T)[:2] for part in (moving, lines)]
        (rate, own), each = [float(a @ b) / float(a @ a + 1e-300) for a, b in parts], parts[0]
        if (each[0] @ each[1]) ** 2 > _TOGETHER * (each**2).sum(1).prod() and abs(own - rate) < _ALIKE * rate:
            ends[end] = LEAKY + np.format_float_positional(own / length, 6, fractional=False)  # "-" separates walls

    def missed(*ends: str) -> float:
        waves, sines, leaks, _ = between(length, np.arange(len(y)), *ends)
        angles = np.outer(y - box.lower[j], waves) - np.where(np.isnan(leaks), np.pi / 2 * sines, leaks)
        return float(_missed_by(np.cos(angles)[None], moving[None])[0].min())

    leaks = any(end.startswith(LEAKY) for end in ends) and missed(*ends) < _CLEAR * missed(*ends_of(pair))
    return "-".join(dict.fromkeys(ends)) if leaks else pair


def _patterns(lines: np.ndarray, free: int) -> tuple[np.ndarray, float]:
    """Principal components (n, n) of lines (M, n), scaled by singular values, so that they have the squared errors of
    all lines; zero below the threshold of Gavish and Donoho (2014) for unknown noise, with `free` independent lines.
    Also the total noise variance per point that the kept components still contain."""
    squares, vectors = np.linalg.eigh(lines.T @ lines)
    some = squares[-free:]
    ratio = len(some) / max(free, lines.shape[1])
    least = (0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43) ** 2 * max(np.median(some), 0.0)
    kept = squares > least
    noise = max(squares[~kept].sum(), 0.0) / free / max(len(some) - kept.sum(), 1)
    return np.sqrt(np.where(kept, squares, 0.0))[:, None] * vectors.T, float(noise * kept.sum())


def _restrict_to_held_wall(errors: np.ndarray, end: int, left: np.ndarray) -> None:
    """In-place restriction of errors (W, P, C) to a held wall at an end (0, 1) for channels that vanish there, judged
    by their relative squares left (P, C) at `_PLACES`; such channels alone then determine the wall's place."""
    own = left.min(0) < _VANISHED
    places = (left[:, own] < 2 * _VANISHED).all(1)
    if not (own.any() and places.any()):
        return
    level = np.array([ends_of(pair)[-end] != HELD for pair in PAIRS])
    errors[:, level] += np.where(own, np.inf, 0.0)
    errors[~np.isin(_ENDS[:, end], np.array(_PLACES)[places])] = np.inf
    each = errors.reshape(len(_PLACES), len(_PLACES), *errors.shape[1:])
    each[..., ~own] = each[..., ~own].min(end, keepdims=True)


def _vanishing(patterns: np.ndarray) -> np.ndarray:
    """Mean squares (P,) of the leading patterns (the last of (n, n)) at `_PLACES` before the first point, by cubic
    extrapolation of the first four points, relative to those at the first point."""
    near = patterns[-_LEADING:, :4]
    near = near / (np.linalg.norm(near, axis=1, keepdims=True) + 1e-300)
    beyond = near @ np.stack([np.linalg.solve(np.vander(range(4), increasing=True).T, (-place) ** np.arange(4))
                              for place in _PLACES], 1)
    return np.asarray((beyond**2).sum(0) / max((near[:, 0] ** 2).sum(), 1e-300))


def _missed_by(tables: np.ndarray, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross-validated squared errors (k, W, C) of least-squares fits of lines (C, M, n) by the first functions of
    tables (W, n, n), for k numbers of functions, and the contribution (k,) of unit noise to each line's."""
    n = tables.shape[1]
    total, made = np.zeros((len(_SHARES), len(tables), len(lines))), np.zeros(len(_SHARES))
    for part in range(_PARTS):
        hidden = np.arange(n) % _PARTS == part
        hidden[[0, -1]] = False
        counts = [max(int(share * (~hidden).sum()), 2) for share in _SHARES]
        q, r = np.linalg.qr(tables[:, ~hidden, : counts[0]])
        within = np.swapaxes(q, 1, 2) @ lines[..., ~hidden].reshape(-1, (~hidden).sum()).T
        made += hidden.sum() * (1 + np.array(counts) / (~hidden).sum())
        for sums, k in zip(total, counts, strict=True):
            left = tables[:, hidden, :k] @ np.linalg.solve(r[:, :k, :k], within[:, :k])
            left -= lines[..., hidden].reshape(-1, hidden.sum()).T
            sums += (left**2).sum(1).reshape(len(tables), len(lines), -1).sum(2)
    return total, made


def _missed(y: np.ndarray, lines: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Logarithms (W, P, C) of relative cross-validated errors of lines (C, M, n) at points y (n,), with walls at
    `_ENDS` and each pair of conditions, the best number of functions, and less the contribution of noise (C,)."""
    n, reach = len(y), 1 + _ENDS.sum(1) / (len(y) - 1)
    total, made = np.zeros((len(_SHARES), len(_ENDS), len(PAIRS), len(lines))), np.zeros((len(_SHARES), len(lines)))
    s = ((y - y[0]) / (y[-1] - y[0]) + _ENDS[:, :1] / (n - 1)) / reach[:, None]  # from 0 to 1 between the walls
    for row, pair in enumerate(PAIRS):
        first, last = (end == HELD for end in ends_of(pair))
        angles = np.pi * s[:, :, None] * (np.arange(n) + (first + last) / 2)
        table = np.sin(angles) if first else np.cos(angles)
        total[:, :, row], once = _missed_by(table, lines)
        made += np.outer(once, noise) / len(PAIRS)
    beyond = np.maximum(total - made[:, None, None], _UNSURE * made[:, None, None]).min(0)
    return np.log(beyond / ((lines**2).sum((1, 2)) + 1e-300) + _ROUNDING)
