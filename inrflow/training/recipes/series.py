"""Recipe: one long series at fixed points, forecast by a linear inverse model with lags around its seasonal cycle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.plausible import hampel_filter
from inrflow.data.stations import cell_means
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.dynamics.fields.autoregression import AutoregressionTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.autoregression import (
    Autoregression,
    AutoregressionSearch,
    Choice,
    blocks_of,
    companion,
    lagged,
    persistence_shares,
    relaxation_range,
)
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import frames_needed, series_windows
from inrflow.encoding.encode import CodeData
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.encoding.prior.point_modes import Cycle, PointModes, principal_components, shrunk_cycle
from inrflow.encoding.prior.short_records import short_records, with_own_codes
from inrflow.encoding.prior.truncation import Truncation
from inrflow.evaluation.references.training_data import cycle_of, regular_frames
from inrflow.model.state_prior import state_prior
from inrflow.model.surrogate import Surrogate
from inrflow.numerics.effort import seconds_of
from inrflow.training.candidate import Candidate, Score
from inrflow.training.problem import WINDOWS, Problem
from inrflow.training.run import Run

_FEWEST_OF_SERIES, _EMPTIEST = 24, 20  # least number of frames; most steps of a frame
_FEWEST_NODES, _MOST_NODES = 512, 4096  # numbers of radial functions
_SHARE, _SOLVES = 0.1, 3.0  # share of the budget for these; their cost in products, times n^3
_AROUND = 1.4  # factor by which the number of codes may change with all frames
_PHASE_VARIANCE = 0.5
_CALIBRATED = 400  # largest number of windows for calibration
_FRAMES_OF_CODE = 6.0  # least number of frames for each code that is not coupled


class SeriesRecipe:
    """Seasonal cycle, principal components at the points, and a vector autoregression of their codes."""

    name = "series"

    def applies(self, problem: Problem, best: Candidate | None) -> str | None:
        """None, or why the data are not a regular series."""
        if not problem.has_solved_codes:
            return "the configured codes are not a linear solve"
        if asked := problem.setting_excluding_laws:
            return asked
        if problem.config.dynamics.memory is not None:
            return "dynamics.memory sets other dynamics"
        if len(problem.source) > 1 or problem.environments is not None:
            return "several trajectories are given, not one series"
        if problem.file.point_layout == "moving" or problem.source.time_bins is not None:
            return "points move"
        frames = problem.fitted_frames
        if frames < _FEWEST_OF_SERIES:
            return f"the training data have {frames} frames, a series needs {_FEWEST_OF_SERIES}"
        if _steps(*_observed(problem)) is None:
            return "times share no step"
        return None

    def propose(self, run: Run) -> Iterator[Candidate]:
        """One candidate, chosen by cross-validation over blocks of frames."""
        problem = run.problem
        grid = _grid(problem)
        assert grid is not None
        later = grid.frames >= problem.fitted_frames
        cut = int(later.nonzero()[0]) if bool(later.any()) else len(later)
        began, early = run.budget.elapsed, _Series.fitted(problem, grid.until(cut))
        if early.channels > 1 and run.budget.decide(
                "modes_of_each", lambda: int(run.budget.elapsed - began < run.budget.seconds(_SHARE))):
            apart = _Series.fitted(problem, grid.until(cut), each=True)
            early = apart if apart.missed(grid, cut) < early.missed(grid, cut) else early
        choice = early.regression.choice
        cycle = ", ".join(f"{count} harmonics of {period * problem.scale.unit:g}" for period, count in
                          zip(early.cycle.periods, early.cycle.harmonics, strict=True)) or "no cycle"
        error = float(early.regression.errors.mean()) * early.share
        way = "half way to" if choice.half else f"ridge {choice.ridge:g} towards"
        run.log.say(
            f"series: {choice.size} of {early.codes} codes coupled, {choice.lags} lags, {way} damped persistence, "
            f"{cycle}; error of forecasts of left-out blocks {error:.2e} of the variance over leads 1 to "
            f"{len(early.regression.errors)}"
        )
        (decoder, unseen), prior, states = early.decoder(problem), early.prior(), early.states(grid)
        window = frames_needed(early.size, early.past)
        judged = _windows(states, cut, window)
        unknowns = early.codes + choice.size * (1 + choice.lags * choice.size)
        yield Candidate(
            problem, self.name, f"autoregression with {choice.lags} lags", decoder, prior, early.field(),
            Integrator("map"), early.scaled_to_new_frames(states.frames(cut)), judged, window - 1,
            Score(error, float(prior.noise.mean()), unknowns),
            interpolation_error=unseen, refit_decoder=lambda surrogate: _refitted(
                surrogate, problem, grid, _Series.fitted(problem, grid, choice.size, each=early.modes.channels > 1)),
            calibrated=_CALIBRATED,
            ahead=True, innovations=early.process(), truncation=early.truncation(),
            metadata={"symmetries": [], "series": {
                "codes": early.codes, "cycle": cycle, "coupled": choice.size, "lags": choice.lags,
                "ridge": choice.ridge, "half": choice.half, "each": early.modes.channels > 1}},
        )


def continued_series(surrogate: Surrogate, problem: Problem) -> Surrogate:
    """A surrogate of this recipe refitted to all frames of a problem in its units; hyperparameters stay fixed."""
    grid, about = _grid(problem), surrogate.training["series"]
    assert grid is not None
    choice = Choice(*(about[name] for name in ("coupled", "lags", "ridge", "half")))
    each = bool(about.get("each", False))
    return _refitted(surrogate, problem, grid, _Series.fitted(problem, grid, choice=choice, each=each))


def _refitted(surrogate: Surrogate, problem: Problem, grid: _Grid, whole: _Series) -> Surrogate:
    """A surrogate with decoder, dynamics and prior replaced by those of a series fitted to all frames."""
    surrogate = replace(surrogate, decoder=whole.decoder(problem)[0].float().eval(), field=whole.field())
    states, prior = whole.scaled_to_new_frames(whole.states(grid)), whole.prior()
    mean, covariance = state_prior(states, prior, whole.size)
    refitted = replace(surrogate.prior, mean=mean, covariance=covariance, noise=prior.noise, process=whole.process(),
                       truncation=whole.truncation())
    refitted.farthest = max(refitted.farthest or 0.0, refitted.reach(states, whole.size))
    return replace(surrogate, prior=refitted)


@dataclass(frozen=True)
class _Grid:
    """The frames of a series on equal steps: internal times t (T,); values (T, N, C), NaN in missing frames; step:
    internal time; frames (T,): number of the frame in the file, -1 if it is missing."""

    t: Tensor
    values: Tensor
    step: float
    frames: Tensor
    x: Tensor

    def until(self, stop: int) -> _Grid:
        return _Grid(self.t[:stop], self.values[:stop], self.step, self.frames[:stop], self.x)


def _grid(problem: Problem) -> _Grid | None:
    """The series of a problem on equal steps, normalised; at irregular times, its means over steps. None if there are
    no steps that places share."""
    tau, values = _observed(problem)
    if (found := _steps(tau, values)) is None:
        return None
    step, numbers, regular = found
    t, flat = tau[0] + step * torch.arange(int(numbers[-1]) + 1, dtype=torch.float64), values.flatten(1)
    if regular:
        t[numbers] = tau
        flat = torch.as_tensor(cell_means(numbers, flat.numpy(), len(t)))
    else:  # departures from the cycle, which changes within a step
        cycle = _cycle(problem, tau, flat)
        flat = torch.as_tensor(cell_means(numbers, (flat - cycle(tau)).numpy(), len(t))) + cycle(t)
    values = flat.unflatten(1, values.shape[1:])
    x = problem.source.batch(problem.train).x[0, 0].double()
    if problem.config.data.faults == "auto":
        values = hampel_filter(values, problem.source.normalisation.least, x=x)
    frames = torch.full((len(t),), -1).scatter_reduce(0, torch.as_tensor(numbers), torch.arange(len(tau)), "amax")
    return _Grid(t, values, step, frames, x)


def _observed(problem: Problem) -> tuple[Tensor, Tensor]:
    """Internal times (T,) and normalised values (T, N, C) of the frames of a series."""
    batch = problem.source.batch(problem.train)
    kept = torch.isfinite(batch.t[0])
    return problem.scale.internal(batch.t[0][kept]), batch.u[0][kept].double()


def _steps(t: Tensor, values: Tensor) -> tuple[float, np.ndarray, bool] | None:
    """Step of times t (T,) of values (T, N, C), numbers (T,) of their steps, and whether times are multiples of it; at
    irregular times, the median interval between two values of a place. None where most steps would be empty."""
    if (found := regular_frames(t.numpy())) is not None and found[1][-1] <= _EMPTIEST * len(t):
        return *found, True
    gaps = torch.cat([torch.diff(t[own]) for own in torch.isfinite(values).any(-1).T])
    if not len(gaps):
        return None
    step = float(gaps.median())
    numbers = ((t - t[0]) / step).round().numpy().astype(int)
    return None if numbers[-1] > _EMPTIEST * len(np.unique(numbers)) else (step, numbers, False)


def _cycle(problem: Problem, t: Tensor, values: Tensor) -> Cycle:
    """The cycle of values (T, M) at times t (T,), their mean alone without forcing."""
    if problem.config.dynamics.forcing is False:
        return shrunk_cycle(t, values, [])
    return cycle_of(problem.description, t, values, problem.scale.unit)


@dataclass(frozen=True)
class _Series:
    """A fitted series: cycle (of M = N C values), modes, and an autoregression of the leading r of R codes.

    Attributes:
        share: variance of the anomalies relative to that of all values.
        ratio: (R,) variances of codes in frames not used to fit the modes, relative to those in frames that were.
        decays: (R,) autocorrelation over a step of codes of such frames.
        stays: (H,) shares of the latest codes in forecasts.
    """

    x: Tensor
    channels: int
    step: float
    cycle: Cycle
    modes: PointModes
    regression: Autoregression
    share: float
    ratio: Tensor
    decays: Tensor
    stays: Tensor

    @classmethod
    def fitted(cls, problem: Problem, grid: _Grid, around: int | None = None, choice: Choice | None = None,
               each: bool = False) -> _Series:
        """A series with cross-validated hyperparameters (near `around` coupled codes, if given) or a `choice`; each:
        with modes of single channels."""
        values = grid.values.flatten(1)
        cycle = _cycle(problem, grid.t, values)
        every = values - cycle(grid.t)
        fixed, channels = problem.config.decoder.code_size, grid.values.shape[-1]
        short = short_records(values, channels) if fixed is None else torch.zeros(values.shape[1]).bool()
        values, anomalies = values[:, ~short], every[:, ~short]
        modes = principal_components(anomalies) if fixed is None else principal_components(anomalies, fixed)
        modes = modes.saturated(anomalies)
        modes = modes.of_each(channels, anomalies) if each else modes
        search = AutoregressionSearch(modes.codes, torch.isfinite(values).any(1), float(modes.noise.sum()))
        if choice is not None:
            regression = search.fitted(replace(choice, size=min(choice.size, modes.codes.shape[1])))
        elif around is not None and fixed is None:
            regression = search.search((max(1, round(around / _AROUND)), around, round(around * _AROUND)))
        else:
            regression = search.search() if fixed is None else search.search((fixed,))
        most = max(regression.choice.size, min(len(modes.variances), round(len(values) / _FRAMES_OF_CODE)))
        modes, ratio, lasting = modes.cross_validated(anomalies, blocks_of(len(values)), len(regression.damping))
        found = modes.leading(most), ratio[:most], lasting[:, :most]
        modes, ratio, lasting = with_own_codes(*found, every, short, channels)
        regression = regression.for_new_frames(ratio, modes.variances, lasting)
        values = grid.values.flatten(1)
        spread = (values - values.nanmean(0)).square().nansum().clamp(min=1e-300)
        share = min(float(every.square().nansum() / spread), 1.0)
        factor, stays = persistence_shares(modes.codes, torch.isfinite(values).any(1), regression)
        direct = None if regression.corrections is None else factor[:, None, None] * regression.corrections
        regression = replace(regression, damping=factor[:, None] * regression.damping, corrections=direct)
        return cls(grid.x, channels, grid.step, cycle, modes, regression, share, ratio, lasting[0], stays)

    @property
    def known(self) -> int:
        """Number k of phases."""
        return 2 * sum(self.cycle.harmonics)

    @property
    def codes(self) -> int:
        """Number R of codes without phases."""
        return len(self.modes.patterns)

    @property
    def past(self) -> int:
        """Number of codes of earlier frames in a state."""
        return (self.regression.choice.lags - 1) * self.regression.choice.size

    @property
    def size(self) -> int:
        """Number of codes including phases."""
        return self.known + self.codes

    def field(self) -> VectorField:
        """The vector field, float64."""
        choice, errors = self.regression.choice, self.regression.covariances
        term = AutoregressionTerm(
            self.codes, choice.lags, self.step, self.cycle.periods, self.cycle.harmonics, choice.size, len(errors),
            stays=True, corrected=self.regression.corrections is not None)
        field = VectorField(self.known + self.codes + self.past, [term.double()])
        step = companion(self.regression.matrices, self.decays[choice.size :])
        term.set(step, errors, self.regression.damping, self.stays, relaxation_range(self.modes.codes),
                 self.regression.corrections)
        return field

    def states(self, grid: _Grid) -> CodeData:
        """States (1, T, n) of the frames of a grid: posterior means given the modes, and their past."""
        values = grid.values.flatten(1) - self.cycle(grid.t)
        codes, known = self.modes.posterior(values), torch.isfinite(values).any(1)
        leading = codes[:, : self.regression.choice.size]
        past, whole = lagged(codes, known, self.regression.choice.lags, leading)
        phases = AutoregressionTerm(1, 1, 1.0, self.cycle.periods, self.cycle.harmonics).phases(grid.t)
        return CodeData(torch.cat([phases, past], 1)[None], grid.t[None], whole[None])

    def scaled_to_new_frames(self, states: CodeData) -> CodeData:
        """States scaled to the variances of frames not used to fit the modes."""
        factors = self.ratio.sqrt()
        past = factors[: self.regression.choice.size].repeat(self.regression.choice.lags - 1)
        return replace(states, codes=states.codes * torch.cat([torch.ones(self.known).double(), factors, past]))

    def prior(self) -> GaussianPrior:
        """Prior of the codes, with the residual variance (C,) of each channel."""
        noise = self.modes.noise.unflatten(0, (-1, self.channels)).mean(0)
        covariance = torch.block_diag(self._scales()[1 : 1 + self.known].diag(), self.modes.covariance)
        return GaussianPrior(torch.zeros(self.size, dtype=torch.float64), covariance, noise)

    def truncation(self) -> Truncation:
        """The residuals, as part of the noise."""
        return Truncation.at(self.x, self.prior().noise)

    def process(self) -> Tensor:
        """Process noise (n,), a variance per unit of time."""
        added = self.regression.covariances[0].diagonal() / self.step
        return torch.nn.functional.pad(added, (self.known, self.past))

    def missed(self, grid: _Grid, cut: int) -> float:
        """Mean logarithm, over leads and channels, of squared errors of forecasts of the frames from `cut` on, with the
        residual of each value damped by its autocorrelation before."""
        values, states = grid.values.flatten(1) - self.cycle(grid.t), self.states(grid).codes[0]
        inner = slice(self.known, self.size)
        left = (values - states[:, inner] @ self.modes.patterns).nan_to_num(0.0)
        lasts = ((left[1:cut] * left[: cut - 1]).sum(0) / left[:cut].square().sum(0).clamp(min=1e-300)).clamp(0, 1)
        leads = torch.arange(1, 1 + min(len(self.regression.errors), (len(values) - cut + 1) // 2))
        starts, term = torch.arange(cut - 1, len(values) - len(leads)), self.field().get(AutoregressionTerm)
        if not len(leads) or term is None:
            return 0.0
        times = grid.t[starts, None] + self.step * torch.cat([torch.zeros(1), leads])
        path = term.path(states[starts], times)[:, 1:, inner].detach()
        guess = path @ self.modes.patterns + left[starts, None] * lasts ** leads[:, None]
        error = (values[starts[:, None] + leads] - guess).unflatten(2, (-1, self.channels)).square().nanmean((0, 2))
        return float(error.clamp(min=1e-300).log().nanmean())

    def decoder(self, problem: Problem) -> tuple[HarmonicDecoder, InterpolationError]:
        """Radial basis functions that interpolate the patterns at the points, and their error between the points."""
        patterns = torch.cat([self.cycle.coefficients, self.modes.patterns])  # mean, phases, codes: (1 + Z, M)
        tables = patterns.unflatten(1, (-1, self.channels))  # (1 + Z, N, C)
        nodes = torch.arange(len(self.x))
        most = round((_SHARE * 60 * problem.config.training.minutes / seconds_of(_SOLVES)) ** (1 / 3))
        most = min(_MOST_NODES, max(_FEWEST_NODES, most))
        if len(nodes) > most:
            nodes = torch.as_tensor(np.sort(np.random.default_rng([3]).permutation(len(nodes))[:most]))
        flat = tables[:, nodes].transpose(0, 1).flatten(1)  # (N, (1 + Z) C)
        basis, lengths, _ = torch.linalg.svd(flat, full_matrices=False)
        basis = basis[:, lengths > 1e-12 * lengths[0]] * len(nodes) ** 0.5
        embedding = RadialFeatures.through(problem.embedding(harmonics=0), self.x[nodes], basis)
        decoder = HarmonicDecoder(embedding, self.channels)
        weights = torch.linalg.lstsq(basis, flat).solution.T.unflatten(0, (len(patterns), self.channels))
        weights = torch.nn.functional.pad(weights, (1, 0))
        decoder = decoder.double()
        decoder.set_output(weights[0], weights[1:])
        missed = embedding.left_out(flat).unflatten(1, (-1, self.channels)).square()
        return decoder.float(), InterpolationError.between(self.x[nodes], torch.einsum(
            "nzc,z->nc", missed, self._scales()))

    def _scales(self) -> Tensor:
        """Mean squares (1 + Z,) of the coefficients of the patterns."""
        phases = torch.full((self.known,), _PHASE_VARIANCE, dtype=torch.float64)
        return torch.cat([torch.ones(1, dtype=torch.float64), phases, self.modes.variances])


def _windows(states: CodeData, cut: int, past: int) -> CodeData:
    """Windows of a series (1, T, n) whose frames after the first `past` lie after `cut`."""
    leads, starts = series_windows(states.codes.shape[1], cut, past, WINDOWS)
    return CodeData.join([states.at((slice(None), slice(start, start + past + leads))) for start in starts])
