"""Numbers that stand for missing values in arrays that are read block by block."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inrflow.data.batch import CONVENTIONS


class Markers:
    """What of CONVENTIONS is among the values of channels, and between what the others lie.

    As `batch.markers`: such a number is farther from all others than these are from each other, and from 0.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self._channels = list(channels)
        self._low, self._high = (np.full(len(channels), sign * np.inf) for sign in (1, -1))
        self._seen: list[dict[float, int]] = [{} for _ in channels]
        self._count = 0  # of values of a channel

    def look(self, u: np.ndarray) -> None:
        """Add values (..., C)."""
        self._count += u[..., 0].size
        for c, values in enumerate(np.moveaxis(u, -1, 0)):
            known = values[np.isfinite(values)]
            if not known.size:
                continue
            special = np.zeros(known.shape, bool)
            for one in CONVENTIONS[(known.min() <= CONVENTIONS + np.abs(CONVENTIONS) * 1e-6)
                                   & (known.max() >= CONVENTIONS - np.abs(CONVENTIONS) * 1e-6)]:
                special |= np.isclose(known, one, rtol=1e-6, atol=0)
            for value, count in zip(*np.unique(known[special], return_counts=True), strict=True):
                self._seen[c][float(value)] = self._seen[c].get(float(value), 0) + int(count)
            others = known[~special]
            self._low[c] = min(self._low[c], others.min(initial=np.inf))
            self._high[c] = max(self._high[c], others.max(initial=-np.inf))

    def told(self, path: Path) -> dict[int, list[float]]:
        """The numbers that stand for missing values by the number of the channel, of which it warns."""
        found = {}
        for c, (low, high, seen) in enumerate(zip(self._low, self._high, self._seen, strict=True)):
            wide = max(high - low, abs(low), abs(high)) if high > low else np.inf
            its = [value for value in seen if min(abs(value - low), abs(value - high)) > wide
                   and not low <= value <= high]
            if its:
                found[c] = its
                words = " or ".join(f"{value:g}" for value in its)
                warnings.warn(f"{path}: {sum(seen[value] for value in its)} of {self._count} values of "
                              f"{self._channels[c]} are {words}, where all others lie between {low:g} and {high:g}; "
                              "they are taken for missing ones", stacklevel=3)
        return found
