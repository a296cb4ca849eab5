"""Definition of the modulated SIREN and its derivatives in plain torch, to which every backend is compared.

    h_0 = x,   h_{l+1} = sin(gain_l * (W_l h_l) + shift_l),   u = V h_L + c

SIREN: Sitzmann et al. 2020, arXiv:2006.09661; modulations: Mehta et al. 2021, arXiv:2104.03960. The frequency w0 and
the hidden biases are folded into W and shift by the caller. All functions accept unchecked arguments of any floating
dtype on any device, are twice differentiable and support every `torch.func` transform.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .arguments import SirenArguments


def _samples_of_rows(arguments: SirenArguments) -> Tensor | None:
    """(R,) sample numbers of ragged points' rows; None for points (..., N, D)."""
    if arguments.offsets is None:
        return None
    counts = torch.as_tensor(arguments.offsets, device=arguments.x.device).diff()
    return torch.repeat_interleave(torch.arange(counts.numel(), device=counts.device), counts)


def _per_point(modulation: Tensor, layer: int, rows: Tensor | None) -> Tensor:
    """Layer `layer` of a modulation (L, H) or (S, L, H), broadcastable against activations (..., N, H)."""
    if modulation.dim() == 2:
        return modulation[layer]
    return modulation[:, layer].unsqueeze(1) if rows is None else modulation[rows, layer]


def _scaled(arguments: SirenArguments, layer: int, values: Tensor, rows: Tensor | None) -> Tensor:
    """gain_l * values."""
    return values if arguments.gain is None else _per_point(arguments.gain, layer, rows) * values


def _layer(arguments: SirenArguments, layer: int, h: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Product W_l h_l and preactivation gain_l * (W_l h_l) + shift_l."""
    product = h @ arguments.hidden_weights[layer].T
    return product, _scaled(arguments, layer, product, rows) + _per_point(arguments.shift, layer, rows)


def _linear(h: Tensor, weight: Tensor, rows: Tensor | None) -> Tensor:
    """Products (N, C), (S, N, C) or (R, C) of activations and output weights."""
    if weight.dim() == 2:
        return h @ weight.T
    if rows is None:
        return h @ weight.transpose(1, 2)
    return (weight[rows] @ h.unsqueeze(-1)).squeeze(-1)


def _add_bias(u: Tensor, bias: Tensor, rows: Tensor | None) -> Tensor:
    if bias.dim() == 2:
        bias = bias.unsqueeze(1) if rows is None else bias[rows]
    return u + bias


def _field(arguments: SirenArguments, h: Tensor, rows: Tensor | None) -> Tensor:
    """Field values (S, N, C) or (R, C) from the last hidden activations."""
    weight, bias = arguments.output
    u = _add_bias(_linear(h, weight, rows), bias, rows)
    return u.unsqueeze(0) if rows is None and u.dim() == 2 else u


def siren_features(arguments: SirenArguments) -> Tensor:
    """Last hidden activations (N, H), (S, N, H) or, for ragged points, (R, H)."""
    return _trunk(arguments, _samples_of_rows(arguments))


def _trunk(arguments: SirenArguments, rows: Tensor | None) -> Tensor:
    h = arguments.x
    for layer in range(arguments.layers):
        h = torch.sin(_layer(arguments, layer, h, rows)[1])
    return h


def modulated_siren(arguments: SirenArguments) -> Tensor:
    """Field values (S, N, C), or (R, C) for ragged points."""
    rows = _samples_of_rows(arguments)
    return _field(arguments, _trunk(arguments, rows), rows)


def _linearised_trunk(arguments: SirenArguments, rows: Tensor | None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Last hidden activations, and each layer's product W h and slope, the cosine of its preactivation."""
    h, products, slopes = arguments.x, [], []
    for layer in range(arguments.layers):
        product, t = _layer(arguments, layer, h, rows)
        products.append(product)
        slopes.append(torch.cos(t))
        h = torch.sin(t)
    return h, products, slopes


def modulated_siren_jvp(arguments: SirenArguments, tangents: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Field values and their tangents (K, *values' shape) in K directions, by the chain rule layer by layer.

    `tangents` holds (K, *argument's shape) for any of x, shift, gain, output_weight and output_bias.
    """
    rows = _samples_of_rows(arguments)
    h, products, slopes = _linearised_trunk(arguments, rows)
    u = _field(arguments, h, rows)

    def derivative(tangent: Mapping[str, Tensor]) -> Tensor:
        """Derivative of u in one direction."""
        dh = tangent.get("x")
        for layer, weight in enumerate(arguments.hidden_weights):
            terms = [] if dh is None else [_scaled(arguments, layer, dh @ weight.T, rows)]
            if "gain" in tangent:
                terms.append(_per_point(tangent["gain"], layer, rows) * products[layer])
            if "shift" in tangent:
                terms.append(_per_point(tangent["shift"], layer, rows))
            dh = slopes[layer] * sum(terms) if terms else None
        du = torch.zeros_like(u)
        if dh is not None:
            du = du + _linear(dh, arguments.output[0], rows)
        if "output_weight" in tangent:
            du = du + _linear(h, tangent["output_weight"], rows)
        return _add_bias(du, tangent["output_bias"], rows) if "output_bias" in tangent else du

    directions = next(iter(tangents.values())).shape[0]
    return u, torch.stack([derivative({name: t[k] for name, t in tangents.items()}) for k in range(directions)])


def modulated_siren_jacobian(arguments: SirenArguments, maps: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Field values (S, N, C) and their Jacobian (S, N, C, Z) in a code of which the modulations are linear functions.

    `maps` holds the derivatives (Z, *argument's shape without samples) of any of shift, gain, output_weight and
    output_bias. One reverse sweep per channel, whatever the size Z of the code. Ragged points are not supported.
    """
    h, products, slopes = _linearised_trunk(arguments, None)
    u = _field(arguments, h, None)

    def sweep(channel: int) -> Tensor:
        """Derivative (S, N, Z) of one channel."""
        back = arguments.output[0][..., channel, :]
        back = back if back.dim() == 1 else back.unsqueeze(1)
        total: Tensor | float = 0.0
        if "output_weight" in maps:
            total = total + h @ maps["output_weight"][:, channel].T
        if "output_bias" in maps:
            total = total + maps["output_bias"][:, channel]
        for layer in reversed(range(arguments.layers)):
            delta = back * slopes[layer]
            if "shift" in maps:
                total = total + delta @ maps["shift"][:, layer].T
            if "gain" in maps:
                total = total + (delta * products[layer]) @ maps["gain"][:, layer].T
            if layer:
                back = _scaled(arguments, layer, delta, None) @ arguments.hidden_weights[layer]
        assert isinstance(total, Tensor)
        return total.expand(*u.shape[:2], -1)

    return u, torch.stack([sweep(channel) for channel in range(u.shape[-1])], 2)
