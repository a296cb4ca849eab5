"""Known contexts of the trajectories of a test file, and errors of the parameters that contexts are mapped to."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from inrflow.data.formats.trajectory_file import Environments, TrajectoryFile, named_parameters
from inrflow.data.source import TrajectorySource
from inrflow.dynamics.states import evenly_spread
from inrflow.errors import UserError
from inrflow.model.state_prior import ContextPrior
from inrflow.model.surrogate import Surrogate

_MARGIN = 1e-6  # of the values: tolerance for rounding
_LEVEL = 0.95  # of the one-sided quantile of errors of contexts
_SOLVED = 6  # most held-out trajectories whose contexts are solved
CHOICES = ("auto", "parameters", "environment", "unknown")


def known_contexts(surrogate: Surrogate, file: TrajectoryFile, wanted: str = "auto") -> tuple[str, ContextPrior | None]:
    """The origin of the contexts of a file's trajectories, and the contexts: means (S, P), or None for the surrogate's
    prior.

    Origins: "parameters" (those of the file, by the trained map), "environment" (those of the training environments
    with the same ids), "unknown" (the prior), "none" (the surrogate has no contexts). "auto" takes the first that
    applies; an adapted surrogate its own prior. Raises UserError where the file lacks those that are `wanted`.
    """
    if wanted not in CHOICES:
        raise UserError(f"observe.context={wanted!r}; choose from {', '.join(CHOICES)}")
    contexts = surrogate.contexts
    if contexts is None or wanted == "unknown" or (wanted == "auto" and surrogate.training.get("adapted")):
        return ("unknown" if contexts is not None else "none"), None
    values = named_parameters(file, contexts.names)
    if wanted in ("auto", "parameters") and contexts.map is not None and values is not None:
        mean, error = (of(torch.as_tensor(values)) for of in (contexts.map.contexts, contexts.map.error_at))
        assert contexts.parameters is not None
        for row, parameters in enumerate(torch.as_tensor(values)):  # a training environment's own context is better
            same = torch.isclose(contexts.parameters, parameters, rtol=1e-9, atol=0.0).all(1).nonzero()[:, 0]
            if len(same):
                own = ContextPrior.of_known(contexts.values[same[0]])
                mean[row], error[row] = own.mean, own.covariance
        return "parameters", ContextPrior(mean, error)
    if wanted == "parameters":
        names = ", ".join(contexts.names) or "any"
        raise UserError(f"observe.context=parameters, but {file.path} does not hold {names} of the training data; give "
                        "observe.context=unknown")
    labels = contexts.labels.numpy()
    numbers = file.environment
    if numbers is not None and contexts.kind == "environment" and bool(np.isin(numbers, labels).all()):
        return "environment", ContextPrior.of_known(contexts.values[torch.as_tensor(np.searchsorted(labels, numbers))])
    if wanted == "environment":
        raise UserError(f"observe.context=environment, but {file.path} holds environments unknown in training; give "
                        "observe.context=unknown")
    return "unknown", None


def calibrate_contexts(surrogate: Surrogate, source: TrajectorySource, systems: Environments | None, held: np.ndarray,
                       seconds: float, most: int = _SOLVED) -> int:
    """Set the spread of a surrogate's contexts: the mean squared Mahalanobis distance of contexts inferred from single
    held-out trajectories to those of their systems, at least 1; and the bound on their errors by Student's quantile.
    Returns the number of solves, `most` at most; none begin after `seconds`.

    Residuals of codes, which contexts compensate, make posterior variances too small. Trajectories are spread evenly,
    one in the middle first, then those at both ends: a law may be far worse at one end of the systems.
    """
    contexts, apart, misfits, began = surrogate.contexts, list[float](), list[float](), time.perf_counter()
    squares: Tensor | float = 0.0
    rows = held[evenly_spread(len(held), _SOLVED).numpy()]
    first = dict.fromkeys([len(rows) // 2, 0, len(rows) - 1, *range(len(rows))])
    for row in rows[list(first)] if len(rows) and contexts is not None and systems is not None else ():
        assert contexts is not None and systems is not None
        own = (contexts.labels == int(systems.labels[systems.index[row]])).nonzero()[:, 0].tolist()
        if not own or len(apart) == most or (apart and time.perf_counter() - began > seconds):
            continue
        found = surrogate.solve_context([source.batch(np.array([row]), normalised=False)])
        mean, covariance, true = found.mean, found.covariance, contexts.values
        if contexts.on_curve:  # departures from the curve have no variance
            assert contexts.map is not None and contexts.parameters is not None
            (mean, covariance), true = contexts.map.parameters(mean, covariance), contexts.parameters
        misfits.append(found.misfit)
        missed = mean - true[own[0]]
        squares = squares + missed.square()
        apart.append(float(missed @ torch.linalg.solve(covariance, missed)) / len(missed))
    if contexts is not None and apart:
        contexts.spread, contexts.missed = max(1.0, float(np.mean(apart))), max(misfits)
        contexts.error = float(stdtrit(len(apart), _LEVEL)) * torch.as_tensor(squares / len(apart)).sqrt()
    return len(apart)


def warn_parameters(surrogate: Surrogate, file: TrajectoryFile) -> None:
    """Warn of parameters of a file outside their range in training, even if they were constant there, and of a file
    without those that determine contexts."""
    contexts, ranges = surrogate.contexts, file.parameter_ranges
    for name, (low, high) in surrogate.training.get("parameters", {}).items():
        margin = _MARGIN * max(high - low, abs(low), abs(high))
        least, most = ranges.get(name, (low, high))
        if least < low - margin or most > high + margin:
            seen = f"{low:.6g} to {high:.6g}" if high > low else f"always {low:.6g}"
            given = f"{least:.6g} to {most:.6g}" if most > least else f"{least:.6g}"
            warnings.warn(f"{file.path}: {name} is {given}, in training it was {seen}: forecasts of "
                          "other values are extrapolations" + ("" if high > low else ", and do not depend on it"),
                          stacklevel=3)
    if contexts is not None and contexts.map is not None and (lacks := set(contexts.names) - set(ranges)):
        warnings.warn(f"{file.path} has no parameter {', '.join(sorted(lacks))}, by which systems are distinguished: "
                      "contexts are estimated from the observed frames", stacklevel=3)


def parameter_errors(surrogate: Surrogate, contexts: Tensor, covariances: Tensor, true: np.ndarray) -> dict[str, Any]:
    """Errors of the parameters that contexts (S, P) are mapped to: for each, mean absolute, mean relative and largest
    relative error, and the mean predicted standard deviation."""
    known = surrogate.contexts
    assert known is not None and known.map is not None
    estimates = [known.map.parameters(c, v) for c, v in zip(contexts, covariances, strict=True)]
    estimate = torch.stack([mean for mean, _ in estimates]).numpy()
    spread = torch.stack([cov.diagonal().clamp(min=0).sqrt() for _, cov in estimates]).numpy()
    error = np.abs(estimate - true)
    relative = error / np.maximum(np.abs(true), 1e-300)
    return {
        name: {
            "mean_absolute_error": float(error[:, q].mean()),
            "mean_relative_error": float(relative[:, q].mean()),
            "largest_relative_error": float(relative[:, q].max()),
            "mean_std": float(spread[:, q].mean()),
        }
        for q, name in enumerate(known.names)
    }
