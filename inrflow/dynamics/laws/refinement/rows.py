"""Refinement of a law by rows: values that each have a place and time of their own.

Coefficients and initial codes of segments are fitted together, as in `assimilation`, to the values themselves: splines
in time, which codes of such values come from, flatten noisy waves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

from inrflow.dynamics.laws.law import Law, Segments, integrable, pruned, segments
from inrflow.dynamics.laws.refinement.assimilation import TANGENTS_AT_ONCE, Residuals, WithInitialCodes
from inrflow.dynamics.laws.setting import EncodedData, Log
from inrflow.dynamics.laws.terms import Term
from inrflow.encoding.row_splines import Rows
from inrflow.numerics.effort import OutOfTime, effort, seconds_of

if TYPE_CHECKING:
    from typing_extensions import Self

_EXPECTED, _SHORTEST = 12, 0.05  # Gauss-Newton steps in all; least share of a step
_CONVERGED = 0.5  # decrease of the misfit at convergence, in units of variances
_LONGEST, _ORDER = 24, 5  # most frames of a segment; order of splines between them
_ROUNDS = 4  # of elimination of terms
_LEAST_FREEDOM = 0.1  # least share of the degrees of freedom of rows that initial codes leave
_STEP_ERROR = 0.02  # of the integrator, over the noise
_ERRORS = 3.0  # standard errors from zero of coefficients that are kept: by the BIC of 10^4 values


@dataclass(frozen=True)
class SegmentRows:
    """Rows of a segment: values (R, C), NaN where unknown, and their weights of frames (R, M) and harmonics (R, K)."""

    values: Tensor
    frames: Tensor
    harmonics: Tensor

    def of(self, path: Tensor) -> Tensor:
        """Predicted values (B, R, C) along rollouts (B, M, C K)."""
        codes = path.unflatten(-1, (self.values.shape[1], -1))
        effort.add(products=path.numel() * len(self.values), calls=4)
        return (codes @ self.harmonics.T * self.frames.T[:, None]).sum(1).mT


def rows_along(law: Law, t: np.ndarray, rows: Rows) -> SegmentRows:
    """Rows along a segment with frames at times t (M,), by splines between these."""
    times, x, u = rows
    one_of = times[:, None] == t
    order = min(_ORDER, (len(t) - 1) // 2 * 2 + 1, len(t) - 1)
    frames = one_of.astype(float) if one_of.any(1).all() else make_interp_spline(t, np.eye(len(t)), k=order)(times)
    return SegmentRows(torch.tensor(u), torch.tensor(frames), torch.tensor(law.codes.harmonics.values(x)))


class RowRefinement(WithInitialCodes):
    """Most probable coefficients and initial codes of segments, given rows of values along these.

    fixed: coefficients are kept; initial codes alone are fitted.
    """

    shortest, converged, min_time_left = _SHORTEST, _CONVERGED, 0.0
    rollout_effort = 0.0  # effort of one rollout

    def __init__(self, law: Law, data: Segments, seen: Sequence[SegmentRows], seconds: float, fixed: bool = False):
        self.segment_rows, self.fixed = seen, fixed
        super().__init__(law, data, np.ones_like(law.codes.mean), seconds, uncertain=True)
        self.known = torch.stack([one.values.isfinite().sum(0) for one in self.segment_rows]).sum(0)

    @classmethod
    def by(cls, law: Law, encoded: EncodedData, rows: Sequence[Rows], seconds: float, fixed: bool = False) -> Self:
        """Refinement by rows of the trajectories of encoded data, up to half an interval beyond its frames."""
        frames = encoded.train.t.shape[1] - 1
        length = math.ceil(frames / math.ceil(frames / _LONGEST))
        every, seen = segments(encoded.train.t, encoded.states, encoded.spread, length,
                               encoded.train.systems.number), []
        for first in range(0, frames + 1 - length, length):
            last = first + 2 * length > frames
            for t, (times, x, u) in zip(encoded.train.t[:, first : first + length + 1], rows, strict=True):
                before, after = (t[1] - t[0]) / 2 if not first else 0.0, (t[-1] - t[-2]) / 2 if last else 0.0
                own = (times > t[0] - before) & (times <= t[-1] + after)
                seen.append(rows_along(law, t, (times[own], x[own], u[own])))
        return cls(law, every, seen, seconds, fixed)

    def _affordable(self, data: Segments, seconds: float) -> Segments:
        """As many segments as the time allows, each with a tangent for every code."""
        size, seen = data.codes.shape[2], self.segment_rows[0]
        together = max(TANGENTS_AT_ONCE // size, 1)
        self.rollout_effort = self._cost(data.take(torch.zeros(1, dtype=torch.long)))
        tangents = self._cost(data.take(torch.zeros(together * size, dtype=torch.long))) / together
        each = tangents + seconds_of(2 * seen.values.numel() * size**2)
        left = seconds / _EXPECTED - self.rollout_effort * (0 if self.fixed else len(self.active))
        pick = torch.linspace(0, len(data.codes) - 1, int(max(min(left / each, len(data.codes)), 1))).long()
        self.segment_rows = [self.segment_rows[i] for i in pick.tolist()]
        return data.take(pick)

    def _drop_divergent(self, law: Law) -> None:
        """Keep all segments, for each has rows of its own."""

    def with_significant(self, law: Law, wide: bool) -> Law:
        """Law after further steps, without coefficients that are within three standard errors of zero; wide: those that
        are zero at first are candidates, too."""
        law = self._set_law(law)
        self.active = np.argwhere(np.ones_like(law.theta)) if wide else self.active
        for _ in range(_ROUNDS):
            moved = self._iterated(law)
            if moved is None:
                return law
            self.law, asked = moved[0], len(self.active)
            law = self._set_law(self._significant(self.covariance[:asked, :asked], _ERRORS))
            if len(self.active) in (0, asked):
                break
        return law

    def _objective(self, path: Tensor) -> Callable[[Tensor], float]:
        return self.deviance

    def deviance(self, path: Tensor) -> float:
        """-2 log posterior density, up to a constant, of rollouts (B, M, C K), with the likeliest variance of noise and
        the prior of initial codes; infinite where rollouts diverge."""
        if not torch.isfinite(path).all():
            return math.inf
        squares = ((path[:, 0] - self.mean).square() / self._prior).sum()
        return float((self.known * self._variance(path).log()).sum() + squares)

    @property
    def _prior(self) -> Tensor:
        return self.prior + 1e-12 * self.prior.max()

    def _variance(self, path: Tensor) -> Tensor:
        """Mean squared residuals (C,) of values along rollouts (B, M, C K)."""
        left = [(one.values - one.of(path[b : b + 1])[0]).square().nansum(0) for b, one in enumerate(self.segment_rows)]
        return torch.stack(left).sum(0) / self.known.clamp_min(1) + 1e-300

    def _weighted_residuals(self, path: Tensor) -> Iterator[Residuals]:
        weight = self._variance(path).rsqrt()
        for own, one in zip(path, self.segment_rows, strict=True):
            known = one.values.isfinite()
            left = ((one.values - one.of(own[None])[0]) * weight)[known]
            yield left, lambda paths, one=one, known=known: (one.of(paths) * weight)[:, known]  # type: ignore[misc]

    def _prior_of_initial_codes(self, path: Tensor) -> tuple[Tensor, Tensor]:
        precision = (1 / self._prior).expand(len(path), -1)
        return precision, (self.mean - path[:, 0]) * precision


def refined_by_rows(law: Law, further: Sequence[Term], encoded: EncodedData, rows: Sequence[Rows], judge: EncodedData,
                    judging: Sequence[Rows], noise: float, seconds: float, say: Log) -> Law:
    """Law refined by rows of trajectories, without needless terms, with `further` ones that splines may have hidden.

    Without gain in rows of the trajectories that judge, it is the given law. noise: rough variance of noise over that
    of rows; seconds: of effort.
    """
    def integrated(one: Law, error: float) -> Law | None:
        return integrable(one, encoded.train.t, encoded.states, error) if one.size else None

    def deviance(one: Law) -> float:
        trial = RowRefinement.by(one, judge, judging, math.inf, fixed=True)
        trial.run()
        return trial.deviance(trial._path(one))

    coarse = integrated(law, _STEP_ERROR * math.sqrt(noise)) or law
    trial, best, least = RowRefinement.by(_with_terms(coarse, further), encoded, rows,
                                          seconds), coarse, deviance(coarse)
    within, least = trial.law, least + coarse.size
    with suppress(OutOfTime, np.linalg.LinAlgError):  # the best law so far is kept
        for wide in (False, True):
            if wide and effort() + 2 * trial.rollout_effort * within.theta.size > trial.deadline:
                break
            refined = trial.run(trial.with_significant(within, wide))
            found = integrated(refined, 0.0)
            if found is None or (wide and ((refined.theta != 0) == (within.theta != 0)).all()):
                continue
            after = deviance(pruned(refined)) + refined.size
            say(f"  refined by rows of {len(rows)} trajectories, {refined.size} coefficients: -2 log likelihood of "
                f"others {least:.1f} to {after:.1f}")
            if after < least:
                best, within, least = found, refined, after
    return law if best is coarse else best


def smoothed(law: Law, encoded: EncodedData, rows: Sequence[Rows], noise: float, seconds: float
             ) -> tuple[np.ndarray, np.ndarray] | None:
    """Fields (S, T, N, C) of trajectories along the rollouts that fit their rows best, and the residual variance (C,),
    corrected for the freedom of initial codes; None for trajectories of several segments, or if the time is too
    short."""
    if encoded.train.t.shape[1] - 1 > _LONGEST:
        return None
    coarse = integrable(law, encoded.train.t, encoded.states, _STEP_ERROR * math.sqrt(noise)) or law
    trial = RowRefinement.by(coarse, encoded, rows, seconds, fixed=True)
    trial.run()
    if len(path := trial._path(coarse)) < len(rows):
        return None
    codes = path.unflatten(-1, law.codes.mean.shape).numpy()
    freedom = (1 - len(path) * codes.shape[-1] / trial.known).clamp_min(_LEAST_FREEDOM)
    fields = [law.codes.decode(own, x) for own, x in zip(codes, encoded.train.x, strict=True)]
    return np.stack(fields), (trial._variance(path) / freedom).numpy()


def _with_terms(law: Law, terms: Sequence[Term]) -> Law:
    """Law with further terms of coefficient zero."""
    new = tuple(term for term in terms if term not in law.terms)
    theta = np.concatenate([law.theta, np.zeros((len(new), law.theta.shape[1]))])
    return replace(law, terms=law.terms + new, theta=theta, std=np.zeros_like(theta), by_context=np.zeros((0, 1, 1)))
