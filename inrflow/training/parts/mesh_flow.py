"""Before a decoder is trained: values between the observed points, from an equation that the data obey.

At points that nobody observed, smooth interpolation is all that data alone allow. Where they obey a known equation,
a flow that follows it and the observations says more. It is used where observed nodes that were kept aside say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from inrflow.data.completed import CompletedSource
from inrflow.encoding.prior.interpolation_error import UnseenVariance
from inrflow.errors import UserError
from inrflow.mesh_flow.complete import FlowModel, ObservedFlow, complete, find_model, steps_of
from inrflow.mesh_flow.elements import TaylorHood
from inrflow.training.problem import TrainingSetup

_CHANNELS = ["u", "v", "p"]
_NEEDED = 0.25  # of what interpolation misses
_FEWEST_FRAMES = 8
_SHARE, _SECONDS_PER_NODE = 0.4, 1.2e-6  # of the time; of a time step
_MOST_NODES = 50_000


@dataclass
class Completed:
    """A source with values at all nodes, and what they miss where nothing was observed."""

    source: CompletedSource
    unseen: UnseenVariance


def completed_by_equation(setup: TrainingSetup) -> Completed | None:
    """The training data completed by the flow that they show, or None where that is not asked for or does not help.

    Raises UserError where `data.completion` asks for what the data cannot have.
    """
    wanted = setup.config.data.completion
    if wanted == "none":
        return None
    obstacle = _obstacle(setup)
    if obstacle:
        if wanted != "auto":
            raise UserError(f"data.completion={wanted}: {obstacle}; leave it out, or change the data")
        return None
    file, source, say = setup.file, setup.source, setup.recorder.say
    x = file.read(0, slice(0, 1)).x
    try:
        elements = TaylorHood.of(x, file.read_extra("triangles"))
    except ValueError as error:
        if wanted != "auto":
            raise UserError(f"data.completion={wanted}: {error} in `triangles`; give a mesh") from error
        return None
    flows = [_observed(setup, i) for i in range(len(source))]
    first = flows[int(setup.training[0])]
    if any(len(flow.nodes) < 2 or len(flow.t) < _FEWEST_FRAMES for flow in flows):
        return None
    seconds = steps_of(elements, first, len(flows)) * len(elements.nodes) * _SECONDS_PER_NODE
    if seconds > _SHARE * 60 * setup.config.training.minutes or len(elements.nodes) > _MOST_NODES:
        say(f"the equation of an incompressible flow is not tried: it would take about {seconds / 60:.1f} minutes")
        return None
    model = find_model(elements, first, setup.config.seed)
    if model is None:
        return None
    helps = float(model.missed.mean()) < _NEEDED * float(model.interpolated.mean())
    say(
        f"incompressible flow of viscosity {model.viscosity:.3g}: observed points kept aside are missed by "
        f"{model.missed.mean():.1e} of the variance, {model.interpolated.mean():.1e} by smooth interpolation, so it is "
        + ("used between the observed points" if helps else "left out")
    )
    setup.recorder.log("equation", 0, viscosity=model.viscosity, missed=float(model.missed.mean()))
    if not helps:
        return None
    return _completed(setup, elements, flows, model)


def _obstacle(setup: TrainingSetup) -> str:
    """Why the equation cannot be that of these data; empty where it can, and something is left to be found."""
    file, description = setup.file, setup.description
    if list(description.channels) != _CHANNELS:
        return f"it needs the channels {', '.join(_CHANNELS)}"
    units = description.units
    if units and units[0] != units[1]:
        return "u and v have different units"
    if file.point_layout != "shared" or "triangles" not in file.extra:
        return "it needs points that all trajectories share, and their mesh `triangles`"
    if len(description.coordinates) != 2 or description.geometry or any(description.period or ()):
        return "it needs a plane domain that is not periodic"
    if setup.source.fraction >= 1:
        return "all points are observed"
    return ""


def _observed(setup: TrainingSetup, trajectory: int) -> ObservedFlow:
    """The nodes of a trajectory that are observed in all of its frames."""
    batch = setup.source.batch([trajectory], normalised=False)
    valid = torch.isfinite(batch.t[0])
    u = batch.u[0, valid].double().numpy()
    complete_ones = np.isfinite(u).all((0, 2))
    nodes = setup.source.observed_points(trajectory)
    assert nodes is not None
    u = u[:, complete_ones]
    return ObservedFlow(batch.t[0, valid].numpy(), nodes[complete_ones], u[..., :2], u[..., 2])


def _completed(
    setup: TrainingSetup, elements: TaylorHood, flows: list[ObservedFlow], model: FlowModel
) -> Completed | None:
    source, values = setup.source, []
    for i, flow in enumerate(flows):
        found = complete(elements, flow, model)
        if found is None:
            setup.recorder.say(f"the flow of trajectory {i} is not stable, so the equation is left out")
            return None
        whole = np.full((source.times.shape[1], *found.shape[1:]), np.nan)
        whole[: len(found)] = found
        seen = source.batch([i], normalised=False).u[0].double().numpy()
        nodes = source.observed_points(i)
        whole[:, nodes] = np.where(np.isfinite(seen), seen, whole[:, nodes])
        values.append(whole)
    scale = source.normalisation.scale.double()
    first = flows[int(setup.training[0])]
    variance = torch.as_tensor(model.missed * first.values.var((0, 1))) / scale.square()
    points = torch.as_tensor(elements.nodes[first.nodes])
    unseen = UnseenVariance.between(points, variance.expand(len(points), -1).clone())
    return Completed(CompletedSource(source, elements.nodes, values), unseen)
