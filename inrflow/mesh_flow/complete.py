"""Completion of a flow: values at the unobserved nodes of its mesh from a nudged Navier-Stokes solution.

Viscosity and nudging strength minimise the error at held-out observed nodes; the comparison of this error with that of
interpolation decides whether the result is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.optimize import minimize_scalar

from inrflow.mesh_flow.boundary import Boundary, boundary_conditions
from inrflow.mesh_flow.elements import TaylorHood
from inrflow.mesh_flow.nudging import COURANT, FlowTrajectory, NudgedFlow

_STRENGTHS = (0.3, 0.03)
_HELD_OUT, _FEWEST_HELD_OUT = 0.15, 5  # share of the inner observed nodes, and the least number
_ROUGH_FRAMES, _SEARCH_FRAMES = 16, 30  # frames for the scan of viscosities, and for its refinement
_REYNOLDS = (1e1, 1e5)  # range of the scan, with the square root of the mesh's area as length
_PER_DECADE, _REFINEMENTS = 2, 7
_CLEARLY_WORSE = 1.5  # ratio to the smallest error; the scan ends after two such errors in succession
_UNSTABLE = 1e6  # error assigned to a flow without a stable step
_SMALLEST_MODE = 1e-2  # least singular value relative to the largest
_NEIGHBOURS = 64  # neighbours for interpolation between many nodes


@dataclass
class ObservedFlow:
    """Observations of one trajectory of a flow.

    Attributes:
        t: (T,). nodes: (K,) observed vertices. velocity: (T, K, 2). pressure: (T, K).
    """

    t: np.ndarray
    nodes: np.ndarray
    velocity: np.ndarray
    pressure: np.ndarray

    def at(self, index: np.ndarray) -> ObservedFlow:
        """Observations at a subset of the nodes, by indices into `nodes`."""
        return ObservedFlow(self.t, self.nodes[index], self.velocity[:, index], self.pressure[:, index])

    def frames(self, count: int) -> ObservedFlow:
        """Observations of the first `count` frames."""
        return ObservedFlow(self.t[:count], self.nodes, self.velocity[:count], self.pressure[:count])

    @property
    def values(self) -> np.ndarray:
        """Both velocities and the pressure (T, K, 3)."""
        return np.concatenate([self.velocity, self.pressure[..., None]], axis=-1)


@dataclass
class FlowModel:
    """Fitted viscosity and nudging strength, with their errors.

    Attributes:
        viscosity, strength: of the equation and of the nudging.
        missed, interpolated: mean squared errors (3,) at held-out nodes, relative to each channel's variance, of the
            nudged flow and of smooth interpolation between the other nodes.
    """

    viscosity: float
    strength: float
    missed: np.ndarray
    interpolated: np.ndarray


def steps_of(elements: TaylorHood, observed: ObservedFlow, trajectories: int = 1) -> int:
    """Estimated number of time steps of `find_model` and of the completion of all trajectories together."""
    speed = float(np.linalg.norm(observed.velocity, axis=-1).max())
    each = float(np.diff(observed.t).mean()) * speed / (COURANT * elements.height)
    tries = _PER_DECADE * np.log10(_REYNOLDS[1] / _REYNOLDS[0]) + 1
    short = tries * _ROUGH_FRAMES + (_REFINEMENTS + len(_STRENGTHS)) * _SEARCH_FRAMES
    frames = short + (1 + 2 * trajectories) * len(observed.t)
    return int(each * frames)


def find_model(elements: TaylorHood, observed: ObservedFlow, seed: int) -> FlowModel | None:
    """Viscosity and nudging strength fitted to observations. None with too few nodes, or if no flow is stable."""
    boundary = boundary_conditions(elements, observed.nodes, observed.velocity)
    inner = np.flatnonzero(~np.isin(observed.nodes, boundary.nodes))
    count = round(_HELD_OUT * len(inner))
    if count < _FEWEST_HELD_OUT:
        return None
    chosen = np.random.default_rng([seed, 1]).permutation(inner)[:count]
    kept = np.setdiff1d(np.arange(len(observed.nodes)), chosen)
    used, held_out = observed.at(kept), observed.at(chosen)
    start = _interpolated_start(elements, boundary, used)
    scale = observed.values.var((0, 1))

    def error(viscosity: float, strength: float, frames: int) -> np.ndarray:
        short = used.frames(frames)
        flow = NudgedFlow(elements, boundary, short.nodes, strength).follow(short.t, short.velocity, start, viscosity)
        if flow is None:
            return np.full(3, _UNSTABLE)
        late = slice(frames // 2, frames)
        values = _values(elements, flow, short)[late, held_out.nodes]
        return np.square(values - held_out.values[late]).mean((0, 1)) / scale

    rough, few = (min(len(observed.t), count) for count in (_ROUGH_FRAMES, _SEARCH_FRAMES))
    size = np.sqrt(np.square(observed.velocity).sum(-1).mean()) * np.sqrt(elements.area.sum())
    decades = np.log10(_REYNOLDS[1] / _REYNOLDS[0])
    tries = np.log(size) - np.linspace(np.log(_REYNOLDS[0]), np.log(_REYNOLDS[1]), round(_PER_DECADE * decades) + 1)
    viscosity = np.exp(
        _least(
            lambda nu: float(error(np.exp(nu), _STRENGTHS[0], rough).mean()),
            lambda nu: float(error(np.exp(nu), _STRENGTHS[0], few).mean()),
            tries,
        )
    )
    strength = min(_STRENGTHS, key=lambda s: float(error(viscosity, s, few).mean()))
    missed = error(viscosity, strength, len(observed.t))
    if not (missed < _UNSTABLE).all():
        return None
    plain = _smooth(elements.nodes[used.nodes], used.values, elements.nodes[held_out.nodes]) - held_out.values
    return FlowModel(float(viscosity), strength, missed, np.square(plain).mean((0, 1)) / scale)


def complete(elements: TaylorHood, observed: ObservedFlow, model: FlowModel) -> np.ndarray | None:
    """Velocities and pressure (T, M, 3) at all nodes of the elements; observed values are unchanged.

    The flow is solved twice: first from an interpolated start, then from the combination of its later states that fits
    the observations of the first frame. None if it is not stable.
    """
    boundary = boundary_conditions(elements, observed.nodes, observed.velocity)
    flow = NudgedFlow(elements, boundary, observed.nodes, model.strength)
    start = _interpolated_start(elements, boundary, observed)
    first = flow.follow(observed.t, observed.velocity, start, model.viscosity)
    if first is None:
        return None
    start = _start_among(first.velocity[len(observed.t) // 2 :], elements, boundary, observed)
    second = flow.follow(observed.t, observed.velocity, start, model.viscosity)
    if second is None:
        return None
    second.velocity[:, observed.nodes] = observed.velocity
    values = _values(elements, second, observed)
    values[:, observed.nodes] = observed.values
    values[:, elements.vertices :, 2] = elements.interpolated_to_nodes(values[:, : elements.vertices, 2])[:,
        elements.vertices :]
    return values


def _values(elements: TaylorHood, flow: FlowTrajectory, observed: ObservedFlow) -> np.ndarray:
    """Velocities and pressure (T, M, 3), the pressure scaled (once) and shifted (per frame) to fit the observed one."""
    there = flow.pressure[:, observed.nodes]
    own, measured = (p - p.mean(1, keepdims=True) for p in (there, observed.pressure))
    factor = float((own * measured).sum() / max(float((own * own).sum()), 1e-300))
    level = observed.pressure.mean(1) - factor * there.mean(1)
    pressure = elements.interpolated_to_nodes(factor * flow.pressure + level[:, None])
    return np.concatenate([flow.velocity, pressure[..., None]], axis=-1)


def _smooth(x: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolation of values (T, K, C) from points x (K, d) to other points by thin plate splines."""
    flat = values.transpose(1, 0, 2).reshape(len(x), -1)
    neighbours = None if len(x) <= 2000 else _NEIGHBOURS
    interpolated = RBFInterpolator(x, flat, neighbors=neighbours, kernel="thin_plate_spline")(at)
    return interpolated.reshape(len(at), len(values), -1).transpose(1, 0, 2)


def _interpolated_start(elements: TaylorHood, boundary: Boundary, observed: ObservedFlow) -> np.ndarray:
    return _spread(elements, boundary, observed.nodes, observed.velocity[0], boundary.velocity)


def _spread(
    elements: TaylorHood, boundary: Boundary, nodes: np.ndarray, velocity: np.ndarray, at_boundary: np.ndarray
) -> np.ndarray:
    """Smooth velocities (M, 2) through some nodes and the boundary."""
    free = ~np.isin(nodes, boundary.nodes)
    x = np.concatenate([elements.nodes[boundary.nodes], elements.nodes[nodes[free]]])
    return _smooth(x, np.concatenate([at_boundary, velocity[free]])[None], elements.nodes)[0]


def _start_among(
    states: np.ndarray, elements: TaylorHood, boundary: Boundary, observed: ObservedFlow
) -> np.ndarray:
    """Velocity (M, 2) of the first frame: the combination of states (F, M, 2) that fits it best, plus the interpolated
    residual."""
    mean = states.mean(0)
    flat = (states - mean).reshape(len(states), -1)
    _, size, modes = np.linalg.svd(flat, full_matrices=False)
    modes = modes[size > _SMALLEST_MODE * max(size[0], 1e-300)][: len(observed.nodes)]
    basis = modes.reshape(len(modes), -1, 2)
    there = basis[:, observed.nodes].reshape(len(modes), -1)
    target = (observed.velocity[0] - mean[observed.nodes]).ravel()
    weights = np.linalg.lstsq(there.T, target, rcond=None)[0]
    fitted = mean + np.tensordot(weights, basis, axes=1)
    residual = observed.velocity[0] - fitted[observed.nodes]
    return fitted + _spread(elements, boundary, observed.nodes, residual, np.zeros_like(boundary.velocity))


def _least(rough, fine, tries: np.ndarray) -> float:  # noqa: ANN001
    """Minimiser of a function: scan of `tries` with the cheap version `rough`, then bounded minimisation of `fine`
    between the neighbours of the best. The scan ends after two successive values clearly worse than the best."""
    scores: list[float] = []
    for value in tries:
        scores.append(rough(value))
        if len(scores) > 2 and min(scores[-2:]) > _CLEARLY_WORSE * min(scores):
            break
    best = int(np.argmin(scores))
    bounds = tries[max(best - 1, 0)], tries[min(best + 1, len(tries) - 1)]
    result = minimize_scalar(
        fine, bounds=sorted(bounds), method="bounded", options={"maxiter": _REFINEMENTS, "xatol": 0.01}
    )
    return float(result.x)
