"""Quadratic dynamics of codes (operator inference): how many codes and products."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.quadratic import QuadraticFit, QuadraticForm
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData, with_memory
from inrflow.numerics.effort import effort
from inrflow.training.judge import rollout_error
from inrflow.training.margins import BETTER, DECODER_LIMITED, ROUNDING
from inrflow.training.parts.linear import ChosenDynamics
from inrflow.training.recorder import Recorder, Tried
from inrflow.training.run import Run

_SHARE = 0.2  # of the time
_LARGEST_SIZE, _LARGEST_COUNT = 200, 4000
_STEP = 0.5
_SPEED = 1e10  # multiplications a second of one core, a cautious figure
_PASSES, _SOLVES = 3, 5  # over the transitions, and factorisations of F x F matrices by F^3 / 3 each
_PLENTY = 2.0  # transitions an unknown: from there on a larger field only gains


def number_of_products(run: Run, train: CodeData) -> int:
    """Number of products: the configured one, or as many as the time allows normal equations for; then recorded."""
    wanted = run.config.dynamics.products

    def affordable() -> int:
        work = max(_SHARE * run.budget.total, 0.0) * _SPEED
        features = min(math.sqrt(work / (_PASSES * max(1, train.transitions))), (work / _SOLVES) ** (1 / 3))
        return int(min(_LARGEST_COUNT, max(0, features)))

    return wanted if wanted is not None else run.budget.decide("products", affordable)


def choose_quadratic(
    run: Run, chosen: ChosenDynamics, floor: float, sizes: list[int]
) -> ChosenDynamics:
    """Quadratic dynamics in place of the linear ones, where these leave something and validation prefers the former.

    Not of single trajectories: frames left out of one do not show what its products do beyond its end.
    """
    settings, fit, validation = run.config.dynamics, chosen.fit, chosen.validation
    if (
        settings.products == 0 or validation is None or fit.candidate.memory or run.problem.forcing_period
        or fit.score < max(DECODER_LIMITED * floor, ROUNDING)
    ):
        return chosen
    search = QuadraticSearch(chosen.train, validation, 0, run.log)
    count = number_of_products(run, chosen.train)
    form = search.search(sizes, count) if count else None
    if form is None:
        return chosen
    row = run.log.tried(Tried(
        "reduced_order", f"quadratic dynamics, {len(form.left)} products", form.size, form.score, floor,
        form.size * (1 + form.size + len(form.left)),
    ))
    if form.score > BETTER * fit.score:
        row.why = f"not clearly better than linear dynamics ({fit.score:.2e})"
        return chosen
    chosen.row.why = "quadratic dynamics have a lower validation error"
    run.log.say(
        f"quadratic dynamics: {form.size} codes, {len(form.left)} products, ridges "
        f"{', '.join(f'{r:g}' for r in form.ridges)}, validation error {form.score:.2e} of the variance"
    )
    run.log.log("quadratic", 1, validation=form.score, code_size=form.size)
    return replace(chosen, quadratic=form, row=row)


@dataclass(frozen=True)
class QuadraticSearch:
    """Search for quadratic dynamics of training codes, judged on others from frame `first` on."""

    train: CodeData
    validation: CodeData
    first: int
    log: Recorder

    def error(self, field: VectorField) -> float:
        """Validation error, share of the variance of the codes: what the size cuts off counts."""
        effort.check()
        size = field.state_size
        states = with_memory(self.validation, size, None)
        return rollout_error(field, Integrator(step=_STEP), states, self.validation, self.first, size)

    def search(self, sizes: list[int], count: int) -> QuadraticForm | None:
        """The best of all sizes; None where each of them diverges."""
        largest = min(_LARGEST_SIZE, max(sizes))
        best: QuadraticForm | None = None
        worse = 0
        for size in sorted({min(size, largest) for size in sizes}, reverse=True):
            fit = QuadraticFit(with_memory(self.train, size, None), count)
            form = fit.search(self.error)
            if form is not None:
                self.log.log("quadratic", 0, code_size=size, validation=form.score)
            if form is not None and (best is None or form.score < best.score):
                best, worse = form, 0
            else:
                worse += 1
            if worse > 1 or (best is not None and fit.transitions > _PLENTY * (1 + size + len(fit.left))):
                break
        return best


def refitted(form: QuadraticForm, states: CodeData, size: int | None = None) -> QuadraticForm:
    """The form fitted anew, with its ridges, to the first `size` codes (None: as many) of all trajectories."""
    return QuadraticFit(with_memory(states, size or form.size, None), len(form.left)).refit(form.ridges)
