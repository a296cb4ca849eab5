"""Harmonics at observed points: the same codes by tables and axis by axis."""

import numpy as np
import pytest

from inrflow.domains import Box
from inrflow.encoding.harmonic.grid_design import GridDesign, grid_design
from inrflow.encoding.harmonic_codes import TableDesign, design_of, enough, fit_codes, white_noise

N = 12


def grid(*axes: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def even(count: int, shift: float = 0.0) -> np.ndarray:
    return (np.arange(count) + shift) / count


@pytest.mark.parametrize("axes, shift", [(("periodic", "periodic"), 0.0), (("periodic", "walled"), 0.5)])
def test_codes_of_a_grid_are_those_of_its_table(axes, shift):
    rng = np.random.default_rng(0)
    x = grid(even(N), even(N - 3, shift))[rng.permutation(N * (N - 3))]
    harmonics = Box([0, 0], [1, 1], list(axes)).harmonics(40)
    design, table = grid_design(harmonics, x), TableDesign(harmonics.values(x))
    assert isinstance(design, GridDesign)
    codes, values = rng.normal(size=(3, harmonics.count)), rng.normal(size=(3, len(x)))
    np.testing.assert_allclose(design.fields(codes), codes @ table.table.T, atol=1e-12)
    np.testing.assert_allclose(design.solved(values), np.linalg.lstsq(table.table, values.T, rcond=None)[0], atol=1e-12)
    project, s, turn, _ = design.factors(np.ones(harmonics.count))
    onto, sizes, back, _ = table.factors(np.ones(harmonics.count))
    np.testing.assert_allclose(turn(project(values) / s), back(onto(values) / sizes), atol=1e-9)
    np.testing.assert_allclose(design.table, table.table, atol=1e-12)


def test_a_grid_in_single_precision_is_even_and_other_points_have_tables():
    box = Box([0, 0], [2 * np.pi] * 2, ["periodic"] * 2)
    x = (2 * np.pi * grid(even(N), even(N))).astype(np.float32).astype(float)
    assert isinstance(design_of(box.harmonics(60), x), GridDesign)
    x[0, 0] += 1e-3
    assert isinstance(design_of(box.harmonics(60), x), TableDesign)
    walls = Box([0, 0], [1, 1], ["walled"] * 2)  # cosines on points of which one wall has some are not orthogonal
    assert isinstance(design_of(walls.harmonics(20), grid(np.linspace(0, 1, 6), np.linspace(0, 0.9, 6))), TableDesign)


@pytest.mark.parametrize("boundary", ["natural", "held", "natural-held"])
def test_codes_of_points_from_wall_to_wall_are_those_of_the_trapezoidal_rule(boundary):
    rng, nodes = np.random.default_rng(0), np.linspace(0, 1, N)
    x = grid(even(N - 3), nodes).astype(np.float32).astype(float)[rng.permutation(N * (N - 3))]
    box = Box([0, 0], [1, 1], ["periodic", "walled"]).resolved_by_grid(x, boundary)
    harmonics = box.harmonics(N**2, boundary)
    assert harmonics.count == (N - 3) * (N - ["natural", "natural-held", "held"].index(boundary))
    design, table = grid_design(harmonics, x), harmonics.values(x)
    assert isinstance(design, GridDesign)
    root = np.where((x[:, 1] < 1e-6) | (x[:, 1] > 1 - 1e-6), np.sqrt(0.5), 1.0)
    values = rng.normal(size=(3, len(x)))
    expected = np.linalg.lstsq(table * root[:, None], (values * root).T, rcond=None)[0]
    np.testing.assert_allclose(design.solved(values), expected, atol=1e-6)
    project, s, turn, _ = design.factors(np.ones(harmonics.count))
    np.testing.assert_allclose(turn(project(design.weighted(values)) / s).T, expected, atol=1e-6)


def test_noise_of_values_from_wall_to_wall_is_that_of_the_values():
    rng, x = np.random.default_rng(0), grid(np.linspace(0, 1, 33), np.linspace(0, 1, 33))
    harmonics = Box([0, 0], [1, 1], ["walled"] * 2).harmonics(60)
    codes = rng.normal(size=(20, 3, harmonics.count))
    u = (codes @ harmonics.values(x).T)[..., None]
    noisy = u + 0.3 * rng.normal(size=u.shape)
    at = np.broadcast_to(x, (20, *x.shape))
    assert white_noise(fit_codes(harmonics, at, noisy), at, noisy)[0] == pytest.approx(0.09, rel=0.02)
    clean = fit_codes(harmonics, at, u)
    np.testing.assert_allclose(clean.encode(x, u)[0][..., 0, :], codes, atol=1e-6)
    assert white_noise(clean, at, u)[0] == 0


def test_as_many_harmonics_as_leave_a_share_of_a_spectrum_beside_noise():
    rng, box, x = np.random.default_rng(0), Box([0, 0], [1, 1], ["periodic"] * 2), grid(even(21), even(21))
    harmonics = box.resolved_by_grid(x).harmonics(21**2)
    codes = rng.normal(size=(6, 4, harmonics.count)) * np.sqrt(0.9 ** np.arange(harmonics.count))
    u = (codes @ harmonics.values(x).T)[..., None]
    left = 0.9 ** np.arange(harmonics.count)
    for noise in (0.0, 0.3):
        seen = u + noise * rng.normal(size=u.shape)
        count, rest = enough(harmonics, x, seen, 0.01, 10**6)
        assert abs(count - np.argmax(left < 0.01)) < 12 and rest < 0.01
        assert enough(harmonics, x, seen, 0.01, 20)[0] == 20
    seen[0, 0, 0] = np.nan
    assert enough(harmonics, x, seen, 0.01, 20) is None
    assert fit_codes(box.harmonics(25), np.broadcast_to(x, (6, *x.shape)), u).mean.shape == (1, 25)
