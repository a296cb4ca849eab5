"""Coefficients of an equation refined along whole trajectories, for noisy data.

Noise in the states that terms are formed of makes fits of single transitions too weak: the shorter a step, the less
the field moves against the noise. Over a whole trajectory it moves much and the noise is no larger, so that few
coefficients are read off almost without that error, by the Gauss-Newton method.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from inrflow.dynamics.equation import LocalEquation
from inrflow.dynamics.equation_fit import EquationFit, steps_of
from inrflow.dynamics.integrate import Integrator
from inrflow.dynamics.local_basis import LocalBasis
from inrflow.dynamics.normal_equations import NormalEquations
from inrflow.dynamics.states import CodeData

MOST_COEFFICIENTS = 24
_TRAJECTORIES = 6
_ROUNDS, _HALVINGS = 5, 4
_NUDGE = 1e-3  # of a coefficient, to see what it does
_SETTLED = 1e-3


def refined(equation: LocalEquation, basis: LocalBasis, states: CodeData) -> LocalEquation:
    """The equation, without contexts, whose flow from the first frames is nearest to all later ones.

    A force follows from the transitions for any coefficients. Where nothing nearer is found, the equation as it was.
    """
    if not 0 < equation.count <= MOST_COEFFICIENTS:
        return equation
    whole = states.observed[:, 0].nonzero()[:, 0]
    if not len(whole):
        return equation
    whole = whole[torch.linspace(0, len(whole) - 1, min(len(whole), _TRAJECTORIES)).round().long()]
    some = CodeData(states.codes[whole], states.t[whole], states.observed[whole])
    fit = EquationFit(basis, some, equation.terms)
    steps = steps_of(equation.field(basis), some)
    places = equation.kept.nonzero()[:, 0]

    def changed(coefficients: Tensor, sums: NormalEquations) -> LocalEquation:
        flat = torch.zeros_like(equation.weights).flatten().index_copy(0, places, coefficients)
        force = None if equation.force is None else sums.force(flat)
        return replace(equation, weights=flat.reshape_as(equation.weights), force=force)

    def missed(one: LocalEquation) -> Tensor:
        start, times = some.codes[:, 0].double(), some.t
        with torch.no_grad():
            path = Integrator(step=1 / steps)(one.field(basis), start, times, check=False)
        return torch.where(some.observed[..., None], some.codes - path, 0.0).flatten()

    best, left = equation, missed(equation)
    for _ in range(_ROUNDS):
        sums = NormalEquations.total(fit.gathered(best))
        now = best.weights.flatten()[places]
        base = missed(changed(now, sums))
        nudges = _NUDGE * now.abs()
        columns = []
        for k, nudge in enumerate(nudges):
            moved = now.clone()
            moved[k] += nudge
            columns.append((base - missed(changed(moved, sums))) / _NUDGE)
        design = torch.stack(columns, 1)
        if not bool(torch.isfinite(design).all()):
            return best
        step = torch.linalg.lstsq(design, base[:, None], driver="gelsd").solution[:, 0] * now.abs()
        before = float(left.square().sum())
        for halving in range(_HALVINGS + 1):
            tried = changed(now + step / 2**halving, sums)
            residual = missed(tried)
            if float(residual.square().sum()) < before:
                best, left = tried, residual
                break
        if not float(left.square().sum()) < (1 - _SETTLED) * before:
            break
    return best
