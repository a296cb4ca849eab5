"""Accelerated fixed-point iterations against a linear one."""

import torch

from inrflow.numerics.anderson import accelerated


def test_acceleration_solves_a_linear_fixed_point_in_as_many_steps_as_it_has_dimensions():
    matrix = torch.diag(torch.tensor([0.9, -0.8, 0.5]).double())
    shift = torch.tensor([1.0, 2.0, 3.0]).double()
    state, inputs, outputs = torch.zeros(3).double(), [], []
    for _ in range(4):
        inputs, outputs = [*inputs, state], [*outputs, matrix @ state + shift]
        state = accelerated(inputs, outputs)
    torch.testing.assert_close(state, torch.linalg.solve(torch.eye(3).double() - matrix, shift), rtol=1e-6, atol=1e-6)
