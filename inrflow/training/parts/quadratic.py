"""Quadratic closed-form dynamics as a candidate: how many codes and products, judged by held-out rollouts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.quadratic import QuadraticFit, QuadraticForm
from inrflow.dynamics.states import CodeData, with_memory
from inrflow.training.judge import rollout_error
from inrflow.training.recorder import Interrupted, Recorder

_LARGEST_SIZE, _LARGEST_COUNT = 200, 4000
_STEP = 0.5
_SPEED = 1e10  # multiplications a second of one core, a cautious figure
_PASSES = 3
_DETERMINED = 2.0  # transitions an unknown: from there on a larger field only gains


@dataclass(frozen=True)
class QuadraticStage:
    """Search on the codes of training trajectories `taught`, judged on those `judged` from frame `first` on."""

    taught: CodeData
    judged: CodeData
    first: int
    recorder: Recorder

    def count(self, wanted: int | None, seconds: float) -> int:
        """Number of products: as wanted, or what normal equations of their size allow in the time."""
        if wanted is not None:
            return wanted
        transitions = self.taught.transitions
        features = math.sqrt(max(seconds, 0.0) * _SPEED / (_PASSES * max(1, transitions)))
        return int(min(_LARGEST_COUNT, max(0, features)))

    def error(self, field: VectorField) -> float:
        """Validation error, share of the variance of the codes: what the size cuts off counts."""
        size = field.state_size
        states = with_memory(self.judged, size, None)
        return rollout_error(field, Integrator(step=_STEP), states, self.judged, self.first, size)

    def search(self, sizes: list[int], count: int) -> QuadraticForm | None:
        """The best of all sizes; None where each of them diverges."""
        largest = min(_LARGEST_SIZE, max(sizes))
        sizes = sorted({min(size, largest) for size in sizes}, reverse=True)
        best: QuadraticForm | None = None
        worse = 0
        for size in sizes:
            fit = QuadraticFit(with_memory(self.taught, size, None), count)
            found = fit.search(self.error)
            if self.recorder.stopping:
                raise Interrupted
            if found is not None:
                self.recorder.log("quadratic", 0, code_size=size, validation=found.score)
            if found is not None and (best is None or found.score < best.score):
                best, worse = found, 0
            else:
                worse += 1
            if worse > 1 or (best is not None and fit.transitions > _DETERMINED * (1 + size + len(fit.left))):
                break
        return best

    @staticmethod
    def refit(form: QuadraticForm, states: CodeData, size: int | None = None) -> QuadraticForm:
        """The form fitted anew, with its ridges, to the first `size` codes (None: as many) of all trajectories."""
        return QuadraticFit(with_memory(states, size or form.size, None), len(form.left)).refit(form.ridges)

