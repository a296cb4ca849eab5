"""Data of the page as arrays: fields at a time, series at a point, solutions of trajectories and of tables."""

from __future__ import annotations

import time
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline

from inrflow.commands.explore.pictures import Canvas, Picture, View
from inrflow.data.calendar import number_to_date
from inrflow.data.formats.sphere import lonlat_to_xyz, xyz_to_lonlat
from inrflow.data.formats.tables import read_observations
from inrflow.data.formats.trajectory_file import TrajectoryFile
from inrflow.data.observations import Frames, Observations
from inrflow.domains.infer import with_holes
from inrflow.errors import UserError
from inrflow.evaluation.evaluate import require_channels
from inrflow.evaluation.references.base import References, title_of
from inrflow.model.extent import Seen
from inrflow.model.solution import Solution
from inrflow.model.surrogate import Surrogate
from inrflow.plotting.views import drawn_order, lattice, map_coordinates, middle
from inrflow.runtime.temporary import temporary_folder

_STATIONS = 200
MOST_BYTES = 20_000_000  # largest size of an uploaded table
_CELLS, _LINE, _SERIES = 100, 400, 160  # points of an image along each axis, of a line, times of a series
_KEPT = 8  # solutions that are cached
_QUICK, _NODES = 0.08, (5, 40)  # seconds for a picture while a slider moves; range of grid nodes along each axis
VALUE, ERROR, SPREAD, RATE = "value", "error", "spread", "d/dt"
OWN = "this run"


class Explored:
    """Run with the trajectories of a file, which are assimilated from their first frames on demand.

    observe: number of first frames that are assimilated; None: as many as forecasts of all models need. others,
    references: further runs of the same system by name, and reference forecasts of the run, which may be shown instead
    of its model. read: options of `convert` with which the files of the run were read.
    """

    def __init__(
        self, surrogate: Surrogate, path: Path, observe: int | None = None, candidates: dict[str, Any] | None = None,
        others: dict[str, Surrogate] | None = None, references: References | None = None,
        read: dict[str, Any] | None = None,
    ) -> None:
        self._read = dict(read or {})
        self.surrogate, self.path, self.about = surrogate, path, surrogate.description
        self.candidates, self._references = candidates, references
        self._runs = {OWN: surrogate, **(others or {})}
        self.observe = max(one.window for one in self._runs.values()) if observe is None else observe
        with TrajectoryFile(path, check=False) as file:
            for one in self._runs.values():
                require_channels(one, file, "a file of the same system")
            self.trajectories = file.trajectories
        self.on_sphere = self.about.geometry == "sphere"
        self._seen: dict[str, tuple[Observations, Frames]] = {}
        self._known: dict[tuple[str, str], Solution] = {}
        self._forecasts: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
        self._nodes = 20
        self._canvas: Canvas | None = None
        self.model, self.tables = OWN, list[str]()

    @property
    def models(self) -> dict[str, str]:
        """Keys of the models by title: the run, other runs, and reference forecasts."""
        fitted = [] if self._references is None else self._references.fitted
        return {name: name for name in self._runs} | {title_of(name): name for name in fitted}

    @property
    def names(self) -> list[str]:
        """Names of what can be shown: uploaded tables, and numbers of trajectories."""
        return [*self.tables, *map(str, range(self.trajectories))]

    @property
    def quantities(self) -> list[str]:
        """Quantities of a channel that can be shown."""
        return [VALUE, ERROR, SPREAD, RATE, *(f"d/d{name}" for name in self.about.coordinates)]

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the coordinates of the picture: those of the data (two at most), or longitude and latitude."""
        return ("longitude", "latitude") if self.on_sphere else tuple(
            self.about.coordinates[axis] for axis in drawn_order(self.about.coordinates)[:2])

    @property
    def box(self) -> np.ndarray:
        """Lowest and highest coordinates (2, 1 or 2) of the initial picture."""
        return self._map if self.on_sphere else self.surrogate.box[:, drawn_order(self.about.coordinates)[:2]]

    @cached_property
    def _map(self) -> np.ndarray:
        """Lowest and highest longitudes and latitudes (2, 2), with the map cut at unobserved longitudes."""
        _, frames = self._observed(self.names[0])
        lonlat = map_coordinates(frames.x.reshape(-1, 3))
        lonlat[:, 0] -= 360.0 * (lonlat[:, 0].mean() > 180)
        return np.stack([lonlat.min(0), lonlat.max(0)])

    def _observed(self, name: str) -> tuple[Observations, Frames]:
        """Assimilated observations of a trajectory, and all of its frames."""
        if name not in self._seen:
            with TrajectoryFile(self.path, check=False) as file:
                frames = file.read(int(name))
            first = slice(0, self.observe)
            x = frames.x if frames.x.ndim == 2 else frames.x[first]
            self._seen[name] = Observations(frames.t[first], x, frames.u[first]), frames
        return self._seen[name]

    def solution(self, name: str) -> tuple[Solution, Frames]:
        """Solution of a trajectory by the chosen run, and all observed frames."""
        observations, frames = self._observed(name)
        key = (self.model, name)
        if key not in self._known:
            solution = self._runs[self.model].assimilate(observations)
            self._known = {**dict(list(self._known.items())[1 - _KEPT:]), key: solution}
        return self._known[key], frames

    def _reference(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Times (T,) of the frames of a trajectory and of typical steps after them, and values (T, N, C) of the chosen
        reference forecast at these times, at the points of the data."""
        key = (self.model, name)
        if key not in self._forecasts:
            observations, frames = self._observed(name)
            seen = observations.frames()
            if seen.x.ndim == 3 or self._references is None:
                raise UserError("reference forecasts are for points that stay where they are; choose a run")
            _, stop, unit = self.span(name)
            later = frames.t[frames.t > seen.t[-1]]
            last = float(later[-1] if len(later) else seen.t[-1])
            times = np.concatenate([seen.t, later, np.arange(1, 1 + round((stop - last) / unit)) * unit + last])
            one = References(self._references.points, {self.model: self._references.fitted[self.model]})
            values = one.forecast(torch.as_tensor(times)[None], torch.as_tensor(seen.x)[None, None],
                                  torch.as_tensor(seen.u)[None])
            if not values:
                raise UserError(f"{title_of(self.model)} does not apply to this trajectory; choose another model")
            self._forecasts[key] = times, values[self.model][0].numpy()
        return self._forecasts[key]

    def assimilate(self, name: str, table: bytes) -> str:
        """Name under which a table of observations, given as the content of a file, is shown from now on.

        Raises UserError if it is too large, or cannot be read or assimilated.
        """
        if len(table) > MOST_BYTES:
            raise UserError(f"the table has {len(table) / 1e6:.0f} MB; give at most {MOST_BYTES / 1e6:.0f} MB")
        with temporary_folder() as folder:
            path = folder / "observations.csv"
            path.write_bytes(table)
            try:
                found = read_observations(path, self.about, self._read.get("stations"), self._read)
            except UserError as error:
                raise UserError(str(error).replace(str(path), name)) from error
        label = f"table {len(self.tables) + 1}"
        observations = next(iter(found.values()))
        self._seen[label] = observations, observations.frames()
        self.solution(label) if self.model in self._runs else None
        self.tables.insert(0, label)
        return label

    def span(self, name: str) -> tuple[float, float, float]:
        """First time of a trajectory, last time of the slider, and typical step."""
        _, frames = self._observed(name)
        start, unit = float(frames.t[0]), self.surrogate.scale.unit
        last = max(float(frames.t[-1]), start + self.surrogate.horizon)
        return start, last + max(0.5 * (last - start), 4 * unit), unit

    def stations(self, name: str) -> np.ndarray:
        """Places (N, 2) of a trajectory's observations if they are few and fixed; (0, 2) otherwise."""
        x = self._observed(name)[1].x
        few = x.ndim == 2 and len(x) <= _STATIONS and len(self.axes) == 2
        return self._places(x)[:, :2] if few else np.zeros((0, 2))

    def view(self, name: str, t: float, channel: int, quantity: str, window: np.ndarray, quick: bool = False) -> View:
        """View of a quantity at a time, on a grid (a line in one dimension) over a window (2, 1 or 2) of the picture;
        errors are at the places of the frame nearest in time.

        quick: interpolate the residual field from a coarse grid, to respond while a slider moves.
        """
        if self.model not in self._runs or quantity == ERROR:
            return self._at_points(name, t, channel, quantity)
        whole, _ = self.solution(name)
        solution, canvas = Picture(whole.surrogate, whole.estimate).of_one_channel(channel), self._drawn_on(window)
        lines = canvas.lines
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # diverging forecasts are visible
            if quick and len(lines) == 2 and solution.estimate.residual is not None:
                values = self._quickly(solution, t, channel, quantity, canvas)
            else:
                values = self._on_canvas(solution, t, channel, quantity, canvas)
        beyond = bool(self.surrogate.extent.beyond(np.array([t]), *solution.observed)[0])
        shape = None if len(lines) == 1 else (len(lines[1]), len(lines[0]))
        return View(canvas.places, np.where(canvas.outside, np.nan, values), shape,
                    "beyond the time span of training: an extrapolation" if beyond else "")

    def _drawn_on(self, window: np.ndarray) -> Canvas:
        """Places of a picture over a window, cached for the latest one."""
        if self._canvas is None or not np.array_equal(self._canvas.window, window):
            lines = [np.linspace(low, high, _LINE if window.shape[1] == 1 else _CELLS) for low, high in window.T]
            places = _tensor_grid(lines)
            points = self._points(places)
            outside = self.surrogate.extent.outside(points) | self._empty(places)
            self._canvas = Canvas(window.copy(), lines, places, points, outside)
        return self._canvas

    def _empty(self, places: np.ndarray) -> np.ndarray:
        """Mask of the places (N, 1 or 2) of the picture in cells of the data's grid that never have a value (land,
        bodies), or, in the plane, in significant gaps between scattered points."""
        frames = self._grid
        axes, cells = ([], None) if frames is None else lattice(frames)
        if frames is None or places.shape[1] < 2 or (cells is None and self.on_sphere):
            return np.zeros(len(places), bool)
        if cells is None:
            return Seen.of(frames / (size := np.ptp(frames, axis=0))).away(places / size)
        filled = np.full([len(axis) for axis in axes], with_holes(np.stack(cells, 1).astype(float)) is None)
        filled[cells] = True
        nearest = [np.searchsorted((axis[1:] + axis[:-1]) / 2, column) for axis, column in
                   zip(axes, places.T, strict=True)]
        return ~filled[tuple(nearest)]

    @cached_property
    def _grid(self) -> np.ndarray | None:
        """Places (N, 2) of the picture with values in the first trajectory; None if they are few or move."""
        if (one := self._observed("0")[1]).x.ndim == 3:
            return None
        x = one.x[np.isfinite(one.u).any((0, 2))]
        away = [] if self.on_sphere else drawn_order(self.about.coordinates)[2:]
        places = self._places(x[middle(x[:, away])] if away else x)
        return places if len(places) > _STATIONS and np.ptp(places, axis=0).min() > 0 else None

    def _quantity(
        self, solution: Solution, t: float, channel: int, quantity: str, x: np.ndarray
    ) -> np.ndarray:
        """Quantity (N,) of a solution at points (N, d)."""
        if quantity == VALUE:
            return solution(t, x)[:, channel]
        if quantity == SPREAD:
            return solution.std(t, x)[:, channel]
        if quantity == RATE:
            return solution.derivatives(t, x, ("dt",))["dt"][:, channel]
        return solution.derivatives(t, x, ("dx",))["dx"][:, channel, self._axis(quantity)]

    def _on_canvas(self, solution: Picture, t: float, channel: int, quantity: str, canvas: Canvas) -> np.ndarray:
        """Quantity (N,) of a solution at the places of the picture."""
        values = solution.decoded(self.model, t, channel, canvas) if quantity == VALUE else None
        return self._quantity(solution, t, channel, quantity, canvas.points) if values is None else values

    def _axis(self, quantity: str) -> int:
        """Index of the coordinate of a spatial derivative."""
        return self.quantities.index(quantity) - self.quantities.index(RATE) - 1

    def _quickly(
        self, solution: Picture, t: float, channel: int, quantity: str, canvas: Canvas
    ) -> np.ndarray:
        """Quantity on a canvas: codes are evaluated everywhere, the residual field by cubic interpolation between
        nodes, whose number is adapted to the time of the last call. Slopes are differences of the picture, and the
        spread is interpolated as a whole."""
        began, lines = time.perf_counter(), canvas.lines
        along = -1 if self.on_sphere or quantity in (VALUE, SPREAD, RATE) else self._axis(quantity)
        asked = VALUE if along in (0, 1) else quantity
        nodes = [np.linspace(line[0], line[-1], self._nodes) for line in lines]
        x = self._points(_tensor_grid(nodes))
        added, codes = self._quantity(solution, t, channel, asked, x), solution.without_residual()  # with known states
        if asked != SPREAD:
            added = added - self._quantity(codes, t, channel, asked, x)
        order = [int(along == axis) for axis in (0, 1)]
        spline = RectBivariateSpline(*nodes, added.reshape(self._nodes, -1).T, s=0)
        values = spline(*lines, *order).T
        spent = time.perf_counter() - began
        if asked == SPREAD:
            values = values.clip(added.min())
        else:
            given = self._on_canvas(codes, t, channel, asked, canvas).reshape(values.shape)
            values = values + (np.gradient(given, lines[along], axis=1 - along) if any(order) else given)
        left = _QUICK - (time.perf_counter() - began - spent)
        self._nodes = int(np.clip(self._nodes * np.sqrt(max(left, 0.0) / spent), *_NODES))
        return values.ravel()

    def _at_points(self, name: str, t: float, channel: int, quantity: str) -> View:
        """View of errors of the frame nearest in time, or of a reference forecast, at the points of the data."""
        _, frames = self._observed(name)
        nearest = int(np.abs(frames.t - t).argmin())
        moment = float(frames.t[nearest]) if quantity == ERROR else t
        x = frames.x if frames.x.ndim == 2 else frames.x[nearest]
        if quantity not in (VALUE, ERROR):
            raise UserError(f"{title_of(self.model)} has values only at the points of the data; choose {VALUE} or "
                            f"{ERROR}, or a run as the model")
        if self.model in self._runs:
            values = self.solution(name)[0](moment, x)[:, channel]
        else:
            times, every = self._reference(name)
            at = int(np.abs(times - moment).argmin())
            values = every[at, :, channel]
        if quantity == VALUE:
            return View(self._places(x), values, None,
                        f"{title_of(self.model)}, at the points of the data and {self._moment(times[at])}")
        seen = np.isfinite(frames.u[nearest, :, channel])
        return View(self._places(x[seen]), values[seen] - frames.u[nearest, seen, channel], None,
                    f"errors of the frame at {self._moment(moment)}")

    def _moment(self, t: float) -> str:
        """Time as text: a date if the data have a calendar."""
        return number_to_date(float(t), self.about.time_units) or f"t = {t:.6g}"

    def series(self, name: str, place: np.ndarray, channel: int) -> dict[str, np.ndarray]:
        """Times `t` and quantiles (`low`, `middle`, `high`) of a channel at a place of the picture; times and values
        observed at the nearest place `near` (of moving points in the first frame); and whether the place lies `outside`
        of the training data."""
        _, frames = self._observed(name)
        start, stop, _ = self.span(name)
        times = np.linspace(start, stop, _SERIES)
        x = self._points(np.asarray(place, np.float64)[None])
        every = frames.x if frames.x.ndim == 3 else frames.x[None]
        near = ((every - x) ** 2).sum(-1).argmin(-1)
        if self.model not in self._runs:
            times, values = self._reference(name)
            low = middle = high = values[:, near[0], channel]
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                low, middle, high = self.solution(name)[0].quantiles(times, np.repeat(x, len(times), 0))[..., channel]
        observed = frames.u[np.arange(len(frames.t)), np.broadcast_to(near, len(frames.t)), channel]
        return {"t": times, "low": low, "middle": middle, "high": high, "seen_t": frames.t, "seen": observed,
                "near": self._places(every[0, near[:1]])[0], "outside": self.surrogate.extent.outside(x)}

    def _points(self, places: np.ndarray) -> np.ndarray:
        """Points (N, d) at places of the picture, with the `further` coordinates."""
        if self.on_sphere:
            return lonlat_to_xyz(places[:, 0], places[:, 1])
        further = np.tile(list(self.further.values()), (len(places), 1))
        return np.hstack([places, further])[:, np.argsort(drawn_order(self.about.coordinates))]

    @cached_property
    def further(self) -> dict[str, float]:
        """Remaining coordinates and their values in the picture, medians of central points of the data."""
        if self.on_sphere or not (axes := drawn_order(self.about.coordinates)[2:]):
            return {}
        x = self._observed("0")[1].x[..., axes].reshape(-1, len(axes))
        return {self.about.coordinates[axis]: value for axis, value in zip(
            axes, np.median(x[middle(x)], 0).tolist(), strict=True)}

    def _places(self, x: np.ndarray) -> np.ndarray:
        if not self.on_sphere:
            return x[:, drawn_order(self.about.coordinates)[:2]]
        places, (west, east) = xyz_to_lonlat(x), self._map[:, 0]
        cut = (west + east) / 2 - 180
        places[:, 0] = (places[:, 0] - cut) % 360 + cut
        return places

    @property
    def law(self) -> list[str]:
        """Lines of the fitted law; empty for other models."""
        return [str(line) for line in self.surrogate.training.get("equation") or ()]


def _tensor_grid(lines: list[np.ndarray]) -> np.ndarray:
    """Points (N, d) of the grid of d lines, with the first coordinate fastest."""
    return np.stack(np.meshgrid(*lines, indexing="xy"), -1).reshape(-1, len(lines))
