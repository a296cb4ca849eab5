"""Arguments of a modulated SIREN: sizes, checks, and accumulators of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

MAX_CHANNELS = 16
MAX_COORDINATES = 16

# Number of dimensions of each argument where it is per sample, with one fewer where all samples share it. Hidden
# weights are always shared; x of ragged points has two dimensions and is sliced by offsets.
SAMPLE_DIMS = {"x": 3, "shift": 3, "gain": 3, "output_weight": 3, "output_bias": 2}
# Arguments that may depend linearly on a code.
MODULATIONS = ("shift", "gain", "output_weight", "output_bias")


@dataclass(frozen=True)
class SirenArguments:
    """Weights and modulations of a SIREN and the points at which to evaluate it.

    - x: (N, D), (S, N, D) or, with offsets, (R, D)
    - hidden_weights: L tensors, the first (H, D), the others (H, H)
    - shift: (L, H) or (S, L, H); gain: None or (S, L, H)
    - output_weight: (C, H) or (S, C, H); output_bias: (C,) or (S, C); both None to evaluate the last hidden activations
    - offsets: None, or S+1 row numbers; sample s owns the rows offsets[s]:offsets[s+1]
    """

    x: Tensor
    hidden_weights: tuple[Tensor, ...]
    shift: Tensor
    gain: Tensor | None = None
    output_weight: Tensor | None = None
    output_bias: Tensor | None = None
    offsets: tuple[int, ...] | None = None

    @property
    def layers(self) -> int:
        return len(self.hidden_weights)

    @property
    def width(self) -> int:
        return self.hidden_weights[0].shape[0]

    @property
    def coordinates(self) -> int:
        return self.x.shape[-1]

    @property
    def channels(self) -> int:
        return self.width if self.output_weight is None else self.output_weight.shape[-2]

    @property
    def points_shared(self) -> bool:
        return self.offsets is None and self.x.dim() == 2

    @property
    def trunk_shared(self) -> bool:
        """Whether all samples have the same last hidden activations."""
        return self.points_shared and self.shift.dim() == 2 and self.gain is None

    @property
    def samples(self) -> int:
        if self.offsets is not None:
            return len(self.offsets) - 1
        return next((tensor.shape[0] for tensor in self.per_sample()), 1)

    @property
    def rows(self) -> int:
        """Number of (sample, point) pairs."""
        return self.x.shape[0] if self.offsets is not None else self.samples * self.x.shape[-2]

    @property
    def output(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the output layer, which must be present."""
        assert self.output_weight is not None and self.output_bias is not None
        return self.output_weight, self.output_bias

    def named(self) -> dict[str, Tensor]:
        """Tensors that are present, by name, without the hidden weights."""
        return {name: tensor for name in SAMPLE_DIMS if (tensor := getattr(self, name)) is not None}

    def per_sample(self) -> list[Tensor]:
        """Tensors that differ between samples."""
        return [tensor for name, tensor in self.named().items() if tensor.dim() == SAMPLE_DIMS[name]]

    def tensors(self) -> list[Tensor]:
        """All tensors that are present: x, the hidden weights, shift, gain, output weight and bias."""
        x, *others = self.named().values()
        return [x, *self.hidden_weights, *others]

    def map(self, function: Callable[[Tensor], Tensor]) -> SirenArguments:
        """Arguments with a function applied to every tensor."""
        named: dict[str, Any] = {name: function(tensor) for name, tensor in self.named().items()}
        return replace(self, hidden_weights=tuple(function(weight) for weight in self.hidden_weights), **named)

    def trunk(self) -> SirenArguments:
        """Arguments without the output layer."""
        return replace(self, output_weight=None, output_bias=None)

    def sample_range(self, name: str, tensor: Tensor, first: int, last: int) -> Tensor:
        """View for samples first:last of an argument, or of a tensor of its shape; the whole of a shared one."""
        if name == "x" and self.offsets is not None:
            return tensor[self.offsets[first] : self.offsets[last]]
        return tensor[first:last] if tensor.dim() == SAMPLE_DIMS[name] else tensor

    def of_samples(self, first: int, last: int) -> SirenArguments:
        """Arguments of samples first:last."""
        parts: dict[str, Any] = {
            name: self.sample_range(name, tensor, first, last) for name, tensor in self.named().items()
        }
        if self.offsets is not None:
            parts["offsets"] = tuple(bound - self.offsets[first] for bound in self.offsets[first : last + 1])
        return replace(self, **parts)

    def equal_runs(self) -> Iterator[tuple[int, int, int, int]]:
        """Runs of consecutive samples with equally many points: samples first:last, first row, points per sample."""
        if self.offsets is None:
            yield 0, self.samples, 0, self.x.shape[-2]
            return
        counts = [high - low for low, high in zip(self.offsets[:-1], self.offsets[1:], strict=True)]
        first = 0
        while first < len(counts):
            last = first + 1
            while last < len(counts) and counts[last] == counts[first]:
                last += 1
            yield first, last, self.offsets[first], counts[first]
            first = last

    def new_result(self) -> Tensor:
        """Uninitialised values (S, N, C), or (R, C) for ragged points."""
        leading = self.x.shape[:1] if self.offsets is not None else (self.samples, self.x.shape[-2])
        return self.x.new_empty(*leading, self.channels)


class Gradients:
    """Accumulators of the gradients of an evaluation, zero at first; None for a gradient that is not wanted.

    `wanted` holds one flag per tensor in the order of `SirenArguments.tensors`.
    """

    def __init__(self, arguments: SirenArguments, wanted: Sequence[bool]) -> None:
        flags = iter(wanted)

        def zeros(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or not next(flags):
                return None
            return torch.zeros_like(tensor, memory_format=torch.contiguous_format)

        self.x = zeros(arguments.x)
        self.hidden_weights = [zeros(weight) for weight in arguments.hidden_weights]
        self.shift = zeros(arguments.shift)
        self.gain = zeros(arguments.gain)
        self.output_weight = zeros(arguments.output_weight)
        self.output_bias = zeros(arguments.output_bias)

    def of_samples(self, arguments: SirenArguments, first: int, last: int) -> Gradients:
        """Views for samples first:last; gradients of shared arguments stay whole."""
        part = copy(self)
        for name in SAMPLE_DIMS:
            gradient = getattr(self, name)
            if gradient is not None:
                setattr(part, name, arguments.sample_range(name, gradient, first, last))
        return part

    def add(self, other: Gradients) -> None:
        """Add those gradients of another accumulator that both have."""
        for gradient, values in zip(self._all(), other._all(), strict=True):
            if gradient is not None and values is not None:
                gradient += values

    def tensors(self) -> list[Tensor]:
        """Wanted gradients in the order of `SirenArguments.tensors`."""
        return [gradient for gradient in self._all() if gradient is not None]

    def _all(self) -> list[Tensor | None]:
        return [self.x, *self.hidden_weights, self.shift, self.gain, self.output_weight, self.output_bias]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_trunk(x: Tensor, weights: tuple[Tensor, ...]) -> None:
    _require(len(weights) > 0, "hidden_weights is empty; a SIREN needs at least one hidden layer.")
    width, coordinates = weights[0].shape[0], x.shape[-1]
    _require(
        1 <= coordinates <= MAX_COORDINATES,
        f"x has {coordinates} coordinates; between 1 and {MAX_COORDINATES} are supported.",
    )
    for layer, weight in enumerate(weights):
        expected = (width, coordinates if layer == 0 else width)
        if weight.shape != expected:
            raise ValueError(f"hidden_weights[{layer}] has shape {tuple(weight.shape)}; expected {expected}.")


def _in_common_dtype(arguments: SirenArguments) -> SirenArguments:
    """Arguments in float64 if any of them is, else in float32. Raises ValueError if one is not floating point."""
    tensors = arguments.tensors()
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise ValueError(f"found a {tensor.dtype} tensor; expected floating point tensors.")
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    if all(tensor.dtype == dtype for tensor in tensors):
        return arguments
    return arguments.map(lambda tensor: tensor.to(dtype))


def check_trunk_arguments(x: Tensor, hidden_weights: Sequence[Tensor], shift: Tensor) -> SirenArguments:
    """Arguments of an unmodulated trunk at points x (..., D), flattened to (N, D). Raises ValueError."""
    weights = tuple(hidden_weights)
    _check_trunk(x, weights)
    expected = (len(weights), weights[0].shape[0])
    _require(tuple(shift.shape) == expected, f"shift has shape {tuple(shift.shape)}; expected (L, H) = {expected}.")
    return _in_common_dtype(SirenArguments(x.reshape(-1, x.shape[-1]), weights, shift))


def check_arguments(
    x: Tensor,
    hidden_weights: Sequence[Tensor],
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor,
    offsets: Sequence[int] | Tensor | None = None,
) -> SirenArguments:
    """Arguments of an evaluation in one dtype. Raises ValueError where shapes, dtypes or devices do not fit."""
    weights = tuple(hidden_weights)
    _require(x.dim() in (2, 3), f"x has shape {tuple(x.shape)}; expected (N, D) or (S, N, D).")
    _check_trunk(x, weights)
    layers, width = len(weights), weights[0].shape[0]
    channels = output_weight.shape[-2] if output_weight.dim() > 1 else 1
    for name, tensor, shape in (
        ("shift", shift, (layers, width)),
        ("gain", gain, (layers, width)),
        ("output_weight", output_weight, (channels, width)),
        ("output_bias", output_bias, (channels,)),
    ):
        if tensor is None:
            continue
        dims = (SAMPLE_DIMS[name],) if name == "gain" else (SAMPLE_DIMS[name], len(shape))
        if tensor.dim() not in dims or tensor.shape[-len(shape) :] != shape:
            shared = "" if name == "gain" else f"{shape} or "
            per_sample = f"(S, {', '.join(map(str, shape))})"
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {shared}{per_sample}.")
    _require(
        1 <= channels <= MAX_CHANNELS, f"output_weight gives {channels} channels; between 1 and {MAX_CHANNELS} work."
    )
    bounds = None if offsets is None else _checked_offsets(offsets, x)
    arguments = _in_common_dtype(SirenArguments(x, weights, shift, gain, output_weight, output_bias, bounds))
    _require(
        len({tensor.device for tensor in arguments.tensors()}) == 1,
        "the tensors lie on different devices; move them to one device.",
    )
    samples = arguments.samples
    for tensor in arguments.per_sample():
        if tensor.shape[0] != samples:
            raise ValueError(
                f"a per-sample tensor of shape {tuple(tensor.shape)} does not fit the {samples} samples of the others."
            )
    return arguments


def _checked_offsets(offsets: Sequence[int] | Tensor, x: Tensor) -> tuple[int, ...]:
    bounds = tuple(int(bound) for bound in (offsets.tolist() if isinstance(offsets, Tensor) else offsets))
    _require(x.dim() == 2, f"x has shape {tuple(x.shape)}; ragged points (offsets given) are (R, D).")
    _require(
        len(bounds) >= 2 and bounds[0] == 0 and bounds[-1] == x.shape[0],
        f"offsets run from {bounds[:1]} to {bounds[-1:]}; expected from 0 to the number of rows {x.shape[0]}.",
    )
    _require(
        all(low <= high for low, high in zip(bounds[:-1], bounds[1:], strict=True)),
        "offsets decrease somewhere; expected a non-decreasing sequence.",
    )
    return bounds


def check_derivatives(arguments: SirenArguments, given: Mapping[str, Tensor | None], kind: str) -> dict[str, Tensor]:
    """Derivatives that are given, by the argument's name, in the arguments' dtype. Raises ValueError.

    kind "tangent": (K, *argument's shape), K directions. kind "map": (Z, *argument's shape without samples), the
    argument's derivative in a code of size Z.
    """
    derivatives = {name: derivative for name, derivative in given.items() if derivative is not None}
    _require(bool(derivatives), f"no {kind} was given; expected at least one of {', '.join(given)}.")
    count = next(iter(derivatives.values())).shape[0]
    for name, derivative in derivatives.items():
        argument = getattr(arguments, name)
        if argument is None:
            raise ValueError(f"a {kind} of {name} was given, but {name} is None.")
        shape = argument.shape if kind == "tangent" else argument.shape[1 - SAMPLE_DIMS[name] :]
        expected = (count, *shape)
        _require(
            tuple(derivative.shape) == expected and count > 0,
            f"the {kind} of {name} has shape {tuple(derivative.shape)}; expected {expected}.",
        )
    return {name: derivative.to(arguments.x.dtype) for name, derivative in derivatives.items()}
