"""Folds of a single trajectory: blocks left out, everything else fitted to, nothing of a block seen."""

import pytest
import torch

from inrflow.dynamics.left_out import blocks_left_out, transitions_in
from inrflow.dynamics.states import CodeData
from inrflow.dynamics.transitions import transitions_of


def numbered(frames, trajectories=1):
    """Codes that are the numbers of their frames, so that every transition tells where it is from."""
    t = torch.arange(float(frames)).double().expand(trajectories, frames).clone()
    return CodeData(t[..., None].clone(), t, torch.ones(trajectories, frames, dtype=torch.bool))


@pytest.mark.parametrize("frames", [3, 4, 5, 8, 20, 43, 80, 200])
def test_no_transition_that_is_fitted_touches_what_is_judged(frames):
    folds = blocks_left_out(numbered(frames), 1)
    assert folds
    for fold in folds:
        judged = set(range(fold.first + 1, fold.judged.codes.shape[1]))
        assert judged and len(judged) <= 2
        pairs = transitions_of(fold.fitted.codes, fold.fitted.t, fold.fitted.observed)
        assert len(pairs.start) >= 1
        for start, end in zip(pairs.start[:, 0].tolist(), pairs.end[:, 0].tolist(), strict=True):
            assert end == start + 1 and not {start, end} & judged
        assert len(pairs.start) >= frames - 1 - len(judged) - 1


def test_blocks_cover_a_trajectory_to_its_end_and_nearly_all_of_it_teaches():
    folds = blocks_left_out(numbered(80), 1)
    assert len(folds) == 20
    assert folds[-1].judged.codes.shape[1] == 80 and folds[0].first < 10
    assert all(transitions_in(fold.fitted) >= 76 for fold in folds)


def test_two_frames_leave_nothing_out():
    assert blocks_left_out(numbered(2), 1) == []


def test_copies_teach_and_the_originals_judge():
    for fold in blocks_left_out(numbered(30, 5), 2):
        assert len(fold.judged.codes) == 2
        assert transitions_in(fold.fitted) in (5 * 26, 5 * 27)  # two or three are left out of each


def test_many_trajectories_need_fewer_folds():
    assert len(blocks_left_out(numbered(41, 250), 250)) == 20
    assert len(blocks_left_out(numbered(41, 500), 500)) == 10
    assert len(blocks_left_out(numbered(41, 5000), 5000)) == 4
