"""`train`: from a data file to a Surrogate, stage by stage. Read `run` from top to bottom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from inrflow.assimilation import StatePrior
from inrflow.config import Config
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
from inrflow.encoding.encode import Encoder
from inrflow.encoding.gaussian import GaussianPrior
from inrflow.encoding.modes import OutputModes
from inrflow.encoding.unseen import UnseenVariance
from inrflow.errors import UserError
from inrflow.evaluation.spread import calibrate
from inrflow.surrogate import Surrogate
from inrflow.training import dynamics_stage
from inrflow.training.decoder_stage import Augmentation, DecoderTraining
from inrflow.training.dynamics_stage import FieldSettings
from inrflow.training.quadratic_stage import QuadraticStage
from inrflow.training.recorder import Interrupted, Recorder
from inrflow.training.rollout_stage import DataSpaceTraining, RolloutTraining, with_residual
from inrflow.training.splits import choose_split
from inrflow.training.steps import OptimiserSettings, Stage, run_stage, timed_steps
from inrflow.training.table_run import ADAM_RATE, GRADIENT_RATE, fit_table_decoder, uses_table

_HARMONIC_FEATURES = (200, 300)
_DECODER_SHARE, _ROLLOUT_SHARE, _DATA_SHARE, _QUADRATIC_SHARE = 0.3, 0.45, 0.1, 0.2
_TABLE_SHARE = 0.45  # descended codes need the longer part of the time
_CLOSURE_MODES = 128
_HARMONICS_SUFFICE = 1e-5
_RACE = 0.15
_LINEAR_SUFFICES = 3.0  # times the decoder's own error: better dynamics would hardly show
_GOOD_ENOUGH = 1e-6  # share of the variance below which single-precision rollouts have nothing to add
_CLEARLY_BETTER = 0.95  # the closed form is refitted on all trajectories, the trained residual is not
_HARMS = 0.8  # a symmetry is dropped when leaving it out lowers the validation error below this share


class Training:
    """One training run on an open file; `run` returns the surrogate."""

    def __init__(self, config: Config, file: TrajectoryFile, directory: Path, recorder: Recorder, save_config) -> None:  # noqa: ANN001
        self.config, self.file, self.recorder, self.save_config = config, file, recorder, save_config
        self.device = choose_device(config.device)
        self.checkpoints = directory / "checkpoints"
        data = config.data
        self.source = TrajectorySource(file, data.frames, data.points, data.same_points, config.seed)
        self.training, self.validation = choose_split(len(self.source), data.validation, config.seed)
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
        points = round(self.file.points * self.config.data.points)
        if not self.source.shared_points or len(self.symmetries):
            points *= len(self.training)
        largest = min(features, 0.7 * points)
        return max(0, int((largest ** (1 / d) - 1) // 2))

    def embedding(self, features: int = _HARMONIC_FEATURES[0]) -> Embedding:
        """The coordinate embedding that the data declare, with at most so many `features` of the domain's harmonics."""
        return make_embedding(
            self.box[0].tolist(),
            self.box[1].tolist(),
            self.description.period,
            self.description.geometry,
            self.config.decoder.wavenumbers,
            self._harmonics(features),
        )

    # ---- decoder ----

    def _steps(self, name: str, stage: Stage, share: float, largest: int) -> int:
        """Steps of a stage: those of the configuration, or what its share of the time allows, then recorded."""
        known = getattr(self.config.training.steps, name)
        if known is None:
            known = timed_steps(stage, 60 * self.config.training.minutes * share, largest=largest)
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
        for features in _HARMONIC_FEATURES if not config.depth else ():
            wider = self.embedding(features)
            if not wider.harmonics or (features > _HARMONIC_FEATURES[0] and wider.harmonics == embedding.harmonics):
                break
            embedding = wider
            decoder = ModulatedSiren(embedding, channels, 1, 0, 0).to(self.device)
            modes = training.fit_modes(decoder.double(), config.largest_code_size)
            left = float(modes.noise.mean())
            enough = left < _HARMONICS_SUFFICE
            self.recorder.say(
                f"decoder: {embedding.harmonics} harmonics of the domain leave {left:.1e} of the variance"
                + (", so no trunk is trained" if enough else "")
            )
            if enough:
                self.config.training.steps.decoder = 0
                self.save_config()
                decoder.set_output(modes.mean, modes.modes)
                self.unseen = training.unseen_variance(decoder)
                return decoder.float(), modes
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
        modes = training.fit_modes(decoder.double(), config.largest_code_size)
        decoder.set_output(modes.mean, modes.modes)
        return decoder.float(), modes

    # ---- dynamics ----

    def codes(
        self, decoder: Decoder, prior: GaussianPrior, symmetries: Symmetries, copies: int
    ) -> tuple[CodeData, CodeData | None]:
        """Codes of training trajectories, originals first and then their copies, and of validation trajectories."""
        parts = [self._encode(decoder, prior, self.training)]
        if copies > 1:
            repeated = np.tile(self.training, copies - 1)
            parts.append(self._encode(decoder, prior, repeated, self.augmentation(symmetries)))
        held = self._encode(decoder, prior, self.validation) if len(self.validation) else None
        return CodeData.join(parts), held

    def _encode(
        self, decoder: Decoder, prior: GaussianPrior, trajectories: np.ndarray, augmentation: Augmentation | None = None
    ) -> CodeData:
        self.recorder.begin("codes", len(trajectories))

        def progress(done: int) -> None:
            self.recorder.advance(done)
            if self.recorder.stopping:  # nothing to save: codes follow from the decoder
                raise Interrupted

        codes = dynamics_stage.encode_trajectories(
            self.source, decoder, prior, trajectories, self.scale, augmentation, self.config.seed, progress
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

    def check_symmetries(self, decoder: ModulatedSiren, modes: OutputModes) -> Symmetries:
        """The symmetries that validation does not speak against, each left out in turn."""
        floor = float(modes.noise.mean())

        def score(symmetries: Symmetries) -> float:
            copies = dynamics_stage.copies_for(len(self.training), len(symmetries), self.config.data.copies)
            training, held = self.codes(decoder, modes.prior(), symmetries, min(copies, 6) if len(symmetries) else 1)
            sizes = self.sizes(modes, training)
            few = sorted({sizes[len(sizes) // 2], sizes[3 * len(sizes) // 4], sizes[-1]})
            return self.search(training, held, floor).search(few, ridges=(1e-10, 1e-6, 1e-3)).score + floor

        kept = self.symmetries
        with_all = score(kept)
        for name in self.symmetries.names:
            without = score(kept.without(name))
            self.recorder.log("symmetries", 0, name=name, kept=with_all, left_out=without)
            if without < _HARMS * with_all:
                self.recorder.say(
                    f"symmetry {name} is dropped: without it the validation error falls from {with_all:.2e} to "
                    f"{without:.2e} of the variance"
                )
                kept, with_all = kept.without(name), without
        return kept

    def run(self) -> Surrogate:
        """All stages."""
        if uses_table(self.config):
            return self._run_table()
        config, say = self.config, self.recorder.say
        decoder, modes = self.fit_decoder()
        if len(self.symmetries):
            kept = self.check_symmetries(decoder, modes)
            if len(kept) < len(self.symmetries):
                self.symmetries = kept
                training = DecoderTraining(self.source, self.training, self.validation, self.augmentation(kept))
                modes = training.fit_modes(decoder.double(), config.decoder.largest_code_size)
                decoder.set_output(modes.mean, modes.modes)
                decoder = decoder.float()
            say(f"symmetries: {', '.join(self.symmetries.names) or 'none'}")
        copies = dynamics_stage.copies_for(len(self.training), len(self.symmetries), config.data.copies)
        codes, held = self.codes(decoder, modes.prior(), self.symmetries, copies)
        search = self.search(codes, held, float(modes.noise.mean()))
        fit = self._closed_form(search, self.sizes(modes, codes), codes, held)
        quadratic = self._quadratic(fit, search.floor, self.sizes(modes, codes), codes, held)
        size = fit.candidate.size if quadratic is None else quadratic.size
        if config.decoder.closure and size < len(modes.variances):
            closed = self._closure(decoder, modes, size, codes)
            if closed is not None:
                return self.finish(*closed, search, fit, codes, held, quadratic)
        modes = modes.truncated(size)
        decoder.set_output(modes.mean, modes.modes)
        return self.finish(decoder, modes.prior(), search, fit, codes, held, quadratic)

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
        originals = CodeData(*(v[: len(self.training)] for v in (training.codes, training.t, training.observed)))
        return training.frames(cut), originals, cut - 1

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
    ) -> Surrogate:
        """Residual training where it helps, then priors; the surrogate."""
        config, size = self.config, decoder.code_size
        dynamics = config.dynamics
        settings = FieldSettings(
            self.forcing_period(), dynamics.forcing_harmonics, dynamics.width, dynamics.depth, dynamics.quadratic_rank
        )
        frames = training.codes.shape[1]
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
        process = dynamics_stage.calibrated_process_noise(field, integrator, judged_states.since(first))
        final, final_states = field, states
        if field is linear:
            if quadratic is not None:  # refitted on all trajectories
                final = QuadraticStage.refit(quadratic, every).field(dynamics.width)
            else:
                final = dynamics_stage.linear_field(full, settings)
            final_states = with_memory(training, size, None if quadratic is not None else full.directions)
        mean, covariance = dynamics_stage.fit_state_prior(final_states, code_prior, size)
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
                "frames": frames,
                "trajectories": len(self.source),
                "symmetries": list(self.symmetries.names),
                "dynamics": note,
                "memory": fit.candidate.memory,
                "test": config.data.test,
            },
            self.encoder,
        )
        unseen_batch = self.source.batch(self.validation[:16] if held is not None else self.training, normalised=False)
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
        if decoder.affine and seen < 2 * decoder.code_size:  # codes alone do not stand for the data
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


