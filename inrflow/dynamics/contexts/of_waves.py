"""Contexts of dynamics that commute with translations: where the environments differ, and how far each goes there.

A field of all environments together misses what each has of its own: from that the contexts start (the leading
directions of the departures, in the metric of the data), then coefficients and contexts are solved
in turn, each by linear least squares along the flow of the last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inrflow.dynamics.fitting.alternate import moved_contexts
from inrflow.dynamics.libraries.spectral import SpectralFit
from inrflow.dynamics.libraries.waves import SpectralOperator
from inrflow.numerics.principal_components import leading_directions, standardised

_RIDGE = 1e-6  # of the departures, relative to the mean square of a wave of all environments
_DAMPING = 1e-9


def start_contexts(
    fit: SpectralFit, operator: SpectralOperator, environment: Tensor, count: int, coupled: bool = False
) -> Tensor:
    """Standardised contexts (E, P), P at most `count` and E - 1, from the departures of each environment.

    Args:
        operator: of all environments, on the waves of `fit`, which has no contexts.
        environment: (S,) of the trajectories that `fit` was given, numbered from 0.
        coupled: environments may differ in the strength of the products too.
    """
    waves, E = fit.waves, int(environment.max()) + 1
    features = 1 + waves.channels * (1 + coupled)
    nothing = torch.zeros_like(operator.linear)
    gram = torch.zeros(E, waves.count, features, features, dtype=torch.complex128)
    right = torch.zeros(E, waves.count, features, waves.channels, dtype=torch.complex128)
    for step, linear, products, change, rows in fit.blocks(operator):
        missed = (change - fit.effect(operator, step, linear, products)).transpose(1, 2)  # (B, H, C)
        constant = (fit.constant * step).to(linear)[..., None].expand(-1, waves.count, 1)
        design = torch.cat([constant, linear[:, :, : waves.count].transpose(1, 2)], -1)  # (B, H, features)
        if coupled:
            alone = SpectralOperator(torch.zeros_like(operator.constant), nothing, operator.products)
            design = torch.cat([design, fit.effect(alone, step, linear, products).transpose(1, 2)], -1)
        gram.index_add_(0, environment[rows], torch.einsum("bhi,bhj->bhij", design.conj(), design))
        right.index_add_(0, environment[rows], torch.einsum("bhi,bhc->bhic", design.conj(), missed))
    pooled = gram.mean(0)
    strength = pooled.diagonal(dim1=-2, dim2=-1).real.mean() + 1e-300
    ridge = _RIDGE * strength * torch.eye(features, dtype=torch.complex128)
    departures = torch.linalg.solve(gram + ridge, right)
    factor = torch.linalg.cholesky(pooled + ridge)
    weighed = torch.view_as_real(factor.mH @ departures).reshape(E, -1)
    return leading_directions(weighed, min(count, E - 1))


def solve_contexts(
    fit: SpectralFit, operator: SpectralOperator, environment: Tensor, contexts: Tensor
) -> tuple[Tensor, SpectralOperator]:
    """Standardised contexts (E, P) after one step towards those that explain best what the flow of `operator` misses,
    and the same operator for them.

    `fit` was given the contexts of the trajectories' environments (S,).
    """
    moved = moved_contexts(fit.context_effects(operator), environment, contexts, _DAMPING)
    contexts, mean, factor = standardised(moved)
    return contexts, _in_terms_of(operator, mean, factor)


def _in_terms_of(operator: SpectralOperator, mean: Tensor, factor: Tensor) -> SpectralOperator:
    """The operator of contexts w whose old ones are mean + factor w."""
    at_mean = operator.at(mean)

    def mixed(name: str, weights: Tensor) -> Tensor:
        parts = torch.stack([getattr(one, name) for one in operator.contexts])
        return torch.tensordot(weights.to(parts), parts, 1)

    contexts = tuple(
        SpectralOperator(mixed("constant", column), mixed("linear", column), mixed("products", column))
        for column in factor.T
    )
    return SpectralOperator(at_mean.constant, at_mean.linear, at_mean.products, contexts)
