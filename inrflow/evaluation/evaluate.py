"""Forecasts of a test file from its first frames, their errors, and those of the reference forecasts."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.data.formats.trajectory_file import TrajectoryFile, named_parameters
from inrflow.data.source import TrajectorySource
from inrflow.errors import UserError
from inrflow.evaluation.forecast import forecast, std_of_values
from inrflow.evaluation.known_contexts import known_contexts, parameter_errors, warn_parameters
from inrflow.evaluation.metrics.base import METRICS, Block, Metric, compared_report, report_of
from inrflow.evaluation.metrics.errors import SquaredErrors
from inrflow.evaluation.metrics.statistics import ChannelStatistics
from inrflow.evaluation.observe import Observe, distance_to_observed, observations, points_of
from inrflow.evaluation.place import require_place, shapes_of
from inrflow.evaluation.references.base import References
from inrflow.model.extent import arithmetic_as_user_error, warn_far
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate

_BLOCK = 16
_VALUES_PER_BLOCK = 2_000_000
_STEPS = 100.0  # ratio of time steps to those of training that suggests another unit


@dataclass
class Evaluation:
    """An evaluation of a surrogate on a test file.

    Attributes:
        report: the content of evaluation.json.
        times: (T,) of the first trajectory.
        by_frame: NMSE (T,) of each frame, for "inrflow" and every reference forecast by its name.
        example: one trajectory for plots: t (T,), x (N, d) or (T, N, d), truth, prediction and std (T, N, C) or None,
            `observed` (K, N, C) the assimilated values, NaN where not observed.
    """

    report: dict[str, Any]
    times: np.ndarray
    by_frame: dict[str, np.ndarray]
    example: dict[str, Any] = field(default_factory=dict)


@arithmetic_as_user_error()
def evaluate(
    surrogate: Surrogate,
    file: TrajectoryFile,
    observe: Observe,
    references: References | None = None,
    with_std: bool = True,
    context: ContextPrior | None = None,
    limit: float = math.inf,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Assimilate the first frames of every trajectory, from the first observed one on, forecast the others, compare.

    Args:
        context: one for all trajectories, in place of the known ones.
        limit: seconds after which no further trajectories are begun; the first and then random ones are taken.
        progress: called with the number of trajectories done, before each further block of them.

    Raises UserError where the file does not fit the surrogate.
    """
    require_channels(surrogate, file, "a file of the same system")
    models = [(np.arange(file.trajectories), surrogate)]
    if surrogate.decoder.place is not None and len(shapes := shapes_of(file)) > 1:
        from inrflow.evaluation.new_domain import models_of  # finite elements take a second to import

        models = models_of(surrogate, file, shapes)
    else:
        require_place(surrogate, file)
    seen_frames = surrogate.window if observe.frames is None else observe.frames
    source = TrajectorySource(file)
    observe.check(source)
    origin, contexts = ("given", context) if context is not None else known_contexts(surrogate, file, observe.context)
    if context is None:
        warn_parameters(surrogate, file)
    estimated: list[tuple[Tensor, Tensor]] = []  # contexts of the trajectories and their covariances
    training = surrogate.training
    seed, same = int(training["seed"]), bool(training["same_points"])
    fraction = training["points"] if observe.points is None else observe.points
    split = fraction if fraction < 1.0 else training["points"]  # which points count as observed in the report
    split = split if source.time_bins is None else 1.0  # rows of different times have no points in common
    tally = _Tally(ChannelStatistics(surrogate.description.channels))
    seconds = {"encode": 0.0, "rollout": 0.0, "decode": 0.0}
    decoded = 0
    random = np.random.default_rng([seed, 5])
    example: dict[str, Any] = {}
    corners, far = list[Tensor](), set[int]()
    block, done, started = _block_length(source, surrogate), list[np.ndarray](), time.perf_counter()
    for chosen, model in _parts(models, block, None if math.isinf(limit) else seed):
        if done and time.perf_counter() - started > limit:
            break
        if progress is not None:
            progress(sum(map(len, done)))
        done.append(chosen)
        batch = source.batch(chosen, normalised=False).begun()
        points = batch.u.shape[2]
        corners.append(torch.stack([batch.x.amin((0, 1, 2)), batch.x.amax((0, 1, 2))]))
        far |= set(surrogate.normalisation.far(batch.u))
        window = batch.first_frames(min(seen_frames, batch.u.shape[1]))
        noise = None
        if observe.noise:
            drawn = torch.as_tensor(random.standard_normal(tuple(window.u.shape)), dtype=window.u.dtype)
            noise = drawn * surrogate.normalisation.scale * observe.noise
        subset = None if fraction >= 1.0 else points_of(chosen, points, fraction, seed, same)
        observed = observations(window, subset, noise)
        began = time.perf_counter()
        own = None if contexts is None else contexts.select(torch.as_tensor(chosen))
        estimate = model.estimate(observed.window, with_std, own)
        if surrogate.context_size and estimate.known:
            estimated.append(estimate.last_context(surrogate.context_size))
        seconds["encode"] += time.perf_counter() - began
        forecasts = forecast(model, estimate, batch, with_std)
        prediction = surrogate.normalisation.invert(forecasts.mean)
        std = None if forecasts.std is None else (
            std_of_values(surrogate.prior, forecasts.std, estimate, observe.noise) * surrogate.normalisation.scale)
        seconds["rollout"] += forecasts.rollout_seconds
        seconds["decode"] += forecasts.decode_seconds
        decoded += prediction[..., 0].numel()
        in_time = batch.t - batch.t[:, :1] <= surrogate.horizon * (1 + 1e-6)
        groups = None
        if split < 1.0:
            groups = torch.zeros(len(chosen), points, dtype=torch.bool)
            groups.scatter_(1, points_of(chosen, points, split, seed, same), True)
        others = {} if references is None else references.forecast(batch.t, batch.x, observed.everywhere)
        last = observed.window.t.nan_to_num(nan=-torch.inf).amax(1)
        lead = ((batch.t - last[:, None]) / surrogate.scale.unit).clamp(min=0)
        distance = distance_to_observed(batch, observed)
        tally.update(Block(prediction, batch.u, in_time, groups, std, lead, distance), others)
        if not example:
            example = {
                "t": batch.t[0].numpy(),
                "x": batch.x[0, 0].numpy() if batch.x.shape[1] == 1 else batch.x[0].numpy(),
                "truth": batch.u[0].numpy(),
                "prediction": prediction[0].numpy(),
                "std": std[0].numpy() if std is not None else None,
                "observed": observed.everywhere[0].numpy(),
            }
    surrogate.extent.check_places(torch.cat(corners))
    step = float(np.nanmedian(np.diff(source.times.numpy()))) / surrogate.scale.unit
    span = max(surrogate.horizon / surrogate.scale.unit, 2.0)
    if not 1 / _STEPS < step < min(_STEPS, span):
        warnings.warn(f"{file.path}: time steps are {step:.3g} times those of training: check the unit of its times",
                      stacklevel=2)
    warn_far([surrogate.description.channels[c] for c in sorted(far)], f"{file.path}: ", stacklevel=3)
    report = tally.report() | {
        "encode_seconds": seconds["encode"],
        "rollout_seconds": seconds["rollout"],
        "decode_points_per_second": decoded / max(seconds["decode"], 1e-9),
        "parameters": surrogate.parameters,
        "code_size": surrogate.code_size,
        "memory": training.get("memory", 0),
        "frames_needed": surrogate.window,
        "trajectories": sum(map(len, done)),
        "observed": {"frames": seen_frames, "points": fraction, "noise": observe.noise},
        "points_split": "assimilated" if fraction < 1.0 else ("trained" if split < 1.0 else None),
        "horizon": surrogate.horizon,
        "contexts": _context_report(surrogate, file, origin, estimated, np.concatenate(done)),
    }
    return Evaluation(report, source.times[0].numpy(), tally.by_frame(), example)


class _Tally:
    """The registered metrics for the model, and the compared ones for every reference forecast."""

    def __init__(self, channels: ChannelStatistics) -> None:
        self._channels = channels
        self._model = {name: metric(channels) for name, metric in METRICS.items()}
        self._references: dict[str, dict[str, Metric]] = {}

    def update(self, block: Block, references: dict[str, Tensor]) -> None:
        """Add a block, and the reference forecasts (S, T, N, C) of the same trajectories by name."""
        self._channels.update(block.truth)
        for metric in self._model.values():
            metric.update(block)
        for name, values in references.items():
            if name not in self._references:
                self._references[name] = {key: kind(self._channels) for key, kind in METRICS.items() if kind.compared}
            other = Block(values, block.truth, block.in_time, block.observed_points)
            for metric in self._references[name].values():
                metric.update(other)

    def report(self) -> dict[str, Any]:
        """The error part of evaluation.json."""
        references = {name: compared_report(metrics.values()) for name, metrics in self._references.items()}
        return report_of(self._model.values()) | {"references": references}

    def by_frame(self) -> dict[str, np.ndarray]:
        """NMSE of each frame, for the model and every reference forecast."""
        result = {}
        for name, metrics in {"inrflow": self._model, **self._references}.items():
            errors = metrics[SquaredErrors.name]
            assert isinstance(errors, SquaredErrors)
            result[name] = errors.by_frame()
        return result


def _context_report(
    surrogate: Surrogate, file: TrajectoryFile, origin: str, estimated: list[tuple[Tensor, Tensor]], rows: np.ndarray
) -> dict[str, Any] | None:
    """Origin of contexts, and errors of the parameters inferred from them for trajectories `rows`, where the file holds
    the true ones."""
    known = surrogate.contexts
    if known is None:
        return None
    report: dict[str, Any] = {"from": origin, "size": known.size}
    true = named_parameters(file, known.names)
    if origin != "parameters" and known.map is not None and true is not None and estimated:
        means, covariances = (torch.cat(parts) for parts in zip(*estimated, strict=True))
        report["parameters"] = parameter_errors(surrogate, means, covariances, true[rows])
    return report


def require_channels(surrogate: Surrogate, file: TrajectoryFile, wanted: str) -> None:
    """Raise UserError, which asks for `wanted`, where a file lacks the surrogate's channels and coordinates."""
    ours, theirs = surrogate.description, file.description
    if not ours.same_system(theirs):
        raise UserError(f"{file.path} has {theirs.layout}; the surrogate was trained on {ours.layout}: give {wanted}")
    if None not in (ours.units, theirs.units) and ours.units != theirs.units:
        triples = zip(ours.channels, ours.units or (), theirs.units or (), strict=True)
        told = [f"{name} in {own} instead of {other}" for name, other, own in triples if own and other and own != other]
        if told:
            warnings.warn(f"{file.path} has {', '.join(told)} as in training; values are not converted", stacklevel=3)
    if None not in (ours.time_units, theirs.time_units) and ours.time_units != theirs.time_units:
        raise UserError(f"{file.path} counts times in {theirs.time_units}, the surrogate in {ours.time_units}: give a "
                        "file with the same units")


def blocks(members: np.ndarray, length: int) -> list[np.ndarray]:
    """Indices of trajectories in blocks of a given length."""
    return [members[start : start + length] for start in range(0, len(members), length)]


def _parts(models: list[tuple[np.ndarray, Surrogate]], length: int, seed: int | None
           ) -> Iterator[tuple[np.ndarray, Surrogate]]:
    """Batches of trajectories with their model; with a seed in random order after the first, in batches of increasing
    size, so that some are finished before the time limit."""
    for members, one in models:
        if seed is None:
            yield from ((part, one) for part in blocks(members, length))
            continue
        order, start, size = np.append(members[:1], np.random.default_rng(seed).permutation(members[1:])), 0, 1
        while start < len(order):
            yield np.sort(order[start : start + size]), one
            start, size = start + size, min(2 * size, length)


def _block_length(source: TrajectorySource, surrogate: Surrogate) -> int:
    """Number of trajectories that are forecast at once."""
    values = source.times.shape[1] * source.points * len(surrogate.description.channels)
    if source.time_bins is not None:  # every value has its own state
        values *= surrogate.code_size
    return int(np.clip(_VALUES_PER_BLOCK // max(1, values), 1, 4 * _BLOCK))
