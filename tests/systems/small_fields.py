"""Small fields on every kind of points, to draw."""

import numpy as np

from inrflow.data.formats.sphere import lonlat_to_xyz

T = 6
TIMES = np.linspace(0.0, 2.5, T)
CHANNELS, UNITS = ("u", "p"), ("m/s", "m2/s2")


def square(side=9):
    axis = np.arange(side) / side
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def fields(x, seed=0):
    """Truth, forecast and standard deviation (T, N, 2) at points (N, d)."""
    random = np.random.default_rng(seed)
    wave = np.sin(5 * x[:, 0] + TIMES[:, None])
    truth = np.stack([wave, 20 + wave**2], -1)
    return truth, truth + 0.05 * random.normal(size=truth.shape), np.full(truth.shape, 0.05)


def sphere_points():
    longitude, latitude = np.meshgrid(np.arange(150, 211, 5), np.arange(-20, 21, 5))
    return lonlat_to_xyz(longitude.ravel(), latitude.ravel())


POINTS = {
    "grid": (square(), {}),
    "scattered": (np.random.default_rng(0).random((150, 2)), {}),
    "stations": (np.random.default_rng(0).random((20, 2)), {}),
    "wide": (np.random.default_rng(1).random((150, 2)) * [4, 1], {"horizon": 1.0, "time_units": "s"}),
    "line": (np.linspace(0, 1, 30)[:, None], {"horizon": 1.0}),
    "map": (sphere_points(), {"geometry": "sphere", "time_units": "days since 2000-01-01"}),
    "space": (np.random.default_rng(2).random((60, 3)), {}),
}
