"""Numbers that stand for missing values by convention, told from values by how far off they lie."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

#: Written in place of missing values by loggers, models and archives.
_NINES = (777.7, 888.8, 999, 999.9, 999.99, 6999, 7777, 8888, 9999, 9999.9, 32766, 32767, 32768, 99999, 999999)
_POWERS = (1e10, 1e15, 1e20, 1e30, 1e34, 1e35, 1e36, 9.96921e36)
CONVENTIONS = np.array([-99, -99.9, -99.99, *(sign * number for number in _NINES + _POWERS for sign in (-1, 1))])


def markers(u: np.ndarray) -> np.ndarray:
    """Of each channel of values u (..., C), the number that stands for missing ones, NaN for none (C,): one of
    CONVENTIONS that is the least or the largest value and farther from the next one than that is from the last."""
    found = np.full(u.shape[-1], np.nan)
    for channel, values in enumerate(np.moveaxis(u, -1, 0).reshape(u.shape[-1], -1)):
        known = values[np.isfinite(values)]
        for extreme in (known.min(initial=np.inf), known.max(initial=-np.inf)):
            others = known[known != extreme]
            if not len(others) or not np.isclose(CONVENTIONS, extreme, rtol=1e-6).any():
                continue
            low, high = others.min(), others.max()
            if high > low and np.abs(others - extreme).min() > high - low:
                found[channel] = extreme
    return found


def without_markers(u: np.ndarray, channels: Sequence[str], where: object) -> np.ndarray:
    """Values u (..., C) with NaN for those that stand for missing ones, of which it warns; `where`: whose they are."""
    for channel, marker in enumerate(markers(u)):
        if np.isfinite(marker):
            wrong = u[..., channel] == marker
            u = u.copy()
            u[..., channel][wrong] = np.nan
            others = u[..., channel][np.isfinite(u[..., channel])]
            warnings.warn(f"{where}: {wrong.sum()} of {wrong.size} values of {channels[channel]} are {marker:g}, where "
                          f"all others lie between {others.min():g} and {others.max():g}; they are taken for missing "
                          "ones", stacklevel=3)
    return u
