"""Modes of one series at fixed points: its seasonal cycle by harmonics, and principal components of the anomalies.

All are arrays of values at the points themselves, so that many frames cost little; a decoder interpolates the patterns
between the points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrflow.numerics.phases import phases_of

_MOST_PERSISTENT = 0.95  # autocorrelation of noise; larger ones are attributed to cycles
_FEWEST_PLACES = 4  # for the mean of a cycle over places
_NUMBERS = 1 << 22  # in matrices of values that are inverted at once
_MOST, _MOST_WITH_GAPS = 200, 60
_ITERATIONS = 8  # of expectation maximisation
_LEAST_NOISE = 1e-8  # share of the variance
_LEFT = 1e-3  # share of the noise that remains where there are as many codes as values
_FRAMES = 1500  # most frames in a cross-validation with more values than this in a frame
_PARTS = 5  # parts of the frames whose correlations are compared
_CORRELATED, _SURE = (0.25, 0.5, 0.75, 0.9, 0.97), 1.0  # shares of correlations; standard errors of a gain
_ROWS = 1 << 24  # numbers in a block of products of codes


@dataclass(frozen=True)
class Cycle:
    """Mean and harmonics at M values: coefficients (1 + k, M) of 1 and of the phases of periods (internal time)."""

    coefficients: Tensor
    periods: tuple[float, ...]
    harmonics: tuple[int, ...]

    def __call__(self, t: Tensor) -> Tensor:
        """Values (T, M) at times t (T,)."""
        return _design(t, self.periods, self.harmonics) @ self.coefficients

    def leading(self, counts: Sequence[int]) -> Cycle:
        """The first harmonics of each period alone, without the periods of which none is left."""
        rows, place = [0], 1
        for most, count in zip(self.harmonics, counts, strict=True):
            rows += [*range(place, place + count), *range(place + most, place + most + count)]
            place += 2 * most
        left = [(period, count) for period, count in zip(self.periods, counts, strict=True) if count]
        return Cycle(self.coefficients[rows], tuple(p for p, _ in left), tuple(count for _, count in left))


def _design(t: Tensor, periods: Sequence[float], harmonics: Sequence[int]) -> Tensor:
    return torch.cat([torch.ones(len(t), 1, dtype=torch.float64), phases_of(t, periods, harmonics)], 1)


def fit_cycle(t: Tensor, values: Tensor, periods: Sequence[float], harmonics: Sequence[int]) -> Cycle:
    """Least squares at each value from its own observations; values (T, M), NaN where not observed."""
    design = _design(t, periods, harmonics)
    right = values.nan_to_num(0.0).T @ design
    solved = torch.linalg.solve(_normal(design, torch.isfinite(values)), right[..., None])[..., 0]
    return Cycle(solved.T.contiguous(), tuple(periods), tuple(harmonics))


def _normal(design: Tensor, seen: Tensor) -> Tensor:
    """Normal matrices (M, k, k) of least squares with a design (T, k), of the rows seen (T, M) at each value."""
    masks, which = torch.unique(seen.T, dim=0, return_inverse=True)
    ridge = torch.tensor([1e-6] + [1.0] * (design.shape[1] - 1)).double()
    normal = torch.einsum("tk,tl,mt->mkl", design, design, masks.double())
    return (normal + 1e-6 * len(design) * torch.diag(ridge))[which]


def shrunk_cycle(t: Tensor, values: Tensor, cycles: Sequence[tuple[float, int]], channels: int = 1) -> Cycle:
    """Harmonics by least squares, each shrunk by the share of its power expected from noise (James and Stein 1961),
    pooled over the values of each channel, their last index. The noise, from the residuals, is a first-order
    autoregression at each value. Coefficients are shrunk towards those of other places, too. cycles: periods and the
    largest number of harmonics of each; those after the last with a positive share are dropped."""
    periods, most = [period for period, _ in cycles], [count for _, count in cycles]
    cycle = fit_cycle(t, values, periods, most)
    if not sum(most):
        return cycle
    left, count = values - cycle(t), torch.isfinite(values).sum(0)
    persistence = _persistence(left, (0,))
    variance = left.square().nansum(0) / (count - len(cycle.coefficients)).clamp(min=1)
    coefficients = _towards_others(cycle, t, values, left, channels)
    step, place, kept = float(torch.diff(t).median()), 1, list[int]()
    for period, number in cycles:
        last = 0
        for k in range(1, number + 1):
            turn = 2 * math.pi * k * step / period
            density = (1 - persistence**2) / (1 - 2 * persistence * math.cos(turn) + persistence**2)
            by_noise = 4 * variance * density  # of a cosine and a sine, times the count
            rows = [place + k - 1, place + number + k - 1]
            power = cycle.coefficients[rows].square().sum(0) * count
            noise, whole = (each.unflatten(0, (-1, channels)).sum(0) for each in (by_noise, power))
            share = (1 - noise / whole.clamp(min=1e-300)).clamp(min=0.0)
            coefficients[rows] *= share.repeat(len(power) // channels)
            last = k if bool(share.any()) else last
        kept.append(last)
        place += 2 * number
    return replace(cycle, coefficients=coefficients).leading(kept)


def _persistence(left: Tensor, over: tuple[int, ...]) -> Tensor:
    """Autocorrelation of residuals (T, M) at a lag of one frame, over these axes, less biased than the plain ratio."""
    pairs = (left[1:] * left[:-1]).nansum(over)
    plain = pairs / (left[:-1].square() * torch.isfinite(left[1:])).nansum(over).clamp(min=1e-300)
    return (plain + (1 + 3 * plain) / len(left)).clamp(0.0, _MOST_PERSISTENT)


def _towards_others(cycle: Cycle, t: Tensor, values: Tensor, left: Tensor, channels: int) -> Tensor:
    """Coefficients (1 + k, M) at values (T, M), with residuals `left`, shrunk towards their mean over the places of
    each channel (the last index) as far as records do not determine them, as those of stations that start late (best
    linear unbiased prediction). Anomalies that the places share, as of weather, are subtracted before."""
    places = values.shape[1] // channels
    if places < _FEWEST_PLACES:
        return cycle.coefficients.clone()
    count = torch.isfinite(values).sum(0)
    degrees = (count - len(cycle.coefficients)).clamp(min=0)
    weight = torch.isfinite(values) * (degrees / count.clamp(min=1))
    result, design = cycle.coefficients.clone(), _design(t, cycle.periods, cycle.harmonics)
    for c in range(channels):
        own, each = slice(c, None, channels), weight[:, c::channels]
        shared = (left[:, own].nan_to_num(0.0) * each).sum(1) / each.sum(1).clamp(min=1e-300)
        apart = left[:, own] - shared[:, None]
        if bool((degrees[own] > 0).any()) and float(apart.square().nansum()) > 0:
            result[:, own] = _of_places(design, values[:, own] - shared[:, None], apart, degrees[own])
    return result


def _of_places(design: Tensor, values: Tensor, left: Tensor, degrees: Tensor) -> Tensor:
    """Coefficients (k, N) of a design (T, k) at places with values (T, N), by generalised least squares, with residuals
    `left` (T, N) of N degrees of freedom that are first-order autoregressions, alike at all places, as larger cycles
    have larger noise; shrunk towards their mean by their variance over places."""
    seen = torch.isfinite(values)
    after = seen[1:] & seen[:-1]
    persistence = float(_persistence(left, (0, 1)))
    variance = (1 - persistence**2) * left.square().nansum() / degrees.sum()
    first = torch.cat([seen[:1], seen[1:] & ~seen[:-1]])
    begun, moved = (1 - persistence**2) ** 0.5 * design, design[1:] - persistence * design[:-1]
    steps = torch.where(after, values[1:] - persistence * values[:-1], 0.0)
    starts = torch.where(first, values, 0.0) * (1 - persistence**2) ** 0.5
    precision = (_normal(begun, first) + _normal(moved, after)) / variance
    known = (starts.T @ begun + steps.T @ moved) / variance  # (N, k)
    parts = torch.arange(len(known)).split(max(1, _NUMBERS // precision[0].numel()))
    found, error = known.clone(), known.clone()
    for rows in parts:
        inverse = torch.linalg.inv(precision[rows])
        found[rows], error[rows] = (inverse @ known[rows, :, None])[..., 0], inverse.diagonal(dim1=1, dim2=2)
    sure = 1 / error
    away = found - (sure * found).sum(0) / sure.sum(0)
    varies = ((sure * away.square()).sum(0) / sure.sum(0)).clamp(min=_LEAST_NOISE * error.amin(0))
    sure = 1 / (error + varies)
    known = known + (sure * found).sum(0) / sure.sum(0) / varies
    return torch.cat([torch.linalg.solve(precision[rows] + torch.diag(1 / varies), known[rows, :, None])[..., 0]
                      for rows in parts]).T


@dataclass(frozen=True)
class PointModes:
    """Principal components of anomalies.

    Attributes:
        patterns: (R, M), orthonormal, ordered by variance.
        variances: (R,) of their codes.
        noise: (M,) residual variance of each value.
        codes: (T, R) posterior means of the frames that they were fitted to.
        channels: number of channels if each pattern is of one of them, 1 if patterns are of all together.
        correlation: (R, R) of codes of different channels; None if there is none.
    """

    patterns: Tensor
    variances: Tensor
    noise: Tensor
    codes: Tensor
    channels: int = 1
    correlation: Tensor | None = None

    @property
    def covariance(self) -> Tensor:
        """(R, R) of the codes."""
        scale = self.variances.sqrt()
        return self.variances.diag() if self.correlation is None else scale[:, None] * self.correlation * scale

    def leading(self, count: int) -> PointModes:
        """The first `count` components; the variance of the others is added to the noise."""
        lost = (self.patterns[count:].square() * self.variances[count:, None]).sum(0)
        return replace(self, patterns=self.patterns[:count], variances=self.variances[:count], noise=self.noise + lost,
                       codes=self.codes[:, :count],
                       correlation=None if self.correlation is None else self.correlation[:count, :count])

    def of_each(self, channels: int, values: Tensor) -> PointModes:
        """As many components of single channels, the last index of values (T, M). Joint ones mix channels of different
        persistence in every code."""
        known, seen = torch.isfinite(values).any(1), torch.isfinite(values)
        filled = torch.where(seen, values, self.codes @ self.patterns)
        patterns, codes = leading_components(filled[known], len(self.patterns), channels)
        every = torch.zeros(len(values), len(patterns), dtype=torch.float64)
        every[known] = codes
        left = torch.where(seen, values - every @ patterns, 0.0).square().sum(0) / seen.sum(0).clamp(min=1)
        own = (patterns.unflatten(1, (-1, channels)) != 0).any(1).double()  # (R, C)
        return PointModes(patterns, codes.square().mean(0), torch.maximum(left, self.noise), every, channels,
                          _correlation(codes, own))

    def cross_validated(
        self, values: Tensor, blocks: Sequence[tuple[int, int]], leads: int = 1
    ) -> tuple[PointModes, Tensor, Tensor]:
        """The patterns of anomalies (T, M) with cross-validated variances and noise, the ratios (R,) of these variances
        to those of the fit, and correlations (H, R) over 1 to `leads` steps. In the frames of the fit, leading
        variances of few or persistent frames are too large, all others and the noise too small (Bartz 2016), so that
        few observed values would get too much weight, and trailing patterns, which persist in the field, look like
        noise.

        From `blocks` of frames left out in turn, rank by rank, shrunk by their variance over blocks (James and Stein).
        """
        filled = torch.where(torch.isfinite(values), values, self.codes @ self.patterns)
        known, logs, left = torch.isfinite(values).any(1), list[Tensor](), list[Tensor]()
        products, squares, ends = torch.zeros(3, leads, len(self.variances), dtype=torch.float64)
        every = max(1, -(-len(values) // _FRAMES)) if values.shape[1] > _FRAMES else 1
        for low, high in blocks:
            inside = torch.zeros_like(known)
            inside[low:high] = True
            others, left_out = filled[known & ~inside][::every], filled[known & inside]
            if not (len(others) and len(left_out)):
                continue
            mean = others.mean(0)
            patterns = self._components(others - mean)
            held, own = ((frames - mean) @ patterns.T for frames in (left_out, others))
            ratio = (held.square().mean(0).clamp(min=1e-300) / own.square().mean(0).clamp(min=1e-300)).log()
            logs.append(torch.nn.functional.pad(ratio, (0, len(self.variances) - len(ratio))))
            left.append((left_out - mean - held @ patterns).square().mean(0))
            codes = (filled[low:high] - mean) @ patterns.T * known[low:high, None]
            for lag in range(1, min(leads + 1, high - low)):
                start = codes[:-lag] * known[low + lag : high, None]
                products[lag - 1, : len(patterns)] += (start * codes[lag:]).sum(0)
                squares[lag - 1, : len(patterns)] += start.square().sum(0)
                ends[lag - 1, : len(patterns)] += (codes[lag:] * known[low : high - lag, None]).square().sum(0)
        lasting = products / (squares * ends).sqrt().clamp(min=1e-300)  # a slope above 1 would leave no innovation
        if len(logs) < 2:
            return self, torch.ones_like(self.variances), lasting
        middle, unsure = torch.stack(logs).mean(0), torch.stack(logs).var(0) / len(logs)
        ratio = (middle * (1 - unsure / middle.square().clamp(min=1e-300)).clamp(min=0.0)).exp()
        noise = torch.maximum(self.noise, torch.stack(left).mean(0))
        return replace(self, variances=self.variances * ratio, noise=noise), ratio, lasting

    def _components(self, rows: Tensor) -> Tensor:
        """Components of other rows (T, M) in the order of these: those of each channel alone as many of it."""
        if self.channels == 1:
            return leading_components(rows, len(self.variances))[0]
        result = torch.zeros_like(self.patterns)
        for c in range(self.channels):
            which = self.patterns[:, c :: self.channels].any(1).nonzero()[:, 0]
            if len(which):
                found = leading_components(rows[:, c :: self.channels], len(which))[0]
                result[which[: len(found)], c :: self.channels] = found
        return result

    def posterior(self, values: Tensor) -> Tensor:
        """Posterior means (T, R) of the codes of anomalies (T, M), NaN where not observed."""
        seen, filled = torch.isfinite(values).double(), values.nan_to_num(0.0)
        deviations = self.noise.sqrt()
        patterns = self.patterns / deviations
        precision = torch.diag(1 / self.variances.clamp(min=1e-300)) if self.correlation is None else (
            torch.linalg.inv(self.covariance))
        right = (filled / deviations) @ patterns.T
        if bool(seen[seen.bool().any(1)].all()):
            return torch.linalg.solve(patterns @ patterns.T + precision, right.T).T
        products = (patterns[:, None] * patterns[None]).flatten(0, 1)
        parts = []
        for rows in torch.arange(len(values)).split(max(1, (1 << 22) // len(patterns) ** 2)):
            gram = (seen[rows] @ products.T).unflatten(1, precision.shape) + precision
            parts.append(torch.linalg.solve(gram, right[rows][..., None])[..., 0])
        return torch.cat(parts)

    def saturated(self, values: Tensor) -> PointModes:
        """The modes where there are as many as values (T, M) of any frame: the noise, then indistinguishable from
        codes, is added to their variances."""
        if len(self.patterns) < int(torch.isfinite(values).any(0).sum()):
            return self
        noise = self.noise.mean()
        found = replace(self, variances=self.variances + noise, noise=_LEFT * self.noise)
        return replace(found, codes=found.posterior(values))


def principal_components(values: Tensor, most: int = _MOST) -> PointModes:
    """Principal components of anomalies (T, M), NaN where not observed: by expectation maximisation where any value is
    missing (Tipping and Bishop 1999)."""
    seen = torch.isfinite(values)
    known = seen.any(1)
    filled = values.nan_to_num(0.0)
    frames, size = values.shape
    complete = bool(seen[known].all())
    most = min(most if complete else min(most, _MOST_WITH_GAPS), size, max(1, int(known.sum()) - 1))
    patterns, codes = leading_components(filled[known], most)
    if complete:
        every = torch.zeros(frames, len(patterns), dtype=torch.float64)
        every[known] = codes
        noise = (filled[known] - codes @ patterns).square().mean(0)
        return PointModes(patterns, codes.square().mean(0), _floored(noise, filled), every)
    share = seen[known].double().mean()
    return _with_gaps(values, patterns, codes.square().mean(0) / share)


def leading_components(rows: Tensor, most: int, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Patterns (R, M) and codes (T, R) of complete rows (T, M), from the smaller of their Gram matrices; of single
    channels, the last index of M, if there are several."""
    if channels > 1:
        patterns = torch.cat([torch.einsum("rn,c->rnc", leading_components(rows[:, c::channels], most)[0],
                                           torch.eye(channels).double()[c]).flatten(1) for c in range(channels)])
        codes = rows @ patterns.T
        order = codes.square().sum(0).argsort(descending=True)[:most]
        return patterns[order], codes[:, order]
    by_rows = len(rows) < rows.shape[1]
    squares, vectors = torch.linalg.eigh(rows @ rows.T if by_rows else rows.T @ rows)
    squares, vectors = squares.flip(0)[:most], vectors.flip(1)[:, :most]
    kept = squares > 1e-14 * squares[0].clamp(min=1e-300)
    vectors = vectors[:, kept]
    if by_rows:
        vectors = torch.linalg.qr(rows.T @ vectors)[0]
    return vectors.T.contiguous(), rows @ vectors


def _correlation(codes: Tensor, own: Tensor) -> Tensor:
    """Correlations (R, R) of codes (T, R) of different channels (`own` (R, C): which are of each), shrunk to the share
    of their squares, weighted by variance, in which parts of the frames agree (James and Stein 1961), or to a larger
    share for channels that are then better predicted from the others in parts left out."""
    between, parts = own @ own.T == 0, codes.tensor_split(min(_PARTS, len(codes)))
    products = torch.stack([rows.T @ rows for rows in parts]) * between
    squares = torch.stack([rows.square().sum(0) for rows in parts])
    unsure = torch.stack([one / len(rows) for one, rows in zip(products, parts, strict=True)]).var(0).sum() / len(parts)
    share = (1 - unsure / (products.sum(0) / len(codes)).square().sum().clamp(min=1e-300)).clamp(0.0, _CORRELATED[-1])
    tried = [float(share), *(larger for larger in _CORRELATED if larger > share)]
    errors = torch.stack([torch.stack([_missed(part, own, product, square, one) for one in tried]) for part, product,
                          square in zip(parts, products.sum(0) - products, squares.sum(0) - squares, strict=True)])
    gains = errors[:, :1] - errors  # (parts, shares, C)
    surely = gains.mean(0) - _SURE * gains.std(0) / len(parts) ** 0.5
    shares = torch.tensor(tried, dtype=torch.float64)[surely.argmax(0)]
    scale = (own @ shares).sqrt() / squares.sum(0).sqrt().clamp(min=1e-150)
    return torch.eye(len(scale), dtype=torch.float64) + scale[:, None] * products.sum(0) * scale


def _missed(codes: Tensor, own: Tensor, products: Tensor, squares: Tensor, share: float) -> Tensor:
    """Logarithms (C,) of squared errors of the codes (T, R) of each channel by those of the others, given products (R,
    R) of different channels, times a share, and squares (R,) in other frames."""
    covariance, errors = share * products + (squares + 1e-9 * squares.max()).diag(), []
    for some in own.bool().T:
        weights = torch.linalg.solve(covariance[~some][:, ~some], covariance[~some][:, some])
        errors.append((codes[:, some] - codes[:, ~some] @ weights).square().sum().clamp(min=1e-300).log())
    return torch.stack(errors)


def projected_on_components(values: Tensor, frames: Tensor, most: int) -> Tensor:
    """Projection of values (..., M) onto the mean and `most` principal components of other frames (T, M), as modes of
    few frames represent these better than frames between them. NaN in frames counts as their mean."""
    mean = frames.nanmean(0).nan_to_num(0.0)
    patterns, _ = leading_components((frames - mean).nan_to_num(0.0), most)
    return mean + (values - mean) @ patterns.T @ patterns


def _with_gaps(values: Tensor, patterns: Tensor, variances: Tensor) -> PointModes:
    """Expectation maximisation from given patterns, with codes N(0, diag(variances)) and equal noise for all values."""
    seen, filled = torch.isfinite(values).double(), values.nan_to_num(0.0)
    number = seen.sum(0)
    known = seen.any(1)
    loadings = (patterns * variances.sqrt()[:, None]).T  # (M, R), of codes N(0, 1)
    noise = float((filled.square().sum() / seen.sum()).item()) * 0.1
    floor = _LEAST_NOISE * float(filled.square().sum() / seen.sum())
    size = loadings.shape[1]
    codes = torch.zeros(len(values), size, dtype=torch.float64)
    for _ in range(_ITERATIONS):
        moment = torch.zeros(len(loadings), size, size, dtype=torch.float64)
        cross = torch.zeros(len(loadings), size, dtype=torch.float64)
        total, spread = torch.zeros(2, size, size, dtype=torch.float64)
        products = (loadings[:, :, None] * loadings[:, None, :]).flatten(1)
        for rows in torch.arange(len(values)).split(max(1, _ROWS // size**2)):
            weight, target = seen[rows], filled[rows]
            precision = (weight @ products).unflatten(1, (size, size)) / noise + torch.eye(size)
            covariance = torch.linalg.inv(precision)
            mean = (covariance @ (target @ loadings)[..., None])[..., 0] / noise
            second = covariance + mean[:, :, None] * mean[:, None, :]
            moment += (weight.T @ second.flatten(1)).unflatten(1, (size, size))
            cross += target.T @ mean
            total += second[known[rows]].sum(0)
            codes[rows] = mean
        loadings = torch.linalg.solve(moment + 1e-9 * torch.eye(size), cross[..., None])[..., 0]
        left = filled.square().sum(0) - (loadings * cross).sum(1)
        noise = max(float(left.sum() / number.sum()), floor)
        # Codes are scaled to unit covariance, and the loadings inversely.
        root = torch.linalg.cholesky(total / known.sum())
        loadings = loadings @ root
        codes = torch.linalg.solve_triangular(root, codes.T, upper=False).T
    left_vectors, lengths, right = torch.linalg.svd(loadings, full_matrices=False)
    every = codes @ (lengths[:, None] * right).T
    residual = torch.where(seen.bool(), filled - every @ left_vectors.T, 0.0).square().sum(0) / number.clamp(min=1)
    return PointModes(left_vectors.T.contiguous(), lengths.square(), _floored(residual.clamp(min=noise), filled), every)


def _floored(noise: Tensor, values: Tensor) -> Tensor:
    return noise.clamp(min=_LEAST_NOISE * float(values.square().mean()))
