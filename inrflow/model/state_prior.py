"""Gaussian priors of states and contexts, and estimates of states."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from inrflow.encoding.encode import CodeData
from inrflow.encoding.posterior import (
    QUANTILE,
    GaussianPrior,
    chi_squared_quantile,
    hotelling_quantile,
    variance_factor,
)
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.encoding.prior.truncation import Truncation
from inrflow.encoding.residual.field import Conditioned

KNOWN_CONTEXT = 1e-9  # variance of a context up to which it counts as known
_FAR = 5.0  # standard deviations
_DETERMINED = 2.0  # states per code, from which on memory is regressed on the codes
_ANY = 460.0  # bound on the logarithm of a variance relative to noise
_LITTLE, _TINY = 1e-4, 1e-12  # of a standard deviation; of the largest variance: negligible changes


@dataclass
class StatePrior:
    """Gaussian model of states [code, memory, context] and of forecast errors.

    Attributes:
        mean: (n,) and covariance: (n, n) of a state at the start of a trajectory; or (n,), the variances of independent
            codes, for ensembles.
        noise: (C,) variance of an observed value around the decoded one, normalised units; white: (C,) its part due to
            observation noise, which is not in the field, None: not known.
        process: (n,) variance that the vector field's error adds to a state per internal unit of time.
        spread: (C,), or (K, C) at lead times `leads` (K,) from 0 on after the last observed frame: factors on standard
            deviations; (M, K, C) where they also depend on the share of codes in the variance.
        growth: (C,) powers of 1 + lead of their growth thereafter; None: no growth.
        relative: (M, K, C) logarithms of 1 + variance by the covariance / noise to which factors belong, the first for
            full observations. Larger factors raise no variance above that of the data. None: for any.
        fading: (C,) powers of 1 / (1 + lead) that the logarithm of a trajectory's own variance factor is multiplied by:
            1 where later errors are those of dynamics that all have in common; None: 0.
        unseen: interpolation error of the decoder away from points of training frames.
        farthest: largest squared Mahalanobis distance of a code of the training data from their mean.
        tail: (C,) maximum of `Decoder.tail` over states of the training data.
        roughest: (C,) largest residual variance of a training frame. None: not known.
        truncation: part of `noise` that is none of codes of complete frames. None: none."""

    mean: Tensor
    covariance: Tensor
    noise: Tensor
    process: Tensor
    spread: Tensor
    unseen: InterpolationError | None = None
    farthest: float | None = None
    growth: Tensor | None = None
    white: Tensor | None = None
    tail: Tensor | None = None
    leads: Tensor | None = None
    roughest: Tensor | None = None
    fading: Tensor | None = None
    relative: Tensor | None = None
    truncation: Truncation | None = None

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> StatePrior:
        """The prior from nested values as of `dataclasses.asdict`, also of older files."""
        parts = {key: one for key, one in state.items() if key not in ("least", "inflation")}  # of old files
        for name, kind in (("unseen", InterpolationError), ("truncation", Truncation)):
            parts[name] = None if state.get(name) is None else kind(**state[name])
        if (power := state.get("inflation")) is not None:  # of 1 + variance / noise
            whole = state["spread"].reshape(-1, len(power))
            parts["relative"] = torch.stack([torch.zeros_like(whole), torch.full_like(whole, _ANY)])
            parts["spread"] = torch.stack([whole, whole * (_ANY / 2 * power).exp()])
        return cls(**parts)

    @property
    def variances(self) -> Tensor:
        """Variances (n,) of the states."""
        return self.covariance if self.covariance.dim() == 1 else self.covariance.diagonal()

    def codes(self, size: int) -> GaussianPrior:
        """Prior of the code alone."""
        return GaussianPrior(self.mean, self.covariance, self.noise).truncated(size)

    def reach(self, data: CodeData, size: int) -> float:
        """The largest squared Mahalanobis distance of observed codes (the first `size` dimensions); 0 without any."""
        return float(self.distance(data.codes[data.observed][:, :size]).max()) if bool(data.observed.any()) else 0.0

    def distance(self, codes: Tensor) -> Tensor:
        """Squared Mahalanobis distances (...,) of codes (..., Z) from their mean."""
        return self.codes(codes.shape[-1]).mahalanobis(codes)

    def widening(self, codes: Tensor, estimate: StateEstimate) -> Tensor:
        """Factors (S,) on standard deviations: 1 if the codes (S, K, Z) of an estimate lie within the limit, else the
        ratio of their largest distance to it, neither squared, relative to its own `factor`, which already widens
        forecasts."""
        farthest = self.distance(codes).nan_to_num(0.0).amax(1) / estimate.factor.clamp(min=1.0)
        return (farthest / self.limit(codes.shape[-1])).clamp(min=1.0).sqrt()

    def limit(self, size: int, frames: int | None = None) -> float:
        """Squared Mahalanobis distance up to which codes count as inside the training distribution: the 99.9 % quantile
        under its Gaussian, or the distance of the farthest training code if larger; that of 5 standard deviations in
        every dimension where this is unknown.

        frames: number of frames, if the training data are a single trajectory, none of whose later frames gave
        distances: the quantile accounts for the estimated covariance (Hotelling 1931).
        """
        if self.farthest is None:
            return _FAR**2 * size
        return max(self.farthest, chi_squared_quantile(QUANTILE, size) if frames is None else hotelling_quantile(
            QUANTILE, size, frames))

    def factors_at(self, lead: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms (M, ..., C) of factors on standard deviations of forecasts at lead times `lead` (...) after the
        last observed frame, interpolated linearly in log(1 + lead), and of the relative variances to which they belong.
        Errors of a law or of a fitted field accumulate coherently, unlike white process noise."""
        at, knots = lead.clamp(min=0).log1p(), torch.zeros(1, dtype=lead.dtype)
        knots = knots if self.leads is None else self.leads.log1p().to(at)
        below = (torch.searchsorted(knots, at.contiguous(), right=True) - 1).clamp(0, len(knots) - 1)
        above = (below + 1).clamp(max=len(knots) - 1)
        share = ((at - knots[below]) / (knots[above] - knots[below]).clamp(min=_TINY)).clamp(0, 1)[..., None]
        relative = torch.zeros_like(self.spread) if self.relative is None else self.relative
        values = torch.stack([self.spread.log(), relative]).reshape(2, -1, len(knots), self.spread.shape[-1])
        factors, places = (1 - share) * values[:, :, below] + share * values[:, :, above]
        later = (at - knots[-1]).clamp(min=0)[..., None]
        return (factors if self.growth is None else factors + later * self.growth), places

    def spread_at(self, lead: Tensor, relative: Tensor | None = None) -> Tensor:
        """Factors (..., C) at lead times `lead` (...), interpolated in relative variance; the first ones by default."""
        factors, places = self.factors_at(lead)
        log = factors[0]
        for low, high, step in [] if relative is None else zip(places, places[1:], factors.diff(dim=0), strict=False):
            log = log + step * ((relative - low) / (high - low).clamp(min=_TINY)).clamp(0, 1)
        return log.exp()

    def own(self, factor: Tensor, lead: Tensor) -> Tensor:
        """Variance factors (..., C) of forecasts at lead times `lead` (...) after the last observed frame, for
        trajectories with variance factors `factor` (...)."""
        factor = factor[..., None]
        return factor if self.fading is None else factor ** (1 + lead.clamp(min=0))[..., None] ** -self.fading

    @property
    def residual_variance(self) -> Tensor:
        """Variance (C,) of the field itself around decoded values, without observation noise."""
        return self.noise if self.white is None else self.noise - self.white

    @property
    def roughest_noise(self) -> Tensor:
        """Variance (C,) of values around decoded ones in the training frame that codes fit worst."""
        return self.noise if self.roughest is None else torch.maximum(self.noise, self.roughest)

    @property
    def quiet(self) -> StatePrior:
        """The prior without observation noise, which residuals of training frames contain."""
        return replace(self, noise=self.residual_variance, white=None, roughest=None)

    def std(self, variance: Tensor, x: Tensor, t: Tensor, estimate: StateEstimate) -> Tensor:
        """Standard deviation (S, T, N, C) of the field at x (S or 1, T or 1, N, d) around decoded values, normalised
        units; or (R, C) in rows x (R, d) of one trajectory.

        Args:
            variance: of the same shape, of decoded values by the covariance of the state, with the `unresolved` part.
            t: internal times (S, T, 1) or (R,).
            estimate: of the trajectories. Where one is `louder` than training data, calibration factors do not reduce
                the variance, as they were fitted to forecasts without such noise.
        """
        def each(values: Tensor) -> Tensor:
            return values.reshape(-1, *(variance.dim() - 1) * (1,))

        lead = t - each(estimate.last)[..., 0]
        variance, own = variance.clamp(min=0), self.own(each(estimate.factor)[..., 0], lead)
        usual = self.spread_at(lead).square()
        total = (variance + self.residual_variance) * own * usual
        if self.relative is not None:
            more = total * self.spread_at(lead, (variance / self.noise).log1p()).square() / usual
            total = torch.where(more.isinf(), more, torch.minimum(more, total.clamp(min=1.0)))
        if estimate.louder is not None:
            total = torch.where(each(estimate.louder), torch.maximum(total, variance), total)
        return (total if self.unseen is None else total + self.unseen(x)).sqrt()

    def bounded(self, covariance: Tensor, states: Tensor, size: int) -> Tensor:
        """Covariances (S or 1, n, n) of states (S, n), scaled down so that codes, the first `size` dimensions, have at
        most `_FAR` standard deviations of the data or of the states themselves, where linearised dynamics give more."""
        most = torch.maximum((states[:, :size] - self.mean[:size]).square().sum(1), self.variances[:size].sum())
        share = _FAR**2 * most / covariance.diagonal(dim1=1, dim2=2)[:, :size].sum(1)
        share = share if len(covariance) > 1 else share.max(0, True).values
        return covariance * share.clamp(max=1)[:, None, None] if bool((share < 1).any()) else covariance

    def unresolved(self, tail: Tensor, seen: Tensor) -> Tensor:
        """Variance (S, T, C) or (T, C) of scales that forecasts may develop and codes do not resolve, by `Decoder.tail`
        beyond its maxima in training data and in observed states, `seen` (S, K, C)."""
        most = self.tail.maximum(seen.nan_to_num().amax(1, tail.dim() == 3)) if self.tail is not None else tail
        return (tail - most).clamp(min=0)

    def context(self, size: int) -> ContextPrior:
        """Prior of contexts, the last `size` dimensions."""
        n = len(self.mean) - size
        own = torch.diag(self.covariance[n:]) if self.covariance.dim() == 1 else self.covariance[n:, n:]
        return ContextPrior(self.mean[n:], own)


@dataclass
class ContextPrior:
    """Gaussian prior of contexts: mean (P,) or (S, P), covariance (P, P) or (S, P, P), and the `nominal` contexts (P,)
    or (S, P) at which the flow is linearised, the mean if None; `curve`: a `Curve` near which they lie."""

    mean: Tensor
    covariance: Tensor
    nominal: Tensor | None = None
    curve: Any = None

    @classmethod
    def of_known(cls, mean: Tensor) -> ContextPrior:
        """The prior of known contexts (P,) or (S, P), with a variance well below `KNOWN_CONTEXT`."""
        return cls(mean, KNOWN_CONTEXT / 2 * torch.eye(mean.shape[-1], dtype=torch.float64))

    @property
    def known(self) -> bool:
        """Whether the contexts are known."""
        return bool(self.covariance.diagonal(dim1=-2, dim2=-1).max() <= KNOWN_CONTEXT)

    def select(self, rows: Tensor) -> ContextPrior:
        """The prior of a subset of S trajectories."""
        mean = self.mean if self.mean.dim() == 1 else self.mean[rows]
        covariance = self.covariance if self.covariance.dim() == 2 else self.covariance[rows]
        nominal = self.nominal if self.nominal is None or self.nominal.dim() == 1 else self.nominal[rows]
        return replace(self, mean=mean, covariance=covariance, nominal=nominal)


@dataclass
class StateEstimate:
    """Posterior of the states at the observed frames.

    Attributes:
        t: internal times (S, K).
        mean: (S, K, n).
        covariance: K tensors (S or 1, n, n); (1, n, n) where all trajectories share it. None if not requested.
        quadratic: (S,) squared innovation of the whole window, and
        count: (S,) number of values it sums over; 0 where it is not known.
        residual: conditioned residual field of each trajectory (None without observations); None for white residuals.
        members: (S, K, M, n) samples of the posterior, in place of `covariance` where codes are many.
        gains: K - 1 tensors (S or 1, n, n), smoother gains from each frame's successor to it; None where the estimate
            cannot be continued.
        louder, quieter: (S,) whether the window has clearly more noise, or less, than training data; None: no.
    """

    t: Tensor
    mean: Tensor
    covariance: list[Tensor] | None
    quadratic: Tensor
    count: Tensor
    residual: list[Conditioned | None] | None = None
    members: Tensor | None = None
    gains: list[Tensor] | None = None
    louder: Tensor | None = None
    quieter: Tensor | None = None

    def joined(self, later: StateEstimate) -> StateEstimate:
        """The estimate continued with later frames, the first of which is its last: the change of this state is
        propagated backwards by the smoother (Rauch, Tung and Striebel 1965) until it is negligible."""
        assert self.covariance is not None and self.gains is not None
        assert later.covariance is not None and later.gains is not None
        mean, covariance = self.mean.clone(), list(self.covariance)
        step, change = later.mean[:, 0] - mean[:, -1], later.covariance[0] - covariance[-1]
        mean[:, -1], covariance[-1] = later.mean[:, 0], later.covariance[0]
        for k in range(len(self.gains) - 1, -1, -1):
            gain = self.gains[k]
            step, change = (gain @ step[..., None])[..., 0], gain @ change @ gain.mT
            variance = covariance[k].diagonal(dim1=1, dim2=2)
            least = variance.amax(1, keepdim=True) * _TINY
            small = (step.square() <= _LITTLE**2 * variance + least).all()
            if bool(small & (change.diagonal(dim1=1, dim2=2).abs() <= _LITTLE * variance + least).all()):
                break
            mean[:, k] += step
            covariance[k] = covariance[k] + change
        return replace(later, t=torch.cat([self.t, later.t[:, 1:]], 1), mean=torch.cat([mean, later.mean[:, 1:]], 1),
                       covariance=covariance + later.covariance[1:], residual=None, gains=self.gains + later.gains)

    def replaced(self, rows: Tensor, other: StateEstimate) -> StateEstimate:
        """The estimate with that of some trajectories replaced; it cannot be continued by the filter."""
        covariances = None
        if self.covariance is not None and other.covariance is not None:
            covariances = []
            for old, new in zip(self.covariance, other.covariance, strict=True):
                if len(rows) < len(self.mean):
                    old = old.expand(len(self.mean), -1, -1).clone()
                    old[rows] = new.expand(len(rows), -1, -1)
                covariances.append(old if len(rows) < len(self.mean) else new)
        values: dict[str, Any] = {}
        for name in ("mean", "quadratic", "count", "members", "louder"):
            own, new = getattr(self, name), getattr(other, name)
            if own is not None or new is not None:
                values[name] = torch.zeros(len(self.mean), dtype=torch.bool) if own is None else own.clone()
                values[name][rows] = False if new is None else new
        return replace(self, covariance=covariances, gains=None, **values)

    @property
    def known(self) -> bool:
        """Whether the uncertainty of the states is known."""
        return self.covariance is not None or self.members is not None

    def last_context(self, size: int) -> tuple[Tensor, Tensor]:
        """Mean (S, P) and covariance (S, P, P) of the last P = `size` dimensions at the last frame."""
        mean = self.mean[:, -1, (first := self.mean.shape[-1] - size) :]
        if self.members is not None:
            away = self.members[:, -1, :, first:] - mean[:, None]
            return mean, away.mT @ away / away.shape[1]
        assert self.covariance is not None
        return mean, self.covariance[-1][:, first:, first:].expand(len(mean), -1, -1)

    @property
    def factor(self) -> Tensor:
        """Variance factors (S,) of trajectories, relative to the prior's; these apply to predicted variances, too."""
        return variance_factor(self.quadratic, self.count)

    @property
    def last(self) -> Tensor:
        """Time (S,) of the last frame of each trajectory."""
        return self.t.nan_to_num(nan=-torch.inf).amax(1)

    def select(self, rows: slice | Tensor) -> StateEstimate:
        """The estimates of some of the trajectories."""
        some = None if self.covariance is None else [c[rows] if len(c) > 1 else c for c in self.covariance]
        number = torch.arange(len(self.t))[rows].tolist()
        residual = self.residual and [self.residual[i] for i in number]
        members, louder, quieter = (None if a is None else a[rows] for a in (self.members, self.louder, self.quieter))
        return StateEstimate(self.t[rows], self.mean[rows], some, self.quadratic[rows], self.count[rows], residual,
                             members, None, louder, quieter)


def lift(code: Tensor, spread: Tensor | None, prior: StatePrior, size: int, contexts: int
         ) -> tuple[Tensor, Tensor | None]:
    """Posterior of [code, delayed codes] from that of the code, by regression on it under the prior."""
    n = len(prior.mean) - contexts
    if n == size:
        return code, spread
    cross, block = prior.covariance[size:n, :size], prior.covariance[:size, :size]
    block = block + 1e-10 * block.diagonal().max() * torch.eye(size)
    gain = torch.linalg.solve(block, cross.T).T
    mean = torch.cat([code, prior.mean[size:n] + (code - prior.mean[:size]) @ gain.T], -1)
    if spread is None:
        return mean, None
    rest = prior.covariance[size:n, size:n] - gain @ cross.T
    lower = gain @ spread
    top = torch.cat([spread, lower.transpose(1, 2)], -1)
    bottom = torch.cat([lower, rest + lower @ gain.T], -1)
    return mean, torch.cat([top, bottom], 1)


def with_context(mean: Tensor, cov: Tensor | None, context: ContextPrior) -> tuple[Tensor, Tensor | None]:
    """States and their covariance, with independent contexts appended to [code, memory] (S, n)."""
    size = context.covariance.shape[-1]
    joined = torch.cat([mean, context.mean.expand(len(mean), size)], 1)
    if cov is None:
        return joined, None
    whole = torch.nn.functional.pad(cov, (0, size, 0, size))
    if context.covariance.dim() == 3 and len(whole) == 1:
        whole = whole.repeat(len(context.covariance), 1, 1)
    whole[:, -size:, -size:] = context.covariance
    return joined, whole


def state_prior(states: CodeData, prior: GaussianPrior, size: int, contexts: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and covariance of states [code, memory, context]: the prior of the codes, the regression of memory on them,
    and standardised contexts."""
    memory = states.codes.shape[-1] - size - contexts
    own = prior.truncated(size)
    mean, covariance = own.mean.double(), own.covariance.double()
    if memory:
        mean, covariance = _with_memory(states, mean, covariance, memory)
    if contexts:
        mean, ones = torch.cat([mean, mean.new_zeros(contexts)]), torch.ones(contexts, dtype=torch.float64)
        covariance = torch.cat([covariance, ones]) if prior.independent else torch.block_diag(covariance, ones.diag())
    return mean, covariance


def _with_memory(states: CodeData, mean: Tensor, covariance: Tensor, memory: int) -> tuple[Tensor, Tensor]:
    size = len(mean)
    seen = states.codes[states.observed]
    code, hidden = seen[:, :size] - mean, seen[:, size : size + memory]
    if len(seen) < _DETERMINED * size or covariance.ndim == 1:  # too few for a regression
        own = hidden.var(0)
        return torch.cat([mean, hidden.mean(0)]), torch.cat([covariance, own]) if covariance.ndim == 1 else (
            torch.block_diag(covariance, own.diag()))
    # Posterior means of poorly observed codes vary less than the codes: the missing variance is added to their Gram
    # matrix.
    untold = len(code) * (covariance.diagonal() - code.square().mean(0)).clamp(min=0)
    gram = code.T @ code + untold.diag() + 1e-6 * code.square().sum() / size * torch.eye(size)
    gain = torch.linalg.solve(gram, code.T @ (hidden - hidden.mean(0))).T
    rest = hidden - hidden.mean(0) - code @ gain.T
    rest_covariance = rest.T @ rest / len(rest)
    rest_covariance = rest_covariance + 1e-9 * rest_covariance.diagonal().max() * torch.eye(memory)
    cross = gain @ covariance
    top = torch.cat([covariance, cross.T], 1)
    return torch.cat([mean, hidden.mean(0)]), torch.cat([top, torch.cat([cross, cross @ gain.T + rest_covariance], 1)])
