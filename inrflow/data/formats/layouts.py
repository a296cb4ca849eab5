"""The two layouts of the schema (frames by trajectory, time and point; scattered rows) with a common interface, and
partial reads of their arrays in blocks that fit in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.schema import LARGEST, resolves
from inrflow.data.observations import Frames, place_rows
from inrflow.errors import UserError

_OFF_SPHERE = 1e-3  # tolerance of the length of unit vectors, wide enough for float32 coordinates
VALUES_PER_BLOCK = 1 << 21  # 16 MB of float64


def blocks(shape: Sequence[int], values: int = VALUES_PER_BLOCK) -> Iterator[tuple[slice, ...]]:
    """Slices that cover an array of `shape` in C order, each with at most about `values` entries."""
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
    """Rectangular parts of the C-order range [start, stop) of an array of `shape`: (slices, first, last), where
    [first, last) is the part's position in the range."""
    begin = start
    while start < stop:
        # The longest rectangle from here: grow over trailing axes while start is aligned and enough remains.
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
    """Runs [first, last) of positions in sorted unique `indices`: indices of one run are at most `gap` apart and
    extend over at most `longest`, so that each run is one contiguous read with little waste."""
    start = 0
    cuts = np.flatnonzero(np.diff(indices) > gap) + 1
    for stop in (*cuts.tolist(), len(indices)):
        while start < stop:
            end = int(np.searchsorted(indices[start:stop], indices[start] + longest)) + start
            yield start, end
            start = end


def gather(dataset: h5py.Dataset, axis: int, fixed: tuple[int, ...], wanted: Sequence[np.ndarray],
           dtype: type = np.float64) -> np.ndarray:
    """dataset[fixed] at the outer product of `wanted` (one index array for each axis from `axis` on, in any order, with
    repetitions), with the remaining axes whole. Reads contiguous spans instead of single points."""
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




class Layout(ABC):
    """Common interface of both layouts; `points` is the largest number of points of a frame."""

    name: str
    point_layout: str
    trajectories: int
    frames: int
    points: int

    def __init__(self, file: h5py.File, path: Path, description: Description) -> None:
        self.file, self.path, self.description = file, path, description

    @abstractmethod
    def times(self) -> np.ndarray:
        """Times (S, T) float64, padded by NaN."""

    @abstractmethod
    def count(self, trajectory: int) -> int:
        """Number of frames of a trajectory."""

    @abstractmethod
    def check_values(self) -> np.ndarray:
        """Bounding box (2, d) of the coordinates, after a check of x and u. Raises UserError for invalid ones."""

    @abstractmethod
    def read(self, trajectory: int, chosen: np.ndarray, points: np.ndarray | None) -> Frames:
        """Frames with indices `chosen` of one trajectory."""

    def fail(self, dataset: str, problem: str, remedy: str) -> UserError:
        """UserError that names file and dataset."""
        return UserError(f"{self.path}: {dataset} {problem}; {remedy}")

    def dataset(self, name: str, kinds: str = "fiu") -> h5py.Dataset:
        """Non-empty dataset of the file with a numeric type. Raises UserError."""
        dataset = self.file[name] if resolves(self.file, name) else None
        if not isinstance(dataset, h5py.Dataset):
            others = ", ".join(sorted(set(self.file) - {name})) or "no datasets"
            raise self.fail(name, f"is missing (there are: {others})", f"add the dataset {name}")
        if dataset.dtype.kind not in kinds:
            expected = "integers" if kinds == "iu" else "numbers"
            raise self.fail(name, f"has type {dataset.dtype}, expected {expected}", f"store {expected}")
        if dataset.size == 0:
            raise self.fail(name, f"has shape {dataset.shape}: {self.empty(name, dataset.shape)}", "store some data")
        return dataset

    def empty(self, name: str, shape: tuple[int, ...]) -> str:
        """Names of the axes of a shape without entries, for messages."""
        axes = {("u", 4): ("trajectories", "times", "points", "channels"), ("x", 2): ("points", "coordinates"),
                ("x", 3): ("trajectories", "points", "coordinates"),
                ("x", 4): ("trajectories", "times", "points", "coordinates"),
                ("t", 1): ("times",), ("t", 2): ("trajectories", "times")}.get((name, len(shape)), ())
        lacking = [axis for axis, size in zip(axes, shape, strict=False) if size == 0]
        return " and ".join(f"zero {axis}" for axis in lacking) or "empty"

    def checked_values(self, u: np.ndarray, where: str) -> np.ndarray:
        """The values, unchanged. Raises UserError if any is infinite or beyond LARGEST."""
        largest = np.abs(u).max(initial=0, where=~np.isnan(u))
        if largest > LARGEST:
            found = "infinite values" if np.isinf(largest) else f"values beyond {LARGEST:g}"
            raise self.fail("u", f"holds {found} in {where}", "mark missing values as NaN and remove the rest")
        return u

    def widened(self, box: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Box (2, d) extended to the points x (n, d). Raises UserError if they do not lie on the geometry."""
        if self.description.geometry == "sphere" and (np.abs(np.linalg.norm(x, axis=1) - 1) > _OFF_SPHERE).any():
            raise self.fail("x", "holds points that are not unit vectors although geometry is sphere",
                            "divide each by its length or drop the attribute geometry")
        if (np.abs(x) > LARGEST).any():
            raise self.fail("x", f"holds coordinates beyond {LARGEST:g}", "every point needs its place")
        lowest, highest = np.min(x, 0, initial=np.inf), np.max(x, 0, initial=-np.inf)
        return np.stack([np.minimum(box[0], lowest), np.maximum(box[1], highest)])

    def missing_channels(self, has_value: np.ndarray) -> UserError:
        """UserError for channels without any value."""
        names = [name for name, has in zip(self.description.channels, has_value, strict=True) if not has]
        return self.fail("u", f"has no value at all in channel {', '.join(names)} (all NaN)",
                         "name the others with channels=[...], or supply its values")


class FrameLayout(Layout):
    """Frame layout: t (T,) or (S, T); x (N, d), (S, N, d) or (S, T, N, d); u (S, T, N, C)."""

    name = "frames"

    def __init__(self, file: h5py.File, path: Path, description: Description) -> None:
        super().__init__(file, path, description)
        self.t, self.x, self.u = (self.dataset(name) for name in ("t", "x", "u"))
        d, channels = len(description.coordinates), len(description.channels)
        if self.u.ndim != 4:
            raise self.fail("u", f"has shape {self.u.shape}, expected (trajectories, times, points, channels)",
                            "add the missing axis")
        S, T, N, C = self.u.shape
        if channels != C:
            raise self.fail("u", f"has {C} channels (shape {self.u.shape}) but the file names {channels}: "
                            f"{', '.join(description.channels)}", "make them agree")
        self.trajectories, self.points = S, N
        if self.t.shape not in ((T,), (S, T)):
            raise self.fail("t", f"has shape {self.t.shape} but u has shape {self.u.shape}, expected "
                            f"{(T,)} or {(S, T)}", "make them agree")
        layouts = {(N, d): "shared", (S, N, d): "per_trajectory", (S, T, N, d): "moving"}
        if self.x.shape not in layouts:
            raise self.fail("x", f"has shape {self.x.shape} but u has shape {self.u.shape} and there are {d} "
                            f"coordinates ({', '.join(description.coordinates)}), "
                            f"expected {(N, d)}, {(S, N, d)} or {(S, T, N, d)}", "make them agree")
        self.point_layout = layouts[self.x.shape]
        self._times = self._checked_times()
        self._counts = np.isfinite(self._times).sum(1)
        self.frames = int(self._counts.max())
        self._times = self._times[:, :self.frames]

    def _checked_times(self) -> np.ndarray:
        t = self.t[()].astype(np.float64)
        rows = np.atleast_2d(t)
        for index, row in enumerate(rows):
            where = f"of trajectory {index} " if t.ndim == 2 else ""
            valid = int(np.isfinite(row).sum())
            bad = np.flatnonzero(~np.isfinite(row[:valid]))
            if np.isinf(row).any() or len(bad) or (t.ndim == 1 and valid < len(row)) or valid == 0:
                at = int(np.flatnonzero(~np.isfinite(row))[0])
                raise self.fail("t", f"{where}holds {row[at]} at frame {at}; times must be finite numbers"
                                + (" with NaN only as padding at the end" if t.ndim == 2 else ""),
                                "supply the time or remove the frame")
            steps = np.diff(row[:valid])
            if (steps <= 0).any():
                at = int(np.flatnonzero(steps <= 0)[0])
                kind = "the same time twice" if steps[at] == 0 else "decreasing times"
                raise self.fail("t", f"{where}holds {kind}: {row[at]:g}, {row[at + 1]:g} at frames {at}, {at + 1}",
                                "times must increase strictly, sort the frames and keep one for each time")
        return np.broadcast_to(rows, (self.trajectories, rows.shape[1])).copy()

    def times(self) -> np.ndarray:
        return self._times.copy()

    def count(self, trajectory: int) -> int:
        return int(self._counts[trajectory])

    def check_values(self) -> np.ndarray:
        has_value = np.zeros(self.u.shape[-1], bool)
        if (self._counts == self.u.shape[1]).all():
            parts = blocks(self.u.shape)
        else:  # values of padded frames do not count
            parts = ((slice(s, s + 1), *part) for s, count in enumerate(self._counts.tolist())
                     for part in blocks((count, *self.u.shape[2:])))
        for part in parts:
            has_value |= np.isfinite(self.u[part]).any(axis=(0, 1, 2))
            if has_value.all():
                break
        else:
            raise self.missing_channels(has_value)
        box = np.array([[np.inf], [-np.inf]]).repeat(self.x.shape[-1], 1)
        for part in blocks(self.x.shape):
            x = self.x[part].astype(np.float64)
            if self.point_layout == "moving":
                frame = np.arange(part[1].start, part[1].stop)
                x = x[frame < self._counts[part[0], None]]
            if not np.isfinite(x).all():
                raise self.fail("x", "holds coordinates that are not finite", "every point needs its place; where "
                                "frames have fewer points, repeat one and set u to NaN there")
            box = self.widened(box, x.reshape(-1, x.shape[-1]))
        return box

    def read(self, trajectory: int, chosen: np.ndarray, points: np.ndarray | None) -> Frames:
        points = np.arange(self.points) if points is None else points
        if self.point_layout == "shared":
            x = gather(self.x, 0, (), (points,))
        elif self.point_layout == "per_trajectory":
            x = gather(self.x, 1, (trajectory,), (points,))
        else:
            x = gather(self.x, 1, (trajectory,), (chosen, points))
        u = gather(self.u, 1, (trajectory,), (chosen, points), np.float32)
        return Frames(self._times[trajectory, chosen], x, self.checked_values(u, f"trajectory {trajectory}"))


class ScatteredLayout(Layout):
    """Scattered layout: trajectory (R,), t (R,), x (R, d), u (R, C), where each row is a separate observation.

    Rows of equal trajectory and time form a frame. The index in memory has an entry for each run of consecutive rows of
    a frame, so that it is as small as the number of frames for sorted files.
    """

    name = "scattered"
    point_layout = "moving"

    def __init__(self, file: h5py.File, path: Path, description: Description) -> None:
        super().__init__(file, path, description)
        self.t, self.x, self.u = (self.dataset(name) for name in ("t", "x", "u"))
        self.id = self.dataset("trajectory", "iu")
        rows = self.u.shape[0]
        expected = {"trajectory": (rows,), "t": (rows,), "x": (rows, len(description.coordinates)),
                    "u": (rows, len(description.channels))}
        for name, shape in expected.items():
            if self.file[name].shape != shape:
                raise self.fail(name, f"has shape {self.file[name].shape}, expected {shape} (rows as in u, "
                                f"{len(description.coordinates)} coordinates, {len(description.channels)} channels)",
                                "make the shapes agree")
        self._index_rows()

    def _index_rows(self) -> None:
        starts: list[np.ndarray] = []
        ids: list[np.ndarray] = []
        times: list[np.ndarray] = []
        last: tuple[int, float] | None = None
        rows = len(self.t)
        for (part,) in blocks((rows,)):
            identity, t = self.id[part].astype(np.int64), self.t[part].astype(np.float64)
            if not np.isfinite(t).all():
                at = part.start + int(np.flatnonzero(~np.isfinite(t))[0])
                raise self.fail("t", f"holds {self.t[at]} in row {at}", "times must be finite, remove the row")
            if identity.min() < 0:
                raise self.fail("trajectory", f"holds {identity.min()}", "number trajectories from 0")
            new = np.ones(len(t), bool)
            new[1:] = (identity[1:] != identity[:-1]) | (t[1:] != t[:-1])
            new[0] = last is None or last != (identity[0], t[0])
            last = (int(identity[-1]), float(t[-1]))
            starts.append(np.flatnonzero(new) + part.start)
            ids.append(identity[new])
            times.append(t[new])
        start, identity, t = np.concatenate(starts), np.concatenate(ids), np.concatenate(times)
        length = np.diff(np.append(start, rows))
        order = np.lexsort((start, t, identity))
        self._start, self._length, identity, t = start[order], length[order], identity[order], t[order]
        # Runs of one frame are adjacent now, as are frames of one trajectory.
        new = np.append(True, (identity[1:] != identity[:-1]) | (t[1:] != t[:-1]))
        self._frame_run = np.append(np.flatnonzero(new), len(new))  # first run of each frame
        self._frame_t, frame_id = t[new], identity[new]
        self.ids, first = np.unique(frame_id, return_index=True)
        self._first = np.append(first, len(frame_id))  # first frame of each trajectory
        sizes = np.add.reduceat(self._length, self._frame_run[:-1])
        self.trajectories, self.points = len(self.ids), int(sizes.max())
        self.frames = int(np.diff(self._first).max())

    def count(self, trajectory: int) -> int:
        return int(self._first[trajectory + 1] - self._first[trajectory])

    def times(self) -> np.ndarray:
        padded = np.full((self.trajectories, self.frames), np.nan)
        for index in range(self.trajectories):
            t = self._frame_t[self._first[index]:self._first[index + 1]]
            padded[index, :len(t)] = t
        return padded

    def check_values(self) -> np.ndarray:
        has_value = np.zeros(self.u.shape[1], bool)
        for part in blocks(self.u.shape):
            has_value |= np.isfinite(self.u[part]).any(0)
            if has_value.all():
                break
        else:
            raise self.missing_channels(has_value)
        box = np.array([[np.inf], [-np.inf]]).repeat(self.x.shape[-1], 1)
        for part in blocks(self.x.shape):
            x = self.x[part].astype(np.float64)
            if not np.isfinite(x).all():
                at = part[0].start + int(np.flatnonzero(~np.isfinite(x).all(1))[0])
                raise self.fail("x", f"holds {self.x[at].tolist()} in row {at}", "coordinates must be finite, "
                                "remove the row")
            box = self.widened(box, x)
        return box

    def read(self, trajectory: int, chosen: np.ndarray, points: np.ndarray | None) -> Frames:
        first = int(self._first[trajectory])
        runs = self._frame_run[first + chosen]
        run_counts = self._frame_run[first + chosen + 1] - runs
        run = _ranges(runs, run_counts)
        row = _ranges(self._start[run], self._length[run])
        counts = np.add.reduceat(self._length[run], np.cumsum(run_counts) - run_counts)
        x = gather(self.x, 0, (), (row,))
        u = self.checked_values(gather(self.u, 0, (), (row,), np.float32), f"trajectory {self.ids[trajectory]}")
        frame, column = np.repeat(np.arange(len(chosen)), counts), _ranges(np.zeros_like(counts), counts)
        placed = place_rows(self._frame_t[first + chosen], frame, column, x, u, collapse=False)
        if points is None:
            return placed
        wide = np.full((len(chosen), self.points, u.shape[-1]), np.nan, np.float32)
        place = np.repeat(placed.x[:, :1], self.points, 1)
        wide[:, :placed.u.shape[1]], place[:, :placed.u.shape[1]] = placed.u, placed.x
        return Frames(placed.t, place[:, points], wide[:, points])


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenated ranges starts[0], starts[0] + 1, ... (counts[0] numbers), starts[1], ..."""
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
