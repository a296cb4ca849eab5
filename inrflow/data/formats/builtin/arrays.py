"""Files of named arrays (npy, npz, MATLAB, PyTorch tensors) as trajectories on grids.

The axes of a field follow from sizes: a field is (S, T, X, Y, ...), (T, X, Y, ...), or, as in MATLAB files of published
data sets, (S, X, Y, ..., T) or (X, Y, ..., T), possibly with channels last or, as in tensors, between times and places;
with an array of points (N, d) its axes are points and times in any order. If another array has the shape of the field
without its last axis (an initial state), times are last. Complex numbers become two channels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from inrflow.data.calendar import DEFAULT_CALENDAR, moments_to_numbers
from inrflow.data.description import PLACE, Description, without_answers
from inrflow.data.formats.columns import IN_FILES, TIMES, Columns, find_column
from inrflow.data.formats.registry import Content, Format, ReadOptions, TableWriter
from inrflow.data.formats.streams.gridded import ArrayWriter
from inrflow.data.formats.streams.streamed import Part, StreamedContent, lattice
from inrflow.data.formats.table_format import ColumnsInMemory, TableContent, TableFormat, axes_among
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_AXES, _MOST_AXES = ("x", "y", "z"), 3
_FEWEST = 5  # least number of places along an axis without coordinates
_TIMES = (*TIMES, "tt", "ts", "t_star", "times", "tspan", "tcoord", "t_coord", "t_coordinate", "tgrid", "t_grid",
          "tvec", "t_vec", "tvals", "t_vals", "tout", "t_out", "tlist", "t_list", "timevec", "time_vec", "t_axis")
_POINTS = ("x", "x_star", "xy", "xyz", "points", "nodes", "coords", "coordinates", "pos", "mesh_pos", "position",
           "positions", "vertices", "locations")  # names of arrays (N, d)
_HINT = "name arrays with channels=[...], coordinates=[...] and time=NAME"


class ArrayContent(StreamedContent):
    """Fields on a grid from named arrays.

    Times are the vector named as times, or `options.time`; axes are vectors x, y, z, or those named; without axes,
    points are i / n in a unit box. All other arrays that fit are channels, except `parameters` (S, P) or (S,); others
    are left out with a warning. Raises UserError if the axes of the arrays cannot be determined.
    """

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray], options: ReadOptions) -> None:
        super().__init__(path)
        self._film = self._channels_last = False
        held = ", ".join(f"{name} {array.shape if array.dtype.kind in 'fiuc' else '(no numbers)'}"
                         for name, array in arrays.items()) or "none"
        self._held = f"{path} holds the arrays {held}"
        arrays = {name.replace(*IN_FILES): arrays[name] for name in without_answers(path, arrays, options.channels)}
        times_of = _TIMES if options.time is None else (options.time,)
        if dated := find_column([name for name, array in arrays.items() if array.dtype.kind == "M"], times_of):
            arrays = {**arrays, dated: moments_to_numbers(arrays[dated], DEFAULT_CALENDAR)}
            options = replace(options, description={"time_units": DEFAULT_CALENDAR, **options.description})
        kept = {name: array for name, array in _of_parts(arrays).items() if array.dtype.kind in "fiu" and array.size}
        arrays = _known_sets(path, _with_points(_narrowed(kept, (*times_of, *_AXES))))
        vectors = [name for name, array in arrays.items() if array.ndim == 1]
        time = find_column(vectors, times_of)
        if options.time is not None and time is None:
            raise UserError(f"{self._held}, and no vector {options.time} of times; {_HINT}")
        if time is None and options.coordinates is None and (problem := _untimed(arrays)) is not None:
            raise UserError(f"{self._held}: {problem}")
        if time is not None and (self._at_points(arrays, time, options) or self._at_one_place(arrays, time, options)):
            return
        if options.coordinates is None and not set(_AXES) & set(vectors):
            options = replace(options, coordinates=self._axes_by_size(arrays, vectors, time, options))
        named = [str(name) for name in options.coordinates or [one for one in _AXES if one in vectors]]
        axes = [np.asarray(arrays[name], np.float64) for name in named if name in vectors]
        absent = [name for name in named if name not in vectors]
        if absent and len(absent) < len(named):
            raise UserError(f"{self._held}, and no vector {', '.join(absent)}; {_HINT}")
        numbers = arrays.pop("parameters", None)
        fields = self._fields(arrays, {time, *named}, options)
        self._film = all(field.dtype == np.uint8 for field in fields.values())
        times = None if time is None else np.asarray(arrays[time], np.float64)
        if next(iter(fields.values())).ndim == len(named) and (times is None or len(times) == 1):  # a single frame
            fields = {name: field[None] for name, field in fields.items()}
            self.timeless, times = times is None, np.zeros(1) if times is None else times
        first = next(iter(fields.values()))
        late = any(array.shape == first.shape[:-1] for name, array in arrays.items() if name not in fields)
        try:
            order = self._order(first.shape, times, axes, len(absent), late)
        except UserError:  # rows of y, as of meshgrid
            if options.coordinates is None:
                named, axes = named[::-1], axes[::-1]
            order = self._order(first.shape, times, axes, len(absent), late)
        if not axes:
            sizes = [first.shape[axis] for axis in order[2]]
            axes = [np.arange(size) / size for size in sizes]
            named = absent or list(_AXES[: len(axes)])
            further = f" by coordinates=[{','.join(_AXES[:len(named) + 1])}]"
            read = "" if times is not None else f" of {first.shape[order[1]]} frames (of a single one{further})" if (
                order[0] is None) else (
                f" of {first.shape[order[0]]} trajectories of {first.shape[order[1]]} frames (of one{further})")
            warnings.warn(f"{path} has no coordinates: points{read} are placed at i / n of a unit box along "
                          f"{', '.join(named)}; give coordinates=[...] for others", stacklevel=2)
        else:
            meant = {"trajectories": order[0], time or "t": order[1], **dict(zip(named, order[2], strict=True))}
            self._warn_of_alike(first.shape, meant)
        channels = _labelled({name: 1 if order[3] is None else field.shape[order[3]] for name, field in fields.items()})
        if options.channels and len(options.channels) == len(channels):
            channels = list(options.channels)
        count = first.shape[order[1]]
        left = [name for name in vectors if name not in (*named, "parameters") and len(arrays[name]) == count > 1]
        if times is None and len(left) == 1 and (np.diff(arrays[left[0]]) > 0).all():
            time, times = left[0], np.asarray(arrays[left[0]], np.float64)
            warnings.warn(f"{path}: no vector is called as times are: they are those in {time}, whose size fits; "
                          "time=NAME names another", stacklevel=2)
        if times is None:
            times = np.arange(count, dtype=np.float64)
            warnings.warn(f"{path} has no times: {len(times)} frames are counted along axis {order[1] + 1} of "
                          f"{first.shape}, a unit of time apart", stacklevel=2)
        self._t, self._x, self._order_of, self._arrays = times, lattice(axes), order, list(fields.values())
        count = 1 if order[0] is None else first.shape[order[0]]
        self._parameters = None if numbers is None or len(numbers) != count else numbers.reshape(count, -1)
        used = {time, *named, *fields}
        self._warn_of_unused_arrays({name: array for name, array in arrays.items() if name not in used}, count)
        self.description = options.describe(path, channels, named)

    def _warn_of_alike(self, shape: Sequence[int], meant: Mapping[str, int | None]) -> None:
        """Warn of axes of equal length, whose order nothing tells."""
        used = sorted((axis, name, shape[axis]) for name, axis in meant.items() if axis is not None)
        if len({size for *_, size in used}) < len(used):
            warnings.warn(f"{self.path}: several axes of {tuple(shape)} have the same length, and are taken as "
                          f"{', '.join(name for _, name, _ in used)}; transpose the array if they are others",
                          stacklevel=3)

    def _warn_of_unused_arrays(self, others: Mapping[str, np.ndarray], trajectories: int) -> None:
        """Warn of arrays, and single numbers but for whole ones, that are not used."""
        others = {name: array for name, array in others.items() if array.size > 1 or array.dtype.kind == "f"}
        if others:
            known = any(array.shape == (trajectories,) or array.size == 1 for array in others.values())
            hint = "; what is known of each trajectory goes in an array parameters (trajectories, numbers)" * known
            warnings.warn(f"{self.path}: {', '.join(f'{name} {array.shape}' for name, array in others.items())} "
                          f"{'is' if len(others) == 1 else 'are'} left out{hint}", stacklevel=3)

    def _at_points(self, arrays: Mapping[str, np.ndarray], time: str, options: ReadOptions) -> bool:
        """Whether there is an array of points (N, d) and fields over these and the times, which are then used. A third
        axis of fields is of trajectories if it is the first, else of channels."""
        group = _POINTS if options.coordinates is None else tuple(options.coordinates)
        name = find_column([name for name, array in arrays.items() if array.ndim == 2 and array.shape[1] <= _MOST_AXES
                            < len(array)], group)
        if name is None or len(group) > 1 and options.coordinates is not None:
            return False
        x, t = np.asarray(arrays[name], np.float64), np.asarray(arrays[time], np.float64)
        fields: dict[str, np.ndarray] = {}  # (S, T, N, C)
        for own, array in arrays.items():
            if own in (name, time) or (options.channels and own not in options.channels):
                continue
            sizes = list(array.shape)
            if not 2 <= len(sizes) <= 4 or len(x) not in sizes or len(t) not in sizes or (
                    len(x) == len(t) and sizes.count(len(x)) < 2):
                continue
            frames = len(sizes) - 1 - sizes[::-1].index(len(t)) if len(x) == len(t) else sizes.index(len(t))
            points = next(axis for axis, size in enumerate(sizes) if size == len(x) and axis != frames)
            rest = [axis for axis in range(len(sizes)) if axis not in (frames, points)]
            first = rest[:1] if rest[:1] == [0] or len(rest) == 2 else []  # trajectories
            self._warn_of_alike(sizes, {time: frames, name: points})
            moved = np.transpose(array, [*first, frames, points, *rest[len(first):]])
            moved = moved if first else moved[None]
            fields[own] = moved if moved.ndim == 4 else moved[..., None]
        if not fields or len({len(field) for field in fields.values()}) > 1:
            return False
        names = _labelled({own: field.shape[-1] for own, field in fields.items()})
        self._t, self._x, self._order_of, self._parameters = t, x, (0, 1, (2,), 3), None
        self._arrays = list(fields.values())
        self.description = options.describe(self.path, names, _AXES[: x.shape[1]])
        return True

    def _at_one_place(self, arrays: Mapping[str, np.ndarray], time: str, options: ReadOptions) -> bool:
        """Whether there are only time series (T,), with few channels (T, C), or of several trajectories (S, T, C),
        which are then used as data of a single place."""
        t, parameters = np.asarray(arrays[time], np.float64), arrays.get("parameters")
        others = {name: array for name, array in arrays.items() if name not in (time, "parameters")}
        fields = {name: array for name, array in others.items() if not options.channels or name in options.channels}
        shape = (*next(iter(fields.values()), t).shape, 0, 0)
        several = len(t) == shape[1] != shape[0] and 0 < shape[2]
        sizes = {array.shape[:1 + several] for array in fields.values()} if fields else set()
        fits = sizes == {(*shape[:several], len(t))} and all(
            array.ndim <= 2 + several and (array.ndim == 1 or array.shape[-1] < _FEWEST) for array in fields.values())
        axes = set(_AXES) & {name for name, array in arrays.items() if array.ndim == 1}
        if not fits or options.coordinates is not None or not axes <= set(fields) or 0 < len(axes) < len(fields):
            return False
        self._arrays = [array if array.ndim == 2 + several else array[..., None] for array in fields.values()]
        names = _labelled({name: array.shape[-1] for name, array in zip(fields, self._arrays, strict=True)})
        self._t, self._x, self._order_of = t, np.zeros((1, 1)), (0 if several else None, int(several), (), 1 + several)
        self._parameters = None if parameters is None else parameters.reshape(shape[0] if several else 1, -1)
        warnings.warn(f"{self.path} has no coordinates: {'its trajectories are' if several else 'it is'} a series at a "
                      f"single place, with the channels {', '.join(names)}; coordinates=[...] names axes", stacklevel=3)
        self.description = options.describe(self.path, names, (PLACE,))
        return True

    def _axes_by_size(
        self, arrays: Mapping[str, np.ndarray], vectors: Sequence[str], time: str | None, options: ReadOptions
    ) -> list[str] | None:
        """Names of vectors, other than times, whose sizes match the axes of a field; None if there are none."""
        others = [name for name in vectors if name != time and len(np.unique(arrays[name])) == len(arrays[name])]
        others.sort(key=lambda name: name[:1] in "tT")  # of two that fit, one such as t_fine is of times
        if not 0 < len(others) <= _MOST_AXES + 1:
            return None
        times = None if time is None else arrays[time]
        for order in (some for count in range(len(others), 0, -1) for some in permutations(others, count)):
            try:
                fields = self._fields(arrays, {time, *others}, options)
                self._order(next(iter(fields.values())).shape, times, [arrays[name] for name in order], 0, False)
            except UserError:
                continue
            return list(order)
        return None

    def _fields(self, arrays: Mapping[str, np.ndarray], taken: set[str | None], options: ReadOptions
                ) -> dict[str, np.ndarray]:
        """Arrays that are channels: those named, else all with the largest number of axes, which must have one shape up
        to a small last axis of channels."""
        wanted = [name for name in options.channels or () if name in arrays]
        if options.channels and len(wanted) not in (0, len(options.channels)):
            raise UserError(f"{self._held}, not all of {', '.join(options.channels)}; {_HINT}")
        others = {name: array for name, array in arrays.items() if name not in taken and array.ndim > 1}
        most = max((array.ndim for array in others.values()), default=0)
        found = {name: arrays[name] for name in wanted} or {name: array for name, array in others.items()
                                                            if array.ndim == most}
        few = all(array.shape[-1] < _FEWEST for array in found.values())  # channels
        if not found or len({array.shape[:-1] if few else array.shape for array in found.values()}) > 1 or most < 2:
            raise UserError(f"{self._held}; expected fields of one shape over times and places: {_HINT}")
        self._channels_last = len({array.shape for array in found.values()}) > 1
        return found

    def _order(self, shape: Sequence[int], times: np.ndarray | None, axes: Sequence[np.ndarray], named: int, late: bool
               ) -> tuple[int | None, int, tuple[int, ...], int | None]:
        """Axes of trajectories (None: a single one), times, space and channels (None: one channel).

        The first interpretation whose sizes fit is used; without vectors of times or places every size fits, and with
        `late`, interpretations with times after places come first.
        """
        n, film = len(shape), not axes and bool(self._film)
        with_samples = [*range(min(n - 2, _MOST_AXES), 0, -1), min(n - 1, _MOST_AXES)]  # as in published sets
        usual = [2] if film else with_samples
        readings: list[tuple[int | None, int, tuple[int, ...], int | None]] = []  # trajectory, time, space, channels
        for d in [len(axes)] if axes else [named] if named else usual:
            of_d: list[tuple[int | None, int, int, int | None]] = [  # with the first axis of space
                (0, 1, 2, None), (None, 0, 1, None), (0, d + 1, 1, None), (None, d, 0, None),
                (0, 1, 2, d + 2), (None, 0, 1, d + 1), (0, d + 1, 1, d + 2), (None, d, 0, d + 1)]
            if late and times is None:
                of_d.sort(key=lambda one: one[1] < one[2])
            of_d += [(0, 1, 3, 2), (None, 0, 2, 1)] if axes else []
            readings += [(trajectory, time, tuple(range(start, start + d)), channel)
                         for trajectory, time, start, channel in of_d]
        if not axes:  # few places are channels
            readings.sort(key=lambda one: (film and one[0] is not None,
                                           min((shape[axis] for axis in one[2] if axis < n), default=0) < _FEWEST))
        for trajectory, time, space, channel in readings:
            used = {time, *space} | {axis for axis in (trajectory, channel) if axis is not None}
            if len(used) != n or max(used) != n - 1 or (times is not None and len(times) != shape[time]) or (
                    self._channels_last and channel != n - 1):
                continue
            if all(len(axis) == shape[place] for axis, place in zip(axes, space, strict=False)):
                return trajectory, time, space, channel
        size = "" if times is None else f" and {len(times)} times"
        raise UserError(f"{self._held}: fields of shape {tuple(shape)} do not fit axes of "
                        f"{', '.join(str(len(axis)) for axis in axes) or 'any'} points{size}; {_HINT}")

    def parts(self) -> Iterator[Part]:
        trajectory, frames = self._order_of[0], np.argsort(self._t, kind="stable")
        for index in range(1 if trajectory is None else self._arrays[0].shape[trajectory]):
            yield Part(self._t[frames], self._x, partial(self._values, index, frames),
                       None if self._parameters is None else self._parameters[index])

    def _values(self, index: int, frames: np.ndarray, first: int, last: int) -> np.ndarray:
        trajectory, time, space, channel = self._order_of
        parts = []
        for array in self._arrays:
            order = [time, *space, *([] if channel is None else [channel])]
            if trajectory is not None:
                array, order = np.take(array, index, trajectory), [axis - (axis > trajectory) for axis in order]
            values = np.transpose(array, order)[frames[first:last]]
            parts.append(values.reshape(len(values), len(self._x), -1))
        return np.concatenate(parts, -1)


def _labelled(counts: Mapping[str, int]) -> list[str]:
    """Names of channels by their number in each field; numbered if there are several."""
    return [name if count == 1 else f"{name}{index}" for name, count in counts.items() for index in range(count)]


def _narrowed(arrays: Mapping[str, np.ndarray], lines: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays without axes of one entry (rows, columns, a channel between times and places); repeated `lines` once."""
    found = {name: np.squeeze(array) if array.ndim == 2 and 1 in array.shape else
             array[:, :, 0] if array.ndim > 3 and array.shape[2] == 1 else array for name, array in arrays.items()}
    repeated = {name: array for name, array in found.items() if name.lower() in lines and array.ndim == 2}
    same = all((array == array[:1]).all() for array in repeated.values())  # not so of matrices of a grid
    single = {name: array.ravel() for name, array in found.items() if name.lower() in _TIMES and array.size == 1}
    return found | {name: array[0] for name, array in repeated.items() if same} | single


def _known_sets(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays as two published kinds of sets mean them: snapshots as columns (N, T) beside the sizes nx, ny of their
    grid, N = nx ny in MATLAB's order, as (1, T, nx, ny); first states `a` and last `u` of one shape as two frames."""
    sizes = [int(arrays[name].ravel()[0]) for name in ("nx", "ny", "nz") if name in arrays and arrays[name].size == 1]
    found = {name: array.T.reshape(1, -1, *sizes[::-1]).transpose(0, 1, *range(len(sizes) + 1, 1, -1))
             if len(sizes) > 1 and array.ndim == 2 and len(array) == math.prod(sizes) else array
             for name, array in arrays.items()}
    first, last = (found.get(name, np.empty(0)) for name in "au")
    if first.shape == last.shape and first.ndim > 1:
        warnings.warn(f"{path}: a and u of one shape are the first and the last frame of {len(first)} trajectories",
                      stacklevel=3)
        return {"u": np.stack([first, last], 1)} | {name: array for name, array in found.items() if array.ndim == 1}
    return found


def _untimed(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Problem of arrays without times if one is of points (N, d): if all others have as many rows, places and times of
    rows cannot be distinguished, else times are missing; None if there are no points."""
    name = next((name for name, array in arrays.items() if name.lower() in _POINTS and array.ndim == 2
                 and array.shape[1] <= _MOST_AXES < len(array)), None)
    count = 0 if name is None else len(arrays[name])
    if not (others := [array for key, array in arrays.items() if key != name and count in array.shape]):
        return None
    if all(len(array) == count and array.size < _FEWEST * count for array in others):
        return (f"the rows of {name} may be places or times, and nothing says which; write vectors of one "
                "length, as t, x, y and u, or a table")
    return f"{name} holds {count} points, and nothing the times; add a vector t of times"


def _with_points(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays with matrices X, Y of a grid (meshgrid, ndgrid) replaced by points (N, d), over which other arrays with
    these axes are flattened."""
    called = {name.lower(): name for name in arrays}
    axes = [called[axis] for axis in _AXES if axis in called]
    shapes = {arrays[name].shape for name in axes}
    shape = next(iter(shapes), ())
    if len(axes) < 2 or len(shapes) > 1 or len(shape) < 2 or min(shape) < 2 or "points" in called:
        return arrays
    found: dict[str, np.ndarray] = {"points": np.stack([arrays[name].ravel() for name in axes], -1)}
    for name, array in arrays.items():
        place = next((first for first in range(array.ndim) if array.shape[first:first + len(shape)] == shape), None)
        if name not in axes:
            found[name] = array if place is None else array.reshape(
                *array.shape[:place], -1, *array.shape[place + len(shape):])
    return found


def _of_parts(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays with complex numbers replaced by real and imaginary parts."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        found |= {f"{name}_re": array.real, f"{name}_im": array.imag} if array.dtype.kind == "c" else {name: array}
    return found


class ArrayFormat(Format):
    """Format of named arrays; needs `sniff` and `arrays` and, if it has suffixes, `save`."""

    binary = fixed_points = True

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        """Arrays of a file by name."""
        raise NotImplementedError

    def save(self, file: Any, arrays: dict[str, np.ndarray]) -> None:
        """Write named arrays to an open file."""
        raise NotImplementedError

    def open_writer(self, path: Path, description: Description | None, overwrite: bool) -> TableWriter:
        if not self.suffixes:
            return super().open_writer(path, description, overwrite)
        return ArrayWriter(path, description, overwrite, self.save)

    def read(self, path: Path, options: ReadOptions) -> Content:
        with damage_as_user_error(path):
            arrays = self.arrays(path)
            held = {name: array.ravel() for name, array in arrays.items() if array.size == max(array.shape, default=0)}
            table = len(held) == len(arrays) and len({len(column) for column in held.values()}) == 1
            if table and axes_among(list(held)) and len(held) > 1 + len(axes_among(list(held))):
                return TableContent(_Table(held), path, options)
            return ArrayContent(path, arrays, options)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with damage_as_user_error(path):
            shapes = (f"{name} {array.shape} {array.dtype}" for name, array in self.arrays(path).items())
            return [("arrays", ", ".join(shapes))]


class _Table(TableFormat):
    """Vectors of equal length as the columns of a table."""

    name = about = "vectors"

    def __init__(self, held: Mapping[str, np.ndarray]) -> None:
        self._held = held

    def sniff(self, path: Path, start: bytes) -> bool:
        return False

    def open_columns(self, path: Path, wanted: Sequence[Sequence[str]] = ()) -> Columns:
        return ColumnsInMemory(self._held)
