"""Refit of modes, codes and dynamics to all trajectories, those of validation among them.

Few trajectories show few directions of the space of fields: modes of the training trajectories cannot express what only
the validation ones show. Variances and noise stay those of held-out frames: no others are left to estimate them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrflow.decoders.base import AffineDecoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.states import CodeData
from inrflow.encoding.prior.modes import OutputModes
from inrflow.model.surrogate import Surrogate
from inrflow.training.complete import state_prior
from inrflow.training.margins import REFIT_FAILED


@dataclass(frozen=True)
class Refit:
    """How to fit modes, codes and dynamics to all trajectories.

    Attributes:
        modes: decoder -> its output modes.
        codes: decoder with its modes and their prior set -> codes of all trajectories and of their copies, originals
            first.
        field: codes -> the closed-form field of the size that their decoder has.
        error: field, codes -> mean squared error of rollouts of the original trajectories, share of the variance.
        states: codes -> the states of that field, memory appended where it has some.
        growth: times as many modes are taken, where there are so many.
    """

    modes: Callable[[AffineDecoder], OutputModes]
    codes: Callable[[AffineDecoder, OutputModes], CodeData]
    field: Callable[[CodeData], VectorField]
    error: Callable[[VectorField, CodeData], float]
    states: Callable[[CodeData], CodeData] = lambda codes: codes
    growth: float = 1.0

    def __call__(self, surrogate: Surrogate, fitted: OutputModes, before: float) -> tuple[Surrogate, float]:
        """The surrogate refitted, or as it was where that fails; its error on all trajectories afterwards.

        Args:
            surrogate: with the modes of the training trajectories.
            fitted: all of these modes, before their number was chosen.
            before: error on all trajectories, of codes under these modes and a field fitted to them.
        """
        size = surrogate.code_size
        decoder = copy.deepcopy(surrogate.decoder)
        assert isinstance(decoder, AffineDecoder)
        modes = self.modes(decoder.double())
        wanted = len(modes.variances) if size == len(fitted.variances) else round(self.growth * size)
        wanted = min(wanted, len(modes.variances))
        variances = modes.variances.clone()
        shared = min(len(variances), len(fitted.variances))
        variances[:shared] = torch.maximum(variances[:shared], fitted.variances[:shared])
        modes = OutputModes(modes.mean, modes.modes, variances, torch.maximum(modes.noise, fitted.noise))
        modes = modes.truncated(wanted)
        decoder.set_output(modes.mean, modes.modes)
        codes = self.codes(decoder.float(), modes)
        field = self.field(codes)
        after = self.error(field, codes)
        if not after < REFIT_FAILED * before:
            return surrogate, after
        prior = modes.prior()
        mean, covariance = state_prior(self.states(codes), prior, wanted)
        process = _of_blocks(surrogate.prior.process, size, len(mean), wanted)
        state = replace(surrogate.prior, mean=mean, covariance=covariance, noise=prior.noise, process=process)
        state.farthest = max(state.farthest or 0.0, state.reach(codes, wanted))
        training = {**surrogate.training, "memory": len(mean) - wanted}
        return replace(
            surrogate, decoder=decoder.eval(), field=field.double().eval(), prior=state, training=training
        ), after


def _of_blocks(process: Tensor, size: int, states: int, wanted: int) -> Tensor:
    """Process noise of `states` dimensions in blocks of `wanted` (codes, their rates, ...), from blocks of `size`."""
    lengths = [min(wanted, states - start) for start in range(0, states, wanted)]
    blocks = list(process.split(size))
    return torch.cat([_resized(blocks[min(k, len(blocks) - 1)], length) for k, length in enumerate(lengths)])


def _resized(process: Tensor, size: int) -> Tensor:
    """Process noise of so many dimensions: those beyond the known ones are like the last of them."""
    if size <= len(process):
        return process[:size]
    return torch.cat([process, process[-1:].expand(size - len(process))])
