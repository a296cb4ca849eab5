"""Closed-form quadratic dynamics: ds/dt = b + A s + W p(s), p the products of components, by linear least squares.

A Galerkin projection of an equation with quadratic terms (Navier-Stokes, Burgers, Kuramoto-Sivashinsky) is exactly of
this form. In integral form, s_{i+1} - s_i = [b A W] int [1, s, p(s)] dt, the unknowns enter linearly: the integral is
taken first along polynomials through neighbouring frames, then along the fitted flow itself, whose miss is what the
next fit explains (Gauss-Newton with the flow's own sensitivity left out). Times may be irregular.

With contexts c at the end of the states the unknowns are affine in them: their features are those above and each of
them times each context, W being left without contexts where it does not need them (a viscosity multiplies A alone).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrflow.dynamics.fields.quadratic import Products, leading_pairs, products_of
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.integral_form import by_observed_frames, interpolated_path
from inrflow.dynamics.states import CodeData
from inrflow.numerics.ridge import improves, leading_ridge

RIDGES = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
FIRST_RIDGES = (1e-6, 1e-4, 1e-2)
_SUBSTEP = 0.5  # of Runge-Kutta, internal time
_BLOCK = 2048
_CONSTANT = 100.0  # the bias is hardly penalised: its feature is that many times a typical component
_DAMPING = 1e-6


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
        grouped = list(by_observed_frames(states))
        self.groups, self.members = [(codes, t) for codes, t, _ in grouped], [rows for _, _, rows in grouped]
        self.transitions = sum(codes.shape[0] * (codes.shape[1] - 1) for codes, _ in self.groups)
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

    def interpolated(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of integrals (B, F) along interpolating polynomials, and changes (B, n) of the states."""
        for codes, t in self.groups:
            for k in range(codes.shape[1] - 1):
                for rows in torch.arange(len(codes)).split(_BLOCK):
                    path, weights = interpolated_path(codes[rows], t[rows], k)
                    total = sum(w * self.features(s) for w, s in zip(weights, path.float(), strict=True))
                    change = (codes[rows, k + 1] - codes[rows, k]).float()
                    yield total * (t[rows, k + 1] - t[rows, k])[:, None].float(), change

    def followed(self, theta: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of integrals (B, F) along the flow of `theta` (F, n), and the changes that theta should have made."""
        theta = theta.float()
        for codes, t in self.groups:
            for k in range(codes.shape[1] - 1):
                for rows in torch.arange(len(codes)).split(_BLOCK):
                    step = (t[rows, k + 1] - t[rows, k]).float()[:, None]
                    start = codes[rows, k].float()
                    end, total = self._runge_kutta(theta, start, step)
                    yield total, codes[rows, k + 1].float() - end + total @ theta

    def _runge_kutta(self, theta: Tensor, state: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        count = max(1, math.ceil(float(step.max()) / _SUBSTEP - 1e-6))
        h = step / count
        total = torch.zeros(len(state), len(theta))
        for _ in range(count):
            first = self.features(state)
            rate_1 = first @ theta
            second = self.features(state + h / 2 * rate_1)
            rate_2 = second @ theta
            third = self.features(state + h / 2 * rate_2)
            rate_3 = third @ theta
            fourth = self.features(state + h * rate_3)
            mean = (first + 2 * second + 2 * third + fourth) * (h / 6)
            total += mean
            state = state + mean @ theta
        return state, total

    # ---- contexts ----

    def solve_contexts(self, theta: Tensor, environment: Tensor, contexts: Tensor) -> Tensor:
        """Contexts (E, P) that explain best what the flow of `theta` misses; one step from those in the states.

        environment: (S,) number of each trajectory's.
        """
        count, dependent = self.contexts, 1 + self.size + (len(self.left) if self.coupled else 0)
        plain = 1 + self.size + len(self.left)
        directions = theta[plain:, : self.size].float().unflatten(0, (count, dependent))
        hessian = torch.zeros(len(contexts), count, count, dtype=torch.float64)
        gradient = torch.zeros(len(contexts), count, dtype=torch.float64)
        for (total, change), rows in zip(self.followed(theta), self._environments(environment), strict=True):
            missed = (change - total @ theta.float())[:, : self.size]
            moved = torch.einsum("bf,kfn->bkn", total[:, :dependent], directions)
            hessian.index_add_(0, rows, torch.einsum("bkn,bln->bkl", moved, moved).double())
            gradient.index_add_(0, rows, torch.einsum("bkn,bn->bk", moved, missed).double())
        damping = _DAMPING * hessian.diagonal(dim1=1, dim2=2).mean(1) + 1e-300
        hessian = hessian + damping[:, None, None] * torch.eye(count, dtype=torch.float64)
        return contexts + torch.linalg.solve(hessian, gradient[..., None])[..., 0]

    def _environments(self, environment: Tensor) -> Iterator[Tensor]:
        """The environments of the rows of each block, in the order in which blocks come."""
        for (codes, _), members in zip(self.groups, self.members, strict=True):
            for _ in range(codes.shape[1] - 1):
                for rows in torch.arange(len(codes)).split(_BLOCK):
                    yield environment[members[rows]]

    # ---- solves ----

    def solver(self, blocks: Iterator[tuple[Tensor, Tensor]]) -> Callable[[float], Tensor | None]:
        """From one pass over the blocks: ridge, relative to a component's mean square, to coefficients (F, n), float64.

        None where the ridge is too small for the precision of the sums.
        """
        linear = slice(1, 1 + self.size)
        design: Tensor | None = None
        if self.dual:  # fewer equations than unknowns: the same solution from the other side
            pairs = [(phi.double(), change.double()) for phi, change in blocks]
            design, right = (torch.cat(part) for part in zip(*pairs, strict=True))
            gram, strength = design @ design.T, float(design[:, linear].square().sum(0).mean())
        else:
            size = self.unknowns
            gram, right = torch.zeros(size, size), torch.zeros(size, self.size + self.contexts)
            for phi, change in blocks:
                gram.addmm_(phi.T, phi)
                right.addmm_(phi.T, change)
            right, strength = right.double(), float(gram.diagonal()[linear].mean())

        def solve(ridge: float) -> Tensor | None:
            regular = gram.to(torch.float64, copy=True)
            regular.diagonal().add_(ridge * strength)
            factor, failed = torch.linalg.cholesky_ex(regular)
            if int(failed):
                return None
            solution = torch.cholesky_solve(right, factor)
            return solution if design is None else design.T @ solution

        return solve

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
        """The best field by `judge`, an error; None where every one diverges."""
        best: QuadraticForm | None = None
        theta: Tensor | None = None
        chosen: tuple[float, ...] = ()
        for iteration in range(corrections + 1):
            solve = self.solver(self.interpolated() if theta is None else self.followed(theta))
            ridges = RIDGES if iteration else FIRST_RIDGES
            leading = leading_ridge(
                ((ridge, solve(ridge)) for ridge in ridges), lambda solution: judge(self.form(solution).field())
            )
            if leading is None or not improves(leading[0], None if best is None else best.score):
                break
            theta, chosen = leading[2], (*chosen, leading[1])
            best = self.form(theta, chosen, leading[0])
        return best

    def refit(self, ridges: tuple[float, ...]) -> QuadraticForm:
        """The field with the ridges that a search on other data has chosen."""
        theta: Tensor | None = None
        for ridge in ridges:
            solution = self.solver(self.interpolated() if theta is None else self.followed(theta))(ridge)
            theta = theta if solution is None else solution
        assert theta is not None
        return self.form(theta, ridges)
