"""Rates of channels with which a law leads from one state to the next, by shooting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inrflow.dynamics.laws.field import LawField

_SHOTS, _SETTLED, _ROUGHLY = 12, 1e-6, 1e-2  # iterations for rates; their relative change at the end, of long steps
_LONG = 4  # long steps over the longest accurate one
_SHOWN = 0.2  # rates whose effect on the next frame, over the interval, is less are not corrected


def rates_between(field: LawField, rates: Sequence[int], max_step: float, gap: Tensor, now: Tensor, then: Tensor,
                  error: float = 0.0, roughly: bool = False) -> Tensor:
    """Rates (B, R K) of R channels with which a law leads from codes `now` (B, C K) to `then` in times gap (B,).

    Quasi-Newton iteration with the derivative of the linear part; rates that hardly affect the later codes are
    differences. error: error of the codes, which is tolerated. roughly: to a percent, in long steps.
    """
    own = list(rates)
    rate = (_of(then, field, own) - _of(now, field, own)) / gap[:, None]
    for time in gap.unique().tolist():
        rows, long = gap == time, max_step if field.coupled else _LONG * max_step  # whose operators are costly
        for step, part in ((long, _ROUGHLY), (max_step, _SETTLED))[: 2 - roughly]:
            settled = max(part * float(torch.linalg.vector_norm(rate[rows], dim=1).median()), error / time)
            rate[rows] = _solved_rates(field, own, step, time, now[rows], then[rows], rate[rows], settled)
    return rate


def _of(codes: Tensor, field: LawField, channels: list[int]) -> Tensor:
    """Codes (B, R K) of some channels, from those (B, n) of all."""
    return codes.unflatten(1, (-1, len(field.library.eigenvalues)))[:, channels].flatten(1)


def _solved_rates(field: LawField, rates: list[int], max_step: float, time: float, now: Tensor, then: Tensor,
                  rate: Tensor, settled: float) -> Tensor:
    size, observed = now.shape[1], field.channels - len(rates)
    with torch.no_grad():
        flow = field.exponential(time)
    u, s, v = torch.linalg.svd(_of(flow[0, :, size:].T, field, rates).T if field.coupled else flow[:, rates, observed:])
    inverse = (u * torch.where(s > _SHOWN * time, 1 / s, 0.0)[..., None, :]) @ v
    rows = torch.arange(len(now))  # not settled
    before = torch.full((len(now),), math.inf).double()
    for _ in range(_SHOTS):
        later = field.bounded(torch.cat([now[rows], rate[rows]], 1), time, max_step, math.inf)
        residual = _of(then[rows] - later[:, :size], field, rates).nan_to_num(0.0, 0.0, 0.0)
        change = residual @ inverse if field.coupled else torch.einsum(
            "bck,kcd->bdk", residual.unflatten(1, (len(rates), -1)), inverse).flatten(1)
        moved = torch.linalg.vector_norm(change, dim=1)
        better = moved < before[rows]
        rate[rows[better]] += change[better].to(rate)
        before[rows] = moved.double()
        rows = rows[better & (moved > settled)]
        if not len(rows):
            break
    return rate
