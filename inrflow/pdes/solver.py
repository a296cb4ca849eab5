"""Solution of an equation: Fourier coefficients at given times, for a batch of trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from inrflow.pdes.equation import Equation
from inrflow.pdes.exponential import ExponentialIntegrator
from inrflow.pdes.spectral import SpectralGrid


def solve(
    equation: Equation,
    grid: SpectralGrid,
    u: Tensor,
    times: Tensor,
    parameters: Mapping[str, Tensor],
    tolerance: float = 1e-7,
) -> Iterator[Tensor]:
    """Yield the coefficients (S, C, *modes) at each of `times`, (T,) or (S, T), from `u` at time 0.

    `parameters`: (S,) for each name. Modes that the nonlinear term would alias are removed at the start. `tolerance`
    and errors as in `ExponentialIntegrator.solve`.
    """
    ones = [1] * (grid.dimensions + 1)
    shaped = {name: value.to(torch.float64).reshape(-1, *ones) for name, value in parameters.items()}
    # Trajectories that share all parameters also share the linear propagator.
    shared = all(bool((value == value[0]).all()) for value in parameters.values())
    linear = equation.linear(grid, {name: value[:1] if shared else value for name, value in shaped.items()})
    mask = grid.mask(equation.degree)

    def nonlinear(coefficients: Tensor) -> Tensor:
        return mask * equation.nonlinear(grid, shaped, coefficients)

    integrator = ExponentialIntegrator(linear, nonlinear if equation.degree > 1 else None, grid.dimensions)
    return integrator.solve(mask * u, times, tolerance)
