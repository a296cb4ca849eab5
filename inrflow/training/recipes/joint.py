"""`training.joint=true`: a run of DINo's training, and the number of encoding steps chosen on validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from inrflow.config.schema import Config
from inrflow.data.augmentation import Augmentation
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import Embedding
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.time_scale import TimeScale
from inrflow.dynamics.states import CodeData
from inrflow.encoding.adam import adam_path
from inrflow.encoding.posterior import GaussianPrior
from inrflow.training.judge import copies_for
from inrflow.training.parts.auto_decoder import SMALLEST_NOISE, shrunk_moments
from inrflow.training.parts.joint import JointModule, JointStage, JointTraining, table_data
from inrflow.training.parts.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.recipes.auto_decoding import ADAM_RATE, make_decoder
from inrflow.training.recorder import Recorder

ENCODING_STEPS = (60, 100, 300, 500, 1000)
_JUDGED = 16  # validation trajectories on which the number of encoding steps is chosen


@dataclass
class JointResult:
    """What joint training leaves: the decoder, the prior of its codes, the field, the codes of the training
    trajectories, and the number of Adam steps that encode a frame best."""

    decoder: Decoder
    prior: GaussianPrior
    field: VectorField
    training: CodeData
    iterations: int


def fit_jointly(
    config: Config,
    source: TrajectorySource,
    training: np.ndarray,
    validation: np.ndarray,
    embedding: Embedding,
    augmentation: Augmentation,
    wrap: tuple[np.ndarray, np.ndarray] | None,
    scale: TimeScale,
    choose_steps: Callable[[Stage], int],
    recorder: Recorder,
    checkpoints: Path,
) -> JointResult:
    """Train decoder, codes and field in the same iterations; symmetry copies are further rows of the table."""
    torch.manual_seed(config.seed)
    decoder = make_decoder(config, embedding, len(source.description.channels))
    parts, settings = config.dynamics, config.training
    field = VectorField.of(decoder.code_size, linear=False, width=parts.width, depth=parts.depth, swish=True)
    copies = copies_for(len(training), len(augmentation.symmetries), config.data.copies)
    joint = JointTraining(source, training, scale, augmentation, copies, settings.batch, wrap, config.seed)
    module = JointModule(decoder, field, len(joint.rows), source.times.shape[1])
    stage = JointStage(
        "joint",
        module,
        loss=lambda *unused: torch.zeros(()),
        optimiser=OptimiserSettings("adam", settings.decoder_rate),
        seed=config.seed,
        training=joint,
        code_rate=settings.rollout_rate,
    )
    steps = choose_steps(stage)
    run_stage(stage, steps, recorder, checkpoints)
    recorder.say(f"joint training: {steps} iterations, {len(joint.rows)} sequences of which {joint.batch} at a time")
    data = table_data(joint, module)
    prior = _prior(source, training, decoder, data)
    iterations = _choose_iterations(config, source, validation, module, joint)
    recorder.say(f"encoding: {iterations} Adam steps")
    return JointResult(decoder.eval(), prior, module.field, data, iterations)


@torch.no_grad()
def _prior(source: TrajectorySource, training: np.ndarray, decoder: Decoder, data: CodeData) -> GaussianPrior:
    """Moments of the codes, and the noise that they leave in some of their trajectories."""
    mean, covariance = shrunk_moments(data.codes[data.observed])
    some = np.unique(np.linspace(0, len(training) - 1, 8).astype(int))
    batch = source.batch(training[some])
    error = (decoder(batch.x.float(), data.codes[some].float()) - batch.u).square()
    noise = error.flatten(0, 2).nanmean(0).nan_to_num(1.0).clamp(min=SMALLEST_NOISE)
    return GaussianPrior(mean, covariance, noise.double())


def _choose_iterations(
    config: Config, source: TrajectorySource, validation: np.ndarray, module: JointModule, joint: JointTraining
) -> int:
    """The number of Adam steps whose codes of first frames give the best rollouts of validation trajectories, judged
    in the data. More steps fit a frame better, and lead the code away from those that the field knows."""
    if config.encoding.iterations:
        return config.encoding.iterations
    batch = source.batch(validation[:_JUDGED] if len(validation) else joint.rows[: min(_JUDGED, joint.originals)])
    times, observed = joint.scale.internal(batch.t), torch.isfinite(batch.u)
    x = batch.x[:, 0].float()
    starts = adam_path(
        module.decoder, x[0] if len(x) == 1 else x, batch.u[:, 0], ENCODING_STEPS, config.encoding.rate or ADAM_RATE
    )

    def error(start: torch.Tensor) -> float:
        with torch.no_grad():
            codes = joint.integrator(module.field, start, times, check=False)
            decoded = module.decoder(batch.x.float(), codes)
        missed = torch.where(observed, decoded - torch.nan_to_num(batch.u), 0.0).square().sum() / observed.sum()
        return float(missed.nan_to_num(float("inf")))

    return ENCODING_STEPS[int(np.argmin([error(start) for start in starts]))]


def wrapping(box: np.ndarray, period: tuple[float, ...] | None, embedding: Embedding) -> tuple | None:
    """Low corner and period where a decoder of raw coordinates needs its points inside one period, else None."""
    if period is None or type(embedding) is not Embedding:
        return None
    return box[0], np.asarray(period)

