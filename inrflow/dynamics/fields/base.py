"""Terms of vector fields: the protocol, and the registry of their classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

TERMS: dict[str, type[FieldTerm]] = {}
T = TypeVar("T", bound="type[FieldTerm]")


class FieldTerm(nn.Module):
    """One summand of dz/dt = sum_k f_k(t, z; c), affine in the context c.

    A subclass implements `forward` and is registered with `@register_term("name")`, so that fields with this term can
    be saved and loaded. It keeps every argument of its constructor as an attribute of the same name, or overrides
    `structure`.

    Attributes:
        degree: of the polynomial in z at given t and c: 0 if independent of z, 1 for affine with coefficients that are
            constant in time, 2 for quadratic, None for any other function.
        name: under which the class is registered.
    """

    degree: ClassVar[int | None] = None
    name: ClassVar[str] = ""

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Rates (..., n) of states z (..., n) at times t, () or (...,), and contexts c (..., P); internal time."""
        raise NotImplementedError

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Derivative (S, n, n) by z at times t (S,), states z (S, n), contexts c (S, P); automatic by default."""
        return torch.func.vmap(torch.func.jacrev(self, argnums=1))(t, z, *(() if c is None else (c,)))

    def structure(self) -> dict[str, Any]:
        """Arguments of the constructor as plain values fit for JSON."""
        return {name: getattr(self, name) for name in list(inspect.signature(type(self).__init__).parameters)[1:]}


def register_term(name: str) -> Callable[[T], T]:
    """Class decorator that registers a term under `name`. Raises ValueError if another class has that name."""

    def register(term: T) -> T:
        other = TERMS.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (term.__module__, term.__qualname__):
            raise ValueError(f"the term {name!r} is registered by {other.__module__}.{other.__qualname__}")
        term.name = name
        TERMS[name] = term
        return term

    return register
