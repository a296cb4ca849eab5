"""Still figures of a forecast: truth, model, error and uncertainty at several times."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from inrflow.plotting.fields import Scene
from inrflow.plotting.lines import line_figure
from inrflow.plotting.series import series_figure
from inrflow.plotting.style import SIZE, format_colour_bar, new_figure, save_figure
from inrflow.plotting.views import WIDE


def forecast_figure(
    path: str | os.PathLike[str],
    scene: Scene,
    *,
    channel: int | str = 0,
    frames: int | Sequence[int] = 5,
    title: str | None = None,
) -> Path:
    """Figure (PNG) of truth, model, error and uncertainty of one channel at several times; of a single place, a series.

    Args:
        path: file, replaced atomically. Raises UserError if it cannot be written.
        channel: name or index of the channel.
        frames: number of evenly spaced times, or indices of frames.
    """
    data = scene.channel(channel)
    alone = series_figure(path, scene, channel=channel, title=title) if data.x.shape[:-1] == (1,) else None
    if alone is not None:
        return alone
    places = (
        np.unique(np.linspace(0, len(data.t) - 1, frames).round().astype(int))
        if isinstance(frames, int)
        else np.asarray(frames)
    )
    chosen = [int(place) for place in places]
    if data.x.shape[-1] == 1:
        return save_figure(line_figure(data, chosen, title), path)
    views = [data.view(frame) for frame in chosen]
    styles = data.styles(chosen)
    names = list(styles)
    wide = views[0].ratio > WIDE
    rows, columns = (len(chosen), len(names)) if wide else (len(names), len(chosen))
    width = 2.9 if wide else 1.9
    height = width / views[0].ratio
    figure = new_figure(
        columns * width + 1.4, rows * (height + (0.16 if wide else 0.1)) + (1.2 if wide else 0.8), title
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    bars: dict[str, list[Axes]] = {}
    drawn = {}
    for j, (frame, view) in enumerate(zip(chosen, views, strict=True)):
        for i, name in enumerate(names):
            ax = axes[j, i] if wide else axes[i, j]
            drawn[name] = view.draw(ax, data.panels[name][frame], *styles[name])
            if data.marked(name, frame) and data.sensors is not None:
                view.mark(ax, data.sensors)
            view.format_axes(ax, bottom=(j == len(chosen) - 1) if wide else i == len(names) - 1,
                             left=(i if wide else j) == 0)
            bars.setdefault("field" if name in ("truth", "model") else name, []).append(ax)
            if name == "error":
                _note_rmse(ax, data.panels["error"][frame])
            if not wide and i == 0:
                data.stamp(ax, frame)
            if wide and j == 0:
                ax.set_title(name, fontsize=SIZE + 0.5, fontweight="bold")
        if wide:
            words = "\n".join([data.moment(frame), *data.status(frame).split(", ")]).rstrip()
            _beside(axes[j, 0], words, color=data.colour(frame), rotation=0)
    if not wide:
        for i, name in enumerate(names):
            _beside(axes[i, 0], name, fontweight="bold", rotation=90)
    for kind, group in bars.items():
        panel = "model" if kind == "field" else kind
        bar = figure.colorbar(
            drawn[panel], ax=group, location="bottom" if wide else "right", aspect=30, pad=0.02, fraction=0.05
        )
        format_colour_bar(bar, data.label(panel))
    return save_figure(figure, path)


def _beside(ax: Axes, words: str, **style: object) -> None:
    """Add text to the left of a panel, beside the label of its axis."""
    ax.annotate(words, (0, 0.5), xycoords=ax.yaxis.label, xytext=(-6, 0), textcoords="offset points", ha="right",
                va="center", multialignment="center", fontsize=SIZE, **style)  # type: ignore[arg-type]


def _note_rmse(ax: Axes, error: np.ndarray) -> None:
    known = error[np.isfinite(error)]
    if len(known):  # above the panel, where it hides no value
        ax.set_title(f"RMSE {np.sqrt(np.mean(known**2)):.2g}", loc="right", fontsize=SIZE - 2, pad=2)
