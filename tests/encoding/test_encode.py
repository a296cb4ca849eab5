"""Encoding whole batches, for every layout of points, against each frame encoded by itself."""

import pytest
import torch
from small_decoders import SIZE, filter_net, normal, points, prior, siren, with_gaps

from inrflow.data.batch import TrajectoryBatch
from inrflow.encoding.encode import common_points, encode, encode_with_covariance
from inrflow.encoding.gauss_newton import gauss_newton
from inrflow.encoding.posterior import GaussianPrior, condition

S, T, N = 2, 3, 12
LAYOUTS = {"shared": (1, 1), "own of each trajectory": (S, 1), "moving": (S, T), "moving, shared": (1, T)}
GAPS = ["complete", "gaps", "gaps in one trajectory", "one frame unobserved"]


def batch(layout: str, gaps: str = "complete") -> TrajectoryBatch:
    u = normal(S, T, N, 2)
    if gaps == "gaps":
        u = with_gaps(u)
    elif gaps == "gaps in one trajectory":
        u[1] = with_gaps(u[1])
    elif gaps == "one frame unobserved":
        u[0, 1] = float("nan")
    t = torch.arange(T, dtype=torch.float64).expand(S, T)
    return TrajectoryBatch(t, points(*LAYOUTS[layout], N), u)


@torch.no_grad()
@pytest.mark.parametrize("gaps", GAPS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("modulation", ["output", "shift"])
def test_every_frame_gets_its_own_posterior(modulation, layout, gaps):
    decoder, data = siren(modulation), batch(layout, gaps)
    codes, spread = encode_with_covariance(decoder, data, prior(0.1))
    assert codes.shape == (S, T, SIZE) and codes.dtype == torch.float64
    assert spread is not None and spread.shape[2:] == (SIZE, SIZE)
    assert spread.shape[0] in (1, S) and spread.shape[1] in (1, T)
    x = data.x.expand(S, T, N, 2)
    for s in range(S):
        for k in range(T):
            u = data.u[s, k][None]
            if modulation == "output":
                mean, covariance = condition(*decoder.basis(x[s, k]), u, prior(0.1), True)
            else:
                mean, covariances = gauss_newton(decoder, x[s, k], u, prior(0.1), covariance=True)
                covariance = covariances[0]
            torch.testing.assert_close(codes[s, k], mean[0], rtol=0, atol=1e-8 if modulation == "output" else 1e-4)
            given = spread[s if len(spread) > 1 else 0, k if spread.shape[1] > 1 else 0]
            # The iterations of a batch end together, so a linearisation may be one step older or newer.
            torch.testing.assert_close(given, covariance, rtol=0, atol=1e-8 if modulation == "output" else 1e-2)
    torch.testing.assert_close(encode(decoder, data, prior(0.1)), codes)


@torch.no_grad()
@pytest.mark.parametrize("gaps", GAPS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_that_each_channel_has_for_itself_are_those_of_the_joint_system(layout, gaps):
    decoder, data, joined = filter_net(), batch(layout, gaps), prior(0.1)
    owner = torch.arange(SIZE) // (SIZE // 2)
    apart = GaussianPrior(joined.mean, torch.where(owner[:, None] == owner, joined.covariance, 0.0), joined.noise)
    assert apart.by_channel is not None and joined.by_channel is None
    codes, spread = encode_with_covariance(decoder, data, apart)
    x = data.x.expand(S, T, N, 2)
    for s in range(S):
        for k in range(T):
            mean, covariance = condition(*decoder.basis(x[s, k]), data.u[s, k][None], apart, True)
            torch.testing.assert_close(codes[s, k], mean[0], rtol=0, atol=1e-9)
            given = spread[s if len(spread) > 1 else 0, k if spread.shape[1] > 1 else 0]
            torch.testing.assert_close(given, covariance, rtol=0, atol=1e-9)
    torch.testing.assert_close(encode(decoder, data, apart), codes)
    mean, _ = condition(*decoder.basis(x[0, 0]), data.u[0, 0][None], joined)
    torch.testing.assert_close(encode(decoder, data, joined)[0, 0], mean[0], rtol=0, atol=1e-9)


@torch.no_grad()
def test_shared_points_without_gaps_share_their_covariance():
    assert encode_with_covariance(siren("output"), batch("shared"), prior())[1].shape == (1, 1, SIZE, SIZE)


@torch.no_grad()
def test_unobserved_frames_get_the_prior():
    data = batch("own of each trajectory", "one frame unobserved")
    codes, spread = encode_with_covariance(siren("output"), data, prior())
    torch.testing.assert_close(codes[0, 1], prior().mean)
    torch.testing.assert_close(spread[0, 1], prior().covariance)


@torch.no_grad()
def test_padded_points_of_shorter_trajectories_count_for_nothing():
    data = batch("own of each trajectory")
    whole = encode(siren("output"), data, prior())
    x = torch.cat([data.x, data.x[:, :, -1:].expand(S, 1, 5, 2)], 2)
    u = torch.cat([data.u, torch.full((S, T, 5, 2), float("nan"), dtype=torch.float64)], 2)
    torch.testing.assert_close(encode(siren("output"), TrajectoryBatch(data.t, x, u), prior()), whole)


@torch.no_grad()
@pytest.mark.parametrize("gaps", GAPS)
def test_trajectories_that_observe_parts_of_one_grid_get_the_codes_of_their_own_points(gaps, monkeypatch):
    decoder, data, grid = siren("output"), batch("own of each trajectory", gaps), points(14)
    data.x = torch.stack([grid[torch.randperm(14, generator=torch.Generator().manual_seed(s))[:N]] for s in range(S)])[
        :, None
    ]
    asked, basis = [], decoder.basis
    monkeypatch.setattr(decoder, "basis", lambda x: asked.append(x.shape) or basis(x))
    codes, spread = encode_with_covariance(decoder, data, prior(0.1))
    assert len(asked) == 1 and N <= asked[0][0] <= 14  # the trunk once, at the points of the grid that anyone saw
    for s in range(S):
        for k in range(T):
            mean, covariance = condition(*basis(data.x[s, 0]), data.u[s, k][None], prior(0.1), True)
            torch.testing.assert_close(codes[s, k], mean[0], rtol=0, atol=1e-8)
            torch.testing.assert_close(spread[s, k if spread.shape[1] > 1 else 0], covariance, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_common_points_are_found_exactly(dtype):
    axis = torch.arange(16, dtype=dtype) / 16
    grid = torch.cartesian_prod(axis, axis)
    near = grid[:100] + torch.finfo(dtype).eps  # other points, by the last digit of most
    x = torch.stack([grid[:100], grid[50:150], near, grid[:100].flip(0)])
    distinct, which = common_points(x)
    assert torch.equal(distinct[which], x)
    assert len(distinct) == len(torch.unique(x.flatten(0, 1), dim=0))


def test_points_that_nobody_shares_are_left_alone():
    assert common_points(points(3, 20)) is None
