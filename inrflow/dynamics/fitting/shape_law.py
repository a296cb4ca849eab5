"""fit_law_on_shapes: one law for trajectories on different shapes, each with its own harmonics.

The normal equations of all shapes are added, shell by shell of equally many harmonics; coefficients are refined along
rollouts on all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from inrflow.domains import Domain
from inrflow.dynamics.laws.families import families_of, regress
from inrflow.dynamics.laws.law import Law, Segments, integrable, max_norm, pruned, segments, well_posed
from inrflow.dynamics.laws.refinement.final import simplest, worse
from inrflow.dynamics.laws.refinement.rollouts import Refinement
from inrflow.dynamics.laws.setting import Data, EncodedData, Log, choose_basis, condition_count, encode, forecast_errors
from inrflow.encoding.harmonic_codes import HarmonicCodes, fit_codes
from inrflow.errors import UserError
from inrflow.numerics.effort import effort

_JUDGED = 6  # number of candidates
_LENGTHS = (1, 3)  # frames of the rollouts that refine coefficients
_SHARE = 0.2  # share of the budget for a refinement
_EXACT = 1e-12  # forecast error at the level of rounding


def fit_law_on_shapes(data: Sequence[Data], domains: Sequence[Sequence[Domain]], judges: Sequence[Data | None], *,
                      seconds: float, seed: int, log: Log) -> tuple[list[Law], float]:
    """The law whose forecasts of held-out trajectories are best, on each shape, and their mean error.

    data: of each shape, without trajectories if the shape is held out; domains: plausible ones of each shape, in the
    same order; judges: held-out trajectories on the same shapes. Raises UserError if no law forecasts.
    """
    effort.restart()
    start = effort()
    shown = [i for i, one in enumerate(data) if len(one.u)]
    place, boundary, count, _ = choose_basis(list(domains[shown[0]]), None, data[shown[0]], seed, log)
    number = next(i for i, one in enumerate(domains[shown[0]]) if one is place)
    places = [every[number] for every in domains]
    harmonics = [one.harmonics(count * condition_count(boundary), boundary) for one in places]
    count = min(one.count for one in harmonics)
    harmonics = [one.harmonics(count, boundary) for one in places]
    priors = [fit_codes(harmonics[i], data[i].x, data[i].u) for i in shown]
    mean, variance = (np.mean([getattr(one, name) for one in priors], 0) for name in ("mean", "variance"))
    codes = [HarmonicCodes(one, mean, variance) for one in harmonics]
    shapes = [EncodedData(places[i], boundary, codes[i], data[i], *encode(codes[i], data[i])) for i in shown]
    log(f"{len(harmonics)} shapes: {count} harmonics each, effort {effort() - start:.1f} s")

    def there(law: Law, shape: int) -> Law:
        return replace(law, domain=places[shape], codes=codes[shape])

    def errors(law: Law) -> np.ndarray:
        return np.concatenate([forecast_errors(there(law, i), judge) for i, judge in enumerate(judges)
                               if judge is not None])

    scored = []
    first = shapes[0]
    largest, t = max(max_norm(shape.states) for shape in shapes), first.train.t
    for _, one in regress(shapes, families_of(first.domain, first.codes.harmonics, first.states)):
        law = integrable(replace(one, largest=largest), t, first.states) if well_posed(one, t) else None
        if law is None:
            continue
        missed = errors(law)
        log(f"  error {missed.mean():.2e} with {law.size} terms, effort {effort() - start:.1f} s")
        if np.isfinite(missed).all():
            scored.append((missed, law))
        if len(scored) >= _JUDGED or (scored and effort() - start > 0.5 * seconds):
            break
    if not scored:
        raise UserError("no law forecasts the held-out trajectories on all shapes; the data may not follow a local "
                        "equation")
    best, law = simplest(scored)
    best = np.maximum(best, _EXACT)
    for length in _LENGTHS:
        if effort() - start > (1 - _SHARE) * seconds or length >= shapes[0].states.shape[1]:
            break
        refinement = _refinement(law, shapes, length, _SHARE * seconds)
        refined = refinement.estimated(refinement.run())[1][0]
        after = np.maximum(errors(refined), _EXACT)
        log(f"  refined on {length} frames: {best.mean():.3e} to {after.mean():.3e}, effort {effort() - start:.1f} s")
        if not worse(after, best):
            law, best = pruned(refined), after
    return [there(law, i) for i in range(len(places))], float(best.mean())


def _refinement(law: Law, shapes: Sequence[EncodedData], length: int, seconds: float) -> Refinement:
    """Refinement of coefficients along rollouts of `length` frames on all shapes at once."""
    parts, before = [], 0
    for number, shape in enumerate(shapes):
        own = segments(shape.train.t, shape.states, shape.spread, length, np.full(len(shape.states), number))
        parts.append(replace(own, trajectory=own.trajectory + before))
        before += len(shape.states)
    known = np.min([shape.known for shape in shapes], 0)
    return Refinement(law, Segments.join(parts), known, seconds, shapes=[one.codes.harmonics for one in shapes])
