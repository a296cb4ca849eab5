"""Solvers of periodic partial differential equations, which make the project's data sets on demand."""
