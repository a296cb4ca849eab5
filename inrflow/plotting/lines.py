"""Fields in one dimension, drawn as curves with the 90 % interval around them."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inrflow.plotting.fields import ChannelFields
from inrflow.plotting.style import HALF_WIDTH, MODEL, SIZE, TRUTH, new_figure


def line_figure(data: ChannelFields, chosen: list[int], title: str | None) -> Figure:
    """One dimension: truth and forecast in one panel with the 90 % interval, the error below."""
    rows = [name for name in ("forecast", "error") if name in data.panels]
    figure = new_figure(2.1 * len(chosen) + 0.7, 1.9 * len(rows) + 0.7, title)
    axes = figure.subplots(len(rows), len(chosen), sharex=True, sharey="row", squeeze=False)
    for j, frame in enumerate(chosen):
        x = (data.x if data.x.ndim == 2 else data.x[frame])[:, 0]
        order = np.argsort(x)
        for i, name in enumerate(rows):
            draw_lines(axes[i, j], data, name, frame, x, order)
            axes[i, j].tick_params(labelsize=SIZE - 1.5, length=2)
        data.stamp(axes[0, j], frame)
        axes[-1, j].set_xlabel(data.coordinates[0], fontsize=SIZE)
    for i, name in enumerate(rows):
        axes[i, 0].set_ylabel(data.label(name), fontsize=SIZE)
    axes[0, 0].legend(fontsize=SIZE - 1, frameon=False)
    return figure


def draw_lines(ax: Axes, data: ChannelFields, name: str, frame: int, x: np.ndarray, order: np.ndarray) -> None:
    spread = data.panels["uncertainty"][frame] * HALF_WIDTH if "uncertainty" in data.panels else None
    values = data.panels[name][frame]
    if spread is not None:
        middle = values if name == "forecast" else 0.0 * values
        ax.fill_between(
            x[order],
            (middle - spread)[order],
            (middle + spread)[order],
            color=MODEL,
            alpha=0.2,
            linewidth=0,
            label="90 % interval",
        )
    if name == "forecast" and "truth" in data.panels:
        ax.plot(x[order], data.panels["truth"][frame][order], color=TRUTH, linewidth=1.6, label="truth")
    ax.plot(
        x[order], values[order], color=MODEL, linewidth=1.2, linestyle="--" if name == "forecast" else "-", label=name
    )
