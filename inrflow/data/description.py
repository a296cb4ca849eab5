"""Description of a data set: names, units, domain, symmetries; stored with every model trained on the data.

Symmetries are transformations of space and values that map solutions of a system to solutions. A continuous one is
given by its generator, dx/ds = G x + g and du/ds = R u; a discrete one by its map, x -> A x + b and u -> Q u. Values
are transformed linearly, without offset.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from inrflow.errors import UserError

GEOMETRIES = ("sphere",)
RESERVED = ("t", "trajectory")
NAMES = ("translation", "reflection", "exchange", "rotation_z")  # names of symmetries
NEGLIGIBLE = 1e-9  # entries of generators and maps below this count as zero
PLACE = "single_place"  # dummy coordinate, always 0, of data without places
FLAG = "extrapolated"  # a column of answers: 1 for places and times outside of the training data, else 0
FLAG_MEANING = {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "as_in_training extrapolated",
                "long_name": "whether training saw no such place or time"}  # attributes of CF
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}  # levels by quantity of answers


@dataclass(frozen=True, eq=False)
class Symmetries:
    """Declared symmetries of a system with d coordinates and C channels.

    generators (K, d, d+1): rows of (G | g); generators_channels (K, C, C): R; maps (M, d, d+1): rows of (A | b);
    maps_channels (M, C, C): Q; names: K + M labels, inferred if not given (translation_x, rotation_z,
    reflection_x, exchange_xy, else generator_0, map_0).
    Raises UserError if shapes disagree, values are not finite, or a map is singular.
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
            if abs(np.linalg.det(A)) < NEGLIGIBLE or abs(np.linalg.det(self.maps_channels[index])) < NEGLIGIBLE:
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
        """Number of coordinates."""
        return self.generators.shape[1]

    @property
    def channels(self) -> int:
        """Number of channels C."""
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
    def asked(cls, wanted: object, domain: Description, box: np.ndarray) -> Symmetries:
        """Requested symmetries of a described domain: all declared ("declared" or None), "none", or by name."""
        if wanted in ("declared", None):
            return domain.symmetries
        if wanted == "none":
            return domain.symmetries.only([])
        names = [str(name) for name in wanted] if isinstance(wanted, list | tuple) else [str(wanted)]
        if len(domain.symmetries):
            with suppress(UserError):  # names that are not declared
                return domain.symmetries.only(names)
        return cls.by_name(names, domain, box)

    @classmethod
    def by_name(cls, names: str | Iterable[str], domain: Description,
                box: np.ndarray | None = None) -> Symmetries:
        """Named symmetries of the described domain, with all channels as scalars.

        translation: along every coordinate; reflection: of every axis, about the origin, or the middle of `box` (2, d:
        lowest and highest coordinates) if that is given and the axis is not periodic; exchange: of axes of equal
        period; rotation_z: about the third axis of a sphere. Raises UserError for unknown names and for symmetries that
        the domain cannot have.
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
                pairs = [(i, j) for i in range(d) for j in range(i + 1, d) if np.isclose(period[i], period[j], atol=0)]
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
        """Symmetries selected by label or family: `reflection` selects reflection_x, reflection_y and so on.

        Raises UserError if a name matches none.
        """
        keep = self._named(names)
        K = len(self.generators)
        return Symmetries(self.generators[keep[:K]], self.generators_channels[keep[:K]], self.maps[keep[K:]],
                          self.maps_channels[keep[K:]], tuple(np.array(self.names, object)[keep]), self.coordinates)

    def without(self, names: str | Sequence[str]) -> Symmetries:
        """Symmetries other than those named (by label or family, as in `only`)."""
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
        """Conversion to plain lists, for JSON."""
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


@dataclass(frozen=True)
class Description:
    """Names, units and domain of a data set of d coordinates and C channels.

    period: d values in units of the coordinates, 0 if not periodic. geometry: "sphere" if coordinates are unit
    vectors. time_period: period of an external forcing (such as a year), in units of t. symmetries: transformations
    that map solutions to solutions, possibly none. Raises UserError if the parts are inconsistent.
    """

    name: str
    channels: tuple[str, ...]
    coordinates: tuple[str, ...]
    units: tuple[str, ...] | None = None
    time_units: str | None = None
    source: str | None = None
    licence: str | None = None
    period: tuple[float, ...] | None = None
    geometry: str | None = None
    time_period: float | None = None
    symmetries: Symmetries = field(default_factory=lambda: Symmetries.empty(0, 0))
    parameter_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("channels", "coordinates", "units", "parameter_names"):
            value = getattr(self, key)
            if value is not None:
                object.__setattr__(self, key, tuple(str(item) for item in value))
        d, channels = len(self.coordinates), len(self.channels)
        names = self.channels + self.coordinates + RESERVED
        if not channels or not d:
            raise UserError(f"{channels} channel names and {d} coordinate names are given; give one of each at least")
        if len(set(names)) < len(names) or not all(names):
            raise UserError(f"channels {list(self.channels)} and coordinates {list(self.coordinates)} must be "
                            f"different names, none empty and none of them {' or '.join(RESERVED)}; rename them")
        if slashed := [name for name in names if "/" in name]:  # names of files and of HDF5 and NetCDF datasets
            raise UserError(f"{', '.join(slashed)} cannot be the name of a channel or coordinate; rename it without /")
        if self.units is not None and len(self.units) != channels:
            raise UserError(f"units has {len(self.units)} values for {channels} channels; give one for each channel")
        if self.period is not None:
            object.__setattr__(self, "period", tuple(float(value) for value in self.period))
            if len(self.period) != d or not all(np.isfinite(value) and value >= 0 for value in self.period):
                raise UserError(f"period is {list(self.period)}; give {d} finite values, one for each coordinate, "
                                "0 where not periodic")
        if self.geometry is not None and self.geometry not in GEOMETRIES:
            raise UserError(f"geometry is {self.geometry!r}; known geometries are {', '.join(GEOMETRIES)}")
        if self.geometry == "sphere" and d != 3:
            raise UserError(f"geometry is sphere but there are {d} coordinates; unit vectors have 3, or "
                            "give longitude and latitude in degrees (in files by coordinates=[LON,LAT])")
        if self.time_period is not None:
            object.__setattr__(self, "time_period", float(self.time_period))
            if not (np.isfinite(self.time_period) and self.time_period > 0):
                raise UserError(f"time_period is {self.time_period:g}; give a positive number in units of t")
        if len(self.symmetries) == 0:
            object.__setattr__(self, "symmetries", Symmetries.empty(d, channels))
        if (self.symmetries.d, self.symmetries.channels) != (d, channels):
            raise UserError(f"symmetries act on {self.symmetries.d} coordinates and {self.symmetries.channels} "
                            f"channels, the data have {d} and {channels}")

    def same_system(self, other: Description) -> bool:
        """Whether another data set has the same channels and coordinates in the same order."""
        return (self.channels, self.coordinates) == (other.channels, other.coordinates)

    @property
    def placeless(self) -> bool:
        """Whether the data have no spatial coordinates: a time series, as of one sensor."""
        return self.coordinates == (PLACE,)

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the spatial coordinates; empty for data without places."""
        return () if self.placeless else self.coordinates

    @property
    def derivatives(self) -> list[str]:
        """Quantities of answers: the derivatives by each coordinate and time."""
        return [f"d{axis}" for axis in (*self.places, "t")]

    def answers(self, quantities: Sequence[str], remedy: str, further: Sequence[str] = ()) -> dict[str, list[str]]:
        """Names, by channel, of the columns of answers with some quantities: "" (values), std, q05, z_score, or those
        of `derivatives`. Raises UserError, with a remedy, if two of them and of `further` columns have the same name.
        """
        forms = ["d{}_" + one if one in self.derivatives else "{}_" + one if one else "{}" for one in quantities]
        named = {channel: [form.replace("{}", channel, 1) for form in forms] for channel in self.channels}
        names = [*further, *(name for own in named.values() for name in own)]
        if twice := next((name for name, count in Counter(names).items() if count > 1), None):
            raise UserError(f"{self.name} has a channel {twice}, which is the name of a column that answers add; "
                            f"{remedy}")
        return named

    @property
    def clash(self) -> str:
        """Sentence on a channel that is called as a column of answers, "" without."""
        try:
            self.answers(("", "std", *QUANTILES, "z_score", "observed", *self.derivatives),
                         "rename it before training: answers with both are refused", (FLAG,))
        except UserError as error:
            return str(error)
        return ""

    def require_places(self, what: str) -> None:
        """Check that the data have places, which `what` needs. Raises UserError."""
        if self.placeless:
            raise UserError(f"{what}, and {self.name} has a single one, without coordinates; give places of several "
                            "sensors as columns x, y or lon, lat, or with stations=FILE")

    @property
    def duration_units(self) -> str:
        """Units of durations: the units of t without their epoch; empty if unknown."""
        return (self.time_units or "").split(" since ")[0]

    @property
    def layout(self) -> str:
        """Channels and coordinates, for messages."""
        where = "a single place" if self.placeless else f"coordinates {', '.join(self.coordinates)}"
        return f"channels {', '.join(self.channels)} at {where}"

    def to_dict(self) -> dict[str, Any]:
        """Conversion to plain values, for JSON."""
        stored = {item.name: getattr(self, item.name) for item in fields(self)}
        stored["symmetries"] = self.symmetries.to_dict()
        return {key: list(value) if isinstance(value, tuple) else value for key, value in stored.items()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Description:
        """The inverse of `to_dict`."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                                  for key, value in stored.items()}
        values["symmetries"] = Symmetries.from_dict(stored["symmetries"])
        return cls(**values)


def without_answers(source: object, given: Iterable[str], channels: Sequence[str] | None = None) -> list[str]:
    """Names of the columns of a file without those that answers add to values or medians, which is told; all names
    if FLAG is not among them, or if the user names channels."""
    names = list(given)
    if channels or FLAG not in names:
        return names
    own = {name.removesuffix("_q50") for name in names}
    added = {FLAG, *(f"{name}_{what}" for name in own for what in ("std", "q05", "q95", "z_score", "observed"))}
    slopes = tuple(f"d{name}_d" for name in own)
    left = [name for name in names if name in added or name.startswith(slopes)]
    warnings.warn(f"{source} holds answers of inrflow, of which {', '.join(left)} {'is' if len(left) == 1 else 'are'} "
                  "left out; channels=[...] names what is taken", stacklevel=3)
    return [name for name in names if name not in left]


def _joined(names: Sequence[str]) -> str:
    return "".join(names) if all(len(name) == 1 for name in names) else "_".join(names)


def _generator_name(generator: np.ndarray, axes: Sequence[str]) -> str | None:
    d = len(axes)
    G, g = generator[:, :d], generator[:, d]
    if np.abs(G).max(initial=0.0) <= NEGLIGIBLE and np.abs(g).max(initial=0.0) > NEGLIGIBLE:
        return f"translation_{_joined([axis for axis, step in zip(axes, g, strict=True) if abs(step) > NEGLIGIBLE])}"
    turned = [(i, j) for i in range(d) for j in range(i + 1, d) if abs(G[i, j]) > NEGLIGIBLE]
    if np.abs(G + G.T).max() <= NEGLIGIBLE and len(turned) == 1:
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
            if np.abs(A - expected).max() <= NEGLIGIBLE:
                return f"reflection_{axes[i]}" if i == j else f"exchange_{_joined((axes[i], axes[j]))}"
    return None
