"""Autoregressions as terms, beside codes that are known functions of time:

    state = [phases of known periods (k), codes (R), the leading r of them at the p - 1 steps before]

Between two steps states are interpolated. Of a process that is not linear the iterated map is no best forecast some
steps ahead: it is damped there, by code and lead as held-out forecasts say, whose errors are those of the lead, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inrflow.dynamics.fields.base import register_term
from inrflow.dynamics.fields.step_map import MapTerm, stepped
from inrflow.numerics.phases import phases_of

_ON_STEP = 0.1  # of a step: times closer than this are those of a step (months of a calendar differ by so much)
_MOST_STEPS = 1 << 20
_NEXT = 4  # steps that are taken one by one


@register_term("autoregression")
class AutoregressionTerm(MapTerm):
    """z(t + h step) = D_h z_h, where z_h is the h-th iterate of bias + sum_k A_k z(t - (k - 1) step); the phases are
    what the time says.

    Args:
        size: R, codes. lags: p. step: internal time. periods: internal time; harmonics: of each period.
        delayed: r, codes of which the past is kept; None: all.
        leads: H, steps ahead at which damping, errors and shares are known; beyond them all go on as they did last.
        stays: whether shares of the latest codes stay.
    """

    damping: Tensor
    errors: Tensor
    staying: Tensor
    reach: Tensor
    latest: Tensor

    def __init__(
        self, size: int, lags: int, step: float, periods: Sequence[float] = (), harmonics: Sequence[int] = (),
        delayed: int | None = None, leads: int = 1, stays: bool = False,
    ) -> None:
        delayed = size if delayed is None else delayed
        super().__init__(size + (lags - 1) * delayed, step)
        self.size, self.lags, self.delayed, self.leads, self.stays = size, lags, delayed, leads, stays
        self.periods, self.harmonics = [float(p) for p in periods], [int(k) for k in harmonics]
        self.register_buffer("damping", torch.ones(leads, size))
        self.register_buffer("errors", torch.zeros(leads, size, size))
        self.register_buffer("staying", torch.zeros(leads, 1), persistent=stays)
        self.register_buffer("reach", torch.tensor([[-math.inf], [math.inf]]).repeat(1, size), persistent=stays)
        latest = torch.cat([torch.arange(size), torch.arange(delayed).repeat(lags - 1)])  # of each past code
        self.register_buffer("latest", latest, persistent=False)

    @property
    def known(self) -> int:
        """Number k of phases."""
        return 2 * sum(self.harmonics)

    def set(self, companion: Tensor, errors: Tensor, damping: Tensor | None = None, staying: Tensor | None = None,
            reach: Tensor | None = None) -> None:
        """Set the map of [z(t), z(t - step), ...], and of leads 1 .. H the covariances (H, R, R) of the codes' errors,
        their damping (H, R) and the shares (H,) that stay, by default none, and the reach (2, R), by default all."""
        with torch.no_grad():
            self.matrix.copy_(companion)
            self.errors.copy_(errors)
            for own, given in ((self.damping, damping), (self.staying[:, 0], staying), (self.reach, reach)):
                if given is not None:
                    own.copy_(given)

    def phases(self, t: Tensor) -> Tensor:
        """cos and sin (..., k) of the harmonics of all periods at times t (...,)."""
        return phases_of(t, self.periods, self.harmonics)

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        k = self.known
        rates, place = [], 0
        for period, count in zip(self.periods, self.harmonics, strict=True):
            cosine, sine = z[..., place : place + count], z[..., place + count : place + 2 * count]
            speed = 2 * math.pi / period * torch.arange(1, count + 1).to(z)
            rates += [-speed * sine, speed * cosine]
            place += 2 * count
        moved = z[..., k:] @ self.matrix.T + self.bias
        return torch.cat([*rates, (moved - z[..., k:]) / self.step], -1)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        k, n = self.known, z.shape[-1]
        result = z.new_zeros(n, n)
        result[k:, k:] = (self.matrix - torch.eye(n - k).to(self.matrix)) / self.step
        return result.expand(len(z), n, n)

    def _steps(self, gap: float) -> tuple[int, float]:
        """Whole steps of a time, and the share of the next one. Backwards as forwards: stationary series look alike."""
        steps = min(abs(gap) / self.step, float(_MOST_STEPS))
        whole = math.floor(steps + _ON_STEP)
        return whole, min(max((steps - whole - _ON_STEP) / (1 - 2 * _ON_STEP), 0.0), 1.0)

    def path(self, start: Tensor, times: Tensor) -> Tensor:
        k, gaps = self.known, times - times[:, :1]
        parts = [[self._steps(gap) for gap in row] for row in gaps.tolist()]
        whole = torch.tensor([[step for step, _ in row] for row in parts])
        share = torch.tensor([[part for _, part in row] for row in parts], dtype=torch.float64)
        result = torch.empty(*times.shape, start.shape[1], dtype=start.dtype)
        step, begun = self._affine(), start[:, k:].double()
        beyond = self.beyond(begun)
        begun = begun - beyond
        latest = begun[:, self.latest]

        def ahead(steps: int, now: Tensor) -> Tensor:
            moved, stays = self._shares(steps)
            return moved * now[:, 1:] + stays * latest + beyond

        for steps, now in stepped(step, torch.nn.functional.pad(begun, (1, 0), value=1.0), whole):
            row, column = (whole == steps).nonzero(as_tuple=True)
            here = ahead(steps, now)
            values = here[row]
            if bool((share[row, column] > 0).any()):
                values = values + share[row, column, None] * (ahead(steps + 1, now @ step.T) - here)[row]
            result[row, column, k:] = values.to(result)
        result[..., :k] = self.phases(times).to(result)
        return result

    def beyond(self, states: Tensor) -> Tensor:
        """What of states (S, n - k) lies beyond the reach: of past codes as of the latest."""
        codes = states[:, : self.size]
        return (codes - codes.clamp(*self.reach.to(codes)))[:, self.latest]

    def _shares(self, steps: int) -> tuple[Tensor, Tensor]:
        """Factors (n - k,) of the iterate after so many steps, and of the latest codes; each past step has its own."""
        sizes = [self.size, *[self.delayed] * (self.lags - 1)]
        damped, stays = (torch.cat([self._at_lead(factors, steps - lag, first).expand(self.size)[:size]
                                    for lag, size in enumerate(sizes)])
                         for factors, first in ((self.damping, 1.0), (self.staying, 0.0)))
        return (1 - stays) * damped, stays

    def _at_lead(self, factors: Tensor, steps: int, first: float) -> Tensor:
        """Of factors (H, R or 1) those after so many steps, `first` after none; beyond the last known lead they go on
        as they did over half of them."""
        if steps <= 0:
            return torch.full((1,), first, dtype=torch.float64)
        if steps <= self.leads:
            return factors[steps - 1].double()
        half = self.leads - (self.leads // 2 or 1)
        last, before = factors[-1].double(), self._at_lead(factors, half, first)
        rate = (last / before.clamp(min=1e-12)).clamp(0.0, 1.0) ** (1 / (self.leads - half))
        return last * rate ** (steps - self.leads)

    def _error(self, steps: int) -> Tensor:
        """Covariance (R, R) of the errors after so many steps; beyond the last known lead it grows as that of the map
        with the errors of one step."""
        if steps <= self.leads:
            return self.errors[max(steps, 1) - 1].double() * float(steps > 0)
        return self.errors[-1].double() * max(self._total(steps) / max(self._total(self.leads), 1e-300), 1.0)

    def _total(self, steps: int) -> float:
        """Variance of all codes that so many steps with errors of one step give."""
        totals = self._cache().setdefault("totals", {})
        if steps not in totals:
            self._iterate(steps)
        return totals[steps]

    def _iterate(self, steps: int) -> Tensor:
        """The map (n - k, n - k) of so many steps, not damped; the variance that their errors give is kept beside. From
        the steps asked for last where these are next to it, else by doubling."""
        kept = self._cache()
        at, flow, noise = kept.get("iterate", (-1, None, None))
        if at == steps:
            return flow
        one, eye = self.matrix.detach().double(), torch.eye(len(self.bias), dtype=torch.float64)
        its = torch.nn.functional.pad(self.errors[0].double(), 2 * (0, len(eye) - self.size))
        if 0 <= at < steps <= at + _NEXT:
            for _ in range(steps - at):
                flow, noise = one @ flow, one @ noise @ one.T + its
        else:
            flow, noise, left = eye, torch.zeros_like(eye), steps
            while left:
                if left & 1:
                    flow, noise = one @ flow, one @ noise @ one.T + its
                one, its, left = one @ one, one @ its @ one.T + its, left >> 1
        kept["iterate"] = steps, flow, noise
        kept.setdefault("totals", {})[steps] = float(noise.diagonal()[: self.size].sum())
        return flow

    def propagate(self, covariance: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances after times gap (S or 1,) and the maps (S or 1, n, n) that lead there, from covariances
        (S or 1, n, n)."""
        k = self.known
        steps = [self._steps(one) for one in gap.tolist()]
        distinct = sorted(set(steps))
        parts = []
        for whole, share in distinct:
            flow, noise = self._moved(whole)
            if share:
                next_flow, next_noise = self._moved(whole + 1)
                flow, noise = flow + share * (next_flow - flow), noise + share * (next_noise - noise)
            parts.append((flow, noise))
        chosen = [parts[distinct.index(one)] for one in (steps if len(distinct) > 1 else steps[:1])]
        flow = torch.nn.functional.pad(torch.stack([one for one, _ in chosen]), (k, 0, k, 0))
        moved = flow @ covariance @ flow.mT
        moved = moved + torch.nn.functional.pad(torch.stack([noise for _, noise in chosen]), (k, 0, k, 0))
        return (moved + moved.mT) / 2, flow

    def _moved(self, steps: int) -> tuple[Tensor, Tensor]:
        """Map (n - k, n - k) of so many steps, and the covariance of its errors; past codes have those of their step.
        """
        kept = self._cache().setdefault("moved", {})
        if steps not in kept:
            with torch.no_grad():
                moved, stays = self._shares(steps)
                flow = moved[:, None] * self._iterate(steps)
                flow += stays[:, None] * torch.eye(len(flow), dtype=torch.float64)[self.latest]
                r = self.delayed
                past = [self._error(steps - lag)[:r, :r] for lag in range(1, self.lags)]
                if len(kept) > self.leads:
                    kept.clear()
                kept[steps] = flow, torch.block_diag(self._error(steps), *past)
        return kept[steps]
