"""Simulated observations: reproducible, independent of what else is asked for, and refused where they make no sense."""

import logging

import numpy as np
import pytest
import torch

from inrflow.errors import UserError
from inrflow.pdes.equations import EQUATIONS, find_equation
from inrflow.pdes.simulate import simulate
from inrflow.pdes.solver import solve
from inrflow.pdes.spectral import SpectralGrid

QUICK = {"grid": 8, "frames": 4, "dt": 0.1}


def quick(pde="heat", trajectories=4, **more):
    return simulate(pde, trajectories, **{**QUICK, **more})


@pytest.mark.parametrize("pde", EQUATIONS)
def test_every_equation_and_protocol_gives_finite_data(pde):
    for protocol in find_equation(pde).protocols:
        data = simulate(pde, 5, protocol=protocol, grid=16, resolution=16, frames=3, dt=0.5, burn_in=0.5)
        channels, d = len(data.channels), len(data.coordinates)
        assert data.t.tolist() == [0.0, 0.5, 1.0] and data.x.shape == (16**d, d)
        assert data.u.shape == (5, 3, 16**d, channels) and data.u.dtype == np.float32
        assert np.isfinite(data.u).all() and data.u.std() > 1e-3
        assert data.parameters.shape == (5, len(data.parameter_names))
        assert np.abs(data.u[0] - data.u[4]).max() > 1e-2


@pytest.mark.parametrize("pde", ["heat", "burgers"])
def test_a_trajectory_depends_on_seed_and_index_alone(pde):
    """Neither the number of trajectories nor the number of threads changes what is there already."""
    wanted = {"parameters": dict.fromkeys(find_equation(pde).parameters(2), "sample"), "points": 9, "noise": 0.0,
              "missing": 0.2, "time_jitter": 0.5, "windows": 2}
    few, many, other = (quick(pde, count, seed=seed, **wanted) for count, seed in ((6, 7), (10, 7), (6, 8)))
    np.testing.assert_allclose(few.u, many.u[:6], atol=1e-5)
    for key in ("t", "x", "parameters"):
        np.testing.assert_array_equal(getattr(few, key), getattr(many, key)[:6])
        assert np.abs(getattr(few, key) - getattr(other, key)).max() > 1e-4
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        np.testing.assert_array_equal(quick(pde, 6, seed=7, **wanted).u, few.u)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_a_finer_grid_sees_the_same_solution():
    coarse, fine = (quick("navier_stokes", 2, grid=16, resolution=size, burn_in=2.0, dt=1.0) for size in (32, 64))
    np.testing.assert_allclose(coarse.u, fine.u, atol=2e-2 * fine.u.std())
    # Off the solver's own points too: 24 does not divide 32.
    other = quick("navier_stokes", 2, grid=24, resolution=32, burn_in=2.0, dt=1.0)
    a, b = coarse.u.reshape(2, 4, 16, 16)[..., ::2, ::2], other.u.reshape(2, 4, 24, 24)[..., ::3, ::3]
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_values_at_random_points_are_those_of_the_solution():
    """Plain advection: the field at any point is the first field upstream, a polynomial evaluated by hand."""
    data = quick("advection", 3, points=20, time_jitter=0.9, parameters={"velocity_x": 0.3, "velocity_y": -0.2})
    grid = SpectralGrid(8, (1.0, 1.0))
    assert data.x.shape == (3, 20, 2) and data.t.shape == (3, 4)
    starts = quick("advection", 3).u[:, 0, :, 0].reshape(3, 8, 8).astype(float)
    modes = np.fft.fftfreq(8, 1 / 8)
    for s in range(3):
        coefficients = np.fft.fft2(starts[s]) / 64
        for k in range(4):
            y = data.x[s] - np.array([0.3, -0.2]) * data.t[s, k]
            waves = [np.exp(2j * np.pi * np.outer(y[:, axis], modes)) for axis in range(2)]
            expected = np.einsum("nk,kl,nl->n", waves[0], coefficients, waves[1]).real
            np.testing.assert_allclose(data.u[s, k, :, 0], expected, atol=1e-5)
    assert data.x.max() < grid.period[0] and data.x.min() >= 0


def test_shared_points_are_shared():
    assert quick(points=5, shared_points=True).x.shape == (5, 2)


def test_windows_of_a_run_follow_one_another():
    whole, cut = quick("wave", 1, frames=12), quick("wave", 3, frames=4, windows=3)
    np.testing.assert_allclose(cut.u.reshape(12, 64, 2), whole.u[0], atol=1e-6)
    odd = quick("wave", 4, frames=4, windows=3)
    np.testing.assert_array_equal(odd.u[:3], cut.u)


def test_burn_in_comes_before_the_first_frame_with_its_own_parameters():
    late = quick("heat", 1, burn_in=0.25, parameters={"diffusivity": 0.01})
    long = quick("heat", 1, frames=2, dt=0.25, parameters={"diffusivity": 0.01})
    np.testing.assert_allclose(late.u[0, 0], long.u[0, 1], atol=1e-6)
    equation = find_equation("navier_stokes")
    data = simulate("navier_stokes", 2, protocol="coda", grid=16, resolution=16, frames=2, burn_in=3.0)
    grid = SpectralGrid(16, (1.0, 1.0))
    start = equation.initial(grid, np.random.default_rng([0, 0, 1]))[None]
    burnt = {"viscosity": torch.tensor([8e-4]), "forcing": torch.tensor([0.1])}
    [state] = solve(equation, grid, start, torch.tensor([3.0]), burnt)
    own = {"viscosity": torch.tensor([9e-4]), "forcing": torch.tensor([0.1])}
    [after] = solve(equation, grid, state, torch.tensor([1.0]), own)
    expected = torch.cat([grid.inverse(w) for w in (state, after)]).flatten(1)
    np.testing.assert_allclose(data.u[1, :, :, 0], expected, atol=1e-5)
    assert data.environment.tolist() == [0, 1] and data.parameters[1, 0] == 9e-4


def test_noise_and_gaps_have_the_size_asked_for():
    clean, seen = quick("wave", 16, grid=16), quick("wave", 16, grid=16, noise=0.5, missing=0.25)
    gone = np.isnan(seen.u)
    assert abs(gone.mean() - 0.25) < 0.01
    for channel in range(2):
        error = (seen.u - clean.u)[..., channel][~gone[..., channel]]
        assert abs(error.std() / clean.u[..., channel].std() - 0.5) < 0.02


def test_times_are_jittered_within_bounds_and_increase():
    data = quick(trajectories=50, frames=6, time_jitter=0.8)
    regular = 0.1 * np.arange(6)
    assert np.all(data.t[:, 0] == 0) and np.all(np.diff(data.t) > 0)
    moves = np.abs(data.t - regular)
    assert moves.max() <= 0.04 + 1e-12 and moves[:, 1:].max() > 0.035


def test_parameters_are_fixed_ranged_or_listed_by_environment():
    fixed = quick(parameters={"diffusivity": 0.02})
    assert np.all(fixed.parameters == 0.02) and fixed.environment is None
    ranged = quick(trajectories=40, parameters={"diffusivity": {"low": 0.01, "high": 0.02}}).parameters
    assert ranged.min() >= 0.01 and ranged.max() <= 0.02 and len(np.unique(ranged)) == 40
    listed = quick(trajectories=6, parameters={"diffusivity": [0.01, 0.02, 0.03]})
    assert listed.environment.tolist() == [0, 1, 2, 0, 1, 2]
    assert listed.parameters[:, 0].tolist() == [0.01, 0.02, 0.03] * 2
    drawn = quick("gray_scott", 6, environments=2, parameters={"feed": "sample", "kill": 0.06})
    feeds = drawn.parameters[:, 0]
    assert len(np.unique(feeds)) == 2 and np.all(feeds[::2] == feeds[0]) and np.all(drawn.parameters[:, 1] == 0.06)
    # One parameter of a run is drawn whatever is said of the others.
    both = quick("gray_scott", 6, environments=2, parameters={"feed": "sample", "kill": "sample"})
    np.testing.assert_array_equal(both.parameters[:, 0], feeds)


def test_an_unresolved_solution_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        quick("burgers", 1, dimensions=1, resolution=16, grid=16, dt=0.3, parameters={"viscosity": 1e-3})
    assert "barely resolved by 16 points" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        quick("burgers", 1, dimensions=1, resolution=128, grid=16)
    assert not caplog.text


def test_progress_counts_up_to_its_end():
    calls = []
    quick("burgers", 3, dimensions=1, burn_in=0.2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(k + 1, 6) for k in range(6)]


MISTAKES = [
    ({"pde": "hea"}, "Unknown pde 'hea': choose one of heat, advection"),
    ({"protocol": "dyno"}, "Unknown protocol 'dyno' for heat"),
    ({"parameters": {"viscosity": 1.0}}, "Unknown parameter 'viscosity': choose from diffusivity"),
    ({"parameters": {"diffusivity": -1.0}}, "parameters.diffusivity is -1"),
    ({"parameters": {"diffusivity": float("nan")}}, "parameters.diffusivity is nan"),
    ({"parameters": {"diffusivity": "much"}}, "parameters.diffusivity is 'much'"),
    ({"parameters": {"diffusivity": True}}, "parameters.diffusivity is True"),
    ({"parameters": {"diffusivity": {"low": 1.0}}}, "keys low"),
    ({"parameters": {"diffusivity": {"low": 2.0, "high": 1.0}}}, "give low before high"),
    ({"parameters": {"diffusivity": [0.1, 0.2]}, "environments": 3}, "lists 2 values for 3 environments"),
    ({"parameters": {"diffusivity": []}}, "at least one"),
    ({"environments": 3}, "no parameter differs"),
    ({"environments": 0}, "environments=0"),
    ({"trajectories": 0}, "trajectories is 0"),
    ({"frames": 0}, "frames is 0"),
    ({"grid": 2}, "grid is 2"),
    ({"dt": 0.0}, "dt is 0.0"),
    ({"dt": float("inf")}, "dt is inf"),
    ({"burn_in": -1.0}, "burn_in is -1.0"),
    ({"dimensions": 4}, "heat in 4 dimensions"),
    ({"pde": "navier_stokes", "dimensions": 3}, "give dimensions=2"),
    ({"points": "mesh"}, "points is 'mesh'"),
    ({"points": 0}, "points is 0"),
    ({"noise": -0.1}, "noise is -0.1"),
    ({"missing": 1.0}, "missing is 1.0"),
    ({"time_jitter": 1.5}, "time_jitter is 1.5"),
    ({"tolerance": 0.0}, "tolerance is 0.0"),
    ({"seed": -1}, "seed is -1"),
    ({"color": 3}, "Unknown setting 'color'"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_mistakes_are_told_in_one_sentence(changes, message):
    with pytest.raises(UserError) as caught:
        quick(**changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_solution_that_blows_up_is_a_mistake_of_the_user():
    """Anti-damped Kuramoto-Sivashinsky: short waves that grow faster than anything damps them."""
    with pytest.raises(UserError, match="kuramoto_sivashinsky grows without bounds"):
        quick("kuramoto_sivashinsky", 1, dimensions=2, period=300.0, dt=400.0, parameters={"viscosity": 1e-6})
