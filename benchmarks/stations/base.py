"""Networks of stations: their type, their files, and random fields and gaps that makers share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inrflow.data.description import Description
from inrflow.data.formats.writing import write_trajectories


@dataclass
class Network:
    """One network: times, fixed places, values with gaps, and its description."""

    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    description: Description


def gappy(u: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Single values missing at random and whole stretches of a station, `share` in all."""
    lost = random.random(u.shape[:2]) < 0.3 * share
    for n in range(u.shape[1]):
        while lost[:, n].mean() < share * random.uniform(0.7, 1.3):
            begin = random.integers(len(u))
            lost[begin : begin + random.integers(2, max(4, len(u) // 12)), n] = True
    return np.where(lost[..., None], np.nan, u)


def carried(x: np.ndarray, t: np.ndarray, random: np.random.Generator, lengths: tuple[float, float], wind: np.ndarray,
            memory: float, waves: int, slope: float) -> np.ndarray:
    """Anisotropic waves with a power-law spectrum that move with a wind and lose their phase, (T, N)."""
    angle = random.uniform(0, 2 * np.pi, waves)
    size = np.exp(random.uniform(np.log(0.6), np.log(8.0), waves))
    k = 2 * np.pi * size[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) / np.array(lengths)
    power = size**-slope
    phase = random.uniform(0, 2 * np.pi, waves)
    omega = k @ wind + random.standard_normal(waves) / memory * np.sqrt(size)
    argument = np.einsum("wd,nd->wn", k, x)[None] - (omega[None] * t[:, None] + phase)[..., None]
    return np.einsum("w,twn->tn", np.sqrt(2 * power / power.sum()), np.cos(argument))


def missing(u: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """1 to 40 % of each station's reports missing, in runs, and 2 % of single values beside."""
    lost = np.zeros(u.shape[:2], dtype=bool)
    for n in range(u.shape[1]):
        share = 0.4 * random.random() ** 2 + 0.01
        while lost[:, n].mean() < share:
            begin = random.integers(len(u))
            lost[begin : begin + 1 + random.geometric(0.2), n] = True
    return np.where(lost[..., None] | (random.random(u.shape) < 0.02), np.nan, u)


def rough(x: np.ndarray, count: int, scale: float, slope: float, random: np.random.Generator) -> np.ndarray:
    """A standardised field of the plane at points (N, 2): plane waves of lengths from `scale` down, power law."""
    size = scale / np.exp(random.uniform(0, 2.5, count))
    angle = random.uniform(0, 2 * np.pi, count)
    k = 2 * np.pi / size[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    weight = size**slope
    return np.cos(x @ k.T + random.uniform(0, 2 * np.pi, count)) @ (weight / np.sqrt((weight**2).sum() / 2))


def write(network: Network, path: Path, places: np.ndarray | None = None) -> Path:
    """One trajectory of a network as a file, of some of its places or of all."""
    chosen = np.arange(len(network.x)) if places is None else places
    write_trajectories(path, network.t, network.x[chosen], network.u[None][:, :, chosen], network.description)
    return path
