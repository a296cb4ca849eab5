"""Frames of rows that each have a time and place of their own: values of splines of the rows stand in for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from inrflow.data.completed import CompletedSource
from inrflow.domains import Region, domains_of
from inrflow.dynamics.states import TimeScale
from inrflow.encoding.row_splines import Rows, candidates
from inrflow.errors import UserError
from inrflow.training.judge import Judge
from inrflow.training.margins import POOR
from inrflow.training.problem import Problem
from inrflow.training.run import Run

_TRIED = 4  # trajectories that choose
_POINTS = 3000  # that outline a domain, at most
_SHARE = 0.15  # of the time


def with_frames(run: Run) -> Run:
    """The run on frames that splines of its rows give; as it is where these miss too much of held-out rows, and in
    regions, whose fields are met between points by a trunk of all rows better than by functions through frames."""
    problem, about, say = run.problem, run.problem.description, run.log.say
    bins, splines = problem.source.time_bins, None
    assert bins is not None
    span = tuple(float(problem.source.times[0, i]) + sign * bins.width / 2 for i, sign in ((0, -1), (-1, 1)))
    some = [_rows_of(problem, int(i)) for i in problem.train[:: max(1, len(problem.train) // _TRIED)][:_TRIED]]
    try:
        with run.budget.part(_SHARE):
            domains = domains_of(_outlining(np.concatenate([x for _, x, _ in some])), about.period, about.geometry)
            smooth = [place for place in domains if not isinstance(place, Region)]  # whose harmonics are decoded well
            for one in candidates(smooth, some, span, run.config.seed):
                splines = one if splines is None or one.missed < splines.missed else splines
    except (UserError, ValueError, np.linalg.LinAlgError) as reason:
        say(f"no splines of rows ({str(reason).splitlines()[0]})")
        return run
    if splines is None:
        say("rows: no splines, for they lie in a region, are too few, or time is over")
        return run
    say(f"rows: {splines.count} splines in time on {splines.harmonics.count} harmonics miss {splines.missed:.2e} of "
        f"the variance of held-out rows{'' if splines.missed < POOR else ': they are not used'}")
    if not splines.missed < POOR:
        return run
    t, x, normal = splines.times, splines.places, problem.source.normalisation
    fields = (splines.fields(_rows_of(problem, i), t, x) for i in range(len(problem.source)))
    source = CompletedSource(problem.source, x, [normal.invert(torch.as_tensor(one)).numpy() for one in fields], t)
    whole = replace(problem, source=source, scale=TimeScale.of(source.times), noise=torch.as_tensor(splines.error))
    return replace(run.on(whole), judge=Judge(whole))


def _outlining(points: np.ndarray) -> np.ndarray:
    """At most so many of points (R, d), the outermost along each axis among them."""
    if len(points) <= _POINTS:
        return points
    ends = np.concatenate([points.argmin(0), points.argmax(0)])
    return points[np.union1d(np.random.default_rng(0).choice(len(points), _POINTS, replace=False), ends)]


def _rows_of(problem: Problem, trajectory: int) -> Rows:
    """The rows of a trajectory, of normalised values."""
    batch = problem.source.batch([trajectory])
    assert batch.delay is not None
    seen = batch.u[0].isfinite().all(-1)
    t = batch.t[0, :, None] + batch.delay[0]
    return t[seen].numpy(), batch.x[0][seen].double().numpy(), batch.u[0][seen].double().numpy()
