"""A decoder of a user's own module: trained by name, saved, loaded; refused by name where it is not registered."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories
from inrflow.data.observations import Observations
from inrflow.decoders import base
from inrflow.decoders.base import AffineDecoder, register_decoder
from inrflow.decoders.embeddings import Embedding
from inrflow.errors import UserError
from inrflow.model.surrogate import Surrogate


class Waves(AffineDecoder):
    """Sines of trained frequencies."""

    def __init__(self, embedding: Embedding, channels: int, code_size: int, waves: int = 24) -> None:
        super().__init__()
        self.embedding, self.channels, self.code_size, self.waves = embedding, channels, code_size, waves
        self.frequencies = nn.Parameter(4 * torch.randn(waves, embedding.inputs))
        self.draw_output(1 + 2 * waves)

    def structure(self) -> dict:
        return {"embedding": self.embedding, "channels": self.channels, "code_size": self.code_size,
                "waves": self.waves}

    def features(self, x: Tensor) -> Tensor:
        angle = self.embedding(x) @ self.frequencies.T
        return torch.cat([torch.ones_like(x[..., :1]), angle.cos(), angle.sin()], -1)


def waves(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Two travelling waves (T, N, 1)."""
    phase = 5 * x[:, 0] + 3 * x[:, 1] - t[:, None]
    return (np.sin(phase) + 0.3 * np.cos(2 * phase))[..., None].astype(np.float32)


@pytest.mark.usefixtures("unreported")
def test_a_decoder_of_ones_own_is_trained_saved_and_loaded(elsewhere, inrflow_command, monkeypatch):
    monkeypatch.setattr(base, "_CLASSES", dict(base._CLASSES))  # other tests run over all that are registered
    register_decoder("test_waves")(Waves)
    x, t = np.random.default_rng(0).random((200, 2)), 0.4 * np.arange(24)
    write_trajectories(elsewhere / "waves.h5", t, x, waves(x, t)[None], Description("waves", ("u",), ("x", "y")))
    outcome = inrflow_command(
        "train", "data.train=waves.h5", "output=run", "decoder.name=test_waves", "training.steps.decoder=30",
        "training.optimiser=adamw", "dynamics.depth=0", "training.minutes=0.02", "data.frames=20",
    )
    assert outcome.code == 0, outcome.err
    loaded = Surrogate.load(elsewhere / "run")
    assert isinstance(loaded.decoder, Waves)
    solution = loaded.assimilate(Observations(t[:5], x, waves(x, t)[:5]))
    error = np.square(solution.frames(t[5:20], x) - waves(x, t)[5:20]).mean()
    assert error < 1e-2
    monkeypatch.delitem(base._CLASSES, "test_waves")
    with pytest.raises(UserError, match="'test_waves'.*import the module"):
        Surrogate.load(elsewhere / "run")
    with pytest.raises(UserError, match="Waves is not registered"):
        loaded.save(elsewhere / "again")
