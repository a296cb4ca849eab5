"""Laws of second order in time, u'' = f(u, u'), for values that alone do not say what follows.

A wave of which no velocity is observed obeys such a law, or one of two coupled species. It is a law of first order of
twice the channels, values and their rates. Equations are weak in time: against hat functions of three frames, changes
of slope are integrals of the law along splines. First rates of forecasts are those with which the law's own flow leads
to the second frame (shooting).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from inrflow.domains import Flows
from inrflow.dynamics.laws.flow import library_of
from inrflow.dynamics.laws.law import WITH_RATES, Law, largest_of, well_posed, with_slopes
from inrflow.dynamics.laws.regression import FOLDS, normal_equations, supports_of
from inrflow.dynamics.laws.setting import Families, Ground, Log, evenly, families_of
from inrflow.dynamics.laws.shooting import rates_between
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.dynamics.states import CodeData
from inrflow.numerics.effort import effort
from inrflow.numerics.team import team

_FEWEST_FRAMES = 5
_TRAJECTORIES = 32  # that give equations, at most
_WORTH = 0.1  # of the misfit, that a term saves
_UNEXPLAINED = 1e-2  # misfit from which on coefficients may vary in place
_PAYS = 0.2  # share of the misfit of laws of first order
_JUDGED, _CLOSE = 5, 5.0  # laws are forecast, and all others whose misfit is at most so many times the least


def fit_second_order(ground: Ground, judged: Callable[[Law], tuple[Law, np.ndarray] | None], misfit: float,
                     deadline: float, units: Sequence[float] | None, log: Log) -> list[tuple[np.ndarray, Law]]:
    """Laws of second order with the errors (S,) of their forecasts of held-out trajectories.

    None where they miss more than a fifth of what laws of first order do (`misfit`). judged: gives a law as it can be
    integrated, and its errors (S,), or None. deadline: of effort.
    """
    codes, states, t = ground.codes, ground.states, ground.train.t
    frames, channels, count = states.shape[1:]
    if ground.train.systems.counts or isinstance(ground.domain, Flows) or frames < _FEWEST_FRAMES or (
            channels * count > WITH_RATES):
        return []
    both = with_slopes(t, states)
    families, largest = families_of(ground.domain, codes.harmonics, both, units and (*units, *units)), largest_of(both)
    ordered = _regressed(ground, families, largest)
    for wider in families.in_place(codes.harmonics, False):
        if ordered[0][0] < _UNEXPLAINED or effort() > deadline:
            break
        ordered = sorted([*ordered, *_regressed(ground, wider, largest)], key=lambda pair: pair[0])
    log(f"  misfit {misfit:.1e} of laws of first order, {ordered[0][0]:.1e} of second order")
    if ordered[0][0] > _PAYS * misfit:
        return []
    scored: list[tuple[np.ndarray, Law]] = []
    span = float((t[:, -1] - t[:, 0]).max())
    near = sorted((pair for number, pair in enumerate(ordered)
                   if (number < _JUDGED or pair[0] < _CLOSE * ordered[0][0]) and well_posed(pair[1], span)),
                  key=lambda pair: math.log(pair[0] + 1e-300) + _WORTH * pair[1].size)  # what splines miss makes terms
    for pair in team.map(judged, [law for _, law in near]):
        if pair is not None and np.isfinite(pair[1]).all():
            law, errors = pair
            scored.append((errors, law))
            log(f"  {errors.mean():.2e} with {law.size - channels} terms, effort {effort():.1f} s")
        if effort() > deadline:
            break
    return scored


def _regressed(ground: Ground, families: Families, largest: float) -> list[tuple[float, Law]]:
    """Laws of all families of terms with their misfits, that with the least misfit first."""
    terms, channels = families.every, ground.states.shape[2]
    rows = evenly(len(ground.states), ground.states[0, 0].size, _TRAJECTORIES)
    library = library_of(terms, ground.codes.harmonics)
    found: dict[tuple, tuple[float, Law]] = {}
    for cumulative in (False, True):
        equations = normal_equations(library, ground.train.t[rows], ground.states[rows], ground.spread[rows],
                                     ground.known, cumulative, FOLDS, second=True)
        for active in families.active:
            for supports, theta, std, left in supports_of(equations, [active] * channels, len(terms)):
                if left < found.get((supports, cumulative), (np.inf,))[0]:
                    law = Law(ground.domain, ground.boundary, tuple(terms), theta, std, ground.codes, largest=largest)
                    found[supports, cumulative] = left, of_first_order(law)
    return sorted(found.values(), key=lambda pair: pair[0])


def of_first_order(law: Law) -> Law:
    """The law of values and their rates, of coefficients (J, C) for the rates."""
    channels = law.theta.shape[1]
    own = [Term((((channels + c, VALUE),),)) for c in range(channels)]
    terms = (*law.terms, *(term for term in own if term not in law.terms))
    added = ((0, len(terms) - len(law.terms)), (channels, 0))
    theta, std = np.pad(law.theta, added), np.pad(law.std, added)
    for c, term in enumerate(own):
        theta[terms.index(term), c] = 1.0
    return replace(law, terms=terms, theta=theta, std=std, by_context=np.zeros((0, *theta.shape)))


def with_rates(law: Law, data: CodeData) -> CodeData:
    """States (S, T, 2 C K): codes (S, T, C K), and the rates that lead along the law to the next frame.

    At frames between others, the mean of those and of the rates with which the flow from the frame before arrives: to
    second order of the steps, what the law misses has no part in it. Frames between unobserved ones count as
    unobserved.
    """
    codes, size = data.codes.double(), data.codes.shape[-1]
    sums, counts = torch.zeros_like(codes), torch.zeros(codes.shape[:2], dtype=torch.float64)
    for n in range(codes.shape[1] - 1):
        rows = (data.observed[:, n] & data.observed[:, n + 1]).nonzero()[:, 0]
        if not len(rows):
            continue
        gap, now, then = data.t[rows, n + 1] - data.t[rows, n], codes[rows, n], codes[rows, n + 1]
        rate = rates_between(law.field(), law.longest, gap, now, then)
        for time in gap.unique().tolist():
            some = gap == time
            later = law.field().bounded(torch.cat([now[some], rate[some]], 1), time, law.longest, math.inf)[:, size:]
            whole = torch.isfinite(later).all(1)
            sums[rows[some][whole], n + 1] += later[whole]
            counts[rows[some][whole], n + 1] += 1
        sums[rows, n] += rate
        counts[rows, n] += 1
    states = torch.cat([codes, sums / counts.clamp_min(1)[..., None]], -1)
    return CodeData(states.to(data.codes), data.t, data.observed & (counts > 0))
