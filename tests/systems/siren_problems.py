"""Small random SIREN problems for the kernel tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from inrflow_kernels.arguments import SAMPLE_DIMS, SirenArguments
from torch import Tensor


@dataclass
class Problem:
    x: Tensor
    hidden_weights: list[Tensor]
    shift: Tensor
    gain: Tensor | None
    output_weight: Tensor
    output_bias: Tensor
    options: dict = field(default_factory=dict)

    def positional(self) -> tuple:
        return (self.x, self.hidden_weights, self.shift, self.gain, self.output_weight, self.output_bias)

    def arguments(self) -> SirenArguments:
        """Unchecked arguments of the reference."""
        return SirenArguments(*self.positional(), **self.options)

    def leaves(self) -> list[Tensor]:
        gain = [] if self.gain is None else [self.gain]
        return [self.x, *self.hidden_weights, self.shift, *gain, self.output_weight, self.output_bias]

    def map(self, function) -> Problem:
        return replace(
            self,
            x=function(self.x),
            hidden_weights=[function(weight) for weight in self.hidden_weights],
            shift=function(self.shift),
            gain=None if self.gain is None else function(self.gain),
            output_weight=function(self.output_weight),
            output_bias=function(self.output_bias),
        )

    def trainable(self) -> Problem:
        return self.map(lambda tensor: tensor.detach().clone().requires_grad_())

    def to(self, dtype: torch.dtype) -> Problem:
        return self.map(lambda tensor: tensor.to(dtype))


def make_problem(
    *,
    points: str = "shared",
    modulated: str = "shift",
    samples: int = 3,
    count: int = 37,
    coordinates: int = 2,
    width: int = 32,
    layers: int = 3,
    channels: int = 2,
    frequency: float = 10.0,
    counts: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Problem:
    """A SIREN with Sitzmann's initialisation. `modulated` holds any of shift, gain, output; `points` is shared,
    per_sample or ragged (then `counts` gives the rows of each sample)."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, bound: float = 1.0) -> Tensor:
        return (torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1).mul(bound).to(dtype)

    options = {}
    if points == "ragged":
        counts = counts or (17, 0, 40)
        samples = len(counts)
        options["offsets"] = torch.tensor([0, *counts]).cumsum(0)
        x = uniform(sum(counts), coordinates)
    else:
        x = uniform(count, coordinates) if points == "shared" else uniform(samples, count, coordinates)
    weights = [uniform(width, coordinates, bound=frequency / coordinates)]
    weights += [uniform(width, width, bound=(6 / width) ** 0.5) for _ in range(layers - 1)]
    per_sample = (samples,)
    shift = uniform(*(per_sample if "shift" in modulated else ()), layers, width)
    gain = 1 + 0.3 * uniform(samples, layers, width) if "gain" in modulated else None
    output = per_sample if "output" in modulated else ()
    return Problem(
        x,
        weights,
        shift,
        gain,
        uniform(*output, channels, width, bound=(6 / width) ** 0.5),
        uniform(*output, channels),
        options,
    )


MODES = [
    (points, modulated)
    for points in ("shared", "per_sample", "ragged")
    for modulated in ("none", "shift", "gain", "output", "shift gain output")
]


def make_tangents(
    problem: Problem, directions: int = 3, names: tuple[str, ...] = tuple(SAMPLE_DIMS), scale: float = 1.0
) -> dict:
    """Random tangents (K, *shape) of the named arguments that the problem has."""
    generator = torch.Generator().manual_seed(1)
    tangents = {}
    for name in names:
        argument = getattr(problem, name)
        if argument is not None:
            shape = (directions, *argument.shape)
            tangents[name] = scale * torch.randn(shape, generator=generator, dtype=torch.float64).to(argument.dtype)
    return tangents


def relative_error(computed: Tensor, expected: Tensor) -> float:
    """Root mean square error relative to the expected values'."""
    return float((computed.double() - expected.double()).norm() / expected.double().norm())
