"""Folds of a single trajectory: frames left out, everything else fitted to, nothing of what is left out seen."""

import pytest
import torch

from inrflow.dynamics.fitting.folds import folds_of
from inrflow.dynamics.fitting.linear import transitions_of
from inrflow.encoding.encode import CodeData


def numbered(frames, trajectories=1):
    """Codes that are the numbers of their frames, so that every transition tells where it is from."""
    t = torch.arange(float(frames)).double().expand(trajectories, frames).clone()
    return CodeData(t[..., None].clone(), t, torch.ones(trajectories, frames, dtype=torch.bool))


@pytest.mark.parametrize("frames", [3, 4, 5, 8, 20, 43, 80, 200])
def test_no_transition_that_is_fitted_touches_the_frame_left_out(frames):
    folds = folds_of(numbered(frames), 1)
    assert folds
    for fold in folds:
        left_out = fold.first + 1
        pairs = transitions_of(fold.training)
        assert len(pairs.start) == frames - 1 - (1 if left_out == frames - 1 else 2)
        for start, end in zip(pairs.start[:, 0].tolist(), pairs.end[:, 0].tolist(), strict=True):
            assert end == start + 1 and left_out not in (start, end)


def test_frames_left_out_are_spread_to_the_end_and_forecasts_go_on():
    folds = folds_of(numbered(80), 1)
    assert len(folds) == 24
    assert folds[0].first < 10 and folds[-1].first == 78
    assert [fold.validation.codes.shape[1] - fold.first - 2 for fold in (folds[0], folds[-1])] == [32, 0]
    assert folds[-1].validation.codes.shape[1] == 80


def test_two_frames_leave_nothing_out():
    assert folds_of(numbered(2), 1) == []


def test_copies_teach_and_the_originals_judge():
    for fold in folds_of(numbered(30, 5), 2):
        assert len(fold.validation.codes) == 2
        assert fold.training.transitions in (5 * 27, 5 * 28)  # one or two are left out of each


def test_many_trajectories_need_fewer_folds():
    assert len(folds_of(numbered(41, 250), 250)) == 24
    assert len(folds_of(numbered(41, 500), 500)) == 12
    assert len(folds_of(numbered(41, 5000), 5000)) == 4


def test_few_copies_are_fitted_to_in_folds():
    folds = folds_of(numbered(65, 200), 1)
    assert folds[0].training.transitions == (1024 // 65) * 62
    assert folds_of(numbered(65, 200), 1, uniform=False)[0].training.transitions == (512 // 65) * 62
