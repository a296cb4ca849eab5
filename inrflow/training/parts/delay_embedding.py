"""Delay embedding where single frames do not determine what follows (Takens 1981), judged from short windows.

Systems whose frame is not their state (a wave whose velocity is not observed) leave dynamics without memory an error
far above the decoder's own. There delayed codes, as rates, are added to the state. All dynamics, those without delays
too, forecast held-out trajectories from the end of the same window; delays have to gain much, for they ask the user
for several frames before a forecast.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inrflow.dynamics.fitting.linear_search import ClosedForm, ClosedFormSearch
from inrflow.dynamics.states import frames_needed
from inrflow.training.margins import DECODER_LIMITED, DETERMINED, LONGER_MEMORY, LONGER_WINDOW, ROUNDING
from inrflow.training.parts.linear import ChosenDynamics
from inrflow.training.recorder import Tried
from inrflow.training.run import Run

_LONGEST = 3  # frames that memory looks back on, with a rate of every code for each
_RIDGES = (1e-15, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0)
_SIZES, _LARGEST_STATE = 4, 512
_FINALISTS = 3  # of each size, judged in continuous time


def choose_memory(run: Run, chosen: ChosenDynamics, sizes: list[int]) -> ChosenDynamics:
    """The dynamics chosen without delays, or some with delays where these forecast far better.

    Tried where the configuration leaves them open, steps are equal (else rates are too crude for states), there are
    validation trajectories, and the dynamics chosen so far leave clearly more than the decoder does. `sizes`: numbers
    of codes to try.
    """
    settings, floor = run.config.dynamics, chosen.search.floor
    orders = longest_memory(run.problem.source.times.shape[1])
    if (
        settings.memory is not None or chosen.validation is None or not orders
        or not chosen.search.uniform or not chosen.score > max(DECODER_LIMITED * floor, ROUNDING)
    ):
        return chosen
    window, before, scores = frames_needed(1, orders), chosen.search, chosen.fit.scores
    search = ClosedFormSearch(  # judges from the last frame of the window
        chosen.train, chosen.validation, before.period, before.harmonics, window=window, floor=floor)
    finalists = sorted(scores, key=lambda c: scores[c])[:_FINALISTS * len(_RIDGES)]
    free = min(search.score(c) for c in {chosen.fit.candidate, *finalists})
    if not np.isfinite(free):
        return chosen
    best: ClosedForm | None = None
    for order in range(1, orders + 1):
        if possible := _possible(chosen, sizes, order):
            fit = search.search(possible, (order,), _RIDGES)
            best = fit if best is None or fit.score + floor < LONGER_MEMORY * (best.score + floor) else best
        if best is not None and best.score < max(floor, ROUNDING):
            break
    if best is None:
        return chosen
    result = replace(chosen, search=search, fit=best)
    run.log.log("memory", 0, validation=result.score, memory_free=free, code_size=result.size, memory=result.memory)
    state = result.size + result.memory
    row = run.log.tried(Tried(
        "reduced_order", "linear dynamics with delays", result.size, result.score, floor, state * (state + 1),
        result.memory,
    ))
    if result.score > LONGER_WINDOW * free:
        row.why = f"does not pay for the frames it needs: {free:.2e} without delays from the same frames"
        return chosen
    chosen.row.why = f"single frames do not determine what follows: {free:.2e} without delays"
    needed = frames_needed(result.size, result.memory)
    run.log.say(
        f"delay embedding: {result.memory} delayed dimensions beside {result.size} codes lower the validation error of "
        f"forecasts from {window} frames from {free:.2e} to {result.score:.2e} of the variance; forecasts need "
        f"at least {needed} observed frames (observe.frames={needed})"
    )
    return replace(result, row=row)


def longest_memory(frames: int) -> int:
    """Frames that memory may look back on so that half of a trajectory is still forecast from the window it needs; 0
    where the trajectories are too short for any."""
    return max((k for k in range(1, _LONGEST + 1) if frames - frames_needed(1, k) >= max(2, frames // 2)),
               default=0)


def _possible(chosen: ChosenDynamics, sizes: list[int], order: int) -> list[int]:
    """A few of the sizes, spread evenly, whose states are determined by the data and not too large."""
    seen = chosen.train.observed
    transitions = int((seen[:, order + 1 :] & seen[:, order:-1]).sum())
    limit = min(_LARGEST_STATE, int(transitions / DETERMINED)) // (1 + order)
    fitting = sorted({size for size in (min(size, limit) for size in sizes) if size > 0})
    if not fitting:
        return []
    return [fitting[i] for i in np.linspace(0, len(fitting) - 1, min(_SIZES, len(fitting))).round().astype(int)]
