"""`train`: from a data file to a Surrogate, stage by stage. Read `run` from top to bottom."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from inrflow.assimilation import StatePrior
from inrflow.config import Config
from inrflow.data.batch import TrajectoryBatch
from inrflow.data.environments import environments_of
from inrflow.data.source import TrajectorySource
from inrflow.data.symmetries import Symmetries
from inrflow.data.trajectories import TrajectoryFile
from inrflow.decoders.base import Decoder
from inrflow.decoders.closure import ClosureDecoder
from inrflow.decoders.embeddings import Embedding, make_embedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.devices import choose_device
from inrflow.dynamics.closed_form import RIDGES, ClosedForm, ClosedFormSearch
from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.quadratic_fit import QuadraticForm
from inrflow.dynamics.states import CodeData, with_memory
from inrflow.dynamics.time_scale import TimeScale
from inrflow.dynamics.vector_field import VectorField
from inrflow.encoding.drift import Drift
from inrflow.encoding.encode import Encoder
from inrflow.encoding.gaussian import GaussianPrior
from inrflow.encoding.modes import OutputModes
from inrflow.encoding.unseen import UnseenVariance
from inrflow.errors import UserError
from inrflow.evaluation.spread import calibrate
from inrflow.surrogate import Surrogate
from inrflow.training import dynamics_stage
from inrflow.training.codes_stage import CodeBook, code_motion
from inrflow.training.context_stage import ContextStage
from inrflow.training.decoder_stage import Augmentation, DecoderTraining
from inrflow.training.dino_run import fit_jointly, wrapping
from inrflow.training.dynamics_stage import FieldSettings
from inrflow.training.quadratic_stage import QuadraticStage
from inrflow.training.recorder import Interrupted, Recorder
from inrflow.training.refit_stage import Refit
from inrflow.training.rollout_stage import DataSpaceTraining, RolloutTraining, with_residual
from inrflow.training.scattered_stage import blocks_of, drift_of, refit_modes
from inrflow.training.splits import choose_split
from inrflow.training.steps import OptimiserSettings, Stage, run_stage, timed_steps
from inrflow.training.table_run import ADAM_RATE, GRADIENT_RATE, fit_table_decoder, uses_table

_HARMONIC_FEATURES = (200, 300)
_DECODER_SHARE, _ROLLOUT_SHARE, _DATA_SHARE, _QUADRATIC_SHARE = 0.3, 0.45, 0.1, 0.2
_MODES_SHARE, _CHECK_SHARE, _COPIES_SHARE = 0.15, 0.1, 0.15
_ROUNDS = 3  # of codes and motion in turn, for scattered rows
_MODE_ITERATIONS, _FEWEST_FOR_MODES, _MOST_FOR_MODES = 6, 8, 96
_TABLE_SHARE = 0.45  # descended codes need the longer part of the time
_JOINT_SHARE = 0.95
_CLOSURE_MODES = 128
_HARMONICS_SUFFICE, _SUFFICE_BETWEEN_KNOTS = 1e-5, 1e-2
_RACE = 0.15
_LINEAR_SUFFICES = 3.0  # times the decoder's own error: better dynamics would hardly show
_GOOD_ENOUGH = 1e-6  # share of the variance below which single-precision rollouts have nothing to add
_CLEARLY_BETTER = 0.95  # the closed form is refitted on all trajectories, the trained residual is not
_HARMS = 0.8  # a symmetry is dropped when leaving it out lowers the validation error below this share
_HARMS_CONTEXTS = 0.4  # of small candidates with contexts, whose errors vary more with the copies that are drawn


class Training:
    """One training run on an open file; `run` returns the surrogate."""

    def __init__(self, config: Config, file: TrajectoryFile, directory: Path, recorder: Recorder, save_config) -> None:  # noqa: ANN001
        self.config, self.file, self.recorder, self.save_config = config, file, recorder, save_config
        self.device = choose_device(config.device)
        self.drift: Drift | None = None  # of scattered rows between their times and the knots
        self.checkpoints, self.started = directory / "checkpoints", time.monotonic()
        data = config.data
        self.source = TrajectorySource(file, data.frames, data.points, data.same_points, config.seed)
        self.environments = environments_of(file, config.dynamics.context)
        groups = None if self.environments is None else self.environments.index
        self.training, self.validation = choose_split(len(self.source), data.validation, config.seed, groups)
        self.source.fit_normalisation(self.training)
        self.scale = TimeScale.of(self.source.times)
        self.description = file.description
        self.box = file.box
        self.symmetries = self._symmetries(data.symmetries)
        self.unseen: UnseenVariance | None = None
        encoding = config.encoding
        descended = encoding.method in ("adam", "gradient_steps")
        rate = encoding.rate or (ADAM_RATE if encoding.method == "adam" else GRADIENT_RATE)
        self.encoder = Encoder(encoding.method, encoding.iterations or 0, rate) if descended else Encoder()

    # ---- what the data say ----

    def _symmetries(self, wanted: object) -> Symmetries:
        declared = self.description.symmetries
        if wanted in ("declared", None):
            return declared
        if wanted == "none":
            return declared.only([])
        names = [wanted] if isinstance(wanted, str) else [str(name) for name in wanted]  # type: ignore[attr-defined]
        if len(declared):
            try:
                return declared.only(names)
            except UserError:
                pass
        return Symmetries.by_name(names, self.description, self.box)

    def augmentation(self, symmetries: Symmetries) -> Augmentation:
        """Random copies under these symmetries."""
        extent = self.box[1] - self.box[0]
        return Augmentation(symmetries, extent, self.description.period, self.source.normalisation.scale)

    def _harmonics(self, features: int) -> int:
        wanted, d = self.config.decoder.harmonics, len(self.description.coordinates)
        if wanted is not None:
            return wanted
        points = round(self.source.points * self.config.data.points)
        if not self.source.shared_points or len(self.symmetries):
            points *= len(self.training)
        largest = min(features, 0.7 * points)
        return max(0, int((largest ** (1 / d) - 1) // 2))

    def embedding(self, features: int = _HARMONIC_FEATURES[0]) -> Embedding:
        """The coordinate embedding that the data declare, with at most so many `features` of the domain's harmonics."""
        return make_embedding(
            self.box[0].tolist(),
            self.box[1].tolist(),
            self.description.period if self.config.decoder.periodic else None,
            self.description.geometry,
            self.config.decoder.wavenumbers,
            self._harmonics(features),
        )

    # ---- decoder ----

    def _steps(self, name: str, stage: Stage, share: float, largest: int) -> int:
        """Steps of a stage: those of the configuration, or what its share of the time allows, then recorded."""
        known = getattr(self.config.training.steps, name)
        if known is None:
            known = timed_steps(stage, self._seconds(share), largest=largest)
            setattr(self.config.training.steps, name, known)
            self.save_config()
        return known

    def fit_decoder(self) -> tuple[ModulatedSiren, OutputModes]:
        """Trunk and output modes of an affine decoder."""
        config = self.config.decoder
        channels = len(self.description.channels)
        training = DecoderTraining(
            self.source, self.training, self.validation, self.augmentation(self.symmetries)
        )
        embedding = self.embedding()
        plain: tuple[ModulatedSiren, OutputModes, float] | None = None
        for features in _HARMONIC_FEATURES if not config.depth else ():
            wider = self.embedding(features)
            if not wider.harmonics or (features > _HARMONIC_FEATURES[0] and wider.harmonics == embedding.harmonics):
                break
            embedding = wider
            decoder = ModulatedSiren(embedding, channels, 1, 0, 0).to(self.device)
            modes = self.fit_modes(training, decoder)
            left = float(modes.noise.mean())
            # Before the motion between knots is known, its share of the residual is no matter for a trunk.
            enough = left < (_HARMONICS_SUFFICE if self.source.knots is None else _SUFFICE_BETWEEN_KNOTS)
            self.recorder.say(
                f"decoder: {embedding.harmonics} harmonics of the domain leave {left:.1e} of the variance"
                + (", so no trunk is trained" if enough else "")
            )
            missed = training.held_out_error(decoder, modes)
            if plain is None or missed < plain[2]:
                plain = decoder, modes, missed
            if enough:
                self.config.training.steps.decoder = 0
                self.save_config()
                self.unseen = training.unseen_variance(decoder)
                return self._with_modes(decoder, modes)
        periodic = self.description.period is not None and any(p > 0 for p in self.description.period)
        depth = config.depth or (2 if periodic else 6)
        w0 = config.w0 or (2.0 if periodic else 3.0)
        torch.manual_seed(self.config.seed)
        size = int(min(32 * channels, 96, max(4, self.source.times.numel())))
        decoder = ModulatedSiren(embedding, channels, size, config.width, depth, w0).to(self.device)
        rate = self.config.training.decoder_rate if periodic else self.config.training.decoder_rate / 3
        settings = OptimiserSettings(self.config.training.optimiser, rate, self.config.training.weight_decay)
        stage = Stage(
            "decoder", decoder, training.loss, training.score, optimiser=settings, seed=self.config.seed,
            tolerance=2.0, patience=0.5,
        )
        steps = self._steps("decoder", stage, _DECODER_SHARE / 2, 3000)
        error = run_stage(stage, steps, self.recorder, self.checkpoints)
        self.recorder.say(f"decoder: {steps} steps, error at held-out points {error:.2e} of the variance")
        self.unseen = training.unseen_variance(decoder.double())
        decoder = decoder.float()
        training.all_points = True
        final = replace(stage, name="decoder_all_points", validate=None)
        run_stage(final, steps, self.recorder, self.checkpoints)
        modes = self.fit_modes(training, decoder)
        if plain is not None:
            error = training.held_out_error(decoder, modes)
            better = error < _CLEARLY_BETTER * plain[2]
            self.recorder.say(
                f"decoder: held-out points are missed by {plain[2]:.1e} of the variance without a trunk and "
                f"{error:.1e} with it, so it is {'kept' if better else 'left out'}"
            )
            if not better:
                self.unseen = training.unseen_variance(plain[0].double())
                return self._with_modes(*plain[:2])
        return self._with_modes(decoder, modes)

    @staticmethod
    def _with_modes(decoder: ModulatedSiren, modes: OutputModes) -> tuple[ModulatedSiren, OutputModes]:
        decoder.set_output(modes.mean, modes.modes)
        return decoder.float(), modes

    def fit_modes(self, training: DecoderTraining, decoder: ModulatedSiren) -> OutputModes:
        """Output modes of the decoder's features, from as many trajectories as the time allows."""
        largest, steps = self.config.decoder.largest_code_size, self.config.training.steps
        if steps.mode_trajectories is None:
            began = time.perf_counter()
            training.fit_modes(decoder.double(), largest, trajectories=4, iterations=1)
            each = (time.perf_counter() - began) / 4
            affordable = self._seconds(_MODES_SHARE) / (_MODE_ITERATIONS * max(each, 1e-6))
            steps.mode_trajectories = int(np.clip(affordable, _FEWEST_FOR_MODES, _MOST_FOR_MODES))
            self.save_config()
        self.recorder.begin("modes", _MODE_ITERATIONS)
        done = 0

        def progress() -> None:
            nonlocal done
            done += 1
            self.recorder.advance(done)
            if self.recorder.stopping:  # nothing to save: the modes follow from the decoder
                raise Interrupted

        modes = training.fit_modes(decoder.double(), largest, steps.mode_trajectories, _MODE_ITERATIONS, progress)
        self.recorder.end()
        return modes

    # ---- dynamics ----

    def code_book(self, decoder: ModulatedSiren, prior: GaussianPrior) -> CodeBook:
        """Codes of training and validation trajectories, and the means to copy them."""

        def encode(trajectories: np.ndarray, augmentation: Augmentation | None) -> CodeData:
            return self._encode(decoder, prior, trajectories, augmentation)

        motion = code_motion(decoder, self.source, self.augmentation(self.symmetries))
        return CodeBook.make(encode, self.training, self.validation, motion)

    def copies(self, book: CodeBook, name: str, wanted: int, share: float, passes: int = 1) -> int:
        """Copies of every trajectory: those of the configuration, or what a share of the time allows, then recorded."""
        known = getattr(self.config.training.steps, name)
        if known is None:
            known = book.affordable(wanted, self._seconds(share) / passes)
            setattr(self.config.training.steps, name, known)
            self.save_config()
        return known

    def _seconds(self, share: float) -> float:
        """A share of the time budget, less where little of it is left."""
        budget = 60 * self.config.training.minutes
        return min(share * budget, max(0.8 * (budget - (time.monotonic() - self.started)), 0.0))

    def _encode(
        self, decoder: Decoder, prior: GaussianPrior, trajectories: np.ndarray, augmentation: Augmentation | None = None
    ) -> CodeData:
        self.recorder.begin("codes", len(trajectories))

        def progress(done: int) -> None:
            self.recorder.advance(done)
            if self.recorder.stopping:  # nothing to save: codes follow from the decoder
                raise Interrupted

        codes = dynamics_stage.encode_trajectories(
            self.source, decoder, prior, trajectories, self.scale, augmentation, self.config.seed, progress, self.drift
        )
        self.recorder.end()
        return codes

    def forcing_period(self) -> float:
        """Period of the declared forcing, internal time; 0 for none."""
        wanted = self.config.dynamics.forcing
        period = self.description.time_period
        if wanted and period is None:
            raise UserError("dynamics.forcing=true, but the data declare no time_period; add the attribute to the file")
        return 0.0 if period is None or wanted is False else period / self.scale.unit

    def search(self, training: CodeData, held: CodeData | None, floor: float) -> ClosedFormSearch:
        """The search for closed-form dynamics on these codes."""
        return ClosedFormSearch(
            training,
            held,
            self.forcing_period(),
            self.config.dynamics.forcing_harmonics,
            originals=len(self.training),
            floor=floor,
        )

    def sizes(self, modes: OutputModes, training: CodeData) -> list[int]:
        """Code sizes to try."""
        return dynamics_stage.candidate_sizes(modes.variances, _transitions(training), self.config.decoder.code_size)

    def check_symmetries(self, book: CodeBook, modes: OutputModes) -> Symmetries:
        """The symmetries that validation does not speak against, each left out in turn."""
        floor = float(modes.noise.mean())
        wanted = dynamics_stage.copies_for(len(self.training), len(self.symmetries), self.config.data.copies)
        copies = self.copies(book, "check_copies", min(wanted, 6), _CHECK_SHARE, 1 + len(self.symmetries))

        def score(symmetries: Symmetries) -> float:
            training = book.with_copies(self.training, self.augmentation(symmetries), copies, self.config.seed)
            if self.environments is not None and book.held is not None:
                value = ContextStage(self, self.environments).quick_score(training, book.held, floor)
                if value is not None:
                    return value + floor
            sizes = self.sizes(modes, training)
            few = sorted({sizes[len(sizes) // 2], sizes[3 * len(sizes) // 4], sizes[-1]})
            return self.search(training, book.held, floor).search(few, ridges=(1e-10, 1e-6, 1e-3, 1.0)).score + floor

        kept = self.symmetries
        with_all = score(kept)
        for name in self.symmetries.names:
            without = score(kept.without(name))
            self.recorder.log("symmetries", 0, name=name, kept=with_all, left_out=without)
            if without < (_HARMS if self.environments is None else _HARMS_CONTEXTS) * with_all:
                self.recorder.say(
                    f"symmetry {name} is dropped: without it the validation error falls from {with_all:.2e} to "
                    f"{without:.2e} of the variance"
                )
                kept, with_all = kept.without(name), without
        return kept

    def resolve_times(
        self, decoder: ModulatedSiren, modes: OutputModes, book: CodeBook
    ) -> tuple[ModulatedSiren, OutputModes, CodeBook]:
        """Codes at the knots of scattered rows, with the motion between each row's time and its knot."""
        augmentation = self.augmentation(self.symmetries)
        elements = augmentation.sample(np.random.default_rng([31]), 32) if augmentation else None
        wanted = dynamics_stage.copies_for(len(self.training), len(self.symmetries), self.config.data.copies)
        copies = book.affordable(min(wanted, 16), self._seconds(_CHECK_SHARE))
        spent = 0.0
        best, steps = float("inf"), self.config.training.steps
        kept = decoder, modes, book, self.drift
        rounds = _ROUNDS if steps.scattered is None else steps.scattered
        for number in range(rounds + 1):
            began = time.monotonic()
            codes = book.with_copies(self.training, augmentation, copies, self.config.seed)
            search = self.search(codes, book.held, float(modes.noise.mean()))
            fit = search.search(self.sizes(modes, codes), ridges=(1e-8, 1e-6, 1e-4, 1e-2, 1.0))
            error = fit.score + float(modes.noise.mean())
            self.recorder.log("scattered", number, validation=fit.score, noise=float(modes.noise.mean()))
            if error < best:
                best, kept = error, (decoder, modes, book, self.drift)
            if steps.scattered is None and number and 2 * spent > self._seconds(1.0):
                rounds = number  # another round would leave no time for the rest
            if number == rounds:
                break
            self.drift = drift_of(fit, self.scale.unit)

            def batches() -> list[TrajectoryBatch]:
                return [self.source.batch(block) for block in blocks_of(self.training)]

            modes, self.drift = refit_modes(decoder, modes, batches, self.drift, book.motion, elements)
            decoder = copy.deepcopy(decoder)
            decoder.set_output(modes.mean, modes.modes)
            book = self.code_book(decoder, modes.prior())
            spent = time.monotonic() - began
        steps.scattered = rounds
        self.save_config()
        decoder, modes, book, self.drift = kept
        return decoder, modes, book

    def run(self) -> Surrogate:
        """All stages."""
        if uses_table(self.config):
            return self._run_jointly() if self.config.training.joint else self._run_table()
        config, say = self.config, self.recorder.say
        decoder, modes = self.fit_decoder()
        book = self.code_book(decoder, modes.prior())
        if len(self.symmetries):
            kept = self.check_symmetries(book, modes)
            if len(kept) < len(self.symmetries):
                self.symmetries = kept
                training = DecoderTraining(self.source, self.training, self.validation, self.augmentation(kept))
                modes = self.fit_modes(training, decoder)
                decoder.set_output(modes.mean, modes.modes)
                decoder = decoder.float()
                book = self.code_book(decoder, modes.prior())
            say(f"symmetries: {', '.join(self.symmetries.names) or 'none'}")
        if self.source.knots is not None:
            decoder, modes, book = self.resolve_times(decoder, modes, book)
        wanted = dynamics_stage.copies_for(len(self.training), len(self.symmetries), config.data.copies)
        copies = self.copies(book, "copies", wanted, _COPIES_SHARE)
        codes = book.with_copies(self.training, self.augmentation(self.symmetries), copies, config.seed)
        held = book.held
        search = self.search(codes, held, float(modes.noise.mean()))
        fit = self._closed_form(search, self.sizes(modes, codes), codes, held)
        if self.environments is not None:
            stage = ContextStage(self, self.environments)
            surrogate = stage.run(decoder, modes, codes, held, fit.score)
            if surrogate is not None:
                return surrogate
        quadratic = self._quadratic(fit, search.floor, self.sizes(modes, codes), codes, held)
        size = fit.candidate.size if quadratic is None else quadratic.size
        if config.decoder.closure and size < len(modes.variances):
            closed = self._closure(decoder, modes, size, codes)
            if closed is not None:
                return self.finish(*closed, search, fit, codes, held, quadratic)
        chosen = modes.truncated(size)
        decoder.set_output(chosen.mean, chosen.modes)
        return self.finish(decoder, chosen.prior(), search, fit, codes, held, quadratic, modes)

    def _run_table(self) -> Surrogate:
        """The published recipes: codes descended with the decoder, no symmetries."""
        if len(self.symmetries):
            self.recorder.say("symmetries are not used: these codes belong to single training frames")
            self.symmetries = self.symmetries.only([])

        def choose_steps(stage: Stage) -> int:
            return self._steps("decoder", stage, _TABLE_SHARE, 100_000)

        decoder, prior, table = fit_table_decoder(
            self.config, self.source, self.training, self.validation, self.embedding(), choose_steps, self.recorder,
            self.checkpoints,
        )
        batch = self.source.batch(self.training)
        codes = CodeData(table.double(), self.scale.internal(batch.t), batch.observed)
        held = self._encode(decoder, prior, self.validation) if len(self.validation) else None
        search = self.search(codes, held, float(prior.noise.mean()))
        fit = self._closed_form(search, [decoder.code_size], codes, held)
        return self.finish(decoder, prior, search, fit, codes, held)

    def _run_jointly(self) -> Surrogate:
        """DINo's recipe: codes, decoder and field in the same iterations."""
        embedding = self.embedding()
        result = fit_jointly(
            self.config, self.source, self.training, self.validation, embedding, self.augmentation(self.symmetries),
            wrapping(self.box, self.description.period, embedding), self.scale,
            lambda stage: self._steps("decoder", stage, _JOINT_SHARE, 1_000_000), self.recorder, self.checkpoints,
        )
        self.encoder = replace(self.encoder, iterations=result.iterations)
        field = result.field.double()
        return self.assemble(
            result.decoder, result.prior, field, field, Integrator(), result.training, result.training, 0,
            "trained network",
        )

    def _closed_form(
        self, search: ClosedFormSearch, sizes: list[int], codes: CodeData, held: CodeData | None
    ) -> ClosedForm:
        """The closed-form dynamics that validation prefers, told to the user."""
        memory = self.config.dynamics.memory
        memories = (0.0, 0.5, 1.0) if memory is None and held is None else (0.0,)
        if memory:
            sizes = sizes if self.config.decoder.code_size else [max(memory, min(sizes, key=lambda z: abs(z - memory)))]
            memories = (memory / sizes[0],)
        fit = search.search(sizes, memories, RIDGES)
        chosen, transitions = fit.candidate, _transitions(codes)
        self.recorder.say(
            f"closed-form dynamics: {chosen.size} codes, {chosen.memory} memory, ridge {chosen.ridge:g}, validation "
            f"error {fit.score:.2e} of the variance (decoder alone {search.floor:.1e})"
        )
        if transitions < 1.2 * (chosen.size + chosen.memory):
            self.recorder.say(
                f"the data do not determine the dynamics: {transitions} transitions for {chosen.size + chosen.memory} "
                "state dimensions; declare symmetries or give more trajectories"
            )
        self.recorder.log("closed_form", 0, validation=fit.score, code_size=chosen.size, memory=chosen.memory)
        return fit

    def _quadratic(
        self, fit: ClosedForm, floor: float, sizes: list[int], codes: CodeData, held: CodeData | None
    ) -> QuadraticForm | None:
        """Quadratic closed-form dynamics, where the linear ones leave something and validation prefers them."""
        settings = self.config.dynamics
        if (
            settings.products == 0 or not settings.linear or fit.candidate.memory or self.forcing_period()
            or fit.score < max(_LINEAR_SUFFICES * floor, _GOOD_ENOUGH)
        ):
            return None
        taught, judged, first = self._judging(codes, held)
        stage = QuadraticStage(taught, judged, first, self.recorder)
        count = stage.count(settings.products, 60 * self.config.training.minutes * _QUADRATIC_SHARE)
        settings.products = count
        self.save_config()
        found = stage.search(sizes, count) if count else None
        if found is None or found.score > _CLEARLY_BETTER * fit.score:
            return None
        self.recorder.say(
            f"quadratic closed-form dynamics: {found.size} codes, {len(found.left)} products, ridges "
            f"{', '.join(f'{r:g}' for r in found.ridges)}, validation error {found.score:.2e} of the variance"
        )
        self.recorder.log("quadratic", 1, validation=found.score, code_size=found.size)
        return found

    def _judging(self, training: CodeData, held: CodeData | None) -> tuple[CodeData, CodeData, int]:
        """Codes that teach, codes that judge, and the frame from which they judge."""
        if held is not None:
            return training, held, 0
        cut = max(2, int(0.8 * training.codes.shape[1]))  # one trajectory: its last frames judge what the first taught
        return training.frames(cut), self._originals(training), cut - 1

    def _originals(self, codes: CodeData) -> CodeData:
        """Codes of the training trajectories without those of their copies."""
        return CodeData(*(v[: len(self.training)] for v in (codes.codes, codes.t, codes.observed)))

    def _closure(
        self, decoder: ModulatedSiren, modes: OutputModes, size: int, codes: CodeData
    ) -> tuple[Decoder, GaussianPrior] | None:
        """A decoder whose further modes follow the leading codes, where held-out frames say that it pays."""
        wide = modes.truncated(min(len(modes.variances), _CLOSURE_MODES))
        decoder.set_output(wide.mean, wide.modes)
        closed = ClosureDecoder(decoder, size).to(self.device)
        observed = torch.where(codes.observed[..., None], codes.codes, torch.nan)
        errors = closed.fit(observed[..., : len(wide.variances)].float(), seed=self.config.seed)
        self.recorder.say(
            f"closure: held-out error of the further modes {errors.without_closure:.2e} without it, "
            f"{errors.with_closure:.2e} with it" + ("" if errors.worthwhile else "; it is left out")
        )
        if not errors.worthwhile:
            return None
        prior = modes.truncated(size).prior()
        share = errors.with_closure / max(errors.without_closure, 1e-300)
        prior.noise = wide.noise.double() + share * (prior.noise - wide.noise.double()).clamp(min=0)
        return closed.eval(), prior

    def finish(
        self,
        decoder: Decoder,
        code_prior: GaussianPrior,
        search: ClosedFormSearch,
        fit: ClosedForm,
        training: CodeData,
        held: CodeData | None,
        quadratic: QuadraticForm | None = None,
        modes: OutputModes | None = None,
    ) -> Surrogate:
        """Residual training where it helps, then priors; the surrogate. With the `modes`, of which the decoder has the
        leading ones, they are fitted anew to all trajectories in the end."""
        config, size = self.config, decoder.code_size
        dynamics = config.dynamics
        settings = FieldSettings(
            self.forcing_period(), dynamics.forcing_harmonics, dynamics.width, dynamics.depth, dynamics.quadratic_rank
        )
        taught, judged, first = self._judging(training, held)
        every = training if held is None else CodeData.join([training, held])
        early, full = fit, fit
        if quadratic is not None:
            linear = quadratic.field(dynamics.width)
        else:
            if held is None:
                early = search.fit(fit.candidate, data=taught)
            full = search.fit(fit.candidate, fit.scores, data=every)
            linear = dynamics_stage.linear_field(early, settings)
            first = max(first, 1 if fit.candidate.memory else 0)
        directions = None if quadratic is not None else early.directions
        states = with_memory(taught, size, directions)
        judged_states = with_memory(judged, size, directions)
        floor = float(code_prior.noise.mean())
        begin = 1 if fit.candidate.memory else 0  # memory has no value at a trajectory's first frame
        score = fit.score if quadratic is None else quadratic.score
        step = dynamics_stage.integration_step(linear, states.since(begin), score + floor, dynamics.step)
        integrator = Integrator(dynamics.method, step, dynamics.rtol, dynamics.atol, dynamics.adjoint)

        def error(field: VectorField) -> float:
            return dynamics_stage.rollout_error(field, integrator, judged_states, judged, first, size)

        start_error = error(linear)
        field, note = linear, "closed form"
        trained = self.train_residual(linear, states, integrator, error, start_error, floor, decoder)
        if trained is not None and (not dynamics.linear or error(trained) < _CLEARLY_BETTER * start_error):
            field = trained.cpu().double()
            note = "closed form and trained residual" if dynamics.linear else "trained network"
        self.recorder.say(
            f"dynamics: {note}, validation error {error(field):.2e} of the variance"
        )
        final, final_states = field, states
        if field is linear:
            if quadratic is not None:  # refitted on all trajectories
                final = QuadraticStage.refit(quadratic, every).field(dynamics.width)
            else:
                final = dynamics_stage.linear_field(full, settings)
            final_states = with_memory(training, size, None if quadratic is not None else full.directions)
        surrogate = self.assemble(
            decoder, code_prior, field, final, integrator, final_states, judged_states.since(first), first, note
        )
        if field is not linear or modes is None or held is None:
            return surrogate
        if fit.candidate.memory or self.source.knots is not None:
            return surrogate
        whole = np.arange(len(self.source))
        augmentation = self.augmentation(self.symmetries)

        def codes_of_all(refitted: ModulatedSiren, new: OutputModes) -> CodeData:
            motion = code_motion(refitted, self.source, augmentation)
            book = CodeBook.make(lambda i, a: self._encode(refitted, new.prior(), i, a), whole, whole[:0], motion)
            return book.with_copies(whole, augmentation, config.training.steps.copies or 1, config.seed)

        def field_of(codes: CodeData) -> VectorField:
            count = codes.codes.shape[-1]
            if quadratic is not None:
                return QuadraticStage.refit(replace(quadratic, bias=codes.codes.new_zeros(count)), codes).field()
            candidate = replace(fit.candidate, size=count)
            return dynamics_stage.linear_field(search.fit(candidate, data=codes), settings)

        def error_on(refitted: VectorField, codes: CodeData) -> float:
            every = CodeData(*(v[: len(whole)] for v in (codes.codes, codes.t, codes.observed)))
            count = refitted.shape.state_size
            return dynamics_stage.rollout_error(
                refitted, integrator, with_memory(every, count, None), every, 0, count
            )

        refit = Refit(
            lambda d: self.fit_modes(DecoderTraining(self.source, whole, whole[:0], augmentation), d),
            codes_of_all, field_of, error_on,
        )
        surrogate, before, after = refit(surrogate, modes, CodeData.join([self._originals(training), held]), final)
        self.recorder.log("refit", 0, before=before, after=after, code_size=surrogate.code_size)
        return surrogate

    def assemble(
        self,
        decoder: Decoder,
        code_prior: GaussianPrior,
        field: VectorField,
        final: VectorField,
        integrator: Integrator,
        states: CodeData,
        judged: CodeData,
        first: int,
        note: str,
    ) -> Surrogate:
        """The surrogate of the `final` field, with priors of its states and the errors that `field`, which has not
        seen the `judged` states, makes on them and on validation trajectories from frame `first` on."""
        config, size = self.config, decoder.code_size
        process = dynamics_stage.calibrated_process_noise(field, integrator, judged)
        mean, covariance = dynamics_stage.fit_state_prior(states, code_prior, size)
        times = self.source.times
        elapsed = (times - times[:, :1]).nan_to_num(0.0)
        prior = StatePrior(
            mean, covariance, code_prior.noise.double(), process, torch.ones(len(self.description.channels)).double(),
            self.unseen,
        )
        surrogate = Surrogate(
            self.description, self.source.normalisation, decoder.eval(), field.double().eval(), integrator,
            prior, self.scale, self.box, float(elapsed.max()),
            {
                "seed": config.seed,
                "points": config.data.points,
                "same_points": config.data.same_points,
                "frames": times.shape[1],
                "trajectories": len(self.source),
                "symmetries": list(self.symmetries.names),
                "dynamics": note,
                "memory": states.codes.shape[-1] - size,
                "test": config.data.test,
            },
            self.encoder,
        )
        unseen = self.validation[:16] if len(self.validation) else self.training
        unseen_batch = self.source.batch(unseen, normalised=False)
        prior.spread = calibrate(surrogate, unseen_batch, first + 1)
        self.recorder.log("calibration", 0, **{f"spread_{i}": float(v) for i, v in enumerate(prior.spread)})
        surrogate.field = final.double().eval()
        return surrogate

    def train_residual(
        self, linear: VectorField, states: CodeData, integrator: Integrator, error, start_error: float, floor: float,  # noqa: ANN001
        decoder: Decoder,
    ) -> VectorField | None:
        """The field with trained parts, or None where the closed form leaves nothing to train."""
        config = self.config.training
        parts = self.config.dynamics
        if not (parts.depth or parts.quadratic_rank):
            return None
        if (parts.linear and start_error < max(floor, _GOOD_ENOUGH)) or self.config.training.steps.rollout == 0:
            self.config.training.steps.rollout = 0
            self.save_config()
            self.recorder.say("the closed form leaves nothing to train")
            return None
        rollouts = RolloutTraining(states, integrator, config.batch)
        optimiser = OptimiserSettings(config.optimiser, config.rollout_rate, config.weight_decay)

        def stage(name: str, start: bool) -> Stage:
            field = with_residual(
                linear, parts.depth, parts.quadratic_rank, start and parts.linear, self.config.seed, parts.linear
            )
            field = field.to(self.device)
            return Stage(name, field, rollouts.loss, error, optimiser=optimiser, seed=self.config.seed, patience=0.4)

        starts = {"auto": (True, False), "least_squares": (True,), "zero": (False,)}
        if parts.start not in starts:
            raise UserError(f"dynamics.start={parts.start!r}; choose from {', '.join(starts)}")
        main = stage("rollout", parts.start != "zero" and parts.linear)
        steps = self._steps("rollout", main, _ROLLOUT_SHARE, 20_000)
        wanted = starts[parts.start] if parts.linear else (False,)
        if linear.shape.products and True in wanted:  # it has won already
            wanted = (True,)
        races = [stage("race_least_squares" if s else "race_zero", s) for s in wanted]
        if len(races) > 1:
            errors = [run_stage(race, max(20, int(_RACE * steps)), self.recorder, self.checkpoints) for race in races]
            best = int(np.argmin(errors))
            self.recorder.say(
                f"start of the field: {'least squares' if best == 0 else 'zero'} "
                f"(validation {errors[0]:.2e} against {errors[1]:.2e})"
            )
            main = replace(main, module=races[best].module)
        error_after = run_stage(main, max(20, steps - int(_RACE * steps) * len(races)), self.recorder, self.checkpoints)
        field = main.module
        assert isinstance(field, VectorField)
        values = self.source.batch(self.training[:1]).u
        seen = float(torch.isfinite(values).flatten(2).sum(-1).float().mean())
        stand = seen >= 2 * decoder.code_size or self.source.knots is not None
        if decoder.affine and not stand:  # codes alone do not stand for the data
            original = CodeData(*(v[: len(self.training)] for v in (states.codes, states.t, states.observed)))
            data = DataSpaceTraining(self.source, self.training, original, decoder, integrator)
            last = Stage(
                "data", field, data.loss, error, optimiser=replace(optimiser, rate=optimiser.rate / 5),
                seed=self.config.seed,
            )
            steps = self._steps("data", last, _DATA_SHARE, 5000)
            error_after = run_stage(last, steps, self.recorder, self.checkpoints)
        self.recorder.log("rollout_final", steps, validation=error_after)
        return field


def _transitions(codes: CodeData) -> int:
    """Number of pairs of successive observed frames."""
    return int((codes.observed[:, 1:] & codes.observed[:, :-1]).sum())


def train(config: Config, file: TrajectoryFile, directory: Path, recorder: Recorder, save_config) -> Surrogate:  # noqa: ANN001
    """Train on an open file. Checkpoints go to `directory`/checkpoints; `save_config` is called when steps are set.

    Raises UserError for data that cannot be trained on, Interrupted after saving when the recorder is told to stop.
    """
    return Training(config, file, directory, recorder, save_config).run()


