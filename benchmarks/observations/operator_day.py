"""A station operator's day as CSV files: ISO times that jitter by six minutes, gaps of 8 to 40 %, repeated rows, some
contradictory, elevations and one outlier of 50 deviations; and its five commands.

    pip install pandas
    python benchmarks/observations/operator_day.py FOLDER

    inrflow inspect stations.csv
    inrflow train data.train=stations.csv training.minutes=1 output=run
    inrflow forecast run=run observations=stations.csv until=2024-03-10T23:00:00 to=forecast.csv
    inrflow next run=run observations=stations.csv points=sites.csv count=3 to=next.csv
    inrflow update run=run data.train=hour.csv output=run2

70 stations around a ridge, ten days, hourly: temperature and dew point with nightly inversions and a front, station
pressure, two winds. `later.csv` has what comes after 20:30 of the last day. How to read the result:
benchmarks/observations/README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

STATIONS, HOURS = 70, 240


def fields(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 3) in degrees and metres, and values (T, N, 5) with errors of measurement."""
    lon, lat = random.uniform(5.5, 9.5, STATIONS), random.uniform(45.2, 48.2, STATIONS)
    east, north = (lon - 7.5) * 76, (lat - 46.7) * 111  # km
    ridge = 1800 * np.exp(-(((north - 25 * np.sin(east / 90)) / 45) ** 2)) * (0.7 + 0.3 * np.cos(east / 40))
    height = 400 + ridge * random.uniform(0.3, 1.0, STATIONS) + 120 * random.standard_normal(STATIONS)
    height = np.clip(height, 200, 3200).round()
    t = np.arange(HOURS)[:, None]

    def waves(scale: float, memory: float, count: int = 60, speed: tuple[float, float] = (0, 0)) -> np.ndarray:
        """A red, moving field (T, N) of unit variance."""
        k = random.standard_normal((count, 2)) / scale
        phase, keep = random.uniform(0, 2 * np.pi, count), np.exp(-1 / memory)
        amplitude = [random.standard_normal(count)]
        for _ in range(HOURS):
            amplitude.append(keep * amplitude[-1] + np.sqrt(1 - keep**2) * random.standard_normal(count))
        angle = (np.stack([east, north], 1) @ k.T)[None] + phase - t[:, None] * (k @ np.array(speed))
        return np.sqrt(2 / count) * np.einsum("hc,hnc->hn", np.array(amplitude[1:]), np.cos(angle))

    day = np.cos(2 * np.pi * (t - 14) / 24)
    lapse, inversion = -6.5e-3 + 1e-3 * waves(1e4, 60), np.clip(waves(1e4, 30), 0, None) * np.clip(-day, 0, 1)
    arrives, along = random.uniform(60, 100), (0.8 * east + 0.6 * north)[None]
    front = 1 / (1 + np.exp(-((t - arrives) * 25 - along) / 25))
    warm = 1 / (1 + np.exp(-((t - arrives - 90) * 25 + along * 0.5) / 40))
    base = 16 + 1.5 * waves(120, 18, speed=(20, 8)) + 0.6 * waves(30, 4) - 5 * front + 4 * warm
    air = base + lapse * (height - 400) + 4 * day * (1 - 0.5 * height / 3000) * (1 + 0.25 * waves(80, 20))
    air = air - 6 * inversion * np.exp(-(height - 300) / 350) + 0.45 * random.standard_normal(STATIONS)
    dew = air - np.clip(4 + 3 * waves(100, 15) + 2.5 * day - 3 * front, 0.2, None)
    sea_level = 1016 + 4 * waves(300, 30, speed=(25, 5)) - 8 * np.exp(-(((t - arrives) / 14) ** 2))
    pressure = sea_level * np.exp(-9.81 * height / (287 * (air + 273 + height * 0.00325)))
    breeze, large = np.exp(-height / 1500) * np.sign(north), 3 * waves(200, 25, speed=(25, 5))
    u = 2 + large + 2.5 * waves(60, 8, speed=(20, 8)) + 16 * front * (1 - front) + 0.4 * day * breeze
    v = 1 + 3 * waves(200, 25) + 2.5 * waves(60, 8) - 3 * front + 1.5 * day * breeze
    errors = [size * random.standard_normal(air.shape) for size in (0.25, 0.4, 0.15, 0.7, 0.7)]
    values = np.stack([air, dew, pressure, u, v], -1) + np.stack(errors, -1)
    return np.stack([lon.round(4), lat.round(4), height], 1), values


def main(folder: Path) -> None:
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(11)
    x, u = fields(random)
    shares, start, rows = random.uniform(0.08, 0.4, STATIONS), pd.Timestamp("2024-03-01T00:00:00Z"), []
    for n in range(STATIONS):
        gone = np.zeros(HOURS, bool)
        while gone.mean() < shares[n]:
            first = random.integers(HOURS)
            gone[first : first + int(random.geometric(0.25))] = True
        for hour in np.flatnonzero(~gone):
            when = start + pd.Timedelta(minutes=60 * int(hour) + int(random.integers(-6, 7)))
            values = np.where(random.random(5) < 0.01, np.nan, u[hour, n].round(2))
            rows.append((when.isoformat().replace("+00:00", "Z"), f"ST{n:02d}", *x[n], *values))
    table = pd.DataFrame(rows, columns=["time", "station", "lon", "lat", "elevation", "T", "Td", "p", "u", "v"])
    repeated, contradicting = table.sample(40, random_state=1), table.sample(6, random_state=2)
    wild = table.sample(1, random_state=3).index[0]
    table.loc[wild, "T"] += 50 * table["T"].std()
    table = pd.concat([table, repeated, contradicting.assign(T=contradicting["T"] + 3)]).sample(frac=1, random_state=4)
    times, last = pd.to_datetime(table["time"], utc=True), pd.Timestamp("2024-03-10T20:30Z")
    parts = {"stations": times <= last, "later": times > last}
    parts["hour"] = parts["later"] & (times <= last + pd.Timedelta("1h"))
    for name, some in parts.items():
        table[some].to_csv(folder / f"{name}.csv", index=False)
    sites = {"lon": random.uniform(5.5, 9.5, 60).round(3), "lat": random.uniform(45.2, 48.2, 60).round(3),
             "elevation": random.uniform(300, 2500, 60).round()}
    pd.DataFrame(sites).to_csv(folder / "sites.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
