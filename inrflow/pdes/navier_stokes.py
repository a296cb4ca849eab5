"""Forced two-dimensional Navier-Stokes in vorticity form, with the protocols of the DINo and CoDA papers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from inrflow.pdes.equation import DataProtocol, Equation, EquationSymmetries, Parameter, Transformation
from inrflow.pdes.initial import random_field
from inrflow.pdes.spectral import SpectralGrid

# The reference generators run 30 units of time and take the last of 20 frames, the first of which is at time 0.
_BURN_IN = 28.5


class NavierStokes(Equation):
    """Vorticity w on a periodic square; the velocity is (psi_y, -psi_x) with -lap psi = w, its mean zero.

    The forcing of the vorticity is from Li et al. (2021): forcing (sin s + cos s), s = 2 pi (x + y) / period. The box
    has length 1 in all protocols.
    """

    name = "navier_stokes"
    formula = "w_t + (velocity . grad) w = viscosity lap w + forcing (sin s + cos s), s = 2 pi (x + y) / period"
    dimensions = (2,)
    degree = 2
    protocols = {
        "dino": DataProtocol(dt=1.0, resolution=64, burn_in=_BURN_IN, windows=2),
        "coda": DataProtocol(
            frames=10,
            dt=1.0,
            resolution=64,
            burn_in=_BURN_IN,
            burn_in_parameters={"viscosity": 8e-4},
            parameters={"viscosity": [8e-4, 9e-4, 1e-3, 1.1e-3, 1.2e-3]},
        ),
    }

    def channels(self, dimensions: int) -> tuple[str, ...]:
        return ("vorticity",)

    def parameters(self, dimensions: int) -> dict[str, Parameter]:
        return {"viscosity": Parameter(1e-3, 8e-4, 1.2e-3, minimum=0.0), "forcing": Parameter(0.1, 0.05, 0.15)}

    def linear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        return -parameters["viscosity"] * grid.squared

    def nonlinear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor], u: Tensor) -> Tensor:
        """Advection and forcing: -(a, b) . grad w = d_xy (a^2 - b^2) - (d_xx - d_yy) (a b) for a divergence-free
        velocity (a, b), with four transforms (Basdevant 1983).
        """
        dx, dy = grid.derivative
        stream = u[:, 0] / torch.where(grid.squared == 0, 1.0, grid.squared)
        velocity = grid.inverse(torch.stack([dy * stream, -dx * stream], dim=1))
        a, b = velocity.unbind(dim=1)
        products = grid.transform(torch.stack([(a - b) * (a + b), a * b], dim=1))
        result = (dx * dy).real * products[:, 0] - (dx**2 - dy**2).real * products[:, 1]
        # sin s + cos s = Re (1 - i) exp(i s): half in the mode (1, 1), half in its conjugate, which is not stored
        result[:, 1, 1] += parameters["forcing"].reshape(-1) * complex(0.5, -0.5)
        return result[:, None]

    def initial(self, grid: SpectralGrid, rng: np.random.Generator) -> Tensor:
        """Gaussian random field of both protocols: covariance proportional to (-lap + 49)^-2.5, mean zero, modes up to
        16.
        """

        def deviation(squared: Tensor) -> Tensor:
            return 7**1.5 * (4 * math.pi**2 * squared + 49) ** -1.25

        return random_field(grid, rng, deviation, modes=16)[None]

    def symmetries(self, period: Sequence[float]) -> EquationSymmetries:
        """Symmetries that the forcing preserves: it depends on x + y alone, is even about the lines x + y = period / 8
        and changes sign after half a period.

        A rotation keeps the sign of vorticity; an exchange of the axes changes it, and so must change the sign of the
        forcing.
        """
        length = period[0]
        along = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
        half_turn = np.array([[-1.0, 0.0, length / 8], [0.0, -1.0, length / 8]])
        exchange = np.array([[0.0, 1.0, length / 4], [1.0, 0.0, length / 4]])
        return EquationSymmetries(
            (Transformation("translation_xy", along, np.zeros((1, 1))),),
            (
                Transformation("half_turn", half_turn, np.eye(1)),
                Transformation("exchange_xy", exchange, -np.eye(1)),
            ),
        )
