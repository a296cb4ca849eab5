"""Functions of matrices for affine dynamics ds/dt = A s + b: flows, logarithms of maps, bounds on rates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FASTEST = 2.0  # growth of more than e^2 in a time step cannot be distinguished from noise
SHORTEST = 14.0  # decay by more than e^14 is below the rounding error of single precision
_FARTHEST = 200.0  # largest norm of generator times time for which `flow` is computed
_REACH, _ORDER = 4.0, 40  # that norm in one Taylor step, and its terms: few products a unit, rounding error e^4
_TERMS = 20  # of a typical series, to estimate its cost
_EXPONENTIAL, _CALL = 15, 2e4  # products of a matrix exponential, in n^3; overhead of a call in products
_SAME = 2.0**-40  # relative to the longest time: times that differ by less are equal


def generator_of(step_map: Tensor, step: float, decay: float = _FASTEST) -> tuple[Tensor, Tensor]:
    """Matrix A and bias b of ds/dt = A s + b whose flow over `step` is the given affine map, as far as one exists.

    Eigenvalues that no slow real flow can produce (negative real ones, growth faster than e^2 or decay faster than
    e^decay a step) belong to directions that the data do not determine; they are replaced by the nearest admissible
    values.
    """
    values, vectors = torch.linalg.eig(step_map[1:, 1:])
    negative_real = (values.imag.abs() < 1e-9 * values.abs().clamp(min=1e-300)) & (values.real <= 0)
    magnitude = values.abs().clamp(min=1e-300).log().clamp(-decay, _FASTEST)
    angle = torch.where(negative_real, 0.0, values.angle())
    logarithm = torch.complex(torch.where(negative_real, -decay, magnitude), angle)
    inverse = torch.linalg.inv(vectors)
    # Separate bias, b = log(M) (M - 1)^-1 c: with eigenvalue 1 and a drift, the map on [1, s] is not diagonalisable.
    distance = values - 1
    near = distance.abs() < 1e-6
    share = torch.where(near, 1 - distance / 2, logarithm / torch.where(near, torch.ones_like(distance), distance))
    matrix = ((vectors * logarithm) @ inverse).real
    bias = ((vectors * share) @ (inverse @ step_map[1:, 0].to(vectors))).real
    return matrix / step, bias / step


def flow(generator: Tensor, states: Tensor, times: Tensor) -> Tensor:
    """exp(generator times_p) states_p for states (P, n) and times (P,); NaN if |generator times_p| may exceed 200.

    Taylor series in a few steps, far cheaper than a matrix exponential for each time; if few times are distinct
    (lengths of months, for example), one matrix exponential for each is used where that is cheaper."""
    if not len(times):
        return states
    size, longest = generator.abs(), float(times.abs().max())
    reach = float((size.sum(0).max() * size.sum(1).max()).sqrt()) * longest  # bounds the spectral norm
    if not reach <= _FARTHEST:
        return torch.full_like(states, float("nan"))
    substeps = max(1, math.ceil(reach / _REACH))
    n = len(generator)
    lengths, which = (times / (longest * _SAME or 1.0)).round().unique(return_inverse=True)
    if len(lengths) * (_EXPONENTIAL * n**3 + _TERMS * _CALL) < substeps * _TERMS * (len(times) * n**2 + 4 * _CALL):
        moved = torch.empty_like(states)
        for k in range(len(lengths)):
            rows = which == k
            moved[rows] = states[rows] @ torch.linalg.matrix_exp(generator * times[rows].mean()).T
        return moved
    step = (times / substeps)[:, None]
    for _ in range(substeps):
        term, enough = states, 1e-17 * float(states.detach().abs().max())
        for order in range(1, _ORDER + 1):
            term = (step / order) * (term @ generator.T)
            states = states + term
            if not float(term.detach().abs().max()) > enough:
                break
    return states


def with_resolved_rates(matrix: Tensor, bias: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The nearest matrix A (n, n) and bias (n,) of ds/dt = A s + b with eigenvalues that such a step resolves.

    Weakly regularised fits give undetermined directions very fast decay, which explicit integrators cannot follow.
    """
    values, vectors = torch.linalg.eig(matrix)
    slow = torch.complex(
        values.real.clamp(-_FASTEST / step, _FASTEST / step), values.imag.clamp(-math.pi / step, math.pi / step)
    )
    if bool((slow == values).all()):
        return matrix, bias
    inverse = torch.linalg.inv(vectors)
    share = torch.where(slow == values, torch.ones_like(values), slow / values)  # keeps the fixed point
    return ((vectors * slow) @ inverse).real, ((vectors * share) @ (inverse @ bias.to(vectors))).real
