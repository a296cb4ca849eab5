"""Dynamics with contexts: which trajectories share one, the closed form that finds them, and the surrogate of it.

Contexts are solved, not stepped: by alternating least squares on code transitions at the start, and again by
Gauss-Newton for a field whose residual network was trained on top. The closed form stays a candidate on validation, and
so does the field without contexts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.environments import Environments
from inrflow.decoders.base import Decoder
from inrflow.dynamics.contexts.alternate import ContextFit
from inrflow.dynamics.contexts.known import Contexts
from inrflow.dynamics.contexts.parameter_map import ParameterMap
from inrflow.dynamics.contexts.posterior import solve_context
from inrflow.dynamics.contexts.search import AVERAGED, FREE, ContextChoice, ContextSearch
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.group_average import OperatorAverage
from inrflow.dynamics.fitting.operators_of_pde import LOCAL_LISTS, LocalOperators
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.states import CodeData, with_contexts
from inrflow.encoding.prior.interpolation_error import UnseenVariance
from inrflow.encoding.prior.modes import OutputModes
from inrflow.evaluation.calibration import calibrate
from inrflow.model.state_prior import ContextPrior, StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.training import judge as dynamics_stage
from inrflow.training.parts.quadratic import QuadraticStage
from inrflow.training.parts.quadratic_with_contexts import ContextQuadratic, refitted
from inrflow.training.parts.rollouts import train_residual
from inrflow.training.problem import GOOD_ENOUGH, TrainingSetup

_UNKNOWN_SIZES = (1, 2)
_QUICK_SIZE = 128
_BEYOND = 2.0
_STEP_SHARE = 0.005  # of the error, by which the step is chosen: forecasts go farther, in time and in contexts
_POOR = 0.5  # share of the variance: a field that misses this much forecasts nothing
_CLEARLY_BETTER = 0.95
_QUADRATIC_SHARE = 0.1  # of the time, each of the passes over coefficients and contexts
_TOLD = {FREE: "", AVERAGED: ", averaged over the symmetries"} | dict.fromkeys(LOCAL_LISTS, ", of a local equation")


@dataclass(frozen=True)
class ContextDynamics:
    """Closed-form dynamics with contexts.

    Attributes:
        field: float64.
        contexts: (E, P) of the training environments; held_contexts: (S, P) of the held-out trajectories.
        score: validation error, share of the variance.
        refit: field and contexts (E, P) from other codes and the numbers of their environments.
        equation: lines that a reader would write, where the dynamics are those of a local equation.
    """

    field: VectorField
    contexts: Tensor
    held_contexts: Tensor
    score: float
    refit: Callable[[CodeData, Tensor], tuple[VectorField, Tensor]]
    equation: list[str] | None = None

    @property
    def size(self) -> int:
        """Number of codes."""
        return self.field.state_size


class ContextStage:
    """Closed-form dynamics with contexts for a training run whose data hold environments."""

    def __init__(self, training: TrainingSetup, environments: Environments) -> None:
        self.training, self.environments = training, environments
        members = environments.index[training.training]
        self.used = np.unique(members)  # environments with training trajectories
        number = np.full(len(environments), -1)
        number[self.used] = np.arange(len(self.used))
        self.number = torch.as_tensor(number[environments.index])  # of every trajectory of the file, -1 not in training

    def sizes_to_try(self, tell: bool = False) -> tuple[int, ...]:
        """Context sizes: the one that is asked for, the number of known parameters, or one and two."""
        wanted = self.training.config.dynamics.context_size
        known = self.environments.parameters
        if wanted is None and known is None:
            sizes = list(_UNKNOWN_SIZES)
        else:
            sizes = [wanted if wanted is not None else known.shape[1]]  # type: ignore[union-attr]
        possible = len(self.used) - 1
        if max(sizes) > possible and tell:
            self.training.recorder.say(
                f"{len(self.used)} training environments tell {possible} context{'s' * (possible != 1)} apart; "
                f"{possible} of {max(sizes)} used"
            )
        return tuple(sorted({min(size, possible) for size in sizes} - {0}))

    def search(
        self, codes: CodeData, held: CodeData, floor: float, average: OperatorAverage | None = None,
        local: Mapping[str, LocalOperators] | None = None,
    ) -> ContextSearch:
        """The search on codes of training trajectories (originals, then their copies in turn) and of held-out ones."""
        rows = self.number[torch.as_tensor(self.training.training)]
        copies = len(codes.codes) // len(rows)
        known = self.environments.parameters
        return ContextSearch(
            codes,
            rows.repeat(copies),
            len(self.used),
            held,
            self.number[torch.as_tensor(self.training.validation)],
            None if known is None else torch.as_tensor(known[self.used]),
            floor,
            self.training.config.seed,
            average,
            local,
        )

    def quick_score(self, codes: CodeData, held: CodeData, floor: float) -> float | None:
        """Validation error of one moderate candidate, share of the variance; None where there are no contexts."""
        counts = self.sizes_to_try()
        if not counts:
            return None
        search = self.search(codes, held, floor)
        largest = min(_QUICK_SIZE, codes.codes.shape[-1], int(search.transitions / (1.2 * (1 + counts[0]))) - 1)
        size = max(2, largest)
        return search.score(search.fit(size, search.start(counts[0]), 1e-8, rounds=3))

    def run(
        self, decoder: Decoder, modes: OutputModes, codes: CodeData, held: CodeData | None, without: float,
        unseen: UnseenVariance | None, average: OperatorAverage | None = None,
    ) -> Surrogate | None:
        """The surrogate; None where contexts do not help, which is told. `without`: validation error without them;
        `unseen`: what the decoder misses where no training frame has a point; `average`: over the symmetries."""
        say = self.training.recorder.say
        counts = self.sizes_to_try(tell=True)
        if held is None or not len(held.codes) or not counts:
            say("contexts are not used: they need several environments and a held-out trajectory; give more")
            return None
        floor = float(modes.noise.mean())
        search = self.search(codes, held, floor, average, LocalOperators.lists(decoder, self.training.term_shift()))
        sizes = dynamics_stage.candidate_sizes(
            modes.variances, search.transitions // (1 + counts[0]), self.training.config.decoder.code_size
        )
        choice = search.search(sizes, counts)
        chosen = choice.candidate
        form = _TOLD[chosen.form]
        say(
            f"closed-form dynamics with contexts: {len(self.used)} environments, {chosen.contexts} numbers each, "
            f"{chosen.size} codes, ridge {chosen.ridge:g}{form}, validation error {choice.score:.2e} of the "
            f"variance ({without:.2e} without contexts, decoder alone {floor:.1e})"
        )
        self.training.recorder.log(
            "contexts", 0, validation=choice.score, without=without, code_size=chosen.size, contexts=chosen.contexts
        )
        unknowns = (1 + chosen.contexts) * (1 + max(sizes))
        if not search.determined(chosen.size, chosen.contexts) or choice.score > _POOR:
            say(
                f"the data do not determine the dynamics: {search.transitions} transitions for {unknowns} unknowns a "
                f"code, held-out error {choice.score:.2g} of the variance; declare symmetries or give more trajectories"
            )
        found = self._quadratic(search, choice, codes, held, sizes) or self._linear(search, choice)
        if not found.score + floor < _CLEARLY_BETTER * (without + floor):
            say("contexts are not used: held-out trajectories are forecast as well without them")
            return None
        modes = modes.truncated(found.size)
        decoder.set_output(modes.mean, modes.modes)  # type: ignore[operator]
        return self.finish(decoder, modes, found, codes, held, unseen)

    def _rows(self, codes: CodeData) -> Tensor:
        """Number of the environment of each training trajectory and of its copies."""
        rows = self.number[torch.as_tensor(self.training.training)]
        return rows.repeat(len(codes.codes) // len(rows))

    def _linear(self, search: ContextSearch, choice: ContextChoice) -> ContextDynamics:
        """The chosen linear field as a candidate."""
        fit, chosen = choice.fit, choice.candidate

        def refit(codes: CodeData, rows: Tensor) -> tuple[VectorField, Tensor]:
            full = search.fit(chosen.size, fit.contexts, chosen.ridge, form=chosen.form, data=(codes, rows))
            return context_field(full), full.contexts

        field = context_field(fit)
        equation = None
        if chosen.form in search.local:
            local = search.local[chosen.form].truncated(chosen.size)
            equation = self.training.written(local.equation(fit.operators))
            for line in equation:
                self.training.recorder.say(f"  {line}")
        return ContextDynamics(field, fit.contexts, search.held_contexts(fit), choice.score, refit, equation)

    def _quadratic(
        self, search: ContextSearch, choice: ContextChoice, codes: CodeData, held: CodeData, sizes: list[int]
    ) -> ContextDynamics | None:
        """A quadratic field with contexts, where the linear one leaves something and validation prefers it."""
        settings, minutes = self.training.config.dynamics, self.training.config.training.minutes
        rows = search.held_environment
        enough = choice.score < max(dynamics_stage.LINEAR_SUFFICES * search.floor, GOOD_ENOUGH)
        if settings.products == 0 or not settings.linear or enough or bool((rows < 0).any()):
            return None
        stage = QuadraticStage(codes, held, 0, self.training.recorder)
        count = stage.count(settings.products, 60 * minutes * _QUADRATIC_SHARE)
        settings.products = count
        self.training.save_config()
        quadratic = ContextQuadratic(codes, self._rows(codes), held, rows, self.training.recorder)
        found = quadratic.search(sizes, count, choice.fit.contexts) if count else None
        if found is None or not found.score < _CLEARLY_BETTER * choice.score:
            return None
        self.training.recorder.say(
            f"quadratic closed-form dynamics with contexts: {found.form.size} codes, {len(found.form.left)} products"
            f"{', which depend on the contexts' if found.coupled else ''}, validation error {found.score:.2e} of the "
            "variance"
        )

        def refit(codes: CodeData, rows: Tensor) -> tuple[VectorField, Tensor]:
            again = refitted(found, codes, rows)
            return again.form.field(), again.contexts

        field = found.form.field()
        return ContextDynamics(field, found.contexts, found.contexts[rows], found.score, refit)

    def finish(
        self, decoder: Decoder, modes: OutputModes, found: ContextDynamics, codes: CodeData, held: CodeData,
        unseen: UnseenVariance | None,
    ) -> Surrogate:
        """Residual training where it helps, priors, calibration; the closed form refitted on all trajectories."""
        training, config, size = self.training, self.training.config, found.size
        floor = float(modes.prior().noise.mean())
        rows, held_contexts, linear = self._rows(codes), found.held_contexts, found.field
        states = with_contexts(codes, size, found.contexts[rows])
        judged = with_contexts(held, size, held_contexts)
        beyond = with_contexts(codes, size, _BEYOND * found.contexts[rows])  # so that it serves outside the range too
        dynamics = config.dynamics
        step = dynamics_stage.integration_step(linear, beyond, _STEP_SHARE * (found.score + floor), dynamics.step)
        integrator = Integrator(dynamics.method, step, dynamics.rtol, dynamics.atol, dynamics.adjoint)

        def error(field: VectorField) -> float:
            return dynamics_stage.rollout_error(field, integrator, judged, held, 0, size)

        start_error = error(linear)
        field, contexts, note = linear, found.contexts, "closed form"
        trained = train_residual(training, linear, states, integrator, error, start_error, floor, decoder)
        if trained is not None:
            trained = trained.double()
            solved, solved_held = self._solve_again(trained, integrator, codes, held, rows, held_contexts, size)
            again = with_contexts(held, size, solved_held)
            value = dynamics_stage.rollout_error(trained, integrator, again, held, 0, size)
            if value < _CLEARLY_BETTER * start_error or not dynamics.linear:
                field, contexts, judged, note = trained, solved, again, "closed form and trained residual"
        final_error = error(field)
        training.recorder.say(f"dynamics: {note}, validation error {final_error:.2e} of the variance")
        process = dynamics_stage.calibrated_process_noise(field, integrator, judged)
        process[size:] = 0.0
        final = field
        if field is linear:
            everyone = CodeData.join([codes, held])
            numbers = torch.cat([rows, self.number[torch.as_tensor(training.validation)]])
            kept = numbers >= 0
            everyone = CodeData(everyone.codes[kept], everyone.t[kept], everyone.observed[kept])
            final, contexts = found.refit(everyone, numbers[kept])
        surrogate = self._surrogate(decoder, modes, field, integrator, process, f"{note}, contexts", unseen)
        if found.equation is not None and field is linear:
            surrogate.training["equation"] = found.equation
        batch = training.source.batch(training.validation[:16], normalised=False)
        known = ContextPrior(judged.codes[:16, 0, size:], torch.eye(contexts.shape[1]).double() * 1e-12)
        surrogate.prior.farthest = max(surrogate.prior.reach(data, size) for data in (codes, held))
        surrogate.prior.spread = calibrate(surrogate, batch, 1, known)
        surrogate.field = final.double().eval()
        surrogate.contexts = self.known_contexts(contexts)
        training.judged = replace(surrogate, field=field.double().eval())
        return surrogate

    def _solve_again(
        self, field: VectorField, integrator: Integrator, codes: CodeData, held: CodeData, rows: Tensor,
        held_contexts: Tensor, size: int,
    ) -> tuple[Tensor, Tensor]:
        """Contexts (E, P) of the training environments, and of held-out trajectories, in a trained field."""
        count = held_contexts.shape[1]
        mean, covariance = torch.zeros(count).double(), torch.eye(count).double()
        solved = []
        for e in range(len(self.used)):
            chosen = (rows == e).nonzero()[:32, 0]
            part = CodeData(codes.codes[chosen, :, :size], codes.t[chosen], codes.observed[chosen])
            solved.append(solve_context(field, integrator, part, mean, covariance).mean)
        contexts = torch.stack(solved)
        again = held_contexts.clone()
        numbers = self.number[torch.as_tensor(self.training.validation)]
        again[numbers >= 0] = contexts[numbers[numbers >= 0]]
        return contexts, again

    def _surrogate(
        self, decoder: Decoder, modes: OutputModes, field: VectorField, integrator: Integrator, process: Tensor,
        note: str, unseen: UnseenVariance | None,
    ) -> Surrogate:
        training, contexts = self.training, field.context_size
        code_prior = modes.prior()
        size = decoder.code_size
        covariance = torch.eye(size + contexts, dtype=torch.float64)  # contexts are whitened
        covariance[:size, :size] = code_prior.covariance
        mean = torch.cat([code_prior.mean.double(), torch.zeros(contexts, dtype=torch.float64)])
        channels = len(training.description.channels)
        spread = torch.ones(channels).double()
        prior = StatePrior(mean, covariance, code_prior.noise.double(), process, spread, unseen)
        return training.surrogate(decoder, field, integrator, prior, note)

    def known_contexts(self, values: Tensor) -> Contexts:
        """What a surrogate knows of contexts (E, P) of the training environments, and of parameters, where there are
        any."""
        environments = self.environments
        labels = torch.as_tensor(environments.labels[self.used])
        known = environments.parameters
        if known is None:
            return Contexts(environments.kind, values, labels)
        parameters = torch.as_tensor(known[self.used])
        fitted = ParameterMap.fit(parameters, values)
        self.training.recorder.say(
            f"contexts are a polynomial of degree {fitted.degree} of {', '.join(environments.names)} (error "
            f"{float(fitted.error.diagonal().mean().sqrt()):.1e} of their spread)"
        )
        return Contexts(environments.kind, values, labels, environments.names, parameters, fitted)


def context_field(fit: ContextFit) -> VectorField:
    """The closed-form field alone, float64."""
    field = VectorField.of(fit.operators.shape[1], context_size=fit.context_size).double()
    field.set_linear(fit.operators[0, :, 1:], fit.operators[0, :, 0])
    field.set_context_linear(fit.operators[1:, :, 1:], fit.operators[1:, :, 0])
    return field
