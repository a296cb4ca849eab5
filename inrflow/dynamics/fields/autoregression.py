"""Autoregressions as a term: a linear map from step to step, beside codes that are known functions of time.

    state = [phases of known periods (k), codes (R), the leading r of them at the p - 1 steps before]

A map of a step need not be the flow of any linear field (negative or vanishing eigenvalues), so it is taken as it is;
between two steps states are interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.fields.forcing import periodic_phases

_ON_STEP = 0.1  # of a step: times closer than this are those of a step (months of a calendar differ by so much)
_MOST_STEPS = 1 << 20


@register_term("autoregression")
class AutoregressionTerm(FieldTerm):
    """z(t + step) = bias + sum_k A_k z(t - (k - 1) step); the phases are what the time says.

    Args:
        size: R, codes. lags: p. step: internal time. periods: internal time; harmonics: of each period.
        delayed: r, codes of which the past is kept; None: all.
    """

    degree = 1

    def __init__(
        self, size: int, lags: int, step: float, periods: Sequence[float] = (), harmonics: Sequence[int] = (),
        delayed: int | None = None,
    ) -> None:
        super().__init__()
        self.size, self.lags, self.step, self.delayed = size, lags, step, delayed
        self.periods, self.harmonics = [float(p) for p in periods], [int(k) for k in harmonics]
        states = size + (lags - 1) * (size if delayed is None else delayed)
        self.matrix = nn.Parameter(torch.zeros(states, states))
        self.bias = nn.Parameter(torch.zeros(states))

    @property
    def known(self) -> int:
        """Number k of phases."""
        return 2 * sum(self.harmonics)

    def set(self, companion: Tensor, bias: Tensor) -> None:
        """Set the map of [z(t), z(t - step), ...] and the bias (R,) of the newest codes."""
        with torch.no_grad():
            self.matrix.copy_(companion)
            self.bias[: self.size].copy_(bias)

    def phases(self, t: Tensor) -> Tensor:
        """cos and sin (..., k) of the harmonics of all periods at times t (...,)."""
        return phases_of(t, self.periods, self.harmonics)

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        k = self.known
        rates, place = [], 0
        for period, count in zip(self.periods, self.harmonics, strict=True):
            cosine, sine = z[..., place : place + count], z[..., place + count : place + 2 * count]
            speed = 2 * math.pi / period * torch.arange(1, count + 1).to(z)
            rates += [-speed * sine, speed * cosine]
            place += 2 * count
        moved = z[..., k:] @ self.matrix.T + self.bias
        return torch.cat([*rates, (moved - z[..., k:]) / self.step], -1)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        k, n = self.known, z.shape[-1]
        result = z.new_zeros(n, n)
        result[k:, k:] = (self.matrix - torch.eye(n - k).to(self.matrix)) / self.step
        return result.expand(len(z), n, n)

    def _steps(self, gap: float) -> tuple[int, float]:
        """Whole steps of a time, and the share of the next one. Backwards as forwards: stationary series look alike."""
        steps = min(abs(gap) / self.step, float(_MOST_STEPS))
        whole = math.floor(steps + _ON_STEP)
        return whole, min(max((steps - whole - _ON_STEP) / (1 - 2 * _ON_STEP), 0.0), 1.0)

    def advance(self, state: Tensor, begin: Tensor, gap: Tensor) -> Tensor:
        """States (S, n) after times gap (S,) from times begin (S,)."""
        k, result = self.known, state.clone()
        result[:, :k] = self.phases(begin + gap).to(state)
        with torch.no_grad():
            step = torch.zeros(len(self.bias) + 1, len(self.bias) + 1, dtype=torch.float64)
            step[0, 0], step[1:, 0], step[1:, 1:] = 1.0, self.bias, self.matrix
            for one in torch.unique(gap).tolist():
                rows = gap == one
                whole, share = self._steps(one)
                now = torch.nn.functional.pad(state[rows, k:].double(), (1, 0), value=1.0)
                now = now @ torch.linalg.matrix_power(step, whole).T
                now = now + share * (now @ step.T - now)
                result[rows, k:] = now[:, 1:].to(state)
        return result

    def propagate(self, covariance: Tensor, process: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances after times gap (S or 1,) and the maps (S or 1, n, n) that lead there, from covariances
        (S or 1, n, n); process (n,): variance that a unit of time adds."""
        k = self.known
        maps, added = [], []
        steps = [self._steps(one) for one in gap.tolist()]
        for whole, share in steps if len(set(steps)) > 1 else steps[:1]:
            flow, noise = self._moved(whole, process[k:])
            if share:
                next_flow, next_noise = self._moved(whole + 1, process[k:])
                flow, noise = flow + share * (next_flow - flow), noise + share * (next_noise - noise)
            maps.append(flow)
            added.append(noise)
        flow = torch.nn.functional.pad(torch.stack(maps), (k, 0, k, 0))
        moved = flow @ covariance @ flow.mT + torch.nn.functional.pad(torch.stack(added), (k, 0, k, 0))
        return (moved + moved.mT) / 2, flow

    def _moved(self, steps: int, process: Tensor) -> tuple[Tensor, Tensor]:
        """Map of so many steps and the covariance that their noise adds, by doubling."""
        with torch.no_grad():
            flow = torch.eye(len(self.bias), dtype=torch.float64)
            noise = torch.zeros_like(flow)
            one, its = self.matrix.double(), torch.diag(process.double() * self.step)
            while steps:
                if steps & 1:
                    flow, noise = one @ flow, one @ noise @ one.T + its
                one, its = one @ one, one @ its @ one.T + its
                steps >>= 1
        return flow, noise


def phases_of(t: Tensor, periods: Sequence[float], harmonics: Sequence[int]) -> Tensor:
    """cos and sin (..., k) of the first harmonics of each period at times t (...,), float64."""
    parts = [periodic_phases(t, period, count) for period, count in zip(periods, harmonics, strict=True)]
    return torch.cat([t.new_zeros(*t.shape, 0).double(), *parts], -1)
