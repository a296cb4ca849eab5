"""Rendering of a field on its points: as an image, over triangles, as dots, on a map of the sphere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.ticker import MultipleLocator
from matplotlib.tri import Triangulation

from inrflow.data.formats.columns import HEIGHTS, find_column
from inrflow.data.formats.sphere import LATITUDES, LONGITUDES, xyz_to_lonlat
from inrflow.plotting.coasts import draw_coasts
from inrflow.plotting.style import SIZE, shortened

WIDE = 2.2  # ratio of width to height above which panels are stacked, one row for each time
_FLATTEST = 6.0  # largest ratio of width to height of maps; narrow bands are stretched
_MARGIN = 0.04  # margin around dots, relative to the extent
_GAP = 20.0  # gap in longitude, in degrees, above which points do not cover the globe
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)  # degrees between ticks
_ALONG = ("x", "easting", "eastings", *LONGITUDES), ("y", "northing", "northings", *LATITUDES)
_STATIONS = 120  # up to this number scattered points are drawn as dots, since triangles would show unobserved values


@dataclass
class View:
    """Rendering of N points.

    Attributes:
        kind: line, image, triangles or scatter.
        x: (N, 2) places in the panel. labels: labels of the axes.
        ratio: width over height of a panel. aspect: aspect of its axes.
        axes, cells: for an image, coordinates of its columns and rows, and column and row of each point.
        triangles: (M, 3) corners.
        longitude: whether the axes are degrees of a map. coasts: whether coastlines are drawn on it.
        shown: indices of the drawn points, if not all are. edges: whether edges of triangles are drawn.
        reach: lowest and highest coordinates of a panel, if points differ between frames.
    """

    kind: str
    x: np.ndarray
    labels: tuple[str, ...]
    ratio: float = 1.5
    aspect: Literal["equal", "auto"] = "auto"
    axes: list[np.ndarray] = field(default_factory=list)
    cells: tuple[np.ndarray, np.ndarray] | None = None
    triangles: np.ndarray | None = None
    longitude: bool = False
    shown: np.ndarray | None = None
    edges: bool = False
    coasts: bool = True
    reach: tuple[np.ndarray, np.ndarray] | None = None

    def draw(self, ax: Axes, values: np.ndarray, colours: Colormap, limits: tuple[float, float]) -> Any:
        """Artist of values (N,) drawn on axes."""
        values = values if self.shown is None else values[self.shown]
        style: dict[str, Any] = {"cmap": colours, "vmin": limits[0], "vmax": limits[1]}
        if self.kind == "image" and self.cells is not None:
            image = np.full((len(self.axes[1]), len(self.axes[0])), np.nan)
            image[self.cells[1], self.cells[0]] = values
            return ax.pcolormesh(*self.axes, np.ma.masked_invalid(image), shading="nearest", **style)
        if self.kind == "triangles" and self.triangles is not None:
            known = np.isfinite(values)
            triangles = self.triangles[known[self.triangles].all(1)]
            if len(triangles):
                if self.edges:
                    ax.triplot(self.x[:, 0], self.x[:, 1], triangles, color="0.25", linewidth=0.25, zorder=3)
                return ax.tripcolor(
                    Triangulation(self.x[:, 0], self.x[:, 1], triangles),
                    np.where(known, values, 0.0),
                    shading="gouraud",
                    **style,
                )
        if len(self.x) <= _STATIONS:
            style |= {"edgecolors": "0.2", "linewidths": 0.4}
        return ax.scatter(self.x[:, 0], self.x[:, 1], c=np.ma.masked_invalid(values), s=_dot(len(self.x)), **style)

    def mark(self, ax: Axes, sensors: np.ndarray) -> Any:
        """Artist of marks at the places (n, d) of sensors; in three dimensions of all sensors."""
        if self.longitude:
            sensors = xyz_to_lonlat(sensors)
            first = (self.x if self.reach is None else self.reach[0][None])[:, 0].min()
            sensors[:, 0] = (sensors[:, 0] - first + 1e-2) % 360.0 + first - 1e-2
        size = float(np.clip(400 / max(1, len(sensors)), 0.8, 9))
        return ax.scatter(sensors[:, 0], sensors[:, 1], s=size, c="k", edgecolors="w", linewidths=0.15 * size**0.5)

    def format_axes(self, ax: Axes, bottom: bool, left: bool) -> None:
        """Set limits, ticks and labels of a panel; tick labels only on outer panels (`bottom`, `left`)."""
        ax.set_aspect(self.aspect)
        ax.set_facecolor("white" if self.kind == "scatter" else "0.87")
        low, high = self.reach or (self.x.min(0), self.x.max(0))
        if self.kind != "image" or self.reach is not None:
            size = high - low
            most = size.max() or 1.0
            flat = np.where((size > 0) & (self.aspect == "auto"), size, most)  # points on a line
            full = self.kind == "triangles" and (self.longitude or self.reach is None)
            margin = np.where((size > 0) & full, 0.0, _MARGIN * flat)
            (left_, bottom_), (right, top) = low - margin, high + margin
            ax.set(xlim=(left_, right), ylim=(bottom_, top))
        ax.xaxis.set_visible(bottom)  # hidden axes have no ticks, most of the time of a figure
        ax.yaxis.set_visible(left)
        ax.tick_params(labelsize=SIZE - 1.5, length=2)
        if self.longitude:
            if self.coasts:
                draw_coasts(ax, low, high)
            for axis, range_, count in ((ax.xaxis, high[0] - low[0], 5), (ax.yaxis, high[1] - low[1], 3)):
                axis.set_major_locator(MultipleLocator(next((step for step in _STEPS if range_ / step <= count), 90)))
            ax.xaxis.set_major_formatter(lambda value, _: degrees(value, "E", "W"))
            ax.yaxis.set_major_formatter(lambda value, _: degrees(value, "N", "S"))
            return
        ax.locator_params(nbins=4)
        if bottom:
            ax.set_xlabel(self.labels[0], fontsize=SIZE)
        if left:
            ax.set_ylabel(self.labels[1], fontsize=SIZE)


def drawn_order(coordinates: Sequence[str]) -> list[int]:
    """Indices of coordinates in the order of maps: x or longitude first, across, then y or latitude."""
    ranks = [next((rank for rank, names in enumerate(_ALONG) if name.lower() in names), len(_ALONG))
             for name in coordinates]
    return sorted(range(len(ranks)), key=ranks.__getitem__)


def view_of(x: np.ndarray, coordinates: Sequence[str], geometry: str | None, triangles: np.ndarray | None) -> View:
    """Rendering for points x (N, d); in three dimensions surfaces and places with an elevation are seen from above, and
    otherwise points in or near the plane through the middle are shown."""
    labels = tuple(map(shortened, coordinates))
    if x.shape[1] == 1:
        return View("line", x, labels)
    sphere = geometry == "sphere"
    if x.shape[1] == 3 and not sphere and triangles is not None and triangles.shape[1] == 3:
        above = triangles[np.argsort(x[triangles, 2].mean(1), kind="stable")]  # a surface; the uppermost is drawn last
        return view_of(x[:, :2], (f"{labels[0]}  (seen along {labels[2]})", labels[1]), None, above)
    if x.shape[1] == 3 and find_column(labels[2:], HEIGHTS) and len(np.unique(x[:, :2], axis=0)) == len(x):
        return view_of(x[:, :2], labels[:2], None, None)
    if x.shape[1] > 2 and not sphere:
        shown = middle(x[:, 2:])
        heights = zip(labels[2:], x[shown, 2:].mean(0), strict=True)
        height = ", ".join(f"{name} = {value:.3g}" for name, value in heights)
        view = view_of(x[shown, :2], (f"{labels[0]}  ({height})", labels[1]), None, None)
        view.shown = shown
        return view
    if sphere:
        x, labels = map_coordinates(x), ("longitude", "latitude")
    plane = x[:, :2]
    size = np.maximum(np.ptp(plane, axis=0), 1e-12)
    ratio = float(size[0] / size[1])
    aspect: Literal["equal", "auto"] = "equal" if 0.1 < ratio < 10 else "auto"
    if sphere and ratio > _FLATTEST:
        ratio, aspect = _FLATTEST, "auto"
    view = View("scatter", plane, labels[:2], min(max(ratio, 0.4), 8.0), aspect, longitude=sphere)
    if x.shape[1] == 2:
        axes, cells = lattice(plane)
        if triangles is not None and not sphere:
            view.kind, view.triangles = "triangles", np.asarray(triangles)
        elif cells is not None:
            view.kind, view.axes, view.cells = "image", axes, cells
        elif len(plane) > _STATIONS and np.ptp(plane, axis=0).min() > 0:
            from inrflow.domains.triangulation import cells_between  # finite elements take a second to import

            if sphere and size[0] > 360.0 - _GAP:
                view.shown, view.x, view.reach = _around(plane)
            view.kind = "triangles"
            view.triangles = cells_between(view.x / size if aspect == "auto" else view.x)
    return view


def _around(lonlat: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Points (N, 2) of a globe with periodic copies beyond the edges of the map, and copies at poles close to points:
    index of the point (M,), places (M, 2), and corners of the map."""
    spacing = np.degrees(np.sqrt(4 * np.pi / len(lonlat)))
    low, high = np.array([-180.0, lonlat[:, 1].min()]), np.array([180.0, lonlat[:, 1].max()])
    which, places = [np.arange(len(lonlat))], [lonlat]
    for side in (-1.0, 1.0):
        near = np.flatnonzero(side * lonlat[:, 0] > 180.0 - 4 * spacing)
        which.append(near)
        places.append(lonlat[near] - [side * 360.0, 0.0])
        last = int(np.argmax(side * lonlat[:, 1]))
        if 90.0 - side * lonlat[last, 1] < 2 * spacing:
            pole = np.arange(-180.0 - 4 * spacing, 180.0 + 5 * spacing, spacing)
            which.append(np.full(len(pole), last))
            places.append(np.stack([pole, np.full(len(pole), side * 90.0)], -1))
            (low if side < 0 else high)[1] = side * 90.0
    return np.concatenate(which), np.concatenate(places), (low, high)


def middle(heights: np.ndarray) -> np.ndarray:
    """Indices of the points in the middle of the remaining coordinates (N, d - 2): one plane of a lattice, else the
    nearest quarter."""
    size = np.maximum(np.ptp(heights, axis=0), 1e-12)
    centre = heights.min(0) + size / 2
    distance = np.abs((heights - centre) / size).max(1)
    nearest = heights[distance.argmin()]
    plane = np.flatnonzero((np.abs(heights - nearest) <= 1e-6 * size).all(1))
    return plane if len(plane) >= 10 else np.sort(np.argsort(distance, kind="stable")[: max(1, len(heights) // 4)])


def map_coordinates(x: np.ndarray) -> np.ndarray:
    """Longitude and latitude (N, 2) in degrees of unit vectors (N, 3), with the map cut at the widest gap."""
    lonlat = xyz_to_lonlat(x)
    meridians = np.unique(np.round(lonlat[:, 0], 3))
    gaps = np.diff(np.append(meridians, meridians[0] + 360.0))
    part = gaps.max() > max(_GAP, 1.5 * float(np.median(gaps)))
    first = meridians[(gaps.argmax() + 1) % len(meridians)] if part else -180.0
    lonlat[:, 0] = (lonlat[:, 0] - first + 1e-2) % 360.0 + first - 1e-2
    return lonlat


def lattice(x: np.ndarray) -> tuple[list[np.ndarray], tuple[np.ndarray, np.ndarray] | None]:
    """Axes of the grid mostly filled by points x (N, 2), and column and row of each point; else (axes, None)."""
    axes: list[np.ndarray] = []
    places: list[np.ndarray] = []
    for values in x.T:
        tolerance = 1e-4 * max(np.ptp(values), 1e-12)
        ordered = np.sort(values)
        levels = ordered[np.append(True, np.diff(ordered) > tolerance)]
        if len(levels) < 2:
            return axes, None
        steps = np.diff(levels)
        counts = np.round(steps / steps.min())
        even = np.abs(steps / steps.min() - counts).max() < 0.05
        if even and counts.sum() < 1.5 * len(levels):  # even spacing; some lines may be missing
            spacing = (levels[-1] - levels[0]) / counts.sum()
            axes.append(levels[0] + spacing * np.arange(int(counts.sum()) + 1))
        else:
            axes.append(levels)
        places.append(
            np.abs(axes[-1] - values[:, None]).argmin(1)
            if len(axes[-1]) * len(x) < 1e7
            else np.searchsorted(axes[-1], values - tolerance)
        )
    columns, rows = map(len, axes)
    filled = np.zeros((columns, rows), bool)
    filled[places[0], places[1]] = True
    mostly = filled.sum() == len(x) > 0.4 * columns * rows and len(x) >= 2 * max(columns, rows)  # two per line
    beside = (filled[1:] & filled[:-1]).any() and (filled[:, 1:] & filled[:, :-1]).any()  # not of staggered rows
    return axes, (places[0], places[1]) if mostly and beside else None


def _dot(points: int) -> float:
    return float(np.clip(4000 / points, 1, 30))


def degrees(value: float, positive: str, negative: str) -> str:
    """Label of a longitude or latitude, with the letters of its two sides."""
    value = (value + 180.0) % 360.0 - 180.0 if positive == "E" else value
    side = "" if abs(value) < 1e-9 or abs(abs(value) - 180) < 1e-9 else positive if value > 0 else negative
    return f"{abs(value):g}°{side}"
