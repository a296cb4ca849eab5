"""Completion of partly observed flows on a mesh: values at unobserved nodes from an incompressible flow.

Without a model, unobserved nodes can only be interpolated. If the data obey the Navier-Stokes equations, a simulated
flow that is nudged to the observations is used instead, provided its error at held-out observed nodes is smaller.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from inrflow.config.train_schema import Config
from inrflow.data.completed import CompletedSource
from inrflow.data.source import TrajectorySource
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.errors import UserError
from inrflow.mesh_flow.complete import FlowModel, ObservedFlow, complete, find_model, steps_of
from inrflow.mesh_flow.elements import TaylorHood

_CHANNELS = ["u", "v", "p"]
_FEWEST_FRAMES = 8
_SHARE, _SECONDS_PER_NODE = 0.4, 1.2e-6  # largest share of the time budget; cost of a time step
_MOST_NODES = 50_000


def completed_by_flow(source: TrajectorySource, train: np.ndarray, config: Config, min_gain: float,
                      say: Callable[[str], None]) -> tuple[CompletedSource, InterpolationError] | None:
    """Source with trajectories completed by their own flow, and the error variance between the observed nodes; None if
    that is excluded or does not help.

    Args:
        train: indices of the training trajectories. min_gain: largest error of the flow at held-out nodes, relative to
        that
            of interpolation, for which it is used.
    Raises UserError if `data.completion` requests what the data do not allow.
    """
    wanted = config.data.completion
    if wanted == "none":
        return None
    obstacle = _obstacle(source)
    if obstacle:
        if wanted != "auto":
            raise UserError(f"data.completion={wanted}: {obstacle}; leave it out, or change the data")
        return None
    x = source.file.read(0, slice(0, 1)).x
    try:
        elements = TaylorHood.of(x, source.file.read_extra("triangles"))
    except ValueError as error:
        if wanted != "auto":
            raise UserError(f"data.completion={wanted}: {error} in `triangles`; give a mesh") from error
        return None
    flows = [_observed(source, i) for i in range(len(source))]
    first = flows[int(train[0])]
    if any(len(flow.nodes) < 2 or len(flow.t) < _FEWEST_FRAMES for flow in flows):
        return None
    seconds = steps_of(elements, first, len(flows)) * len(elements.nodes) * _SECONDS_PER_NODE
    if seconds > _SHARE * 60 * config.training.minutes or len(elements.nodes) > _MOST_NODES:
        say(f"incompressible flow: not tried, it would take about {seconds / 60:.1f} minutes")
        return None
    model = find_model(elements, first, config.seed)
    if model is None:
        return None
    helps = float(model.missed.mean()) < min_gain * float(model.interpolated.mean())
    say(
        f"incompressible flow of viscosity {model.viscosity:.3g}: error {model.missed.mean():.1e} of the variance at "
        f"held-out points, {model.interpolated.mean():.1e} by interpolation; "
        + ("used between the observed points" if helps else "left out")
    )
    return _completed(source, first, elements, flows, model, say) if helps else None


def _obstacle(source: TrajectorySource) -> str:
    """Reason why the flow equation does not apply to the data; empty if it does and some nodes are unobserved."""
    file, description = source.file, source.file.description
    if list(description.channels) != _CHANNELS:
        return f"it needs the channels {', '.join(_CHANNELS)}"
    units = description.units
    if units and units[0] != units[1]:
        return "u and v have different units"
    if file.point_layout != "shared" or "triangles" not in file.extra:
        return "it needs points that all trajectories share, and their mesh `triangles`"
    if len(description.coordinates) != 2 or description.geometry or any(description.period or ()):
        return "it needs a plane domain that is not periodic"
    if source.fraction >= 1:
        return "all points are observed"
    return ""


def _observed(source: TrajectorySource, trajectory: int) -> ObservedFlow:
    """Observations of a trajectory at the nodes that are observed in all of its frames."""
    batch = source.batch([trajectory], normalised=False)
    valid = torch.isfinite(batch.t[0])
    u = batch.u[0, valid].double().numpy()
    complete_ones = np.isfinite(u).all((0, 2))
    nodes = source.observed_points(trajectory)
    assert nodes is not None
    u = u[:, complete_ones]
    return ObservedFlow(batch.t[0, valid].numpy(), nodes[complete_ones], u[..., :2], u[..., 2])


def _completed(source: TrajectorySource, first: ObservedFlow, elements: TaylorHood, flows: list[ObservedFlow],
               model: FlowModel, say: Callable[[str], None]) -> tuple[CompletedSource, InterpolationError] | None:
    values = []
    for i, flow in enumerate(flows):
        found = complete(elements, flow, model)
        if found is None:
            say(f"incompressible flow: left out, it is unstable for trajectory {i}")
            return None
        whole = np.full((source.times.shape[1], *found.shape[1:]), np.nan)
        whole[: len(found)] = found
        seen = source.batch([i], normalised=False).u[0].double().numpy()
        nodes = source.observed_points(i)
        whole[:, nodes] = np.where(np.isfinite(seen), seen, whole[:, nodes])
        values.append(whole)
    scale = source.normalisation.scale.double()
    variance = torch.as_tensor(model.missed * first.values.var((0, 1))) / scale.square()
    points = torch.as_tensor(elements.nodes[first.nodes])
    unseen = InterpolationError.between(points, variance.expand(len(points), -1).clone())
    return CompletedSource(source, elements.nodes, values), unseen
