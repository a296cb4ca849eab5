"""Search for functions with a constant, such as u / (u + a), that rates depend on, and for their constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, log

import numpy as np
from scipy.optimize import minimize_scalar

from inrflow.domains.transform import transform_of
from inrflow.dynamics.laws.families import Families, some_frames
from inrflow.dynamics.laws.setting import EncodedData, Log
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.numerics.kinetics import ARRHENIUS, HILL, KINDS, number_of

_FEW = 6  # trajectories of one system on which functions are compared
_CONSTANTS = {ARRHENIUS: np.geomspace(0.3, 20, 8), **{order: np.geomspace(0.03, 4, 8) for order in HILL}}
_HOT, _BELOW = 0.05, 0.02  # least values over the largest: of temperatures; below zero, of amounts
_MOST = 3  # functions of a law
_PAYS, _PAYS_WITH_NOISE = 0.2, 0.7  # largest misfit with a further function, over that without
_NARROWED, _NARROW = 3, 1e-2  # functions whose constants are found, the likeliest; tolerance of their logarithms


def with_functions(families: Families, encoded: EncodedData, say: Log, late: Callable[[], bool]) -> Families:
    """Families of products of at most two values, and of functions of values that explain far more than products of
    three; the given families if there are none. With noise, which hides whether these are the right ones, they are
    `later` families, for forecasts to decide. late: whether time is over, which ends the search."""
    some = encoded if encoded.noisy or encoded.train.systems.counts else encoded.some(_FEW)
    few = replace(families, terms={name: [term for term in terms if len(term.products[0]) < 3]
                                   for name, terms in families.terms.items()})
    known: list[dict] = [{} for _ in some.states]
    every, least = _misfit(some, [families.all_terms, few.all_terms], known)
    if not (found := kinetic_terms(some, few.all_terms, least, every if encoded.noisy else _PAYS * every, late, known)):
        return families
    say("  functions of values: " + ", ".join(term.written([f"u{c}" for c in range(9)], "xyz") for term in found))
    bent = few.beside({"kinetics": found})
    return replace(families, later=(bent, *families.later)) if encoded.noisy else bent


def kinetic_terms(encoded: EncodedData, terms: Sequence[Term], least: float, most: float, late: Callable[[], bool],
                  known: Sequence[dict]) -> list[Term]:
    """Terms of functions of values beside which `terms`, of misfit `least`, have a misfit of at most `most`; empty if
    there are none. known: integrals of terms of each trajectory."""
    values = transform_of(encoded.codes.harmonics, 2).fields(some_frames(encoded.states))
    low, high = values.amin((0, 2)).tolist(), values.amax((0, 2)).tolist()
    found = list[Term]()

    def missed(c: int, kind: int, constants: Sequence[float]) -> np.ndarray:
        return _misfit(encoded, [[*terms, *found, *_group(len(low), c, kind, a)] for a in constants], known)

    for _ in range(_MOST):
        every = list[tuple[float, int, int, float]]()
        for c, kind in ((c, kind) for c in range(len(low)) for kind in range(KINDS)):
            largest = max(high[c], -low[c])
            if largest > 0 and not late() and (
                    kind == 2 or low[c] > (_HOT * high[c] if kind == ARRHENIUS else -_BELOW * high[c])):
                constants = largest * _CONSTANTS[kind]
                left = missed(c, kind, constants.tolist())
                every.append((float(left.min()), c, kind, float(constants[left.argmin()])))
        every = sorted(every)[:_NARROWED]  # the misfit of the right function is least near the right constant alone
        misfit, c, kind, a = min((_narrowed(missed, *one[1:]) for one in every), default=(np.inf, 0, 0, 0.0))
        if not misfit < (_PAYS_WITH_NOISE if encoded.noisy else _PAYS) * least:
            break
        found += _group(len(low), c, kind, a)
        least = misfit
    return found if least < most else []


def _narrowed(missed: Callable[[int, int, Sequence[float]], np.ndarray], c: int, kind: int, a: float
              ) -> tuple[float, int, int, float]:
    """Least misfit of a function near a constant a, channel, kind and the constant."""
    ratio = log(_CONSTANTS[kind][1] / _CONSTANTS[kind][0])
    found = minimize_scalar(lambda change: log(missed(c, kind, [a * exp(change)])[0] + 1e-300), bounds=(-ratio, ratio),
                            method="bounded", options={"xatol": _NARROW})
    return exp(float(found.fun)), c, kind, a * exp(float(found.x))


def _group(channels: int, c: int, kind: int, constant: float) -> list[Term]:
    """A function of channel c, alone and times each channel that is not spanned by it and products of values."""
    factor = c, number_of(kind, constant)
    return [Term(((*beside, factor),)) for beside in ((), *(
        ((d, VALUE),) for d in range(channels) if d != c or kind != 1))]


def _misfit(encoded: EncodedData, every: Sequence[Sequence[Term]], known: Sequence[dict]) -> np.ndarray:
    """Unexplained shares of changes by each of several lists of terms: geometric means over channels, with separate
    coefficients of each system. known: integrals of terms of each trajectory, which are computed once."""
    terms, number = list(dict.fromkeys(term for one in every for term in one)), encoded.train.systems.number
    cumulative = encoded.noisy  # noise enters changes from the mean once, those between frames each time
    (equations,) = encoded.equations(terms, (cumulative,), folds=len(number), integrals=known)
    return np.array([np.exp(np.log(equations.only([terms.index(term) for term in one]).misfits(number) + 1e-300).mean())
                     for one in every])
