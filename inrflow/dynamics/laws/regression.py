"""Sparse regression of laws in integral (weak) form: normal equations by shells of harmonics, weights, elimination.

Each equation says that the change of a code over an interval is the integral of the law along a spline through the
codes. Test functions are the harmonics, so that boundary conditions hold by themselves; those whose motion frames do
not resolve have large residuals and small weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

from inrflow.domains import Harmonics
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.dynamics.laws.terms import Term
from inrflow.numerics.effort import effort
from inrflow.numerics.team import team

FOLDS = 4
_LEAST_FREE = 0.05  # least share of equations in excess of unknowns
_ORDER = 5  # of splines in time
_LEFT_OUT, _AROUND = 16, 24  # most frames left out; frames on both sides, whose weights halve from each to the next
_OF_LENGTH = 3  # power of lengths of intervals beyond the usual one by which splines err there: weights of equations
_LEVELS = ((0.02, 1e-4), (0.15, 1e-3), (0.5, 1e-2), (2.0, 5e-2))  # supports: the smallest whose cross-validated
# misfit exceeds the least by at most these shares of the least, and of what terms explain at all
_NODES = np.polynomial.legendre.leggauss(4)
NODES, _WEIGHTS = (_NODES[0] + 1) / 2, _NODES[1] / 2  # Gauss points of a unit interval
_CHUNK, _FEW = 128, 40  # states evaluated at a time; terms up to which they are as many
_RIDGE = 1e-13  # relative to the diagonal of scaled normal equations
_REWEIGHTED, _SOLVED = 4, 8  # solutions with new weights; tensor operations that one costs
_OF_ENERGY, _CLEARLY, _TOLD = (0.0, 1e-6, 1e-4, 1e-2), 0.3, 1e-2  # least energies of shells over the largest, tried
# in turn; ratio of misfits that justifies fewer shells; misfit below which no others are tried
_KNOWN = 0.9  # least share of a shell's variance that points determine: shrunken codes bias coefficients
_ROUNDING = 1e-9  # rounding of sums of squares that counts, over these
_LEAST_VARIANCE = 1e-12  # of residuals, relative to the largest changes: rounding and errors of splines

SparseLaw = tuple[tuple[tuple[int, ...], ...], np.ndarray, np.ndarray, float]  # as `sparse_laws` gives them


@dataclass(frozen=True)
class NormalEquations:
    """Normal equations, summed for each fold of trajectories and each shell of harmonics.

    gram (F, L, J, J), right (F, L, J, C), total (F, L, C): squared changes, count (F, L): equations. start, least
    (L, C): initial variances of residuals, and those due to the uncertainty of codes, as lower bounds. energy (L, C):
    variances of codes. ridge: a number or (J,), relative to the diagonal.
    """

    gram: np.ndarray
    right: np.ndarray
    total: np.ndarray
    count: np.ndarray
    start: np.ndarray
    least: np.ndarray
    energy: np.ndarray
    ridge: np.ndarray | float = _RIDGE

    @classmethod
    def added(cls, parts: Sequence[NormalEquations]) -> NormalEquations:
        """Equations of several shapes with as many harmonics, shell by shell; their folds are concatenated."""
        if len(parts) == 1:
            return parts[0]
        joined = {name: np.concatenate([getattr(one, name) for one in parts])
                  for name in ("gram", "right", "total", "count")}
        means = {name: np.mean([getattr(one, name) for one in parts], 0) for name in ("start", "least", "energy")}
        return cls(**joined, **means)

    def grouped(self, label: np.ndarray) -> NormalEquations:
        """Equations whose folds are trajectories, summed over trajectories of the same label (S,)."""
        parts = [label == value for value in np.unique(label)]
        return replace(self, **{name: np.stack([getattr(self, name)[part].sum(0) for part in parts])
                                for name in ("gram", "right", "total", "count")})

    @cached_property
    def folded(self) -> NormalEquations:
        """Equations whose folds are trajectories, summed over those that are left out together."""
        return self.grouped(np.arange(len(self.gram)) % FOLDS)

    def without(self, fold: int | np.ndarray) -> NormalEquations:
        """Equations without one or several folds."""
        return replace(self, **{name: np.delete(getattr(self, name), fold, 0)
                                for name in ("gram", "right", "total", "count")})

    def added_shells(self, weights: np.ndarray) -> NormalEquations:
        """Equations of one shell, the sum of all by weights (L,); `start`, `least` and `energy` remain those of all."""
        sums = [np.tensordot(weights, part, (0, 1))[:, None] for part in (self.gram, self.right, self.total)]
        return replace(self, gram=sums[0], right=sums[1], total=sums[2], count=self.count.sum(1, keepdims=True))

    def only(self, terms: Sequence[int]) -> NormalEquations:
        """Equations restricted to some terms."""
        ridge = self.ridge if np.ndim(self.ridge) == 0 else np.asarray(self.ridge)[list(terms)]
        return replace(self, gram=self.gram[:, :, terms][:, :, :, terms], right=self.right[:, :, terms], ridge=ridge)

    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Gram, right, total and count, summed over folds."""
        return self.gram.sum(0), self.right.sum(0), self.total.sum(0), self.count.sum(0)

    def solve(self, c: int, active: list[int], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of the active terms in channel c, and the inverse of their weighted normal matrix."""
        gram, right, _, _ = self.sums
        effort.add(2 * len(active) ** 3, gram.size, _SOLVED)
        return _solved(np.tensordot(weights, gram, 1)[np.ix_(active, active)], weights @ right[:, active, c],
                       self._ridges[active])

    @property
    def _ridges(self) -> np.ndarray:
        return np.broadcast_to(self.ridge, self.gram.shape[-1])

    def solved(self, active: list[list[int]], count: int) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (count, C) of the active terms of each channel, and standard errors, from all folds."""
        theta, std = np.zeros((2, count, len(active)))
        for c, terms in enumerate(active):
            weights = self.weights(c, terms)
            theta[terms, c], inverse = self.solve(c, terms, weights)
            std[terms, c] = np.sqrt(np.maximum(np.diag(inverse), 0.0))
        return theta, std

    def squares(self, c: int, active: list[int], theta: np.ndarray) -> np.ndarray:
        """Sums of squared residuals (L,) by shell, with coefficients theta of the active terms."""
        gram, right, total, _ = self.sums
        return _squares(gram, right[..., c], total[:, c], active, theta)

    def unexplained(self, c: int, active: list[int], theta: np.ndarray) -> float:
        """Unexplained share of squared changes with coefficients of active terms; shells are weighted by the variance
        of their codes, for frames may not resolve the changes of high harmonics."""
        _, _, total, count = self.sums
        energy, changes = self.energy[:, c] * count, total[:, c]
        shares = self.squares(c, active, theta) / np.maximum(changes, _LEAST_VARIANCE * changes.max() + 1e-300)
        return float(energy @ np.minimum(shares, 1.0) / (energy.sum() + 1e-300))  # poor splines tell no law

    def misfit(self, c: int, active: list[int]) -> float:
        """Unexplained share of squared changes with the best coefficients of active terms."""
        return self.unexplained(c, active, self.solve(c, active, self.weights(c, active))[0])

    def misfits(self, label: np.ndarray) -> np.ndarray:
        """Misfits (C,) of all terms, with separate coefficients of each label (S,) of the trajectories, which are the
        folds; means over labels."""
        every, channels = [*range(self.gram.shape[-1])], range(self.right.shape[-1])
        parts = [self.without(np.flatnonzero(label != value)) for value in np.unique(label)]
        return np.mean([[part.misfit(c, every) for c in channels] for part in parts], 0)

    def weights(self, c: int, active: list[int]) -> np.ndarray:
        """Inverse residual variances (L,) of shells, by iteratively reweighted least squares with all active terms.

        Zero for shells of little energy if the law explains far more without them: there, changes due to misplaced
        walls are explained by no law, and errors of codes bias coefficients towards zero.
        """
        _, _, total, count = self.sums
        least = self.least[:, c] + _LEAST_VARIANCE * (total[:, c] / count).max() + 1e-300
        best, missed = np.zeros(0), np.inf
        for kept in np.unique(self.energy[:, c] >= np.outer(_OF_ENERGY, self.energy[:, c].max()), axis=0)[::-1]:
            one = self._weights(c, active, np.where(kept & self.energy[:, c].any(), least, np.inf))  # or of one value
            if (left := self.unexplained(c, active, self.solve(c, active, one)[0])) < _CLEARLY * missed:
                best, missed = one, left
            if missed < _TOLD:
                break
        return best

    def _weights(self, c: int, active: list[int], least: np.ndarray) -> np.ndarray:
        """Weights with residual variances of at least `least` (L,)."""
        count, variance = self.sums[3], np.maximum(self.start[:, c], least)
        for _ in range(_REWEIGHTED):
            theta, _ = self.solve(c, active, 1 / variance)
            variance = np.maximum(self.squares(c, active, theta) / count, least)
        return 1 / variance

    def cross_validated(self, c: int, active: list[int], weights: np.ndarray) -> tuple[float, float]:
        """Squared residuals of left-out trajectories over squared changes; mean logarithm of this ratio over shells, of
        variances that are at least those due to the uncertainty of codes."""
        added, left, total, count = self.added_shells(weights), np.zeros(len(weights)), self.sums[2][:, c], self.sums[3]
        for fold, parts in enumerate(zip(self.gram, self.right[..., c], self.total[..., c], strict=True)):
            others = added.without(fold) if self._folds_left_out else added
            left += _squares(*parts, active, others.solve(c, active, np.ones(1))[0])
        left *= self._gcv_factor(len(active), weights)
        least = self.least[:, c] + _LEAST_VARIANCE * (total / count).max() + 1e-300
        mask = np.isfinite(least)
        shares = np.log(np.maximum(left / count, least)[mask] / np.maximum(total / count, least)[mask])
        return float(left[mask].sum() / (total[mask].sum() + 1e-300)), float(count[mask] @ shares / count[mask].sum())

    @property
    def _folds_left_out(self) -> int:
        """1, or 0 for a single fold, which is not left out."""
        return int(len(self.gram) > 1)

    def _gcv_factor(self, unknowns: int, weights: np.ndarray) -> float:
        """Factor on residuals of equations that are not left out (generalised cross-validation, Golub et al. 1979)."""
        free = 1 - unknowns / float(self.sums[3][weights > 0].sum() + 1e-300)
        return 1.0 if self._folds_left_out else 1 / max(free, _LEAST_FREE) ** 2

    def eliminations(self, c: int, active: list[int], weights: np.ndarray, kept: Sequence[int] = ()
                     ) -> list[tuple[list[int], float]]:
        """Backward elimination: supports of decreasing size, with cross-validated misfits, down to the terms `kept`.

        Each step drops the term whose removal costs least. The misfit is the mean squared residual, in units of its
        variance, of left-out trajectories.
        """
        every, few, left, path = [*active, *kept], len(active), np.arange(len(active)), []
        grams = np.einsum("l,flij->fij", weights, self.gram[:, :, every][:, :, :, every])
        rights = np.einsum("l,fli->fi", weights, self.right[:, :, every, c])
        totals, count = self.total[:, :, c] @ weights, float(self.count.sum())
        gram, right = (np.concatenate([own.sum(0) - self._folds_left_out * own, own.sum(0)[None]])
                       for own in (grams, rights))  # all folds but one, then all
        scale, gram, right = _scaled(gram, right, self._ridges[every])
        effort.add(2 * len(gram) * len(kept) ** 2 * len(every), calls=_SOLVED)
        cross = gram[:, :few, few:]  # the terms `kept` are eliminated first, once
        inner = np.linalg.solve(gram[:, few:, few:], np.concatenate([cross.swapaxes(1, 2), right[:, few:, None]], 2))
        outer = np.concatenate([gram[:, :few, :few], right[:, :few, None]], 2) - cross @ inner
        while True:  # updates of the inverse would lose all digits where terms are collinear
            effort.add(2 * len(gram) * (len(left) ** 3 + len(every) ** 2), calls=_SOLVED)
            inverse, theta = np.linalg.inv(outer[:, left[:, None], left]), np.zeros((len(gram), len(every)))
            theta[:, left] = (inverse @ outer[:, left, -1:])[..., 0]
            theta[:, few:] = inner[..., -1] - (inner[..., left] @ theta[:, left, None])[..., 0]
            apart = (theta / scale)[:-1]
            squares = totals - 2 * np.einsum("fi,fi->f", rights, apart) + np.einsum("fi,fij,fj->f", apart, grams, apart)
            missed = float(np.maximum(squares, 0.0).sum()) * self._gcv_factor(len(left) + len(kept), weights)
            path.append(([*(every[i] for i in left), *kept], missed / count))
            if not len(left):
                return path
            costs = theta[-1, left] ** 2 / np.maximum(np.diag(inverse[-1]), 1e-300)
            left = np.delete(left, int(costs.argmin()))


def _scaled(gram: np.ndarray, right: np.ndarray, ridges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scales (..., J) of normal equations with the diagonal one, and these equations, with ridges."""
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    return scale, gram / (scale[..., None] * scale[..., None, :]) + np.diag(ridges), right / scale


def _solved(gram: np.ndarray, right: np.ndarray, ridges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solutions (..., J) of normal equations with the diagonal scaled to one, and inverse matrices (..., J, J)."""
    scale, scaled, right = _scaled(gram, right, ridges)
    inverse = np.linalg.inv(scaled)
    return (inverse @ right[..., None])[..., 0] / scale, inverse / (scale[..., None] * scale[..., None, :])


def _squares(gram: np.ndarray, right: np.ndarray, total: np.ndarray, active: list[int], theta: np.ndarray
             ) -> np.ndarray:
    """Sums of squared residuals (L,), from normal matrices (L, J, J), right sides (L, J) and squares (L,)."""
    whole = np.zeros(gram.shape[-1])
    whole[active] = theta
    size = np.sqrt(np.diagonal(gram, axis1=1, axis2=2).clip(0)) @ np.abs(whole)
    rounding = np.finfo(float).eps * size**2  # dominates where huge coefficients cancel
    return np.maximum(total - 2 * right @ whole + gram @ whole @ whole, np.where(
        rounding > _ROUNDING * total, rounding, 0.0))


def normal_equations(terms: Sequence[Term | Sine], harmonics: Harmonics, t: np.ndarray, codes: np.ndarray,
                     spread: np.ndarray, known: np.ndarray, kinds: Sequence[bool], folds: int = FOLDS,
                     rows: int | None = None, paths: Tensor | None = None, rates: Sequence[int] = (),
                     integrals: Sequence[dict] = ()) -> list[NormalEquations]:
    """Equations of terms along trajectories: codes (S, T, C, K) on harmonics, variances (S, C, K), times t (S, T).

    The outer intervals, where splines are poor, are left out if there are enough. kinds: True for changes from the mean
    of a trajectory, in which noise of codes enters once, False for those between frames. known (C, K): shares of the
    variance of codes that points determine; shells with small shares have no weight. rows: number of harmonics as test
    functions, the first ones (all). paths (S, T - 1, N, C, K): codes at `NODES` of all intervals in place of splines.
    rates: channels with equations of second order, in values and these rates; others have the same test functions.
    integrals: known ones by term, of each trajectory, to which those of further terms are added.
    """
    (trajectories, times, channels), known_terms = codes.shape[:3], integrals[0] if integrals else ()
    library = Library.of([term for term in terms if term not in known_terms], harmonics)
    rows = min(rows or codes.shape[3], codes.shape[3])
    spread, known = spread[..., :rows], known[..., :rows]
    shell = library.shells(rows)
    each, j = (min(folds, trajectories), int(shell.max()) + 1), len(terms)
    every = [(np.zeros((*each, j, j)), np.zeros((*each, j, channels)), np.zeros((*each, channels)), np.zeros(each))
             for _ in kinds]
    whole = paths is not None or times < 5
    first, last = (0, times - 1) if whole else (2, times - 3) if times >= 8 else (1, times - 2)
    own = partial(_sums, library, terms, kinds, list(rates), first, last, shell, float(np.median(np.diff(t))))
    given = ((t[s], codes[s], None if paths is None else paths[s], integrals[s] if integrals else None)
             for s in range(trajectories))
    for s, found in enumerate((map if integrals else team.map)(own, given)):
        for one, parts in zip(every, found, strict=True):
            for sums, part in zip(one, parts, strict=True):
                sums[s % each[0]] += part
    short = codes[..., :rows]
    missed = left_out_frames(t, short) if times >= 4 else np.diff(short, axis=1).var((0, 1))  # (C, K), of splines
    size = short.var((0, 1))  # a constant that all frames share says nothing about the waves of its shell
    share, energy, noise, start = (of_shells(a, shell) for a in (known * size, size, spread.mean(0), missed))
    share = share / np.maximum(energy, 1e-300)
    noise = np.where(share < np.minimum(_KNOWN, share.max(0)), np.inf, noise)
    factors = [1 if cumulative else 6 if rates else 2 for cumulative in kinds]
    return [NormalEquations(*sums, start, factor * noise, energy) for sums, factor in zip(every, factors, strict=True)]


def _sums(library: Library, terms: Sequence[Term | Sine], kinds: Sequence[bool], rates: list[int], first: int,
          last: int, shell: np.ndarray, usual: float, given: tuple[np.ndarray, np.ndarray, Tensor | None, dict | None]
          ) -> list[tuple[np.ndarray, ...]]:
    """Gram (L, J, J), right (L, J, C), total (L, C) and count (L,) of each kind, for one trajectory: its times, codes,
    codes at nodes, and known integrals of terms. usual: length of intervals."""
    t, codes, path, known = given
    steps, result = _equations(library, t, codes, first, last, len(shell), path, rates), []
    if known is not None:
        known.update(zip(library.terms, steps[0].swapaxes(0, 1), strict=True))
        steps = np.stack([known[term] for term in terms], 1), steps[1]
    lengths = np.diff(t)[first:last]
    lengths = (lengths[1:] + lengths[:-1]) / 2 if rates else lengths
    weights = np.minimum((1 + _ROUNDING) * usual / lengths, 1.0)[:, None, None] ** (_OF_LENGTH if path is None else 0)
    for cumulative in kinds:
        integrals, changes = (weights * a for a in steps) if not cumulative else steps
        if cumulative:
            integrals, changes = (np.concatenate([0 * a[:1], np.cumsum(a, 0)]) for a in steps)
            integrals, changes = integrals - integrals.mean(0), changes - changes.mean(0)
        result.append(by_shells(integrals, changes, shell))
    return result


def by_shells(features: np.ndarray, values: np.ndarray, shell: np.ndarray) -> tuple[np.ndarray, ...]:
    """Gram (L, J, J), right (L, J, C), total (L, C) and count (L,) of features (I, J, K) and values (I, C, K)."""
    parts = []
    for group in range(int(shell.max()) + 1):
        a, y = (np.moveaxis(one[:, :, shell == group], 1, -1).reshape(-1, one.shape[1]) for one in (features, values))
        parts.append((a.T @ a, a.T @ y, (y**2).sum(0), np.asarray(len(y))))
    return tuple(map(np.stack, zip(*parts, strict=True)))


def of_shells(values: np.ndarray, shell: np.ndarray) -> np.ndarray:
    """Means (L, C) of values (C, K) over shells."""
    return np.stack([values[:, shell == group].mean(1) for group in range(int(shell.max()) + 1)])


def _equations(library: Library, t: np.ndarray, codes: np.ndarray, first: int, last: int, rows: int,
               path: Tensor | None = None, second: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Integrals (I, J, rows) of terms over intervals first ... last - 1 of a trajectory, and changes (I, C, rows).

    With channels of second order: integrals against hat functions over three frames, and changes of mean slopes of
    these channels and of mean values of the others.
    """
    starts, lengths = t[first:last], np.diff(t)[first:last]
    if path is None:
        at = (starts[:, None] + NODES * lengths[:, None]).ravel()
        spline = make_interp_spline(t, codes, k=spline_order(len(t)), axis=0)
        values = spline(at)
        states = torch.tensor(np.concatenate([values, spline.derivative()(at)[:, second]], 1) if second else values)
    else:
        states = path.flatten(0, 1)
    weights = torch.tensor(_WEIGHTS * np.stack([NODES, 1 - NODES]) if second else _WEIGHTS[None])
    with torch.no_grad():
        chunk = len(NODES) * max(_CHUNK * _FEW // max(len(library.terms), _FEW) // len(NODES), 1)
        effort.add(*library.work(len(states), rows))
        sums = torch.cat([library.features(part, rows, weights) for part in states.split(chunk)])
    integrals = sums.unflatten(0, (len(starts), -1)).numpy() * lengths[:, None, None, None]
    changes = np.diff(codes[..., :rows], axis=0)[first:last]
    if not second:
        return integrals[:, 0], changes
    rising, falling = integrals.swapaxes(0, 1)
    means = np.einsum("n,inck->ick", _WEIGHTS, values.reshape(len(starts), len(NODES), *values.shape[1:])[..., :rows])
    means[:, second] = (changes / lengths[:, None, None])[:, second]
    return rising[:-1] + falling[1:], np.diff(means, axis=0)


def sparse_laws(equations: NormalEquations, active: Sequence[list[int]], count: int
                ) -> list[SparseLaw]:
    """Supports, coefficients and standard errors (count, C), and misfits of sparse laws of several sizes from the
    active terms of each channel."""
    paths, weights, channels = [], [], len(active)
    for c, terms in enumerate(active):
        weights.append(equations.weights(c, terms))
        paths.append(equations.eliminations(c, terms, weights[c]))
    result = []
    for level in _LEVELS:
        theta, std, chosen, misfit = np.zeros((count, channels)), np.zeros((count, channels)), [], 0.0
        for c, path in enumerate(paths):
            least, empty = min(value for _, value in path), path[-1][1]
            bound = least + min(level[0] * least, level[1] * (empty - least))
            support = [support for support, value in path if value <= bound][-1]
            solution, inverse = equations.solve(c, support, weights[c])
            theta[support, c], std[support, c] = solution, np.sqrt(np.maximum(np.diag(inverse), 0.0))
            chosen.append(tuple(sorted(support)))
            misfit += equations.unexplained(c, support, solution) / channels
        result.append((tuple(chosen), theta, std, misfit))
    return result


def left_out_frames(t: np.ndarray, codes: np.ndarray, first: int = 0) -> np.ndarray:
    """Mean squared errors (C, K) of splines, through frames from `first` on, at inner frames that they leave out."""
    times, errors = codes.shape[1], []
    order = spline_order(times - first - 1)
    for n in np.unique(np.linspace(times // 3, times - times // 3 - 1, _LEFT_OUT).astype(int)):
        rest = np.setdiff1d(np.arange(max(first, n - _AROUND), min(times, n + _AROUND + 1)), n)
        errors.append(np.mean([(make_interp_spline(time[rest], path[rest], k=order, axis=0)(time[n]) - path[n]) ** 2
                               for time, path in zip(t, codes, strict=True)], 0))
    return np.asarray(np.mean(errors, 0))


def spline_order(points: int) -> int:
    """Highest odd order up to quintic that a number of points determines."""
    return min(_ORDER, points - 1 - (points % 2))
