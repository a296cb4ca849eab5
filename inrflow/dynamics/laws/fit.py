"""fit_law: the search for a law of trajectories on a domain's harmonics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from inrflow.domains import Box, Domain, Flows
from inrflow.dynamics.laws.contexts import known_contexts, standard, widened
from inrflow.dynamics.laws.families import Families, families_of, regressed
from inrflow.dynamics.laws.law import (
    MOST_STEPS,
    Law,
    integrable,
    most_with_rates,
    pruned,
    well_posed,
)
from inrflow.dynamics.laws.rates import fit_second_order, inertial, solved_anew
from inrflow.dynamics.laws.refine import Refinement
from inrflow.dynamics.laws.setting import (
    FEW_CODES,
    FEW_HARMONICS,
    HARDLY,
    Data,
    Ground,
    Log,
    Systems,
    apart,
    choose,
    encode,
    evenly,
    forecast_errors,
    joined,
    resolved,
    simplest,
    worse,
)
from inrflow.dynamics.laws.shooting import along_flow, along_single_steps
from inrflow.encoding.harmonic_codes import fit_codes, tail, white_noise
from inrflow.errors import UserError
from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.numerics.phases import periodic_phases
from inrflow.numerics.team import team

_FINER, _FINEST = (1.7, 2.8, 4.6, 7.6, 12.5), (3.7, 7.0)  # times as many harmonics, tried in turn; those of flows
_BETTER, _SETTLED = 0.9, 0.3  # shares of the error that more harmonics or shorter steps leave, and highest ones hold
_FEW_JUDGES = 3  # trajectories of many codes that judge laws, at most
_LITTLE, _NOISY = 1e-4, 10.0  # error of forecasts, and times what codes miss, from which on more families are tried
_LAST, _COMPARED = 3.0, 2  # seconds for standard errors; laws that are forecast, at least
_CHOICE, _IN_TIME = 0.15, 0.9  # shares of the time after which no further harmonics are tried, and that is planned for
_KEPT = 0.35  # share of the time, at most, that is kept for forecasts on more harmonics
_LENGTHS, _SHORT = (1, 3, 9), 3  # frames of flights that refine coefficients in turn; of noisy codes, and the last ones
_PAYS = 0.5  # share of the least misfit of simpler laws that those of further families may have
_WORTH = 0.05  # of the misfit, that a term saves where systems differ
_JUDGED, _CLOSE = 5, 20.0  # candidates are judged, and others whose misfit is at most so many times the least
_DESCENT, _NO_NOISE = 0.8, 0.1  # share of the time for descents of noisy codes; of the error that is left without noise
_EXPLAINED, _MOSTLY = 1e-2, 0.1  # error from which second order is tried; misfit below which first order comes first
_OF_FLOWS = 0.15  # share of the time for laws along their own flow
_NEAR, _SINGLE, _STEPPED = 30.0, 0.5, 0.15  # times harmonics' error from which single steps are tried; until, or for
_STEPS = 0.1  # errors of the integrator over those of harmonics in the search
_EXACT = 1e-12  # error of forecasts that is hardly more than the rounding of single precision: nothing to refine
_LOOKED_AT = 16  # trajectories that the noise of values comes from, at most
_ROUGH, _MOST_OF_GRID = 1e-3, 4096  # error of the most harmonics from which on all of a grid are taken; codes, at most
_LATER, _STEPS_WITH_RATES = 10.0, 64  # times the error that later forecasts on more harmonics differ by; at most
_OF_FIRST, _OF_RATES = 0.25, 0.35  # of the time, for laws of first order before those of second order, and for these
_ALONE = 1e-3  # error of laws of second order from which on first order has no time
_POLYNOMIAL = 1e-5  # share of squared changes that the first families miss, below which there are no further ones
_UNEXPLAINED, _RANKED = 1e-2, 0.2  # a share of them; of the time to compare families
_QUICK, _REST, _SOUGHT = 0.2, 0.35, 0.45  # of the time: a quick search; no families are regressed, or forecast, later

_Regression = Callable[[], tuple[float, list[Law], Families]]


def fit_law(t: np.ndarray, x: np.ndarray, u: np.ndarray, domain: Domain | Sequence[Domain], *, seconds: float = 60.0,
            boundary: str | None = None, seed: int = 0, log: Log | None = None, systems: Systems | None = None,
            units: Sequence[float] | None = None, clock: Callable[[], float] | None = None, rates: bool = False,
            noise: float = 0.0, period: float = 0.0) -> Law:
    """The law whose forecasts of held-out trajectories are best.

    t (T,) or (S, T); x (N, d) or (S, N, d); u (S, T, N, C), NaN where not observed; several domains: that whose
    harmonics fit best is taken, as with boundary conditions that are not given. seconds: of effort, about those of a
    processor. systems: whose coefficients may differ. units (C,): of channels, 1 by default. clock: seconds that are
    left; on a busy machine less effort is made. rates: whether it may be of second order in time, with rates as
    channels. noise: variance by which u is wrong, a share. period: of a forcing. Raises UserError where none forecasts.
    """
    effort.restart()
    start, given = effort(), clock() if clock else 0.0
    say: Log = log or (lambda _: None)
    data, channels = Data.of(t, x, u, systems), u.shape[-1]
    if period:  # its cosine and sine are further channels, whose law is known
        season = np.broadcast_to(periodic_phases(torch.tensor(data.t), period, 1)[:, :, None], (*u.shape[:3], 2))
        data, units = replace(data, u=np.concatenate([data.u, season], -1)), (*(units or (1.0,) * channels), 1.0, 1.0)
    train, judge = data.parted(seed)
    domains = [domain] if isinstance(domain, Domain) else list(domain)
    place, boundary, count, floor = choose(domains, boundary, train, seed, say, start + _CHOICE * seconds)
    few, rough = count < FEW_HARMONICS, floor > _ROUGH
    if few or rough:  # more would leave less: where all of a grid can be afforded, all
        grid, every = resolved(place, train, train.u.shape[-1] == place.dimensions > 1)
        most = FEW_HARMONICS if few else _MOST_OF_GRID // train.u.shape[-1]
        own = grid is not place
        if (own or rough and place.kind == "sphere") and count < every <= most and (own and not few or tail(
                grid.harmonics(every * joined(boundary), boundary), train.x[0], train.u) < _SETTLED * floor):
            place, count, floor = grid, every, _SETTLED * floor if few else _LITTLE
    some, size = train.take(evenly(len(train.u), count * train.u.shape[-1])), count * joined(boundary)
    codes = fit_codes(place.harmonics(size, boundary), some.x, some.u)
    holding, used = codes.used(place)
    if used < codes.harmonics.count:  # products would fill harmonics in which the data have nothing
        place, codes = holding, fit_codes(holding.harmonics(used, boundary), some.x, some.u)
    values_noise = white_noise(codes, train.x[:_LOOKED_AT], train.u[:_LOOKED_AT])
    train, judge = replace(train, noise=values_noise), replace(judge, noise=values_noise)
    states, spread = encode(codes, train)
    families = families_of(place, codes.harmonics, states[:, :, :channels], units)
    families = families.with_season(channels, codes.harmonics) if period else families
    many, floor = states[0, 0].size > FEW_CODES, max(floor, noise)
    judge = judge.take(np.arange(min(_FEW_JUDGES, len(judge.u)))) if many else judge  # their forecasts cost much
    say(f"{place.kind}: {codes.harmonics.count} harmonics, noise {values_noise.max():.1e}, {effort() - start:.1f} s")
    scored, enough = list[tuple[np.ndarray, Law]](), max(_LITTLE, _NOISY * floor)
    watch, deadline = Limit(), start + (1 - _KEPT) * seconds  # for further ones

    def consider(law: Law, errors: np.ndarray) -> None:
        say(f"  {errors.mean():.2e} with {law.size - len(law.rates)} terms, effort {effort() - start:.1f} s")
        if law.size and np.isfinite(errors).all():
            scored.append((errors, law))
            watch.most = deadline

    def judge_all(laws: list[Law], share: float, most: int = MOST_STEPS) -> None:
        """Forecast laws, in at most so many steps an interval, until a share of the time is over."""
        for judged in team.map(partial(_judged, train, states, coarse, judge, most), laws):
            if judged is not None:
                consider(*judged)
            if effort() - start > (share if len(scored) >= _COMPARED else 1.0) * seconds:
                break

    coarse = _STEPS * math.sqrt(floor) if many or train.systems.counts else 0.0  # their flows take their time
    ground = Ground(place, boundary, codes, train, states, spread)

    def searched(families: Families) -> tuple[float, list[Law], Families]:
        return *candidates(ground, families, say, period), families

    def sought(misfit: float, laws: list[Law], families: Families, share: float) -> None:
        until = min(start + share * seconds, effort() + _OF_FLOWS * seconds)
        if misfit > _POLYNOMIAL and not train.systems.counts:
            laws = [*along_flow(ground, laws[0], families, until), *laws]
        judge_all([law for law in laws if well_posed(law, float((train.t[:, -1] - train.t[:, 0]).max()))], share)

    def in_turn() -> Iterator[tuple[float, list[Law], Families] | None]:
        """The likeliest family, those that leave far less than the first one, single steps (None) and the others; where
        none explains much, single steps come last."""
        yield from ranked[:1] if explained else ranked
        others = ranked[1:] if explained else []
        while wider and least() > enough and (effort() - start < _REST * seconds or not (others or scored)):
            others.append(wider.pop(0)())
        others.sort(key=lambda each: round(math.log2(each[0] + 1e-99)))  # the simpler ones first where they are close
        better = sum(misfit < _PAYS * found[0][0] for misfit, *_ in others) if explained else len(others)
        yield from [*others[:better], None, *others[better:]]

    def least() -> float:
        return min((float(errors.mean()) for errors, _ in scored), default=np.inf)

    by_place = [partial(searched, one) for one in families.in_place(
        place, codes.harmonics, bool(train.systems.counts))]
    inert = [lambda: searched(inertial(ground, families))][: codes.harmonics.allowed is None and len(by_place) > 1]
    more = families.with_multipliers(place, codes.harmonics, channels)
    wider: list[_Regression] = [*by_place[:1], *(partial(searched, one) for one in more), *by_place[1:2], *inert,
                                *by_place[2:]]
    found, pause, rest = [searched(families)], effort() + _RANKED * seconds, start + _REST * seconds
    further = () if found[0][0] < _POLYNOMIAL or period else families.further(place, codes.harmonics, states)
    if many and wider and found[0][0] > _UNEXPLAINED:  # each takes long, and this one is the likeliest
        found.append(wider.pop(0)())
    found += [its for one in further if effort() < pause and (its := searched(one))[0] < _PAYS * found[0][0]]
    while wider and (lowest := min(misfit for misfit, *_ in found)) > _UNEXPLAINED and (
            effort() < (pause if lowest < _MOSTLY else max(pause, rest))):  # forecasts of such laws say nothing
        found.append(wider.pop(0)())
    lowest = min(misfit for misfit, *_ in found)
    ranked = sorted(found, key=lambda each: int(np.log2((each[0] + 1e-99) / (lowest + 1e-99))))

    if rates and not period and _UNEXPLAINED < lowest < _MOSTLY:  # fronts that frames hardly resolve are of first order
        sought(*ranked.pop(0), _OF_FIRST)
    first = least()
    if rates and not period and lowest > _UNEXPLAINED and first > _EXPLAINED:
        judge_all(fit_second_order(ground, lowest, start + _OF_RATES * seconds, units, say,
                                   min(found, key=lambda each: each[0])[1][0]), _OF_RATES, _STEPS_WITH_RATES)
    second = least() < min(_ALONE, first)
    explained, half = lowest < _UNEXPLAINED, start + _SINGLE * seconds
    turns = iter(()) if second else in_turn()

    def search() -> None:
        """Families in turn, until forecasts of a law miss little."""
        with suppress(OutOfTime, np.linalg.LinAlgError), effort.limited(watch):
            while least() > enough and (each := next(turns, ())) != ():
                if each and (not scored or effort() - start < _SOUGHT * seconds):  # the first one in any case
                    sought(*each, _SOUGHT)
                elif each is None and not (period or train.systems.counts) and least() > max(_LITTLE, _NEAR * floor):
                    until = deadline if least() > _EXPLAINED and not explained else max(
                        half, effort() + _STEPPED * seconds)
                    for law in along_single_steps(ground, families, min(until, deadline)):
                        consider(law, forecast_errors(law, judge))

    search()
    if not scored:
        raise UserError("no law forecasts the held-out trajectories; the data may not follow a local equation")
    began = effort()
    if clock:  # at this pace: what comes last is worth as much as what comes first
        pace = (began - start) / max(given - clock(), 1e-3)
        seconds = min(seconds, began - start + _IN_TIME * pace * clock())
    brief = began - start < _QUICK * seconds and not values_noise.any()
    errors, law = refine(*simplest(scored), ground, judge, start, seconds, say, brief)
    scored, hardly = [(errors, law)], _NOISY * max(floor, _EXACT)
    if errors.mean() > hardly and effort() - start < _REST * seconds:  # more terms may be what is missing
        enough = hardly
        search()
    if (other := simplest(scored))[1] is not law or brief:
        other = refine(*other, ground, judge, start, seconds, say)
        law = other[1] if brief or HARDLY * other[0].mean() < errors.mean() else law
    law = replace(law, codes=replace(law.codes, mean=law.codes.mean[:channels], variance=law.codes.variance[:channels]))
    return standard(law, np.unique(train.systems.number)) if law.count else law


def refine(errors: np.ndarray, law: Law, ground: Ground, judge: Data, start: float, seconds: float, say: Log,
           brief: bool = False) -> tuple[np.ndarray, Law]:
    """Errors and law, refined in its steps, along its own flow and on more harmonics, without terms that are near zero.

    errors (S,): of its forecasts; start: effort when the search began, which ends so many seconds later. brief: along
    flights of one frame alone.
    """
    began = effort()
    if law.codes.harmonics.count != ground.codes.harmonics.count:  # refined before, on more of them
        ground = Ground.of(law, ground.train)
    narrow, second, exact = (errors, law), law.has_rates, errors.mean() < _EXACT
    train, place, frames = ground.train, ground.domain, ground.states.shape[1]
    with suppress(OutOfTime, np.linalg.LinAlgError), effort.limited(Limit(start + seconds)):
        law = law if exact else shorter_steps(errors, law, judge, start + (1 - _KEPT) * seconds)
        judging = effort() - began
        kept = more if (more := 3 * _FINER[0] ** 2 * judging) < _KEPT * seconds else 0.0  # for more harmonics

        def along(law: Law, length: int, seconds: float, uncertain: bool | None) -> Refinement:
            return Refinement.along(law, ground, ground.known, min(length, frames - 1), seconds, uncertain=uncertain)

        last = along(law, 2 if second else 1, min(_LAST, 0.1 * seconds), False if second else None)
        noisy, hardly = last.uncertain, 1.0
        if noisy:  # forecasts from single frames tell little
            wide = widened(law, train)
            wider, after = Ground.of(wide, train), forecast_errors(wide, judge)
            law, ground, errors, hardly, kept = wide, wider, after, HARDLY, 0.0
        lengths = [n for n in ((_SHORT, frames - 1) if noisy else _LENGTHS[second:]) if n < frames and not exact]
        for index, length in enumerate(lengths[: 1 if brief else None]):
            left = seconds - kept - 2 * judging - (effort() - start)
            if left < 0:
                break
            left *= _DESCENT if noisy else 0.5  # the rest is for forecasts
            last = along(law, length, left / (len(lengths) - index), noisy)
            last.deadline = effort() + left if noisy else last.deadline  # longer ones where short ones add nothing
            refined = last.run()
            refined = known_contexts(refined, train, judge) if refined.count else refined
            after = forecast_errors(refined, judge)
            say(f"  along flights of {length}: {errors.mean():.2e} to {after.mean():.2e}, {effort() - start:.1f} s")
            if not worse(after, hardly * errors):
                law, errors = refined, after
        if not noisy:
            last = along(law, _SHORT, min(_LAST, 0.1 * seconds), False)
        law, short = last.estimated(law)
        if noisy and 0 < short.size < law.size:
            short = last.run(short)
        if 0 < short.size < law.size and not worse(forecast_errors(short, judge), HARDLY * errors + _EXACT):
            law = pruned(short)
        if not (brief or isinstance(place, Flows)):
            for better in finer(law, train, judge, start + seconds, say, not noisy):
                errors, law = better  # kept where the time ends before the next
    return (errors, law) if errors.mean() <= HARDLY * narrow[0].mean() else narrow  # where the time ended too soon


def finer(law: Law, train: Data, judge: Data, deadline: float, say: Log, anew: bool = True
          ) -> Iterator[tuple[np.ndarray, Law]]:
    """Errors and law on more and more harmonics while its forecasts improve: it makes waves that points do not tell.

    Or while they are as good, and those of later times differ by far more: small waves grow. anew: whether coefficients
    are solved anew on them, too.
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
        codes = fit_codes(harmonics, train.x, train.u)
        some = judge.take(np.arange(min(4, len(judge.u))))
        wider = integrable(replace(law, domain=place, codes=codes), some.t, encode(codes, some)[0])
        began = effort()
        after = forecast_errors(wider, judge) if wider is not None else np.full(1, np.inf)
        spent = effort() - began
        anew = anew or bool(after.mean() < _NO_NOISE * errors.mean())
        if anew and wider is not None and not (law.count or law.has_network):  # they made up for missing harmonics
            solved = solved_anew(wider, train)
            again = forecast_errors(solved, judge)
            wider, after = (solved, again) if again.mean() < after.mean() else (wider, after)
        say(f"  on {harmonics.count} harmonics: {errors.mean():.2e} to {after.mean():.2e}, effort {effort():.1f} s")
        if wider is None or not (after.mean() < _BETTER * errors.mean() or (
                anew and not worse(after, HARDLY * errors + _EXACT)
                and apart(law, wider, judge) > _LATER * after.mean())):
            break
        law, errors = wider, after
        yield errors, law


def shorter_steps(errors: np.ndarray, law: Law, judge: Data, deadline: float) -> Law:
    """The law with the integrator's step halved while its forecasts improve: errors of steps may grow along paths."""
    while math.isfinite(law.longest) and effort() < deadline:
        halved = replace(law, longest=law.longest / 2)
        after = forecast_errors(halved, judge)
        if not after.mean() < _BETTER * errors.mean():
            break
        law, errors = halved, after
    return law


def candidates(ground: Ground, families: Families, say: Log, period: float = 0.0) -> tuple[float, list[Law]]:
    """The least misfit of laws of families of terms, and those that are forecast, the likeliest first."""
    found = regressed([ground], families, period)
    least, worth = found[0][0], _WORTH if ground.train.systems.counts else 0.0
    say(f"  {len(found)} candidates of {len(families.every)} terms, misfits {least:.2e} to {found[-1][0]:.2e}")
    found.sort(key=lambda pair: math.log(pair[0] + 1e-300) + worth * pair[1].size)
    return least, [law for i, (misfit, law) in enumerate(found) if i < _JUDGED or misfit <= _CLOSE * least]


def _judged(train: Data, states: np.ndarray, error: float, judge: Data, most: int, law: Law
            ) -> tuple[Law, np.ndarray] | None:
    """The law as it can be integrated, in at most so many steps an interval, and its errors (S,) of forecasts; None
    where it cannot."""
    one = integrable(law, train.t, states, error, most)
    if one is None:
        return None
    one = known_contexts(one, train, judge) if one.count else one
    return one, forecast_errors(one, judge)
