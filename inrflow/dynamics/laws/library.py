"""Library: the terms of a law on a domain's harmonics, each projected on these by quadrature."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.domains import HELD, Harmonics
from inrflow.domains.box import BoxHarmonics
from inrflow.domains.transform import (
    DenseTransform,
    Pressure,
    SeparableTransform,
    inverse_of,
    pointwise,
    shells_of,
    single_precision,
    sums_over,
    transform_of,
    varying,
)
from inrflow.dynamics.laws.network.sine import Layer, Sine
from inrflow.dynamics.laws.terms import (
    DARCY,
    INVERSE,
    LAPLACIAN,
    OF_LAP,
    OTHER_HARMONICS,
    POTENTIAL,
    SECOND,
    VALUE,
    Product,
    Term,
    is_function,
)
from inrflow.numerics.kinetics import RECIPROCAL, values_and_slopes

COEFFICIENT_HARMONICS = 64  # low harmonics of coefficients that vary in space
_SINE, _AT_ONCE = 16, 2**20  # elementwise operations that a sine costs; values of fields that are projected together
LIBRARIES: dict[type, type[Library]] = {}  # by class of harmonics; `Library` for others


class Library(nn.Module):
    """Terms on K harmonics of a domain, as projections of rates of codes; units of a network are evaluated together."""

    eigenvalues: Tensor
    families: Tensor | None = None  # (C, K): `allowed` of harmonics and a row of steady ones; `moving` without
    moving: Tensor | None = None
    from_steady: Tensor | None = None  # (K, R): projections of the steady modes
    network: Layer | None = None
    about: Tensor | None = None  # (V, C): values about which nonlinear diffusion is linearised
    single = False  # whether rates are evaluated in single precision on large meshes
    field: ClassVar[type | None] = None  # class of vector fields, if not `LawField`
    diagnostic: ClassVar[type | None] = None  # class of diagnostic channels, if not `DiagnosticField`

    @classmethod
    def of(cls, terms: Sequence[Term | Sine], harmonics: Harmonics) -> Library:
        """Library of terms on harmonics of a domain, or on modes of flows."""
        return LIBRARIES.get(type(harmonics), cls)(terms, harmonics)

    def __init__(self, terms: Sequence[Term | Sine], harmonics: Harmonics):
        super().__init__()
        self.terms = tuple(terms)
        self.sines = [j for j, term in enumerate(terms) if isinstance(term, Sine)]
        degree = max([3 if self.sines else 2, *(len(product) + (term.place > 0) for term in terms
                                                for product in term.products)])
        self.harmonics, self.transform = harmonics, transform_of(harmonics, degree)
        self.points, self._pressures = self.transform.count, dict[int, Pressure]()
        self.register_buffer("eigenvalues", torch.tensor(harmonics.eigenvalues))
        self.first_steady = len(self.eigenvalues) - harmonics.steady
        self.families = self.moving = None if harmonics.allowed is None else torch.tensor(harmonics.allowed)
        if harmonics.steady:
            moving = torch.arange(len(self.eigenvalues)) < self.first_steady
            self.moving = moving[None] if self.families is None else self.families & moving
            self.families = torch.cat([self.moving, ~moving[None]])
            carried = self.transform.fields(torch.eye(len(moving)).double()[self.first_steady :])
            self.from_steady = (self.transform.project(carried) * moving).T
        self.low: Tensor | None = None  # (P, Q), with 1 in place of the constant harmonic of arbitrary sign
        if places := max((term.place for term in terms), default=0):
            low = harmonics.lowest(COEFFICIENT_HARMONICS).values(self.transform.points).T
            self.low = torch.tensor(np.insert(low[1 : places + 1], 0, 1.0, 0))
        if self.sines:
            sines = [term for term in terms if isinstance(term, Sine)]
            self.network = Layer(sines, self.transform, self.eigenvalues)

    def with_terms(self, terms: Sequence[Term | Sine]) -> Library:
        """Library of terms that differ from its own in constants of functions alone."""
        library = self if terms == self.terms else copy.copy(self)
        library.terms = tuple(terms)
        return library

    def in_single_precision(self) -> Library:
        """Library of the same terms with a large dense transform in single precision."""
        library = copy.copy(self)
        library._modules = {**self._modules, "transform": single_precision(self.transform)}
        library.network = self.network and self.network.by(library.transform)
        return library

    def shells(self, count: int) -> np.ndarray:
        """Indices (K,) of shells of the first harmonics: groups with the same channels, wider the higher they are."""
        return shells_of(count, self.families)

    def _factor(self, axis: int) -> tuple[Tensor | float, int]:
        """Multiplier of codes for a factor with an axis, and axis of the derivative that remains."""
        if axis == OTHER_HARMONICS or is_function(axis):
            return 1.0, VALUE
        if axis >= OF_LAP or axis == LAPLACIAN:
            return self.symbol(1), axis - OF_LAP if axis >= OF_LAP else VALUE
        if POTENTIAL <= axis < RECIPROCAL:
            return inverse_of(self.eigenvalues), axis - POTENTIAL
        return 1.0, axis

    def table(self, axis: int, lead: int | None = None) -> Tensor:
        """The first harmonics (all) at quadrature points, as they enter a factor with an axis: (Q, lead)."""
        if SECOND <= axis < OF_LAP or axis >= DARCY:
            return self._wide(torch.eye(len(self.eigenvalues)).double()[:lead], axis).T
        symbol, along = self._factor(axis)
        table = self.transform.table(along, lead)
        return table * symbol[:lead].to(table) if isinstance(symbol, Tensor) else table

    def _wide(self, codes: Tensor, axis: int) -> Tensor:
        """Factors (..., Q) of codes (..., K): second derivatives on a box, or components of flows in porous media."""
        if axis < DARCY:
            assert isinstance(self.transform, SeparableTransform)
            return self.transform.second(codes, *divmod(axis - SECOND, 3))
        i, j = divmod(axis - DARCY, 3)
        flows = self._darcy_flows
        return (self.transform.fields(codes) * self.transform.weights) @ flows[i] @ flows[j].T

    @cached_property
    def _darcy_flows(self) -> Tensor:
        """Orthonormal flows (2, Q, K) at quadrature points of a box in the plane, without divergence and flux through
        walls: curls of stream functions that vanish there."""
        assert isinstance(self.harmonics, BoxHarmonics)
        streams = self.harmonics.box.harmonics(len(self.eigenvalues), HELD)
        slopes = torch.tensor(streams.gradients(self.transform.points)).permute(2, 0, 1)
        return torch.stack([slopes[1], -slopes[0]]) * (-inverse_of(torch.tensor(streams.eigenvalues))).sqrt()

    def apply_linear(self, term: Term, codes: Tensor) -> Tensor:
        """A linear term of constant coefficient, without the part of steady codes, of codes (..., K): (..., K)."""
        codes = self.filter(term) * codes
        if term.axis == VALUE:
            return codes
        i, j = divmod(term.axis - SECOND, 3) if term.axis >= SECOND else (term.axis, -1)
        if term.axis >= SECOND and not term.power:  # weak form, without flux through natural walls
            if isinstance(self.transform, DenseTransform):  # as a matrix, which is smaller than tables
                return codes @ self.transform.second(i, j).to(codes)
            slopes = (self.transform.project(self.transform.fields(codes, a), b) for a, b in ((i, j), (j, i)))
            return -0.5 * sum(slopes, torch.zeros(()))
        return self.transform.derive(codes, i, *(() if j < 0 else (j,)))

    def carried(self, codes: Tensor) -> Tensor | float:
        """Contribution (B, K) of steady modes to the projected values of a channel with codes (B, K)."""
        return 0.0 if self.from_steady is None else codes[:, self.first_steady :] @ self.from_steady.T

    def masked(self, codes: Tensor, channel: int) -> Tensor:
        """Codes (..., lead) of the first harmonics, set to zero on harmonics that the channel does not have."""
        return codes if self.moving is None else codes * self.moving[channel % len(self.moving), : codes.shape[-1]]

    def projected(self, table: Tensor, lead: int | None = None, axis: int = VALUE) -> Tensor:
        """Projections (..., lead, n) on the first harmonics (all), or their derivatives, of fields (..., Q, n)."""
        design = self.table(axis, lead) * self.transform.weights[:, None]
        return (design.T @ table.to(design)).to(self.eigenvalues)

    def needed(self, terms: Iterable[Term]) -> dict[int, list[int]]:
        """Factors that terms need, the linear ones excepted, at quadrature points: channels by axis."""
        factors = {factor for term in terms if not term.linear for product in term.needed_products()
                   for factor in product}
        return {axis: sorted(c for c, a in factors if a == axis) for axis in sorted({axis for _, axis in factors})}

    def factors_at_points(self, z: Tensor, needed: dict[int, list[int]]) -> dict[tuple[int, int], Tensor]:
        """Factors (channel, axis), given as channels by axis: fields (B, Q) of codes (B, C, K)."""
        result: dict[tuple[int, int], Tensor] = {}
        for axis, channels in needed.items():
            if axis == INVERSE:
                fields = 1 / torch.as_tensor(self.transform.points)[None, :, channels].mT
            else:
                first, last = channels[0], channels[-1] + 1
                codes = z[:, first:last] if last - first == len(channels) else z[:, channels]
                if SECOND <= axis < OF_LAP or axis >= DARCY:
                    fields = self._wide(codes, axis)
                else:
                    symbol, along = self._factor(axis)
                    fields = self.transform.fields(codes * symbol if isinstance(symbol, Tensor) else codes, along)
            if is_function(axis):
                fields, slopes = values_and_slopes(axis, fields)
                result |= zip(((c, -axis) for c in channels), slopes.unbind(1), strict=True)
            result |= zip(((c, axis) for c in channels), fields.unbind(1), strict=True)
        return result

    def symbol(self, power: float, rows: int | None = None) -> Tensor:
        """Multipliers (rows,) of the first harmonics (all) by lap^power, by (-lap)^power of fractions."""
        if power < 0:
            return inverse_of(self.eigenvalues)[:rows]
        if power % 1:
            return self.eigenvalues[:rows].clamp_min(0.0) ** power
        return (-self.eigenvalues[:rows]) ** int(power)

    def filter(self, term: Term, rows: int | None = None) -> Tensor:
        """Multipliers (rows,) of the first harmonics (all) by which a term acts on its products."""
        symbol = self.symbol(term.power, rows)
        symbol = symbol / (1 + term.inertia * self.eigenvalues[:rows]) if term.inertia else symbol
        if term.across is not None and (allowed := self.harmonics.allowed) is not None:
            symbol = symbol * torch.tensor(~allowed[term.across % len(allowed)])[:rows]
        return symbol * varying(self.eigenvalues)[:rows] if term.centred else symbol

    def work(self, states: int, rows: int) -> tuple[float, float, float]:
        """Products, elements and calls of `features` without weights, in the sense of `effort.add`."""
        terms, points = len(self.terms), self.transform.count
        return (2 * terms * states * self.transform.products,
                (4 * terms * (points + rows) + _SINE * len(self.sines) * points) * states, 10 * terms)

    def features(self, z: Tensor, rows: int, weights: Tensor | None = None) -> Tensor:
        """Each term of codes (B, C, K), projected on the first harmonics: (B, J, rows).

        With weights (W, N), their sums over every N codes in a row: (W B / N, J, rows), at the cost of that many
        projections.
        """
        summed = sums_over(z, weights)
        result = z.new_zeros(len(summed), len(self.terms), rows)
        groups: dict[Term, list[int]] = {}
        for j, term in enumerate(self.terms):
            if isinstance(term, Term):
                groups.setdefault(term.base, []).append(j)
        if self.network is not None:
            result[:, self.sines] = self.network.features(z, rows, weights)
        factors = self.factors_at_points(z, self.needed(groups))
        known: dict[tuple, list[Tensor]] = {}
        waiting: dict[int, list[tuple[list[int], Tensor]]] = {}  # by axis: terms and their fields (B, n, Q)

        def project(axis: int) -> None:
            members, fields = zip(*waiting.pop(axis), strict=True)
            result.index_add_(1, torch.tensor(sum(members, [])), self.transform.project(
                torch.cat(fields, 1), axis, rows))

        for term, members in groups.items():
            places = [self.terms[j].place for j in members]
            if term.solenoidal:
                result[:, members] = self.solenoidal(term, factors, known, weights)[:, None, :rows]
            elif term.linear and not term.flux and not any(places):
                own = summed[:, term.products[0][0][0]]
                codes = self.apply_linear(term, own)
                codes = codes if term.power or term.axis != VALUE else codes + self.carried(own)
                result[:, members[0]] = codes[:, :rows]
            else:
                for part in self.parts(term):
                    low = self.low[places] if self.low is not None and any(places) else 1.0
                    field = part.sign * sums_over(self.field_of(part, factors, z), weights)
                    same = waiting.setdefault(part.axis, [])
                    same.append((members, field[:, None] * low))
                    if sum(fields.numel() for _, fields in same) > _AT_ONCE:
                        project(part.axis)
        for axis in [*waiting]:
            project(axis)
        for term, members in groups.items():
            if term.filtered and not (term.linear or term.solenoidal):
                result[:, members] *= self.filter(term, rows)
        result[..., self.first_steady :] = 0.0
        return result

    def parts(self, term: Term) -> list[Part]:
        """Fields that make up a term: it is the sum of their projections; unless it is linear, its filter is still to
        be applied."""
        if term.linear and not term.flux:
            return [Part(term, along=term.axis, symbol=self.filter(term) if term.filtered else None)]
        if term.linear:
            axes = range(self.transform.points.shape[1]) if term.axis == VALUE else (VALUE,)
            return [Part(term, max(axis, term.axis), -1.0, along=axis) for axis in axes]
        if term.flux:
            return [Part(term, axis, -1.0, (product,)) for axis, product in term.along]
        return [Part(term, products=term.products)]

    def field_of(self, part: Part, factors: dict[tuple[int, int], Tensor], z: Tensor) -> Tensor:
        """Field (B, Q) of a part, without its sign, from factors at points and codes (B, C, K)."""
        if not part.products:
            codes = z[:, part.term.products[0][0][0]]
            return self.transform.fields(codes if part.symbol is None else part.symbol * codes, part.along)
        field = pointwise(part.products, () if part.term.flux else part.term.signs, factors, z, self.points)
        return field * size_of(part.term, factors) if part.term.vector else field

    def pressure(self, first: int) -> Pressure:
        """Projection on divergence-free vectors, for the vector whose first component is channel `first`."""
        if first not in self._pressures:
            self._pressures[first] = Pressure(self.transform, self.harmonics, first, self.moving)
        return self._pressures[first]

    def solenoidal(self, term: Term, factors: dict[tuple[int, int], Tensor], known: dict[tuple, list[Tensor]],
                   weights: Tensor | None = None) -> Tensor:
        """One component (B, K) of a projected vector, or sums of it as of `features`; `known` keeps what the components
        share."""
        key = term.parts, term.signs, term.carried
        if key not in known:
            zero = torch.zeros((1, self.transform.count), dtype=torch.float64)
            fields = [sums_over(pointwise(part, term.signs, factors, self.eigenvalues, self.transform.count), weights)
                      if part else zero for part in term.parts]
            known[key] = self.pressure(term.carried[0]).project(torch.broadcast_tensors(*[
                size * self.masked(self.transform.project(field), c)
                for field, c, size in zip(fields, term.carried, term.weights, strict=True)]))
        return known[key][term.component] / term.sizes[term.component]

    def operators(self, term: Term, lead: int
                  ) -> Iterator[tuple[list[tuple[Product, float]], Tensor | None, int]]:
        """Products of a term with their signs, the matrix (lead, lead) that acts on their projections on the first
        harmonics (None: the identity), and the axis along which these are projections on derivatives."""
        symbol = torch.diag(self.filter(term, lead)) if term.filtered else None
        if not term.solenoidal:
            for one in self.parts(term):
                signs = term.signs or (one.sign,) * len(one.products)
                yield list(zip(one.products, signs, strict=True)), symbol, one.axis
            return
        row, pressure = term.component, self.pressure(term.carried[0])
        for j, (part, c, size) in enumerate(zip(term.parts, term.carried, term.weights, strict=True)):
            block = size / term.sizes[row] * self.masked(pressure.block(row, j, lead), c)
            yield list(zip(part, term.signs or (1,) * len(part), strict=True)) if part else [], block, VALUE


class Part(NamedTuple):
    """A field that is (part of) a term by its projection on derivatives of the harmonics along `axis`, on values for
    `VALUE`, times `sign`: products at points, or else a linear term's channel, filtered by `symbol` (K,), as a
    derivative `along` an axis."""

    term: Term
    axis: int = VALUE
    sign: float = 1.0
    products: tuple[Product, ...] = ()
    along: int = VALUE
    symbol: Tensor | None = None


class TermSum:
    """Sum of terms with coefficients by channel, numbers or fields (Q,), prepared for many evaluations."""

    def __init__(self, library: Library, groups: dict[Term, dict[int, Tensor]]) -> None:
        self.library, self.needed = library, library.needed(groups)
        self.codes: list[tuple[Term, dict[int, Tensor]]] = []  # terms that need no projection of their sum
        self.fields: list[tuple[Part, list[tuple[int, Tensor]]]] = []  # with the index of a sum of its axis
        self.sums: dict[int, dict[tuple, tuple[int, int, Tensor | None]]] = {}  # by axis: index, channel, filter
        for term, fields in groups.items():
            if term.solenoidal or (term.linear and not term.flux and not any(map(varies, fields.values()))):
                self.codes.append((term, fields))
                continue
            kind = (term.power, term.centred, term.inertia, term.across) if term.filtered and not term.linear else ()
            symbol = library.filter(term) if kind else None
            for part in library.parts(term):
                sums = self.sums.setdefault(part.axis, {})
                self.fields.append((part, [(sums.setdefault((c, *kind), (len(sums), c, symbol))[0], part.sign * weight)
                                           for c, weight in fields.items()]))

    def __call__(self, z: Tensor) -> Tensor:
        """The sum (B, C, K) at codes (B, C, K)."""
        library, known, parts = self.library, dict[tuple, list[Tensor]](), [list[Tensor]() for _ in range(z.shape[1])]
        factors = library.factors_at_points(z, self.needed)
        for term, weights in self.codes:
            codes = library.solenoidal(term, factors, known) if term.solenoidal else (
                library.apply_linear(term, z[:, term.products[0][0][0]]))
            for c, weight in weights.items():
                parts[c].append(weight * codes)
        every: dict[int, list[Tensor | None]] = {axis: [None] * len(sums) for axis, sums in self.sums.items()}
        for part, targets in self.fields:
            field, sums = library.field_of(part, factors, z), every[part.axis]
            for at, weight in targets:
                before, more = sums[at], field * weight
                sums[at] = more if before is None else before.add_(more)
        for axis, fields in every.items():
            projected = library.transform.project(torch.stack(fields), axis)  # type: ignore[arg-type]
            for (_, c, symbol), codes in zip(self.sums[axis].values(), projected.unbind(), strict=True):
                parts[c].append(codes if symbol is None else codes * symbol)
        return torch.stack([sum(own[1:], own[0]) if own else torch.zeros_like(z[:, 0]) for own in parts], 1)


def varies(weight: Tensor) -> bool:
    """Whether a coefficient is a field (Q,) or (N, Q), not a number or one (N, 1) for each of N states."""
    return weight.shape[-1:].numel() > 1


def size_of(term: Term, factors: dict[tuple[int, int], Tensor]) -> Tensor:
    """Size (B, Q) of the vector of a term that is multiplied by it, from factors at points."""
    parts = [(unit * factors[c, VALUE]).square() for c, unit in zip(term.vector, term.units, strict=True)]
    return torch.stack(parts).sum(0).sqrt()


def partial_derivatives(term: Term, product: Product, factors: dict[tuple[int, int], Tensor]
                        ) -> Iterator[tuple[tuple[int, int], Tensor | float]]:
    """Factors (channel, axis) of a product of a term and its derivatives (B, Q) by these, from factors at points."""
    size = size_of(term, factors) if term.vector and not term.solenoidal else 1.0
    for place, (c, axis) in enumerate(product):
        if axis != INVERSE:
            slope = math.prod((factors[other] for other in (*product[:place], *product[place + 1 :])), start=size)
            yield ((c, VALUE), slope * factors[c, -axis]) if is_function(axis) else ((c, axis), slope)
    if isinstance(size, Tensor):  # of the size, by each component of the vector
        whole = math.prod((factors[factor] for factor in product), start=1 / size.clamp_min(1e-30))
        for c, unit in zip(term.vector, term.units, strict=True):
            yield (c, VALUE), whole * unit**2 * factors[c, VALUE]
