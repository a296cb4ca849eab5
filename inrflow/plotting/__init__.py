"""Figures of forecasts, errors and training, written as PNG and GIF without changing matplotlib's global state.

Fields on (nearly) regular grids are drawn as images, on a sphere as maps, on scattered points of the plane over
triangles, on few scattered points as dots, in one dimension as lines. Truth and model share their colours; fields of
both signs and errors are centred on white. Frames up to the last observation are titled as assimilated, and observed
points are marked. Imports go one way: style, views, fields, lines, then the figures.
"""

from inrflow.plotting.animations import animation
from inrflow.plotting.diagnostics import calibration_figure, spectrum_figure
from inrflow.plotting.errors import error_figure
from inrflow.plotting.fields import Scene
from inrflow.plotting.forecasts import forecast_figure
from inrflow.plotting.losses import candidate_figure, loss_figure
from inrflow.plotting.series import series_figure

__all__ = ["Scene", "animation", "calibration_figure", "candidate_figure", "error_figure", "forecast_figure",
           "loss_figure", "series_figure", "spectrum_figure"]
