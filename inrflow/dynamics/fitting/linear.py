"""Transitions of states over equal steps: the map of one step by ridge regression, and rollouts.

Dynamic mode decomposition; the generator is the matrix logarithm of the map. `moments` fits unequal steps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inrflow.encoding.encode import CodeData


@dataclass
class Transitions:
    """Pairs of successive states: start (P, n), end (P, n), and the time between them, step (P,), internal units."""

    start: Tensor
    end: Tensor
    step: Tensor

    @property
    def uniform(self) -> bool:
        """Whether all steps are equal; False without transitions."""
        return len(self.step) > 0 and bool((self.step - self.step[0]).abs().max() < 1e-4 * self.step[0].abs())

    def truncated(self, size: int) -> "Transitions":
        return Transitions(self.start[:, :size], self.end[:, :size], self.step)


def transitions_of(data: CodeData) -> Transitions:
    """All pairs of successive observed frames of states (S, T, n)."""
    row, frame = data.observed.nonzero(as_tuple=True)  # ordered by trajectory
    same = row[1:] == row[:-1]
    row, start, end = row[1:][same], frame[:-1][same], frame[1:][same]
    step = data.t[row, end] - data.t[row, start]
    return Transitions(data.codes[row, start].double(), data.codes[row, end].double(), step)


class LinearFit:
    """Ridge regressions of one data set for any size and ridge, from one pass over the transitions.

    Codes are ordered by variance, so the regression on the first n of them is a leading block of the same normal
    equations. The ridge is relative to the mean diagonal of the Gram matrix.
    """

    def __init__(self, transitions: Transitions) -> None:
        self.transitions = transitions
        start = torch.cat([torch.ones(len(transitions.start), 1, dtype=torch.float64), transitions.start], 1)
        self.gram = start.T @ start
        self.cross = start.T @ transitions.end

    def step_map(self, size: int, ridge: float) -> Tensor:
        """Affine map (n + 1, n + 1) of one time step on [1, s], for uniform steps only. The ridge pulls towards the
        mean."""
        gram = self.gram[: size + 1, : size + 1].clone()
        gram.diagonal()[1:].add_(ridge * gram.diagonal()[1:].mean())
        gram.diagonal()[0].add_(1e-12 * gram[0, 0])
        weights = torch.linalg.solve(gram, self.cross[: size + 1, :size])
        return torch.cat([torch.eye(1, size + 1, dtype=torch.float64), weights.T])


def affine_rollout(
    data: CodeData, step: float | None, step_map: Tensor | None, move: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Forecasts (S, T - 1, n) of states (S, T, n) from the first observed frames, and which (S, T - 1) count.

    Args:
        step: time step of `step_map`, (m, m) or (S, m, m) on [1, s], which is used where the gaps of all trajectories
            equal it.
        move: function of states [1, s] (S, m) and times (S,) that is used for other gaps.
    """
    states, observed = torch.nn.functional.pad(data.codes.double(), (1, 0), value=1.0), data.observed
    gaps = data.t[:, 1:] - data.t[:, :-1]
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
        if late:  # forecasts begin at the first observed frame
            state = torch.where(begun[:, i, None], state, states[:, i + 1])
        path.append(state)
    forecast = torch.stack(path, 1) if path else states[:, 1:]
    return forecast[..., 1:], finite & begun[:, :-1] & observed[:, 1:]
