"""Recipe: dynamics that commute with translations, wave by wave in closed form, on the harmonics of a periodic domain.

The decoder is the domain's Fourier basis, so that nothing of it is trained and codes mean the same for every physics;
each wave has few unknowns, so that few trajectories determine them.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.libraries.spectral import SpectralForm
from inrflow.dynamics.states import CodeData, with_memory
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.encoding.prior.modes import OutputModes
from inrflow.errors import UserError
from inrflow.training.candidate import Candidate, Refitted, Score
from inrflow.training.judge import integration_step, rollout_error
from inrflow.training.margins import BETTER
from inrflow.training.parts.codes import encode_all
from inrflow.training.parts.decoder import harmonic_decoder
from inrflow.training.parts.environments import ContextDynamics, ContextGroups, context_candidates
from inrflow.training.parts.linear import candidate_sizes
from inrflow.training.parts.rollouts import with_residual
from inrflow.training.parts.spectral import LARGEST_SIZE, SpectralContexts, SpectralSearch, refitted
from inrflow.training.problem import Problem
from inrflow.training.recorder import Tried
from inrflow.training.run import Run

_TRAJECTORIES, _COPIES = 32, 8  # copies under declared symmetries: only where trajectories are few


class TranslationEquivariantRecipe:
    """Linear and quadratic dynamics of Fourier coefficients."""

    name = "translation_equivariant"

    def applies(self, problem: Problem, best: Candidate | None) -> str | None:
        """None, or why codes on harmonics are not tried. Raises UserError where they are asked for in vain."""
        if problem.config.decoder.codes != "harmonics":
            return "decoder.codes=variance asks for POD codes"
        if not problem.has_harmonics:
            raise UserError(f"{problem.file.path} is not periodic in all coordinates (period "
                            f"{list(problem.description.period or ())}), so its domain has no harmonics; give "
                            "decoder.codes=variance")
        if best is not None and best.explained:
            return f"{best.recipe} explains the data on the same harmonics"
        if best is not None and not len(problem.validation):
            return f"no trajectories are held out to compare with {best.recipe}"
        return None

    def propose(self, run: Run) -> Iterator[Candidate]:
        """The best field without contexts or with them, without and with a trained network beside it."""
        problem, config = run.problem, run.config
        decoder, modes, labels = harmonic_decoder(run)
        run.budget.record("decoder", 0)
        count = len(problem.train)
        copies = min(_COPIES, max(1, _TRAJECTORIES // count)) if len(problem.symmetries) else 1
        if config.data.copies is not None and len(problem.symmetries):
            copies = config.data.copies
        codes = encode_all(run, decoder, modes.prior())
        train, validation = codes.train, codes.validation
        if copies > 1:
            train = codes.with_copies(problem.train, problem.augmentation(), copies, config.seed)
        fitted, judged, first = problem.judging(train, validation)
        search = SpectralSearch(fitted, judged, first, labels, run.log)
        sizes = _whole_sizes(modes, labels, config.decoder.code_size)
        if problem.environments is not None:  # errors without contexts tell nothing of the size
            sizes = [max((size for size in sizes if size <= LARGEST_SIZE), default=min(sizes))]
        form = search.search(sizes)
        modes = modes.truncated(form.size)
        decoder.set_output(modes.mean, modes.modes)
        prior, size = modes.prior(), form.size
        floor = float(prior.noise.mean())
        field = form.field()
        row = run.log.tried(Tried(
            self.name, f"{form.kind}, {len(form.waves.out)} products", size, form.score, floor,
            sum(int((p != 0).sum()) for p in field.parameters()),
        ))
        if validation is not None and problem.environments is not None:
            dynamics = _with_contexts(run, form, train, validation, floor)
            if dynamics is not None:
                row.why = "dynamics with contexts have a lower validation error"
                yield from context_candidates(run, self.name, decoder, modes, dynamics, train, validation)
                return
        settings = config.dynamics
        states, judged_states = with_memory(fitted, size, None), with_memory(judged, size, None)
        step = form.substep  # along whose flow the products were fitted
        if field.is_linear:
            step = min(step, integration_step(field, states, form.score + floor, settings.step))
        integrator = problem.integrator(step)

        def error(other: VectorField) -> float:
            return rollout_error(other, integrator, judged_states, judged, first, size)

        every = train if validation is None else CodeData.join([validation, train])
        candidate = Candidate(
            problem, self.name, "closed form, commutes with translations", decoder, prior, field, integrator, states,
            judged_states, first, Score(error(field), floor, row.unknowns or 0),
            refit=(lambda: Refitted(refitted(form, every).field())) if validation is not None else None,
            row=row,
        )
        yield candidate
        trained = with_residual(run, candidate, error)
        if trained is not None:
            yield trained


def _with_contexts(
    run: Run, plain: SpectralForm, train: CodeData, validation: CodeData, floor: float
) -> ContextDynamics | None:
    """Dynamics with contexts of the environments, None where there are none or they do not help."""
    groups = ContextGroups(run.problem)
    counts = groups.sizes(run.log.say)
    rows, validation_rows = groups.train(len(train.codes) // len(run.problem.train)), groups.validation
    if not counts or bool((validation_rows < 0).any()):
        run.log.say("contexts are not used: each environment needs a training and a held-out trajectory")
        return None
    search = SpectralContexts(train, rows, validation, validation_rows, run.log)
    form = search.search(plain, counts, groups.known_start(counts[0]))
    if form is None or not form.score < BETTER * plain.score:
        run.log.say("contexts are not used: they do not lower the error of held-out forecasts")
        return None
    affine = "linear part and products" if form.form.operator.coupled else "the linear part"
    run.log.say(
        f"dynamics with contexts: {len(groups.used)} environments, {form.contexts.shape[1]} numbers each, {affine} "
        f"affine in them, validation error {form.score:.2e} of the variance ({plain.score:.2e} without contexts)"
    )

    def refit(states: CodeData, numbers: Tensor) -> tuple[VectorField, Tensor]:
        again = form.refit(states, numbers)
        return again.form.field(), again.contexts

    field = form.form.field()
    row = run.log.tried(Tried(
        "translation_equivariant", f"wave by wave with contexts, {affine} affine in them", form.form.size, form.score,
        floor, sum(int((p != 0).sum()) for p in field.parameters()), contexts=form.contexts.shape[1],
    ))
    return ContextDynamics(field, form.contexts, form.contexts[validation_rows], form.score, refit, row)


def _whole_sizes(modes: OutputModes, labels: HarmonicLabels, fixed: int | None) -> list[int]:
    """Numbers of codes whose shells of waves are whole, for tails of the spectrum."""
    whole = labels.whole_sizes()
    sizes = candidate_sizes(modes.variances, 10**9, fixed)
    return sorted({min((w for w in whole if w >= size), default=whole[-1]) for size in sizes})


