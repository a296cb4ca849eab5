"""Laws refined by observed rows (times of their own, or moving points), to which fields at fixed places were fitted."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from inrflow.data.completed import CompletedSource
from inrflow.dynamics.laws.families import families_of
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.refinement.rows import refined_by_rows, smoothed
from inrflow.dynamics.laws.setting import Data, EncodedData, Log
from inrflow.encoding.row_frames import rows_of
from inrflow.encoding.row_splines import Rows
from inrflow.numerics.effort import OutOfTime
from inrflow.training.problem import Problem

_JUDGES, _MOST_VALUES = 4, 5e7  # validation trajectories; largest number of values of harmonics at rows
_NOISY, _MISSED = 1e-4, 0.1  # relative errors of noisy rows that are explained


def by_rows(problem: Problem, law: Law, seconds: float, say: Log) -> tuple[Law, Problem]:
    """The law refined by rows of training trajectories and validated by held-out ones; and the problem, with fields
    along rollouts of the law in place of others if rows are noisy and these fit them as well."""
    noise = problem.unexplained
    if law.has_rates or law.period or law.count or law.codes.harmonics.components > 1:
        return law, problem
    normal = problem.source.normalisation
    scale, mean = (one.double().numpy().ravel() for one in (normal.scale, normal.mean / normal.scale))
    centre = problem.centre.numpy()
    offset = mean - centre

    def seen(some: np.ndarray) -> tuple[EncodedData, list[Rows]]:
        fields = problem.fields(some)
        assert fields is not None
        numbers, t, x, u = fields
        rows = (rows_of(problem.observed, int(i)) for i in numbers)
        return EncodedData.of(law, Data.of(t, x, u)), [
            (problem.scale.internal(torch.as_tensor(at)).numpy(), places, u + offset) for at, places, u in rows]

    with suppress(OutOfTime, np.linalg.LinAlgError):
        each = len(rows_of(problem.observed, int(problem.train[0]))[0]) * law.codes.harmonics.count
        most = max(int(_MOST_VALUES / each), _JUDGES)
        encoded, rows = seen(problem.train[:most])
        judge = seen(problem.validation[:_JUDGES]) if len(problem.validation) else (encoded, rows)
        terms = families_of(encoded.domain, encoded.codes.harmonics, encoded.states,
                            normal.scale.flatten().tolist()).terms
        further = [*terms["linear"], *terms["products"], *terms["transport"]]
        law = refined_by_rows(law, further, encoded, rows, *judge, noise, seconds, say)
        if len(problem.source) > most:
            return law, problem
        found = smoothed(law, *seen(np.arange(len(problem.source))), noise, seconds)
        if found is None:
            return law, problem
        fields, left = found
        if fields.shape[:2] != problem.source.times.shape:  # frames are held out, or times are missing
            return law, problem
        if _NOISY < left.mean() < min(noise, _MISSED):
            say(f"  rollouts of the law: error {left.mean():.2e} of the variance of rows; they replace fitted fields")
            places, times = encoded.train.x[0], problem.source.times[0].numpy()
            own = CompletedSource(problem.observed, places, list((fields + centre) * scale),
                                  None if problem.observed.time_bins is None else times)
            return law, replace(problem, source=own, noise=torch.as_tensor(left), white=True)
    return law, problem
