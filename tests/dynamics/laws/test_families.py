"""Tests of families of terms that tell directions apart, or leave means as they are, against closed forms."""

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

from inrflow.domains import Box, Region
from inrflow.dynamics.laws import fit_law
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.terms import Term, centred, directed, short_list, term_from_state


def grid(n):
    return np.stack(np.meshgrid(*[np.arange(n) / n] * 2, indexing="ij"), -1).reshape(-1, 2)


def waves(x, t, rate, seed=0, count=6):
    """Trajectories (count, T, N, 1) of random waves exp(rate(kx, ky) t) on a torus of length 1."""
    generator, u = np.random.default_rng(seed), []
    for _ in range(count):
        total = np.zeros((len(t), len(x)))
        for _ in range(12):
            k = 2 * np.pi * generator.integers(-3, 4, 2)
            phase = x @ k + generator.uniform(0, 2 * np.pi)
            total += (np.exp(rate(*k) * t)[:, None] * np.exp(1j * phase)).real
        u.append(total)
    return np.stack(u)[..., None]


@pytest.mark.parametrize(("rate", "expected"), [
    (lambda kx, ky: -0.02 * kx**2 - 0.005 * ky**2 - 0.008 * kx * ky, {"d2u/dxdx": 0.015, "d2u/dxdy": 0.008,
                                                                     "lap u": 0.005}),
    (lambda kx, ky: -0.004 * (kx**2 + ky**2) + 30j * kx / max(kx**2 + ky**2, 1.0), {"lap u": 0.004,
                                                                                  "lap^-1 du/dx": -30.0}),
    (lambda kx, ky: 1e-2j * kx * (kx**2 + ky**2), {"lap du/dx": -1e-2}),
])
def test_linear_laws_that_tell_directions_apart_are_found(rate, expected):
    x, t = grid(12), np.arange(8) * 0.02
    law = fit_law(t, x, waves(x, t, rate), Box([0, 0], [1, 1], ["periodic"] * 2), seconds=6.0)
    found = {term.written(["u"], ["x", "y"]): float(theta[0])
             for term, theta in zip(law.terms, law.theta, strict=True) if theta[0]}
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("domain", ["box", "region"])
def test_directed_terms_are_fluxes_in_weak_form_between_walls(domain):
    n = 24
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * 2, indexing="ij"), -1).reshape(-1, 2)
    place = Box([0, 0], [1, 1], ["walled", "walled"]) if domain == "box" else Region(x, Delaunay(x).simplices)
    harmonics = place.harmonics(30)
    terms = directed(1, ["walled", "walled"])
    assert [term.written(["u"], ["x", "y"]) for term in terms] == ["d2u/dxdx", "d2u/dxdy"]
    z = torch.randn(1, 1, harmonics.count, generator=torch.Generator().manual_seed(2)).double()
    features = Library(terms, harmonics).features(z, harmonics.count)[0].numpy()
    rule = harmonics.quadrature(2)
    slopes = rule.gradients.swapaxes(0, 2) if rule.gradients.shape[0] != len(rule.points) else rule.gradients
    field = np.einsum("qkd,k->qd", slopes, z[0, 0].numpy())
    weak = -np.einsum("q,qki,qj->kij", rule.weights, slopes, field)
    np.testing.assert_allclose(features[0], weak[:, 0, 0], atol=1e-9)
    np.testing.assert_allclose(features[1], (weak[:, 0, 1] + weak[:, 1, 0]) / 2, atol=1e-9)


def test_centred_terms_differ_from_the_others_in_means_alone():
    harmonics = Box([0, 0], [1, 1], ["periodic", "periodic"]).harmonics(25)
    every = [term for family in short_list(1, 2).values() for term in family]
    less = centred(every)
    assert len(less) == len(every) - 1 and all(term_from_state(term.state()) == term for term in less)
    z = torch.randn(2, 1, harmonics.count, generator=torch.Generator().manual_seed(0)).double()
    whole = Library(every[1:], harmonics).features(z, harmonics.count)
    means = Library(less, harmonics).features(z, harmonics.count)
    torch.testing.assert_close(means[..., 1:], whole[..., 1:])
    assert float(means[..., 0].abs().max()) < 1e-12 < float(whole[..., 0].abs().max())
    assert Term(centred=True, products=(((0, -1),),)).written(["u"], ["x"]) == "(u less its mean)"
