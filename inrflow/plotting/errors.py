"""Figure of the errors of the model and of the reference forecasts by time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.calendar import number_to_date, parse_units
from inrflow.plotting.style import BEYOND, GREYS, MODEL, SIZE, date_axis, new_figure, save_figure

_DASHES = ("-", "--", "-.", ":")


def error_figure(
    path: str | os.PathLike[str],
    times: Any,
    errors: Mapping[str, Any],
    horizon: float | None = None,
    ylabel: str = "NMSE",
    *,
    title: str | None = None,
    time_units: str | None = None,
) -> Path:
    """Figure (PNG) of errors by time, log scale, of the model (the first of `errors`) and of reference forecasts.

    Args:
        times: (T,). errors: label -> (T,); gaps where values are not positive or not finite.
        horizon: last time of training; later times are shaded.
    """
    times = np.asarray(times, np.float64)
    calendar = parse_units(time_units) is not None
    axis: Any = [np.datetime64(number_to_date(time, time_units)) for time in times] if calendar else times
    figure = new_figure(6.0, 3.4, title)
    ax = figure.subplots()
    any_known = False
    for place, (name, values) in enumerate(errors.items()):
        values = np.asarray(values, np.float64)
        values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        any_known = any_known or bool(np.isfinite(values).any())
        style: dict[str, Any] = (
            {"color": MODEL, "linewidth": 3.2}
            if place == 0  # below the others, which may coincide with it and with each other
            else {"color": GREYS[(place - 1) % len(GREYS)], "linewidth": 1.3, "linestyle": _DASHES[(place - 1) % 4]}
        )
        ax.plot(
            axis,
            values,
            label=name,
            markersize=2.5,
            marker="o" if len(times) <= 30 else None,
            **style,
        )
    if horizon is not None and horizon < times[-1]:
        edge: Any = np.datetime64(number_to_date(horizon, time_units)) if calendar else horizon
        ax.axvspan(edge, axis[-1], color=BEYOND, alpha=0.07, linewidth=0)
        ax.axvline(edge, color=BEYOND, linewidth=1.0, linestyle="--")
        ax.annotate(
            "beyond training",
            (edge, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3),
            textcoords="offset points",
            fontsize=SIZE,
            color=BEYOND,
        )
    if any_known:  # none for constant fields
        ax.set_yscale("log")
    ax.margins(x=0.01)
    if calendar:
        date_axis(ax)
    else:
        ax.set_xlabel("t" + (f" [{time_units}]" if time_units else ""), fontsize=SIZE + 1)
    ax.set_ylabel(ylabel, fontsize=SIZE + 1)
    ax.tick_params(labelsize=SIZE, which="both")
    ax.grid(True, which="major", color="0.9", linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=SIZE, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save_figure(figure, path)
