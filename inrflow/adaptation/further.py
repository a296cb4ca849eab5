"""Adaptation beyond the context: the coefficients of a law, or a decoder's output layer and the vector field.

The latter are fitted in closed form, with a penalty on their change from pretraining. The penalty, and whether a part
is changed at all, is chosen by held-out frames: the last trajectory, or the last frames of a single one. Then all
frames are fitted.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from inrflow.adaptation.context import Adaptation, adapt_context
from inrflow.adaptation.field_refit import refitted_field
from inrflow.adaptation.law_refit import can_refit, refitted_law
from inrflow.adaptation.output_refit import refitted_output
from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import AffineDecoder, has_output_layer
from inrflow.dynamics.laws.term import LawTerm
from inrflow.encoding.encode import CodeData
from inrflow.errors import UserError
from inrflow.model.surrogate import Surrogate

PULLS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_CLEARLY_BETTER, _FAR_BETTER = 0.95, 0.5  # largest ratio of errors after and before; of coefficients of laws, which
# few frames determine where they were seen alone
_KEPT_BACK = 0.3  # share of the frames of a single trajectory
_SECONDS = 4.0  # of effort for the coefficients of a law, each time

_FITTED_ANEW = "(as in training; the coefficients were then fitted to the system adapted to)"

Fit = Callable[[float], Surrogate]
Prepare = Callable[[Surrogate, list[TrajectoryBatch]], Fit]


@dataclass(frozen=True)
class Step:
    """Outcome of one part of the adaptation: its penalty `pull`, None if the part is unchanged, and the error of
    forecasts of held-out frames, mean square in normalised units, before and after."""

    part: str
    pull: float | None
    before: float
    after: float


def adapt_further(
    surrogate: Surrogate, batches: list[TrajectoryBatch], field_too: bool
) -> tuple[Adaptation, list[Step]]:
    """Context and further parts adapted to trajectories (data units) and copies of them: of laws their coefficients,
    of others the decoder and, if `field_too`, the vector field.

    Raises UserError as `adapt_context` and `held_out_part`, and if there is neither a law nor a decoder whose output
    layer alone its code sets.
    """
    parts: dict[str, tuple[Prepare, Sequence[float]]] = {}
    most = _CLEARLY_BETTER
    if can_refit(surrogate, batches[0]) and field_too:
        parts, most = {"coefficients of the law": (law_fit, (0.0,))}, _FAR_BETTER
    elif has_output_layer(surrogate.decoder):
        parts = {"decoder": (output_fit, PULLS)}
        if field_too:
            parts["field"] = field_fit, PULLS
    else:
        raise UserError("adapt.strength=decoder and all need a decoder whose code enters only its output layer, or, "
                        "for all, a law; give adapt.strength=context")
    began = time.perf_counter()
    fitted, judged, window = held_out_part(batches, surrogate.window)
    trial = _in_context(surrogate, fitted).surrogate
    steps: list[Step] = []
    chosen: list[tuple[str, float]] = []
    for name, (prepare, pulls) in parts.items():
        fit = prepare(trial, fitted)
        before = forecast_error(trial, judged, window)
        best: tuple[float, float, Surrogate] | None = None
        for pull in pulls:
            candidate = fit(pull)
            error = forecast_error(candidate, judged, window)
            if best is None or error < best[0]:
                best = error, pull, candidate
        assert best is not None
        worthwhile = best[0] < most * before
        steps.append(Step(name, best[1] if worthwhile else None, before, best[0]))
        if worthwhile:
            trial = best[2]
            chosen.append((name, best[1]))
    adaptation = _in_context(surrogate, batches)
    result, numbers = adaptation.surrogate, adaptation.numbers
    for name, pull in chosen:
        result = parts[name][0](result, batches)(pull)
        numbers += _numbers(result, name)
    training = {**result.training, "adapted": "all" if field_too else "decoder"}
    if chosen and result.field.get(LawTerm) is not None:
        training["equation"] = [*training.get("equation", ()), _FITTED_ANEW]
    result = replace(result, training=training)
    return Adaptation(result, numbers, time.perf_counter() - began, adaptation.estimate), steps


def enough_for_coefficients(surrogate: Surrogate, batch: TrajectoryBatch) -> bool:
    """Whether the coefficients of a law can be fitted to a batch, and frames be kept back to judge by."""
    least = 1 + max(surrogate.window, 1 if len(batch) > 1 else 2)
    return can_refit(surrogate, batch) and batch.u.shape[1] >= least


def _in_context(surrogate: Surrogate, batches: list[TrajectoryBatch]) -> Adaptation:
    """The surrogate with the context of the batches; a law may have none, and is adapted by its coefficients alone."""
    if not surrogate.context_size and can_refit(surrogate, batches[0]):
        return Adaptation(surrogate, 0, 0.0, None)
    return adapt_context(surrogate, batches)


def held_out_part(batches: list[TrajectoryBatch],
                  needed: int = 1) -> tuple[list[TrajectoryBatch], TrajectoryBatch, int]:
    """Batches to fit to, held-out original frames, and the number of these that are observed before the forecast, which
    has `needed` frames. Raises UserError where no frame is left to forecast."""
    original = batches[0]
    frames = original.u.shape[1]
    if len(original) > 1 and needed < frames:
        fewer = slice(0, len(original) - 1)
        return [batch.select(fewer) for batch in batches], original.select(slice(len(original) - 1, None)), needed
    window = max(2, needed, frames - max(1, round(_KEPT_BACK * frames)))
    if window >= frames:
        raise UserError(f"{frames} frames of one trajectory are given, too few to hold some out, as adapt.strength="
                        "decoder and all do; give 3 frames or more, or adapt.strength=context")
    return [batch.first_frames(window) for batch in batches], original, window


def forecast_error(surrogate: Surrogate, batch: TrajectoryBatch, window: int) -> float:
    """Mean squared error, normalised units, of forecasts from frame `window` - 1 of a batch in data units."""
    seen = batch.frames(slice(max(window - surrogate.window, 0), window))
    estimate = surrogate.estimate(seen, covariance=False)
    inner = surrogate.scale.internal(batch.t)
    states = surrogate.dynamics.flow(estimate.mean[:, -1], inner[:, window - 1 :], check=False)[:, 1:]
    rest = batch.frames(slice(window, None))
    dtype = next(surrogate.decoder.parameters()).dtype
    with torch.no_grad():
        decoded = surrogate.decoder(rest.x.to(dtype), states[..., : surrogate.code_size].to(dtype))
    missed = (decoded - surrogate.normalisation.apply(rest.u)).double().square()
    error = float(missed[torch.isfinite(rest.u)].mean())
    return error if error == error else float("inf")


def law_fit(surrogate: Surrogate, batches: list[TrajectoryBatch]) -> Fit:
    """Fit of the coefficients of a law to the original frames, held near those before."""
    return lambda _: refitted_law(surrogate, batches[0], _SECONDS, held=True)


def output_fit(surrogate: Surrogate, batches: list[TrajectoryBatch]) -> Fit:
    """Map of the penalty `pull` to the surrogate with its output layer refitted, at codes of its dynamics."""
    size = surrogate.code_size
    codes = [surrogate.estimate(batch, covariance=False).mean[..., :size] for batch in batches]
    inner = [batch.with_values(surrogate.normalisation.apply(batch.u)) for batch in batches]
    spread = surrogate.prior.variances[:size]

    def fit(pull: float) -> Surrogate:
        decoder = copy.deepcopy(surrogate.decoder)
        assert isinstance(decoder, AffineDecoder)
        decoder.set_output(*refitted_output(decoder, inner, codes, spread, pull))
        return replace(surrogate, decoder=decoder.eval())

    return fit


def field_fit(surrogate: Surrogate, batches: list[TrajectoryBatch]) -> Fit:
    """Map of the penalty `pull` to the surrogate with the affine part of its field refitted to transitions."""
    size, contexts = surrogate.code_size, surrogate.context_size
    codes = CodeData.join([surrogate.codes(batch) for batch in batches])
    context = surrogate.prior.context(contexts).mean
    constant = context.expand(*codes.codes.shape[:-1], contexts)
    states = CodeData(torch.cat([codes.codes.double(), constant], -1), codes.t, codes.observed)
    spread = surrogate.prior.variances[:size]

    def fit(pull: float) -> Surrogate:
        field = refitted_field(surrogate.field, surrogate.integrator, states, spread, pull)
        return replace(surrogate, field=field.eval())

    return fit


def _numbers(surrogate: Surrogate, part: str) -> int:
    if (law := surrogate.field.get(LawTerm)) is not None:
        return int(law.theta.count_nonzero())
    if part == "field":
        return surrogate.field.linear.matrix.numel() + surrogate.field.linear.bias.numel()
    assert isinstance(surrogate.decoder, AffineDecoder)
    return surrogate.decoder.output.numel() + surrogate.decoder.output_map.numel()
