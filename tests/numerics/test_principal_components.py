"""Standardised coordinates against numpy."""

import numpy as np
import torch

from inrflow.numerics.principal_components import standardised

ROWS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ torch.tensor(
    [[2.0, 0.3, 0.0], [0.0, 0.5, 1.0], [0.1, 0.0, 0.2]], dtype=torch.float64
)


def test_standardised_rows_have_mean_zero_and_covariance_one_and_come_back():
    white, mean, factor = standardised(ROWS)
    np.testing.assert_allclose(white.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cov(white.T.numpy(), bias=True), np.eye(3), atol=1e-10)
    torch.testing.assert_close(mean + white @ factor.T, ROWS)
    torch.testing.assert_close(factor @ factor.T, torch.as_tensor(np.cov(ROWS.T.numpy(), bias=True)))


def test_a_direction_that_no_row_moves_along_does_not_blow_up():
    white, _, _ = standardised(torch.cat([ROWS, ROWS[:, :1]], 1))
    assert bool(torch.isfinite(white).all())
