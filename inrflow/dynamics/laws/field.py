"""LawField: dz/dt of codes on harmonics, a sum of terms projected by quadrature, and its exponential integrator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from inrflow.domains import Harmonics
from inrflow.dynamics.laws.network.layer import Layer
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.dynamics.laws.terms import LAPLACIAN, POTENTIAL, RECIPROCAL, SECOND, VALUE, Term
from inrflow.dynamics.laws.transform import SeparableTransform, pointwise, transform_of
from inrflow.numerics import etdrk4
from inrflow.numerics.effort import effort

PLACES = 64  # low harmonics that coefficients of place are made of
_SINE = 16  # operations on elements that a sine takes
_DENSE, _FEW = 1600, 600  # codes up to which terms that couple all are exponentiated as one matrix; bounded terms
_MOST_STEPS = 2**14  # of one interval
_EXPONENTIAL = 20  # products of matrices in their exponential
_CONSTANT = 1e-8  # eigenvalues below belong to the constant
_BOUND = 30.0  # codes beyond so many times the largest ones of the data have left what the law was fitted to


class Library(nn.Module):
    """Terms on K harmonics of a domain: their rates, one by one, as projections on harmonics.

    The hidden units of a network, of which each is a term too, are evaluated together.
    """

    eigenvalues: Tensor
    families: Tensor | None = None  # (C, K), as harmonics have `allowed`, and a row of steady ones; `moving` without
    moving: Tensor | None = None
    from_steady: Tensor | None = None  # (K, R): projections of what steady codes carry
    network: Layer | None = None

    def __init__(self, terms: Sequence[Term | Sine], harmonics: Harmonics):
        super().__init__()
        self.terms = tuple(terms)
        self.sines = [j for j, term in enumerate(terms) if isinstance(term, Sine)]
        degree = max([3 if self.sines else 2, *(len(product) + (term.place > 0) for term in terms
                                                for product in term.products)])
        self.transform = transform_of(harmonics, degree)
        self.register_buffer("eigenvalues", torch.tensor(harmonics.eigenvalues))
        self.first_steady = len(self.eigenvalues) - harmonics.steady
        self.families = self.moving = None if harmonics.allowed is None else torch.tensor(harmonics.allowed)
        if harmonics.steady:
            moving = torch.arange(len(self.eigenvalues)) < self.first_steady
            self.moving = moving[None] if self.families is None else self.families & moving
            self.families = torch.cat([self.moving, ~moving[None]])
            carried = self.transform.fields(torch.eye(len(moving)).double()[self.first_steady :])
            self.from_steady = (self.transform.project(carried) * moving).T
        places = max((term.place for term in terms), default=0)
        self.low: Tensor | None = None
        if places:
            self.low = torch.tensor(harmonics.lowest(PLACES).values(self.transform.points).T[: places + 1])  # (P, Q)
        if self.sines:
            sines = [term for term in terms if isinstance(term, Sine)]
            self.network = Layer(sines, self.transform, self.eigenvalues)

    def table(self, axis: int, lead: int | None = None) -> Tensor:
        """The first harmonics (all) at quadrature points, as a factor of an axis has them: (Q, lead)."""
        if axis in (RECIPROCAL, LAPLACIAN):
            values = self.transform.table(VALUE, lead)
            return values if axis == RECIPROCAL else values * self.symbol(1, lead)
        if axis >= SECOND:
            return self.second(torch.eye(len(self.eigenvalues)).double()[:lead], axis).T
        if axis < POTENTIAL:
            return self.transform.table(axis, lead)
        return self.transform.table(axis - POTENTIAL, lead) * self.inverse()[:lead]

    def second(self, codes: Tensor, axis: int) -> Tensor:
        """Second derivatives (..., Q), as factors of an axis have them, of codes (..., K) on a box."""
        assert isinstance(self.transform, SeparableTransform)
        return self.transform.second(codes, *divmod(axis - SECOND, 3))

    def derived(self, codes: Tensor, axis: int) -> Tensor:
        """Codes (..., K) of a derivative, along the axis or axes of a linear term, of the field of codes (..., K)."""
        if axis == VALUE:
            return codes
        return self.transform.derive(codes, *(divmod(axis - SECOND, 3) if axis >= SECOND else (axis,)))

    def carried(self, codes: Tensor) -> Tensor | float:
        """What steady ones of codes (B, K) of a channel add to its values: (B, K)."""
        return 0.0 if self.from_steady is None else codes[:, self.first_steady :] @ self.from_steady.T

    def within(self, codes: Tensor, channel: int) -> Tensor:
        """Codes (..., K) without those that a channel has not."""
        return codes if self.moving is None else codes * self.moving[channel % len(self.moving)]

    def projected(self, table: Tensor, lead: int | None = None) -> Tensor:
        """Projections (..., lead, n) on the first harmonics (all) of fields (..., Q, n)."""
        return (self.table(VALUE, lead) * self.transform.weights[:, None]).T @ table

    def at_points(self, z: Tensor, terms: Sequence[Term]) -> dict[tuple[int, int], Tensor]:
        """The factors (channel, axis) that terms need, of codes (B, C, K), at quadrature points: (B, Q)."""
        needed = {factor for term in terms for product in term.every() for factor in product}
        result: dict[tuple[int, int], Tensor] = {}
        for axis in sorted({axis for _, axis in needed}):
            codes = z[:, (channels := sorted(c for c, a in needed if a == axis))]
            if axis >= SECOND:
                fields = self.second(codes, axis)
            elif axis == RECIPROCAL:
                fields = 1 / self.transform.fields(codes)
            elif axis == LAPLACIAN:
                fields = self.transform.fields(codes * self.symbol(1))
            else:
                fields = self.transform.fields(*((codes, axis) if axis < POTENTIAL else
                                                 (codes * self.inverse(), axis - POTENTIAL)))
            result |= {(c, axis): fields[:, i] for i, c in enumerate(channels)}
        return result

    def symbol(self, power: float, rows: int | None = None) -> Tensor:
        """lap^power on the first harmonics (all), (-lap)^power of fractions: (rows,)."""
        if power < 0:
            return self.inverse()[:rows]
        if power % 1:
            return self.eigenvalues[:rows].clamp_min(0.0) ** power
        return (-self.eigenvalues[:rows]) ** int(power)

    def features(self, z: Tensor, rows: int) -> Tensor:
        """Every term of codes (B, C, K) on the first harmonics: (B, J, rows)."""
        result = z.new_zeros(len(z), len(self.terms), rows)
        effort.add(products=2 * len(self.terms) * len(z) * self.transform.products,
                   elements=(4 * len(self.terms) * (self.transform.count + rows)
                             + _SINE * len(self.sines) * self.transform.count) * len(z), calls=10 * len(self.terms))
        groups: dict[Term, list[int]] = {}
        for j, term in enumerate(self.terms):
            if isinstance(term, Term):
                groups.setdefault(term.base, []).append(j)
        if self.network is not None:
            result[:, self.sines] = self.network.features(z, rows)
        factors = self.at_points(z, [term for term in groups if not term.linear])
        known: dict[Term, tuple] = {}
        for term, members in groups.items():
            places = [self.terms[j].place for j in members]
            if term.linear and not term.flux and not any(places):
                own = z[:, term.products[0][0][0]]
                codes = self.derived(self.symbol(term.power) * own, term.axis)
                codes = codes if term.power or term.axis != VALUE else codes + self.carried(own)
                result[:, members[0]] = codes[:, :rows]
            elif term.flux:
                for axis in range(self.transform.points.shape[1]):
                    slope = self.transform.fields(z[:, term.products[0][0][0]], axis)
                    result[:, members] -= self.transform.project(self.weighted(slope, places), axis)[..., :rows]
            elif term.linear:
                codes = self.symbol(term.power) * z[:, term.products[0][0][0]]
                field = self.transform.fields(codes, term.axis)
                result[:, members] = self.transform.project(self.weighted(field, places))[..., :rows]
            elif term.solenoidal:
                result[:, members] = self.solenoidal(term, factors, known)[:, None, :rows]
            else:
                field = pointwise(term.products, term.signs, factors, z if any(term.products) else z[:1],
                                  self.transform.count)
                codes = self.transform.project(self.weighted(field, places) if any(places) else field[:, None])
                if term.power:
                    codes = codes * self.symbol(term.power)
                result[:, members] = codes[..., :rows]
        result[..., self.first_steady :] = 0.0
        return result

    def inverse(self) -> Tensor:
        """lap^-1 of fields of mean zero: (K,)."""
        return torch.where(self.eigenvalues > _CONSTANT, -1 / self.eigenvalues.clamp_min(_CONSTANT), 0.0)

    def weighted(self, field: Tensor, places: Sequence[int]) -> Tensor:
        """A field (B, Q) times low harmonics of some numbers: (B, P, Q)."""
        assert self.low is not None
        return field[:, None] * self.low[list(places)]

    def solenoidal(self, term: Term, factors: dict[tuple[int, int], Tensor], known: dict[Term, tuple]) -> Tensor:
        """A component of the transport of a velocity without its gradient part: (B, K); what components share is kept.
        """
        component, key = term.carried.index(term.products[0][1][0]), term.component(0)
        if key not in known:
            every = [self.within(self.transform.project(pointwise(
                term.component(j).products, term.signs, factors, self.eigenvalues, self.transform.count)),
                term.carried[j]) for j in range(len(term.signs))]
            total = sum(unit * self.transform.derive(codes, j)
                        for j, (unit, codes) in enumerate(zip(term.sizes, every, strict=True)))
            known[key] = every, total * self.inverse()
        every, potential = known[key]
        return every[component] - self.transform.derive(potential, component) / term.sizes[component]


class LawField(nn.Module):
    """dz/dt = sum_j theta_jc term_j(z), codes (..., C K); linear terms in blocks, which `advance` exponentiates."""

    theta: Tensor
    forced: dict[Term, dict[int, Tensor]] = {}  # linear terms of channels with steady codes  # noqa: RUF012
    leading = 320  # codes that products couple in the linearised flow

    def __init__(self, library: Library, theta: Tensor):
        super().__init__()
        active = [j for j in range(len(library.terms)) if bool((theta[j] != 0).any()) and j not in library.sines]
        self.library, self.channels = library, theta.shape[1]
        self.network = library.network if bool((theta[library.sines] != 0).any()) else None
        self.register_buffer("theta", theta)
        allowed, limits = library.moving, {False: _DENSE, True: _FEW}  # others are bounded: no step needs them exact
        self.allowed = None if allowed is None else allowed.repeat(self.channels // len(allowed), 1)  # rates too
        self._linear = [j for j in active if isinstance(term := library.terms[j], Term) and term.linear and (
            (term.axis < SECOND and self.size <= limits[term.bounded]) or not (term.varies or term.axis != VALUE))]
        self._products = [j for j in active if j not in self._linear]
        self.products_of = self.coefficients(self._products)
        self.forced = {} if library.from_steady is None else {
            term: fields for term, fields in self.coefficients(self._linear).items()
            if not term.power and term.axis == VALUE and not term.varies}
        self._cache: dict[float, list[Tensor]] = {}
        self._flows: dict[float, Tensor] = {}
        self.blocks = self._blocks()

    @property
    def size(self) -> int:
        """Number of codes C K."""
        return self.channels * len(self.library.eigenvalues)

    def _blocks(self) -> Tensor:
        """The linear part: (K, C, C), or one matrix (1, C K, C K) where odd derivatives couple harmonics."""
        library, count = self.library, len(self.library.eigenvalues)
        if not any(library.terms[j].axis != VALUE or library.terms[j].varies for j in self._linear):
            blocks = self.theta.new_zeros(count, self.channels, self.channels)
            for j in self._linear:
                term = library.terms[j]
                blocks[:, :, term.products[0][0][0]] += library.symbol(term.power)[:, None] * self.theta[j]
            return blocks if self.allowed is None else blocks * self.allowed.T[:, :, None]
        dense = self.theta.new_zeros(self.channels, count, self.channels, count)
        for term, fields in self.coefficients(self._linear).items():
            for out, field in fields.items():
                dense[out, :, term.products[0][0][0]] += self.matrix(term, field)
        if self.allowed is not None:
            dense = dense * self.allowed[:, :, None, None]
        return dense.reshape(1, self.size, self.size)

    def coefficients(self, terms: Sequence[int]) -> dict[Term, dict[int, Tensor]]:
        """Of each term without its place, and each channel that has it: the coefficient, a number or a field (Q,)."""
        result: dict[Term, dict[int, Tensor]] = {}
        for j in terms:
            term = self.library.terms[j]
            assert isinstance(term, Term)
            group = result.setdefault(term.base, {})
            for out in self.theta[j].nonzero()[:, 0].tolist():
                part = self.theta[j, out]
                if term.varies:
                    assert self.library.low is not None
                    part = part * self.library.low[term.place]
                group[out] = group[out] + part if out in group else part
        return result

    def matrix(self, term: Term, weight: Tensor) -> Tensor:
        """A linear term (K, K) with a coefficient, a number or a field (Q,)."""
        library = self.library
        symbol = library.symbol(term.power)
        if term.flux:
            weight = (weight * library.transform.weights)[:, None]
            tables = [library.table(axis) for axis in range(library.transform.points.shape[1])]
            return -sum((table.T @ (weight * table) for table in tables), torch.zeros(()))
        if not weight.ndim:
            matrix = torch.diag(symbol)
            return weight * library.derived(matrix, term.axis).T
        return library.projected(weight[:, None] * library.table(term.axis)) * symbol

    @property
    def coupled(self) -> bool:
        """Whether `blocks` are one matrix of all codes."""
        return len(self.blocks) == 1 and self.blocks.shape[-1] == self.size

    def act(self, blocks: Tensor, z: Tensor) -> Tensor:
        """Blocks (K, C, C) or (1, C K, C K) on codes (B, C, K)."""
        if self.coupled:
            return (z.reshape(len(z), -1) @ blocks[0].T).reshape(z.shape)
        return torch.einsum("kdc,bck->bdk", blocks, z)

    def products(self, z: Tensor) -> Tensor:
        """The terms that are not in `blocks`, of codes (B, C, K)."""
        library, groups = self.library, self.products_of
        total = torch.zeros_like(z)
        if self.network is not None:
            total = total + self.network.rates(z, self.theta[library.sines])
        for term, fields in self.forced.items():
            for c, weight in fields.items():
                total[:, c] += weight * library.carried(z[:, term.products[0][0][0]])
        if not groups:
            return total if self.allowed is None else total * self.allowed
        factors = library.at_points(z, [term for term in groups if not term.linear])
        sums: dict[float, list[Tensor | None]] = {}
        known: dict[Term, tuple] = {}
        for term, fields in groups.items():
            if term.linear:  # one that couples harmonics, of many codes
                self._explicit(term, fields, z, total)
                continue
            if term.solenoidal:
                for c, weight in fields.items():
                    total[:, c] += weight * library.solenoidal(term, factors, known)
                continue
            value = pointwise(term.products, term.signs, factors, z, library.transform.count)
            group = sums.setdefault(term.power, [None] * self.channels)
            for c, weight in fields.items():
                part = value * weight
                before = group[c]
                group[c] = part if before is None else before.add_(part)
        for power, group in sums.items():
            for c, field in enumerate(group):
                if field is not None:
                    codes = library.transform.project(field)
                    total[:, c] += codes if not power else codes * library.symbol(power)
        return total if self.allowed is None else total * self.allowed

    def _explicit(self, term: Term, fields: dict[int, Tensor], z: Tensor, total: Tensor) -> None:
        """Add a linear term that couples harmonics to rates (B, C, K)."""
        library = self.library
        codes = z[:, term.products[0][0][0]]
        if not term.flux and not any(weight.ndim for weight in fields.values()):
            slope = library.derived(codes * library.symbol(term.power), term.axis)
            for c, weight in fields.items():
                total[:, c] += weight * slope
            return
        for axis in range(library.transform.points.shape[1]) if term.flux else [term.axis]:
            field = library.transform.fields(codes if term.flux else codes * library.symbol(term.power), axis)
            for c, weight in fields.items():
                part = library.transform.project(weight * field, axis if term.flux else VALUE)
                total[:, c] += -part if term.flux else part

    def forward(self, t: Tensor | float, z: Tensor) -> Tensor:
        """Rates (..., C K) of codes (..., C K); the law does not depend on time."""
        codes = z.reshape(-1, self.channels, len(self.library.eigenvalues)).to(self.theta.dtype)
        rate = self.act(self.blocks, codes) + self.products(codes)
        return rate.reshape(z.shape).to(z.dtype)

    def growth(self, rows: slice = slice(None)) -> float:
        """Largest real part of the eigenvalues of the linear part on some of the harmonics, 1 / time."""
        blocks = self.blocks[rows]
        if self.coupled:
            count = len(self.library.eigenvalues)
            blocks = self.blocks.reshape(self.channels, count, self.channels, count)[:, rows, :, rows]
            blocks = blocks.reshape(1, blocks.shape[0] * blocks.shape[1], -1)
        return float(torch.linalg.eigvals(blocks).real.max())

    def exponential(self, h: float) -> Tensor:
        """exp(h L) of the linear part L, as `blocks`."""
        return torch.linalg.matrix_exp(h * self.blocks)

    def _flow(self, h: float) -> Tensor:
        if h not in self._flows:
            effort.add(products=_EXPONENTIAL * self.blocks.shape[0] * self.blocks.shape[-1] ** 3, calls=100)
            self._flows = {**dict(list(self._flows.items())[-3:]), h: self.exponential(h)}
        return self._flows[h]

    def _coefficients(self, h: float) -> list[Tensor]:
        if h not in self._cache:
            effort.add(products=_EXPONENTIAL * self.blocks.shape[0] * (3 * self.blocks.shape[-1]) ** 3, calls=200)
            self._cache = {**dict(list(self._cache.items())[-3:]),
                           h: etdrk4.coefficients(self.blocks, h, etdrk4.phi_matrix_functions)}
        return self._cache[h]

    @cached_property
    def _operations(self) -> tuple[int, int]:
        """Transforms and multiplications of fields that the terms outside of `blocks` take."""
        groups = self.products_of
        factors = {factor for term in groups for product in term.every() for factor in product}
        projected = {(term.power, channel) for term, fields in groups.items() for channel in fields}
        multiplied = sum(len(product) + len(fields) for term, fields in groups.items() for product in term.products)
        added = self.network.operations() if self.network is not None else (0, 0)
        return len(factors) + len(projected) + added[0], multiplied + added[1]

    def counted(self, states: int, steps: int) -> None:
        """Add steps of some states to the effort."""
        library, (transforms, multiplied) = self.library, self._operations
        acted = 6 * self.size * (self.size if self.coupled else self.channels)
        effort.add(products=steps * states * (4 * transforms * library.transform.products + acted),
                   elements=steps * states * (4 * multiplied * library.transform.count + 20 * self.size),
                   calls=steps * (4 * (transforms * 3 + multiplied) + 40))

    def advance(self, z: Tensor, dt: float, steps: int) -> Tensor:
        """Codes (B, C K) after a time dt, by ETDRK4 in equal steps: exact in the linear part."""
        linear = not self.products_of and self.network is None and not self.forced
        self.counted(len(z), 1 if linear else steps)
        now = z.reshape(len(z), self.channels, -1)
        if linear:
            return self.act(self._flow(dt), now).reshape(z.shape)
        operators = self._coefficients(dt / steps)
        for _ in range(steps):
            now = etdrk4.step(now, operators, self.act, self.products)
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
