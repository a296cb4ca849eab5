"""Latent states from codes: hidden memory appended, seasonal mean taken off, starts and horizons for validation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class CodeData:
    """Codes (S, T, n) of trajectories at internal times t (S, T); observed (S, T) says which frames count."""

    codes: Tensor
    t: Tensor
    observed: Tensor

    def first(self, count: int) -> CodeData:
        """The first so many trajectories."""
        return CodeData(self.codes[:count], self.t[:count], self.observed[:count])

    def frames(self, stop: int) -> CodeData:
        """The first `stop` frames."""
        return CodeData(self.codes[:, :stop], self.t[:, :stop], self.observed[:, :stop])

    def since(self, first: int) -> CodeData:
        """The frames from `first` on."""
        return CodeData(self.codes[:, first:], self.t[:, first:], self.observed[:, first:])

    @staticmethod
    def join(parts: list[CodeData]) -> CodeData:
        """All trajectories of several parts."""
        return CodeData(*(torch.cat([getattr(p, k) for p in parts]) for k in ("codes", "t", "observed")))


def memory_directions(data: CodeData, size: int, memory: int) -> Tensor:
    """(size, memory) directions of the leading `size` codes along which the field moves most between frames."""
    velocity, valid = _velocity(data, size)
    moves = velocity[valid]
    _, vectors = torch.linalg.eigh(moves.T @ moves)
    return vectors.flip(1)[:, :memory]


def with_memory(data: CodeData, size: int, directions: Tensor | None) -> CodeData:
    """States: the leading `size` codes, and their rate of change since the frame before along the directions.

    Where a system's frame is not its state, the recent past completes it (Takens 1981); the first frame of a trajectory
    has no past and does not count.
    """
    if directions is None or directions.shape[1] == 0:
        return CodeData(data.codes[..., :size], data.t, data.observed)
    velocity, valid = _velocity(data, size)
    return CodeData(torch.cat([data.codes[..., :size], velocity @ directions], -1), data.t, valid)


def _velocity(data: CodeData, size: int) -> tuple[Tensor, Tensor]:
    codes = data.codes[..., :size]
    velocity = torch.zeros_like(codes)
    step = (data.t[:, 1:] - data.t[:, :-1]).nan_to_num(1.0).clamp(min=1e-12)
    velocity[:, 1:] = (codes[:, 1:] - codes[:, :-1]) / step[..., None]
    valid = data.observed.clone()
    valid[:, 1:] &= data.observed[:, :-1]
    valid[:, 0] = False
    return velocity, valid


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

    def forcing(self, matrix: Tensor) -> tuple[Tensor, Tensor | None]:
        """Bias (n,) and forcing (n, 2 K) of the field that relaxes with `matrix` to this mean: dm/dt - A m."""
        constant = self.coefficients[0]
        if not self.period:
            return torch.zeros_like(constant), None
        half = len(self.coefficients) // 2
        cosine, sine = self.coefficients[1 : half + 1], self.coefficients[half + 1 :]
        frequency = 2 * math.pi / self.period * torch.arange(1, half + 1, dtype=cosine.dtype)[:, None]
        derivative = torch.cat([frequency * sine, -frequency * cosine])
        return -matrix @ constant, (derivative - self.coefficients[1:] @ matrix.T).T


def _fourier(t: Tensor, period: float, harmonics: int) -> Tensor:
    angle = 2 * math.pi * t.double()[..., None] / period * torch.arange(1, harmonics + 1, dtype=torch.float64)
    return torch.cat([torch.ones_like(t.double())[..., None], angle.cos(), angle.sin()], -1)


def with_contexts(data: CodeData, size: int, contexts: Tensor) -> CodeData:
    """States: the leading `size` codes and the context (S, P) of each trajectory."""
    constant = contexts[:, None].expand(-1, data.codes.shape[1], -1)
    return CodeData(torch.cat([data.codes[..., :size], constant.to(data.codes)], -1), data.t, data.observed)
