"""A trained surrogate adapted to a new environment from a few of its trajectories.

The context (P,) is estimated by Gauss-Newton from the states of the frames and of their symmetry copies; everything
else is frozen. `further` continues from there with the decoder and the vector field.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.source import TrajectorySource
from inrflow.data.transformations import Augmentation
from inrflow.dynamics.contexts.posterior import ContextEstimate
from inrflow.errors import UserError
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate

_LARGER = 2.0
STRENGTHS = ("auto", "none", "context", "decoder", "all")


@dataclass
class Adaptation:
    """An adapted surrogate, the number of its adapted parameters, the seconds it took, and the context estimate."""

    surrogate: Surrogate
    numbers: int
    seconds: float
    estimate: ContextEstimate | None


def adapt_context(surrogate: Surrogate, batches: list[TrajectoryBatch]) -> Adaptation:
    """Context of one system from batches of its trajectories (data units), and the surrogate with that context.

    Raises UserError if the surrogate has no contexts, or if no trajectory has two frames.
    """
    if not surrogate.context_size:
        raise UserError(
            f"the surrogate of {surrogate.description.name} has no contexts, which did not improve forecasts in "
            "training, so adapt.strength=context has nothing to fit; use the run without adaptation, or train on "
            "several environments"
        )
    if max(batch.u.shape[1] for batch in batches) < 2:
        raise UserError("trajectories have 1 frame; a context is estimated from changes between frames: give 2")
    began = time.perf_counter()
    estimate = surrogate.solve_context(batches)
    adapted = with_context(surrogate, estimate.mean, estimate.covariance)
    return Adaptation(adapted, surrogate.context_size, time.perf_counter() - began, estimate)


def with_context(surrogate: Surrogate, mean: Tensor, covariance: Tensor) -> Surrogate:
    """The surrogate with another prior of its context: mean (P,), covariance (P, P)."""
    prior, size = surrogate.prior, surrogate.context_size
    n = len(prior.mean) - size
    whole_mean, whole = prior.mean.clone(), prior.covariance.clone()
    whole_mean[n:] = mean
    if whole.dim() == 1:
        whole[n:] = covariance.diagonal()
    else:
        whole[n:, n:] = covariance
    training = {**surrogate.training, "adapted": "context"}
    return replace(surrogate, prior=replace(prior, mean=whole_mean, covariance=whole), training=training)


def nearest_environment(surrogate: Surrogate, estimate: ContextEstimate) -> tuple[int, ContextPrior]:
    """Number of the training environment whose context is nearest to the estimate, and that context."""
    assert surrogate.contexts is not None
    number = surrogate.contexts.nearest(estimate.mean)
    return number, ContextPrior.of_known(surrogate.contexts.values[number])


def mean_context(surrogate: Surrogate) -> ContextPrior:
    """The mean context of the training environments, which is used without adaptation."""
    return ContextPrior.of_known(torch.zeros(surrogate.context_size, dtype=torch.float64))


def batches_of(
    surrogate: Surrogate, source: TrajectorySource, trajectories: np.ndarray, copies: int, seed: int
) -> list[TrajectoryBatch]:
    """The trajectories in data units, and up to `copies` - 1 copies transformed by the symmetries of training."""
    original = source.batch(trajectories, normalised=False)
    names = surrogate.training.get("symmetries") or []
    if not names or copies < 2:
        return [original]
    symmetries = surrogate.description.symmetries.only(list(names))
    extent = surrogate.box[1] - surrogate.box[0]
    move = Augmentation(symmetries, extent, surrogate.description.period)
    random = np.random.default_rng([seed, 23])
    size = float(surrogate.codes(original).codes.square().mean())
    moved = [move(original, random) for _ in range(copies - 1)]
    # Symmetries preserve the norm of orthonormal codes, unless the decoder was fitted to one grid alone: then it does
    # not fit transformed copies between the grid points.
    return [original] + [one for one in moved if float(surrogate.codes(one).codes.square().mean()) < _LARGER * size]
