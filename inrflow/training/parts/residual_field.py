"""The choice of the residual field: codes alone, a Gaussian process alone (kriging around the mean), or both.

Judged where users ask: at places that are held out, within the observed window, and on frames after it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.base import has_output_layer
from inrflow.encoding.prior.interpolation_error import MOST_POINTS
from inrflow.encoding.residual.field import ResidualField, Rows, joined, rows_of
from inrflow.encoding.residual.places import Places
from inrflow.evaluation.forecast import forecast
from inrflow.model.residual import with_residual
from inrflow.model.state_prior import StateEstimate
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.normal import HALF_WIDTH_90
from inrflow.training.margins import BETTER, WHITE
from inrflow.training.problem import Problem
from inrflow.training.recorder import Tried
from inrflow.training.run import Run

_FOLDS, _TRAJECTORIES, _FRAMES, _VALUES = 2, 4, 96, 1200  # that judge
_ROWS = 60_000  # that hyper-parameters are sought in
_FEWEST = 10  # errors of which a quantile is taken
_TRUNK = 1e-8  # ridge, relative: numerical null space of features at fewer points


@dataclass
class Errors:
    """Errors, in the held-out places of the window and after it, (V, C), and the predicted deviations there."""

    between: Tensor
    between_std: Tensor
    ahead: Tensor
    ahead_std: Tensor

    @property
    def score(self) -> tuple[float, float]:
        """Mean squared errors of normalised values between the observed places and ahead; NaN where none."""
        return float(self.between.square().nanmean()), float(self.ahead.square().nanmean())

    def spread(self) -> Tensor:
        """Factors (C,) with which 90 % intervals hold 90 % of the errors at held-out places."""
        scaled = [c[torch.isfinite(c)] for c in (self.between.abs() / self.between_std / HALF_WIDTH_90).T]
        factors = [c.quantile(0.9) if len(c) > _FEWEST else c.new_tensor(1.0) for c in scaled]
        return torch.stack(factors).clamp(0.05, 1e3)


def choose_residual_field(surrogate: Surrogate, run: Run) -> Surrogate:
    """The surrogate with the residual field that predicts held-out places clearly better than without, or as it is."""
    try:
        return _chosen(surrogate, run) if surrogate.decoder.affine else surrogate
    except (ArithmeticError, ValueError, RuntimeError) as error:  # LinAlgError is one of the last two
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        run.log.say(f"the search for a residual field failed and is passed over: {reason}")
        return surrogate


def _chosen(surrogate: Surrogate, run: Run) -> Surrogate:
    problem, log = run.problem, run.log
    if run.budget.known("residual_field") != 1:
        return surrogate
    judged = _judged(problem)
    inner = surrogate._inner(problem.source.batch(judged, normalised=False))
    folds = list(_folds(surrogate, inner, problem, run.config.seed))
    if not folds:
        return surrogate
    codes = _joined([fold.errors(None) for fold in folds])
    if not codes.score[0] > WHITE:  # or nothing to compare by
        return surrogate
    log.say(f"residual field: codes leave {codes.score[0]:.2e} at held-out places, {codes.score[1]:.2e} ahead")
    description = surrogate.description
    period = description.period or (0.0,) * len(description.coordinates)
    places = Places(tuple(period), description.geometry == "sphere")
    best, best_errors, best_name = None, codes, "codes alone"
    for name, field in _fields(surrogate, problem, places, folds, run.config.seed):
        errors = _joined([fold.errors(field) for fold in folds])
        row = log.tried(Tried("residual_field", name, 0, errors.score[0], errors.score[1]))
        log.say(f"residual field: {name} leaves {errors.score[0]:.2e} at held-out places, {errors.score[1]:.2e} ahead")
        if _better(errors.score, best_errors.score):
            best, best_errors, best_name, row.taken = field, errors, name, True
        else:
            row.why = f"not clearly better than {best_name} at held-out places"
    if best is None:
        return surrogate
    surrogate.residual = best
    surrogate.prior.spread, surrogate.prior.growth = best_errors.spread(), None
    return surrogate


def _better(new: tuple[float, float], old: tuple[float, float]) -> bool:
    """Clearly better between places and not worse ahead, on the whole."""
    ratios = [n / max(o, 1e-300) for n, o in zip(new, old, strict=True) if n == n and o == o]
    return bool(ratios) and float(np.prod(ratios)) ** (1 / len(ratios)) < BETTER


def _judged(problem: Problem) -> np.ndarray:
    """Trajectories that judge: some of the held-out ones, else of those of training."""
    judged = problem.validation if len(problem.validation) else problem.train
    return judged[:_TRAJECTORIES]


def _fields(
    surrogate: Surrogate, problem: Problem, places: Places, folds: list[Fold], seed: int
) -> Iterator[tuple[str, ResidualField]]:
    """Candidates: around the mean, with offsets of places, with the codes' forecast ahead; and on the codes."""
    rows = _training_rows(surrogate, problem)
    fields = [ResidualField.fit(places, rows, on_codes=False, seed=seed)]
    yield "a Gaussian process around the mean", fields[0]
    if problem.source.shared_points:
        with_offsets = ResidualField.fit(places, rows, on_codes=False, offsets=True, seed=seed, near=fields[0])
        if with_offsets.offsets is not None:
            fields.append(with_offsets)
            yield "a Gaussian process around the means of places", with_offsets
    for field in fields:
        words = "the mean" if field.offsets is None else "the means of places"
        yield f"a Gaussian process around {words}, forecasts of the codes ahead", replace(field, ahead=True)
    if all(fold.window.delay is None for fold in folds):
        left = joined([part for fold in folds for part in fold.residuals()])
        on_codes = ResidualField.fit(places, left, on_codes=True, seed=seed, near=fields[0])
        yield "a Gaussian process on the codes", on_codes


def _training_rows(surrogate: Surrogate, problem: Problem) -> Rows:
    """Rows of the training frames, as many as are looked at."""
    parts: list[Rows] = []
    for index in problem.train:
        inner = surrogate._inner(problem.source.batch([index], normalised=False))
        parts += rows_of(inner.t, inner.x, inner.u, inner.delay)
        if sum(len(part.t) for part in parts) > _ROWS:
            break
    return joined(parts)


@dataclass
class Fold:
    """A window of frames of which some places are held out, and what comes after it.

    Attributes:
        window: observed, at the places that are kept. hidden: the held-out places in its frames; ahead: all places in
            later frames; internal units. places: (M, d) the held-out ones.
        decoder: which has not seen them. estimate: states from the window.
    """

    window: TrajectoryBatch
    hidden: TrajectoryBatch
    ahead: TrajectoryBatch | None
    places: np.ndarray
    surrogate: Surrogate
    estimate: StateEstimate

    def errors(self, field: ResidualField | None) -> Errors:
        """Errors with a residual field or without."""
        own, estimate = self.surrogate, self.estimate
        if field is not None:
            field = field.without(self.places)
            own = replace(own, residual=field, prior=replace(
                own.prior, spread=torch.ones_like(own.prior.spread), growth=None))
            if field.on_codes:
                estimate = _estimate(own, self.window)
            else:
                estimate = with_residual(own.decoder, estimate, self.window, field)
        parts = []
        for batch in (self.hidden, self.ahead):
            if batch is None:
                parts += [torch.full((0, len(own.prior.noise)), torch.nan, dtype=torch.float64)] * 2
                continue
            predicted = forecast(own, estimate, _external(own, batch))
            assert predicted.std is not None
            parts += [(predicted.mean.double() - batch.u.double()).flatten(0, 2), predicted.std.flatten(0, 2)]
        return Errors(*parts)

    def residuals(self) -> list[Rows]:
        """What codes from the kept places leave at the held-out ones."""
        predicted = forecast(self.surrogate, self.estimate, _external(self.surrogate, self.hidden), with_std=False)
        return rows_of(self.hidden.t, self.hidden.x, self.hidden.u.double() - predicted.mean.double())


def _external(surrogate: Surrogate, inner: TrajectoryBatch) -> TrajectoryBatch:
    delay = None if inner.delay is None else inner.delay * surrogate.scale.unit
    return TrajectoryBatch(surrogate.scale.external(inner.t), inner.x, inner.u, delay)


def _estimate(surrogate: Surrogate, window: TrajectoryBatch) -> StateEstimate:
    """As `Surrogate.estimate`, of a window in internal units."""
    return surrogate.estimate(_in_data_units(surrogate, window))


def _in_data_units(surrogate: Surrogate, inner: TrajectoryBatch) -> TrajectoryBatch:
    outer = _external(surrogate, inner)
    return outer.with_values(surrogate.normalisation.invert(outer.u))


def _folds(surrogate: Surrogate, inner: TrajectoryBatch, problem: Problem, seed: int) -> Iterator[Fold]:
    """Places held out in turn, a part each; moving or scattered points: values."""
    random = np.random.default_rng([seed, 23])
    points = inner.u.shape[2]
    if points < 2 * _FOLDS:
        return
    part = np.arange(points)
    part[random.permutation(points)] = np.arange(points) % _FOLDS
    cut = problem.fitted_frames if not len(problem.validation) else max(surrogate.window, inner.u.shape[1] // 2)
    first = max(0, cut - _FRAMES)
    for fold in range(_FOLDS):
        held = torch.as_tensor(part == fold)
        window = _at(inner.frames(slice(first, cut)), ~held)
        if not bool(window.observed.any(1).all()):
            continue
        hidden = _thinned(_at(inner.frames(slice(first, cut)), held))
        ahead = _thinned(inner.frames(slice(cut, cut + _FRAMES // 2))) if cut < inner.u.shape[1] else None
        model = surrogate
        if problem.source.shared_points and points <= MOST_POINTS:
            model = _without(surrogate, window.x[0, 0])
        model = replace(model, residual=None)
        yield Fold(window, hidden, ahead, hidden.x[0, 0].double().numpy() if hidden.x.shape[1] == 1 else
                   np.empty((0, hidden.x.shape[-1])), model, _estimate(model, window))


def _thinned(batch: TrajectoryBatch) -> TrajectoryBatch:
    """Every k-th frame, as many as are looked at."""
    return batch.frames(slice(None, None, max(1, batch.u[..., 0].numel() // _VALUES)))


def _at(batch: TrajectoryBatch, places: Tensor) -> TrajectoryBatch:
    delay = None if batch.delay is None else batch.delay[:, :, places]
    return TrajectoryBatch(batch.t, batch.x[:, :, places], batch.u[:, :, places], delay)


def _without(surrogate: Surrogate, kept: Tensor) -> Surrogate:
    """The surrogate whose output layer knows its modes at the places `kept` (N, d) alone, by projection onto their
    features: as many features as places interpolate anything there, and the error at others is that of interpolation.
    """
    decoder = surrogate.decoder
    if not has_output_layer(decoder):
        return surrogate
    decoder = copy.deepcopy(decoder)
    with torch.no_grad():
        features = decoder.features(kept.to(next(decoder.parameters()).dtype)).double()
        gram = features @ features.T
        gram.diagonal().add_(_TRUNK * gram.diagonal().mean())
        projection = features.T @ torch.linalg.solve(gram, features)
        decoder.set_output(decoder.output.double() @ projection, decoder.output_map.double() @ projection)
    return replace(surrogate, decoder=decoder.eval())


def _joined(parts: list[Errors]) -> Errors:
    return Errors(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))
