"""Coefficients of a law refitted to frames of one system, along rollouts from the codes of all frames."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch

from inrflow.data.batch import TrajectoryBatch
from inrflow.domains import harmonics_of
from inrflow.dynamics.laws.refinement.assimilation import Assimilation
from inrflow.dynamics.laws.refinement.rollouts import Refinement
from inrflow.dynamics.laws.setting import Data, EncodedData
from inrflow.dynamics.laws.term import LawTerm
from inrflow.encoding.harmonic_codes import HarmonicCodes
from inrflow.model.surrogate import Surrogate

_OTHERS = 16  # states of the prior
_LENGTH, _OF_NOISY = 3, 24  # frames of rollouts that refine coefficients; with noisy first codes


def can_refit(surrogate: Surrogate, batch: TrajectoryBatch) -> bool:
    """Whether a surrogate is a law without a period or diagnostic channels, and a batch has values in all of its
    frames, at points that do not move."""
    term = surrogate.field.get(LawTerm)
    alone = term is not None and len(surrogate.field.terms) == 1 and not (term.period or term.values)
    return alone and batch.x.shape[1] == 1 and batch.delay is None and bool(batch.observed.all())


def refitted_law(surrogate: Surrogate, batch: TrajectoryBatch, seconds: float, held: bool = False) -> Surrogate:
    """The surrogate with coefficients of its law, at the mean of its context, refined to a batch in data units.

    They change by the same amount at every context. Codes that frames leave uncertain are refined with them. held: they
    are held near those before, as far as the batch does not determine them: changes of rollouts from other states of
    the prior count as residuals of the batch do before any change.
    """
    term, size = surrogate.field.term(LawTerm), surrogate.code_size
    harmonics = harmonics_of(term.domain, term.count, term.boundary)
    channels = size // harmonics.count
    mean, variance = (v[:size].double().reshape(channels, -1).numpy()
                      for v in (surrogate.prior.mean, surrogate.prior.variances))
    count = surrogate.context_size
    context = surrogate.prior.context(count).mean.double().numpy() if count else np.zeros(0)
    law = term.fitted_law(HarmonicCodes(harmonics, mean, variance), context, surrogate.integrator.step)
    offset = surrogate.decoder.offset
    assert isinstance(offset, torch.Tensor)
    t, x = surrogate.scale.internal(batch.t), batch.x[:, 0].double().numpy()
    u = surrogate.normalisation.apply(batch.u).double() - offset.detach().double()
    whole = torch.isfinite(t).all(1).nonzero()[:, 0].tolist()
    places = x[whole] if len(x) > 1 else x[0]
    encoded = EncodedData.of(law, Data.of(t[whole].numpy(), places, u[whole].numpy()))
    lengths, exact = [min(length, t.shape[1] - 1) for length in (_LENGTH, _OF_NOISY)], False if law.has_rates else None
    refinement = Refinement.along(law, encoded, encoded.known, lengths[0], seconds, uncertain=exact)
    field, found = copy.deepcopy(surrogate.field), refinement.run()
    if held and found is not law:
        states = _other_states(surrogate, batch.t[whole[0], : lengths[0] + 1])
        refinement.deadline += seconds
        found = refinement.held_near(law, *states).run(found)
    if refinement.uncertain:
        found = Assimilation.along(found, encoded, encoded.known, lengths[1], seconds).run()
    with torch.no_grad():
        field.term(LawTerm).theta.add_(torch.as_tensor(found.theta - law.theta))
    return replace(surrogate, field=field.eval())


def _other_states(surrogate: Surrogate, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (R, M, C K) of rollouts from random states of the prior at times t (M,), and steps (M - 1,) between them."""
    prior, inner, count = surrogate.prior, surrogate.scale.internal(t).double(), surrogate.context_size
    n = len(prior.mean) - count
    noise = torch.randn(_OTHERS, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if prior.covariance.dim() == 1:
        noise = noise * prior.covariance[:n].sqrt()
    else:
        values, vectors = torch.linalg.eigh(prior.covariance[:n, :n].double())
        noise = noise * values.clamp(min=0).sqrt() @ vectors.T
    state = torch.cat([noise, torch.zeros(_OTHERS, count)], 1) + prior.mean
    path = surrogate.dynamics.flow(state, inner.expand(_OTHERS, -1), check=False)[..., : surrogate.code_size]
    return path[torch.isfinite(path).flatten(1).all(1)], inner.diff()
