"""Decoders whose codes are descended or solved step by step: the published recipes, as configurations of the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from inrflow.config.schema import Config
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.posterior import GaussianPrior
from inrflow.errors import UserError
from inrflow.runtime.devices import choose_device
from inrflow.training.parts.auto_decoder import METHODS, TableTraining
from inrflow.training.parts.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.recorder import Recorder

DEFAULT_CODE_SIZE = 50
ADAM_RATE, GRADIENT_RATE = 1e-2, 10.0


def uses_table(config: Config) -> bool:
    """Whether the configuration leaves the path of closed-form codes."""
    return (
        config.decoder.name != "siren"
        or tuple(config.decoder.modulation) != ("output",)
        or config.encoding.method != "closed_form"
    )


def check_recipe(config: Config) -> None:
    """Raise UserError for a decoder and an encoding that cannot work together."""
    settings, method = config.decoder, config.encoding.method
    if settings.name not in ("siren", "filter_net"):
        raise UserError(f"decoder.name={settings.name!r}; choose siren or filter_net")
    if not settings.modulation or set(settings.modulation) - {"shift", "scale", "output"}:
        raise UserError(f"decoder.modulation={list(settings.modulation)}; give a subset of [shift, scale, output]")
    if method not in ("closed_form", *METHODS):
        raise UserError(f"encoding.method={method!r}; choose from closed_form, {', '.join(METHODS)}")
    if method == "closed_form" and uses_table(config):
        raise UserError(
            f"encoding.method=closed_form needs a siren with output modulation, found decoder {settings.name} with "
            f"modulation {list(settings.modulation)}; give encoding.method=gauss_newton, adam or gradient_steps"
        )
    if config.training.joint and (method != "adam" or config.dynamics.linear or not config.dynamics.depth):
        raise UserError(
            f"training.joint=true moves codes by Adam and trains a network alone as field, found encoding.method="
            f"{method}, dynamics.linear={str(config.dynamics.linear).lower()}, dynamics.depth={config.dynamics.depth}; "
            "give adam, false and 1 or more"
        )


def make_decoder(config: Config, embedding: Embedding, channels: int) -> Decoder:
    """A decoder of the configured kind and code size."""
    settings = config.decoder
    size = settings.code_size or DEFAULT_CODE_SIZE * channels
    if settings.name == "filter_net":
        return FourierFilterNet(embedding, channels, size, settings.width, settings.depth or 3, settings.filter_scale)
    periodic = type(embedding).__name__ == "PeriodicEmbedding"
    return ModulatedSiren(
        embedding, channels, size, settings.width, settings.depth or 3, settings.w0 or (2.0 if periodic else 5.0),
        settings.modulation,
    )


def fit_table_decoder(
    config: Config,
    source: TrajectorySource,
    training: np.ndarray,
    validation: np.ndarray,
    embedding: Embedding,
    choose_steps: Callable[[Stage], int],
    recorder: Recorder,
    checkpoints: Path,
) -> tuple[Decoder, GaussianPrior, torch.Tensor]:
    """Train decoder and codes together; the decoder, the prior of its codes and the codes (S, T, Z) of training."""
    torch.manual_seed(config.seed)
    decoder = make_decoder(config, embedding, len(source.description.channels))
    stages = TableTraining(source, training, validation)
    encoding = config.encoding
    options: dict[str, float] = {}
    if encoding.method == "gradient_steps":
        options = {"inner_rate": encoding.rate or GRADIENT_RATE, "inner_steps": encoding.iterations or 3}
    module = stages.make(decoder, encoding.method, **options).to(choose_device(config.device))
    settings = OptimiserSettings(config.training.optimiser, config.training.decoder_rate, config.training.weight_decay)
    stage = Stage("decoder", module, stages.loss, stages.score, optimiser=settings, seed=config.seed, validations=10)
    steps = choose_steps(stage)
    error = run_stage(stage, steps, recorder, checkpoints)
    recorder.say(f"decoder: {steps} steps, error at held-out points {error:.2e} of the variance")
    return decoder.eval(), stages.prior(module), stages.codes(module)
