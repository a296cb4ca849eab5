"""How points are drawn: every value in its place, gaps left open, maps in one piece."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.tri import LinearTriInterpolator, Triangulation
from scipy.spatial import Delaunay
from small_fields import POINTS, sphere_points, square

from inrflow.data.formats.sphere import lonlat_to_xyz
from inrflow.plotting import Scene
from inrflow.plotting.style import moment_label, palette
from inrflow.plotting.views import View, degrees, view_of


def test_a_grid_with_gaps_puts_every_value_into_its_own_cell():
    """Shuffled points of a lattice of which some points, and one whole column, lack."""
    random = np.random.default_rng(0)
    x = square(8) * [2.0, 3.0] + 1e-7 * random.random((64, 2))
    column, row = np.divmod(np.arange(64), 8)
    kept = random.permutation(np.nonzero((column != 3) & (np.arange(64) % 11 != 5))[0])
    view = view_of(x[kept], ("x", "y"), None, None)
    assert view.kind == "image"
    drawn = view.draw(Figure().subplots(), kept.astype(float), *palette(kept.astype(float)))
    image = np.ma.asarray(drawn.get_array()).reshape(8, 8).filled(-1.0)
    expected = np.full((8, 8), -1.0)
    expected[row[kept], column[kept]] = kept
    np.testing.assert_array_equal(image, expected)


def test_staggered_rows_are_not_drawn_as_a_grid_with_gaps():
    column, row = np.divmod(np.arange(14 * 15), 15)
    staggered = np.stack([column + 0.5 * (row % 2), row * 0.75**0.5], -1)
    assert view_of(staggered, ("x", "y"), None, None).kind == "triangles"


def test_an_uneven_tensor_grid_is_an_image_and_scattered_points_are_not():
    axis = np.array([0.0, 0.1, 0.3, 0.7, 1.5])
    uneven = np.stack(np.meshgrid(axis, axis**2, indexing="ij"), -1).reshape(-1, 2)
    assert view_of(uneven, ("x", "y"), None, None).kind == "image"
    assert view_of(POINTS["scattered"][0], ("x", "y"), None, None).kind == "triangles"
    assert view_of(POINTS["stations"][0], ("x", "y"), None, None).kind == "scatter"
    assert view_of(uneven, ("x", "y"), None, np.array([[0, 1, 5]])).triangles.shape == (1, 3)


@pytest.mark.parametrize(("names", "across", "along"), [
    (("y", "x"), "x", "y"), (("lat", "lon"), "lon", "lat"), (("z", "x"), "x", "z"), (("z", "y", "x"), "x", "y"),
    (("b", "a"), "b", "a"), (("x", "y"), "x", "y")])
def test_x_is_drawn_across_and_y_along_in_whatever_order_they_are_stored(names, across, along):
    axes = np.meshgrid(*[np.linspace(0, 1 + place, 4 + place) for place in range(len(names))], indexing="ij")
    x = np.stack([one.ravel() for one in axes], -1)
    scene = Scene(np.zeros(1), x, x[None, :, [names.index(along)]], ("u",), coordinates=names, sensors=x[:3])
    view = scene.channel(0).view(0)
    assert view.labels[0].split()[0] == across and view.labels[1] == along
    own = x if view.shown is None else x[view.shown]
    np.testing.assert_array_equal(view.x, own[:, [names.index(across), names.index(along)]])
    np.testing.assert_array_equal(scene.sensors, x[:3][:, [names.index(name) for name in scene.coordinates]])


def area(x, triangles):
    a, b = x[triangles[:, 1]] - x[triangles[:, 0]], x[triangles[:, 2]] - x[triangles[:, 0]]
    return 0.5 * np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()


def test_triangles_leave_a_hole_open_and_cover_the_rest():
    ring = [
        radius * np.stack([np.cos(angle), np.sin(angle)], -1)
        for radius in np.linspace(0.5, 1.5, 11)
        for angle in [np.linspace(0, 2 * np.pi, int(60 * radius), endpoint=False) + radius]
    ]
    x = np.concatenate(ring)
    triangles = view_of(x, ("x", "y"), None, None).triangles
    assert np.linalg.norm(x[triangles].mean(1), axis=1).min() > 0.45
    assert area(x, triangles) == pytest.approx(np.pi * (1.5**2 - 0.5**2), rel=0.02)


def test_triangles_with_unknown_corners_are_left_out():
    x = square(4)
    view = View("triangles", x, ("x", "y"), triangles=Delaunay(x + 0.01 * np.sin(7 * x[:, ::-1])).simplices)
    values = np.arange(16.0)
    values[5] = np.nan
    drawn = view.draw(Figure().subplots(), values, *palette(values))
    assert np.isfinite(drawn.get_array()).all()
    shown = drawn._triangulation.triangles
    assert len(shown) and 5 not in shown and len(shown) == (~(view.triangles == 5).any(1)).sum()


def test_a_map_is_cut_where_no_points_are():
    view = view_of(sphere_points(), ("x", "y", "z"), "sphere", None)
    assert view.kind == "image" and view.longitude
    assert np.ptp(view.x[:, 0]) == pytest.approx(60.0)  # 150 E to 150 W, in one piece
    assert [degrees(value, "E", "W") for value in (150.0, 180.0, 210.0, 360.0)] == ["150°E", "180°", "150°W", "0°"]


def test_points_in_space_are_drawn_as_the_plane_through_their_middle_with_its_own_values():
    axis = np.arange(6) / 6
    x = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    view = view_of(x, ("x", "y", "z"), None, None)
    assert view.kind == "image" and len(view.x) == 36 and "z = 0." in view.labels[0]
    drawn = view.draw(Figure().subplots(), x[:, 2], *palette(x[:, 2]))
    assert np.unique(drawn.get_array()).size == 1
    cloud = view_of(np.random.default_rng(0).random((80, 3)), ("x", "y", "z"), None, None)
    assert len(cloud.x) == 20 and cloud.shown is not None


@pytest.mark.parametrize("x", [np.zeros((1, 2)), np.stack([np.arange(12.0), np.zeros(12)], -1)])
def test_one_point_and_points_on_a_line_have_room_around_them(x, recwarn):
    ax = Figure().subplots()
    view = view_of(x, ("x", "y"), None, None)
    view.draw(ax, np.ones(len(x)), *palette(np.ones(len(x))))
    view.format_axes(ax, bottom=True, left=True)
    assert ax.get_ylim()[0] < 0 < ax.get_ylim()[1] and not recwarn.list


def test_labels_tell_times_apart_however_large_they_are():
    assert moment_label(0.25, None, 0.25) == "t = 0.25"
    assert moment_label(1_700_000_900.0, "s", 900.0) == "t = 1700000900 s"
    assert moment_label(1234.56, None, 0.01) == "t = 1234.56"


def test_the_edges_of_a_mesh_are_drawn_where_they_are_asked_for():
    x = POINTS["scattered"][0]
    for edges in (False, True):
        ax = Figure().subplots()
        View("triangles", x, ("x", "y"), triangles=Delaunay(x).simplices, edges=edges).draw(
            ax, np.ones(len(x)), *palette(np.ones(len(x))))
        assert bool(ax.lines) == edges


def test_surfaces_are_drawn_from_above():
    x = np.array([[0, 0, 0.0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]])
    view = view_of(x, ("x", "y", "z"), None, np.array([[3, 4, 5], [0, 1, 2]]))
    assert view.kind == "triangles" and view.triangles.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert view.labels == ("x  (seen along z)", "y")


def test_stations_at_different_heights_are_all_drawn_on_their_map():
    random = np.random.default_rng(0)
    x = np.column_stack([random.uniform(6, 10, 14), random.uniform(46, 48, 14), random.uniform(300, 1800, 14)])
    view = view_of(x, ("lon", "lat", "elevation"), None, None)
    assert view.shown is None and view.kind == "scatter" and view.labels == ("lon", "lat")
    np.testing.assert_array_equal(view.x, x[:, :2])
    profiles = np.concatenate([x + [0, 0, height] for height in (0, 10, 20)])  # one hides another
    assert view_of(profiles, ("lon", "lat", "elevation"), None, None).shown is not None


def test_two_stations_are_dots_and_no_half_empty_grid():
    assert view_of(np.array([[8.0, 47.0], [8.5, 47.2]]), ("x", "y"), None, None).kind == "scatter"
    assert view_of(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), ("x", "y"), None, None).kind == "image"


def test_triangles_cover_the_whole_map_of_a_globe_with_values_of_its_points():
    index = np.arange(200) + 0.5
    lon, lat = np.degrees(np.pi * (1 + 5**0.5) * index), np.degrees(np.arcsin(1 - index / 100))
    x = lonlat_to_xyz(lon, lat)
    view = view_of(x, ("x", "y", "z"), "sphere", None)
    values = x[view.shown] @ [1.0, 0.5, 2.0]
    finder = LinearTriInterpolator(Triangulation(*view.x.T, view.triangles), values)
    places = np.array([[-180.0, 10], [180, 10], [0, 90], [40, -90], [-179, 80], [170, -85]])
    np.testing.assert_allclose(finder(*places.T).filled(np.nan), lonlat_to_xyz(*places.T) @ [1.0, 0.5, 2.0], atol=0.2)
    ax = Figure().subplots()
    view.draw(ax, x[:, 0], *palette(x[:, 0]))
    view.format_axes(ax, True, True)
    assert ax.get_xlim() == (-180, 180) and ax.get_ylim() == (-90, 90)
    band = view_of(x[np.abs(x[:, 2]) < 0.7], ("x", "y", "z"), "sphere", None)
    assert band.reach is not None and np.abs(band.reach[0][1]) < 50  # nothing is made up beyond the points
