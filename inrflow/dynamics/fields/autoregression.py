"""Maps from step to step as terms, which need not be the flow of any linear field (negative or vanishing eigenvalues).

Autoregressions, beside codes that are known functions of time:

    state = [phases of known periods (k), codes (R), the leading r of them at the p - 1 steps before]

Between two steps states are interpolated. Of a process that is not linear the iterated map is no best forecast some
steps ahead: it is damped there, by code and lead as held-out forecasts say, whose errors are those of the lead, too.

Linear dynamics that flow: between two steps a generator moves states, and what its flow misses of three steps of the
map is added as a cubic; back in time another map leads, for the inverse of the first blows up what it damps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.states import SeasonalMean
from inrflow.numerics.matrix_functions import flow
from inrflow.numerics.phases import phases_of

_ON_STEP = 0.1  # of a step: times closer than this are those of a step (months of a calendar differ by so much)
_MOST_STEPS, _FEW_STEPS = 1 << 20, 100
_TIGHT, _HALVINGS = 1e-7, 8  # the same where a generator flows; its flows over 2, 1, 1/2, .. are kept


@register_term("autoregression")
class AutoregressionTerm(FieldTerm):
    """z(t + h step) = D_h z_h, where z_h is the h-th iterate of bias + sum_k A_k z(t - (k - 1) step); the phases are
    what the time says.

    Args:
        size: R, codes. lags: p. step: internal time. periods: internal time; harmonics: of each period.
        delayed: r, codes of which the past is kept; None: all.
        leads: H, steps ahead at which damping and errors are known; beyond them both go on as they did last.
        flows: whether a generator flows between steps; then lags is 1, without phases, damping and errors.
        season, season_harmonics: internal time; of the mean around which the maps move states, where they flow.
    """

    degree = 1
    damping: Tensor
    errors: Tensor
    back: Tensor
    generators: Tensor
    mean: Tensor
    between: Tensor

    def __init__(
        self, size: int, lags: int, step: float, periods: Sequence[float] = (), harmonics: Sequence[int] = (),
        delayed: int | None = None, leads: int = 1, flows: bool = False, season: float = 0.0, season_harmonics: int = 0,
    ) -> None:
        super().__init__()
        self.size, self.lags, self.step, self.leads = size, lags, step, leads
        self.periods, self.harmonics = [float(p) for p in periods], [int(k) for k in harmonics]
        self.delayed = size if delayed is None else delayed
        states = size + (lags - 1) * self.delayed
        self.matrix = nn.Parameter(torch.zeros(states, states))
        self.bias = nn.Parameter(torch.zeros(states))
        self._kept: tuple[Any, dict[Any, Any]] | None = None
        self.flows, self.season, self.season_harmonics = flows, season, season_harmonics
        if flows:
            self.register_buffer("back", torch.zeros(states + 1, states + 1))
            self.register_buffer("generators", torch.zeros(2, states + 1, states + 1))
            self.register_buffer("mean", torch.zeros(1 + 2 * season_harmonics, states))
            self.register_buffer("between", torch.zeros(states))
        self.register_buffer("damping", torch.ones(leads, size))
        self.register_buffer("errors", torch.zeros(leads, size, size))

    @property
    def known(self) -> int:
        """Number k of phases."""
        return 2 * sum(self.harmonics)

    def set(self, companion: Tensor, bias: Tensor, errors: Tensor, damping: Tensor | None = None) -> None:
        """Set the map of [z(t), z(t - step), ...], the bias of the leading codes, and of leads 1 .. H the covariances
        (H, R, R) of the codes' errors and their damping (H, R), by default none."""
        with torch.no_grad():
            self.matrix.copy_(companion)
            self.bias[: len(bias)].copy_(bias)
            self.errors.copy_(errors)
            if damping is not None:
                self.damping.copy_(damping)

    def set_flow(self, maps: Tensor, generators: Tensor, mean: Tensor, between: Tensor | None = None) -> None:
        """Set maps and generators (2, n + 1, n + 1) on [1, s], forwards and back, coefficients of the mean, and the
        variance (n,) that is added half way between steps."""
        with torch.no_grad():
            self.matrix.copy_(maps[0, 1:, 1:])
            self.bias.copy_(maps[0, 1:, 0])
            self.back.copy_(maps[1])
            self.generators.copy_(generators)
            self.mean.copy_(mean)
            if between is not None:
                self.between.copy_(between)

    def phases(self, t: Tensor) -> Tensor:
        """cos and sin (..., k) of the harmonics of all periods at times t (...,)."""
        return phases_of(t, self.periods, self.harmonics)

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        if self.flows:
            mean = SeasonalMean(self.mean, self.season)
            around = torch.nn.functional.pad(z - mean(t), (1, 0), value=1.0)
            return (around @ self._start().T)[..., 1:].to(z) + mean.rate()(t).to(z)
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
        if self.flows:
            return self._start()[1:, 1:].expand(len(z), n, n)
        result = z.new_zeros(n, n)
        result[k:, k:] = (self.matrix - torch.eye(n - k).to(self.matrix)) / self.step
        return result.expand(len(z), n, n)

    def _steps(self, gap: float) -> tuple[int, float]:
        """Whole steps of a time, and the share of the next one. Backwards as forwards: stationary series look alike."""
        steps = min(abs(gap) / self.step, float(_MOST_STEPS))
        whole = math.floor(steps + _ON_STEP)
        return whole, min(max((steps - whole - _ON_STEP) / (1 - 2 * _ON_STEP), 0.0), 1.0)

    def path(self, start: Tensor, times: Tensor) -> Tensor:
        """States (S, T, n) at times (S, T), the first of which are those of the states `start` (S, n)."""
        if self.flows:
            mean = SeasonalMean(self.mean, self.season)
            begun = torch.nn.functional.pad(start.double() - mean(times[:, 0]), (1, 0), value=1.0)
            return (self._carried(begun, times - times[:, :1])[..., 1:] + mean(times)).to(start)
        k, gaps = self.known, times - times[:, :1]
        parts = [[self._steps(gap) for gap in row] for row in gaps.tolist()]
        whole = torch.tensor([[step for step, _ in row] for row in parts])
        share = torch.tensor([[part for _, part in row] for row in parts], dtype=torch.float64)
        result = torch.empty(*times.shape, start.shape[1], dtype=start.dtype)
        step = torch.zeros(len(self.bias) + 1, len(self.bias) + 1, dtype=torch.float64)
        step[0, 0], step[1:, 0], step[1:, 1:] = 1.0, self.bias.detach(), self.matrix.detach()
        begun = torch.nn.functional.pad(start[:, k:].double(), (1, 0), value=1.0)
        for steps, now in _stepped(step, begun, whole):
            row, column = (whole == steps).nonzero(as_tuple=True)
            here = now[:, 1:] * self._damped(steps)
            values = here[row]
            if bool((share[row, column] > 0).any()):
                ahead = (now @ step.T)[:, 1:] * self._damped(steps + 1)
                values = values + share[row, column, None] * (ahead - here)[row]
            result[row, column, k:] = values.to(result)
        result[..., :k] = self.phases(times).to(result)
        return result

    def over(self, gaps: Tensor) -> Tensor:
        """Linear maps (S, n, n) of the flow over times (S,), where a generator flows between steps; the identity over
        NaN, the times of frames that shorter trajectories lack."""
        gaps = gaps.nan_to_num(nan=0.0)
        kept, eye = self._cache(), torch.eye(len(self.bias), dtype=torch.float64)
        if len(kept) > _FEW_STEPS:
            kept.clear()
        for gap in gaps.tolist():
            if ("over", gap) not in kept:
                basis = torch.nn.functional.pad(eye, (1, 0))
                moved = self._carried(basis, torch.full((len(eye), 1), gap, dtype=torch.float64))
                kept["over", gap] = moved[:, 0, 1:].T.detach()
        return torch.stack([kept["over", gap] for gap in gaps.tolist()])

    def unsure(self, gaps: Tensor) -> Tensor:
        """Variance (S, n) of where states are between steps, after times (S,): none at whole steps."""
        share = torch.remainder(gaps.nan_to_num(nan=0.0).double().abs() / self.step, 1.0)
        return 4 * (share * (1 - share))[:, None] * self.between.double()

    def _carried(self, states: Tensor, gaps: Tensor) -> Tensor:
        """States [1, s] (S, T, n + 1) after times (S, T), from those at first (S, n + 1)."""
        result = states[:, None].repeat(1, gaps.shape[1], 1)
        for way, sign in enumerate((1, -1)):
            row, column = (sign * gaps > _TIGHT * self.step).nonzero(as_tuple=True)
            if not len(row):
                continue
            steps = sign * gaps[row, column].double() / self.step
            whole = (steps + _TIGHT).floor()
            inside = steps - whole > _TIGHT
            anchor = torch.where(inside, (whole - 1).clamp(min=0), whole).long()  # of cubics, one step before
            step, flows, missed = self._operators(way)
            for number, now in _stepped(step, states, anchor):
                here = anchor == number
                moved, past = now[row[here]], (steps[here] - number)
                if bool(inside[here].any()):
                    moved = _between(moved, past, self.generators[way].double() * self.step, flows, missed)
                result = result.index_put((row[here], column[here]), moved)
        return result

    def _operators(self, way: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Of maps forwards (0) or back (1): a step, the flows of the generator over 2, 1, 1/2, .. steps, and what its
        flow misses of one, two and three steps."""
        kept = self._cache()
        if way not in kept:
            with torch.no_grad():
                step = torch.zeros_like(self.back, dtype=torch.float64)
                step[0, 0], step[1:, 0], step[1:, 1:] = 1.0, self.bias, self.matrix
                step = self.back.double() if way else step
                flows = [torch.linalg.matrix_exp(self.generators[way].double() * self.step * 2.0**-_HALVINGS)]
                for _ in range(_HALVINGS + 1):
                    flows.append(flows[-1] @ flows[-1])
                missed = [torch.linalg.matrix_power(step, j) - torch.linalg.matrix_power(flows[-2], j)
                          for j in (1, 2, 3)]
                kept[way] = step, flows[::-1], missed
        return kept[way]

    def _start(self) -> Tensor:
        """Generator of the flow at the beginning of a step forwards, by internal time."""
        one, two, three = self._operators(0)[2]
        return self.generators[0] + ((3 * one - 1.5 * two + three / 3) / self.step).to(self.generators)

    def _cache(self) -> dict[Any, Any]:
        """What is kept until parameters change."""
        values = [*self.parameters(), *self.buffers()]
        version = [one._version for one in values], self.bias.dtype, self.bias.data_ptr()
        if self._kept is None or self._kept[0] != version:
            self._kept = version, {}
        return self._kept[1]

    def _damped(self, steps: int) -> Tensor:
        """Factors (n - k,) of the iterate after so many steps, that of each past step its own."""
        each = [self._at_lead(steps)]
        each += [self._at_lead(steps - lag)[: self.delayed] for lag in range(1, self.lags)]
        return torch.cat(each)

    def _at_lead(self, steps: int) -> Tensor:
        """Damping (R,) after so many steps; beyond the last known lead it goes on as it did over half of them."""
        if steps <= 0:
            return torch.ones(self.size, dtype=torch.float64)
        if steps <= self.leads:
            return self.damping[steps - 1].double()
        half = self.leads - (self.leads // 2 or 1)
        last, before = self.damping[-1].double(), self._at_lead(half)
        rate = (last / before.clamp(min=1e-12)).clamp(0.0, 1.0) ** (1 / (self.leads - half))
        return last * rate ** (steps - self.leads)

    def _error(self, steps: int) -> Tensor:
        """Covariance (R, R) of the errors after so many steps; beyond the last known lead it grows as that of the map
        with the errors of one step."""
        if steps <= self.leads:
            return self.errors[max(steps, 1) - 1].double() * float(steps > 0)
        last, now = (self._accumulated(count) for count in (self.leads, steps))
        return self.errors[-1].double() * (now / last.clamp(min=1e-300)).clamp(min=1.0)

    def _accumulated(self, steps: int) -> Tensor:
        """Variance of all codes that so many steps with errors of their own give, by doubling."""
        flow = torch.eye(len(self.bias), dtype=torch.float64)
        noise, one = torch.zeros_like(flow), self.matrix.detach().double()
        its = torch.nn.functional.pad(self.errors[0].double(), 2 * (0, len(flow) - self.size))
        while steps:
            if steps & 1:
                flow, noise = one @ flow, one @ noise @ one.T + its
            one, its = one @ one, one @ its @ one.T + its
            steps >>= 1
        return noise.diagonal()[: self.size].sum()

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
        kept = self._cache()
        if steps not in kept:
            with torch.no_grad():
                flow = self._damped(steps)[:, None] * torch.linalg.matrix_power(self.matrix.double(), steps)
                r = self.delayed
                past = [self._error(steps - lag)[:r, :r] for lag in range(1, self.lags)]
                if len(kept) > self.leads:
                    kept.clear()
                kept[steps] = flow, torch.block_diag(self._error(steps), *past)
        return kept[steps]


def _stepped(step: Tensor, states: Tensor, numbers: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each of some numbers of steps, in increasing order, and the states (S, m) after so many by a map (m, m)."""
    at = 0
    for number in torch.unique(numbers).tolist():
        if number - at <= _FEW_STEPS:
            for _ in range(number - at):
                states = states @ step.T
        else:
            states = states @ torch.linalg.matrix_power(step, number - at).T
        at = number
        yield number, states


def _between(start: Tensor, steps: Tensor, generator: Tensor, flows: list[Tensor], missed: list[Tensor]) -> Tensor:
    """States [1, s] (P, n + 1) after `steps` (P,) below 4, by a generator whose flows over 2, 1, 1/2, .. steps are
    given, and a cubic of what it misses of whole steps."""
    moved, rest = start, steps
    for power, one in enumerate(flows):
        length = 2.0 ** (1 - power)
        taken = rest >= length
        moved = torch.where(taken[:, None], moved @ one.T, moved)
        rest = torch.where(taken, rest - length, rest)
    moved = flow(generator, moved, rest)
    for j, one in enumerate(missed, 1):
        others = [i for i in range(4) if i != j]
        weight = torch.stack([(steps - i) / (j - i) for i in others]).prod(0)
        moved = moved + weight[:, None] * (start @ one.T)
    return moved
