"""Model selection for linear dynamics: number of codes, memory and ridge.

Every candidate is the map of a step or, for unequal steps, a linear field, fitted by least squares and scored by
rollouts of held-out trajectories or, for a single trajectory, of frames left out of it. Since these do not show whether
forecasts stay bounded, candidates of a single trajectory are checked for that too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache

import torch
from torch import Tensor

from inrflow.dynamics.fields.step_map import StepMapTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.folds import Fold, folds_of
from inrflow.dynamics.fitting.linear import LinearFit, affine_rollout, fit_irregular, transitions_of
from inrflow.dynamics.fitting.step_maps import step_maps
from inrflow.dynamics.states import SeasonalMean, around, memory_directions, past_frames, with_memory
from inrflow.encoding.encode import CodeData
from inrflow.numerics.effort import effort, seconds_of
from inrflow.numerics.matrix_functions import SHORTEST, flow, generator_of
from inrflow.numerics.ridge import ridge_grid

RIDGES = (1e-15, 1e-13, *ridge_grid(-12, -2), 1e-1, 1.0)
_CLEARLY_BETTER = 0.98
_FINALISTS = 12
_FEW, _PARTS = 20, 5  # held-out trajectories below which others are left out too; parts left out in turn
_SCREEN, _SCREENED = 4, 6  # stride over many folds in screening; inverse share of candidates kept
_ALIKE, _ALIKE_IN_NOISE = 1.5, 1.2  # tolerance of the least error, for a single trajectory
_NOISY, _MEMORY_PAYS = 0.1, 0.5  # relative error of noisy forecasts; error ratio by which memory pays
_WEAKEST_APART = 1e-10  # weaker ridges change nothing for unequal steps
_SOLVE, _IRREGULAR, _FEWEST_RIDGES = 2, 20, 4  # products of a solve, times n^3; solves for unequal steps
_IRREGULAR_CALLS = 1500, 40  # tensor operations of such a fit, and of a step of its forecasts
_DETERMINED = 1e-2  # relative error below which dynamics count as well determined
_BEYOND = 1.5  # margin of bounded forecasts, relative to the range of the data and its growth


@dataclass(frozen=True)
class Candidate:
    """size: codes; memory: delay coordinates; ridge: towards the mean or, for unequal steps, towards zero rates."""

    size: int
    memory: int
    ridge: float

    @property
    def past(self) -> int:
        """Number of past frames that the memory uses."""
        return past_frames(self.size, self.memory)


@dataclass
class ClosedForm:
    """Linear dynamics of states [codes, memory], and their validation error.

    Attributes:
        candidate: the chosen hyperparameters.
        directions: (size, memory) of the memory; None without memory.
        field: float64: the map of a step if steps are equal, else ds/dt = A s + b + forcing(t).
        score: validation error, relative to the variance of the codes.
        scores: of all candidates tried.
        back: ridge of the map of a backward step, if steps are equal.
    """

    candidate: Candidate
    directions: Tensor | None
    field: VectorField
    score: float
    scores: dict[Candidate, float] = field(default_factory=dict)
    back: float = 0.0

    @property
    def steps(self) -> StepMapTerm | None:
        """The maps of a step, None if steps are unequal."""
        return self.field.get(StepMapTerm)

    @property
    def least(self) -> float:
        """The least error of all candidates, by which searches are compared; the chosen one may have more."""
        return min(self.scores.values(), default=self.score)


class ClosedFormSearch:
    """Fitting and validation of candidates.

    Args:
        training: codes of the training trajectories and of their symmetry copies.
        validation: codes of held-out trajectories; None to use frames left out of `training`, whose first `originals`
            trajectories are no copies.
        period, harmonics: of an external forcing, period 0 for none.
        originals: see `validation`.
        window: number of observed frames before a forecast of a validation trajectory begins.
        floor: error of the decoder itself, relative to the variance; it is added to all errors compared.
        seconds: budget of effort for `search`: ridges, then sizes are thinned until all candidates fit.
    """

    def __init__(
        self, training: CodeData, validation: CodeData | None, period: float = 0.0, harmonics: int = 2,
        originals: int = 1, window: int = 1, floor: float = 0.0, seconds: float = math.inf
    ) -> None:
        self.training, self.period, self.harmonics, self.floor = training, period, harmonics, floor
        self.originals, self.seconds, self.window = originals, seconds, window
        self.left_out = validation is None
        self.folds = folds_of(training, originals, self.uniform) if validation is None else []
        self.folds = self.folds or [Fold(training, training if validation is None else validation, window - 1)]
        self._prepared = lru_cache(1 + len(self.folds))(self._prepare)  # of one size with memory at a time

    def step_model(self, fold: int, candidate: Candidate
                   ) -> tuple[Tensor, SeasonalMean, Tensor | None, float | None, LinearFit]:
        """Affine map of a step (uniform data) or generator (otherwise) of the anomalies, their mean, the directions of
        memory, the step (None if steps differ) and the fit; from the training data of a fold or, for fold -1, all
        training codes."""
        size = candidate.size if candidate.memory else self.training.codes.shape[-1]  # whose leading blocks are smaller
        fit, mean, directions = self._prepared(fold, size, candidate.memory)
        n, pairs = candidate.size + candidate.memory, fit.transitions
        mean = SeasonalMean(mean.coefficients[:, :n], mean.period)
        if pairs.uniform:
            return fit.step_map(n, candidate.ridge), mean, directions, float(pairs.step.median()), fit
        return _affine(*fit_irregular(pairs.truncated(n), candidate.ridge)), mean, directions, None, fit

    def _prepare(self, fold: int, size: int, memory: int) -> tuple[LinearFit, SeasonalMean, Tensor | None]:
        """Normal equations of the anomalies of a fold, their mean and the directions of memory."""
        data = self.folds[fold].training if fold >= 0 else self.training
        directions = memory_directions(data, size, memory) if memory else None
        states = with_memory(data, size, directions)
        mean = SeasonalMean.fit(states, self.period, self.harmonics)
        return LinearFit(transitions_of(around(states, mean))), mean, directions

    def score(self, candidate: Candidate, every: int = 1) -> float:
        """Mean squared error of rollouts relative to the variance of all codes; codes beyond the size count as errors.

        Geometric mean over folds, so that one that is hard to forecast for any candidate does not dominate. With frames
        left out of a single trajectory, candidates with unbounded forecasts score infinity.

        `every`: stride over the folds.
        """
        effort.add(*self._cost(candidate, every))
        fewest = min(self.training.codes.shape[1] - 1, *(fold.training.codes.shape[1] for fold in self.folds))
        if candidate.memory and fewest < 3:  # memory starts at the second frame: no transitions
            return float("inf")
        numbers = range(0, len(self.folds), every)
        variance = sum(self.folds[number].training.variance / len(numbers) for number in numbers)
        errors = [total / count for total, count in (self._error(number, candidate) for number in numbers) if count]
        if not errors:
            return float("inf")
        relative = torch.tensor(errors, dtype=torch.float64) / max(variance, 1e-300)
        value = float(relative.clamp(min=1e-30).log().mean().exp())
        if self.left_out and not self._bounded(candidate, value < _DETERMINED):
            return float("inf")
        return value if value == value else float("inf")

    def _cost(self, candidate: Candidate, every: int) -> tuple[float, float, float]:
        """Numbers of products, element operations and calls of a score."""
        n, folds = candidate.size + candidate.memory + 1, len(self.folds[::every]) + self.left_out
        states, frames = self.folds[0].validation.observed.shape
        solves, fit, step = (1, 30, 8) if self.uniform else (_IRREGULAR, *_IRREGULAR_CALLS)
        return (folds * (_SOLVE * solves * n**3 + states * frames * n**2), folds * 4.0 * states * frames * n,
                folds * float(fit + step * frames))

    def _affordable(self, sizes: Sequence[int], memories: Sequence[float], ridges: Sequence[float]
                    ) -> tuple[list[int], list[float]]:
        """Sizes and ridges within the budget: every second ridge, then every second size is dropped."""
        sizes, ridges = sorted(set(sizes)), sorted(ridges)
        every = _SCREEN if len(self.folds) >= 2 * _SCREEN else 1

        def seconds() -> float:
            grid = self.grid(sizes, memories, ridges[:1])
            screened = sum(seconds_of(*self._cost(c, every)) for c in grid) * len(ridges)
            number = len(grid) * len(ridges)
            return screened if every == 1 else screened * (1 + every * _kept(number) / number)

        while seconds() > self.seconds and (len(ridges) > _FEWEST_RIDGES or len(sizes) > 1):
            ridges, sizes = (ridges[::2], sizes) if len(ridges) > _FEWEST_RIDGES else (ridges, sizes[1::2])
        return sizes, ridges

    def _error(self, number: int, candidate: Candidate) -> tuple[float, int]:
        """Sum of squared errors of the forecasts of a fold, and number of the frames that count."""
        fold = self.folds[number]
        model, mean, directions, unit, _ = self.step_model(number, candidate)
        first = max(fold.first, candidate.past)
        states = around(with_memory(fold.validation, candidate.size, directions), mean).since(first)

        @cache
        def generator() -> Tensor:
            return model if unit is None else _affine(*generator_of(model, unit, SHORTEST))

        forecast, seen = affine_rollout(states, unit, model, lambda begun, times: flow(generator(), begun, times))
        forecast = forecast + mean(states.t[:, 1:].nan_to_num())
        error = fold.validation.codes[:, first + 1 :].clone()
        error[..., : candidate.size] -= forecast[..., : candidate.size]
        return float(error[seen].square().sum()), int(seen.sum())

    def _bounded(self, candidate: Candidate, determined: bool) -> bool:
        """Whether forecasts from the last frames, over half the training time, stay near the range of the data.

        The range is widened by a margin and by the growth of the trajectories since their first half. determined: bound
        the growth of all modes instead, since well-determined forecasts may leave the range (as waves that are partly
        observed)."""
        model, mean, directions, unit, _ = self.step_model(-1, candidate)
        original = self.training.first(self.originals)
        states = around(with_memory(original, candidate.size, directions), mean)
        size = states.codes[..., : candidate.size].norm(dim=-1) * states.observed
        half = size.shape[1] // 2
        largest, early = float(size.max()), float(size[:, :half].max()) if half else 0.0
        limit = _BEYOND * largest * max(1.0, largest / early if early else 1.0)
        if unit is None:
            steps = original.t[:, 1:] - original.t[:, :-1]
            model = torch.linalg.matrix_exp(model * float(steps[steps.isfinite()].median()))
        if determined:
            return bool(torch.linalg.eigvals(model).abs().max() ** half * largest <= limit)
        frames = torch.arange(size.shape[1]).expand_as(size)
        last = torch.where(states.observed, frames, 0).amax(1)
        rows = states.observed.any(1).nonzero()[:, 0]
        anomaly = torch.nn.functional.pad(states.codes[rows, last[rows]], (1, 0), value=1.0)
        for _ in range(half):
            anomaly = anomaly @ model.T
            if not bool((anomaly[:, 1 : candidate.size + 1].norm(dim=1) <= limit).all()):
                return False
        return True

    @cached_property
    def uniform(self) -> bool:
        """Whether all steps between observed training frames are equal."""
        return transitions_of(self.training).uniform

    def grid(self, sizes: Sequence[int], memories: Sequence[float], ridges: Sequence[float]) -> list[Candidate]:
        """Candidates of every size, memory (as a share of the size) and ridge."""
        every = itertools.product(memories, sizes, ridges)
        return [Candidate(size, round(share * size), ridge) for share, size, ridge in every]

    def search(
        self, sizes: Sequence[int], memories: Sequence[float] = (0.0,), ridges: Sequence[float] = RIDGES
    ) -> ClosedForm:
        """The chosen candidate, fitted to all training codes.

        Args:
            sizes: numbers of codes to try; memories: memory dimensions to try, as shares of the size.
        """
        if not self.uniform and max(ridges) > _WEAKEST_APART:  # each fit integrates all transitions
            ridges = [ridge for ridge in ridges if ridge >= _WEAKEST_APART]
        sizes, ridges = self._affordable(sizes, memories, ridges)
        candidates = self._screened(self.grid(sizes, memories, ridges))
        scores = {c: self.score(c) for c in sorted(candidates, key=lambda c: (c.memory, c.size))}
        return self.fit(self._most_codes(scores) if self.left_out else self._simplest(self._judged(scores)), scores)

    def _judged(self, scores: dict[Candidate, float]) -> dict[Candidate, float]:
        """Scores; if few trajectories are held out and none are copies, the best ones are averaged geometrically with
        five-fold cross-validation scores, since weak ridges forecast some trajectories well and others not at all."""
        held = self.folds[0].validation
        if len(held.codes) >= _FEW or len(self.training.codes) > self.originals:
            return scores
        every = CodeData.join([self.training, held])
        if len(every.codes) < 2 * _PARTS:
            return scores
        part = torch.arange(len(every.codes)) % _PARTS
        searches = [ClosedFormSearch(every.at(part != k), every.at(part == k), self.period, self.harmonics,
                                     window=self.window) for k in range(_PARTS)]
        best = sorted(scores, key=lambda c: scores[c])[:_FINALISTS]
        return {c: math.sqrt(scores[c] * sum(s.score(c) for s in searches) / _PARTS) for c in best}

    def _simplest(self, scores: dict[Candidate, float]) -> Candidate:
        """The candidate with the fewest dimensions, then the strongest ridge, among those within a tolerance of the
        best."""
        limit = (min(scores.values()) + self.floor) / _CLEARLY_BETTER
        alike = [c for c in scores if scores[c] + self.floor <= limit]
        return min(alike or scores, key=lambda c: (c.memory, c.size, -c.ridge))

    def _most_codes(self, scores: dict[Candidate, float]) -> Candidate:
        """The candidate with most codes among those about as good as the best, with memory only if it pays.

        All transitions of a single trajectory determine more codes than those of a fold, the ridge shrinks what they do
        not determine, and truncation errors grow along a forecast. If forecasts are poor for any size, noise does more
        harm than truncation: then the fewest codes are taken, with the strongest ridge among equally good ones. Memory
        requires several observed frames before every forecast.
        """
        best = min(scores, key=lambda c: scores[c])
        alone = min((c for c in scores if not c.memory), key=lambda c: scores[c], default=best)
        if _MEMORY_PAYS * (scores[alone] + self.floor) <= scores[best] + self.floor:
            best = alone
        noisy = scores[best] > _NOISY
        limit = (_ALIKE_IN_NOISE if noisy else _ALIKE) * (scores[best] + self.floor)
        alike = [c for c in scores if bool(c.memory) == bool(best.memory) and scores[c] + self.floor <= limit]
        chosen = min(alike or [best], key=lambda c: (c.size if noisy else -c.size, c.memory, scores[c]))
        if not noisy:
            return chosen
        equals = [c for c in alike if (c.size, c.memory) == (chosen.size, chosen.memory)]
        equals = [c for c in equals if _CLEARLY_BETTER * (scores[c] + self.floor) <= scores[chosen] + self.floor]
        return max(equals or [chosen], key=lambda c: c.ridge)

    def _screened(self, candidates: list[Candidate]) -> list[Candidate]:
        """All candidates or, with many folds, the best by a subset of folds and the best of each size."""
        if len(self.folds) < 2 * _SCREEN:
            return candidates
        scores = {c: self.score(c, every=_SCREEN) for c in candidates}
        ranked = sorted(candidates, key=lambda c: scores[c])
        best = {(c.size, c.memory > 0): c for c in reversed(ranked)}  # the best of each
        return list(dict.fromkeys([*ranked[: _kept(len(ranked))], *best.values()]))

    def fit(
        self, candidate: Candidate, scores: dict[Candidate, float] | None = None, data: CodeData | None = None,
        like: ClosedForm | None = None,
    ) -> ClosedForm:
        """The field of one candidate from all training codes or `data`; `like`: a fit whose backward ridge is kept."""
        if data is not None:
            self.training = data
            self._prepared.cache_clear()
        model, mean, directions, unit, fit = self.step_model(-1, candidate)
        size, back = len(model) - 1, 0.0
        if unit is not None:
            states, before = None, None if like is None or like.steps is None else (like.steps, like.back)
            if before is None:  # choose the ridge of the map back
                held = self.training.first(self.originals) if self.left_out else self.folds[0].validation
                states = around(with_memory(held, candidate.size, directions), mean).since(candidate.past)
            term, back = step_maps(fit, model, mean, states, before)
            field = VectorField(size, [term])
        else:
            field = VectorField.of(size, forcing_period=self.period, forcing_harmonics=self.harmonics).double()
            bias, forcing = mean.forcing(model[1:, 1:])
            field.set_linear(model[1:, 1:], model[1:, 0] + bias, forcing)
        score = scores[candidate] if scores else float("nan")
        return ClosedForm(candidate, directions, field, score, scores or {}, back)


def _kept(candidates: int) -> int:
    """Number of candidates that remain after screening."""
    return min(candidates, max(3 * _FINALISTS, candidates // _SCREENED))


def _affine(matrix: Tensor, bias: Tensor) -> Tensor:
    """Generator (n + 1, n + 1) on [1, s] of ds/dt = matrix s + bias."""
    return torch.nn.functional.pad(torch.cat([bias[:, None], matrix], 1), (0, 0, 1, 0))
