"""Rows that each have a time and place of their own, trained on through the command line."""

import json

import numpy as np

from inrflow.data.description import Description
from inrflow.data.symmetries import Symmetries
from inrflow.data.writing import write_scattered, write_trajectories

TRAJECTORIES, ROWS, SPEED = 8, 400, 1.0
WAVES = np.array([1.0, 2.0])


def field(n: int, t: np.ndarray, x: np.ndarray, seed: int) -> np.ndarray:
    """Two travelling waves of random amplitude and phase, and their time derivative, (R, 2)."""
    amplitude, phase = np.random.default_rng([seed, n]).normal(size=(2, 2))
    angle = 2 * np.pi * WAVES * (x - SPEED * t[:, None]) + 3 * phase
    values = amplitude / WAVES
    return np.stack([(values * np.sin(angle)).sum(1), -(values * WAVES * np.cos(angle)).sum(1)], 1)


def test_scattered_rows_train_and_beat_persistence(tmp_path, inrflow_command):
    random = np.random.default_rng(0)
    shift = Symmetries(np.array([[[0.0, 1.0]]]), np.zeros((1, 2, 2)), np.zeros((0, 1, 2)), np.zeros((0, 2, 2)))
    description = Description("waves", ("u", "v"), ("x",), period=(1.0,), symmetries=shift)
    t, x = random.random(TRAJECTORIES * ROWS), random.random((TRAJECTORIES * ROWS, 1))
    number = np.repeat(np.arange(TRAJECTORIES), ROWS)
    u = np.concatenate([field(n, t[number == n], x[number == n], 0) for n in range(TRAJECTORIES)])
    train, test = tmp_path / "train.h5", tmp_path / "test.h5"
    write_scattered(train, number, t, x, u.astype(np.float32), description)
    times, points = np.linspace(0, 1.5, 8), np.arange(16)[:, None] / 16
    frames = np.stack([[field(n, np.full(16, time), points, 1) for time in times] for n in range(3)])
    write_trajectories(test, times, points, frames.astype(np.float32), description)
    outcome = inrflow_command(
        "train", f"data.train={train}", f"data.test={test}", f"output={tmp_path / 'run'}", "training.minutes=0.05",
        "decoder.harmonics=3", "dynamics.depth=0", "dynamics.memory=0")
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert report["nmse"]["all"] < 0.05 * report["references"]["persistence"]["nmse"]["all"]
