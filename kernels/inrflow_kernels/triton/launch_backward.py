"""Launch of the backward kernel and reduction of its partial sums in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..arguments import Gradients, SirenArguments
from .backward import backward_kernel
from .launch import (
    PRECISIONS,
    Operands,
    Precision,
    UnsupportedCall,
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

# Largest number of partial sums, at most 16 H per tile, which are indexed with 32 bits.
MAX_PARTIAL_SUMS = (1 << 31) - 1
# Bytes of activations and gradients stored at a time for the weight gradients at width 128.
STORED_BYTES = 1 << 30


def _check_supported(arguments: SirenArguments, precision_name: str) -> None:
    if precision_name == "accurate":
        raise UnsupportedCall("gradients of accurate precision are formed in float32")
    if arguments.width > 128:
        raise UnsupportedCall(f"gradients at width {arguments.width} do not fit a multiprocessor")
    if arguments.layers > 5:
        raise UnsupportedCall(f"gradients through {arguments.layers} hidden layers do not fit a multiprocessor")
    launch = backward_launch(arguments.width, arguments.layers, capability(arguments.x.device))
    tiles = arguments.rows // launch.rows + arguments.samples
    if tiles * 16 * arguments.width > MAX_PARTIAL_SUMS:
        raise UnsupportedCall(f"the partial sums of {arguments.rows} rows of {arguments.samples} samples are too many")


def register_limit(padded: int) -> dict[str, int]:
    """Compiler option `maxnreg` for more than four padded coordinates: all registers of a thread, since the assembler
    may otherwise choose 32 and spill 16 KB."""
    return dict(maxnreg=255) if padded > 4 else {}


def gradient_scale(grad: Tensor, precision: Precision) -> Tensor:
    """(1,) power of two that scales the largest gradient to nearly 1, within the range of fp16."""
    if precision.operands == "bf16":
        return grad.new_ones(1)
    return torch.exp2(-torch.floor(torch.log2(grad.abs().amax().clamp(min=1e-30)))).reshape(1)


def sum_over_tiles(partial: Tensor, arguments: SirenArguments, rows: int, per_sample: bool) -> Tensor:
    """Sums (S, ...), or (...) over all samples, of one partial sum per tile, in a fixed order."""
    if not per_sample:
        return partial.sum(0)
    if arguments.offsets is None:
        return partial.view(arguments.samples, -1, *partial.shape[1:]).sum(1)
    lengths = (torch.tensor(arguments.offsets).diff() + rows - 1) // rows
    flat = partial.reshape(partial.shape[0], -1)
    return torch.segment_reduce(flat, "sum", lengths=lengths.to(partial.device), axis=0).view(-1, *partial.shape[1:])


def backward(arguments: SirenArguments, grad: Tensor, wanted: Sequence[bool], precision_name: str) -> Gradients:
    """Gradients of sum(grad * values); `wanted` as in `Gradients`. Raises UnsupportedCall."""
    _check_supported(arguments, precision_name)
    gradients = Gradients(arguments, wanted)
    precision = PRECISIONS[precision_name]
    scale = gradient_scale(grad, precision)
    of_weights = _any(gradients.hidden_weights) or gradients.gain is not None
    store = arguments.width > 64 and arguments.layers > 1 and of_weights
    group = arguments.samples
    if store and not arguments.trunk_shared:
        per_row = 2 * (arguments.layers - 1) * arguments.width * 2
        group = max(1, STORED_BYTES // (-(-arguments.rows // arguments.samples) * per_row))
    for first in range(0, arguments.samples, group):
        last = min(arguments.samples, first + group)
        part, part_grad = arguments.of_samples(first, last), grad[first:last]
        if arguments.offsets is not None:
            part_grad = grad[arguments.offsets[first] : arguments.offsets[last]]
        if part.rows:
            _accumulate(part, part_grad, gradients.of_samples(arguments, first, last), precision, scale, store)
    return gradients


def _any(gradients: Sequence[Tensor | None]) -> bool:
    return any(gradient is not None for gradient in gradients)


def _accumulate(
    arguments: SirenArguments, grad: Tensor, gradients: Gradients, precision: Precision, scale: Tensor, store: bool
) -> None:
    """Add the gradients computed by one launch of the kernel."""
    output_weight, _ = arguments.output
    x, width, layers = arguments.x, arguments.width, arguments.layers
    many = arguments.trunk_shared and arguments.samples > 1
    network = _first_sample_outputs(arguments) if many else arguments
    weights_wanted, gain_wanted = _any(gradients.hidden_weights), gradients.gain is not None
    launch = backward_launch(width, layers, capability(x.device))
    tiles = tile_table(network, launch.rows)
    count = tiles.shape[0]
    workers = programs(count, x.device, per_multiprocessor=1)
    operands = Operands.of(network, precision)
    padded = padded_coordinates(arguments.coordinates)
    want_output = gradients.output_weight is not None and not many
    output_shared = many or output_weight.dim() == 2
    if many:
        flat = output_weight.expand(arguments.samples, -1, -1).reshape(-1, width)
        output = torch.nn.functional.pad(flat.T, (0, -flat.shape[0] % SHARED_TRUNK_COLUMNS))
    else:
        output = padded_output(output_weight)
    empty = x.new_empty
    absent = empty(1)
    grad_x = empty(network.rows, arguments.coordinates) if gradients.x is not None else absent
    grad_shift = empty(count, layers, width)
    grad_gain = empty(count, layers, width) if gain_wanted else absent
    grad_first = empty(workers, 4 * padded, width) if weights_wanted or store else absent
    grad_hidden = empty(workers, layers - 1, width, width) if weights_wanted and not store else absent
    grad_output = empty(workers if output_shared else count, width, 16) if want_output else absent
    features = empty(network.rows, width, dtype=precision.dtype) if many else absent
    stored = empty(2, layers - 1, network.rows, width, dtype=precision.dtype) if store else absent
    meta = constants(arguments, precision, launch) | register_limit(padded)
    for unused in ("HC", "SCALE"):
        del meta[unused]
    backward_kernel[(workers,)](
        operands.x, operands.first, operands.hidden, operands.shift, operands.gain,
        as_operand(output, precision), grad.contiguous(), scale, tiles, count,
        arguments.hidden_weights[0].T.contiguous(),
        grad_x, grad_shift, grad_gain, grad_first, grad_hidden, grad_output, features, stored,
        operands.shift_stride, 0 if output_shared else width * 16,
        arguments.samples * arguments.channels, x.shape[-2], network.rows * width,
        HAS_GAIN=arguments.gain is not None, OUTPUT_SHARED=output_shared, MANY_OUTPUTS=many,
        WANT_X=gradients.x is not None, WANT_GAIN=gain_wanted, WANT_WEIGHTS=weights_wanted and not store,
        WANT_OUTPUT=want_output, STORE=store, **meta,
    )  # fmt: skip

    # Division by a power of two is exact.
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
    """Add the gradients of deeper layers' weights and gains from the layers' inputs and scaled gradients (float32)."""
    for layer in range(1, arguments.layers):
        inputs, delta = stored[0, layer - 1].float(), stored[1, layer - 1].float() * unscale
        target = gradients.hidden_weights[layer]
        if arguments.gain is None:
            if target is not None:
                target += delta.T @ inputs
            continue
        for first, last, start, points in arguments.equal_runs():
            shape, rows = (last - first, points, arguments.width), slice(start, start + (last - first) * points)
            outer = delta[rows].view(shape).transpose(1, 2) @ inputs[rows].view(shape)
            if gradients.gain is not None:
                gradients.gain[first:last, layer] += (outer * arguments.hidden_weights[layer]).sum(2)
            if target is not None:
                target += (outer * arguments.gain[first:last, layer, :, None]).sum(0)


def _first_sample_outputs(arguments: SirenArguments) -> SirenArguments:
    """Arguments of a shared trunk with the output layer of one sample only."""
    weight, bias = arguments.output
    return replace(
        arguments,
        output_weight=weight[0] if weight.dim() == 3 else weight,
        output_bias=bias[0] if bias.dim() == 2 else bias,
    )


def _bias_gradient(arguments: SirenArguments, grad: Tensor) -> Tensor:
    if arguments.output[1].dim() == 1:
        return grad.reshape(-1, grad.shape[-1]).sum(0)
    if arguments.offsets is None:
        return grad.sum(1)
    lengths = torch.tensor(arguments.offsets).diff().to(grad.device)
    return torch.segment_reduce(grad, "sum", lengths=lengths, axis=0)
