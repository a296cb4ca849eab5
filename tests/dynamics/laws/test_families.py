"""Tests of families of terms that tell directions apart, leave means as they are, or drift along gradients."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation
from scipy.special import j0, jn_zeros, legendre

from inrflow.domains import Box, Region, Sphere
from inrflow.domains.transform import inverse_of
from inrflow.dynamics.laws import fit_law
from inrflow.dynamics.laws.families import (
    Families,
    anisotropic_terms,
    basic_terms,
    changing_sign,
    darcy_terms,
    drift_terms,
    families_of,
    regress,
    with_vectors,
)
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.setting import Data, prepare_data
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import (
    DARCY,
    INVERSE,
    VALUE,
    Term,
    centred_terms,
    drag_terms,
    quadratic_terms,
    slope_fluxes,
    term_from_state,
)


def coefficients(law, channels, coordinates, channel=0):
    """Terms of the equation of a channel, as text, and their coefficients."""
    return {term.written(channels, coordinates): float(theta[channel])
            for term, theta in zip(law.terms, law.theta, strict=True) if theta[channel]}


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
    (lambda kx, ky: -2e-7 * (kx**2 + ky**2) ** 3 + 2e-3 * (kx**2 + ky**2), {"lap^3 u": 2e-7, "lap u": -2e-3}),
])
def test_linear_laws_that_tell_directions_apart_are_found(rate, expected):
    x, t = grid(12), np.arange(8) * 0.02
    law = fit_law(t, x, waves(x, t, rate), Box([0, 0], [1, 1], ["periodic"] * 2), seconds=4.0)
    found = coefficients(law, ["u"], ["x", "y"])
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4)


def test_what_spreads_about_an_axis_is_divided_by_the_distance_from_it():
    r, t, waves_of = (np.arange(48) + 0.5) / 48, np.arange(8) * 0.03, np.append(0.0, jn_zeros(1, 5))  # no flux at 1
    a = np.random.default_rng(0).standard_normal((6, 6))
    u = np.einsum("sk,tk,kr->str", a, np.exp(-0.05 * np.outer(t, waves_of**2)), j0(np.outer(waves_of, r)))
    law = fit_law(t, r[:, None], u[..., None], Box([0], [1], ["walled"]), seconds=4.0)
    found = coefficients(law, ["u"], ["r"])
    assert found == {"lap u": pytest.approx(0.05, rel=1e-4), "du/dr 1/r": pytest.approx(0.05, rel=1e-4)}


def test_solitons_of_the_modified_kdv_equation_tell_it():
    """k sech(k (x - k^2 t)) of du/dt = -6 u^2 du/dx - d3u/dx3."""
    generator, x, t = np.random.default_rng(0), np.arange(96) / 96 * 24, np.arange(8) * 0.15
    k, start = np.linspace(0.9, 1.5, 6)[:, None, None], generator.uniform(0, 24, 6)[:, None, None]
    u = k / np.cosh(k * ((x - start - k**2 * t[:, None] + 12) % 24 - 12))
    encoded, _, _ = prepare_data(Data.of(t, x[:, None], u[..., None]), [Box([0], [24], ["periodic"])], None, 0, print)
    (steep,) = families_of(encoded.domain, encoded.codes.harmonics, encoded.states).steep(encoded.domain, 1)
    law = next(law for _, law in regress([encoded], steep) if law.size == 2)
    found = coefficients(law, ["u"], ["x"])
    assert found == {"lap du/dx": pytest.approx(-1, rel=2e-3), "u^2 du/dx": pytest.approx(-6, rel=2e-3)}


def test_friction_is_the_size_of_a_velocity_in_its_units_times_each_component():
    terms, channels, units = drag_terms([(0, 1)], 3, [2.0, 3.0, 1.0]), ["u", "v", "h"], np.array([2.0, 3.0, 1.0])
    names = [term.written(channels, ["x", "y"]) for term in terms]
    assert names == ["|(u, v)| u", "|(u, v)| u h", "|(u, v)| v", "|(u, v)| v h"]
    harmonics = Box([0, 0], [1, 1], ["walled"] * 2).harmonics(11)
    z = torch.tensor(np.random.default_rng(0).standard_normal((1, 3, 11)))
    library = Library(terms, harmonics)
    u, v, h = z[0].numpy() @ harmonics.values(library.transform.points).T
    size = np.hypot(units[0] * u, units[1] * v)
    weighted = harmonics.values(library.transform.points) * library.transform.weights.numpy()[:, None]
    expected = np.stack([size * u, size * u * h, size * v, size * v * h]) @ weighted
    np.testing.assert_allclose(library.features(z, 11)[0].numpy(), expected, atol=1e-10)


def test_quadratic_damping_at_each_point_is_found():
    """du/dt = -c |u| u at each point: u / (1 + c |u| t)."""
    generator, x, t = np.random.default_rng(0), (np.arange(48) + 0.5) / 48, np.arange(10) * 0.1
    start = sum(generator.standard_normal((8, 1, 1)) * np.cos(np.pi * k * x) for k in range(4))
    u = start / (1 + 0.8 * np.abs(start) * t[:, None])
    encoded, _, _ = prepare_data(Data.of(t, x[:, None], u[..., None]), [Box([0], [1], ["walled"])], None, 0, print)
    (drag,) = families_of(encoded.domain, encoded.codes.harmonics, encoded.states, [0.5]).later
    law = next(law for _, law in regress([encoded], drag) if law.size == 1)
    assert law.terms[int(law.theta[:, 0].argmin())].written(["u"], ["x"]) == "|u| u"
    assert law.theta.min() == pytest.approx(-0.8 / 0.5, rel=2e-2)


def test_friction_is_sought_for_channels_that_change_sign_alone():
    box = Box([0, 0], [1, 1], ["walled"] * 2)
    states = np.random.default_rng(0).standard_normal((4, 5, 3, 9))
    states[:, :, 2, 0] = 100.0
    assert changing_sign(box, box.harmonics(9), states) == [(0,), (1,), (0, 1)]
    assert not families_of(box, box.harmonics(9), states[:, :, 2:]).later


def test_nothing_is_divided_by_a_coordinate_that_is_zero_between_walls():
    """Where noise has a wall a cell before the first centre, a point of quadrature may be at 0."""
    box = Box([0, -1 / 32], [2, 33 / 32], ["periodic", "walled"])
    found = Families(basic_terms(1, 2)).with_multipliers(box, box.harmonics(60), 1)
    assert [list(one.terms)[-1] for one in found] == ["multipliers"]


def test_what_turns_about_a_tilted_axis_does_so_in_the_law():
    generator, t, omega = np.random.default_rng(0), np.arange(8) * 0.15, np.array([0.8, -0.3, 0.5])
    x = generator.standard_normal((150, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    u = np.zeros((6, len(t), len(x)))
    for k, s in np.ndindex(len(t), 6):
        own = Rotation.from_rotvec(-omega * t[k]).apply(x)
        for degree in range(1, 6):
            pole = np.random.default_rng([s, degree]).standard_normal(3)
            wave = legendre(degree)(own @ pole / np.linalg.norm(pole))
            u[s, k] += np.exp(-0.02 * degree * (degree + 1) * t[k]) * wave
    law = fit_law(t, x, u[..., None], Sphere(), seconds=8.0)
    found = {term.written(["u"], "xyz"): float(theta[0])
             for term, theta in zip(law.terms, law.theta, strict=True) if theta[0]}
    expected = {"lap u": 0.02} | {f"du/d(turn about {axis})": -w for axis, w in zip("xyz", omega, strict=True)}
    assert found == {name: pytest.approx(value, rel=1e-3) for name, value in expected.items()}


@pytest.mark.parametrize("domain", ["box", "region"])
def test_directed_terms_are_fluxes_in_weak_form_between_walls(domain):
    n = 24
    x = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * 2, indexing="ij"), -1).reshape(-1, 2)
    place = Box([0, 0], [1, 1], ["walled", "walled"]) if domain == "box" else Region(x, Delaunay(x).simplices)
    harmonics = place.harmonics(30)
    terms = anisotropic_terms(1, ["walled", "walled"])
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
    every = [term for family in basic_terms(1, 2).values() for term in family]
    less = centred_terms(every)
    assert len(less) == len(every) - 1 and all(term_from_state(term.state()) == term for term in less)
    z = torch.randn(2, 1, harmonics.count, generator=torch.Generator().manual_seed(0)).double()
    whole = Library(every[1:], harmonics).features(z, harmonics.count)
    means = Library(less, harmonics).features(z, harmonics.count)
    torch.testing.assert_close(means[..., 1:], whole[..., 1:])
    assert float(means[..., 0].abs().max()) < 1e-12 < float(whole[..., 0].abs().max())
    assert Term(centred=True, products=(((0, -1),),)).written(["u"], ["x"]) == "(u less its mean)"


@pytest.mark.parametrize(("noise", "drift", "sought"), [(0.0, 0.0, True), (0.1, 0.0, True), (0.1, 3.0, False)])
def test_terms_less_their_means_are_sought_where_these_change_by_noise_alone(noise: float, drift: float, sought: bool):
    box, generator = Box([0], [1], ["walled"]), np.random.default_rng(0)
    harmonics, states = box.harmonics(12), generator.standard_normal((8, 10, 1, 12))
    states[..., 0] = noise * generator.standard_normal((8, 10, 1)) + drift * np.linspace(0, 1, 10)[:, None]
    encoded = SimpleNamespace(domain=box, codes=SimpleNamespace(harmonics=harmonics), states=states,
                              spread=np.full((8, 1, 12), noise**2))
    further = families_of(box, harmonics, states).further(encoded)
    assert any(getattr(term, "centred", False) for family in further for term in family.all_terms) == sought


def on_torus(n: int, count: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Wave numbers of an n x n grid on a torus of length 1, random codes (1, count, K), harmonics, and fields there."""
    k = 2 * np.pi * np.fft.fftfreq(n, 1 / n)
    harmonics = Box([0, 0], [1, 1], ["periodic"] * 2).harmonics(25)
    z = torch.randn(1, count, harmonics.count, generator=torch.Generator().manual_seed(4)).double()
    fields = (harmonics.values(grid(n)) @ z[0].numpy().T).T.reshape(count, n, n)
    return np.meshgrid(k, k, indexing="ij"), z, harmonics, fields


def waved(field: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return np.fft.ifft2(factor * np.fft.fft2(field)).real


def test_drifts_are_those_of_fourier_transforms() -> None:
    k, z, harmonics, (a, b) = on_torus(32, 2)
    k2 = k[0] ** 2 + k[1] ** 2
    inverse = -1 / np.where(k2 > 0, k2, np.inf)
    terms = [term for term in drift_terms(2, range(2)) if term.written(["a", "b"], ["x", "y"]) in (
        "div(a b grad lap^-1 b)", "div(b grad lap a)", "div(a^2 grad b)")]
    assert len(terms) == 3 and all(term_from_state(term.state()) == term for term in terms)
    expected = {"div(a b grad lap^-1 b)": (a * b, waved(b, inverse)), "div(b grad lap a)": (b, waved(a, -k2)),
                "div(a^2 grad b)": (a * a, b)}
    rates = Library(terms, harmonics).features(z, harmonics.count)[0].numpy()
    table = harmonics.values(grid(32))
    for term, rate in zip(terms, rates, strict=True):
        m, potential = expected[term.written(["a", "b"], ["x", "y"])]
        total = sum(waved(m * waved(potential, 1j * one), 1j * one) for one in k)
        np.testing.assert_allclose(rate, table.T @ total.ravel() / 32**2, atol=1e-8 * np.abs(total).max())


def test_anisotropic_products_of_slopes_and_fluxes_are_those_of_fourier_transforms() -> None:
    k, z, harmonics, (a, b) = on_torus(32, 2)
    slopes = {f"d{name}/d{axis}": waved(field, 1j * one) for name, field in zip("ab", (a, b), strict=True)
              for axis, one in zip("xy", k, strict=True)}
    expected = {"da/dx db/dy": slopes["da/dx"] * slopes["db/dy"], "db/dy^2": slopes["db/dy"] ** 2,
                "d(a db/dy)/dx": waved(a * slopes["db/dy"], 1j * k[0]),
                "d(b db/dy)/dy": waved(b * slopes["db/dy"], 1j * k[1])}
    terms = {term.written(["a", "b"], ["x", "y"]): term for term in quadratic_terms(2, range(2))}
    assert len(terms) == 10 + 12 and term_from_state(terms["d(a db/dy)/dx"].state()) == terms["d(a db/dy)/dx"]
    rates = Library([terms[name] for name in expected], harmonics).features(z, harmonics.count)[0].numpy()
    table = harmonics.values(grid(32))
    for rate, field in zip(rates, expected.values(), strict=True):
        np.testing.assert_allclose(rate, table.T @ field.ravel() / 32**2, atol=1e-8 * np.abs(field).max())


def test_growth_by_slopes_that_differs_by_direction_is_found() -> None:
    """h_t = .1 lap h + .5 h_x^2 - .25 h_y^2 on a torus, by Fourier transforms of fields of low wave numbers."""
    k = [one * 2 * np.pi for one in np.meshgrid(*[np.fft.fftfreq(16, 1 / 16)] * 2, indexing="ij")]
    t, x, starts = np.arange(10) * 5e-3, grid(16), np.random.default_rng(0).standard_normal((5, 16, 16)) / 3

    def rate(_: float, h: np.ndarray) -> np.ndarray:
        h = h.reshape(16, 16)
        squares = 0.5 * waved(h, 1j * k[0]) ** 2 - 0.25 * waved(h, 1j * k[1]) ** 2
        return (waved(h, -0.1 * (k[0] ** 2 + k[1] ** 2)) + squares).ravel()

    low = k[0] ** 2 + k[1] ** 2 < 24 * np.pi**2
    u = np.stack([solve_ivp(rate, (0, t[-1]), waved(start, low).ravel(), t_eval=t, rtol=1e-8, atol=1e-8).y.T
                  for start in starts])[..., None]
    law = fit_law(t, x, u, Box([0, 0], [1, 1], ["periodic"] * 2), seconds=2)
    found = coefficients(law, ["h"], ["x", "y"])
    assert found == {"lap h": pytest.approx(0.1, rel=5e-3), "dh/dx^2": pytest.approx(0.5, rel=5e-3),
                     "dh/dy^2": pytest.approx(-0.25, rel=5e-3)}


def test_fluxes_by_slopes_are_those_of_fourier_transforms() -> None:
    k, z, harmonics, (a, b) = on_torus(32, 2)
    down, across = waved(a, 1j * k[0]), waved(a, 1j * k[1])
    terms = {term.written(["a", "b"], ["x", "y"]): term for term in slope_fluxes(2, range(2))}
    expected = {"div(da/dx da/dy grad b)": down * across, "div(da/dx^2 grad b)": down**2}
    assert len(terms) == 2 * 2 * 3
    rates = Library([terms[name] for name in expected], harmonics).features(z, harmonics.count)[0].numpy()
    for rate, mobility in zip(rates, expected.values(), strict=True):
        field = sum(waved(mobility * waved(b, 1j * one), 1j * one) for one in k)
        np.testing.assert_allclose(rate, harmonics.values(grid(32)).T @ field.ravel() / 32**2,
                                   atol=1e-8 * np.abs(field).max())


def test_an_elastic_rod_that_stiffens_is_found() -> None:
    """u_t = v, v_t = (u_x + .8 u_x^2 + .5 u_x^3)_x on a circle, by Fourier transforms of fields of low wave numbers."""
    n, t = 32, np.arange(10) * 0.02
    x, k, generator = np.arange(n) / n, 2 * np.pi * np.fft.rfftfreq(n, 1 / n), np.random.default_rng(0)

    def rate(_: float, y: np.ndarray) -> np.ndarray:
        u, v = y.reshape(2, n)
        slope = np.fft.irfft(1j * k * np.fft.rfft(u), n)
        stress = np.fft.rfft(slope + 0.8 * slope**2 + 0.5 * slope**3)
        return np.concatenate([v, np.fft.irfft(1j * k * (k < 22 * np.pi) * stress, n)])

    def start() -> np.ndarray:
        return sum(generator.standard_normal() / m * np.cos(2 * np.pi * (m * x + generator.random())) for m in (1, 2))

    u = np.stack([solve_ivp(rate, (0, t[-1]), np.concatenate([0.06 * start(), 0.3 * start()]), t_eval=t, rtol=1e-8,
                            atol=1e-9).y.T.reshape(10, 2, n).transpose(0, 2, 1) for _ in range(6)])
    law = fit_law(t, x[:, None], u, Box([0], [1], ["periodic"]), seconds=4)
    found = [coefficients(law, ["u", "v"], ["x"], channel) for channel in range(2)]
    assert found == [{"v": pytest.approx(1, rel=1e-3)}, {
        "lap u": pytest.approx(1, rel=5e-3), "d(du/dx^2)/dx": pytest.approx(0.8, rel=1e-2),
        "d(du/dx^3)/dx": pytest.approx(0.5, rel=5e-2)}]


def test_drifts_hold_those_of_active_matter() -> None:
    """div(lap a grad a) = lap^2 a^2 / 2 - lap |grad a|^2 - div(a grad lap a), by Fourier transforms."""
    k, z, harmonics, (a,) = on_torus(32, 1)
    terms = {term.written(["a"], ["x", "y"]): term for term in drift_terms(1, range(2))}
    parts = {"lap^2 (a^2)": 0.5, "lap (grad a . grad a)": -1.0, "div(a grad lap a)": -1.0}
    rates = Library([terms[name] for name in parts], harmonics).features(z, harmonics.count)[0].numpy()
    bent = waved(a, -k[0] ** 2 - k[1] ** 2)
    total = sum(waved(bent * waved(a, 1j * one), 1j * one) for one in k)
    np.testing.assert_allclose(np.array(list(parts.values())) @ rates, harmonics.values(grid(32)).T @ total.ravel() /
                               32**2, atol=1e-8 * np.abs(total).max())


@pytest.mark.parametrize("kind", ["drifts", "quadratic", "slopes", "vectors", "about", "driven", "drag"])
def test_jacobians_of_further_terms_are_those_of_automatic_differentiation(kind) -> None:
    box = Box([0, 0], [1, 1], ["periodic"] * 2)
    if kind == "drifts":
        terms, channels = drift_terms(2, range(2)), 2
    elif kind == "quadratic":
        terms, channels = quadratic_terms(2, range(2)), 2
    elif kind == "slopes":
        terms, channels = slope_fluxes(2, range(2)), 2
    elif kind == "driven":
        terms, channels = darcy_terms(2), 2
    elif kind == "drag":
        terms, channels = drag_terms([(0,), (1, 2)], 3, [1.0, 0.7, 1.3]), 3
    elif kind == "about":
        terms, channels = [Term((((0, 0), (0, INVERSE)),)), Term((((1, VALUE), (0, INVERSE), (1, INVERSE)),))], 2
    else:
        families = with_vectors(basic_terms(3, 2), [(0, 1)], [2.0, 2.0, 1.0])
        terms, channels = [term for one in families.later for term in one.all_terms if not term.linear], 3
    theta = torch.randn(len(terms), channels, generator=torch.Generator().manual_seed(1)).double() * 1e-4
    law = LawTerm(box.state(), "natural", 9, [term.state() for term in terms], theta.tolist())
    z = torch.randn(2, channels * 9, generator=torch.Generator().manual_seed(2)).double()
    automatic = torch.stack([torch.autograd.functional.jacobian(lambda one: law(torch.zeros(1), one[None])[0], state)
                             for state in z])
    torch.testing.assert_close(law.jacobian(torch.zeros(2), z), automatic, rtol=1e-9, atol=1e-9)


def test_tension_and_stress_lose_what_a_pressure_takes() -> None:
    k, z, harmonics, (_, _, c) = on_torus(32, 3)
    k2 = k[0] ** 2 + k[1] ** 2
    inverse = 1 / np.where(k2 > 0, k2, np.inf)
    names = ["v", "w", "c"]
    families = with_vectors(basic_terms(3, 2), [(0, 1)], [2.0, 2.0, 1.0])
    terms = {term.written(names, ["x", "y"]): term for one in families.later for term in one.all_terms}
    some = ["(P lap c grad c)_x", "(P lap c grad c)_y", "(P dc/dy e_x)_y", "c dv/dy", "lap (c^2)"]
    rates = Library([terms[name] for name in some], harmonics).features(z, harmonics.count)[0].numpy()
    table = harmonics.values(grid(32))

    def projected(force: list[np.ndarray], row: int) -> np.ndarray:
        spectra = [np.fft.fft2(part) / 2.0 for part in force]  # in units of the velocity
        along = inverse * sum(one * part for one, part in zip(k, spectra, strict=True))
        return np.fft.ifft2(spectra[row] - k[row] * along).real

    slopes = [waved(c, 1j * one) for one in k]
    tension = [waved(c, -k2) * slope for slope in slopes]
    v = (harmonics.values(grid(32)) @ z[0, 0].numpy()).reshape(32, 32)
    expected = [projected(tension, 0), projected(tension, 1), projected([slopes[1], 0 * c], 1),
                c * waved(v, 1j * k[1]), waved(c * c, -k2)]
    low = table.T @ np.stack(expected).reshape(5, -1).T / 32**2
    np.testing.assert_allclose(rates[2:], low.T[2:], atol=1e-8 * np.abs(low).max())
    np.testing.assert_allclose(rates[:2], low.T[:2], atol=1e-8 * np.abs(low).max())


def test_a_flow_that_a_field_drives_in_pores_passes_no_wall() -> None:
    """Of cos(pi x) cos(pi y) along y between walls: its stream function, lap psi = -dc/dx, is 0 there, in sines."""
    x = grid(21) * 21 / 20
    harmonics = Box([0, 0], [1, 1], ["walled", "walled"]).harmonics(200)
    code = np.linalg.lstsq(harmonics.values(x), np.cos(np.pi * x).prod(1), rcond=None)[0]
    library = Library.of(darcy_terms(1), harmonics)
    factors = library.factors_at_points(torch.tensor(code)[None, None], library.needed(library.terms))
    m = np.arange(2, 400, 2)  # cos(pi y) is a sum of 4 m / pi (m^2 - 1) sin(m pi y)
    psi = -np.pi * 4 * m / (np.pi * (m**2 - 1)) / (np.pi**2 * (1 + m**2))
    a, b = np.pi * library.transform.points.T
    flow = np.sin(a) * (np.cos(np.outer(b, m)) @ (psi * m * np.pi)), -np.pi * np.cos(a) * (np.sin(np.outer(b, m)) @ psi)
    for j, truth in enumerate(flow):
        missed = factors[0, DARCY + 3 + j][0].numpy() - truth
        assert np.sqrt((missed**2).mean()) < 0.02 * np.sqrt((flow[0] ** 2 + flow[1] ** 2).mean())


def test_convection_in_a_porous_medium_of_which_no_velocity_is_seen_is_found() -> None:
    """c_t = -1.2 P(c e_y) . grad c + .02 lap c on a torus, by Fourier transforms and Runge and Kutta's method."""
    k = [one * 2 * np.pi for one in np.meshgrid(*[np.fft.fftfreq(20, 1 / 20)] * 2, indexing="ij")]
    k2 = k[0] ** 2 + k[1] ** 2
    inverse = 1 / np.where(k2 > 0, k2, np.inf)

    def rate(c):
        q = np.fft.fft2(c)
        flow = (np.fft.ifft2(-k[0] * k[1] * inverse * q).real, np.fft.ifft2(k[0] ** 2 * inverse * q).real)
        slopes = (np.fft.ifft2(1j * one * q).real for one in k)
        return np.fft.ifft2(-0.002 * k2 * q).real - 1.2 * sum(w * g for w, g in zip(flow, slopes, strict=True))

    c = np.swapaxes(waves(grid(20), np.zeros(1), lambda kx, ky: 0.0), 2, 3).reshape(6, 20, 20) / 12
    frames = [c]
    for _ in range(9):
        for _ in range(8):
            one = rate(c)
            two = rate(c + 0.005 * one)
            three = rate(c + 0.005 * two)
            c = c + 0.01 / 6 * (one + 2 * two + 2 * three + rate(c + 0.01 * three))
        frames.append(c)
    u = np.stack(frames, 1).reshape(6, 10, -1, 1)
    law = fit_law(np.arange(10) * 0.08, grid(20), u, Box([0, 0], [1, 1], ["periodic"] * 2), seconds=1.0)
    found = coefficients(law, ["c"], ["x", "y"])
    assert found["(P(c e_y) . grad c)"] == pytest.approx(-1.2, rel=1e-2)
    assert found["lap c"] == pytest.approx(0.002, rel=0.1) and len(found) < 5


def test_which_harmonics_are_constant_does_not_depend_on_the_unit_of_length() -> None:
    eigenvalues = torch.tensor(Box([0.0], [1.0], ["walled"]).harmonics(8).eigenvalues)
    torch.testing.assert_close(inverse_of(1e-12 * eigenvalues), 1e12 * inverse_of(eigenvalues))
    assert inverse_of(eigenvalues)[0] == 0 and bool((inverse_of(eigenvalues)[1:] < 0).all())


def test_what_carries_itself_and_is_carried_by_a_flow_of_place_has_both_terms():
    """u_t = -(a u)_x - u u_x + .03 u_xx on a circle, a = 1 + .5 sin x: differences of spectra, small steps."""
    n, t = 48, np.arange(9) * 0.05
    x, k = np.arange(n) * 2 * np.pi / n, np.fft.rfftfreq(n, 1 / n)
    a, generator = 1 + 0.5 * np.sin(x), np.random.default_rng(0)

    def rate(_, u):
        flux = a * u + u**2 / 2
        return np.fft.irfft(-1j * k * (k < 16) * np.fft.rfft(flux) - 0.03 * k**2 * np.fft.rfft(u), n)

    starts = [sum(generator.standard_normal() * np.cos(j * x + generator.uniform(0, 6)) for j in range(5))
              for _ in range(8)]
    u = np.stack([solve_ivp(rate, (0, t[-1]), one, t_eval=t, rtol=1e-9, atol=1e-9).y.T for one in starts])
    encoded, _, _ = prepare_data(Data.of(t, x[:, None], u[..., None]), [Box([0], [2 * np.pi], ["periodic"])], None, 0,
                                 lambda _: None)
    families = families_of(encoded.domain, encoded.codes.harmonics, encoded.states)
    every = [*families.with_varying_coefficients(encoded.domain, encoded.codes.harmonics)]
    carried = next(one for one in every if "carried" in one.terms)
    least = [regress([encoded], one)[0][0] for one in (families, carried)]
    assert least[1] < 0.05 * least[0]


def test_flows_with_scalars_have_coefficients_of_place_without_the_transport_that_they_lack() -> None:
    """Combinations name families of terms that are there: velocities and a temperature on a torus."""
    torus = Box([0.0, 0.0], [1.0, 1.0], ["periodic", "periodic"])
    families = with_vectors(basic_terms(3, 2), [(1, 2)], (1.0, 1.0, 1.0))
    assert "transport" not in families.terms
    every = list(families.with_varying_coefficients(torus, torus.harmonics(20)))
    assert every and all(one.active for one in every)
