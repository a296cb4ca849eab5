"""Laws that can be integrated: without terms that no channel has, well posed, and with a step that is short enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from inrflow.dynamics.laws.law import Law

_STEP_ERROR = 1e-5  # of the integrator in one interval, relative to the codes
_MOST_STEPS = 256  # of one interval; a law that needs more is not taken


def pruned(law: Law) -> Law:
    """The law without terms that no channel has."""
    keep = np.flatnonzero((law.theta != 0).any(1) | (law.by_context != 0).any((0, 2)))
    return replace(law, terms=tuple(law.terms[j] for j in keep), theta=law.theta[keep], std=law.std[keep],
                   by_context=law.by_context[:, keep])


def well_posed(law: Law, span: float) -> bool:
    """Whether the highest harmonics grow no faster than lower ones, but for less than e-fold over a span of time.

    Else finer details grow faster without limit, as where time runs backwards in a diffusion.
    """
    field, third = law.field(), max(law.codes.harmonics.count // 3, 1)
    if not np.isfinite(law.theta).all():
        return False
    return (field.growth(slice(-third, None)) - max(field.growth(slice(0, -third)), 0.0)) * span < 1


def stepped(law: Law, z: torch.Tensor, dt: float) -> Law | None:
    """The law with the longest step of its integrator that is accurate at codes z (B, C K); None: there is none."""
    if not np.isfinite(law.theta).all() or not np.isfinite(law.by_context).all():
        return None
    extremes = np.unique([select(law.contexts[:, p]) for p in range(law.count) for select in (np.argmin, np.argmax)])
    fields = [law.field(law.contexts[e]) for e in extremes] or [law.field()]
    if max(field.growth() for field in fields) * dt > 30:
        return None
    steps, before = 1, torch.stack([field.advance(z, dt, 1) for field in fields])
    while steps <= _MOST_STEPS:
        steps *= 2
        after = torch.stack([field.advance(z, dt, steps) for field in fields])
        error = torch.linalg.vector_norm(after - before) / torch.linalg.vector_norm(after)
        if bool(error < _STEP_ERROR):
            return replace(law, longest=dt / steps)
        before = after
    return None
