"""The two functions callers use, and the choice of who computes them.

Callers do not choose: `auto` takes the Triton kernels on a CUDA device, the blocked path elsewhere, and the reference
wherever a function transform or forward-mode derivative is under way or the problem is so small that there is nothing to
save. A backend that was asked for by name and cannot serve falls back the same way; each reason is logged once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import blocked, reference
from .arguments import SirenArguments, check_arguments, check_trunk_arguments

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "triton", "reference")
PRECISIONS = ("auto", "fast", "accurate", "bf16")

_logged: set[str] = set()


def _log_once(reason: str) -> None:
    if reason not in _logged:
        _logged.add(reason)
        logger.info("%s", reason)


def _transformed(tensors: Sequence[Tensor]) -> bool:
    """Whether a torch.func transform or a forward-mode derivative is under way on any of the tensors."""
    if torch._C._are_functorch_transforms_active():
        return True
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def _fits_one_block(rows: int, width: int, element_size: int) -> bool:
    return rows <= blocked.block_rows(width, element_size, blocked.BACKWARD_BLOCK_BYTES)


def _choose(backend: str, arguments: SirenArguments) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}.")
    if backend == "reference":
        return backend
    if _transformed(arguments.tensors()):
        _log_once("the SIREN runs on its reference: a torch.func transform or forward-mode derivative is under way")
        return "reference"
    if backend == "triton":
        _log_once("the SIREN runs on torch: the Triton kernels cannot serve this call")
    small = _fits_one_block(arguments.rows, arguments.width, arguments.x.element_size())
    return "reference" if backend == "auto" and small and arguments.x.device.type == "cpu" else "torch"


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

    Returns (S, N, C), or (R, C) for ragged points; (1, N, C) where nothing is per sample. All in float64 if any argument
    is, else in float32. Where only the output layer is per sample and the points are shared, the hidden layers run once
    per point. First derivatives cost one more evaluation and no stored activations; second derivatives (create_graph)
    and torch.func transforms go through the reference.

    backend: auto, torch (blocks of rows), triton (fused kernels) or reference. precision, of the Triton kernels alone:
    fast (fp16 operands, fp32 accumulation), accurate (fp32-like), bf16, or auto (accurate).
    Raises ValueError where shapes, dtypes or names do not fit.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}.")
    arguments = check_arguments(x, hidden_weights, shift, gain, output_weight, output_bias, offsets)
    if _choose(backend, arguments) == "reference":
        return reference.modulated_siren(
            arguments.x,
            arguments.hidden_weights,
            arguments.shift,
            arguments.gain,
            arguments.output_weight,
            arguments.output_bias,
            offsets=arguments.offsets,
        )
    return blocked.modulated_siren(arguments)


def siren_features(x: Tensor, hidden_weights: Sequence[Tensor], shift: Tensor, *, backend: str = "auto") -> Tensor:
    """Last hidden activations (..., N, H) of the unmodulated trunk with shift (L, H) at points x (..., N, D).

    Evaluated in blocks; the backward pass evaluates them again, so nothing but the result is kept.
    Raises ValueError where shapes or names do not fit.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(BACKENDS)}.")
    x, weights, shift = check_trunk_arguments(x, hidden_weights, shift)
    rows = x.numel() // x.shape[-1]
    small = backend == "auto" and _fits_one_block(rows, weights[0].shape[0], x.element_size())
    if backend == "reference" or small or _transformed([x, shift, *weights]):
        return reference.siren_features(x, weights, shift)
    return blocked.siren_features(x, weights, shift)
