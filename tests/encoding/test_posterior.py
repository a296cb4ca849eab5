"""The Gaussian posterior of codes against the dense textbook formula."""

import pytest
import torch
from torch import Tensor

from inrflow.encoding.posterior import GaussianPrior, WhitenedPosterior, condition, condition_each

CHANNELS = 2


def problem(points: int, size: int, frames: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, GaussianPrior]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    root = normal(size, size)
    noise = torch.tensor([0.3, 0.02], dtype=torch.float64)
    prior = GaussianPrior(normal(size), root @ root.T / size, noise)
    return normal(points, CHANNELS), normal(points, CHANNELS, size), normal(frames, points, CHANNELS), prior


def textbook(offset: Tensor, basis: Tensor, u: Tensor, prior: GaussianPrior) -> tuple[Tensor, Tensor]:
    """Mean and covariance of z given one frame u (N, C), by the covariance of the values (Kalman gain)."""
    rows = torch.isfinite(u).flatten()
    design = basis.flatten(0, 1)[rows]
    noise = prior.noise.expand(u.shape).flatten()[rows]
    gain = prior.covariance @ design.T @ torch.linalg.inv(design @ prior.covariance @ design.T + torch.diag(noise))
    mean = prior.mean + gain @ ((u - offset).flatten()[rows] - design @ prior.mean)
    return mean, prior.covariance - gain @ design @ prior.covariance


def masks(kind: str, u: Tensor) -> Tensor:
    u = u.clone()
    random = torch.Generator().manual_seed(9)
    if kind == "same points of all frames":
        u[:, ::3] = float("nan")
    elif kind == "one channel":
        u[..., 1] = float("nan")
    elif kind == "different values of each frame":
        u[torch.rand(u.shape, generator=random) < 0.5] = float("nan")
        u[1] = float("nan")
    elif kind == "masks of several frames":
        u[::2, :2], u[1] = float("nan"), float("nan")
    return u


@pytest.mark.parametrize("kind", ["none", "same points of all frames", "one channel", "different values of each frame",
                                  "masks of several frames"])
@pytest.mark.parametrize(("points", "size"), [(30, 5), (3, 20)], ids=["more values than codes", "fewer values"])
def test_condition_is_the_textbook_posterior(kind, points, size):
    offset, basis, u, prior = problem(points, size)
    u = masks(kind, u)
    mean, covariance = condition(offset, basis, u, prior, covariance=True)
    assert covariance is not None and mean.dtype == torch.float64
    assert covariance.dim() == (3 if kind.startswith(("different", "masks")) else 2)
    for i, frame in enumerate(u):
        expected_mean, expected_covariance = textbook(offset, basis, frame, prior)
        torch.testing.assert_close(mean[i], expected_mean, rtol=0, atol=1e-9)
        given = covariance[i] if covariance.dim() == 3 else covariance
        torch.testing.assert_close(given, expected_covariance, rtol=0, atol=1e-9)
    torch.testing.assert_close(condition(offset, basis, u, prior)[0], mean)
    assert condition(offset, basis, u, prior)[1] is None


def test_frames_without_values_get_the_prior():
    offset, basis, u, prior = problem(6, 4)
    mean, covariance = condition(offset, basis, u * float("nan"), prior, covariance=True)
    torch.testing.assert_close(mean, prior.mean.expand(4, -1))
    torch.testing.assert_close(covariance, prior.covariance, rtol=0, atol=1e-12)


def test_directions_that_the_prior_excludes_stay_at_the_mean():
    offset, basis, u, prior = problem(30, 5)
    prior.covariance[2] = prior.covariance[:, 2] = 0
    mean, covariance = condition(offset, basis, u, prior, covariance=True)
    torch.testing.assert_close(mean[:, 2], prior.mean[2].expand(4), rtol=0, atol=1e-12)
    for i, frame in enumerate(u):
        torch.testing.assert_close(mean[i], textbook(offset, basis, frame, prior)[0], rtol=0, atol=1e-9)
    assert float(covariance[2].abs().max()) < 1e-12


def test_a_float32_decoder_is_solved_in_float64():
    offset, basis, u, prior = problem(40, 5)
    basis[..., 4] = basis[..., 3] + 1e-3 * basis[..., 4]  # nearly the same code twice: condition number 1e6 squared
    exact = condition(offset.float().double(), basis.float().double(), u.float().double(), prior)[0]
    torch.testing.assert_close(condition(offset.float(), basis.float(), u.float(), prior)[0], exact, rtol=0, atol=1e-9)


def test_mahalanobis_is_the_number_of_dimensions_on_average_for_codes_of_the_prior():
    prior = problem(1, 8)[3]
    random = torch.Generator().manual_seed(1)
    drawn = prior.mean + torch.randn(4000, 8, generator=random, dtype=torch.float64) @ prior.factor.T
    assert float(prior.mahalanobis(drawn).mean()) == pytest.approx(8.0, rel=0.03)
    one = drawn[:1]
    expected = (one - prior.mean) @ torch.linalg.solve(prior.covariance, (one - prior.mean)[0])
    torch.testing.assert_close(prior.mahalanobis(one), expected, rtol=1e-4, atol=0)


def test_truncated_prior_is_the_marginal():
    prior = problem(1, 8)[3]
    part = prior.truncated(3)
    torch.testing.assert_close(part.covariance, prior.covariance[:3, :3])
    torch.testing.assert_close(part.mean, prior.mean[:3])


@pytest.mark.parametrize("rank", [5, 3], ids=["any code", "codes known exactly in some directions"])
def test_codes_with_priors_of_their_own_have_the_textbook_posterior(rank):
    offset, basis, u, prior = problem(30, 5)
    roots = torch.randn(len(u), 5, rank, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    covariances = roots @ roots.mT
    means = torch.randn(len(u), 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    missed = u - offset - torch.einsum("ncz,fz->fnc", basis, means)
    steps, spreads = condition_each(basis, missed, covariances, prior.noise)
    for mean, covariance, frame, step, spread in zip(means, covariances, u, steps, spreads, strict=True):
        expected = textbook(offset, basis, frame, GaussianPrior(mean, covariance, prior.noise))
        torch.testing.assert_close(mean + step, expected[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(spread, expected[1], rtol=0, atol=1e-9)


def test_codes_that_are_known_stay_at_the_mean_and_infinite_variances_are_told():
    offset, basis, u, prior = problem(7, 4)
    known = GaussianPrior(prior.mean, torch.zeros_like(prior.covariance), prior.noise)
    mean, covariance = condition(offset, basis, masks("different values of each frame", u), known, covariance=True)
    torch.testing.assert_close(mean, prior.mean.expand(len(u), -1))
    assert not covariance.any()
    endless = GaussianPrior(prior.mean, torch.full_like(prior.covariance, torch.inf), prior.noise)
    with pytest.raises(torch.linalg.LinAlgError, match="not finite"):
        condition(offset, basis, u, endless)


@pytest.mark.parametrize("values", [5, 9])
def test_values_so_exact_that_their_noise_is_lost_in_rounding(values):
    random = torch.Generator().manual_seed(0)
    design = 1e9 * torch.randn(values, 2, generator=random, dtype=torch.float64) @ torch.randn(
        2, 7, generator=random, dtype=torch.float64)  # of rank 2: without the noise there is no solution
    target = design @ torch.ones(7, dtype=torch.float64)
    posterior = WhitenedPosterior(design[None])
    expected = torch.linalg.pinv(design, rtol=1e-10) @ target  # the least codes that explain the values
    torch.testing.assert_close(posterior.mean(target[None, None])[0, 0], expected, rtol=1e-3, atol=1e-3)
