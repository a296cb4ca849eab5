"""Interface of an equation: symbol, nonlinear term, channels, parameters, initial fields, symmetries, data protocols.

All equations are u_t = L u + N(u) on a periodic box, L diagonal in Fourier space up to a mixing of channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from inrflow.pdes.spectral import SpectralGrid

AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Parameter:
    """Parameter of an equation: default, range from which `sample` draws, and least admissible value."""

    default: float
    low: float
    high: float
    minimum: float = -np.inf


@dataclass(frozen=True)
class DataProtocol:
    """Protocol of generating a data set from an equation: defaults of the settings of `generate`.

    A run starts from a random field, is solved for `burn_in` units of time (with `burn_in_parameters` if given), and
    is then cut into `windows` trajectories of `frames` frames, `dt` apart. The equation is solved on `resolution`
    points per axis (None: as the output) and observed on `grid` points per axis. `parameters` as in `generate`.
    """

    frames: int = 20
    dt: float = 0.1
    grid: int = 32
    resolution: int | None = None
    burn_in: float = 0.0
    burn_in_parameters: Mapping[str, float] = field(default_factory=dict)
    windows: int = 1
    period: float = 1.0
    dimensions: int = 2
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Transformation:
    """Symmetry of an equation: `space` (d, d+1) and `values` (C, C) of a map x -> A x + b, u -> Q u, or of a generator
    dx/ds = G x + g, du/ds = R u.
    """

    name: str
    space: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class EquationSymmetries:
    """Transformations that map solutions to solutions, for every value of the parameters. None acts on values alone:
    linear models have the superposition of linear equations without augmentation.
    """

    generators: tuple[Transformation, ...]
    maps: tuple[Transformation, ...]

    def arrays(self) -> dict[str, Any]:
        """`generators` (K, d, d+1), `generators_channels` (K, C, C), `maps` (M, d, d+1), `maps_channels` (M, C, C),
        and their names.
        """
        result: dict[str, Any] = {"names": tuple(one.name for one in (*self.generators, *self.maps))}
        shapes = [(0, *a.shape) for a in (self.generators[0].space, self.generators[0].values)]
        for key, members in (("generators", self.generators), ("maps", self.maps)):
            result[key] = np.stack([one.space for one in members]) if members else np.zeros(shapes[0])
            result[f"{key}_channels"] = np.stack([one.values for one in members]) if members else np.zeros(shapes[1])
        return result


class Equation:
    """Declaration of one equation, to be subclassed.

    In `linear`, `nonlinear` and `initial`, a parameter is a tensor (S, 1, ..., 1) that broadcasts over coefficients
    (S, C, *modes).
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    dimensions: ClassVar[tuple[int, ...]] = (1, 2, 3)
    degree: ClassVar[int] = 1  # polynomial degree of the nonlinear term in u, for dealiasing; 1: no such term
    protocols: ClassVar[Mapping[str, DataProtocol]]  # the first is the default

    def channels(self, dimensions: int) -> tuple[str, ...]:
        return ("u",)

    def parameters(self, dimensions: int) -> dict[str, Parameter]:
        raise NotImplementedError

    def linear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Symbol of L: (S or 1, C or 1, *modes), or (S or 1, C, C, *modes) if it mixes channels."""
        raise NotImplementedError

    def nonlinear(self, grid: SpectralGrid, parameters: Mapping[str, Tensor], u: Tensor) -> Tensor:
        """Coefficients of N(u) from coefficients (S, C, *modes); the solver removes the aliased modes. Not called if
        degree is 1.
        """
        raise NotImplementedError

    def initial(self, grid: SpectralGrid, rng: np.random.Generator) -> Tensor:
        """Coefficients (C, *modes) of a random initial field; for the same state of `rng` the same on all grids that
        are fine enough.
        """
        raise NotImplementedError

    def symmetries(self, period: Sequence[float]) -> EquationSymmetries:
        """Translations, reflections of every axis and exchanges of axes of equal period; all channels are scalars."""
        return box_symmetries(period, len(self.channels(len(period))))


def box_symmetries(
    period: Sequence[float], channels: int, vector: bool = False, reflections: bool = True
) -> EquationSymmetries:
    """Translations along all axes and, with `reflections`, reflections and exchanges of axes that preserve the box.

    Channels are scalars or, with `vector`, the components of a vector, which transform accordingly.
    """
    d = len(period)
    generators, maps = [], []
    for axis in range(d):
        space = np.zeros((d, d + 1))
        space[axis, d] = 1.0
        generators.append(Transformation(f"translation_{AXES[axis]}", space, np.zeros((channels, channels))))
    if reflections:
        for axis in range(d):
            space = np.eye(d, d + 1)
            space[axis, axis] = -1.0
            maps.append(_acting(f"reflection_{AXES[axis]}", space, channels, vector))
        for first in range(d):
            for second in range(first + 1, d):
                if period[first] == period[second]:
                    space = np.eye(d, d + 1)
                    space[[first, second]] = space[[second, first]]
                    maps.append(_acting(f"exchange_{AXES[first]}{AXES[second]}", space, channels, vector))
    return EquationSymmetries(tuple(generators), tuple(maps))


def _acting(name: str, space: np.ndarray, channels: int, vector: bool) -> Transformation:
    d = len(space)
    return Transformation(name, space, space[:, :d].copy() if vector else np.eye(channels))
