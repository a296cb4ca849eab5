"""Surrogates: trained models that assimilate observations of a trajectory into a `Solution`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import Normalisation, TimeScale, TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.labelled import all_observations_from, observations_from
from inrflow.data.observations import Observations, window_of
from inrflow.data.plausible import without_outliers, without_spikes
from inrflow.decoders.base import Decoder, build_decoder, choose_device, decoder_structure
from inrflow.dynamics.contexts.posterior import ContextEstimate
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.states import frames_needed, too_few_frames
from inrflow.encoding.encode import CodeData, Encoder, encode
from inrflow.encoding.residual.field import ResidualField
from inrflow.errors import UserError
from inrflow.model.assimilation import Dynamics, assimilate_noisy, continued
from inrflow.model.contexts import Contexts
from inrflow.model.extent import Extent, Seen, arithmetic_as_user_error, warn_far
from inrflow.model.solution import Solution
from inrflow.model.state_path import with_residual
from inrflow.model.state_prior import ContextPrior, StateEstimate, StatePrior
from inrflow.model.store import (
    FORMAT,
    MODEL_FILE,
    VERSIONS,
    StoredModel,
    check_surrogate,
    load_model,
    plain_values,
    reader,
)
from inrflow.model.variational import context_of_each_trajectory, solved_context
from inrflow.runtime.card import write_card
from inrflow.runtime.shown import Shown
from inrflow.runtime.tensor_files import save_tensors

_REACH, _REACH_STEPS, _REACH_EXACT = 100.0, 1000.0, 1e6  # minutes for some hundred codes; nine digits of phases left


@dataclass(repr=False)
class Surrogate(Shown):
    """A trained model: decoder and vector field, with normalisation, time scale and priors.

    Attributes:
        description: of the training data (names, units, domain).
        normalisation: per channel.
        decoder: u = D(x; z), normalised units.
        field: ds/dtau = f(tau, s) of states [code, memory, context], internal time.
        integrator: time integration of the field.
        prior: of states, of observed values around decoded ones, and of the field's error.
        scale: internal time from the data's time.
        box: lowest and highest coordinates of the training data, (2, d).
        horizon: time from the first to the last training frame, in the data's units.
        training: notes of the training for reports, plain values (seed, fraction of points, ...).
        encoder: of the first observed frame; the solve, except in published baselines.
        contexts: of the training environments, and their map from parameters; None without contexts.
        residual: Gaussian process of residuals of codes; None: white noise.
    """

    description: Description
    normalisation: Normalisation
    decoder: Decoder
    field: VectorField
    integrator: Integrator
    prior: StatePrior
    scale: TimeScale
    box: np.ndarray
    horizon: float
    training: dict[str, Any]
    encoder: Encoder = Encoder()
    contexts: Contexts | None = None
    residual: ResidualField | None = None

    def __repr__(self) -> str:
        about = self.description
        terms = " + ".join(self.field.terms) or "no terms"
        return (f"Surrogate({about.name}: {', '.join(about.channels)} of t, {', '.join(about.coordinates)}; "
                f"{type(self.decoder).__name__}, code of {self.code_size}; {terms}; {self.parameters:,} parameters)")

    @property
    def context_size(self) -> int:
        """Context size P, 0 without contexts."""
        return self.field.context_size

    @property
    def code_size(self) -> int:
        """Code size Z, without memory."""
        return self.decoder.code_size

    @property
    def window(self) -> int:
        """Number of observed frames that a forecast needs: 1, or more where memory completes a frame to a state."""
        memory = self.field.state_size - self.code_size
        return frames_needed(self.code_size, memory) if memory else 1

    @property
    def parameters(self) -> int:
        """Number of parameters of decoder and vector field."""
        return sum(p.numel() for m in (self.decoder, self.field) for p in m.parameters())

    @property
    def dynamics(self) -> Dynamics:
        """The vector field with its integrator and process noise."""
        return Dynamics(self.field, self.integrator, self.prior.process)

    @property
    def extent(self) -> Extent:
        """Extent of the training data in space and time, and the longest lead time: `_REACH_EXACT` horizons of fields
        with an exact flow, whose cost does not grow with lead time; otherwise `_REACH` horizons or `_REACH_STEPS` time
        steps."""
        far = _REACH_EXACT * self.horizon
        if not self.field.has_exact_flow:
            far = max(_REACH * self.horizon, _REACH_STEPS * self.scale.unit)
        mesh, seen = self._places
        series = self.training.get("trajectories") == 1
        return Extent(self.description, self.box, self.horizon, far, self.decoder.place or mesh, seen, series)

    @cached_property
    def _places(self) -> tuple[Any, Seen | None]:
        """Mesh of the training data as a Domain, for decoders without a domain, and the neighbourhood of the data on a
        sphere; None: unknown."""
        mesh, seen = self.training.get("mesh"), self.training.get("seen")
        if mesh is not None:
            from inrflow.domains import from_state  # finite elements take a second to import

            mesh = from_state(mesh)
        return mesh, None if seen is None else Seen.from_state(seen)

    # ---- storing ----

    def save(self, directory: str | os.PathLike[str], card: bool = True) -> Path:
        """Write `model.safetensors` into the directory: all tensors, and the structure as JSON in its header; and a
        model card, README.md, unless another file has this name. Raises UserError for unregistered terms of a field."""
        if not isinstance(directory, str | os.PathLike):
            raise UserError(f"a run directory is a path, not {type(directory).__name__}; name a folder")
        state = {**self.state(), "field": self.field.state_dict()}
        about = {"format": FORMAT, "version": VERSIONS[FORMAT], **self.metadata(), "field": self.field.structure()}
        path = save_tensors(Path(directory).expanduser() / MODEL_FILE, state, about)
        return write_card(self, path) if card else path

    def state(self) -> dict[str, Any]:
        """All tensors but those of the field, for `save_tensors`."""
        return {
            "decoder": self.decoder.state_dict(),
            "normalisation": vars(self.normalisation),
            "prior": asdict(self.prior),
            "box": torch.as_tensor(self.box),
            "contexts": None if self.contexts is None else self.contexts.state(),
            "residual": None if self.residual is None else self.residual.state(),
        }

    def metadata(self) -> dict[str, Any]:
        """The structure of everything but the field, fit for JSON."""
        return {
            "description": self.description.to_dict(),
            "decoder": decoder_structure(self.decoder),
            "integrator": vars(self.integrator),
            "scale": vars(self.scale),
            "horizon": self.horizon,
            "training": self.training,
            "encoder": vars(self.encoder),
        }

    @classmethod
    def load(cls, directory: str | os.PathLike[str], device: str = "cpu", physics: str | None = None) -> Surrogate:
        """Read a run directory; the decoder computes on `device` ("auto", "cpu", "cuda" or "cuda:N").

        `physics`: name, for runs with several. Raises UserError where the device does not exist, no finished model is
        in the directory, its numbers are not those of a model, or the physics is unknown."""
        home = choose_device(device)
        surrogate = load_model(directory, physics)
        if physics not in (None, name := surrogate.description.name):
            raise UserError(f"physics={physics} is unknown; {directory} holds only {name}: leave physics out")
        surrogate.decoder.to(home)
        return surrogate

    @classmethod
    def from_stored(cls, stored: StoredModel, state: dict[str, Any], metadata: dict[str, Any]) -> Surrogate:
        """The surrogate of stored values, a part of `stored`. Raises UserError where they are not a surrogate's."""
        field = VectorField.from_structure(metadata["field"]).double()
        if state["field"] is not None:  # else all of it is structure
            field.load_state_dict(state["field"])
        decoder = build_decoder(metadata["decoder"])
        decoder.load_state_dict(state["decoder"])
        surrogate = cls(
            description=Description.from_dict(metadata["description"]),
            normalisation=Normalisation(**state["normalisation"]),
            decoder=decoder.eval(),
            field=field.eval(),
            integrator=plain_values(stored.path, Integrator, metadata["integrator"]),
            prior=StatePrior.from_state(state["prior"]),
            scale=plain_values(stored.path, TimeScale, metadata["scale"]),
            box=state["box"].numpy(),
            horizon=metadata["horizon"],
            training=metadata["training"],
            encoder=plain_values(stored.path, Encoder, metadata["encoder"]),
            contexts=None if state.get("contexts") is None else Contexts.from_state(state["contexts"]),
            residual=ResidualField.from_state(state["residual"]) if state.get("residual") else None,
        )
        check_surrogate(stored.path, surrogate)
        return surrogate

    # ---- using ----

    def estimate(self, window: TrajectoryBatch, covariance: bool = True, context: ContextPrior | None = None
                 ) -> StateEstimate:
        """States of a window of frames in data units: t (S, K), x (S or 1, K or 1, N, d), u (S, K, N, C).

        `context`: prior of contexts, by default the surrogate's. Several frames tell where flows are linearised."""
        inner = self._plausible(window)
        if self.context_size and inner.u.shape[1] > 1:
            context = context or self.prior.context(self.context_size)
            if not (context.known or context.nominal is not None):
                context = context_of_each_trajectory(self, window, self._codes(inner), context)
        screened = self.residual is None and self.training.get("faults") != "kept"
        model = self.decoder, self.dynamics, self.prior
        estimate = assimilate_noisy(*model, inner, covariance, self.encoder, context, screened)
        return estimate if self.residual is None else with_residual(*model[:2], estimate, inner, self.residual)

    def internal(self, window: TrajectoryBatch) -> TrajectoryBatch:
        """A window in internal time and normalised values. Raises UserError for values with times of their own where
        codes are independent (an ensemble), as these are not propagated to the times of frames."""
        if window.delay is not None and self.prior.covariance.dim() == 1:
            raise UserError(f"observations of {self.description.name}, a model of {self.code_size} codes, have times "
                            "of their own; give frames, whose values share a time")
        delay = None if window.delay is None else window.delay / self.scale.unit
        return TrajectoryBatch(self.scale.internal(window.t), window.x, self.normalisation.apply(window.u), delay)

    def _plausible(self, window: TrajectoryBatch) -> TrajectoryBatch:
        """The window without outliers: values far beyond all of training that no neighbour supports."""
        inner, kept = self.internal(window), self.training.get("faults") == "kept"
        if "series" in self.training and not kept:
            inner = without_spikes(inner, self.normalisation.least)
        wild = not kept and bool((inner.u.abs() > self.normalisation.limit.to(inner.u)).any())
        return without_outliers(inner, self.normalisation.limit) if wild else inner

    def codes(self, window: TrajectoryBatch) -> CodeData:
        """Codes of all frames of a window in data units, each encoded on its own, without outliers."""
        return self._codes(self._plausible(window))

    def _codes(self, inner: TrajectoryBatch) -> CodeData:
        motion = None if inner.delay is None else self.dynamics.motion(self.prior.mean, self.code_size)
        codes = encode(self.decoder, inner, self.prior.codes(self.code_size), self.encoder, motion)
        return CodeData(codes, inner.t, inner.observed)

    def solve_context(self, windows: Sequence[TrajectoryBatch]) -> ContextEstimate:
        """Posterior of the context of one system from windows of its trajectories in data units."""
        return solved_context(self, windows)

    def context_of(self, parameters: Mapping[str, float]) -> ContextPrior:
        """The context of known parameters, by the fitted map. Raises UserError where one is unknown or missing."""
        if self.contexts is None or self.contexts.map is None:
            raise UserError(f"{self.description.name} was trained with no parameters that vary; leave `parameters` out")
        prior = ContextPrior(*self.contexts.at(parameters))
        self.warn_context(prior.mean, misfit=None)
        return prior

    def assimilate(
        self,
        observations: Observations | Sequence[Observations] | Mapping[int, Observations],
        examples: Sequence[Observations] | None = None,
        parameters: Mapping[str, float] | None = None,
    ) -> Any:
        """The `Solution` of one trajectory given observations of it: the posterior of its states.

        Observations may be a pandas DataFrame or an xarray Dataset with the names of channels and coordinates, dates
        and degrees. A list or a dict of them gives a list or a dict of solutions. Warns where the observations lie
        outside the training data. Raises UserError where they do not fit its channels or coordinates.

        Args:
            examples: other trajectories of the same system, of several frames each, from which its context is inferred.
            parameters: known parameters of the system, by name, instead.
        """
        observations = all_observations_from(observations, self.description)
        examples = None if examples is None else all_observations_from(examples, self.description)
        if examples is not None and parameters is not None:
            raise UserError("both examples and parameters are given, and either sets the context; give one of them")
        if (examples is not None or parameters is not None) and not self.context_size:
            raise UserError(f"the surrogate of {self.description.name} has no contexts, so examples and parameters "
                            "have no effect; train on a file with several environments or parameters that vary")
        with arithmetic_as_user_error():
            context = None if parameters is None else self.context_of(parameters)
            context = context if examples is None else self.context_from(examples)
        if isinstance(observations, Observations):
            return self.solution_of(observations, context)
        if isinstance(observations, Mapping):
            return {key: self.solution_of(value, context) for key, value in observations.items()}
        return [self.solution_of(value, context) for value in observations]

    def from_state(self, state: Any, t: float = 0.0) -> Solution:
        """The `Solution` that has a state (n,) at a time t: code, delayed codes and context; with a gradient where the
        state has one. Raises UserError for another size."""
        state, size = torch.as_tensor(state).double(), len(self.prior.mean)
        if state.shape != (size,) or not (bool(state.isfinite().all()) and np.isfinite(t)):
            raise UserError(f"a state has shape {tuple(state.shape)}, at t={t:g}; expected ({size},), all finite")
        at, zero = self.scale.internal(torch.tensor([[float(t)]])), torch.zeros(1, dtype=torch.float64)
        return Solution(self, StateEstimate(at, state[None, None], [zero.expand(1, size, size)], zero, zero), True)

    def context_from(self, examples: Sequence[Observations]) -> ContextPrior:
        """Posterior of the context of the system to which example trajectories of several frames belong."""
        windows = [self._window(example) for example in examples]
        if not windows or max(window.u.shape[1] for window in windows) < 2:
            raise UserError(f"{len(windows)} example trajectories are given, none with 2 frames; a context is "
                            "estimated from changes between frames: give at least one with 2 or more")
        estimate = self.solve_context(windows)
        self.warn_context(estimate.mean, estimate.covariance, estimate.misfit)
        return ContextPrior(estimate.mean, estimate.covariance)

    def warn_context(self, context: Tensor, covariance: Tensor | None = None, misfit: float | None = 0.0) -> bool:
        """Warn if a context (P,) lies outside the training distribution, or its `misfit` is large; whether it does."""
        if said := None if self.contexts is None else self.contexts.warning(context, misfit, covariance):
            warnings.warn(said, stacklevel=4)
        return bool(said)

    def answers_at_mean(self) -> dict[str, Any]:
        """Answers at the mean point of the training data at two times, given their mean value as observation."""
        x = np.eye(1, 3) if self.description.geometry == "sphere" else self.box.mean(0, keepdims=True)
        t = self.scale.origin + np.array([0.0, self.scale.unit])
        solution = self.solution_of(Observations(t[0], x, self.normalisation.mean[None].numpy()))
        answer = solution.rows(t, np.repeat(x, 2, 0), std=True)
        return {**answer, "quantiles": np.stack([solution.quantile(answer, level) for level in (0.05, 0.95)])}

    def unresolved(self, states: Tensor, estimate: StateEstimate) -> Tensor:
        """`StatePrior.unresolved` of states (S, T, n) or (T, n)."""
        return self.prior.unresolved(*(self.decoder.tail(z[..., : self.code_size]) for z in (states, estimate.mean)))

    def widening(self, estimate: StateEstimate) -> Tensor:
        """Factors (S,) on standard deviations of forecasts: 1 inside of the training distribution, growing with the
        Mahalanobis distance of the codes or of the context, whichever is larger."""
        states = estimate.mean
        factor = self.prior.widening(states[..., : self.code_size], estimate)
        if self.contexts is None:
            return factor
        return torch.maximum(factor, self.contexts.widening(states[:, -1, -self.contexts.size :]))

    def solution_of(self, observations: Observations, context: ContextPrior | None = None) -> Solution:
        """`assimilate` for numbers in the data's units, as read from tables; `context`: of the system, where known."""
        with arithmetic_as_user_error():
            window = self._checked(observations)
            if (seen := int(window.observed.sum())) < self.window:
                warnings.warn(too_few_frames(seen, self.window), stacklevel=3)
            estimate = self.estimate(window, context=context)
            if self.context_size and context is None:
                mean, covariance = estimate.last_context(self.context_size)
                self.warn_context(mean[0].detach(), covariance[0].detach())
            return self._solution(estimate, [observations], context)

    def _checked(self, observations: Observations, last: Sequence[float] = ()) -> TrajectoryBatch:
        """The window of observations after a last time; warns of places and values outside the training data."""
        frames, extent = observations.frames(), self.extent
        extent.require_gaps(np.append(last, frames.t))
        extent.check_places(frames.x)
        window, outside = self._window(observations), extent.outside(frames.x)
        extent.warn_outside(int(outside.sum()), outside.size)
        warn_far([self.description.channels[c] for c in self.normalisation.far(window.u)])
        return window

    def _solution(self, estimate: StateEstimate, parts: list[Observations], context: ContextPrior | None, first: int = 0
                  ) -> Solution:
        """The solution of all parts of observations; warns of states, from frame `first` on, unlike training data."""
        distance = float(self.prior.distance(estimate.mean[0, first:, : self.code_size].detach()).max())
        only = self.training.get("frames") if self.training.get("trajectories") == 1 else None
        if distance > 1.01 * (limit := self.prior.limit(self.code_size, only)):  # rounding
            warnings.warn(f"the observed field is unlike the training data (squared distance of its code "
                          f"{distance:.4g}, limit {limit:.4g}): do not trust the forecast without checking it; its "
                          "intervals are widened", stacklevel=4)
        return Solution(self, estimate, parts[0].kind == "torch", partial(self._updated, estimate, parts, context))

    def _updated(self, estimate: StateEstimate, parts: list[Observations], context: ContextPrior | None,
                 further: Observations) -> Solution:
        further, last = observations_from(further, self.description), estimate.last[0]
        if self.residual is None and context is None and self.scale.is_after(further.frames().t[0], last):
            later = self._plausible(self._checked(further, [float(self.scale.external(last))]))
            found = continued(self.decoder, self.dynamics, self.prior, later, self.encoder, estimate)
            if found is not None:
                return self._solution(found, [*parts, further], None, estimate.mean.shape[1])
        return self.solution_of(reduce(Observations.updated_with, [*parts, further]), context)

    def _window(self, observations: Observations) -> TrajectoryBatch:
        return window_of(observations, self.description, self.scale.unit, self.decoder.affine,
                         in_steps=self.integrator.method == "map")


@reader(FORMAT)
def _read(stored: StoredModel, _: str | None) -> Surrogate:
    return Surrogate.from_stored(stored, stored.state, stored.metadata)
