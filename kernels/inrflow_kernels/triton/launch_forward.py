"""Launches of the forward and the tangent kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import triton
from torch import Tensor

from ..arguments import MODULATIONS, SAMPLE_DIMS, SirenArguments
from .forward import shared_trunk_kernel, siren_kernel
from .launch import (
    PRECISIONS,
    TURN,
    Operands,
    Precision,
    UnsupportedCall,
    as_operand,
    capability,
    constants,
    forward_launch,
    padded_output,
    programs,
    tangent_launch,
    tile_table,
)
from .tangent import tangent_kernel

# Width of a block of outputs in the shared-trunk kernels.
SHARED_TRUNK_COLUMNS = 64


def forward(arguments: SirenArguments, precision_name: str) -> Tensor:
    """Field values (S, N, C), or (R, C) for ragged points, without a graph."""
    weight, bias = arguments.output
    precision = PRECISIONS[precision_name]
    launch = forward_launch(arguments.width, precision_name == "accurate", arguments.layers)
    operands = Operands.of(arguments, precision)
    meta = constants(arguments, precision, launch)
    if arguments.trunk_shared and arguments.samples > 1:
        return _shared_trunk(arguments, operands, precision, meta)
    result = arguments.new_result()
    # The high and low parts of each sample's output are adjacent.
    output = padded_output(weight) * precision.scale
    shared = output.dim() == 2
    planes = as_operand(output, precision)
    if precision.operands == "fp16x3" and not shared:
        planes = planes.transpose(0, 1).contiguous()
    tiles = tile_table(arguments, launch.rows)
    siren_kernel[(programs(tiles.shape[0], result.device),)](
        operands.x, operands.first, operands.hidden, operands.shift, operands.gain, planes, bias.contiguous(), result,
        tiles, tiles.shape[0], operands.shift_stride, 0 if shared else planes[0].numel(),
        HAS_GAIN=arguments.gain is not None, OUTPUT_SHARED=shared, BIAS_SHARED=bias.dim() == 1, **meta,
    )  # fmt: skip
    return result


def _shared_trunk(arguments: SirenArguments, operands: Operands, precision: Precision, meta: dict[str, Any]) -> Tensor:
    """Field values of samples that differ in their output layers only."""
    samples, channels, count = arguments.samples, arguments.channels, arguments.x.shape[0]
    output_weight, output_bias = arguments.output
    weight = output_weight.expand(samples, -1, -1).reshape(samples * channels, -1)
    bias = output_bias.expand(samples, -1).reshape(-1).contiguous()
    padding = -weight.shape[0] % SHARED_TRUNK_COLUMNS
    output = as_operand(torch.nn.functional.pad(weight.T * precision.scale, (0, padding)), precision)
    result = arguments.x.new_empty(samples, count, channels)
    tiles = triton.cdiv(count, meta["BM"])
    blocks = triton.cdiv(weight.shape[0], SHARED_TRUNK_COLUMNS)
    # Just enough programs to fill the device, since each evaluates its tile's trunk.
    splits = max(1, min(blocks, programs(1 << 30, result.device) // tiles))
    shared_trunk_kernel[(tiles, splits)](
        operands.x, operands.first, operands.hidden, operands.shift, output, bias, result, count, weight.shape[0],
        BN=SHARED_TRUNK_COLUMNS, **meta,
    )  # fmt: skip
    return result


def _check_tangents_supported(arguments: SirenArguments, precision_name: str) -> None:
    if arguments.width > 128:
        raise UnsupportedCall(f"tangents at width {arguments.width} do not fit a multiprocessor")
    if arguments.width == 128 and precision_name == "accurate" and capability(arguments.x.device) < 90:
        raise UnsupportedCall("accurate tangents at width 128 do not fit the registers below compute capability 9.0")


def tangents(arguments: SirenArguments, moving: Mapping[str, Tensor], precision_name: str) -> tuple[Tensor, Tensor]:
    """Field values and their tangents (K, *values' shape); `moving` as in the reference. Raises UnsupportedCall."""
    _check_tangents_supported(arguments, precision_name)
    output_weight, output_bias = arguments.output
    precision = PRECISIONS[precision_name]
    launch = tangent_launch(arguments.width, precision_name == "accurate")
    operands = Operands.of(arguments, precision)
    tiles = tile_table(arguments, launch.rows)
    result = arguments.new_result()
    directions = next(iter(moving.values())).shape[0]
    result_tangent = arguments.x.new_empty(directions, *result.shape)
    absent = arguments.x.new_zeros(1)

    def planes(output: Tensor) -> Tensor:
        """(..., [2,] H, 16) operands, with adjacent high and low parts of each matrix for fp16x3."""
        operand = as_operand(padded_output(output) * precision.scale, precision)
        return operand.movedim(0, -3).contiguous() if precision.operands == "fp16x3" else operand

    output, bias = planes(output_weight), output_bias.contiguous()
    matrix = arguments.width * 16 * (2 if precision.operands == "fp16x3" else 1)
    sample_elements = dict(
        shift=arguments.layers * arguments.width,
        gain=arguments.layers * arguments.width,
        output_weight=matrix,
        output_bias=arguments.channels,
    )
    largest = [tangent.abs().amax() for tangent in moving.values() if tangent.numel()]
    amplitude = torch.stack(largest).amax().clamp(min=1e-30)
    factor = torch.exp2(-torch.floor(torch.log2(amplitude))).reshape(1)
    sources = dict.fromkeys(SAMPLE_DIMS, absent)
    direction_strides, sample_strides = dict.fromkeys(SAMPLE_DIMS, 0), dict.fromkeys(SAMPLE_DIMS, 0)
    for name, tangent in moving.items():
        # The last product takes the output's tangent as an operand, scaled like the others.
        sources[name] = (planes(tangent * factor) if name == "output_weight" else tangent).contiguous()
        direction_strides[name] = sources[name][0].numel()
        if getattr(arguments, name).dim() == SAMPLE_DIMS[name]:
            sample_strides[name] = sample_elements.get(name, 0)
    meta = constants(arguments, precision, launch)
    del meta["HC"]
    groups = triton.cdiv(directions, launch.directions)
    tangent_kernel[(programs(tiles.shape[0], result.device), groups)](
        operands.x, operands.first, operands.hidden, operands.shift, operands.gain, output, bias, result, tiles,
        tiles.shape[0],
        *sources.values(), factor, result_tangent, directions,
        operands.shift_stride, matrix if output_weight.dim() == 3 else 0,
        arguments.channels if bias.dim() == 2 else 0,
        *direction_strides.values(), result.numel(),
        *(sample_strides[name] for name in MODULATIONS),
        DIRECTIONS=launch.directions, HAS_GAIN=arguments.gain is not None,
        OF_X="x" in moving, OF_SHIFT="shift" in moving, OF_GAIN="gain" in moving, OF_OUTPUT="output_weight" in moving,
        OF_BIAS="output_bias" in moving,
        RADIANS=(TURN if precision.turns else 1.0) / precision.scale, **meta,
    )  # fmt: skip
    return result, result_tangent
