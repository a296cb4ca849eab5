"""Evaluation: errors of forecasts on data they were not fitted to, beside the forecasts a user would otherwise use."""
