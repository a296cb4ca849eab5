"""Web page with Panel and Bokeh: the server sends arrays to the browser, which draws, zooms and reports clicks."""

from __future__ import annotations

import html
import time
from typing import Any

import numpy as np
import panel as pn
from bokeh.events import RangesUpdate, Tap
from bokeh.models import ColumnDataSource, HoverTool, LinearColorMapper
from bokeh.models.annotations import ColorBar, Title
from bokeh.models.formatters import BasicTickFormatter
from bokeh.palettes import RdBu11, Viridis256
from bokeh.plotting import figure
from rich.console import Console

from inrflow.commands.explore.answers import ERROR, MOST_BYTES, SPREAD, VALUE, Explored
from inrflow.data.calendar import numbers_to_moments, parse_units
from inrflow.errors import UserError
from inrflow.runtime.safe_names import printable

_ADDRESS = "127.0.0.1"
_CANDIDATES = 12
_FEW = 200  # largest number of points drawn with an outline
_WIDTH, _HEIGHT = 640, 420
_INNER, _LONGEST = (490, 440), 3.0  # pixels within the axes of the picture; largest ratio of sides drawn to scale
_BAR = 86  # pixels of the colour bar and of labels such as -1.25e-08


def serve(explored: Explored, port: int, show: bool, console: Console) -> None:
    """Serve the page to this machine until Ctrl-C."""
    pn.extension(notifications=False)
    largest = int(1.4 * MOST_BYTES) + 10_000  # message size; files are sent in base 64
    server = pn.serve(lambda: Page(explored).layout, address=_ADDRESS, port=port, show=show, start=False,
                      title=f"inrflow: {explored.about.name}", websocket_max_message_size=largest, verbose=False)
    server.start()
    console.print(f"the page is at http://{_ADDRESS}:{server.port} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
    try:
        server.io_loop.start()
    finally:
        server.stop()


class Page:
    """Controls, picture at a time, series at the clicked point, and information on the model."""

    def __init__(self, explored: Explored) -> None:
        self.explored, about = explored, explored.about
        self.flat = len(explored.axes) == 1
        self.window = explored.box.astype(float)
        name = str(explored.names[0])
        self.place = explored.series(name, self.window.mean(0), 0)["near"]
        start, stop, step = explored.span(name)
        self.trajectory = pn.widgets.Select(name="trajectory", options=explored.names, value=name)
        self.model = pn.widgets.Select(name="model", options=explored.models, value=explored.model)
        self.channel = pn.widgets.Select(name="channel", options=list(about.channels))
        self.quantity = pn.widgets.Select(name="shown", options=explored.quantities)
        self.time = pn.widgets.FloatSlider(name="time", start=start, end=stop, value=start, step=step / 20,
                                           width=_WIDTH)
        self.dates = parse_units(about.time_units) is not None
        self.time.show_value = self.time.tooltips = not self.dates  # dates are shown in its name
        self.file = pn.widgets.FileInput(accept=".csv,.tsv,.txt")
        self.said = pn.pane.HTML("", width=_WIDTH)
        self.given = pn.pane.HTML("", width=300)  # separate, so that a new picture does not remove the remark
        self.took = pn.pane.HTML("", width=_WIDTH)
        self._draw_figures()
        for widget in (self.channel, self.quantity):
            widget.param.watch(lambda _: self.refresh(), "value")
        self.time.param.watch(lambda _: self.show(quick=True), "value")
        self.time.param.watch(lambda _: self.show(), "value_throttled")  # when the slider is released
        self.model.param.watch(lambda _: self.refresh(), "value")
        self.trajectory.param.watch(lambda _: self._chosen(), "value")
        self.file.param.watch(lambda _: self._given(), "value")
        self.layout = pn.Row(
            pn.Column(f"## {_words(about.name)}", self.trajectory, self.model, self.channel, self.quantity,
                      pn.pane.Markdown("observations to assimilate (CSV):"), self.file, self.given,
                      pn.pane.HTML(_of_model(explored), width=300), width=320),
            pn.Column(self.time, pn.pane.Bokeh(self.picture), self.said, pn.pane.Bokeh(self.curve), self.took),
        )
        self.refresh()

    def _draw_figures(self) -> None:
        axes, box = self.explored.axes, self.window
        pad = 0.05 * (box[1] - box[0])
        ranges: dict[str, Any] = {"x_range": (box[0, 0] - pad[0], box[1, 0] + pad[0])}
        if not self.flat:
            ranges["y_range"] = (box[0, 1] - pad[1], box[1, 1] + pad[1])
        sides = (box[1] - box[0])[:2]
        size: dict[str, Any] = {"width": _WIDTH, "height": _HEIGHT}
        if not self.flat and sides.max() < _LONGEST * sides.min():  # equal scales
            inner = sides * min(_INNER / sides)
            size = {"frame_width": round(inner[0]), "frame_height": round(inner[1])}
        beside = ", ".join(f"{name} = {value:.4g}" for name, value in self.explored.further.items())
        self.picture = figure(**size, tools="pan,wheel_zoom,box_zoom,reset",
                              min_border_right=_BAR, active_scroll="wheel_zoom", toolbar_location="above",
                              x_axis_label=f"{axes[0]}  ({beside})" if beside else axes[0],
                              y_axis_label=None if self.flat else axes[1], **ranges)
        self.mapper = LinearColorMapper(palette=Viridis256, nan_color="#ffffff")
        self.bar = ColorBar(color_mapper=self.mapper, width=12, formatter=BasicTickFormatter(power_limit_low=-3))
        self.image = ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        self.points = ColumnDataSource({"x": [], "y": [], "value": []})
        self.marker = ColumnDataSource({"x": [], "y": []})
        self.stations = ColumnDataSource({"x": [], "y": []})
        if self.flat:
            self.picture.line("x", "y", source=self.points, line_width=2)
        else:
            self.picture.image("image", x="x", y="y", dw="dw", dh="dh", source=self.image,
                               color_mapper=self.mapper)  # type: ignore[call-arg]
            self.dots = self.picture.scatter("x", "y", source=self.points, size=6, line_color="#444444", line_width=0.5,
                                             fill_color={"field": "value", "transform": self.mapper})
            self.picture.scatter("x", "y", source=self.stations, size=5, fill_color="white", line_color="black")
            self.picture.scatter("x", "y", source=self.marker, marker="cross", size=14, line_color="black",
                                 line_width=2)
            self.picture.add_layout(self.bar, "right")
        self.picture.add_tools(HoverTool(tooltips=[("place", "$x, $y")]))
        self.picture.on_event(Tap, self._clicked)
        self.picture.on_event(RangesUpdate, self._zoomed)
        units = self.explored.about.time_units or "time"
        self.curve = figure(width=_WIDTH, height=260, tools="pan,wheel_zoom,reset",
                            x_axis_type="datetime" if self.dates else "linear",
                            x_axis_label="UTC" if self.dates else _words(units))
        self.title = self.curve.title = Title()
        self.band = ColumnDataSource({"t": [], "low": [], "middle": [], "high": []})
        self.seen = ColumnDataSource({"t": [], "u": []})
        self.now = ColumnDataSource({"t": [], "u": []})
        self.curve.varea("t", "low", "high", source=self.band, fill_alpha=0.25, legend_label="90 % interval")
        self.curve.line("t", "middle", source=self.band, line_width=2, legend_label="forecast")
        self.curve.scatter("t", "u", source=self.seen, size=5, color="black", legend_label="observed, nearest place")
        self.curve.line("t", "u", source=self.now, color="gray", line_dash="dashed")
        self.curve.legend.update(orientation="horizontal", border_line_color=None, label_text_font_size="8pt",
                                 padding=0)
        self.curve.add_layout(self.curve.legend[0], "above")

    @property
    def _number(self) -> int:
        return self.explored.about.channels.index(self.channel.value)

    @property
    def _time(self) -> float:
        return float(self.time.value)  # type: ignore[arg-type]

    def _on_axis(self, t: Any) -> np.ndarray:
        """Times for the axis of the series: dates if the data have a calendar."""
        t = np.asarray(t, np.float64)
        return numbers_to_moments(t, self.explored.about.time_units) if self.dates else t

    def refresh(self) -> None:
        """Redraw everything."""
        self.show()
        self.show_series()

    def show(self, quick: bool = False) -> None:
        """Draw the picture at the chosen time; `quick`: while the slider moves."""
        began = time.perf_counter()
        self.explored.model = str(self.model.value)
        try:
            view = self.explored.view(str(self.trajectory.value), self._time, self._number, str(self.quantity.value),
                                      self.window, quick)
        except UserError as error:
            self._tell(str(error), wrong=True)
            return
        values = view.values
        if self.flat:
            order = np.argsort(view.places[:, 0])
            self.points.data = {"x": view.places[order, 0], "y": values[order], "value": values[order]}
        elif view.shape is None:
            self.image.data = {"image": [], "x": [], "y": [], "dw": [], "dh": []}
            few = len(values) <= _FEW
            self.dots.glyph.update(size=10 if few else 6, line_alpha=float(few))
            self.points.data = {"x": view.places[:, 0], "y": view.places[:, 1], "value": values}
        else:
            low, high = self.window
            self.points.data = {"x": [], "y": [], "value": []}
            self.image.data = {"image": [values.reshape(view.shape).astype(np.float32)], "x": [low[0]], "y": [low[1]],
                               "dw": [high[0] - low[0]], "dh": [high[1] - low[1]]}
        self._colour(values)
        self._tell(view.words)
        if self.dates:
            self.time.name = f"time {str(self._on_axis(self._time).astype('M8[m]')).replace('T', ' ')}"
        places = self.explored.stations(str(self.trajectory.value)) if view.shape is not None else np.zeros((0, 2))
        self.stations.data = {"x": places[:, 0], "y": places[:, 1]}
        spread = self.band.data["low"], self.band.data["high"]
        if len(spread[0]):
            self.now.data = {"t": self._on_axis([self._time] * 2),
                             "u": [float(np.min(spread[0])), float(np.max(spread[1]))]}
        self.took.object = f"answered in {1e3 * (time.perf_counter() - began):.0f} ms"

    @property
    def _unit(self) -> str:
        """Unit of the channel as text for the page; empty if unknown."""
        units = self.explored.about.units
        return _words(units[self._number]) if units and units[self._number] != "1" else ""

    def _colour(self, values: np.ndarray) -> None:
        self.bar.title = self._unit if self.quantity.value in (VALUE, ERROR, SPREAD) else ""
        known = values[np.isfinite(values)]
        if self.flat or not len(known):
            return
        signed = self.quantity.value not in (VALUE, SPREAD)
        top = float(np.abs(known).max()) or 1.0
        low, high = (-top, top) if signed else (float(known.min()), float(known.max()))
        self.mapper.update(low=low, high=high if high > low else low + 1e-12 + abs(low) * 1e-6,
                           palette=RdBu11 if signed else Viridis256)

    def show_series(self) -> None:
        """Draw the series at the place clicked last."""
        self.explored.model = str(self.model.value)
        try:
            series = self.explored.series(str(self.trajectory.value), self.place, self._number)
        except UserError as error:
            self._tell(str(error), wrong=True)
            return
        self.band.data = {"t": self._on_axis(series["t"]), **{key: series[key] for key in ("low", "middle", "high")}}
        known = np.isfinite(series["seen"])
        self.seen.data = {"t": self._on_axis(series["seen_t"][known]), "u": series["seen"][known]}
        every = [*zip(self.explored.axes, self.place, strict=True), *self.explored.further.items()]
        place = ", ".join(f"{name} = {value:.4g}" for name, value in every)
        near, here = (", ".join(f"{value:.4g}" for value in one) for one in (series["near"], self.place))
        observed = f" (observed at {near})" if near != here else ""
        outside = ", outside of the training data" if series["outside"].any() else ""
        self.title.text = f"{_words(self.channel.value)} at {place}{outside}{observed}"
        self.curve.yaxis.axis_label = self._unit
        self.marker.data = {"x": [self.place[0]], "y": [0.0 if self.flat else self.place[1]]}

    def _clicked(self, event: Any) -> None:
        self.place = np.array([event.x] if self.flat else [event.x, event.y], float)
        self.show_series()

    def _zoomed(self, event: Any) -> None:
        low, high = [event.x0, event.y0], [event.x1, event.y1]
        window = np.array([low[:1], high[:1]] if self.flat else [low, high], float)
        if np.isfinite(window).all() and (window[1] > window[0]).all():
            self.window = window
            self.show()

    def _chosen(self) -> None:
        start, stop, step = self.explored.span(self.trajectory.value)
        self.time.param.update(start=start, end=stop, step=step / 20, value=min(max(self._time, start), stop))
        self.refresh()

    def _given(self) -> None:
        if self.file.filename is None:
            return
        try:
            name = self.explored.assimilate(str(self.file.filename), self.file.value or b"")  # None: an empty file
        except UserError as error:
            self.given.object = _told(str(error), wrong=True)
            return
        self.trajectory.options = self.explored.names
        self.trajectory.value = name
        self.given.object = _told(f"{self.file.filename} is assimilated and shown as {name}")

    def _tell(self, words: str, wrong: bool = False) -> None:
        self.said.object = _told(words, wrong)


def _told(words: str, wrong: bool = False) -> str:
    """A remark as HTML."""
    return f'<span style="color:{"#b00020" if wrong else "#555"}">{_words(words)}</span>'


def _of_model(explored: Explored) -> str:
    """Law and candidates as HTML."""
    parts = []
    if explored.law:
        parts.append("<h3>law</h3><pre style='white-space:pre-wrap'>" + _words("\n".join(explored.law)) + "</pre>")
    report = explored.candidates
    if report and report.get("candidates"):
        rows = []
        for index, one in enumerate(report["candidates"][:_CANDIDATES]):
            error = one["validation_error"]
            words = (one["recipe"], one["candidate"], "-" if error is None else f"{error:.1e}")
            cells = "".join(f"<td>{_words(word)}</td>" for word in words)
            rows.append(f"<tr style='font-weight:{'bold' if index == report['chosen'] else 'normal'}'>{cells}</tr>")
        parts.append("<h3>candidates</h3><table><tr><th>recipe</th><th>model</th><th>held-out error</th></tr>"
                     + "".join(rows) + "</table>")
    return "".join(parts)


def _words(text: Any) -> str:
    """Text of a file or user, escaped for HTML."""
    lines = str(text).split("\n")
    return "\n".join(html.escape(printable(line)) for line in lines)
