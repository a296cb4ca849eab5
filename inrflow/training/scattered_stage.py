"""Codes of rows that each have a time of their own: knots, motion and prior found in turn.

Rows around a knot stand, to begin with, for the field at its time. From the codes that this gives follow closed-form
dynamics, which carry the decoder's basis to every row's own time; with it, codes and their prior are solved again. Each
round leaves of the error of the times what the motion was wrong by. Rounds whose forecasts validate no better are
discarded.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inrflow.data.source import TrajectorySource
from inrflow.data.symmetries import Transformations
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.closed_form import ClosedForm
from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.linearised import Dynamics
from inrflow.dynamics.vector_field import VectorField
from inrflow.encoding.drift import Drift
from inrflow.encoding.equivariance import CodeMotion
from inrflow.encoding.gaussian import GaussianPrior
from inrflow.encoding.maximisation import Statistics
from inrflow.encoding.modes import OutputModes
from inrflow.encoding.whitened import block_length
from inrflow.training.dynamics_stage import MOVED_BLOCK, DriftOf

_ITERATIONS = 1


def drift_of(fit: ClosedForm, unit: float) -> DriftOf:
    """The motion of the leading codes under closed-form dynamics without memory and forcing, in the data's time: the
    same for all trajectories."""
    drift = Drift.of(fit.matrix / unit, fit.bias / unit)
    return lambda _: drift


def drift_around(field: VectorField, states: Tensor, unit: float) -> DriftOf:
    """The motion of the leading codes around states (S, K, n) of trajectories, in the data's time."""
    dynamics, size = Dynamics(field, Integrator(), torch.zeros(states.shape[-1])), states.shape[-1]

    def drift(trajectories: np.ndarray) -> Drift:
        around = dynamics.drift(states[torch.as_tensor(trajectories)].flatten(0, 1), size)
        return Drift(around.generator / unit)

    return drift


def refit_modes(
    decoder: ModulatedSiren,
    modes: OutputModes,
    source: TrajectorySource,
    trajectories: np.ndarray,
    drift: DriftOf,
    motion: CodeMotion | None,
    elements: Transformations | None,
    iterations: int = _ITERATIONS,
) -> tuple[OutputModes, DriftOf]:
    """Modes, prior and noise of codes whose values are seen with delays, by expectation maximisation within the span;
    and the drift of codes of these modes.

    `motion` and `elements` average the prior over symmetries, where that is exact.
    """
    prior = modes.prior()
    for _ in range(iterations):
        statistics = Statistics.empty(prior)
        for block in blocks_of(trajectories):
            batch, moved = source.batch(block), drift(block)
            x, u = batch.groups()
            delay = batch.delays()
            assert delay is not None
            length = block_length(u.shape[2] * u.shape[3], decoder.code_size)
            for start in range(0, len(x), length):
                part = slice(start, start + length)
                with torch.no_grad():
                    offset, basis = decoder.basis(x[part].to(decoder.output.dtype))
                offset, basis = moved.of_groups(part).carried(offset, basis, delay[part])
                statistics.add(basis.matmul, offset, u[part])
        prior = statistics.maximise(swift=True)
        if motion is not None and elements is not None:
            prior = motion.averaged(prior, elements)
    return _turned(modes, prior, drift)


def _turned(modes: OutputModes, prior: GaussianPrior, drift: DriftOf) -> tuple[OutputModes, DriftOf]:
    """Modes along the principal directions of a prior of their codes."""
    variances, vectors = torch.linalg.eigh(prior.covariance)
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    keep = int((variances > 1e-10 * variances[0]).sum())
    mean = modes.mean + torch.einsum("z,zcf->cf", prior.mean, modes.modes)
    directions = vectors[:, :keep]
    turned: Tensor = torch.einsum("zy,zcf->ycf", directions, modes.modes)
    lost = variances[keep:].sum() / len(prior.noise)
    modes = OutputModes(mean, turned, variances[:keep], prior.noise + lost)
    return modes, lambda trajectories: drift(trajectories).turned(prior.mean, directions)


def blocks_of(indices: np.ndarray, length: int = MOVED_BLOCK) -> list[np.ndarray]:
    """Trajectories in blocks."""
    return [indices[start : start + length] for start in range(0, len(indices), length)]
