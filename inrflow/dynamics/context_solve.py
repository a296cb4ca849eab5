"""The context of a system from transitions of its states: P numbers by damped Gauss-Newton through the integrated flow.

Any vector field with contexts, linear or not: derivatives by the context are central differences of the flow, P pairs
of integrations in one batch. The posterior covariance comes from the same solve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.states import CodeData
from inrflow.dynamics.vector_field import VectorField

_STEP = 1e-4
_ITERATIONS = 30
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
    spans = _spans(states, longest)
    iterations = 0
    for part in [spans[:1], spans][len(spans) < 2 :]:  # short ones cost little and come close
        if not part:
            break
        flow = _Spans(field, integrator, part)
        flow.keep(flow.residual(estimate.mean[None])[0].square().sum(1) < _DIVERGED * variance)
        if not len(flow):
            continue
        least = noise_of(noise, flow.durations(), states.codes.shape[-1])
        estimate = damped_gauss_newton(flow.residual, mean, covariance, least, estimate.mean)
        iterations += estimate.iterations
        estimate.misfit = float(estimate.misfit / variance)
    estimate.iterations = iterations
    return estimate


class _Spans:
    """Spans of the observed states, those of as many frames in one batch, and what the flow misses at their ends."""

    def __init__(self, field: VectorField, integrator: Integrator, groups: list[tuple[Tensor, ...]]) -> None:
        self.field, self.integrator, self.groups = field, integrator, groups

    def __len__(self) -> int:
        return sum(len(start) for start, *_ in self.groups)

    def durations(self) -> Tensor:
        """(Q,) internal time."""
        return torch.cat([end - begin for _, _, begin, end in self.groups])

    def keep(self, kept: Tensor) -> None:
        """Only some of the spans (Q,): one that diverges tells nothing. A comparison with NaN is false."""
        parts = kept.split([len(start) for start, *_ in self.groups])
        self.groups = [tuple(v[rows] for v in group) for group, rows in zip(self.groups, parts, strict=True)]

    def residual(self, contexts: Tensor) -> Tensor:
        """What the flow misses (B, Q, n) at contexts (B, P)."""
        count, found = len(contexts), []
        for start, stop, begin, end in self.groups:
            if not len(start):
                continue
            joined = torch.cat([start.expand(count, -1, -1), contexts[:, None].expand(-1, len(start), -1)], -1)
            times = torch.stack([begin, end], 1).repeat(count, 1)
            with torch.no_grad():
                ends = self.integrator(self.field, joined.flatten(0, 1), times, check=False)[:, 1, : start.shape[1]]
            found.append(stop - ends.reshape(count, *stop.shape))
        return torch.cat(found, 1)


def noise_of(noise: Tensor | float, gap: Tensor, size: int) -> Tensor:
    """Variances (Q, n) of the field's error over spans (Q,)."""
    each = torch.as_tensor(noise, dtype=torch.float64).expand(size)
    return each * gap.abs()[:, None]


def damped_gauss_newton(
    residual: Callable[[Tensor], Tensor], mean: Tensor, covariance: Tensor, least: Tensor, start: Tensor | None = None
) -> ContextEstimate:
    """Minimise the residuals (Q, n) over contexts with a Gaussian prior, from `start` (None: its mean). The misfit of
    the estimate is the mean square of a residual.

    Residuals are weighed by one variance each column, estimated from the residuals themselves, at least `least`.
    Spans that share frames do not err independently: the covariance is widened by the number of spans a frame.
    """
    precision = torch.linalg.inv(covariance)
    size = len(mean)
    context, damping, done = (mean if start is None else start).clone(), 1e-2, 0
    current = residual(context[None])[0]
    weight = _weights(current, least)
    moves = _STEP * torch.cat([torch.eye(size), -torch.eye(size)]).double()

    def objective(values: Tensor, at: Tensor) -> float:
        value = float((values.square() * weight).sum() + (at - mean) @ precision @ (at - mean))
        return value if value == value else float("inf")

    curvature = precision
    for done in range(1, _ITERATIONS + 1):  # noqa: B007
        ends = residual(context + moves)
        jacobian = ((ends[size:] - ends[:size]) / (2 * _STEP)).permute(1, 2, 0)  # of the forecast
        weighted = jacobian * weight[..., None]
        curvature = torch.einsum("qnk,qnl->kl", weighted, jacobian) + precision
        gradient = torch.einsum("qnk,qn->k", weighted, current) - precision @ (context - mean)
        before, moved = objective(current, context), False
        for _ in range(12):
            step = torch.linalg.solve(curvature + damping * torch.diag(curvature.diagonal()), gradient)
            proposed = residual((context + step)[None])[0]
            if objective(proposed, context + step) <= before:
                context, current, moved = context + step, proposed, True
                damping = max(damping * 0.1, 1e-12)
                break
            damping *= 10
        if not moved or float(step @ curvature @ step) < 1e-6:
            break
        weight = _weights(current, least)
    misfit = float(current.square().sum(1).mean())
    return ContextEstimate(context, torch.linalg.inv(curvature) * len(_LAGS), misfit, done)


def _weights(residual: Tensor, least: Tensor) -> Tensor:
    """1 / variance (Q, n): the spread of all residuals together, which a code's own must not undercut too far."""
    common = residual.square().mean().clamp(min=1e-300)
    return 1 / (least + common)


def _spans(states: CodeData, longest: int) -> list[tuple[Tensor, ...]]:
    """Start and end states (Q, n) and times (Q,) of all spans with both ends observed: of 1 frame, 2, 4, ... frames."""
    groups: list[tuple[Tensor, ...]] = []
    frames = states.codes.shape[1]
    for lag in _LAGS:
        if lag > min(longest, frames - 1) and lag > 1:
            break
        both = states.observed[:, : frames - lag] & states.observed[:, lag:]
        s, k = both.nonzero(as_tuple=True)
        if len(s):
            groups.append((states.codes[s, k], states.codes[s, k + lag], states.t[s, k], states.t[s, k + lag]))
    return groups
