"""Networks of laws: rates, derivatives, words and files of hidden units, against closed forms and automatic ones."""

import numpy as np
import pytest
import torch

from inrflow.domains import Box, Sphere
from inrflow.dynamics.fields.sum import build_term, term_structure
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.law import Law
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.network.sine import (
    COSINE,
    DIFFUSIVITY,
    FLUX,
    LAPLACIAN,
    NONLOCAL,
    PLACE,
    RATE,
    SINE,
    SLOPE,
    SMOOTHED,
    TRANSPORT,
    VALUE,
    Form,
    Input,
    Sine,
)
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import Term

HEAT = Term((((0, -1),),), 1)
INPUTS = (Input(VALUE, 1), Input(SLOPE, 0, 1), Input(LAPLACIAN, 0), Input(SMOOTHED, 0, 0, 0.2),
          Input(PLACE, 0, 1), Input(COSINE, 0, 0, 0.3))
FORMS = (Form(RATE), Form(TRANSPORT, 0, 1), Form(FLUX, 0, 0), Form(LAPLACIAN), Form(NONLOCAL, 0, 0, 0.1),
         Form(DIFFUSIVITY, 1))


def units(inputs, count=3, forms=FORMS, seed=0):
    random = np.random.default_rng(seed)
    each = [(tuple(random.normal(size=len(inputs)) * 0.3), float(random.uniform(0, 6))) for _ in range(count)]
    return [Sine(inputs, weights, phase, form) for form in forms for weights, phase in each]


@pytest.fixture
def law():
    terms = [HEAT, *units(INPUTS)]
    theta = np.random.default_rng(1).normal(size=(len(terms), 2))
    return LawTerm(Box([0, 0], [1, 1], ["walled", "walled"]).state(), "natural", 9, [one.state() for one in terms],
                   theta.tolist())


def codes(count=2, size=18):
    return 0.3 * torch.randn(count, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_sines_are_projected_as_their_closed_form():
    """On a circle: u = a cos x, of which sin(w u + b) and its derivatives are integrated on a fine grid."""
    a, w, b, x = 0.7, 1.3, 0.4, 2 * np.pi * np.arange(400) / 400
    inputs, box = (Input(VALUE, 0),), Box([0.0], [2 * np.pi], ["periodic"])
    kinds = (RATE, FLUX, LAPLACIAN, DIFFUSIVITY)
    library = Library([Sine(inputs, (w,), b, Form(kind)) for kind in kinds], box.harmonics(15))
    table = box.harmonics(15).values(x[:, None])
    z = torch.tensor(table.T @ (a * np.cos(x)) / len(x))[None, None]
    f, slope = np.sin(w * a * np.cos(x) + b), -np.cos(w * a * np.cos(x) + b) * w * a * np.sin(x)
    bent = -np.cos(w * a * np.cos(x) + b) * w * a * np.cos(x) - f * (w * a * np.sin(x)) ** 2
    exact = np.stack([table.T @ one for one in (f, slope, bent, -f * a * np.cos(x))]) / len(x)
    np.testing.assert_allclose(library.features(z, 15)[0], exact, atol=1e-6)


@pytest.mark.parametrize(("kind", "ends"), [(PLACE, "walled"), (COSINE, "periodic"), (SINE, "periodic")])
def test_inputs_of_place_are_coordinates_or_their_cosines_and_sines(kind, ends):
    """u = .7 cos x, of which sin(1.3 u + .8 p + .4) with p = x, cos x or sin x is integrated on a fine grid."""
    x = 2 * np.pi * (np.arange(800) + 0.5) / 800
    box = Box([0.0], [2 * np.pi], [ends])
    library = Library([Sine((Input(VALUE, 0), Input(kind, 0, 0, 1.0)), (1.3, 0.8), 0.4)], box.harmonics(24, "natural"))
    table, u = box.harmonics(24, "natural").values(x[:, None]), 0.7 * np.cos(x)
    z = torch.tensor(table.T @ u / len(x))[None, None]
    p = {PLACE: x, COSINE: np.cos(x), SINE: np.sin(x)}[kind]
    exact = table.T @ np.sin(1.3 * u + 0.8 * p + 0.4) / len(x)
    np.testing.assert_allclose(library.features(z, 12)[0, 0], exact[:12], atol=2e-4)


def test_rates_are_the_sum_of_the_features_times_their_coefficients(law):
    field, z = law.law(), codes()
    features = field.library.features(z.reshape(2, 2, 9), 9)
    torch.testing.assert_close(field(0.0, z), torch.einsum("bjk,jc->bck", features, law.theta).flatten(1))


def test_the_jacobian_is_that_of_automatic_differentiation(law):
    z = codes()
    automatic = torch.func.vmap(torch.func.jacrev(lambda s: law.law()(0.0, s)))(z)
    torch.testing.assert_close(law.jacobian(torch.zeros(2).double(), z), automatic, rtol=1e-9, atol=1e-11)


def test_a_saved_network_is_built_again(law):
    again = build_term(term_structure(law)).double()
    again.load_state_dict(law.state_dict())
    assert torch.equal(again(torch.zeros(()), codes()), law(torch.zeros(()), codes()))


def test_the_same_network_acts_on_another_domain():
    """A field that is constant in space: rates are those of the pointwise network, whatever the domain."""
    terms = units((Input(VALUE, 0), Input(SMOOTHED, 0, 0, 0.3)), forms=(Form(),))
    box = LawTerm(Box([0.0], [2.0], ["walled"]).state(), "natural", 8, [one.state() for one in terms],
                  [[0.5], [-0.2], [0.3]])
    sphere = box.on(Sphere().state(), 16)
    for term in (box, sphere):
        z = torch.zeros(1, term.law().size).double()
        z[:, 0] = 0.8
        expected = sum(c * np.sin(0.8 * sum(one.weights) + one.phase)
                       for c, one in zip((0.5, -0.2, 0.3), terms, strict=True))
        assert float(term(torch.zeros(()), z)[0, 0]) == pytest.approx(expected, abs=1e-12)


def test_a_network_is_written_in_few_words():
    sines = units((Input(VALUE, 0), Input(SMOOTHED, 1, 0, 0.2)), 5, (
        Form(), Form(TRANSPORT, 0, 0), Form(DIFFUSIVITY, 1)))
    theta = np.zeros((16, 2))
    theta[0, 0], theta[1:, 1] = 0.1, 1.0
    law = Law(Box([0.0], [1.0], ["walled"]), "natural", (HEAT, *sines), theta, 0 * theta, None, shares=(0.0, 0.98))
    assert law.written(["u", "v"]) == [
        "du/dt = 0.1 lap u",
        "dv/dt = network of 5 sine features of u, v smoothed over 0.2 as f, f du/dx, f lap v (98 % of the rate)"]


def test_a_law_whose_network_has_no_coefficients_has_none():
    library = Library([HEAT, *units((Input(VALUE, 0),), 2, (Form(),))], Box([0.0], [1.0], ["walled"]).harmonics(6))
    field = LawField(library, torch.tensor([[0.1], [0.0], [0.0]]).double())
    assert field.network is None
    torch.testing.assert_close(field(0.0, torch.ones(1, 6).double())[0], -0.1 * library.eigenvalues)
