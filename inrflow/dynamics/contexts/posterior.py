"""The context of a system from transitions of its states: P numbers by damped Gauss-Newton through the integrated flow.

Any vector field with contexts, linear or not: derivatives by the context are differences of the flow, P
integrations in one batch. The posterior covariance comes from the same solve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData, evenly_spread

_STEP = 1e-4
_ITERATIONS, _FIRST_ITERATIONS = 30, 3
_NEAR = 0.1  # of a context's spread
_SETTLED, _ENOUGH = 1e-4, 1e-2  # square of a step in standard deviations of the posterior; of the step not taken
_TOLD = 0.05  # of the standard deviation of the prior: what short spans tell so well is told
_FIRST_STARTS = 3  # frames: each holds as many equations as there are codes
_LAGS = (1, 2, 4, 8)
_DIVERGED = 100.0  # times the variance of the states


@dataclass
class ContextEstimate:
    """Gaussian posterior of a context: mean (P,), covariance (P, P); misfit: mean square of what the flow misses, share
    of the variance of the states; iterations that were needed."""

    mean: Tensor
    covariance: Tensor
    misfit: float
    iterations: int


def solve_context(
    field: VectorField,
    integrator: Integrator,
    states: CodeData,
    mean: Tensor,
    covariance: Tensor,
    noise: Tensor | float = 0.0,
    longest: int = 8,
) -> ContextEstimate:
    """The context that explains trajectories of codes and memory (S, T, n) of one system, given its prior.

    Spans of 1, 2, 4, ... frames up to `longest` are forecast from every observed frame and compared with what was
    observed at their ends: long spans show slow motion, short ones cannot be lost in a wrong one.

    Args:
        mean, covariance: prior, (P,) and (P, P).
        noise: (n,) variance that the field's own error adds to a state in a unit of time.
    """
    estimate = ContextEstimate(mean.clone(), covariance.clone(), float("nan"), 0)
    variance = states.codes[states.observed].square().sum(1).mean().clamp(min=1e-300)
    lags = [lag for lag in _LAGS if lag <= max(1, min(longest, states.codes.shape[1] - 1))]
    iterations = 0
    for part in [lags[:1], lags][len(lags) < 2 :]:  # short spans cost little and come close
        flow = _Spans(field, integrator, states, part)
        if not len(flow):
            continue
        if part != lags and not field.is_linear_at_context:
            flow.thin(_FIRST_STARTS)
        missed = flow.residual(estimate.mean + _stencil(len(mean)))
        kept = missed[0].square().sum(1) < _DIVERGED * variance
        if not bool(kept.any()):
            continue
        flow.keep(kept)
        least = noise_of(noise, flow.durations(), states.codes.shape[-1])
        most = _ITERATIONS if part == lags else _FIRST_ITERATIONS
        start = estimate.mean, missed[:, kept]
        estimate = damped_gauss_newton(flow.residual, mean, covariance, least, start, most)
        iterations += estimate.iterations
        estimate.misfit = float(estimate.misfit / variance)
        told = estimate.covariance.diagonal() < _TOLD**2 * covariance.diagonal()
        if not field.is_linear_at_context and bool(told.all()):  # long spans cost most of the time
            break
    estimate.iterations = iterations
    return estimate


class _Spans:
    """Spans of so many frames between observed states (S, T, n), and what the flow misses at their ends.

    All spans that begin at one frame are stops of one integration.
    """

    def __init__(self, field: VectorField, integrator: Integrator, states: CodeData, lags: list[int]) -> None:
        self.field, self.integrator = field, integrator
        frames = states.codes.shape[1]
        ends = torch.arange(frames)[:, None] + torch.tensor(lags)  # (T, L)
        inside = ends < frames
        ends = ends.clamp(max=frames - 1)
        seen = states.observed[:, :, None] & states.observed[:, ends] & inside
        rows, first = seen.any(-1).nonzero(as_tuple=True)
        self.seen = seen[rows, first]  # (R, L)
        self.start = states.codes[rows, first]
        self.stop = states.codes[rows[:, None], ends[first]]
        times = [states.t[rows, first]]
        for lag in range(len(lags)):  # where nothing was seen, time stands still until the next stop
            times.append(torch.where(self.seen[:, lag], states.t[rows, ends[first, lag]], times[-1]))
        self.times = torch.stack(times, 1)

    def __len__(self) -> int:
        return int(self.seen.sum())

    def durations(self) -> Tensor:
        """(Q,) internal time."""
        return (self.times[:, 1:] - self.times[:, :1])[self.seen]

    def thin(self, most: int) -> None:
        """Only so many of the frames to start from, evenly spread."""
        rows = evenly_spread(len(self.start), most)
        self.seen, self.start, self.stop, self.times = (
            one[rows] for one in (self.seen, self.start, self.stop, self.times)
        )

    def keep(self, kept: Tensor) -> None:
        """Only some of the spans (Q,): one that diverges tells nothing. A comparison with NaN is false."""
        self.seen = self.seen.masked_scatter(self.seen, kept)

    def residual(self, contexts: Tensor) -> Tensor:
        """What the flow misses (B, Q, n) at contexts (B, P)."""
        count, rows = len(contexts), len(self.start)
        joined = torch.cat([self.start.expand(count, -1, -1), contexts[:, None].expand(-1, rows, -1)], -1)
        with torch.no_grad():
            path = self.integrator(self.field, joined.flatten(0, 1), self.times.repeat(count, 1), check=False)
        ends = path[:, 1:, : self.start.shape[1]].unflatten(0, (count, rows))
        return (self.stop - ends)[:, self.seen]


def noise_of(noise: Tensor | float, gap: Tensor, size: int) -> Tensor:
    """Variances (Q, n) of the field's error over spans (Q,)."""
    each = torch.as_tensor(noise, dtype=torch.float64).expand(size)
    return each * gap.abs()[:, None]


def damped_gauss_newton(
    residual: Callable[[Tensor], Tensor],
    mean: Tensor,
    covariance: Tensor,
    least: Tensor,
    start: tuple[Tensor, Tensor],
    most: int,
) -> ContextEstimate:
    """Minimise the residuals (Q, n) over contexts with a Gaussian prior in at most so many iterations, from a context
    on whose stencil they are known, (1 + P, Q, n). The misfit of the estimate is the mean square of a residual.

    Residuals are weighed by one variance each column, estimated from the residuals themselves, at least `least`.
    Spans that share frames do not err independently: the covariance is widened by the number of spans a frame.
    """
    precision = torch.linalg.inv(covariance)
    (context, values), damping, done = start, 1e-3, 0
    current, jacobian = values[0], _slope(values)
    weight = _weights(current, least)
    stencil = _stencil(len(mean))

    def objective(values: Tensor, at: Tensor) -> float:
        value = float((values.square() * weight).sum() + (at - mean) @ precision @ (at - mean))
        return value if value == value else float("inf")

    curvature, far, last = precision, True, torch.zeros_like(mean)
    for done in range(1, most + 1):  # noqa: B007
        weighted = jacobian * weight[..., None]
        curvature = torch.einsum("qnk,qnl->kl", weighted, jacobian) + precision
        gradient = torch.einsum("qnk,qn->k", weighted, current) - precision @ (context - mean)
        before, moved = objective(current, context), False
        step = torch.linalg.solve(curvature, gradient)
        size = float(step @ curvature @ step)
        # The objective's rounding could not tell whether this step helps, or the next one would be so small: steps
        # shrink by the same factor at least.
        if size < _SETTLED or size * size < _ENOUGH * float(last @ curvature @ last):
            context = context + step
            break
        for _ in range(12):
            step = torch.linalg.solve(curvature + damping * torch.diag(curvature.diagonal()), gradient)
            values = residual(context + step + (stencil if far else stencil[:1]))
            if objective(values[0], context + step) <= before:
                context, current, last, moved = context + step, values[0], step, True
                jacobian = _slope(values) if far else jacobian  # near by, the last one serves
                damping = max(damping * 0.1, 1e-12)
                break
            damping *= 10
        far = float(step.norm()) > _NEAR
        if not moved:
            break
        weight = _weights(current, least)
    misfit = float(current.square().sum(1).mean())
    return ContextEstimate(context, torch.linalg.inv(curvature) * len(_LAGS), misfit, done)


def _stencil(size: int) -> Tensor:
    """Moves (1 + P, P) of a context by which derivatives are taken: they cost little beside the flow at the context."""
    return _STEP * torch.cat([torch.zeros(1, size), torch.eye(size)]).double()


def _slope(residuals: Tensor) -> Tensor:
    """Derivatives (Q, n, P) of forecasts by the context from residuals (1 + P, Q, n) on its stencil."""
    return ((residuals[0] - residuals[1:]) / _STEP).permute(1, 2, 0)


def _weights(residual: Tensor, least: Tensor) -> Tensor:
    """1 / variance (Q, n): the spread of all residuals together, which a code's own must not undercut too far."""
    common = residual.square().mean().clamp(min=1e-300)
    return 1 / (least + common)
