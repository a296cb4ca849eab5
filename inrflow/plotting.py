"""Figures of forecasts, errors and training, written as PNG and GIF without touching matplotlib's global state.

Fields on (nearly) regular grids are drawn as images, on a sphere as maps, on scattered points of the plane over
triangles, in one dimension as lines. Truth and forecast share their colours; fields of both signs and errors are
centred on white.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator
from matplotlib.tri import Triangulation

from inrflow.data.calendar import number_to_date
from inrflow.data.sphere import xyz_to_lonlat
from inrflow.files import write_aside

MODEL, TRUTH, BEYOND = "#1f5fa8", "#222222", "#b5482a"
_GREYS = ("#8a8a8a", "#c98a2b", "#5b9a68", "#9a6fb0", "#b06a6a", "#4aa3b5", "#7d6b4f")
_TITLES = {"pod_dmd": "POD + DMD", "pod_dmd_symmetries": "POD + DMD, symmetries",
           "climatology_ar1": "climatology + AR(1)", "climatology_lim": "climatology + LIM"}
_SIZE, _DPI = 8.0, 150
_WIDE = 2.2  # panels wider than this many heights are stacked by time, one row for each
_FLATTEST = 6.0  # maps of narrow bands are stretched to be no flatter than this
_ALPHA = 1.4  # largest circumradius of a triangle that is drawn, in usual edges of its corners
_HALF_WIDTH = 1.6448536269514722  # of the central 90 % interval, in standard deviations


# ---- how a field is drawn ----

@dataclass
class _View:
    """Points made ready for drawing.

    kind: line, image, triangles or scatter. ratio: width over height of a panel. axes, cells: of an image, its columns
    and rows and the cell of each point. triangles: corners. longitude: whether the axes are degrees of a map.
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

    def draw(self, ax: Axes, values: np.ndarray, colours: Colormap, limits: tuple[float, float]) -> Any:
        """Draw values (N,) and return what was drawn, to colour a bar by and to remove."""
        style: dict[str, Any] = {"cmap": colours, "vmin": limits[0], "vmax": limits[1]}
        if self.kind == "image" and self.cells is not None:
            image = np.full((len(self.axes[1]), len(self.axes[0])), np.nan)
            image[self.cells[1], self.cells[0]] = values
            return ax.pcolormesh(*self.axes, np.ma.masked_invalid(image), shading="nearest", **style)
        if self.kind == "triangles" and self.triangles is not None:
            known = np.isfinite(values)
            triangles = self.triangles[known[self.triangles].all(1)]
            if len(triangles):
                return ax.tripcolor(Triangulation(self.x[:, 0], self.x[:, 1], triangles),
                                    np.where(known, values, 0.0), shading="gouraud", **style)
        return ax.scatter(self.x[:, 0], self.x[:, 1], c=np.ma.masked_invalid(values), s=_dot(len(self.x)), **style)

    def dress(self, ax: Axes, bottom: bool, left: bool) -> None:
        """Ticks and labels on the outer panels alone."""
        ax.set_aspect(self.aspect)
        ax.set_facecolor("0.87")
        low, high = self.x.min(0), self.x.max(0)
        if self.kind != "image":
            ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        ax.tick_params(labelsize=_SIZE - 1.5, length=2, labelbottom=bottom, labelleft=left)
        if self.longitude:
            for axis, range_, count in ((ax.xaxis, high[0] - low[0], 5), (ax.yaxis, high[1] - low[1], 3)):
                axis.set_major_locator(MultipleLocator(next(
                    (step for step in (1, 2, 5, 10, 20, 30, 60) if range_ / step <= count), 90)))
            ax.xaxis.set_major_formatter(lambda value, _: _degrees(value, "E", "W"))
            ax.yaxis.set_major_formatter(lambda value, _: _degrees(value, "N", "S"))
            return
        ax.locator_params(nbins=4)
        if bottom:
            ax.set_xlabel(self.labels[0], fontsize=_SIZE)
        if left:
            ax.set_ylabel(self.labels[1], fontsize=_SIZE)


def _view(x: np.ndarray, coordinates: Sequence[str], geometry: str | None, triangles: np.ndarray | None) -> _View:
    """The rendering that fits points x (N, d)."""
    labels = tuple(coordinates)
    if x.shape[1] == 1:
        return _View("line", x, labels)
    sphere = geometry == "sphere"
    if sphere:
        x, labels = _map_coordinates(x), ("longitude", "latitude")
    plane = x[:, :2]
    size = np.maximum(np.ptp(plane, axis=0), 1e-12)
    ratio = float(size[0] / size[1])
    aspect: Literal["equal", "auto"] = "equal" if 0.1 < ratio < 10 else "auto"
    if sphere and ratio > _FLATTEST:
        ratio, aspect = _FLATTEST, "auto"
    view = _View("scatter", plane, labels[:2], min(max(ratio, 0.4), 8.0), aspect, longitude=sphere)
    if x.shape[1] == 2:
        axes, cells = _lattice(plane)
        if triangles is not None and not sphere:
            view.kind, view.triangles = "triangles", np.asarray(triangles)
        elif cells is not None:
            view.kind, view.axes, view.cells = "image", axes, cells
        elif len(plane) >= 10:
            view.kind, view.triangles = "triangles", _triangles(plane / size if aspect == "auto" else plane)
    return view


def _map_coordinates(x: np.ndarray) -> np.ndarray:
    """Unit vectors as longitude and latitude, the map cut where its widest gap in longitude is."""
    lonlat = xyz_to_lonlat(x)
    meridians = np.unique(np.round(lonlat[:, 0], 3))
    gaps = np.diff(np.append(meridians, meridians[0] + 360.0))
    first = meridians[(gaps.argmax() + 1) % len(meridians)] if gaps.max() > 1.5 * np.median(gaps) else -180.0
    lonlat[:, 0] = (lonlat[:, 0] - first + 1e-2) % 360.0 + first - 1e-2
    return lonlat


def _lattice(x: np.ndarray) -> tuple[list[np.ndarray], tuple[np.ndarray, np.ndarray] | None]:
    """Axes of a grid of which points x (N, 2) fill a good part, and the column and row of each; else (axes, None)."""
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
        if even and counts.sum() < 1.5 * len(levels):  # even spacing, of which some lines may lack
            spacing = (levels[-1] - levels[0]) / counts.sum()
            axes.append(levels[0] + spacing * np.arange(int(counts.sum()) + 1))
        else:
            axes.append(levels)
        places.append(np.abs(axes[-1] - values[:, None]).argmin(1) if len(axes[-1]) * len(x) < 1e7
                      else np.searchsorted(axes[-1], values - tolerance))
    filled = len(np.unique(places[0] * len(axes[1]) + places[1]))
    return axes, (places[0], places[1]) if filled == len(x) > 0.4 * len(axes[0]) * len(axes[1]) else None


def _triangles(x: np.ndarray) -> np.ndarray:
    """Delaunay triangles of points (N, 2), without those whose circumcircle is large beside the edges around: gaps.

    The alpha shape of the points, with an alpha that follows their local spacing. No point lies in the circumcircle of
    a Delaunay triangle, so that a large one is a hole, a dent or the outside.
    """
    mesh = Triangulation(x[:, 0], x[:, 1])
    edges = mesh.edges
    length = np.linalg.norm(x[edges[:, 0]] - x[edges[:, 1]], axis=1)
    ends, lengths = np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([length, length])
    order = np.lexsort((lengths, ends))
    starts = np.searchsorted(ends[order], np.arange(len(x) + 1))
    usual = lengths[order][np.minimum((starts[:-1] + starts[1:]) // 2, len(order) - 1)]
    corners = x[mesh.triangles]
    sides = corners - np.roll(corners, 1, 1)
    doubled_area = np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0])
    radius = np.linalg.norm(sides, axis=-1).prod(1) / np.maximum(2 * doubled_area, 1e-300)
    kept = radius < _ALPHA * usual[mesh.triangles].mean(1)
    return mesh.triangles[kept] if kept.any() else mesh.triangles


def _dot(points: int) -> float:
    return float(np.clip(4000 / points, 1, 30))


def _degrees(value: float, positive: str, negative: str) -> str:
    value = (value + 180.0) % 360.0 - 180.0 if positive == "E" else value
    side = "" if abs(value) < 1e-9 or abs(abs(value) - 180) < 1e-9 else positive if value > 0 else negative
    return f"{abs(value):g}°{side}"


# ---- colours, labels ----

def _palette(values: np.ndarray) -> tuple[Colormap, tuple[float, float]]:
    """Colours and limits of a field: centred on zero where it takes both signs, else sequential."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if low < 0 < high and min(-low, high) > 0.1 * max(-low, high):
        size = max(-low, high)
        return _colours("RdBu_r"), (-size, size)
    return _colours("viridis"), (low, high) if high > low else (low - 0.5, high + 0.5)


def _colours(name: str) -> Colormap:
    return colormaps[name].with_extremes(bad=(0.87, 0.87, 0.87))


def _size(values: np.ndarray) -> float:
    """A limit that a few extreme values do not set."""
    known = np.abs(values[np.isfinite(values)])
    return float(np.percentile(known, 99.8)) or 1e-12 if len(known) else 1.0


def _units(text: str | None) -> str:
    if not text or text in ("1", "-"):
        return ""
    text = re.sub(r"(?<=[A-Za-z])-?\d", lambda m: m[0].translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")), text)
    return f" [{text.replace('degC', '°C')}]"


def _moment(t: float, time_units: str | None) -> str:
    date = number_to_date(t, time_units)
    return date[:10] if date else f"t = {t:.4g}" + (f" {time_units}" if time_units else "")


# ---- forecasts ----

@dataclass
class _Fields:
    """One channel of a trajectory and what is drawn of it."""

    t: np.ndarray
    x: np.ndarray
    panels: dict[str, np.ndarray]
    name: str
    units: str
    coordinates: Sequence[str]
    geometry: str | None
    triangles: np.ndarray | None
    time_units: str | None
    horizon: float | None

    def view(self, frame: int) -> _View:
        x = self.x if self.x.ndim == 2 else self.x[frame]
        return _view(x, self.coordinates, self.geometry, self.triangles)

    def styles(self, frames: Sequence[int]) -> dict[str, tuple[Colormap, tuple[float, float]]]:
        fields = self.panels.get("truth", self.panels["forecast"])[frames]
        shared = _palette(fields)
        styles = {"truth": shared, "forecast": shared}
        if "error" in self.panels:
            size = _size(self.panels["error"][frames])
            styles["error"] = _colours("RdBu_r"), (-size, size)
        if "uncertainty" in self.panels:
            styles["uncertainty"] = _colours("magma_r"), (0.0, _size(self.panels["uncertainty"][frames]))
        return {name: styles[name] for name in self.panels}

    def line_limits(self, panel: str) -> tuple[float, float]:
        """Limits of a panel of lines that hold at all times; they hold the intervals as far as these are no wider than
        three times what is drawn.
        """
        shown = np.concatenate([self.panels[name].ravel() for name in ("truth", "forecast", "error")
                                if name in self.panels and (name == "error") == (panel == "error")])
        shown = shown[np.isfinite(shown)] if np.isfinite(shown).any() else np.array([0.0, 1.0])
        low, high = float(shown.min()), float(shown.max())
        if panel == "error":
            high = max(high, -low, 1e-12)
            if "uncertainty" in self.panels:
                high = max(high, min(3 * high, _HALF_WIDTH * _size(self.panels["uncertainty"])))
            low = -high
        margin = 0.08 * max(high - low, 1e-12)
        return low - margin, high + margin

    def label(self, panel: str) -> str:
        labels = {"truth": self.name, "forecast": self.name, "error": "error", "uncertainty": "std"}
        return f"{labels[panel]}{self.units}"

    def beyond(self, frame: int) -> bool:
        return self.horizon is not None and bool(self.t[frame] > self.horizon)

    def stamp(self, ax: Axes, frame: int) -> None:
        beyond = self.beyond(frame)
        ax.set_title(_moment(self.t[frame], self.time_units) + ("\nbeyond training" if beyond else ""),
                     fontsize=_SIZE, color=BEYOND if beyond else TRUTH)


def _fields(t: Any, x: Any, truth: Any, prediction: Any, std: Any, channels: Sequence[str],
            units: Sequence[str] | None, channel: int | str, coordinates: Sequence[str] | None, geometry: str | None,
            triangles: Any, time_units: str | None, horizon: float | None) -> _Fields:
    index = channels.index(channel) if isinstance(channel, str) else channel
    t, x = np.asarray(t, np.float64), np.asarray(x, np.float64)
    shape = (len(t), x.shape[-2], len(channels))
    values: dict[str, np.ndarray] = {}
    for name, array in (("truth", truth), ("forecast", prediction), ("uncertainty", std)):
        if array is not None:
            if np.shape(array) != shape:
                raise ValueError(f"{name} has shape {np.shape(array)}; t, x and channels say {shape}")
            values[name] = np.asarray(array, np.float64)[..., index]
    panels = {name: field for name, field in values.items() if name != "uncertainty"}
    if "truth" in values:
        panels["error"] = values["forecast"] - values["truth"]
    if "uncertainty" in values:
        panels["uncertainty"] = values["uncertainty"]
    names = coordinates or ("x", "y", "z")[:x.shape[-1]]
    return _Fields(t, x, panels, channels[index], _units(units[index] if units else None), names, geometry,
                   None if triangles is None else np.asarray(triangles), time_units, horizon)


def _figure(width: float, height: float, title: str | None) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=_DPI)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=_SIZE + 2, fontweight="bold")
    return figure


def _save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    return write_aside(path, lambda partial: figure.savefig(partial, dpi=_DPI, format="png"))


def forecast_figure(path: str | os.PathLike[str], t: Any, x: Any, truth: Any, prediction: Any, std: Any,
                    channels: Sequence[str], units: Sequence[str] | None = None, *, channel: int | str = 0,
                    frames: int | Sequence[int] = 5, title: str | None = None, triangles: Any = None,
                    coordinates: Sequence[str] | None = None, geometry: str | None = None,
                    time_units: str | None = None, horizon: float | None = None) -> Path:
    """Truth, forecast, error and uncertainty of one channel of one trajectory at several times, as a PNG.

    Args:
        path: written aside and renamed. Raises UserError where it cannot be written.
        t: (T,). x: (N, d) or (T, N, d). truth (or None), prediction, std (or None): (T, N, C) in data units, NaN where
            not known.
        channels, units: C names; units of the values.
        channel: which one, by name or place.
        frames: how many times, evenly spread, or the places of them.
        triangles: (M, 3) corners of a mesh of the points.
        coordinates, geometry, time_units: as a Description has them.
        horizon: last time of training; later frames are marked as beyond it.
    """
    data = _fields(t, x, truth, prediction, std, channels, units, channel, coordinates, geometry, triangles, time_units,
                   horizon)
    places = np.unique(np.linspace(0, len(data.t) - 1, frames).round().astype(int)) if isinstance(frames, int) \
        else np.asarray(frames)
    chosen = [int(place) for place in places]
    if data.x.shape[-1] == 1:
        return _save(_line_figure(data, chosen, title), path)
    views = [data.view(frame) for frame in chosen]
    styles = data.styles(chosen)
    names = list(styles)
    wide = views[0].ratio > _WIDE
    rows, columns = (len(chosen), len(names)) if wide else (len(names), len(chosen))
    width = 2.9 if wide else 1.9
    height = width / views[0].ratio
    figure = _figure(columns * width + 1.4, rows * (height + (0.16 if wide else 0.1)) + (1.2 if wide else 0.8), title)
    axes = figure.subplots(rows, columns, squeeze=False)
    bars: dict[str, list[Axes]] = {}
    drawn = {}
    for j, (frame, view) in enumerate(zip(chosen, views, strict=True)):
        for i, name in enumerate(names):
            ax = axes[j, i] if wide else axes[i, j]
            drawn[name] = view.draw(ax, data.panels[name][frame], *styles[name])
            view.dress(ax, bottom=(j == len(chosen) - 1) if wide else i == len(names) - 1, left=(i if wide else j) == 0)
            bars.setdefault("field" if name in ("truth", "forecast") else name, []).append(ax)
            if name == "error":
                _note_rmse(ax, data.panels["error"][frame])
            if not wide and i == 0:
                data.stamp(ax, frame)
            if wide and j == 0:
                ax.set_title(name, fontsize=_SIZE + 0.5)
        if wide:
            beyond = data.beyond(frame)
            axes[j, 0].set_ylabel(_moment(data.t[frame], time_units) + ("\nbeyond\ntraining" if beyond else ""),
                                  fontsize=_SIZE, color=BEYOND if beyond else TRUTH, rotation=0, ha="right",
                                  va="center")
    if not wide:
        for i, name in enumerate(names):
            unit = axes[i, 0].get_ylabel()
            axes[i, 0].set_ylabel(f"{name}\n{unit}", fontsize=_SIZE + 0.5)
    for kind, group in bars.items():
        panel = "forecast" if kind == "field" else kind
        bar = figure.colorbar(drawn[panel], ax=group, location="bottom" if wide else "right", aspect=30, pad=0.02,
                              fraction=0.05)
        _dress_bar(bar, data.label(panel))
    return _save(figure, path)


def _dress_bar(bar: Any, label: str) -> None:
    bar.locator = MaxNLocator(5)
    bar.set_label(label, fontsize=_SIZE)
    bar.ax.tick_params(labelsize=_SIZE - 1.5, length=2)
    bar.update_ticks()


def _note_rmse(ax: Axes, error: np.ndarray) -> None:
    known = error[np.isfinite(error)]
    if len(known):
        ax.text(0.03, 0.04, f"RMSE {np.sqrt(np.mean(known**2)):.2g}", transform=ax.transAxes, fontsize=_SIZE - 2,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0})


def _line_figure(data: _Fields, chosen: list[int], title: str | None) -> Figure:
    """One dimension: truth and forecast in one panel with the 90 % interval, the error below."""
    rows = [name for name in ("forecast", "error") if name in data.panels]
    figure = _figure(2.1 * len(chosen) + 0.7, 1.9 * len(rows) + 0.7, title)
    axes = figure.subplots(len(rows), len(chosen), sharex=True, sharey="row", squeeze=False)
    for j, frame in enumerate(chosen):
        x = (data.x if data.x.ndim == 2 else data.x[frame])[:, 0]
        order = np.argsort(x)
        for i, name in enumerate(rows):
            _draw_lines(axes[i, j], data, name, frame, x, order)
            axes[i, j].tick_params(labelsize=_SIZE - 1.5, length=2)
        data.stamp(axes[0, j], frame)
        axes[-1, j].set_xlabel(data.coordinates[0], fontsize=_SIZE)
    for i, name in enumerate(rows):
        axes[i, 0].set_ylabel(data.label(name), fontsize=_SIZE)
    axes[0, 0].legend(fontsize=_SIZE - 1, frameon=False)
    return figure


def _draw_lines(ax: Axes, data: _Fields, name: str, frame: int, x: np.ndarray, order: np.ndarray) -> None:
    spread = data.panels["uncertainty"][frame] * _HALF_WIDTH if "uncertainty" in data.panels else None
    values = data.panels[name][frame]
    if spread is not None:
        middle = values if name == "forecast" else 0.0 * values
        ax.fill_between(x[order], (middle - spread)[order], (middle + spread)[order], color=MODEL, alpha=0.2,
                        linewidth=0, label="90 % interval")
    if name == "forecast" and "truth" in data.panels:
        ax.plot(x[order], data.panels["truth"][frame][order], color=TRUTH, linewidth=1.6, label="truth")
    ax.plot(x[order], values[order], color=MODEL, linewidth=1.2, linestyle="--" if name == "forecast" else "-",
            label=name)


def animation(path: str | os.PathLike[str], t: Any, x: Any, truth: Any, prediction: Any, std: Any,
              channels: Sequence[str], units: Sequence[str] | None = None, *, channel: int | str = 0,
              title: str | None = None, triangles: Any = None, coordinates: Sequence[str] | None = None,
              geometry: str | None = None, time_units: str | None = None, horizon: float | None = None,
              frames_per_second: float = 8.0, largest: int = 60) -> Path:
    """Truth, forecast, error and uncertainty of one channel moving in time, as a GIF of at most `largest` frames.

    The other arguments are those of `forecast_figure`.
    """
    data = _fields(t, x, truth, prediction, std, channels, units, channel, coordinates, geometry, triangles, time_units,
                   horizon)
    chosen = np.unique(np.linspace(0, len(data.t) - 1, min(largest, len(data.t))).round().astype(int)).tolist()
    lines = data.x.shape[-1] == 1
    view = data.view(chosen[0])
    names = [name for name in ("forecast", "error") if name in data.panels] if lines else list(data.panels)
    stacked = lines or view.ratio > _WIDE
    width = 4.2 if stacked else 2.3
    height = 1.7 if lines else width / view.ratio
    count = len(names)
    size = (width + 1.2, count * (height + 0.35) + 0.8) if stacked else (count * (width + 0.3) + 0.4, height + 1.7)
    figure = _figure(*size, title)
    axes = np.ravel(figure.subplots(count if stacked else 1, 1 if stacked else count, squeeze=False))
    styles = {} if lines else data.styles(chosen)
    limits = {name: data.line_limits(name) for name in names} if lines else {}
    drawn: list[Any] = []

    def draw(frame: int) -> None:
        beyond = data.beyond(frame)
        figure.supxlabel(_moment(data.t[frame], time_units) + (" · beyond training" if beyond else ""),
                         fontsize=_SIZE + 1, color=BEYOND if beyond else TRUTH)
        for ax, name in zip(axes, names, strict=True):
            if lines:
                position = (data.x if data.x.ndim == 2 else data.x[frame])[:, 0]
                ax.clear()
                _draw_lines(ax, data, name, frame, position, np.argsort(position))
                ax.set_ylim(*limits[name])
                ax.set_ylabel(data.label(name), fontsize=_SIZE)
                ax.tick_params(labelsize=_SIZE - 1.5)
                if name == names[0]:
                    ax.legend(fontsize=_SIZE - 1, frameon=False, loc="upper right")
            else:
                moved = view if data.x.ndim == 2 else data.view(frame)
                drawn.append(moved.draw(ax, data.panels[name][frame], *styles[name]))

    def write(partial: Path) -> None:
        writer = PillowWriter(fps=frames_per_second)  # type: ignore[arg-type]
        with writer.saving(figure, str(partial), 100):
            for frame in chosen:
                while drawn:
                    drawn.pop().remove()
                draw(frame)
                if frame == chosen[0] and not lines:
                    for place, (ax, name) in enumerate(zip(axes, names, strict=True)):
                        view.dress(ax, bottom=not stacked or place == count - 1, left=stacked or place == 0)
                        ax.set_title(name, fontsize=_SIZE + 1)
                        bar = figure.colorbar(drawn[place], ax=ax, aspect=15, pad=0.02,
                                              location="right" if stacked else "bottom")
                        _dress_bar(bar, data.label(name))
                writer.grab_frame()
                figure.set_layout_engine("none")  # the first frame's layout serves all

    return write_aside(path, write)


# ---- errors and training ----

def error_figure(path: str | os.PathLike[str], times: Any, errors: Mapping[str, Any], horizon: float | None = None,
                 ylabel: str = "NMSE", *, title: str | None = None, time_units: str | None = None) -> Path:
    """Error against time, log scale: the model (the first of `errors`) and the reference forecasts, as a PNG.

    Args:
        times: (T,). errors: name -> (T,); values that are not positive or not finite leave gaps.
        horizon: last time of training; what lies beyond is shaded.
    """
    times = np.asarray(times, np.float64)
    calendar = number_to_date(float(times[0]), time_units) is not None
    axis: Any = [np.datetime64(number_to_date(time, time_units)) for time in times] if calendar else times
    figure = _figure(6.0, 3.4, title)
    ax = figure.subplots()
    for place, (name, values) in enumerate(errors.items()):
        values = np.asarray(values, np.float64)
        values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        style: dict[str, Any] = {"color": MODEL, "linewidth": 2.4, "zorder": 3} if place == 0 else \
            {"color": _GREYS[(place - 1) % len(_GREYS)], "linewidth": 1.3}
        ax.plot(axis, values, label=_TITLES.get(name, name.replace("_", " ")), markersize=2.5,
                marker="o" if len(times) <= 30 else None, **style)
    if horizon is not None and horizon < times[-1]:
        edge: Any = np.datetime64(number_to_date(horizon, time_units)) if calendar else horizon
        ax.axvspan(edge, axis[-1], color=BEYOND, alpha=0.07, linewidth=0)
        ax.axvline(edge, color=BEYOND, linewidth=1.0, linestyle="--")
        ax.annotate("beyond training", (edge, 1.0), xycoords=("data", "axes fraction"), xytext=(2, 3),
                    textcoords="offset points", fontsize=_SIZE, color=BEYOND)
    ax.set_yscale("log")
    ax.margins(x=0.01)
    if calendar:
        locator = AutoDateLocator(maxticks=7)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        ax.set_xlabel("t" + (f" [{time_units}]" if time_units else ""), fontsize=_SIZE + 1)
    ax.set_ylabel(ylabel, fontsize=_SIZE + 1)
    ax.tick_params(labelsize=_SIZE)
    ax.grid(True, which="major", color="0.9", linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=_SIZE, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _save(figure, path)


def read_steps(path: str | os.PathLike[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows of a metrics.jsonl by stage and in order of steps; the later of two rows of a step, no line that was cut."""
    stages: dict[str, dict[int, dict[str, Any]]] = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "stage" in row and "step" in row:
            stages.setdefault(row["stage"], {})[int(row["step"])] = row
    return {stage: [rows[step] for step in sorted(rows)] for stage, rows in stages.items()}


def loss_figure(path: str | os.PathLike[str], steps_by_stage: Mapping[str, Sequence[Mapping[str, Any]]], *,
                title: str | None = None) -> Path:
    """Training loss and validation error of every stage against its steps, log scale, as a PNG.

    steps_by_stage: stage -> rows with `step` and, each where it was measured, `loss` and `validation` (as `read_steps`
    gives them). Stages with fewer than two such rows are left out.
    """
    curves: dict[str, dict[str, np.ndarray]] = {}
    for stage, rows in steps_by_stage.items():
        for name in ("loss", "validation"):
            points = np.array([(row["step"], row[name]) for row in rows if row.get(name) is not None], np.float64)
            if len(points) >= 2:
                curves.setdefault(stage, {})[name] = points
    figure = _figure(3.2 * max(1, len(curves)) + 0.4, 2.9, title)
    axes = np.ravel(figure.subplots(1, max(1, len(curves)), squeeze=False))
    for ax, (stage, measured) in zip(axes, curves.items(), strict=False):
        for name, points in measured.items():
            ax.plot(*points.T, color=MODEL if name == "loss" else BEYOND, linewidth=1.0 if name == "loss" else 1.8,
                    label={"loss": "training loss", "validation": "validation error"}[name])
        ax.set_yscale("log")
        ax.set_title(stage, fontsize=_SIZE + 1)
        ax.set_xlabel("step", fontsize=_SIZE)
        ax.tick_params(labelsize=_SIZE - 1)
        ax.grid(True, which="major", color="0.9", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=_SIZE - 1, frameon=False)
    if not curves:
        axes[0].text(0.5, 0.5, "no steps were logged", ha="center", va="center", fontsize=_SIZE)
        axes[0].set_axis_off()
    return _save(figure, path)
