"""Evaluation: errors of forecasts on data they were not fitted to, compared with reference forecasts."""
