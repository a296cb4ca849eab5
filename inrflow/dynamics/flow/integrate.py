"""Integration of latent states through torchdiffeq, every trajectory at its own times in one batch.

Each interval between two query times is mapped to s in [0, 1] and integrated as dz/ds = dt_i f(t_i + s dt_i, z): one
batched call an interval, whatever the steps of the single trajectories. Long intervals of affine fields are crossed by
one matrix exponential; a periodic forcing is affine too: its phases are harmonic oscillators that join the state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from inrflow.dynamics.fields.linear import ForcingTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.errors import UserError
from inrflow.numerics.phases import periodic_phases

_FAR, _MANY = 4.0, 256  # internal time units and steps of an interval, beyond both of which an exact flow is used
_MOST = 2.0**20  # steps of an interval: minutes for a few codes
_KEPT = 128  # steps whose states are kept at once


class IntegrationError(UserError):
    """The integration left the finite numbers or its step size collapsed."""


@dataclass(frozen=True)
class Integrator:
    """A method of integration and its tolerances.

    Attributes:
        method: "rk4" (fixed step), "dopri5" (adaptive), "etd" (exponential, for laws on harmonics alone) or "map"
            (from step to step, for autoregressions alone).
        step: largest fixed step in internal time units; the training data's own time step is 1.
        rtol, atol: tolerances of the adaptive method.
        adjoint: gradients through the adjoint equation (constant memory) instead of the stored steps.
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

        Times may run backwards. NaN times (padding) give NaN states. With `check` a diverging integration raises
        IntegrationError; without it the states are returned as they are.
        """
        times = times.expand(len(start), times.shape[-1])
        padding = torch.isnan(times)
        if self.method == "map":
            (series,) = cast(VectorField, field).terms.values()
            path = series.path(start, torch.where(padding, times[:, :1], times).nan_to_num())  # type: ignore[operator]
            if check:
                self._check(path, times)
            return path.masked_fill(padding[..., None], float("nan")) if bool(padding.any()) else path
        states = [start]
        for i in range(times.shape[1] - 1):
            begin = times[:, i]
            gap = torch.where(padding[:, i + 1] | padding[:, i], 0.0, times[:, i + 1] - begin)
            states.append(self._interval(field, states[-1], torch.nan_to_num(begin), gap, check))
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
            return affine_flow(cast(VectorField, field), state, begin, gap)
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
                parameters = tuple(p for p in field.parameters() if p.requires_grad)
                options["adjoint_params"] = parameters
                return odeint_adjoint(_Rate(rate), state, grid, method=self.method, **options)[-1]
            # torchdiffeq keeps the states of all steps: without gradients a few at a time will do.
            length = len(grid) if recorded else _KEPT
            for first in range(0, len(grid) - 1, length):
                state = odeint(rate, state, grid[first : first + length + 1], method=self.method, **options)[-1]
            return state
        except AssertionError as error:  # torchdiffeq answers a collapsed step or NaN states with a bare assert
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


class _Rate(nn.Module):
    def __init__(self, rate) -> None:  # noqa: ANN001
        super().__init__()
        self.rate = rate

    def forward(self, s: Tensor, y: Tensor) -> Tensor:
        return self.rate(s, y)


_BLOCK = 2**23  # numbers of all exponentials formed at once: 64 MiB


def affine_flow(field: VectorField, start: Tensor, begin: Tensor, gap: Tensor) -> Tensor:
    """States (S, n + P) at `gap` (S,) after times `begin` (S,), from `start` (S, n + P); without gradients.

    One exponential for each distinct pair of context and gap, by scaling and squaring (torch.linalg.matrix_exp): its
    cost grows with the logarithm of the gap.
    """
    n = field.state_size
    context, z = start[:, n:].double(), start[:, :n].double()
    forcing = [term for term in field.summands if isinstance(term, ForcingTerm)]
    phases = [periodic_phases(begin, term.period, term.harmonics) for term in forcing]
    extended = torch.cat([z, torch.ones_like(z[:, :1]), *phases], 1)
    distinct, which = torch.unique(torch.cat([context, gap.double()[:, None]], 1), dim=0, return_inverse=True)
    size, end = extended.shape[1], z.clone()
    for rows in torch.arange(len(distinct)).split(max(1, _BLOCK // size**2)):
        generator = _generator(field, forcing, distinct[rows, :-1], size)
        flow = torch.linalg.matrix_exp(generator * distinct[rows, -1, None, None])[:, :n]
        mine = ((which >= rows[0]) & (which <= rows[-1])).nonzero()[:, 0]
        end[mine] = (flow[which[mine] - rows[0]] @ extended[mine, :, None])[..., 0]
    return torch.cat([end.to(start), start[:, n:]], 1)


def _generator(field: VectorField, forcing: list[ForcingTerm], context: Tensor, size: int) -> Tensor:
    """Generators (D, size, size) of [z, 1, phases] at contexts (D, P)."""
    n, rows = field.state_size, len(context)
    like = next(field.parameters())
    result = torch.zeros(rows, size, size, dtype=torch.float64, device=like.device)
    c = context.to(like) if field.context_size else None
    with torch.no_grad():
        result[:, :n, :n] = field.matrix_at(context.to(like))
        zero, now = torch.zeros(rows, n).to(like), torch.zeros(rows).to(like)
        for term in field.summands:
            if term.degree == 1:
                result[:, :n, n] += term(now, zero, c)
        place = n + 1
        for term in forcing:
            weight, count = term.weight_at(c), term.harmonics
            result[:, :n, place : place + 2 * count] = weight
            for k in range(count):
                cosine, sine = place + k, place + count + k
                speed = 2 * math.pi * (k + 1) / term.period
                result[:, cosine, sine], result[:, sine, cosine] = -speed, speed
            place += 2 * count
    return result
