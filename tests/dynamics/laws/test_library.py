"""Libraries of terms: sums of projections over several states."""

import numpy as np
import pytest
import torch

from inrflow.domains import Box, Domain, Region, Sphere
from inrflow.domains.triangulation import grid_mesh
from inrflow.dynamics.fitting.network_law import architectures
from inrflow.dynamics.laws import library
from inrflow.dynamics.laws.families import families_of
from inrflow.dynamics.laws.library import Library

TORUS = Box([0.0, 0.0], [1.0, 2.0], ["periodic", "periodic"])


@pytest.mark.parametrize("domain", [TORUS, Region(*grid_mesh(np.linspace(0, 1, 6), np.linspace(0, 1, 6))), Sphere()],
                         ids=["torus", "region", "sphere"])
def test_weighted_sums_over_states_are_those_of_the_projections_of_each(domain: Domain, monkeypatch) -> None:
    """All first families, coefficients of place, and every form of a network; also where few fields fit into memory."""
    harmonics, generator = domain.harmonics(16), np.random.default_rng(0)
    z = torch.tensor(generator.standard_normal((6, 2, harmonics.count)) / (1 + np.arange(harmonics.count)))
    families = families_of(domain, harmonics, z[None].numpy(), (1.0, 1.0))
    terms = [*families.all_terms, *next(iter(families.with_varying_coefficients(domain, harmonics))).all_terms]
    terms += [sine for one in architectures(domain, 2, 0.5) if len(one.inputs) == 2
              for sine in one.sines(np.zeros(2), np.ones(2), 0)[::16]]
    terms, weights = list(dict.fromkeys(terms)), torch.tensor(generator.uniform(size=(2, 3)))
    each = Library(terms, harmonics).features(z, 12)
    expected = torch.einsum("wn,injk->iwjk", weights, each.unflatten(0, (2, 3))).flatten(0, 1)
    for most in (library._AT_ONCE, 1):
        monkeypatch.setattr(library, "_AT_ONCE", most)
        torch.testing.assert_close(Library(terms, harmonics).features(z, 12, weights), expected)
