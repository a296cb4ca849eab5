"""Flights, parts of paths that laws are compared with; rates that lead from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.field import LawField

_SHOTS, _SETTLED = 12, 1e-6  # of rates; their last change, relative to all of them
_SHOWN = 0.2  # of an interval: rates whose part in the next frame is less are left as they are


@dataclass(frozen=True)
class Flights:
    """Codes (B, M, C K) of B flights of M frames, the times (B, M - 1) between them, variances (B, C K) of codes, and
    the numbers (B,) of the system and of the trajectory that each is of."""

    codes: Tensor
    dt: Tensor
    variance: Tensor
    system: Tensor
    trajectory: Tensor

    def take(self, pick: Tensor) -> Flights:
        """Some of the flights."""
        return Flights(self.codes[pick], self.dt[pick], self.variance[pick], self.system[pick], self.trajectory[pick])


def flights(t: np.ndarray, codes: np.ndarray, spread: np.ndarray, length: int, system: np.ndarray | None = None
            ) -> Flights:
    """All flights of some steps, end to end, of codes (S, T, C, K) with variances (S, C, K) at times (S, T)."""
    system = np.zeros(len(codes), dtype=int) if system is None else system
    starts = range(0, codes.shape[1] - length, length)
    flat, wide = codes.reshape(*codes.shape[:2], -1), spread.reshape(len(spread), -1)
    return Flights(torch.tensor(np.concatenate([flat[:, n : n + length + 1] for n in starts])),
                   torch.tensor(np.concatenate([np.diff(t[:, n : n + length + 1], axis=1) for n in starts])),
                   torch.tensor(np.concatenate([wide for _ in starts])),
                   torch.tensor(np.concatenate([system for _ in starts])),
                   torch.tensor(np.concatenate([np.arange(len(codes)) for _ in starts])))


def rates_between(field: LawField, rates: Sequence[int], longest: float, gap: Tensor, now: Tensor, then: Tensor
                  ) -> Tensor:
    """Rates (B, R K) of R channels with which codes `now` (B, C K) become `then` after times (B,), along the field of a
    law with rates of these.

    Quasi-Newton with the derivative of the linear part; rates of which the later codes show little are differences.
    """
    own = list(rates)
    rate = (_of(then, field, own) - _of(now, field, own)) / gap[:, None]
    for time in gap.unique().tolist():
        rows = gap == time
        rate[rows] = _shot(field, own, longest, time, now[rows], then[rows], rate[rows])
    return rate


def _of(codes: Tensor, field: LawField, channels: list[int]) -> Tensor:
    """Codes (B, R K) of some channels, of those (B, n) of all."""
    return codes.unflatten(1, (-1, len(field.library.eigenvalues)))[:, channels].flatten(1)


def _shot(field: LawField, rates: list[int], longest: float, time: float, now: Tensor, then: Tensor, rate: Tensor
          ) -> Tensor:
    size, observed = now.shape[1], field.channels - len(rates)
    with torch.no_grad():
        flow = field.exponential(time)
    if field.coupled:
        u, s, v = torch.linalg.svd(_of(flow[0, :, size:].T, field, rates).T)
    else:
        u, s, v = torch.linalg.svd(flow[:, rates, observed:])
    inverse = (u * torch.where(s > _SHOWN * time, 1 / s, 0.0)[..., None, :]) @ v
    before, settled = math.inf, _SETTLED * float(torch.linalg.vector_norm(rate))
    for _ in range(_SHOTS):
        later = field.bounded(torch.cat([now, rate], 1), time, longest, math.inf)
        missed = _of(then - later[:, :size], field, rates).nan_to_num(0.0, 0.0, 0.0)
        if field.coupled:
            change = missed @ inverse
        else:
            change = torch.einsum("bck,kcd->bdk", missed.unflatten(1, (len(rates), -1)), inverse).flatten(1)
        moved = float(torch.linalg.vector_norm(change))
        if not moved < before:
            break
        rate, before = rate + change, moved
        if moved <= settled:
            break
    return rate
