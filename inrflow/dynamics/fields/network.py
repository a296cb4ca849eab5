"""A multilayer perceptron as a term of a vector field."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inrflow.dynamics.fields.base import FieldTerm, register_term
from inrflow.dynamics.fields.linear import weighted
from inrflow.numerics.phases import periodic_phases


class Swish(nn.Module):
    """x sigmoid(softplus(beta) x) / 1.1 with a learned beta, 0.5 at the start, as in DINo (Yin et al., ICLR 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(nn.functional.softplus(self.beta) * x) / 1.1


@register_term("network")
class NetworkTerm(FieldTerm):
    """A multilayer perceptron of the state, and of the phases of a periodic forcing; affine in the context.

    Args:
        state_size: n.
        width: of the hidden layers.
        depth: number of hidden layers, at least 1.
        context_size: P; the last layer has 1 + P blocks of n outputs.
        forcing_period: internal time, 0 for an autonomous network.
        forcing_harmonics: multiples of the forcing's frequency whose phases are inputs.
        swish: learned Swish activations and a last layer initialised as any other (DINo); otherwise SiLU and a last
            layer of zeros, so that training starts from the other terms alone.
    """

    def __init__(
        self, state_size: int, width: int = 256, depth: int = 3, context_size: int = 0, forcing_period: float = 0.0,
        forcing_harmonics: int = 2, swish: bool = False,
    ) -> None:
        super().__init__()
        self.state_size, self.width, self.depth, self.context_size = state_size, width, depth, context_size
        self.forcing_period, self.forcing_harmonics, self.swish = forcing_period, forcing_harmonics, swish
        inputs = state_size + (2 * forcing_harmonics if forcing_period else 0)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(inputs, width), Swish() if swish else nn.SiLU()]
            inputs = width
        last = nn.Linear(inputs, state_size * (1 + context_size))
        if not swish:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, t: Tensor, z: Tensor, c: Tensor | None = None) -> Tensor:
        inputs = z
        if self.forcing_period:
            phases = periodic_phases(t, self.forcing_period, self.forcing_harmonics).to(z.dtype)
            inputs = torch.cat([z, phases.expand(*z.shape[:-1], phases.shape[-1])], -1)
        outputs = self.layers(inputs)
        if c is None or not self.context_size:
            return outputs
        parts = outputs.unflatten(-1, (1 + self.context_size, self.state_size))
        return parts[..., 0, :] + weighted(parts[..., 1:, :], c)
