"""Quadratic operator inference: ds/dt = b + A s + W p(s), p the products of components, by linear least squares.

A Galerkin projection of an equation with quadratic terms (Navier-Stokes, Burgers, Kuramoto-Sivashinsky) is exactly of
this form (Peherstorfer and Willcox 2016), here fitted in integral form: along polynomials through neighbouring frames
first, then along the flow of the last solution, whose miss is what the next one explains (Gauss-Newton, without the
sensitivity of the flow itself).

With contexts c at the end of the states the unknowns are affine in them: their features are those above and each of
them times each context, W being left without contexts where it does not need them (a viscosity multiplies A alone).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrflow.dynamics.fields.quadratic import Products, leading_pairs, products_of
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import rk4_integrals
from inrflow.dynamics.libraries.integral_form import intervals
from inrflow.dynamics.states import CodeData
from inrflow.numerics.effort import effort
from inrflow.numerics.ridge import improves, leading_ridge, ridge_grid

RIDGES, FIRST_RIDGES = ridge_grid(-9, -3, 1), ridge_grid(-6, -2)
_SUBSTEP = 0.5  # of Runge-Kutta, internal time
_BLOCK = 2048
_CONSTANT = 100.0  # the bias is hardly penalised: its feature is that many times a typical component


@dataclass(frozen=True)
class QuadraticForm:
    """A fitted field of `size` components.

    Attributes:
        bias, matrix: (n,), (n, n).
        left, right: pairs (K,); weight: (n, K).
        context_bias, context_matrix, context_weight: what each of P contexts adds, (P, n), (P, n, n), (P, n, K); None
            without contexts.
        ridges: of the first fit and of each correction, so that other data can be fitted alike.
        score: validation error.
    """

    bias: Tensor
    matrix: Tensor
    left: Tensor
    right: Tensor
    weight: Tensor
    ridges: tuple[float, ...] = ()
    score: float = float("nan")
    context_bias: Tensor | None = None
    context_matrix: Tensor | None = None
    context_weight: Tensor | None = None

    @property
    def contexts(self) -> int:
        """Number P of contexts."""
        return 0 if self.context_bias is None else len(self.context_bias)

    @property
    def size(self) -> int:
        """Number of state components."""
        return len(self.bias)

    def scored(self, score: float) -> QuadraticForm:
        """The same form with another validation error."""
        return replace(self, score=score)

    def field(self) -> VectorField:
        """The vector field, float64."""
        field = VectorField.of(self.size, products=len(self.left), context_size=self.contexts).double()
        field.set_linear(self.matrix, self.bias)
        field.term(Products).set(self.left, self.right, self.weight, self.context_weight)
        if self.context_matrix is not None and self.context_bias is not None:
            field.set_context_linear(self.context_matrix, self.context_bias)
        return field


class QuadraticFit:
    """Fits on the states (S, T, n) of one data set.

    Args:
        states: all that are observed count.
        count: at most this many products, those of the components with the largest deviations.
        contexts: P, at the end of the states.
        coupled: the products' weights depend on the contexts too.
    """

    def __init__(self, states: CodeData, count: int, contexts: int = 0, coupled: bool = False) -> None:
        self.size, self.contexts, self.coupled = states.codes.shape[-1] - contexts, contexts, coupled
        seen = states.codes[states.observed][:, : self.size]
        deviation = seen.square().mean(0).sqrt()
        self.left, self.right = leading_pairs(deviation, count)
        self.constant = _CONSTANT * float(deviation.square().mean().sqrt())
        self.intervals = intervals(states, _BLOCK)
        self.transitions = sum(len(one.rows) for one in self.intervals)
        self.dual = self.transitions < self.unknowns

    @property
    def unknowns(self) -> int:
        """Number of features F."""
        plain = 1 + self.size + len(self.left)
        return plain + self.contexts * (plain if self.coupled else 1 + self.size)

    # ---- integrals of the features ----

    def features(self, state: Tensor) -> Tensor:
        """[constant, s, products] and what of them goes with each context, (..., F), of states (..., n + P)."""
        code, context = state[..., : self.size], state[..., self.size :]
        one = torch.full_like(state[..., :1], self.constant)
        plain = torch.cat([one, code, products_of(code, self.left, self.right)], -1)
        if not self.contexts:
            return plain
        dependent = plain if self.coupled else plain[..., : 1 + self.size]
        return torch.cat([plain, (context[..., None] * dependent[..., None, :]).flatten(-2)], -1)

    def integrals(self, about: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Integrals (B, F) and the changes (B, n + P) that they explain, of each interval: along polynomials, or along
        the flow of coefficients (F, n + P) and the changes that these should have made."""
        if about is None:
            for one in self.intervals:
                effort.add(products=len(one.rows) * self.unknowns * (self.unknowns + self.size))
                path, weights = one.polynomial()
                mean = sum(w * self.features(s) for w, s in zip(weights, path.float(), strict=True))
                yield mean * one.gap[:, None].float(), (one.end - one.start).float()
            return
        theta = about.float()

        def evaluate(_: Tensor, state: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            features = self.features(state)
            return features @ theta, (features,)

        for one in self.intervals:
            effort.add(products=len(one.rows) * self.unknowns * (self.unknowns + 8 * self.size))
            gap = one.gap.float()
            steps = max(1, math.ceil(float(gap.max()) / _SUBSTEP - 1e-6))
            end, (total,) = rk4_integrals(evaluate, gap.new_zeros(()), one.start.float(), gap, steps)
            yield total, one.end.float() - end + total @ theta

    def context_effects(self, theta: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each interval: what the flow of `theta` misses (B, n), what a unit of each context adds (B, P, n), and the
        numbers (B,) of the trajectories."""
        dependent = 1 + self.size + (len(self.left) if self.coupled else 0)
        directions = theta[1 + self.size + len(self.left) :, : self.size].float()
        directions = directions.unflatten(0, (self.contexts, dependent))
        for one, (total, change) in zip(self.intervals, self.integrals(theta), strict=True):
            missed = (change - total @ theta.float())[:, : self.size]
            yield missed, torch.einsum("bf,kfn->bkn", total[:, :dependent], directions), one.rows

    # ---- solves ----

    def solutions(
        self, about: Tensor | None, ridges: Sequence[float]
    ) -> Iterator[tuple[float, Tensor | None]]:
        """Coefficients (F, n + P), float64, of each ridge, which is relative to a component's mean square; None where
        it is too small for the precision of the sums. `about`: see `integrals`."""
        linear = slice(1, 1 + self.size)
        design: Tensor | None = None
        if self.dual:  # fewer equations than unknowns: the same solution from the other side
            pairs = [(phi.double(), change.double()) for phi, change in self.integrals(about)]
            design, right = (torch.cat(part) for part in zip(*pairs, strict=True))
            gram, strength = design @ design.T, float(design[:, linear].square().sum(0).mean())
        else:
            size = self.unknowns
            gram, right = torch.zeros(size, size), torch.zeros(size, self.size + self.contexts)
            for phi, change in self.integrals(about):
                gram.addmm_(phi.T, phi)
                right.addmm_(phi.T, change)
            right, strength = right.double(), float(gram.diagonal()[linear].mean())
        for ridge in ridges:
            effort.add(products=len(gram) ** 3 / 3)
            regular = gram.to(torch.float64, copy=True)
            regular.diagonal().add_(ridge * strength)
            factor, failed = torch.linalg.cholesky_ex(regular)
            solution = None if int(failed) else torch.cholesky_solve(right, factor)
            yield ridge, solution if design is None or solution is None else design.T @ solution

    def form(self, theta: Tensor, ridges: tuple[float, ...] = (), score: float = float("nan")) -> QuadraticForm:
        """The field of coefficients (F, n)."""
        n, plain = self.size, 1 + self.size + len(self.left)
        bias, matrix, weight = self._parts(theta[:plain, :n])
        form = QuadraticForm(bias, matrix, self.left, self.right, weight, ridges, score)
        if not self.contexts:
            return form
        parts = [self._parts(part) for part in theta[plain:, :n].chunk(self.contexts)]
        biases, matrices, weights = (torch.stack(part) for part in zip(*parts, strict=True))
        if not self.coupled:
            weights = weight.new_zeros(self.contexts, *weight.shape)
        return replace(form, context_bias=biases, context_matrix=matrices, context_weight=weights)

    def coefficients(self, form: QuadraticForm) -> Tensor:
        """The coefficients (F, n + P) of a form of this fit's pairs."""

        def joined(bias: Tensor, matrix: Tensor, weight: Tensor) -> Tensor:
            return torch.cat([bias[None] / self.constant, matrix.T, weight.T])

        parts = [joined(form.bias, form.matrix, form.weight)]
        if form.context_bias is not None and form.context_matrix is not None and form.context_weight is not None:
            for bias, matrix, weight in zip(form.context_bias, form.context_matrix, form.context_weight, strict=True):
                parts.append(joined(bias, matrix, weight if self.coupled else weight[:, :0]))
        return torch.nn.functional.pad(torch.cat(parts), (0, self.contexts))

    def _parts(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bias (n,), matrix (n, n) and weights (n, K or 0) of coefficients."""
        n = self.size
        return theta[0] * self.constant, theta[1 : 1 + n].T.contiguous(), theta[1 + n :].T.contiguous()

    def search(self, judge: Callable[[VectorField], float], corrections: int = 3) -> QuadraticForm | None:
        """The best field by `judge`, an error, corrected along its own flow while that gains something; None where
        every one diverges."""
        best: QuadraticForm | None = None
        theta: Tensor | None = None
        for number in range(corrections + 1):
            solutions = self.solutions(theta, RIDGES if number else FIRST_RIDGES)
            leading = leading_ridge(solutions, lambda one: judge(self.form(one).field()))
            if leading is None or not improves(leading[0], None if best is None else best.score):
                break
            score, ridge, theta = leading
            best = self.form(theta, (*(best.ridges if best is not None else ()), ridge), score)
        return best

    def refit(self, ridges: tuple[float, ...]) -> QuadraticForm:
        """The field with the ridges that a search on other data has chosen."""
        theta: Tensor | None = None
        for ridge in ridges:
            ((_, solution),) = self.solutions(theta, [ridge])
            theta = theta if solution is None else solution
        assert theta is not None
        return self.form(theta, ridges)
