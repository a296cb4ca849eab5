"""Closed-form fits of quadratic dynamics that commute with translations, in integral form, corrected along the flow.

As `quadratic_fit`, but every wave has its own few unknowns (see `spectral`), found by ridge regression on complex
coefficients. An operator may be known beforehand (from other physics, or from an equation that was found): the ridge
then pulls towards it instead of towards nothing, so that what the data do not determine stays as it was known.
With contexts the unknowns are affine in them, products where they need it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.integral_form import by_observed_frames, interpolated_path
from inrflow.dynamics.libraries.waves import SpectralOperator, Waves
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.numerics.ridge import improves, leading_ridge

RIDGES = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-2)
_BLOCK = 256
_SUBSTEP, _LINEAR_SUBSTEP = 0.25, 0.125  # of Runge-Kutta, internal time; linear fields keep faster waves and cost less
_CONSTANT = 100.0  # the constant is hardly penalised
_ROWS, _ROWS_OF_SEVERAL = 6.0, 24.0  # transitions an unknown; more would only take longer
_TIES = 1.05  # of the best error: the largest ridge within that is the safest for systems that are not judged
_STORED = 2.5e7  # products of coefficients that are kept at once
_FEWEST = 8  # trajectories that are never left out
_COLLINEAR = 1e-6

Block = tuple[Tensor, Tensor, Tensor, Tensor]  # durations, integrals of coefficients and of products, changes


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
    def substep(self) -> float:
        """Step of Runge-Kutta along whose flow the operator was fitted, internal time."""
        return substep(self.waves)

    def field(self) -> VectorField:
        """The vector field, float64."""
        return self.waves.field(self.operator)


class SpectralFit:
    """Fits on the leading codes of `states` that `labels` name; rows beyond what the unknowns need are left out.

    contexts: (S, P) of the trajectories of several systems, whose rows are left out evenly then; None for one system.
    coupled: the products depend on them too.
    prior: operator to which the ridge pulls, None for none; of one system only.
    waves: bookkeeping of the labels; made where None is given, with `products` or without.
    transitions: at most about so many are looked at; None: as many as memory allows.
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
        self.groups, self.members = [], []
        for codes, t, rows in by_observed_frames(states):
            self.groups.append((codes, t))
            self.members.append(chosen[rows])
        self.row_contexts = contexts

    # ---- integrals ----

    def blocks(self, operator: SpectralOperator | None) -> Iterator[Block]:
        """Integrals along interpolating polynomials, or along the flow of an operator."""
        for (codes, t), members in zip(self.groups, self.members, strict=True):
            for k in range(codes.shape[1] - 1):
                for rows in torch.arange(len(codes)).split(_BLOCK):
                    step = (t[rows, k + 1] - t[rows, k])[:, None]
                    if operator is None:
                        yield self._interpolated(codes[rows], t[rows], k, step)
                    else:
                        own = operator.at(self.row_contexts[members[rows]])
                        yield self._followed(own, codes[rows, k], codes[rows, k + 1], step)

    def rows(self) -> Iterator[Tensor]:
        """Which trajectories the rows of each block are of, in the order of the blocks."""
        for (codes, _), members in zip(self.groups, self.members, strict=True):
            for _ in range(codes.shape[1] - 1):
                yield from members.split(_BLOCK)

    def gathered(self, operator: SpectralOperator | None) -> Block:
        """All blocks in one."""
        step, linear, products, change = (torch.cat(part) for part in zip(*self.blocks(operator), strict=True))
        return step, linear, products, change

    def _interpolated(self, codes: Tensor, t: Tensor, k: int, step: Tensor) -> Block:
        path, weights = interpolated_path(codes, t, k)
        linear, products = torch.zeros(()), torch.zeros(())
        for weight, state in zip(weights, path, strict=True):
            coefficients = self.waves.coefficients(state)
            linear = linear + weight * coefficients
            products = products + weight * self.waves.products(coefficients)
        change = self.waves.coefficients(codes[:, k + 1] - codes[:, k])[..., : self.waves.count]
        return step, linear * step[..., None], (products * step).to(torch.complex64), change

    def _followed(self, operator: SpectralOperator, state: Tensor, stop: Tensor, step: Tensor) -> Block:
        start = self.waves.coefficients(stop - state)[..., : self.waves.count]
        count = max(1, math.ceil(float(step.max()) / self.substep - 1e-6))
        h = step / count
        zero = torch.zeros((), dtype=state.dtype)
        linear, products = zero, zero
        end = state
        for _ in range(count):
            end, mean, mean_products = self._stage(operator, end, h)
            linear, products = linear + mean, products + mean_products
        missed = start - self.waves.coefficients(end - state)[..., : self.waves.count]
        return step, linear, products.to(torch.complex64), missed + self.effect(operator, step, linear, products)

    def effect(self, operator: SpectralOperator, step: Tensor, linear: Tensor, products: Tensor) -> Tensor:
        """What an operator changes (S, C, H) over durations (S, 1) with these integrals."""
        moving = SpectralOperator(torch.zeros_like(operator.constant), operator.linear, operator.products)
        return self.waves.rates(moving, linear, products) + operator.constant * step[..., None]

    def _stage(self, operator: SpectralOperator, state: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of Runge-Kutta: the state after it, integrals of coefficients and of products over it."""
        zero = torch.zeros((), dtype=state.dtype)
        rates, linear, products, at = zero, zero, zero, state
        for weight, ahead in ((1, 0.5), (2, 0.5), (2, 1.0), (1, None)):
            coefficients = self.waves.coefficients(at)
            several = self.waves.products(coefficients)
            rate = self.waves.codes(self.waves.rates(operator, coefficients, several))
            rates = rates + weight * rate
            linear, products = linear + weight * coefficients, products + weight * several
            at = state if ahead is None else state + ahead * h * rate
        part = h / 6
        return state + part * rates, part[..., None] * linear, part * products

    # ---- solves ----

    def nothing(self) -> SpectralOperator:
        """The operator of no motion."""
        waves, channels = self.waves, self.waves.channels

        def zero(products: int, *contexts: SpectralOperator) -> SpectralOperator:
            return SpectralOperator(
                torch.zeros(channels, waves.count, dtype=torch.complex128),
                torch.zeros(waves.count, channels, channels, dtype=torch.complex128),
                torch.zeros(channels, products, dtype=torch.complex128),
                contexts,
            )

        count = len(waves.out)
        return zero(count, *(zero(count if self.coupled else 0) for _ in range(self.contexts)))

    def weights(self, operators: list[SpectralOperator]) -> Tensor:
        """Weights (P,) of the sum of operators that explains the changes of the codes best, by least squares."""
        gram, right = torch.zeros(len(operators), len(operators)).double(), torch.zeros(len(operators)).double()
        for step, linear, products, change in self.blocks(None):
            design = torch.stack([
                self.waves.codes(self.effect(one, step, linear, products.to(torch.complex128))).flatten()
                for one in operators
            ], 1)
            gram += design.T @ design
            right += design.T @ self.waves.codes(change).flatten()
        gram.diagonal().add_(_COLLINEAR * gram.diagonal().mean())
        return torch.linalg.solve(gram, right)

    def solve(self, blocks: Iterator[Block], ridges: list[float]) -> list[SpectralOperator | None]:
        """Operators for each ridge (relative to a coefficient's mean square), None where it is too small."""
        parts = list(blocks)
        step, linear, products, change = (torch.cat(part) for part in zip(*parts, strict=True))
        contexts = self.row_contexts[torch.cat(list(self.rows()))].to(torch.complex128)
        waves, channels = self.waves, self.waves.channels
        strength = float(linear.abs().square().sum(0).mean())
        found = [self.nothing() for _ in ridges]
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
                for part, values in zip([found[index], *found[index].contexts], solution.split(sizes), strict=True):
                    part.constant[:, wave] = values[0] * self.constant
                    part.linear[wave] = values[1 : 1 + channels].T
                    if len(values) > 1 + channels:
                        part.products[:, first:last] = values[1 + channels :].T
        return [None if bad else operator for bad, operator in zip(failed, found, strict=True)]

    def _unknowns(self, operator: SpectralOperator, wave: int) -> Tensor:
        """The unknowns (F, C) of one wave, as `solve` has them."""
        first, last = self.waves.ranges[wave]
        return torch.cat([
            operator.constant[:, wave][None] / self.constant, operator.linear[wave].T,
            operator.products[:, first:last].T,
        ])

    def refit(self, form: SpectralForm) -> SpectralForm:
        """A form of a search on other codes, fitted to these with its ridges."""
        operator = self.prior
        for ridge in form.ridges:
            solved = self.solve(self.blocks(operator), [ridge])[0]
            operator = operator if solved is None else solved
        return replace(form, operator=operator or form.operator)

    def rollout_error(
        self, operator: SpectralOperator, judged: CodeData, first: int, contexts: Tensor | None = None
    ) -> float:
        """Error of rollouts from frame `first`, share of the variance; what the size cuts off counts.

        contexts: (S, P) of the judged trajectories, where the operator has any.
        """
        if contexts is not None:
            operator = operator.at(contexts)
        state, rest = judged.codes[:, first, : self.size], judged.codes[judged.observed].square().sum(1).mean()
        total, count = 0.0, 0
        for k in range(first, judged.codes.shape[1] - 1):
            gap = (judged.t[:, k + 1] - judged.t[:, k]).nan_to_num(0.0)[:, None]
            steps = max(1, math.ceil(float(gap.max()) / self.substep - 1e-6))
            for _ in range(steps):
                state = self._stage(operator, state, gap / steps)[0]
            error = judged.codes[:, k + 1].clone()
            error[:, : self.size] -= state
            seen = judged.observed[:, k + 1] & judged.observed[:, first]
            total += float(error[seen].square().sum())
            count += int(seen.sum())
            if not total < 1e6 * float(rest) * max(count, 1):
                return float("inf")
        return total / max(count, 1) / float(rest)

    def search(
        self,
        judged: CodeData,
        first: int,
        corrections: int = 2,
        contexts: Tensor | None = None,
        start: SpectralOperator | None = None,
    ) -> SpectralForm | None:
        """The best by rollouts of `judged` codes from frame `first`; None where every one diverges.

        contexts: (S, P) of the judged trajectories, where the fit has any. start: its flow, not polynomials through
        frames, tells the first integrals.
        """
        best: SpectralForm | None = None
        operator = self.prior if start is None else start
        chosen: tuple[float, ...] = ()
        for _ in range(corrections + 1):
            solved = self.solve(self.blocks(operator), list(RIDGES))
            if contexts is None:
                leading = leading_ridge(
                    zip(RIDGES, solved, strict=True), lambda one: self.rollout_error(one, judged, first)
                )
            else:
                leading = self._safest(solved, judged, first, contexts)
            if leading is None or not improves(leading[0], None if best is None else best.score):
                break
            operator, chosen = leading[2], (*chosen, leading[1])
            best = SpectralForm(self.waves, operator, self.prior, chosen, leading[0])
        return best

    def _safest(
        self, solved: list[SpectralOperator | None], judged: CodeData, first: int, contexts: Tensor
    ) -> tuple[float, float, SpectralOperator] | None:
        """Error, ridge and operator of the largest ridge that does about as well as the best one."""
        found = [
            (self.rollout_error(one, judged, first, contexts), ridge, one)
            for ridge, one in zip(RIDGES, solved, strict=True)
            if one is not None
        ]
        best = min((error for error, _, _ in found), default=math.inf)
        return max((one for one in found if one[0] <= _TIES * best < math.inf), key=lambda one: one[1], default=None)

    def known(self, judged: CodeData, first: int) -> SpectralForm:
        """The prior as it is, with its error."""
        assert self.prior is not None
        return SpectralForm(self.waves, self.prior, self.prior, (), self.rollout_error(self.prior, judged, first))


def substep(waves: Waves) -> float:
    """Step of Runge-Kutta for fields with these products, internal time."""
    return _SUBSTEP if len(waves.out) else _LINEAR_SUBSTEP
