"""Direct forecasts: ridge regressions of the codes at a lead on the latest lagged codes, towards damped persistence,
used at leads where they forecast left-out blocks better than the iterated map (Marcellino, Stock and Watson 2006), as
iterates of the map with the least one-step error are no best forecasts of nonlinear or partly observed processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_RIDGES = (10.0, 1.0, 0.1, 1e-2, 1e-4)  # relative to the mean square of the codes
_PARTS = (1, 2, 4)  # shares of the codes that are regressed on
_SURE = 2.0  # standard errors of a gain


@dataclass(frozen=True)
class Direct:
    """Hyperparameters of a regression: number of leading codes, of lags, and ridge."""

    size: int
    lags: int
    ridge: float


@dataclass(frozen=True)
class Starts:
    """Forecasts of known truth: past codes (S, p r), latest first; truth (S, H, r); which leads count (S, H); and the
    number (S,) of their block."""

    past: Tensor
    truth: Tensor
    inside: Tensor
    block: Tensor

    @classmethod
    def joined(cls, parts: Iterable[Starts]) -> Starts:
        """The starts of several parts."""
        return cls(*map(torch.cat, zip(*((own.past, own.truth, own.inside, own.block) for own in parts), strict=True)))

    def select(self, rows: Tensor) -> Starts:
        """Some of the starts."""
        return Starts(self.past[rows], self.truth[rows], self.inside[rows], self.block[rows])

    def missed(self, decay: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Errors (S, H, r), 0 where leads do not count, of decays (H, r) of the latest codes and weights (m, H, r) of
        past codes with indices (m,)."""
        forecast = torch.einsum("sn,nhr->shr", self.past[:, index], weights)
        return (self.truth - decay * self.past[:, None, : decay.shape[1]] - forecast) * self.inside[..., None]

    def fits(self, choices: Sequence[Direct]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Decays, indices and weights, as in `missed`, fitted to all starts by each of the choices."""
        size, seen = self.truth.shape[2], self.inside.double()
        latest, gram = self.past[:, :size], self.past.T @ self.past
        power = seen.T @ latest.square()
        decay = torch.einsum("sh,shr,sr->hr", seen, self.truth, latest) / power.clamp(min=1e-300)
        left = (self.truth - decay * latest[:, None]) * seen[..., None]
        cross = torch.einsum("sn,shr->nhr", self.past, left) * (len(seen) / seen.sum(0).clamp(min=1))[:, None]
        for choice in choices:
            index = (torch.arange(choice.lags)[:, None] * size + torch.arange(choice.size)).flatten()
            damped = gram[index[:, None], index]
            damped.diagonal().add_(choice.ridge * damped.diagonal()[: choice.size].mean().clamp(min=1e-300))
            yield decay, index, torch.linalg.solve(damped, cross[index].flatten(1)).unflatten(1, decay.shape)

    def planned(self, plan: Sequence[Direct | None]) -> Tensor:
        """Maps (H, p r, r) of past codes, fitted to all starts by the choice of each lead, 0 without one."""
        result = self.past.new_zeros(len(plan), self.past.shape[1], self.truth.shape[2])
        choices = list({choice for choice in plan if choice})
        for choice, (decay, index, weights) in zip(choices, self.fits(choices), strict=True):
            for lead in (lead for lead, own in enumerate(plan) if own == choice):
                result[lead, : decay.shape[1]] = decay[lead].diag()
                result[lead, index] += weights[:, lead]
        return result

    def plan(self, missed: Tensor) -> list[Direct | None]:
        """The best choice for each lead, None where choices made on other blocks are not surely better in a block than
        other forecasts, which missed (S, H, r)."""
        size, blocks = self.truth.shape[2], self.block.unique()
        choices = [Direct(part, lag, ridge) for part in sorted({-(-size // share) for share in _PARTS})
                   for lag in sorted({1, self.past.shape[1] // size}) for ridge in _RIDGES]
        gains = torch.empty(len(choices), missed.shape[1], len(blocks), dtype=torch.float64)
        for number, block in enumerate(blocks):
            inside = self.block == block
            own, before = self.select(inside), missed[inside].square().sum((0, 2))
            for k, fit in enumerate(self.select(~inside).fits(choices)):
                gains[k, :, number] = before - own.missed(*fit).square().sum((0, 2))
        others = (gains.sum(2, keepdim=True) - gains).argmax(0)  # the best choice of other blocks
        gained = gains.gather(0, others[None])[0]
        surely = gained.mean(1) > _SURE * gained.std(1) / len(blocks) ** 0.5
        return [choices[k] if sure else None for sure, k in zip(surely, gains.sum(2).argmax(0), strict=True)]

    def replaced(self, missed: Tensor, plan: Sequence[Direct | None]) -> Tensor:
        """Errors (S, H, r), at planned leads those of direct forecasts fitted to other blocks."""
        result, planned = missed.clone(), torch.tensor([own is not None for own in plan])[:, None]
        for block in self.block.unique() if any(plan) else ():
            inside = self.block == block
            maps, own = self.select(~inside).planned(plan), self.select(inside)
            other = (own.truth - torch.einsum("sn,hnr->shr", own.past, maps)) * own.inside[..., None]
            result[inside] = torch.where(planned, other, missed[inside])
        return result
