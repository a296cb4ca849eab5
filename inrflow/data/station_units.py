"""Places that report in another unit than all others: kelvin among degrees Celsius, pascal among hectopascal."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

_FEWEST, MOST_PLACES, FRAMES = 4, 20_000, 200  # places compared, which are networks, not fields on grids; frames
_APART = 3.0  # least ratio of a distance from the median to those of all other places, and of levels to distances
_ALIKE = 10.0  # largest ratio of deviations in time to those usual
_KELVIN, _COLDEST, _HOTTEST = 273.15, -90.0, 70.0  # degrees Celsius of air, soil and water
_TEMPERATURE = re.compile("^t|temp|dew|sst|air", re.IGNORECASE)  # names of channels, as levels may differ by as much
_FACTORS = (10.0, 100.0, 1000.0)


def other_units(x: np.ndarray, u: np.ndarray, channels: Sequence[str], coordinates: Sequence[str]) -> list[str]:
    """A clause for each channel of values u (T, N, C) at points x (N, d) with places that appear to report in another
    unit: far from the median of all places, several times as far as any other place, but not after a conversion.

    A high or large place is not told: a usual conversion does not bring it to the level of the others."""
    clauses: list[str] = []
    if not _FEWEST <= len(x) <= MOST_PLACES:
        return clauses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # places and frames without values
        for channel, values in zip(channels, np.moveaxis(u[:: -(-len(u) // FRAMES)].astype(np.float64), -1, 0),
                                   strict=True):
            middle = np.nanmedian(values, 1, keepdims=True)
            away, spread = np.nanmedian(np.abs(values - middle), 0), np.nanstd(values, 0)
            for factor, shift, words in _conversions(channel, float(np.nanmedian(middle))):
                within = np.nanmedian(np.abs(factor * values + shift - middle), 0)
                like = factor * spread / np.nanmedian(spread)
                odd = (within < away / _APART) & (like < _ALIKE) & (like > 1 / _ALIKE)
                usual = np.nanmax(np.where(odd, np.nan, away), initial=0.0)
                odd &= (away > _APART * usual) & ((within < _APART * usual) | bool(shift))
                count = int(odd.sum())
                if 0 < count < len(x) / 2 and (shift or abs(np.nanmedian(middle)) > _APART * usual):
                    where = ", ".join(f"{name} {value:.6g}" for name, value in zip(coordinates, x[odd][0], strict=True))
                    more = f" and {count - 1} more places" if count > 1 else ""
                    clauses.append(f"channel {channel} at {where}{more} appears to be {words}")
                    break
    return clauses


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
