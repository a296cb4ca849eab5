"""Joint posteriors of many values of a solution: correlated samples, and sensor placement.

Marginal standard deviations are those of `Solution.std`; correlations are those of the states, propagated by the
linearised flow, and of the residual field given the observations near the points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import Normalisation, TimeScale
from inrflow.data.description import Description
from inrflow.decoders.base import Decoder
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Dynamics
from inrflow.errors import UserError
from inrflow.model.contexts import Contexts
from inrflow.model.ensemble import decoded_change
from inrflow.model.extent import Extent
from inrflow.model.state_prior import StateEstimate, StatePrior

MOST_ROWS = 3000  # most values of a channel in a joint sample
_JITTER = 1e-9  # of the mean variance


class Model(Protocol):
    """Interface of a surrogate that a solution uses; see `Surrogate`."""

    description: Description
    normalisation: Normalisation
    decoder: Decoder
    field: VectorField
    prior: StatePrior
    scale: TimeScale
    contexts: Contexts | None

    @property
    def code_size(self) -> int: ...

    @property
    def dynamics(self) -> Dynamics: ...

    @property
    def extent(self) -> Extent: ...

    def unresolved(self, states: Tensor, estimate: StateEstimate) -> Tensor: ...

    def widening(self, estimate: StateEstimate) -> Tensor: ...


class JointPosterior:
    """Joint distribution of values of a solution at times t (R,) and points x (R, d), data's units of time and
    normalised values.

    Args:
        states: (D, n) at the distinct times, `which` (R,) the index of each row among them, and covariances (1, n, n)
            or deviations of members (1, M, n) of each of these states.
    Raises:
        UserError: for more than MOST_ROWS rows.
    """

    def __init__(
        self, model: Model, estimate: StateEstimate, t: Tensor, x: Tensor, states: Tensor, which: Tensor,
        covariances: list[Tensor],
    ) -> None:
        if len(t) > MOST_ROWS:
            raise UserError(f"{len(t)} points in time and space are asked for together; ask for at most {MOST_ROWS}, "
                            "for instance at fewer times")
        self.model, self.estimate, self.x, self.t = model, estimate, x, t
        self.states, self.which, self.inner = states, which, model.scale.internal(torch.unique(t))
        self._roots = [_root_of_members(c[0]) if estimate.members is not None else _root(c[0]) for c in covariances]
        self._covariances = covariances
        variance = torch.empty(len(t), model.decoder.channels, dtype=torch.float64)
        for k, root in enumerate(self._roots):
            rows = self.which == k
            variance[rows] = self._change(rows, root.T).square().sum(0)
        variance += model.unresolved(states, estimate)[which]
        inner, widening = model.scale.internal(t), model.widening(estimate)[0]
        places = self.x.to(next(model.decoder.parameters()).dtype)
        self.std = model.prior.std(variance, places, inner, estimate) * widening
        lead = inner - estimate.last[0]
        grown = model.prior.spread_at(lead) * model.prior.own(estimate.factor[0], lead).sqrt() * widening
        if estimate.louder is not None:  # whose states keep all of their variance
            usual = model.prior.std(variance, places, inner, replace(estimate, louder=None)) * widening
            grown = torch.where(self.std > usual, widening, grown)
        self.codes = grown / self.std  # ratios of decoded deviations of states to total ones
        self.own: list[Tensor | None] = [None] * model.decoder.channels
        conditioned = None if estimate.residual is None else estimate.residual[0]
        for c in range(model.decoder.channels if conditioned is not None else 0):
            parts = conditioned.joint(c, self.std[:, c], inner.numpy(), self.x.numpy())  # type: ignore[union-attr]
            if parts is not None:
                self.std[:, c], share, self.own[c] = parts
                self.codes[:, c] *= share

    def sample(self, count: int, random: torch.Generator) -> Tensor:
        """Samples (count, R, C) of deviations of observations from the mean, normalised units."""
        result = torch.empty(count, len(self.t), self.std.shape[1], dtype=torch.float64)
        for k, away in enumerate(self._paths(count, random)):
            rows = self.which == k
            result[:, rows] = self._change(rows, away) * self.codes[rows]
        for c, own in enumerate(self.own):
            rest = 1 - self._shares(c)
            if own is not None:
                jitter = _JITTER * own.diagonal().mean() + 1e-300
                root = torch.linalg.cholesky(own + jitter * torch.eye(len(own), dtype=own.dtype))
                result[..., c] += _normal(random, count, len(own)) @ root.T
            result[..., c] += rest.clamp(min=0).sqrt() * _normal(random, count, len(self.t))
        return result * self.std

    def covariance(self, c: int) -> tuple[Tensor, Tensor]:
        """Covariance (R, R) of a channel of the field and white variance (R,) of observations, for rows of one time."""
        every = torch.ones(len(self.t), dtype=torch.bool)
        root = self._change(every, self._roots[0].T)[..., c] * self.codes[:, c]
        shared = root.T @ root
        if (own := self.own[c]) is not None:
            shared = shared + own
        rest = (1 - shared.diagonal()).clamp(min=0)
        return shared * self.std[:, c] * self.std[:, c, None], rest * self.std[:, c].square()

    def _shares(self, c: int) -> Tensor:
        """Correlated shares (R,) of the variance."""
        total = torch.zeros(len(self.t), dtype=torch.float64)
        for k, root in enumerate(self._roots):
            rows = self.which == k
            total[rows] = (self._change(rows, root.T)[..., c] * self.codes[rows, c]).square().sum(0)
        own = self.own[c]
        return total if own is None else total + own.diagonal()

    def _change(self, rows: Tensor, away: Tensor) -> Tensor:
        """Changes (A, R, C) of values in rows of one time, for deviations (A, n) of their state."""
        decoder, size = self.model.decoder, self.model.code_size
        dtype = next(decoder.parameters()).dtype
        x, away = self.x[rows].to(dtype), away[:, :size]
        if decoder.affine:
            return decoded_change(decoder, x[None], away[None].to(dtype))[0]
        code = self.states[self.which[rows][:1], :size].to(dtype)
        with torch.no_grad():
            jacobian = decoder.linearise(x[None], code)[1][0].double()  # (R, C, Z)
        return torch.einsum("rcz,az->arc", jacobian, away)

    def _paths(self, count: int, random: torch.Generator) -> list[Tensor]:
        """Samples (count, n) of the deviations of states at each of the distinct times.

        From one time to the next by the linearised flow, scaled down where the covariance of the later time is smaller.
        """
        if self.estimate.members is not None:
            weights = _normal(random, count, self._roots[0].shape[1])
            return [weights @ root.T for root in self._roots]
        paths = [_normal(random, count, self._roots[0].shape[1]) @ self._roots[0].T]
        for k in range(1, len(self.inner)):
            before, after = self._covariances[k - 1], self._covariances[k][0]
            begin, end = self.inner[k - 1 : k], self.inner[k : k + 1]
            flow = self.model.dynamics.propagate(
                before, self.states[k - 1 : k], self.states[k : k + 1], begin, end)[1][0]
            moved = flow @ before[0] @ flow.T
            jitter = _JITTER * after.diagonal().mean() + 1e-300
            factor = torch.linalg.cholesky(after + jitter * torch.eye(len(after), dtype=after.dtype))
            half = torch.linalg.solve_triangular(factor, moved, upper=False)
            ratio = torch.linalg.eigvalsh(torch.linalg.solve_triangular(factor, half.T, upper=False))[-1]
            kept = float(ratio.clamp(min=1.0)) ** -0.5
            left = _root(after - kept**2 * moved)
            paths.append(kept * paths[-1] @ flow.T + _normal(random, count, left.shape[1]) @ left.T)
        return paths


@dataclass(frozen=True)
class Placement:
    """Places of new sensors, in the order of their choice.

    Attributes:
        index: (k,) of the candidates. x: (k, d). left: (k,) share of the variance at all candidates that remains when
            this place and those before it are observed.
    """

    index: np.ndarray
    x: np.ndarray
    left: np.ndarray


def placed(joint: JointPosterior, count: int, weights: Tensor) -> Placement:
    """Greedy choice of `count` of M places of one time that reduce the total weighted variance.

    Variances are in units of the variance of each channel, `weights` (M,); an observation at place j reduces the
    covariance S by S[:, j] S[j, :] / (S[j, j] + noise[j]) (Krause, Singh and Guestrin, 2008, for the scheme).
    """
    parts = [joint.covariance(c) for c in range(joint.std.shape[1])]
    total = sum(float((weights * shared.diagonal()).sum()) for shared, _ in parts)
    chosen: list[int] = []
    left: list[float] = []
    for _ in range(count):
        gain = torch.zeros(len(weights), dtype=torch.float64)
        for shared, noise in parts:
            gain += (weights @ shared.square()) / (shared.diagonal() + noise).clamp(min=1e-300)
        gain[chosen] = -1.0
        best = int(gain.argmax())
        chosen.append(best)
        for shared, noise in parts:
            column = shared[:, best].clone()
            shared -= torch.outer(column, column) / (column[best] + noise[best]).clamp(min=1e-300)
        left.append(sum(float((weights * shared.diagonal()).sum()) for shared, _ in parts) / total if total else 0.0)
    return Placement(np.array(chosen), joint.x[chosen].numpy(), np.array(left))


def _root(covariance: Tensor) -> Tensor:
    """Square root (n, n) of a covariance, without negative eigenvalues due to rounding."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return vectors * eigenvalues.clamp(min=0).sqrt()


def _root_of_members(away: Tensor) -> Tensor:
    """Square root (n, M) of the covariance of deviations (M, n) of members."""
    return away.nan_to_num(0.0).T / len(away) ** 0.5


def _normal(random: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=random)
