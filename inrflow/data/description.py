"""Description of a data set: names, units, domain, symmetries. It is stored with every model trained on the data."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from inrflow.data.symmetries import Symmetries
from inrflow.errors import UserError

GEOMETRIES = ("sphere",)
RESERVED = ("t", "trajectory")
PLACE = "single_place"  # the coordinate, 0, of data without places


@dataclass(frozen=True)
class Description:
    """Names, units and domain of a data set of d coordinates and C channels.

    period: d values in units of the coordinates, 0 where not periodic. geometry: "sphere" where coordinates are unit
    vectors. time_period: of an external forcing (a year, say), in units of t. symmetries: transformations that turn
    solutions into solutions, possibly none. Raises UserError where the parts do not fit together.
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
        if slashed := [name for name in names if "/" in name]:  # they name files, and datasets of HDF5 and NetCDF files
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
            raise UserError(f"geometry is sphere but there are {d} coordinates; unit vectors have 3")
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
        """Whether another data set has these channels and coordinates, in this order."""
        return (self.channels, self.coordinates) == (other.channels, other.coordinates)

    @property
    def placeless(self) -> bool:
        """Whether the data have no places, but a series of values, as of one sensor."""
        return self.coordinates == (PLACE,)

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the coordinates that say where a point is; none of data without places."""
        return () if self.placeless else self.coordinates

    def require_places(self, what: str) -> None:
        """Raise UserError where the data have no places, which `what` chooses or shows."""
        if self.placeless:
            raise UserError(f"{what}, and {self.name} has a single one: its data name no places; give those of several "
                            "sensors by columns x, y or lon, lat, or with stations=FILE")

    @property
    def duration_units(self) -> str:
        """Units of spans of time, those of t without their epoch; empty where they are not known."""
        return (self.time_units or "").split(" since ")[0]

    @property
    def layout(self) -> str:
        """Channels and coordinates, for messages."""
        where = "a single place" if self.placeless else f"coordinates {', '.join(self.coordinates)}"
        return f"channels {', '.join(self.channels)} at {where}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
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
