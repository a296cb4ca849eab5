"""Decoders in float64 and values that they made."""

import torch
from torch import Tensor

from inrflow.decoders.embeddings import Embedding
from inrflow.decoders.filter_net import FourierFilterNet
from inrflow.decoders.siren import ModulatedSiren
from inrflow.encoding.posterior import GaussianPrior

SIZE = 4


def siren(*modulation: str) -> ModulatedSiren:
    torch.manual_seed(0)
    return ModulatedSiren(Embedding([0, 0], [1, 1]), 2, SIZE, width=16, w0=4.0, modulation=modulation).double()


def filter_net() -> FourierFilterNet:
    torch.manual_seed(0)
    return FourierFilterNet(Embedding([0, 0], [1, 1]), 2, SIZE, width=16, scale=20.0).double()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prior(noise: float = 1e-4) -> GaussianPrior:
    root = 0.5 * normal(SIZE, SIZE, seed=7) + 2 * torch.eye(SIZE, dtype=torch.float64)
    return GaussianPrior(0.1 * normal(SIZE, seed=6), root @ root.T / 4, torch.tensor([noise, 4 * noise]).double())


def with_gaps(u: Tensor, share: float = 0.3) -> Tensor:
    """Some values taken away at random."""
    gone = torch.rand(u.shape, generator=torch.Generator().manual_seed(3)) < share
    return torch.where(gone, float("nan"), u)
