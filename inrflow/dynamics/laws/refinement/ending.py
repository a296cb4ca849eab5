"""The end of a search: a law refined along its own flow, in its steps and on more harmonics, without needless terms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from inrflow.domains import Box, Flows
from inrflow.dynamics.laws.contexts import known_contexts, widened
from inrflow.dynamics.laws.law import Law, integrable, most_with_rates, pruned
from inrflow.dynamics.laws.rates import solved_anew
from inrflow.dynamics.laws.refinement.assimilation import Assimilation
from inrflow.dynamics.laws.refinement.flights import LITTLE, UNRESOLVED, Refinement
from inrflow.dynamics.laws.setting import (
    HARDLY,
    Data,
    Ground,
    Log,
    forecast_errors,
    joined,
    resolved,
    worse,
)
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
    which ends so many seconds later. brief: along flights of one frame alone.
    """
    if law.codes.harmonics.count != ground.codes.harmonics.count:  # refined before, on more of them
        ground = Ground.of(law, ground.train)
    narrow, second, exact = (errors, law), law.has_rates, errors.mean() < EXACT
    train, place, frames = ground.train, ground.domain, ground.states.shape[1]
    with suppress(OutOfTime, np.linalg.LinAlgError), effort.limited(Limit(start + seconds)):
        law, judging = (law, 0.0) if exact else shorter_steps(errors, law, judge, start + (1 - KEPT) * seconds)
        kept = more if (more := 3 * _FINER[0] ** 2 * judging) < KEPT * seconds else 0.0  # for more harmonics

        def along(law: Law, length: int, seconds: float, **options: Any) -> Refinement:
            return Refinement.along(law, ground, ground.known, min(length, frames - 1), seconds, **options)

        last = along(law, 2 if second else 1, min(_LAST, 0.1 * seconds), uncertain=False if second else None,
                     little=LITTLE if np.any(train.noise) else UNRESOLVED)
        noisy, hardly = last.uncertain, 1.0
        if noisy:  # forecasts from single frames tell little
            wide = widened(law, whole)
            wider, after = Ground.of(wide, whole), forecast_errors(wide, judge)
            law, ground, errors, hardly, kept = wide, wider, after, HARDLY, 0.0
            frames = whole.u.shape[1]
        lengths = sorted({min(n, frames - 1) for n in _OF_NOISY}) if noisy else [
            n for n in _LENGTHS[second:] if n < frames and not exact]
        for index, length in enumerate(lengths[: 1 if brief else None]):
            left = seconds - kept - 2 * judging - (effort() - start)
            if left < 0:
                break
            left *= _FILTERED if noisy else 0.5  # the rest is for forecasts
            trial = along(law, length, left / (len(lengths) - index), uncertain=noisy)
            while noisy and trial.overtaxed and length > 1:  # short flights tell less, but none would end in time
                trial = along(law, length := length // 3 or 1, left / (len(lengths) - index), uncertain=True)
            trial.deadline = effort() + left if noisy else trial.deadline  # what short ones leave is for longer ones
            refined = trial.run()
            refined = known_contexts(refined, train, judge) if law.count else refined
            after = forecast_errors(refined, judge)
            say(f"  along flights of {length}: {errors.mean():.2e} to {after.mean():.2e}, {effort() - start:.1f} s")
            if not worse(after, hardly * errors):
                law, errors, last = refined, after, trial
        if not noisy:
            last = along(law, _LENGTHS[1], min(_LAST, 0.1 * seconds), uncertain=False)
        size = law.size
        law, (short, *shorter) = last.estimated(law)
        if 0 < short.size < law.size and not worse(forecast_errors(short, judge), HARDLY * errors + EXACT):
            law = short
        for short in shorter if noisy else ():  # what no forecast needs; truncation is not in the errors
            law = short if 0 < short.size < law.size and not worse(forecast_errors(short, judge), errors) else law
        law = pruned(last.run(law) if noisy and law.size < size else law)
        for length in lengths if noisy and not second and law.size else ():
            if (left := seconds - 2 * judging - (effort() - start)) < 0:
                break
            final = Assimilation.along(law, ground, ground.known, length, _WITH_FIRST * left)
            if final.data.dt.numel() < _AS_MANY * last.data.dt.numel():  # fewer frames tell less
                continue
            refined = final.run()
            refined = known_contexts(refined, train, judge) if law.count else refined
            after = forecast_errors(refined, judge)
            say(f"  with first codes of flights of {length}: {errors.mean():.2e} to {after.mean():.2e}, "
                f"{final.left:.2f} of the noise missed, {effort() - start:.1f} s")
            lost = final.left > _FITS and not after.mean() < _BETTER * errors.mean()
            if lost or worse(after, hardly * errors):
                break
            law, errors = refined, after
        law = (integrable(law, ground.train.t, ground.states) or law) if noisy else law  # clean starts ask for more
        if not (brief or isinstance(place, Flows)):
            for better in finer(law, train, judge, start + seconds, say, not noisy):
                errors, law = better  # kept where the time ends before the next
    return (errors, law) if errors.mean() <= HARDLY * narrow[0].mean() else narrow  # where the time ended too soon


def finer(law: Law, train: Data, judge: Data, deadline: float, say: Log, anew: bool = True
          ) -> Iterator[tuple[np.ndarray, Law]]:
    """Errors and law on more and more harmonics while its forecasts improve: it makes waves that points do not tell.

    anew: whether coefficients are solved anew on them, too.
    """
    began = effort()
    errors = forecast_errors(law, judge)
    spent, count = effort() - began, law.codes.harmonics.count
    flow = isinstance(law.domain, Box) and any(term.solenoidal for term in law.terms)
    place, most = resolved(law.domain, train, flow)
    most = min(most, most_with_rates(law.rates, train.u.shape[-1])) if law.has_rates else most
    for factor in _FINEST if flow else _FINER:
        now, size = law.codes.harmonics.count, min(int(factor * count), most * joined(law.boundary))
        steeper = 1 if flow else 1.5 if isinstance(law.domain, Box) and law.domain.dimensions > 1 else 2
        if size <= now or effort() + 3 * (size / now) ** steeper * spent > deadline:
            break
        harmonics = place.harmonics(size, law.boundary)
        if harmonics.count <= now:
            break
        finer = replace(law, domain=place, codes=fit_codes(harmonics, train.x, train.u))
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


def shorter_steps(errors: np.ndarray, law: Law, judge: Data, deadline: float) -> tuple[Law, float]:
    """The law with the integrator's step halved while its forecasts improve: errors of steps may grow along paths.

    And about the effort of its forecasts."""
    spent = 0.0
    while math.isfinite(law.longest) and effort() < deadline:
        halved, began = replace(law, longest=law.longest / 2), effort()
        after = forecast_errors(halved, judge)
        spent = effort() - began
        if not after.mean() < _BETTER * errors.mean():
            spent /= 2
            break
        law, errors = halved, after
    return law, spent
