"""Variance r of white noise in addition to that of the channels, in frames y ~ N(m, s (B P B^T + R + r)) of an affine
decoder with a variance factor s, by the evidence of the innovations (see `posterior`)."""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.encoding.posterior import FREEDOM, GaussianPrior

PENALTY = 2.0  # nats by which added noise must improve the log evidence
_LARGEST = 4.0  # variance of added noise in the coarse search, normalised
_FACTOR = 8.0  # between successive noise levels of the coarse search
_FINE = (4.0, 2.0, 0.5, 0.25)  # noise levels of the fine search, in units of the best coarse one


class NoiseEvidence:
    """Log evidence of the variance of added noise, for windows of frames that are independent draws from the prior.

    Args:
        prior: of the codes of each frame. windows: their number.
    Frames are added by `add`.
    """

    def __init__(self, prior: GaussianPrior, windows: int) -> None:
        self.prior, self.factor = prior, prior.factor
        self.windows = windows
        self._frames: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, windows: Tensor, offset: Tensor, basis: Tensor, u: Tensor) -> None:
        """Add frames u (F, N, C) of windows (F,), observed through an affine decoder (N, C), (N, C, Z)."""
        basis = basis.double()
        target = u.double() - offset.double() - basis @ self.prior.mean
        seen = torch.isfinite(target)
        patterns = [slice(None)] if bool((seen == seen[:1]).all()) else [slice(f, f + 1) for f in range(len(u))]
        for rows in patterns:
            mask = seen[rows][0]
            grams, rights, squares = [], [], []
            for c in range(u.shape[-1]):
                design = basis[mask[:, c], c] @ self.factor
                values = target[rows][:, mask[:, c], c]
                grams.append(design.T @ design)
                rights.append(values @ design)
                squares.append(values.square().sum(1))
            self._frames.append(
                (windows[rows], torch.stack(grams), torch.stack(rights, 1), torch.stack(squares, 1), mask.sum(0))
            )

    def __call__(self, added: float) -> Tensor:
        """Log evidence (windows,) of noise of variance `added` on top of the prior's, up to a constant."""
        quadratic = torch.zeros(self.windows, dtype=torch.float64)
        logarithm, count = torch.zeros_like(quadratic), torch.zeros_like(quadratic)
        noise = self.prior.noise + added
        for windows, grams, rights, squares, seen in self._frames:
            inner = torch.einsum("czy,c->zy", grams, 1 / noise)
            inner.diagonal().add_(1)
            cholesky = torch.linalg.cholesky(inner)
            right = torch.einsum("fcz,c->fz", rights, 1 / noise)
            explained = torch.linalg.solve_triangular(cholesky, right.T, upper=False).square().sum(0)
            quadratic.index_add_(0, windows, (squares @ (1 / noise) - explained).clamp(min=0))
            determinant = 2 * cholesky.diagonal().log().sum() + (seen * noise.log()).sum()
            logarithm.index_add_(0, windows, determinant.expand(len(windows)))
            count.index_add_(0, windows, seen.sum().double().expand(len(windows)))
        return -0.5 * logarithm - 0.5 * (count + FREEDOM) * torch.log1p(quadratic / FREEDOM)

    def best(self) -> Tensor:
        """Variance (windows,) of added noise with the largest evidence, within a factor of about sqrt(2); 0 where the
        evidence is largest without added noise."""
        best = torch.zeros(self.windows, dtype=torch.float64)
        score = self(0.0) + PENALTY
        level = _LARGEST
        while level > float(self.prior.noise.min()) / _FACTOR:
            evidence = self(level)
            best, score = torch.where(evidence > score, level, best), torch.maximum(evidence, score)
            level /= _FACTOR
        coarse = best.clone()
        for factor in _FINE:
            for value in coarse[coarse > 0].unique():
                tried, evidence = float(value) * factor, self(float(value) * factor)
                better = (coarse == value) & (evidence > score)
                best = torch.where(better, tried, best)
                score = torch.where(better, evidence, score)
        return best
