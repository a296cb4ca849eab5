"""Benchmarks of inrflow and the makers of their data; README.md has the commands and the tables."""
