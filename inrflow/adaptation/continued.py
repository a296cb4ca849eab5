"""A trained surrogate updated with further observations, to which fitted parts are refitted; chosen parts are kept.

For a law these are the coefficients, along rollouts from the codes of all frames; for the autoregression of a single
series, all that its recipe fits; for any other field the output layer and the affine part, with a penalty on their
change. The last of the new observations are held out: an update is accepted if their forecasts are no worse than
before, by one standard error, and then repeated with all of them. If the old forecasts miss them by far more than their
stated uncertainty, the system is taken to have changed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.adaptation.further import PULLS, Fit, field_fit, output_fit
from inrflow.adaptation.law_refit import refitted_law
from inrflow.data.batch import TrajectoryBatch
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import has_output_layer
from inrflow.dynamics.fields.linear import LinearTerm
from inrflow.dynamics.fields.step_map import MapTerm
from inrflow.dynamics.laws.term import LawTerm
from inrflow.evaluation.forecast import forecast, std_of_values
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.normal import HALF_WIDTH_90
from inrflow.training.problem import Problem
from inrflow.training.recipes.series import SeriesRecipe, continued_series
from inrflow.training.recorder import Tried
from inrflow.training.run import Run
from inrflow.training.train import fit

_GROWN = 2.0  # growth of the number of frames from which a new training may find a better model
_KEPT_BACK, _OF_ALL = 0.5, 0.2  # held-out share of the new frames or trajectories; of all frames without new times
_FEWEST_HELD = 0.6  # share of the held-out values that 90 % intervals of the old model must contain
_WINDOWS, _TRAJECTORIES = 4, 64  # largest numbers of held-out windows and trajectories
_SHARE = 0.1  # share of the time budget for these

Prepare = Callable[[Surrogate, Problem, TrajectoryBatch], Fit]


def continued(before: Surrogate, run: Run) -> Surrogate | None:
    """The surrogate fitted further to the data of a run, which contain its training data and later observations; None,
    with the reason logged, if a new training is needed."""
    problem, log = run.problem, run.log
    found = _why_not(before, problem) or _continued(before, run)
    if isinstance(found, str):
        log.say(f"training from scratch: {found}")
        return None
    return found


def _why_not(before: Surrogate, problem: Problem) -> str:
    """Why a surrogate cannot be continued; empty if it can."""
    if before.context_size or problem.environments is not None:
        return "the systems of the data have contexts, which are not updated"
    if problem.source.time_bins is not None:
        return "values have individual times, not those of frames"
    if "series" in before.training and (reason := SeriesRecipe().applies(problem, None)):
        return f"the data are no longer a regular series: {reason}"
    old = before.training["frames"] * before.training["trajectories"]
    if problem.source.times.numel() > _GROWN * old:
        return f"the data have more than {_GROWN:g} times the frames that the model was trained on"
    return ""


def _continued(before: Surrogate, run: Run) -> Surrogate | str:
    """The updated surrogate, or the reason why the earlier one is not a suitable start."""
    problem, log = run.problem, run.log
    problem = _as_before(problem, before)
    judge, batch = judge_of(before, problem), problem.source.batch(np.arange(len(problem.source)), normalised=False)
    errors, held = judge(before, True)
    if not held >= _FEWEST_HELD:
        return (f"90 % intervals of the earlier model contain {100 * held:.0f} % of the last new values, which are "
                "unlike its training data")
    now, result = before, before
    for name, prepare, pulls in _parts(before, problem):
        fit = prepare(now, problem, judge.fitted)
        made = {pull: fit(pull) for pull in pulls}
        tried = {pull: judge(one)[0] for pull, one in made.items()}
        pull = min(tried, key=lambda pull: float(tried[pull].mean()))
        change = tried[pull] - errors
        better = float(change.mean()) <= float(change.std(correction=0)) / len(change) ** 0.5
        log.say(f"{name}: {'refitted to all observations' if better else 'unchanged'} (error of the last new values "
                f"{float(errors.mean()):.3e} before, {float(tried[pull].mean()):.3e} after)")
        if better:
            errors, now, result = tried[pull], made[pull], prepare(result, problem, batch)(pull)
    row = log.tried(Tried(problem.config.recipe, f"{before.training['dynamics']}, continued", now.code_size,
                          float(errors.mean())))
    row.taken = True
    log.save_candidates()
    low, high = problem.box
    return replace(
        result, box=np.stack([np.minimum(before.box[0], low), np.maximum(before.box[1], high)]),
        horizon=max(before.horizon, _span(batch)), training={
            **result.training, "frames": batch.u.shape[1], "trajectories": len(batch),
            "continued": before.training.get("continued", 0) + 1})


def _as_before(problem: Problem, before: Surrogate, frames: int | None = None) -> Problem:
    """The problem with the units of an earlier surrogate, restricted to its first `frames` frames."""
    given = problem.source
    source = TrajectorySource(given.file, frames or given.frames, given.fraction, given.same_points, given.seed)
    source.set_fault_detector(given.faults)
    source.normalisation, source.varies = before.normalisation, given.varies
    return replace(problem, source=source, observed=source, scale=before.scale)


# ---- held-out observations ----


@dataclass
class Kept:
    """Held-out observations: windows with `past` observed frames each, and the batch `fitted` to be fitted to."""

    windows: TrajectoryBatch
    past: int
    fitted: TrajectoryBatch

    def __call__(self, surrogate: Surrogate, with_std: bool = False) -> tuple[Tensor, float]:
        """Mean squared errors (W,) of forecasts, normalised units, and the coverage of 90 % intervals."""
        estimate = surrogate.estimate(self.windows.first_frames(self.past), covariance=with_std)
        given = forecast(surrogate, estimate, self.windows, with_std)
        truth = surrogate.normalisation.apply(self.windows.u)
        missed = (truth - given.mean)[:, self.past :].double()
        known = torch.isfinite(truth[:, self.past :])
        errors = missed.square().flatten(1).nanmean(1)  # windows without any observation are dropped below
        held = math.nan
        if given.std is not None:
            std = std_of_values(surrogate.prior, given.std, estimate)[:, self.past :]
            held = float((missed.abs() < HALF_WIDTH_90 * std)[known].double().mean())
        diverged = (~torch.isfinite(missed) & known).flatten(1).any(1)
        return errors.masked_fill(diverged, math.inf)[known.flatten(1).any(1)], held


def judge_of(before: Surrogate, problem: Problem) -> Kept:
    """Held-out observations: the last of the new trajectories or, without new ones, the last frames."""
    source, old = problem.source, before.training
    batch = source.batch(np.arange(len(source)), normalised=False)
    new = len(batch) - old["trajectories"]
    window = max(before.window, min(problem.fewest_observed, batch.u.shape[1] - 1))
    if new > 0:
        held = min(max(1, round(_KEPT_BACK * new)), _TRAJECTORIES)
        return Kept(batch.select(slice(len(batch) - held, None)), window, batch.select(slice(0, len(batch) - held)))
    frames = batch.u.shape[1]
    later = frames - old["frames"]
    cut = frames - max(1, round(_KEPT_BACK * later if later > 0 else _OF_ALL * frames))
    past = min(window, cut)
    if len(batch) < _WINDOWS:
        return Kept(problem.validated_in_time().held_out(past, _WINDOWS, cut), past, batch.first_frames(cut))
    return Kept(batch.select(slice(0, _TRAJECTORIES)).frames(slice(cut - past, None)), past, batch.first_frames(cut))


def _span(batch: TrajectoryBatch) -> float:
    return float((batch.t - batch.t[:, :1]).nan_to_num(0.0).max())


# ---- parts that are refitted ----


def _parts(surrogate: Surrogate, problem: Problem) -> Iterator[tuple[str, Prepare, tuple[float, ...]]]:
    """Name of each part of a model that can be refitted, how it is fitted, and the penalties (pulls) that are tried."""
    field = surrogate.field
    if field.get(MapTerm) is not None and len(problem.source) == 1:
        yield "series", _series, (0.0,)
    elif field.get(LawTerm) is not None and not field.term(LawTerm).period:
        yield "coefficients of the law", _law, (0.0,)
    elif field.get(LinearTerm) is not None and field.state_size == surrogate.code_size:
        if has_output_layer(surrogate.decoder):
            yield "decoder", lambda now, _, batch: output_fit(now, [batch]), PULLS
        yield "dynamics", lambda now, _, batch: field_fit(now, [batch]), PULLS


def _series(surrogate: Surrogate, problem: Problem, batch: TrajectoryBatch) -> Fit:
    """Autoregression refitted to the frames of a batch, as chosen before; other maps by the series recipe."""
    early = _as_before(problem, surrogate, batch.u.shape[1])
    if "series" in surrogate.training:
        return lambda _: continued_series(surrogate, early)
    config = copy.deepcopy(problem.config)
    config.data.frames, config.training.residual_field = batch.u.shape[1], "off"
    early = replace(early, config=config)
    return lambda _: replace(fit(early, [SeriesRecipe()], quiet=True), residual=surrogate.residual)


def _law(surrogate: Surrogate, problem: Problem, batch: TrajectoryBatch) -> Fit:
    """Coefficients of the law, refined along rollouts from the codes of all frames."""
    return lambda _: refitted_law(surrogate, batch, _SHARE * 60 * problem.config.training.minutes)
