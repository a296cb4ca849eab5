"""Linear operators of local equations: sums of a few known matrices, one for each term and channel.

Of a linear operator on n codes a regression estimates n x n numbers, each with an error, and what depends on a context
errs more the farther the context lies from those of training. An equation with constant coefficients has a few numbers
in all, which all transitions determine together. They are found from the same normal equations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import PeriodicEmbedding
from inrflow.dynamics.libraries.fourier_grid import LocalBasis, has_local_basis
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.libraries.pde_terms import Term, isotropic_terms, linear_terms

#: Lists of linear terms, few first: without a preferred direction, and all.
LOCAL_LISTS = ("isotropic", "linear")

_MOST_VALUES = 2e7  # of all matrices
_NOTHING = 1e-9  # of what the strongest term does
_ROUNDING = 1e-14  # of normal equations with unit diagonal


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
        found = {name: cls.of(decoder, terms, shift) for name, terms in zip(LOCAL_LISTS, several, strict=True)}
        return {name: one for name, one in found.items() if one is not None}

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
        found = torch.linalg.solve(scaled, right) / unit
        return self.operators(found.unflatten(0, (-1, len(self.matrices))))

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
