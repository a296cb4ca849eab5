"""Latent states from codes: delay coordinates (memory) appended, seasonal mean subtracted, contexts appended."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrflow.encoding.encode import CodeData
from inrflow.numerics.phases import periodic_phases, rotation

_LEADS = 20  # largest number of leads of a window of a series


def past_frames(size: int, memory: int) -> int:
    """Number of past frames used by `memory` delay coordinates of `size` codes."""
    return math.ceil(memory / size)


def frames_needed(size: int, memory: int) -> int:
    """Observed frames that determine a state: 1 without memory, else one more than it uses, to reduce noise."""
    return past_frames(size, memory) + 2 if memory else 1


def too_few_frames(seen: int, needed: int) -> str:
    """Error message for fewer observed frames than a forecast needs."""
    return (
        f"only {seen} observed frame{'s' if seen > 1 else ''}: a single frame does not determine the state; "
        f"forecasts need at least {needed} observed frames (observe.frames={needed})"
    )


def memory_directions(data: CodeData, size: int, memory: int) -> Tensor:
    """Directions (size, memory) of the leading `size` codes with the largest mean square rate between frames.

    Columns beyond the first `size` belong to the next order of differences (see `with_memory`); each order with all
    `size` directions uses the coordinate axes.
    """
    rates = _rates(replace(data, codes=data.codes[..., :size]))
    moves = rates.codes[rates.observed]
    _, vectors = torch.linalg.eigh(moves.T @ moves)
    axes = [torch.eye(size, dtype=moves.dtype)] * (memory // size)
    return torch.cat([*axes, vectors.flip(1)[:, : memory % size]], 1)


def with_memory(data: CodeData, size: int, directions: Tensor | None) -> CodeData:
    """States: the leading `size` codes, and their backward difference quotients projected on the directions.

    Columns of `directions` (size, M) beyond the first `size` are for difference quotients of the next order, and so on.
    If a single frame does not determine the state, the recent past completes it (Takens 1981). The first frames of a
    trajectory, one for each order, have no such past and are marked as unobserved.
    """
    rates = replace(data, codes=data.codes[..., :size])
    if directions is None or directions.shape[1] == 0:
        return rates
    parts = [rates.codes]
    for order in directions.split(size, 1):
        rates = _rates(rates)
        parts.append(rates.codes @ order)
    return replace(rates, codes=torch.cat(parts, -1))


def _rates(data: CodeData) -> CodeData:
    """Backward difference quotients of codes, observed at the frames at which both codes are."""
    rate, valid = torch.zeros_like(data.codes), data.observed.clone()
    step = (data.t[:, 1:] - data.t[:, :-1]).nan_to_num(1.0).clamp(min=1e-12)
    rate[:, 1:] = (data.codes[:, 1:] - data.codes[:, :-1]) / step[..., None]
    valid[:, 1:] &= data.observed[:, :-1]
    valid[:, 0] = False
    return CodeData(rate, data.t, valid)


@dataclass
class SeasonalMean:
    """Mean state as a function of time: constant, or a Fourier series of the forcing's period.

    Attributes:
        coefficients: (1 + 2 K, n): constant, then cos and sin of each harmonic.
        period: internal time units; 0 for a constant mean of zero.
    """

    coefficients: Tensor
    period: float

    @classmethod
    def fit(cls, data: CodeData, period: float, harmonics: int) -> SeasonalMean:
        """Least-squares fit to all observed frames."""
        states = data.codes[data.observed]
        if not period:
            return cls(torch.zeros(1, states.shape[1], dtype=states.dtype), 0.0)
        design = _fourier(data.t[data.observed], period, harmonics)
        gram = design.T @ design + 1e-6 * len(design) * torch.eye(design.shape[1], dtype=design.dtype)
        return cls(torch.linalg.solve(gram, design.T @ states), period)

    def __call__(self, t: Tensor) -> Tensor:
        """Mean states (..., n) at times t (...)."""
        if not self.period:
            return torch.zeros(*t.shape, self.coefficients.shape[1], dtype=self.coefficients.dtype)
        return _fourier(t, self.period, len(self.coefficients) // 2) @ self.coefficients

    def rate(self) -> SeasonalMean:
        """Derivative with respect to internal time."""
        own = rotation([self.period or 1.0], [len(self.coefficients) // 2]).to(self.coefficients)
        return SeasonalMean(torch.cat([0 * self.coefficients[:1], own.T @ self.coefficients[1:]]), self.period)

    def forcing(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        """Bias (n,) and forcing (n, 2 K) such that this mean solves dm/dt = matrix m + bias + forcing: dm/dt - A m."""
        if not self.period:
            return torch.zeros_like(self.coefficients[0]), None
        bias, *rest = self.rate().coefficients - self.coefficients @ matrix.T
        return bias, torch.stack(rest).T


def around(data: CodeData, mean: SeasonalMean) -> CodeData:
    """Anomalies: states minus their mean."""
    return CodeData(data.codes - mean(data.t.nan_to_num()), data.t, data.observed)


def evenly_spread(count: int, most: int) -> Tensor:
    """At most `most` indices below `count`, evenly spaced."""
    return torch.linspace(0, count - 1, min(count, most)).round().long() if count else torch.zeros(0, dtype=torch.int64)


def series_windows(frames: int, cut: int, past: int, most: int) -> tuple[int, list[int]]:
    """Number of leads, and first frames of at most `most` windows of `past` frames and that many leads after frame
    `cut`.

    The number of leads is half the number of frames after the cut, at most 20."""
    leads = min(_LEADS, max(1, (frames - cut + 1) // 2))
    last = max(0, frames - past - leads)
    first = max(0, min(cut - past, last))
    return leads, (first + evenly_spread(last - first + 1, most)).tolist()


def _fourier(t: Tensor, period: float, harmonics: int) -> Tensor:
    return torch.cat([torch.ones_like(t.double())[..., None], periodic_phases(t, period, harmonics)], -1)


def with_contexts(data: CodeData, size: int, contexts: Tensor) -> CodeData:
    """States: the leading `size` codes followed by the context (S, P) of each trajectory."""
    constant = contexts[:, None].expand(-1, data.codes.shape[1], -1)
    return CodeData(torch.cat([data.codes[..., :size], constant.to(data.codes)], -1), data.t, data.observed)
