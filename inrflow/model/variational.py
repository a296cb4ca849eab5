"""Variational assimilation (strong-constraint 4D-Var) of windows that one pass of a smoother does not explain.

The initial state and context whose trajectory best fits the observations, by Gauss-Newton steps: the smoother
linearised around the current trajectory, with observation noise inflated to its misfit. From a poor first guess,
windows are lengthened step by step (quasi-static variational assimilation, Pires, Vautard and Talagrand 1996), as long
windows of chaotic fields have many minima."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.plausible import few_and_apart, gross_errors
from inrflow.decoders.base import Decoder
from inrflow.dynamics.contexts.posterior import ContextEstimate, at_context, solve_context
from inrflow.dynamics.flow import Dynamics
from inrflow.encoding.encode import CodeData, unknown
from inrflow.model.state_prior import ContextPrior, StateEstimate, StatePrior

_DIRECT, _STEPS, _SHARES = 3, 10, (1.0, 0.5, 0.25, 0.1)  # steps: of the whole window, per length; shares of one
_SETTLED = 0.95  # ratio of misfits above which a full step has converged
_LOUDER, _LOUDEST, _CALMER = 10.0, 1e3, 1 / 3  # noise factor after a failure, its maximum, factor after a success
_CLOSER = 0.5  # largest ratio of variance factors for an estimate around the closest trajectory
_LOUD = 4.0  # variance factor up to which a window is taken for noisier than training data
_AS_LOUD = 0.25  # ratio of the misfit of a short window to that of the whole, above which it is noise
_PASSES = 24  # cost limit: passes over the whole window
_KNOWN, _SPARE = 0.1, 1.5  # code variance over misfit below which no smoothing is needed; least values per code
_TURNS, _STILL = 8, 0.1  # iterations of contexts and hidden states; squared step of convergence, in standard deviations
_FAR_WORSE, _ROUNDING = 3.0, 1e-14  # ratio of misfits; rounding, as a share of the variance
_FEW_CHANGED = 0.02  # of the gross errors: changes below which they are settled
_SINGULAR = 1e-10  # ridge, relative to the mean variance of a prior
_ALONG = 2  # solves of a context along the parameter curve, as the first tangent is rough

Smoother = Callable[..., StateEstimate]  # arguments: prior, window, `context`, states to linearise `around`


def near_closest_trajectories(
    smoother: Smoother, decoder: Decoder, dynamics: Dynamics, prior: StatePrior, window: TrajectoryBatch,
    context: ContextPrior | None, estimate: StateEstimate, most: float
) -> tuple[StateEstimate, Tensor, Tensor]:
    """An estimate of S trajectories, in which those with a variance factor above `most` are linearised around the
    closest trajectory of the flow if this fits far better; the states (S, K, n) of linearisation, and which are changed
    (S,).

    For windows of several frames and nonlinear fields."""
    around, flown = estimate.mean.clone(), torch.zeros(len(window.u), dtype=torch.bool)
    simple = dynamics.field.is_linear_at_context or not decoder.affine
    simple = simple or window.u.shape[1] < 2 or window.delay is not None
    if contexts := dynamics.field.context_size:
        context = context or prior.context(contexts)
    for row in () if simple else (estimate.factor > most).nonzero():
        one, known = window.select(row), context.select(row) if context is not None and contexts else None
        search = _Search(smoother, decoder, dynamics, prior, one, known)
        with suppress(torch.linalg.LinAlgError):  # a flow that diverges; the closest trajectory before is kept
            search.closest_trajectory(estimate.mean[row, 0], most)
        if (path := search.path) is None:
            continue
        other = smoother(prior, one, context=known, around=path)
        if bool(other.factor < _CLOSER * estimate.factor[row]):
            estimate, around[row], flown[row] = estimate.replaced(row, other), path, True
    return estimate, around, flown


def without_gross_errors(
    smoother: Smoother, decoder: Decoder, prior: StatePrior, window: TrajectoryBatch, context: ContextPrior | None,
    estimate: StateEstimate, most: float
) -> tuple[TrajectoryBatch, StateEstimate]:
    """A window without gross errors, and the estimate from what is left: values of trajectories with a variance factor
    above `most` that the others and the dynamics contradict (variational quality control, Ingleby and Lorenc 1993).

    Each pass compares all values with the states smoothed without those left out by the last one. Trajectories keep
    their values where the misfit of the others does not become far smaller. Warns if there are any gross errors."""
    rows = (estimate.factor > most).nonzero()[:, 0]
    if not len(rows) or window.delay is not None:
        return window, estimate
    chosen, known = window.select(rows), None if context is None else context.select(rows)
    found, wrong = estimate.select(rows), torch.zeros_like(chosen.u, dtype=torch.bool)
    dtype = next(decoder.parameters()).dtype
    for _ in range(_TURNS):
        with torch.no_grad():
            missed = chosen.u.double() - decoder(chosen.x.to(dtype), found.mean[..., : decoder.code_size].to(dtype))
        now = gross_errors(missed, prior.roughest_noise.sqrt())  # fronts are rougher than most frames
        if int((now != wrong).sum()) <= _FEW_CHANGED * int(wrong.sum()):
            break
        wrong = now
        found = smoother(prior, chosen.with_values(chosen.u.masked_fill(wrong, torch.nan)), context=known)
    better = wrong.flatten(1).any(1) & (found.factor < _CLOSER * estimate.factor[rows])
    better &= few_and_apart(chosen.x, wrong, torch.isfinite(chosen.u))
    if not bool(better.any()):
        return window, estimate
    wrong, chosen = wrong[better], chosen.select(better)
    warnings.warn(f"{int(wrong.sum())} of {int(torch.isfinite(chosen.u).sum())} observed values contradict the others "
                  "and the dynamics; they are left out", stacklevel=6)
    u = window.u.clone()
    u[rows[better]] = chosen.u.masked_fill(wrong, torch.nan)
    return window.with_values(u), estimate.replaced(rows[better], found.select(better))


class _Search:
    """Iterative optimisation of the state (1, n) at the first frame of a window. `path` (1, K, n) and `least` are the
    best trajectory over the whole window and its misfit, per value in noise variances; `last` is the misfit of the last
    window."""

    @torch.no_grad()
    def __init__(self, smoother: Smoother, decoder: Decoder, dynamics: Dynamics, prior: StatePrior,
                 window: TrajectoryBatch, context: ContextPrior | None) -> None:
        self.smoother, self.dynamics, self.prior, self.window, self.context = smoother, dynamics, prior, window, context
        self.left = _PASSES * window.u.shape[1]
        self.last, self.least, self.path = 0.0, math.inf, cast("Tensor | None", None)
        self.size, dtype = len(prior.mean) - dynamics.field.context_size, next(decoder.parameters()).dtype
        bases = [decoder.basis(x.to(dtype)) for x in window.x[0]]
        self.decode = [(offset.double(), basis.double()) for offset, basis in bases]

    @torch.no_grad()
    def closest_trajectory(self, start: Tensor, most: float) -> None:
        """Set `path` to the states along the trajectory of the flow that best fits the window, by optimisation from
        `start` (1, n) or, if the misfit exceeds `most` times the noise variance, over windows of growing length. It
        stays None if there is no finite one."""
        frames = self.window.u.shape[1]
        self.approach(start, frames, _DIRECT, 1.0)
        if not self.least < most:
            known = self.smoother(self.prior, self.window.first_frames(1), context=self.context).mean[:, 0]
            for length in [k for k in (1 + 2**i for i in range(frames)) if k < frames] + [frames]:
                known = self.approach(known, length, _STEPS, _LOUDEST, most)
                if length > 2 and self.last > _AS_LOUD * self.least:  # the misfit of short windows is noise, too
                    break

    def approach(self, state: Tensor, length: int, steps: int, loudest: float, most: float = 0.0) -> Tensor:
        """The state of best fit to the first `length` frames, after at most `steps` steps; for shorter windows than the
        whole, until the misfit is below `most` noise variances."""
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
        """Squared misfit of a trajectory to a window, and squared deviation of its first state from the prior, in
        standard deviations; and states (1, K, n) of the trajectory."""
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
    """Posterior of the context of one system from windows of its trajectories in data units: unconstrained, then, where
    fewer parameters determine contexts, along their curve, unless its misfit is far larger: the fitted polynomials
    become inaccurate away from the training systems."""
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

    First from the codes of each frame by itself, which suffice where they are far more accurate than the flow. Then
    from the smoother, whose states include the context, linearised at the last estimate until this is settled (iterated
    smoother, Bell 1994): it knows how well frames of few or noisy values determine states, hidden parts among them.
    Ensembles do not carry contexts: these are solved from smoothed states.
    """
    flown, size = surrogate.prior.covariance.dim() == 1, surrogate.context_size
    parts = [surrogate.codes(window) for window in windows]
    hidden, nominal = surrogate.field.state_size > surrogate.code_size, prior.mean
    if not hidden:  # memory is unknown before the filter has run
        found = _given(surrogate, parts, prior)
        if _least_known(surrogate, windows[0], parts[0]) < _KNOWN * found.growing * found.misfit:
            return found
        nominal = found.mean
    for turn in range(_TURNS):
        at = replace(prior, nominal=nominal)
        estimates = [surrogate.estimate(window, not flown, at) for window in windows]
        states = [replace(part, codes=one.mean[..., : surrogate.field.state_size])
                  for part, one in zip(parts, estimates, strict=True)]
        if flown or (hidden and not turn):
            found = _given(surrogate, states, prior if hidden and not turn else at)
        else:
            at_last = _pooled([(*one.last_context(size), one.factor) for one in estimates], prior)
            found = at_context(surrogate.field, surrogate.integrator, _joined(states), *at_last)
            factors = torch.cat([one.factor for one in estimates])
            louder = torch.where(factors > _LOUD, factors - 1, 0.0)  # less is noise
            missed = found.misfit + float(louder.mean() * surrogate.prior.noise.mean())  # of values, not states alone
            if missed > 0:  # false for NaN
                found = replace(found, misfit=missed, growing=found.growing * found.misfit / max(missed, _ROUNDING))
            found = _calibrated(surrogate, found)
        moved, nominal = found.mean - nominal, found.mean
        if (flown and not hidden) or float(moved @ torch.linalg.solve(found.covariance, moved)) < _STILL:
            break
    return found


def _least_known(surrogate: Any, window: TrajectoryBatch, part: CodeData) -> float:
    """Posterior variance of codes of the frame with the fewest values, as a share of their mean square; infinite where
    values are hardly more than codes."""
    seen = torch.isfinite(window.u).flatten(2).sum(2).sum(0)
    fewest = int(seen.masked_fill(seen == 0, int(seen.max()) + 1).argmin())
    if not float(seen[fewest]) > _SPARE * surrogate.code_size * len(window):
        return math.inf
    frame = surrogate.internal(window).frames(slice(fewest, fewest + 1))
    return unknown(surrogate.decoder, frame, part.codes, surrogate.prior.codes(surrogate.code_size), surrogate.encoder)


def _pooled(contexts: Sequence[tuple[Tensor, Tensor, Tensor]], prior: ContextPrior) -> tuple[Tensor, Tensor]:
    """Posterior mean (P,) and covariance (P, P) of a context from several trajectories, given those (S, P) and
    (S, P, P) from each, of which all have the same prior, and factors (S,) on variances of their observations."""
    ridge = _SINGULAR * prior.covariance.diagonal().mean() * torch.eye(len(prior.mean))  # curves have no width
    before = torch.linalg.inv(prior.covariance + ridge)
    mean, covariance, factor = (torch.cat([one.double() for one in part]) for part in zip(*contexts, strict=True))
    inverse, louder = torch.linalg.inv(covariance + ridge), factor.clamp(min=1.0)
    pooled = torch.linalg.inv(before + ((inverse - before) / louder[:, None, None]).sum(0))
    return prior.mean + pooled @ (inverse @ (mean - prior.mean)[..., None] / louder[:, None, None]).sum(0)[:, 0], pooled


def context_of_each_trajectory(surrogate: Any, window: TrajectoryBatch, codes: CodeData,
                               prior: ContextPrior) -> ContextPrior:
    """The prior with nominal contexts (S, P) for linearisation, each estimated from the frames of its own trajectory
    (window and codes); for ensembles, their posterior."""
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
    process, states = surrogate.prior.process[: surrogate.field.state_size], _joined(parts)
    field, integrator = surrogate.field, surrogate.integrator
    if (curve := prior.curve) is None:
        found = solve_context(field, integrator, states, prior.mean, prior.covariance, process, prior.nominal)
    else:
        mean, covariance = curve.prior
        told = solve_context(field, integrator, states, mean, covariance, process, curve.starts, curve=curve)
        slopes = curve.slopes(told.mean)
        found = ContextEstimate(curve(told.mean), slopes @ told.covariance @ slopes.T, told.misfit, told.growing)
    return _calibrated(surrogate, found)


def _joined(parts: Sequence[CodeData]) -> CodeData:
    frames = max(one.codes.shape[1] for one in parts)
    return CodeData.join([part.padded(frames) for part in parts])


def _calibrated(surrogate: Any, found: ContextEstimate) -> ContextEstimate:
    """The estimate with the uncertainty of a law, which grows with the distance from training systems."""
    if (known := surrogate.contexts) is not None:
        found.covariance *= known.spread * float(known.widening(found.mean)) ** 2 * known.variance_inflation(found)
    return found
