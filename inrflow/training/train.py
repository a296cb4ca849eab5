"""`train`: from a data file to a Surrogate, stage by stage. Read `run` from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from inrflow.config.schema import Config
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.decoders.base import Decoder
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear_search import ClosedFormSearch
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.libraries.quadratic import QuadraticForm
from inrflow.dynamics.states import CodeData
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.interpolation_error import UnseenVariance
from inrflow.encoding.prior.modes import OutputModes
from inrflow.model.surrogate import Surrogate
from inrflow.training.complete import assemble, finish
from inrflow.training.parts.asynchronous import QuadraticCodes, follow_quadratic_motion, resolve_times, sizes_near
from inrflow.training.parts.codes import CodeBook, affordable_copies, make_code_book, solve_codes, wanted_copies
from inrflow.training.parts.decoder import fit_decoder, fit_modes
from inrflow.training.parts.delay_embedding import choose_memory
from inrflow.training.parts.environments import ContextStage
from inrflow.training.parts.loop import Stage
from inrflow.training.parts.mesh_flow import completed_by_equation
from inrflow.training.parts.rollouts import train_residual
from inrflow.training.parts.symmetries import check_symmetries
from inrflow.training.parts.trunk import DecoderTraining
from inrflow.training.problem import TrainingSetup
from inrflow.training.recipes.auto_decoding import fit_table_decoder, uses_table
from inrflow.training.recipes.joint import fit_jointly, wrapping
from inrflow.training.recipes.local_equation import clearly_better, equation_run
from inrflow.training.recipes.reduced_order import (
    ChosenDynamics,
    choose_closed_form,
    choose_closure,
    choose_quadratic,
    closed_form_search,
    sizes_to_try,
)
from inrflow.training.recorder import Recorder

_COPIES_SHARE = 0.15
_TABLE_SHARE = 0.45  # descended codes need the longer part of the time
_JOINT_SHARE = 0.95


class Training(TrainingSetup):
    """One training run on an open file; `run` returns the surrogate."""

    unseen: UnseenVariance | None = None  # what the decoder misses where no training frame has a point

    def run(self) -> Surrogate:
        """All stages."""
        if uses_table(self.config):
            return self._run_jointly() if self.config.training.joint else self._run_table()
        equation = equation_run(self)
        if equation is not None and (equation.settled or not len(self.validation)):
            return equation.surrogate
        surrogate = self._run_codes()
        if equation is not None and clearly_better(self, equation, surrogate):
            return equation.surrogate
        return surrogate

    def _run_codes(self) -> Surrogate:
        """Codes of most variance, and the dynamics that suit them best."""
        config, say = self.config, self.recorder.say
        completed = completed_by_equation(self)
        if completed is not None:
            self.source = completed.source
        decoder, modes = self.fit_decoder()
        if completed is not None:
            self.unseen = completed.unseen
        book = self.code_book(decoder, modes.prior())
        if len(self.symmetries):
            kept = check_symmetries(self, book, modes)
            if len(kept) < len(self.symmetries):
                self.symmetries = kept
                training = DecoderTraining(self.source, self.training, self.validation, self.augmentation(kept))
                modes = fit_modes(self, training, decoder)
                decoder.set_output(modes.mean, modes.modes)
                decoder = decoder.float()
                book = self.code_book(decoder, modes.prior())
            say(f"symmetries: {', '.join(self.symmetries.names) or 'none'}")
        if self.source.time_bins is not None:
            decoder, modes, book = resolve_times(self, decoder, modes, book)
        copies = affordable_copies(self, book, "copies", wanted_copies(self), _COPIES_SHARE)
        codes = book.with_copies(self.training, self.augmentation(self.symmetries), copies, config.seed)
        held = book.held
        sizes = sizes_to_try(self, modes, codes)
        search = self.search(codes, held, float(modes.noise.mean()))
        fit = choose_closed_form(self, search, sizes, codes, held)
        if self.environments is not None:
            stage = ContextStage(self, self.environments)
            average = book.operator_average(self.augmentation(self.symmetries))
            surrogate = stage.run(decoder, modes, codes, held, fit.score, self.unseen, average)
            if surrogate is not None:
                return surrogate
        quadratic = choose_quadratic(self, fit, search.floor, sizes, codes, held)
        if quadratic is not None and self.source.time_bins is not None:

            def again(modes: OutputModes, codes: CodeData, held: CodeData | None, size: int) -> QuadraticForm | None:
                near = sizes_near(sizes_to_try(self, modes, codes), size)
                return choose_quadratic(self, fit, float(modes.noise.mean()), near, codes, held)

            found = QuadraticCodes(quadratic, codes, held, decoder, modes, book)
            found = follow_quadratic_motion(self, found, copies, again)
            quadratic, codes, held = found.quadratic, found.codes, found.held
            decoder, modes = found.decoder, found.modes
        chosen = choose_memory(self, ChosenDynamics(search, fit, codes, held, quadratic), sizes)
        if config.decoder.closure and chosen.size < len(modes.variances):
            closed = choose_closure(self, decoder, modes, chosen.size, codes)
            if closed is not None:
                return finish(self, *closed, chosen, self.unseen)
        leading = modes.truncated(chosen.size)
        decoder.set_output(leading.mean, leading.modes)
        return finish(self, decoder, leading.prior(), chosen, self.unseen, modes)

    def _run_table(self) -> Surrogate:
        """The published recipes: codes descended with the decoder, no symmetries."""
        if len(self.symmetries):
            self.recorder.say("symmetries are not used: these codes belong to single training frames")
            self.symmetries = self.symmetries.only([])

        def choose_steps(stage: Stage) -> int:
            return self.steps("decoder", stage, _TABLE_SHARE, 100_000)

        decoder, prior, table = fit_table_decoder(
            self.config, self.source, self.training, self.validation, self.embedding(), choose_steps, self.recorder,
            self.checkpoints,
        )
        batch = self.source.batch(self.training)
        codes = CodeData(table.double(), self.scale.internal(batch.t), batch.observed)
        held = solve_codes(self, decoder, prior, self.validation) if len(self.validation) else None
        search = self.search(codes, held, float(prior.noise.mean()))
        fit = choose_closed_form(self, search, [decoder.code_size], codes, held)
        return finish(self, decoder, prior, ChosenDynamics(search, fit, codes, held), self.unseen)

    def _run_jointly(self) -> Surrogate:
        """DINo's recipe: codes, decoder and field in the same iterations."""
        embedding = self.embedding()
        result = fit_jointly(
            self.config, self.source, self.training, self.validation, embedding, self.augmentation(self.symmetries),
            wrapping(self.box, self.description.period, embedding), self.scale,
            lambda stage: self.steps("decoder", stage, _JOINT_SHARE, 1_000_000), self.recorder, self.checkpoints,
        )
        self.encoder = replace(self.encoder, iterations=result.iterations)
        field = result.field.double()
        return assemble(
            self, result.decoder, result.prior, field, field, Integrator(), result.training, result.training, 0,
            "trained network", self.unseen,
        )

    # ---- parts that are also run alone ----

    def fit_decoder(self) -> tuple[ModulatedSiren, OutputModes]:
        """Trunk and output modes of an affine decoder."""
        decoder, modes, self.unseen = fit_decoder(self)
        return decoder, modes

    def code_book(self, decoder: ModulatedSiren, prior: GaussianPrior) -> CodeBook:
        """Codes of training and validation trajectories, and the means to copy them."""
        return make_code_book(self, decoder, prior, self.training, self.validation)

    def search(self, training: CodeData, held: CodeData | None, floor: float) -> ClosedFormSearch:
        """The search for closed-form dynamics on these codes."""
        return closed_form_search(self, training, held, floor)

    def train_residual(
        self, linear: VectorField, states: CodeData, integrator: Integrator, error: Callable[..., float],
        start_error: float, floor: float, decoder: Decoder,
    ) -> VectorField | None:
        """The field with trained parts, or None where the closed form leaves nothing to train."""
        return train_residual(self, linear, states, integrator, error, start_error, floor, decoder)


def train(
    config: Config, file: TrajectoryFile, directory: Path, recorder: Recorder, save_config: Callable[[], None]
) -> Surrogate:
    """Train on an open file. Checkpoints go to `directory`/checkpoints; `save_config` is called when steps are set.

    Raises UserError for data that cannot be trained on, Interrupted after saving when the recorder is told to stop.
    """
    return Training(config, file, directory, recorder, save_config).run()


