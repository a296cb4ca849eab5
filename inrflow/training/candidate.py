"""Candidates: fitted models that may become the surrogate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.flow.linearised import calibrated_process_noise
from inrflow.dynamics.states import CodeData
from inrflow.encoding.encode import Encoder
from inrflow.encoding.posterior import GaussianPrior
from inrflow.encoding.prior.interpolation_error import InterpolationError
from inrflow.model.contexts import Contexts
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate
from inrflow.training.problem import Problem
from inrflow.training.recorder import Tried

_KNOWN_CONTEXT = 1e-12  # variance of a context that is taken as known
_NOISY, _MOST_WHITE = 1e-4, 0.99  # share of the variance that makes values noisy; of what codes leave, white noise
_LOOKED_AT, _ALIKE = 16, 0.1  # trajectories; correlation of what codes leave of frames that tells that it is no noise
_FREEDOM = 0.25  # share of the noise that codes leave, at least


@dataclass(frozen=True)
class Score:
    """How well a candidate forecasts held-out data.

    Attributes:
        error: mean squared error of rollouts, share of the variance.
        floor: what its decoder alone leaves.
        unknowns: numbers of its dynamics that were fitted.
    """

    error: float
    floor: float
    unknowns: int


@dataclass(frozen=True)
class Refitted:
    """A candidate's dynamics fitted once more, to all trajectories.

    Attributes:
        field: float64.
        states: of the trajectories that give the prior; None: those of the candidate.
        contexts: of the training environments, where there are any.
    """

    field: VectorField
    states: CodeData | None = None
    contexts: Contexts | None = None


@dataclass(frozen=True)
class Candidate:
    """A fitted model that may become the surrogate. It has not seen the held-out data.

    Attributes:
        problem: as the recipe sees it: with a completed source, or fewer symmetries.
        recipe, name: which recipe made it, and what it is in a few words.
        states: (S, T, n) states of the training trajectories; validation: of those it is judged by.
        first: frame from which forecasts of the latter begin; first + 1 frames are needed for a forecast.
        context_size: P, constant numbers at the end of a state; contexts: (S, P) of the validation trajectories.
        explained: whether the law explains the data, so that nothing better can be expected on the same basis.
        refit: fits the dynamics once more to all trajectories; refit_decoder: the decoder too, of a whole surrogate.
        briefly: fits the dynamics to so many first frames alone; None where their numbers do not depend on the times.
        calibrated: how many trajectories calibrate its standard deviations, and whether by forecasts `ahead` alone.
        innovations: (n,) variance that one unit of time adds to a state, where the recipe knows it.
        metadata: kept with the surrogate.
        row: of candidates.json; None: to be added.
    """

    problem: Problem
    recipe: str
    name: str
    decoder: Decoder
    code_prior: GaussianPrior
    field: VectorField
    integrator: Integrator
    states: CodeData
    validation: CodeData
    first: int
    score: Score
    context_size: int = 0
    contexts: Tensor | None = None
    explained: bool = False
    interpolation_error: InterpolationError | None = None
    encoder: Encoder | None = None
    refit: Callable[[], Refitted] | None = None
    refit_decoder: Callable[[Surrogate], Surrogate] | None = None
    briefly: Callable[[int], VectorField] | None = None
    calibrated: int = 16
    ahead: bool = False
    innovations: Tensor | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    row: Tried | None = None

    @cached_property
    def process(self) -> Tensor:
        """Variance (n,) that one unit of time adds to a state, by default from forecasts of validation data."""
        if self.innovations is not None:
            return self.innovations
        unseen = self.validation.since(self.first)
        process = calibrated_process_noise(self.field, self.integrator, unseen, self.code_prior.independent,
                                           self._uncertain)
        if self.context_size:
            process[-self.context_size :] = 0.0
        return process

    @cached_property
    def white(self) -> Tensor | None:
        """What (C,) of the noise of the code prior is noise of the training values alone; None where they have none.

        The share of it that is in all frames, those too that codes fit best, where what codes leave of a frame says
        nothing about the next.
        """
        size, source = self.code_size, self.problem.source
        if not (self.decoder.affine and len(self.problem.validation)) or source.time_bins is not None or not bool(
                (self.code_prior.noise > _NOISY).any()):
            return None
        batch = source.batch(self.problem.train[:_LOOKED_AT])
        dtype = next(self.decoder.parameters()).dtype
        codes = self.states.codes[: len(batch.u), : batch.u.shape[1], :size]
        with torch.no_grad():
            left = (batch.u - self.decoder(batch.x.to(dtype), codes.to(dtype))).double()
        squares = left.square().nanmean(2).nanmedian(0).values  # (T, C)
        after = (left[:, 1:] * left[:, :-1]).nanmean((0, 1, 2)) / left.square().nanmean((0, 1, 2))
        unsure = 2 * (math.pi / left[:, 0, :, 0].numel()) ** 0.5  # twice the standard error of a median
        share = ((1 + unsure) * squares.amin(0) / squares.mean(0)).clamp(max=_MOST_WHITE) * (after.abs() < _ALIKE)
        white = torch.minimum(share * self.code_prior.noise.double(), squares.amin(0) / _FREEDOM)
        return white if bool((white > _NOISY).any()) else None

    @property
    def _uncertain(self) -> Tensor | None:
        """Variances (n,) that noise of the training values gives states; None where they have none."""
        if self.white is None:
            return None
        with torch.no_grad():
            x = self.problem.source.batch(self.problem.train[:1]).x[0, 0]
            basis = self.decoder.basis(x.to(next(self.decoder.parameters()).dtype))[1].double()
        prior = self.code_prior.truncated(self.code_size)
        variance = prior.covariance if prior.independent else prior.covariance.diagonal()
        known = (basis.square().sum(0) / prior.noise[:, None]).sum(0)
        return torch.nn.functional.pad(1 / (1 / variance + known), (0, self.states.codes.shape[-1] - self.code_size))

    @property
    def judged(self) -> np.ndarray:
        """Indices of the trajectories that it is judged by."""
        return self.problem.validation if len(self.problem.validation) else self.problem.train

    def known_contexts(self, trajectories: np.ndarray) -> ContextPrior | None:
        """Contexts of some of the trajectories that it is judged by; None without contexts."""
        if self.contexts is None:
            return None
        rows = [self.judged.tolist().index(trajectory) for trajectory in trajectories]
        return ContextPrior(self.contexts[rows], _KNOWN_CONTEXT * torch.eye(self.context_size, dtype=torch.float64))

    @property
    def code_size(self) -> int:
        """Number of codes."""
        return self.decoder.code_size

    @property
    def memory(self) -> int:
        """Number of delayed dimensions of a state."""
        return self.states.codes.shape[-1] - self.code_size - self.context_size
