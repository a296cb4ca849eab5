"""Partial reads of large arrays: blocks that fit in memory, contiguous spans, rectangular slabs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import h5py
import numpy as np

VALUES_PER_BLOCK = 1 << 21  # 16 MB of float64


def blocks(shape: Sequence[int], values: int = VALUES_PER_BLOCK) -> Iterator[tuple[slice, ...]]:
    """Slices that cover an array of `shape` in C order, each holding at most about `values` entries."""
    if not shape:
        yield ()
        return
    inner = int(np.prod(shape[1:], dtype=np.int64))
    if inner > values:
        for index in range(shape[0]):
            for rest in blocks(shape[1:], values):
                yield (slice(index, index + 1), *rest)
        return
    step = max(1, values // max(1, inner))
    for start in range(0, shape[0], step):
        yield (slice(start, min(start + step, shape[0])), *(slice(0, size) for size in shape[1:]))


def hyperslabs(shape: Sequence[int], start: int, stop: int) -> Iterator[tuple[tuple[slice, ...], int, int]]:
    """Cut the C-order range [start, stop) of an array of `shape` into rectangular parts: (slices, first, last), where
    [first, last) is the part's place in the range."""
    begin = start
    while start < stop:
        # The longest rectangle from here: grow over trailing axes while start is aligned and enough is left.
        axis, size = len(shape), 1
        while axis > 0 and start % (size * shape[axis - 1]) == 0 and stop - start >= size * shape[axis - 1]:
            axis -= 1
            size *= shape[axis]
        if axis == 0:
            count, extent = 1, size
        else:
            room = shape[axis - 1] - start // size % shape[axis - 1]
            count = min(room, (stop - start) // size)
            extent = count * size
        place = np.unravel_index(start, shape)
        yield (tuple(slice(int(p), int(p) + 1) for p in place[:max(axis - 1, 0)])
               + ((slice(int(place[axis - 1]), int(place[axis - 1]) + count),) if axis else ())
               + tuple(slice(0, n) for n in shape[axis:])), start - begin, start - begin + extent
        start += extent


def spans(indices: np.ndarray, gap: int, longest: int) -> Iterator[tuple[int, int]]:
    """Cut sorted unique `indices` into runs [first, last) of positions: indices of one run are at most `gap` apart and
    reach over at most `longest`, so that each run is one contiguous read with little waste."""
    start = 0
    cuts = np.flatnonzero(np.diff(indices) > gap) + 1
    for stop in (*cuts.tolist(), len(indices)):
        while start < stop:
            end = int(np.searchsorted(indices[start:stop], indices[start] + longest)) + start
            yield start, end
            start = end


def gather(dataset: h5py.Dataset, axis: int, fixed: tuple[int, ...], wanted: Sequence[np.ndarray],
           dtype: type = np.float64) -> np.ndarray:
    """dataset[fixed] taken at the outer product of `wanted` (one index array for each axis from `axis` on, any order,
    repetition allowed); the remaining axes whole. Reads contiguous spans instead of single points."""
    unique = [np.unique(indices, return_inverse=True) for indices in wanted]
    tail = dataset.shape[axis + len(wanted):]
    out = np.empty((*(len(indices) for indices, _ in unique), *tail), dtype)
    chunk = dataset.chunks[axis:] if dataset.chunks else dataset.shape[axis:]

    def fill(target: np.ndarray, place: tuple[slice, ...], picks: tuple[np.ndarray, ...], room: int) -> None:
        level = len(place)
        if level == len(unique):
            block = dataset[(*fixed, *place)]
            target[...] = block[np.ix_(*picks)] if picks else block
            return
        indices = unique[level][0]
        others = int(np.prod([max(1, min(len(i), c)) for (i, _), c in zip(unique[level + 1:], chunk[level + 1:],
                                                                         strict=False)], dtype=np.int64))
        longest = max(int(chunk[level]), room // max(1, others))
        for first, last in spans(indices, max(1, int(chunk[level])), longest):
            low, high = int(indices[first]), int(indices[last - 1]) + 1
            fill(target[(slice(None),) * level + (slice(first, last),)], (*place, slice(low, high)),
                 (*picks, indices[first:last] - low), max(1, room // (high - low)))

    fill(out, (), (), VALUES_PER_BLOCK // max(1, int(np.prod(tail, dtype=np.int64))))
    for level, (indices, inverse) in enumerate(unique):
        if len(inverse) != len(indices) or not np.array_equal(inverse, np.arange(len(indices))):
            out = np.take(out, inverse, axis=level)
    return out
