"""Transitions of states over equal steps: the map of one step by ridge regression, and its generator.

Dynamic mode decomposition in continuous time: the generator is the matrix logarithm of the map. `moments` fits steps
that differ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

FASTEST = 2.0  # decay or growth of more than e^2 in a time step cannot be told from noise, and rk4 blows up on it
_FARTHEST = 200.0  # norm of generator times time of a flow
_REACH, _ORDER = 4.0, 40  # that norm in one Taylor step, and terms: few products for each unit, and rounding error e^4


@dataclass
class Transitions:
    """Pairs of successive states: start (P, n), end (P, n), time at the start and step, (P,), internal units."""

    start: Tensor
    end: Tensor
    t: Tensor
    step: Tensor

    @property
    def uniform(self) -> bool:
        return bool((self.step - self.step[0]).abs().max() < 1e-4 * self.step[0].abs())

    def truncated(self, size: int) -> "Transitions":
        return Transitions(self.start[:, :size], self.end[:, :size], self.t, self.step)


def transitions_of(states: Tensor, times: Tensor, observed: Tensor) -> Transitions:
    """All pairs of successive observed frames of states (S, T, n) at times (S, T)."""
    starts, ends, t, steps = [], [], [], []
    for s in range(len(states)):
        index = observed[s].nonzero()[:, 0]
        starts.append(states[s, index[:-1]])
        ends.append(states[s, index[1:]])
        t.append(times[s, index[:-1]])
        steps.append(times[s, index[1:]] - times[s, index[:-1]])
    return Transitions(torch.cat(starts).double(), torch.cat(ends).double(), torch.cat(t), torch.cat(steps))


class LinearFit:
    """Ridge regressions of one data set for many sizes and strengths, from one pass over the transitions.

    Codes are ordered by variance, so the regression on the first n of them is a leading block of the same normal
    equations. The ridge is relative to the mean diagonal of the Gram matrix.
    """

    def __init__(self, transitions: Transitions) -> None:
        self.transitions = transitions
        start = torch.cat([torch.ones(len(transitions.start), 1, dtype=torch.float64), transitions.start], 1)
        self.gram = start.T @ start
        self.cross = start.T @ (transitions.end - transitions.start)
        self.cross_end = start.T @ transitions.end

    def step_map(self, size: int, ridge: float, pull: str = "change") -> Tensor:
        """Affine map (n + 1, n + 1) of one time step on [1, s]; meaningful for uniform steps only.

        The ridge pulls towards no change (`pull="change"`) or towards the mean (`pull="mean"`).
        """
        gram = self.gram[: size + 1, : size + 1].clone()
        strength = ridge * gram.diagonal()[1:].mean()
        gram.diagonal()[1:].add_(strength)
        gram.diagonal()[0].add_(1e-12 * gram[0, 0])
        target = self.cross if pull == "change" else self.cross_end
        weights = torch.linalg.solve(gram, target[: size + 1, :size])
        step = torch.eye(size + 1, dtype=torch.float64)
        if pull != "change":
            step[1:, 1:] = 0.0
        step[1:, 1:] += weights[1:].T
        step[1:, 0] = weights[0]
        return step


def generator_of(step_map: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Matrix A and bias b of ds/dt = A s + b whose flow over `step` is the given affine map, as far as one exists.

    Eigenvalues that no slow real flow can produce (negative real ones, or a decay or growth faster than e^2 a step)
    belong to directions that the data do not determine; they are replaced by the nearest admissible ones.
    """
    values, vectors = torch.linalg.eig(step_map[1:, 1:])
    negative_real = (values.imag.abs() < 1e-9 * values.abs().clamp(min=1e-300)) & (values.real <= 0)
    magnitude = values.abs().clamp(min=1e-300).log().clamp(-FASTEST, FASTEST)
    angle = torch.where(negative_real, 0.0, values.angle())
    logarithm = torch.complex(torch.where(negative_real, -FASTEST, magnitude), angle)
    inverse = torch.linalg.inv(vectors)
    # The affine column by itself, b = log(M) (M - 1)^-1 c: on [1, s] a mode at rest that drifts has no eigenvectors.
    distance = values - 1
    near = distance.abs() < 1e-6
    share = torch.where(near, 1 - distance / 2, logarithm / torch.where(near, torch.ones_like(distance), distance))
    matrix = ((vectors * logarithm) @ inverse).real
    bias = ((vectors * share) @ (inverse @ step_map[1:, 0].to(vectors))).real
    return matrix / step, bias / step


def flow(generator: Tensor, states: Tensor, times: Tensor) -> Tensor:
    """exp(generator times_p) states_p: states (P, n) carried over a time (P,) each; NaN where that is out of reach.

    Taylor series in a few steps: far cheaper than a matrix exponential for each time.
    """
    if not len(times):
        return states
    size = generator.abs()
    reach = float((size.sum(0).max() * size.sum(1).max()).sqrt() * times.abs().max())  # bounds the spectral norm
    if not reach <= _FARTHEST:
        return torch.full_like(states, float("nan"))
    substeps = max(1, math.ceil(reach / _REACH))
    step = (times / substeps)[:, None]
    for _ in range(substeps):
        term, enough = states, 1e-17 * float(states.abs().max())
        for order in range(1, _ORDER + 1):
            term = (step / order) * (term @ generator.T)
            states = states + term
            if not float(term.abs().max()) > enough:
                break
    return states


def affine_rollout(
    states: Tensor, observed: Tensor, t: Tensor, step: float | None, step_map: Tensor | None,
    move: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Forecasts (S, T - 1, m) of states (S, T, m) on [1, s] from the first observed frame of each, and which (S, T - 1)
    of them have one before and are observed themselves.

    Args:
        step: to which `step_map`, (m, m) or (S, m, m), belongs: taken where all trajectories are that far apart.
        move: states (S, m) over times (S,), where they are not.
    """
    gaps = t[:, 1:] - t[:, :-1]
    finite, gaps = torch.isfinite(gaps), gaps.nan_to_num(0.0)
    alike = [False] * gaps.shape[1]
    if step is not None:
        alike = (((gaps - step).abs() < 1e-3 * step) | ~finite).all(0).tolist()
    begun = observed.cummax(1).values
    late = not bool(observed[:, 0].all())
    state, path = states[:, 0], []
    for i, equal in enumerate(alike):
        if equal and step_map is not None:
            state = state @ step_map.T if step_map.dim() == 2 else torch.einsum("sij,sj->si", step_map, state)
        else:
            state = move(state, gaps[:, i])
        if late:  # nothing was observed before: the forecast begins here
            state = torch.where(begun[:, i, None], state, states[:, i + 1])
        path.append(state)
    forecast = torch.stack(path, 1) if path else states[:, 1:]
    return forecast, finite & begun[:, :-1] & observed[:, 1:]
