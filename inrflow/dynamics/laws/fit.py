"""fit_law: search for the law of trajectories on the harmonics of a domain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from inrflow.domains import Domain
from inrflow.dynamics.laws.contexts import standardise_contexts, with_new_contexts
from inrflow.dynamics.laws.families import (
    Families,
    families_of,
    misfit_of_all,
    regress,
    rollout_regression,
    without_transients,
)
from inrflow.dynamics.laws.kinetics.search import with_functions
from inrflow.dynamics.laws.law import MOST_STEPS, Law, integrable, well_posed
from inrflow.dynamics.laws.rates import fit_second_order, with_best_inertia
from inrflow.dynamics.laws.refinement.final import EXACT, KEPT, NEARLY, damped, refine, simplest, well_posed_mixtures
from inrflow.dynamics.laws.setting import (
    FEW_CODES,
    MOST_OF_GRID,
    Data,
    EncodedData,
    Log,
    Systems,
    forecast_errors,
    prepare_data,
)
from inrflow.dynamics.laws.shooting import along_single_steps
from inrflow.dynamics.laws.terms import Term
from inrflow.errors import UserError
from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.numerics.phases import periodic_phases
from inrflow.numerics.team import team

_FEW_JUDGES = 3  # most trajectories that judge laws, of many codes
_LITTLE, _NOISY = 1e-4, 10.0  # forecast errors that suffice: absolute; over that of harmonics
_COMPARED = 2  # least number of laws forecast
_CODES = 128  # most codes per second of effort, on large grids
_CHOICE, _BY_CLOCK, _IN_TIME = 0.15, 0.3, 0.9  # shares: of effort, clock to choose harmonics; of clock used
_HALF = 0.5  # share of the clock after which forecasts come before further regressions
_PAYS, _CLEARLY_PAYS = 0.5, 0.1  # most misfit of further families, over the least of simpler ones
_FEW_MORE = 1.5  # number of terms over that of the first families up to which contexts are regressed at once
_WORTH = 0.02, 0.05  # log misfit that a term must save; where systems differ
_SCREENED, _MAY = 3, 0.6  # trajectories that rank families; largest misfit of all terms there, over that of the first
_STALE = 6  # laws of a family without a better one, where all are poor
_JUDGED, _CLOSE = 5, 20.0  # candidates judged; those with misfits up to this times the least, too
_HIDDEN = 0.6  # factor on time, with noise
_SLIGHT = 0.1  # difference of errors, over that of harmonics, that does not justify further terms
_EXPLAINED, _MOSTLY = 1e-2, 0.1  # error above which second order is tried; misfit below which first order precedes it
_BEYOND, _AHEAD = 1.25, 3  # deviations from the mean beyond those seen, intervals over which fluxes must bear these
_DIVERGED = 5  # laws after which the search ends if all diverged
_OF_FLOWS = 0.15  # share of the time for `rollout_regression`
_NEAR, _SINGLE, _STEPPED = 30.0, 0.5, 0.15  # single steps: least error over that of harmonics; shares of time
_HOPELESS, _RESORT = 0.3, 0.75  # error above which single steps have a larger share of the time
_STEPS = 0.1  # errors of the integrator over those of harmonics, in the search
_STEPS_WITH_RATES = 64  # most steps of an interval
_OF_FIRST, _OF_RATES = 0.25, 0.35  # shares of time: first order before second order; second order
_ALONE = 1e-3  # error of second order below which first order is not continued
_VISIBLE = 1e-4  # unexplained share of squared changes above which `missed` is called
_POLYNOMIAL = 1e-5  # unexplained share below which the first families suffice
_UNEXPLAINED, _POOR, _RANKED = 1e-2, 0.5, 0.2  # unexplained shares: much, most; share of time to compare families
_QUICK, _REST, _SOUGHT = 0.2, 0.35, 0.45  # shares of time: a quick search; end of regressions, of forecasts
_BENT = 1e-8, 0.5, 0.7  # unexplained shares of products of three values, between which functions may be better:
# absolute; over that of products of two, and with noise
_VAIN, _FAIR = 1.5, 10.0  # limit of effort while no law is found: over the seconds, at least

_Regressed = tuple[float, list[Law], Families]  # least misfit, laws (likeliest first), families


def fit_law(t: np.ndarray, x: np.ndarray, u: np.ndarray, domain: Domain | Sequence[Domain], *, seconds: float = 60.0,
            boundary: str | None = None, seed: int = 0, log: Log | None = None, systems: Systems | None = None,
            units: Sequence[float] | None = None, clock: Callable[[], float] | None = None, rates: bool = False,
            noise: float = 0.0, period: float = 0.0, on_data: Callable[[EncodedData], None] = lambda _: None,
            on_unexplained: Callable[[EncodedData, float, Law], None] = lambda *_: None) -> Law:
    """Law with the best forecasts of held-out trajectories.

    t (T,) or (S, T); x (N, d) or (S, N, d); u (S, T, N, C), NaN where unobserved. Of several domains, and of boundary
    conditions if none is given, those whose harmonics fit best are used. seconds: of effort, about those of a core.
    systems: groups of trajectories whose coefficients may differ. units (C,): of channels, 1 by default. clock: seconds
    left; on a busy machine less effort is made. rates: whether laws of second order in time may be tried, with rates as
    channels. noise: relative error variance of u. period: of a forcing. on_data: called with the training data;
    on_unexplained: with these, the unexplained share of changes, if not small, and a law that leaves it. Raises
    UserError if no law is found.
    """
    effort.restart()
    start, given = effort(), clock() if clock else 0.0
    say: Log = log or (lambda _: None)
    data, channels = Data.of(t, x, u, systems), u.shape[-1]
    if period:  # its cosine and sine are further channels with a known law
        season = np.broadcast_to(periodic_phases(torch.tensor(data.t), period, 1)[:, :, None], (*u.shape[:3], 2))
        data, units = replace(data, u=np.concatenate([data.u, season], -1)), (*(units or (1.0,) * channels), 1.0, 1.0)
    domains = [domain] if isinstance(domain, Domain) else list(domain)

    def used() -> float:
        return 1 - clock() / max(given, 1e-9) if clock else 0.0

    encoded, judge, floor = prepare_data(data, domains, boundary, seed, say,
                                         lambda times: (effort() > start + times * _CHOICE * seconds
                                                        or used() > _BY_CLOCK), int(_CODES * seconds))
    on_data(encoded)
    families = families_of(encoded.domain, encoded.codes.harmonics, encoded.states[:, :, :channels], units)
    if period:
        families = families.with_season(channels, encoded.codes.harmonics)
    elif "products" in families.terms:
        some, terms = encoded.some(_SCREENED), families.all_terms
        with suppress(ValueError):  # or LinAlgError
            every = some.equations(terms, (encoded.noisy,), len(some.states))
            pairs = [j for j, term in enumerate(terms) if len(term.products[0]) < 3]
            missed, without = (misfit_of_all(some, terms, every, kept) for kept in (None, pairs))
            if _BENT[0] < missed < _BENT[1 + encoded.noisy] * without:
                until = effort() + _RANKED * seconds
                families = with_functions(families, encoded, say, lambda: effort() > until or used() > _HALF)
    if encoded.states[0, 0].size > FEW_CODES:
        judge = judge.take(np.arange(min(_FEW_JUDGES, len(judge.u))))  # their forecasts cost much
    say(f"{encoded.domain.kind}: {encoded.codes.harmonics.count} harmonics, noise {np.max(encoded.train.noise):.1e}, "
        f"{effort() - start:.1f} s")
    search = LawSearch(encoded, judge, families, max(floor, noise), say, start, seconds, period, used)
    search.regress(channels)
    if search.least_misfit > _VISIBLE:
        on_unexplained(encoded, search.least_misfit, search.ranked[0][1][0])
    turns = search.families_in_turn()
    with suppress(OutOfTime):  # of the clock: the best law so far is kept, here and below
        turns = iter(()) if rates and not period and search.of_second_order(units) else turns
    search.run(turns)
    if not search.scored:
        raise UserError("no law forecasts the held-out trajectories in the time; the data may not follow a local "
                        "equation, or need more training.minutes")
    began, most, little = effort(), NEARLY * search.least, _SLIGHT * search.floor if search.noiseless else 0.0
    best = simplest(search.scored, little)
    if not search.noiseless:
        close = min(search.scored, key=lambda pair: (float(pair[0].mean()) > most, pair[1].size))
        best = best if 2 * best[1].size <= close[1].size else close  # half as many terms
    if clock:  # effort that the clock allows at this pace: refinement is worth as much as the search
        pace = (began - start) / max(given - clock(), 1e-3)
        search.seconds = min(seconds, began - start + _IN_TIME * pace * clock())
    brief = began - start < _QUICK * search.seconds and search.noiseless
    whole = replace(data, noise=encoded.train.noise)
    refined = partial(refine, encoded=encoded, judge=judge, whole=whole, start=start, seconds=search.seconds, say=say)
    with suppress(OutOfTime):
        if brief:
            search.enough = _NOISY * max(search.floor, EXACT)
            best = refined(*best, brief=True)
            search.scored = [best]
            if search.spent < _REST * search.seconds:  # terms may be missing
                search.run(turns)
                best = simplest(search.scored, little)
        best = refined(*best)
    law = best[1]
    law = replace(law, codes=replace(law.codes, mean=law.codes.mean[:channels], variance=law.codes.variance[:channels]))
    return standardise_contexts(law, np.unique(encoded.train.systems.number)) if law.count else law


class LawSearch:
    """Laws regressed on families of terms and judged by forecasts: `scored`, pairs of errors (S,) and law.

    families: the first ones. floor: held-out error of harmonics. start, seconds: effort. used: share of the clock.
    """

    def __init__(self, encoded: EncodedData, judge: Data, families: Families, floor: float, say: Log, start: float,
                 seconds: float, period: float, used: Callable[[], float] = lambda: 0.0) -> None:
        self.encoded, self.judge, self.families, self.floor, self.say = encoded, judge, families, floor, say
        self.used = used
        self.after_transients = encoded  # without first frames that splines resolve poorly
        self.start, self.seconds, self.period, self.several = start, seconds, period, bool(encoded.train.systems.counts)
        self.deadline, self.half = start + (1 - KEPT) * seconds, start + _SINGLE * seconds
        self.many = encoded.states[0, 0].size > FEW_CODES
        self.noiseless = not encoded.noisy
        self.step_error = _STEPS * math.sqrt(floor)
        self.scored, noise = list[tuple[np.ndarray, Law]](), encoded.train.noise / np.nanvar(encoded.train.u, (0, 1, 2))
        self.enough = max(_LITTLE, _NOISY * floor if self.noiseless else floor - float(noise.mean()))
        self.limit, self.diverged = Limit(), 0  # of effort; number of laws that diverged
        self.regressions: list[_Regressed] = []  # families regressed so far
        self.pending: list[Families | None] = []  # families still to be regressed
        self.least_misfit, self.ranked = math.inf, self.regressions  # the least misfit; the likeliest first

    @property
    def spent(self) -> float:
        """Effort since the start; on a busy machine, the share of the seconds that its clock has used."""
        return max(effort() - self.start, self.used() * self.seconds)

    @property
    def least(self) -> float:
        """Least mean error of forecasts."""
        return min((float(errors.mean()) for errors, _ in self.scored), default=np.inf)

    @property
    def sought(self) -> float:
        """Share of the time for forecasts; larger while all laws are poor, as refinement does not mend a wrong one."""
        return _RESORT if self.poor else _SOUGHT

    @property
    def poor(self) -> bool:
        """Whether laws have been forecast, all of them poorly, without noise that would explain it."""
        return self.noiseless and not self.several and _EXPLAINED < self.least < math.inf

    @property
    def hopeless(self) -> bool:
        """Whether many laws have been forecast, with much of the time, and all diverged."""
        return not self.scored and self.diverged >= _DIVERGED and self.spent > _SOUGHT * self.seconds

    def regress(self, channels: int) -> None:
        """Regress the first families, and further ones while much is unexplained; the others wait in `pending`."""
        encoded, families, found = self.encoded, self.families, self.regressions
        place, harmonics = encoded.domain, encoded.codes.harmonics
        by_place = list(families.with_varying_coefficients(place, harmonics))
        inert = [None][: len(by_place) > 1 and not self.several]
        more = [*families.steep(place, channels), *families.with_multipliers(place, harmonics, channels)]
        last = 1 + (place.kind == "region")  # where coefficients of materials likely vary in space
        matrices = encoded.states[0, 0].size > MOST_OF_GRID  # these terms are matrices of all codes
        wider = self.pending = [] if matrices else [*by_place[:last], *inert, *more, *by_place[last:]]
        began = effort()
        found.append(self._regressed(families))
        least, took = found[0][0], effort() - began  # the cost of others rises with the cube of their terms

        def pays(one: Families, encoded: EncodedData, share: float = _PAYS) -> _Regressed | None:
            few = len(one.all_terms) < _FEW_MORE * len(families.all_terms)
            may = not self.several or few or misfit_of_all(encoded, one.all_terms) < share * least  # as it is slow
            return its if may and (its := self._regressed(one, encoded))[0] < share * least else None

        if least > _POLYNOMIAL and (calm := without_transients(encoded)) is not None and (its := pays(families, calm)):
            self.say("  first frames left out, in which fields relax to their slow dynamics")
            self.after_transients, found[0] = calm if its[0] < _CLEARLY_PAYS * least else encoded, its
            least = its[0]
        pause, rest = effort() + _RANKED * self.seconds, self.start + _REST * self.seconds

        def on(until: float) -> bool:
            return effort() < until and self.used() < _HALF

        with suppress(ValueError):  # or LinAlgError: families before it are kept
            drags = (one for one in families.later if "drag" in one.terms)  # small terms of otherwise exact laws
            further = iter(() if self.period else drags if least < _POLYNOMIAL else families.further(encoded))
            if self.many and wider and least > _UNEXPLAINED:  # each takes long; this one is the likeliest
                found.append(self._regressed(wider.pop(0)))
            share = _PAYS if self.noiseless else math.inf  # forecasts decide, as misfits of noise are all alike
            if not self.several:
                further = iter(self._promising(one for one in further if on(pause)))
            for one in further:
                longer = took * (len(one.all_terms) / len(families.all_terms)) ** 3 if least < _POLYNOMIAL else 0.0
                if on(pause - longer) and (its := pays(one, self.after_transients, share)):
                    found.append(its)
                    if its[0] < (_POLYNOMIAL if self.noiseless else _PAYS * least):
                        break
            later = len(by_place[1:]) if self.several else 0  # where little is explained, second order is likelier
            while wider:
                lowest = min(misfit for misfit, *_ in found)
                until, kept = (pause, 0) if lowest < _MOSTLY else (max(pause, rest), later)  # forecasts would be poor
                if lowest <= _UNEXPLAINED or len(wider) <= kept or not on(until):
                    break
                found.append(self._regressed(wider.pop(0)))
        self.least_misfit = lowest = min(misfit for misfit, *_ in found)
        self.ranked = sorted(found, key=lambda each: int(np.log2((each[0] + 1e-99) / (lowest + 1e-99))))

    def of_second_order(self, units: Sequence[float] | None) -> bool:
        """Judge laws of second order in time if those of first order explain little; whether they are better."""
        if _UNEXPLAINED < self.least_misfit < _MOSTLY:  # fronts that frames hardly resolve are of first order
            self._judge(*self.ranked.pop(0), _OF_FIRST)
        first = self.least
        if self.least_misfit > _UNEXPLAINED and first > _EXPLAINED:
            self._forecast(fit_second_order(
                self.encoded, self.least_misfit, self.start + _OF_RATES * self.seconds, units, self.say,
                min(self.regressions, key=lambda each: each[0])[1][0]), _OF_RATES, _STEPS_WITH_RATES)
        return self.least < min(_ALONE, first)

    def run(self, turns: Iterator[_Regressed | None]) -> None:
        """Judge families in turn until the error of a law is small."""
        if not self.scored:
            self.limit.most = effort() + max(_VAIN * self.seconds, _FAIR)
        with suppress(OutOfTime, ValueError), effort.limited(self.limit):
            while self.least > self.enough and not self.hopeless and (each := next(turns, ())) != ():
                if each and (not self.scored or self.spent < self.sought * self.seconds):  # the first in any case
                    self._judge(*each, self.sought if self.scored else _SOUGHT)
                elif each is None and not (self.period or self.several) and (
                        self.least > max(_LITTLE, _NEAR * self.floor)):
                    self._single_steps()

    def _single_steps(self) -> None:
        """Judge laws fitted to single steps, for longer where no law forecasts, as there is none to refine."""
        if far := self.noiseless and self.least > _HOPELESS:
            self.deadline = self.limit.most = self.start + _RESORT * self.seconds
        until = self.deadline
        if not far and (self.least <= _EXPLAINED or self.least_misfit < _UNEXPLAINED):
            until = min(until, max(self.half, effort() + _STEPPED * self.seconds))
        for law in along_single_steps(self.encoded, self.families, until):
            self._consider(law, forecast_errors(law, self.judge))

    def families_in_turn(self) -> Iterator[_Regressed | None]:
        """Iterate over the likeliest family, those of far smaller misfits than the first, None (single steps), and the
        others; None comes last where no family explains much, second where splines in time are too poor for any."""
        splines_fail = self.least_misfit > _POOR and not (self.period or self.several)
        cut = 1 if splines_fail or self.least_misfit < _UNEXPLAINED else len(self.ranked)
        yield from self.ranked[:cut]
        others = self.ranked[cut:]
        if self.poor:
            self.deadline = self.limit.most = self.start + _RESORT * self.seconds
            self.pending.sort(key=lambda one: round(math.log10(self._missed(one) + 1e-99)))
        while self.pending and self.least > self.enough and (
                self.spent < (self.sought if self.poor else _REST) * self.seconds or not (others or self.scored)):
            with suppress(ValueError):
                others.append(self._regressed(self.pending.pop(0)))
                if self.poor and others[-1][0] < _PAYS * self.regressions[0][0]:
                    yield others.pop()
        others.sort(key=lambda each: round(math.log2(each[0] + 1e-99)))  # the simpler ones first where they are close
        better = 0 if splines_fail else sum(
            self.least_misfit >= _UNEXPLAINED or each[0] < _PAYS * self.regressions[0][0] for each in others)
        yield from [*others[:better], None, *others[better:]]

    def _regressed(self, families: Families | None, encoded: EncodedData | None = None) -> _Regressed:
        """Regress families on encoded data, by default `after_transients`. None: the first families with inertia."""
        families = families or with_best_inertia(self.encoded, self.families)
        laws = regress([encoded or self.after_transients], families, self.period)
        least, most = laws[0][0], laws[-1][0]
        self.say(f"  {len(laws)} candidates of {len(families.all_terms)} terms, misfits {least:.2e} to {most:.2e}")
        laws.sort(key=lambda pair: math.log(pair[0] + 1e-300) + _WORTH[self.several] * _size(pair[1]))
        return least, [law for i, (misfit, law) in enumerate(laws) if i < _JUDGED or misfit <= _CLOSE * least], families

    def _promising(self, every: Iterable[Families]) -> list[Families]:
        """Families that may explain more than the first ones, the likeliest first; all of them where noise hides it."""
        missed = sorted(((self._missed(one), one) for one in every), key=lambda pair: (
            pair[0] if self.noiseless else round(math.log2(pair[0] + 1e-99))))
        most = _MAY * self._missed(self.families) if missed and self.noiseless else math.inf
        return [one for left, one in missed if left < most]

    def _missed(self, families: Families | None) -> float:
        """Misfit of all terms of families on a few trajectories, which is quick; guessed of those with inertia."""
        share = _PAYS if families is None else 1.0
        return share * misfit_of_all(self.after_transients.some(_SCREENED), (families or self.families).all_terms)

    def _judge(self, misfit: float, laws: list[Law], families: Families, share: float) -> None:
        """Forecast laws of a family, also with coefficients along their own flow, until a share of the time is over."""
        if misfit > _POLYNOMIAL and not (
                self.several or "carried" in families.terms or self.used() > _HALF and not self.scored):
            best, flown = list[Law](), rollout_regression(self.encoded, laws[0], families)
            with suppress(OutOfTime), effort.limited(Limit(effort() + _OF_FLOWS * self.seconds)):
                while self.spent < share * self.seconds and (found := next(flown, None)) is not None:
                    best = found
            laws = [*{law.theta.tobytes(): law for law in best}.values(), *laws]  # sizes may coincide
        share *= 1.0 if self.noiseless else _HIDDEN
        t = self.encoded.train.t
        mixed = [] if laws[0].count or any(well_posed(law, t) for law in laws) else well_posed_mixtures(laws, t)
        each = (one for law in laws if well_posed(one := law, t) or well_posed(one := damped(law), t))
        self._forecast([*{one.theta.tobytes(): one for one in (*mixed, *each)}.values()], share)

    def _forecast(self, laws: list[Law], share: float, most: int = MOST_STEPS) -> None:
        """Forecast laws with at most `most` steps per interval, until a share of the time is over."""
        encoded, before = self.encoded, len(self.scored)
        for judged in team.map(partial(_with_forecast_errors, encoded.train, encoded.states, self.step_error,
                                       self.judge, most), laws):
            if judged is not None:
                self._consider(*judged)
            stale = self.poor and self.pending and len(self.scored) > before + _STALE and self.least == min(
                float(errors.mean()) for errors, _ in self.scored[:-_STALE])
            if stale or self.hopeless or (
                    self.spent > (share if len(self.scored) >= _COMPARED else 1.0) * self.seconds and self.scored):
                break

    def _consider(self, law: Law, errors: np.ndarray) -> None:
        self.say(f"  error {errors.mean():.2e} with {law.size - len(law.rates)} terms, "
                 f"effort {effort() - self.start:.1f} s")
        self.diverged += not np.isfinite(errors).all()
        if law.size and np.isfinite(errors).all():
            self.scored.append((errors, law))
            self.limit.most = self.deadline


def _size(law: Law) -> int:
    """Number of non-zero coefficients; those that vary in place count once."""
    return law.size - sum(int(np.count_nonzero(own)) for own, term in zip(law.theta, law.terms, strict=True)
                          if isinstance(term, Term) and term.place)


def _with_forecast_errors(train: Data, states: np.ndarray, error: float, judge: Data, most: int, law: Law
                          ) -> tuple[Law, np.ndarray] | None:
    """Law with the longest step of at most `most` per interval, and its errors (S,) of forecasts; None if there is no
    such step, or if nonlinear fluxes diverge slightly beyond the first frames. Nonlinear diffusion, which is stiff, is
    split; with contexts if it must be, as states of several systems are then not advanced together."""
    ways = [each for each in (law.split(), law) if each is not None][:: -1 if law.count else 1]
    one = next(filter(None, (integrable(each, train.t, states, error, most) for each in ways)), None)
    if one is None:
        return None
    one = with_new_contexts(one, train, judge) if one.count else one
    if any(term.flux and not term.linear for term in one.terms) and not one.count:
        rest = states.mean((0, 1))  # fluxes that run up gradients beyond those seen
        beyond = one.rollout(torch.tensor(rest + _BEYOND * (states[:, 0] - rest)).flatten(1), train.t[0, : _AHEAD + 1])
        if not bool(beyond.isfinite().all()):
            return None
    return one, forecast_errors(one, judge)
