"""The evaluation and its derivatives as torch operators, so that torch.compile sees one call and no loop over blocks.

`modulated_siren`, `modulated_siren_backward` and `modulated_siren_tangents` carry the blocked and the Triton path
alike; `backend` says which. `modulated_siren_jacobian` is the blocked path's alone.
Second derivatives (`create_graph`) differentiate the reference, whose memory grows with points times layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import blocked, reference
from .arguments import SirenArguments
from .gradients import Wanted
from .tangents import MOVABLE, Tangents

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_TENSORS = "Tensor x, Tensor shift, Tensor? gain, Tensor? output_weight, Tensor? output_bias, Tensor[] hidden_weights"
_PARAMETERS = f"{_TENSORS}, int[]? offsets, str backend, str precision"
_TANGENTS = ", ".join(f"Tensor? {name}_tangent" for name in MOVABLE)
_MAPS = ", ".join(f"Tensor? {name}_map" for name in MOVABLE[1:])
_logged: set[str] = set()


def log_once(reason: str) -> None:
    """Log a fallback's reason the first time it occurs."""
    if reason not in _logged:
        _logged.add(reason)
        logger.info("%s", reason)


def unless_too_large(what: str, launch: Callable[[], Result]) -> Result | None:
    """What a Triton launch gives; None, logged once, where this device has too little shared memory or registers."""
    from triton.runtime.errors import OutOfResources

    try:
        return launch()
    except OutOfResources as error:
        log_once(f"{what} on torch: {error}")
        return None


def without_autocast(device: torch.device) -> AbstractContextManager:
    """A context in which no automatic precision applies, on any device."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def _bundle(
    x: Tensor,
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor | None,
    output_bias: Tensor | None,
    hidden_weights: Sequence[Tensor],
    offsets: Sequence[int] | None,
) -> SirenArguments:
    bounds = None if offsets is None else tuple(offsets)
    return SirenArguments(x, tuple(hidden_weights), shift, gain, output_weight, output_bias, bounds)


@torch.library.custom_op("inrflow_kernels::modulated_siren", mutates_args=(), schema=f"({_PARAMETERS}) -> Tensor")
def _siren(
    x: Tensor,
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor | None,
    output_bias: Tensor | None,
    hidden_weights: list[Tensor],
    offsets: list[int] | None,
    backend: str,
    precision: str,
) -> Tensor:
    arguments = _bundle(x, shift, gain, output_weight, output_bias, hidden_weights, offsets)
    with without_autocast(x.device):
        if backend == "triton":
            from . import launch_forward

            found = unless_too_large("the SIREN runs", lambda: launch_forward.forward(arguments, precision))
            if found is not None:
                return found
        return blocked.forward(arguments)


@_siren.register_fake
def _(x, shift, gain, output_weight, output_bias, hidden_weights, offsets, backend, precision):
    return _bundle(x, shift, gain, output_weight, output_bias, hidden_weights, offsets).new_result()


@torch.library.custom_op(
    "inrflow_kernels::modulated_siren_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {_PARAMETERS}, bool[] wanted) -> Tensor[]",
)
def _siren_backward(
    grad: Tensor,
    x: Tensor,
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor | None,
    output_bias: Tensor | None,
    hidden_weights: list[Tensor],
    offsets: list[int] | None,
    backend: str,
    precision: str,
    wanted: list[bool],
) -> list[Tensor]:
    """The wanted gradients, in the order of `SirenArguments.tensors`."""
    arguments = _bundle(x, shift, gain, output_weight, output_bias, hidden_weights, offsets)
    flags = Wanted.of(arguments, wanted)
    with without_autocast(x.device):
        if backend == "triton":
            from . import launch_backward

            reason = launch_backward.backward_unserved_reason(arguments, precision)
            if reason is None:
                found = unless_too_large(
                    "gradients of the SIREN run",
                    lambda: launch_backward.backward(arguments, grad, flags, precision).found(),
                )
                if found is not None:
                    return found
            else:
                log_once(f"gradients of the SIREN run on torch: {reason}")
        return blocked.backward(arguments, grad.contiguous(), flags).found()


@_siren_backward.register_fake
def _(grad, x, shift, gain, output_weight, output_bias, hidden_weights, offsets, backend, precision, wanted):
    tensors = _bundle(x, shift, gain, output_weight, output_bias, hidden_weights, offsets).tensors()
    return [tensor.new_empty(tensor.shape) for tensor, flag in zip(tensors, wanted, strict=True) if flag]


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, shift, gain, output_weight, output_bias, hidden_weights, offsets, backend, precision = inputs
    ctx.save_for_backward(x, shift, gain, output_weight, output_bias, *hidden_weights)
    ctx.options = offsets, backend, precision


def _differentiate(ctx: Any, grad: Tensor) -> tuple:
    x, shift, gain, output_weight, output_bias, *hidden_weights = ctx.saved_tensors
    offsets, backend, precision = ctx.options
    needed = ctx.needs_input_grad
    single = (x, shift, gain, output_weight, output_bias)
    wanted = [flag for tensor, flag in zip(single, needed[:5], strict=True) if tensor is not None] + list(needed[5])
    if torch.is_grad_enabled():
        # An argument may follow from another, and its gradient must not go there twice: views have no such history.
        views: list[Any] = [None if tensor is None else tensor.view_as(tensor) for tensor in (*single, *hidden_weights)]
        x, shift, gain, output_weight, output_bias, *hidden_weights = views
        arguments = _bundle(x, shift, gain, output_weight, output_bias, hidden_weights, offsets)
        found = iter(_reference_gradients(arguments, wanted, grad))
    else:
        found = iter(_siren_backward(grad, *single, hidden_weights, offsets, backend, precision, wanted))
    flags = iter(wanted)
    gradients = [None if tensor is None or not next(flags) else next(found) for tensor in single]
    return (*gradients, [next(found) if next(flags) else None for _ in hidden_weights], None, None, None)


def _reference_gradients(arguments: SirenArguments, wanted: list[bool], grad: Tensor) -> list[Tensor | None]:
    """Gradients that have a graph of their own."""
    if arguments.output_weight is None:
        value = reference.siren_features(arguments.x, arguments.hidden_weights, arguments.shift).unsqueeze(0)
    else:
        value = reference.modulated_siren(*arguments.reference_arguments(), offsets=arguments.offsets)
    targets = [tensor for tensor, flag in zip(arguments.tensors(), wanted, strict=True) if flag]
    return list(torch.autograd.grad(value, targets, grad, create_graph=True, allow_unused=True))


torch.library.register_autograd(_siren, _differentiate, setup_context=_setup_context)


@torch.library.custom_op(
    "inrflow_kernels::modulated_siren_tangents",
    mutates_args=(),
    schema=f"({_PARAMETERS}, {_TANGENTS}) -> (Tensor, Tensor)",
)
def _siren_tangents(
    x: Tensor,
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor | None,
    output_bias: Tensor | None,
    hidden_weights: list[Tensor],
    offsets: list[int] | None,
    backend: str,
    precision: str,
    x_tangent: Tensor | None,
    shift_tangent: Tensor | None,
    gain_tangent: Tensor | None,
    output_weight_tangent: Tensor | None,
    output_bias_tangent: Tensor | None,
) -> tuple[Tensor, Tensor]:
    arguments = _bundle(x, shift, gain, output_weight, output_bias, hidden_weights, offsets)
    moving = Tangents(x_tangent, shift_tangent, gain_tangent, output_weight_tangent, output_bias_tangent)
    with without_autocast(x.device):
        if backend == "triton":
            from . import launch_forward

            reason = launch_forward.tangent_unserved_reason(arguments, precision)
            if reason is None:
                found = unless_too_large(
                    "tangents of the SIREN run", lambda: launch_forward.tangents(arguments, moving, precision)
                )
                if found is not None:
                    return found
            else:
                log_once(f"tangents of the SIREN run on torch: {reason}")
        return blocked.tangents(arguments, moving)


@_siren_tangents.register_fake
def _(x, shift, gain, output_weight, output_bias, hidden_weights, offsets, backend, precision, *tangents):
    values = _bundle(x, shift, gain, output_weight, output_bias, hidden_weights, offsets).new_result()
    return values, values.new_empty(Tangents(*tangents).directions, *values.shape)


@torch.library.custom_op(
    "inrflow_kernels::modulated_siren_jacobian",
    mutates_args=(),
    schema=f"({_TENSORS}, {_MAPS}) -> (Tensor, Tensor)",
)
def _siren_jacobian(
    x: Tensor,
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor | None,
    output_bias: Tensor | None,
    hidden_weights: list[Tensor],
    shift_map: Tensor | None,
    gain_map: Tensor | None,
    output_weight_map: Tensor | None,
    output_bias_map: Tensor | None,
) -> tuple[Tensor, Tensor]:
    arguments = _bundle(x, shift, gain, output_weight, output_bias, hidden_weights, None)
    given = dict(zip(MOVABLE[1:], (shift_map, gain_map, output_weight_map, output_bias_map), strict=True))
    with without_autocast(x.device):
        return blocked.jacobian(arguments, {name: found for name, found in given.items() if found is not None})


@_siren_jacobian.register_fake
def _(x, shift, gain, output_weight, output_bias, hidden_weights, *maps):
    values = _bundle(x, shift, gain, output_weight, output_bias, hidden_weights, None).new_result()
    size = next(found for found in maps if found is not None).shape[0]
    return values, values.new_empty(*values.shape, size)


def _tensors(arguments: SirenArguments) -> tuple:
    """The operators' tensor arguments."""
    output = arguments.output_weight, arguments.output_bias
    return arguments.x, arguments.shift, arguments.gain, *output, list(arguments.hidden_weights)


def _offsets(arguments: SirenArguments) -> list[int] | None:
    return None if arguments.offsets is None else list(arguments.offsets)


def evaluate(arguments: SirenArguments, backend: str, precision: str) -> Tensor:
    """Values with gradients by the blocked ("torch") or the Triton path."""
    return _siren(*_tensors(arguments), _offsets(arguments), backend, precision)


def tangents(arguments: SirenArguments, moving: Tangents, backend: str, precision: str) -> tuple[Tensor, Tensor]:
    """Values and tangents, without a graph, by the blocked ("torch") or the Triton path."""
    moved = [getattr(moving, name) for name in MOVABLE]
    return _siren_tangents(*_tensors(arguments), _offsets(arguments), backend, precision, *moved)


def jacobian(arguments: SirenArguments, maps: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Values and their Jacobian in a code, without a graph, by the blocked path."""
    return _siren_jacobian(*_tensors(arguments), *(maps.get(name) for name in MOVABLE[1:]))
