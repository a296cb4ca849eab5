"""Known parameters and contexts: a small polynomial from one to the other, and its inverse with a standard deviation.

The map from parameters to contexts is a polynomial whose degree is chosen by leaving out one environment at a time.
Parameters are read off a context by inverting it (Gauss-Newton), which holds outside the trained range where a direct
fit of the inverse would not (a wave's context is its squared speed: the inverse is a root).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

_DEGREES = (1, 2, 3)
_RIDGE = 1e-9
_CLEARLY_BETTER = 0.8
_ITERATIONS = 60
_WIDE = 1e3  # prior standard deviation of standardised parameters: only breaks ties


@dataclass
class ParameterMap:
    """contexts = polynomial(standardised parameters).

    Attributes:
        mean, scale: (Q,) of the training parameters.
        coefficients: (F, P) of the monomials up to `degree`.
        degree: 1, 2 or 3.
        error: (P, P) covariance of what the polynomial missed of environments left out.
        training: (E, Q) the training parameters.
    """

    mean: Tensor
    scale: Tensor
    coefficients: Tensor
    degree: int
    error: Tensor
    training: Tensor

    @classmethod
    def fit(cls, parameters: Tensor, contexts: Tensor) -> ParameterMap:
        """From parameters (E, Q) and contexts (E, P) of the training environments; E at least 2."""
        mean = parameters.mean(0)
        scale = parameters.std(0, correction=0).clamp(min=1e-300)
        standard = (parameters - mean) / scale
        best: tuple[int, Tensor] | None = None
        for degree in _DEGREES:
            design = _monomials(standard, degree)
            if degree > 1 and design.shape[1] > len(design) - 1:
                break
            missed = _left_out(design, contexts)
            if best is None or float(missed.square().mean()) < _CLEARLY_BETTER * float(best[1].square().mean()):
                best = degree, missed
        assert best is not None
        degree, missed = best
        coefficients = _ridge(_monomials(standard, degree), contexts)
        error = missed.T @ missed / len(missed) + 1e-12 * torch.eye(contexts.shape[1], dtype=contexts.dtype)
        return cls(mean, scale, coefficients, degree, error, parameters)

    def contexts(self, parameters: Tensor) -> Tensor:
        """Contexts (..., P) of parameters (..., Q) in the data's units."""
        return _monomials((parameters.double() - self.mean) / self.scale, self.degree) @ self.coefficients

    def parameters(self, context: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (Q,) and their covariance (Q, Q), data units, of a context (P,) known up to `covariance`."""
        precision = torch.linalg.inv(covariance + self.error)
        eye = torch.eye(len(self.mean), dtype=torch.float64)
        prior = eye / _WIDE**2
        starts = (self.training - self.mean) / self.scale
        distance = ((self.contexts(self.training) - context) @ precision * (self.contexts(self.training) - context))
        order = distance.sum(1).argsort()[:3]
        best, lowest = starts[order[0]], float("inf")
        for start in starts[order]:
            point, value = self._invert(start, context, precision, prior)
            if value < lowest:
                best, lowest = point, value
        jacobian = self._jacobian(best)
        spread = torch.linalg.inv(jacobian.T @ precision @ jacobian + prior)
        return self.mean + self.scale * best, spread * self.scale[:, None] * self.scale

    def _invert(self, point: Tensor, context: Tensor, precision: Tensor, prior: Tensor) -> tuple[Tensor, float]:
        def objective(at: Tensor) -> float:
            missed = context - self._at(at)
            return float(missed @ precision @ missed + at @ prior @ at)

        damping, value = 1e-3, objective(point)
        for _ in range(_ITERATIONS):
            jacobian = self._jacobian(point)
            curvature = jacobian.T @ precision @ jacobian + prior
            gradient = jacobian.T @ precision @ (context - self._at(point)) - prior @ point
            damped = curvature + damping * torch.diag(curvature.diagonal())
            proposed = point + torch.linalg.solve(damped, gradient)
            reached = objective(proposed)
            if reached <= value:
                settled = value - reached < 1e-12 * (1 + value)
                point, value, damping = proposed, reached, max(damping * 0.2, 1e-12)
                if settled:
                    break
            else:
                damping *= 10
        return point, value

    def _at(self, standard: Tensor) -> Tensor:
        return _monomials(standard, self.degree) @ self.coefficients

    def _jacobian(self, standard: Tensor) -> Tensor:
        step = 1e-5
        moves = step * torch.eye(len(standard), dtype=torch.float64)
        return ((self._at(standard + moves) - self._at(standard - moves)) / (2 * step)).T


def _monomials(values: Tensor, degree: int) -> Tensor:
    """All products (..., F) of up to `degree` of the values (..., Q), the constant first."""
    columns = [torch.ones_like(values[..., 0])]
    for order in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(range(values.shape[-1]), order):
            columns.append(values[..., list(chosen)].prod(-1))
    return torch.stack(columns, -1)


def _ridge(design: Tensor, target: Tensor) -> Tensor:
    gram = design.T @ design
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    return torch.linalg.solve(gram, design.T @ target)


def _left_out(design: Tensor, target: Tensor) -> Tensor:
    """What the fit to all other environments misses of each one, (E, P)."""
    rows = torch.arange(len(design))
    return torch.stack([target[e] - design[e] @ _ridge(design[rows != e], target[rows != e]) for e in rows])
