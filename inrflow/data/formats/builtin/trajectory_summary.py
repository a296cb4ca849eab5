"""Summary of a trajectory file in labelled rows, with statistics streamed from the file, or a part of a large one."""

from __future__ import annotations

import math

import numpy as np

from inrflow.data.calendar import number_to_date, seconds_of_unit
from inrflow.data.formats.sphere import xyz_to_lonlat
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.station_units import MOST_PLACES, VALUES, units_told
from inrflow.runtime.shown import counted, trajectories

_LOOKED_AT = 2e7  # values used for statistics, which takes seconds


def channel_statistics(file: TrajectoryFile, every: int = 1) -> tuple[np.ndarray, ...]:
    """Mean, standard deviation, share of missing values, minimum and maximum of each channel over a whole file, or one
    in `every` blocks of values; each (C,) float64.

    One pass in blocks; sums of squares are merged about each block's own mean (Chan, Golub and LeVeque 1983), so that
    a mean far from zero loses no digits. Raises UserError if values are infinite.
    """
    channels = len(file.description.channels)
    count, total = np.zeros(channels), np.zeros(channels)
    mean, squares = np.zeros(channels), np.zeros(channels)
    least, greatest = np.full(channels, np.inf), np.full(channels, -np.inf)
    for block in file.value_blocks(every):
        u = block.astype(np.float64)
        known = ~np.isnan(u)
        n = known.sum(0)
        total += len(u)
        filled = np.where(known, u, 0.0)
        block_mean = filled.sum(0) / np.maximum(n, 1)
        block_squares = (np.where(known, u - block_mean, 0.0) ** 2).sum(0)
        both = np.maximum(count + n, 1)
        squares += block_squares + (block_mean - mean) ** 2 * count * n / both
        mean += (block_mean - mean) * n / both
        count += n
        least = np.fmin(least, np.fmin.reduce(u, initial=np.inf))
        greatest = np.fmax(greatest, np.fmax.reduce(u, initial=-np.inf))
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, mean, np.nan), np.sqrt(squares / count), 1.0 - count / total, least, greatest


def trajectory_rows(file: TrajectoryFile) -> list[tuple[str, str]]:
    """(label, text) rows on sizes, times, places, channels and origin of a trajectory file."""
    about = file.description
    places = {"shared": "points shared by all trajectories", "per_trajectory": "points of its own for each trajectory",
              "moving": "points that change with time"}[file.point_layout]
    sizes = " x ".join([trajectories(file.trajectories), counted(file.frames, "frame"), counted(file.points, "point"),
                        counted(len(about.channels), "channel")])
    if file.layout == "scattered":
        sizes += f", {file.rows} rows"
    rows = [("name", about.name), ("layout", f"{file.layout}, {places}"), ("sizes", sizes),
            ("times", _times(file)), ("coordinates", _coordinates(file))]
    frames = file.rows if file.layout == "scattered" else int(np.isfinite(file.times()).sum()) * file.points
    every = max(1, math.ceil(frames * len(about.channels) / _LOOKED_AT))
    mean, deviation, missing, least, greatest = channel_statistics(file, every)
    for index, name in enumerate(about.channels):
        unit = f" {about.units[index]}" if about.units and about.units[index] not in ("1", "-") else ""
        rows.append((f"channel {name}", f"mean {mean[index]:.4g}{unit}, standard deviation {deviation[index]:.4g}{unit}"
                     + (f", {least[index]:.4g} to {greatest[index]:.4g}" if missing[index] < 1 else "")
                     + f", {100 * missing[index]:.3g} % missing"
                     + (f" (of one part in {every})" if every > 1 else "")))
    if file.trajectories == 1 and file.point_layout == "shared" and file.points <= MOST_PLACES:
        some = file.read(0, slice(max(2, VALUES // (file.points * len(about.channels)))))
        rows += [("another unit?", clause) for clause in units_told(
            some.x, some.u, about.channels, about.places)]
    rows += [("mind", about.clash)] * bool(about.clash)
    rows.append(("symmetries", ", ".join(about.symmetries.names) or "none declared"))
    if file.parameters is not None:
        spans = zip(about.parameter_names, file.parameters.min(0), file.parameters.max(0), strict=True)
        rows.append(("parameters", ", ".join(f"{name} {low:.4g} to {high:.4g}" for name, low, high in spans)))
    if file.environment is not None:
        rows.append(("environments", f"{len(np.unique(file.environment))}"))
    if file.extra:
        shapes = (f"{name} {shape}" for name, shape in file.extra_shapes().items())
        rows.append(("also in file", ", ".join(shapes)))
    return rows + [(label, text) for label, text in (("source", about.source), ("licence", about.licence)) if text]


def _times(file: TrajectoryFile) -> str:
    times, units = file.times(), file.description.time_units
    first, last = float(np.nanmin(times)), float(np.nanmax(times))
    text = f"{first:g} to {last:g}" + (f" {units}" if units else "")
    dates = [number_to_date(value, units) for value in (first, last)]
    if dates[0] and dates[1]:
        digits = None if dates[0][:10] == dates[1][:10] else 10  # clock times if all on one day
        text += f" ({dates[0][:digits]} to {dates[1][:digits]})"
    steps = np.diff(times, axis=1)
    steps = steps[np.isfinite(steps)]
    if len(steps):
        low, high = float(steps.min()), float(steps.max())
        regular = high - low <= 1e-5 * high  # times may have been in single precision
        step = float(np.median(steps))
        text += f", every {step:g}{_in_larger_units(step, units)}" if regular else (
            f", irregular: steps {low:g} to {high:g}")
    if file.trajectories > 1:
        text += ", shared by all trajectories" if file.shared_times else ", own times for each trajectory"
    counts = np.isfinite(times).sum(1)
    if counts.min() < counts.max():
        text += f", {counts.min()} to {counts.max()} frames"
    period = file.description.time_period
    return text + (f", forced with period {period:g}" if period else "")


def _in_larger_units(step: float, units: str | None) -> str:
    """A step of 43200 seconds as ` (12 hours)`; empty where no larger unit fits in it."""
    seconds = seconds_of_unit(units)
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds is not None and seconds < size <= (1 + 1e-9) * step * seconds:
            count = round(step * seconds / size, 3)
            return f" ({counted(int(count) if count.is_integer() else count, name)})"
    return ""


def _coordinates(file: TrajectoryFile) -> str:
    about, box = file.description, file.box
    if about.placeless:
        return "none: a single place"
    shown = file.apparent_domain()
    box[np.abs(box) < 1e-9 * np.ptp(box, axis=0).max()] = 0.0
    low, high = box
    parts = []
    for axis, name in enumerate(about.coordinates):
        period = about.period[axis] if about.period else 0.0
        period, word = (shown["period"][axis], "looks periodic") if "period" in shown else (period, "period")
        parts.append(f"{name} {low[axis]:.4g} to {high[axis]:.4g}" + (f" ({word} {period:.4g})" if period else ""))
    text = ", ".join(parts) + ("; look like unit vectors on a sphere" if "geometry" in shown else "")
    if about.geometry == "sphere":
        text += "; unit vectors on a sphere"
        if file.point_layout == "shared":
            latitude = xyz_to_lonlat(file.read(0, [0]).x)[:, 1]
            text += f", latitude {latitude.min():.3g} to {latitude.max():.3g}"
    return text
