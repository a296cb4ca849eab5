"""Two networks of independent generators unlike the others, made to be looked at once: sound of a town at microphones,
heads of an aquifer at wells. Used by observations.py, as those of station_data.py.
"""

from __future__ import annotations

import numpy as np
from scipy.special import exp1
from station_data import Network

from inrflow.data.description import Description


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


def wells(seed: int = 0, places: int = 60, frames: int = 220) -> Network:
    """Heads of an aquifer (m) and the logarithm of its conductivity at clustered wells by day: a regional gradient,
    rain that seeps through the later the deeper, pumps that switch (Theis), a river, salt; errors of datum."""
    random = np.random.default_rng([seed, 72])
    centres = random.uniform(0, 1, (7, 2)) * [12.0, 8.0]
    x = np.clip(centres[random.integers(7, size=places)] + random.normal(0, 1.1, (places, 2)), [0, 0], [12, 8])  # km
    t = np.arange(float(frames))
    rain = random.gamma(0.35, 8.0, frames + 400) * (random.random(frames + 400) < 0.4)
    rough = np.exp(0.4 * np.sin(0.8 * x[:, 0]) + 0.3 * np.cos(1.1 * x[:, 1]) + 0.2 * random.standard_normal(places))
    head = 40 - 0.9 * x[:, 0] + 0.35 * np.sin(1.3 * x[:, 1]) * np.ones((frames, 1))
    age = np.arange(1.0, 400.0)
    for n, delay in enumerate(25 * rough):
        seeps = age * np.exp(-age / delay)
        head[:, n] += 0.35 * np.convolve(rain, seeps / seeps.sum())[400 : 400 + frames]
    stored, carried = 0.12, 0.9  # per km2 and day
    for _ in range(9):
        squares = ((x - random.uniform(0, 1, 2) * [12, 8]) ** 2).sum(1) + 0.01
        switched, pumped = np.sort(random.choice(frames, 4, replace=False)), random.uniform(0.3, 1.2)
        for number, start in enumerate(switched):
            since = np.clip(t - start, 1e-9, None)[:, None]
            drawn = pumped * exp1(np.minimum(squares * stored / (4 * carried * since), 700)) * (t > start)[:, None]
            head -= drawn if number % 2 == 0 else -drawn
    stage = np.zeros(frames)
    for k in range(1, frames):
        stage[k] = 0.95 * stage[k - 1] + 0.02 * (rain[400 + k] - rain.mean())
    head += 2.0 * stage[:, None] * np.exp(-x[:, 1] / 1.5)
    fresh = 1 - 1 / (1 + np.exp((x[:, 0] - 8 - 0.4 * (head - head.mean(0))) / 0.6))
    salt = np.log(350 + 2600 * fresh) + 0.08 * np.sin(2 * np.pi * t / 365)[:, None]
    u = np.stack([head + 0.12 * random.standard_normal(places) + 0.03 * random.standard_normal(head.shape),
                  salt + 0.1 * random.standard_normal(places) + 0.03 * random.standard_normal(head.shape)], -1)
    u[random.random(u.shape[:2]) < 0.12] = np.nan
    about = Description("wells", ("head", "log_conductivity"), ("x", "y"), time_units="days")
    return Network(t, x, u, about)
