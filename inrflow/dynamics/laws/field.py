"""LawField: dz/dt of codes on harmonics, a sum of terms projected by quadrature, and its exponential integrator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from inrflow.domains import Harmonics
from inrflow.domains.transform import SeparableTransform
from inrflow.dynamics.laws.library import Library, TermSum, partial_derivatives, varies
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.dynamics.laws.terms import SECOND, VALUE, Term
from inrflow.numerics import etdrk4
from inrflow.numerics.components import assembled, block_apply, components, diagonal_blocks
from inrflow.numerics.effort import effort

_WHOLE = 256  # codes up to which one matrix of all is faster than matrices of components
_DENSE, _FEW = 1600, 600  # codes up to which terms that couple all are exponentiated; bounded ones
_MOST_STEPS = 2**14  # of one interval
AT_ONCE = 2**16  # values of a field in a block of states: those of larger blocks do not stay in the cache
_EXPONENTIAL = 20  # products of matrices for their exponential
_DELTA = 1e-5  # of differences along rates, relative to codes
_BOUND = 30.0  # norm of codes over the largest of the data, beyond which forecasts have diverged


class LawField(nn.Module):
    """dz/dt = sum_j theta_jc term_j(z) of codes (..., C K); `advance` exponentiates its linear terms, `blocks`."""

    theta: Tensor
    forced: dict[Term, dict[int, Tensor]] = {}  # linear terms of channels with steady codes  # noqa: RUF012
    differenced = False  # whether small differences of it are taken, which bear no rounding
    leading = 320  # most codes that products couple in the linearised flow
    shift: Tensor | None = None  # (K, C, C): linearised diffusion, in `blocks` and not in `products`
    rests: Tensor | None = None  # (C, 3): as `LawTerm` has them

    @classmethod
    def of(cls, terms: Sequence[Term | Sine], harmonics: Harmonics, theta: Tensor, about: Tensor | None = None,
           values: Tensor | None = None, single: bool = False) -> LawField:
        """Vector field of coefficients theta (J, C) of terms on harmonics of a domain, or on modes of flows. about:
        (V, C) values, at the one of strongest nonlinear diffusion this is linearised. values: coefficients (J, C) of
        channels that follow from others. single: whether large meshes have rates in single precision."""
        library = Library.of(terms, harmonics)
        library.about, library.single = about, single
        field = (library.field or cls)(library, theta)
        field.values = None if values is None else (library.diagnostic or DiagnosticField)(library, values)
        return field

    def at(self, theta: Tensor, terms: Sequence[Term | Sine] = ()) -> LawField:
        """Vector field of other coefficients (J, C), with other constants of functions if `terms` are given."""
        field = type(self)(self.library.with_terms(terms or self.library.terms), theta)
        field.values = self.values
        return field

    def take(self, rows: Tensor) -> LawField:
        """Vector field of some of the states."""
        return self

    def __init__(self, library: Library, theta: Tensor):
        super().__init__()
        self.active = active = [j for j, own in enumerate(theta) if bool(own.any()) and j not in library.sines]
        self.library, self.channels = library, theta.shape[1]
        self.values: DiagnosticField | None = None  # of channels that follow from others
        rated = library.in_single_precision() if library.single and not self.differenced else library
        self.network = rated.network if bool((theta[library.sines] != 0).any()) else None
        self.register_buffer("theta", theta)
        allowed, limits = library.moving, {False: _DENSE, True: _FEW}  # bounded terms need no exact integration
        self.allowed = None if allowed is None else allowed.repeat(self.channels // len(allowed), 1)  # and of rates
        separable = isinstance(library.transform, SeparableTransform)  # few components
        self._linear = [j for j in active if isinstance(term := library.terms[j], Term) and term.linear and (
            (self.size <= limits[term.bounded] and (term.axis < SECOND or (separable and not term.power)))
            or not (term.varies or term.axis != VALUE))]
        self._products = [j for j in active if j not in self._linear]
        self.products_of = self.coefficients(self._products)
        self.sum = TermSum(rated, self.products_of)
        self.forced = {} if library.from_steady is None else {
            term: {c: weight for c, weight in fields.items() if not varies(weight)}  # matrices of others include it
            for term, fields in self.coefficients(self._linear).items()
            if not term.power and term.axis == VALUE and not term.varies}
        self._cache: dict[float, list[Tensor]] = {}
        self.blocks = self._blocks()
        if library.about is not None and not self.coupled:  # less than half of the strongest would need short steps
            shift = min(map(self._diffusion, library.about), key=lambda one: float(one.diagonal(dim1=1, dim2=2).sum()))
            self.shift = shift if bool(shift.any()) else None
            self.blocks = self.blocks + shift
        self.rows = components(self.blocks[0]) if self.coupled else None

    @cached_property
    def size(self) -> int:
        """Number of codes, C K."""
        return self.channels * len(self.library.eigenvalues)

    def _blocks(self) -> Tensor:
        """The linear part: (K, C, C), or (1, C K, C K) where derivatives or coefficients couple harmonics."""
        library, count = self.library, len(self.library.eigenvalues)
        if not any(library.terms[j].axis != VALUE or library.terms[j].varies for j in self._linear):
            blocks = self.theta.new_zeros(count, self.channels, self.channels)
            for j in self._linear:
                term = library.terms[j]
                assert isinstance(term, Term)
                blocks[:, :, term.products[0][0][0]] += library.filter(term)[:, None] * self.theta[j]
            return blocks if self.allowed is None else blocks * self.allowed.T[:, :, None]
        dense = self.theta.new_zeros(self.channels, count, self.channels, count)
        for term, fields in self.coefficients(self._linear).items():
            for out, field in fields.items():
                dense[out, :, term.products[0][0][0]] += self.matrix(term, field)
        if self.allowed is not None:
            dense = dense * self.allowed[:, :, None, None]
        return dense.reshape(1, self.size, self.size)

    def _diffusion(self, about: Tensor) -> Tensor:
        """Linearisation (K, C, C) of nonlinear diffusion about constants (C,)."""
        shift = self.theta.new_zeros(len(self.library.eigenvalues), self.channels, self.channels)
        for term, fields in self.products_of.items():
            for part, by in term.diffusions:
                column = about[by].prod() * self.library.filter(part)
                for out, weight in fields.items():
                    shift[:, out, part.products[0][0][0]] += weight * column
        return shift if self.allowed is None else shift * self.allowed.T[:, :, None]

    def coefficients(self, terms: Sequence[int]) -> dict[Term, dict[int, Tensor]]:
        """Coefficients by term (without place) and by channel: numbers, or fields (Q,) where they vary in space."""
        result: dict[Term, dict[int, Tensor]] = {}
        for j in terms:
            term = self.library.terms[j]
            assert isinstance(term, Term)
            group = result.setdefault(term.base, {})
            for out in self.theta[..., j, :].reshape(-1, self.channels).any(0).nonzero()[:, 0].tolist():
                part = self.theta[..., j, out, None] if self.theta.ndim > 2 else self.theta[j, out]
                if term.varies:
                    part = part * self.library.low[term.place]  # type: ignore[index]
                group[out] = group[out] + part if out in group else part
        return result

    def matrix(self, term: Term, weight: Tensor) -> Tensor:
        """Matrix (K, K) of a linear term with a coefficient, a number or a field (Q,)."""
        library = self.library
        symbol = library.filter(term)
        if term.flux:
            weight = (weight * library.transform.weights)[:, None]
            if term.axis != VALUE:
                return -library.table(term.axis).T @ (weight * library.table(VALUE))
            tables = [library.table(axis) for axis in range(library.transform.points.shape[1])]
            return -sum((table.T @ (weight * table) for table in tables), torch.zeros(()))
        if not weight.ndim:
            return weight * library.apply_linear(term, torch.eye(len(symbol)).to(symbol)).T
        return library.projected(weight[:, None] * library.table(term.axis)) * symbol

    @cached_property
    def coupled(self) -> bool:
        """Whether `blocks` is one matrix of all codes."""
        return len(self.blocks) == 1 and self.blocks.shape[-1] == self.size

    def prepared(self, blocks: Tensor) -> Tensor:
        """Blocks as `act` takes them: (K, C, C) as (C, C, K); components as one matrix if few codes make it faster."""
        if not self.coupled:
            return blocks.permute(2, 1, 0).contiguous()
        if self.rows is None or self.size > _WHOLE or blocks.shape[-1] == self.size:
            return blocks
        return assembled(blocks, self.rows, self.size)[None]

    def act(self, blocks: Tensor, z: Tensor) -> Tensor:
        """Product of prepared blocks with codes (B, C, K)."""
        if self.rows is not None and blocks.shape[-1] < self.size:
            return block_apply(blocks, self.rows, z.flatten(1)).reshape(z.shape)
        if self.coupled:
            return (z.flatten(1) @ blocks[0].T).reshape(z.shape)
        result = blocks[0] * z[:, :1]  # C by C is too small for matrix products
        for c in range(1, len(blocks)):
            result += blocks[c] * z[:, c : c + 1]
        return result

    def products(self, z: Tensor) -> Tensor:
        """Terms that are not in `blocks`, of codes (B, C, K)."""
        total = self.sum(z) if self.products_of else torch.zeros_like(z)
        if self.network is not None:
            total = total + self.network.rates(z, self.theta[self.library.sines])
        for term, fields in self.forced.items():
            for c, weight in fields.items():
                total[:, c] += weight * self.library.carried(z[:, term.products[0][0][0]])
        total = total if self.allowed is None else total * self.allowed
        return total if self.shift is None else total - self.act(self.prepared(self.shift), z)

    @property
    def linear(self) -> Tensor:
        """The linear part as a matrix (C K, C K)."""
        dense = self.blocks[0] if self.coupled else self.blocks.permute(1, 2, 0).diag_embed().transpose(1, 2)
        return dense.reshape(self.size, self.size)

    def slopes(self, z: Tensor, lead: int | None = None) -> Tensor:
        """Jacobian (B, C lead, C lead) of `products`, restricted to the leading harmonics (all), at codes (B, C K).

        Products act on small changes by multiplication at each quadrature point.
        """
        library, count = self.sum.library, len(self.library.eigenvalues)
        codes = z.reshape(-1, self.channels, count).double()
        lead = count if lead is None else lead
        result = codes.new_zeros(len(codes), self.channels, lead, self.channels, lead)
        if self.network is not None:
            result += self.network.slopes(codes, self.theta[library.sines], lead)
        factors = library.factors_at_points(codes, library.needed(self.products_of))
        weights: dict[tuple[int, int, int, Tensor | None, int], Tensor] = {}
        for term, fields in self.products_of.items():
            if term.linear:
                for out, field in fields.items():
                    result[:, out, :, term.products[0][0][0]] += self.matrix(term, field)[:lead, :lead]
                continue
            for products, operator, onto in library.operators(term, lead):
                for sign, (by, slope) in [(sign, one) for product, sign in products
                                          for one in partial_derivatives(term, product, factors)]:
                    for out, field in fields.items():
                        key, part = (out, *by, operator, onto), field * (sign * slope)
                        weights[key] = weights[key] + part if key in weights else part
        for (out, channel, axis, operator, onto), weight in weights.items():
            table = library.table(axis, lead)
            part = library.projected(weight.expand(len(codes), len(table))[..., None] * table, lead, onto)
            result[:, out, :, channel] += part if operator is None else operator @ part
        if self.allowed is not None:
            result *= self.allowed[:, :lead, None, None]
        if self.shift is not None:
            result.diagonal(dim1=2, dim2=4).sub_(self.shift[:lead].permute(1, 2, 0))
        return result.flatten(3, 4).flatten(1, 2)

    def forward(self, t: Tensor | float, z: Tensor) -> Tensor:
        """Rates (..., C K) of codes (..., C K); the law does not depend on time."""
        codes = z.reshape(-1, self.channels, len(self.library.eigenvalues)).to(self.theta.dtype)
        rate = self.act(self.prepared(self.blocks), codes) + self.products(codes)
        rate = rate if self.values is None else self.values.rates(codes, rate)
        return rate.reshape(z.shape).to(z.dtype)

    def growth(self, rows: slice = slice(None)) -> float:
        """Largest real part of eigenvalues of the linear part, restricted to some of the harmonics; 1 / time."""
        if not self.coupled:
            return float(torch.linalg.eigvals(self.blocks[rows]).real.max())
        kept = torch.arange(self.size).reshape(self.channels, -1)[:, rows].flatten()
        if not len(kept):
            return 0.0
        inside = self.blocks[0][kept[:, None], kept]
        return float(torch.linalg.eigvals(diagonal_blocks(inside, components(inside))).real.max())

    def exponential(self, h: float) -> Tensor:
        """exp(h L) of the linear part L, in the form of `blocks`."""
        flow = torch.linalg.matrix_exp(h * self._linear_part)
        return flow if self.rows is None else assembled(flow, self.rows, self.size)[None]

    @property
    def _linear_part(self) -> Tensor:
        """`blocks`, or those of its components."""
        return diagonal_blocks(self.blocks[0], self.rows) if self.coupled else self.blocks

    def _operators(self, h: float, exact: bool) -> list[Tensor]:
        """Operators of a step of length h, cached: the flow of a linear law (exact), or the six of ETDRK4."""
        if h not in self._cache:
            linear = self._linear_part
            effort.add(products=_EXPONENTIAL * linear.numel() * linear.shape[-1] * (1 if exact else 6),
                       calls=100 if exact else 200)
            made = [torch.linalg.matrix_exp(h * linear)] if exact else etdrk4.coefficients(
                linear, h, etdrk4.phi_matrix_functions)
            self._cache = {**dict(list(self._cache.items())[-3:]), h: [*map(self.prepared, made)]}
        return self._cache[h]

    @cached_property
    def _operations(self) -> tuple[int, int]:
        """Numbers of transforms and of pointwise multiplications of fields for the terms outside of `blocks`."""
        groups = self.products_of
        factors = {factor for term in groups for product in term.needed_products() for factor in product}
        projected = {(term.power, term.centred, channel, axis) for term, fields in groups.items() for channel in fields
                     for axis in range(len(term.products) if term.flux else 1)}
        multiplied = sum(len(product) + len(fields) for term, fields in groups.items() for product in term.products)
        added = self.network.operations() if self.network is not None else (0, 0)
        return len(factors) + len(projected) + added[0], multiplied + added[1]

    def count_effort(self, states: int, steps: int) -> None:
        """Add the work of steps of some states to the effort."""
        library, (transforms, multiplied) = self.library, self._operations
        acted = 6 * self.size * (self.channels if not self.coupled else self.size if self.rows is None
                                 else self.rows.shape[1])
        effort.add(products=steps * states * (4 * transforms * library.transform.products + acted),
                   elements=steps * states * (4 * multiplied * library.transform.count + 20 * self.size),
                   calls=steps * (4 * (transforms * 3 + multiplied) + 40))

    def advance(self, z: Tensor, dt: float, steps: int) -> Tensor:
        """Codes (B, C K) after a time dt, by ETDRK4 in equal steps; the linear part is exact."""
        steps = 1 if self.exact else steps
        self.count_effort(len(z), steps)
        blocks = list(z.split(len(z) if self.coupled else max(AT_ONCE // self.library.points, 1)))
        for i, _ in itertools.product(range(len(blocks)), range(steps)):
            blocks[i] = self.after(blocks[i], self._operators(dt / steps, self.exact))
        return torch.cat(blocks)

    @property
    def exact(self) -> bool:
        """Whether the linear part is all."""
        return not self.products_of and self.network is None and not self.forced

    def after(self, z: Tensor, operators: list[Tensor]) -> Tensor:
        """Codes (B, C K) after one step with operators, the exponential of a linear law or the six of ETDRK4."""
        now = z.unflatten(1, (self.channels, -1))
        now = self.act(operators[0], now) if self.exact else etdrk4.step(now, operators, self.act, self.products)
        return (now if self.exact or self.rests is None else self.clipped(now, self.rests)).flatten(1)

    def after_gaps(self, z: Tensor, gaps: Tensor, step: float, largest: float = math.inf) -> Tensor:
        """Codes (B, C K) after times gaps (B,), as `bounded` gives them."""
        later = torch.empty_like(z)
        for gap in gaps.unique().tolist():
            rows = gaps == gap
            later[rows] = self.take(rows).bounded(z[rows], gap, step, largest)
        return later

    def clipped(self, z: Tensor, rests: Tensor) -> Tensor:
        """Codes (B, C, K) of fields clipped to bounds, and set to a bound where they are near it
        (Brunet and Derrida 1997): in states that grow, values below the noise of codes count as zero."""
        fields, (low, high, near) = self.library.transform.fields(z), rests.T[..., None]
        kept = torch.where(fields < low + near, low, torch.where(fields > high - near, high, fields))
        return z + self.library.transform.project(kept - fields)

    def bounded(self, z: Tensor, dt: float, step: float, largest: float) -> Tensor:
        """Codes (B, C K) after a time dt, in steps of at most `step`; NaN if these are too many, or if the norm of
        codes far exceeds `largest`, that of the data."""
        steps = max(math.ceil(abs(dt) / step - 1e-9), 1)
        if steps > _MOST_STEPS:
            return torch.full_like(z, math.nan)
        later = self.advance(z, dt, steps) if dt else z
        later = later if self.values is None else self.values.completed(later)
        return torch.where(torch.linalg.vector_norm(later, dim=-1, keepdim=True) < _BOUND * largest, later, math.nan)


class JoinedField(LawField):
    """Vector field of N states, each with the coefficients of one of some fields of the same terms, those of indices
    `which` (N,). For time steps alone; linear terms must not couple harmonics."""

    def __init__(self, fields: Sequence[LawField], which: Tensor):
        nn.Module.__init__(self)
        for name in ("library", "channels", "values", "allowed", "shift", "network", "forced", "rests", "coupled"):
            setattr(self, name, getattr(fields[0], name))
        self.fields, self.which, self.rows, self._cache = fields, which, None, {}
        self.theta, self.blocks = torch.stack([one.theta for one in fields])[which], torch.stack(
            [one.blocks for one in fields])
        self.products_of = self.coefficients(fields[0]._products)
        self.sum = TermSum(fields[0].sum.library, self.products_of)

    def take(self, rows: Tensor) -> JoinedField:
        return self if len(self.which[rows]) == len(self.which) else JoinedField(self.fields, self.which[rows])

    def prepared(self, blocks: Tensor) -> Tensor:
        """Blocks (G, K, C, C) of the fields as `act` takes them, each for its states: (C, N, C, K)."""
        return blocks.permute(3, 0, 2, 1)[:, self.which].contiguous()


def joined(fields: Sequence[LawField], which: Tensor, most: int = AT_ONCE) -> Iterator[tuple[Tensor, LawField]]:
    """Vector fields of N states, from fields of the same terms and their indices (N,), with the indices of the states
    of each: one for all, where that is possible and at most `most` values of a field are computed."""
    plain = [tuple(one.active) for one in fields if type(one) is LawField and not (
        one.coupled or one.forced or one.network or one.shift is not None)]
    if 1 < len(plain) == len(fields) and len({*plain}) == 1 and len(which) * fields[0].library.points <= most:
        yield torch.arange(len(which)), JoinedField(fields, which)
        return
    for number, one in enumerate(fields):
        yield (which == number).nonzero()[:, 0], one


class DiagnosticField(LawField):
    """Codes (..., C K), in place of rates, of the channels whose coefficients theta (J, C) are not all zero."""

    differenced = True

    @property
    def own(self) -> Tensor:
        """Mask (C K,) of the codes that it determines."""
        kept = self.theta.ne(0).any(0)[:, None].expand(-1, len(self.library.eigenvalues))
        return (kept if self.allowed is None else kept & self.allowed).flatten()

    def completed(self, z: Tensor) -> Tensor:
        """Codes (B, C K) with those of diagnostic channels determined by the others."""
        return torch.where(self.own, self(0.0, z), z)

    def rates(self, codes: Tensor, rate: Tensor) -> Tensor:
        """Rates (B, C, K) at codes (B, C, K), of diagnostic channels by the chain rule, as a central difference."""
        ahead, step = self._along(codes, rate)
        return rate + (self(0.0, codes + ahead) - self(0.0, codes - ahead)) / (2 * step)

    def followed(self, flow: Tensor, z: Tensor) -> Tensor:
        """Linearised flow (B, n, n) whose rows of diagnostic channels follow from the others, at codes z (B, C K)."""
        return torch.where(self.own[:, None], (self.slopes(z) + self.linear).to(flow) @ flow, flow)

    def jacobian(self, matrix: Tensor, z: Tensor, rate: Tensor) -> Tensor:
        """Jacobian (B, n, n) of rates (B, n) at codes z (B, n), from that of the other channels."""
        ahead, step = self._along(z, rate)
        bent = (self.slopes(z + ahead) - self.slopes(z - ahead)) / (2 * step)
        return torch.where(self.own[:, None], self.followed(matrix, z) + bent.to(matrix), matrix)

    @staticmethod
    def _along(codes: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        step = _DELTA * (codes.norm() + 1e-300) / (rate.norm() + 1e-300)
        return step * rate, step
