"""Sine: a hidden unit of a law's network, with what is made of it; the local features that the network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

VALUE, SLOPE, LAPLACIAN, SMOOTHED = "value", "slope", "laplacian", "smoothed"
RATE, TRANSPORT, FLUX, NONLOCAL = "rate", "transport", "flux", "nonlocal"


@dataclass(frozen=True)
class Local:
    """A feature of a field at a point: the value of a channel, its derivative along an axis, its Laplacian, or the
    channel smoothed over a length, (1 - length^2 lap)^-1 u."""

    kind: str
    channel: int = 0
    axis: int = 0
    length: float = 0.0

    def written(self, channels: Sequence[str], coordinates: Sequence[str]) -> str:
        """The feature in the names of channels and coordinates."""
        name = channels[self.channel]
        return {VALUE: name, SLOPE: f"d{name}/d{coordinates[self.axis]}", LAPLACIAN: f"lap {name}",
                SMOOTHED: f"{name} smoothed over {self.length:.2g}"}[self.kind]


@dataclass(frozen=True)
class Form:
    """What is made of the values f of a hidden unit: f, f du/dx_axis of a channel u, df/dx_axis, lap f, or f smoothed
    over a length."""

    kind: str = RATE
    channel: int = 0
    axis: int = 0
    length: float = 0.0

    def written(self, channels: Sequence[str], coordinates: Sequence[str]) -> str:
        """The form with f for the network."""
        name, x = channels[self.channel], coordinates[self.axis]
        return {RATE: "f", TRANSPORT: f"f d{name}/d{x}", FLUX: f"df/d{x}", LAPLACIAN: "lap f",
                NONLOCAL: f"f smoothed over {self.length:.2g}"}[self.kind]


@dataclass(frozen=True)
class Sine:
    """sin(weights . inputs + phase), in a form: a summand of a law, with coefficients as other terms have them."""

    inputs: tuple[Local, ...]
    weights: tuple[float, ...]
    phase: float
    form: Form = Form()

    linear = flux = solenoidal = varies = False
    products: ClassVar[tuple[()]] = ()
    axis, power, place = -1, 0, 0

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"inputs": [list(vars(one).values()) for one in self.inputs], "weights": list(self.weights),
                "phase": self.phase, "form": list(vars(self.form).values())}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Sine:
        """The unit of a `state()`."""
        return cls(tuple(Local(*one) for one in state["inputs"]), tuple(float(w) for w in state["weights"]),
                   float(state["phase"]), Form(*state["form"]))
