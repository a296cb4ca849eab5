"""Candidates, fitted models that may become the surrogate; and completion: the chosen one refitted to all trajectories,
with its prior and calibrated standard deviations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator, calibrated_process_noise
from inrflow.dynamics.states import frames_needed
from inrflow.encoding.encode import CodeData, Encoder
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.encoding.prior.truncation import Truncation
from inrflow.evaluation.calibration import (
    FEW,
    FRACTIONS,
    STARTS,
    Others,
    affordable,
    calibrated,
    errors_of,
    errors_with_few_points,
    rollout_seconds,
)
from inrflow.evaluation.known_contexts import calibrate_contexts
from inrflow.model.contexts import Contexts
from inrflow.model.ensemble import MEMBERS
from inrflow.model.state_prior import ContextPrior, StatePrior, state_prior
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.training.problem import Problem
from inrflow.training.recorder import Budget, Recorder, Tried

_NOISY, _MOST_WHITE = 1e-4, 0.99  # relative variance of noisy values; largest share of white noise in residuals
_LOOKED_AT, _ALIKE = 16, 0.1  # trajectories; correlation of residuals between frames above which they are not white
_FREEDOM = 0.25  # least share of the noise that remains in residuals of codes
_OF_REFIT = 0.05  # share of the budget for each refit, even if it is spent: it alone uses the held-out data
_OF_CONTEXTS = 0.03  # share of the budget for contexts of held-out trajectories, even if it is spent
_SHARE, _LEAST = 0.15, 1.0  # share of the budget for calibration, and seconds added
_LEADS = 4  # least number of leads if ensemble rollouts exceed the time
_BRIEF = 0.8  # share of the frames fitted if later ones show the growth of errors
_OTHERS, _MOST = 0.2, 32  # share of that time for further trajectories, and their largest number
_FEW = 1e-3  # parameters per code value up to which training trajectories are as good as held-out ones
_SOME = 0.05  # up to which they are better than their last frames, if none are held out
_OF_FIRST = 0.7  # share of the time for the first kind of windows, if all of the others are to follow


@dataclass(frozen=True)
class Score:
    """Errors of a candidate on held-out data.

    Attributes:
        error: mean squared error of rollouts, relative to the variance.
        floor: error of its decoder alone.
        unknowns: number of fitted parameters of its dynamics.
    """

    error: float
    floor: float
    unknowns: int

    @property
    def total(self) -> float:
        """Error in the data, of rollouts and decoder."""
        return self.error + self.floor


@dataclass(frozen=True)
class Refitted:
    """Dynamics of a candidate refitted to all trajectories.

    Attributes:
        field: float64.
        states: of the trajectories that define the prior; None: those of the candidate.
        contexts: of the training environments, if there are any.
    """

    field: VectorField
    states: CodeData | None = None
    contexts: Contexts | None = None


@dataclass(frozen=True)
class Candidate:
    """A fitted model that may become the surrogate. It was not fitted to the held-out data.

    Attributes:
        problem: as seen by the recipe, for example with a completed source, or fewer symmetries.
        recipe, name: the recipe that proposed it, and a short description.
        states: (S, T, n) states of the training trajectories; validation: of those it is judged by.
        first: frame from which forecasts of the latter start; first + 1 frames are needed for a forecast.
        context_size: P, constant components at the end of a state; contexts: (S, P) of the validation trajectories.
        explained: whether the law explains the data, so that no better model of the same basis is to be expected.
        refit: refits the dynamics to all trajectories; refit_decoder: also the decoder of a whole surrogate.
        first_frames_only: fits the dynamics to a number of first frames; None if parameters do not depend on the times.
        calibrated: number of trajectories for calibration; ahead: whether only forecasts `ahead` are calibrated.
        innovations: (n,) process noise per unit of time, if the recipe knows it; truncation: as in `StatePrior`.
        metadata: stored with the surrogate.
        row: of candidates.json; None: to be added.
    """

    problem: Problem
    recipe: str
    name: str
    decoder: Decoder
    code_prior: GaussianPrior
    field: VectorField
    integrator: Integrator
    states: CodeData
    validation: CodeData
    first: int
    score: Score
    context_size: int = 0
    contexts: Tensor | None = None
    explained: bool = False
    interpolation_error: InterpolationError | None = None
    encoder: Encoder | None = None
    refit: Callable[[], Refitted] | None = None
    refit_decoder: Callable[[Surrogate], Surrogate] | None = None
    first_frames_only: Callable[[int], VectorField] | None = None
    calibrated: int = 16
    ahead: bool = False
    innovations: Tensor | None = None
    truncation: Truncation | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    row: Tried | None = None

    @cached_property
    def process(self) -> Tensor:
        """Process noise (n,), a variance per unit of time; by default from forecasts of validation data."""
        if self.innovations is not None:
            return self.innovations
        unseen = self.validation.since(self.first)
        process = calibrated_process_noise(self.field, self.integrator, unseen, self.code_prior.independent,
                                           self._uncertain)
        if self.context_size:
            process[-self.context_size :] = 0.0
        return process

    @cached_property
    def noise(self) -> tuple[Tensor | None, Tensor | None]:
        """White noise (C,) of the training values, and the largest residual variance (C,) of a frame; None if unknown.

        The first is that part of the noise of the code prior which all frames have, including those that codes fit
        best, and which is uncorrelated in time.
        """
        size, source = self.code_size, self.problem.source
        if self.problem.white and self.problem.noise is not None:
            return _MOST_WHITE * self.problem.noise if bool((self.problem.noise > _NOISY).any()) else None, None
        if not (self.decoder.affine and len(self.problem.validation)) or source.time_bins is not None:
            return None, None
        batch, dtype = self.problem.fitted(_LOOKED_AT), next(self.decoder.parameters()).dtype
        codes = self.states.codes[: len(batch.u), : batch.u.shape[1], :size]
        with torch.no_grad():
            left = (batch.u - self.decoder(batch.x.to(dtype), codes.to(dtype))).double()  # (S, T, N, C)
        roughest = left.square().nanmean((0, 2)).amax(0)
        if not bool((self.code_prior.noise > _NOISY).any()):
            return None, roughest
        squares = left.square().nanmean(2).nanmedian(0).values  # (T, C)
        after = (left[:, 1:] * left[:, :-1]).nanmean((0, 1, 2)) / left.square().nanmean((0, 1, 2))
        unsure = 2 * (math.pi / left[:, 0, :, 0].numel()) ** 0.5  # twice the standard error of a median
        share = ((1 + unsure) * squares.amin(0) / squares.mean(0)).clamp(max=_MOST_WHITE) * (after.abs() < _ALIKE)
        white = torch.minimum(share * self.code_prior.noise.double(), squares.amin(0) / _FREEDOM)
        return white if bool((white > _NOISY).any()) else None, roughest

    @property
    def _uncertain(self) -> Tensor | None:
        """Variances (n,) of states due to the white noise of the training values; None without noise."""
        if self.noise[0] is None:
            return None
        with torch.no_grad():
            x = self.problem.source.batch(self.problem.train[:1]).x[0, 0]
            basis = self.decoder.basis(x.to(next(self.decoder.parameters()).dtype))[1].double()
        prior = self.code_prior.truncated(self.code_size)
        variance = prior.covariance if prior.independent else prior.covariance.diagonal()
        known = (basis.square().sum(0) / prior.noise[:, None]).sum(0)
        return torch.nn.functional.pad(1 / (1 / variance + known), (0, self.states.codes.shape[-1] - self.code_size))

    @property
    def judged(self) -> np.ndarray:
        """Indices of the trajectories by which it is judged."""
        return self.problem.validation if len(self.problem.validation) else self.problem.train

    def known_contexts(self, trajectories: np.ndarray) -> ContextPrior | None:
        """Contexts of trajectories that it is judged by or was fitted to; None without contexts."""
        if self.contexts is None:
            return None
        names = [*self.judged.tolist(), *self.with_states.tolist()]
        values = torch.cat([self.contexts, self.states.codes[: len(self.with_states), 0, -self.context_size :]])
        rows = [names.index(trajectory) for trajectory in trajectories]
        return ContextPrior.of_known(values[rows])

    @property
    def with_states(self) -> np.ndarray:
        """Indices of the training trajectories with known states."""
        return self.problem.train[: len(self.states.codes)]

    @property
    def fitted(self) -> float:
        """Number of fitted parameters of the dynamics per code value of the training trajectories."""
        return self.score.unknowns / self.states.codes.numel()

    @property
    def code_size(self) -> int:
        """Number of codes."""
        return self.decoder.code_size

    @property
    def memory(self) -> int:
        """Number of delay coordinates of a state."""
        return self.states.codes.shape[-1] - self.code_size - self.context_size

    @property
    def window(self) -> int:
        """Number of observed frames that a forecast needs."""
        return frames_needed(self.code_size, self.memory)


def complete(candidate: Candidate, budget: Budget, log: Recorder) -> Surrogate:
    """The surrogate of a candidate: refit, priors, calibration. Optional parts beyond the time budget are skipped.

    Standard deviations are those of forecasts by the candidate itself, for which the held-out trajectories are new; the
    field that is kept is the refitted one.
    """
    refitted: Refitted | None = None
    if candidate.refit is not None:
        with budget.part(least=_OF_REFIT):
            refitted = candidate.refit()
    states = candidate.states if refitted is None or refitted.states is None else refitted.states
    surrogate = assemble(candidate, states)
    prior, size = surrogate.prior, candidate.code_size
    prior.farthest = max(prior.reach(data, size) for data in (states, candidate.validation))
    prior.tail = candidate.decoder.tail(states.codes[states.observed][:, :size]).amax(0)
    if not candidate.code_prior.independent:
        prior.roughest = candidate.noise[1]
    surrogate.prior = _calibrated(candidate, surrogate, budget)
    surrogate.field = candidate.field
    spread = surrogate.prior.spread_at(torch.zeros(()))
    log.log("calibration", 0, **{f"spread_{i}": float(v) for i, v in enumerate(spread)})
    if refitted is not None:
        surrogate.field = refitted.field.double().eval()
        surrogate.contexts = refitted.contexts
        given, known = candidate.problem, budget.decisions.get("contexts")
        with suppress(OutOfTime), effort.limited(Limit(effort() + max(_LEAST, _OF_CONTEXTS * budget.total))):
            limits = (_OF_CONTEXTS * budget.total,) if known is None else (np.inf, known)
            if solved := calibrate_contexts(surrogate, given.source, given.environments, given.validation, *limits):
                budget.decide("contexts", solved)
    if candidate.refit_decoder is not None:
        with budget.part(least=_OF_REFIT):
            surrogate = candidate.refit_decoder(surrogate)
    return surrogate


def _calibrated(candidate: Candidate, surrogate: Surrogate, budget: Budget) -> StatePrior:
    """The prior of a surrogate with standard deviations calibrated on errors of held-out forecasts, from as many
    trajectories, frames and points as time permits. The field of the surrogate may be changed."""
    problem, judging = candidate.problem, candidate.judged[: candidate.calibrated]
    contexts = candidate.known_contexts(judging)
    several = not len(problem.validation) and len(judging) > 1 and candidate.fitted < _SOME
    if several or (contexts is not None and not len(problem.validation)):  # whole trajectories
        past = surrogate.window if contexts is None else candidate.first + 1
        batch = problem.source.batch(judging, normalised=False)
    else:
        past = max(candidate.first + 1 if len(problem.validation) else problem.fewest_observed, surrogate.window)
        batch = problem.held_out(past, candidate.calibrated)
    starts = STARTS if several or len(problem.validation) else ()  # windows of a series start anywhere
    seconds = _SHARE * budget.total + _LEAST
    flown = (budget.decisions.get("flight") or budget.decide("flight", round(1e3 * rollout_seconds(surrogate)))) / 1e3
    batch, contexts, points = affordable(batch, past, surrogate, seconds, contexts, flown)
    ahead, each = batch.u.shape[1] - past, flown * MEMBERS * len(batch.u)
    if lasting := each * ahead > seconds:  # even for few trajectories
        starts, batch = (), batch.first_frames(past + max(min(_LEADS, ahead), int(seconds / each)))
    began = budget.elapsed
    others = _further_trajectories(candidate, batch, _OTHERS * seconds / flown if flown else np.inf)
    frames, fewer, stretch = batch.u.shape[1], max(past + 1, int(_BRIEF * batch.u.shape[1])), 1.0
    if candidate.first_frames_only is not None and fewer < frames == candidate.states.codes.shape[1]:
        with budget.part(least=_OF_REFIT):  # errors of overfitting show in later frames
            surrogate.field = candidate.first_frames_only(fewer).double().eval()
            stretch = (frames - past) / (fewer - past)
    errors = list(errors_of(surrogate, batch, past, contexts, points, others, starts, FRACTIONS[:1]))
    if errors and not candidate.ahead:
        share = min(_OF_FIRST * seconds / max(budget.elapsed - began, 1e-9), 1.0)
        few = budget.decide("calibration", 0 if lasting else max(int(share * len(batch.u)), FEW))
        errors += errors_with_few_points(surrogate, batch, past, few, contexts, points, starts)
    return calibrated(surrogate.prior, errors, candidate.ahead, stretch)


def _further_trajectories(candidate: Candidate, batch: TrajectoryBatch, intervals: float) -> Others | None:
    """Further trajectories for calibration, cut to the frames of a batch, and their contexts; None without any. They
    are held-out trajectories and, if few parameters were fitted, training ones, in at most `intervals` time intervals
    in total."""
    problem, names = candidate.problem, candidate.judged[: candidate.calibrated]
    if not len(problem.validation) or problem.noise is not None:
        return None
    kept = np.linspace(0, len(names) - 1, len(batch.u)).round().astype(int)  # in the batch, by `affordable`
    rows = np.concatenate([np.setdiff1d(problem.validation, names[kept]),
                           candidate.with_states if candidate.fitted < _FEW else problem.train[:0]])
    rows = rows[: int(min(_MOST, intervals // batch.u.shape[1]))]
    if not len(rows):
        return None
    return (problem.source.batch(rows, normalised=False).first_frames(batch.u.shape[1]), candidate.known_contexts(rows))


def assemble(candidate: Candidate, states: CodeData | None = None) -> Surrogate:
    """The surrogate of a candidate as it was fitted, not calibrated. `states` define the prior, by default its own."""
    problem, size, contexts = candidate.problem, candidate.code_size, candidate.context_size
    states = candidate.states if states is None else states
    mean, covariance = state_prior(states, candidate.code_prior, size, contexts)
    noise = candidate.code_prior.noise.double()
    prior = StatePrior(
        mean, covariance, noise if problem.noise is None else noise + problem.noise, candidate.process,
        torch.ones(len(problem.description.channels), dtype=torch.float64), candidate.interpolation_error,
        white=candidate.noise[0], truncation=candidate.truncation,
    )
    times, place = problem.source.times, candidate.decoder.place
    metadata = {"dynamics": candidate.name, "memory": states.codes.shape[-1] - size - contexts,
                "mesh": None if place is not None else problem.mesh, **candidate.metadata}
    return Surrogate(
        problem.description, problem.source.normalisation, candidate.decoder.eval(), candidate.field.double().eval(),
        candidate.integrator, prior, problem.scale, problem.box, float((times - times[:, :1]).nan_to_num(0.0).max()),
        {**problem.metadata, **metadata}, problem.encoder() if candidate.encoder is None else candidate.encoder,
    )
