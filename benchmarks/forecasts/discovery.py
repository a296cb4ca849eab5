"""Discovery of equations from clean and noisy data: laws on harmonics beside pysindy's weak form.

python benchmarks/forecasts/discovery.py [CELL ...] [--noise 0 0.05 0.2] [--pysindy]

prints a row for each cell and noise: terms missing and too many, and the largest relative error of the true
coefficients. Cells: burgers_long, burgers_short, kdv_long, ks_long, ks_short, rd_long, rd_short; long: 4 trajectories
of 101 frames, short: 16 of 10 frames, further apart. Data come from a pseudo-spectral solver with twice the points
along each axis. pysindy is an extra (pip install pysindy scikit-learn); its threshold and the size of its test
functions are chosen on held-out trajectories. Noise is a share of a channel's standard deviation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LONG, SHORT = (4, 101), (16, 10)  # trajectories, frames


@dataclass(frozen=True)
class System:
    """A periodic system: side, points seen along an axis, steps of frames (long, short), true terms of each channel.

    linear: symbols (C, ...) of derivatives i k (d, ...); products: rates of fields (C, ...), their spectra given.
    """

    length: float
    points: int
    dimensions: int
    gaps: dict[str, float]
    truth: list[dict[str, float]]
    linear: Callable[[np.ndarray], np.ndarray]
    products: Callable[[np.ndarray, Callable[[np.ndarray], np.ndarray]], np.ndarray]
    start: float  # wavelengths of the first fields, as a share of the side
    burned: float = 0.0  # time before the first frame
    step: float = 0.005  # of the solver, at most


def _transport(factor: float) -> Callable[[np.ndarray, Callable[[np.ndarray], np.ndarray]], np.ndarray]:
    """factor u u_x, as half of a derivative of u^2."""
    return lambda u, slope: 0.5 * factor * slope(u[0] ** 2)[None]


def _rotation(u: np.ndarray, slope: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(1 - A^2) (u, v) + A^2 (v, -u), A^2 = u^2 + v^2: lambda-omega reactions."""
    size = (u**2).sum(0)
    return np.stack([(1 - size) * u[0] + size * u[1], (1 - size) * u[1] - size * u[0]])


SYSTEMS = {
    "burgers": System(16.0, 128, 1, {"long": 0.1, "short": 0.4}, [{"lap u": 0.1, "u du/dx": -1.0}],
                      lambda ik: 0.1 * ik**2, _transport(-1.0), 0.25),
    "kdv": System(30.0, 128, 1, {"long": 0.1, "short": 0.3}, [{"lap du/dx": -1.0, "u du/dx": -6.0}],
                  lambda ik: -(ik**3), _transport(-6.0), 0.25, step=0.0005),
    "ks": System(60.0, 128, 1, {"long": 0.5, "short": 1.0}, [{"lap u": -1.0, "lap^2 u": -1.0, "u du/dx": -1.0}],
                 lambda ik: -(ik**2) - ik**4, _transport(-1.0), 0.1, 60.0),
    "rd": System(20.0, 32, 2, {"long": 0.1, "short": 0.5},
                 [{"lap u": 0.1, "u": 1.0, "u^3": -1.0, "u v^2": -1.0, "u^2 v": 1.0, "v^3": 1.0},
                  {"lap v": 0.1, "v": 1.0, "v^3": -1.0, "u^2 v": -1.0, "u v^2": -1.0, "u^3": -1.0}],
                 lambda ik: 0.1 * (ik**2).sum(0, keepdims=True) * np.ones((2, 1, 1)), _rotation, 0.25),
}


def simulate(system: System, frames: int, gap: float, generator: np.random.Generator) -> np.ndarray:
    """Fields (T, N, C) at every second point of a solver: integrating factors, Runge-Kutta of order four."""
    n, axes = 2 * system.points, tuple(range(1, system.dimensions + 1))
    shape = (n,) * system.dimensions
    k = np.stack(np.meshgrid(*[2 * np.pi * np.fft.fftfreq(n, system.length / n)] * system.dimensions, indexing="ij"))
    mask = (np.abs(k) < np.pi * n / system.length * 2 / 3).all(0)
    linear = system.linear(1j * k) * mask
    channels = len(system.truth)
    noise = np.fft.fftn(generator.standard_normal((channels, *shape)), axes=axes)
    u = np.fft.ifftn(noise * np.exp(-((k**2).sum(0)) * (system.start * system.length / 5) ** 2), axes=axes).real
    steps = max(1, round(gap / system.step))
    h = gap / steps
    half = np.exp(linear * h / 2)

    def slope(field: np.ndarray) -> np.ndarray:
        return np.fft.ifftn(1j * k[0] * np.fft.fftn(field)).real

    def rate(z: np.ndarray) -> np.ndarray:
        return np.fft.fftn(system.products(np.fft.ifftn(z, axes=axes).real, slope), axes=axes) * mask

    z = np.fft.fftn(u / u.std(axis=axes, keepdims=True), axes=axes) * mask
    result, burned = [], round(system.burned / h)
    for index in range(burned + steps * (frames - 1) + 1):
        if index >= burned and (index - burned) % steps == 0:
            field = np.fft.ifftn(z, axes=axes).real[(slice(None), *(slice(None, None, 2),) * system.dimensions)]
            result.append(np.moveaxis(field, 0, -1).reshape(-1, channels))
        a = rate(z)
        b = rate(half * (z + h / 2 * a))
        c = rate(half * z + h / 2 * b)
        d = rate(half * (half * z + h * c))
        z = half * (half * (z + h / 6 * a) + h / 3 * (b + c)) + h / 6 * d
    return np.stack(result)


def by_law(system: System, t: np.ndarray, x: np.ndarray, u: np.ndarray) -> list[dict[str, float]]:
    """Terms and coefficients of each channel, by `inrflow.dynamics.laws.fit_law`."""
    import torch

    from inrflow.domains import domains_of
    from inrflow.dynamics.laws import fit_law

    torch.set_num_threads(1)
    scale = u.std((0, 1, 2))
    law = fit_law(t, x, u / scale, domains_of(x, period=[system.length] * system.dimensions), seconds=60)
    names = "uv"[: u.shape[-1]]
    found: list[dict[str, float]] = [{} for _ in names]
    for term, theta in zip(law.terms, law.theta, strict=True):
        unit = np.prod([scale[channel] for channel, _ in term.products[0]])
        for channel in np.flatnonzero(theta):
            found[channel][term.written(names, "xy")] = theta[channel] * scale[channel] / unit
    return found


def by_pysindy(system: System, t: np.ndarray, u: np.ndarray) -> list[dict[str, float]]:
    """The same by pysindy's weak form: monomials of degree 3 and derivatives up to order six in 1-D."""
    import pysindy

    grid = [np.arange(system.points) * system.length / system.points] * system.dimensions
    fields = [np.moveaxis(one.reshape(len(t), *(system.points,) * system.dimensions, -1), 0, -2) for one in u]
    places = np.stack(np.meshgrid(*grid, t, indexing="ij"), -1)
    train, held = fields[: -max(1, len(fields) // 5)], fields[-max(1, len(fields) // 5) :]
    best: tuple[float, np.ndarray, list[str]] = (np.inf, np.zeros((1, 1)), [])
    span = np.array([system.length] * system.dimensions + [t[-1] - t[0]])
    for share in (0.1, 0.2):
        library = pysindy.WeakPDELibrary(
            function_library=pysindy.PolynomialLibrary(degree=3, include_bias=False),
            derivative_order=6 if system.dimensions == 1 else 2, spatiotemporal_grid=places, is_uniform=True, K=200,
            H_xt=[*(span[:-1] * share), max(span[-1] * share, 2.5 * (t[1] - t[0]))],
            include_interaction=system.dimensions == 1)
        table = {}
        for part, name in ((train, "train"), (held, "held")):
            rows = [np.asarray(library.fit_transform(one)) for one in part]
            rates = [np.asarray(library.convert_u_dot_integral(one)) for one in part]
            table[name] = np.concatenate(rows), np.concatenate(rates)
        a, y = table["train"]
        scale = np.linalg.norm(a, axis=0) + 1e-300
        for threshold in np.logspace(-4, -0.5, 15):
            theta = _thresholded(a / scale, y, threshold) / scale[:, None]
            missed = float(((table["held"][0] @ theta - table["held"][1]) ** 2).sum() / (table["held"][1] ** 2).sum())
            missed *= 1 + 0.02 * np.count_nonzero(theta)  # of equals the shorter
            if missed < best[0]:
                best = missed, theta, library.get_feature_names(list("uv"[: u.shape[-1]]))
    return _as_laws(best[1], best[2], system)


def _thresholded(a: np.ndarray, y: np.ndarray, threshold: float) -> np.ndarray:
    """Sequentially thresholded least squares of normalised columns, the threshold relative to the largest."""
    theta = np.linalg.lstsq(a, y, rcond=None)[0]
    for _ in range(10):
        keep = np.abs(theta) > threshold * np.abs(theta).max(0)
        theta = np.zeros_like(theta)
        for c in range(y.shape[1]):
            if keep[:, c].any():
                theta[keep[:, c], c] = np.linalg.lstsq(a[:, keep[:, c]], y[:, c], rcond=None)[0]
    return theta


def _as_laws(theta: np.ndarray, names: list[str], system: System) -> list[dict[str, float]]:
    """pysindy's names in the form of `truth`; its u_11 and u_22 of equal coefficients are one Laplacian."""
    short = {"u_1": "du/dx", "u_11": "lap u", "v_11": "lap v", "u_111": "lap du/dx", "u_1111": "lap^2 u",
             "uu_1": "u du/dx", "uuu": "u^3", "vvv": "v^3", "uvv": "u v^2", "uuv": "u^2 v", "u": "u", "v": "v"}
    result = []
    for c in range(theta.shape[1]):
        found = {short.get(name, name): float(theta[j, c]) for j, name in enumerate(names) if theta[j, c]}
        for letter in "uv":
            other = found.pop(f"{letter}_22", None)
            if other is not None and f"lap {letter}" in found:
                found[f"lap {letter}"] = (found[f"lap {letter}"] + other) / 2
            elif other is not None:
                found[f"{letter}_22"] = other
        result.append(found)
    return result


def compared(found: list[dict[str, float]], truth: list[dict[str, float]]) -> tuple[int, int, float]:
    """Terms missing, terms too many, and the largest relative error of the true coefficients."""
    missing = sum(len(set(true) - set(have)) for have, true in zip(found, truth, strict=True))
    extra = sum(len(set(have) - set(true)) for have, true in zip(found, truth, strict=True))
    errors = [abs(have.get(name, 0.0) / value - 1) for have, true in zip(found, truth, strict=True)
              for name, value in true.items()]
    return missing, extra, max(errors)


def row(cell: str, noises: list[float], pysindy: bool, seed: int) -> None:
    """Simulate a cell and print what is found at each level of noise."""
    name, kind = cell.rsplit("_", 1)
    system = SYSTEMS[name]
    trajectories, frames = LONG if kind == "long" else SHORT
    generator = np.random.default_rng(seed)
    clean = np.stack([simulate(system, frames, system.gaps[kind], generator) for _ in range(trajectories)])
    t = np.arange(frames) * system.gaps[kind]
    grid = np.arange(system.points) * system.length / system.points
    x = np.stack(np.meshgrid(*[grid] * system.dimensions, indexing="ij"), -1).reshape(-1, system.dimensions)
    for noise in noises:
        u = clean + noise * clean.std((0, 1, 2)) * generator.standard_normal(clean.shape)
        methods = {"inrflow": lambda u=u: by_law(system, t, x, u)}
        if pysindy:
            methods["pysindy"] = lambda u=u: by_pysindy(system, t, u)
        for method, find in methods.items():
            began = time.process_time()
            try:
                missing, extra, error = compared(find(), system.truth)
                text = f"{missing} missing, {extra} too many, error {error:.3f}"
            except ValueError as reason:  # UserError is one
                text = f"none ({reason})"
            print(f"{cell} {noise:.0%} {method}: {text}, {time.process_time() - began:.0f} CPU s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cells = [f"{name}_{kind}" for name in SYSTEMS for kind in ("long", "short") if (name, kind) != ("kdv", "short")]
    parser.add_argument("cells", nargs="*", default=cells)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.05, 0.2])
    parser.add_argument("--pysindy", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for one in options.cells:
        row(one, options.noise, options.pysindy, options.seed)
