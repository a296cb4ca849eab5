"""Boundary conditions of harmonics by cross-validation: natural, held or leaky, for each channel and boundary part."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

from inrflow.domains import HELD, LEAKY, NATURAL, STEADY, Box, Region
from inrflow.domains.box import PERIODIC, ends_of
from inrflow.domains.sides import sides
from inrflow.domains.walls import PAIRS, changes
from inrflow.encoding.harmonic_codes import fit_codes, held_out, held_out_errors
from inrflow.numerics.effort import effort

_MODES, _CLEARLY = 64, 0.8  # most harmonics in comparisons; ratio of errors of a clearly better condition
_FEW, _SEVERAL, _MANY, _ENOUGH = 3, 8, 24, 50_000  # trajectories in comparisons: at least; at most, if each has its
# own points; at most, if they share points; points of all of them
_SURELY, _ROUNDS = 3.0, 2  # standard errors of a difference; rounds over all axes
_LEAKING, _LEAKING_MODES, _SEARCHED, _UNSURE, _PAYS = 3, 132, 6, 1.3, 0.3  # for leaks: trajectories, modes, steps,
# factor on rates, error ratio
_SOLVE = 70  # products of a factorisation over (nodes times squared number of modes)
_CARRIED = 1e-3  # share of the mean square from which on values at walls are not zero
_DIVERGENCE = 0.05  # of a component in a flow: share of its squared slopes not explained by those of the others


def _joined(names: list[str], by: str = ", ") -> str:
    """Conditions of channels, or of axes, as one; a single one if all are alike."""
    return by.join(names) if len(set(names)) > 1 else names[0]


def _better(errors: np.ndarray, others: np.ndarray) -> bool:
    """Whether errors (S,) of trajectories are clearly less than others: by their ratio, or, where noise dominates both,
    by some standard errors of the mean logarithm of the ratio."""
    gain = np.log((others + 1e-300) / (errors + 1e-300))
    sure = len(gain) >= _SEVERAL and gain.mean() > _SURELY * gain.std(ddof=1) / len(gain) ** 0.5
    return bool(errors.mean() < _CLEARLY * others.mean() or (sure and errors.mean() < others.mean()))


def _some(x: np.ndarray) -> slice:
    """Subset of trajectories with points x (S, N, d) that is compared; fewer where each has points, hence a
    factorisation, of its own."""
    most = _MANY if np.equal(x, x[:1]).all() else _SEVERAL
    return slice(None, None, max(len(x) // max(min(most, _ENOUGH // x.shape[1]), _FEW), 1))


def leaky(region: Region, kind: str, size: int, x: np.ndarray, u: np.ndarray, seed: int, late: Callable[[], bool]
          ) -> tuple[Region, str] | None:
    """The region divided in `sides` and its boundary condition, du/dn = -h u with a rate h from 0 to infinity on each,
    where harmonics with these fit held-out points clearly better than those of `kind` (natural or held); rates of
    all channels, or of each if clearly better.

    Args: fields u (S, T, N, C) at points x (S, N, d), of which the later half is used, as initial values need not
    satisfy a boundary condition; late: whether the search should end."""
    some, channels = slice(None, None, max(len(u) // _LEAKING, 1)), u.shape[-1]
    x, seen = x[some], u[some, u.shape[1] // 2 :]

    def named(rates: np.ndarray) -> str:
        return _joined([LEAKY + "/".join(f"{rate:.6g}" for rate in own) for own in rates])

    def missed(place: Region, name: str) -> float:
        effort.add(products=_SOLVE * len(region.nodes) * min(size, _LEAKING_MODES) ** 2)
        harmonics = place.harmonics(min(size, _LEAKING_MODES) * len(set(name.split(", "))), name)
        return held_out_errors(harmonics, x, seen, seed)

    place, rates = sides(region, x, seen, alike=True)
    least, before = missed(place, named(rates)), missed(region, kind)
    if channels > 1:
        other, own = sides(region, x, seen)
        if named(own) != named(rates) and (error := missed(other, named(own))) < _PAYS * min(least, before):
            place, rates, least = other, own, error
    if least > _PAYS * before:
        return None
    for rate in [rate for rate in np.unique(rates) if 0 < rate < np.inf and not late()]:
        def left(log: float, rate: float = rate) -> float:
            return missed(place, named(np.where(rates == rate, math.exp(log), rates)))  # noqa: B023

        found = minimize_scalar(left, method="bounded", bounds=(math.log(rate / _UNSURE), math.log(rate * _UNSURE)),
                                options={"xatol": 1e-3, "maxiter": _SEARCHED})
        if found.fun < least:
            rates, least = np.where(rates == rate, math.exp(found.x), rates), found.fun
    return place, named(rates)


def conditions(box: Box, x: np.ndarray, u: np.ndarray, seed: int, known: list[list[str]] | None = None) -> str:
    """The boundary condition of each channel at each wall of a box that fits held-out points best, axis by axis.

    From changes in time of fields u (S, T, N, C) at points x (S, N, d), unless `known` for each channel and axis; then,
    for channels that are held, whether at zero or at constant values."""
    found, every = [], u[:, :: max(u.shape[1] // 3, 1)]
    size = min(_MODES, every.shape[2] // 3)
    x, every = x[some := _some(x)], every[some]
    frames = changes(every)
    for c in range(frames.shape[3]):
        best, least = known[c] if known else [NATURAL] * box.dimensions, np.full(len(frames), np.inf)
        axes, before = [j for j, axis in enumerate(box.axes) if axis != PERIODIC and not known], None
        for _ in range(_ROUNDS if len(axes) > 1 else 1):
            if best == before:
                break
            before = best
            for trial in ([*best[:j], pair, *best[j + 1 :]] for j in axes for pair in PAIRS):
                harmonics = box.harmonics(size, "/".join(trial))
                errors = held_out(harmonics, x, frames[..., c : c + 1], seed)
                if np.isinf(least).all() or _better(errors, least):
                    best, least = trial, errors
        carried = [pair.replace(HELD, STEADY) for pair in best]
        if carried != best:
            harmonics = box.harmonics(size, "/".join(carried))
            power = fit_codes(harmonics, x, every[..., c : c + 1]).variance[0]
            best = carried if power[-harmonics.steady :].sum() > _CARRIED * power.sum() else best
        found.append(best)
    for first in range(len(found) - box.dimensions + 1 if box.dimensions > 1 else 0):
        own = slice(first, first + box.dimensions)
        found[own] = _without_slip(box, x, frames[..., own], size, found[own])
    return _joined([_joined(own, "/") for own in found])


def _without_slip(box: Box, x: np.ndarray, u: np.ndarray, size: int, found: list[list[str]]) -> list[list[str]]:
    """The conditions `found` of channels u (S, T, N, d), with natural ones for components normal to walls that hold the
    tangential components, where u is a flow without divergence: without slip its normal component has no slope at a
    wall."""
    trial = [[NATURAL if i == j and axis != PERIODIC else pair for j, (pair, axis) in enumerate(zip(
        own, box.axes, strict=True))] for i, own in enumerate(found)]
    others = (found[i][j] for i in range(len(found)) for j in range(len(found)) if i != j and box.axes[j] != PERIODIC)
    if trial == found or any(end not in (HELD, STEADY) for pair in others for end in ends_of(pair)):
        return found
    slopes = []
    for i, own in enumerate(trial):
        harmonics = box.harmonics(size, "/".join(own))
        codes = np.linalg.lstsq(harmonics.values(x[0]), np.nan_to_num(u[0, ..., i]).T, rcond=None)[0]
        slopes.append((harmonics.gradients(x[0])[..., i] @ codes).ravel())
    across, *along = slopes  # units are unknown
    left = across - np.stack(along, 1) @ np.linalg.lstsq(np.stack(along, 1), across, rcond=None)[0]
    return found if (left**2).sum() > _DIVERGENCE * (across**2).sum() else trial


def steady(region: Region, kind: str, size: int, x: np.ndarray, u: np.ndarray, seed: int
           ) -> tuple[Region, str] | None:
    """The region whose boundary keeps constant values along each of its parts, and its condition (of all channels, or
    of each), where changes in time of a channel fit held-out points clearly better if they vanish there; the given
    region if these values are zero. None where another condition `kind` fits the fields better.

    Fields u (S, T, N, C) at points x (S, N, d); the first frame is left out, as it need not satisfy a boundary
    condition."""
    some, count, size = _some(x), len(region.parts), min(size, _MODES)
    x, every = x[some], u[some, 1 :: max(u.shape[1] // 6, 1)]
    frames, held = changes(every), np.zeros((u.shape[-1], count), dtype=bool)

    def named(own: np.ndarray) -> str:
        each = LEAKY + "/".join("inf" if one else "0" for one in own)
        return each if own.any() and not own.all() else HELD if own.any() else NATURAL

    for c, own in enumerate(held):
        least = None
        for part in (None, *range(count)):
            trial = own if part is None else own | (np.arange(count) == part)
            effort.add(products=_SOLVE * len(region.nodes) * size**2)
            errors = held_out(region.harmonics(size, named(trial)), x, frames[..., c : c + 1], seed)
            if least is None or _better(errors, least):
                own[:], least = trial, errors
    if not held.any():
        return None
    there, name = region.keeping(held)
    harmonics = there.harmonics(size * len(set(name.split(", "))), name)
    power = fit_codes(harmonics, x, every).variance
    if (power[:, harmonics.count - harmonics.steady :].sum(1) < _CARRIED * power.sum(1)).all():
        there, name = region, _joined([named(own) for own in held])
        harmonics = there.harmonics(size * len(set(name.split(", "))), name)
    missed = [held_out_errors(one, x, every, seed) for one in (harmonics, region.harmonics(size, kind))]
    return (there, name) if name != kind and missed[0] < missed[1] else None
