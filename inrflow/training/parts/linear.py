"""Linear dynamics of codes: which number of codes, delays and ridge, judged by held-out rollouts."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear_search import RIDGES, ClosedForm, ClosedFormSearch
from inrflow.dynamics.states import CodeData
from inrflow.training.margins import DETERMINED, UNDETERMINED_ERROR
from inrflow.training.recorder import Tried
from inrflow.training.run import Run

_SHARE, _LATE = 0.2, 0.05  # of the time, and where it is over
_OF_MOST = (0.7, 0.78, 0.85, 0.92, 1.0)  # shares of as many codes as there are transitions of a single trajectory
_APART = 1.5  # the most by which code sizes to try there differ
_TAILS = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 0.0)


@dataclass(frozen=True)
class ChosenDynamics:
    """Dynamics in closed form and the codes that they were fitted to.

    Attributes:
        search, fit: linear dynamics, and how they were looked for.
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
        """Number of delayed dimensions."""
        return self.fit.candidate.memory

    @property
    def past(self) -> int:
        """Frames before the present one that the delays look back on."""
        return self.fit.candidate.past

    @property
    def score(self) -> float:
        """Validation error, share of the variance of the codes."""
        return self.fit.score


def linear_search(run: Run, train: CodeData, validation: CodeData | None, floor: float) -> ClosedFormSearch:
    """The search for linear dynamics of these codes."""
    return ClosedFormSearch(
        train,
        validation,
        run.problem.forcing_period,
        run.config.dynamics.forcing_harmonics,
        originals=len(run.problem.train),
        floor=floor,
        seconds=(_LATE if run.budget.over else _SHARE) * run.budget.total,
    )


def candidate_sizes(variances: Tensor, transitions: int, fixed: int | None = None) -> list[int]:
    """Code sizes to try: a fixed one, or those at which the spectrum's tail falls below some shares, as far as the data
    determine a field."""
    if fixed is not None:
        return [min(fixed, len(variances))]
    tail = variances.flip(0).cumsum(0).flip(0) / variances.sum()
    sizes = {int((tail > share).sum()) for share in _TAILS} | {len(variances)}
    limit = max(2, transitions - 1)  # what fewer do not determine a ridge holds back
    return sorted({max(1, min(size, limit)) for size in sizes})


def closer_sizes(sizes: list[int], most: int) -> list[int]:
    """Code sizes with others in between, up to the number of transitions of a single trajectory.

    There the best size depends as much on the number of transitions as on the spectrum.
    """
    closer = {min(size, most) for size in sizes} | {max(1, round(share * most)) for share in _OF_MOST}
    for low, high in itertools.pairwise(sorted(closer)):
        parts = math.ceil(math.log(high / low) / math.log(_APART))
        closer |= {round(low * (high / low) ** (part / parts)) for part in range(1, parts)}
    return sorted(closer)


def choose_linear(
    run: Run, search: ClosedFormSearch, sizes: list[int], train: CodeData, validation: CodeData | None,
    recipe: str = "reduced_order",
) -> ChosenDynamics:
    """The linear dynamics that validation prefers, for a recipe."""
    memory, fixed = run.config.dynamics.memory, run.config.decoder.code_size
    memories = (0.0, 0.5, 1.0) if memory is None and validation is None else (0.0,)
    transitions = train.transitions
    if validation is None and not fixed:
        sizes = closer_sizes(sizes, min(transitions, train.codes.shape[-1]))
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


def linear_field(run: Run, fit: ClosedForm) -> VectorField:
    """The vector field of fitted linear dynamics, float64: the map of a step where steps are equal."""
    if fit.steps is not None:
        return VectorField(len(fit.bias), [fit.steps.term()])
    field = VectorField.of(
        len(fit.bias), forcing_period=run.problem.forcing_period,
        forcing_harmonics=run.config.dynamics.forcing_harmonics,
    ).double()
    field.set_linear(fit.matrix, fit.bias, fit.forcing)
    return field
