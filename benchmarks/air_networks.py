"""Two further hourly networks of independent generators: the air of a city (skewed gases beside temperature) and the
waters of a delta (tides that run up channels, a front of salt). Used by observations.py, as those of station_data.py.
"""

from __future__ import annotations

import numpy as np
from station_data import Network
from weather_networks import _missing, _rough

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
    wet = 72 - 2.6 * (air - 16) + 6 * slow[1][:, None] + 2.5 * _rough(x, 40, 20.0, 1.0, random) + 2 * site[3]
    u = np.stack([no2 * np.exp(0.12 * noise[0]), ozone + 2.5 * noise[1], air + 0.3 * noise[2],
                  np.clip(wet + 1.5 * noise[3], 5, 100)], -1)
    about = Description("city", ("NO2", "O3", "T", "RH"), ("x", "y"), time_units="hours since 2022-05-02")
    return Network(t, x, _missing(u, random), about)


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
    bends = 4 * _rough(x, 40, 30.0, 1.0, random)
    way = x[:, 0] + bends
    late, damped = way / 22, np.exp(-way / 55)
    tide = damped * (1.1 * np.cos(2 * np.pi * (t - late) / 12.42) + 0.35 * np.cos(2 * np.pi * (t - late) / 12.0 + 1)
                     + 0.15 * np.cos(2 * np.pi * (t - late) / 25.8))
    storm = np.stack([np.interp(t[:, 0] - 1.5 * one, t[:, 0], surge) for one in late], 1) * damped
    front = 25 + 9 * tide + 12 * storm - 10 * flow[:, None] + 0.15 * (x[:, 1] - 20)
    salt = 34 / (1 + np.exp((way - front) / 4))
    depth = np.exp(0.5 * _rough(x, 60, 25.0, 0.8, random) + 0.3 * random.standard_normal(stations))
    sun = np.sin(2 * np.pi * (t - 10) / 24)
    water = 15 + 0.05 * way + 1.6 * sun / depth + 2.0 * flow[:, None] * (1 - salt / 34) + 0.6 * np.sin(t / 60)
    speed = np.abs(np.gradient(tide + storm, axis=0))
    mud = np.exp(2.2 + 2.5 * speed - 0.3 * depth + 0.8 * np.exp(-(((way - front) / 6) ** 2)) + 0.4 * flow[:, None])
    noise, site = random.standard_normal((4, hours, stations)), random.standard_normal((4, stations))
    u = np.stack([tide + storm + 0.006 * way + 0.05 * site[0] + 0.03 * noise[0],
                  np.clip(salt + 0.8 * noise[1] + 0.6 * site[1], 0, None), water + 0.15 * noise[2] + 0.2 * site[2],
                  mud * np.exp(0.2 * site[3] + 0.15 * noise[3])], -1)
    about = Description("delta", ("level", "salt", "T", "mud"), ("x", "y"), time_units="hours since 2023-03-01")
    return Network(t[:, 0], x, _missing(u, random), about)
