"""Vector autoregressions as terms of fields, with optional codes that are known functions of time:

    state = [phases of known periods (k), codes (R), the leading r of them at the p - 1 steps before]

States between two steps are interpolated. The iterated map is not the best forecast of a nonlinear process at long
leads: forecasts are damped for each code and lead, with error covariances for each lead, both from held-out forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from inrflow.dynamics.fields.base import register_term
from inrflow.dynamics.fields.step_map import MapTerm, stepped
from inrflow.numerics.phases import phases_of, rotation

_ON_STEP = 0.1  # share of a step below which a time counts as that of a step (calendar months vary as much)
_MOST_STEPS = 1 << 20


@register_term("autoregression")
class AutoregressionTerm(MapTerm):
    """z(t + h step) = D_h z_h with the h-th iterate z_h of bias + sum_k A_k z(t - (k - 1) step), and phases of time.

    Args:
        size: R, number of codes. lags: p. step: internal time. periods: internal time; harmonics: of each period.
        delayed: r, number of codes whose past is kept; None: all.
        leads: H, number of steps with given damping, errors and persistence; they are extrapolated beyond.
        stays: whether forecasts contain a share of the latest codes (persistence).
        corrected: whether direct forecasts correct the iterates.
    """

    damping: Tensor
    errors: Tensor
    staying: Tensor
    reach: Tensor
    latest: Tensor
    late: Tensor
    corrections: Tensor
    fading: Tensor

    def __init__(
        self, size: int, lags: int, step: float, periods: Sequence[float] = (), harmonics: Sequence[int] = (),
        delayed: int | None = None, leads: int = 1, stays: bool = False, corrected: bool = False,
    ) -> None:
        delayed = size if delayed is None else delayed
        super().__init__(size + (lags - 1) * delayed, step)
        self.size, self.lags, self.delayed, self.leads, self.stays = size, lags, delayed, leads, stays
        self.corrected = corrected
        self.periods, self.harmonics = [float(p) for p in periods], [int(k) for k in harmonics]
        self.register_buffer("damping", torch.ones(leads, size))
        self.register_buffer("errors", torch.zeros(leads, size, size))
        self.register_buffer("staying", torch.zeros(leads, 1), persistent=stays)
        self.register_buffer("reach", torch.tensor([[-math.inf], [math.inf]]).repeat(1, size), persistent=stays)
        latest = torch.cat([torch.arange(size), torch.arange(delayed).repeat(lags - 1)])  # code of each entry
        self.register_buffer("latest", latest, persistent=False)
        late = torch.cat([torch.zeros(size), torch.arange(1, lags).repeat_interleave(delayed)])  # steps, of each entry
        self.register_buffer("late", late.long(), persistent=False)
        self.register_buffer("corrections", torch.zeros(leads, delayed, lags * delayed), persistent=corrected)
        self.register_buffer("fading", torch.zeros(delayed), persistent=corrected)

    @property
    def known(self) -> int:
        """Number k of phases."""
        return 2 * sum(self.harmonics)

    def set(self, companion: Tensor, errors: Tensor, damping: Tensor | None = None, staying: Tensor | None = None,
            reach: Tensor | None = None, corrections: Tensor | None = None) -> None:
        """Set the companion map, error covariances (H, R, R) and damping (H, R) at leads 1 .. H, shares (H,) of the
        latest codes (default 0), the range (2, R) within which codes are subject to the map (default: all), and
        corrections (H, r, p r) of damped iterates, by the leading codes of all lags; beyond lead H they fade as
        iterates do from there to twice that lead."""
        with torch.no_grad():
            self.matrix.copy_(companion)
            self.errors.copy_(errors)
            for own, given in ((self.damping, damping), (self.staying[:, 0], staying), (self.reach, reach)):
                if given is not None:
                    own.copy_(given)
            if corrections is not None:
                now, later = (self._iterate(n)[0][: self.delayed].norm(dim=1) for n in (self.leads, 2 * self.leads))
                self.corrections.copy_(corrections)
                self.fading.copy_((later / now.clamp(min=1e-300)).clamp(max=1.0) ** (1 / self.leads))

    def phases(self, t: Tensor) -> Tensor:
        """cos and sin (..., k) of the harmonics of all periods at times t (...,)."""
        return phases_of(t, self.periods, self.harmonics)

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        k = self.known
        moved = z[..., k:] @ self.matrix.T + self.bias
        rates = z[..., :k] @ rotation(self.periods, self.harmonics).to(z).T
        return torch.cat([rates, (moved - z[..., k:]) / self.step], -1)

    def jacobian(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        k, n = self.known, z.shape[-1]
        result = z.new_zeros(n, n)
        result[k:, k:] = (self.matrix - torch.eye(n - k).to(self.matrix)) / self.step
        return result.expand(len(z), n, n)

    def steps(self, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """Whole steps in times (...), and fractions of the next; backwards as forwards, since series are stationary."""
        steps = (gaps.double().abs() / self.step).clamp(max=_MOST_STEPS)
        whole = (steps + _ON_STEP).floor()
        return whole.long(), ((steps - whole - _ON_STEP) / (1 - 2 * _ON_STEP)).clamp(0.0, 1.0)

    def path(self, start: Tensor, times: Tensor) -> Tensor:
        k, (whole, share) = self.known, self.steps(times - times[:, :1])
        result = torch.empty(*times.shape, start.shape[1], dtype=start.dtype)
        step, states = self.affine_map(), start[:, k:].double()
        for steps, now in stepped(step, self.begun(states), whole):
            row, column = (whole == steps).nonzero(as_tuple=True)
            here = self.damped(states, now, torch.tensor([steps]))
            values = here[row]
            if bool((share[row, column] > 0).any()):
                later = self.damped(states, now @ step.T, torch.tensor([steps + 1]))
                values = values + share[row, column, None] * (later - here)[row]
            result[row, column, k:] = values.to(result)
        result[..., :k] = self.phases(times).to(result)
        return result

    def begun(self, states: Tensor) -> Tensor:
        """States [1, s] (S, 1 + n - k) from which the map starts, within its range, of states (S, n - k)."""
        return torch.nn.functional.pad(states - self.beyond(states), (1, 0), value=1.0)

    def damped(self, states: Tensor, now: Tensor, steps: Tensor) -> Tensor:
        """Forecasts (S, n - k) after `steps` (S or 1,) from states (S, n - k), given iterates `now` (S, 1 + n - k)."""
        beyond, (moved, stays) = self.beyond(states), self._shares(steps)
        result = moved * now[:, 1:] + stays * (states - beyond)[:, self.latest] + beyond
        if self.corrected:
            leading = (states - beyond)[:, self._leading, None]
            result = result + (1 - stays) * (self._corrections(steps) @ leading)[..., 0]
        return result

    @property
    def _leading(self) -> Tensor:
        """Indices of the leading codes of all lags in a state."""
        return torch.cat([torch.arange(self.delayed), torch.arange(self.size, len(self.latest))])

    def _corrections(self, steps: Tensor) -> Tensor:
        """Corrections (S, n - k, p r) after `steps` (S,), for all lags."""
        table = torch.nn.functional.pad(self.corrections.double(), (0, 0, 0, self.size - self.delayed, 1, 0))
        fading = torch.nn.functional.pad(self.fading.double(), (0, self.size - self.delayed))[self.latest]
        lead = steps[:, None] - self.late
        return table[lead.clamp(0, self.leads), self.latest] * (
            fading ** (lead - self.leads).clamp(min=0))[..., None]

    def beyond(self, states: Tensor) -> Tensor:
        """Part of states (S, n - k) outside the range `reach`; past codes use that of the latest."""
        codes = states[:, : self.size]
        return (codes - codes.clamp(*self.reach.to(codes)))[:, self.latest]

    def _shares(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Factors (S, n - k) of the iterated map and of the latest codes after `steps` (S,), for all lags."""
        damped, stays = (self._at_lead(factors.double().expand(-1, self.size), steps[:, None] - self.late, first)
                         for factors, first in ((self.damping, 1.0), (self.staying, 0.0)))
        return (1 - stays) * damped, stays

    def _at_lead(self, factors: Tensor, steps: Tensor, first: float) -> Tensor:
        """Factors (S, n - k) after `steps` (S, n - k), from those (H, R) at leads 1 .. H, with `first` at lead 0;
        extrapolated geometrically beyond lead H with the mean rate of the last half of the leads."""
        table = torch.cat([torch.full_like(factors[:1], first), factors])
        half = self.leads - (self.leads // 2 or 1)
        rate = (table[-1] / table[half].clamp(min=1e-12)).clamp(0.0, 1.0) ** (1 / (self.leads - half))
        return table[steps.clamp(0, self.leads), self.latest] * rate[self.latest] ** (steps - self.leads).clamp(min=0)

    def _error(self, steps: int) -> Tensor:
        """Error covariance (R, R) at a lead; beyond lead H it grows as that of the map driven by one-step errors."""
        if steps <= self.leads:
            return self.errors[max(steps, 1) - 1].double() * float(steps > 0)
        now, last = (float(self._iterate(n)[1].diagonal()[: self.size].sum()) for n in (steps, self.leads))
        return self.errors[-1].double() * max(now / max(last, 1e-300), 1.0)

    def _iterate(self, steps: int) -> tuple[Tensor, Tensor]:
        """The undamped map (n - k, n - k) of `steps` steps, and the covariance of its accumulated one-step errors, from
        those of one step less or half as many."""
        kept = self._cache().setdefault("iterates", {})
        if steps not in kept:
            if not steps:
                flow, noise = torch.eye(len(self.bias), dtype=torch.float64), torch.zeros_like(self.matrix).double()
            elif steps % 2 or steps - 1 in kept:
                (flow, noise), one = self._iterate(steps - 1), self.matrix.detach().double()
                flow, noise = one @ flow, one @ noise @ one.T
                noise[: self.size, : self.size] += self.errors[0].double()
            else:
                half, its = self._iterate(steps // 2)
                flow, noise = half @ half, half @ its @ half.T + its
            if len(kept) > self.leads:
                kept.clear()
            kept[steps] = flow, noise
        return kept[steps]

    def propagate(self, covariance: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Covariances after times gap (S or 1,), and the linear maps (S or 1, n, n) to them, from covariances (S or 1,
        n, n)."""
        k, steps = self.known, list(zip(*map(Tensor.tolist, self.steps(gap)), strict=True))
        parts: dict[tuple[int, float], tuple[Tensor, Tensor]] = {}
        for whole, share in sorted(set(steps)):
            flow, noise = self._moved(whole)
            if share:
                next_flow, next_noise = self._moved(whole + 1)
                flow, noise = flow + share * (next_flow - flow), noise + share * (next_noise - noise)
            parts[whole, share] = flow, noise
        chosen = [parts[one] for one in (steps if len(parts) > 1 else steps[:1])]
        flow, noise = (torch.nn.functional.pad(torch.stack(each), (k, 0, k, 0)) for each in zip(*chosen, strict=True))
        moved = flow @ covariance @ flow.mT + noise
        return (moved + moved.mT) / 2, flow

    def _moved(self, steps: int) -> tuple[Tensor, Tensor]:
        """Map (n - k, n - k) of `steps` steps, damped, and the covariance of its errors for all lags of the state."""
        kept = self._cache().setdefault("moved", {})
        if steps not in kept:
            with torch.no_grad():
                (moved,), (stays,) = self._shares(torch.tensor([steps]))
                flow = moved[:, None] * self._iterate(steps)[0]
                flow += stays[:, None] * torch.eye(len(flow), dtype=torch.float64)[self.latest]
                if self.corrected:
                    flow[:, self._leading] += (1 - stays)[:, None] * self._corrections(torch.tensor([steps]))[0]
                r = self.delayed
                past = [self._error(steps - lag)[:r, :r] for lag in range(1, self.lags)]
                if len(kept) > self.leads:
                    kept.clear()
                kept[steps] = flow, torch.block_diag(self._error(steps), *past)
        return kept[steps]
