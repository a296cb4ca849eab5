"""Incompressible flow on a triangle mesh: values at unobserved nodes by nudging a Navier-Stokes solution."""
