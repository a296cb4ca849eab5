"""Incompressible flow on a triangular mesh, carried along by observations at some of its nodes."""
