"""The engine's training losses with its SIREN on the Triton backend (interpreted without a GPU) and on torch."""

from functools import partial

import numpy as np
import pytest
import torch
from inrflow_kernels import modulated_siren, operators, siren_features

from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.source import TrajectorySource
from inrflow.data.transformations import Augmentation
from inrflow.decoders import siren
from inrflow.decoders.embeddings import PeriodicEmbedding
from inrflow.training.parts.trunk import DecoderTraining
from inrflow.training.recipes.auto_decoding import AutoDecoderTraining

STEPS = 4
WAVES = Description("waves", ("u",), ("x",), period=(1.0,))


@pytest.fixture
def source(tmp_path) -> TrajectorySource:
    """Travelling waves of two amplitudes at random points of a periodic line."""
    x = np.random.default_rng(0).random((30, 1))
    t = np.arange(2) * 0.1
    u = np.stack([a * np.sin(2 * np.pi * (x[:, 0] - t[:, None])) + 0.3 * a**2 for a in (0.5, 1.5)])[..., None]
    path = tmp_path / "waves.h5"
    write_trajectories(path, t, x, u.astype(np.float32), WAVES)
    source = TrajectorySource(TrajectoryFile(path))
    source.fit_normalisation(np.arange(2))
    return source


def decoder(*modulation: str) -> siren.ModulatedSiren:
    torch.manual_seed(0)
    embedding = PeriodicEmbedding([0.0], [1.0], [1.0], 2, 0)
    return siren.ModulatedSiren(embedding, 1, 3, width=32, w0=2.0, modulation=modulation)


def losses(module, loss) -> torch.Tensor:
    """Losses of a few Adam steps."""
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    random = np.random.default_rng(0)
    found = []
    for step in range(STEPS):
        optimiser.zero_grad()
        value = loss(module, step, STEPS, random)
        value.backward()
        optimiser.step()
        found.append(value.detach())
    return torch.stack(found)


@pytest.mark.parametrize("stage", ["decoder", "table"])
def test_training_loses_the_same_on_triton_and_on_torch(stage, source, monkeypatch):
    pytest.importorskip("triton")

    def refuse(reason):
        raise AssertionError(f"fell back: {reason}")

    monkeypatch.setattr("inrflow_kernels.dispatch.log_once", refuse)
    monkeypatch.setattr(operators, "log_once", refuse)
    training, found = np.arange(2), {}
    for backend in ("triton", "torch"):
        options = dict(backend=backend, precision="fast")
        monkeypatch.setattr(siren, "siren_features", partial(siren_features, **options))
        monkeypatch.setattr(siren, "modulated_siren", partial(modulated_siren, **options))
        if stage == "decoder":
            augmentation = Augmentation(WAVES.symmetries, np.ones(1), (1.0,))
            module = decoder("output")
            found[backend] = losses(module, DecoderTraining(source, training, training[:0], augmentation).loss)
        else:
            table = AutoDecoderTraining(source, training, training[:0])
            found[backend] = losses(table.make(decoder("shift", "scale"), "adam"), table.loss)
    assert not torch.equal(found["triton"], found["torch"])
    torch.testing.assert_close(found["triton"], found["torch"], rtol=5e-3, atol=1e-5)
