"""Recipe: a local equation on the harmonics of a periodic domain, found by sparse regression.

An equation with a few terms holds for all fields, whatever the training trajectories have shown of them: no symmetry
need be declared, and a handful of trajectories tells its coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.contexts.shared_dynamics import to_record
from inrflow.dynamics.fields.fourier_grid import LocalBasis
from inrflow.dynamics.fields.pde_terms import Term, known_libraries, libraries
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.along_trajectories import STEPS, WHOLE, EquationRefinement
from inrflow.dynamics.fitting.sparse_regression import EquationSearch, FoundEquation
from inrflow.dynamics.fitting.transitions_of_pde import steps_of
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.states import CodeData, with_contexts
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.encoding.prior.modes import OutputModes
from inrflow.training.candidate import Candidate, Refitted, Score
from inrflow.training.judge import explains, rollout_error
from inrflow.training.margins import BETTER, POOR, REFIT_FAILED, SIMPLER, TRUSTED
from inrflow.training.parts.codes import encode_all
from inrflow.training.parts.decoder import harmonic_decoder
from inrflow.training.parts.environments import ContextGroups
from inrflow.training.problem import Problem
from inrflow.training.recipes.base import asks_for_other_dynamics, uses_solved_codes
from inrflow.training.recorder import Tried
from inrflow.training.run import Run

_NEGLIGIBLE = 0.1  # of the noise: waves that hold less are left out
_NOISY = 1e-4  # share of the variance that harmonics leave: so much noise weakens fits of single steps
_LEVELS = (4.0, 2.0, 1.2)  # times the misfit with all terms, to which terms are struck out
_WIDER = 1.5  # times as many codes as elsewhere: an equation of one system has no more coefficients for them
_SHARE = 0.5  # of the time
_MANY = 400  # codes from which on fewer trajectories calibrate: covariances cost their cube
_BEYOND = 1.5  # contexts that the step must be stable for, times those of training
_HALVINGS = 2
_LIVELY, _MARGIN = 64, 1.5  # states that the final step must be stable for, and how much livelier others may be
_ACCURATE = 0.02  # share of the validation error that the integration may add


class LocalEquationRecipe:
    """A PDE of few terms in closed form."""

    name = "local_equation"

    def applies(self, problem: Problem, best: Candidate | None) -> str | None:
        """None, or why no local equation is looked for."""
        decoder = problem.config.decoder
        if not problem.has_harmonics:
            return "the domain is not periodic in all coordinates"
        if problem.source.time_bins is not None:
            return "values have times of their own, not those of frames"
        if not uses_solved_codes(problem) or not decoder.periodic or decoder.harmonics == 0:
            return "the configured decoder is not the domain's harmonics"
        if len(problem.description.coordinates) > 3:
            return "the domain has more than three dimensions"
        if problem.forcing_period:
            return "the data have a periodic forcing"
        return asks_for_other_dynamics(problem.config)

    def propose(self, run: Run) -> Iterator[Candidate]:
        """The best equation of all libraries, where it forecasts held-out data."""
        search = _Search(run)
        best = search.search()
        if best is None or best.score > POOR:
            run.log.say("no local equation was found that holds for held-out trajectories")
            return
        search.say(best)
        run.log.log("local_equation", 1, validation=best.score, code_size=search.basis.code_size)
        candidate = search.candidate(best)
        if search.apart or candidate.explained:
            yield candidate
        elif candidate.row is not None:
            candidate.row.why = f"the last frames alone judge it, and it misses more than {TRUSTED:g} of them"


def _with_every_environment(problem: Problem) -> Problem:
    """The problem, or one that trains on all trajectories and is judged in time, where some environment has one
    trajectory alone."""
    index = problem.environments.index  # type: ignore[union-attr]
    if len(problem.validation) and set(index[problem.validation]) <= set(index[problem.train]):
        return problem
    return replace(problem, train=np.arange(len(problem.source)), validation=np.arange(0))


class _Search:
    """The search for equations on the codes of one run."""

    def __init__(self, run: Run) -> None:
        self.counts: tuple[int, ...] = (0,)
        self.groups: ContextGroups | None = None
        self.known: Tensor | None = None
        self.rows = self.validation_rows = torch.zeros(0, dtype=torch.int64)
        if run.problem.environments is not None:
            run = run.on(_with_every_environment(run.problem))
            groups = ContextGroups(run.problem)
            counts = groups.sizes()
            if counts:
                self.groups, self.counts, self.rows = groups, counts, groups.train()
                self.validation_rows = groups.validation if len(run.problem.validation) else groups.train()
                self.known = groups.known_start(counts[0])
        self.run, self.library = run, ""
        self.scores: dict[str, float] = {}
        self.row: Tried | None = None
        self.decoder, modes, self.labels = harmonic_decoder(run, determined=True)
        self.modes = modes.truncated(self._size(modes, self.labels))
        self.decoder.set_output(self.modes.mean, self.modes.modes)
        self.noise = float(self.modes.prior().noise.mean())
        codes = encode_all(run, self.decoder, self.modes.prior())
        self.codes, self.apart = codes.train, codes.validation is not None
        self.every = codes.train if codes.validation is None else CodeData.join([codes.train, codes.validation])
        self.train, self.validation, self.first = run.problem.judging(codes.train, codes.validation)
        self.basis = LocalBasis(self.decoder, run.problem.term_shift())

    def _size(self, modes: OutputModes, labels: HarmonicLabels) -> int:
        """Codes of whole shells of waves: as many as hold more than a small part of the noise, up to the limit."""
        decoder = self.run.config.decoder
        most = decoder.largest_code_size if self.groups is not None else round(_WIDER * decoder.largest_code_size)
        whole = [size for size in labels.whole_sizes() if size <= (decoder.code_size or most)]
        tail = modes.variances.flip(0).cumsum(0).flip(0)
        noise = _NEGLIGIBLE * float(modes.noise.sum())
        return next((size for size in whole if size == len(tail) or float(tail[size]) <= noise), whole[-1])

    # ---- the search ----

    def search(self) -> FoundEquation | None:
        """The best of all libraries, few terms at first, and of all numbers of contexts."""
        channels, dimensions = self.basis.channels, self.basis.dimensions
        budget, wanted = self.run.budget, self.run.budget.known("equation")
        until, made = budget.elapsed + budget.seconds(_SHARE), 0

        def more() -> bool:
            nonlocal made
            going = made < wanted if wanted is not None else budget.elapsed < until
            made += going
            return going

        rows = None if self.groups is None else self.rows
        search = EquationSearch(self.basis, self.train, self._judge, rows, self.known, more, self._enough)
        best: FoundEquation | None = None
        pretrained = self.run.problem.pretrained
        lists: dict[str, list[Term]] = {}
        if pretrained is not None:
            lists.update(known_libraries(pretrained.terms, channels, dimensions))
        known = len(lists)
        lists |= {f"library {i}": library for i, library in enumerate(libraries(channels, dimensions))}
        for number, (name, library) in enumerate(lists.items()):
            if number and not more():
                break
            best = self._better(search, name, library, best)
            # The last frames of the training trajectories tell little of short lists: then all of them are tried.
            if best is not None and self._enough(best.score) and (number >= known or self.apart):
                break
        budget.record("equation", made)
        return best

    def _better(
        self, search: EquationSearch, name: str, library: list[Term], best: FoundEquation | None
    ) -> FoundEquation | None:
        """The best so far, or what is found with a library if it is clearly better."""
        candidate: FoundEquation | None = None
        for count in self.counts if self.groups is not None else (0,):
            one = search.search(library, count)
            if one is not None and (candidate is None or one.score < BETTER * candidate.score):
                candidate = one
        if candidate is None:
            return best
        candidate = self._refined(candidate, search.more)
        terms = candidate.equation.count
        self.run.log.log("local_equation", 0, library=name, terms=terms, validation=candidate.score)
        self.scores[name] = candidate.score
        row = self.run.log.tried(Tried(
            "local_equation", f"local equation of {terms} terms, {name}", self.basis.code_size, candidate.score,
            self.noise, candidate.equation.coefficients, contexts=candidate.contexts.shape[1],
        ))
        if best is not None and not candidate.score < BETTER * best.score:
            row.why = "not clearly better than an equation of a shorter list"
            return best
        if self.row is not None:
            self.row.why = "an equation of a longer list has a lower validation error"
        self.library, self.row = name, row
        return candidate

    def _refined(self, equation: FoundEquation, more: Callable[[], bool]) -> FoundEquation:
        """The equation along its own flow, where it leaves much or data are noisy, and validation prefers it so."""
        if equation.score > POOR:
            return equation
        if self.noise > _NOISY and self.apart:
            equation = self._along(equation, WHOLE, more)
        if equation.equation.linear or self._enough(equation.score):
            return equation
        return self._along(equation, STEPS, more)

    def _fewer(self, whole: FoundEquation, refinement: EquationRefinement) -> FoundEquation:
        """The same with as few terms as explain the data: others make forecasts diverge away from the data."""
        for level in _LEVELS:
            if not refinement.more():
                break
            equation, contexts = refinement.refined(whole.equation, whole.contexts, level=level)
            score = self._judge(equation, contexts)
            self.run.log.log("local_equation", 0, refined=score, validation=whole.score, terms=equation.count)
            good = score + self.noise < SIMPLER * (whole.score + self.noise)
            if good and equation.coefficients < whole.equation.coefficients:
                return replace(whole, equation=equation, contexts=contexts, score=score)
        return whole

    def _along(self, before: FoundEquation, windows: str, more: Callable[[], bool]) -> FoundEquation:
        """The equation fitted along whole trajectories with the terms that it has, or along steps with its whole list
        (over whole trajectories, that would explain the noise), then with fewer, if validation prefers it."""
        refinement = self._refinement(self.train, self.rows, windows, more)
        equation, contexts = refinement.refined(before.equation, before.contexts, every=windows == STEPS)
        score = self._judge(equation, contexts)
        self.run.log.log("local_equation", 0, refined=score, validation=before.score)
        if not score < before.score:
            return before
        return self._fewer(FoundEquation(equation, contexts, score, before.misfit, windows), refinement)

    def _refinement(
        self, states: CodeData, rows: Tensor, windows: str, more: Callable[[], bool] = lambda: True,
        quick: bool = True,
    ) -> EquationRefinement:
        environment = rows if self.groups is not None else None
        return EquationRefinement(self.basis, states, environment, self.known is not None, windows, more, quick)

    def _enough(self, score: float) -> bool:
        return explains(score, self.noise)

    def _judge(self, equation: LocalEquation, contexts: Tensor) -> float:
        field = equation.field(self.basis)
        states = self._states(self.validation, contexts, self.validation_rows)
        steps = steps_of(field, self.validation, contexts if contexts.shape[1] else None)
        return rollout_error(
            field, Integrator(step=1 / steps), states, self.validation, self.first, self.basis.code_size
        )

    def _states(self, data: CodeData, contexts: Tensor, rows: Tensor) -> CodeData:
        size = self.basis.code_size
        if not contexts.shape[1]:
            return CodeData(data.codes[..., :size], data.t, data.observed)
        return with_contexts(data, size, contexts[rows])

    # ---- the candidate ----

    def candidate(self, best: FoundEquation) -> Candidate:
        """The equation as a candidate. Linear ones do not end the search: POD codes may hold more of what is linear."""
        problem, size, count = self.run.problem, self.basis.code_size, best.contexts.shape[1]
        equation = best.equation
        field = equation.field(self.basis)
        validation = self._states(self.validation, best.contexts, self.validation_rows)
        integrator = problem.integrator(self._step(field, validation, best))
        metadata: dict[str, Any] = {"symmetries": [], "equation": problem.written(equation)}
        if problem.pretrained is not None:
            metadata["transfer"] = {"dynamics": self.library, "scores": self.scores, "weights": {}}

        def refit() -> Refitted:
            final = self._refitted(best)
            field = final.equation.field(self.basis)
            if count and self.groups is not None:
                return Refitted(field, contexts=self.groups.contexts(final.contexts, self.run.log.say))
            return Refitted(field, pde=to_record(final.equation, self.basis))

        return Candidate(
            problem, "local_equation", "local equation" + (", contexts" if count else ""), self.decoder,
            self.modes.prior(), field, integrator, self._states(self.codes, best.contexts, self.rows), validation,
            self.first, Score(best.score, self.noise, equation.coefficients), count,
            best.contexts[self.validation_rows] if count else None,
            explained=self._enough(best.score) if self.apart else best.score < TRUSTED,
            refit=refit, code_names=self.labels.first(size).names(),
            calibrated=16 if size <= _MANY else 8, metadata=metadata, row=self.row,
        )

    def _refitted(self, best: FoundEquation) -> FoundEquation:
        """The equation fitted once more to all trajectories, or as it was where it then forecasts them worse."""
        rows = self.rows
        if self.apart and self.groups is not None:
            rows = torch.cat([self.rows, self.validation_rows])
        if best.along:
            if not self.apart:
                return best
            refinement = self._refinement(self.every, rows, best.along, quick=False)
            equation, contexts = refinement.refined(best.equation, best.contexts)
            again = replace(best, equation=equation, contexts=contexts)
        else:
            own = rows if self.groups is not None else None
            again = EquationSearch(self.basis, self.every, self._judge).refit(best, own)
        return again if self._judge(again.equation, again.contexts) < REFIT_FAILED * best.score else best

    def _step(self, field: VectorField, validation: CodeData, best: FoundEquation) -> float:
        """A stable step whose error in rollouts is a small part of the validation error."""
        contexts = _BEYOND * best.contexts if best.contexts.shape[1] else None
        steps = round(_MARGIN * steps_of(field, self.every, contexts, _LIVELY))
        rows = validation.observed.all(1).nonzero()[:16, 0]
        if not len(rows):
            return 1 / steps
        start, times = validation.codes[rows, self.first], validation.t[rows, self.first :]
        variance = validation.codes[validation.observed].square().sum(1).mean()
        with torch.no_grad():
            paths = [
                Integrator(step=1 / (steps * 2**halving))(field, start, times, check=False)
                for halving in range(_HALVINGS + 1)
            ]
        for halving, path in enumerate(paths[:-1]):
            error = float((path - paths[-1]).square().sum(-1).mean() / variance)
            if error < _ACCURATE * (best.score + self.noise):
                return 1 / (steps * 2**halving)
        return 1 / (steps * 2**_HALVINGS)

    def say(self, best: FoundEquation) -> None:
        """Print the equation, a line for each channel."""
        contexts = f", {best.contexts.shape[1]} contexts" if best.contexts.shape[1] else ""
        self.run.log.say(
            f"local equation: {best.equation.count} terms{contexts}, {self.basis.code_size} codes, validation error "
            f"{best.score:.2e} of the variance (harmonics alone leave {self.noise:.1e})"
        )
        for line in self.run.problem.written(best.equation):
            self.run.log.say(f"  {line}")
