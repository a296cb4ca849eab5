"""Transfer of laws to other domains, meshes or resolutions: new harmonics, the same terms and coefficients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.data.batch import TrajectoryBatch
from inrflow.data.description import Description
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.domains import Domain, Harmonics, Region, domain_mismatch, domains_of
from inrflow.domains.transform import shells_of
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.laws.term import LawTerm
from inrflow.encoding.harmonic_codes import held_out_errors
from inrflow.encoding.posterior import MANY
from inrflow.errors import UserError
from inrflow.evaluation.calibration import calibrate
from inrflow.evaluation.place import described
from inrflow.model.extent import Seen
from inrflow.model.surrogate import Surrogate

_CALIBRATED = 16  # most trajectories
_JUDGED = 6  # trajectories in the choice of a domain
_ZERO = 1e-8  # eigenvalue of the constant, relative to the largest, at most


@dataclass(frozen=True)
class Place:
    """Location of trajectories: `domain_arguments`, the arguments of `domains_of`, a description, the box (2, d), and a
    name for messages."""

    domain_arguments: dict[str, Any]
    description: Description
    box: np.ndarray
    name: str

    @classmethod
    def of(cls, file: TrajectoryFile) -> Place:
        """The location of a whole file."""
        shown = file.apparent_domain()
        return cls(described(file) | shown, replace(file.description, **shown), file.box, str(file.path))

    @classmethod
    def of_trajectory(cls, file: TrajectoryFile, trajectory: int) -> Place:
        """The location of one trajectory, which has points of its own."""
        told = described(file, trajectory)
        x = told["x"]
        return cls(told, file.description, np.stack([x.min(0), x.max(0)]), f"{file.path}, trajectory {trajectory}")


def models_of(surrogate: Surrogate, file: TrajectoryFile, shapes: list[np.ndarray]
              ) -> list[tuple[np.ndarray, Surrogate]]:
    """Groups of trajectories (indices) on the same shape, and the model for each, with the law transferred where the
    shape is not the surrogate's. Raises UserError if it then is not a law."""
    result = []
    for members in shapes:
        place, domain = Place.of_trajectory(file, int(members[0])), surrogate.extent.domain
        same = domain is not None and domain_mismatch(domain, **place.domain_arguments) is None
        result.append((members, surrogate if same else moved(surrogate, place)))
    return result


def moved(surrogate: Surrogate, place: Place, batch: TrajectoryBatch | None = None, seed: int = 0) -> Surrogate:
    """The law of a surrogate on the domain of another place.

    Harmonics go up to the same eigenvalue. Prior variances and process noise are functions of the eigenvalue, scaled by
    the density of the spectrum. batch: trajectories there, in data units, to choose the domain where its outline is a
    guess, and to calibrate standard deviations. Raises UserError where the surrogate is not a law."""
    decoder = surrogate.decoder
    if not (isinstance(decoder, DomainHarmonicDecoder)
            and all(isinstance(term, LawTerm) for term in surrogate.field.summands)):
        raise UserError(f"the model of {surrogate.description.name} is not a law on harmonics, so it cannot be moved "
                        f"to the domain of {place.name}; train on data of that domain")
    ours, home = decoder.harmonics, decoder.place
    if ours.components > 1 or (ours.steady and isinstance(home, Region)):
        raise UserError(f"the law of {surrogate.description.name} needs values at the boundary, which are not known "
                        f"for {place.name}; train on data of that domain")
    assert home is not None
    domains = domains_of(**place.domain_arguments)
    if isinstance(home, Region) and batch is None:  # elements of the same order: their error is part of the law
        domains.sort(key=lambda domain: isinstance(domain, Region) and domain.order != home.order)
    every = [one.harmonics_up_to(float(ours.eigenvalues[-1]), decoder.boundary, ours.count)
             for one in (domains if batch is not None else domains[:1])]
    best = 0 if batch is None or len(every) == 1 else int(np.argmin([_misfit(one, batch, seed) for one in every]))
    result = _on(surrogate, decoder, domains[best], every[best], place)
    if batch is None:
        return result
    prior, size = result.prior, result.code_size
    codes = result.codes(batch)
    prior.farthest = max(prior.farthest or 0.0, prior.reach(codes, size))
    if batch.u.shape[1] > 1:
        result.prior = calibrate(result, batch.select(torch.arange(min(len(batch), _CALIBRATED))), 1)
    return result


def _on(surrogate: Surrogate, decoder: DomainHarmonicDecoder, domain: Domain, theirs: Harmonics, place: Place
        ) -> Surrogate:
    """The surrogate with other harmonics."""
    ours, channels, prior = decoder.harmonics, decoder.channels, surrogate.prior
    if theirs.count < 2:
        raise UserError(f"the domain of {place.name} is too small, or its mesh too coarse, for the harmonics "
                        f"of {surrogate.description.name}; check the units of its coordinates")
    new = DomainHarmonicDecoder(domain.state(), decoder.boundary, theirs.count, channels)
    with torch.no_grad():
        new.offset.copy_(decoder.offset.cpu())
    new = new.to(next(decoder.parameters()).device).eval()
    terms = [term.on(domain.state(), theirs.count) for term in surrogate.field.summands if isinstance(term, LawTerm)]
    field = VectorField(new.code_size, terms, surrogate.field.context_size).double().eval()
    mean = torch.zeros(channels, theirs.count, dtype=torch.float64)
    mean[:, 0] = prior.mean[: decoder.code_size].reshape(channels, -1)[:, 0]

    def carried(values: Tensor) -> Tensor:
        table = values[: decoder.code_size].reshape(channels, ours.count).numpy()
        every = np.full((channels, theirs.count), table.min())
        for c in range(channels):  # with the harmonics that it uses
            own, new = (one.own(c) for one in (ours, theirs))
            every[c, new] = _carried(table[c : c + 1, own], ours.eigenvalues[own], theirs.eigenvalues[new])
        return torch.tensor(every).flatten()

    size = decoder.code_size
    spread, rest = carried(prior.variances), prior.context(len(prior.mean) - size).covariance
    covariance = (torch.cat([spread, rest.diagonal()]) if new.code_size > MANY else
                  torch.block_diag(spread.diag(), rest))
    state = replace(
        prior, mean=torch.cat([mean.flatten(), prior.mean[size:]]), covariance=covariance,
        process=torch.cat([carried(prior.process), prior.process[size:]]), unseen=None,
        farthest=None if prior.farthest is None else prior.farthest * theirs.count / ours.count)
    about = place.description
    return replace(
        surrogate, description=replace(about, units=about.units or surrogate.description.units), decoder=new,
        field=field, prior=state, box=place.box,
        training={**surrogate.training, "moved_from": surrogate.description.name,
                  "seen": Seen.of(place.domain_arguments["x"]).state() if about.geometry == "sphere" else None})


def _carried(variances: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Variances (C, L) of harmonics with eigenvalues `theirs` (L,), from those (C, K) with eigenvalues `ours` (K,).

    Scaled by the density of the spectrum: where there are twice as many harmonics up to the same eigenvalue, each has
    half of the variance. The variance of the constant is kept.
    """
    result = np.empty((len(variances), len(theirs)))
    waves, others = ours > _ZERO * ours[-1], theirs > _ZERO * theirs[-1]
    shell = shells_of(int(waves.sum()))
    size = np.bincount(shell)
    at = np.bincount(shell, ours[waves]) / size
    for row, values in zip(result, variances, strict=True):
        mean = np.bincount(shell, values[waves]) / size
        row[others] = np.exp(np.interp(np.log(theirs[others]), np.log(at), np.log(np.maximum(mean, 1e-300))))
        row[others] *= waves.sum() / others.sum()
        row[~others] = values[~waves].max() if not waves.all() else row[others].max()
    return result


def _misfit(harmonics: Harmonics, batch: TrajectoryBatch, seed: int) -> float:
    """Error of codes at held-out points, for some trajectories."""
    rows = np.linspace(0, len(batch) - 1, min(len(batch), _JUDGED)).astype(int)
    x, u = batch.x[:, 0].double().numpy(), batch.u.double().numpy()
    return held_out_errors(harmonics, np.broadcast_to(x, (len(u), *x.shape[1:]))[rows], u[rows], seed)
