"""Vector autoregression of codes with ridge, chosen by folds that respect time.

    z(t+1) = b + sum_k A_k z(t+1-k),  k = 1 .. p

on the leading codes of one long series: a linear inverse model (Penland and Sardeshmukh 1995) with lags; each of the
others persists, damped, on its own. The number of leading codes, of lags and the ridge are those whose forecasts of
contiguous blocks that were left out miss least; a lead counts by the share of the variance that can be forecast there
at all.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LAGS = (1, 2, 3)
RIDGES = {"mean": (1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12), "damped": (1.0, 0.3, 0.1, 0.03, 1e-2)}  # by pull
_SIZES = (1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40, 55, 75, 100)
_BLOCKS, _LEADS = 5, 20
_STARTS, _NUMBERS = 200, 6000  # forecasts of a block at most, and codes of them all
_DETERMINED = 1.5  # frames for each unknown of an equation, at least: a fifth of them is left out
_ALIKE = 1.002  # times the least error: does as well
_WORSE, _PATIENCE = 1.01, 2  # times the least error, and sizes in a row that are worse: larger ones are not tried


@dataclass(frozen=True)
class Choice:
    """size: codes r; lags: p; ridge, relative to the mean square of the codes; pull: what a strong ridge leaves, the
    mean or damped persistence of each code."""

    size: int
    lags: int
    ridge: float
    pull: str


@dataclass(frozen=True)
class Autoregression:
    """A fitted autoregression.

    Attributes:
        choice: how it was fitted.
        matrices: (p, r, r), the first of the latest code; bias: (r,).
        decays: (R - r,) of the codes beyond these over one step.
        errors: (H,) mean squared error of held-out forecasts at leads 1 .. H, share of the variance of all codes.
    """

    choice: Choice
    matrices: Tensor
    bias: Tensor
    decays: Tensor
    errors: Tensor

    @property
    def companion(self) -> Tensor:
        """Map (n, n) of a state [z(t), z(t-1), ...] over one step, as the function of this name."""
        return companion(self.matrices, self.decays)


def companion(matrices: Tensor, decays: Tensor | None = None) -> Tensor:
    """Map (n, n) of [z(t), z(t-1), ...] over one step, from coefficients (p, r, r) of the leading codes and decays
    (R - r,) of the others, of which the past is not kept: n = R + (p - 1) r."""
    lags, size, _ = matrices.shape
    others = 0 if decays is None else len(decays)
    codes = size + others
    result = torch.zeros(codes + (lags - 1) * size, codes + (lags - 1) * size, dtype=matrices.dtype)
    result[:size, :size] = matrices[0]
    if decays is not None:
        result[size:codes, size:codes] = torch.diag(decays)
    result[:size, codes:] = matrices[1:].transpose(0, 1).flatten(1)
    kept = torch.eye((lags - 1) * size, lags * size, dtype=matrices.dtype)
    result[codes:, :size], result[codes:, codes:] = kept[:, :size], kept[:, size:]
    return result


def lagged(codes: Tensor, known: Tensor, lags: int, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """States (T, n) [z(t), z(t-1), ...] of codes (T, Z), and where (T,) all of these frames are known; `past`: codes
    (T, r) whose past is kept, by default all of them."""
    parts, whole = [], known.clone()
    for lag in range(lags):
        parts.append((codes if past is None or not lag else past).roll(lag, 0))
        moved = known.roll(lag, 0)
        moved[:lag] = False
        whole &= moved
    return torch.cat(parts, 1), whole


class AutoregressionSearch:
    """Autoregressions of one series of codes on equal steps, from one pass over their products.

    Args:
        codes: (T, Z), ordered by variance. known: (T,) frames that were observed.
        rest: variance that the codes leave, which every forecast misses.
        persistent: whether codes beyond the leading ones persist, damped; else they are forecast by nothing.
    """

    def __init__(
        self, codes: Tensor, known: Tensor, rest: float = 0.0, lags: tuple[int, ...] = LAGS, persistent: bool = True
    ) -> None:
        frames = len(codes)
        possible = [lag for lag in lags if frames >= 8 * (lag + 1)] or [lags[0]]
        self.codes, self.known, self.rest, self.lags = codes.double(), known, rest, possible
        most = max(possible)
        states, whole = lagged(self.codes, known, most)
        pairs = (whole[:-1] & known[1:]).nonzero()[:, 0]
        self.whole, self.mean_square = whole, float(self.codes[known].square().sum(1).mean())
        self.leads = max(1, min(_LEADS, frames // 5))
        edges = torch.linspace(0, frames, min(_BLOCKS, max(2, frames // 8)) + 1).round().long().tolist()
        self.blocks = list(itertools.pairwise(edges))
        start = torch.cat([torch.ones(frames, 1, dtype=torch.float64), states], 1)
        self.grams, self.crosses = [], []
        for low, high in self.blocks:
            rows = pairs[(pairs >= low) & (pairs < high)]
            self.grams.append(start[rows].T @ start[rows])
            self.crosses.append(start[rows].T @ self.codes[rows + 1])
        self.states, self.persistent = states, persistent

    def _kept(self, left_out: int | None) -> list[int]:
        return [number for number in range(len(self.blocks)) if number != left_out]

    def decays(self, left_out: int | None = None) -> Tensor:
        """Damped persistence (Z,) of each code over one step, of all blocks but one, or of all; never beyond 1."""
        size, kept = self.codes.shape[1], self._kept(left_out)
        gram = torch.stack([self.grams[k].diagonal()[1 : size + 1] for k in kept]).sum(0)
        cross = torch.stack([self.crosses[k][1 : size + 1].diagonal() for k in kept]).sum(0)
        return (cross / gram.clamp(min=1e-300)).clamp(-1.0, 1.0) * float(self.persistent)

    def _index(self, choice: Choice) -> Tensor:
        """Columns of the products that belong to the codes and lags of a choice."""
        lag = torch.arange(choice.lags)[:, None] * self.codes.shape[1]
        return torch.cat([torch.zeros(1, dtype=torch.long), (1 + lag + torch.arange(choice.size)).flatten()])

    def fit(self, choice: Choice, left_out: int | None = None) -> tuple[Tensor, Tensor]:
        """Coefficients (p, r, r) and bias (r,): of all blocks but one, or of all, then scaled down to the unit circle
        where they grow."""
        kept = self._kept(left_out)
        index, size = self._index(choice), choice.size
        gram = sum(self.grams[k][index[:, None], index] for k in kept)
        cross = sum(self.crosses[k][index, :size] for k in kept)
        assert isinstance(gram, Tensor) and isinstance(cross, Tensor)
        target = torch.zeros_like(cross)
        if choice.pull == "damped":
            every = torch.arange(size)
            target[1 + every, every] = cross[1 + every, every] / gram[1 + every, 1 + every].clamp(min=1e-300)
        damped = gram.clone()
        damped.diagonal()[1:].add_(choice.ridge * gram.diagonal()[1 : size + 1].mean())
        damped.diagonal()[0].add_(1e-9 * gram[0, 0] + 1e-300)
        weights = target + torch.linalg.solve(damped, cross - gram @ target)
        matrices = weights[1:].unflatten(0, (choice.lags, size)).transpose(1, 2).contiguous()
        if left_out is None and (radius := float(torch.linalg.eigvals(companion(matrices)).abs().max())) > 1:
            matrices = matrices * radius ** -torch.arange(1.0, choice.lags + 1, dtype=matrices.dtype)[:, None, None]
        return matrices, weights[0]

    @cached_property
    def _persistence(self) -> Tensor:
        """Mean squared error (H, 1 + Z) of damped persistence of blocks left out, at each lead that of all codes from
        one on: none at the end."""
        totals, count = torch.zeros(self.leads, self.codes.shape[1], dtype=torch.float64), torch.zeros(self.leads)
        for number, (low, high) in enumerate(self.blocks):
            factor = self.decays(number)
            for lead in range(1, self.leads + 1):
                starts = torch.arange(low, high - lead)
                starts = starts[self.known[starts] & self.known[starts + lead]]
                missed = self.codes[starts + lead] - factor**lead * self.codes[starts]
                totals[lead - 1] += missed.square().sum(0)
                count[lead - 1] += len(starts)
        mean = totals / count.clamp(min=1)[:, None]
        return torch.nn.functional.pad(mean.flip(1).cumsum(1).flip(1), (0, 1))

    def errors(self, choice: Choice) -> Tensor:
        """Mean squared error (H,) of forecasts of the blocks, each from its own frames by a fit to all others, share of
        the variance of all codes."""
        totals, counts = torch.zeros(2, self.leads, dtype=torch.float64)
        size, most = choice.size, self.codes.shape[1]
        for number, (low, high) in enumerate(self.blocks):
            starts = torch.arange(low, high)[self.whole[low:high]]
            most_starts = min(_STARTS, _NUMBERS // size)
            starts = starts[:: max(1, -(-len(starts) // most_starts))]
            matrices, bias = self.fit(choice, number)
            past = torch.cat([self.states[starts, lag * most : lag * most + size] for lag in range(choice.lags)], 1)
            weights = matrices.transpose(0, 1).flatten(1).T.contiguous()
            ends = starts[:, None] + torch.arange(1, self.leads + 1)
            inside = (ends < high) & self.known[ends.clamp(max=len(self.known) - 1)]
            targets = self.codes[ends.clamp(max=len(self.known) - 1), :size]
            path = []
            for _ in range(self.leads):
                code = torch.addmm(bias, past, weights)
                past = torch.cat([code, past[:, :-size]], 1) if choice.lags > 1 else code
                path.append(code)
            missed = (targets - torch.stack(path, 1)).square().sum(2)
            totals += torch.where(inside, missed, 0.0).sum(0)
            counts += inside.sum(0)
        every = totals / counts.clamp(min=1) + self._persistence[:, size] + self.rest
        return every[counts > 0] / max(self.mean_square + self.rest, 1e-300)

    def search(self, sizes: tuple[int, ...] = _SIZES) -> Autoregression:
        """The best choice, of equals the smallest, fitted to all blocks."""
        room = max(1, int(len(self.codes) / _DETERMINED))
        most = min(self.codes.shape[1], room)
        errors: dict[Choice, Tensor] = {}
        best: dict[int, float] = {}
        for size in sorted({min(size, most) for size in sizes}):
            for lags, pull in itertools.product(self.lags, RIDGES):
                if size * lags > room * self.lags[0]:
                    continue
                before = float("inf")
                for ridge in RIDGES[pull]:  # from strong to weak, until it does harm
                    choice = Choice(size, lags, ridge, pull)
                    errors[choice] = self.errors(choice)
                    value = score(errors[choice])
                    best[size] = min(best.get(size, value), value)
                    if value > _WORSE * before:
                        break
                    before = min(before, value)
            worse = [value for other, value in best.items() if other <= size][-_PATIENCE:]
            if len(best) > _PATIENCE and min(worse) > _WORSE * min(best.values()):
                break
        weights = 1 - torch.stack(list(errors.values())).nan_to_num(torch.inf).amin(0)
        scores = {choice: score(error, weights.clamp(min=0.0)) for choice, error in errors.items()}
        alike = [choice for choice, value in scores.items() if value <= _ALIKE * min(scores.values())]
        chosen = min(alike, key=lambda c: (c.size * c.lags, -c.ridge))
        return Autoregression(chosen, *self.fit(chosen), self.decays()[chosen.size :], errors[chosen])


def score(errors: Tensor, weights: Tensor | None = None) -> float:
    """Geometric mean of errors (H,) over leads, weighted by the share that can be forecast at all, by default that of
    the errors themselves; 1 where nothing can."""
    weights = (1 - errors).clamp(min=0.0) if weights is None else weights
    if not float(weights.sum()) > 0:
        return max(1.0, float(errors.min()))
    value = float(((errors.clamp(min=1e-30).log() * weights).sum() / weights.sum()).exp())
    return value if value == value else float("inf")
