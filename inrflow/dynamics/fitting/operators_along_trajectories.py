"""Coefficients of a linear local equation refined along whole trajectories, and only those that are needed.

Over one step a field moves little against the noise of its codes, and noise in the states that a regression starts from
makes it too weak. Over a whole trajectory the field moves much, and a handful of coefficients can follow it
(Gauss-Newton, with tangents by finite differences, for each is one more flow of all trajectories).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.contexts.alternate import ContextFit, generators_at, in_gauge
from inrflow.dynamics.fitting.linear import flow
from inrflow.dynamics.fitting.moments import Moments
from inrflow.dynamics.fitting.operators_of_pde import LocalOperators
from inrflow.dynamics.states import CodeData

_EACH = 12  # trajectories of every environment
_MOST = 24  # coefficients
_NEEDLESS = 0.05  # of the misfit, that leaving out all needless coefficients may add
_ROUNDS, _TRIES = 6, 4
_NUDGE = 1e-6
_SMALLEST = 1e-5  # singular values, relative, of tangents: contexts and coefficients can be exchanged for each other
_SETTLED = 1e-3


@dataclass(frozen=True)
class _Whole:
    """Trajectories of one environment: states (B, T, 1 + n) from the first frame on, at times (B, T)."""

    states: Tensor
    t: Tensor

    def missed(self, generator: Tensor) -> Tensor:
        """What the flow of a generator leaves of all later frames, as a vector."""
        gaps = self.t[:, 1:] - self.t[:, :-1]
        uniform = bool((gaps - gaps[0, 0]).abs().max() < 1e-6 * gaps[0, 0].abs())
        one = torch.linalg.matrix_exp(generator * gaps[0, 0]) if uniform else None
        state, left = self.states[:, 0], []
        for i in range(gaps.shape[1]):
            state = state @ one.T if one is not None else flow(generator, state, gaps[:, i])
            left.append(self.states[:, i + 1] - state)
        return torch.stack(left, 1).flatten()


def refined_along(
    local: LocalOperators, fit: ContextFit, moments: Moments, data: CodeData, environment: Tensor
) -> ContextFit:
    """The fit (of operators in the span of `local`) whose flow is nearest to whole trajectories, from it on.

    moments: of the transitions, which tell the coefficients that are needed. data, environment: trajectories (S, T, n)
    and the number (S,) of the environment of each, of which the first few are used. Where too many coefficients are
    needed, or an environment has no trajectory that is seen at all frames, the fit as it was.
    """
    size = fit.operators.shape[1]
    whole = _trajectories(data, environment, len(fit.contexts), size)
    coefficients = needed_coefficients(local, fit, moments)
    kept = coefficients != 0
    shared = int(kept.sum())
    if whole is None or not 0 < shared <= _MOST:
        return fit

    def generators(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        several = torch.zeros_like(coefficients)
        several[kept] = values[:shared]
        contexts = values[shared:].reshape(fit.contexts.shape)
        operators = local.operators(several)
        return operators, contexts, generators_at(operators, contexts)

    def missed(values: Tensor, only: int | None = None) -> list[Tensor]:
        every = generators(values)[2]
        return [one.missed(every[e]) for e, one in enumerate(whole) if only is None or e == only]

    values = torch.cat([coefficients[kept], fit.contexts.flatten()])
    left = torch.cat(missed(values))
    sizes = [one.states[:, 1:].numel() for one in whole]
    for _ in range(_ROUNDS):
        before = float(left.square().sum())
        tangents = _tangents(missed, values, shared, fit.contexts.shape[1], left, sizes)
        unit = tangents.norm(dim=0).clamp(min=1e-300)
        step = torch.linalg.lstsq(tangents / unit, left[:, None], rcond=_SMALLEST, driver="gelsd").solution[:, 0] / unit
        for halving in range(_TRIES):
            tried = values - step / 2**halving
            again = torch.cat(missed(tried))
            if float(again.square().sum()) < before:
                values, left = tried, again
                break
        else:
            break
        if before - float(left.square().sum()) < _SETTLED * before:
            break
    operators, contexts, _ = generators(values)
    return in_gauge(ContextFit(operators, contexts, fit.residual))


def needed_coefficients(local: LocalOperators, fit: ContextFit, moments: Moments) -> Tensor:
    """Coefficients (1 + P, J) of the fit, those 0 without which the transitions are explained about as well; those that
    do least are left out first, and the others take up what they did."""
    every = fit.generators()
    scaled, right, unit = local.normal_equations(*moments.about(every), fit.contexts)
    allowed = _NEEDLESS * float(moments.error(every).sum())
    kept = scaled.diagonal() > 0.5  # 1, or next to nothing where a matrix does nothing
    while int(kept.sum()) > 1:
        places = kept.nonzero()[:, 0]
        inverse = torch.linalg.inv(scaled[places][:, places])
        added = (inverse @ right[places]).square() / inverse.diagonal()
        if not float(added.min()) < allowed:
            break
        allowed -= float(added.min())
        kept[places[added.argmin()]] = False
    places = kept.nonzero()[:, 0]
    found = torch.zeros_like(right)
    found[places] = torch.linalg.solve(scaled[places][:, places], right[places])
    return (found / unit).unflatten(0, (-1, len(local.matrices)))


def _tangents(
    missed: Callable[..., list[Tensor]], values: Tensor, shared: int, contexts: int, left: Tensor, sizes: list[int]
) -> Tensor:
    """Derivatives (M, V) of what is missed by every value, of which the first `shared` move all environments; `left`
    (M,) is what the values miss, so many numbers (`sizes`) in each environment."""
    columns = []
    for place in range(len(values)):
        nudge = _NUDGE * (float(values[place].abs()) if place < shared else 1.0)
        moved = values.clone()
        moved[place] += nudge
        if place < shared:
            columns.append((torch.cat(missed(moved)) - left) / nudge)
            continue
        own = (place - shared) // contexts
        column, begin = torch.zeros_like(left), sum(sizes[:own])
        rows = slice(begin, begin + sizes[own])
        column[rows] = (missed(moved, own)[0] - left[rows]) / nudge
        columns.append(column)
    return torch.stack(columns, 1)


def _trajectories(data: CodeData, environment: Tensor, count: int, size: int) -> list[_Whole] | None:
    """Fully observed trajectories of every environment, None where one has none."""
    found = []
    for e in range(count):
        rows = ((environment == e) & data.observed.all(1)).nonzero()[:_EACH, 0]
        if not len(rows) or data.codes.shape[1] < 2:
            return None
        states = data.codes[rows, :, :size].double()
        found.append(_Whole(torch.cat([torch.ones_like(states[..., :1]), states], -1), data.t[rows].double()))
    return found
