"""What is in a data file, in a screenful of labelled rows. Statistics stream through the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from inrflow.data.formats.blocks import VALUES_PER_BLOCK
from inrflow.data.formats.calendar import number_to_date
from inrflow.data.formats.columns import file_format, open_columns
from inrflow.data.formats.sphere import xyz_to_lonlat
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.errors import UserError


def describe(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """(label, text) rows that describe a data file: a trajectory file in full, a table by its columns.

    Raises UserError where the file cannot be read.
    """
    path = Path(path)
    kind = file_format(path)
    if kind == "trajectories":
        with TrajectoryFile(path) as file:
            return [("file", f"{path} ({path.stat().st_size / 1e6:.3g} MB)"), *_trajectory_rows(file)]
    rows = [("file", f"{path} ({path.stat().st_size / 1e6:.3g} MB)")]
    if kind == "npz":
        with np.load(path, allow_pickle=False) as archive:
            rows += [("format", "npz"), ("arrays", ", ".join(archive.files))]
    else:
        with open_columns(path, [("t", "time")]) as columns:
            count = sum(len(next(iter(block.values()))) for block in columns.blocks(1 << 16))
            rows += [("format", {"csv": "CSV", "hdf5": "HDF5, flat", "netcdf": "NetCDF"}[kind]),
                     ("rows", f"{count}"), ("columns", ", ".join(columns.names))]
    return [*rows, ("note", f"`inrflow convert {path} TARGET` writes it in the project's schema")]


def channel_statistics(file: TrajectoryFile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and share of missing values of each channel over a whole file, each (C,) float64.

    One pass in blocks; sums of squares are merged about each block's own mean (Chan, Golub and LeVeque 1983), so that
    a mean far from zero costs no digits. Raises UserError where values are infinite.
    """
    channels = len(file.description.channels)
    count, total = np.zeros(channels), np.zeros(channels)
    mean, squares = np.zeros(channels), np.zeros(channels)
    for u in _value_blocks(file):
        if np.isinf(u).any():
            raise UserError(f"{file.path}: u holds infinite values; mark missing values as NaN and remove the rest")
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
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, mean, np.nan), np.sqrt(squares / count), 1.0 - count / total


def _value_blocks(file: TrajectoryFile) -> Iterator[np.ndarray]:
    channels = len(file.description.channels)
    if file.layout == "scattered":
        step = max(1, VALUES_PER_BLOCK // (channels + len(file.description.coordinates)))
        for start in range(0, file.rows, step):
            yield file.read_rows(start, start + step)[3].astype(np.float64)
        return
    step = max(1, VALUES_PER_BLOCK // (file.points * channels))
    for trajectory, times in enumerate(file.times()):
        for start in range(0, int(np.isfinite(times).sum()), step):
            yield file.read(trajectory, slice(start, start + step)).u.reshape(-1, channels).astype(np.float64)


def _trajectory_rows(file: TrajectoryFile) -> list[tuple[str, str]]:
    about = file.description
    places = {"shared": "points shared by all trajectories", "per_trajectory": "points of its own for each trajectory",
              "moving": "points that change with time"}[file.point_layout]
    sizes = (f"{file.trajectories} trajectories x {file.frames} frames x {file.points} points x "
             f"{len(about.channels)} channels")
    if file.layout == "scattered":
        sizes += f", {file.rows} rows"
    rows = [("name", about.name), ("layout", f"{file.layout}, {places}"), ("sizes", sizes),
            ("times", _times(file)), ("coordinates", _coordinates(file))]
    mean, deviation, missing = channel_statistics(file)
    for index, name in enumerate(about.channels):
        unit = f" {about.units[index]}" if about.units else ""
        rows.append((f"channel {name}", f"mean {mean[index]:.4g}{unit}, standard deviation {deviation[index]:.4g}{unit}"
                     f", {100 * missing[index]:.3g} % missing"))
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
        text += f" ({dates[0][:10]} to {dates[1][:10]})"
    steps = np.diff(times, axis=1)
    steps = steps[np.isfinite(steps)]
    if len(steps):
        low, high = float(steps.min()), float(steps.max())
        regular = high - low <= 1e-6 * high
        text += f", every {np.median(steps):g}" if regular else f", irregular: steps {low:g} to {high:g}"
    if file.trajectories > 1:
        text += ", shared by all trajectories" if file.shared_times else ", own times for each trajectory"
    counts = np.isfinite(times).sum(1)
    if counts.min() < counts.max():
        text += f", {counts.min()} to {counts.max()} frames"
    period = file.description.time_period
    return text + (f", forced with period {period:g}" if period else "")


def _coordinates(file: TrajectoryFile) -> str:
    about, box = file.description, file.box
    box[np.abs(box) < 1e-9 * np.ptp(box, axis=0).max()] = 0.0
    low, high = box
    parts = []
    for axis, name in enumerate(about.coordinates):
        period = about.period[axis] if about.period else 0.0
        parts.append(f"{name} {low[axis]:.4g} to {high[axis]:.4g}" + (f" (period {period:.4g})" if period else ""))
    text = ", ".join(parts)
    if about.geometry == "sphere":
        text += "; unit vectors on a sphere"
        if file.point_layout == "shared":
            latitude = xyz_to_lonlat(file.read(0, [0]).x)[:, 1]
            text += f", latitude {latitude.min():.3g} to {latitude.max():.3g}"
    return text
