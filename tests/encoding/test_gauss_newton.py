"""Gauss-Newton: the closed form where the decoder is affine, and the most probable code where it is not."""

import pytest
import torch
from small_decoders import SIZE, filter_net, normal, points, prior, siren, with_gaps

from inrflow.encoding.gauss_newton import gauss_newton
from inrflow.encoding.posterior import condition


@pytest.mark.parametrize("make", [lambda: siren("output"), filter_net], ids=["siren", "filter net"])
@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
def test_on_an_affine_decoder_it_is_the_closed_form(make, gaps):
    decoder, x, u = make(), points(20), normal(5, 20, 2)
    u = with_gaps(u) if gaps else u
    with torch.no_grad():
        offset, basis = decoder.basis(x)
        expected, covariance = condition(offset, basis, u, prior(1e-2), covariance=True)
    codes, spread = gauss_newton(decoder, x, u, prior(1e-2), covariance=True)
    torch.testing.assert_close(codes, expected, rtol=0, atol=1e-5)  # settled to 1e-4 of a deviation of about 0.1
    torch.testing.assert_close(spread, covariance.expand(5, SIZE, SIZE), rtol=0, atol=1e-7)


@pytest.mark.parametrize("modulation", [("shift",), ("shift", "scale"), ("shift", "scale", "output")], ids="+".join)
@pytest.mark.parametrize("own_points", [False, True], ids=["shared", "own"])
def test_it_finds_the_codes_that_made_the_values(modulation, own_points):
    decoder = siren(*modulation)
    x = points(6, 60) if own_points else points(60)
    z = 0.5 * normal(6, SIZE, seed=5)
    with torch.no_grad():
        u = with_gaps(decoder(x, z))
    codes, _ = gauss_newton(decoder, x, u, prior(1e-10), iterations=25)
    torch.testing.assert_close(codes, z, rtol=0, atol=1e-5)


def test_the_result_is_where_the_posterior_has_no_slope():
    decoder, x, about = siren("shift", "scale"), points(25), prior(0.01)
    u = with_gaps(decoder(x, 0.5 * normal(4, SIZE, seed=5)).detach() + 0.1 * normal(4, 25, 2))
    codes, spread = gauss_newton(decoder, x, u, about, iterations=40, covariance=True)
    z = codes.clone().requires_grad_(True)

    def energy(z):
        error = torch.where(torch.isfinite(u), decoder(x, z) - torch.nan_to_num(u), 0.0)
        away = z - about.mean
        prior_term = (away * torch.linalg.solve(about.covariance, away.T).T).sum()
        return ((error.square() / about.noise).sum() + prior_term) / 2

    (slope,) = torch.autograd.grad(energy(z), z)
    left = torch.einsum("fz,fzy,fy->f", slope, spread, slope).sqrt()  # in posterior standard deviations
    assert float(left.max()) < 1e-4


def test_no_step_is_taken_that_makes_a_frame_worse():
    decoder, x = siren("shift", "scale"), points(30)
    u = decoder(x, 3 * normal(8, SIZE, seed=5)).detach()  # far codes, from which plain Gauss-Newton diverges
    about, errors = prior(1e-6), []

    def energy(z):
        error, away = decoder(x, z).detach() - u, z - about.mean
        fit = (error.square() / about.noise).flatten(1).sum(1)
        return fit + (away * torch.linalg.solve(about.covariance, away.T).T).sum(1)

    for iterations in (0, 1, 2, 4, 8, 16):
        errors.append(energy(gauss_newton(decoder, x, u, about, iterations=iterations)[0]))
    stacked = torch.stack(errors)
    assert bool((stacked[1:] <= stacked[:-1] * (1 + 1e-6)).all())
    assert bool((stacked[-1] < 0.5 * stacked[0]).all())


def test_a_start_is_used():
    decoder, x, z = siren("shift"), points(40), normal(3, SIZE, seed=5)
    u = decoder(x, z).detach()
    codes, _ = gauss_newton(decoder, x, u, prior(1e-8), start=z, iterations=0)
    torch.testing.assert_close(codes, z)


def test_frames_without_values_get_the_prior_mean():
    u = torch.full((2, 10, 2), float("nan"), dtype=torch.float64)
    codes, spread = gauss_newton(siren("shift"), points(10), u, prior(), covariance=True)
    torch.testing.assert_close(codes, prior().mean.expand(2, SIZE))
    torch.testing.assert_close(spread[0], prior().covariance, rtol=1e-6, atol=1e-7)


def test_a_float32_decoder_gives_float64_codes_near_those_of_float64():
    decoder, x = siren("shift"), points(40)
    u = decoder(x, 0.5 * normal(3, SIZE, seed=5)).detach()
    exact, _ = gauss_newton(decoder, x, u, prior())
    codes, _ = gauss_newton(decoder.float(), x, u, prior())
    assert codes.dtype == torch.float64
    torch.testing.assert_close(codes, exact, rtol=0, atol=1e-3)
