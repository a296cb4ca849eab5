"""What a surrogate has seen of space and time, and the warnings where a query leaves it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from inrflow.data.description import Description

_MARGIN = 1e-6  # of the width, for coordinates and times that were rounded


@dataclass(frozen=True)
class Extent:
    """The box (2, d) of the training data's coordinates, and the time from their first to their last frame."""

    description: Description
    box: np.ndarray
    horizon: float

    def outside(self, x: np.ndarray | Tensor) -> np.ndarray:
        """Which of the points (..., d) leave the box along coordinates that are not periodic."""
        points = np.asarray(x)
        if self.description.geometry == "sphere":
            return np.zeros(points.shape[:-1], bool)
        margin = _MARGIN * (self.box[1] - self.box[0] + 1e-300)
        beyond = (points < self.box[0] - margin) | (points > self.box[1] + margin)
        if self.description.period is not None:
            beyond &= np.asarray(self.description.period) == 0
        return beyond.any(-1)

    def beyond(self, t: np.ndarray, start: float) -> np.ndarray:
        """Which of the times t lie before the first observation, at `start`, or farther after it than training saw."""
        margin = _MARGIN * self.horizon
        return (t < start - margin) | (t > start + self.horizon + margin)

    def warn_outside(self, outside: int, points: int) -> None:
        """Warn, once, where any of so many points asked for lie `outside` the box."""
        if not outside:
            return
        box = ", ".join(
            f"{name} {low:.4g} to {high:.4g}"
            for name, low, high in zip(self.description.coordinates, *self.box, strict=True)
        )
        warnings.warn(
            f"{100 * outside / points:.3g} % of the points lie outside the box of the training data ({box}): values "
            "there are extrapolated",
            stacklevel=3,
        )

    def warn_beyond(self, beyond: int, points: int) -> None:
        """Warn, once, where any of so many points asked for lie `beyond` the time span of training."""
        if not beyond:
            return
        units = f" {self.description.time_units}" if self.description.time_units else ""
        warnings.warn(
            f"{100 * beyond / points:.3g} % of the points lie before the first observation or more than "
            f"{self.horizon:.4g}{units} after it, the time span of training: values there are extrapolated",
            stacklevel=3,
        )
