"""Sources of training data: normalised batches of whole trajectories from a file of any size; and seeded choices of
observed points and validation trajectories."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch

from inrflow.data.batch import Normalisation, TrajectoryBatch
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.observations import TimeBins, is_scattered
from inrflow.data.transformations import Augmentation
from inrflow.errors import UserError

_CACHE_BYTES = 1024**3
_SECONDS_OF_VALUE, _OF_TIME = 2e-6, 0.3  # cost of closed-form fits per value; share of the time budget for them
_MOVED = 8  # cost factor of values whose places differ from frame to frame
_FEWEST_VALUES, _MOST_VALUES = 2e6, 5e7  # the latter take 200 MB, and solves with them several times as much
_MILDLY = 0.25  # least share of points for a coarser grid, which aliases what it does not resolve
_FEWEST_TRAJECTORIES, _FEWEST_POINTS = 24, 1024  # limits of the reduction of trajectories, then of points
_NEAR, _SKEWED = 0.5, 0.5  # amounts: largest distance of the minimum from 0 in deviations, and least skewness
_DEGREES = re.compile(r"temp|celsius|fahrenheit|dew|(°|\bdeg_?)[CF]\b", re.IGNORECASE)  # names and units of non-amounts


class TrajectorySource:
    """Observed part of a trajectory file: its first frames, at the observed points of each trajectory.

    Args:
        file: an open file.
        frames: number of first frames of every trajectory that are used, None for all.
        points: fraction of observed points, a seeded subset of each trajectory.
        same_points: whether all trajectories share one subset.
        seed: seed of the subset.
    Scattered rows with individual times are gathered in `time_bins`, with a `delay` from the bins' centres. Values are
    cached in memory up to a GiB; others are read on demand.
    """

    def __init__(
        self,
        file: TrajectoryFile,
        frames: int | None = None,
        points: float = 1.0,
        same_points: bool = False,
        seed: int = 0,
    ) -> None:
        if frames is not None and frames < 2:
            raise UserError(f"data.frames={frames}: dynamics need at least 2 frames of a trajectory; give 2 or more")
        file.require_frames(2)
        observed_points(seed, 0, file.points, points)  # raises for an impossible fraction before anything is read
        self.file, self.frames, self.fraction, self.same_points, self.seed = file, frames, points, same_points, seed
        self.description = file.description
        times = file.times()
        self.time_bins: TimeBins | None = None
        if file.layout == "scattered" and is_scattered(file.rows, int(np.isfinite(times).sum())):
            spans = np.nanmin(times), np.nanmax(times)
            self.time_bins = TimeBins.for_row_count(float(spans[0]), float(spans[1]),
                                                    points * file.rows / file.trajectories)
            times = np.tile(self.time_bins.times, (file.trajectories, 1))
        self.moves = self.time_bins is not None or file.point_layout == "moving"  # places differ from frame to frame
        count = times.shape[1] if frames is None else min(frames, times.shape[1])
        self.times = torch.as_tensor(times[:, :count])
        self.lattice: np.ndarray | None = None  # indices of points, instead of a random subset
        self.points = file.points if self.time_bins is None else max(1, round(file.rows / times.size))
        self._cache: dict[int, TrajectoryBatch] = {}
        self._cached = 0  # bytes
        self.faults: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
        self.normalisation = Normalisation(
            torch.zeros(len(file.description.channels)), torch.ones(len(file.description.channels))
        )
        self.observed_frames = 0
        self.varies = torch.ones(len(file.description.channels), dtype=torch.bool)

    def __len__(self) -> int:
        return self.file.trajectories

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": {}, "_cached": 0}  # other processes read their own values

    @property
    def shared_points(self) -> bool:
        """Whether all observed trajectories share their points."""
        return self.file.point_layout == "shared" and (self.fraction >= 1.0 or self.same_points)

    def observed_points(self, trajectory: int) -> np.ndarray | None:
        """Indices of the observed points of a trajectory; None for all."""
        if self.fraction >= 1.0 or self.lattice is not None:
            return self.lattice
        return observed_points(self.seed, trajectory, self.file.points, self.fraction, self.same_points)

    def _read(self, trajectory: int) -> TrajectoryBatch:
        if trajectory in self._cache:
            return self._cache[trajectory]
        limit = self.times.shape[1]
        if self.time_bins is not None:
            return self._read_scattered(trajectory, self.time_bins)
        frames = self.file.read(trajectory, slice(0, limit), self.observed_points(trajectory))
        t = torch.full((1, limit), float("nan"), dtype=torch.float64)
        t[0, : len(frames.t)] = torch.as_tensor(frames.t)
        u = torch.full((1, limit, *frames.u.shape[1:]), float("nan"))
        u[0, : len(frames.t)] = torch.as_tensor(frames.u)
        x = torch.as_tensor(frames.x)
        moving = x.ndim == 3
        if moving and len(frames.t) < limit:
            x = torch.cat([x, x[-1:].expand(limit - len(frames.t), *x.shape[1:])])
        return self._kept(trajectory, TrajectoryBatch(t, x[None] if moving else x[None, None], u))

    def set_fault_detector(self, faults: Callable[[np.ndarray, np.ndarray], np.ndarray] | None) -> None:
        """Set the function that detects faulty values u (T, N, C) at fixed points x (N, d), which are then left out."""
        self.faults, self._cache, self._cached = faults, {}, 0

    def _kept(self, trajectory: int, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Batch without faulty values, which is cached if there is room."""
        if self.faults is not None and batch.x.shape[1] == 1:
            wrong = self.faults(batch.x[0, 0].numpy(), batch.u[0].double().numpy())
            batch = batch.with_values(batch.u.masked_fill(torch.as_tensor(wrong)[None], float("nan")))
        self._cached += batch.u.nbytes
        if self._cached <= _CACHE_BYTES:
            self._cache[trajectory] = batch
        return batch

    def _read_scattered(self, trajectory: int, bins: TimeBins) -> TrajectoryBatch:
        rows = self.file.read(trajectory)
        seen = np.isfinite(rows.u).any(-1)
        t = np.broadcast_to(rows.t[:, None], seen.shape)[seen]
        x, u = rows.x[seen], rows.u[seen]
        if self.fraction < 1.0:
            kept = observed_points(self.seed, trajectory, len(t), self.fraction, self.same_points)
            t, x, u = t[kept], x[kept], u[kept]
        limit = slice(0, self.times.shape[1])
        x, u, delay, _ = bins.gather(t, x, u)
        batch = TrajectoryBatch(
            self.times[trajectory : trajectory + 1], torch.as_tensor(x[None, limit]), torch.as_tensor(u[None, limit]),
            torch.as_tensor(delay[None, limit], dtype=torch.float64),
        )
        return self._kept(trajectory, batch)

    def batch(self, trajectories: Sequence[int] | np.ndarray, normalised: bool = True) -> TrajectoryBatch:
        """Stacked trajectories, normalised or in data units."""
        parts = [self._read(int(i)) for i in trajectories]
        width = max(p.u.shape[2] for p in parts)
        moving = any(p.x.shape[1] > 1 for p in parts)
        u = torch.cat([_padded(p.u, width, float("nan")) for p in parts])
        if self.shared_points:
            x = parts[0].x
        else:
            x = torch.cat(
                [
                    _padded(p.x.expand(1, p.u.shape[1] if moving else 1, *p.x.shape[2:]), width, None)
                    for p in parts
                ]
            )
        if normalised:
            u = self.normalisation.apply(u)
        delay = None
        if self.time_bins is not None:
            delay = torch.cat([_padded(p.delay[..., None], width, 0.0)[..., 0] for p in parts if p.delay is not None])
        return TrajectoryBatch(torch.cat([p.t for p in parts]), x, u, delay)

    def moved(
        self, trajectories: Sequence[int] | np.ndarray, augmentation: Augmentation | None, random: np.random.Generator
    ) -> TrajectoryBatch:
        """Normalised trajectories, each transformed by a random symmetry of the augmentation, if any."""
        if not augmentation:
            return self.batch(trajectories)
        moved = augmentation(self.batch(trajectories, normalised=False), random)
        return moved.with_values(self.normalisation.apply(moved.u))

    def fit_normalisation(self, trajectories: Sequence[int] | np.ndarray) -> Normalisation:
        """Mean and standard deviation of each channel over the given trajectories, and the lower bound 0 of amounts
        (never negative, sometimes near 0, skewed); stored and returned.

        Sets `varies` (C,), whether a channel is not constant (the scale of constant channels is 1), and
        `observed_frames`, the largest number of observed frames of a trajectory.
        """
        channels = len(self.description.channels)
        count, total, square, cube = (torch.zeros(channels, dtype=torch.float64) for _ in range(4))
        least = torch.full((channels,), torch.inf, dtype=torch.float64)
        most = -least
        reference = torch.zeros(channels, dtype=torch.float64)
        for index, i in enumerate(trajectories):
            u = self._read(int(i)).u
            self.observed_frames = max(self.observed_frames, int(torch.isfinite(u).any(-1).any(-1).sum()))
            u = u.reshape(-1, channels).double()
            if index == 0:
                reference = u.nanmean(0).nan_to_num()
            finite = torch.isfinite(u)
            least = torch.minimum(least, u.where(finite, torch.inf).amin(0))
            most = torch.maximum(most, u.where(finite, -torch.inf).amax(0))
            u = (u - reference).where(finite, 0.0)
            cube = cube + u.pow(3).sum(0)
            count, total, square = count + finite.sum(0), total + u.sum(0), square + u.square().sum(0)
        for channel, seen in zip(self.description.channels, count.tolist(), strict=True):
            if not seen:
                raise UserError(
                    f"{self.file.path}: no value of channel {channel!r} is observed in the training frames; give more "
                    "frames or points, or remove the channel"
                )
        mean = total / count
        scale = (square / count - mean.square()).clamp(min=0).sqrt()
        self.varies = scale > 1e-12 * (mean + reference).abs().clamp(min=1e-300)
        scale = torch.where(self.varies, scale, torch.ones_like(scale))
        skew = (cube / count - 3 * mean * square / count + 2 * mean.pow(3)) / scale.pow(3)
        about = self.description
        units = about.units or ("",) * len(about.channels)
        other = [not _DEGREES.search(f"{name} {unit}") for name, unit in zip(about.channels, units, strict=True)]
        amount = (least >= 0) & (least < _NEAR * scale) & (skew > _SKEWED) & self.varies & torch.tensor(other)
        centre = reference + mean
        most = torch.maximum(most - centre, centre - least) / scale
        least = torch.where(amount, 0.0, -torch.inf)
        self.normalisation = Normalisation(centre.float(), scale.float(), least.float(), most.float())
        return self.normalisation


def _padded(values: torch.Tensor, width: int, fill: float | None) -> torch.Tensor:
    """Values padded along the point axis (third) to `width`, with `fill` or by repeating the last point."""
    missing = width - values.shape[2]
    if not missing:
        return values
    shape = (*values.shape[:2], missing, *values.shape[3:])
    tail = values[:, :, -1:].expand(shape) if fill is None else values.new_full(shape, fill)
    return torch.cat([values, tail], 2)


def observed_points(seed: int, trajectory: int, points: int, fraction: float, same: bool = False) -> np.ndarray:
    """Sorted indices of the observed subset of `points` points of one trajectory, at least one.

    It depends on seed, trajectory index and fraction alone (with `same`: on seed and fraction, one subset for all
    trajectories), so that training and evaluation on the same file observe the same points.
    Raises UserError if `fraction` is outside (0, 1].
    """
    if not 0.0 < fraction <= 1.0:
        raise UserError(f"the fraction of observed points is {fraction:g}; give a number above 0 and at most 1")
    _require_seed(seed)
    if points < 1:
        raise UserError(f"there are {points} points to observe; at least one is needed")
    count = min(points, max(1, round(fraction * points)))
    if count == points:
        return np.arange(points)
    random = np.random.default_rng([seed, 0 if same else trajectory])
    return np.sort(random.permutation(points)[:count])


def split_trajectories(count: int, fraction: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (training, validation) of `count` trajectories.

    One contiguous stretch of the file (taken as a ring), at a random place, is held out: trajectories that were cut
    from one run, or share a setting, are adjacent, and would leak into a validation set drawn one by one. Both
    have at least one trajectory if count > 1 and fraction > 0; a single trajectory is used for training.
    Raises UserError if `fraction` is outside [0, 1) or `count` is below 1.
    """
    if count < 1:
        raise UserError(f"there are {count} trajectories to train on; at least one is needed")
    if not 0.0 <= fraction < 1.0:
        raise UserError(f"the validation fraction is {fraction:g}; give a number from 0 to below 1")
    _require_seed(seed)
    held_out = min(count - 1, max(1, round(fraction * count))) if fraction > 0 else 0
    ring = np.roll(np.arange(count), -int(np.random.default_rng([seed, count]).integers(count)))
    return np.sort(ring[held_out:]), np.sort(ring[:held_out])


def choose_split(
    trajectories: int, fraction: float, seed: int, environment: np.ndarray | None = None, in_time: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (training, validation) of trajectories; the latter is empty if validation is by later frames.

    That is the case for a single trajectory and, with `in_time`, if the held-out `fraction` is less than one
    trajectory: a few trajectories do not span the states of another one, however good the dynamics.

    With the system number `environment` (S,) of each trajectory, every system with several trajectories contributes its
    share to validation and keeps at least one.
    """
    if trajectories == 1 or (in_time and fraction * trajectories < 1):
        return np.arange(trajectories), np.array([], dtype=int)
    if environment is None or len(np.unique(environment)) == trajectories:
        return split_trajectories(trajectories, fraction, seed)
    training, validation = [], []
    for number in np.unique(environment):
        members = np.flatnonzero(environment == number)
        if len(members) == 1:
            training.append(members)
            continue
        kept, held = split_trajectories(len(members), fraction, seed + int(number))
        training.append(members[kept])
        validation.append(members[held])
    if not validation:
        return split_trajectories(trajectories, fraction, seed)
    return np.sort(np.concatenate(training)), np.sort(np.concatenate(validation))


def affordable(
    source: TrajectorySource, train: np.ndarray, validation: np.ndarray, groups: np.ndarray | None, minutes: float
) -> tuple[TrajectorySource, np.ndarray, np.ndarray]:
    """Source and trajectories reduced so that closed-form fits are possible in the time budget and in memory: first to
    fewer trajectories, then to fewer points. `groups` (S,): systems, each of which keeps some trajectories."""
    most = min(_MOST_VALUES, max(_FEWEST_VALUES, _OF_TIME * 60 * minutes / _SECONDS_OF_VALUE))
    most = most / _MOVED if source.moves else most
    count = len(train) + len(validation)
    each = source.times.shape[1] * source.points * source.fraction * len(source.description.channels)
    if each * count <= most:
        return source, train, validation
    systems = 1 if groups is None else len(np.unique(groups))
    kept = min(count, max(int(most / each), _FEWEST_TRAJECTORIES, 2 * systems))
    if kept < count:
        train, validation = (share_of_each_group(rows, kept / count, groups) for rows in (train, validation))
    kept = len(train) + len(validation)
    points = max(most / (kept * each), _FEWEST_POINTS / source.points) * source.fraction
    if points < source.fraction and source.time_bins is None and source.file.layout != "scattered":
        lattice = coarser(source.file.read(0, slice(0, 1)).x, points) if source.shared_points and (
            source.fraction == 1.0 and points > _MILDLY) else None
        points = points if lattice is None else len(lattice) / source.points
        source = TrajectorySource(source.file, source.frames, points, source.same_points or source.fraction == 1.0,
                                  source.seed)
        source.lattice = lattice
    observed = round(source.points * source.fraction)
    warnings.warn(f"{kept} of {count} trajectories at {observed} of {source.points} points are trained on, which fit "
                  f"into memory and into training.minutes={minutes:g}", stacklevel=2)
    return source, train, validation


def coarser(x: np.ndarray, share: float) -> np.ndarray | None:
    """Indices of a coarser grid with at most a share of the points (N, d) of a grid; None if they form no grid, or it
    cannot be halved further. On grids, harmonics cost far less than on as many random points."""
    levels = [np.unique(line, return_inverse=True) for line in x.T]
    sizes, steps = [len(values) for values, _ in levels], [1] * x.shape[1]
    if np.prod(sizes) != len(x) or len(np.unique(np.stack([at for _, at in levels]), axis=1).T) < len(x):
        return None
    while np.prod([size // step for size, step in zip(sizes, steps, strict=True)]) > share * len(x):
        longest = max(range(len(sizes)), key=lambda axis: sizes[axis] / steps[axis])
        steps[longest] *= 2
        if sizes[longest] % steps[longest]:  # a period would end with a longer step
            return None
    kept = np.all([at % step == 0 for (_, at), step in zip(levels, steps, strict=True)], axis=0)
    return np.flatnonzero(kept)


def share_of_each_group(rows: np.ndarray, share: float, groups: np.ndarray | None) -> np.ndarray:
    """Evenly spaced share of the indices `rows`, at least one of each group; groups (S,): group of each index."""
    number = np.zeros(len(rows), dtype=int) if groups is None else groups[rows]
    parts = [rows[number == value] for value in np.unique(number)]
    return np.sort(np.concatenate([
        part[np.linspace(0, len(part) - 1, max(1, round(share * len(part)))).astype(int)] for part in parts
    ])) if len(rows) else rows


def _require_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"the seed is {seed}; give 0 or a positive whole number")
