"""One law of trajectories on shapes of their own: diffusion and growth, exact on the modes of each shape."""

import numpy as np
import pytest
import skfem

from inrflow.domains import Region, shapes
from inrflow.dynamics.fitting.shape_law import fit_law_on_shapes
from inrflow.dynamics.laws import Systems
from inrflow.dynamics.laws.setting import Data

DIFFUSIVITY, GROWTH = 0.02, 0.3
TIMES = np.linspace(0.0, 1.0, 8)


def region(width: float, height: float) -> Region:
    mesh = skfem.MeshTri.init_tensor(np.linspace(0, width, 11), np.linspace(0, height, 11))
    return Region(mesh.p.T, mesh.t.T, 1)


def paths(place: Region, count: int, seed: int) -> Data:
    """Fields u_t = .02 lap u + .3 u on the nodes of a region, of its lowest harmonics."""
    harmonics = place.harmonics(12)
    start = np.random.default_rng(seed).standard_normal((count, 12)) / (1 + np.arange(12))
    rates = GROWTH - DIFFUSIVITY * harmonics.eigenvalues
    u = (start[:, None] * np.exp(TIMES[:, None] * rates)) @ harmonics.values(place.nodes).T
    return Data(np.tile(TIMES, (count, 1)), np.tile(place.nodes, (count, 1, 1)), u[..., None],
                Systems(np.zeros(count, dtype=int)))


@pytest.mark.filterwarnings("ignore")
def test_a_law_is_found_from_one_trajectory_on_each_of_several_shapes():
    places = [region(1.0, 1.0), region(1.6, 0.7), region(0.8, 1.4), region(1.2, 0.9)]
    data = [paths(place, 2 if i == 0 else 1, i) for i, place in enumerate(places[:3])]
    nothing = data[0].take(np.arange(0))
    laws, error = fit_law_on_shapes([*data, nothing], [[place] for place in places], [None, None, None,
                                    paths(places[3], 1, 9)], seconds=20, seed=0, log=lambda line: None)
    assert error < 1e-5 and [law.domain for law in laws] == places
    for law in laws:
        found = {term.written(["u"], ["x", "y"]): value for term, value in zip(law.terms, law.theta[:, 0], strict=True)}
        assert found == pytest.approx({"u": GROWTH, "lap u": DIFFUSIVITY}, rel=1e-3)


def ring(hole: tuple[float, float], seed: int) -> np.ndarray:
    """400 points in the unit box outside of a hole of radius .22."""
    x = np.random.default_rng(seed).uniform(size=(900, 2))
    return x[np.linalg.norm(x - hole, axis=1) > 0.22][:400]


def test_points_that_outline_other_holes_are_other_shapes_and_other_points_of_one_region_are_not():
    one = np.stack([ring((0.3, 0.3), seed) for seed in range(3)])
    assert [len(group) for group in shapes(one)] == [3]
    assert len(shapes(np.stack([ring((0.3, 0.3), 0), ring((0.7, 0.6), 1), ring((0.7, 0.6), 2)]))) == 3


@pytest.mark.parametrize(("points", "sides"), [(60, 1.0), (150, 1.0), (400, 1.0), (150, 2.0), (60, None), (400, None)])
def test_sensors_strewn_anew_in_every_trajectory_are_on_one_shape(points: int, sides: float | None):
    draw = np.random.default_rng(points)
    x = draw.uniform(size=(8, 4 * points, 2 if sides else 3)) * (sides or 1.0)
    if sides == 1.0:  # a disc
        x = np.stack([one[np.linalg.norm(one - 0.5, axis=1) < 0.5][:points] for one in x])
    assert [len(group) for group in shapes(x[:, :points])] == [8]


def test_strewn_sensors_tell_outlines_apart():
    draw = np.random.default_rng(0)
    assert len(shapes(np.stack([draw.uniform(size=(60, 2)) * [wide, 1 / wide] for wide in (0.7, 1.0, 1.4)]))) == 3
