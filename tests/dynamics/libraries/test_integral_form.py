"""Quadrature and interpolation against polynomials, which they integrate and reproduce exactly."""

import torch

from inrflow.dynamics.libraries.integral_form import interpolated_path, lagrange


def test_lagrange_polynomials_reproduce_polynomials():
    nodes = torch.tensor([[0.0, 1.0, 2.5, 3.0]], dtype=torch.float64)
    t = torch.tensor([[0.3, 2.9]], dtype=torch.float64)
    values = lagrange(nodes, t) @ (nodes[0] ** 3 - 2 * nodes[0])[:, None]
    torch.testing.assert_close(values[0, :, 0], t[0] ** 3 - 2 * t[0])


def test_the_integral_of_a_polynomial_path_is_exact_at_either_end_of_unequal_frames():
    t = torch.tensor([[0.0, 0.4, 1.0, 1.1, 2.0, 2.5, 3.1]], dtype=torch.float64)
    codes = torch.stack([t**5 - t, 2 * t**3], -1)
    primitive = torch.stack([t**6 / 6 - t**2 / 2, t**4 / 2], -1)
    for k in (0, 3, 5):
        path, weights = interpolated_path(codes, t, k)
        mean = sum(w * state for w, state in zip(weights, path, strict=True))
        expected = (primitive[:, k + 1] - primitive[:, k]) / (t[:, k + 1] - t[:, k])[:, None]
        torch.testing.assert_close(mean, expected, rtol=1e-10, atol=1e-12)
