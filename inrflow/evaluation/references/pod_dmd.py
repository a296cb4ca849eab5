"""POD + DMD, the usual reduced-order forecast on shared points and uniform time steps.

Proper orthogonal decomposition of the channels, each normalised, and a least-squares affine map of one time step on the
leading coefficients (dynamic mode decomposition on projected snapshots, Schmid 2010). Rank and ridge are chosen by
free-running forecasts of data that were not fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.dynamics.fitting.folds import frames_left_out
from inrflow.encoding.posterior import GaussianPrior
from inrflow.evaluation.references.base import Reference
from inrflow.evaluation.references.training_data import (
    coefficients,
    leading_modes,
    march,
    regular_step,
    split,
    stacked,
    step_pairs,
)

RANKS = (1, 2, 5, 10, 20, 30, 50, 70, 100, 150, 200, 300)
RIDGES = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
_OF_MANY = 250  # frames of which one may be left out together with others
_FEW = 4  # trajectories below which single frames are held out in place of trajectories
_SMALLEST_NOISE = 1e-8  # least residual variance of the modes, in normalised units


@dataclass
class PodDmd(Reference):
    """A fitted POD + DMD forecast at N points.

    Attributes:
        step: time step, in units of t.
        mean, scale: (C,) normalisation of the channels.
        modes: (N C, r).
        step_map: (1 + r, r): z_next = [1, z] @ step_map.
        prior: of the coefficients, and residual variance of the modes.
        ridge: chosen, relative to the mean square of the regressors."""

    step: float
    mean: Tensor
    scale: Tensor
    modes: Tensor
    step_map: Tensor
    prior: GaussianPrior
    ridge: float

    name = "pod_dmd"
    title = "POD + DMD"
    on_shared_points = True

    @classmethod
    def fit(
        cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
    ) -> PodDmd | None:
        """The fit; None where times are not multiples of one step, or fewer than two complete frames follow one
        another."""
        step = regular_step(stacked(train, validation).t)
        return None if step is None else fit_pod_dmd(*split(train, validation), step)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> PodDmd:
        """The inverse of `state`."""
        return cls(**{**state, "prior": GaussianPrior(**state["prior"])})

    @property
    def rank(self) -> int:
        """The number of modes r."""
        return self.modes.shape[1]

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor | None:
        """Observed frames as their own projection, gaps filled; then iterations of the map.

        None where times are not whole steps apart.
        """
        if t.shape[1] > 1 and regular_step(t, self.step) is None:
            return None
        normalised = (observed.double() - self.mean) / self.scale
        offset = torch.zeros(observed.shape[2:], dtype=torch.float64)
        start, seen = coefficients(normalised, offset, self.modes, self.prior)
        path = march(t, self.step, self.prior.mean, start, seen, partial(_advance, self.step_map))
        return (path @ self.modes.T).reshape(*t.shape, *observed.shape[2:]) * self.scale + self.mean


def _advance(step_map: Tensor, z: Tensor, steps: Tensor) -> Tensor:
    """Coefficients (S, r) after numbers of steps (S,), by repeated squaring of the affine map."""
    counts = torch.round(steps).long()
    if bool((counts == 1).all()):
        return step_map[0] + z @ step_map[1:]
    for bit in range(int(counts.max()).bit_length()):
        if bit:
            step_map = torch.cat([step_map[:1] + step_map[:1] @ step_map[1:], step_map[1:] @ step_map[1:]])
        z = torch.where((counts >> bit & 1).bool()[:, None], step_map[0] + z @ step_map[1:], z)
    return z


def fit_pod_dmd(training: TrajectoryBatch, validation: TrajectoryBatch | None, step: float) -> PodDmd | None:
    """Fit to trajectories on shared points, in data units, whose times are multiples of `step` apart.

    Rank and ridge have the least error in free-running forecasts of the validation trajectories from their first
    frame. Without these, a quarter of the trajectories is held out; of fewer than four trajectories, single frames. The
    final fit is to all data. None where fewer than two complete frames follow one another.
    """
    if validation is None and len(training) >= _FEW:
        kept = len(training) - len(training) // _FEW
        folds = [([training.select(slice(0, kept))], [training.select(slice(kept, None))])]
    elif validation is None:
        folds = _frames_left_out(training)
    else:
        folds = [([training], [validation])]
    everything = [training] if validation is None else [training, validation]
    pairs = [int(step_pairs(batch.t, _complete(batch), step).sum()) for batch in everything]
    if sum(pairs) < 2:
        return None
    fits = [_Projection(fitted, step) for fitted, _ in folds
            if any(bool(step_pairs(batch.t, _complete(batch), step).any()) for batch in fitted)]
    largest = min((fit.largest_rank for fit in fits), default=1)
    cells = [(rank, ridge) for rank in (*(rank for rank in RANKS if rank < largest), largest) for ridge in RIDGES]
    errors = sum((fit.rollout_errors(test, cells) for fit, (_, tests) in zip(fits, folds, strict=False)
                  for test in tests), torch.zeros(len(cells), dtype=torch.float64))
    rank, ridge = cells[int(errors.argmin())]
    return _Projection(everything, step).model(rank, ridge)


def _frames_left_out(batch: TrajectoryBatch) -> list[tuple[list[TrajectoryBatch], list[TrajectoryBatch]]]:
    """Folds of trajectories without single frames, each with the frames around those left out: one, or of long
    trajectories, whose modes take long, one of so many frames, which change the fit as little."""
    frames = batch.t.shape[1]
    windows = frames_left_out(frames)
    count, folds = -(-len(windows) // max(1, frames // _OF_MANY)), []
    for first in range(count):
        chosen = windows[first::count]
        bounds = [0, *(bound for out, _ in chosen for bound in (out, out + 1)), frames]
        between = zip(bounds[::2], bounds[1::2], strict=True)
        fitted = [batch.frames(slice(begin, end)) for begin, end in between if begin < end]
        folds.append((fitted, [batch.frames(slice(out - 1, end)) for out, end in chosen]))
    return folds


def _complete(batch: TrajectoryBatch) -> Tensor:
    """Frames without a missing value, (S, T) bool."""
    return torch.isfinite(batch.u).flatten(2).all(-1) & torch.isfinite(batch.t)


class _Projection:
    """Modes of complete frames, their coefficients, and the normal equations of the map of every rank."""

    def __init__(self, batches: Sequence[TrajectoryBatch], step: float) -> None:
        complete = [_complete(batch) for batch in batches]
        rows = torch.cat([batch.u[frames].double() for batch, frames in zip(batches, complete, strict=True)])
        self.shape = rows.shape[1:]
        flat = rows.flatten(0, 1)
        self.step, self.mean = step, flat.mean(0)
        deviation = flat.std(0, unbiased=False)
        self.scale = torch.where(deviation > 0, deviation, 1.0)
        rows = rows.sub_(self.mean).div_(self.scale).flatten(1)
        self.modes = leading_modes(rows, max(RANKS))
        self.rows, self.codes = rows, rows @ self.modes
        before, after, start = [], [], 0
        for batch, frames in zip(batches, complete, strict=True):
            stop = start + int(frames.sum())
            z = rows.new_zeros(*frames.shape, self.modes.shape[1])
            z[frames] = self.codes[start:stop]
            pairs = step_pairs(batch.t, frames, step)
            before.append(z[:, :-1][pairs])
            after.append(z[:, 1:][pairs])
            start = stop
        regressors = torch.cat(before)
        self.largest_rank = max(1, min(self.modes.shape[1], len(regressors) - 1))
        regressors = torch.cat([torch.ones_like(regressors[:, :1]), regressors], 1)
        self.gram, self.cross = regressors.T @ regressors, regressors.T @ torch.cat(after)

    def step_map(self, rank: int, ridge: float) -> Tensor:
        """Least squares with a ridge relative to the mean square of the regressors, (1 + rank, rank)."""
        gram = self.gram[:rank + 1, :rank + 1].clone()
        gram.diagonal().add_(ridge * float(gram.diagonal().mean()))
        return torch.linalg.solve(gram, self.cross[:rank + 1, :rank]).contiguous()

    def rollout_errors(self, test: TrajectoryBatch, cells: list[tuple[int, float]]) -> Tensor:
        """Summed squared errors (cells,) of forecasts from the first complete frame of every trajectory.

        In normalised data units, from coefficients alone: the residual of the modes and the error in their span are
        orthogonal. Infinite where a forecast diverges.
        """
        complete = _complete(test)
        frame = torch.arange(test.t.shape[1])
        first = torch.where(complete, frame, len(frame)).amin(1, keepdim=True)
        rows = ((test.u.double() - self.mean) / self.scale).flatten(2).nan_to_num(0.0)
        truth, size = rows @ self.modes, rows.square().sum(-1)
        scored, start = complete & (frame > first), frame <= first
        errors = []
        for rank, ridge in cells:
            z = truth[..., :rank]
            path = march(test.t, self.step, z.new_zeros(rank), z, start,
                         partial(_advance, self.step_map(rank, ridge)))
            error = size - z.square().sum(-1) + (path - z).square().sum(-1)
            errors.append(torch.where(scored, error, 0.0).sum())
        return torch.stack(errors).nan_to_num(torch.inf, torch.inf)

    def model(self, rank: int, ridge: float) -> PodDmd:
        """The forecast of one rank and ridge."""
        rank = min(rank, self.largest_rank)
        modes, z = self.modes[:, :rank].contiguous(), self.codes[:, :rank]
        missed = (self.rows - z @ modes.T).square().mean(0).reshape(self.shape).mean(0)
        centred = z - z.mean(0)
        prior = GaussianPrior(z.mean(0), centred.T @ centred / len(z), missed.clamp(min=_SMALLEST_NOISE))
        return PodDmd(self.step, self.mean, self.scale, modes, self.step_map(rank, ridge), prior, ridge)
