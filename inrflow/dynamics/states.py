"""Latent states from codes: hidden memory appended, seasonal mean taken off, contexts appended."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.encoding.encode import CodeData
from inrflow.numerics.phases import periodic_phases

_LEADS = 20  # of windows of a series, at most


def past_frames(size: int, memory: int) -> int:
    """Past frames that `memory` delay coordinates of `size` codes look back on."""
    return math.ceil(memory / size)


def frames_needed(size: int, memory: int) -> int:
    """Observed frames that determine a state: one without memory, else one more than it uses, against noise."""
    return past_frames(size, memory) + 2 if memory else 1


def short_window(seen: int, needed: int) -> str:
    """Message for fewer observed frames than a forecast needs."""
    return (
        f"only {seen} observed frame{'s' if seen > 1 else ''}: this system's state does not show in single frames; "
        f"forecasts need at least {needed} observed frames (observe.frames={needed})"
    )


def memory_directions(data: CodeData, size: int, memory: int) -> Tensor:
    """(size, memory) directions of the leading `size` codes along which the field moves most between frames.

    Beyond `size` they begin anew, for the rates of rates that `with_memory` goes on to; where there are `size` of them,
    they are the axes themselves.
    """
    velocity, valid = _rate(data.codes[..., :size], data)
    moves = velocity[valid]
    _, vectors = torch.linalg.eigh(moves.T @ moves)
    axes = [torch.eye(size, dtype=moves.dtype)] * (memory // size)
    return torch.cat([*axes, vectors.flip(1)[:, : memory % size]], 1)


def with_memory(data: CodeData, size: int, directions: Tensor | None) -> CodeData:
    """States: the leading `size` codes, and their rate of change since the frame before along the directions.

    Directions (size, M) beyond the first `size` are of the rate of change of that rate, and so on. Where a system's
    frame is not its state, the recent past completes it (Takens 1981); the first frames of a trajectory, one for each
    order, have no such past and do not count.
    """
    codes, valid = data.codes[..., :size], data.observed
    if directions is None or directions.shape[1] == 0:
        return CodeData(codes, data.t, valid)
    parts, rate = [codes], codes
    for order in directions.split(size, 1):
        rate, valid = _rate(rate, CodeData(rate, data.t, valid))
        parts.append(rate @ order)
    return CodeData(torch.cat(parts, -1), data.t, valid)


def _rate(values: Tensor, data: CodeData) -> tuple[Tensor, Tensor]:
    """Rate of change (S, T, n) of values since the frame before, and the frames (S, T) where both were observed."""
    rate = torch.zeros_like(values)
    step = (data.t[:, 1:] - data.t[:, :-1]).nan_to_num(1.0).clamp(min=1e-12)
    rate[:, 1:] = (values[:, 1:] - values[:, :-1]) / step[..., None]
    valid = data.observed.clone()
    valid[:, 1:] &= data.observed[:, :-1]
    valid[:, 0] = False
    return rate, valid


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
        """Least squares over all observed frames."""
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
        """Its derivative by internal time."""
        half = len(self.coefficients) // 2
        cosine, sine = self.coefficients[1 : half + 1], self.coefficients[half + 1 :]
        frequency = 2 * math.pi / (self.period or 1.0) * torch.arange(1, half + 1).to(cosine)[:, None]
        constant = torch.zeros_like(self.coefficients[:1])
        return SeasonalMean(torch.cat([constant, frequency * sine, -frequency * cosine]), self.period)

    def forcing(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        """Bias (n,) and forcing (n, 2 K) of the field that relaxes with `matrix` to this mean: dm/dt - A m."""
        if not self.period:
            return torch.zeros_like(self.coefficients[0]), None
        bias, *rest = self.rate().coefficients - self.coefficients @ matrix.T
        return bias, torch.stack(rest).T


def around(data: CodeData, mean: SeasonalMean) -> CodeData:
    """Anomalies of states: what they are beside their mean."""
    return CodeData(data.codes - mean(data.t.nan_to_num()), data.t, data.observed)


def evenly_spread(count: int, most: int) -> Tensor:
    """At most `most` numbers below `count`, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).round().long() if count else torch.zeros(0, dtype=torch.int64)


def series_windows(frames: int, cut: int, past: int, most: int) -> tuple[int, list[int]]:
    """Leads, and first frames of at most `most` windows of `past` frames and so many leads, which are after `cut`.

    So many leads that half of the frames after the cut begin one, 20 at most.
    """
    leads = min(_LEADS, max(1, (frames - cut + 1) // 2))
    last = max(0, frames - past - leads)
    first = max(0, min(cut - past, last))
    return leads, (first + evenly_spread(last - first + 1, most)).tolist()


def _fourier(t: Tensor, period: float, harmonics: int) -> Tensor:
    return torch.cat([torch.ones_like(t.double())[..., None], periodic_phases(t, period, harmonics)], -1)


def with_contexts(data: CodeData, size: int, contexts: Tensor) -> CodeData:
    """States: the leading `size` codes and the context (S, P) of each trajectory."""
    constant = contexts[:, None].expand(-1, data.codes.shape[1], -1)
    return CodeData(torch.cat([data.codes[..., :size], constant.to(data.codes)], -1), data.t, data.observed)
