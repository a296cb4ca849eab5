"""Conjugate gradients against elimination: of several systems, with and without a preconditioner."""

import pytest
import torch

from inrflow.numerics.conjugate_gradients import conjugate_gradients


@pytest.fixture
def matrix():
    """A symmetric and positive matrix (40, 40), whose diagonal entries differ by up to a million, and others little."""
    torch.manual_seed(1)
    factor, scale = 0.05 * torch.randn(40, 40, dtype=torch.float64), torch.logspace(0, 3, 40, dtype=torch.float64)
    return scale[:, None] * (factor @ factor.T + torch.eye(40)) * scale


@pytest.mark.parametrize("conditioned", [False, True])
def test_solutions_of_several_systems_are_those_of_elimination(matrix, conditioned):
    right = torch.randn(3, 40, dtype=torch.float64) * torch.tensor([[1.0], [1e-3], [0.0]])
    given = {"precondition": lambda residual: residual / matrix.diagonal()} if conditioned else {}
    found = conjugate_gradients(lambda x: x @ matrix, right, 1e-12, 1000, **given)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, right.T).T, rtol=1e-5, atol=1e-12)


def test_a_preconditioner_saves_iterations(matrix):
    right, counts = torch.randn(40, dtype=torch.float64), []
    for precondition in (lambda residual: residual, lambda residual: residual / matrix.diagonal()):
        counts.append(0)

        def operator(x):
            counts[-1] += 1
            return x @ matrix

        conjugate_gradients(operator, right, 1e-8, 500, precondition)
    assert counts[1] < 15 < 60 < counts[0]
