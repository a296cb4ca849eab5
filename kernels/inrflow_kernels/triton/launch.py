"""Common parts of all launches: supported calls, precisions, operands, tile tables and tile shapes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

# Measured accuracy and speed include fused multiply-adds; the compiler's default differs between Triton versions.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton
from torch import Tensor
from triton.runtime.errors import OutOfResources

from ..arguments import SirenArguments


class UnsupportedCall(Exception):
    """Reason why a kernel does not support a call that the forward kernels support."""


# Exceptions of a launch after which torch computes the call: OutOfResources means that the device has too little shared
# memory or too few registers for a kernel.
REFUSALS = (UnsupportedCall, OutOfResources)

INTERPRETED = triton.knobs.runtime.interpret
WIDTHS = (32, 64, 128, 256)
MAX_LAYERS = 6
TURN = 2 * math.pi
# Power of two by which weights are scaled in accurate mode, so that their low parts are not subnormal in fp16.
ACCURATE_SCALE = 64.0


@dataclass(frozen=True)
class Precision:
    """Implementation of a precision: operands, sine, whether its argument is in turns, and scale of the weights."""

    operands: str
    sine: str
    turns: bool
    scale: float

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.operands == "bf16" else torch.float16


_HARDWARE_SINE = "plain" if INTERPRETED else "fast"
PRECISIONS = {
    "fast": Precision("fp16", _HARDWARE_SINE, False, 1.0),
    "bf16": Precision("bf16", _HARDWARE_SINE, False, 1.0),
    "accurate": Precision("fp16x3", "exact", True, ACCURATE_SCALE),
}


@dataclass(frozen=True)
class Launch:
    """Compile-time shape of a kernel: rows per tile, warps, width of an activation chunk (forward kernels), whether
    all weights stay resident on the multiprocessor, tangent directions per program (tangent kernel)."""

    rows: int
    warps: int
    chunk: int = 0
    resident: bool = True
    directions: int = 0


def forward_launch(width: int, accurate: bool, layers: int) -> Launch:
    """Shape of the forward kernels. At width 128 the weights of 6 layers exceed the shared memory of sm_80."""
    if width <= 64:
        return Launch(128, 4, chunk=width)
    if accurate:
        return Launch(64, 4, chunk=64, resident=False)
    resident = width == 128 and layers <= 5
    return Launch(128, 8, chunk=128, resident=resident)


def capability(device: torch.device) -> int:
    """Compute capability, 10 times major plus minor; 90 in the interpreter, so that every kernel is tested."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def backward_launch(width: int, layers: int, capability: int) -> Launch:
    """Shape of the backward kernel. At width 128 the weights of 4 layers fit the shared memory of sm_90 and sm_100 but
    not of sm_80."""
    return Launch(128, 8 if width >= 64 else 4, resident=width <= 64 or (layers <= 4 and capability >= 90))


def tangent_launch(width: int, accurate: bool) -> Launch:
    """Shape of the tangent kernel."""
    if width <= 64 and not accurate:
        return Launch(128, 8 if width == 64 else 4, directions=2)
    return Launch(64, 4, resident=False, directions=1)


def unsupported_reason(arguments: SirenArguments) -> str | None:
    """Why the kernels cannot evaluate a call; None if they can."""
    device = arguments.x.device
    if device.type != "cuda" and not INTERPRETED:
        return f"the tensors are on {device.type}, not on a CUDA device"
    if capability(device) < 80:
        return "the device's compute capability is below 8.0"
    if arguments.x.dtype != torch.float32:
        return f"{arguments.x.dtype} is beyond the kernels' accuracy"
    if arguments.width not in WIDTHS:
        return f"width {arguments.width} is not one of {WIDTHS}"
    if arguments.layers > MAX_LAYERS:
        return f"{arguments.layers} hidden layers are more than {MAX_LAYERS}"
    if arguments.rows == 0:
        return "there are no points"
    return None


def padded_coordinates(coordinates: int) -> int:
    """Coordinates padded to 4, 8 or 16; the first product's inner dimension is four times as large."""
    return max(4, triton.next_power_of_2(coordinates))


def programs(work: int, device: torch.device, per_multiprocessor: int = 2) -> int:
    """Number of persistent programs for `work` tiles, fixed for a device so that partial sums are reproducible."""
    if device.type != "cuda":
        return min(work, 3)
    return min(work, per_multiprocessor * torch.cuda.get_device_properties(device).multi_processor_count)


def tile_table(arguments: SirenArguments, rows: int) -> Tensor:
    """(T, 4) int32 rows (sample, first row of x, first row of the result, number of rows), ordered by sample."""
    device = arguments.x.device
    if arguments.offsets is None:
        count = arguments.x.shape[-2]
        start = torch.arange(0, count, rows, device=device)
        sample = torch.arange(arguments.samples, device=device)
        grid = sample[:, None] * count + start
        table = torch.stack(
            [
                sample[:, None].expand_as(grid),
                start.expand_as(grid) if arguments.points_shared else grid,
                grid,
                (count - start).clamp(max=rows).expand_as(grid),
            ],
            -1,
        )
        return table.reshape(-1, 4).to(torch.int32).contiguous()
    bounds = torch.tensor(arguments.offsets)
    tiles = (bounds.diff() + rows - 1) // rows
    sample = torch.repeat_interleave(torch.arange(arguments.samples), tiles)
    within = torch.arange(sample.numel()) - (tiles.cumsum(0) - tiles)[sample]
    start = bounds[sample] + within * rows
    table = torch.stack([sample, start, start, (bounds[sample + 1] - start).clamp(max=rows)], -1)
    return table.to(torch.int32).to(device)


def halves(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """High and low parts of values as operands, whose sum has twice the precision of one."""
    high = values.to(dtype)
    return high, (values - high.float()).to(dtype)


def as_operand(values: Tensor, precision: Precision) -> Tensor:
    """Values in the operand type; for fp16x3 a plane of high parts followed by one of low parts."""
    if precision.operands == "fp16x3":
        return torch.stack(halves(values, precision.dtype))
    return values.to(precision.dtype).contiguous()


@dataclass(frozen=True)
class Operands:
    """Parameters of the network as the kernels read them, in the unit and scale of the precision."""

    x: Tensor
    first: Tensor
    hidden: Tensor
    shift: Tensor
    gain: Tensor
    shift_stride: int

    @classmethod
    def of(cls, arguments: SirenArguments, precision: Precision) -> Operands:
        unit = 1 / TURN if precision.turns else 1.0
        scale = unit * precision.scale
        first = arguments.hidden_weights[0].T * scale
        high, low = halves(first, precision.dtype)
        padded = padded_coordinates(arguments.coordinates)
        layout = first.new_zeros(4, padded, arguments.width, dtype=precision.dtype)
        layout[:2, : arguments.coordinates], layout[2:, : arguments.coordinates] = high, low
        deeper = [weight.T for weight in arguments.hidden_weights[1:]]
        hidden = torch.stack(deeper) if deeper else first.new_zeros(1)
        shift = (arguments.shift * unit).contiguous()
        return cls(
            arguments.x.contiguous(),
            layout.view(4 * padded, -1),
            as_operand(hidden * scale, precision),
            shift,
            shift if arguments.gain is None else arguments.gain.contiguous(),
            arguments.layers * arguments.width if shift.dim() == 3 else 0,
        )


def padded_output(weight: Tensor) -> Tensor:
    """Output weights (..., C, H) transposed and zero padded to (..., H, 16)."""
    return torch.nn.functional.pad(weight.transpose(-1, -2), (0, 16 - weight.shape[-2]))


def constants(arguments: SirenArguments, precision: Precision, launch: Launch) -> dict[str, Any]:
    """Compile-time constants of every kernel."""
    return dict(
        D=arguments.coordinates,
        DP=padded_coordinates(arguments.coordinates),
        H=arguments.width,
        HC=launch.chunk,
        L=arguments.layers,
        C=arguments.channels,
        BM=launch.rows,
        RESIDENT=launch.resident,
        PREC=precision.operands,
        SINE=precision.sine,
        SCALE=1 / precision.scale,
        INTERPRETED=INTERPRETED,
        num_warps=launch.warps,
        num_stages=1,
    )
