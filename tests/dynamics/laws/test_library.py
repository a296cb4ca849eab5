"""Libraries of terms: sums of projections over several states, and single precision."""

import numpy as np
import pytest
import torch

from inrflow.domains import Box, Domain, Harmonics, Region, Sphere, transform
from inrflow.domains.triangulation import grid_mesh
from inrflow.dynamics.fitting.network_law import architectures
from inrflow.dynamics.laws import library
from inrflow.dynamics.laws.families import families_of
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.network.sine import Sine
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.numerics.kinetics import HILL, number_of

TORUS = Box([0.0, 0.0], [1.0, 2.0], ["periodic", "periodic"])
REGION = Region(*grid_mesh(np.linspace(0, 1, 6), np.linspace(0, 1, 6)))


def _terms(domain: Domain, harmonics: Harmonics, z: torch.Tensor) -> list[Term | Sine]:
    """All first families, coefficients of place, and every form of a network; z (B, 2, K): codes."""
    families = families_of(domain, harmonics, z[None].numpy(), (1.0, 1.0))
    terms = [*families.all_terms, *next(iter(families.with_varying_coefficients(domain, harmonics))).all_terms]
    terms += [sine for one in architectures(domain, 2, 0.5) if len(one.inputs) == 2
              for sine in one.sines(np.zeros(2), np.ones(2), 0)[::16]]
    return list(dict.fromkeys(terms))


@pytest.mark.parametrize("domain", [TORUS, REGION, Sphere()], ids=["torus", "region", "sphere"])
def test_weighted_sums_over_states_are_those_of_the_projections_of_each(domain: Domain, monkeypatch) -> None:
    """Also where few fields fit into memory."""
    harmonics, generator = domain.harmonics(16), np.random.default_rng(0)
    z = torch.tensor(generator.standard_normal((6, 2, harmonics.count)) / (1 + np.arange(harmonics.count)))
    terms, weights = _terms(domain, harmonics, z), torch.tensor(generator.uniform(size=(2, 3)))
    each = Library(terms, harmonics).features(z, 12)
    expected = torch.einsum("wn,injk->iwjk", weights, each.unflatten(0, (2, 3))).flatten(0, 1)
    for most in (library._AT_ONCE, 1):
        monkeypatch.setattr(library, "_AT_ONCE", most)
        torch.testing.assert_close(Library(terms, harmonics).features(z, 12, weights), expected)


def test_rates_in_single_precision_are_those_in_double_to_a_millionth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform, "_LARGE", 1)
    harmonics, generator = REGION.harmonics(12), np.random.default_rng(0)
    z = torch.tensor(generator.standard_normal((3, 2, 12)) / (1 + np.arange(12)))
    function = Term((((0, number_of(HILL[1], 1.0)), (1, VALUE)),))
    terms = [*_terms(REGION, harmonics, z), function]
    theta = torch.tensor(generator.standard_normal((len(terms), 2)))
    field, single = (LawField.of(terms, harmonics, theta, single=one) for one in (False, True))
    assert single.sum.library.transform.fields(z).dtype == torch.float32
    for exact, rounded in [(field(0.0, z.flatten(1)), single(0.0, z.flatten(1))),
                           (field.slopes(z.flatten(1), 8), single.slopes(z.flatten(1), 8))]:
        assert rounded.dtype == torch.float64
        assert 0 < (rounded - exact).norm() < 1e-6 * exact.norm()
