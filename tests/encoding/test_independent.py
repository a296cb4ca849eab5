"""Encoding of many independent codes, against the dense posterior."""

import numpy as np
import pytest
import torch

from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.domains import Box
from inrflow.encoding import independent
from inrflow.encoding.posterior import GaussianPrior, condition_groups

BOX = Box([0.0, 0.0], [1.0, 1.0], ["periodic", "periodic"])
GRID = np.stack(np.meshgrid(*2 * [np.arange(12) / 12], indexing="ij"), -1).reshape(-1, 2)
SCATTERED = np.random.default_rng(3).uniform(size=(300, 2))


@pytest.mark.parametrize("direct", [1536, 0])
@pytest.mark.parametrize(("points", "share"), [(GRID, 1.0), (GRID, 0.3), (SCATTERED, 1.0)])
def test_codes_are_those_of_the_dense_posterior(monkeypatch, points, share, direct):
    monkeypatch.setattr(independent, "_DIRECT", direct)
    decoder = DomainHarmonicDecoder(BOX.state(), "natural", 60, 2).double()
    torch.manual_seed(0)
    variance = 1 / (1 + torch.tensor(decoder.harmonics.eigenvalues) / 40).repeat(2) ** 2
    mean, noise = 0.1 * torch.randn(decoder.code_size).double(), torch.tensor([1e-3, 1e-2]).double()
    x = torch.tensor(points)[None]
    u = torch.randn(1, 3, len(points), 2).double()
    u[:, 1:][torch.rand(1, 2, len(points), 2) > share] = torch.nan
    codes = independent.solve_independent(decoder, x, u, GaussianPrior(mean, variance, noise))
    offset, basis = decoder.basis(x)
    expected, _ = condition_groups(offset.detach(), basis, u, GaussianPrior(mean, variance.diag(), noise))
    torch.testing.assert_close(codes, expected, rtol=1e-6, atol=1e-6)
