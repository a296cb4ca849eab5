"""The decoder of a run on the fixed points of a mesh: smooth between them, exact at them, the same once saved."""

import numpy as np
import pytest
import torch
from runs import trained_on

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.observations import Observations
from inrflow.decoders.harmonics import HarmonicDecoder
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.model.surrogate import Surrogate
from inrflow.training import recorder

FRAMES = 30


def waves(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Two travelling waves; (T, N, 1)."""
    phase = 5 * x[:, 0] + 3 * x[:, 1] - t[:, None]
    return (np.sin(phase) + 0.3 * np.cos(2 * phase))[..., None].astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mesh")
    x, t = np.random.default_rng(0).random((300, 2)), 0.4 * np.arange(FRAMES)
    path = folder / "mesh.h5"
    write_trajectories(path, t, x, waves(x, t)[None], Description("waves", ("u",), ("x", "y")))
    settings = ["training.steps.decoder=40", "training.optimiser=adamw", "dynamics.depth=0", "training.minutes=0.1"]
    return folder, x, t, trained_on(path, folder, *settings)


def test_values_at_the_points_are_met_and_forecast(run):
    _, x, t, surrogate = run
    assert isinstance(surrogate.decoder.embedding, RadialFeatures)
    assert float(surrogate.prior.noise.max()) < 1e-6
    solution = surrogate.assimilate(Observations(t[:20], x, waves(x, t)[:20]))
    error = np.square(solution.frames(t[20:], x) - waves(x, t)[20:]).mean()
    assert error < 1e-4


def test_the_saved_model_decodes_the_same(run):
    folder, _, _, surrogate = run
    surrogate.save(folder)
    loaded = Surrogate.load(folder)
    points = torch.rand(50, 2, generator=torch.Generator().manual_seed(1))
    codes = torch.randn(2, surrogate.code_size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(loaded.decoder(points, codes), surrogate.decoder(points, codes), rtol=0, atol=1e-6)


def test_components_at_shared_points_are_taken_without_a_trunk_where_they_suffice_between(tmp_path):
    random, t = np.random.default_rng(3), 0.2 * np.arange(12)
    x = random.random((200, 2))
    phases = random.random((8, 3)) * 6
    u = np.stack([sum(np.sin(3 * x @ d + p - t[:, None]) for d, p in zip(np.eye(3, 2) + 0.3, one, strict=True))
                  for one in phases])[..., None].astype(np.float32)
    write_trajectories(tmp_path / "shared.h5", t, x, u, Description("shared", ("u",), ("x", "y")))
    surrogate = trained_on(tmp_path / "shared.h5", tmp_path, "recipe=reduced_order", "training.minutes=0.1")
    assert isinstance(surrogate.decoder, HarmonicDecoder)
    solution = surrogate.assimilate(Observations(t[:1], x, u[0, :1]))
    assert np.square(solution.frames(t[1:], x) - u[0, 1:]).mean() < 1e-9
    between = random.random((50, 2)) * 0.8 + 0.1
    truth = sum(np.sin(3 * between @ d + p - t[5]) for d, p in zip(np.eye(3, 2) + 0.3, phases[0], strict=True))
    missed = solution.frames(t[5:6], between)[0, :, 0] - truth
    assert np.square(missed).mean() < 1e-2
    assert np.sqrt(np.square(missed / solution.std(t[5:6], between)[0, :, 0]).mean()) < 3


def test_points_of_their_own_are_given_a_model_however_late(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "_START", -1e9)  # all of the time is gone
    random, t = np.random.default_rng(4), 0.2 * np.arange(8)
    x = random.random((6, 120, 2))
    u = np.stack([(np.sin(3 * one @ [1, 0.5] - t[:, None]) + s)[..., None] for s, one in enumerate(x)])
    write_trajectories(tmp_path / "own.h5", t, x, u.astype(np.float32), Description("own", ("u",), ("x", "y")))
    surrogate = trained_on(tmp_path / "own.h5", tmp_path, "recipe=reduced_order", "training.minutes=0.05")
    solution = surrogate.assimilate(Observations(t[:1], x[0], u[0, :1]))
    assert np.square(solution.frames(t[:1], x[0]) - u[0, :1]).mean() < 0.1 * u.var()
