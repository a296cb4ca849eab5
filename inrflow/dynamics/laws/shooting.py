"""Flights, parts of paths that laws are compared with; laws of coarse frames along single steps of the flow.

Gauss-Newton of all terms of a family, then fewer terms. Where the field changes too much from frame to frame, splines
through the codes do not resolve their paths, and no law fitted to these forecasts. The flow itself does: from the
codes of each frame to those of the next. Steps are weighted as by a Cauchy distribution (iteratively reweighted least
squares), so that those that the first coefficients carry anywhere wait until others have corrected them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.library import Library
from inrflow.numerics.effort import effort
from inrflow.numerics.levenberg_marquardt import Linearisation, damped_descent

_ITERATIONS = 25
_DELTA = 1e-5  # of finite differences, relative to coefficients
_CONVERGED = 1e-3  # relative change of the misfit
_DAMPING, _LEAST_DAMPING, _TRIALS = 1e-4, 1e-14, 8  # of Levenberg and Marquardt, relative to the normal matrix
_FAR = 1e3  # error of a step that diverges, in units of the channels' deviations; codes are clamped there
_STEEP = 1e6  # derivative from which on a step is left out
_FEWEST = 16  # steps
_INCREASES = (1.05, 1.5, 4.0)  # of the misfit that laws of fewer terms may have
_SHOTS, _SETTLED = 12, 1e-6  # of rates; their last change, relative to all of them
_SHOWN = 0.2  # of an interval: rates whose part in the next frame is less are left as they are

Shot = tuple[np.ndarray, Tensor]  # coefficients, and what steps miss with them, (B, R)


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


@dataclass
class Shooting:
    """Single steps from codes (B, C K) to the next frames' over times dt (B,), compared where `rows` (C K,) is true."""

    codes: Tensor
    target: Tensor
    dt: Tensor
    rows: Tensor
    deadline: float  # of effort

    @classmethod
    def of(cls, t: np.ndarray, states: np.ndarray, known: np.ndarray, deadline: float) -> Shooting:
        """All steps of paths of codes (S, T, C, K) at times (S, T); codes that points determine (C, K) are compared."""
        flat = torch.tensor(states).flatten(2)
        return cls(flat[:, :-1].flatten(0, 1), flat[:, 1:].flatten(0, 1), torch.tensor(np.diff(t, axis=1)).flatten(),
                   torch.tensor(known.ravel()), deadline)

    def refined(self, law: Law) -> tuple[Law, np.ndarray]:
        """The law with coefficients that steps determine, and the normal matrix of these, whitened."""
        steps = self._affordable(law)
        active, library = np.argwhere(law.theta != 0), Library.of(law.terms, law.codes.harmonics)
        gram, unit = np.zeros(0), torch.ones(())  # of the last linearisation

        def shot(values: np.ndarray) -> Shot:
            theta = np.zeros_like(law.theta)
            theta[tuple(active.T)] = values
            error = steps._missed(LawField.of(library, torch.tensor(theta)), law.longest)
            return values, torch.nan_to_num(error, nan=_FAR).clamp(-_FAR, _FAR)

        def misfit(at: Shot) -> float:
            return float(torch.log1p(at[1].square().sum(1) / unit).sum())

        def linearise(at: Shot, reused: bool) -> Linearisation[Shot] | None:
            nonlocal gram, unit
            if len(gram) and effort() > self.deadline:
                return None
            values, error = at
            squares = error.square().sum(1)
            unit = squares.median() + 1e-20
            scale = _DELTA * np.maximum(np.abs(values), 1e-3 * np.abs(values).max())
            slopes = torch.stack([(shot(values + step)[1] - error) / step.max() for step in np.diag(scale)], -1)
            weight = torch.where(slopes.abs().amax((1, 2)) < _STEEP, 1 / (1 + squares / unit), 0.0) / unit
            gram = torch.einsum("b,brp,brq->pq", weight, slopes, slopes).numpy()
            pull = -torch.einsum("b,brp,br->p", weight, slopes, error).numpy()
            size = np.sqrt(np.maximum(np.diag(gram), 1e-300))

            def propose(damping: float) -> Shot:
                damped = gram / size / size[:, None] + (damping + _LEAST_DAMPING) * np.eye(len(size))
                return shot(values + np.linalg.solve(damped, pull / size) / size)

            return Linearisation(misfit(at), propose)

        (values, _), _ = damped_descent(
            shot(law.theta[tuple(active.T)].copy()), linearise, misfit, steps=_ITERATIONS, tries=_TRIALS,
            damping=_DAMPING, least=0.0, settled=1 - _CONVERGED,
        )
        spread = np.sqrt(np.diag(np.linalg.pinv(gram, hermitian=True)))
        theta, std = law.theta.copy(), law.std.copy()
        theta[tuple(active.T)], std[tuple(active.T)] = values, spread
        return replace(law, theta=theta, std=std), gram

    def shorter(self, law: Law, gram: np.ndarray) -> Iterator[Law]:
        """Laws without the terms whose removal raises the misfit least, by the normal matrix of all."""
        active = np.argwhere(law.theta != 0)
        values, kept = law.theta[tuple(active.T)], list(range(len(active)))
        freedom = float(len(self.codes) * int(self.rows.sum()))
        level, raised = 0, 1.0
        while kept and level < len(_INCREASES):
            inverse = np.linalg.pinv(gram[np.ix_(kept, kept)], hermitian=True)
            left = values[kept] if len(kept) == len(values) else inverse @ (gram[kept] @ values)
            costs = left**2 / np.diag(inverse)
            weakest = int(costs.argmin())
            raised += float(costs[weakest]) / freedom
            while level < len(_INCREASES) and raised > _INCREASES[level]:
                theta = np.zeros_like(law.theta)
                theta[tuple(active[kept].T)] = left
                yield replace(law, theta=theta)
                level += 1
            kept.pop(weakest)

    def _missed(self, field: LawField, longest: float) -> Tensor:
        """What steps miss, (B, R)."""
        later = torch.empty_like(self.codes)
        for dt in self.dt.unique().tolist():
            chosen = self.dt == dt
            later[chosen] = field.advance(self.codes[chosen], dt, max(int(np.ceil(dt / longest - 1e-9)), 1))
        return (later - self.target)[:, self.rows]

    def _affordable(self, law: Law) -> Shooting:
        """As many steps as the time allows for all iterations."""
        began = effort()
        self._missed(law.field(), law.longest)
        cost = (effort() - began) / len(self.codes)
        left = max(self.deadline - began, 0.0)
        count = int(left / (_ITERATIONS * cost * max(int(np.count_nonzero(law.theta)), 1)))
        pick = torch.linspace(0, len(self.codes) - 1, min(max(count, _FEWEST), len(self.codes))).long()
        return replace(self, codes=self.codes[pick], target=self.target[pick], dt=self.dt[pick])


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
