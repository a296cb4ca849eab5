"""The CPU path: the modulated SIREN in blocks of (sample, point) rows whose activations stay in cache.

Eager evaluation of S samples at N points writes L activations of S*N*H numbers to fresh memory, and on large batches
the page faults alone cost more than the arithmetic. Here a block of rows runs through the whole network in buffers
that are allocated once; the backward pass evaluates each block again instead of keeping its activations, so memory
does not grow with points times layers. Every core takes blocks of its own. A device other than the CPU takes larger
blocks, for its launches cost more than its cache saves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from . import reference
from .arguments import SirenArguments
from .blocks import Block, block_arguments, block_points, block_rows, block_samples, plan_blocks
from .gradients import Gradients, Wanted
from .tangents import Tangents
from .workers import run_shared_out

# Bytes of one activation buffer of a block: the measured optimum where a core has 2 MB of second-level cache.
FORWARD_BLOCK_BYTES = 1 << 19
BACKWARD_BLOCK_BYTES = 1 << 19
DEVICE_BLOCK_BYTES = 1 << 27


def threads_of(arguments: SirenArguments) -> int:
    """Threads that share the blocks out: torch's on the CPU, one elsewhere."""
    return torch.get_num_threads() if arguments.x.device.type == "cpu" else 1


def rows_of_a_block(arguments: SirenArguments, block_bytes: int) -> int:
    """Rows whose activations take about `block_bytes`, or what a device that is not the CPU takes."""
    if arguments.x.device.type != "cpu":
        block_bytes = DEVICE_BLOCK_BYTES
    return max(64, block_bytes // (arguments.width * arguments.x.element_size()))


class _Workspace:
    """Activation buffers for the largest block, handed out as (rows, H) views; one allocation for a whole pass."""

    def __init__(self, arguments: SirenArguments, rows: int, buffers: int) -> None:
        largest = max(1, min(rows, arguments.rows))
        self._memory = arguments.x.new_empty(buffers, largest, arguments.width)

    def buffer(self, index: int, rows: int) -> Tensor:
        return self._memory[index, :rows]


def _per_layer(modulation: Tensor, layer: int) -> Tensor:
    """One layer of (L, H) or (b, L, H), as (1, H) or (b, H)."""
    return modulation[layer].unsqueeze(0) if modulation.dim() == 2 else modulation[:, layer]


def _preactivation(part: SirenArguments, layer: int, h: Tensor, samples: int, out: Tensor) -> Tensor:
    """out (b n, H) <- gain * (W h) + shift for h (b n, K), or (n, K) shared by the block's samples."""
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
    """Values without a graph: (S, N, C) or (R, C), the last activations in place of channels if there is no output."""
    rows = rows_of_a_block(arguments, FORWARD_BLOCK_BYTES)
    result = arguments.new_result()

    def run(blocks: Sequence[Block]) -> None:
        work = _Workspace(arguments, rows, 2)
        for block in blocks:
            part = block_arguments(arguments, block)
            target = block_rows(result, arguments, block)
            h = _flat_points(part)
            for layer in range(part.layers):
                h = _preactivation(part, layer, h, block.samples, work.buffer(layer % 2, block.rows)).sin_()
            h = h.view(block.samples, block.points, -1)
            target.copy_(h if part.output_weight is None else _output(part, h))

    run_shared_out(list(plan_blocks(arguments, rows)), run, threads_of(arguments))
    return result


def _output(part: SirenArguments, h: Tensor) -> Tensor:
    """The linear output layer: (b, n, C) of activations (b, n, H)."""
    weight, bias = part.output_weight, part.output_bias
    assert weight is not None and bias is not None
    product = h @ (weight.T if weight.dim() == 2 else weight.transpose(1, 2))
    return product + (bias if bias.dim() == 1 else bias.unsqueeze(1))


def backward(arguments: SirenArguments, grad: Tensor, wanted: Wanted) -> Gradients:
    """The wanted gradients of sum(grad * values), evaluating every block again."""
    if arguments.trunk_shared and arguments.output_weight is not None:
        return _shared_trunk_backward(arguments, grad, wanted)
    rows = rows_of_a_block(arguments, BACKWARD_BLOCK_BYTES)
    total = Gradients(arguments, wanted)

    def run(blocks: Sequence[Block]) -> Gradients:
        gradients = Gradients(arguments, wanted)
        if not arguments.points_shared:
            gradients.x = total.x  # written once per row, by one thread
        work = _Workspace(arguments, rows, 2 * arguments.layers + 1)
        for block in blocks:
            _block_backward(arguments, block, work, grad, gradients)
        return gradients

    for part in run_shared_out(list(plan_blocks(arguments, rows)), run, threads_of(arguments)):
        if not arguments.points_shared:
            part.x = None
        total.add(part)
    return total


def _shared_trunk_backward(arguments: SirenArguments, grad: Tensor, wanted: Wanted) -> Gradients:
    """Gradients through the outputs of all samples to the trunk's features, then down the trunk once for each point."""
    weight, bias = arguments.output_weight, arguments.output_bias
    assert weight is not None and bias is not None
    trunk = replace(arguments, output_weight=None, output_bias=None)
    stacked = grad.transpose(0, 1).flatten(1)  # (N, S C)
    back = stacked @ weight.expand(len(grad), -1, -1).flatten(0, 1)
    gradients = backward(trunk, back.unsqueeze(0), replace(wanted, output_weight=False, output_bias=False))
    if wanted.output_weight:
        each = (stacked.T @ forward(trunk)[0]).view(len(grad), *weight.shape[-2:])
        gradients.output_weight = each if weight.dim() == 3 else each.sum(0)
    if wanted.output_bias:
        gradients.output_bias = grad.sum(1) if bias.dim() == 2 else grad.sum((0, 1))
    return gradients


def _block_backward(
    arguments: SirenArguments, block: Block, work: _Workspace, grad: Tensor, gradients: Gradients
) -> None:
    part, samples, layers = block_arguments(arguments, block), block.samples, arguments.layers
    inputs, slopes = [_flat_points(part)], []
    for layer in range(layers):
        t = _preactivation(part, layer, inputs[-1], samples, work.buffer(2 * layer, block.rows))
        inputs.append(torch.sin(t, out=work.buffer(2 * layer + 1, block.rows)))
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
            delta = torch.mm(delta, part.hidden_weights[layer], out=work.buffer(2 * layers, block.rows))
        else:
            _add_points(arguments, block, delta @ part.hidden_weights[0], gradients)


def _add(target: Tensor | None, block: Block, values: Tensor, dims: int) -> None:
    """Add per-sample values (b, ...) to a gradient that is per sample (`dims` dimensions) or shared by all samples."""
    if target is None:
        return
    if target.dim() == dims:
        target[block.first : block.last] += values
    else:
        target += values.sum(0)


def _output_backward(part: SirenArguments, block: Block, h: Tensor, grad: Tensor, gradients: Gradients) -> Tensor:
    """Gradient at the last activations (b n, H); the output layer's own gradients are accumulated on the way."""
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
    """Gradients of one layer's weight, shift and gain from its input h and the gradient delta at its preactivation."""
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
    # delta^T h is what both gradients are made of: d gain = row sums of W * Z, d W = gain * Z; no division by the gain.
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


def tangents(arguments: SirenArguments, moving: Tangents) -> tuple[Tensor, Tensor]:
    """Field values and their tangents (K, *values' shape) without a graph, block by block."""
    rows = max(1, rows_of_a_block(arguments, FORWARD_BLOCK_BYTES) // moving.directions)
    values = arguments.new_result()
    changes = values.new_empty(moving.directions, *values.shape)

    def run(blocks: Sequence[Block]) -> None:
        for block in blocks:
            part = block_arguments(arguments, block)
            moved = {
                name: torch.stack([_part_of(name, tangent, arguments, block) for tangent in tangent_directions])
                for name, tangent_directions in moving.given().items()
            }
            value, change = reference.modulated_siren_jvp(*part.reference_arguments(), tangents=moved)
            block_rows(values, arguments, block).copy_(value)
            for target, direction in zip(changes, change, strict=True):
                block_rows(target, arguments, block).copy_(direction)

    run_shared_out(list(plan_blocks(arguments, rows)), run, threads_of(arguments))
    return values, changes


def jacobian(arguments: SirenArguments, maps: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Field values (S, N, C) and their Jacobian (S, N, C, Z) in a code without a graph, block by block; `maps` as in
    the reference."""
    rows = rows_of_a_block(arguments, FORWARD_BLOCK_BYTES)
    values = arguments.new_result()
    derivative = values.new_empty(*values.shape, next(iter(maps.values())).shape[0])

    def run(blocks: Sequence[Block]) -> None:
        for block in blocks:
            part = block_arguments(arguments, block)
            value, change = reference.modulated_siren_jacobian(*part.reference_arguments(), maps=maps)
            block_rows(values, arguments, block).copy_(value)
            block_rows(derivative, arguments, block).copy_(change)

    run_shared_out(list(plan_blocks(arguments, rows)), run, threads_of(arguments))
    return values, derivative


def _part_of(name: str, tangent: Tensor, arguments: SirenArguments, block: Block) -> Tensor:
    """The block's part of one direction's tangent of the argument `name`."""
    if name == "x":
        return block_points(tangent, arguments, block)
    return block_samples(tangent, block, 2 if name == "output_bias" else 3)


def contract_outputs(features: Tensor, output_weight: Tensor, output_bias: Tensor) -> Tensor:
    """(S, N, C) from features (N, H) that all samples share: one matrix product over samples and channels together."""
    channels, width = output_weight.shape[-2:]
    values = (output_weight.reshape(-1, width) @ features.T).view(-1, channels, features.shape[0])
    return (values + output_bias.view(-1, channels, 1)).transpose(1, 2)
