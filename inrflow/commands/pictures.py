"""The pictures of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inrflow.evaluation.evaluate import Evaluation
from inrflow.model.surrogate import Surrogate
from inrflow.plotting import error_figure, forecast_figure


def draw(
    directory: Path, surrogate: Surrogate, evaluation: Evaluation, triangles: np.ndarray | None = None
) -> list[Path]:
    """Forecast of one trajectory for every channel, and errors against time; returns the files."""
    example, description = evaluation.example, surrogate.description
    times = evaluation.times
    horizon = float(times[0]) + surrogate.horizon
    written = []
    for index, channel in enumerate(description.channels):
        path = directory / f"forecast_{channel}.png"
        forecast_figure(
            path, example["t"], example["x"], example["truth"], example["prediction"], example["std"],
            description.channels, description.units, channel=index, title=description.name, triangles=triangles,
            coordinates=description.coordinates, geometry=description.geometry, time_units=description.time_units,
            horizon=horizon,
        )
        written.append(path)
    path = directory / "errors.png"
    error_figure(
        path, times, evaluation.by_frame, horizon, "NMSE",
        title=description.name, time_units=description.time_units,
    )
    return [*written, path]
