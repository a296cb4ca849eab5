"""One channel of a trajectory made ready for drawing: its panels, their colours, limits and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from inrflow.plotting.style import (
    BEYOND,
    HALF_WIDTH,
    SIZE,
    TRUTH,
    colours,
    moment_label,
    palette,
    robust_size,
    units_label,
)
from inrflow.plotting.views import View, view_of

_EVEN = 0.7  # least over largest uncertainty of panels that show no pattern


@dataclass
class ChannelFields:
    """One channel of a trajectory and what is drawn of it."""

    t: np.ndarray
    x: np.ndarray
    panels: dict[str, np.ndarray]
    name: str
    units: str
    coordinates: Sequence[str]
    geometry: str | None
    triangles: np.ndarray | None
    time_units: str | None
    horizon: float | None

    def view(self, frame: int) -> View:
        x = self.x if self.x.ndim == 2 else self.x[frame]
        return view_of(x, self.coordinates, self.geometry, self.triangles)

    def styles(self, frames: Sequence[int]) -> dict[str, tuple[Colormap, tuple[float, float]]]:
        fields = self.panels.get("truth", self.panels["forecast"])[frames]
        shared = palette(fields)
        styles = {"truth": shared, "forecast": shared}
        if "error" in self.panels:
            size = robust_size(self.panels["error"][frames])
            styles["error"] = colours("RdBu_r"), (-size, size)
        if "uncertainty" in self.panels:
            size = robust_size(self.panels["uncertainty"][frames])
            even = np.nanpercentile(self.panels["uncertainty"][frames], 1) > _EVEN * size
            # Nearly the same everywhere, it would be black all over at the end of the scale.
            styles["uncertainty"] = colours("magma_r"), (0.0, 2 * size if even else size)
        return {name: styles[name] for name in self.panels}

    def line_limits(self, panel: str) -> tuple[float, float]:
        """Limits of a panel of lines that hold at all times; they hold the intervals as far as these are no wider than
        three times what is drawn.
        """
        shown = np.concatenate(
            [
                self.panels[name].ravel()
                for name in ("truth", "forecast", "error")
                if name in self.panels and (name == "error") == (panel == "error")
            ]
        )
        shown = shown[np.isfinite(shown)] if np.isfinite(shown).any() else np.array([0.0, 1.0])
        low, high = float(shown.min()), float(shown.max())
        if panel == "error":
            high = max(high, -low, 1e-12)
            if "uncertainty" in self.panels:
                high = max(high, min(3 * high, HALF_WIDTH * robust_size(self.panels["uncertainty"])))
            low = -high
        margin = 0.08 * max(high - low, 1e-12)
        return low - margin, high + margin

    def label(self, panel: str) -> str:
        labels = {"truth": self.name, "forecast": self.name, "error": "error", "uncertainty": "std"}
        return f"{labels[panel]}{self.units}"

    def moment(self, frame: int) -> str:
        """When a frame was, in words."""
        return moment_label(self.t[frame], self.time_units, float(np.diff(self.t).min(initial=np.inf)))

    def beyond(self, frame: int) -> bool:
        return self.horizon is not None and bool(self.t[frame] > self.horizon)

    def stamp(self, ax: Axes, frame: int) -> None:
        beyond = self.beyond(frame)
        ax.set_title(
            self.moment(frame) + ("\nbeyond training" if beyond else ""),
            fontsize=SIZE,
            color=BEYOND if beyond else TRUTH,
        )


def channel_fields(
    t: Any,
    x: Any,
    truth: Any,
    prediction: Any,
    std: Any,
    channels: Sequence[str],
    units: Sequence[str] | None,
    channel: int | str,
    coordinates: Sequence[str] | None,
    geometry: str | None,
    triangles: Any,
    time_units: str | None,
    horizon: float | None,
) -> ChannelFields:
    index = channels.index(channel) if isinstance(channel, str) else channel
    t, x = np.asarray(t, np.float64), np.asarray(x, np.float64)
    shape = (len(t), x.shape[-2], len(channels))
    values: dict[str, np.ndarray] = {}
    for name, array in (("truth", truth), ("forecast", prediction), ("uncertainty", std)):
        if array is not None:
            if np.shape(array) != shape:
                raise ValueError(f"{name} has shape {np.shape(array)}; t, x and channels say {shape}")
            values[name] = np.asarray(array, np.float64)[..., index]
    panels = {name: field for name, field in values.items() if name != "uncertainty"}
    if "truth" in values:
        panels["error"] = values["forecast"] - values["truth"]
    if "uncertainty" in values:
        panels["uncertainty"] = values["uncertainty"]
    names = coordinates or ("x", "y", "z")[: x.shape[-1]]
    return ChannelFields(
        t,
        x,
        panels,
        channels[index],
        units_label(units[index] if units else None),
        names,
        geometry,
        None if triangles is None else np.asarray(triangles),
        time_units,
        horizon,
    )
