"""The end of a search: a law refined along its own flow, in its steps and on more harmonics, without needless terms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inrflow.domains import Box, Flows
from inrflow.dynamics.laws.contexts import known_contexts, widened
from inrflow.dynamics.laws.law import HARDLY, Law, integrable, most_with_rates, pruned, worse
from inrflow.dynamics.laws.rates import solved_anew
from inrflow.dynamics.laws.refinement.assimilation import Assimilation
from inrflow.dynamics.laws.refinement.flights import LITTLE, UNRESOLVED, Refinement
from inrflow.dynamics.laws.setting import Data, Ground, Log, forecast_errors, joined, resolved
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.numerics.effort import Limit, OutOfTime, effort

_FINER, _FINEST = (1.7, 2.8, 4.6, 7.6, 12.5), (3.7, 7.0)  # times as many harmonics, tried in turn; those of flows
_BETTER = 0.9  # share of the error that more harmonics or shorter steps leave
KEPT = 0.35  # share of the time, at most, that is kept for forecasts on more harmonics
_LENGTHS, _OF_NOISY = (1, 3, 9), (24, 200)  # frames of flights that refine coefficients in turn; of noisy ones
_LAST = 3.0  # seconds for standard errors
_FILTERED, _WITH_FIRST = 0.6, 0.6  # shares of the time that is left: of noisy flights, and of these with first codes
_NO_NOISE = 0.1  # share of the error that is left without noise
EXACT = 1e-12  # error of forecasts that is hardly more than the rounding of single precision: nothing to refine
_AS_MANY = 0.75  # share of the frames of filtered flights, at least, of those with first codes
_FITS = 1.5  # times the noise that flights with first codes may miss: of chaos long ones cannot be followed


def refine(errors: np.ndarray, law: Law, ground: Ground, judge: Data, whole: Data, start: float, seconds: float,
           say: Log, brief: bool = False) -> tuple[np.ndarray, Law]:
    """Errors and law, refined in its steps, along its own flow and on more harmonics, without terms that are near zero.

    errors (S,): of its forecasts; whole: all trajectories, for laws of noisy ones; start: effort when the search began,
    which ends so many seconds later. brief: along flights of one frame alone. The law itself where the time is over
    before forecasts are as good again.
    """
    if law.codes.harmonics.count != ground.codes.harmonics.count:  # refined before, on more of them
        ground = Ground.of(law, ground.train)
    ending = _Ending(errors, law, ground, ground.train, judge, start, seconds, say)
    with suppress(OutOfTime, np.linalg.LinAlgError), effort.limited(Limit(start + seconds)):
        ending.run(whole, brief)
    return (ending.errors, ending.law) if ending.errors.mean() <= HARDLY * errors.mean() else (errors, law)


@dataclass
class _Ending:
    """A law in the course of its refinement, which may end at any time; `errors` (S,) are those of its forecasts.

    ground: of the flights. noisy: whether its codes are uncertain; hardly: times the errors that a step may leave then.
    judging: effort of one forecast; kept: of the seconds, for more harmonics.
    """

    errors: np.ndarray
    law: Law
    ground: Ground
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
        """All steps, as far as the time allows."""
        second, exact, place = self.law.has_rates, self.errors.mean() < EXACT, self.ground.domain
        if not exact:
            self.shorten_steps()
        last = self._along(2 if second else 1, min(_LAST, 0.1 * self.seconds), uncertain=False if second else None,
                           little=LITTLE if np.any(self.train.noise) else UNRESOLVED)
        if last.uncertain:  # forecasts from single frames tell little
            wide = widened(self.law, whole)
            ground, errors = Ground.of(wide, whole), forecast_errors(wide, self.judge)
            self.law, self.ground, self.errors = wide, ground, errors
            self.noisy, self.hardly, self.kept = True, HARDLY, 0.0
        most = self.ground.states.shape[1] - 1
        lengths = sorted({min(n, most) for n in _OF_NOISY}) if self.noisy else [
            n for n in _LENGTHS[second:] if n <= most and not exact]
        last = self.along_flights(lengths[: 1 if brief else None], len(lengths)) or last
        if not self.noisy:
            last = self._along(_LENGTHS[1], min(_LAST, 0.1 * self.seconds), uncertain=False)
        self.shorten(last)
        if self.noisy and not second and self.law.size:
            self.with_first_codes(lengths, last)
        if self.noisy:  # clean starts ask for more
            self.law = integrable(self.law, self.ground.train.t, self.ground.states) or self.law
        if not (brief or isinstance(place, Flows)):
            for better in finer(self.law, self.train, self.judge, self.start + self.seconds, self.say, not self.noisy):
                self.errors, self.law = better  # kept where the time ends before the next

    def shorten_steps(self) -> None:
        """Halve the integrator's step while forecasts improve: errors of steps may grow along paths."""
        errors, law, deadline = self.errors, self.law, self.start + (1 - KEPT) * self.seconds
        while math.isfinite(law.longest) and effort() < deadline:
            halved, began = replace(law, longest=law.longest / 2), effort()
            after = forecast_errors(halved, self.judge)
            self.judging = effort() - began
            if not after.mean() < _BETTER * errors.mean():
                self.judging /= 2
                break
            law, errors = halved, after
        self.law, self.errors = law, errors
        self.kept = more if (more := 3 * _FINER[0] ** 2 * self.judging) < KEPT * self.seconds else 0.0

    def along_flights(self, lengths: list[int], every: int) -> Refinement | None:
        """Refine coefficients along ever longer flights, of `every` lengths in all; the last ones that helped."""
        last = None
        for index, length in enumerate(lengths):
            if (left := self._left - self.kept) < 0:
                break
            left *= _FILTERED if self.noisy else 0.5  # the rest is for forecasts
            trial = self._along(length, left / (every - index), uncertain=self.noisy)
            while self.noisy and trial.overtaxed and length > 1:  # short flights tell less, but none would end in time
                trial = self._along(length := length // 3 or 1, left / (every - index), uncertain=True)
            trial.deadline = effort() + left if self.noisy else trial.deadline  # what short ones leave is for others
            refined, after = self._forecast(trial.run(), f"along flights of {length}")
            if not worse(after, self.hardly * self.errors):
                self.law, self.errors, last = refined, after, trial
        return last

    def shorten(self, last: Refinement) -> None:
        """Leave out terms that no forecast needs; truncation is not in their errors."""
        size = self.law.size
        self.law, (short, *shorter) = last.estimated(self.law)
        tried = [(short, HARDLY * self.errors + EXACT), *((one, self.errors) for one in shorter if self.noisy)]
        for short, most in tried:
            if 0 < short.size < self.law.size and not worse(forecast_errors(short, self.judge), most):
                self.law = short
        self.law = pruned(last.run(self.law) if self.noisy and self.law.size < size else self.law)

    def with_first_codes(self, lengths: list[int], last: Refinement) -> None:
        """Refine coefficients and first codes of flights together, of about as many frames as the `last` ones."""
        for length in lengths:
            if (left := self._left) < 0:
                break
            final = Assimilation.along(self.law, self.ground, self.ground.known, length, _WITH_FIRST * left)
            if final.data.dt.numel() < _AS_MANY * last.data.dt.numel():  # fewer frames tell less
                continue
            refined = final.run()
            refined, after = self._forecast(
                refined, f"with first codes of flights of {length}, {final.left:.2f} of the noise missed")
            lost = final.left > _FITS and not after.mean() < _BETTER * self.errors.mean()
            if lost or worse(after, self.hardly * self.errors):
                break
            self.law, self.errors = refined, after

    @property
    def _left(self) -> float:
        """Seconds that are left, but for two forecasts."""
        return self.seconds - 2 * self.judging - (effort() - self.start)

    def _along(self, length: int, seconds: float, **options: Any) -> Refinement:
        length = min(length, self.ground.states.shape[1] - 1)
        return Refinement.along(self.law, self.ground, self.ground.known, length, seconds, **options)

    def _forecast(self, law: Law, how: str) -> tuple[Law, np.ndarray]:
        """A refined law, with contexts of systems that were not seen, and its errors."""
        law = known_contexts(law, self.train, self.judge) if law.count else law
        after = forecast_errors(law, self.judge)
        self.say(f"  {how}: {self.errors.mean():.2e} to {after.mean():.2e}, {effort() - self.start:.1f} s")
        return law, after


def finer(law: Law, train: Data, judge: Data, deadline: float, say: Log, anew: bool = True
          ) -> Iterator[tuple[np.ndarray, Law]]:
    """Errors and law on more and more harmonics while its forecasts improve: it makes waves that points do not tell.

    anew: whether coefficients are solved anew on them, too.
    """
    began = effort()
    errors = forecast_errors(law, judge)
    spent, count = effort() - began, law.codes.harmonics.count
    flow = isinstance(law.domain, Box) and any(term.solenoidal for term in law.terms)
    place, most = resolved(law.domain, law.boundary, train, flow)
    most = min(most, most_with_rates(law.rates, train.u.shape[-1])) if law.has_rates else most
    for factor in _FINEST if flow else _FINER:
        now, size = law.codes.harmonics.count, min(int(factor * count), most * joined(law.boundary))
        steeper = 1 if flow else 1.5 if isinstance(law.domain, Box) and law.domain.dimensions > 1 else 2
        if size <= now or effort() + 3 * (size / now) ** steeper * spent > deadline:
            break
        harmonics = place.harmonics(size, law.boundary)
        if harmonics.count <= now:
            break
        finer = replace(law, domain=place, codes=fit_codes(harmonics, train.x, train.u, train.noise))
        some = judge.take(np.arange(min(4, len(judge.u))))
        wider = integrable(finer, some.t, Ground.of(finer, some).states)
        began = effort()
        after = forecast_errors(wider, judge) if wider is not None else np.full(1, np.inf)
        spent = effort() - began
        anew = anew or bool(after.mean() < _NO_NOISE * errors.mean())
        if anew and wider is not None and not (law.count or law.has_network):  # they made up for missing harmonics
            solved = solved_anew(wider, train)
            again = forecast_errors(solved, judge)
            wider, after = (solved, again) if again.mean() < after.mean() else (wider, after)
        say(f"  on {harmonics.count} harmonics: {errors.mean():.2e} to {after.mean():.2e}, effort {effort():.1f} s")
        if wider is None or not after.mean() < _BETTER * errors.mean():
            break
        law, errors = wider, after
        yield errors, law
