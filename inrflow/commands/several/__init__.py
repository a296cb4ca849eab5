"""Sweeps over settings, and training and extension of runs on several physics by `inrflow train` and `inrflow adapt`.
"""
