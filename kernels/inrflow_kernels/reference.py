"""The definition of the modulated SIREN in plain torch: every faster path is compared with this one.

    h_0 = x,   h_{l+1} = sin(gain_l * (W_l h_l) + shift_l),   u = V h_L + c

(Sitzmann et al. 2020, arXiv:2006.09661, with the modulations of Mehta et al. 2021, arXiv:2104.03960, as the caller computes
them). The frequency w0 and the hidden biases are folded into W and shift by the caller. Any floating dtype, any device,
differentiable twice, and open to every `torch.func` transform.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sample_of_rows(offsets: Sequence[int] | Tensor, device: torch.device | None = None) -> Tensor:
    """(R,) sample number of every row of a ragged point set with offsets (S+1,)."""
    bounds = torch.as_tensor(offsets, device=device)
    return torch.repeat_interleave(torch.arange(bounds.numel() - 1, device=bounds.device), bounds.diff())


def _per_point(modulation: Tensor, layer: int, rows: Tensor | None) -> Tensor:
    """Layer `layer` of a modulation (L, H) or (S, L, H), shaped to broadcast against activations (..., N, H)."""
    if modulation.dim() == 2:
        return modulation[layer]
    return modulation[:, layer].unsqueeze(1) if rows is None else modulation[rows, layer]


def siren_features(x: Tensor, hidden_weights: Sequence[Tensor], shift: Tensor) -> Tensor:
    """Last hidden activations (..., N, H) of the unmodulated trunk at points x (..., N, D)."""
    h = x
    for layer, weight in enumerate(hidden_weights):
        h = torch.sin(h @ weight.T + shift[layer])
    return h


def modulated_siren(
    x: Tensor,
    hidden_weights: Sequence[Tensor],
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor,
    *,
    offsets: Sequence[int] | Tensor | None = None,
) -> Tensor:
    """Field values (S, N, C), or (R, C) for ragged points. Shapes as in `inrflow_kernels.modulated_siren`."""
    rows = None if offsets is None else sample_of_rows(offsets, x.device)
    h = x
    for layer, weight in enumerate(hidden_weights):
        z = h @ weight.T
        if gain is not None:
            z = _per_point(gain, layer, rows) * z
        h = torch.sin(z + _per_point(shift, layer, rows))
    if output_weight.dim() == 2:
        u = h @ output_weight.T
    elif rows is None:
        u = h @ output_weight.transpose(1, 2)
    else:
        u = (output_weight[rows] @ h.unsqueeze(-1)).squeeze(-1)
    if output_bias.dim() == 2:
        output_bias = output_bias.unsqueeze(1) if rows is None else output_bias[rows]
    u = u + output_bias
    return u.unsqueeze(0) if rows is None and u.dim() == 2 else u
