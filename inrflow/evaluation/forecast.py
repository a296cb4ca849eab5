"""Forecasts at the frames of trajectories: values, and the standard deviation of observations around them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.encoding.residual.field import Conditioned
from inrflow.model.ensemble import deviations, spread_of
from inrflow.model.state_path import StatePath, filled
from inrflow.model.state_prior import StateEstimate, StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.team import team

_JITTER = 1e-12
_SAME = 1e-9  # internal time
_NOTHING = 1e-25  # relative to the largest entry of a root
_MANY = 600  # codes from which on those of different channels are separated
_EVERY, _MOST_SKIPPED = 32, 16  # frames after the observed ones for one more that is skipped; most in a row
_NUMBERS = 1 << 22  # in covariances held at once, where trajectories have their own
_VALUES, _DIFFERENT, _GROUPS = 100_000, 5, 100  # errors kept; trajectories for a standard error; and for quantiles


@dataclass
class Forecast:
    """A forecast in normalised units.

    Attributes:
        mean: (S, T, N, C).
        std: (S, T, N, C); None if not requested, or the decoder is not affine in the code.
        lead: (S, T) internal time since the last observed frame, 0 up to it.
        rollout_seconds, decode_seconds: time spent."""

    mean: Tensor
    std: Tensor | None
    lead: Tensor
    rollout_seconds: float
    decode_seconds: float


def forecast(surrogate: Surrogate, estimate: StateEstimate, batch: TrajectoryBatch, with_std: bool = True) -> Forecast:
    """Forecast all frames and points of a batch (data units) from the estimated states of its first frames.

    Values with a delay are forecast at their own times, with the standard deviation of their frame. Forecasts that
    diverge are not finite. Trajectories are divided among the processes of a team, except for ensembles, whose samples
    depend on the whole batch."""
    count = min(team.size, len(batch.u)) if estimate.members is None else 1
    bare = replace(estimate, residual=None)
    if count < 2:
        result = _forecast(surrogate, with_std, (bare, batch))
    else:
        rows = [slice(*pair) for pair in pairwise(k * len(batch.u) // count for k in range(count + 1))]
        given = ((bare.select(r), batch.select(r)) for r in rows)
        parts = list(team.map(partial(_forecast, surrogate, with_std), given))
        stds = [part.std for part in parts if part.std is not None]
        result = Forecast(torch.cat([part.mean for part in parts]), torch.cat(stds) if stds else None,
                          torch.cat([part.lead for part in parts]), max(part.rollout_seconds for part in parts),
                          max(part.decode_seconds for part in parts))
    if estimate.residual is not None:
        t = surrogate.scale.internal(batch.t[:, :, None] + (0.0 if batch.delay is None else batch.delay))
        own = _with_residual(estimate.residual, result.mean, result.std, t.expand(result.mean.shape[:3]), batch.x)
        result = replace(result, mean=own[0], std=own[1])
    return result


def _forecast(surrogate: Surrogate, with_std: bool, given: tuple[StateEstimate, TrajectoryBatch]) -> Forecast:
    """The forecast of the trajectories of an estimate and a batch, without the residual field."""
    estimate, batch = given
    size, decoder = surrogate.code_size, surrogate.decoder
    dtype = next(decoder.parameters()).dtype
    began = time.perf_counter()
    path = StatePath(surrogate.dynamics, estimate)
    inner = surrogate.scale.internal(batch.t)
    states = path.mean(inner, check=False)
    order = own = None
    if batch.delay is not None:
        times = surrogate.scale.internal(batch.t[:, :, None] + batch.delay)
        times = torch.where(torch.isfinite(batch.u).any(-1), times, torch.nan).flatten(1)
        times, order = times.sort(1)
        own = path.mean(times, check=False)[..., :size].to(dtype)
    rollout = time.perf_counter() - began
    began = time.perf_counter()
    with torch.no_grad():
        x = batch.x.to(dtype)
        if own is None or order is None:
            mean = decoder(x, states[..., :size].to(dtype))
        else:
            every = x.expand(*batch.u.shape[:3], x.shape[-1]).flatten(1, 2)
            rows = torch.arange(len(batch.u))[:, None]
            mean = torch.empty(*order.shape, batch.u.shape[-1], dtype=dtype)
            mean[rows, order] = decoder(every[rows, order][:, :, None], own)[:, :, 0]
            mean = mean.unflatten(1, batch.u.shape[1:3])
        decode = time.perf_counter() - began
        std = predicted_std(surrogate, estimate, states, inner, x) if with_std and decoder.affine else None
    return Forecast(mean, std, (inner - estimate.last[:, None]).clamp(min=0), rollout, decode)


def _with_residual(
    residual: Sequence[Conditioned | None], mean: Tensor, std: Tensor | None, t: Tensor, x: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Mean and standard deviation (S, T, N, C) with the residual field, at internal times t (S, T, N)."""
    mean, std = mean.double().clone(), None if std is None else std.clone()
    for s, conditioned in enumerate(residual):
        known = torch.isfinite(t[s])
        points = x[s if len(x) > 1 else 0].expand(*t.shape[1:], x.shape[-1])[known]
        if conditioned is not None:
            own = conditioned.combined(mean[s][known], None if std is None else std[s][known], t[s][known], points)
            mean[s][known] = own[0]
            if std is not None and own[1] is not None:
                std[s][known] = own[1]
    return mean, std


def predicted_std(surrogate: Surrogate, estimate: StateEstimate, states: Tensor, inner: Tensor, x: Tensor) -> Tensor:
    """Standard deviation (S, T, N, C), in normalised units, of the field around the values of an affine decoder.

    Args:
        states: (S, T, n).
        inner: (S, T) internal times of the states; NaN gives NaN.
        x: (S or 1, T or 1, N, d).
    """
    result = _by_ensemble(surrogate, estimate, inner, x) if estimate.members is not None else (
        _by_covariance(surrogate, estimate, states, inner, x))
    result = result + surrogate.unresolved(states, estimate)[:, :, None]
    result = result.masked_fill(torch.isnan(inner)[..., None, None], float("nan"))
    widening = surrogate.widening(estimate)[:, None, None, None]
    return surrogate.prior.std(result, x, inner[..., None], estimate) * widening


def _by_ensemble(surrogate: Surrogate, estimate: StateEstimate, inner: Tensor, x: Tensor) -> Tensor:
    """Variances (S, T, N, C) of decoded values, from the members of an ensemble."""
    away = deviations(surrogate.dynamics, estimate, filled(inner))
    parts = []
    for k, each in enumerate(away):
        points = x[:, k if x.shape[1] > 1 else 0]
        parts.append(spread_of(surrogate.decoder, points, each[..., : surrogate.code_size]))
    return torch.stack(parts, 1)


def _by_covariance(surrogate: Surrogate, estimate: StateEstimate, states: Tensor, inner: Tensor, x: Tensor) -> Tensor:
    """Variances (S, T, N, C) of decoded values, from covariances of the states; of long forecasts by laws at some
    frames, and linear in time between these."""
    size, knots = surrogate.code_size, estimate.t.shape[1]
    frames = _some_frames(inner.shape[1], knots) if surrogate.dynamics.integrator.method == "etd" else [
        *range(inner.shape[1])]
    with torch.no_grad():
        basis = surrogate.decoder.basis(x.to(next(surrogate.decoder.parameters()).dtype))[1]
    result = torch.full((*states.shape[:2], *basis.shape[2:4]), float("nan"), dtype=torch.float64)
    last = (torch.isfinite(inner).sum(1, keepdim=True) - 1).clamp(min=0)  # later frames are padding
    reached = states[torch.arange(len(states))[:, None], torch.minimum(torch.tensor(frames), last)]
    times, length = filled(inner), len(states)
    since = inner - inner[:, :1]
    alike = surrogate.field.is_linear and estimate.covariance is not None and len(estimate.covariance[-1]) == 1
    if not bool((inner == inner[:1]).all()) and not (alike and bool(((since - since[:1]).abs() < _SAME).all())):
        # every trajectory has its own covariances
        length = max(1, _NUMBERS // states.shape[-1] ** 2)
    for start in range(0, len(states), length):
        rows = slice(start, start + length)
        path = StatePath(surrogate.dynamics, estimate.select(rows))
        for j, cov in enumerate(path.covariance(times[rows][:, frames], reached[rows])):
            k, cov = frames[j], surrogate.prior.bounded(cov, reached[rows, j], size)
            design = basis[rows if len(basis) > 1 else slice(None), k if basis.shape[1] > 1 else 0]
            count = max(len(cov), len(design))
            for s in range(count):
                variance = _variances(design[s if len(design) > 1 else 0], cov[s if len(cov) > 1 else 0, :size, :size])
                result[rows, k][slice(s, s + 1) if count > 1 else slice(None)] = variance
    for a, b in pairwise(frames):
        share = ((times[:, a + 1 : b] - times[:, a, None]) / (times[:, b] - times[:, a])[:, None])[..., None, None]
        result[:, a + 1 : b] = (1 - share) * result[:, a, None] + share * result[:, b, None]
    return result


def _some_frames(count: int, knots: int) -> list[int]:
    """Frames of `count` at which spreads are computed: the observed ones and those soon after, then fewer and fewer."""
    kept, at = list[int](), 0
    while at < count:
        kept.append(at)
        at += max(1, min((at - knots) // _EVERY, _MOST_SKIPPED))
    return kept if kept[-1] == count - 1 else [*kept, count - 1]


def _variances(design: Tensor, covariance: Tensor) -> Tensor:
    """Variances (N, C) of values design (N, C, Z) @ codes; by channel where many codes act on one each."""
    each = [design[:, c].any(0).nonzero()[:, 0] for c in range(design.shape[1])] if design.shape[1] > 1 else []
    if len(covariance) < _MANY or sum(len(own) for own in each) != len(covariance):
        return (design @ _root(covariance, design.dtype)).square().sum(-1).double()
    halves = [_root(covariance[own][:, own], design.dtype) for own in each]
    return torch.stack([(design[:, c, own] @ half).square().sum(-1).double()
                        for c, (own, half) in enumerate(zip(each, halves, strict=True))], -1)


def _root(covariance: Tensor, dtype: torch.dtype) -> Tensor:
    """L with L L^T = covariance, factored in float64 and rounded to `dtype`; NaN where forecasts have diverged.

    Negligible entries are set to 0: denormal ones, from codes that have decayed, make products ten times slower.
    """
    if not bool(torch.isfinite(covariance).all()):
        return torch.full_like(covariance, torch.nan, dtype=dtype)
    root = _factor(covariance)
    return root.masked_fill(root.abs() < _NOTHING * root.abs().max(), 0.0).to(dtype)


def _factor(covariance: Tensor) -> Tensor:
    jitter = _JITTER * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    root, failed = torch.linalg.cholesky_ex(covariance + jitter)
    if not failed:
        return root
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def std_of_values(prior: StatePrior, std: Tensor, estimate: StateEstimate, added: float = 0.0) -> Tensor:
    """Standard deviation (S, T, N, C) of observed values, normalised units, from that of the field.

    Adds the observation noise of training values, which later values share with the window, less the `added` noise.
    """
    if prior.white is None:
        return std
    white = (prior.white - added**2).clamp(min=0).expand(len(std), 1, 1, -1)
    if estimate.quieter is not None:
        white = torch.where(estimate.quieter[:, None, None, None], 0.0, white)
    return (std.square() + white).sqrt()


@dataclass
class Errors:
    """Errors of forecasts of one channel, before any calibration.

    error: (B,) absolute. codes, rest: (B,) variances by the covariance of codes, and the remaining ones. lead: (B,)
    times after the last observation. number: (B,) identities of trajectories. white: (B,) noise variances of the true
    values. factor: (B,) variance factors of trajectories. late: (B,) whether their window begins later than the first.
    """

    error: Tensor
    codes: Tensor
    rest: Tensor
    lead: Tensor
    number: Tensor
    white: Tensor
    factor: Tensor = field(default_factory=lambda: torch.ones(1, dtype=torch.float64))
    late: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.bool))

    def __post_init__(self) -> None:
        self.factor, self.late = self.factor.expand(len(self.number)), self.late.expand(len(self.number))

    @property
    def relative(self) -> Tensor:
        """Total variances (B,) relative to the remaining ones without codes."""
        return 1 + self.codes / self.rest

    @property
    def exceed(self) -> bool:
        """Whether mean squares over trajectories exceed predicted variances by more than two standard errors; also true
        without white noise or for few trajectories, within which errors are correlated."""
        names, which = self.number.unique(return_inverse=True)
        if len(names) < _DIFFERENT or not bool((self.white > 0).any()):
            return True
        more = self.error.square() - self.white - self.codes - self.rest
        each = more.new_zeros(len(names)).index_add(0, which, more) / which.bincount()
        return float(each.mean()) > 2 * float(each.std()) / len(names) ** 0.5

    def scaled(self, width: float = 1.0) -> Tensor:
        """Errors (B,) relative to `width` standard deviations, reduced by white noise such that values below 1 lie in
        an interval with this noise."""
        return (((self.error / width).square() - self.white).clamp(min=0) / (self.codes + self.rest)).sqrt()

    def of(self, channel: int) -> Errors:
        """Known errors (B,) of one channel, of errors (B, C)."""
        error, codes, rest, white = (part[:, channel] for part in (self.error, self.codes, self.rest, self.white))
        known = (torch.isfinite(error) & torch.isfinite(codes)).nonzero()[:, 0]
        known = known[:: max(1, len(known) // _VALUES)]
        lead, number, factor, late = (part[known] for part in (self.lead, self.number, self.factor, self.late))
        return Errors(error[known], codes[known], rest[known], lead, number, white[known], factor, late)

    def faded(self, fading: float) -> Errors:
        """The errors with variance factors that decay with lead, as in `StatePrior.own`."""
        scale = self.factor ** ((1 + self.lead.clamp(min=0)) ** -fading - 1)
        return replace(self, codes=self.codes * scale, rest=self.rest * scale)

    def select(self, rows: Tensor | slice) -> Errors:
        """A subset of the errors."""
        return Errors(*(getattr(self, part.name)[rows] for part in fields(self)))

    @classmethod
    def join(cls, parts: list[Errors]) -> Errors:
        """The errors of several parts."""
        return cls(*(torch.cat([getattr(one, part.name) for one in parts]) for part in fields(cls)))


def quantile_of_others(values: Tensor, number: Tensor, share: float = 0.9) -> float:
    """Leave-one-out quantile: the quantile of values (B,) at the level with which quantiles of the other trajectories
    bound a `share` of the values of each trajectory.

    Errors are correlated within a trajectory, so that a plain quantile of a few trajectories has too low a coverage of
    new ones. `number` (B,): identities of trajectories. The largest value if no level suffices; the plain quantile for
    a single trajectory, and for so many that none affects it.
    """
    order = values.argsort()
    every, which = values[order].numpy(), number[order].numpy()
    names = np.unique(which)
    if not 1 < len(names) <= _GROUPS:
        return float(np.quantile(every, share))
    parts = [(every[which == one], every[which != one]) for one in names]

    def held(level: float) -> float:
        return float(np.mean([np.searchsorted(own, others[round(level * (len(others) - 1))], "right") / len(own)
                              for own, others in parts]))

    low, high = 0.5, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if held(middle) >= share else (middle, high)
    return float(np.quantile(every, high))
