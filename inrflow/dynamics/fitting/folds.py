"""Cross-validation of dynamics: held-out trajectories, or single frames left out of a trajectory.

The dynamics do not depend on time, so transitions after a frame that is left out are as good for fitting as those
before: nearly all frames are fitted to in every fold, and there are many folds (Bergmeir, Hyndman and Koo 2018). The
forecast of the frame that is left out goes on through frames that are fitted to, which shows how its error grows.
Rolling origins, each fitted on what came before alone, leave so few transitions that candidates of many codes seem
worse than they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inrflow.encoding.encode import CodeData

_FOLDS, _UNEQUAL = 24, 12  # and where steps are unequal: every fit follows the flow of every transition there
_FEWEST, _PLENTY = 4, 10_000  # folds at least, fewer than that from so many transitions on: each is fitted to all
_COPIED, _COPIED_UNEQUAL = 1024, 512  # transitions up to which copies are fitted to in folds
_EARLIEST = 10  # no frame among the first one of so many is left out
_HORIZON, _LONGEST = 0.4, 50  # of the frames, and frames: how far forecasts go on


@dataclass(frozen=True)
class Fold:
    """Codes to fit to, and codes whose frames after `first` are forecast from it."""

    training: CodeData
    validation: CodeData
    first: int

    @cached_property
    def variance(self) -> float:
        """Total variance of the training codes."""
        observed = self.training.codes[self.training.observed]
        return float((observed - observed.mean(0)).square().sum(1).mean())


def frames_left_out(frames: int, count: int = _FOLDS) -> list[tuple[int, int]]:
    """Frames to leave out one at a time, `count` of them, evenly spread, and where forecasts from before them end.

    Empty where there are too few frames to leave any out.
    """
    earliest = max(2, frames // _EARLIEST)
    if frames <= earliest:
        return []
    out = np.unique(np.linspace(earliest, frames - 1, count).round().astype(int))
    return [(int(frame), min(frames, int(frame) + 1 + min(int(_HORIZON * frames), _LONGEST))) for frame in out]


def folds_of(training: CodeData, originals: int, uniform: bool = True) -> list[Fold]:
    """Folds of single frames, left out of trajectories and forecast in the first `originals` of them.

    Of symmetry copies, which come after the originals, only so many are fitted to that folds stay cheap.

    `uniform`: whether all steps are equal. Empty where trajectories are too short.
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
