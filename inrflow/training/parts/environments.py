"""Dynamics affine in contexts: groups of trajectories with one context each, the search, and its candidate.

Contexts are solved, not descended: by alternating least squares on code transitions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrflow.decoders.base import Decoder
from inrflow.dynamics.contexts.known import Contexts
from inrflow.dynamics.contexts.parameter_map import ParameterMap
from inrflow.dynamics.contexts.search import ContextChoice, ContextSearch, contexts_of_parameters
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.alternate import ContextFit
from inrflow.dynamics.states import CodeData, with_contexts
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.encoding.prior.modes import OutputModes
from inrflow.training.candidate import Candidate, Refitted, Score
from inrflow.training.judge import integration_step, rollout_error
from inrflow.training.margins import BETTER, POOR
from inrflow.training.parts.linear import candidate_sizes
from inrflow.training.problem import Problem
from inrflow.training.recorder import Tried
from inrflow.training.run import Run

_UNKNOWN_SIZES = (1, 2)
_QUICK_SIZE = 128
_BEYOND = 2.0  # times the contexts of training, for which the integration step is chosen too
_STEP_SHARE = 0.005  # of the error, by which the step is chosen: forecasts go farther, in time and in contexts


class ContextGroups:
    """Groups of training trajectories that share a context, and how many numbers a context may have.

    Attributes:
        used: (E,) environments with training trajectories.
        number: (S,) group of every trajectory of the file, -1 for none.
    """

    def __init__(self, problem: Problem) -> None:
        assert problem.environments is not None
        self.problem, self.environments = problem, problem.environments
        self.used = np.unique(self.environments.index[problem.train])
        number = np.full(len(self.environments), -1)
        number[self.used] = np.arange(len(self.used))
        self.number = torch.as_tensor(number[self.environments.index])

    @property
    def validation(self) -> Tensor:
        """Groups of the validation trajectories."""
        return self.number[torch.as_tensor(self.problem.validation)]

    def train(self, copies: int = 1) -> Tensor:
        """Groups of the training trajectories and of so many copies of each, originals first."""
        return self.number[torch.as_tensor(self.problem.train)].repeat(copies)

    @property
    def parameters(self) -> Tensor | None:
        """(E, p) known parameters of the groups."""
        known = self.environments.parameters
        return None if known is None else torch.as_tensor(known[self.used])

    def known_start(self, count: int) -> Tensor | None:
        """Contexts (E, count) that known parameters suggest."""
        return None if self.parameters is None else contexts_of_parameters(self.parameters, count)

    def sizes(self, say: Callable[[str], None] = lambda line: None) -> tuple[int, ...]:
        """Context sizes to try: the configured one, the number of known parameters, or one and two."""
        wanted, known = self.problem.config.dynamics.context_size, self.environments.parameters
        if wanted is None and known is None:
            sizes = list(_UNKNOWN_SIZES)
        else:
            sizes = [wanted if wanted is not None else known.shape[1]]  # type: ignore[union-attr]
        possible = len(self.used) - 1
        if max(sizes) > possible:
            say(f"{len(self.used)} training environments tell {possible} context{'s' * (possible != 1)} apart; "
                f"{possible} of {max(sizes)} used")
        return tuple(sorted({min(size, possible) for size in sizes} - {0}))

    def contexts(self, values: Tensor, say: Callable[[str], None]) -> Contexts:
        """Contexts (E, P) of the groups, with a map from parameters where these are known."""
        environments, parameters = self.environments, self.parameters
        labels = torch.as_tensor(environments.labels[self.used])
        if parameters is None:
            return Contexts(environments.kind, values, labels)
        fitted = ParameterMap.fit(parameters, values)
        say(f"contexts: polynomial of degree {fitted.degree} of {', '.join(environments.names)} (error "
            f"{float(fitted.error.diagonal().mean().sqrt()):.1e} of their spread)")
        return Contexts(environments.kind, values, labels, environments.names, parameters, fitted)


@dataclass(frozen=True)
class ContextDynamics:
    """Closed-form dynamics affine in contexts.

    Attributes:
        field: float64.
        contexts: (E, P) of the training environments; validation_contexts: (S, P) of the validation trajectories.
        score: validation error, share of the variance.
        refit: field and contexts (E, P) from other codes and the groups of their trajectories.
        row: of candidates.json.
    """

    field: VectorField
    contexts: Tensor
    validation_contexts: Tensor
    score: float
    refit: Callable[[CodeData, Tensor], tuple[VectorField, Tensor]]
    row: Tried

    @property
    def size(self) -> int:
        """Number of codes."""
        return self.field.state_size


class ContextDynamicsSearch:
    """Search for dynamics of codes affine in contexts."""

    def __init__(self, run: Run) -> None:
        self.run, self.groups = run, ContextGroups(run.problem)

    def quick_score(self, codes: CodeData, validation: CodeData, floor: float) -> float | None:
        """Validation error of one moderate candidate, share of the variance; None where there are no contexts."""
        counts = self.groups.sizes()
        if not counts:
            return None
        search = self._search(codes, validation, floor)
        largest = min(_QUICK_SIZE, codes.codes.shape[-1], int(search.transitions / (1.2 * (1 + counts[0]))) - 1)
        return search.score(search.fit(max(2, largest), search.start(counts[0]), 1e-8, rounds=3))

    def _search(self, codes: CodeData, validation: CodeData, floor: float) -> ContextSearch:
        copies = len(codes.codes) // len(self.run.problem.train)
        return ContextSearch(
            codes, self.groups.train(copies), len(self.groups.used), validation, self.groups.validation,
            self.groups.parameters, floor, self.run.config.seed,
        )

    def search(
        self, modes: OutputModes, codes: CodeData, validation: CodeData | None, without: float
    ) -> ContextDynamics | None:
        """The best dynamics with contexts; None where they do not help.

        Args:
            codes: of training trajectories, originals first, then their copies in turn.
            without: validation error of the best dynamics without contexts.
        """
        log, counts = self.run.log, self.groups.sizes(self.run.log.say)
        if validation is None or not len(validation.codes) or not counts:
            log.say("contexts are not used: they need several environments and a held-out trajectory; give more")
            return None
        floor = float(modes.noise.mean())
        search = self._search(codes, validation, floor)
        sizes = candidate_sizes(
            modes.variances, search.transitions // (1 + counts[0]), self.run.config.decoder.code_size
        )
        choice = search.search(sizes, counts)
        chosen = choice.candidate
        log.say(
            f"linear dynamics with contexts: {len(self.groups.used)} environments, {chosen.contexts} numbers each, "
            f"{chosen.size} codes, ridge {chosen.ridge:g}, validation error {choice.score:.2e} of "
            f"the variance ({without:.2e} without contexts, decoder alone {floor:.1e})"
        )
        log.log("contexts", 0, validation=choice.score, without=without, code_size=chosen.size,
                contexts=chosen.contexts)
        unknowns = (1 + chosen.contexts) * (1 + max(sizes))
        if not search.determined(chosen.size, chosen.contexts) or choice.score > POOR:
            log.say(
                f"the data do not determine the dynamics: {search.transitions} transitions for {unknowns} unknowns a "
                f"code, validation error {choice.score:.2g} of the variance; declare symmetries or give more "
                "trajectories"
            )
        dynamics = self._linear(search, choice)
        if not dynamics.score + floor < BETTER * (without + floor):
            dynamics.row.why = f"not clearly better than dynamics without contexts ({without:.2e})"
            log.say("contexts are not used: they do not lower the error of held-out forecasts")
            return None
        return dynamics

    def _linear(self, search: ContextSearch, choice: ContextChoice) -> ContextDynamics:
        fit, chosen = choice.fit, choice.candidate

        def refit(codes: CodeData, rows: Tensor) -> tuple[VectorField, Tensor]:
            full = search.fit(chosen.size, fit.contexts, chosen.ridge, data=(codes, rows))
            return context_field(full), full.contexts

        field = context_field(fit)
        row = self.run.log.tried(Tried(
            "reduced_order", "linear dynamics with contexts", chosen.size, choice.score, search.floor,
            sum(p.numel() for p in field.parameters()), contexts=chosen.contexts,
        ))
        return ContextDynamics(field, fit.contexts, search.held_contexts(fit), choice.score, refit, row)


def context_candidate(
    run: Run, decoder: Decoder, modes: OutputModes, dynamics: ContextDynamics, codes: CodeData,
    validation: CodeData, interpolation_error: InterpolationError | None = None,
) -> Candidate:
    """The candidate of dynamics with contexts.

    Args:
        decoder: with the leading `modes` as output.
        codes: of training trajectories, originals first, and their copies; validation: of held-out ones.
    """
    groups, size, settings = ContextGroups(run.problem), dynamics.size, run.config.dynamics
    floor, linear = float(modes.prior().noise.mean()), dynamics.field
    rows = groups.train(len(codes.codes) // len(run.problem.train))
    beyond = with_contexts(codes, size, _BEYOND * dynamics.contexts[rows])  # to serve outside of the range too
    step = integration_step(linear, beyond, _STEP_SHARE * (dynamics.score + floor), settings.step)
    integrator = run.problem.integrator(step)
    judged = with_contexts(validation, size, dynamics.validation_contexts)

    def refit() -> Refitted:
        every = CodeData.join([codes, validation])
        numbers = torch.cat([rows, groups.validation])
        kept = numbers >= 0
        every = CodeData(every.codes[kept], every.t[kept], every.observed[kept])
        field, contexts = dynamics.refit(every, numbers[kept])
        return Refitted(field, contexts=groups.contexts(contexts, run.log.say))

    return Candidate(
        run.problem, "reduced_order", "closed form, contexts", decoder, modes.prior(), linear, integrator,
        with_contexts(codes, size, dynamics.contexts[rows]), judged, 0,
        Score(rollout_error(linear, integrator, judged, validation, 0, size), floor, dynamics.row.unknowns or 0),
        dynamics.contexts.shape[1], dynamics.validation_contexts, interpolation_error=interpolation_error,
        refit=refit, row=dynamics.row,
    )


def context_field(fit: ContextFit) -> VectorField:
    """The vector field of linear dynamics affine in contexts, float64."""
    field = VectorField.of(fit.operators.shape[1], context_size=fit.context_size).double()
    field.set_linear(fit.operators[0, :, 1:], fit.operators[0, :, 0])
    field.set_context_linear(fit.operators[1:, :, 1:], fit.operators[1:, :, 0])
    return field
