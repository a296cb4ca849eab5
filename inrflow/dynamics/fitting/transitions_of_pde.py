"""Least-squares fits of a local equation to transitions of codes, in integral form.

The feature library of an equation's terms: normal equations along polynomials through frames, or along the flow of an
equation, bent so that it ends at the next frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fields.local import LocalProducts
from inrflow.dynamics.fields.pde_terms import Term, to_plain
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import rk4_path
from inrflow.dynamics.libraries.integral_form import Interval, by_observed_frames, simpson
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.states import CodeData
from inrflow.numerics.normal_equations import NormalEquations

_STABLE, _ACCURATE = 1.5, 0.1  # of the fastest rate times the step, for Runge and Kutta's method
_LEAST_STEPS, _MOST_STEPS = 4, 64
_NUDGE = 1e-6
_GROWTH = 100.0
_TRIED = 3  # blocks of transitions by which equations are compared
_BLOCK = 16
MOST_COEFFICIENTS = 48  # of all channels, for a refinement along the flow: each is nudged in every round


def refinable(terms: Sequence[Term], channels: int) -> bool:
    """Whether a list of terms is short enough to differentiate the flow by every coefficient."""
    return 0 < len(terms) * channels <= MOST_COEFFICIENTS


class EquationFit:
    """Transitions of codes and the terms that may explain them.

    Args:
        basis: of the codes, of which `states` has as many.
        terms: J candidates.
        environment: (S,) numbers from 0, of systems whose sums are kept apart; None for one system.
        most: about so many transitions, evenly spread; each holds as many equations as there are codes.
        contexts: (E, P) of the systems, for `solutions`.
    """

    def __init__(
        self, basis: LocalBasis, states: CodeData, terms: Sequence[Term], environment: Tensor | None = None,
        most: int = 96, contexts: Tensor | None = None,
    ) -> None:
        self.basis, self.states, self.terms = basis, states, tuple(terms)
        self.environment = torch.zeros(len(states.codes), dtype=torch.int64) if environment is None else environment
        self.environments = int(self.environment.max()) + 1
        self.contexts = torch.zeros(self.environments, 0).double() if contexts is None else contexts
        self.products = [j for j, term in enumerate(self.terms) if len(term) > 1]
        self.formed = LocalProducts(to_plain([self.terms[j] for j in self.products]), basis.channels)
        self.formed.attach(basis)
        self.blocks = list(_chosen(states, most))

    def gathered(self, equation: LocalEquation | None, contexts: Tensor | None = None) -> list[NormalEquations]:
        """Normal equations of each environment, along polynomials through frames or around the flow of an equation.

        contexts: (E, P) of the environments, where the equation has any. A step that the flow misses by more than the
        field moves goes along its polynomial. Without a force, what a coefficient adds on the way is carried to the end
        by the flow's linear part (Newton's method, but for that); with one, the path is bent to end at the next frame.
        """
        parts = [
            NormalEquations.empty(len(self.terms) * self.basis.channels, self.basis.code_size)
            for _ in range(self.environments)
        ]
        field = carried = None
        steps = 0
        if equation is not None:
            field = equation.field(self.basis)
            steps = _LEAST_STEPS if field.is_linear else steps_of(field, self.states, contexts)
        for block in self.blocks:
            start, end, gap, where = block.start, block.end, block.gap, self.environment[block.rows]
            good = torch.zeros(len(start), dtype=torch.bool)
            if equation is not None and field is not None:
                state = start if contexts is None else torch.cat([start, contexts[where]], 1)
                path = flow_path(field, state, block.begin, gap, steps)[..., : start.shape[1]]
                missed = end - path[-1]
                good = missed.square().sum(1) < (end - start).square().sum(1)
                if carried is None or carried[0] != float(gap.max()):
                    newton = equation.force is None
                    carried = float(gap.max()), self._carried(field, float(gap.max()), steps) if newton else None
            if equation is not None and carried is not None and bool(good.any()):
                if carried[1] is not None:
                    design = self._design(path[:, good], simpson(steps), carried[1]) * gap[good, None, None]
                    own = coefficients_of(equation, contexts, where[good])
                    change = missed[good] + torch.einsum("bzu,bu->bz", design, own)
                else:
                    along = torch.linspace(0, 1, steps + 1, dtype=path.dtype)[:, None, None]
                    design = self._design((path + along * missed)[:, good], simpson(steps)) * gap[good, None, None]
                    change = (end - start)[good]
                self._add(parts, where[good], design, change, gap[good])
            others = ~good
            if bool(others.any()):
                path, weights = block.polynomial()
                design = self._design(path[:, others], weights) * gap[others, None, None]
                self._add(parts, where[others], design, (end - start)[others], gap[others])
        return parts

    def solutions(
        self, about: LocalEquation | None, ridges: Sequence[float]
    ) -> Iterator[tuple[float, LocalEquation]]:
        """Equations of each ridge, which is relative to the mean square of each term; of the terms of `about`, if any,
        and with a force where it has one."""
        parts = self.gathered(about, self.contexts if about is not None and len(about.several) > 1 else None)
        joined = NormalEquations.joined(parts, self.contexts)
        forced = about is not None and about.force is not None
        kept = joined.something() if about is None else (about.several != 0).flatten()
        for ridge in ridges:
            yield ridge, self.equation(joined, joined.solve(kept, forced, ridge), forced)

    def equation(self, sums: NormalEquations, coefficients: Tensor, forced: bool) -> LocalEquation:
        """The equation of coefficients ((1 + P) J C,)."""
        weights = coefficients.reshape(-1, len(self.terms), self.basis.channels)
        weights = weights if len(weights) > 1 else weights[0]
        return LocalEquation(self.terms, weights, sums.force(coefficients) if forced else None)

    def field(self, solution: LocalEquation) -> VectorField:
        """The vector field of an equation, float64."""
        return solution.field(self.basis)

    @staticmethod
    def _add(
        parts: list[NormalEquations], where: Tensor, design: Tensor, change: Tensor, gap: Tensor
    ) -> None:
        for e in where.unique().tolist():
            own = where == e
            parts[e].add(design[own], change[own], gap[own])

    def missed(self, equation: LocalEquation, contexts: Tensor | None = None) -> float:
        """Share of the change between frames that the flow misses, at most 1 of each transition; of some of them."""
        field, total, moved = equation.field(self.basis), 0.0, 0.0
        steps = steps_of(field, self.states, contexts)
        for block in self.blocks[:: max(1, len(self.blocks) // _TRIED)]:
            start, change = block.start, block.end - block.start
            state = start if contexts is None else torch.cat([start, contexts[self.environment[block.rows]]], 1)
            path = flow_path(field, state, block.begin, block.gap, steps)[-1, :, : start.shape[1]]
            size = change.square().sum(1)
            error = (start + change - path).square().sum(1).nan_to_num(torch.inf)
            total, moved = total + float(torch.minimum(error, size).sum()), moved + float(size.sum())
        return total / max(moved, 1e-300)

    def _carried(self, field: VectorField, gap: float, steps: int) -> list[Tensor] | None:
        """(Z, Z) from each of the steps + 1 nodes to the end of a gap, by the field linearised at the mean state.

        None where that grows so much that it says little of other states.
        """
        size = self.basis.code_size
        mean = self.states.codes[self.states.observed].double().mean(0)
        state = torch.cat([mean, torch.zeros(field.context_size, dtype=torch.float64)])
        jacobian = field.jacobian(torch.zeros(1, dtype=torch.float64), state[None])[0, :size, :size]
        one = torch.linalg.matrix_exp(jacobian * gap / steps)
        whole = torch.linalg.matrix_power(one, steps)
        if not bool(torch.isfinite(whole).all()) or not float(torch.linalg.matrix_norm(whole, 2)) < _GROWTH:
            return None
        matrices = [torch.eye(size, dtype=torch.float64)]
        for _ in range(steps):
            matrices.append(matrices[-1] @ one)
        return matrices[::-1]

    def _design(self, path: Tensor, weights: Sequence[float], carried: Sequence[Tensor] | None = None) -> Tensor:
        """Mean rates (B, Z, J C) along a path (Q, B, Z) that a unit of each coefficient gives, each of them `carried`
        by a matrix (Z, Z) of its node."""
        if carried is None:
            return self._projected(self._spectra(path, weights))
        total = torch.zeros(1)
        for states, weight, matrix in zip(path, weights, carried, strict=True):
            rates = self._projected(self._spectra(states[None], [weight]))
            total = total + torch.einsum("zy,byu->bzu", matrix, rates)
        return total

    def _spectra(self, path: Tensor, weights: Sequence[float]) -> Tensor:
        """Sum (B, J, K) over a path (Q, B, Z) of weights times the Fourier coefficients of all terms."""
        basis = self.basis
        average = torch.einsum("q,qbz->bz", torch.tensor(weights, dtype=path.dtype), path)
        offset = basis.coefficients(torch.zeros_like(average)) * (sum(weights) - 1)
        linear = basis.coefficients(average) + offset  # (B, C, K)
        spectra = torch.zeros(path.shape[1], len(self.terms), basis.count, dtype=torch.complex128)
        if self.products:
            for states, weight in zip(path, weights, strict=True):
                spectra[:, self.products] += weight * self.formed.spectra(states)
        for j, term in enumerate(self.terms):
            if len(term) == 1:
                spectra[:, j] = linear[:, term[0].channel] * basis.symbol(term[0])
            elif not term:
                spectra[:, j, 0] = sum(weights)
        return spectra

    def _projected(self, spectra: Tensor) -> Tensor:
        """Rates (B, Z, J C) of the codes by terms (B, J, K) in each channel."""
        each = [self.basis.project_channel(spectra, c) for c in range(self.basis.channels)]
        return torch.stack(each, -1).permute(0, 2, 1, 3).flatten(2)


def coefficients_of(equation: LocalEquation, contexts: Tensor | None, where: Tensor) -> Tensor:
    """Coefficients (B, J C) of an equation in the environments `where` (B,)."""
    operators = equation.several.flatten(1)
    if contexts is None:
        return operators[0].expand(len(where), -1)
    return operators[0] + contexts[where] @ operators[1:]


def _chosen(states: CodeData, most: int) -> Iterator[Interval]:
    """About so many transitions, evenly spread over trajectories and times, in blocks."""
    total = states.transitions
    for codes, t, rows in by_observed_frames(states):
        steps = codes.shape[1] - 1
        count = max(1, min(len(codes) * steps, round(most * len(codes) * steps / max(total, 1))))
        chosen = torch.linspace(0, len(codes) * steps - 1, count).round().long()
        for frame in range(steps):
            own = chosen[chosen % steps == frame] // steps
            for block in own.split(_BLOCK) if len(own) else ():
                yield Interval(codes[block], t[block], frame, rows[block])


def steps_of(field: VectorField, states: CodeData, contexts: Tensor | None = None, most: int = 8) -> int:
    """Steps of Runge and Kutta's method between two frames that the fastest rates allow; an even number.

    The rates are those around `most` of the liveliest states, at the given contexts (E, P) of a field that has any.
    Steps of a linear field, which cost little, are accurate and not only stable: a wave keeps its phase.
    """
    gap = float((states.t[:, 1:] - states.t[:, :-1]).nan_to_num(0.0).max())
    seen = states.codes[states.observed][:, : field.state_size].double()
    if not field.is_linear_at_context:
        seen = seen[seen.square().sum(1).topk(min(most, len(seen))).indices]
    else:
        seen = seen[:1]
    if contexts is not None:
        each = contexts.repeat_interleave(len(seen), 0)
        seen = torch.cat([seen.repeat(len(contexts), 1), each], 1)
    largest = _ACCURATE if field.is_linear_at_context else _STABLE
    steps = math.ceil(gap * fastest_rate(field, seen) / largest / 2) * 2
    return min(max(steps, _LEAST_STEPS), _MOST_STEPS)


def fastest_rate(field: VectorField, states: Tensor, iterations: int = 24) -> float:
    """About the largest absolute eigenvalue of the field's derivative around states (S, n): growth under its powers."""
    size = field.state_size
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
    with torch.no_grad():
        return _linear_path(field, start, gap, steps) if field.is_linear else rk4_path(field, begin, start, gap, steps)


def _linear_path(field: VectorField, start: Tensor, gap: Tensor, steps: int) -> Tensor:
    """The same along an affine field, exactly: one matrix for all that have the same gap."""
    path = start.expand(steps + 1, *start.shape).clone()
    affine = torch.nn.functional.pad(torch.cat([field.linear.matrix, field.linear.bias[:, None]], 1), (0, 0, 0, 1))
    for value in gap.unique():
        rows = gap == value
        one = torch.linalg.matrix_exp(affine * value / steps)[:-1]
        for i in range(steps):
            path[i + 1, rows] = path[i, rows] @ one[:, :-1].T + one[:, -1]
    return path
