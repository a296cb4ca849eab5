"""The CPU path: the modulated SIREN in blocks of (sample, point) rows whose activations stay in cache.

Eager evaluation of S samples at N points writes L activations of S*N*H numbers to fresh memory, and on large batches the
page faults alone cost more than the arithmetic. Here a block of rows runs through the whole network in two buffers that
are allocated once; the backward pass evaluates each block again instead of keeping its activations, so memory does not
grow with points times layers. Second order (`create_graph`) differentiates the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import reference
from .arguments import SirenArguments

# Measured optimum on cores with 2 MB of second-level cache: bytes of one activation buffer of a block.
FORWARD_BLOCK_BYTES = 1024 * 1024
BACKWARD_BLOCK_BYTES = 512 * 1024


class Block(NamedTuple):
    """Samples first..last (exclusive), each at `points` points from `start`.

    With ragged points `start` is the first row and the samples' rows follow each other; otherwise it is a point index.
    """

    first: int
    last: int
    start: int
    points: int


def block_rows(width: int, element_size: int, block_bytes: int) -> int:
    """Rows of a block whose activation buffer of `width` columns takes about `block_bytes`."""
    return max(64, block_bytes // (width * element_size))


def plan_blocks(arguments: SirenArguments, rows: int) -> Iterator[Block]:
    """Cut an evaluation into blocks of at most `rows` rows, all samples of a block having equally many points."""
    if arguments.offsets is None:
        yield from _uniform_blocks(0, arguments.samples, 0, arguments.x.shape[-2], rows, stacked=False)
        return
    bounds = arguments.offsets
    first = 0
    while first < arguments.samples:
        count = bounds[first + 1] - bounds[first]
        last = first + 1
        while last < arguments.samples and bounds[last + 1] - bounds[last] == count:
            last += 1
        yield from _uniform_blocks(first, last, bounds[first], count, rows, stacked=True)
        first = last


def _uniform_blocks(first: int, last: int, start: int, count: int, rows: int, stacked: bool) -> Iterator[Block]:
    """Blocks of samples first..last with `count` points each: parts of one sample, or several whole samples."""
    if count == 0:
        return
    parts = -(-count // rows)
    points = -(-count // parts)
    for offset in range(0, count, points):
        length = min(points, count - offset)
        group = max(1, rows // length) if parts == 1 or not stacked else 1
        for sample in range(first, last, group):
            stop = min(last, sample + group)
            yield Block(sample, stop, start + offset + (sample - first) * count * stacked, length)


class _Views:
    """The parts of an evaluation's tensors that belong to a block, always with the block's samples as first dimension."""

    def __init__(self, arguments: SirenArguments) -> None:
        self.arguments = arguments

    def points(self, x: Tensor, block: Block) -> Tensor:
        """(b, n, D), or (1, n, D) where the points are shared."""
        if self.arguments.points_shared:
            return x[block.start : block.start + block.points].unsqueeze(0)
        return self.rows(x, block)

    def rows(self, values: Tensor, block: Block) -> Tensor:
        """(b, n, K) of a tensor (S, N, K), or (R, K) for ragged points."""
        if self.arguments.offsets is None:
            return values[block.first : block.last, block.start : block.start + block.points]
        samples = block.last - block.first
        return values[block.start : block.start + samples * block.points].reshape(samples, block.points, values.shape[-1])

    @staticmethod
    def samples(values: Tensor | None, block: Block, dims: int) -> Tensor | None:
        """A per-sample tensor's (b, ...), or (1, ...) of one that all samples share (it has fewer than `dims` dims)."""
        if values is None:
            return None
        return values[block.first : block.last] if values.dim() == dims else values.unsqueeze(0)


class _Workspace:
    """Activation buffers for the largest block, handed out as (b * n, H) views; one allocation for the whole pass."""

    def __init__(self, arguments: SirenArguments, rows: int, buffers: int) -> None:
        largest = min(rows, arguments.rows)
        self._memory = arguments.x.new_empty(buffers, max(1, largest), arguments.width)

    def buffer(self, index: int, rows: int) -> Tensor:
        return self._memory[index, :rows]


def _preactivation(
    h: Tensor, samples: int, weight: Tensor, shift: Tensor, gain: Tensor | None, out: Tensor
) -> Tensor:
    """out <- gain * (h W^T) + shift for h (b, n, K) or (1, n, K) shared, shift and gain (b or 1, H), out (b * n, H)."""
    if samples == 1 or (gain is None and shift.shape[0] == 1 and h.shape[0] == samples):
        scaled = weight if gain is None else gain[0].unsqueeze(1) * weight
        return torch.addmm(shift[0], h.reshape(-1, h.shape[-1]), scaled.T, out=out)
    stacked = out.view(samples, -1, out.shape[-1])
    if h.shape[0] == samples:
        product = torch.mm(h.reshape(-1, h.shape[-1]), weight.T, out=out).view_as(stacked)
    else:
        product = h @ weight.T
    if gain is None:
        torch.add(product, shift.unsqueeze(1), out=stacked)
    else:
        torch.addcmul(shift.unsqueeze(1), product, gain.unsqueeze(1), out=stacked)
    return out


def forward(arguments: SirenArguments) -> Tensor:
    """Field values without a graph: (S, N, C), or (R, C) for ragged points."""
    rows = block_rows(arguments.width, arguments.x.element_size(), FORWARD_BLOCK_BYTES)
    views, work = _Views(arguments), _Workspace(arguments, rows, 2)
    leading = (arguments.samples, arguments.x.shape[-2]) if arguments.offsets is None else (arguments.x.shape[0],)
    result = arguments.x.new_empty(*leading, arguments.channels)
    for block in plan_blocks(arguments, rows):
        samples = block.last - block.first
        size = samples * block.points
        shift, gain = views.samples(arguments.shift, block, 3), views.samples(arguments.gain, block, 3)
        assert shift is not None
        h = views.points(arguments.x, block)
        for layer, weight in enumerate(arguments.hidden_weights):
            t = work.buffer(layer % 2, size)
            layer_gain = None if gain is None else gain[:, layer]
            h = _preactivation(h, samples, weight, shift[:, layer], layer_gain, t).sin_().view(samples, block.points, -1)
        views.rows(result, block).copy_(_output(arguments, views, block, h))
    return result


def _output(arguments: SirenArguments, views: _Views, block: Block, h: Tensor) -> Tensor:
    """The linear output layer: (b, n, C) of activations (b, n, H)."""
    weight = views.samples(arguments.output_weight, block, 3)
    bias = views.samples(arguments.output_bias, block, 2)
    assert weight is not None and bias is not None
    if weight.shape[0] == 1 or h.shape[0] == 1:
        product = h @ weight.transpose(1, 2) if weight.shape[0] != 1 else h @ weight[0].T
    else:
        product = torch.bmm(h, weight.transpose(1, 2))
    return product + bias.unsqueeze(1)


class Gradients:
    """Accumulators of the gradients that are wanted; those that are not stay None."""

    def __init__(self, arguments: SirenArguments, wanted: dict[str, bool], weights_wanted: tuple[bool, ...]) -> None:
        def zeros(name: str, tensor: Tensor | None) -> Tensor | None:
            return torch.zeros_like(tensor, memory_format=torch.contiguous_format) if tensor is not None and wanted[name] else None

        self.x = zeros("x", arguments.x)
        self.shift = zeros("shift", arguments.shift)
        self.gain = zeros("gain", arguments.gain)
        self.output_weight = zeros("output_weight", arguments.output_weight)
        self.output_bias = zeros("output_bias", arguments.output_bias)
        self.hidden_weights = [
            torch.zeros_like(weight, memory_format=torch.contiguous_format) if flag else None
            for weight, flag in zip(arguments.hidden_weights, weights_wanted, strict=True)
        ]


def _add_over_samples(target: Tensor | None, block: Block, values: Tensor, dims: int) -> None:
    """Add per-sample values (b, ...) to a gradient that is per sample (`dims` dims) or shared by all samples."""
    if target is None:
        return
    if target.dim() == dims:
        target[block.first : block.last] += values
    else:
        target += values.sum(0)


def backward(arguments: SirenArguments, grad: Tensor, gradients: Gradients) -> None:
    """Accumulate the wanted gradients of sum(grad * field) into `gradients`, evaluating every block again."""
    layers = arguments.layers
    rows = block_rows(arguments.width, arguments.x.element_size(), BACKWARD_BLOCK_BYTES)
    views, work = _Views(arguments), _Workspace(arguments, rows, 2 * layers + 1)
    for block in plan_blocks(arguments, rows):
        samples = block.last - block.first
        size = samples * block.points
        shift, gain = views.samples(arguments.shift, block, 3), views.samples(arguments.gain, block, 3)
        assert shift is not None
        activations = [views.points(arguments.x, block)]
        for layer, weight in enumerate(arguments.hidden_weights):
            t = work.buffer(2 * layer, size)
            layer_gain = None if gain is None else gain[:, layer]
            _preactivation(activations[-1], samples, weight, shift[:, layer], layer_gain, t)
            h = torch.sin(t, out=work.buffer(2 * layer + 1, size))
            activations.append(h.view(samples, block.points, -1))
        delta = _output_backward(arguments, views, block, activations[-1], views.rows(grad, block), gradients)
        spare = work.buffer(2 * layers, size)
        for layer in reversed(range(layers)):
            delta = work.buffer(2 * layer, size).cos_().mul_(delta.reshape(size, -1))
            _layer_gradients(arguments, views, block, layer, activations[layer], delta, gradients)
            if layer == 0 and gradients.x is None:
                break
            scaled = _scaled_by_gain(delta, samples, None if gain is None else gain[:, layer])
            weight = arguments.hidden_weights[layer]
            if layer > 0:
                delta = torch.mm(scaled, weight, out=spare)
            else:
                _add_points(arguments, views, block, (scaled @ weight).view(samples, block.points, -1), gradients)


def _output_backward(
    arguments: SirenArguments, views: _Views, block: Block, h: Tensor, grad: Tensor, gradients: Gradients
) -> Tensor:
    """Gradient (b, n, H) with respect to the last activations; output gradients are accumulated on the way."""
    weight = views.samples(arguments.output_weight, block, 3)
    assert weight is not None
    if gradients.output_bias is not None:
        _add_over_samples(gradients.output_bias, block, grad.sum(1), 2)
    if gradients.output_weight is not None:
        if gradients.output_weight.dim() == 2:
            flat = grad.reshape(-1, grad.shape[-1])
            gradients.output_weight.addmm_(flat.T, h.reshape(-1, h.shape[-1]))
        else:
            _add_over_samples(gradients.output_weight, block, grad.transpose(1, 2) @ h, 3)
    return grad @ (weight[0] if weight.shape[0] == 1 else weight)


def _layer_gradients(
    arguments: SirenArguments, views: _Views, block: Block, layer: int, h: Tensor, delta: Tensor, gradients: Gradients
) -> None:
    """Gradients of one layer's weight, shift and gain from its input h and delta (b * n, H) at its preactivation."""
    samples = block.last - block.first
    stacked = delta.view(samples, block.points, -1)
    if gradients.shift is not None:
        target = gradients.shift[:, layer] if gradients.shift.dim() == 3 else gradients.shift[layer]
        _add_over_samples(target, block, stacked.sum(1), 2)
    weight_gradient = gradients.hidden_weights[layer]
    gain = views.samples(arguments.gain, block, 3)
    if gain is None:
        if weight_gradient is not None:
            if h.shape[0] == samples:
                weight_gradient.addmm_(delta.T, h.reshape(-1, h.shape[-1]))
            else:
                weight_gradient.addmm_(stacked.sum(0).T, h[0])
        return
    if gradients.gain is None and weight_gradient is None:
        return
    # delta^T h is what both gradients are made of: d gain = rowsum(W * Z), d W = gain * Z; no division by the gain.
    outer = stacked.transpose(1, 2) @ h
    if gradients.gain is not None:
        gradients.gain[block.first : block.last, layer] += (outer * arguments.hidden_weights[layer]).sum(2)
    if weight_gradient is not None:
        weight_gradient += (outer * gain[:, layer].unsqueeze(2)).sum(0)


def _scaled_by_gain(delta: Tensor, samples: int, gain: Tensor | None) -> Tensor:
    if gain is not None:
        delta.view(samples, -1, delta.shape[-1]).mul_(gain.unsqueeze(1))
    return delta


def _add_points(arguments: SirenArguments, views: _Views, block: Block, values: Tensor, gradients: Gradients) -> None:
    assert gradients.x is not None
    if arguments.points_shared:
        gradients.x[block.start : block.start + block.points] += values.sum(0)
    else:
        views.rows(gradients.x, block).copy_(values)


def _unpack(tensors: tuple[Tensor, ...], has_gain: bool, offsets: tuple[int, ...] | None) -> SirenArguments:
    """Inverse of `SirenArguments.tensors`."""
    x, shift = tensors[:2]
    rest = tensors[2:]
    gain, rest = (rest[0], rest[1:]) if has_gain else (None, rest)
    return SirenArguments(x, rest[2:], shift, gain, rest[0], rest[1], offsets)


class _BlockedSiren(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, has_gain: bool, offsets: tuple[int, ...] | None, *tensors: Tensor) -> Tensor:
        ctx.has_gain, ctx.offsets = has_gain, offsets
        ctx.save_for_backward(*tensors)
        with torch.autocast(tensors[0].device.type, enabled=False):
            return forward(_unpack(tensors, has_gain, offsets))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        with torch.autocast(grad.device.type, enabled=False):
            if torch.is_grad_enabled():
                return None, None, *reference_gradients(tensors, ctx.has_gain, ctx.offsets, needed, grad)
            arguments = _unpack(tensors, ctx.has_gain, ctx.offsets)
            names = ["x", "shift", *(["gain"] if ctx.has_gain else []), "output_weight", "output_bias"]
            wanted = {"gain": False} | dict(zip(names, needed, strict=False))
            gradients = Gradients(arguments, wanted, needed[len(names) :])
            backward(arguments, grad.contiguous(), gradients)
        found = [getattr(gradients, name) for name in names]
        return None, None, *found, *gradients.hidden_weights


def reference_gradients(
    tensors: tuple[Tensor, ...],
    has_gain: bool,
    offsets: tuple[int, ...] | None,
    needed: tuple[bool, ...],
    grad: Tensor,
) -> list[Tensor | None]:
    """Gradients with a graph of their own, by differentiating the reference at the saved inputs."""
    arguments = _unpack(tensors, has_gain, offsets)
    value = reference.modulated_siren(
        arguments.x,
        arguments.hidden_weights,
        arguments.shift,
        arguments.gain,
        arguments.output_weight,
        arguments.output_bias,
        offsets=offsets,
    )
    targets = [tensor for tensor, flag in zip(tensors, needed, strict=True) if flag]
    found = iter(torch.autograd.grad(value, targets, grad, create_graph=True, allow_unused=True))
    return [next(found) if flag else None for flag in needed]


def modulated_siren(arguments: SirenArguments) -> Tensor:
    """Blocked evaluation with gradients; a trunk that all samples share is evaluated once per point."""
    if arguments.trunk_shared:
        features = siren_features(arguments.x, arguments.hidden_weights, arguments.shift)
        return contract_outputs(features, arguments.output_weight, arguments.output_bias)
    return _BlockedSiren.apply(arguments.gain is not None, arguments.offsets, *arguments.tensors())


def contract_outputs(features: Tensor, output_weight: Tensor, output_bias: Tensor) -> Tensor:
    """(S, N, C) from features (N, H) shared by all samples: one matrix product over samples and channels together."""
    channels, width = output_weight.shape[-2:]
    weight = output_weight.reshape(-1, width)
    bias = output_bias.reshape(-1, channels)
    if output_bias.dim() == 2 and output_weight.dim() == 2:
        return (features @ weight.T).unsqueeze(0) + bias.unsqueeze(1)
    values = (weight @ features.T).view(-1, channels, features.shape[0])
    return (values + bias.unsqueeze(2)).transpose(1, 2)


class _BlockedFeatures(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, shift, *weights)
        rows = block_rows(weights[0].shape[0], x.element_size(), FORWARD_BLOCK_BYTES)
        result = x.new_empty(x.shape[0], weights[0].shape[0])
        with torch.autocast(x.device.type, enabled=False):
            for h, t in zip(x.split(rows), result.split(rows), strict=True):
                for weight, layer_shift in zip(weights, shift, strict=True):
                    h = torch.sin(torch.addmm(layer_shift, h, weight.T), out=t)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad
        x, shift, *weights = tensors
        with torch.autocast(x.device.type, enabled=False):
            if torch.is_grad_enabled():
                value = reference.siren_features(x, weights, shift)
                targets = [tensor for tensor, flag in zip(tensors, needed, strict=True) if flag]
                found = iter(torch.autograd.grad(value, targets, grad, create_graph=True))
                return tuple(next(found) if flag else None for flag in needed)
            return _features_backward(x, shift, tuple(weights), grad, needed)


def _features_backward(
    x: Tensor, shift: Tensor, weights: tuple[Tensor, ...], grad: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    rows = block_rows(weights[0].shape[0], x.element_size(), BACKWARD_BLOCK_BYTES)
    grad_x = torch.empty_like(x) if needed[0] else None
    grad_shift = torch.zeros_like(shift)
    grad_weights = [torch.zeros_like(weight) if flag else None for weight, flag in zip(weights, needed[2:], strict=True)]
    for start in range(0, x.shape[0], rows):
        inputs, slopes = [x[start : start + rows]], []
        for weight, layer_shift in zip(weights, shift, strict=True):
            t = torch.addmm(layer_shift, inputs[-1], weight.T)
            inputs.append(torch.sin(t))
            slopes.append(t.cos_())
        delta = grad[start : start + rows]
        for layer in reversed(range(len(weights))):
            delta = slopes[layer].mul_(delta)
            grad_shift[layer] += delta.sum(0)
            weight_gradient = grad_weights[layer]
            if weight_gradient is not None:
                weight_gradient.addmm_(delta.T, inputs[layer])
            if layer > 0 or grad_x is not None:
                delta = delta @ weights[layer]
        if grad_x is not None:
            grad_x[start : start + rows] = delta
    return grad_x, grad_shift if needed[1] else None, *grad_weights


def siren_features(x: Tensor, hidden_weights: tuple[Tensor, ...], shift: Tensor) -> Tensor:
    """Blocked `reference.siren_features`, with gradients."""
    flat = _BlockedFeatures.apply(x.reshape(-1, x.shape[-1]), shift, *hidden_weights)
    return flat.view(*x.shape[:-1], -1)
