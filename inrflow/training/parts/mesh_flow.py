"""Completion of partly observed flows on a mesh: values between the observed nodes from an incompressible flow.

At nodes that nobody observed, data alone allow smooth interpolation. Where they obey the Navier-Stokes equations, a
simulated flow that follows the observations is used, if it meets observed nodes that were kept aside better.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from inrflow.data.completed import CompletedSource
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.errors import UserError
from inrflow.mesh_flow.complete import FlowModel, ObservedFlow, complete, find_model, steps_of
from inrflow.mesh_flow.elements import TaylorHood
from inrflow.training.margins import MESH_FLOW_PAYS
from inrflow.training.problem import Problem
from inrflow.training.run import Run

_CHANNELS = ["u", "v", "p"]
_FEWEST_FRAMES = 8
_SHARE, _SECONDS_PER_NODE = 0.4, 1.2e-6  # of the time; of a time step
_MOST_NODES = 50_000


def complete_by_flow(run: Run) -> Problem | None:
    """The problem with training data completed by their own flow; None where that is excluded or does not help.

    Raises UserError where `data.completion` asks for what the data cannot have.
    """
    wanted = run.config.data.completion
    if wanted == "none":
        return None
    obstacle = _obstacle(run)
    if obstacle:
        if wanted != "auto":
            raise UserError(f"data.completion={wanted}: {obstacle}; leave it out, or change the data")
        return None
    file, source, say = run.problem.file, run.problem.source, run.log.say
    x = file.read(0, slice(0, 1)).x
    try:
        elements = TaylorHood.of(x, file.read_extra("triangles"))
    except ValueError as error:
        if wanted != "auto":
            raise UserError(f"data.completion={wanted}: {error} in `triangles`; give a mesh") from error
        return None
    flows = [_observed(run, i) for i in range(len(source))]
    first = flows[int(run.problem.train[0])]
    if any(len(flow.nodes) < 2 or len(flow.t) < _FEWEST_FRAMES for flow in flows):
        return None
    seconds = steps_of(elements, first, len(flows)) * len(elements.nodes) * _SECONDS_PER_NODE
    if seconds > _SHARE * 60 * run.config.training.minutes or len(elements.nodes) > _MOST_NODES:
        say(f"the equation of an incompressible flow is not tried: it would take about {seconds / 60:.1f} minutes")
        return None
    model = find_model(elements, first, run.config.seed)
    if model is None:
        return None
    helps = float(model.missed.mean()) < MESH_FLOW_PAYS * float(model.interpolated.mean())
    say(
        f"incompressible flow of viscosity {model.viscosity:.3g}: observed points kept aside are missed by "
        f"{model.missed.mean():.1e} of the variance, {model.interpolated.mean():.1e} by smooth interpolation, so it is "
        + ("used between the observed points" if helps else "left out")
    )
    run.log.log("mesh_flow", 0, viscosity=model.viscosity, missed=float(model.missed.mean()))
    if not helps:
        return None
    return _completed(run, elements, flows, model)


def _obstacle(run: Run) -> str:
    """Why the equation cannot be that of these data; empty where it can, and something is left to be found."""
    file, description = run.problem.file, run.problem.description
    if list(description.channels) != _CHANNELS:
        return f"it needs the channels {', '.join(_CHANNELS)}"
    units = description.units
    if units and units[0] != units[1]:
        return "u and v have different units"
    if file.point_layout != "shared" or "triangles" not in file.extra:
        return "it needs points that all trajectories share, and their mesh `triangles`"
    if len(description.coordinates) != 2 or description.geometry or any(description.period or ()):
        return "it needs a plane domain that is not periodic"
    if run.config.data.points >= 1:
        return "all points are observed"
    return ""


def _observed(run: Run, trajectory: int) -> ObservedFlow:
    """The nodes of a trajectory that are observed in all of its frames."""
    batch = run.problem.source.batch([trajectory], normalised=False)
    valid = torch.isfinite(batch.t[0])
    u = batch.u[0, valid].double().numpy()
    complete_ones = np.isfinite(u).all((0, 2))
    nodes = run.problem.source.observed_points(trajectory)
    assert nodes is not None
    u = u[:, complete_ones]
    return ObservedFlow(batch.t[0, valid].numpy(), nodes[complete_ones], u[..., :2], u[..., 2])


def _completed(
    run: Run, elements: TaylorHood, flows: list[ObservedFlow], model: FlowModel
) -> Problem | None:
    source, values = run.problem.source, []
    for i, flow in enumerate(flows):
        found = complete(elements, flow, model)
        if found is None:
            run.log.say(f"the flow of trajectory {i} is not stable, so the equation is left out")
            return None
        whole = np.full((source.times.shape[1], *found.shape[1:]), np.nan)
        whole[: len(found)] = found
        seen = source.batch([i], normalised=False).u[0].double().numpy()
        nodes = source.observed_points(i)
        whole[:, nodes] = np.where(np.isfinite(seen), seen, whole[:, nodes])
        values.append(whole)
    scale = source.normalisation.scale.double()
    first = flows[int(run.problem.train[0])]
    variance = torch.as_tensor(model.missed * first.values.var((0, 1))) / scale.square()
    points = torch.as_tensor(elements.nodes[first.nodes])
    unseen = InterpolationError.between(points, variance.expand(len(points), -1).clone())
    return replace(run.problem, source=CompletedSource(source, elements.nodes, values), interpolation_error=unseen)
