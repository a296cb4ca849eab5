"""Pseudo-spectral solvers of periodic partial differential equations, for data sets generated on demand."""
