"""What an evaluation is differentiated along, checked against its arguments: the K tangents of a Jacobian-vector
product, or the linear maps from a code to the arguments that it modulates."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from .arguments import SirenArguments

MOVABLE = ("x", "shift", "gain", "output_weight", "output_bias")


@dataclass(frozen=True)
class Tangents:
    """Tangents (K, *argument's shape) of the arguments that move; None for those that stay."""

    x: Tensor | None = None
    shift: Tensor | None = None
    gain: Tensor | None = None
    output_weight: Tensor | None = None
    output_bias: Tensor | None = None

    def given(self) -> dict[str, Tensor]:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tangent for name, tangent in found.items() if tangent is not None}

    @property
    def directions(self) -> int:
        return next(iter(self.given().values())).shape[0]


def check_tangents(arguments: SirenArguments, given: dict[str, Tensor | None]) -> Tangents:
    """Tangents in the arguments' dtype. Raises ValueError saying what does not fit."""
    moving = {name: tangent for name, tangent in given.items() if tangent is not None}
    if not moving:
        raise ValueError(f"no tangent was given; expected at least one of {', '.join(MOVABLE)}.")
    directions = next(iter(moving.values())).shape[0]
    for name, tangent in moving.items():
        argument = getattr(arguments, name)
        if argument is None:
            raise ValueError(f"a tangent of {name} was given, but {name} is None.")
        expected = (directions, *argument.shape)
        if tuple(tangent.shape) != expected or directions == 0:
            raise ValueError(f"the tangent of {name} has shape {tuple(tangent.shape)}; expected (K, ...) = {expected}.")
    return Tangents(**{name: tangent.to(arguments.x.dtype) for name, tangent in moving.items()})


def check_maps(arguments: SirenArguments, given: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """Maps (Z, *argument's shape without samples) that were given, in the arguments' dtype. Raises ValueError saying
    what does not fit."""
    maps = {name: linear_map for name, linear_map in given.items() if linear_map is not None}
    if not maps:
        raise ValueError(f"no map was given; expected at least one of {', '.join(given)}.")
    size = next(iter(maps.values())).shape[0]
    for name, linear_map in maps.items():
        argument = getattr(arguments, name)
        if argument is None:
            raise ValueError(f"a map of {name} was given, but {name} is None.")
        expected = (size, *argument.shape[-(1 if name == "output_bias" else 2) :])
        if tuple(linear_map.shape) != expected or size == 0:
            raise ValueError(f"the map of {name} has shape {tuple(linear_map.shape)}; expected (Z, ...) = {expected}.")
    return {name: linear_map.to(arguments.x.dtype) for name, linear_map in maps.items()}
