"""Linear operators of local equations: sums of a few known matrices, one for each term and channel.

Of a linear operator on n codes a regression estimates n x n numbers, each with an error, and what depends on a context
errs more the farther the context lies from those of training. An equation with constant coefficients has a few numbers
in all, found from the same normal equations and refined along whole trajectories: over one step a field moves little
against the noise of its codes, and noise in the states that a regression starts from makes it too weak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import PeriodicEmbedding
from inrflow.dynamics.fields.fourier_grid import LocalBasis, has_local_basis
from inrflow.dynamics.fields.pde_terms import Term, isotropic_terms, linear_terms
from inrflow.dynamics.fitting.alternate import ContextFit, generators_at, in_gauge
from inrflow.dynamics.fitting.moments import Moments
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.states import CodeData
from inrflow.numerics.levenberg_marquardt import Linearisation, damped_descent
from inrflow.numerics.matrix_functions import flow
from inrflow.numerics.normal_equations import NormalEquations

#: Lists of linear terms, few first: without a preferred direction, and all.
LOCAL_LISTS = ("isotropic", "linear")

_MOST_VALUES = 2e7  # of all matrices
_NOTHING = 1e-9  # of what the strongest term does
_ROUNDING = 1e-14  # of normal equations with unit diagonal
_EACH = 12  # trajectories of every environment, along which coefficients are refined
_MOST = 24  # coefficients
_NEEDLESS = 1.05  # times the misfit, that needless coefficients may leave
_ROUNDS, _TRIES, _SETTLED = 6, 4, 0.999
_NUDGE = 1e-6
_DAMPING = 1e-10  # contexts and coefficients can be exchanged for each other: along that nothing is to be gained


class LocalOperators:
    """The span of operators [bias, matrix].

    Args:
        terms: linear ones, each of which drives each channel.
        matrices: (J, n, 1 + n) of the terms in turn, in the first channel, the second and so on.
    """

    def __init__(self, terms: Sequence[Term], matrices: Tensor) -> None:
        self.terms, self.matrices = tuple(terms), matrices

    @classmethod
    def of(cls, decoder: Decoder, terms: Sequence[Term], shift: Tensor | None = None) -> LocalOperators | None:
        """Those of the codes of a decoder, of values plus a shift (C,); None where it has no derivatives in closed form
        (`has_local_basis`), or codes are so many that they would fill the memory."""
        if not has_local_basis(decoder):
            return None
        channels = len(terms) * decoder.channels
        if channels * decoder.code_size**2 > _MOST_VALUES:
            return None
        basis = LocalBasis(decoder, torch.zeros(decoder.channels, dtype=torch.float64) if shift is None else shift)
        matrices = []
        for term in terms:
            for out in range(basis.channels):
                if term:
                    matrix, bias = basis.linear(term[0], out)
                else:
                    bias = basis.unity(out)
                    matrix = bias.new_zeros(len(bias), len(bias))
                matrices.append(torch.cat([bias[:, None], matrix], 1))
        return cls(terms, torch.stack(matrices))

    @classmethod
    def lists(cls, decoder: Decoder, shift: Tensor | None = None) -> dict[str, LocalOperators]:
        """Those of all lists of terms by their names."""
        if not has_local_basis(decoder):
            return {}
        embedding = decoder.embedding
        assert isinstance(embedding, PeriodicEmbedding)
        several = isotropic_terms(decoder.channels), linear_terms(decoder.channels, len(embedding.period))
        spans = {name: cls.of(decoder, terms, shift) for name, terms in zip(LOCAL_LISTS, several, strict=True)}
        return {name: one for name, one in spans.items() if one is not None}

    def truncated(self, size: int) -> LocalOperators:
        """On the first `size` codes."""
        return LocalOperators(self.terms, self.matrices[:, :size, : size + 1])

    def operators(self, coefficients: Tensor) -> Tensor:
        """Operators (1 + P, n, m) of coefficients (1 + P, J)."""
        return torch.einsum("kj,jnm->knm", coefficients, self.matrices)

    def equation(self, operators: Tensor) -> LocalEquation:
        """The equation whose operators (1 + P, n, m) these are."""
        flat = self.matrices.flatten(1)
        unit = flat.norm(dim=1, keepdim=True).clamp(min=1e-300)
        scaled = flat / unit
        normal = scaled @ scaled.T + _ROUNDING * torch.eye(len(flat), dtype=flat.dtype)
        does = torch.linalg.solve(normal, scaled @ operators.flatten(1).T).T
        does = torch.where(does.abs() > _NOTHING * does.abs().max(), does, 0.0)
        return LocalEquation(self.terms, (does / unit[:, 0]).unflatten(1, (len(self.terms), -1)))

    def solve(self, gram: Tensor, target: Tensor, contexts: Tensor, ridge: float) -> Tensor:
        """Operators (1 + P, n, m) of this span that solve the normal equations gram (E, m, m), target (E, n, m) at
        contexts (E, P) best; the ridge is relative to what each matrix does."""
        scaled, right, unit = self.normal_equations(gram, target, contexts)
        scaled.diagonal().add_(ridge)
        coefficients = torch.linalg.solve(scaled, right) / unit
        return self.operators(coefficients.unflatten(0, (-1, len(self.matrices))))

    def normal_equations(self, gram: Tensor, target: Tensor, contexts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the coefficients, in units in which the diagonal is 1 but for rounding: matrix ((1 + P) J, (1 + P) J),
        right side and units ((1 + P) J,), by which a solution is divided."""
        weights = torch.cat([contexts.new_ones(len(contexts), 1), contexts], 1)
        parts, count = weights.shape[1], len(self.matrices)
        flat = self.matrices.flatten(1)
        normal = gram.new_zeros(parts, count, parts, count)
        for k in range(parts):
            for other in range(k, parts):
                both = torch.einsum("e,eij->ij", weights[:, k] * weights[:, other], gram)
                inner = torch.stack([flat @ (one @ both).flatten() for one in self.matrices], 1)
                normal[other, :, k], normal[k, :, other] = inner, inner.T
        right = torch.einsum("ek,enm,jnm->kj", weights, target, self.matrices).flatten()
        matrix = normal.reshape(parts * count, parts * count)
        unit = matrix.diagonal().clamp(min=1e-300).sqrt()
        scaled = matrix / unit / unit[:, None]
        scaled.diagonal().add_(_ROUNDING)
        return scaled, right / unit, unit


def needed_coefficients(local: LocalOperators, fit: ContextFit, moments: Moments) -> Tensor:
    """Coefficients (1 + P, J) of a fit by backward elimination: 0 for those without which the transitions are explained
    about as well by the others."""
    gram, target, error = moments.about(fit.generators())
    scaled, right, unit = local.normal_equations(gram, target, fit.contexts)
    explained = float(torch.linalg.solve(scaled, right) @ right)
    equations = NormalEquations.empty(len(right), 0)
    equations.gram, equations.right = scaled, right
    equations.square = explained + float(error.sum())
    kept = equations.needed(scaled.diagonal() > 0.5, False, _NEEDLESS)  # 1, or next to 0 where a matrix is zero
    return (equations.solve(kept, False) / unit).unflatten(0, (-1, len(local.matrices)))


def refined_along(
    local: LocalOperators, fit: ContextFit, moments: Moments, data: CodeData, environment: Tensor
) -> ContextFit:
    """The fit, of operators in the span of `local`, whose flow is nearest to whole trajectories.

    Unchanged where more than a few coefficients are needed, or an environment has no trajectory without gaps.

    Args:
        moments: of the transitions, by which the coefficients that are needed are chosen.
        data, environment: trajectories (S, T, n), of which the first few are used, and the environment (S,) of each.
    """
    size = fit.operators.shape[1]
    whole = _trajectories(data, environment, len(fit.contexts), size)
    coefficients = needed_coefficients(local, fit, moments)
    kept = coefficients != 0
    shared = int(kept.sum())
    if whole is None or not 0 < shared <= _MOST:
        return fit

    def field(values: Tensor) -> tuple[Tensor, Tensor]:
        full = torch.zeros_like(coefficients)
        full[kept] = values[:shared]
        return local.operators(full), values[shared:].reshape(fit.contexts.shape)

    def residuals(values: Tensor, only: int | None = None) -> list[Tensor]:
        generators = generators_at(*field(values))
        return [one.residual(generators[e]) for e, one in enumerate(whole) if only is None or e == only]

    def objective(values: Tensor) -> float:
        return sum(float(one.square().sum()) for one in residuals(values))

    def linearise(values: Tensor, _: bool) -> Linearisation[Tensor]:
        now = residuals(values)
        tangents = torch.stack([column(values, place, now) for place in range(len(values))], 1)
        unit = tangents.norm(dim=0).clamp(min=1e-300)
        gram, right = (tangents / unit).T @ (tangents / unit), (tangents / unit).T @ torch.cat(now)
        return Linearisation(
            float(torch.cat(now).square().sum()),
            lambda damping: values - torch.linalg.solve(gram + damping * torch.eye(len(gram)), right) / unit,
        )

    def column(values: Tensor, place: int, now: list[Tensor]) -> Tensor:
        """Derivative of all residuals by a value; a context moves those of its environment alone."""
        only = None if place < shared else (place - shared) // fit.contexts.shape[1]
        nudge = _NUDGE * (float(values[place].abs()) if only is None else 1.0)
        moved = residuals(values.index_add(0, torch.tensor([place]), values.new_tensor([nudge])), only)
        if only is None:
            return (torch.cat(moved) - torch.cat(now)) / nudge
        parts = [torch.zeros_like(one) for one in now]
        parts[only] = (moved[0] - now[only]) / nudge
        return torch.cat(parts)

    start = torch.cat([coefficients[kept], fit.contexts.flatten()])
    best, _ = damped_descent(
        start, linearise, objective, steps=_ROUNDS, tries=_TRIES, damping=_DAMPING, raised=100.0, least=_DAMPING,
        settled=_SETTLED,
    )
    return in_gauge(ContextFit(*field(best), fit.residual))


@dataclass(frozen=True)
class _Whole:
    """Trajectories of one environment: states (B, T, 1 + n) from the first frame on, at times (B, T)."""

    states: Tensor
    t: Tensor

    def residual(self, generator: Tensor) -> Tensor:
        """All later frames without the flow of a generator, as a vector."""
        gaps = self.t[:, 1:] - self.t[:, :-1]
        uniform = bool((gaps - gaps[0, 0]).abs().max() < 1e-6 * gaps[0, 0].abs())
        one = torch.linalg.matrix_exp(generator * gaps[0, 0]) if uniform else None
        state, apart = self.states[:, 0], []
        for i in range(gaps.shape[1]):
            state = state @ one.T if one is not None else flow(generator, state, gaps[:, i])
            apart.append(self.states[:, i + 1] - state)
        return torch.stack(apart, 1).flatten()


def _trajectories(data: CodeData, environment: Tensor, count: int, size: int) -> list[_Whole] | None:
    """Fully observed trajectories of every environment, None where one has none."""
    result = []
    for e in range(count):
        rows = ((environment == e) & data.observed.all(1)).nonzero()[:_EACH, 0]
        if not len(rows) or data.codes.shape[1] < 2:
            return None
        states = torch.nn.functional.pad(data.codes[rows, :, :size].double(), (1, 0), value=1.0)
        result.append(_Whole(states, data.t[rows].double()))
    return result
