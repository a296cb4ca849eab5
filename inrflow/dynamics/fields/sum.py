"""Vector fields dz/dt = sum_k f_k(t, z; c): ordered sums of registered terms.

A state is the code z of the decoded field, followed by delayed codes if a single frame does not determine the state,
and by the context c, which is constant along a trajectory (parameters of an equation, an environment): dc/dt = 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib import import_module
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fields.base import TERMS, FieldTerm
from inrflow.dynamics.fields.linear import ForcingTerm, LinearTerm
from inrflow.dynamics.fields.network import NetworkTerm
from inrflow.dynamics.fields.step_map import StepMapTerm  # noqa: F401  registers it
from inrflow.errors import UserError
from inrflow.numerics.phases import periodic_phases, rotation

T = TypeVar("T", bound=FieldTerm)
_BLOCK = 2**23  # elements of the matrix exponentials computed at once: 64 MiB
_GONE = {"local": "a local equation", "couplings": "sparse products"}  # terms of earlier versions
_ELSEWHERE = {"law": "inrflow.dynamics.laws.term"}  # terms of the package that are imported on demand


class VectorField(nn.Module):
    """A sum of terms as a function of states (..., n + P) and times t, () or (...,), both in internal units.

    Args:
        state_size: n, code and delayed codes together.
        terms: in the order of summation.
        context_size: P, constant components at the end of a state.

    Attributes:
        is_linear_at_context: whether the field is affine in code and delayed codes for a given context.
        is_linear: whether it is affine in the whole state, with the same matrix at all times.
    """

    def __init__(self, state_size: int, terms: Iterable[FieldTerm] = (), context_size: int = 0) -> None:
        super().__init__()
        self.state_size, self.context_size = state_size, context_size
        self.terms = nn.ModuleDict()
        self.is_linear_at_context, self.is_linear = True, not context_size
        for term in terms:
            self.add(term)

    @classmethod
    def of(
        cls, state_size: int, *, linear: bool = True, forcing_period: float = 0.0, forcing_harmonics: int = 2,
        depth: int = 0, width: int = 256, swish: bool = False, context_size: int = 0,
    ) -> VectorField:
        """A field of built-in terms, in a fixed order; terms of size 0 are left out. See their classes."""
        terms: list[FieldTerm] = []
        if linear:
            terms.append(LinearTerm(state_size, context_size))
        if forcing_period:
            terms.append(ForcingTerm(state_size, forcing_period, forcing_harmonics, context_size))
        if depth:
            terms.append(NetworkTerm(state_size, width, depth, context_size, forcing_period, forcing_harmonics, swish))
        return cls(state_size, terms, context_size)

    def add(self, term: FieldTerm) -> None:
        """Append a term. The second term of a class is saved as `name_2`, and so on."""
        name = term.name or type(term).__name__
        count = sum(type(other) is type(term) for other in self.terms.values())
        self.terms[f"{name}_{count + 1}" if count else name] = term
        self.is_linear_at_context &= term.degree in (0, 1)
        self.is_linear &= self.is_linear_at_context

    def get(self, kind: type[T]) -> T | None:
        """The first term of a class, or None."""
        return next((term for term in self.terms.values() if isinstance(term, kind)), None)

    def term(self, kind: type[T]) -> T:
        """The first term of a class. Raises LookupError if there is none."""
        found = self.get(kind)
        if found is None:
            raise LookupError(f"the vector field has no {kind.__name__}")
        return found

    @property
    def linear(self) -> LinearTerm:
        """The affine term."""
        return self.term(LinearTerm)

    @property
    def has_exact_flow(self) -> bool:
        """Whether `exact_flow` applies: all terms are affine or a periodic forcing."""
        return all(term.degree == 1 or isinstance(term, ForcingTerm) for term in self.terms.values())

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """Rates (..., n + P); those of the context are 0."""
        z, c = self._parts(state)
        t = torch.as_tensor(t)
        rates = [term(t, z, c) for term in self.summands]
        if not rates:
            return torch.zeros_like(state)
        rate = sum(rates[1:], rates[0])
        return rate if c is None else torch.cat([rate, torch.zeros_like(c)], -1)

    def jacobian(self, t: Tensor, state: Tensor) -> Tensor:
        """Derivative (S, n + P, n + P) of the rates by states (S, n + P) at times t (S,), without gradients."""
        z, c = self._parts(state)
        n, total = self.state_size, torch.zeros(len(z), state.shape[1], state.shape[1]).to(state)
        with torch.no_grad():
            for term in self.summands:
                total[:, :n, :n] += term.jacobian(t, z, c)
            if c is not None:  # every term is affine in the context
                contexts = torch.cat([torch.zeros(1, self.context_size), torch.eye(self.context_size)]).to(c)
                rates = torch.stack([self(t, torch.cat([z, one.expand_as(c)], 1))[:, :n] for one in contexts])
                total[:, :n, n:] = (rates[1:] - rates[0]).permute(1, 2, 0)
        return total

    def known_codes(self, t: Tensor) -> Tensor | None:
        """The leading k codes (..., k) that are functions of time alone, at times t (...,); None if there are none."""
        series = self.get(AutoregressionTerm)
        return series.phases(t) if series is not None and series.known else None

    def matrix_at(self, context: Tensor | None = None) -> Tensor:
        """Matrix A(c) (..., n, n) of the affine terms at contexts (..., P) or without; without gradients."""
        like = next(self.parameters())
        shape = () if context is None else context.shape[:-1]
        c = None if context is None or not self.context_size else context.reshape(-1, self.context_size)
        zero = torch.zeros(math.prod(shape), self.state_size).to(like)
        total = torch.zeros(len(zero), self.state_size, self.state_size).to(like)
        with torch.no_grad():
            for term in self.summands:
                if term.degree == 1:
                    total += term.jacobian(zero[:, 0], zero, c)
        return total.reshape(*shape, self.state_size, self.state_size)

    def exact_flow(self, start: Tensor, begin: Tensor, gap: Tensor) -> Tensor:
        """States (S, n + P) at `gap` (S,) after times `begin` (S,), from `start` (S, n + P), for a field with
        `has_exact_flow`; without gradients.

        One exponential for each distinct pair of context and gap, by scaling and squaring (torch.linalg.matrix_exp),
        whose cost grows with the logarithm of the gap. The phases of a periodic forcing, harmonic oscillators, are
        appended to the state.
        """
        n = self.state_size
        context, z = start[:, n:].double(), start[:, :n].double()
        forcing = [term for term in self.summands if isinstance(term, ForcingTerm)]
        phases = [periodic_phases(begin, term.period, term.harmonics) for term in forcing]
        extended = torch.cat([z, torch.ones_like(z[:, :1]), *phases], 1)
        distinct, which = torch.unique(torch.cat([context, gap.double()[:, None]], 1), dim=0, return_inverse=True)
        size, end = extended.shape[1], z.clone()
        for rows in torch.arange(len(distinct)).split(max(1, _BLOCK // size**2)):
            generator = self._generator(forcing, distinct[rows, :-1], size)
            flow = torch.linalg.matrix_exp(generator * distinct[rows, -1, None, None])[:, :n]
            mine = ((which >= rows[0]) & (which <= rows[-1])).nonzero()[:, 0]
            end[mine] = (flow[which[mine] - rows[0]] @ extended[mine, :, None])[..., 0]
        return torch.cat([end.to(start), start[:, n:]], 1)

    def _generator(self, forcing: list[ForcingTerm], context: Tensor, size: int) -> Tensor:
        """Generators (D, size, size) of [z, 1, phases] at contexts (D, P)."""
        n, rows = self.state_size, len(context)
        like = next(self.parameters())
        result = torch.zeros(rows, size, size, dtype=torch.float64, device=like.device)
        c = context.to(like) if self.context_size else None
        with torch.no_grad():
            zero, now, place = torch.zeros(rows, n).to(like), torch.zeros(rows).to(like), n + 1
            for term in self.summands:
                if term.degree == 1:
                    result[:, :n, :n] += term.jacobian(now, zero, c)
                    result[:, :n, n] += term(now, zero, c)
            for term in forcing:
                own = slice(place, place + 2 * term.harmonics)
                result[:, :n, own], place = term.weight_at(c), own.stop
                result[:, own, own] = rotation([term.period], [term.harmonics])
        return result

    def set_linear(self, matrix: Tensor, bias: Tensor, forcing: Tensor | None = None) -> None:
        """Set the affine term's matrix (n, n) and bias (n,), and the forcing's coefficients (n, 2 K)."""
        self.linear.set(matrix, bias)
        if forcing is not None:
            self.term(ForcingTerm).set(forcing)

    def structure(self) -> dict[str, Any]:
        """Plain values from which `from_structure` rebuilds the field. Raises UserError as `term_structure`."""
        return {
            "state_size": self.state_size, "context_size": self.context_size,
            "terms": [term_structure(term) for term in self.summands],
        }

    @classmethod
    def from_structure(cls, structure: dict[str, Any]) -> VectorField:
        """Field with a given structure and untrained parameters. Raises UserError as `build_term`."""
        terms = [build_term(one) for one in structure["terms"]]
        return cls(structure["state_size"], terms, structure["context_size"])

    @property
    def summands(self) -> Iterable[FieldTerm]:
        """The terms in the order of summation."""
        return cast("Iterable[FieldTerm]", self.terms.values())

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.context_size:
            return state, None
        return state[..., : self.state_size], state[..., self.state_size :]


def term_structure(term: FieldTerm) -> dict[str, Any]:
    """Name and constructor arguments of a term. Raises UserError if its class is not registered."""
    if TERMS.get(term.name) is not type(term):
        raise UserError(f'the term {type(term).__name__} is not registered: decorate its class with '
                        '@register_term("name") to save a field that has it')
    return {"term": term.name, **term.structure()}


def build_term(structure: dict[str, Any]) -> FieldTerm:
    """Term with a given structure and untrained parameters. Raises UserError if its name is unknown."""
    arguments = dict(structure)
    name = arguments.pop("term")
    if name in _GONE:
        raise UserError(f"the vector field has {_GONE[name]} of an earlier version of inrflow, which this version does "
                        "not have; train again")
    if name in _ELSEWHERE:
        import_module(_ELSEWHERE[name])
    if name not in TERMS:
        raise UserError(f"the vector field has a term {name!r}, which is not registered; import the module that "
                        f'defines it with @register_term("{name}") first (registered: {", ".join(sorted(TERMS))})')
    try:
        return TERMS[name](**arguments)
    except TypeError as error:
        raise UserError(f"the saved term {name!r} does not fit its class {TERMS[name].__name__} ({error}); load it "
                        "with the version of the class that saved it") from error
