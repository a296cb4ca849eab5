"""Variances of codes from further frames, against the true covariance that made the frames."""

import torch
from torch import Tensor

from inrflow.encoding.prior.modes import OutputModes, fit_output_modes, refit_variances

FEATURES, POINTS, NOISE = 12, 40, 1e-3


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def features(x: Tensor) -> Tensor:
    """Orthonormal over the points 0 .. POINTS - 1: the constant and a discrete cosine basis."""
    k = torch.arange(FEATURES, dtype=torch.float64)
    psi = torch.cos(torch.pi * (x.double() + 0.5) * k / POINTS)
    return psi * torch.where(k > 0, 2**0.5, 1.0)


GRID = torch.arange(POINTS, dtype=torch.float64)[:, None]
ROOT = torch.diag(torch.logspace(0, -1.5, FEATURES, dtype=torch.float64)) @ torch.linalg.qr(
    normal(FEATURES, FEATURES, seed=1)
)[0]


def frames(count: int, seed: int) -> Tensor:
    """u (count, N, 1): weights of covariance ROOT^T ROOT, and noise."""
    weights = normal(count, FEATURES, seed=seed) @ ROOT
    return (weights @ features(GRID).T + NOISE * normal(count, POINTS, seed=seed + 1))[..., None]


def true_variances(modes: OutputModes) -> Tensor:
    """Of codes along the modes, which are orthonormal in the metric of the features."""
    return (modes.modes[:, 0] @ ROOT.T).square().sum(1)


def test_few_frames_make_the_trailing_variances_too_small_and_further_frames_correct_them():
    modes = fit_output_modes(features, [(GRID, frames(16, seed=2))])
    bias = modes.variances[-3:] / true_variances(modes)[-3:]
    assert float(bias.max()) < 0.4
    corrected = refit_variances(modes, features, [(GRID, frames(2000, seed=5))])
    # The second moment about the mean of 16 frames: a sixteenth above the variance, and its sampling error.
    torch.testing.assert_close(corrected.variances, true_variances(corrected), rtol=0.2, atol=0)
    assert float(corrected.noise.sqrt()) > 0.9 * NOISE


def test_further_frames_with_gaps_say_the_same():
    variances, vectors = torch.linalg.eigh(ROOT.T @ ROOT)
    wrong = 0.1 * variances.flip(0)
    modes = OutputModes(torch.zeros(1, FEATURES).double(), vectors.flip(1).T[:, None], wrong, torch.tensor([1e-5]))
    groups = []
    for seed in range(30):  # 9 of 40 points each, so that a single frame does not determine its code
        u = frames(40, seed=100 + 2 * seed)
        hidden = torch.randperm(POINTS, generator=torch.Generator().manual_seed(seed))[9:]
        u[:, hidden] = torch.nan
        groups.append((GRID, u))
    corrected = refit_variances(modes, features, groups, iterations=20)
    torch.testing.assert_close(corrected.variances, variances.flip(0), rtol=0.35, atol=0)


def test_modes_are_reordered_with_their_variances_and_span_the_same_fields():
    modes = fit_output_modes(features, [(GRID, frames(16, seed=2))])
    corrected = refit_variances(modes, features, [(GRID, frames(50, seed=5))])
    assert bool((corrected.variances.diff() <= 0).all())
    before, after = (m.modes[:, 0].T @ m.modes[:, 0] for m in (modes, corrected))
    torch.testing.assert_close(before, after)


def test_without_further_frames_nothing_changes():
    modes = fit_output_modes(features, [(GRID, frames(16, seed=2))])
    assert refit_variances(modes, features, []) is modes
    empty = torch.full((3, POINTS, 1), float("nan"), dtype=torch.float64)
    assert refit_variances(modes, features, [(GRID, empty)]) is modes
