"""Variational assimilation of windows that one pass of a smoother does not explain.

The flow from a first state, and a context, that comes closest to what was observed: Gauss-Newton steps by the smoother
linearised around the flow so far, with as much noise as that flow misses. From a start that is far off, windows grow
(quasi-static variational assimilation, Pires, Vautard and Talagrand 1996): long ones of chaotic fields have many
minima.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.dynamics.contexts.posterior import ContextEstimate, solve_context
from inrflow.dynamics.flow import Dynamics
from inrflow.encoding.encode import CodeData
from inrflow.model.state_prior import ContextPrior, StateEstimate, StatePrior

_DIRECT, _STEPS, _SHARES = 3, 10, (1.0, 0.5, 0.25, 0.1)  # from the start, for one length; of a step that are tried
_SETTLED = 0.95  # of the misfit, which a whole step leaves
_LOUDER, _LOUDEST, _CALMER = 10.0, 1e3, 1 / 3  # noise beside what is missed: after a failure, at most, after a success
_CLOSER = 0.5  # of the variance factor, that linearising around the closest flow must leave
_AS_LOUD = 0.25  # of what the whole window misses, that a short one misses where it is noise
_PASSES = 24  # of the whole window that all steps may cost
_KNOWN, _SPARE = 0.1, 1.5  # of what flows miss: codes that well known need no smoothing; values a code, at least
_TURNS, _STILL = 8, 0.1  # times that contexts and hidden parts are found; squared step, in standard deviations
_FAR_WORSE, _ROUNDING = 3.0, 1e-14  # times a misfit, and a share of the variance that is none
_SINGULAR = 1e-10  # of the mean variance of a prior
_ALONG = 2  # times that a context is solved along the curve of parameters, whose tangent the first one tells roughly

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


# ---- contexts of windows ----


def solved_context(surrogate: Any, windows: Sequence[TrajectoryBatch]) -> ContextEstimate:
    """Posterior of the context of one system from windows of its trajectories in data units: of any numbers, then,
    where fewer parameters tell contexts, along the curve of these, unless it explains the windows far worse: the
    polynomials that it is made of end with the systems of training, and are the worse the farther one is from these."""
    found = context_of_windows(surrogate, windows, surrogate.prior.context(surrogate.context_size))
    for _ in range(_ALONG):
        if surrogate.contexts is not None and (prior := surrogate.contexts.along(found)) is not None:
            told = context_of_windows(surrogate, windows, prior)
            if not told.misfit < _FAR_WORSE * found.misfit + _ROUNDING:
                break
            found = told
    return found


def context_of_windows(
    surrogate: Any, windows: Sequence[TrajectoryBatch], prior: ContextPrior
) -> ContextEstimate:
    """Posterior of the context of one system from windows of its trajectories in data units.

    From codes of each frame by itself, then, unless these are known far better than the flow hits them, from states
    along it: also where frames have so few values that what codes leave of a new system is taken for codes. Hidden
    parts of states are what a context makes of them: they are found in turn with it. States along the flow hardly miss
    it, noisy as frames may be: what these leave open is added to the covariance. An ensemble tells nothing of it.
    """
    flown = surrogate.prior.covariance.dim() == 1
    parts = [surrogate.codes(window) for window in windows]
    hidden, nominal = surrogate.field.state_size > surrogate.code_size, prior.mean
    if not hidden:  # memory has no value before the filter has run
        found = _given(surrogate, parts, prior)
        seen = torch.cat([torch.isfinite(window.u).flatten(2).sum(2).flatten() for window in windows])
        spare = float(seen[seen > 0].double().mean()) > _SPARE * surrogate.code_size
        if spare and surrogate.unknown(windows[0], parts[0]) < _KNOWN * found.misfit:
            return found
        nominal = found.mean
    for turn in range(_TURNS if hidden else 1):
        at = replace(prior, nominal=nominal)
        estimates = [surrogate.estimate(window, not flown, at) for window in windows]
        states = [replace(part, codes=one.mean[..., : surrogate.field.state_size])
                  for part, one in zip(parts, estimates, strict=True)]
        found = _given(surrogate, states, prior if hidden and not turn else at)
        if not flown:
            found.covariance += _pooled([one.last_context(surrogate.context_size)[1] for one in estimates], prior)
        moved, nominal = found.mean - nominal, found.mean
        if float(moved @ torch.linalg.solve(found.covariance, moved)) < _STILL:
            break
    return found


def _pooled(covariances: Sequence[Tensor], prior: ContextPrior) -> Tensor:
    """Covariance (P, P) of a context that several trajectories tell, each with a covariance (S, P, P) of its own."""
    ridge = _SINGULAR * prior.covariance.diagonal().mean() * torch.eye(len(prior.covariance))  # curves have no width
    before = torch.linalg.inv(prior.covariance + ridge)
    told = torch.linalg.inv(torch.cat(list(covariances)).double() + ridge) - before
    return torch.linalg.inv(before + told.sum(0))


def contexts_of_each(surrogate: Any, window: TrajectoryBatch, codes: CodeData, prior: ContextPrior) -> ContextPrior:
    """The prior with contexts (S, P), each estimated from the frames of its own trajectory, a window or its codes,
    around which flows are linearised; the posterior where an ensemble carries it."""
    count, size = len(window), surrogate.context_size
    hidden = surrogate.field.state_size > surrogate.code_size
    priors = [replace(prior, mean=mean, covariance=own) for mean, own in zip(
        prior.mean.expand(count, size), prior.covariance.expand(count, size, size), strict=True)]
    found = [context_of_windows(surrogate, [window.select(torch.tensor([s]))], one) if hidden else
             _given(surrogate, [codes.at([s])], one) for s, one in enumerate(priors)]
    mean, covariance = torch.stack([one.mean for one in found]), torch.stack([one.covariance for one in found])
    carried = surrogate.prior.covariance.dim() == 1
    return ContextPrior(mean, covariance) if carried else replace(prior, nominal=mean)


def _given(surrogate: Any, parts: Sequence[CodeData], prior: ContextPrior) -> ContextEstimate:
    process, frames = surrogate.prior.process[: surrogate.field.state_size], max(one.codes.shape[1] for one in parts)
    states = CodeData.join([part.padded(frames) for part in parts])
    field, integrator = surrogate.field, surrogate.integrator
    if (curve := prior.curve) is None:
        found = solve_context(field, integrator, states, prior.mean, prior.covariance, process, prior.nominal)
    else:
        mean, covariance = curve.prior
        told = solve_context(field, integrator, states, mean, covariance, process, curve.starts, curve=curve)
        slopes = curve.slopes(told.mean)
        found = ContextEstimate(curve(told.mean), slopes @ told.covariance @ slopes.T, told.misfit, told.growing)
    if (known := surrogate.contexts) is not None:  # a law is the less known the farther it is from training systems
        found.covariance *= known.spread * float(known.widening(found.mean)) ** 2 * known.excess(found)
    return found
