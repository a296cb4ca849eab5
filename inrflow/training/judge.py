"""The judge of candidates: forecasts of held-out data, and whether one candidate is preferred to another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import CodeData
from inrflow.evaluation.forecast import forecast
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate
from inrflow.training.candidate import Candidate, assemble
from inrflow.training.margins import BETTER, BETTER_ON_FEW, EXPLAINED, LONGER_WINDOW, MORE_UNKNOWNS, ROUNDING, WHITE
from inrflow.training.problem import WINDOWS, Problem
from inrflow.training.recorder import Recorder

_FOLLOWED = 8  # held-out trajectories that are forecast beyond their ends
_FEWEST, _CODES = 8, 128  # windows of a series, whose covariances take memory and time; codes up to which all judge
INTEGRATION = 0.02  # share of a candidate's error that its integration may add


@dataclass(frozen=True)
class Judge:
    """Forecasts of the validation trajectories of a problem."""

    problem: Problem

    def enough(self, best: Candidate | None) -> str | None:
        """Why no further recipe need be tried; None where one may find a better candidate.

        A law that explains the data on its basis is not improved on. What is linear is linear in any codes, and those
        of another basis may hold more of it: that is worth a comparison where trajectories are held out for one, and
        where its error is more than rounding of rollouts.
        """
        if best is None or not best.explained:
            return None
        if not len(self.problem.validation):
            return f"{best.recipe} explains the data, and no trajectories are held out to compare by"
        if best.linear and best.score.error > ROUNDING:
            return None
        return f"{best.recipe} explains the data"

    def better(self, new: Candidate, best: Candidate | None, log: Recorder) -> bool:
        """Whether a new candidate takes the place of the best one so far.

        Candidates of one recipe are compared by their scores and what their decoders leave; one with more unknowns must
        be far better. Those of different recipes are compared in the data: recipes come in the order of their
        generality, and the earlier, more special one stays where it is clearly better. Both forecast from the longer
        window that either needs, and the one that needs more frames must be far better.
        """
        if best is None:
            return True
        if new.recipe == best.recipe:
            margin = MORE_UNKNOWNS if new.score.unknowns > best.score.unknowns else BETTER
            if not len(self.problem.validation):
                margin = min(margin, BETTER_ON_FEW)
            return new.score.error + new.score.floor < margin * (best.score.error + best.score.floor)
        models, _, (mine, theirs) = self.forecasts(new, best)
        log.say(f"validation error of forecasts: {theirs:.2e} of the variance by {best.recipe}, {mine:.2e} by "
                f"{new.recipe}")
        if len(self.problem.validation):  # an error of single frames counts in full
            mine *= LONGER_WINDOW if models[0].window < models[1].window else 1.0
            theirs *= LONGER_WINDOW if models[0].window > models[1].window else 1.0
        if best.explained:  # a law says more than others that are as good
            return mine < BETTER_ON_FEW * theirs
        return not theirs < BETTER * mine

    def forecasts(self, *candidates: Candidate) -> tuple[list[Surrogate], int, list[float]]:
        """Surrogates of candidates, the observed frames that all of them can begin at, and their errors from these."""
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

        Of the last third of the frames, for what grows with time shows there. `context`: those of the trajectories,
        where they are known. `most`: trajectories, or windows of a series. Infinite where a forecast diverges.
        """
        problem = self.problem
        batch = problem.held_out(frames, most)
        estimate = surrogate.estimate(batch.first_frames(frames), covariance=False, context=context)
        last = max(frames, 2 * batch.u.shape[1] // 3) if len(problem.validation) else frames
        mean = forecast(surrogate, estimate, batch, with_std=False).mean[:, last:]
        truth = surrogate.normalisation.apply(batch.u)[:, last:]
        error = float((mean - truth)[torch.isfinite(truth)].square().mean())
        return error / float(truth.square().nanmean()) if error == error else float("inf")


def explains(error: float, floor: float) -> bool:
    """Whether a law explains the data: its error is near what the basis leaves, or near rounding.

    Where the basis leaves much, noise perhaps, no more than a little is to be missed beyond it.
    """
    return error < max(min(EXPLAINED * floor, floor + WHITE), ROUNDING * 1e-3)


def rollout_error(
    field: VectorField, integrator: Integrator, states: CodeData, validation: CodeData, first: int, size: int
) -> float:
    """Mean squared error of rollouts from frame `first`, share of the variance.

    Args:
        states: (S, T, n) from which rollouts start, [code, memory, context].
        validation: codes (S, T, Z) that they are compared with: those beyond the first `size` count as missed.
    """
    with torch.no_grad():
        parameter = next(field.parameters())
        start = states.codes[:, first].to(parameter)
        predicted = integrator(field, start, states.t[:, first:].to(start.device), check=False).double().cpu()
    error = validation.codes[:, first:].clone()
    error[..., :size] -= predicted[..., :size]
    seen = validation.observed[:, first:] & states.observed[:, first : first + 1]  # a start that nobody saw is no start
    seen[:, 0] = False
    values = error[seen].square().sum(1)
    variance = validation.codes[validation.observed].square().sum(1).mean()
    value = float(values.mean() / variance)
    return value if value == value else float("inf")


def followed(field: VectorField, integrator: Integrator, states: CodeData, first: int) -> Tensor:
    """Forecasts (S, T, n) of a few trajectories from frame `first` over twice the time of the states; NaN of those that
    diverge."""
    known = torch.isfinite(states.t[:, first:]).all(1) & states.observed[:, first]
    rows = known.nonzero()[:_FOLLOWED, 0]
    t, start = states.t[rows, first:], states.codes[rows, first]
    if not len(rows):
        return start[:, None]
    with torch.no_grad():
        paths = integrator(field, start, torch.cat([t, t[:, -1:] + t[:, 1:] - t[:, :1]], 1), check=False)
    whole = (paths.norm(dim=-1) < integrator.largest_norm).all(1)
    return torch.where(whole[:, None, None], paths, torch.nan)


def lost(paths: Tensor) -> float:
    """The share of forecasts, as `followed` gives them, that diverge."""
    return float(paths[:, 0, 0].isnan().double().mean().nan_to_num())


def step_difference(some: Tensor, others: Tensor, states: CodeData) -> float:
    """Mean squared difference of the same forecasts in steps of two lengths, share of the variance of the states;
    infinite where one of the first diverges."""
    if lost(some):
        return float("inf")
    square = float((some - others).square().sum(-1).nanmean().nan_to_num())
    return square / float(states.codes[states.observed].square().sum(1).mean())
