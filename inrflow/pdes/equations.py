"""Registered equations; Navier-Stokes has its own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from inrflow.pdes import NAMES, require_known
from inrflow.pdes.equation import AXES, DataProtocol, Equation, EquationSymmetries, Parameter, box_symmetries
from inrflow.pdes.initial import gaussian_bump, smooth_field, smoothed_cube
from inrflow.pdes.navier_stokes import NavierStokes
from inrflow.pdes.spectral import SpectralGrid


class Heat(Equation):
    name = "heat"
    formula = "u_t = diffusivity lap u"
    protocols = {"default": DataProtocol(dt=0.1, period=1.0)}

    def parameters(self, dimensions: int) -> dict[str, Parameter]:
        return {"diffusivity": Parameter(5e-3, 2e-3, 1e-2, minimum=0.0)}

    def linear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        return -parameters["diffusivity"] * grid.squared

    def initial(self, grid: SpectralGrid, rng: np.random.Generator) -> Tensor:
        return smooth_field(grid, rng, deviation=1.0, modes=8)[None]


class Advection(Equation):
    name = "advection"
    formula = "u_t + velocity . grad u = 0"
    protocols = {"default": DataProtocol(dt=0.1, period=1.0)}

    def parameters(self, dimensions: int) -> dict[str, Parameter]:
        defaults = (0.5, 0.25, 0.125)
        return {f"velocity_{AXES[axis]}": Parameter(defaults[axis], -1.0, 1.0) for axis in range(dimensions)}

    def linear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        velocities = [parameters[f"velocity_{AXES[axis]}"] for axis in range(grid.dimensions)]
        return -sum((v * ik for v, ik in zip(velocities, grid.derivative, strict=True)), torch.zeros(()))

    def initial(self, grid: SpectralGrid, rng: np.random.Generator) -> Tensor:
        return smooth_field(grid, rng, deviation=1.0, modes=8)[None]

    def symmetries(self, period: Sequence[float]) -> EquationSymmetries:
        return box_symmetries(period, 1, reflections=False)  # the velocity has a direction


class Burgers(Equation):
    """Viscous Burgers equation with one velocity component per axis."""

    name = "burgers"
    formula = "u_t + (u . grad) u = viscosity lap u"
    degree = 2
    protocols = {"default": DataProtocol(dt=0.05, period=1.0, resolution=64)}

    def channels(self, dimensions: int) -> tuple[str, ...]:
        return ("u", "v", "w")[:dimensions]

    def parameters(self, dimensions: int) -> dict[str, Parameter]:
        return {"viscosity": Parameter(2e-2, 1e-2, 4e-2, minimum=0.0)}

    def linear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        return -parameters["viscosity"] * grid.squared

    def nonlinear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor], u: Tensor) -> Tensor:
        velocity = grid.inverse(u)
        transport = torch.zeros_like(velocity)
        for axis, ik in enumerate(grid.derivative):
            transport += velocity[:, axis, None] * grid.inverse(ik * u)
        return -grid.transform(transport)

    def initial(self, grid: SpectralGrid, rng: np.random.Generator) -> Tensor:
        return torch.stack([smooth_field(grid, rng, deviation=0.5, modes=4) for _ in range(grid.dimensions)])

    def symmetries(self, period: Sequence[float]) -> EquationSymmetries:
        return box_symmetries(period, len(period), vector=True)


class KuramotoSivashinsky(Equation):
    """Kuramoto-Sivashinsky equation: in one dimension for the slope u, with an advection term; in higher dimensions for
    the height, without its growing mean.
    """

    name = "kuramoto_sivashinsky"
    formula = (
        "u_t + u u_x + u_xx + viscosity u_xxxx = 0; "
        "in 2-D and 3-D u_t + |grad u|^2 / 2 + lap u + viscosity lap^2 u = 0, the mean of u held at zero"
    )
    degree = 2
    protocols = {"default": DataProtocol(dt=0.5, period=22.0, grid=64, dimensions=1, burn_in=50.0)}

    def parameters(self, dimensions: int) -> dict[str, Parameter]:
        return {"viscosity": Parameter(1.0, 0.8, 1.2, minimum=1e-6)}

    def linear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        return grid.squared - parameters["viscosity"] * grid.squared**2

    def nonlinear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor], u: Tensor) -> Tensor:
        if grid.dimensions == 1:
            return -0.5 * grid.derivative[0] * grid.transform(grid.inverse(u) ** 2)
        squares = sum((grid.inverse(ik * u) ** 2 for ik in grid.derivative), torch.zeros(()))
        result = -0.5 * grid.transform(squares)
        result[grid.mean] = 0
        return result

    def initial(self, grid: SpectralGrid, rng: np.random.Generator) -> Tensor:
        return smooth_field(grid, rng, deviation=1.0, modes=8)[None]

    def symmetries(self, period: Sequence[float]) -> EquationSymmetries:
        return box_symmetries(period, 1, vector=len(period) == 1)


class Wave(Equation):
    """Wave equation of second order in time, with channels u and v = u_t. Initial conditions and protocol of the DINo
    paper, on its physical domain.
    """

    name = "wave"
    formula = "u_tt = speed^2 lap u"
    protocols = {
        "default": DataProtocol(dt=0.25, period=2.0),
        "dino": DataProtocol(dt=0.25, period=2.0, windows=8),
    }

    def channels(self, dimensions: int) -> tuple[str, ...]:
        return ("u", "v")

    def parameters(self, dimensions: int) -> dict[str, Parameter]:
        return {"speed": Parameter(1 / 16, 1 / 32, 3 / 32, minimum=0.0)}

    def linear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        stiffness = -(parameters["speed"] ** 2) * grid.squared
        zero, one = torch.zeros_like(stiffness), torch.ones_like(stiffness)
        return torch.stack([torch.cat([zero, one], 1), torch.cat([stiffness, zero], 1)], 1)

    def initial(self, grid: SpectralGrid, rng: np.random.Generator) -> Tensor:
        """Gaussian bump at rest of random radius (0.125 to 0.15 of the period), height (2 to 4) and place."""
        radius = grid.period[0] * (0.125 + 0.025 * rng.random())
        height = 2 + 2 * rng.random()
        u = gaussian_bump(grid, rng.random(grid.dimensions) * np.array(grid.period), radius, height)
        return torch.stack([u, torch.zeros_like(u)])


class GrayScott(Equation):
    """Gray-Scott autocatalytic reaction and diffusion, with the parameters and box (unit cells) of the CoDA paper."""

    name = "gray_scott"
    formula = "u_t = diffusivity_u lap u - u v^2 + feed (1 - u), v_t = diffusivity_v lap v + u v^2 - (feed + kill) v"
    degree = 3
    protocols = {
        "default": DataProtocol(dt=20.0, period=32.0, resolution=64),
        "coda": DataProtocol(
            frames=10,
            dt=40.0,
            period=32.0,
            resolution=64,
            parameters={"feed": [0.03, 0.039, 0.03, 0.039], "kill": [0.062, 0.058, 0.058, 0.062]},
        ),
    }

    def channels(self, dimensions: int) -> tuple[str, ...]:
        return ("u", "v")

    def parameters(self, dimensions: int) -> dict[str, Parameter]:
        return {
            "feed": Parameter(0.03, 0.03, 0.039, minimum=0.0),
            "kill": Parameter(0.058, 0.058, 0.062, minimum=0.0),
            "diffusivity_u": Parameter(0.2097, 0.2, 0.22, minimum=0.0),
            "diffusivity_v": Parameter(0.105, 0.1, 0.11, minimum=0.0),
        }

    def linear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        u = -parameters["diffusivity_u"] * grid.squared - parameters["feed"]
        v = -parameters["diffusivity_v"] * grid.squared - parameters["feed"] - parameters["kill"]
        return torch.cat([u, v], dim=1)

    def nonlinear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor], u: Tensor) -> Tensor:
        field = grid.inverse(u)
        reaction = grid.transform(field[:, 0] * field[:, 1] ** 2)
        result = torch.stack([-reaction, reaction], dim=1)
        result[:, 0][grid.mean] += parameters["feed"].reshape(-1)
        return result

    def initial(self, grid: SpectralGrid, rng: np.random.Generator) -> Tensor:
        """u = 0.95, v = 0.05, except in three soft-edged cubes of an eighth of the box's side, with u = 0, v = 1."""
        outside = torch.ones(grid.shape, dtype=torch.float64)
        for _ in range(3):
            corner = rng.random(grid.dimensions) * np.array(grid.period)
            outside = outside * (1 - smoothed_cube(grid, corner, side=grid.period[0] / 8, width=grid.period[0] / 24))
        return grid.transform(torch.stack([0.95 * outside, 1 - 0.95 * outside]))


EQUATIONS: dict[str, Equation] = {
    equation.name: equation
    for equation in (
        Heat(),
        Advection(),
        Burgers(),
        KuramotoSivashinsky(),
        Wave(),
        GrayScott(),
        NavierStokes(),
    )
}


def register_equation(equation: type[Equation]) -> type[Equation]:
    """Class decorator that registers an equation for `generate`. Raises ValueError if its name is taken."""
    if equation.name in EQUATIONS:
        raise ValueError(f"the equation {equation.name!r} is registered already; choose another name")
    EQUATIONS[equation.name] = equation()
    NAMES.append(equation.name)
    return equation


def find_equation(name: str) -> Equation:
    """Equation of a name. Raises UserError, which lists the names, if there is none."""
    require_known(name)
    return EQUATIONS[name]
