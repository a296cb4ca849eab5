"""Host side of the Triton kernels: which calls they serve, operand preparation, tile tables, launch configurations."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

# Fused multiply-adds are part of the kernels' measured accuracy and speed; the compiler's default is about to change.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton
from torch import Tensor

from . import triton_backward, triton_forward, triton_tangent
from .arguments import SirenArguments
from .gradients import Gradients, Wanted
from .tangents import MOVABLE, Tangents

INTERPRETED = triton.knobs.runtime.interpret
WIDTHS = (32, 64, 128, 256)
MAX_LAYERS = 6
TURN = 2 * math.pi
# Weights of accurate mode are multiplied by this power of two, or their low halves would be subnormal in fp16.
ACCURATE_SCALE = 64.0


@dataclass(frozen=True)
class Precision:
    """How a precision name of the public functions is carried out: operands, sine, unit of its argument, weight scale."""

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
    """Compile-time shape of a kernel: rows of a tile, width of an activation chunk, warps."""

    rows: int
    chunk: int
    warps: int


def forward_launch(width: int, accurate: bool) -> Launch:
    """Launch of the forward kernels: compiled for sm_80, sm_90 and sm_100 without spills (benchmarks/README.md)."""
    if width <= 64:
        return Launch(128, width, 4)
    return Launch(64 if accurate else 128, min(width, 128), 8)


def backward_launch(width: int, weights_wanted: bool) -> Launch:
    """Launch of the backward kernel. Narrow networks take fewer warps, or a product would have too few columns."""
    return Launch(128, width, 8 if width >= 64 else 4)


def backward_resident(width: int) -> bool:
    """Whether the backward kernel keeps all weights on the multiprocessor."""
    return width <= 64


def unserved_reason(arguments: SirenArguments) -> str | None:
    """Why the Triton kernels cannot evaluate this call, in words; None where they can."""
    device = arguments.x.device
    if device.type != "cuda" and not INTERPRETED:
        return f"the tensors are on {device.type}, not on a CUDA device"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
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


def _meta(arguments: SirenArguments, precision: Precision, launch: Launch) -> dict[str, Any]:
    """The constants that every kernel takes."""
    return dict(
        D=arguments.coordinates,
        DP=padded_coordinates(arguments.coordinates),
        H=arguments.width,
        HC=launch.chunk,
        L=arguments.layers,
        C=arguments.channels,
        BM=launch.rows,
        PREC=precision.operands,
        SINE=precision.sine,
        SCALE=1 / precision.scale,
        INTERPRETED=INTERPRETED,
        num_warps=launch.warps,
        num_stages=1,
    )


def forward(arguments: SirenArguments, precision_name: str) -> Tensor:
    """Field values without a graph: (S, N, C), or (R, C) for ragged points."""
    precision = PRECISIONS[precision_name]
    launch = forward_launch(arguments.width, precision_name == "accurate")
    operands = Operands.of(arguments, precision)
    meta = _meta(arguments, precision, launch)
    if arguments.trunk_shared and arguments.samples > 1:
        return _shared_trunk(arguments, operands, precision, meta)
    leading = (arguments.samples, arguments.x.shape[-2]) if arguments.offsets is None else (arguments.x.shape[0],)
    result = arguments.x.new_empty(*leading, arguments.channels)
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
        arguments.channels if bias.dim() == 2 else 0,
        HAS_GAIN=arguments.gain is not None, OUTPUT_SHARED=shared, **meta,
    )  # fmt: skip
    return result


SHARED_TRUNK_COLUMNS = 64


def _shared_trunk(
    arguments: SirenArguments, operands: Operands, precision: Precision, meta: dict[str, Any]
) -> Tensor:
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


def backward_unserved_reason(arguments: SirenArguments, precision_name: str, wanted: Wanted) -> str | None:
    """Why the Triton kernels cannot form these gradients, in words; None where they can."""
    if precision_name == "accurate":
        return "gradients of accurate precision are formed in float32"
    if arguments.width > 128:
        return f"gradients at width {arguments.width} do not fit a multiprocessor"
    if arguments.layers > 5:
        return f"gradients through {arguments.layers} hidden layers do not fit a multiprocessor"
    return None


def gradient_scale(grad: Tensor, precision: Precision) -> Tensor:
    """(1,) power of two that brings the largest gradient near 1, so that fp16 neither overflows nor loses digits."""
    if precision.operands == "bf16":
        return grad.new_ones(1)
    return torch.exp2(-torch.floor(torch.log2(grad.abs().amax().clamp(min=1e-30)))).reshape(1)


def sum_over_tiles(partial: Tensor, arguments: SirenArguments, rows: int, per_sample: bool) -> Tensor:
    """(S, ...) or, summed over samples too, (...) from one partial sum per tile, always in the same order."""
    if not per_sample:
        return partial.sum(0)
    if arguments.offsets is None:
        return partial.view(arguments.samples, -1, *partial.shape[1:]).sum(1)
    lengths = (torch.tensor(arguments.offsets).diff() + rows - 1) // rows
    flat = partial.reshape(partial.shape[0], -1)
    return torch.segment_reduce(flat, "sum", lengths=lengths.to(partial.device), axis=0).view(-1, *partial.shape[1:])


# Bytes of the activations and deltas that the weight gradients of width 128 are formed from, at a time.
STORED_BYTES = 1 << 30


def backward(arguments: SirenArguments, grad: Tensor, wanted: Wanted, precision_name: str) -> Gradients:
    """The wanted gradients of sum(grad * field)."""
    gradients = Gradients(arguments, wanted)
    precision = PRECISIONS[precision_name]
    scale = gradient_scale(grad, precision)
    store = arguments.width > 64 and any(wanted.hidden_weights)
    if not store or arguments.layers == 1 or arguments.trunk_shared:
        _backward(arguments, grad, wanted, precision, scale, gradients, store)
        return gradients
    per_row = 2 * (arguments.layers - 1) * arguments.width * 2
    per_sample = -(-arguments.rows // arguments.samples) * per_row
    group = max(1, STORED_BYTES // per_sample)
    for first in range(0, arguments.samples, group):
        last = min(arguments.samples, first + group)
        part, part_grad = sample_range(arguments, first, last), _grad_range(arguments, grad, first, last)
        if part.rows == 0:
            continue
        found = Gradients(part, wanted)
        _backward(part, part_grad, wanted, precision, scale, found, store)
        _merge(gradients, found, arguments, first, last)
    return gradients


def sample_range(arguments: SirenArguments, first: int, last: int) -> SirenArguments:
    """The same evaluation for samples first..last (exclusive) alone."""

    def part(tensor: Tensor, dims: int) -> Tensor:
        return tensor[first:last] if tensor.dim() == dims else tensor

    x, offsets = part(arguments.x, 3), None
    if arguments.offsets is not None:
        bounds = arguments.offsets
        x = arguments.x[bounds[first] : bounds[last]]
        offsets = tuple(bound - bounds[first] for bound in bounds[first : last + 1])
    assert arguments.output_weight is not None and arguments.output_bias is not None
    return replace(
        arguments,
        x=x,
        shift=part(arguments.shift, 3),
        gain=None if arguments.gain is None else part(arguments.gain, 3),
        output_weight=part(arguments.output_weight, 3),
        output_bias=part(arguments.output_bias, 2),
        offsets=offsets,
    )


def _grad_range(arguments: SirenArguments, grad: Tensor, first: int, last: int) -> Tensor:
    if arguments.offsets is None:
        return grad[first:last]
    return grad[arguments.offsets[first] : arguments.offsets[last]]


def _merge(whole: Gradients, part: Gradients, arguments: SirenArguments, first: int, last: int) -> None:
    """Add a sample range's gradients to the whole's."""

    def add(target: Tensor | None, values: Tensor | None, dims: int) -> None:
        if target is not None and values is not None:
            (target[first:last] if target.dim() == dims else target).add_(values)

    if arguments.offsets is not None and whole.x is not None and part.x is not None:
        whole.x[arguments.offsets[first] : arguments.offsets[last]] = part.x
    else:
        add(whole.x, part.x, 3)
    add(whole.shift, part.shift, 3)
    add(whole.gain, part.gain, 3)
    add(whole.output_weight, part.output_weight, 3)
    add(whole.output_bias, part.output_bias, 2)
    for target, values in zip(whole.hidden_weights, part.hidden_weights, strict=True):
        add(target, values, 3)


def _backward(
    arguments: SirenArguments,
    grad: Tensor,
    wanted: Wanted,
    precision: Precision,
    scale: Tensor,
    gradients: Gradients,
    store: bool,
) -> None:
    """Fill `gradients` (zeros so far) from one launch of the kernel."""
    assert arguments.output_weight is not None
    x, width, layers = arguments.x, arguments.width, arguments.layers
    many = arguments.trunk_shared and arguments.samples > 1
    network = _first_sample_outputs(arguments) if many else arguments
    weights_wanted = any(wanted.hidden_weights)
    launch = backward_launch(width, weights_wanted)
    tiles = tile_table(network, launch.rows)
    count = tiles.shape[0]
    workers = programs(count, x.device, per_multiprocessor=1)
    operands = Operands.of(network, precision)
    padded = padded_coordinates(arguments.coordinates)
    want_output = wanted.output_weight and not many
    output_shared = many or arguments.output_weight.dim() == 2
    if many:
        flat = arguments.output_weight.expand(arguments.samples, -1, -1).reshape(-1, width)
        output = torch.nn.functional.pad(flat.T, (0, -flat.shape[0] % SHARED_TRUNK_COLUMNS))
    else:
        output = padded_output(arguments.output_weight)
    none = x.new_empty(1)
    empty = x.new_empty
    grad_x = empty(network.rows, arguments.coordinates) if wanted.x else none
    grad_shift = empty(count, layers, width)
    grad_gain = empty(count, layers, width) if wanted.gain else none
    grad_first = empty(workers, 4 * padded, width) if weights_wanted else none
    grad_hidden = empty(workers, layers - 1, width, width) if weights_wanted and not store else none
    grad_output = empty(workers if output_shared else count, width, 16) if want_output else none
    features = empty(network.rows, width, dtype=precision.dtype) if many else none
    stored = empty(2, layers - 1, network.rows, width, dtype=precision.dtype) if store else none
    meta = _meta(arguments, precision, launch)
    for unused in ("HC", "SCALE"):
        del meta[unused]
    triton_backward.backward_kernel[(workers,)](
        operands.x, operands.first, operands.hidden, operands.shift, operands.gain,
        as_operand(output, precision), grad.contiguous(), scale, tiles, count,
        as_operand(torch.nn.functional.pad(arguments.hidden_weights[0], (0, 16 - arguments.coordinates)), precision),
        grad_x, grad_shift, grad_gain, grad_first, grad_hidden, grad_output, features, stored,
        operands.shift_stride, 0 if output_shared else width * 16,
        arguments.samples * arguments.channels, x.shape[-2], network.rows * width,
        HAS_GAIN=arguments.gain is not None, OUTPUT_SHARED=output_shared, MANY_OUTPUTS=many,
        WANT_X=wanted.x, WANT_GAIN=wanted.gain, WANT_WEIGHTS=weights_wanted and not store, WANT_OUTPUT=want_output,
        STORE=store, RESIDENT=backward_resident(width), **meta,
    )  # fmt: skip

    def over_tiles(partial: Tensor, per_sample: bool) -> Tensor:
        return sum_over_tiles(partial, network, launch.rows, per_sample)

    if gradients.x is not None:
        rows = grad_x.view(-1, *x.shape) if arguments.points_shared else grad_x.view(1, *x.shape)
        gradients.x += rows.sum(0)
    if gradients.shift is not None:
        gradients.shift += over_tiles(grad_shift, gradients.shift.dim() == 3)
    if gradients.gain is not None:
        gradients.gain += over_tiles(grad_gain, True)
    if gradients.output_bias is not None:
        gradients.output_bias += _bias_gradient(arguments, grad)
    if gradients.output_weight is not None:
        if many:
            per_sample = grad.transpose(1, 2) @ features.float()
            gradients.output_weight += per_sample if gradients.output_weight.dim() == 3 else per_sample.sum(0)
        else:
            total = grad_output.sum(0) if output_shared else over_tiles(grad_output, True)
            gradients.output_weight += total[..., : arguments.channels].transpose(-1, -2)
    if gradients.hidden_weights[0] is not None:
        sums = grad_first.sum(0)
        gradients.hidden_weights[0] += (sums[:padded] + sums[padded : 2 * padded])[: arguments.coordinates].T
    for layer, target in enumerate(gradients.hidden_weights[1:]):
        if target is None:
            continue
        if store:
            # Deltas are rounded and scaled; the product accumulates in float32.
            target += (stored[1, layer].float().T @ stored[0, layer].float()) / scale
        else:
            target += grad_hidden[:, layer].sum(0).T


def _first_sample_outputs(arguments: SirenArguments) -> SirenArguments:
    """The shared trunk alone: the same evaluation with one sample's outputs."""
    assert arguments.output_weight is not None and arguments.output_bias is not None
    weight, bias = arguments.output_weight, arguments.output_bias
    return replace(
        arguments,
        output_weight=weight[0] if weight.dim() == 3 else weight,
        output_bias=bias[0] if bias.dim() == 2 else bias,
    )


def _bias_gradient(arguments: SirenArguments, grad: Tensor) -> Tensor:
    assert arguments.output_bias is not None
    if arguments.output_bias.dim() == 1:
        return grad.reshape(-1, grad.shape[-1]).sum(0)
    if arguments.offsets is None:
        return grad.sum(1)
    lengths = torch.tensor(arguments.offsets).diff().to(grad.device)
    return torch.segment_reduce(grad, "sum", lengths=lengths, axis=0)


DIRECTIONS = 2


def tangent_unserved_reason(arguments: SirenArguments) -> str | None:
    """Why the Triton kernels cannot carry tangents in this call (one that they otherwise serve); None where they can."""
    if arguments.width > 128:
        return f"tangents at width {arguments.width} do not fit a multiprocessor"
    return None


def tangent_launch(width: int, accurate: bool) -> Launch:
    return Launch(64 if accurate or width > 64 else 128, width, 8 if width >= 64 else 4)


def tangents(arguments: SirenArguments, moving: Tangents, precision_name: str) -> tuple[Tensor, Tensor]:
    """Field values and their tangents (K, *values' shape)."""
    assert arguments.output_weight is not None and arguments.output_bias is not None
    precision = PRECISIONS[precision_name]
    launch = tangent_launch(arguments.width, precision_name == "accurate")
    operands = Operands.of(arguments, precision)
    tiles = tile_table(arguments, launch.rows)
    leading = (arguments.samples, arguments.x.shape[-2]) if arguments.offsets is None else (arguments.x.shape[0],)
    result = arguments.x.new_empty(*leading, arguments.channels)
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
    meta = _meta(arguments, precision, launch)
    del meta["HC"]
    work = tiles.shape[0] * triton.cdiv(moving.directions, DIRECTIONS)
    triton_tangent.tangent_kernel[(programs(work, result.device, per_multiprocessor=1),)](
        operands.x, operands.first, operands.hidden, operands.shift, operands.gain, output, bias, result, tiles,
        tiles.shape[0],
        *(sources[name] for name in MOVABLE), factor, result_tangent, moving.directions,
        operands.shift_stride, matrix if arguments.output_weight.dim() == 3 else 0,
        arguments.channels if bias.dim() == 2 else 0,
        *(direction_strides[name] for name in MOVABLE), result.numel(),
        *(sample_strides[name] for name in MOVABLE[1:]),
        DIRECTIONS=DIRECTIONS, HAS_GAIN=arguments.gain is not None,
        OF_X=flags["x"], OF_SHIFT=flags["shift"], OF_GAIN=flags["gain"], OF_OUTPUT=flags["output_weight"],
        OF_BIAS=flags["output_bias"],
        RADIANS=(TURN if precision.turns else 1.0) / precision.scale, **meta,
    )  # fmt: skip
    return result, result_tangent
