"""Diagnostic figures: calibration of predictive intervals, and power spectra of errors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from inrflow.plotting.fields import ChannelFields, Scene
from inrflow.plotting.style import BEYOND, MODEL, SIZE, TRUTH, format_log_axis, new_figure, save_figure, shortened
from inrflow.plotting.views import lattice

_FLOOR = 1e-12  # power relative to the largest below which it is rounding
_LEAST = 8  # least points along an axis for a spectrum


def calibration_figure(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], *, title: str | None = None
                       ) -> Path:
    """Figure (PNG) of the empirical against the nominal coverage of intervals, with a line for each lead time, and, in
    the same colours, of the root mean square error relative to the predicted standard deviation.

    rows: `by_lead` of a report's `calibration`.
    """
    levels = [int(key.removeprefix("coverage_")) for key in rows[0] if key.startswith("coverage_")]
    figure = new_figure(6.4, 3.0, title)
    left, right = figure.subplots(1, 2)
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(rows)))
    names = [_lead(row) for row in rows]
    left.plot([0, 100], [0, 100], color="0.75", linewidth=1.0, zorder=0)
    for row, name, shade in zip(rows, names, shades, strict=True):
        held = [100 * row[f"coverage_{level}"] for level in levels]
        left.plot(levels, held, color=shade, marker="o", markersize=3.5, linewidth=1.3)
        right.scatter(row["z_spread"], name, color=shade, s=24, zorder=2)
    low = min(40.0, *(100 * row[f"coverage_{level}"] - 5 for row in rows for level in levels))
    left.set(xlim=(45, 100), ylim=(max(0.0, low), 101), xticks=levels)
    left.set_xlabel("interval [%]", fontsize=SIZE)
    left.set_ylabel("values it holds [%]", fontsize=SIZE)
    right.axvline(1.0, color="0.75", linewidth=1.0, zorder=0)
    right.set_xlabel("rms error / predicted deviation", fontsize=SIZE)
    right.set_xscale("log")
    reach = max(1.6, *(max(row["z_spread"], 1 / max(row["z_spread"], 1e-3)) for row in rows)) * 1.15
    right.set_xlim(1 / reach, reach)
    ticks = [tick for tick in (0.01, 0.1, 0.2, 0.5, 0.7, 1, 1.4, 2, 5, 10, 100) if 1 / reach <= tick <= reach]
    ticks = [tick for tick in ticks if reach < 3 or tick not in (0.7, 1.4)]
    right.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    right.minorticks_off()
    right.set_ylim(len(rows) - 0.5, -0.5)
    for ax in (left, right):
        ax.tick_params(labelsize=SIZE - 1, which="both")
        ax.grid(True, color="0.93", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, path)


def _lead(row: Mapping[str, Any]) -> str:
    end = row["up_to"]
    if end is None or np.isinf(end):
        return f"over {row['above']:g} steps ahead"
    return "observed times" if end == 0 else f"up to {end:g} steps ahead"


def spectrum_figure(
    path: str | os.PathLike[str], scene: Scene, *, channel: int | str = 0, title: str | None = None
) -> Path | None:
    """Figure (PNG) of the power spectra of truth, model and error of one channel at the first forecast and at the last
    time; None if points are no full grid in one or two dimensions, or there is no truth.

    Spectra are of the field minus its mean under a Hann window (since it may not be periodic), summed over rings of
    wavenumbers.
    """
    data = scene.channel(channel)
    grid = _grid(data)
    if grid is None or "truth" not in data.panels:
        return None
    order, spacings, shape = grid
    whole = [frame for frame in range(len(data.t)) if np.isfinite(data.panels["truth"][frame]).all()]
    ahead = [frame for frame in whole if not data.assimilated(frame)] or whole
    if not whole:
        return None
    frames = sorted({ahead[0], ahead[-1]})
    figure = new_figure(3.2 * len(frames) + 0.4, 2.9, title)
    axes = np.ravel(figure.subplots(1, len(frames), sharey=True, squeeze=False))
    for ax, frame in zip(axes, frames, strict=True):
        for name, colour, style in (("truth", TRUTH, "-"), ("model", MODEL, "--"), ("error", BEYOND, ":")):
            k, power = _spectrum(data.panels[name][frame][order].reshape(shape), spacings)
            ax.plot(k, power, style, color=colour, linewidth=1.4, label=name)
        ax.set(xscale="log", yscale="log")
        format_log_axis(ax.xaxis)
        data.stamp(ax, frame)
        units = "" if data.x.shape[-1] > 1 else f" in {data.coordinates[0]}"
        ax.set_xlabel(f"wavenumber{units} [cycles per unit]", fontsize=SIZE)
        ax.tick_params(labelsize=SIZE - 1, which="both")
        ax.grid(True, which="major", color="0.93", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
    top = axes[0].get_ylim()[1]
    axes[0].set_ylim(bottom=max(axes[0].get_ylim()[0], _FLOOR * top))
    axes[0].set_ylabel(f"power of {shortened(data.name)}", fontsize=SIZE)
    drawn = [line for line in axes[0].lines if np.max(line.get_ydata()) > axes[0].get_ylim()[0]]
    axes[0].legend(handles=drawn, fontsize=SIZE - 1, frameon=False)
    return save_figure(figure, path)


def _grid(data: ChannelFields) -> tuple[np.ndarray, list[float], tuple[int, ...]] | None:
    """Order of the points on an evenly spaced grid, its spacings and shape; None for other points."""
    if data.scene.geometry is not None or data.x.ndim > 2 or data.x.shape[-1] > 2:
        return None
    if data.x.shape[-1] == 1:
        axes, order = [np.sort(data.x[:, 0])], np.argsort(data.x[:, 0])
    else:
        axes, cells = lattice(data.x)
        if cells is None or len(axes[0]) * len(axes[1]) != len(data.x):
            return None
        order = np.lexsort((cells[1], cells[0]))
    steps = [np.diff(axis) for axis in axes]
    if any(len(axis) < _LEAST or np.ptp(step) > 1e-3 * step.mean() for axis, step in zip(axes, steps, strict=True)):
        return None
    return order, [float(step.mean()) for step in steps], tuple(len(axis) for axis in axes)


def _spectrum(field: np.ndarray, spacings: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Wavenumbers of rings and the power in each, up to the highest that every axis resolves."""
    windows = [np.hanning(size + 1)[:-1] for size in field.shape]
    window = windows[0] if field.ndim == 1 else np.outer(*windows)
    power = np.square(np.abs(np.fft.fftn((field - field.mean()) * window))) / field.size**2 / np.mean(window**2)
    axes = [np.fft.fftfreq(size, step) for size, step in zip(field.shape, spacings, strict=True)]
    radius = np.sqrt(sum(np.square(k) for k in np.meshgrid(*axes, indexing="ij")))
    width = max(1 / (size * step) for size, step in zip(field.shape, spacings, strict=True))
    ring = np.round(radius / width).astype(int)
    count = int(min(0.5 / step for step in spacings) / width) - 1  # rings that lie within all axes
    return width * np.arange(1, count + 1), np.bincount(ring.ravel(), power.ravel())[1 : count + 1]
