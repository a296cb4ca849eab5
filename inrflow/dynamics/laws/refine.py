"""Refinement of a law's coefficients along its own flow: Gauss-Newton over short flights, their first states unknown.

Multiple shooting (Bock 1983): every flight starts from codes of its own, which stay near the observed ones within their
uncertainty; they are eliminated from the normal equations of the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.flow import field_of, library_of
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.regression import shells
from inrflow.numerics.effort import effort

_ITERATIONS = 5
_DELTA = 1e-5  # of finite differences, relative to coefficients' and codes' scales
_MOST_STATES = 160  # unknown codes of a flight
_CONVERGED = 1e-5  # relative change of the misfit, which is mostly noise: a standard error is few units of thousands
_TRIALS = 5  # halvings of a step
_NOISY = 0.02  # share of the uncertainty of codes in what flights miss from which first codes are unknowns, too
_FEWEST = 8  # flights
_BATCH = 2048  # flights at a time
_SIGNIFICANT = 2.0  # standard errors by which a coefficient must differ from zero


@dataclass(frozen=True)
class Flights:
    """Codes (B, M, C K) of B flights of M frames, the times (B, M - 1) between them, variances (B, C K) of codes, and
    the numbers (B,) of the system and of the trajectory that each is of."""

    codes: Tensor
    dt: Tensor
    variance: Tensor
    system: Tensor
    trajectory: Tensor

    def take(self, pick: Tensor) -> Flights:
        """Some of the flights."""
        return Flights(self.codes[pick], self.dt[pick], self.variance[pick], self.system[pick], self.trajectory[pick])


def flights(t: np.ndarray, codes: np.ndarray, spread: np.ndarray, length: int, system: np.ndarray | None = None
            ) -> Flights:
    """All flights of some steps, end to end, of codes (S, T, C, K) with variances (S, C, K) at times (S, T)."""
    system = np.zeros(len(codes), dtype=int) if system is None else system
    starts = range(0, codes.shape[1] - length, length)
    flat, wide = codes.reshape(*codes.shape[:2], -1), spread.reshape(len(spread), -1)
    return Flights(torch.tensor(np.concatenate([flat[:, n : n + length + 1] for n in starts])),
                   torch.tensor(np.concatenate([np.diff(t[:, n : n + length + 1], axis=1) for n in starts])),
                   torch.tensor(np.concatenate([wide for _ in starts])),
                   torch.tensor(np.concatenate([system for _ in starts])),
                   torch.tensor(np.concatenate([np.arange(len(codes)) for _ in starts])))


class Refinement:
    """Gauss-Newton of the coefficients of a law and of the contexts of its systems, and of the first codes of flights
    where these are uncertain. contexts_only: coefficients are known."""

    def __init__(self, law: Law, data: Flights, known: np.ndarray, seconds: float, uncertain: bool = False,
                 contexts_only: bool = False):
        self.law, self.library, self.contexts_only = law, library_of(law.terms, law.codes.harmonics), contexts_only
        self.active = np.argwhere((law.theta != 0) | (law.by_context != 0).any(0))
        self.rows = torch.tensor(known.ravel() >= 0.5)  # codes that points determine: those compared
        self.prior = torch.tensor(law.codes.variance.ravel())
        self.mean = torch.tensor(law.codes.mean.ravel())
        self.free = torch.argsort(self.prior, descending=True)[:_MOST_STATES].sort().values
        edges = shells(law.codes.harmonics.count)
        self.shell = torch.tensor(np.concatenate([np.digitize(np.arange(edges[-1]), edges[1:]) + len(edges) * c
                                                  for c in range(law.theta.shape[1])]))
        self.deadline = effort() + seconds
        self.data = data = self._affordable(data, seconds, uncertain)
        systems, self.which = data.system.unique(return_inverse=True)
        self.systems = systems.numpy()
        variance = torch.maximum(data.variance, 1e-12 * self.prior)  # codes are exact where points have no noise
        shrink = 1 / variance - 1 / self.prior  # precision of the points alone, and what they alone say
        self.noise = 1 / shrink.clamp_min(1e-6 / self.prior)
        self.target = self.noise[:, None] * (data.codes / variance[:, None] - self.mean / self.prior)
        self.target = torch.where(self.rows, self.target, data.codes)

    def _affordable(self, data: Flights, seconds: float, uncertain: bool) -> Flights:
        """As many flights as the time allows; first codes are no unknowns where that leaves too few."""
        some = data.take(torch.linspace(0, len(data.codes) - 1, min(_FEWEST, len(data.codes))).long())
        start = effort()
        path = self._fly(self.law, some.codes[:, 0], some)
        cost = (effort() - start) / len(some.codes)
        many = min(int(0.05 * seconds / max(cost, 1e-9) / len(some.codes)), _BATCH // len(some.codes))
        if many > 1:  # larger batches cost less for each flight
            start = effort()
            self._fly(self.law, some.codes[:, 0].repeat(many, 1), some.take(torch.arange(len(some.dt)).repeat(many)))
            cost = (effort() - start) / len(some.codes) / many
        if len(self.free):
            missed = (path - some.codes)[:, 1:, self.rows].square().sum() / (path.shape[1] - 1)
            noise = some.variance[:, self.rows].sum() * 2
            affordable = seconds / (_ITERATIONS * cost * (len(self.active) + len(self.free)))
            uncertain |= bool(noise > _NOISY * missed)
            if not uncertain or affordable < min(_FEWEST, len(data.codes)):
                self.free = self.free[:0]
        affordable = seconds / (_ITERATIONS * cost * (len(self.active) + len(self.free) + 2))
        fewest = max(_FEWEST, len(data.system.unique()))
        pick = torch.linspace(0, len(data.codes) - 1, min(max(int(affordable), fewest), len(data.codes))).long()
        return data.take(pick)

    def _fly(self, law: Law, z: Tensor, data: Flights, shift: np.ndarray | float = 0.0) -> Tensor:
        """Codes (B, M, C K) along flights from z (B, C K), of the law with coefficients shifted by (J, C)."""
        paths = z.new_zeros(len(z), 1 + data.dt.shape[1], z.shape[1])
        for system in data.system.unique().tolist():
            mine = data.system == system
            field = field_of(self.library, torch.tensor(law.theta_at(law.context_of(system)) + shift))
            paths[mine] = self._of_one_system(field, z[mine], data.dt[mine])
        return paths

    def _of_one_system(self, field: LawField, z: Tensor, dt: Tensor) -> Tensor:
        path = [z]
        for m in range(dt.shape[1]):
            now = torch.empty_like(z)
            for value in dt[:, m].unique().tolist():
                chosen = dt[:, m] == value
                now[chosen] = field.advance(path[-1][chosen], value, max(round(value / self.law.longest + 0.499), 1))
            path.append(now)
        return torch.stack(path, 1)

    def _design(self, law: Law) -> np.ndarray:
        """Derivatives (E, M, U) of the active coefficients of each system by all unknowns: coefficients at context 0,
        what contexts add to them, contexts."""
        here = law.by_context[(slice(None), *self.active.T)]  # (P, M)
        systems, (contexts, many) = len(self.systems), here.shape
        parts = [] if self.contexts_only else [np.broadcast_to(np.eye(many), (systems, many, many))]
        for p, m in [] if self.contexts_only else np.argwhere(here):
            column = np.zeros((systems, many, 1))
            column[:, m, 0] = law.contexts[self.systems, p]
            parts.append(column)
        own = np.zeros((systems, many, systems, contexts))
        own[np.arange(systems), :, np.arange(systems)] = here.T
        return np.concatenate([*parts, own.reshape(systems, many, -1)], 2)

    def _moved(self, law: Law, step: np.ndarray) -> Law:
        """The law after a step (U,) of the unknowns."""
        theta, by_context, contexts = law.theta.copy(), law.by_context.copy(), law.contexts.copy()
        own = len(self.systems) * law.count
        if not self.contexts_only:
            added = step[len(self.active) : len(step) - own]
            p, m = np.nonzero(law.by_context[(slice(None), *self.active.T)])
            theta[tuple(self.active.T)] += step[: len(self.active)]
            by_context[(p, *self.active[m].T)] += added
        if law.count:
            contexts[self.systems] += step[len(step) - own :].reshape(len(self.systems), -1)
        return replace(law, theta=theta, by_context=by_context, contexts=contexts)

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
        law, first = self.law, self.data.codes[:, 0].clone()
        path = self._fly(law, first, self.data)
        error = np.zeros((0, 0))
        for _ in range(_ITERATIONS):
            if not torch.isfinite(path).all():
                return self.law
            variance = self._variances(path)
            before = float(self._misfit(path, first, variance).sum())
            covariance, step, moves = self._step(law, first, path, variance)
            scale = 1.0
            for _ in range(_TRIALS):
                trial = self._moved(law, scale * step)
                start = first + scale * moves
                flown = self._fly(trial, start, self.data)
                after = float(self._misfit(flown, start, variance).sum())
                if after < before:
                    break
                scale /= 2
            else:
                break
            law, first, path, error = trial, start, flown, covariance
            if after > (1 - _CONVERGED) * before or effort() > self.deadline:
                break
        return law if self.contexts_only or not len(error) else self._with_errors(law, error)

    def estimated(self) -> tuple[Law, Law]:
        """The law with standard errors of its coefficients, and the same without terms within two of them of zero.

        The coefficients of the first may miss those that fit flights best, which adds to their errors; those of the
        second are those of the normal distribution of all coefficients where the others vanish.
        """
        first = self.data.codes[:, 0].clone()
        path = self._fly(self.law, first, self.data)
        if not torch.isfinite(path).all():
            return self.law, self.law
        covariance, step, _ = self._step(self.law, first, path, self._variances(path))
        whole = self._with_errors(self.law, covariance + np.outer(step, step))
        return whole, self._significant(covariance[: len(self.active), : len(self.active)])

    def _significant(self, covariance: np.ndarray) -> Law:
        kept, values = list(range(len(self.active))), self.law.theta[tuple(self.active.T)]
        varies = (self.law.by_context[(slice(None), *self.active.T)] != 0).any(0)
        while kept:
            size = np.where(varies[kept], np.inf, np.abs(values) / np.sqrt(np.diag(covariance)))
            weakest = int(size.argmin())
            if not size[weakest] < _SIGNIFICANT:
                break
            others = np.arange(len(kept)) != weakest
            column = covariance[others, weakest] / covariance[weakest, weakest]
            values = values[others] - column * values[weakest]
            covariance = covariance[np.ix_(others, others)] - np.outer(column, covariance[weakest, others])
            kept.pop(weakest)
        theta, std = np.zeros((2, *self.law.theta.shape))
        theta[tuple(self.active[kept].T)], std[tuple(self.active[kept].T)] = values, np.sqrt(np.diag(covariance))
        return replace(self.law, theta=theta, std=std)

    def _with_errors(self, law: Law, covariance: np.ndarray) -> Law:
        std = law.std.copy()
        std[tuple(self.active.T)] = np.sqrt(np.diag(covariance))[: len(self.active)]
        return replace(law, std=std)

    def misfits(self, law: Law) -> np.ndarray:
        """Mean weighted squares (B,) of what flights of another law miss, from first codes fitted to its flights."""
        first = self.data.codes[:, 0].clone()
        path = self._fly(law, first, self.data)
        scale = torch.ones(len(first), 1, dtype=first.dtype)
        for _ in range(2 * _ITERATIONS if len(self.free) else 0):
            if not torch.isfinite(path).all():
                break
            moves = scale * self._step(law, first, path, self.noise, False)[2]
            moved = self._fly(law, first + moves, self.data)
            better = self._misfit(moved, first + moves, self.noise) < self._misfit(path, first, self.noise)
            first = torch.where(better[:, None], first + moves, first)
            scale = torch.where(better[:, None], (2 * scale).clamp_max(1.0), scale / 4)
            path = torch.where(better[:, None, None], moved, path)
        return torch.nan_to_num(self._misfit(path, first, self.noise) / self.target[0].numel(), nan=np.inf).numpy()

    def _step(self, law: Law, first: Tensor, path: Tensor, variance: Tensor, coefficients: bool = True
              ) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Covariance of the unknowns, their step, and the steps (B, C K) of first codes.

        What flights of one trajectory miss may have one cause: the covariance is the larger one of that of independent
        errors and of that of whole trajectories (the sandwich of White 1980, Liang & Zeger 1986).
        """
        weight = variance[:, None, self.rows].rsqrt()
        skip = 0 if len(self.free) else 1

        def whitened(later: Tensor) -> Tensor:
            return ((later - path)[:, skip:, self.rows] * weight).flatten(1)

        left = ((self.target - path)[:, skip:, self.rows] * weight).flatten(1)
        active = self.active if coefficients else self.active[:0]
        size = np.abs([law.theta_at(law.context_of(system)) for system in self.systems]).max(0)
        columns = []
        for j, c in active:
            shift = np.zeros_like(law.theta)
            shift[j, c] = _DELTA * max(size[j, c], 1e-3 * size.max())
            columns.append(whitened(self._fly(law, first, self.data, shift)) / shift[j, c])
        by_theta = torch.stack(columns, -1) if columns else path.new_zeros(len(path), left.shape[1], 0)  # (B, R, p)
        gram, right = by_theta.mT @ by_theta, (by_theta.mT @ left[..., None])[..., 0]
        moves = torch.zeros_like(first)
        if len(self.free):
            slopes, number = [], len(first)
            for chunk in self.free.split(max(_BATCH // number, 1)):
                delta = _DELTA * self.prior[chunk].sqrt() + 1e-12
                shifted = first.expand(len(chunk), *first.shape).clone()
                shifted[torch.arange(len(chunk)), :, chunk] += delta[:, None]
                flown = self._fly(law, shifted.flatten(0, 1), self.data.take(torch.arange(number).repeat(len(chunk))))
                slopes += [whitened(part) / step for part, step in zip(flown.split(number), delta, strict=True)]
            by_state = torch.stack(slopes, -1)  # (B, R, D)
            effort.add(products=by_state.numel() * (len(self.free) + len(active)) + number * len(self.free) ** 3,
                       elements=4 * by_state.numel())
            inner = by_state.mT @ by_state + torch.diag(1 / self.prior[self.free])
            pull = (by_state.mT @ left[..., None])[..., 0] - ((first - self.mean) / self.prior)[:, self.free]
            mixed = by_state.mT @ by_theta
            solved = torch.linalg.solve(inner, torch.cat([mixed, pull[..., None]], -1))
            gram = gram - mixed.mT @ solved[..., :-1]
            right = right - (mixed.mT @ solved[..., -1:])[..., 0]
        design = torch.tensor(self._design(law)[:, : len(active)])  # (E, p, U)
        both = torch.cat([gram, right[..., None]], -1)
        sums = both.new_zeros(len(design), *both.shape[1:]).index_add(0, self.which, both)
        total = (design.mT @ sums[..., :-1] @ design).sum(0).numpy()
        pulls = (design.mT @ sums[..., -1:])[..., 0].sum(0).numpy()
        size = np.sqrt(np.maximum(np.diag(total), 1e-300))
        inverse = np.linalg.pinv(total / size / size[:, None], rcond=1e-12, hermitian=True) / size / size[:, None]
        step = inverse @ pulls
        inverse = self._robust(inverse, step, design[self.which], both)
        if len(self.free):
            own = (design @ torch.tensor(step))[self.which]  # (B, p)
            moves[:, self.free] = solved[..., -1] - (solved[..., :-1] @ own[..., None])[..., 0]
        return inverse, step, moves


    def _robust(self, inverse: np.ndarray, step: np.ndarray, design: Tensor, both: Tensor) -> np.ndarray:
        """Covariance (U, U), from the normal matrices and pulls (B, p, p + 1) of flights by p coefficients."""
        left = both[..., -1] - (both[..., :-1] @ (design @ torch.tensor(step))[..., None])[..., 0]  # after the step
        own = (design.mT @ left[..., None])[..., 0]
        names, number = self.data.trajectory.unique(return_inverse=True)
        sums = own.new_zeros(len(names), own.shape[1]).index_add(0, number, own).numpy()
        meat = sums.T @ sums * len(names) / max(len(names) - 1, 1)
        wide = inverse @ meat @ inverse
        scale = np.sqrt(np.maximum(np.diag(wide) / np.maximum(np.diag(inverse), 1e-300), 1.0))
        return inverse * scale * scale[:, None]


def solved_contexts(law: Law, t: np.ndarray, codes: np.ndarray, spread: np.ndarray, system: np.ndarray) -> Law:
    """The law with contexts of some systems, from codes (S, T, C, K) with variances (S, C, K) at times (S, T)."""
    known = 1 - spread.mean(0) / law.codes.variance
    for length in (1, 3):
        if length < codes.shape[1]:
            law = Refinement(law, flights(t, codes, spread, length, system), known, 5.0, contexts_only=True).run()
    return law
