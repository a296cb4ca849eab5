"""Second stage: codes of all training frames, closed-form dynamics on them, and which declared symmetries hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrflow.data.augmentation import Augmentation, moved_batch
from inrflow.data.source import TrajectorySource
from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.local import LocalProducts
from inrflow.dynamics.fields.network import NetworkTerm
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.fitting.linear_search import ClosedForm
from inrflow.dynamics.fitting.transitions_of_pde import steps_of
from inrflow.dynamics.flow.integrate import Integrator
from inrflow.dynamics.flow.linearised import Dynamics
from inrflow.dynamics.flow.time_scale import TimeScale
from inrflow.dynamics.states import CodeData
from inrflow.encoding.delayed_values import Drift
from inrflow.encoding.encode import encode
from inrflow.encoding.posterior import GaussianPrior

#: Motion of the codes of trajectories, given their indices: one for all, or for each of their frames its own.
DriftOf = Callable[[np.ndarray], Drift]
DETERMINED = 1.2  # transitions a state dimension
LINEAR_SUFFICES = 3.0  # times the decoder's own error: better dynamics would hardly show
_BLOCK = 16
MOVED_BLOCK = 2  # trajectories whose frames may each have a motion of their own: a matrix of all codes for every frame
_OF_MOST = (0.7, 0.78, 0.85, 0.92, 1.0)  # shares of as many codes as there are transitions of a single trajectory
_APART = 1.5  # the most by which code sizes to try there differ
_TAILS = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 0.0)


def encode_trajectories(
    source: TrajectorySource,
    decoder: Decoder,
    prior: GaussianPrior,
    trajectories: np.ndarray,
    scale: TimeScale,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
    drift: DriftOf | None = None,
) -> CodeData:
    """Codes of whole trajectories, moved by a random symmetry each if an augmentation is given; block by block.

    `drift` carries delayed values of some of the trajectories to the times of their frames.
    """
    parts = []
    random = np.random.default_rng([seed, 17])
    length = _BLOCK if drift is None else MOVED_BLOCK
    for start in range(0, len(trajectories), length):
        block = trajectories[start : start + length]
        batch = moved_batch(source, block, augmentation, random)
        observed = batch.observed
        codes = encode(decoder, batch, prior, drift=None if drift is None else drift(block))
        parts.append(CodeData(codes, scale.internal(batch.t), observed))
        progress(start + len(block))
    return CodeData.join(parts)


def candidate_sizes(variances: Tensor, transitions: int, fixed: int | None = None) -> list[int]:
    """Code sizes worth trying: where the spectrum's tail falls below a share, as far as the data determine a field."""
    if fixed is not None:
        return [min(fixed, len(variances))]
    tail = variances.flip(0).cumsum(0).flip(0) / variances.sum()
    sizes = {int((tail > share).sum()) for share in _TAILS} | {len(variances)}
    limit = max(2, int(transitions / DETERMINED))
    chosen = sorted({max(1, min(size, limit)) for size in sizes})
    return chosen


def closer_sizes(sizes: list[int], most: int) -> list[int]:
    """Code sizes with others in between, and up to as many as there are transitions: where a single trajectory is to be
    forecast, how many are best depends as much on the number of transitions as on the spectrum."""
    closer = {min(size, most) for size in sizes} | {max(1, round(share * most)) for share in _OF_MOST}
    for low, high in itertools.pairwise(sorted(closer)):
        parts = math.ceil(math.log(high / low) / math.log(_APART))
        closer |= {round(low * (high / low) ** (part / parts)) for part in range(1, parts)}
    return sorted(closer)


def copies_for(trajectories: int, symmetries: int, wanted: int | None) -> int:
    """How many copies of every training trajectory are made, the original among them."""
    if not symmetries:
        return 1
    return wanted if wanted is not None else int(np.clip(math.ceil(1024 / trajectories), 4, 64))


@dataclass
class FieldSettings:
    """What the configuration says of the vector field."""

    forcing_period: float
    forcing_harmonics: int
    width: int
    depth: int


def linear_field(fit: ClosedForm, settings: FieldSettings) -> VectorField:
    """The closed-form field alone, float64."""
    field = VectorField.of(
        len(fit.bias), forcing_period=settings.forcing_period, forcing_harmonics=settings.forcing_harmonics
    ).double()
    field.set_linear(fit.matrix, fit.bias, fit.forcing)
    return field


def integration_step(field: VectorField, states: CodeData, floor: float, largest: float = 1.0) -> float:
    """The largest step of rk4, halved from `largest`, whose error in a rollout is a small part of `floor`."""
    if field.get(NetworkTerm) is not None or len(states.codes) == 0:
        return largest
    if field.get(LocalProducts) is not None:
        size = field.state_size
        contexts = states.codes[:, 0, size:].unique(dim=0) if field.context_size else None
        largest = min(largest, 1 / steps_of(field, states, contexts))
    rows = torch.isfinite(states.t).all(1).nonzero()[:64, 0]
    if not len(rows):
        return largest
    start, times = states.codes[rows, 0], states.t[rows]
    variance = states.codes[states.observed].square().sum(1).mean()
    with torch.no_grad():
        reference = Integrator(step=largest / 16)(field, start, times, check=False)
        for halvings in range(4):
            step = largest / 2**halvings
            error = Integrator(step=step)(field, start, times, check=False) - reference
            if float(error.square().sum(-1).mean() / variance) < 0.02 * floor:
                return step
    return largest / 16


def fit_state_prior(states: CodeData, prior: GaussianPrior, size: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of states [code, memory]: the prior of the codes, and memory as it goes with them."""
    memory = states.codes.shape[-1] - size
    mean, covariance = prior.mean[:size], prior.covariance[:size, :size]
    if not memory:
        return mean, covariance
    seen = states.codes[states.observed]
    code, hidden = seen[:, :size] - mean, seen[:, size:]
    gram = code.T @ code + 1e-6 * code.square().sum() / size * torch.eye(size)
    gain = torch.linalg.solve(gram, code.T @ (hidden - hidden.mean(0))).T
    rest = hidden - hidden.mean(0) - code @ gain.T
    rest_covariance = rest.T @ rest / len(rest)
    rest_covariance = rest_covariance + 1e-9 * rest_covariance.diagonal().max() * torch.eye(memory)
    cross = gain @ covariance
    top = torch.cat([covariance, cross.T], 1)
    bottom = torch.cat([cross, cross @ gain.T + rest_covariance], 1)
    return torch.cat([mean, hidden.mean(0)]), torch.cat([top, bottom])


def process_noise(field: VectorField, integrator: Integrator, states: CodeData) -> Tensor:
    """Variance (n,) that one unit of time adds, from one-step forecasts of states the field was not fitted to."""
    total = torch.zeros(states.codes.shape[-1], dtype=torch.float64)
    count = 0
    for k in range(states.codes.shape[1] - 1):
        rows = (states.observed[:, k] & states.observed[:, k + 1]).nonzero()[:, 0]
        if not len(rows):
            continue
        with torch.no_grad():
            end = integrator(field, states.codes[rows, k], states.t[rows, k : k + 2], check=False)[:, 1]
        gap = (states.t[rows, k + 1] - states.t[rows, k])[:, None]
        total += ((states.codes[rows, k + 1] - end).square() / gap).nan_to_num(0.0).sum(0)
        count += len(rows)
    return total / max(count, 1)


def rollout_error(
    field: VectorField, integrator: Integrator, states: CodeData, judged: CodeData, first: int, size: int
) -> float:
    """Error of rollouts from frame `first`, share of the variance; what the code size cuts off counts."""
    with torch.no_grad():
        parameter = next(field.parameters())
        start = states.codes[:, first].to(parameter)
        predicted = integrator(field, start, states.t[:, first:].to(start.device), check=False).double().cpu()
    error = judged.codes[:, first:].clone()
    error[..., :size] -= predicted[..., :size]
    seen = judged.observed[:, first:] & states.observed[:, first : first + 1]  # a start that nobody saw is no start
    seen[:, 0] = False
    values = error[seen].square().sum(1)
    variance = judged.codes[judged.observed].square().sum(1).mean()
    value = float(values.mean() / variance)
    return value if value == value else float("inf")



def calibrated_process_noise(field: VectorField, integrator: Integrator, unseen: CodeData) -> Tensor:
    """As `process_noise`, scaled so that the spread it predicts for whole rollouts is that of their errors."""
    process = process_noise(field, integrator, unseen)
    rows = unseen.observed.all(1).nonzero()[:32, 0]
    if not len(rows) or unseen.codes.shape[1] < 3 or not bool((process > 0).any()):
        return process
    dynamics = Dynamics(field, integrator, process)
    start, times = unseen.codes[rows, 0], unseen.t[rows]
    path = dynamics.flow(start, times, check=False)
    if not bool(torch.isfinite(path).all()):
        return process
    covariance = torch.zeros(1, start.shape[1], start.shape[1], dtype=torch.float64)
    predicted, actual = 0.0, 0.0
    for k in range(min(unseen.codes.shape[1] - 1, 20)):
        covariance, _ = dynamics.propagate(covariance, path[:, k], path[:, k + 1], times[:, k], times[:, k + 1])
        predicted += float(covariance.diagonal(dim1=1, dim2=2).sum(1).mean())
        actual += float((unseen.codes[rows, k + 1] - path[:, k + 1]).square().sum(1).mean())
    return process * min(max(actual / max(predicted, 1e-300), 0.1), 1e3)
