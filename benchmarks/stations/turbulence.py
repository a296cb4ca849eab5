"""Air in a turbulent flow: eddies with geostrophic winds, a valley with an elevation, three days of a sharp front."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from benchmarks.stations.base import Network
from inrflow.data.description import Description

_BOX = 2 * np.pi


def turbulence(seed: int, frames: int, every: int, size: int = 64, step: float = 0.01) -> np.ndarray:
    """Stream function, two velocities and a tracer with a mean gradient (frames, 4, size, size) of forced vorticity on
    a beta plane, second-order Runge-Kutta with an exponential filter, after a spin-up of 20 frames."""
    random = np.random.default_rng([seed, 77])
    k = np.fft.fftfreq(size, 1 / size)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    square = kx**2 + ky**2
    inverse = np.where(square > 0, 1 / np.maximum(square, 1), 0)
    inside = (np.abs(kx) < size / 3) & (np.abs(ky) < size / 3)
    ring = (square > 4) & (square < 25)
    damping = np.exp(-step * 20 * (square / (size / 3) ** 2) ** 4)
    forward, back = np.fft.fft2, lambda a: np.real(np.fft.ifft2(a))
    vorticity = forward(random.standard_normal((size, size))) * np.exp(-(((np.sqrt(square) - 3) / 1.5) ** 2))
    vorticity *= 3 * size / np.sqrt(np.mean(np.abs(vorticity) ** 2))
    tracer, force = np.zeros((2, size, size), complex)

    def rates(q: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = -q * inverse
        u, v = back(-1j * ky * p), back(1j * kx * p)
        moved = [forward(u * back(1j * kx * a) + v * back(1j * ky * a)) for a in (q, c)]
        return inside * (-moved[0] - 2j * kx * p + force - 0.05 * q), inside * (-moved[1] - forward(v) - 0.1 * c)

    result = []
    for number in range((frames + 20) * every):
        force = 0.98 * force + 0.2 * ring * forward(random.standard_normal((size, size)))
        first = rates(vorticity, tracer)
        middle = rates(vorticity + step / 2 * first[0], tracer + step / 2 * first[1])
        vorticity, tracer = damping * (vorticity + step * middle[0]), damping * (tracer + step * middle[1])
        if number % every == every - 1 and number >= 20 * every:
            p = -vorticity * inverse
            result.append([back(p), back(-1j * ky * p), back(1j * kx * p), back(tracer)])
    return np.array(result)


def _at(fields: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
    """Standardised values (T, N) of fields (T, 4, n, n) at points (N, 2) of the periodic box."""
    where = (x / _BOX * fields.shape[-1]).T
    values = [np.stack([map_coordinates(g, where, order=3, mode="grid-wrap") for g in fields[:, c]]) for c in range(4)]
    return [(one - one.mean()) / one.std() for one in values]


def _with_gaps(u: np.ndarray, share: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Single values and stretches missing, a share (N,) of each station."""
    lost = random.random(u.shape[:2]) < 0.3 * share
    for n in range(u.shape[1]):
        while lost[:, n].mean() < share[n]:
            begin = random.integers(len(u))
            lost[begin : begin + random.integers(2, max(4, len(u) // 12)), n] = True
    return np.where(lost[..., None], np.nan, u)


def eddies(seed: int = 0, stations: int = 60, hours: int = 200) -> Network:
    """Pressure, geostrophic winds and temperature, in the plane."""
    random = np.random.default_rng([seed, 1])
    x = random.uniform(0.5, 5.5, (stations, 2)) * [1, 0.7]
    u = np.stack(_at(turbulence(seed, hours, 12), x), -1)
    u = u + 0.05 * np.array([0.5, 2, 2, 2]) * random.standard_normal(u.shape)
    about = Description("eddies", ("p", "u", "v", "T"), ("x", "y"), time_units="hours")
    return Network(np.arange(float(hours)), 100 * x, _with_gaps(u, np.full(stations, 0.1), random), about)


def valley(seed: int = 0, stations: int = 50, hours: int = 240) -> Network:
    """Temperature, dew point, pressure and winds in mountains, with longitude, latitude and elevation: lapse rates that
    change, cold pools at night, pressure that falls with height, winds along valleys."""
    random = np.random.default_rng([seed, 2])
    lon, lat = random.uniform(6, 10, stations), random.uniform(45.5, 47.5, stations)
    hills = 1.2 * (np.sin(2.1 * lon + 1.3 * lat) + 1) + 0.6 * np.sin(6 * lon - 3 * lat)
    height = hills + 0.4 * np.sin(9 * lat + 2 * lon)
    height = np.clip(height + 0.2 * random.standard_normal(stations), 0.1, None)
    t = np.arange(float(hours))
    where = np.stack([lon - 6, (lat - 45.5) * 1.4], 1) * 0.7 + 0.5
    p, east, north, tracer = _at(turbulence(seed + 10, hours, 8), where)
    sun = np.sin(2 * np.pi * (t - 9) / 24)[:, None]
    lapse = -5.5 + 1.5 * np.cumsum(random.standard_normal(hours))[:, None] / np.sqrt(hours) - sun
    pool = -4 * np.clip(-sun, 0, 1) * np.exp(-2 * height) * (0.5 + 0.5 * np.tanh(-tracer.mean(1, keepdims=True)))
    noise, site = random.standard_normal((5, hours, stations)), random.standard_normal((5, stations))
    air = 15 + 4 * tracer + lapse * height + 4 * sun * (1 - 0.1 * height) + pool + 0.6 * site[0] + 0.5 * noise[0]
    angle = 0.8 * np.sin(2 * lon) + 0.5 * np.cos(3 * lat)
    along = east * np.cos(angle) + north * np.sin(angle)
    across = (north * np.cos(angle) - east * np.sin(angle)) * (1 - 0.6 * np.exp(-height))
    u = np.stack([
        air, air - 4 - 2 * np.abs(p) - 2 * np.clip(sun, 0, 1) + 0.5 * site[1] + 0.7 * noise[1],
        1013 * np.exp(-height / 8) + 6 * p + 0.2 * noise[2] + 0.3 * site[2],
        3 * (along * np.cos(angle) - across * np.sin(angle)) + 0.8 * noise[3] + 0.4 * site[3],
        3 * (along * np.sin(angle) + across * np.cos(angle)) + 0.8 * noise[4] + 0.4 * site[4],
    ], -1)
    about = Description("valley", ("T", "Td", "p", "u", "v"), ("lon", "lat", "elevation"), time_units="hours")
    return Network(t, np.stack([lon, lat, 1000 * height], 1), _with_gaps(u, np.full(stations, 0.08), random), about)


def sharp(seed: int = 0, stations: int = 70, hours: int = 72) -> Network:
    """Three days of temperature, pressure and rain around a curved front, 8 to 40 % of each station missing."""
    random = np.random.default_rng([seed, 3])
    x = np.stack([random.uniform(-5, 5, stations), random.uniform(40, 46, stations)], 1)
    share, t = random.uniform(0.08, 0.4, stations), np.arange(float(hours))
    p, _, _, tracer = _at(turbulence(seed + 20, hours, 6), (x - [-5, 40]) * 0.5 + 0.3)
    away = x[None, :, 0] + 0.15 * (x[None, :, 1] - 43) ** 2 + 6 - 0.2 * t[:, None]
    noise, site = random.standard_normal((3, hours, stations)), random.standard_normal((2, stations))
    air = 3 * tracer - 2 * (1 - np.tanh(away / 0.25)) + 2 * np.sin(2 * np.pi * t / 24)[:, None]
    rain = 4 * np.exp(-0.5 * ((away + 0.2) / 0.35) ** 2) * (1 + 0.4 * p) - 0.2 + 0.2 * noise[2]
    u = np.stack([air + 0.3 * noise[0] + 0.3 * site[0],
                  5 * p - 3 * np.exp(-0.5 * away**2) + 0.2 * noise[1] + 0.2 * site[1], np.clip(rain, 0, None)], -1)
    about = Description("sharp", ("T", "p", "rain"), ("lon", "lat"), time_units="hours")
    return Network(t, x, _with_gaps(u, share, random), about)


NETWORKS = (eddies, valley, sharp)
