"""Functions of matrices for affine dynamics ds/dt = A s + b: flows, logarithms of maps, bounds on rates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FASTEST = 2.0  # growth of more than e^2 in a time step cannot be told from noise
SHORTEST = 14.0  # decay of more than e^14: what is left of it is below the rounding of single precision
_FARTHEST = 200.0  # norm of generator times time of a flow
_REACH, _ORDER = 4.0, 40  # that norm in one Taylor step, and terms: few products for each unit, and rounding error e^4
_TERMS = 20  # of a usual series
_EXPONENTIAL, _CALL = 15, 2e4  # products of a matrix exponential, times n^3; products while torch is called
_SAME = 2.0**-40  # of the longest time: times that differ by less are equal


def generator_of(step_map: Tensor, step: float, decay: float = _FASTEST) -> tuple[Tensor, Tensor]:
    """Matrix A and bias b of ds/dt = A s + b whose flow over `step` is the given affine map, as far as one exists.

    Eigenvalues that no slow real flow can produce (negative real ones, a growth faster than e^2 or a decay faster than
    e^decay a step) belong to directions that the data do not determine; they are replaced by the nearest admissible
    ones.
    """
    values, vectors = torch.linalg.eig(step_map[1:, 1:])
    negative_real = (values.imag.abs() < 1e-9 * values.abs().clamp(min=1e-300)) & (values.real <= 0)
    magnitude = values.abs().clamp(min=1e-300).log().clamp(-decay, _FASTEST)
    angle = torch.where(negative_real, 0.0, values.angle())
    logarithm = torch.complex(torch.where(negative_real, -decay, magnitude), angle)
    inverse = torch.linalg.inv(vectors)
    # The affine column by itself, b = log(M) (M - 1)^-1 c: on [1, s] a mode at rest that drifts has no eigenvectors.
    distance = values - 1
    near = distance.abs() < 1e-6
    share = torch.where(near, 1 - distance / 2, logarithm / torch.where(near, torch.ones_like(distance), distance))
    matrix = ((vectors * logarithm) @ inverse).real
    bias = ((vectors * share) @ (inverse @ step_map[1:, 0].to(vectors))).real
    return matrix / step, bias / step


def flow(generator: Tensor, states: Tensor, times: Tensor) -> Tensor:
    """exp(generator times_p) states_p: states (P, n) carried over a time (P,) each; NaN where that is out of reach.

    Taylor series in a few steps: far cheaper than a matrix exponential for each time, unless few of them differ, as
    lengths of months do.
    """
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


def slow_enough(matrix: Tensor, bias: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The nearest matrix A (n, n) and bias (n,) of ds/dt = A s + b without rates that steps of this length cannot tell.

    A weakly regularised fit takes what it cannot tell to be over at once, which no explicit integrator follows.
    """
    values, vectors = torch.linalg.eig(matrix)
    slow = torch.complex(
        values.real.clamp(-_FASTEST / step, _FASTEST / step), values.imag.clamp(-math.pi / step, math.pi / step)
    )
    if bool((slow == values).all()):
        return matrix, bias
    inverse = torch.linalg.inv(vectors)
    share = torch.where(slow == values, torch.ones_like(values), slow / values)  # where it rests stays
    return ((vectors * slow) @ inverse).real, ((vectors * share) @ (inverse @ bias.to(vectors))).real
