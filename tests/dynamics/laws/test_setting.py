"""Families of terms: transport of a velocity without divergence, forces and coefficients that vary in place."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import skfem
import torch
from scipy.integrate import solve_ivp
from scipy.spatial import Delaunay

from inrflow.domains import HELD, NATURAL, Box, Domain, Flows, Region, Sphere, domains_of
from inrflow.domains.transform import DenseTransform, SeparableTransform, SphereTransform
from inrflow.domains.triangulation import grid_mesh
from inrflow.dynamics.laws import Systems, fit_law
from inrflow.dynamics.laws.families import Families, families_of, solenoidal, transient_frames
from inrflow.dynamics.laws.field import LawField
from inrflow.dynamics.laws.library import Library
from inrflow.dynamics.laws.refinement.final import simplest, worse
from inrflow.dynamics.laws.setting import Data, choose_basis, evenly_spaced, prepare_data, windows
from inrflow.dynamics.laws.term import LawTerm
from inrflow.dynamics.laws.terms import LAPLACIAN, SECOND, VALUE, Term, drift_terms
from inrflow.errors import UserError
from inrflow.numerics.kinetics import RECIPROCAL

CUBE = Box([0.0, 0.0, 0.0], [6.0, 5.0, 4.0], ["periodic"] * 3)
LINE = Box([0.0], [1.0], ["walled"])
UNITS = (1.0, 1.3, 0.7)
TRANSPORT = [Term.transport(j, UNITS) for j in range(3)]


def test_families_are_sought_without_the_squared_laplacian_first() -> None:
    families = families_of(LINE, LINE.harmonics(8), np.zeros((1, 1, 1, 8)))
    squared = families.all_terms.index(Term((((0, VALUE),),), 2))
    assert [squared in active for active in families.active] == [False, True] * 4
    assert all(set(few) == {j for j in more if families.all_terms[j].power < 2} for few, more in zip(
        families.active[::2], families.active[1::2], strict=True))
    drifts = Families({"drifts": drift_terms(1, (0,))}, (("drifts",),))
    steep = [any("grad lap u)" in drifts.all_terms[j].written("u", "x") for j in active) for active in drifts.active]
    assert steep == [False, True]


def _waves(x: np.ndarray, sines: bool = False) -> Data:
    """Four trajectories of smooth fields between the walls of a unit square at points x (N, 2)."""
    rng, table = np.random.default_rng(1), np.pi * np.arange(sines, 6 + sines) * x[:, :, None]  # (N, 2, 6)
    one = np.sin(table) if sines else np.cos(table)
    fields = np.einsum("stij,ni,nj->stn", rng.standard_normal((4, 3, 6, 6)), one[:, 0], one[:, 1])
    return Data(np.zeros((4, 3)), np.broadcast_to(x, (4, *x.shape)), fields[..., None], Systems(np.zeros(4, int)))


def test_three_points_are_told_to_be_too_few() -> None:
    x, u = np.array([[0.1], [0.5], [0.9]]), np.random.default_rng(0).standard_normal((2, 6, 3, 1))
    with pytest.raises(UserError, match="3 points are too few for harmonics along 1 axes; give more"):
        fit_law(np.arange(6.0), np.broadcast_to(x, (2, 3, 1)), u, domains_of(x[None]), seconds=1.0)


def test_walls_beyond_the_nodes_of_a_mesh_are_those_of_a_box() -> None:
    x = np.random.default_rng(0).random((300, 2))
    place, kind, _, error = choose_basis(domains_of(x, cells=Delaunay(x).simplices), None, _waves(x), 0, lambda _: None)
    assert isinstance(place, Box) and kind == NATURAL and error < 1e-8
    np.testing.assert_allclose([place.lower, place.upper], [[0, 0], [1, 1]], atol=1e-12)


def test_walls_of_a_grid_of_every_second_cell_are_those_of_the_cells() -> None:
    g = (np.arange(48) + 0.5) / 48
    x = np.stack(np.meshgrid(g[::2], g[::2], indexing="ij"), -1).reshape(-1, 2)
    place, kind, _, error = choose_basis(domains_of(x), None, _waves(x), 0, lambda _: None)
    assert isinstance(place, Box) and kind == NATURAL and error < 1e-8
    np.testing.assert_allclose([place.lower, place.upper], [[0, 0], [1, 1]], atol=1e-12)


def test_few_of_many_points_choose_harmonics_and_late_no_further_ones_are_tried() -> None:
    x, told = np.random.default_rng(0).random((6000, 2)), list[str]()
    box = [Box([0.0, 0.0], [1.0, 1.0], ["walled"] * 2)]
    _, kind, count, error = choose_basis(list(box), None, _waves(x), 0, told.append)
    assert kind == NATURAL and 36 <= count < 256 and error < 1e-8
    assert choose_basis(list(box), None, _waves(x), 0, told.append, lambda: True)[2] == 256
    assert told[0].count(":") > 3 and told[-1].count(":") == 2  # the words, and one number of harmonics


def test_channels_that_are_no_velocities_have_no_law_of_flows() -> None:
    random, x = np.random.default_rng(0), np.stack(np.meshgrid(*[np.linspace(0, 1, 12)] * 2, indexing="ij"), -1)
    x = x.reshape(-1, 2)
    waves = np.stack([np.cos(np.pi * i * x[:, 0]) * np.cos(np.pi * j * x[:, 1]) for i in range(3) for j in range(3)])
    unrelated = Data.of(np.arange(6.0), x, np.einsum("stck,kn->stnc", random.standard_normal((8, 6, 2, 9)), waves))
    flows = Flows(*grid_mesh(*[np.linspace(0, 1, 8)] * 2), np.ones(2))
    with pytest.raises(UserError, match="divergence-free modes leave [4-9]. % of the variance"):
        prepare_data(unrelated, [flows], None, 0, lambda _: None)


def test_late_other_harmonics_are_tried_all_the_same_where_modes_of_flows_hold_little() -> None:
    g, box = (np.arange(14) + 0.5) / 14, Box([0.0, 0.0], [1.0, 1.0], ["walled"] * 2)
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1).reshape(-1, 2)
    one = _waves(x)
    both = replace(one, u=np.concatenate([one.u, one.u[::-1]], -1))  # two values, and no velocity
    flows = Flows(*grid_mesh(*[np.linspace(0, 1, 8)] * 2), np.ones(2))
    place, _, _, error = choose_basis([box, flows], None, both, 0, lambda _: None, lambda: True)
    assert isinstance(place, Box) and error < 1e-3


@pytest.mark.parametrize(("sines", "other"), [(False, HELD), (True, NATURAL)])
def test_quadratic_elements_are_not_solved_for_conditions_that_linear_ones_rule_out(sines: bool, other: str) -> None:
    mesh = skfem.MeshTri.init_tensor(*[np.linspace(0, 1, 17)] * 2)
    domains = [Region(mesh.p.T, mesh.t.T, order) for order in (2, 1)]
    assert choose_basis(list(domains), None, _waves(mesh.p.T, sines), 0, lambda _: None)[1] != other
    assert other not in {boundary for _, boundary in domains[0]._known}


def test_coarse_meshes_held_at_their_boundary_have_no_more_harmonics_than_nodes_within_tell() -> None:
    mesh = skfem.MeshTri.init_tensor(*[np.linspace(0, 1, 10)] * 2)  # 64 of 100 nodes
    domains = [Region(mesh.p.T, mesh.t.T, order) for order in (1, 2)]
    table = np.sin(np.pi * np.arange(1, 4) * mesh.p.T[:, :, None])
    u = np.einsum("stij,ni,nj->stn", np.random.default_rng(1).standard_normal((4, 3, 3, 3)), table[:, 0], table[:, 1])
    data = replace(_waves(mesh.p.T), u=u[..., None])
    _, kind, count, error = choose_basis(list(domains), None, data, 0, lambda _: None)
    assert kind == HELD and count <= 64 and error < 1e-2
    held, natural = (domains[0].harmonics(40, kind).reached(mesh.p.T) for kind in (HELD, NATURAL))
    assert held == 0.64 and natural == 1


@pytest.mark.parametrize(("rough", "order"), [(0.0, 2), (0.3, 1)])
def test_quadratic_elements_in_space_must_be_far_better_than_linear_ones(rough: float, order: int) -> None:
    mesh = skfem.MeshTet.init_tensor(*[np.linspace(0, 1, 7)] * 3).restrict(lambda x: (x > 0.5).sum(0) < 3)
    x, rng = mesh.p.T, np.random.default_rng(0)
    u = np.stack([np.cos(np.pi * x @ k) for k in rng.integers(0, 2, (4, 3))])[:, None, :, None]
    u = u + rough * rng.standard_normal((4, 3, len(x), 1))
    data = Data(np.zeros((4, 3)), np.broadcast_to(x, (4, *x.shape)), u, Systems(np.zeros(4, int)))
    place, *_ = choose_basis(domains_of(x, cells=mesh.t.T), NATURAL, data, 0, lambda _: None)
    assert isinstance(place, Region) and place.order == order


@pytest.mark.parametrize("domain", [CUBE, Box([0.0, 0.0], [1.0, 2.0], ["walled", "periodic"])])
def test_sums_along_one_axis_at_a_time_are_those_over_all_points(domain: Box) -> None:
    harmonics = domain.harmonics(40)
    dense, separable = DenseTransform(harmonics, 2), SeparableTransform(harmonics, 2)
    codes = torch.randn(3, harmonics.count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for axis in range(-1, domain.dimensions):
        fields = dense.fields(codes, axis)
        torch.testing.assert_close(separable.fields(codes, axis), fields)
        torch.testing.assert_close(separable.project(fields, axis), dense.project(fields, axis))
        if axis >= 0:
            torch.testing.assert_close(separable.derivative(axis), dense.derivative(axis))


def test_sums_ring_by_ring_on_a_sphere_are_those_over_all_points() -> None:
    harmonics = Sphere().harmonics(49)
    rings, dense = SphereTransform(harmonics, 2), DenseTransform(harmonics, 2)
    codes = torch.randn(3, 49, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slopes = torch.stack([dense.fields(codes, axis) for axis in range(3)], -1)
    turned = torch.linalg.cross(torch.tensor(dense.points).expand_as(slopes), slopes)  # x cross grad
    for axis, fields in enumerate([dense.fields(codes), *slopes.unbind(-1), *turned.unbind(-1)], -1):
        torch.testing.assert_close(rings.fields(codes, axis), fields)
        torch.testing.assert_close(rings.table(axis) @ codes.T, fields.T)
        if axis < 3:
            torch.testing.assert_close(rings.project(fields, axis), dense.project(fields, axis))
            torch.testing.assert_close(rings.derive(codes, axis) if axis >= 0 else codes, dense.project(fields))
            torch.testing.assert_close(codes[:, :9] @ rings.derivative(max(axis, 0), 9).T,
                                       codes[:, :9] @ dense.derivative(max(axis, 0), 9).T)


def test_transport_of_flows_is_sought_where_velocities_have_no_divergence_in_the_units_of_their_channels() -> None:
    harmonics = CUBE.harmonics(60)
    z = torch.randn(2, 3, harmonics.count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = LawField(Library(TRANSPORT, harmonics), -torch.eye(3, dtype=torch.float64))
    projected = field(0.0, z.flatten(1)).reshape(z.shape)
    assert set(TRANSPORT) <= set(families_of(CUBE, harmonics, projected[None].numpy(), UNITS).all_terms)
    for states, units in ((z, UNITS), (projected, None)):
        assert not any(term.solenoidal for term in families_of(CUBE, harmonics, states[None].numpy(), units).all_terms)


def test_jacobian_of_the_projected_transport_agrees_with_differences() -> None:
    terms = [TRANSPORT[0], Term((((0, VALUE),),), 1)]
    theta = [[0.5, 0.7, 0.9], [1.1, 1.3, 1.5]]
    count = CUBE.harmonics(20).count
    field = LawTerm(CUBE.state(), "natural", count, [term.state() for term in terms], theta)
    z, v = torch.randn(2, 2, 3 * count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.zeros(2, dtype=torch.float64)
    slope = (field(t, z + 1e-6 * v) - field(t, z - 1e-6 * v)) / 2e-6
    torch.testing.assert_close((field.jacobian(t, z) @ v[..., None])[..., 0], slope, rtol=1e-5, atol=1e-6)


def _frames(rate: Callable[[np.ndarray], np.ndarray], starts: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.stack([solve_ivp(lambda _, u: rate(u), (0, t[-1]), u, "LSODA", t, rtol=1e-9, atol=1e-11).y.T
                     for u in starts])[..., None]


def _heat(force: float, depth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u_t = (a u_x)_x + force cos(2 pi x) between walls, a = 0.02 (1 + depth cos(pi x)), by finite volumes."""
    n, t = 64, np.arange(8) * 0.2
    x = (np.arange(n) + 0.5) / n
    a = 0.02 * (1 + depth * np.cos(np.pi * np.arange(1, n) / n))  # at faces of cells
    starts = np.random.default_rng(0).standard_normal((12, 5)) @ np.cos(np.pi * np.outer(np.arange(5), x))
    u = _frames(lambda u: np.diff(np.pad(a * np.diff(u), 1)) * n**2 + force * np.cos(2 * np.pi * x), starts, t)
    return t, x, u


def test_a_force_that_varies_in_place_is_found() -> None:
    t, x, u = _heat(0.3, 0.0)
    law = fit_law(t, x[:, None], u, LINE, boundary="natural", seconds=10.0)
    (base, (_, field)), = law.varying_coefficients(0, x[:, None]).items()
    assert base == Term()
    np.testing.assert_allclose(field, 0.3 * np.cos(2 * np.pi * x), atol=0.005)
    assert law.written(["u"])[0].endswith("+ a (a from - 0.3 to 0.3)")


def test_a_force_of_short_waves_is_found() -> None:
    """u_t = .01 lap u + .3 cos(5 pi x) cos(3 pi y), in closed form."""
    x = np.stack(np.meshgrid(*[(np.arange(20) + 0.5) / 20] * 2, indexing="ij"), -1).reshape(-1, 2)
    t, k = np.arange(8) * 0.3, np.array([(a, b) for a in range(6) for b in range(6)])
    rates = 0.01 * np.pi**2 * (k**2).sum(1)
    rest = np.where((k == (5, 3)).all(1), 0.3 / np.maximum(rates, 1e-9), 0.0)
    starts = np.random.default_rng(0).standard_normal((10, 36))
    codes = rest + (starts - rest)[:, None] * np.exp(-np.outer(t, rates))
    u = codes @ np.prod(np.cos(np.pi * k[:, None] * x), -1)
    law = fit_law(t, x, u[..., None], Box([0, 0], [1, 1], ["walled"] * 2), boundary="natural", seconds=10.0)
    (base, (_, field)), = law.varying_coefficients(0, x).items()
    assert base == Term()
    np.testing.assert_allclose(field, 0.3 * np.cos(5 * np.pi * x[:, 0]) * np.cos(3 * np.pi * x[:, 1]), atol=0.005)


def test_a_conductivity_that_varies_in_place_is_found() -> None:
    t, x, u = _heat(0.0, 0.5)
    law = fit_law(t, x[:, None], u, LINE, boundary="natural", seconds=1.6)
    (base, (_, field)), = law.varying_coefficients(0, x[:, None]).items()
    assert base.flux
    np.testing.assert_allclose(field, 0.02 * (1 + 0.5 * np.cos(np.pi * x)), rtol=0.02)
    assert "div(a grad u) (a from 0.0" in law.written(["u"])[0]
    with pytest.raises(UserError, match="vary from place to place"):
        LawTerm.of(law).on(LINE.state(), 20)


def test_a_conductivity_that_varies_in_place_is_found_beside_a_reaction() -> None:
    """u_t = (a u_x)_x + 2 (u - u^3), a = .01 (1 + .6 cos(pi x) + .3 cos(3 pi x)), by finite volumes."""
    n, t = 64, np.arange(8) * 0.15
    x, face = (np.arange(n) + 0.5) / n, np.arange(1, n) / n

    def a(at: np.ndarray) -> np.ndarray:
        return 0.01 * (1 + 0.6 * np.cos(np.pi * at) + 0.3 * np.cos(3 * np.pi * at))

    starts = (np.random.default_rng(0).standard_normal((12, 5)) / (1 + np.arange(5))
              ) @ np.cos(np.pi * np.outer(np.arange(5), x))
    u = _frames(lambda u: np.diff(np.pad(a(face) * np.diff(u), 1)) * n**2 + 2 * (u - u**3), starts, t)
    law = fit_law(t, x[:, None], u, LINE, boundary="natural", seconds=6.5)
    (base, (_, field)), = law.varying_coefficients(0, x[:, None]).items()
    assert base.flux
    np.testing.assert_allclose(field, a(x), atol=0.0005)
    cubic, = (theta for term, theta in zip(law.terms, law.theta[:, 0], strict=True) if len(term.products[0]) == 3)
    assert cubic == pytest.approx(-2, rel=0.01)


def test_a_wind_and_a_growth_that_vary_in_place_are_found() -> None:
    """u_t = .02 u_xx - w u_x + r u on a circle, w = .3 cos(2 pi x), r = .5 sin(2 pi x), by Fourier series."""
    n, t = 48, np.arange(8) * 0.15
    x, k = np.arange(n) / n, 2j * np.pi * np.fft.fftfreq(n, 1 / n)
    wind, growth = 0.3 * np.cos(2 * np.pi * x), 0.5 * np.sin(2 * np.pi * x)

    def rate(u: np.ndarray) -> np.ndarray:
        z = np.fft.fft(u)
        return np.asarray(np.fft.ifft(0.02 * k**2 * z).real - wind * np.fft.ifft(k * z).real + growth * u)

    waves = np.exp(2j * np.pi * np.outer(np.arange(1, 6), x))
    draw = np.random.default_rng(0)
    starts = 1 + ((draw.standard_normal((12, 5)) + 1j * draw.standard_normal((12, 5))) @ waves).real
    law = fit_law(t, x[:, None], _frames(rate, starts, t), Box([0.0], [1.0], ["periodic"]), seconds=2.5)
    fields = {base.axis: field for base, (_, field) in law.varying_coefficients(0, x[:, None]).items()}
    np.testing.assert_allclose(fields[0], -wind, atol=0.003)
    np.testing.assert_allclose(fields[VALUE], growth, atol=0.005)
    assert "a" not in law.written(["a"])[0].split("(b from")[1].split("(c from")[0].replace("da/dx", "")


def test_factors_of_second_order_agree_with_differences() -> None:
    harmonics = Box([0.0, 0.0], [1.0, 2.0], ["walled", "periodic"]).harmonics(30)
    wanted = (RECIPROCAL, LAPLACIAN, *(SECOND + 3 * i + j for i, j in ((0, 0), (0, 1), (1, 1))))
    library = Library([Term((((0, axis),),)) for axis in wanted], harmonics)
    z = 0.1 * torch.randn(1, 1, harmonics.count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[..., 0] = 2.0
    x, h, each = library.transform.points, 1e-4, np.eye(2)
    found = library.factors_at_points(z, library.needed(library.terms))

    def u(x: np.ndarray) -> np.ndarray:
        return harmonics.values(x) @ z[0, 0].numpy()

    def second(i: int, j: int) -> np.ndarray:
        by, along = h * each[i], h * each[j]
        return (u(x + by + along) - u(x + by - along) - u(x - by + along) + u(x - by - along)) / (4 * h * h)

    expected = [1 / u(x), second(0, 0) + second(1, 1), second(0, 0), second(0, 1), second(1, 1)]
    for axis, values in zip(wanted, expected, strict=True):
        np.testing.assert_allclose(found[0, axis][0], values, atol=1e-4)


def test_the_law_of_a_gas_is_found() -> None:
    """q_t = -(q v)_x, v_t = -v v_x - 2 q_x / q + .05 v_xx / q on a circle, by finite differences of fourth order."""
    random, n, t = np.random.default_rng(0), 128, 0.03 * np.arange(10)
    x = np.arange(n) * 2 * np.pi / n

    def along(f: np.ndarray, weights: tuple[float, ...], order: int) -> np.ndarray:
        return sum(weight * np.roll(f, -k) for k, weight in zip(range(-2, 3), weights, strict=True)) / (x[1] ** order)

    def rate(w: np.ndarray) -> np.ndarray:
        q, v = w.reshape(2, n)
        first, second = (1 / 12, -2 / 3, 0.0, 2 / 3, -1 / 12), (-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12)
        return np.concatenate([-along(q * v, first, 1), -v * along(v, first, 1) - 2 * along(q, first, 1) / q
                               + 0.05 * along(v, second, 2) / q])

    waves = np.concatenate([np.cos(np.outer(np.arange(1, 4), x)), np.sin(np.outer(np.arange(1, 4), x))])
    starts = np.stack([np.concatenate([1 + 0.1 * random.standard_normal(6) @ waves,
                                       0.2 * random.standard_normal(6) @ waves]) for _ in range(6)])
    u = _frames(rate, starts, t).reshape(6, len(t), 2, n)[..., ::2].swapaxes(2, 3)
    line = Box([0.0], [2 * np.pi], ["periodic"])
    law = fit_law(t, x[::2, None], u, line, seconds=4.0)
    density, velocity = ({law.terms[j]: law.theta[j, c] for j in np.flatnonzero(law.theta[:, c])} for c in (0, 1))
    push, friction = (Term((((0, RECIPROCAL), (c, axis)),)) for c, axis in ((0, 0), (1, LAPLACIAN)))
    assert set(density) == {Term((((0, VALUE), (1, 0)),)), Term((((1, VALUE), (0, 0)),))}
    assert velocity.keys() == {Term((((1, VALUE), (1, 0)),)), push, friction}
    np.testing.assert_allclose([velocity[push], velocity[friction]], [-2, 0.05], rtol=1e-3)


def test_two_vectors_and_a_scalar_have_their_terms_and_each_vector_stays_without_divergence() -> None:
    """Velocity and magnetic field of different units, and a buoyant scalar."""
    box, units = Box([0.0, 0.0], [2.0, 3.0], ["periodic"] * 2), (0.5, 1.5, 0.7, 2.0, 1.0)
    harmonics = box.harmonics(60)
    z = 0.3 * torch.randn(4, 5, harmonics.count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    vectors = [Term.transport(j, units[a : a + 2], (a, a + 1), (b, b + 1), units[b : b + 2])
               for a in (0, 2) for b in (0, 2) for j in range(2)]
    buoyant = [Term((((4, VALUE),),), -1, SECOND + 3 * i + j) for i, j in ((0, 0), (0, 1))]
    # P(u . grad) b drives b, P(b . grad) b drives u, with weights of one physical coefficient each
    theta = torch.zeros(10, 5).double()
    theta[[2, 3], [2, 3]] = -1.0
    for j in range(2):
        theta[6 + j, j] = units[2 + j] / units[j]
    theta[8, 1], theta[9, 0] = 1 / units[1], -1 / units[0]  # a force along the second axis: lap^-1 (s_xx, -s_xy)
    rate = LawField(Library([*vectors, *buoyant], harmonics), theta)(0.0, z.flatten(1)).reshape(z.shape)
    states = (rate * torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])[:, None])[None].numpy()
    assert solenoidal(box, harmonics, states, units) == [(0, 1), (2, 3)]
    every = families_of(box, harmonics, states, units).all_terms
    assert set(vectors) | set(buoyant) <= set(every)
    assert all(Term.from_state(term.state()) == term for term in every)


def test_the_jacobian_of_transport_of_another_vector_agrees_with_differences() -> None:
    box, units = Box([0.0, 0.0], [2.0, 3.0], ["periodic"] * 2), (0.5, 1.5, 0.7, 2.0)
    terms = [Term.transport(0, units[:2], (0, 1), (2, 3), units[2:]), Term((((1, VALUE),),), -1, SECOND + 1)]
    theta = [[0.0, 0.3, -1.1, 0.4], [0.7, 0.0, 0.0, 0.2]]
    count = box.harmonics(20).count
    law = LawTerm(box.state(), "natural", count, [term.state() for term in terms], theta)
    z = 0.3 * torch.randn(2, 4 * count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    automatic = torch.func.vmap(torch.func.jacrev(lambda s: law.law()(0.0, s)))(z)
    torch.testing.assert_close(law.jacobian(torch.zeros(2).double(), z), automatic, rtol=1e-9, atol=1e-11)


def test_dispersion_that_is_no_local_operator_is_found() -> None:
    """u_t = 0.05 d (-lap)^0.65 u / dx - 0.1 (-lap)^0.5 u on a circle, by its waves."""
    random, x, t = np.random.default_rng(0), np.arange(32) * 2 * np.pi / 32, 0.2 * np.arange(10)
    k = np.arange(1, 7)
    start = (random.standard_normal((8, 2, 6)) * [[1], [1j]]).sum(1) / k
    path = start[:, None] * np.exp((0.05j * k * k**1.3 - 0.1 * k) * t[:, None])
    u = np.real(path @ np.exp(1j * k[:, None] * x))[..., None]
    law = fit_law(t, x[:, None], u[:6], Box([0.0], [2 * np.pi], ["periodic"]), seconds=2)
    assert "(-lap)^" in law.written(["u"], ["x"])[0]
    forecast = law.decode(law.rollout(law.encode(x[:, None], u[6:, 0]), t), x[:, None])
    assert ((forecast - u[6:]) ** 2).mean() < 1e-6 * u.var()
    term = next(term for term in law.terms if term.power % 1)
    assert Term.from_state(term.state()) == term


def test_linear_terms_that_pull_back_long_waves_are_found() -> None:
    """u_t = 0.3 lap^-1 u + 0.05 lap u + 0.4 d(lap^-1 u)/dy on a torus, by its waves."""
    random, t, side = np.random.default_rng(0), 0.4 * np.arange(8), 2 * np.pi * np.arange(12) / 12
    kx, ky = (k.ravel() for k in np.meshgrid([0, 1, 2], [-2, -1, 1, 2], indexing="ij"))
    k2 = kx**2 + ky**2
    start = (random.standard_normal((8, 2, len(k2))) * [[1], [1j]]).sum(1) / k2
    path = start[:, None] * np.exp((-0.3 / k2 - 0.05 * k2 - 0.4j * ky / k2) * t[:, None])
    x = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    u = np.real(path @ np.exp(1j * (kx[:, None] * x[:, 0] + ky[:, None] * x[:, 1])))[..., None]
    law = fit_law(t, x, u, Box([0.0, 0.0], [2 * np.pi] * 2, ["periodic"] * 2), seconds=3)
    found = dict(zip([term.written(["u"], ["x", "y"]) for term in law.terms], law.theta[:, 0], strict=True))
    assert found.keys() == {"lap^-1 u", "lap u", "lap^-1 du/dy"}
    np.testing.assert_allclose([found["lap^-1 u"], found["lap u"], found["lap^-1 du/dy"]], [0.3, 0.05, 0.4], rtol=1e-4)


@pytest.mark.parametrize("grid, codes, count", [(4096, 4096, 23**2), (300, 4096, 500), (300, 700, 350)])
def test_fine_fields_of_two_channels_in_the_plane_have_the_harmonics_of_their_grid(
    grid: int, codes: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no flow for being two, and 256 harmonics would lose a tenth of them; of a large grid they are as many as
    leave a millionth, or as there is time for."""
    monkeypatch.setattr("inrflow.dynamics.laws.setting.MOST_OF_GRID", grid)
    side, random = np.arange(24) / 24, np.random.default_rng(0)
    k = np.fft.fftfreq(24, 1 / 24)
    size = np.exp(-np.hypot(k[:, None], k) / 3)
    u = np.fft.ifft2(np.fft.fft2(random.standard_normal((6, 4, 2, 24, 24))) * size).real.reshape(6, 4, 2, -1)
    x = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    data = Data.of(np.arange(4.0), x, u.swapaxes(2, 3) / u.std())
    box: list[Domain] = [Box([0.0, 0.0], [1.0, 1.0], ["periodic"] * 2)]
    encoded, _, _ = prepare_data(data, box, None, 0, lambda _: None, most_codes=codes)
    assert count - 12 < encoded.codes.harmonics.count <= count


@pytest.fixture(scope="module")
def disc() -> Region:
    """A fine mesh, whose harmonics are solved once."""
    mesh = skfem.MeshTri.init_circle(5)
    return Region(mesh.p.T, mesh.t.T, 1)


@pytest.mark.parametrize("reach, noise, count", [(120, 0.0, 655), (40, 0.1, 256)])
def test_more_harmonics_of_a_mesh_hold_fine_fields_but_not_noise(
    disc: Region, reach: int, noise: float, count: int
) -> None:
    region, random = disc, np.random.default_rng(0)
    every = region.harmonics(800)
    codes = random.standard_normal((4, 4, 800)) * np.exp(-every.eigenvalues / every.eigenvalues[reach])
    u = (codes @ every.coefficients.T)[..., None]
    data = Data.of(np.arange(4.0), region.nodes, u / u.std() + noise * random.standard_normal(u.shape))
    encoded, _, floor = prepare_data(data, [region], NATURAL, 0, lambda _: None)
    found = encoded.codes.harmonics.count
    assert found == count if not noise else found <= count
    assert noise or floor < 1e-3


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_noise_is_told_where_harmonics_are_all_that_a_grid_has(noise: float) -> None:
    """Of fields that 256 of 484 harmonics hold to more than three times the noise, whose codes move along lines."""
    rng, g = np.random.default_rng(0), (np.arange(22) + 0.5) / 22
    table = np.cos(np.pi * np.arange(22)[:, None] * g)
    size = np.exp(-((np.arange(22)[:, None] ** 2 + np.arange(22) ** 2) / 120))
    first, change = size * rng.standard_normal((2, 6, 1, 22, 22))
    u = np.einsum("stij,in,jm->stnm", first + np.linspace(0, 2, 5)[:, None, None] * change, table, table)
    u = u / u.std() + noise * rng.standard_normal(u.shape)
    x = np.stack(np.meshgrid(g, g, indexing="ij"), -1).reshape(-1, 2)
    data = Data.of(np.arange(5), x, u.reshape(6, 5, -1, 1))
    encoded, _, _ = prepare_data(data, [Box([0.0, 0.0], [1.0, 1.0], ["walled"] * 2)], None, 0, lambda _: None)
    assert encoded.codes.harmonics.count > 400
    np.testing.assert_allclose(encoded.train.noise, noise**2, rtol=0.35)


def test_first_frames_in_which_fields_settle_are_left_out() -> None:
    """Water that plants drink within a gap between frames: splines through first frames swing at later ones."""
    random, n, t = np.random.default_rng(0), 32, 0.5 * np.arange(10)
    x = np.arange(n) / n * 2 * np.pi
    k2 = np.fft.rfftfreq(n, 1 / n) ** 2

    def rate(_: float, f: np.ndarray) -> np.ndarray:
        w, b = f.reshape(2, n)
        lap_w, lap_b = (np.fft.irfft(-k2 * np.fft.rfft(one), n) for one in (w, b))
        return np.concatenate([2 - w - 3 * w * b**2 + 0.2 * lap_w, w * b**2 - 0.5 * b + 0.05 * lap_b])

    def start(mean: float) -> np.ndarray:
        waves = (random.standard_normal() / j * np.cos(j * x + random.uniform(0, 7)) for j in range(1, 4))
        return np.asarray(mean * np.exp(0.4 * sum(waves)))

    u = np.stack([solve_ivp(rate, (0, t[-1]), np.concatenate([start(1.0), start(1.2)]), "LSODA", t, rtol=1e-9,
                            atol=1e-11).y.T.reshape(10, 2, n).swapaxes(1, 2) for _ in range(10)])
    u /= u.std((0, 1, 2))
    law = fit_law(t, x[:, None], u, Box([0.0], [2 * np.pi], ["periodic"]), seconds=1.3)
    forecast = law.decode(law.rollout(law.encode(x[:, None], u[:, 0]), t), x[:, None])
    assert ((forecast - u) ** 2).mean() < 1e-3
    times, codes = np.tile(t, (10, 1)), u.swapaxes(2, 3)
    assert transient_frames(times, codes) > 0
    assert transient_frames(times[:, 3:], codes[:, 3:]) == 0


@pytest.mark.parametrize(("trajectories", "frames", "parts"), [
    (1, 16, (3, 6)), (2, 20, (4, 10)), (3, 10, (3, 10)), (1, 8, (2, 4)), (1, 6, (1, 6)),
])
def test_one_or_two_trajectories_are_parted_so_that_some_judge(trajectories, frames, parts) -> None:
    shapes = (trajectories, frames), (trajectories, 3, 1), (trajectories, frames, 3, 1)
    t, x, u = (np.zeros(shape) for shape in shapes)
    data = Data(t, x, u, Systems(np.zeros(trajectories, int)))
    assert windows(data).u.shape[:2] == parts


@pytest.mark.parametrize(("errors", "others", "expected"), [
    ([1.0, 1.1, 0.9], [np.inf, 1.0, 1.0], False), ([np.inf, 1.0, 1.0], [1.0, 1.1, 0.9], True),
    ([1.0, 1.1, 0.9], [1.0, 1.1, 0.9], False), ([2.0, 2.1, 1.9], [1.0, 1.1, 0.95], True),
])
def test_forecasts_that_diverge_are_worse_than_any_that_do_not(errors, others, expected) -> None:
    assert worse(np.array(errors), np.array(others)) is expected


def test_fewer_terms_are_taken_where_a_paired_test_does_not_tell_forecasts_apart() -> None:
    def law(size: int) -> Any:
        return SimpleNamespace(size=size, has_rates=False)

    errors = np.array([1.0, 4.0, 0.5, 2.0])
    even, chance = 1.3 * errors, errors + [3.0, -1.0, 0.2, 0.4]  # means 1.3 and 1.35 times the best
    scored = [(errors, law(8)), (even, law(4)), (chance, law(5))]
    assert simplest(scored)[1].size == 5
    assert simplest(scored, 1.0)[1].size == 4  # the difference is little


def test_frames_of_long_trajectories_count_as_codes_and_few_of_them_tell_what_fields_are_like() -> None:
    assert len(evenly_spaced(64, 256, 32, frames=20)) == 32
    assert len(evenly_spaced(64, 256, 32, frames=1000)) == 4
    data = Data.of(np.arange(1000.0), np.zeros((1, 1)), np.arange(1000.0).reshape(1, -1, 1, 1))
    assert data.subsampled.t[0].tolist() == data.subsampled.u.ravel().tolist() == list(range(0, 1000, 31))


def test_of_a_mesh_that_fills_a_box_the_box_is_tried_before_quadratic_elements_are_solved_for(monkeypatch) -> None:
    generator, t = np.random.default_rng(0), np.arange(10) * 0.1
    points, cells = grid_mesh(np.linspace(0, 1, 15), np.linspace(0, 1, 15))
    inner = ((points > 0) & (points < 1)).all(1)
    points[inner] += generator.uniform(-0.025, 0.025, (inner.sum(), 2))
    k = np.pi * np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2)
    waves = np.cos(points[:, :1] * k[:, 0]) * np.cos(points[:, 1:] * k[:, 1])
    decay = np.exp(-0.05 * t[:, None] * (k**2).sum(1))
    u = np.einsum("sk,tk,nk->stn", generator.standard_normal((8, 16)), decay, waves)[..., None]
    solve = Region._solve
    monkeypatch.setattr(Region, "_solve", lambda self, *asked: pytest.fail() if self.order > 1 else solve(self, *asked))
    assert choose_basis(domains_of(points, cells=cells), None, Data.of(t, points, u), 0,
                        lambda _: None)[0].kind == "box"
