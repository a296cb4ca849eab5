"""Blocked evaluation of a modulated SIREN: values, gradients, tangents and Jacobians without stored activations.

Eager evaluation of S samples at N points writes L activations of S*N*H numbers to fresh memory, where page faults cost
more than arithmetic. Here each block of rows passes through the whole network in buffers allocated once, and the
backward pass evaluates each block again, so memory does not grow with points times layers. Blocks are distributed over
the cores. Devices other than the CPU use larger blocks, since launch overhead outweighs the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .. import reference
from ..arguments import Gradients, SirenArguments
from .blocks import Block, block_arguments, block_part, block_rows, plan_blocks
from .workers import run_in_parallel

Result = TypeVar("Result")

# Bytes of one activation buffer of a block: optimum measured with 2 MB of second-level cache per core.
FORWARD_BLOCK_BYTES = 1 << 19
BACKWARD_BLOCK_BYTES = 1 << 19
DEVICE_BLOCK_BYTES = 1 << 27


def rows_per_block(arguments: SirenArguments, block_bytes: int) -> int:
    """Number of rows whose activations take `block_bytes` on the CPU, DEVICE_BLOCK_BYTES elsewhere."""
    if arguments.x.device.type != "cpu":
        block_bytes = DEVICE_BLOCK_BYTES
    return max(64, block_bytes // (arguments.width * arguments.x.element_size()))


def _over_blocks(arguments: SirenArguments, rows: int, run: Callable[[Sequence[Block]], Result]) -> list[Result]:
    """Results of `run` on one sequence of blocks per thread."""
    threads = torch.get_num_threads() if arguments.x.device.type == "cpu" else 1
    return run_in_parallel(list(plan_blocks(arguments, rows)), run, threads)


def _workspace(arguments: SirenArguments, rows: int, buffers: int) -> Tensor:
    """Uninitialised activation buffers (buffers, rows, H) of the largest block."""
    return arguments.x.new_empty(buffers, max(1, min(rows, arguments.rows)), arguments.width)


def _per_layer(modulation: Tensor, layer: int) -> Tensor:
    """(1, H) or (b, H): one layer of a modulation (L, H) or (b, L, H)."""
    return modulation[layer].unsqueeze(0) if modulation.dim() == 2 else modulation[:, layer]


def _preactivation(part: SirenArguments, layer: int, h: Tensor, samples: int, out: Tensor) -> Tensor:
    """gain * (W h) + shift, written to `out` (b n, H), for h (b n, K), or (n, K) shared by the block's samples."""
    weight, shift = part.hidden_weights[layer], _per_layer(part.shift, layer)
    gain = None if part.gain is None else _per_layer(part.gain, layer)
    if samples == 1 or (gain is None and shift.shape[0] == 1 and h.shape[0] == out.shape[0]):
        scaled = weight if gain is None else gain[0].unsqueeze(1) * weight
        return torch.addmm(shift[0], h, scaled.T, out=out)
    stacked = out.view(samples, -1, out.shape[-1])
    product = torch.mm(h, weight.T, out=out).view_as(stacked) if h.shape[0] == out.shape[0] else h @ weight.T
    if gain is None:
        torch.add(product, shift.unsqueeze(1), out=stacked)
    else:
        torch.addcmul(shift.unsqueeze(1), product, gain.unsqueeze(1), out=stacked)
    return out


def _flat_points(part: SirenArguments) -> Tensor:
    return part.x.reshape(-1, part.x.shape[-1])


def forward(arguments: SirenArguments) -> Tensor:
    """Values (S, N, C) or (R, C) without a graph; the last hidden activations, C = H, without an output layer."""
    rows = rows_per_block(arguments, FORWARD_BLOCK_BYTES)
    result = arguments.new_result()

    def run(blocks: Sequence[Block]) -> None:
        work = _workspace(arguments, rows, 2)
        for block in blocks:
            part = block_arguments(arguments, block)
            target = block_rows(result, arguments, block)
            h = _flat_points(part)
            for layer in range(part.layers):
                h = _preactivation(part, layer, h, block.samples, work[layer % 2, : block.rows]).sin_()
            h = h.view(block.samples, block.points, -1)
            target.copy_(h if part.output_weight is None else _output(part, h))

    _over_blocks(arguments, rows, run)
    return result


def _output(part: SirenArguments, h: Tensor) -> Tensor:
    """Values (b, n, C) of the output layer from activations (b, n, H)."""
    weight, bias = part.output
    product = h @ (weight.T if weight.dim() == 2 else weight.transpose(1, 2))
    return product + (bias if bias.dim() == 1 else bias.unsqueeze(1))


def backward(arguments: SirenArguments, grad: Tensor, wanted: Sequence[bool]) -> Gradients:
    """Gradients of sum(grad * values), by evaluating every block again; `wanted` as in `Gradients`."""
    if arguments.trunk_shared and arguments.output_weight is not None:
        return _shared_trunk_backward(arguments, grad, wanted)
    rows = rows_per_block(arguments, BACKWARD_BLOCK_BYTES)
    total = Gradients(arguments, wanted)

    def run(blocks: Sequence[Block]) -> Gradients:
        gradients = Gradients(arguments, wanted)
        if not arguments.points_shared:
            gradients.x = total.x  # each row is written by one thread only
        work = _workspace(arguments, rows, 2 * arguments.layers + 1)
        for block in blocks:
            _block_backward(arguments, block, work, grad, gradients)
        return gradients

    for part in _over_blocks(arguments, rows, run):
        if not arguments.points_shared:
            part.x = None
        total.add(part)
    return total


def _shared_trunk_backward(arguments: SirenArguments, grad: Tensor, wanted: Sequence[bool]) -> Gradients:
    """Gradients through all samples' outputs to the trunk's features, then through the trunk once per point."""
    weight, bias = arguments.output
    *trunk_wanted, weight_wanted, bias_wanted = wanted
    trunk = arguments.trunk()
    stacked = grad.transpose(0, 1).flatten(1)  # (N, S C)
    back = stacked @ weight.expand(len(grad), -1, -1).flatten(0, 1)
    gradients = backward(trunk, back.unsqueeze(0), trunk_wanted)
    if weight_wanted:
        per_sample = (stacked.T @ forward(trunk)[0]).view(len(grad), *weight.shape[-2:])
        gradients.output_weight = per_sample if weight.dim() == 3 else per_sample.sum(0)
    if bias_wanted:
        gradients.output_bias = grad.sum(1) if bias.dim() == 2 else grad.sum((0, 1))
    return gradients


def _block_backward(arguments: SirenArguments, block: Block, work: Tensor, grad: Tensor, gradients: Gradients) -> None:
    """Add one block's gradients; points that are not shared have theirs written."""
    part, samples, layers = block_arguments(arguments, block), block.samples, arguments.layers
    inputs, slopes = [_flat_points(part)], []
    for layer in range(layers):
        t = _preactivation(part, layer, inputs[-1], samples, work[2 * layer, : block.rows])
        inputs.append(torch.sin(t, out=work[2 * layer + 1, : block.rows]))
        slopes.append(t)
    delta = block_rows(grad, arguments, block)
    if part.output_weight is not None:
        delta = _output_backward(part, block, inputs[-1], delta, gradients)
    delta = delta.reshape(block.rows, -1)
    for layer in reversed(range(layers)):
        delta = slopes[layer].cos_().mul_(delta)
        _layer_gradients(part, block, layer, inputs[layer], delta, gradients)
        if layer == 0 and gradients.x is None:
            break
        if part.gain is not None:
            delta.view(samples, block.points, -1).mul_(part.gain[:, layer].unsqueeze(1))
        if layer > 0:
            delta = torch.mm(delta, part.hidden_weights[layer], out=work[2 * layers, : block.rows])
        else:
            _add_points(arguments, block, delta @ part.hidden_weights[0], gradients)


def _add(target: Tensor | None, block: Block, values: Tensor, dims: int) -> None:
    """Add values (b, ...) of the block's samples to a gradient that is per sample if it has `dims` dimensions."""
    if target is None:
        return
    if target.dim() == dims:
        target[block.first : block.last] += values
    else:
        target += values.sum(0)


def _output_backward(part: SirenArguments, block: Block, h: Tensor, grad: Tensor, gradients: Gradients) -> Tensor:
    """Gradient (b, n, H) at the last hidden activations; adds the gradients of the output layer."""
    weight = part.output_weight
    assert weight is not None
    _add(gradients.output_bias, block, grad.sum(1), 2)
    if gradients.output_weight is not None:
        if weight.dim() == 2:
            gradients.output_weight.addmm_(grad.reshape(-1, grad.shape[-1]).T, h)
        else:
            _add(gradients.output_weight, block, grad.transpose(1, 2) @ h.view(block.samples, block.points, -1), 3)
    return grad @ weight


def _layer_gradients(
    part: SirenArguments, block: Block, layer: int, h: Tensor, delta: Tensor, gradients: Gradients
) -> None:
    """Add the gradients of one layer's weight, shift and gain, given its input h and its preactivation's gradient
    delta (b n, H)."""
    stacked = delta.view(block.samples, block.points, -1)
    if gradients.shift is not None:
        _add(gradients.shift.select(-2, layer), block, stacked.sum(1), 2)
    weight_gradient = gradients.hidden_weights[layer]
    if part.gain is None:
        if weight_gradient is not None:
            shared = h.shape[0] != delta.shape[0]
            weight_gradient.addmm_((stacked.sum(0) if shared else delta).T, h)
        return
    if gradients.gain is None and weight_gradient is None:
        return
    # With Z = delta^T h per sample: d gain = row sums of W * Z, d W = gain * Z; this avoids dividing by the gain.
    outer = stacked.transpose(1, 2) @ (h if h.shape[0] != delta.shape[0] else h.view(block.samples, block.points, -1))
    if gradients.gain is not None:
        gradients.gain[block.first : block.last, layer] += (outer * part.hidden_weights[layer]).sum(2)
    if weight_gradient is not None:
        weight_gradient += (outer * part.gain[:, layer].unsqueeze(2)).sum(0)


def _add_points(arguments: SirenArguments, block: Block, values: Tensor, gradients: Gradients) -> None:
    assert gradients.x is not None
    stacked = values.view(block.samples, block.points, -1)
    if arguments.points_shared:
        gradients.x[block.start : block.start + block.points] += stacked.sum(0)
    else:
        block_rows(gradients.x, arguments, block).copy_(stacked)


def tangents(arguments: SirenArguments, moving: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Field values and their tangents (K, *values' shape) without a graph; `moving` as in the reference."""
    directions = next(iter(moving.values())).shape[0]
    values = arguments.new_result()
    changes = values.new_empty(directions, *values.shape)

    def run(blocks: Sequence[Block]) -> None:
        for block in blocks:
            parts = {
                name: torch.stack([block_part(name, direction, arguments, block) for direction in tangent])
                for name, tangent in moving.items()
            }
            value, change = reference.modulated_siren_jvp(block_arguments(arguments, block), parts)
            block_rows(values, arguments, block).copy_(value)
            for target, direction in zip(changes, change, strict=True):
                block_rows(target, arguments, block).copy_(direction)

    _over_blocks(arguments, max(1, rows_per_block(arguments, FORWARD_BLOCK_BYTES) // directions), run)
    return values, changes


def jacobian(arguments: SirenArguments, maps: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Field values (S, N, C) and their Jacobian (S, N, C, Z) in a code without a graph; `maps` as in the reference."""
    values = arguments.new_result()
    derivative = values.new_empty(*values.shape, next(iter(maps.values())).shape[0])

    def run(blocks: Sequence[Block]) -> None:
        for block in blocks:
            value, change = reference.modulated_siren_jacobian(block_arguments(arguments, block), maps)
            block_rows(values, arguments, block).copy_(value)
            block_rows(derivative, arguments, block).copy_(change)

    _over_blocks(arguments, rows_per_block(arguments, FORWARD_BLOCK_BYTES), run)
    return values, derivative


def contract_outputs(features: Tensor, output_weight: Tensor, output_bias: Tensor) -> Tensor:
    """Field values (S, N, C) from features (N, H) shared by all samples, by one matrix product."""
    channels, width = output_weight.shape[-2:]
    values = (output_weight.reshape(-1, width) @ features.T).view(-1, channels, features.shape[0])
    return (values + output_bias.view(-1, channels, 1)).transpose(1, 2)
