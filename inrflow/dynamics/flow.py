"""Flows of vector fields: integration by torchdiffeq, linearisation (which propagates covariances and delayed values),
and estimation of process noise.

Every trajectory of a batch has its own times: each interval between two of them is mapped to s in [0, 1] and integrated
as dz/ds = dt_i f(t_i + s dt_i, z), one batched call an interval. Long intervals of affine fields are crossed exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fields.step_map import MapTerm, StepMapTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.encoding.delayed_values import AffineMotion
from inrflow.encoding.encode import CodeData
from inrflow.errors import UserError

_FAR, _MANY = 4.0, 256  # internal time units and steps of an interval beyond which an exact flow is used
_MOST = 2.0**20  # largest number of steps in an interval: minutes for a few codes
_KEPT = 128  # steps whose states are stored at once
_SHORT = 8.0  # internal time units over which the action of the flow on process noise is neglected
_MANY_STATES, _FEW_STATES = 600, 4  # number of states from which those that depend on few are propagated separately
_ROLLOUTS = 2  # disturbed rollouts of each trajectory
_TRANSITIONS, _LEADS = 200, 20  # number of frames from which transitions are thinned; leads that noise is scaled by
_CHANCE = 4.0  # significance of process noise in standard errors: among hundreds of states, 3 would be chance
_CONTEXT_STEP = 1e-4  # of central differences: truncation and rounding errors below 1e-8


class IntegrationError(UserError):
    """The integration overflowed or its step size collapsed."""


@dataclass(frozen=True)
class Integrator:
    """Integration method and its tolerances.

    Attributes:
        method: "rk4" (fixed step), "dopri5" (adaptive), "etd" (exponential, for laws on harmonics alone) or "map" (from
            step to step, for autoregressions and step maps alone).
        step: largest fixed step in internal time units; the time step of the training data is 1.
        rtol, atol: tolerances of the adaptive method.
        adjoint: gradients by the adjoint equation (constant memory) instead of stored steps.
        largest_norm: a state beyond this norm counts as diverged.
    """

    method: str = "rk4"
    step: float = 1.0
    rtol: float = 1e-5
    atol: float = 1e-6
    adjoint: bool = False
    largest_norm: float = 1e4

    def __call__(self, field: nn.Module, start: Tensor, times: Tensor, check: bool = True) -> Tensor:
        """States (S, T, n) at times (S, T) or (T,), the first of which is the time of `start` (S, n).

        Times may decrease. NaN times (padding) give NaN states. With `check` a diverging integration raises
        IntegrationError; without it the states are returned as they are.
        """
        times = times.expand(len(start), times.shape[-1])
        padding = torch.isnan(times)
        if self.method == "map":
            known = torch.where(padding, times[:, :1], times).nan_to_num()
            result = cast(VectorField, field).term(MapTerm).path(start, known)
        else:
            states = [start]
            for begin, gap in zip(times[:, :-1].nan_to_num().T, times.diff(dim=1).nan_to_num().T, strict=True):
                states.append(self._interval(field, states[-1], begin, gap, check))
            result = torch.stack(states, 1)
        if check:
            self._check(result, times)
        return result.masked_fill(padding[..., None], float("nan")) if bool(padding.any()) else result

    def _interval(self, field: nn.Module, state: Tensor, begin: Tensor, gap: Tensor, check: bool) -> Tensor:
        widest = float(gap.abs().max())
        if widest == 0.0:
            return state
        if self.method == "etd":
            (law,) = cast(VectorField, field).terms.values()
            return law.advance(state, begin, gap, self.step)  # type: ignore[operator]
        recorded = torch.is_grad_enabled()
        parts = widest / self.step
        if widest > _FAR and parts > _MANY and not recorded and getattr(field, "has_exact_flow", False):
            return cast(VectorField, field).exact_flow(state, begin, gap)
        if self.method == "rk4" and not parts <= _MOST:
            if not check:
                return torch.full_like(state, float("nan"))
            raise IntegrationError(
                f"the forecast from t={float(begin[0]):g} needs {parts:.3g} steps over {widest:.3g} internal time "
                f"units, more than {_MOST:g}: forecast less far"
            )
        scale = gap.to(state.dtype)[:, None]

        def rate(s: Tensor, y: Tensor) -> Tensor:
            return scale * field(begin + s.double() * gap, y)

        if self.method == "rk4":
            steps = max(1, math.ceil(parts - 1e-6))
            grid = torch.linspace(0, 1, steps + 1, dtype=state.dtype, device=state.device)
            options: dict = {}
        else:
            grid = torch.tensor([0.0, 1.0], dtype=state.dtype, device=state.device)
            options = {"rtol": self.rtol, "atol": self.atol, "options": {"max_num_steps": int(_MOST)}}
        try:
            if self.adjoint:
                options["adjoint_params"] = tuple(p for p in field.parameters() if p.requires_grad)
                return odeint_adjoint(rate, state, grid, method=self.method, **options)[-1]
            # torchdiffeq stores the states of all steps; without gradients, a few at a time save memory.
            length = len(grid) if recorded else _KEPT
            for first in range(0, len(grid) - 1, length):
                state = odeint(rate, state, grid[first : first + length + 1], method=self.method, **options)[-1]
            return state
        except AssertionError as error:  # torchdiffeq raises it for a collapsed step or NaN states
            if not check:
                return torch.full_like(state, float("nan"))
            norms = state.detach().norm(dim=-1)
            worst = int(norms.argmax())  # one step size serves the whole batch: the largest state most likely broke it
            cause = str(error).splitlines()[0] if str(error) else "no step is small enough"
            raise IntegrationError(
                f"the forecast of trajectory {worst} with {self.method} failed in the interval from "
                f"t={float(begin[worst]):g} (step {float(gap[worst]):g}, internal units; state norm "
                f"{float(norms[worst]):.3g}): {cause}; the dynamics are too stiff or have diverged there: use "
                "dynamics.method=rk4, a larger dynamics.rtol, or forecast less far"
            ) from error

    def _check(self, states: Tensor, times: Tensor) -> None:
        norms = states.detach().norm(dim=-1)
        bad = ~(norms < self.largest_norm) & ~torch.isnan(times)
        if not bool(bad.any()):
            return
        trajectory, frame = (int(i) for i in bad.nonzero()[bad.nonzero()[:, 1].argmin()])
        gap = float(times[trajectory, frame] - times[trajectory, max(frame - 1, 0)])
        raise IntegrationError(
            f"the forecast of trajectory {trajectory} diverged at t={float(times[trajectory, frame]):g} (step {gap:g}, "
            f"internal units; state norm {float(norms[trajectory, frame]):.3g}, limit {self.largest_norm:.3g}): query "
            "shorter horizons, take smaller steps (dynamics.step), or train longer or on more frames"
        )


@dataclass
class Dynamics:
    """A vector field, its integrator, and the process noise: variance (n,) added per unit of time."""

    field: VectorField
    integrator: Integrator
    process: Tensor

    def flow(self, state: Tensor, times: Tensor, check: bool = True) -> Tensor:
        """States (S, T, n) at times (S, T) from `state` (S, n) at the first of them; differentiable if `state` is."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and state.requires_grad):
            return self.integrator(self.field, state, times, check)

    def motion(self, states: Tensor, size: int) -> AffineMotion:
        """Linearised field for the first `size` dimensions, the code, around states (n,) or (S, n).

        Delayed codes, contexts and the forcing are held constant.
        """
        rows = states.reshape(-1, states.shape[-1])
        now = torch.zeros(len(rows), dtype=torch.float64)
        with torch.no_grad():
            rate = self.field(now, rows)[:, :size]
        matrix = self.field.jacobian(now, rows)[:, :size, :size]
        bias = rate - (matrix @ rows[:, :size, None])[..., 0]
        return AffineMotion.of(matrix, bias) if states.dim() > 1 else AffineMotion.of(matrix[0], bias[0])

    def propagate(
        self, covariance: Tensor, start: Tensor, stop: Tensor, begin: Tensor, end: Tensor, contexts: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Covariance at `end` and the linearised flow (S or 1, n, n), from `covariance` (S or 1, n, n) at `begin` (S,).

        The field is linearised between the states `start` and `stop` (S, n) at both times, contexts by differences of
        the flow itself; process noise is added. Over gaps of several internal time units the flow acts on the noise as
        well: flow and noise of a short gap are doubled until they cover the whole one.

        contexts: whether they are uncertain; if not, derivatives by them, which take most of the time, are left zero.
        """
        gap = end - begin
        if self.field.is_linear and bool((gap == gap[0]).all()):
            gap = gap[:1]
        if self.integrator.method == "map" and (series := self.field.get(AutoregressionTerm)) is not None:
            return series.propagate(covariance, gap)
        longest = float(gap.abs().max())
        doublings = math.ceil(math.log2(longest / _SHORT)) if _SHORT < longest < math.inf else 0
        short = gap / 2**doublings
        flow = self._flow(start, stop, begin, end, short)
        added = torch.diag_embed(self.process * short.abs()[:, None])
        for _ in range(doublings):
            added = added + flow @ added @ flow.transpose(1, 2)
            flow = flow @ flow
        if self.integrator.method == "map":
            maps = self.field.term(StepMapTerm)
            flow, added = maps.flow_over(gap), added + torch.diag_embed(maps.interpolation_variance(gap))
        if self.field.context_size:
            size = self.field.state_size
            flow[:, :, size:] = torch.eye(flow.shape[1], dtype=flow.dtype)[:, size:]
            if contexts:
                flow[:, :, size:] = self.context_columns(start, begin, end)
        moved = _carried(flow, covariance) + added
        return (moved + moved.transpose(1, 2)) / 2, flow

    def _flow(self, start: Tensor, stop: Tensor, begin: Tensor, end: Tensor, gap: Tensor) -> Tensor:
        """Flow (S or 1, n, n) of the linearised field over a `gap` (S or 1,); its columns of contexts are not used."""
        field, n = self.field, self.field.state_size
        if self.integrator.method == "map":
            return field.term(StepMapTerm).flow_over(gap)
        if not field.is_linear_at_context:
            if self.integrator.method == "etd":
                (law,) = field.terms.values()
                return law.tangent_flow((start + stop) / 2, gap, (begin + end) / 2)  # type: ignore[operator]
            jacobian = field.jacobian((begin + end) / 2, (start + stop) / 2)
            return torch.linalg.matrix_exp(jacobian * gap[:, None, None])
        pairs = torch.cat([start[: len(gap), n:].detach(), gap[:, None]], 1)
        distinct, which = torch.unique(pairs, dim=0, return_inverse=True)
        matrices = field.matrix_at(distinct[:, :-1]) * distinct[:, -1, None, None]
        flow = torch.eye(start.shape[1], dtype=start.dtype).repeat(len(gap), 1, 1)
        flow[:, :n, :n] = torch.linalg.matrix_exp(matrices)[which]
        return flow

    def disturbed(
        self, states: Tensor, begin: Tensor, end: Tensor, random: torch.Generator, noisy: Tensor | float = 1.0
    ) -> Tensor:
        """States (B, n) at times `end` (B,) from those at `begin`, with random process noise added; `noisy` (B,) scales
        its variance (0 for none)."""
        moved = self.flow(states, torch.stack([begin, end], 1), check=False)[:, 1]
        noise = torch.randn(moved.shape, dtype=moved.dtype, generator=random)
        return moved + noise * (self.process * (noisy * (end - begin).abs())[:, None]).sqrt()

    def context_columns(self, start: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        """Derivatives (S, n, P) of the states at `end` by the context, from states `start` at times `begin` (S,).

        Central differences in double precision: the unit of a context is its standard deviation over the training data.
        """
        size, contexts = self.field.state_size, self.field.context_size
        moves = torch.zeros(2 * contexts, start.shape[1], dtype=torch.float64)
        moves[:, size:] = _CONTEXT_STEP * torch.cat([torch.eye(contexts), -torch.eye(contexts)])
        moved = (start[None] + moves[:, None]).flatten(0, 1)
        times = torch.stack([begin, end], 1).repeat(2 * contexts, 1)
        ends = self.flow(moved, times, check=False)[:, 1].reshape(2, contexts, *start.shape)
        return ((ends[0] - ends[1]) / (2 * _CONTEXT_STEP)).permute(1, 2, 0)


def _carried(flow: Tensor, covariance: Tensor) -> Tensor:
    """F P F^T for flows F (S or 1, n, n) and covariances P; cheaper if most of many states depend on few."""
    if len(flow[0]) < _MANY_STATES:
        return flow @ covariance @ flow.mT
    entries = (flow != 0).any(0)
    counts = entries.sum(1)
    few = counts <= _FEW_STATES
    wide, narrow = (~few).nonzero()[:, 0], few.nonzero()[:, 0]
    used = entries[wide].any(0).nonzero()[:, 0]
    places = entries[narrow].int().topk(int(counts[few].amax()) if len(narrow) else 0).indices
    values = flow[:, narrow[:, None], places]

    def carried(matrix: Tensor) -> Tensor:
        result = matrix.new_empty(max(len(flow), len(matrix)), *matrix.shape[1:])
        result[:, wide] = flow[:, wide[:, None], used] @ matrix[:, used]
        result[:, narrow] = sum(values[..., j, None] * matrix[:, places[:, j]] for j in range(places.shape[1]))
        return result

    return carried(carried(covariance).mT).mT


def process_noise(field: VectorField, integrator: Integrator, states: CodeData, uncertain: Tensor | None = None
                  ) -> Tensor:
    """Process noise (n,), a variance per unit of time, from one-step forecasts of states not used for fitting.

    uncertain: observation variance (n,) of these states, which is subtracted for both ends of a step. A remainder then
    counts only if it is significant, since by chance it is positive for half of the states.
    """
    total, chance = torch.zeros(2, states.codes.shape[-1], dtype=torch.float64)
    count = 0
    for k in range(0, states.codes.shape[1] - 1, 1 + states.codes.shape[1] // _TRANSITIONS):
        rows = (states.observed[:, k] & states.observed[:, k + 1]).nonzero()[:, 0]
        if not len(rows):
            continue
        with torch.no_grad():
            end = integrator(field, states.codes[rows, k], states.t[rows, k : k + 2], check=False)[:, 1]
        gap = (states.t[rows, k + 1] - states.t[rows, k])[:, None]
        squares = (states.codes[rows, k + 1] - end).square()
        if uncertain is not None:
            moved = _moved(field, integrator, states.codes[rows, k], states.t[rows, k : k + 2], uncertain)[:, 1]
            expected = uncertain + (moved - end).square()
            squares = squares - expected
            chance += (2 * expected / gap).nan_to_num(0.0).square().sum(0)  # variance of both parts, of normal errors
        total += (squares / gap).nan_to_num(0.0).sum(0)
        count += len(rows)
    return torch.where(total > _CHANCE * chance.sqrt(), total, 0.0) / max(count, 1)


def _moved(field: VectorField, integrator: Integrator, start: Tensor, t: Tensor, uncertain: Tensor) -> Tensor:
    """Trajectories (S, T, n) from states (S, n) with random errors of variances (n,) added."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(start.shape, generator=random, dtype=uncertain.dtype).to(start)
    with torch.no_grad():
        return integrator(field, start + drawn * uncertain.sqrt().to(start), t, check=False)


def calibrated_process_noise(field: VectorField, integrator: Integrator, unseen: CodeData, many: bool = False,
                             uncertain: Tensor | None = None) -> Tensor:
    """`process_noise`, scaled such that the predicted variance of rollouts matches the squares of their errors.

    many: whether the variance is estimated by a few randomly disturbed rollouts, for large states, or by the
    covariance."""
    process = process_noise(field, integrator, unseen, uncertain)
    rows = unseen.observed.all(1).nonzero()[: 4 if many else 32, 0]
    if not len(rows) or unseen.codes.shape[1] < 3 or not bool((process > 0).any()):
        return process
    dynamics = Dynamics(field, integrator, process)
    start, times = unseen.codes[rows, 0], unseen.t[rows, : 1 + _LEADS]
    path = dynamics.flow(start, times, check=False)
    if not bool(torch.isfinite(path).all()):
        return process
    predicted = sum((_disturbed if many else _linearised)(dynamics, path, times))
    actual = float((unseen.codes[rows, 1 : path.shape[1]] - path[:, 1:]).square().sum(2).mean(0).sum())
    if uncertain is not None:
        moved = (_moved(field, integrator, start, times, uncertain) - path)[:, 1:].square().sum(2).nan_to_num(0.0)
        actual -= float((uncertain.sum() + moved.mean(0)).sum())
    return process * min(max(actual / max(predicted, 1e-300), 0.1), 1e3)


def _linearised(dynamics: Dynamics, path: Tensor, times: Tensor) -> Iterator[float]:
    """Total variances due to process noise after the first frame of trajectories (S, T, n), by the linearised flow."""
    covariance = torch.zeros(1, path.shape[2], path.shape[2], dtype=torch.float64)
    for k in range(path.shape[1] - 1):
        covariance, _ = dynamics.propagate(covariance, path[:, k], path[:, k + 1], times[:, k], times[:, k + 1])
        yield float(covariance.diagonal(dim1=1, dim2=2).sum(1).mean())


def _disturbed(dynamics: Dynamics, path: Tensor, times: Tensor) -> Iterator[float]:
    """Total variances as in `_linearised`, from randomly disturbed rollouts."""
    random, now = torch.Generator().manual_seed(0), path[:, 0].repeat_interleave(_ROLLOUTS, 0)
    for k in range(path.shape[1] - 1):
        begin, end = (times[:, i].repeat_interleave(_ROLLOUTS) for i in (k, k + 1))
        now = dynamics.disturbed(now, begin, end, random)
        yield float((now - path[:, k + 1].repeat_interleave(_ROLLOUTS, 0)).square().sum(1).nanmean())
