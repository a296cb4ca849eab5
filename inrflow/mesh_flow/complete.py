"""Values of a flow at the nodes of its mesh that nobody observed, where the equation of the flow is known.

The viscosity, and how strongly observations pull, are those with which observed nodes that were kept aside are met
best; what is missed there says whether to believe the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.optimize import minimize_scalar

from inrflow.mesh_flow.boundary import Boundary, boundary_conditions
from inrflow.mesh_flow.elements import TaylorHood
from inrflow.mesh_flow.nudging import COURANT, Followed, NudgedFlow

_STRENGTHS = (0.3, 0.03)
_ASIDE, _FEWEST_ASIDE = 0.15, 5
_ROUGH_FRAMES, _SEARCH_FRAMES = 16, 30
_REYNOLDS = (1e1, 1e5)  # of the square root of the mesh's area
_PER_DECADE, _REFINEMENTS = 2, 7
_CLEARLY_WORSE = 1.5
_UNSTABLE = 1e6  # what a flow misses that has no stable step
_SMALLEST_MODE = 1e-2  # share of the largest
_NEIGHBOURS = 64


@dataclass
class ObservedFlow:
    """Observations of one trajectory.

    Attributes:
        t: (T,). nodes: (K,) observed vertices. velocity: (T, K, 2). pressure: (T, K).
    """

    t: np.ndarray
    nodes: np.ndarray
    velocity: np.ndarray
    pressure: np.ndarray

    def at(self, index: np.ndarray) -> ObservedFlow:
        """Of some of the observed nodes alone, by their place in `nodes`."""
        return ObservedFlow(self.t, self.nodes[index], self.velocity[:, index], self.pressure[:, index])

    def frames(self, count: int) -> ObservedFlow:
        """The first frames."""
        return ObservedFlow(self.t[:count], self.nodes, self.velocity[:count], self.pressure[:count])

    @property
    def values(self) -> np.ndarray:
        """(T, K, 3): both velocities and the pressure."""
        return np.concatenate([self.velocity, self.pressure[..., None]], axis=-1)


@dataclass
class FlowModel:
    """What the search found.

    Attributes:
        viscosity, strength: of the equation and of the nudging.
        missed, interpolated: mean square at the nodes kept aside, a share of each channel's variance, (3,), of the
            nudged flow and of smooth interpolation between the other nodes.
    """

    viscosity: float
    strength: float
    missed: np.ndarray
    interpolated: np.ndarray


def steps_of(elements: TaylorHood, observed: ObservedFlow, trajectories: int = 1) -> int:
    """About how many time steps `find_model` and the completion of so many trajectories take together."""
    speed = float(np.linalg.norm(observed.velocity, axis=-1).max())
    each = float(np.diff(observed.t).mean()) * speed / (COURANT * elements.height)
    tries = _PER_DECADE * np.log10(_REYNOLDS[1] / _REYNOLDS[0]) + 1
    short = tries * _ROUGH_FRAMES + (_REFINEMENTS + len(_STRENGTHS)) * _SEARCH_FRAMES
    frames = short + (1 + 2 * trajectories) * len(observed.t)
    return int(each * frames)


def find_model(elements: TaylorHood, observed: ObservedFlow, seed: int) -> FlowModel | None:
    """Viscosity and strength for these observations; None where too few nodes can be spared, or no flow is stable."""
    boundary = boundary_conditions(elements, observed.nodes, observed.velocity)
    inner = np.flatnonzero(~np.isin(observed.nodes, boundary.nodes))
    count = round(_ASIDE * len(inner))
    if count < _FEWEST_ASIDE:
        return None
    aside = np.random.default_rng([seed, 1]).permutation(inner)[:count]
    kept = np.setdiff1d(np.arange(len(observed.nodes)), aside)
    seen, kept_aside = observed.at(kept), observed.at(aside)
    start = _interpolated_start(elements, boundary, seen)
    scale = observed.values.var((0, 1))

    def missed(viscosity: float, strength: float, frames: int) -> np.ndarray:
        short = seen.frames(frames)
        flow = NudgedFlow(elements, boundary, short.nodes, strength).follow(short.t, short.velocity, start, viscosity)
        if flow is None:
            return np.full(3, _UNSTABLE)
        late = slice(frames // 2, frames)
        values = _values(elements, flow, short)[late, kept_aside.nodes]
        return np.square(values - kept_aside.values[late]).mean((0, 1)) / scale

    rough, few = (min(len(observed.t), count) for count in (_ROUGH_FRAMES, _SEARCH_FRAMES))
    size = np.sqrt(np.square(observed.velocity).sum(-1).mean()) * np.sqrt(elements.area.sum())
    decades = np.log10(_REYNOLDS[1] / _REYNOLDS[0])
    tries = np.log(size) - np.linspace(np.log(_REYNOLDS[0]), np.log(_REYNOLDS[1]), round(_PER_DECADE * decades) + 1)
    viscosity = np.exp(
        _least(
            lambda nu: float(missed(np.exp(nu), _STRENGTHS[0], rough).mean()),
            lambda nu: float(missed(np.exp(nu), _STRENGTHS[0], few).mean()),
            tries,
        )
    )
    strength = min(_STRENGTHS, key=lambda s: float(missed(viscosity, s, few).mean()))
    error = missed(viscosity, strength, len(observed.t))
    if not (error < _UNSTABLE).all():
        return None
    plain = _smooth(elements.nodes[seen.nodes], seen.values, elements.nodes[kept_aside.nodes]) - kept_aside.values
    return FlowModel(float(viscosity), strength, error, np.square(plain).mean((0, 1)) / scale)


def complete(elements: TaylorHood, observed: ObservedFlow, model: FlowModel) -> np.ndarray | None:
    """Both velocities and the pressure at all nodes of the elements, (T, M, 3); the observed values as they are.

    The flow is followed twice: the first time shows what states it takes, of which the one of the first frame is found
    that passes the observations there. None where it is not stable.
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
    values[:, elements.vertices :, 2] = elements.onto_nodes(values[:, : elements.vertices, 2])[:, elements.vertices :]
    return values


def _values(elements: TaylorHood, flow: Followed, observed: ObservedFlow) -> np.ndarray:
    """(T, M, 3), the pressure in the units of the observed one and at its level in each frame."""
    there = flow.pressure[:, observed.nodes]
    own, seen = (p - p.mean(1, keepdims=True) for p in (there, observed.pressure))
    factor = float((own * seen).sum() / max(float((own * own).sum()), 1e-300))
    level = observed.pressure.mean(1) - factor * there.mean(1)
    pressure = elements.onto_nodes(factor * flow.pressure + level[:, None])
    return np.concatenate([flow.velocity, pressure[..., None]], axis=-1)


def _smooth(x: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values (T, K, C) at points x (K, d), at other points: thin plates."""
    flat = values.transpose(1, 0, 2).reshape(len(x), -1)
    neighbours = None if len(x) <= 2000 else _NEIGHBOURS
    found = RBFInterpolator(x, flat, neighbors=neighbours, kernel="thin_plate_spline")(at)
    return found.reshape(len(at), len(values), -1).transpose(1, 0, 2)


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
    """The first frame's velocity (M, 2): the combination of states (F, M, 2) that fits it, and what is left, spread."""
    mean = states.mean(0)
    flat = (states - mean).reshape(len(states), -1)
    _, size, modes = np.linalg.svd(flat, full_matrices=False)
    modes = modes[size > _SMALLEST_MODE * max(size[0], 1e-300)][: len(observed.nodes)]
    basis = modes.reshape(len(modes), -1, 2)
    there = basis[:, observed.nodes].reshape(len(modes), -1)
    wanted = (observed.velocity[0] - mean[observed.nodes]).ravel()
    weights = np.linalg.lstsq(there.T, wanted, rcond=None)[0]
    found = mean + np.tensordot(weights, basis, axes=1)
    left = observed.velocity[0] - found[observed.nodes]
    return found + _spread(elements, boundary, observed.nodes, left, np.zeros_like(boundary.velocity))


def _least(rough, fine, tries: np.ndarray) -> float:  # noqa: ANN001
    """Where a function is least: the best of the tries by its `rough` values, refined by `fine` ones between the
    neighbours. The tries end once two in succession are clearly worse than the best."""
    scores: list[float] = []
    for value in tries:
        scores.append(rough(value))
        if len(scores) > 2 and min(scores[-2:]) > _CLEARLY_WORSE * min(scores):
            break
    best = int(np.argmin(scores))
    bounds = tries[max(best - 1, 0)], tries[min(best + 1, len(tries) - 1)]
    found = minimize_scalar(
        fine, bounds=sorted(bounds), method="bounded", options={"maxiter": _REFINEMENTS, "xatol": 0.01}
    )
    return float(found.x)
