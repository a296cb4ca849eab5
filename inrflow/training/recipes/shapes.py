"""One law for trajectories on different shapes: its data, and calibration on all held-out shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from inrflow.domains import Box, Domain, Region, domains_of
from inrflow.domains.triangulation import triangulate
from inrflow.dynamics.fitting.shape_law import fit_law_on_shapes
from inrflow.dynamics.laws import Law, Systems
from inrflow.dynamics.laws.setting import Data
from inrflow.evaluation.calibration import calibrate, pooled
from inrflow.evaluation.new_domain import Place, models_of
from inrflow.model.surrogate import Surrogate
from inrflow.training.problem import Problem

_CALIBRATED = 6  # largest number of shapes


@dataclass(frozen=True)
class ShapeProblem:
    """Groups of trajectories (`shapes`, indices) that lie on different shapes; the law's home is the shape of most."""

    problem: Problem
    shapes: list[np.ndarray]

    @property
    def home(self) -> int:
        """Index of the shape with most training trajectories."""
        return int(np.argmax([len(self._rows(members, self.problem.train)) for members in self.shapes]))

    @property
    def home_problem(self) -> Problem:
        """The problem restricted to the home shape; without held-out trajectories, fitted ones replace them."""
        members = self.shapes[self.home]
        train, held = (self._rows(members, chosen) for chosen in (self.problem.train, self.problem.validation))
        return replace(self.problem, train=train, validation=held if len(held) else train)

    def data(self, members: np.ndarray, chosen: np.ndarray) -> Data:
        """Those of some trajectories that are `chosen`; internal time, channels in standard deviations."""
        rows = self._rows(members, chosen)
        given = self.problem.fields(rows if len(rows) else members[:1])
        assert given is not None  # points are fixed
        _, t, x, u = (part if len(rows) else part[:0] for part in given)
        return Data(t, x, u, Systems(np.zeros(len(t), dtype=int)))

    def law(self, seconds: float, seed: int, log: Callable[[str], None]) -> tuple[Law, float, Data]:
        """The law at home, the error of its forecasts of held-out trajectories on all shapes, and the data at home.

        Raises UserError if no law forecasts.
        """
        data = [self.data(members, self.problem.train) for members in self.shapes]
        held = [self.data(members, self.problem.validation) for members in self.shapes]
        laws, error = fit_law_on_shapes(data, [self._domains(members) for members in self.shapes],
                                        [one if len(one.u) else None for one in held], seconds=seconds, seed=seed,
                                        log=log)
        return laws[self.home], error, data[self.home]

    def calibrated(self, surrogate: Surrogate) -> Surrogate:
        """The surrogate with standard deviations averaged over calibrations on several held-out shapes."""
        held = [rows for members in self.shapes if len(rows := self._rows(members, self.problem.validation))]
        priors, farthest = [], surrogate.prior.farthest or 0.0
        for rows, model in models_of(surrogate, self.problem.file, held[:_CALIBRATED]):
            batch = self.problem.source.batch(rows, normalised=False)
            priors.append(calibrate(model, batch, 1))
            farthest = max(farthest, model.prior.reach(model.codes(batch), model.code_size))
        return replace(surrogate, prior=replace(pooled(surrogate.prior, priors), farthest=farthest))

    def _rows(self, members: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return members[np.isin(members, chosen)]

    def _domains(self, members: np.ndarray) -> list[Domain]:
        told = Place.of_trajectory(self.problem.file, int(members[0])).domain_arguments
        if told["cells"] is not None:
            return [place for place in domains_of(**told) if not isinstance(place, Box)]
        mesh = triangulate(told["x"])
        return [Region(*mesh, order) for order in (2, 1)]
