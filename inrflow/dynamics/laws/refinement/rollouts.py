"""Gauss-Newton refinement of law coefficients along rollouts of trajectory segments.

With exact codes, rollouts start from those of first frames of short segments. With noisy codes, it is a prediction
error method (Ljung 1999, 7.2): at each frame, rollouts are corrected towards the codes there, as by a Kalman filter,
with gains for each shell of harmonics that minimise the residuals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from inrflow.domains import Harmonics
from inrflow.dynamics.laws.field import AT_ONCE, LawField, joined
from inrflow.dynamics.laws.law import Law, Segments, segments
from inrflow.dynamics.laws.rate_solver import rates_between
from inrflow.dynamics.laws.setting import DETERMINED, EncodedData
from inrflow.numerics.effort import effort
from inrflow.numerics.team import team

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_ITERATIONS = 5
_DELTA = 1e-5  # of finite differences, relative to coefficients
LITTLE, UNRESOLVED = 1e-7, 3e-5  # variance of noise over that of codes up to which it is neglected; in noiseless data
_ALIKE = 3  # frames of noisy segments after which residual variances are shared
_LESS = 0.25  # factor on gains that is tried before every step
_CONVERGED = 1e-5  # relative decrease of the misfit at convergence; it is small, as the misfit is mostly noise
_SHORTEST = 0.05  # least share of a step
_FEWEST, _FEW_ENOUGH = 8, 0.5  # segments; share of these that must be affordable
_BATCH = 2048  # segments at a time
_SIGNIFICANT = (3.0, 6.0, 12.0)  # standard errors of coefficients kept: 3 is the BIC of 10^4 values


class Refinement:
    """Least squares of a law's coefficients, and of contexts of its systems, along rollouts of segments. Residuals are
    prediction errors where codes are uncertain (None: where noise exceeds the share `little` of their variance).
    shapes: harmonics of each system, if these are of different shapes."""

    filtered, too_slow = True, False  # whether noisy rollouts are corrected; whether even few take too long
    iterations, min_time_left = _ITERATIONS, 1.0  # most steps; least time left for another one, over that of the last
    covariance = np.zeros((0, 0))  # (U, U) of the unknowns, at the last linearisation
    penalty: np.ndarray | None = None  # (M, M) on distances of active coefficients from those of the law `origin`
    origin: Law

    def __init__(self, law: Law, data: Segments, known: np.ndarray, seconds: float, uncertain: bool | None = None,
                 shapes: Sequence[Harmonics] = (), little: float = UNRESOLVED):
        self.law = law
        self.fields = [law.field()] if not shapes else [
            LawField.of(law.terms, harmonics, torch.tensor(law.theta)) for harmonics in shapes]
        self.active = _active(law)
        self.rows = torch.tensor(known.ravel() >= DETERMINED)  # codes that points determine, whose residuals count
        self.prior = torch.tensor(law.codes.variance.ravel())
        self.mean = torch.tensor(law.codes.mean.ravel())
        shell = self.fields[0].library.shells(law.codes.harmonics.count)
        self.shell = torch.tensor(np.concatenate([shell + (shell.max() + 1) * c for c in range(len(law.codes.mean))]))
        self.deadline = effort() + seconds
        noise = data.variance.mean(0)[self.rows].sum() / self.prior[self.rows].sum()
        self.uncertain = bool(noise > little) if uncertain is None else uncertain
        self.level = torch.ones(int(self.shell.max()) + 1, dtype=torch.float64)
        self.gains: Tensor | None = None  # (B, M, C K), of noisy segments
        self.max_step = law.max_step
        self._set_segments(self._affordable(data, seconds))

    def _set_segments(self, data: Segments) -> None:
        """Set the segments, and their codes as points alone determine them, without the prior, as targets."""
        self.data = data
        systems, self.which = data.system.unique(return_inverse=True)
        self.systems = systems.numpy()
        variance = torch.maximum(data.variance, 1e-12 * self.prior)  # codes are exact where points have no noise
        shrink = 1 / variance - 1 / self.prior  # precision by points alone, without the prior
        self.noise = 1 / shrink.clamp_min(1e-6 / self.prior)
        self.target = self.noise[:, None] * (data.codes / variance[:, None] - self.mean / self.prior)
        self.target = torch.where(self.rows, self.target, data.codes)
        if self.uncertain and self.filtered:
            self.gains = self._gains(self.level)

    def _gains(self, level: Tensor) -> Tensor:
        """Gains (B, M, C K) of a filter with an exact law, which decay in time, but at least `level` (L,) by shell."""
        sure = 1 / (torch.arange(self.data.dt.shape[1], dtype=torch.float64) + 2)
        shares = torch.where(self.rows, self.prior / (self.prior + self.noise), 0.0)
        return shares[:, None] * torch.maximum(sure[:, None], level[self.shell])

    @classmethod
    def along(cls, law: Law, encoded: EncodedData, known: np.ndarray, length: int, seconds: float,
              **options: Any) -> Self:
        """Refinement along all segments of `length` steps of training data; known (C, K) as `EncodedData` has it."""
        every = segments(encoded.train.t, encoded.states, encoded.spread, length, encoded.train.systems.number)
        return cls(law, every, known, seconds, **options)

    def _affordable(self, data: Segments, seconds: float) -> Segments:
        """Evenly spaced subset of the segments, as many as the time allows."""
        some = data.take(torch.linspace(0, len(data.codes) - 1, min(_FEWEST, len(data.codes))).long())
        cost = self._cost(some) / len(some.codes)
        many = min(int(0.05 * seconds / max(cost, 1e-9) / len(some.codes)), _BATCH // len(some.codes))
        if many > 1:  # larger batches cost less for each segment
            cost = self._cost(some.take(torch.arange(len(some.dt)).repeat(many))) / len(some.codes) / many
        affordable = seconds / (cost * self._expected)
        fewest = max(_FEWEST, len(data.system.unique()))
        self.too_slow = affordable < _FEW_ENOUGH * fewest
        pick = torch.linspace(0, len(data.codes) - 1, min(max(int(affordable), fewest), len(data.codes))).long()
        return data.take(pick)

    def _cost(self, data: Segments) -> float:
        """Effort of rollouts of segments."""
        began = effort()
        self._rollouts(self.law, data.codes[:, 0], data)
        return effort() - began

    @property
    def _expected(self) -> float:
        """Expected number of rollouts of all segments."""
        return _ITERATIONS * (len(self.active) + 2.0 + 2 * self.uncertain)

    def _rollouts(self, law: Law, z: Tensor, data: Segments, shifts: Tensor | float = 0.0) -> Tensor:
        """Rollouts (B, M, C K) of a law from z (B, C K), before corrections; shifts (B, J, C): of coefficients."""
        paths = z.new_zeros(len(z), 1 + data.dt.shape[1], z.shape[1])
        theta = torch.tensor(law.theta_at(law.context_of(data.system.numpy()))) + shifts
        shape = data.system if len(self.fields) > 1 else torch.zeros_like(data.system)
        for number in shape.unique().tolist():
            own = (shape == number).nonzero()[:, 0]
            distinct, which = theta.expand(len(z), -1, -1)[own].unique(dim=0, return_inverse=True)
            fields = [self.fields[number].at(one, law.terms) for one in distinct]
            for rows, field in joined(fields, which, 0 if law.has_rates else AT_ONCE):
                mine = own[rows]
                paths[mine] = self._of_field(field, z[mine], data.dt[mine], data.codes[mine, 1], mine)
        return paths

    def _of_field(self, field: LawField, z: Tensor, dt: Tensor, then: Tensor, mine: Tensor) -> Tensor:
        size = z.shape[1]
        if field.size > size:  # a law with rates: initial ones lead to the second frame
            z = torch.cat([z, rates_between(field, self.law.rates, self.max_step, dt[:, 0], z, then)], 1)
        path = [z[:, :size]]
        for m in range(dt.shape[1]):
            z = field.after_gaps(z, dt[:, m], self.max_step)
            path.append(z[:, :size])
            if self.gains is not None:
                own = mine % len(self.gains)
                z = z + self.gains[own, m] * (self.target[own, m + 1] - z)
        return torch.stack(path, 1)

    def _parts(self, law: Law, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Active coefficients (M,) at context 0, by_context (P, M) of these, contexts (E, P): after a step (U,)."""
        here = tuple(self.active.T)
        every = law.contexts[self.systems] if law.count else np.zeros((len(self.systems), 0))
        theta, by_context, contexts = map(torch.tensor, (law.theta[here], law.by_context[(slice(None), *here)], every))
        own = len(step) - (0 if law.contexts_given else contexts.numel())
        where, added = by_context.nonzero(as_tuple=True), step[len(theta) : own]
        theta, by_context = theta + step[: len(theta)], by_context.index_put(where, added, accumulate=True)
        return theta, by_context, contexts if law.contexts_given else contexts + step[own:].reshape(contexts.shape)

    def _after_step(self, law: Law, step: np.ndarray) -> Law:
        """The law after a step (U,) of the unknowns."""
        theta, by_context, contexts, here = law.theta.copy(), law.by_context.copy(), law.contexts.copy(), self.active.T
        theta[tuple(here)], by_context[(slice(None), *here)], own = (
            part.numpy() for part in self._parts(law, torch.tensor(step)))
        if law.count:
            contexts[self.systems] = own
        return replace(law, theta=theta, by_context=by_context, contexts=contexts)

    def _apart(self, law: Law) -> np.ndarray:
        """Distances (M,) of the active coefficients from those that changes are penalised from."""
        return np.asarray((law.theta - self.origin.theta)[tuple(self.active.T)])

    def _penalty(self, law: Law) -> float:
        return 0.0 if self.penalty is None else float(self._apart(law) @ self.penalty @ self._apart(law))

    def _weights(self, variance: Tensor) -> Tensor:
        """Inverse standard deviations (B, M, C K) from variances (B, M, C K); 0 for codes that are not compared."""
        return torch.where(self.rows, variance.rsqrt(), 0.0)

    def _misfit(self, path: Tensor, variance: Tensor) -> Tensor:
        """Weighted sums of squared residuals (B,) of rollouts."""
        return ((path - self.target)[:, 1:] * self._weights(variance)).square().sum((1, 2))

    def _mean_squares(self, path: Tensor) -> Tensor:
        """Mean squared residuals by shell: (M, L) of noisy segments, where later frames share their mean, else (1, L),
        the mean of all frames."""
        missed = self._by_shell((path - self.target)[:, 1:].square().mean(0))
        if self.gains is None:
            return missed.mean(0, keepdim=True)
        missed[_ALIKE:] = missed[_ALIKE:].mean(0)
        return missed

    def _by_shell(self, values: Tensor) -> Tensor:
        """Means (M, L) by shell of values (M, C K)."""
        sums = values.new_zeros(len(values), len(self.level)).index_add_(1, self.shell, values)
        return sums / torch.bincount(self.shell)

    def _variances(self, path: Tensor) -> Tensor:
        """Residual variances (B, M, C K), or (B, 1, C K) of all frames: noise of the codes, or the mean square of their
        shell where this is larger."""
        return torch.maximum(self.noise[:, None], self._mean_squares(path)[:, self.shell]) + 1e-12 * self.prior.max()

    def _path(self, law: Law) -> Tensor:
        """Codes (B, M, C K) along rollouts of a law."""
        return self._rollouts(law, self.data.codes[:, 0], self.data)

    def _path_and_variance(self, law: Law) -> tuple[Tensor, Tensor]:
        """Codes (B, M, C K) along rollouts of a law, and residual variances. Gains of noisy segments are reduced in
        shells where this reduces the residuals."""
        path = self._path(law)
        if self.gains is not None:
            self.gains = self._gains(_LESS * self.level)
            trial = self._path(law)
            better = self._mean_squares(trial).log().sum(0) < self._mean_squares(path).log().sum(0)
            self.level = torch.where(better, _LESS * self.level, self.level)
            self.gains = self._gains(self.level)
            if better.any():
                path = trial if better.all() else self._path(law)
        return path, self._variances(path)

    def run(self, law: Law | None = None) -> Law:
        """Law with refined coefficients and their standard errors; the law itself where nothing is gained.

        law: another one of the same terms, to start from.
        """
        law, gained = self._set_law(law), False
        self._drop_divergent(law)
        for _ in range(self.iterations):
            began = effort()
            moved = self._iterated(law)
            if moved is None:
                break
            (law, settled), gained = moved, True
            if settled or effort() + self.min_time_left * (effort() - began) > self.deadline:
                break
        return self._with_errors(law, self.covariance) if gained and len(self.covariance) else law

    def _iterated(self, law: Law) -> tuple[Law, bool] | None:
        """Law after a step, and whether the search has converged; None where nothing is gained."""
        path, variance = self._path_and_variance(law)
        if not torch.isfinite(path).all():
            return None
        before = float(self._misfit(path, variance).sum()) + self._penalty(law)
        self.covariance, step = self._linearised(law, path, variance)
        trial, after = self._line_search(law, variance, step, before)
        return (trial, after > (1 - _CONVERGED) * before) if after < before else None

    def _drop_divergent(self, law: Law) -> None:
        """Halve the integrator's step, once, if rollouts diverge; drop those that still do: one would end them all."""
        for _ in range(2):
            finite = torch.isfinite(self._path(law)).flatten(1).all(1)
            if finite.all() or self.max_step < law.max_step:
                break
            self.max_step /= 2
        if finite.any() and not finite.all():
            self._set_segments(self.data.take(finite.nonzero()[:, 0]))

    def _line_search(self, law: Law, variance: Tensor, step: np.ndarray, before: float) -> tuple[Law, float]:
        """Law after a step, which is halved until the misfit falls, and this misfit.

        With noise, it is doubled while the misfit falls on: fast waves whose phases are wrong by whole turns make all
        steps too short.
        """
        def along(share: float) -> tuple[Law, float]:
            trial = self._after_step(law, share * step)
            return trial, float(self._misfit(self._path(trial), variance).sum()) + self._penalty(trial)

        share, best = backtracked(along, before, _SHORTEST) or (0.0, (law, before))
        while self.gains is not None and share >= 1 and (longer := along(share := 2 * share))[1] < best[1]:
            best = longer
        return best

    def _set_law(self, law: Law | None) -> Law:
        """The law, or another one of the same terms, which replaces it."""
        if law is not None:
            self.law, self.active = law, _active(law)
        return self.law

    def estimated(self, law: Law) -> tuple[Law, list[Law]]:
        """Law with standard errors, and laws without coefficients that are within 3, 6 or 12 of these errors of zero.

        Errors of the first law include the distance of its coefficients from the best fit. Coefficients of the others
        are the conditional means of the normal distribution of all coefficients, given that the dropped ones are zero.
        """
        law = self._set_law(law)
        path, variance = self._path_and_variance(law)
        if not torch.isfinite(path).all() or not len(self.active):
            return law, [law]
        covariance, step = self._linearised(law, path, variance)
        whole = self._with_errors(law, covariance + np.outer(step, step))
        return whole, [self._significant(covariance, errors) for errors in _SIGNIFICANT]

    def _significant(self, covariance: np.ndarray, errors: float) -> Law:
        kept, values = list(range(len(self.active))), self.law.theta[tuple(self.active.T)]
        covariance = covariance[: len(kept), : len(kept)]
        varies = (self.law.by_context[(slice(None), *self.active.T)] != 0).any(0)
        while kept:
            size = np.where(varies[kept], np.inf, np.abs(values) / np.sqrt(np.diag(covariance)))
            weakest = int(size.argmin())
            if not size[weakest] < errors:
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

    def _linearised(self, law: Law, path: Tensor, variance: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Covariance of the unknowns, and their Gauss-Newton step.

        Residuals of one trajectory may be correlated: the covariance is that of independent errors, or that of whole
        trajectories (sandwich estimator of White 1980, Liang & Zeger 1986) where this is larger.
        """
        weight = self._weights(variance)
        left, slopes, design = (self.target - path)[:, 1:] * weight, self.slopes(law, path, weight), self.design(law)
        gram, right = torch.einsum("bmkp,bmkq->bpq", slopes, slopes), torch.einsum("bmkp,bmk->bp", slopes, left)
        both = torch.cat([gram, right[..., None]], -1)
        sums = both.new_zeros(len(design), *both.shape[1:]).index_add(0, self.which, both)
        total = (design.mT @ sums[..., :-1] @ design).sum(0).numpy()
        pulls = (design.mT @ sums[..., -1:])[..., 0].sum(0).numpy()
        if self.penalty is not None:
            total, pulls = total + self.penalty, pulls - self.penalty @ self._apart(law)
        inverse = scaled_inverse(total)
        step = inverse @ pulls
        return self._clustered_covariance(inverse, step, design[self.which], both), step

    def slopes(self, law: Law, path: Tensor, weight: Tensor) -> Tensor:
        """Derivatives (B, M, C K, p) of weighted rollouts by p active coefficients, as finite differences."""
        size = np.abs([law.theta_at(law.context_of(s)) for s in self.systems]).max(0)
        steps = torch.tensor([_DELTA * max(size[j, c], 1e-3 * size.max()) for j, c in self.active])
        shifts = torch.zeros(len(steps), *law.theta.shape, dtype=torch.float64)
        shifts[(torch.arange(len(steps)), *torch.tensor(self.active.T))] = steps
        together = max(AT_ONCE // (len(path) * self.fields[0].library.points), 1)
        every = team.map(partial(self._shifted, law), shifts.split(together))
        return torch.cat([(later - path)[:, :, 1:] * weight / step[:, None, None, None]
                          for later, step in zip(every, steps.split(together), strict=True)]).permute(1, 2, 3, 0)

    def design(self, law: Law) -> Tensor:
        """Derivatives (E, p, U) of the active coefficients of each system with respect to the unknowns."""
        def values(step: Tensor) -> Tensor:
            theta, by_context, contexts = self._parts(law, step)
            return theta + contexts @ by_context

        added = len(self.active) + int(np.count_nonzero(law.by_context))
        zero = torch.zeros(added + (0 if law.contexts_given else len(self.systems) * law.count), dtype=torch.float64)
        return torch.autograd.functional.jacobian(values, zero)

    def _shifted(self, law: Law, shifts: Tensor) -> Tensor:
        """Rollouts (P, B, M, C K) of all segments, with coefficients shifted by (P, J, C)."""
        data = self.data.take(torch.arange(len(self.data.codes)).repeat(len(shifts)))
        each = shifts.repeat_interleave(len(self.data.codes), 0)
        return self._rollouts(law, data.codes[:, 0], data, each).unflatten(0, (len(shifts), -1))

    def _clustered_covariance(self, inverse: np.ndarray, step: np.ndarray, design: Tensor, both: Tensor) -> np.ndarray:
        """Covariance (U, U) clustered by trajectory, from normal equations (B, p, p + 1) of p coefficients."""
        left = both[..., -1] - (both[..., :-1] @ (design @ torch.tensor(step))[..., None])[..., 0]  # after the step
        own = (design.mT @ left[..., None])[..., 0]
        names, number = self.data.trajectory.unique(return_inverse=True)
        sums = own.new_zeros(len(names), own.shape[1]).index_add(0, number, own).numpy()
        meat = sums.T @ sums * len(names) / max(len(names) - 1, 1)
        wide = inverse @ meat @ inverse
        scale = np.sqrt(np.maximum(np.diag(wide) / np.maximum(np.diag(inverse), 1e-300), 1.0))
        return inverse * scale * scale[:, None]


def backtracked(along: Callable[[float], tuple[T, float]], before: float, shortest: float
                ) -> tuple[float, tuple[T, float]] | None:
    """Backtracking line search: the first share 1, 1/2, ... of a step for which the second item of `along(share)` is
    less than `before`, and `along(share)`; None where there is none down to `shortest`."""
    share = 1.0
    while share >= shortest:
        found = along(share)
        if found[1] < before:
            return share, found
        share /= 2
    return None


def scaled_inverse(gram: np.ndarray) -> np.ndarray:
    """Pseudoinverse of a normal matrix (U, U), taken with its diagonal scaled to one."""
    size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    return np.linalg.pinv(gram / size / size[:, None], rcond=1e-12, hermitian=True) / size / size[:, None]


def _active(law: Law) -> np.ndarray:
    """Terms and channels (M, 2) of non-zero coefficients, except known ones: of values by their rates, of a forcing."""
    present = (law.theta != 0) | (law.by_context != 0).any(0)
    present[:, list(law.rates)] = False
    present[:, -2:] &= not law.period  # those of a forcing are known
    return np.argwhere(present)
