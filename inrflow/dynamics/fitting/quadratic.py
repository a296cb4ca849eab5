"""Quadratic operator inference: ds/dt = b + A s + W p(s), p the products of components, by linear least squares.

A Galerkin projection of an equation with quadratic terms (Navier-Stokes, Burgers, Kuramoto-Sivashinsky) is exactly of
this form (Peherstorfer and Willcox 2016), here fitted in integral form: by the trapezoidal rule first, then along the
flow of the last solution, whose miss is what the next one explains (Gauss-Newton, without the sensitivity of the flow
itself).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fields.quadratic import Products, leading_pairs, products_of
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear import transitions_of
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

    @property
    def size(self) -> int:
        """Number of state components."""
        return len(self.bias)

    def field(self) -> VectorField:
        """The vector field, float64."""
        field = VectorField.of(self.size, products=len(self.left)).double()
        field.set_linear(self.matrix, self.bias)
        field.term(Products).set(self.left, self.right, self.weight)
        return field


class QuadraticFit:
    """Fits on the states (S, T, n) of one data set.

    Args:
        states: all that are observed count.
        count: at most this many products, those of the components with the largest deviations.
    """

    def __init__(self, states: CodeData, count: int) -> None:
        self.size = states.codes.shape[-1]
        deviation = states.codes[states.observed].square().mean(0).sqrt()
        self.left, self.right = leading_pairs(deviation, count)
        self.constant = _CONSTANT * float(deviation.square().mean().sqrt())
        self.pairs = transitions_of(states.codes, states.t, states.observed)
        self.transitions = len(self.pairs.t)
        self.dual = self.transitions < self.unknowns

    @property
    def unknowns(self) -> int:
        """Number of features F."""
        return 1 + self.size + len(self.left)

    # ---- integrals of the features ----

    def features(self, state: Tensor) -> Tensor:
        """[constant, s, products], (..., F), of states (..., n)."""
        one = torch.full_like(state[..., :1], self.constant)
        return torch.cat([one, state, products_of(state, self.left, self.right)], -1)

    def integrals(self, about: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Integrals (B, F) and the changes (B, n) that they explain, of blocks of transitions: by the trapezoidal rule,
        or along the flow of coefficients (F, n), and the changes that these should have made."""
        for first in range(0, self.transitions, _BLOCK):
            rows = slice(first, first + _BLOCK)
            start, end, gap = (part[rows].float() for part in (self.pairs.start, self.pairs.end, self.pairs.step))
            effort.add(products=len(gap) * self.unknowns * (self.unknowns + (1 if about is None else 8) * self.size))
            if about is None:
                yield (self.features(start) + self.features(end)) / 2 * gap[:, None], end - start
            else:
                yield self._along_flow(start, gap, about.float()), end - start

    def _along_flow(self, start: Tensor, gap: Tensor, theta: Tensor) -> Tensor:
        """Integrals (B, F) of the features along the flow from states (B, n) over times (B,): states are the start and
        theta (F, n) times these integrals, which are all that Runge-Kutta steps need."""
        steps = max(1, math.ceil(float(gap.max()) / _SUBSTEP - 1e-6))
        part, total = (gap / steps)[:, None], start.new_zeros(len(start), self.unknowns)

        def rate(integral: Tensor) -> Tensor:
            return self.features(start + integral @ theta)

        for _ in range(steps):
            one = rate(total)
            two = rate(total + part / 2 * one)
            three = rate(total + part / 2 * two)
            total = total + part / 6 * (one + 2 * two + 2 * three + rate(total + part * three))
        return total

    # ---- solves ----

    def solutions(
        self, about: Tensor | None, ridges: Sequence[float]
    ) -> Iterator[tuple[float, Tensor | None]]:
        """Coefficients (F, n), float64, of each ridge, which is relative to a component's mean square; None where
        it is too small for the precision of the sums. `about`: see `integrals`."""
        size, linear = self.unknowns, slice(1, 1 + self.size)
        design: Tensor | None = None
        if self.dual:  # fewer equations than unknowns: the same solution from the other side
            pairs = [(phi.double(), change.double()) for phi, change in self.integrals(about)]
            design, right = (torch.cat(part) for part in zip(*pairs, strict=True))
            gram, strength = design @ design.T, float(design[:, linear].square().sum(0).mean())
        else:
            gram, right = torch.zeros(size, size), torch.zeros(size, self.size)
            for phi, change in self.integrals(about):
                gram.addmm_(phi.T, phi)
                right.addmm_(phi.T, change)
            strength = float(gram.diagonal()[linear].mean())
        for ridge in ridges:
            effort.add(products=len(gram) ** 3 / 3)
            regular = gram.to(torch.float64, copy=True)
            regular.diagonal().add_(ridge * strength)
            factor, failed = torch.linalg.cholesky_ex(regular)
            solution = None if int(failed) else torch.cholesky_solve(right.double(), factor)
            yield ridge, solution if design is None or solution is None else design.T @ solution

    def form(self, theta: Tensor, ridges: tuple[float, ...] = (), score: float = float("nan")) -> QuadraticForm:
        """The field of coefficients (F, n)."""
        n = self.size
        bias, matrix, weight = theta[0] * self.constant, theta[1 : 1 + n].T.contiguous(), theta[1 + n :].T.contiguous()
        return QuadraticForm(bias, matrix, self.left, self.right, weight, ridges, score)

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
