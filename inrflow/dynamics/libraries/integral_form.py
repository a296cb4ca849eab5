"""Transitions of vector fields in integral form: s_{i+1} - s_i = integral of the rates between two frames.

Integrals are taken along polynomials through neighbouring frames, by Lagrange polynomials at Gauss-Legendre nodes.
Times may be irregular.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.states import CodeData


@dataclass(frozen=True)
class Interval:
    """Transitions from one frame to the next, at the same place of trajectories that are observed as often.

    Attributes:
        codes: (B, T, n) of all observed frames, float64, at times t (B, T); the step is from `frame` to the next.
        rows: (B,) numbers of the trajectories.
    """

    codes: Tensor
    t: Tensor
    frame: int
    rows: Tensor

    @property
    def start(self) -> Tensor:
        """(B, n)."""
        return self.codes[:, self.frame]

    @property
    def end(self) -> Tensor:
        """(B, n)."""
        return self.codes[:, self.frame + 1]

    @property
    def begin(self) -> Tensor:
        """Times (B,) at the start."""
        return self.t[:, self.frame]

    @property
    def gap(self) -> Tensor:
        """(B,) internal time."""
        return self.t[:, self.frame + 1] - self.t[:, self.frame]

    def polynomial(self) -> tuple[Tensor, list[float]]:
        """States (Q, B, n) at the nodes of a quadrature along polynomials, and its Q weights, which sum to 1."""
        return interpolated_path(self.codes, self.t, self.frame)


def intervals(states: CodeData, block: int) -> list[Interval]:
    """All transitions, those of at most `block` trajectories together."""
    return [
        Interval(codes[i : i + block], t[i : i + block], frame, rows[i : i + block])
        for codes, t, rows in by_observed_frames(states)
        for frame in range(codes.shape[1] - 1)
        for i in range(0, len(codes), block)
    ]


def by_observed_frames(states: CodeData) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """States (G, K, n), float64, and times (G, K) of trajectories that are observed at as many frames, gaps closed, and
    which trajectories (G,) these are."""
    counts = states.observed.sum(1)
    for count in counts.unique().tolist():
        if count < 2:
            continue
        rows = (counts == count).nonzero()[:, 0]
        frames = states.observed[rows].nonzero()[:, 1].reshape(len(rows), count)
        yield states.codes[rows[:, None], frames].double(), states.t[rows[:, None], frames].double(), rows


_STENCIL = 6  # frames of the interpolating polynomials
_NODES = 4  # of Gauss-Legendre quadrature within an interval


def interpolated_path(codes: Tensor, t: Tensor, k: int) -> tuple[Tensor, list[float]]:
    """States (Q, B, n) at the nodes of a quadrature between frames k and k + 1, and its Q weights, which sum to 1.

    codes (B, T, n) at times t (B, T).
    """
    abscissas, weights = np.polynomial.legendre.leggauss(_NODES)
    frames = codes.shape[1]
    width = min(_STENCIL, frames)
    first = min(max(0, k - width // 2 + 1), frames - width)
    times = t[:, k, None] + torch.as_tensor((abscissas + 1) / 2) * (t[:, k + 1] - t[:, k])[:, None]
    basis = lagrange(t[:, first : first + width], times)
    return torch.einsum("bqm,bmn->qbn", basis, codes[:, first : first + width]), (weights / 2).tolist()


def lagrange(nodes: Tensor, t: Tensor) -> Tensor:
    """Values (B, Q, M) at times t (B, Q) of the polynomials that are 1 at one of the nodes (B, M), 0 at the others."""
    count = nodes.shape[1]
    difference = nodes[:, :, None] - nodes[:, None, :] + torch.eye(count, dtype=nodes.dtype)
    distance = t[:, :, None, None] - nodes[:, None, None, :]
    own = torch.eye(count, dtype=torch.bool)
    return torch.where(own, torch.ones_like(distance), distance / difference[:, None]).prod(-1)
