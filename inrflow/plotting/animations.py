"""Animations of the panels of a forecast."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from inrflow.plotting.fields import Scene
from inrflow.plotting.lines import draw_lines
from inrflow.plotting.style import BEYOND, MODEL, SIZE, format_colour_bar, new_figure, shortened
from inrflow.plotting.views import WIDE
from inrflow.runtime.atomic_files import replaced_atomically

_DPI = 100  # smaller than stills
_SMOOTH = 40  # frames, about, of an animation whose model is known between those of the data


def animation(
    path: str | os.PathLike[str],
    scene: Scene,
    *,
    channel: int | str = 0,
    title: str | None = None,
    frames_per_second: float = 8.0,
    largest: int = 60,
) -> Path:
    """Animation of truth, model, error and uncertainty of one channel, as a GIF of at most `largest` frames; the model
    also between the frames of the data if the scene knows it there."""
    data = scene.channel(channel)
    frames, data = len(data.t), data.refined(min(_SMOOTH, largest))
    chosen = np.unique(np.linspace(0, len(data.t) - 1, min(largest, len(data.t))).round().astype(int)).tolist()
    lines = data.x.shape[-1] == 1
    view = data.view(chosen[0])
    names = [name for name in ("model", "error") if name in data.panels] if lines else list(data.panels)
    stacked = lines or view.ratio > WIDE
    width = 4.2 if stacked else 2.3
    height = 1.7 if lines else width / view.ratio
    count = len(names)
    size = (width + 1.2, count * (height + 0.35) + 0.8) if stacked else (count * (width + 0.3) + 0.4, height + 1.7)
    figure = new_figure(*size, title)
    axes = np.ravel(figure.subplots(count if stacked else 1, 1 if stacked else count, squeeze=False))
    styles = {} if lines else data.styles(chosen)
    limits = {name: data.line_limits(name) for name in names} if lines else {}
    drawn: list[Any] = []
    marks: list[Any] = []

    def draw(frame: int) -> None:
        words = " · ".join(filter(None, (data.moment(frame), data.status(frame))))
        figure.supxlabel(words, fontsize=SIZE + 1, color=data.colour(frame))
        for ax, name in zip(axes, names, strict=True):
            if lines:
                position = data.places(frame)[:, 0]
                ax.clear()
                draw_lines(ax, data, name, frame, position, np.argsort(position))
                ax.set_ylim(*limits[name])
                ax.set_ylabel(data.label(name), fontsize=SIZE)
                ax.tick_params(labelsize=SIZE - 1.5)
                if name == names[-1]:
                    ax.set_xlabel(shortened(data.coordinates[0]), fontsize=SIZE)
                if name == names[0]:
                    ax.legend(fontsize=SIZE - 1, frameon=False, loc="upper right")
            else:
                moved = view if data.x.ndim == 2 else data.view(frame)
                drawn.append(moved.draw(ax, data.panels[name][frame], *styles[name]))
                if data.marked(name, frame) and data.sensors is not None:
                    marks.append(moved.mark(ax, data.sensors))

    figure.set_dpi(_DPI)
    palette = _palette([colours for colours, _ in styles.values()])
    pictures: list[Image.Image] = []
    for frame in chosen:
        for artists in (drawn, marks):
            while artists:
                artists.pop().remove()
        draw(frame)
        if frame == chosen[0] and not lines:
            for place, (ax, name) in enumerate(zip(axes, names, strict=True)):
                view.format_axes(ax, bottom=not stacked or place == count - 1, left=stacked or place == 0)
                nearest = ", nearest frame" if len(data.t) > frames and name != "model" else ""
                ax.set_title(f"{name}{nearest}", fontsize=SIZE + 1)
                location: Literal["right", "bottom"] = "right" if stacked else "bottom"
                format_colour_bar(
                    figure.colorbar(drawn[place], ax=ax, aspect=15, pad=0.02, location=location), data.label(name)
                )
        pictures.append(_picture(figure, palette))
        figure.set_layout_engine("none")  # keep the first frame's layout
    duration = int(1000 / frames_per_second)
    with replaced_atomically(path) as partial:
        pictures[0].save(partial, format="GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return Path(path)


def _palette(maps: Sequence[Colormap]) -> Image.Image:
    """Palette of 256 colours of an animation: its colour maps, greys for text, and the colours of lines on white.

    A palette chosen from the pixels of each frame would flicker and omit the ends of the colour bars.
    """
    distinct = list({colours.name: colours for colours in maps}.values())
    ramps = [colours(np.linspace(0, 1, 60))[:, :3] for colours in distinct]
    white = np.ones(3)
    for colour, shades in (("#000000", 32), (BEYOND, 14), (MODEL, 26)):
        ramps.append(white + np.linspace(0, 1, shades)[:, None] * (np.array(to_rgb(colour)) - white))
    table = np.round(255 * np.concatenate(ramps)).astype(np.uint8)
    result = Image.new("P", (1, 1))
    result.putpalette(table.ravel().tolist())
    return result


def _picture(figure: Figure, palette: Image.Image) -> Image.Image:
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    rgb = np.asarray(canvas.buffer_rgba())[..., :3]
    return Image.fromarray(rgb).quantize(palette=palette, dither=Image.Dither.NONE)
