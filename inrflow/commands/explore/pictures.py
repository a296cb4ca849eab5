"""Pictures of a solution: places and values on them, and solutions that answer while a slider moves."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from inrflow.export.decoding import DecodeAtPoints
from inrflow.model.solution import Solution

_MOST_BASIS, _BLOCKS = 2e7, 8  # numbers of a basis that is kept; blocks of points in which it is computed


@dataclass(frozen=True)
class View:
    """Picture at a time: values (N,) at places (N, 1 or 2) on a grid of `shape` (rows, columns), a line or single
    points, NaN outside of the domain; and a remark, `words`."""

    places: np.ndarray
    values: np.ndarray
    shape: tuple[int, int] | None
    words: str = ""


class Picture(Solution):
    """Solution at places of a picture, without the check for places outside of the domain, which are masked anyway."""

    def _check(self, times: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        self.surrogate.extent.require_reach(times.numpy(), *self.observed)
        return torch.zeros(len(points), dtype=torch.bool)

    def without_residual(self) -> Picture:
        """Solution without a residual field, from the same states."""
        other = copy(self)
        other.estimate = replace(self.estimate, residual=None)
        return other

    def decoded(self, name: str, t: float, channel: int, canvas: Canvas) -> np.ndarray | None:
        """Values (N,) of a channel at the points of a canvas from the basis of the decoder there, which is
        computed once for all times; None where the decoder is not affine, its basis large, or a residual is added."""
        decoder, size = self.surrogate.decoder, self.surrogate.code_size
        numbers = size * len(canvas.points) * len(self.surrogate.description.channels)
        if not decoder.affine or self.estimate.residual is not None or numbers > _MOST_BASIS or any(
                one.is_cuda for one in decoder.parameters()):
            return None
        if name not in canvas.decoders:
            canvas.decoders[name] = [DecodeAtPoints(self.surrogate, part)
                                     for part in np.array_split(canvas.points, _BLOCKS)]
        times = torch.tensor([t], dtype=torch.float64)
        self._check(times, times)
        code = self.states(times)[0][:, :size]
        return np.concatenate([one(code)[0, :, channel].numpy() for one in canvas.decoders[name]])

    def of_one_channel(self, channel: int) -> Picture:
        """Solution with a residual field of one channel alone."""
        if self.estimate.residual is None:
            return self
        other = copy(self)
        other.estimate = replace(self.estimate, residual=[one and one.alone(channel) for one in self.estimate.residual])
        return other


@dataclass(frozen=True)
class Canvas:
    """Places (N, 1 or 2) of a picture over a window (2, 1 or 2), lines along its axes, their points (N, d) in the
    domain, mask of places outside, and decoders at its points by the name of their model."""

    window: np.ndarray
    lines: list[np.ndarray]
    places: np.ndarray
    points: np.ndarray
    outside: np.ndarray
    decoders: dict[str, list[DecodeAtPoints]] = field(default_factory=dict)
