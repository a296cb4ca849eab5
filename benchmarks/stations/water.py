"""Rivers, soil moisture, snow, tides, a delta and the sea: amounts that are skewed and never negative among them."""

from __future__ import annotations

import numpy as np

from benchmarks.stations.base import Network, gappy, missing, rough
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
    return Network(np.arange(float(hours)), x[:, None], missing(u, random), about)


def soil(seed: int = 0, stations: int = 64, days: int = 250) -> Network:
    """Moisture of two layers: showers and lasting rain that wet them, which dry, the quicker the wetter, as their soil
    holds; by day."""
    random = np.random.default_rng([seed, 32])
    x = random.uniform(0, 1, (stations, 2)) * [120.0, 90.0]  # km
    holds = np.exp(0.35 * rough(x, 60, 30.0, 0.8, random) + 0.2 * random.standard_normal(stations))
    dries = np.exp(0.3 * rough(x, 60, 40.0, 0.8, random))
    (top, deep), found = np.full((2, stations), 0.15), []
    for day in range(days):
        fallen = np.zeros(stations)
        if random.random() < 0.25:  # a front
            fallen = 6 * random.gamma(1.0) * np.exp(0.5 * rough(x, 30, 50.0, 1.0, random))
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
    return Network(np.arange(float(days)), x, missing(u, random), about)


def snow(seed: int = 0, stations: int = 70, days: int = 240) -> Network:
    """Depth of snow and temperature from autumn to summer at different elevations: none below the snow line."""
    random = np.random.default_rng([seed, 33])
    x = random.uniform(0, 1, (stations, 2)) * [80.0, 60.0]
    z = np.clip(0.4 + 0.02 * x[:, 0] + 0.5 * rough(x, 60, 14.0, 0.8, random), 0.05, None)  # km
    catch = np.exp(0.3 * rough(x, 60, 12.0, 0.8, random) + 0.15 * random.standard_normal(stations))
    slow, depth, found = 0.0, np.zeros(stations), []
    for day in range(days):
        slow = 0.85 * slow + 1.8 * random.standard_normal()
        air = 7 - 11 * np.sin(np.pi * day / 170) * (day < 170) + 0.13 * (day - 170) * (day >= 170) + slow - 6.0 * z
        air = air + 0.8 * rough(x, 20, 30.0, 1.0, random)
        fallen = np.zeros(stations)
        if random.random() < 0.35:
            fallen = 9 * random.gamma(0.9) * np.exp(0.5 * rough(x, 30, 25.0, 1.0, random)) * (0.6 + 0.6 * z) * catch
        depth = np.clip(depth * 0.99 + fallen * (air < 0.8) - 3.5 * np.clip(air, 0, None), 0, None)
        seen = np.round(np.clip(depth + (depth > 0) * (1.0 * random.standard_normal(stations)), 0, None))
        found.append(np.stack([seen, air + 0.4 * random.standard_normal(stations)], -1))
    about = Description("snow", ("depth", "T"), ("x", "y", "z"), time_units="days since 2021-10-15")
    return Network(np.arange(float(days)), np.concatenate([x, z[:, None]], 1), missing(np.stack(found), random), about)


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
    return Network(t[:, 0], x, missing(u[..., None], random), about)


def delta(seed: int = 0, stations: int = 54, hours: int = 260) -> Network:
    """Level, salinity, temperature and turbidity of water: two tides and a surge that run up from the sea, damped and
    delayed on the way, a front of salt that moves with them, shallow places that follow the sun."""
    random = np.random.default_rng([seed, 15])
    x = random.uniform(0, 1, (stations, 2)) * [60.0, 40.0]  # km from the sea, along it
    t = np.arange(float(hours))[:, None]
    flow, surge = np.zeros((2, hours))
    for k in range(1, hours):
        flow[k] = 0.99 * flow[k - 1] + 0.14 * random.standard_normal()
        surge[k] = 0.93 * surge[k - 1] + 0.12 * random.standard_normal()
    bends = 4 * rough(x, 40, 30.0, 1.0, random)
    way = x[:, 0] + bends
    late, damped = way / 22, np.exp(-way / 55)
    tide = damped * (1.1 * np.cos(2 * np.pi * (t - late) / 12.42) + 0.35 * np.cos(2 * np.pi * (t - late) / 12.0 + 1)
                     + 0.15 * np.cos(2 * np.pi * (t - late) / 25.8))
    storm = np.stack([np.interp(t[:, 0] - 1.5 * one, t[:, 0], surge) for one in late], 1) * damped
    front = 25 + 9 * tide + 12 * storm - 10 * flow[:, None] + 0.15 * (x[:, 1] - 20)
    salt = 34 / (1 + np.exp((way - front) / 4))
    depth = np.exp(0.5 * rough(x, 60, 25.0, 0.8, random) + 0.3 * random.standard_normal(stations))
    sun = np.sin(2 * np.pi * (t - 10) / 24)
    water = 15 + 0.05 * way + 1.6 * sun / depth + 2.0 * flow[:, None] * (1 - salt / 34) + 0.6 * np.sin(t / 60)
    speed = np.abs(np.gradient(tide + storm, axis=0))
    mud = np.exp(2.2 + 2.5 * speed - 0.3 * depth + 0.8 * np.exp(-(((way - front) / 6) ** 2)) + 0.4 * flow[:, None])
    noise, site = random.standard_normal((4, hours, stations)), random.standard_normal((4, stations))
    u = np.stack([tide + storm + 0.006 * way + 0.05 * site[0] + 0.03 * noise[0],
                  np.clip(salt + 0.8 * noise[1] + 0.6 * site[1], 0, None), water + 0.15 * noise[2] + 0.2 * site[2],
                  mud * np.exp(0.2 * site[3] + 0.15 * noise[3])], -1)
    about = Description("delta", ("level", "salt", "T", "mud"), ("x", "y"), time_units="hours since 2023-03-01")
    return Network(t[:, 0], x, missing(u, random), about)


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
    return Network(t, x, gappy(u, gaps, random), about)


NETWORKS = (river, soil, snow, tides, delta, buoys)
