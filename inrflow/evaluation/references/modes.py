"""Leading modes, their coefficients in frames with gaps, and rollouts from frame to frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inrflow.encoding.posterior import GaussianPrior, condition

_REGULAR = 0.1  # tolerated deviation from whole multiples of a step: months of a calendar are regular
_SMALLEST = 1e-7  # singular values below this fraction of the largest are rounding
_LARGEST_GRAM = 4096


def regular_step(t: Tensor, step: float | None = None) -> float | None:
    """The time step of which all intervals of t (S, T), NaN-padded, are whole multiples; None where there is none."""
    intervals = torch.diff(t, dim=1)
    intervals = intervals[torch.isfinite(intervals)]
    if not len(intervals):
        return None
    step = float(intervals.median()) if step is None else step
    counts = torch.round(intervals / step)
    if step <= 0 or bool((counts < 1).any()) or bool((intervals / step - counts).abs().max() > _REGULAR):
        return None
    return float(intervals.sum() / counts.sum())


def leading_modes(rows: Tensor, count: int) -> Tensor:
    """Leading right singular vectors of rows (F, M) as orthonormal columns (M, r): r at most `count`.

    From the eigenvectors of the smaller Gram matrix (method of snapshots, Sirovich 1987), which resolves singular
    values down to 1e-7 of the largest, about the rounding of the data; smaller ones are left out. Where both
    dimensions are large, every k-th row is used.
    """
    if min(rows.shape) > _LARGEST_GRAM:
        rows = rows[:: -(-len(rows) // _LARGEST_GRAM)]
    by_rows = len(rows) < rows.shape[1]
    squares, vectors = torch.linalg.eigh(rows @ rows.T if by_rows else rows.T @ rows)
    squares, vectors = squares.flip(0), vectors.flip(1)
    kept = min(count, int((squares > _SMALLEST**2 * squares[0].clamp(min=1e-300)).sum()))
    vectors = vectors[:, :kept]
    if by_rows:
        vectors = torch.linalg.qr(rows.T @ (vectors / squares[:kept].sqrt()))[0]
    return vectors.contiguous()


def coefficients(u: Tensor, offset: Tensor, modes: Tensor, prior: GaussianPrior) -> tuple[Tensor, Tensor]:
    """Coefficients (..., r) of orthonormal modes (N C, r) in frames u (..., N, C), and which frames hold any value.

    Complete frames are projected; frames with gaps (NaN) are solved by regularised least squares with the Gaussian
    prior (gappy POD, Everson and Sirovich 1995).
    """
    frames = (u - offset).reshape(-1, len(modes))
    observed = torch.isfinite(frames)
    complete, some = observed.all(-1), observed.any(-1)
    solved = prior.mean.repeat(len(frames), 1)
    solved[complete] = frames[complete] @ modes
    gaps = some & ~complete
    if bool(gaps.any()):
        basis = modes.reshape(*offset.shape, -1)
        solved[gaps] = condition(torch.zeros_like(offset), basis, frames[gaps].reshape(-1, *offset.shape), prior)[0]
    return solved.reshape(*u.shape[:-2], -1), some.reshape(u.shape[:-2])


def march(t: Tensor, step: float, start: Tensor, observed: Tensor, seen: Tensor,
          advance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Coefficients (S, T, r) at all frames: those of observed frames, and the forecast between and after them.

    Args:
        t: (S, T), NaN-padded. step: unit of the intervals handed to `advance`.
        start: (r,) coefficients before anything is observed.
        observed: (S, n, r) coefficients of the first n frames, of which `seen` (S, n) bool are known.
        advance: from coefficients (S, r) and numbers of steps (S,) to the coefficients after them.
    """
    intervals = (torch.diff(t, dim=1) / step).nan_to_num(0.0)
    z, path = start.expand(len(t), -1), []
    for frame in range(t.shape[1]):
        if frame > 0:
            z = advance(z, intervals[:, frame - 1])
        if frame < observed.shape[1]:
            z = torch.where(seen[:, frame, None], observed[:, frame], z)
        path.append(z)
    return torch.stack(path, 1)


def step_pairs(t: Tensor, usable: Tensor, step: float) -> Tensor:
    """Which frames are followed by the next after one step, both usable, (S, T-1) bool."""
    one = (torch.diff(t, dim=1) / step - 1).abs() <= _REGULAR
    return one & usable[:, :-1] & usable[:, 1:]
