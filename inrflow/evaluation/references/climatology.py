"""Climatology: what is usual at each phase of a declared period, and forecasts of the anomalies that start from it.

The references of seasonal forecasting: the mean seasonal cycle, damped persistence of the leading anomaly modes (an
AR(1) for each), and the linear inverse model of the same modes (Penland and Sardeshmukh 1995), which couples them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.encoding.posterior import GaussianPrior
from inrflow.evaluation.references.modes import coefficients, leading_modes, march, regular_step, step_pairs

_HARMONICS = 2
_MODES = 2
_SMALLEST_NOISE = 1e-8  # variance, normalised, that modes are taken to miss at least
_ON_PHASE = 0.15  # times closer than this fraction of a bin to its phase belong to it


@dataclass
class AnomalyModes:
    """Regressions of the leading anomaly modes on themselves one step before.

    Attributes:
        step: time step, in units of t.
        scale: (C,) standard deviation of the anomalies of each channel.
        modes: (N C, r).
        persistence: (r,) lag-one regression coefficient of each mode.
        propagator: (r, r) regression of all modes on all, z_next = z @ propagator.
        prior: of the coefficients, and the variance that the modes leave.
    """

    step: float
    scale: Tensor
    modes: Tensor
    persistence: Tensor
    propagator: Tensor
    prior: GaussianPrior

    def forecast(self, t: Tensor, anomalies: Tensor) -> dict[str, Tensor]:
        """Anomalies to come, (S, T, N C) in units of `scale`, by damped persistence (`ar1`) and coupled (`lim`)."""
        start, seen = coefficients(anomalies / self.scale, torch.zeros_like(anomalies[0, 0]), self.modes, self.prior)
        eigenvalues, vectors = torch.linalg.eig(self.propagator)
        inverse = torch.linalg.pinv(vectors)

        def damped(z: Tensor, steps: Tensor) -> Tensor:
            return z * self.persistence ** steps[:, None]

        def coupled(z: Tensor, steps: Tensor) -> Tensor:
            return ((z.to(vectors) @ vectors * eigenvalues ** steps[:, None]) @ inverse).real

        return {name: march(t, self.step, self.prior.mean, start, seen, advance) @ self.modes.T
                for name, advance in (("ar1", damped), ("lim", coupled))}


@dataclass
class Climatology:
    """The mean field for each phase of a period, at N points that all trajectories share.

    Attributes:
        period: in units of t.
        bins: number of phases with a mean of their own; 0: harmonic regression.
        offset: phase of the first bin, in bins.
        fields: (bins, N, C) means, or (1 + 2 harmonics, N, C) coefficients of 1, cos, sin, cos 2, sin 2 ...
        anomalies: forecasts of what differs from it; None where times are irregular or there are too few.
    """

    period: float
    bins: int
    offset: float
    fields: Tensor
    anomalies: AnomalyModes | None = None

    def mean(self, t: Tensor) -> Tensor:
        """The usual field at times t (...,): (..., N, C). NaN times give NaN."""
        if self.bins == 0:
            return torch.einsum("...k,knc->...nc", _harmonics(t / self.period, len(self.fields)), self.fields)
        position = t / self.period * self.bins - self.offset
        nearest = torch.round(position)
        position = torch.where((position - nearest).abs() <= _ON_PHASE, nearest, position)
        low = torch.floor(position)
        weight = (position - low)[..., None, None]
        low = low.nan_to_num(0.0).long() % self.bins
        return (1 - weight) * self.fields[low] + weight * self.fields[(low + 1) % self.bins]

    def forecast(self, t: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """`climatology`, and where times allow `climatology_ar1` and `climatology_lim`: each (S, T, N, C).

        t (S, T); observed (S, n, N, C), values of the first n frames, NaN where not observed.
        """
        usual = self.mean(t)
        forecasts = {"climatology": usual}
        if self.anomalies is not None:
            departures = self.anomalies.forecast(t, observed - usual[:, :observed.shape[1]])
            forecasts |= {f"climatology_{name}": usual + departure.reshape(usual.shape) * self.anomalies.scale
                          for name, departure in departures.items()}
        return forecasts


def _harmonics(phase: Tensor, count: int) -> Tensor:
    angles = 2 * math.pi * phase
    columns = [torch.ones_like(phase)]
    for harmonic in range(1, (count - 1) // 2 + 1):
        columns += [torch.cos(harmonic * angles), torch.sin(harmonic * angles)]
    return torch.stack(columns, -1)


def fit_climatology(batch: TrajectoryBatch, period: float, fallback: Tensor) -> Climatology | None:
    """Climatology of trajectories that share their points, in data units; None where they span less than one period.

    Times that fall on few phases of the period (months of a year) get a mean for each phase, others a regression on
    two harmonics. fallback (N, C): the field where a point lacks observations.
    """
    t, u = batch.t, batch.u.double()
    valid = torch.isfinite(t)
    times, values = t[valid], u[valid]
    step = regular_step(t)
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
    result = Climatology(period, bins, offset, fields)
    if step is not None:
        result.anomalies = _fit_anomalies(result, step, t, u)
    return result


def _phases(phase: Tensor, bins: int) -> tuple[int, float, Tensor]:
    """Number of bins (0: the phases do not fall into bins, all taken), their offset, and the bin of each time."""
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
    """Least squares on harmonics at each point, its missing values left out; (1 + 2 harmonics, N, C)."""
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


def _fit_anomalies(climatology: Climatology, step: float, t: Tensor, u: Tensor) -> AnomalyModes | None:
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
    before, after = z[:, :-1][pairs], z[:, 1:][pairs]
    persistence = ((before * after).sum(0) / before.square().sum(0)).clamp(0.0, 1.0)
    propagator = torch.linalg.lstsq(before, after, driver="gelsd").solution.contiguous()
    growth = float(torch.linalg.eigvals(propagator).abs().max())
    left = (frames[usable] - z[usable] @ modes.T).square().mean(0).reshape(u.shape[2:]).mean(0)
    variance = z[usable].square().mean(0)
    prior = GaussianPrior(torch.zeros_like(variance), torch.diag(variance), left.clamp(min=_SMALLEST_NOISE))
    return AnomalyModes(step, scale, modes, persistence, propagator / max(1.0, growth), prior)
