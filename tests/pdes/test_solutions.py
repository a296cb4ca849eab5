"""Solved equations against closed forms, and against scipy's integrators on dense differentiation matrices."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from inrflow.pdes.equations import find_equation
from inrflow.pdes.exponential import ExponentialIntegrator
from inrflow.pdes.solver import solve
from inrflow.pdes.spectral import SpectralGrid


def solved(name, grid, fields, times, tolerance=1e-10, **parameters):
    """Values (S, T, C, n^d) at `times` from values (S, C, n, ..., n); a parameter is a number or one for each
    trajectory.
    """
    equation = find_equation(name)
    count = len(fields)
    defaults = {key: one.default for key, one in equation.parameters(grid.dimensions).items()}
    given = {**defaults, **parameters}
    filled = {key: torch.as_tensor(value, dtype=torch.float64).expand(count) for key, value in given.items()}
    times = torch.as_tensor(times, dtype=torch.float64)
    frames = solve(equation, grid, grid.transform(fields), times, filled, tolerance=tolerance)
    return torch.stack([grid.inverse(frame).flatten(2) for frame in frames], dim=1)


def coordinates(grid):
    return grid.points().reshape(*grid.shape, grid.dimensions).unbind(-1)


def test_heat_modes_decay_at_their_own_rates():
    grid = SpectralGrid(16, (1.0, 2.0))
    x, y = coordinates(grid)
    k, rates = (2 * math.pi * 3, 2 * math.pi * 2 / 2.0), torch.tensor([0.01, 0.03], dtype=torch.float64)
    mode = torch.sin(k[0] * x) * torch.cos(k[1] * y)
    frames = solved("heat", grid, (2.0 + mode).expand(2, 1, 16, 16), [0.3, 1.1], diffusivity=rates)
    for row, rate in enumerate(rates):
        for column, t in enumerate((0.3, 1.1)):
            expected = 2 + math.exp(-float(rate) * (k[0] ** 2 + k[1] ** 2) * t) * mode
            torch.testing.assert_close(frames[row, column, 0], expected.flatten(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_advection_carries_fields_unchanged(dimensions):
    grid = SpectralGrid(16, (1.0, 2.0, 0.5)[:dimensions])
    velocity = [torch.tensor([0.3, -1.0]), torch.tensor([-0.7, 0.2]), torch.tensor([0.1, 0.4])][:dimensions]

    def field(*where):
        pairs = zip(where, grid.period, strict=True)
        phases = [2 * math.pi * (axis + 2) * x / length for axis, (x, length) in enumerate(pairs)]
        return torch.sin(sum(phases)) + torch.cos(phases[0])

    start = field(*coordinates(grid)).expand(2, 1, *grid.shape)
    parameters = {f"velocity_{axis}": v for axis, v in zip("xyz"[:dimensions], velocity, strict=True)}
    frames = solved("advection", grid, start, [0.77], **parameters)
    for row in range(2):
        moved = [x - float(v[row]) * 0.77 for x, v in zip(coordinates(grid), velocity, strict=True)]
        torch.testing.assert_close(frames[row, 0, 0], field(*moved).flatten(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_standing_waves_swing_at_their_frequencies(dimensions):
    grid = SpectralGrid(12, (1.0, 2.0, 0.5)[:dimensions])
    speeds = torch.tensor([0.5, 1.5], dtype=torch.float64)
    k = [2 * math.pi * (axis + 1) / length for axis, length in enumerate(grid.period)]
    mode = torch.ones(())
    for wavenumber, x in zip(k, coordinates(grid), strict=True):
        mode = mode * torch.cos(wavenumber * x + 0.3)
    # The mean drifts at its own constant velocity: the one mode that does not swing.
    start = torch.stack([1.0 + mode, torch.full_like(mode, 0.25)]).expand(2, 2, *grid.shape)
    frames = solved("wave", grid, start, [0.4, 2.9], speed=speeds)
    for row, speed in enumerate(speeds):
        frequency = float(speed) * math.sqrt(sum(w**2 for w in k))
        for column, t in enumerate((0.4, 2.9)):
            u = 1 + 0.25 * t + math.cos(frequency * t) * mode
            v = 0.25 - frequency * math.sin(frequency * t) * mode
            expected = torch.stack([u.flatten(), v.flatten()])
            torch.testing.assert_close(frames[row, column], expected, rtol=0, atol=1e-12 * max(1.0, frequency))


@pytest.mark.parametrize("dimensions", [1, 2])
def test_burgers_follows_cole_and_hopf(dimensions):
    """u = -2 viscosity grad log p is a solution where p solves the heat equation."""
    grid = SpectralGrid(64, (1.0,) * dimensions)
    viscosity = 0.05
    where = coordinates(grid)
    k = 2 * math.pi

    def velocity(t):
        decay = [math.exp(-viscosity * k**2 * m * t) for m in (1, 4, 2)]
        x, y = where[0], where[1] if dimensions == 2 else torch.full_like(where[0], 0.1)
        mixed = math.exp(-viscosity * k**2 * t) if dimensions == 1 else decay[2]
        p = 2 + 0.6 * decay[0] * torch.cos(k * x) + 0.3 * decay[1] * torch.sin(2 * k * x)
        p = p + 0.5 * mixed * torch.sin(k * x + (k * y if dimensions == 2 else 0.1))
        p_x = -0.6 * k * decay[0] * torch.sin(k * x) + 0.6 * k * decay[1] * torch.cos(2 * k * x)
        p_y = 0.5 * mixed * k * torch.cos(k * x + (k * y if dimensions == 2 else 0.1))
        parts = [-2 * viscosity * (p_x + p_y) / p, -2 * viscosity * p_y / p]
        return torch.stack(parts[:dimensions])

    frames = solved("burgers", grid, velocity(0.0)[None], [0.1, 0.4], viscosity=viscosity)
    for column, t in enumerate((0.1, 0.4)):
        torch.testing.assert_close(frames[0, column], velocity(t).flatten(1), rtol=0, atol=1e-8)


def test_a_sheared_vorticity_under_the_force_reaches_its_balance():
    """A function of x + y does not carry itself: w = a(t) (sin s + cos s) with a' = -viscosity k^2 a + forcing."""
    grid = SpectralGrid(16, (1.0, 1.0))
    x, y = coordinates(grid)
    s = 2 * math.pi * (x + y)
    shape = (torch.sin(s) + torch.cos(s)).flatten()
    rate = 1e-3 * 8 * math.pi**2
    times = [1.0, 20.0]  # the balance itself is unstable: much later, rounding errors have grown
    frames = solved("navier_stokes", grid, 0.5 * shape.reshape(1, 1, 16, 16), times)
    for column, t in enumerate(times):
        amplitude = 0.1 / rate + (0.5 - 0.1 / rate) * math.exp(-rate * t)
        torch.testing.assert_close(frames[0, column, 0], amplitude * shape, rtol=0, atol=1e-8)


def test_taylor_green_vortices_decay_in_place():
    grid = SpectralGrid(16, (1.0, 1.0))
    x, y = coordinates(grid)
    k = 2 * math.pi
    vortices = 3 * torch.cos(k * x) * torch.cos(k * y)
    frames = solved("navier_stokes", grid, vortices[None, None], [5.0], viscosity=0.01, forcing=0.0)
    expected = math.exp(-0.01 * 2 * k**2 * 5) * vortices
    torch.testing.assert_close(frames[0, 0, 0], expected.flatten(), rtol=0, atol=1e-11)


def test_the_error_of_burgers_falls_with_the_fourth_power_of_the_step():
    grid, equation = SpectralGrid(48, (1.0,)), find_equation("burgers")
    parameters = {"viscosity": torch.full((1, 1, 1), 0.02, dtype=torch.float64)}
    mask = grid.mask(2)
    integrator = ExponentialIntegrator(
        equation.linear(grid, parameters), lambda u: mask * equation.nonlinear(grid, parameters, u), 1
    )
    start = mask * grid.transform(torch.sin(2 * math.pi * grid.points()[:, 0]))[None, None]

    def after(steps):
        u = start
        for _ in range(steps):
            u = integrator.step(u, torch.tensor([0.4 / steps], dtype=torch.float64))
        return u

    exact = after(1600)
    errors = [float((after(steps) - exact).abs().max()) for steps in (80, 160, 320)]
    orders = [math.log2(errors[k] / errors[k + 1]) for k in range(2)]
    assert min(orders) > 3.7 and max(orders) < 4.4


# ---- an independent solver: collocation on dense matrices, no Fourier transform, scipy in time ----


def differentiation(n, length):
    """The first and second derivative of trigonometric interpolation on n (even) points (Trefethen 2000, chapter 3)."""
    h = 2 * np.pi / n
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    with np.errstate(divide="ignore"):
        sign = (-1.0) ** (i - j)
        first = np.where(i == j, 0.0, 0.5 * sign / np.tan((i - j) * h / 2))
        second = np.where(i == j, -(np.pi**2) / (3 * h**2) - 1 / 6, -sign / (2 * np.sin((i - j) * h / 2) ** 2))
    scale = 2 * np.pi / length
    return scale * first, scale**2 * second


def on_plane(n, length):
    """d/dx, d/dy and the Laplacian on the flattened n x n grid."""
    first, second = differentiation(n, length)
    eye = np.eye(n)
    return np.kron(first, eye), np.kron(eye, first), np.kron(second, eye) + np.kron(eye, second)


def integrated(right_side, start, t, method="RK45"):
    result = solve_ivp(right_side, (0, t), start, method=method, rtol=1e-9, atol=1e-11)
    assert result.success
    return result.y[:, -1]


def test_kuramoto_sivashinsky_agrees_with_scipy():
    n, length = 64, 16.0
    first, second = differentiation(n, length)
    grid = SpectralGrid(n, (length,))
    x = grid.points()[:, 0]
    start = torch.cos(2 * math.pi * x / length) + 0.4 * torch.sin(4 * math.pi * x / length)
    linear = -second - 0.9 * second @ second

    def right_side(t, u):
        return linear @ u - u * (first @ u)

    expected = integrated(right_side, start.numpy(), 6.0, method="BDF")
    frames = solved("kuramoto_sivashinsky", grid, start[None, None], [6.0], viscosity=0.9)
    assert np.abs(expected - start.numpy()).max() > 0.5
    np.testing.assert_allclose(frames[0, 0, 0].numpy(), expected, atol=1e-5)


def test_kuramoto_sivashinsky_on_the_plane_agrees_with_scipy():
    n, length = 16, 8.0
    dx, dy, laplacian = on_plane(n, length)
    grid = SpectralGrid(n * 2, (length, length))
    x, y = coordinates(grid)
    k = 2 * math.pi / length
    start = torch.cos(k * x + 0.3) * torch.sin(k * y) + 0.3 * torch.sin(k * (x + y))
    linear = -laplacian - laplacian @ laplacian

    def right_side(t, u):
        squares = ((dx @ u) ** 2 + (dy @ u) ** 2) / 2
        return linear @ u - squares + squares.mean()

    expected = integrated(right_side, start[::2, ::2].flatten().numpy(), 1.0, method="BDF")
    frames = solved("kuramoto_sivashinsky", grid, start[None, None], [1.0])
    np.testing.assert_allclose(frames[0, 0, 0].reshape(2 * n, 2 * n)[::2, ::2].flatten().numpy(), expected, atol=1e-5)


def test_gray_scott_agrees_with_scipy():
    n, length = 20, 32.0
    _, _, laplacian = on_plane(n, length)
    grid = SpectralGrid(2 * n, (length, length))
    x, y = coordinates(grid)
    k = 2 * math.pi / length
    bump = (0.25 * (1 + torch.cos(k * x)) * (1 + torch.sin(k * y + 0.2))) ** 2
    start = torch.stack([1 - 0.5 * bump, 0.05 + 0.3 * bump])
    feed, kill, diffusivities = 0.035, 0.06, (2.0, 1.0)

    def right_side(t, state):
        u, v = state.reshape(2, -1)
        reaction = u * v**2
        u_t = diffusivities[0] * (laplacian @ u) - reaction + feed * (1 - u)
        v_t = diffusivities[1] * (laplacian @ v) + reaction - (feed + kill) * v
        return np.concatenate([u_t, v_t])

    expected = integrated(right_side, start[:, ::2, ::2].flatten().numpy(), 30.0)
    frames = solved("gray_scott", grid, start[None], [30.0], feed=feed, kill=kill, diffusivity_u=2.0, diffusivity_v=1.0)
    coarse = frames[0, 0].reshape(2, 2 * n, 2 * n)[:, ::2, ::2].flatten()
    assert np.abs(expected - start[:, ::2, ::2].flatten().numpy()).max() > 0.1
    np.testing.assert_allclose(coarse.numpy(), expected, atol=1e-5)


def navier_stokes_right_side(n, viscosity, forcing):
    """The advective form, the stream function by a dense pseudo-inverse: nothing in common with the solver's
    Basdevant form.
    """
    dx, dy, laplacian = on_plane(n, 1.0)
    inverse = np.linalg.pinv(laplacian, rcond=1e-10)
    x, y = (a.numpy().flatten() for a in coordinates(SpectralGrid(n, (1.0, 1.0))))
    s = 2 * np.pi * (x + y)
    force = forcing * (np.sin(s) + np.cos(s))

    def right_side(t, w):
        stream = -inverse @ w
        return viscosity * (laplacian @ w) - (dy @ stream) * (dx @ w) + (dx @ stream) * (dy @ w) + force

    return right_side


def test_navier_stokes_agrees_with_scipy():
    n = 16
    grid = SpectralGrid(2 * n, (1.0, 1.0))
    x, y = coordinates(grid)
    k = 2 * math.pi
    start = torch.sin(k * x) + 0.8 * torch.cos(k * (x - y) + 0.5) + 0.5 * torch.sin(k * y + 1)
    right_side = navier_stokes_right_side(n, viscosity=1e-2, forcing=0.3)
    expected = integrated(right_side, start[::2, ::2].flatten().numpy(), 3.0)
    frames = solved("navier_stokes", grid, start[None, None], [3.0], viscosity=1e-2, forcing=0.3)
    coarse = frames[0, 0, 0].reshape(2 * n, 2 * n)[::2, ::2].flatten().numpy()
    assert np.abs(expected - start[::2, ::2].flatten().numpy()).max() > 0.5
    np.testing.assert_allclose(coarse, expected, atol=1e-5)
