"""Domain and Harmonics: where a field lives, and the eigenfunctions of the Laplacian there."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast
from weakref import WeakValueDictionary

import numpy as np

from inrflow.errors import UserError

NATURAL, HELD = "natural", "held"  # no flux through the boundary; zero on the boundary
BOUNDARIES = (NATURAL, HELD)
LEAKY = "leaky "  # followed by numbers h, one for each part of a boundary, as in "leaky 0/2.5/inf": du/dn = -h u
STEADY = "steady"  # held at values that do not change in time, of walls of boxes: codes carry them
_NOTHING = 1e-9  # values of harmonics, whose mean square is 1
_TIE = 1e-9  # eigenvalues closer than this, relative, are the same
_EDGE = 0.05  # spacings outside that still count as inside: cells have straight sides, walls are curved


@dataclass(frozen=True)
class Quadrature:
    """Points (Q, d) and weights (Q,) of integrals over a domain, with harmonics (Q, K) and gradients (Q, K, d) there.

    Weights sum to one: integrals are means over the domain.
    """

    points: np.ndarray
    weights: np.ndarray
    values: np.ndarray
    gradients: np.ndarray


class Harmonics(ABC):
    """K eigenfunctions of the Laplacian of a domain, -lap psi_k = lambda_k psi_k, by increasing eigenvalue.

    Orthonormal with respect to the mean over the domain: a field's mean square is the squared norm of its coefficients.
    """

    eigenvalues: np.ndarray  # (K,)
    count: int  # K
    components: ClassVar[int] = 1  # channels that share a code
    steady: int = 0  # how many of the last codes are constant in time
    allowed: np.ndarray | None = None  # (C, K): whether a channel's codes use a harmonic; None: every one does
    vectors: dict[int, tuple[str, ...]] | None = None  # first channels of what may be a vector without divergence, and
    # the conditions of this at each axis: natural where the vector slips along walls, held where it sticks; None: any

    def own(self, channel: int, moving: bool = False) -> np.ndarray:
        """Numbers of the harmonics that codes of a channel use; moving: without those that are constant in time."""
        every = np.arange(self.count) if self.allowed is None else np.flatnonzero(
            self.allowed[channel % len(self.allowed)])
        return every[every < self.count - self.steady] if moving else every

    def reached(self, x: np.ndarray) -> float:
        """Share of points (N, d) at which not all that changes in time vanishes, as it does where it is held; of the
        channel that has the fewest."""
        if self.components > 1:
            return 1.0
        seen, channels = np.abs(self.values(x)) > _NOTHING, 1 if self.allowed is None else len(self.allowed)
        return min(float(seen[:, self.own(c, moving=True)].any(1).mean()) for c in range(channels))

    @abstractmethod
    def values(self, x: np.ndarray) -> np.ndarray:
        """psi_k at points (N, d): (N, K)."""

    @abstractmethod
    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Gradients of psi_k at points (N, d): (N, K, d)."""

    @abstractmethod
    def quadrature(self, degree: int = 2) -> Quadrature:
        """Quadrature that projects products of `degree` harmonics onto harmonics (exactly on boxes and spheres)."""

    @abstractmethod
    def lowest(self, count: int) -> Harmonics:
        """About `count` of the lowest natural harmonics of the same domain, the constant first."""


class Domain(ABC):
    """A set of places in d dimensions. A class of its own `kind` is known to `from_state` by being defined."""

    kind: ClassVar[str]
    dimensions: int
    curved: ClassVar[bool] = False  # a surface in space, where derivatives along single coordinates mean nothing

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            KINDS[cls.kind] = cls

    @abstractmethod
    def harmonics(self, count: int, boundary: str = NATURAL) -> Harmonics:
        """About `count` harmonics: eigenspaces of multiple eigenvalues are kept whole where they are known."""

    @property
    def bounded(self) -> bool:
        """Whether it has a boundary."""
        return True

    def harmonics_up_to(self, eigenvalue: float, boundary: str = NATURAL, guess: int = 64) -> Harmonics:
        """All harmonics up to an eigenvalue, or as many as the domain's elements have; `guess`: how many these are."""
        size, before = guess, 0
        while True:
            some = self.harmonics(size, boundary)
            low = int((some.eigenvalues <= eigenvalue * (1 + _TIE)).sum())
            if low < some.count or some.count == before:
                return self.harmonics(max(low, 1), boundary)
            size, before = 2 * size, some.count

    @abstractmethod
    def distance(self, x: np.ndarray) -> np.ndarray:
        """Distances (N,) of points (N, d) to the domain, 0 inside."""

    @property
    @abstractmethod
    def spacing(self) -> float:
        """Length of the smallest detail of the boundary that is known: the size of a cell, rounding of limits."""

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Whether points (N, d) lie in the domain, its boundary included: (N,) of bool."""
        return self.distance(x) <= _EDGE * self.spacing

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Its kind, and the arrays and plain values that its class is made of again."""

    def _check(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != self.dimensions:
            raise UserError(f"points have shape {x.shape}; expected (N, {self.dimensions}) on this {self.kind}")
        return x


def check_boundary(boundary: str) -> str:
    """The boundary condition itself; UserError where its name is unknown."""
    if boundary not in BOUNDARIES and not boundary.startswith(LEAKY):
        raise UserError(f"boundary is {boundary!r}; give one of {', '.join(BOUNDARIES)}")
    return boundary


KINDS: dict[str, type[Domain]] = {}
_D = TypeVar("_D", bound=Domain)
_LIVE: WeakValueDictionary[bytes, Domain] = WeakValueDictionary()  # whose harmonics need not be solved again


def from_state(state: Mapping[str, Any]) -> Domain:
    """The domain of a `state()`, the same one where it is in use; raises UserError where its kind is unknown."""
    live = _LIVE.get(_digest(state))
    if live is not None:
        return live
    values = dict(state)
    kind = values.pop("kind")
    if kind not in KINDS:
        raise UserError(f"a saved domain is of the kind {kind!r}; this version knows {', '.join(KINDS)}")
    return kept(KINDS[kind](**values))


def kept(domain: _D) -> _D:
    """The domain, or the equal one that is in use."""
    return cast(_D, _LIVE.setdefault(_digest(domain.state()), domain))  # of equal states: of one class


def _digest(state: Mapping[str, Any]) -> bytes:
    """The same for equal states, of arrays or of lists."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = np.asarray(state[name])
        value = value.astype(np.float64) if value.dtype.kind in "fiu" else value
        total.update(f"{name} {value.shape} {value.dtype}".encode() + value.tobytes())
    return total.digest()


def harmonics_of(state: Mapping[str, Any], count: int, boundary: str) -> Harmonics:
    """About so many harmonics of the domain of a `state()`."""
    return from_state(state).harmonics(count, boundary)


def plain(value: Any) -> Any:
    """Nested arrays and mappings as lists and dictionaries, fit for JSON; of a domain, its state."""
    if isinstance(value, Domain):
        return plain(value.state())
    if isinstance(value, Mapping):
        inner = value["state"] if set(value) == {"state"} else value
        return {key: plain(one) for key, one in inner.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
