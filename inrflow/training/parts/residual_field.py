"""The choice of the residual field, channel by channel: codes alone, a Gaussian process alone (kriging), or both.

Compared in the settings of queries, for a model not fitted to the last frames: at held-out places within observed
windows, and after these at held-out and at observed places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.prior.interpolation_error import MOST_POINTS
from inrflow.encoding.prior.point_modes import projected_on_components
from inrflow.encoding.prior.rbf_residual import restricted_to_points
from inrflow.encoding.residual.field import (
    ChannelField,
    Codes,
    Conditioned,
    Decay,
    ResidualField,
    Rows,
    joined,
    rows_of,
)
from inrflow.encoding.residual.fit import degrees_of_freedom_factor
from inrflow.encoding.residual.neighbours import MOST_OF_TIME
from inrflow.encoding.residual.places import Places, ranks_of_places
from inrflow.evaluation.forecast import forecast
from inrflow.evaluation.residual_errors import Comparison, Fold, Targets, with_factor_in_gaps
from inrflow.model.state_path import observations_and_decoded
from inrflow.model.state_prior import StateEstimate
from inrflow.model.surrogate import Surrogate
from inrflow.training.margins import BETTER, CODES_PAY, WHITE
from inrflow.training.problem import Problem
from inrflow.training.recorder import Tried
from inrflow.training.run import Run

_FOLDS, _TRAJECTORIES, _FRAMES, _VALUES = 3, 4, 48, 500  # largest numbers for the comparison of variants
_WINDOWS, _PAST, _LEADS, _AHEAD = 8, 24, 9, 3000  # for a series: windows, their observed frames, leads and values ahead
_ROWS = 60_000  # largest number of rows for the search of hyperparameters
_MOST_CODES, _DEAR, _SHORT = 1024, 128, 8  # largest and costly numbers of codes; frames of windows if costly
_FEW_CODES = 4  # values of a frame for each code from which codes cannot fit noise
_SHARE, _LEAST = 0.5, 0.15  # shares of the time budget, usually and at least
_SHARES_SEEN, _FEWEST = (5, 20), 12  # inverse shares of observed places, and their least number
_OFTEN, _NEARLY = 20.0, 1.05  # frames for each place from which codes know it; tolerance of the error ahead
_AROUND_GAP, _AMPLE = 6, 10.0  # least window with two hidden frames; frames a code for reliable modes
_FITS, _OF_FEW = (6.0, 9.0), 2 / 3  # cost of searches relative to a fit of the simplest form; share for few places


def choose_residual_field(surrogate: Surrogate, judged: Surrogate, run: Run) -> Surrogate:
    """The surrogate with a residual field if that predicts held-out places clearly better, else unchanged.

    `judged`: the surrogate before it was refitted to all frames.
    """
    if not surrogate.decoder.affine or surrogate.code_size > _MOST_CODES:
        return surrogate
    problem, log, about = run.problem, run.log, surrogate.description
    if not len(problem.validation):  # use observed rows of one trajectory, not frames fitted to them
        problem = replace(problem, source=problem.observed)
    stations = problem.source.points <= 1.5 * MOST_OF_TIME  # kriged even if time is spent
    series = len(problem.source) == 1 and not len(problem.validation) and problem.source.shared_points
    hurried = run.budget.over and not stations
    if hurried and not series:
        return surrogate
    gap = _frames_hidden(judged, problem) if series and not hurried else None
    moving = gap is not None and float(gap.between.error.square().nanmean(0).max()) > WHITE
    # codes trained at few places are overfitted there: they are not used beside kriging
    learned = not isinstance(judged.decoder, DomainHarmonicDecoder)  # harmonics of a law are not trained
    taught = learned and problem.source.moves and not len(problem.validation)  # by the values of the comparison
    if not moving and not taught and _is_noise_free(judged, problem):
        return surrogate
    folds: list[Fold] = []
    for fold in _folds(judged, problem, run.config.seed):
        folds.append(fold)
        left = torch.cat([one.between.error for one in folds]).square().nanmean(0)
        if not float(left.nanmean()) > WHITE and not moving and not taught:  # or no values
            return surrogate
    if not folds:
        return surrogate
    period = tuple(about.period or (0.0,) * len(about.coordinates))
    places = Places.of(period, about.geometry == "sphere", surrogate.box)
    few = taught or (learned and problem.source.shared_points and folds[0].count <= MOST_OF_TIME)
    trained = few and isinstance(judged.decoder, ModulatedSiren)  # at these places: its error there is no measure
    gap = gap if moving and not few else None
    # modes of few frames are overfitted to them if structures move through the field
    seldom = gap is not None and problem.fitted_frames < _AMPLE * judged.code_size
    variants = _Variants(places, _training_rows(surrogate, problem), joined([fold.apart for fold in folds]), run, few,
                         seldom)
    effort = 0 if hurried else variants.effort(len(about.channels)) or int(stations or gap is not None)
    log.say(f"residual field: error of codes alone {float(left.nanmean()):.2e} of the variance at held-out places"
            + ("" if effort else "; no time left to search"))
    chosen: list[ChannelField | None] = []
    tried, most, ends = 0, run.budget.decisions.get("residual_variants"), run.budget.elapsed + variants.seconds

    def over() -> bool:
        return tried > 0 and (run.budget.elapsed > ends if most is None else tried >= most)

    for c, channel in enumerate(about.channels if effort or series else ()):
        best, words, least = None, f"{channel}: codes alone", torch.empty(0)
        leaves = without = float(left[c])
        late = over()  # stations are kriged anyway, at least by the simplest form
        for name, new in variants.of(c, late) if effort and (stations or gap or not late) else ():  # fitted on demand
            tried += not late
            alone = few or (seldom and new.covariance.form.drift)
            weighed, inside, ahead = _with_weight(new, c, folds, gap, places, alone)
            crps = inside.crps(weighed)
            first, margin = best is None, (math.inf if trained else 1 / CODES_PAY) if alone and not best else BETTER
            between, without = (float(e.square().mean()) for e in (inside.missed(weighed), inside.error))
            name, least = f"{channel}: {name}", inside.crps(None) if first else least
            row = log.tried(Tried("residual_field", name, 0, between, ahead))
            if crps.mean() < margin * least.mean():
                words = f"{name}, weight {weighed.weight:.2f}"
                best, least, leaves, row.taken = weighed, crps, between, True
            else:
                row.why = "its CRPS at held-out places is not clearly better"
            if late or over():
                break
        if series and best is None and (best := _persistent_residual(c, folds, places)):
            words += ", with lasting errors at each place"
        log.say(f"residual field, {words}: error {leaves:.2e}, codes alone {without:.2e}{' where trained' * trained}")
        chosen.append(best)
    if effort:
        run.budget.record("residual_variants", tried)
    if any(chosen):
        if few and not taught and problem.fitted_frames > _OFTEN * problem.source.points:
            chosen = _without_known_places(chosen, judged, problem, places, variants.rows, run)
        if problem.source.shared_points and problem.source.time_bins is None and not taught:
            chosen = _with_fewest_places(chosen, judged, problem, places, run.config.seed)
        surrogate.residual = ResidualField(places, tuple(chosen))
    return surrogate


def _persistent_residual(c: int, folds: list[Fold], places: Places) -> ChannelField | None:
    """The Gaussian process of residuals of a channel that persist at their places after the last observation; None if
    forecasts do not improve."""
    rows = joined([replace(rows, u=rows.u - codes) for fold in folds for rows, codes, _ in fold.observed])
    channel = ChannelField.fit(places, rows, c, on_codes=True, lasting=True)
    _, ahead = _comparisons(channel, c, folds, places)
    channel = ahead.select(ahead.seen).ahead(channel)
    return None if channel.observed.decay == Decay() else channel


def _with_fewest_places(chosen: list[ChannelField | None], judged: Surrogate, problem: Problem, places: Places,
                        seed: int) -> list[ChannelField | None]:
    """The processes of channels with the smallest number of observed places from which each is better than codes alone:
    they were chosen with most places of training observed, but in queries fewer may be."""
    count, fewest = problem.source.points, [0.0] * len(chosen)
    if judged.code_size > _DEAR and not len(problem.validation):  # not tested with few
        return [channel and replace(channel, fewest=count / 2) for channel in chosen]
    before = count * (1 - 1 / _FOLDS)
    for kept in sorted({max(count // share, _FEWEST) for share in _SHARES_SEEN} | {_FEWEST}, reverse=True):
        for fold in _folds(judged, problem, seed, kept) if kept < count / 2 else ():
            for c, channel in enumerate(chosen):
                if channel is None or fewest[c]:
                    continue
                errors, _ = _comparisons(channel, c, [fold], places)
                given, alone = (float(one.square().mean()) for one in (errors.missed(channel), errors.error))
                fewest[c] = 0.0 if given <= alone else math.sqrt(kept * before)
        before = kept
    return [channel and replace(channel, fewest=least) for channel, least in zip(chosen, fewest, strict=True)]


def _without_known_places(chosen: list[ChannelField | None], judged: Surrogate, problem: Problem, places: Places,
                          rows: Rows, run: Run) -> list[ChannelField | None]:
    """The processes of channels, disabled at the places of training (`known`) if codes alone predict a third of these
    clearly better from the others, and the future nearly as well: codes contain the means of these places and their
    covariance."""
    result = list(chosen)
    for fold in _folds(judged, problem, run.config.seed, round(problem.source.points * (1 - 1 / _FOLDS))):
        for c, channel in enumerate(chosen):
            if channel is None or channel.on_codes:
                continue
            inside, ahead = _comparisons(channel, c, [fold], places)
            later, alone = (float(one.square().nanmean()) for one in (ahead.missed(channel), fold.ahead.error[:, c]))
            if inside.significantly_less(inside.crps(None), inside.crps(channel)) and not alone > _NEARLY * later:
                result[c] = replace(channel, known=np.unique(rows.x, axis=0))
                run.log.say(f"residual field, {judged.description.channels[c]}: codes alone at the places of training")
    return result


def _comparisons(channel: ChannelField, c: int, folds: list[Fold], places: Places) -> tuple[Comparison, Comparison]:
    """Comparison of the process of a channel, conditioned on the observations of each fold, with codes alone, between
    these values and ahead of them."""
    field = ResidualField(places, (*(None,) * c, channel, *(None,) * (folds[0].between.error.shape[1] - c - 1)))
    between, ahead = [], []
    for fold in folds:
        given = [Conditioned(field, *parts) for parts in fold.observed]
        between.append(fold.between.against(given, c))
        ahead.append(fold.ahead.against(given, c))
        if fold.early is not None:
            observed, later = fold.early
            ahead.append(later.against([Conditioned(field, *parts) for parts in observed], c))
    return Comparison.joined(between), Comparison.joined(ahead)


def _is_noise_free(surrogate: Surrogate, problem: Problem) -> bool:
    """Whether far fewer codes than values reproduce all observations: then there is no noise, and errors between the
    places are due to the decoder."""
    window = TrajectoryBatch.first_frames(*_windows(surrogate, problem))
    parts = observations_and_decoded(surrogate.decoder, surrogate.dynamics, surrogate.estimate(window),
                                     surrogate.internal(window))
    missed = np.concatenate([(rows.u - codes) ** 2 for rows, codes, _ in parts])
    values = np.isfinite(missed).sum() / max(1, sum(len(np.unique(rows.t)) for rows, *_ in parts))
    return bool(values > _FEW_CODES * surrogate.code_size and np.nanmean(missed) < WHITE)


@dataclass
class _Variants:
    """Candidate processes of a channel, fitted to training values or to residuals at held-out places."""

    places: Places
    rows: Rows
    apart: Rows
    run: Run
    few: bool
    seldom: bool
    simplest: ChannelField | None = None  # of the first channel, fitted to measure the time

    @property
    def seconds(self) -> float:
        """Time budget of the search."""
        return max(self.run.budget.seconds(_SHARE), _LEAST * self.run.budget.total)

    def effort(self, channels: int) -> int:
        """2: all forms of covariance are tried, 1: the simplest form, 0: no time."""

        def choose() -> int:
            budget, left, began = self.run.budget, self.seconds, self.run.budget.elapsed
            self.simplest = ChannelField.fit(self.places, self.rows, 0, seed=self.run.config.seed, richer=False)
            each = (budget.elapsed - began) * channels * (_OF_FEW if self.few else 1.0)  # one variant
            return sum(left > fits * each for fits in _FITS)

        return self.run.budget.decide("residual_field", choose)

    def of(self, c: int, late: bool = False) -> Iterator[tuple[str, ChannelField]]:
        """Variants: moving as one component, around the mean, and around codes with the same covariance."""
        richer, seed = not late and (self.run.budget.decisions.get("residual_field") or 0) > 1, self.run.config.seed
        known = self.simplest if c == 0 and not richer else None
        first = known or ChannelField.fit(self.places, self.rows, c, seed=seed, richer=richer)
        if first.covariance.form.drift and not self.few:
            rigid = replace(first, covariance=first.covariance.rigid())
            yield "moving as a whole", ChannelField.fit(self.places, self.rows, c, seed=seed, near=rigid)
        first = with_factor_in_gaps(first, c, self.places, self.rows) if self.few else first
        yield "around the mean", replace(first, kriged=self.few and self.run.problem.observed.shared_points)
        if not self.few and not (self.seldom and first.covariance.form.drift):
            try:
                on_codes = ChannelField.fit(self.places, self.apart, c, on_codes=True, seed=seed, near=first)
            except torch.linalg.LinAlgError:  # residuals at the level of rounding
                return
            yield "on the codes", on_codes


def _with_weight(
    channel: ChannelField, c: int, folds: list[Fold], gap: Fold | None, places: Places, few: bool
) -> tuple[ChannelField, Comparison, float]:
    """The process of a channel with fitted weight relative to codes (1 for `few` places), decay ahead and spreads;
    errors between the observed places, with those in hidden frames if it drifts; mean squared error ahead."""
    inside, outside = _comparisons(channel, c, folds, places)
    if gap and channel.covariance.form.drift:
        inside = Comparison.joined([inside, *len(folds) * [_comparisons(channel, c, [gap], places)[0]]])
    best = float((inside.own * inside.error).sum()) / (float(inside.own.square().sum()) or math.inf)  # least squares
    weighed = [replace(channel, weight=weight) for weight in ((1.0,) if few else (min(max(best, 0.0), 1.0), 1.0))]
    least = degrees_of_freedom_factor(folds[0].count, len(places.period))
    weighed = [inside.between(one, least) for one in weighed]
    channel = min(weighed, key=lambda one: float(inside.crps(one).mean()))
    for seen in (True, False):  # decay ahead, at observed places and at new ones
        channel = outside.select(outside.seen == seen).ahead(channel)
    channel = channel if bool(outside.seen.any()) else replace(channel, observed=channel.new)  # if points move
    return channel, inside, float(outside.missed(channel).square().mean())


def _training_rows(surrogate: Surrogate, problem: Problem) -> Rows:
    """Rows of the training frames, up to a limit."""
    parts: list[Rows] = []
    for inner in (surrogate.internal(problem.source.batch([index], normalised=False)) for index in problem.train):
        parts += rows_of(inner.t, inner.x, inner.u, inner.delay)
        if sum(len(part.t) for part in parts) > _ROWS:
            break
    return joined(parts)


def _folds(surrogate: Surrogate, problem: Problem, seed: int, kept: int | None = None) -> Iterator[Fold]:
    """Folds with a part of the places held out in turn, as if not used in training; if points move, of the values.

    With `kept`: all but this number of places are held out."""
    batch, past = _windows(surrogate, problem)
    points = batch.u.shape[2]
    if points < 2 * _FOLDS:
        return
    rank = torch.as_tensor(ranks_of_places(*batch.places(), seed))
    folds = _FOLDS if len(problem.validation) or surrogate.code_size <= _DEAR else 1
    least = 0.0 if kept is None else kept * (int(rank.max()) + 1) / points
    for held in [rank % _FOLDS == fold for fold in range(folds)] if kept is None else [rank >= least]:
        window = batch.first_frames(past).at(~held)
        if not bool(window.observed.any(1).all()):
            continue
        model = replace(surrogate, residual=None)
        if kept is None and problem.source.shared_points and points <= MOST_POINTS:
            model = replace(model, decoder=restricted_to_points(model.decoder, window.x[0, 0]))
        seen, hidden = None if problem.source.moves else ~held, batch.first_frames(past).at(held)
        estimate, observed, ahead = _ahead(model, batch, past, held, seen)
        inner, early = model.internal(hidden), None
        left = inner.u.double() - forecast(model, estimate, hidden, with_std=False).mean.double()
        if len(problem.validation) and surrogate.window < past and bool(
                window.observed[:, : surrogate.window].any(1).all()):
            early = _ahead(model, batch, surrogate.window, held, seen)[1:]
        yield Fold(observed, _targets(model, estimate, hidden.thinned(_VALUES)[0]), ahead, points,
                   joined(rows_of(inner.t, inner.x, left, inner.delay)), early)


def _ahead(model: Surrogate, batch: TrajectoryBatch, past: int, held: Tensor, seen: Tensor | None
           ) -> tuple[StateEstimate, list[tuple[Rows, np.ndarray, Codes]], Targets]:
    """Estimate from windows of `past` frames without the places `held` (N,), observations of the others, and later
    values, as in `Fold`; `seen` (N,): places that later frames share."""
    window, (later, some) = batch.first_frames(past).at(~held), batch.later(past, _LEADS, _AHEAD)
    estimate = model.estimate(window)
    return (estimate, observations_and_decoded(model.decoder, model.dynamics, estimate, model.internal(window)),
            _targets(model, estimate, later, None if seen is None else seen[some]))


def _targets(
    model: Surrogate, estimate: StateEstimate, batch: TrajectoryBatch, seen: Tensor | None = None,
    mean: Tensor | None = None,
) -> Targets:
    """Residuals of the values of a batch in data units with respect to codes (or a given `mean`); `seen`: which of its
    places were observed, by default none."""
    given, batch = forecast(model, estimate, batch), model.internal(batch)
    assert given.std is not None
    mean = given.mean.double() if mean is None else mean
    t = (batch.t[:, :, None] + (0.0 if batch.delay is None else batch.delay)).expand(batch.u.shape[:3])
    x = batch.x.expand(*batch.u.shape[:3], batch.x.shape[-1])
    number = torch.arange(len(batch))[:, None, None].expand(batch.u.shape[:3])
    known = torch.isfinite(batch.u).any(-1) & torch.isfinite(t)
    seen = torch.zeros(1).bool() if seen is None else seen
    lead = (t - estimate.t.nan_to_num(nan=-torch.inf).amax(1)[:, None, None]).clamp(min=0)
    return Targets(number[known].numpy(), t[known].numpy(), x[known].double().numpy(), (batch.u.double() - mean)[known],
                   given.std[known].double(), lead[known], seen.expand(t.shape)[known], mean[known])


def _frames_hidden(surrogate: Surrogate, problem: Problem) -> Fold | None:
    """Fold with the middle of observed windows of a series hidden at all places; None if they are short."""
    batch, past = _windows(surrogate, problem)
    if past < _AROUND_GAP:
        return None
    window, middle = batch.first_frames(past), slice(past // 2 - 1, past // 2 + 1)
    gap, hidden = window.frames(middle), window.u.clone()
    hidden[:, middle] = torch.nan
    model, window = replace(surrogate, residual=None), window.with_values(hidden)
    estimate, inner, given = model.estimate(window), model.internal(gap), None
    if problem.fitted_frames < _AMPLE * model.code_size:
        train = problem.source.batch(problem.train, normalised=False)
        known = model.internal(train.first_frames(problem.fitted_frames))
        given = forecast(model, estimate, gap, with_std=False).mean.double()
        for own, t in zip(given, inner.t, strict=True):
            others = known.u[0, (known.t[0, :, None] != t).all(1)].double().flatten(1)
            own.copy_(projected_on_components(own.flatten(1), others, model.code_size).view_as(own))
        given = gap.with_values(given).thinned(_VALUES)[0].u
    between = _targets(model, estimate, gap.thinned(_VALUES)[0], mean=given)
    return Fold(observations_and_decoded(model.decoder, model.dynamics, estimate, model.internal(window)), between,
                between, batch.u.shape[2], joined(rows_of(inner.t, inner.x, inner.u, inner.delay)))


def _windows(surrogate: Surrogate, problem: Problem) -> tuple[TrajectoryBatch, int]:
    """Windows of frames, at least in part not fitted by the surrogate, in data units, and the number of their frames
    that count as observed."""
    if len(problem.validation):
        batch = problem.source.batch(problem.validation[:_TRAJECTORIES], normalised=False)
        frames = batch.u.shape[1]
        past = max(min(surrogate.window, frames - 1), frames // 2)
        return batch.frames(slice(max(0, past - _FRAMES), past + _FRAMES)), min(past, _FRAMES)
    most, usual = (1, _SHORT) if surrogate.code_size > _DEAR else (_WINDOWS, _PAST)
    if problem.source.moves:  # frames of few values, as of a profile, count in part
        known = torch.isfinite(problem.held_out(usual, most).u).any(-1)
        usual = round(usual / max(float(known.double().mean()), usual / problem.fitted_frames))
    past = min(max(surrogate.window, usual), problem.fitted_frames)
    return problem.held_out(past, most), past
