"""Contexts of the training environments, and their map from parameters.

The map from parameters to contexts is a polynomial of these, their logarithms or reciprocals, or of the exponential of
one, or of squares where systems are few; which, and its degree, is chosen by leave-one-environment-out
cross-validation. Parameters are inferred from a context by inverting the map (Gauss-Newton), which holds outside the
trained range where a direct fit of the inverse would not (a wave's context is its squared speed: the inverse is a
root)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inrflow.dynamics.contexts.posterior import ContextEstimate
from inrflow.encoding.posterior import QUANTILE, chi_squared_quantile
from inrflow.errors import UserError
from inrflow.model.state_prior import KNOWN_CONTEXT, ContextPrior
from inrflow.numerics.levenberg_marquardt import levenberg_marquardt
from inrflow.numerics.normal import distance_to_hull
from inrflow.numerics.polynomials import (
    MOST_LOGARITHM,
    SQUARES,
    choices_of_powers,
    left_out,
    monomials,
    raised,
    ridge_solution,
    spread_of,
)
from inrflow.numerics.principal_components import standardised

_UNLIKE, _VISIBLE = 30.0, 1e-6  # ratio to the largest misfit of held-out trajectories; least visible misfit
_MARGIN = 1.1  # of the extent of the contexts of training
_DEGREES = (1, 2, 3)
_POWERS = (1, 0, -1)  # of parameters, 0 for logarithms
_EXPONENTIALS = (math.inf, -math.inf)  # signs of exponentials of a single parameter, scaled by two standard deviations
_LOWEST = 1e-3  # lower bound for logarithms, reciprocals and squares, relative to the least training value
_STRAIGHT = 1e-6  # of standardised contexts
_CLEARLY_BETTER, _FAR_BETTER = 0.8, 0.1
_NEAREST, _ITERATIONS, _SETTLED = 3, 60, 1e-12  # training environments to start from
_DIFFERENCE = 1e-5
_FREE = 10.0  # prior standard deviation of standardised parameters along their curve
_WIDE = 1e3  # prior standard deviation of standardised parameters: only breaks ties


@dataclass
class Contexts:
    """Contexts of the training environments, standardised: their prior is N(0, 1) in each of P numbers.

    Attributes:
        kind: what distinguishes environments: "parameters", "environment" or "trajectory".
        values: (E, P).
        labels: (E,) ids of the environments in the training file.
        names: of Q known parameters; empty where none are known.
        parameters: (E, Q) of the environments, None where none are known.
        map: from parameters to contexts and back, None where none are known.
        growth: power of the variance of a regression with which that of forecasts grows beyond the environments.
        spread: ratio of the variance of contexts of held-out trajectories, around those of systems, to posterior ones.
        missed: largest misfit of these solves, 0 where none is known.
        error: 95 % bounds on their errors, of each number (P,) or parameter (Q,); None where none is known."""

    kind: str
    values: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()
    parameters: Tensor | None = None
    map: ParameterMap | None = None
    growth: float = 1.0
    spread: float = 1.0
    missed: float = 0.0
    error: Tensor | None = None

    @property
    def size(self) -> int:
        """Number P of dimensions of a context."""
        return self.values.shape[1]

    def distance(self, context: Tensor) -> Tensor:
        """Squared Mahalanobis distance (...,) of contexts (..., P) from the training prior."""
        return context.square().sum(-1)

    def limit(self, context: Tensor, exact: bool = False) -> float:
        """Squared distance up to which contexts in the direction of a context (P,) count as inside: that of the
        farthest training environment along it, with a margin or, unless it is exact, the error of contexts of single
        trajectories. A quantile of the Gaussian of environments, which are few and chosen, would lie far outside."""
        if not len(self.values):
            return chi_squared_quantile(QUANTILE, self.size)
        reach = float((self.values * (along := context / context.norm())).sum(1).max().clamp(min=0))
        error = 0.0 if exact or self.error is None else float((self.error * along).norm())
        return max(_MARGIN * reach, reach + error) ** 2

    def outside(self, context: Tensor, exact: bool = False, covariance: Tensor | None = None) -> bool:
        """Whether a context (P,) lies beyond the limit or, where it lies on the curve of parameters, these beyond their
        training range, a margin and, unless it is exact, their error. Of an estimate of a covariance (P, P), without
        what widens it at a distance, a chi-squared test must exclude all contexts between those of training."""
        sure = None if covariance is None else covariance / float(self.widening(context)) ** 2
        if (told := self._parameters_on_curve(context)) is None or self.map is None:
            far = bool(context.any()) and float(self.distance(context)) > self.limit(context, exact)
            ends = nn.functional.pad(_MARGIN * self.values, (0, 0, 0, 1))  # and zero
            within = chi_squared_quantile(QUANTILE, self.size)
            return far and (sure is None or distance_to_hull(context, sure, ends) > within)
        values, least, most = told
        slack = (_MARGIN - 1) * (most - least) / 2
        if not exact and self.error is not None:
            slack = torch.maximum(slack, self.error)
        if sure is not None:
            variance = self.map.parameters(context, sure)[1].diagonal().clamp(min=0)
            slack = torch.maximum(slack, (chi_squared_quantile(QUANTILE, 1) * variance).sqrt())
        return bool(((values < least - slack) | (values > most + slack)).any())

    def warning(self, context: Tensor, misfit: float | None = 0.0, covariance: Tensor | None = None) -> str | None:
        """Warning for a context (P,), exact without a misfit, outside or with a misfit above training's, or None."""
        if self.outside(context, misfit is None, covariance):
            where = f"squared distance {float(self.distance(context)):.1f}, limit {self.limit(context):.1f}"
            if (told := self._parameters_on_curve(context)) is not None:
                ends = zip(self.names, *map(Tensor.tolist, told), strict=True)
                where = ", ".join(f"{name} {p:.4g}, in training {low:.6g} to {high:.6g}" for name, p, low, high in ends)
            return (f"the context lies outside the training distribution ({where}): the forecast is an extrapolation, "
                    "and its intervals are widened")
        return None if misfit is None or not self._unlike(misfit) > _UNLIKE else (
            f"no context explains the observed frames: the error of their forecasts is {misfit:.1e} of the variance, "
            f"for training systems at most {self.missed:.1e}; the system is unlike these, or has more noise: "
            "forecasts and estimated parameters may be wrong")

    def variance_inflation(self, found: ContextEstimate) -> float:
        """Factor on the variance of a context whose misfit exceeds those of training systems: the solve treats
        residuals as independent, as noise is, while errors of a law accumulate from step to step."""
        return 1 + found.growing * (min(max(self._unlike(found.misfit), 1.0), _UNLIKE) - 1)

    def _unlike(self, misfit: float) -> float:
        """Ratio of a misfit to the largest one of training systems, or to the least visible one; 0 if it is unknown."""
        return misfit / max(self.missed, _VISIBLE / _UNLIKE) if self.missed and misfit == misfit else 0.0

    def _parameters_on_curve(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Parameters (Q,) of a context on their curve, with minima and maxima of training; None for other contexts."""
        if self.map is None or not self.on_curve:
            return None
        values, _ = self.map.parameters(context, KNOWN_CONTEXT * torch.eye(self.size).double())
        apart = float(self.distance(context - self.map.contexts(values)))
        return (values, self.map.training.amin(0), self.map.training.amax(0)) if apart < _STRAIGHT else None

    def widening(self, context: Tensor) -> Tensor:
        """Factor (...,) for the standard deviations of forecasts at contexts (..., P), 1 near the mean context.

        The operators are a regression on the contexts: at c their variance goes as [1, c] (sum_e [1, c_e][1, c_e]^T)^-1
        [1, c]^T, which is 1 + |c|^2 for standardised contexts and 1 + P on the average over the training environments.
        Errors of operators that are not affine in contexts grow faster: `truncation_growth`."""
        return ((1 + self.distance(context)) / (1 + self.size)).clamp(min=1.0) ** (self.growth / 2)

    def nearest(self, context: Tensor) -> int:
        """Index of the training environment with the context nearest to `context` (P,)."""
        return int((self.values - context).square().sum(1).argmin())

    def at(self, parameters: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """Context (P,) of known parameters by their names, and the error covariance (P, P) of the map. Raises UserError
        where one is missing or unknown."""
        assert self.map is not None
        if set(parameters) != set(self.names):
            raise UserError(f"parameters are given for {', '.join(parameters) or 'nothing'}; the surrogate needs "
                            f"{', '.join(self.names)}")
        values = torch.tensor([float(parameters[name]) for name in self.names], dtype=torch.float64)
        return self.map.contexts(values), self.map.error_at(values)

    def along(self, found: ContextEstimate) -> ContextPrior | None:
        """The prior of contexts near an estimated one along the curve of parameters, if these are fewer than P; else
        None."""
        if self.map is None or not self.on_curve:
            return None
        slope, values = self.map.tangent(found.mean, found.covariance)
        apart = self.map.residual_at(values, self.values)
        curve = Curve(self.map, torch.linalg.cholesky(apart), torch.cat([values[None], self.map.training]))
        return ContextPrior(self.map.contexts(values), slope @ slope.T + apart, curve=curve)

    @property
    def on_curve(self) -> bool:
        """Whether contexts lie on a curve of fewer parameters."""
        return self.map is not None and len(self.names) < self.size

    def state(self) -> dict[str, Any]:
        """State as nested plain values and tensors, fit for `save_tensors`."""
        state = {key: value for key, value in vars(self).items() if key != "map"}
        state["names"] = list(self.names)
        state["map"] = None if self.map is None else dict(vars(self.map))
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Contexts:
        """The inverse of `state`."""
        state = dict(state)
        stored = state.pop("map")
        names = tuple(state.pop("names"))
        return cls(**state, names=names, map=None if stored is None else ParameterMap(**stored))


@dataclass
class Curve:
    """Contexts map(p) + root e of standardised parameters p (Q,) and of deviations e (P,) from the map, N(0, 1).

    values: (N, Q) parameters to start from."""

    map: ParameterMap
    root: Tensor
    values: Tensor

    @property
    def prior(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of [p, e], with a wide prior of p."""
        spreads = torch.tensor([_FREE] * self.values.shape[1] + [1.0] * len(self.root), dtype=torch.float64)
        return 0 * spreads, spreads.square().diag()

    @property
    def starts(self) -> Tensor:
        """Initial values (N, Q + P) of the unknowns."""
        return nn.functional.pad(self.map.standardised(self.values), (0, len(self.root)))

    def __call__(self, unknowns: Tensor) -> Tensor:
        """Contexts (B, P) of unknowns (B, Q + P)."""
        p, e = unknowns.split([self.values.shape[1], len(self.root)], -1)
        return self.map.at(p) + e @ self.root.T

    def slopes(self, unknowns: Tensor) -> Tensor:
        """Derivatives (P, Q + P) of contexts at unknowns (Q + P,)."""
        return torch.cat([self.map.jacobian(unknowns[: self.values.shape[1]]), self.root], 1)


@dataclass
class ParameterMap:
    """Polynomial map to contexts from standardised parameters, or their logarithms, reciprocals, squares or
    exponentials.

    Attributes:
        mean, scale: (Q,) of the transformed training parameters.
        coefficients: (F, P) of the monomials up to `degree`.
        degree: 1, 2 or 3.
        error: (P, P) covariance of leave-one-environment-out errors.
        training: (E, Q) the training parameters.
        powers: (Q,) of parameters, 0 for logarithms, infinite for exponentials; None: all are 1.
        further: (F', P) coefficients of the monomials up to the next degree; None: not known."""

    mean: Tensor
    scale: Tensor
    coefficients: Tensor
    degree: int
    error: Tensor
    training: Tensor
    powers: Tensor | None = None
    further: Tensor | None = None

    @classmethod
    def fit(cls, parameters: Tensor, contexts: Tensor) -> ParameterMap:
        """The map fitted to parameters (E, Q) and contexts (E, P) of the training environments; E at least 2."""
        best: tuple[ParameterMap, Tensor] | None = None
        squares = (2,) if math.comb(parameters.shape[1] + 2, 2) >= len(parameters) else ()  # too few for degree 2
        choices = choices_of_powers(parameters, (*_POWERS, *squares, *_EXPONENTIALS))
        for degree, powers in itertools.product(_DEGREES, choices):
            taken = raised(parameters, powers, parameters)
            mean, scale = taken.mean(0), taken.std(0, correction=0).clamp(min=1e-300)
            design = monomials((taken - mean) / scale, degree)
            if degree > 1 and design.shape[1] > len(design) - 1:
                break
            missed = left_out(design, contexts)
            share = _FAR_BETTER if bool(powers.isinf().any()) else _CLEARLY_BETTER  # it may win by chance
            if best is None or float(missed.square().mean()) < share * float(best[1].square().mean()):
                error = missed.T @ missed / len(missed) + 1e-12 * torch.eye(contexts.shape[1], dtype=contexts.dtype)
                further = ridge_solution(monomials((taken - mean) / scale, degree + 1), contexts)
                now = ridge_solution(design, contexts)
                best = cls(mean, scale, now, degree, error, parameters, powers, further), missed
        assert best is not None
        return best[0]

    def written(self, names: Sequence[str]) -> list[str]:
        """The transformed parameters in words, given the names of parameters."""
        forms = {1: "{}", 2: "{}^2", 0: "log {}", -1: "1 / {}", math.inf: "exp {}", -math.inf: "exp -{}"}
        return [forms[float(power)].format(name) for name, power in zip(names, self._powers, strict=True)]

    def contexts(self, parameters: Tensor) -> Tensor:
        """Contexts (..., P) of parameters (..., Q) in the data's units."""
        return self._design(parameters, self.degree) @ self.coefficients

    def error_at(self, parameters: Tensor) -> Tensor:
        """Error covariances (..., P, P) at parameters (..., Q): of environments left out, plus the squared difference
        to a polynomial of the next degree, which is large beyond the training range unless the map is exact."""
        if self.further is None:
            return self.error.expand(*parameters.shape[:-1], *self.error.shape).clone()
        apart = self._design(parameters, self.degree + 1) @ self.further - self.contexts(parameters)
        return self.error + apart[..., :, None] * apart[..., None, :]

    def residual_at(self, parameters: Tensor, contexts: Tensor) -> Tensor:
        """Prediction covariance (P, P) of contexts at parameters (Q,) by the residuals of training contexts (E, P), as
        in a regression: smaller than errors of outermost environments left out."""
        design, here = self._design(self.training, self.degree), self._design(parameters, self.degree)
        missed, free = contexts - design @ self.coefficients, max(len(design) - design.shape[1], 1)
        leverage = here @ torch.linalg.pinv(design.T @ design) @ here
        return (1 + leverage) * missed.T @ missed / free + 1e-12 * torch.eye(missed.shape[1], dtype=missed.dtype)

    def parameters(self, context: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (Q,) and their covariance (Q, Q), data units, of a context (P,) known up to `covariance`."""
        precision = torch.linalg.inv(covariance + self.error)
        prior = torch.eye(len(self.mean), dtype=torch.float64) / _WIDE**2

        def objective(at: Tensor) -> Tensor:
            residual = context - self.at(at)
            return (residual @ precision * residual).sum(1) + (at @ prior * at).sum(1)

        def linearise(at: Tensor) -> tuple[Tensor, Tensor]:
            jacobian = self.jacobian(at)
            gradient = ((context - self.at(at)) @ precision)[:, None] @ jacobian
            return jacobian.mT @ precision @ jacobian + prior, gradient[:, 0] - at @ prior

        starts = self.standardised(self.training)
        nearest = (objective(starts) - (starts @ prior * starts).sum(1)).argsort()[:_NEAREST]
        reached = levenberg_marquardt(
            starts[nearest], objective, linearise, steps=_ITERATIONS,
            settled=lambda decrement, value: decrement < _SETTLED * (1 + value),
        )
        best = reached.value.argmin()
        jacobian = self.jacobian(reached.point[best])
        values, slopes = self._given_back(self.mean + self.scale * reached.point[best])
        precision = torch.linalg.inv(covariance + self.error_at(values))
        spread = torch.linalg.inv(jacobian.T @ precision @ jacobian + prior)
        slopes = slopes * self.scale
        return values, spread * slopes[:, None] * slopes

    def standardised(self, parameters: Tensor) -> Tensor:
        """Transformed and standardised parameters (..., Q)."""
        return (self._taken(parameters) - self.mean) / self.scale

    def tangent(self, context: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Tangent (P, Q): changes of contexts per standard deviation of each parameter, and parameters (Q,) of a
        context."""
        values, _ = self.parameters(context, covariance)
        return self.jacobian(self.standardised(values)), values

    @property
    def _powers(self) -> Tensor:
        return torch.ones_like(self.mean) if self.powers is None else self.powers

    def _taken(self, parameters: Tensor) -> Tensor:
        """Transformed parameters (..., Q); parameters near or below zero are raised to a small positive value if
        necessary."""
        whole = (self._powers == 1) | self._powers.isinf()
        least = torch.where(whole, -torch.inf, _LOWEST * self.training.amin(0))
        return raised(torch.maximum(parameters, least), self._powers, self.training)

    def _given_back(self, taken: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse transform of parameters (Q,), and its derivatives."""
        p, high = self._powers, taken.clamp(max=MOST_LOGARITHM).exp()
        low = torch.maximum(taken, _LOWEST * self._taken(self.training).amin(0))  # these are positive
        other, slope = torch.where(p == 2, low.sqrt(), 1 / low), torch.where(p == 2, 0.5 / low.sqrt(), -1 / low**2)
        values = torch.where(p == 1, taken, torch.where(p == 0, high, other))
        slopes = torch.where(p == 1, 1.0, torch.where(p == 0, high, slope))
        scale = self._powers.sign() * spread_of(self.training)
        grown, centre = self._powers.isinf(), self.training.mean(0)
        return torch.where(grown, centre + scale * low.log(), values), torch.where(grown, scale / low, slopes)

    def _design(self, parameters: Tensor, degree: int) -> Tensor:
        """Monomials (..., F) of parameters (..., Q)."""
        return monomials(self.standardised(parameters.double()), degree)

    def at(self, standard: Tensor) -> Tensor:
        """Contexts (..., P) of standardised parameters (..., Q)."""
        return monomials(standard, self.degree) @ self.coefficients

    def jacobian(self, standard: Tensor) -> Tensor:
        """Jacobian (..., P, Q) at standardised parameters (..., Q)."""
        moves = _DIFFERENCE * torch.eye(standard.shape[-1], dtype=torch.float64)
        here = standard[..., None, :]
        return ((self.at(here + moves) - self.at(here - moves)) / (2 * _DIFFERENCE)).mT


def truncation_growth(degree: int) -> float:
    """Power of the variance of a regression on monomials up to a degree with which the variance of its truncation error
    grows beyond the environments: the latter as squares of monomials of the next degree, the former as those of this
    degree. For solved contexts, each of which is a parameter, the degree is 1."""
    return 1 + 1 / degree


def parameter_contexts(parameters: Tensor, alike: bool = False) -> list[Tensor]:
    """Candidate contexts (E, P) as functions of known parameters (E, Q), with P below the number that environments can
    determine, standardised: parameters, their logarithms, reciprocals or squares, and products of two or three, with
    equal transforms if `alike`; or two or three exponentials of one."""
    forms, choices = [], SQUARES if alike else (*SQUARES, *_EXPONENTIALS)
    of_degree = ((degree, powers) for degree in _DEGREES
                 for powers in choices_of_powers(parameters, choices, alike and degree > 1))
    for degree, powers in of_degree:
        if bool(powers.isinf().any()) if degree == 1 else bool((powers == 2).any()):  # a map has no fourth powers
            continue
        values = monomials(standardised(raised(parameters, powers, parameters))[0], degree)[:, 1:]
        if values.shape[1] + degree <= len(values):
            forms.append(standardised(values)[0])
    return forms
