"""LawTerm: a law on the harmonics of a domain, as a registered term of vector fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inrflow.domains import Domain, from_state, harmonics_of, plain
from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.laws.field import AT_ONCE, LawField, joined
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.terms import VALUE, Term, term_from_state
from inrflow.encoding.harmonic_codes import HarmonicCodes
from inrflow.errors import UserError
from inrflow.numerics.phases import periodic_phases

_KEPT = 64  # most contexts cached
_MOST_STEPS, _DENSE = 2.0**8, 400  # most steps for stiffness in the splitting; coupled codes above which it adds none
_AT_REST, _UNBOUNDED = (1e-3, 0.05), 1e300  # distance to a bound relative to the range, share of values there; none
_SERIES = 1.0  # largest norm for the series of the products, with an error of 1/24 standard deviations


@register_term("law")
class LawTerm(FieldTerm):
    """dz/dt = sum_j (theta_jc + sum_p c_p by_context_pjc) term_j, projected on K harmonics.

    Codes are (C K,), those of the first channel first; contexts c are (P,).

    Args:
        domain, boundary, count: of the harmonics, as for `DomainHarmonicDecoder`, or the domain itself.
        terms: J terms as plain values; theta: (J, C) coefficients.
        largest: norm of the largest code of the data; forecasts far beyond it have diverged.
        by_context: (P, J, C), change of theta per unit of each context number.
        period: of a forcing, internal time; the last two of C channels are its cosine and sine then, and no codes.
        rests: (C, 3): lower and upper bounds of values, and the distance within which they are set to a bound; or none.
        about: (V, C) values about which nonlinear diffusion is linearised for the integrator; or none.
        values: (J, C) coefficients of diagnostic channels, which follow from others at the same time; or none.
    """

    def __init__(
        self, domain: Mapping[str, Any] | Domain, boundary: str, count: int, terms: Sequence[dict],
        theta: Sequence[Sequence], largest: float = math.inf, by_context: Sequence = (), period: float = 0.0,
        rests: Sequence[Sequence[float]] = (), about: Sequence[Sequence[float]] = (),
        values: Sequence[Sequence[float]] = (),
    ) -> None:
        super().__init__()
        self.domain, self.boundary, self.count, self.largest = plain(domain), boundary, count, largest
        self.period, self.rests, self.about = period, [list(one) for one in rests], list(about)
        self.values = [list(one) for one in values]
        self.terms = [dict(term) for term in terms]
        # Least squares in float64 found the coefficients; no gradient trains them.
        self.theta = nn.Parameter(torch.as_tensor(theta, dtype=torch.float64), requires_grad=False)
        added = torch.as_tensor(by_context, dtype=torch.float64).reshape(-1, *self.theta.shape)
        self.by_context = nn.Parameter(added, requires_grad=False)
        self._built: dict[tuple, LawField] = {}

    @classmethod
    def of(cls, law: Law) -> LawTerm:
        """Term of a fitted law."""
        return cls(law.domain, law.boundary, law.codes.harmonics.count, [term.state() for term in law.terms],
                   law.theta.tolist(), law.largest, law.by_context.tolist(), law.period,
                   about=[] if law.about is None else law.about.tolist(),
                   values=[] if law.values is None else law.values.tolist())

    def fitted_law(self, codes: HarmonicCodes, context: np.ndarray, max_step: float) -> Law:
        """The law at a context (P,) of codes with a prior: the inverse of `of`, without standard errors."""
        theta = self.theta.detach().numpy() + np.tensordot(context, self.by_context.detach().numpy(), 1)
        return Law(from_state(self.domain), self.boundary, tuple(map(term_from_state, self.terms)), theta,
                   np.zeros_like(theta), codes, max_step, self.largest,
                   rates=self.channels_with_rates(len(codes.mean)), about=np.array(self.about) if self.about else None)

    def structure(self) -> dict[str, Any]:
        return {"domain": self.domain, "boundary": self.boundary, "count": self.count, "terms": self.terms,
                "theta": self.theta.tolist(), "largest": self.largest, "by_context": self.by_context.tolist(),
                "period": self.period, "rests": self.rests, **({"about": self.about} if self.about else {}),
                **({"values": self.values} if self.values else {})}

    def channels_with_rates(self, channels: int) -> tuple[int, ...]:
        """Channels of values, of the first `channels`, whose rates are the further channels: their only terms."""
        alone = self.theta[:, :channels].ne(0).sum(0) == 1
        rows = [self.terms.index(Term((((c, VALUE),),)).state()) for c in range(channels, self.theta.shape[1])]
        return tuple(int((alone & self.theta[row, :channels].ne(0)).nonzero()[0]) for row in rows)

    def rate_indices(self, memory: int) -> Tensor:
        """Indices (memory,) of the codes whose rates are the last `memory` codes."""
        own = torch.tensor(self.channels_with_rates(self.theta.shape[1] - memory // self.count))
        return (own[:, None] * self.count + torch.arange(self.count)).flatten()

    def on(self, domain: Mapping[str, Any], count: int) -> LawTerm:
        """The same law on harmonics of another domain, given by its `state()`.

        Raises UserError where coefficients vary in space.
        """
        if any(term_from_state(term).place for term in self.terms):
            raise UserError("coefficients of the law vary from place to place, and are not known on another domain; "
                            "train on data of that domain")
        return type(self)(**{**self.structure(), "domain": domain, "count": count})

    def law(self, c: Tensor | None = None) -> LawField:
        """Vector field in float64, of the present coefficients at a context (P,), by default 0."""
        if torch.is_grad_enabled() and (self.theta.requires_grad or self.by_context.requires_grad):
            raise UserError("coefficients of a law have no gradients and require them: use field.requires_grad_(False)")
        versions = self.theta._version, self.by_context._version
        key = (*versions, b"" if c is None else c.detach().cpu().double().numpy().tobytes())
        if key not in self._built:
            added = 0.0 if c is None else torch.tensordot(c.detach().to(self.by_context), self.by_context, 1)
            kept = [(one, field) for one, field in self._built.items() if one[:2] == versions][1 - _KEPT :]
            other, theta = next(iter(self._built.values()), None), self.theta.double() + added
            rests, about, values = (torch.tensor(one, dtype=torch.float64) if one else None
                                    for one in (self.rests, self.about, self.values))
            field = other.at(theta) if other else LawField.of(
                [term_from_state(term) for term in self.terms], harmonics_of(self.domain, self.count, self.boundary),
                theta, about, values, single=True)
            field.rests = rests
            object.__setattr__(self, "_built", {**dict(kept), key: field})
        return self._built[key]

    def _laws(self, c: Tensor | None, count: int, most: int = 0) -> Iterator[tuple[Tensor, LawField]]:
        """Groups of equal contexts (S, P), or of at most `most` values: indices among `count` states, and the field."""
        if c is None or not len(self.by_context):
            yield torch.arange(count), self.law()
            return
        distinct, which = torch.unique(c.detach(), dim=0, return_inverse=True)
        yield from joined([self.law(context) for context in distinct], which, most)

    def with_phases(self, t: Tensor | float, z: Tensor) -> Tensor:
        """Codes (..., C K) with those of the forcing's phases at internal times t (...,), which are no states."""
        if not self.period:
            return z
        now = (periodic_phases(torch.as_tensor(t), self.period, 1)[..., None] * self._constant).flatten(-2)
        return torch.cat([z, now.expand(*z.shape[:-1], now.shape[-1]).to(z)], -1)

    @cached_property
    def _constant(self) -> Tensor:
        """Codes (K,) of the constant 1 in the last channel."""
        harmonics = self.law().library.harmonics
        own, codes = harmonics.own(-1), torch.zeros(self.count, dtype=torch.float64)
        first = int(own[harmonics.eigenvalues[own].argmin()])
        codes[first] = 1 / harmonics.values(harmonics.quadrature(1).points[:1])[0, first]
        return codes

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        if self.period:
            return self.law()(t, self.with_phases(t, z))[..., : z.shape[-1]]
        if c is None or not len(self.by_context):
            return self.law()(t, z)
        flat = z.reshape(-1, z.shape[-1])
        c = c.expand(*z.shape[:-1], c.shape[-1]).reshape(len(flat), -1)
        parts = [(rows, law(t, flat[rows])) for rows, law in self._laws(c, len(flat))]
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return torch.cat([rate for _, rate in parts])[order].reshape(z.shape)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Jacobian (S, n, n) with respect to codes (S, n), in closed form."""
        result = z.new_zeros(len(z), z.shape[1], z.shape[1])
        for rows, law in self._laws(c, len(z)):
            now = self.with_phases(t, z)[rows]
            whole = (law.slopes(now) + law.linear).to(z)
            whole = whole if law.values is None else law.values.jacobian(whole, now, law(t, now))
            result[rows] = whole[:, : z.shape[1], : z.shape[1]]
        return result

    def tangent_flow(self, state: Tensor, gap: Tensor, at: Tensor) -> Tensor:
        """Tangent linear flow (S, n + P, n + P) over `gap`, at states (S, n + P) and times `at` (S,).

        Contexts are constant. Strang splitting: the linear part, which may be stiff, is exponentiated in its blocks;
        the products, by a series of third order, in steps that are short for them and for the waves that both make
        together, as errors grow without limit in longer ones. Products couple the leading harmonics only, which bounds
        the cost of covariances; errors in the others are small, and decay.
        """
        size = state.shape[1] - len(self.by_context)
        result = torch.eye(state.shape[1]).to(state).repeat(len(state), 1, 1)
        known = torch.isfinite(state).all(1)
        result[~known] = math.nan  # diverged
        for every, law in self._laws(state[:, size:], len(state)):
            rows = every[known[every]]
            if not len(rows):
                continue
            here = self.with_phases(at.expand(len(state))[rows], state[rows, :size])
            flow = _tangent_flow(law, here, gap.expand(len(state))[rows])
            flow = flow if law.values is None else law.values.followed(flow, here)
            result[rows, :size, :size] = flow[:, :size, :size]
        return result

    def advance(self, state: Tensor, begin: Tensor, gap: Tensor, step: float) -> Tensor:
        """States (S, n + P) at times gap (S,) after `begin` (S,), in steps of at most `step` with an exact linear part;
        NaN where they diverge."""
        size, result = state.shape[1] - len(self.by_context), state.clone()
        now = self.with_phases(begin, state[:, :size].double())
        for rows, law in self._laws(state[:, size:], len(state), AT_ONCE):
            result[rows, :size] = law.after_gaps(now[rows], gap[rows], step, self.largest)[:, :size].to(state)
        return result


def _tangent_flow(law: LawField, z: Tensor, gap: Tensor) -> Tensor:
    channels = law.channels
    count = len(law.library.eigenvalues)
    lead = min(count, max(1, law.leading // channels))
    product = law.slopes(z, lead) * gap[:, None, None]
    norm = float(product.detach().abs().sum(-1).max())
    linear = float(law.blocks[:lead].detach().abs().sum(-1).max() * gap.abs().max())
    most = 1.0 if law.coupled and law.size > _DENSE else _MOST_STEPS
    halvings = math.ceil(math.log2(max(norm / _SERIES, min(math.sqrt(norm * linear), most), 1.0)))
    product = product / 2**halvings
    eye = torch.eye(channels * lead).to(product)
    small = eye + product + product @ (product @ (eye + product / 3) / 2)
    half = torch.zeros(len(gap), *law.blocks.shape).to(product)
    for row, time in enumerate(gap.tolist()):
        half[row] = law.exponential(time / 2 ** (halvings + 1))
    if law.coupled:
        flow = _embedded(law, small, lead)
        flow = half[:, 0] @ flow @ half[:, 0]
        for _ in range(halvings):
            flow = flow @ flow
        return flow.to(z)
    inner = half[:, :lead]
    block = small.reshape(len(small), channels, lead, channels, lead)
    block = torch.einsum("skde,sekfl->sdkfl", inner.expand(len(block), -1, -1, -1), block)
    small = torch.einsum("sdkfl,slfg->sdkgl", block, inner.expand(len(block), -1, -1, -1)).reshape(small.shape)
    for _ in range(halvings):
        small = small @ small
    flow = _embedded(law, small, lead).reshape(len(small), channels, count, channels, count)
    outer = torch.linalg.matrix_exp(law.blocks[None, lead:] * gap[:, None, None, None])
    every = torch.arange(lead, count)
    flow[:, :, every, :, every] = outer.transpose(0, 1).expand(-1, len(small), -1, -1)
    return flow.flatten(3, 4).flatten(1, 2).to(z)


def _embedded(law: LawField, small: Tensor, lead: int) -> Tensor:
    """Maps (S, n, n) that act on the leading harmonics as maps (S, C lead, C lead), and as the identity on others."""
    channels, count = law.channels, len(law.library.eigenvalues)
    result = torch.eye(channels * count).to(small).repeat(len(small), 1, 1)
    index = (torch.arange(channels)[:, None] * count + torch.arange(lead)).flatten()
    result[:, index[:, None], index] = small
    return result


def states_of_rest(u: np.ndarray) -> list[list[float]]:
    """Lower and upper bounds of channels that many values of fields u (S, T, N, C) are close to, infinite if there is
    none, and ranges of values, (C, 3): candidates for states of rest, which may be unstable. Empty without any."""
    low, high = np.nanmin(u, (0, 1, 2)), np.nanmax(u, (0, 1, 2))
    at = [np.nanmean(abs(u - end) <= _AT_REST[0] * (high - low), (0, 1, 2)) > _AT_REST[1] for end in (low, high)]
    bounds = np.where(at[0], low, -_UNBOUNDED), np.where(at[1], high, _UNBOUNDED), high - low
    return np.stack(bounds, 1).tolist() if np.any(at) else []
