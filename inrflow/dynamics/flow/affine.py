"""Exact flows of vector fields that are affine in the state: one matrix exponential for any lead time.

A periodic forcing is affine too: its phases are harmonic oscillators that join the state.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inrflow.dynamics.fields.forcing import ForcingTerm, periodic_phases
from inrflow.dynamics.fields.sum import VectorField

_BLOCK = 2**23  # numbers of all exponentials formed at once: 64 MiB


def has_exact_flow(field: object) -> bool:
    """Whether `affine_flow` knows the flow of a field."""
    if not isinstance(field, VectorField):
        return False
    return all(term.degree == 1 or isinstance(term, ForcingTerm) for term in field.summands)


def affine_flow(field: VectorField, start: Tensor, begin: Tensor, gap: Tensor) -> Tensor:
    """States (S, n + P) at `gap` (S,) after times `begin` (S,), from `start` (S, n + P); without gradients.

    One exponential for each distinct pair of context and gap, by scaling and squaring (torch.linalg.matrix_exp): its
    cost grows with the logarithm of the gap.
    """
    n = field.state_size
    context, z = start[:, n:].double(), start[:, :n].double()
    forcing = [term for term in field.summands if isinstance(term, ForcingTerm)]
    phases = [periodic_phases(begin, term.period, term.harmonics) for term in forcing]
    extended = torch.cat([z, torch.ones_like(z[:, :1]), *phases], 1)
    distinct, which = torch.unique(torch.cat([context, gap.double()[:, None]], 1), dim=0, return_inverse=True)
    size, end = extended.shape[1], z.clone()
    for rows in torch.arange(len(distinct)).split(max(1, _BLOCK // size**2)):
        generator = _generator(field, forcing, distinct[rows, :-1], size)
        flow = torch.linalg.matrix_exp(generator * distinct[rows, -1, None, None])[:, :n]
        mine = ((which >= rows[0]) & (which <= rows[-1])).nonzero()[:, 0]
        end[mine] = (flow[which[mine] - rows[0]] @ extended[mine, :, None])[..., 0]
    return torch.cat([end.to(start), start[:, n:]], 1)


def _generator(field: VectorField, forcing: list[ForcingTerm], context: Tensor, size: int) -> Tensor:
    """Generators (D, size, size) of [z, 1, phases] at contexts (D, P)."""
    n, rows = field.state_size, len(context)
    like = next(field.parameters())
    result = torch.zeros(rows, size, size, dtype=torch.float64, device=like.device)
    c = context.to(like) if field.context_size else None
    with torch.no_grad():
        result[:, :n, :n] = field.matrix_at(context.to(like))
        zero, now = torch.zeros(rows, n).to(like), torch.zeros(rows).to(like)
        for term in field.summands:
            if term.degree == 1:
                result[:, :n, n] += term(now, zero, c)
        place = n + 1
        for term in forcing:
            weight, count = term.weight_at(c), term.harmonics
            result[:, :n, place : place + 2 * count] = weight
            for k in range(count):
                cosine, sine = place + k, place + count + k
                speed = 2 * math.pi * (k + 1) / term.period
                result[:, cosine, sine], result[:, sine, cosine] = -speed, speed
            place += 2 * count
    return result
