"""LawTerm: rates, derivatives and flows of a law as a term of vector fields, against automatic and exact ones."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from inrflow.domains import Box
from inrflow.dynamics.fields.sum import VectorField, build_term, term_structure
from inrflow.dynamics.flow import Dynamics, Integrator
from inrflow.dynamics.laws import Law
from inrflow.dynamics.laws.field import JoinedField, LawField, joined
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import VALUE, Term
from inrflow.dynamics.laws.terms import per_density_terms as divided_by
from inrflow.encoding.harmonic_codes import HarmonicCodes
from inrflow.errors import UserError

LAPLACIAN = {"products": [[[0, -1]]], "power": 1, "axis": -1}
OTHER = {"products": [[[1, -1]]], "power": 1, "axis": -1}
CUBE = {"products": [[[0, -1], [0, -1], [0, -1]]], "power": 0, "axis": -1}
CROSS = {"products": [[[0, -1], [1, -1]]], "power": 0, "axis": -1}
ADVECTION = {"products": [[[0, -1], [1, 0]]], "power": 0, "axis": -1}


def law(terms, theta, dimensions=2, count=12):
    box = Box([0.0] * dimensions, [1.0] * dimensions, ["walled"] * dimensions)
    return LawTerm(box.state(), "natural", count, terms, theta)


@pytest.fixture
def reaction():
    return law([LAPLACIAN, OTHER, CUBE, CROSS, ADVECTION],
               [[0.05, 0.0], [0.0, 0.02], [-0.3, 0.1], [0.2, -0.4], [0.0, 0.3]])


def codes(term, count=3, seed=0):
    size = 2 * term.law().library.eigenvalues.shape[0]
    return 0.3 * torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def gas():
    per_density_terms = [term.state() for terms in divided_by(1, 2, 2).values() for term in terms]
    return law(per_density_terms, (0.1 * np.random.default_rng(0).standard_normal((len(per_density_terms),
                                                                                   2))).tolist())


def test_a_term_gives_back_the_law_that_it_was_made_of_at_a_context():
    box, random = Box([0.0], [1.0], ["walled"]), np.random.default_rng(0)
    theta, by_context = random.standard_normal((2, 2, 1))
    codes = HarmonicCodes(box.harmonics(6, "natural"), np.zeros((1, 6)), np.ones((1, 6)))
    terms = Term((((0, VALUE),),), 1), Term((((0, VALUE),) * 3,))
    made = Law(box, "natural", terms, theta, 0 * theta, codes, 0.2, 5.0, by_context[None], np.array([[0.0], [1.0]]))
    back = LawTerm.of(made).fitted_law(codes, np.array([0.7]), 0.2)
    np.testing.assert_allclose(back.theta, theta + 0.7 * by_context, rtol=1e-15)
    assert (back.domain.state(), back.boundary, back.terms) == (box.state(), "natural", terms)
    assert (back.max_step, back.largest, back.rates, back.count, back.about) == (0.2, 5.0, (), 0, None)


@pytest.mark.parametrize("name", ["reaction", "gas"])
def test_the_jacobian_is_that_of_automatic_differentiation(name, request):
    reaction = request.getfixturevalue(name)
    z, now = codes(reaction), torch.zeros(3).double()
    z[:, z.shape[1] // 2] += 3.0  # the mean of the second channel, which others are divided by
    automatic = torch.func.vmap(torch.func.jacrev(lambda s: reaction.law()(0.0, s)))(z)
    torch.testing.assert_close(reaction.jacobian(now, z), automatic, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gap", [0.1, 3.0, -0.1])  # before the first observation, too
def test_the_linearised_flow_is_nearly_the_matrix_exponential(reaction, gap):
    z, times = 0.1 * codes(reaction), torch.tensor([gap]).double()
    exact = torch.linalg.matrix_exp(reaction.jacobian(torch.zeros(3).double(), z) * gap)
    assert float((reaction.tangent_flow(z, times, times) - exact).norm() / exact.norm()) < 0.02


@pytest.mark.parametrize("gap", [0.05, 0.5])
def test_the_linearised_flow_moves_small_differences_as_the_law_does(reaction, gap):
    z = 0.1 * codes(reaction, 1)
    step, moved = 1e-5, torch.randn(5, z.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = torch.cat([z, z + step * moved])
    end = reaction.advance(start, torch.zeros(6), torch.full((6,), gap).double(), 0.01)
    middle = reaction.advance(z, torch.zeros(1), torch.tensor([gap / 2]).double(), 0.01)
    predicted = moved @ reaction.tangent_flow(middle, torch.tensor([gap]).double(), torch.zeros(1))[0].T
    difference = (end[1:] - end[:1]) / step
    assert float((predicted - difference).norm() / difference.norm()) < 0.03


def test_heat_decays_exactly_whatever_the_step():
    term = law([LAPLACIAN], [[0.1]], dimensions=1, count=8)
    rates = -0.1 * (math.pi * np.arange(8)) ** 2
    z = torch.ones(1, 8).double()
    end = Integrator("etd", step=5.0)(VectorField(8, [term]), z, torch.tensor([[0.0, 5.0]]).double())[0, 1]
    np.testing.assert_allclose(end.detach().numpy(), np.exp(5 * rates), rtol=1e-9, atol=1e-300)
    dynamics = Dynamics(VectorField(8, [term]), Integrator("etd"), torch.zeros(8).double())
    times = torch.tensor([0.0]).double(), torch.tensor([5.0]).double()
    covariance, _ = dynamics.propagate(torch.eye(8).double()[None], z, z, *times)
    np.testing.assert_allclose(covariance[0].diagonal().detach().numpy(), np.exp(10 * rates), rtol=1e-9, atol=1e-300)


def test_states_beyond_what_was_seen_are_no_number():
    term = law([{"products": [[[0, -1], [0, -1]]], "power": 0, "axis": -1}], [[5.0]], dimensions=1, count=4)
    term.largest = 1.0
    end = term.advance(torch.tensor([[1.0, 0.0, 0.0, 0.0]]).double(), torch.zeros(1), torch.tensor([1.0]).double(), 0.1)
    assert bool(torch.isnan(end).all())


def test_fronts_into_an_unstable_state_are_those_of_finite_differences_where_noise_ahead_is_held():
    """u_t = u_xx + u (1 - u) and rounding of values: without bounds it grows until the front is lost."""
    points, end = 120, 19.0
    x = (np.arange(points) + 0.5) * 60 / points

    def rate(_, u):
        padded = np.pad(u.reshape(points, 5).ravel(), 1, mode="edge")  # five cells a point
        return (padded[2:] - 2 * padded[1:-1] + padded[:-2]) / 0.1**2 + u * (1 - u)

    fine = (np.arange(5 * points) + 0.5) * 0.1
    front = solve_ivp(rate, (0, end), np.exp(-((fine - 6) ** 2) / 8), "LSODA", rtol=1e-8, atol=1e-14, lband=1, uband=1)
    square = {"products": [[[0, -1], [0, -1]]], "power": 0, "axis": -1}
    box, value = Box([0.0], [60.0], ["walled"]), {"products": [[[0, -1]]], "power": 0, "axis": -1}
    table = box.harmonics(points, "natural").values(x[:, None])
    noise = 1e-7 * np.random.default_rng(0).standard_normal(points)
    start = torch.tensor(np.linalg.solve(table, np.exp(-((x - 6) ** 2) / 8) + noise))[None]

    def missed(rests):
        term = LawTerm(box.state(), "natural", points, [value, LAPLACIAN, square], [[1.0], [1.0], [-1.0]], rests=rests)
        assert build_term(term_structure(term)).rests == rests
        z = term.advance(start, torch.zeros(1), torch.tensor([end]).double(), 0.1)
        return float(np.abs(table @ z[0].numpy() - front.y[2::5, -1]).max())

    assert missed([[0.0, 1.0, 1e-6]]) < 0.1
    assert not missed([]) < 0.5


def test_a_saved_term_is_built_again(reaction):
    again = build_term(term_structure(reaction)).double()
    again.load_state_dict(reaction.state_dict())
    z = codes(reaction)
    torch.testing.assert_close(again(torch.zeros(()), z), reaction(torch.zeros(()), z))
    assert [Term.from_state(term) for term in again.terms] == [Term.from_state(term) for term in reaction.terms]


def test_the_linearised_flow_of_codes_that_diverged_is_not_a_number_and_leaves_the_others(reaction):
    z = 0.1 * codes(reaction)
    spoilt = z.clone()
    spoilt[1, 0] = math.nan
    times = torch.tensor([0.1]).double()
    flows = reaction.tangent_flow(spoilt, times, times)
    assert flows[1].isnan().all()
    torch.testing.assert_close(flows[[0, 2]], reaction.tangent_flow(z, times, times)[[0, 2]])


@pytest.mark.parametrize("gap", [0.1, 0.4])
def test_the_linearised_flow_of_short_waves_does_not_grow(gap):
    """Of waves of which one half is a product: u_t = u v, v_t = lap u, about u = 1."""
    waves = law([LAPLACIAN, CROSS], [[0.0, 1.0], [1.0, 0.0]], 1)
    z = 0.01 * codes(waves, 1)
    z[:, 0] = 1.0
    exact = torch.linalg.matrix_exp(waves.jacobian(torch.zeros(1).double(), z) * gap)
    ratio = waves.tangent_flow(z, torch.tensor([gap]).double(), torch.zeros(1)).norm() / exact.norm()
    assert 0.9 < float(ratio) < 1.1


@pytest.mark.parametrize("film", [False, True])
def test_nonlinear_diffusion_is_split_so_that_long_steps_do_not_blow_up(film):
    """u_t = .01 lap(u^4) - .01 lap(u), and -1e-5 div(u^3 grad lap u) + 5e-6 lap^2 u, a film: the linear part alone
    grows without limit."""
    fourth = {"products": [[[0, -1]] * 4], "power": 1, "axis": -1}
    drift = {"products": [[[0, -1]] * 3 + [[0, 32]]], "flux": True, "axis": -1}
    terms, theta = ([LAPLACIAN | {"power": 2}, drift], [[5e-6], [-1e-5]]) if film else (
        [LAPLACIAN, fourth], [[-0.01], [0.01]])
    box = Box([0.0], [1.0], ["walled"])
    plain, split = (LawTerm(box.state(), "natural", 24, terms, theta, about=about)
                    for about in ([], [[1.4], [1.0]]))
    z = 0.1 * torch.randn(2, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / (
        1 + torch.arange(24))
    z[:, 0] = 1.2
    torch.testing.assert_close(split.law()(0.0, z), plain.law()(0.0, z))
    torch.testing.assert_close(split.jacobian(torch.zeros(2), z), plain.jacobian(torch.zeros(2), z))
    assert split.law().growth() <= 0 < plain.law().growth()
    exact = plain.law().advance(z, 0.2, 4096)
    torch.testing.assert_close(split.law().advance(z, 0.2, 16), exact, rtol=1e-4, atol=1e-5)
    assert not bool(torch.isfinite(plain.law().advance(z, 0.2, 16)).all())
    assert "about" not in plain.structure() and build_term(term_structure(split)).about == split.about


def test_operators_on_products_of_differences_have_these_in_parentheses() -> None:
    names, axes = ["(T-290)", "(p+5)"], ["x", "y"]
    assert Term((((0, VALUE),),), 1).written(names, axes) == "lap (T-290)"
    assert Term((((0, VALUE),) * 2,), 1).written(names, axes) == "lap ((T-290)^2)"
    assert Term((((0, VALUE), (1, VALUE)),), 1).written(names, axes) == "lap ((T-290) (p+5))"
    assert Term((((0, VALUE), (1, VALUE)),)).written(names, axes) == "(T-290) (p+5)"


CIRCLE = Box([0.0], [1.0], ["periodic"]).harmonics(131)
GROWTH, DIFFUSION = Term((((0, VALUE),),)), Term((((0, VALUE),),), 1)
DRIFT, STEEPENING = Term((((0, VALUE),),), axis=0), Term((((0, VALUE), (0, 0)),))
SECOND, COUPLING = Term((((1, VALUE),),)), Term((((0, VALUE), (1, VALUE)),))
EQUAL, VARIED = torch.full((6,), 0.02).double(), torch.tensor([0.02, 0.05, 0.02, 0.02, 0.05, 0.05]).double()


def _states(count, field):
    z = torch.randn(count, field.channels, 131, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (z / (1 + torch.arange(131)) ** 2).flatten(1)


@pytest.mark.parametrize("gaps", [EQUAL, VARIED])
@pytest.mark.parametrize("terms, theta, together", [
    ([GROWTH, DIFFUSION, STEEPENING], [[0.1], [0.02], [-1.0]], True),
    ([GROWTH, DRIFT, STEEPENING], [[0.1], [0.5], [-1.0]], False),  # couples sines and cosines
    ([GROWTH, DIFFUSION, SECOND, COUPLING], [[0.1, 0.2], [0.02, 0.0], [0.3, 0.01], [1.0, -1.0]], True),
    ([GROWTH, Term(GROWTH.products, place=2)], [[0.1], [0.3]], False),  # couples all harmonics
])
def test_states_with_coefficients_of_their_own(terms, theta, together, gaps):
    theta = torch.tensor(theta).double()
    field = LawField.of(terms, CIRCLE, theta)
    fields, which = [field.at(share * theta) for share in (1.0, 1.1, 1.2)], torch.tensor([0, 1, 2, 1, 0, 2])
    z = _states(6, field)
    for rows, one in joined(fields, which):
        assert isinstance(one, JoinedField) == together
        later = one.after_gaps(z[rows], gaps[rows], 0.002)
        apart = [fields[which[i]].after_gaps(z[i : i + 1], gaps[i : i + 1], 0.002) for i in rows]
        torch.testing.assert_close(later, torch.cat(apart), rtol=1e-12, atol=1e-13)


def test_blocks_of_states_do_not_change_them():
    field = LawField.of([DIFFUSION, STEEPENING], CIRCLE, torch.tensor([[0.02], [-1.0]]).double())
    z = _states(600, field)
    torch.testing.assert_close(field.advance(z, 0.02, 10)[-5:], field.advance(z[-5:], 0.02, 10), rtol=1e-12, atol=1e-13)


def test_a_gradient_by_coefficients_is_refused_instead_of_being_none():
    term = law([OTHER], [[0.0, -1.0]])
    z, t = codes(term, 2), torch.zeros(2)
    known = term(t, z)
    term.requires_grad_(True)
    with pytest.raises(UserError, match="coefficients of a law have no gradients"):
        term(t, z)
    with torch.no_grad():
        assert torch.equal(term(t, z), known)
