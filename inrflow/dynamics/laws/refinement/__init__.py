"""Refinement of a law: its coefficients along rollouts, initial codes with these, integrator steps and harmonics."""
