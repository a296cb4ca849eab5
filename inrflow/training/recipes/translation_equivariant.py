"""Training on the harmonics of a periodic domain: dynamics that commute with translations, in closed form, in seconds.

The decoder is the domain's Fourier basis, so that nothing of it is trained and codes mean the same for every physics;
each wave has few unknowns, so that few trajectories determine them. What other physics have taught may be the start.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.contexts.search import contexts_of_parameters
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.spectral import SpectralForm
from inrflow.dynamics.states import CodeData, with_memory
from inrflow.encoding.encode import Encoder
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels
from inrflow.encoding.prior.modes import OutputModes
from inrflow.errors import UserError
from inrflow.evaluation.calibration import calibrate
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.training import judge as dynamics_stage
from inrflow.training.parts.environments import ContextDynamics, ContextStage
from inrflow.training.parts.harmonics import harmonic_decoder, has_harmonics
from inrflow.training.parts.spectral import LARGEST_SIZE, KnownPhysics, SpectralStage, refitted
from inrflow.training.parts.spectral_with_contexts import SpectralContexts
from inrflow.training.parts.split import choose_split
from inrflow.training.problem import CLEARLY_BETTER, GOOD_ENOUGH
from inrflow.training.recipes.local_equation import EquationRun, clearly_better, equation_run
from inrflow.training.recorder import Recorder
from inrflow.training.train import Training

_TRAJECTORIES, _COPIES = 32, 8  # copies under declared symmetries: only where trajectories are few


class HarmonicTraining(Training):
    """One training run with codes on the domain's harmonics.

    `known`: what a run on other physics knows. `trajectories`: only the first ones of the file, None for all.
    """

    def __init__(
        self, config: Config, file: TrajectoryFile, directory: Path, recorder: Recorder, save_config,  # noqa: ANN001
        known: KnownPhysics | None = None, trajectories: int | None = None,
    ) -> None:
        super().__init__(config, file, directory, recorder, save_config)
        self.known = known
        self.encoder = Encoder()  # codes on harmonics are solved, never descended
        if trajectories is not None:
            count = min(trajectories, len(self.source))
            self.training, self.validation = choose_split(count, config.data.validation, config.seed)
            self.source.fit_normalisation(self.training)

    def run(self) -> Surrogate:
        """A local equation, or else the dynamics of single waves, whichever validation prefers."""
        if not has_harmonics(self.file):
            raise UserError(f"{self.file.path} is not periodic in all coordinates (period "
                            f"{list(self.description.period or ())}), so its domain has no harmonics; give "
                            "decoder.codes=variance")
        known = self.known
        equation = equation_run(self, {} if known is None else known.terms)
        if equation is not None and (equation.explained or not len(self.validation)):
            return self._taken(equation)
        surrogate = self._run_waves()
        if equation is not None and clearly_better(self, equation, surrogate):
            return self._taken(equation)
        return surrogate

    def _taken(self, equation: EquationRun) -> Surrogate:
        if self.known is not None:
            self.known.note, self.known.scores = equation.library, equation.scores
        return equation.surrogate

    def _run_waves(self) -> Surrogate:
        """Harmonics, codes, closed-form dynamics wave by wave, a residual where it helps, priors."""
        decoder, modes, labels = harmonic_decoder(self)
        self.config.training.steps.decoder = 0
        count = len(self.training)
        copies = min(_COPIES, max(1, _TRAJECTORIES // count)) if len(self.symmetries) else 1
        if self.config.data.copies is not None and len(self.symmetries):
            copies = self.config.data.copies
        book = self.code_book(decoder, modes.prior())
        codes, held = book.training, book.held
        if copies > 1:
            codes = book.with_copies(self.training, self.augmentation(self.symmetries), copies, self.config.seed)
        taught, judged, first = self.judging(codes, held)
        stage = SpectralStage(taught, judged, first, labels, self.recorder, self.known)
        sizes = self._whole_sizes(modes, labels)
        if self.environments is not None and self.known is None:  # errors without contexts tell nothing of the size
            sizes = [max((size for size in sizes if size <= LARGEST_SIZE), default=min(sizes))]
        found = stage.search(sizes)
        every = codes if held is None else CodeData.join([held, codes])
        modes = modes.truncated(found.size)
        decoder.set_output(modes.mean, modes.modes)
        if held is not None:
            surrogate = self._with_contexts(decoder, modes, found, codes, held)
            if surrogate is not None:
                return surrogate
        prior, size = modes.prior(), found.size
        floor = float(prior.noise.mean())
        dynamics = self.config.dynamics
        field = found.field()
        states, judged_states = with_memory(taught, size, None), with_memory(judged, size, None)
        step = found.substep  # along whose flow the products were fitted
        if field.is_linear:
            step = min(step, dynamics_stage.integration_step(field, states, found.score + floor, dynamics.step))
        integrator = Integrator(dynamics.method, step, dynamics.rtol, dynamics.atol, dynamics.adjoint)

        def error(candidate) -> float:  # noqa: ANN001
            return dynamics_stage.rollout_error(candidate, integrator, judged_states, judged, first, size)

        start, note = error(field), "closed form"
        final = refitted(found, every).field() if held is not None else field
        if dynamics.depth and start > max(floor, GOOD_ENOUGH):
            trained = self.train_residual(field, states, integrator, error, start, floor, decoder)
            if trained is not None and error(trained) < 0.95 * start:
                field = final = trained.double()
                note = "closed form and trained residual"
        self.recorder.say(f"dynamics: {note}, validation error {error(field):.2e} of the variance")
        process = dynamics_stage.calibrated_process_noise(field, integrator, judged_states.since(first))
        spread = torch.ones(len(self.description.channels), dtype=torch.float64)
        surrogate = self.surrogate(
            decoder, field, integrator,
            StatePrior(prior.mean.double(), prior.covariance.double(), prior.noise.double(), process, spread),
            f"{note}, commutes with translations", code_names=labels.first(size).names(),
        )
        batch = self.source.batch(self.validation[:8] if held is not None else self.training[:8], normalised=False)
        surrogate.prior.farthest = max(surrogate.prior.reach(data, size) for data in (states, judged_states))
        surrogate.prior.spread = calibrate(surrogate, batch, first + 1)
        self.judged = replace(surrogate, field=field.double().eval())
        surrogate.field = final.double().eval()
        return surrogate

    def _with_contexts(
        self, decoder: ModulatedSiren, modes: OutputModes, plain: SpectralForm, codes: CodeData, held: CodeData
    ) -> Surrogate | None:
        """The surrogate with contexts of the environments, None where there are none or they do not help."""
        if self.environments is None or self.known is not None:
            return None
        stage = ContextStage(self, self.environments)
        counts, rows = stage.sizes_to_try(tell=True), stage.number[torch.as_tensor(self.training)]
        held_rows = stage.number[torch.as_tensor(self.validation)]
        if not counts or bool((held_rows < 0).any()):
            self.recorder.say("contexts are not used: each environment needs a training and a held-out trajectory")
            return None
        parameters, known = self.environments.parameters, None
        if parameters is not None:
            known = contexts_of_parameters(torch.as_tensor(parameters[stage.used]), counts[0])
        every = rows.repeat(len(codes.codes) // len(rows))
        found = SpectralContexts(codes, every, held, held_rows, self.recorder).search(plain, counts, known)
        if found is None or not found.score < CLEARLY_BETTER * plain.score:
            self.recorder.say("contexts are not used: held-out trajectories are forecast as well without them")
            return None
        self.recorder.say(
            f"dynamics with contexts: {len(stage.used)} environments, {found.contexts.shape[1]} numbers each, "
            f"{'linear part and products' if found.form.operator.coupled else 'the linear part'} affine in them, "
            f"validation error {found.score:.2e} of the variance ({plain.score:.2e} without contexts)"
        )

        def refit(states: CodeData, numbers: Tensor) -> tuple[VectorField, Tensor]:
            again = found.refit(states, numbers)
            return again.form.field(), again.contexts

        field = found.form.field()
        dynamics = ContextDynamics(field, found.contexts, found.contexts[held_rows], found.score, refit)
        return stage.finish(decoder, modes, dynamics, codes, held, None)

    def _whole_sizes(self, modes: OutputModes, labels: HarmonicLabels) -> list[int]:
        """Numbers of codes whose shells of waves are whole, for tails of the spectrum."""
        sizes = dynamics_stage.candidate_sizes(modes.variances, 10**9, self.config.decoder.code_size)
        whole = labels.whole_sizes()
        return sorted({min((w for w in whole if w >= size), default=whole[-1]) for size in sizes})


