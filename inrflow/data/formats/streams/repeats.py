"""Rows of a table that contradict each other, and times that look local."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from inrflow.data.calendar import turned_clocks


def warn_of_duplicates(path: Path, trajectory: np.ndarray, t: np.ndarray, x: np.ndarray, u: np.ndarray,
                       units: str | None = None) -> None:
    """Warn where rows with values share trajectory, time and place, and say how many of them contradict each other; and
    where times in these `units` look local."""
    used = ~np.isnan(u).all(-1)
    keys = np.column_stack([trajectory, t, x])[used]
    order = np.lexsort(keys.T)
    keys, values = keys[order], u[used][order]
    repeated = (keys[1:] == keys[:-1]).all(1)
    if repeated.any():
        apart = repeated & (np.abs(values[1:] - values[:-1]) > 0).any(1)
        warnings.warn(f"{path}: {repeated.sum()} of {len(keys)} rows repeat the time and place of another, "
                      f"{apart.sum()} with other values; places that recur take their mean, of others "
                      "all are used", stacklevel=2)
    dated = units is not None and " since " in units
    if dated and (remark := turned_clocks(keys[:, 1], keys[1:, 1][repeated], units)):
        warnings.warn(f"{path}: {remark}", stacklevel=2)
