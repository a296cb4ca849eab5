"""Distances of normal distributions to convex hulls."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from inrflow.numerics.normal import distance_to_hull


@pytest.mark.parametrize("seed", range(4))
def test_the_distance_to_a_hull_is_that_of_the_nearest_convex_combination(seed):
    random = np.random.default_rng(seed)
    points, mean, root = random.standard_normal((5, 3)), 2.5 * random.standard_normal(3), random.standard_normal((3, 3))
    covariance = root @ root.T + 0.1 * np.eye(3)

    def distance(shares):
        apart = shares @ points - mean
        return apart @ np.linalg.solve(covariance, apart)

    whole = {"type": "eq", "fun": lambda shares: shares.sum() - 1}
    least = minimize(distance, np.full(5, 0.2), bounds=[(0, 1)] * 5, constraints=[whole], options={"ftol": 1e-13}).fun
    found = distance_to_hull(*(torch.as_tensor(one) for one in (mean, covariance, points)))
    assert found == pytest.approx(least, rel=1e-4)
    inside = torch.as_tensor(random.dirichlet(np.ones(5)) @ points)
    assert distance_to_hull(inside, torch.as_tensor(covariance), torch.as_tensor(points)) < 1e-10
