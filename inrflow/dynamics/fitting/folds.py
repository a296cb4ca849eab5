"""Cross-validation of dynamics: held-out trajectories, or single frames left out of a trajectory.

For autonomous dynamics, transitions after a frame that is left out are as good for fitting as those before it: nearly
all frames are used in every fold, and there are many folds (Bergmeir, Hyndman and Koo 2018). The forecast of the frame
left out is continued through frames used for fitting, which shows the growth of its error. Rolling origins, which fit
to earlier frames alone, leave few transitions and are biased against candidates with many codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inrflow.encoding.encode import CodeData

_FOLDS, _UNEQUAL = 24, 12  # numbers of folds, and for unequal steps, where every fit integrates all transitions
_FEWEST, _PLENTY = 4, 10_000  # least number of folds; transitions from which their number is reduced
_COPIED, _COPIED_UNEQUAL = 1024, 512  # largest number of transitions including copies in folds
_EARLIEST = 10  # inverse share of first frames that are never left out
_HORIZON, _LONGEST = 0.4, 50  # length of forecasts, as a share of the frames and in frames


@dataclass(frozen=True)
class Fold:
    """Codes to fit to, and codes whose frames after index `first` are forecast from that frame."""

    training: CodeData
    validation: CodeData
    first: int


def frames_left_out(frames: int, count: int = _FOLDS) -> list[tuple[int, int]]:
    """Frames to leave out one at a time, `count` of them evenly spaced, and the ends of forecasts from before them.

    Empty if there are too few frames."""
    earliest = max(2, frames // _EARLIEST)
    if frames <= earliest:
        return []
    out = np.unique(np.linspace(earliest, frames - 1, count).round().astype(int))
    return [(int(frame), min(frames, int(frame) + 1 + min(int(_HORIZON * frames), _LONGEST))) for frame in out]


def folds_of(training: CodeData, originals: int, uniform: bool = True) -> list[Fold]:
    """Folds with single frames left out of all trajectories, forecast in the first `originals` of them.

    Symmetry copies, which come after the originals, are limited in number so that folds stay cheap.

    `uniform`: whether all steps are equal. Empty if trajectories are too short.
    """
    copied = _COPIED if uniform else _COPIED_UNEQUAL
    training = training.first(max(originals, copied // training.codes.shape[1]))
    original, folds = training.first(originals), []
    most = _FOLDS if uniform else _UNEQUAL
    count = min(most, max(_FEWEST, most * _PLENTY // max(1, training.transitions)))
    for frame, end in frames_left_out(training.codes.shape[1], count):
        parts = [part for part in (training.frames(frame), training.since(frame + 1)) if part.codes.shape[1] > 1]
        longest = max(part.codes.shape[1] for part in parts)
        folds.append(Fold(CodeData.join([part.padded(longest) for part in parts]), original.frames(end), frame - 1))
    return folds
