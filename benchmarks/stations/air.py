"""Air of a city (skewed gases) and over vineyards (cold air drains into hollows); a town's sound."""

from __future__ import annotations

import numpy as np

from benchmarks.stations.base import Network, missing, rough
from inrflow.data.description import Description


def city(seed: int = 0, stations: int = 52, hours: int = 240) -> Network:
    """NO2, ozone, temperature and humidity: rush hours near roads, plumes carried by a turning wind, lognormal local
    factors that stay, an island of heat, ozone that NO2 uses up."""
    random = np.random.default_rng([seed, 14])
    x = random.normal(0, 6.0, (stations, 2)).clip(-15, 15)  # km
    t = np.arange(float(hours))
    near = np.exp(-(x**2).sum(1) / 60)
    road = 0.5 + np.exp(0.6 * random.standard_normal(stations)) * (0.3 + near)
    slow = np.zeros((3, hours))
    for k in range(1, hours):
        slow[:, k] = 0.96 * slow[:, k - 1] + 0.28 * random.standard_normal(3)
    rush = np.exp(-(((t % 24) - 8) ** 2) / 4) + np.exp(-(((t % 24) - 18) ** 2) / 8) + 0.25
    rush = rush * np.where((t // 24) % 7 < 5, 1.0, 0.55)
    sun = np.clip(np.sin(2 * np.pi * (t - 7) / 24), 0, None)
    mixing = np.exp(0.5 * slow[0]) * (0.6 + 1.2 * sun)
    angle = 0.8 * slow[1] + 0.05 * t
    along = x @ np.stack([np.cos(angle), np.sin(angle)])
    across = x @ np.stack([-np.sin(angle), np.cos(angle)])
    plume = np.exp(-0.5 * (across / 4) ** 2) / (1 + np.exp(-along / 3))
    background = 6 * np.exp(0.4 * slow[2])
    no2 = (background + rush * (14 * road[:, None] + 20 * plume) / mixing).T
    noise, site = random.standard_normal((4, hours, stations)), random.standard_normal((4, stations))
    air = 16 + 3 * slow[0][:, None] + 7 * np.sin(2 * np.pi * (t[:, None] - 9) / 24) + 2.2 * near * (1.3 - sun[:, None])
    air = air + 0.03 * x[:, 0] * slow[1][:, None] + 0.5 * site[2]
    ozone = np.clip(55 + 12 * slow[0][:, None] + 45 * sun[:, None] - 0.9 * no2, 2, None) * np.exp(0.08 * site[1])
    wet = 72 - 2.6 * (air - 16) + 6 * slow[1][:, None] + 2.5 * rough(x, 40, 20.0, 1.0, random) + 2 * site[3]
    u = np.stack([no2 * np.exp(0.12 * noise[0]), ozone + 2.5 * noise[1], air + 0.3 * noise[2],
                  np.clip(wet + 1.5 * noise[3], 5, 100)], -1)
    about = Description("city", ("NO2", "O3", "T", "RH"), ("x", "y"), time_units="hours since 2022-05-02")
    return Network(t, x, missing(u, random), about)


def vineyard(seed: int = 0, stations: int = 48, hours: int = 240) -> Network:
    """Hourly temperature, humidity and speed of wind with elevations: sun on slopes, fog, lakes of cold air that clear
    calm nights fill up to a level and the morning's sun drains, clouds and gusts that a wind carries."""
    random = np.random.default_rng([seed, 91])
    x = random.uniform(0, 1, (stations, 2)) * [24.0, 18.0]  # km
    relief = np.random.default_rng([seed, 92])
    waves = [relief.integers(1 << 30) for _ in range(3)]

    def height(y: np.ndarray) -> np.ndarray:  # m
        broad, fine = (rough(y, 50, scale, slope, np.random.default_rng(wave))
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
        cover = 1 / (1 + np.exp(-1.2 * (rough(x - drift * hour, 40, 14.0, 0.8, np.random.default_rng(waves[2]))
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
    return Network(t, np.concatenate([x, elevation[:, None]], 1), missing(u, random), about)


def sound(seed: int = 0, places: int = 56, frames: int = 260) -> Network:
    """Levels (dB) of a low and a high band every quarter of an hour: roads as lines of sources with traffic by the
    hour, events that come and go, wind; every microphone behind walls of its own."""
    random = np.random.default_rng([seed, 71])
    x = random.uniform(0, 1, (places, 2)) * [4.0, 3.0]  # km
    t = np.arange(float(frames)) / 4
    roads = [(random.uniform(0, 1, 2) * [4, 3], random.uniform(0, np.pi), random.uniform(-4, 4)) for _ in range(7)]
    hour = sum(a * np.exp(-(((t % 24 - b) / c) ** 2)) for a, b, c in ((1, 8, 2), (1, 17.5, 2.5), (0.4, 13, 4))) + 0.15
    power = np.zeros((2, frames, places))
    for middle, angle, level in roads:
        away = np.abs((x - middle) @ np.array([-np.sin(angle), np.cos(angle)])) + 0.03
        walk = np.cumsum(random.standard_normal(frames)) / np.sqrt(np.arange(1, frames + 1))
        for band, absorbed in enumerate((0.5, 2.5)):
            flow = (hour * np.exp(0.25 * walk))[:, None]
            power[band] += 10 ** ((62 + level) / 10) * flow * (0.1 / away) * np.exp(-absorbed * away)
    for _ in range(60):
        middle, when = random.uniform(0, 1, 2) * [4, 3], random.uniform(0, t[-1])
        lasts, level = random.uniform(0.2, 2.0), random.uniform(62, 85)
        away = np.sqrt(((x - middle) ** 2).sum(1)) + 0.05
        on = np.exp(-(((t - when) / lasts) ** 2))[:, None]
        for band, absorbed in enumerate((0.7, 3.0)):
            power[band] += 10 ** (level / 10) * on * (0.1 / away) ** 2 * np.exp(-absorbed * away)
    wind = np.zeros(frames)
    for k in range(1, frames):
        wind[k] = 0.97 * wind[k - 1] + 0.25 * random.standard_normal()
    power += np.stack([10 ** ((44 + 5 * wind) / 10), np.full(frames, 10**3.8)])[..., None]
    walls = np.stack([2.0 * random.standard_normal(places), 3.0 * random.standard_normal(places)])[:, None]
    u = 10 * np.log10(power) + walls + np.array([0.6, 0.8])[:, None, None] * random.standard_normal(power.shape)
    lost = random.random(u.shape[1:]) < 0.05
    for n in range(places):
        begin = random.integers(frames)
        lost[begin : begin + random.integers(0, 60), n] = True
    about = Description("sound", ("low", "high"), ("x", "y"), time_units="hours")
    return Network(t, x, np.where(lost[..., None], np.nan, np.moveaxis(u, 0, -1)), about)


NETWORKS = (city, vineyard, sound)
