"""Partition of an evaluation into blocks of (sample, point) rows whose activations fit the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from ..arguments import SirenArguments


class Block(NamedTuple):
    """Samples first:last, each at `points` points from `start`.

    For ragged points `start` is the first row and the samples' rows are consecutive; otherwise it is a point index.
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
    stacked = arguments.offsets is not None
    for first, last, start, count in arguments.equal_runs():
        if count == 0:
            continue
        parts = -(-count // rows)
        points = -(-count // parts)
        for offset in range(0, count, points):
            length = min(points, count - offset)
            # Rows of ragged samples are consecutive only if the samples are whole.
            group = max(1, rows // length) if parts == 1 or not stacked else 1
            for sample in range(first, last, group):
                stop = min(last, sample + group)
                yield Block(sample, stop, start + offset + (sample - first) * count * stacked, length)


def block_rows(values: Tensor, arguments: SirenArguments, block: Block) -> Tensor:
    """(b, n, K) of values (S, N, K), or (R, K) for ragged points; a view if `values` is contiguous."""
    if arguments.offsets is None:
        return values[block.first : block.last, block.start : block.start + block.points]
    rows = values[block.start : block.start + block.rows]
    return rows.reshape(block.samples, block.points, values.shape[-1])


def block_part(name: str, tensor: Tensor, arguments: SirenArguments, block: Block) -> Tensor:
    """Block's part of the named argument or of its tangent; points are (n, D) if shared by all samples, else
    (b, n, D)."""
    if name != "x":
        return arguments.sample_range(name, tensor, block.first, block.last)
    if arguments.points_shared:
        return tensor[block.start : block.start + block.points]
    return block_rows(tensor, arguments, block)


def block_arguments(arguments: SirenArguments, block: Block) -> SirenArguments:
    """Arguments of one block, never ragged."""
    parts: dict[str, Any] = {
        name: block_part(name, tensor, arguments, block) for name, tensor in arguments.named().items()
    }
    return replace(arguments, offsets=None, **parts)
