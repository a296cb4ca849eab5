"""Refinement of a law that was found: coefficients along its own flow, first codes with them, steps and harmonics."""
