"""Trajectories to draw, and single channels with their panels, colours, limits and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from inrflow.numerics.normal import HALF_WIDTH_90
from inrflow.plotting.style import (
    BEYOND,
    SIZE,
    TRUTH,
    colours,
    moment_label,
    palette,
    robust_colour_limit,
    shortened,
    units_label,
)
from inrflow.plotting.views import View, drawn_order, view_of

_EVEN = 0.7  # ratio of smallest to largest uncertainty above which a panel counts as uniform


@dataclass
class Scene:
    """Trajectory to draw.

    Attributes:
        t: (T,). x: (N, d) or (T, N, d).
        prediction: (T, N, C) in data units; truth, std: the same or None. NaN where unknown.
        channels, units: C names; units of the values.
        triangles: (M, 3) corners of a mesh of the points.
        coordinates, geometry, time_units: as in a Description.
        horizon: last time of training; later frames are marked.
        assimilated: last time with an assimilated observation; later frames are forecasts. None: no such titles.
        sensors: (n, d) observed places, which are marked; None if all points were observed.
        edges: whether the edges of a mesh are drawn.
        between: function from times (K,) to predictions (K, N, C) at the points x, for animations.
    """

    t: Any
    x: Any
    prediction: Any
    channels: Sequence[str]
    truth: Any = None
    std: Any = None
    units: Sequence[str] | None = None
    triangles: Any = None
    coordinates: Sequence[str] | None = None
    geometry: str | None = None
    time_units: str | None = None
    horizon: float | None = None
    assimilated: float | None = None
    sensors: Any = None
    edges: bool = False
    between: Callable[[np.ndarray], Any] | None = None

    def __post_init__(self) -> None:
        order = drawn_order(self.coordinates or ())
        if self.geometry is None and order != sorted(order):  # of (time, y, x)
            self.coordinates = [(self.coordinates or ())[axis] for axis in order]
            self.x = np.asarray(self.x)[..., order]
            self.sensors = None if self.sensors is None else np.asarray(self.sensors)[..., order]

    def channel(self, channel: int | str) -> ChannelFields:
        """One channel, prepared for drawing. Raises ValueError if shapes do not fit together."""
        index = list(self.channels).index(channel) if isinstance(channel, str) else channel
        t, x = np.asarray(self.t, np.float64), np.asarray(self.x, np.float64)
        shape = (len(t), x.shape[-2], len(self.channels))
        values: dict[str, np.ndarray] = {}
        for name, array in (("truth", self.truth), ("model", self.prediction), ("std", self.std)):
            if array is not None:
                if np.shape(array) != shape:
                    raise ValueError(f"{name} has shape {np.shape(array)}; t, x and channels say {shape}")
                values[name] = np.array(array, np.float64)[..., index]
        if "truth" in values and x.ndim == 2:
            never = ~np.isfinite(values["truth"]).any(0)  # land, or the inside of a body
            if not never.all():
                for name in values:
                    values[name][:, never] = np.nan
        panels = {name: field for name, field in values.items() if name != "std"}
        if "truth" in values:
            panels["error"] = values["model"] - values["truth"]
        if "std" in values:
            panels["std"] = values["std"]
        sensors = None if self.sensors is None else np.asarray(self.sensors, np.float64)
        units = units_label(self.units[index] if self.units else None)
        return ChannelFields(self, t, x, panels, self.channels[index], units, sensors)


@dataclass
class ChannelFields:
    """One channel of a trajectory, with arrays (T, N) of the available panels among truth, model, error and std."""

    scene: Scene
    t: np.ndarray
    x: np.ndarray
    panels: dict[str, np.ndarray]
    name: str
    units: str
    sensors: np.ndarray | None

    @property
    def coordinates(self) -> Sequence[str]:
        """Names of the coordinates."""
        return self.scene.coordinates or ("x", "y", "z")[: self.x.shape[-1]]

    def refined(self, count: int) -> ChannelFields:
        """The channel at about `count` times: the model between the frames, other panels of the nearest frame; the
        same where there are as many frames, or no predictions between them."""
        steps = round(count / max(len(self.t) - 1, 1))
        if self.scene.between is None or steps < 2 or len(self.t) < 2:
            return self
        place = np.arange((len(self.t) - 1) * steps + 1) / steps
        times = np.interp(place, np.arange(len(self.t)), self.t)
        panels = {name: field[np.rint(place).astype(int)] for name, field in self.panels.items()}
        model = np.array(self.scene.between(times), np.float64)[..., list(self.scene.channels).index(self.name)]
        panels["model"] = np.where(np.isfinite(self.panels["model"]).any(0), model, np.nan)
        return replace(self, t=times, panels=panels)

    def places(self, frame: int) -> np.ndarray:
        """Points (N, d) of a frame."""
        return self.x if self.x.ndim == 2 else self.x[frame]

    def view(self, frame: int) -> View:
        """Rendering of the points of a frame."""
        triangles = None if self.scene.triangles is None else np.asarray(self.scene.triangles)
        view = view_of(self.places(frame), self.coordinates, self.scene.geometry, triangles)
        view.edges, view.coasts = self.scene.edges, self.scene.time_units is not None  # else not the Earth
        if self.x.ndim == 3 and self.x.shape[-1] == 2:  # equal limits although points move
            view.reach = np.nanmin(self.x, (0, 1)), np.nanmax(self.x, (0, 1))
            across, along = view.reach[1] - view.reach[0]
            view.ratio = float(np.clip(across / along, 0.4, 8.0)) if view.aspect == "equal" else view.ratio
        return view

    def marked(self, panel: str, frame: int) -> bool:
        """Whether sensors are drawn: in the panel of the truth (else of the model), if the frame was assimilated."""
        first = "truth" if "truth" in self.panels else "model"
        return self.sensors is not None and panel == first and self.assimilated(frame)

    def styles(self, frames: Sequence[int]) -> dict[str, tuple[Colormap, tuple[float, float]]]:
        """Colour map and limits of each panel over some frames."""
        fields = self.panels.get("truth", self.panels["model"])[frames]
        shared = palette(fields)
        styles = {"truth": shared, "model": shared}
        if "error" in self.panels:
            size = robust_colour_limit(self.panels["error"][frames])
            styles["error"] = colours("RdBu_r"), (-size, size)
        if "std" in self.panels:
            size = robust_colour_limit(self.panels["std"][frames])
            even = np.nanpercentile(self.panels["std"][frames], 1) > _EVEN * size
            # A nearly uniform field would be black everywhere at the end of the scale.
            styles["std"] = colours("magma_r"), (0.0, 2 * size if even else size)
        return {name: styles[name] for name in self.panels}

    def line_limits(self, panel: str) -> tuple[float, float]:
        """Limits of a panel of lines for all times, with the intervals up to three times the range of the lines."""
        shown = np.concatenate(
            [
                self.panels[name].ravel()
                for name in ("truth", "model", "error")
                if name in self.panels and (name == "error") == (panel == "error")
            ]
        )
        shown = shown[np.isfinite(shown)] if np.isfinite(shown).any() else np.array([0.0, 1.0])
        low, high = float(shown.min()), float(shown.max())
        if panel == "error":
            high = max(high, -low, 1e-12)
            if "std" in self.panels:
                high = max(high, min(3 * high, HALF_WIDTH_90 * robust_colour_limit(self.panels["std"])))
            low = -high
        margin = 0.08 * max(high - low, 1e-12)
        return low - margin, high + margin

    def label(self, panel: str) -> str:
        """Label of a panel's values, with units."""
        name = shortened(self.name)
        labels = {"truth": name, "model": name, "error": "error", "std": "std. deviation"}
        return f"{labels[panel]}{self.units}"

    def moment(self, frame: int) -> str:
        """Label of the time of a frame."""
        return moment_label(self.t[frame], self.scene.time_units, float(np.diff(self.t).min(initial=np.inf)))

    def beyond(self, frame: int) -> bool:
        """Whether a frame is later than the training horizon."""
        return self.scene.horizon is not None and bool(self.t[frame] > self.scene.horizon)

    def assimilated(self, frame: int) -> bool:
        """Whether observations at or after this frame's time were assimilated, so that it is no forecast."""
        return self.scene.assimilated is not None and bool(self.t[frame] <= self.scene.assimilated)

    def status(self, frame: int) -> str:
        """Status of a frame in words: assimilated or forecast, and whether beyond training."""
        kind = [] if self.scene.assimilated is None else ["assimilated" if self.assimilated(frame) else "forecast"]
        return ", ".join([*kind, *(["beyond training"] if self.beyond(frame) else [])])

    def stamp(self, ax: Axes, frame: int) -> None:
        """Set the title of a column, its time and status."""
        ax.set_title(f"{self.moment(frame)}\n{self.status(frame)}".rstrip(), fontsize=SIZE, color=self.colour(frame))

    def colour(self, frame: int) -> str:
        """Colour of the text of a frame."""
        return BEYOND if self.beyond(frame) else TRUTH
