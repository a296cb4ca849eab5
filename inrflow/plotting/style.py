"""Colours, sizes and labels of all figures, and saving of figures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, num2date
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox

from inrflow.data.calendar import number_to_date, other_calendar, parse_units
from inrflow.runtime.atomic_files import replaced_atomically

MODEL, TRUTH, BEYOND = "#1f5fa8", "#222222", "#b5482a"
GREYS = ("#8a8a8a", "#c98a2b", "#5b9a68", "#9a6fb0", "#b06a6a", "#4aa3b5", "#7d6b4f")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SIZE, DPI = 8.0, 150  # text size in points; resolution in dots per inch


def palette(values: np.ndarray) -> tuple[Colormap, tuple[float, float]]:
    """Colour map and limits of a field: centred on zero if it has both signs, else sequential."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if low < 0 < high and min(-low, high) > 0.1 * max(-low, high):
        size = max(-low, high)
        return colours("RdBu_r"), (-size, size)
    return colours("viridis"), (low, high) if high > low else (low - 0.5, high + 0.5)


def colours(name: str) -> Colormap:
    """Colour map in which unknown values are grey."""
    return colormaps[name].with_extremes(bad=(0.87, 0.87, 0.87))


def robust_colour_limit(values: np.ndarray) -> float:
    """Colour limit that is robust to a few extreme values: the 99.8th percentile of |values|."""
    known = np.abs(values[np.isfinite(values)])
    return float(np.percentile(known, 99.8)) or 1e-12 if len(known) else 1.0


class _Dates(ConciseDateFormatter):
    """Formatter of dates of ticks, with their common month or day, or those of the first and last tick, below them."""

    _ends: tuple[float, ...] = ()

    def format_ticks(self, values: Any) -> list[str]:
        self._ends = (values[0], values[-1]) if len(values) else ()
        return list(super().format_ticks(values))

    def get_offset(self) -> str:
        common = str(super().get_offset())
        first, *_, last = (num2date(end) for end in self._ends or (0.0, 0.0))
        form = next((one for one in self.offset_formats if last.strftime(one) == common), "")
        begin = first.strftime(form)
        return common if begin in ("", common) else f"{begin} to {common}"


def date_axis(ax: Axes) -> None:
    """Label the times of an axis as dates."""
    locator = AutoDateLocator(minticks=3, maxticks=7)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(_Dates(locator))
    ax.xaxis.get_offset_text().set_fontsize(SIZE - 1.5)


def shortened(name: str, most: int = 40) -> str:
    """Name from data as a label: at most so many characters, whose dollars are no formulas."""
    return (name if len(name) <= most else f"{name[: most - 1]}\u2026").replace("$", r"\$")


def units_label(text: str | None) -> str:
    """Label of units in brackets, with superscript exponents; empty without units."""
    if not text or text in ("1", "-"):
        return ""
    text = re.sub(r"(?<=[A-Za-z])(?:\*\*|\^)?(-?\d+)", lambda m: m[1].translate(_SUPERSCRIPTS), text)
    return f" [{shortened(text.replace('degC', '°C'))}]"


def moment_label(t: float, time_units: str | None, step: float = np.inf) -> str:
    """Label of a time: a date in a calendar, with the hour if steps are shorter than a day; else the number and its
    units without their epoch, with enough digits to resolve a `step`."""
    date = number_to_date(t, time_units)
    if date:
        own = other_calendar(time_units)
        calendar = parse_units(time_units if own is None else own[0])
        return date[:16].replace("T", " ") if calendar is not None and step * calendar[0] < 86400 else date[:10]
    written = f"{t:.4g}"
    if 0 < step < 1e-3 * abs(t):
        written = f"{t:.{max(0, -int(np.floor(np.log10(step))))}f}"
    return f"t = {written}" + (f" {time_units.partition(' since ')[0]}" if time_units else "")


class _Layout(ConstrainedLayoutEngine):
    """Constrained layout that measures what surrounds each panel once; matplotlib does so about four times, which takes
    most of the time of a figure. Labels are assumed to keep their sizes when panels are resized."""

    def execute(self, fig: Any) -> None:
        panels = list(fig.axes)
        for ax in panels:
            ax.get_tightbbox = _measured_once(ax)
        try:
            super().execute(fig)
        finally:
            for ax in panels:
                del ax.get_tightbbox


def _measured_once(ax: Axes) -> Callable[..., Bbox | None]:
    """Bounding box of a panel with its labels, as `ax.get_tightbbox` but measured at the first call: later ones add the
    same margins to its box."""
    measure, margins = ax.get_tightbbox, list[np.ndarray]()

    def bounds(renderer: Any = None, **options: Any) -> Bbox | None:
        if margins:
            place = ax.get_axes_locator()
            ax.apply_aspect(place(ax, renderer) if place is not None else None)
            return Bbox(ax.bbox.get_points() + margins[0])
        found = measure(renderer, **options)
        if found is not None:
            margins.append(found.get_points() - ax.bbox.get_points())
        return found

    return bounds


def new_figure(width: float, height: float, title: str | None) -> Figure:
    """Figure of width x height inches, independent of pyplot's state."""
    figure = Figure(figsize=(width, height), layout=_Layout(), dpi=DPI)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(shortened(title, 80), fontsize=SIZE + 2, fontweight="bold")
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Path of the figure, which is written atomically, as PDF or SVG according to the suffix, else as PNG."""
    kind = Path(path).suffix[1:].lower()
    kind = kind if kind in ("pdf", "svg") else "png"
    with replaced_atomically(path) as partial:
        if kind == "png":  # `savefig` lays a figure out and draws it twice
            FigureCanvasAgg(figure).print_png(partial)
        else:
            figure.savefig(partial, format=kind)
    return Path(path)


class _Powers(ScalarFormatter):
    """Formatter whose common power of ten is plain text; TeX takes longer than all other labels."""

    def get_offset(self) -> str:
        power = str(super().get_offset()).removeprefix("1e").replace("\N{MINUS SIGN}", "-")
        return f"×10{power.translate(_SUPERSCRIPTS)}" if power else ""


def format_colour_bar(bar: Any, label: str) -> None:
    """Set few ticks and a label on a colour bar; a common power of ten is shown above or beside it."""
    bar.locator = MaxNLocator(5)
    bar.formatter = _Powers(useOffset=False, useMathText=False)
    bar.formatter.set_powerlimits((-2, 3))
    bar.set_label(label, fontsize=SIZE)
    bar.ax.tick_params(labelsize=SIZE - 1.5, length=2)
    bar.update_ticks()
    for axis in (bar.ax.xaxis, bar.ax.yaxis):
        axis.get_offset_text().set_fontsize(SIZE - 1.5)


def format_log_axis(axis: Axis) -> None:
    """Label a logarithmic axis at powers of ten, and if it spans less than two also at 2 and 5."""
    low, high = sorted(axis.get_view_interval())
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
