"""The definition of the modulated SIREN in plain torch: every faster path is compared with this one.

    h_0 = x,   h_{l+1} = sin(gain_l * (W_l h_l) + shift_l),   u = V h_L + c

(Sitzmann et al. 2020, arXiv:2006.09661, with the modulations of Mehta et al. 2021, arXiv:2104.03960, as the caller
computes them). The frequency w0 and the hidden biases are folded into W and shift by the caller. Any floating dtype,
any device, differentiable twice, and open to every `torch.func` transform.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def _output(h: Tensor, weight: Tensor, rows: Tensor | None) -> Tensor:
    """Activations times output weights, (N, C), (S, N, C) or (R, C)."""
    if weight.dim() == 2:
        return h @ weight.T
    if rows is None:
        return h @ weight.transpose(1, 2)
    return (weight[rows] @ h.unsqueeze(-1)).squeeze(-1)


def _add_bias(u: Tensor, bias: Tensor, rows: Tensor | None) -> Tensor:
    if bias.dim() == 2:
        bias = bias.unsqueeze(1) if rows is None else bias[rows]
    return u + bias


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
    u = _add_bias(_output(h, output_weight, rows), output_bias, rows)
    return u.unsqueeze(0) if rows is None and u.dim() == 2 else u


def modulated_siren_jvp(
    x: Tensor,
    hidden_weights: Sequence[Tensor],
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor,
    *,
    tangents: Mapping[str, Tensor],
    offsets: Sequence[int] | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Field values and their tangents (K, *values' shape) in K directions.

    `tangents` holds (K, *argument's shape) of any of x, shift, gain, output_weight, output_bias. Differentiable.
    """
    rows = None if offsets is None else sample_of_rows(offsets, x.device)
    h, products, slopes = x, [], []
    for layer, weight in enumerate(hidden_weights):
        z = h @ weight.T
        t = z if gain is None else _per_point(gain, layer, rows) * z
        t = t + _per_point(shift, layer, rows)
        products.append(z)
        slopes.append(torch.cos(t))
        h = torch.sin(t)
    u = _add_bias(_output(h, output_weight, rows), output_bias, rows)

    def along(**tangent: Tensor) -> Tensor:
        """The derivative of u in one direction: the chain rule, layer by layer."""
        moved = tangent.get("x")
        for layer, weight in enumerate(hidden_weights):
            terms = []
            if moved is not None:
                change = moved @ weight.T
                terms.append(change if gain is None else _per_point(gain, layer, rows) * change)
            if "gain" in tangent:
                terms.append(_per_point(tangent["gain"], layer, rows) * products[layer])
            if "shift" in tangent:
                terms.append(_per_point(tangent["shift"], layer, rows))
            moved = slopes[layer] * sum(terms) if terms else None
        du = torch.zeros_like(u)
        if moved is not None:
            du = du + _output(moved, output_weight, rows)
        if "output_weight" in tangent:
            du = du + _output(h, tangent["output_weight"], rows)
        return _add_bias(du, tangent["output_bias"], rows) if "output_bias" in tangent else du

    directions = next(iter(tangents.values())).shape[0]
    changes = [along(**{name: tangent[k] for name, tangent in tangents.items()}) for k in range(directions)]
    single = rows is None and u.dim() == 2
    return (u.unsqueeze(0) if single else u), torch.stack([du.unsqueeze(0) if single else du for du in changes])


def modulated_siren_jacobian(
    x: Tensor,
    hidden_weights: Sequence[Tensor],
    shift: Tensor,
    gain: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor,
    *,
    maps: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Field values (S, N, C) and their Jacobian (S, N, C, Z) in a code on which the modulations depend linearly.

    `maps` holds the derivatives (Z, *argument's shape without samples) of any of shift, gain, output_weight,
    output_bias. Differentiable. One sweep back from each channel, whatever the size Z of the code: directions carried
    forward would each cost an evaluation of the network. No ragged points.
    """
    h, products, slopes = x, [], []
    for layer, weight in enumerate(hidden_weights):
        z = h @ weight.T
        t = z if gain is None else _per_point(gain, layer, None) * z
        t = t + _per_point(shift, layer, None)
        products.append(z)
        slopes.append(torch.cos(t))
        h = torch.sin(t)
    u = _add_bias(_output(h, output_weight, None), output_bias, None)
    u = u.unsqueeze(0) if u.dim() == 2 else u

    def sweep(channel: int) -> Tensor:
        """The derivative (S or 1, N, Z) of one channel."""
        back = output_weight[..., channel, :]
        back = back if back.dim() == 1 else back.unsqueeze(1)
        change: Tensor | float = 0.0
        if "output_weight" in maps:
            change = change + h @ maps["output_weight"][:, channel].T
        if "output_bias" in maps:
            change = change + maps["output_bias"][:, channel]
        for layer in reversed(range(len(hidden_weights))):
            delta = back * slopes[layer]
            if "shift" in maps:
                change = change + delta @ maps["shift"][:, layer].T
            if "gain" in maps:
                change = change + (delta * products[layer]) @ maps["gain"][:, layer].T
            if layer:
                back = (delta if gain is None else _per_point(gain, layer, None) * delta) @ hidden_weights[layer]
        assert isinstance(change, Tensor)
        return change.expand(*u.shape[:2], -1)

    return u, torch.stack([sweep(channel) for channel in range(u.shape[-1])], 2)
