"""Coefficients of a law refitted to frames of one system, along rollouts from the codes of all frames."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.domains import harmonics_of
from inrflow.dynamics.laws.law import Law, Segments
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


class _Held(Refinement):
    """Refinement of coefficients that may be held near those of a law, as far as data do not determine them."""

    def held_near(self, origin: Law, others: Segments) -> _Held:
        """The refinement with a Gaussian prior of its coefficients around those of a law: changes of rollouts of other
        segments are as large, relative to codes of their shell, as residuals of that law on the data."""
        sizes = self._by_shell((self.target - self.mean)[:, 1:].square().mean(0)).mean(0)
        share = self._mean_squares(self._path(origin)).mean(0) / (sizes + 1e-12 * sizes.max())
        weight = self._weights(share[self.shell] * self.prior + 1e-12 * self.prior.max())
        slopes = self._slopes_along(origin, others, weight)
        values = max(int(self.rows.sum()) * slopes[..., 0, 0].numel(), 1)
        gram = torch.einsum("bmkp,bmkq->pq", slopes, slopes).numpy()
        self.origin, self.penalty = origin, gram * len(self.active) / values
        return self

    def variance_of_rates(self, law: Law, others: Segments, covariance: np.ndarray) -> Tensor:
        """Mean variance (C K,) of rates over first steps of other segments, by the covariance of coefficients."""
        slopes = self._slopes_along(law, others, torch.ones(()))[:, 0]
        rates = slopes / others.dt[0, 0]
        return torch.einsum("bkp,pq,bkq->k", rates, torch.tensor(covariance), rates) / max(len(rates), 1)

    def _slopes_along(self, law: Law, others: Segments, weight: Tensor) -> Tensor:
        """Derivatives (R, M, C K, p) of weighted rollouts of those other segments along which they are finite."""
        rollouts = _OfAll(law, others, self.rows.numpy().astype(float), 0.0, uncertain=False)
        slopes = rollouts.slopes(law, rollouts._path(law), weight)
        return slopes[torch.isfinite(slopes).flatten(1).all(1)]


class _OfAll(Refinement):
    """Refinement along all of its segments."""

    def _affordable(self, data: Segments, seconds: float) -> Segments:
        return data


def refitted_law(surrogate: Surrogate, batch: TrajectoryBatch, seconds: float, held: bool = False) -> Surrogate:
    """The surrogate with coefficients of its law, at the mean of its context, refined to a batch in data units.

    They change by the same amount at every context. Codes that frames leave uncertain are refined with them. held: the
    batch is of another system than those of training. Coefficients are held near those before as far as it does not
    determine them; their errors are as large as process noise over the horizon. Where the time does not suffice, the
    surrogate is returned.
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
    refinement = _Held.along(law, encoded, encoded.known, lengths[0], seconds, uncertain=exact)
    if held and refinement.too_slow:  # as of networks, which few frames do not determine
        return surrogate
    field, found, prior = copy.deepcopy(surrogate.field), refinement.run(), surrogate.prior
    others = _other_segments(surrogate, t[whole[0], : lengths[0] + 1]) if held and found is not law else None
    if others is not None:
        refinement.deadline += seconds
        found = refinement.held_near(law, others).run(found)
    covariance = refinement.covariance
    if refinement.uncertain:
        assimilation = Assimilation.along(found, encoded, encoded.known, lengths[1], seconds)
        found = assimilation.run()
        covariance = assimilation.covariance if len(assimilation.covariance) else covariance
    if others is not None:
        process, span = prior.process.clone(), surrogate.horizon / surrogate.scale.unit
        process[:size] += span * refinement.variance_of_rates(found, others, covariance)
        prior = replace(prior, process=process)
    with torch.no_grad():
        field.term(LawTerm).theta.add_(torch.as_tensor(found.theta - law.theta))
    return replace(surrogate, field=field.eval(), prior=prior)


def _other_segments(surrogate: Surrogate, t: Tensor) -> Segments:
    """Rollouts from random states of the prior at internal times t (M,)."""
    prior, n = surrogate.prior, len(surrogate.prior.mean) - surrogate.context_size
    noise = torch.randn(_OTHERS, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if prior.covariance.dim() == 1:
        noise = noise * prior.covariance[:n].sqrt()
    else:
        values, vectors = torch.linalg.eigh(prior.covariance[:n, :n].double())
        noise = noise * values.clamp(min=0).sqrt() @ vectors.T
    state = torch.cat([noise, torch.zeros(_OTHERS, surrogate.context_size)], 1) + prior.mean
    codes = surrogate.dynamics.flow(state, t.double().expand(_OTHERS, -1), check=False)[..., : surrogate.code_size]
    codes = codes[torch.isfinite(codes).flatten(1).all(1)]
    return Segments(codes, t.diff().double().expand(len(codes), -1), torch.zeros_like(codes[:, 0]),
                    torch.zeros(len(codes), dtype=torch.long), torch.arange(len(codes)))
