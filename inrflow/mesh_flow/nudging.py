"""Incompressible flow nudged to observations (continuous data assimilation: Azouani, Olson and Titi 2014).

    du/dt + (u . grad) u + grad p = nu laplace u + strength (observed - u),    div u = 0

with the nudging term at observed nodes only. Such a flow converges to the observed one from any start, between the
observed nodes too. Viscosity, pressure and nudging are implicit (their matrix is factorised once), convection is
extrapolated from the last two steps (Adams-Bashforth).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.interpolate import make_interp_spline
from scipy.sparse.linalg import SuperLU, splu

from inrflow.mesh_flow.boundary import Boundary
from inrflow.mesh_flow.elements import TaylorHood

COURANT = 0.2  # Courant number of a time step, for the largest speed and the smallest triangle
_HALVINGS = 2
_UNSTABLE = 20.0  # speed, relative to the largest observed one, at which a solution counts as unstable


@dataclass
class FlowTrajectory:
    """Solution at the observed times: velocity (T, M, 2) at the elements' nodes, pressure (T, V) at the vertices."""

    velocity: np.ndarray
    pressure: np.ndarray


class NudgedFlow:
    """Navier-Stokes flow on a mesh with Dirichlet conditions, nudged at some vertices.

    Args:
        nudged: (K,) vertices. strength: rate of the nudging times the time step.
    """

    def __init__(self, elements: TaylorHood, boundary: Boundary, nudged: np.ndarray, strength: float = 0.3) -> None:
        self.elements, self.boundary, self.nudged, self.strength = elements, boundary, nudged, strength
        size = len(elements.nodes)
        self._free = np.setdiff1d(np.arange(size), boundary.nodes)
        self._at = elements.lumped[nudged]
        inside = np.isin(np.unique(elements.edges[elements.boundary]), boundary.nodes).all()
        self._pressures = np.arange(1 if inside else 0, elements.vertices)  # closed: pressure up to a constant

    def follow(self, t: np.ndarray, observed: np.ndarray, start: np.ndarray, viscosity: float) -> FlowTrajectory | None:
        """Solution at times t (T,) from `start` (M, 2), nudged to the observed velocity (T, K, 2) at the vertices.

        None if it is unstable with all step sizes.
        """
        speed = float(np.linalg.norm(observed, axis=-1).max())
        between = make_interp_spline(t, observed, k=min(3, len(t) - 1))
        largest = COURANT * self.elements.height / max(speed, 1e-300)
        for halving in range(_HALVINGS):
            with np.errstate(over="ignore", invalid="ignore"):
                path = self._follow(t, between, start, viscosity, largest / 2**halving, _UNSTABLE * speed)
            if path is not None:
                return path
        return None

    def _follow(
        self, t: np.ndarray, between, start: np.ndarray, viscosity: float, largest: float, limit: float,  # noqa: ANN001
    ) -> FlowTrajectory | None:
        elements, free = self.elements, self._free
        velocity = start.copy()
        velocity[self.boundary.nodes] = self.boundary.velocity
        pressure = np.zeros(elements.vertices)
        result = FlowTrajectory(np.empty((len(t), *start.shape)), np.empty((len(t), elements.vertices)))
        result.velocity[0] = velocity
        before: tuple[np.ndarray, float] | None = None
        step, system = 0.0, None
        for frame in range(1, len(t)):
            count = max(2, int(np.ceil((t[frame] - t[frame - 1]) / largest)))
            wanted = (t[frame] - t[frame - 1]) / count
            if system is None or abs(wanted - step) > 1e-9 * step:
                step, system = wanted, _System(self, wanted, viscosity)
            targets = between(t[frame - 1] + step * np.arange(1, count + 1))
            for k in range(count):
                carried = elements.convection(velocity)
                ahead = carried
                if before is not None:
                    ahead = carried + step / before[1] / 2 * (carried - before[0])
                before = carried, step
                right = elements.mass @ velocity / step - ahead
                right[self.nudged] += (self.strength / step * self._at)[:, None] * targets[k]
                velocity = velocity.copy()
                velocity[free], pressure = system.solve(right)
                if frame == 1 and k == 1:  # the pressure of the first step corrects a start that is not divergence-free
                    result.pressure[0] = pressure
            if not np.abs(velocity).max() < limit:
                return None
            result.velocity[frame], result.pressure[frame] = velocity, pressure
        return result


class _System:
    """Factorised linear system of the implicit part of a time step."""

    def __init__(self, flow: NudgedFlow, step: float, viscosity: float) -> None:
        elements, free, kept = flow.elements, flow._free, flow._pressures
        pull = np.zeros(len(elements.nodes))
        pull[flow.nudged] = flow.strength / step * flow._at
        matrix = (elements.mass / step + viscosity * elements.stiffness + sparse.diags(pull)).tocsr()
        along = [part[kept] for part in elements.divergence]
        self._vertices, self._kept, self._free = elements.vertices, kept, free
        known, values = flow.boundary.nodes, flow.boundary.velocity
        self._from_boundary = matrix[free][:, known] @ values
        self._inflow = sum(part[:, known] @ values[:, k] for k, part in enumerate(along))
        own, (dx, dy) = matrix[free][:, free], [part[:, free] for part in along]
        whole = sparse.bmat([[own, None, -dx.T], [None, own, -dy.T], [dx, dy, None]]).tocsc()
        self._factors: SuperLU = splu(  # symmetric pattern: this ordering has the least fill-in
            whole, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.01, options={"SymmetricMode": True}
        )

    def solve(self, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Velocity (F, 2) of the free nodes, and pressure (V,)."""
        own = right[self._free] - self._from_boundary
        solution = self._factors.solve(np.concatenate([own[:, 0], own[:, 1], -self._inflow]))
        pressure, count = np.zeros(self._vertices), len(self._free)
        pressure[self._kept] = solution[2 * count:]
        return solution[: 2 * count].reshape(2, count).T, pressure
