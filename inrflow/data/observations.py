"""Observations of one trajectory as rows (single points in time and space) or as frames (arranged by time), numpy or
torch; and time bins, frames made of rows with individual times (asynchronous sensors, tracks)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.calendar import DEFAULT_CALENDAR, numbers_of_dates
from inrflow.data.description import Description
from inrflow.data.plain import decoded, detached, plain_array, unindexed
from inrflow.errors import UserError
from inrflow.runtime.shown import counted

_NUMBERED = 2**24  # largest range of integers that are exact in single precision
_SPARSE = 10.0  # largest ratio of place-time pairs to values for frames of shared places, but for
_LIGHT, _VISITS = 2**20, 24  # as few pairs, of places with as many values, which are series
_BIN = 0.5  # internal time between frames made of rows with individual times
_ROWS = 150  # mean rows per bin: enough to determine the larger scales of a field
_FEWEST, _MOST = 8, 400  # numbers of bins
_SCATTERED = 4  # mean number of rows per time below which times are not frames


class Observations:
    """Values u measured at times t and points x of one trajectory; NaN = not observed.

    Accepted, numpy or torch (or lists):
    rows t (R,), x (R, d), u (R, C); frames t (T,), x (N, d) or (T, N, d), u (T, N, C); one frame t scalar, x (N, d),
    u (N, C). On a grid N may be several axes: x (X, Y, d), u (T, X, Y, C). The axis of a single channel may be omitted,
    except from u (T, N) with T = N, which is read as rows of N channels. Raises UserError if shapes do not fit, times
    or coordinates of observed values are not finite, values are infinite, or nothing is observed.

    Times may be dates (ISO text, datetime, datetime64, pandas), places on a sphere longitude and latitude in degrees
    (N, 2); a surrogate converts them. Data without places have x None, t (T,) and u (T, C).

    Attributes: kind of the input ("numpy" | "torch"), device (of a torch u, else None), channels C, dimensions d,
    time_units ("hours since 1970-01-01" if times were dates, else None).

    >>> inrflow.Observations([0, 0.5], [[0.1], [0.2], [0.3]], [[1, 2, 3], [3, 4, float("nan")]])
    Observations(5 points at 2 times from 0 to 0.5, 1 channel, 1 coordinate)
    """

    def __init__(self, t: Any, x: Any, u: Any) -> None:
        tensors = [value for value in (t, x, u) if isinstance(value, torch.Tensor)]
        self.kind = "torch" if tensors else "numpy"
        self.device: torch.device | None = tensors[-1].device if tensors else None
        self.time_units: str | None = None
        if not isinstance(t, torch.Tensor) and (given := np.asarray(t)).dtype.kind in "MOU" and (
                dated := numbers_of_dates(given, DEFAULT_CALENDAR)) is not None:
            self.time_units, t = DEFAULT_CALENDAR, dated
        times, values = _array(t, "t"), _array(u, "u")
        places = np.zeros((*times.shape, 1)) if x is None else _array(x, "x")
        times, places, values = _arranged(times, places, values)
        self.channels, self.dimensions = values.shape[-1], places.shape[-1]
        if not self.channels or not self.dimensions:
            raise UserError(f"observations have {self.channels} channels and {self.dimensions} coordinates; give "
                            "one of each at least")
        if np.isinf(values).any():
            raise UserError("observed values u hold infinities; mark missing values as NaN and remove the rest")
        self._frames = _checked_frames(times, places, values)
        self.graph: tuple[torch.Tensor, np.ndarray] | None = None  # values with gradient; indices into them by frame
        if isinstance(u, torch.Tensor) and u.requires_grad:
            self._attach(u, Observations(t, x, np.where(torch.isnan(u.detach()).cpu().numpy(), np.nan,
                                                        np.arange(u.numel()).reshape(u.shape))))

    @classmethod
    def from_dataframe(cls, table: Any, channels: Sequence[str], coordinates: Sequence[str], time: str = "time"
                       ) -> Observations:
        """Observations in the rows of a pandas DataFrame, whose columns may have any names.

        If the names are those of the training data, `Surrogate.assimilate` also accepts the table itself. channels,
        coordinates: columns in the order of the training data; on a sphere longitudes and latitudes in degrees. time:
        numbers, dates, or ISO dates as text, in UTC if they have no zone. Without places coordinates are []. Raises
        UserError if a column is missing or has another type.
        """
        import pandas

        if not isinstance(table, pandas.DataFrame):
            raise UserError(f"from_dataframe takes a pandas DataFrame, not {type(table).__name__}; from_xarray takes "
                            "Datasets")
        table = unindexed(table)
        wanted = [time, *coordinates, *channels]
        if isinstance(channels, str) or isinstance(coordinates, str):
            raise UserError(f"channels={channels!r} and coordinates={coordinates!r} are names of columns; give lists "
                            "of them")
        if missing := [name for name in wanted if name not in table.columns]:
            raise UserError(f"the table has no column {', '.join(map(str, missing))}, but "
                            f"{', '.join(map(str, table.columns))}; name the columns with channels, coordinates and "
                            "time")
        x, u = (np.stack([plain_array(table[name], str(name)) for name in names], -1) if len(names) else None
                for names in (coordinates, channels))
        return cls(table[time], x, u)

    @classmethod
    def from_xarray(cls, data: Any, channels: Sequence[str], coordinates: Sequence[str], time: str = "time"
                    ) -> Observations:
        """Observations in variables and coordinates of an xarray Dataset, with arguments as in `from_dataframe`."""
        if not hasattr(data, "data_vars"):
            raise UserError(f"from_xarray takes an xarray Dataset, not {type(data).__name__}")
        if missing := [name for name in (time, *coordinates, *channels) if name not in data.variables]:
            raise UserError(f"the dataset has no {', '.join(map(str, missing))}, but "
                            f"{', '.join(map(str, data.variables))}; name them with channels, coordinates and time")
        kept = decoded(data[[*channels, *coordinates, time]])
        return cls.from_dataframe(kept.to_dataframe().reset_index(), channels, coordinates, time)

    def _attach(self, u: torch.Tensor, numbers: Observations) -> None:
        """Attach the tensor of values with gradient; `numbers`: observations whose values are indices into it."""
        if u.numel() > _NUMBERED:
            raise UserError(f"gradients by {u.numel()} observed values are asked for; give at most {_NUMBERED}")
        self.graph = u, numbers.frames().u

    def moved(self, t: Any, x: Any) -> Observations:
        """Observations of the same values at other times and places, in the shapes of `frames`."""
        result = Observations(t, x, self._frames.u)
        if self.graph is not None:
            result._attach(self.graph[0], Observations(t, x, self.graph[1]))
        return result

    def frames(self) -> Frames:
        """Observations grouped into frames of equal times in increasing order, padded with NaN, without empty rows."""
        return self._frames

    def updated_with(self, other: Observations) -> Observations:
        """Union with other observations, which replace values of the same channel, time and place.

        Recurring places are kept: frames have a column for each place of either set. Raises UserError if numbers of
        channels or coordinates differ.
        """
        ours, theirs = self.frames(), other.frames()
        if (self.channels, self.dimensions) != (other.channels, other.dimensions):
            raise UserError(f"observations of {other.channels} channels at {other.dimensions} coordinates are added to "
                            f"those of {self.channels} at {self.dimensions}; give the same")
        t, x, u = (np.concatenate(parts) for parts in zip(ours.rows(), theirs.rows(), strict=True))
        places, place = np.unique(x, axis=0, return_inverse=True)
        times, frame = np.unique(t, return_inverse=True)
        cell = frame.reshape(-1) * len(places) + place.reshape(-1)
        cells = len(times) * len(places)
        sparse = ours.moving or too_sparse(len(times), len(places), len(t))
        kept = np.unique(cell) if sparse else np.arange(cells)
        where, values = np.searchsorted(kept, cell), np.full((len(kept), self.channels), np.nan, np.float32)
        for channel in range(self.channels):
            seen = np.isfinite(u[:, channel])
            values[where[seen], channel] = u[seen, channel]  # the last of repeated indices counts
        if sparse:
            return Observations(times[kept // len(places)], places[kept % len(places)], values)
        return Observations(times, places, values.reshape(len(times), len(places), -1))

    def __len__(self) -> int:
        """Number of observed rows (points in time and space with at least one value)."""
        return int((~np.isnan(self._frames.u)).any(-1).sum())

    def __repr__(self) -> str:
        frames = self._frames
        return (f"Observations({counted(len(self), 'point')} at {counted(len(frames), 'time')} from {frames.t[0]:g} to "
                f"{frames.t[-1]:g}, {counted(self.channels, 'channel')}, {counted(self.dimensions, 'coordinate')})")


def too_sparse(times: int, places: int, values: int) -> bool:
    """Whether frames of shared places are too empty to hold so many values, unless these are visited often."""
    cells = times * places
    return cells > _SPARSE * values and (cells > _LIGHT or values < _VISITS * places)


def _array(value: Any, name: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = detached(value, f"observations: {name}").cpu().double().numpy()
    try:
        if np.ma.isMaskedArray(value) or np.asarray(value).dtype.kind in "Oc":
            value = plain_array(value, f"observations: {name}")
        return np.asarray(value, np.float32 if name == "u" else np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"observations: {name} cannot be read as an array of numbers ({error}); give a numpy array or "
                        "torch tensor") from error


def _arranged(t: np.ndarray, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard shapes: rows t (R,), x (R, d), u (R, C), or frames t (T,), x (N, d) or (T, N, d), u (T, N, C)."""
    problem = UserError(f"observations have t {t.shape}, x {x.shape} and u {u.shape}; expected rows (R,), (R, d), "
                        "(R, C), or frames (T,), (N, d) or (T, N, d), (T, N, C), or one frame (), (N, d), (N, C)")
    grid = x.shape[:-1]
    if len(grid) > 1 and u.shape[t.ndim:][:len(grid)] == grid and (u.ndim > 3 or t.ndim == 0 or u.shape[:2] != grid):
        u = u.reshape(*t.shape, -1, *u.shape[t.ndim + len(grid):])
        x = x.reshape(-1, x.shape[-1])
    if t.ndim > 1 or x.ndim not in (2, 3):
        raise problem
    if 0 in (t.size, x.size, u.size):
        raise UserError(f"observations are empty: t {t.shape}, x {x.shape}, u {u.shape}; give at least one point")
    if t.ndim == 0:
        t = t[None]
        if x.ndim == 2 and u.ndim in (1, 2) and len(u) == len(x):
            u = u[None]
    T, N = len(t), x.shape[-2]
    if x.ndim == 3 and len(x) != T:
        raise problem
    if x.ndim == 2 and T == N:
        if u.ndim in (1, 2) and len(u) == T:  # u (R, R) is read as rows: the axis of channels may be
            return t, x, u.reshape(T, -1)     # omitted only if that is unambiguous
    if u.shape == (T, N):
        u = u[..., None]
    elif T == 1 and u.ndim in (1, 2) and len(u) == N:  # one frame without its axis
        u = u.reshape(1, N, -1)
    if u.ndim != 3 or u.shape[:2] != (T, N):
        raise problem
    return t, x, u


def _checked_frames(t: np.ndarray, x: np.ndarray, u: np.ndarray) -> Frames:
    observed = ~np.isnan(u).all(-1)
    if not observed.any():
        raise UserError("observations hold no value: every u is NaN; give at least one")
    if u.ndim == 3:
        shared = x.ndim == 2
        used = observed.any(1)
        kept = observed.any(0) if shared else None
        if shared and np.isfinite(t[used]).all() and len(np.unique(t[used])) == used.sum():
            order = np.flatnonzero(used)[np.argsort(t[used], kind="stable")]
            frames = Frames(t[order].astype(np.float64), x[kept], u[order][:, kept].astype(np.float32))
            _require_finite(frames.t, frames.x)
            return frames
        frame, point = np.nonzero(observed)
        x = x[point] if shared else x[frame, point]
        t, u = t[frame], u[frame, point]
    else:
        t, x, u = t[observed], x[observed], u[observed]
    _require_finite(t, x)
    return group_rows(t, x, u.astype(np.float32))


def _require_finite(t: np.ndarray, x: np.ndarray) -> None:
    for name, value in (("times t", t), ("coordinates x", x)):
        if not np.isfinite(value).all():
            raise UserError(f"{name} of observations hold {(~np.isfinite(value)).sum()} values that are not finite; "
                            "remove those rows or mark their u as NaN")


@dataclass(frozen=True)
class Frames:
    """Observations of one trajectory, frame by frame.

    t: (T,) float64, increasing times. x: (N, d) float64 if all frames share their points, else (T, N, d).
    u: (T, N, C) float32, NaN if not observed. Frames with fewer points are padded: u is NaN there, and x repeats a
    point of the same frame so that coordinates are finite.
    """

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray

    @property
    def moving(self) -> bool:
        """Whether each frame has its own points."""
        return self.x.ndim == 3

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observed rows t (R,), x (R, d), u (R, C)."""
        frame, point = np.nonzero(~np.isnan(self.u).all(-1))
        x = np.broadcast_to(self.x, (*self.u.shape[:2], self.x.shape[-1]))[frame, point]
        return self.t[frame], x, self.u[frame, point]

    def __len__(self) -> int:
        """Number of frames T."""
        return len(self.t)


def group_rows(t: np.ndarray, x: np.ndarray, u: np.ndarray) -> Frames:
    """Frames of equal times from rows t (R,), x (R, d), u (R, C) of one trajectory, in any order (R at least 1).

    x becomes (N, d) if all frames have the same points in the same order.
    """
    order = np.argsort(t, kind="stable")
    t, x, u = t[order], x[order], u[order]
    times, starts, counts = np.unique(t, return_index=True, return_counts=True)
    frame = np.repeat(np.arange(len(times)), counts)
    column = np.arange(len(t)) - np.repeat(starts, counts)
    return place_rows(times, frame, column, x, u)


def place_rows(times: np.ndarray, frame: np.ndarray, column: np.ndarray, x: np.ndarray, u: np.ndarray,
               collapse: bool = True) -> Frames:
    """Padded frames with row r at frame[r], column[r]; every frame must have a row in column 0.

    With `collapse`, x becomes (N, d) if all frames have the same points in the same order.
    """
    width = int(column.max()) + 1
    placed_u = np.full((len(times), width, u.shape[-1]), np.nan, np.float32)
    placed_u[frame, column] = u
    placed_x = np.empty((len(times), width, x.shape[-1]), np.float64)
    first = column == 0
    placed_x[frame[first]] = x[first][:, None, :]
    placed_x[frame, column] = x
    if collapse and len(frame) == len(times) * width and np.array_equal(placed_x, placed_x[:1].repeat(len(times), 0)):
        placed_x = placed_x[0]
    return Frames(np.asarray(times, np.float64), placed_x, placed_u)


@dataclass(frozen=True)
class TimeBins:
    """K adjacent time intervals of equal `width` with centres `times` (K,)."""

    times: np.ndarray
    width: float

    @classmethod
    def for_row_count(cls, first: float, last: float, rows: float) -> TimeBins:
        """Bins for `rows` rows between two times; wider for fewer rows."""
        count = int(np.clip(round(rows / _ROWS), _FEWEST, _MOST))
        width = (last - first) / count
        return cls(first + width * (np.arange(count) + 0.5), width)

    @classmethod
    def of_width(cls, first: float, last: float, width: float) -> TimeBins:
        """Bins of at most this width whose first and last centres are two times; wider only if there were too many."""
        count = int(np.clip(np.ceil((last - first) / width) + 1, 1, _MOST))
        return cls(np.linspace(first, last, count), (last - first) / max(count - 1, 1))

    def gather(
        self, t: np.ndarray, x: np.ndarray, u: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows t (R,), x (R, d), u (R, C) arranged by bin.

        Returns x (K, N, d), u (K, N, C), time offsets from the centres (K, N), and the mask (K,) of non-empty bins.
        Bins are padded with NaN values at points of the same bin or, in empty bins, of another bin.
        """
        bins = np.clip(((t - self.times[0]) / self.width + 0.5).astype(int), 0, len(self.times) - 1)
        order = np.argsort(bins, kind="stable")
        bins, t, x, u = bins[order], t[order], x[order], u[order]
        used, starts, counts = np.unique(bins, return_index=True, return_counts=True)
        row = np.repeat(np.arange(len(used)), counts)
        column = np.arange(len(t)) - np.repeat(starts, counts)
        values = np.concatenate([u, (t - self.times[bins])[:, None]], 1)
        placed = place_rows(self.times[used], row, column, x, values, collapse=False)
        width = placed.u.shape[1]
        wide_x = np.tile(placed.x[:1, :1], (len(self.times), width, 1))
        wide_u = np.full((len(self.times), width, u.shape[1] + 1), np.nan, np.float32)
        wide_x[used], wide_u[used] = placed.x, placed.u
        present = np.zeros(len(self.times), bool)
        present[used] = True
        return wide_x, wide_u[..., :-1], np.nan_to_num(wide_u[..., -1]), present


def is_scattered(rows: int, frames: int) -> bool:
    """Whether `rows` rows at `frames` different times have too few rows per time to be frames."""
    return frames > _FEWEST and rows < _SCATTERED * frames


def window_of(
    observations: Observations, description: Description, unit: float, gather: bool = True, in_steps: bool = False
) -> TrajectoryBatch:
    """Batch (1, K, ...) of the frames of one trajectory, data units. Raises UserError if the description does not fit.

    Args:
        unit: unit of internal time, in data units.
        gather: whether to gather rows with individual times into fewer, equally spaced frames with time offsets
            (`delay`), which needs a decoder affine in the code.
        in_steps: whether states exist only at discrete steps, so that a frame must not combine several steps.
    """
    frames = observations.frames()
    d, channels = len(description.coordinates), len(description.channels)
    if frames.x.shape[-1] != d or frames.u.shape[-1] != channels:
        raise UserError(
            f"the observations have {frames.x.shape[-1]} coordinates and {frames.u.shape[-1]} channels; the surrogate "
            f"of {description.name} has {d} ({', '.join(description.coordinates)}) and {channels} "
            f"({', '.join(description.channels)})"
        )
    x, u = torch.as_tensor(frames.x), torch.as_tensor(frames.u)
    numbers = None if observations.graph is None else observations.graph[1]
    if numbers is not None:
        u = _attached(observations, numbers)
    gather = gather and not (in_steps and frames.t[-1] - frames.t[0] > _MOST * _BIN * unit)
    bins = TimeBins.of_width(float(frames.t[0]), float(frames.t[-1]), _BIN * unit)
    if not (gather and is_scattered(len(observations), len(frames)) and len(bins.times) < len(frames)):
        return TrajectoryBatch(torch.as_tensor(frames.t)[None], x[None] if x.dim() == 3 else x[None, None], u[None])
    seen = np.isfinite(frames.u).any(-1)
    t = np.broadcast_to(frames.t[:, None], seen.shape)[seen]
    places = np.broadcast_to(frames.x, (*seen.shape, frames.x.shape[-1]))[seen]
    found = bins.gather(t, places, frames.u[seen])
    place, u, delay = (torch.as_tensor(v) for v in (found[0], found[1], found[2].astype(float)))
    if numbers is not None:
        u = _attached(observations, bins.gather(t, places, numbers[seen])[1])
    return TrajectoryBatch(torch.as_tensor(bins.times)[None], place[None], u[None], delay[None])


def _attached(observations: Observations, numbers: np.ndarray) -> torch.Tensor:
    """Observed values with their gradient, in the shape of their indices `numbers`; NaN where these are."""
    assert observations.graph is not None
    where = torch.as_tensor(numbers)
    taken = observations.graph[0].cpu().flatten()[where.nan_to_num(0.0).long()]
    return torch.where(torch.isnan(where), torch.nan, taken)
