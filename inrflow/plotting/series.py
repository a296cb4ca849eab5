"""Figure of time series at some places: truth, model and the 90% interval."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.calendar import numbers_to_moments, parse_units
from inrflow.data.description import PLACE
from inrflow.data.formats.sphere import xyz_to_lonlat
from inrflow.numerics.normal import HALF_WIDTH_90
from inrflow.plotting.fields import ChannelFields, Scene
from inrflow.plotting.style import BEYOND, MODEL, SIZE, TRUTH, date_axis, new_figure, save_figure
from inrflow.plotting.views import degrees

_FEW = 80  # largest number of frames for which values of the truth are marked
_LEAST = 3  # least frames of a series


def series_figure(
    path: str | os.PathLike[str], scene: Scene, *, channel: int | str = 0, places: int = 4, title: str | None = None
) -> Path | None:
    """Figure (PNG) of the series of one channel at some distant places; None if points move or there are fewer than
    three frames. The assimilated time span is shaded, and the end of training marked."""
    data = scene.channel(channel)
    if data.x.ndim > 2 or len(data.t) < _LEAST:
        return None
    chosen = _apart(data, places)
    figure = new_figure(6.4, 1.15 * len(chosen) + 0.9, title)
    axes = np.ravel(figure.subplots(len(chosen), 1, sharex=True, squeeze=False))
    calendar = parse_units(scene.time_units) is not None

    def on_axis(t: Any) -> Any:
        return numbers_to_moments(np.asarray(t), scene.time_units) if calendar else t

    t = on_axis(data.t)
    for ax, place in zip(axes, chosen, strict=True):
        if scene.assimilated is not None and scene.assimilated > data.t[0]:
            ax.axvspan(t[0], on_axis(scene.assimilated), color="0.92", linewidth=0, zorder=0, label="assimilated")
        if scene.horizon is not None and scene.horizon < data.t[-1]:
            ax.axvline(on_axis(scene.horizon), color=BEYOND, linewidth=1.0, linestyle="--", label="end of training")
        model = data.panels["model"][:, place]
        if "std" in data.panels:
            spread = HALF_WIDTH_90 * data.panels["std"][:, place]
            ax.fill_between(t, model - spread, model + spread, color=MODEL, alpha=0.2, linewidth=0,
                            label="90% interval")
        ax.plot(t, model, color=MODEL, linewidth=1.2, label="model")
        if "truth" in data.panels:
            few = len(data.t) <= _FEW
            ax.plot(t, data.panels["truth"][:, place], color=TRUTH, linewidth=0.0 if few else 0.7, label="truth",
                    marker="o" if few else None, markersize=2.2, zorder=3)
        ax.set_title(_name(data, place), fontsize=SIZE - 1, loc="left", pad=2)
        ax.tick_params(labelsize=SIZE - 1.5, length=2)
        ax.yaxis.get_offset_text().set_fontsize(SIZE - 1.5)
        ax.spines[["top", "right"]].set_visible(False)
        ax.locator_params(axis="y", nbins=4)
        ax.margins(x=0.01)
    if calendar:
        date_axis(axes[-1])
    else:
        axes[-1].set_xlabel("t" + (f" [{scene.time_units}]" if scene.time_units else ""), fontsize=SIZE)
    figure.supylabel(data.label("model"), fontsize=SIZE)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=SIZE - 1, frameon=False)
    return save_figure(figure, path)


def _apart(data: ChannelFields, count: int) -> list[int]:
    """Indices of observed places by farthest-point sampling, starting with the one nearest to the centre."""
    seen = np.flatnonzero(np.isfinite(data.panels.get("truth", data.panels["model"])).any(0))
    x = data.x[seen] / np.maximum(np.ptp(data.x[seen], axis=0), 1e-12)
    chosen = [int(np.square(x - x.mean(0)).sum(1).argmin())]
    distance = np.square(x - x[chosen[0]]).sum(1)
    while len(chosen) < min(count, len(seen)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(x - x[chosen[-1]]).sum(1))
    return [int(seen[index]) for index in chosen]


def _name(data: ChannelFields, place: int) -> str:
    x = data.x[place]
    if tuple(data.coordinates) == (PLACE,):
        return ""
    if data.scene.geometry == "sphere":
        lon, lat = np.round(xyz_to_lonlat(x[None])[0], 2)
        return f"{degrees(float(lon), 'E', 'W')} {degrees(float(lat), 'N', 'S')}"
    return ", ".join(f"{name} = {value:.4g}" for name, value in zip(data.coordinates, x, strict=True))
