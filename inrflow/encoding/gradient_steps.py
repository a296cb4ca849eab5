"""Encoding by a few gradient steps from zero, for decoders that are meta-trained for it (CORAL, Serrano et al., NeurIPS
2023; second-order meta-learning as in CAVIA, Zintgraf et al., ICML 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.decoders.base import Decoder
from inrflow.encoding.adam import frame_errors


def gradient_steps_encode(
    decoder: Decoder, x: Tensor, u: Tensor, steps: int = 3, rate: float = 1.0, create_graph: bool = False
) -> Tensor:
    """Codes (F, Z) of frames u (F, N, C) at points x (N, d) or (F, N, d) after `steps` inner steps from the zero code.

    Each step is gradient descent on the mean squared error of the frame's observed values. With `create_graph` the
    codes can be differentiated in the parameters of the decoder through the inner steps (second order); else they are
    detached. `rate` must be that of training. As errors are means over a frame, codes of order one need rates of order
    one or more; at 1e-2 codes stay near zero and the decoder does not train.
    """
    dtype = next(decoder.parameters()).dtype
    x, u = x.to(dtype), u.to(dtype)
    codes = u.new_zeros(len(u), decoder.code_size)
    with torch.enable_grad():
        for _ in range(steps):
            if not codes.requires_grad:
                codes.requires_grad_(True)
            errors = frame_errors(decoder, x, u, codes).sum()
            (slope,) = torch.autograd.grad(errors, codes, create_graph=create_graph)
            codes = codes - rate * slope
            if not create_graph:
                codes = codes.detach()
    return codes
