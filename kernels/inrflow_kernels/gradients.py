"""Which gradients of an evaluation are wanted, and their accumulators; shared by the blocked path and the Triton
path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .arguments import SirenArguments


@dataclass(frozen=True)
class Wanted:
    """Flags of the gradients to compute."""

    x: bool
    shift: bool
    gain: bool
    output_weight: bool
    output_bias: bool
    hidden_weights: tuple[bool, ...]

    @classmethod
    def of(cls, arguments: SirenArguments, flags: Sequence[bool]) -> Wanted:
        """From flags in the order of `SirenArguments.tensors`."""
        rest = list(flags)
        x, shift = rest.pop(0), rest.pop(0)
        gain = rest.pop(0) if arguments.gain is not None else False
        has_output = arguments.output_weight is not None
        weight, bias = (rest.pop(0), rest.pop(0)) if has_output else (False, False)
        return cls(x, shift, gain, weight, bias, tuple(rest))


class Gradients:
    """Gradients of an evaluation, zero at first; those that are not wanted are None."""

    def __init__(self, arguments: SirenArguments, wanted: Wanted) -> None:
        def zeros(tensor: Tensor | None, flag: bool) -> Tensor | None:
            return (
                torch.zeros_like(tensor, memory_format=torch.contiguous_format) if flag and tensor is not None else None
            )

        self.x = zeros(arguments.x, wanted.x)
        self.shift = zeros(arguments.shift, wanted.shift)
        self.gain = zeros(arguments.gain, wanted.gain)
        self.output_weight = zeros(arguments.output_weight, wanted.output_weight)
        self.output_bias = zeros(arguments.output_bias, wanted.output_bias)
        self.hidden_weights = [
            zeros(weight, flag) for weight, flag in zip(arguments.hidden_weights, wanted.hidden_weights, strict=True)
        ]

    def add(self, other: Gradients) -> None:
        """Add the gradients that the other one has."""
        mine, others = self._everything(), other._everything()
        for gradient, values in zip(mine, others, strict=True):
            if gradient is not None and values is not None:
                gradient += values

    def _everything(self) -> list[Tensor | None]:
        return [self.x, self.shift, self.gain, self.output_weight, self.output_bias, *self.hidden_weights]

    def found(self) -> list[Tensor]:
        """The wanted gradients, in the order of `SirenArguments.tensors`."""
        return [gradient for gradient in self._everything() if gradient is not None]
