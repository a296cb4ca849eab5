"""Metrics of forecasts: the interface, the registry, and those that every evaluation computes."""

from inrflow.evaluation.metrics.base import METRICS, Block, Metric, register_metric
from inrflow.evaluation.metrics.calibration_table import CalibrationTable
from inrflow.evaluation.metrics.divergence import Divergence
from inrflow.evaluation.metrics.errors import GROUPS, SquaredErrors
from inrflow.evaluation.metrics.intervals import Intervals
from inrflow.evaluation.metrics.statistics import ChannelStatistics

__all__ = ["GROUPS", "METRICS", "Block", "CalibrationTable", "ChannelStatistics", "Divergence", "Intervals", "Metric",
           "SquaredErrors", "register_metric"]
