"""Launches of the forward and the tangent kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from . import triton_forward, triton_tangent
from .arguments import SirenArguments
from .launch_common import (
    PRECISIONS,
    TURN,
    Operands,
    Precision,
    as_operand,
    capability,
    constants,
    forward_launch,
    padded_output,
    programs,
    tangent_launch,
    tile_table,
)
from .tangents import MOVABLE, Tangents

# Outputs of all samples that the shared-trunk kernels contract at a time.
SHARED_TRUNK_COLUMNS = 64


def forward(arguments: SirenArguments, precision_name: str) -> Tensor:
    """Field values without a graph: (S, N, C), or (R, C) for ragged points."""
    assert arguments.output_weight is not None and arguments.output_bias is not None
    precision = PRECISIONS[precision_name]
    launch = forward_launch(arguments.width, precision_name == "accurate", arguments.layers)
    operands = Operands.of(arguments, precision)
    meta = constants(arguments, precision, launch)
    if arguments.trunk_shared and arguments.samples > 1:
        return _shared_trunk(arguments, operands, precision, meta)
    result = arguments.new_result()
    # High and low planes of a per-sample output lie one after the other in each sample.
    output = padded_output(arguments.output_weight) * precision.scale
    shared = output.dim() == 2
    planes = as_operand(output, precision)
    if precision.operands == "fp16x3" and not shared:
        planes = planes.transpose(0, 1).contiguous()
    tiles = tile_table(arguments, launch.rows)
    bias = arguments.output_bias.contiguous()
    triton_forward.siren_kernel[(programs(tiles.shape[0], result.device),)](
        operands.x, operands.first, operands.hidden, operands.shift, operands.gain, planes, bias, result, tiles,
        tiles.shape[0], operands.shift_stride, 0 if shared else planes[0].numel(),
        HAS_GAIN=arguments.gain is not None, OUTPUT_SHARED=shared, BIAS_SHARED=bias.dim() == 1, **meta,
    )  # fmt: skip
    return result


def _shared_trunk(arguments: SirenArguments, operands: Operands, precision: Precision, meta: dict[str, Any]) -> Tensor:
    assert arguments.output_weight is not None and arguments.output_bias is not None
    samples, channels = arguments.samples, arguments.channels
    count = arguments.x.shape[0]
    weight = arguments.output_weight.expand(samples, -1, -1).reshape(samples * channels, -1)
    bias = arguments.output_bias.expand(samples, -1).reshape(-1).contiguous()
    padding = -weight.shape[0] % SHARED_TRUNK_COLUMNS
    output = as_operand(torch.nn.functional.pad(weight.T * precision.scale, (0, padding)), precision)
    result = arguments.x.new_empty(samples, count, channels)
    tiles = triton.cdiv(count, meta["BM"])
    blocks = triton.cdiv(weight.shape[0], SHARED_TRUNK_COLUMNS)
    # Enough programs to fill the device, but no more: each evaluates its tile's trunk.
    splits = max(1, min(blocks, programs(1 << 30, result.device) // tiles))
    triton_forward.shared_trunk_kernel[(tiles, splits)](
        operands.x, operands.first, operands.hidden, operands.shift, output, bias, result, count, weight.shape[0],
        BN=SHARED_TRUNK_COLUMNS, **meta,
    )  # fmt: skip
    return result


def tangent_unserved_reason(arguments: SirenArguments, precision_name: str) -> str | None:
    """Why the Triton kernels cannot carry tangents in this call (one that they otherwise serve); None where they
    can."""
    if arguments.width > 128:
        return f"tangents at width {arguments.width} do not fit a multiprocessor"
    if arguments.width == 128 and precision_name == "accurate" and capability(arguments.x.device) < 90:
        return "accurate tangents at width 128 do not fit the registers below compute capability 9.0"
    return None


def tangents(arguments: SirenArguments, moving: Tangents, precision_name: str) -> tuple[Tensor, Tensor]:
    """Field values and their tangents (K, *values' shape)."""
    assert arguments.output_weight is not None and arguments.output_bias is not None
    precision = PRECISIONS[precision_name]
    launch = tangent_launch(arguments.width, precision_name == "accurate")
    operands = Operands.of(arguments, precision)
    tiles = tile_table(arguments, launch.rows)
    result = arguments.new_result()
    result_tangent = arguments.x.new_empty(moving.directions, *result.shape)
    none = arguments.x.new_zeros(1)

    def planes(output: Tensor) -> Tensor:
        """(..., [2 planes,] H, 16): a matrix's high and low halves one after the other."""
        operand = as_operand(padded_output(output) * precision.scale, precision)
        return operand.movedim(0, -3).contiguous() if precision.operands == "fp16x3" else operand

    output, bias = planes(arguments.output_weight), arguments.output_bias.contiguous()
    matrix = arguments.width * 16 * (2 if precision.operands == "fp16x3" else 1)
    sample_elements = dict(
        shift=arguments.layers * arguments.width,
        gain=arguments.layers * arguments.width,
        output_weight=matrix,
        output_bias=arguments.channels,
    )
    largest = [tangent.abs().amax() for tangent in moving.given().values() if tangent.numel()]
    amplitude = torch.stack(largest).amax().clamp(min=1e-30)
    factor = torch.exp2(-torch.floor(torch.log2(amplitude))).reshape(1)
    sources, direction_strides, sample_strides, flags = {}, {}, {}, {}
    for name in MOVABLE:
        tangent = getattr(moving, name)
        flags[name] = tangent is not None
        if tangent is None:
            sources[name], direction_strides[name], sample_strides[name] = none, 0, 0
            continue
        if name == "output_weight":
            # The last product takes it as an operand beside the others: scaled like them.
            tangent = planes(tangent * factor)
        sources[name] = tangent.contiguous()
        direction_strides[name] = sources[name][0].numel()
        per_sample = getattr(arguments, name).dim() == (2 if name == "output_bias" else 3)
        sample_strides[name] = sample_elements.get(name, 0) if per_sample else 0
    meta = constants(arguments, precision, launch)
    del meta["HC"]
    groups = triton.cdiv(moving.directions, launch.directions)
    triton_tangent.tangent_kernel[(programs(tiles.shape[0], result.device), groups)](
        operands.x, operands.first, operands.hidden, operands.shift, operands.gain, output, bias, result, tiles,
        tiles.shape[0],
        *(sources[name] for name in MOVABLE), factor, result_tangent, moving.directions,
        operands.shift_stride, matrix if arguments.output_weight.dim() == 3 else 0,
        arguments.channels if bias.dim() == 2 else 0,
        *(direction_strides[name] for name in MOVABLE), result.numel(),
        *(sample_strides[name] for name in MOVABLE[1:]),
        DIRECTIONS=launch.directions, HAS_GAIN=arguments.gain is not None,
        OF_X=flags["x"], OF_SHIFT=flags["shift"], OF_GAIN=flags["gain"], OF_OUTPUT=flags["output_weight"],
        OF_BIAS=flags["output_bias"],
        RADIANS=(TURN if precision.turns else 1.0) / precision.scale, **meta,
    )  # fmt: skip
    return result, result_tangent
