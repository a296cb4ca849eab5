"""Files of named arrays: npy, tensors of PyTorch, and what npz and MATLAB files hold, as trajectories on grids.

Which axis of a field is which follows from sizes: a field is (S, T, X, Y, ...), (T, X, Y, ...), or as MATLAB files of
published sets have it (S, X, Y, ..., T) or (X, Y, ..., T), in all cases with channels behind, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from inrflow.data.formats.columns import TIMES, find_column
from inrflow.data.formats.registry import Content, Format, ReadOptions
from inrflow.data.formats.streams.streamed import Part, StreamedContent, lattice
from inrflow.errors import UserError
from inrflow.runtime.atomic_files import damage_as_user_error

_AXES, _MOST_AXES = ("x", "y", "z"), 3
_HINT = "name arrays with channels=[...], coordinates=[...] and time=NAME"


class ArrayContent(StreamedContent):
    """Fields on a grid, of arrays by their names.

    Times are the vector of that name, or that of `options.time`; axes are vectors x, y, z, or those named; where there
    are none, points lie at i / n of a unit box. All other arrays that fit are channels. Raises UserError where they do
    not say which of their axes are what.
    """

    def __init__(self, path: Path, arrays: Mapping[str, np.ndarray], options: ReadOptions) -> None:
        super().__init__(path)
        held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
        self._held = f"{path} holds the arrays {held}"
        arrays = {name: np.squeeze(array) if array.ndim == 2 and 1 in array.shape else array
                  for name, array in arrays.items() if array.dtype.kind in "fiu" and array.size}
        vectors = [name for name, array in arrays.items() if array.ndim == 1]
        time = find_column(vectors, TIMES if options.time is None else (options.time,))
        if options.time is not None and time is None:
            raise UserError(f"{self._held}, and no vector {options.time} of times; {_HINT}")
        named = [str(name) for name in options.coordinates or [one for one in _AXES if one in vectors]]
        axes = [np.asarray(arrays[name], np.float64) for name in named if name in vectors]
        absent = [name for name in named if name not in vectors]
        if absent and len(absent) < len(named):
            raise UserError(f"{self._held}, and no vector {', '.join(absent)}; {_HINT}")
        fields = self._fields(arrays, {time, *named}, options)
        times = None if time is None else np.asarray(arrays[time], np.float64)
        first = next(iter(fields.values()))
        order, count = self._order(first.shape, times, axes, len(absent))
        if not axes:
            sizes = [first.shape[axis] for axis in order[2]]
            axes = [np.arange(size) / size for size in sizes]
            named = absent or list(_AXES[: len(axes)])
            warnings.warn(f"{path} names no places: points are taken at i / n of a unit box along "
                          f"{', '.join(named)}; give coordinates=[...] where they are others", stacklevel=2)
        channels = [name if count == 1 else f"{name}{index}" for name in fields for index in range(count)]
        if options.channels and len(options.channels) == len(channels):
            channels = list(options.channels)
        if times is None:
            times = np.arange(first.shape[order[1]], dtype=np.float64)
            warnings.warn(f"{path} names no times: frames are counted, a unit of time apart", stacklevel=2)
        self._t, self._x, self._order_of, self._arrays = times, lattice(axes), order, list(fields.values())
        self.description = options.describe(path, channels, named)

    def _fields(self, arrays: Mapping[str, np.ndarray], taken: set[str | None], options: ReadOptions
                ) -> dict[str, np.ndarray]:
        """The arrays that are channels: those named, else all of the most axes that have one shape."""
        wanted = [name for name in options.channels or () if name in arrays]
        if options.channels and len(wanted) not in (0, len(options.channels)):
            raise UserError(f"{self._held}, not all of {', '.join(options.channels)}; {_HINT}")
        others = {name: array for name, array in arrays.items() if name not in taken and array.ndim > 1}
        most = max((array.ndim for array in others.values()), default=0)
        found = {name: arrays[name] for name in wanted} or {name: array for name, array in others.items()
                                                            if array.ndim == most}
        if not found or len({array.shape for array in found.values()}) > 1 or most < 2:
            raise UserError(f"{self._held}; expected fields of one shape over times and places: {_HINT}")
        return found

    def _order(self, shape: Sequence[int], times: np.ndarray | None, axes: Sequence[np.ndarray], named: int
               ) -> tuple[tuple[int | None, int, tuple[int, ...], int | None], int]:
        """The axis of trajectories (None: one), of times, those of space and that of channels; and how many of these.

        The first reading whose sizes fit is taken; without vectors of times or places, every size does.
        """
        n = len(shape)
        usual = [*range(min(n - 2, _MOST_AXES), 0, -1), min(n - 1, _MOST_AXES)]  # with samples, as published sets have
        for d in [len(axes)] if axes else [named] if named else usual:
            readings: list[tuple[int | None, int, int, int | None]] = [  # trajectory, time, first of space, channels
                (0, 1, 2, None), (None, 0, 1, None), (0, d + 1, 1, None), (None, d, 0, None),
                (0, 1, 2, d + 2), (None, 0, 1, d + 1), (0, d + 1, 1, d + 2), (None, d, 0, d + 1),
            ]
            for trajectory, time, start, channel in readings:
                space = tuple(range(start, start + d))
                used = {time, *space} | {axis for axis in (trajectory, channel) if axis is not None}
                if len(used) != n or max(used) != n - 1 or (times is not None and len(times) != shape[time]):
                    continue
                if all(len(axis) == shape[place] for axis, place in zip(axes, space, strict=False)):
                    return (trajectory, time, space, channel), 1 if channel is None else shape[channel]
        size = "" if times is None else f" and {len(times)} times"
        raise UserError(f"{self._held}: fields of shape {tuple(shape)} do not fit axes of "
                        f"{', '.join(str(len(axis)) for axis in axes) or 'any'} points{size}; {_HINT}")

    def parts(self) -> Iterator[Part]:
        trajectory = self._order_of[0]
        for index in range(1 if trajectory is None else self._arrays[0].shape[trajectory]):
            yield Part(self._t, self._x, partial(self._values, index))

    def _values(self, index: int, first: int, last: int) -> np.ndarray:
        trajectory, time, space, channel = self._order_of
        frames = []
        for array in self._arrays:
            order = [time, *space, *([] if channel is None else [channel])]
            if trajectory is not None:
                array, order = np.take(array, index, trajectory), [axis - (axis > trajectory) for axis in order]
            values = np.transpose(array, order)[first:last]
            frames.append(values.reshape(len(values), len(self._x), -1))
        return np.concatenate(frames, -1)


class ArrayFormat(Format):
    """A format whose files are named arrays; needs `sniff` and `arrays`."""

    binary = True

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        """The arrays of a file."""
        raise NotImplementedError

    def read(self, path: Path, options: ReadOptions) -> Content:
        with damage_as_user_error(path):
            return ArrayContent(path, self.arrays(path), options)

    def summary(self, path: Path) -> list[tuple[str, str]]:
        with damage_as_user_error(path):
            shapes = (f"{name} {array.shape} {array.dtype}" for name, array in self.arrays(path).items())
            return [("arrays", ", ".join(shapes))]


class NpyFormat(ArrayFormat):
    """A single array of numpy.save, whose axes coordinates=[x,y] and the order of sizes say."""

    name = "npy"
    about = "npy (fields over trajectories, times and places)"

    def sniff(self, path: Path, start: bytes) -> bool:
        return start.startswith(b"\x93NUMPY")

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        return {"u": np.load(path, allow_pickle=False, mmap_mode="r")}


class TorchFormat(ArrayFormat):
    """Tensors saved by torch.save, one or by names, loaded without running anything (weights_only).

    Pairs x, y of one shape, as neuraloperator has them, are two frames a unit of time apart.
    """

    name = "PyTorch"
    about = "PyTorch's .pt (tensors)"

    def sniff(self, path: Path, start: bytes) -> bool:
        import zipfile

        if not start.startswith(b"PK") or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(member.endswith("/data.pkl") for member in archive.namelist())

    def arrays(self, path: Path) -> dict[str, np.ndarray]:
        import torch

        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged or hostile file makes of it
            raise UserError(f"{path} cannot be read without running code from it, or is damaged "
                            f"({type(error).__name__}); save a dictionary of tensors") from error
        found = loaded if isinstance(loaded, dict) else {"u": loaded}
        arrays = {str(name): value.detach().numpy() for name, value in found.items()
                  if isinstance(value, torch.Tensor) and not value.is_complex()}
        if set(arrays) == {"x", "y"} and arrays["x"].shape == arrays["y"].shape and arrays["x"].ndim > 1:
            pair = np.stack([arrays["x"], arrays["y"]], 1)
            one_channel = pair.ndim > 4 and pair.shape[2] == 1  # (S, 2, 1, X, Y)
            return {"u": pair[:, :, 0] if one_channel else pair}
        return arrays
