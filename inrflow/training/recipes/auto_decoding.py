"""Decoders whose codes are descended or solved step by step: the published recipes, as configurations of the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from inrflow.config.schema import Config
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import AffineDecoder, Decoder
from inrflow.decoders.closure import ClosureDecoder
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.decoders.registry import decoder_class, decoder_names
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.encode import GRADIENT_RATE
from inrflow.encoding.posterior import GaussianPrior
from inrflow.errors import UserError
from inrflow.runtime.devices import choose_device
from inrflow.training.parts.auto_decoder import METHODS, TableTraining
from inrflow.training.parts.loop import OptimiserSettings, Stage, run_stage
from inrflow.training.recorder import Recorder

DEFAULT_CODE_SIZE = 50


def uses_table(config: Config) -> bool:
    """Whether the configuration leaves the path of closed-form codes."""
    return (
        not issubclass(decoder_class(config.decoder.name), AffineDecoder)
        or tuple(config.decoder.modulation) != ("output",)
        or config.encoding.method != "closed_form"
    )


def check_recipe(config: Config) -> None:
    """Raise UserError for a decoder and an encoding that cannot work together."""
    settings, method = config.decoder, config.encoding.method
    if settings.name not in decoder_names():
        raise UserError(f"decoder.name={settings.name!r}; choose from {', '.join(decoder_names())}, or import the "
                        "module that registers it")
    if issubclass(decoder_class(settings.name), ClosureDecoder):
        raise UserError(f"decoder.name={settings.name} is fitted to another decoder; give decoder.closure=true")
    if not settings.modulation or set(settings.modulation) - {"shift", "scale", "output"}:
        raise UserError(f"decoder.modulation={list(settings.modulation)}; give a subset of [shift, scale, output]")
    if method not in ("closed_form", *METHODS):
        raise UserError(f"encoding.method={method!r}; choose from closed_form, {', '.join(METHODS)}")
    if method == "closed_form" and uses_table(config):
        raise UserError(
            "encoding.method=closed_form needs a siren with output modulation or another decoder with a linear output "
            f"layer, found decoder {settings.name} with modulation {list(settings.modulation)}; give "
            "encoding.method=gauss_newton, adam or gradient_steps"
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
    own, depth = decoder_class(settings.name), settings.depth or 3
    if issubclass(own, FourierFilterNet):
        return own(embedding, channels, size, settings.width, depth, settings.filter_scale)
    if issubclass(own, ModulatedSiren):
        w0 = settings.w0 or (2.0 if embedding.oscillates else 5.0)
        return own(embedding, channels, size, settings.width, depth, w0, settings.modulation)
    return own(embedding, channels, size)


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
