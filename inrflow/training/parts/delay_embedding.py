"""Hidden memory where single frames do not tell what comes next, judged on held-out trajectories from short windows.

Systems whose frame is not their state (a wave whose velocity is not seen) leave memory-free dynamics an error far
above the decoder's own. There the recent past is added to the state, and what that gains is measured fairly: all
dynamics, those without memory too, forecast held-out trajectories from the end of the same window of frames. Memory
has to gain much, for it asks the user for several frames before a forecast.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear_search import Candidate, ClosedForm, ClosedFormSearch
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.quadratic import QuadraticFit, QuadraticForm
from inrflow.dynamics.states import CodeData, frames_needed, with_memory
from inrflow.training.judge import DETERMINED, LINEAR_SUFFICES, rollout_error
from inrflow.training.parts.quadratic import QuadraticStage
from inrflow.training.problem import GOOD_ENOUGH, TrainingSetup
from inrflow.training.recipes.reduced_order import ChosenDynamics
from inrflow.training.recorder import Interrupted

MUCH_BETTER = 0.2  # times the error without memory
_PAYS = 0.5  # times the error, for a further order of memory or products
_CLEARLY = 0.98  # times the error, for more codes
_LONGEST = 3  # frames that memory looks back on, with a rate of every code for each
_RIDGES = (1e-15, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0)
_SIZES, _LARGEST_STATE = 4, 512
_FINALISTS = 3  # of each size, judged in continuous time
# Where steps are unequal every fit follows the flow of every transition, and rates of rates are too crude for states.
_UNEQUAL_RIDGES, _UNEQUAL_STATE, _UNEQUAL_TRANSITIONS = (1e-10, 1e-6, 1e-2), 256, 2048
_QUADRATIC_SIZES, _QUADRATIC_STATE, _QUADRATIC_STEP = 2, 200, 0.5


def choose_memory(setup: TrainingSetup, chosen: ChosenDynamics, sizes: list[int]) -> ChosenDynamics:
    """The dynamics chosen without memory, or some with memory where these forecast far better.

    Tried where the configuration leaves memory open, there are held-out trajectories to judge by, and the dynamics
    chosen so far leave clearly more than the decoder does. `sizes`: numbers of codes to try.
    """
    settings, floor = setup.config.dynamics, chosen.search.floor
    orders = longest_memory(setup.source.times.shape[1])
    if (
        settings.memory is not None or not settings.linear or chosen.held is None or not orders
        or setup.source.time_bins is not None or not chosen.score > max(LINEAR_SUFFICES * floor, GOOD_ENOUGH)
    ):
        return chosen
    uniform = chosen.search.uniform
    orders = orders if uniform else 1
    trial = _Trial(setup, chosen, chosen.codes, frames_needed(1, orders))
    trial = trial if uniform else trial.shortened()
    free = trial.memory_free()
    if not np.isfinite(free):
        return chosen
    best: ClosedForm | None = None
    for order in range(1, orders + 1):
        found = trial.best_linear(sizes, order)
        if found is not None and (best is None or found.score + floor < _PAYS * (best.score + floor)):
            best = found
        if best is not None and best.score < max(floor, GOOD_ENOUGH):
            break
    if best is None:
        return chosen
    result = replace(chosen, search=trial.search(), fit=best, quadratic=None)
    if settings.products and best.score < _PAYS * free and best.score > max(LINEAR_SUFFICES * floor, GOOD_ENOUGH):
        found_quadratic = trial.best_quadratic(best, sizes, settings.products)
        if found_quadratic is not None and found_quadratic.score < _PAYS * best.score:
            result = found_quadratic.replacing(result)
    setup.recorder.log("memory", 0, validation=result.score, memory_free=free, code_size=result.size,
                       memory=result.memory)
    if result.score > MUCH_BETTER * free:
        return chosen
    needed = frames_needed(result.size, result.memory)
    setup.recorder.say(
        f"single frames do not tell what comes next: {result.memory} memory dimensions beside {result.size} codes"
        f"{'' if result.quadratic is None else ', with products'} lower the validation error of forecasts from "
        f"{trial.window} frames from {free:.2e} to {result.score:.2e} of the variance; forecasts need at least "
        f"{needed} observed frames (observe.frames={needed})"
    )
    return result


def longest_memory(frames: int) -> int:
    """Frames that memory may look back on so that half of a trajectory is still forecast from the window it needs; 0
    where the trajectories are too short for any."""
    return max((k for k in range(1, _LONGEST + 1) if frames - frames_needed(1, k) >= max(2, frames // 2)),
               default=0)


@dataclass(frozen=True)
class _WithProducts:
    """Quadratic dynamics of states [codes, memory], the linear candidate whose states these are, and the error."""

    form: QuadraticForm
    states_of: ClosedForm

    @property
    def score(self) -> float:
        return self.form.score

    def replacing(self, chosen: ChosenDynamics) -> ChosenDynamics:
        """These dynamics in place of the linear ones that were chosen."""
        return replace(chosen, fit=self.states_of, quadratic=self.form)


@dataclass(frozen=True)
class _Trial:
    """Candidates judged on held-out trajectories from the last of `window` frames on."""

    setup: TrainingSetup
    chosen: ChosenDynamics
    taught: CodeData
    window: int
    ridges: tuple[float, ...] = _RIDGES
    largest: int = _LARGEST_STATE

    def shortened(self) -> _Trial:
        """The trial on fewer trajectories (originals come first), with fewer and smaller candidates."""
        count = max(1, _UNEQUAL_TRANSITIONS // self.taught.codes.shape[1])
        return replace(self, taught=self.taught.first(count), ridges=_UNEQUAL_RIDGES, largest=_UNEQUAL_STATE)

    @property
    def held(self) -> CodeData:
        assert self.chosen.held is not None
        return self.chosen.held

    def search(self) -> ClosedFormSearch:
        """A search that judges from the window; one for each size, for it holds on to all states it has seen."""
        before = self.chosen.search
        return ClosedFormSearch(
            self.taught, self.held, before.period, before.harmonics, window=self.window, floor=before.floor
        )

    def memory_free(self) -> float:
        """Error of the best dynamics without memory among all that were finalists or chosen before."""
        search, quadratic = self.search(), self.chosen.quadratic
        scores = self.chosen.fit.scores
        tried = {self.chosen.fit.candidate, *sorted(scores, key=lambda c: scores[c])[:_FINALISTS * len(self.ridges)]}
        errors = [search.score(c, continuous=True) for c in tried]
        if quadratic is not None:
            stage = QuadraticStage(self.chosen.codes, self.held, self.window - 1, self.setup.recorder)
            errors.append(stage.error(quadratic.field()))
        return min(errors)

    def best_linear(self, sizes: list[int], order: int) -> ClosedForm | None:
        """The best linear dynamics with memory of this order; None where there is no size that the data determine."""
        best: tuple[Candidate, float] | None = None
        floor = self.chosen.search.floor
        for size in self._possible(sizes, order, self.largest, _SIZES):
            search = self.search()
            grid = [Candidate(size, order * size, ridge, pull) for ridge in self.ridges for pull in search.pulls]
            found = search.finals(grid, _FINALISTS)
            if self.setup.recorder.stopping:
                raise Interrupted
            candidate = min(found, key=lambda c: found[c])
            if best is None or found[candidate] + floor < _CLEARLY * (best[1] + floor):
                best = candidate, found[candidate]
        return None if best is None else self.search().fit(best[0], {best[0]: best[1]})

    def best_quadratic(self, linear: ClosedForm, sizes: list[int], count: int) -> _WithProducts | None:
        """The best dynamics with products of states whose memory is as long as that of the linear ones."""
        order = linear.candidate.past
        best: _WithProducts | None = None
        for size in self._possible(sizes, order, _QUADRATIC_STATE, _QUADRATIC_SIZES):
            candidate = replace(linear.candidate, size=size, memory=order * size)
            states_of = self.search().fit(candidate)
            states = with_memory(self.taught, size, states_of.directions)
            judged = with_memory(self.held, size, states_of.directions)

            def error(field: VectorField, judged: CodeData = judged, size: int = size) -> float:
                return rollout_error(
                    field, Integrator(step=_QUADRATIC_STEP), judged, self.held, self.window - 1, size
                )

            form = QuadraticFit(states, count).search(error)
            if self.setup.recorder.stopping:
                raise Interrupted
            if form is not None and (best is None or form.score < best.score):
                best = _WithProducts(form, states_of)
        return best

    def _possible(self, sizes: list[int], order: int, largest: int, count: int) -> list[int]:
        """At most so many of the sizes, spread evenly, whose states are determined by the data and not too large."""
        seen = self.taught.observed
        transitions = int((seen[:, order + 1 :] & seen[:, order:-1]).sum())
        limit = min(largest, int(transitions / DETERMINED)) // (1 + order)
        fitting = sorted({size for size in (min(size, limit) for size in sizes) if size > 0})
        if not fitting:
            return []
        chosen = np.linspace(0, len(fitting) - 1, min(count, len(fitting))).round().astype(int)
        return [fitting[i] for i in chosen]
