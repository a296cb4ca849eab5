"""fit_law: the search for a law of trajectories on a domain's harmonics."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from inrflow.domains import BOUNDARIES, NATURAL, NO_SLIP, Box, Domain, Flows, Sphere
from inrflow.domains.box import PERIODIC
from inrflow.dynamics.laws.codes import HarmonicCodes, fit_codes, held_out_errors, point_sets
from inrflow.dynamics.laws.contexts import Systems, contexts_of, standard, with_contexts
from inrflow.dynamics.laws.flow import TERMS, library_of
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.refine import Refinement, flights, solved_contexts
from inrflow.dynamics.laws.regression import FOLDS, NormalEquations, normal_equations
from inrflow.dynamics.laws.shooting import Shooting
from inrflow.dynamics.laws.stability import pruned, stepped, well_posed
from inrflow.dynamics.laws.terms import Term, short_list
from inrflow.errors import UserError

_FEWEST = 8
_MOST = 256  # harmonics that laws are sought on
_MOST_OF_FLOWS = 160  # modes of flows, whose transport costs a sum over all quadrature points for each of them
_FINER = (1.7, 2.8)  # times as many that forecasts are tried on
_FEWER = 1.05  # codes on fewer harmonics are taken where they miss held-out points by at most so much more
_BETTER = 0.9  # share of the error that is left by more harmonics or shorter steps, if they are to be taken
_HOPELESS = 5.0  # times the least error: fewer harmonics are not tried
_SHARE, _JUDGES = 0.2, 8  # of trajectories judge candidates; so many forecast them at most
_LEVELS = ((0.02, 1e-4), (0.15, 1e-3), (0.5, 1e-2), (2.0, 5e-2))  # supports: the smallest whose left-out misfit lies
# above the least by no more than these shares of the least, and of what terms explain at all
_LAST = 3.0  # seconds for standard errors
_KEPT = 0.35  # share of the time, at most, that is kept for forecasts on more harmonics
_LENGTHS = (1, 3, 9)  # frames of the flights that refine coefficients, one after the other
_FAMILIES = (("linear", "products"), ("linear", "transport"), ("linear", "products", "transport"),
             ("linear", "products", "transport", "fluxes"))
_PAYS = 0.5  # share of the least misfit without contexts that laws with contexts may have
_JUDGED = 5  # candidates are judged, and all others whose misfit is
_CLOSE = 20.0  # at most so many times the least
_WINDOW, _WINDOWS = (10, 25), 12  # frames of parts of long trajectories, and how many parts there are at least
_HARDLY = 2.0  # times the error of the best law, which shorter ones may have
_EXPLAINED = 1e-2  # error of forecasts from which on laws are sought along single steps, too
_DETERMINED = 0.5  # share of a code's variance that points determine, where flights are compared
_RESOLVED = 1 / 3  # of the modes of flows give equations
_TRAJECTORIES = 32  # equations come from so many trajectories, at most

Log = Callable[[str], None]


@dataclass(frozen=True)
class Data:
    """Trajectories: times (S, T), points (S, N, d), fields (S, T, N, C), and the systems they are of."""

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    systems: Systems

    def take(self, rows: np.ndarray) -> Data:
        """The trajectories of some indices."""
        return Data(self.t[rows], self.x[rows], self.u[rows], self.systems.take(rows))


def fit_law(t: np.ndarray, x: np.ndarray, u: np.ndarray, domain: Domain | Sequence[Domain], *, seconds: float = 60.0,
            boundary: str | None = None, seed: int = 0, log: Log | None = None, systems: Systems | None = None) -> Law:
    """The law whose forecasts of held-out trajectories are best.

    t (T,) or (S, T); x (N, d) or (S, N, d); u (S, T, N, C), NaN where not observed; several domains: that whose
    harmonics fit best is taken, as with boundary conditions that are not given. seconds: of processor time. systems:
    whose coefficients may differ. Raises UserError where no law forecasts at all.
    """
    start = time.process_time()
    say: Log = log or (lambda _: None)
    data = Data(np.broadcast_to(t, u.shape[:2]).astype(np.float64),
                np.broadcast_to(x, (len(u), *x.shape[-2:])).astype(np.float64), u.astype(np.float64),
                systems or Systems(np.zeros(len(u), dtype=int)))
    data = windows(data)
    if data.u.shape[1] < 4 or len(data.u) < 2:
        raise UserError(f"{len(u)} trajectories of {u.shape[1]} frames are given; a law needs at least 2 of 4")
    domains = [domain] if isinstance(domain, Domain) else list(domain)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(data.u))
    judged = max(1, round(_SHARE * len(data.u)))
    train, judge = data.take(np.sort(order[judged:])), data.take(np.sort(order[: min(judged, _JUDGES)]))
    place, boundary, count = choose(domains, boundary, train, seed, say)
    codes = fit_codes(place.harmonics(count, boundary), train.x, train.u)
    if codes.used < codes.harmonics.count:  # products would fill harmonics in which the data have nothing
        codes = fit_codes(place.harmonics(codes.used, boundary), train.x, train.u)
    states, spread = encode(codes, train)
    say(f"{place.kind}: {codes.harmonics.count} harmonics, cpu {time.process_time() - start:.1f}")
    scored: list[tuple[np.ndarray, Law]] = []

    def consider(law: Law) -> None:
        errors = forecast_errors(law, judge)
        say(f"  {errors.mean():.2e} with {law.size} terms, cpu {time.process_time() - start:.1f}")
        if np.isfinite(errors).all():
            scored.append((errors, law))

    for law in candidates(place, boundary, codes, train, states, spread, say):
        consider(known_contexts(law, train, judge))
        if time.process_time() - start > (0.4 if scored else 1.0) * seconds:
            break
    deadline = start + (1 - _KEPT) * seconds

    def wanting() -> bool:
        return time.process_time() < deadline and not any(errors.mean() < _EXPLAINED for errors, _ in scored)

    if wanting():
        for laws in along_single_steps(place, boundary, codes, train.t, states, spread, deadline):
            for law in laws:
                consider(law)
            if not wanting():
                break
    if not scored:
        raise UserError("no law forecasts the held-out trajectories; the data may not follow a local equation")
    began = time.process_time()
    law = shorter_steps(*simplest(scored), judge, deadline)
    judging = time.process_time() - began
    kept = 3 * _FINER[0] ** 2 * judging  # for forecasts on more harmonics, if they can be afforded
    kept = kept if kept < _KEPT * seconds else 0.0
    lengths = [length for length in _LENGTHS if length < states.shape[1]]
    known = shares_known(codes, spread)
    arena: Refinement | None = None  # noisy codes: judged by flights whose first codes are fitted to them

    def score(law: Law) -> np.ndarray:
        return forecast_errors(law, judge) if arena is None else arena.misfits(law)

    for index, length in enumerate(lengths):
        left = seconds - kept - 2 * judging - (time.process_time() - start)
        if left < 0:
            break
        refinement = Refinement(law, flights(train.t, states, spread, length, train.systems.number), known,
                                left / (len(lengths) - index) / 2, arena is not None)
        refined = known_contexts(refinement.run(), train, judge)
        if len(refinement.free) and arena is None:
            whole = flights(judge.t, *encode(codes, judge), judge.t.shape[1] - 1, judge.systems.number)
            arena = Refinement(law, whole, known, left / 10, True)
        before, after = score(law), score(refined)
        say(f"  along flights of {length}: {before.mean():.3e} to {after.mean():.3e}, "
            f"cpu {time.process_time() - start:.1f}")
        if not worse(after, before):
            law = refined
    last = Refinement(law, flights(train.t, states, spread, min(3, states.shape[1] - 1), train.systems.number), known,
                      _LAST, arena is not None)
    law, short = last.estimated(), last.significant()
    if short.size < law.size and not worse(score(short), score(law)):
        law = pruned(short)
    if arena is None and not isinstance(place, Flows):
        law = finer(law, train, judge, start + seconds, say)
    return standard(law, np.unique(train.systems.number))


def windows(data: Data) -> Data:
    """Long trajectories in parts that share their first and last frames: chaos is forecast over none of them whole."""
    trajectories, frames = data.u.shape[:2]
    length = max(_WINDOW[0], min(_WINDOW[1], trajectories * frames // _WINDOWS))
    if frames < 2 * length - 1:
        return data
    starts = range(0, frames - length + 1, length - 1)
    rows = np.repeat(np.arange(trajectories), len(starts))
    parts = data.take(rows)
    cut = np.tile(starts, trajectories)[:, None] + np.arange(length)
    return replace(parts, t=np.take_along_axis(parts.t, cut, 1), u=parts.u[np.arange(len(rows))[:, None], cut])


def finer(law: Law, train: Data, judge: Data, deadline: float, say: Log) -> Law:
    """The law on more harmonics while its forecasts improve: it makes waves that the points do not determine."""
    began = time.process_time()
    errors = forecast_errors(law, judge)
    spent, count = time.process_time() - began, law.codes.harmonics.count
    for factor in _FINER:
        if time.process_time() + 3 * factor**2 * spent > deadline:
            break
        harmonics = law.domain.harmonics(int(factor * count), law.boundary)
        if harmonics.count <= law.codes.harmonics.count:
            break
        codes = fit_codes(harmonics, train.x, train.u)
        first = torch.tensor(encode(codes, judge.take(np.arange(min(4, len(judge.u)))))[0][:, 0]).flatten(1)
        wider = stepped(replace(law, codes=codes), first, float(np.diff(train.t, axis=1).max()))
        after = forecast_errors(wider, judge) if wider is not None else np.full(1, np.inf)
        say(f"  on {harmonics.count} harmonics: {errors.mean():.2e} to {after.mean():.2e}")
        if wider is None or not after.mean() < _BETTER * errors.mean():
            break
        law, errors = wider, after
    return law


def shorter_steps(errors: np.ndarray, law: Law, judge: Data, deadline: float) -> Law:
    """The law with the integrator's step halved while its forecasts improve: errors of steps may grow along paths."""
    while math.isfinite(law.longest) and time.process_time() < deadline:
        halved = replace(law, longest=law.longest / 2)
        after = forecast_errors(halved, judge)
        if not after.mean() < _BETTER * errors.mean():
            break
        law, errors = halved, after
    return law


def known_contexts(law: Law, train: Data, judge: Data) -> Law:
    """The law with contexts of systems that no training trajectory shows, solved along the flow of those that do."""
    rows = np.flatnonzero(~np.isin(judge.systems.number, train.systems.number))
    if not law.count or not len(rows):
        return law
    others = judge.take(rows)
    return solved_contexts(law, others.t, *encode(law.codes, others), others.systems.number)


def worse(errors: np.ndarray, others: np.ndarray) -> bool:
    """Whether errors (S,) of trajectories are above others by more than the standard error of the mean difference."""
    if not np.isfinite(errors).all():
        return True
    difference = errors - others
    return float(difference.mean()) > float(difference.std() / math.sqrt(max(len(difference) - 1, 1)))


def simplest(scored: list[tuple[np.ndarray, Law]]) -> tuple[np.ndarray, Law]:
    """Of the laws that forecast hardly worse than the best one, that with the fewest terms."""
    best = min(scored, key=lambda pair: float(pair[0].mean()))
    equal = [pair for pair in scored if not worse(pair[0], _HARDLY * best[0])]
    return min(equal, key=lambda pair: (pair[1].size, float(pair[0].mean())))


def choose(domains: list[Domain], boundary: str | None, data: Data, seed: int, say: Log) -> tuple[Domain, str, int]:
    """Domain, boundary condition and number of harmonics that fit held-out points best, the fewer where it is close."""
    some = data.take(np.linspace(0, len(data.u) - 1, min(len(data.u), 6)).astype(int))
    bases = [(place, kind) for place in domains for kind in ([NO_SLIP] if isinstance(place, Flows) else [boundary] if
                                                            boundary else BOUNDARIES if bounded(place) else [NATURAL])]
    errors: dict[tuple[int, int], float] = {}
    for i, (place, kind) in enumerate(bases):
        size = min(_MOST_OF_FLOWS if isinstance(place, Flows) else _MOST, int(np.isfinite(data.u[0, 0, :, 0]).sum()))
        while size >= _FEWEST:
            errors[i, size] = held_out_errors(place.harmonics(size, kind), some.x, some.u, seed)
            if errors[i, size] > _HOPELESS * min(errors.values()):
                break
            size = int(size / 1.6)
    least = min(errors.values())
    i, size = min((key for key in errors if errors[key] <= _FEWER * least), key=lambda key: (key[1], key[0]))
    say("held-out points: " + ", ".join(f"{key}: {error:.1e}" for key, error in errors.items()))
    return *bases[i], size


def families_of(domain: Domain, channels: int) -> dict[str, list[Term]]:
    """Families of terms that laws on a domain are sought in."""
    return TERMS if isinstance(domain, Flows) else short_list(channels, domain.dimensions, domain.kind == "sphere")


def bounded(domain: Domain) -> bool:
    """Whether a domain has a boundary."""
    return not isinstance(domain, Sphere) and not (isinstance(domain, Box) and set(domain.axes) == {PERIODIC})


def candidates(domain: Domain, boundary: str, codes: HarmonicCodes, data: Data, states: np.ndarray,
               spread: np.ndarray, say: Log) -> Iterator[Law]:
    """Laws of all families of terms and sizes, the one with the least left-out misfit first, each as it is asked for.

    states (S, T, C, K) of the data, of variances spread (S, C, K).
    """
    channels, families = states.shape[2], families_of(domain, states.shape[2])
    terms = [term for family in families.values() for term in family]
    rows = np.linspace(0, len(states) - 1, min(len(states), _TRAJECTORIES)).astype(int)
    if data.systems.counts:  # all of them: systems may have few
        rows = np.arange(len(states))
    t, states, spread, systems = data.t[rows], states[rows], spread[rows], data.systems.take(rows)
    library = library_of(terms, codes.harmonics)
    known = shares_known(codes, spread)
    largest = largest_of(states)
    found: dict[tuple, tuple[float, Law]] = {}
    for cumulative in (False, True):
        each = normal_equations(library, t, states, spread, known, cumulative, len(rows))
        for names, count in itertools.product(_FAMILIES, (0, *systems.counts)):
            active = [terms.index(term) for name in names for term in families[name]]
            contexts = contexts_of(each, systems, active, count)
            equations = with_contexts(each, contexts[systems.number]).grouped(np.arange(len(rows)) % FOLDS)
            columns = [j + p * len(terms) for p in range(1 + count) for j in active]
            for supports, theta, std, misfit in supports_of(equations, columns, channels, (1 + count) * len(terms)):
                if (supports, count, cumulative) not in found:
                    theta, std = (a.reshape(1 + count, len(terms), channels) for a in (theta, std))
                    law = Law(domain, boundary, tuple(terms), theta[0], std[0], codes, largest=largest,
                              by_context=theta[1:], contexts=contexts)
                    found[supports, count, cumulative] = misfit, law
    least = min(misfit for misfit, law in found.values() if not law.count)
    paying = (pair for pair in found.values() if not pair[1].count or pair[0] < _PAYS * least)
    ordered = sorted(paying, key=lambda pair: pair[0])
    say(f"  {len(ordered)} candidates of {len(terms)} terms, misfits {ordered[0][0]:.2e} to {ordered[-1][0]:.2e}")
    ordered = [pair for i, pair in enumerate(ordered) if i < _JUDGED or pair[0] <= _CLOSE * ordered[0][0]]
    for _, law in ordered:
        if not well_posed(law, float((t[:, -1] - t[:, 0]).max())):
            continue
        integrated = integrable(law, t, states)
        if integrated is not None:
            yield integrated


def along_single_steps(domain: Domain, boundary: str, codes: HarmonicCodes, t: np.ndarray, states: np.ndarray,
                       spread: np.ndarray, deadline: float) -> Iterator[Iterator[Law]]:
    """For each family of terms, in turn, laws refined along single steps: of all its terms, and shorter ones."""
    families = families_of(domain, states.shape[2])
    terms = [term for family in families.values() for term in family]
    known = shares_known(codes, spread)
    equations = normal_equations(library_of(terms, codes.harmonics), t, states, spread, known, False)
    steps = Shooting.of(t, states, known >= _DETERMINED, deadline)
    largest = largest_of(states)

    def laws(active: list[int]) -> Iterator[Law]:
        theta, std = np.zeros((2, len(terms), states.shape[2]))
        for c in range(states.shape[2]):
            weights = equations.weights(c, active)
            theta[active, c] = equations.solve(c, active, weights, list(range(len(equations.gram))))[0]
        law = integrable(Law(domain, boundary, tuple(terms), theta, std, codes, largest=largest), t, states)
        if law is None:
            return
        whole, gram = steps.refined(law)
        for one in [whole, *steps.shorter(whole, gram)]:
            law = integrable(one, t, states)
            if law is not None:
                yield law if one is whole else steps.refined(law)[0]

    for names, order in itertools.product(_FAMILIES, (1, 2)):
        yield laws([terms.index(term) for name in names for term in families[name] if term.power <= order])


def integrable(law: Law, t: np.ndarray, states: np.ndarray) -> Law | None:
    """The law without terms that no channel has, with a step accurate at first codes of states (S, T, C, K) at t."""
    some = torch.tensor(states[:: max(len(states) // 4, 1), 0]).flatten(1)
    return stepped(pruned(law), some, float(np.diff(t, axis=1).max()))


def largest_of(states: np.ndarray) -> float:
    """Norm of the largest code of states (S, T, C, K)."""
    return float(np.linalg.norm(states.reshape(*states.shape[:2], -1), axis=-1).max())


def supports_of(equations: NormalEquations, active: list[int], channels: int, count: int
                ) -> list[tuple[tuple, np.ndarray, np.ndarray, float]]:
    """Supports, coefficients, standard errors (J, C) and misfits of laws of several sizes from some active terms."""
    paths, weights = [], []
    for c in range(channels):
        weights.append(equations.weights(c, active))
        paths.append(equations.eliminations(c, active, weights[c]))
    result, everything = [], list(range(len(equations.gram)))
    for level in _LEVELS:
        theta, std, chosen, misfit = np.zeros((count, channels)), np.zeros((count, channels)), [], 0.0
        for c, path in enumerate(paths):
            least, empty = min(value for _, value in path), path[-1][1]
            bound = least + min(level[0] * least, level[1] * (empty - least))
            support = [support for support, value in path if value <= bound][-1]
            solution, inverse = equations.solve(c, support, weights[c], everything)
            theta[support, c], std[support, c] = solution, np.sqrt(np.diag(inverse))
            chosen.append(tuple(sorted(support)))
            explained = equations.squares(c, support, solution, everything).sum()
            misfit += float(explained / equations.total[:, :, c].sum()) / channels
        result.append((tuple(chosen), theta, std, misfit))
    return result


def forecast_errors(law: Law, data: Data) -> np.ndarray:
    """Squared errors (S,) of forecasts from first frames, relative to variances, mean over channels; inf: diverged."""
    result, scale = np.full(len(data.u), np.inf), np.nanvar(data.u, (0, 1, 2)) + 1e-300
    for members, places in point_sets(data.x):
        z = law.encode(places, data.u[members][:, 0])
        _, label = np.unique(np.column_stack([data.systems.number, data.t])[members], axis=0, return_inverse=True)
        paths = z.new_zeros(len(z), data.t.shape[1], z.shape[1])
        for alike in (np.flatnonzero(label.ravel() == i) for i in range(label.max() + 1)):
            first = members[alike[0]]
            paths[alike] = law.rollout(z[alike], data.t[first], law.context_of(data.systems.number[first]))
        squares = np.nanmean((law.decode(paths, places) - data.u[members]) ** 2, (1, 2)) / scale
        bounded = torch.isfinite(paths).flatten(1).all(1).numpy()
        result[members] = np.where(bounded, squares.mean(1), np.inf)
    return result


def shares_known(codes: HarmonicCodes, spread: np.ndarray) -> np.ndarray:
    """Shares (C, K) of the variance of codes that points determine, of their variances (S, C, K).

    None of flows' higher modes, whose rates lack the transport by those that are left out.
    """
    known = 1 - spread.mean(0) / codes.variance
    if codes.harmonics.components > 1:
        known[:, int(_RESOLVED * codes.harmonics.count) :] = 0.0
    return known


def encode(codes: HarmonicCodes, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Codes (S, T, C, K) of trajectories and their variances (S, C, K)."""
    states = np.zeros((*data.u.shape[:2], *codes.variance.shape))
    spread = np.zeros((len(states), *states.shape[2:]))
    for members, places in point_sets(data.x):
        states[members], spread[members] = codes.encode(places, data.u[members])
    steady = states[..., states.shape[-1] - codes.harmonics.steady :]
    steady[:] = steady.mean(1, keepdims=True)
    return states, spread
