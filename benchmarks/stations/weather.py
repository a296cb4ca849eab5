"""Hourly weather: waves carried by a wind, lows with fronts, a synoptic flow over hills, convective cells, a coast."""

from __future__ import annotations

import numpy as np

from benchmarks.stations.base import Network, carried, gappy, missing, rough
from inrflow.data.description import Description


def weather(seed: int = 0, stations: int = 60, hours: int = 480, gaps: float = 0.1) -> Network:
    """Hourly temperature, dew point, pressure and winds: anisotropic waves carried by a wind, a diurnal cycle whose
    strength depends on the place, an elevation that no column shows, siting errors that stay, geostrophic winds."""
    random = np.random.default_rng([seed, 1])
    x = random.uniform(0, 1, (stations, 2)) * [4.0, 3.0]
    t = np.arange(float(hours))
    hills = np.sin(1.3 * x[:, 0] + 0.4) * np.cos(1.7 * x[:, 1]) + 0.3 * np.sin(5.1 * x[:, 0] + 2.0 * x[:, 1])
    moved = {"lengths": (6.0, 4.0), "wind": np.array([0.12, 0.03])}
    def pressure_at(y: np.ndarray) -> np.ndarray:
        return carried(y, t, np.random.default_rng([seed, 2]), memory=40.0, waves=160, slope=3.2, **moved)

    pressure, step = pressure_at(x), 1e-3
    east = pressure_at(x + [step, 0]) - pressure_at(x - [step, 0])
    north = pressure_at(x + [0, step]) - pressure_at(x - [0, step])
    air = carried(x, t, random, memory=25.0, waves=160, slope=2.2, **moved)
    sun = np.clip(np.sin(2 * np.pi * (t[:, None] - 8 - 0.4 * x[:, 0]) / 24), -0.3, None) * (1 + 0.3 * hills)
    local = {"lengths": (1.2, 1.0), "wind": np.array([0.2, 0.1]), "memory": 3.0, "waves": 120, "slope": 1.2}
    noise = random.standard_normal((5, hours, stations))
    site = random.standard_normal((5, stations))
    temperature = 12 + 4 * air + 4 * sun - 2.5 * hills + 0.5 * site[0] + 0.7 * carried(x, t, random, **local)
    dew = 6 + 3 * (0.7 * air + 0.7 * carried(x, t, random, memory=30.0, waves=160, slope=2.0, **moved)) - 1.5 * hills
    dew += 0.5 * site[1] + 0.9 * carried(x, t, random, **local)
    u = np.stack([
        temperature + 0.4 * noise[0], dew + 0.4 * noise[1], 1013 + 6 * pressure + 0.3 * site[2] + 0.3 * noise[2],
        -3 * north / np.std(north) + 0.8 * site[3] + 1.8 * carried(x, t, random, **local) + 1.0 * noise[3],
        3 * east / np.std(east) + 0.8 * site[4] + 1.8 * carried(x, t, random, **local) + 1.0 * noise[4],
    ], -1)
    about = Description("weather", ("T", "Td", "p", "u", "v"), ("x", "y"), time_units="hours")
    return Network(t, x, gappy(u, gaps, random), about)


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
    return Network(t, x, gappy(u, gaps, random), about)


CHANNELS = ("T", "Td", "p", "u", "v")


def synoptic(seed: int = 0, stations: int = 60, hours: int = 240) -> Network:
    """Rotating and deepening lows in a jet, fronts along which temperature is sheared, hills: lapse rate and station
    pressure by height, winds geostrophic, turned towards lower pressure by friction and speeded up on hills, gusts."""
    random = np.random.default_rng([seed, 11])
    x = random.uniform(0, 1, (stations, 2)) * [900.0, 600.0]  # km
    height = 0.25 + 0.35 * np.clip(1 + rough(x, 60, 500.0, 1.0, random), 0, None)  # km
    t = np.arange(float(hours))
    lows = [(random.uniform(-200, hours), random.uniform(20, 45), random.uniform(-8, 8), random.uniform(-2, 2),
             random.uniform(150, 350), random.uniform(4, 14), random.uniform(-500, 1000), random.uniform(0, 600))
            for _ in range(3 + hours // 16)]

    def sea_level(y: np.ndarray) -> np.ndarray:
        total = 1015 - 0.012 * y[None, :, 1] + 0 * t[:, None]
        for birth, speed, turn, drift, width, depth, east, north in lows:
            age = (t - birth)[:, None]
            life = np.exp(-0.5 * ((age - 40) / 25) ** 2)
            dx, dy = y[None, :, 0] - east - speed * (age - 40), y[None, :, 1] - north - drift * (age - 40)
            angle = np.deg2rad(turn * age)
            a, b = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
            total = total - depth * life * np.exp(-0.5 * ((a / (1.5 * width)) ** 2 + (b / width) ** 2))
        return total

    p, step = sea_level(x), 2.0
    east = (sea_level(x + [step, 0]) - sea_level(x - [step, 0])) / (2 * step)
    north = (sea_level(x + [0, step]) - sea_level(x - [0, step])) / (2 * step)
    geo = 100 * np.stack([-north, east])
    turned = 0.7 * np.stack([0.9 * geo[0] - 0.42 * geo[1], 0.9 * geo[1] + 0.42 * geo[0]])
    exposure = np.exp(0.25 * random.standard_normal(stations)) * (0.7 + 0.5 * height)
    front = np.tanh((x[None, :, 0] - 100 - 25 * ((t[:, None] + 0.02 * x[None, :, 1]) % 70) + 0.1 * x[None, :, 1]) / 60)
    sun = np.clip(np.sin(2 * np.pi * (t - 8) / 24), -0.4, None)[:, None]
    cloud = 1 / (1 + np.exp((p - 1008) / 4))
    lapse = -5.5 - 1.0 * sun
    noise, site = random.standard_normal((5, hours, stations)), random.standard_normal((5, stations))
    air = 14 - 0.01 * x[None, :, 1] + 2.5 * front + 6 * sun * (1 - 0.6 * cloud) + lapse * height
    air = air + 0.5 * site[0] + 0.4 * noise[0]
    dew = 8 - 0.008 * x[None, :, 1] + 2.0 * front + 4 * cloud - 2.5 * height + 0.6 * site[1] + 0.6 * noise[1]
    gusts = 0.15 * np.abs(geo).mean(0) + 0.4
    u = np.stack([air, np.minimum(dew, air - 0.1), p * np.exp(-height / 8.3) + 0.2 * site[2] + 0.15 * noise[2],
                  turned[0] * exposure + gusts * noise[3] + 0.4 * site[3],
                  turned[1] * exposure + gusts * noise[4] + 0.4 * site[4]], -1)
    about = Description("synoptic", CHANNELS, ("x", "y", "elevation"), time_units="hours since 2021-03-01")
    return Network(t, np.concatenate([x, 1000 * height[:, None]], 1), missing(u, random), about)


def convective(seed: int = 0, stations: int = 60, hours: int = 168) -> Network:
    """A plain in summer: a weak large-scale flow, a day's cycle, and in the afternoons cells that move with the wind:
    cold pools with outflow, moist rings and small highs of pressure."""
    random = np.random.default_rng([seed, 12])
    x = random.uniform(0, 1, (stations, 2)) * [3.0, 2.4]  # degrees
    t = np.arange(float(hours))
    day = np.sin(2 * np.pi * (t - 9) / 24)[:, None]
    slow = 2 * np.pi * t[:, None] / 97
    p = 1012 + 2 * np.cos(slow + x[None, :, 0] + 0.5 * x[None, :, 1]) + 0.8 * np.cos(4 * np.pi * (t[:, None] - 10) / 24)
    wind = np.stack([2.5 + 2 * np.cos(slow + 0.4 * x[None, :, 1]), 1.5 * np.sin(1.3 * slow + 0.5 * x[None, :, 0])])
    air = 24 + 6 * day + 1.2 * np.sin(slow + 0.7 * x[None, :, 0]) - 0.8 * x[None, :, 1]
    dew = 15 - 0.9 * day + 2 * np.sin(0.8 * slow - 0.8 * x[None, :, 1])
    for _ in range(hours):
        start = 24 * random.integers(hours / 24) + random.normal(16, 2.5)
        where, size, life = random.uniform([-0.5, -0.3], [3.2, 2.6]), random.uniform(0.2, 0.6), random.uniform(2, 5)
        force = random.gamma(2, 0.5)
        age = t[:, None] - start
        grown = np.where(age > 0, np.clip(age / 1.5, 0, 1) * np.exp(-age / life), 0.0)
        away = x[None] - where - 0.12 * age[..., None] * [1.0, 0.3]
        distance = np.sqrt((away**2).sum(-1))
        pool = grown * force * np.exp(-0.5 * (distance / size) ** 2)
        air = air - 4 * pool
        p = p + 0.9 * pool
        dew = dew + 1.5 * grown * force * (np.exp(-0.5 * ((distance - size) / (0.5 * size)) ** 2) - 0.6 * pool)
        wind = wind + 5 * pool * np.moveaxis(away, -1, 0) / size
    noise, site = random.standard_normal((5, hours, stations)), random.standard_normal((5, stations))
    exposure = np.exp(0.3 * random.standard_normal(stations))
    u = np.stack([air + 0.6 * site[0] + 0.3 * noise[0], np.minimum(dew + 0.5 * site[1] + 0.4 * noise[1], air),
                  p + 0.25 * site[2] + 0.1 * noise[2], wind[0] * exposure + 0.9 * noise[3],
                  wind[1] * exposure + 0.9 * noise[4]], -1)
    about = Description("convective", CHANNELS, ("lon", "lat"), time_units="hours since 2021-07-01")
    return Network(t, np.stack([5 + x[:, 0], 48 + x[:, 1]], 1), missing(u, random), about)


def coast(seed: int = 0, stations: int = 56, hours: int = 192) -> Network:
    """A coast before mountains: the day's range grows inland, sea breezes and slope winds that turn with the day and
    run along the gradient of the terrain, pools of cold air, sea-level pressure with errors; elevation is a column."""
    random = np.random.default_rng([seed, 13])
    x = random.uniform(0, 1, (stations, 2)) * [120.0, 160.0]  # km
    state = random.integers(1 << 30)

    def terrain(y: np.ndarray) -> np.ndarray:
        ridges = np.clip(1 + 0.8 * rough(y, 50, 90.0, 1.0, np.random.default_rng(state)), 0, None)
        return 0.9 * np.clip((y[:, 0] - 20) / 100, 0, None) * ridges

    height, inland = terrain(x), 1 - np.exp(-x[:, 0] / 25)
    slope = np.stack([terrain(x + e) - terrain(x - e) for e in ([0.5, 0.0], [0.0, 0.5])])
    t = np.arange(float(hours))
    weather = np.zeros((4, hours))
    for k in range(1, hours):
        weather[:, k] = 0.97 * weather[:, k - 1] + 0.24 * random.standard_normal(4)
    a, b, c, d = weather[..., None]
    sun = np.sin(2 * np.pi * (t - 8.5) / 24)[:, None]
    lag = np.sin(2 * np.pi * (t - 10.5) / 24)[:, None]
    air = 17 + 2 * a + (2 + 5 * inland) * sun * (1 - 0.3 * np.clip(b, 0, 1)) - 6.3 * height
    air = air + a * 0.03 * (x[:, 1] - 80) / 3 - 3 * np.clip(-sun, 0, 1) * np.exp(-((height / 0.25) ** 2)) * inland
    dew = 11 + 2 * b - 3 * inland * (1 + 0.5 * c) - 2.5 * height + 0.02 * (x[:, 1] - 80) * d
    p = 1016 + 4 * c + (0.02 * d * (x[:, 1] - 80) + 0.015 * a * (x[:, 0] - 60)) - 0.6 * inland * lag
    breeze = np.exp(-x[:, 0] / 40) * np.clip(lag, -0.4, 1)
    climb = 90 * np.clip(sun, -0.6, 1) * slope[:, None]
    winds = [3 * breeze + 1.5 * d + climb[0], -2.0 * a + 0.01 * c * (x[:, 0] - 60) + climb[1]]
    noise, site = random.standard_normal((5, hours, stations)), random.standard_normal((5, stations))
    u = np.stack([air + 0.6 * site[0] + 0.4 * noise[0], np.minimum(dew + 0.6 * site[1] + 0.5 * noise[1], air),
                  p + 0.5 * site[2] * (0.2 + height) + 0.15 * noise[2], winds[0] + 0.5 * site[3] + 0.7 * noise[3],
                  winds[1] + 0.5 * site[4] + 0.7 * noise[4]], -1)
    about = Description("coast", CHANNELS, ("x", "y", "elevation"), time_units="hours since 2021-06-01")
    return Network(t, np.concatenate([x, 1000 * height[:, None]], 1), missing(u, random), about)


NETWORKS = (weather, fronts, synoptic, convective, coast)
