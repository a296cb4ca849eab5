"""Laws refined by the observed rows that frames at places that stay stand in for."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch

from inrflow.dynamics.laws.families import families_of
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.refinement.rows import refined_by_rows
from inrflow.dynamics.laws.setting import Data, Ground, Log
from inrflow.encoding.row_frames import rows_of
from inrflow.encoding.row_splines import Rows
from inrflow.numerics.effort import OutOfTime
from inrflow.training.problem import Problem

_JUDGES = 4  # trajectories, at most


def by_rows(problem: Problem, law: Law, seconds: float, say: Log) -> Law:
    """The law refined by rows of training trajectories, where fields stand in for these; held-out ones judge."""
    if problem.noise is None or law.has_rates or law.period or law.count or law.codes.harmonics.components > 1:
        return law
    normal = problem.source.normalisation
    offset = (normal.mean / normal.scale).double().numpy().ravel()

    def seen(some: np.ndarray) -> tuple[Ground, list[Rows]]:
        fields = problem.fields(some)
        assert fields is not None
        numbers, t, x, u = fields
        rows = (rows_of(problem.observed, int(i)) for i in numbers)
        return Ground.of(law, Data.of(t, x, u)), [
            (problem.scale.internal(torch.as_tensor(at)).numpy(), places, u + offset) for at, places, u in rows]

    with suppress(OutOfTime, np.linalg.LinAlgError):
        ground, rows = seen(problem.train)
        judge = seen(problem.validation[:_JUDGES]) if len(problem.validation) else (ground, rows)
        terms = families_of(ground.domain, ground.codes.harmonics, ground.states, normal.scale.flatten().tolist()).terms
        further = [*terms["linear"], *terms["products"], *terms["transport"]]
        return refined_by_rows(law, further, ground, rows, *judge, problem.unexplained, seconds, say)
    return law
