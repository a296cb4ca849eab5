"""Recipe: POD codes with linear dynamics in closed form (DMD, operator inference).

Delays are added if single frames do not determine the state, contexts if trajectories belong to several systems.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear_search import ClosedForm
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import frames_needed, with_memory
from inrflow.encoding.encode import CodeData
from inrflow.encoding.posterior import GaussianPrior
from inrflow.mesh_flow.source import completed_by_flow
from inrflow.model.surrogate import Surrogate
from inrflow.training.candidate import Candidate, Refitted, Score
from inrflow.training.judge import rollout_error
from inrflow.training.margins import LONGER_WINDOW, MESH_FLOW_PAYS
from inrflow.training.parts.codes import TrainingCodes
from inrflow.training.parts.decoder import FittedDecoder, decoder_training, fit_decoder, fit_modes
from inrflow.training.parts.environments import context_candidate
from inrflow.training.parts.linear import (
    ChosenDynamics,
    candidate_sizes,
    check_symmetries,
    choose_linear,
    choose_memory,
)
from inrflow.training.parts.refit import refit_to_all
from inrflow.training.problem import Problem
from inrflow.training.run import Run

_MEMORY_SHARE = 0.3  # largest share of the budget
_LONG_SERIES = 200  # least number of frames
_FEW_VALUES = 5e6


class ReducedOrderRecipe:
    """POD codes of an affine decoder with linear dynamics in closed form."""

    name = "reduced_order"

    def is_quick(self, problem: Problem) -> bool:
        """Whether a candidate takes a few seconds: components of few values at shared points need no training."""
        values = problem.source.times.numel() * problem.source.points * len(problem.description.channels)
        return problem.source.shared_points and values < _FEW_VALUES

    def applies(self, problem: Problem, best: Candidate | None) -> str | None:
        """None, or why POD codes are not tried."""
        if not problem.has_solved_codes:
            return "the configured codes are not a linear solve"
        if not problem.config.dynamics.linear:
            return "dynamics.linear=false sets a network alone"
        if best is not None and best.recipe == "series" and problem.source.times.shape[1] >= _LONG_SERIES:
            return "the autoregression of the long series is linear in the same codes"
        return None

    def propose(self, run: Run) -> Iterator[Candidate]:
        """The best closed-form candidate."""
        problem = run.problem
        completed = completed_by_flow(problem.source, problem.train, run.config, MESH_FLOW_PAYS, run.log.say)
        if completed is not None:
            run = run.on(replace(problem, source=completed[0]))
        fitted = fit_decoder(run)
        if completed is not None:
            fitted = replace(fitted, interpolation_error=completed[1])
        codes = TrainingCodes(run, fitted.decoder, fitted.modes.prior())
        if len(run.problem.symmetries):
            kept = check_symmetries(run, codes, fitted.modes)
            if len(kept) < len(run.problem.symmetries):
                run = run.on(replace(run.problem, symmetries=kept))
                modes = fit_modes(run, decoder_training(run), fitted.decoder)
                fitted = replace(fitted, modes=modes).leading(len(modes.variances))
                codes = TrainingCodes(run, fitted.decoder, modes.prior())
            run.log.say(f"symmetries: {', '.join(run.problem.symmetries.names) or 'none'}")
        train = codes.with_copies()
        sizes = candidate_sizes(fitted.modes.variances, train.transitions, run.config.decoder.code_size)
        chosen = choose_linear(run, train, codes.validation, float(fitted.modes.noise.mean()), sizes)
        if run.problem.environments is not None:
            candidate = context_candidate(run, fitted, chosen)
            if candidate is not None:
                yield candidate
                return
        delayed = chosen
        with run.budget.part(_MEMORY_SHARE, lambda: run.log.say("delay embedding: search stopped, for lack of time")):
            delayed = choose_memory(run, chosen, sizes)
        candidate = self._candidate(run, fitted, delayed)
        if delayed.memory > chosen.memory:  # judge again with estimated states, as in queries
            other = self._candidate(run, replace(fitted, decoder=copy.deepcopy(fitted.decoder)), chosen)
            _, frames, errors = run.judge.forecasts(candidate, other)
            if not errors[0] < LONGER_WINDOW * errors[1]:
                run.log.say(f"delay embedding: left out, error of forecasts from {frames} observed frames "
                            f"{errors[0]:.2e} of the variance, without delays {errors[1]:.2e}")
                candidate, delayed.row.why = other, "observed frames hardly determine delayed codes"
                chosen.row.why = ""
        yield candidate

    def _candidate(self, run: Run, fitted: FittedDecoder, chosen: ChosenDynamics) -> Candidate:
        leading = fitted.leading(chosen.size)
        return closed_form_candidate(run, self.name, leading.decoder, leading.modes.prior(), chosen, fitted)


def closed_form_candidate(
    run: Run, recipe: str, decoder: Decoder, prior: GaussianPrior, chosen: ChosenDynamics,
    fitted: FittedDecoder | None = None,
) -> Candidate:
    """The candidate of linear dynamics.

    Args:
        decoder, prior: with as many codes as the dynamics.
        fitted: all modes, of which the decoder has the leading ones; if given, they are refitted to all trajectories.
    """
    problem, size = run.problem, decoder.code_size
    fit, validation = chosen.fit, chosen.validation
    train, judged, first = problem.judging(chosen.train, validation)
    every = chosen.train if validation is None else CodeData.join([chosen.train, validation])
    early = fit if validation is not None else chosen.search.fit(fit.candidate, data=train, like=fit)
    field = early.field
    if validation is not None:  # forecasts start after a window that determines a state
        first = min(frames_needed(size, chosen.memory) - 1, judged.codes.shape[1] - 2)
    first = max(first, fit.candidate.past)
    states = with_memory(train, size, early.directions)
    judged_states = with_memory(judged, size, early.directions)
    starts = judged_states.observed[:, : first + 1].any(0).nonzero()
    first = int(starts[-1]) if len(starts) else first  # in one series, the last frame with a known state
    floor = float(prior.noise.mean())
    integrator = problem.integrator(linear=True) if fit.steps is None else Integrator("map")
    error = rollout_error(field, integrator, judged_states, judged, first, size)

    @cache
    def full() -> ClosedForm:
        return chosen.search.fit(fit.candidate, fit.scores, every, fit)

    def first_frames_only(frames: int) -> VectorField:
        return chosen.search.fit(fit.candidate, data=train.frames(frames), like=fit).field

    def refit() -> Refitted:
        return Refitted(full().field, with_memory(chosen.train, size, full().directions))

    def refit_decoder(surrogate: Surrogate) -> Surrogate:
        assert fitted is not None and validation is not None
        whole = CodeData.join([chosen.train.first(len(problem.train)), validation])
        before = rollout_error(
            surrogate.field, integrator, with_memory(whole, size, full().directions), whole, first, size
        )
        return refit_to_all(run, surrogate, fitted.modes, chosen, first, before)

    refits_decoder = fitted is not None and validation is not None and problem.observed.time_bins is None
    return Candidate(
        problem, recipe, "closed form", decoder, prior, field, integrator, states, judged_states, first,
        Score(error, floor, chosen.row.unknowns or 0),
        interpolation_error=None if fitted is None else fitted.interpolation_error, refit=refit,
        refit_decoder=refit_decoder if refits_decoder else None, row=chosen.row,
        first_frames_only=first_frames_only if validation is not None else None,
    )
