"""Paths of states: states of assimilated trajectories and their covariances as functions of time, and residual fields
conditioned on the observations."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.dynamics.flow import Dynamics, process_noise
from inrflow.encoding.encode import CodeData
from inrflow.encoding.residual.field import Codes, Conditioned, ResidualField, Rows, rows_of
from inrflow.errors import UserError
from inrflow.model.state_prior import KNOWN_CONTEXT, ContextPrior, StateEstimate, StatePrior, with_context

EXACT_TIMES, _CELL = 512, 0.125  # most times that are integrated one by one; cells in between, internal time
_STEP = 1.5  # longest step of covariances in units of time (the distance of training frames)
_MOST_STEPS = 64
_DIFFERENCE = 1e-4  # of time, for derivatives of maps from step to step
_EARLIER, _MOST_EARLIER = 0.5, 64  # steps back from the first frame, internal time; most of them
_PASSES, _PARTS = 8, (1.0, 0.5, 0.25, 0.1, 0.03, 0.01)  # Gauss-Newton steps of each; parts of one that are tried
_SETTLED, _RIDGE = 0.95, 1e-12  # ratio of misfits from which on one is settled; ridge, relative to the largest variance
_CONTRADICTED = 4.0  # ratio of smoothed changes to process noise from which on the dynamics are another's
_UNTOLD = 1e-6  # of the prior's variance: less than what observations take off counts as nothing


@dataclass(frozen=True)
class StatePath:
    """States of S trajectories as functions of internal time, through the states at the observed frames.

    Between two observed frames the path is the flow from the earlier one plus, linearly in time, its difference to the
    later one, so it is continuous and passes through both; after the last frame it is the forecast. Before the first
    one it passes through states inferred from it (`hindcast`) if the `prior` is given, and else is the flow backwards.
    """

    dynamics: Dynamics
    estimate: StateEstimate
    prior: StatePrior | None = None
    _since: dict[int, StatePath] = field(default_factory=dict, compare=False, repr=False)

    def since(self, times: Tensor) -> StatePath:
        """The path with states inferred before the first frame, back to the earliest of these times: itself where none
        is earlier, or where no covariance or no prior tells what a state may have been."""
        knots, covariance = self.estimate.t, self.estimate.covariance
        back = float(knots[0, 0] - times[torch.isfinite(times)].min()) if bool(torch.isfinite(times).any()) else 0.0
        known = self.prior is not None and self.prior.covariance.dim() == 2 and covariance is not None
        known = known and self.dynamics.integrator.method != "map" and not self.estimate.mean.requires_grad
        if not (known and back > 0 and len(knots) == 1):
            return self
        steps = math.ceil(back / _EARLIER)
        if steps not in self._since:
            assert self.prior is not None
            self._since[steps] = StatePath(self.dynamics, hindcast(self.dynamics, self.prior, self.estimate, steps))
        return self._since[steps]

    def mean(self, times: Tensor, check: bool = True) -> Tensor:
        """States (S, T, n) at increasing times: (T,) shared by all trajectories, or (S, T), padded with NaN."""
        if (whole := self.since(times)) is not self:
            return whole.mean(times, check)
        knots, states = self.estimate.t, self.estimate.mean
        times = times.expand(len(knots), times.shape[-1])
        result = torch.full((*times.shape, states.shape[-1]), float("nan"), dtype=torch.float64)
        last = _last_knot(knots)
        segments = _segments(knots, times)
        for k in segments[torch.isfinite(times)].unique().tolist():
            inside = torch.isfinite(times) & (segments == k)
            rows = inside.any(1).nonzero()[:, 0]
            asked, place = _packed(times[rows], inside[rows], backwards=k < 0)
            here = max(k, 0)
            begin, follows = knots[rows, here : here + 1], (k >= 0) & (last[rows] > k)
            # After its last knot a trajectory stays at its last queried time, at no cost.
            end = torch.where(follows, knots[rows, min(here + 1, knots.shape[1] - 1)], asked[:, -1])[:, None]
            between = bool(follows.any())
            path = self.dynamics.flow(states[rows, here], torch.cat([begin, asked, end], 1), check and not between)
            inner, later = path[:, 1:-1], states[rows, min(here + 1, knots.shape[1] - 1)]
            if between:
                lost = ~torch.isfinite(path).all(2).all(1)  # a poor state, which diverges
                path = torch.where(lost[:, None, None], states[rows, here][:, None], path)
                inner, missed = path[:, 1:-1], later - path[:, -1]
                share = torch.where(follows[:, None], (asked - begin) / (end - begin), 0.0)
                inner = inner + share[..., None] * torch.where(follows[:, None], missed, 0.0)[:, None]
            row, column = inside[rows].nonzero(as_tuple=True)
            result[rows[row], column] = inner[row, place[row, column]]
        return result

    def at(self, times: Tensor) -> Tensor:
        """States (T, n) of a single trajectory at increasing times (T,); if these are very many, by cubic Hermite
        interpolation between states at the ends of the fine cells that contain them."""
        nodes = cell_ends(times) if len(times) > EXACT_TIMES else None
        if nodes is None or len(nodes) > len(times):
            return self.mean(times)[0]
        knots = self.since(times).estimate.t[0]
        nodes = torch.unique(torch.cat([nodes, knots[torch.isfinite(knots)]]))
        states = self.mean(nodes)[0]
        with torch.no_grad():
            slopes = self.dynamics.field(nodes, states)
        cell = (torch.searchsorted(nodes, times, right=True) - 1).clamp(0, len(nodes) - 2)
        width = (nodes[cell + 1] - nodes[cell])[:, None]
        s = (times - nodes[cell])[:, None] / width
        return (
            (1 + 2 * s) * (1 - s) ** 2 * states[cell]
            + s * (1 - s) ** 2 * width * slopes[cell]
            + s**2 * (3 - 2 * s) * states[cell + 1]
            + s**2 * (s - 1) * width * slopes[cell + 1]
        )

    def rate(self, times: Tensor, states: Tensor) -> Tensor:
        """Derivatives (T, n) by internal time of the path of a single trajectory at increasing times (T,), with states
        (T, n) there; without gradients."""
        dynamics, knots = self.dynamics, self.estimate.t[0][torch.isfinite(self.estimate.t[0])]
        if dynamics.integrator.method == "map":  # interpolated between steps
            return (self.mean(times + _DIFFERENCE)[0] - self.mean(times - _DIFFERENCE)[0]) / (2 * _DIFFERENCE)
        with torch.no_grad():
            result = dynamics.field(times, states)
            segments = _segments(knots[None], times[None])[0]
            for k in segments[(segments >= 0) & (segments < len(knots) - 1)].unique().tolist():
                rows, ends = segments == k, knots[[k, k + 1]]
                path = dynamics.flow(self.estimate.mean[:, k].detach(), torch.cat([ends[:1], times[rows], ends[1:]]))[0]
                missed = self.estimate.mean[0, k + 1].detach() - path[-1]
                result[rows] = dynamics.field(times[rows], path[1:-1]) + missed / (ends[1] - ends[0])
        return result

    def covariance(self, times: Tensor, mean: Tensor) -> Iterator[Tensor]:
        """Covariances, one tensor (S or 1, n, n) for each of increasing times (T,) or (S, T); `mean` as from `mean`.

        (1, n, n) where all trajectories share it. Where a trajectory's times are padded with NaN, its covariance is
        that of its last time.
        """
        if (whole := self.since(times)) is not self:
            yield from whole.covariance(times, mean)
            return
        knots, every = self.estimate.t, torch.arange(len(self.estimate.t))
        last = _last_knot(knots)
        times = filled(times.expand(len(knots), times.shape[-1]))
        segments = _segments(knots, times).clamp(min=0)
        previous: tuple[Tensor, Tensor, Tensor] | None = None
        for i in range(times.shape[1]):
            k, time = segments[:, i], times[:, i]
            begin, cov, state = knots[every, k], self._at_knots(k), self.estimate.mean[every, k]
            if previous is not None and self.dynamics.integrator.method != "map":  # errors of maps depend on leads
                further = (previous[0] >= begin) & (time >= begin)
                begin = torch.where(further, previous[0], begin)
                cov = _either(further, previous[1], cov)
                state = torch.where(further[:, None], previous[2], state)
            moved = cov
            if bool((time != begin).any()):
                moved = self._propagated(cov, state, mean[:, i], begin, time)
                moved = _either(time == begin, cov, moved)
                between = (k < last) & (time != begin)
                if bool(between.any()):  # informed by both frames
                    after = (k + 1).clamp(max=knots.shape[1] - 1)
                    gap = knots[every, after] - knots[every, k]
                    share = torch.where(between, (time - knots[every, k]) / gap, 0.0)
                    added = _shared(share * (1 - share) * gap.nan_to_num(0.0))  # of a Brownian bridge, by its rate
                    share = _shared(share)[:, None, None]
                    bridge = (1 - share) * self._at_knots(k) + share * self._at_knots(after)
                    bridge = bridge + (added[:, None] * self.dynamics.process.to(bridge)).diag_embed()
                    narrower = moved.diagonal(dim1=1, dim2=2).sum(1) < bridge.diagonal(dim1=1, dim2=2).sum(1)
                    moved = _either(_shared(~between | narrower), moved, bridge)
            yield moved
            previous = (time, moved, mean[:, i])

    def _propagated(self, covariance: Tensor, start: Tensor, stop: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        """Covariances at `end`, in steps of about a unit of time for nonlinear fields, with the flow linearised between
        the states at both ends of a step."""
        gap = (end - begin).nan_to_num(0.0)
        longest, size = float(gap.abs().max()), self.dynamics.field.state_size
        contexts = bool((covariance.diagonal(dim1=1, dim2=2)[:, size:] > KNOWN_CONTEXT).any())
        if self.dynamics.field.is_linear_at_context or longest <= _STEP:
            return self.dynamics.propagate(covariance, start, stop, begin, end, contexts)[0]
        step = max(_STEP, longest / _MOST_STEPS)
        steps = math.ceil(longest / step)
        passed = torch.minimum(step * torch.arange(steps + 1, dtype=torch.float64), gap.abs()[:, None])
        times = begin[:, None] + gap.sign()[:, None] * passed
        states = self.dynamics.flow(start, times, check=False)
        for j in range(steps):
            covariance, _ = self.dynamics.propagate(covariance, states[:, j], states[:, j + 1], times[:, j],
                                                    times[:, j + 1], contexts)
        return covariance

    def _at_knots(self, k: Tensor) -> Tensor:
        """Covariances (S or 1, n, n) at knot k (S,) of each trajectory."""
        covariances = self.estimate.covariance
        assert covariances is not None
        if bool((k == k[0]).all()):
            return covariances[int(k[0])]
        return torch.stack([covariances[j][s if len(covariances[j]) > 1 else 0] for s, j in enumerate(k.tolist())])


def hindcast(dynamics: Dynamics, prior: StatePrior, estimate: StateEstimate, steps: int) -> StateEstimate:
    """An estimate of one trajectory with states before its first frame, `steps` times half a unit of time back: each is
    the one of largest posterior density, given the prior and what the observations tell of the next one, by
    Gauss-Newton steps. What the flow forgets, and the flow backwards would amplify, is the prior's.

    Affine fields need one step. Where the steps are too many, what is before them is the prior's."""
    size = dynamics.field.context_size
    first, spread = estimate.mean[:, 0].detach(), estimate.covariance[0][:1]  # type: ignore[index]
    states = first.shape[1] - size
    usual, cov = prior.mean[None, :states], prior.covariance[None, :states, :states]
    if size:
        usual, whole = with_context(usual, cov, ContextPrior(first[:, -size:], spread[:, -size:, -size:]))
        assert whole is not None
        cov = whole
    affine, back = dynamics.field.is_linear_at_context, steps * _EARLIER
    count = 1 if affine else min(steps, _MOST_EARLIER)
    times, means, covariances = [estimate.t[:, 0]], [first], [spread]
    for _ in range(count):
        begin = times[-1] - (back if affine else _EARLIER)
        found = _before(dynamics, usual, cov, means[-1], covariances[-1], begin, times[-1])
        times, means, covariances = [*times, begin], [*means, found[0]], [*covariances, found[1]]
    if not affine and steps > count:
        times, means, covariances = [*times, estimate.t[:, 0] - back], [*means, usual], [*covariances, cov]
    return replace(
        estimate, t=torch.cat([torch.stack(times[:0:-1], 1), estimate.t], 1), gains=None,
        mean=torch.cat([torch.stack(means[:0:-1], 1), estimate.mean], 1),
        covariance=covariances[:0:-1] + list(estimate.covariance or ()))


def _before(
    dynamics: Dynamics, usual: Tensor, cov: Tensor, later: Tensor, spread: Tensor, begin: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    """State (1, n) at `begin` and its covariance (1, n, n), for a prior mean `usual` and `cov`, given the state `later`
    and its covariance `spread` at `end`, where the prior is the same: what is known beyond it is the likelihood."""
    times, ridge = torch.stack([begin, end], 1), _RIDGE * torch.eye(usual.shape[1], dtype=usual.dtype)
    root = torch.linalg.cholesky(cov[0] + cov.diagonal(dim1=1, dim2=2).max() * ridge)
    half = torch.linalg.solve_triangular(root, spread[0], upper=False)
    share, axes = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.T, upper=False))
    share, axes = share.clamp(0.0, 1 - _UNTOLD), root @ axes  # of the prior's variance; axes (n, n), unit variance
    away = torch.linalg.solve(axes, (later - usual)[0])
    told, noise = usual + axes @ (away / (1 - share)), axes @ (share / (1 - share)).diag() @ axes.T

    def misfit(state: Tensor, ahead: Tensor, noise: Tensor) -> float:
        away, missed = (state - usual)[0], (told - ahead)[0]
        squares = away @ torch.cholesky_solve(away[:, None], root)[:, 0] + missed @ torch.linalg.solve(noise, missed)
        return float(squares.nan_to_num(math.inf))

    state, ahead = later, dynamics.flow(later, times, check=False)[:, 1]
    for _ in range(_PASSES):
        if not bool(torch.isfinite(ahead).all()):
            state, ahead = usual, dynamics.flow(usual, times, check=False)[:, 1]
        expected, flow = dynamics.propagate(cov, state, ahead, begin, end)
        carried = (flow @ cov @ flow.mT)[0]
        whole = expected[0] - carried + noise + carried.diagonal().max() * ridge
        gain = torch.linalg.solve(carried + whole, flow[0] @ cov[0]).T
        step = usual - state + (told - ahead - (usual - state) @ flow[0].T) @ gain.T
        worst = misfit(state, ahead, whole)
        for part in _PARTS:
            tried = state + part * step
            reached = dynamics.flow(tried, times, check=False)[:, 1]
            if (now := misfit(tried, reached, whole)) < worst:
                state, ahead = tried, reached
                break
        if not now < _SETTLED * worst:
            break
    left = cov[0] - gain @ flow[0] @ cov[0]
    return state, (left + left.T)[None] / 2


def with_process_of(dynamics: Dynamics, estimate: StateEstimate) -> Dynamics:
    """The dynamics with the process noise of one trajectory's smoothed states, where these change between observed
    frames far more than by the process noise of training: another system, say. Warns of it.

    Not where the window has more white noise than training, or a residual field. Smoothed changes are smaller than the
    noise by as much as frames leave them unknown: what exceeds it is no chance."""
    knots, size = estimate.t[0], dynamics.field.state_size
    noisy = estimate.residual is not None or (estimate.louder is not None and bool(estimate.louder[0]))
    if noisy or estimate.mean.requires_grad or int(torch.isfinite(knots).sum()) < 2:
        return dynamics
    knots, states = knots[torch.isfinite(knots)], estimate.mean[0][torch.isfinite(knots)]
    steps, times = (torch.stack([part[:-1], part[1:]], 1) for part in (states, knots))
    pairs = CodeData(steps, times, torch.ones_like(times, dtype=torch.bool))
    added = process_noise(dynamics.field, dynamics.integrator, pairs)
    known = (dynamics.process > 0) & (torch.arange(len(added)) < size)
    ratio = float((added[known] / dynamics.process[known]).mean()) if bool(known.any()) else 0.0
    if not _CONTRADICTED < ratio < math.inf:
        return dynamics
    warnings.warn(f"the observed frames change unlike the trained dynamics, by {ratio**0.5:.3g} times the usual error: "
                  "another system, or other units of time; intervals are widened, and `inrflow adapt` fits the run to "
                  "a new system", stacklevel=5)
    return replace(dynamics, process=torch.maximum(dynamics.process, torch.where(known, added, 0.0)))


def _last_knot(knots: Tensor) -> Tensor:
    return torch.isfinite(knots).sum(1) - 1


def _segments(knots: Tensor, times: Tensor) -> Tensor:
    """Index (S, T) of the knot before each time, -1 before the first one; knots (S, K) padded with NaN at the end."""
    return torch.searchsorted(knots.nan_to_num(nan=float("inf")).contiguous(), times.contiguous(), right=True) - 1


def _packed(times: Tensor, inside: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """The times (S, T) that are `inside`, moved to the front and padded with the last of them, (S, M), latest first if
    `backwards`; and the new column (S, T) of each."""
    place = (inside.flip(1) if backwards else inside).cumsum(1) - 1
    place = place.flip(1) if backwards else place
    counts = inside.sum(1)
    row, column = inside.nonzero(as_tuple=True)
    packed = times.new_empty(len(times), int(counts.max()))
    packed[row, place[row, column]] = times[row, column]
    last = packed.gather(1, counts[:, None] - 1)
    return torch.where(torch.arange(packed.shape[1]) < counts[:, None], packed, last), place


def filled(times: Tensor) -> Tensor:
    """Times (S, T) with the padding at the end replaced by the last of them."""
    last = times.gather(1, (torch.isfinite(times).sum(1, keepdim=True) - 1).clamp(min=0))
    return torch.where(torch.isnan(times), last, times)


def _shared(values: Tensor) -> Tensor:
    """Values (S,), reduced to (1,) where all are equal."""
    return values[:1] if bool((values == values[0]).all()) else values


def _either(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Matrices (S or 1, n, n) of `one` where `chosen` (S or 1,), else of `other`."""
    if bool(chosen.all()):
        return one
    return torch.where(chosen[:, None, None], one, other) if bool(chosen.any()) else other


def cell_ends(times: Tensor) -> Tensor:
    """The ends of those fine cells, from the first to the last of increasing times, that contain any."""
    first, span = times[0], times[-1] - times[0]
    cells = max(1.0, math.ceil(float(span) / _CELL))
    index = torch.unique(((times - first) / span * cells).floor().clamp(max=cells - 1))
    index = torch.unique(torch.cat([index, index + 1]))
    return torch.where(index == cells, times[-1], first + index * (span / cells))


def with_residual(
    decoder: Decoder, dynamics: Dynamics, estimate: StateEstimate, inner: TrajectoryBatch, residual: ResidualField
) -> StateEstimate:
    """An estimate with a residual field conditioned on the observations of a window (internal units). Raises UserError
    for values that require a gradient, which the field does not have."""
    if inner.u.requires_grad:
        raise UserError("the observed values require a gradient, which this model's residual field between the sensors "
                        "does not have; give values that require none, as u.detach()")
    parts = observations_and_decoded(decoder, dynamics, estimate, inner)
    known = torch.isfinite(estimate.t).any(1).tolist()
    conditioned = [Conditioned(residual, *part) if len(part[0].t) and some else None
                   for part, some in zip(parts, known, strict=True)]
    return replace(estimate, residual=conditioned)


def observations_and_decoded(
    decoder: Decoder, dynamics: Dynamics, estimate: StateEstimate, inner: TrajectoryBatch
) -> list[tuple[Rows, np.ndarray, Codes]]:
    """Observations of each trajectory, decoded values there (R, C), and a function for decoded values elsewhere."""
    decoded = _decoded(decoder, inner.x, estimate.mean[..., : decoder.code_size])
    seen = torch.isfinite(inner.u).any(-1, keepdim=True)
    both = torch.cat([inner.u.double(), torch.where(seen, decoded, torch.nan)], -1)
    channels = inner.u.shape[-1]
    result: list[tuple[Rows, np.ndarray, Codes]] = []
    for s, rows in enumerate(rows_of(inner.t, inner.x, both, inner.delay)):
        path = StatePath(dynamics, estimate.select(slice(s, s + 1)))

        def given(t: np.ndarray, x: np.ndarray, path: StatePath = path) -> Tensor:
            states = path.mean(torch.as_tensor(t)[None], check=False)[..., : decoder.code_size]
            return _decoded(decoder, torch.as_tensor(x)[None, None], states)[0]

        result.append((replace(rows, u=rows.u[:, :channels]), rows.u[:, channels:], given))
    return result


def _decoded(decoder: Decoder, x: Tensor, codes: Tensor) -> Tensor:
    dtype = next(decoder.parameters()).dtype
    with torch.no_grad():
        return decoder(x.to(dtype), codes.to(dtype)).double()
