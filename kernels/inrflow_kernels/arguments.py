"""What every backend is handed: the arguments of one evaluation, checked once, with their sizes worked out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_CHANNELS = 16
MAX_COORDINATES = 16


@dataclass(frozen=True)
class SirenArguments:
    """Checked arguments of a modulated SIREN.

    x (N, D), (S, N, D) or, with offsets, (R, D); hidden_weights L of (H, D) then (H, H); shift (L, H) or (S, L, H);
    gain None or (S, L, H); output_weight (C, H) or (S, C, H); output_bias (C,) or (S, C); offsets S+1 ints or None.
    Without output_weight and output_bias the last hidden activations are what is evaluated.
    """

    x: Tensor
    hidden_weights: tuple[Tensor, ...]
    shift: Tensor
    gain: Tensor | None
    output_weight: Tensor | None
    output_bias: Tensor | None
    offsets: tuple[int, ...] | None

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
        """Whether the last hidden activations at a point are the same for every sample."""
        return self.points_shared and self.shift.dim() == 2 and self.gain is None

    @property
    def samples(self) -> int:
        if self.offsets is not None:
            return len(self.offsets) - 1
        per_sample = self._per_sample()
        return per_sample[0].shape[0] if per_sample else 1

    @property
    def rows(self) -> int:
        """Number of (sample, point) pairs."""
        return self.x.shape[0] if self.offsets is not None else self.samples * self.x.shape[-2]

    def tensors(self) -> list[Tensor]:
        """Every tensor argument in a fixed order: x, shift, [gain], [output_weight, output_bias], hidden weights."""
        optional = [self.gain, self.output_weight, self.output_bias]
        return [self.x, self.shift, *(tensor for tensor in optional if tensor is not None), *self.hidden_weights]

    def reference_arguments(self) -> tuple[Tensor, tuple[Tensor, ...], Tensor, Tensor | None, Tensor, Tensor]:
        """Positional arguments of the reference's functions."""
        assert self.output_weight is not None and self.output_bias is not None
        return self.x, self.hidden_weights, self.shift, self.gain, self.output_weight, self.output_bias

    def new_result(self) -> Tensor:
        """Empty values (S, N, C), or (R, C) for ragged points."""
        leading = self.x.shape[:1] if self.offsets is not None else (self.samples, self.x.shape[-2])
        return self.x.new_empty(*leading, self.channels)

    def _per_sample(self) -> list[Tensor]:
        candidates = [(self.x, 3), (self.shift, 3), (self.gain, 3), (self.output_weight, 3), (self.output_bias, 2)]
        return [tensor for tensor, dims in candidates if tensor is not None and tensor.dim() == dims]


def equal_counts(offsets: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Runs of consecutive samples with equally many points: (first sample, last (exclusive), first row, points
    each)."""
    first, samples = 0, len(offsets) - 1
    while first < samples:
        count = offsets[first + 1] - offsets[first]
        last = first + 1
        while last < samples and offsets[last + 1] - offsets[last] == count:
            last += 1
        yield first, last, offsets[first], count
        first = last


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
        _require(
            tuple(weight.shape) == expected,
            f"hidden_weights[{layer}] has shape {tuple(weight.shape)}; expected {expected}.",
        )


def _common_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """float64 where any tensor is, else float32: 16-bit parameters are computed in float32."""
    for tensor in tensors:
        _require(tensor.is_floating_point(), f"found a {tensor.dtype} tensor; expected floating point tensors.")
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def check_trunk_arguments(
    x: Tensor, hidden_weights: Sequence[Tensor], shift: Tensor
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Arguments of `siren_features`, checked and brought to one dtype. Raises ValueError."""
    weights = tuple(hidden_weights)
    _check_trunk(x, weights)
    expected = (len(weights), weights[0].shape[0])
    _require(tuple(shift.shape) == expected, f"shift has shape {tuple(shift.shape)}; expected (L, H) = {expected}.")
    dtype = _common_dtype([x, shift, *weights])
    return x.to(dtype), tuple(weight.to(dtype) for weight in weights), shift.to(dtype)


def check_arguments(
    x: Tensor,
    hidden_weights: Sequence[Tensor],
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor,
    offsets: Sequence[int] | Tensor | None = None,
) -> SirenArguments:
    """Check shapes, bring everything to one dtype and return the bundle. Raises ValueError saying what does not fit."""
    weights = tuple(hidden_weights)
    _require(x.dim() in (2, 3), f"x has shape {tuple(x.shape)}; expected (N, D) or (S, N, D).")
    _check_trunk(x, weights)
    layers, width = len(weights), weights[0].shape[0]
    _require(
        shift.dim() in (2, 3) and tuple(shift.shape[-2:]) == (layers, width),
        f"shift has shape {tuple(shift.shape)}; expected (L, H) or (S, L, H) with L={layers}, H={width}.",
    )
    if gain is not None:
        _require(
            gain.dim() == 3 and tuple(gain.shape[-2:]) == (layers, width),
            f"gain has shape {tuple(gain.shape)}; expected (S, L, H) with L={layers}, H={width}.",
        )
    _require(
        output_weight.dim() in (2, 3) and output_weight.shape[-1] == width,
        f"output_weight has shape {tuple(output_weight.shape)}; expected (C, H) or (S, C, H) with H={width}.",
    )
    channels = output_weight.shape[-2]
    _require(
        1 <= channels <= MAX_CHANNELS, f"output_weight gives {channels} channels; between 1 and {MAX_CHANNELS} work."
    )
    _require(
        output_bias.dim() in (1, 2) and output_bias.shape[-1] == channels,
        f"output_bias has shape {tuple(output_bias.shape)}; expected (C,) or (S, C) with C={channels}.",
    )
    bounds: tuple[int, ...] | None = None
    if offsets is not None:
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
    given = [x, shift, output_weight, output_bias, *weights] + ([] if gain is None else [gain])
    dtype = _common_dtype(given)
    _require(
        len({tensor.device for tensor in given}) == 1, "the tensors lie on different devices; move them to one device."
    )
    arguments = SirenArguments(
        x.to(dtype),
        tuple(weight.to(dtype) for weight in weights),
        shift.to(dtype),
        None if gain is None else gain.to(dtype),
        output_weight.to(dtype),
        output_bias.to(dtype),
        bounds,
    )
    samples = arguments.samples
    for tensor in arguments._per_sample():
        _require(
            tensor.shape[0] == samples,
            f"a per-sample tensor of shape {tuple(tensor.shape)} does not fit the {samples} samples of the others.",
        )
    return arguments
