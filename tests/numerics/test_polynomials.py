"""Polynomials of several variables against their definitions and numpy."""

import numpy as np
import torch

from inrflow.numerics.polynomials import left_out, monomials, ridge_solution


def test_monomials_are_all_products_up_to_a_degree():
    x, y = 2.0, 3.0
    found = monomials(torch.tensor([x, y]), 3)
    expected = [1, x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3]
    np.testing.assert_allclose(found, expected)


def test_what_fits_miss_of_points_left_out():
    random = np.random.default_rng(0)
    x, y = random.random(7), random.random((7, 1))
    design = monomials(torch.tensor(x[:, None]), 2)
    found = ridge_solution(design, torch.tensor(y))[:, 0]
    np.testing.assert_allclose(found, np.polyfit(x, y[:, 0], 2)[::-1], rtol=1e-4)
    missed = [y[e, 0] - np.polyval(np.polyfit(np.delete(x, e), np.delete(y[:, 0], e), 2), x[e]) for e in range(7)]
    np.testing.assert_allclose(left_out(design, torch.tensor(y))[:, 0], missed, rtol=1e-3)
