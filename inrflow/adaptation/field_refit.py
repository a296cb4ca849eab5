"""The affine part of a vector field refitted to a few transitions, with a penalty on its change.

The residual of the integrated field, moved back to the middle of its step, is the change of the affine part times the
integral of the state over the step (as in `dynamics.fitting.linear`, here for any field): linear least squares for a
correction of matrix and bias. The penalty has the weight of `pull` times as many transitions of pretraining that the
present field explains exactly.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.encoding.encode import CodeData

_ROUNDS = 3


def refitted_field(
    field: VectorField, integrator: Integrator, states: CodeData, variances: Tensor, pull: float
) -> VectorField:
    """The field with corrected matrix and bias.

    Args:
        states: (S, T, n + P), codes and the context of the new system.
        variances: (n,) of the codes in pretraining.
        pull: weight of pretraining, in units of the weight of the transitions.
    """
    size = field.state_size
    both = states.observed[:, :-1] & states.observed[:, 1:]
    s, k = both.nonzero(as_tuple=True)
    start, stop = states.codes[s, k], states.codes[s, k + 1]
    begin, end = states.t[s, k], states.t[s, k + 1]
    middle, gap = (begin + end) / 2, (end - begin)[:, None]
    strength = torch.cat([variances.new_ones(1), variances]).double()
    weight = pull * torch.diag(strength) * float(gap.square().mean()) * len(s)
    correction = torch.zeros(size, 1 + size, dtype=torch.float64)
    result = _corrected(field, correction)
    for _ in range(_ROUNDS):
        with torch.no_grad():
            path = integrator(result, start, torch.stack([begin, middle, end], 1), check=False)
            back = integrator(result, stop, torch.stack([end, middle], 1), check=False)[:, 1]
        missed = (back - path[:, 1])[:, :size]
        state = torch.cat([torch.ones_like(path[..., :1]), path[..., :size]], -1)
        moment = gap * (state[:, 0] + 4 * state[:, 1] + state[:, 2]) / 6  # Simpson's rule
        target = missed + moment @ correction.T
        correction = torch.linalg.solve(moment.T @ moment + weight, moment.T @ target).T
        result = _corrected(field, correction)
    return result


def _corrected(field: VectorField, correction: Tensor) -> VectorField:
    """The field with a correction [bias, matrix] (n, 1 + n) added."""
    result = copy.deepcopy(field).double()
    with torch.no_grad():
        result.linear.bias.add_(correction[:, 0])
        result.linear.matrix.add_(correction[:, 1:])
    return result
