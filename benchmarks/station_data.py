"""Networks of stations, drifting buoys and scattered soundings from independent generators: none is a draw of the
Gaussian process that the engine fits. Used by observations.py; `python benchmarks/station_data.py FOLDER` writes them.

Each maker gives t (T,), x (N, d), values u (T, N, C) with noise and gaps (NaN), and names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories


@dataclass
class Network:
    """One network: times, fixed places, values with gaps, and its description."""

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    description: Description


def _gaps(u: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Single values missing at random and whole stretches of a station, `share` in all."""
    lost = random.random(u.shape[:2]) < 0.3 * share
    for n in range(u.shape[1]):
        while lost[:, n].mean() < share * random.uniform(0.7, 1.3):
            begin = random.integers(len(u))
            lost[begin : begin + random.integers(2, max(4, len(u) // 12)), n] = True
    return np.where(lost[..., None], np.nan, u)


def _features(x: np.ndarray, t: np.ndarray, random: np.random.Generator, lengths: tuple[float, float], wind: np.ndarray,
              memory: float, waves: int, slope: float) -> np.ndarray:
    """Anisotropic waves with a power-law spectrum that move with a wind and lose their phase, (T, N)."""
    angle = random.uniform(0, 2 * np.pi, waves)
    size = np.exp(random.uniform(np.log(0.6), np.log(8.0), waves))
    k = 2 * np.pi * size[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) / np.array(lengths)
    power = size**-slope
    phase = random.uniform(0, 2 * np.pi, waves)
    omega = k @ wind + random.standard_normal(waves) / memory * np.sqrt(size)
    argument = np.einsum("wd,nd->wn", k, x)[None] - (omega[None] * t[:, None] + phase)[..., None]
    return np.einsum("w,twn->tn", np.sqrt(2 * power / power.sum()), np.cos(argument))


def weather(seed: int = 0, stations: int = 60, hours: int = 480, gaps: float = 0.1) -> Network:
    """Hourly temperature, dew point, pressure and winds: anisotropic waves carried by a wind, a diurnal cycle whose
    strength depends on the place, an elevation that no column shows, siting errors that stay, geostrophic winds."""
    random = np.random.default_rng([seed, 1])
    x = random.uniform(0, 1, (stations, 2)) * [4.0, 3.0]
    t = np.arange(float(hours))
    hills = np.sin(1.3 * x[:, 0] + 0.4) * np.cos(1.7 * x[:, 1]) + 0.3 * np.sin(5.1 * x[:, 0] + 2.0 * x[:, 1])
    moved = {"lengths": (6.0, 4.0), "wind": np.array([0.12, 0.03])}
    def pressure_at(y: np.ndarray) -> np.ndarray:
        return _features(y, t, np.random.default_rng([seed, 2]), memory=40.0, waves=160, slope=3.2, **moved)

    pressure, step = pressure_at(x), 1e-3
    east = pressure_at(x + [step, 0]) - pressure_at(x - [step, 0])
    north = pressure_at(x + [0, step]) - pressure_at(x - [0, step])
    air = _features(x, t, random, memory=25.0, waves=160, slope=2.2, **moved)
    sun = np.clip(np.sin(2 * np.pi * (t[:, None] - 8 - 0.4 * x[:, 0]) / 24), -0.3, None) * (1 + 0.3 * hills)
    local = {"lengths": (1.2, 1.0), "wind": np.array([0.2, 0.1]), "memory": 3.0, "waves": 120, "slope": 1.2}
    noise = random.standard_normal((5, hours, stations))
    site = random.standard_normal((5, stations))
    temperature = 12 + 4 * air + 4 * sun - 2.5 * hills + 0.5 * site[0] + 0.7 * _features(x, t, random, **local)
    dew = 6 + 3 * (0.7 * air + 0.7 * _features(x, t, random, memory=30.0, waves=160, slope=2.0, **moved)) - 1.5 * hills
    dew += 0.5 * site[1] + 0.9 * _features(x, t, random, **local)
    u = np.stack([
        temperature + 0.4 * noise[0], dew + 0.4 * noise[1], 1013 + 6 * pressure + 0.3 * site[2] + 0.3 * noise[2],
        -3 * north / np.std(north) + 0.8 * site[3] + 1.8 * _features(x, t, random, **local) + 1.0 * noise[3],
        3 * east / np.std(east) + 0.8 * site[4] + 1.8 * _features(x, t, random, **local) + 1.0 * noise[4],
    ], -1)
    about = Description("weather", ("T", "Td", "p", "u", "v"), ("x", "y"), time_units="hours")
    return Network(t, x, _gaps(u, gaps, random), about)


def fronts(seed: int = 0, stations: int = 70, hours: int = 300, gaps: float = 0.25) -> Network:
    """Moving lows with fronts: Gaussian lows that are born, move and die, the air behind each front colder, rain
    (skewed, never negative) along it; 8 to 40 % of each station missing."""
    random = np.random.default_rng([seed, 3])
    x = np.concatenate([random.normal([1.5, 1.0], 0.35, (stations // 3, 2)),
                        random.uniform(0, 1, (stations - stations // 3, 2)) * [3.0, 2.0]])
    t = np.arange(float(hours))
    pressure = np.zeros((hours, stations))
    temperature = 2.0 * (1 - x[:, 1]) + 1.5 * np.sin(2 * np.pi * t / 24)[:, None] + 0.0 * pressure
    rain = np.zeros_like(pressure)
    for _ in range(hours // 12):
        birth, life = random.uniform(-40, hours), random.uniform(20, 70)
        start, speed = random.uniform([-1.5, 0.0], [3.0, 2.0]), random.normal([0.06, 0.015], [0.02, 0.015])
        centre = start + speed * (t - birth)[:, None]
        age = np.exp(-0.5 * ((t - birth - life / 2) / (life / 3)) ** 2)[:, None]
        away = x[None] - centre[:, None]
        width = random.uniform(0.35, 0.9)
        pressure -= random.uniform(4, 12) * age * np.exp(-0.5 * (away**2).sum(-1) / width**2)
        behind = -away[..., 0] - 0.35 * away[..., 1] ** 2
        near = age * np.exp(-0.5 * (away**2).sum(-1) / (1.6 * width) ** 2)
        temperature -= random.uniform(2, 6) * near * 0.5 * (1 + np.tanh(behind / 0.08))
        rain += random.uniform(1, 5) * near * np.exp(-0.5 * (behind / 0.1) ** 2)
    noise = random.standard_normal((3, hours, stations))
    site = random.standard_normal((3, stations))
    u = np.stack([pressure + 0.2 * noise[0] + 0.3 * site[0], temperature + 0.3 * noise[1] + 0.4 * site[1],
                  np.clip(rain + 0.15 * np.abs(noise[2]), 0, None)], -1)
    about = Description("fronts", ("p", "T", "rain"), ("x", "y"), time_units="hours")
    return Network(t, x, _gaps(u, gaps, random), about)


def buoys(seed: int = 0, stations: int = 80, days: int = 200, gaps: float = 0.2) -> Network:
    """Sea surface of a band of the sphere: planetary waves (Rossby-like phases) over a meridional gradient with a
    seasonal cycle, and eddies that drift to the west; unit vectors."""
    random = np.random.default_rng([seed, 4])
    longitude, latitude = random.uniform(0, 2 * np.pi, stations), random.uniform(-0.4, 0.5, stations)
    x = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1)
    t = np.arange(float(days))
    temperature = 28 - 30 * latitude[None] ** 2 + 2 * np.sin(latitude)[None] * np.sin(2 * np.pi * t / 365)[:, None]
    height = np.zeros((days, stations))
    for _ in range(120):
        m, width, centre = random.integers(1, 12), random.uniform(0.1, 0.5), random.uniform(-0.4, 0.5)
        speed = -random.uniform(0.02, 0.08) / m**0.5
        phase = np.cumsum(random.standard_normal(days)) * 0.04 + random.uniform(0, 2 * np.pi)
        wave = np.cos(m * longitude[None] - m * speed * t[:, None] + phase[:, None])
        wave = wave * np.exp(-0.5 * ((latitude - centre) / width) ** 2)[None] / m**0.7
        height += 0.6 * wave
        temperature = temperature + 0.25 * np.roll(wave, 2, axis=0)
    noise = random.standard_normal((2, days, stations))
    u = np.stack([temperature + 0.15 * noise[0], height + 0.1 * noise[1]], -1)
    about = Description("buoys", ("sst", "height"), ("ux", "uy", "uz"), geometry="sphere", time_units="days")
    return Network(t, x, _gaps(u, gaps, random), about)


NETWORKS: dict[str, Callable[..., Network]] = {"weather": weather, "fronts": fronts, "buoys": buoys}


def write(network: Network, path: Path, places: np.ndarray | None = None) -> Path:
    """One trajectory of a network as a file, of some of its places or of all."""
    chosen = np.arange(len(network.x)) if places is None else places
    write_trajectories(path, network.t, network.x[chosen], network.u[None][:, :, chosen], network.description)
    return path


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, maker in NETWORKS.items():
        print(write(maker(), folder / f"{name}.h5"))
