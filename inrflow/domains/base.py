"""Abstract bases: Domain, the spatial domain of a field, and Harmonics, the eigenfunctions of its Laplacian."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast
from weakref import WeakValueDictionary

import numpy as np

from inrflow.errors import UserError

NATURAL, HELD = "natural", "held"  # homogeneous Neumann (no flux) and Dirichlet (zero) conditions
BOUNDARIES = (NATURAL, HELD)
LEAKY = "leaky "  # Robin, du/dn = -h u: followed by h of each part of the boundary, as in "leaky 0/2.5/inf"
STEADY = "steady"  # Dirichlet with values that do not change in time, which codes represent
_NOTHING = 1e-9  # absolute values of harmonics (of mean square 1) below which they count as zero
_TIE = 1e-9  # relative difference below which eigenvalues are equal
_EDGE = 0.05  # distance, in spacings, up to which points still count as inside: straight cells cut curved walls


@dataclass(frozen=True)
class Quadrature:
    """Quadrature rule: points (Q, d), weights (Q,), and harmonics (Q, K) with gradients (Q, K, d) at the points.

    Weights sum to one, so that integrals are means over the domain.
    """

    points: np.ndarray
    weights: np.ndarray
    values: np.ndarray
    gradients: np.ndarray


class Harmonics(ABC):
    """First K eigenfunctions of the Laplacian of a domain, -lap psi_k = lambda_k psi_k, by increasing eigenvalue.

    Orthonormal with respect to the mean over the domain: a field's mean square is the squared norm of its coefficients.
    """

    eigenvalues: np.ndarray  # (K,)
    count: int  # K
    components: int = 1  # number of channels that share a code
    steady: int = 0  # number of trailing harmonics whose coefficients are constant in time
    allowed: np.ndarray | None = None  # mask (C, K): which harmonics each channel uses; None: all
    # first channel of each possible divergence-free vector -> boundary condition of its divergence along each axis:
    vectors: dict[int, tuple[str, ...]] | None = None  # natural for free-slip, held for no-slip walls; None: any

    def own(self, channel: int, moving: bool = False) -> np.ndarray:
        """Indices of the harmonics that a channel uses; with `moving`, only those whose coefficients vary in time."""
        every = np.arange(self.count) if self.allowed is None else np.flatnonzero(
            self.allowed[channel % len(self.allowed)])
        return every[every < self.count - self.steady] if moving else every

    def reached(self, x: np.ndarray) -> float:
        """Share of points (N, d) where some time-dependent harmonic is non-zero (all vanish on Dirichlet boundaries):
        the minimum over channels."""
        if self.components > 1:
            return 1.0
        seen, channels = np.abs(self.values(x)) > _NOTHING, 1 if self.allowed is None else len(self.allowed)
        return min(float(seen[:, self.own(c, moving=True)].any(1).mean()) for c in range(channels))

    @abstractmethod
    def values(self, x: np.ndarray) -> np.ndarray:
        """Values psi_k (N, K) at points (N, d)."""

    @abstractmethod
    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Gradients of psi_k (N, K, d) at points (N, d)."""

    @abstractmethod
    def quadrature(self, degree: int = 2) -> Quadrature:
        """Quadrature for projecting products of `degree` harmonics onto harmonics (exact on boxes and spheres)."""

    @abstractmethod
    def lowest(self, count: int) -> Harmonics:
        """About `count` harmonics of lowest eigenvalue with natural conditions on the same domain, constant first."""


class Domain(ABC):
    """Spatial domain in d dimensions. Subclasses that define `kind` are registered for `from_state`."""

    kind: ClassVar[str]
    dimensions: int
    curved: ClassVar[bool] = False  # curved surface, on which derivatives along single coordinates have no meaning

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            KINDS[cls.kind] = cls

    @abstractmethod
    def harmonics(self, count: int, boundary: str = NATURAL) -> Harmonics:
        """About `count` harmonics: eigenspaces of repeated eigenvalues are not split where they are known."""

    @property
    def bounded(self) -> bool:
        """Whether the domain has a boundary."""
        return True

    def harmonics_up_to(self, eigenvalue: float, boundary: str = NATURAL, guess: int = 64) -> Harmonics:
        """All harmonics up to an eigenvalue, limited by the number of finite elements; `guess`: initial count."""
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
        """Length scale to which the boundary is known, such as the mean cell size."""

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Boolean mask (N,) of the points (N, d) in the closed domain."""
        return self.distance(x) <= _EDGE * self.spacing

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Kind and constructor arguments (arrays and plain values), as read by `from_state`."""

    def _check(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != self.dimensions:
            raise UserError(f"points have shape {x.shape}; expected (N, {self.dimensions}) on this {self.kind}")
        return x


def check_boundary(boundary: str) -> str:
    """The name of a boundary condition, unchanged. Raises UserError if it is unknown."""
    if boundary not in BOUNDARIES and not boundary.startswith(LEAKY):
        raise UserError(f"boundary is {boundary!r}; give one of {', '.join(BOUNDARIES)}")
    return boundary


KINDS: dict[str, type[Domain]] = {}
_D = TypeVar("_D", bound=Domain)
_LIVE: WeakValueDictionary[bytes, Domain] = WeakValueDictionary()  # domains in use, which cache their harmonics


def from_state(state: Mapping[str, Any]) -> Domain:
    """Domain of a `state()`, the existing object if one is in use. Raises UserError if its kind is unknown."""
    live = _LIVE.get(_digest(state))
    if live is not None:
        return live
    values = dict(state)
    kind = values.pop("kind")
    if kind not in KINDS:
        raise UserError(f"a saved domain is of the kind {kind!r}; this version knows {', '.join(KINDS)}")
    return kept(KINDS[kind](**values))


def kept(domain: _D) -> _D:
    """The existing domain object of equal state if there is one, else the domain itself."""
    return cast(_D, _LIVE.setdefault(_digest(domain.state()), domain))  # equal states have equal classes


def _digest(state: Mapping[str, Any]) -> bytes:
    """Hash of a state, equal for arrays and lists of equal values."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = np.asarray(state[name])
        value = value.astype(np.float64) if value.dtype.kind in "fiu" else value
        total.update(f"{name} {value.shape} {value.dtype}".encode() + value.tobytes())
    return total.digest()


def harmonics_of(state: Mapping[str, Any], count: int, boundary: str) -> Harmonics:
    """About `count` harmonics of the domain of a `state()`."""
    return from_state(state).harmonics(count, boundary)


def plain(value: Any) -> Any:
    """Conversion of nested arrays and mappings (domains by their state) to lists and dictionaries, fit for JSON."""
    if isinstance(value, Domain):
        return plain(value.state())
    if isinstance(value, Mapping):
        inner = value["state"] if set(value) == {"state"} else value
        return {key: plain(one) for key, one in inner.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
