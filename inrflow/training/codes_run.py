"""Codes of a run's trajectories, with progress, and how many symmetry copies of them the time allows."""

from __future__ import annotations

import numpy as np

from inrflow.decoders.base import Decoder
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.states import CodeData
from inrflow.encoding.gaussian import GaussianPrior
from inrflow.training.codes_stage import CodeBook, code_motion
from inrflow.training.decoder_stage import Augmentation
from inrflow.training.dynamics_stage import DriftOf, copies_for, encode_trajectories
from inrflow.training.recorder import Interrupted
from inrflow.training.setup import TrainingSetup


def solve_codes(
    setup: TrainingSetup, decoder: Decoder, prior: GaussianPrior, trajectories: np.ndarray,
    augmentation: Augmentation | None = None, drift: DriftOf | None = None,
) -> CodeData:
    """Codes of these trajectories; `drift`: motion of scattered rows between their times and the knots."""
    setup.recorder.begin("codes", len(trajectories))

    def progress(done: int) -> None:
        setup.recorder.advance(done)
        if setup.recorder.stopping:  # nothing to save: codes follow from the decoder
            raise Interrupted

    codes = encode_trajectories(
        setup.source, decoder, prior, trajectories, setup.scale, augmentation, setup.config.seed, progress, drift
    )
    setup.recorder.end()
    return codes


def make_code_book(
    setup: TrainingSetup, decoder: ModulatedSiren, prior: GaussianPrior, training: np.ndarray, validation: np.ndarray,
    drift: DriftOf | None = None,
) -> CodeBook:
    """Codes of training and validation trajectories, and the means to copy them."""

    def encode(trajectories: np.ndarray, augmentation: Augmentation | None) -> CodeData:
        return solve_codes(setup, decoder, prior, trajectories, augmentation, drift)

    motion = code_motion(decoder, setup.source, setup.augmentation(setup.symmetries))
    return CodeBook.make(encode, training, validation, motion)


def wanted_copies(setup: TrainingSetup) -> int:
    """Copies of every trajectory that the symmetries of the run deserve, were there time for all."""
    return copies_for(len(setup.training), len(setup.symmetries), setup.config.data.copies)


def affordable_copies(
    setup: TrainingSetup, book: CodeBook, name: str, wanted: int, share: float, passes: int = 1
) -> int:
    """Copies of every trajectory: those of the configuration, or what a share of the time allows, then recorded."""
    return setup.decided(name, lambda: book.affordable(wanted, setup.seconds(share) / passes))
