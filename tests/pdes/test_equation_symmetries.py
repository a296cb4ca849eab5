"""Every declared symmetry of every equation, on the solver: to move a field and solve is to solve and move the field.
"""

import numpy as np
import pytest
import torch

from inrflow.pdes.equation import Transformation
from inrflow.pdes.equations import EQUATIONS, find_equation
from inrflow.pdes.solver import solve
from inrflow.pdes.spectral import SpectralGrid

CASES = [(name, dimensions) for name, equation in EQUATIONS.items() for dimensions in equation.dimensions]
SIZES = {1: 48, 2: 24, 3: 12}
# Times over which solutions change much and stay smooth on few points.
TIMES = {"heat": 0.5, "advection": 0.5, "burgers": 0.1, "kuramoto_sivashinsky": 0.5, "wave": 2.0, "gray_scott": 20.0}


def moved(grid: SpectralGrid, coefficients: torch.Tensor, space: np.ndarray, values: np.ndarray) -> torch.Tensor:
    """Coefficients of the field u' with u'(A x + b) = Q u(x), by exact evaluation of u at A^-1 (y - b)."""
    d = grid.dimensions
    sources = np.linalg.solve(space[:, :d], (grid.points().numpy() - space[:, d]).T).T
    field = grid.evaluate(coefficients, torch.from_numpy(sources)) @ torch.from_numpy(values).T
    return grid.transform(field.transpose(1, 2).reshape(coefficients.shape[:2] + grid.shape))


def start(equation, grid, rng, count):
    """`count` random fields without any symmetry, of the modes that the solver keeps."""
    fields = torch.stack([equation.initial(grid, rng) for _ in range(count)])
    second = equation.initial(grid, rng)
    return (fields + 0.3 * second.flip(0)) * grid.mask(equation.degree)


def random_parameters(equation, dimensions, rng, count):
    return {
        name: torch.from_numpy(rng.uniform(one.low, one.high, count))
        for name, one in equation.parameters(dimensions).items()
    }


def compare(name, dimensions, transformations, seed=0):
    """For each transformation the largest difference between the two ways, and how much solving and moving change a
    field.

    All fields are solved in one batch, with the same time steps: what differs is not the error in time.
    """
    equation, rng = find_equation(name), np.random.default_rng(seed)
    period = next(iter(equation.protocols.values())).period
    grid = SpectralGrid(SIZES[dimensions], (period,) * dimensions)
    fields = start(equation, grid, rng, 2)
    parameters = random_parameters(equation, dimensions, rng, 2)
    everything = torch.cat([fields, *(moved(grid, fields, one.space, one.values) for one in transformations)])
    repeated = {key: value.repeat(1 + len(transformations)) for key, value in parameters.items()}
    times = torch.tensor([TIMES.get(name, 1.0)], dtype=torch.float64)
    solved = next(solve(equation, grid, everything, times, repeated, tolerance=1e-6))

    def size(coefficients):
        return float(grid.inverse(coefficients).abs().max())

    scale = size(solved[:2])
    change = size(solved[:2] - fields) / scale
    for number, one in enumerate(transformations):
        rows = slice(2 * number + 2, 2 * number + 4)
        difference = size(solved[rows] - moved(grid, solved[:2], one.space, one.values)) / scale
        yield one.name, difference, change, size(everything[rows] - fields) / scale


def declared(name, dimensions):
    equation = find_equation(name)
    period = next(iter(equation.protocols.values())).period
    symmetries = equation.symmetries((period,) * dimensions)
    for number, one in enumerate(symmetries.generators):
        augmented = np.zeros((dimensions + 1, dimensions + 1))
        augmented[:dimensions] = (0.37 + 0.11 * number) * period * one.space
        finite = torch.linalg.matrix_exp(torch.from_numpy(augmented)).numpy()[:dimensions]
        turned = torch.linalg.matrix_exp(torch.from_numpy(one.values)).numpy()
        yield Transformation(one.name, finite, turned)
    yield from symmetries.maps


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_declared_symmetries_commute_with_the_solver(name, dimensions):
    transformations = list(declared(name, dimensions))
    assert len(transformations) >= (3 if name == "navier_stokes" else dimensions)
    for label, difference, change, movement in compare(name, dimensions, transformations):
        assert difference < 1e-9, (label, difference)
        assert change > 1e-2 and movement > 1e-2, (label, change, movement)


@pytest.mark.parametrize(
    ("name", "dimensions", "space", "values"),
    [
        ("navier_stokes", 2, [[0, 1, 0.25], [1, 0, 0.25]], [[1.0]]),  # exchange without the sign of vorticity
        ("navier_stokes", 2, [[0, 1, 0.0], [1, 0, 0.0]], [[-1.0]]),  # exchange without the shift
        ("navier_stokes", 2, [[-1, 0, 0.0], [0, -1, 0.0]], [[1.0]]),  # half turn about the origin
        ("navier_stokes", 2, [[1, 0, 0.1], [0, 1, 0.1]], [[1.0]]),  # translation across the force
        ("burgers", 1, [[-1, 0.0]], [[1.0]]),  # reflection without the sign of the velocity
        ("kuramoto_sivashinsky", 1, [[-1, 0.0]], [[1.0]]),
        ("advection", 1, [[-1, 0.0]], [[1.0]]),
        ("gray_scott", 2, [[1, 0, 0], [0, 1, 0]], [[0.0, 1.0], [1.0, 0.0]]),  # exchange of the species
    ],
)
def test_what_is_not_declared_does_not_commute(name, dimensions, space, values):
    """The check above can fail: transformations close to the declared ones are found out."""
    wrong = Transformation("wrong", np.array(space, float), np.array(values))
    [(_, difference, _, _)] = compare(name, dimensions, [wrong])
    assert difference > 1e-3


def test_exchanges_need_equal_periods():
    names = {one.name for one in find_equation("heat").symmetries((1.0, 2.0, 1.0)).maps}
    assert names == {"reflection_x", "reflection_y", "reflection_z", "exchange_xz"}


def test_arrays_have_the_shapes_of_the_schema():
    for name, dimensions in CASES:
        equation = find_equation(name)
        channels = len(equation.channels(dimensions))
        arrays = equation.symmetries((1.0,) * dimensions).arrays()
        generators, maps = len(arrays["generators"]), len(arrays["maps"])
        assert arrays["generators"].shape == (generators, dimensions, dimensions + 1)
        assert arrays["generators_channels"].shape == (generators, channels, channels)
        assert arrays["maps"].shape == (maps, dimensions, dimensions + 1)
        assert arrays["maps_channels"].shape == (maps, channels, channels)
        assert len(set(arrays["names"])) == generators + maps
