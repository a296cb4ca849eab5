"""What the ground decides: heads of aquifers, soil by depth, winds in terrain, plumes, currents above the Earth."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.sparse import diags
from scipy.sparse.linalg import factorized
from scipy.special import exp1

from benchmarks.stations.base import Network, missing, rough
from inrflow.data.description import Description


def _divergence(k: np.ndarray, held: np.ndarray, spacing: float) -> diags:
    """div(k grad) of cells (n, m), harmonic means between them, no flux at walls, a unit loss where `held`."""
    east, north = (2 * a * b / (a + b) / spacing**2 for a, b in ((k[1:], k[:-1]), (k[:, 1:], k[:, :-1])))
    n, m = k.shape
    a, b = np.zeros((n, m)), np.zeros((n, m))
    a[:-1], b[:, :-1] = east, north
    whole = np.zeros((n, m))
    whole[:-1] += east
    whole[1:] += east
    whole[:, :-1] += north
    whole[:, 1:] += north
    a, b = a.reshape(-1)[:-m], b.reshape(-1)[:-1]
    return diags([a, b, -(whole + held).reshape(-1), b, a], [-m, -1, 0, 1, m]).tocsc()


def _grid(shape: tuple[int, int], spacing: float) -> np.ndarray:
    """Centres (n m, 2) of cells."""
    axes = [spacing * (np.arange(n) + 0.5) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def _at(cells: np.ndarray, x: np.ndarray, spacing: float) -> np.ndarray:
    return map_coordinates(cells, (x / spacing - 0.5).T, order=1, mode="nearest")


def aquifer(seed: int = 0, places: int = 56, months: int = 120) -> Network:
    """Heads (m) and temperature of groundwater by month: flow through layers of unlike transmissivity to a river and a
    lake, recharge by season and by year, pumps that run in summer; finite volumes; errors of datum."""
    random = np.random.default_rng([seed, 81])
    shape, spacing = (60, 44), 0.5  # km
    cells = _grid(shape, spacing)
    k = np.exp(0.9 * rough(cells, 60, 15.0, 0.8, random)).reshape(shape) * 0.03  # km2 a month
    held = np.zeros(shape)
    held[np.arange(60), (8 + 5 * np.sin(np.arange(60) / 9)).astype(int)] = 0.4
    held[40:48, 30:38] = 0.4
    level = 50 + 0.25 * np.arange(60)[:, None] + np.zeros(shape)
    store, flow = 0.05, _divergence(k, held, spacing)
    step = factorized(diags(np.full(k.size, store)) - flow)
    soaks = np.exp(0.4 * rough(cells, 40, 12.0, 0.8, random)).reshape(shape)
    head, years = level.copy(), 1 + 0.3 * random.standard_normal(60 + months // 12 + 1)
    wells = [(random.integers(60), random.integers(44), random.uniform(0.05, 0.25)) for _ in range(8)]
    found = []
    for month in range(600 + months):
        wet = max(0.0, 0.012 * (0.6 + np.cos(2 * np.pi * (month - 1) / 12)) * years[month // 12])
        source = wet * soaks
        for i, j, drawn in wells:
            source[i, j] -= drawn * (month % 12 in (4, 5, 6, 7, 8)) * (month > 630 or drawn > 0.1) * 0.4
        head = step((store * head + source + held * level).reshape(-1)).reshape(shape)
        found.append(head)
    x = np.clip(random.uniform(0, 1, (places, 2)), 0.02, 0.98) * [30.0, 22.0]
    t = np.arange(float(months))
    heads = np.stack([_at(one, x, spacing) for one in found[600:]])
    deep = random.uniform(4, 25, places)
    warm = 10 + 0.6 * rough(x, 30, 18.0, 1.0, random) + 0.03 * deep + 0.004 * t[:, None]
    warm = warm + 7 * np.exp(-deep / 5) * np.cos(2 * np.pi * t[:, None] / 12 - deep / 5 - 3.5)
    u = np.stack([heads + 0.25 * random.standard_normal(places) + 0.05 * random.standard_normal(heads.shape),
                  warm + 0.1 * random.standard_normal(heads.shape)], -1)
    return Network(t, x, missing(u, random), Description("aquifer", ("head", "T"), ("x", "y"), time_units="months"))


def fjord(seed: int = 0, stations: int = 52, hours: int = 240) -> Network:
    """Two winds and pressure every hour: flow without divergence through a layer that hills make thin, of any wind
    above (two potential flows, finite volumes), a wind of the day along valleys, gusts, sheltered places."""
    random = np.random.default_rng([seed, 82])
    shape, spacing = (64, 64), 1.5  # km
    cells = _grid(shape, spacing)
    hills = np.clip(1 + rough(cells, 60, 45.0, 1.2, random), 0, None).reshape(shape)
    deep = np.clip(2.2 - 0.8 * hills, 0.15, None)
    flows, held = [], np.zeros(shape)
    held[0, 0] = 1e-6
    solve = factorized(_divergence(deep, held, spacing))
    for axis in range(2):  # potentials whose gradient is one at the walls
        source = np.zeros(shape)
        first, last = [(0, slice(None)), (slice(None), 0)][axis], [(-1, slice(None)), (slice(None), -1)][axis]
        source[first] += deep[first].mean() / spacing
        source[last] -= deep[last].mean() / spacing
        potential = solve(source.reshape(-1)).reshape(shape)
        flows.append([np.clip(g, -1.8, 1.8) for g in np.gradient(potential, spacing)])
    valley = np.stack(np.gradient(-hills, spacing))
    valley = 4 * valley / (0.1 + np.sqrt((valley**2).sum(0)))
    x = random.uniform(2, 94, (stations, 2))
    above = np.zeros((4, hours))
    for hour in range(1, hours):
        above[:, hour] = 0.95 * above[:, hour - 1] + 0.31 * random.standard_normal(4)
    t = np.arange(float(hours))
    day = np.sin(2 * np.pi * (t - 11) / 24) * (1 + 0.3 * above[3])
    shelter = np.exp(0.25 * random.standard_normal(stations))
    east, north = 5 * above[0][:, None] + 0.02 * x[:, 1] * above[3][:, None], 4 * above[1][:, None] - 1
    winds = [shelter * (east * _at(flows[0][i], x, spacing) + north * _at(flows[1][i], x, spacing))
             + 0.4 * day[:, None] * _at(valley[i], x, spacing) for i in range(2)]
    speed = np.sqrt(winds[0] ** 2 + winds[1] ** 2)
    noise = random.standard_normal((3, hours, stations))
    p = 1010 + 6 * above[2][:, None] - 0.05 * (x[:, 0] * above[1][:, None] - x[:, 1] * above[0][:, None])
    u = np.stack([winds[0] + (0.4 + 0.15 * speed) * noise[0], winds[1] + (0.4 + 0.15 * speed) * noise[1],
                  p + 0.3 * random.standard_normal(stations) + 0.15 * noise[2]], -1)
    return Network(t, x, missing(u, random), Description("fjord", ("u", "v", "p"), ("x", "y"), time_units="hours"))


def smelter(seed: int = 0, stations: int = 54, days: int = 200) -> Network:
    """Dust and sulphur by day, lognormal: plumes of chimneys that a turning wind carries (24 puffs a day), hearths of
    villages in cold weather, a background that comes from afar, dust of roads."""
    random = np.random.default_rng([seed, 83])
    x = random.uniform(0, 1, (stations, 2)) * [60.0, 45.0]
    chimneys = [(random.uniform(0.1, 0.9, 2) * [60, 45], random.uniform(0.3, 2.0)) for _ in range(6)]
    villages = [(random.uniform(0, 1, 2) * [60, 45], random.uniform(1, 5)) for _ in range(9)]
    homes = sum(np.exp(-((x - middle) ** 2).sum(1) / (2 * width**2)) for middle, width in villages)
    t, angle, speed, far = np.arange(float(days)), random.uniform(0, 6.3), 3.0, 0.0
    dust, sulphur = np.zeros((2, days, stations))
    for day in range(days):
        far = 0.75 * far + 0.4 * random.standard_normal()
        cold = np.clip(np.cos(2 * np.pi * (day - 15) / 365) + 0.3 * random.standard_normal(), 0, None)
        for _ in range(24):
            angle += 0.25 * random.standard_normal() + 0.1 * np.sin(0.7 - angle)
            speed = np.clip(speed + 0.4 * random.standard_normal() - 0.1 * (speed - 3), 0.8, 8)
            for middle, power in chimneys:
                east, north = (x - middle).T
                along = east * np.cos(angle) + north * np.sin(angle)
                across = north * np.cos(angle) - east * np.sin(angle)
                width = 0.3 + 0.18 * np.clip(along, 0, None) ** 0.85
                plume = np.where(along > 0, np.exp(-0.5 * (across / width) ** 2) / (width**1.5 * speed), 0)
                sulphur[day] += 8 * power * plume / 24
                dust[day] += 2 * power * plume / 24
        dust[day] += 14 * np.exp(0.5 * far + 0.002 * (x[:, 0] - 30) * far) + 12 * cold * homes / speed**0.5
        sulphur[day] += 1.5 * np.exp(0.4 * far) + 2 * cold * homes / speed**0.5
    roads, noise = np.exp(0.25 * random.standard_normal(stations)), random.standard_normal((2, days, stations))
    u = np.stack([dust * roads * np.exp(0.12 * noise[0]), np.log(sulphur + 0.3) + 0.1 * noise[1]], -1)
    about = Description("smelter", ("dust", "log_SO2"), ("x", "y"), time_units="days since 2022-11-01")
    return Network(t, x, missing(u, random), about)


def borehole(seed: int = 0, places: int = 20, days: int = 365) -> Network:
    """Temperature of soil at one to four depths a place: conduction with the diffusivity of each place, snow that
    insulates, water that freezes slowly, an elevation that no column shows; finite volumes by depth."""
    random = np.random.default_rng([seed, 84])
    where = random.uniform(0, 1, (places, 2)) * [40.0, 30.0]
    height = 0.5 * rough(where, 40, 20.0, 1.0, random)
    rate = 0.05 * np.exp(0.3 * rough(where, 40, 15.0, 0.6, random) + 0.2 * random.standard_normal(places))  # m2 a day
    cells, size = 80, 0.1
    ground, slow, snow, found = np.full((cells, places), 8.0) - 4 * height, 0.0, np.zeros(places), []
    for day in range(2 * 365 + days):
        slow = 0.85 * slow + 1.5 * random.standard_normal()
        air = 8 - 11 * np.cos(2 * np.pi * (day - 20) / 365) + slow - 5 * height
        snow = np.clip(snow + (air < 0) * (random.random() < 0.3) * 12 - 2.0 * np.clip(air, 0, None), 0, 80)
        for _ in range(30):
            slower = rate / (1 + 3 * np.exp(-(ground**2) / 0.3))
            above = ground[0] + (air - ground[0]) / (1 + snow / 10)
            up = np.diff(np.concatenate([above[None], ground, ground[-1:]]), axis=0) / size
            ground = ground + slower * np.diff(up, axis=0) / size / 30
        found.append(ground.copy())
    x, values = [], []
    for n in range(places):
        for depth in np.sort(random.choice([0.05, 0.2, 0.5, 1.0, 2.0, 4.0], random.integers(2, 5), replace=False)):
            x.append([*where[n], depth])
            values.append(np.stack(found[730:])[:, int(depth / size), n])
    u = np.stack(values, 1)[..., None] + 0.15 * random.standard_normal((1, len(x), 1))
    u = u + 0.1 * random.standard_normal(u.shape)
    about = Description("borehole", ("T",), ("x", "y", "depth"), time_units="days since 2021-09-01")
    return Network(np.arange(float(days)), np.array(x), missing(u, random), about)


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


def magnetic(seed: int = 0, stations: int = 44, frames: int = 300) -> Network:
    """Three components (nT) every five minutes: line currents of a jet that moves and swells in substorms, currents of
    the day, a ring current, pulsations by latitude; what is induced below, by the ground of each place (Biot and
    Savart, image currents)."""
    random = np.random.default_rng([seed, 93])
    x = random.uniform(0, 1, (stations, 2)) * [1800.0, 1600.0]  # km
    ground = np.exp(0.35 * rough(x, 40, 700.0, 1.0, random)) * np.exp(0.15 * random.standard_normal(stations))
    tipper = 0.25 * np.stack([rough(x, 40, 500.0, 0.8, random) for _ in range(2)])
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
    return Network(t, x, missing(u, random), about)


NETWORKS = (aquifer, fjord, smelter, borehole, wells, magnetic)
