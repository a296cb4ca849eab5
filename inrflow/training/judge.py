"""The judge: forecast errors of candidates on held-out data, and whether one candidate is preferred to another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData
from inrflow.evaluation.forecast import forecast
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate
from inrflow.training.candidate import Candidate, assemble
from inrflow.training.margins import (
    BETTER,
    BETTER_ON_FEW,
    CHOSEN_BY_CHANCE,
    EXPLAINED,
    FAR_BETTER,
    LONGER_WINDOW,
    MORE_UNKNOWNS,
    ROUNDING,
    TRUSTED,
    WHITE,
)
from inrflow.training.problem import WINDOWS, Problem
from inrflow.training.recorder import Recorder

_FOLLOWED = 8  # number of held-out trajectories that are forecast over twice their time
_FEWEST, _CODES = 8, 128  # least number of windows of a series; codes up to which all windows are used
_INTEGRATION, _LEAST_ERROR = 0.02, 1e-15  # errors of integration allowed, relative to the error of a law and absolute
_HALVINGS, _HARDLY = 3, 1.05  # largest number of halvings of a step; error ratio of equally good forecasts


@dataclass(frozen=True)
class Judge:
    """Comparison of candidates by forecasts of the validation trajectories of a problem."""

    problem: Problem

    def enough(self, best: Candidate | None) -> str | None:
        """Why no further recipe need be tried (a law already explains the data on its basis), or None."""
        return f"{best.recipe} explains the data" if best is not None and best.explained else None

    def better(self, new: Candidate, best: Candidate | None, log: Recorder) -> bool:
        """Whether a new candidate replaces the best one so far.

        Candidates of the same recipe are compared by validation error plus decoder error; one with more unknowns must
        be far better. Those of different recipes are compared in the data, unless a law's error is far smaller: recipes
        are tried in the order of their generality, and the earlier, more special one is kept if it is clearly better; a
        law that explains the data or an autoregression of a short series unless it is far worse. Both forecast from the
        longer of their observation windows. Of any two, the one that needs more frames must be far better. Beside a
        good law of about the same error, whose few coefficients hold at later times, other dynamics are also judged by
        a fit to earlier frames: their error is the geometric mean.
        """
        if best is None:
            return True
        if new.recipe == best.recipe:
            margin: float = MORE_UNKNOWNS if new.score.unknowns > best.score.unknowns else BETTER
            if not len(self.problem.validation):
                margin = min(margin, BETTER_ON_FEW)
            margin *= self._for_frames(new, best)
            return new.score.total < margin * best.score.total
        for law, other in ((new, best), (best, new)):
            if law.recipe == "law" and law.score.total < FAR_BETTER * other.score.total:
                return law is new
        _, _, (mine, theirs) = self.forecasts(new, best)
        log.say(f"validation error of forecasts: {theirs:.2e} of the variance by {best.recipe}, {mine:.2e} by "
                f"{new.recipe}")
        alike = BETTER_ON_FEW * theirs < mine < theirs / BETTER
        if best.recipe == "law" and alike and theirs < TRUSTED and new.first_frames_only is not None:
            early = replace(new, field=new.first_frames_only(2 * new.states.codes.shape[1] // 3))
            later = min(self.forecasts(early)[2][0], 1.0)
            log.say(f"fitted to earlier frames, {new.recipe} has an error of {later:.2e} in later ones")
            mine = math.sqrt(mine * later)
        theirs *= self._for_frames(new, best)
        series = best.recipe == "series"  # chosen by forecasts of all blocks, not of the last frames alone
        if best.explained or (series and self.problem.fitted_frames < CHOSEN_BY_CHANCE):
            return mine < BETTER_ON_FEW * theirs
        return not theirs < BETTER * mine

    def _for_frames(self, new: Candidate, best: Candidate) -> float:
        """Factor on the error of the best candidate, for the observed frames that it and a new one need; 1 for series,
        whose past is known."""
        longer = (new.window > best.window) - (new.window < best.window)
        return LONGER_WINDOW ** (longer if len(self.problem.validation) else 0)

    def forecasts(self, *candidates: Candidate) -> tuple[list[Surrogate], int, list[float]]:
        """Surrogates of candidates, the observed frames that all of them need, and their errors from these."""
        models = [assemble(one) for one in candidates]
        frames = max(self.problem.fewest_observed, *(model.window for model in models))
        contexts = [one.known_contexts(self.problem.validation) for one in candidates]
        size = max(model.field.state_size for model in models)
        windows = max(_FEWEST, min(WINDOWS, round(WINDOWS * (_CODES / size) ** 2)))
        most = None if len(self.problem.validation) else windows
        return models, frames, [self.error(model, frames, known, most)
                                for model, known in zip(models, contexts, strict=True)]

    def error(
        self, surrogate: Surrogate, frames: int = 1, context: ContextPrior | None = None, most: int | None = None
    ) -> float:
        """Normalised error of forecasts of the validation trajectories from their first frames.

        The last third of the frames counts, where growing errors show. `context`: known contexts of the trajectories.
        `most`: largest number of trajectories, or of windows of a series. Infinite if a forecast diverges.
        """
        problem = self.problem
        batch = problem.held_out(frames, most)
        estimate = surrogate.estimate(batch.first_frames(frames), covariance=False, context=context)
        last = max(frames, 2 * batch.u.shape[1] // 3) if len(problem.validation) else frames
        mean = forecast(surrogate, estimate, batch, with_std=False).mean[:, last:]
        truth = surrogate.normalisation.apply(batch.u)[:, last:]
        error = float((mean - truth)[torch.isfinite(truth)].square().mean())
        return error / float(truth.square().nanmean()) if error == error else float("inf")


def explains(error: float, floor: float, linear: bool = False, elsewhere: bool = False, complete: bool = False) -> bool:
    """Whether a law explains the data, so that other dynamics are not sought: its error is near that of its basis alone
    (of a basis with a large residual, noise perhaps, only a small further error is accepted) or small.

    Args:
        error, floor: of its forecasts, and of its basis alone, relative to the variance.
        linear: whether the law is linear, so that linear dynamics of POD modes may be better.
        elsewhere: whether forecasts are of last frames, or on other domains, where the basis has another error.
        complete: whether the basis has so many harmonics that they are about as many as points if they leave nothing.
    """
    small = TRUSTED if elsewhere else ROUNDING * (1e-3 if linear else 1.0)
    if complete and floor < 1e-3 * ROUNDING:
        small = max(small, WHITE)
    return error < max(min(EXPLAINED * floor, floor + WHITE), small)


def rollout_error(field: VectorField, integrator: Integrator, states: CodeData, validation: CodeData, first: int,
                  size: int) -> float:
    """Mean squared error of rollouts from frame `first`, relative to the variance.

    Args:
        states: (S, T, n) from which rollouts start, [code, memory, context].
        validation: reference codes (S, T, Z); those beyond the first `size` count in full as errors.
    """
    with torch.no_grad():
        parameter = next(field.parameters())
        start = states.codes[:, first].to(parameter)
        predicted = integrator(field, start, states.t[:, first:].to(start.device), check=False).double().cpu()
    error = validation.codes[:, first:].clone()
    error[..., :size] -= predicted[..., :size]
    seen = validation.observed[:, first:] & states.observed[:, first : first + 1]  # and an observed start
    seen[:, 0] = False
    values = error[seen].square().sum(1)
    value = float(values.mean() / _variance(validation))
    return value if value == value else float("inf")


class LawRollouts:
    """Rollouts of held-out states by the field of a law, over the observed and twice the time, and their error.

    Args:
        states: (S, T, n); rollouts start from frame `first`. codes: (S, T, Z), the reference.
        error: relative to the variance; given if the law is judged by other states.
    """

    def __init__(self, field: VectorField, integrator: Integrator, states: CodeData, codes: CodeData, first: int,
                 size: int, error: float | None = None) -> None:
        self.states, self.first, self.elsewhere = states, first, error is not None
        self._error_of = partial(rollout_error, states=states, validation=codes, first=first, size=size)
        self.field, self.integrator = field, integrator
        self.error = self._error_of(field, integrator) if error is None else error

    @cached_property
    def paths(self) -> Tensor:
        """Rollouts of some states over twice the time, (S, T, n); NaN for those that diverge."""
        return self._paths_of(self.field, self.integrator)

    def _paths_of(self, field: VectorField, integrator: Integrator) -> Tensor:
        rows = self._rows(self.first)
        t, start = self.states.t[rows, self.first :], self.states.codes[rows, self.first]
        if not len(rows):
            return start[:, None]
        with torch.no_grad():
            paths = integrator(field, start, torch.cat([t, t[:, -1:] + t[:, 1:] - t[:, :1]], 1), check=False)
        whole = (paths.norm(dim=-1) < integrator.largest_norm).all(1)
        return torch.where(whole[:, None, None], paths, torch.nan)

    def _rows(self, first: int) -> Tensor:
        """Indices of some trajectories that have all times from a frame on, and a known state at this frame."""
        known = torch.isfinite(self.states.t[:, first:]).all(1) & self.states.observed[:, first]
        return known.nonzero()[:_FOLLOWED, 0]

    @property
    def lost(self) -> float:
        """Share of rollouts that diverge."""
        return float(self.paths[:, 0, 0].isnan().double().mean().nan_to_num())

    @property
    def farthest(self) -> float:
        """Largest norm of rollouts from the first frame over the observed time, relative to that of the states; 0
        if no state is known there."""
        if not len(rows := self._rows(0)):
            return 0.0
        states = self.states.at(rows)
        with torch.no_grad():
            paths = self.integrator(self.field, states.codes[:, 0], states.t, check=False)
        norms, seen = (one.norm(dim=-1)[states.observed] for one in (paths, states.codes))
        return float(norms.nan_to_num(torch.inf).max() / seen.max())

    def difference(self, paths: Tensor) -> float:
        """Mean squared difference to other rollouts (of another step, for example), relative to the variance of the
        states; infinite if one of its own diverges."""
        if self.lost:
            return float("inf")
        square = float((self.paths - paths).square().sum(-1).nanmean().nan_to_num())
        return square / float(_variance(self.states))

    def try_field(self, field: VectorField, most_lost: float) -> bool:
        """Accept another field if none of its rollouts diverges and its error is hardly larger (no larger if none
        diverged before; any error if more than a share `most_lost` did); returns whether it was accepted."""
        error = self._error_of(field, self.integrator)
        if not (self.lost > most_lost or error <= _HARDLY * self.error):
            return False
        paths = self._paths_of(field, self.integrator)
        taken = not bool(paths[:, 0, 0].isnan().any()) and (self.lost > 0 or error <= self.error)
        if taken:
            self.field, self.error, self.paths = field, error, paths
        return taken

    def shorten_steps(self) -> None:
        """Halve the step while that changes rollouts by more than a share of their error, or some diverge, provided
        that the error hardly increases."""
        for _ in range(_HALVINGS):
            finer = replace(self.integrator, step=self.integrator.step / 2)
            paths = self._paths_of(self.field, finer)
            if self.difference(paths) < max(_INTEGRATION * self.error, _LEAST_ERROR):
                break  # step is fine enough
            if not (self.lost or self.elsewhere):  # coefficients may be fitted to longer steps
                error = self._error_of(self.field, finer)
                if not error < _HARDLY * self.error:
                    break
                self.error = min(self.error, error)
            self.integrator, self.paths = finer, paths


def _variance(states: CodeData) -> Tensor:
    """Total variance of the observed states about their mean, since codes of laws are not centred."""
    seen = states.codes[states.observed]
    return (seen - seen.mean(0)).square().sum(1).mean()
