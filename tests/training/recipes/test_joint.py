"""DINo's joint training against its definition: one decoder evaluation of everything, a rollout written out by hand."""

import numpy as np
import pytest
import torch

from inrflow.data.batch import TimeScale
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.dynamics.fields.sum import VectorField
from inrflow.training.loop import OptimiserSettings
from inrflow.training.recipes import joint as dino_stage
from inrflow.training.recipes.joint import JointModule, JointStage, JointTraining, teacher_forcing

S, T, GRID = 5, 4, 6


def field_values(x: np.ndarray, phase: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Travelling waves of period 1: (S, T, N, 2) at x (N, 2)."""
    angle = 2 * np.pi * (x[:, 0] + x[:, 1])[None, None] + phase[:, None, None] + t[None, :, None]
    return np.stack([np.sin(angle), np.cos(2 * angle)], -1)


@pytest.fixture
def source(tmp_path) -> TrajectorySource:
    axis = np.arange(GRID) / GRID
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    u = field_values(x, np.random.default_rng(0).random(S) * 6, np.arange(T) * 0.3)
    u[1, 2, :5, 0] = np.nan
    period = (1.0, 1.0)
    description = Description("waves", ("a", "b"), ("x", "y"), period=period)
    write_trajectories(tmp_path / "waves.h5", np.arange(T) * 0.3, x, u.astype(np.float32), description)
    source = TrajectorySource(TrajectoryFile(tmp_path / "waves.h5"))
    source.fit_normalisation(np.arange(S))
    return source


def joint(source: TrajectorySource, batch: int = 3) -> tuple[JointTraining, JointModule]:
    torch.manual_seed(0)
    training = JointTraining(source, np.arange(S), TimeScale.of(source.times), batch)
    decoder = FourierFilterNet(Embedding([0, 0], [1, 1]), 2, 8, width=12, scale=16.0)
    field = VectorField.of(8, linear=False, width=10, depth=2, swish=True)
    module = JointModule(decoder, field, S, T)
    for row in module.table:
        torch.nn.init.normal_(row, std=0.3)
    return training, module


def test_gradients_are_those_of_the_whole_batch_decoded_at_once(source, monkeypatch):
    training, module = joint(source)
    rows = np.array([0, 1, 4])
    batch = training.source.batch(training.trajectories[rows])
    monkeypatch.setattr(dino_stage, "_PAIRS", 1)  # trajectory by trajectory
    error = training.decoded_error(module, batch, rows, int(torch.isfinite(batch.u).sum()))
    parameters = [*module.decoder.parameters(), *(module.table[row] for row in rows)]
    found = [p.grad for p in parameters]
    decoded = module.decoder(batch.x.float(), torch.stack([module.table[row] for row in rows]))
    loss = (decoded - batch.u)[torch.isfinite(batch.u)].square().mean()
    assert error == pytest.approx(float(loss.detach()), rel=1e-5)
    for gradient, expected in zip(found, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
    assert module.table[2].grad is None and module.table[3].grad is None


@pytest.mark.parametrize(("draws", "restarts"), [(0.0, True), (1.0, False)], ids=["forced", "free"])
def test_rollouts_start_again_from_the_codes_where_they_are_forced(source, draws, restarts):
    training, module = joint(source)
    rows = np.array([0, 2])

    class Draws:
        def random(self, count):
            return np.full(count, draws)

    batch = training.source.batch(training.trajectories[rows])
    error = training.rollout_error(module, batch, rows, 0, Draws(), int(batch.observed.sum()))
    codes, total, count = module.codes()[rows], 0.0, 0
    state = codes[:, 0]
    for frame in range(T - 1):
        start, f = (codes[:, frame] if restarts else state), lambda y: module.field(torch.zeros(()), y)
        with torch.no_grad():  # one step of the 3/8 rule
            k1 = f(start)
            k2 = f(start + k1 / 3)
            k3 = f(start + k2 - k1 / 3)
            k4 = f(start + k1 - k2 + k3)
            state = start + (k1 + 3 * (k2 + k3) + k4) / 8
        total += float((state - codes[:, frame + 1]).square().sum())
        count = codes.numel()
    assert error == pytest.approx(total / count, rel=1e-4)
    assert all(row.grad is None for row in module.table)  # codes do not follow the field
    assert all(p.grad is not None for p in module.field.parameters())


def test_teacher_forcing_falls_by_a_hundredth_every_hundred_iterations():
    assert teacher_forcing(0) == teacher_forcing(99) == pytest.approx(0.99)
    assert teacher_forcing(100) == pytest.approx(0.99**2) and teacher_forcing(12_345) == pytest.approx(0.99**124)


def test_a_pass_visits_every_row_once(source):
    training, _ = joint(source, batch=2)
    visited = np.concatenate([training.rows_of(step) for step in range(3)])
    assert sorted(visited) == list(range(S))
    assert max(len(training.rows_of(step)) for step in range(3)) == 2


def test_rates_are_those_of_decoder_and_codes_and_absent_rows_rest(source):
    training, module = joint(source)
    stage = JointStage("joint", module, None, optimiser=OptimiserSettings("adam", 1e-2), training=training)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    stage.advance(module, stage.make_optimiser(module), 0, 10)
    moved = {k: float((v - before[k]).abs().max()) for k, v in module.state_dict().items()}
    assert moved["decoder.output"] == pytest.approx(1e-2, rel=0.01)
    assert max(v for k, v in moved.items() if k.startswith("field")) == pytest.approx(1e-3, rel=0.01)
    inside = set(training.rows_of(0).tolist())
    for row in range(S):
        assert moved[f"table.{row}"] == (pytest.approx(1e-3, rel=0.01) if row in inside else 0.0)


def test_training_lowers_both_errors(source):
    training, module = joint(source, batch=S)
    stage = JointStage("joint", module, None, optimiser=OptimiserSettings("adam", 1e-2), training=training)
    optimiser, random = stage.make_optimiser(module), np.random.default_rng(0)
    first = training.accumulate(module, 0, random)
    for step in range(80):
        stage.advance(module, optimiser, step, 80)
    last = training.accumulate(module, 0, np.random.default_rng(0))
    assert last[0] < 0.8 * first[0] and last[1] < 0.8 * first[1]
