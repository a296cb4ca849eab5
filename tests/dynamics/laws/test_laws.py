"""Laws against closed forms, scipy's integrators and independent solvers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from inrflow.domains import HELD, NATURAL, Box, Region, Sphere
from inrflow.domains.triangulation import grid_mesh
from inrflow.dynamics.laws import Law, Systems, fit_law
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.law import MOST_STEPS, integrable, well_posed
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.network.sine import Input, Sine
from inrflow.dynamics.laws.refinement.final import refine
from inrflow.dynamics.laws.regression import normal_equations
from inrflow.dynamics.laws.setting import Data, EncodedData, forecast_errors, windows
from inrflow.dynamics.laws.terms import ANGULAR, POTENTIAL, VALUE, Term, basic_terms
from inrflow.encoding.harmonic_codes import HarmonicCodes, TableDesign, _posterior, fit_codes
from inrflow.errors import UserError
from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.numerics.kinetics import RECIPROCAL

LINE = Box([0.0], [1.0], ["walled"])
CIRCLE = Box([0.0], [2 * np.pi], ["periodic"])
LAP, CUBE, ADVECTION = Term((((0, VALUE),),), 1), Term((((0, VALUE),) * 3,)), Term((((0, VALUE), (0, 0)),))


def _field(domain: Box, terms: list[Term], theta: list[list[float]], count: int = 21) -> LawField:
    return LawField(Library(terms, domain.harmonics(count)), torch.tensor(theta, dtype=torch.float64))


def _random_codes(batch: int, count: int, channels: int = 1) -> np.ndarray:
    return 0.5 * np.random.default_rng(0).standard_normal((batch, channels, count)) / (1 + np.arange(count)) ** 1.5


def _diffusion(count: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u_t = 0.02 u_xx - u^3 between walls, by finite differences on 64 centres of cells."""
    x, t = (np.arange(64) + 0.5) / 64, np.arange(10) * 0.25
    start = np.random.default_rng(1).standard_normal((count, 4)) @ np.cos(np.pi * np.outer(np.arange(4), x))

    def rate(_: float, u: np.ndarray) -> np.ndarray:
        padded = np.pad(u, 1, mode="edge")
        return 0.02 * (padded[2:] - 2 * u + padded[:-2]) * 64**2 - u**3

    u = np.stack([solve_ivp(rate, (0, t[-1]), s, "LSODA", t, rtol=1e-9, atol=1e-11).y.T for s in start])
    return t, x[:, None], (u + noise * np.random.default_rng(2).standard_normal(u.shape))[..., None]


@pytest.mark.parametrize(("growth", "longest"), [(-1.0, 1 / 4), (40.0, None)])
def test_laws_that_blow_up_are_given_up_before_most_steps(monkeypatch, growth: float, longest: float | None) -> None:
    """du/dt = growth u^3 from u near 1/2, which is infinite after 1 / (2 growth u^2) = 1/20 of the interval of 40."""
    t, x = np.array([[0.0, 1.0]] * 4), np.linspace(0, 1, 20)[None, :, None].repeat(4, 0)
    data = Data(t, x, np.full((4, 2, 20, 1), 0.5), Systems(np.zeros(4, int)))
    encoded = EncodedData(LINE, NATURAL, codes := fit_codes(LINE.harmonics(5), data.x, data.u), data,
                          np.broadcast_to(codes.encode(data.x[0], data.u[0])[0], (4, 2, 1, 5)).copy(),
                          np.zeros((4, 1, 5)))
    steps, advance = [], LawField.advance
    monkeypatch.setattr(LawField, "advance", lambda self, z, dt, n: (steps.append(n), advance(self, z, dt, n))[1])
    found = integrable(encoded.law([CUBE], np.array([[growth]]), np.zeros((1, 1))), data.t, encoded.states)
    assert (found is None) == (longest is None) and sum(steps) < MOST_STEPS / 2
    assert found is None or found.max_step <= longest


def test_steps_are_shortened_until_nonlinear_diffusion_is_stable() -> None:
    """u_t = (u_x^3)_x of steep waves, whose longest steps diverge: at least 2.8 over its largest rate, and accurate."""
    x, t = np.linspace(0, 1, 80), np.array([[0.0, 1.0]] * 4)
    u = np.cos(np.pi * x)[None, None, :, None] * np.linspace(0.8, 1.1, 4)[:, None, None, None] * np.ones((1, 2, 1, 1))
    data = Data(t, x[None, :, None].repeat(4, 0), u, Systems(np.zeros(4, int)))
    codes = fit_codes(LINE.harmonics(30), data.x, data.u)
    states = np.stack([codes.encode(data.x[0], one)[0] for one in data.u])
    encoded = EncodedData(LINE, NATURAL, codes, data, states, np.zeros((4, 1, 30)))
    flux = Term((((0, 0), (0, 0), (0, 0)),), axis=0, flux=True)
    law = encoded.law([flux], np.array([[1e-3]]), np.zeros((1, 1)))
    stiffest = 1e-3 * 3 * (1.1 * np.pi) ** 2 * (29 * np.pi) ** 2
    found = integrable(law, t, states)
    assert found is not None and 1 / MOST_STEPS / 2 <= found.max_step < 3 / stiffest
    z = torch.tensor(states[:, 0]).flatten(1)
    exact = law.field().advance(z, 1.0, 4 * MOST_STEPS)
    assert float((found.step(z, 1.0) - exact).norm() / exact.norm()) < 1e-5


def test_features_are_projections_of_derivatives() -> None:
    terms = [Term(), LAP, Term((((0, VALUE),),), 1, 0), ADVECTION, CUBE, Term((((0, 0), (0, 0)),)),
             Term(CUBE.products, 1)]
    harmonics = CIRCLE.harmonics(31)
    x = np.linspace(0, 2 * np.pi, 400, endpoint=False)[:, None]
    codes = fit_codes(harmonics, x[None], np.sin(x)[None, None]).encode(x, np.sin(x)[None])[0]
    with torch.no_grad():
        fields = Library(terms, harmonics).features(torch.tensor(codes), 31)[0].numpy() @ harmonics.values(x).T
    s, c = np.sin(x[:, 0]), np.cos(x[:, 0])
    cube_lap = 6 * s * c**2 - 3 * s**3
    np.testing.assert_allclose(fields, [0 * s + 1, -s, -c, s * c, s**3, c**2, cube_lap], atol=1e-5)


def test_transport_by_the_flow_of_a_vorticity_is_its_closed_form() -> None:
    harmonics = Box([0.0, 0.0], [2 * np.pi] * 2, ["periodic"] * 2).harmonics(25)
    x = np.stack(np.meshgrid(*[np.linspace(0, 2 * np.pi, 12, endpoint=False)] * 2), -1).reshape(-1, 2)
    w = np.sin(x[:, :1]) + np.sin(2 * x[:, 1:])
    codes = fit_codes(harmonics, x[None], w[None, None]).encode(x, w[None])[0]
    with torch.no_grad():
        rate = Library([Term.jacobian(0, 0)], harmonics).features(torch.tensor(codes), harmonics.count)[0, 0].numpy()
    np.testing.assert_allclose(rate @ harmonics.values(x).T, -1.5 * np.cos(x[:, 0]) * np.cos(2 * x[:, 1]), atol=1e-6)


@pytest.mark.parametrize("terms", [[LAP, CUBE], [Term((((0, VALUE),),), 1, 0), ADVECTION]])
def test_forward_is_the_sum_of_features(terms: list[Term]) -> None:
    domain = CIRCLE if terms[1] is ADVECTION else LINE
    field = _field(domain, terms, [[0.3], [-0.7]])
    z = torch.tensor(_random_codes(3, 21))
    with torch.no_grad():
        sums = torch.einsum("bjk,jc->bck", field.library.features(z, 21), field.theta)
        torch.testing.assert_close(field(0.0, z.flatten(1)), sums.flatten(1))


def test_exponential_steps_agree_with_an_implicit_integrator_on_a_stiff_law() -> None:
    field = _field(LINE, [LAP, Term((((0, VALUE),),), 2), CUBE], [[-0.01], [-1e-4], [-1.0]], 40)
    z = torch.tensor(_random_codes(1, 40)).flatten(1)
    with torch.no_grad():
        reference = solve_ivp(lambda t, y: field(t, torch.tensor(y)[None])[0].numpy(), (0, 1), z[0].numpy(), "Radau",
                              rtol=1e-9, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(field.advance(z, 1.0, 64)[0], reference, atol=1e-6)


def test_exponential_steps_are_of_fourth_order() -> None:
    field = _field(CIRCLE, [LAP, ADVECTION], [[0.1], [-1.0]])
    z = torch.tensor(_random_codes(2, 21)).flatten(1)
    exact = field.advance(z, 1.0, 512)
    errors = [float((field.advance(z, 1.0, n) - exact).norm()) for n in (16, 32)]
    assert 12 < errors[0] / errors[1] < 20


def test_linear_laws_are_exact_in_one_step() -> None:
    field = _field(CIRCLE, [LAP, Term((((0, VALUE),),), 1, 0)], [[0.1], [0.05]])  # u_xx and u_xxx
    z = torch.tensor(_random_codes(1, 21)).flatten(1)
    modes = torch.linalg.matrix_exp(field.blocks[0] * 3.0)
    torch.testing.assert_close(field.advance(z, 3.0, 1)[0], modes @ z[0])
    growth, phase = np.exp(-0.1 * 4 * 3.0), 0.05 * 8 * 3.0  # wavenumber 2: decays by k^2, turns by k^3
    turned = np.abs([[np.cos(phase), np.sin(phase)], [np.sin(phase), np.cos(phase)]])
    np.testing.assert_allclose(np.abs(modes[3:5, 3:5].numpy()), growth * turned, rtol=1e-9)


def test_codes_are_the_coefficients_of_what_is_on_the_harmonics() -> None:
    harmonics, x = LINE.harmonics(20), np.random.default_rng(0).uniform(0, 1, (60, 1))
    truth = _random_codes(12, 20)
    u = np.swapaxes(truth @ harmonics.values(x).T, 1, 2)
    codes = fit_codes(harmonics, x[None], u[None])
    np.testing.assert_allclose(codes.encode(x, u)[0], truth, atol=1e-5)
    np.testing.assert_allclose(codes.decode(truth, x), u)


def test_codes_of_points_on_rings_order_by_order_are_those_of_normal_equations() -> None:
    harmonics, generator = Sphere().harmonics(324), np.random.default_rng(0)
    south, east = np.meshgrid((np.arange(20) + 0.5) * np.pi / 20, np.arange(40) * np.pi / 20, indexing="ij")
    x = np.stack([np.sin(south) * np.cos(east), np.sin(south) * np.sin(east), np.cos(south)], -1).reshape(-1, 3)
    table, prior = harmonics.values(x), 1 / (1 + harmonics.eigenvalues)
    u = (np.sqrt(prior) * generator.standard_normal((5, 324)) @ table.T + 0.1 * generator.standard_normal((5, 800)))
    codes, spread, noise = _posterior(TableDesign(table), u, np.zeros(324), prior)
    inverse = np.linalg.inv(table.T @ table / noise + np.diag(1 / prior))
    np.testing.assert_allclose(codes, u @ table / noise @ inverse, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(spread, np.diag(inverse), rtol=1e-8)
    assert len(TableDesign(table).blocks or ()) > 30


def test_harmonics_in_which_the_data_have_nothing_are_not_used() -> None:
    harmonics, x = CIRCLE.harmonics(31), np.linspace(0, 2 * np.pi, 40, endpoint=False)[:, None]
    truth = np.random.default_rng(0).standard_normal((12, 1, 31)) * (np.arange(31) < 25)
    u = np.swapaxes(truth @ harmonics.values(x).T, 1, 2)
    assert fit_codes(harmonics, x[None], u[None]).used(CIRCLE)[1] == 25


def test_boxes_have_the_waves_of_each_axis_that_a_solver_keeps() -> None:
    square = Box([0.0, 0.0], [1.0, 1.0], ["periodic", "periodic"])
    x = np.stack(np.meshgrid(*[np.arange(12) / 12] * 2, indexing="ij"), -1).reshape(-1, 2)
    grid = square.resolved_by_grid(x)
    assert grid is not None
    harmonics, generator = grid.harmonics(121), np.random.default_rng(0)
    waves = np.stack([harmonics.waves(j)[0] for j in (0, 1)]) / (2 * np.pi)
    kept = (waves[0] < 3.5) & (waves[1] < 2.5)
    u = (generator.standard_normal((6, 121)) * kept @ harmonics.values(x).T)[:, None, :, None]
    place, count = fit_codes(harmonics, np.tile(x, (6, 1, 1)), u).used(grid)
    assert place.harmonics(count).count == kept.sum() == 35
    assert place.resolved_by_grid(x).functions == (7, 5)  # type: ignore[attr-defined]


def test_waves_of_middle_length_are_not_taken_for_noise() -> None:
    harmonics, x = CIRCLE.harmonics(61), np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
    spectrum = np.exp(-0.5 * (np.sqrt(harmonics.eigenvalues) - 7) ** 2) + 1e-6  # as of Kuramoto and Sivashinsky
    u = np.swapaxes(spectrum * np.random.default_rng(0).standard_normal((9, 1, 61)) @ harmonics.values(x).T, 1, 2)
    codes = fit_codes(harmonics, x[None], u[None])
    assert ((codes.decode(codes.encode(x, u)[0], x) - u) ** 2).mean() < 1e-9 * u.var()


def test_missing_values_and_noise_raise_the_variance_of_codes() -> None:
    harmonics, x = LINE.harmonics(20), np.linspace(0.01, 0.99, 80)[:, None]
    generator = np.random.default_rng(0)
    u = np.swapaxes(_random_codes(40, 20) @ harmonics.values(x).T, 1, 2)
    noisy = u + 0.05 * generator.standard_normal(u.shape)
    codes = fit_codes(harmonics, x[None], noisy[None])
    z, spread = codes.encode(x, noisy)
    errors = (z - _random_codes(40, 20))[:, 0, :10] ** 2
    assert 0.5 < errors.mean() / spread[0, :10].mean() < 2
    gaps = noisy.copy()
    gaps[:, 20:] = np.nan
    assert codes.encode(x, gaps)[1].mean() > 2 * spread.mean() and np.isfinite(codes.encode(x, gaps)[0]).all()


def test_regression_finds_the_terms_of_exact_paths() -> None:
    harmonics, t = LINE.harmonics(16), np.arange(10) * 0.05
    field = _field(LINE, [LAP, CUBE], [[0.02], [-1.0]], 16)
    z = [torch.tensor(_random_codes(12, 16)).flatten(1)]
    for _ in t[1:]:
        z.append(field.advance(z[-1], 0.05, 8))
    paths = torch.stack(z, 1).numpy()[:, :, None]
    terms = [term for family in basic_terms(1, 1).values() for term in family]
    equations = normal_equations(terms, harmonics, np.tile(t, (12, 1)), paths, np.zeros((12, 1, 16)),
                                 np.ones((1, 16)), (False,))[0]
    weights = equations.weights(0, list(range(len(terms))))
    path = dict((len(support), support) for support, _ in equations.eliminations(0, list(range(len(terms))), weights))
    assert {terms[j] for j in path[2]} == {LAP, CUBE}
    theta, _ = equations.solve(0, sorted(path[2]), weights)
    np.testing.assert_allclose(theta, [0.02, -1.0], rtol=1e-3)


@pytest.mark.parametrize(("value", "error", "text"), [
    (0.1003, 2e-4, "0.1003(2)"), (4.01e-6, 1.2e-7, "4.01(12)e-06"), (-0.327, 0.02, "-0.33(2)"), (12.3, 0.5, "12.3(5)"),
    (1.00003, 1.4e-5, "1.000030(14)"), (0.003, 0.0099, "0.003(10)"), (0.25, 0.0, "0.25"), (2.0, np.inf, "2"),
    (-3.36e-6, 4e-8, "-3.36(4)e-06"), (-2e-19, 0.004, "-0.000(4)"),
])
def test_coefficients_are_written_with_their_standard_error(value: float, error: float, text: str) -> None:
    codes = HarmonicCodes(LINE.harmonics(4), np.zeros((1, 4)), np.ones((1, 4)))
    law = Law(LINE, NATURAL, (LAP,), np.array([[value]]), np.array([[error]]), codes)
    assert law.written(["u"]) == [f"du/dt = {text} lap u".replace("= -", "= -")]


def test_long_laws_are_not_written_in_full() -> None:
    terms = tuple(Term((((0, VALUE),) * n,)) for n in range(1, 31))
    codes = HarmonicCodes(LINE.harmonics(4), np.zeros((1, 4)), np.ones((1, 4)))
    law = Law(LINE, NATURAL, terms, np.arange(1.0, 31)[:, None], np.full((30, 1), 0.1), codes)
    (line,) = law.written(["u"])
    assert line.endswith("... (10 more terms)") and "u^30" in line and line.count("u^") == 20


def test_terms_within_their_standard_error_are_counted_but_not_written() -> None:
    terms = tuple(Term((((0, VALUE),) * n,)) for n in range(1, 5))
    codes = HarmonicCodes(LINE.harmonics(4), np.zeros((1, 4)), np.ones((1, 4)))
    theta, std = np.array([[0.01], [2.0], [-0.3], [0.2]]), np.array([[0.07], [0.1], [0.4], [0.2]])
    (line,) = Law(LINE, NATURAL, terms, theta, std, codes).written(["u"])
    assert line == "du/dt = 2.00(10) u^2 + 0.2(2) u^4 + ... (2 more terms, within standard errors of zero)"
    (line,) = Law(LINE, NATURAL, terms, theta, 10 * std, codes).written(["u"])  # the strongest one in any case
    assert line.startswith("du/dt = 2.0(10) u^2 + ... (3 more") and line.endswith("errors of zero)")


@pytest.mark.parametrize(("term", "linear"), [
    (LAP, True), (Term(), True), (Term((((0, 0),),)), True), (Term((((0, VALUE),),), place=2, flux=True), True),
    (Term((((0, VALUE),),), vector=(0,), units=(1.0,)), False), (Term((((0, VALUE),) * 2,)), False),
    (Term((((0, RECIPROCAL),),)), False), (Sine((Input("value"),), (1.0,), 0.0), False)])
def test_which_laws_are_linear_in_the_fields(term: Term, linear: bool) -> None:
    codes = HarmonicCodes(LINE.harmonics(4), np.zeros((1, 4)), np.ones((1, 4)))
    assert Law(LINE, NATURAL, (LAP, term), np.ones((2, 1)), np.ones((2, 1)), codes).is_linear == linear


def test_laws_by_which_fine_details_grow_are_ill_posed() -> None:
    codes = HarmonicCodes(LINE.harmonics(30), np.zeros((1, 30)), np.ones((1, 30)))
    kuramoto = (LAP, Term((((0, VALUE),),), 2))
    for theta, good in (([0.01, 0.0], True), ([-0.01, 0.0], False), ([-0.01, -1e-4], True), ([0.01, 1e-4], False)):
        law = Law(LINE, NATURAL, kuramoto, np.array(theta)[:, None], np.zeros((2, 1)), codes)
        assert well_posed(law, np.array([[0.0, 1.0]])) == good


def test_law_of_data_is_found_forecast_and_printed() -> None:
    t, x, u = _diffusion(14)
    law = fit_law(t, x, u[:10], LINE, seconds=1.5)
    found = {term.written(["u"], ["x"]): value for term, value in zip(law.terms, law.theta[:, 0], strict=True)}
    assert found["lap u"] == pytest.approx(0.02, rel=0.02) and found["u^3"] == pytest.approx(-1, rel=0.02)
    assert "du/dt = " in law.written(["u"])[0] and "u^3" in law.written(["u"])[0]
    forecast = law.decode(law.rollout(law.encode(x, u[10:, 0]), t), x)
    assert ((forecast - u[10:]) ** 2).mean() < 1e-5 * u[10:].var()


def test_a_law_whose_seconds_do_not_suffice_repeats_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inrflow.numerics.effort._SLOWEST", np.inf)  # else time counts on slow machines
    t, x, u = _diffusion(10, noise=0.01)
    first, again = (fit_law(t, x, u, LINE, seconds=0.2) for _ in range(2))
    assert np.array_equal(first.theta, again.theta) and np.array_equal(first.std, again.std)


def test_law_is_found_from_other_points_in_every_trajectory_between_held_walls() -> None:
    generator, t = np.random.default_rng(0), np.arange(8) * 0.1
    k = np.arange(1, 5)
    x = generator.uniform(0, 1, (10, 40, 1))
    amplitude = generator.standard_normal((10, 4)) * np.exp(-0.5 * k)
    decay = np.exp(-0.05 * (np.pi * k) ** 2 * t[:, None])
    u = np.einsum("sk,tk,snk->stn", amplitude, decay, np.sin(np.pi * k * x))[..., None]
    law = fit_law(t, x, u, LINE, seconds=4)
    assert law.boundary == HELD
    assert law.written(["u"])[0].count("u") == 2 and law.theta.max() == pytest.approx(0.05, rel=1e-3)


def test_candidates_that_diverge_are_nan_and_not_raised() -> None:
    codes = HarmonicCodes(LINE.harmonics(8), np.zeros((1, 8)), np.ones((1, 8)))
    law = Law(LINE, NATURAL, (CUBE,), np.array([[5.0]]), np.zeros((1, 1)), codes, max_step=0.1, largest=1.0)
    assert torch.isnan(law.step(torch.ones(2, 8, dtype=torch.float64), 10.0)).all()
    assert torch.isfinite(law.step(0.01 * torch.ones(2, 8, dtype=torch.float64), 0.1)).all()


def test_a_law_moves_to_another_domain() -> None:
    nodes = np.linspace(0, 1, 80)[:, None]
    mesh = Region(nodes, np.stack([np.arange(79), np.arange(1, 80)], 1))
    on = {domain: Law(domain, NATURAL, (LAP, CUBE), np.array([[0.02], [-1.0]]), np.zeros((2, 1)),
                      HarmonicCodes(domain.harmonics(16), np.zeros((1, 16)), np.ones((1, 16))))
          for domain in (LINE, mesh)}
    u = (1 + np.cos(np.pi * nodes) - 0.3 * np.cos(2 * np.pi * nodes))[None]
    later = [replace(law, max_step=0.05).rollout(law.encode(nodes, u), np.array([0, 0.5])) for law in on.values()]
    fields = [law.decode(z, nodes) for law, z in zip(on.values(), later, strict=True)]
    np.testing.assert_allclose(fields[0], fields[1], atol=2e-3)


def test_long_trajectories_are_cut_into_windows_that_share_their_ends() -> None:
    t = np.arange(101.0)[None]
    u = np.sin(t)[..., None, None]
    parts = windows(Data(t, np.zeros((1, 1, 1)), u, Systems(np.zeros(1, dtype=int))))
    assert parts.u.shape == (11, 10, 1, 1) and len(parts.x) == len(parts.systems.number) == 11
    np.testing.assert_array_equal(parts.t[1:, 0], parts.t[:-1, -1])
    np.testing.assert_array_equal(parts.u[..., 0, 0], np.sin(parts.t))


@pytest.mark.parametrize(("period", "parts"), [(8000.0, (4, 97)), (20.0, (16, 25))])
def test_slow_fields_have_longer_windows(period: float, parts: tuple[int, int]) -> None:
    t = np.arange(401.0)[None]
    u = np.sin(2 * np.pi / period * t)[..., None, None]
    data = Data(t, np.zeros((1, 1, 1)), u, Systems(np.zeros(1, dtype=int)))
    assert windows(data).t.shape == parts


def test_law_of_a_single_long_trajectory_is_found() -> None:
    t, x = np.arange(90) * 0.05, np.linspace(0, 2 * np.pi, 32, endpoint=False)[:, None]
    path = solve_ivp(lambda _, z: _burgers(z), (0, t[-1]), np.sin(x[:, 0]) + 0.5 * np.cos(2 * x[:, 0]), "LSODA", t,
                     rtol=1e-9, atol=1e-11).y.T
    law = fit_law(t, x, path[None, ..., None], CIRCLE, seconds=6)
    found = {term.written(["u"], ["x"]): value for term, value in zip(law.terms, law.theta[:, 0], strict=True)}
    assert found == {"lap u": pytest.approx(0.2, rel=1e-2), "u du/dx": pytest.approx(-1, rel=1e-2)}


def _burgers(u: np.ndarray) -> np.ndarray:
    """0.2 u_xx - u u_x on a circle, by Fourier series."""
    k, z = 1j * np.arange(17), np.fft.rfft(u)
    return np.fft.irfft(0.2 * k**2 * z - k * np.fft.rfft(u**2) / 2, 32)


def test_too_few_frames_are_a_sentence() -> None:
    with pytest.raises(UserError, match="needs at least 2 trajectories of 4 frames"):
        fit_law(np.arange(3.0), np.zeros((5, 1)), np.zeros((2, 3, 5, 1)), LINE)


def test_a_rossby_haurwitz_wave_turns_about_the_axis_as_its_closed_form_does():
    spin, turn, degree = 0.5, 0.2, 4
    harmonics = Sphere().harmonics(64)
    terms = [Term.jacobian_on_sphere(0, 0), Term((((0, POTENTIAL + ANGULAR + 2),),)), Term((((0, ANGULAR + 2),),))]
    library = Library(terms, harmonics)
    z = torch.zeros(1, 1, harmonics.count, dtype=torch.float64)
    wave = np.flatnonzero(harmonics.eigenvalues == degree * (degree + 1))
    z[0, 0, wave] = torch.tensor(np.random.default_rng(0).standard_normal(len(wave)))
    z[0, 0, 1] = 2 * turn / np.sqrt(3)  # vorticity 2 turn sin(latitude) of a solid rotation
    flow, coriolis, moved = library.features(z, harmonics.count)[0]
    speed = turn - 2 * (spin + turn) / (degree * (degree + 1))  # Haurwitz (1940)
    np.testing.assert_allclose(-flow - 2 * spin * coriolis, -speed * moved, atol=1e-12)


def test_the_law_found_when_the_time_is_over_is_kept() -> None:
    t, x, u = _diffusion(10)
    said: list[str] = []
    judged = Limit(asked=lambda: any(" terms, effort" in line for line in said))
    with effort.limited(judged):
        law = fit_law(t, x, u, LINE, log=said.append)
    assert law.size and np.isfinite(law.theta).all() and not any("rollouts" in line for line in said)
    with pytest.raises(OutOfTime), effort.limited(Limit(-1.0)):
        fit_law(t, x, u, LINE)


def test_a_law_is_forecast_however_long_the_regression_of_its_family_took() -> None:
    t, x, u = _diffusion(8)
    law = fit_law(t, x, u, LINE, seconds=1e-3)
    assert {term.written(["u"], ["x"]) for term in law.terms} >= {"lap u", "u^3"}


def test_a_law_on_more_harmonics_than_those_it_was_sought_on_is_refined_on_its_own() -> None:
    train = Data.of(*_diffusion(10))
    wrong = [Law(LINE, NATURAL, (LAP, CUBE), np.array([[0.024], [-0.9]]), np.zeros((2, 1)),
                 fit_codes(LINE.harmonics(count), train.x, train.u), max_step=0.05, largest=10.0) for count in (8, 16)]
    before = forecast_errors(wrong[1], train)
    after, law = refine(before, wrong[1], EncodedData.of(wrong[0], train), train, train, effort(), 5.0, lambda _: None,
                        brief=True)
    assert law.codes.harmonics.count == 16 and after.mean() < 0.1 * before.mean()
    np.testing.assert_allclose(law.theta[:, 0], [0.02, -1.0], rtol=0.02)


@pytest.mark.parametrize("nodes", [5, 6, 7, 8])
def test_terms_of_place_count_alike_in_equations_and_along_flows_on_every_mesh(nodes: int) -> None:
    """The constant among low harmonics is -1 on some meshes, as rounding falls."""
    place = Region(*grid_mesh(np.linspace(0, 2, nodes), np.linspace(0, 1, nodes)))
    harmonics, value = place.harmonics(12), ((0, VALUE),)
    terms = [Term((value,), axis=0), *(Term((value,), axis=0, place=m) for m in (1, 2)), Term((value,)),
             Term((value,), place=1)]
    theta = torch.tensor([[0.7], [0.1], [0.2], [-0.5], [0.3]], dtype=torch.float64)
    codes = torch.randn(3, 1, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rates = torch.einsum("bjk,jc->bck", Library.of(terms, harmonics).features(codes, 12), theta)
    torch.testing.assert_close(LawField.of(terms, harmonics, theta)(0.0, codes.flatten(1)), rates.flatten(1))
