"""The evaluation and its derivatives as torch custom operators, which `torch.compile` traces as single calls.

`modulated_siren`, `modulated_siren_backward` and `modulated_siren_tangents` run on the backend named in the call;
`modulated_siren_jacobian` always runs on the blocked path. Custom operators take flat lists of tensors: this module
packs `SirenArguments` into them and back. Second derivatives (`create_graph`) differentiate the reference, whose memory
grows with points times layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import reference
from .arguments import MODULATIONS, SAMPLE_DIMS, Gradients, SirenArguments
from .cpu import blocked

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_ARGUMENTS = (
    "Tensor x, Tensor[] hidden_weights, Tensor shift, Tensor? gain, Tensor? output_weight, Tensor? output_bias, "
    "int[]? offsets"
)
_PARAMETERS = f"{_ARGUMENTS}, str backend, str precision"
_TANGENTS = ", ".join(f"Tensor? {name}_tangent" for name in SAMPLE_DIMS)
_MAPS = ", ".join(f"Tensor? {name}_map" for name in MODULATIONS)
_logged: set[str] = set()


def log_once(reason: str) -> None:
    """Log the reason of a fallback the first time it occurs."""
    if reason not in _logged:
        _logged.add(reason)
        logger.info("%s", reason)


def flatten(arguments: SirenArguments) -> tuple:
    """Arguments as the operators take them."""
    offsets = None if arguments.offsets is None else list(arguments.offsets)
    modulations = (getattr(arguments, name) for name in MODULATIONS)
    return arguments.x, list(arguments.hidden_weights), *modulations, offsets


def _unflatten(flat: Sequence) -> tuple[SirenArguments, list]:
    """Arguments of an operator and the parameters that follow them."""
    x, hidden_weights, shift, gain, output_weight, output_bias, offsets, *others = flat
    bounds = None if offsets is None else tuple(offsets)
    return SirenArguments(x, tuple(hidden_weights), shift, gain, output_weight, output_bias, bounds), others


def _present(names: Sequence[str], tensors: Sequence[Tensor | None]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in zip(names, tensors, strict=True) if tensor is not None}


def _without_autocast(device: torch.device) -> AbstractContextManager:
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def _run(
    subject: str,
    backend: str,
    device: torch.device,
    on_triton: Callable[[ModuleType], Result],
    on_torch: Callable[[], Result],
) -> Result:
    """Result of one path: that of Triton, given its package, if the backend is "triton" and no launch is refused."""
    with _without_autocast(device):
        if backend == "triton":
            from . import triton as kernels

            try:
                return on_triton(kernels)
            except kernels.launch.REFUSALS as refusal:
                log_once(f"{subject} on torch: {refusal}")
        return on_torch()


@torch.library.custom_op("inrflow_kernels::modulated_siren", mutates_args=(), schema=f"({_PARAMETERS}) -> Tensor")
def _siren(*flat: Any) -> Tensor:
    arguments, (backend, precision) = _unflatten(flat)
    return _run(
        "the SIREN runs",
        backend,
        arguments.x.device,
        lambda kernels: kernels.launch_forward.forward(arguments, precision),
        lambda: blocked.forward(arguments),
    )


@_siren.register_fake
def _(*flat):
    return _unflatten(flat)[0].new_result()


@torch.library.custom_op(
    "inrflow_kernels::modulated_siren_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {_PARAMETERS}, bool[] wanted) -> Tensor[]",
)
def _siren_backward(grad: Tensor, *flat: Any) -> list[Tensor]:
    """Wanted gradients, in the order of `SirenArguments.tensors`."""
    arguments, (backend, precision, wanted) = _unflatten(flat)
    gradients: Gradients = _run(
        "gradients of the SIREN run",
        backend,
        grad.device,
        lambda kernels: kernels.launch_backward.backward(arguments, grad, wanted, precision),
        lambda: blocked.backward(arguments, grad.contiguous(), wanted),
    )
    return gradients.tensors()


@_siren_backward.register_fake
def _(grad, *flat):
    arguments, (_, _, wanted) = _unflatten(flat)
    return [tensor.new_empty(tensor.shape) for tensor, flag in zip(arguments.tensors(), wanted, strict=True) if flag]


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, hidden_weights, shift, gain, output_weight, output_bias, *ctx.options = inputs
    ctx.save_for_backward(x, *hidden_weights, shift, gain, output_weight, output_bias)


def _differentiate(ctx: Any, grad: Tensor) -> tuple:
    x, *hidden_weights, shift, gain, output_weight, output_bias = ctx.saved_tensors
    offsets, backend, precision = ctx.options
    arguments, _ = _unflatten((x, hidden_weights, shift, gain, output_weight, output_bias, offsets))
    x_needed, weights_needed, *modulations_needed = ctx.needs_input_grad[:6]
    needed = [x_needed, *weights_needed, *modulations_needed]
    wanted = [flag for tensor, flag in zip(ctx.saved_tensors, needed, strict=True) if tensor is not None]
    if torch.is_grad_enabled():
        wanted_gradients = iter(_reference_gradients(arguments, wanted, grad))
    else:
        wanted_gradients = iter(_siren_backward(grad, *flatten(arguments), backend, precision, wanted))
    gradients = [
        next(wanted_gradients) if flag and tensor is not None else None
        for tensor, flag in zip(ctx.saved_tensors, needed, strict=True)
    ]
    layers = len(hidden_weights)
    return gradients[0], gradients[1 : layers + 1], *gradients[layers + 1 :], None, None, None


def _reference_gradients(arguments: SirenArguments, wanted: list[bool], grad: Tensor) -> list[Tensor | None]:
    """Differentiable gradients."""
    # One argument may be a function of another, whose gradient must not flow there a second time: views are leaves.
    arguments = arguments.map(lambda tensor: tensor.view_as(tensor))
    if arguments.output_weight is None:
        value = reference.siren_features(arguments).unsqueeze(0)
    else:
        value = reference.modulated_siren(arguments)
    targets = [tensor for tensor, flag in zip(arguments.tensors(), wanted, strict=True) if flag]
    return list(torch.autograd.grad(value, targets, grad, create_graph=True, allow_unused=True))


torch.library.register_autograd(_siren, _differentiate, setup_context=_setup_context)


@torch.library.custom_op(
    "inrflow_kernels::modulated_siren_tangents",
    mutates_args=(),
    schema=f"({_PARAMETERS}, {_TANGENTS}) -> (Tensor, Tensor)",
)
def _siren_tangents(*flat: Any) -> tuple[Tensor, Tensor]:
    arguments, (backend, precision, *given) = _unflatten(flat)
    tangents = _present(list(SAMPLE_DIMS), given)
    return _run(
        "tangents of the SIREN run",
        backend,
        arguments.x.device,
        lambda kernels: kernels.launch_forward.tangents(arguments, tangents, precision),
        lambda: blocked.tangents(arguments, tangents),
    )


@_siren_tangents.register_fake
def _(*flat):
    arguments, (_, _, *given) = _unflatten(flat)
    values = arguments.new_result()
    directions = next(tangent for tangent in given if tangent is not None).shape[0]
    return values, values.new_empty(directions, *values.shape)


@torch.library.custom_op(
    "inrflow_kernels::modulated_siren_jacobian",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, {_MAPS}) -> (Tensor, Tensor)",
)
def _siren_jacobian(*flat: Any) -> tuple[Tensor, Tensor]:
    arguments, given = _unflatten(flat)
    with _without_autocast(arguments.x.device):
        return blocked.jacobian(arguments, _present(MODULATIONS, given))


@_siren_jacobian.register_fake
def _(*flat):
    arguments, given = _unflatten(flat)
    values = arguments.new_result()
    return values, values.new_empty(*values.shape, next(m for m in given if m is not None).shape[0])


def evaluate(arguments: SirenArguments, backend: str, precision: str) -> Tensor:
    """Values, with gradients, on the "torch" or "triton" backend."""
    return _siren(*flatten(arguments), backend, precision)


def tangents(
    arguments: SirenArguments, moving: Mapping[str, Tensor], backend: str, precision: str
) -> tuple[Tensor, Tensor]:
    """Values and tangents, without a graph, on the "torch" or "triton" backend."""
    return _siren_tangents(*flatten(arguments), backend, precision, *(moving.get(name) for name in SAMPLE_DIMS))


def jacobian(arguments: SirenArguments, maps: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Values and their Jacobian in a code, without a graph, on the blocked path."""
    return _siren_jacobian(*flatten(arguments), *(maps.get(name) for name in MODULATIONS))
