"""Long series of many frames: stations, monthly fields, sensors on a chaotic field, each by a solver of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.makers.base import Fields

_DAYS = "days since 2000-01-01"
_YEAR = 365.2425


def _scattered(generator: np.random.Generator, points: int, d: int = 2) -> np.ndarray:
    return generator.random((points, d))


def _correlated(x: np.ndarray, length: float, nugget: float = 0.0) -> np.ndarray:
    """Cholesky factor (N, N) of an exponential covariance of unit variance between points."""
    distance = np.linalg.norm(x[:, None] - x[None], axis=-1)
    return np.linalg.cholesky((1 - nugget) * np.exp(-distance / length) + (nugget + 1e-9) * np.eye(len(x)))


def stations(seed: int = 0, years: int = 18, count: int = 12) -> Fields:
    """Daily values of stations: a vector autoregression of order 3 whose innovations are correlated in space, the
    square root of its level varying with the season, around two annual harmonics and a trend; 5 % missing, in runs."""
    g = np.random.default_rng([seed, 1])
    x, steps = _scattered(g, count), round(years * _YEAR)
    factor = _correlated(x, 0.7, 0.1)
    distance = np.linalg.norm(x[:, None] - x[None], axis=-1)
    upstream = np.where(x[:, None, 0] > x[None, :, 0], np.exp(-distance / 0.3), 0.0)
    upstream /= 1e-9 + upstream.sum(1, keepdims=True) + 1
    lags = [0.42 * np.eye(count) + 0.25 * upstream, 0.08 * np.eye(count) - 0.05 * upstream, 0.1 * np.eye(count)]
    t = np.arange(steps, dtype=float)
    phase = 2 * np.pi * t / _YEAR
    level = 1 + 0.25 * np.cos(phase - 0.3)
    z = np.zeros((steps, count))
    for k in range(3, steps):
        z[k] = sum(a @ z[k - 1 - i] for i, a in enumerate(lags)) + level[k] * (factor @ g.standard_normal(count))
    amplitude, shift = 1.2 + 0.4 * g.standard_normal(count), 0.2 * g.standard_normal(count)
    season = amplitude * np.cos(phase[:, None] - 0.4 - shift) + 0.3 * np.sin(2 * phase[:, None] + shift)
    u = 5 + g.standard_normal(count) + z + season + 3e-5 * t[:, None]
    for n in range(count):
        for start in g.integers(0, steps, round(steps * 0.05 / 9)):
            u[start : start + g.geometric(1 / 9), n] = np.nan
    return t, x, u[None, ..., None], {"channels": ["speed"], "time_units": _DAYS}


def recharge(seed: int = 0, years: int = 50, count: int = 300) -> Fields:
    """Monthly fields: a stochastic recharge oscillator whose growth depends on the season (Jin 1997), projected onto
    two patterns of a grid, a seasonal cycle, three damped patterns and noise correlated in space."""
    g = np.random.default_rng([seed, 2])
    x = np.stack([8 * g.random(count), g.random(count)], 1)
    months = 12 * years
    t = np.arange(months) * _YEAR / 12
    state, path = np.array([0.5, 0.0]), []
    for step in range(30 * months):
        season = np.cos(2 * np.pi * (step / 30) / 12 - 1.0)
        temperature, heat = state
        growth = (-0.12 + 0.1 * season) * temperature - 0.03 * temperature**3
        rate = np.array([growth + 0.13 * heat, -0.13 * temperature])
        state = state + rate / 30 + np.array([0.25, 0.08]) * g.standard_normal(2) / np.sqrt(30)
        if step % 30 == 0:
            path.append(state)
    path_ = np.array(path)[:months]
    patterns = np.stack([np.exp(-((x[:, 0] - 5.5) ** 2) / 3), np.cos(np.pi * x[:, 0] / 8)])
    others, damped = np.zeros(3), []
    for _ in range(months):
        others = np.array([0.85, 0.7, 0.5]) * others + np.array([0.25, 0.3, 0.35]) * g.standard_normal(3)
        damped.append(others)
    further = np.stack([np.sin(np.pi * k * x[:, 0] / 8) * np.cos(np.pi * k * x[:, 1]) for k in (1, 2, 3)])
    year = 2 * np.pi * t[:, None] / _YEAR
    cycle = 2.0 * np.cos(year) * (x[:, 1] - 0.5) + 0.6 * np.cos(year - 1) * patterns[1] + 0.2 * np.cos(2 * year)
    noise = 0.15 * g.standard_normal((months, count)) @ _correlated(x, 0.5, 0.2).T
    u = 27 + path_ @ patterns + np.array(damped) @ further * 0.5 + cycle + noise
    return t, x, u[None, ..., None], {"channels": ["sst"], "time_units": _DAYS}


def lorenz96(seed: int = 0, sites: int = 70, frames: int = 4000, every: float = 0.05) -> Fields:
    """Lorenz's 1996 model with forcing 8 seen at all of its sites, by the classical Runge-Kutta method."""
    g = np.random.default_rng([seed, 3])
    u, path, parts = 8 + 0.01 * g.standard_normal(sites), [], 5

    def rate(v: np.ndarray) -> np.ndarray:
        return (np.roll(v, -1) - np.roll(v, 2)) * np.roll(v, 1) - v + 8

    dt = every / parts
    for step in range(parts * (frames + 400)):
        a = rate(u)
        b = rate(u + dt / 2 * a)
        c = rate(u + dt / 2 * b)
        d = rate(u + dt * c)
        u = u + dt / 6 * (a + 2 * b + 2 * c + d)
        if step % parts == 0 and step >= parts * 400:
            path.append(u)
    values = np.array(path) + 0.05 * g.standard_normal((frames, sites))
    return np.arange(frames) * every, np.arange(sites)[:, None] / sites, values[None, ..., None], {"channels": ["u"]}


def advected(seed: int = 0, count: int = 200, frames: int = 3000) -> Fields:
    """A damped stochastic field on a doubly periodic square, advected by shear and forced by noise of a power law of
    the wavenumber, seen at scattered points of a part of it, with noise of observation."""
    g = np.random.default_rng([seed, 4])
    size = 32
    k = np.fft.fftfreq(size, 1 / size)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    square = kx**2 + ky**2
    amplitude = np.where(square > 0, (1 + square) ** -1.2, 0.0) * size**2
    y = np.arange(size) / size
    shear = (0.05 + 0.03 * np.sin(2 * np.pi * y))[None]
    damping = np.exp(-0.06 - 0.004 * square)
    x = 0.1 + 0.6 * _scattered(g, count)
    waves = np.exp(2j * np.pi * (x[:, :1] * kx.ravel() + x[:, 1:] * ky.ravel())) / size**2
    z, path = np.zeros((size, size), complex), []
    for step in range(frames + 200):
        lines = np.fft.ifft(z, axis=1)  # waves along x, places along y
        mixed = np.fft.fft(lines * np.exp(-2j * np.pi * k[:, None] * shear), axis=1)
        noise = np.fft.fft2(g.standard_normal((size, size))) / size
        z = damping * mixed + amplitude * noise * 0.5 / size
        if step >= 200:
            path.append((waves @ z.ravel()).real)
    u = np.array(path)
    u = u / u.std() + 0.1 * g.standard_normal(u.shape)
    return np.arange(frames, dtype=float), x, u[None, ..., None], {"channels": ["tracer"]}


def fibre(seed: int = 0, count: int = 80, frames: int = 5000) -> Fields:
    """Strain along a fibre: dispersive waves that arrive at random from both ends, damped, and noise."""
    g = np.random.default_rng([seed, 5])
    x, t = np.linspace(0, 1, count), np.arange(frames, dtype=float)
    u = np.zeros((frames, count))
    for _ in range(frames // 12):
        start, sign, period = g.random() * frames, g.choice([-1, 1]), g.uniform(6, 20)
        speed, length = 0.01 * np.sqrt(period), g.uniform(20, 60)
        arrival = start + (x if sign > 0 else 1 - x)[None] / speed
        age = t[:, None] - arrival
        u += g.standard_normal() * np.exp(-((age / length) ** 2)) * np.cos(2 * np.pi * age / period)
    u = u + 0.2 * u.std() * g.standard_normal(u.shape)
    return t, x[:, None], u[None, ..., None], {"channels": ["strain"]}


def monitors(seed: int = 0, count: int = 30, years: int = 20) -> Fields:
    """Values of monitors every two weeks, a third of them missing: skewed, with a season, persistent in time, smooth in
    space."""
    g = np.random.default_rng([seed, 6])
    x, frames = _scattered(g, count), 26 * years
    factor, t = _correlated(x, 0.4, 0.1), 14.0 * np.arange(26 * years)
    z, path = np.zeros(count), []
    for _ in range(frames):
        z = 0.6 * z + 0.8 * (factor @ g.standard_normal(count))
        path.append(z)
    season = 0.6 * np.cos(2 * np.pi * t / _YEAR - 0.5)[:, None] * (1 + 0.3 * x[:, 0])
    u = np.exp(0.4 * np.array(path) + season + 0.1 * g.standard_normal((frames, count)))
    u[g.random(u.shape) < 1 / 3] = np.nan
    return t, x, u[None, ..., None], {"channels": ["level"], "time_units": _DAYS}


def winds(seed: int = 0, years: int = 18, count: int = 10) -> Fields:
    """Daily mean wind speeds of stations: squares of a seasonal level and a vector autoregression of order 2 with weak
    persistence that eastward travelling weather drives, so that they are skewed and their spread has seasons; complete,
    rounded to a hundredth."""
    g = np.random.default_rng([seed, 7])
    x, steps = _scattered(g, count), round(years * _YEAR)
    factor = _correlated(x, 1.2, 0.25)
    distance = np.linalg.norm(x[:, None] - x[None] - np.array([0.4, 0.0]), axis=-1)  # from where weather comes
    weights = np.exp(-((distance / 0.5) ** 2))
    weights /= weights.sum(1, keepdims=True)
    lags = [0.18 * np.eye(count) + 0.32 * weights, 0.05 * np.eye(count) - 0.07 * weights]
    t = np.arange(steps, dtype=float)
    phase = 2 * np.pi * t / _YEAR
    z = np.zeros((steps, count))
    for k in range(2, steps):
        z[k] = sum(a @ z[k - 1 - i] for i, a in enumerate(lags)) + factor @ g.standard_normal(count)
    root = g.uniform(2.4, 3.6, count) + 0.3 * np.cos(phase - 0.2)[:, None] + 0.62 * z
    u = np.round(np.maximum(root, 0.0) ** 2, 2)
    return t, x, u[None, ..., None], {"channels": ["speed"], "time_units": _DAYS}


def kuramoto_sivashinsky(seed: int = 0, count: int = 128, frames: int = 3000, every: float = 0.5) -> Fields:
    """The Kuramoto-Sivashinsky equation on a periodic line of length 60, by exponential time differencing of fourth
    order (Kassam and Trefethen 2005), seen at all points with 2 % noise."""
    g = np.random.default_rng([seed, 8])
    length, dt = 60.0, 0.1
    k = 2 * np.pi / length * np.fft.rfftfreq(count, 1 / count)
    linear = k**2 - k**4
    circle = np.exp(1j * np.pi * (np.arange(1, 33) - 0.5) / 32)
    z = dt * linear[:, None] + circle
    half = dt * ((np.exp(z / 2) - 1) / z).mean(1).real
    first = dt * ((-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3).mean(1).real
    middle = dt * ((2 + z + np.exp(z) * (z - 2)) / z**3).mean(1).real
    last = dt * ((-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3).mean(1).real
    whole, part = np.exp(dt * linear), np.exp(dt * linear / 2)
    kept = k < k.max() * 2 / 3

    def force(v: np.ndarray) -> np.ndarray:
        return -0.5j * k * kept * np.fft.rfft(np.fft.irfft(v, count) ** 2)

    v, path = np.fft.rfft(0.1 * g.standard_normal(count)), []
    each = round(every / dt)
    for step in range(each * frames + 2000):
        one = force(v)
        a = part * v + half * one
        two = force(a)
        three = force(part * v + half * two)
        c = part * a + half * (2 * three - one)
        v = whole * v + first * one + 2 * middle * (two + three) + last * force(c)
        if step >= 2000 and step % each == 0:
            path.append(np.fft.irfft(v, count))
    u = np.array(path)[:frames]
    u = u + 0.02 * u.std() * g.standard_normal(u.shape)
    x = np.arange(count)[:, None] / count * length
    return np.arange(len(u)) * every, x, u[None, ..., None], {"channels": ["u"]}


def flow(seed: int = 0, count: int = 300, frames: int = 2500, every: float = 0.4) -> Fields:
    """Both velocities of two-dimensional turbulence on a doubly periodic square, forced by a steady shear of four waves
    (Kolmogorov flow) with drag, pseudo-spectral with Adams-Bashforth, seen at scattered points with 3 % noise."""
    g = np.random.default_rng([seed, 9])
    size, dt, viscosity, drag = 48, 0.02, 4e-3, 0.05
    k = np.fft.fftfreq(size, 1 / size)
    kx, ky = k[:, None], k[None, : size // 2 + 1].copy()
    ky = np.abs(ky)
    square = kx**2 + ky**2
    inverse = np.where(square > 0, 1 / np.maximum(square, 1), 0.0)
    kept = (np.abs(kx) < size / 3) & (ky < size / 3)
    y = 2 * np.pi * np.arange(size) / size
    force = np.fft.rfft2(np.broadcast_to(-4 * np.cos(4 * y), (size, size))) * 0.25
    w = np.fft.rfft2(g.standard_normal((size, size))) * kept * inverse * 4
    decay, before = np.exp(-(viscosity * square + drag) * dt), None
    x = 2 * np.pi * _scattered(g, count)
    columns = np.where((ky[0] > 0) & (ky[0] < size / 2), 2.0, 1.0)
    waves = np.exp(1j * (x[:, :1, None] * kx + x[:, 1:, None] * ky)) * columns / size**2
    path, each = [], round(every / dt)
    for step in range(each * frames + 4000):
        stream = w * inverse
        u, v = np.fft.irfft2(1j * ky * stream), np.fft.irfft2(-1j * kx * stream)
        slopes = np.fft.irfft2(1j * kx * w), np.fft.irfft2(1j * ky * w)
        rate = force - kept * np.fft.rfft2(u * slopes[0] + v * slopes[1])
        w = decay * (w + dt * (rate if before is None else 1.5 * rate - 0.5 * decay * before))
        before = rate
        if step >= 4000 and step % each == 0:
            stream = (w * inverse).ravel()
            path.append([(waves.reshape(count, -1) @ (s * stream)).real for s in
                         ((1j * ky + 0 * kx).ravel(), (-1j * kx + 0 * ky).ravel())])
    values = np.array(path)[:frames].transpose(0, 2, 1)
    values = values + 0.03 * values.std((0, 1)) * g.standard_normal(values.shape)
    attributes = {"channels": ["u", "v"], "period": np.array([2 * np.pi, 2 * np.pi])}
    return np.arange(len(values)) * every, x, values[None], attributes


def visits(seed: int = 0, count: int = 30, days: int = 2200, together: bool = False) -> Fields:
    """Temperature, nitrate and oxygen of rivers, visited every 8 to 40 days, each place on days of its own unless
    `together`: a year's cycle and red noise correlated in space; a tenth of the visits fail, more of the nitrates."""
    g = np.random.default_rng([seed, 10])
    x, t = _scattered(g, count), np.arange(float(days))
    root, phase, height = _correlated(x, 0.2), 2 * np.pi * t[:, None] / _YEAR, g.uniform(0, 1, count)

    def red(lasting: float) -> np.ndarray:
        path, keeps = [root @ g.standard_normal(count)], np.exp(-1 / lasting)
        for _ in range(days - 1):
            path.append(keeps * path[-1] + np.sqrt(1 - keeps**2) * (root @ g.standard_normal(count)))
        return np.array(path)

    warm = 12 - 5 * height + (7 - 2 * height) * np.cos(phase - 3.6 - 0.2 * height) + 1.2 * red(12.0)
    nitrate = np.exp(1 + 0.3 * g.standard_normal(count) + 0.25 * np.cos(phase - 0.5) + 0.3 * red(75.0))
    oxygen = 10 - 0.2 * (warm - 12) + 0.5 * red(25.0)
    u = np.stack([warm, nitrate, oxygen], -1) + [0.3, 0.1, 0.2] * g.standard_normal((days, count, 3))
    seen = np.zeros((days, count), dtype=bool)
    calendars = [np.cumsum(g.uniform(8, 40, days // 8)).astype(int) for _ in range(count)]
    for place in range(count):
        own = calendars[0 if together else place]
        seen[own[own < days], place] = g.random((own < days).sum()) > 0.1
    u = np.where(seen[..., None] & (g.random(u.shape) > [0, 0.15, 0]), u, np.nan)
    kept = seen.any(1)
    return t[kept], x, u[None, kept], {"channels": ["T", "NO3", "O2"], "time_units": _DAYS}


MAKERS: dict[str, Callable[[], Fields]] = {
    maker.__name__: maker for maker in (
        stations, recharge, lorenz96, advected, fibre, monitors, winds, kuramoto_sivashinsky, flow, visits,
    )
}

