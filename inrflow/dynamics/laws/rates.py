"""Laws of second order in time, u'' = f(u, u'), for fields whose rates are not observed, and (1 - m lap) u' = f(u).

The former hold for a wave whose velocity is not observed, for one of two coupled species, or for some channels only, as
the height of shallow water beside its vorticity, without its divergence. They are laws of first order for values and
their rates. Equations are weak in time: changes of slope against hat functions over three frames are integrals of the
law along splines. Initial rates of forecasts are those with which the law's own flow reaches the second frame
(shooting).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from inrflow.domains import Flows
from inrflow.domains.transform import CONSTANT
from inrflow.dynamics.laws.contexts import with_contexts
from inrflow.dynamics.laws.families import Families, families_of, regress
from inrflow.dynamics.laws.law import Law, max_norm, well_posed, with_spline_rates
from inrflow.dynamics.laws.rate_solver import rates_between
from inrflow.dynamics.laws.regression import NormalEquations
from inrflow.dynamics.laws.setting import Data, EncodedData, Log
from inrflow.dynamics.laws.terms import ANGULAR, OF_LAP, POTENTIAL, VALUE, Term, slope_fluxes
from inrflow.encoding.encode import CodeData
from inrflow.numerics.effort import effort

_WITH_RATES, _WITH_SOME_RATES = 400, 2100  # most codes of values with rates of all channels, or of some
_FEWEST_FRAMES = 5
_TRAJECTORIES = 32  # most trajectories of a regression
_FEW, _STEP, _ACCURATE = 6, 1.5, 1e-4  # trials of an inertia: trajectories; logarithm's step and error
_HALVED = 0.5  # most misfit with an inertia, over that without
_WORTH = 0.1  # log misfit that a term must save
_UNEXPLAINED = 1e-2  # misfit above which coefficients that vary in space are tried
_PAYS = 0.2  # most misfit, over that of laws of first order
_PAYS_FOR_SOME = 0.5  # the same with rates of some channels only
_HIDDEN = 0.3  # unexplained share of changes above which rates of a channel are states, if not of all
_AT_ONCE = 4_000_000  # most field values of states whose rates are solved together
_JUDGED, _CLOSE = 5, 5.0  # laws forecast; those with misfits up to this times the least, too


def most_harmonics(rates: Sequence[int], channels: int) -> int:
    """Most harmonics per channel of laws with rates of some channels."""
    return (_WITH_RATES if len(rates) == channels else _WITH_SOME_RATES) // channels


def fit_second_order(encoded: EncodedData, misfit: float, deadline: float, units: Sequence[float] | None, log: Log,
                     first: Law) -> list[Law]:
    """Laws of second order, the likeliest first.

    Empty where their misfit is more than a fifth of that of laws of first order (`misfit`), of which `first` is the
    best. deadline: of effort.
    """
    frames, channels, count = encoded.states.shape[1:]
    if isinstance(encoded.domain, Flows) or frames < _FEWEST_FRAMES:
        return []
    ordered: list[tuple[float, Law]] = []
    some = hidden_channels(first, encoded) if channels > 1 and encoded.codes.harmonics.allowed is None else ()
    for rates, pays in ((some, _PAYS_FOR_SOME), (tuple(range(channels)), _PAYS)):
        if rates and count <= most_harmonics(rates, channels) and not ordered:
            ordered = _second_order_laws(encoded, rates, deadline, units and (*units, *(units[c] for c in rates)))
            log(f"  misfit {misfit:.1e} of laws of first order, {ordered[0][0]:.1e} of second order of "
                f"{len(rates)} of {channels} channels")
            ordered = ordered if ordered[0][0] < pays * misfit else []
    near = sorted((pair for number, pair in enumerate(ordered)
                   if (number < _JUDGED or pair[0] < _CLOSE * ordered[0][0]) and well_posed(pair[1], encoded.train.t)),
                  key=lambda pair: math.log(pair[0] + 1e-300) + _WORTH * pair[1].size)  # errors of splines add terms
    return [law for _, law in near]


def on_rotating_sphere(families: Families, carriers: Sequence[int]) -> Families:
    """Families of terms of flow on a rotating sphere, with vorticities among the channels of first order (`carriers`).

    These carry every channel; rotation adds z c and grad z . grad lap^-1 c; the energy of the flow, lap(grad lap^-1 c .
    grad lap^-1 c), and the divergent part of transport, div(c grad lap^-1 c), are the family `winds`.
    """
    every = [term.products[0][0][0] for term in families.terms["linear"] if term.linear and not term.power]
    flow = [Term.jacobian_on_sphere(a, c) for a in carriers for c in every]
    flow += [Term((((c, POTENTIAL + ANGULAR + 2),),)) for c in every]
    turned = [Term((((c, VALUE),),), place=1) for c in every]  # the first harmonic is z
    turned += [Term((((c, POTENTIAL + 2),),)) for c in every]
    winds = [Term(tuple(((c, POTENTIAL + j), (c, POTENTIAL + j)) for j in range(3)), 1) for c in carriers]
    winds += [Term(tuple(((c, j), (c, POTENTIAL + j)) for j in range(3))) for c in carriers]
    winds += [Term((((c, VALUE), (c, VALUE)),)) for c in carriers]
    return Families({"linear": families.terms["linear"], "flow": flow, "rotation": turned, "winds": winds},
                    (("linear", "flow", "rotation"), ("linear", "flow", "rotation", "winds")))


def with_best_inertia(encoded: EncodedData, families: Families) -> Families:
    """The families, with J(a, lap b) in the plane or fluxes by slopes on a line, and for each channel the inertia with
    the least misfit of all terms, among inverse eigenvalues of harmonics; 0 where this does not halve it."""
    every, inertia = range(encoded.states.shape[2]), list[float]()
    if "transport" in families.terms and encoded.domain.dimensions < 3 and not encoded.domain.curved:
        more = slope_fluxes(len(every), (0,)) if encoded.domain.dimensions == 1 else [
            Term.jacobian(a, b, 0, OF_LAP) for a in every for b in every]
        families = replace(families, terms={**families.terms, "transport": families.terms["transport"] + more})
    waves, terms = encoded.codes.harmonics.eigenvalues, [*range(len(families.all_terms))]
    waves = np.log(waves[waves > CONSTANT * waves.max()])
    sizes = np.linspace(-waves.max(), -waves.min(), math.ceil(np.ptp(waves) / _STEP) + 1)

    @lru_cache
    def equations(trajectories: int, size: float) -> NormalEquations:
        some = encoded.some(trajectories)
        return some.equations(families.with_inertia([math.exp(size)]).all_terms, folds=1)[0]

    def missed(c: int, trajectories: int, size: float) -> float:
        return equations(trajectories, size).misfit(c, terms)

    for c in every:
        best = min(sizes, key=partial(missed, c, _FEW))
        pays, near = missed(c, _FEW, best) < _HALVED * missed(c, _FEW, -math.inf), best + _STEP * np.array([-1, 0, 1])
        inertia.append(math.exp(least_near(partial(missed, c, _TRAJECTORIES), near)) if pays else 0.0)
    return families.with_inertia(inertia)


def least_near(missed: Callable[[float], float], sizes: np.ndarray) -> float:
    """Where a function is least, between the neighbours of the best of evenly spaced sizes."""
    best, gap = min(sizes, key=missed), sizes[1] - sizes[0]
    return minimize_scalar(missed, bounds=(best - gap, best + gap), method="bounded", options={"xatol": _ACCURATE}).x


def hidden_channels(law: Law, encoded: EncodedData) -> tuple[int, ...]:
    """Channels whose changes a law of first order does not explain, if it explains those of others."""
    some = encoded.some(_TRAJECTORIES)
    (equations,) = some.equations(law.terms, folds=len(some.states))
    theta = np.concatenate([law.theta, *law.by_context])
    if law.count:
        equations = with_contexts(equations, law.contexts[some.train.systems.number])
    own = [np.flatnonzero(column).tolist() for column in theta.T]
    missed = [equations.unexplained(c, terms, theta[terms, c]) for c, terms in enumerate(own)]
    hidden = tuple(c for c, share in enumerate(missed) if share > _HIDDEN)
    return hidden if len(hidden) < len(own) else ()


def _second_order_laws(encoded: EncodedData, rates: tuple[int, ...], deadline: float, units: Sequence[float] | None
                       ) -> list[tuple[float, Law]]:
    """Misfits and laws of second order in some channels, the least misfit first."""
    both = with_spline_rates(encoded.train.t, encoded.states, rates)
    families, largest = families_of(encoded.domain, encoded.codes.harmonics, both, units), max_norm(both)
    carriers = [c for c in range(encoded.states.shape[2]) if c not in rates]

    def sought(families: Families) -> list[tuple[float, Law]]:
        return [(misfit, as_first_order(replace(law, largest=largest), rates))
                for misfit, law in regress([encoded], families, rates=rates)]

    if carriers:
        return sought(on_rotating_sphere(families, carriers) if encoded.domain.kind == "sphere" else families)
    ordered = sought(families)
    for wider in families.with_varying_coefficients(encoded.domain, encoded.codes.harmonics):
        if ordered[0][0] < _UNEXPLAINED or effort() > deadline:
            break
        ordered = sorted([*ordered, *sought(wider)], key=lambda pair: pair[0])
    return ordered


def as_first_order(law: Law, rates: Sequence[int]) -> Law:
    """Law of values and of rates of some channels, from the equations (J, C) of these rates and of other values."""
    own = [Term((((law.theta.shape[1] + i, VALUE),),)) for i in range(len(rates))]
    terms = (*law.terms, *(term for term in own if term not in law.terms))
    every = np.stack([law.theta, law.std, *law.by_context])
    every = np.pad(every, ((0, 0), (0, len(terms) - len(law.terms)), (0, len(rates))))
    for i, (c, term) in enumerate(zip(rates, own, strict=True)):
        every[..., law.theta.shape[1] + i], every[..., c] = every[..., c], 0.0
        every[0, terms.index(term), c] = 1.0
    return replace(law, terms=terms, theta=every[0], std=every[1], by_context=every[2:], rates=tuple(rates))


def regressed_again(law: Law, data: Data) -> Law:
    """Law with coefficients regressed again on its present harmonics."""
    (equations,), own = EncodedData.of(law, data).equations(law.terms, rates=law.rates), law.columns
    theta, std = law.theta.copy(), law.std.copy()
    theta[:, own], std[:, own] = equations.solved(
        [np.flatnonzero(column).tolist() for column in law.theta.T[own]], len(law.terms))
    return replace(law, theta=theta, std=std)


def with_rates(law: Law, data: CodeData, contexts: Tensor | None = None, error: float = 0.0, roughly: bool = False,
               start: int = -1) -> CodeData:
    """States (S, T, n): codes (S, T, C K), and rates that lead to the next frame along the law, at its contexts (S, P).

    Inner frames have the mean of these and of the rates with which the flow from the frame before arrives, so that
    errors of the law cancel to second order of the steps. Frames between unobserved ones count as unobserved. error,
    roughly: as in `rates_between`; roughly, all frames have the rates that lead on from them. start: frame from which
    forecasts start, with the rates of arrival alone, as later frames are not known.
    """
    distinct, which = torch.zeros(1, law.count).double(), torch.zeros(len(data.codes), dtype=torch.long)
    if law.count and contexts is not None:
        distinct, which = torch.unique(contexts, dim=0, return_inverse=True)
    codes, size = data.codes.double(), data.codes.shape[-1]
    sums = codes.new_zeros(*codes.shape[:2], len(law.rates) * law.codes.harmonics.count)
    counts = torch.zeros(codes.shape[:2], dtype=torch.float64)
    for number, context in enumerate(distinct):
        field = law.field(context.numpy())
        pairs = (data.observed[:, :-1] & data.observed[:, 1:] & (which == number)[:, None]).nonzero()
        for s, n in (part.T for part in pairs.split(max(_AT_ONCE // field.library.points, 1))):
            gap, now, then = data.t[s, n + 1] - data.t[s, n], codes[s, n], codes[s, n + 1]
            rate = rates_between(field, law.rates, law.max_step, gap, now, then, error, roughly)
            known = n != start
            sums[s[known], n[known]] += rate[known]
            counts[s[known], n[known]] += 1
            if not roughly:
                later = field.after_gaps(torch.cat([now, rate], 1), gap, law.max_step)[:, size:]
                whole = torch.isfinite(later).all(1)
                sums[s[whole], n[whole] + 1] += later[whole]
                counts[s[whole], n[whole] + 1] += 1
    states = torch.cat([codes, sums / counts.clamp_min(1)[..., None]], -1)
    return CodeData(states.to(data.codes), data.t, data.observed & (counts > 0))
