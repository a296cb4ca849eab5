"""Refinement of a law's coefficients along its own flow, from short flights whose first codes may be unknown, too.

Multiple shooting (Bock 1983): every flight starts from codes of its own. Where codes are exact, Gauss-Newton of the
coefficients. Where they are noisy, coefficients and first codes minimise what flights miss together, as in variational
data assimilation (4D-Var, Le Dimet & Talagrand 1986): descent by the adjoint of the flow (L-BFGS) in variables in
which an approximate Hessian, whose part of the codes is diagonal, is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from inrflow.domains import Harmonics
from inrflow.dynamics.laws.field import LawField, rates_between
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.setting import Ground
from inrflow.dynamics.states import Flights, flights
from inrflow.numerics.effort import effort
from inrflow.numerics.normal import square_root
from inrflow.numerics.team import team

if TYPE_CHECKING:
    from typing_extensions import Self

_ITERATIONS = 5
_DELTA = 1e-5  # of finite differences, relative to coefficients' and codes' scales
_ROUNDS, _EVALUATIONS = 3, 60  # descents with noisy codes, and flights with their adjoints in one, at most
_EXPECTED = 30  # of these in a descent, as far as flights are chosen by it
_MEMORY = 30  # steps that a descent remembers
_LITTLE = 1e-4  # share of noise in the variance of codes up to which it is neglected: that of 1 to 2 % in values
_COARSE = 4.0  # times the integrator's steps where codes are noisy: an error of 1e-4 of the codes
_PROBES = 3  # random directions along which the sensitivity of codes to first codes is measured
_ADJOINT = 5.0  # times a flight: the flight and its adjoint
_SETTLED = 0.05  # largest derivative of a descent's end, by unknowns in units of their standard errors
_VALUES = 2**23  # of flights whose adjoints are held at a time
_CONVERGED = 1e-5  # relative change of the misfit, which is mostly noise: a standard error is few units of thousands
_TRIALS = 5  # halvings of a step
_FEWEST = 8  # flights; half as many of noisy codes
_BATCH = 2048  # flights at a time
_SIGNIFICANT = 3.0  # standard errors by which a coefficient must differ from zero: the BIC of some 10^4 values


class Refinement:
    """Least squares of a law's coefficients and of the contexts of its systems along flights, and of first codes where
    these are uncertain (None: where their noise matters). shapes: harmonics of each system, where these have shapes of
    their own."""

    def __init__(self, law: Law, data: Flights, known: np.ndarray, seconds: float, uncertain: bool | None = None,
                 shapes: Sequence[Harmonics] = ()):
        self.law = law
        self.fields = [law.field()] if not shapes else [
            LawField.of(law.terms, harmonics, torch.tensor(law.theta)) for harmonics in shapes]
        self.active = _active(law)
        self.rows = torch.tensor(known.ravel() >= 0.5)  # codes that points determine: those compared
        self.prior = torch.tensor(law.codes.variance.ravel())
        self.mean = torch.tensor(law.codes.mean.ravel())
        shell = self.fields[0].library.shells(law.codes.harmonics.count)
        self.shell = torch.tensor(np.concatenate([shell + (shell.max() + 1) * c for c in range(len(law.codes.mean))]))
        self.longest, self.deadline = law.longest, effort() + seconds
        self.data = data = self._affordable(data, seconds, uncertain)
        systems, self.which = data.system.unique(return_inverse=True)
        self.systems = systems.numpy()
        variance = torch.maximum(data.variance, 1e-12 * self.prior)  # codes are exact where points have no noise
        shrink = 1 / variance - 1 / self.prior  # precision of the points alone, and what they alone say
        self.noise = 1 / shrink.clamp_min(1e-6 / self.prior)
        self.target = self.noise[:, None] * (data.codes / variance[:, None] - self.mean / self.prior)
        self.target = torch.where(self.rows, self.target, data.codes)
        beyond = ((self.target[:, 0] - self.mean).square() - self.noise).mean(0)
        self.prior = torch.where(self.rows, torch.maximum(self.prior, beyond), self.prior)  # first ones may be larger
        self.first = data.codes[:, 0].clone()

    @classmethod
    def along(cls, law: Law, ground: Ground, known: np.ndarray, length: int, seconds: float, **options: Any) -> Self:
        """That along all flights of so many frames of a ground; known (C, K): shares that points determine."""
        every = flights(ground.train.t, ground.states, ground.spread, length, ground.train.systems.number)
        return cls(law, every, known, seconds, **options)

    def _affordable(self, data: Flights, seconds: float, uncertain: bool | None) -> Flights:
        """As many flights as the time allows. First codes are unknowns where their noise matters."""
        at = self._at(self.law)
        some = data.take(torch.linspace(0, len(data.codes) - 1, min(_FEWEST, len(data.codes))).long())
        start = effort()
        self._fly(at, some.codes[:, 0], some)
        cost = (effort() - start) / len(some.codes)
        many = min(int(0.05 * seconds / max(cost, 1e-9) / len(some.codes)), _BATCH // len(some.codes))
        if many > 1:  # larger batches cost less for each flight
            start = effort()
            self._fly(at, some.codes[:, 0].repeat(many, 1), some.take(torch.arange(len(some.dt)).repeat(many)))
            cost = (effort() - start) / len(some.codes) / many
        noise = data.variance.mean(0)[self.rows].sum() / self.prior[self.rows].sum()
        self.uncertain = bool(noise > _LITTLE) if uncertain is None else uncertain
        flown = _ITERATIONS * (len(self.active) + 2.0)
        if self.uncertain:
            self.longest *= _COARSE
            flown = _ROUNDS * (len(self.active) + _PROBES + _ADJOINT * _EXPECTED) / _COARSE
        affordable = seconds / (cost * flown)
        fewest = max(_FEWEST // 2 if self.uncertain else _FEWEST, len(data.system.unique()))
        pick = torch.linspace(0, len(data.codes) - 1, min(max(int(affordable), fewest), len(data.codes))).long()
        return data.take(pick)

    @staticmethod
    def _at(law: Law, shift: np.ndarray | float = 0.0) -> Callable[[int], Tensor]:
        """Coefficients (J, C) of each system, shifted by (J, C)."""
        return lambda system: torch.tensor(law.theta_at(law.context_of(system)) + shift)

    def _fly(self, theta: Callable[[int], Tensor], z: Tensor, data: Flights) -> Tensor:
        """Codes (B, M, C K) along flights from z (B, C K), of coefficients (J, C) by system."""
        paths = z.new_zeros(len(z), 1 + data.dt.shape[1], z.shape[1])
        for system in data.system.unique().tolist():
            mine = data.system == system
            field = self.fields[system if len(self.fields) > 1 else 0].at(theta(system))
            paths[mine] = self._of_one_system(field, z[mine], data.dt[mine], data.codes[mine, 1])
        return paths

    def _of_one_system(self, field: LawField, z: Tensor, dt: Tensor, then: Tensor) -> Tensor:
        size = z.shape[1]
        if field.size > size:  # a law with rates: first ones are those that lead to the second frame
            z = torch.cat([z, rates_between(field, self.law.rates, self.longest, dt[:, 0], z, then)], 1)
        path = [z]
        for m in range(dt.shape[1]):
            path.append(field.over(path[-1], dt[:, m], self.longest))
        return torch.stack(path, 1)[..., :size]

    def _parts(self, law: Law, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Active coefficients (M,) at context 0, what contexts add (P, M), contexts (E, P); after a step (U,)."""
        here = tuple(self.active.T)
        every = law.contexts[self.systems] if law.count else np.zeros((len(self.systems), 0))
        theta, by_context, contexts = map(torch.tensor, (law.theta[here], law.by_context[(slice(None), *here)], every))
        own = len(step) - contexts.numel()
        where, added = by_context.nonzero(as_tuple=True), step[len(theta) : own]
        theta, by_context = theta + step[: len(theta)], by_context.index_put(where, added, accumulate=True)
        return theta, by_context, contexts + step[own:].reshape(contexts.shape)

    def _values(self, law: Law, step: Tensor) -> Tensor:
        """Active coefficients (E, M) of each system after a step (U,) of the unknowns."""
        theta, by_context, contexts = self._parts(law, step)
        return theta + contexts @ by_context

    def _moved(self, law: Law, step: np.ndarray) -> Law:
        """The law after a step (U,) of the unknowns."""
        theta, by_context, contexts, here = law.theta.copy(), law.by_context.copy(), law.contexts.copy(), self.active.T
        theta[tuple(here)], by_context[(slice(None), *here)], own = (
            part.numpy() for part in self._parts(law, torch.tensor(step)))
        if law.count:
            contexts[self.systems] = own
        return replace(law, theta=theta, by_context=by_context, contexts=contexts)

    def _weights(self, variance: Tensor) -> Tensor:
        """Inverse deviations (B, 1, C K) of codes of variances (B, C K); 0 of those that are not compared."""
        return torch.where(self.rows, variance.rsqrt(), 0.0)[:, None]

    def _misfit(self, path: Tensor, first: Tensor, variance: Tensor, rows: slice = slice(None)) -> Tensor:
        """Weighted squares (B,) of what flights miss, and of the prior of their first codes, if these are unknown."""
        missed = ((path - self.target[rows]) * self._weights(variance)[rows]).square()
        if not self.uncertain:
            return missed[:, 1:].sum((1, 2))
        return missed.sum((1, 2)) + ((first - self.mean) ** 2 / self.prior).sum(1)

    def _variances(self, path: Tensor) -> Tensor:
        """Variances (B, C K): noise of the codes, or where it is larger the mean square of what their shell misses."""
        squares = (path - self.target)[:, 1:].square().mean((0, 1))
        sums, counts = torch.zeros(2, int(self.shell.max()) + 1, dtype=torch.float64)
        sums.index_add_(0, self.shell, squares)
        counts.index_add_(0, self.shell, torch.ones_like(squares))
        model = (sums / counts.clamp_min(1))[self.shell]
        return torch.maximum(self.noise, model) + 1e-12 * self.prior.max()

    def run(self, law: Law | None = None) -> Law:
        """The law with refined coefficients and their standard errors; the law itself where nothing is gained.

        law: another one of the same terms. First codes of flights are kept for what comes next.
        """
        law, gained, inverse = self._of(law), False, np.zeros((0, 0))
        for _ in range(_ROUNDS if self.uncertain else _ITERATIONS):
            path = self._fly(self._at(law), self.first, self.data)
            if not torch.isfinite(path).all():
                break
            variance = self._variances(path)
            before = float(self._misfit(path, self.first, variance).sum())
            inverse, step, codes = self._linearised(law, path, variance)
            if self.uncertain:
                trial, first, after = self._descended(law, variance, inverse, codes)
            else:
                trial, first, after = self._stepped(law, variance, step, before)
            if not after < before:
                break
            law, self.first, gained = trial, first, True
            if after > (1 - _CONVERGED) * before or effort() > self.deadline:
                break
        return self._with_errors(law, inverse) if gained else law

    def _stepped(self, law: Law, variance: Tensor, step: np.ndarray, before: float) -> tuple[Law, Tensor, float]:
        """The law after a step, halved until flights miss less than before, and what they miss."""
        after = before
        for halvings in range(_TRIALS):
            trial = self._moved(law, 0.5**halvings * step)
            path = self._fly(self._at(trial), self.first, self.data)
            after = float(self._misfit(path, self.first, variance).sum())
            if after < before:
                return trial, self.first, after
        return law, self.first, before

    def _descended(self, law: Law, variance: Tensor, inverse: np.ndarray, codes: tuple[Tensor, Tensor]
                   ) -> tuple[Law, Tensor, float]:
        """The law and first codes (B, C K) after a descent of what flights miss, and what they miss then.

        inverse (U, U): covariance of the unknowns; codes: second derivatives (B, C K) by first codes, and moves
        (B, C K, p) of these for moves of coefficients.
        """
        curvature, coupling = codes
        root = torch.tensor(square_root(inverse))
        start, count = self.first, root.shape[1]
        here = self._values(law, torch.zeros(len(root), dtype=torch.float64))
        best: tuple[float, np.ndarray] = (math.inf, np.zeros(count + start.numel()))

        def moved(vector: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            unknown = torch.tensor(vector, requires_grad=True)
            step = root @ unknown[:count]
            first = start + unknown[count:].reshape(start.shape) * curvature.rsqrt()
            values = self._values(law, step)
            first = first - (coupling @ (values - here)[self.which][..., None])[..., 0]
            return unknown, step, values, first

        def evaluate(vector: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal best
            unknown, _, values, first = moved(vector)
            value, by_values, by_first = self._adjoint(law, values.detach(), first.detach(), variance)
            if value < best[0]:
                best = value, vector.copy()
            if not math.isfinite(value):
                return 1e30, np.zeros_like(vector)
            (slope,) = torch.autograd.grad([first, values], unknown, [by_first, by_values])
            return value, slope.numpy()

        def stop(_: np.ndarray) -> None:
            if effort() > self.deadline:
                raise StopIteration

        minimize(evaluate, best[1], jac=True, method="L-BFGS-B", callback=stop,
                 options={"maxfun": _EVALUATIONS, "maxcor": _MEMORY, "gtol": _SETTLED, "ftol": 0.0})
        _, step, _, first = moved(best[1])
        return self._moved(law, step.detach().numpy()), first.detach(), 2 * best[0]

    def _adjoint(self, law: Law, values: Tensor, first: Tensor, variance: Tensor) -> tuple[float, Tensor, Tensor]:
        """Half of what flights miss, and its derivatives by active coefficients (E, M) and by first codes (B, C K)."""
        total, by_values, by_first = 0.0, torch.zeros_like(values), torch.zeros_like(first)
        size = first.shape[1] * self.data.dt.shape[1]
        for rows in torch.arange(len(first)).split(max(_VALUES // size // 200, 1)):
            data, began = self.data.take(rows), effort()
            leaf, start = values.clone().requires_grad_(), first[rows].requires_grad_()

            def theta(system: int, leaf: Tensor = leaf) -> Tensor:
                here = torch.tensor(self.active).T
                full = torch.zeros(law.theta.shape, dtype=torch.float64)
                return full.index_put(tuple(here), leaf[int(np.searchsorted(self.systems, system))])

            path = self._fly(theta, start, data)
            missed = 0.5 * self._misfit(path, start, variance, rows).sum()
            one, two = torch.autograd.grad(missed, [leaf, start])
            by_values, by_first[rows], total = by_values + one, two, total + float(missed.detach())
            effort.add(seconds=(_ADJOINT - 1) * (effort() - began))
        return total, by_values, by_first

    def _of(self, law: Law | None) -> Law:
        """The law, or another one of the same terms, which takes its place."""
        if law is not None:
            self.law, self.active = law, _active(law)
        return self.law

    def estimated(self, law: Law | None = None) -> tuple[Law, Law]:
        """The law with standard errors of its coefficients, and the same without terms that hardly differ from zero.

        The coefficients of the first may miss those that fit flights best, which adds to their errors; those of the
        second are those of the normal distribution of all coefficients where the others vanish.
        """
        law = self._of(law)
        path = self._fly(self._at(law), self.first, self.data)
        if not torch.isfinite(path).all() or not len(self.active):
            return law, law
        covariance, step, _ = self._linearised(law, path, self._variances(path))
        whole = self._with_errors(law, covariance if self.uncertain else covariance + np.outer(step, step))
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

    def _of_first_codes(self, law: Law, path: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean derivatives (M, C K) of codes by their own first value, and second derivatives (B, C K) of the misfit.

        Along random directions, mean over the flights and the codes of a shell (Hutchinson 1990).
        """
        generator, total = torch.Generator().manual_seed(0), torch.zeros_like(path[0])
        delta = _DELTA * float(self.prior.max()) ** 0.5
        for _ in range(_PROBES):
            signs = torch.randint(0, 2, self.first.shape, generator=generator).to(path) * 2 - 1
            total += ((self._fly(self._at(law), self.first + delta * signs, self.data) - path) / delta
                      * signs[:, None]).mean(0) / _PROBES
        mean = total.new_zeros(len(total), int(self.shell.max()) + 1).index_add(1, self.shell, total)
        own = (mean / torch.bincount(self.shell).clamp_min(1))[:, self.shell]
        return own, (own * self._weights(variance)).square().sum(1) + 1 / self.prior

    def _linearised(self, law: Law, path: Tensor, variance: Tensor
                    ) -> tuple[np.ndarray, np.ndarray, tuple[Tensor, Tensor]]:
        """Covariance of the unknowns, their step, and of first codes second derivatives and moves.

        What flights of one trajectory miss may have one cause: the covariance is the larger one of that of independent
        errors and of that of whole trajectories (the sandwich of White 1980, Liang & Zeger 1986).
        """
        weight, size = self._weights(variance), np.abs([law.theta_at(law.context_of(s)) for s in self.systems]).max(0)
        left, columns = (self.target - path) * weight, []
        if not self.uncertain:
            left = left[:, 1:]
        steps = [_DELTA * max(size[j, c], 1e-3 * size.max()) for j, c in self.active]
        shifts = list(zip(self.active, steps, strict=True))
        for later, step in zip(team.map(partial(self._shifted, law), shifts), steps, strict=True):
            columns.append((later - path)[:, path.shape[1] - left.shape[1] :] * weight / step)
        slopes = torch.stack(columns, -1)  # (B, M, C K, p)
        gram, right = torch.einsum("bmkp,bmkq->bpq", slopes, slopes), torch.einsum("bmkp,bmk->bp", slopes, left)
        curvature, coupling = torch.ones_like(self.first), slopes.new_zeros(*self.first.shape, 0)
        if self.uncertain:
            own, curvature = self._of_first_codes(law, path, variance)
            own = own * weight
            coupling = torch.einsum("bmk,bmkp->bkp", own, slopes) / curvature[..., None]
            pull = (own * left).sum(1) - (self.first - self.mean) / self.prior
            gram = gram - torch.einsum("bkp,bk,bkq->bpq", coupling, curvature, coupling)
            right = right - torch.einsum("bkp,bk->bp", coupling, pull)
        added = len(self.active) + int(np.count_nonzero(law.by_context))
        zero = torch.zeros(added + len(self.systems) * law.count, dtype=torch.float64)
        design = torch.autograd.functional.jacobian(lambda step: self._values(law, step), zero)  # (E, p, U)
        both = torch.cat([gram, right[..., None]], -1)
        sums = both.new_zeros(len(design), *both.shape[1:]).index_add(0, self.which, both)
        total = (design.mT @ sums[..., :-1] @ design).sum(0).numpy()
        pulls = (design.mT @ sums[..., -1:])[..., 0].sum(0).numpy()
        size = np.sqrt(np.maximum(np.diag(total), 1e-300))
        inverse = np.linalg.pinv(total / size / size[:, None], rcond=1e-12, hermitian=True) / size / size[:, None]
        step = inverse @ pulls
        return self._robust(inverse, step, design[self.which], both), step, (curvature, coupling)

    def _shifted(self, law: Law, shift: tuple[np.ndarray, float]) -> Tensor:
        """Codes along all flights, one coefficient (term, channel) of the law shifted by a step."""
        where, step = shift
        shifts = np.zeros_like(law.theta)
        shifts[tuple(where)] = step
        return self._fly(self._at(law, shifts), self.first, self.data)

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


def _active(law: Law) -> np.ndarray:
    """Terms and channels (M, 2) of the coefficients that are not zero, but those of values by their rates."""
    present = (law.theta != 0) | (law.by_context != 0).any(0)
    present[:, list(law.rates)] = False
    present[:, -2:] &= not law.period  # clocks are known
    return np.argwhere(present)
