"""Declared symmetries against data: fields that all travel to the right may be shifted, but not mirrored."""

import numpy as np
import pytest
from runs import run_on

from inrflow.data.description import Description, Symmetries
from inrflow.data.formats.writing import write_trajectories
from inrflow.training.parts.codes import TrainingCodes
from inrflow.training.parts.decoder import fit_decoder
from inrflow.training.parts.linear import check_symmetries, is_invalid

POINTS, FRAMES, TRAJECTORIES = 16, 6, 8


@pytest.fixture
def checked(tmp_path):
    """Gives the symmetries that are kept of travelling waves for which translation and reflection are claimed."""
    random = np.random.default_rng(0)
    x, t = np.arange(POINTS)[:, None] / POINTS, np.linspace(0, 0.5, FRAMES)
    waves = np.array([1, 2])
    amplitude, phase = random.normal(size=(TRAJECTORIES, 1, 1, 2)), 6 * random.random((TRAJECTORIES, 1, 1, 2))
    angle = 2 * np.pi * waves * (x[None, None] - t[None, :, None, None]) + phase
    u = (amplitude * np.sin(angle)).sum(-1, keepdims=True).astype(np.float32)
    plain = Description("waves", ("u",), ("x",), period=(1.0,))
    claimed = Symmetries.by_name(["translation", "reflection"], plain, np.array([[0.0], [1.0]]))
    description = Description("waves", ("u",), ("x",), period=(1.0,), symmetries=claimed)
    write_trajectories(tmp_path / "train.h5", t, x, u, description)
    settings = ["decoder.harmonics=2", "training.minutes=0.05", "training.steps.mode_trajectories=4",
                "training.steps.check_copies=2"]

    def check() -> tuple[str, ...]:
        with run_on(tmp_path / "train.h5", tmp_path, *settings) as run:
            assert len(run.problem.symmetries) == 2
            fitted = fit_decoder(run)
            return check_symmetries(run, TrainingCodes(run, fitted.decoder, fitted.modes.prior()), fitted.modes).names

    return check


def test_a_wrong_symmetry_is_dropped_and_a_right_one_kept(checked):
    assert checked() == ("translation_x",)


@pytest.mark.parametrize(("kept", "left_out", "expected"), [
    (1.0, 0.1, True), (1.0, 0.9, False), (float("inf"), 0.1, False), (1.0, float("nan"), False),
    (float("inf"), float("inf"), False), (0.1, float("inf"), False),
])
def test_only_finite_errors_speak_against_a_symmetry(kept, left_out, expected):
    assert is_invalid(kept, left_out) is expected
