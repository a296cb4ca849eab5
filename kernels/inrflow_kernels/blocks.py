"""Cuts an evaluation into blocks of (sample, point) rows whose activations stay in cache, and slices tensors by
block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from .arguments import SirenArguments, equal_counts


class Block(NamedTuple):
    """Samples first..last (exclusive), each at `points` points from `start`.

    With ragged points `start` is the first row and the samples' rows follow each other; otherwise it is a point index.
    """

    first: int
    last: int
    start: int
    points: int

    @property
    def samples(self) -> int:
        return self.last - self.first

    @property
    def rows(self) -> int:
        return self.samples * self.points


def plan_blocks(arguments: SirenArguments, rows: int) -> Iterator[Block]:
    """Blocks of at most `rows` rows; the samples of a block have equally many points."""
    if arguments.offsets is None:
        yield from _uniform_blocks(0, arguments.samples, 0, arguments.x.shape[-2], rows, stacked=False)
        return
    for first, last, start, count in equal_counts(arguments.offsets):
        yield from _uniform_blocks(first, last, start, count, rows, stacked=True)


def _uniform_blocks(first: int, last: int, start: int, count: int, rows: int, stacked: bool) -> Iterator[Block]:
    """Blocks of samples first..last with `count` points each: parts of one sample, or several whole samples."""
    if count == 0:
        return
    parts = -(-count // rows)
    points = -(-count // parts)
    for offset in range(0, count, points):
        length = min(points, count - offset)
        # Rows of stacked samples follow each other only where samples are whole.
        group = max(1, rows // length) if parts == 1 or not stacked else 1
        for sample in range(first, last, group):
            stop = min(last, sample + group)
            yield Block(sample, stop, start + offset + (sample - first) * count * stacked, length)


def block_points(x: Tensor, arguments: SirenArguments, block: Block) -> Tensor:
    """The block's part of x or of a tangent of x: (n, D) where all samples share the points, else (b, n, D)."""
    if arguments.points_shared:
        return x[block.start : block.start + block.points]
    return block_rows(x, arguments, block)


def block_rows(values: Tensor, arguments: SirenArguments, block: Block) -> Tensor:
    """(b, n, K) of a tensor (S, N, K), or (R, K) for ragged points; a view where `values` is contiguous."""
    if arguments.offsets is None:
        return values[block.first : block.last, block.start : block.start + block.points]
    rows = values[block.start : block.start + block.rows]
    return rows.reshape(block.samples, block.points, values.shape[-1])


def block_samples(values: Tensor, block: Block, dims: int) -> Tensor:
    """The block's samples of a per-sample tensor; a tensor of fewer than `dims` dimensions is shared and stays
    whole."""
    return values[block.first : block.last] if values.dim() == dims else values


def block_arguments(arguments: SirenArguments, block: Block) -> SirenArguments:
    """The evaluation of one block: its points and its samples' parameters, no longer ragged."""

    def part(tensor: Tensor | None, dims: int) -> Tensor | None:
        return None if tensor is None else block_samples(tensor, block, dims)

    return replace(
        arguments,
        x=block_points(arguments.x, arguments, block),
        shift=block_samples(arguments.shift, block, 3),
        gain=part(arguments.gain, 3),
        output_weight=part(arguments.output_weight, 3),
        output_bias=part(arguments.output_bias, 2),
        offsets=None,
    )
