"""Refinement of a law's coefficients along its own flow: Gauss-Newton over short flights, their first states unknown.

Multiple shooting (Bock 1983): every flight starts from codes of its own, which stay near the observed ones within their
uncertainty; they are eliminated from the normal equations of the coefficients.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.field import LawField, Library
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.regression import shells

_ITERATIONS = 5
_DELTA = 1e-5  # of finite differences, relative to coefficients' and codes' scales
_MOST_STATES = 160  # unknown codes of a flight
_CONVERGED = 1e-3  # relative change of the misfit
_TRIALS = 5  # halvings of a step
_NOISY = 0.02  # share of the uncertainty of codes in what flights miss from which first codes are unknowns, too
_FEWEST = 8  # flights
_BATCH = 2048  # flights at a time


@dataclass(frozen=True)
class Flights:
    """Codes (B, M, C K) of B flights of M frames, the times (B, M - 1) between them, variances (B, C K) of codes."""

    codes: Tensor
    dt: Tensor
    variance: Tensor


def flights(t: np.ndarray, codes: np.ndarray, spread: np.ndarray, length: int) -> Flights:
    """All flights of some steps, end to end, of codes (S, T, C, K) with variances (S, C, K) at times (S, T)."""
    starts = range(0, codes.shape[1] - length, length)
    flat, wide = codes.reshape(*codes.shape[:2], -1), spread.reshape(len(spread), -1)
    return Flights(torch.tensor(np.concatenate([flat[:, n : n + length + 1] for n in starts])),
                   torch.tensor(np.concatenate([np.diff(t[:, n : n + length + 1], axis=1) for n in starts])),
                   torch.tensor(np.concatenate([wide for _ in starts])))


class Refinement:
    """Gauss-Newton of the coefficients of a law, and of the first codes of flights where these are uncertain."""

    def __init__(self, law: Law, data: Flights, known: np.ndarray, seconds: float, uncertain: bool = False):
        self.law, self.library = law, Library(law.terms, law.codes.harmonics)
        self.active = np.argwhere(law.theta != 0)
        self.rows = torch.tensor(known.ravel() >= 0.5)  # codes that points determine: those compared
        self.prior = torch.tensor(law.codes.variance.ravel())
        self.mean = torch.tensor(law.codes.mean.ravel())
        self.free = torch.argsort(self.prior, descending=True)[:_MOST_STATES].sort().values
        edges = shells(law.codes.harmonics.count)
        self.shell = torch.tensor(np.concatenate([np.digitize(np.arange(edges[-1]), edges[1:]) + len(edges) * c
                                                  for c in range(law.theta.shape[1])]))
        self.deadline = time.process_time() + seconds
        self.data = data = self._affordable(data, seconds, uncertain)
        shrink = 1 / data.variance - 1 / self.prior  # precision of the points alone, and what they alone say
        self.noise = 1 / shrink.clamp_min(1e-6 / self.prior)
        self.target = self.noise[:, None] * (data.codes / data.variance[:, None] - self.mean / self.prior)
        self.target = torch.where(self.rows, self.target, data.codes)

    def _affordable(self, data: Flights, seconds: float, uncertain: bool) -> Flights:
        """As many flights as the time allows; first codes are no unknowns where that leaves too few."""
        field = LawField(self.library, torch.tensor(self.law.theta))
        start = time.process_time()
        path = self._fly(field, data.codes[:, 0], data.dt)
        cost = (time.process_time() - start) / len(data.codes)
        many = min(int(0.05 * seconds / max(cost, 1e-9) / len(data.codes)), _BATCH // len(data.codes))
        if many > 1:  # larger batches cost less for each flight
            start = time.process_time()
            self._fly(field, data.codes[:, 0].repeat(many, 1), data.dt.repeat(many, 1))
            cost = (time.process_time() - start) / len(data.codes) / many
        if len(self.free):
            missed = (path - data.codes)[:, 1:, self.rows].square().sum() / (path.shape[1] - 1)
            noise = data.variance[:, self.rows].sum() * 2
            affordable = seconds / (_ITERATIONS * cost * (len(self.active) + len(self.free)))
            uncertain |= bool(noise > _NOISY * missed)
            if not uncertain or affordable < min(_FEWEST, len(data.codes)):
                self.free = self.free[:0]
        affordable = seconds / (_ITERATIONS * cost * (len(self.active) + len(self.free) + 2))
        pick = torch.linspace(0, len(data.codes) - 1, min(max(int(affordable), _FEWEST), len(data.codes))).long()
        return Flights(data.codes[pick], data.dt[pick], data.variance[pick])

    def _fly(self, field: LawField, z: Tensor, dt: Tensor) -> Tensor:
        """Codes (B, M, C K) along flights from z (B, C K)."""
        path = [z]
        for m in range(dt.shape[1]):
            now = torch.empty_like(z)
            for value in dt[:, m].unique().tolist():
                chosen = dt[:, m] == value
                now[chosen] = field.advance(path[-1][chosen], value, max(round(value / self.law.longest + 0.499), 1))
            path.append(now)
        return torch.stack(path, 1)

    def _field(self, values: np.ndarray) -> LawField:
        theta = np.zeros_like(self.law.theta)
        theta[tuple(self.active.T)] = values
        return LawField(self.library, torch.tensor(theta))

    def _misfit(self, path: Tensor, first: Tensor, variance: Tensor) -> Tensor:
        """Weighted squares (B,) of what flights miss, and of the prior of their first codes."""
        missed = (path - self.target)[:, :, self.rows]
        if not len(self.free):
            missed = missed[:, 1:]
        prior = ((first - self.mean) ** 2 / self.prior)[:, self.free].sum(1) if len(self.free) else 0.0
        return (missed**2 / variance[:, None, self.rows]).sum((1, 2)) + prior

    def _variances(self, path: Tensor) -> Tensor:
        """Variances (B, C K): noise of the codes, or where it is larger the mean square of what their shell misses."""
        squares = (path - self.target)[:, 1:].square().mean((0, 1))
        sums, counts = torch.zeros(2, int(self.shell.max()) + 1, dtype=torch.float64)
        sums.index_add_(0, self.shell, squares)
        counts.index_add_(0, self.shell, torch.ones_like(squares))
        model = (sums / counts.clamp_min(1))[self.shell]
        return torch.maximum(self.noise, model) + 1e-12 * self.prior.max()

    def run(self) -> Law:
        """The law with refined coefficients and their standard errors; the law itself where nothing is gained."""
        values = self.law.theta[tuple(self.active.T)].copy()
        first = self.data.codes[:, 0].clone()
        path = self._fly(self._field(values), first, self.data.dt)
        error = np.zeros_like(values)
        for _ in range(_ITERATIONS):
            if not torch.isfinite(path).all():
                return self.law
            variance = self._variances(path)
            before = float(self._misfit(path, first, variance).sum())
            inverse, step, moves = self._step(values, first, path, variance, self._field(values))
            scale = 1.0
            for _ in range(_TRIALS):
                trial = values + scale * step
                start = first + scale * moves
                flown = self._fly(self._field(trial), start, self.data.dt)
                after = float(self._misfit(flown, start, variance).sum())
                if after < before:
                    break
                scale /= 2
            else:
                break
            values, first, path, error = trial, start, flown, np.sqrt(np.diag(inverse))
            if after > (1 - _CONVERGED) * before or time.process_time() > self.deadline:
                break
        theta, std = self.law.theta.copy(), self.law.std.copy()
        theta[tuple(self.active.T)] = values
        if error.any():
            std[tuple(self.active.T)] = error
        return replace(self.law, theta=theta, std=std)

    def misfits(self, law: Law) -> np.ndarray:
        """Mean weighted squares (B,) of what flights of another law miss, from first codes fitted to its flights."""
        values, first = law.theta[tuple(self.active.T)], self.data.codes[:, 0].clone()
        field = self._field(values)
        path = self._fly(field, first, self.data.dt)
        scale = torch.ones(len(first), 1, dtype=first.dtype)
        for _ in range(2 * _ITERATIONS if len(self.free) else 0):
            if not torch.isfinite(path).all():
                break
            moves = scale * self._step(values[:0], first, path, self.noise, field)[2]
            moved = self._fly(field, first + moves, self.data.dt)
            better = self._misfit(moved, first + moves, self.noise) < self._misfit(path, first, self.noise)
            first = torch.where(better[:, None], first + moves, first)
            scale = torch.where(better[:, None], (2 * scale).clamp_max(1.0), scale / 4)
            path = torch.where(better[:, None, None], moved, path)
        return torch.nan_to_num(self._misfit(path, first, self.noise) / self.target[0].numel(), nan=np.inf).numpy()

    def _step(self, values: np.ndarray, first: Tensor, path: Tensor, variance: Tensor, field: LawField
              ) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Inverse normal matrix of coefficients, their step, and the steps (B, C K) of first codes."""
        weight = variance[:, None, self.rows].rsqrt()
        skip = 0 if len(self.free) else 1

        def whitened(later: Tensor) -> Tensor:
            return ((later - path)[:, skip:, self.rows] * weight).flatten(1)

        left = ((self.target - path)[:, skip:, self.rows] * weight).flatten(1)
        scales = _DELTA * np.maximum(np.abs(values), 1e-3 * np.abs(values).max(initial=0.0))
        columns = []
        for i, delta in enumerate(scales):
            moved = values.copy()
            moved[i] += delta
            columns.append(whitened(self._fly(self._field(moved), first, self.data.dt)) / delta)
        by_theta = torch.stack(columns, -1) if columns else path.new_zeros(len(path), left.shape[1], 0)  # (B, R, p)
        gram, right = by_theta.mT @ by_theta, (by_theta.mT @ left[..., None])[..., 0]
        moves = torch.zeros_like(first)
        if len(self.free):
            slopes, number = [], len(first)
            for chunk in self.free.split(max(_BATCH // number, 1)):
                delta = _DELTA * self.prior[chunk].sqrt() + 1e-12
                shifted = first.expand(len(chunk), *first.shape).clone()
                shifted[torch.arange(len(chunk)), :, chunk] += delta[:, None]
                flown = self._fly(field, shifted.flatten(0, 1), self.data.dt.repeat(len(chunk), 1))
                slopes += [whitened(part) / step for part, step in zip(flown.split(number), delta, strict=True)]
            by_state = torch.stack(slopes, -1)  # (B, R, D)
            inner = by_state.mT @ by_state + torch.diag(1 / self.prior[self.free])
            pull = (by_state.mT @ left[..., None])[..., 0] - ((first - self.mean) / self.prior)[:, self.free]
            mixed = by_state.mT @ by_theta
            solved = torch.linalg.solve(inner, torch.cat([mixed, pull[..., None]], -1))
            gram = gram - mixed.mT @ solved[..., :-1]
            right = right - (mixed.mT @ solved[..., -1:])[..., 0]
        total = gram.sum(0).numpy()
        size = np.sqrt(np.maximum(np.diag(total), 1e-300))
        inverse = np.linalg.pinv(total / size / size[:, None], rcond=1e-12, hermitian=True) / size / size[:, None]
        step = inverse @ right.sum(0).numpy()
        if len(self.free):
            moves[:, self.free] = solved[..., -1] - solved[..., :-1] @ torch.tensor(step)
        return inverse, step, moves
