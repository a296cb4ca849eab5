"""What candidates for the dynamics are judged by: held-out trajectories, or blocks of frames left out of a single one.

The equation does not depend on time, so transitions after a block that is left out teach as much about it as those
before: nearly all frames teach in every fold, and there are many folds (Bergmeir, Hyndman and Koo 2018 on
cross-validation of autoregressions). Origins within a trajectory, each fitted on what came before alone, leave so
little that candidates of many codes seem worse than they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inrflow.dynamics.states import CodeData

_BLOCK, _BLOCKS = 2, 20  # frames in each, and how many
_FEWEST, _PLENTY = 4, 10_000  # blocks at least, fewer than that from so many transitions on: each fold fits to all
_EARLIEST = 10  # no block begins within one frame of so many


@dataclass(frozen=True)
class Fold:
    """Codes `fitted` to and codes `judged`, of which the frames after `first` are forecast from it."""

    fitted: CodeData
    judged: CodeData
    first: int


def transitions_in(data: CodeData) -> int:
    """Number of pairs of successive observed frames."""
    return int((data.observed[:, 1:] & data.observed[:, :-1]).sum())


def blocks(frames: int, count: int = _BLOCKS) -> list[tuple[int, int]]:
    """First frames of so many short blocks, evenly spread over so many frames, and those after their last.

    Empty where there are too few frames to leave anything out.
    """
    length = _BLOCK if frames > 3 else 1
    earliest, latest = max(2, frames // _EARLIEST), frames - length
    if latest < earliest:
        return []
    begins = np.unique(np.linspace(earliest, latest, count).round().astype(int))
    return [(int(begin), int(begin) + length) for begin in begins]


def blocks_left_out(training: CodeData, originals: int) -> list[Fold]:
    """Folds of short blocks of frames, left out of all trajectories and forecast in the first `originals` of them.

    Empty where trajectories are too short.
    """
    original, folds = training.first(originals), []
    count = min(_BLOCKS, max(_FEWEST, _BLOCKS * _PLENTY // max(1, transitions_in(training))))
    for begin, end in blocks(training.codes.shape[1], count):
        parts = [part for part in (training.frames(begin), training.since(end)) if part.codes.shape[1] > 1]
        longest = max(part.codes.shape[1] for part in parts)
        folds.append(Fold(CodeData.join([part.padded(longest) for part in parts]), original.frames(end), begin - 1))
    return folds
