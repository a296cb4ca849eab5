"""Sine: a hidden unit of a law's network in a form; Input: an input of the network, computed from fields at a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

VALUE, SLOPE, LAPLACIAN, SMOOTHED = "value", "slope", "laplacian", "smoothed"
PLACE, COSINE, SINE = PLACES = "place", "cosine", "sine"
RATE, TRANSPORT, DIFFUSIVITY, FLUX, NONLOCAL = "rate", "transport", "diffusivity", "flux", "nonlocal"


@dataclass(frozen=True)
class Input:
    """Input of the network at a point: the value of a channel, its derivative along an axis, its Laplacian, or the
    channel smoothed over a length, (1 - length^2 lap)^-1 u; or the coordinate x along an axis, or the cosine or sine of
    x / length."""

    kind: str
    channel: int = 0
    axis: int = 0
    length: float = 0.0

    def written(self, channels: Sequence[str], coordinates: Sequence[str]) -> str:
        """The input as text, in names of channels and coordinates."""
        name, x = channels[self.channel], coordinates[self.axis]
        if self.kind in PLACES:
            return x
        return {VALUE: name, SLOPE: f"d{name}/d{x}", LAPLACIAN: f"lap {name}",
                SMOOTHED: f"{name} smoothed over {self.length:.2g}"}[self.kind]


@dataclass(frozen=True)
class Form:
    """How values f of a hidden unit enter a rate: as f, f du/dx_axis or f lap u of a channel u, df/dx_axis, lap f, or f
    smoothed over a length."""

    kind: str = RATE
    channel: int = 0
    axis: int = 0
    length: float = 0.0

    def written(self, channels: Sequence[str], coordinates: Sequence[str]) -> str:
        """The form as text, with f for the network."""
        name, x = channels[self.channel], coordinates[self.axis]
        return {RATE: "f", TRANSPORT: f"f d{name}/d{x}", DIFFUSIVITY: f"f lap {name}", FLUX: f"df/d{x}",
                LAPLACIAN: "lap f", NONLOCAL: f"f smoothed over {self.length:.2g}"}[self.kind]


@dataclass(frozen=True)
class Sine:
    """sin(weights . inputs + phase) in a form: a summand of a law, with a coefficient for each channel."""

    inputs: tuple[Input, ...]
    weights: tuple[float, ...]
    phase: float
    form: Form = Form()

    linear = flux = solenoidal = varies = False
    products: ClassVar[tuple[()]] = ()
    axis, power, place = -1, 0, 0

    def state(self) -> dict[str, Any]:
        """Its attributes as plain values."""
        return {"inputs": [list(vars(one).values()) for one in self.inputs], "weights": list(self.weights),
                "phase": self.phase, "form": list(vars(self.form).values())}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Sine:
        """The unit of a `state()`."""
        return cls(tuple(Input(*one) for one in state["inputs"]), tuple(float(w) for w in state["weights"]),
                   float(state["phase"]), Form(*state["form"]))
