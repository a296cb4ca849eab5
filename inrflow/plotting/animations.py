"""The same panels moving in time, as a GIF."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import PillowWriter

from inrflow.files import write_aside
from inrflow.plotting.fields import channel_fields
from inrflow.plotting.lines import draw_lines
from inrflow.plotting.style import BEYOND, SIZE, TRUTH, dress_bar, moment_label, new_figure
from inrflow.plotting.views import WIDE


def animation(
    path: str | os.PathLike[str],
    t: Any,
    x: Any,
    truth: Any,
    prediction: Any,
    std: Any,
    channels: Sequence[str],
    units: Sequence[str] | None = None,
    *,
    channel: int | str = 0,
    title: str | None = None,
    triangles: Any = None,
    coordinates: Sequence[str] | None = None,
    geometry: str | None = None,
    time_units: str | None = None,
    horizon: float | None = None,
    frames_per_second: float = 8.0,
    largest: int = 60,
) -> Path:
    """Truth, forecast, error and uncertainty of one channel moving in time, as a GIF of at most `largest` frames.

    The other arguments are those of `forecast_figure`.
    """
    data = channel_fields(
        t, x, truth, prediction, std, channels, units, channel, coordinates, geometry, triangles, time_units, horizon
    )
    chosen = np.unique(np.linspace(0, len(data.t) - 1, min(largest, len(data.t))).round().astype(int)).tolist()
    lines = data.x.shape[-1] == 1
    view = data.view(chosen[0])
    names = [name for name in ("forecast", "error") if name in data.panels] if lines else list(data.panels)
    stacked = lines or view.ratio > WIDE
    width = 4.2 if stacked else 2.3
    height = 1.7 if lines else width / view.ratio
    count = len(names)
    size = (width + 1.2, count * (height + 0.35) + 0.8) if stacked else (count * (width + 0.3) + 0.4, height + 1.7)
    figure = new_figure(*size, title)
    axes = np.ravel(figure.subplots(count if stacked else 1, 1 if stacked else count, squeeze=False))
    styles = {} if lines else data.styles(chosen)
    limits = {name: data.line_limits(name) for name in names} if lines else {}
    drawn: list[Any] = []

    def draw(frame: int) -> None:
        beyond = data.beyond(frame)
        figure.supxlabel(
            moment_label(data.t[frame], time_units) + (" · beyond training" if beyond else ""),
            fontsize=SIZE + 1,
            color=BEYOND if beyond else TRUTH,
        )
        for ax, name in zip(axes, names, strict=True):
            if lines:
                position = (data.x if data.x.ndim == 2 else data.x[frame])[:, 0]
                ax.clear()
                draw_lines(ax, data, name, frame, position, np.argsort(position))
                ax.set_ylim(*limits[name])
                ax.set_ylabel(data.label(name), fontsize=SIZE)
                ax.tick_params(labelsize=SIZE - 1.5)
                if name == names[0]:
                    ax.legend(fontsize=SIZE - 1, frameon=False, loc="upper right")
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
                        ax.set_title(name, fontsize=SIZE + 1)
                        bar = figure.colorbar(
                            drawn[place], ax=ax, aspect=15, pad=0.02, location="right" if stacked else "bottom"
                        )
                        dress_bar(bar, data.label(name))
                writer.grab_frame()
                figure.set_layout_engine("none")  # the first frame's layout serves all

    return write_aside(path, write)
