"""Simulation of observed trajectories: protocol, runs, windows, points, jittered times, noise and gaps.

Each random draw has its own stream, which depends only on the seed and on the index of the run (initial condition,
parameters) or of the trajectory (points, times, noise, gaps), so that additional trajectories do not change the earlier
ones.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inrflow.errors import UserError
from inrflow.pdes.equation import AXES, DataProtocol, Equation, EquationSymmetries
from inrflow.pdes.equations import find_equation
from inrflow.pdes.exponential import UnresolvedError
from inrflow.pdes.parameters import environment_count, parameter_values
from inrflow.pdes.solver import solve
from inrflow.pdes.spectral import SpectralGrid

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

_INITIAL, _PARAMETERS, _POINTS, _TIMES, _NOISE, _GAPS = range(6)  # the random streams of a seed
_BATCH_VALUES = 2**15  # values of the states solved together, which fit the cache
_TAIL = 5e-3  # amplitude share of the highest modes above which there is a warning; errors are about ten times smaller


@dataclass(frozen=True)
class Simulation:
    """S observed trajectories of one equation, with their parameters and domain.

    `t` (T,) or, jittered, (S, T); `x` (N, d), shared, or (S, N, d); `u` (S, T, N, C) float32, NaN where not observed;
    `parameters` (S, P); `environment` (S,) or None.
    """

    equation: Equation
    protocol: str
    t: np.ndarray
    x: np.ndarray
    u: np.ndarray
    parameters: np.ndarray
    parameter_names: tuple[str, ...]
    environment: np.ndarray | None
    period: tuple[float, ...]

    @property
    def channels(self) -> tuple[str, ...]:
        return self.equation.channels(len(self.period))

    @property
    def coordinates(self) -> tuple[str, ...]:
        return AXES[: len(self.period)]

    @property
    def symmetries(self) -> EquationSymmetries:
        return self.equation.symmetries(self.period)


def simulate(
    pde: str,
    trajectories: int = 64,
    seed: int = 0,
    protocol: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    environments: int | None = None,
    points: str | int = "grid",
    shared_points: bool = False,
    noise: float = 0.0,
    missing: float = 0.0,
    time_jitter: float = 0.0,
    tolerance: float = 1e-7,
    progress: Progress | None = None,
    **settings: Any,
) -> Simulation:
    """Observed trajectories of the equation `pde` from random initial conditions.

    `protocol`: a published or default way to generate the data (`find_equation(pde).protocols`). `settings` override
    it: `frames` (each `dt` apart), `grid` (points per axis of the output), `dimensions`, `windows` (consecutive
    trajectories cut from a run), `burn_in` (time before the first frame), `period` (length of each axis) and
    `resolution` (points per axis of the solver).

    `parameters`: for each name a number; `sample`, which draws from the equation's own range, or {"low": a, "high":
    b}, drawn for each run or, with environments, for each environment; or a list with a value for each environment.
    Runs take the environments in turn.

    `points`: `grid`, or the number of random points, different in every trajectory or, with `shared_points`, the same;
    values there are exact. `noise`: standard deviation relative to each channel's own. `missing`: fraction of
    the values not observed. `time_jitter`: frames after the first move by up to half this fraction of `dt`.
    `progress`: called with the numbers of completed and of all steps, possibly from other threads.

    Initial conditions depend on `seed` and the run's index alone. `tolerance`: relative local error of a time step.
    Raises UserError for unknown names, inadmissible values, and if the solution cannot be resolved.
    """
    equation = find_equation(pde)
    protocol, plan = _plan(equation, protocol, settings)
    given = {**plan.parameters, **(parameters or {})}
    _check(trajectories, seed, points, noise, missing, time_jitter, tolerance)
    period = (plan.period,) * plan.dimensions
    runs = math.ceil(trajectories / plan.windows)

    declared = equation.parameters(plan.dimensions)
    environments = environment_count(given, environments)
    values = parameter_values(declared, given, runs, environments, [seed, _PARAMETERS])
    run_of = np.arange(trajectories) // plan.windows

    grid = SpectralGrid(plan.resolution or plan.grid, period)
    x = None if isinstance(points, str) else _random_points(period, points, 1 if shared_points else trajectories, seed)
    t = _times(plan, trajectories, time_jitter, seed)
    u = _Solving(equation, plan, grid, x, t, values, seed, tolerance).all(progress)
    _observe(u, noise, missing, seed)
    return Simulation(
        equation=equation,
        protocol=protocol,
        t=t if time_jitter else t[0],
        x=(grid.points(plan.grid) if x is None else x[0] if shared_points else x).numpy(),
        u=u,
        parameters=values[run_of],
        parameter_names=tuple(declared),
        environment=None if environments is None else run_of % environments,
        period=period,
    )


def _plan(equation: Equation, name: str | None, settings: Mapping[str, Any]) -> tuple[str, DataProtocol]:
    """Name and content of the protocol, updated by the settings. Raises UserError if these are inadmissible."""
    name = name or next(iter(equation.protocols))
    if name not in equation.protocols:
        names = ", ".join(equation.protocols)
        raise UserError(f"Unknown protocol {name!r} for {equation.name}: choose one of {names}.")
    known = [item.name for item in fields(DataProtocol) if not item.name.endswith("parameters")]
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise UserError(f"Unknown setting {unknown[0]!r} of a simulation: choose from {', '.join(known)}.")
    chosen = {key: value for key, value in settings.items() if value is not None}
    for key in ("frames", "grid", "resolution", "windows", "dimensions"):
        least = 4 if key in ("grid", "resolution") else 1
        if key in chosen and not _is_whole(chosen[key], least):
            raise UserError(f"{key} is {chosen[key]!r}: give a whole number of at least {least}.")
    for key in ("dt", "period", "burn_in"):
        if key in chosen and not _at_least_zero(chosen[key], zero=key == "burn_in"):
            raise UserError(f"{key} is {chosen[key]!r}: give a positive number{' or 0' if key == 'burn_in' else ''}.")
    plan = replace(equation.protocols[name], **chosen)
    if plan.dimensions not in equation.dimensions:
        possible = " or ".join(map(str, equation.dimensions))
        raise UserError(f"{equation.name} in {plan.dimensions} dimensions is not known: give dimensions={possible}.")
    if plan.resolution is not None and "resolution" not in chosen:
        plan = replace(plan, resolution=max(plan.resolution, plan.grid))
    return name, plan


def _check(
    trajectories: int, seed: int, points: str | int, noise: float, missing: float, time_jitter: float, tolerance: float
) -> None:
    for name, number, least in (("trajectories", trajectories, 1), ("seed", seed, 0)):
        if not _is_whole(number, least):
            raise UserError(f"{name} is {number!r}: give a whole number of at least {least}.")
    if points != "grid" and not _is_whole(points, 1):
        raise UserError(f"points is {points!r}: give `grid` or the number of random points.")
    if not _at_least_zero(noise, zero=True):
        raise UserError(f"noise is {noise!r}: give a number of at least 0, in units of each channel's deviation.")
    for name, fraction in (("missing", missing), ("time_jitter", time_jitter)):
        if not _at_least_zero(fraction, zero=True) or fraction >= 1:
            raise UserError(f"{name} is {fraction!r}: give a fraction of at least 0 and below 1.")
    if not _at_least_zero(tolerance) or tolerance >= 1:
        raise UserError(f"tolerance is {tolerance!r}: give a small positive number, such as 1e-7.")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _at_least_zero(value: Any, zero: bool = False) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and (value > 0 or (zero and value == 0))


def _random_points(period: Sequence[float], count: int, sets: int, seed: int) -> Tensor:
    """Uniformly random points (sets, count, d)."""
    draws = [np.random.default_rng([seed, _POINTS, index]).random((count, len(period))) for index in range(sets)]
    return torch.from_numpy(np.stack(draws)) * torch.tensor(period, dtype=torch.float64)


def _times(plan: DataProtocol, trajectories: int, jitter: float, seed: int) -> np.ndarray:
    """Times (S, T) within each trajectory, from 0; all but the first are shifted by up to half of `jitter` times dt."""
    regular = plan.dt * np.arange(plan.frames)
    times = np.tile(regular, (trajectories, 1))
    if jitter:
        for trajectory in range(trajectories):
            moves = np.random.default_rng([seed, _TIMES, trajectory]).random(plan.frames - 1) - 0.5
            times[trajectory, 1:] += jitter * plan.dt * moves
    return times


@dataclass(frozen=True)
class _Solving:
    """Solution of all runs: `x` (S or 1, N, d), None for the grid; `t` (S, T); parameter `values` (runs, P)."""

    equation: Equation
    plan: DataProtocol
    grid: SpectralGrid
    x: Tensor | None
    t: np.ndarray
    values: np.ndarray
    seed: int
    tolerance: float

    def all(self, progress: Progress | None) -> np.ndarray:
        """Values (S, T, N, C), in batches of runs that fit the cache, with as many parallel batches as torch threads.

        Each batch is solved by one torch thread: the arrays are small, and synchronisation at every operation would
        cost more than it gains. Batches, and so the values, do not depend on the number of threads.
        """
        plan, grid, runs = self.plan, self.grid, len(self.values)
        channels = len(self.equation.channels(grid.dimensions))
        points = plan.grid**grid.dimensions if self.x is None else self.x.shape[1]
        u = np.empty((len(self.t), plan.frames, points, channels), np.float32)
        batch = max(1, _BATCH_VALUES // (channels * grid.size**grid.dimensions))
        batches = [range(first, min(first + batch, runs)) for first in range(0, runs, batch)]
        total = len(batches) * (len(self._burn_in_times()) + plan.windows * plan.frames)
        steps, lock = itertools.count(1), threading.Lock()

        def report() -> None:
            with lock:
                done = next(steps)
                if progress is not None:
                    progress(done, total)

        def work(members: range) -> float:
            torch.set_num_threads(1)  # of this worker
            return self.batch(members, u, report)

        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(max_workers=min(threads, os.cpu_count() or 1))
        try:
            tail = max(pool.map(work, batches))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
        if tail > _TAIL:
            logger.warning(
                "%s is barely resolved by %d points an axis: its highest modes hold %.1g of the amplitude; "
                "give a higher resolution.",
                self.equation.name,
                grid.size,
                tail,
            )
        return u

    def batch(self, members: range, u: np.ndarray, report: Callable[[], None]) -> float:
        """Largest `_tail_share` of the runs `members`, whose trajectories are written into `u`."""
        equation, plan, grid = self.equation, self.plan, self.grid
        names = equation.parameters(grid.dimensions)
        parameters = {name: torch.tensor(self.values[list(members), column]) for column, name in enumerate(names)}
        before = {
            name: torch.full_like(value, plan.burn_in_parameters[name]) if name in plan.burn_in_parameters else value
            for name, value in parameters.items()
        }
        starts = [equation.initial(grid, np.random.default_rng([self.seed, _INITIAL, run])) for run in members]
        state = torch.stack(starts)
        tail = 0.0
        try:
            burning_in = solve(equation, grid, state, self._burn_in_times(), before, tolerance=self.tolerance)
            for reached in burning_in:
                state = reached
                report()
            frames = solve(equation, grid, state, self._run_times(members), parameters, tolerance=self.tolerance)
            for index, state in enumerate(frames):
                window, frame = divmod(index, plan.frames)
                rows = [row for row in (run * plan.windows + window for run in members) if row < len(u)]
                if rows:
                    u[rows, frame] = self._observed(state[: len(rows)], rows).to(torch.float32).numpy()
                tail = max(tail, _tail_share(grid, state, equation.degree))
                report()
        except UnresolvedError as error:
            raise UserError(
                f"The solution of {equation.name} grows without bounds or too steep near t = {error.time:g}: "
                "give a higher resolution, more diffusion or a shorter time."
            ) from error
        return tail

    def _burn_in_times(self) -> Tensor:
        count = math.ceil(self.plan.burn_in / self.plan.dt)
        return torch.linspace(0, self.plan.burn_in, count + 1, dtype=torch.float64)[1:]

    def _run_times(self, members: range) -> Tensor:
        """Times (R, windows T) since the end of the burn-in, of consecutive windows."""
        plan = self.plan
        regular = plan.dt * np.arange(plan.frames)
        times = np.empty((len(members), plan.windows, plan.frames))
        for row, run in enumerate(members):
            for window in range(plan.windows):
                trajectory = run * plan.windows + window
                own = self.t[trajectory] if trajectory < len(self.t) else regular  # unused windows of the last run
                times[row, window] = window * plan.frames * plan.dt + own
        return torch.from_numpy(times).flatten(1)

    def _observed(self, state: Tensor, rows: list[int]) -> Tensor:
        """Values (S, N, C) of the trajectories `rows` at their points."""
        if self.x is None:
            return self.grid.on_grid(state, self.plan.grid).transpose(1, 2)
        return self.grid.evaluate(state, self.x if len(self.x) == 1 else self.x[rows])


def _tail_share(grid: SpectralGrid, state: Tensor, degree: int) -> float:
    """Root mean square of the outermost quarter of the retained modes, relative to all but the mean, for the worst
    trajectory and channel.
    """
    state = state.clone()
    state[grid.mean] = 0
    highest = 0.75 * grid.size / (degree + 1)
    outer = torch.zeros((), dtype=torch.bool)
    for numbers in grid.integers:
        outer = outer | (numbers.abs() > highest)
    power = torch.view_as_real(state).square().sum(-1).flatten(2)
    share = power[..., outer.flatten()].sum(-1) / power.sum(-1).clamp_min(torch.finfo(torch.float64).tiny)
    return float(share.max().sqrt())


def _observe(u: np.ndarray, noise: float, missing: float, seed: int) -> None:
    """Add noise, in units of each channel's standard deviation over all trajectories, and hide values, in place."""
    deviation = u.std(axis=(0, 1, 2), dtype=np.float64)
    for trajectory in range(len(u)):
        if noise:
            draws = np.random.default_rng([seed, _NOISE, trajectory]).standard_normal(u.shape[1:])
            u[trajectory] += (noise * deviation * draws).astype(np.float32)
        if missing:
            hidden = np.random.default_rng([seed, _GAPS, trajectory]).random(u.shape[1:]) < missing
            u[trajectory][hidden] = np.nan
