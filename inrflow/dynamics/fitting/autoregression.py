"""Vector autoregression of codes with ridge, chosen by blocked cross-validation in time.

    z(t+1) = sum_k A_k z(t+1-k),  k = 1 .. p

for the leading codes of one long series: a linear inverse model (Penland and Sardeshmukh 1995) with lags; each of the
other codes has damped persistence. Forecasts of contiguous blocks that were left out give the damping of the iterated
map (a regression factor for each code and lead), the covariance of the remaining errors, and the number of leading
codes, number of lags and ridge with the smallest error. Leads are weighted by the share of their variance that can be
forecast at all. At leads where direct regressions forecast left-out blocks surely better, these replace the iterates.

Cross-validated blocks share the mean of the series, but later frames may have another mean: forecasts of blocks from
earlier frames alone give the share of the latest codes that persists, and an overall damping (stacking, Wolpert 1992).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fitting.direct import Direct, Starts

LAGS = (1, 2, 3)
RIDGES = (1.0, 0.3, 0.1, 0.03, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)  # of the deviation from damped persistence
_SIZES = (1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40, 55, 75, 100)
_BLOCKS, _LEADS = 5, 20
_STARTS, _NUMBERS = 200, 6000  # largest number of forecasts in a block, and of their values
_STARTS_OF_ERRORS, _STARTS_OF_FITS = 500, 1000  # largest numbers in a block
_PRIOR_STARTS = 50.0  # weight of the prior (the undamped map) in numbers of forecasts
_FRAMES_OF_LAG = 80  # frames for each lag beyond the first: with fewer, folds choose by chance
_BY_CHANCE, _EACH, _FAR_BETTER = 100, 5.0, 0.7  # in fewer frames folds choose by chance:
# frames a code by default; error of another choice, relative to the default, to be preferred
_DETERMINED = 8.0  # least number of frames for each coupled code and lag
_LEAST_RIDGE = 1e-8  # of the choice with `half`
_ALIKE, _NEARLY, _AMPLE = 1.002, 1.0002, 50.0  # tolerances of the least error; frames an unknown for the second
_LATER, _SURE, _REACH = 6, 4.0, 1.5  # blocks of the second half; squared standard errors; times the range of codes
_WORSE, _PATIENCE = 1.01, 2  # early stopping: times the least error, and number of sizes in a row


@dataclass(frozen=True)
class Choice:
    """Hyperparameters. size: codes r; lags: p; ridge, relative to the mean square of the codes, towards their damped
    persistence; half: whether to average the least-squares solution and damped persistence."""

    size: int
    lags: int
    ridge: float
    half: bool = False


@dataclass(frozen=True)
class Autoregression:
    """A fitted autoregression.

    Attributes:
        choice: its hyperparameters.
        matrices: (p, r, r), that of the latest code first.
        damping: (H, r) factors of forecasts at leads 1 .. H; covariances: (H, r, r) of their errors.
        errors: (H,) mean squared error of held-out forecasts at leads 1 .. H, relative to the variance of all codes.
        plan: (H,) direct forecasts, None where the map is iterated; corrections: (H, r, p r), their differences to it.
    """

    choice: Choice
    matrices: Tensor
    damping: Tensor
    covariances: Tensor
    errors: Tensor
    plan: tuple[Direct | None, ...] = ()
    corrections: Tensor | None = None

    def for_new_frames(self, ratio: Tensor, variances: Tensor, lasting: Tensor) -> Autoregression:
        """Extension to all R codes and to frames not used to fit the modes, where codes are `ratio` (R,) times as
        variable; uncoupled codes have `variances` (R,) and autocorrelations `lasting` (H, R) at lags 1 to H."""
        wider = ratio[: self.choice.size].clamp(min=1.0).sqrt()
        powers = lasting[0] ** torch.arange(1, len(lasting) + 1)[:, None]
        rest, powers = (one[:, len(wider) :] for one in (lasting, powers))
        damping = (rest / torch.where(powers == 0, 1.0, powers)).clamp(0.0, 1.0)
        left = torch.diag_embed(variances[len(wider) :] * (1 - (damping * powers).square()))
        own = self.covariances * wider * wider[:, None]
        every = torch.stack([torch.block_diag(*pair) for pair in zip(own, left, strict=True)])
        return replace(self, damping=torch.cat([self.damping, damping], 1), covariances=every)


def companion(matrices: Tensor, decays: Tensor | None = None) -> Tensor:
    """Companion matrix (n, n) of [z(t), z(t-1), ...] from coefficients (p, r, r) of the leading codes and decays (R -
    r,) of the others, whose past is not part of the state: n = R + (p - 1) r."""
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
    """States (T, n) [z(t), z(t-1), ...] of codes (T, Z), and where (T,) all their frames are known; `past`: codes (T,
    r) to be used at past frames, by default all."""
    frames = torch.arange(len(codes))[:, None] - torch.arange(lags)
    before = (codes if past is None else past)[frames[:, 1:]].flatten(1)
    return torch.cat([codes, before], 1), (known[frames] & (frames >= 0)).all(1)


def blocks_of(frames: int) -> list[tuple[int, int]]:
    """First frames and ends of contiguous blocks for cross-validation."""
    edges = torch.linspace(0, frames, min(_BLOCKS, max(2, frames // 8)) + 1).round().long().tolist()
    return list(itertools.pairwise(edges))


def relaxation_range(codes: Tensor) -> Tensor:
    """Bounds (2, R), 1.5 times the range of codes (T, R), within which codes relax to their mean."""
    return _REACH * torch.stack([codes.amin(0), codes.amax(0)])


def persistence_shares(codes: Tensor, known: Tensor, regression: Autoregression) -> tuple[Tensor, Tensor]:
    """Factors (H,) of forecasts of codes (T, R), and shares (H,) of the latest codes added to them. First the shares,
    then an overall factor, by regression on forecasts of blocks of the second half of the frames that are `known` (T,),
    each fitted to earlier frames around their mean; shrunk where blocks disagree (James and Stein)."""
    choice, (leads, size), products = regression.choice, regression.damping.shape, list[Tensor]()
    edges = torch.linspace(len(codes) / 2, len(codes), _LATER + 1).round().long().tolist()
    for low, high in itertools.pairwise(edges):
        around = codes - codes[:low][known[:low]].mean(0)
        search = AutoregressionSearch(around[:low], known[:low], lags=(choice.lags,))
        matrices = search.fit(choice, stable=True)
        fixed = search.corrections(choice, matrices, regression.damping, regression.plan)
        term = AutoregressionTerm(size, choice.lags, 1.0, (), (), choice.size, leads, True, fixed is not None).double()
        step = companion(matrices, search.decays()[choice.size :])
        term.set(step, term.errors, regression.damping, None, relaxation_range(around[:low]), fixed)
        states, whole = lagged(around, known, choice.lags, around[:, : choice.size])
        starts, inside, ends = _starts(whole, known, (low, high), leads, _STARTS, len(codes))
        path = term.path(states[starts], torch.arange(leads + 1.0).expand(len(starts), -1))[:, 1:, :size].detach()
        every = torch.stack([around[ends], path, around[starts, None].expand_as(path)])
        products.append(torch.einsum("ishr,jshr,sh->hij", every, every, inside.double()))
    truth, forecast, latest = torch.eye(3, dtype=torch.float64)[:, None].expand(3, leads, 3)
    stays = _shrunk_regression(torch.stack(products), truth - forecast, latest - forecast)
    both = forecast + stays[:, None] * (latest - forecast)
    believed = 1 - _shrunk_regression(torch.stack(products), truth - both, -both)
    share = believed * stays
    return (believed - share) / (1 - share).clamp(min=1e-12), share


def _starts(whole: Tensor, known: Tensor, block: tuple[int, int], leads: int, most: int, stop: int
            ) -> tuple[Tensor, Tensor, Tensor]:
    """At most `most` initial frames (S,) in a block with known lags (`whole`, (T,)), which leads (S, H) end in known
    frames before `stop`, and the indices (S, H) of these."""
    starts = torch.arange(*block)[whole[slice(*block)]]
    starts = starts[:: max(1, -(-len(starts) // most))]
    ends = starts[:, None] + torch.arange(1, leads + 1)
    inside, ends = ends < stop, ends.clamp(max=len(known) - 1)
    return starts, inside & known[ends], ends


def _shrunk_regression(products: Tensor, missed: Tensor, direction: Tensor) -> Tensor:
    """Regression coefficients (H,) in [0, 1] of residuals `missed` on a direction, both combinations (H, 3) of truth,
    forecast and latest codes, from products (B, H, 3, 3) of blocks; shrunk by the variance between blocks."""
    cross, square = (torch.einsum("bhij,hi,hj->bh", products, one, direction) for one in (missed, direction))
    total = square.sum(0).clamp(min=1e-300)
    share = cross.sum(0) / total
    unsure = ((cross - share * square) / total).square().sum(0) * _LATER / (_LATER - 1)
    return (share * (1 - _SURE * unsure / share.square().clamp(min=1e-300)).clamp(min=0.0)).clamp(0.0, 1.0)


class AutoregressionSearch:
    """Autoregressions of one series of codes with equal steps, from one pass over its lagged products.

    Args:
        codes: (T, Z), ordered by variance. known: (T,) frames that were observed.
        rest: variance outside the codes, an error of every forecast.
        persistent: whether the codes that are not coupled have damped persistence; else their forecast is zero.
    """

    def __init__(
        self, codes: Tensor, known: Tensor, rest: float = 0.0, lags: tuple[int, ...] = LAGS, persistent: bool = True
    ) -> None:
        frames = len(codes)
        possible = [lag for lag in lags if frames >= _FRAMES_OF_LAG * (lag - 1)] or [lags[0]]
        self.codes, self.known, self.rest, self.lags = codes.double(), known, rest, possible
        most = max(possible)
        states, whole = lagged(self.codes, known, most)
        pairs = (whole[:-1] & known[1:]).nonzero()[:, 0]
        self.whole, self.mean_square = whole, float(self.codes[known].square().sum(1).mean())
        self.leads, self.blocks = max(1, min(_LEADS, frames // 5)), blocks_of(frames)
        rows = [pairs[(pairs >= low) & (pairs < high)] for low, high in self.blocks]
        kept = [[k for k in range(len(rows)) if k != left_out] for left_out in range(len(rows) + 1)]  # last: all
        parts = torch.stack([states[some].T @ torch.cat([states[some], self.codes[some + 1]], 1) for some in rows])
        self.products = [parts[some].sum(0) for some in kept]
        self.pairs = [sum(len(rows[k]) for k in some) for some in kept]
        self.states = states
        self.persistent = float(persistent)

    def decays(self, left_out: int = -1) -> Tensor:
        """Autocorrelation (Z,) of each code at lag 1, from all blocks or all but one: least squares corrected for its
        bias in short series (Kendall, 1954), clipped to [-1, 1]."""
        gram, cross = (one.diagonal()[: self.codes.shape[1]] for one in self._split(left_out))
        decays = cross / gram.clamp(min=1e-300)
        return (decays + (1 + 3 * decays) / max(self.pairs[left_out], 1)).clamp(-1.0, 1.0)

    def _split(self, left_out: int) -> tuple[Tensor, Tensor]:
        """Products of states with themselves, and with the codes of the next frame."""
        products, size = self.products[left_out], self.codes.shape[1]
        return products[:, :-size], products[:, -size:]

    def fit(self, choice: Choice, left_out: int = -1, stable: bool = False) -> Tensor:
        """Coefficients (p, r, r) from all blocks or all but one; `stable`: scaled to spectral radius 1 if unstable.
        There is no intercept: the mean of codes is 0."""
        (gram, cross), size, lags = self._split(left_out), choice.size, torch.arange(choice.lags)[:, None]
        index = (lags * self.codes.shape[1] + torch.arange(size)).flatten()  # columns of its codes and lags
        gram, cross = gram[index[:, None], index], cross[index, :size]
        target = torch.zeros_like(cross)
        target.diagonal().copy_(self.decays(left_out)[:size])
        damped, share = gram.clone(), 0.5 if choice.half else 1.0
        damped.diagonal().add_(choice.ridge * gram.diagonal()[:size].mean())
        weights = target + share * torch.linalg.solve(damped, cross - gram @ target)
        matrices = weights.unflatten(0, (choice.lags, size)).transpose(1, 2).contiguous()
        if stable and (radius := float(torch.linalg.eigvals(companion(matrices)).abs().max())) > 1:
            matrices = matrices * radius ** -torch.arange(1.0, choice.lags + 1, dtype=matrices.dtype)[:, None, None]
        return matrices

    @cached_property
    def _persistence(self) -> tuple[Tensor, Tensor]:
        """Mean squared errors (H, 1 + Z) of damped persistence in blocks left out, summed over the codes from each
        index on, and errors (H,) of the zero forecast (the seasonal cycle)."""
        moments = _Moments()
        for number, (low, high) in enumerate(self.blocks):
            starts, inside, ends = _starts(self.whole, self.known, (low, high), self.leads, _STARTS, high)
            powers = (self.persistent * self.decays(number)) ** torch.arange(1, self.leads + 1)[:, None]
            moments.add(self.codes[ends], powers * self.codes[starts, None], inside)
        usual = torch.stack([block[1].sum(1) for block in moments.blocks]).sum(0) / moments.count.clamp(min=1)
        return torch.nn.functional.pad(moments.errors().flip(1).cumsum(1).flip(1), (0, 1)), usual

    def _past(self, choice: Choice, starts: Tensor) -> Tensor:
        """Leading codes (S, p r) of starts (S,) and of the frames before."""
        size, most = choice.size, self.codes.shape[1]
        return torch.cat([self.states[starts, lag * most : lag * most + size] for lag in range(choice.lags)], 1)

    def _path(self, choice: Choice, matrices: Tensor, past: Tensor) -> Tensor:
        """Forecasts (S, H, r) of the leading codes from past ones (S, p r)."""
        size = choice.size
        weights, path = matrices.transpose(0, 1).flatten(1).T.contiguous(), []
        for _ in range(self.leads):
            code = past @ weights
            past = torch.cat([code, past[:, :-size]], 1) if choice.lags > 1 else code
            path.append(code)
        return torch.stack(path, 1)

    def _held_out(self, choice: Choice, most: int) -> Iterator[Starts]:
        """At most so many starts of each block."""
        for number, (low, high) in enumerate(self.blocks):
            starts, inside, ends = _starts(self.whole, self.known, (low, high), self.leads, most, high)
            truth = self.codes[ends, : choice.size]
            yield Starts(self._past(choice, starts), truth, inside, torch.full_like(starts, number))

    def _forecasts(self, choice: Choice, most: int, stable: bool = False) -> Iterator[tuple[Starts, Tensor]]:
        """For each block: its starts, and forecasts (S, H, r) by a fit to the other blocks."""
        for number, own in enumerate(self._held_out(choice, most)):
            yield own, self._path(choice, self.fit(choice, number, stable), own.past)

    def corrections(
        self, choice: Choice, matrices: Tensor, damping: Tensor, plan: Sequence[Direct | None]
    ) -> Tensor | None:
        """Differences (H, r, p r) of planned direct forecasts, fitted to all blocks, to damped iterates of a map."""
        if not any(plan):
            return None
        starts = Starts.joined(self._held_out(choice, _STARTS_OF_FITS))
        kept = [own if seen else None for own, seen in zip(plan, starts.inside.any(0).tolist(), strict=False)]
        path = self._path(choice, matrices, torch.eye(choice.lags * choice.size).double()).transpose(0, 1)
        result = torch.zeros(len(plan), *path.shape[:0:-1], dtype=torch.float64)
        for lead, maps in enumerate(starts.planned(kept)):
            if kept[lead]:
                result[lead] = (maps - damping[lead, : choice.size] * path[lead]).T
        return result

    def errors(self, choice: Choice) -> Tensor:
        """Cross-validated mean squared error (H,) of damped forecasts, started in each block and fitted to all others,
        relative to the variance of all codes."""
        moments, size = _Moments(), choice.size
        for starts, path in self._forecasts(choice, min(_STARTS, _NUMBERS // size)):
            moments.add(starts.truth, path, starts.inside)
        every = moments.errors().sum(1) + self._persistence[0][:, size] + self.rest
        return every[moments.count > 0] / max(self.mean_square + self.rest, 1e-300)

    def fitted(self, choice: Choice) -> Autoregression:
        """Autoregression of given hyperparameters, fitted to all blocks: with cross-validated damping (H, r) of
        forecasts, direct forecasts, and covariances (H, r, r) of errors; these are shrunk towards one-step errors
        propagated by the map if there are few starts."""
        moments, size, parts = _Moments(), choice.size, []
        for starts, path in self._forecasts(choice, _STARTS_OF_ERRORS, stable=True):
            parts.append((starts, path))
            moments.add(starts.truth, path, starts.inside)
        damping, matrices = moments.damping(), self.fit(choice, stable=True)
        missed = torch.cat([(own.truth - damping * path) * own.inside[..., None] for own, path in parts])
        errors, before, whole = self.errors(choice), missed.square().sum((0, 2)), Starts.joined(own for own, _ in parts)
        plan = whole.plan(missed) if len(self.codes) >= _BY_CHANCE else [None] * self.leads
        missed = whole.replaced(missed, plan)
        total, known = missed.transpose(0, 1).mT @ missed.transpose(0, 1), moments.count > 0
        gain = (before - missed.square().sum((0, 2)))[known] / moments.count[known]
        total, damping, count = total[known], damping[known], moments.count[known, None, None]
        one, step = total[0] / count[0], companion(matrices)
        added = torch.nn.functional.pad(one, 2 * (0, len(step) - size))
        grown, later = added, [one]
        for _ in range(len(total) - 1):
            grown = step @ grown @ step.T + added
            later.append(grown[:size, :size])
        covariances = (total + _PRIOR_STARTS * torch.stack(later)) / (count + _PRIOR_STARTS)
        corrections = self.corrections(choice, matrices, moments.damping(), plan)
        return Autoregression(
            choice, matrices, damping, covariances, errors - gain / max(self.mean_square + self.rest, 1e-300),
            tuple(own for own, seen in zip(plan, known, strict=True) if seen),
            None if corrections is None else corrections[known])

    def search(self, sizes: tuple[int, ...] = _SIZES) -> Autoregression:
        """The smallest choice among those of nearly least error, fitted to all blocks. In short series, whose blocks
        choose by chance, the average of least squares and damped persistence (a Zellner prior with the weight of the
        data) is used unless another choice is far better."""
        room = max(1, int(len(self.codes) / _DETERMINED))
        most = min(self.codes.shape[1], room)
        errors: dict[Choice, Tensor] = {}
        usual = (self._persistence[1] + self.rest) / max(self.mean_square + self.rest, 1e-300)
        worse = 0
        for size in sorted({min(size, most) for size in sizes}):
            for lags in (lags for lags in self.lags if size * lags <= room * self.lags[0]):
                alike: list[Choice] = []
                for ridge in RIDGES:  # from strong to weak, until errors increase
                    alike.append(Choice(size, lags, ridge))
                    errors[alike[-1]] = self.errors(alike[-1])
                    now = scores(errors, usual)
                    if now[alike[-1]] > _WORSE * min(now[choice] for choice in alike):
                        break
            own = (now[choice] for choice in now if choice.size == size)
            worse = worse + 1 if min(own, default=torch.inf) > _WORSE * min(now.values()) else 0
            if worse == _PATIENCE:
                break
        least = min(now, key=lambda c: now[c])
        much = _NEARLY if _AMPLE * least.size * least.lags <= len(self.codes) else _ALIKE
        alike = [choice for choice, value in now.items() if value <= much * now[least]]
        chosen = min(alike, key=lambda c: (c.size * c.lags, -c.ridge))
        if len(self.codes) < _BY_CHANCE:
            count = max(1, min(self.codes.shape[1], round(len(self.codes) / _EACH), sizes[-1]))
            half = Choice(count, self.lags[0], _LEAST_RIDGE, half=True)
            errors[half] = self.errors(half)
            now = scores(errors, usual)
            chosen = half if now[chosen] > _FAR_BETTER * now[half] else chosen
        return self.fitted(chosen)


class _Moments:
    """Second moments of truth and forecasts (S, H, Z) at each lead, by block."""

    def __init__(self) -> None:
        self.blocks: list[tuple[Tensor, ...]] = []

    def add(self, truth: Tensor, forecast: Tensor, inside: Tensor) -> None:
        """Add a block; only forecasts that are `inside` (S, H) count."""
        seen = inside[..., None].double()
        products = [(seen * one).sum(0) for one in (truth.square(), truth * forecast, forecast.square())]
        self.blocks.append((inside.sum(0).double(), *products))

    @property
    def count(self) -> Tensor:
        """Number (H,) of forecasts."""
        return torch.stack([block[0] for block in self.blocks]).sum(0)

    def damping(self, left_out: int | None = None) -> Tensor:
        """Regression factors (H, Z) in [0, 1] of truth on forecasts of all blocks, or all but one; shrunk towards 1 if
        there are few starts."""
        kept = [block for number, block in enumerate(self.blocks) if number != left_out]
        count, _, products, forecasts = (torch.stack(parts).sum(0) for parts in zip(*kept, strict=True))
        usual = _PRIOR_STARTS * forecasts / count.clamp(min=1)[:, None]
        return ((products + usual) / (forecasts + usual).clamp(min=1e-300)).clamp(0.0, 1.0)

    def errors(self) -> Tensor:
        """Mean squared errors (H, Z) of forecasts, those of each block damped by the factors of the others."""
        total = torch.zeros_like(self.blocks[0][1])
        for number, (_, squares, products, forecasts) in enumerate(self.blocks):
            damping = self.damping(number)
            total += squares - 2 * damping * products + damping.square() * forecasts
        return total / self.count.clamp(min=1)[:, None]


def scores(errors: dict[Choice, Tensor], usual: Tensor) -> dict[Choice, float]:
    """Geometric means of errors (H,) over leads, weighted by the largest share of the error of the zero forecast,
    `usual` (H,) or more leads, that any choice removes; without any, the least error, but at least 1."""
    every = torch.stack(list(errors.values())).nan_to_num(torch.inf)
    weights = (1 - every.amin(0) / usual[: every.shape[1]].clamp(min=1e-300)).clamp(min=0.0)
    if not float(weights.sum()) > 0:
        return {choice: max(1.0, float(error.min())) for choice, error in errors.items()}
    values = ((every.clamp(min=1e-30).log() * weights).sum(1) / weights.sum()).exp()
    return {choice: float(value) for choice, value in zip(errors, values, strict=True)}
