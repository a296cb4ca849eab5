"""The metric interface and its registry.

A metric is one class in one file, decorated with `@register_metric`. `evaluate` then calls it with every block of
forecasts and writes its values to evaluation.json; the report on the screen shows those with a title.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from inrflow.evaluation.metrics.statistics import ChannelStatistics


@dataclass(frozen=True)
class Block:
    """Forecasts of S trajectories in data units, with the truth.

    Attributes:
        prediction, truth: (S, T, N, C). NaN in `truth` is unknown and ignored. A prediction may be non-finite.
        in_time: (S, T) bool, frames before the training horizon (frame 0 is one of them).
        observed_points: (S, N) bool, or None where the distinction does not apply.
        std: (S, T, N, C) standard deviation of the prediction, or None.
        lead: (S, T) time steps of training after the last observation, 0 before it, or None.
        distance: (S, N) to the nearest observed place, in median distances between neighbours of these, or None.
    """

    prediction: Tensor
    truth: Tensor
    in_time: Tensor
    observed_points: Tensor | None = None
    std: Tensor | None = None
    lead: Tensor | None = None
    distance: Tensor | None = None

    @cached_property
    def known(self) -> Tensor:
        """Where the truth is known, (S, T, N, C) bool."""
        return torch.isfinite(self.truth)

    @cached_property
    def error(self) -> Tensor:
        """Prediction minus truth in float64, 0 where the truth is unknown, (S, T, N, C)."""
        difference = self.prediction.detach().to(self.truth.device).double() - self.truth.double()
        return torch.where(self.known, difference, 0.0)


class Metric(ABC):
    """A figure (or several) of evaluation.json.

    Attributes:
        name: unique among metrics.
        titles: for each key of `value` that the report shows: the title of a column where the value is a dictionary of
            groups, else a format string for the number, such as "largest error {:.2e}".
        compared: keys that are also computed for the reference forecasts, which have no standard deviation.
        channels: names of the channels, and the variance of each over the whole test set once all blocks are seen.
    """

    name: ClassVar[str]
    titles: ClassVar[Mapping[str, str]] = {}
    compared: ClassVar[tuple[str, ...]] = ()

    def __init__(self, channels: ChannelStatistics) -> None:
        self.channels = channels

    @abstractmethod
    def update(self, block: Block) -> None:
        """Add a block of trajectories; no block may be kept."""

    @abstractmethod
    def value(self) -> dict[str, Any]:
        """Keys of evaluation.json, each a number, list or dictionary; null where not finite."""


METRICS: dict[str, type[Metric]] = {}
M = TypeVar("M", bound=type[Metric])


def register_metric(metric: M) -> M:
    """Class decorator: evaluations compute this metric from now on. Raises ValueError where its name is taken."""
    if METRICS.setdefault(metric.name, metric) is not metric:
        raise ValueError(f"the metric {metric.name!r} is registered already; choose another name")
    return metric


def report_of(metrics: Iterable[Metric]) -> dict[str, Any]:
    """All values of some metrics, ready for JSON. Raises ValueError where two of them share a key."""
    report: dict[str, Any] = {}
    for metric in metrics:
        values = metric.value()
        if shared := report.keys() & values.keys():
            raise ValueError(f"the metric {metric.name!r} repeats the keys {', '.join(sorted(shared))}")
        report |= {key: _plain(value) for key, value in values.items()}
    return report


def compared_report(metrics: Iterable[Metric]) -> dict[str, Any]:
    """The values that are also computed for reference forecasts, ready for JSON."""
    return {key: _plain(value) for metric in metrics if metric.compared
            for key, value in metric.value().items() if key in metric.compared}


def _plain(value: Any) -> Any:
    """Plain Python numbers, None for values that are not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
