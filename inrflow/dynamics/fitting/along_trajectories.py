"""Coefficients of an equation refined along its exact flow, by Levenberg-Marquardt.

Sums along bent paths stop short of the best coefficients where steps between frames are long, because a change on the
way is carried to the end by the flow around the mean state only. Here the flow itself is differentiated: over single
steps for clean frames, over whole trajectories for noisy ones. Noise in the states that terms are formed of biases
single steps towards zero, the more the shorter they are; over a whole trajectory the field moves much and the noise is
no larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fitting.alternate import alternate
from inrflow.dynamics.fitting.transitions_of_pde import MOST_COEFFICIENTS, EquationFit, coefficients_of, steps_of
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.states import CodeData, evenly_spread
from inrflow.numerics.levenberg_marquardt import Linearisation, damped_descent
from inrflow.numerics.normal_equations import NormalEquations

#: An equation and the contexts (E, P) of its environments.
Candidate = tuple[LocalEquation, Tensor]

STEPS, WHOLE = "steps", "whole trajectories"
_TRAJECTORIES, _STEPS = 6, 48  # whole trajectories, or single steps in each environment at most
_QUICK_STEPS, _FEWEST_STEPS = 96, 12  # in all, but so many in each, where equations are compared
_ROUNDS, _TRIES = 12, 6
_NUDGE = 1e-5
_COARSER, _LEAST_STEPS = 0.7, 4  # steps of tangents, of those of the flow: they need to be stable, not accurate
_DAMPING, _LEAST_DAMPING, _EASED = 1e-7, 1e-12, 10.0
_RIDGE = 1e-12
_SETTLED = 0.97  # of the sum of squares
_SERVES = 0.7  # tangents along which it falls to less than this share are used again: they cost most of a round


@dataclass(frozen=True)
class _Windows:
    """Stretches of trajectories: states (B, Z) at times t (B, K + 1), later ones (B, K, Z), whether those were seen."""

    start: Tensor
    t: Tensor
    later: Tensor
    seen: Tensor
    environment: Tensor


class EquationRefinement:
    """Least squares of what the flow of an equation misses of the frames that follow.

    Args:
        basis, states: of the codes.
        environment: (S,) numbers from 0; None for one system.
        fixed: whether contexts are known and stay.
        windows: WHOLE trajectories from their first frames on, or STEPS from one frame to the next.
        more: called before every round; False ends the refinement with the best so far.
        quick: use fewer steps, as to compare equations.
    """

    def __init__(
        self, basis: LocalBasis, states: CodeData, environment: Tensor | None = None, fixed: bool = False,
        windows: str = STEPS, more: Callable[[], bool] = lambda: True, quick: bool = False,
    ) -> None:
        self.basis, self.states, self.fixed, self.more = basis, states, fixed, more
        self.environment = torch.zeros(len(states.codes), dtype=torch.int64) if environment is None else environment
        self.environments = int(self.environment.max()) + 1 if len(self.environment) else 0
        self.windows = self._whole() if windows == WHOLE else self._steps(quick)

    def refined(
        self, equation: LocalEquation, contexts: Tensor, every: bool = False, level: float | None = None
    ) -> tuple[LocalEquation, Tensor]:
        """The equation, and its contexts (E, P), whose flow is nearest to the frames that follow.

        Unchanged where no equation is nearer. A force follows from the transitions for any coefficients.

        Args:
            every: fit all terms of the equation's list, not only those with a coefficient.
            level: eliminate the least significant coefficients first, up to this multiple of the misfit of all.
        """
        wanted = torch.ones_like(equation.kept) if every else equation.kept
        if not 0 < int(wanted.sum()) <= MOST_COEFFICIENTS or not len(self.windows.start):
            return equation, contexts
        kept = wanted.repeat(1 + contexts.shape[1]) if every else (equation.several != 0).flatten()
        forced = equation.force is not None
        fit = EquationFit(self.basis, self.states, equation.terms, self.environment) if forced else None
        residual, design, first = self._missed(equation, contexts), torch.zeros(0), True

        def objective(candidate: Candidate) -> float:
            nonlocal residual
            residual = self._missed(*candidate)
            return _size(residual)

        def linearise(candidate: Candidate, reused: bool) -> Linearisation[Candidate] | None:
            nonlocal design, kept, wanted, first
            equation, contexts = candidate
            if not self.more():
                return None
            sums = None
            if fit is not None:
                sums = NormalEquations.joined(fit.gathered(equation, _if_any(contexts)), contexts)
            if not reused:
                design = self._tangents(equation, contexts, wanted, sums)
            if not bool(torch.isfinite(design).all()):
                return None
            parts = self._parts(design, residual, equation, contexts)
            value = _size(residual)
            if level is not None and first:
                kept = NormalEquations.joined(parts, contexts).needed(kept, False, level)
                wanted = kept.unflatten(0, (-1, *wanted.shape)).any(0)
                value = math.inf
            first, own = False, kept
            return Linearisation(value, lambda damping: self._solved(parts, equation, contexts, own, damping, sums))

        return damped_descent(
            (equation, contexts), linearise, objective, steps=_ROUNDS, tries=_TRIES, damping=_DAMPING,
            lowered=1 / _EASED, raised=_EASED, least=_LEAST_DAMPING, settled=_SETTLED, reuse=_SERVES,
        )[0]

    def _whole(self) -> _Windows:
        rows = self.states.observed[:, 0].nonzero()[:, 0]
        rows = rows[evenly_spread(len(rows), _TRAJECTORIES * self.environments)]
        codes, t, seen = self.states.codes[rows].double(), self.states.t[rows], self.states.observed[rows]
        return _Windows(codes[:, 0], t, codes[:, 1:], seen[:, 1:], self.environment[rows])

    def _steps(self, quick: bool) -> _Windows:
        """Steps between neighbouring frames, evenly spread over those of each environment."""
        most = min(_STEPS, max(_FEWEST_STEPS, _QUICK_STEPS // max(1, self.environments))) if quick else _STEPS
        both = self.states.observed[:, :-1] & self.states.observed[:, 1:]
        rows, frames = both.nonzero(as_tuple=True)
        chosen = []
        for e in range(self.environments):
            own = (self.environment[rows] == e).nonzero()[:, 0]
            chosen.append(own[evenly_spread(len(own), most)])
        kept = torch.cat(chosen) if chosen else rows
        rows, frames = rows[kept], frames[kept]
        codes = self.states.codes.double()
        t = torch.stack([self.states.t[rows, frames], self.states.t[rows, frames + 1]], 1)
        seen = torch.ones(len(rows), 1, dtype=torch.bool)
        return _Windows(codes[rows, frames], t, codes[rows, frames + 1][:, None], seen, self.environment[rows])

    def _missed(self, equation: LocalEquation, contexts: Tensor, steps: int | None = None) -> Tensor:
        """Residuals (B, K, Z) of the frames that follow, with `steps` of integration from one to the next."""
        windows, start = self.windows, self.windows.start
        field = equation.field(self.basis)
        if contexts.shape[1]:
            start = torch.cat([start, contexts[windows.environment]], 1)
        steps = steps or steps_of(field, self.states, _if_any(contexts))
        with torch.no_grad():
            path = Integrator(step=1 / steps)(field, start, windows.t, check=False)
        return torch.where(windows.seen[..., None], windows.later - path[:, 1:, : self.basis.code_size], 0.0)

    def _tangents(
        self, equation: LocalEquation, contexts: Tensor, wanted: Tensor, sums: NormalEquations | None
    ) -> Tensor:
        """Derivatives of later frames by each wanted coefficient, (B, K, Z, J C), the force following."""
        several = equation.several
        steps = steps_of(equation.field(self.basis), self.states, _if_any(contexts))
        steps = max(_LEAST_STEPS, math.ceil(_COARSER * steps))
        base = self._missed(self._forced(equation, several, contexts, sums), contexts, steps)
        design = base.new_zeros(*base.shape, several[0].numel())
        for place in wanted.nonzero()[:, 0].tolist():
            weights = several.clone()
            weights[0].view(-1)[place] += _NUDGE
            moved = self._missed(self._forced(equation, weights, contexts, sums), contexts, steps)
            design[..., place] = (base - moved) / _NUDGE
        return design

    def _forced(
        self, equation: LocalEquation, several: Tensor, contexts: Tensor, sums: NormalEquations | None
    ) -> LocalEquation:
        """The equation with other weights (1 + P, J, C), and the force that goes with them."""
        force = equation.force if sums is None else sums.force(several.flatten())
        return replace(equation, weights=several.reshape_as(equation.weights), force=force)

    def _parts(
        self, design: Tensor, missed: Tensor, equation: LocalEquation, contexts: Tensor
    ) -> list[NormalEquations]:
        """Linearised normal equations of the coefficients of each environment."""
        parts = []
        for e in range(self.environments):
            own = self.windows.environment == e
            rows, left = design[own].flatten(0, 1), missed[own].flatten(0, 1)
            part = NormalEquations.empty(design.shape[-1], design.shape[-2])
            now = coefficients_of(equation, contexts, torch.tensor([e]))[0]
            part.add(rows, left + rows @ now, torch.ones(len(rows), dtype=torch.float64))
            parts.append(part)
        return parts

    def _solved(
        self, parts: list[NormalEquations], equation: LocalEquation, contexts: Tensor, kept: Tensor, damping: float,
        sums: NormalEquations | None,
    ) -> tuple[LocalEquation, Tensor]:
        """Coefficients and contexts of the linearised flows, damped towards the present ones."""
        unit = damping * NormalEquations.total(parts).gram.diagonal() / len(parts)
        pulled = []
        for e, part in enumerate(parts):
            now = coefficients_of(equation, contexts, torch.tensor([e]))[0]
            pulled.append(replace(part, gram=part.gram + unit.diag(), right=part.right + unit * now,
                                  square=part.square + float(unit @ now.square())))
        contexts = alternate(pulled, contexts, kept, False, self.fixed, _RIDGE)[1]
        flat = NormalEquations.joined(pulled, contexts).solve(kept, False, _RIDGE)
        return self._forced(equation, flat.reshape_as(equation.several), contexts, sums), contexts


def _size(missed: Tensor) -> float:
    """Sum of squares, infinite where a flow diverged."""
    size = float(missed.square().sum())
    return size if size == size else float("inf")


def _if_any(contexts: Tensor) -> Tensor | None:
    return contexts if contexts.shape[1] else None
