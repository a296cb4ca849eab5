"""Output modes by expectation maximisation against principal components, with complete and with missing data."""

import math

import pytest
import torch
from torch import Tensor

from inrflow.encoding.posterior import condition
from inrflow.encoding.prior.modes import OutputModes, fit_output_modes

SIZE = 9  # features: constant, and cos and sin of four wavenumbers


def features(x: Tensor) -> Tensor:
    """Fourier features of unequal strength, and one that repeats another."""
    angle = 2 * math.pi * x * torch.arange(1, 5, dtype=x.dtype)
    strength = 0.5 ** torch.arange(4, dtype=x.dtype)
    fourier = math.sqrt(2) * torch.cat([angle.cos() * strength, angle.sin() * strength], -1)
    return torch.cat([torch.ones_like(x), fourier, fourier[:, :1]], -1)


def true_fields(frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights (frames, 2, 9) of two channels with three shared directions of variation, and their mean (2, 9)."""
    fixed = torch.Generator().manual_seed(5)
    directions = torch.linalg.qr(torch.randn(2 * SIZE, 3, generator=fixed, dtype=torch.float64))[0].T
    mean = torch.randn(2, SIZE, generator=fixed, dtype=torch.float64)
    random = torch.Generator().manual_seed(seed)
    amplitude = torch.randn(frames, 3, generator=random, dtype=torch.float64) * torch.tensor([2.0, 1.0, 0.4])
    return mean + (amplitude @ directions).reshape(frames, 2, SIZE), mean


def values(weights: Tensor, x: Tensor, noise: float, seed: int = 1) -> Tensor:
    """u (frames, N, 2) with noise of a standard deviation."""
    angle = 2 * math.pi * x * torch.arange(1, 5, dtype=x.dtype)
    orthonormal = torch.cat([torch.ones_like(x), math.sqrt(2) * angle.cos(), math.sqrt(2) * angle.sin()], -1)
    u = torch.einsum("nf,scf->snc", orthonormal, weights)
    random = torch.Generator().manual_seed(seed)
    return u + noise * torch.randn(u.shape, generator=random, dtype=u.dtype)


GRID = torch.arange(32, dtype=torch.float64)[:, None] / 32


def mode_fields(modes: OutputModes, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N, C) and mode fields (Z, N, C)."""
    psi = features(x)
    return psi @ modes.mean.T, torch.einsum("nf,zcf->znc", psi, modes.modes)


def test_complete_data_give_principal_components():
    weights, _ = true_fields(200)
    u = values(weights, GRID, noise=1e-3)
    modes = fit_output_modes(features, [(GRID, u)])
    mean, fields = mode_fields(modes, GRID)
    torch.testing.assert_close(mean, u.mean(0), rtol=0, atol=2e-3)  # PCA sees the noise outside the features too
    anomaly = (u - u.mean(0)).flatten(1) / math.sqrt(len(GRID))
    _, singular, right = torch.linalg.svd(anomaly, full_matrices=False)
    torch.testing.assert_close(modes.variances[:3], singular[:3].square() / len(u), rtol=1e-3, atol=0)
    overlap = (fields[:3].flatten(1) / math.sqrt(len(GRID)) @ right[:3].T).abs()
    torch.testing.assert_close(overlap, torch.eye(3, dtype=torch.float64), rtol=0, atol=2e-3)
    # 9 of 32 dimensions of the noise look like variation of the features, from which the iterations part them slowly.
    noise = modes.noise / 1e-6
    assert float(noise.min()) > 1 - 0.5 * 9 / 32 and float(noise.max()) < 1.05


def test_modes_are_orthonormal_in_the_data_and_ordered():
    weights, _ = true_fields(200)
    modes = fit_output_modes(features, [(GRID, values(weights, GRID, noise=0.1))])
    _, fields = mode_fields(modes, GRID)
    gram = torch.einsum("znc,ync->zy", fields, fields) / len(GRID)
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-9)
    assert bool((modes.variances.diff() <= 0).all())


@pytest.mark.parametrize("own_points", [False, True], ids=["values missing at random", "few own points each"])
def test_missing_points_are_recovered(own_points):
    weights, true_mean = true_fields(300)
    random = torch.Generator().manual_seed(3)
    if own_points:  # 6 points of 2 channels for 18 weights: no frame determines its own
        groups = []
        for i in range(100):
            x = torch.rand(6, 1, generator=random, dtype=torch.float64)
            groups.append((x, values(weights[3 * i : 3 * i + 3], x, noise=0.02, seed=i)))
        iterations = 40
    else:
        u = values(weights, GRID, noise=0.02)
        u[torch.rand(u.shape, generator=random) < 0.5] = float("nan")
        groups, iterations = [(GRID, u)], 10
    modes = fit_output_modes(features, groups, iterations=iterations)
    mean, _ = mode_fields(modes, GRID)
    sample_mean = values(weights.mean(0, keepdim=True), GRID, noise=0.0)[0]
    assert float((mean - sample_mean).square().mean().sqrt()) < 0.05
    # What matters: an unseen frame, of which a few points are seen, is found with the learned prior.
    unseen, _ = true_fields(50, seed=8)
    seen = GRID[::4]
    small = modes.truncated(3)
    offset, basis = mode_fields(small, seen)
    codes, _ = condition(offset, basis.permute(1, 2, 0), values(unseen, seen, noise=0.02), small.prior())
    whole_offset, whole = mode_fields(small, GRID)
    found = whole_offset + torch.einsum("sz,znc->snc", codes, whole)
    error = (found - values(unseen, GRID, noise=0.0)).square().mean().sqrt()
    assert float(error) < 0.05  # of a standard deviation of 0.55


def test_truncation_moves_what_the_lost_modes_explained_into_the_noise():
    weights, _ = true_fields(200)
    u = values(weights, GRID, noise=1e-2)
    small = fit_output_modes(features, [(GRID, u)]).truncated(1)
    mean, fields = mode_fields(small, GRID)
    codes = torch.einsum("snc,znc->sz", u - mean, fields) / len(GRID)
    left = (u - mean - torch.einsum("sz,znc->snc", codes, fields)).square().mean()
    assert float(small.noise.mean()) == pytest.approx(float(left), rel=0.05)
    assert small.modes.shape[0] == 1 and len(small.variances) == 1


def test_largest_drops_modes_into_the_noise():
    weights, _ = true_fields(200)
    u = values(weights, GRID, noise=1e-2)
    modes = fit_output_modes(features, [(GRID, u)], largest=2)
    assert len(modes.modes) == 2
    all_modes = fit_output_modes(features, [(GRID, u)])
    torch.testing.assert_close(modes.noise, all_modes.truncated(2).noise, rtol=1e-6, atol=0)


def test_frames_without_values_change_nothing():
    weights, _ = true_fields(50)
    u = values(weights, GRID, noise=0.1)
    padded = torch.cat([u, torch.full((5, 32, 2), float("nan"), dtype=u.dtype)])
    one, other = (fit_output_modes(features, [(GRID, v)]) for v in (u, padded))
    torch.testing.assert_close(one.variances, other.variances)
    torch.testing.assert_close(one.noise, other.noise)


@pytest.mark.parametrize("noise", [0.0, 1e-2])
def test_hardly_more_points_than_features_determine_the_noise(noise):
    """10 points, 9 independent features: clean data leave nothing, noise its own variance."""
    x = torch.arange(10, dtype=torch.float64)[:, None] / 10
    weights, _ = true_fields(400)
    modes = fit_output_modes(features, [(x, values(weights, x, noise))], iterations=6)
    if noise:
        assert modes.noise.tolist() == pytest.approx([noise**2, noise**2], rel=0.5)
    else:
        assert float(modes.noise.max()) < 1e-9


def test_at_fewer_points_than_features_modes_are_principal_components_of_the_values():
    x = torch.linspace(0.05, 0.9, 6, dtype=torch.float64)[:, None]
    weights, _ = true_fields(200)
    u = torch.einsum("fck,nk->fnc", weights, features(x)[:, :SIZE])
    modes = fit_output_modes(features, [(x, u)])
    at_points = torch.einsum("kcf,nf->knc", modes.modes, features(x)).flatten(1) * modes.variances.sqrt()[:, None]
    values = (u - u.mean(0)).flatten(1)
    torch.testing.assert_close(at_points.T @ at_points, values.T @ values / len(u), rtol=1e-2, atol=1e-3)
