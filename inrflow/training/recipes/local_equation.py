"""A local equation as a candidate: found on the harmonics of a periodic domain, and taken where validation says so.

What an equation with a few terms can hold, it holds for all fields, whatever the training trajectories have shown of
them: no symmetry need be declared, and a handful of trajectories tells its coefficients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import inrflow.training.parts.loop as training_steps
from inrflow.dynamics.contexts.search import contexts_of_parameters
from inrflow.dynamics.contexts.shared_dynamics import to_record
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.along_trajectories import STEPS, WHOLE, EquationRefinement
from inrflow.dynamics.fitting.sparse_regression import EquationSearch, FoundEquation
from inrflow.dynamics.fitting.transitions_of_pde import steps_of
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.fourier_grid import LocalBasis
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.libraries.pde_terms import Term, known_libraries, libraries
from inrflow.dynamics.states import CodeData, with_contexts
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.encoding.prior.modes import OutputModes
from inrflow.evaluation.calibration import calibrate
from inrflow.evaluation.forecast import forecast
from inrflow.evaluation.known_contexts import known_contexts
from inrflow.model.state_prior import ContextPrior, StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.training import judge as dynamics_stage
from inrflow.training.parts.codes import make_code_book
from inrflow.training.parts.delay_embedding import MUCH_BETTER
from inrflow.training.parts.environments import ContextStage
from inrflow.training.parts.harmonics import harmonic_decoder, has_harmonics
from inrflow.training.problem import CLEARLY_BETTER, GOOD_ENOUGH, TrainingSetup

_NEAR_FLOOR = 5.0  # times what the harmonics leave: an equation that comes so near explains the data
_POOR = 0.5  # share of the variance: an equation that misses this much forecasts nothing
_NEGLIGIBLE = 0.1  # of the noise: waves that hold less are left out
_NOISY = 1e-4  # share of the variance that harmonics leave: so much noise weakens fits of single steps
_LEVELS = (4.0, 2.0, 1.2)  # times the misfit with all terms, to which terms are struck out
_SIMPLER = 1.2  # times the error in all: an equation of fewer terms is taken up to here
_WIDER = 1.5  # times as many codes as elsewhere: an equation of one system has no more coefficients for them
_SHARE = 0.5  # of the time
_TRUSTED = 1e-2  # share of the variance, where the last frames of the training trajectories judge
_CALIBRATED, _MANY = 16, 400  # trajectories, half of them where there are so many codes: covariances cost their cube
_WORSE = 1.5  # times the error before: a refit that forecasts worse has failed
_BEYOND = 1.5  # contexts that the step must be stable for, times those of training
_HALVINGS = 2
_LIVELY, _MARGIN = 64, 1.5  # states that the final step must be stable for, and how much livelier others may be
_ACCURATE = 0.02  # share of the validation error that the integration may add


@dataclass(frozen=True)
class EquationRun:
    """A surrogate whose dynamics are a local equation.

    Attributes:
        judged: the same before its refit to all trajectories: those of validation have taught it nothing.
        settled: there is no need to look further.
        explained: there is none on the same harmonics.
        library: which list of terms it is of.
        scores: validation errors of all lists that were tried.
    """

    surrogate: Surrogate
    judged: Surrogate
    settled: bool
    explained: bool
    library: str
    scores: dict[str, float]


def equation_run(setup: TrainingSetup, known: Mapping[str, Sequence[Term]] | None = None) -> EquationRun | None:
    """The surrogate of a local equation; None where the data or the settings do not allow one, or none is found.

    known: terms that other physics need, by their names, which are tried first.
    """
    if not _possible(setup):
        return None
    return _Run(setup, known or {}).run()


def validation_error(setup: TrainingSetup, surrogate: Surrogate, frames: int = 1) -> float:
    """NMSE of forecasts of the validation trajectories from their first frames, infinite where one diverges.

    Of the last third of the frames, for what grows with time shows there.

    Trajectories have the contexts of their training environments, where the surrogate knows any.
    """
    batch = setup.source.batch(setup.validation, normalised=False)
    _, context = known_contexts(surrogate, setup.file)
    known = None if context is None else context.select(torch.as_tensor(setup.validation))
    estimate = surrogate.estimate(batch.first_frames(frames), covariance=False, context=known)
    last = max(frames, 2 * batch.u.shape[1] // 3)
    found = forecast(surrogate, estimate, batch, with_std=False).mean[:, last:]
    truth = surrogate.normalisation.apply(batch.u)[:, last:]
    error = float((found - truth)[torch.isfinite(truth)].square().mean())
    return error / float(truth.square().nanmean()) if error == error else float("inf")


def _possible(setup: TrainingSetup) -> bool:
    config, dynamics = setup.config, setup.config.dynamics
    return (
        dynamics.equation
        and dynamics.linear
        and not dynamics.memory
        and not dynamics.quadratic_rank
        and dynamics.start == "auto"
        and not config.decoder.closure
        and config.decoder.periodic
        and config.decoder.harmonics != 0
        and list(config.decoder.modulation) == ["output"]
        and setup.source.knots is None
        and not setup.forcing_period()
        and has_harmonics(setup.file)
        and len(setup.description.coordinates) <= 3
    )


class _Run:
    """One search and its surrogate."""

    def __init__(self, setup: TrainingSetup, known_terms: Mapping[str, Sequence[Term]]) -> None:
        self.known_terms, self.library = known_terms, ""
        self.scores: dict[str, float] = {}
        self.stage = self.known = None
        self.rows = self.judged_rows = torch.zeros(0, dtype=torch.int64)
        if setup.environments is not None:
            setup = _with_every_environment(setup)
            stage = ContextStage(setup, setup.environments)  # type: ignore[arg-type]
            self.counts = stage.sizes_to_try()
            if self.counts:
                self.stage, self.rows = stage, stage.number[torch.as_tensor(setup.training)]
                held = setup.validation if len(setup.validation) else setup.training
                self.judged_rows = stage.number[torch.as_tensor(held)]
                parameters = setup.environments.parameters  # type: ignore[union-attr]
                if parameters is not None:
                    self.known = contexts_of_parameters(torch.as_tensor(parameters[stage.used]), self.counts[0])
        self.setup, self.recorder = setup, setup.recorder
        self.decoder, modes, self.labels = harmonic_decoder(setup, determined=True)
        self.modes = modes.truncated(self._size(modes, self.labels))
        self.decoder.set_output(self.modes.mean, self.modes.modes)
        self.noise = float(self.modes.prior().noise.mean())
        book = make_code_book(setup, self.decoder, self.modes.prior(), setup.training, setup.validation)
        self.codes, self.held = book.training, book.held
        self.taught, self.judged, self.first = setup.judging(self.codes, self.held)
        self.basis = LocalBasis(self.decoder, setup.term_shift())

    def _size(self, modes: OutputModes, labels: HarmonicLabels) -> int:
        """Codes of whole shells of waves: as many as hold more than a small part of the noise, up to the limit."""
        decoder = self.setup.config.decoder
        most = decoder.largest_code_size if self.stage is not None else round(_WIDER * decoder.largest_code_size)
        whole = [size for size in labels.whole_sizes() if size <= (decoder.code_size or most)]
        tail = modes.variances.flip(0).cumsum(0).flip(0)
        noise = _NEGLIGIBLE * float(modes.noise.sum())
        return next((size for size in whole if size == len(tail) or float(tail[size]) <= noise), whole[-1])

    # ---- the search ----

    def run(self) -> EquationRun | None:
        """Search, tell, and make the surrogate."""
        found = self._search()
        if found is None or found.score > _POOR:
            self.recorder.say("no local equation was found that holds for held-out trajectories")
            return None
        self._tell(found)
        self.recorder.log("equation", 1, validation=found.score, code_size=self.basis.code_size)
        apart = self.held is not None  # else nobody else can be judged by the same trajectories
        explained = self._enough(found.score) if apart else found.score < _TRUSTED
        # What is linear is linear in any codes, and those of most variance may hold more of it.
        settled = explained and not (found.equation.linear and apart)
        if not apart and not settled:
            return None
        surrogate = self._surrogate(found)
        judged = replace(surrogate, field=found.equation.field(self.basis).eval())
        return EquationRun(surrogate, judged, settled, explained, self.library, self.scores)

    def _search(self) -> FoundEquation | None:
        """The best of all libraries, few terms at first, and of all numbers of contexts."""
        channels, dimensions = self.basis.channels, self.basis.dimensions
        rows = None if self.stage is None else self.rows
        steps, wanted = self.setup.config.training.steps, self.setup.config.training.steps.equation
        until, made = training_steps.clock() + self.setup.seconds(_SHARE), 0

        def more() -> bool:
            nonlocal made
            going = made < wanted if wanted is not None else training_steps.clock() < until
            made += going
            return going

        search = EquationSearch(self.basis, self.taught, self._judge, rows, self.known, more, self._enough)
        best: FoundEquation | None = None
        several = dict(known_libraries(self.known_terms, channels, dimensions))
        known = len(several)
        several |= {f"library {i}": library for i, library in enumerate(libraries(channels, dimensions))}
        for number, (name, library) in enumerate(several.items()):
            if number and not more():
                break
            best = self._better(search, name, library, best)
            # The last frames of what has taught tell little of short lists: then all of them are tried.
            if best is not None and self._enough(best.score) and (number >= known or self.held is not None):
                break
        if wanted is None:
            steps.equation = made
            self.setup.save_config()
        return best

    def _better(
        self, search: EquationSearch, name: str, library: list[Term], best: FoundEquation | None
    ) -> FoundEquation | None:
        """The best so far, or what is found with a library if it is clearly better."""
        found: FoundEquation | None = None
        for count in (0,) if self.stage is None else self.counts:
            one = search.search(library, count)
            if one is not None and (found is None or one.score < CLEARLY_BETTER * found.score):
                found = one
        if found is None:
            return best
        found = self._refined(found, search.more)
        self.recorder.log("equation", 0, library=name, terms=found.equation.count, validation=found.score)
        self.scores[name] = found.score
        if best is not None and not found.score < CLEARLY_BETTER * best.score:
            return best
        self.library = name
        return found

    def _refined(self, found: FoundEquation, more: Callable[[], bool]) -> FoundEquation:
        """The equation along its exact flow, where it leaves much or data are noisy, and validation prefers it so."""
        if found.score > _POOR:
            return found
        if self.noise > _NOISY and self.held is not None:
            found = self._along(found, WHOLE, more)
        if found.equation.linear or self._enough(found.score):
            return found
        return self._along(found, STEPS, more)

    def _fewer(self, found: FoundEquation, refinement: EquationRefinement) -> FoundEquation:
        """The same with as few terms as explain the data: others are what breaks loose away from the data."""
        for level in _LEVELS:
            if not refinement.more():
                break
            equation, contexts = refinement.refined(found.equation, found.contexts, level=level)
            score = self._judge(equation, contexts)
            self.recorder.log("equation", 0, refined=score, validation=found.score, terms=equation.count)
            good = score + self.noise < _SIMPLER * (found.score + self.noise)
            if good and equation.coefficients < found.equation.coefficients:
                return replace(found, equation=equation, contexts=contexts, score=score)
        return found

    def _along(self, found: FoundEquation, windows: str, more: Callable[[], bool]) -> FoundEquation:
        """The equation fitted along whole trajectories with the terms that it has, or along steps with its whole list
        (over whole trajectories, that would explain the noise), then with fewer, if validation prefers it."""
        refinement = self._refinement(self.taught, self.rows, windows, more)
        equation, contexts = refinement.refined(found.equation, found.contexts, every=windows == STEPS)
        score = self._judge(equation, contexts)
        self.recorder.log("equation", 0, refined=score, validation=found.score)
        if not score < found.score:
            return found
        return self._fewer(FoundEquation(equation, contexts, score, found.misfit, windows), refinement)

    def _refinement(
        self, states: CodeData, rows: Tensor, windows: str, more: Callable[[], bool] = lambda: True,
        quick: bool = True,
    ) -> EquationRefinement:
        environment = rows if self.stage is not None else None
        return EquationRefinement(self.basis, states, environment, self.known is not None, windows, more, quick)

    def _enough(self, score: float) -> bool:
        return score < max(_NEAR_FLOOR * self.noise, GOOD_ENOUGH * 1e-3)

    def _judge(self, equation: LocalEquation, contexts: Tensor) -> float:
        field = equation.field(self.basis)
        states = self._states(self.judged, contexts, self.judged_rows)
        steps = steps_of(field, self.judged, contexts if contexts.shape[1] else None)
        size = self.basis.code_size
        return dynamics_stage.rollout_error(
            field, Integrator(step=1 / steps), states, self.judged, self.first, size
        )

    def _states(self, data: CodeData, contexts: Tensor, rows: Tensor) -> CodeData:
        size = self.basis.code_size
        if not contexts.shape[1]:
            return CodeData(data.codes[..., :size], data.t, data.observed)
        return with_contexts(data, size, contexts[rows])

    # ---- the surrogate ----

    def _surrogate(self, found: FoundEquation) -> Surrogate:
        """Step, refit to all trajectories, process noise, priors, calibration."""
        setup, size, count = self.setup, self.basis.code_size, found.contexts.shape[1]
        dynamics = setup.config.dynamics
        field = found.equation.field(self.basis, dynamics.width)
        judged = self._states(self.judged, found.contexts, self.judged_rows)
        step = self._step(field, judged, found)
        integrator = Integrator(dynamics.method, step, dynamics.rtol, dynamics.atol, dynamics.adjoint)
        final = self._refitted(found)
        process = dynamics_stage.calibrated_process_noise(field, integrator, judged.since(self.first))
        process[size:] = 0.0
        prior = self.modes.prior()
        covariance = torch.eye(size + count, dtype=torch.float64)  # contexts are whitened
        covariance[:size, :size] = prior.covariance
        mean = torch.cat([prior.mean.double(), torch.zeros(count, dtype=torch.float64)])
        surrogate = setup.surrogate(
            self.decoder, field, integrator,
            StatePrior(mean, covariance, prior.noise.double(), process, torch.ones(self.basis.channels).double()),
            "local equation" + (", contexts" if count else ""), codes=self.labels.first(size).names(), symmetries=[],
            equation=setup.written(found.equation),
        )
        surrogate.prior.farthest = max(surrogate.prior.reach(data, size) for data in (self.codes, self.judged))
        calibrated = _CALIBRATED if size <= _MANY else _CALIBRATED // 2
        judging = (setup.validation if self.held is not None else setup.training)[:calibrated]
        context = None
        if count:
            tight = 1e-12 * torch.eye(count, dtype=torch.float64)
            context = ContextPrior(found.contexts[self.judged_rows[:calibrated]], tight)
        batch = setup.source.batch(judging, normalised=False)
        surrogate.prior.spread = calibrate(surrogate, batch, self.first + 1, context)
        surrogate.field = final.equation.field(self.basis, dynamics.width).eval()
        if count and self.stage is not None:
            surrogate.contexts = self.stage.known_contexts(final.contexts)
        else:
            surrogate.training["local"] = to_record(final.equation, self.basis)
        return surrogate

    def _refitted(self, found: FoundEquation) -> FoundEquation:
        """The equation fitted once more to all trajectories, or as it was where it then forecasts them worse."""
        every = self._everyone()
        apart = self.held is not None
        rows = torch.cat([self.rows, self.judged_rows]) if apart and self.stage is not None else self.rows
        if found.along:
            if not apart:
                return found
            refinement = self._refinement(every, rows, found.along, quick=False)
            equation, contexts = refinement.refined(found.equation, found.contexts)
            again = replace(found, equation=equation, contexts=contexts)
        else:
            own = rows if self.stage is not None else None
            again = EquationSearch(self.basis, every, self._judge).refit(found, own)
        return again if self._judge(again.equation, again.contexts) < _WORSE * found.score else found

    def _everyone(self) -> CodeData:
        """Codes of all trajectories, those of validation last."""
        return self.codes if self.held is None else CodeData.join([self.codes, self.held])

    def _step(self, field: VectorField, judged: CodeData, found: FoundEquation) -> float:
        """A stable step whose error in rollouts is a small part of the validation error."""
        contexts = _BEYOND * found.contexts if found.contexts.shape[1] else None
        steps = round(_MARGIN * steps_of(field, self._everyone(), contexts, _LIVELY))
        rows = judged.observed.all(1).nonzero()[:16, 0]
        if not len(rows):
            return 1 / steps
        start, times = judged.codes[rows, self.first], judged.t[rows, self.first :]
        variance = judged.codes[judged.observed].square().sum(1).mean()
        with torch.no_grad():
            paths = [
                Integrator(step=1 / (steps * 2**halving))(field, start, times, check=False)
                for halving in range(_HALVINGS + 1)
            ]
        for halving, path in enumerate(paths[:-1]):
            error = float((path - paths[-1]).square().sum(-1).mean() / variance)
            if error < _ACCURATE * (found.score + self.noise):
                return 1 / (steps * 2**halving)
        return 1 / (steps * 2**_HALVINGS)

    # ---- what is said ----

    def _tell(self, found: FoundEquation) -> None:
        contexts = f", {found.contexts.shape[1]} contexts" if found.contexts.shape[1] else ""
        self.recorder.say(
            f"local equation: {found.equation.count} terms{contexts}, {self.basis.code_size} codes, validation error "
            f"{found.score:.2e} of the variance (harmonics alone leave {self.noise:.1e})"
        )
        for line in self.setup.written(found.equation):
            self.recorder.say(f"  {line}")


def _with_every_environment(setup: TrainingSetup) -> TrainingSetup:
    """The setup, or one that trains on all trajectories and is judged in time, where some environment has one alone."""
    index = setup.environments.index  # type: ignore[union-attr]
    if len(setup.validation) and set(index[setup.validation]) <= set(index[setup.training]):
        return setup
    whole = copy.copy(setup)
    whole.training, whole.validation = np.arange(len(setup.source)), np.arange(0)
    return whole


def clearly_better(setup: TrainingSetup, run: EquationRun, surrogate: Surrogate) -> bool:
    """Whether validation prefers the equation to another surrogate, both as they were before they were fitted to the
    trajectories of validation too, and from as many frames as either needs; what needs several must be far better to be
    kept."""
    if not len(setup.validation):
        return False
    equation, other = run.judged, setup.judged or surrogate
    frames = max(equation.window, other.window)
    mine, theirs = validation_error(setup, equation, frames), validation_error(setup, other, frames)
    setup.recorder.say(f"validation error of forecasts: {mine:.2e} of the variance by the local equation, {theirs:.2e} "
                       "by codes of most variance")
    return mine * (MUCH_BETTER if other.window > equation.window else 1.0) < CLEARLY_BETTER * theirs


