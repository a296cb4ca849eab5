"""The harmonics of a periodic domain as the decoder: nothing is trained, and codes mean the same for every physics."""

from __future__ import annotations

import numpy as np

from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.encoding.prior.harmonic_modes import HarmonicLabels, harmonic_modes
from inrflow.encoding.prior.modes import OutputModes
from inrflow.errors import UserError
from inrflow.training.parts.trunk import DecoderTraining
from inrflow.training.problem import HARMONIC_FEATURES, TrainingSetup

_POINTS = 0.9  # harmonics a point
_STATISTICS = 16  # trajectories from which the spectrum is taken


def has_harmonics(file: TrajectoryFile) -> bool:
    """Whether every coordinate of a file is periodic."""
    period = file.description.period
    return period is not None and all(value > 0 for value in period) and file.description.geometry is None


def resolved_harmonics(setup: TrainingSetup, features: int, determined: bool = False) -> int:
    """Largest wavenumber: that of the configuration, or what the points of one frame determine, so many functions at
    most; where they must be `determined`, the smaller of both."""
    points = round(setup.source.points * setup.config.data.points)
    d = len(setup.description.coordinates)
    wanted = setup.config.decoder.harmonics
    possible = max(1, int((min(features, _POINTS * points) ** (1 / d) - 1) // 2))
    if wanted is None:
        return possible
    return min(wanted, possible) if determined else wanted


def harmonic_decoder(
    setup: TrainingSetup, determined: bool = False
) -> tuple[HarmonicDecoder, OutputModes, HarmonicLabels]:
    """The widest basis that the points support, the spectrum of the data on it, and which wave each code is; see
    `resolved_harmonics`. Raises UserError where the configuration wants none."""
    if setup.config.decoder.harmonics == 0:
        raise UserError("decoder.harmonics=0 leaves nothing to hold these codes, which are weights of the domain's "
                        "harmonics; leave it out or give 1 or more, or give decoder.codes=variance")
    nobody = setup.augmentation(setup.symmetries.only([]))
    chosen = setup.training[:_STATISTICS]
    statistics = DecoderTraining(setup.source, chosen, np.array([], dtype=int), nobody)
    features = HARMONIC_FEATURES[-1]
    embedding = setup.embedding(features, resolved_harmonics(setup, features, determined))
    decoder = HarmonicDecoder(embedding, len(setup.description.channels))
    largest = len(setup.description.channels) * (1 + embedding.harmonics)
    modes = statistics.fit_modes(decoder.double(), largest)
    found = harmonic_modes(embedding, modes)
    assert found is not None
    modes, labels = found
    decoder.set_output(modes.mean, modes.modes)
    left = float(modes.noise.mean())
    setup.recorder.say(f"decoder: {embedding.harmonics} harmonics of the domain leave {left:.1e} of the variance, "
                       "nothing is trained")
    return decoder.float(), modes, labels
