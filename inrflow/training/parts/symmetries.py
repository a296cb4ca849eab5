"""Validation of declared symmetries: each is left out in turn, and dropped where that lowers the error."""

from __future__ import annotations

import math

from inrflow.data.symmetries import Symmetries
from inrflow.encoding.prior.modes import OutputModes
from inrflow.training.margins import SYMMETRY_HARMS
from inrflow.training.parts.codes import TrainingCodes, affordable_copies, wanted_copies
from inrflow.training.parts.linear import candidate_sizes, linear_search
from inrflow.training.run import Run

_SHARE = 0.1
_MOST_COPIES = 6
_RIDGES = (1e-10, 1e-6, 1e-3, 1.0, 1e2, 1e4)  # the last where all forecasts diverge: these hardly move


def check_symmetries(run: Run, codes: TrainingCodes, modes: OutputModes) -> Symmetries:
    """The symmetries without which validation errors are not clearly lower. Forecasts that diverge drop none."""
    floor, declared = float(modes.noise.mean()), run.problem.symmetries
    most = min(wanted_copies(run), _MOST_COPIES)
    copies = affordable_copies(run, codes, "check_copies", most, _SHARE, 1 + len(declared))

    def error(symmetries: Symmetries) -> float:
        training = codes.with_copies(run.problem.train, run.problem.augmentation(symmetries), copies, run.config.seed)
        sizes = candidate_sizes(modes.variances, training.transitions, run.config.decoder.code_size)
        few = sorted({sizes[len(sizes) // 2], sizes[3 * len(sizes) // 4], sizes[-1]})
        return linear_search(run, training, codes.validation, floor).search(few, ridges=_RIDGES).least + floor

    with_all, kept = error(declared), declared
    while len(kept):  # the worst first: beside a wrong symmetry, right ones may seem to do harm
        errors = {name: error(kept.without(name)) for name in kept.names}
        for name, without in errors.items():
            run.log.log("symmetries", 0, name=name, kept=with_all, left_out=without)
        name = min(errors, key=lambda name: errors[name])
        if not harms(with_all, errors[name]):
            break
        run.log.say(f"symmetry {name} is dropped: without it the validation error falls from {with_all:.2e} to "
                    f"{errors[name]:.2e} of the variance")
        kept, with_all = kept.without(name), errors[name]
    return kept


def harms(kept: float, left_out: float) -> bool:
    """Whether a symmetry does not hold, by the validation errors with and without it: both must be finite."""
    return math.isfinite(kept) and math.isfinite(left_out) and left_out < SYMMETRY_HARMS * kept
