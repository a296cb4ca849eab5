"""The decoder of a run on the fixed points of a mesh: smooth between them, exact at them, the same once saved."""

import numpy as np
import pytest
import torch
from runs import trained_on

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.observations import Observations
from inrflow.decoders.rbf_features import RadialFeatures
from inrflow.model.surrogate import Surrogate

FRAMES = 30


def waves(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Two travelling waves, more than a small network of a few steps can show; (T, N, 1)."""
    phase = 5 * x[:, 0] + 3 * x[:, 1] - t[:, None]
    return (np.sin(phase) + 0.3 * np.cos(2 * phase))[..., None].astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mesh")
    x, t = np.random.default_rng(0).random((300, 2)), 0.4 * np.arange(FRAMES)
    path = folder / "mesh.h5"
    write_trajectories(path, t, x, waves(x, t)[None], Description("waves", ("u",), ("x", "y")))
    settings = ["training.steps.decoder=40", "decoder.width=16", "decoder.depth=2",
                "training.optimiser=adamw", "dynamics.depth=0", "training.minutes=0.1"]
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
