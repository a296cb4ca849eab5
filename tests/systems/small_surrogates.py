"""Small surrogates of every kind, made without training: arbitrary numbers in parts as real runs have them."""

from __future__ import annotations

import numpy as np
import torch
from meshes import rectangle

from inrflow.data.batch import Normalisation, TimeScale
from inrflow.data.description import Description
from inrflow.data.observations import Observations
from inrflow.decoders.base import Decoder
from inrflow.decoders.domain_harmonics import DomainHarmonicDecoder
from inrflow.decoders.embeddings import PeriodicEmbedding
from inrflow.decoders.siren import ModulatedSiren
from inrflow.domains import Box, Domain, Region, Sphere
from inrflow.dynamics.fields.sum import VectorField
from inrflow.dynamics.flow import Integrator
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import Term
from inrflow.model.state_prior import StatePrior
from inrflow.model.surrogate import Surrogate

VALUE, SLOPE = ((0, -1),), ((0, 0),)
UNIT = 0.2


def law(place: str = "walls") -> Surrogate:
    """u_t = .01 lap u + u - u^3, on a line between walls with u du/dx beside, a mesh, or the sphere."""
    mesh = rectangle()
    domain: Domain = {"walls": lambda: Box([0.0], [2.0], ["walled"]), "sphere": Sphere,
                      "mesh": lambda: Region(*mesh, order=1)}[place]()
    decoder = DomainHarmonicDecoder(domain.state(), "natural", 9, 1)
    terms, theta = [Term((VALUE,), 1), Term((VALUE,)), Term((3 * VALUE,))], [[0.01], [0.3], [-0.3]]
    if place == "walls":
        terms, theta = [*terms, Term((VALUE + SLOPE,))], [*theta, [-0.2]]
    field = VectorField(decoder.count, [LawTerm(domain.state(), "natural", decoder.count,
                                                [term.state() for term in terms], theta, 1e3)])
    names = ("x", "y", "z")[: domain.dimensions]
    about = Description("reaction", ("u",), names, geometry="sphere" if place == "sphere" else None)
    box = {"walls": np.array([[0.0], [2.0]]), "sphere": np.array([[-1.0] * 3, [1.0] * 3]),
           "mesh": np.stack([mesh[0].min(0), mesh[0].max(0)])}[place]
    return _surrogate(about, decoder, field, Integrator("etd", 0.5), box)


def network(linear: bool = False) -> Surrogate:
    """A SIREN on a periodic line, codes as its output layer, with a linear field or a network beside it."""
    torch.manual_seed(0)
    decoder = ModulatedSiren(PeriodicEmbedding([0.0], [1.0], [1.0], 2, 2), 2, 6, width=16, depth=2)
    field = VectorField.of(6, depth=0 if linear else 2, width=16)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    about = Description("waves", ("u", "v"), ("x",), period=(1.0,))
    return _surrogate(about, decoder, field, Integrator("rk4", 0.5), np.array([[0.0], [1.0]]))


def seen(surrogate: Surrogate, points: int = 30, frames: int = 1) -> Observations:
    """Observations of the first frames, such as the surrogate gives them itself."""
    rng = np.random.default_rng(0)
    low, high = surrogate.box
    x = low + (high - low) * rng.random((points, len(low)))
    if surrogate.description.geometry == "sphere":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    if (place := surrogate.decoder.place) is not None and place.kind == "region":
        x = place.nodes[rng.choice(len(place.nodes), points, replace=False)]  # type: ignore[attr-defined]
    code = torch.tensor(0.3 * rng.standard_normal((1, surrogate.code_size)))
    times = UNIT * np.arange(frames)
    codes = surrogate.integrator(surrogate.field, code, surrogate.scale.internal(torch.tensor(times)))[0]
    with torch.no_grad():
        dtype = next(surrogate.decoder.parameters()).dtype
        u = surrogate.normalisation.invert(surrogate.decoder(torch.tensor(x, dtype=dtype), codes.to(dtype)).double())
    return Observations(times, x, u.numpy())


def _surrogate(about: Description, decoder: Decoder, field: VectorField, integrator: Integrator, box: np.ndarray
               ) -> Surrogate:
    n, channels = decoder.code_size, len(about.channels)
    one = torch.ones(channels).double()
    prior = StatePrior(torch.zeros(n).double(), 0.1 * torch.eye(n).double(), 1e-4 * one,
                       torch.full((n,), 1e-4).double(), one)
    return Surrogate(about, Normalisation(0.5 * one, 2 * one), decoder.eval(), field.double().eval(), integrator, prior,
                     TimeScale(0.0, UNIT), box, 2.0, {"trajectories": 1})
