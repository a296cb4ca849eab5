"""Public functions, and the choice of the backend that computes them.

"auto" selects the Triton kernels for CUDA tensors where they support the call, the blocked torch path otherwise, and
the reference under a `torch.func` transform or forward-mode derivative or for problems that fit one block. A backend
selected by name falls back in the same order; each reason is logged once.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import operators, reference
from .arguments import SirenArguments, check_arguments, check_derivatives, check_trunk_arguments
from .cpu import blocked
from .operators import log_once

BACKENDS = ("auto", "torch", "triton", "reference")
PRECISIONS = ("auto", "fast", "accurate", "bf16")


def _transformed(tensors: Iterable[Tensor]) -> bool:
    """Whether a torch.func transform is active or one of the tensors carries a forward-mode tangent."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def _is_exported() -> bool:
    """Whether torch.export traces the call."""
    return bool(getattr(torch.compiler, "is_exporting", bool)())  # since torch 2.7


def _trained(tensors: Iterable[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _fits_one_block(arguments: SirenArguments) -> bool:
    on_cpu = arguments.x.device.type == "cpu"
    return on_cpu and arguments.rows <= blocked.rows_per_block(arguments, blocked.BACKWARD_BLOCK_BYTES)


def _triton_is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _triton_reason(arguments: SirenArguments) -> str | None:
    """Why the Triton kernels do not support a call; None if they do."""
    if not _triton_is_installed():
        return "triton is not installed"
    from .triton import launch

    return launch.unsupported_reason(arguments)


def _check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}.")
    if backend == "triton" and not _triton_is_installed():
        raise ImportError("backend is 'triton', but triton is not installed; install triton or choose backend='auto'.")


def _choose(backend: str, arguments: SirenArguments) -> str:
    """Backend that computes the call: torch, triton or reference."""
    _check_backend(backend)
    if backend == "reference":
        return backend
    if _is_exported():  # the graph is to hold torch's own operations alone
        return "reference"
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
    return "fast" if _trained(arguments.tensors()) else "accurate"


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
    """Values of a modulated SIREN, u = V h_L + c with h_{l+1} = sin(gain_l * (W_l h_l) + shift_l) and h_0 = x.

    Shapes, with S samples, N points, D <= 16 coordinates, width H, L hidden layers and C <= 16 channels; the frequency
    w0 and the hidden biases are folded in by the caller:

    - x: (N, D) shared by all samples, (S, N, D) per sample, or ragged (R, D) with `offsets` (S+1,), where sample s owns
      the rows offsets[s]:offsets[s+1]
    - hidden_weights: L tensors, the first (H, D), the others (H, H)
    - shift: (L, H), or (S, L, H) per sample; gain: None or (S, L, H)
    - output_weight: (C, H) or (S, C, H); output_bias: (C,) or (S, C)

    Returns (S, N, C), or (R, C) for ragged points; (1, N, C) if nothing is per sample. The dtype is float64 if any
    argument is float64, else float32. If only the output layer is per sample and the points are shared, the hidden
    layers are evaluated once per point. First derivatives store no activations and evaluate the network once more;
    second derivatives (create_graph) and torch.func transforms use the reference.

    backend: "auto", "torch" (blocks of rows), "triton" (fused kernels) or "reference".
    precision of the Triton kernels: "fast" (fp16 operands, fp32 accumulation: relative error about 3e-4), "accurate"
    (as float32; gradients are computed by torch), "bf16", or "auto": fast where a gradient is required, else accurate.
    Raises ValueError for shapes, dtypes or names that do not fit, ImportError for backend "triton" without triton.
    """
    arguments = check_arguments(x, hidden_weights, shift, gain, output_weight, output_bias, offsets)
    precision = _precision(precision, arguments)
    chosen = _choose(backend, arguments)
    if chosen == "reference":
        return reference.modulated_siren(arguments)
    if chosen == "torch" and arguments.trunk_shared:
        features = operators.evaluate(arguments.trunk(), chosen, precision)[0]
        return blocked.contract_outputs(features, *arguments.output)
    return operators.evaluate(arguments, chosen, precision)


def siren_features(
    x: Tensor, hidden_weights: Sequence[Tensor], shift: Tensor, *, backend: str = "auto", precision: str = "auto"
) -> Tensor:
    """Last hidden activations (..., N, H) of the unmodulated trunk with shift (L, H) at points x (..., N, D).

    The backward pass evaluates the network once more and stores only the result. backend, precision and errors as in
    `modulated_siren`.
    """
    arguments = check_trunk_arguments(x, hidden_weights, shift)
    precision = _precision(precision, arguments)
    chosen = _choose(backend, arguments)
    if chosen == "reference":
        features = reference.siren_features(arguments)
    elif chosen == "triton":
        # The kernels write outputs only: the activations are those of H samples, each with a unit output weight.
        unit = torch.eye(arguments.width, dtype=arguments.x.dtype, device=x.device).unsqueeze(1)
        arguments = replace(arguments, output_weight=unit, output_bias=unit.new_zeros(arguments.width, 1))
        features = operators.evaluate(arguments, chosen, precision)[..., 0].T
    else:
        features = operators.evaluate(arguments, chosen, precision)
    return features.reshape(*x.shape[:-1], arguments.width)


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
    """Values and directional derivatives in K directions by one forward-mode pass (Jacobian-vector products).

    Each tangent is (K, *shape of its argument); omitted ones are zero. Tangents of x give spatial derivatives of the
    field, tangents of the modulations columns of its Jacobian.
    Returns the values of `modulated_siren` and their tangents (K, *values' shape). Where a gradient is required, the
    reference computes both, differentiably. Other arguments and errors as in `modulated_siren`.
    """
    arguments = check_arguments(x, hidden_weights, shift, gain, output_weight, output_bias, offsets)
    given = dict(
        x=x_tangent,
        shift=shift_tangent,
        gain=gain_tangent,
        output_weight=output_weight_tangent,
        output_bias=output_bias_tangent,
    )
    tangents = check_derivatives(arguments, given, "tangent")
    tensors = [*arguments.tensors(), *tangents.values()]
    chosen = _choose(backend, arguments)
    if chosen == "reference" or _trained(tensors) or _transformed(tensors):
        return reference.modulated_siren_jvp(arguments, tangents)
    precision = _precision(precision, arguments)
    with torch.no_grad():
        return operators.tangents(arguments, tangents, chosen, precision)


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
    """Values (S, N, C) and their Jacobian (S, N, C, Z) in the samples' codes, for Gauss-Newton encoding.

    The modulations are linear in the code. Each map is the derivative of its argument in the code, shared by all
    samples: shift_map and gain_map (Z, L, H), output_weight_map (Z, C, H), output_bias_map (Z, C); omitted ones are
    zero. Computed by torch on every device, in blocks, with one reverse sweep per channel: the forward mode of the
    Triton kernels would cost Z evaluations of the network instead of C. Where a gradient is required, the reference
    computes both, differentiably. Points are shared or per sample; other arguments and errors as in `modulated_siren`.
    """
    arguments = check_arguments(x, hidden_weights, shift, gain, output_weight, output_bias)
    given = dict(shift=shift_map, gain=gain_map, output_weight=output_weight_map, output_bias=output_bias_map)
    maps = check_derivatives(arguments, given, "map")
    tensors = [*arguments.tensors(), *maps.values()]
    _check_backend(backend)
    chosen = _choose("torch" if backend == "triton" else backend, arguments)
    if chosen == "reference" or _trained(tensors) or _transformed(tensors):
        return reference.modulated_siren_jacobian(arguments, maps)
    with torch.no_grad():
        return operators.jacobian(arguments, maps)
