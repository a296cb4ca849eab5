"""Random elements of the group that declared symmetries generate, by which training data are augmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import NEGLIGIBLE, Symmetries

_REACH = 0.1  # an unbounded generator moves points by at most this fraction of the extent


@dataclass(frozen=True)
class Transformations:
    """`count` elements of a symmetry group: x -> A x + b, u -> Q u; A (count, d, d), b (count, d), Q (count, C, C)."""

    A: np.ndarray
    b: np.ndarray
    Q: np.ndarray

    def __len__(self) -> int:
        return len(self.A)

    def apply(self, x: Any, u: Any) -> tuple[Any, Any]:
        """Transform x (count, ..., d) and u (count, ..., C), numpy or torch; dtypes are kept.

        Channels that depend on a missing (NaN) value become missing.
        """
        if len(x) != len(self) or len(u) != len(self):
            raise ValueError(f"x and u have {len(x)} and {len(u)} leading entries for {len(self)} transformations")
        if isinstance(x, torch.Tensor):
            A, b, Q = (torch.as_tensor(m, dtype=v.dtype, device=v.device)
                       for m, v in ((self.A, x), (self.b, x), (self.Q, u)))
            moved = torch.einsum("bij,b...j->b...i", A, x) + b.reshape(len(b), *[1] * (x.ndim - 2), -1)
            missing = torch.isnan(u)
            turned = torch.einsum("bij,b...j->b...i", Q, torch.where(missing, 0.0, u))
            depends = (Q.abs() > NEGLIGIBLE).to(u.dtype)
            lost = torch.einsum("bij,b...j->b...i", depends, missing.to(u.dtype)) > 0
            return moved, torch.where(lost, torch.nan, turned)
        moved = np.einsum("bij,b...j->b...i", self.A, x) + self.b.reshape(len(self), *[1] * (x.ndim - 2), -1)
        missing = np.isnan(u)
        turned = np.einsum("bij,b...j->b...i", self.Q, np.where(missing, 0.0, u))
        lost = np.einsum("bij,b...j->b...i", np.abs(self.Q) > NEGLIGIBLE, missing)
        return moved.astype(x.dtype, copy=False), np.where(lost, np.nan, turned).astype(u.dtype, copy=False)

    def moved(self, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Trajectories, each under an element of its own: points moved, values transformed."""
        x, u = self.apply(batch.x.expand(len(batch.u), *batch.x.shape[1:]), batch.u)
        return TrajectoryBatch(batch.t, torch.as_tensor(x), torch.as_tensor(u), batch.delay)


class Augmentation:
    """Random symmetry copies of trajectories in a domain of some extent (d,) and period (d,) or None: points moved,
    values transformed. False where no symmetry is known."""

    def __init__(self, symmetries: Symmetries, extent: Any, period: Sequence[float] | None = None):
        self.symmetries, self.extent, self.period = symmetries, extent, period

    def __bool__(self) -> bool:
        return len(self.symmetries) > 0

    def __call__(self, batch: TrajectoryBatch, random: np.random.Generator) -> TrajectoryBatch:
        """Every trajectory of the batch (data units), moved by its own random element of the group."""
        return self.sample(random, len(batch)).moved(batch) if self else batch

    def sample(self, random: np.random.Generator, count: int) -> Transformations:
        """Random elements of the group.

        Each continuous symmetry acts with a parameter drawn uniformly: a translation along periodic directions over the
        whole period, a rotation over the full turn, an unbounded one so that it moves points by at most 10 % of the
        extent. Each discrete one acts with probability 1/2. They act in random order.
        """
        own = self.symmetries
        d, channels, K, M = own.d, own.channels, len(own.generators), len(own.maps)
        extent = np.broadcast_to(np.asarray(self.extent, np.float64), (d,))
        period = np.zeros(d) if self.period is None else np.broadcast_to(np.asarray(self.period, np.float64), (d,))
        space = np.tile(np.eye(d + 1), (count, K + M, 1, 1))
        values = np.tile(np.eye(channels), (count, K + M, 1, 1))
        for k in range(K):
            low, high = _parameter_range(own.generators[k], own.generators_channels[k], extent, period)
            s = random.uniform(low, high, count)[:, None, None]
            moving = np.zeros((d + 1, d + 1))
            moving[:d] = own.generators[k]
            space[:, k] = torch.linalg.matrix_exp(torch.as_tensor(s * moving)).numpy()
            values[:, k] = torch.linalg.matrix_exp(torch.as_tensor(s * own.generators_channels[k])).numpy()
        for m in range(M):
            acts = random.random(count) < 0.5
            space[acts, K + m, :d] = own.maps[m]
            values[acts, K + m] = own.maps_channels[m]
        order = random.permuted(np.tile(np.arange(K + M), (count, 1)), axis=1)
        rows = np.arange(count)
        moved, turned = np.tile(np.eye(d + 1), (count, 1, 1)), np.tile(np.eye(channels), (count, 1, 1))
        for position in range(K + M):
            moved = space[rows, order[:, position]] @ moved
            turned = values[rows, order[:, position]] @ turned
        return Transformations(moved[:, :d, :d], moved[:, :d, d], turned)


def _parameter_range(generator: np.ndarray, turning: np.ndarray, extent: np.ndarray,
                     period: np.ndarray) -> tuple[float, float]:
    """Interval of the parameter s of one continuous symmetry, from which random elements are drawn."""
    d = len(generator)
    G, g = generator[:, :d], generator[:, d]
    along = np.abs(g) > NEGLIGIBLE
    if np.abs(G).max(initial=0.0) <= NEGLIGIBLE and along.any():
        if (period[along] > 0).all():
            return 0.0, float((period[along] / np.abs(g[along])).max())
        bounded = along & (period <= 0)
        reach = _REACH * float((extent[bounded] / np.abs(g[bounded])).min())
        return -reach, reach
    # A rotation of space, or, where points stay, of the values alone: purely imaginary eigenvalues, closed after 2 pi.
    acting = G if np.abs(G).max(initial=0.0) > NEGLIGIBLE else turning
    eigenvalues = np.linalg.eigvals(acting)
    turns = np.abs(eigenvalues.imag)[np.abs(eigenvalues.imag) > NEGLIGIBLE]
    if len(turns) and np.abs(eigenvalues.real).max() <= NEGLIGIBLE:
        return 0.0, float(2 * np.pi / turns.min())
    size = float(np.linalg.norm(acting, 2)) if acting.size else 0.0
    return (-_REACH / size, _REACH / size) if size > NEGLIGIBLE else (0.0, 0.0)
