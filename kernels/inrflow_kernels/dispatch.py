"""The functions callers use, and the choice of who computes them.

Callers do not choose: `auto` takes the Triton kernels on a CUDA device, the blocked path elsewhere, and the reference
wherever a function transform or forward-mode derivative is under way, or the problem is so small that there is nothing
to save. A backend that was asked for by name and cannot serve falls back the same way; each reason is logged once.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import blocked, operators, reference
from .arguments import SirenArguments, check_arguments, check_trunk_arguments
from .operators import log_once
from .tangents import check_maps, check_tangents

BACKENDS = ("auto", "torch", "triton", "reference")
PRECISIONS = ("auto", "fast", "accurate", "bf16")


def _transformed(tensors: Sequence[Tensor]) -> bool:
    """Whether a torch.func transform or a forward-mode derivative is under way on any of the tensors."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def _fits_one_block(arguments: SirenArguments) -> bool:
    on_cpu = arguments.x.device.type == "cpu"
    return on_cpu and arguments.rows <= blocked.rows_of_a_block(arguments, blocked.BACKWARD_BLOCK_BYTES)


def _triton_reason(arguments: SirenArguments) -> str | None:
    """Why the Triton kernels cannot serve, in words; None where they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    from . import launch_common

    return launch_common.unserved_reason(arguments)


def _choose(backend: str, arguments: SirenArguments) -> str:
    """The backend that serves: torch, triton or reference."""
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}.")
    if backend == "reference":
        return backend
    if _transformed(arguments.tensors()):
        log_once("the SIREN runs on its reference: a torch.func transform or forward-mode derivative is under way")
        return "reference"
    if backend == "auto" and arguments.x.device.type == "cpu":
        return "reference" if _fits_one_block(arguments) else "torch"
    if backend == "torch":
        return backend
    reason = _triton_reason(arguments)
    if reason is None:
        return "triton"
    log_once(f"the SIREN runs on torch: {reason}")
    return "torch"


def _precision(precision: str, arguments: SirenArguments) -> str:
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}.")
    if precision != "auto":
        return precision
    trained = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments.tensors())
    return "fast" if trained else "accurate"


def modulated_siren(
    x: Tensor,
    hidden_weights: Sequence[Tensor],
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor,
    *,
    offsets: Sequence[int] | Tensor | None = None,
    backend: str = "auto",
    precision: str = "auto",
) -> Tensor:
    """Field values of a modulated SIREN, u = V h_L + c with h_{l+1} = sin(gain_l * (W_l h_l) + shift_l) and h_0 = x.

    Shapes, with S samples, N points, D <= 16 coordinates, width H, L layers, C <= 16 channels; the frequency w0 and the
    hidden biases are folded in by the caller:

    - x: (N, D) shared by all samples, (S, N, D) per sample, or ragged (R, D) with `offsets` (S+1,), sample s owning the
      rows offsets[s]:offsets[s+1]
    - hidden_weights: L tensors, the first (H, D), the others (H, H)
    - shift: (L, H), or (S, L, H) per sample; gain: None or (S, L, H)
    - output_weight: (C, H) or (S, C, H); output_bias: (C,) or (S, C)

    Returns (S, N, C), or (R, C) for ragged points; (1, N, C) where nothing is per sample. All in float64 if any
    argument is, else in float32. Where only the output layer is per sample and the points are shared, the hidden layers
    run once per point. First derivatives cost one more evaluation and no stored activations; second derivatives
    (create_graph) and torch.func transforms go through the reference.

    backend: auto, torch (blocks of rows), triton (fused kernels) or reference. precision, of the Triton kernels alone:
    fast (fp16 operands, fp32 accumulation: errors of some 3e-4 of the values), accurate (like float32; gradients are
    then formed by torch), bf16, or auto: fast where a gradient is wanted, else accurate.
    Raises ValueError where shapes, dtypes or names do not fit.
    """
    arguments = check_arguments(x, hidden_weights, shift, gain, output_weight, output_bias, offsets)
    precision = _precision(precision, arguments)
    chosen = _choose(backend, arguments)
    if chosen == "reference":
        return reference.modulated_siren(*arguments.reference_arguments(), offsets=arguments.offsets)
    if chosen == "torch" and arguments.trunk_shared:
        trunk = replace(arguments, output_weight=None, output_bias=None)
        features = operators.evaluate(trunk, chosen, precision)[0]
        assert arguments.output_weight is not None and arguments.output_bias is not None
        return blocked.contract_outputs(features, arguments.output_weight, arguments.output_bias)
    return operators.evaluate(arguments, chosen, precision)


def siren_features(
    x: Tensor, hidden_weights: Sequence[Tensor], shift: Tensor, *, backend: str = "auto", precision: str = "auto"
) -> Tensor:
    """Last hidden activations (..., N, H) of the unmodulated trunk with shift (L, H) at points x (..., N, D).

    The backward pass evaluates them again, so nothing but the result is kept. backend and precision as in
    `modulated_siren`. Raises ValueError where shapes or names do not fit.
    """
    x, weights, shift = check_trunk_arguments(x, hidden_weights, shift)
    points = x.reshape(-1, x.shape[-1])
    arguments = SirenArguments(points, weights, shift, None, None, None, None)
    precision = _precision(precision, arguments)
    chosen = _choose(backend, arguments)
    if chosen == "reference":
        return reference.siren_features(x, weights, shift)
    if chosen == "triton":
        # Every unit is the output of a sample of its own: the fused kernels then write the activations themselves.
        unit = torch.eye(arguments.width, dtype=x.dtype, device=x.device).unsqueeze(1)
        arguments = replace(arguments, output_weight=unit, output_bias=unit.new_zeros(arguments.width, 1))
        return operators.evaluate(arguments, chosen, precision)[..., 0].T.reshape(*x.shape[:-1], -1)
    return operators.evaluate(arguments, chosen, precision).view(*x.shape[:-1], -1)


def modulated_siren_jvp(
    x: Tensor,
    hidden_weights: Sequence[Tensor],
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor,
    *,
    x_tangent: Tensor | None = None,
    shift_tangent: Tensor | None = None,
    gain_tangent: Tensor | None = None,
    output_weight_tangent: Tensor | None = None,
    output_bias_tangent: Tensor | None = None,
    offsets: Sequence[int] | Tensor | None = None,
    backend: str = "auto",
    precision: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Field values and their directional derivatives in K directions, carried forward in one pass.

    Each tangent is (K, *shape of its argument); those not given are zero. With tangents of modulations, the columns of
    a decoder's Jacobian (Gauss-Newton encoding); with tangents of x, derivatives of the field in space.
    Returns values as `modulated_siren` does, and tangents (K, *values' shape). Where a gradient is wanted the reference
    computes both, differentiably; precision auto is accurate. Raises ValueError where shapes or names do not fit.
    """
    arguments = check_arguments(x, hidden_weights, shift, gain, output_weight, output_bias, offsets)
    given = dict(
        x=x_tangent,
        shift=shift_tangent,
        gain=gain_tangent,
        output_weight=output_weight_tangent,
        output_bias=output_bias_tangent,
    )
    moving = check_tangents(arguments, given)
    tensors = [*arguments.tensors(), *moving.given().values()]
    chosen = _choose(backend, arguments)
    trained = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if chosen == "reference" or trained or _transformed(tensors):
        return reference.modulated_siren_jvp(
            *arguments.reference_arguments(), offsets=arguments.offsets, tangents=moving.given()
        )
    precision = _precision(precision, arguments)
    with torch.no_grad():
        return operators.tangents(arguments, moving, chosen, precision)


def modulated_siren_jacobian(
    x: Tensor,
    hidden_weights: Sequence[Tensor],
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor,
    *,
    shift_map: Tensor | None = None,
    gain_map: Tensor | None = None,
    output_weight_map: Tensor | None = None,
    output_bias_map: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Field values (S, N, C) and their Jacobian (S, N, C, Z) in the sample's code, on which the modulations depend
    linearly: what Gauss-Newton encoding solves with.

    Each map is the derivative (Z, ...) of its argument in the code, the same for all samples: shift_map and gain_map
    (Z, L, H), output_weight_map (Z, C, H), output_bias_map (Z, C); those not given are zero. Computed by one sweep back
    for each channel, in blocks, by torch on every device: the Triton kernels carry directions forward, which would cost
    Z evaluations of the network instead of C. Where a gradient is wanted the reference computes both, differentiably.
    Raises ValueError where shapes or names do not fit.
    """
    arguments = check_arguments(x, hidden_weights, shift, gain, output_weight, output_bias)
    maps = check_maps(
        arguments,
        dict(shift=shift_map, gain=gain_map, output_weight=output_weight_map, output_bias=output_bias_map),
    )
    tensors = [*arguments.tensors(), *maps.values()]
    chosen = _choose("torch" if backend == "triton" else backend, arguments)
    trained = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if chosen == "reference" or trained or _transformed(tensors):
        return reference.modulated_siren_jacobian(*arguments.reference_arguments(), maps=maps)
    with torch.no_grad():
        return operators.jacobian(arguments, maps)
