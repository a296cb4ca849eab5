"""fit_network_law: laws with a pointwise network of sines beside a few terms, its output layer solved.

The hidden layer is random (Rahimi & Recht 2007), scaled to the data, so that a network is a number of further columns
of the normal equations that terms of laws have; a ridge, chosen by trajectories that are left out, keeps it smooth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch

from inrflow.domains import Domain
from inrflow.domains.box import PERIODIC
from inrflow.dynamics.laws.codes import HarmonicCodes, fit_codes
from inrflow.dynamics.laws.contexts import Systems, contexts_of, standard, with_contexts
from inrflow.dynamics.laws.fit import integrable, largest_of, worse
from inrflow.dynamics.laws.flow import library_of
from inrflow.dynamics.laws.law import Law, pruned, well_posed
from inrflow.dynamics.laws.network.layer import Layer
from inrflow.dynamics.laws.network.sine import (
    DIFFUSION,
    FLUX,
    LAPLACIAN,
    NONLOCAL,
    RATE,
    SLOPE,
    SMOOTHED,
    STEEPNESS,
    TRANSPORT,
    VALUE,
    Form,
    Local,
    Sine,
)
from inrflow.dynamics.laws.refine import Refinement
from inrflow.dynamics.laws.regression import FOLDS, NODES, NormalEquations, normal_equations
from inrflow.dynamics.laws.setting import Data, Log, choose, encode, families_of, forecast_errors, shares_known, windows
from inrflow.dynamics.laws.shooting import flights
from inrflow.dynamics.laws.terms import Term
from inrflow.dynamics.laws.transform import transform_of
from inrflow.errors import UserError
from inrflow.numerics.effort import OutOfTime, effort

_UNITS = 64
_SPAN = (0.25, 1.5)
_ROWS = 100  # harmonics that give equations
_SCALES = (0.5, 1.0, 2.0)
_RIDGES = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)


@dataclass(frozen=True)
class Architecture:
    """What a network sees, what is made of it, number of units, and deviation of weights of features in units of their
    own deviations."""

    inputs: tuple[Local, ...]
    forms: tuple[Form, ...]
    units: int
    scale: float

    def sines(self, mean: np.ndarray, deviation: np.ndarray, seed: int) -> list[Sine]:
        """The hidden units of random weights; mean, deviation (I,): of the features."""
        generator = np.random.default_rng(seed)
        scale = self.scale if self.scale > 0 else np.exp(generator.uniform(*np.log(_SPAN), (self.units, 1)))
        weights = scale * generator.standard_normal((self.units, len(self.inputs))) / deviation
        phases = generator.uniform(0, 2 * np.pi, self.units) - weights @ mean
        return [Sine(self.inputs, tuple(w.tolist()), float(b), form) for form in self.forms
                for w, b in zip(weights, phases, strict=True)]


def moments(inputs: Sequence[Local], codes: HarmonicCodes, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations (I,) of features of states (S, T, C, K)."""
    transform = transform_of(codes.harmonics, 2)
    layer = Layer([Sine(tuple(inputs), (1.0,) * len(inputs), 0.0)], transform, torch.tensor(codes.harmonics.eigenvalues))
    flat = states.reshape(-1, *states.shape[2:])
    seen = layer.seen(torch.tensor(flat[:: max(len(flat) // 64, 1)]))
    return seen.mean((0, 2)).numpy(), seen.std((0, 2)).numpy() + 1e-12


@dataclass(frozen=True)
class Ground:
    """What laws are fitted on: codes of training and held-out trajectories, and a short law, if any was found.

    states (S, T, C, K), spread (S, C, K): codes of `train` and their variances.
    """

    domain: Domain
    boundary: str
    codes: HarmonicCodes
    train: Data
    judge: Data
    states: np.ndarray
    spread: np.ndarray
    short: Law | None

    @property
    def known(self) -> np.ndarray:
        """Shares (C, K) of codes that points determine."""
        return shares_known(self.codes, self.spread)

    def terms(self, units: Sequence[float] | None) -> list[Term]:
        """Terms that may stand beside a network: linear ones, transport, and those of the short law that are no
        products of values."""
        families = families_of(self.domain, self.codes.harmonics, self.states, units).terms
        few = [term for name in ("linear", "transport", "flow") for term in families.get(name, ())]
        few += [term for term in (self.short.terms if self.short else ()) if isinstance(term, Term)]
        used = {term for term in (self.short.terms if self.short else ())}
        few = [term for term in few if term.power < 2 or term in used]
        return [term for term in dict.fromkeys(few) if len(term.products) > 1 or term.power or term.varies
                or len(term.products[0]) < 2 or any(axis >= 0 for _, axis in term.products[0])]


def solved(ground: Ground, terms: Sequence[Term], sines: Sequence[Sine], paths: torch.Tensor | None = None) -> Iterator[tuple[float, Law]]:
    """Laws of terms and a network, and their left-out misfits: with all of the terms, then with those that matter."""
    channels, every = ground.states.shape[2], [*terms, *sines]
    library, systems = library_of(every, ground.codes.harmonics), ground.train.systems
    each = normal_equations(library, ground.train.t, ground.states, ground.spread, ground.known, False,
                            len(ground.states), _ROWS, paths)
    contexts = np.zeros((systems.total, 0))
    if systems.counts:
        count = max(systems.counts)
        contexts = ground.short.contexts if ground.short is not None and ground.short.count else contexts_of(
            each, systems, list(range(len(terms))), count)
    several = 1 + contexts.shape[1]
    equations = with_contexts(each, contexts[systems.number]).grouped(np.arange(len(ground.states)) % FOLDS)
    beside = [j + p * len(every) for p in range(several) for j in range(len(terms))]
    network = [j + p * len(every) for p in range(several) for j in range(len(terms), len(every))]
    found: list[list[tuple[list[int], np.ndarray, np.ndarray, float]]] = [[]]
    for c in range(channels):
        for result, one in zip(found, _of_channel(equations, c, beside, network), strict=True):
            result.append(one)
    for parts in found:
        theta, std = np.zeros((2, several * len(every), channels))
        for c, (active, values, errors, _) in enumerate(parts):
            theta[active, c], std[active, c] = values, errors
        theta, std = (a.reshape(several, len(every), channels) for a in (theta, std))
        law = Law(ground.domain, ground.boundary, tuple(every), theta[0], std[0], ground.codes,
                  largest=largest_of(ground.states), by_context=theta[1:], contexts=contexts)
        yield float(np.mean([misfit for *_, misfit in parts])), law


def _ridged(equations: NormalEquations, network: list[int], ridge: float) -> NormalEquations:
    vector = np.full(equations.gram.shape[-1], 1e-13)
    vector[network] = ridge
    return replace(equations, ridge=vector)


def _of_channel(equations: NormalEquations, c: int, beside: list[int], network: list[int]
                ) -> list[tuple[list[int], np.ndarray, np.ndarray, float]]:
    """Active terms, coefficients, standard errors and misfit of a channel: with all terms, and with few."""
    whole = [*beside, *network]
    weights = _ridged(equations, network, 1e-8).weights(c, whole)
    ridged = [_ridged(equations, network, ridge) for ridge in _RIDGES]
    misfits = [one.misfit(c, whole, weights) for one in ridged]
    best = ridged[int(np.argmin(misfits))]
    folds = list(range(len(best.gram)))

    def of(active: list[int], misfit: float) -> tuple[list[int], np.ndarray, np.ndarray, float]:
        values, inverse = best.solve(c, active, weights, folds)
        squares = best.squares(c, active, values, folds).sum()
        return active, values, np.sqrt(np.maximum(np.diag(inverse), 0.0)), float(
            squares / best.total[:, :, c].sum()) if misfit is None else misfit

    least, kept, path = min(misfits), list(beside), []
    while kept:
        path.append((list(kept), best.misfit(c, [*kept, *network], weights)))
        values, inverse = best.solve(c, [*kept, *network], weights, folds)
        cost = values[: len(kept)] ** 2 / np.maximum(np.diag(inverse)[: len(kept)], 1e-300)
        kept.pop(int(cost.argmin()))
    path.append(([], best.misfit(c, network, weights)))
    least = min(misfit for _, misfit in path)
    few, misfit = [(kept, misfit) for kept, misfit in path if misfit <= 1.02 * least][-1]
    few, misfit = few, misfit
    return [of([*few, *network], misfit)]


def own_paths(law: Law, t: np.ndarray, states: np.ndarray, systems: Systems) -> torch.Tensor | None:
    """Codes (S, T - 1, N, C, K) at Gauss points of the intervals between frames of states (S, T, C, K), along the law's
    own flow from the first frame; what it misses at the second is spread over the interval. None where it diverges."""
    gaps, result = np.diff(t, axis=1), np.zeros((len(t), t.shape[1] - 1, len(NODES), *states.shape[2:]))
    for system in np.unique(systems.number):
        for gap in np.unique(gaps):
            at = np.nonzero((gaps == gap) & (systems.number == system)[:, None])
            now, after = (torch.tensor(states[at[0], at[1] + ahead]).flatten(1) for ahead in (0, 1))
            path = []
            for length in np.diff([0.0, *NODES, 1.0]):
                now = law.step(now, float(gap * length), law.context_of(system))
                path.append(now)
            missed = after - path.pop()
            result[at] = torch.stack([one + node * missed for one, node in zip(path, NODES, strict=True)], 1).reshape(
                len(now), len(NODES), *states.shape[2:]).numpy()
    return torch.tensor(result) if np.isfinite(result).all() else None
