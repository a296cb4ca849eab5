"""Codes of rows that each have a time of their own: knots, motion and prior found in turn.

Rows around a knot stand, to begin with, for the field at its time. From the codes that this gives follow closed-form
dynamics, which carry the decoder's basis to every row's own time; with it, codes and their prior are solved again. Each
round leaves of the error of the times what the motion was wrong by. Rounds whose forecasts validate no better are
discarded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.symmetries import Transformations
from inrflow.decoders.siren import ModulatedSiren
from inrflow.dynamics.closed_form import ClosedForm
from inrflow.encoding.drift import Drift
from inrflow.encoding.equivariance import CodeMotion
from inrflow.encoding.gaussian import GaussianPrior
from inrflow.encoding.maximisation import Statistics
from inrflow.encoding.modes import OutputModes
from inrflow.encoding.whitened import block_length

_ITERATIONS = 1


def drift_of(fit: ClosedForm, unit: float) -> Drift:
    """The motion of the leading codes under closed-form dynamics without memory and forcing, in the data's time."""
    return Drift.of(fit.matrix / unit, fit.bias / unit)


def refit_modes(
    decoder: ModulatedSiren,
    modes: OutputModes,
    batches: Callable[[], list[TrajectoryBatch]],
    drift: Drift,
    motion: CodeMotion | None,
    elements: Transformations | None,
    iterations: int = _ITERATIONS,
) -> tuple[OutputModes, Drift]:
    """Modes, prior and noise of codes whose values are seen with delays, by expectation maximisation within the span;
    and the drift of codes of these modes.

    `motion` and `elements` average the prior over symmetries, where that is exact.
    """
    prior = modes.prior()
    for _ in range(iterations):
        statistics = Statistics.empty(prior)
        for batch in batches():
            x, u = batch.groups()
            delay = batch.delays()
            assert delay is not None
            length = block_length(u.shape[2] * u.shape[3], decoder.code_size)
            for start in range(0, len(x), length):
                part = slice(start, start + length)
                with torch.no_grad():
                    offset, basis = decoder.basis(x[part].to(decoder.output.dtype))
                offset, basis = drift.carried(offset, basis, delay[part])
                statistics.add(basis.matmul, offset, u[part])
        prior = statistics.maximise(swift=True)
        if motion is not None and elements is not None:
            prior = motion.averaged(prior, elements)
    return _turned(modes, prior, drift)


def _turned(modes: OutputModes, prior: GaussianPrior, drift: Drift) -> tuple[OutputModes, Drift]:
    """Modes along the principal directions of a prior of their codes."""
    variances, vectors = torch.linalg.eigh(prior.covariance)
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    keep = int((variances > 1e-10 * variances[0]).sum())
    mean = modes.mean + torch.einsum("z,zcf->cf", prior.mean, modes.modes)
    turned: Tensor = torch.einsum("zy,zcf->ycf", vectors[:, :keep], modes.modes)
    lost = variances[keep:].sum() / len(prior.noise)
    modes = OutputModes(mean, turned, variances[:keep], prior.noise + lost)
    return modes, drift.turned(prior.mean, vectors[:, :keep])


def blocks_of(indices: np.ndarray, length: int = 16) -> list[np.ndarray]:
    """Trajectories in blocks."""
    return [indices[start : start + length] for start in range(0, len(indices), length)]
