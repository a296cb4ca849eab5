"""Gradients of a solution's values with respect to query times and points, observed values, and states.

Values are those of an ordinary query. Gradients in times and points are first derivatives in closed form, attached to
the values; second derivatives that involve these are refused. Gradients in observations and states are torch's, through
assimilation, integration and decoding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inrflow.errors import UserError


def with_gradient(solution: Any, mean: Tensor, t: Any, x: Any, times: Tensor, points: Tensor, by_row: bool
                  ) -> Tensor:
    """The values `mean`, (R, C) of rows or (T, N, C), with their gradient; times and points as from `query_points`."""
    asked = [one for one in (t, x) if isinstance(one, Tensor) and one.requires_grad]
    state = solution.estimate.mean
    second = _Second.apply(*asked, *[state] * state.requires_grad)
    if state.requires_grad:
        values = _decoded(solution, times, points, by_row)[..., None]
        mixed = _Second.apply(*asked) if asked else values.new_zeros(())
        mean = mean + _Change.apply(values, torch.ones_like(values), mixed)
    if isinstance(x, Tensor) and x.requires_grad:
        slopes = solution._collected(times, points, by_row, ("dx",))["dx"]
        degrees = x.shape[-1] < points.shape[-1]
        places = (_on_sphere(x) if degrees else x).reshape(points.shape).to(mean)
        mean = mean + _Change.apply(places[..., None, :].expand(slopes.shape), slopes, second)
    if isinstance(t, Tensor) and t.requires_grad:
        moments, rates = t.reshape(-1).to(mean), _rates(solution, times, points, by_row)[..., None]
        mean = mean + _Change.apply(moments.reshape(-1, *[1] * (rates.ndim - 1)).expand(rates.shape), rates, second)
    return mean


class _Change(torch.autograd.Function):
    """Zeros (...) whose gradient in coordinates (..., d) is that of given slopes (..., d), plus `second`, a zero."""

    @staticmethod
    def forward(context: Any, coordinates: Tensor, slopes: Tensor, second: Tensor) -> Tensor:
        context.save_for_backward(slopes, second)
        return coordinates.new_zeros(slopes.shape[:-1])

    @staticmethod
    def backward(context: Any, change: Tensor) -> tuple[Tensor, None, None]:
        slopes, second = context.saved_tensors
        return change[..., None] * slopes + second, None, None


class _Second(torch.autograd.Function):
    """Zero, a function of all tensors on which slopes depend, whose gradient in these is refused."""

    @staticmethod
    def forward(context: Any, *given: Tensor) -> Tensor:
        context.set_materialize_grads(False)
        context.count = len(given)
        return given[0].new_zeros(())

    @staticmethod
    def backward(context: Any, change: Tensor | None) -> tuple[None, ...]:
        if change is not None:
            raise UserError("values of a solution have first derivatives in points and times alone, so that no "
                            "gradient goes through these; take differences of solution.derivatives(t, x)")
        return (None,) * context.count


def _on_sphere(degrees: Tensor) -> Tensor:
    """Unit vectors (..., 3) of longitudes and latitudes (..., 2)."""
    longitude, latitude = torch.deg2rad(degrees.double()).unbind(-1)
    across = torch.cos(latitude)
    return torch.stack([across * torch.cos(longitude), across * torch.sin(longitude), torch.sin(latitude)], -1)


def _decoded(solution: Any, times: Tensor, points: Tensor, by_row: bool) -> Tensor:
    """Decoded values of states with a gradient."""
    model, decoder = solution.surrogate, solution.surrogate.decoder
    if solution.estimate.residual is not None:
        raise UserError(f"the model of {model.description.name} adds a residual field that is conditioned on the "
                        "observations, which has no gradient; detach u, or train with training.residual_field=off")
    distinct, which = torch.unique(times, return_inverse=True)
    codes = solution.path.mean(model.scale.internal(distinct))[0][which, : model.code_size]
    if decoder.affine:
        offset, basis = (part.detach().double() for part in decoder.basis(points.to(_dtype(solution))))
        values = torch.einsum("ncz,nz->nc" if by_row else "ncz,tz->tnc", basis, codes) + offset
    else:
        x = points.to(_dtype(solution))
        values = decoder(x[:, None], codes.to(x))[:, 0] if by_row else decoder(x[None], codes.to(x))
    return model.normalisation.invert(values.double())


def _rates(solution: Any, times: Tensor, points: Tensor, by_row: bool) -> Tensor:
    """Time derivatives of the values at detached times and points, along the path of states, which has kinks at
    observed frames."""
    if solution.estimate.residual is not None:
        return solution._collected(times, points, by_row, ("dt",))["dt"]
    model = solution.surrogate
    with torch.no_grad():
        distinct, which = torch.unique(times, return_inverse=True)
        states = solution.path.mean(model.scale.internal(distinct))[0].detach()
        rates = solution.path.rate(model.scale.internal(distinct), states)[:, : model.code_size]
        x, rates = points.to(_dtype(solution)), rates[which]
        if model.decoder.affine:
            basis = model.decoder.basis(x)[1].double()
            change = torch.einsum("ncz,nz->nc" if by_row else "ncz,tz->tnc", basis, rates)
        else:
            places = x[:, None] if by_row else x.expand(len(which), *x.shape)
            basis = model.decoder.linearise(places, states[which, : model.code_size].to(x))[1].double()
            change = torch.einsum("bncz,bz->bnc", basis, rates)
            change = change[:, 0] if by_row else change
    return change * model.normalisation.scale.double() / model.scale.unit


def _dtype(solution: Any) -> torch.dtype:
    return next(solution.surrogate.decoder.parameters()).dtype
