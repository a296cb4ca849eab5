"""Linear dynamics of codes: the number of codes, delays and ridge, and valid symmetries, chosen by held-out rollouts.

Delay embedding is used if single frames do not determine the future (Takens 1981): for systems whose frame is not their
state (a wave whose velocity is not observed), dynamics without memory have an error far above that of the decoder. Then
delayed codes, as rates, are added to the state. All dynamics, also those without delays, forecast held-out trajectories
from the end of the same window; delays must reduce the error by much, since forecasts then require several observed
frames.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from inrflow.data.description import Symmetries
from inrflow.dynamics.fitting.linear_search import RIDGES, ClosedForm, ClosedFormSearch
from inrflow.dynamics.states import frames_needed
from inrflow.encoding.encode import CodeData
from inrflow.encoding.prior.modes import OutputModes
from inrflow.training.margins import (
    DECODER_LIMITED,
    DETERMINED,
    LONGER_MEMORY,
    LONGER_WINDOW,
    ROUNDING,
    SYMMETRY_HARMS,
    UNDETERMINED_ERROR,
)
from inrflow.training.parts.codes import TrainingCodes
from inrflow.training.recorder import Tried
from inrflow.training.run import Run

_SHARE, _LATE = 0.2, 0.05  # shares of the budget, usually and when it is spent
_OF_MOST = (0.7, 0.78, 0.85, 0.92, 1.0)  # code sizes relative to the number of transitions of a single trajectory
_APART = 1.5  # largest ratio of successive code sizes there
_TAILS = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 0.0)
_LONGEST = 3  # largest number of past frames, each with a rate of every code
_DELAY_RIDGES = (1e-15, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0)
_SIZES, _LARGEST_STATE = 4, 512  # how many code sizes are tried with delays, and the largest state
_FINALISTS = 3  # best candidates without delays that are scored again, times the number of ridges
_CHECK_SHARE = 0.1  # share of the budget for symmetries
_MOST_COPIES = 6
_CHECK_RIDGES = (1e-10, 1e-6, 1e-3, 1.0, 1e2, 1e4)  # the last ones keep forecasts bounded if others diverge


@dataclass(frozen=True)
class ChosenDynamics:
    """Dynamics in closed form and the codes that they were fitted to.

    Attributes:
        search, fit: the search, and the linear dynamics that it found.
        train, validation: codes of the training trajectories and their copies, originals first, and of validation ones.
        row: of candidates.json.
    """

    search: ClosedFormSearch
    fit: ClosedForm
    train: CodeData
    validation: CodeData | None
    row: Tried

    @property
    def size(self) -> int:
        """Number of codes."""
        return self.fit.candidate.size

    @property
    def memory(self) -> int:
        """Number of delay coordinates."""
        return self.fit.candidate.memory

    @property
    def score(self) -> float:
        """Validation error, relative to the variance of the codes."""
        return self.fit.score


def linear_search(run: Run, train: CodeData, validation: CodeData | None, floor: float) -> ClosedFormSearch:
    """The search for linear dynamics of these codes."""
    return ClosedFormSearch(
        train, validation, run.problem.forcing_period, run.config.dynamics.forcing_harmonics,
        originals=len(run.problem.train), floor=floor,
        seconds=(_LATE if run.budget.over else _SHARE) * run.budget.total,
    )


def candidate_sizes(variances: Tensor, transitions: int, fixed: int | None = None) -> list[int]:
    """Code sizes to try: a fixed one, or those at which the tail of the spectrum falls below given shares, limited by
    the number of transitions."""
    if fixed is not None:
        return [min(fixed, len(variances))]
    tail = variances.flip(0).cumsum(0).flip(0) / variances.sum()
    sizes = {int((tail > share).sum()) for share in _TAILS} | {len(variances)}
    limit = max(2, transitions - 1)  # undetermined directions are left to the ridge
    return sorted({max(1, min(size, limit)) for size in sizes})


def intermediate_sizes(sizes: list[int], most: int) -> list[int]:
    """Code sizes with intermediate ones, up to the number of transitions of a single trajectory.

    Their best size depends as much on the number of transitions as on the spectrum.
    """
    closer = {min(size, most) for size in sizes} | {max(1, round(share * most)) for share in _OF_MOST}
    for low, high in itertools.pairwise(sorted(closer)):
        parts = math.ceil(math.log(high / low) / math.log(_APART))
        closer |= {round(low * (high / low) ** (part / parts)) for part in range(1, parts)}
    return sorted(closer)


def choose_linear(
    run: Run, train: CodeData, validation: CodeData | None, floor: float, sizes: list[int],
    recipe: str = "reduced_order",
) -> ChosenDynamics:
    """Linear dynamics of these codes with the least validation error, for a recipe."""
    search = linear_search(run, train, validation, floor)
    memory, fixed = run.config.dynamics.memory, run.config.decoder.code_size
    memories = (0.0, 0.5, 1.0) if memory is None and validation is None and search.uniform else (0.0,)
    transitions = train.transitions
    if validation is None and not fixed:
        sizes = intermediate_sizes(sizes, min(transitions, train.codes.shape[-1]))
    if memory:
        sizes = sizes if fixed else [max(memory, min(sizes, key=lambda z: abs(z - memory)))]
        memories = (memory / sizes[0],)
    fit = search.search(sizes, memories, RIDGES)
    chosen = fit.candidate
    state = chosen.size + chosen.memory
    run.log.say(
        f"linear dynamics: {chosen.size} codes, {chosen.memory} delayed, ridge {chosen.ridge:g}, validation error "
        f"{fit.score:.2e} of the variance (decoder alone {search.floor:.1e})"
    )
    if transitions < DETERMINED * state and fit.score > UNDETERMINED_ERROR:
        run.log.say(
            f"the data do not determine the dynamics: {transitions} transitions for {state} state dimensions; declare "
            "symmetries or give more trajectories"
        )
    run.log.log("linear", 0, validation=fit.score, code_size=chosen.size, memory=chosen.memory)
    row = run.log.tried(Tried(
        recipe, "linear dynamics", chosen.size, fit.score, search.floor, state * (state + 1), chosen.memory
    ))
    return ChosenDynamics(search, fit, train, validation, row)


def choose_memory(run: Run, chosen: ChosenDynamics, sizes: list[int]) -> ChosenDynamics:
    """The dynamics chosen without delays, or some with delays if these forecast far better.

    Tried if the configuration does not fix the memory, steps are equal (else difference quotients are too inaccurate),
    there are validation trajectories, and the error so far is clearly above that of the decoder. `sizes`: numbers of
    codes to try.
    """
    settings, floor = run.config.dynamics, chosen.search.floor
    orders = longest_memory(run.problem.source.times.shape[1])
    if (
        settings.memory is not None or chosen.validation is None or not orders
        or not chosen.search.uniform or not chosen.score > max(DECODER_LIMITED * floor, ROUNDING)
    ):
        return chosen
    window, before, scores = frames_needed(1, orders), chosen.search, chosen.fit.scores
    search = ClosedFormSearch(  # forecasts start at the last frame of the window
        chosen.train, chosen.validation, before.period, before.harmonics, before.originals, window, floor)
    finalists = sorted(scores, key=lambda c: scores[c])[:_FINALISTS * len(_DELAY_RIDGES)]
    free = min(search.score(c) for c in {chosen.fit.candidate, *finalists})
    if not np.isfinite(free):
        return chosen
    best: ClosedForm | None = None
    for order in range(1, orders + 1):
        if possible := _possible(chosen, sizes, order):
            fit = search.search(possible, (order,), _DELAY_RIDGES)
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
        row.why = f"error not far below {free:.2e}, without delays from as many frames"
        return chosen
    chosen.row.why = f"single frames do not determine the state: error {free:.2e} without delays"
    needed = frames_needed(result.size, result.memory)
    run.log.say(
        f"delay embedding: {result.memory} delayed dimensions beside {result.size} codes lower the validation error of "
        f"forecasts from {window} frames from {free:.2e} to {result.score:.2e} of the variance; forecasts need "
        f"at least {needed} observed frames (observe.frames={needed})"
    )
    return replace(result, row=row)


def longest_memory(frames: int) -> int:
    """Largest number of past frames such that half of a trajectory remains to be forecast after the window; 0 if
    trajectories are too short."""
    return max((k for k in range(1, _LONGEST + 1) if frames - frames_needed(1, k) >= max(2, frames // 2)), default=0)


def _possible(chosen: ChosenDynamics, sizes: list[int], order: int) -> list[int]:
    """A few of the sizes, evenly spaced, whose states are determined by the data and not too large."""
    seen = chosen.train.observed
    transitions = int((seen[:, order + 1 :] & seen[:, order:-1]).sum())
    limit = min(_LARGEST_STATE, int(transitions / DETERMINED)) // (1 + order)
    fitting = sorted({size for size in (min(size, limit) for size in sizes) if size > 0})
    return [fitting[i] for i in np.linspace(0, len(fitting) - 1, min(_SIZES, len(fitting))).round().astype(int)]


def check_symmetries(run: Run, codes: TrainingCodes, modes: OutputModes) -> Symmetries:
    """The symmetries that do not clearly raise validation errors. Diverging forecasts exclude none."""
    floor, declared = float(modes.noise.mean()), run.problem.symmetries
    copies = codes.affordable("check_copies", min(codes.wanted, _MOST_COPIES), _CHECK_SHARE, 1 + len(declared))

    def error(symmetries: Symmetries) -> float:
        training = codes.with_copies(copies, run.problem.augmentation(symmetries))
        sizes = candidate_sizes(modes.variances, training.transitions, run.config.decoder.code_size)
        few = sorted({sizes[len(sizes) // 2], sizes[3 * len(sizes) // 4], sizes[-1]})
        return linear_search(run, training, codes.validation, floor).search(few, ridges=_CHECK_RIDGES).least + floor

    with_all, kept = error(declared), declared
    while len(kept):  # the worst first: beside a wrong symmetry, valid ones may seem harmful
        errors = {name: error(kept.without(name)) for name in kept.names}
        for name, without in errors.items():
            run.log.log("symmetries", 0, name=name, kept=with_all, left_out=without)
        name = min(errors, key=lambda name: errors[name])
        if not is_invalid(with_all, errors[name]):
            break
        run.log.say(f"symmetry {name} is dropped: without it the validation error falls from {with_all:.2e} to "
                    f"{errors[name]:.2e} of the variance")
        kept, with_all = kept.without(name), errors[name]
    return kept


def is_invalid(kept: float, left_out: float) -> bool:
    """Whether a symmetry does not hold, by the validation errors with (`kept`) and without it: both must be finite."""
    return math.isfinite(kept) and math.isfinite(left_out) and left_out < SYMMETRY_HARMS * kept
