"""Least-squares fits of a local equation to transitions of codes, in integral form.

s_{i+1} - s_i is the integral of the rates, which are linear in the coefficients of the terms: along polynomials through
the frames at first, then along the flow of what was found, bent so that it ends where the next frame is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.integral_form import by_observed_frames, interpolated_path
from inrflow.dynamics.local_basis import LocalBasis
from inrflow.dynamics.local_products import LocalProducts
from inrflow.dynamics.local_terms import Term, to_plain
from inrflow.dynamics.normal_equations import NormalEquations
from inrflow.dynamics.states import CodeData
from inrflow.dynamics.vector_field import VectorField

_STABLE = 1.5  # of the fastest rate times the step, for Runge and Kutta's method
_LEAST_STEPS, _MOST_STEPS = 4, 64
_NUDGE = 1e-6
_BLOCK = 16


@dataclass(frozen=True)
class Transitions:
    """Steps between successive observed frames, those of one block at the same place of their trajectories.

    Attributes:
        codes: (B, T, Z) of all observed frames at times t (B, T); the step is from frame `frame` to the next.
        rows: (B,) trajectories they are of.
    """

    codes: Tensor
    t: Tensor
    frame: int
    rows: Tensor


class EquationFit:
    """Transitions of codes and the terms that may explain them.

    Args:
        basis: of the codes, of which `states` has as many.
        terms: J candidates.
        environment: (S,) numbers from 0, of systems whose sums are kept apart; None for one system.
        most: about so many transitions, evenly spread; each holds as many equations as there are codes.
    """

    def __init__(
        self, basis: LocalBasis, states: CodeData, terms: Sequence[Term], environment: Tensor | None = None,
        most: int = 96,
    ) -> None:
        self.basis, self.states, self.terms = basis, states, tuple(terms)
        self.environment = torch.zeros(len(states.codes), dtype=torch.int64) if environment is None else environment
        self.environments = int(self.environment.max()) + 1
        self.products = [j for j, term in enumerate(self.terms) if len(term) > 1]
        self.blocks = list(_chosen(states, most))

    def gathered(self, field: VectorField | None, contexts: Tensor | None = None) -> list[NormalEquations]:
        """Normal equations of each environment, along polynomials through frames or along the flow of a field.

        contexts: (E, P) of the environments, where the field has any. A step that the flow misses by more than the
        field moves is left out.
        """
        found = [
            NormalEquations.empty(len(self.terms) * self.basis.channels, self.basis.code_size)
            for _ in range(self.environments)
        ]
        steps = 0 if field is None else steps_of(field, self.states, contexts)
        for block in self.blocks:
            start, end = block.codes[:, block.frame], block.codes[:, block.frame + 1]
            gap = block.t[:, block.frame + 1] - block.t[:, block.frame]
            where = self.environment[block.rows]
            if field is None:
                path, weights = interpolated_path(block.codes, block.t, block.frame)
                good = torch.ones(len(start), dtype=torch.bool)
            else:
                state = start if contexts is None else torch.cat([start, contexts[where]], 1)
                path = flow_path(field, state, block.t[:, block.frame], gap, steps)[..., : start.shape[1]]
                missed = end - path[-1]
                good = missed.square().sum(1) < (end - start).square().sum(1)
                path = path + torch.linspace(0, 1, steps + 1, dtype=path.dtype)[:, None, None] * missed
                weights = simpson(steps)
            if not bool(good.any()):
                continue
            design = self._design(path[:, good], weights) * gap[good, None, None]
            for e in where[good].unique().tolist():
                own = where[good] == e
                found[e].add(design[own], (end - start)[good][own], gap[good][own])
        return found

    def _design(self, path: Tensor, weights: Sequence[float]) -> Tensor:
        """Mean rates (B, Z, J C) along a path (Q, B, Z) that a unit of each coefficient gives."""
        basis, J, C = self.basis, len(self.terms), self.basis.channels
        average = torch.einsum("q,qbz->bz", torch.tensor(weights, dtype=path.dtype), path)
        linear = basis.coefficients(average)  # (B, C, K)
        spectra = torch.zeros(path.shape[1], J, basis.count, dtype=torch.complex128)
        if self.products:
            products = LocalProducts(to_plain([self.terms[j] for j in self.products]), C)
            products.attach(basis)
            for states, weight in zip(path, weights, strict=True):
                spectra[:, self.products] += weight * products.spectra(states)
        for j, term in enumerate(self.terms):
            if len(term) == 1:
                spectra[:, j] = linear[:, term[0].channel] * basis.symbol(term[0])
            elif not term:
                spectra[:, j, 0] = 1.0
        each = [basis.project_channel(spectra, c) for c in range(C)]
        return torch.stack(each, -1).permute(0, 2, 1, 3).flatten(2)


def _chosen(states: CodeData, most: int) -> Iterator[Transitions]:
    """About so many transitions, evenly spread over trajectories and times, in blocks."""
    total = int((states.observed[:, 1:] & states.observed[:, :-1]).sum())
    for codes, t, rows in by_observed_frames(states):
        steps = codes.shape[1] - 1
        count = max(1, min(len(codes) * steps, round(most * len(codes) * steps / max(total, 1))))
        chosen = torch.linspace(0, len(codes) * steps - 1, count).round().long()
        for frame in range(steps):
            own = chosen[chosen % steps == frame] // steps
            for block in own.split(_BLOCK) if len(own) else ():
                yield Transitions(codes[block], t[block], frame, rows[block])


def steps_of(field: VectorField, states: CodeData, contexts: Tensor | None = None, most: int = 8) -> int:
    """Steps of Runge and Kutta's method between two frames that the fastest rates allow; an even number.

    The rates are those around `most` of the liveliest states, at the given contexts (E, P) of a field that has any.
    """
    gap = float((states.t[:, 1:] - states.t[:, :-1]).nan_to_num(0.0).max())
    seen = states.codes[states.observed][:, : field.shape.state_size].double()
    if not field.is_linear_at_context:
        seen = seen[seen.square().sum(1).topk(min(most, len(seen))).indices]
    else:
        seen = seen[:1]
    if contexts is not None:
        each = contexts.repeat_interleave(len(seen), 0)
        seen = torch.cat([seen.repeat(len(contexts), 1), each], 1)
    steps = math.ceil(gap * fastest_rate(field, seen) / _STABLE / 2) * 2
    return min(max(steps, _LEAST_STEPS), _MOST_STEPS)


def fastest_rate(field: VectorField, states: Tensor, iterations: int = 24) -> float:
    """About the largest absolute eigenvalue of the field's derivative around states (S, n): growth under its powers."""
    size = field.shape.state_size
    move = torch.zeros_like(states)
    move[:, :size] = torch.linspace(1.0, 2.0, size, dtype=states.dtype)
    now = torch.zeros(len(states), dtype=torch.float64)
    growth: list[Tensor] = []
    with torch.no_grad():
        here = field(now, states)
        length = _NUDGE * (1 + states[:, :size].norm(dim=1, keepdim=True))
        for _ in range(iterations):
            move = length * move / move.norm(dim=1, keepdim=True).clamp(min=1e-300)
            move = field(now, states + move) - here
            growth.append((move.norm(dim=1) / length[:, 0]).clamp(min=1e-300))
    return float(torch.stack(growth[iterations // 2 :]).log().mean(0).exp().max())


def flow_path(field: VectorField, start: Tensor, begin: Tensor, gap: Tensor, steps: int) -> Tensor:
    """States (steps + 1, B, n) on the way from `start` (B, n) at times `begin` (B,) to `gap` (B,) later."""
    states, state, h = [start], start, (gap / steps)[:, None]
    with torch.no_grad():
        for _ in range(steps):
            one = field(begin, state)
            two = field(begin, state + h / 2 * one)
            three = field(begin, state + h / 2 * two)
            four = field(begin, state + h * three)
            state = state + h / 6 * (one + 2 * two + 2 * three + four)
            states.append(state)
    return torch.stack(states)


def simpson(steps: int) -> list[float]:
    """Weights, which sum to 1, of values at an even number of equal steps (Simpson's rule)."""
    return [(1 if i in (0, steps) else 4 if i % 2 else 2) / (3 * steps) for i in range(steps + 1)]
