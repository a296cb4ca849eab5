"""Training of the decoder's trunk: the ridge solve behind it, its gradient, and the score at held-out points."""

import numpy as np
import pytest
import torch

from inrflow.training.parts.trunk import solve_ridge


def problem(seed=0, groups=2, frames=3, points=7, channels=2, size=4):
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(groups, points, channels, generator=random).double(),
            torch.randn(groups, points, channels, size, generator=random).double(),
            torch.randn(groups, frames, points, channels, generator=random).double())


@pytest.mark.parametrize("missing", [False, True])
def test_ridge_codes_are_those_of_augmented_least_squares(missing):
    offset, basis, u = problem()
    if missing:
        u[0, 0, 2:], u[1, 2, :, 1], u[1, 1] = float("nan"), float("nan"), float("nan")
    codes = solve_ridge(offset, basis, u)
    for g in range(2):
        for f in range(3):
            target = (u[g, f] - offset[g]).flatten().numpy()
            seen = np.isfinite(target)
            if not seen.any():
                np.testing.assert_array_equal(codes[g, f], 0)
                continue
            design = basis[g].flatten(0, 1).numpy()[seen]
            ridge = np.sqrt(1e-3 * seen.sum()) * np.eye(4)
            expected = np.linalg.lstsq(np.vstack([design, ridge]), np.append(target[seen], np.zeros(4)), rcond=None)[0]
            np.testing.assert_allclose(codes[g, f], expected, atol=1e-9)


def test_at_the_solved_codes_the_gradient_needs_no_derivative_of_the_solve():
    """Variable projection: that of the objective with its codes solved anew, by finite differences."""
    offset, basis, u = problem()

    def objective(design, codes=None):
        codes = solve_ridge(offset, design, u) if codes is None else codes
        residual = offset[:, None] + torch.einsum("gncz,gfz->gfnc", design, codes) - u
        return residual.square().sum() / (7 * 2) + 1e-3 * codes.square().sum()

    design = basis.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(design, solve_ridge(offset, basis, u)), design)
    h = 1e-6
    for index in ((0, 0, 0, 0), (1, 3, 1, 2), (0, 6, 1, 3)):
        shift = torch.zeros_like(basis)
        shift[index] = h
        difference = (objective(basis + shift) - objective(basis - shift)) / (2 * h)
        assert float(gradient[index]) == pytest.approx(float(difference), rel=1e-5, abs=1e-8)


def test_codes_carry_no_gradient():
    offset, basis, u = problem()
    assert not solve_ridge(offset, basis.requires_grad_(), u).requires_grad
