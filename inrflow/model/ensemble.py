"""Ensemble assimilation and forecast of thousands of codes: samples of the posterior, each integrated by itself.

Samples of the first frame are exact: regularised least squares with perturbed prior means and observations
(randomise-then-optimise, Bardsley et al. 2014). For later frames the forecast covariance is diagonal, the variances of
the members' codes (perturbed observations, Burgers et al. 1998).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Dynamics
from inrflow.encoding.encode import encode
from inrflow.encoding.evidence import PENALTY
from inrflow.encoding.posterior import FREEDOM, GaussianPrior, squared_innovation
from inrflow.model.state_prior import ContextPrior, StateEstimate, StatePrior
from inrflow.model.variational import without_gross_errors

MEMBERS, _FEW, _MANY = 8, 4, 4096  # members; fewer for more codes than _MANY, whose integration takes long
_SEED = 31
_LEVELS = tuple(4.0 / 4**i for i in range(16))  # of added noise, normalised variances


def rate_indices(field: VectorField, memory: int) -> Tensor:
    """Indices (memory,) of the codes whose time derivatives are the memory of a field's states."""
    if not memory:
        return torch.zeros(0, dtype=torch.int64)
    (law,) = field.terms.values()
    return law.rate_indices(memory)  # type: ignore[operator]


class Ensemble:
    """Ensemble smoother for one decoder, its dynamics and a prior of independent codes."""

    def __init__(self, decoder: Decoder, dynamics: Dynamics, prior: StatePrior) -> None:
        self.decoder, self.dynamics, self.prior = decoder, dynamics, prior
        self.size, self.random = decoder.code_size, torch.Generator().manual_seed(_SEED)
        self.states = dynamics.field.state_size  # codes, and rates of some of them
        self.rated = rate_indices(dynamics.field, self.states - self.size)

    def estimate(self, window: TrajectoryBatch, members: bool, context: ContextPrior | None, quiet: float = 0.0
                 ) -> StateEstimate:
        """States of a window of frames (S, K); `window.t` in internal units, values normalised. With members if
        `members`. Windows with a variance factor below `quiet` are flagged as less noisy than expected."""
        codes, first, most = self.prior.codes(self.size), window.first_frames(1), _FEW if self.size > _MANY else MEMBERS
        draws = most if members or window.u.shape[1] > 1 else 0
        mean = encode(self.decoder, first, codes)[:, 0]
        away = self._drawn(first, codes, draws)
        quadratic, count = self._innovation(first, mean, mean - codes.mean, codes.covariance)
        memory = self.prior.codes(self.states)
        mean = torch.cat([mean, memory.mean[self.size :].expand(len(mean), -1)], 1)
        unknown = self._normal(*away.shape[:2], self.states - self.size) * memory.covariance[self.size :].sqrt()
        means, every = [mean], [mean[:, None] + torch.cat([away, unknown], -1)]
        constant = self._contexts(context, len(mean), draws)
        for k in range(1, window.u.shape[1]):
            mean, each = self._forecast(window, k, means[-1], every[-1], constant)
            frame = window.frames(slice(k, k + 1))
            apart = each - mean[:, None]
            spread = apart[..., : self.size].square().mean((0, 1)) + 1e-12 * codes.covariance
            ahead = GaussianPrior(torch.zeros_like(codes.mean), spread, codes.noise)
            analysed = self._analysed(frame, mean[:, : self.size], each[..., : self.size], ahead)
            more = self._innovation(frame, analysed[0], analysed[0] - mean[:, : self.size], spread)
            quadratic, count = quadratic + more[0], count + more[1]
            # Rates are updated by regression on their codes over forecasts of members, code by code.
            gain = (apart[..., self.rated] * apart[..., self.size :]).mean((0, 1)) / spread[self.rated]
            means.append(self._followed(mean, analysed[0], gain))
            every.append(self._followed(each, analysed[1], gain))
        states, drawn = torch.stack(means, 1), torch.stack(every, 1)
        if constant is not None:
            frames = states.shape[1]
            states = torch.cat([states, constant[0][:, None].expand(-1, frames, -1)], -1)
            drawn = torch.cat([drawn, constant[1][:, None].expand(-1, frames, -1, -1)], -1)
        # Forecast errors of a law do not shrink with residuals of smooth first frames: the factor is at least 1.
        return StateEstimate(window.t, states, None, torch.maximum(quadratic, count), count,
                             members=drawn if members else None, quieter=quadratic < quiet * count)

    def _drawn(self, frame: TrajectoryBatch, codes: GaussianPrior, draws: int) -> Tensor:
        """Samples (S or 1, M, Z) of the errors of codes encoded from one frame (S, 1); (1, M, Z) where all observe the
        same."""
        seen = torch.isfinite(frame.u)
        if frame.x.shape[0] == 1 and bool((seen == seen[:1]).all()):
            frame, seen = TrajectoryBatch(frame.t[:1], frame.x, frame.u[:1]), seen[:1]
        drawn = self._normal(len(seen), draws, self.size) * codes.covariance.sqrt()
        if not draws:
            return drawn
        values = self._decoded(frame.x, codes.mean - drawn) + self._noise(seen.expand(-1, draws, -1, -1), codes.noise)
        return encode(self.decoder, _like(frame, values, seen), codes) - codes.mean + drawn

    def _analysed(
        self, frame: TrajectoryBatch, mean: Tensor, each: Tensor, prior: GaussianPrior
    ) -> tuple[Tensor, Tensor]:
        """Forecasts (S, Z) and members (S, M, Z) conditioned on one frame, with perturbed observations of members."""
        every = torch.cat([mean[:, None], each], 1)
        seen = torch.isfinite(frame.u)
        noise = self._noise(seen.expand(-1, each.shape[1], -1, -1), prior.noise)
        noise = torch.cat([torch.zeros_like(noise[:, :1]), noise], 1)
        zero = self._decoded(frame.x, torch.zeros_like(mean[:1, None]))
        values = frame.u.double() + noise - self._decoded(frame.x, every) + zero
        every = every + encode(self.decoder, _like(frame, values, seen), prior)
        return every[:, 0], every[:, 1:]

    def _followed(self, before: Tensor, codes: Tensor, gain: Tensor) -> Tensor:
        """States (..., n) with analysed codes (..., Z), and rates updated by `gain` times the codes' increments."""
        moved = gain * (codes - before[..., : self.size])[..., self.rated]
        return torch.cat([codes, before[..., self.size :] + moved], -1)

    def _forecast(
        self, window: TrajectoryBatch, k: int, mean: Tensor, each: Tensor, constant: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """States (S, n) and members (S, M, n) at frame k from those of the previous frame; samples of the prior replace
        members that diverge."""
        begin, end = window.t[:, k - 1].nan_to_num(), window.t[:, k]
        end = torch.where(torch.isnan(end), begin, end)
        draws, n = each.shape[1], self.states
        now, drawn = mean, each.flatten(0, 1)
        if constant is not None:
            now, drawn = torch.cat([mean, constant[0]], 1), torch.cat([drawn, constant[1].flatten(0, 1)], 1)
        now = self.dynamics.flow(now, torch.stack([begin, end], 1), check=False)[:, 1, :n]
        drawn = self.dynamics.disturbed(drawn, begin.repeat_interleave(draws), end.repeat_interleave(draws),
                                        self.random)[:, :n]
        codes = self.prior.codes(n)
        now = torch.where(torch.isfinite(now).all(1, keepdim=True), now, codes.mean)
        anew = codes.mean + self._normal(len(drawn), n) * codes.covariance.sqrt()
        drawn = torch.where(torch.isfinite(drawn).all(1, keepdim=True), drawn, anew)
        return now, drawn.unflatten(0, (-1, draws))

    def _contexts(self, context: ContextPrior | None, count: int, draws: int) -> tuple[Tensor, Tensor] | None:
        """Contexts (S, P) and samples (S, M, P) of them; None without contexts."""
        contexts = self.dynamics.field.context_size
        if not contexts:
            return None
        context = context or self.prior.context(contexts)
        mean = (context.mean if context.nominal is None else context.nominal).expand(count, contexts)
        values, vectors = torch.linalg.eigh(context.covariance)
        away = self._normal(count, draws, contexts) @ (vectors * values.clamp(min=0).sqrt()[..., None, :]).mT
        return mean, mean[:, None] + away

    def _decoded(self, x: Tensor, codes: Tensor) -> Tensor:
        """Values (S, M, N, C), float64, of codes (S or 1, M, Z) at points x (S or 1, 1, N, d)."""
        with torch.no_grad():
            return self.decoder(x.to(next(self.decoder.parameters()).dtype), codes).double()

    def _innovation(self, frame: TrajectoryBatch, after: Tensor, step: Tensor, variances: Tensor
                    ) -> tuple[Tensor, Tensor]:
        """Squared innovation (S,) and number of values (S,) of a frame whose analysis moved codes with prior variances
        (Z,) by `step` to `after`."""
        values = self._decoded(frame.x, after[:, None])[:, 0]
        quadratic, count = squared_innovation(values, frame.u[:, 0], self.prior.noise, step, variances)
        return quadratic, count.double()

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.random)

    def _noise(self, seen: Tensor, noise: Tensor) -> Tensor:
        return self._normal(*seen.shape) * noise.sqrt()

    def added_noise(self, window: TrajectoryBatch) -> Tensor:
        """Variance (S,) of white noise, in addition to the prior's, with the largest evidence of first frames; 0: none.

        The eigenvalues of the covariance of n values are approximated by n times the n largest variances of codes,
        which is exact on grids.
        """
        frame, best = window.first_frames(1), torch.zeros(len(window), dtype=torch.float64)
        score = self._evidence(frame, 0.0) + PENALTY
        for level in _LEVELS:
            if level > float(self.prior.noise.min()) / 8:
                evidence = self._evidence(frame, level)
                best, score = torch.where(evidence > score, level, best), torch.maximum(evidence, score)
        return best

    def _evidence(self, frame: TrajectoryBatch, added: float) -> Tensor:
        noise = self.prior.noise + added
        codes = replace(self.prior, noise=noise).codes(self.size)
        other = Ensemble(self.decoder, self.dynamics, replace(self.prior, noise=noise))
        mean = encode(self.decoder, frame, codes)[:, 0]
        quadratic, count = other._innovation(frame, mean, mean - codes.mean, codes.covariance)
        logarithm, seen = torch.zeros_like(quadratic), torch.isfinite(frame.u[:, 0]).sum(1)  # (S, C)
        largest = codes.covariance.reshape(len(noise), -1).sort(1, descending=True).values
        for s, numbers in enumerate(seen.tolist()):
            logarithm[s] = sum(float((1 + number * own[:number] / one).log().sum() + number * one.log())
                               for number, own, one in zip(numbers, largest, noise, strict=True))
        return -0.5 * logarithm - 0.5 * (count + FREEDOM) * torch.log1p(quadratic / FREEDOM)


def assimilate_ensemble(decoder: Decoder, dynamics: Dynamics, prior: StatePrior, window: TrajectoryBatch, members: bool,
                        context: ContextPrior | None, surprising: float, quiet: float, screened: bool = False
                        ) -> StateEstimate:
    """States of a window, with white noise estimated for trajectories with a variance factor above `surprising`, if
    `screened` without gross errors."""
    def plain(prior: StatePrior, window: TrajectoryBatch, context: ContextPrior | None) -> StateEstimate:
        return Ensemble(decoder, dynamics, prior).estimate(window, members, context)

    estimate = Ensemble(decoder, dynamics, prior).estimate(window, members, context, quiet)
    if screened:
        window, estimate = without_gross_errors(plain, decoder, prior, window, context, estimate, surprising)
    rows = (estimate.factor > surprising).nonzero()[:, 0]
    if not len(rows):
        return estimate
    added = Ensemble(decoder, dynamics, prior).added_noise(window.select(rows))
    for level in added[added > 0].unique():
        some = rows[added == level]
        noisy = Ensemble(decoder, dynamics, replace(prior, noise=prior.noise + level))
        other = noisy.estimate(window.select(some), members, None if context is None else context.select(some))
        estimate = estimate.replaced(some, replace(other, louder=torch.ones(len(some), dtype=torch.bool)))
    return estimate


def deviations(dynamics: Dynamics, estimate: StateEstimate, times: Tensor) -> Iterator[Tensor]:
    """Deviations (S, M, n) of members from their centre, for each of increasing times (S, T), not NaN.

    After the last observed frame members and centre are integrated further; between two observed frames, deviations are
    interpolated.
    """
    assert estimate.members is not None
    random, knots, every = torch.Generator().manual_seed(_SEED), estimate.t, torch.arange(len(estimate.mean))
    own = estimate.members - estimate.mean[:, :, None]
    last = torch.isfinite(knots).sum(1) - 1
    final = knots[every, last]
    flown, since = torch.cat([estimate.mean[:, :, None], estimate.members], 2)[every, last], final
    for time in times.unbind(1):
        k = ((knots <= time[:, None]).sum(1) - 1).clamp(min=0)  # NaN pads knots at the end
        after = torch.minimum(k + 1, last)
        share = ((time - knots[every, k]) / (knots[every, after] - knots[every, k])).nan_to_num(0.0).clamp(0, 1)
        result = own[every, k] + share[:, None, None] * (own[every, after] - own[every, k])
        ahead = (time > since).nonzero()[:, 0]
        if len(ahead):
            each = flown.shape[1]
            begin, end = (one[ahead].repeat_interleave(each) for one in (since, time))
            noisy = torch.ones(each, dtype=torch.float64).index_fill(0, torch.tensor([0]), 0.0).repeat(len(ahead))
            moved = dynamics.disturbed(flown[ahead].flatten(0, 1), begin, end, random, noisy)
            flown, since = flown.clone(), since.clone()
            flown[ahead], since[ahead] = moved.unflatten(0, (-1, each)), time[ahead]
        yield torch.where((time >= final)[:, None, None], flown[:, 1:] - flown[:, :1], result)


def decoded_change(decoder: Decoder, x: Tensor, away: Tensor) -> Tensor:
    """Changes (S, M, N, C) of values of an affine decoder at points (S or 1, N, d), for changes (S, M, Z) of codes."""
    with torch.no_grad():
        return (decoder(x[:, None], away) - decoder(x[:, None], torch.zeros_like(away[:1, :1]))).double()


def spread_of(decoder: Decoder, x: Tensor, away: Tensor) -> Tensor:
    """Variances (S, N, C) of decoded values at points x (S or 1, N, d) from deviations (S, M, Z) of codes, the mean of
    the members that have not diverged; NaN where all have."""
    return decoded_change(decoder, x, away.to(x)).square().nanmean(1)


def _like(frame: TrajectoryBatch, values: Tensor, seen: Tensor) -> TrajectoryBatch:
    """Frames with values (S, M, N, C) where a frame (S, 1) is observed."""
    values = torch.where(seen, values, torch.nan)
    return TrajectoryBatch(frame.t[:, :1].expand(len(values), values.shape[1]), frame.x, values)
