"""Last stage: what validation has chosen, fitted once more to all trajectories, those of validation among them.

Few trajectories show few directions of the space of fields: modes that have not seen the held-out ones cannot express
what only those show. Variances and noise stay those that held-out frames have told: no others are left to tell them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.states import CodeData
from inrflow.dynamics.vector_field import VectorField
from inrflow.encoding.modes import OutputModes
from inrflow.surrogate import Surrogate

_WORSE = 1.5  # times the error before: a refit that forecasts its own data worse has failed


@dataclass(frozen=True)
class Refit:
    """How to fit modes, codes and dynamics to all trajectories.

    Attributes:
        modes: decoder -> its output modes.
        codes: decoder with its modes and their prior set -> codes of all trajectories and of their copies, originals
            first.
        field: codes -> the closed-form field of the size that their decoder has.
        error: field, codes -> mean squared error of rollouts of the original trajectories, share of the variance.
    """

    modes: Callable[[ModulatedSiren], OutputModes]
    codes: Callable[[ModulatedSiren, OutputModes], CodeData]
    field: Callable[[CodeData], VectorField]
    error: Callable[[VectorField, CodeData], float]

    def __call__(
        self, surrogate: Surrogate, found: OutputModes, every: CodeData, every_field: VectorField
    ) -> tuple[Surrogate, float, float]:
        """The surrogate refitted, or as it was where that fails; its error on all trajectories before and after.

        Args:
            surrogate: with the modes of the training trajectories.
            found: all of these modes, before their number was chosen.
            every, every_field: codes of all trajectories under them, and the field fitted to these.
        """
        size = surrogate.code_size
        before = self.error(every_field, every)
        decoder = copy.deepcopy(surrogate.decoder)
        assert isinstance(decoder, ModulatedSiren)
        modes = self.modes(decoder.double())
        wanted = len(modes.variances) if size == len(found.variances) else min(size, len(modes.variances))
        variances = modes.variances.clone()
        shared = min(len(variances), len(found.variances))
        variances[:shared] = torch.maximum(variances[:shared], found.variances[:shared])
        modes = OutputModes(modes.mean, modes.modes, variances, torch.maximum(modes.noise, found.noise))
        modes = modes.truncated(wanted)
        decoder.set_output(modes.mean, modes.modes)
        codes = self.codes(decoder.float(), modes)
        field = self.field(codes)
        after = self.error(field, codes)
        if not after < _WORSE * before:
            return surrogate, before, after
        prior = modes.prior()
        state = replace(
            surrogate.prior, mean=prior.mean, covariance=prior.covariance, noise=prior.noise,
            process=_resized(surrogate.prior.process, wanted),
        )
        state.farthest = max(state.farthest or 0.0, state.reach(codes, wanted))
        return replace(surrogate, decoder=decoder.eval(), field=field.double().eval(), prior=state), before, after


def _resized(process: Tensor, size: int) -> Tensor:
    """Process noise of so many code dimensions: those beyond the known ones are like the last of them."""
    if size <= len(process):
        return process[:size]
    return torch.cat([process, process[-1:].expand(size - len(process))])
