"""`evaluate`: forecasts of a test file from its first frames, their errors, and those of the reference forecasts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.environments import named_parameters
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.sampling import observed_points
from inrflow.data.source import TrajectorySource
from inrflow.errors import UserError
from inrflow.evaluation.forecast import forecast
from inrflow.evaluation.known_contexts import known_contexts, parameter_errors
from inrflow.evaluation.metrics import ChannelVariance, ErrorTable
from inrflow.evaluation.references.registry import References
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate

_BLOCK = 16
_VALUES_PER_BLOCK = 2_000_000


@dataclass(frozen=True)
class Observe:
    """What of a test trajectory is seen: its first `frames` (None: as many as forecasts need), a fraction of `points`
    (None: the one that training saw), with `noise` added (in units of the channel's standard deviation). `context`:
    which contexts the trajectories have, see `known_contexts`."""

    frames: int | None = 1
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
    seen_frames = surrogate.window if observe.frames is None else observe.frames
    source = TrajectorySource(file)
    if observe.frames is not None and observe.frames > source.times.shape[1]:
        raise UserError(f"observe.frames={observe.frames}, but no trajectory of {file.path} has more than "
                        f"{source.times.shape[1]} frames; give no more")
    origin, contexts = ("given", context) if context is not None else known_contexts(surrogate, file, observe.context)
    found: list[tuple[Tensor, Tensor]] = []  # contexts of the trajectories and their covariances
    seed, training = int(surrogate.training["seed"]), surrogate.training
    fraction = training["points"] if observe.points is None else observe.points
    split = fraction if fraction < 1.0 else training["points"]  # which points count as observed in the report
    split = split if source.time_bins is None else 1.0  # rows of different times have no points in common
    same = bool(training["same_points"])
    channels, variance = surrogate.description.channels, ChannelVariance()
    table = ErrorTable(channels)
    tables: dict[str, ErrorTable] = {}
    seconds = {"encode": 0.0, "rollout": 0.0, "decode": 0.0}
    decoded = 0
    random = np.random.default_rng([seed, 5])
    example: dict[str, Any] = {}
    indices, block = np.arange(len(source)), _block_length(source, surrogate)
    for start in range(0, len(source), block):
        chosen = indices[start : start + block]
        batch = source.batch(chosen, normalised=False)
        points = batch.u.shape[2]
        variance.update(batch.u)
        window = batch.first_frames(min(seen_frames, batch.u.shape[1]))
        noise = None
        if observe.noise:
            drawn = torch.as_tensor(random.standard_normal(tuple(window.u.shape)), dtype=window.u.dtype)
            noise = drawn * surrogate.normalisation.scale * observe.noise
        seen = _look(window, None if fraction >= 1.0 else _points(chosen, points, fraction, seed, same), noise)
        began = time.perf_counter()
        estimate = surrogate.estimate(seen.window, with_std, _of_trajectories(contexts, chosen))
        if surrogate.context_size and estimate.covariance is not None:
            at, spread = estimate.mean[:, -1], estimate.covariance[-1]
            k = at.shape[1] - surrogate.context_size
            found.append((at[:, k:], spread[:, k:, k:].expand(len(at), -1, -1)))
        seconds["encode"] += time.perf_counter() - began
        forecasts = forecast(surrogate, estimate, batch, with_std)
        prediction = surrogate.normalisation.invert(forecasts.mean)
        std = None if forecasts.std is None else forecasts.std * surrogate.normalisation.scale
        seconds["rollout"] += forecasts.rollout_seconds
        seconds["decode"] += forecasts.decode_seconds
        decoded += prediction[..., 0].numel()
        in_time = batch.t - batch.t[:, :1] <= surrogate.horizon * (1 + 1e-6)
        groups = None
        if split < 1.0:
            groups = torch.zeros(len(chosen), points, dtype=torch.bool)
            groups.scatter_(1, _points(chosen, points, split, seed, same), True)
        table.update(prediction, batch.u, in_time, groups, std)
        if references is not None:
            for name, values in references.forecast(batch.t, batch.x, seen.everywhere).items():
                tables.setdefault(name, ErrorTable(channels)).update(values, batch.u, in_time, groups)
        if not example:
            example = {
                "t": batch.t[0].numpy(),
                "x": batch.x[0, 0].numpy() if batch.x.shape[1] == 1 else batch.x[0].numpy(),
                "truth": batch.u[0].numpy(),
                "prediction": prediction[0].numpy(),
                "std": std[0].numpy() if std is not None else None,
            }
        progress(start + len(chosen), len(source))
    whole = variance.value()
    report = table.report(whole)
    report["references"] = {name: other.errors(whole) for name, other in tables.items()}
    report |= {
        "encode_seconds": seconds["encode"],
        "rollout_seconds": seconds["rollout"],
        "decode_points_per_second": decoded / max(seconds["decode"], 1e-9),
        "parameters": surrogate.parameters,
        "code_size": surrogate.code_size,
        "memory": surrogate.training.get("memory", 0),
        "frames_needed": surrogate.window,
        "trajectories": len(source),
        "observed": {"frames": seen_frames, "points": fraction, "noise": observe.noise},
        "points_split": "assimilated" if fraction < 1.0 else ("trained" if split < 1.0 else None),
        "horizon": surrogate.horizon,
        "contexts": _context_report(surrogate, file, origin, found),
    }
    by_frame = {"inrflow": table.by_frame(whole)}
    by_frame |= {name: other.by_frame(whole) for name, other in tables.items()}
    return Evaluation(report, source.times[0].numpy(), by_frame, example)


def _points(trajectories: np.ndarray, points: int, fraction: float, seed: int, same: bool) -> Tensor:
    """Indices (S, n) of the points of each trajectory that are observed."""
    return torch.as_tensor(np.stack([observed_points(seed, int(i), points, fraction, same) for i in trajectories]))


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


def require_channels(surrogate: Surrogate, file: TrajectoryFile, wanted: str) -> None:
    """Raise UserError, which asks for `wanted`, where a file has not the surrogate's channels and coordinates."""
    ours, theirs = surrogate.description, file.description
    if not ours.same_system(theirs):
        raise UserError(f"{file.path} has {theirs.layout}; the surrogate was trained on {ours.layout}: give {wanted}")


def _check(surrogate: Surrogate, file: TrajectoryFile, observe: Observe) -> None:
    require_channels(surrogate, file, "a file of the same system")
    if observe.frames is not None and observe.frames < 1:
        raise UserError(f"observe.frames={observe.frames}; at least one frame must be observed")
    if observe.points is not None and not 0 < observe.points <= 1:
        raise UserError(f"observe.points={observe.points:g}; give a fraction above 0 and at most 1")
    if observe.noise < 0:
        raise UserError(f"observe.noise={observe.noise:g}; give a standard deviation of 0 or more")


@dataclass
class _Seen:
    """What is seen of the first frames of a block of trajectories, in data units.

    Attributes:
        everywhere: values at all points, NaN where not observed, (S, K, N, C).
        window: the observed points alone, as they are assimilated.
    """

    everywhere: Tensor
    window: TrajectoryBatch


def _look(window: TrajectoryBatch, points: Tensor | None, noise: Tensor | None) -> _Seen:
    """Of a window's values those at some `points` (S, n) of each trajectory (None: all), with `noise` (S, K, N, C)."""
    values = window.u if noise is None else window.u + noise
    if points is None:
        return _Seen(values, window.with_values(values))
    rows = torch.arange(len(window))[:, None]
    unseen = torch.ones(len(window), values.shape[2], dtype=torch.bool)
    unseen[rows, points] = False
    x, shared = window.x, bool((points == points[:1]).all())
    if shared and len(x) == 1:
        places = x[:, :, points[0]]
    else:
        places = x.expand(len(window), *x.shape[1:]).transpose(1, 2)[rows, points].transpose(1, 2)
    chosen = values.transpose(1, 2)[rows, points].transpose(1, 2)
    delay = None if window.delay is None else window.delay.transpose(1, 2)[rows, points].transpose(1, 2)
    everywhere = values.masked_fill(unseen[:, None, :, None], float("nan"))
    return _Seen(everywhere, TrajectoryBatch(window.t, places, chosen, delay))


def _block_length(source: TrajectorySource, surrogate: Surrogate) -> int:
    """Trajectories that are forecast at once."""
    values = source.times.shape[1] * source.points * len(surrogate.description.channels)
    if source.time_bins is not None:  # every value has a state of its own
        values *= surrogate.code_size
    return int(np.clip(_VALUES_PER_BLOCK // max(1, values), 1, 4 * _BLOCK))
