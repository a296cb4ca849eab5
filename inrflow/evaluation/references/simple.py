"""References without dynamics: persistence (the last observed frame), the mean training field, climatology (the mean
field at each phase of a period, declared or of the calendar) and damped persistence of the anomalies around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.encoding.posterior import GaussianPrior
from inrflow.evaluation.references.base import Reference
from inrflow.evaluation.references.training_data import (
    channel_mean,
    coefficients,
    cycles_of,
    filled,
    leading_modes,
    march,
    mean_field,
    regular_step,
    same_points,
    shared_points,
    stacked,
    step_pairs,
)

if TYPE_CHECKING:
    from typing_extensions import Self

_HARMONICS = 2
_MODES = 2
_SMALLEST_NOISE = 1e-8  # least residual variance of the modes, in normalised units
_ON_PHASE = 0.15  # times closer than this fraction of a bin to its phase belong to it


@dataclass
class Persistence(Reference):
    """Persistence: the last observed frame; points without an observation take the value of the nearest observed one.

    Attributes:
        channel_mean: (C,) mean of each channel over the training data, for channels that are not observed at all.
        period: (d,) of the coordinates, 0 where not periodic, or None.
    """

    channel_mean: Tensor
    period: Tensor | None = None

    name = "persistence"
    title = "persistence"

    @classmethod
    def fit(
        cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
    ) -> Persistence:
        """The fit; applies to all data."""
        period = None if description.period is None else torch.tensor(description.period, dtype=torch.float64)
        return cls(channel_mean(train, validation), period)

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor:
        """The last observed frame at all times after it; each observed frame is its own forecast."""
        n, frames = observed.shape[1], t.shape[1]
        some = torch.isfinite(observed).flatten(2).any(-1)
        kept = observed.new_empty(len(observed), frames, *observed.shape[2:])
        for s, known in enumerate(some):
            places = x[s if len(x) > 1 else 0].double()
            seen = torch.nonzero(known)[:, 0]
            near: dict[bytes, Tensor] = {}
            for frame in range(frames):
                before = seen[seen <= frame]
                source = int(before[-1] if len(before) else seen[0]) if len(seen) else 0
                if len(places) == 1 and frame > 0 and (frame >= n or not bool(known[frame])):
                    kept[s, frame] = kept[s, frame - 1]
                    continue
                targets = None if len(places) == 1 or source == frame else places[frame]
                origin = places[0] if len(places) == 1 else places[source]
                near = near if len(places) == 1 else {}
                kept[s, frame] = filled(observed[s, source], origin, targets, self.channel_mean, self.period, near)
        return kept


@dataclass
class TrainingMean(Reference):
    """The mean training field, at points that all training trajectories share, else the channel means.

    Attributes:
        channel_mean: (C,) mean of each channel over the training data.
        points: (N, d) shared by all training trajectories, or None.
        field: (N, C) mean training field at these points, or None.
    """

    channel_mean: Tensor
    points: Tensor | None = None
    field: Tensor | None = None

    name = "training_mean"
    title = "training mean"

    @classmethod
    def fit(
        cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
    ) -> TrainingMean:
        """The fit; applies to all data."""
        mean, points = channel_mean(train, validation), shared_points(train, validation)
        return cls(mean, points, None if points is None else mean_field(train, validation))

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor:
        """The mean at all times."""
        on_points = self.points is not None and x.shape[-2] == len(self.points) and same_points(x, self.points)
        mean = self.field if on_points and self.field is not None else self.channel_mean
        return mean.to(observed).expand(*t.shape, *observed.shape[2:])


@dataclass
class Climatology(Reference):
    """The mean field for each phase of the declared period, at N points that all trajectories share.

    Attributes:
        period: in units of t.
        bins: number of phases with a separate mean; 0: harmonic regression.
        offset: phase of the first bin, in bins.
        fields: (bins, N, C) means, or (1 + 2 harmonics, N, C) coefficients of 1, cos, sin, cos 2, sin 2 ...
    """

    period: float
    bins: int
    offset: float
    fields: Tensor

    name = "climatology"
    title = "climatology"
    on_shared_points = True

    @classmethod
    def fit(
        cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
    ) -> Climatology | None:
        """The fit, for the longest cycle that is declared or follows from the calendar; None where the data do not span
        one."""
        whole = stacked(train, validation)
        period = description.time_period
        if period is None:
            period = next((one for one, _ in cycles_of(description, np.sort(whole.t[torch.isfinite(whole.t)]))), None)
        return None if period is None else fit_climatology(whole, period, mean_field(train, validation))

    def mean(self, t: Tensor) -> Tensor:
        """The mean field of the phases of times t (...,): (..., N, C). NaN times give NaN."""
        if self.bins == 0:
            return torch.einsum("...k,knc->...nc", _harmonics(t / self.period, len(self.fields)), self.fields)
        position = t / self.period * self.bins - self.offset
        nearest = torch.round(position)
        position = torch.where((position - nearest).abs() <= _ON_PHASE, nearest, position)
        low = torch.floor(position)
        weight = (position - low)[..., None, None]
        low = low.nan_to_num(0.0).long() % self.bins
        return (1 - weight) * self.fields[low] + weight * self.fields[(low + 1) % self.bins]

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor:
        """The mean field at the phase of each time."""
        return self.mean(t)


@dataclass
class DampedAnomalies(Reference):
    """Climatology with damped persistence, an AR(1) process, of each of the leading modes of the anomalies around it.

    Attributes:
        climatology: the mean field of each phase.
        step: time step, in units of t.
        scale: (C,) standard deviation of the anomalies of each channel.
        modes: (N C, r).
        propagator: (r,) lag-one regression coefficients, from 0 to 1.
        prior: of the coefficients, and residual variance of the modes.
    """

    climatology: Climatology
    step: float
    scale: Tensor
    modes: Tensor
    propagator: Tensor
    prior: GaussianPrior

    name = "climatology_ar1"
    title = "climatology + AR(1)"
    on_shared_points = True

    @classmethod
    def fit(
        cls, train: TrajectoryBatch, validation: TrajectoryBatch | None, description: Description
    ) -> Self | None:
        """The fit; None where there is no climatology, times are irregular, or there are too few of them."""
        climatology = Climatology.fit(train, validation, description)
        together = stacked(train, validation)
        step = regular_step(together.t)
        if climatology is None or step is None:
            return None
        t, u = together.t, together.u.double()
        anomalies = u - climatology.mean(t)
        deviation = anomalies.square().nanmean((0, 1, 2)).sqrt()
        scale = torch.where(deviation > 0, deviation, 1.0)
        frames = (anomalies / scale).nan_to_num(0.0).flatten(2)
        usable = torch.isfinite(u).flatten(2).any(-1) & torch.isfinite(t)
        pairs = step_pairs(t, usable, step)
        if not bool((deviation > 0).any()) or int(pairs.sum()) < 2 * _MODES:
            return None
        modes = leading_modes(frames[usable], _MODES)
        z = frames @ modes
        left = (frames[usable] - z[usable] @ modes.T).square().mean(0).reshape(u.shape[2:]).mean(0)
        variance = z[usable].square().mean(0)
        prior = GaussianPrior(torch.zeros_like(variance), torch.diag(variance), left.clamp(min=_SMALLEST_NOISE))
        before, after = z[:, :-1][pairs], z[:, 1:][pairs]
        damping = ((before * after).sum(0) / before.square().sum(0)).clamp(0.0, 1.0)
        return cls(climatology, step, scale, modes, damping, prior)

    def advance(self, z: Tensor, steps: Tensor) -> Tensor:
        """Coefficients (S, r) after numbers of steps (S,)."""
        return z * self.propagator ** steps[:, None]

    def forecast(self, t: Tensor, x: Tensor, observed: Tensor) -> Tensor:
        """The mean field and the forecast anomaly."""
        usual = self.climatology.mean(t)
        anomalies = (observed.double() - usual[:, : observed.shape[1]]) / self.scale
        start, seen = coefficients(anomalies, torch.zeros_like(anomalies[0, 0]), self.modes, self.prior)
        path = march(t, self.step, self.prior.mean, start, seen, self.advance)
        return usual + (path @ self.modes.T).reshape(usual.shape) * self.scale

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        nested = {"climatology": Climatology(**state["climatology"]), "prior": GaussianPrior(**state["prior"])}
        return cls(**{**state, **nested})


def _harmonics(phase: Tensor, count: int) -> Tensor:
    angles = 2 * math.pi * phase
    columns = [torch.ones_like(phase)]
    for harmonic in range(1, (count - 1) // 2 + 1):
        columns += [torch.cos(harmonic * angles), torch.sin(harmonic * angles)]
    return torch.stack(columns, -1)


def fit_climatology(batch: TrajectoryBatch, period: float, fallback: Tensor) -> Climatology | None:
    """Fit a climatology to trajectories that share their points; None where they span less than one period.

    Times that fall on few phases of the period (months of a year) get a mean for each phase, others a regression on
    two harmonics.

    Args:
        batch: values in data units.
        period: in units of t.
        fallback: (N, C), the field where a point lacks observations.
    """
    t, u = batch.t, batch.u.double()
    valid = torch.isfinite(t)
    times, values = t[valid], u[valid]
    spacing = torch.diff(t, dim=1)
    spacing = spacing[torch.isfinite(spacing)]
    if not len(spacing) or float(times.max() - times.min() + 1.5 * spacing.median()) < period:
        return None
    bins, offset, members = _phases(times / period, max(1, round(period / float(spacing.median()))))
    if bins:
        known = torch.isfinite(values)
        shape = (bins, *values.shape[1:])
        count = torch.zeros(shape, dtype=values.dtype).index_add_(0, members, known.to(values.dtype))
        total = torch.zeros(shape, dtype=values.dtype).index_add_(0, members, values.nan_to_num(0.0))
        fields = torch.where(count > 0, total / count.clamp(min=1), fallback)
    else:
        fields = _regression(times / period, values, fallback)
    return Climatology(period, bins, offset, fields)


def _phases(phase: Tensor, bins: int) -> tuple[int, float, Tensor]:
    """Number of bins (0: phases do not fall into bins that are all occupied), their offset, and the bin of times."""
    angle = 2 * math.pi * (phase * bins)
    offset = math.atan2(float(torch.sin(angle).mean()), float(torch.cos(angle).mean())) / (2 * math.pi)
    position = phase * bins - offset
    members = torch.round(position)
    on_phase = bool(((position - members).abs() <= _ON_PHASE).all())
    members = members.long() % bins
    if bins < 2 or not on_phase or len(members.unique()) < bins:
        return 0, 0.0, members
    return bins, offset, members


def _regression(phase: Tensor, values: Tensor, fallback: Tensor) -> Tensor:
    """Least squares on harmonics at each point, without its missing values; (1 + 2 harmonics, N, C)."""
    harmonics = max(0, min(_HARMONICS, (len(phase.unique()) - 1) // 2))
    design = _harmonics(phase, 1 + 2 * harmonics)
    known = torch.isfinite(values).to(values.dtype)
    residual = (values - fallback).nan_to_num(0.0)
    normal = torch.einsum("fk,fl,fnc->nckl", design, design, known)
    normal += 1e-9 * len(phase) * torch.eye(design.shape[1], dtype=values.dtype)
    solved = torch.linalg.solve(normal, torch.einsum("fk,fnc->nck", design, residual))
    fields = solved.permute(2, 0, 1).contiguous()
    fields[0] += fallback
    return fields
