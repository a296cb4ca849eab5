"""Variational assimilation of windows that one pass of a smoother does not explain.

The flow from a first state, and a context, that comes closest to what was observed: Gauss-Newton steps by the smoother
linearised around the flow so far, with as much noise as that flow misses. From a start that is far off, windows grow
(quasi-static variational assimilation, Pires, Vautard and Talagrand 1996): long ones of chaotic fields have many
minima.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.dynamics.flow import Dynamics
from inrflow.model.state_prior import ContextPrior, StateEstimate, StatePrior

_DIRECT, _STEPS, _SHARES = 3, 10, (1.0, 0.5, 0.25, 0.1)  # from the start, for one length; of a step that are tried
_SETTLED = 0.95  # of the misfit, which a whole step leaves
_LOUDER, _LOUDEST, _CALMER = 10.0, 1e3, 1 / 3  # noise beside what is missed: after a failure, at most, after a success
_CLOSER = 0.5  # of the variance factor, that linearising around the closest flow must leave
_AS_LOUD = 0.25  # of what the whole window misses, that a short one misses where it is noise
_PASSES = 24  # of the whole window that all steps may cost

Smoother = Callable[..., StateEstimate]  # of a prior and a window, the `context` and the states to linearise `around`


def near_closest_flows(
    smoother: Smoother, decoder: Decoder, dynamics: Dynamics, prior: StatePrior, window: TrajectoryBatch,
    context: ContextPrior | None, estimate: StateEstimate, most: float
) -> tuple[StateEstimate, Tensor, Tensor]:
    """An estimate of S trajectories, with those whose variance factor is above `most` linearised around their closest
    flow where this explains them far better; the states (S, K, n) that these are linearised around, and which (S,).

    Of windows of several frames of fields that move nonlinearly.
    """
    around, flown = estimate.mean.clone(), torch.zeros(len(window.u), dtype=torch.bool)
    simple = dynamics.field.is_linear_at_context or not decoder.affine
    simple = simple or window.u.shape[1] < 2 or window.delay is not None
    for row in () if simple else (estimate.factor > most).nonzero():
        one, known = window.select(row), None if context is None else context.select(row)
        path = closest_flow(smoother, decoder, dynamics, prior, one, known, estimate.mean[row, 0], most)
        if path is None:
            continue
        other = smoother(prior, one, context=known, around=path)
        if bool(other.factor < _CLOSER * estimate.factor[row]):
            estimate, around[row], flown[row] = estimate.replaced(row, other), path, True
    return estimate, around, flown


@torch.no_grad()
def closest_flow(
    smoother: Smoother, decoder: Decoder, dynamics: Dynamics, prior: StatePrior, window: TrajectoryBatch,
    context: ContextPrior | None, start: Tensor, most: float
) -> Tensor | None:
    """States (1, K, n) of one trajectory along the flow that comes closest to its window: from `start` (1, n), else,
    where it misses more than `most` times the variance of noise, over growing windows. None where none is found."""
    given = context if context is not None else prior.context(dynamics.field.context_size)
    search = _Search(smoother, decoder, dynamics, prior, window, given if dynamics.field.context_size else None)
    frames = window.u.shape[1]
    search.approach(start, frames, _DIRECT, 1.0)
    if not search.least < most:
        known = search.first()
        for length in [k for k in (1 + 2**i for i in range(frames)) if k < frames] + [frames]:
            known = search.approach(known, length, _STEPS, _LOUDEST, most)
            if length > 2 and search.last > _AS_LOUD * search.least:  # what is missed is noise, in short windows, too
                break
    return search.path


class _Search:
    """States (1, n) at the first frame of a window, improved step by step; `path` (1, K, n), the flow from that which
    came closest to the whole window, and `least`, what it misses, a value in variances of noise; `last`, of the last
    window, what is missed."""

    def __init__(self, smoother: Smoother, decoder: Decoder, dynamics: Dynamics, prior: StatePrior,
                 window: TrajectoryBatch, context: ContextPrior | None) -> None:
        self.smoother, self.dynamics, self.prior, self.window, self.context = smoother, dynamics, prior, window, context
        self.left = _PASSES * window.u.shape[1]
        self.last, self.least, self.path = 0.0, math.inf, cast("Tensor | None", None)
        self.size, dtype = len(prior.mean) - dynamics.field.context_size, next(decoder.parameters()).dtype
        bases = [decoder.basis(x.to(dtype)) for x in window.x[0]]
        self.decode = [(offset.double(), basis.double()) for offset, basis in bases]

    def first(self) -> Tensor:
        """What the first frame alone says."""
        return self.smoother(self.prior, self.window.first_frames(1), context=self.context).mean[:, 0]

    def approach(self, state: Tensor, length: int, steps: int, loudest: float, most: float = 0.0) -> Tensor:
        """The state from which the flow comes closest to so many frames, in so many steps, or, where these are not all,
        closer than `most` variances of noise."""
        window, louder = self.window.first_frames(length), 1.0
        count = max(1.0, float(torch.isfinite(window.u).sum()))
        data, others, path = self._missed(state, window)
        for _ in range(steps):
            level = louder * max(1.0, (data + others) / count)
            missed, self.left = data / level + others, self.left - length
            if self.left < 0 or not math.isfinite(missed):
                break
            noisy = replace(self.prior, noise=level * self.prior.noise)
            smoothed = self.smoother(noisy, window, context=self.context, around=path)
            step = smoothed.mean[:, 0] - state
            for share in _SHARES:
                found = self._missed(state + share * step, window)
                now = found[0] / level + found[1]
                if now < missed:
                    state, louder, (data, others, path) = state + share * step, max(1.0, _CALMER * louder), found
                    break
            else:
                louder *= _LOUDER
            enough = most if length < self.window.u.shape[1] else 0.0
            self.last = (data + others) / count
            if louder > loudest or data + others < enough * count or share == 1.0 and missed > now > _SETTLED * missed:
                break
        return state

    def _missed(self, state: Tensor, window: TrajectoryBatch) -> tuple[float, float, Tensor]:
        """Squares, in standard deviations, of what the flow misses of a window, and of what the prior misses of the
        state; and states (1, K, n) of the flow."""
        path = self.dynamics.flow(state, window.t, check=False)
        squares = torch.zeros((), dtype=torch.float64)
        for k, u in enumerate(window.u[0].double()):
            offset, basis = self.decode[min(k, len(self.decode) - 1)]
            apart = u - offset - torch.einsum("ncz,z->nc", basis, path[0, k, : basis.shape[-1]])
            squares = squares + (apart.square() / self.prior.noise).nan_to_num(0.0).sum()
        apart = state[0, : self.size] - self.prior.mean[: self.size]
        others = float(apart @ torch.linalg.solve(self.prior.covariance[: self.size, : self.size], apart))
        if self.context is not None:
            apart = state[0, self.size :] - self.context.mean.reshape(-1)
            others += float(apart @ torch.linalg.solve(self.context.covariance.reshape(len(apart), -1), apart))
        data = float(squares) if bool(torch.isfinite(path).all()) else math.inf
        missed = (data + others) / max(1.0, float(torch.isfinite(window.u).sum()))
        if window.u.shape[1] == self.window.u.shape[1] and missed < self.least:
            self.least, self.path = missed, path
        return data, others, path
