"""Errors against time and losses against steps: curves are the numbers that were measured."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from small_fields import TIMES, T

from inrflow import plotting
from inrflow.errors import UserError
from inrflow.plotting import errors, losses


def test_a_figure_that_cannot_be_written_leaves_nothing_and_the_old_one_stays(tmp_path, monkeypatch):
    path = tmp_path / "error.png"
    plotting.error_figure(path, TIMES, {"model": TIMES + 1})
    before = path.read_bytes()

    def fails(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", fails)
    with pytest.raises(UserError, match="no space left on the disk"):
        plotting.error_figure(path, TIMES, {"model": TIMES + 2})
    assert [entry.name for entry in tmp_path.iterdir()] == ["error.png"] and path.read_bytes() == before


def drawn_axes(monkeypatch, draw):
    """The axes of the figure that `draw` would have written."""
    kept = []
    for module in (errors, losses):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: kept.append(figure) or path)
    draw()
    return kept[0].axes


def test_error_figure_shows_model_references_and_horizon_on_a_log_scale(monkeypatch):
    measured = {"inrflow": np.array([0.0, 1e-4, 1e-3, np.nan, 2e-3, 1.0]), "POD + DMD": np.full(T, 0.1)}
    (ax,) = drawn_axes(monkeypatch, lambda: plotting.error_figure("-", TIMES, measured, horizon=1.2, ylabel="NMSE"))
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "NMSE"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["inrflow", "POD + DMD"]
    model = ax.lines[0]
    np.testing.assert_array_equal(model.get_ydata(), [np.nan, 1e-4, 1e-3, np.nan, 2e-3, 1.0])
    assert model.get_linewidth() > ax.lines[1].get_linewidth()
    assert any(list(line.get_xdata()) == [1.2, 1.2] for line in ax.lines)


def test_error_figure_has_dates_for_calendar_times(tmp_path):
    path = plotting.error_figure(
        tmp_path / "e.png", 31.0 * np.arange(T), {"model": 1 + TIMES}, 62.0, time_units="days since 2000-01-01"
    )
    with Image.open(path) as picture:
        assert picture.size[0] > 300


def test_training_curves_come_from_the_rows_of_each_stage(monkeypatch):
    stages = {
        "decoder": [
            {"step": 0, "validation": 1.0},
            {"step": 10, "loss": 0.5},
            {"step": 20, "loss": 0.3, "validation": 0.5},
            {"step": 30, "loss": "damaged"},
        ],
        "dynamics": [{"step": 0}],
    }
    (ax,) = drawn_axes(monkeypatch, lambda: plotting.loss_figure("-", stages))
    assert ax.get_title() == "decoder" and ax.get_yscale() == "log"
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.5, 0.3], [1.0, 0.5]]


def test_a_run_without_steps_still_gives_a_figure(tmp_path):
    assert plotting.loss_figure(tmp_path / "loss.png", {}).exists()


def test_candidates_are_compared_by_their_errors_the_chosen_one_in_colour(monkeypatch, tmp_path):
    errors_of = {"law": 1e-3, "series": 1e-1, "neural": None, "reduced_order": 1e-5, "residual_field": 2e-3}
    rows = [{"recipe": name, "candidate": "one", "validation_error": error} for name, error in errors_of.items()]
    (ax,) = drawn_axes(monkeypatch, lambda: plotting.candidate_figure("-", rows, 3))
    dots = ax.collections[0]
    assert dots.get_offsets()[:, 0].tolist() == [1e-1, 1e-3, 1e-5] and ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_yticklabels()][-1] == "reduced_order: one"
    colours = dots.get_facecolors()
    assert (colours[0] == colours[1]).all() and (colours[2] != colours[1]).any()
    monkeypatch.undo()
    assert plotting.candidate_figure(tmp_path / "c.pdf", rows, 3).read_bytes().startswith(b"%PDF")
