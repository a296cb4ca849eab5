"""Laws of coarse frames, refined along single steps of their flow.

Where the field changes too much from frame to frame, splines resolve its paths poorly. The flow of a law that they give
may do better (`along_flow`); where it does not, single steps do: from the codes of each frame to those of the next, all
terms of a family by Gauss-Newton, then fewer.
They are weighted as by a Cauchy distribution (iteratively reweighted least squares), so that those that the first
coefficients carry anywhere wait until others have corrected them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inrflow.dynamics.laws.families import Families
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.law import Law, integrable, largest_of
from inrflow.dynamics.laws.setting import DETERMINED, Ground, encode
from inrflow.encoding.harmonic_codes import fit_codes
from inrflow.numerics.effort import effort
from inrflow.numerics.levenberg_marquardt import Linearisation, damped_descent

_ITERATIONS = 25
_DELTA = 1e-5  # of finite differences, relative to coefficients
_CONVERGED = 1e-3  # relative change of the misfit
_DAMPING, _LEAST_DAMPING, _TRIALS = 1e-4, 1e-14, 8  # of Levenberg and Marquardt, relative to the normal matrix
_FAR = 1e3  # error of a step that diverges, in units of the channels' deviations; codes are clamped there
_STEEP = 1e6  # derivative from which on a step is left out
_FEWEST = 16  # steps
_PLANNED = 0.75  # of the time, that descents take
_LEFT, _FAR_FEWER = 3e-3, 0.7  # share of the variance that leading harmonics leave; share of all, that they are at most
_FIRST = 0.7  # of the time, for these
_INCREASES = (1.05, 1.5, 4.0)  # of the misfit that laws of fewer terms may have

Shot = tuple[np.ndarray, Tensor]  # coefficients, and what steps miss with them, (B, R)


@dataclass
class Shooting:
    """Single steps from codes (B, C K) to the next frames' over times dt (B,), compared where `rows` (C K,) is true."""

    codes: Tensor
    target: Tensor
    dt: Tensor
    rows: Tensor
    deadline: float  # of effort

    @classmethod
    def of(cls, t: np.ndarray, states: np.ndarray, known: np.ndarray, deadline: float) -> Shooting:
        """All steps of paths of codes (S, T, C, K) at times (S, T); codes that points determine (C, K) are compared."""
        flat = torch.tensor(states).flatten(2)
        return cls(flat[:, :-1].flatten(0, 1), flat[:, 1:].flatten(0, 1), torch.tensor(np.diff(t, axis=1)).flatten(),
                   torch.tensor(known.ravel()), deadline)

    def refined(self, law: Law) -> tuple[Law, np.ndarray]:
        """The law with coefficients that steps determine, and the normal matrix of these, whitened."""
        steps = self._affordable(law)
        active, field = np.argwhere(law.theta != 0), law.field()
        gram, unit = np.zeros(0), torch.ones(())  # of the last linearisation

        def shot(values: np.ndarray) -> Shot:
            theta = np.zeros_like(law.theta)
            theta[tuple(active.T)] = values
            error = steps._missed(field.at(torch.tensor(theta)), law.longest)
            return values, torch.nan_to_num(error, nan=_FAR).clamp(-_FAR, _FAR)

        def misfit(at: Shot) -> float:
            return float(torch.log1p(at[1].square().sum(1) / unit).sum())

        def linearise(at: Shot) -> Linearisation[Shot] | None:
            nonlocal gram, unit
            if len(gram) and effort() > self.deadline:
                return None
            values, error = at
            squares = error.square().sum(1)
            unit = squares.median() + 1e-20
            scale = _DELTA * np.maximum(np.abs(values), 1e-3 * np.abs(values).max())
            slopes = torch.stack([(shot(values + step)[1] - error) / step.max() for step in np.diag(scale)], -1)
            weight = torch.where((slopes.abs() < _STEEP).flatten(1).all(1), 1 / (1 + squares / unit), 0.0) / unit
            gram = torch.einsum("b,brp,brq->pq", weight, slopes, slopes).numpy()
            pull = -torch.einsum("b,brp,br->p", weight, slopes, error).numpy()
            size = np.sqrt(np.maximum(np.diag(gram), 1e-300))

            def propose(damping: float) -> Shot:
                damped = gram / size / size[:, None] + (damping + _LEAST_DAMPING) * np.eye(len(size))
                return shot(values + np.linalg.solve(damped, pull / size) / size)

            return Linearisation(misfit(at), propose)

        (values, _), _ = damped_descent(
            shot(law.theta[tuple(active.T)].copy()), linearise, misfit, steps=_ITERATIONS, tries=_TRIALS,
            damping=_DAMPING, least=0.0, settled=1 - _CONVERGED,
        )
        spread = np.sqrt(np.diag(np.linalg.pinv(gram, hermitian=True)))
        theta, std = law.theta.copy(), law.std.copy()
        theta[tuple(active.T)], std[tuple(active.T)] = values, spread
        return replace(law, theta=theta, std=std), gram

    def shorter(self, law: Law, gram: np.ndarray) -> Iterator[Law]:
        """Laws without the terms whose removal raises the misfit least, by the normal matrix of all."""
        active = np.argwhere(law.theta != 0)
        values, kept = law.theta[tuple(active.T)], list(range(len(active)))
        freedom = float(len(self.codes) * int(self.rows.sum()))
        level, raised = 0, 1.0
        while kept and level < len(_INCREASES):
            inverse = np.linalg.pinv(gram[np.ix_(kept, kept)], hermitian=True)
            left = values[kept] if len(kept) == len(values) else inverse @ (gram[kept] @ values)
            costs = left**2 / np.diag(inverse)
            weakest = int(costs.argmin())
            raised += float(costs[weakest]) / freedom
            while level < len(_INCREASES) and raised > _INCREASES[level]:
                theta = np.zeros_like(law.theta)
                theta[tuple(active[kept].T)] = left
                yield replace(law, theta=theta)
                level += 1
            kept.pop(weakest)

    def _missed(self, field: LawField, longest: float) -> Tensor:
        """What steps miss, (B, R)."""
        return (field.over(self.codes, self.dt, longest) - self.target)[:, self.rows]

    def _affordable(self, law: Law) -> Shooting:
        """As many steps as the time allows for all iterations."""
        began = effort()
        self._missed(law.field(), law.longest)
        cost = (effort() - began) / len(self.codes)
        left = max(self.deadline - began, 0.0)
        count = int(left / (_ITERATIONS * cost * max(int(np.count_nonzero(law.theta)), 1)))
        pick = torch.linspace(0, len(self.codes) - 1, min(max(count, _FEWEST), len(self.codes))).long()
        return replace(self, codes=self.codes[pick], target=self.target[pick], dt=self.dt[pick])


def along_single_steps(ground: Ground, families: Families, deadline: float, far: bool) -> Iterator[Law]:
    """Laws of each family of terms, of all of them and of fewer, refined along single steps. deadline: of effort, for
    their forecasts, too. far: whether coefficients are so far off that no law forecasts: leading harmonics come first,
    which say less of which terms are needed."""
    deadline = effort() + _PLANNED * (deadline - effort())
    if few := _leading(ground) if far else None:
        yield from _on(few, families, effort() + _FIRST * (deadline - effort()), ground)
    if not few or effort() < deadline:
        yield from _on(ground, families, deadline)


def _on(ground: Ground, families: Families, deadline: float, whole: Ground | None = None) -> Iterator[Law]:
    """Laws along single steps of a ground; those of fewer terms then on the harmonics of the whole one."""
    terms, t, states = families.every, ground.train.t, ground.states
    (equations,), steps = ground.equations(terms), Shooting.of(t, states, ground.known >= DETERMINED, deadline)
    for active in families.active if effort() < deadline else ():
        theta, _ = equations.solved([active] * states.shape[2], len(terms))
        law = integrable(ground.law(terms, theta, np.zeros_like(theta)), t, states)
        if law is not None:
            every, gram = steps.refined(law)
            refined = (integrable(one, t, states) for one in (every, *steps.shorter(every, gram)))
            for i, one in enumerate(refined):
                if one is not None:
                    one = steps.refined(one)[0] if i else one
                    yield one if whole is None else _widened(one, whole, deadline)
        if effort() > deadline:
            break


def _leading(ground: Ground) -> Ground | None:
    """The ground on the harmonics that hold nearly all of the variance, if these are far fewer: phases of fast waves
    are wrong by turns until coefficients are nearly right. None where noise hides these anyway."""
    variance = np.square(ground.states).mean((0, 1))
    left = 1 - np.cumsum(variance, 1) / variance.sum(1, keepdims=True)
    count = int((left > _LEFT).sum(1).max()) + 1
    harmonics, whole = ground.codes.harmonics, count > _FAR_FEWER * left.shape[1]
    if np.any(ground.train.noise) or harmonics.allowed is not None or harmonics.steady or whole:
        return None
    codes = fit_codes(ground.domain.harmonics(count, ground.boundary), ground.train.x, ground.train.u)
    return Ground(ground.domain, ground.boundary, codes, ground.train, *encode(codes, ground.train))


def _widened(law: Law, ground: Ground, deadline: float) -> Law:
    """The law on the harmonics of a ground, refined along single steps there; as it is where none are integrated."""
    t, states = ground.train.t, ground.states
    wide = integrable(replace(law, codes=ground.codes, largest=largest_of(states)), t, states)
    return law if wide is None else Shooting.of(t, states, ground.known >= DETERMINED, deadline).refined(wide)[0]
