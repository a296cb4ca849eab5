"""Damped Gauss-Newton against scipy's least squares."""

import numpy as np
import torch
from scipy.optimize import least_squares

from inrflow.numerics.levenberg_marquardt import Linearisation, damped, damped_descent, levenberg_marquardt

TIMES = torch.linspace(0, 2, 15, dtype=torch.float64)
TRUTH = torch.tensor([[2.0, -1.3, 0.4], [0.7, -0.2, -1.0], [-1.5, -2.5, 0.1]], dtype=torch.float64)
START = torch.tensor([[1.0, -0.5, 0.0]], dtype=torch.float64).expand(3, -1)


def model(point: torch.Tensor) -> torch.Tensor:
    """a exp(b t) + c (B, N)."""
    return point[:, :1] * (point[:, 1:2] * TIMES).exp() + point[:, 2:]


DATA = model(TRUTH) + 0.05 * torch.randn(3, len(TIMES), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def jacobian(point: torch.Tensor) -> torch.Tensor:
    """(B, N, 3)."""
    grown = (point[:, 1:2] * TIMES).exp()
    return torch.stack([grown, point[:, :1] * TIMES * grown, torch.ones_like(grown)], -1)


def reference(row: int) -> np.ndarray:
    """The minimum by scipy."""
    def residual(point: np.ndarray) -> np.ndarray:
        return (model(torch.as_tensor(point)[None]) - DATA[row])[0].numpy()

    return least_squares(residual, START[row].numpy(), method="lm", xtol=1e-14, ftol=1e-14).x


def objective(point: torch.Tensor) -> torch.Tensor:
    return (model(point) - DATA).square().sum(1)


def linearise(point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    slope = jacobian(point)
    return slope.mT @ slope, ((DATA - model(point))[:, None] @ slope)[:, 0]


def test_a_batch_of_exponentials_is_fitted_as_by_scipy() -> None:
    found = levenberg_marquardt(
        START, objective, linearise, steps=100, settled=lambda decrement, value: decrement < 1e-22 * value
    )
    for row in range(3):
        np.testing.assert_allclose(found.point[row].numpy(), reference(row), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.value, objective(found.point))
    torch.testing.assert_close(found.curvature, linearise(found.point)[0], rtol=1e-4, atol=1e-6)


def test_a_step_that_raises_the_objective_is_refused_and_damped() -> None:
    far = torch.tensor([[0.1, 5.0, 0.0]], dtype=torch.float64).expand(3, -1)
    once = levenberg_marquardt(far, objective, lambda p: (1e-3 * linearise(p)[0], linearise(p)[1]), steps=1)
    refused = once.value == objective(far)
    assert bool(refused.any())
    torch.testing.assert_close(once.point[refused], far[refused])
    torch.testing.assert_close(once.damping, torch.where(refused, 1e-2, 2e-4).double())


def test_settled_problems_end_the_iteration() -> None:
    calls = []

    def counted(point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(point)
        return linearise(point)

    levenberg_marquardt(
        START, objective, counted, steps=1000, settled=lambda decrement, value: decrement < 1e-8 * value
    )
    assert 3 < len(calls) < 60


def test_a_descent_reaches_the_minimum_of_scipy() -> None:
    row, calls = 0, []

    def size(point: torch.Tensor) -> float:
        return float((model(point) - DATA[row]).square().sum())

    def at(point: torch.Tensor) -> Linearisation[torch.Tensor]:
        calls.append(point)
        slopes = jacobian(point)[0]
        gradient = slopes.T @ (DATA[row] - model(point)[0])
        return Linearisation(
            size(point), lambda damping: point + torch.linalg.solve(damped(slopes.T @ slopes, damping), gradient)
        )

    found, done = damped_descent(START[:1], at, size, steps=200, tries=8)
    np.testing.assert_allclose(found[0].numpy(), reference(row), rtol=1e-6, atol=1e-7)
    assert done == len(calls) < 200


def test_a_descent_ends_where_nothing_is_gained() -> None:
    point, done = damped_descent(
        3.0, lambda at: Linearisation(at**2, lambda damping: at + 1.0), lambda at: at**2, steps=5, tries=2
    )
    assert (point, done) == (3.0, 1)
    assert damped_descent(3.0, lambda at: None, lambda at: at, steps=5, tries=2) == (3.0, 1)
