"""Spatial domains of fields, and the eigenfunctions of the Laplacian (harmonics) on them."""

from inrflow.domains.base import (
    BOUNDARIES,
    HELD,
    LEAKY,
    NATURAL,
    STEADY,
    Domain,
    Harmonics,
    Quadrature,
    from_state,
    harmonics_of,
    plain,
)
from inrflow.domains.box import Box
from inrflow.domains.flows import NO_SLIP, Flows
from inrflow.domains.infer import domain_mismatch, domains_of, flows_of, shapes, velocities_of
from inrflow.domains.network import Network
from inrflow.domains.region import Region
from inrflow.domains.sphere import Sphere
from inrflow.domains.surface import Surface
from inrflow.domains.walls import placed, walled

__all__ = ["BOUNDARIES", "HELD", "LEAKY", "NATURAL", "NO_SLIP", "Box", "Domain", "Flows", "Harmonics", "Network",
           "Quadrature", "STEADY", "Region", "Sphere", "Surface", "domains_of", "domain_mismatch", "flows_of",
           "from_state", "harmonics_of", "placed", "plain", "shapes", "velocities_of", "walled"]
