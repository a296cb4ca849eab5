"""Sine: a hidden unit of a law's network in a form; Input: an input of the network, computed from fields at a point;
Layer: all hidden units at quadrature points, their contributions to rates, and derivatives."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from inrflow.domains.transform import VALUES, Transform, sums_over

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

    def of_place(self, x: Tensor) -> Tensor:
        """One of `PLACES` at coordinates (Q,) along its axis."""
        if self.kind == PLACE:
            return x
        return torch.cos(x / self.length) if self.kind == COSINE else torch.sin(x / self.length)

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


class Layer:
    """H hidden units on K harmonics, with a transform to quadrature points and eigenvalues (K,)."""

    def __init__(self, sines: Sequence[Sine], transform: Transform, eigenvalues: Tensor):
        self.transform, self.eigenvalues, self.axes = transform, eigenvalues, range(transform.points.shape[1])
        self.inputs = tuple(dict.fromkeys(one for sine in sines for one in sine.inputs))
        points = torch.as_tensor(transform.points)
        self.places = {one: one.of_place(points[:, one.axis]) for one in self.inputs if one.kind in PLACES}
        units = list(dict.fromkeys((sine.inputs, sine.weights, sine.phase) for sine in sines))
        self.weights = torch.zeros(len(units), len(self.inputs), dtype=torch.float64)
        for row, (inputs, weights, _) in zip(self.weights, units, strict=True):
            for one, weight in zip(inputs, weights, strict=True):
                row[self.inputs.index(one)] = weight
        self.phases = torch.tensor([phase for _, _, phase in units], dtype=torch.float64)
        number = {unit: h for h, unit in enumerate(units)}
        self.forms: dict[Form, tuple[list[int], list[int]]] = {}  # indices of sines and of their units
        for j, sine in enumerate(sines):
            mine = self.forms.setdefault(sine.form, ([], []))
            mine[0].append(j)
            mine[1].append(number[sine.inputs, sine.weights, sine.phase])

    def by(self, transform: Transform) -> Layer:
        """The same units with another transform to the same points."""
        layer = copy.copy(self)
        layer.transform = transform
        return layer

    def symbol(self, one: Input | Form) -> Tensor:
        """Multipliers (K,) of harmonics by a feature or form."""
        if one.kind == LAPLACIAN:
            return -self.eigenvalues
        if one.kind in (SMOOTHED, NONLOCAL):
            return 1 / (1 + one.length**2 * self.eigenvalues)
        return torch.ones_like(self.eigenvalues)

    def inputs_at_points(self, z: Tensor) -> Tensor:
        """Inputs (B, I, Q) of the network at quadrature points, of codes (B, C, K)."""
        return torch.stack([self.at_points(one, z) for one in self.inputs], 1)

    def at_points(self, one: Input, z: Tensor) -> Tensor:
        """Input (B, Q) at quadrature points, of codes (B, C, K)."""
        if one in self.places:
            return self.places[one].to(self.transform.weights).expand(len(z), -1)
        codes, axis = z[:, one.channel] * self.symbol(one), one.axis if one.kind == SLOPE else VALUES
        return self.transform.fields(codes, axis)

    def angles(self, z: Tensor) -> Tensor:
        """Arguments (B, H, Q) of the sines, of codes (B, C, K)."""
        inputs = self.inputs_at_points(z)
        return self.weights.to(inputs) @ inputs + self.phases.to(inputs)[:, None]

    def _times_factor(self, form: Form, values: Tensor, z: Tensor) -> Tensor:
        """Fields (B, n, Q) times the derivative or the Laplacian of a channel that a form has, if any."""
        if form.kind == TRANSPORT:
            return values * self.transform.fields(z[:, form.channel], form.axis)[:, None]
        if form.kind == DIFFUSIVITY:
            return values * self.transform.fields(-self.eigenvalues * z[:, form.channel])[:, None]
        return values

    def _apply_form(self, form: Form, values: Tensor, z: Tensor, rows: int | None = None,
                    weights: Tensor | None = None) -> Tensor:
        """Rates (B, n, rows) on the first harmonics (all), or sums of these: a form of fields (B, n, Q), at codes
        (B, C, K)."""
        values = sums_over(self._times_factor(form, values, z), weights)
        if form.kind == FLUX:  # weak form, without flux through natural walls
            return -self.transform.project(values, form.axis)[..., :rows]
        return self.transform.project(values, lead=rows) * self.symbol(form)[:rows]

    def features(self, z: Tensor, rows: int, weights: Tensor | None = None) -> Tensor:
        """Each unit in its form, projected on the first harmonics, (B, J, rows), or sums of these by weights (W, N):
        see `sums_over`."""
        sines = torch.sin(self.angles(z))
        each = [self._apply_form(form, sines[:, units], z, rows, weights) for form, (_, units) in self.forms.items()]
        order = torch.tensor([j for mine, _ in self.forms.values() for j in mine])
        return torch.cat(each, 1)[:, order.argsort()]

    def _by_form(self, theta: Tensor, values: Tensor) -> Iterator[tuple[Form, Tensor]]:
        """Forms and the fields (B, C, Q) that they act on, from values (B, H, Q) of units and coefficients (J, C)."""
        for form, (mine, units) in self.forms.items():
            weights = theta.new_zeros(len(self.phases), theta.shape[1]).index_put(
                (torch.tensor(units),), theta[mine], accumulate=True)
            yield form, weights.T.to(values) @ values

    def rates(self, z: Tensor, theta: Tensor) -> Tensor:
        """Rates (B, C, K) of codes (B, C, K) with coefficients (J, C)."""
        sines = torch.sin(self.angles(z))
        return torch.stack([self._apply_form(form, field, z) for form, field in self._by_form(theta, sines)]).sum(0)

    def slopes(self, z: Tensor, theta: Tensor, lead: int) -> Tensor:
        """Jacobian (B, C, lead, C, lead) of `rates`, restricted to the leading harmonics."""
        channels = theta.shape[1]
        result = z.new_zeros(len(z), channels, lead, channels, lead)
        angles = self.angles(z)
        tables = {axis: self.transform.table(axis, lead) for axis in (VALUES, *self.axes)}  # (Q, lead)
        weighted = tables[VALUES] * self.transform.weights[:, None]
        lap = -self.eigenvalues[:lead].to(angles)
        for form, field in self._by_form(theta, torch.sin(angles)):
            if form.kind in (TRANSPORT, DIFFUSIVITY):  # derivative of the factor
                table = tables[form.axis] if form.kind == TRANSPORT else tables[VALUES] * lap
                result[:, :, :, form.channel] += torch.einsum("qk,bcq,ql->bckl", weighted, field, table)
        cosines = torch.cos(angles)
        left = {form: -tables[form.axis] * self.transform.weights[:, None] if form.kind == FLUX else weighted
                for form in self.forms}
        for i, one in enumerate(self.inputs):
            if one in self.places:
                continue
            table, symbol = tables[one.axis if one.kind == SLOPE else VALUES], self.symbol(one)[:lead]
            for form, field in self._by_form(theta, self.weights[:, i, None].to(cosines) * cosines):
                part = torch.einsum("qk,bcq,ql->bckl", left[form], self._times_factor(form, field, z), table)
                result[:, :, :, one.channel] += part * self.symbol(form)[:lead, None] * symbol
        return result

    def operations(self) -> tuple[int, int]:
        """Numbers of transforms for rates of one channel, and of operations at each point."""
        return len(self.inputs) * self.axes.stop + len(self.forms), 5 * len(self.phases)
