"""Encoding by descent: Adam and meta-learned gradient steps."""

import pytest
import torch
from small_decoders import SIZE, filter_net, normal, points, siren, with_gaps

from inrflow.encoding.adam import adam_encode, adam_path, frame_errors
from inrflow.encoding.gradient_steps import gradient_steps_encode
from inrflow.encoding.posterior import GaussianPrior, condition


def test_frame_errors_average_over_observed_values_alone():
    decoder, x, z = siren("shift"), points(10), normal(3, SIZE)
    u = with_gaps(normal(3, 10, 2, seed=4))
    u[2] = float("nan")
    errors = frame_errors(decoder, x, u, z)
    for i in range(2):
        expected = (decoder(x, z[i]) - u[i]).square()
        torch.testing.assert_close(errors[i], expected[torch.isfinite(u[i])].mean())
    assert float(errors[2].detach()) == 0


def test_adam_approaches_the_least_squares_code_of_an_affine_decoder():
    decoder, x = filter_net(), points(30)
    z = normal(4, SIZE, seed=5)
    u = with_gaps(decoder(x, z).detach())
    wide = 1e8 * torch.eye(SIZE, dtype=torch.float64)
    flat = GaussianPrior(torch.zeros(SIZE, dtype=torch.float64), wide, torch.ones(2, dtype=torch.float64))
    with torch.no_grad():
        exact, _ = condition(*decoder.basis(x), u, flat)
    torch.testing.assert_close(exact, z, rtol=0, atol=1e-4)
    codes = adam_encode(decoder, x, u, steps=1500, rate=2e-2)
    torch.testing.assert_close(codes, exact, rtol=0, atol=1e-2)


@pytest.mark.parametrize("encode", [adam_encode, gradient_steps_encode], ids=["adam", "gradient steps"])
@pytest.mark.parametrize("own_points", [False, True], ids=["shared", "own"])
def test_frames_do_not_influence_each_other(encode, own_points):
    decoder = siren("shift", "scale")
    x = points(3, 10) if own_points else points(10)
    u = with_gaps(normal(3, 10, 2, seed=4))
    together = encode(decoder, x, u, steps=5)
    assert together.shape == (3, SIZE) and bool((together != 0).any(1).all())
    for i in range(3):
        torch.testing.assert_close(encode(decoder, x[i] if own_points else x, u[i : i + 1], steps=5)[0], together[i])


@pytest.mark.parametrize("encode", [adam_encode, gradient_steps_encode], ids=["adam", "gradient steps"])
def test_the_decoder_is_left_alone(encode):
    decoder = siren("shift")
    before = {k: v.clone() for k, v in decoder.state_dict().items()}
    with torch.no_grad():  # as in evaluation
        codes = encode(decoder, points(10), normal(2, 10, 2))
    assert not codes.requires_grad and all(p.grad is None and p.requires_grad for p in decoder.parameters())
    assert all(torch.equal(before[k], v) for k, v in decoder.state_dict().items())


@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
@pytest.mark.parametrize("own_points", [False, True], ids=["shared", "own"])
def test_descent_on_the_quadratic_form_passes_the_published_codes(own_points, gaps):
    decoder = filter_net()
    x = points(3, 10) if own_points else points(10)
    u = normal(3, 10, 2, seed=4)
    u = with_gaps(u) if gaps else u
    published = adam_path(decoder, x, u, (3, 40), closed=False)
    closed = adam_path(decoder, x, u, (3, 40))
    assert not torch.allclose(published[0], published[1], atol=1e-2)
    torch.testing.assert_close(closed, published, rtol=1e-7, atol=1e-9)


def test_adam_keeps_the_best_step():
    decoder, x, u = siren("shift"), points(20), normal(5, 20, 2)
    errors = [frame_errors(decoder, x, u, adam_encode(decoder, x, u, steps=n, rate=0.5)).detach() for n in range(12)]
    stacked = torch.stack(errors)  # a rate far too large, so that steps overshoot
    assert bool((stacked[1:] <= stacked[:-1]).all())
    assert bool((stacked[1:] == stacked[:-1]).any())


def test_adam_starts_where_it_is_told():
    decoder, x, z = siren("shift"), points(20), normal(2, SIZE)
    u = decoder(x, z).detach()
    start = z.clone()
    torch.testing.assert_close(adam_encode(decoder, x, u, steps=3, start=start), z)
    assert torch.equal(start, z) and not start.requires_grad


def test_gradient_steps_are_plain_descent_from_zero():
    decoder, x, u = siren("shift", "output"), points(10), with_gaps(normal(2, 10, 2))
    z = torch.zeros(2, SIZE, dtype=torch.float64)
    for _ in range(2):
        for i in range(2):
            slope = torch.zeros(SIZE, dtype=torch.float64)
            for k in range(SIZE):
                step = torch.zeros(SIZE, dtype=torch.float64)
                step[k] = 1e-6
                at = [frame_errors(decoder, x, u[i : i + 1], (z[i] + s * step)[None]).detach()[0] for s in (1, -1)]
                slope[k] = (at[0] - at[1]) / 2e-6
            z[i] -= 0.1 * slope
    torch.testing.assert_close(gradient_steps_encode(decoder, x, u, steps=2, rate=0.1), z, rtol=0, atol=1e-8)


def test_codes_can_be_differentiated_through_the_inner_steps():
    decoder, x, u = siren("shift"), points(10), normal(2, 10, 2)
    weight = decoder.shift_map

    def outer() -> torch.Tensor:
        codes = gradient_steps_encode(decoder, x, u, steps=3, rate=0.1, create_graph=True)
        return codes.square().sum()

    (slope,) = torch.autograd.grad(outer(), weight)
    index = (1, 0, 3)
    with torch.no_grad():
        weight[index] += 1e-6
        above = outer().detach()
        weight[index] -= 2e-6
        below = outer().detach()
    assert float(slope[index]) == pytest.approx(float(above - below) / 2e-6, rel=1e-5)
