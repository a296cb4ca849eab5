"""Validation of declared symmetries: each is left out in turn, and dropped where that lowers the error."""

from __future__ import annotations

import math

from inrflow.data.symmetries import Symmetries
from inrflow.encoding.prior.modes import OutputModes
from inrflow.training.margins import SYMMETRY_HARMS, SYMMETRY_HARMS_CONTEXTS
from inrflow.training.parts.codes import TrainingCodes, affordable_copies, wanted_copies
from inrflow.training.parts.environments import quick_score
from inrflow.training.parts.linear import linear_search, sizes_to_try
from inrflow.training.run import Run

_SHARE = 0.1
_MOST_COPIES = 6
_RIDGES = (1e-10, 1e-6, 1e-3, 1.0)
_HEAVIER_RIDGES = (1e2, 1e4)  # where every forecast diverged: these hardly move


def check_symmetries(run: Run, codes: TrainingCodes, modes: OutputModes) -> Symmetries:
    """The symmetries without which validation errors are not clearly lower. Forecasts that diverge drop none."""
    floor = float(modes.noise.mean())
    most = min(wanted_copies(run), _MOST_COPIES)
    copies = affordable_copies(run, codes, "check_copies", most, _SHARE, 1 + len(run.problem.symmetries))

    def score(symmetries: Symmetries) -> float:
        training = codes.with_copies(run.problem.train, run.problem.augmentation(symmetries), copies, run.config.seed)
        if run.problem.environments is not None and codes.validation is not None:
            value = quick_score(run, training, codes.validation, floor)
            if value is not None:
                return value + floor
        sizes = sizes_to_try(run, modes, training)
        few = sorted({sizes[len(sizes) // 2], sizes[3 * len(sizes) // 4], sizes[-1]})
        search = linear_search(run, training, codes.validation, floor)
        found = search.search(few, ridges=_RIDGES).least
        return (found if math.isfinite(found) else search.search(few, ridges=_HEAVIER_RIDGES).least) + floor

    share = SYMMETRY_HARMS if run.problem.environments is None else SYMMETRY_HARMS_CONTEXTS
    kept = run.problem.symmetries
    with_all = score(kept)
    while len(kept):  # the worst first: beside a wrong symmetry, right ones may seem to do harm
        errors = {name: score(kept.without(name)) for name in kept.names}
        for name, without in errors.items():
            run.log.log("symmetries", 0, name=name, kept=with_all, left_out=without)
        name = min(errors, key=lambda n: errors[n] if math.isfinite(errors[n]) else math.inf)
        if not harms(with_all, errors[name], share):
            break
        run.log.say(
            f"symmetry {name} is dropped: without it the validation error falls from {with_all:.2e} to "
            f"{errors[name]:.2e} of the variance"
        )
        kept, with_all = kept.without(name), errors[name]
    return kept


def harms(kept: float, left_out: float, share: float = SYMMETRY_HARMS) -> bool:
    """Whether a symmetry does not hold, by the validation errors with and without it: both must be finite."""
    return math.isfinite(kept) and math.isfinite(left_out) and left_out < share * kept
