"""Places or times with values in another unit than others: kelvin among degrees Celsius, pascal among hectopascal."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

_FEWEST, MOST_PLACES, _FRAMES = 4, 20_000, 200  # places compared, which are networks, not fields on grids; frames
VALUES = 2_000_000  # to look at
_APART = 3.0  # least ratio of a distance from the median to those of all other places, and of levels to distances
_ALIKE = 10.0  # largest ratio of deviations in time to those usual
_KELVIN, _COLDEST, _HOTTEST = 273.15, -90.0, 70.0  # degrees Celsius of air, soil and water
_TEMPERATURE = re.compile("^t|temp|dew|sst|air", re.IGNORECASE)  # names of channels, as levels may differ by as much
_FACTORS = (10.0, 100.0, 1000.0)
_IN_TIME, _SHARE, _FEW = (100.0, 1000.0), 0.1, 8  # factors; least share and number of the values in a unit
_NEAR, _LIKE = 1.0, 2.0  # after conversion: largest distance of medians, in deviations, and ratio of deviations


def units_told(x: np.ndarray, u: np.ndarray, channels: Sequence[str], coordinates: Sequence[str]) -> list[str]:
    """Clauses about values u (T, N, C) at points x (N, d), or a single place without coordinates, that appear to be in
    several units."""
    told = other_units(x, u, channels, coordinates) if coordinates else []
    return told or changing_units(x, u, channels, coordinates)


def other_units(x: np.ndarray, u: np.ndarray, channels: Sequence[str], coordinates: Sequence[str]) -> list[str]:
    """A clause for each channel of values u (T, N, C) at points x (N, d) with places that appear to report in another
    unit: far from the median of all places, several times as far as any other place, but not after a conversion.

    A high or large place is not told: a usual conversion does not bring it to the level of the others."""
    clauses: list[str] = []
    if not _FEWEST <= len(x) <= MOST_PLACES:
        return clauses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # places and frames without values
        for channel, values in zip(channels, np.moveaxis(u[:: -(-len(u) // _FRAMES)].astype(np.float64), -1, 0),
                                   strict=True):
            middle = np.nanmedian(values, 1, keepdims=True)
            half = bool(_TEMPERATURE.search(channel)) and _HOTTEST < np.nanmedian(middle) < _COLDEST + _KELVIN
            if half:  # of the places may be in kelvin
                middle = np.nanquantile(values, 0.5, 1, keepdims=True, method="lower")
            away, spread = np.nanmedian(np.abs(values - middle), 0), np.nanstd(values, 0)
            for factor, shift, words in [*_conversions(channel, float(np.nanmedian(middle)))][:1 if half else None]:
                within = np.nanmedian(np.abs(factor * values + shift - middle), 0)
                like = factor * spread / np.nanmedian(spread)
                odd = (within < away / _APART) & (like < _ALIKE) & (like > 1 / _ALIKE)
                usual = np.nanmax(np.where(odd, np.nan, away), initial=0.0)
                odd &= (away > _APART * usual) & ((within < _APART * usual) | bool(shift))
                most = len(x) // 2 if shift else (len(x) - 1) // 2
                if 0 < odd.sum() <= most and (shift or abs(np.nanmedian(middle)) > _APART * usual):
                    clauses.append(f"channel {channel} at {_where(x[odd], coordinates)} appears to be {words}")
                    break
    return clauses


def _where(x: np.ndarray, coordinates: Sequence[str]) -> str:
    where = ", ".join(f"{name} {value:.6g}" for name, value in zip(coordinates, x[0], strict=True))
    return where + (f" and {len(x) - 1} more places" if len(x) > 1 else "")


def changing_units(x: np.ndarray, u: np.ndarray, channels: Sequence[str], coordinates: Sequence[str]) -> list[str]:
    """A clause for each channel of values u (T, N, C) at points x (N, d), with names of coordinates if there are any,
    that appears to change its unit at some place: two groups of values, wide apart, that lie, vary and follow each
    other alike after a usual conversion: after one change at any places, else for a while or by chance, at few.
    Switched devices, floods and fronts have two levels, too, but by turns and at most places."""
    clauses: list[str] = []
    if len(x) > MOST_PLACES:
        return clauses
    for channel, values in zip(channels, np.moveaxis(u.astype(np.float64), -1, 0), strict=True):
        known = np.isfinite(values)
        one_sign = (values >= 0).all(0, where=known) | (values <= 0).all(0, where=known)
        logs = np.log(np.abs(values), where=known & one_sign & (values != 0), out=np.full(values.shape, np.nan))
        forms = [(logs, np.log(factor), f"are {factor:g} times the others, as in another unit") for factor in _IN_TIME]
        if _TEMPERATURE.search(channel):
            forms.append((values, _KELVIN, "differ by 273.15 from the others, as kelvin from degrees Celsius"))
        for series, shift, words in forms:
            share, changes = np.array([_shifted(one[np.isfinite(one)], shift) for one in series.T]).T
            often = changes > share * (1 - share) * np.isfinite(series).sum(0)  # half as often as by chance
            alone = 2 * (changes > 0).sum() < len(x) >= _FEWEST
            share = np.where((changes == 1) | alone & (often | (changes == 2)), share, 0.0)
            if share.any():
                where = f" at {_where(x[share > 0], coordinates)}" if coordinates else ""
                clauses.append(f"channel {channel}{where} appears to be in two units: {100 * share.max():.2g} % of the "
                               f"values {words}")
    return clauses


def _shifted(series: np.ndarray, shift: float) -> tuple[float, int]:
    """Share of the values of a series (T,) that are like the others after a shift, else 0, and how often these and the
    others follow each other; 0 if values are not in two groups wide apart."""
    least = max(_FEW, int(_SHARE * len(series)))
    if len(series) < 2 * least:
        return 0.0, 0
    ordered = np.sort(series)
    cut = int(np.diff(ordered).argmax()) + 1
    low, high = ordered[:cut], ordered[cut:]
    if min(cut, len(high)) < least or high[0] - low[-1] < max(np.ptp(low), np.ptp(high)):
        return 0.0, 0
    upper, (least_spread, spread) = series >= high[0], np.sort([low.std(), high.std()])
    steps, across = np.abs(np.diff(series - shift * upper)), np.diff(upper)
    alike = abs(np.median(high) - np.median(low) - shift) < _NEAR * spread and spread < _LIKE * least_spread
    follow = np.median(steps[across]) <= steps[~across].max(initial=0.0)
    return float(upper.mean()) * (alike and follow), int(across.sum())


def _conversions(channel: str, level: float) -> Iterator[tuple[float, float, str]]:
    """Factors and shifts that convert other units to that of values of a channel around a level, and words."""
    kelvin = bool(_TEMPERATURE.search(channel))
    if kelvin and _COLDEST < level < _HOTTEST:
        yield 1.0, -_KELVIN, "in kelvin, the others in degrees Celsius"
    if kelvin and _COLDEST < level - _KELVIN < _HOTTEST:
        yield 1.0, _KELVIN, "in degrees Celsius, the others in kelvin"
    for factor in _FACTORS:
        yield 1 / factor, 0.0, f"{factor:g} times too large, as in another unit"
        yield factor, 0.0, f"{factor:g} times too small, as in another unit"
