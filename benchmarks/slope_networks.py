"""Two networks whose places differ by what lies under them: air over vineyards, where cold air drains into hollows, and
the magnetic field of currents in the ionosphere over ground of unlike conductivity. Used by observations.py, as those
of station_data.py; each from a model of its own.
"""

from __future__ import annotations

import numpy as np
from station_data import Network
from weather_networks import _missing, _rough

from inrflow.data.description import Description


def vineyard(seed: int = 0, stations: int = 48, hours: int = 240) -> Network:
    """Hourly temperature, humidity and speed of wind with elevations: sun on slopes, fog, lakes of cold air that clear
    calm nights fill up to a level and the morning's sun drains, clouds and gusts that a wind carries."""
    random = np.random.default_rng([seed, 91])
    x = random.uniform(0, 1, (stations, 2)) * [24.0, 18.0]  # km
    relief = np.random.default_rng([seed, 92])
    waves = [relief.integers(1 << 30) for _ in range(3)]

    def height(y: np.ndarray) -> np.ndarray:  # m
        broad, fine = (_rough(y, 50, scale, slope, np.random.default_rng(wave))
                       for scale, slope, wave in ((20.0, 1.4, waves[0]), (4.0, 1.0, waves[1])))
        return 260 + 90 * broad + 25 * fine

    step = 0.05
    elevation = height(x)
    south, east = (-(height(x + at) - height(x - at)) / (2000 * step) for at in ([0.0, step], [step, 0.0]))
    around = np.array([height(x + 0.8 * np.array([np.cos(a), np.sin(a)])) for a in np.arange(0, 6.28, 0.52)])
    hollow = np.clip(around.mean(0) - elevation, 0, None)  # m below what surrounds it
    t = np.arange(float(hours))
    cold, pool, front, far = np.zeros(stations), [], 0.0, np.zeros(3)
    drift = np.array([random.uniform(5, 12), random.uniform(-6, 6)])
    air, damp, speed, sums = [], [], [], 0.0
    for hour in range(hours):
        far = 0.985 * far + 0.17 * random.standard_normal(3)
        front = 0.97 * front + 0.24 * random.standard_normal()
        cover = 1 / (1 + np.exp(-1.2 * (_rough(x - drift * hour, 40, 14.0, 0.8, np.random.default_rng(waves[2]))
                                        + 1.3 * far[0])))
        angle = 2 * np.pi * (hour - 12) / 24
        sun = np.clip(np.cos(angle), 0, None)
        slope = np.clip(1 + 2.5 * south - 2.5 * east * np.sin(angle), 0, None)
        light = sun * slope * (1 - 0.75 * cover)
        wind = np.exp(0.6 + 0.35 * far[1] + 0.4 * np.sqrt(light) + 0.0022 * (elevation - 260) - 0.01 * hollow)
        sums = 0.9 * sums + 0.1 * light.mean()
        fill = (1 - sun) * (1 - cover) * np.exp(-wind / 2.5) * (0.4 + hollow / 20)
        cold = np.clip(cold + 1.1 * fill - cold * (0.05 + 0.35 * light + 0.06 * wind), 0, 12)
        here = 13 + 4 * far[2] - 3 * front - 0.0085 * (elevation - 260) + 9 * sums + 5 * light - cold - 1.5 * (1 - sun)
        dew = 8 + 3 * far[2] - 2 * front - 0.003 * (elevation - 260) - 0.25 * cold + 0.6 * far[0]
        wet = 100 * np.exp(np.minimum(17.6 * dew / (243 + dew) - 17.6 * here / (243 + here), 0))
        air.append(here)
        damp.append(wet)
        speed.append(wind)
        pool.append(cold.copy())
    site, noise = random.standard_normal((3, stations)), random.standard_normal((3, hours, stations))
    u = np.stack([np.array(air) + 0.3 * site[0] + 0.2 * noise[0],
                  np.clip(np.array(damp) + 1.5 * site[1] + 1.5 * noise[1], 5, 100),
                  np.array(speed) * np.exp(0.2 * site[2] + 0.15 * noise[2])], -1)
    about = Description("vineyard", ("T", "RH", "wind"), ("x", "y", "elevation"), time_units="hours since 2023-04-12")
    return Network(t, np.concatenate([x, elevation[:, None]], 1), _missing(u, random), about)


def magnetic(seed: int = 0, stations: int = 44, frames: int = 300) -> Network:
    """Three components (nT) every five minutes: line currents of a jet that moves and swells in substorms, currents of
    the day, a ring current, pulsations by latitude; what is induced below, by the ground of each place (Biot and
    Savart, image currents)."""
    random = np.random.default_rng([seed, 93])
    x = random.uniform(0, 1, (stations, 2)) * [1800.0, 1600.0]  # km
    ground = np.exp(0.35 * _rough(x, 40, 700.0, 1.0, random)) * np.exp(0.15 * random.standard_normal(stations))
    tipper = 0.25 * np.stack([_rough(x, 40, 500.0, 0.8, random) for _ in range(2)])
    t, above, ring = 5.0 * np.arange(frames), 110.0, 0.0
    activity, middle, field = np.zeros(9), 1000.0, np.zeros((3, frames, stations))
    onsets = [(random.uniform(0, frames), random.uniform(200, 1600), random.uniform(0.2, 0.9)) for _ in range(7)]
    lines = np.linspace(-1, 1, 9)
    for frame in range(frames):
        activity = 0.96 * activity + 0.28 * random.standard_normal(9) * np.exp(-lines**2)
        middle = middle + 6 * random.standard_normal() - 0.02 * (middle - 1000)
        ring = 0.99 * ring - 0.3 * abs(random.standard_normal())
        hour = 2 * np.pi * (t[frame] / 60 - x[:, 0] / 400) / 24
        current = 0.12 * np.exp(-2 * lines**2) * (1 + 0.8 * np.cos(hour.mean() - 1)) + 0.05 * activity
        for begin, where, power in onsets:
            age = (frame - begin) / 6
            if age > 0:
                own = power * age * np.exp(1 - age)
                near = np.exp(-(((x[:, 0] - where + 60 * age) / (250 + 60 * age)) ** 2))
                north = x[:, 1] - middle - 25 * age
                below = north**2 + above**2
                field[0, frame] -= 18e3 * own * near * above / below
                field[2, frame] -= 18e3 * own * near * north / below
        for line, strength in zip(lines, current, strict=True):
            north = x[:, 1] - middle - 260 * line - 40 * np.sin(x[:, 0] / 600)
            for depth, share in ((above, 1.0), (above + 400, 0.4)):
                field[0, frame] -= 200 * strength * 1e2 * share * depth / (north**2 + depth**2) / 5
                field[2, frame] -= 200 * strength * 1e2 * (1.4 - share) * north / (north**2 + depth**2) / 8
        pulse = 6 * (1 + activity[4]) * np.exp(-(((x[:, 1] - 800) / 350) ** 2))
        field[0, frame] += ring + 12 * np.cos(hour) + pulse * np.cos(2 * np.pi * t[frame] / 23 - x[:, 1] / 200)
        field[1, frame] += 18 * np.sin(hour) + 0.3 * pulse * np.sin(2 * np.pi * t[frame] / 23 - x[:, 0] / 300)
    rate = np.diff(field[:2], axis=1, prepend=field[:2, :1])
    field[2] = ground * field[2] + np.einsum("cn,ctn->tn", tipper, field[:2]) + 0.3 * rate[0]
    noise = np.array([0.8, 0.8, 1.0])[:, None, None] * random.standard_normal(field.shape)
    u = np.moveaxis(field + noise, 0, -1) + 3 * random.standard_normal((stations, 3))
    about = Description("magnetic", ("X", "Y", "Z"), ("x", "y"), time_units="minutes since 2024-03-01")
    return Network(t, x, _missing(u, random), about)
