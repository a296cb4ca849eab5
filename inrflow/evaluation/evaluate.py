"""`evaluate`: forecasts of a test file from its first frames, their errors, and those of the reference forecasts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.assimilation import ContextPrior
from inrflow.data.batch import TrajectoryBatch
from inrflow.data.environments import named_parameters
from inrflow.data.sampling import observed_points
from inrflow.data.source import TrajectorySource
from inrflow.data.trajectories import TrajectoryFile
from inrflow.errors import UserError
from inrflow.evaluation.known_contexts import known_contexts, parameter_errors
from inrflow.evaluation.metrics import ErrorTable, channel_variance
from inrflow.evaluation.references import References
from inrflow.evaluation.spread import predicted_std
from inrflow.solution import StatePath
from inrflow.surrogate import Surrogate

_BLOCK = 16
_VALUES_PER_BLOCK = 2_000_000


@dataclass(frozen=True)
class Observe:
    """What of a test trajectory is seen: its first `frames`, a fraction of `points`, with `noise` added (in units of
    the channel's standard deviation). `points` None: the fraction that training saw. `context`: which contexts the
    trajectories have, see `known_contexts`."""

    frames: int = 1
    points: float | None = None
    noise: float = 0.0
    context: str = "auto"


@dataclass
class Evaluation:
    """The report of evaluation.json, errors by frame of the model and of every reference, and one example to plot."""

    report: dict[str, Any]
    times: np.ndarray
    by_frame: dict[str, np.ndarray]
    example: dict[str, Any] = field(default_factory=dict)


def evaluate(
    surrogate: Surrogate,
    file: TrajectoryFile,
    observe: Observe,
    references: References | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    with_std: bool = True,
    context: ContextPrior | None = None,
) -> Evaluation:
    """Assimilate the first frames of every trajectory, forecast the rest, compare.

    `context`: one for all trajectories, in place of what is known of theirs. Raises UserError where the file does not
    fit the surrogate.
    """
    _check(surrogate, file, observe)
    source = TrajectorySource(file)
    origin, contexts = ("given", context) if context is not None else known_contexts(surrogate, file, observe.context)
    found: list[tuple[Tensor, Tensor]] = []  # contexts of the trajectories and their covariances
    seed, training = int(surrogate.training["seed"]), surrogate.training
    fraction = training["points"] if observe.points is None else observe.points
    split = fraction if fraction < 1.0 else training["points"]  # which points count as observed in the report
    indices = np.arange(len(source))
    variance = channel_variance(source.batch([int(i)], normalised=False).u for i in indices)
    channels = surrogate.description.channels
    table = ErrorTable(channels, variance)
    tables: dict[str, ErrorTable] = {}
    seconds = {"encode": 0.0, "rollout": 0.0, "decode": 0.0}
    decoded = 0
    noise = np.random.default_rng([seed, 5])
    example: dict[str, Any] = {}
    frames, points = source.times.shape[1], file.points
    block = int(np.clip(_VALUES_PER_BLOCK // max(1, frames * points * len(channels)), 1, _BLOCK * 4))
    for start in range(0, len(source), block):
        chosen = indices[start : start + block]
        batch = source.batch(chosen, normalised=False)
        window = batch.first_frames(min(observe.frames, batch.u.shape[1]))
        seen_points = _seen(chosen, points, fraction, training, seed)
        observed = _observed(window, seen_points, observe.noise, surrogate, noise)
        began = time.perf_counter()
        estimate = surrogate.estimate(observed, with_std, _of_trajectories(contexts, chosen))
        if surrogate.context_size and estimate.covariance is not None:
            at, spread = estimate.mean[:, -1], estimate.covariance[-1]
            k = at.shape[1] - surrogate.context_size
            found.append((at[:, k:], spread[:, k:, k:].expand(len(at), -1, -1)))
        seconds["encode"] += time.perf_counter() - began
        prediction, std, spent = _forecast(surrogate, estimate, batch, with_std)
        seconds["rollout"] += spent[0]
        seconds["decode"] += spent[1]
        decoded += prediction[..., 0].numel()
        elapsed = batch.t - batch.t[:, :1]
        in_time = elapsed <= surrogate.horizon * (1 + 1e-6)
        groups = None
        if split < 1.0:
            groups = torch.zeros(len(chosen), points, dtype=torch.bool)
            for row, i in enumerate(chosen):
                groups[row, observed_points(seed, int(i), points, split, bool(training["same_points"]))] = True
        table.update(prediction, batch.u, in_time, groups, std)
        if references is not None:
            full = torch.full_like(window.u, float("nan"))
            if len(observed.x) == len(window.x) and observed.u.shape[2] == window.u.shape[2]:
                full = observed.u
            else:
                for row, picked in enumerate(seen_points or []):
                    full[row, :, picked] = observed.u[row, :, : len(picked)]
            for name, forecast in references.forecast(batch.t, batch.x, full).items():
                tables.setdefault(name, ErrorTable(channels, variance)).update(forecast, batch.u, in_time, groups)
        if not example:
            example = {
                "t": batch.t[0].numpy(),
                "x": batch.x[0, 0].numpy() if batch.x.shape[1] == 1 else batch.x[0].numpy(),
                "truth": batch.u[0].numpy(),
                "prediction": prediction[0].numpy(),
                "std": std[0].numpy() if std is not None else None,
            }
        progress(start + len(chosen), len(source))
    report = table.report()
    report["references"] = {name: other.errors() for name, other in tables.items()}
    report |= {
        "encode_seconds": seconds["encode"],
        "rollout_seconds": seconds["rollout"],
        "decode_points_per_second": decoded / max(seconds["decode"], 1e-9),
        "parameters": surrogate.parameters,
        "code_size": surrogate.code_size,
        "memory": surrogate.training.get("memory", 0),
        "trajectories": len(source),
        "observed": {"frames": observe.frames, "points": fraction, "noise": observe.noise},
        "points_split": "assimilated" if fraction < 1.0 else ("trained" if split < 1.0 else None),
        "horizon": surrogate.horizon,
        "contexts": _context_report(surrogate, file, origin, found),
    }
    by_frame = {"inrflow": table.by_frame()} | {name: other.by_frame() for name, other in tables.items()}
    return Evaluation(report, source.times[0].numpy(), by_frame, example)


def _of_trajectories(context: ContextPrior | None, chosen: np.ndarray) -> ContextPrior | None:
    """The part of contexts that belongs to some trajectories."""
    if context is None or context.mean.dim() == 1:
        return context
    return ContextPrior(context.mean[torch.as_tensor(chosen)], context.covariance)


def _context_report(
    surrogate: Surrogate, file: TrajectoryFile, origin: str, found: list[tuple[Tensor, Tensor]]
) -> dict[str, Any] | None:
    """Where contexts came from, and how well parameters are read off them where the file holds the true ones."""
    known = surrogate.contexts
    if known is None:
        return None
    report: dict[str, Any] = {"from": origin, "size": known.size}
    true = named_parameters(file, known.names)
    if origin != "parameters" and known.map is not None and true is not None and found:
        means, spreads = torch.cat([mean for mean, _ in found]), torch.cat([spread for _, spread in found])
        report["parameters"] = parameter_errors(surrogate, means, spreads, true)
    return report


def _check(surrogate: Surrogate, file: TrajectoryFile, observe: Observe) -> None:
    ours, theirs = surrogate.description, file.description
    if ours.channels != theirs.channels or len(ours.coordinates) != len(theirs.coordinates):
        raise UserError(
            f"{file.path} has channels {', '.join(theirs.channels)} in {len(theirs.coordinates)} coordinates; the "
            f"surrogate was trained on {', '.join(ours.channels)} in {len(ours.coordinates)}: give a file of the same "
            "system"
        )
    if observe.frames < 1:
        raise UserError(f"observe.frames={observe.frames}; at least one frame must be observed")
    if observe.points is not None and not 0 < observe.points <= 1:
        raise UserError(f"observe.points={observe.points:g}; give a fraction above 0 and at most 1")
    if observe.noise < 0:
        raise UserError(f"observe.noise={observe.noise:g}; give a standard deviation of 0 or more")


def _seen(chosen: np.ndarray, points: int, fraction: float, training: dict, seed: int) -> list[np.ndarray] | None:
    if fraction >= 1.0:
        return None
    return [observed_points(seed, int(i), points, fraction, bool(training["same_points"])) for i in chosen]


def _observed(
    window: TrajectoryBatch,
    seen: list[np.ndarray] | None,
    noise: float,
    surrogate: Surrogate,
    random: np.random.Generator,
) -> TrajectoryBatch:
    """The observed part of a window: fewer points, noise added."""
    x, u = window.x, window.u
    if seen is not None:
        u = torch.stack([u[row, :, picked] for row, picked in enumerate(seen)])
        same = all(np.array_equal(seen[0], picked) for picked in seen)
        if same and len(x) == 1:
            x = x[:, :, seen[0]]
        else:
            x = x.expand(len(u), *x.shape[1:])
            x = torch.stack([x[row, :, picked] for row, picked in enumerate(seen)])
    if noise:
        scale = surrogate.normalisation.scale * noise
        u = u + torch.as_tensor(random.standard_normal(tuple(u.shape)), dtype=u.dtype) * scale
    return TrajectoryBatch(window.t, x, u)


def _forecast(
    surrogate: Surrogate, estimate: Any, batch: TrajectoryBatch, with_std: bool
) -> tuple[Tensor, Tensor | None, tuple[float, float]]:
    """Prediction and standard deviation (S, T, N, C) at all frames of a batch; seconds of rollout and decoding."""
    size = surrogate.code_size
    began = time.perf_counter()
    path = StatePath(surrogate, estimate)
    shared = bool((batch.t == batch.t[:1]).all())
    inner = surrogate.scale.internal(batch.t)
    if shared:
        states = path.mean(inner[0], check=False)
    else:
        parts = []
        for s in range(len(batch)):
            one = StatePath(surrogate, estimate.single(s))
            rows = torch.isfinite(inner[s])
            state = torch.full((1, inner.shape[1], estimate.mean.shape[-1]), float("nan"), dtype=torch.float64)
            state[:, rows] = one.mean(inner[s][rows], check=False)
            parts.append(state)
        states = torch.cat(parts)
    rollout = time.perf_counter() - began
    decoder, dtype = surrogate.decoder, next(surrogate.decoder.parameters()).dtype
    codes = states[..., :size]
    std = None
    began = time.perf_counter()
    with torch.no_grad():
        x = batch.x.to(dtype)
        prediction = surrogate.normalisation.invert(decoder(x, codes.to(dtype)))
        decode = time.perf_counter() - began
        if with_std and decoder.affine:
            std = predicted_std(surrogate, estimate, states, inner, x) * surrogate.normalisation.scale
    return prediction, std, (rollout, decode)
