"""Blocked evaluation in plain torch: the CPU backend, and the fallback on other devices."""
