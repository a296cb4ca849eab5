"""Data: observations, trajectory files, batches, symmetries. All input is validated here, and files are read lazily."""
