"""Decoders trained with tables of codes or through gradient steps, on files with gaps and points of all layouts."""

import numpy as np
import pytest
import torch

from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import Decoder
from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.decoders.siren import ModulatedSiren
from inrflow.training.loop import OptimiserSettings, Stage
from inrflow.training.parts.trunk import split_points
from inrflow.training.recipes import auto_decoding
from inrflow.training.recipes.auto_decoding import METHODS, AutoDecoder, AutoDecoderTraining

S, T, N = 4, 5, 40
LAYOUTS = {"shared": (N,), "own": (S, N), "moving": (S, T, N)}


@pytest.fixture
def training(tmp_path, request) -> AutoDecoderTraining:
    """Two waves of random amplitude and phase, a fifth of the values and one whole frame missing."""
    random = np.random.default_rng(0)
    x = random.random((*LAYOUTS[getattr(request, "param", "shared")], 2))
    at = np.broadcast_to(x.reshape((1,) * (4 - x.ndim) + x.shape) if x.ndim != 3 else x[:, None], (S, T, N, 2))
    t = np.arange(T) * 0.2
    amplitude, phase = random.normal(size=(2, S, 1, 1)), 6 * random.random((2, S, 1, 1))
    angle = 3 * at[..., 0] + t[:, None]
    u = np.stack([amplitude[0] * np.sin(angle + phase[0]), amplitude[1] * np.cos(angle + at[..., 1] + phase[1])], -1)
    u[random.random(u.shape) < 0.2] = np.nan
    u[1, 2] = np.nan
    path = tmp_path / "waves.h5"
    write_trajectories(path, t, x, u.astype(np.float32), Description("waves", ("a", "b"), ("x", "y")))
    source = TrajectorySource(TrajectoryFile(path))
    source.fit_normalisation(np.arange(3))
    return AutoDecoderTraining(source, np.arange(3), np.arange(3, 4))


def siren(*modulation: str) -> ModulatedSiren:
    torch.manual_seed(0)
    return ModulatedSiren(Embedding([0, 0], [1, 1]), 2, 4, width=24, w0=3.0, modulation=modulation)


def filter_net() -> FourierFilterNet:
    torch.manual_seed(0)
    return FourierFilterNet(Embedding([0, 0], [1, 1]), 2, 8, width=16, scale=16.0)


def train(training: AutoDecoderTraining, module: AutoDecoder, steps: int, rate: float = 1e-2) -> list[float]:
    stage = Stage("table", module, training.loss, training.score, optimiser=OptimiserSettings("adamw", rate))
    optimiser = stage.make_optimiser(module)
    return [stage.advance(module, optimiser, step, steps) for step in range(steps)]


@pytest.mark.parametrize("training", LAYOUTS, indirect=True)
@pytest.mark.parametrize(
    ("method", "make", "steps", "share"),
    [("adam", filter_net, 150, 0.4), ("gauss_newton", lambda: siren("shift"), 40, 0.4),
     ("gradient_steps", lambda: siren("shift", "output"), 80, 0.6)],
    ids=METHODS,
)
def test_training_lowers_the_loss_and_the_error_of_unseen_trajectories(training, method, make, steps, share):
    module = training.make(make(), method, **({"inner_rate": 0.5} if method == "gradient_steps" else {}))
    before = training.score(module)
    losses = train(training, module, steps)
    assert np.mean(losses[-5:]) < share * np.mean(losses[:3])
    assert training.score(module) < before
    codes = training.codes(module)
    assert codes.shape == (3, T, module.decoder.code_size) and not codes.requires_grad
    assert bool((codes[1, 2] == 0).all())  # never observed, so never moved
    assert bool((codes[0] != 0).any(-1).all())


def ridge_codes(decoder: Decoder, training: AutoDecoderTraining, ridge: float) -> torch.Tensor:
    batch = training.source.batch(training.training)
    offset, basis = (v.double() for v in decoder.basis(batch.x[0, 0].float()))
    codes = torch.zeros(3, T, decoder.code_size, dtype=torch.float64)
    for s in range(3):
        for t in range(T):
            rows = torch.isfinite(batch.u[s, t]).flatten()
            if rows.any():
                design, target = basis.flatten(0, 1)[rows], (batch.u[s, t].double() - offset).flatten()[rows]
                gram = design.T @ design / len(design) + ridge * torch.eye(decoder.code_size, dtype=torch.float64)
                codes[s, t] = torch.linalg.solve(gram, design.T @ target / len(design))
    return codes


@torch.no_grad()
def test_gauss_newton_rows_converge_to_the_ridge_codes_of_an_affine_decoder(training, monkeypatch):
    decoder = siren("output")
    module = training.make(decoder, "gauss_newton")
    monkeypatch.setattr(auto_decoding, "split_points", lambda points: (torch.arange(points), torch.arange(0)))
    random = np.random.default_rng(0)
    for step in range(12):
        training.loss(module, step, 12, random)
    expected = ridge_codes(decoder, training, 1e-3)
    torch.testing.assert_close(training.codes(module).double(), expected, rtol=0, atol=1e-3)


def test_codes_of_a_table_move_at_their_own_rate(training):
    module = training.make(filter_net(), "adam", code_rate=0.1)
    start = module.decoder.output.detach().clone()
    train(training, module, 1)
    moved = training.codes(module).abs().max() / (module.decoder.output.detach() - start).abs().max()
    assert float(moved) == pytest.approx(0.1, rel=0.01)


def test_gradients_of_the_inner_steps_are_of_second_order(training):
    module = training.make(siren("shift"), "gradient_steps", inner_rate=0.5)
    weight = module.decoder.shift_map
    (slope,) = torch.autograd.grad(training.loss(module, 0, 1, np.random.default_rng(1)), weight)
    index, step = (0, 1, 2), 1e-2
    with torch.no_grad():
        weight[index] += step
        above = float(training.loss(module, 0, 1, np.random.default_rng(1)).detach())
        weight[index] -= 2 * step
        below = float(training.loss(module, 0, 1, np.random.default_rng(1)).detach())
    assert float(slope[index]) == pytest.approx((above - below) / (2 * step), rel=0.05, abs=1e-4)


def test_the_table_is_part_of_the_checkpoint_and_a_run_repeats(training):
    results = []
    for _ in range(2):
        module = training.make(siren("shift"), "gauss_newton")
        train(training, module, 3)
        results.append(module.state_dict())
    assert all(torch.equal(results[0][k], v) for k, v in results[1].items())
    assert {"table", "damping"} <= set(results[0])


def test_the_prior_describes_codes_and_what_they_leave(training, monkeypatch):
    module = training.make(siren("output"), "gauss_newton")
    monkeypatch.setattr(auto_decoding, "split_points", lambda points: (torch.arange(points), torch.arange(0)))
    train(training, module, 30)
    prior = training.prior(module)
    codes = training.codes(module)
    seen = torch.ones(3, T, dtype=torch.bool)
    seen[1, 2] = False
    torch.testing.assert_close(prior.mean, codes[seen].double().mean(0))
    torch.testing.assert_close(prior.covariance.diagonal(), codes[seen].double().var(0), rtol=0.01, atol=1e-3)
    torch.linalg.cholesky(prior.covariance)
    batch = training.source.batch(training.training)
    with torch.no_grad():
        error = (module.decoder(batch.x[0, 0].float(), codes[seen]) - batch.u[seen]).square()
    torch.testing.assert_close(prior.noise.float(), error.flatten(0, 1).nanmean(0), rtol=1e-4, atol=1e-8)


def test_unknown_methods_are_refused(training):
    with pytest.raises(ValueError, match="expected one of"):
        training.make(siren("shift"), "descent")


def test_held_out_points_stay_the_same_when_batches_are_padded():
    kept, held = split_points(50)
    assert set(kept.tolist()) | set(held.tolist()) == set(range(50)) and len(held)
    assert torch.equal(split_points(80)[1][: len(held)], held)
