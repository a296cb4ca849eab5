"""Triton kernels and their launches. Importing this package requires triton."""

from . import launch, launch_backward, launch_forward

__all__ = ["launch", "launch_backward", "launch_forward"]
