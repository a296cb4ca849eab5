"""Measured networks that R packages bring, as trajectory files: nothing of them is kept here.

    pip install rdata
    python benchmarks/stations/public.py FOLDER TARGET

FOLDER holds the files data/*.rda of the packages fields (ozone2.rda, COmonthlyMet.rda), spacetime (air.rda), gstat
(wind.rda), meteo (dtempc.rda, stations.rda), STRbook (radar_df.rda), cubble (climate_aus.rda, river.rda) and ocedata
(papa.rda), as their sources have them, and los_speed.csv and graph_sensor_locations.csv of the repository
lehaifeng/T-GCN. What is not there is left out. Written are ozone.h5 (eight-hour means at 153 stations on 89 days),
colorado.h5 (monthly extremes of temperature and roots of rain at 120 stations, 20 years, with elevations), pm10.h5
(daily means of a year at 46 rural stations), wind.h5 (daily means at 12 stations, 18 years), radar.h5 (reflectivities
around Sydney, 28 x 40 points, 12 frames ten minutes apart), and europe.h5, america.h5 and asia.h5 (daily mean
temperatures on 12 days of July 2011 at 140 to 150 stations, with elevations), australia.h5 (daily extremes and roots
of rain of 2020 at about 90 stations, with elevations), victoria.h5 (daily levels of 69 rivers in 2020, standardised),
papa.h5 (a year of temperature and salinity at nine depths of Ocean Station Papa) and roads.h5 (speeds at 207 detectors
of Los Angeles every five minutes of a week).
How to read what is done with them: benchmarks/observations/README.md.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stations.base import Network, write
from inrflow.data.description import Description


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    """Names and parsed objects of a file of R."""
    import rdata

    node = rdata.parser.parse_file(path).object
    while node is not None and node.value is not None:
        yield node.tag.value.value.decode(), node.value[0]
        node = node.value[1]


def _read(path: Path) -> dict[str, Any]:
    """What a file of R holds, of plain types."""
    import rdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(rdata.conversion.convert(rdata.parser.parse_file(path), default_encoding="utf8"))


def ozone(folder: Path) -> Network:
    data = _read(folder / "ozone2.rda")["ozone2"]
    u = np.asarray(data["y"], float)
    about = Description("ozone", ("ozone",), ("lon", "lat"), units=("ppb",), time_units="days")
    return Network(np.arange(float(len(u))), np.asarray(data["lon.lat"], float), u[..., None], about)


def colorado(folder: Path) -> Network:
    data = _read(folder / "COmonthlyMet.rda")
    highest, lowest, rain = (np.asarray(data[f"CO.{key}"], float)[-20:].reshape(240, -1)
                             for key in ("tmax", "tmin", "ppt"))
    x = np.concatenate([np.asarray(data["CO.loc"], float), np.asarray(data["CO.elev"], float)[:, None]], 1)
    often = np.flatnonzero((np.isfinite(highest).mean(0) > 0.6) & np.isfinite(x).all(1))
    often = often[np.sort(np.unique(x[often, :2], axis=0, return_index=True)[1])]
    some = np.sort(np.random.default_rng(0).permutation(often)[:120])
    u = np.stack([highest, lowest, np.sqrt(np.maximum(rain, 0))], -1)
    about = Description("colorado", ("tmax", "tmin", "rain"), ("lon", "lat", "elevation"),
                        time_units="days since 1978-01-16")
    return Network(np.arange(240) * 365.2425 / 12, x[some], u[:, some], about)


def pm10(folder: Path) -> Network:
    found = dict(_objects(folder / "air.rda"))
    u = np.array(found["air"].value).reshape(4383, 70)[2557:2922]  # R counts along columns; the year 2005
    node, x = found["stations"].attributes, np.empty(0)
    while node is not None and node.value is not None:
        value = node.value[0].value
        x = value.reshape(2, 70).T if isinstance(value, np.ndarray) and value.shape == (140,) else x
        node = node.value[1]
    often = np.isfinite(u).mean(0) > 0.5
    about = Description("pm10", ("PM10",), ("lon", "lat"), time_units="days since 2005-01-01")
    return Network(np.arange(365.0), x[often], u[:, often, None], about)


def wind(folder: Path) -> Network:
    data = _read(folder / "wind.rda")
    table, places = data["wind"], data["wind.loc"]
    where = {row.Code: (-_degrees(row.Longitude), _degrees(row.Latitude)) for row in places.itertuples()}
    names = [name for name in table.columns if name in where]
    about = Description("wind", ("speed",), ("lon", "lat"), units=("knots",), time_units="days since 1961-01-01")
    x = np.array([where[name] for name in names])
    return Network(np.arange(float(len(table))), x, table[names].to_numpy(float)[..., None], about)


def radar(folder: Path) -> Network:
    table = _read(folder / "radar_df.rda")["radar_df"].pivot_table(index="t", columns=["s1", "s2"], values="z")
    about = Description("radar", ("reflectivity",), ("east", "north"), time_units="minutes")
    u = table.to_numpy(float)[..., None]
    return Network(10 * np.arange(float(len(u))), np.array(list(table.columns), float), u, about)


def _temperatures(folder: Path, name: str, lon: tuple[float, float], lat: tuple[float, float], count: int) -> Network:
    table, places = _read(folder / "dtempc.rda")["dtempc"], _read(folder / "stations.rda")["stations"]
    places = places.drop_duplicates("staid").set_index("staid")
    inside = places[places.lon.between(*lon) & places.lat.between(*lat) & places.elev_1m.notna()].index
    known = table[table.staid.isin(inside)].pivot_table(index="staid", columns="time", values="tempc")
    often = known.index[known.notna().mean(axis=1) > 0.6]
    where = places.loc[often, ["lon", "lat"]].to_numpy(float).round(3)
    often = often[np.sort(np.unique(where, axis=0, return_index=True)[1])]
    some = often[np.sort(np.random.default_rng(0).permutation(len(often))[:count])]
    about = Description(name, ("T",), ("lon", "lat", "elevation"), ("degC",), time_units="days since 2011-07-01")
    u = known.loc[some].to_numpy(float).T[..., None]
    return Network(np.arange(float(len(u))), places.loc[some, ["lon", "lat", "elev_1m"]].to_numpy(float), u, about)


def europe(folder: Path) -> Network:
    return _temperatures(folder, "europe", (-10, 30), (36, 60), 150)


def america(folder: Path) -> Network:
    return _temperatures(folder, "america", (-125, -70), (25, 50), 140)


def asia(folder: Path) -> Network:
    return _temperatures(folder, "asia", (75, 130), (20, 50), 140)


def _days_of_2020(folder: Path, file: str, channels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 3) and values (366, N, C) of a nested table; an elevation that is missing is NaN."""
    found = {}
    for row in _read(folder / f"{file}.rda")[file].itertuples():
        days = row.ts.set_index("date").reindex(np.arange(18262, 18628))
        u = np.stack([days[name].to_numpy(float) for name in channels], 1)
        if np.isfinite(u).all(1).mean() > 0.6 and u.size and np.nanstd(u, 0).min() > 0:
            x = row.long, row.lat, getattr(row, "elev", np.nan)
            found.setdefault((round(row.long, 3), round(row.lat, 3)), (x, u))
    return np.array([x for x, _ in found.values()], float), np.stack([u for _, u in found.values()], 1)


def australia(folder: Path) -> Network:
    x, u = _days_of_2020(folder, "climate_aus", ("tmax", "tmin", "prcp"))
    u[..., 2] = np.sqrt(np.maximum(u[..., 2], 0))
    mainland = np.flatnonzero(np.isfinite(x).all(1) & (x[:, 0] > 110) & (x[:, 0] < 155))
    some = np.sort(np.random.default_rng(0).permutation(mainland)[:90])
    about = Description("australia", ("tmax", "tmin", "rain"), ("lon", "lat", "elevation"),
                        time_units="days since 2020-01-01")
    return Network(np.arange(366.0), x[some], u[:, some], about)


def victoria(folder: Path) -> Network:
    x, u = _days_of_2020(folder, "river", ("Water_course_level",))
    about = Description("victoria", ("level",), ("lon", "lat"), time_units="days since 2020-01-01")
    return Network(np.arange(366.0), x[:, :2], (u - np.nanmean(u, 0)) / np.nanstd(u, 0), about)


def papa(folder: Path) -> Network:
    data = {str(key): np.asarray(value, float) for key, value in _read(folder / "papa.rda")["papa"].items()}
    about = Description("papa", ("T", "S"), ("depth",), time_units="days since 2011-01-01")
    t = (data["t"] - data["t"][0]) / 86400
    return Network(t, data["z"][:, None], np.stack([data["temperature"], data["salinity"]], -1), about)


def roads(folder: Path) -> Network:
    import pandas as pd

    table = pd.read_csv(folder / "los_speed.csv")
    places = pd.read_csv(folder / "graph_sensor_locations.csv").set_index("sensor_id")
    x = places.loc[[int(name) for name in table.columns], ["longitude", "latitude"]].to_numpy(float)
    u = table.to_numpy(float)
    about = Description("roads", ("speed",), ("lon", "lat"), ("mile/h",), time_units="seconds since 2012-03-01")
    return Network(300.0 * np.arange(len(u)), x, np.where(u == 0, np.nan, u)[..., None], about)


def _degrees(text: str) -> float:
    """Of degrees, minutes and seconds."""
    return sum(float(part) / 60**power for power, part in enumerate(re.findall(r"[\d.]+", text)))


PUBLIC: dict[str, tuple[str, Callable[[Path], Network]]] = {
    "ozone": ("ozone2.rda", ozone), "colorado": ("COmonthlyMet.rda", colorado), "pm10": ("air.rda", pm10),
    "wind": ("wind.rda", wind), "radar": ("radar_df.rda", radar), "europe": ("dtempc.rda", europe),
    "america": ("dtempc.rda", america), "asia": ("dtempc.rda", asia), "australia": ("climate_aus.rda", australia),
    "victoria": ("river.rda", victoria), "papa": ("papa.rda", papa), "roads": ("los_speed.csv", roads)}

if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    target.mkdir(parents=True, exist_ok=True)
    for name, (file, maker) in PUBLIC.items():
        if (source / file).exists():
            print(write(maker(source), target / f"{name}.h5"))
        else:
            print(f"{source / file} is not there: {name} is left out")
