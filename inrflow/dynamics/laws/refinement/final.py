"""Choice among laws, and final refinement: steps, coefficients along rollouts, needless terms, more harmonics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inrflow.domains import Box, Flows
from inrflow.dynamics.laws.contexts import on_more_harmonics, with_new_contexts
from inrflow.dynamics.laws.law import Law, integrable, pruned, well_posed
from inrflow.dynamics.laws.rates import most_harmonics, regressed_again
from inrflow.dynamics.laws.refinement.assimilation import Assimilation
from inrflow.dynamics.laws.refinement.constants import AssimilationWithConstants, WithConstants
from inrflow.dynamics.laws.refinement.rollouts import LITTLE, UNRESOLVED, Refinement
from inrflow.dynamics.laws.setting import Data, EncodedData, Log, condition_count, forecast_errors, resolved_harmonics
from inrflow.dynamics.laws.terms import Term
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.numerics.effort import Limit, OutOfTime, effort

_MIXED = 5  # laws whose equations of a channel are replaced
HARDLY, NEARLY, _OTHER_ORDER = 2.0, 1.1, 1.5  # largest errors over the least: of laws without needless terms, once
# refined; of shorter laws in the search, as needless terms go later; of laws of another order in time
_FINER, _FINEST = (1.7, 2.8, 4.6, 7.6, 12.5), (3.7, 7.0)  # factors on harmonics, tried in turn; those of flows
_BETTER = 0.9  # ratio of errors that justifies more harmonics or shorter steps
KEPT = 0.35  # largest share of the time reserved for forecasts on more harmonics
_LENGTHS, _OF_NOISY = (1, 3, 9), (24, 200)  # lengths of segments, in turn; of noisy ones
_LAST = 3.0  # seconds for standard errors
_FILTERED, _WITH_FIRST = 0.6, 0.6  # shares of the time left: noisy segments; these with initial codes
_NO_NOISE = 0.1  # ratio of errors on more harmonics that only data without noise have
EXACT = 1e-12  # error of forecasts close to rounding in single precision: nothing to refine
_AS_MANY = 0.75  # least frames of segments with initial codes, over those of filtered ones
_FITS = 1.5  # largest residual over noise of segments with initial codes: long chaotic ones cannot be followed


def refine(errors: np.ndarray, law: Law, encoded: EncodedData, judge: Data, whole: Data, start: float, seconds: float,
           say: Log, brief: bool = False) -> tuple[np.ndarray, Law]:
    """Errors and law after refinement of integrator steps, of coefficients along rollouts, of terms and of harmonics.

    errors (S,): of its forecasts; whole: all trajectories, for noisy data; start: effort when the search began, which
    has `seconds`. brief: along single steps, on the same harmonics. Where the result is worse, the arguments are
    returned.
    """
    if law.codes.harmonics.count != encoded.codes.harmonics.count:  # refined before, on more harmonics
        encoded = EncodedData.of(law, encoded.train)
    refinement = _FinalRefinement(errors, law, encoded, encoded.train, judge, start, seconds, say)
    with suppress(OutOfTime, np.linalg.LinAlgError), effort.limited(Limit(start + seconds)):
        refinement.run(whole, brief)
    return (refinement.errors, refinement.law) if refinement.errors.mean() <= HARDLY * errors.mean() else (errors, law)


@dataclass
class _FinalRefinement:
    """State of a refinement, which may end at any time: law and errors (S,) of its forecasts.

    encoded: data that rollouts start from. noisy: whether its codes are uncertain; hardly: ratio of errors that a step
    may cost then. judging: effort of one forecast; kept: seconds reserved for more harmonics.
    """

    errors: np.ndarray
    law: Law
    encoded: EncodedData
    train: Data
    judge: Data
    start: float
    seconds: float
    say: Log
    noisy: bool = False
    hardly: float = 1.0
    judging: float = 0.0
    kept: float = 0.0

    def run(self, whole: Data, brief: bool) -> None:
        """Run all steps for which there is time."""
        second, exact, place = self.law.has_rates, self.errors.mean() < EXACT, self.encoded.domain
        if not exact:
            self.shorten_steps()
        last = self._along(2 if second else 1, min(_LAST, 0.1 * self.seconds), uncertain=False if second else None,
                           little=LITTLE if self.encoded.noisy else UNRESOLVED)
        if last.uncertain:  # forecasts from single frames are inaccurate
            wide = on_more_harmonics(self.law, whole)
            encoded, errors = EncodedData.of(wide, whole), forecast_errors(wide, self.judge)
            self.law, self.encoded, self.errors = wide, encoded, errors
            self.noisy, self.hardly, self.kept = True, HARDLY, 0.0
        most = self.encoded.states.shape[1] - 1
        lengths = sorted({min(n, most) for n in _OF_NOISY}) if self.noisy else [
            n for n in _LENGTHS[second:] if n <= most and not exact]
        last = self.along_segments(lengths[: 1 if brief else None], len(lengths)) or last
        if not self.noisy:
            last = self._along(_LENGTHS[1], min(_LAST, 0.1 * self.seconds), uncertain=False)
        self.drop_terms(last)
        if self.noisy and not second and self.law.size:
            self.with_initial_codes(lengths, last)
        if self.noisy:  # accurate starts need shorter steps
            self.law = integrable(self.law, self.encoded.train.t, self.encoded.states) or self.law
        if not (brief or isinstance(place, Flows)):
            for better in finer(self.law, self.train, self.judge, self.start + self.seconds, self.say, not self.noisy):
                self.errors, self.law = better  # kept where the time ends before the next one

    def shorten_steps(self) -> None:
        """Halve the integrator's step while forecasts improve, for its errors may grow along rollouts."""
        errors, law, deadline = self.errors, self.law, self.start + (1 - KEPT) * self.seconds
        while math.isfinite(law.max_step) and effort() < deadline:
            halved, began = replace(law, max_step=law.max_step / 2), effort()
            after = forecast_errors(halved, self.judge)
            self.judging = effort() - began
            if not after.mean() < _BETTER * errors.mean():
                self.judging /= 2
                break
            law, errors = halved, after
        self.law, self.errors = law, errors
        self.kept = more if (more := 3 * _FINER[0] ** 2 * self.judging) < KEPT * self.seconds else 0.0

    def along_segments(self, lengths: list[int], every: int) -> Refinement | None:
        """Refine coefficients along ever longer segments, of `every` lengths in all; the last that helped."""
        last = None
        for index, length in enumerate(lengths):
            if (left := self._left - self.kept) < 0:
                break
            left *= _FILTERED if self.noisy else 0.5  # forecasts need time, too
            trial = self._along(length, left / (every - index), uncertain=self.noisy)
            while self.noisy and trial.too_slow and length > 1:  # longer ones would not end in time
                trial = self._along(length := length // 3 or 1, left / (every - index), uncertain=True)
            trial.deadline = effort() + left if self.noisy else trial.deadline  # longer ones may use spare time
            refined, after = self._forecast(trial.run(), f"refined along rollouts of {length} frames")
            if not worse(after, self.hardly * self.errors):
                self.law, self.errors, last = refined, after, trial
        return last

    def drop_terms(self, last: Refinement) -> None:
        """Drop terms that forecasts do not need; truncation of harmonics is not part of their standard errors."""
        size = self.law.size
        self.law, (short, *shorter) = last.estimated(self.law)
        tried = [(short, HARDLY * self.errors + EXACT), *((one, self.errors) for one in shorter if self.noisy)]
        for short, most in tried:
            if 0 < short.size < self.law.size:
                if self.law.functions:  # whose constants made up for dropped terms
                    last.deadline = effort() + (self._left - self.kept) / (1 + len(tried))
                    short = last.run(short)
                if not worse(forecast_errors(short, self.judge), most):
                    self.law = short
        self.law = pruned(last.run(self.law) if self.noisy and self.law.size < size else self.law)

    def with_initial_codes(self, lengths: list[int], last: Refinement) -> None:
        """Refine coefficients and initial codes together, on about as many frames as the `last` refinement."""
        for length in lengths:
            if (left := self._left) < 0:
                break
            kind = AssimilationWithConstants if self.law.functions else Assimilation
            final = kind.along(self.law, self.encoded, self.encoded.known, length, _WITH_FIRST * left)
            if final.data.dt.numel() < _AS_MANY * last.data.dt.numel():  # less informative
                continue
            refined, after = self._forecast(final.run(), f"refined with first codes, {length} frames, misfit "
                                            f"{final.residual_over_noise:.2f} of the noise")
            lost = final.residual_over_noise > _FITS and not after.mean() < _BETTER * self.errors.mean()
            if lost or worse(after, self.hardly * self.errors):
                break
            self.law, self.errors = refined, after

    @property
    def _left(self) -> float:
        """Seconds that are left, less those of two forecasts."""
        return self.seconds - 2 * self.judging - (effort() - self.start)

    def _along(self, length: int, seconds: float, **options: Any) -> Refinement:
        length = min(length, self.encoded.states.shape[1] - 1)
        kind = WithConstants if self.law.functions else Refinement
        return kind.along(self.law, self.encoded, self.encoded.known, length, seconds, **options)

    def _forecast(self, law: Law, how: str) -> tuple[Law, np.ndarray]:
        """Refined law, with contexts of systems that only forecasts have, and its errors."""
        law = with_new_contexts(law, self.train, self.judge) if law.count else law
        after = forecast_errors(law, self.judge)
        self.say(f"  {how}: error {self.errors.mean():.2e} to {after.mean():.2e}, {effort() - self.start:.1f} s")
        return law, after


def finer(law: Law, train: Data, judge: Data, deadline: float, say: Log, anew: bool = True
          ) -> Iterator[tuple[np.ndarray, Law]]:
    """Iterate over errors and law on ever more harmonics, even unresolved by the points, while forecasts improve.

    anew: whether coefficients are regressed again on these, too.
    """
    began = effort()
    errors = forecast_errors(law, judge)
    spent, count = effort() - began, law.codes.harmonics.count
    flow = isinstance(law.domain, Box) and any(term.solenoidal for term in law.terms)
    place, most = resolved_harmonics(law.domain, law.boundary, train, flow)
    most = min(most, most_harmonics(law.rates, train.u.shape[-1])) if law.has_rates else most
    for factor in _FINEST if flow else _FINER:
        now, size = law.codes.harmonics.count, min(int(factor * count), most * condition_count(law.boundary))
        steeper = 1 if flow else 1.5 if isinstance(law.domain, Box) and law.domain.dimensions > 1 else 2
        if size <= now or effort() + 3 * (size / now) ** steeper * spent > deadline:
            break
        harmonics = place.harmonics(size, law.boundary)
        if harmonics.count <= now:
            break
        there = replace(law, domain=place, codes=fit_codes(harmonics, train.x, train.u, train.noise))
        some = judge.take(np.arange(min(4, len(judge.u))))
        wider = integrable(there, some.t, EncodedData.of(there, some).states)
        began = effort()
        after = forecast_errors(wider, judge) if wider is not None else np.full(1, np.inf)
        spent = effort() - began
        anew = anew or bool(after.mean() < _NO_NOISE * errors.mean())
        if anew and wider is not None and not (law.count or law.has_network):  # they compensated for harmonics
            solved = regressed_again(wider, train)
            again = forecast_errors(solved, judge)
            wider, after = (solved, again) if again.mean() < after.mean() else (wider, after)
        say(f"  {harmonics.count} harmonics: error {errors.mean():.2e} to {after.mean():.2e}, effort {effort():.1f} s")
        if wider is None or not after.mean() < _BETTER * errors.mean():
            break
        law, errors = wider, after
        yield errors, law


def worse(errors: np.ndarray, others: np.ndarray) -> bool:
    """Whether errors (S,) exceed others (S,) on average by more than the standard error of the difference, or by more
    than the others' mean, as a single outlier raises that standard error by as much as the mean."""
    if np.isfinite(errors).all() > np.isfinite(others).all():
        return False
    difference = errors - others
    error = float(difference.std() / math.sqrt(max(len(difference) - 1, 1))) if np.isfinite(errors).all() else -1.0
    return not float(difference.mean()) <= min(error, float(others.mean()))


def simplest(scored: list[tuple[np.ndarray, Law]], little: float = 0.0) -> tuple[np.ndarray, Law]:
    """Errors and law of the fewest terms, of those with errors not significantly above `NEARLY` times the least ones
    and a `little` error. Laws of another order in time also need a mean error near the least, as few trajectories are
    weak evidence."""
    best = min(scored, key=lambda pair: float(pair[0].mean()))
    equal = [(errors, law) for errors, law in scored if not worse(errors, NEARLY * best[0] + little) and (
        law.has_rates == best[1].has_rates or float(errors.mean()) < _OTHER_ORDER * float(best[0].mean()))]
    return min(equal, key=lambda pair: (pair[1].size, float(pair[0].mean())))


def damped(law: Law) -> Law:
    """Law without powers of the Laplacian, from the second on, by which short waves of a channel grow: small terms that
    errors of splines, or the mesh of a solver, give an exact equation."""
    grows = np.zeros(law.theta.shape, dtype=bool)
    for j, term in enumerate(law.terms):
        if isinstance(term, Term) and term.linear and not (term.place or law.count) and term.power in (2, 3):
            c = term.products[0][0][0]
            grows[j, c] = law.theta[j, c] * (-1) ** term.power > 0
    return replace(law, theta=np.where(grows, 0.0, law.theta), std=np.where(grows, 0.0, law.std))


def well_posed_mixtures(laws: Sequence[Law], t: np.ndarray) -> list[Law]:
    """Well-posed laws, of ill-posed ones on the terms of the first, with the equation of one channel taken from another
    law, as errors of splines give an exact equation small terms by which short waves grow. t (S, T): times."""
    found: dict[bytes, Law] = {}
    alike = [law for law in laws if law.terms == laws[0].terms]
    for law, c in itertools.product(alike[:_MIXED], range(laws[0].theta.shape[1])):
        others = {other.theta[:, c].tobytes(): other for other in alike}
        others.pop(law.theta[:, c].tobytes())
        for other in others.values():
            theta, std = law.theta.copy(), law.std.copy()
            theta[:, c], std[:, c] = other.theta[:, c], other.std[:, c]
            if well_posed(one := replace(law, theta=theta, std=std), t):
                found[theta.tobytes()] = one
                break
    return list(found.values())
