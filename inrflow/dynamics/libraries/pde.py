"""A local equation: the rate of each channel at a point is a sum of a few terms of what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fields.local import LocalProducts
from inrflow.dynamics.fields.pde_terms import Term, name_of
from inrflow.dynamics.fields.sum import VectorField


@dataclass(frozen=True)
class LocalEquation:
    """du_c/dt = sum_j w_jc term_j(u) + force, of normalised values plus a shift, in internal time.

    Attributes:
        terms: J, among them linear ones and the constant ().
        weights: (J, C), or (1 + P, J, C) with what each of P contexts adds; 0 where a term is not needed.
        force: (Z,) a constant rate of every code, what a force that depends on the place does; None for none.
    """

    terms: tuple[Term, ...]
    weights: Tensor
    force: Tensor | None = None

    @property
    def several(self) -> Tensor:
        """Weights (1 + P, J, C)."""
        return self.weights if self.weights.dim() == 3 else self.weights[None]

    @property
    def kept(self) -> Tensor:
        """Which coefficients (J C,) are needed."""
        return (self.several != 0).any(0).flatten()

    @property
    def count(self) -> int:
        """Number of terms of all channels."""
        return int(self.kept.sum())

    @property
    def linear(self) -> bool:
        """Whether no product of factors is needed."""
        needed = (self.several != 0).any(0).any(1).tolist()
        return not any(kept and len(term) > 1 for kept, term in zip(needed, self.terms, strict=True))

    @property
    def coefficients(self) -> int:
        """Number of coefficients that are not 0, what contexts add among them."""
        return int((self.weights != 0).sum())

    def field(self, basis: LocalBasis) -> VectorField:
        """The vector field (float64) of codes of this basis."""
        weights, size = self.several, basis.code_size
        needed = (weights != 0).any(0)  # (J, C)
        products = [j for j, term in enumerate(self.terms) if len(term) > 1 and bool(needed[j].any())]
        field = VectorField.of(
            size, local=[self.terms[j] for j in products], channels=basis.channels, context_size=len(weights) - 1
        ).double()
        matrices = torch.zeros(len(weights), size, size, dtype=torch.float64)
        biases = torch.zeros(len(weights), size, dtype=torch.float64)
        for j, term in enumerate(self.terms):
            for out in needed[j].nonzero()[:, 0].tolist() if len(term) < 2 else ():
                if term:
                    matrix, bias = basis.linear(term[0], out)
                    matrices += weights[:, j, out, None, None] * matrix
                else:
                    bias = basis.unity(out)
                biases += weights[:, j, out, None] * bias
        if self.force is not None:
            biases[0] += self.force
        field.set_linear(matrices[0], biases[0])
        if field.context_size:
            field.set_context_linear(matrices[1:], biases[1:])
        if products:
            local = field.term(LocalProducts)
            local.set(weights[:, products])
            local.attach(basis)
        return field

    def written(self, channels: Sequence[str], coordinates: Sequence[str], units: Sequence[float]) -> list[str]:
        """One line a channel, as a reader would write it, weights in the given units of each channel and of time.

        units: scale of each channel, and at the end the internal time unit in the data's.
        """
        scale, lines = list(units[:-1]), []
        for c, name in enumerate(channels):
            parts = []
            for j, term in enumerate(self.terms):
                weight = float(self.several[0, j, c])
                if weight:
                    for factor in term:
                        weight /= scale[factor.channel]
                    term_name = name_of(term, channels, coordinates) if term else ""
                    parts.append(f"{weight * scale[c] / units[-1]:+.4g} {term_name}".rstrip())
            if self.force is not None:
                parts.append("+ force(place)")
            lines.append(f"d{name}/dt = {' '.join(parts) or '0'}".replace("= +", "= "))
        return lines
