"""Least-squares fits of quadratic dynamics that commute with translations.

A feature library whose unknowns are a few complex coefficients for every wave (see `waves`), found by ridge regression
wave by wave. An operator may be known beforehand, from other physics or from an equation: the ridge then pulls towards
it instead of zero, so that what the data do not determine stays as it was known. With contexts the unknowns are affine
in them, products where they need it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import rk4_integrals
from inrflow.dynamics.libraries.integral_form import Interval, intervals, refit, search
from inrflow.dynamics.libraries.waves import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.numerics.ridge import leading_ridge, ridge_grid, safest_ridge

RIDGES = tuple(sorted({*ridge_grid(-10, -2), 1e-5}))
_BLOCK = 256
_SUBSTEP, _LINEAR_SUBSTEP = 0.25, 0.125  # of Runge-Kutta, internal time; linear fields keep faster waves and cost less
_CONSTANT = 100.0  # the constant is hardly penalised
_ROWS, _ROWS_OF_SEVERAL = 6.0, 24.0  # transitions an unknown; more would only take longer
_STORED = 2.5e7  # products of coefficients that are kept at once
_FEWEST = 8  # trajectories that are never left out
_COLLINEAR = 1e-6


class Block(NamedTuple):
    """Durations (B, 1), integrals of coefficients (B, C, L) and of products (B, M) over them, changes (B, C, H) of the
    coefficients, and the numbers (B,) of the trajectories."""

    step: Tensor
    linear: Tensor
    products: Tensor
    change: Tensor
    rows: Tensor


@dataclass(frozen=True)
class SpectralForm:
    """A fitted field of codes.

    Attributes:
        waves, operator: what was fitted. prior: to which the ridge pulled, None for nothing.
        ridges: of the first fit and of each correction. score: validation error, share of the variance.
        equation: the coefficients are polynomials in the wavenumber (see `symbols`).
    """

    waves: Waves
    operator: SpectralOperator
    prior: SpectralOperator | None = None
    ridges: tuple[float, ...] = ()
    score: float = float("nan")
    equation: bool = False

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.waves.labels)

    @property
    def kind(self) -> str:
        """What it is in a few words."""
        return "an equation with constant coefficients" if self.equation else "fitted wave by wave"

    @property
    def substep(self) -> float:
        """Step of Runge-Kutta along whose flow the operator was fitted, internal time."""
        return substep(self.waves)

    def field(self) -> VectorField:
        """The vector field, float64."""
        return self.waves.field(self.operator)


class SpectralFit:
    """Fits on the leading codes of `states`, those of `labels`; transitions beyond what the unknowns need are left out.

    Args:
        prior: operator of one system to which the ridge pulls, None for zero.
        products: whether there are any, where `waves` are made here.
        contexts: (S, P) of the trajectories of several systems; None for one system.
        coupled: the products depend on the contexts too.
        waves: of the labels, None to make them.
        transitions: number to use at most, None for as many as memory allows.
    """

    def __init__(
        self,
        states: CodeData,
        labels: HarmonicLabels,
        prior: SpectralOperator | None = None,
        products: bool = True,
        contexts: Tensor | None = None,
        coupled: bool = False,
        waves: Waves | None = None,
        transitions: float | None = None,
    ) -> None:
        self.size, self.prior, self.coupled = len(labels), prior, coupled
        self.waves = Waves(labels, products) if waves is None else waves
        self.substep = substep(self.waves)
        several_systems = contexts is not None
        contexts = states.codes.new_zeros(len(states.codes), 0) if contexts is None else contexts.to(states.codes)
        self.contexts = contexts.shape[1]
        several = max(last - first for first, last in self.waves.ranges)
        once = 1 + self.waves.channels
        largest = several + once + self.contexts * (once + several * coupled)
        frames = max(1, states.codes.shape[1] - 1)
        enough = _ROWS_OF_SEVERAL if several_systems else _ROWS
        most = enough * largest if transitions is None else min(enough * largest, transitions)
        if not several_systems:
            most = min(most, _STORED / max(len(self.waves.out), 1))
        kept = min(len(states.codes), max(_FEWEST, math.ceil(most / frames)))
        chosen = torch.arange(kept)
        if several_systems:  # a file may hold one after the other
            chosen = torch.linspace(0, len(states.codes) - 1, kept).round().long()
        states = CodeData(states.codes[chosen, :, : self.size], states.t[chosen], states.observed[chosen])
        self.constant = _CONSTANT * float(states.codes[states.observed].square().mean().sqrt())
        self.seen = states.codes[states.observed]
        self.intervals = [replace(one, rows=chosen[one.rows]) for one in intervals(states, _BLOCK)]
        self.row_contexts = contexts

    # ---- integrals ----

    def blocks(self, about: SpectralOperator | None) -> Iterator[Block]:
        """Integrals along interpolating polynomials, or along the flow of an operator."""
        for one in self.intervals:
            if about is None:
                yield self._interpolated(one)
            else:
                yield self._followed(about.at(self.row_contexts[one.rows]), one)

    def gathered(self, about: SpectralOperator | None) -> Block:
        """All blocks in one."""
        return Block(*(torch.cat(part) for part in zip(*self.blocks(about), strict=True)))

    def _interpolated(self, one: Interval) -> Block:
        path, weights = one.polynomial()
        linear, products = torch.zeros(()), torch.zeros(())
        for weight, state in zip(weights, path, strict=True):
            coefficients = self.waves.coefficients(state)
            linear = linear + weight * coefficients
            products = products + weight * self.waves.products(coefficients)
        change = self.waves.coefficients(one.end - one.start)[..., : self.waves.count]
        step = one.gap[:, None]
        return Block(step, linear * step[..., None], (products * step).to(torch.complex64), change, one.rows)

    def _followed(self, operator: SpectralOperator, one: Interval) -> Block:
        end, (linear, products) = self.flow(operator, one.start, one.gap)
        missed = self.waves.coefficients(one.end - end)[..., : self.waves.count]
        step = one.gap[:, None]
        change = missed + self.effect(operator, step, linear, products)
        return Block(step, linear, products.to(torch.complex64), change, one.rows)

    def effect(self, operator: SpectralOperator, step: Tensor, linear: Tensor, products: Tensor) -> Tensor:
        """What an operator changes (S, C, H) over durations (S, 1) with these integrals."""
        moving = SpectralOperator(torch.zeros_like(operator.constant), operator.linear, operator.products)
        return self.waves.rates(moving, linear, products) + operator.constant * step[..., None]

    def flow(
        self, operator: SpectralOperator, state: Tensor, gap: Tensor, integrals: bool = True
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """States (S, n) after gaps (S,), and the `integrals` of coefficients and of products on the way."""

        def evaluate(_: Tensor, at: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            coefficients = self.waves.coefficients(at)
            products = self.waves.products(coefficients)
            rate = self.waves.codes(self.waves.rates(operator, coefficients, products))
            return rate, (coefficients, products) if integrals else ()

        steps = max(1, math.ceil(float(gap.max()) / self.substep - 1e-6))
        return rk4_integrals(evaluate, gap.new_zeros(()), state, gap, steps)

    def context_effects(self, operator: SpectralOperator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each block: what the flow of an operator misses (B, n), what a unit of each context adds (B, P, n), and
        the numbers (B,) of the trajectories."""
        for step, linear, products, change, rows in self.blocks(operator):
            own = operator.at(self.row_contexts[rows])
            missed = self.waves.codes(change - self.effect(own, step, linear, products))
            moved = [self.waves.codes(self.effect(one, step, linear, products)) for one in operator.contexts]
            yield missed, torch.stack(moved, 1), rows

    # ---- solves ----

    def nothing(self) -> SpectralOperator:
        """The operator of no motion."""
        none = self.waves.nothing()
        one = none if self.coupled else replace(none, products=none.products[:, :0])
        return replace(none, contexts=tuple(copy.deepcopy(one) for _ in range(self.contexts)))

    def weights(self, operators: list[SpectralOperator]) -> Tensor:
        """Weights (P,) of the sum of operators that explains the changes of the codes best, by least squares."""
        gram, right = torch.zeros(len(operators), len(operators)).double(), torch.zeros(len(operators)).double()
        for step, linear, products, change, _ in self.blocks(None):
            design = torch.stack([
                self.waves.codes(self.effect(one, step, linear, products.to(torch.complex128))).flatten()
                for one in operators
            ], 1)
            gram += design.T @ design
            right += design.T @ self.waves.codes(change).flatten()
        gram.diagonal().add_(_COLLINEAR * gram.diagonal().mean())
        return torch.linalg.solve(gram, right)

    def solutions(
        self, about: SpectralOperator | None, ridges: Sequence[float]
    ) -> Iterator[tuple[float, SpectralOperator | None]]:
        """Operators for each ridge, which is relative to a coefficient's mean square."""
        step, linear, products, change, rows = self.gathered(about)
        contexts = self.row_contexts[rows].to(torch.complex128)
        waves, channels = self.waves, self.waves.channels
        strength = float(linear.abs().square().sum(0).mean())
        operators = [self.nothing() for _ in ridges]
        failed = [False] * len(ridges)
        for wave, (first, last) in enumerate(waves.ranges):
            constant = (self.constant * step).to(torch.complex128)
            plain = torch.cat([constant, linear[:, :, wave], products[:, first:last].to(torch.complex128)], 1)
            dependent = plain if self.coupled else plain[:, : 1 + channels]
            design = torch.cat([plain, (contexts[:, :, None] * dependent[:, None]).flatten(1)], 1)
            target = change[:, :, wave]
            known = None if self.prior is None else self._unknowns(self.prior, wave)
            if known is not None:
                target = target - design @ known
            dual = len(design) < design.shape[1]
            gram = design @ design.mH if dual else design.mH @ design
            right = target if dual else design.mH @ target
            for index, ridge in enumerate(ridges):
                regular = gram.clone()
                regular.diagonal().add_(ridge * strength)
                factor, info = torch.linalg.cholesky_ex(regular)
                if int(info):
                    failed[index] = True
                    continue
                solution = torch.cholesky_solve(right, factor)
                solution = design.mH @ solution if dual else solution
                if known is not None:
                    solution = solution + known
                sizes = [plain.shape[1]] + [dependent.shape[1]] * self.contexts
                own = operators[index]
                for part, values in zip([own, *own.contexts], solution.split(sizes), strict=True):
                    part.constant[:, wave] = values[0] * self.constant
                    part.linear[wave] = values[1 : 1 + channels].T
                    if len(values) > 1 + channels:
                        part.products[:, first:last] = values[1 + channels :].T
        for ridge, operator, bad in zip(ridges, operators, failed, strict=True):
            yield ridge, None if bad else operator

    def field(self, solution: SpectralOperator) -> VectorField:
        """The vector field of an operator, float64."""
        return self.waves.field(solution)

    def _unknowns(self, operator: SpectralOperator, wave: int) -> Tensor:
        """The unknowns (F, C) of one wave, as `solutions` has them."""
        first, last = self.waves.ranges[wave]
        return torch.cat([
            operator.constant[:, wave][None] / self.constant, operator.linear[wave].T,
            operator.products[:, first:last].T,
        ])

    def refit(self, form: SpectralForm) -> SpectralForm:
        """A form of a search on other codes, fitted to these with its ridges."""
        return replace(form, operator=refit(self, form.ridges, self.prior) or form.operator)

    def rollout_error(
        self, operator: SpectralOperator, validation: CodeData, first: int, contexts: Tensor | None = None
    ) -> float:
        """Error of rollouts from frame `first`, share of the variance; what the size cuts off counts.

        contexts: (S, P) of the validation trajectories, where the operator has any.
        """
        if contexts is not None:
            operator = operator.at(contexts)
        state = validation.codes[:, first, : self.size]
        variance = validation.codes[validation.observed].square().sum(1).mean()
        total, count = 0.0, 0
        for k in range(first, validation.codes.shape[1] - 1):
            gap = (validation.t[:, k + 1] - validation.t[:, k]).nan_to_num(0.0)
            state = self.flow(operator, state, gap, integrals=False)[0]
            error = validation.codes[:, k + 1].clone()
            error[:, : self.size] -= state
            seen = validation.observed[:, k + 1] & validation.observed[:, first]
            total += float(error[seen].square().sum())
            count += int(seen.sum())
            if not total < 1e6 * float(variance) * max(count, 1):
                return float("inf")
        return total / max(count, 1) / float(variance)

    def search(
        self,
        validation: CodeData,
        first: int,
        corrections: int = 2,
        contexts: Tensor | None = None,
        start: SpectralOperator | None = None,
    ) -> SpectralForm | None:
        """The operator of least rollout error on `validation` codes from frame `first`; None where all diverge.

        Args:
            contexts: (S, P) of the validation trajectories, where the fit has any.
            start: along whose flow the first integrals are taken, None for polynomials through frames.
        """
        best = search(
            self, lambda one: self.rollout_error(one, validation, first, contexts), RIDGES, corrections,
            start=self.prior if start is None else start, choose=leading_ridge if contexts is None else safest_ridge,
        )
        return None if best is None else SpectralForm(self.waves, best.solution, self.prior, best.ridges, best.score)

    def known(self, validation: CodeData, first: int) -> SpectralForm:
        """The prior as it is, with its error."""
        assert self.prior is not None
        return SpectralForm(self.waves, self.prior, self.prior, (), self.rollout_error(self.prior, validation, first))


def substep(waves: Waves) -> float:
    """Step of Runge-Kutta for fields with these products, internal time."""
    return _SUBSTEP if len(waves.out) else _LINEAR_SUBSTEP
