"""Codes of the training trajectories and of their symmetry copies, within the time that there is for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from inrflow.data.augmentation import Augmentation
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import AffineDecoder, Decoder
from inrflow.dynamics.fitting.group_average import OperatorAverage
from inrflow.dynamics.states import CodeData
from inrflow.encoding.equivariance import CodeAction
from inrflow.encoding.posterior import GaussianPrior
from inrflow.training.judge import MotionOf, copies_for, encode_trajectories
from inrflow.training.parts.trunk import invariant_box
from inrflow.training.problem import TrainingSetup
from inrflow.training.recorder import Interrupted

Encode = Callable[[np.ndarray, Augmentation | None], CodeData]

_FEWEST = 2
_ELEMENTS = 16  # of the group, over which operators are averaged


@dataclass
class CodeBook:
    """Codes of the original trajectories, and whatever their copies need.

    Attributes:
        training, held: codes of the training and of the validation trajectories, None without the latter.
        seconds: that a fresh solve of all training trajectories takes.
        action: moves codes instead of solving anew; None where that would not be exact.
        encode: solves trajectories, moved at random where an augmentation is given.
    """

    training: CodeData
    held: CodeData | None
    seconds: float
    action: CodeAction | None
    encode: Encode

    @classmethod
    def make(cls, encode: Encode, training: np.ndarray, validation: np.ndarray, action: CodeAction | None) -> CodeBook:
        """Solve the originals, timed."""
        began = time.perf_counter()
        codes = encode(training, None)
        seconds = time.perf_counter() - began
        held = encode(validation, None) if len(validation) else None
        return cls(codes, held, seconds, action, encode)

    def affordable(self, copies: int, seconds: float) -> int:
        """As many of the wanted copies (the original among them) as are solved within the time, but at least two."""
        if self.action is not None or copies <= _FEWEST:
            return copies
        return int(np.clip(1 + seconds / max(self.seconds, 1e-6), _FEWEST, copies))

    def with_copies(
        self, indices: np.ndarray, augmentation: Augmentation, copies: int, seed: int
    ) -> CodeData:
        """Originals first, then `copies` - 1 copies of each, every one moved by a random symmetry of its own.

        `indices` are the training trajectories in the order of the codes.
        """
        if copies <= 1 or not augmentation:
            return self.training
        repeated = np.tile(indices, copies - 1)
        if self.action is None:
            return CodeData.join([self.training, self.encode(repeated, augmentation)])
        parts = [self.training]
        random = np.random.default_rng([seed, 17])
        codes = self.training
        for _ in range(copies - 1):
            moved = self.action(codes.codes, augmentation.sample(random, len(indices)))
            parts.append(CodeData(torch.where(codes.observed[..., None], moved, codes.codes), codes.t, codes.observed))
        return CodeData.join(parts)

    def operator_average(self, augmentation: Augmentation) -> OperatorAverage | None:
        """Averages operators on codes over these symmetries; None where codes are not moved exactly."""
        if self.action is None or not augmentation:
            return None
        return OperatorAverage(self.action.affine(augmentation.sample(np.random.default_rng([19]), _ELEMENTS)))


def code_action(
    decoder: AffineDecoder, source: TrajectorySource, augmentation: Augmentation
) -> CodeAction | None:
    """What moves codes under these symmetries, None where only a fresh solve is exact."""
    box = invariant_box(decoder, source, augmentation)
    return None if box is None else CodeAction(decoder, source.normalisation, box)


def solve_codes(
    setup: TrainingSetup, decoder: Decoder, prior: GaussianPrior, trajectories: np.ndarray,
    augmentation: Augmentation | None = None, motion: MotionOf | None = None,
) -> CodeData:
    """Codes of these trajectories; `motion`: motion of scattered rows between their times and the knots."""
    setup.recorder.begin("codes", len(trajectories))

    def progress(done: int) -> None:
        setup.recorder.advance(done)
        if setup.recorder.stopping:  # nothing to save: codes follow from the decoder
            raise Interrupted

    codes = encode_trajectories(
        setup.source, decoder, prior, trajectories, setup.scale, augmentation, setup.config.seed, progress, motion
    )
    setup.recorder.end()
    return codes


def make_code_book(
    setup: TrainingSetup, decoder: AffineDecoder, prior: GaussianPrior, training: np.ndarray, validation: np.ndarray,
    motion: MotionOf | None = None,
) -> CodeBook:
    """Codes of training and validation trajectories, and the means to copy them."""

    def encode(trajectories: np.ndarray, augmentation: Augmentation | None) -> CodeData:
        return solve_codes(setup, decoder, prior, trajectories, augmentation, motion)

    action = code_action(decoder, setup.source, setup.augmentation(setup.symmetries))
    return CodeBook.make(encode, training, validation, action)


def wanted_copies(setup: TrainingSetup) -> int:
    """Copies of every trajectory that the symmetries of the run deserve, were there time for all."""
    return copies_for(len(setup.training), len(setup.symmetries), setup.config.data.copies)


def affordable_copies(
    setup: TrainingSetup, book: CodeBook, name: str, wanted: int, share: float, passes: int = 1
) -> int:
    """Copies of every trajectory: those of the configuration, or what a share of the time allows, then recorded."""
    return setup.decided(name, lambda: book.affordable(wanted, setup.seconds(share) / passes))
