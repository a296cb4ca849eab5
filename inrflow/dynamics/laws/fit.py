"""fit_law: the search for a law of trajectories on a domain's harmonics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from inrflow.domains import NATURAL, Domain
from inrflow.dynamics.laws.codes import HarmonicCodes, fit_codes, held_out_errors, point_sets
from inrflow.dynamics.laws.field import Library
from inrflow.dynamics.laws.law import MOST_STEPS, Law
from inrflow.dynamics.laws.regression import NormalEquations, normal_equations
from inrflow.dynamics.laws.terms import Term, short_list
from inrflow.errors import UserError

_MOST = 400  # harmonics
_FEWER = 1.25  # codes on fewer harmonics are taken where they miss held-out points by at most so much more
_SHARE = 0.2  # of trajectories judge candidates
_LEVELS = (1.02, 1.15, 1.5, 3.0)  # supports: the smallest with a left-out misfit of so many times the least
_FAMILIES = (("linear", "products"), ("linear", "transport"), ("linear", "products", "transport"),
             ("linear", "products", "transport", "fluxes"))
_STEP_ERROR = 1e-5  # of the integrator in one interval, relative to the codes
_TRAJECTORIES = 32  # equations come from so many trajectories, at most

Log = Callable[[str], None]


@dataclass(frozen=True)
class Data:
    """Trajectories: times (S, T), points (S, N, d), fields (S, T, N, C)."""

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray

    def take(self, rows: np.ndarray) -> Data:
        """The trajectories of some indices."""
        return Data(self.t[rows], self.x[rows], self.u[rows])


def fit_law(t: np.ndarray, x: np.ndarray, u: np.ndarray, domain: Domain | Sequence[Domain], *, seconds: float = 60.0,
            boundary: str = NATURAL, seed: int = 0, log: Log | None = None) -> Law:
    """The law whose forecasts of held-out trajectories are best.

    t (T,) or (S, T); x (N, d) or (S, N, d); u (S, T, N, C), NaN where not observed; several domains: that whose
    harmonics fit best is taken. Raises UserError where no law forecasts at all.
    """
    start = time.process_time()
    say: Log = log or (lambda _: None)
    data = Data(np.broadcast_to(t, u.shape[:2]).astype(np.float64),
                np.broadcast_to(x, (len(u), *x.shape[-2:])).astype(np.float64), u.astype(np.float64))
    if u.shape[1] < 4 or len(u) < 2:
        raise UserError(f"{len(u)} trajectories of {u.shape[1]} frames are given; a law needs at least 2 of 4")
    domains = [domain] if isinstance(domain, Domain) else list(domain)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(u))
    judged = max(1, round(_SHARE * len(u)))
    train, judge = data.take(np.sort(order[judged:])), data.take(np.sort(order[:judged]))
    best: tuple[float, Law] | None = None
    for place, count in counts(domains, boundary, train, seed, say):
        codes = fit_codes(place.harmonics(count, boundary), train.x, train.u)
        say(f"{place.kind}: {codes.harmonics.count} harmonics, cpu {time.process_time() - start:.1f}")
        for law in candidates(place, boundary, codes, train, say):
            error = forecast_error(law, judge)
            say(f"  {error:.2e} with {np.count_nonzero(law.theta)} terms, cpu {time.process_time() - start:.1f}")
            if best is None or error < best[0]:
                best = error, law
            if time.process_time() - start > seconds:
                break
    if best is None or not math.isfinite(best[0]):
        raise UserError("no law forecasts the held-out trajectories; the data may not follow a local equation")
    return best[1]


def counts(domains: list[Domain], boundary: str, data: Data, seed: int, say: Log) -> list[tuple[Domain, int]]:
    """The domain and the number of harmonics that fit held-out points best, the fewer where it is close."""
    points = int(np.isfinite(data.u[0, 0, :, 0]).sum())
    sizes, size = [], min(_MOST, points)
    while size >= 8:
        sizes.append(size)
        size = int(size / 1.6)
    some = data.take(np.linspace(0, len(data.u) - 1, min(len(data.u), 6)).astype(int))
    errors = {(i, size): held_out_errors(place.harmonics(size, boundary), some.x, some.u, seed)
              for i, place in enumerate(domains) for size in sizes}
    least = min(errors.values())
    i, size = min((key for key in errors if errors[key] <= _FEWER * least), key=lambda key: key[1])
    say("held-out points: " + ", ".join(f"{key}: {error:.1e}" for key, error in errors.items()))
    return [(domains[i], size)]


def candidates(domain: Domain, boundary: str, codes: HarmonicCodes, data: Data, say: Log) -> list[Law]:
    """Laws of all families of terms and sizes, the one with the least left-out misfit first."""
    channels, dimensions = data.u.shape[-1], data.x.shape[-1]
    families = short_list(channels, dimensions, domain.kind == "sphere")
    terms = [term for family in families.values() for term in family]
    rows = np.linspace(0, len(data.u) - 1, min(len(data.u), _TRAJECTORIES)).astype(int)
    states = encode(codes, data.take(rows))
    library = Library(terms, codes.harmonics)
    largest = float(np.linalg.norm(states.reshape(*states.shape[:2], -1), axis=-1).max())
    found: dict[tuple, tuple[float, Law]] = {}
    for cumulative in (False, True):
        equations = normal_equations(library, data.t[rows], states, cumulative)
        for names in _FAMILIES:
            active = [terms.index(term) for name in names for term in families[name]]
            for supports, theta, std, misfit in supports_of(equations, active, channels, len(terms)):
                if supports not in found:
                    law = Law(domain, boundary, tuple(terms), theta, std, codes, largest=largest)
                    found[supports] = misfit, law
    ordered = sorted(found.values(), key=lambda pair: pair[0])
    say(f"  {len(ordered)} candidates of {len(terms)} terms, misfits {ordered[0][0]:.2e} to {ordered[-1][0]:.2e}")
    tests = torch.tensor(states[:: max(len(states) // 4, 1), 0]).flatten(1)
    laws = (stepped(pruned(law), tests, float(np.diff(data.t, axis=1).max())) for _, law in ordered)
    return [law for law in laws if law is not None]


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
            least = min(value for _, value in path)
            support, value = [pair for pair in path if pair[1] <= level * least][-1]
            solution, inverse = equations.solve(c, support, weights[c], everything)
            theta[support, c], std[support, c] = solution, np.sqrt(np.diag(inverse))
            chosen.append(tuple(sorted(support)))
            explained = equations.squares(c, support, solution, everything).sum()
            misfit += float(explained / equations.total[:, :, c].sum()) / channels
        result.append((tuple(chosen), theta, std, misfit))
    return result


def pruned(law: Law) -> Law:
    """The law without terms that no channel has."""
    keep = np.flatnonzero((law.theta != 0).any(1))
    return replace(law, terms=tuple(law.terms[j] for j in keep), theta=law.theta[keep], std=law.std[keep])


def stepped(law: Law, z: torch.Tensor, dt: float) -> Law | None:
    """The law with the longest step of its integrator that is accurate at codes z (B, C K); None: there is none."""
    field = law.field()
    if not np.isfinite(law.theta).all() or field.growth() * dt > 30:
        return None
    steps, before = 1, field.advance(z, dt, 1)
    while steps <= MOST_STEPS:
        steps *= 2
        after = field.advance(z, dt, steps)
        error = torch.linalg.vector_norm(after - before) / torch.linalg.vector_norm(after)
        if bool(error < _STEP_ERROR):
            return replace(law, longest=dt / steps)
        before = after
    return None


def forecast_error(law: Law, data: Data) -> float:
    """Mean over channels of squared errors of forecasts from the first frame, relative to the variance; inf: diverges."""
    squares, count = np.zeros(data.u.shape[-1]), np.zeros(data.u.shape[-1])
    for members, places in point_sets(data.x):
        z = law.encode(places, data.u[members][:, 0])
        paths = (law.rollout(z, data.t[members[0]]) if (data.t[members] == data.t[members[0]]).all() else
                 torch.cat([law.rollout(z[i : i + 1], data.t[m]) for i, m in enumerate(members)]))
        if not torch.isfinite(paths).all():
            return math.inf
        errors = (law.decode(paths, places) - data.u[members]) ** 2
        squares, count = squares + np.nansum(errors, (0, 1, 2)), count + np.isfinite(errors).sum((0, 1, 2))
    return float((squares / count / (np.nanvar(data.u, (0, 1, 2)) + 1e-300)).mean())


def encode(codes: HarmonicCodes, data: Data) -> np.ndarray:
    """Codes (S, T, C, K) of trajectories."""
    states = np.zeros((*data.u.shape[:2], data.u.shape[-1], codes.harmonics.count))
    for members, places in point_sets(data.x):
        states[members] = codes.encode(places, data.u[members])[0]
    return states
