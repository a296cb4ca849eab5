"""Preconditioned conjugate gradients (Hestenes and Stiefel 1952), of several systems at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor], right: Tensor, tolerance: float, iterations: int,
    precondition: Callable[[Tensor], Tensor] = lambda residual: residual,
    late: Callable[[int], bool] = lambda count: False,
) -> Tensor:
    """Solutions (..., K) of operator(x) = right, each of K unknowns.

    Args:
        operator: symmetric and positive, of all systems at once.
        tolerance: of the residual's norm, relative to the first; steps end where all systems reach it, or after so many
            iterations.
        precondition: an approximate inverse of the operator, symmetric and positive as well.
        late: whether to end after so many steps for another reason.
    """
    solution, residual = right.new_zeros(right.shape), right
    direction = ahead = precondition(residual)
    size = (residual * ahead).sum(-1, keepdim=True)
    goal = tolerance**2 * size
    for count in range(iterations):
        if bool((size <= goal).all()) or late(count):
            break
        image = operator(direction)
        step = size / (direction * image).sum(-1, keepdim=True).clamp(min=1e-300)
        solution, residual = solution + step * direction, residual - step * image
        ahead = precondition(residual)
        before, size = size, (residual * ahead).sum(-1, keepdim=True)
        direction = ahead + size / before.clamp(min=1e-300) * direction
    return solution
