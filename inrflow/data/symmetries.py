"""Symmetries: transformations of space and values that map solutions of a system to solutions.

A continuous symmetry is given by its generator, dx/ds = G x + g and du/ds = R u; a discrete one by its map,
x -> A x + b and u -> Q u. Values are transformed linearly, without offset. Training data are augmented by random
elements of the generated group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from inrflow.errors import UserError

NAMES = ("translation", "reflection", "exchange", "rotation_z")
_SMALL = 1e-9  # entries below it count as zero when a generator is classified
_REACH = 0.1  # an unbounded generator moves points by at most this fraction of the extent


class Domain(Protocol):
    """What named symmetries depend on, as inrflow.data.description.Description has it."""

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def coordinates(self) -> tuple[str, ...]: ...
    @property
    def period(self) -> tuple[float, ...] | None: ...
    @property
    def geometry(self) -> str | None: ...
    @property
    def symmetries(self) -> Symmetries: ...


@dataclass(frozen=True)
class Transformations:
    """`count` elements of a symmetry group: x -> A x + b, u -> Q u; A (count, d, d), b (count, d), Q (count, C, C)."""

    A: np.ndarray
    b: np.ndarray
    Q: np.ndarray

    def __len__(self) -> int:
        return len(self.A)

    def apply(self, x: Any, u: Any) -> tuple[Any, Any]:
        """Transform x (count, ..., d) and u (count, ..., C), numpy or torch; dtypes are kept.

        Channels that depend on a missing (NaN) value become missing.
        """
        if len(x) != len(self) or len(u) != len(self):
            raise ValueError(f"x and u have {len(x)} and {len(u)} leading entries for {len(self)} transformations")
        if isinstance(x, torch.Tensor):
            A, b, Q = (torch.as_tensor(m, dtype=v.dtype, device=v.device)
                       for m, v in ((self.A, x), (self.b, x), (self.Q, u)))
            moved = torch.einsum("bij,b...j->b...i", A, x) + b.reshape(len(b), *[1] * (x.ndim - 2), -1)
            missing = torch.isnan(u)
            turned = torch.einsum("bij,b...j->b...i", Q, torch.where(missing, 0.0, u))
            depends = (Q.abs() > _SMALL).to(u.dtype)
            lost = torch.einsum("bij,b...j->b...i", depends, missing.to(u.dtype)) > 0
            return moved, torch.where(lost, torch.nan, turned)
        moved = np.einsum("bij,b...j->b...i", self.A, x) + self.b.reshape(len(self), *[1] * (x.ndim - 2), -1)
        missing = np.isnan(u)
        turned = np.einsum("bij,b...j->b...i", self.Q, np.where(missing, 0.0, u))
        lost = np.einsum("bij,b...j->b...i", np.abs(self.Q) > _SMALL, missing)
        return moved.astype(x.dtype, copy=False), np.where(lost, np.nan, turned).astype(u.dtype, copy=False)


@dataclass(frozen=True, eq=False)
class Symmetries:
    """Declared symmetries of a system with d coordinates and C channels.

    generators (K, d, d+1): rows of (G | g); generators_channels (K, C, C): R; maps (M, d, d+1): rows of (A | b);
    maps_channels (M, C, C): Q; names: K + M labels, inferred where not given (translation_x, rotation_z,
    reflection_x, exchange_xy, else generator_0, map_0).
    Raises UserError where shapes disagree, values are not finite, or a map cannot be inverted.
    """

    generators: np.ndarray
    generators_channels: np.ndarray
    maps: np.ndarray
    maps_channels: np.ndarray
    names: tuple[str, ...] = ()
    coordinates: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for key in ("generators", "generators_channels", "maps", "maps_channels"):
            try:
                value = np.array(getattr(self, key), np.float64)
            except (TypeError, ValueError) as error:
                raise UserError(f"symmetries/{key} holds no numbers ({error}); give finite arrays of 3 axes") from None
            if value.ndim != 3 or not np.isfinite(value).all():
                raise UserError(f"symmetries/{key} has shape {value.shape} or values that are not finite; "
                                "give a finite array of 3 axes")
            value.setflags(write=False)
            object.__setattr__(self, key, value)
        d, channels = self.d, self.channels
        for key, shape in (("generators", (len(self.generators), d, d + 1)), ("maps", (len(self.maps), d, d + 1)),
                           ("generators_channels", (len(self.generators), channels, channels)),
                           ("maps_channels", (len(self.maps), channels, channels))):
            if getattr(self, key).shape != shape:
                raise UserError(f"symmetries/{key} has shape {getattr(self, key).shape}; expected {shape}")
        for index, A in enumerate(self.maps[:, :, :d]):
            if abs(np.linalg.det(A)) < _SMALL or abs(np.linalg.det(self.maps_channels[index])) < _SMALL:
                raise UserError(f"symmetries/maps[{index}] or its channel map is singular; a symmetry is invertible")
        if self.coordinates and len(self.coordinates) != d:
            raise UserError(f"symmetries act on {d} coordinates but there are {len(self.coordinates)}: "
                            f"{', '.join(self.coordinates)}; make them agree")
        if not self.names:
            object.__setattr__(self, "names", self._inferred_names())
        if len(self.names) != len(self):
            raise UserError(f"symmetries have {len(self)} members but {len(self.names)} names")

    @property
    def d(self) -> int:
        """The number of coordinates."""
        return self.generators.shape[1]

    @property
    def channels(self) -> int:
        """The number of channels C."""
        return self.generators_channels.shape[1]

    def __len__(self) -> int:
        return len(self.generators) + len(self.maps)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Symmetries):
            return NotImplemented
        return self.names == other.names and all(
            np.array_equal(getattr(self, key), getattr(other, key))
            for key in ("generators", "generators_channels", "maps", "maps_channels"))

    def __hash__(self) -> int:
        return hash(self.names)

    # ---- construction ----

    @classmethod
    def empty(cls, d: int, channels: int) -> Symmetries:
        """No symmetries, for d coordinates and `channels` channels."""
        return cls(np.zeros((0, d, d + 1)), np.zeros((0, channels, channels)),
                   np.zeros((0, d, d + 1)), np.zeros((0, channels, channels)))

    @classmethod
    def asked(cls, wanted: object, domain: Domain, box: np.ndarray) -> Symmetries:
        """The symmetries that a described domain declares ("declared", None), none of them ("none"), or named ones."""
        if wanted in ("declared", None):
            return domain.symmetries
        if wanted == "none":
            return domain.symmetries.only([])
        names = [str(name) for name in wanted] if isinstance(wanted, list | tuple) else [str(wanted)]
        if len(domain.symmetries):
            with suppress(UserError):  # of other names than those declared
                return domain.symmetries.only(names)
        return cls.by_name(names, domain, box)

    @classmethod
    def by_name(cls, names: str | Iterable[str], domain: Domain,
                box: np.ndarray | None = None) -> Symmetries:
        """The named symmetries of the described domain, all channels taken as scalars.

        translation: along every coordinate; reflection: of every axis, about the origin where periodic and about the
        middle of `box` (2, d: lowest and highest coordinates) where not and where it is given; exchange: of every two
        axes of equal period; rotation_z: about the third axis of a sphere. Raises UserError for unknown names and for
        symmetries that the domain cannot have.
        """
        names = [names] if isinstance(names, str) else list(names)
        d, channels = len(domain.coordinates), len(domain.channels)
        sphere = domain.geometry == "sphere"
        period = np.zeros(d) if domain.period is None else np.array(domain.period)
        generators: list[np.ndarray] = []
        maps: list[np.ndarray] = []
        for name in names:
            if name == "translation" and not sphere:
                for axis in range(d):
                    generator = np.zeros((d, d + 1))
                    generator[axis, d] = 1.0
                    generators.append(generator)
            elif name == "reflection":
                for axis in range(d):
                    reflection = np.eye(d, d + 1)
                    reflection[axis, axis] = -1.0
                    if box is not None and period[axis] == 0 and not sphere:
                        reflection[axis, d] = box[0][axis] + box[1][axis]
                    maps.append(reflection)
            elif name == "exchange" and not sphere:
                pairs = [(i, j) for i in range(d) for j in range(i + 1, d) if np.isclose(period[i], period[j])]
                if not pairs:
                    raise UserError(f"symmetry exchange needs two axes of equal period; {domain.name} has "
                                    f"coordinates {', '.join(domain.coordinates)} with period {period.tolist()}")
                for i, j in pairs:
                    exchange = np.eye(d, d + 1)
                    exchange[[i, j]] = exchange[[j, i]]
                    maps.append(exchange)
            elif name == "rotation_z" and sphere:
                rotation = np.zeros((d, d + 1))
                rotation[0, 1], rotation[1, 0] = -1.0, 1.0
                generators.append(rotation)
            elif name in NAMES:
                kind = "a sphere" if sphere else "no sphere"
                raise UserError(f"symmetry {name} does not apply to {domain.name}, whose domain is {kind}; "
                                f"choose from {'reflection, rotation_z' if sphere else ', '.join(NAMES[:3])}")
            else:
                raise UserError(f"unknown symmetry {name!r}; choose from {', '.join(NAMES)}, or declared, or none")
        identity = np.eye(channels)
        return cls(np.array(generators).reshape(-1, d, d + 1), np.zeros((len(generators), channels, channels)),
                   np.array(maps).reshape(-1, d, d + 1), np.tile(identity, (len(maps), 1, 1)),
                   coordinates=domain.coordinates)

    def only(self, names: str | Sequence[str]) -> Symmetries:
        """The symmetries whose label or family is named: `reflection` stands for reflection_x, reflection_y and so on.

        Raises UserError where a name matches none.
        """
        keep = self._named(names)
        K = len(self.generators)
        return Symmetries(self.generators[keep[:K]], self.generators_channels[keep[:K]], self.maps[keep[K:]],
                          self.maps_channels[keep[K:]], tuple(np.array(self.names, object)[keep]), self.coordinates)

    def without(self, names: str | Sequence[str]) -> Symmetries:
        """All but the named ones (label or family, as for `only`)."""
        drop = self._named(names)
        return self.only([name for name, gone in zip(self.names, drop, strict=True) if not gone])

    def _named(self, names: str | Sequence[str]) -> np.ndarray:
        names = [names] if isinstance(names, str) else list(names)
        found = np.zeros(len(self), bool)
        for name in names:
            matches = np.array([label == name or label.startswith(f"{name}_") for label in self.names], bool)
            if not matches.any():
                raise UserError(f"no symmetry named {name!r} is declared; there are: {', '.join(self.names) or 'none'}")
            found |= matches
        return found

    def _inferred_names(self) -> tuple[str, ...]:
        d = self.d
        axes = self.coordinates or (tuple("xyz"[:d]) if d <= 3 else tuple(f"x{axis}" for axis in range(d)))
        names = [_generator_name(G, axes) or f"generator_{k}" for k, G in enumerate(self.generators)]
        names += [_map_name(A[:, :d], axes) or f"map_{m}" for m, A in enumerate(self.maps)]
        return tuple(name if names.count(name) == 1 else f"{name}_{names[:index].count(name)}"
                     for index, name in enumerate(names))

    # ---- storage ----

    def to_dict(self) -> dict[str, Any]:
        """As plain lists, for JSON."""
        return {"generators": self.generators.tolist(), "generators_channels": self.generators_channels.tolist(),
                "maps": self.maps.tolist(), "maps_channels": self.maps_channels.tolist(), "names": list(self.names),
                "coordinates": list(self.coordinates), "d": self.d, "channels": self.channels}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Symmetries:
        """The inverse of `to_dict`."""
        d, channels = stored["d"], stored["channels"]
        spaces = np.array(stored["generators"]).reshape(-1, d, d + 1), np.array(stored["maps"]).reshape(-1, d, d + 1)
        values = (np.array(stored["generators_channels"]).reshape(-1, channels, channels),
                  np.array(stored["maps_channels"]).reshape(-1, channels, channels))
        return cls(spaces[0], values[0], spaces[1], values[1], tuple(stored["names"]), tuple(stored["coordinates"]))

    # ---- random elements ----

    def sample(self, rng: np.random.Generator, count: int, extent: Any, period: Any = None) -> Transformations:
        """`count` random elements of the generated group, for a domain of size extent (d,) and period (d,) or None.

        Each continuous symmetry acts with a parameter drawn uniformly: a translation along periodic directions over the
        whole period, a rotation over the full turn, an unbounded one so that it moves points by at most 10 % of the
        extent. Each discrete one acts with probability 1/2. They act in random order.
        """
        d, channels, K, M = self.d, self.channels, len(self.generators), len(self.maps)
        extent = np.broadcast_to(np.asarray(extent, np.float64), (d,))
        period = np.zeros(d) if period is None else np.broadcast_to(np.asarray(period, np.float64), (d,))
        space = np.tile(np.eye(d + 1), (count, K + M, 1, 1))
        values = np.tile(np.eye(channels), (count, K + M, 1, 1))
        for k in range(K):
            low, high = _parameter_range(self.generators[k], self.generators_channels[k], extent, period)
            s = rng.uniform(low, high, count)[:, None, None]
            moving = np.zeros((d + 1, d + 1))
            moving[:d] = self.generators[k]
            space[:, k] = torch.linalg.matrix_exp(torch.as_tensor(s * moving)).numpy()
            values[:, k] = torch.linalg.matrix_exp(torch.as_tensor(s * self.generators_channels[k])).numpy()
        for m in range(M):
            acts = rng.random(count) < 0.5
            space[acts, K + m, :d] = self.maps[m]
            values[acts, K + m] = self.maps_channels[m]
        order = rng.permuted(np.tile(np.arange(K + M), (count, 1)), axis=1)
        rows = np.arange(count)
        moved, turned = np.tile(np.eye(d + 1), (count, 1, 1)), np.tile(np.eye(channels), (count, 1, 1))
        for position in range(K + M):
            moved = space[rows, order[:, position]] @ moved
            turned = values[rows, order[:, position]] @ turned
        return Transformations(moved[:, :d, :d], moved[:, :d, d], turned)


def _parameter_range(generator: np.ndarray, turning: np.ndarray, extent: np.ndarray,
                     period: np.ndarray) -> tuple[float, float]:
    """Interval of the parameter s of one continuous symmetry, from which random elements are drawn."""
    d = len(generator)
    G, g = generator[:, :d], generator[:, d]
    along = np.abs(g) > _SMALL
    if np.abs(G).max(initial=0.0) <= _SMALL and along.any():
        if (period[along] > 0).all():
            return 0.0, float((period[along] / np.abs(g[along])).max())
        bounded = along & (period <= 0)
        reach = _REACH * float((extent[bounded] / np.abs(g[bounded])).min())
        return -reach, reach
    # A rotation of space, or, where points stay, of the values alone: purely imaginary eigenvalues, closed after 2 pi.
    acting = G if np.abs(G).max(initial=0.0) > _SMALL else turning
    eigenvalues = np.linalg.eigvals(acting)
    turns = np.abs(eigenvalues.imag)[np.abs(eigenvalues.imag) > _SMALL]
    if len(turns) and np.abs(eigenvalues.real).max() <= _SMALL:
        return 0.0, float(2 * np.pi / turns.min())
    size = float(np.linalg.norm(acting, 2)) if acting.size else 0.0
    return (-_REACH / size, _REACH / size) if size > _SMALL else (0.0, 0.0)


def _joined(names: Sequence[str]) -> str:
    return "".join(names) if all(len(name) == 1 for name in names) else "_".join(names)


def _generator_name(generator: np.ndarray, axes: Sequence[str]) -> str | None:
    d = len(axes)
    G, g = generator[:, :d], generator[:, d]
    if np.abs(G).max(initial=0.0) <= _SMALL and np.abs(g).max(initial=0.0) > _SMALL:
        return f"translation_{_joined([axis for axis, step in zip(axes, g, strict=True) if abs(step) > _SMALL])}"
    turned = [(i, j) for i in range(d) for j in range(i + 1, d) if abs(G[i, j]) > _SMALL]
    if np.abs(G + G.T).max() <= _SMALL and len(turned) == 1:
        kept = [axes[axis] for axis in range(d) if axis not in turned[0]]
        return f"rotation_{kept[0]}" if len(kept) == 1 else f"rotation_{_joined([axes[i] for i in turned[0]])}"
    return None


def _map_name(A: np.ndarray, axes: Sequence[str]) -> str | None:
    d = len(axes)
    for i in range(d):
        for j in range(i, d):
            expected = np.eye(d)
            if i == j:
                expected[i, i] = -1.0
            else:
                expected[[i, j]] = expected[[j, i]]
            if np.abs(A - expected).max() <= _SMALL:
                return f"reflection_{axes[i]}" if i == j else f"exchange_{_joined((axes[i], axes[j]))}"
    return None
