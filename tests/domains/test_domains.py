"""Harmonics of boxes, regions and the sphere against closed forms, finite differences and published values."""

import numpy as np
import pytest
import scipy.linalg
import skfem
from scipy import sparse
from scipy.sparse.linalg import eigsh
from scipy.spatial import Delaunay
from scipy.special import jnp_zeros
from skfem.models.poisson import laplace, mass

from inrflow.decoders.domain_harmonics import plain
from inrflow.domains import HELD, NATURAL, Box, Domain, Region, Sphere, domains_of, from_state, region
from inrflow.domains.infer import shapes
from inrflow.domains.triangulation import grid_mesh, triangulate, widened
from inrflow.errors import UserError


def _disc(refinements: int = 4) -> Region:
    mesh = skfem.MeshTri.init_circle(refinements)
    return Region(mesh.p.T, mesh.t.T, 2)


def _scattered_ring(count: int = 700) -> np.ndarray:
    points = np.random.default_rng(0).uniform(-1, 1, (4 * count, 2))
    radius = np.linalg.norm(points, axis=1)
    return points[(radius > 0.4) & (radius < 1)][:count]


BOXES = [Box([0.5], [3.0], ["periodic"]), Box([0.5], [3.0], ["walled"]), Box([0, 1], [1, 3], ["periodic", "walled"]),
         Box([0, 0, 0], [1, 2, 1], ["walled", "walled", "periodic"])]


@pytest.mark.parametrize("boundary", [NATURAL, HELD])
@pytest.mark.parametrize("box", BOXES, ids=lambda box: "-".join(box.axes))
def test_box_harmonics_are_orthonormal_eigenfunctions(box: Box, boundary: str) -> None:
    harmonics = box.harmonics(40, boundary)
    rule = harmonics.quadrature()
    gram = rule.values.T @ (rule.weights[:, None] * rule.values)
    stiffness = np.einsum("q,qkd,qld->kl", rule.weights, rule.gradients, rule.gradients)
    np.testing.assert_allclose(gram, np.eye(harmonics.count), atol=1e-12)
    np.testing.assert_allclose(stiffness, np.diag(harmonics.eigenvalues), atol=1e-10 * harmonics.eigenvalues[-1])
    assert (np.diff(harmonics.eigenvalues) >= -1e-9).all() and 25 <= harmonics.count <= 40


def test_harmonics_of_leaky_walls_are_orthonormal_eigenfunctions_of_their_conditions() -> None:
    """h of 4 and none at walls of the first axis, held and h of 2.5 at those of the second one."""
    box = Box([0.0, 1.0], [1.5, 2.0], ["walled"] * 2)
    harmonics = box.harmonics(40, "leaky 4-natural/held-leaky 2.5")
    rule, x = harmonics.quadrature(2), np.array([[0.7, 1.3], [1.1, 1.9]])
    np.testing.assert_allclose((rule.values * rule.weights[:, None]).T @ rule.values, np.eye(40), atol=1e-12)
    h, total = 3e-4, -harmonics.eigenvalues * harmonics.values(x)
    near = [harmonics.values(x + s) + harmonics.values(x - s) for s in h * np.eye(2)]
    bent = (sum(near) - 4 * harmonics.values(x)) / h**2
    np.testing.assert_allclose(bent, total, atol=1e-5 * np.abs(total).max())
    walls = np.array([[0.0, 1.3], [1.5, 1.3], [0.7, 1.0], [0.7, 2.0]])
    values, slopes = harmonics.values(walls), harmonics.gradients(walls)
    missed = [slopes[0, :, 0] - 4 * values[0], slopes[1, :, 0], values[2], slopes[3, :, 1] + 2.5 * values[3]]
    np.testing.assert_allclose(missed, 0.0, atol=1e-9)


@pytest.mark.parametrize("domain", [*BOXES, _disc()], ids=lambda domain: domain.kind)
def test_gradients_are_finite_differences_of_values(domain: Domain) -> None:
    harmonics, h = domain.harmonics(12), 1e-6
    x = np.full((1, domain.dimensions), 0.61) if isinstance(domain, Box) else np.array([[0.123, 0.211]])
    x = x + 0.5 * (domain.lower if isinstance(domain, Box) else 0)
    for j, step in enumerate(h * np.eye(domain.dimensions)):
        slope = (harmonics.values(x + step) - harmonics.values(x - step)) / (2 * h)
        np.testing.assert_allclose(harmonics.gradients(x)[..., j], slope, atol=1e-5, rtol=1e-6)


def test_held_harmonics_vanish_at_walls_and_natural_ones_have_no_flux() -> None:
    box, ends = Box([1.0], [2.5], ["walled"]), np.array([[1.0], [2.5]])
    assert np.abs(box.harmonics(9, HELD).values(ends)).max() < 1e-12
    assert np.abs(box.harmonics(9, NATURAL).gradients(ends)).max() < 1e-10


def test_box_keeps_eigenspaces_whole() -> None:
    eigenvalues = Box([0, 0], [1, 1], ["periodic"] * 2).harmonics(10).eigenvalues
    np.testing.assert_allclose(eigenvalues / (4 * np.pi**2), [0, *[1] * 4, *[2] * 4])


def test_quadratic_elements_give_the_disc_zeros_of_bessel_derivatives() -> None:
    eigenvalues = _disc().harmonics(6).eigenvalues
    first, second = jnp_zeros(1, 1)[0], jnp_zeros(2, 1)[0]
    np.testing.assert_allclose(eigenvalues[:5], [0, first**2, first**2, second**2, second**2], rtol=4e-3, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_elements_converge_to_cosines_on_a_square(order: int) -> None:
    errors = []
    for cells in (8, 16):
        mesh = skfem.MeshTri.init_tensor(*2 * [np.linspace(0, 1, cells + 1)])
        errors.append(abs(Region(mesh.p.T, mesh.t.T, order).harmonics(5).eigenvalues[1] - np.pi**2))
    assert errors[1] < errors[0] / (1.9 if order == 1 else 8)


def test_region_in_one_and_three_dimensions_has_the_eigenvalues_of_boxes() -> None:
    line = Region(np.linspace(0, 2, 60)[:, None], np.stack([np.arange(59), np.arange(1, 60)], 1))
    np.testing.assert_allclose(line.harmonics(4).eigenvalues, (np.pi * np.arange(4) / 2) ** 2, rtol=1e-4, atol=1e-8)
    cube = skfem.MeshTet.init_tensor(*3 * [np.linspace(0, 1, 5)])
    solid = Region(cube.p.T, cube.t.T, 2)
    np.testing.assert_allclose(solid.harmonics(4).eigenvalues[1:], np.pi**2 * np.ones(3), rtol=1e-2)
    assert solid.inside(np.array([[0.5, 0.4, 0.3], [1.1, 0.5, 0.5]])).tolist() == [True, False]


def test_places_in_a_solid_of_tetrahedra_are_told_from_those_in_its_cut() -> None:
    ball = skfem.MeshTet.init_ball(2)
    cut = ball.restrict(np.flatnonzero(~(ball.p[:, ball.t].mean(1) > 0).all(0)))
    x = np.random.default_rng(0).uniform(-1, 1, (400, 3))
    radius, corner = np.linalg.norm(x, axis=1), (x > 0).all(1)
    inside = Region(cut.p.T, cut.t.T, 1).inside(x)
    assert inside[(radius < 0.85) & ~corner].all()
    assert not inside[(radius > 1.05) | (x > 0.15).all(1)].any()


def test_many_harmonics_are_all_of_those_of_whole_matrices() -> None:
    side = np.linspace(0, 1, 41)
    mesh = skfem.MeshTri.init_tensor(side, side)  # many eigenvalues are nearly equal
    found = Region(mesh.p.T, mesh.t.T, 1).harmonics(420)
    basis = skfem.Basis(mesh, skfem.ElementTriP1())
    root = np.asarray(mass.assemble(basis).sum(1)).ravel() ** -0.5  # of lumped masses
    every = scipy.linalg.eigvalsh(root[:, None] * laplace.assemble(basis).toarray() * root)
    np.testing.assert_allclose(found.eigenvalues, every[:420], atol=1e-7)
    rule = found.quadrature()
    np.testing.assert_allclose((rule.values.T * rule.weights) @ rule.values, np.eye(420), atol=1e-8)


@pytest.mark.parametrize("divided, points, most", [(150, 1, 1e-2), (0, 3, 1e-5)])
def test_many_harmonics_of_small_cells_have_one_point_in_each(divided: int, points: int, most: float) -> None:
    mesh = skfem.MeshTri.init_circle(4).refined(np.arange(divided))
    harmonics = Region(mesh.p.T, mesh.t.T, 2).harmonics(300)
    rule = harmonics.quadrature()
    assert len(rule.points) == mesh.nelements * points
    low = rule.values[:, :20]
    np.testing.assert_allclose((low.T * rule.weights) @ low, np.eye(20), atol=most)


@pytest.mark.parametrize("order", [1, 2])
def test_region_quadrature_is_that_of_its_harmonics(order: int) -> None:
    mesh = skfem.MeshTri.init_circle(4)
    harmonics = Region(mesh.p.T, mesh.t.T, order).harmonics(20)
    rule = harmonics.quadrature()
    np.testing.assert_allclose(rule.values.T @ (rule.weights[:, None] * rule.values), np.eye(20), atol=1e-5)
    np.testing.assert_allclose(harmonics.values(rule.points), rule.values, atol=1e-7)


def test_scattered_points_of_a_ring_keep_the_hole() -> None:
    domain = domains_of(_scattered_ring())[0]
    assert isinstance(domain, Region) and domain.measure == pytest.approx(np.pi * (1 - 0.16), rel=0.1)
    assert domain.inside(np.array([[0.0, 0.0], [0.7, 0.1], [0.9, 0.9]])).tolist() == [False, True, False]


def test_scattered_points_of_an_l_shape_keep_the_corner() -> None:
    points = np.random.default_rng(1).uniform(0, 2, (900, 2))
    points = points[(points < 1).any(1)]
    nodes, cells = triangulate(points)
    assert Region(nodes, cells, 1).measure == pytest.approx(3, rel=0.1)


def test_random_nodes_of_one_mesh_lie_on_one_shape_and_discs_with_other_holes_do_not() -> None:
    generator, nodes = np.random.default_rng(0), skfem.MeshTri.init_circle(4).p.T
    discs = [nodes[np.linalg.norm(nodes - hole, axis=1) > 0.35] for hole in ((-0.4, 0), (0.4, 0), (0, -0.4), (0, 0.4))]

    def some(sets: list[np.ndarray], share: float) -> np.ndarray:
        count = round(share * min(map(len, sets)))
        return np.stack([each[generator.permutation(len(each))[:count]] for each in sets])

    for share in (0.15, 0.5, 0.9):
        assert len(shapes(some([nodes] * 6, share))) == 1
    for share in (0.5, 0.9):
        assert len(shapes(some(discs, share))) == 4


def test_sphere_harmonics_are_orthonormal_with_tangential_gradients() -> None:
    harmonics = Sphere().harmonics(50)
    rule = harmonics.quadrature()
    assert harmonics.count == 49
    np.testing.assert_allclose(rule.values.T @ (rule.weights[:, None] * rule.values), np.eye(49), atol=1e-12)
    stiffness = np.einsum("q,qkd,qld->kl", rule.weights, rule.gradients, rule.gradients)
    np.testing.assert_allclose(stiffness, np.diag(harmonics.eigenvalues), atol=1e-9)
    assert np.abs(np.einsum("qkd,qd->qk", rule.gradients, rule.points)).max() < 1e-10


def test_domains_are_inferred_from_periods_geometry_and_points() -> None:
    grid = (np.arange(16) + 0.5) / 16
    x = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    walled = domains_of(x)[0]
    assert isinstance(walled, Box) and walled.axes == ("walled", "walled")
    np.testing.assert_allclose([walled.lower, walled.upper], [[0, 0], [1, 1]], atol=1e-12)
    mixed = domains_of(x, period=(1.0, 0.0))[0]
    assert isinstance(mixed, Box) and mixed.axes == ("periodic", "walled")
    assert isinstance(domains_of(np.eye(3), geometry="sphere")[0], Sphere)
    nodes = [domain for domain in domains_of(np.linspace(0, 1, 11)[:, None]) if isinstance(domain, Box)]
    assert nodes[0].lower[0] == 0 and nodes[0].upper[0] == 1


def test_meshes_that_fill_a_box_without_holes_may_be_that_box() -> None:
    points = np.random.default_rng(0).random((300, 2))
    kinds = [domain.kind for domain in domains_of(points, cells=Delaunay(points).simplices)]
    assert kinds[:2] == ["region"] * 2 and set(kinds[2:]) == {"box"}
    for mesh in (_disc(2), Region(*triangulate(_scattered_ring()), order=1)):
        assert {domain.kind for domain in domains_of(mesh.nodes, cells=mesh.cells)} == {"region"}


def test_eigenfunctions_do_not_depend_on_how_a_solver_turns_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(*args, v0, **more):
        values, vectors = eigsh(*args, v0=np.cos(np.arange(len(v0)) ** 2), **more)
        return values[::-1], -vectors[:, ::-1]

    first = _disc().harmonics(60)  # whose eigenvalues are double but for rotations
    monkeypatch.setattr(region, "eigsh", turned)
    again = _disc().harmonics(60)
    np.testing.assert_allclose(again.coefficients, first.coefficients, atol=1e-6)
    np.testing.assert_allclose(_disc().harmonics(80).coefficients[:, :60], first.coefficients, atol=1e-6)


def test_spaces_of_equal_eigenvalues_have_one_basis_and_others_are_not_mixed() -> None:
    random = np.random.default_rng(1)
    vectors, values = np.linalg.qr(random.standard_normal((30, 5)))[0], np.array([1.0, 1 + 1e-6, 2, 2, 2])
    first = region.oriented(values, vectors, sparse.eye(30).tocsc())
    turn = np.eye(5)
    turn[2:, 2:] = np.linalg.qr(random.standard_normal((3, 3)))[0]
    again = region.oriented(values, vectors @ turn * [1, -1, 1, 1, 1], sparse.eye(30).tocsc())
    np.testing.assert_allclose(again, first, atol=1e-12)
    np.testing.assert_allclose(np.abs(first.T @ vectors)[:2], np.eye(2, 5), atol=1e-12)


def test_a_domain_in_use_is_not_solved_again() -> None:
    mesh = _disc(2)
    first, second = domains_of(mesh.nodes, cells=mesh.cells)
    assert from_state(plain(second.state())) is second and from_state(first.state()) is first


@pytest.mark.parametrize("domain", [BOXES[2], Sphere(), _disc(2)], ids=lambda domain: domain.kind)
def test_domains_are_remade_from_their_state(domain: Domain) -> None:
    again = from_state(domain.state())
    x = np.array([[0.3, 0.2]]) if domain.dimensions == 2 else np.array([[0.6, 0.0, 0.8]])
    np.testing.assert_allclose(again.harmonics(9).values(x), domain.harmonics(9).values(x), atol=1e-10)


def test_mistakes_are_reported_in_a_sentence() -> None:
    with pytest.raises(UserError, match="upper limits"):
        Box([0], [0], ["walled"])
    with pytest.raises(UserError, match="boundary is 'slip'"):
        BOXES[0].harmonics(4, "slip")
    with pytest.raises(UserError, match="indices of nodes"):
        Region(np.zeros((3, 2)), np.array([[0, 1, 7]]))
    with pytest.raises(UserError, match="points have shape"):
        BOXES[0].inside(np.zeros((3, 2)))


def test_all_harmonics_that_a_grid_tells_apart_are_orthogonal_on_it():
    x, y = np.arange(12) / 12 * 3.0, (np.arange(5) + 0.5) / 5
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    box = Box([0, 0], [3, 1], ["periodic", "walled"]).resolved_by_grid(grid)
    harmonics = box.harmonics(1000)
    table = harmonics.values(grid)
    assert harmonics.count == 11 * 5 and box.harmonics(20).count <= 20
    np.testing.assert_allclose(table.T @ table / len(grid), np.eye(55), atol=1e-12)
    again = from_state(box.state())
    np.testing.assert_allclose(again.harmonics(1000).eigenvalues, harmonics.eigenvalues)
    assert Box([0, 0], [3, 1], ["periodic", "walled"]).resolved_by_grid(grid[1:]) is None


def test_harmonics_of_channels_obey_the_conditions_of_their_own_at_each_wall() -> None:
    box = Box([0.0, -1.0], [1.0, 1.0], ["walled", "walled"])
    boundary = "natural, held/natural, natural-held/held"
    harmonics = box.harmonics(60, boundary)
    assert box.harmonics(harmonics.count, boundary).count == harmonics.count
    rule, allowed = harmonics.quadrature(2), harmonics.allowed
    assert allowed is not None
    for own in allowed:
        table = rule.values[:, own]
        np.testing.assert_allclose(table.T @ (rule.weights[:, None] * table), np.eye(own.sum()), atol=1e-12)
    left, right = np.array([[0.0, 0.3]]), np.array([[1.0, 0.3]])
    assert np.abs(harmonics.values(np.concatenate([left, right]))[:, allowed[1]]).max() < 1e-12
    assert np.abs(harmonics.gradients(np.concatenate([left, right]))[:, allowed[0], 0]).max() < 1e-12
    assert np.abs(harmonics.values(right)[:, allowed[2]]).max() < 1e-12
    assert np.abs(harmonics.gradients(left)[:, allowed[2], 0]).max() < 1e-12
    with pytest.raises(UserError, match="3 axes; the box has 2"):
        box.harmonics(9, "held/held/held, natural")
    with pytest.raises(UserError, match="'free'"):
        box.harmonics(9, "free-held")


def test_harmonics_of_channels_that_a_grid_tells_apart_are_orthogonal_on_it() -> None:
    x = np.stack(np.meshgrid((np.arange(6) + 0.5) / 6, (np.arange(5) + 0.5) / 5, indexing="ij"), -1).reshape(-1, 2)
    grid = Box([0.0, 0.0], [1.0, 1.0], ["walled", "walled"]).resolved_by_grid(x)
    assert grid is not None
    harmonics = grid.harmonics(90, "natural, held/natural, natural-held/held")
    assert harmonics.allowed is not None
    for own in harmonics.allowed:
        table = harmonics.values(x)[:, own]
        assert own.sum() == len(x) and np.linalg.matrix_rank(table) == len(x)


@pytest.mark.parametrize("count", [60, 100, 300, 600])
def test_scattered_points_of_a_rectangle_are_of_a_box_and_those_of_a_disc_or_an_l_are_not(count):
    def of(inside, seed):
        x = np.random.default_rng(seed).uniform(size=(4 * count, 2))
        return domains_of(x[inside(x)][:count] * [2.0, 1.5])[0]

    boxes = [of(lambda x: x[:, 0] >= 0, seed) for seed in range(4)]
    assert sum(isinstance(one, Box) for one in boxes) >= 3
    others = [of(lambda x: ((x - 0.5) ** 2).sum(1) < 0.25, seed) for seed in range(4)]
    others += [of(lambda x: (x < 0.5).any(1), seed) for seed in range(4)]
    assert sum(isinstance(one, Box) for one in others) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_points_of_uneven_density_are_of_a_box_where_its_corners_and_middle_are_no_emptier_than_they_are_dense(seed: int
                                                                                                            ) -> None:
    generator = np.random.default_rng(seed)
    x = generator.uniform(0, 1, (20_000, 2))
    x = x[generator.uniform(size=len(x)) < np.exp(-3 * x[:, 0]) + 0.5 * np.exp(-60 * ((x - 0.7) ** 2).sum(1))]
    assert isinstance(domains_of(x[:600])[0], Box)
    for within in (np.hypot(*(x - 0.5).T) < 0.5, (x < 0.5).any(1), np.hypot(*(x - [0.45, 0.5]).T) > 0.2):
        assert isinstance(domains_of(x[within][:600])[0], Region)


def test_meshes_between_random_points_reach_as_far_as_the_domain_and_meshes_that_are_given_stay() -> None:
    random = np.random.default_rng(0)
    for d, measure in ((2, np.pi), (3, 4 / 3 * np.pi)):
        points = random.uniform(-1, 1, (1200, d))
        points = points[np.linalg.norm(points, axis=1) < 1][:300]
        nodes, cells = triangulate(points)
        moved = widened(nodes, cells)
        assert moved is not None
        before, after = (Region(one, cells, 1) for one in (nodes, moved))
        assert abs(after.measure - measure) < 0.5 * abs(before.measure - measure)
        volumes = [np.linalg.det(one[cells[:, 1:]] - one[cells[:, :1]]) for one in (nodes, moved)]
        assert (volumes[0] * volumes[1] > 0).all()  # no cell turns over
    mesh, grid = _disc(3), np.stack(np.meshgrid(*[np.arange(9.0)] * 2), -1).reshape(-1, 2)
    assert widened(mesh.nodes, mesh.cells) is None
    assert widened(*triangulate(grid[(grid < 5).any(1)])) is None


def test_meshes_between_the_points_of_many_trajectories_have_few_nodes_and_the_outline_of_all() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (24, 400, 2))
    ring = np.hypot(*np.moveaxis(x, -1, 0))
    x = x[(ring < 1) & (ring > 0.4)][: 24 * 240].reshape(24, 240, 2)
    for one in domains_of(x)[:2]:
        assert isinstance(one, Region) and len(one.nodes) < 1700
        assert one.measure == pytest.approx(0.84 * np.pi, rel=0.05)
    assert len(domains_of(x[:1])[0].nodes) == 240  # type: ignore[attr-defined]


@pytest.mark.parametrize("d", [2, 3])
def test_small_holes_of_a_lattice_are_holes_and_points_missing_by_chance_are_none(d: int) -> None:
    axis = (np.arange(40 if d == 2 else 14) + 0.5) / (40 if d == 2 else 14)
    x, centre = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d), np.full(d, 0.4)
    hole = np.linalg.norm(x - centre, axis=1) < (0.12 if d == 2 else 0.22)
    places = domains_of(x[~hole])
    assert hole.mean() < 0.07 and isinstance(places[0], Region) and isinstance(places[-1], Box)
    size = np.pi * 0.12**2 if d == 2 else 4 / 3 * np.pi * 0.22**3
    if d == 2:  # first the cells around the points
        assert places[0].measure == pytest.approx(1 - hole.mean(), rel=1e-9)
    assert places[-4].measure == pytest.approx(np.ptp(axis) ** d - size, rel=0.03)  # then what lies between them
    assert places[0].distance(centre[None])[0] > 0.08
    kept = np.random.default_rng(0).permutation(len(x))[: len(x) * 2 // 3]
    assert all(isinstance(place, Box) for place in domains_of(x[kept]))


@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e9])
@pytest.mark.parametrize("hole", [False, True])
def test_domains_do_not_depend_on_the_unit_of_length(unit, hole):
    x = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / 24 for n in (24, 18)), indexing="ij"), -1).reshape(-1, 2)
    x = x[(np.abs(x - 0.4) > 0.12).any(1)] if hole else x
    usual, scaled = domains_of(x), domains_of(unit * x)
    assert [type(one) for one in scaled] == [type(one) for one in usual]
    assert isinstance(usual[0], Region if hole else Box)
    for one, other in zip(usual, scaled, strict=True):
        if isinstance(one, Box):
            np.testing.assert_allclose(np.stack([other.lower, other.upper]) / unit, [one.lower, one.upper], atol=1e-9)
        else:
            np.testing.assert_allclose(np.sort(other.nodes / unit, 0), np.sort(one.nodes, 0), atol=1e-9)


def test_quadratic_elements_of_very_fine_meshes_lie_on_coarser_ones_of_the_same_outline(monkeypatch) -> None:
    points, cells = grid_mesh(np.linspace(0, 1, 41), np.linspace(0, 1, 41))
    x, y = points[cells].mean(1).T
    slit = (abs(x - 0.25) < 0.1) & (abs(y - 0.25) < 0.02)
    cells = cells[~((x > 0.5) & (y > 0.5)) & ~slit]
    whole = domains_of(points, cells=cells)[1]
    monkeypatch.setattr("inrflow.domains.infer._MOST_OF_MESH", 800)
    coarse = domains_of(points, cells=cells)[1]
    assert len(coarse.nodes) < 0.5 * len(whole.nodes) and coarse.order == 2
    assert coarse.measure == pytest.approx(whole.measure)
    one, other = (place.harmonics(40).eigenvalues for place in (coarse, whole))
    np.testing.assert_allclose(one[1:], other[1:], rtol=5e-3)  # corners that turn in
