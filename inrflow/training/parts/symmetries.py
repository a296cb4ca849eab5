"""Whether declared symmetries hold: each is left out, and validation says what that does to the dynamics."""

from __future__ import annotations

import math

from inrflow.data.symmetries import Symmetries
from inrflow.encoding.prior.modes import OutputModes
from inrflow.training.parts.codes import CodeBook, affordable_copies, wanted_copies
from inrflow.training.parts.environments import ContextStage
from inrflow.training.problem import TrainingSetup
from inrflow.training.recipes.reduced_order import closed_form_search, sizes_to_try

_SHARE = 0.1
_MOST_COPIES = 6
_HARMS = 0.8  # a symmetry is dropped when leaving it out lowers the validation error below this share
_HARMS_CONTEXTS = 0.4  # of small candidates with contexts, whose errors vary more with the copies that are drawn
_RIDGES = (1e-10, 1e-6, 1e-3, 1.0)
_HEAVIER_RIDGES = (1e2, 1e4)  # where every forecast diverged: these hardly move


def check_symmetries(setup: TrainingSetup, book: CodeBook, modes: OutputModes) -> Symmetries:
    """The symmetries that validation does not speak against. Forecasts that diverge tell nothing: they drop none."""
    floor = float(modes.noise.mean())
    most = min(wanted_copies(setup), _MOST_COPIES)
    copies = affordable_copies(setup, book, "check_copies", most, _SHARE, 1 + len(setup.symmetries))

    def score(symmetries: Symmetries) -> float:
        training = book.with_copies(setup.training, setup.augmentation(symmetries), copies, setup.config.seed)
        if setup.environments is not None and book.held is not None:
            value = ContextStage(setup, setup.environments).quick_score(training, book.held, floor)
            if value is not None:
                return value + floor
        sizes = sizes_to_try(setup, modes, training)
        few = sorted({sizes[len(sizes) // 2], sizes[3 * len(sizes) // 4], sizes[-1]})
        search = closed_form_search(setup, training, book.held, floor)
        found = search.search(few, ridges=_RIDGES).least
        return (found if math.isfinite(found) else search.search(few, ridges=_HEAVIER_RIDGES).least) + floor

    share = _HARMS if setup.environments is None else _HARMS_CONTEXTS
    kept = setup.symmetries
    with_all = score(kept)
    while len(kept):  # the worst first: beside a wrong symmetry, right ones may seem to do harm
        errors = {name: score(kept.without(name)) for name in kept.names}
        for name, without in errors.items():
            setup.recorder.log("symmetries", 0, name=name, kept=with_all, left_out=without)
        name = min(errors, key=lambda n: errors[n] if math.isfinite(errors[n]) else math.inf)
        if not speaks_against(with_all, errors[name], share):
            break
        setup.recorder.say(
            f"symmetry {name} is dropped: without it the validation error falls from {with_all:.2e} to "
            f"{errors[name]:.2e} of the variance"
        )
        kept, with_all = kept.without(name), errors[name]
    return kept


def speaks_against(kept: float, left_out: float, share: float = _HARMS) -> bool:
    """Whether validation errors with and without a symmetry say that it does not hold: both must be finite."""
    return math.isfinite(kept) and math.isfinite(left_out) and left_out < share * kept
