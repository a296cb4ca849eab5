"""The harmonics of any domain as a decoder: eigenfunctions of its Laplacian, one code for each channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.decoders.base import AffineDecoder, on_own_device
from inrflow.decoders.registry import register_decoder
from inrflow.domains import from_state

_KEPT = 8  # sets of points whose values are kept


@register_decoder("domain_harmonics")
class DomainHarmonicDecoder(AffineDecoder):
    """u_c(x; z) = offset_c + sum_k z_ck psi_k(x), with psi_k the eigenfunctions of the domain's Laplacian.

    Args:
        domain: `state()` of the domain, as plain values; boundary: condition that the harmonics obey.
        count: number K of harmonics, about.
        channels: C; the code has C K numbers, those of the first channel first.
    """

    code_per_channel = True

    def __init__(self, domain: Mapping[str, Any], boundary: str, count: int, channels: int, code_size: int = 0) -> None:
        super().__init__()
        self.domain, self.boundary, self.channels = plain(domain), boundary, channels
        self.place = from_state(self.domain)
        self.harmonics = self.place.harmonics(count, boundary)
        each, self.count = self.harmonics.components, self.harmonics.count
        self.code_size, self.code_per_channel = channels * self.count // each, each == 1
        self._tables: dict[bytes, np.ndarray] = {}
        self.draw_output(1 + each * self.count)
        modes = torch.zeros(channels // each, self.count, channels, 1 + each * self.count)
        for channel in range(channels):
            start = 1 + channel % each * self.count
            modes[channel // each, :, channel, start : start + self.count] = torch.eye(self.count)
        self.set_output(torch.zeros(channels, 1 + each * self.count), modes.flatten(0, 1))

    def structure(self) -> dict[str, Any]:
        return {"domain": {"state": self.domain}, "boundary": self.boundary, "count": self.count,
                "channels": self.channels, "code_size": self.code_size}

    def _table(self, points: Tensor) -> np.ndarray:
        """Values (N, K) at points (N, d), those of the last few sets of points from memory."""
        x = points.detach().cpu().double().numpy()
        key = x.tobytes()
        if key not in self._tables:
            self._tables = {**dict(list(self._tables.items())[1 - _KEPT:]), key: self.harmonics.values(x)}
        return self._tables[key]

    @on_own_device
    def features(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        values = torch.as_tensor(self._table(flat)).to(x).reshape(len(flat), -1)
        return torch.cat([torch.ones_like(values[:, :1]), values], 1).reshape(*x.shape[:-1], -1)

    @on_own_device
    def slopes(self, x: Tensor, z: Tensor) -> Tensor:
        """Derivatives du/dx (..., N, C, d) in closed form."""
        flat = x.detach().reshape(-1, x.shape[-1]).cpu().double().numpy()
        slopes = torch.as_tensor(self.harmonics.gradients(flat)).to(z).reshape(*x.shape[:-1], -1, x.shape[-1])
        weights = self.output_weights(z)[..., None, :, 1:]  # (..., 1, C, K)
        return weights @ slopes


def plain(value: Any) -> Any:
    """Nested arrays and mappings as lists and dictionaries, fit for JSON."""
    if isinstance(value, Mapping):
        inner = value["state"] if set(value) == {"state"} else value
        return {key: plain(one) for key, one in inner.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
