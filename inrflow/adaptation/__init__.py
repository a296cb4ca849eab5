"""Adaptation to new systems from a few trajectories: contexts by one small solve, and further parts where needed."""
