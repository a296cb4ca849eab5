"""The context of a system from transitions of its states: P numbers by Gauss-Newton along the integrated flow.

For any vector field with contexts: derivatives with respect to the context are differences of the flow, P integrations
in one batch. The posterior covariance comes from the same solve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import evenly_spread
from inrflow.encoding.encode import CodeData
from inrflow.numerics.levenberg_marquardt import Linearisation, damped, damped_descent

_STEP = 1e-4
_ITERATIONS = 30
_TRIES = 12  # dampings tried for a step
_SETTLED, _ENOUGH = 1e-4, 1e-2  # squared step in posterior standard deviations; squared predicted next step
_STARTS = 3  # first frames of spans: each gives as many equations as there are codes
_LAGS = (1, 2, 4, 8)
_DIVERGED = 100.0  # squared residual of diverged spans, relative to the variance of the states


@dataclass
class ContextEstimate:
    """Gaussian posterior of a context: mean (P,), covariance (P, P). misfit: mean square residual of the flow relative
    to the variance of the states; growing: share of it that is absent from spans of one frame, small for noise."""

    mean: Tensor
    covariance: Tensor
    misfit: float
    growing: float = 0.0


def solve_context(field: VectorField, integrator: Integrator, states: CodeData, mean: Tensor, covariance: Tensor,
                  noise: Tensor | float = 0.0, near: Tensor | None = None, most: int | None = None,
                  curve: Callable[[Tensor], Tensor] | None = None) -> ContextEstimate:
    """Context estimated from trajectories of codes and memory (S, T, n) of one system, given a Gaussian prior.

    Spans of 1, 2, 4 and 8 frames and of all are forecast from observed frames, only a few of them if the flow is
    nonlinear, and compared with the observations at their ends. Long spans reveal slow motion; short ones have no
    spurious minima.

    Args:
        mean, covariance: prior, (P,) and (P, P).
        noise: (n,) variance that process noise adds to a state per unit of time.
        near: starting point (P,) of the search, or several (N, P), of which the best is taken; by default the estimate
            from spans of one frame, which has a single minimum even if waves turn over between distant frames.
        most: largest number of frames of a span.
        curve: map of unknowns (B, U) to contexts (B, P); prior, `near` and the estimate then refer to the unknowns.
    """
    longest = min(max(1, states.codes.shape[1] - 1), most or states.codes.shape[1])
    if near is None and longest > 1:
        near = solve_context(field, integrator, states, mean, covariance, noise, most=1).mean
    begin = mean if near is None or near.dim() > 1 else near
    unknown = ContextEstimate(begin.clone(), covariance.clone(), float("nan"))
    flow = _Spans(field, integrator, states, [lag for lag in _LAGS if lag < longest] + [longest])
    if not len(flow.start):
        return unknown
    residual = flow.residual if curve is None else lambda unknowns: flow.residual(curve(unknowns))
    if near is not None and near.dim() > 1:
        begin = near[int(residual(near).square().sum((1, 2)).nan_to_num(math.inf).argmin())]
    missed = residual(begin + _stencil(len(mean)))
    kept = flow.near(missed[0].square().sum(1))
    if not bool(kept.any()):
        return unknown
    durations = (flow.times[:, 1:] - flow.times[:, :1])[flow.seen].abs()
    least = torch.as_tensor(noise, dtype=torch.float64).expand(states.codes.shape[-1]) * durations[:, None]
    estimate, each = most_probable_context(residual, mean, covariance, least, (begin, missed[:, kept]))
    estimate.misfit, estimate.growing = flow.misfit(each)
    return estimate


def at_context(field: VectorField, integrator: Integrator, states: CodeData, mean: Tensor, covariance: Tensor
               ) -> ContextEstimate:
    """The estimate of a context found otherwise, with its misfit to spans of frames as in `solve_context`; NaN without
    spans that stay finite."""
    longest = max(1, states.codes.shape[1] - 1)
    flow = _Spans(field, integrator, states, [lag for lag in _LAGS if lag < longest] + [longest])
    each = flow.residual(mean[None])[0].square().sum(1) if len(flow.start) else torch.zeros(0)
    kept = flow.near(each)
    return ContextEstimate(mean, covariance, *(flow.misfit(each[kept]) if bool(kept.any()) else (math.nan,)))


class _Spans:
    """Spans of `lags` frames between observed states (S, T, n), and the residuals of the flow at their ends.

    All spans with the same first frame are stops of one integration. If the flow is nonlinear, a few of them are used.
    """

    def __init__(self, field: VectorField, integrator: Integrator, states: CodeData, lags: list[int]) -> None:
        self.field, self.integrator = field, integrator
        self.variance = states.codes[states.observed].square().sum(1).mean().clamp(min=1e-300)
        frames = states.codes.shape[1]
        ends = torch.arange(frames)[:, None] + torch.tensor(lags)  # (T, L)
        inside = ends < frames
        ends = ends.clamp(max=frames - 1)
        seen = states.observed[:, :, None] & states.observed[:, ends] & inside
        begun = seen.any(-1).nonzero()
        if not field.is_linear_at_context:
            begun = begun[evenly_spread(len(begun), _STARTS)]
        rows, first = begun.T
        self.seen = seen[rows, first]  # (R, L)
        self.start = states.codes[rows, first]
        self.stop = states.codes[rows[:, None], ends[first]]
        stops = states.t[rows[:, None], ends[first]].masked_fill(~self.seen, -torch.inf)
        self.times = torch.cat([states.t[rows, first, None], stops], 1).cummax(1).values  # unobserved: that of the last

    def near(self, squares: Tensor) -> Tensor:
        """Which (Q,) spans have not diverged, given squared residuals (Q,); only these are kept."""
        kept = squares < _DIVERGED * self.variance  # false for NaN
        self.seen = self.seen.masked_scatter(self.seen, kept)
        return kept

    def misfit(self, squares: Tensor) -> tuple[float, float]:
        """Misfit of squared residuals (Q,) relative to the variance of the states, and the share of it that grows."""
        single = squares[torch.arange(self.seen.shape[1]).expand_as(self.seen)[self.seen] == 0]
        return float(squares.mean() / self.variance), max(0.0, 1 - float(single.mean() / squares.mean()))

    def residual(self, contexts: Tensor) -> Tensor:
        """Residuals (B, Q, n) of the flow at contexts (B, P)."""
        count, rows = len(contexts), len(self.start)
        joined = torch.cat([self.start.expand(count, -1, -1), contexts[:, None].expand(-1, rows, -1)], -1)
        with torch.no_grad():
            path = self.integrator(self.field, joined.flatten(0, 1), self.times.repeat(count, 1), check=False)
        ends = path[:, 1:, : self.start.shape[1]].unflatten(0, (count, rows))
        return (self.stop - ends)[:, self.seen]


def most_probable_context(residual: Callable[[Tensor], Tensor], mean: Tensor, covariance: Tensor, least: Tensor,
                          start: tuple[Tensor, Tensor]) -> tuple[ContextEstimate, Tensor]:
    """Maximum a posteriori context for residuals (Q, n) and a Gaussian prior by damped Gauss-Newton; squares (Q,).

    All residuals have one variance, estimated from themselves. The misfit of the estimate is the mean square of a
    residual. Spans that share frames are not independent: the covariance is multiplied by the number of spans a frame.

    Args:
        residual: residuals (B, Q, n) at contexts (B, P).
        mean, covariance: prior, (P,) and (P, P).
        least: variances (Q, n) added to that of the residuals.
        start: a context, and residuals (1 + P, Q, n) at its finite-difference stencil.
    """
    precision, stencil = torch.linalg.inv(covariance), _stencil(len(mean))
    before, weight, curvature = start[0], torch.ones(1), precision  # at the last linearisation
    last: Tensor | None = None

    def objective(at: tuple[Tensor, Tensor]) -> float:
        apart = at[0] - mean
        value = float((at[1][0].square() * weight).sum() + apart @ precision @ apart)
        return value if value == value else float("inf")

    def linearise(at: tuple[Tensor, Tensor]) -> Linearisation[tuple[Tensor, Tensor]] | None:
        nonlocal before, weight, curvature, last
        context, values = at
        slope = ((values[0] - values[1:]) / _STEP).permute(1, 2, 0)  # (Q, n, P) of forecasts by the context
        weight = 1 / (least + values[0].square().mean().clamp(min=1e-300))
        weighted = slope * weight[..., None]
        curvature = torch.einsum("qnk,qnl->kl", weighted, slope) + precision
        gradient = torch.einsum("qnk,qn->k", weighted, values[0]) - precision @ (context - mean)
        step, moved, before = torch.linalg.solve(curvature, gradient), context - before, context
        size = float(step @ curvature @ step)
        # Linear convergence: steps shrink by at least this factor, so that the next step would be negligible.
        if size < _SETTLED or size * size < _ENOUGH * float(moved @ curvature @ moved):
            last = context + step
            return None

        def propose(damping: float) -> tuple[Tensor, Tensor]:
            trial = context + torch.linalg.solve(damped(curvature, damping), gradient)
            return trial, residual(trial + stencil)

        return Linearisation(objective(at), propose)

    (context, values), _ = damped_descent(start, linearise, objective, steps=_ITERATIONS, tries=_TRIES)
    each, context = values[0].square().sum(1), context if last is None else last
    return ContextEstimate(context, torch.linalg.inv(curvature) * len(_LAGS), float(each.mean())), each


def _stencil(size: int) -> Tensor:
    """Displacements (1 + P, P) of a context for forward differences, with 0 first."""
    return _STEP * torch.cat([torch.zeros(1, size), torch.eye(size)]).double()


def contexts_of_systems(every: Tensor, number: Tensor, field: VectorField, integrator: Integrator, states: CodeData
              ) -> Tensor:
    """Contexts (S, P) of trajectories: those of their systems, `every` (E, P), or solved if the system is new (-1)."""
    contexts, prior = every[number], (torch.zeros(every.shape[1]).double(), torch.eye(every.shape[1]).double())
    for row in (number < 0).nonzero()[:, 0].tolist():
        contexts[row] = solve_context(field, integrator, states.at([row]), *prior).mean
    return contexts
