"""Hourly networks of temperature, dew point, pressure and two winds from three further generators, none of which is a
draw of the process that the engine fits: a synoptic flow over hills, convective cells on a plain, a coast with sea
breezes and slope winds. Used by observations.py, as those of station_data.py.
"""

from __future__ import annotations

import numpy as np
from station_data import Network

from inrflow.data.description import Description

CHANNELS = ("T", "Td", "p", "u", "v")


def _missing(u: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """1 to 40 % of each station's reports missing, in runs, and 2 % of single values beside."""
    lost = np.zeros(u.shape[:2], dtype=bool)
    for n in range(u.shape[1]):
        share = 0.4 * random.random() ** 2 + 0.01
        while lost[:, n].mean() < share:
            begin = random.integers(len(u))
            lost[begin : begin + 1 + random.geometric(0.2), n] = True
    return np.where(lost[..., None] | (random.random(u.shape) < 0.02), np.nan, u)


def _rough(x: np.ndarray, count: int, scale: float, slope: float, random: np.random.Generator) -> np.ndarray:
    """A standardised field of the plane at points (N, 2): plane waves of lengths from `scale` down, power law."""
    size = scale / np.exp(random.uniform(0, 2.5, count))
    angle = random.uniform(0, 2 * np.pi, count)
    k = 2 * np.pi / size[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    weight = size**slope
    return np.cos(x @ k.T + random.uniform(0, 2 * np.pi, count)) @ (weight / np.sqrt((weight**2).sum() / 2))


def synoptic(seed: int = 0, stations: int = 60, hours: int = 240) -> Network:
    """Rotating and deepening lows in a jet, fronts along which temperature is sheared, hills: lapse rate and station
    pressure by height, winds geostrophic, turned towards lower pressure by friction and speeded up on hills, gusts."""
    random = np.random.default_rng([seed, 11])
    x = random.uniform(0, 1, (stations, 2)) * [900.0, 600.0]  # km
    height = 0.25 + 0.35 * np.clip(1 + _rough(x, 60, 500.0, 1.0, random), 0, None)  # km
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
    return Network(t, np.concatenate([x, 1000 * height[:, None]], 1), _missing(u, random), about)


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
    return Network(t, np.stack([5 + x[:, 0], 48 + x[:, 1]], 1), _missing(u, random), about)


def coast(seed: int = 0, stations: int = 56, hours: int = 192) -> Network:
    """A coast before mountains: the day's range grows inland, sea breezes and slope winds that turn with the day and
    run along the gradient of the terrain, pools of cold air, sea-level pressure with errors; elevation is a column."""
    random = np.random.default_rng([seed, 13])
    x = random.uniform(0, 1, (stations, 2)) * [120.0, 160.0]  # km
    state = random.integers(1 << 30)

    def terrain(y: np.ndarray) -> np.ndarray:
        ridges = np.clip(1 + 0.8 * _rough(y, 50, 90.0, 1.0, np.random.default_rng(state)), 0, None)
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
    return Network(t, np.concatenate([x, 1000 * height[:, None]], 1), _missing(u, random), about)
