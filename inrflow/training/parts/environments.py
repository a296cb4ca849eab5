"""Linear dynamics affine in contexts: groups of trajectories with a common context, and the candidate.

Contexts are solved, not descended: by alternating least squares on code transitions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.contexts.search import ContextFit, ContextSearch
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.states import with_contexts
from inrflow.encoding.encode import CodeData
from inrflow.model.contexts import Contexts, ParameterMap, parameter_contexts, truncation_growth
from inrflow.numerics.polynomials import affine
from inrflow.training.candidate import Candidate, Refitted, Score
from inrflow.training.judge import rollout_error
from inrflow.training.margins import BETTER, POOR
from inrflow.training.parts.decoder import FittedDecoder
from inrflow.training.parts.linear import ChosenDynamics, candidate_sizes
from inrflow.training.problem import Problem
from inrflow.training.recorder import Tried
from inrflow.training.run import Run

_UNKNOWN_SIZES = (1, 2)
_SECOND_ORDER = 2.0  # exponent of growth of variances: the error of operators affine in contexts is quadratic


class ContextGroups:
    """Groups of training trajectories with a common context, and the context sizes to try.

    Attributes:
        used: (E,) environments with training trajectories.
        number: (S,) group of every trajectory of the file, -1 for none.
        parameters: (E, Q) known parameters of the groups, None if there are none.
    """

    def __init__(self, problem: Problem) -> None:
        assert problem.environments is not None
        self.problem, self.environments = problem, problem.environments
        index = self.environments.index
        self.used = np.unique(index[problem.train])
        self.number = torch.as_tensor(np.where(np.isin(index, self.used), np.searchsorted(self.used, index), -1))
        known = self.environments.parameters
        self.parameters = None if known is None else torch.as_tensor(known[self.used])

    @property
    def validation(self) -> Tensor:
        """Groups of the validation trajectories."""
        return self.number[torch.as_tensor(self.problem.validation)]

    def train(self, copies: int = 1) -> Tensor:
        """Groups of the training trajectories, repeated for `copies` copies of them, originals first."""
        return self.number[torch.as_tensor(self.problem.train)].repeat(copies)

    def sizes(self, say: Callable[[str], None] = lambda line: None) -> tuple[int, ...]:
        """Context sizes to try: the configured one; else the number of known parameters and one more, since a parameter
        may enter coefficients in several ways; without parameters, one and two."""
        wanted, known = self.problem.config.dynamics.context_size, self.environments.parameters
        possible = len(self.used) - 1
        sizes = list(_UNKNOWN_SIZES) if wanted is None else [wanted]
        if wanted is None and known is not None:
            sizes = [known.shape[1], *([known.shape[1] + 1] if known.shape[1] + 1 < possible else [])]
        if max(sizes) > possible:
            say(f"contexts: {len(self.used)} training environments determine at most {possible} "
                f"number{'s' * (possible != 1)} each, of {max(sizes)}")
        return tuple(sorted({min(size, possible) for size in sizes} - {0}))

    def candidates(self, alike: bool = False) -> list[Tensor]:
        """Candidate contexts (E, P) of the groups as functions of known parameters; alike: all with the same power."""
        wanted = self.problem.config.dynamics.context_size
        forms = [] if self.parameters is None else parameter_contexts(self.parameters, alike)
        return [form for form in forms if wanted in (None, form.shape[1])]

    def validation_contexts(self, values: Tensor, contexts: Tensor) -> Tensor:
        """Contexts (S, P) of the validation trajectories, those of new systems by the map from parameters to `values`
        (E, P), as in queries; unchanged without parameters."""
        if self.parameters is None or self.environments.parameters is None:
            return contexts
        theirs = self.environments.parameters[self.environments.index[self.problem.validation]]
        mapped = ParameterMap.fit(self.parameters, values).contexts(torch.as_tensor(theirs))
        return torch.where(self.validation[:, None] < 0, mapped, contexts)

    def in_parameters(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor, list[str]] | None:
        """Contexts (E, P) of the groups in terms of the known parameters, see `affine`; None without parameters."""
        return None if self.parameters is None else affine(self.parameters, values, self.environments.names)

    def contexts(self, values: Tensor, say: Callable[[str], None], growth: float = 0.0) -> Contexts:
        """Contexts (E, P) of the groups, with `growth` at least as given, and a map from known parameters."""
        names, labels = self.environments.names, torch.as_tensor(self.environments.labels[self.used])
        if self.parameters is None:
            return Contexts(self.environments.kind, values, labels, growth=truncation_growth(1))
        fitted = ParameterMap.fit(self.parameters, values)
        say(f"contexts: polynomial of degree {fitted.degree} of {', '.join(fitted.written(names))} (error "
            f"{float(fitted.error.diagonal().mean().sqrt()):.1e} of their spread)")
        growth = max(growth, truncation_growth(fitted.degree if values.shape[1] > len(names) else 1))
        return Contexts(self.environments.kind, values, labels, names, self.parameters, fitted, growth)


def context_candidate(run: Run, fitted: FittedDecoder, without: ChosenDynamics) -> Candidate | None:
    """The candidate of linear dynamics affine in contexts; None if contexts do not lower the error.

    Args:
        fitted: decoder and modes, of which the candidate uses the leading ones.
        without: the best dynamics without contexts, of the same codes.
    """
    groups, log, codes, validation = ContextGroups(run.problem), run.log, without.train, without.validation
    counts = groups.sizes(log.say)
    if validation is None or not counts:
        log.say("contexts are not used: they need several environments and a held-out trajectory; give more")
        return None
    floor = float(fitted.modes.noise.mean())
    rows = groups.train(len(codes.codes) // len(run.problem.train))
    search = ContextSearch(codes, rows, len(groups.used), validation, groups.validation, floor, groups.candidates())
    sizes = candidate_sizes(fitted.modes.variances, search.transitions // (1 + counts[0]), run.config.decoder.code_size)
    fit, error = search.search(sizes, counts)
    size = fit.size
    log.say(f"linear dynamics with contexts: {len(groups.used)} environments of {fit.context_size} numbers, "
            f"{size} codes, ridge {fit.ridge:g}, validation error {error:.2e} of "
            f"the variance ({without.score:.2e} without contexts, decoder alone {floor:.1e})")
    log.log("contexts", 0, validation=error, without=without.score, code_size=size, contexts=fit.context_size)
    if not search.determined(size, fit.context_size) or error > POOR:
        log.say(f"the data do not determine the dynamics: {search.transitions} transitions for "
                f"{(1 + fit.context_size) * (1 + max(sizes))} unknowns per code, validation error {error:.2g} of the "
                "variance; declare symmetries or give more trajectories")
    field = context_field(fit)
    row = log.tried(Tried(
        "reduced_order", "linear dynamics with contexts", size, error, floor,
        sum(p.numel() for p in field.parameters()), contexts=fit.context_size,
    ))
    if not error + floor < BETTER * (without.score + floor):
        row.why = f"not clearly better than dynamics without contexts ({without.score:.2e})"
        log.say("contexts are not used: they do not lower the error of held-out forecasts")
        return None
    without.row.why = "dynamics with contexts have a lower validation error"
    leading = fitted.leading(size)
    prior = leading.modes.prior()
    floor = float(prior.noise.mean())
    integrator = run.problem.integrator(linear=True)
    held = groups.validation_contexts(fit.contexts, search.held_contexts(fit))
    judged = with_contexts(validation, size, held)

    def refit() -> Refitted:
        every, numbers = CodeData.join([codes, validation]), torch.cat([rows, groups.validation])
        kept = numbers >= 0
        full = search.fit(size, fit.contexts, fit.ridge, fit.given, (every.at(kept), numbers[kept]))
        return Refitted(context_field(full), contexts=groups.contexts(full.contexts, log.say, _SECOND_ORDER))

    return Candidate(
        run.problem, "reduced_order", "closed form, contexts", leading.decoder, prior, field, integrator,
        with_contexts(codes, size, fit.contexts[rows]), judged, 0,
        Score(rollout_error(field, integrator, judged, validation, 0, size), floor, row.unknowns or 0),
        fit.context_size, held, interpolation_error=fitted.interpolation_error, refit=refit, row=row,
    )


def context_field(fit: ContextFit) -> VectorField:
    """The vector field of linear dynamics affine in contexts, float64."""
    field = VectorField.of(fit.operators.shape[1], context_size=fit.context_size).double()
    field.set_linear(fit.operators[0, :, 1:], fit.operators[0, :, 0])
    field.linear.set_context(fit.operators[1:, :, 1:], fit.operators[1:, :, 0])
    return field
