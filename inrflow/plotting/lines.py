"""Fields in one dimension, drawn as curves with the 90% interval around them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inrflow.numerics.normal import HALF_WIDTH_90
from inrflow.plotting.fields import ChannelFields
from inrflow.plotting.style import MODEL, SIZE, TRUTH, new_figure, shortened


def line_figure(data: ChannelFields, chosen: list[int], title: str | None) -> Figure:
    """Truth and model in one panel with the 90% interval, the error below, at chosen frames."""
    rows = [name for name in ("model", "error") if name in data.panels]
    figure = new_figure(2.1 * len(chosen) + 0.7, 1.9 * len(rows) + 0.7, title)
    axes = figure.subplots(len(rows), len(chosen), sharex=True, sharey="row", squeeze=False)
    for j, frame in enumerate(chosen):
        x = data.places(frame)[:, 0]
        order = np.argsort(x)
        for i, name in enumerate(rows):
            draw_lines(axes[i, j], data, name, frame, x, order)
            axes[i, j].tick_params(labelsize=SIZE - 1.5, length=2)
            axes[i, j].yaxis.get_offset_text().set_fontsize(SIZE - 1.5)
        data.stamp(axes[0, j], frame)
        axes[-1, j].set_xlabel(shortened(data.coordinates[0]), fontsize=SIZE)
    for i, name in enumerate(rows):
        axes[i, 0].set_ylabel(data.label(name), fontsize=SIZE)
    axes[0, 0].legend(fontsize=SIZE - 1, frameon=False)
    return figure


def draw_lines(ax: Axes, data: ChannelFields, name: str, frame: int, x: np.ndarray, order: np.ndarray) -> None:
    """Draw one panel at a frame: its values at x (N,), in the `order` of x."""
    spread = data.panels["std"][frame] * HALF_WIDTH_90 if "std" in data.panels else None
    values = data.panels[name][frame]
    if spread is not None:
        middle = values if name == "model" else 0.0 * values
        ax.fill_between(
            x[order],
            (middle - spread)[order],
            (middle + spread)[order],
            color=MODEL,
            alpha=0.2,
            linewidth=0,
            label="90% interval",
        )
    if name == "model" and "truth" in data.panels:
        ax.plot(x[order], data.panels["truth"][frame][order], color=TRUTH, linewidth=1.6, label="truth")
    if name == "model" and "truth" in data.panels and data.sensors is not None and data.assimilated(frame):
        at = order[np.searchsorted(x[order], data.sensors[:, 0]).clip(max=len(x) - 1)]
        ax.plot(x[at], data.panels["truth"][frame][at], "o", color=TRUTH, markersize=2.5, label="observed")
    ax.plot(
        x[order], values[order], color=MODEL, linewidth=1.2, linestyle="--" if name == "model" else "-", label=name
    )
