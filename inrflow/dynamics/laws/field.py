"""LawField: dz/dt of codes on harmonics, a sum of terms projected by quadrature, and its exponential integrator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inrflow.domains import Harmonics
from inrflow.dynamics.laws.terms import POTENTIAL, VALUE, Term
from inrflow.numerics import etdrk4

_MOST_STEPS = 2**14  # of one interval
_CONSTANT = 1e-8  # eigenvalues below belong to the constant
_BOUND = 30.0  # codes beyond so many times the largest ones of the data have left what the law was fitted to


class Library(nn.Module):
    """Terms on K harmonics of a domain: their rates, one by one, as projections on harmonics."""

    values: Tensor
    slopes: Tensor
    project: Tensor
    eigenvalues: Tensor
    derivative: Tensor

    def __init__(self, terms: Sequence[Term], harmonics: Harmonics):
        super().__init__()
        self.terms = tuple(terms)
        degree = max([2, *(len(product) for term in terms for product in term.products)])
        rule = harmonics.quadrature(degree)
        used = any(axis != VALUE for term in terms for product in term.products for _, axis in product)
        odd = any(term.axis != VALUE for term in terms)
        self.register_buffer("values", torch.tensor(rule.values))  # (Q, K)
        self.register_buffer("slopes", torch.tensor(rule.gradients).permute(2, 0, 1).contiguous()
                             if used or odd else torch.zeros(0, *rule.values.shape, dtype=torch.float64))  # (d, Q, K)
        self.register_buffer("project", torch.tensor((rule.values * rule.weights[:, None]).T.copy()))  # (K, Q)
        self.register_buffer("eigenvalues", torch.tensor(harmonics.eigenvalues))
        if odd:
            self.register_buffer("derivative", self.project @ self.slopes)  # (d, K, K)

    def at_points(self, z: Tensor, terms: Sequence[Term]) -> dict[tuple[int, int], Tensor]:
        """The factors (channel, axis) that terms need, of codes (B, C, K), at quadrature points: (B, Q) each."""
        needed = {factor for term in terms for product in term.products for factor in product}
        result: dict[tuple[int, int], Tensor] = {}
        for axis in sorted({axis for _, axis in needed}):
            channels = sorted(c for c, a in needed if a == axis)
            fields = z[:, channels] @ self.table(axis).T
            result |= {(c, axis): fields[:, i] for i, c in enumerate(channels)}
        return result

    def table(self, axis: int) -> Tensor:
        """Harmonics (Q, K) at quadrature points, as a factor of an axis has them."""
        if axis == VALUE:
            return self.values
        if axis < POTENTIAL:
            return self.slopes[axis]
        inverse = torch.where(self.eigenvalues > _CONSTANT, -1 / self.eigenvalues.clamp_min(_CONSTANT), 0.0)
        return self.slopes[axis - POTENTIAL] * inverse

    def symbol(self, power: int, rows: int | None = None) -> Tensor:
        """lap^power on the first harmonics (all): (rows,)."""
        return (-self.eigenvalues[:rows]) ** power

    def features(self, z: Tensor, rows: int) -> Tensor:
        """Every term of codes (B, C, K) on the first harmonics: (B, J, rows)."""
        result = z.new_zeros(len(z), len(self.terms), rows)
        products = [term for term in self.terms if not term.linear]
        factors = self.at_points(z, products)
        for j, term in enumerate(self.terms):
            if term.linear:
                codes = self.symbol(term.power) * z[:, term.products[0][0][0]]
                result[:, j] = codes[:, :rows] if term.axis == VALUE else codes @ self.derivative[term.axis][:rows].T
        pointwise = [_pointwise(term, factors, z, self.values) for term in products]
        if products:
            projected = torch.stack(pointwise, 1) @ self.project[:rows].T
            places = [j for j, term in enumerate(self.terms) if not term.linear]
            for i, j in enumerate(places):
                power = self.terms[j].power
                result[:, j] = projected[:, i] * self.symbol(power, rows) if power else projected[:, i]
        return result


def _pointwise(term: Term, factors: dict[tuple[int, int], Tensor], z: Tensor, table: Tensor) -> Tensor:
    total: Tensor | None = None
    for product, sign in zip(term.products, term.signs or (1,) * len(term.products), strict=True):
        value: Tensor | None = None
        for factor in product:
            value = factors[factor] if value is None else value * factors[factor]
        value = z.new_ones(len(z), len(table)) if value is None else value
        total = value if total is None else torch.add(total, value, alpha=sign)
    assert total is not None
    return total


class LawField(nn.Module):
    """dz/dt = sum_j theta_jc term_j(z), codes (..., C K); linear terms in blocks, which `advance` exponentiates."""

    theta: Tensor

    def __init__(self, library: Library, theta: Tensor):
        super().__init__()
        active = [j for j in range(len(library.terms)) if bool((theta[j] != 0).any())]
        self.library, self.channels = library, theta.shape[1]
        self.register_buffer("theta", theta)
        self._linear = [j for j in active if library.terms[j].linear]
        self._products = [j for j in active if not library.terms[j].linear]
        self._cache: dict[float, list[Tensor]] = {}
        self.blocks = self._blocks()

    @property
    def size(self) -> int:
        """Number of codes C K."""
        return self.channels * len(self.library.eigenvalues)

    def _blocks(self) -> Tensor:
        """The linear part: (K, C, C), or one matrix (1, C K, C K) where odd derivatives couple harmonics."""
        library, count = self.library, len(self.library.eigenvalues)
        if not any(library.terms[j].axis != VALUE for j in self._linear):
            blocks = self.theta.new_zeros(count, self.channels, self.channels)
            for j in self._linear:
                term = library.terms[j]
                blocks[:, :, term.products[0][0][0]] += library.symbol(term.power)[:, None] * self.theta[j]
            return blocks
        dense = self.theta.new_zeros(self.channels, count, self.channels, count)
        for j in self._linear:
            term = library.terms[j]
            matrix = torch.diag(library.symbol(term.power))
            if term.axis != VALUE:
                matrix = library.derivative[term.axis] @ matrix
            dense[:, :, term.products[0][0][0]] += self.theta[j][:, None, None] * matrix
        return dense.reshape(1, self.size, self.size)

    @property
    def coupled(self) -> bool:
        """Whether `blocks` are one matrix of all codes."""
        return len(self.blocks) == 1 and self.blocks.shape[-1] == self.size

    def _act(self, blocks: Tensor, z: Tensor) -> Tensor:
        """Blocks (K, C, C) or (1, C K, C K) on codes (B, C, K)."""
        if self.coupled:
            return (z.reshape(len(z), -1) @ blocks[0].T).reshape(z.shape)
        return torch.einsum("kdc,bck->bdk", blocks, z)

    def products(self, z: Tensor) -> Tensor:
        """The terms that are not in `blocks`, of codes (B, C, K)."""
        library = self.library
        terms = [library.terms[j] for j in self._products]
        total = torch.zeros_like(z)
        if not terms:
            return total
        factors = library.at_points(z, terms)
        sums: dict[int, list[Tensor | None]] = {}
        for j, term in zip(self._products, terms, strict=True):
            value = _pointwise(term, factors, z, library.values)
            group = sums.setdefault(term.power, [None] * self.channels)
            for c in range(self.channels):
                if self.theta[j, c] != 0:
                    part = value * self.theta[j, c]
                    before = group[c]
                    group[c] = part if before is None else before.add_(part)
        for power, group in sums.items():
            for c, field in enumerate(group):
                if field is not None:
                    codes = field @ library.project.T
                    total[:, c] += codes if not power else codes * library.symbol(power)
        return total

    def forward(self, t: Tensor | float, z: Tensor) -> Tensor:
        """Rates (..., C K) of codes (..., C K); the law does not depend on time."""
        codes = z.reshape(-1, self.channels, len(self.library.eigenvalues)).to(self.theta.dtype)
        rate = self._act(self.blocks, codes) + self.products(codes)
        return rate.reshape(z.shape).to(z.dtype)

    def growth(self) -> float:
        """Largest real part of the linear part's eigenvalues, 1 / time."""
        return float(torch.linalg.eigvals(self.blocks).real.max())

    def _coefficients(self, h: float) -> list[Tensor]:
        if h not in self._cache:
            self._cache = {**dict(list(self._cache.items())[-3:]),
                           h: etdrk4.coefficients(self.blocks, h, etdrk4.phi_matrix_functions)}
        return self._cache[h]

    @torch.no_grad()
    def advance(self, z: Tensor, dt: float, steps: int) -> Tensor:
        """Codes (B, C K) after a time dt, by ETDRK4 in equal steps: exact in the linear part."""
        operators = self._coefficients(dt / steps)
        now = z.reshape(len(z), self.channels, -1)
        for _ in range(steps):
            now = etdrk4.step(now, operators, self._act, self.products)
        return now.reshape(z.shape)

    def bounded(self, z: Tensor, dt: float, step: float, largest: float) -> Tensor:
        """Codes (B, C K) after a time dt in steps of at most `step`; NaN where these are too many, or codes far beyond
        the `largest` norm of the data's.
        """
        steps = max(math.ceil(abs(dt) / step - 1e-9), 1)
        if steps > _MOST_STEPS:
            return torch.full_like(z, math.nan)
        later = self.advance(z, dt, steps) if dt else z
        return torch.where(torch.linalg.vector_norm(later, dim=-1, keepdim=True) < _BOUND * largest, later, math.nan)
