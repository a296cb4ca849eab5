"""HarmonicCodes: coefficients of a domain's harmonics from observed points, by least squares with a Gaussian prior."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np
from scipy.ndimage import uniform_filter1d

from inrflow.domains import Domain, Harmonics
from inrflow.domains.box import BoxHarmonics
from inrflow.domains.transform import CONSTANT
from inrflow.encoding.harmonic.grid_design import GridDesign, Rows, grid_design
from inrflow.encoding.harmonic.imputation import filled
from inrflow.encoding.harmonic.unseen_waves import with_unseen_waves
from inrflow.errors import UserError
from inrflow.numerics.components import block_map, groups_of
from inrflow.numerics.effort import effort

_NOISES = np.logspace(-14, 0.3, 60)  # noise variances of the search, relative to the channel's variance
_LEAST, _NOTHING = 1e-15, 1e-14  # shares of a channel's variance: least prior variance; rounding
_TIE = 1e-7  # relative difference of eigenvalues in one eigenspace
_ROUNDS, _SETS = 12, 16  # of expectation maximisation; most point sets to which the prior is fitted
_FULL, _FRAMES, _SEARCH = 3, 64, 3  # last rounds, with all frames; frames with gaps in others; rounds to a noise search
_COMPARED, _LEAST_FRAMES = 20, 3  # frames with gaps that compare harmonics; least frames of a trajectory
_QUIET, _ALIKE_FRAMES, _FREEDOM = 1e-6, 0.1, 0.25  # least relative noise; its share of residuals; least freedom
_NEAR, _ALIKE_OTHERS = 7, 2  # harmonics in a running mean of variances, and its weight in trajectories
_MANY = 300  # harmonics, not orthogonal at the points, from which on orthogonal groups of them are searched
_ALIKE = 1e-10  # cosine of an angle between columns that counts as zero
_PROBES, _SLANT = 4, 1e-12  # random sums of columns in a test of orthogonality, and its tolerance
_SVD, _NO_RANK = 8, 1e-6  # products of an SVD over those of a square; ratio of singular values of dependent harmonics
_HOLES, _GAPS = 0.5, 4  # largest share of missing values that is imputed, where more patterns of them than this


@dataclass(frozen=True)
class HarmonicCodes:
    """Codes z (..., C, K) of fields of C channels on K harmonics; prior z ~ N(mean, diag(variance)), both (C, K)."""

    harmonics: Harmonics
    mean: np.ndarray
    variance: np.ndarray

    def used(self, domain: Domain) -> tuple[Domain, int]:
        """The domain (for a box, the part that the used harmonics span) and the number of harmonics up to the last one
        with a prior variance above rounding, complete eigenspaces included. Raises UserError if none varies in time."""
        count, harmonics = self.harmonics.count - self.harmonics.steady, self.harmonics
        held = np.flatnonzero((self.variance[:, :count] > _NOTHING * self.variance.sum(1, keepdims=True)).any(0))
        if not held.size:
            raise UserError("no harmonic of the domain varies in time")
        domain = harmonics.spanned(held) if isinstance(harmonics, BoxHarmonics) else domain
        up_to = harmonics.eigenvalues[:count] <= (1 + _TIE) * harmonics.eigenvalues[held.max()]
        return domain, int(up_to.sum()) + harmonics.steady

    def encode(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means (..., C, K) and variances (C, K) of frames u (..., N, C) at points x (N, d).

        NaN was not observed. The noise variance maximises the marginal likelihood of all the frames."""
        u = _stacked(u, self.harmonics)
        flat = u.reshape(-1, *u.shape[-2:])
        codes = np.zeros((len(flat), u.shape[-1], self.harmonics.count))
        spread = np.zeros(codes.shape[1:])
        for c in range(u.shape[-1]):
            own = self.harmonics.own(c)
            for frames, design, values in _blocks(self._design(x, own), flat[:, :, c]):
                codes[frames[:, None], c, own], spread[c, own], _ = _posterior(
                    design, values, self.mean[c, own], self.variance[c, own])
        return codes.reshape(*u.shape[:-2], *codes.shape[1:]), spread

    def residuals(self, x: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals of frames u (..., N, C) at points x (N, d), and the share (C,) of the noise variance that they
        contain."""
        codes, spread = self.encode(x, u)
        count = self.harmonics.components * np.isfinite(u.reshape(-1, *u.shape[-2:])[0]).sum(0).clip(1)
        told, squares = 1 - spread / self.variance, ((codes - self.mean) ** 2).reshape(-1, *spread.shape).mean(0)
        kept = (1 - told) * np.minimum(squares / (told.clip(_LEAST) * self.variance), 1.0)  # smaller codes hold noise
        return u - self.decode(codes, x), np.maximum(1 - (1 - kept).sum(1) / count, _FREEDOM)

    def _design(self, x: np.ndarray, own: np.ndarray | None = None) -> Design:
        """Design matrix of harmonics (columns `own`, or all) at points (N, d); that of the last points is cached."""
        at, columns = x.tobytes(), b"" if own is None or len(own) == self.harmonics.count else own.tobytes()
        known, designs = self.__dict__.get("_last", (None, {}))
        designs = designs if known == at else {}
        if columns not in designs:
            designs[columns] = design_of(self.harmonics, x, own if columns else None)
            object.__setattr__(self, "_last", (at, designs))
        return designs[columns]

    def decode(self, codes: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Fields (..., N, C) of codes (..., C, K) at points (N, d)."""
        fields = np.swapaxes(self._design(x).fields(codes), -1, -2)
        return fields.reshape(*fields.shape[:-2], len(x), -1)


def fit_codes(harmonics: Harmonics, x: np.ndarray, u: np.ndarray, noise: np.ndarray | float = 0.0) -> HarmonicCodes:
    """Codes with prior variances estimated from trajectories u (S, T, N, C) at points x (S, N, d) (shared where equal).

    Expectation maximisation of a diagonal Gaussian, or MacKay's fixed-point steps if `noise` (C,) is given, which as
    many harmonics as points would absorb; the noise variance of each point set, at least `noise`, by marginal
    likelihood."""
    least = np.broadcast_to(noise, u.shape[-1:]).reshape(harmonics.components, -1).mean(0)
    u = _stacked(u, harmonics)
    means, variances = np.zeros((2, u.shape[-1], harmonics.count))
    groups = (every := list(trajectories_by_points(x)))[:: max(len(every) // _SETS, 1)]
    designs: list[Design] = []
    for c in range(u.shape[-1]):
        own = harmonics.own(c)
        if not c or harmonics.allowed is not None:
            designs = [design_of(harmonics, places, None if harmonics.allowed is None else own) for _, places in groups]
        total = float(np.nanvar(u[..., c])) or 1.0
        mean, variance = np.zeros(len(own)), np.full(len(own), total / len(own))  # an equal start
        mean[0] = np.nanmean(u[..., c]) * (harmonics.eigenvalues[own[0]] <= CONSTANT * harmonics.eigenvalues.max())
        blocks = [block[1:] for (members, _), design in zip(groups, designs, strict=True)
                  for block in _blocks(design, u[members, :, :, c].reshape(-1, u.shape[2]))]
        blocks = blocks[:: max(len(blocks) // (2 * _SETS), 1)]  # where each frame has its own points
        few = [(design, values[:: max(len(values) // _FRAMES, 1)] if np.isnan(values).any() else values)
               for design, values in blocks]  # each frame with gaps takes a factorisation
        noises: list[float | None] = [None] * len(blocks)
        for number in range(_ROUNDS):
            moments, excited, count = np.zeros_like(variance), np.zeros_like(variance), 0  # excited: trajectories
            for i, (design, values) in enumerate(blocks if number >= _ROUNDS - _FULL else few):
                same = noises[i] if number % _SEARCH else None
                z, spread, noises[i] = _posterior(design, values, mean, variance, float(least[c]), same)
                each = (z - mean) ** 2
                squares = each.sum(0)
                if len(z) % u.shape[1] == 0:
                    largest = each.reshape(-1, u.shape[1], len(own)).max(1)
                    excited += (largest > _NOTHING * variance.sum()).sum(0)
                shown = spread * (spread < variance)  # of harmonics that some point observes
                moments += squares / (1 - spread / variance + _LEAST) if least[c] else squares + len(values) * shown
                count += len(values)
            variance = np.maximum(moments / count, _LEAST * total)
        if len(u) > 1 and np.any(excited == 1):
            variance = with_unseen_waves(variance, excited, harmonics.eigenvalues[own])
        means[c, own], variances[c], variances[c, own] = mean, _LEAST * total, variance
        moving = harmonics.own(c, moving=True)
        moving = moving[variances[c, moving] > _NOTHING * variances[c].sum()]
        variances[c, moving] = _pooled(variances[c, moving], harmonics.eigenvalues[moving], len(u))
    return HarmonicCodes(harmonics, means, variances)


def _pooled(variance: np.ndarray, eigenvalues: np.ndarray, count: int) -> np.ndarray:
    """Variances (K,) of codes of `count` trajectories, shrunk towards the running mean over harmonics of similar
    wavenumber, as the sample variances of few trajectories vary by chance."""
    order = np.argsort(eigenvalues, kind="stable")
    near = uniform_filter1d(variance[order], _NEAR, mode="nearest")[np.argsort(order)]
    return (count * variance + _ALIKE_OTHERS * near) / (count + _ALIKE_OTHERS)


def white_noise(codes: HarmonicCodes, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Variance (C,) of white noise in values u (S, T, N, C) at points x (S, N, d), corrected for fitted codes.

    The mean square of the residuals of codes, where those of successive frames are uncorrelated; else its excess over a
    variance whose correlation decays by a constant factor from frame to frame, faster than that of smooth motion."""
    left, freedom = np.zeros_like(u), np.ones(u.shape[-1])
    for members, places in trajectories_by_points(x):
        left[members], own = codes.residuals(places, u[members])
        freedom = np.minimum(freedom, own)
    lags = [np.nanmean(left[:, lag:] * left[:, : left.shape[1] - lag], (0, 1, 2)) for lag in range(3)]
    noise = np.nanmin(np.nanmedian(np.nanmean(left**2, 2), 0), 0)
    for c, (own, one, two) in enumerate(zip(*lags, strict=True)):
        if abs(one) > _ALIKE_FRAMES * own:
            noise[c] = min(noise[c], max(own - one**2 / max(two, 1e-300), 0.0))
    return np.where(noise > np.maximum(_QUIET * np.nanvar(u, (0, 1, 2)), _ALIKE_FRAMES * lags[0]), noise / freedom, 0.0)


def tail(harmonics: Harmonics, x: np.ndarray, u: np.ndarray) -> float:
    """Share of the variance of fields u (S, T, N, C) on a grid x (N, d) that codes would have if all were as large as
    the highest eighth; mean over channels. Infinite where harmonics are not independent at the points."""
    frames, left = u[:, :: max(u.shape[1] // 3, 1)].reshape(-1, *u.shape[2:]), 0.0
    for c in range(frames.shape[2]):
        own, values = harmonics.own(c, moving=True), np.nan_to_num(frames[:, :, c])
        if (z := design_of(harmonics, x, own if len(own) < harmonics.count else None).solved(values)) is None:
            return np.inf
        left += (z[-(len(z) // 8 + 1) :] ** 2).mean() * len(z) / (frames[:, :, c].var() + 1e-300) / frames.shape[2]
    return left


def enough(harmonics: Harmonics, x: np.ndarray, u: np.ndarray, least: float, most: int) -> tuple[int, float] | None:
    """Number of harmonics, at most `most`, that leaves a residual variance share below `least` of fields u (S, T, N, C)
    on a grid x (N, d), mean over channels, and that share; None where harmonics are not orthogonal there, or values are
    missing.

    White noise, estimated from the highest harmonics, is subtracted."""
    frames = u[:, :: max(u.shape[1] // 3, 1)].reshape(-1, *u.shape[2:])
    frames = frames - frames.mean((0, 1))
    if (design := grid_design(harmonics, x)) is None or not np.isfinite(frames).all():
        return None
    each = [design.solved(frames[:, :, c]) for c in range(frames.shape[2])]
    squares = [(z**2).mean(1) for z in each if z is not None]
    if len(squares) < len(each):
        return None
    shares = np.mean([one / (one.sum() + 1e-300) for one in squares], axis=0)
    smooth = np.maximum(shares - np.median(shares[-len(shares) // 8 :]), 0.0)
    left = np.append(smooth[::-1].cumsum()[::-1], 0.0)
    count = min(int(np.argmax(left < least)), most)
    return count, float(left[count])


def trajectories_by_points(x: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of trajectories with the same points, of x (N, d) or (S, N, d): their indices, and the points."""
    if x.ndim == 2:
        yield np.array([0]), x
        return
    if np.equal(x, x[:1]).all():
        yield np.arange(len(x)), x[0]
        return
    _, label = np.unique(x.reshape(len(x), -1), axis=0, return_inverse=True)
    for members in (np.flatnonzero(label.ravel() == value) for value in np.unique(label)):
        yield members, x[members[0]]


def held_out_errors(harmonics: Harmonics, x: np.ndarray, u: np.ndarray, seed: int, share: float = 0.15) -> float:
    """Mean squared error at held-out points, relative to the variance (mean over channels), of codes of the other
    points; infinite without held-out points, or where a channel has no harmonics."""
    return float(held_out(harmonics, x, u, seed, share).mean())


def held_out(harmonics: Harmonics, x: np.ndarray, u: np.ndarray, seed: int, share: float = 0.15) -> np.ndarray:
    """`held_out_errors` of each trajectory (S,)."""
    hidden = np.asarray(np.random.default_rng(seed).random(u.shape[2]) < share)
    if not hidden.any() or hidden.all() or not all(len(harmonics.own(c)) for c in range(u.shape[-1])):
        return np.full(len(u), np.inf)
    u = u[:, :: max(min(u[..., 0, 0].size // _COMPARED, u.shape[1] // _LEAST_FRAMES), 1) if np.isnan(u).any() else 1]
    codes = fit_codes(harmonics, x[:, ~hidden], u[:, :, ~hidden])
    squares, count = np.zeros((len(u), u.shape[-1])), np.isfinite(u[:, :, hidden, 0]).sum()
    for members, places in trajectories_by_points(x):
        decoded = codes.decode(codes.encode(places[~hidden], u[members][:, :, ~hidden])[0], places[hidden])
        squares[members] = np.nansum((decoded - u[members][:, :, hidden]) ** 2, axis=(1, 2))
    return np.asarray((squares * (len(u) / max(count, 1)) / (np.nanvar(u, axis=(0, 1, 2)) + 1e-300)).mean(1))


def _stacked(u: np.ndarray, harmonics: Harmonics) -> np.ndarray:
    """Fields (..., N, C) with a row of codes per channel; components that share codes are (..., N components, 1)."""
    return u.reshape(*u.shape[:-2], u.shape[-2] * harmonics.components, u.shape[-1] // harmonics.components)


def observed_patterns(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups of frames of values (B, N) with the same missing points: indices of frames, and of observed points."""
    if np.equal(seen := np.isfinite(values), seen[:1]).all():
        yield np.arange(len(values)), np.flatnonzero(seen[0])
        return
    patterns, label = np.unique(seen, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        yield np.flatnonzero(label.ravel() == index), np.flatnonzero(pattern)


def _blocks(design: Design, values: np.ndarray) -> Iterator[tuple[np.ndarray, Design, np.ndarray]]:
    """Groups of frames of values (B, N) that are solved together: indices, design, values. NaN are kept where patterns
    of missing values are many, as a factorisation for each would cost as much as for all frames."""
    if len(patterns := list(observed_patterns(values))) > _GAPS:
        gaps = np.isnan(values).mean(1) <= _HOLES
        if gaps.any():
            yield np.flatnonzero(gaps), design, values[gaps]
        patterns = [(frames, seen) for frames, seen in patterns if not gaps[frames[0]]]
    for frames, seen in patterns:
        some = design if len(seen) == values.shape[1] else _dense(design).rows(seen)
        yield frames, some, values[frames][:, seen]


class TableDesign:
    """Design matrix (N, K) of harmonics at points, zero where they vanish; `lengths` (K,) are column norms, None where
    columns are not orthogonal."""

    def __init__(self, table: np.ndarray):
        self.table = table = table * ((size := np.sqrt((table**2).sum(0))) > _SLANT * size.max(initial=0.0))
        self.shape, self.products = table.shape, table.size
        self.lengths: np.ndarray | None = np.sqrt((table**2).sum(0))
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (table.shape[1], _PROBES))
        slant = table.T @ (table @ signs) - self.lengths[:, None] ** 2 * signs  # off-diagonal Gram matrix @ signs
        if table.shape[0] < table.shape[1] or np.abs(slant).max() > _SLANT * len(table) * np.sqrt(table.shape[1]):
            self.lengths = None
        self.blocks = _coupled(table) if self.lengths is None and table.shape[1] > _MANY else None
        tall = self.lengths is None and self.blocks is None and len(table) > 2 * table.shape[1]
        self.q: np.ndarray | None
        self.q, self.r = np.linalg.qr(table) if tall else (None, table)
        self._rows: dict[bytes, TableDesign] = {}

    def rows(self, seen: np.ndarray) -> TableDesign:
        """The design at some of the points, cached for the last few selections."""
        if len(seen) == len(self.table):
            return self
        if (key := seen.tobytes()) not in self._rows:
            self._rows = {**dict(list(self._rows.items())[1 - _GAPS :]), key: TableDesign(self.table[seen])}
        return self._rows[key]

    def fields(self, codes: np.ndarray) -> np.ndarray:
        """Values (..., N) of codes (..., K)."""
        return codes @ self.table.T

    def solved(self, values: np.ndarray) -> np.ndarray | None:
        """Least squares codes (K, B) of values (B, N); None where harmonics are not independent at the points."""
        z, _, rank, _ = np.linalg.lstsq(self.table, values.T, rcond=_NO_RANK)
        return z if rank == self.table.shape[1] else None

    def weighted(self, values: np.ndarray) -> np.ndarray:
        """Values (B, N), as points have equal weights."""
        return values

    def factors(self, root: np.ndarray) -> tuple[Rows, np.ndarray, Rows, Rows]:
        """Factors of `svd`, with the map by u^T of rows (..., N) to (..., R) in place of u."""
        u, s, once, twice = self.svd(root)
        return partial(_onto, u), s, once, twice

    def svd(self, root: np.ndarray) -> tuple[np.ndarray, np.ndarray, Rows, Rows]:
        """u (N, R), s (R,), and the maps v and v^2 of rows (..., R) to (..., K), of table diag(root) = u diag(s) v."""
        if self.lengths is not None:
            return self.unit, self.lengths * root, lambda rows: rows, lambda rows: rows
        if self.blocks is not None:
            effort.add(products=_SVD * sum(len(self.r) * len(own) ** 2 for own in self.blocks))
            parts = [np.linalg.svd(self.r[:, own] * root[own], full_matrices=False) for own in self.blocks]
            told = ((u * (s > _SLANT * s.max()), s) for u, s, _ in parts)  # others: in other blocks' spans
            u, s = (np.concatenate(each, -1) for each in zip(*told, strict=True))
            once, twice = (partial(block_map, self.blocks, [v**n for _, _, v in parts]) for n in (1, 2))
            return u, s, once, twice
        effort.add(products=_SVD * self.r.size * min(self.r.shape))
        u, s, v = np.linalg.svd(self.r * root, full_matrices=False)
        return u if self.q is None else self.q @ u, s, partial(_onto, v), partial(_onto, v**2)

    @cached_property
    def unit(self) -> np.ndarray:
        """Normalised columns of the table, zero for harmonics that vanish."""
        assert self.lengths is not None
        return self.table / np.maximum(self.lengths, _NOTHING)


Design: TypeAlias = TableDesign | GridDesign


def design_of(harmonics: Harmonics, x: np.ndarray, own: np.ndarray | None = None) -> Design:
    """Design matrix of harmonics (columns `own`, or all) at points (N, d)."""
    if own is None and x.shape[1] > 1 and (design := grid_design(harmonics, x)) is not None:
        return design
    return TableDesign(harmonics.values(x)[:, slice(None) if own is None else own])


def _dense(design: Design) -> TableDesign:
    """The design as a table, cached."""
    if isinstance(design, TableDesign):
        return design
    made: TableDesign = vars(design).get("dense") or TableDesign(design.table)
    vars(design)["dense"] = made
    return made


def _onto(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows (..., N) times a matrix (N, R)."""
    return rows @ columns


def _coupled(table: np.ndarray) -> list[np.ndarray] | None:
    """Groups of columns of a table (N, K) that are orthogonal to each other, as azimuthal orders are on rings; None if
    there is one group, or more columns than rows."""
    effort.add(products=table.size * table.shape[1])
    gram = table.T @ table
    size = np.sqrt(np.diag(gram))
    groups = groups_of(np.abs(gram) > _ALIKE * size * size[:, None])
    return groups if len(groups) > 1 and table.shape[1] <= len(table) else None


def _posterior(design: Design, values: np.ndarray, mean: np.ndarray, variance: np.ndarray, least: float = 0.0,
               noise: float | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """Posterior means (B, K), variances (K,) and the noise variance, of values (B, N) = table (N, K) z + noise.

    Missing values (NaN) are imputed by the posterior mean, which this does not change. The noise variance maximises the
    marginal likelihood, unless values are missing and `noise` is given."""
    if not all(design.shape):
        return np.broadcast_to(mean, (len(values), len(mean))), variance, 0.0
    root = np.sqrt(variance)
    left = values - design.fields(mean)
    known = np.isfinite(left)
    effort.add(2 * len(values) * design.products, 6 * values.size + len(_NOISES) * len(mean), 40)
    noises = np.maximum(_NOISES * (float(np.nanmean(left**2)) + 1e-300), least)
    if known.all():
        left = design.weighted(left)
        project, s, turn, squares = design.factors(root)
        noise = float(noises[_evidence(left, project(left), s, noises).argmin()])
    else:
        u, s, turn, squares = _dense(design).svd(root)
        project, patterns, fit = partial(_onto, u), list(observed_patterns(left)), np.zeros(len(noises))
        if noise is None:
            for rows, seen in [patterns[i] for i in {round(k) for k in np.linspace(0, len(patterns) - 1, _GAPS)}]:
                its, sizes, *_ = _dense(design).rows(seen).factors(root)
                fit += _evidence(some := left[rows][:, seen], its(some), sizes, noises)
            noise = float(noises[fit.argmin()])
        left = filled(left, [(rows, seen) for rows, seen in patterns if len(seen) < left.shape[1]], u, s, noise)
    gain, share = s / (s**2 + noise), known.mean()
    codes = mean + turn(project(left) * gain) * root
    shrink = squares(share * s**2 / (share * s**2 + noise))
    return codes, variance * np.maximum(1 - shrink, _LEAST), noise  # positive, as precisions are its inverses


def _evidence(left: np.ndarray, projected: np.ndarray, s: np.ndarray, noises: np.ndarray) -> np.ndarray:
    """Twice the negative log likelihood, up to a constant, for each noise variance, of values (B, N) = u diag(s) N(0,
    1) + noise, whose products with u^T are `projected` (B, R)."""
    power = (projected**2).mean(0)
    outer, spread = max(float((left**2).sum(1).mean() - power.sum()), 0.0), s**2 + noises[:, None]
    return np.log(spread).sum(1) + (power / spread).sum(1) + (left.shape[1] - len(s)) * np.log(noises) + outer / noises
