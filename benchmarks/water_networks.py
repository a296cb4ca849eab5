"""Four further networks of independent generators, all of water: gauges on a river, moisture of soil, depth of snow
(with zeros) and tides of a gulf. Three of them hold amounts, skewed and never negative. Used by observations.py, as
those of station_data.py.
"""

from __future__ import annotations

import numpy as np
from station_data import Network
from weather_networks import _missing, _rough

from inrflow.data.description import Description


def river(seed: int = 0, stations: int = 40, hours: int = 300) -> Network:
    """Discharge and temperature on a line: floods of rain that fall on parts of it, travel down and flatten, and
    tributaries that add to them."""
    random = np.random.default_rng([seed, 31])
    cells, x = 200, np.sort(random.uniform(0, 200, stations))  # km
    speed, rain = 6.0 + 2.0 * np.sin(np.arange(cells) / 25), np.zeros((hours + 200, cells))
    for start in random.integers(0, hours + 180, 22):
        middle, width, length = random.uniform(0, 200), random.uniform(10, 60), int(random.integers(3, 18))
        pulse = random.gamma(1.2, 1.0) * np.exp(-((np.arange(cells) - middle) ** 2) / (2 * width**2))
        rain[start : start + length] += pulse / length**0.5
    store, flow, found = np.zeros(cells), np.full(cells, 3.0), []
    joined = np.zeros(cells)
    joined[random.integers(5, cells, 9)] = random.gamma(2.0, 0.8, 9)
    for hour in range(hours + 200):
        store = 0.93 * store + 0.07 * rain[hour]
        for _ in range(10):  # kinematic wave with dispersion
            source = 0.01 * (store * 6 + 0.02) + 0.01 * joined * (0.5 + 6 * store)
            before = np.concatenate([[2.0], flow[:-1]])
            around = np.concatenate([before[:1], flow[:-1]]) - 2 * flow + np.concatenate([flow[1:], flow[-1:]])
            flow = flow - speed / 10 * (flow - before) * 0.9 + 0.08 * around + source
        found.append(flow.copy())
    q = np.stack([np.interp(x, np.arange(cells), frame) for frame in found[200:]])
    sun = np.clip(np.sin(2 * np.pi * (np.arange(hours) - 8) / 24), 0, None)[:, None]
    warm = 9 + 0.02 * x + 6 * sun / (1 + q / 6) - 0.12 * q + 0.3 * random.standard_normal(stations)
    u = np.stack([q * np.exp(0.05 * random.standard_normal(q.shape) + 0.08 * random.standard_normal(stations)),
                  warm + 0.2 * random.standard_normal(q.shape)], -1)
    about = Description("river", ("discharge", "T"), ("x",), time_units="hours since 2022-10-01")
    return Network(np.arange(float(hours)), x[:, None], _missing(u, random), about)


def soil(seed: int = 0, stations: int = 64, days: int = 250) -> Network:
    """Moisture of two layers: showers and lasting rain that wet them, which dry, the quicker the wetter, as their soil
    holds; by day."""
    random = np.random.default_rng([seed, 32])
    x = random.uniform(0, 1, (stations, 2)) * [120.0, 90.0]  # km
    holds = np.exp(0.35 * _rough(x, 60, 30.0, 0.8, random) + 0.2 * random.standard_normal(stations))
    dries = np.exp(0.3 * _rough(x, 60, 40.0, 0.8, random))
    (top, deep), found = np.full((2, stations), 0.15), []
    for day in range(days):
        fallen = np.zeros(stations)
        if random.random() < 0.25:  # a front
            fallen = 6 * random.gamma(1.0) * np.exp(0.5 * _rough(x, 30, 50.0, 1.0, random))
        for _ in range(random.poisson(1.2 if 60 < day < 180 else 0.3)):  # showers of summer
            middle, width = random.uniform(0, 1, 2) * [120, 90], random.uniform(6, 18)
            fallen = fallen + 18 * random.gamma(1.0) * np.exp(-((x - middle) ** 2).sum(1) / (2 * width**2))
        thirst = 0.05 + 0.05 * np.sin(2 * np.pi * (day - 20) / 365) ** 2
        top = np.clip(top + 0.006 * fallen / holds, 0.01, 0.5 * holds.clip(0.5, 1.2))
        runs = 0.15 * np.clip(top - deep, 0, None)
        top, deep = top - runs - thirst * dries * top, deep + 0.4 * runs - 0.012 * dries * deep
        found.append(np.stack([top, deep], -1))
    u = np.stack(found) * np.exp(0.06 * random.standard_normal((days, stations, 2)))
    about = Description("soil", ("top", "deep"), ("x", "y"), time_units="days since 2021-03-01")
    return Network(np.arange(float(days)), x, _missing(u, random), about)


def snow(seed: int = 0, stations: int = 70, days: int = 240) -> Network:
    """Depth of snow and temperature from autumn to summer at different elevations: none below the snow line."""
    random = np.random.default_rng([seed, 33])
    x = random.uniform(0, 1, (stations, 2)) * [80.0, 60.0]
    z = np.clip(0.4 + 0.02 * x[:, 0] + 0.5 * _rough(x, 60, 14.0, 0.8, random), 0.05, None)  # km
    catch = np.exp(0.3 * _rough(x, 60, 12.0, 0.8, random) + 0.15 * random.standard_normal(stations))
    slow, depth, found = 0.0, np.zeros(stations), []
    for day in range(days):
        slow = 0.85 * slow + 1.8 * random.standard_normal()
        air = 7 - 11 * np.sin(np.pi * day / 170) * (day < 170) + 0.13 * (day - 170) * (day >= 170) + slow - 6.0 * z
        air = air + 0.8 * _rough(x, 20, 30.0, 1.0, random)
        fallen = np.zeros(stations)
        if random.random() < 0.35:
            fallen = 9 * random.gamma(0.9) * np.exp(0.5 * _rough(x, 30, 25.0, 1.0, random)) * (0.6 + 0.6 * z) * catch
        depth = np.clip(depth * 0.99 + fallen * (air < 0.8) - 3.5 * np.clip(air, 0, None), 0, None)
        seen = np.round(np.clip(depth + (depth > 0) * (1.0 * random.standard_normal(stations)), 0, None))
        found.append(np.stack([seen, air + 0.4 * random.standard_normal(stations)], -1))
    about = Description("snow", ("depth", "T"), ("x", "y", "z"), time_units="days since 2021-10-15")
    return Network(np.arange(float(days)), np.concatenate([x, z[:, None]], 1), _missing(np.stack(found), random), about)


def tides(seed: int = 0, stations: int = 44, hours: int = 360) -> Network:
    """Level of the sea at gauges around a gulf: five tides that turn around points without any, more of them in shallow
    water, and surges."""
    random = np.random.default_rng([seed, 34])
    x = random.uniform(0, 1, (stations, 2)) * [300.0, 200.0]  # km
    t, level = np.arange(float(hours))[:, None], np.zeros((hours, stations))
    sizes = {12.4206: 1.0, 12.0: 0.35, 12.6583: 0.2, 23.9345: 0.25, 25.8193: 0.18, 6.2103: 0.08}
    for period, size in sizes.items():
        k = 2 * np.pi / (period * 60)  # a wave of 60 km an hour
        there = sum(a * np.exp(1j * (x @ (k * np.array([np.cos(b), np.sin(b)])) + c)) for a, b, c in zip(
            (1.0, 0.6, 0.3), random.uniform(0, 6.3, 3), random.uniform(0, 6.3, 3), strict=True))
        level += size * np.real(there * np.exp(-2j * np.pi * t / period))
    surge = np.zeros((hours, 2))
    for hour in range(1, hours):
        surge[hour] = 0.96 * surge[hour - 1] + 0.1 * random.standard_normal(2)
    level += surge @ np.stack([np.ones(stations), (x[:, 0] - 150) / 120])
    shallow = 0.06 * np.abs(random.standard_normal(stations))
    u = level + shallow * level**2 + 0.04 * random.standard_normal(level.shape)
    about = Description("tides", ("level",), ("x", "y"), time_units="hours since 2023-02-01")
    return Network(t[:, 0], x, _missing(u[..., None], random), about)
