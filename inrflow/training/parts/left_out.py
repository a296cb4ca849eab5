"""Laws without single trajectories, whose forecasts of these calibrate standard deviations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.laws.law import Law, node_rollouts
from inrflow.dynamics.laws.setting import Data, EncodedData
from inrflow.dynamics.laws.term import LawTerm
from inrflow.training.problem import Problem


def fields_without(problem: Problem, law: Law, size: int, rows: np.ndarray) -> list[VectorField]:
    """The law refitted to all training trajectories but one, for each of some `rows`, by normal equations along its own
    rollouts. Empty if rollouts diverge or times are missing."""
    given = problem.fields(problem.train)
    if given is None or len(given[0]) < len(problem.train):
        return []
    encoded = EncodedData.of(law, Data.of(*given[1:]))
    if (paths := node_rollouts(law, encoded.train.t, encoded.states, encoded.train.systems.number)) is None:
        return []
    (equations,) = encoded.equations(law.terms, folds=len(encoded.states), paths=paths)
    fields = []
    for fold in rows:
        theta, others = law.theta.copy(), equations.without(fold)
        for c, active in [(c, np.flatnonzero(own).tolist()) for c, own in enumerate(law.theta.T) if own.any()]:
            theta[active, c], _ = others.solve(c, active, equations.weights(c, active))
        fields.append(VectorField(size, [LawTerm.of(replace(law, theta=theta))]).double())
    return fields
