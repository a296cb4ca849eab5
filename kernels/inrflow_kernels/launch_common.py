"""What all launches of the Triton kernels share: the calls they serve, precisions, operands, tile tables, tile
shapes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

# Fused multiply-adds are part of the kernels' measured accuracy and speed; the compiler's default is about to change.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton
from torch import Tensor

from .arguments import SirenArguments

INTERPRETED = triton.knobs.runtime.interpret
WIDTHS = (32, 64, 128, 256)
MAX_LAYERS = 6
TURN = 2 * math.pi
# Weights of accurate mode are multiplied by this power of two, or their low halves would be subnormal in fp16.
ACCURATE_SCALE = 64.0


@dataclass(frozen=True)
class Precision:
    """How a precision name of the public functions is carried out: operands, sine, unit of its argument, weight
    scale."""

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
    """Compile-time shape of a kernel: rows of a tile, warps, and for the forward kernels the width of an activation
    chunk; `resident` keeps all weights on the multiprocessor; `directions` of a tangent kernel go together."""

    rows: int
    warps: int
    chunk: int = 0
    resident: bool = True
    directions: int = 0


def forward_launch(width: int, accurate: bool, layers: int) -> Launch:
    """Launch of the forward kernels. At width 128 the weights of 6 layers exceed the shared memory of sm_80."""
    if width <= 64:
        return Launch(128, 4, chunk=width)
    if accurate:
        return Launch(64, 4, chunk=64, resident=False)
    resident = width == 128 and layers <= 5
    return Launch(128, 8, chunk=128, resident=resident)


def capability(device: torch.device) -> int:
    """Compute capability as 10 times major plus minor; that of a device with everything where kernels are
    interpreted."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def backward_launch(width: int, layers: int, capability: int) -> Launch:
    """Launch of the backward kernel. At width 128 the weights of 4 layers fit the shared memory of sm_90 and sm_100,
    not that of sm_80."""
    return Launch(128, 8 if width >= 64 else 4, resident=width <= 64 or (layers <= 4 and capability >= 90))


def tangent_launch(width: int, accurate: bool) -> Launch:
    """Launch of the tangent kernel."""
    if width <= 64 and not accurate:
        return Launch(128, 8 if width == 64 else 4, directions=2)
    return Launch(64, 4, resident=False, directions=1)


def unserved_reason(arguments: SirenArguments) -> str | None:
    """Why the Triton kernels cannot evaluate this call, in words; None where they can."""
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
    """Coordinates padded to 4, 8 or 16: four groups of them are the first product's inner dimension (16, 32 or 64)."""
    return max(4, triton.next_power_of_2(coordinates))


def programs(work: int, device: torch.device, per_multiprocessor: int = 2) -> int:
    """Persistent programs for `work` tiles. Fixed for a device, so that partial sums are the same in every run."""
    if device.type != "cuda":
        return min(work, 3)
    return min(work, per_multiprocessor * torch.cuda.get_device_properties(device).multi_processor_count)


def tile_table(arguments: SirenArguments, rows: int) -> Tensor:
    """(T, 4) int32 of (sample, first row of x, first row of the result, rows), ordered by sample."""
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
    """High and low part of values as operands: their sum has twice the operand's precision."""
    high = values.to(dtype)
    return high, (values - high.float()).to(dtype)


def as_operand(values: Tensor, precision: Precision) -> Tensor:
    """Values in the operand type; with fp16x3 the plane of high halves, then the plane of low halves."""
    if precision.operands == "fp16x3":
        return torch.stack(halves(values, precision.dtype))
    return values.to(precision.dtype).contiguous()


@dataclass(frozen=True)
class Operands:
    """The network's parameters as the kernels read them (units: `turns` of the precision; scaled by its scale)."""

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
    """(..., H, 16) transposed and zero padded from (..., C, H)."""
    return torch.nn.functional.pad(weight.transpose(-1, -2), (0, 16 - weight.shape[-2]))


def constants(arguments: SirenArguments, precision: Precision, launch: Launch) -> dict[str, Any]:
    """The constants that every kernel takes."""
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
