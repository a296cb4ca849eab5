"""Preconditioned conjugate gradients (Hestenes and Stiefel 1952) for several systems at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor], right: Tensor, tolerance: float, iterations: int,
    precondition: Callable[[Tensor], Tensor] = lambda residual: residual,
    late: Callable[[int], bool] = lambda count: False,
) -> Tensor:
    """Solutions (..., K) of operator(x) = right, a batch of systems of K unknowns each.

    Args:
        operator: symmetric positive definite linear map, applied to all systems at once.
        tolerance: of the norm of the residual relative to the initial one; iteration ends once all systems reach it.
        iterations: largest number of iterations.
        precondition: approximate inverse of the operator, also symmetric positive definite.
        late: further stopping rule, called with the number of iterations done.
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
