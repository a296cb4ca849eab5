"""What a training run knows before anything is trained: configuration, data, split, symmetries, time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import inrflow.training.parts.loop as training_steps
from inrflow.config.schema import Config
from inrflow.data.augmentation import Augmentation
from inrflow.data.environments import environments_of
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.source import TrajectorySource
from inrflow.data.symmetries import Symmetries
from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import Embedding, make_embedding
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.flow.time_scale import TimeScale
from inrflow.dynamics.libraries.pde import LocalEquation
from inrflow.dynamics.states import CodeData
from inrflow.encoding.encode import Encoder
from inrflow.errors import UserError
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate
from inrflow.runtime.devices import choose_device
from inrflow.training.parts.loop import Stage, timed_steps
from inrflow.training.parts.split import choose_split
from inrflow.training.recipes.auto_decoding import ADAM_RATE, GRADIENT_RATE
from inrflow.training.recorder import Recorder

HARMONIC_FEATURES = (200, 300)
GOOD_ENOUGH = 1e-6  # share of the variance below which single-precision rollouts have nothing to add
_CENTRED = 10.0  # deviations: channels whose mean lies farther out are centred before terms are formed
_FRAMES_TO_SPARE = 5  # of which the last is held out
CLEARLY_BETTER = 0.95  # the closed form is refitted on all trajectories, the trained residual is not
CLEARLY_BETTER_ON_FEW = 0.5  # where the last frames of one trajectory choose and judge, and are not learned from after


class TrainingSetup:
    """What the parts of a training run share: the open file's training data, and how long there is for each part."""

    judged: Surrogate | None = None  # before its refit to all trajectories: validation has taught it nothing

    def __init__(
        self, config: Config, file: TrajectoryFile, directory: Path, recorder: Recorder, save_config: Callable[[], None]
    ) -> None:
        self.config, self.file, self.recorder, self.save_config = config, file, recorder, save_config
        self.device = choose_device(config.device)
        self.checkpoints, self.started = directory / "checkpoints", training_steps.clock()
        data = config.data
        self.source = TrajectorySource(file, data.frames, data.points, data.same_points, config.seed)
        self.observed = self.source  # what was seen, whatever is made of it later
        self.environments = environments_of(file, config.dynamics.context)
        groups = None if self.environments is None else self.environments.index
        self.description = file.description
        self.box = file.box
        self.symmetries = self._symmetries(data.symmetries)
        # Moved copies and harmonics make much of few trajectories, so that they can spare one.
        alone = groups is None and not len(self.symmetries) and config.decoder.codes == "variance"
        in_time = alone and self.source.times.shape[1] >= _FRAMES_TO_SPARE
        self.training, self.validation = choose_split(len(self.source), data.validation, config.seed, groups, in_time)
        self.source.fit_normalisation(self.training)
        if not self.source.varies.any():
            values = ", ".join(f"{value:g}" for value in self.source.normalisation.mean.tolist())
            raise UserError(f"{file.path}: every observed value of a channel is the same ({values}), so that there is "
                            "nothing to learn; give data that vary")
        if self.source.observed_frames < 2:
            raise UserError(f"{file.path}: no trajectory has values in two of its frames, so that no dynamics show; "
                            "give more frames")
        self.scale = TimeScale.of(self.source.times)
        encoding = config.encoding
        descended = encoding.method in ("adam", "gradient_steps")
        rate = encoding.rate or (ADAM_RATE if encoding.method == "adam" else GRADIENT_RATE)
        self.encoder = Encoder(encoding.method, encoding.iterations or 0, rate) if descended else Encoder()

    def _symmetries(self, wanted: object) -> Symmetries:
        declared = self.description.symmetries
        if wanted in ("declared", None):
            return declared
        if wanted == "none":
            return declared.only([])
        names = [str(name) for name in wanted] if isinstance(wanted, list | tuple) else [str(wanted)]
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

    def embedding(self, features: int = HARMONIC_FEATURES[0], harmonics: int | None = None) -> Embedding:
        """The coordinate embedding that the data declare, with at most so many `features` of the domain's harmonics, or
        with those up to the wavenumber `harmonics`."""
        return make_embedding(
            self.box[0].tolist(),
            self.box[1].tolist(),
            self.description.period if self.config.decoder.periodic else None,
            self.description.geometry,
            self.config.decoder.wavenumbers,
            self._harmonics(features) if harmonics is None else harmonics,
        )

    def decided(self, name: str, choose: Callable[[], int]) -> int:
        """A number of `training.steps`: that of the configuration, or else what `choose` says, then recorded."""
        known = getattr(self.config.training.steps, name)
        if known is None:
            known = choose()
            setattr(self.config.training.steps, name, known)
            self.save_config()
        return known

    def steps(self, name: str, stage: Stage, share: float, largest: int) -> int:
        """Steps of a stage: those of the configuration, or what its share of the time allows, then recorded."""
        return self.decided(name, lambda: timed_steps(stage, self.seconds(share), largest=largest))

    def seconds(self, share: float) -> float:
        """A share of the time budget, less where little of it is left."""
        budget = 60 * self.config.training.minutes
        return min(share * budget, max(0.8 * (budget - (training_steps.clock() - self.started)), 0.0))

    def forcing_period(self) -> float:
        """Period of the declared forcing, internal time; 0 for none."""
        wanted = self.config.dynamics.forcing
        period = self.description.time_period
        if wanted and period is None:
            raise UserError("dynamics.forcing=true, but the data declare no time_period; add the attribute to the file")
        return 0.0 if period is None or wanted is False else period / self.scale.unit

    def surrogate(
        self, decoder: Decoder, field: VectorField, integrator: Integrator, prior: StatePrior, note: str,
        memory: int = 0, code_names: list[str] | None = None, **further: object,
    ) -> Surrogate:
        """A surrogate of this run's data. `note` names its dynamics; `further`: what else is known of the training."""
        config, times = self.config, self.source.times
        return Surrogate(
            self.description, self.source.normalisation, decoder.eval(), field.double().eval(), integrator, prior,
            self.scale, self.box, float((times - times[:, :1]).nan_to_num(0.0).max()),
            {
                "seed": config.seed,
                "points": config.data.points,
                "same_points": config.data.same_points,
                "frames": times.shape[1],
                "trajectories": len(self.source),
                "symmetries": list(self.symmetries.names),
                "dynamics": note,
                "memory": memory,
                "test": config.data.test,
                **further,
            },
            self.encoder,
            code_names=code_names,
        )

    def term_shift(self) -> Tensor:
        """(C,) added to normalised values, so that terms of an equation are of the data's own values; 0 where these lie
        many deviations from 0, and products are better formed of centred ones."""
        mean, scale = (v.double().flatten() for v in (self.source.normalisation.mean, self.source.normalisation.scale))
        shift = mean / scale
        return torch.where(shift.abs() <= _CENTRED, shift, 0.0)

    def written(self, equation: LocalEquation) -> list[str]:
        """One line a channel, in the data's units."""
        units = [*self.source.normalisation.scale.double().flatten().tolist(), self.scale.unit]
        return equation.written(self.description.channels, self.description.coordinates, units)

    def judging(self, training: CodeData, held: CodeData | None) -> tuple[CodeData, CodeData, int]:
        """Codes that teach, codes that judge, and the frame from which they judge."""
        if held is not None:
            return training, held, 0
        cut = max(2, int(0.8 * training.codes.shape[1]))  # one trajectory: its last frames judge what the first taught
        return training.frames(cut), self.originals(training), cut - 1

    def originals(self, codes: CodeData) -> CodeData:
        """Codes of the training trajectories without those of their copies."""
        return codes.first(len(self.training))
