"""Launch of the backward kernel, and the reduction of its partial sums in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from . import triton_backward
from .arguments import SirenArguments, equal_counts
from .gradients import Gradients, Wanted
from .launch_common import (
    PRECISIONS,
    Operands,
    Precision,
    as_operand,
    backward_launch,
    capability,
    constants,
    padded_coordinates,
    padded_output,
    programs,
    tile_table,
)
from .launch_forward import SHARED_TRUNK_COLUMNS

# Partial sums, at most 16 rows of the network's width for each tile, are indexed with 32 bits.
MAX_PARTIAL_SUMS = (1 << 31) - 1


def backward_unserved_reason(arguments: SirenArguments, precision_name: str) -> str | None:
    """Why the Triton kernels cannot form these gradients, in words; None where they can."""
    if precision_name == "accurate":
        return "gradients of accurate precision are formed in float32"
    if arguments.width > 128:
        return f"gradients at width {arguments.width} do not fit a multiprocessor"
    if arguments.layers > 5:
        return f"gradients through {arguments.layers} hidden layers do not fit a multiprocessor"
    launch = backward_launch(arguments.width, arguments.layers, capability(arguments.x.device))
    tiles = arguments.rows // launch.rows + arguments.samples
    if tiles * 16 * arguments.width > MAX_PARTIAL_SUMS:
        return f"the partial sums of {arguments.rows} rows of {arguments.samples} samples are too many"
    return None


def register_limit(padded: int) -> dict[str, int]:
    """The compiler's option `maxnreg`, for many (padded) coordinates: all registers that a thread can have. Left to
    choose there, the assembler may take 32 and spill 16 KB."""
    return dict(maxnreg=255) if padded > 4 else {}


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
    store = arguments.width > 64 and arguments.layers > 1 and (any(wanted.hidden_weights) or wanted.gain)
    if not store or arguments.trunk_shared:
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
    launch = backward_launch(width, layers, capability(x.device))
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
    grad_first = empty(workers, 4 * padded, width) if weights_wanted or store else none
    grad_hidden = empty(workers, layers - 1, width, width) if weights_wanted and not store else none
    grad_output = empty(workers if output_shared else count, width, 16) if want_output else none
    features = empty(network.rows, width, dtype=precision.dtype) if many else none
    stored = empty(2, layers - 1, network.rows, width, dtype=precision.dtype) if store else none
    meta = constants(arguments, precision, launch) | register_limit(padded)
    for unused in ("HC", "SCALE"):
        del meta[unused]
    triton_backward.backward_kernel[(workers,)](
        operands.x, operands.first, operands.hidden, operands.shift, operands.gain,
        as_operand(output, precision), grad.contiguous(), scale, tiles, count,
        arguments.hidden_weights[0].T.contiguous(),
        grad_x, grad_shift, grad_gain, grad_first, grad_hidden, grad_output, features, stored,
        operands.shift_stride, 0 if output_shared else width * 16,
        arguments.samples * arguments.channels, x.shape[-2], network.rows * width,
        HAS_GAIN=arguments.gain is not None, OUTPUT_SHARED=output_shared, MANY_OUTPUTS=many,
        WANT_X=wanted.x, WANT_GAIN=wanted.gain, WANT_WEIGHTS=weights_wanted and not store, WANT_OUTPUT=want_output,
        STORE=store, **meta,
    )  # fmt: skip

    # What the kernel wrote is scaled; a power of two goes without rounding.
    unscale = 1 / scale

    def over_tiles(partial: Tensor, per_sample: bool) -> Tensor:
        return sum_over_tiles(partial, network, launch.rows, per_sample)

    if gradients.x is not None:
        rows = grad_x.view(-1, *x.shape) if arguments.points_shared else grad_x.view(1, *x.shape)
        gradients.x.addcmul_(rows.sum(0), unscale)
    if gradients.shift is not None:
        gradients.shift.addcmul_(over_tiles(grad_shift, gradients.shift.dim() == 3), unscale)
    if gradients.gain is not None:
        if store:
            gradients.gain[:, 0].addcmul_(over_tiles(grad_gain[:, 0], True), unscale)
        else:
            gradients.gain.addcmul_(over_tiles(grad_gain, True), unscale)
    if gradients.output_bias is not None:
        gradients.output_bias += _bias_gradient(arguments, grad)
    if gradients.output_weight is not None:
        if many:
            per_sample = grad.transpose(1, 2) @ features.float()
            gradients.output_weight += per_sample if gradients.output_weight.dim() == 3 else per_sample.sum(0)
        else:
            total = grad_output.sum(0) if output_shared else over_tiles(grad_output, True)
            gradients.output_weight.addcmul_(total[..., : arguments.channels].transpose(-1, -2), unscale)
    if gradients.hidden_weights[0] is not None:
        sums = grad_first.sum(0)
        sums = (sums[:padded] + sums[padded : 2 * padded])[: arguments.coordinates].T
        gradients.hidden_weights[0].addcmul_(sums, unscale)
    if store:
        _from_stored(stored, unscale, arguments, gradients)
        return
    for layer, target in enumerate(gradients.hidden_weights[1:]):
        if target is not None:
            target.addcmul_(grad_hidden[:, layer].sum(0).T, unscale)


def _from_stored(stored: Tensor, unscale: Tensor, arguments: SirenArguments, gradients: Gradients) -> None:
    """Gradients of deeper layers' weights and gains from each layer's inputs and scaled gradients, in float32."""
    for layer in range(1, arguments.layers):
        inputs, delta = stored[0, layer - 1].float(), stored[1, layer - 1].float() * unscale
        target = gradients.hidden_weights[layer]
        if arguments.gain is None:
            if target is not None:
                target += delta.T @ inputs
            continue
        for first, last, low, high in _equal_runs(arguments):
            shape = (last - first, -1, arguments.width)
            outer = delta[low:high].view(shape).transpose(1, 2) @ inputs[low:high].view(shape)
            if gradients.gain is not None:
                gradients.gain[first:last, layer] += (outer * arguments.hidden_weights[layer]).sum(2)
            if target is not None:
                target += (outer * arguments.gain[first:last, layer, :, None]).sum(0)


def _equal_runs(arguments: SirenArguments) -> Iterator[tuple[int, int, int, int]]:
    """Runs of samples with equally many points: first and last sample, first and last row (last ones exclusive)."""
    if arguments.offsets is None:
        yield 0, arguments.samples, 0, arguments.rows
        return
    for first, last, start, points in equal_counts(arguments.offsets):
        if points:
            yield first, last, start, start + (last - first) * points


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
