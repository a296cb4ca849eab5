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

from inrflow.numerics.levenberg_marquardt import levenberg_marquardt

_DEGREES = (1, 2, 3)
_RIDGE = 1e-9
_CLEARLY_BETTER = 0.8
_NEAREST, _ITERATIONS, _SETTLED = 3, 60, 1e-12  # training environments to start from
_DIFFERENCE = 1e-5
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
        prior = torch.eye(len(self.mean), dtype=torch.float64) / _WIDE**2

        def objective(at: Tensor) -> Tensor:
            residual = context - self._at(at)
            return (residual @ precision * residual).sum(1) + (at @ prior * at).sum(1)

        def linearise(at: Tensor) -> tuple[Tensor, Tensor]:
            jacobian = self._jacobian(at)
            gradient = ((context - self._at(at)) @ precision)[:, None] @ jacobian
            return jacobian.mT @ precision @ jacobian + prior, gradient[:, 0] - at @ prior

        starts = (self.training - self.mean) / self.scale
        nearest = (objective(starts) - (starts @ prior * starts).sum(1)).argsort()[:_NEAREST]
        reached = levenberg_marquardt(
            starts[nearest], objective, linearise, steps=_ITERATIONS,
            settled=lambda decrement, value: decrement < _SETTLED * (1 + value),
        )
        best = reached.value.argmin()
        jacobian = self._jacobian(reached.point[best])
        spread = torch.linalg.inv(jacobian.T @ precision @ jacobian + prior)
        return self.mean + self.scale * reached.point[best], spread * self.scale[:, None] * self.scale

    def _at(self, standard: Tensor) -> Tensor:
        return _monomials(standard, self.degree) @ self.coefficients

    def _jacobian(self, standard: Tensor) -> Tensor:
        """(..., P, Q) at standardised parameters (..., Q)."""
        moves = _DIFFERENCE * torch.eye(standard.shape[-1], dtype=torch.float64)
        here = standard[..., None, :]
        return ((self._at(here + moves) - self._at(here - moves)) / (2 * _DIFFERENCE)).mT


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
