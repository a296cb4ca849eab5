"""Codes of the training trajectories and of their symmetry copies, within the time that there is for them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from inrflow.data.batch import Augmentation
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import AffineDecoder, Decoder
from inrflow.dynamics.states import CodeData, TimeScale
from inrflow.encoding.encode import encode
from inrflow.encoding.equivariance import CodeAction, code_action
from inrflow.encoding.posterior import GaussianPrior
from inrflow.numerics.effort import effort
from inrflow.training.run import Run

_BLOCK = 16
_FEWEST = 2
_COPIES_SHARE = 0.15  # of the time


@dataclass
class TrainingCodes:
    """Codes of the original trajectories, and whatever their copies need.

    Attributes:
        train, validation: codes of the training and of the validation trajectories, None without the latter.
        seconds: that a fresh solve of all training trajectories takes.
        action: moves codes instead of solving anew; None where that would not be exact.
        encode: solves trajectories, moved at random where an augmentation is given.
    """

    train: CodeData
    validation: CodeData | None
    seconds: float
    action: CodeAction | None
    encode: Callable[..., CodeData]

    def with_copies(
        self, indices: np.ndarray, augmentation: Augmentation, copies: int, seed: int
    ) -> CodeData:
        """Originals first, then `copies` - 1 copies of each, every one moved by a random symmetry of its own.

        `indices` are the training trajectories in the order of the codes.
        """
        if copies <= 1 or not augmentation:
            return self.train
        repeated = np.tile(indices, copies - 1)
        if self.action is None:
            return CodeData.join([self.train, self.encode(repeated, augmentation)])
        parts = [self.train]
        random = np.random.default_rng([seed, 17])
        codes = self.train
        for _ in range(copies - 1):
            moved = self.action(codes.codes, augmentation.sample(random, len(indices)))
            parts.append(CodeData(torch.where(codes.observed[..., None], moved, codes.codes), codes.t, codes.observed))
        return CodeData.join(parts)


def solve_codes(
    run: Run, decoder: Decoder, prior: GaussianPrior, trajectories: np.ndarray,
    augmentation: Augmentation | None = None,
) -> CodeData:
    """Codes of some trajectories."""
    run.log.begin("codes", len(trajectories))
    problem = run.problem
    codes = encode_trajectories(
        problem.source, decoder, prior, trajectories, problem.scale, augmentation, run.config.seed, run.log.advance
    )
    run.log.end()
    return codes


def encode_all(
    run: Run, decoder: Decoder, prior: GaussianPrior,
    train: np.ndarray | None = None, validation: np.ndarray | None = None,
) -> TrainingCodes:
    """Codes of training and validation trajectories (by default those of the problem), and the means to copy them."""
    train = run.problem.train if train is None else train
    validation = run.problem.validation if validation is None else validation

    action = None
    if isinstance(decoder, AffineDecoder):
        action = code_action(decoder, run.problem.source, run.problem.augmentation())
    began = time.perf_counter()
    encode = partial(solve_codes, run, decoder, prior)
    codes = encode(train)
    seconds = time.perf_counter() - began
    return TrainingCodes(codes, encode(validation) if len(validation) else None, seconds, action, encode)


def wanted_copies(run: Run) -> int:
    """Copies of every trajectory that the symmetries of the run deserve, were there time for all."""
    return copies_for(len(run.problem.train), len(run.problem.symmetries), run.config.data.copies)


def affordable_copies(
    run: Run, codes: TrainingCodes, name: str, wanted: int, share: float, passes: int = 1
) -> int:
    """Copies of every trajectory, the original among them: as many of the wanted ones as are solved within a share of
    the time, but at least two; then recorded."""
    def affordable() -> int:
        if codes.action is not None or wanted <= _FEWEST:
            return wanted
        return int(np.clip(1 + run.budget.seconds(share) / passes / max(codes.seconds, 1e-6), _FEWEST, wanted))

    return run.budget.decide(name, affordable)


def with_copies(run: Run, codes: TrainingCodes) -> CodeData:
    """Codes of the training trajectories, and of as many copies as the time allows."""
    copies = affordable_copies(run, codes, "copies", wanted_copies(run), _COPIES_SHARE)
    return codes.with_copies(run.problem.train, run.problem.augmentation(), copies, run.config.seed)


def encode_trajectories(
    source: TrajectorySource,
    decoder: Decoder,
    prior: GaussianPrior,
    trajectories: np.ndarray,
    scale: TimeScale,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> CodeData:
    """Codes of whole trajectories, moved by a random symmetry each if an augmentation is given; block by block."""
    parts, random = [], np.random.default_rng([seed, 17])
    for start in range(0, len(trajectories), _BLOCK):
        effort.check()
        batch = source.moved(trajectories[start : start + _BLOCK], augmentation, random)
        parts.append(CodeData(encode(decoder, batch, prior), scale.internal(batch.t), batch.observed))
        progress(min(start + _BLOCK, len(trajectories)))
    return CodeData.join(parts)


def copies_for(trajectories: int, symmetries: int, wanted: int | None) -> int:
    """How many copies of every training trajectory are made, the original among them."""
    if not symmetries:
        return 1
    return wanted if wanted is not None else int(np.clip(math.ceil(1024 / trajectories), 4, 64))
