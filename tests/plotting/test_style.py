"""Layout of figures against matplotlib's own, and labels of colour bars."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from inrflow.plotting.style import DPI, format_colour_bar, new_figure, save_figure, shortened


@pytest.mark.parametrize("aspect", ["equal", "auto"])
def test_panels_that_are_measured_once_lie_where_constrained_layout_puts_them(aspect: str) -> None:
    places, counts = [], []
    for own in (True, False):
        figure, measured = new_figure(6.0, 5.0, "title"), list[int]()
        if not own:
            figure.set_layout_engine("constrained")
        for index, ax in enumerate(figure.subplots(2, 3).ravel()):
            image = ax.imshow(np.random.default_rng(index).uniform(0, 1e-4, (8, 8)), aspect=aspect)
            ax.yaxis.set_visible(index % 3 == 0)
            ax.set(ylabel="y", title=f"panel {index}")
            update = ax.xaxis._update_ticks
            ax.xaxis._update_ticks = lambda update=update, measured=measured: measured.append(1) or update()
        bar = figure.colorbar(image, ax=figure.axes, pad=0.02)
        format_colour_bar(bar, "u [K]")
        FigureCanvasAgg(figure).draw()
        assert bar.ax.yaxis.get_offset_text().get_text() == "×10⁻⁵"
        places.append(np.array([ax.get_window_extent().get_points() for ax in figure.axes]))
        counts.append(len(measured))
    np.testing.assert_allclose(*places, atol=0.05 * DPI)
    assert counts[0] < 0.7 * counts[1]


def test_names_from_data_are_short_labels_and_no_formulas(tmp_path: Path) -> None:
    assert shortened("very " * 20) == ("very " * 20)[:39] + "\u2026" and shortened("u") == "u"
    figure = new_figure(3, 2, r"cost $\bad{$ of $x_$")
    figure.subplots().set_ylabel(shortened(r"$\bad{$"))
    save_figure(figure, tmp_path / "a.png")
