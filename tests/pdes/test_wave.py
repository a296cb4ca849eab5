"""The embedded wave data: held against D'Alembert's formula's consequences which need no Fourier transform."""

import numpy as np

from inrflow.pdes.wave import default_wave

SPEED = 1 / 16  # on a domain of length 2


def test_shapes_and_coordinates_follow_the_protocol():
    data = default_wave(trajectories=11, frames=5, grid=16)
    assert data.t.shape == (5,) and data.x.shape == (256, 2) and data.u.shape == (11, 5, 256, 2)
    assert data.u.dtype == np.float32
    assert data.x.min() == 0 and data.x.max() == 0.5
    np.testing.assert_allclose(data.period, 16 * (data.x[1, 1] - data.x[0, 1]))


def test_frames_satisfy_the_wave_equation():
    """Second differences in time against the Laplacian taken by finite differences in space, both small and
    independent of the solver.
    """
    data = default_wave(trajectories=1, grid=64, frames=40, dt=0.02, windows=1)
    u = data.u[0, ..., 0].reshape(40, 64, 64).astype(float)
    h = 2 / 64
    def second(f, axis):
        shifted = [np.roll(f, s, axis) for s in (2, 1, 0, -1, -2)]
        return sum(w * s for w, s in zip((-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12), shifted, strict=True)) / h**2
    laplacian = SPEED**2 * (second(u, 1) + second(u, 2))
    v = data.u[0, ..., 1].reshape(40, 64, 64)
    acceleration = (v[2:] - v[:-2]) / 0.04
    np.testing.assert_allclose(acceleration, laplacian[1:-1], atol=1e-2 * np.abs(laplacian).max())


def test_runs_start_at_rest_and_windows_continue_one_another():
    data = default_wave(trajectories=16, frames=6, grid=16, dt=0.5)
    assert np.all(data.u[0, 0, :, 1] == 0) and np.all(data.u[8, 0, :, 1] == 0)
    longer = default_wave(trajectories=1, frames=48, grid=16, dt=0.5, windows=1)
    np.testing.assert_allclose(data.u[:8].reshape(48, 256, 2), longer.u[0], atol=1e-6)


def test_a_trajectory_depends_on_seed_and_index_alone():
    few, many, other = (default_wave(count, seed=seed, grid=16) for count, seed in ((8, 3), (24, 3), (8, 4)))
    np.testing.assert_array_equal(few.u, many.u[:8])
    assert np.abs(few.u - other.u).max() > 0.1
